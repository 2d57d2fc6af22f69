/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random machines. How it works: nodes and CPUs first; then host bridges with trees of ports, which end in slots; then
 * the slots are filled.  Bus numbers are given out depth first: in address order a bridge comes before what is below. */
#include <assert.h>
#include <string.h>

#include "tests/fake/genhost.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

#define MEM      0x200
#define PREFETCH 0x2000
#define MEM_64   0x100000

/* --- numbers ---------------------------------------------------------------------------------------- */

uint64_t rng_next(struct rng *r)
{
	uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

int rng_below(struct rng *r, int n)
{
	uint64_t x = rng_next(r);

	return n > 0 ? (int)(x % (uint64_t)n) : 0;
}

int rng_range(struct rng *r, int low, int high)
{
	return low + rng_below(r, high - low + 1);
}

bool rng_percent(struct rng *r, int percent)
{
	return rng_below(r, 100) < percent;
}

/* One of @n numbers. */
static int pick(struct rng *r, const int *v, size_t n)
{
	return v[rng_below(r, (int)n)];
}
#define PICK(r, ...) pick((r), (const int[]){ __VA_ARGS__ }, ARRAY_SIZE(((const int[]){ __VA_ARGS__ })))

/* --- state ------------------------------------------------------------------------------------------- */

/* A place for an endpoint: device number @dev on @bus below @parent. */
struct slot {
	uint32_t domain;
	int bus, dev, parent, node, group;
	bool silent;
	char root_bus[24];
};

struct gen {
	struct rng rng;
	struct genhost_shape shape;
	struct topology *t;
	struct slot *slots;
	size_t n_slots;
	int next_group;
	bool no_ports;   /* PCIe capabilities could not be read */
	bool companions; /* GPUs with audio functions */
	/* the host bridge that is being built */
	uint32_t domain;
	int bus;     /* last one given out */
	int node;    /* index */
	bool silent; /* no numa_node there */
	int group;   /* all below are in this group; -1: each in its own */
	char root_bus[24];
};

static bool odd(struct gen *g, int percent)
{
	return rng_percent(&g->rng, percent) && !g->shape.plain;
}

/* --- nodes and CPUs ------------------------------------------------------------------------------------ */

static void make_pools(struct gen *g, struct host_node *n, bool big, bool small)
{
	for (int i = 0; i < 2; i++) {
		uint64_t page = i ? 2 * MIB : GIB;
		struct hugepage_pool *p = &n->pools[n->n_pools];

		if (!(i ? small : big) || odd(g, 8))
			continue;
		p->page_bytes = page;
		p->total = n->mem_bytes / page * (uint64_t)rng_range(&g->rng, g->shape.plain ? 30 : 0, 45) / 100;
		p->free = odd(g, 25) ? p->total * (uint64_t)rng_below(&g->rng, 101) / 100 : p->total;
		n->n_pools++;
	}
}

static void make_nodes(struct gen *g)
{
	struct topology *t = g->t;
	int sockets = g->shape.sockets ? g->shape.sockets : PICK(&g->rng, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4, 4, 3, 8, 5);
	int per = g->shape.nodes_per_socket ? g->shape.nodes_per_socket : PICK(&g->rng, 1, 1, 1, 1, 2, 2, 3, 4);
	int step = odd(g, 15) ? 2 : 1, package_step = odd(g, 8) ? 2 : 1;
	bool big = rng_percent(&g->rng, g->shape.plain ? 100 : 70), small = odd(g, 40);

	for (int i = 0; i < sockets * per; i++) {
		struct host_node *n = PUSH_ZEROED(t->nodes, t->n_nodes);

		n->id = i * step + (step > 1 && i > 2);
		n->socket = i / per * package_step;
		n->mem_bytes = odd(g, 6) && i ? 0
					      : (uint64_t)rng_range(&g->rng, 2, 512) * GIB +
							(uint64_t)rng_below(&g->rng, 1000) * MIB;
		n->free_bytes = n->mem_bytes / 2;
		if (n->mem_bytes)
			make_pools(g, n, big, small);
	}
	/* A machine without NUMA is one node, 0. */
	if (t->n_nodes == 1)
		t->nodes[0].id = 0;
}

static void make_distances(struct gen *g)
{
	struct topology *t = g->t;
	int far = PICK(&g->rng, 20, 21, 32);

	if (odd(g, 10))
		return;
	for (size_t i = 0; i < t->n_nodes; i++) {
		t->nodes[i].distances = xcalloc(t->n_nodes, sizeof(int));
		for (size_t k = 0; k < t->n_nodes; k++)
			t->nodes[i].distances[k] = i == k ? 10 : t->nodes[i].socket == t->nodes[k].socket ? 12 : far;
	}
}

static int cpu_cmp(const void *a, const void *b)
{
	return ((const struct host_cpu *)a)->cpu - ((const struct host_cpu *)b)->cpu;
}

static void add_core(struct gen *g, int node, int core, int l3, int smt, int total, bool adjacent)
{
	for (int k = 0; k < smt; k++) {
		struct host_cpu *c = PUSH_ZEROED(g->t->cpus, g->t->n_cpus);

		c->cpu = adjacent ? core * smt + k : core + k * total;
		c->node = node;
		c->socket = g->t->nodes[node].socket;
		c->core = core;
		c->l3 = l3;
		c->isolated = odd(g, 3);
	}
}

/* Offline CPUs are not listed, as the kernel does not list them. */
static void take_offline(struct gen *g)
{
	struct topology *t = g->t;

	if (!odd(g, 10))
		return;
	for (size_t i = 1; i < t->n_cpus;) {
		if (rng_percent(&g->rng, 5)) {
			memmove(&t->cpus[i], &t->cpus[i + 1], (t->n_cpus - i - 1) * sizeof(*t->cpus));
			t->n_cpus--;
		} else {
			i++;
		}
	}
}

static void make_cpus(struct gen *g)
{
	struct topology *t = g->t;
	int smt = g->shape.cpus ? 2 : rng_range(&g->rng, 1, 2);
	int most = rng_percent(&g->rng, 20) ? 64 : 14, per_node[64] = { 0 }, total = 0, core = 0, l3 = 0;
	int l3_cores = PICK(&g->rng, 1, 3, 4, 8, 64), same = rng_range(&g->rng, 1, most);
	bool adjacent = rng_percent(&g->rng, 50), equal = rng_percent(&g->rng, 70), l3_known = !odd(g, 10);

	for (size_t i = 0; i < t->n_nodes; i++) {
		per_node[i] = equal ? same : rng_range(&g->rng, 1, most);
		if (g->shape.cpus)
			per_node[i] = g->shape.cpus / smt / (int)t->n_nodes;
		else if (i && odd(g, 6))
			per_node[i] = 0;
		total += per_node[i];
	}
	for (int i = 0; i < (int)t->n_nodes; i++)
		for (int k = 0; k < per_node[i]; k++) {
			l3 += k % l3_cores == 0;
			add_core(g, i, core++, l3_known ? l3 : -1, smt, total, adjacent);
		}
	qsort(t->cpus, t->n_cpus, sizeof(*t->cpus), cpu_cmp);
	take_offline(g);
	for (size_t i = 0; i < t->n_cpus; i++)
		cpuset_add(&t->nodes[t->cpus[i].node].cpus, t->cpus[i].cpu);
}

/* The launcher may have been given a part of the machine only: some nodes, or any CPUs. */
static void make_allowed(struct gen *g)
{
	struct topology *t = g->t;
	bool part = odd(g, 15), whole_nodes = rng_percent(&g->rng, 50);

	for (size_t i = 0; i < t->n_cpus; i++) {
		bool in = whole_nodes ? t->cpus[i].node % 2 == 0 : rng_percent(&g->rng, 75);

		if (!part || in)
			cpuset_add(&t->allowed, t->cpus[i].cpu);
	}
	if (cpuset_empty(&t->allowed))
		cpuset_add(&t->allowed, t->cpus[0].cpu);
}

/* --- the PCI tree -------------------------------------------------------------------------------------- */

static int add_func(struct gen *g, const struct slot *s, int fn, uint32_t class_code)
{
	struct pci_func *f = PUSH_ZEROED(g->t->funcs, g->t->n_funcs);

	f->addr = (struct pci_addr){
		.domain = s->domain, .bus = (uint8_t)s->bus, .dev = (uint8_t)s->dev, .fn = (uint8_t)fn
	};
	f->parent = s->parent;
	memcpy(f->root_bus, s->root_bus, sizeof(f->root_bus));
	f->class_code = class_code;
	f->iommu_group = s->group >= 0 ? s->group : g->next_group++;
	f->local_node = -1;
	f->sysfs_node = s->silent || odd(g, 8) ? -1 : g->t->nodes[s->node].id;
	if (f->sysfs_node < 0 && !s->silent && rng_percent(&g->rng, 60))
		f->local_node = s->node;
	f->port = g->no_ports ? PORT_UNKNOWN : PORT_ENDPOINT;
	f->link.max_mts = (unsigned int)PICK(&g->rng, 0, 8000, 16000, 32000, 32000);
	f->link.max_width = (unsigned int)PICK(&g->rng, 4, 8, 16, 16);
	f->can_reset = true;
	return (int)g->t->n_funcs - 1;
}

static struct slot here(const struct gen *g, int bus, int dev, int parent)
{
	struct slot s = { .domain = g->domain,
			  .bus = bus,
			  .dev = dev,
			  .parent = parent,
			  .node = g->node,
			  .group = g->group,
			  .silent = g->silent };

	memcpy(s.root_bus, g->root_bus, sizeof(s.root_bus));
	return s;
}

/* A bridge and the bus below it; -1 if the domain has no more buses. */
static int add_bridge(struct gen *g, int bus, int dev, int parent, enum pcie_port_type port, int *ret_bus)
{
	struct slot s = here(g, bus, dev, parent);
	int i;

	if (g->bus >= 255)
		return -1;
	i = add_func(g, &s, 0, 0x060400);
	if (!g->no_ports)
		g->t->funcs[i].port = port;
	strcpy(g->t->funcs[i].driver, "pcieport");
	g->t->funcs[i].vendor = 0x1000;
	g->t->funcs[i].device = 0xc030;
	*ret_bus = ++g->bus;
	return i;
}

static void add_slot(struct gen *g, int bus, int dev, int parent)
{
	*PUSH_ZEROED(g->slots, g->n_slots) = here(g, bus, dev, parent);
}

/* What a port leads to: a slot, or a switch with more below. */
static void grow(struct gen *g, int bus, int parent, int depth)
{
	int up, inner, n = rng_range(&g->rng, 1, depth == 1 ? 5 : 3);

	if (depth == 0) {
		add_slot(g, bus, 0, parent);
		return;
	}
	up = add_bridge(g, bus, 0, parent, PORT_UPSTREAM, &inner);
	if (up < 0)
		return;
	for (int i = 0; i < n; i++) {
		int below, dn = add_bridge(g, inner, i, up, PORT_DOWNSTREAM, &below);

		if (dn >= 0)
			grow(g, below, dn, rng_percent(&g->rng, 60) ? depth - 1 : 0);
	}
	/* Switches have endpoints of their own, for management. */
	if (odd(g, 15)) {
		struct slot s = here(g, inner, n, up);

		add_func(g, &s, 0, 0x088000);
	}
}

static void add_root_port(struct gen *g, int root, int dev)
{
	int below, rp;
	bool pci = odd(g, 4);

	g->group = odd(g, 8) ? g->next_group++ : -1;
	rp = add_bridge(g, root, dev, -1, pci ? PORT_PCI_BRIDGE : PORT_ROOT, &below);
	if (rp >= 0 && pci) {
		/* Behind a PCI bridge all are one group: they share one requester ID. */
		g->group = g->group < 0 ? g->next_group++ : g->group;
		for (int i = 0; i < 3; i++)
			add_slot(g, below, 8 * i, rp);
	} else if (rp >= 0) {
		grow(g, below, rp, PICK(&g->rng, 0, 0, 1, 1, 1, 2, 3));
	}
	g->group = -1;
}

static int pick_node(struct gen *g)
{
	int node = rng_below(&g->rng, (int)g->t->n_nodes);

	for (int tries = 0; tries < 8 && !odd(g, 5); tries++) {
		if (!cpuset_empty(&g->t->nodes[node].cpus) && g->t->nodes[node].mem_bytes)
			break;
		node = rng_below(&g->rng, (int)g->t->n_nodes);
	}
	return node;
}

static void add_host_bridge(struct gen *g)
{
	int root, ports = rng_range(&g->rng, 1, 5);

	if (g->bus > 200 || odd(g, 10)) {
		g->domain += odd(g, 10) ? 0x10000 : 1;
		g->bus = -1;
	}
	root = ++g->bus;
	snprintf(g->root_bus, sizeof(g->root_bus), "%04x:%02x", g->domain, (unsigned int)root);
	g->node = pick_node(g);
	g->silent = odd(g, 7);
	g->group = -1;
	for (int i = 0; i < ports; i++)
		add_root_port(g, root, i + 1);
	/* An endpoint of the root complex itself: integrated graphics, a LAN controller. */
	if (odd(g, 20))
		add_slot(g, root, 0x1f, -1);
}

/* --- what is in the slots --------------------------------------------------------------------------------- */

static void set_driver(struct gen *g, struct pci_func *f, const char *usual)
{
	static const char *const others[] = { "", "vfio-pci", "pci-stub" };
	const char *d = rng_percent(&g->rng, 75) ? usual : others[rng_below(&g->rng, 3)];

	snprintf(f->driver, sizeof(f->driver), "%s", d);
}

static void use_by_host(struct gen *g, struct pci_func *f, const char *why, int percent)
{
	if (odd(g, percent))
		f->host_use = xstrdup(why);
}

static void break_down(struct gen *g, struct pci_func *f)
{
	if (!odd(g, 1))
		return;
	f->dead = rng_percent(&g->rng, 50);
	f->bad = xstrdup(f->dead ? "it does not answer" : "its reset failed");
}

static void set_bar(struct pci_func *f, int i, uint64_t bytes, uint64_t flags)
{
	f->bars[i].start = UINT64_C(1) << 40;
	f->bars[i].bytes = bytes;
	f->bars[i].flags = flags;
}

/* Virtual functions, which follow the physical one: each a group of its own. */
static void add_vfs(struct gen *g, const struct slot *s, int pf, int n)
{
	if (s->dev > 16)
		return;
	g->t->funcs[pf].sriov_vfs = (unsigned int)n;
	for (int i = 0; i < n; i++) {
		struct slot vs = *s;
		int vf;

		vs.dev = s->dev + (i + 4) / 8;
		vf = add_func(g, &vs, (i + 4) % 8, g->t->funcs[pf].class_code);
		g->t->funcs[vf].is_vf = true;
		g->t->funcs[vf].vendor = g->t->funcs[pf].vendor;
		g->t->funcs[vf].device = (uint16_t)(g->t->funcs[pf].device + 1);
	}
}

static void add_companion(struct gen *g, const struct slot *s, int fn, uint32_t class_code, const char *driver,
			  int group)
{
	int i = add_func(g, s, fn, class_code);

	g->t->funcs[i].vendor = 0x10de;
	g->t->funcs[i].device = 0x22ba;
	g->t->funcs[i].iommu_group = group;
	set_bar(&g->t->funcs[i], 0, 16 * 1024, MEM);
	set_driver(g, &g->t->funcs[i], driver);
}

static void put_gpu(struct gen *g, const struct slot *s)
{
	int i = add_func(g, s, 0, (uint32_t)PICK(&g->rng, 0x030200, 0x030200, 0x030000, 0x120000)), group;
	struct pci_func *f = &g->t->funcs[i];

	f->vendor = 0x10de;
	f->device = 0x2335;
	set_bar(f, 0, 16 * MIB, MEM);
	set_bar(f, 2, GIB << rng_range(&g->rng, 3, g->shape.plain ? 4 : 8), MEM | PREFETCH | MEM_64);
	set_bar(f, 4, 32 * MIB, MEM | PREFETCH | MEM_64);
	set_driver(g, f, "nvidia");
	use_by_host(g, f, "framebuffer console", 3);
	break_down(g, f);
	group = f->iommu_group;
	if (g->companions) {
		add_companion(g, s, 1, 0x040300, "snd_hda_intel", group);
		if (rng_percent(&g->rng, 30))
			add_companion(g, s, 2, 0x0c0330, "xhci_hcd", group);
	} else if (odd(g, 4)) {
		add_vfs(g, s, i, rng_range(&g->rng, 1, 4));
	}
}

static void put_nic(struct gen *g, const struct slot *s)
{
	int ports = PICK(&g->rng, 1, 1, 2), first = -1;

	for (int fn = 0; fn < ports; fn++) {
		int i = add_func(g, s, fn, (uint32_t)PICK(&g->rng, 0x020000, 0x020700));
		struct pci_func *f = &g->t->funcs[i];

		f->vendor = 0x15b3;
		f->device = 0x1021;
		set_bar(f, 0, 32 * MIB, MEM | PREFETCH | MEM_64);
		set_driver(g, f, "mlx5_core");
		use_by_host(g, f, "network interface eno1 has the default route", 10);
		break_down(g, f);
		/* Without ACS the ports of a card are one group. */
		if (fn && first >= 0 && odd(g, 50))
			f->iommu_group = g->t->funcs[first].iommu_group;
		first = fn ? first : i;
	}
	if (ports == 1 && odd(g, 10))
		add_vfs(g, s, first, rng_range(&g->rng, 1, 12));
}

static void put_nvme(struct gen *g, const struct slot *s)
{
	int i = add_func(g, s, 0, 0x010802);
	struct pci_func *f = &g->t->funcs[i];

	f->vendor = 0x144d;
	f->device = 0xa824;
	set_bar(f, 0, 16 * 1024, MEM | MEM_64);
	set_driver(g, f, "nvme");
	use_by_host(g, f, "file system / is on nvme0n1", 15);
	break_down(g, f);
}

static void put_other(struct gen *g, const struct slot *s)
{
	static const struct {
		uint32_t class_code;
		uint16_t vendor;
		const char *driver;
	} kinds[] = { { 0x068000, 0x1000, "" },
		      { 0x030000, 0x1a03, "ast" },
		      { 0x0c0330, 0x8086, "xhci_hcd" },
		      { 0x010700, 0x1000, "mpt3sas" },
		      { 0x0b4000, 0x8086, "qat_4xxx" } };
	int k = rng_below(&g->rng, (int)ARRAY_SIZE(kinds));
	int i = add_func(g, s, 0, kinds[k].class_code);
	struct pci_func *f = &g->t->funcs[i];

	f->vendor = kinds[k].vendor;
	f->device = 0x1234;
	set_bar(f, 0, 64 * 1024, MEM);
	set_driver(g, f, kinds[k].driver);
	use_by_host(g, f, "disk sda is mounted", 10);
}

static void shuffle_slots(struct gen *g)
{
	for (size_t i = g->n_slots; i > 1; i--) {
		size_t k = (size_t)rng_below(&g->rng, (int)i);
		struct slot tmp = g->slots[i - 1];

		g->slots[i - 1] = g->slots[k];
		g->slots[k] = tmp;
	}
}

/* GPUs first, the rest as it comes; some slots stay empty. Not shuffled, the GPUs crowd on few switches. */
static void fill_slots(struct gen *g, int gpus)
{
	if (rng_percent(&g->rng, 70))
		shuffle_slots(g);
	for (size_t i = 0; i < g->n_slots; i++) {
		const struct slot *s = &g->slots[i];

		if ((int)i < gpus) {
			put_gpu(g, s);
			continue;
		}
		switch (rng_below(&g->rng, 8)) {
		case 0:
		case 1:
		case 2:
			put_nic(g, s);
			break;
		case 3:
		case 4:
			put_nvme(g, s);
			break;
		case 5:
			put_other(g, s);
			break;
		}
	}
}

/* Fill up to an exact number: drives and NICs, most of them with virtual functions, below switches or not. */
static void pad_functions(struct gen *g)
{
	struct topology *t = g->t;
	size_t want = (size_t)g->shape.functions;

	while (t->n_funcs < want) {
		size_t first = g->n_slots;

		add_host_bridge(g);
		for (size_t i = first; i < g->n_slots && t->n_funcs < want; i++) {
			switch (i % 4) {
			case 0:
				put_nvme(g, &g->slots[i]);
				break;
			case 1:
				put_nic(g, &g->slots[i]);
				break;
			default:
				put_nic(g, &g->slots[i]);
				add_vfs(g, &g->slots[i], (int)t->n_funcs - 1, 56);
			}
		}
	}
	/* Leaves only are dropped: what is last in a tree. */
	while (t->n_funcs > want) {
		size_t last = t->n_funcs - 1;
		bool is_parent = false;

		for (size_t i = 0; i < t->n_funcs; i++)
			is_parent = is_parent || t->funcs[i].parent == (int)last;
		assert(!is_parent);
		free(t->funcs[last].host_use);
		free(t->funcs[last].bad);
		t->n_funcs--;
	}
}

/* --- in order ----------------------------------------------------------------------------------------------- */

static const struct pci_func *sort_base;

static int index_cmp(const void *a, const void *b)
{
	return pci_addr_cmp(&sort_base[*(const int *)a].addr, &sort_base[*(const int *)b].addr);
}

static void sort_funcs(struct topology *t)
{
	AUTO_FREE int *order = xcalloc(t->n_funcs, sizeof(*order)), *place = xcalloc(t->n_funcs, sizeof(*place));
	struct pci_func *sorted = xcalloc(t->n_funcs, sizeof(*sorted));

	for (size_t i = 0; i < t->n_funcs; i++)
		order[i] = (int)i;
	sort_base = t->funcs;
	qsort(order, t->n_funcs, sizeof(*order), index_cmp);
	for (size_t i = 0; i < t->n_funcs; i++)
		place[order[i]] = (int)i;
	for (size_t i = 0; i < t->n_funcs; i++) {
		sorted[i] = t->funcs[order[i]];
		if (sorted[i].parent >= 0)
			sorted[i].parent = place[sorted[i].parent];
		assert(sorted[i].parent < (int)i);
		assert(i == 0 || pci_addr_cmp(&sorted[i - 1].addr, &sorted[i].addr) < 0);
		pci_addr_format(&sorted[i].addr, sorted[i].name);
	}
	free(t->funcs);
	t->funcs = sorted;
}

static void make_facts(struct gen *g)
{
	struct topology *t = g->t;

	strcpy(t->root, "/nowhere");
	strcpy(t->host_name, "generated");
	strcpy(t->machine_id, "0123456789abcdef0123456789abcdef");
	strcpy(t->cpu_vendor, rng_percent(&g->rng, 50) ? "GenuineIntel" : "AuthenticAMD");
	t->phys_bits = g->shape.plain ? 52 : PICK(&g->rng, 0, 40, 46, 46, 52, 52);
	t->iommu_bits = g->shape.plain ? 0 : PICK(&g->rng, 0, 0, 39, 46, 48, 52);
	t->kvm = !odd(g, 8);
	t->vfio = !odd(g, 3);
	t->iommu_groups = !odd(g, 4);
	for (size_t i = 0; i < t->n_funcs && !t->iommu_groups; i++)
		t->funcs[i].iommu_group = -1;
}

static void add_net(struct topology *t, const char *name, enum host_net_kind kind, const char *master)
{
	struct host_net *n = PUSH_ZEROED(t->nets, t->n_nets);

	*n = (struct host_net){ .kind = kind, .mtu = 1500, .up = true, .persistent = true };
	snprintf(n->name, sizeof(n->name), "%s", name);
	snprintf(n->master, sizeof(n->master), "%s", master);
}

/* The names that genvm.c uses. */
static void make_nets(struct gen *g)
{
	struct topology *t = g->t;

	t->vhost_net = !odd(g, 8);
	t->vhost_vsock = !odd(g, 8);
	t->io_uring = !odd(g, 4);
	t->nets_known = !odd(g, 5);
	if (!t->nets_known)
		return;
	add_net(t, "eth0", HOST_NET_OTHER, "");
	if (!odd(g, 10))
		add_net(t, "br0", HOST_NET_BRIDGE, "");
	t->nets[t->n_nets - 1].mtu = PICK(&g->rng, 1400, 1500, 9000);
	for (int i = 0; i < 3; i++) {
		AUTO_FREE char *name = xasprintf("tap%d", i);

		add_net(t, name, HOST_NET_TAP, i == 2 ? "br0" : "");
		t->nets[t->n_nets - 1].multi_queue = rng_percent(&g->rng, 80);
		t->nets[t->n_nets - 1].in_use = rng_percent(&g->rng, 20);
		t->nets[t->n_nets - 1].up = rng_percent(&g->rng, 80);
	}
}

void genhost_make(uint64_t seed, const struct genhost_shape *shape, struct topology *ret)
{
	struct gen g = { .rng = { seed }, .t = ret, .bus = -1 };
	int gpus;

	*ret = (struct topology){ 0 };
	if (shape)
		g.shape = *shape;
	gpus = g.shape.gpus ? g.shape.gpus
			    : PICK(&g.rng, 0, 1, 2, 3, 4, 4, 6, 8, 8, 8, 10, 12, 16, rng_range(&g.rng, 1, 32));
	g.no_ports = odd(&g, 10);
	g.companions = odd(&g, 30);
	make_nodes(&g);
	make_distances(&g);
	make_cpus(&g);
	make_allowed(&g);
	for (int i = 0; i < (int)ret->n_nodes / 2 || (int)g.n_slots < gpus; i++)
		add_host_bridge(&g);
	for (int i = rng_below(&g.rng, 4); i > 0; i--)
		add_host_bridge(&g);
	fill_slots(&g, gpus);
	if (g.shape.functions)
		pad_functions(&g);
	make_facts(&g);
	make_nets(&g);
	sort_funcs(ret);
	topology_finish(ret);
	free(g.slots);
}

char *genhost_describe(const struct topology *t)
{
	AUTO_FREE char *allowed = cpuset_format(&t->allowed);

	return xasprintf("%d sockets, %zu nodes, %zu CPUs (may use %s), %zu functions, %d GPUs", t->n_sockets,
			 t->n_nodes, t->n_cpus, allowed, t->n_funcs, topology_n_gpus(t));
}
