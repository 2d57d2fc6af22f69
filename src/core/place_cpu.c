/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest nodes, and a host CPU for every vCPU.
 *
 * How it works: each host node that carries a GPU of the VM becomes a guest node, and so do nodes without GPUs that serve such
 * a node (node_share.c).  On each, the first cores are reserved for the host; of the rest, the VM gets the share of its GPUs
 * (2 of 4 GPUs: half the cores), as whole cores, so that no two VMs share a core's caches and execution units.  SMT siblings
 * become guest threads.  vCPUs are numbered so that each guest node and socket is contiguous: hwloc#712 has a guest whose topology
 * broke with the host's interleaved numbering. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "plan_priv.h"

/* One core: its CPUs that we may use at all. */
struct core {
	int core;  /* topology's core index */
	int l3;
	struct cpuset cpus;
	bool reserved;
	const struct used_cpus *user; /* VM that runs on it */
};

struct cores {
	struct core *v;
	size_t n;
	size_t last; /* found: the next CPU is of the same core or of the one behind it, however the siblings are numbered */
};

/* --- guest nodes ------------------------------------------------------------------------------------ */

static bool has_guest_node(const struct plan *p, int host_node)
{
	for (size_t i = 0; i < p->n_nodes; i++)
		if (p->nodes[i].host_node == host_node)
			return true;
	return false;
}

static void add_node(struct planner *pl, int node)
{
	const struct topology *t = pl->req->host;
	struct plan_node *n;

	if (node < 0 || has_guest_node(pl->plan, t->nodes[node].id))
		return;
	n = PUSH_ZEROED(pl->plan->nodes, pl->plan->n_nodes);
	n->host_node = t->nodes[node].id;
	n->prealloc_cpus = t->nodes[node].cpus;
	cpuset_and(&n->prealloc_cpus, &t->allowed);
}

/* Without devices: the node with the most CPUs that nobody has. */
static int emptiest_node(const struct planner *pl)
{
	const struct topology *t = pl->req->host;
	int best = 0, best_free = -1;

	for (size_t i = 0; i < t->n_nodes; i++) {
		struct cpuset cpus = t->nodes[i].cpus;

		if (pl->req->vm->socket >= 0 && t->nodes[i].socket != pl->req->vm->socket)
			continue;
		cpuset_and(&cpus, &t->allowed);
		for (size_t k = 0; pl->req->use && k < pl->req->use->n_cpus; k++)
			cpuset_andnot(&cpus, &pl->req->use->cpus[k].cpus);
		if (cpuset_count(&cpus) > best_free) {
			best = (int)i;
			best_free = cpuset_count(&cpus);
		}
	}
	return best;
}

static void add_nodes_of_role(struct planner *pl, bool gpus)
{
	const struct topology *t = pl->req->host;

	/* In the host's order, so that guest node 0 is the lowest host node. */
	for (size_t i = 0; i < t->n_nodes; i++) {
		for (size_t k = 0; k < pl->plan->n_devices; k++) {
			const struct plan_device *d = &pl->plan->devices[k];

			if ((d->role == ROLE_GPU || !gpus) && planner_func(pl, d->func)->node == (int)i)
				add_node(pl, (int)i);
		}
		if (gpus && planner_takes_bare_node(pl, (int)i))
			add_node(pl, (int)i);
	}
}

static void explain_node(struct planner *pl, const struct plan_node *n)
{
	int gpus = planner_vm_gpus_on(pl, planner_host_node(pl, n)), devices = 0;

	for (size_t i = 0; i < pl->plan->n_devices; i++)
		devices += pl->plan->devices[i].host_node == n->host_node;
	if (gpus && planner_node_is_bare(pl, planner_host_node(pl, n)))
		plan_reason(pl->plan, "nodes", "guest node %d = host node %d: it has no GPUs itself; its CPUs and memory are for those of its socket, "
					       "%d of the VM's among them", n->guest_node, n->host_node, gpus);
	else if (gpus)
		plan_reason(pl->plan, "nodes", "guest node %d = host node %d: %d GPU%s of the VM %s there", n->guest_node, n->host_node, gpus,
			    PLURAL(gpus), gpus == 1 ? "is" : "are");
	else if (devices)
		plan_reason(pl->plan, "nodes", "guest node %d = host node %d: %d device%s of the VM %s there", n->guest_node, n->host_node, devices,
			    PLURAL(devices), devices == 1 ? "is" : "are");
	else
		plan_reason(pl->plan, "nodes", "guest node %d = host node %d: %s", n->guest_node, n->host_node,
			    pl->req->vm->n_pin_cpus ? "[cpu] pin names CPUs of it" : "it has the most free CPUs");
}

/* The guest node whose host node is nearest to host node index @node; *@ret_distance as the kernel counts, 0 if it does not say. */
static int nearest_guest_node(const struct planner *pl, int node, int *ret_distance)
{
	const struct topology *t = pl->req->host;
	const int *distances = t->nodes[node].distances;
	int best = 0, best_cost = INT_MAX;

	for (size_t i = 0; i < pl->plan->n_nodes; i++) {
		int at = planner_host_node(pl, &pl->plan->nodes[i]);
		int cost = at < 0 ? INT_MAX - 1 : distances ? distances[at] : t->nodes[at].socket != t->nodes[node].socket;

		if (cost >= best_cost)
			continue;
		best = (int)i;
		best_cost = cost;
	}
	*ret_distance = distances ? best_cost : 0;
	return best;
}

/* A device on a node that the VM has no vCPUs on.  Left without a node (-1) it would be taken for one of node 0 by some programs
 * and of no node by others; on the nearest node the guest's choices come out right, if not its idea of the distance. */
static void adopt_stray(struct planner *pl, struct plan_device *d)
{
	struct plan *p = pl->plan;
	int node = d->host_node < 0 ? -1 : topology_find_node(pl->req->host, d->host_node), distance;
	AUTO_FREE char *far = NULL;

	/* NVSwitches and companion functions do no DMA of their own that would care. */
	bool cares = d->role == ROLE_GPU || d->role == ROLE_NIC || d->role == ROLE_NVME;

	if (node < 0 && p->n_nodes > 1 && cares) {
		plan_warn(p, "device-far", "%s: its host node is not known, so the guest sees it on none; set guest-node in a [device] section", d->id);
		return;
	}
	if (node < 0 && p->n_nodes > 1)
		return;
	d->guest_node = node < 0 ? 0 : nearest_guest_node(pl, node, &distance);
	if (node < 0 || !cares)
		return;
	far = distance ? xasprintf(" (distance %d)", distance) : xstrdup("");
	plan_warn(p, "device-far", "%s is on host node %d, where the VM has no vCPUs: the guest sees it on node %d, the nearest%s", d->id, d->host_node,
		  d->guest_node, far);
}

int place_nodes(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	const struct topology *t = pl->req->host;
	struct plan *p = pl->plan;

	add_nodes_of_role(pl, true);
	if (!p->n_nodes)
		add_nodes_of_role(pl, false);
	for (size_t i = 0; !p->n_nodes && i < t->n_nodes; i++)
		for (size_t k = 0; k < vm->n_pin_cpus; k++)
			if (cpuset_has(&t->nodes[i].cpus, vm->pin_cpus[k]))
				add_node(pl, (int)i);
	if (!p->n_nodes)
		add_node(pl, emptiest_node(pl));
	for (size_t i = 0; i < p->n_nodes; i++) {
		p->nodes[i].guest_node = (int)i;
		explain_node(pl, &p->nodes[i]);
	}
	for (size_t i = 0; i < p->n_devices; i++)
		for (size_t k = 0; k < p->n_nodes; k++)
			if (p->devices[i].host_node == p->nodes[k].host_node)
				p->devices[i].guest_node = (int)k;
	for (size_t i = 0; i < p->n_devices; i++) {
		const struct device_config *o = p->devices[i].options;

		if (o && o->guest_node >= (int)p->n_nodes) {
			AUTO_FREE char *section = xasprintf("device %s", o->name);

			config_problem(pl->ps, vm, section, "guest-node", "bad-value",
				       "[%s] guest-node: the guest has only the nodes 0 to %zu", section, p->n_nodes - 1);
		} else if (o && o->guest_node >= 0) {
			p->devices[i].guest_node = o->guest_node;
		} else if (p->devices[i].guest_node < 0 && vm->pcie != PCIE_FLAT) {
			adopt_stray(pl, &p->devices[i]);
		}
	}
	return 0;
}

/* --- cores -------------------------------------------------------------------------------------------- */

static struct core *core_entry(struct cores *cs, const struct host_cpu *c)
{
	struct core *e;

	for (size_t k = 0; k < cs->n; k++) {
		size_t i = (cs->last + k) % cs->n;

		if (cs->v[i].core != c->core)
			continue;
		cs->last = i;
		return &cs->v[i];
	}
	cs->last = cs->n;
	e = PUSH_ZEROED(cs->v, cs->n);
	e->core = c->core;
	e->l3 = c->l3;
	return e;
}

/* The first cores of a node are the host's: interrupts and kernel threads gather on the low CPUs.  One core in 24 (the
 * proportion that NVIDIA's DGX-2 templates keep), at least one, none on a node with a single core. */
static int reserved_cores(const struct vm_config *vm, int n_cores)
{
	if (vm->cpu_reserve >= 0)
		return vm->cpu_reserve;
	if (n_cores <= 1)
		return 0;
	return n_cores / 24 > 1 ? n_cores / 24 : 1;
}

static struct cores node_cores(const struct planner *pl, int node)
{
	const struct topology *t = pl->req->host;
	const struct vm_config *vm = pl->req->vm;
	struct cores cs = { 0 };
	int keep;

	for (size_t i = 0; i < t->n_cpus; i++)
		if (t->cpus[i].node == node && cpuset_has(&t->allowed, t->cpus[i].cpu))
			cpuset_add(&core_entry(&cs, &t->cpus[i])->cpus, t->cpus[i].cpu);
	keep = reserved_cores(vm, (int)cs.n);
	for (size_t i = 0; i < cs.n; i++) {
		/* An explicit emulator list is a reserve of its own. */
		cs.v[i].reserved = vm->emulator_set && vm->cpu_reserve < 0 ? cpuset_intersects(&cs.v[i].cpus, &vm->emulator)
									     : (int)i < keep;
		cs.v[i].user = planner_cpu_user(pl, &cs.v[i].cpus);
	}
	return cs;
}

static bool core_usable(const struct core *c)
{
	return !c->reserved && !c->user;
}

static int count_cores(const struct cores *cs, bool also_busy)
{
	int n = 0;

	for (size_t i = 0; i < cs->n; i++)
		n += !cs->v[i].reserved && (also_busy || !cs->v[i].user);
	return n;
}

/* SMT: does every core that could be given have two CPUs? */
static bool cores_have_smt(const struct cores *cs)
{
	int n = 0;

	for (size_t i = 0; i < cs->n; i++) {
		if (cs->v[i].reserved)
			continue;
		if (cpuset_count(&cs->v[i].cpus) != 2)
			return false;
		n++;
	}
	return n > 0;
}

/* The L3 to take cores from: the smallest that holds all that is still needed, else the one with the most. */
static int pick_l3(const struct cores *cs, const bool *taken, int need, int *ret_have)
{
	int best = -1, best_have = 0, counted = INT_MIN;

	for (size_t i = 0; i < cs->n; i++) {
		int have = 0;

		/* The cores of an L3 follow one another: count it once. */
		if (taken[i] || !core_usable(&cs->v[i]) || cs->v[i].l3 == counted)
			continue;
		counted = cs->v[i].l3;
		for (size_t k = 0; k < cs->n; k++)
			have += !taken[k] && core_usable(&cs->v[k]) && cs->v[k].l3 == cs->v[i].l3;
		if (best_have == 0 || (best_have < need ? have > best_have : have >= need && have < best_have)) {
			best = cs->v[i].l3;
			best_have = have;
		}
	}
	*ret_have = best_have;
	return best;
}

/* Mark @need usable cores as taken, L3 by L3. The caller knows that there are enough. */
static void take_cores(const struct cores *cs, bool *taken, int need)
{
	while (need > 0) {
		int have, l3 = pick_l3(cs, taken, need, &have);

		if (have == 0)
			return;
		for (size_t i = 0; i < cs->n && need > 0; i++) {
			if (taken[i] || !core_usable(&cs->v[i]) || cs->v[i].l3 != l3)
				continue;
			taken[i] = true;
			need--;
		}
	}
}

/* --- how many ------------------------------------------------------------------------------------------ */

/* vCPUs wanted on each guest node, and threads per core. */
struct demand {
	int *vcpus;
	int threads;
};

static int share_of_cores(const struct planner *pl, const struct cores *cs, int node)
{
	int ours = planner_vm_gpus_on(pl, node), all = planner_host_gpus_on(pl, node), n = count_cores(cs, true);

	if (!ours)
		return n > 0 ? n : 1; /* a node without CPUs for us is refused, not left empty */
	/* Of all cores, not of the free ones: the size of a VM must not depend on who came first. */
	return n * ours / all > 0 ? n * ours / all : 1;
}

/* A machine type that this QEMU does not have is refused elsewhere (check_qemu.c), not for its vCPUs. */
static int max_vcpus(const struct planner *pl)
{
	int max = qemu_machine_vcpus(pl->req->qemu, pl->req->vm->machine);

	return max ? max : INT_MAX;
}

/* Where there is room for more; owned. */
static char *more_vcpus(const struct qemu_info *q, int max)
{
	const struct qemu_machine *best = NULL;

	for (size_t i = 0; i < q->n_machines; i++)
		if (q->machines[i].max_vcpus > max && (!best || q->machines[i].max_vcpus >= best->max_vcpus))
			best = &q->machines[i];
	if (best)
		return xasprintf("; %s takes %d", best->name, best->max_vcpus);
	return xstrdup(max < 1024 ? "; QEMU 8.1 takes 1024, 9.0 takes 4096" : max < 4096 ? "; QEMU 9.0 takes 4096" : "");
}

/* What was computed may be too much for the machine type; what was asked for is refused instead, in check_vcpu_limits(). */
static void clamp_demand(struct planner *pl, struct demand *d)
{
	int sum = 0, n = (int)pl->plan->n_nodes, max = max_vcpus(pl), each = n ? max / n / 2 * 2 : 0;

	for (int i = 0; i < n; i++)
		sum += d->vcpus[i];
	if (sum <= max)
		return;
	for (int i = 0; i < n; i++)
		d->vcpus[i] = d->vcpus[i] < each ? d->vcpus[i] : each;
	plan_warn(pl->plan, "vcpus-limited", "the VM's share would be %d vCPUs, but the q35 machine of this QEMU takes %d: it gets %d per node", sum, max, each);
}

/* Emulated CPUs take turns on the CPUs that there are: firmware alone takes minutes with a hundred of them. */
static void thin_demand(struct planner *pl, struct demand *d)
{
	int sum = 0, left = 0, each = planner_vcpus_per_node(pl);

	for (size_t i = 0; i < pl->plan->n_nodes; i++) {
		sum += d->vcpus[i];
		d->vcpus[i] = each && each < d->vcpus[i] ? each : d->vcpus[i];
		left += d->vcpus[i];
	}
	if (left < sum)
		plan_warn(pl->plan, "vcpus-scaled", "the guest has %d vCPUs in place of %d: this machine emulates them; [cpu] vcpus says how many it shall be", left,
			  sum);
}

static void decide_demand(struct planner *pl, const struct cores *cs, struct demand *d)
{
	const struct vm_config *vm = pl->req->vm;
	struct plan *p = pl->plan;
	bool smt = true, even = true;

	for (size_t i = 0; i < p->n_nodes; i++)
		smt = smt && cores_have_smt(&cs[i]);
	for (size_t i = 0; i < p->n_nodes; i++) {
		int node = planner_host_node(pl, &p->nodes[i]);

		if (vm->vcpus > 0)
			d->vcpus[i] = vm->vcpus / (int)p->n_nodes + ((int)i < vm->vcpus % (int)p->n_nodes);
		else if (vm->n_pin_cpus)
			d->vcpus[i] = 0; /* place_listed() counts */
		else if (p->n_devices)
			d->vcpus[i] = share_of_cores(pl, &cs[i], node) * (smt && vm->threads != 1 ? 2 : 1);
		else
			d->vcpus[i] = count_cores(&cs[i], true) * (smt ? 2 : 1) < 2 ? 1 : 2;
	}
	if (vm->vcpus <= 0)
		clamp_demand(pl, d);
	if (vm->vcpus <= 0 && !vm->n_pin_cpus)
		thin_demand(pl, d);
	/* What we computed ourselves is made even; what was asked for is refused if it is not. */
	for (size_t i = 0; i < p->n_nodes && vm->vcpus <= 0 && vm->threads == 2; i++)
		d->vcpus[i] = d->vcpus[i] > 1 ? d->vcpus[i] / 2 * 2 : 2 * d->vcpus[i];
	for (size_t i = 0; i < p->n_nodes; i++)
		even = even && d->vcpus[i] % 2 == 0;
	d->threads = vm->threads > 0 ? vm->threads : smt && even ? 2 : 1;
	if (d->threads == 2 && !even)
		config_problem(pl->ps, vm, "cpu", "threads", "bad-value", "[cpu] threads: 2 needs an even number of vCPUs on each guest node");
	if (d->threads == 2 && !smt && vm->pin == PIN_AUTO && p->n_devices)
		config_problem(pl->ps, vm, "cpu", "threads", "bad-value",
			       "[cpu] threads: 2 is asked for, but this host's cores have one CPU each (SMT is off, or part of it offline)");
}

static int count_reserved(const struct cores *cs)
{
	int n = 0;

	for (size_t i = 0; i < cs->n; i++)
		n += cs->v[i].reserved;
	return n;
}

/* "46 of the 48 cores of host node 0 (2 are kept for the host)" and why as many. */
static void explain_demand(struct planner *pl, const struct cores *cs, const struct demand *d)
{
	const struct vm_config *vm = pl->req->vm;
	const struct plan *p = pl->plan;

	for (size_t i = 0; i < p->n_nodes && vm->pin == PIN_AUTO; i++) {
		int node = planner_host_node(pl, &p->nodes[i]), ours = planner_vm_gpus_on(pl, node), all = planner_host_gpus_on(pl, node);
		AUTO_FREE char *why = vm->vcpus > 0	 ? xstrdup("as [cpu] vcpus says")
				      : ours		 ? xasprintf("the share of its %d of the %d GPU%s that the node is for", ours, all, PLURAL(all))
				      : p->n_devices	 ? xstrdup("all that the host can give: no GPU of the machine is on this node")
							 : xstrdup("small by default, as the VM has no devices");

		plan_reason(pl->plan, "vcpus", "guest node %zu: %d vCPUs on %d of the %zu cores of host node %d, %d kept for the host: %s", i, d->vcpus[i],
			    d->vcpus[i] / d->threads, cs[i].n, p->nodes[i].host_node, count_reserved(&cs[i]), why);
	}
}

/* Have some cores two CPUs and others one? Its sibling is offline then, or outside the CPUs that we may use. */
static bool cores_mixed(const struct cores *cs)
{
	bool one = false, two = false;

	for (size_t i = 0; i < cs->n; i++) {
		one = one || cpuset_count(&cs->v[i].cpus) == 1;
		two = two || cpuset_count(&cs->v[i].cpus) == 2;
	}
	return one && two;
}

static void explain_threads(struct planner *pl, const struct cores *cs, const struct demand *d)
{
	const struct vm_config *vm = pl->req->vm;
	bool half = false;

	for (size_t i = 0; i < pl->plan->n_nodes; i++)
		half = half || cores_mixed(&cs[i]);
	if (vm->pin != PIN_AUTO)
		return;
	plan_reason(pl->plan, "threads", "%d per core: %s", d->threads,
		    vm->threads > 0    ? "as [cpu] threads says"
		    : d->threads == 2  ? "guest threads are the SMT siblings of host cores, both of them the VM's"
		    : half	       ? "of some cores one CPU is offline or not ours, so that the guest could not have pairs everywhere"
		    : cores_have_smt(cs) ? "the number of vCPUs is odd, so that they cannot be pairs of SMT siblings"
				       : "the host's cores have one CPU each (SMT is off, or the siblings are offline)");
}

/* --- placing ------------------------------------------------------------------------------------------- */

static void push_vcpu(struct planner *pl, int guest_node, int host_cpu)
{
	struct plan_vcpu *v = PUSH_ZEROED(pl->plan->vcpus, pl->plan->n_vcpus);

	v->vcpu = (int)pl->plan->n_vcpus - 1;
	v->host_cpu = host_cpu;
	v->guest_node = guest_node;
	if (host_cpu >= 0) {
		cpuset_add(&pl->plan->nodes[guest_node].host_cpus, host_cpu);
		cpuset_add(&pl->vcpu_cpus, host_cpu);
	}
}

/* The largest [cpu] vcpus that the nodes could take: it is split evenly, so the smallest node decides. */
static int vcpus_that_fit(const struct planner *pl, const struct cores *cs, int threads)
{
	int least = INT_MAX;

	for (size_t i = 0; i < pl->plan->n_nodes; i++)
		if (count_cores(&cs[i], false) < least)
			least = count_cores(&cs[i], false);
	return least * threads * (int)pl->plan->n_nodes;
}

static void refuse_cpus(struct planner *pl, const struct cores *all, int i, const struct demand *d)
{
	const struct cores *cs = &all[i];
	const struct plan_node *n = &pl->plan->nodes[i];
	const struct used_cpus *user = NULL;
	int need = d->vcpus[i] / d->threads, have = count_cores(cs, false), fit = vcpus_that_fit(pl, all, d->threads);
	struct problem *p;

	for (size_t k = 0; k < cs->n; k++)
		user = user ? user : cs->v[k].user;
	if (need <= count_cores(cs, true) && user)
		p = config_problem(pl->ps, pl->req->vm, "cpu", "vcpus", "cpu-busy",
				   "vCPUs of guest node %d need %d whole cores of host node %d, but only %d are free: VM '%s' (pid %d) runs on others",
				   n->guest_node, need, n->host_node, have, user->vm, user->pid);
	else
		p = config_problem(pl->ps, pl->req->vm, "cpu", "vcpus", "cpus-short",
				   "vCPUs of guest node %d need %d whole cores of host node %d, which has %zu that we may use, %d of them reserved for the host",
				   n->guest_node, need, n->host_node, cs->n, count_reserved(cs));
	p->kind = need <= count_cores(cs, true) && user ? PROBLEM_BUSY : PROBLEM_HOST;
	if (fit)
		problem_hint(p, "[cpu] vcpus = %d would fit", fit);
	else
		problem_hint(p, "no whole core is left there: set [cpu] pin or reserve%s", user ? ", or stop a VM" : "");
}

/* Whole cores on one node. Returns false if there are not enough. */
static bool place_on_node(struct planner *pl, const struct cores *cs, struct plan_node *n, int want, int threads)
{
	AUTO_FREE bool *taken = xcalloc(cs->n, sizeof(*taken));
	int need = want / threads, have = count_cores(cs, false);

	if (have < need)
		return false;
	take_cores(cs, taken, need);
	for (size_t i = 0; i < cs->n; i++) {
		int k = 0;

		if (!taken[i])
			continue;
		cpuset_for_each(cpu, &cs->v[i].cpus)
			if (k++ < threads)
				push_vcpu(pl, n->guest_node, cpu);
	}
	return true;
}

static void place_floating(struct planner *pl, const struct demand *d)
{
	for (size_t i = 0; i < pl->plan->n_nodes; i++)
		for (int k = 0; k < d->vcpus[i]; k++)
			push_vcpu(pl, (int)i, -1);
}

/* A VM without devices may share CPUs when the machine is full: it floats on its node. */
static void place_auto(struct planner *pl, const struct cores *cs, const struct demand *d)
{
	struct plan *p = pl->plan;
	bool all = true;

	for (size_t i = 0; i < p->n_nodes; i++)
		all = all && d->vcpus[i] / d->threads <= count_cores(&cs[i], false) && (d->threads == 1 || cores_have_smt(&cs[i]));
	if (!all && !p->n_devices) {
		plan_warn(p, "cpus-unpinned", "there are not enough free whole cores: the vCPUs are not pinned");
		place_floating(pl, d);
		return;
	}
	for (size_t i = 0; i < p->n_nodes; i++)
		if (!place_on_node(pl, &cs[i], &p->nodes[i], d->vcpus[i], d->threads))
			refuse_cpus(pl, cs, (int)i, d);
}

static void refuse_pin(struct planner *pl, enum problem_kind kind, const char *code, int cpu, const char *why)
{
	config_problem(pl->ps, pl->req->vm, "cpu", "pin", code, "[cpu] pin: CPU %d %s", cpu, why)->kind = kind;
}

/* Threads of a guest core must be threads of a host core: the guest's scheduler counts on it. */
static void check_listed_pairs(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;

	for (size_t i = 0; i + 1 < vm->n_pin_cpus && vm->threads == 2; i += 2) {
		const struct host_cpu *a = topology_cpu(pl->req->host, vm->pin_cpus[i]), *b = topology_cpu(pl->req->host, vm->pin_cpus[i + 1]);

		if (!a || !b || a->core == b->core)
			continue;
		problem_hint(config_problem(pl->ps, vm, "cpu", "pin", "bad-value", "[cpu] pin: CPUs %d and %d are not two threads of one core, but threads = 2",
					    a->cpu, b->cpu),
			     "list the two threads of each core one after the other, or use threads = 1");
		return;
	}
}

/* The operator's own list: vCPU i on pin_cpus[i]. */
static void place_listed(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	const struct topology *t = pl->req->host;
	struct plan *p = pl->plan;

	if (vm->vcpus > 0 && (size_t)vm->vcpus != vm->n_pin_cpus) {
		config_problem(pl->ps, vm, "cpu", "pin", "bad-value", "[cpu] pin: %zu CPUs are listed for %d vCPUs", vm->n_pin_cpus, vm->vcpus);
		return;
	}
	for (size_t i = 0; i < vm->n_pin_cpus; i++) {
		const struct host_cpu *c = topology_cpu(t, vm->pin_cpus[i]);
		struct cpuset one = { 0 };
		int guest_node = 0;

		cpuset_add(&one, vm->pin_cpus[i]);
		if (!c) {
			refuse_pin(pl, PROBLEM_HOST, "cpus-short", vm->pin_cpus[i], "does not exist or is offline");
			continue;
		}
		if (!cpuset_has(&t->allowed, c->cpu))
			refuse_pin(pl, PROBLEM_HOST, "cpu-not-allowed", c->cpu, "is outside the CPUs that we may use (cpuset of the caller)");
		if (planner_cpu_user(pl, &one)) {
			const struct used_cpus *user = planner_cpu_user(pl, &one);
			AUTO_FREE char *why = xasprintf("is pinned by the running VM '%s' (pid %d)", user->vm, user->pid);

			refuse_pin(pl, PROBLEM_BUSY, "cpu-busy", c->cpu, why);
		}
		for (size_t k = 0; k < p->n_nodes; k++)
			if (t->nodes[c->node].id == p->nodes[k].host_node)
				guest_node = (int)k;
		push_vcpu(pl, guest_node, c->cpu);
	}
	check_listed_pairs(pl);
	plan_reason(p, "vcpus", "pinned as [cpu] pin lists them");
}

/* Sibling pairs in a pin list become guest threads only if each pair of neighbours is one. */
static int listed_threads(const struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;

	if (vm->threads > 0)
		return vm->threads;
	for (size_t i = 0; i + 1 < vm->n_pin_cpus; i += 2) {
		const struct host_cpu *a = topology_cpu(pl->req->host, vm->pin_cpus[i]);
		const struct host_cpu *b = topology_cpu(pl->req->host, vm->pin_cpus[i + 1]);

		if (!a || !b || a->core != b->core)
			return 1;
	}
	return vm->n_pin_cpus % 2 || !vm->n_pin_cpus ? 1 : 2;
}

/* --- guest numbering, housekeeping ------------------------------------------------------------------------ */

static void number_vcpus(struct planner *pl, int threads)
{
	struct plan *p = pl->plan;
	int n = (int)p->n_vcpus, nodes = (int)p->n_nodes;
	bool equal = nodes && n % nodes == 0, contiguous = true;

	for (int i = 0; i < n && equal; i++)
		contiguous = contiguous && p->vcpus[i].guest_node == i / (n / nodes);
	/* -smp has one number of cores for all sockets: unequal nodes share one socket. */
	p->smp_sockets = equal && contiguous ? nodes : 1;
	p->smp_threads = n % (p->smp_sockets * threads) == 0 ? threads : 1;
	p->smp_cores = n / p->smp_sockets / p->smp_threads;
	if (nodes > 1 && p->smp_sockets == 1)
		plan_warn(p, "nodes-uneven", "the guest nodes have different numbers of vCPUs: they appear in one socket");
	for (int i = 0; i < n; i++) {
		p->vcpus[i].socket = i / (p->smp_cores * p->smp_threads);
		p->vcpus[i].core = i / p->smp_threads % p->smp_cores;
		p->vcpus[i].thread = i % p->smp_threads;
	}
}

static void choose_housekeeping(struct planner *pl, const struct cores *cs)
{
	const struct vm_config *vm = pl->req->vm;
	struct plan *p = pl->plan;
	struct cpuset all = { 0 };
	AUTO_FREE char *list = NULL;

	for (size_t i = 0; i < p->n_nodes; i++) {
		for (size_t k = 0; k < cs[i].n; k++)
			if (cs[i].v[k].reserved)
				cpuset_or(&p->housekeeping, &cs[i].v[k].cpus);
		cpuset_or(&all, &p->nodes[i].prealloc_cpus);
	}
	/* Nodes that have no CPU for us at all: then any of ours. */
	if (cpuset_empty(&all))
		all = pl->req->host->allowed;
	cpuset_andnot(&p->housekeeping, &pl->vcpu_cpus);
	if (cpuset_empty(&p->housekeeping)) {
		p->housekeeping = all;
		cpuset_andnot(&p->housekeeping, &pl->vcpu_cpus);
	}
	if (cpuset_empty(&p->housekeeping)) {
		p->housekeeping = all;
		if (!cpuset_empty(&pl->vcpu_cpus))
			plan_warn(p, "no-reserve", "no CPU is left for the host on the VM's nodes: QEMU's own threads share the vCPUs' CPUs");
	}
	p->emulator = vm->emulator_set ? vm->emulator : p->housekeeping;
	if (vm->emulator_set && !cpuset_subset(&vm->emulator, &pl->req->host->allowed))
		config_problem(pl->ps, vm, "cpu", "emulator", "cpu-not-allowed",
			       "[cpu] emulator: has CPUs that do not exist, are offline or are outside the CPUs that we may use")
			->kind = PROBLEM_HOST;
	list = cpuset_format(&p->emulator);
	plan_reason(p, "emulator", vm->emulator_set ? "CPUs %s, as [cpu] emulator says"
						    : "CPUs %s: QEMU's main loop, I/O threads and helpers run on what is kept for the host, away from the vCPUs",
		    list);
}

/* The highest APIC ID: each level of the topology has a field of whole bits, so IDs have gaps (x86_apicid_from_cpu_idx in QEMU). */
int planner_max_apic_id(const struct plan *p)
{
	int max = 0, thread_bits = 0, core_bits = 0;

	while (1 << thread_bits < p->smp_threads)
		thread_bits++;
	while (1 << core_bits < p->smp_cores)
		core_bits++;
	for (size_t i = 0; i < p->n_vcpus; i++) {
		int id = ((p->vcpus[i].socket << core_bits) | p->vcpus[i].core) << thread_bits | p->vcpus[i].thread;

		max = id > max ? id : max;
	}
	return max;
}

/* Beyond APIC ID 254 the guest needs x2APIC and a way to address interrupts there: argv.c sets kernel-irqchip=split, which offers
 * KVM_FEATURE_MSI_EXT_DEST_ID to guests (QEMU 6.0); Linux uses it since 5.11.  QEMU's own emulation learned x2APIC in 9.0 (its changelog); no answer shows it. */
static void check_vcpu_limits(struct planner *pl)
{
	const struct plan *p = pl->plan;
	int max = max_vcpus(pl);
	struct problem *pr;

	if ((int)p->n_vcpus > max) {
		AUTO_FREE char *more = more_vcpus(pl->req->qemu, max);

		pr = config_problem(pl->ps, pl->req->vm, "cpu", "vcpus", "vcpus-too-many", "[cpu] vcpus: %zu are more than the %d that the q35 machine takes",
				    p->n_vcpus, max);
		pr->kind = PROBLEM_HOST;
		problem_hint(pr, "[cpu] vcpus = %d%s", max, more);
	} else if (planner_max_apic_id(p) >= X2APIC_FIRST && strcmp(p->accel, "tcg") == 0 && !qemu_at_least(pl->req->qemu, 9, 0)) {
		pr = config_problem(pl->ps, pl->req->vm, "cpu", "vcpus", "vcpus-too-many",
				    "[cpu] vcpus: %zu give APIC IDs up to %d, and emulation (tcg) has no x2APIC before QEMU 9.0", p->n_vcpus,
				    planner_max_apic_id(p));
		pr->kind = PROBLEM_HOST;
		problem_hint(pr, "use KVM, or fewer vCPUs: up to 128 always fit");
	} else if (planner_max_apic_id(p) >= X2APIC_FIRST) {
		plan_warn(pl->plan, "vcpus-x2apic", "APIC IDs go up to %d: the guest needs x2APIC, and Linux 5.11 or newer to send interrupts to all of its vCPUs",
			  planner_max_apic_id(p));
	}
}

static void count_isolated(const struct planner *pl, const struct cpuset *set, int *ret_isolated, int *ret_other)
{
	*ret_isolated = *ret_other = 0;
	cpuset_for_each(cpu, set) {
		const struct host_cpu *c = topology_cpu(pl->req->host, cpu);

		*ret_isolated += c && c->isolated;
		*ret_other += c && !c->isolated;
	}
}

/* The kernel balances no load over CPUs of isolcpus: a thread stays where it was put.  Right for pinned vCPUs; QEMU's own threads, which
 * have several CPUs to choose from, would all sit on the first. */
static void report_isolated(struct planner *pl)
{
	struct plan *p = pl->plan;
	int vcpus, vcpus_other, own, own_other;

	count_isolated(pl, &pl->vcpu_cpus, &vcpus, &vcpus_other);
	count_isolated(pl, &p->emulator, &own, &own_other);
	if (vcpus && !vcpus_other)
		plan_reason(p, "isolated", "all vCPUs run on CPUs that the kernel keeps other threads off (isolcpus)");
	else if (vcpus)
		plan_warn(p, "cpus-isolated", "%d of the vCPUs' CPUs are isolated (isolcpus), %d are not: they will not run alike; [cpu] pin can name either kind",
			  vcpus, vcpus_other);
	if (own)
		plan_warn(p, "cpus-isolated",
			  "%d of the CPUs for QEMU's own threads are isolated (isolcpus), where the kernel balances nothing: [cpu] emulator can name others", own);
}

/* No timer tick interrupts a vCPU there. */
static void report_nohz_full(struct planner *pl)
{
	int n = 0;

	cpuset_for_each(cpu, &pl->vcpu_cpus) {
		const struct host_cpu *c = topology_cpu(pl->req->host, cpu);

		n += c && c->nohz_full;
	}
	if (n)
		plan_reason(pl->plan, "nohz_full", "%d of the %d CPUs of vCPUs have no timer tick of their own while a vCPU runs (nohz_full)", n,
			    cpuset_count(&pl->vcpu_cpus));
}

int place_cpus(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	struct plan *p = pl->plan;
	AUTO_FREE struct cores *cs = xcalloc(p->n_nodes, sizeof(*cs));
	struct demand d = { .vcpus = xcalloc(p->n_nodes, sizeof(int)) };
	size_t before = pl->ps->n;

	for (size_t i = 0; i < p->n_nodes; i++)
		cs[i] = node_cores(pl, planner_host_node(pl, &p->nodes[i]));
	decide_demand(pl, cs, &d);
	if (vm->pin == PIN_LIST) {
		place_listed(pl);
		d.threads = listed_threads(pl);
	} else if (vm->pin == PIN_OFF) {
		plan_warn(p, "cpus-unpinned", "[cpu] pin = off: the vCPUs float over the host's CPUs");
		place_floating(pl, &d);
	} else {
		place_auto(pl, cs, &d);
	}
	if (pl->ps->n == before) {
		number_vcpus(pl, d.threads);
		explain_demand(pl, cs, &d);
		explain_threads(pl, cs, &d);
		choose_housekeeping(pl, cs);
		report_isolated(pl);
		report_nohz_full(pl);
		check_vcpu_limits(pl);
	}
	for (size_t i = 0; i < p->n_nodes; i++)
		free(cs[i].v);
	free(d.vcpus);
	return 0;
}
