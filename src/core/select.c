/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which functions of the host the VM gets.
 *
 * How it works: explicit [device]s first, then the GPUs (by gpu-index, or the best free set; where the VM has NVLink, a set that
 * the fabric allows: select_fabric.c), then the NICs and NVMe controllers that belong to those GPUs, the NVSwitches, and the
 * companion functions that hardware ties to them (same slot and IOMMU group).  Every function passes the same gate,
 * select_check(): nothing the host itself uses, nothing another VM holds, no bridge, no SR-IOV parent.  Last, each IOMMU group
 * must be complete. */
#include <errno.h>
#include <string.h>

#include "choose_gpus.h"
#include "select_priv.h"

bool select_has(const struct planner *pl, int func)
{
	for (size_t i = 0; i < pl->plan->n_devices; i++)
		if (pl->plan->devices[i].func == func)
			return true;
	return false;
}

/* force = on is for what the host could do without; a device that is broken is so for a VM, too. */
static void hint_bad(struct problem *p, const struct pci_func *f)
{
	char bdf[PCI_ADDR_STR];

	if (f->dead)
		problem_hint(p, "look for `Xid 79` or AER errors in the kernel log; it may come back when the host is switched off and on");
	else
		problem_hint(p, "once it is known to be good: gpuvm doctor --clear %s", pci_addr_format(&f->addr, bdf));
}

/* May the VM have this function? Adds the reasons why not. */
bool select_check(struct planner *pl, int func, const struct device_config *dc, const char *asked_by)
{
	bool force = dc && dc->force;
	const struct pci_func *f = planner_func(pl, func);
	const struct used_device *user = planner_device_user(pl, f);
	struct problem *p = NULL;
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&f->addr, bdf);
	if (f->role == ROLE_BRIDGE) {
		p = problems_add(pl->ps, PROBLEM_HOST, "device-is-bridge", "%s: %s is a PCI bridge; bridges cannot be passed", asked_by, bdf);
	} else if (f->bad) {
		p = problems_add(pl->ps, PROBLEM_HOST, "device-bad", "%s: %s is bad: %s", asked_by, bdf, f->bad);
		hint_bad(p, f);
	} else if (f->host_use && !force) {
		p = problems_add(pl->ps, PROBLEM_HOST, "device-host-use", "%s: %s is used by the host: %s", asked_by, bdf, f->host_use);
		if (dc)
			problem_hint(p, "free it on the host, or add force = on to take it all the same");
		else
			problem_hint(p, "free it on the host, or take it by name: a [device] section with pci = %s and force = on", bdf);
	} else if (f->sriov_vfs) {
		p = problems_add(pl->ps, PROBLEM_HOST, "sriov-active", "%s: %s has %u SR-IOV virtual functions switched on", asked_by, bdf,
				 f->sriov_vfs);
		problem_hint(p, "echo 0 > /sys/bus/pci/devices/%s/sriov_numvfs, or pass a virtual function", bdf);
	} else if (user && !user->pid && !pl->req->fake_devices) {
		p = problems_add(pl->ps, PROBLEM_BUSY, f->role == ROLE_GPU ? "gpu-busy" : "device-busy",
				 "%s: %s could not be given back after VM '%s' had ended", asked_by, bdf, user->vm);
		problem_hint(p, "`gpuvm status %s` shows why, `gpuvm recover %s` tries again", user->vm, user->vm);
	} else if (user && !pl->req->fake_devices) {
		p = problems_add(pl->ps, PROBLEM_BUSY, f->role == ROLE_GPU ? "gpu-busy" : "device-busy",
				 "%s: %s is held by the running VM '%s' (pid %d)", asked_by, bdf, user->vm, user->pid);
		if (!dc && f->role == ROLE_GPU && pl->req->vm->gpu_index >= 0)
			problem_hint(p, "without gpu-index, free GPUs are taken");
	}
	if (p) {
		AUTO_FREE char *section = dc ? xasprintf("device %s", dc->name) : xstrdup("place");

		problem_device(p, bdf);
		if (config_line(pl->req->vm, section, dc ? "pci" : "gpus"))
			problem_where(p, pl->req->vm->path, config_line(pl->req->vm, section, dc ? "pci" : "gpus"));
	}
	return !p;
}

struct plan_device *select_add(struct planner *pl, int func, char *id, const struct device_config *options)
{
	const struct pci_func *f = planner_func(pl, func);
	struct plan_device *d = PUSH_ZEROED(pl->plan->devices, pl->plan->n_devices);
	int path[32];
	size_t n = topology_path(pl->req->host, func, path, ARRAY_SIZE(path));

	d->id = id;
	d->func = func;
	d->addr = f->addr;
	d->role = f->role;
	d->vendor = f->vendor;
	d->device = f->device;
	d->class_code = f->class_code;
	d->host_node = f->node >= 0 ? pl->req->host->nodes[f->node].id : -1;
	d->iommu_group = f->iommu_group;
	d->driver = *f->driver ? xstrdup(f->driver) : NULL;
	for (size_t i = 0; i < n && i < ARRAY_SIZE(path); i++) {
		char bdf[PCI_ADDR_STR];

		strv_push(&d->host_path, pci_addr_format(&planner_func(pl, path[i])->addr, bdf));
	}
	d->link = topology_path_link(pl->req->host, func);
	d->bar_bytes = pci_func_bar_bytes(f);
	for (size_t i = 0; i < ARRAY_SIZE(d->bars); i++)
		d->bars[i] = f->bars[i].bytes;
	d->options = options;
	d->guest_node = -1;
	return d;
}

/* --- explicit devices ------------------------------------------------------------------------------ */

static void select_explicit(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;

	for (size_t i = 0; i < vm->n_devices; i++) {
		const struct device_config *dc = &vm->devices[i];
		AUTO_FREE char *section = xasprintf("device %s", dc->name);
		AUTO_FREE char *asked = xasprintf("[%s] pci", section);
		int func = topology_find_func(pl->req->host, &dc->pci);
		char bdf[PCI_ADDR_STR];

		if (func < 0) {
			struct problem *p = config_problem(pl->ps, vm, section, "pci", "device-missing", "%s: this host has no PCI function %s",
							   asked, pci_addr_format(&dc->pci, bdf));

			p->kind = PROBLEM_HOST;
			problem_device(p, bdf);
			problem_hint(p, "`gpuvm topo` lists what there is");
			continue;
		}
		/* A QEMU id begins with a letter, a section name may not; and "gpu0" is for those we number. */
		if (select_check(pl, func, dc, asked))
			select_add(pl, func, xasprintf("dev-%s", dc->name), dc);
	}
}

/* --- GPUs ------------------------------------------------------------------------------------------ */

bool select_gpu_is_free(const struct planner *pl, int func)
{
	const struct pci_func *f = planner_func(pl, func);

	if (pl->req->vm->socket >= 0 && f->socket != pl->req->vm->socket)
		return false;
	return pci_func_is_usable(f) && !planner_device_user(pl, f) && !select_has(pl, func);
}

static int free_gpus_on(const struct planner *pl, int socket, int *ret_total)
{
	const struct topology *t = pl->req->host;
	int n_free = 0;

	*ret_total = 0;
	for (int g = 0; g < topology_n_gpus(t); g++) {
		const struct pci_func *f = planner_func(pl, topology_find_gpu(t, g));

		if (f->socket != socket)
			continue;
		(*ret_total)++;
		n_free += pci_func_is_usable(f) && !planner_device_user(pl, f);
	}
	return n_free;
}

/* What is free, per socket, for a refusal. */
static char *describe_free(const struct planner *pl)
{
	char *out = xstrdup("");

	for (int s = 0; s < pl->req->host->n_sockets; s++) {
		AUTO_FREE char *before = out;
		int total, n_free = free_gpus_on(pl, s, &total);

		out = xasprintf("%s%ssocket %d: %d of %d free", before, *before ? ", " : "", s, n_free, total);
	}
	return out;
}

char *select_bad_text(const struct planner *pl, enum pci_role role)
{
	const struct topology *t = pl->req->host;
	char *out = xstrdup("");

	for (size_t i = 0; i < t->n_funcs; i++) {
		const struct pci_func *f = &t->funcs[i];
		AUTO_FREE char *before = NULL, *number = NULL;
		char bdf[PCI_ADDR_STR];

		if (f->role != role || !f->bad || (pl->req->vm->socket >= 0 && f->socket != pl->req->vm->socket))
			continue;
		before = out;
		number = f->gpu_index >= 0 ? xasprintf("GPU %d", f->gpu_index) : xstrdup(pci_role_word(role));
		out = xasprintf("%s; %s (%s) is bad: %s", before, number, pci_addr_format(&f->addr, bdf), f->bad);
	}
	return out;
}

/* The nearest thing that would work; "" if there is none, or only the fabric knows. Owned. */
static char *nearest_cure(const struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	int all = 0, total;

	for (int s = 0; s < pl->req->host->n_sockets; s++) {
		int n_free = free_gpus_on(pl, s, &total);

		if (vm->socket >= 0 && s != vm->socket && n_free >= vm->gpus)
			return xasprintf(": use `socket = %d`", s);
		all += n_free;
	}
	if (vm->socket >= 0 && all >= vm->gpus)
		return xstrdup(": without `socket` the VM would get them from several sockets, which have no peer-to-peer between them");
	if (vm->socket < 0 && vm->gpu_index < 0 && all > 0 && all < vm->gpus && pl->plan->fabric.mode == FABRIC_NONE)
		return xasprintf(": `gpus = %d` would fit", all);
	return xstrdup("");
}

void select_refuse_gpus(struct planner *pl, enum problem_kind kind, const char *code, const char *text)
{
	AUTO_FREE char *have = describe_free(pl), *cure = nearest_cure(pl), *bad = select_bad_text(pl, ROLE_GPU);
	struct problem *p = config_problem(pl->ps, pl->req->vm, "place", "gpus", code, "%s", text);

	p->kind = kind;
	if (topology_n_gpus(pl->req->host))
		problem_hint(p, "%s%s%s", have, cure, bad);
	else
		problem_hint(p, "`gpuvm topo` shows what this host has");
}

/* By number: gpu-index .. gpu-index + gpus - 1. */
static void select_indexed_gpus(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	int total = topology_n_gpus(pl->req->host);

	if (vm->gpu_index + vm->gpus > total) {
		AUTO_FREE char *range = vm->gpus == 1 ? xasprintf("GPU %d is", vm->gpu_index)
						      : xasprintf("GPUs %d to %d are", vm->gpu_index, vm->gpu_index + vm->gpus - 1);
		AUTO_FREE char *text = xasprintf("[place] gpus: %s asked for, but this host has %d GPU%s (numbered from 0)", range, total, PLURAL(total));

		select_refuse_gpus(pl, PROBLEM_HOST, "gpu-missing", text);
		return;
	}
	for (int g = vm->gpu_index; g < vm->gpu_index + vm->gpus; g++) {
		AUTO_FREE char *asked = xasprintf("[place] gpus: GPU %d", g);
		int func = topology_find_gpu(pl->req->host, g);

		if (select_has(pl, func) || !select_check(pl, func, NULL, asked))
			continue;
		if (vm->socket >= 0 && planner_func(pl, func)->socket != vm->socket)
			select_refuse_gpus(pl, PROBLEM_CONFIG, "bad-value", "[place] gpu-index: these GPUs are not all on the socket that `socket` names");
		select_add(pl, func, xasprintf("gpu%d", g - vm->gpu_index), NULL);
	}
	plan_reason(pl->plan, "gpus", "GPUs %d to %d, as gpu-index says (numbered by socket, node and address)", vm->gpu_index,
		    vm->gpu_index + vm->gpus - 1);
}

/* Is it asked for by name, whether it can be had or not? */
static bool is_named(const struct planner *pl, int func)
{
	for (size_t i = 0; i < pl->req->vm->n_devices; i++)
		if (pci_addr_cmp(&pl->req->vm->devices[i].pci, &planner_func(pl, func)->addr) == 0)
			return true;
	return false;
}

/* GPUs that the VM could have by number if no other VM ran, and all GPUs, on [place] socket. */
static void count_gpus(const struct planner *pl, int *ret_possible, int *ret_all)
{
	const struct topology *t = pl->req->host;

	*ret_possible = *ret_all = 0;
	for (int g = 0; g < topology_n_gpus(t); g++) {
		const struct pci_func *f = planner_func(pl, topology_find_gpu(t, g));

		if (pl->req->vm->socket >= 0 && f->socket != pl->req->vm->socket)
			continue;
		(*ret_all)++;
		*ret_possible += pci_func_is_usable(f) && !is_named(pl, topology_find_gpu(t, g));
	}
}

/* Waiting for other VMs helps only if there are enough without them. */
static void refuse_number(struct planner *pl, int n_free)
{
	const struct vm_config *vm = pl->req->vm;
	AUTO_FREE char *text = NULL;
	int possible, all;

	count_gpus(pl, &possible, &all);
	text = xasprintf("[place] gpus: %d GPU%s %s asked for, but of the %d of this host%s %d %s free", vm->gpus, PLURAL(vm->gpus),
			 vm->gpus == 1 ? "is" : "are", all, vm->socket >= 0 ? " on that socket" : "", n_free, n_free == 1 ? "is" : "are");
	select_refuse_gpus(pl, vm->gpus > possible ? PROBLEM_HOST : PROBLEM_BUSY, vm->gpus > possible ? "gpu-missing" : "gpu-busy", text);
}

/* The functions of a group, however many: without ACS a group can have all that is below a root port. Owned. */
static int *group_of(const struct planner *pl, int func, size_t *ret_n)
{
	int *members = xcalloc(pl->req->host->n_funcs, sizeof(*members));

	*ret_n = topology_group(pl->req->host, func, members, pl->req->host->n_funcs);
	return members;
}

/* vfio.rst: a group is viable when each endpoint in it is on a vfio driver, on pci-stub, or has no driver. */
static bool is_viable_driver(const char *driver)
{
	return !*driver || strncmp(driver, "vfio", 4) == 0 || strcmp(driver, "pci-stub") == 0;
}

/* Would this one be in the way of a GPU in its IOMMU group? What the VM may get as well is not. */
static bool is_in_the_way(const struct planner *pl, int gpu, int func)
{
	const struct pci_func *g = planner_func(pl, gpu), *m = planner_func(pl, func);
	const struct vm_config *vm = pl->req->vm;

	if (func == gpu || m->role == ROLE_BRIDGE || (m->addr.domain == g->addr.domain && m->addr.bus == g->addr.bus && m->addr.dev == g->addr.dev))
		return false;
	if (planner_device_user(pl, m))
		return true;
	return !is_viable_driver(m->driver) && !select_has(pl, func) && !(m->role == ROLE_GPU && vm->gpus > 1) && !(m->role == ROLE_NIC && vm->nics) &&
	       !(m->role == ROLE_NVME && vm->nvme);
}

static bool has_viable_group(const struct planner *pl, int gpu)
{
	size_t count;
	AUTO_FREE int *members = group_of(pl, gpu, &count);

	for (size_t k = 0; k < count; k++)
		if (is_in_the_way(pl, gpu, members[k]))
			return false;
	return true;
}

static void select_best_gpus(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	int total = topology_n_gpus(pl->req->host), n_free = 0;
	AUTO_FREE bool *is_free = xcalloc((size_t)total, sizeof(*is_free)), *is_viable = xcalloc((size_t)total, sizeof(*is_viable));
	AUTO_FREE int *chosen = xcalloc((size_t)vm->gpus, sizeof(*chosen));

	for (int g = 0; g < total; g++) {
		int func = topology_find_gpu(pl->req->host, g);

		is_free[g] = select_gpu_is_free(pl, func);
		is_viable[g] = is_free[g] && (pl->req->fake_devices || has_viable_group(pl, func));
		n_free += is_free[g];
	}
	/* One whose group cannot be passed only if there are not enough others: then the refusal says what is in the way. */
	if (choose_gpus(pl->req->host, is_viable, vm->gpus, chosen) < 0 && choose_gpus(pl->req->host, is_free, vm->gpus, chosen) < 0) {
		refuse_number(pl, n_free);
		return;
	}
	for (int i = 0; i < vm->gpus; i++)
		select_add(pl, chosen[i], xasprintf("gpu%d", i), NULL);
	plan_reason(pl->plan, "gpus", "the closest %d of %d free GPUs: fewest pairs across sockets, nodes, host bridges and switches, "
				      "and no switch split between VMs without need",
		    vm->gpus, n_free);
}

/* --- NICs and NVMe ----------------------------------------------------------------------------------- */

/* The GPUs that are nearest to @func, if they share a switch with it: how many; 0 without. */
static int nearest_gpus(const struct topology *t, int func, int ret[CHOOSE_MAX])
{
	enum pci_relation best = REL_PXB;
	int n = 0;

	if (topology_switch_of(t, func) < 0)
		return 0;
	for (int g = 0; g < topology_n_gpus(t); g++) {
		int gpu = topology_find_gpu(t, g);
		enum pci_relation rel = topology_relation(t, gpu, func);

		if (rel > best)
			continue;
		if (rel < best)
			n = 0;
		best = rel;
		if (n < CHOOSE_MAX)
			ret[n++] = gpu;
	}
	return n;
}

/* To which GPU each NIC or NVMe controller below a switch belongs: the nearest; where several are equally near, the
 * devices of that place are dealt out in turn, so that two VMs that share a switch do not fight over them. -1: to none.
 * Owned, for each function. */
static int *find_owners(const struct planner *pl, enum pci_role role)
{
	const struct topology *t = pl->req->host;
	/* What is equally near to the same GPUs is near to them in one way only: the first of them stands for the place. */
	AUTO_FREE int *turn = xcalloc(2 * t->n_funcs, sizeof(*turn));
	int *owner = xcalloc(t->n_funcs, sizeof(*owner)), near[CHOOSE_MAX];

	for (size_t i = 0; i < t->n_funcs; i++) {
		int n = t->funcs[i].role == role ? nearest_gpus(t, (int)i, near) : 0;
		bool stacked = n && topology_relation(t, near[0], (int)i) == REL_PXB;

		owner[i] = n ? near[turn[2 * near[0] + stacked]++ % n] : -1;
	}
	return owner;
}

static bool is_candidate(const struct planner *pl, int func, enum pci_role role)
{
	const struct pci_func *f = planner_func(pl, func);

	return f->role == role && !f->is_vf && !select_has(pl, func);
}

char *select_next_id(const struct planner *pl, enum pci_role role)
{
	int n = 0;

	for (size_t i = 0; i < pl->plan->n_devices; i++)
		n += pl->plan->devices[i].role == role && strncmp(pl->plan->devices[i].id, "dev-", 4) != 0;
	return xasprintf("%s%d", pci_role_word(role), n);
}

/* Everything of @role that belongs to the VM's GPUs. What cannot be had is left out, with a warning: it was not asked for by name. */
static void select_per_gpu(struct planner *pl, enum pci_role role)
{
	const struct topology *t = pl->req->host;
	AUTO_FREE int *owner = find_owners(pl, role);
	int n = 0;

	for (size_t i = 0; i < t->n_funcs; i++) {
		const struct pci_func *f = &t->funcs[i];
		const struct used_device *user;
		char bdf[PCI_ADDR_STR];

		if (owner[i] < 0 || !select_has(pl, owner[i]) || !is_candidate(pl, (int)i, role))
			continue;
		user = planner_device_user(pl, f);
		pci_addr_format(&f->addr, bdf);
		if (f->bad)
			plan_warn(pl->plan, "device-bad", "%s %s is left out: it is bad: %s", pci_role_word(role), bdf, f->bad);
		else if (f->host_use)
			plan_warn(pl->plan, "device-host-use", "%s %s stays with the host: %s", pci_role_word(role), bdf, f->host_use);
		else if (f->sriov_vfs)
			plan_warn(pl->plan, "sriov-active", "%s %s is left out: it has virtual functions switched on", pci_role_word(role), bdf);
		else if (user && !pl->req->fake_devices)
			plan_warn(pl->plan, "device-busy", "%s %s is left out: VM '%s' holds it", pci_role_word(role), bdf, user->vm);
		else {
			select_add(pl, (int)i, select_next_id(pl, role), NULL);
			n++;
		}
	}
	plan_reason(pl->plan, role == ROLE_NIC ? "nics" : "nvme",
		    n ? "%d: all that share a PCIe switch with a GPU of the VM" : "%d: none shares a PCIe switch with a GPU of the VM", n);
}

/* The VM's GPU nearest to @func, of equally near ones the least loaded: its function, -1 without GPUs. */
static int nearest_own_gpu(const struct planner *pl, int func, const int *load, enum pci_relation *ret_rel)
{
	int best = -1;

	*ret_rel = REL_SYS;
	for (size_t k = 0; k < pl->plan->n_devices; k++) {
		int g = pl->plan->devices[k].func;
		enum pci_relation rel;

		if (pl->plan->devices[k].role != ROLE_GPU)
			continue;
		rel = topology_relation(pl->req->host, g, func);
		if (best >= 0 && (rel > *ret_rel || (rel == *ret_rel && load[g] >= load[best])))
			continue;
		best = g;
		*ret_rel = rel;
	}
	return best;
}

/* Could the VM have this NIC or NVMe controller, if no other VM had it? */
static bool is_eligible(const struct planner *pl, int func, enum pci_role role)
{
	const struct pci_func *f = planner_func(pl, func);

	return is_candidate(pl, func, role) && pci_func_is_usable(f) && (pl->req->vm->socket < 0 || f->socket == pl->req->vm->socket);
}

/* The best of those that are left; -1: none. Counts it for the GPU that it is for. */
static int next_counted(const struct planner *pl, enum pci_role role, int *load)
{
	int best = -1, best_gpu = -1;
	enum pci_relation best_rel = REL_SYS;

	for (size_t i = 0; i < pl->req->host->n_funcs; i++) {
		enum pci_relation rel;
		int g;

		if (!is_eligible(pl, (int)i, role) || planner_device_user(pl, planner_func(pl, (int)i)))
			continue;
		g = nearest_own_gpu(pl, (int)i, load, &rel);
		if (best >= 0 && (rel > best_rel || (rel == best_rel && (g < 0 || load[g] >= load[best_gpu]))))
			continue;
		best = (int)i;
		best_gpu = g;
		best_rel = rel;
	}
	if (best_gpu >= 0)
		load[best_gpu]++;
	return best;
}

static void refuse_counted(struct planner *pl, enum pci_role role, int want, int have)
{
	const char *key = role == ROLE_NIC ? "nics" : "nvme";
	AUTO_FREE char *bad = NULL;
	struct problem *p;
	int held = 0;

	for (size_t i = 0; i < pl->req->host->n_funcs; i++)
		held += is_eligible(pl, (int)i, role) && planner_device_user(pl, planner_func(pl, (int)i));
	p = config_problem(pl->ps, pl->req->vm, "place", key, want <= have + held ? "device-busy" : "device-missing",
			   "[place] %s: %d asked for, %d free", key, want, have);
	p->kind = want <= have + held ? PROBLEM_BUSY : PROBLEM_HOST;
	bad = select_bad_text(pl, role);
	problem_hint(p, "ask for at most %d, or `%s = per-gpu`%s", have, key, bad);
}

/* The best @want: nearest to a GPU of the VM, dealt out evenly over its GPUs. */
static void select_counted(struct planner *pl, enum pci_role role, int want)
{
	AUTO_FREE int *load = xcalloc(pl->req->host->n_funcs, sizeof(*load));
	int have = 0, next;

	for (; have < want && (next = next_counted(pl, role, load)) >= 0; have++)
		select_add(pl, next, select_next_id(pl, role), NULL);
	if (have < want)
		refuse_counted(pl, role, want, have);
	else
		plan_reason(pl->plan, role == ROLE_NIC ? "nics" : "nvme", "the %d nearest to the VM's GPUs, dealt out evenly", want);
}

static void select_peers(struct planner *pl, enum pci_role role, int want)
{
	/* The default means nothing for a VM that takes no GPUs. */
	if (want == CONF_PER_GPU && pl->req->vm->gpus > 0)
		select_per_gpu(pl, role);
	else if (want > 0)
		select_counted(pl, role, want);
}

/* --- IOMMU groups -------------------------------------------------------------------------------------- */

/* A GPU's audio or USB function cannot stay behind: same slot, same group. */
static void select_companions(struct planner *pl)
{
	size_t n = pl->plan->n_devices;

	for (size_t i = 0; i < n; i++) {
		int func = pl->plan->devices[i].func;
		size_t count;
		AUTO_FREE int *members = group_of(pl, func, &count);

		for (size_t k = 0; k < count; k++) {
			const struct pci_func *f = planner_func(pl, func), *m = planner_func(pl, members[k]);
			AUTO_FREE char *asked = NULL;

			if (select_has(pl, members[k]) || m->role == ROLE_BRIDGE || m->addr.domain != f->addr.domain ||
			    m->addr.bus != f->addr.bus || m->addr.dev != f->addr.dev)
				continue;
			asked = xasprintf("companion function of %s", pl->plan->devices[i].id);
			if (!select_check(pl, members[k], NULL, asked))
				continue;
			plan_reason(pl->plan, "companion", "%s.%d goes along with %s: same slot and IOMMU group", pl->plan->devices[i].id,
				    m->addr.fn, pl->plan->devices[i].id);
			/* A GPU's audio function is no surprise; a NIC or a disk that nobody named is. */
			if (m->role != ROLE_OTHER)
				plan_warn(pl->plan, "companion-taken", "%s %s.%d goes along, though it was not asked for: it shares slot and IOMMU group with %s",
					  pci_role_word(m->role), pl->plan->devices[i].id, m->addr.fn, pl->plan->devices[i].id);
			select_add(pl, members[k], xasprintf("%s.%d", pl->plan->devices[i].id, m->addr.fn), NULL);
		}
	}
}

static void check_group(struct planner *pl, const struct plan_device *d)
{
	size_t count;
	AUTO_FREE int *members = group_of(pl, d->func, &count);

	for (size_t k = 0; k < count; k++) {
		const struct pci_func *m = planner_func(pl, members[k]);
		char bdf[PCI_ADDR_STR], other[PCI_ADDR_STR];
		struct problem *p;

		if (select_has(pl, members[k]) || m->role == ROLE_BRIDGE || is_viable_driver(m->driver))
			continue;
		pci_addr_format(&d->addr, bdf);
		pci_addr_format(&m->addr, other);
		p = problems_add(pl->ps, PROBLEM_HOST, "group-not-viable", "%s %s: IOMMU group %d also has %s (%s, driver %s)", d->id, bdf,
				 d->iommu_group, other, m->name, m->driver);
		problem_device(p, bdf);
		if (m->host_use)
			problem_hint(p, "%s; the host needs it: move one of them to another slot, or turn on ACS above them", m->host_use);
		else
			problem_hint(p, "add it to the VM ([device NAME] pci = %s), unbind it, or turn on ACS above it", other);
	}
}

static void check_iommu(struct planner *pl)
{
	const struct topology *t = pl->req->host;
	struct problem *p;

	if (!pl->plan->n_devices || pl->req->fake_devices)
		return;
	if (t->gaps & GAP_GROUPS)
		return; /* it cannot be told: topology-partial says so */
	if (!t->iommu_groups) {
		p = problems_add(pl->ps, PROBLEM_HOST, "iommu-off", "devices are to be passed, but the IOMMU is off: /sys/kernel/iommu_groups is empty");
		problem_hint(p, "turn on VT-d or AMD-Vi in the BIOS and boot with %s",
			     strcmp(t->cpu_vendor, "AuthenticAMD") ? "intel_iommu=on" : "amd_iommu=on");
		return;
	}
	if (!t->vfio && !pl->req->foreign_host) {
		p = problems_add(pl->ps, PROBLEM_HOST, "vfio-missing", "/dev/vfio/vfio does not exist and the module vfio-pci cannot be found");
		problem_hint(p, "modprobe vfio-pci");
	}
	for (size_t i = 0; i < pl->plan->n_devices; i++)
		check_group(pl, &pl->plan->devices[i]);
}

/* --- results ------------------------------------------------------------------------------------------- */

static void list_binds(struct planner *pl)
{
	for (size_t i = 0; i < pl->plan->n_devices && !pl->req->fake_devices; i++) {
		const struct plan_device *d = &pl->plan->devices[i];
		struct plan_bind *b = PUSH_ZEROED(pl->plan->binds, pl->plan->n_binds);

		b->addr = d->addr;
		b->from = d->driver ? xstrdup(d->driver) : NULL;
		b->override = *planner_func(pl, d->func)->override ? xstrdup(planner_func(pl, d->func)->override) : NULL;
		b->to = xstrdup("vfio-pci");
	}
}

/* The root of the switch tree above a device: devices with the same one form a group. -1: none. */
static int top_switch(const struct planner *pl, int func)
{
	int path[32];
	size_t n = topology_path(pl->req->host, func, path, ARRAY_SIZE(path));

	for (size_t i = 0; i < n && i < ARRAY_SIZE(path); i++)
		if (topology_is_upstream(pl->req->host, path[i]))
			return path[i];
	return -1;
}

static struct plan_group *group_for(struct planner *pl, int sw)
{
	struct plan *p = pl->plan;
	struct plan_group *g;
	char bdf[PCI_ADDR_STR] = "";

	if (sw >= 0) {
		pci_addr_format(&planner_func(pl, sw)->addr, bdf);
		for (size_t i = 0; i < p->n_groups; i++)
			if (p->groups[i].switch_bdf && strcmp(p->groups[i].switch_bdf, bdf) == 0)
				return &p->groups[i];
	}
	g = PUSH_ZEROED(p->groups, p->n_groups);
	g->switch_bdf = sw >= 0 ? xstrdup(bdf) : NULL;
	return g;
}

static void list_groups(struct planner *pl)
{
	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		int func = pl->plan->devices[i].func;
		struct plan_group *g = group_for(pl, top_switch(pl, func));

		/* The relation of a group is the worst among its members. */
		for (size_t k = 0; k < g->n_devices; k++) {
			enum pci_relation rel = topology_relation(pl->req->host, pl->plan->devices[g->devices[k]].func, func);

			if (rel > g->relation)
				g->relation = rel;
		}
		*PUSH_ZEROED(g->devices, g->n_devices) = (int)i;
	}
}

static void warn_cross_socket(struct planner *pl)
{
	int first = -1;

	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		int socket = planner_func(pl, pl->plan->devices[i].func)->socket;

		/* NVSwitches take part in no DMA. */
		if (socket < 0 || first == socket || pl->plan->devices[i].role == ROLE_NVSWITCH || pl->plan->devices[i].role == ROLE_FABRIC)
			continue;
		if (first >= 0) {
			plan_warn(pl->plan, "cross-socket", "devices of sockets %d and %d: peer-to-peer DMA (GPUDirect) between sockets will not work",
				  first, socket);
			return;
		}
		first = socket;
	}
}

static void warn_options(struct planner *pl)
{
	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		const struct plan_device *d = &pl->plan->devices[i];

		if (d->options && d->options->x_no_mmap)
			plan_warn(pl->plan, "x-no-mmap",
				  "%s: x-no-mmap traps every access and takes the BAR out of the IOMMU mapping: P2P and GPUDirect RDMA are lost", d->id);
		if (d->options && d->options->iommufd)
			plan_warn(pl->plan, "iommufd-no-p2p",
				  "%s: with iommufd QEMU does not map the BARs of other devices: P2P and GPUDirect RDMA do not work", d->id);
	}
}

int select_devices(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	size_t before = pl->ps->n;

	select_explicit(pl);
	select_fabric_mode(pl);
	if (vm->gpus > 0 && vm->gpu_index >= 0)
		select_indexed_gpus(pl);
	else if (vm->gpus > 0 && pl->plan->fabric.mode != FABRIC_NONE)
		select_fabric_gpus(pl);
	else if (vm->gpus > 0)
		select_best_gpus(pl);
	/* What is near to GPUs that could not be had cannot be told. */
	if (pl->ps->n == before) {
		select_peers(pl, ROLE_NIC, vm->nics);
		select_peers(pl, ROLE_NVME, vm->nvme);
	}
	/* What was refused already would be refused again, in other words. */
	if (pl->ps->n == before)
		select_fabric_finish(pl);
	select_companions(pl);
	check_iommu(pl);
	list_binds(pl);
	list_groups(pl);
	warn_cross_socket(pl);
	warn_options(pl);
	/* Where devices are missing, their nodes are not known: CPUs and memory cannot be judged. */
	return pl->ps->n != before ? -EINVAL : 0;
}
