/* SPDX-License-Identifier: GPL-2.0-or-later */
/* select_fabric.c - NVLink between the VM's GPUs: mode, sets, NVSwitches.
 *
 * How it works: the mode is decided first, from the definition, the drivers of the NVSwitches, and what other VMs
 * do.  With a mode, GPUs are not chosen one by one: a set that the fabric allows is chosen as a whole, so that GPUs
 * and partition cannot disagree (KubeSwift's issue 405 has a guest with the right number of GPUs of the wrong
 * partition: no NVLink, no error).  GPUs given by number or name are held against the same list.  What is refused
 * is refused with what would be allowed. */
#include <errno.h>
#include <string.h>

#include "choose_gpus.h"
#include "gpuvm/fabric_manager.h"
#include "select_priv.h"

/* --- what the VM has, what others have -------------------------------------------------------------- */

/* The VM's GPUs as positions in the fabric. */
static uint32_t vm_set(const struct planner *pl)
{
	uint32_t set = 0;

	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		int at = fabric_position(&pl->fabric, pl->plan->devices[i].func);

		if (at >= 0)
			set |= UINT32_C(1) << at;
	}
	return set;
}

static bool is_switch(enum pci_role role)
{
	return role == ROLE_NVSWITCH || role == ROLE_FABRIC;
}

static int vm_switches(const struct planner *pl)
{
	int n = 0;

	for (size_t i = 0; i < pl->plan->n_devices; i++)
		n += is_switch(pl->plan->devices[i].role);
	return n;
}

static bool vm_has_gpus(const struct planner *pl)
{
	bool any = pl->req->vm->gpus > 0;

	for (size_t i = 0; i < pl->plan->n_devices; i++)
		any = any || pl->plan->devices[i].role == ROLE_GPU;
	return any;
}

static const struct used_fabric *other_vm(const struct planner *pl, enum fabric_mode mode)
{
	const struct host_use *use = pl->req->use;

	for (size_t i = 0; use && i < use->n_fabrics; i++)
		if (use->fabrics[i].mode == mode)
			return &use->fabrics[i];
	return NULL;
}

/* GPUs that others have, or the host itself. */
static uint32_t taken_set(const struct planner *pl)
{
	uint32_t set = 0;

	for (int i = 0; i < pl->fabric.n_gpus; i++) {
		const struct pci_func *f = planner_func(pl, pl->fabric.gpus[i]);

		if (!pci_func_is_usable(f) || planner_device_user(pl, f))
			set |= UINT32_C(1) << i;
	}
	return set;
}

/* Of those, the ones that become free when VMs end: nothing else stands in the way. */
static uint32_t waiting_set(const struct planner *pl)
{
	uint32_t set = 0;

	for (int i = 0; i < pl->fabric.n_gpus; i++) {
		const struct pci_func *f = planner_func(pl, pl->fabric.gpus[i]);

		if (pci_func_is_usable(f) && planner_device_user(pl, f))
			set |= UINT32_C(1) << i;
	}
	return set;
}

/* --- words ------------------------------------------------------------------------------------------ */

/* "GPUs 4 5 6 7", as `gpuvm topo` numbers them; owned. */
static char *name_gpus(const struct fabric *f, uint32_t set)
{
	char *out = xstrdup(fabric_count(set) == 1 ? "GPU" : "GPUs");

	for (int i = 0; i < f->n_gpus; i++) {
		char *next;

		if (!(set >> i & 1))
			continue;
		next = xasprintf("%s %d", out, f->host->funcs[f->gpus[i]].gpu_index);
		free(out);
		out = next;
	}
	return out;
}

/* Why a set cannot be had now; owned, NULL if it can. */
static char *set_obstacle(const struct planner *pl, const struct fabric_set *s)
{
	const struct fabric *f = &pl->fabric;

	for (int i = 0; i < f->n_gpus; i++) {
		const struct pci_func *g = planner_func(pl, f->gpus[i]);
		const struct used_device *user = planner_device_user(pl, g);

		if (!(s->gpus >> i & 1))
			continue;
		if (user)
			return xasprintf("VM '%s' has GPU %d", user->vm, g->gpu_index);
		if (g->bad)
			return xasprintf("GPU %d is bad", g->gpu_index);
		if (g->host_use || g->sriov_vfs)
			return xasprintf("the host uses GPU %d", g->gpu_index);
		if (pl->req->vm->socket >= 0 && g->socket != pl->req->vm->socket)
			return xasprintf("GPU %d is on socket %d", g->gpu_index, g->socket);
	}
	if (s->blocked)
		return xstrdup("an active partition, of no VM that gpuvm knows, has a GPU of it");
	return s->active ? xstrdup("active already, for no VM that gpuvm knows") : NULL;
}

/* "partition 1: GPUs 4 5 6 7 (VM 'a' has GPU 4); partition 2: ..." for the sets of @n_gpus; owned. */
static char *list_sets(const struct planner *pl, int n_gpus)
{
	struct fabric_set sets[FABRIC_SETS_MAX];
	size_t n = fabric_sets(&pl->fabric, pl->plan->fabric.mode, n_gpus, sets, ARRAY_SIZE(sets));
	char *out = xstrdup("");

	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *why = set_obstacle(pl, &sets[i]), *gpus = name_gpus(&pl->fabric, sets[i].gpus),
			       *id = NULL;
		char *next;

		if (sets[i].partition >= 0)
			id = xasprintf("partition %d: ", sets[i].partition);
		next = xasprintf("%s%s%s%s%s%s%s", out, *out ? "; " : "", id ? id : "", gpus, why ? " (" : "",
				 why ? why : "", why ? ")" : "");
		free(out);
		out = next;
	}
	return out;
}

static struct problem *refuse(struct planner *pl, enum problem_kind kind, const char *section, const char *key,
			      const char *code, const char *text)
{
	struct problem *p = config_problem(pl->ps, pl->req->vm, section, key, code, "[%s] %s: %s", section, key, text);

	p->kind = kind;
	return p;
}

/* --- mode ------------------------------------------------------------------------------------------- */

/* No driver of the host has an NVSwitch: Fabric Manager does not run here. */
static bool switches_are_idle(const struct planner *pl)
{
	for (int i = 0; i < pl->fabric.n_switches; i++) {
		const char *driver = planner_func(pl, pl->fabric.switches[i])->driver;

		if (*driver && strncmp(driver, "vfio", 4) != 0 && strcmp(driver, "pci-stub") != 0)
			return false;
	}
	return true;
}

static enum fabric_mode choose_mode(const struct planner *pl, int want)
{
	const struct vm_config *vm = pl->req->vm;
	const struct fabric *f = &pl->fabric;
	const struct fabric_row *row = fabric_row(f->platform, want);
	bool ids = fabric_has_ids(f), idle = switches_are_idle(pl) && vm->nvswitch == NVSWITCH_AUTO;

	if (vm->partition >= 0)
		return FABRIC_SHARED;
	if (vm_switches(pl) || other_vm(pl, FABRIC_FULL))
		return FABRIC_FULL;
	if (other_vm(pl, FABRIC_SHARED))
		return ids ? FABRIC_SHARED : FABRIC_NONE;
	if (row && row->switches && row->switches <= f->n_switches && idle)
		return FABRIC_FULL;
	if (ids)
		return FABRIC_SHARED;
	return row && !row->switches && f->n_switches && idle ? FABRIC_FULL : FABRIC_NONE;
}

static void warn_unknown(struct planner *pl, int want)
{
	const struct fabric *f = &pl->fabric;
	AUTO_FREE char *allowed = f->platform ? fabric_describe(f) : NULL;

	if (!f->platform)
		plan_warn(pl->plan, "fabric-unknown",
			  "the NVSwitches of this host are of an unknown kind: NVLink is left alone, and CUDA may "
			  "not start in the guest without it");
	else if (want == 1)
		plan_warn(pl->plan, "fabric-unknown",
			  "%s: the GPU is passed without the fabric: its NVLinks must be disabled, or CUDA waits for "
			  "Fabric Manager in the guest",
			  f->platform->name);
	else
		plan_warn(pl->plan, "fabric-unknown",
			  "%s: no NVLink between the VM's GPUs, and CUDA may not start without it. What the fabric can "
			  "do: "
			  "%s; for shared mode gpuvm must know the GPUs' IDs (/etc/gpuvm/fabric.conf)",
			  f->platform->name, allowed);
}

/* Full and shared exclude each other: one Fabric Manager has the NVSwitches. */
static void check_mixing(struct planner *pl)
{
	enum fabric_mode mode = pl->plan->fabric.mode, other = mode == FABRIC_FULL ? FABRIC_SHARED : FABRIC_FULL;
	const struct used_fabric *user = other_vm(pl, other);
	AUTO_FREE char *text = NULL;

	if (mode == FABRIC_NONE || !user)
		return;
	text = xasprintf("%s is asked for, but the running VM '%s' (pid %d) uses the fabric in mode %s, and one "
			 "excludes the other",
			 fabric_mode_word(mode), user->vm, user->pid, fabric_mode_word(other));
	problem_hint(refuse(pl, PROBLEM_BUSY, "fabric", "mode", "fabric-busy", text),
		     "use mode = %s too, or stop that VM", fabric_mode_word(other));
}

/* The mode that the definition names must be one that this host has. */
static void check_mode(struct planner *pl)
{
	enum fabric_mode mode = pl->plan->fabric.mode;
	AUTO_FREE char *text = NULL;

	if (mode == FABRIC_NONE)
		return;
	if (!pl->fabric.platform) {
		text = xasprintf("%s is asked for, but this host has no NVSwitches%s", fabric_mode_word(mode),
				 pl->fabric.unknown ? " of a kind that is known" : "");
		problem_hint(refuse(pl, PROBLEM_HOST, "fabric", "mode", "fabric-missing", text), "use mode = none");
		pl->plan->fabric.mode = FABRIC_NONE;
		return;
	}
	if (mode == FABRIC_SHARED && !fabric_has_ids(&pl->fabric)) {
		problem_hint(refuse(pl, PROBLEM_HOST, "fabric", "mode", "fabric-map-missing",
				    "shared mode needs to know which GPU has which physical ID, and does not go by the "
				    "order of addresses"),
			     "write /etc/gpuvm/fabric.conf from `nvidia-smi -q` (\"Module ID\"): [module-ids], then "
			     "lines like 5 = 0000:0f:00.0");
		pl->plan->fabric.mode = FABRIC_NONE;
	}
	check_mixing(pl);
}

static int wanted_gpus(const struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	uint32_t set = vm_set(pl);

	/* By number and by name at once: one and the same GPU counts once. */
	for (int i = 0; vm->gpu_index >= 0 && i < vm->gpus; i++) {
		int at = fabric_position(&pl->fabric, topology_find_gpu(pl->req->host, vm->gpu_index + i));

		if (at >= 0)
			set |= UINT32_C(1) << at;
	}
	return fabric_count(set) + (vm->gpu_index < 0 ? vm->gpus : 0);
}

void select_fabric_mode(struct planner *pl)
{
	static const enum fabric_mode modes[] = {
		[CONF_FABRIC_FULL] = FABRIC_FULL, [CONF_FABRIC_SHARED] = FABRIC_SHARED
	};
	const struct vm_config *vm = pl->req->vm;
	struct plan_fabric *pf = &pl->plan->fabric;
	struct err e = { 0 };

	if (!vm_has_gpus(pl))
		return;
	if (fabric_init(&pl->fabric, pl->req->host, pl->req->fabric, &e) < 0) {
		problem_hint(problems_add(pl->ps, PROBLEM_HOST, "fabric-map-bad", "%s", e.msg),
			     "correct the file: `nvidia-smi -q` has \"Module ID\" and \"Bus Id\" of each GPU");
		return;
	}
	if (vm->fabric == CONF_FABRIC_NONE)
		return;
	if (vm->fabric != CONF_FABRIC_AUTO)
		pf->mode = modes[vm->fabric];
	else if (pl->fabric.platform && wanted_gpus(pl))
		pf->mode = choose_mode(pl, wanted_gpus(pl));
	else if (vm->partition >= 0)
		pf->mode = FABRIC_SHARED;
	if (vm->fabric == CONF_FABRIC_AUTO && pf->mode == FABRIC_NONE &&
	    (pl->fabric.unknown || (pl->fabric.platform && wanted_gpus(pl))))
		warn_unknown(pl, wanted_gpus(pl));
	check_mode(pl);
}

/* --- choosing --------------------------------------------------------------------------------------- */

struct candidate {
	struct fabric_set set;
	unsigned int cost[CHOOSE_COSTS];
	int breaks;
};

/* Near in sockets and nodes first; then what leaves the larger sets whole; then near in switches. */
static bool is_better(const struct candidate *a, const struct candidate *b)
{
	for (int i = 0; i < CHOOSE_COSTS; i++) {
		if (i == CHOOSE_NEAR && a->breaks != b->breaks)
			return a->breaks < b->breaks;
		if (a->cost[i] != b->cost[i])
			return a->cost[i] < b->cost[i];
	}
	/* Equal machines give equal plans: the lowest numbers. */
	return a->set.gpus & (a->set.gpus ^ b->set.gpus) & -(a->set.gpus ^ b->set.gpus);
}

/* Can the VM have it, and at what cost? */
static bool judge(const struct planner *pl, struct candidate *c, uint32_t named)
{
	int total = topology_n_gpus(pl->req->host);
	AUTO_FREE bool *is_free = xcalloc((size_t)total, sizeof(*is_free)),
		       *is_in = xcalloc((size_t)total, sizeof(*is_in));

	/* One that nobody's VM has may have been left active; it is taken over if it is meant. */
	if ((pl->req->vm->partition >= 0 && c->set.partition != pl->req->vm->partition) || named & ~c->set.gpus || c->set.blocked ||
	    (c->set.active && pl->req->vm->partition < 0))
		return false;
	for (int g = 0; g < total; g++) {
		int func = topology_find_gpu(pl->req->host, g), at = fabric_position(&pl->fabric, func);

		is_free[g] = select_gpu_is_free(pl, func) || select_has(pl, func);
		is_in[g] = at >= 0 && c->set.gpus >> at & 1;
	}
	return choose_gpus_cost(pl->req->host, is_free, is_in, c->cost);
}

static const struct fabric_set *find_partition(const struct fabric_set *sets, size_t n, int id)
{
	for (size_t i = 0; i < n; i++)
		if (sets[i].partition == id)
			return &sets[i];
	return NULL;
}

/* The partition that is asked for by number cannot be: why? */
static void refuse_partition(struct planner *pl, const struct fabric_set *sets, size_t n, int want)
{
	const struct vm_config *vm = pl->req->vm;
	const struct fabric_set *s = find_partition(sets, n, vm->partition);
	AUTO_FREE char *gpus = s ? name_gpus(&pl->fabric, s->gpus) : NULL, *why = s ? set_obstacle(pl, s) : NULL,
		       *list = list_sets(pl, want);
	AUTO_FREE char *text = NULL;
	bool busy = s && (s->blocked || s->gpus & taken_set(pl));

	if (!s)
		text = xasprintf("%s has no partition %d on this host", pl->fabric.platform->name, vm->partition);
	else if (fabric_count(s->gpus) != want)
		text = xasprintf("partition %d has %d GPU%s, the VM is to have %d", s->partition, fabric_count(s->gpus),
				 PLURAL(fabric_count(s->gpus)), want);
	else
		text = xasprintf("partition %d is %s: %s", s->partition, gpus,
				 why ? why : "not those that the definition names");
	problem_hint(refuse(pl, busy ? PROBLEM_BUSY : PROBLEM_HOST, "fabric", "partition",
			    busy ? "partition-busy" : "fabric-not-allowed", text),
		     "%s", *list ? list : "`[fabric] partition = auto` finds one");
}

/* No set of that many GPUs in this mode. */
static void refuse_size(struct planner *pl, int want)
{
	AUTO_FREE char *allowed = fabric_describe(&pl->fabric), *text = NULL;

	if (pl->plan->fabric.mode == FABRIC_FULL)
		text = xasprintf("%d GPU%s with %s is not a configuration of %s", want, PLURAL(want),
				 pl->fabric.platform->bridges ? "bridge functions" : "NVSwitches",
				 pl->fabric.platform->name);
	else
		text = xasprintf("%s has no partition of %d GPU%s", pl->fabric.platform->name, want, PLURAL(want));
	problem_hint(refuse(pl, PROBLEM_HOST, "place", "gpus", "fabric-not-allowed", text), "%s", allowed);
}

static void refuse_sets(struct planner *pl, const struct fabric_set *sets, size_t n, int want)
{
	AUTO_FREE char *list = NULL, *text = NULL;
	uint32_t taken = taken_set(pl);
	int free_gpus = pl->fabric.n_gpus - fabric_count(taken), waiting = fabric_count(waiting_set(pl));
	bool any = false;

	for (size_t i = 0; i < n; i++)
		any = any || fabric_count(sets[i].gpus) == want;
	if (pl->req->vm->partition >= 0) {
		refuse_partition(pl, sets, n, want);
	} else if (want > pl->fabric.n_gpus) {
		text = xasprintf("[place] gpus: %d GPUs are asked for, but this host has %d", want, pl->fabric.n_gpus);
		select_refuse_gpus(pl, PROBLEM_HOST, "gpu-missing", text);
	} else if (!any) {
		refuse_size(pl, want);
	} else if (free_gpus < want) {
		text = xasprintf("[place] gpus: %d GPU%s %s asked for, but of the %d of this host %d %s free", want,
				 PLURAL(want), want == 1 ? "is" : "are", pl->fabric.n_gpus, free_gpus,
				 free_gpus == 1 ? "is" : "are");
		if (free_gpus + waiting < want)
			select_refuse_gpus(pl, PROBLEM_HOST, "gpu-missing", text);
		else
			select_refuse_gpus(pl, PROBLEM_BUSY, "gpu-busy", text);
	} else {
		list = list_sets(pl, want);
		text = xasprintf("%d GPUs are free, but no set of %d that %s allows", free_gpus, want,
				 pl->fabric.platform->name);
		problem_hint(refuse(pl, waiting ? PROBLEM_BUSY : PROBLEM_HOST, "place", "gpus", "partition-busy", text),
			     "%s", list);
	}
}

void select_fabric_gpus(struct planner *pl)
{
	struct fabric_set sets[FABRIC_SETS_MAX];
	size_t n = fabric_sets(&pl->fabric, pl->plan->fabric.mode, 0, sets, ARRAY_SIZE(sets));
	struct candidate best = { 0 };
	uint32_t named = vm_set(pl), taken = taken_set(pl);
	int want = wanted_gpus(pl), k = 0, n_free = 0;

	for (size_t i = 0; i < n; i++) {
		struct candidate c = { .set = sets[i] };

		if (fabric_count(sets[i].gpus) != want || !judge(pl, &c, named))
			continue;
		n_free++;
		c.breaks = fabric_breaks(sets, n, &c.set, taken);
		if (!best.set.gpus || is_better(&c, &best))
			best = c;
	}
	if (!best.set.gpus) {
		refuse_sets(pl, sets, n, want);
		return;
	}
	for (int i = 0; i < pl->fabric.n_gpus; i++)
		if (best.set.gpus >> i & 1 && !(named >> i & 1))
			select_add(pl, pl->fabric.gpus[i], xasprintf("gpu%d", k++), NULL);
	if (n_free == 1)
		plan_reason(pl->plan, "gpus", "the only free set of %d that %s allows", want,
			    pl->fabric.platform->name);
	else
		plan_reason(pl->plan, "gpus",
			    "of %d free sets of %d that %s allows, the nearest in sockets and nodes, then the one that "
			    "breaks up the "
			    "fewest larger ones",
			    n_free, want, pl->fabric.platform->name);
}

/* --- the set that came out -------------------------------------------------------------------------- */

static void refuse_set(struct planner *pl, uint32_t set)
{
	AUTO_FREE char *gpus = name_gpus(&pl->fabric, set), *list = list_sets(pl, fabric_count(set)), *text = NULL;

	if (!*list) {
		refuse_size(pl, fabric_count(set));
		return;
	}
	text = xasprintf("%s are not a set that %s %s: NVLink would not connect them", gpus, pl->fabric.platform->name,
			 pl->plan->fabric.mode == FABRIC_SHARED ? "has a partition for" : "allows");
	problem_hint(refuse(pl, PROBLEM_HOST, "place", "gpu-index", "fabric-not-allowed", text), "%s", list);
}

/* Named GPUs and named partition must be the same. */
static void refuse_other_partition(struct planner *pl, const struct fabric_set *s)
{
	struct fabric_set sets[FABRIC_SETS_MAX];
	size_t n = fabric_sets(&pl->fabric, FABRIC_SHARED, 0, sets, ARRAY_SIZE(sets));
	const struct fabric_set *asked = find_partition(sets, n, pl->req->vm->partition);
	AUTO_FREE char *has = name_gpus(&pl->fabric, s->gpus),
		       *wants = asked ? name_gpus(&pl->fabric, asked->gpus) : NULL, *text = NULL;

	text = xasprintf("the VM's %s are partition %d; partition %d %s%s", has, s->partition, pl->req->vm->partition,
			 wants ? "is " : "does not exist", wants ? wants : "");
	problem_hint(refuse(pl, PROBLEM_HOST, "fabric", "partition", "fabric-not-allowed", text),
		     "give the partition and leave the GPUs to it, or the GPUs and leave the partition to them");
}

/* NVSwitches in a VM that does not have all that they connect would be in charge of other VMs' links. */
static void refuse_switches(struct planner *pl, const char *why)
{
	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		const struct plan_device *d = &pl->plan->devices[i];
		char bdf[PCI_ADDR_STR];
		struct problem *p;

		if (!is_switch(d->role))
			continue;
		pci_addr_format(&d->addr, bdf);
		p = problems_add(pl->ps, PROBLEM_HOST, "fabric-not-allowed", "%s %s: %s",
				 d->role == ROLE_FABRIC ? "bridge function" : "NVSwitch", bdf, why);
		problem_device(p, bdf);
		problem_hint(p, d->role == ROLE_FABRIC
					? "it looks like a NIC, but manages the NVSwitches of the whole board"
					: "leave it out, or use [fabric] mode = full");
		return;
	}
}

/* The guide fixes how many NVSwitches go with how many GPUs, not which: each GPU has links to all NVSwitches of its
 * baseboard, so any free ones of that board do. */
static bool switch_fits(const struct planner *pl, int position, uint32_t set)
{
	const struct fabric *f = &pl->fabric;

	if (select_has(pl, f->switches[position]))
		return false;
	for (int i = 0; i < f->n_gpus; i++)
		if (set >> i & 1 && fabric_gpu_board(f, i) == fabric_switch_board(f, position))
			return true;
	return false;
}

static void refuse_short(struct planner *pl, const struct fabric_row *row, int have, const struct used_device *user)
{
	const char *word = pl->fabric.platform->switch_word;
	AUTO_FREE char *bad = select_bad_text(pl, pl->fabric.platform->bridges ? ROLE_FABRIC : ROLE_NVSWITCH);
	struct problem *p = problems_add(pl->ps, user ? PROBLEM_BUSY : PROBLEM_HOST, "nvswitch-short",
					 "%d GPUs of %s need %d %s%s, but only %d can be had", row->gpus,
					 pl->fabric.platform->name, row->switches, word,
					 row->switches == 1             ? ""
					 : pl->fabric.platform->bridges ? "s"
									: "es",
					 have);

	if (user)
		problem_hint(p, "VM '%s' (pid %d) has others", user->vm, user->pid);
	else if (*bad)
		problem_hint(p, "%s", bad + strlen("; "));
	else if (pl->fabric.platform->bridges)
		problem_hint(p, "they are known by their vital product data (SMDL=SW_MNG), which only root can read, "
				"or from [fabric] bridges in /etc/gpuvm/fabric.conf");
	else
		problem_hint(p, "this host has %d; one that failed is missing on the bus", pl->fabric.n_switches);
}

static void take_switches(struct planner *pl, const struct fabric_row *row, uint32_t set)
{
	const struct fabric *f = &pl->fabric;
	const struct used_device *user = NULL;
	int have = vm_switches(pl);
	AUTO_FREE char *text = NULL;

	if (have > row->switches) {
		text = xasprintf("%d GPU%s of %s go with %d %ss, not %d", row->gpus, PLURAL(row->gpus),
				 f->platform->name, row->switches, f->platform->switch_word, have);
		refuse_switches(pl, text);
		return;
	}
	for (int i = 0; i < f->n_switches && have < row->switches; i++) {
		const struct pci_func *s = planner_func(pl, f->switches[i]);

		if (!switch_fits(pl, i, set))
			continue;
		if (planner_device_user(pl, s))
			user = planner_device_user(pl, s);
		if (planner_device_user(pl, s) || !pci_func_is_usable(s))
			continue;
		select_add(pl, f->switches[i], select_next_id(pl, s->role), NULL);
		have++;
	}
	if (have < row->switches)
		refuse_short(pl, row, have, user);
}

static void finish_full(struct planner *pl, uint32_t set)
{
	const struct fabric_row *row = fabric_row(pl->fabric.platform, fabric_count(set));

	take_switches(pl, row, set);
	plan_reason(pl->plan, "fabric",
		    "full passthrough: %d GPU%s of %s go with %d %s%s, and use %d of %d NVLinks each", row->gpus,
		    PLURAL(row->gpus), pl->fabric.platform->name, row->switches, pl->fabric.platform->switch_word,
		    row->switches == 1             ? ""
		    : pl->fabric.platform->bridges ? "s"
						   : "es",
		    row->links, row->links_max);
	if (row->links < row->links_max)
		plan_warn(pl->plan, "fabric-links-open",
			  "%d of %d NVLinks of each GPU do not belong to this VM: they must be blocked before the "
			  "guest starts, "
			  "which gpuvm does not do",
			  row->links_max - row->links, row->links_max);
}

static void name_manager(struct planner *pl, int partition)
{
	const struct plan_request *req = pl->req;
	struct fm_spec spec;
	AUTO_FREE char *text = NULL;

	if (fm_spec_parse(req->vm->fabric_manager, &spec) == 0 && spec.none) {
		plan_warn(pl->plan, "partition-by-hand",
			  "partition %d must be active before the guest starts (fmpm -a %d), and [fabric] manager = none leaves that to you",
			  partition, partition);
	} else if (req->fabric_manager) {
		pl->plan->fabric.manager = xstrdup(req->fabric_manager);
	} else if (req->no_manager) {
		text = xasprintf("nobody could activate partition %d: %s", partition, req->no_manager);
		problem_hint(refuse(pl, PROBLEM_HOST, "fabric", "manager", "fabric-no-manager", text),
			     "install libnvfm.so.1 or fmpm, or activate it yourself and say manager = none");
	}
}

static void finish_shared(struct planner *pl, const struct fabric_set *s)
{
	refuse_switches(pl, "in shared mode the NVSwitches stay with the host's Fabric Manager");
	pl->plan->fabric.partition = s->partition;
	plan_reason(pl->plan, "fabric",
		    "shared: partition %d of %s is exactly the VM's GPU%s, with %d NVLinks each (IDs from %s)",
		    s->partition, pl->fabric.platform->name, PLURAL(fabric_count(s->gpus)), s->links,
		    pl->req->fabric->source);
	name_manager(pl, s->partition);
}

/* A VM without GPUs may have NVSwitches: the service VM that Fabric Manager runs in.  The bridge functions must be
 * meant: they look like NICs. */
static void check_service_vm(struct planner *pl)
{
	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		const struct plan_device *d = &pl->plan->devices[i];

		if (d->role == ROLE_FABRIC && !(d->options && d->options->force)) {
			refuse_switches(pl,
					"it is not a NIC for a VM; with force = on a VM for Fabric Manager gets it");
			return;
		}
	}
}

static void finish_none(struct planner *pl)
{
	if (!vm_has_gpus(pl))
		check_service_vm(pl);
	else if (pl->fabric.platform)
		refuse_switches(pl, "the VM has GPUs, but does not use the fabric ([fabric] mode = none)");
	if (pl->fabric.platform && pl->req->vm->fabric == CONF_FABRIC_NONE)
		plan_reason(pl->plan, "fabric", "none: as [fabric] mode says");
}

void select_fabric_finish(struct planner *pl)
{
	struct plan_fabric *pf = &pl->plan->fabric;
	uint32_t set = vm_set(pl);
	struct fabric_set s;

	if (pf->mode == FABRIC_NONE) {
		finish_none(pl);
	} else if (!fabric_find_set(&pl->fabric, pf->mode, set, &s)) {
		refuse_set(pl, set);
	} else if (pl->req->vm->partition >= 0 && s.partition != pl->req->vm->partition) {
		refuse_other_partition(pl, &s);
	} else if (pf->mode == FABRIC_FULL) {
		finish_full(pl, set);
	} else {
		finish_shared(pl, &s);
	}
	for (int i = 0; i < pl->fabric.n_gpus; i++)
		if (set >> i & 1 && pl->fabric.ids[i])
			pf->ids[pf->n_ids++] = pl->fabric.ids[i];
}
