/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/cgroup.h"
#include "gpuvm/parse.h"
#include "gpuvm/security.h"
#include "gpuvm/sysfs.h"

/* What follows @key up to the end of its line, without the blanks around it, owned; NULL: there is no such line. */
static char *line_of(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		const char *value = p + len;
		size_t n;

		if (strncmp(p, key, len) != 0)
			continue;
		value += strspn(value, " \t");
		n = strcspn(value, "\n");
		while (n && strchr(" \t", value[n - 1]))
			n--;
		return xstrndup(value, n);
	}
	return NULL;
}

static int read_status(const char *text, struct security_facts *f)
{
	static const char *const caps[] = { "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:" };
	AUTO_FREE char *uid = line_of(text, "Uid:"), *gid = line_of(text, "Gid:"), *nnp = line_of(text, "NoNewPrivs:"), *seccomp = line_of(text, "Seccomp:");

	f->groups = line_of(text, "Groups:");
	if (!uid || !gid || !f->groups || sscanf(uid, "%u %u %u %u", &f->uids[0], &f->uids[1], &f->uids[2], &f->uids[3]) != 4 ||
	    sscanf(gid, "%u %u %u %u", &f->gids[0], &f->gids[1], &f->gids[2], &f->gids[3]) != 4)
		return -EPROTO;
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++) {
		AUTO_FREE char *hex = line_of(text, caps[i]);

		if (!hex || parse_hex(hex, UINT64_MAX, &f->caps[i]) < 0)
			return -EPROTO;
	}
	f->no_new_privs = nnp && strcmp(nnp, "1") == 0;
	if (!seccomp || parse_int(seccomp, 0, 2, &f->seccomp) < 0)
		f->seccomp = -1;
	return 0;
}

/* "Max locked memory         8388608              8388608              bytes": the hard one. */
static char *limit_of(const char *text, const char *name)
{
	AUTO_FREE char *line = line_of(text, name);
	char soft[32], hard[32];

	return xstrdup(line && sscanf(line, "%31s %31s", soft, hard) == 2 ? hard : "?");
}

static void read_cgroup(const struct sysfs *s, struct security_facts *f)
{
	static const char *const files[] = { "memory.max", "memory.swap.max", "pids.max", "cpuset.cpus", "cpuset.mems" };
	AUTO_FREE char *text = sysfs_read(s, "/proc/%d/cgroup", f->pid);

	f->cgroup = text ? line_of(text, "0::") : NULL;
	f->devices = f->cgroup ? cgroup_limits_devices(f->cgroup) : 0;
	for (size_t i = 0; i < ARRAY_SIZE(files) && f->cgroup; i++) {
		AUTO_FREE char *value = sysfs_read(s, "/sys/fs/cgroup%s/%s", f->cgroup, files[i]);

		if (value && *value)
			strv_pushf(&f->limits, "%s %s", files[i], value);
	}
}

static void read_nodes(const struct sysfs *s, struct security_facts *f)
{
	struct strv fds = { 0 };

	if (sysfs_list(s, &fds, "/proc/%d/fd", f->pid) < 0)
		return;
	for (size_t i = 0; i < fds.n; i++) {
		AUTO_FREE char *link = xasprintf("/proc/%d/fd/%s", f->pid, fds.v[i]);
		char path[PATH_MAX];
		ssize_t n = readlink(link, path, sizeof(path) - 1);

		path[n > 0 ? n : 0] = '\0';
		if (strncmp(path, "/dev/", 5) == 0 && !strv_contains(&f->nodes, path))
			strv_push(&f->nodes, path);
	}
	strv_clear(&fds);
}

int security_read(pid_t pid, const char *rundir, struct security_facts *ret, struct err *e)
{
	struct sysfs s = sysfs_live;
	struct security_facts f = { .pid = pid };
	AUTO_FREE char *status = sysfs_read(&s, "/proc/%d/status", pid), *limits = sysfs_read(&s, "/proc/%d/limits", pid);
	struct stat st;
	int r;

	if (!status || !limits)
		return err_set(e, -ESRCH, "QEMU (pid %d) is gone", pid);
	r = read_status(status, &f);
	if (r < 0 || stat(rundir, &st) < 0) {
		security_facts_clear(&f);
		return r < 0 ? err_set(e, r, "'/proc/%d/status' is not what was expected", pid) : err_sys(e, -errno, "'%s'", rundir);
	}
	f.memlock = limit_of(limits, "Max locked memory");
	f.core = limit_of(limits, "Max core file size");
	f.files = limit_of(limits, "Max open files");
	f.rundir_mode = st.st_mode & 07777;
	f.rundir_uid = st.st_uid;
	f.rundir_gid = st.st_gid;
	read_cgroup(&s, &f);
	read_nodes(&s, &f);
	*ret = f;
	return 0;
}
