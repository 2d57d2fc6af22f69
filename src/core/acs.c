/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which ports let direct translated requests through, and who must not be there: gpuvm/acs.h has the rule. */
#include <errno.h>
#include <string.h>

#include "gpuvm/acs.h"
#include "plan_priv.h"

/* Functions of one VM. */
struct owned {
	int *v;
	size_t n;
};

static bool owns(const struct owned *o, int func)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->v[i] == func)
			return true;
	return false;
}

/* The bridge right below the bridge @above by which @func is reached, or @func itself; -1: it is not below it. */
static int child_towards(const struct topology *t, int above, int func)
{
	while (func >= 0 && t->funcs[func].parent != above)
		func = t->funcs[func].parent;
	return func;
}

static bool any_below(const struct topology *t, int bridge, const struct owned *o)
{
	for (size_t i = 0; i < o->n; i++)
		if (child_towards(t, bridge, o->v[i]) >= 0)
			return true;
	return false;
}

/* Are they below more than one port of the switch? */
static bool meet_at(const struct topology *t, int sw, const struct owned *o)
{
	int first = -1;

	for (size_t i = 0; i < o->n && t->funcs[sw].is_switch; i++) {
		int port = child_towards(t, sw, o->v[i]);

		if (port >= 0 && first >= 0 && port != first)
			return true;
		first = port >= 0 ? port : first;
	}
	return false;
}

static void append(char **list, const char *bdf, const char *open, const char *what, const char *close)
{
	AUTO_FREE char *before = *list;

	*list = xasprintf("%s%s%s%s%s%s", before ? before : "", before ? ", " : "", bdf, open, what, close);
}

/* --- whose is what is below a switch ------------------------------------------------------------------------------- */

/* Drivers that do nothing with a device but keep it for VMs: the start of another VM with it is refused then. */
static bool is_kept_for_vms(const struct pci_func *f)
{
	return strncmp(f->driver, "vfio", 4) == 0 || strcmp(f->driver, "pci-stub") == 0;
}

/* What is below the switch and neither the VM's nor nobody's: "0000:1a:00.0 (driver nvme)"; owned, NULL: nothing. */
static char *others_below(const struct planner *pl, int sw, const struct owned *own, bool *ret_vm)
{
	const struct topology *t = pl->req->host;
	char *list = NULL;

	for (size_t i = 0; i < t->n_funcs; i++) {
		const struct pci_func *f = &t->funcs[i];
		const struct used_device *user = planner_device_user(pl, f);
		char bdf[PCI_ADDR_STR];

		if (f->role == ROLE_BRIDGE || owns(own, (int)i) || child_towards(t, sw, (int)i) < 0)
			continue;
		pci_addr_format(&f->addr, bdf);
		*ret_vm |= user != NULL;
		if (user)
			append(&list, bdf, " (VM '", user->vm, "')");
		else if (f->host_use)
			append(&list, bdf, " (", f->host_use, ")");
		else if (*f->driver && !is_kept_for_vms(f))
			append(&list, bdf, " (driver ", f->driver, ")");
	}
	return list;
}

static void check_switches(struct planner *pl, const struct owned *own)
{
	const struct topology *t = pl->req->host;

	for (size_t i = 0; i < t->n_funcs; i++) {
		bool vm = false;
		AUTO_FREE char *others = meet_at(t, (int)i, own) ? others_below(pl, (int)i, own, &vm) : NULL;
		char bdf[PCI_ADDR_STR];
		struct problem *p;

		if (!others)
			continue;
		p = config_problem(pl->ps, pl->req->vm, "pcie", "acs", "acs-shared",
				   "[pcie] acs: the VM's devices would reach each other past the IOMMU below the switch %s, and there is also %s",
				   pci_addr_format(&t->funcs[i].addr, bdf), others);
		p->kind = vm ? PROBLEM_BUSY : PROBLEM_HOST;
		problem_hint(p, "give the VM all that is below the switch, take from its driver what the host does without "
				"(echo ADDRESS >/sys/bus/pci/devices/ADDRESS/driver/unbind), or use acs = keep");
	}
}

/* The devices of another VM that runs; owned. */
static struct owned owned_by(const struct planner *pl, const char *vm)
{
	const struct host_use *use = pl->req->use;
	struct owned o = { .v = xcalloc(use->n_devices + 1, sizeof(*o.v)) };

	for (size_t i = 0; i < use->n_devices; i++) {
		int func = strcmp(use->devices[i].vm, vm) == 0 ? topology_find_func(pl->req->host, &use->devices[i].addr) : -1;

		if (func >= 0)
			o.v[o.n++] = func;
	}
	return o;
}

/* The other side of check_switches(), for whoever comes later, and whatever that one asks for. */
static void check_others(struct planner *pl, const struct owned *own)
{
	const struct host_use *use = pl->req->use;
	const struct topology *t = pl->req->host;
	const char *last = "";

	for (size_t i = 0; use && i < use->n_registers; i++) {
		const struct used_register *v = &use->registers[i];
		struct owned theirs;

		/* Those of a VM follow each other. */
		if (!(v->to & ACS_DIRECT) || strcmp(last, v->vm) == 0)
			continue;
		last = v->vm;
		theirs = owned_by(pl, v->vm);
		for (size_t sw = 0; sw < t->n_funcs; sw++) {
			char bdf[PCI_ADDR_STR];

			if (!meet_at(t, (int)sw, &theirs) || !any_below(t, (int)sw, own))
				continue;
			problem_hint(problems_add(pl->ps, PROBLEM_BUSY, "acs-shared",
						  "below the switch %s devices of VM '%s' reach each other past the IOMMU ([pcie] acs = direct-translated), "
						  "and one of this VM's is there, too",
						  pci_addr_format(&t->funcs[sw].addr, bdf), v->vm),
				     "use devices below other switches, or stop '%s', or start it with acs = keep", v->vm);
		}
		free(theirs.v);
	}
}

/* --- ports ------------------------------------------------------------------------------------------------------------ */

struct ports {
	char *unable;	/* cannot do it */
	size_t unknown; /* their registers could not be read */
};

/* What is there now, or was there before another VM that runs changed it. */
static uint16_t value_before(const struct planner *pl, const struct plan_acs *a, uint16_t now)
{
	const struct host_use *use = pl->req->use;

	for (size_t i = 0; use && i < use->n_registers; i++)
		if (pci_addr_cmp(&use->registers[i].addr, &a->addr) == 0 && use->registers[i].offset == a->offset)
			return use->registers[i].from;
	return now;
}

static void add_port(struct planner *pl, int port, struct ports *ports)
{
	const struct pci_func *f = planner_func(pl, port);
	const struct doctor_func *x = pl->req->config ? &pl->req->config[port] : NULL;
	char bdf[PCI_ADDR_STR], sw[PCI_ADDR_STR];
	struct plan_acs *a;

	pci_addr_format(&f->addr, bdf);
	if (!x || !x->config) {
		ports->unknown++;
		return;
	}
	if (!x->acs || !(x->acs_can & ACS_DIRECT)) {
		append(&ports->unable, bdf, "", "", "");
		return;
	}
	a = PUSH_ZEROED(pl->plan->acs, pl->plan->n_acs);
	a->addr = f->addr;
	a->offset = x->acs_offset;
	a->from = value_before(pl, a, x->acs_control);
	a->to = (uint16_t)((x->acs_control & ~(ACS_WANTED | ACS_HARMFUL)) | (x->acs_can & ACS_WANTED));
	if (f->parent < 0)
		plan_reason(pl->plan, "acs", "%s 0x%04x -> 0x%04x: the root port above devices of the VM", bdf, a->from, a->to);
	else
		plan_reason(pl->plan, "acs", "%s 0x%04x -> 0x%04x: at its switch %s devices of the VM meet", bdf, a->from, a->to,
			    pci_addr_format(&planner_func(pl, f->parent)->addr, sw));
}

static void choose_ports(struct planner *pl, const struct owned *own)
{
	const struct topology *t = pl->req->host;
	struct ports ports = { 0 };
	struct plan *p = pl->plan;

	for (size_t i = 0; i < t->n_funcs; i++) {
		const struct pci_func *f = &t->funcs[i];
		char bdf[PCI_ADDR_STR];

		if (f->role != ROLE_BRIDGE || f->port == PORT_PCI_BRIDGE || !any_below(t, (int)i, own))
			continue;
		if (f->parent < 0 || meet_at(t, f->parent, own))
			add_port(pl, (int)i, &ports);
		else if (t->funcs[f->parent].is_switch)
			plan_reason(p, "acs", "%s is left alone: all devices of the VM below its switch are below this port",
				    pci_addr_format(&f->addr, bdf));
	}
	if (ports.unknown)
		plan_warn(p, "acs-not-known", "[pcie] acs: what %zu port%s can do is not known: only root can read configuration space past 64 bytes, and "
			  "only of a machine that is there", ports.unknown, PLURAL(ports.unknown));
	if (ports.unable && p->n_acs + ports.unknown)
		plan_warn(p, "acs-no-direct-translated", "[pcie] acs: no direct translated requests at %s: not among what the port can do", ports.unable);
	if (p->n_acs + ports.unknown == 0) {
		struct problem *pr = config_problem(pl->ps, pl->req->vm, "pcie", "acs", "acs-no-direct-translated",
						    "[pcie] acs: no port above the VM's devices can let direct translated requests through%s%s",
						    ports.unable ? ": " : "", ports.unable ? ports.unable : "");

		pr->kind = PROBLEM_HOST;
		problem_hint(pr, "`gpuvm doctor` shows what each port can do; acs = keep starts without");
	}
	free(ports.unable);
}

/* --- NICs ----------------------------------------------------------------------------------------------------------------- */

static void check_nics(struct planner *pl)
{
	struct plan *p = pl->plan;

	for (size_t i = 0; i < p->n_devices; i++) {
		const struct plan_device *d = &p->devices[i];
		const struct doctor_func *x = pl->req->config ? &pl->req->config[d->func] : NULL;
		AUTO_FREE char *cure = NULL;
		char bdf[PCI_ADDR_STR];

		/* Of virtual functions nothing was read. */
		if (d->role != ROLE_NIC || !x || !x->config)
			continue;
		pci_addr_format(&d->addr, bdf);
		if (x->ats) {
			plan_reason(p, "acs", "%s %s offers ATS; it is %s now, and the IOMMU turns it on for the VM", d->id, bdf,
				    x->ats_control & ATS_ENABLE ? "on" : "off");
			continue;
		}
		if (d->vendor == MELLANOX)
			cure = xasprintf("ATS_ENABLED is False in its firmware's settings (the default): `mlxconfig -d %s set ATS_ENABLED=true`, then reboot the "
					 "host; to reboot the VM is not enough", bdf);
		plan_warn(p, "nic-no-ats", "[pcie] acs: %s %s does not offer ATS, so all its requests go by the IOMMU%s%s", d->id, bdf, cure ? "; " : "",
			  cure ? cure : "");
	}
}

int place_acs(struct planner *pl)
{
	const struct plan *p = pl->plan;
	struct owned own = { 0 };

	/* Stand-ins are in nobody's switch. */
	if (pl->req->fake_devices || !p->n_devices)
		return 0;
	own.v = xcalloc(p->n_devices, sizeof(*own.v));
	for (size_t i = 0; i < p->n_devices; i++)
		own.v[own.n++] = p->devices[i].func;
	check_others(pl, &own);
	if (pl->req->vm->acs == CONF_ACS_DIRECT) {
		check_switches(pl, &own);
		choose_ports(pl, &own);
		check_nics(pl);
	}
	free(own.v);
	return 0;
}
