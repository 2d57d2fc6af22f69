/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fm_proto.c - what Fabric Manager says and means. See fabric_manager.h for where each number is from. */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/fabric_manager.h"
#include "gpuvm/parse.h"

#define TEXT_MAX   (1UL << 20) /* 64 partitions of 16 GPUs are 400 KiB as fmpm indents them */
#define DEPTH_MAX  8
#define SOCKET_MAX 107 /* sun_path */

/* --- return values ------------------------------------------------------------------------------------ */

static const struct fm_meaning {
	int code;
	const char *name;
	int r; /* for any request */
	const char *text;
} meanings[] = {
	{ -1, "BADPARAM", -EINVAL, "it has no such partition, or does not understand the address" },
	{ -2, "GENERIC_ERROR", -EIO, "its log, /var/log/fabricmanager.log, says why" },
	{ -3, "NOT_SUPPORTED", -EOPNOTSUPP, "it does not share NVSwitches: FABRIC_MODE=1 in fabricmanager.cfg, and restart it" },
	{ -4, "UNINITIALIZED", -EIO, "not initialised" },
	{ -5, "TIMEOUT", -ETIMEDOUT, "a GPU or NVSwitch did not answer it in time; its log says which" },
	{ -6, "VERSION_MISMATCH", -EPROTONOSUPPORT, "its version and that of fmpm or libnvfm differ: install those of one driver version" },
	{ -7, "IN_USE", -EBUSY, "in use" },
	{ -8, "NOT_CONFIGURED", -EAGAIN, "it is still initialising" },
	{ -9, "CONNECTION_NOT_VALID", -ENOTCONN, "it cannot be reached: systemctl status nvidia-fabricmanager" },
	{ -10, "NVLINK_ERROR", -EIO, "NVLinks could not be trained; its log says which" },
	{ -11, "RESOURCE_BAD", -EINVAL, "something that was named is not there" },
	{ -12, "RESOURCE_IN_USE", -EBUSY, "in use" },
	{ -13, "RESOURCE_NOT_IN_USE", -EIO, "not in use" },
	{ -14, "RESOURCE_EXHAUSTED", -EIO, "its resources are exhausted" },
	{ -15, "RESOURCE_NOT_READY", -EAGAIN, "a GPU or NVSwitch is not ready yet" },
	{ -16, "PARTITION_EXISTS", -EBUSY, "in use" },
	{ -17, "PARTITION_ID_IN_USE", -EBUSY, "in use" },
	{ -18, "PARTITION_ID_NOT_IN_USE", -EIO, "not in use" },
	{ -22, "NOT_READY", -EAGAIN, "it is not ready yet" },
	{ -23, "RESOURCE_USED_IN_THIS_PARTITION", -EBUSY, "in use" },
	{ -24, "RESOURCE_USED_IN_ANOTHER_PARTITION", -EBUSY, "in use" },
	{ -27, "PARTITION_MISSING_SWITCHES", -EIO, "NVSwitches of it are missing" },
};

static const struct fm_meaning *find_meaning(int code)
{
	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++)
		if (meanings[i].code == code)
			return &meanings[i];
	return NULL;
}

int fm_code_of_exit(int exit_code)
{
	return exit_code == 0 ? 0 : exit_code >= 128 && exit_code < 256 ? exit_code - 256 : 1;
}

/* For what was asked it is so already, or a partition that is active stands in the way. */
static bool is_already(enum fm_op op, const struct fm_meaning *m)
{
	if (op == FM_ACTIVATE)
		return m->r == -EBUSY;
	return op == FM_DEACTIVATE && (m->code == -4 || m->code == -13 || m->code == -18);
}

int fm_judge(enum fm_op op, int id, int code, struct err *e)
{
	static const char *const verbs[] = {
		[FM_LIST] = "list the partitions", [FM_ACTIVATE] = "activate partition", [FM_DEACTIVATE] = "deactivate partition",
		[FM_SET_ACTIVE] = "tell which partitions are active"
	};
	const struct fm_meaning *m = find_meaning(code);
	AUTO_FREE char *number = op == FM_ACTIVATE || op == FM_DEACTIVATE ? xasprintf(" %d", id) : xstrdup("");
	int r;

	if (code == 0)
		return 0;
	r = !m ? -EIO : is_already(op, m) ? -EALREADY : m->r;
	err_set(e, r, "Fabric Manager: %s%s: %s (%s%s%d)", verbs[op], number, m ? m->text : "refused, and gpuvm does not know why", m ? m->name : "", m ? ", " : "",
		code);
	e->word = "fabric-manager-failed";
	return r;
}

/* --- whom to talk to ------------------------------------------------------------------------------------ */

bool fm_tool_is_library(const char *tool)
{
	const char *slash = strrchr(tool, '/');

	return strstr(slash ? slash : tool, ".so") != NULL;
}

static bool is_host(const char *text, size_t len)
{
	static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_";

	return len > 0 && strspn(text, letters) >= len && *text != '-';
}

static bool is_address(const char *text)
{
	const char *colon = strchr(text, ':');
	int port;

	if (strncmp(text, "unix:", 5) == 0)
		return text[5] == '/' && strlen(text + 5) <= SOCKET_MAX;
	return is_host(text, colon ? (size_t)(colon - text) : strlen(text)) && (!colon || parse_int(colon + 1, 1, 65535, &port) == 0);
}

static bool is_tool(const char *text)
{
	return *text == '/' || (!strchr(text, '/') && fm_tool_is_library(text));
}

int fm_spec_parse(const char *text, struct fm_spec *ret)
{
	struct fm_spec s = { 0 };
	struct strv words = { 0 };
	struct err e = { 0 };
	size_t i = 0;
	int r = strv_split_shell(text, &words, &e);

	if (r == 0 && (words.n < 1 || words.n > 2))
		r = -EINVAL;
	for (size_t k = 0; r == 0 && k < words.n; k++)
		if (strlen(words.v[k]) >= FM_WORD_MAX)
			r = -EINVAL;
	if (r == 0) {
		s.none = words.n == 1 && strcmp(words.v[0], "none") == 0;
		if (s.none || strcmp(words.v[0], "auto") == 0)
			i++;
		else if (is_tool(words.v[0]))
			snprintf(s.tool, sizeof(s.tool), "%s", words.v[i++]);
		if (i < words.n && is_address(words.v[i]))
			snprintf(s.address, sizeof(s.address), "%s", words.v[i++]);
		if (i < words.n)
			r = -EINVAL;
	}
	strv_clear(&words);
	if (r == 0)
		*ret = s;
	return r < 0 ? -EINVAL : 0;
}

/* --- the list ---------------------------------------------------------------------------------------------- */

const struct fm_partition *fm_list_find(const struct fm_list *l, int id)
{
	for (int i = 0; i < l->n; i++)
		if (l->v[i].id == id)
			return &l->v[i];
	return NULL;
}

static bool has_gpu(const struct fm_partition *p, int physical_id)
{
	for (int i = 0; i < p->n_gpus; i++)
		if (p->gpus[i].physical_id == physical_id)
			return true;
	return false;
}

const struct fm_partition *fm_find_rival(const struct fm_list *l, int id)
{
	const struct fm_partition *mine = fm_list_find(l, id);

	for (int i = 0; mine && i < l->n; i++)
		for (int k = 0; l->v[i].active && &l->v[i] != mine && k < mine->n_gpus; k++)
			if (has_gpu(&l->v[i], mine->gpus[k].physical_id))
				return &l->v[i];
	return NULL;
}

static int get_number(struct json_object *o, const char *key, int missing)
{
	struct json_object *v = NULL;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_int) ? json_object_get_int(v) : missing;
}

/* Text that is longer than it may be is none of FM's. */
static void get_text(struct json_object *o, const char *key, char *buf, size_t size)
{
	struct json_object *v = NULL;

	if (json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) && (size_t)json_object_get_string_len(v) < size)
		snprintf(buf, size, "%s", json_object_get_string(v));
}

static int parse_gpu(struct json_object *o, const struct fm_partition *p, struct fm_gpu *ret, struct err *e)
{
	ret->physical_id = get_number(o, "physicalId", -1);
	if (ret->physical_id < 1)
		return err_set(e, -EPROTO, "Fabric Manager: partition %d: a GPU without a physical ID", p->id);
	get_text(o, "uuid", ret->uuid, sizeof(ret->uuid));
	get_text(o, "pciBusId", ret->bus_id, sizeof(ret->bus_id));
	ret->links = get_number(o, "numNvLinksAvailable", 0);
	ret->links_max = get_number(o, "maxNumNvLinks", 0);
	ret->link_mbps = get_number(o, "nvlinkLineRateMBps", 0);
	return 0;
}

static int parse_partition(struct json_object *o, const struct fm_list *before, struct fm_partition *p, struct err *e)
{
	struct json_object *gpus = NULL, *active = NULL;
	int r = 0;

	p->id = get_number(o, "partitionId", -1);
	if (p->id < 0 || p->id >= FM_PARTITIONS_MAX || !json_object_object_get_ex(o, "gpuInfo", &gpus) || !json_object_is_type(gpus, json_type_array))
		return err_set(e, -EPROTO, "Fabric Manager: a partition without partitionId or gpuInfo");
	if (fm_list_find(before, p->id))
		return err_set(e, -EPROTO, "Fabric Manager: partition %d is there twice", p->id);
	if (json_object_array_length(gpus) > FABRIC_GPUS_MAX)
		return err_set(e, -EPROTO, "Fabric Manager: partition %d has %zu GPUs", p->id, json_object_array_length(gpus));
	/* fmpm writes a number. */
	json_object_object_get_ex(o, "isActive", &active);
	p->active = json_object_get_boolean(active);
	for (size_t i = 0; i < json_object_array_length(gpus) && r == 0; i++)
		r = parse_gpu(json_object_array_get_idx(gpus, i), p, &p->gpus[p->n_gpus++], e);
	return r;
}

static int parse_list(struct json_object *o, struct fm_list *l, struct err *e)
{
	struct json_object *list = NULL;
	int r = 0;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, "partitionInfo", &list) || !json_object_is_type(list, json_type_array))
		return err_set(e, -EPROTO, "Fabric Manager: no list partitionInfo");
	if (json_object_array_length(list) > FM_PARTITIONS_MAX)
		return err_set(e, -EPROTO, "Fabric Manager: %zu partitions, of %d that there can be", json_object_array_length(list), FM_PARTITIONS_MAX);
	for (size_t i = 0; i < json_object_array_length(list) && r == 0; i++) {
		r = parse_partition(json_object_array_get_idx(list, i), l, &l->v[l->n], e);
		l->n++;
	}
	return r;
}

int fm_list_parse(const char *text, struct fm_list *ret, struct err *e)
{
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	struct json_tokener *t = json_tokener_new_ex(DEPTH_MAX);
	const char *begin = text + strcspn(text, "{"); /* the library may warn before */
	size_t len = strlen(begin), end;
	struct json_object *o;
	int r;

	if (!t)
		abort();
	o = len <= TEXT_MAX ? json_tokener_parse_ex(t, begin, (int)len) : NULL;
	end = json_tokener_get_parse_end(t);
	if (!o || strspn(begin + end, " \t\r\n") != len - end)
		r = err_set(e, -EPROTO, "Fabric Manager: the list of partitions is not JSON, or too long: '%.60s'", text);
	else
		r = parse_list(o, l, e);
	json_object_put(o);
	json_tokener_free(t);
	if (r == 0)
		*ret = *l;
	else
		e->word = "fabric-manager-failed";
	return r;
}

/* --- are they the VM's? ------------------------------------------------------------------------------------ */

static int id_of(const struct fabric_map *map, const struct pci_addr *a)
{
	for (size_t i = 0; i < map->n_gpus; i++)
		if (pci_addr_cmp(&map->gpus[i].addr, a) == 0)
			return map->gpus[i].id;
	return 0;
}

int fm_check_gpus(const struct fabric_map *map, int id, const struct pci_addr *v, size_t n, struct err *e)
{
	const struct fabric_partition *p = NULL;
	uint32_t mine = 0;

	for (size_t i = 0; i < map->n_partitions; i++)
		if (map->partitions[i].id == id)
			p = &map->partitions[i];
	for (size_t i = 0; i < n; i++) {
		int gpu = id_of(map, &v[i]);

		mine |= gpu ? UINT32_C(1) << (gpu - 1) : 0;
	}
	if (p && p->gpus == mine && (size_t)fabric_count(mine) == n)
		return 0;
	if (!p)
		err_set(e, -ENOENT, "Fabric Manager has no partition %d", id);
	else
		err_set(e, -EXDEV, "partition %d of Fabric Manager is not exactly the VM's GPUs: NVLink would not connect them", id);
	e->word = "fabric-mismatch";
	return e->code;
}
