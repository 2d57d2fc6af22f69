/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "gpuvm/affinity.h"
#include "gpuvm/claim.h"
#include "gpuvm/events.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/seed.h"
#include "gpuvm/spawn.h"
#include "gpuvm/trust.h"

#define CLAIM_FILE    "claim.json"
#define LAST_FILE     "last.json"
#define LAST_SCHEMA   1
#define BUSY_PAUSE_MS 20
#define CLAIM_MAX     (4 << 20) /* bytes; 64 devices need 10 KiB */

/* --- memory ----------------------------------------------------------------------------------------- */

static void free_device(struct claim_device *d)
{
	free(d->from);
	free(d->override);
	free(d->to);
	free(d->id);
}

void claim_clear(struct claim *c)
{
	for (size_t i = 0; i < c->n_devices; i++)
		free_device(&c->devices[i]);
	free(c->devices);
	for (size_t i = 0; i < c->n_helpers; i++)
		free(c->helpers[i].name);
	free(c->helpers);
	for (size_t i = 0; i < c->n_owned; i++)
		free(c->owned[i].path);
	free(c->owned);
	free(c->registers);
	free(c->fabric_manager);
	free(c->cgroup);
	free(c->memory);
	strv_clear(&c->taps);
	free(c->vm);
	free(c->definition);
	free(c->rundir);
	free(c->boot_id);
	free(c->reason);
	*c = (struct claim){ 0 };
}

char *claim_boot_id(void)
{
	char *id = NULL;

	if (read_text_file("/proc/sys/kernel/random/boot_id", 64, &id) < 0)
		return xstrdup("unknown");
	return id;
}

void claim_from_plan(const struct plan *p, const char *definition, struct claim *ret)
{
	struct claim c = { .started = time(NULL), .launcher_pid = getpid(), .on_launcher_death = p->on_launcher_death };

	c.vm = xstrdup(p->vm);
	c.definition = definition ? realpath(definition, NULL) : NULL;
	c.rundir = xstrdup(p->rundir);
	c.boot_id = claim_boot_id();
	c.launcher_start = process_start_time(getpid());
	c.reason = xstrdup("");
	snprintf(c.state, sizeof(c.state), "starting");
	for (size_t i = 0; i < p->n_binds; i++) {
		struct claim_device *d = PUSH_ZEROED(c.devices, c.n_devices);

		d->addr = p->binds[i].addr;
		d->from = p->binds[i].from ? xstrdup(p->binds[i].from) : NULL;
		d->override = p->binds[i].override ? xstrdup(p->binds[i].override) : NULL;
		d->to = xstrdup(p->binds[i].to);
		d->id = xstrdup(p->devices[i].id);
	}
	for (size_t i = 0; i < p->n_acs; i++)
		*PUSH_ZEROED(c.registers, c.n_registers) = (struct claim_register){
			.addr = p->acs[i].addr, .offset = p->acs[i].offset, .from = p->acs[i].from, .to = p->acs[i].to
		};
	/* The CPUs, nodes and partition of another machine's plan are not this one's. */
	for (size_t i = 0; i < p->n_vcpus && !p->foreign_host; i++)
		cpuset_add(&c.cpus, p->vcpus[i].host_cpu);
	for (size_t i = 0; i < p->n_nodes; i++) {
		struct used_memory *m = PUSH_ZEROED(c.memory, c.n_memory);

		m->host_node = p->foreign_host ? -1 : p->nodes[i].host_node;
		m->bytes = p->nodes[i].memory_bytes;
		m->page_bytes = p->nodes[i].page_bytes;
		snprintf(m->vm, sizeof(m->vm), "%s", p->vm);
	}
	c.fabric = p->fake_devices ? FABRIC_NONE : p->fabric.mode;
	c.partition = p->fake_devices ? -1 : p->fabric.partition;
	c.fabric_manager = p->fake_devices || !p->fabric.manager ? NULL : xstrdup(p->fabric.manager);
	for (size_t i = 0; i < p->n_taps; i++)
		strv_push(&c.taps, p->taps[i].ifname);
	c.vsock = p->vsock;
	c.uid = p->user.uid;
	c.gid = p->user.gid;
	*ret = c;
}

struct bind_op *claim_bind_ops(const struct claim *c)
{
	struct bind_op *ops = xcalloc(c->n_devices, sizeof(*ops));

	for (size_t i = 0; i < c->n_devices; i++)
		ops[i] = (struct bind_op){ .addr = c->devices[i].addr,
					   .from = c->devices[i].from,
					   .override = c->devices[i].override,
					   .to = c->devices[i].to };
	return ops;
}

/* --- places ------------------------------------------------------------------------------------------- */

const char *claim_rundir(void)
{
	const char *dir = getenv("GPUVM_RUNDIR");

	return dir && *dir ? dir : "/run/gpuvm";
}

char *claim_vm_dir(const char *vm)
{
	return xasprintf("%s/%s", claim_rundir(), vm);
}

/* Who can write there can have us end processes and rebind devices. */
static int make_rundir(const char *dir, struct err *e)
{
	for (const char *c = dir; *c; c++)
		if (*dir != '/' || iscntrl((unsigned char)*c))
			return err_set(e, -EINVAL, "GPUVM_RUNDIR '%s' is not an absolute path without control characters", dir);
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "create '%s'", dir);
	return trust_check(dir, e);
}

int claim_lock(struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/lock", claim_rundir());
	int fd = make_rundir(claim_rundir(), e);

	if (fd < 0)
		return fd;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "open the allocation lock '%s'", path);
	while (flock(fd, LOCK_EX) < 0) {
		if (errno != EINTR) {
			int r = -errno;

			close(fd);
			return err_sys(e, r, "lock '%s'", path);
		}
	}
	return fd;
}

int claim_list(struct strv *ret, struct err *e)
{
	struct sysfs here = { .root = "" };
	int r = sysfs_list(&here, ret, "%s", claim_rundir());

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return err_sys(e, r, "read '%s'", claim_rundir());
	for (size_t i = 0; i < ret->n;) {
		AUTO_FREE char *dir = claim_vm_dir(ret->v[i]);
		struct stat st;

		if (stat(dir, &st) == 0 && S_ISDIR(st.st_mode)) {
			i++;
			continue;
		}
		free(ret->v[i]);
		memmove(&ret->v[i], &ret->v[i + 1], (ret->n - i) * sizeof(*ret->v));
		ret->n--;
	}
	return 0;
}

/* --- JSON ---------------------------------------------------------------------------------------------- */

static void add_str(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, value ? json_object_new_string(value) : NULL);
}

static void add_i64(struct json_object *o, const char *key, int64_t value)
{
	json_object_object_add(o, key, json_object_new_int64(value));
}

static void write_helpers(const struct claim *c, struct json_object *o)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < c->n_helpers; i++) {
		struct json_object *h = json_object_new_object();

		add_str(h, "name", c->helpers[i].name);
		add_i64(h, "pid", c->helpers[i].pid);
		add_i64(h, "start", (int64_t)c->helpers[i].start);
		json_object_array_add(a, h);
	}
	json_object_object_add(o, "helpers", a);
}

static void write_registers(const struct claim *c, struct json_object *o)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < c->n_registers; i++) {
		struct json_object *j = json_object_new_object();
		char bdf[PCI_ADDR_STR];

		add_str(j, "bdf", pci_addr_format(&c->registers[i].addr, bdf));
		add_i64(j, "offset", c->registers[i].offset);
		add_i64(j, "from", c->registers[i].from);
		add_i64(j, "to", c->registers[i].to);
		json_object_array_add(a, j);
	}
	json_object_object_add(o, "registers", a);
}

static void write_owned(const struct claim *c, struct json_object *o)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < c->n_owned; i++) {
		struct json_object *j = json_object_new_object();

		add_str(j, "path", c->owned[i].path);
		add_i64(j, "uid", c->owned[i].uid);
		add_i64(j, "gid", c->owned[i].gid);
		add_i64(j, "mode", c->owned[i].mode);
		json_object_array_add(a, j);
	}
	json_object_object_add(o, "owned", a);
}

static struct json_object *claim_to_json(const struct claim *c)
{
	struct json_object *o = json_object_new_object(), *devices = json_object_new_array(), *memory = json_object_new_array();
	struct json_object *taps = json_object_new_array();
	AUTO_FREE char *cpus = cpuset_format(&c->cpus);

	add_i64(o, "schema", CLAIM_SCHEMA);
	add_str(o, "vm", c->vm);
	add_str(o, "definition", c->definition);
	add_str(o, "boot_id", c->boot_id);
	add_i64(o, "started", c->started);
	add_i64(o, "launcher_pid", c->launcher_pid);
	add_i64(o, "launcher_start", (int64_t)c->launcher_start);
	add_i64(o, "qemu_pid", c->qemu_pid);
	add_i64(o, "qemu_start", (int64_t)c->qemu_start);
	add_str(o, "on_launcher_death", c->on_launcher_death == DEATH_STOP ? "stop" : "keep");
	json_object_object_add(o, "bound", json_object_new_boolean(c->bound));
	for (size_t i = 0; i < c->n_devices; i++) {
		struct json_object *d = json_object_new_object();
		char bdf[PCI_ADDR_STR];

		add_str(d, "id", c->devices[i].id);
		add_str(d, "bdf", pci_addr_format(&c->devices[i].addr, bdf));
		add_str(d, "from", c->devices[i].from);
		add_str(d, "override", c->devices[i].override);
		add_str(d, "to", c->devices[i].to);
		json_object_array_add(devices, d);
	}
	json_object_object_add(o, "devices", devices);
	add_str(o, "cpus", cpus);
	for (size_t i = 0; i < c->n_memory; i++) {
		struct json_object *m = json_object_new_object();

		add_i64(m, "host_node", c->memory[i].host_node);
		add_i64(m, "bytes", (int64_t)c->memory[i].bytes);
		add_i64(m, "page_bytes", (int64_t)c->memory[i].page_bytes);
		json_object_object_add(m, "allocated", json_object_new_boolean(c->memory[i].allocated));
		json_object_array_add(memory, m);
	}
	json_object_object_add(o, "memory", memory);
	add_str(o, "fabric", fabric_mode_word(c->fabric));
	add_i64(o, "partition", c->partition);
	json_object_object_add(o, "partition_active", json_object_new_boolean(c->partition_active));
	add_str(o, "fabric_manager", c->fabric_manager);
	write_registers(c, o);
	write_owned(c, o);
	add_str(o, "cgroup", c->cgroup);
	add_i64(o, "user", c->uid);
	add_i64(o, "group", c->gid);
	json_object_object_add(o, "hooked", json_object_new_boolean(c->hooked));
	add_i64(o, "vsock", c->vsock);
	for (size_t i = 0; i < c->taps.n; i++)
		json_object_array_add(taps, json_object_new_string(c->taps.v[i]));
	json_object_object_add(o, "taps", taps);
	write_helpers(c, o);
	add_i64(o, "recover_failed", c->recover_failed);
	add_str(o, "state", c->state);
	add_str(o, "reason", c->reason);
	return o;
}

static int write_json(const char *dir, const char *file, struct json_object *o, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, file);
	const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	int r = write_file_atomic(path, text, strlen(text), 0600);

	json_object_put(o);
	return r < 0 ? err_sys(e, r, "write '%s'", path) : 0;
}

int claim_write(const struct claim *c, struct err *e)
{
	return write_json(c->rundir, CLAIM_FILE, claim_to_json(c), e);
}

/* Reading: a claim is ours or it is damaged; nothing is guessed. */
struct claim_reader {
	const char *bad; /* first key that was wrong */
};

static struct json_object *want(struct claim_reader *r, struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	if (json_object_object_get_ex(o, key, &v) && json_object_is_type(v, type))
		return v;
	if (!r->bad)
		r->bad = key;
	return NULL;
}

static int64_t want_int(struct claim_reader *r, struct json_object *o, const char *key)
{
	return json_object_get_int64(want(r, o, key, json_type_int));
}

static char *want_str(struct claim_reader *r, struct json_object *o, const char *key)
{
	struct json_object *v = want(r, o, key, json_type_string);

	return v ? xstrdup(json_object_get_string(v)) : NULL;
}

static char *want_str_or_null(struct claim_reader *r, struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	if (json_object_object_get_ex(o, key, &v) && !v)
		return NULL;
	return want_str(r, o, key);
}

static int64_t want_range(struct claim_reader *r, struct json_object *o, const char *key, int64_t min, int64_t max)
{
	int64_t v = want_int(r, o, key);

	if ((v < min || v > max) && !r->bad)
		r->bad = key;
	return v;
}

static pid_t want_pid(struct claim_reader *r, struct json_object *o, const char *key)
{
	return (pid_t)want_range(r, o, key, 0, INT_MAX);
}

/* What becomes a component of a path in sysfs. */
static void check_names(struct claim_reader *r, const struct claim_device *d)
{
	const char *const names[] = { d->from, d->override, d->to };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i] && (!*names[i] || strchr(names[i], '/') || strcmp(names[i], "..") == 0))
			r->bad = "devices";
}

static void read_device(struct claim_reader *r, struct json_object *o, struct claim_device *d)
{
	AUTO_FREE char *bdf = want_str(r, o, "bdf");

	d->id = want_str(r, o, "id");
	d->from = want_str_or_null(r, o, "from");
	d->override = want_str_or_null(r, o, "override");
	d->to = want_str(r, o, "to");
	check_names(r, d);
	if (bdf && parse_pci_addr(bdf, &d->addr) < 0)
		r->bad = "bdf";
}

static void read_arrays(struct claim_reader *r, struct json_object *o, struct claim *c)
{
	struct json_object *devices = want(r, o, "devices", json_type_array), *memory = want(r, o, "memory", json_type_array);

	for (size_t i = 0; devices && i < json_object_array_length(devices); i++)
		read_device(r, json_object_array_get_idx(devices, i), PUSH_ZEROED(c->devices, c->n_devices));
	for (size_t i = 0; memory && i < json_object_array_length(memory); i++) {
		struct json_object *j = json_object_array_get_idx(memory, i);
		struct used_memory *m = PUSH_ZEROED(c->memory, c->n_memory);

		m->host_node = (int)want_range(r, j, "host_node", -1, INT_MAX);
		m->bytes = (uint64_t)want_int(r, j, "bytes");
		m->page_bytes = (uint64_t)want_int(r, j, "page_bytes");
		m->allocated = json_object_get_boolean(want(r, j, "allocated", json_type_boolean));
	}
}

static void read_taps(struct claim_reader *r, struct json_object *o, struct claim *c)
{
	struct json_object *taps = want(r, o, "taps", json_type_array);

	for (size_t i = 0; taps && i < json_object_array_length(taps); i++) {
		struct json_object *name = json_object_array_get_idx(taps, i);

		if (json_object_is_type(name, json_type_string))
			strv_push(&c->taps, json_object_get_string(name));
		else
			r->bad = "taps";
	}
}

static void read_helpers(struct claim_reader *r, struct json_object *o, struct claim *c)
{
	struct json_object *helpers = want(r, o, "helpers", json_type_array);

	for (size_t i = 0; helpers && i < json_object_array_length(helpers); i++) {
		struct json_object *j = json_object_array_get_idx(helpers, i);
		struct claim_helper *h = PUSH_ZEROED(c->helpers, c->n_helpers);

		h->name = want_str(r, j, "name");
		h->pid = want_pid(r, j, "pid");
		h->start = (uint64_t)want_int(r, j, "start");
	}
}

static unsigned int want_uint(struct claim_reader *r, struct json_object *o, const char *key, uint32_t max)
{
	return (unsigned int)want_range(r, o, key, 0, max);
}

static void read_registers(struct claim_reader *r, struct json_object *o, struct claim *c)
{
	struct json_object *a = want(r, o, "registers", json_type_array);

	for (size_t i = 0; a && i < json_object_array_length(a); i++) {
		struct json_object *j = json_object_array_get_idx(a, i);
		struct claim_register *v = PUSH_ZEROED(c->registers, c->n_registers);
		AUTO_FREE char *bdf = want_str(r, j, "bdf");

		if (bdf && parse_pci_addr(bdf, &v->addr) < 0)
			r->bad = "bdf";
		v->offset = want_uint(r, j, "offset", 4094);
		v->from = want_uint(r, j, "from", UINT16_MAX);
		v->to = want_uint(r, j, "to", UINT16_MAX);
	}
}

static void read_owned(struct claim_reader *r, struct json_object *o, struct claim *c)
{
	struct json_object *a = want(r, o, "owned", json_type_array);

	for (size_t i = 0; a && i < json_object_array_length(a); i++) {
		struct json_object *j = json_object_array_get_idx(a, i);
		struct claim_owned *v = PUSH_ZEROED(c->owned, c->n_owned);

		v->path = want_str(r, j, "path");
		v->uid = want_uint(r, j, "uid", UINT32_MAX);
		v->gid = want_uint(r, j, "gid", UINT32_MAX);
		v->mode = want_uint(r, j, "mode", 07777);
	}
}

/* What schema 1 did not have, its VMs did not do. */
static void read_schema2(struct claim_reader *r, struct json_object *o, struct claim *c)
{
	c->partition_active = json_object_get_boolean(want(r, o, "partition_active", json_type_boolean));
	c->fabric_manager = want_str_or_null(r, o, "fabric_manager");
	if (c->partition_active && !c->fabric_manager)
		r->bad = "fabric_manager";
	read_registers(r, o, c);
	read_owned(r, o, c);
	c->cgroup = want_str_or_null(r, o, "cgroup");
	c->uid = want_uint(r, o, "user", UINT32_MAX);
	c->gid = want_uint(r, o, "group", UINT32_MAX);
	c->hooked = json_object_get_boolean(want(r, o, "hooked", json_type_boolean));
	c->vsock = want_uint(r, o, "vsock", UINT32_MAX);
}

static void read_claim(struct claim_reader *r, struct json_object *o, struct claim *c)
{
	AUTO_FREE char *cpus = want_str(r, o, "cpus"), *state = want_str(r, o, "state"), *death = want_str(r, o, "on_launcher_death");
	AUTO_FREE char *fabric = want_str(r, o, "fabric");
	int64_t schema = want_int(r, o, "schema");

	if (schema < 1 || schema > CLAIM_SCHEMA)
		r->bad = "schema";
	else if (schema > 1)
		read_schema2(r, o, c);
	c->vm = want_str(r, o, "vm");
	if (c->vm && strcmp(c->vm, strrchr(c->rundir, '/') + 1) != 0)
		r->bad = "vm";
	c->definition = want_str_or_null(r, o, "definition");
	c->boot_id = want_str(r, o, "boot_id");
	c->started = want_int(r, o, "started");
	c->recover_failed = want_int(r, o, "recover_failed");
	c->launcher_pid = want_pid(r, o, "launcher_pid");
	c->launcher_start = (uint64_t)want_int(r, o, "launcher_start");
	c->qemu_pid = want_pid(r, o, "qemu_pid");
	c->qemu_start = (uint64_t)want_int(r, o, "qemu_start");
	/* It was run, or QEMU would not have been started. */
	if (schema == 1)
		c->hooked = c->qemu_pid > 0;
	c->bound = json_object_get_boolean(want(r, o, "bound", json_type_boolean));
	c->reason = want_str(r, o, "reason");
	if (c->reason)
		text_plain(c->reason);
	read_arrays(r, o, c);
	read_taps(r, o, c);
	read_helpers(r, o, c);
	c->partition = (int)want_range(r, o, "partition", -1, INT_MAX);
	if (fabric && fabric_mode_parse(fabric, &c->fabric) < 0)
		r->bad = "fabric";
	if (cpus && cpuset_parse(cpus, &c->cpus) < 0)
		r->bad = "cpus";
	if (death)
		c->on_launcher_death = strcmp(death, "stop") == 0 ? DEATH_STOP : DEATH_KEEP;
	if (state)
		snprintf(c->state, sizeof(c->state), "%s", state);
}

static struct json_object *read_json(const char *dir, const char *file, int *ret_code, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, file), *text = NULL;
	struct json_object *o;
	int r = read_own_file(path, CLAIM_MAX, &text);

	*ret_code = r;
	if (r < 0) {
		err_sys(e, r, "read '%s'", path);
		return NULL;
	}
	o = json_tokener_parse(text);
	if (o && json_object_is_type(o, json_type_object))
		return o;
	json_object_put(o);
	*ret_code = err_set(e, -EPROTO, "'%s' is damaged: not a JSON object", path);
	e->word = "claim-damaged";
	return NULL;
}

int claim_read(const char *dir, struct claim *ret, struct err *e)
{
	struct claim_reader r = { 0 };
	struct claim c = { 0 };
	int code;
	struct json_object *o = read_json(dir, CLAIM_FILE, &code, e);

	if (!o)
		return code;
	c.rundir = xstrdup(dir);
	read_claim(&r, o, &c);
	json_object_put(o);
	if (r.bad) {
		claim_clear(&c);
		err_set(e, -EPROTO, "'%s/%s' is damaged: '%s' is missing, of the wrong type or not of this version", dir, CLAIM_FILE, r.bad);
		e->word = "claim-damaged";
		return -EPROTO;
	}
	*ret = c;
	return 0;
}

/* --- life and death ---------------------------------------------------------------------------------------- */

static bool process_alive(const struct claim *c, pid_t pid, uint64_t start)
{
	AUTO_FREE char *boot = claim_boot_id();

	/* The same pid with another start time is another process. 0 is the start time of what is gone. */
	return pid > 0 && start && strcmp(boot, c->boot_id) == 0 && process_start_time(pid) == start;
}

bool claim_launcher_alive(const struct claim *c)
{
	return process_alive(c, c->launcher_pid, c->launcher_start);
}

bool claim_qemu_alive(const struct claim *c)
{
	return process_alive(c, c->qemu_pid, c->qemu_start);
}

bool claim_alive(const struct claim *c)
{
	return claim_launcher_alive(c) || (claim_qemu_alive(c) && c->on_launcher_death == DEATH_KEEP);
}

static int remove_file(const char *dir, const char *file, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, file);

	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(e, -errno, "remove '%s'", path);
	return 0;
}

static int write_last(const struct claim *c, int exit_code, struct err *e)
{
	struct json_object *o = json_object_new_object();

	add_i64(o, "schema", LAST_SCHEMA);
	add_str(o, "vm", c->vm);
	add_str(o, "definition", c->definition);
	add_str(o, "state", c->state);
	add_str(o, "reason", c->reason);
	add_i64(o, "exit_code", exit_code);
	add_i64(o, "started", c->started);
	add_i64(o, "ended", time(NULL));
	return write_json(c->rundir, LAST_FILE, o, e);
}

int claim_release(struct claim *c, int exit_code, struct err *e)
{
	static const char *const files[] = { "control.sock", "qmp.sock", "verbs.sock", "serial.sock", "gdb.sock", "agent.sock", "tpm.sock" };
	int last = write_last(c, exit_code, e), r = seed_remove(c->rundir, e);

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int rm = remove_file(c->rundir, files[i], e);

		r = r < 0 ? r : rm;
	}
	/* Only who reads the claim will look again. */
	if (r == 0)
		r = remove_file(c->rundir, CLAIM_FILE, e);
	/* Where /run is full there is room now, for what fits into a claim's place. */
	if (last == -ENOSPC && r == 0)
		last = write_last(c, exit_code, e);
	return r < 0 ? r : last;
}

int claim_read_last(const char *dir, struct claim_last *ret, struct err *e)
{
	struct claim_reader r = { 0 };
	struct claim_last last = { 0 };
	AUTO_FREE char *state = NULL;
	int code;
	struct json_object *o = read_json(dir, LAST_FILE, &code, e);

	if (!o)
		return code;
	state = want_str(&r, o, "state");
	last.reason = want_str(&r, o, "reason");
	if (last.reason)
		text_plain(last.reason);
	last.exit_code = (int)want_int(&r, o, "exit_code");
	last.started = want_int(&r, o, "started");
	last.ended = want_int(&r, o, "ended");
	json_object_put(o);
	if (r.bad) {
		free(last.reason);
		return err_set(e, -EPROTO, "'%s/%s' is damaged: '%s'", dir, LAST_FILE, r.bad);
	}
	snprintf(last.state, sizeof(last.state), "%s", state);
	*ret = last;
	return 0;
}

int claim_stop_helpers(const struct claim *c, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < c->n_helpers && r == 0; i++) {
		r = spawn_kill(c->helpers[i].pid, c->helpers[i].start, e);
		if (r < 0)
			err_wrap(e, "%s", c->helpers[i].name);
	}
	return r;
}

int claim_busy(const char *rundir, bool create, unsigned int timeout_ms, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/busy", rundir);
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
	const struct timespec pause = { .tv_nsec = BUSY_PAUSE_MS * 1000000 };

	if (fd < 0)
		return err_sys(e, -errno, "open '%s'", path);
	/* flock(2) has no timeout. */
	for (unsigned int waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += BUSY_PAUSE_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_sys(e, -errno, "lock '%s'", path);
		if (waited >= timeout_ms)
			return err_set(e, -EBUSY, "'%s' is locked: a process that gives its devices to another driver still waits in the kernel", path);
		nanosleep(&pause, NULL);
	}
	return STEAL_FD(fd);
}

/* Those that are back behind those that are not, of which there are as many as is returned. */
static size_t sort_devices(struct claim *c, const bool *back)
{
	AUTO_FREE struct claim_device *sorted = xcalloc(c->n_devices + 1, sizeof(*sorted));
	size_t left = 0, last = c->n_devices;

	for (size_t i = 0; i < c->n_devices; i++)
		sorted[back[i] ? --last : left++] = c->devices[i];
	memcpy(c->devices, sorted, c->n_devices * sizeof(*sorted));
	return left;
}

/* @ret_left: the first so many devices of the claim are not back. */
static int restore_devices(const struct sysfs *s, struct claim *c, size_t *ret_left, struct err *e)
{
	AUTO_FREE bool *back = xcalloc(c->n_devices + 1, sizeof(*back));
	AUTO_FREE struct bind_op *ops = claim_bind_ops(c);
	int busy = claim_busy(c->rundir, false, BUSY_TIMEOUT_MS, e);
	struct sysfs mine = *s;
	struct err reset = { 0 };
	int r;

	if (busy < 0 && busy != -ENOENT)
		return busy;
	/* None: then there never was a worker; the rest costs nothing. */
	mine.busy_fd = busy < 0 ? 0 : busy;
	if (launch_reset(&mine, c, &reset) < 0)
		log_error("%s: %s", c->vm, reset.msg);
	r = bind_restore_each(&mine, ops, c->n_devices, back, e);
	if (mine.busy_fd)
		close(mine.busy_fd);
	*ret_left = sort_devices(c, back);
	return r;
}

/* Everything but the files. */
static int undo_effects(const struct sysfs *s, struct claim *c, size_t *ret_left, struct err *e)
{
	int r = claim_qemu_alive(c) ? spawn_kill(c->qemu_pid, c->qemu_start, e) : 0, devices;
	struct err files = { 0 }, registers = { 0 };

	if (r == 0)
		r = limits_remove(c, e);
	if (r == 0)
		r = claim_stop_helpers(c, e);
	if (r < 0)
		return r;
	/* A file or a register that cannot be put back is no reason to keep devices. Files first: nodes go with the devices. */
	r = claim_give_back(c, &files);
	if (r < 0) {
		log_error("%s: %s", c->vm, files.msg);
		*e = files;
	}
	if (acs_restore(s, c, &registers) < 0) {
		log_error("%s: %s", c->vm, registers.msg);
		*e = registers;
		r = registers.code;
	}
	devices = c->bound ? restore_devices(s, c, ret_left, e) : 0;
	if (devices == 0)
		devices = partition_recover(c, e);
	/* GPUs whose links still lead to each other must not be given to different VMs. */
	if (c->partition_active)
		*ret_left = c->n_devices;
	return devices < 0 ? devices : r;
}

/* What is back may be another VM's by the time of the next attempt, and must not be given back twice: it leaves the claim, or goes on being held. */
static void note_failure(struct claim *c, size_t left, const char *why)
{
	size_t all = c->n_devices;
	struct err e = { 0 };

	c->recover_failed = time(NULL);
	snprintf(c->state, sizeof(c->state), "failed");
	free(c->reason);
	c->reason = xstrdup(why);
	c->n_devices = left;
	if (claim_write(c, &e) < 0) {
		log_warning("%s", e.msg);
		c->n_devices = all;
	}
	for (size_t i = c->n_devices; i < all; i++)
		free_device(&c->devices[i]);
}

int claim_recover(const struct sysfs *s, struct claim *c, struct err *e)
{
	AUTO_FREE char *boot = claim_boot_id();
	bool this_boot = strcmp(boot, c->boot_id) == 0;
	size_t left = c->n_devices;
	struct err ignored;
	int r;

	if (claim_launcher_alive(c))
		return err_set(e, -EBUSY, "'%s' is running: its launcher has pid %d", c->vm, c->launcher_pid);
	if (claim_alive(c))
		return err_set(e, -EBUSY, "'%s' is running without its launcher: QEMU has pid %d; `gpuvm start %s` takes it over, `gpuvm stop %s` ends it", c->vm,
			       c->qemu_pid, c->vm, c->vm);
	/* After a reboot the devices have their boot drivers again: there is nothing to undo. */
	r = this_boot ? undo_effects(s, c, &left, e) : 0;
	if (r < 0) {
		note_failure(c, left, e->msg);
		return err_wrap(e, "recover '%s'", c->vm);
	}
	snprintf(c->state, sizeof(c->state), "failed");
	free(c->reason);
	c->reason = xstrdup(this_boot ? "the launcher died; everything was given back" : "the host was restarted");
	if (this_boot)
		hooks_recovered(c, LAUNCH_FAILED);
	/* /run may be full: the claim goes all the same. */
	if (events_add(c->rundir, "recovered", c->state, c->reason, &ignored) < 0)
		log_warning("%s: %s", c->vm, ignored.msg);
	return claim_release(c, LAUNCH_FAILED, e);
}

/* --- what is in use -------------------------------------------------------------------------------------------- */

static void add_taps(const struct claim *c, struct host_use *u)
{
	for (size_t i = 0; i < c->taps.n; i++) {
		struct used_tap *t = PUSH_ZEROED(u->taps, u->n_taps);

		snprintf(t->ifname, sizeof(t->ifname), "%s", c->taps.v[i]);
		snprintf(t->vm, sizeof(t->vm), "%s", c->vm);
		t->pid = claim_launcher_alive(c) ? c->launcher_pid : c->qemu_pid;
	}
}

static void add_device(const struct claim *c, size_t i, pid_t pid, struct host_use *u)
{
	struct used_device *d = PUSH_ZEROED(u->devices, u->n_devices);

	d->addr = c->devices[i].addr;
	d->pid = pid;
	snprintf(d->vm, sizeof(d->vm), "%s", c->vm);
}

static void add_registers(const struct claim *c, struct host_use *u)
{
	for (size_t i = 0; i < c->n_registers; i++) {
		const struct claim_register *v = &c->registers[i];
		struct used_register *one = PUSH_ZEROED(u->registers, u->n_registers);

		*one = (struct used_register){ .addr = v->addr, .offset = v->offset, .from = (uint16_t)v->from, .to = (uint16_t)v->to };
		snprintf(one->vm, sizeof(one->vm), "%s", c->vm);
	}
}

/* Of a VM that is gone: what is still in its claim would be given back once more, whoever has it then. CPUs and memory went with its processes. */
static void add_stuck(const struct claim *c, struct host_use *u)
{
	for (size_t i = 0; c->bound && i < c->n_devices; i++)
		add_device(c, i, 0, u);
	add_registers(c, u);
}

static void add_use(const struct claim *c, struct host_use *u)
{
	pid_t pid = claim_launcher_alive(c) ? c->launcher_pid : c->qemu_pid;
	struct used_fabric *fabric = c->fabric != FABRIC_NONE ? PUSH_ZEROED(u->fabrics, u->n_fabrics) : NULL;
	struct used_cpus *cpus;

	if (fabric) {
		fabric->mode = c->fabric;
		fabric->partition = c->partition;
		fabric->pid = pid;
		snprintf(fabric->vm, sizeof(fabric->vm), "%s", c->vm);
	}

	for (size_t i = 0; i < c->n_devices; i++)
		add_device(c, i, pid, u);
	add_registers(c, u);
	cpus = PUSH_ZEROED(u->cpus, u->n_cpus);
	cpus->cpus = c->cpus;
	cpus->pid = pid;
	snprintf(cpus->vm, sizeof(cpus->vm), "%s", c->vm);
	for (size_t i = 0; i < c->n_memory; i++) {
		struct used_memory *m = PUSH_ZEROED(u->memory, u->n_memory);

		*m = c->memory[i];
		snprintf(m->vm, sizeof(m->vm), "%s", c->vm);
	}
	if (c->vsock) {
		struct used_vsock *v = PUSH_ZEROED(u->vsocks, u->n_vsocks);

		v->cid = c->vsock;
		v->pid = pid;
		snprintf(v->vm, sizeof(v->vm), "%s", c->vm);
	}
}

/* A claim whose VM is gone. One that cannot be undone must not keep others from starting. */
static void reconcile(const struct sysfs *s, struct claim *c, struct host_use *u)
{
	AUTO_FREE char *boot = claim_boot_id();
	bool another_boots = strcmp(boot, c->boot_id) != 0; /* nothing can hang */
	struct err e = { 0 };
	int r = -EAGAIN;

	if (another_boots || time(NULL) - c->recover_failed >= RECOVER_RETRY_S || time(NULL) < c->recover_failed) {
		log_notice("%s: its launcher is gone; giving its devices back", c->vm);
		r = claim_recover(s, c, &e);
		if (r < 0)
			log_warning("%s", e.msg);
	}
	if (r < 0)
		add_stuck(c, u);
}

static int collect_one(const struct sysfs *s, const char *dir, const char *except, struct host_use *u, struct err *e)
{
	struct claim c = { 0 };
	int r = claim_read(dir, &c, e);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (claim_alive(&c)) {
		if (!except || strcmp(c.vm, except) != 0)
			add_use(&c, u);
		/* The excepted one's, too: a tap that is there and in use may be its own. */
		add_taps(&c, u);
	} else if (s) {
		reconcile(s, &c, u);
	}
	claim_clear(&c);
	return r;
}

int claim_collect_use(const struct sysfs *s, const char *except, struct host_use *ret, struct err *e)
{
	struct strv names = { 0 };
	struct host_use u = { 0 };
	int r = claim_list(&names, e);

	for (size_t i = 0; i < names.n && r == 0; i++) {
		AUTO_FREE char *dir = claim_vm_dir(names.v[i]);

		r = collect_one(s, dir, except, &u, e);
	}
	strv_clear(&names);
	if (r < 0) {
		host_use_clear(&u);
		return r;
	}
	*ret = u;
	return 0;
}
