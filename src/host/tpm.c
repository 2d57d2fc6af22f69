/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#include "gpuvm/qmp.h"
#include "gpuvm/tpm.h"

#define STOP_TIMEOUT_MS 2000 /* it writes a few KiB at most */

/* The folder and those above it that are ours: "STATEDIR/tpm/NAME". */
int tpm_make_state(const char *dir, struct err *e)
{
	for (const char *slash = strchr(dir + 1, '/');; slash = strchr(slash + 1, '/')) {
		AUTO_FREE char *part = slash ? xstrndup(dir, (size_t)(slash - dir)) : xstrdup(dir);

		if (mkdir(part, slash ? 0755 : 0700) < 0 && errno != EEXIST)
			return err_sys(e, -errno, "create '%s'", part);
		if (!slash)
			return 0;
	}
}

static int open_log(const char *sock, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%.*s/swtpm.log", (int)(strrchr(sock, '/') - sock), sock);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? err_sys(e, -errno, "create '%s'", path) : fd;
}

int tpm_prepare(const struct plan_tpm *t, const struct cpuset *cpus, const struct spawn_identity *id, bool die_with_parent, struct spawn *ret, struct err *e)
{
	static const char *const options[] = { "socket", "--tpm2", "--tpmstate", "dir=.", "--terminate", "--ctrl" };
	AUTO_CLOSE int listen_fd = -1;
	AUTO_CLOSE int log = -1;
	struct strv argv = { 0 };
	struct spawn_options o = { .argv = &argv,
				   .keep_fds = &listen_fd,
				   .n_keep_fds = 1,
				   .cwd = t->state_dir,
				   .cpus = cpus,
				   .identity = id,
				   .die_with_parent = die_with_parent };
	int r = log = open_log(t->socket, e);

	if (r >= 0)
		r = listen_fd = qmp_listen(t->socket, e);
	if (r >= 0 && id && lchown(t->socket, id->uid, (gid_t)-1) < 0)
		r = err_sys(e, -errno, "give '%s' to uid %u", t->socket, id->uid);
	if (r < 0)
		return err_wrap(e, "TPM");
	o.stderr_fd = log;
	strv_push(&argv, t->program);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		strv_push(&argv, options[i]);
	strv_pushf(&argv, "type=unixio,fd=%d", listen_fd);
	r = spawn_prepare(&o, ret, e);
	strv_clear(&argv);
	return r < 0 ? err_wrap(e, "TPM") : 0;
}

void tpm_stop(struct spawn *s)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };

	/* At its gate it has the signal's default action, and is gone at once. */
	if (s->pid > 0 && s->pidfd >= 0 && pidfd_send_signal(s->pidfd, SIGTERM, NULL, 0) == 0)
		poll(&p, 1, STOP_TIMEOUT_MS);
	spawn_abort(s);
}
