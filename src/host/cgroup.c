/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "gpuvm/cgroup.h"
#include "gpuvm/parse.h"

#define SLICE		"/gpuvm.slice"
#define IN_UNIT		"/qemu"
#define REMOVE_MS       5000 /* a process that was killed leaves when it has given its memory back */
#define REMOVE_PAUSE_MS 20

/* Of version 2, owned; NULL: none. */
static char *own_cgroup(void)
{
	AUTO_FREE char *text = NULL;
	const char *line = read_text_file("/proc/self/cgroup", 1 << 16, &text) == 0 ? strstr(text, "0::/") : NULL;

	return line && (line == text || line[-1] == '\n') ? xstrndup(line + 3, strcspn(line + 3, "\n")) : NULL;
}

/* systemd marks what it leaves to others (Delegate=yes), since version 236. */
static char *choose_in_unit(void)
{
	AUTO_FREE char *own = own_cgroup(), *dir = own ? xasprintf(CGROUP_MOUNT "%s", own) : NULL;
	char value[8];

	return dir && getxattr(dir, "trusted.delegate", value, sizeof(value)) == 1 && *value == '1' ? xasprintf("%s" IN_UNIT, own) : NULL;
}

char *cgroup_choose(const char *vm)
{
	struct statfs fs;

	if (statfs(CGROUP_MOUNT, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC || access(CGROUP_MOUNT, W_OK) < 0)
		return NULL;
	return access("/run/systemd/system", F_OK) < 0 ? xasprintf(SLICE "/%s", vm) : choose_in_unit();
}

bool cgroup_is_in_unit(const char *path)
{
	return strncmp(path, SLICE "/", strlen(SLICE "/")) != 0;
}

static int put(const char *path, const char *file, const char *value, struct err *e)
{
	AUTO_FREE char *name = xasprintf(CGROUP_MOUNT "%s/%s", path, file);
	AUTO_CLOSE int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return err_sys(e, -errno, "write '%s' to '%s'", value, name);
	return 0;
}

static int make_folder(const char *path, struct err *e)
{
	AUTO_FREE char *dir = xasprintf(CGROUP_MOUNT "%s", path);

	return mkdir(dir, 0755) < 0 && errno != EEXIST ? err_sys(e, -errno, "create '%s'", dir) : 0;
}

/* Those that there are; without one its limit has no file. */
static void enable(const char *path)
{
	static const char *const controllers[] = { "+cpuset", "+memory", "+pids" };
	struct err ignored;

	for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
		put(path, "cgroup.subtree_control", controllers[i], &ignored);
}

/* @value is consumed. */
static int limit(const char *path, const char *file, char *value, struct err *e)
{
	AUTO_FREE char *name = xasprintf(CGROUP_MOUNT "%s/%s", path, file), *text = value;

	return access(name, F_OK) == 0 ? put(path, file, text, e) : 0;
}

static int set_limits(const char *path, const struct cgroup_limits *l, struct err *e)
{
	int r = 0;

	if (l->memory_bytes) {
		r = limit(path, "memory.max", xasprintf("%" PRIu64, l->memory_bytes), e);
		if (r == 0)
			r = limit(path, "memory.swap.max", xstrdup("0"), e);
	}
	if (r == 0 && l->pids)
		r = limit(path, "pids.max", xasprintf("%" PRIu64, l->pids), e);
	return r == 0 && l->cpus ? limit(path, "cpuset.cpus", cpuset_format(l->cpus), e) : r;
}

int cgroup_make(const char *path, const struct cgroup_limits *limits, pid_t pid, struct err *e)
{
	AUTO_FREE char *number = xasprintf("%d", pid);
	int r = 0;

	if (!cgroup_is_in_unit(path)) {
		r = make_folder(SLICE, e);
		enable("");
		enable(SLICE);
	}
	if (r == 0)
		r = make_folder(path, e);
	if (r == 0 && limits)
		r = set_limits(path, limits, e);
	return r == 0 ? put(path, "cgroup.procs", number, e) : r;
}

int cgroup_remove(const char *path, struct err *e)
{
	AUTO_FREE char *dir = xasprintf(CGROUP_MOUNT "%s", path);
	const struct timespec pause = { .tv_nsec = REMOVE_PAUSE_MS * 1000000 };
	struct err ignored;

	/* cgroup.kill: since Linux 5.14; before, what is left in it is an error. */
	if (rmdir(dir) < 0 && errno == EBUSY)
		put(path, "cgroup.kill", "1", &ignored);
	for (unsigned int waited = 0; rmdir(dir) < 0 && errno != ENOENT; waited += REMOVE_PAUSE_MS) {
		if (errno != EBUSY || waited >= REMOVE_MS)
			return err_sys(e, -errno, "remove '%s'", dir);
		nanosleep(&pause, NULL);
	}
	return 0;
}
