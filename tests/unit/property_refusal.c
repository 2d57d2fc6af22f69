/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is what a refusal says true?  One check for each code. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "property.h"

#define GIB UINT64_C(0x40000000)

struct refusal {
	const struct trial *t;
	const struct problems *ps;
	const struct problem *p;
	struct plan partial; /* devices and nodes, as far as they could be chosen */
};

/* Run the first steps alone: a refused plan is empty, but what was chosen before is needed to judge the rest. */
static void run_steps(struct refusal *r)
{
	struct problems ps = { 0 };
	struct planner pl = { .req = &r->t->req, .plan = &r->partial, .ps = &ps };

	if (select_devices(&pl) == 0 && place_nodes(&pl) == 0)
		place_memory(&pl);
	problems_clear(&ps);
}

static const struct pci_func *named(const struct refusal *r)
{
	struct pci_addr a;
	int func;

	CHECK(r->t, r->p->device && parse_pci_addr(r->p->device, &a) == 0, "%s names no device", r->p->code);
	func = topology_find_func(&r->t->host, &a);
	CHECK(r->t, func >= 0, "%s names %s, which is not there", r->p->code, r->p->device);
	return &r->t->host.funcs[func];
}

static bool chosen(const struct refusal *r, const struct pci_func *f)
{
	for (size_t i = 0; i < r->partial.n_devices; i++)
		if (pci_addr_cmp(&r->partial.devices[i].addr, &f->addr) == 0)
			return true;
	return false;
}

/* The number behind the @nth "%d" of a message: refusals state figures, and these are checked, too. */
static uint64_t figure(const struct refusal *r, const char *before)
{
	const char *at = strstr(r->p->message, before);

	CHECK(r->t, at, "'%s' is not in: %s", before, r->p->message);
	return strtoull(at + strlen(before), NULL, 10);
}

/* --- devices ------------------------------------------------------------------------------------------- */

/* GPUs that the VM could have if no other VM ran; @free: as it is. Those that it names itself do not count. */
static int count_gpus(const struct refusal *r, bool free)
{
	const struct trial *t = r->t;
	int n = 0;

	for (int g = 0; g < topology_n_gpus(&t->host); g++) {
		const struct pci_func *f = &t->host.funcs[topology_find_gpu(&t->host, g)];

		n += (t->vm.socket < 0 || f->socket == t->vm.socket) && !f->host_use && !f->sriov_vfs && !f->bad &&
		     !property_is_explicit(t, &f->addr) && !(free && property_device_user(t, &f->addr));
	}
	return n;
}

static void gpu_missing(const struct refusal *r)
{
	const struct vm_config *vm = &r->t->vm;

	if (vm->gpu_index >= 0)
		CHECK(r->t, vm->gpu_index + vm->gpus > topology_n_gpus(&r->t->host), "those GPUs are there");
	else
		CHECK(r->t, vm->gpus > count_gpus(r, false), "%d GPUs could be had", count_gpus(r, false));
}

static void socket_missing(const struct refusal *r)
{
	CHECK(r->t, r->t->vm.socket >= r->t->host.n_sockets, "there is a socket %d", r->t->vm.socket);
}

static void device_busy(const struct refusal *r)
{
	const struct vm_config *vm = &r->t->vm;
	const char *user;

	if (!r->p->device && !strcmp(r->p->code, "gpu-busy")) {
		CHECK(r->t, vm->gpus > count_gpus(r, true), "%d GPUs are free", count_gpus(r, true));
		CHECK(r->t, vm->gpus <= count_gpus(r, false), "there are only %d, whoever has them",
		      count_gpus(r, false));
		return;
	}
	user = property_device_user(r->t, &named(r)->addr);
	CHECK(r->t, user && strstr(r->p->message, user), "it is not held by that VM");
	CHECK(r->t, (named(r)->role == ROLE_GPU) == !strcmp(r->p->code, "gpu-busy"), "the code is for another role");
}

/* NICs or NVMe controllers for a number of them. */
static int count_peers(const struct refusal *r, enum pci_role role, bool free)
{
	const struct trial *t = r->t;
	int n = 0;

	for (size_t i = 0; i < t->host.n_funcs; i++) {
		const struct pci_func *f = &t->host.funcs[i];

		n += f->role == role && !f->is_vf && !f->host_use && !f->sriov_vfs && !f->bad &&
		     !property_is_explicit(t, &f->addr) && (t->vm.socket < 0 || f->socket == t->vm.socket) &&
		     !(free && property_device_user(t, &f->addr));
	}
	return n;
}

static bool is_about_peers(const struct refusal *r)
{
	return !strncmp(r->p->message, "[place] nics", 12) || !strncmp(r->p->message, "[place] nvme", 12);
}

static void peers_short(const struct refusal *r)
{
	bool nics = strncmp(r->p->message, "[place] nics", 12) == 0, busy = strcmp(r->p->code, "device-busy") == 0;
	int want = nics ? r->t->vm.nics : r->t->vm.nvme, n_free = count_peers(r, nics ? ROLE_NIC : ROLE_NVME, true);
	int n_all = count_peers(r, nics ? ROLE_NIC : ROLE_NVME, false);

	CHECK(r->t, want > n_free, "%d are free", n_free);
	CHECK(r->t, busy == (want <= n_all), "%d of %d are free: busy or missing?", n_free, n_all);
	CHECK(r->t, figure(r, "asked for, ") == (uint64_t)n_free, "%d are free", n_free);
}

static void device_missing(const struct refusal *r)
{
	struct pci_addr a;

	if (is_about_peers(r)) {
		peers_short(r);
		return;
	}
	CHECK(r->t, r->p->device && parse_pci_addr(r->p->device, &a) == 0 && topology_find_func(&r->t->host, &a) < 0,
	      "it is there");
}

static void device_or_peers_busy(const struct refusal *r)
{
	if (is_about_peers(r))
		peers_short(r);
	else
		device_busy(r);
}

static void device_is_bridge(const struct refusal *r)
{
	CHECK(r->t, named(r)->class_code >> 8 == 0x0604, "it is no bridge");
}

static void device_host_use(const struct refusal *r)
{
	CHECK(r->t, named(r)->host_use && strstr(r->p->message, named(r)->host_use), "the host does not use it");
	for (size_t i = 0; i < r->t->vm.n_devices; i++)
		CHECK(r->t, pci_addr_cmp(&r->t->vm.devices[i].pci, &named(r)->addr) || !r->t->vm.devices[i].force,
		      "force = on is ignored");
}

static void device_bad(const struct refusal *r)
{
	CHECK(r->t, named(r)->bad && strstr(r->p->message, named(r)->bad), "nothing is known against it");
	CHECK(r->t, r->p->hint && strstr(r->p->hint, named(r)->dead ? "kernel log" : "doctor --clear"), "what to do is not said: %s", r->p->hint);
}

static void sriov_active(const struct refusal *r)
{
	CHECK(r->t, named(r)->sriov_vfs > 0, "it has no virtual functions");
}

static void group_not_viable(const struct refusal *r)
{
	const struct pci_func *f = named(r);

	for (size_t i = 0; i < r->t->host.n_funcs; i++) {
		const struct pci_func *m = &r->t->host.funcs[i];
		AUTO_FREE char *also = xasprintf(" also has %s (", m->name);

		if (m == f || !strstr(r->p->message, also))
			continue;
		CHECK(r->t, m->iommu_group == f->iommu_group && f->iommu_group >= 0, "%s is in another group", m->name);
		CHECK(r->t,
		      m->class_code >> 8 != 0x0604 && *m->driver && strncmp(m->driver, "vfio", 4) &&
			      strcmp(m->driver, "pci-stub"),
		      "%s is no hindrance", m->name);
		CHECK(r->t, chosen(r, f) && !chosen(r, m), "%s is in the VM, or %s is not", m->name, f->name);
		return;
	}
	CHECK(r->t, false, "no other function is named");
}

static void iommu_off(const struct refusal *r)
{
	CHECK(r->t, !r->t->host.iommu_groups, "there are IOMMU groups");
}

static void vfio_missing(const struct refusal *r)
{
	CHECK(r->t, !r->t->host.vfio, "vfio is there");
}

/* --- CPUs ------------------------------------------------------------------------------------------------ */

static int vm_gpus(const struct refusal *r, int node)
{
	int n = 0;

	for (size_t i = 0; i < r->partial.n_devices; i++) {
		const struct pci_func *f = &r->t->host.funcs[r->partial.devices[i].func];

		n += f->role == ROLE_GPU && f->node == node;
	}
	return n;
}

static int host_gpus(const struct refusal *r, int node)
{
	int n = 0;

	for (size_t i = 0; i < r->t->host.n_funcs; i++)
		n += r->t->host.funcs[i].role == ROLE_GPU && r->t->host.funcs[i].node == node;
	return n;
}

/* Whole cores that a guest node needs: its part of [cpu] vcpus, or the share of the VM's GPUs. */
static int cores_needed(const struct refusal *r, int guest_node, const struct core_count *n)
{
	int nodes = (int)r->partial.n_nodes,
	    node = topology_find_node(&r->t->host, r->partial.nodes[guest_node].host_node);
	int usable = n->all - n->reserved, ours = vm_gpus(r, node);

	if (r->t->vm.vcpus > 0)
		return r->t->vm.vcpus / nodes + (guest_node < r->t->vm.vcpus % nodes);
	/* A node without GPUs of its own serves others: how many cores it gives is not judged here. */
	if (!ours)
		return -1;
	return usable * ours / host_gpus(r, node) > 0 ? usable * ours / host_gpus(r, node) : 1;
}

static void cores_short(const struct refusal *r)
{
	bool busy = strcmp(r->p->code, "cpu-busy") == 0;
	int guest_node = (int)figure(r, "guest node "), need = (int)figure(r, " need "), most;
	struct core_count n;

	CHECK(r->t, guest_node < (int)r->partial.n_nodes, "that guest node is not there");
	CHECK(r->t, (int)figure(r, "of host node ") == r->partial.nodes[guest_node].host_node, "the node is another");
	n = property_count_cores(r->t, r->partial.nodes[guest_node].host_node);
	most = cores_needed(r, guest_node, &n);
	CHECK(r->t, need > 0 && (most < 0 || need <= most), "it needs %d cores", most);
	CHECK(r->t, r->t->vm.vcpus <= 0 || need == most || need == most / 2, "it needs %d cores", most);
	CHECK(r->t, need > n.all - n.reserved - n.busy, "%d cores, %d reserved, %d busy: enough", n.all, n.reserved,
	      n.busy);
	if (busy) {
		CHECK(r->t, need <= n.all - n.reserved && n.busy, "%d cores, %d reserved, %d busy: not for another VM",
		      n.all, n.reserved, n.busy);
		CHECK(r->t, (int)figure(r, "but only ") == n.all - n.reserved - n.busy, "%d are free",
		      n.all - n.reserved - n.busy);
	} else {
		CHECK(r->t, (int)figure(r, "which has ") == n.all && (int)figure(r, "may use, ") == n.reserved,
		      "it has %d, %d reserved", n.all, n.reserved);
	}
}

static void cpu_of_list(const struct refusal *r)
{
	int cpu = (int)figure(r, "CPU ");
	const struct host_cpu *c = topology_cpu(&r->t->host, cpu);

	if (strcmp(r->p->code, "cpus-short") == 0)
		CHECK(r->t, !c, "CPU %d is there", cpu);
	else if (strcmp(r->p->code, "cpu-busy") == 0)
		CHECK(r->t, property_cpu_used(r->t, cpu), "CPU %d is free", cpu);
	else
		CHECK(r->t, c && !cpuset_has(&r->t->host.allowed, cpu), "CPU %d is ours", cpu);
}

static void cpus(const struct refusal *r)
{
	if (strncmp(r->p->message, "[cpu] pin", 9) == 0)
		cpu_of_list(r);
	else if (strncmp(r->p->message, "[cpu] emulator", 14) == 0)
		CHECK(r->t, !cpuset_subset(&r->t->vm.emulator, &r->t->host.allowed), "the emulator's CPUs are ours");
	else
		cores_short(r);
}

/* --- memory ---------------------------------------------------------------------------------------------- */

static const struct plan_node *short_node(const struct refusal *r, const struct host_node **ret)
{
	int guest_node = (int)figure(r, "guest node ");
	const struct plan_node *n;

	CHECK(r->t, guest_node < (int)r->partial.n_nodes, "that guest node is not there");
	n = &r->partial.nodes[guest_node];
	CHECK(r->t, (int)figure(r, "host node ") == n->host_node, "the node is another");
	*ret = &r->t->host.nodes[topology_find_node(&r->t->host, n->host_node)];
	return n;
}

static void hugepages_short(const struct refusal *r)
{
	const struct host_node *h;
	const struct plan_node *n = short_node(r, &h);
	const struct hugepage_pool *pool = host_node_pool(h, n->page_bytes);
	uint64_t need = figure(r, "needs "), have = figure(r, "which has "),
		 owed = property_promised(r->t, h->id, n->page_bytes) / n->page_bytes;
	uint64_t n_free = pool && pool->free > owed ? pool->free - owed : 0;

	CHECK(r->t, need == n->memory_bytes / n->page_bytes, "it needs %" PRIu64, n->memory_bytes / n->page_bytes);
	CHECK(r->t, have == n_free, "%" PRIu64 " pages are free", n_free);
	CHECK(r->t, need > have, "%" PRIu64 " of %" PRIu64 " pages: enough", need, have);
	if (r->p->kind == PROBLEM_BUSY)
		CHECK(r->t, r->t->use.n_memory && pool && need <= pool->total, "not because of other VMs");
}

static void memory_short(const struct refusal *r)
{
	const struct host_node *h;
	const struct plan_node *n = short_node(r, &h);

	CHECK(r->t, !n->memory_bytes || (n->page_bytes == 4096 && n->memory_bytes > h->mem_bytes), "the node has it");
}

static void memory_unaligned(const struct refusal *r)
{
	uint64_t unit =
		r->partial.nodes[0].page_bytes > 2 * GIB / 1024 ? r->partial.nodes[0].page_bytes : 2 * GIB / 1024;

	CHECK(r->t, r->t->vm.memory_bytes % unit, "it is a multiple of the page size");
}

/* --- PCI --------------------------------------------------------------------------------------------------- */

/* The host switches above a device, from the root. */
static int switches(const struct refusal *r, const struct plan_device *d, int *ret)
{
	int path[32], n = 0;
	size_t len = topology_path(&r->t->host, d->func, path, 32);

	for (size_t i = 0; i < len && i < 32; i++)
		if (topology_is_upstream(&r->t->host, path[i]))
			ret[n++] = path[i];
	return n;
}

struct below {
	int sw[16], n;
};

/* Buses of a guest tree for the devices @v, which have @level switches in common: one for each port. */
static int buses_of(const struct below *const *v, int n, int level, int *ret_ports)
{
	bool done[256] = { false };
	int buses = 0, ports = 0;

	for (int i = 0; i < n; i++) {
		const struct below *same[256];
		int k = 0, common, inner;

		if (done[i])
			continue;
		for (int j = i; j < n; j++)
			if (j == i || (v[i]->n > level && v[j]->n > level && v[i]->sw[level] == v[j]->sw[level])) {
				same[k++] = v[j];
				done[j] = true;
			}
		ports++;
		buses++;
		if (k == 1)
			continue;
		for (common = level + 1;; common++) {
			bool all = true;

			for (int j = 0; j < k; j++)
				all = all && same[j]->n > common && same[j]->sw[common] == same[0]->sw[common];
			if (!all)
				break;
		}
		buses += 1 + buses_of(same, k, common, &inner);
	}
	*ret_ports = ports;
	return buses;
}

static void buses_exhausted(const struct refusal *r)
{
	struct below all[256];
	const struct plan *p = &r->partial;
	int sum = 0, most = 0, flat = 0;

	CHECK(r->t, p->n_devices < 256, "too many devices for this check");
	for (int node = -1; node < (int)p->n_nodes; node++) {
		const struct below *v[256];
		int n = 0, ports;

		for (size_t i = 0; i < p->n_devices; i++) {
			if (p->devices[i].guest_node != node)
				continue;
			all[i].n =
				r->t->vm.pcie == PCIE_MIRROR && node >= 0 ? switches(r, &p->devices[i], all[i].sw) : 0;
			v[n++] = &all[i];
		}
		sum += buses_of(v, n, 0, &ports) + (n && node >= 0);
		if (node >= 0 && ports > most)
			most = ports;
		flat += node < 0 ? n : 0;
	}
	if (r->t->vm.pcie == PCIE_FLAT)
		flat = (int)p->n_devices;
	CHECK(r->t, sum > 255 || most > 32 || flat > 64, "%d buses, at most %d ports on a bus, %d on pcie.0", sum, most,
	      flat);
}

static void mmio_too_large(const struct refusal *r)
{
	const struct trial *t = r->t;
	uint64_t ram = plan_memory_bytes(&r->partial), window = t->vm.mmio64_bytes;
	bool kvm = t->vm.accel == ACCEL_KVM || (t->vm.accel == ACCEL_AUTO && t->host.kvm);
	int bits = kvm && t->host.phys_bits ? t->host.phys_bits : 40;

	if (r->partial.n_devices && t->host.iommu_bits && t->host.iommu_bits < bits)
		bits = t->host.iommu_bits;
	for (size_t i = 0; i < r->partial.n_devices && !t->vm.mmio64_bytes; i++)
		window += 4 * pci_func_bar_bytes(&t->host.funcs[r->partial.devices[i].func]);
	/* Room for twice the BARs is asked for, rounded up: at most four times, and once more for the alignment. */
	CHECK(t, 4 * GIB + ram + 2 * window > UINT64_C(1) << bits, "%" PRIu64 " GiB fit into %d bits", window / GIB,
	      bits);
}

/* --- the definition ------------------------------------------------------------------------------------------ */

static void not_siblings(const struct refusal *r)
{
	const struct host_cpu *a = topology_cpu(&r->t->host, (int)figure(r, "CPUs ")),
			      *b = topology_cpu(&r->t->host, (int)figure(r, " and "));

	CHECK(r->t, a && b && a->core != b->core && r->t->vm.threads == 2, "they are threads of one core");
}

static void bad_value(const struct refusal *r)
{
	const struct vm_config *vm = &r->t->vm;
	int nodes = (int)r->partial.n_nodes;
	bool odd = false;

	for (int i = 0; i < nodes && vm->vcpus > 0; i++)
		odd = odd || (vm->vcpus / nodes + (i < vm->vcpus % nodes)) % 2;
	if (strstr(r->p->message, "[cpu] pin"))
		not_siblings(r);
	else if (strstr(r->p->message, "gpu-index"))
		CHECK(r->t, vm->gpu_index >= 0 && vm->socket >= 0, "there is no conflict");
	else if (strstr(r->p->message, "guest-node"))
		CHECK(r->t, strtoull(strstr(r->p->message, "0 to ") + 5, NULL, 10) == (uint64_t)nodes - 1,
		      "there are %d nodes", nodes);
	else if (strstr(r->p->message, "even number"))
		CHECK(r->t, vm->threads == 2 && odd, "each node has an even number");
	else
		CHECK(r->t, vm->threads == 2 && strstr(r->p->message, "SMT"), "unknown: %s", r->p->message);
}

static void kvm_missing(const struct refusal *r)
{
	CHECK(r->t, r->t->vm.accel == ACCEL_KVM && !r->t->host.kvm, "KVM is there");
}

static void file_missing(const struct refusal *r)
{
	CHECK(r->t, r->t->vm.firmware && !strcmp(r->t->vm.firmware, "ovmf") && !r->t->qemu.ovmf_code,
	      "the firmware is there");
}

/* hw/i386/pc_q35.c: 288 up to 8.0, 4096 from 9.0 on. */
static void vcpus_too_many(const struct refusal *r)
{
	size_t n = r->t->vm.n_pin_cpus ? r->t->vm.n_pin_cpus : (size_t)r->t->vm.vcpus;

	if (strstr(r->p->message, "APIC")) {
		CHECK(r->t, r->t->qemu.major < 9 && (!r->t->host.kvm || r->t->vm.accel == ACCEL_TCG),
		      "x2APIC is there");
		return;
	}
	CHECK(r->t, n > (r->t->qemu.major >= 9 ? 4096u : 288u), "%zu vCPUs are possible", n);
}

/* --- networks ------------------------------------------------------------------------------------------- */

/* The [net] that the message begins with. */
static const struct net_config *named_net(const struct refusal *r)
{
	for (size_t i = 0; i < r->t->vm.n_nets; i++) {
		AUTO_FREE char *head = xasprintf("[net %s] ", r->t->vm.nets[i].name);

		if (strncmp(r->p->message, head, strlen(head)) == 0)
			return &r->t->vm.nets[i];
	}
	CHECK(r->t, false, "%s names no [net]", r->p->code);
}

static const struct host_net *interface(const struct refusal *r, const char *name)
{
	for (size_t i = 0; name && i < r->t->host.n_nets; i++)
		if (strcmp(r->t->host.nets[i].name, name) == 0)
			return &r->t->host.nets[i];
	return NULL;
}

static void bridge_missing(const struct refusal *r)
{
	const struct net_config *n = named_net(r);
	const struct host_net *h = interface(r, n->bridge);

	CHECK(r->t, n->type == NET_BRIDGE && r->t->host.nets_known && (!h || h->kind != HOST_NET_BRIDGE), "the bridge is there");
}

static void tap_unusable(const struct refusal *r)
{
	const struct net_config *n = named_net(r);
	const struct host_net *h = interface(r, n->ifname);

	CHECK(r->t, h, "there is no such interface");
	CHECK(r->t,
	      h->kind != HOST_NET_TAP || (n->queues != 1 && !h->multi_queue) || (n->type == NET_BRIDGE && strcmp(h->master, n->bridge)),
	      "the tap can be used");
}

static void tap_busy(const struct refusal *r)
{
	const struct host_net *h = interface(r, named_net(r)->ifname);

	CHECK(r->t, h && h->kind == HOST_NET_TAP && h->in_use, "nobody has the tap");
}

static void vhost_missing(const struct refusal *r)
{
	CHECK(r->t, named_net(r)->vhost == VHOST_ON && !r->t->host.vhost_net, "vhost is there, or was not asked for");
}

/* --- disks, guest devices --------------------------------------------------------------------------------- */

static void io_uring_missing(const struct refusal *r)
{
	bool asked = false;

	for (size_t i = 0; i < r->t->vm.n_disks; i++)
		asked = asked || r->t->vm.disks[i].aio == AIO_IO_URING;
	CHECK(r->t, asked && !r->t->host.io_uring, "io_uring is there, or was not asked for");
}

static void vsock_missing(const struct refusal *r)
{
	CHECK(r->t, r->t->vm.vsock && !r->t->host.vhost_vsock, "vsock is there, or was not asked for");
}

static void program_missing(const struct refusal *r)
{
	bool seed = r->t->vm.cloud_init && !r->t->req.seed_tool, tpm = r->t->vm.guest_tpm && !r->t->req.swtpm;

	CHECK(r->t, strstr(r->p->message, "[cloud-init]") ? seed : tpm, "the program is there, or was not asked for");
}

static const struct {
	const char *code;
	enum problem_kind kind;
	void (*check)(const struct refusal *r);
} checks[] = {
	{ "gpu-missing", PROBLEM_HOST, gpu_missing },
	{ "socket-missing", PROBLEM_HOST, socket_missing },
	{ "gpu-busy", PROBLEM_BUSY, device_busy },
	{ "device-busy", PROBLEM_BUSY, device_or_peers_busy },
	{ "device-missing", PROBLEM_HOST, device_missing },
	{ "device-is-bridge", PROBLEM_HOST, device_is_bridge },
	{ "device-host-use", PROBLEM_HOST, device_host_use },
	{ "device-bad", PROBLEM_HOST, device_bad },
	{ "sriov-active", PROBLEM_HOST, sriov_active },
	{ "group-not-viable", PROBLEM_HOST, group_not_viable },
	{ "iommu-off", PROBLEM_HOST, iommu_off },
	{ "vfio-missing", PROBLEM_HOST, vfio_missing },
	{ "cpus-short", PROBLEM_HOST, cpus },
	{ "cpu-busy", PROBLEM_BUSY, cpus },
	{ "cpu-not-allowed", PROBLEM_HOST, cpus },
	{ "vcpus-too-many", PROBLEM_HOST, vcpus_too_many },
	{ "hugepages-short", (enum problem_kind) - 1, hugepages_short },
	{ "memory-short", PROBLEM_HOST, memory_short },
	{ "memory-unaligned", PROBLEM_CONFIG, memory_unaligned },
	{ "buses-exhausted", PROBLEM_HOST, buses_exhausted },
	{ "mmio-too-large", PROBLEM_HOST, mmio_too_large },
	{ "bad-value", PROBLEM_CONFIG, bad_value },
	{ "kvm-missing", PROBLEM_HOST, kvm_missing },
	{ "file-missing", PROBLEM_HOST, file_missing },
	{ "bridge-missing", PROBLEM_HOST, bridge_missing },
	{ "tap-unusable", PROBLEM_HOST, tap_unusable },
	{ "tap-busy", PROBLEM_BUSY, tap_busy },
	{ "vhost-missing", PROBLEM_HOST, vhost_missing },
	{ "io-uring-missing", PROBLEM_HOST, io_uring_missing },
	{ "vsock-missing", PROBLEM_HOST, vsock_missing },
	{ "program-missing", PROBLEM_HOST, program_missing },
};

static void check_problem(struct refusal *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		if (strcmp(checks[i].code, r->p->code) != 0)
			continue;
		/* -1: both are possible */
		CHECK(r->t, (int)checks[i].kind < 0 || checks[i].kind == r->p->kind, "%s has kind %d", r->p->code,
		      (int)r->p->kind);
		checks[i].check(r);
		return;
	}
	CHECK(r->t, false, "there is no check for the code %s: add it here", r->p->code);
}

void property_check_refusal(const struct trial *t, const struct problems *ps)
{
	struct refusal r = { .t = t, .ps = ps };

	run_steps(&r);
	for (size_t i = 0; i < ps->n; i++) {
		r.p = &ps->v[i];
		if (getenv("GPUVM_PROPERTY_SEED"))
			fprintf(stderr, "%s: %s\n", r.p->code, r.p->message);
		check_problem(&r);
	}
	plan_clear(&r.partial);
}
