/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <string.h>

#include "tests/fake/mkhost_priv.h"

/* The kernel's mask format: groups of 32 bits, the highest first. */
static char *format_mask(const struct cpuset *s)
{
	char *out = NULL;
	int last = 0;

	cpuset_for_each (cpu, s)
		last = cpu;
	for (int g = last / 32; g >= 0; g--) {
		uint32_t bits = (uint32_t)(s->w[g / 2] >> (g % 2 * 32));

		mk_append(&out, out ? ",%08x" : "%08x", bits);
	}
	return out;
}

int mk_put_cpuset(struct mk *m, const char *dir, const char *mask_name, const char *list_name, const struct cpuset *s)
{
	AUTO_FREE char *mask = format_mask(s), *list = cpuset_format(s);

	if (mask_name && mk_put(m, dir, mask_name, "%s", mask) < 0)
		return -1;
	return list_name ? mk_put(m, dir, list_name, "%s", list) : 0;
}

/* Thread siblings of the @i-th CPU of a node: neighbours, or the same place in each part of the list. */
static void siblings_of(const struct mk *m, const int *cpus, int n, int i, struct cpuset *ret, int *ret_core)
{
	int cores = n / m->threads;

	*ret = (struct cpuset){ 0 };
	if (m->smt_adjacent || cores * m->threads != n) {
		*ret_core = i / m->threads;
		for (int t = 0; t < m->threads && *ret_core * m->threads + t < n; t++)
			cpuset_add(ret, cpus[*ret_core * m->threads + t]);
		return;
	}
	*ret_core = i % cores;
	for (int t = 0; t < m->threads; t++)
		cpuset_add(ret, cpus[t * cores + *ret_core]);
}

static void cpus_of_socket(const struct mk *m, int socket, struct cpuset *ret)
{
	*ret = (struct cpuset){ 0 };
	for (size_t i = 0; i < m->n_nodes; i++)
		if (m->nodes[i].socket == socket)
			cpuset_or(ret, &m->nodes[i].cpus);
}

static int write_cache(struct mk *m, const char *dir, const struct cpuset *shared)
{
	AUTO_FREE char *cache = xasprintf("%s/cache/index3", dir);

	if (mk_put(m, cache, "level", "3") < 0 || mk_put(m, cache, "type", "Unified") < 0 ||
	    mk_put(m, cache, "size", "32768K") < 0 || mk_put(m, cache, "coherency_line_size", "64") < 0 ||
	    mk_put(m, cache, "ways_of_associativity", "16") < 0 || mk_put(m, cache, "number_of_sets", "32768") < 0 ||
	    mk_put(m, cache, "physical_line_partition", "1") < 0)
		return -1;
	return mk_put_cpuset(m, cache, "shared_cpu_map", "shared_cpu_list", shared);
}

static int write_cpu(struct mk *m, const struct node *n, int cpu, int core_id, const struct cpuset *core,
		     const struct cpuset *l3)
{
	AUTO_FREE char *dir = xasprintf("sys/devices/system/cpu/cpu%d", cpu);
	AUTO_FREE char *topo = xasprintf("%s/topology", dir);
	struct cpuset package;

	cpus_of_socket(m, n->socket, &package);
	if (mk_put(m, topo, "physical_package_id", "%d", n->socket) < 0 ||
	    mk_put(m, topo, "core_id", "%d", core_id) < 0 ||
	    mk_put_cpuset(m, topo, "core_cpus", "core_cpus_list", core) < 0 ||
	    mk_put_cpuset(m, topo, "thread_siblings", "thread_siblings_list", core) < 0 ||
	    mk_put_cpuset(m, topo, "package_cpus", "package_cpus_list", &package) < 0 ||
	    mk_put_cpuset(m, topo, "core_siblings", "core_siblings_list", &package) < 0)
		return -1;
	return write_cache(m, dir, l3);
}

/* L3: shared by the socket's CPUs of this node, or by l3-cores cores of it. */
static void l3_of(const struct mk *m, const int *cpus, int n, int core, struct cpuset *ret)
{
	struct cpuset sib;
	int c;

	*ret = (struct cpuset){ 0 };
	for (int i = 0; i < n; i++) {
		siblings_of(m, cpus, n, i, &sib, &c);
		if (!m->l3_cores || c / m->l3_cores == core / m->l3_cores)
			cpuset_or(ret, &sib);
	}
}

static int write_node_cpus(struct mk *m, const struct node *n, int *first_core)
{
	AUTO_FREE int *cpus = xcalloc(CPUSET_MAX, sizeof(*cpus));
	struct cpuset core, l3 = { 0 };
	int count = 0, core_id, last = 0;

	cpuset_for_each (cpu, &n->cpus)
		cpus[count++] = cpu;
	if (count)
		l3_of(m, cpus, count, 0, &l3);
	for (int i = 0; i < count; i++) {
		siblings_of(m, cpus, count, i, &core, &core_id);
		if (m->l3_cores)
			l3_of(m, cpus, count, core_id, &l3);
		if (write_cpu(m, n, cpus[i], *first_core + core_id, &core, &l3) < 0)
			return -1;
		last = core_id > last ? core_id : last;
	}
	*first_core += last + 1;
	return 0;
}

static int write_cpuinfo(struct mk *m, const struct cpuset *all)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		abort();
	cpuset_for_each (cpu, all)
		fprintf(f,
			"processor\t: %d\nvendor_id\t: %s\nmodel name\t: Fixture CPU\naddress sizes\t: %d bits "
			"physical, 48 bits virtual\n\n",
			cpu, m->cpu_vendor, m->phys_bits);
	fclose(f);
	r = mk_put_bytes(m, "proc/cpuinfo", text, len, 0);
	return r;
}

int mk_write_cpus(struct mk *m)
{
	const char *dir = "sys/devices/system/cpu";
	struct cpuset all = { 0 };
	int core = 0, socket = -1;

	for (size_t i = 0; i < m->n_nodes; i++) {
		/* Core numbers of the kernel start again in each package. */
		if (m->nodes[i].socket != socket)
			core = 0;
		socket = m->nodes[i].socket;
		cpuset_or(&all, &m->nodes[i].cpus);
		if (write_node_cpus(m, &m->nodes[i], &core) < 0)
			return -1;
	}
	if (mk_put_cpuset(m, dir, NULL, "online", &all) < 0 || mk_put_cpuset(m, dir, NULL, "possible", &all) < 0 ||
	    mk_put_cpuset(m, dir, NULL, "present", &all) < 0 || mk_put(m, dir, "offline", "%s", "") < 0 ||
	    mk_put(m, dir, "isolated", "%s", m->isolated) < 0 ||
	    mk_put(m, dir, "nohz_full", "%s", *m->nohz_full ? m->nohz_full : "(null)") < 0 || mk_put(m, dir, "smt/active", "%d", m->threads > 1) < 0)
		return -1;
	return write_cpuinfo(m, &all);
}

static int write_pools(struct mk *m, const char *dir, const struct node *nodes, size_t n_nodes)
{
	for (size_t i = 0; i < MAX_POOLS; i++) {
		uint64_t page = nodes[0].pools[i].page, avail = 0, total = 0;
		AUTO_FREE char *pool = xasprintf("%s/hugepages-%" PRIu64 "kB", dir, page >> 10);

		for (size_t k = 0; k < n_nodes; k++) {
			avail += nodes[k].pools[i].free;
			total += nodes[k].pools[i].total;
		}
		if (mk_put(m, pool, "nr_hugepages", "%" PRIu64, total) < 0 ||
		    mk_put(m, pool, "free_hugepages", "%" PRIu64, avail) < 0 ||
		    mk_put(m, pool, "surplus_hugepages", "0") < 0)
			return -1;
	}
	return 0;
}

static int write_node(struct mk *m, const struct node *n)
{
	AUTO_FREE char *dir = xasprintf("sys/devices/system/node/node%d", n->id);
	AUTO_FREE char *pools = xasprintf("%s/hugepages", dir);
	AUTO_FREE char *dist = xstrdup(n->distances);

	for (char *p = dist; *p; p++)
		if (*p == ',')
			*p = ' ';
	cpuset_for_each (cpu, &n->cpus) {
		AUTO_FREE char *target = xasprintf("sys/devices/system/cpu/cpu%d", cpu);

		if (mk_make_link_at(m, target, "%s/cpu%d", dir, cpu) < 0)
			return -1;
	}
	if (mk_put_cpuset(m, dir, "cpumap", "cpulist", &n->cpus) < 0 ||
	    mk_put(m, dir, "distance", "%s", *dist ? dist : "10") < 0 ||
	    mk_put(m, dir, "meminfo", "Node %d MemTotal:       %" PRIu64 " kB\nNode %d MemFree:        %" PRIu64 " kB",
		   n->id, n->bytes >> 10, n->id, n->free_bytes >> 10) < 0)
		return -1;
	return write_pools(m, pools, n, 1);
}

int mk_write_nodes(struct mk *m)
{
	const char *dir = "sys/devices/system/node";
	struct cpuset ids = { 0 };
	uint64_t total = 0, avail = 0;

	for (size_t i = 0; i < m->n_nodes; i++) {
		cpuset_add(&ids, m->nodes[i].id);
		total += m->nodes[i].bytes;
		avail += m->nodes[i].free_bytes;
		if (!m->no_numa && write_node(m, &m->nodes[i]) < 0)
			return -1;
	}
	if (!m->no_numa &&
	    (mk_put_cpuset(m, dir, NULL, "online", &ids) < 0 || mk_put_cpuset(m, dir, NULL, "possible", &ids) < 0))
		return -1;
	if (mk_put(m, "proc", "meminfo",
		   "MemTotal:       %" PRIu64 " kB\nMemFree:        %" PRIu64 " kB\nMemAvailable:   %" PRIu64 " kB",
		   total >> 10, avail >> 10, avail >> 10) < 0)
		return -1;
	return write_pools(m, "sys/kernel/mm/hugepages", m->nodes, m->n_nodes);
}
