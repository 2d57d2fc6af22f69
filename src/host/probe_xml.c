/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_xml.c - a machine from hwloc's XML, as far as it goes.
 *
 * hwloc has the shape: nodes, CPUs, caches, memory, distances, and the PCI tree with classes and ids.  Of links it has the
 * throughput at the moment of writing, which says less than a maximum.  It knows nothing of IOMMU groups, drivers, BARs or
 * what the host uses: ret->gaps.  Switches are found by their place in the tree, since the kind of a port is not in it.
 *
 * The file may come from anywhere: every number that becomes an index is checked here. */
#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpuvm/probe.h"
#include "probe_priv.h"

#define MAX_XML  (64u << 20) /* a machine of 4096 functions and 512 CPUs has 3 MiB */
#define MAX_NODE 4096
#define TRY_SECONDS 20 /* of CPU time, for the child that reads a file first */
#define GAPS     (GAP_GROUPS | GAP_DRIVERS | GAP_BARS | GAP_HOST_USE | GAP_FREE_MEMORY | GAP_LINKS)

/* --- loading ------------------------------------------------------------------------------------------- */

static int configure(hwloc_topology_t h)
{
	static const hwloc_obj_type_t types[] = { HWLOC_OBJ_PACKAGE, HWLOC_OBJ_CORE, HWLOC_OBJ_L3CACHE };

	hwloc_topology_set_all_types_filter(h, HWLOC_TYPE_FILTER_KEEP_NONE);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		hwloc_topology_set_type_filter(h, types[i], HWLOC_TYPE_FILTER_KEEP_ALL);
	hwloc_topology_set_io_types_filter(h, HWLOC_TYPE_FILTER_KEEP_ALL);
	return hwloc_topology_set_flags(h, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
}

/* "<topology version="3.0">": the major version; 1 wrote none. 0: this is no hwloc XML. */
static int xml_version(const char *text)
{
	const char *tag = strstr(text, "<topology"), *end = tag ? strchr(tag, '>') : NULL, *v;
	int major = 1;

	if (!end)
		return 0;
	v = strstr(tag, "version=\"");
	if (v && v < end && sscanf(v, "version=\"%d", &major) != 1)
		return 0;
	return major;
}

/* 0 or -1. hwloc's environment is the process's, and the user's is not wanted. */
static int load_text(const char *text, size_t len, hwloc_topology_t *ret)
{
	struct hwloc_env saved;
	hwloc_topology_t h;
	int r;

	if (hwloc_topology_init(&h) < 0)
		return -1;
	hwloc_env_enter(NULL, &saved);
	r = configure(h) < 0 || hwloc_topology_set_xmlbuffer(h, text, (int)len + 1) < 0 || hwloc_topology_load(h) < 0;
	hwloc_env_leave(&saved);
	if (r) {
		hwloc_topology_destroy(h);
		return -1;
	}
	*ret = h;
	return 0;
}

static void __attribute__((noreturn)) try_child(const char *text, size_t len)
{
	struct rlimit no_core = { 0 }, cpu = { TRY_SECONDS, TRY_SECONDS };
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	hwloc_topology_t h;

	setrlimit(RLIMIT_CORE, &no_core);
	setrlimit(RLIMIT_CPU, &cpu);
	dup2(null, STDERR_FILENO);
	_exit(load_text(text, len, &h) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* hwloc 2.9 leaks on some damaged files, crashes on others (fuzzing finds them in seconds): a child goes first. */
static bool loads_well(const char *text, size_t len)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0)
		try_child(text, len);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

static int load(const char *path, const char *text, size_t len, hwloc_topology_t *ret, struct err *e)
{
	int version = xml_version(text);

	if (version < 1)
		return err_set(e, -EBADMSG, "'%s' is not an hwloc XML: `lstopo FILE.xml` writes one", path);
	if (version >= (int)(HWLOC_API_VERSION >> 16) + 1)
		return err_set(e, -EPROTONOSUPPORT,
			       "'%s' was written by hwloc %d, and this program has hwloc %d: write it with "
			       "`lstopo --export-xml-flags v2 FILE.xml`, or use `gpuvm capture`",
			       path, version, (int)(HWLOC_API_VERSION >> 16));
	if (!loads_well(text, len) || load_text(text, len, ret) < 0)
		return err_set(e, -EBADMSG, "'%s' is damaged: hwloc cannot read it", path);
	return 0;
}

/* --- CPUs and memory ----------------------------------------------------------------------------------------- */

static int check_indexes(const char *path, hwloc_topology_t h, struct err *e)
{
	hwloc_obj_t o = NULL;

	while ((o = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_PU, o)))
		if (o->os_index >= CPUSET_MAX)
			return err_set(e, -EBADMSG, "'%s': CPU number %u is out of range", path, o->os_index);
	while ((o = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, o)))
		if (o->os_index >= MAX_NODE)
			return err_set(e, -EBADMSG, "'%s': node number %u is out of range", path, o->os_index);
	while ((o = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_PACKAGE, o)))
		if (o->os_index != HWLOC_UNKNOWN_INDEX && o->os_index > INT_MAX)
			return err_set(e, -EBADMSG, "'%s': package number %u is out of range", path, o->os_index);
	return 0;
}

static void fill_memory(struct topology *t, hwloc_topology_t h)
{
	hwloc_obj_t o = NULL;

	while ((o = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, o))) {
		struct host_node *n = &t->nodes[topology_find_node(t, (int)o->os_index)];
		uint64_t huge = 0;

		n->mem_bytes = o->attr->numanode.local_memory;
		for (unsigned int i = 0; i < o->attr->numanode.page_types_len && n->n_pools < HUGEPAGE_POOLS; i++) {
			struct hwloc_memory_page_type_s *p = &o->attr->numanode.page_types[i];

			if (p->size != 2u << 20 && p->size != 1u << 30)
				continue;
			n->pools[n->n_pools++] =
				(struct hugepage_pool){ .page_bytes = p->size, .total = p->count, .free = p->count };
			/* A damaged file may claim anything. */
			huge += p->count < n->mem_bytes / p->size ? p->count * p->size : n->mem_bytes;
		}
		n->free_bytes = huge < n->mem_bytes ? n->mem_bytes - huge : 0;
	}
}

/* The matrix in the order of t->nodes, if it is one of all nodes. */
static void take_distances(struct topology *t, const struct hwloc_distances_s *d)
{
	size_t n = t->n_nodes;

	if (d->nbobjs != n)
		return;
	for (size_t i = 0; i < n; i++)
		if (!d->objs[i] || d->objs[i]->type != HWLOC_OBJ_NUMANODE)
			return;
	for (size_t i = 0; i < n; i++) {
		struct host_node *node = &t->nodes[topology_find_node(t, (int)d->objs[i]->os_index)];

		if (!node->distances)
			node->distances = xcalloc(n, sizeof(*node->distances));
		for (size_t k = 0; k < n; k++) {
			uint64_t v = d->values[i * n + k];

			node->distances[topology_find_node(t, (int)d->objs[k]->os_index)] = v < 255 ? (int)v : 255;
		}
	}
}

static void fill_distances(struct topology *t, hwloc_topology_t h)
{
	struct hwloc_distances_s *d = NULL;
	unsigned int n = 1;

	if (hwloc_distances_get_by_type(h, HWLOC_OBJ_NUMANODE, &n, &d, HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0) < 0 || !n)
		return;
	take_distances(t, d);
	hwloc_distances_release(h, d);
}

static const char *info(hwloc_obj_t o, const char *key)
{
	const char *v = o ? hwloc_obj_get_info_by_name(o, key) : NULL;

	return v ? v : "";
}

static void fill_machine(struct topology *t, hwloc_topology_t h, const char *path)
{
	hwloc_obj_t root = hwloc_get_root_obj(h);
	const char *vendor = info(hwloc_get_next_obj_by_type(h, HWLOC_OBJ_PACKAGE, NULL), "CPUVendor");

	snprintf(t->root, sizeof(t->root), "%s", path);
	snprintf(t->host_name, sizeof(t->host_name), "%s", info(root, "HostName"));
	snprintf(t->kernel, sizeof(t->kernel), "%s", info(root, "OSRelease"));
	snprintf(t->cpu_vendor, sizeof(t->cpu_vendor), "%s", *vendor ? vendor : info(root, "CPUVendor"));
	for (size_t i = 0; i < t->n_cpus; i++)
		cpuset_add(&t->allowed, t->cpus[i].cpu);
}

/* --- PCI ---------------------------------------------------------------------------------------------------------- */

struct found {
	struct pci_func f;
	struct pci_addr up; /* the bridge above */
	bool has_up;
};

static const struct hwloc_pcidev_attr_s *pci_attr(hwloc_obj_t o)
{
	if (o->type == HWLOC_OBJ_PCI_DEVICE)
		return &o->attr->pcidev;
	if (o->type == HWLOC_OBJ_BRIDGE && o->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI)
		return &o->attr->bridge.upstream.pci;
	return NULL;
}

static struct pci_addr address(const struct hwloc_pcidev_attr_s *a)
{
	return (struct pci_addr){ a->domain, a->bus, a->dev & 0x1f, a->func & 0x7 };
}

static void place_in_tree(hwloc_obj_t o, struct found *ret)
{
	struct pci_func *f = &ret->f;

	snprintf(f->root_bus, sizeof(f->root_bus), "%04x:%02x", f->addr.domain, f->addr.bus);
	for (hwloc_obj_t up = o->parent; up && up->type == HWLOC_OBJ_BRIDGE; up = up->parent) {
		const struct hwloc_pcidev_attr_s *a = pci_attr(up);

		if (a && !ret->has_up) {
			ret->up = address(a);
			ret->has_up = true;
		}
		if (!a && up->attr->bridge.downstream_type == HWLOC_OBJ_BRIDGE_PCI)
			snprintf(f->root_bus, sizeof(f->root_bus), "%04x:%02x",
				 (unsigned int)up->attr->bridge.downstream.pci.domain,
				 (unsigned int)up->attr->bridge.downstream.pci.secondary_bus);
	}
}

/* The one node with CPUs that it is attached to; -1 if that is more than one, as when the firmware said nothing. */
static int node_of(const struct topology *t, hwloc_topology_t h, hwloc_obj_t o)
{
	hwloc_obj_t at = hwloc_get_non_io_ancestor_obj(h, o);
	int found = -1;

	for (size_t i = 0; at && at->nodeset && i < t->n_nodes; i++) {
		if (!hwloc_bitmap_isset(at->nodeset, (unsigned int)t->nodes[i].id) || cpuset_empty(&t->nodes[i].cpus))
			continue;
		if (found >= 0)
			return -1;
		found = t->nodes[i].id;
	}
	return found;
}

/* Speed and lanes whose product is the throughput: of several, the lanes that such a device mostly has.  A port may have
 * any number of lanes, so of a port only what is sure counts. */
static void guess_link(struct pci_func *f, double gbytes)
{
	static const struct {
		unsigned int mts;
		double gbits; /* of a lane, as hwloc counts */
	} rates[] = { { 2500, 2 }, { 5000, 4 }, { 8000, 8 * 128. / 130 }, { 16000, 16 * 128. / 130 },
		      { 32000, 32 * 128. / 130 }, { 64000, 64 * 242. / 256 } };
	static const unsigned int wide[] = { 16, 8, 4, 2, 1 }, narrow[] = { 4, 2, 1, 8, 16 };
	const unsigned int *widths = f->class_code >> 16 == 0x01 ? narrow : wide;
	unsigned int mts = 0, width = 0, n = 0;

	for (size_t w = 0; w < ARRAY_SIZE(wide); w++) {
		for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
			double ratio = gbytes * 8 / (rates[i].gbits * widths[w]);

			if (ratio < 0.97 || ratio > 1.03 || n++)
				continue;
			mts = rates[i].mts;
			width = widths[w];
		}
	}
	if (!n || (n > 1 && f->class_code >> 8 == 0x0604))
		return;
	f->link.cur_mts = mts;
	f->link.cur_width = width;
	/* A link that sleeps shows 2.5 GT/s; what it can do is then unknown. */
	f->link.max_mts = mts > 5000 ? mts : 0;
	f->link.max_width = f->link.max_mts ? width : 0;
}

static void name_func(hwloc_obj_t o, struct pci_func *f)
{
	const char *vendor = info(o, "PCIVendor"), *device = info(o, "PCIDevice");
	hwloc_obj_t os;

	if (*vendor && *device)
		snprintf(f->name, sizeof(f->name), "%s %s", vendor, device);
	else if (*vendor)
		snprintf(f->name, sizeof(f->name), "%.80s [%04x:%04x]", vendor, f->vendor, f->device);
	else
		snprintf(f->name, sizeof(f->name), "%04x:%04x", f->vendor, f->device);
	for (os = o->io_first_child; os; os = os->next_sibling) {
		if (os->type != HWLOC_OBJ_OS_DEVICE || !os->name || *f->os_name)
			continue;
		if (os->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK || os->attr->osdev.type == HWLOC_OBJ_OSDEV_BLOCK)
			snprintf(f->os_name, sizeof(f->os_name), "%s", os->name);
	}
}

static void add_func(struct topology *t, hwloc_topology_t h, hwloc_obj_t o, struct found **v, size_t *n)
{
	const struct hwloc_pcidev_attr_s *a = pci_attr(o);
	struct found *x = PUSH_ZEROED(*v, *n);
	struct pci_func *f = &x->f;

	f->addr = address(a);
	f->vendor = a->vendor_id;
	f->device = a->device_id;
	f->subvendor = a->subvendor_id;
	f->subdevice = a->subdevice_id;
	f->class_code = (uint32_t)a->class_id << 8;
	f->iommu_group = -1;
	f->local_node = -1;
	f->parent = -1;
	place_in_tree(o, x);
	f->port = f->class_code >> 8 == 0x0604 ? PORT_UNKNOWN : PORT_ENDPOINT;
	/* Which display is the console is not in it; a VGA without a slot is. */
	f->boot_vga = f->class_code >> 8 == 0x0300 && !x->has_up;
	f->sysfs_node = node_of(t, h, o);
	if (a->linkspeed > 0)
		guess_link(f, (double)a->linkspeed);
	name_func(o, f);
}

static int found_cmp(const void *a, const void *b)
{
	return pci_addr_cmp(&((const struct found *)a)->f.addr, &((const struct found *)b)->f.addr);
}

static int link_funcs(struct topology *t, struct found *v, size_t n, const char *path, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		char bdf[PCI_ADDR_STR];

		if (i && pci_addr_cmp(&v[i - 1].f.addr, &v[i].f.addr) == 0)
			return err_set(e, -EBADMSG, "'%s': %s is in it twice", path, pci_addr_format(&v[i].f.addr, bdf));
		/* Sorted by address, bridges are before what is below them: bus numbers grow downwards. */
		v[i].f.parent = v[i].has_up ? topology_find_func(t, &v[i].up) : -1;
		if (v[i].has_up && v[i].f.parent < 0)
			return err_set(e, -EBADMSG, "'%s': %s is below a bridge with a higher address", path,
				       pci_addr_format(&v[i].f.addr, bdf));
		*PUSH_ZEROED(t->funcs, t->n_funcs) = v[i].f;
	}
	return 0;
}

static int fill_functions(struct topology *t, hwloc_topology_t h, const char *path, struct err *e)
{
	AUTO_FREE struct found *v = NULL;
	size_t n = 0;
	hwloc_obj_t o = NULL;

	while ((o = hwloc_get_next_bridge(h, o)))
		if (pci_attr(o))
			add_func(t, h, o, &v, &n);
	while ((o = hwloc_get_next_pcidev(h, o)))
		add_func(t, h, o, &v, &n);
	if (n)
		qsort(v, n, sizeof(*v), found_cmp);
	return link_funcs(t, v, n, path, e);
}

/* --- the whole -------------------------------------------------------------------------------------------------------- */

static int fill(struct topology *t, hwloc_topology_t h, const char *path, struct err *e)
{
	int r = check_indexes(path, h, e);

	if (r < 0)
		return r;
	probe_hwloc_cpus(t, h);
	if (!t->n_cpus || !t->n_nodes)
		return err_set(e, -EBADMSG, "'%s' has no CPUs or no memory", path);
	fill_memory(t, h);
	fill_distances(t, h);
	fill_machine(t, h, path);
	t->gaps = GAPS;
	t->io_uring = true;
	return fill_functions(t, h, path, e);
}

static int read_xml(const char *path, char **ret, struct err *e)
{
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return err_sys(e, -errno, "read '%s'", path);
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_XML)
		return err_set(e, -EINVAL, "'%s' is %s", path,
			       S_ISREG(st.st_mode) ? "too large for an hwloc XML" : "not a file");
	r = read_text_file(path, MAX_XML, ret);
	return r < 0 ? err_sys(e, r, "read '%s'", path) : 0;
}

int probe_topology_xml(const char *path, struct topology *ret, struct err *e)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	AUTO_FREE char *text = NULL;
	hwloc_topology_t h = NULL;
	int r = read_xml(path, &text, e);

	if (r == 0)
		r = load(path, text, strlen(text), &h, e);
	if (r < 0)
		return r;
	r = fill(&t, h, path, e);
	hwloc_topology_destroy(h);
	if (r < 0)
		return r;
	topology_finish(&t);
	*ret = t;
	t = (struct topology){ 0 };
	return 0;
}
