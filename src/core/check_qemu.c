/* SPDX-License-Identifier: GPL-2.0-or-later */
/* check_qemu.c - what a plan as a whole needs of QEMU. Options of their own ask where they are added (arg_needs). */
#include <errno.h>
#include <string.h>

#include "plan_priv.h"

#define MACHINES_NAMED 4
#define SLOW_BAR_BYTES (UINT64_C(64) << 30)

static void lacks(struct planner *pl, enum qemu_feature feature, const char *for_what)
{
	problem_hint(problems_add(pl->ps, PROBLEM_HOST, "qemu-lacks", "%s: QEMU %s does not have %s", for_what, pl->plan->qemu_version,
				  qemu_feature_what(feature)),
		     "QEMU %s is the first that has it, if it is built in; [qemu] binary or --qemu names another one", qemu_feature_since(feature));
}

/* "q35, pc-q35-7.2, pc-q35-7.1, ..."; owned. The newest are the last. */
static char *newest_machines(const struct qemu_info *q)
{
	char *list = xstrdup("q35");
	int named = 0;

	for (size_t i = q->n_machines; i-- > 0 && named++ < MACHINES_NAMED;) {
		char *longer = xasprintf("%s, %s", list, q->machines[i].name);

		free(list);
		list = longer;
	}
	return list;
}

static void check_machine(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	AUTO_FREE char *list = NULL;

	if (!vm->machine || qemu_machine_vcpus(pl->req->qemu, vm->machine))
		return;
	list = newest_machines(pl->req->qemu);
	problem_hint(config_problem(pl->ps, vm, "vm", "machine", "machine-unknown", "[vm] machine: QEMU %s has no q35 machine '%s'",
				    pl->plan->qemu_version, vm->machine),
		     "it has %s, ...; without the key the newest is used", list);
}

static bool is_set(const struct vm_config *vm, const char *section, const char *key)
{
	for (size_t i = 0; i < vm->n_origins; i++)
		if (strcmp(vm->origins[i].section, section) == 0 && strcmp(vm->origins[i].key, key) == 0)
			return true;
	return false;
}

/* Asked for, it must be there; as a default it is something we would merely like. */
static void check_sandbox(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;

	if (!vm->sandbox || qemu_has(pl->req->qemu, QF_SANDBOX))
		return;
	if (is_set(vm, "security", "sandbox"))
		problem_hint(config_problem(pl->ps, vm, "security", "sandbox", "qemu-lacks", "[security] sandbox: QEMU %s does not have %s",
					    pl->plan->qemu_version, qemu_feature_what(QF_SANDBOX)),
			     "leave the key out, or use a QEMU that is built with it (since %s)", qemu_feature_since(QF_SANDBOX));
	else
		plan_reason(pl->plan, "sandbox", "left out: QEMU %s does not have %s", pl->plan->qemu_version, qemu_feature_what(QF_SANDBOX));
}

static void check_devices(struct planner *pl)
{
	if (!pl->plan->n_devices)
		return;
	if (pl->req->fake_devices && !qemu_has(pl->req->qemu, QF_STAND_IN))
		lacks(pl, QF_STAND_IN, "--fake-devices");
	if (!pl->req->fake_devices && !qemu_has(pl->req->qemu, QF_VFIO))
		lacks(pl, QF_VFIO, "[place]");
}

/* QEMU 9.2 maps BARs at addresses for which the kernel can use pages of 1 GiB (commit 00b519c0). Before,
 * a BAR is mapped page by page whenever the guest turns memory decoding on: minutes for 8 GPUs.  No answer shows it. */
static void warn_slow_bars(struct planner *pl)
{
	struct plan *p = pl->plan;
	uint64_t largest = 0;
	char size[32];

	if (qemu_at_least(pl->req->qemu, 9, 2) || pl->req->fake_devices || strcmp(p->accel, "kvm") != 0)
		return;
	for (size_t i = 0; i < p->n_devices; i++)
		for (size_t k = 0; k < ARRAY_SIZE(p->devices[i].bars); k++)
			if (p->devices[i].bars[k] > largest)
				largest = p->devices[i].bars[k];
	if (largest >= SLOW_BAR_BYTES)
		plan_warn(p, "qemu-slow-bars", "QEMU %s maps BARs of %s in small pages: the guest's start takes minutes longer than with QEMU 9.2",
			  p->qemu_version, format_size(largest, size));
}

static void explain_links(struct planner *pl)
{
	const struct plan *p = pl->plan;

	if (qemu_has(pl->req->qemu, QF_LINK_64GT))
		return;
	for (size_t i = 0; i < p->n_ports; i++) {
		if (p->ports[i].link.mts <= 16000)
			continue;
		plan_reason(pl->plan, "links", "root ports report 16 GT/s where the host has more: QEMU %s does not have %s (since %s)", p->qemu_version,
			    qemu_feature_what(QF_LINK_64GT), qemu_feature_since(QF_LINK_64GT));
		return;
	}
}

static void explain_preallocation(struct planner *pl)
{
	const struct plan *p = pl->plan;

	if (qemu_has(pl->req->qemu, QF_THREAD_CONTEXT))
		return;
	for (size_t i = 0; i < p->n_nodes; i++) {
		if (!p->nodes[i].prealloc)
			continue;
		plan_reason(pl->plan, "memory", "pages are prepared on whatever CPU: QEMU %s does not have %s (since %s)", p->qemu_version,
			    qemu_feature_what(QF_THREAD_CONTEXT), qemu_feature_since(QF_THREAD_CONTEXT));
		return;
	}
}

void planner_check_qemu(struct planner *pl)
{
	check_machine(pl);
	check_sandbox(pl);
	check_devices(pl);
	warn_slow_bars(pl);
	explain_links(pl);
	explain_preallocation(pl);
}
