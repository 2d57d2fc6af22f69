/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The plan as JSON: the contract that scripts read, and what a later process reads back about a running VM. */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/plan.h"

#define PLAN_SCHEMA 1

/* --- writing ------------------------------------------------------------------------------------------ */

static void add(struct json_object *o, const char *key, struct json_object *value)
{
	json_object_object_add(o, key, value);
}

static void add_str(struct json_object *o, const char *key, const char *value)
{
	add(o, key, value ? json_object_new_string(value) : NULL);
}

static void add_int(struct json_object *o, const char *key, int64_t value)
{
	add(o, key, json_object_new_int64(value));
}

static void add_u64(struct json_object *o, const char *key, uint64_t value)
{
	add(o, key, json_object_new_uint64(value));
}

static void add_cpus(struct json_object *o, const char *key, const struct cpuset *set)
{
	AUTO_FREE char *text = cpuset_format(set);

	add_str(o, key, text);
}

static void add_bdf(struct json_object *o, const char *key, const struct pci_addr *a)
{
	char bdf[PCI_ADDR_STR];

	add_str(o, key, pci_addr_format(a, bdf));
}

static void add_hex(struct json_object *o, const char *key, unsigned int value, int digits)
{
	char text[16];

	snprintf(text, sizeof(text), "%0*x", digits, value);
	add_str(o, key, text);
}

static struct json_object *strings_json(const struct strv *s)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < s->n; i++)
		json_object_array_add(a, json_object_new_string(s->v[i]));
	return a;
}

static struct json_object *device_json(const struct plan_device *d)
{
	struct json_object *o = json_object_new_object(), *link = json_object_new_object(), *guest = json_object_new_object();

	add_str(o, "id", d->id);
	add_bdf(o, "bdf", &d->addr);
	add_str(o, "role", pci_role_word(d->role));
	add_hex(o, "vendor", d->vendor, 4);
	add_hex(o, "device", d->device, 4);
	add_hex(o, "class", d->class_code, 6);
	add(o, "host_node", d->host_node < 0 ? NULL : json_object_new_int(d->host_node));
	add(o, "iommu_group", d->iommu_group < 0 ? NULL : json_object_new_int(d->iommu_group));
	add_str(o, "driver", d->driver);
	add(o, "host_path", strings_json(&d->host_path));
	if (!cpuset_empty(&d->irq_cpus))
		add_cpus(o, "interrupt_cpus", &d->irq_cpus);
	add(link, "gts", json_object_new_double(d->link.mts / 1000.0));
	add_int(link, "width", d->link.width);
	add(o, "link", link);
	add_u64(o, "bar_bytes", d->bar_bytes);
	if (d->stand_in_bytes)
		add_u64(o, "stand_in_bytes", d->stand_in_bytes);
	add(guest, "node", d->guest_node < 0 ? NULL : json_object_new_int(d->guest_node));
	add_str(guest, "port", d->guest_port);
	add_str(guest, "switch", d->guest_switch);
	add_int(guest, "bus_nr", d->guest_bus_nr);
	add(guest, "clique", d->clique < 0 ? NULL : json_object_new_int(d->clique));
	add(o, "guest", guest);
	return o;
}

static struct json_object *groups_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_groups; i++) {
		struct json_object *o = json_object_new_object(), *ids = json_object_new_array();

		for (size_t k = 0; k < p->groups[i].n_devices; k++)
			json_object_array_add(ids, json_object_new_string(p->devices[p->groups[i].devices[k]].id));
		add_str(o, "switch", p->groups[i].switch_bdf);
		add_str(o, "relation", pci_relation_word(p->groups[i].relation));
		add(o, "devices", ids);
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *relations_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_relations; i++) {
		const struct plan_relation *r = &p->relations[i];
		struct json_object *o = json_object_new_object();

		add_str(o, "a", p->devices[r->a].id);
		add_str(o, "b", p->devices[r->b].id);
		add_str(o, "host", pci_relation_word(r->host));
		add_str(o, "guest", pci_relation_word(r->guest));
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *nodes_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_nodes; i++) {
		const struct plan_node *n = &p->nodes[i];
		struct json_object *o = json_object_new_object();

		add_int(o, "guest_node", n->guest_node);
		add(o, "host_node", n->host_node < 0 ? NULL : json_object_new_int(n->host_node));
		add_u64(o, "memory_bytes", n->memory_bytes);
		add_u64(o, "page_bytes", n->page_bytes);
		add_cpus(o, "host_cpus", &n->host_cpus);
		add_cpus(o, "prealloc_cpus", &n->prealloc_cpus);
		add(o, "prealloc", json_object_new_boolean(n->prealloc));
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *vcpus_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_vcpus; i++) {
		const struct plan_vcpu *v = &p->vcpus[i];
		struct json_object *o = json_object_new_object();

		add_int(o, "vcpu", v->vcpu);
		add(o, "host_cpu", v->host_cpu < 0 ? NULL : json_object_new_int(v->host_cpu));
		add_int(o, "guest_node", v->guest_node);
		add_int(o, "socket", v->socket);
		add_int(o, "core", v->core);
		add_int(o, "thread", v->thread);
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *binds_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_binds; i++) {
		struct json_object *o = json_object_new_object();

		add_bdf(o, "bdf", &p->binds[i].addr);
		add_str(o, "from", p->binds[i].from);
		add_str(o, "to", p->binds[i].to);
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *acs_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_acs; i++) {
		struct json_object *o = json_object_new_object();

		add_bdf(o, "bdf", &p->acs[i].addr);
		add_int(o, "offset", p->acs[i].offset);
		add_hex(o, "from", p->acs[i].from, 4);
		add_hex(o, "to", p->acs[i].to, 4);
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *notes_json(const struct plan_note *v, size_t n, bool warnings)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_new_object();

		add_str(o, warnings ? "code" : "what", warnings ? v[i].code : v[i].what);
		add_str(o, warnings ? "text" : "why", v[i].text);
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *env_json(const struct plan *p)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < p->env.n; i++) {
		const char *eq = strchr(p->env.v[i], '=');
		AUTO_FREE char *key = xstrndup(p->env.v[i], eq ? (size_t)(eq - p->env.v[i]) : strlen(p->env.v[i]));

		add_str(o, key, eq ? eq + 1 : "");
	}
	return o;
}

static struct json_object *iothreads_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_iothreads; i++) {
		struct json_object *o = json_object_new_object();

		add_str(o, "id", p->iothreads[i].id);
		add_cpus(o, "host_cpus", &p->iothreads[i].host_cpus);
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *fabric_json(const struct plan_fabric *f)
{
	struct json_object *o = json_object_new_object(), *ids = json_object_new_array();

	for (int i = 0; i < f->n_ids; i++)
		json_object_array_add(ids, json_object_new_int(f->ids[i]));
	add_str(o, "mode", fabric_mode_word(f->mode));
	add(o, "partition", f->partition < 0 ? NULL : json_object_new_int(f->partition));
	add_str(o, "manager", f->manager);
	add(o, "gpus", ids);
	return o;
}

static struct json_object *taps_json(const struct plan *p)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < p->n_taps; i++) {
		const struct plan_tap *t = &p->taps[i];
		struct json_object *o = json_object_new_object();

		add_str(o, "netdev", t->netdev);
		add_str(o, "ifname", t->ifname);
		add_str(o, "bridge", t->bridge);
		add_str(o, "mac", t->mac);
		add(o, "exists", json_object_new_boolean(t->exists));
		add_int(o, "queues", t->queues);
		add(o, "mtu", t->mtu ? json_object_new_int(t->mtu) : NULL);
		add(o, "vhost", json_object_new_boolean(t->vhost));
		json_object_array_add(a, o);
	}
	return a;
}

/* What a launcher must know that takes over a running VM. */
static struct json_object *lifecycle_json(const struct plan *p)
{
	struct json_object *o = json_object_new_object();

	add_u64(o, "stop_timeout_ms", p->stop_timeout_ms);
	add_u64(o, "ready_timeout_ms", p->ready_timeout_ms);
	add_str(o, "on_reboot", p->on_reboot == REBOOT_STOP ? "stop" : "reset");
	add_str(o, "on_crash", p->on_crash == CRASH_RESTART ? "restart" : "stop");
	add_str(o, "on_launcher_death", p->on_launcher_death == DEATH_STOP ? "stop" : "keep");
	return o;
}

static struct json_object *hooks_json(const struct plan_hooks *h)
{
	struct json_object *o = json_object_new_object();

	add_str(o, "pre_bind", h->pre_bind);
	add_str(o, "post_start", h->post_start);
	add_str(o, "post_stop", h->post_stop);
	add_u64(o, "timeout_ms", h->timeout_ms);
	return o;
}

struct json_object *plan_to_json(const struct plan *p)
{
	struct json_object *o = json_object_new_object(), *qemu = json_object_new_object(), *devices = json_object_new_array();
	struct strv argv = { 0 };

	add_str(o, "vm", p->vm);
	add_int(o, "schema", PLAN_SCHEMA);
	add_str(qemu, "binary", p->qemu_binary);
	add_str(qemu, "version", p->qemu_version);
	add(o, "qemu", qemu);
	plan_argv(p, NULL, &argv);
	add(o, "argv", strings_json(&argv));
	strv_clear(&argv);
	add(o, "env", env_json(p));
	for (size_t i = 0; i < p->n_devices; i++)
		json_object_array_add(devices, device_json(&p->devices[i]));
	add(o, "devices", devices);
	add(o, "groups", groups_json(p));
	add(o, "relations", relations_json(p));
	add(o, "nodes", nodes_json(p));
	add(o, "vcpus", vcpus_json(p));
	add_cpus(o, "housekeeping_cpus", &p->housekeeping);
	add_cpus(o, "emulator_cpus", &p->emulator);
	add(o, "iothreads", iothreads_json(p));
	add_u64(o, "mmio64_bytes", p->mmio64_bytes);
	add_int(o, "address_bits", p->address_bits);
	add(o, "fabric", fabric_json(&p->fabric));
	add(o, "taps", taps_json(p));
	add_int(o, "vsock", p->vsock);
	add(o, "lifecycle", lifecycle_json(p));
	add(o, "hooks", hooks_json(&p->hooks));
	add(o, "bind", binds_json(p));
	add(o, "acs", acs_json(p));
	add(o, "warnings", notes_json(p->warnings, p->n_warnings, true));
	add(o, "reasons", notes_json(p->reasons, p->n_reasons, false));
	add_str(o, "accel", p->accel);
	add(o, "fake_devices", json_object_new_boolean(p->fake_devices));
	add(o, "foreign_host", json_object_new_boolean(p->foreign_host));
	return o;
}

/* --- reading back ---------------------------------------------------------------------------------------- */

/* Only what we wrote ourselves is read, but a damaged file must end in an error and not in a wrong answer. */
struct reader {
	bool bad;
	const char *what;
};

static struct json_object *get(struct reader *r, struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	if (json_object_object_get_ex(o, key, &v) && v && json_object_is_type(v, type))
		return v;
	r->bad = true;
	r->what = key;
	return NULL;
}

static char *get_str(struct reader *r, struct json_object *o, const char *key)
{
	struct json_object *v = get(r, o, key, json_type_string);

	return xstrdup(v ? json_object_get_string(v) : "");
}

/* A string or null. */
static char *get_str_or_null(struct reader *r, struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	if (json_object_object_get_ex(o, key, &v) && !v)
		return NULL;
	return get_str(r, o, key);
}

static int64_t get_int(struct reader *r, struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	/* null stands for "none": -1. */
	if (json_object_object_get_ex(o, key, &v) && !v)
		return -1;
	v = get(r, o, key, json_type_int);
	return v ? json_object_get_int64(v) : 0;
}

static void get_cpus(struct reader *r, struct json_object *o, const char *key, struct cpuset *ret)
{
	AUTO_FREE char *text = get_str(r, o, key);

	if (cpuset_parse(text, ret) < 0) {
		r->bad = true;
		r->what = key;
	}
}

static void get_bdf(struct reader *r, struct json_object *o, const char *key, struct pci_addr *ret)
{
	AUTO_FREE char *text = get_str(r, o, key);

	if (parse_pci_addr(text, ret) < 0) {
		r->bad = true;
		r->what = key;
	}
}

static enum pci_role role_from_word(const char *word)
{
	/* From the end: "bridge" is also the word for PCI bridges, which no VM has. */
	for (int i = ROLE_FABRIC; i >= ROLE_OTHER; i--)
		if (strcmp(pci_role_word((enum pci_role)i), word) == 0)
			return (enum pci_role)i;
	return ROLE_OTHER;
}

static void read_device(struct reader *r, struct json_object *o, struct plan_device *d)
{
	struct json_object *guest = get(r, o, "guest", json_type_object);
	AUTO_FREE char *role = get_str(r, o, "role");

	d->id = get_str(r, o, "id");
	d->func = -1;
	d->clique = -1;
	get_bdf(r, o, "bdf", &d->addr);
	d->role = role_from_word(role);
	d->host_node = (int)get_int(r, o, "host_node");
	d->iommu_group = (int)get_int(r, o, "iommu_group");
	d->driver = get_str_or_null(r, o, "driver");
	d->bar_bytes = (uint64_t)get_int(r, o, "bar_bytes");
	if (json_object_object_get_ex(o, "interrupt_cpus", NULL))
		get_cpus(r, o, "interrupt_cpus", &d->irq_cpus);
	if (!guest)
		return;
	d->guest_node = (int)get_int(r, guest, "node");
	d->guest_port = get_str(r, guest, "port");
	d->guest_switch = get_str_or_null(r, guest, "switch");
	d->guest_bus_nr = (int)get_int(r, guest, "bus_nr");
	d->clique = (int)get_int(r, guest, "clique");
}

static void read_node(struct reader *r, struct json_object *o, struct plan_node *n)
{
	n->guest_node = (int)get_int(r, o, "guest_node");
	n->host_node = (int)get_int(r, o, "host_node");
	n->memory_bytes = (uint64_t)get_int(r, o, "memory_bytes");
	n->page_bytes = (uint64_t)get_int(r, o, "page_bytes");
	get_cpus(r, o, "host_cpus", &n->host_cpus);
	get_cpus(r, o, "prealloc_cpus", &n->prealloc_cpus);
	n->prealloc = json_object_get_boolean(get(r, o, "prealloc", json_type_boolean));
}

static void read_vcpu(struct reader *r, struct json_object *o, struct plan_vcpu *v)
{
	v->vcpu = (int)get_int(r, o, "vcpu");
	v->host_cpu = (int)get_int(r, o, "host_cpu");
	v->guest_node = (int)get_int(r, o, "guest_node");
	v->socket = (int)get_int(r, o, "socket");
	v->core = (int)get_int(r, o, "core");
	v->thread = (int)get_int(r, o, "thread");
}

static void read_bind(struct reader *r, struct json_object *o, struct plan_bind *b)
{
	get_bdf(r, o, "bdf", &b->addr);
	b->from = get_str_or_null(r, o, "from");
	b->to = get_str(r, o, "to");
}

static void read_acs(struct reader *r, struct json_object *o, struct plan_acs *a)
{
	AUTO_FREE char *from = get_str(r, o, "from"), *to = get_str(r, o, "to");
	uint64_t v[2] = { 0 };

	get_bdf(r, o, "bdf", &a->addr);
	a->offset = (unsigned int)get_int(r, o, "offset");
	if (parse_hex(from, UINT16_MAX, &v[0]) < 0 || parse_hex(to, UINT16_MAX, &v[1]) < 0 || a->offset > 4094) {
		r->bad = true;
		r->what = "acs";
	}
	a->from = (uint16_t)v[0];
	a->to = (uint16_t)v[1];
}

static void read_iothread(struct reader *r, struct json_object *o, struct plan_iothread *io)
{
	io->id = get_str(r, o, "id");
	get_cpus(r, o, "host_cpus", &io->host_cpus);
}

static void read_fabric(struct reader *r, struct json_object *o, struct plan_fabric *f)
{
	AUTO_FREE char *mode = get_str(r, o, "mode");
	struct json_object *ids = get(r, o, "gpus", json_type_array);

	if (fabric_mode_parse(mode, &f->mode) < 0) {
		r->bad = true;
		r->what = "mode";
	}
	f->partition = (int)get_int(r, o, "partition");
	/* Plans of before do not have it. */
	if (json_object_object_get(o, "manager"))
		f->manager = get_str(r, o, "manager");
	for (size_t i = 0; ids && i < json_object_array_length(ids) && i < ARRAY_SIZE(f->ids); i++)
		f->ids[f->n_ids++] = json_object_get_int(json_object_array_get_idx(ids, i));
}

static void read_tap(struct reader *r, struct json_object *o, struct plan_tap *t)
{
	t->netdev = get_str(r, o, "netdev");
	t->ifname = get_str(r, o, "ifname");
	t->bridge = get_str_or_null(r, o, "bridge");
	t->mac = get_str_or_null(r, o, "mac");
	t->exists = json_object_get_boolean(get(r, o, "exists", json_type_boolean));
	t->queues = (int)get_int(r, o, "queues");
	t->mtu = (int)get_int(r, o, "mtu");
	t->mtu = t->mtu < 0 ? 0 : t->mtu;
	t->vhost = json_object_get_boolean(get(r, o, "vhost", json_type_boolean));
}

/* True for @yes, false for @no; anything else is a damaged file. */
static bool get_choice(struct reader *r, struct json_object *o, const char *key, const char *yes, const char *no)
{
	AUTO_FREE char *word = get_str(r, o, key);

	if (strcmp(word, yes) == 0)
		return true;
	if (strcmp(word, no) != 0) {
		r->bad = true;
		r->what = key;
	}
	return false;
}

static void read_life(struct reader *r, struct json_object *o, struct plan *p)
{
	struct json_object *life = get(r, o, "lifecycle", json_type_object), *hooks = get(r, o, "hooks", json_type_object);

	if (!life || !hooks)
		return;
	p->stop_timeout_ms = (uint64_t)get_int(r, life, "stop_timeout_ms");
	p->ready_timeout_ms = (uint64_t)get_int(r, life, "ready_timeout_ms");
	p->on_reboot = get_choice(r, life, "on_reboot", "stop", "reset") ? REBOOT_STOP : REBOOT_RESET;
	p->on_crash = get_choice(r, life, "on_crash", "restart", "stop") ? CRASH_RESTART : CRASH_STOP;
	p->on_launcher_death = get_choice(r, life, "on_launcher_death", "stop", "keep") ? DEATH_STOP : DEATH_KEEP;
	p->hooks.pre_bind = get_str_or_null(r, hooks, "pre_bind");
	p->hooks.post_start = get_str_or_null(r, hooks, "post_start");
	p->hooks.post_stop = get_str_or_null(r, hooks, "post_stop");
	p->hooks.timeout_ms = (uint64_t)get_int(r, hooks, "timeout_ms");
}

/* Read each object of the array @key with @read_fn into the growing vector v of n. */
#define READ_ARRAY(r, o, key, v, n, read_fn)                                                  \
	do {                                                                                  \
		struct json_object *arr_ = get((r), (o), (key), json_type_array);             \
		for (size_t i_ = 0; arr_ && i_ < json_object_array_length(arr_); i_++)        \
			read_fn((r), json_object_array_get_idx(arr_, i_), PUSH_ZEROED(v, n)); \
	} while (0)

int plan_from_json(struct json_object *o, struct plan *ret, struct err *e)
{
	struct reader r = { 0 };
	struct plan p = { 0 };
	struct json_object *qemu = get(&r, o, "qemu", json_type_object), *fabric = get(&r, o, "fabric", json_type_object);

	if (!r.bad && get_int(&r, o, "schema") != PLAN_SCHEMA)
		return err_set(e, -EPROTO, "plan: schema %d is not %d, the one that this program knows", (int)get_int(&r, o, "schema"), PLAN_SCHEMA);
	p.vm = get_str(&r, o, "vm");
	if (qemu) {
		p.qemu_binary = get_str(&r, qemu, "binary");
		p.qemu_version = get_str(&r, qemu, "version");
	}
	p.accel = get_str(&r, o, "accel");
	READ_ARRAY(&r, o, "devices", p.devices, p.n_devices, read_device);
	READ_ARRAY(&r, o, "nodes", p.nodes, p.n_nodes, read_node);
	READ_ARRAY(&r, o, "vcpus", p.vcpus, p.n_vcpus, read_vcpu);
	READ_ARRAY(&r, o, "bind", p.binds, p.n_binds, read_bind);
	if (json_object_object_get_ex(o, "acs", NULL)) /* plans of earlier versions have none */
		READ_ARRAY(&r, o, "acs", p.acs, p.n_acs, read_acs);
	READ_ARRAY(&r, o, "iothreads", p.iothreads, p.n_iothreads, read_iothread);
	READ_ARRAY(&r, o, "taps", p.taps, p.n_taps, read_tap);
	p.vsock = (uint32_t)get_int(&r, o, "vsock");
	read_life(&r, o, &p);
	get_cpus(&r, o, "housekeeping_cpus", &p.housekeeping);
	get_cpus(&r, o, "emulator_cpus", &p.emulator);
	p.mmio64_bytes = (uint64_t)get_int(&r, o, "mmio64_bytes");
	if (fabric)
		read_fabric(&r, fabric, &p.fabric);
	p.address_bits = (int)get_int(&r, o, "address_bits");
	p.fake_devices = json_object_get_boolean(get(&r, o, "fake_devices", json_type_boolean));
	p.foreign_host = json_object_get_boolean(get(&r, o, "foreign_host", json_type_boolean));
	if (r.bad) {
		plan_clear(&p);
		return err_set(e, -EPROTO, "plan: '%s' is missing or of the wrong type", r.what);
	}
	*ret = p;
	return 0;
}
