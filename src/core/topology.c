/* SPDX-License-Identifier: GPL-2.0-or-later */
/* topology.c - what follows from the facts that the probe read. See topology.h. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "gpuvm/topology.h"

#define PCI_VENDOR_NVIDIA 0x10de
#define PCI_VENDOR_ASPEED 0x1a03
#define PCI_VENDOR_MATROX 0x102b
#define IORESOURCE_MEM    0x200

void topology_clear(struct topology *t)
{
	for (size_t i = 0; i < t->n_nodes; i++)
		free(t->nodes[i].distances);
	for (size_t i = 0; i < t->n_funcs; i++) {
		free(t->funcs[i].host_use);
		free(t->funcs[i].bad);
	}
	free(t->nodes);
	free(t->cpus);
	free(t->funcs);
	free(t->gpus);
	free(t->nets);
	*t = (struct topology){ 0 };
}

const char *pci_role_word(enum pci_role r)
{
	static const char *const words[] = {
		[ROLE_OTHER] = "other", [ROLE_BRIDGE] = "bridge", [ROLE_GPU] = "gpu",
		[ROLE_NIC] = "nic",     [ROLE_NVME] = "nvme",     [ROLE_NVSWITCH] = "nvswitch",
		[ROLE_FABRIC] = "bridge",
	};

	return words[r];
}

const char *pci_relation_word(enum pci_relation r)
{
	static const char *const words[] = {
		[REL_SELF] = "X",  [REL_PIX] = "PIX",   [REL_PXB] = "PXB",
		[REL_PHB] = "PHB", [REL_NODE] = "NODE", [REL_SYS] = "SYS",
	};

	return words[r];
}

const char *topology_gap_word(enum topology_gap g)
{
	switch (g) {
	case GAP_GROUPS:
		return "iommu-groups";
	case GAP_DRIVERS:
		return "drivers";
	case GAP_BARS:
		return "bars";
	case GAP_HOST_USE:
		return "host-use";
	case GAP_FREE_MEMORY:
		return "free-memory";
	case GAP_LINKS:
		return "links";
	default:
		return "";
	}
}

char *topology_gaps_text(const struct topology *t)
{
	static const struct {
		enum topology_gap gap;
		const char *text;
	} words[] = { { GAP_GROUPS, "IOMMU groups" },
		      { GAP_DRIVERS, "drivers" },
		      { GAP_BARS, "the size of device memory" },
		      { GAP_HOST_USE, "what the host itself uses" },
		      { GAP_FREE_MEMORY, "free memory" },
		      { GAP_LINKS, "the full speed of links" } };
	char *out = xstrdup("");

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		AUTO_FREE char *old = NULL;
		bool last = t->gaps < (unsigned int)words[i].gap * 2;

		if (!(t->gaps & words[i].gap))
			continue;
		old = out;
		out = xasprintf("%s%s%s", old, !*old ? "" : last ? " and " : ", ", words[i].text);
	}
	return out;
}

const char *node_source_word(enum node_source s)
{
	static const char *const words[] = {
		[NODE_FROM_DEVICE] = "device",     [NODE_FROM_PARENT] = "parent", [NODE_FROM_CPULIST] = "local-cpus",
		[NODE_ONLY_ONE] = "only-one-node", [NODE_UNKNOWN] = "unknown",
	};

	return words[s];
}

/* --- roles -------------------------------------------------------------------------------------- */

/* The display of a server's management controller: never worth a guest, and not always the boot VGA. */
static bool is_bmc_display(uint16_t vendor)
{
	return vendor == PCI_VENDOR_ASPEED || vendor == PCI_VENDOR_MATROX;
}

enum pci_role pci_role_of(uint32_t class_code, uint16_t vendor, bool boot_vga)
{
	unsigned int base = class_code >> 16 & 0xff;

	if (base == 0x03)
		return boot_vga || is_bmc_display(vendor) ? ROLE_OTHER : ROLE_GPU;
	if (base == 0x12)
		return ROLE_GPU;

	switch (class_code >> 8) {
	case 0x0604:
		return ROLE_BRIDGE;
	case 0x0200:
	case 0x0207:
		return ROLE_NIC;
	case 0x0108:
		return ROLE_NVME;
	case 0x0680:
		return vendor == PCI_VENDOR_NVIDIA ? ROLE_NVSWITCH : ROLE_OTHER;
	default:
		return ROLE_OTHER;
	}
}

/* --- finish: nodes, sockets, numbering ------------------------------------------------------------ */

/* Sockets of the nodes follow from their CPUs. A node without CPUs (HBM, CXL) belongs to the nearest one with some. */
static void finish_node_sockets(struct topology *t)
{
	for (size_t i = 0; i < t->n_cpus; i++)
		if (t->cpus[i].node >= 0)
			t->nodes[t->cpus[i].node].socket = t->cpus[i].socket;

	for (size_t i = 0; i < t->n_nodes; i++) {
		struct host_node *n = &t->nodes[i];
		int best = INT_MAX;

		if (!cpuset_empty(&n->cpus) || !n->distances)
			continue;
		for (size_t k = 0; k < t->n_nodes; k++) {
			if (cpuset_empty(&t->nodes[k].cpus) || n->distances[k] >= best)
				continue;
			best = n->distances[k];
			n->socket = t->nodes[k].socket;
		}
	}
}

static bool socket_seen(const struct topology *t, size_t node)
{
	for (size_t i = 0; i < node; i++)
		if (t->nodes[i].socket == t->nodes[node].socket)
			return true;
	return false;
}

static int count_sockets(const struct topology *t)
{
	int n = 0;

	for (size_t i = 0; i < t->n_nodes; i++)
		n += !socket_seen(t, i);
	return n;
}

/* Does a switch begin at this bridge? Its parent was asked before. */
static bool begins_switch(const struct topology *t, const struct pci_func *f)
{
	if (f->port != PORT_UNKNOWN)
		return f->port == PORT_UPSTREAM;
	/* Root port, then pairs of upstream and downstream: below anything that is no upstream port begins a switch. */
	return f->role == ROLE_BRIDGE && f->parent >= 0 && !t->funcs[f->parent].is_switch;
}

/* The first function on the root bus of @func. Functions of one bus follow one another: mostly it is known already. */
static int find_host_bridge(const struct topology *t, int func)
{
	const char *bus = t->funcs[func].root_bus;

	if (func && !strcmp(t->funcs[func - 1].root_bus, bus))
		return t->funcs[func - 1].host_bridge;
	for (int i = 0; i < func; i++)
		if (!strcmp(t->funcs[i].root_bus, bus))
			return i;
	return func;
}

static void finish_place(struct topology *t, int func)
{
	struct pci_func *f = &t->funcs[func];

	f->is_switch = begins_switch(t, f);
	f->switch_above = f->parent < 0 ? -1 : t->funcs[f->parent].is_switch ? f->parent : t->funcs[f->parent].switch_above;
	f->host_bridge = f->parent < 0 ? find_host_bridge(t, func) : t->funcs[f->parent].host_bridge;
}

/* All below one host bridge is equally near to memory, even where single functions do not say so. */
static void find_bridge_nodes(struct topology *t)
{
	for (size_t i = 0; i < t->n_funcs; i++)
		t->funcs[i].bridge_node = -1;
	for (size_t i = 0; i < t->n_funcs; i++)
		if (t->funcs[i].node >= 0 && t->funcs[t->funcs[i].host_bridge].bridge_node < 0)
			t->funcs[t->funcs[i].host_bridge].bridge_node = t->funcs[i].node;
	for (size_t i = 0; i < t->n_funcs; i++)
		t->funcs[i].bridge_node = t->funcs[t->funcs[i].host_bridge].bridge_node;
}

/* Most firmware leaves numa_node at -1 somewhere; the bridges above usually know. Parents come first in the
 * array, so that one step up is enough: the parent has already asked its own. */
static void resolve_node(const struct topology *t, struct pci_func *f)
{
	f->node = topology_find_node(t, f->sysfs_node);
	f->node_source = NODE_FROM_DEVICE;
	if (f->node < 0 && f->parent >= 0 && t->funcs[f->parent].node_source <= NODE_FROM_PARENT) {
		f->node = t->funcs[f->parent].node;
		f->node_source = NODE_FROM_PARENT;
	}
	if (f->node < 0 && f->local_node >= 0 && (size_t)f->local_node < t->n_nodes) {
		f->node = f->local_node;
		f->node_source = NODE_FROM_CPULIST;
	}
	if (f->node < 0 && f->parent >= 0 && t->funcs[f->parent].node_source == NODE_FROM_CPULIST) {
		f->node = t->funcs[f->parent].node;
		f->node_source = NODE_FROM_CPULIST;
	}
	if (f->node < 0 && t->n_nodes == 1) {
		f->node = 0;
		f->node_source = NODE_ONLY_ONE;
	}
	if (f->node < 0)
		f->node_source = NODE_UNKNOWN;
	f->socket = f->node >= 0 ? t->nodes[f->node].socket : -1;
}

/* By socket, node, address; what has no node comes last. */
static int gpu_cmp(const void *pa, const void *pb)
{
	const struct pci_func *a = *(struct pci_func *const *)pa, *b = *(struct pci_func *const *)pb;
	unsigned int sa = (unsigned int)a->socket, sb = (unsigned int)b->socket; /* -1 sorts behind all others */
	unsigned int na = (unsigned int)a->node, nb = (unsigned int)b->node;

	if (sa != sb)
		return sa < sb ? -1 : 1;
	if (na != nb)
		return na < nb ? -1 : 1;
	return pci_addr_cmp(&a->addr, &b->addr);
}

/* Virtual functions are left out: switching SR-IOV on must not renumber the machine. */
static void number_gpus(struct topology *t)
{
	AUTO_FREE struct pci_func **gpus = xcalloc(t->n_funcs + 1, sizeof(*gpus));
	size_t n = 0;

	for (size_t i = 0; i < t->n_funcs; i++) {
		t->funcs[i].gpu_index = -1;
		if (t->funcs[i].role == ROLE_GPU && !t->funcs[i].is_vf)
			gpus[n++] = &t->funcs[i];
	}
	qsort(gpus, n, sizeof(*gpus), gpu_cmp);
	free(t->gpus);
	t->gpus = xcalloc(n, sizeof(*t->gpus));
	t->n_gpus = (int)n;
	for (size_t i = 0; i < n; i++) {
		gpus[i]->gpu_index = (int)i;
		t->gpus[i] = (int)(gpus[i] - t->funcs);
	}
}

/* A capture of a DGX-2 has an NVSwitch whose config space reads zeros: what says nothing of itself, among functions below one
 * switch that are all NVSwitches, is one. */
static bool is_silent_nvswitch(const struct topology *t, const struct pci_func *f)
{
	int sw = f->parent < 0 ? -1 : topology_switch_of(t, (int)(f - t->funcs)), n = 0;

	if (f->vendor || f->device || f->class_code || sw < 0)
		return false;
	for (size_t i = 0; i < t->n_funcs; i++) {
		const struct pci_func *o = &t->funcs[i];

		if (o == f || o->role == ROLE_BRIDGE || topology_switch_of(t, (int)i) != sw)
			continue;
		if (o->role != ROLE_NVSWITCH && o->class_code)
			return false;
		n += o->role == ROLE_NVSWITCH;
	}
	return n > 0;
}

static void find_fabric_roles(struct topology *t)
{
	for (size_t i = 0; i < t->n_funcs; i++) {
		struct pci_func *f = &t->funcs[i];

		if (f->role == ROLE_NIC && f->manages_nvlink && !f->is_vf)
			f->role = ROLE_FABRIC;
		else if (f->role == ROLE_OTHER && is_silent_nvswitch(t, f))
			f->role = ROLE_NVSWITCH;
	}
}

bool pci_func_is_usable(const struct pci_func *f)
{
	return !f->bad && !f->host_use && !f->sriov_vfs;
}

bool pci_config_is_dead(const uint8_t config[PCI_CONFIG_HEAD])
{
	for (size_t i = 0; i < PCI_CONFIG_HEAD; i++)
		if (config[i] != 0xff)
			return false;
	return true;
}

void topology_finish(struct topology *t)
{
	finish_node_sockets(t);
	t->n_sockets = count_sockets(t);

	for (size_t i = 0; i < t->n_funcs; i++) {
		struct pci_func *f = &t->funcs[i];

		f->role = pci_role_of(f->class_code, f->vendor, f->boot_vga);
		finish_place(t, (int)i);
		resolve_node(t, f);
	}
	find_bridge_nodes(t);
	find_fabric_roles(t);
	number_gpus(t);
}

/* --- look-ups --------------------------------------------------------------------------------------- */

int topology_find_func(const struct topology *t, const struct pci_addr *a)
{
	size_t low = 0, high = t->n_funcs;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = pci_addr_cmp(a, &t->funcs[mid].addr);

		if (c == 0)
			return (int)mid;
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return -1;
}

int topology_find_gpu(const struct topology *t, int gpu_index)
{
	return gpu_index >= 0 && gpu_index < t->n_gpus ? t->gpus[gpu_index] : -1;
}

int topology_n_gpus(const struct topology *t)
{
	return t->n_gpus;
}

int topology_find_node(const struct topology *t, int id)
{
	for (size_t i = 0; i < t->n_nodes; i++)
		if (t->nodes[i].id == id)
			return (int)i;
	return -1;
}

const struct host_net *topology_find_net(const struct topology *t, const char *name)
{
	for (size_t i = 0; i < t->n_nets; i++)
		if (!strcmp(t->nets[i].name, name))
			return &t->nets[i];
	return NULL;
}

const struct host_cpu *topology_cpu(const struct topology *t, int cpu)
{
	/* Numbers are dense on nearly every machine: try the place where it belongs first. */
	if (cpu >= 0 && (size_t)cpu < t->n_cpus && t->cpus[cpu].cpu == cpu)
		return &t->cpus[cpu];
	for (size_t i = 0; i < t->n_cpus; i++)
		if (t->cpus[i].cpu == cpu)
			return &t->cpus[i];
	return NULL;
}

/* --- the tree ------------------------------------------------------------------------------------------ */

size_t topology_path(const struct topology *t, int func, int *ret, size_t max)
{
	size_t depth = 0, at;

	for (int p = t->funcs[func].parent; p >= 0; p = t->funcs[p].parent)
		depth++;
	at = depth;
	for (int p = t->funcs[func].parent; p >= 0; p = t->funcs[p].parent)
		if (--at < max)
			ret[at] = p;
	return depth;
}

bool topology_is_upstream(const struct topology *t, int bridge)
{
	return t->funcs[bridge].is_switch;
}

int topology_switch_of(const struct topology *t, int func)
{
	return t->funcs[func].switch_above;
}

/* The nearest switch above both, or -1. */
static int common_switch(const struct topology *t, int a, int b)
{
	for (int p = t->funcs[a].switch_above; p >= 0; p = t->funcs[p].switch_above)
		for (int q = t->funcs[b].switch_above; q >= 0; q = t->funcs[q].switch_above)
			if (p == q)
				return p;
	return -1;
}

/* Unknown nodes are no reason to call two devices near, unless there is only one socket to be on. */
static bool on_one_socket(const struct topology *t, const struct pci_func *a, const struct pci_func *b)
{
	if (t->n_sockets <= 1)
		return true;
	return a->bridge_node >= 0 && b->bridge_node >= 0 && t->nodes[a->bridge_node].socket == t->nodes[b->bridge_node].socket;
}

enum pci_relation topology_relation(const struct topology *t, int a, int b)
{
	const struct pci_func *fa = &t->funcs[a], *fb = &t->funcs[b];
	int common;

	if (a == b)
		return REL_SELF;
	if (fa->host_bridge != fb->host_bridge)
		return on_one_socket(t, fa, fb) ? REL_NODE : REL_SYS;
	common = common_switch(t, a, b);
	if (common < 0)
		return REL_PHB;
	return fa->switch_above == common && fb->switch_above == common ? REL_PIX : REL_PXB;
}

uint64_t pci_func_bar_bytes(const struct pci_func *f)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(f->bars); i++) {
		uint64_t bytes = f->bars[i].bytes, size = 1;

		if (!(f->bars[i].flags & IORESOURCE_MEM) || !bytes)
			continue;
		while (size < bytes && size << 1)
			size <<= 1;
		sum += size;
	}
	return sum;
}

static unsigned int min_known(unsigned int a, unsigned int b)
{
	if (!a || !b)
		return a | b;
	return a < b ? a : b;
}

struct pci_link topology_path_link(const struct topology *t, int func)
{
	return topology_link_below(t, func, -1);
}

struct pci_link topology_link_below(const struct topology *t, int func, int above)
{
	struct pci_link l = { 0 };

	for (int i = func; i >= 0 && i != above; i = t->funcs[i].parent) {
		l.mts = min_known(l.mts, t->funcs[i].link.max_mts);
		l.width = min_known(l.width, t->funcs[i].link.max_width);
	}
	return l;
}

size_t topology_group(const struct topology *t, int func, int *ret, size_t max)
{
	int group = t->funcs[func].iommu_group;
	size_t n = 0;

	for (size_t i = 0; i < t->n_funcs; i++) {
		/* Without a group (no IOMMU) a function stands for itself. */
		if (group < 0 ? (int)i != func : t->funcs[i].iommu_group != group)
			continue;
		if (n < max)
			ret[n] = (int)i;
		n++;
	}
	return n;
}

const struct hugepage_pool *host_node_pool(const struct host_node *n, uint64_t page_bytes)
{
	for (size_t i = 0; i < n->n_pools; i++)
		if (n->pools[i].page_bytes == page_bytes)
			return &n->pools[i];
	return NULL;
}
