/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which host CPUs take the interrupts of passed-through devices: [cpu] interrupts = node.
 *
 * An interrupt that a guest's driver has asked for is first one of the host's, and its handler (vfio wakes KVM) runs on whatever CPU the
 * kernel has picked, perhaps another VM's and on another node.  Where the IOMMU posts interrupts to a running vCPU there is nothing to
 * handle, but for vCPUs that sleep. */
#include "plan_priv.h"

/* On the device's node: the CPUs of QEMU's own threads, so that no vCPU is disturbed; else those of the VM's vCPUs. */
static void choose(struct planner *pl, struct plan_device *d)
{
	const struct topology *t = pl->req->host;
	int node = planner_func(pl, d->func)->node;
	AUTO_FREE char *what = xasprintf("device %s", d->id), *list = NULL;
	struct cpuset set = pl->plan->emulator;
	const char *whose = "QEMU's own threads there";

	if (node < 0) {
		plan_reason(pl->plan, what, "interrupts: left where the kernel puts them, as its node is not known");
		return;
	}
	cpuset_and(&set, &t->nodes[node].cpus);
	if (cpuset_empty(&set)) {
		set = pl->vcpu_cpus;
		cpuset_and(&set, &t->nodes[node].cpus);
		whose = "the VM's vCPUs there, as QEMU's own threads have none on this node";
	}
	list = cpuset_format(&set);
	if (cpuset_empty(&set))
		plan_reason(pl->plan, what, "interrupts: left where the kernel puts them, as the VM has no CPUs on host node %d", t->nodes[node].id);
	else
		plan_reason(pl->plan, what, "interrupts on CPUs %s of host node %d: those of %s ([cpu] interrupts = node)", list, t->nodes[node].id, whose);
	d->irq_cpus = set;
}

int place_interrupts(struct planner *pl)
{
	/* Stand-ins have none, and another machine's CPUs are not here. */
	if (pl->req->vm->interrupts != INTERRUPTS_NODE || pl->plan->fake_devices)
		return 0;
	for (size_t i = 0; i < pl->plan->n_devices; i++)
		choose(pl, &pl->plan->devices[i]);
	return 0;
}
