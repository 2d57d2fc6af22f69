/* SPDX-License-Identifier: GPL-2.0-or-later */
/* limits.c - QEMU's cgroup: made while QEMU waits at its gate, removed when it has ended. Its name is in the claim before. */
#include <string.h>

#include "gpuvm/cgroup.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define PAGE_BYTES 4096
#define GIB	   (UINT64_C(1) << 30)

/* What is not in huge pages, and what QEMU and the kernel need for it: tables of pages (host's, KVM's, the IOMMU's, 1/512 each), buffers, caches of
 * disks, which give way.  Not an estimate: what a guest drives QEMU to use of the host ends here and not with the host. Stand-ins' memory is not in the plan. */
static uint64_t memory_limit(const struct plan *p)
{
	uint64_t small = 0;

	for (size_t i = 0; i < p->n_nodes; i++)
		if (p->nodes[i].page_bytes <= PAGE_BYTES)
			small += p->nodes[i].memory_bytes;
	return p->fake_devices ? 0 : small + plan_memory_bytes(p) / 32 + 4 * GIB;
}

/* Everywhere that a thread of QEMU may be put, so that late ones stay there, too. */
static struct cpuset all_cpus(const struct plan *p)
{
	struct cpuset set = p->emulator;

	for (size_t i = 0; i < p->n_nodes; i++) {
		cpuset_or(&set, &p->nodes[i].prealloc_cpus);
		cpuset_or(&set, &p->nodes[i].host_cpus);
	}
	for (size_t i = 0; i < p->n_vcpus; i++)
		if (p->vcpus[i].host_cpu >= 0)
			cpuset_add(&set, p->vcpus[i].host_cpu);
	for (size_t i = 0; i < p->n_iothreads; i++)
		cpuset_or(&set, &p->iothreads[i].host_cpus);
	return set;
}

void limits_name(struct launch *l)
{
	l->claim.cgroup = cgroup_choose(l->plan.vm);
}

void limits_set(struct launch *l)
{
	const struct plan *p = &l->plan;
	struct cpuset cpus = all_cpus(p);
	const struct cgroup_limits limits = {
		.memory_bytes = memory_limit(p),
		/* Its pools have up to 64 threads each. */
		.pids = 1024 + p->n_vcpus + 64 * p->n_iothreads,
		.cpus = p->foreign_host || cpuset_empty(&cpus) ? NULL : &cpus,
	};
	struct err e = { 0 };

	/* A host that does not allow it is no reason to have no VM. */
	if (l->claim.cgroup && cgroup_make(l->claim.cgroup, &limits, l->child.pid, &e) < 0)
		log_warning("%s: QEMU runs without a cgroup's limits: %s", p->vm, e.msg);
}

int limits_remove(struct claim *c, struct err *e)
{
	int r = c->cgroup ? cgroup_remove(c->cgroup, e) : 0;

	if (r == 0) {
		free(c->cgroup);
		c->cgroup = NULL;
	}
	return r;
}
