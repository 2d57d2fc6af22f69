/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What must hold of every plan: devices, CPUs, memory, and the guest's tree beside the host's. */
#include <string.h>

#include "property.h"

#define SMALL_PAGE 4096

static const struct pci_func *func_of(const struct trial *t, const struct plan_device *d)
{
	return &t->host.funcs[d->func];
}

static bool is_auto(const struct plan_device *d, const char *role)
{
	size_t n = strlen(role);

	return strncmp(d->id, role, n) == 0 && strspn(d->id + n, "0123456789") == strlen(d->id + n);
}

static int count_auto(const struct plan *p, const char *role)
{
	int n = 0;

	for (size_t i = 0; i < p->n_devices; i++)
		n += is_auto(&p->devices[i], role);
	return n;
}

static bool has_func(const struct plan *p, int func)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (p->devices[i].func == func)
			return true;
	return false;
}

static bool has_warning(const struct plan *p, const char *code)
{
	for (size_t i = 0; i < p->n_warnings; i++)
		if (strcmp(p->warnings[i].code, code) == 0)
			return true;
	return false;
}

/* --- devices ------------------------------------------------------------------------------------------ */

/* GPUs, and NICs and NVMe controllers by number; not what comes along with others, which may be named. */
static bool is_by_number(const struct trial *t, const struct plan_device *d)
{
	return is_auto(d, "gpu") || (is_auto(d, "nic") && t->vm.nics >= 0) || (is_auto(d, "nvme") && t->vm.nvme >= 0);
}

static void check_device(const struct trial *t, const struct plan *p, size_t i)
{
	const struct plan_device *d = &p->devices[i];
	const struct pci_func *f;
	bool force = d->options && d->options->force;

	CHECK(t, d->func >= 0 && d->func < (int)t->host.n_funcs, "%s is no function", d->id);
	f = func_of(t, d);
	CHECK(t, pci_addr_cmp(&f->addr, &d->addr) == 0, "%s has another address", d->id);
	CHECK(t, f->role != ROLE_BRIDGE, "%s is a bridge", d->id);
	CHECK(t, !f->host_use || force, "%s is used by the host", d->id);
	CHECK(t, !f->bad, "%s is bad: %s", d->id, f->bad);
	CHECK(t, !f->sriov_vfs, "%s has virtual functions switched on", d->id);
	CHECK(t, !property_device_user(t, &d->addr), "%s is held by %s", d->id, property_device_user(t, &d->addr));
	CHECK(t, t->host.iommu_groups && t->host.vfio, "%s is passed without IOMMU or vfio", d->id);
	CHECK(t, t->vm.socket < 0 || f->socket == t->vm.socket || !is_by_number(t, d),
	      "%s is on socket %d, [place] socket is %d", d->id, f->socket, t->vm.socket);
	for (size_t k = 0; k < i; k++)
		CHECK(t, p->devices[k].func != d->func, "%s and %s are one function", d->id, p->devices[k].id);
}

/* The rest of the IOMMU group must be without a driver of the host; what is in the same slot comes along. */
static void check_group(const struct trial *t, const struct plan *p, const struct plan_device *d)
{
	const struct pci_func *f = func_of(t, d);

	for (size_t i = 0; i < t->host.n_funcs && f->iommu_group >= 0; i++) {
		const struct pci_func *m = &t->host.funcs[i];

		if (m->iommu_group != f->iommu_group || m->role == ROLE_BRIDGE || has_func(p, (int)i))
			continue;
		CHECK(t, !*m->driver || !strncmp(m->driver, "vfio", 4) || !strcmp(m->driver, "pci-stub"),
		      "%s: group %d also has %s with driver %s", d->id, f->iommu_group, m->name, m->driver);
		CHECK(t, m->addr.domain != f->addr.domain || m->addr.bus != f->addr.bus || m->addr.dev != f->addr.dev,
		      "%s: its companion %s is left behind", d->id, m->name);
	}
}

static void check_gpus(const struct trial *t, const struct plan *p)
{
	const struct vm_config *vm = &t->vm;
	int last = -1;

	if (vm->gpus > 0 && vm->gpu_index >= 0) {
		for (int g = vm->gpu_index; g < vm->gpu_index + vm->gpus; g++)
			CHECK(t, has_func(p, topology_find_gpu(&t->host, g)), "GPU %d is not in the plan", g);
		return;
	}
	CHECK(t, count_auto(p, "gpu") == vm->gpus, "%d GPUs, not %d", count_auto(p, "gpu"), vm->gpus);
	for (size_t i = 0; i < p->n_devices; i++) {
		if (!is_auto(&p->devices[i], "gpu"))
			continue;
		CHECK(t, func_of(t, &p->devices[i])->gpu_index > last, "the GPUs are not in order");
		last = func_of(t, &p->devices[i])->gpu_index;
	}
}

static enum pci_relation nearest(const struct trial *t, const struct plan *p, int func, bool ours)
{
	enum pci_relation best = REL_SYS;

	for (int g = 0; g < topology_n_gpus(&t->host); g++) {
		int gpu = topology_find_gpu(&t->host, g);
		enum pci_relation r = topology_relation(&t->host, gpu, func);

		if ((!ours || has_func(p, gpu)) && r < best)
			best = r;
	}
	return best;
}

/* Chosen for the VM, not come along with another function of its slot. */
static bool is_chosen(const struct plan *p, int func)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (p->devices[i].func == func)
			return !strchr(p->devices[i].id, '.');
	return false;
}

/* Do all GPUs that are as near as the nearest one belong to the VM? */
static bool owned(const struct trial *t, const struct plan *p, int func)
{
	enum pci_relation best = nearest(t, p, func, false);

	if (best > REL_PXB)
		return false;
	for (int g = 0; g < topology_n_gpus(&t->host); g++) {
		int gpu = topology_find_gpu(&t->host, g);

		if (topology_relation(&t->host, gpu, func) == best && !is_chosen(p, gpu))
			return false;
	}
	return true;
}

static bool available(const struct trial *t, const struct pci_func *f)
{
	return !f->bad && !f->host_use && !f->sriov_vfs && !f->is_vf && !property_device_user(t, &f->addr);
}

static void check_peers(const struct trial *t, const struct plan *p, enum pci_role role, int want)
{
	const char *word = pci_role_word(role);

	if (want >= 0) {
		CHECK(t, count_auto(p, word) == want, "%d devices '%s', not %d", count_auto(p, word), word, want);
		return;
	}
	if (!t->vm.gpus)
		return;
	for (size_t i = 0; i < p->n_devices; i++)
		if (is_auto(&p->devices[i], word))
			CHECK(t, nearest(t, p, p->devices[i].func, true) <= REL_PXB,
			      "%s shares no switch with a GPU of the VM", p->devices[i].id);
	for (size_t i = 0; i < t->host.n_funcs; i++)
		if (t->host.funcs[i].role == role && available(t, &t->host.funcs[i]) && owned(t, p, (int)i))
			CHECK(t, has_func(p, (int)i), "%s belongs to GPUs of the VM and is left out",
			      t->host.funcs[i].name);
}

static void check_lists(const struct trial *t, const struct plan *p)
{
	AUTO_FREE int *seen = xcalloc(p->n_devices, sizeof(*seen));

	CHECK(t, p->n_binds == p->n_devices, "%zu binds for %zu devices", p->n_binds, p->n_devices);
	for (size_t i = 0; i < p->n_binds; i++) {
		const char *driver = func_of(t, &p->devices[i])->driver;

		CHECK(t, pci_addr_cmp(&p->binds[i].addr, &p->devices[i].addr) == 0, "bind %zu is of another device", i);
		CHECK(t, !strcmp(p->binds[i].from ? p->binds[i].from : "", driver), "%s comes from %s",
		      p->devices[i].id, driver);
	}
	for (size_t i = 0; i < p->n_groups; i++)
		for (size_t k = 0; k < p->groups[i].n_devices; k++)
			seen[p->groups[i].devices[k]]++;
	for (size_t i = 0; i < p->n_devices; i++)
		CHECK(t, seen[i] == 1, "%s is in %d groups", p->devices[i].id, seen[i]);
	for (size_t i = 0; i < t->vm.n_devices; i++)
		CHECK(t, has_func(p, topology_find_func(&t->host, &t->vm.devices[i].pci)), "[device %s] is left out",
		      t->vm.devices[i].name);
}

static void check_devices(const struct trial *t, const struct plan *p)
{
	for (size_t i = 0; i < p->n_devices; i++) {
		check_device(t, p, i);
		check_group(t, p, &p->devices[i]);
	}
	check_gpus(t, p);
	check_peers(t, p, ROLE_NIC, t->vm.nics);
	check_peers(t, p, ROLE_NVME, t->vm.nvme);
	check_lists(t, p);
}

/* --- CPUs ---------------------------------------------------------------------------------------------- */

static const struct plan_node *node_of(const struct trial *t, const struct plan *p, int guest_node)
{
	CHECK(t, guest_node >= 0 && guest_node < (int)p->n_nodes, "guest node %d is not there", guest_node);
	return &p->nodes[guest_node];
}

static void check_pinned(const struct trial *t, const struct plan *p, const struct plan_vcpu *v)
{
	const struct host_cpu *c = topology_cpu(&t->host, v->host_cpu);
	const struct plan_node *n = node_of(t, p, v->guest_node);

	CHECK(t, c, "CPU %d is not there", v->host_cpu);
	CHECK(t, cpuset_has(&t->host.allowed, c->cpu), "CPU %d is not ours to use", c->cpu);
	CHECK(t, !property_cpu_used(t, c->cpu), "CPU %d is used by another VM", c->cpu);
	if (t->vm.pin == PIN_LIST) {
		CHECK(t, c->cpu == t->vm.pin_cpus[v->vcpu], "vCPU %d is not where [cpu] pin says", v->vcpu);
		return;
	}
	CHECK(t, t->host.nodes[c->node].id == n->host_node, "vCPU %d of host node %d is on CPU %d", v->vcpu,
	      n->host_node, c->cpu);
	CHECK(t, !property_core_reserved(t, n->host_node, c->core), "CPU %d is reserved", c->cpu);
	for (size_t i = 0; i < t->host.n_cpus; i++)
		CHECK(t, t->host.cpus[i].core != c->core || !property_cpu_used(t, t->host.cpus[i].cpu),
		      "CPU %d is of a core that another VM uses", c->cpu);
}

/* Cores are not shared but by the threads of a guest core. */
static void check_cores(const struct trial *t, const struct plan *p)
{
	for (size_t i = 0; i < p->n_vcpus; i++) {
		const struct host_cpu *a = topology_cpu(&t->host, p->vcpus[i].host_cpu);

		for (size_t k = 0; a && k < i; k++) {
			const struct host_cpu *b = topology_cpu(&t->host, p->vcpus[k].host_cpu);
			bool same_guest =
				p->vcpus[i].socket == p->vcpus[k].socket && p->vcpus[i].core == p->vcpus[k].core;

			CHECK(t, a->cpu != b->cpu, "CPU %d is given twice", a->cpu);
			if (t->vm.pin == PIN_AUTO)
				CHECK(t, (a->core == b->core) == same_guest, "vCPUs %zu and %zu: CPUs %d and %d", k, i,
				      b->cpu, a->cpu);
		}
	}
}

static void check_numbers(const struct trial *t, const struct plan *p)
{
	int n = (int)p->n_vcpus, per_socket = p->smp_cores * p->smp_threads;

	CHECK(t, n > 0 && p->smp_sockets * per_socket == n, "%d x %d x %d is not %d vCPUs", p->smp_sockets,
	      p->smp_cores, p->smp_threads, n);
	CHECK(t, t->vm.vcpus <= 0 || n == t->vm.vcpus, "%d vCPUs, not %d", n, t->vm.vcpus);
	CHECK(t, t->vm.threads <= 0 || t->vm.pin == PIN_LIST || p->smp_threads == t->vm.threads,
	      "%d threads per core, not %d", p->smp_threads, t->vm.threads);
	for (int i = 0; i < n; i++) {
		const struct plan_vcpu *v = &p->vcpus[i];

		CHECK(t, v->vcpu == i, "vCPU %d is called %d", i, v->vcpu);
		CHECK(t,
		      (v->socket * p->smp_cores + v->core) * p->smp_threads + v->thread == i &&
			      v->thread < p->smp_threads && v->core < p->smp_cores,
		      "vCPU %d is socket %d core %d thread %d", i, v->socket, v->core, v->thread);
		if (i && t->vm.pin != PIN_LIST)
			CHECK(t, v->guest_node >= p->vcpus[i - 1].guest_node, "the vCPUs of node %d are not contiguous",
			      v->guest_node);
		if (i && p->smp_sockets > 1)
			CHECK(t, (v->guest_node == p->vcpus[i - 1].guest_node) == (v->socket == p->vcpus[i - 1].socket),
			      "vCPU %d: node and socket differ", i);
		if (i && v->thread)
			CHECK(t, v->guest_node == p->vcpus[i - 1].guest_node, "vCPU %d: a core on two nodes", i);
	}
}

/* The host's part: never empty, and apart from the vCPUs. */
static void check_rest(const struct trial *t, const struct plan *p)
{
	struct cpuset pinned = { 0 };

	for (size_t i = 0; i < p->n_vcpus; i++)
		cpuset_add(&pinned, p->vcpus[i].host_cpu);
	CHECK(t, !cpuset_empty(&p->emulator), "QEMU's own threads have no CPU");
	CHECK(t, cpuset_subset(&p->emulator, &t->host.allowed), "QEMU's own threads are on CPUs that are not ours");
	CHECK(t, cpuset_subset(&p->housekeeping, &t->host.allowed), "housekeeping CPUs are not ours");
	if (!has_warning(p, "no-reserve"))
		CHECK(t, !cpuset_intersects(&p->housekeeping, &pinned), "housekeeping CPUs have vCPUs");
	for (size_t i = 0; i < p->n_iothreads; i++)
		CHECK(t, !cpuset_empty(&p->iothreads[i].host_cpus), "%s has no CPU", p->iothreads[i].id);
}

static void check_cpus(const struct trial *t, const struct plan *p)
{
	bool floating = p->n_vcpus && p->vcpus[0].host_cpu < 0;

	check_numbers(t, p);
	CHECK(t, !floating || t->vm.pin == PIN_OFF || (!p->n_devices && has_warning(p, "cpus-unpinned")),
	      "the vCPUs are not pinned");
	for (size_t i = 0; i < p->n_vcpus; i++) {
		CHECK(t, (p->vcpus[i].host_cpu < 0) == floating, "some vCPUs are pinned");
		if (!floating)
			check_pinned(t, p, &p->vcpus[i]);
	}
	check_cores(t, p);
	check_rest(t, p);
}

/* --- memory -------------------------------------------------------------------------------------------- */

static void check_node(const struct trial *t, const struct plan *p, int i)
{
	const struct plan_node *n = &p->nodes[i];
	int node = topology_find_node(&t->host, n->host_node);
	const struct hugepage_pool *pool;

	CHECK(t, n->guest_node == i && node >= 0, "guest node %d is host node %d", i, n->host_node);
	CHECK(t, i == 0 || topology_find_node(&t->host, p->nodes[i - 1].host_node) < node,
	      "the guest's nodes are not in the host's order");
	CHECK(t, n->memory_bytes && n->memory_bytes % n->page_bytes == 0, "node %d has %llu bytes in pages of %llu", i,
	      (unsigned long long)n->memory_bytes, (unsigned long long)n->page_bytes);
	if (n->page_bytes == SMALL_PAGE) {
		CHECK(t, n->memory_bytes <= t->host.nodes[node].mem_bytes, "node %d has more memory than the host's",
		      i);
		return;
	}
	pool = host_node_pool(&t->host.nodes[node], n->page_bytes);
	CHECK(t,
	      pool && n->memory_bytes + property_promised(t, n->host_node, n->page_bytes) <= pool->free * n->page_bytes,
	      "node %d: the pool has not that many free pages", i);
}

static void check_memory(const struct trial *t, const struct plan *p)
{
	uint64_t sum = 0;

	CHECK(t, p->n_nodes > 0, "no node");
	for (int i = 0; i < (int)p->n_nodes; i++) {
		check_node(t, p, i);
		sum += p->nodes[i].memory_bytes;
		CHECK(t, p->nodes[i].page_bytes == p->nodes[0].page_bytes, "pages of two sizes");
	}
	CHECK(t, !t->vm.memory_bytes || sum == t->vm.memory_bytes, "%llu bytes, not %llu", (unsigned long long)sum,
	      (unsigned long long)t->vm.memory_bytes);
	CHECK(t, t->vm.hugepage_bytes <= 0 || p->nodes[0].page_bytes == (uint64_t)t->vm.hugepage_bytes,
	      "another page size than asked for");
}

/* --- the guest's tree beside the host's ------------------------------------------------------------------- */

static const struct plan_port *port(const struct plan *p, const char *id)
{
	for (size_t i = 0; i < p->n_ports; i++)
		if (strcmp(p->ports[i].id, id) == 0)
			return &p->ports[i];
	return NULL;
}

/* The guest node that a device reports: that of the pxb above it. */
static int seen_node(const struct plan *p, const struct plan_device *d)
{
	const struct plan_port *at = port(p, d->guest_port);

	while (at && at->kind != GPORT_PXB)
		at = port(p, at->parent);
	return at ? at->guest_node : -1;
}

static bool below(const struct plan *p, const struct plan_device *d, const struct plan_port *sw)
{
	for (const struct plan_port *at = port(p, d->guest_port); at; at = port(p, at->parent))
		if (at == sw)
			return true;
	return false;
}

static bool share_switch(const struct plan *p, const struct plan_device *a, const struct plan_device *b)
{
	for (size_t i = 0; i < p->n_ports; i++)
		if (p->ports[i].kind == GPORT_UPSTREAM && below(p, a, &p->ports[i]) && below(p, b, &p->ports[i]))
			return true;
	return false;
}

static void check_pair(const struct trial *t, const struct plan *p, const struct plan_device *a,
		       const struct plan_device *b)
{
	enum pci_relation host = topology_relation(&t->host, a->func, b->func);

	if (seen_node(p, a) != seen_node(p, b))
		return;
	CHECK(t, share_switch(p, a, b) == (t->vm.pcie == PCIE_MIRROR && host <= REL_PXB),
	      "%s and %s are %s on the host", a->id, b->id, pci_relation_word(host));
	if (t->vm.pcie == PCIE_MIRROR && host == REL_PIX)
		CHECK(t, a->guest_switch && b->guest_switch && !strcmp(a->guest_switch, b->guest_switch),
		      "%s and %s are not below one switch", a->id, b->id);
}

/* On a node that the VM is not on: it is said, and the guest sees it elsewhere. */
static bool is_far(const struct plan *p, const struct plan_device *d)
{
	size_t n = strlen(d->id);

	for (size_t i = 0; i < p->n_warnings; i++)
		if (!strcmp(p->warnings[i].code, "device-far") && !strncmp(p->warnings[i].text, d->id, n) &&
		    strchr(": ", p->warnings[i].text[n]))
			return true;
	return false;
}

static void check_tree(const struct trial *t, const struct plan *p)
{
	for (size_t i = 0; i < p->n_devices; i++) {
		const struct plan_device *d = &p->devices[i];
		int want = -1;

		CHECK(t, d->guest_port && port(p, d->guest_port), "%s has no port", d->id);
		for (size_t k = 0; k < p->n_nodes; k++)
			if (d->host_node == p->nodes[k].host_node)
				want = (int)k;
		if (d->options && d->options->guest_node >= 0)
			want = d->options->guest_node;
		if (want < 0 && p->n_nodes == 1 && d->host_node < 0)
			want = 0;
		/* What does no DMA to speak of may be anywhere. */
		if (want < 0 && d->role != ROLE_GPU && d->role != ROLE_NIC && d->role != ROLE_NVME)
			continue;
		CHECK(t, is_far(p, d) ? want < 0 : t->vm.pcie == PCIE_FLAT || seen_node(p, d) == want,
		      "%s reports node %d, not %d", d->id, seen_node(p, d), want);
		CHECK(t, t->vm.pcie != PCIE_FLAT || seen_node(p, d) < 0, "%s has a node", d->id);
		for (size_t k = 0; k < i && t->vm.pcie != PCIE_FLAT && seen_node(p, d) >= 0; k++)
			check_pair(t, p, &p->devices[k], d);
	}
}

static void check_window(const struct trial *t, const struct plan *p)
{
	uint64_t bars = 0;

	for (size_t i = 0; i < p->n_devices; i++)
		bars += pci_func_bar_bytes(func_of(t, &p->devices[i]));
	/* 32 GiB is what q35 has without being told. */
	CHECK(t, t->vm.mmio64_bytes || bars <= (p->mmio64_bytes ? p->mmio64_bytes : UINT64_C(32) << 30),
	      "the window is smaller than the BARs");
}

void property_check_plan(const struct trial *t, const struct plan *p)
{
	check_devices(t, p);
	check_cpus(t, p);
	check_memory(t, p);
	check_tree(t, p);
	check_window(t, p);
}
