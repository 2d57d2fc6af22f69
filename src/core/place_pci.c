/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's PCIe tree and its bus numbers.
 *
 * How it works: each guest node gets a pxb-pcie, a host bridge with that NUMA node.  Below it, devices that share a switch on
 * the host share one in the guest: root port -> x3130-upstream -> xio3130-downstream per device, nested where the host's
 * switches are stacked.  A switch with a single device of ours is left out: QEMU's switch ports report 2.5 GT/s x1, a root port the
 * true link.  Ports are made in the order in which firmware walks them (depth first, by device number), so the bus
 * numbers that the guest will see are known beforehand; `verify` compares them with query-pci.
 *
 * Facts: one PCI domain of 256 buses, each root, upstream and downstream port takes one, and the buses below a pxb must fit before
 * the next one's bus_nr (QEMU docs/pcie.txt, hw/pci-bridge/pci_expander_bridge.c). (chassis, slot) is unique over all root and
 * downstream ports, chassis has 8 bits.  hotplug=off everywhere: with hotplug OVMF maps 0 of 24 endpoints. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "plan_priv.h"

#define BUSES            256
#define BUS_STEP         0x20 /* pxb bus numbers begin at multiples, where that fits: easy to read */
#define SLOTS            32   /* device numbers on a bus */
#define ROOT_SLOT_PXB    0x10 /* pcie.0 device numbers: 0x2-0x7 disks and NICs, 0x8-0xf root ports, 0x10.. pxb */
#define ROOT_SLOT_PORTS  0x08
#define MAX_DEPTH        8
#define MAX_PXB          15                /* device numbers 0x10-0x1e of pcie.0; 0x1f is q35's LPC bridge */

struct item {
	struct plan_device *dev;
	int sw[MAX_DEPTH]; /* host upstream ports above, root first */
	int n_sw;
};

/* One walk over the tree of a node. */
struct walk {
	struct planner *pl;
	int guest_node;
	int next_bus;
	int n_rp, n_sw; /* for ids */
};

static struct plan_port *add_port(struct walk *w, enum plan_port_kind kind, char *id, const char *parent, int addr)
{
	struct plan *p = w->pl->plan;
	struct plan_port *port = PUSH_ZEROED(p->ports, p->n_ports);

	port->kind = kind;
	port->id = id;
	port->parent = xstrdup(parent);
	port->addr = addr;
	port->guest_node = w->guest_node;
	port->bus_nr = w->next_bus++;
	port->host_func = -1;
	if (kind == GPORT_ROOT || kind == GPORT_DOWNSTREAM) {
		int n = 0;

		for (size_t i = 0; i + 1 < p->n_ports; i++)
			n += p->ports[i].kind == GPORT_ROOT || p->ports[i].kind == GPORT_DOWNSTREAM;
		port->chassis = n + 1;
		port->slot = 0;
	}
	return port;
}

static void plug(struct plan_device *d, const struct plan_port *port, const char *sw)
{
	d->guest_port = xstrdup(port->id);
	d->guest_switch = sw ? xstrdup(sw) : NULL;
	d->guest_bus_nr = port->bus_nr;
}

/* Items of v[] that lie below the same switch at @level as v[0], moved to the front; returns how many. A device that is not
 * below any switch at this level stands alone. */
static int take_same(struct item *v, int n, int level)
{
	int k = 1;

	if (v[0].n_sw <= level)
		return 1;
	for (int i = 1; i < n; i++) {
		if (v[i].n_sw > level && v[i].sw[level] == v[0].sw[level]) {
			struct item tmp = v[i];

			memmove(&v[k + 1], &v[k], sizeof(*v) * (size_t)(i - k));
			v[k++] = tmp;
		}
	}
	return k;
}

/* How many switches all items have in common. */
static int common_depth(const struct item *v, int n)
{
	int level = v[0].n_sw;

	for (int i = 1; i < n; i++) {
		int k = 0;

		while (k < level && k < v[i].n_sw && v[i].sw[k] == v[0].sw[k])
			k++;
		level = k;
	}
	return level;
}

/* Below @bus: one switch for @n >= 2 items that share a host switch. */
static void emit_switch(struct walk *w, const char *bus, struct item *v, int n)
{
	int level = common_depth(v, n), addr = 0;
	struct plan_port *up = add_port(w, GPORT_UPSTREAM, xasprintf("sw%d", w->n_sw++), bus, 0);
	AUTO_FREE char *id = xstrdup(up->id);

	up->host_func = v[0].sw[level - 1];
	while (n > 0) {
		int k = take_same(v, n, level);
		struct plan_port *dn = add_port(w, GPORT_DOWNSTREAM, xasprintf("%s-dp%d", id, addr), id, addr);

		addr++;
		if (k == 1) {
			plug(v->dev, dn, id);
		} else {
			AUTO_FREE char *below = xstrdup(dn->id);

			emit_switch(w, below, v, k);
		}
		v += k;
		n -= k;
	}
}

static struct plan_port *add_root_port(struct walk *w, const char *bus, int addr, int host_func)
{
	struct plan_port *rp = add_port(w, GPORT_ROOT, xasprintf("rp%d", w->n_rp++), bus, addr);

	rp->link = topology_path_link(w->pl->req->host, host_func);
	return rp;
}

/* All items of one guest node, below @bus, one root port for each switch or lone device. */
static void emit_node(struct walk *w, const char *bus, struct item *v, int n)
{
	bool mirror = w->pl->req->vm->pcie == PCIE_MIRROR;
	int addr = 0;

	while (n > 0) {
		int k = mirror ? take_same(v, n, 0) : 1;
		int top = k > 1 ? v[0].sw[common_depth(v, k) - 1] : v[0].dev->func;
		struct plan_port *rp = add_root_port(w, bus, addr++, top);

		if (k == 1) {
			plug(v->dev, rp, NULL);
		} else {
			AUTO_FREE char *below = xstrdup(rp->id);

			emit_switch(w, below, v, k);
		}
		v += k;
		n -= k;
	}
	if (addr > SLOTS)
		problem_hint(problems_add(w->pl->ps, PROBLEM_HOST, "buses-exhausted",
					  "guest node %d needs %d root ports, a bus has room for %d", w->guest_node,
					  addr, SLOTS),
			     mirror ? "pass fewer devices"
				    : "pass fewer devices, or set [pcie] topology = mirror, which needs one root port "
				      "per switch");
}

static int item_cmp(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return pci_addr_cmp(&x->dev->addr, &y->dev->addr);
}

/* The devices of one guest node (-1: of none), in the host's order. */
static int collect_items(struct planner *pl, int guest_node, bool flat, struct item *ret)
{
	int n = 0;

	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		struct plan_device *d = &pl->plan->devices[i];
		int path[32], len;

		if (flat ? guest_node != -1 : d->guest_node != guest_node)
			continue;
		ret[n] = (struct item){ .dev = d };
		len = (int)topology_path(pl->req->host, d->func, path, ARRAY_SIZE(path));
		for (int k = 0; k < len && k < (int)ARRAY_SIZE(path) && ret[n].n_sw < MAX_DEPTH; k++)
			if (topology_is_upstream(pl->req->host, path[k]))
				ret[n].sw[ret[n].n_sw++] = path[k];
		n++;
	}
	qsort(ret, (size_t)n, sizeof(*ret), item_cmp);
	return n;
}

/* Root ports on pcie.0 itself: eight to a slot, as functions. */
static void emit_flat(struct walk *w, struct item *v, int n)
{
	if (n > 8 * (ROOT_SLOT_PXB - ROOT_SLOT_PORTS)) {
		problems_add(w->pl->ps, PROBLEM_HOST, "buses-exhausted", "%d devices on pcie.0, which has room for %d",
			     n, 8 * (ROOT_SLOT_PXB - ROOT_SLOT_PORTS));
		return;
	}
	w->next_bus = 1;
	for (int i = 0; i < n; i++)
		plug(v[i].dev, add_root_port(w, "pcie.0", ROOT_SLOT_PORTS * 8 + i, v[i].dev->func), NULL);
}

/* Give each pxb its first bus number: spread out where there is room, else back to back. */
static void number_buses(struct planner *pl, int used_on_root)
{
	struct plan *p = pl->plan;
	int step, base, shift = 0;

	for (step = BUS_STEP; step >= 1; step = step > 1 ? 1 : 0) {
		int end = used_on_root + 1, size = 0;

		for (size_t i = 0; i < p->n_ports; i++) {
			if (p->ports[i].kind == GPORT_PXB) {
				end = (end + size + step - 1) / step * step;
				size = 0;
			}
			size += p->ports[i].guest_node >= 0;
		}
		if (end + size <= BUSES)
			break;
	}
	if (!step) {
		struct problem *pr =
			problems_add(pl->ps, PROBLEM_HOST, "buses-exhausted",
				     "the guest's PCIe tree needs more than the %d buses that there are", BUSES);

		problem_hint(pr, pl->req->vm->pcie == PCIE_MIRROR ? "pass fewer devices, or set [pcie] topology = "
								    "root-port, which needs one bus per device"
								  : "pass fewer devices");
		return;
	}
	base = used_on_root + 1;
	for (size_t i = 0, size = 0; i < p->n_ports; i++) {
		struct plan_port *port = &p->ports[i];

		if (port->guest_node < 0)
			continue;
		if (port->kind == GPORT_PXB) {
			base = (base + (int)size + step - 1) / step * step;
			size = 0;
			shift = base - port->bus_nr;
		}
		port->bus_nr += shift;
		size++;
	}
	for (size_t i = 0; i < p->n_devices; i++)
		for (size_t k = 0; k < p->n_ports; k++)
			if (strcmp(p->ports[k].id, p->devices[i].guest_port) == 0)
				p->devices[i].guest_bus_nr = p->ports[k].bus_nr;
}

/* --- all ------------------------------------------------------------------------------------------------- */

/* The VM's other devices below the same host switch: "nic0, nvme0"; "" for none. Owned. */
static char *companions(const struct planner *pl, int self, int sw)
{
	char *out = xstrdup("");

	for (size_t i = 0; sw >= 0 && i < pl->plan->n_devices; i++) {
		const struct plan_device *d = &pl->plan->devices[i];
		int path[32];
		size_t n = topology_path(pl->req->host, d->func, path, ARRAY_SIZE(path));

		for (size_t k = 0; k < n && k < ARRAY_SIZE(path) && (int)i != self; k++) {
			AUTO_FREE char *before = out;

			out = path[k] == sw ? xasprintf("%s%s%s", before, *before ? ", " : "", d->id)
					    : STEAL_PTR(before);
		}
	}
	return out;
}

static const char *func_bdf(const struct planner *pl, int func, char buf[PCI_ADDR_STR])
{
	return pci_addr_format(&planner_func(pl, func)->addr, buf);
}

/* The host switch that the guest's switch right above the device stands for. */
static int mirrored_switch(const struct planner *pl, const struct plan_device *d)
{
	const struct plan_port *sw = d->guest_switch ? plan_find_port(pl->plan, d->guest_switch) : NULL;

	return sw ? sw->host_func : topology_switch_of(pl->req->host, d->func);
}

static void explain_device(struct planner *pl, int i)
{
	struct plan *p = pl->plan;
	const struct plan_device *d = &p->devices[i];
	int sw = mirrored_switch(pl, d);
	AUTO_FREE char *what = xasprintf("device %s", d->id), *with = companions(pl, i, sw);
	AUTO_FREE char *node = d->guest_node >= 0 && pl->req->vm->pcie != PCIE_FLAT
				       ? xasprintf(" on guest node %d", d->guest_node)
				       : xstrdup("");
	char bdf[PCI_ADDR_STR];

	if (d->guest_switch)
		plan_reason(p, what, "port %s%s: switch %s stands for %s of the host, which it shares with %s",
			    d->guest_port, node, d->guest_switch, func_bdf(pl, sw, bdf), with);
	else if (sw < 0)
		plan_reason(p, what, "root port %s%s: no PCIe switch is above it on the host either", d->guest_port,
			    node);
	else if (*with && pl->req->vm->pcie != PCIE_MIRROR)
		plan_reason(p, what,
			    "root port %s%s, as [pcie] topology says: true link speed, but switch %s, which it shares "
			    "with %s, is hidden",
			    d->guest_port, node, func_bdf(pl, sw, bdf), with);
	else
		plan_reason(p, what,
			    "root port %s%s: of the VM only it is below the host's switch %s, and a root port shows "
			    "the true link speed",
			    d->guest_port, node, func_bdf(pl, sw, bdf));
}

int place_pci(struct planner *pl)
{
	bool flat = pl->req->vm->pcie == PCIE_FLAT;
	struct walk w = { .pl = pl, .guest_node = -1 };
	struct item *v = xcalloc(pl->plan->n_devices, sizeof(*v));
	int n = collect_items(pl, -1, flat, v), on_root, n_pxb = 0;
	size_t before = pl->ps->n;

	emit_flat(&w, v, n);
	on_root = w.next_bus > 0 ? w.next_bus - 1 : 0;
	for (size_t i = 0; i < pl->plan->n_nodes && !flat; i++) {
		AUTO_FREE char *id = NULL;

		w.guest_node = (int)i;
		w.next_bus = 0;
		n = collect_items(pl, (int)i, flat, v);
		if (!n)
			continue;
		if (n_pxb == MAX_PXB) {
			problems_add(
				pl->ps, PROBLEM_HOST, "buses-exhausted",
				"the VM's devices are on more than %d nodes, and pcie.0 has room for %d host bridges",
				MAX_PXB, MAX_PXB);
			break;
		}
		id = xasprintf("pxb%zu", i);
		add_port(&w, GPORT_PXB, xstrdup(id), "pcie.0", ROOT_SLOT_PXB + n_pxb++);
		emit_node(&w, id, v, n);
	}
	free(v);
	if (pl->ps->n != before)
		return -EINVAL;
	number_buses(pl, on_root);
	planner_size_window(pl);
	for (size_t i = 0; i < pl->plan->n_devices; i++)
		explain_device(pl, (int)i);
	return pl->ps->n != before ? -EINVAL : 0;
}
