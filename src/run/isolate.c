/* SPDX-License-Identifier: GPL-2.0-or-later */
/* isolate.c - would this VM break the isolation between tenants (audit.h), beside those that run and as the host is now? */
#include "gpuvm/audit.h"
#include "gpuvm/launch.h"

static void refuse(struct problems *ps, const struct doctor_finding *f)
{
	struct problem *p = problems_add(ps, PROBLEM_HOST, f->refusal, "%s: %s", f->subject, f->text);

	problem_hint(p, "%s; `gpuvm audit` has it all. gpuvm-launch --force-insecure starts the VM all the same", f->fix);
	if (f->devices.n)
		problem_device(p, f->devices.v[0]);
}

static void warn(struct launch *l, const struct doctor_finding *f)
{
	bool forced = l->opt->force_insecure;

	plan_warn(&l->plan, f->refusal ? f->refusal : "isolation-weak", "%s: %s%s", f->subject, f->text,
		  !f->refusal ? "" : forced ? " (--force-insecure)" : "; a start is refused");
}

void launch_isolate(struct launch *l, struct problems *ps)
{
	bool foreign = l->opt->sysroot || l->opt->topology_xml, only_warn = l->opt->force_insecure || l->opt->dry_run;
	struct doctor_facts facts = { 0 };
	struct doctor_report r = { 0 };
	AUTO_FREE bool *wanted = NULL;
	struct audit a;

	if (!l->plan.n_binds || foreign)
		return;
	audit_init(&a, &l->host);
	for (size_t i = 0; i < l->use.n_devices && !l->opt->ignore_use; i++)
		audit_give(&a, audit_add_vm(&a, l->use.devices[i].vm, false), &l->use.devices[i].addr);
	for (size_t i = 0; i < l->plan.n_binds; i++)
		audit_give(&a, audit_add_vm(&a, l->plan.vm, false), &l->plan.binds[i].addr);
	wanted = audit_wanted(&a);
	doctor_facts_read_isolation("", &l->host, wanted, &facts);
	audit_check(&a, &facts, &r);
	audit_keep(&r, l->plan.vm);
	for (size_t i = 0; i < r.n; i++) {
		if (r.v[i].severity != DOCTOR_PROBLEM)
			continue;
		if (r.v[i].refusal && !only_warn)
			refuse(ps, &r.v[i]);
		else
			warn(l, &r.v[i]);
	}
	doctor_report_clear(&r);
	doctor_facts_clear(&facts);
	audit_clear(&a);
}
