/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command of a plan, read as QEMU reads it; bus numbers as firmware gives them out. */
#include <json-c/json.h>
#include <string.h>

#include "property.h"

#define MAX_DEVS 1024

/* "driver,key=value,..." taken apart. */
struct option {
	const char *flag;
	struct strv kv;
	bool json;
};

struct command {
	const struct trial *t;
	const struct plan *p;
	struct option *v;
	size_t n;
};

/* Commas are doubled inside values. */
static void cut(const char *value, struct option *o)
{
	AUTO_FREE char *piece = xcalloc(strlen(value) + 1, 1);
	size_t len = 0;

	for (const char *s = value;; s++) {
		if (s[0] == ',' && s[1] == ',') {
			piece[len++] = *s++;
		} else if (*s == ',' || !*s) {
			piece[len] = '\0';
			strv_push(&o->kv, piece);
			len = 0;
			if (!*s)
				return;
		} else {
			piece[len++] = *s;
		}
	}
}

/* The same of what is written in JSON; booleans as "on" and "off", lists as they are. */
static void cut_json(const char *value, struct option *o)
{
	struct json_object *j = json_tokener_parse(value), *driver = NULL;

	json_object_object_get_ex(j, "driver", &driver);
	strv_push(&o->kv, driver ? json_object_get_string(driver) : "");
	json_object_object_foreach(j, key, v) {
		bool flag = json_object_is_type(v, json_type_boolean);

		strv_pushf(&o->kv, "%s=%s", key, flag ? (json_object_get_boolean(v) ? "on" : "off") : json_object_get_string(v));
	}
	json_object_put(j);
}

static const char *get(const struct option *o, const char *key)
{
	size_t n = strlen(key);

	for (size_t i = 0; i < o->kv.n; i++)
		if (strncmp(o->kv.v[i], key, n) == 0 && o->kv.v[i][n] == '=')
			return o->kv.v[i] + n + 1;
	return NULL;
}

static uint64_t number(const struct command *c, const struct option *o, const char *key)
{
	const char *v = get(o, key);
	char *end = NULL;
	uint64_t n;

	CHECK(c->t, v, "%s %s has no %s", o->flag, o->kv.v[0], key);
	n = strtoull(v, &end, 0);
	CHECK(c->t, end && (!*end || *end == 'k'), "%s: %s=%s is no number", o->kv.v[0], key, v);
	return *end == 'k' ? n * 1024 : n;
}

static bool is(const struct option *o, const char *flag, const char *driver)
{
	return strcmp(o->flag, flag) == 0 && (!driver || strcmp(o->kv.v[0], driver) == 0);
}

/* All but those on a bus of a device of ours, and those on none. */
static bool is_pci(const struct option *o)
{
	static const char *const others[] = { "scsi-hd", "scsi-cd", "virtserialport", "pvpanic", "tpm-crb" };

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (is(o, "-device", others[i]))
			return false;
	return is(o, "-device", NULL);
}

static bool is_port(const struct option *o)
{
	return is(o, "-device", "pcie-root-port") || is(o, "-device", "x3130-upstream") ||
	       is(o, "-device", "xio3130-downstream");
}

static const struct option *by_id(const struct command *c, const char *id)
{
	for (size_t i = 0; i < c->n; i++)
		if (is(&c->v[i], "-device", NULL) && get(&c->v[i], "id") && strcmp(get(&c->v[i], "id"), id) == 0)
			return &c->v[i];
	return NULL;
}

/* --- ids ------------------------------------------------------------------------------------------------ */

static void check_ids(const struct command *c)
{
	for (size_t i = 0; i < c->n; i++) {
		const char *id = get(&c->v[i], "id");

		if (is(&c->v[i], "-device", NULL) || is(&c->v[i], "-object", NULL))
			CHECK(c->t, id && *id, "%s %s has no id", c->v[i].flag, c->v[i].kv.v[0]);
		for (size_t k = 0; id && k < i; k++)
			CHECK(c->t, !get(&c->v[k], "id") || strcmp(get(&c->v[k], "id"), id), "the id %s is there twice",
			      id);
	}
}

static int count_devices(const struct command *c, const char *id)
{
	int n = 0;

	for (size_t i = 0; i < c->n; i++)
		n += is(&c->v[i], "-device", "vfio-pci") && strcmp(get(&c->v[i], "id"), id) == 0;
	return n;
}

static void check_passed(const struct command *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		n += is(&c->v[i], "-device", "vfio-pci");
	CHECK(c->t, n == c->p->n_devices, "%zu vfio-pci for %zu devices", n, c->p->n_devices);
	for (size_t i = 0; i < c->p->n_devices; i++) {
		const struct plan_device *d = &c->p->devices[i];
		const struct option *o = by_id(c, d->id);
		char bdf[PCI_ADDR_STR];

		CHECK(c->t, count_devices(c, d->id) == 1, "device %s is not there exactly once", d->id);
		CHECK(c->t, !strcmp(get(o, "host"), pci_addr_format(&d->addr, bdf)), "%s is not %s", d->id, bdf);
		CHECK(c->t, !strcmp(get(o, "bus"), d->guest_port), "%s is not on %s", d->id, d->guest_port);
	}
}

/* --- where things are plugged -------------------------------------------------------------------------- */

/* "0x8.0x1" as slot * 8 + function. */
static int place(const struct command *c, const struct option *o)
{
	const char *a = get(o, "addr");
	unsigned int slot, fn = 0;

	CHECK(c->t, a && sscanf(a, "0x%x.0x%x", &slot, &fn) >= 1, "%s has no addr", get(o, "id"));
	CHECK(c->t, slot < 32 && fn < 8, "addr=%s of %s does not exist", a, get(o, "id"));
	return (int)(slot * 8 + fn);
}

static void check_parent(const struct command *c, const struct option *o)
{
	const char *bus = get(o, "bus"), *id = get(o, "id");
	const struct option *parent;

	if (strcmp(bus, "pcie.0") == 0) {
		/* 0 is the host bridge, 0x1f the ISA bridge with its SATA and SMBus. */
		CHECK(c->t, place(c, o) / 8 != 0 && place(c, o) / 8 != 0x1f, "%s takes the place of the chipset", id);
		CHECK(c->t, !is(o, "-device", "vfio-pci") && !is(o, "-device", "x3130-upstream"),
		      "%s is on pcie.0 itself", id);
		return;
	}
	parent = by_id(c, bus);
	CHECK(c->t, parent && parent < o, "%s is plugged into %s, which is not there before", id, bus);
	if (is(o, "-device", "pcie-root-port"))
		CHECK(c->t, is(parent, "-device", "pxb-pcie"), "root port %s is on %s", id, parent->kv.v[0]);
	else if (is(o, "-device", "x3130-upstream"))
		CHECK(c->t, is(parent, "-device", "pcie-root-port") || is(parent, "-device", "xio3130-downstream"),
		      "%s is on %s", id, parent->kv.v[0]);
	else if (is(o, "-device", "xio3130-downstream"))
		CHECK(c->t, is(parent, "-device", "x3130-upstream"), "%s is on %s", id, parent->kv.v[0]);
	else
		CHECK(c->t, is(parent, "-device", "pcie-root-port") || is(parent, "-device", "xio3130-downstream"),
		      "%s is on %s", id, parent->kv.v[0]);
	/* A port has one device number below it. */
	if (!is(parent, "-device", "pxb-pcie") && !is(parent, "-device", "x3130-upstream"))
		CHECK(c->t, place(c, o) == 0, "%s is not device 0 of port %s", id, bus);
}

static bool function_zero(const struct command *c, const char *bus, int slot)
{
	for (size_t i = 0; i < c->n; i++)
		if (is_pci(&c->v[i]) && strcmp(get(&c->v[i], "bus"), bus) == 0 && place(c, &c->v[i]) == slot * 8)
			return get(&c->v[i], "multifunction") && strcmp(get(&c->v[i], "multifunction"), "on") == 0;
	return false;
}

static void check_places(const struct command *c)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct option *o = &c->v[i];

		if (!is_pci(o))
			continue;
		CHECK(c->t, get(o, "bus"), "%s has no bus", get(o, "id"));
		check_parent(c, o);
		for (size_t k = 0; k < i; k++)
			if (is_pci(&c->v[k]) && strcmp(get(&c->v[k], "bus"), get(o, "bus")) == 0)
				CHECK(c->t, place(c, &c->v[k]) != place(c, o), "%s and %s are both at %s", get(o, "id"),
				      get(&c->v[k], "id"), get(o, "addr"));
		if (place(c, o) % 8)
			CHECK(c->t, function_zero(c, get(o, "bus"), place(c, o) / 8),
			      "%s is a function of a slot without function 0", get(o, "id"));
	}
}

static bool has_chassis(const struct option *o)
{
	return is(o, "-device", "pcie-root-port") || is(o, "-device", "xio3130-downstream");
}

static void check_chassis(const struct command *c)
{
	for (size_t i = 0; i < c->n; i++) {
		if (!has_chassis(&c->v[i]))
			continue;
		CHECK(c->t, number(c, &c->v[i], "chassis") <= 255, "%s: chassis has 8 bits", get(&c->v[i], "id"));
		CHECK(c->t, !strcmp(get(&c->v[i], "hotplug"), "off"), "%s has hotplug", get(&c->v[i], "id"));
		for (size_t k = 0; k < i; k++)
			CHECK(c->t,
			      !has_chassis(&c->v[k]) ||
				      number(c, &c->v[i], "chassis") != number(c, &c->v[k], "chassis") ||
				      number(c, &c->v[i], "slot") != number(c, &c->v[k], "slot"),
			      "%s and %s have the same chassis and slot", get(&c->v[i], "id"), get(&c->v[k], "id"));
	}
}

/* --- bus numbers ---------------------------------------------------------------------------------------- */

static const struct plan_port *planned_port(const struct command *c, const char *id)
{
	for (size_t i = 0; i < c->p->n_ports; i++)
		if (strcmp(c->p->ports[i].id, id) == 0)
			return &c->p->ports[i];
	CHECK(c->t, false, "port %s is not in the plan", id);
}

static void check_bus_of(const struct command *c, const char *port, int bus)
{
	CHECK(c->t, planned_port(c, port)->bus_nr == bus, "below %s is bus %d, firmware makes it %d", port,
	      planned_port(c, port)->bus_nr, bus);
	for (size_t i = 0; i < c->p->n_devices; i++)
		if (strcmp(c->p->devices[i].guest_port, port) == 0)
			CHECK(c->t, c->p->devices[i].guest_bus_nr == bus,
			      "%s is predicted on bus %d, firmware makes it %d", c->p->devices[i].id,
			      c->p->devices[i].guest_bus_nr, bus);
}

/* Firmware: by device number, depth first, a number for each port. Returns the last one given out. */
static int enumerate(const struct command *c, const char *bus, int last)
{
	for (int at = 0; at < 256; at++) {
		for (size_t i = 0; i < c->n; i++) {
			if (!is_port(&c->v[i]) || strcmp(get(&c->v[i], "bus"), bus) || place(c, &c->v[i]) != at)
				continue;
			last++;
			check_bus_of(c, get(&c->v[i], "id"), last);
			last = enumerate(c, get(&c->v[i], "id"), last);
		}
	}
	return last;
}

static void check_buses(const struct command *c)
{
	int last = enumerate(c, "pcie.0", 0), end[256] = { 0 };

	CHECK(c->t, last <= 255, "pcie.0 reaches bus %d", last);
	for (int i = 0; i <= last; i++)
		end[i] = 1;
	for (size_t i = 0; i < c->n; i++) {
		int first, to;

		if (!is(&c->v[i], "-device", "pxb-pcie"))
			continue;
		first = (int)number(c, &c->v[i], "bus_nr");
		CHECK(c->t, first == planned_port(c, get(&c->v[i], "id"))->bus_nr, "%s is not at its bus",
		      get(&c->v[i], "id"));
		to = enumerate(c, get(&c->v[i], "id"), first);
		CHECK(c->t, first >= 1 && to <= 255, "%s reaches bus %d", get(&c->v[i], "id"), to);
		for (int b = first; b <= to; b++)
			CHECK(c->t, !end[b]++, "bus %d is given out twice", b);
		CHECK(c->t, number(c, &c->v[i], "numa_node") < c->p->n_nodes, "%s is on a node that is not there",
		      get(&c->v[i], "id"));
	}
}

/* --- CPUs and memory -------------------------------------------------------------------------------------- */

static void check_smp(const struct command *c)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct option *o = &c->v[i];
		uint64_t n = c->p->n_vcpus;

		if (!is(o, "-smp", NULL))
			continue;
		CHECK(c->t, number(c, o, "cpus") == n && number(c, o, "maxcpus") == n, "-smp has not %zu CPUs",
		      c->p->n_vcpus);
		CHECK(c->t, number(c, o, "sockets") * number(c, o, "cores") * number(c, o, "threads") == n,
		      "-smp: the product is not %zu", c->p->n_vcpus);
		return;
	}
	CHECK(c->t, false, "no -smp");
}

/* Every vCPU on exactly one node. */
static void check_numa_cpus(const struct command *c)
{
	struct cpuset seen = { 0 };

	for (size_t i = 0; i < c->n; i++) {
		const struct option *o = &c->v[i];

		for (size_t k = 0; is(o, "-numa", "node") && k < o->kv.n; k++) {
			struct cpuset part = { 0 };

			if (strncmp(o->kv.v[k], "cpus=", 5) != 0)
				continue;
			CHECK(c->t, cpuset_parse(o->kv.v[k] + 5, &part) == 0 && !cpuset_intersects(&part, &seen),
			      "-numa %s", o->kv.v[k]);
			cpuset_or(&seen, &part);
			cpuset_for_each (cpu, &part)
				CHECK(c->t,
				      cpu < (int)c->p->n_vcpus &&
					      c->p->vcpus[cpu].guest_node == (int)number(c, o, "nodeid"),
				      "vCPU %d is on another node", cpu);
		}
	}
	CHECK(c->t, cpuset_count(&seen) == (int)c->p->n_vcpus, "-numa: not every vCPU has a node");
}

static void check_backend(const struct command *c, const struct option *node)
{
	int n = 0;

	for (size_t i = 0; i < c->n; i++)
		n += is(&c->v[i], "-object", NULL) && !strcmp(get(&c->v[i], "id"), get(node, "memdev")) &&
		     get(&c->v[i], "size");
	CHECK(c->t, n == 1, "memdev %s of a node is there %d times", get(node, "memdev"), n);
}

static void check_memory(const struct command *c)
{
	uint64_t size = 0, sum = 0;
	size_t nodes = 0, backends = 0;

	for (size_t i = 0; i < c->n; i++) {
		const struct option *o = &c->v[i];

		if (is(o, "-m", NULL)) {
			size = number(c, o, "size");
		} else if (is(o, "-object", "memory-backend-memfd") || is(o, "-object", "memory-backend-ram")) {
			sum += number(c, o, "size");
			backends++;
		} else if (is(o, "-numa", "node")) {
			CHECK(c->t, number(c, o, "nodeid") == nodes++, "the guest's nodes are not in order");
			check_backend(c, o);
		} else if (is(o, "-object", "thread-context")) {
			int node = topology_find_node(&c->t->host, (int)number(c, o, "node-affinity"));

			/* QEMU: "The nodes select no CPUs". */
			CHECK(c->t, !cpuset_empty(&c->t->host.nodes[node].cpus),
			      "thread-context on node %s, which has no CPU", get(o, "node-affinity"));
		}
	}
	CHECK(c->t, size && size == sum, "-m is %llu, the nodes have %llu", (unsigned long long)size,
	      (unsigned long long)sum);
	CHECK(c->t, nodes == c->p->n_nodes && backends == nodes, "%zu nodes, %zu backends for %zu nodes", nodes,
	      backends, c->p->n_nodes);
}

/* --- networks ------------------------------------------------------------------------------------------- */

static const struct option *nic_of(const struct command *c, const char *netdev)
{
	for (size_t i = 0; i < c->n; i++)
		if (is(&c->v[i], "-device", "virtio-net-pci") && strcmp(get(&c->v[i], "netdev"), netdev) == 0)
			return &c->v[i];
	CHECK(c->t, false, "no NIC for %s", netdev);
}

static void check_nets(const struct command *c)
{
	size_t taps = 0;

	for (size_t i = 0; i < c->n; i++) {
		const struct option *o = &c->v[i], *nic;
		uint64_t queues;

		if (!is(o, "-netdev", NULL))
			continue;
		nic = nic_of(c, get(o, "id"));
		queues = get(o, "queues") ? number(c, o, "queues") : 1;
		CHECK(c->t, (queues > 1) == (get(nic, "mq") != NULL) && queues <= 256, "%s has %d queues", get(o, "id"), (int)queues);
		CHECK(c->t, queues == 1 || number(c, nic, "vectors") == 2 * queues + 2, "%s has not a vector for each queue and two", get(o, "id"));
		if (!is(o, "-netdev", "tap"))
			continue;
		CHECK(c->t, strlen(get(o, "ifname")) < 16, "%s is too long for an interface", get(o, "ifname"));
		for (size_t k = 0; k < i; k++)
			CHECK(c->t, !is(&c->v[k], "-netdev", "tap") || strcmp(get(&c->v[k], "ifname"), get(o, "ifname")), "%s is there twice",
			      get(o, "ifname"));
		CHECK(c->t, strcmp(get(o, "vhost"), "on") || c->t->host.vhost_net, "vhost without /dev/vhost-net");
		taps++;
	}
	CHECK(c->t, taps == c->p->n_taps, "%zu taps in the command, %zu in the plan", taps, c->p->n_taps);
}

/* --- disks ------------------------------------------------------------------------------------------------ */

static const struct plan_iothread *planned_thread(const struct command *c, const char *id)
{
	for (size_t i = 0; i < c->p->n_iothreads; i++)
		if (strcmp(c->p->iothreads[i].id, id) == 0)
			return &c->p->iothreads[i];
	CHECK(c->t, false, "I/O thread %s is not in the plan", id);
}

/* Each queue is given to one thread that is there. */
static void check_map(const struct command *c, const struct option *o, uint64_t queues)
{
	struct json_object *map = json_tokener_parse(get(o, "iothread-vq-mapping")), *id = NULL, *vqs = NULL;
	struct cpuset seen = { 0 };

	CHECK(c->t, o->json && json_object_array_length(map) > 1, "%s: a map of one", get(o, "id"));
	for (size_t i = 0; i < json_object_array_length(map); i++) {
		json_object_object_get_ex(json_object_array_get_idx(map, i), "iothread", &id);
		json_object_object_get_ex(json_object_array_get_idx(map, i), "vqs", &vqs);
		planned_thread(c, json_object_get_string(id));
		CHECK(c->t, json_object_array_length(vqs) > 0, "%s: %s has no queue", get(o, "id"), json_object_get_string(id));
		for (size_t k = 0; k < json_object_array_length(vqs); k++) {
			int q = json_object_get_int(json_object_array_get_idx(vqs, k));

			CHECK(c->t, !cpuset_has(&seen, q), "%s: queue %d is given out twice", get(o, "id"), q);
			cpuset_add(&seen, q);
		}
	}
	CHECK(c->t, cpuset_count(&seen) == (int)queues && !cpuset_has(&seen, (int)queues), "%s: %d of %d queues are served", get(o, "id"),
	      cpuset_count(&seen), (int)queues);
	json_object_put(map);
}

static void check_server(const struct command *c, const struct option *o)
{
	bool blk = is(o, "-device", "virtio-blk-pci");
	uint64_t queues = number(c, o, blk ? "num-queues" : "num_queues");
	enum qemu_feature mapping = blk ? QF_BLK_VQ_MAPPING : QF_SCSI_VQ_MAPPING;

	CHECK(c->t, queues >= 1 && queues <= 1024, "%s has %d queues", get(o, "id"), (int)queues);
	if (get(o, "iothread"))
		planned_thread(c, get(o, "iothread"));
	if (!get(o, "iothread-vq-mapping"))
		return;
	CHECK(c->t, qemu_has(&c->t->qemu, mapping) && !get(o, "iothread"), "%s: this QEMU cannot do that", get(o, "id"));
	check_map(c, o, queues);
}

/* What is plugged into a device of ours is behind it, also in the order of QEMU, which makes devices in JSON last. */
static void check_plugged(const struct command *c, const struct option *o)
{
	AUTO_FREE char *id = xstrndup(get(o, "bus"), strcspn(get(o, "bus"), "."));
	const struct option *parent = by_id(c, id);

	CHECK(c->t, parent && parent < o && (o->json || !parent->json), "%s is plugged into %s, which is not there before", get(o, "id"), id);
}

static void check_disks(const struct command *c)
{
	size_t threads = 0;

	for (size_t i = 0; i < c->n; i++) {
		const struct option *o = &c->v[i];

		threads += is(o, "-object", "iothread");
		if (is(o, "-device", "virtio-blk-pci") || is(o, "-device", "virtio-scsi-pci"))
			check_server(c, o);
		if (is(o, "-device", NULL) && !is_pci(o) && get(o, "bus"))
			check_plugged(c, o);
		for (size_t k = 0; get(o, "bootindex") && k < i; k++)
			CHECK(c->t, !get(&c->v[k], "bootindex") || strcmp(get(&c->v[k], "bootindex"), get(o, "bootindex")), "bootindex %s is there twice",
			      get(o, "bootindex"));
	}
	CHECK(c->t, threads == c->p->n_iothreads, "%zu I/O threads in the command, %zu in the plan", threads, c->p->n_iothreads);
	for (size_t i = 0; i < c->p->n_iothreads; i++)
		CHECK(c->t, !cpuset_empty(&c->p->iothreads[i].host_cpus) && cpuset_subset(&c->p->iothreads[i].host_cpus, &c->p->housekeeping),
		      "%s is not on the CPUs kept for the host", c->p->iothreads[i].id);
}

void property_check_argv(const struct trial *t, const struct plan *p)
{
	struct command c = { .t = t, .p = p, .v = xcalloc(p->n_args, sizeof(*c.v)), .n = p->n_args };

	CHECK(t, p->n_args < MAX_DEVS, "%zu options", p->n_args);
	for (size_t i = 0; i < p->n_args; i++) {
		c.v[i].flag = p->args[i].flag;
		c.v[i].json = p->args[i].value && p->args[i].value[0] == '{';
		if (c.v[i].json)
			cut_json(p->args[i].value, &c.v[i]);
		else
			cut(p->args[i].value ? p->args[i].value : "", &c.v[i]);
	}
	check_ids(&c);
	check_passed(&c);
	check_places(&c);
	check_chassis(&c);
	check_buses(&c);
	check_smp(&c);
	check_numa_cpus(&c);
	check_memory(&c);
	check_nets(&c);
	check_disks(&c);
	for (size_t i = 0; i < c.n; i++)
		strv_clear(&c.v[i].kv);
	free(c.v);
}
