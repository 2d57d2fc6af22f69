/* SPDX-License-Identifier: GPL-2.0-or-later */
/* prepare.c - what QEMU needs before it can start: UEFI variables, tap devices, the cloud-init seed, the TPM. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/affinity.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/module.h"
#include "gpuvm/seed.h"
#include "gpuvm/tap.h"
#include "gpuvm/tpm.h"

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
	if ((mkdir(launch_state_dir(), 0755) < 0 && errno != EEXIST) || (mkdir(dir, 0711) < 0 && errno != EEXIST))
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

/* --- networks -------------------------------------------------------------------------------------------- */

/* Each queue pair is one or two open files here and, with its eventfds, up to six in QEMU, which inherits the limit:
 * the usual soft one of 1024 is soon reached. The hard one is what the system allows. */
static int raise_file_limit(struct err *e)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return err_sys(e, -errno, "read the limit of open files");
	lim.rlim_cur = lim.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &lim) < 0 ? err_sys(e, -errno, "raise the limit of open files") : 0;
}

static int open_taps(struct launch *l, struct err *e)
{
	int r = l->plan.n_taps ? raise_file_limit(e) : 0;

	if (r < 0 || !l->plan.n_taps)
		return r;
	l->fds.taps = xcalloc(l->plan.n_taps, sizeof(*l->fds.taps));
	for (size_t i = 0; i < l->plan.n_taps && r == 0; i++)
		r = tap_open(&l->plan.taps[i], &l->fds.taps[i], e);
	return r;
}

void launch_close_fds(struct launch *l)
{
	for (size_t i = 0; l->fds.taps && i < l->plan.n_taps; i++)
		tap_close(&l->fds.taps[i]);
	free(l->fds.taps);
	for (size_t i = 0; l->fds.opens && i < l->plan.n_opens; i++)
		if (l->fds.opens[i] >= 0)
			close(l->fds.opens[i]);
	free(l->fds.opens);
	l->fds = (struct plan_fds){ .control = -1 };
}

int *launch_fds(const struct launch *l, size_t *ret_n)
{
	int *v = NULL;
	size_t n = 0;

	*PUSH_ZEROED(v, n) = l->fds.control;
	for (size_t i = 0; i < l->plan.n_opens; i++)
		*PUSH_ZEROED(v, n) = l->fds.opens[i];
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

/* --- TPM, vsock ------------------------------------------------------------------------------------------- */

int launch_start_tpm(struct launch *l, struct err *e)
{
	const struct cpuset *cpus = l->plan.foreign_host ? NULL : &l->plan.emulator;
	struct claim_helper *h;
	int r;

	if (!l->plan.tpm.state_dir)
		return 0;
	r = tpm_prepare(&l->plan.tpm, cpus, l->user.set ? &l->identity : NULL, l->plan.on_launcher_death == DEATH_STOP, &l->tpm, e);
	if (r < 0)
		return r;
	h = PUSH_ZEROED(l->claim.helpers, l->claim.n_helpers);
	h->name = xstrdup("swtpm");
	h->pid = l->tpm.pid;
	h->start = process_start_time(l->tpm.pid);
	r = claim_write(&l->claim, e);
	return r == 0 ? spawn_go(&l->tpm, e) : r;
}

/* The node comes with the module. */
static int load_vsock(struct launch *l, struct err *e)
{
	return l->plan.vsock && access("/dev/vhost-vsock", F_OK) < 0 ? module_load("vhost_vsock", e) : 0;
}

int launch_stop_tpm(struct launch *l, int exit_code, struct err *e)
{
	(void)exit_code;
	tpm_stop(&l->tpm);
	/* One that another launcher has started is no child of ours. */
	return l->adopted ? claim_stop_helpers(&l->claim, e) : 0;
}

int launch_prepare(struct launch *l, struct err *e)
{
	int r = copy_vars(l, e);

	if (r == 0)
		r = open_taps(l, e);
	if (r == 0 && l->plan.seed.image)
		r = seed_make(&l->plan.seed, e);
	if (r == 0 && l->plan.check.image)
		r = seed_make(&l->plan.check, e);
	if (r == 0)
		r = load_vsock(l, e);
	return r == 0 && l->plan.tpm.state_dir ? tpm_make_state(l->plan.tpm.state_dir, e) : r;
}

int launch_unprepare(struct launch *l, int exit_code, struct err *e)
{
	(void)exit_code;
	launch_close_fds(l);
	return l->plan.seed.image || l->plan.check.image || l->adopted ? seed_remove(l->plan.rundir, e) : 0;
}
