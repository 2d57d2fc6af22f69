/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/draw.h"

static void add(struct json_object *o, const char *key, struct json_object *v)
{
	json_object_object_add(o, key, v);
}

/* Text, or null where there is none. */
static struct json_object *text(const char *s)
{
	return s && *s ? json_object_new_string(s) : NULL;
}

static struct json_object *bytes(uint64_t v)
{
	return json_object_new_uint64(v);
}

/* A number, or null where -1 (or 0, for @none = 0) stands for "not known". */
static struct json_object *number(int v, int none)
{
	return v == none ? NULL : json_object_new_int(v);
}

static struct json_object *cpus(const struct cpuset *s)
{
	AUTO_FREE char *list = cpuset_format(s);

	return json_object_new_string(list);
}

static struct json_object *bdf(const struct topology *t, int func)
{
	char buf[PCI_ADDR_STR];

	return func < 0 ? NULL : json_object_new_string(pci_addr_format(&t->funcs[func].addr, buf));
}

static struct json_object *hex4(unsigned int v)
{
	char buf[8];

	snprintf(buf, sizeof(buf), "%04x", v & 0xffff);
	return json_object_new_string(buf);
}

static struct json_object *pools_json(const struct host_node *n)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < n->n_pools; i++) {
		struct json_object *o = json_object_new_object();

		add(o, "page_bytes", bytes(n->pools[i].page_bytes));
		add(o, "total", bytes(n->pools[i].total));
		add(o, "free", bytes(n->pools[i].free));
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *nodes_json(const struct topology *t)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < t->n_nodes; i++) {
		const struct host_node *n = &t->nodes[i];
		struct json_object *o = json_object_new_object(), *dist = n->distances ? json_object_new_array() : NULL;

		for (size_t k = 0; dist && k < t->n_nodes; k++)
			json_object_array_add(dist, json_object_new_int(n->distances[k]));
		add(o, "node", json_object_new_int(n->id));
		add(o, "socket", json_object_new_int(n->socket));
		add(o, "cpus", cpus(&n->cpus));
		add(o, "memory_bytes", bytes(n->mem_bytes));
		add(o, "free_bytes", bytes(n->free_bytes));
		add(o, "hugepages", pools_json(n));
		add(o, "distances", dist);
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *cpus_json(const struct topology *t)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < t->n_cpus; i++) {
		const struct host_cpu *c = &t->cpus[i];
		struct json_object *o = json_object_new_object();

		add(o, "cpu", json_object_new_int(c->cpu));
		add(o, "node", json_object_new_int(t->nodes[c->node].id));
		add(o, "socket", json_object_new_int(c->socket));
		add(o, "core", json_object_new_int(c->core));
		add(o, "l3", number(c->l3, -1));
		add(o, "isolated", json_object_new_boolean(c->isolated));
		add(o, "nohz_full", json_object_new_boolean(c->nohz_full));
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *link_json(unsigned int mts, unsigned int width)
{
	struct json_object *o;

	if (!mts || !width)
		return NULL;
	o = json_object_new_object();
	add(o, "gts", json_object_new_double(mts / 1000.0));
	add(o, "width", json_object_new_int((int)width));
	return o;
}

static struct json_object *path_json(const struct topology *t, int func)
{
	struct json_object *a = json_object_new_array();
	size_t n = topology_path(t, func, NULL, 0);
	AUTO_FREE int *path = xcalloc(n, sizeof(*path));

	topology_path(t, func, path, n);
	for (size_t i = 0; i < n; i++)
		json_object_array_add(a, bdf(t, path[i]));
	return a;
}

static struct json_object *bars_json(const struct pci_func *f)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(f->bars); i++)
		json_object_array_add(a, bytes(f->bars[i].bytes));
	return a;
}

static const char *port_type_word(enum pcie_port_type p)
{
	static const char *const words[] = {
		[PORT_UNKNOWN] = NULL,        [PORT_ENDPOINT] = "endpoint",     [PORT_ROOT] = "root",
		[PORT_UPSTREAM] = "upstream", [PORT_DOWNSTREAM] = "downstream", [PORT_PCI_BRIDGE] = "pci-bridge",
	};

	return words[p];
}

static void add_identity(struct json_object *o, const struct topology *t, int i)
{
	const struct pci_func *f = &t->funcs[i];
	char class_code[8];

	snprintf(class_code, sizeof(class_code), "%06x", f->class_code & 0xffffff);
	add(o, "bdf", bdf(t, i));
	add(o, "role", json_object_new_string(pci_role_word(f->role)));
	add(o, "gpu_index", number(f->gpu_index, -1));
	add(o, "name", text(f->name));
	add(o, "vendor", hex4(f->vendor));
	add(o, "device", hex4(f->device));
	add(o, "subvendor", hex4(f->subvendor));
	add(o, "subdevice", hex4(f->subdevice));
	add(o, "class", json_object_new_string(class_code));
}

static void add_place(struct json_object *o, const struct topology *t, int i)
{
	const struct pci_func *f = &t->funcs[i];

	add(o, "port", text(port_type_word(f->port)));
	add(o, "root_bus", text(f->root_bus));
	add(o, "host_path", path_json(t, i));
	add(o, "switch", bdf(t, topology_switch_of(t, i)));
	add(o, "node", f->node >= 0 ? json_object_new_int(t->nodes[f->node].id) : NULL);
	add(o, "node_source", json_object_new_string(node_source_word(f->node_source)));
	add(o, "socket", number(f->socket, -1));
	add(o, "iommu_group", number(f->iommu_group, -1));
}

static struct json_object *func_json(const struct topology *t, const struct host_use *use, int i)
{
	const struct pci_func *f = &t->funcs[i];
	struct pci_link path = topology_path_link(t, i);
	struct json_object *o = json_object_new_object();

	add_identity(o, t, i);
	add_place(o, t, i);
	add(o, "driver", text(f->driver));
	add(o, "driver_override", text(f->override));
	add(o, "link", link_json(path.mts, path.width));
	add(o, "link_max", link_json(f->link.max_mts, f->link.max_width));
	add(o, "link_now", link_json(f->link.cur_mts, f->link.cur_width));
	add(o, "bars", bars_json(f));
	add(o, "bar_bytes", bytes(pci_func_bar_bytes(f)));
	add(o, "boot_vga", json_object_new_boolean(f->boot_vga));
	add(o, "can_reset", json_object_new_boolean(f->can_reset));
	add(o, "vf", json_object_new_boolean(f->is_vf));
	add(o, "vfs", json_object_new_int((int)f->sriov_vfs));
	add(o, "host_use", text(f->host_use));
	add(o, "bad", text(f->bad));
	add(o, "os_device", text(f->os_name));
	add(o, "vm", text(host_use_device(use, &f->addr)));
	return o;
}

/* Facts that this source does not have: their values above and below mean nothing. */
static struct json_object *gaps_json(const struct topology *t)
{
	struct json_object *a = json_object_new_array();

	for (unsigned int g = 1; g <= GAP_ALL; g <<= 1)
		if (t->gaps & g)
			json_object_array_add(a, json_object_new_string(topology_gap_word((enum topology_gap)g)));
	return a;
}

static struct json_object *nets_json(const struct topology *t)
{
	static const char *const kinds[] = { [HOST_NET_OTHER] = "other", [HOST_NET_TAP] = "tap", [HOST_NET_BRIDGE] = "bridge" };
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < t->n_nets; i++) {
		const struct host_net *n = &t->nets[i];
		bool tap = n->kind == HOST_NET_TAP;
		struct json_object *o = json_object_new_object();

		add(o, "name", text(n->name));
		add(o, "kind", json_object_new_string(kinds[n->kind]));
		add(o, "master", text(n->master));
		add(o, "mtu", number(n->mtu, 0));
		add(o, "up", json_object_new_boolean(n->up));
		add(o, "multi_queue", tap ? json_object_new_boolean(n->multi_queue) : NULL);
		add(o, "persistent", tap ? json_object_new_boolean(n->persistent) : NULL);
		add(o, "in_use", tap ? json_object_new_boolean(n->in_use) : NULL);
		json_object_array_add(a, o);
	}
	return a;
}

struct json_object *topology_to_json(const struct topology *t, const struct host_use *use)
{
	struct json_object *o = json_object_new_object(), *funcs = json_object_new_array();

	add(o, "schema", json_object_new_int(1));
	add(o, "host", text(t->host_name));
	add(o, "root", text(t->root));
	add(o, "machine_id", text(t->machine_id));
	add(o, "kernel", text(t->kernel));
	add(o, "cpu_vendor", text(t->cpu_vendor));
	add(o, "phys_bits", number(t->phys_bits, 0));
	add(o, "iommu_bits", number(t->iommu_bits, 0));
	add(o, "iommu", t->gaps & GAP_GROUPS ? NULL : json_object_new_boolean(t->iommu_groups));
	add(o, "kvm", t->gaps & GAP_DRIVERS ? NULL : json_object_new_boolean(t->kvm));
	add(o, "vfio", t->gaps & GAP_DRIVERS ? NULL : json_object_new_boolean(t->vfio));
	add(o, "vhost_net", t->gaps & GAP_DRIVERS ? NULL : json_object_new_boolean(t->vhost_net));
	add(o, "vhost_vsock", t->gaps & GAP_DRIVERS ? NULL : json_object_new_boolean(t->vhost_vsock));
	add(o, "io_uring", t->gaps & GAP_DRIVERS ? NULL : json_object_new_boolean(t->io_uring));
	add(o, "networks", t->nets_known ? nets_json(t) : NULL);
	add(o, "unknown", gaps_json(t));
	add(o, "sockets", json_object_new_int(t->n_sockets));
	add(o, "allowed_cpus", cpus(&t->allowed));
	add(o, "gpus", json_object_new_int(topology_n_gpus(t)));
	add(o, "nodes", nodes_json(t));
	add(o, "cpus", cpus_json(t));
	for (size_t i = 0; i < t->n_funcs; i++)
		json_object_array_add(funcs, func_json(t, use, (int)i));
	add(o, "functions", funcs);
	return o;
}
