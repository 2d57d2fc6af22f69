/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_cpu.c - nodes, CPUs and memory. Structure from hwloc, figures (free pages, distances) from sysfs.
 *
 * hwloc 2.9 can be pointed at another root only through its environment, which is the process's: it is set around
 * the load and put back. Variables of the user that would make hwloc show some other machine are kept out, too. */
#include <errno.h>
#include <hwloc.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <string.h>

#include "probe_priv.h"

static const char *const hwloc_env[N_HWLOC_ENV] = { "HWLOC_FSROOT",     "HWLOC_XMLFILE",    "HWLOC_SYNTHETIC",  "HWLOC_COMPONENTS",
					 "HWLOC_THISSYSTEM", "HWLOC_CPUID_PATH", "HWLOC_HIDE_ERRORS" };

void hwloc_env_enter(const char *fsroot, struct hwloc_env *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(hwloc_env); i++) {
		const char *v = getenv(hwloc_env[i]);

		ret->value[i] = v ? xstrdup(v) : NULL;
		unsetenv(hwloc_env[i]);
	}
	if (fsroot)
		setenv("HWLOC_FSROOT", fsroot, 1);
	setenv("HWLOC_HIDE_ERRORS", "2", 1); /* it would print its opinion of the firmware to stderr */
}

void hwloc_env_leave(struct hwloc_env *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(hwloc_env); i++) {
		if (s->value[i])
			setenv(hwloc_env[i], s->value[i], 1);
		else
			unsetenv(hwloc_env[i]);
		free(s->value[i]);
	}
}

/* What hwloc would read beside the structure: three files of each CPU, a quarter of the time on a large machine. */
#if HWLOC_API_VERSION >= 0x00020800
static const unsigned long unread = HWLOC_TOPOLOGY_FLAG_NO_DISTANCES | HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS | HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS;
#else
static const unsigned long unread;
#endif

/* Only what is used, and not the x86 component, which binds to every CPU in turn to ask it. */
static int configure(hwloc_topology_t h)
{
	static const hwloc_obj_type_t types[] = { HWLOC_OBJ_PACKAGE, HWLOC_OBJ_CORE, HWLOC_OBJ_L3CACHE };

	hwloc_topology_set_all_types_filter(h, HWLOC_TYPE_FILTER_KEEP_NONE);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		hwloc_topology_set_type_filter(h, types[i], HWLOC_TYPE_FILTER_KEEP_ALL);
	hwloc_topology_set_components(h, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
	/* Where a package has several nodes (SNC, NPS), they are groups: without those, all nodes would have all of its CPUs. */
	hwloc_topology_set_type_filter(h, HWLOC_OBJ_GROUP, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
	return hwloc_topology_set_flags(h, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED | unread);
}

/* hwloc (2.9) asserts that these are as a kernel has them; those of a captured machine may be anything. */
static int check_lists(const struct probe *p, struct err *e)
{
	static const char *const lists[] = { "devices/system/node/online", "devices/system/node/possible", "devices/system/cpu/online",
					     "devices/system/cpu/possible" };

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		AUTO_FREE char *again = NULL;
		struct cpuset set = { 0 };
		char buf[4096];

		if (probe_read(p->sys_fd, lists[i], buf, sizeof(buf)) < 0)
			continue;
		if (cpuset_parse(buf, &set) == 0)
			again = cpuset_format(&set);
		if (!again || !*again || strcmp(again, buf) != 0)
			return err_set(e, -EBADMSG, "'%s/sys/%s' is damaged: '%.64s' is no list as the kernel writes them", p->root, lists[i], buf);
	}
	return 0;
}

static int load(const struct probe *p, hwloc_topology_t *ret, struct err *e)
{
	struct hwloc_env saved;
	hwloc_topology_t h;
	int r = check_lists(p, e);

	if (r < 0)
		return r;
	if (hwloc_topology_init(&h) < 0)
		return err_sys(e, -ENOMEM, "hwloc");
	hwloc_env_enter(p->live ? NULL : p->root, &saved);
	errno = EIO; /* hwloc does not always set it */
	r = configure(h) < 0 || hwloc_topology_load(h) < 0 ? -errno : 0;
	hwloc_env_leave(&saved);
	if (r < 0) {
		hwloc_topology_destroy(h);
		return err_sys(e, r, "read CPUs and nodes of '%s' (hwloc)", p->live ? "/" : p->root);
	}
	*ret = h;
	return 0;
}

static int node_cmp(const void *a, const void *b)
{
	return ((const struct host_node *)a)->id - ((const struct host_node *)b)->id;
}

static int cpu_cmp(const void *a, const void *b)
{
	return ((const struct host_cpu *)a)->cpu - ((const struct host_cpu *)b)->cpu;
}

static void add_nodes(struct topology *t, hwloc_topology_t h)
{
	hwloc_obj_t o = NULL;

	while ((o = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, o)))
		PUSH_ZEROED(t->nodes, t->n_nodes)->id = (int)o->os_index;
	if (t->n_nodes)
		qsort(t->nodes, t->n_nodes, sizeof(*t->nodes), node_cmp);
}

static int ancestor_index(hwloc_topology_t h, hwloc_obj_t pu, hwloc_obj_type_t type, int fallback)
{
	hwloc_obj_t o = hwloc_get_ancestor_obj_by_type(h, type, pu);

	return o ? (int)o->logical_index : fallback;
}

static int package_number(hwloc_topology_t h, hwloc_obj_t pu)
{
	hwloc_obj_t o = hwloc_get_ancestor_obj_by_type(h, HWLOC_OBJ_PACKAGE, pu);

	if (!o)
		return 0;
	return o->os_index == HWLOC_UNKNOWN_INDEX ? (int)o->logical_index : (int)o->os_index;
}

/* The node of a CPU: the smallest that it is local to, for memory without CPUs (CXL) may be near to a whole package.  That of a node
 * (HBM) is listed beside it; the lowest one is the CPU's own. */
static int own_node(hwloc_topology_t h, hwloc_obj_t pu)
{
	hwloc_obj_t o = NULL;
	int best = -1, best_size = INT_MAX;

	while ((o = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, o))) {
		int size = hwloc_bitmap_weight(o->cpuset);

		if (!hwloc_bitmap_isset(o->cpuset, pu->os_index) || size > best_size || (size == best_size && (int)o->os_index > best))
			continue;
		best = (int)o->os_index;
		best_size = size;
	}
	return best;
}

static void add_cpus(struct topology *t, hwloc_topology_t h)
{
	hwloc_obj_t pu = NULL;

	while ((pu = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_PU, pu))) {
		struct host_cpu *c = PUSH_ZEROED(t->cpus, t->n_cpus);

		c->cpu = (int)pu->os_index;
		c->node = topology_find_node(t, own_node(h, pu));
		c->socket = package_number(h, pu);
		c->core = ancestor_index(h, pu, HWLOC_OBJ_CORE, (int)pu->logical_index);
		c->l3 = ancestor_index(h, pu, HWLOC_OBJ_L3CACHE, -1);
		if (c->node < 0)
			c->node = 0;
		cpuset_add(&t->nodes[c->node].cpus, c->cpu);
	}
	if (t->n_cpus)
		qsort(t->cpus, t->n_cpus, sizeof(*t->cpus), cpu_cmp);
}

void probe_hwloc_cpus(struct topology *t, struct hwloc_topology *h)
{
	add_nodes(t, h);
	if (t->n_nodes)
		add_cpus(t, h);
}

/* Bytes behind "KEY:" in a meminfo; its unit is kB. */
static uint64_t meminfo_bytes(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	unsigned long long kb = 0;

	if (!at || sscanf(at + strlen(key), ": %llu", &kb) != 1)
		return 0;
	return (uint64_t)kb << 10;
}

/* Memory that a process bound to the node would get: free pages and what the kernel drops for it. */
static void node_memory(struct host_node *n, const char *meminfo)
{
	n->mem_bytes = meminfo_bytes(meminfo, "MemTotal");
	n->free_bytes = meminfo_bytes(meminfo, "MemFree") + meminfo_bytes(meminfo, " Active(file)") +
			meminfo_bytes(meminfo, "Inactive(file)") + meminfo_bytes(meminfo, "SReclaimable");
	if (n->free_bytes > n->mem_bytes)
		n->free_bytes = n->mem_bytes;
}

/* The two huge page sizes that x86 has. @dir: "devices/system/node/node0/hugepages" or "kernel/mm/hugepages". */
static void node_pools(const struct probe *p, struct host_node *n, const char *dir)
{
	static const uint64_t sizes_kb[] = { 2048, 1048576 };
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(sizes_kb); i++) {
		struct hugepage_pool *pool = &n->pools[n->n_pools];

		snprintf(path, sizeof(path), "%s/hugepages-%" PRIu64 "kB/nr_hugepages", dir, sizes_kb[i]);
		if (!probe_exists(p->sys_fd, path))
			continue;
		pool->page_bytes = sizes_kb[i] << 10;
		pool->total = probe_read_u64(p->sys_fd, path);
		snprintf(path, sizeof(path), "%s/hugepages-%" PRIu64 "kB/free_hugepages", dir, sizes_kb[i]);
		pool->free = probe_read_u64(p->sys_fd, path);
		n->n_pools++;
	}
}

/* The kernel lists one figure per online node; anything else is not understood and left out. */
static void node_distances(const struct probe *p, struct host_node *n)
{
	size_t count = p->t->n_nodes, got = 0;
	AUTO_FREE int *d = xcalloc(count, sizeof(*d));
	char buf[4096], *save = NULL;

	if (probe_readf(p->sys_fd, buf, sizeof(buf), "devices/system/node/node%d/distance", n->id) < 0)
		return;
	for (char *s = strtok_r(buf, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		if (got == count || parse_int(s, 0, INT_MAX, &d[got++]) < 0)
			return;
	}
	if (got == count)
		n->distances = STEAL_PTR(d);
}

/* A machine with one node: all of its memory. Linux 6.18 leaves what a balloon has given back out of the node's own figure. */
static void machine_memory(const struct probe *p, struct host_node *n)
{
	AUTO_FREE char *meminfo = probe_read_all(p->proc_fd, "meminfo");
	uint64_t all = meminfo ? meminfo_bytes(meminfo, "MemTotal") : 0;

	if (all <= n->mem_bytes)
		return;
	n->mem_bytes = all;
	n->free_bytes = meminfo_bytes(meminfo, "MemAvailable");
}

static void fill_node(const struct probe *p, struct host_node *n)
{
	char dir[96];
	AUTO_FREE char *meminfo = NULL;

	snprintf(dir, sizeof(dir), "devices/system/node/node%d/meminfo", n->id);
	meminfo = probe_read_all(p->sys_fd, dir);
	if (meminfo) {
		node_memory(n, meminfo);
		if (p->t->n_nodes == 1)
			machine_memory(p, n);
		snprintf(dir, sizeof(dir), "devices/system/node/node%d/hugepages", n->id);
		node_pools(p, n, dir);
		node_distances(p, n);
		return;
	}
	/* A kernel without NUMA: the machine is node 0. */
	machine_memory(p, n);
	node_pools(p, n, "kernel/mm/hugepages");
}

/* A CPU list of the kernel; empty if it has none ("(null)" in nohz_full). */
static struct cpuset read_cpu_list(const struct probe *p, const char *path)
{
	struct cpuset set = { 0 };
	char buf[4096];

	if (probe_read(p->sys_fd, path, buf, sizeof(buf)) <= 0 || cpuset_parse(buf, &set) < 0)
		return (struct cpuset){ 0 };
	return set;
}

static void mark_isolated(const struct probe *p)
{
	struct cpuset isolated = read_cpu_list(p, "devices/system/cpu/isolated");
	struct cpuset nohz_full = read_cpu_list(p, "devices/system/cpu/nohz_full");

	for (size_t i = 0; i < p->t->n_cpus; i++) {
		struct host_cpu *c = &p->t->cpus[i];

		c->isolated = cpuset_has(&isolated, c->cpu);
		c->nohz_full = cpuset_has(&nohz_full, c->cpu);
	}
}

/* The CPUs that we inherited from systemd, Slurm or taskset. Another machine's are all there to be planned on. */
static void find_allowed(const struct probe *p)
{
	struct cpuset *allowed = &p->t->allowed, online = { 0 };

	for (size_t i = 0; i < p->t->n_cpus; i++)
		cpuset_add(&online, p->t->cpus[i].cpu);
	if (!p->live || sched_getaffinity(0, sizeof(allowed->w), (cpu_set_t *)allowed->w) < 0)
		*allowed = online;
	cpuset_and(allowed, &online);
}

int probe_cpus(struct probe *p, struct err *e)
{
	struct topology *t = p->t;
	hwloc_topology_t h = NULL;
	int r = load(p, &h, e);

	if (r < 0)
		return r;
	probe_hwloc_cpus(t, h);
	hwloc_topology_destroy(h);
	if (!t->n_cpus || !t->n_nodes)
		return err_set(e, -ENODEV, "'%s': no CPU found below sys/devices/system", p->live ? "/" : p->root);

	for (size_t i = 0; i < t->n_nodes; i++)
		fill_node(p, &t->nodes[i]);
	mark_isolated(p);
	find_allowed(p);
	return 0;
}
