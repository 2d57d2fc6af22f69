/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How near the VM's devices are to each other, on the host and as the guest sees them.
 *
 * NCCL, CUDA and UCX choose paths by these relations, and they read them from the guest's PCI tree.  What the guest
 * sees may be farther than what the host has ([pcie] topology = root-port hides the switches): data then still
 * takes the short way, because the IOMMU maps the real BARs, but the libraries do not choose it unless they are told. */
#include <errno.h>
#include <string.h>

#include "plan_priv.h"

#define MAX_SWITCHES      8
#define PCI_VENDOR_NVIDIA 0x10de
#define CLIQUES           16 /* the capability that QEMU makes of it has four bits for the number */

_Static_assert((int)RELATION_PIX == (int)REL_PIX && (int)RELATION_NODE == (int)REL_NODE,
	       "both name the same relations");

const struct plan_port *plan_find_port(const struct plan *p, const char *id)
{
	for (size_t i = 0; i < p->n_ports; i++)
		if (strcmp(p->ports[i].id, id) == 0)
			return &p->ports[i];
	return NULL;
}

/* --- what the guest sees -------------------------------------------------------------------------- */

/* The switches above a device in the guest, nearest first, and the host bridge they hang from. */
struct ancestry {
	const struct plan_port *sw[MAX_SWITCHES];
	int n;
	const char *root;
};

static struct ancestry ancestry_of(const struct plan *p, const struct plan_device *d)
{
	struct ancestry a = { .root = "pcie.0" };
	const char *id = d->guest_port;

	for (const struct plan_port *port; (port = plan_find_port(p, id)); id = port->parent) {
		if (port->kind == GPORT_UPSTREAM && a.n < MAX_SWITCHES)
			a.sw[a.n++] = port;
		if (port->kind == GPORT_PXB) {
			a.root = port->id;
			break;
		}
	}
	return a;
}

static int guest_socket(const struct plan *p, int guest_node)
{
	for (size_t i = 0; i < p->n_vcpus; i++)
		if (p->vcpus[i].guest_node == guest_node)
			return p->vcpus[i].socket;
	return -1;
}

static enum pci_relation guest_relation(const struct plan *p, const struct plan_device *a, const struct plan_device *b)
{
	struct ancestry x = ancestry_of(p, a), y = ancestry_of(p, b);
	int socket = guest_socket(p, a->guest_node);

	for (int i = 0; i < x.n; i++)
		for (int k = 0; k < y.n; k++)
			if (x.sw[i] == y.sw[k])
				return i == 0 && k == 0 ? REL_PIX : REL_PXB;
	if (strcmp(x.root, y.root) == 0)
		return REL_PHB;
	/* On pcie.0 the guest knows of no node, which counts as near only if there is one socket to be on. */
	if (p->smp_sockets <= 1)
		return REL_NODE;
	if (strcmp(x.root, "pcie.0") == 0 || strcmp(y.root, "pcie.0") == 0)
		return REL_SYS;
	return socket >= 0 && socket == guest_socket(p, b->guest_node) ? REL_NODE : REL_SYS;
}

static bool is_peer(const struct plan_device *d)
{
	return d->role == ROLE_GPU || d->role == ROLE_NIC || d->role == ROLE_NVME;
}

static void list_relations(struct planner *pl)
{
	struct plan *p = pl->plan;

	for (size_t i = 0; i < p->n_devices; i++) {
		for (size_t k = 0; k < p->n_devices && p->devices[i].role == ROLE_GPU; k++) {
			const struct plan_device *a = &p->devices[i], *b = &p->devices[k];
			struct plan_relation *r;

			/* A pair of GPUs once. */
			if (i == k || !is_peer(b) || (b->role == ROLE_GPU && k < i))
				continue;
			r = PUSH_ZEROED(p->relations, p->n_relations);
			*r = (struct plan_relation){ .a = (int)i,
						     .b = (int)k,
						     .host = topology_relation(pl->req->host, a->func, b->func),
						     .guest = guest_relation(p, a, b) };
		}
	}
}

static enum pci_relation worse_of(const struct plan_relation *r)
{
	return r->host > r->guest ? r->host : r->guest;
}

static const struct plan_relation *nearest(const struct plan *p, int gpu, enum pci_role role)
{
	const struct plan_relation *best = NULL;

	for (size_t i = 0; i < p->n_relations; i++) {
		const struct plan_relation *r = &p->relations[i];

		if (r->a == gpu && p->devices[r->b].role == role && (!best || worse_of(r) < worse_of(best)))
			best = r;
	}
	return best;
}

/* --- what the definition requires -------------------------------------------------------------------- */

/* Has the host anything of @role that a VM could have, this near to a GPU? */
static bool host_has_near(const struct planner *pl, int gpu, enum pci_role role, enum pci_relation limit)
{
	const struct topology *t = pl->req->host;

	for (size_t i = 0; i < t->n_funcs; i++)
		if (t->funcs[i].role == role && !t->funcs[i].is_vf && !t->funcs[i].host_use && !t->funcs[i].bad &&
		    topology_relation(t, gpu, (int)i) <= limit)
			return true;
	return false;
}

/* "GPUs 1, 3, 5, 7", those of the host that could have what is required; NULL if none could. Owned. */
static char *gpus_that_could(const struct planner *pl, enum pci_role role, enum pci_relation limit)
{
	const struct topology *t = pl->req->host;
	struct cpuset set = { 0 };
	AUTO_FREE char *list = NULL;

	for (int g = 0; g < topology_n_gpus(t) && g < CPUSET_MAX; g++)
		if (host_has_near(pl, topology_find_gpu(t, g), role, limit))
			cpuset_add(&set, g);
	list = cpuset_format(&set);
	return *list ? xasprintf("GPU%s %s", PLURAL(cpuset_count(&set)), list) : NULL;
}

static const char *role_name(enum pci_role role)
{
	return role == ROLE_NIC ? "NIC" : "NVMe controller";
}

/* What would work, from near to far: another tree for the guest, other GPUs, a weaker requirement. */
static void hint_nearer(struct planner *pl, struct problem *pr, const struct plan_relation *r, enum pci_role role)
{
	enum pci_relation limit = (enum pci_relation)pl->req->vm->relation;
	AUTO_FREE char *gpus = gpus_that_could(pl, role, limit);
	const char *word = pci_relation_word(limit);

	if (r && r->host <= limit && pl->req->vm->pcie != PCIE_MIRROR)
		problem_hint(pr, "[pcie] topology = mirror shows the guest the host's switches");
	else if (r && r->host <= limit)
		problem_hint(pr, "leave out guest-node, which takes one of them to another node");
	else if (gpus && r && worse_of(r) < REL_SYS)
		problem_hint(pr, "%s of this host have a %s at %s; or `relation = require %s`", gpus, role_name(role),
			     word, pci_relation_word(worse_of(r)));
	else if (gpus)
		problem_hint(pr, "%s of this host have a %s at %s", gpus, role_name(role), word);
	else
		problem_hint(pr, "no GPU of this host has a %s at %s; `relation = prefer` takes the nearest",
			     role_name(role), word);
}

static void require_near(struct planner *pl, int gpu, enum pci_role role)
{
	const struct plan *p = pl->plan;
	const struct plan_device *g = &p->devices[gpu];
	const struct plan_relation *r = nearest(p, gpu, role);
	enum pci_relation limit = (enum pci_relation)pl->req->vm->relation;
	AUTO_FREE char *text = NULL;
	char bdf[PCI_ADDR_STR];
	struct problem *pr;

	if (r && worse_of(r) <= limit)
		return;
	pci_addr_format(&g->addr, bdf);
	if (!r)
		text = xasprintf("%s (%s) has no %s in this VM", g->id, bdf, role_name(role));
	else if (r->host > limit)
		text = xasprintf("the %s nearest to %s (%s) is %s at %s", role_name(role), g->id, bdf,
				 p->devices[r->b].id, pci_relation_word(r->host));
	else
		text = xasprintf("%s (%s) and %s are %s on the host, but the guest sees %s", g->id, bdf,
				 p->devices[r->b].id, pci_relation_word(r->host), pci_relation_word(r->guest));
	pr = config_problem(pl->ps, pl->req->vm, "pcie", "relation", "relation-too-far",
			    "[pcie] relation: %s is required: %s", pci_relation_word(limit), text);
	pr->kind = PROBLEM_HOST;
	problem_device(pr, bdf);
	hint_nearer(pl, pr, r, role);
}

static bool has_role(const struct plan *p, enum pci_role role)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (p->devices[i].role == role)
			return true;
	return false;
}

/* A VM that wants no NICs (nics = none) is not held to have near ones. */
static void check_policy(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	const struct plan *p = pl->plan;

	if (vm->relation == RELATION_PREFER)
		return;
	for (size_t i = 0; i < p->n_devices; i++) {
		if (p->devices[i].role != ROLE_GPU)
			continue;
		if (vm->nics != 0 || has_role(p, ROLE_NIC))
			require_near(pl, (int)i, ROLE_NIC);
		if (has_role(p, ROLE_NVME))
			require_near(pl, (int)i, ROLE_NVME);
	}
}

/* --- what is said about it ------------------------------------------------------------------------------ */

/* "NIC is at PIX for gpu0, gpu1, at PXB for gpu2"; without the names where all GPUs have the same. NULL if there is none. */
static char *nearest_words(const struct plan *p, enum pci_role role)
{
	char *all = NULL;
	int n_gpus = 0;

	for (size_t i = 0; i < p->n_devices; i++)
		n_gpus += p->devices[i].role == ROLE_GPU;
	for (enum pci_relation rel = REL_PIX; n_gpus && rel <= REL_SYS; rel++) {
		AUTO_FREE char *names = xstrdup(""), *before = all;
		int n = 0;

		all = NULL;
		for (size_t i = 0; i < p->n_devices; i++) {
			const struct plan_relation *r = nearest(p, (int)i, role);
			AUTO_FREE char *shorter = names;

			if (r && r->host == rel)
				names = xasprintf("%s%s%s", shorter, n++ ? ", " : "", p->devices[i].id);
			else
				names = STEAL_PTR(shorter);
		}
		if (n == n_gpus)
			all = xasprintf("%s is at %s", role_name(role), pci_relation_word(rel));
		else if (n)
			all = before ? xasprintf("%s, at %s for %s", before, pci_relation_word(rel), names)
				     : xasprintf("%s is at %s for %s", role_name(role), pci_relation_word(rel), names);
		else
			all = STEAL_PTR(before);
	}
	return all;
}

static void explain_nearest(struct planner *pl)
{
	AUTO_FREE char *nic = nearest_words(pl->plan, ROLE_NIC), *nvme = nearest_words(pl->plan, ROLE_NVME);

	if (nic || nvme)
		plan_reason(pl->plan, "relations", "on the host, a GPU's nearest %s%s%s", nic ? nic : "",
			    nic && nvme ? ", its nearest " : "", nvme ? nvme : "");
}

static const char *why_worse(const struct planner *pl)
{
	switch (pl->req->vm->pcie) {
	case PCIE_ROOT_PORT:
		return "a root port for each device shows true link speeds but no switches";
	case PCIE_FLAT:
		return "the flat tree shows neither switches nor nodes";
	case PCIE_MIRROR:
		break;
	}
	return "they are on different nodes of the guest";
}

static void warn_worse(struct planner *pl)
{
	struct plan *p = pl->plan;
	const struct plan_relation *first = NULL;
	int n = 0;

	for (size_t i = 0; i < p->n_relations; i++) {
		const struct plan_relation *r = &p->relations[i];

		if (r->guest <= r->host)
			continue;
		first = first ? first : r;
		n++;
	}
	if (!first)
		return;
	plan_warn(p, "relation-worse",
		  "%d pair%s of devices look%s farther apart in the guest than they are, as %s and %s (%s on the host, "
		  "%s in the guest): %s. NCCL goes by "
		  "the tree unless it is given the generated nccl-topo.xml",
		  n, PLURAL(n), n == 1 ? "s" : "", p->devices[first->a].id, p->devices[first->b].id,
		  pci_relation_word(first->host), pci_relation_word(first->guest), why_worse(pl));
}

/* --- cliques ------------------------------------------------------------------------------------------------ */

/* QEMU (vfio_add_nv_gpudirect_cap) wants NVIDIA and the display base class, and fails otherwise. */
static bool can_have_clique(const struct plan_device *d)
{
	return d->vendor == PCI_VENDOR_NVIDIA && d->class_code >> 16 == 0x03;
}

/* Numbers that the definition gives. Returns true if there are any. */
static bool take_explicit_cliques(struct planner *pl)
{
	bool any = false;

	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		struct plan_device *d = &pl->plan->devices[i];
		AUTO_FREE char *section = NULL;

		d->clique = -1;
		if (!d->options || d->options->gpudirect_clique < 0)
			continue;
		any = true;
		d->clique = d->options->gpudirect_clique;
		if (can_have_clique(d))
			continue;
		section = xasprintf("device %s", d->options->name);
		config_problem(pl->ps, pl->req->vm, section, "gpudirect-clique", "clique-unsupported",
			       "[%s] gpudirect-clique: only NVIDIA GPUs with a display class can have one", section)
			->kind = PROBLEM_HOST;
	}
	return any;
}

/* One number is a promise of P2P, which does not work across sockets. */
static void warn_far_cliques(struct planner *pl)
{
	struct plan *p = pl->plan;

	for (size_t i = 0; i < p->n_relations; i++) {
		const struct plan_relation *r = &p->relations[i];
		const struct plan_device *a = &p->devices[r->a], *b = &p->devices[r->b];

		if (a->clique >= 0 && a->clique == b->clique && r->host == REL_SYS)
			plan_warn(p, "clique-too-far",
				  "%s and %s are in one GPUDirect clique (%d), but on different sockets, where "
				  "peer-to-peer does not work",
				  a->id, b->id, a->clique);
	}
}

static const struct plan_relation *relation_of(const struct plan *p, int a, int b)
{
	for (size_t i = 0; i < p->n_relations; i++)
		if (p->relations[i].a == a && p->relations[i].b == b)
			return &p->relations[i];
	return NULL;
}

/* Put GPU @first and those that reach it into clique @number. False if it would be alone. */
static bool number_clique(struct planner *pl, int first, int number)
{
	struct plan *p = pl->plan;
	bool on = pl->req->vm->cliques == CLIQUES_ON, hidden = on;
	/* A switch routes between its ports by itself; through a host bridge it works on the usual servers, but who knows. */
	enum pci_relation limit = on ? REL_PHB : REL_PXB;
	struct plan_device *members[CLIQUES * 4];
	size_t n = 0;

	for (int k = first + 1; k < (int)p->n_devices && n < ARRAY_SIZE(members); k++) {
		const struct plan_relation *r = relation_of(p, first, k);

		if (!r || r->host > limit || !can_have_clique(&p->devices[k]) || p->devices[k].clique >= 0)
			continue;
		hidden = hidden || r->guest > r->host;
		members[n++] = &p->devices[k];
	}
	if (!n || !hidden)
		return false;
	p->devices[first].clique = number;
	for (size_t i = 0; i < n; i++)
		members[i]->clique = number;
	return true;
}

static void number_cliques(struct planner *pl)
{
	struct plan *p = pl->plan;
	int n = 0;

	for (int i = 0; i < (int)p->n_devices && n < CLIQUES; i++)
		if (p->devices[i].clique < 0 && can_have_clique(&p->devices[i]))
			n += number_clique(pl, i, n);
	if (n && pl->req->vm->cliques == CLIQUES_ON)
		plan_reason(p, "cliques", "%d: the GPUs below each host bridge, as [pcie] cliques says", n);
	else if (n)
		plan_reason(p, "cliques",
			    "%d: GPUs that share a switch on the host, which the guest's tree does not show; the "
			    "driver may use peer-to-peer then",
			    n);
	else if (pl->req->vm->cliques == CLIQUES_ON)
		plan_reason(p, "cliques", "none: no two NVIDIA GPUs of the VM are below one host bridge");
}

static void choose_cliques(struct planner *pl)
{
	bool given = take_explicit_cliques(pl);

	if (!given && pl->req->vm->cliques != CLIQUES_OFF)
		number_cliques(pl);
	warn_far_cliques(pl);
}

int relate_devices(struct planner *pl)
{
	size_t before = pl->ps->n;

	list_relations(pl);
	check_policy(pl);
	explain_nearest(pl);
	warn_worse(pl);
	choose_cliques(pl);
	return pl->ps->n != before ? -EINVAL : 0;
}
