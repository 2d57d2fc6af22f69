/* SPDX-License-Identifier: GPL-2.0-or-later */
/* limits.c - QEMU's cgroup: made while QEMU waits at its gate, removed when it has ended. Its name is in the claim before. */
#include <string.h>

#include "gpuvm/cgroup.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define PAGE_BYTES 4096
#define GIB	   (UINT64_C(1) << 30)
#define PTY_MAJOR  136 /* devices.txt; up to 143 for more than 256 of them, of which a QEMU has one or two */

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
	AUTO_FREE char *path = cgroup_choose(l->plan.vm);

	/* In a unit there is nothing else to be had of it. */
	if (path && (l->vm.device_filter || !cgroup_is_in_unit(path)))
		l->claim.cgroup = STEAL_PTR(path);
}

/* --- devices ---------------------------------------------------------------------------------------------------- */

struct nodes {
	struct cgroup_device *v;
	size_t n;
};

static void allow(struct nodes *d, const char *path)
{
	struct cgroup_device found;

	if (cgroup_device_of(path, &found))
		*PUSH_ZEROED(d->v, d->n) = found;
}

/* What a header names, which QEMU can write: it is for its user's rights to say whether it may read that; root has them all. */
static void allow_below(struct nodes *d, const char *path)
{
	struct cgroup_device found;

	if (!cgroup_device_of(path, &found) || !found.block)
		return;
	found.read_only = true;
	*PUSH_ZEROED(d->v, d->n) = found;
}

/* Those that the command names, in a disk's file or in an argument of [qemu] args. */
static void allow_named(struct nodes *d, const char *arg)
{
	for (const char *at = strstr(arg, "/dev/"); at; at = strstr(at + 1, "/dev/")) {
		AUTO_FREE char *path = xstrndup(at, strcspn(at, ",; \"'"));

		allow(d, path);
	}
}

/* What QEMU opens without being told: for itself, for KVM and VFIO, for taps. A pty comes from [qemu] args. */
static void allow_implied(const struct launch *l, struct nodes *d)
{
	static const char *const always[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx" };
	static const char *const vfio[] = { "/dev/vfio/vfio", "/dev/iommu" };
	static const char *const net[] = { "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock" };

	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		allow(d, always[i]);
	*PUSH_ZEROED(d->v, d->n) = (struct cgroup_device){ .major = PTY_MAJOR, .any_minor = true };
	for (size_t i = 0; i < ARRAY_SIZE(net); i++)
		allow(d, net[i]);
	if (!strcmp(l->plan.accel, "kvm"))
		allow(d, "/dev/kvm");
	for (size_t i = 0; i < l->plan.n_devices && !l->plan.fake_devices; i++) {
		AUTO_FREE char *node = own_device_node(l, &l->plan.devices[i]);

		allow(d, node);
	}
	for (size_t i = 0; i < ARRAY_SIZE(vfio) && l->plan.n_devices; i++)
		allow(d, vfio[i]);
}

static void limit_devices(struct launch *l, const struct strv *argv)
{
	struct nodes d = { 0 };
	struct err e = { 0 };

	if (!l->claim.cgroup || !l->vm.device_filter)
		return;
	allow_implied(l, &d);
	for (size_t i = 0; i < l->vm.n_disks; i++)
		allow(&d, l->vm.disks[i].file);
	for (size_t i = 0; i < l->below.n && l->identity.uid; i++)
		allow_below(&d, l->below.v[i]);
	for (size_t i = 0; i < argv->n; i++)
		allow_named(&d, argv->v[i]);
	/* A kernel without it is no reason to have no VM; `gpuvm status --security` says so. */
	if (cgroup_allow_devices(l->claim.cgroup, d.v, d.n, &e) < 0)
		log_info("%s: QEMU may open what its user may: %s", l->plan.vm, e.msg);
	free(d.v);
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

void limits_set(struct launch *l, const struct strv *argv)
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
	if (l->claim.cgroup && cgroup_make(l->claim.cgroup, cgroup_is_in_unit(l->claim.cgroup) ? NULL : &limits, l->child.pid, &e) < 0)
		log_warning("%s: QEMU runs without a cgroup of its own: %s", p->vm, e.msg);
	limit_devices(l, argv);
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
