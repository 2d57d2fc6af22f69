/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/bad.h"
#include "gpuvm/log.h"

#define RECORD_MAX 65536 /* bytes */
#define DEVICE     "/sys/bus/pci/devices/%s"

/* --- memory and places ---------------------------------------------------------------------------------- */

static void clear_record(struct bad_device *b)
{
	free(b->damaged);
	free(b->slot);
	free(b->reason);
	free(b->boot_id);
	free(b->vm);
	free(b->by);
	*b = (struct bad_device){ .addr = b->addr };
}

void bad_free(struct bad_device *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		clear_record(&v[i]);
	free(v);
}

static char *record_path(const char *dir, const struct pci_addr *a)
{
	char bdf[PCI_ADDR_STR];

	return xasprintf("%s/bad/%s.json", dir, pci_addr_format(a, bdf));
}

/* --- reading ---------------------------------------------------------------------------------------------- */

/* As for claims: a record is ours or it is damaged. */
struct reader {
	struct json_object *o;
	const char *bad; /* first key that was wrong */
};

static struct json_object *want(struct reader *r, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	if (json_object_object_get_ex(r->o, key, &v) && json_object_is_type(v, type))
		return v;
	if (!r->bad)
		r->bad = key;
	return NULL;
}

static char *want_str(struct reader *r, const char *key)
{
	struct json_object *v = want(r, key, json_type_string);

	return v ? xstrdup(json_object_get_string(v)) : NULL;
}

static char *want_str_or_null(struct reader *r, const char *key)
{
	struct json_object *v = NULL;

	if (json_object_object_get_ex(r->o, key, &v) && !v)
		return NULL;
	return want_str(r, key);
}

static uint16_t want_id(struct reader *r, const char *key)
{
	AUTO_FREE char *text = want_str(r, key);
	uint64_t v = 0;

	if (text && parse_hex(text, 0xffff, &v) < 0)
		r->bad = key;
	return (uint16_t)v;
}

static void read_fields(struct reader *r, struct bad_device *b)
{
	AUTO_FREE char *bdf = want_str(r, "bdf");
	struct pci_addr a;

	if (json_object_get_int64(want(r, "schema", json_type_int)) != BAD_SCHEMA)
		r->bad = "schema";
	if (bdf && (parse_pci_addr(bdf, &a) < 0 || pci_addr_cmp(&a, &b->addr)))
		r->bad = "bdf";
	b->vendor = want_id(r, "vendor");
	b->device = want_id(r, "device");
	b->subvendor = want_id(r, "subvendor");
	b->subdevice = want_id(r, "subdevice");
	b->slot = want_str_or_null(r, "slot");
	b->reason = want_str(r, "reason");
	b->when = json_object_get_int64(want(r, "when", json_type_int));
	b->boot_id = want_str(r, "boot_id");
	b->vm = want_str_or_null(r, "vm");
	b->by = want_str(r, "by");
}

/* The record of @addr. 0 also for a damaged one, which says so; -ENOENT. */
static int read_record(const char *dir, const struct pci_addr *addr, struct bad_device *ret)
{
	AUTO_FREE char *path = record_path(dir, addr), *text = NULL;
	struct bad_device b = { .addr = *addr };
	int code = read_own_file(path, RECORD_MAX, &text);
	struct reader r = { 0 };

	if (code == -ENOENT)
		return code;
	r.o = code == 0 ? json_tokener_parse(text) : NULL;
	if (r.o && json_object_is_type(r.o, json_type_object))
		read_fields(&r, &b);
	else
		r.bad = "";
	json_object_put(r.o);
	if (r.bad)
		clear_record(&b);
	if (code < 0)
		b.damaged = xasprintf("its record '%s' cannot be read: %s", path, strerror(-code));
	else if (r.bad && !*r.bad)
		b.damaged = xasprintf("its record '%s' is damaged: not a JSON object", path);
	else if (r.bad)
		b.damaged = xasprintf("its record '%s' is damaged: '%s' is missing, of the wrong type or not of this version", path, r.bad);
	*ret = b;
	return 0;
}

/* "0000:17:00.0.json" */
static int parse_name(const char *name, struct pci_addr *ret)
{
	size_t len = strlen(name), tail = strlen(".json");
	AUTO_FREE char *stem = len > tail ? xstrndup(name, len - tail) : xstrdup("");
	char bdf[PCI_ADDR_STR];

	/* Written as we write it, or the record would not be found by its address. */
	return parse_pci_addr(stem, ret) == 0 && !strcmp(pci_addr_format(ret, bdf), stem) ? 0 : -EINVAL;
}

static bool is_record(const char *name)
{
	size_t len = strlen(name);

	/* Not the half-written ".json.new" of a crash. */
	return len > strlen(".json") && !strcmp(name + len - strlen(".json"), ".json");
}

static int by_address(const void *a, const void *b)
{
	return pci_addr_cmp(&((const struct bad_device *)a)->addr, &((const struct bad_device *)b)->addr);
}

int bad_list(const char *dir, struct bad_device **ret, size_t *ret_n, struct err *e)
{
	const struct sysfs here = { .root = "" };
	struct strv names = { 0 };
	struct bad_device *v = NULL;
	size_t n = 0;
	int r = sysfs_list(&here, &names, "%s/bad", dir);

	if (r < 0 && r != -ENOENT)
		return err_sys(e, r, "read '%s/bad'", dir);
	r = 0;
	for (size_t i = 0; r == 0 && i < names.n; i++) {
		struct bad_device b = { 0 };

		if (!is_record(names.v[i]))
			continue;
		if (parse_name(names.v[i], &b.addr) < 0)
			r = err_set(e, -EPROTO, "'%s/bad/%s' is not named after a device; remove or rename it", dir, names.v[i]);
		else if (read_record(dir, &b.addr, &b) == 0)
			*PUSH_ZEROED(v, n) = b;
	}
	strv_clear(&names);
	if (r < 0) {
		bad_free(v, n);
		return r;
	}
	if (n)
		qsort(v, n, sizeof(*v), by_address);
	*ret = v;
	*ret_n = n;
	return 0;
}

/* --- writing ------------------------------------------------------------------------------------------------ */

static uint16_t read_id(const struct sysfs *s, const char *bdf, const char *attr)
{
	AUTO_FREE char *text = sysfs_read(s, DEVICE "/%s", bdf, attr);
	uint64_t v = 0;

	return text && parse_hex(text, 0xffff, &v) == 0 ? (uint16_t)v : 0;
}

/* The slot's own name: /sys/bus/pci/slots/3/address is "0000:17:00". Owned; NULL: the firmware names none. */
static char *slot_of(const struct sysfs *s, const char *bdf)
{
	struct strv slots = { 0 };
	char *found = NULL;

	if (sysfs_list(s, &slots, "/sys/bus/pci/slots") < 0)
		return NULL;
	for (size_t i = 0; i < slots.n && !found; i++) {
		AUTO_FREE char *address = sysfs_read(s, "/sys/bus/pci/slots/%s/address", slots.v[i]);

		if (address && *address && !strncmp(bdf, address, strlen(address)))
			found = xstrdup(slots.v[i]);
	}
	strv_clear(&slots);
	return found;
}

static void add_str(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, value ? json_object_new_string(value) : NULL);
}

static void add_id(struct json_object *o, const char *key, uint16_t id)
{
	char text[8];

	snprintf(text, sizeof(text), "0x%04x", id);
	add_str(o, key, text);
}

static struct json_object *to_json(const struct bad_device *b)
{
	struct json_object *o = json_object_new_object();
	char bdf[PCI_ADDR_STR];

	json_object_object_add(o, "schema", json_object_new_int(BAD_SCHEMA));
	add_str(o, "bdf", pci_addr_format(&b->addr, bdf));
	add_id(o, "vendor", b->vendor);
	add_id(o, "device", b->device);
	add_id(o, "subvendor", b->subvendor);
	add_id(o, "subdevice", b->subdevice);
	add_str(o, "slot", b->slot);
	add_str(o, "reason", b->reason);
	json_object_object_add(o, "when", json_object_new_int64(b->when));
	add_str(o, "boot_id", b->boot_id);
	add_str(o, "vm", b->vm);
	add_str(o, "by", b->by);
	return o;
}

static int make_dir(const char *path, struct err *e)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? err_sys(e, -errno, "create '%s'", path) : 0;
}

static int write_record(const char *dir, const struct bad_device *b, struct err *e)
{
	AUTO_FREE char *folder = xasprintf("%s/bad", dir), *path = record_path(dir, &b->addr);
	struct json_object *o = to_json(b);
	const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	int r = make_dir(dir, e);

	if (r == 0)
		r = make_dir(folder, e);
	/* Everybody may read what is broken: `gpuvm topo` needs no root. */
	if (r == 0 && (r = write_file_atomic(path, text, strlen(text), 0644)) < 0)
		err_sys(e, r, "write '%s'", path);
	json_object_put(o);
	return r;
}

static bool same_ids(const struct bad_device *a, const struct bad_device *b)
{
	return a->vendor == b->vendor && a->device == b->device && a->subvendor == b->subvendor && a->subdevice == b->subdevice;
}

int bad_mark(const char *dir, const struct sysfs *s, const struct pci_addr *addr, const char *reason, const char *vm, const char *by,
	     struct err *e)
{
	struct bad_device b = { .addr = *addr, .when = time(NULL) }, old = { 0 };
	char bdf[PCI_ADDR_STR];
	bool known;
	int r;

	pci_addr_format(addr, bdf);
	if (!sysfs_exists(s, DEVICE, bdf))
		return err_set(e, -ENODEV, "mark %s as bad: there is no such PCI function", bdf);
	/* What the kernel read when it found the device; its config space may say nothing any more. */
	b.vendor = read_id(s, bdf, "vendor");
	b.device = read_id(s, bdf, "device");
	b.subvendor = read_id(s, bdf, "subsystem_vendor");
	b.subdevice = read_id(s, bdf, "subsystem_device");
	known = read_record(dir, addr, &old) == 0 && !old.damaged && same_ids(&old, &b);
	clear_record(&old);
	if (known)
		return 0;
	b.slot = slot_of(s, bdf);
	b.reason = xstrdup(reason);
	b.boot_id = sysfs_read(s, "/proc/sys/kernel/random/boot_id");
	if (!b.boot_id)
		b.boot_id = xstrdup("unknown");
	b.vm = vm ? xstrdup(vm) : NULL;
	b.by = xstrdup(by);
	r = write_record(dir, &b, e);
	clear_record(&b);
	return r;
}

static int clear_one(const char *dir, const struct pci_addr *addr, struct err *e)
{
	AUTO_FREE char *path = record_path(dir, addr);
	char bdf[PCI_ADDR_STR];

	if (unlink(path) == 0)
		return 0;
	if (errno == ENOENT)
		return err_set(e, -ENOENT, "%s is not marked as bad: there is no '%s'", pci_addr_format(addr, bdf), path);
	return err_sys(e, -errno, "remove '%s'", path);
}

int bad_clear(const char *dir, const struct pci_addr *addr, size_t *ret_n, struct err *e)
{
	struct bad_device *v = NULL;
	size_t n = 0;
	int r;

	*ret_n = 0;
	if (addr) {
		r = clear_one(dir, addr, e);
		*ret_n = r == 0;
		return r;
	}
	r = bad_list(dir, &v, &n, e);
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = clear_one(dir, &v[i].addr, e);
		*ret_n += r == 0;
		if (r == -ENOENT)
			r = 0; /* somebody else was faster */
	}
	bad_free(v, n);
	return r;
}

/* --- use ---------------------------------------------------------------------------------------------------- */

bool bad_is_same(const struct bad_device *b, const struct pci_func *f)
{
	return b->damaged || (b->vendor == f->vendor && b->device == f->device && b->subvendor == f->subvendor && b->subdevice == f->subdevice);
}

/* "its reset failed (marked 2026-11-22 03:04 by reset, VM half0, slot 3)"; owned. */
static char *describe(const struct bad_device *b)
{
	char when[32] = "";
	struct tm tm;

	if (b->damaged)
		return xstrdup(b->damaged);
	if (localtime_r(&b->when, &tm))
		strftime(when, sizeof(when), " %Y-%m-%d %H:%M", &tm);
	return xasprintf("%s (marked%s by %s%s%s%s%s)", b->reason, when, b->by, b->vm ? ", VM " : "", b->vm ? b->vm : "", b->slot ? ", slot " : "",
			 b->slot ? b->slot : "");
}

static void drop_replaced(const char *dir, bool look_only, const struct bad_device *b, const struct pci_func *f)
{
	struct err e = { 0 };
	char bdf[PCI_ADDR_STR];
	size_t n;

	log_notice("%s, marked as bad (%s), was replaced: it was %04x:%04x, now there is %04x:%04x%s", pci_addr_format(&b->addr, bdf), b->reason,
		   b->vendor, b->device, f->vendor, f->device, look_only ? "" : "; the mark is removed");
	if (!look_only && bad_clear(dir, &b->addr, &n, &e) < 0)
		log_warning("%s", e.msg);
}

int bad_apply(const char *dir, bool look_only, struct topology *t, struct err *e)
{
	struct bad_device *v = NULL;
	size_t n = 0;
	int r = bad_list(dir, &v, &n, e);

	for (size_t i = 0; r == 0 && i < n; i++) {
		int at = topology_find_func(t, &v[i].addr);
		struct pci_func *f = at >= 0 ? &t->funcs[at] : NULL;

		if (f && !bad_is_same(&v[i], f))
			drop_replaced(dir, look_only, &v[i], f);
		else if (f && !f->bad) /* what the probe has seen is of now */
			f->bad = describe(&v[i]);
	}
	bad_free(v, n);
	return r;
}
