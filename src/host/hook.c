/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpuvm/hook.h"
#include "gpuvm/spawn.h"

int hook_run(const char *program, const struct strv *env, uint64_t timeout_ms, struct err *e)
{
	struct strv argv = { 0 };
	struct spawn_options o = { .argv = &argv, .env = env, .stderr_fd = -1, .die_with_parent = true };
	struct spawn s = { .pidfd = -1, .go_fd = -1, .exec_fd = -1 };
	struct pollfd p = { .events = POLLIN };
	char text[96];
	int status = 0, n = 0, r;

	strv_push(&argv, program);
	r = spawn_prepare(&o, &s, e);
	if (r == 0)
		r = spawn_go(&s, e);
	strv_clear(&argv);
	if (r < 0)
		return r;
	p.fd = s.pidfd;
	while ((n = poll(&p, 1, (int)timeout_ms)) < 0 && errno == EINTR)
		;
	if (n > 0 && waitpid(s.pid, &status, 0) == s.pid) {
		if (status)
			r = err_set(e, -EREMOTEIO, "'%s' failed: %s", program, spawn_status_text(status, text));
	} else {
		/* It leads a session of its own: what it has started goes with it. */
		kill(-s.pid, SIGKILL);
		r = err_set(e, -ETIMEDOUT, "'%s' did not end within %g s", program, (double)timeout_ms / 1000);
	}
	spawn_abort(&s);
	return r;
}
