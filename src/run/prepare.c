/* SPDX-License-Identifier: GPL-2.0-or-later */
/* prepare.c - what QEMU needs before it can start: UEFI variables, tap devices, the cloud-init seed, the TPM. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/launch.h"
#include "gpuvm/log.h"

static int copy_vars(struct launch *l, struct err *e)
{
	AUTO_FREE char *dir = NULL, *text = NULL;
	AUTO_CLOSE int in = -1;
	struct stat st;
	ssize_t n;
	int r;

	if (!l->plan.vars_file || access(l->plan.vars_file, R_OK | W_OK) == 0)
		return 0;
	dir = xstrndup(l->plan.vars_file, (size_t)(strrchr(l->plan.vars_file, '/') - l->plan.vars_file));
	if ((mkdir(launch_state_dir(), 0755) < 0 && errno != EEXIST) || (mkdir(dir, 0700) < 0 && errno != EEXIST))
		return err_sys(e, -errno, "create '%s'", dir);
	in = open(l->plan.vars_template, O_RDONLY | O_CLOEXEC);
	if (in < 0 || fstat(in, &st) < 0)
		return err_sys(e, -errno, "open the UEFI variables '%s'", l->plan.vars_template);
	text = xcalloc(1, (size_t)st.st_size);
	n = read(in, text, (size_t)st.st_size);
	if (n != st.st_size)
		return err_sys(e, n < 0 ? -errno : -EIO, "read '%s'", l->plan.vars_template);
	r = write_file_atomic(l->plan.vars_file, text, (size_t)n, 0600);
	return r < 0 ? err_sys(e, r, "write '%s'", l->plan.vars_file) : 0;
}

static void close_all(int *fds, int n)
{
	for (int i = 0; i < n && fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(fds);
}

void launch_close_fds(struct launch *l)
{
	for (size_t i = 0; l->fds.taps && i < l->plan.n_taps; i++) {
		close_all(l->fds.taps[i].tap, l->fds.taps[i].queues);
		close_all(l->fds.taps[i].vhost, l->fds.taps[i].queues);
	}
	free(l->fds.taps);
	l->fds = (struct plan_fds){ .control = -1 };
}

int *launch_fds(const struct launch *l, size_t *ret_n)
{
	int *v = NULL;
	size_t n = 0;

	*PUSH_ZEROED(v, n) = l->fds.control;
	for (size_t i = 0; i < l->plan.n_taps; i++) {
		const struct plan_tap_fds *t = &l->fds.taps[i];

		for (int q = 0; q < t->queues; q++) {
			*PUSH_ZEROED(v, n) = t->tap[q];
			if (t->vhost)
				*PUSH_ZEROED(v, n) = t->vhost[q];
		}
	}
	*ret_n = n;
	return v;
}

int launch_prepare(struct launch *l, struct err *e)
{
	return copy_vars(l, e);
}

int launch_unprepare(struct launch *l, int exit_code, struct err *e)
{
	(void)exit_code;
	(void)e;
	launch_close_fds(l);
	return 0;
}
