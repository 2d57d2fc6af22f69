/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hooks.c - the operator's own programs at points of a VM's life. */
#include <string.h>

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

static int run_hook(const struct launch *l, const char *name, const char *program, const int *exit_code, struct err *e)
{
	AUTO_FREE char *devices = device_list(&l->claim);
	struct strv env = { 0 };
	int r;

	strv_pushf(&env, "GPUVM_HOOK=%s", name);
	strv_pushf(&env, "GPUVM_VM=%s", l->plan.vm);
	strv_pushf(&env, "GPUVM_VM_DIR=%s", l->plan.rundir);
	/* So that `gpuvm` in a hook finds the same VMs. */
	strv_pushf(&env, "GPUVM_RUNDIR=%s", claim_rundir());
	strv_pushf(&env, "GPUVM_STATEDIR=%s", launch_state_dir());
	strv_pushf(&env, "GPUVM_CONFDIR=%s", launch_config_dir());
	strv_pushf(&env, "GPUVM_DEFINITION=%s", l->claim.definition ? l->claim.definition : "");
	strv_pushf(&env, "GPUVM_DEVICES=%s", devices);
	if (l->child.pid > 0)
		strv_pushf(&env, "GPUVM_QEMU_PID=%d", l->child.pid);
	if (exit_code) {
		strv_pushf(&env, "GPUVM_EXIT_CODE=%d", *exit_code);
		strv_pushf(&env, "GPUVM_REASON=%s", l->reason);
	}
	log_info("%s: hook %s: %s", l->plan.vm, name, program);
	r = hook_run(program, &env, l->plan.hooks.timeout_ms, e);
	strv_clear(&env);
	return r < 0 ? err_wrap(e, "hook %s", name) : 0;
}

int hooks_pre_bind(struct launch *l, struct err *e)
{
	/* From here on its counterpart runs, whatever happens. */
	l->hooked = true;
	return l->plan.hooks.pre_bind ? run_hook(l, "pre-bind", l->plan.hooks.pre_bind, NULL, e) : 0;
}

void hooks_post_start(struct launch *l)
{
	struct err e = { 0 };

	if (l->plan.hooks.post_start && run_hook(l, "post-start", l->plan.hooks.post_start, NULL, &e) < 0) {
		log_warning("%s: %s", l->plan.vm, e.msg);
		launch_note(l, "hook failed", e.msg);
	}
}

int hooks_post_stop(struct launch *l, int exit_code, struct err *e)
{
	struct err why = { 0 };

	(void)e;
	if (!l->hooked)
		return 0;
	l->hooked = false;
	if (l->plan.hooks.post_stop && run_hook(l, "post-stop", l->plan.hooks.post_stop, &exit_code, &why) < 0) {
		log_warning("%s: %s", l->plan.vm, why.msg);
		launch_note(l, "hook failed", why.msg);
	}
	return 0;
}
