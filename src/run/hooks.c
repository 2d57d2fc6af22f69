/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hooks.c - the operator's own programs at points of a VM's life. */
#include <string.h>

#include "gpuvm/events.h"
#include "gpuvm/hook.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"

static char *device_list(const struct claim *c)
{
	char *out = xstrdup("");

	for (size_t i = 0; i < c->n_devices; i++) {
		AUTO_FREE char *before = out;
		char bdf[PCI_ADDR_STR];

		out = xasprintf("%s%s%s", before, i ? " " : "", pci_addr_format(&c->devices[i].addr, bdf));
	}
	return out;
}

/* @env: what only this hook is told. */
static int run_hook(const struct claim *c, const char *name, const char *program, uint64_t timeout_ms, struct strv *env, struct err *e)
{
	AUTO_FREE char *devices = device_list(c);
	int r;

	strv_pushf(env, "GPUVM_HOOK=%s", name);
	strv_pushf(env, "GPUVM_VM=%s", c->vm);
	strv_pushf(env, "GPUVM_VM_DIR=%s", c->rundir);
	/* So that `gpuvm` in a hook finds the same VMs. */
	strv_pushf(env, "GPUVM_RUNDIR=%s", claim_rundir());
	strv_pushf(env, "GPUVM_STATEDIR=%s", launch_state_dir());
	strv_pushf(env, "GPUVM_CONFDIR=%s", launch_config_dir());
	strv_pushf(env, "GPUVM_DEFINITION=%s", c->definition ? c->definition : "");
	strv_pushf(env, "GPUVM_DEVICES=%s", devices);
	log_info("%s: hook %s: %s", c->vm, name, program);
	r = hook_run(program, env, timeout_ms, e);
	strv_clear(env);
	return r < 0 ? err_wrap(e, "hook %s", name) : 0;
}

/* A failure that changes nothing. */
static void note_failure(const struct claim *c, const char *state, const char *why)
{
	struct err e = { 0 };

	log_warning("%s: %s", c->vm, why);
	if (events_add(c->rundir, "hook failed", state, why, &e) < 0)
		log_warning("%s: %s", c->vm, e.msg);
}

int hooks_pre_bind(struct launch *l, struct err *e)
{
	const struct plan_hooks *h = &l->plan.hooks;
	struct strv env = { 0 };

	/* From here on its counterpart runs, whatever happens. */
	l->claim.hooked = h->post_stop;
	if (l->claim.hooked && claim_write(&l->claim, e) < 0) {
		l->claim.hooked = false;
		return e->code;
	}
	return h->pre_bind ? run_hook(&l->claim, "pre-bind", h->pre_bind, h->timeout_ms, &env, e) : 0;
}

void hooks_post_start(struct launch *l)
{
	const struct plan_hooks *h = &l->plan.hooks;
	struct strv env = { 0 };
	struct err e = { 0 };

	if (!h->post_start)
		return;
	strv_pushf(&env, "GPUVM_QEMU_PID=%d", l->child.pid);
	if (run_hook(&l->claim, "post-start", h->post_start, h->timeout_ms, &env, &e) < 0)
		note_failure(&l->claim, l->claim.state, e.msg);
}

/* The claim forgets it only when it has ended: who is killed meanwhile leaves it to the next one. */
static void post_stop(struct claim *c, const struct plan_hooks *h, int exit_code, const char *reason)
{
	struct strv env = { 0 };
	struct err e = { 0 };

	strv_pushf(&env, "GPUVM_EXIT_CODE=%d", exit_code);
	strv_pushf(&env, "GPUVM_REASON=%s", reason);
	if (run_hook(c, "post-stop", h->post_stop, h->timeout_ms, &env, &e) < 0)
		note_failure(c, exit_code ? "failed" : "stopped", e.msg);
	c->hooked = false;
	/* Where /run is full it would be run once more only if we died now. */
	if (claim_write(c, &e) < 0)
		log_warning("%s: %s", c->vm, e.msg);
}

int hooks_post_stop(struct launch *l, int exit_code, struct err *e)
{
	(void)e;
	if (l->claim.hooked && l->plan.hooks.post_stop)
		post_stop(&l->claim, &l->plan.hooks, exit_code, l->reason);
	return 0;
}

void hooks_recovered(struct claim *c, int exit_code)
{
	struct plan p = { 0 };
	struct err e = { 0 };

	if (!c->hooked)
		return;
	if (adopt_read_plan(c->rundir, &p, &e) < 0) {
		err_wrap(&e, "whether there is a hook post-stop, and which, is not known");
		note_failure(c, c->state, e.msg);
	} else if (p.hooks.post_stop) {
		post_stop(c, &p.hooks, exit_code, c->reason);
	}
	plan_clear(&p);
}
