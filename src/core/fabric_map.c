/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fabric_map.c - physical IDs of GPUs: from the operator's file, or from Fabric Manager. See fabric.h. */
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <string.h>

#include "gpuvm/fabric_manager.h"
#include "gpuvm/strv.h"

#define MAP_FILE "/etc/gpuvm/fabric.conf"
#define MAP_MAX  65536
#define ID_MAX   32 /* bits of fabric_partition.gpus */

void fabric_map_clear(struct fabric_map *m)
{
	free(m->gpus);
	free(m->bridges);
	free(m->partitions);
	free(m->source);
	*m = (struct fabric_map){ 0 };
}

/* --- the file --------------------------------------------------------------------------------------- */

struct map_reader {
	struct fabric_map map;
	const char *file;
	struct problems *ps;
};

static void PRINTF(3, 4) bad(struct map_reader *r, const char *hint, const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	struct problem *p;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	p = problems_add(r->ps, PROBLEM_HOST, "fabric-map-bad", "%s: %s", r->file, text);
	if (hint)
		problem_hint(p, "%s", hint);
}

static void take_module(struct map_reader *r, const char *key, const char *value)
{
	struct fabric_id gpu, *to;

	if (parse_int(key, 1, ID_MAX, &gpu.id) < 0 || parse_pci_addr(value, &gpu.addr) < 0) {
		bad(r, "a line is MODULE-ID = PCI-ADDRESS, as in 5 = 0000:0f:00.0",
		    "[module-ids]: '%s = %s' cannot be read", key, value);
		return;
	}
	for (size_t i = 0; i < r->map.n_gpus; i++) {
		if (r->map.gpus[i].id == gpu.id || pci_addr_cmp(&r->map.gpus[i].addr, &gpu.addr) == 0) {
			bad(r, NULL, "[module-ids]: '%s = %s': this ID or this GPU is there already", key, value);
			return;
		}
	}
	to = PUSH_ZEROED(r->map.gpus, r->map.n_gpus);
	*to = gpu;
}

static void take_bridges(struct map_reader *r, const char *value)
{
	struct strv words = { 0 };
	struct err e = { 0 };

	if (strv_split_shell(value, &words, &e) < 0)
		bad(r, NULL, "[fabric] bridges: %s", e.msg);
	for (size_t i = 0; i < words.n; i++) {
		struct pci_addr a;

		if (parse_pci_addr(words.v[i], &a) < 0)
			bad(r, NULL, "[fabric] bridges: '%s' is not a PCI address", words.v[i]);
		else
			*PUSH_ZEROED(r->map.bridges, r->map.n_bridges) = a;
	}
	strv_clear(&words);
}

static int take_key(void *ctx, const char *section, const char *key, const char *value)
{
	struct map_reader *r = ctx;

	if (strcmp(section, "module-ids") == 0)
		take_module(r, key, value);
	else if (strcmp(section, "fabric") == 0 && strcmp(key, "bridges") == 0)
		take_bridges(r, value);
	else
		bad(r, "there are [module-ids] with ID = ADDRESS, and [fabric] with bridges = ADDRESS...",
		    "[%s] %s: unknown", section, key);
	return 1;
}

int fabric_map_parse(const char *file, const char *text, struct fabric_map *ret, struct problems *ps)
{
	struct map_reader r = { .file = file, .ps = ps };
	size_t before = ps->n;
	int line;

	/* Debian's inih has these as variables; its defaults cut lines of 200 characters in two, silently. */
	ini_use_stack = false;
	ini_allow_realloc = true;
	ini_max_line = MAP_MAX;
	ini_allow_inline_comments = false;
	ini_allow_multiline = false;
	line = ini_parse_string(text, take_key, &r);
	if (line)
		bad(&r, NULL, "line %d cannot be read", line);
	if (ps->n != before) {
		fabric_map_clear(&r.map);
		return -EINVAL;
	}
	r.map.source = xstrdup(file);
	*ret = r.map;
	return 0;
}

int fabric_map_load(const char *root, struct fabric_map *ret, struct problems *ps)
{
	AUTO_FREE char *path = xasprintf("%s%s", strcmp(root, "/") ? root : "", MAP_FILE), *text = NULL;
	int r = read_text_file(path, MAP_MAX, &text);

	if (r == 0)
		return fabric_map_parse(MAP_FILE, text, ret, ps);
	*ret = (struct fabric_map){ 0 };
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	problems_add(ps, PROBLEM_HOST, "fabric-map-bad", "%s: %s", MAP_FILE, strerror(-r));
	return -EINVAL;
}

void fabric_map_apply(const struct fabric_map *m, struct topology *t)
{
	for (size_t i = 0; i < m->n_bridges; i++) {
		int func = topology_find_func(t, &m->bridges[i]);

		if (func >= 0 && t->funcs[func].role == ROLE_NIC)
			t->funcs[func].role = ROLE_FABRIC;
	}
}

/* --- Fabric Manager --------------------------------------------------------------------------------- */

struct fm_reader {
	const struct fabric_map *known;
	const struct fabric_uuid *uuids;
	size_t n_uuids;
	bool by_number; /* a GPU is known by nothing else */
	struct fabric_map map;
};

/* "00000000:86:00.0", NVML's form; all zeros where Fabric Manager does not know it. */
static bool read_address(const char *text, struct pci_addr *ret)
{
	return strspn(text, "0:.") != strlen(text) && parse_pci_addr(text, ret) == 0;
}

static bool find_uuid(const struct fm_reader *r, const char *uuid, struct pci_addr *ret)
{
	for (size_t i = 0; *uuid && i < r->n_uuids; i++) {
		if (strcasecmp(r->uuids[i].uuid, uuid) == 0) {
			*ret = r->uuids[i].addr;
			return true;
		}
	}
	return false;
}

static const struct fabric_id *find_id(const struct fabric_map *m, int id)
{
	for (size_t i = 0; m && i < m->n_gpus; i++)
		if (m->gpus[i].id == id)
			return &m->gpus[i];
	return NULL;
}

/* Which GPU is it? */
static int identify(struct fm_reader *r, const struct fm_gpu *gpu, struct pci_addr *ret, struct err *e)
{
	const struct fabric_id *said = find_id(r->known, gpu->physical_id);
	struct pci_addr by_addr, by_uuid;
	bool addr = read_address(gpu->bus_id, &by_addr), uuid = find_uuid(r, gpu->uuid, &by_uuid);
	char a[PCI_ADDR_STR], b[PCI_ADDR_STR];

	if (addr && uuid && pci_addr_cmp(&by_addr, &by_uuid) != 0)
		return err_set(e, -EEXIST,
			       "Fabric Manager: physical ID %d has the address %s, but its UUID is that of %s", gpu->physical_id,
			       pci_addr_format(&by_addr, a), pci_addr_format(&by_uuid, b));
	if (!addr && !uuid && !said)
		return err_set(
			e, -ENOENT,
			"Fabric Manager does not say which GPU physical ID %d is, and [module-ids] does not either",
			gpu->physical_id);
	*ret = addr ? by_addr : uuid ? by_uuid : said->addr;
	r->by_number = r->by_number || (!addr && !uuid);
	if (said && pci_addr_cmp(&said->addr, ret) != 0)
		return err_set(e, -EEXIST, "physical ID %d is %s for Fabric Manager, but %s in %s", gpu->physical_id,
			       pci_addr_format(ret, a), pci_addr_format(&said->addr, b), r->known->source);
	return 0;
}

static int take_fm_gpu(struct fm_reader *r, const struct fm_gpu *gpu, struct fabric_partition *p, struct err *e)
{
	struct fabric_id found = { .id = gpu->physical_id };
	const struct fabric_id *seen;
	int res;

	if (found.id < 1 || found.id > ID_MAX)
		return err_set(e, -EPROTO, "Fabric Manager: partition %d: physical ID %d", p->id, found.id);
	p->links = gpu->links;
	p->gpus |= UINT32_C(1) << (found.id - 1);
	res = identify(r, gpu, &found.addr, e);
	if (res < 0)
		return res;
	for (size_t i = 0; i < r->map.n_gpus; i++)
		if (r->map.gpus[i].id != found.id && pci_addr_cmp(&r->map.gpus[i].addr, &found.addr) == 0)
			return err_set(e, -EEXIST, "Fabric Manager: physical IDs %d and %d are one GPU", r->map.gpus[i].id, found.id);
	seen = find_id(&r->map, found.id);
	if (seen && pci_addr_cmp(&seen->addr, &found.addr) != 0)
		return err_set(e, -EEXIST, "Fabric Manager: physical ID %d is two GPUs", found.id);
	if (!seen)
		*PUSH_ZEROED(r->map.gpus, r->map.n_gpus) = found;
	return 0;
}

int fabric_map_from_fm(const struct fm_list *l, const struct fabric_map *known, const struct fabric_uuid *uuids,
		       size_t n_uuids, struct fabric_map *ret, struct err *e)
{
	struct fm_reader r = { .known = known, .uuids = uuids, .n_uuids = n_uuids };
	int res = 0;

	for (int i = 0; i < l->n && res == 0; i++) {
		struct fabric_partition *p = PUSH_ZEROED(r.map.partitions, r.map.n_partitions);

		*p = (struct fabric_partition){ .id = l->v[i].id, .active = l->v[i].active };
		for (int k = 0; k < l->v[i].n_gpus && res == 0; k++)
			res = take_fm_gpu(&r, &l->v[i].gpus[k], p, e);
	}
	if (res < 0) {
		fabric_map_clear(&r.map);
		return res;
	}
	for (size_t i = 0; known && i < known->n_bridges; i++)
		*PUSH_ZEROED(r.map.bridges, r.map.n_bridges) = known->bridges[i];
	r.map.source = r.by_number ? xasprintf("Fabric Manager and %s", known->source) : xstrdup("Fabric Manager");
	*ret = r.map;
	return 0;
}
