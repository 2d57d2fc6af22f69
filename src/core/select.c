/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which functions of the host the VM gets.
 *
 * How it works: explicit [device]s first, then the GPUs (by gpu-index, or the best free set), then the NICs and NVMe
 * controllers that belong to those GPUs, then the companion functions that hardware ties to them (same slot and
 * IOMMU group).  Every function passes the same gate, check_function(): nothing the host itself uses, nothing another VM
 * holds, no bridge, no SR-IOV parent.  Last, each IOMMU group must be complete. */
#include <errno.h>
#include <string.h>

#include "choose_gpus.h"
#include "plan_priv.h"

static bool is_selected(const struct planner *pl, int func)
{
	for (size_t i = 0; i < pl->plan->n_devices; i++)
		if (pl->plan->devices[i].func == func)
			return true;
	return false;
}

/* May the VM have this function? Adds the reasons why not. */
static bool check_function(struct planner *pl, int func, const struct device_config *dc, const char *asked_by)
{
	bool force = dc && dc->force;
	const struct pci_func *f = planner_func(pl, func);
	const struct used_device *user = planner_device_user(pl, f);
	struct problem *p = NULL;
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&f->addr, bdf);
	if (f->role == ROLE_BRIDGE) {
		p = problems_add(pl->ps, PROBLEM_HOST, "device-is-bridge", "%s: %s is a PCI bridge; bridges cannot be passed", asked_by, bdf);
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
	} else if (user && !pl->req->fake_devices) {
		p = problems_add(pl->ps, PROBLEM_BUSY, f->role == ROLE_GPU ? "gpu-busy" : "device-busy",
				 "%s: %s is held by the running VM '%s' (pid %d)", asked_by, bdf, user->vm, user->pid);
	}
	if (p) {
		AUTO_FREE char *section = dc ? xasprintf("device %s", dc->name) : xstrdup("place");

		problem_device(p, bdf);
		if (config_line(pl->req->vm, section, dc ? "pci" : "gpus"))
			problem_where(p, pl->req->vm->path, config_line(pl->req->vm, section, dc ? "pci" : "gpus"));
	}
	return !p;
}

static struct plan_device *add_device(struct planner *pl, int func, char *id, const struct device_config *options)
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
		if (check_function(pl, func, dc, asked))
			add_device(pl, func, xasprintf("dev-%s", dc->name), dc);
	}
}

/* --- GPUs ------------------------------------------------------------------------------------------ */

static bool gpu_is_free(const struct planner *pl, int func)
{
	const struct pci_func *f = planner_func(pl, func);

	if (pl->req->vm->socket >= 0 && f->socket != pl->req->vm->socket)
		return false;
	return !f->host_use && !f->sriov_vfs && !planner_device_user(pl, f) && !is_selected(pl, func);
}

/* A sentence about what is free, per socket, for a refusal. */
static char *describe_free(const struct planner *pl)
{
	const struct topology *t = pl->req->host;
	char *out = xstrdup("");

	for (int s = 0; s < t->n_sockets; s++) {
		int n_free = 0, total = 0;
		char *next;

		for (int g = 0; g < topology_n_gpus(t); g++) {
			const struct pci_func *f = planner_func(pl, topology_find_gpu(t, g));

			if (f->socket != s)
				continue;
			total++;
			n_free += !f->host_use && !f->sriov_vfs && !planner_device_user(pl, f);
		}
		next = xasprintf("%s%ssocket %d: %d of %d free", out, *out ? ", " : "", s, n_free, total);
		free(out);
		out = next;
	}
	return out;
}

static void refuse_gpus(struct planner *pl, enum problem_kind kind, const char *code, const char *text)
{
	AUTO_FREE char *have = describe_free(pl);
	struct problem *p = config_problem(pl->ps, pl->req->vm, "place", "gpus", code, "%s", text);

	p->kind = kind;
	problem_hint(p, "%s", topology_n_gpus(pl->req->host) ? have : "`gpuvm topo` shows what this host has");
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

		refuse_gpus(pl, PROBLEM_HOST, "gpu-missing", text);
		return;
	}
	for (int g = vm->gpu_index; g < vm->gpu_index + vm->gpus; g++) {
		AUTO_FREE char *asked = xasprintf("[place] gpus: GPU %d", g);
		int func = topology_find_gpu(pl->req->host, g);

		if (is_selected(pl, func) || !check_function(pl, func, NULL, asked))
			continue;
		if (vm->socket >= 0 && planner_func(pl, func)->socket != vm->socket)
			refuse_gpus(pl, PROBLEM_CONFIG, "bad-value", "[place] gpu-index: these GPUs are not all on the socket that `socket` names");
		add_device(pl, func, xasprintf("gpu%d", g - vm->gpu_index), NULL);
	}
	plan_reason(pl->plan, "gpus", "GPUs %d to %d, as gpu-index says (numbered by socket, node and address)", vm->gpu_index,
		    vm->gpu_index + vm->gpus - 1);
}

static void select_best_gpus(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	int total = topology_n_gpus(pl->req->host), n_free = 0;
	AUTO_FREE bool *is_free = xcalloc((size_t)total, sizeof(*is_free));
	AUTO_FREE int *chosen = xcalloc((size_t)vm->gpus, sizeof(*chosen));
	AUTO_FREE char *text = NULL;

	for (int g = 0; g < total; g++) {
		is_free[g] = gpu_is_free(pl, topology_find_gpu(pl->req->host, g));
		n_free += is_free[g];
	}
	if (choose_gpus(pl->req->host, is_free, vm->gpus, chosen) < 0) {
		text = xasprintf("[place] gpus: %d GPU%s %s asked for, but of the %d of this host%s %d %s free", vm->gpus, PLURAL(vm->gpus),
				 vm->gpus == 1 ? "is" : "are", total, vm->socket >= 0 ? " on that socket" : "", n_free,
				 n_free == 1 ? "is" : "are");
		refuse_gpus(pl, vm->gpus > total ? PROBLEM_HOST : PROBLEM_BUSY, vm->gpus > total ? "gpu-missing" : "gpu-busy", text);
		return;
	}
	for (int i = 0; i < vm->gpus; i++)
		add_device(pl, chosen[i], xasprintf("gpu%d", i), NULL);
	plan_reason(pl->plan, "gpus", "the closest %d of %d free GPUs: fewest pairs across sockets, nodes, host bridges and switches, "
				      "and no switch split between VMs without need",
		    vm->gpus, n_free);
}

/* --- NICs and NVMe ----------------------------------------------------------------------------------- */

/* Best relation of @func to any GPU of the machine (@ours: of the VM). */
static enum pci_relation nearest_gpu(const struct planner *pl, int func, bool ours)
{
	const struct topology *t = pl->req->host;
	enum pci_relation best = REL_SYS;

	for (size_t g = 0; g < t->n_funcs; g++) {
		if (t->funcs[g].role != ROLE_GPU || (ours && !is_selected(pl, (int)g)))
			continue;
		if (topology_relation(t, (int)g, func) < best)
			best = topology_relation(t, (int)g, func);
	}
	return best;
}

/* To which GPU a NIC or NVMe controller below a switch belongs: the nearest; where several are equally near, the
 * devices of that place are dealt out in turn, so that two VMs that share a switch do not fight over them. -1: to none. */
static int owner_gpu(const struct planner *pl, int func)
{
	const struct topology *t = pl->req->host;
	enum pci_relation best = nearest_gpu(pl, func, false);
	int owners[CHOOSE_MAX], n = 0, turn = 0;

	if (best > REL_PXB)
		return -1;
	for (int g = 0; g < topology_n_gpus(t) && n < CHOOSE_MAX; g++)
		if (topology_relation(t, topology_find_gpu(t, g), func) == best)
			owners[n++] = topology_find_gpu(t, g);
	for (int i = 0; i < func; i++)
		if (t->funcs[i].role == t->funcs[func].role && topology_relation(t, owners[0], i) == best &&
		    nearest_gpu(pl, i, false) == best)
			turn++;
	return owners[turn % n];
}

static bool is_candidate(const struct planner *pl, int func, enum pci_role role)
{
	const struct pci_func *f = planner_func(pl, func);

	return f->role == role && !f->is_vf && !is_selected(pl, func);
}

static char *next_id(const struct planner *pl, enum pci_role role)
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
	int n = 0;

	for (size_t i = 0; i < t->n_funcs; i++) {
		const struct pci_func *f = &t->funcs[i];
		const struct used_device *user = planner_device_user(pl, f);
		char bdf[PCI_ADDR_STR];
		int owner;

		if (!is_candidate(pl, (int)i, role))
			continue;
		owner = owner_gpu(pl, (int)i);
		if (owner < 0 || !is_selected(pl, owner))
			continue;
		pci_addr_format(&f->addr, bdf);
		if (f->host_use)
			plan_warn(pl->plan, "device-host-use", "%s %s stays with the host: %s", pci_role_word(role), bdf, f->host_use);
		else if (f->sriov_vfs)
			plan_warn(pl->plan, "sriov-active", "%s %s is left out: it has virtual functions switched on", pci_role_word(role), bdf);
		else if (user && !pl->req->fake_devices)
			plan_warn(pl->plan, "device-busy", "%s %s is left out: VM '%s' holds it", pci_role_word(role), bdf, user->vm);
		else {
			add_device(pl, (int)i, next_id(pl, role), NULL);
			n++;
		}
	}
	plan_reason(pl->plan, role == ROLE_NIC ? "nics" : "nvme",
		    n ? "%d: all that share a PCIe switch with a GPU of the VM" : "%d: none shares a PCIe switch with a GPU of the VM", n);
}

/* The best @want: nearest to a GPU of the VM, dealt out evenly over its GPUs. */
static void select_counted(struct planner *pl, enum pci_role role, int want)
{
	const struct topology *t = pl->req->host;
	const char *key = role == ROLE_NIC ? "nics" : "nvme";
	int *load = xcalloc(t->n_funcs, sizeof(*load)), have = 0;

	for (; have < want; have++) {
		int best = -1, best_gpu = -1;
		enum pci_relation best_rel = REL_SYS;

		for (size_t i = 0; i < t->n_funcs; i++) {
			const struct pci_func *f = &t->funcs[i];

			if (!is_candidate(pl, (int)i, role) || f->host_use || f->sriov_vfs || planner_device_user(pl, f))
				continue;
			for (size_t k = 0; k < pl->plan->n_devices; k++) {
				int g = pl->plan->devices[k].func;
				enum pci_relation rel = topology_relation(t, g, (int)i);

				if (pl->plan->devices[k].role != ROLE_GPU)
					continue;
				if (best < 0 || rel < best_rel || (rel == best_rel && load[g] < load[best_gpu])) {
					best = (int)i;
					best_gpu = g;
					best_rel = rel;
				}
			}
		}
		if (best < 0)
			break;
		load[best_gpu]++;
		add_device(pl, best, next_id(pl, role), NULL);
	}
	free(load);
	if (have < want) {
		AUTO_FREE char *text = xasprintf("[place] %s: %d asked for, %d free", key, want, have);
		struct problem *p = config_problem(pl->ps, pl->req->vm, "place", key, "device-missing", "%s", text);

		p->kind = PROBLEM_HOST;
		problem_hint(p, "ask for at most %d, or `%s = per-gpu`", have, key);
		return;
	}
	plan_reason(pl->plan, key, "the %d nearest to the VM's GPUs, dealt out evenly", want);
}

static void select_peers(struct planner *pl, enum pci_role role, int want)
{
	if (want == CONF_PER_GPU)
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
		int members[64], func = pl->plan->devices[i].func;
		size_t count = topology_group(pl->req->host, func, members, ARRAY_SIZE(members));

		for (size_t k = 0; k < count && k < ARRAY_SIZE(members); k++) {
			const struct pci_func *f = planner_func(pl, func), *m = planner_func(pl, members[k]);
			AUTO_FREE char *asked = NULL;

			if (is_selected(pl, members[k]) || m->role == ROLE_BRIDGE || m->addr.domain != f->addr.domain ||
			    m->addr.bus != f->addr.bus || m->addr.dev != f->addr.dev)
				continue;
			asked = xasprintf("companion function of %s", pl->plan->devices[i].id);
			if (!check_function(pl, members[k], NULL, asked))
				continue;
			plan_reason(pl->plan, "companion", "%s.%d goes along with %s: same slot and IOMMU group", pl->plan->devices[i].id,
				    m->addr.fn, pl->plan->devices[i].id);
			add_device(pl, members[k], xasprintf("%s.%d", pl->plan->devices[i].id, m->addr.fn), NULL);
		}
	}
}

/* vfio.rst: a group is viable when each endpoint in it is on a vfio driver, on pci-stub, or has no driver. */
static bool is_viable_driver(const char *driver)
{
	return !*driver || strncmp(driver, "vfio", 4) == 0 || strcmp(driver, "pci-stub") == 0;
}

static void check_group(struct planner *pl, const struct plan_device *d)
{
	int members[64];
	size_t count = topology_group(pl->req->host, d->func, members, ARRAY_SIZE(members));

	for (size_t k = 0; k < count && k < ARRAY_SIZE(members); k++) {
		const struct pci_func *m = planner_func(pl, members[k]);
		char bdf[PCI_ADDR_STR], other[PCI_ADDR_STR];
		struct problem *p;

		if (is_selected(pl, members[k]) || m->role == ROLE_BRIDGE || is_viable_driver(m->driver))
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

		if (socket < 0 || first == socket)
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
	}
}

int select_devices(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	size_t before = pl->ps->n;

	select_explicit(pl);
	if (vm->gpus > 0 && vm->gpu_index >= 0)
		select_indexed_gpus(pl);
	else if (vm->gpus > 0)
		select_best_gpus(pl);
	if (vm->gpus > 0) {
		select_peers(pl, ROLE_NIC, vm->nics);
		select_peers(pl, ROLE_NVME, vm->nvme);
	}
	select_companions(pl);
	check_iommu(pl);
	list_binds(pl);
	list_groups(pl);
	warn_cross_socket(pl);
	warn_options(pl);
	/* Where devices are missing, their nodes are not known: CPUs and memory cannot be judged. */
	return pl->ps->n != before ? -EINVAL : 0;
}
