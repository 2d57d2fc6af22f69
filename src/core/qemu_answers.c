/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu_answers.c - what to ask a QEMU, and what is kept of its replies.
 *
 * query-qmp-schema has a number in place of the name of each type, different in each build: what is looked for is reached from a
 * command by the names of its members (QEMU docs/devel/qapi-code-gen, "Client JSON Protocol introspection"). */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/qemu.h"

/* Types are asked for one by one: qom-list-types makes QEMU load every module that it has, and a broken one of those, or one whose
 * libraries are not installed, ends it. */
static const struct type {
	const char *name;
	enum { OBJECT, DEVICE, DEVICE_PROPERTIES } kind; /* _PROPERTIES: these are kept too */
} types[] = {
	{ "amd-iommu", DEVICE },
	{ "intel-iommu", DEVICE },
	{ "iommufd", OBJECT },
	{ "iothread", OBJECT },
	{ "ivshmem-plain", DEVICE },
	{ "memory-backend-file", OBJECT },
	{ "memory-backend-memfd", OBJECT },
	{ "memory-backend-ram", OBJECT },
	{ "nvme", DEVICE },
	{ "pcie-root-port", DEVICE_PROPERTIES },
	{ "pvpanic-pci", DEVICE },
	{ "pxb-pcie", DEVICE },
	{ "scsi-cd", DEVICE },
	{ "scsi-hd", DEVICE },
	{ "thread-context", OBJECT },
	{ "tpm-crb", DEVICE },
	{ "tpm-tis", DEVICE },
	{ "vfio-pci", DEVICE_PROPERTIES },
	{ "vhost-vsock-pci", DEVICE },
	{ "virtio-blk-pci", DEVICE_PROPERTIES },
	{ "virtio-iommu-pci", DEVICE },
	{ "virtio-net-pci", DEVICE_PROPERTIES },
	{ "virtio-rng-pci", DEVICE },
	{ "virtio-scsi-pci", DEVICE_PROPERTIES },
	{ "virtio-serial-pci", DEVICE },
	{ "virtserialport", DEVICE },
	{ "x3130-upstream", DEVICE },
	{ "xio3130-downstream", DEVICE_PROPERTIES },
};

static const char *const options[] = {
	"action", "async-teardown", "chroot", "msg", "overcommit", "run-with", "runas", "sandbox", "trace",
};

enum question { ASK_VERSION, ASK_MACHINES, ASK_OPTIONS, ASK_SCHEMA, ASK_TPM_TYPES, ASK_TPM_MODELS, ASK_LOG_ITEMS, ASK_TYPES };

/* @arg_value NULL: no arguments. */
static void ask(struct json_object *list, const char *command, const char *arg, const char *arg_value)
{
	struct json_object *o = json_object_new_object(), *args;

	json_object_object_add(o, "execute", json_object_new_string(command));
	if (arg_value) {
		args = json_object_new_object();
		json_object_object_add(args, arg, json_object_new_string(arg_value));
		json_object_object_add(o, "arguments", args);
	}
	json_object_array_add(list, o);
}

struct json_object *qemu_questions(void)
{
	static const char *const commands[] = {
		[ASK_VERSION] = "query-version",
		[ASK_MACHINES] = "query-machines",
		[ASK_OPTIONS] = "query-command-line-options",
		[ASK_SCHEMA] = "query-qmp-schema",
		[ASK_TPM_TYPES] = "query-tpm-types",
		[ASK_TPM_MODELS] = "query-tpm-models",
	};
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		ask(list, commands[i], NULL, NULL);
	/* No QMP command tells which backends traces have; the human monitor's help offers trace patterns with the log backend only. */
	ask(list, "human-monitor-command", "command-line", "help log");
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		ask(list, types[i].kind == OBJECT ? "qom-list-properties" : "device-list-properties", "typename", types[i].name);
	return list;
}

static uint64_t hash_word(const char *s, uint64_t h)
{
	do
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	while (*s++);
	return h;
}

uint64_t qemu_questions_hash(void)
{
	struct json_object *list = qemu_questions();
	uint64_t h = hash_word(json_object_to_json_string(list), UINT64_C(0xcbf29ce484222325) + QEMU_ANSWERS_SCHEMA);

	json_object_put(list);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		h = (h ^ types[i].kind) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		h = hash_word(options[i], h);
	return h;
}

/* --- looking into replies: whatever is not there or not of that kind is NULL ----------------------------------- */

static struct json_object *member(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, type))
		return NULL;
	return v;
}

static const char *text(struct json_object *o, const char *key)
{
	struct json_object *v = member(o, key, json_type_string);

	return v ? json_object_get_string(v) : NULL;
}

static size_t length(struct json_object *list)
{
	return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

/* The element of @list whose @key is @value. */
static struct json_object *find(struct json_object *list, const char *key, const char *value)
{
	for (size_t i = 0; value && i < length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		const char *s = text(o, key);

		if (s && strcmp(s, value) == 0)
			return o;
	}
	return NULL;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(json_object_get_string(*(struct json_object *const *)a), json_object_get_string(*(struct json_object *const *)b));
}

/* By version: pc-q35-10.0 behind pc-q35-9.2. */
static int by_name(const void *a, const void *b)
{
	return strverscmp(text(*(struct json_object *const *)a, "name"), text(*(struct json_object *const *)b, "name"));
}

static int by_key(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The same members, sorted. Consumes @o. */
static struct json_object *sorted(struct json_object *o)
{
	struct json_object *ret = json_object_new_object();
	AUTO_FREE const char **keys = NULL;
	size_t n = 0;

	json_object_object_foreach(o, key, val) {
		(void)val;
		*PUSH_ZEROED(keys, n) = key;
	}
	if (n)
		qsort(keys, n, sizeof(*keys), by_key);
	for (size_t i = 0; i < n; i++)
		json_object_object_add(ret, keys[i], json_object_get(json_object_object_get(o, keys[i])));
	json_object_put(o);
	return ret;
}

/* --- what is kept ------------------------------------------------------------------------------------------------ */

/* The @key of each element, or the elements themselves if it is NULL. */
static struct json_object *words_of(struct json_object *list, const char *key)
{
	struct json_object *ret = json_object_new_array();

	for (size_t i = 0; i < length(list); i++) {
		struct json_object *v = json_object_array_get_idx(list, i);
		const char *s = key ? text(v, key) : json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;

		if (s)
			json_object_array_add(ret, json_object_new_string(s));
	}
	json_object_array_sort(ret, by_text);
	return ret;
}

static struct json_object *reply_about(struct json_object *replies, size_t type)
{
	struct json_object *reply = json_object_array_get_idx(replies, ASK_TYPES + type);

	return json_object_is_type(reply, json_type_array) ? reply : NULL;
}

static struct json_object *keep_types(struct json_object *replies)
{
	struct json_object *ret = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (reply_about(replies, i))
			json_object_array_add(ret, json_object_new_string(types[i].name));
	return ret;
}

static struct json_object *keep_properties(struct json_object *replies)
{
	struct json_object *ret = json_object_new_object();

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct json_object *reply = types[i].kind == DEVICE_PROPERTIES ? reply_about(replies, i) : NULL, *props;

		if (!reply)
			continue;
		props = json_object_new_object();
		for (size_t k = 0; k < length(reply); k++) {
			struct json_object *p = json_object_array_get_idx(reply, k);
			const char *name = text(p, "name"), *what = text(p, "description");

			if (name)
				json_object_object_add(props, name, json_object_new_string(what ? what : ""));
		}
		json_object_object_add(ret, types[i].name, sorted(props));
	}
	return ret;
}

/* Is there a line "-OPTION" in the help? */
static bool help_has(const char *help, const char *option)
{
	size_t len = strlen(option);

	for (const char *line = help; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (line[0] == '-' && strncmp(line + 1, option, len) == 0 && strchr(" \r\n", line[1 + len]))
			return true;
	}
	return false;
}

static struct json_object *keep_options(struct json_object *reply, const char *help)
{
	struct json_object *ret = json_object_new_object();

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		struct json_object *o = find(reply, "option", options[i]);

		if (o)
			json_object_object_add(ret, options[i], words_of(member(o, "parameters", json_type_array), "name"));
		else if (help_has(help, options[i]))
			json_object_object_add(ret, options[i], json_object_new_array());
	}
	return ret;
}

static struct json_object *keep_machines(struct json_object *reply)
{
	struct json_object *ret = json_object_new_array();

	for (size_t i = 0; i < length(reply); i++) {
		struct json_object *m = json_object_array_get_idx(reply, i), *max = member(m, "cpu-max", json_type_int), *o;
		const char *name = text(m, "name"), *alias = text(m, "alias");

		if (!name || !max || (strncmp(name, "pc-q35", 6) != 0 && strcmp(name, "q35") != 0 && (!alias || strcmp(alias, "q35") != 0)))
			continue;
		o = json_object_new_object();
		if (alias)
			json_object_object_add(o, "alias", json_object_new_string(alias));
		json_object_object_add(o, "cpu-max", json_object_get(max));
		json_object_object_add(o, "name", json_object_new_string(name));
		json_object_array_add(ret, o);
	}
	json_object_array_sort(ret, by_name);
	return ret;
}

/* The object of the arguments of @command. */
static struct json_object *schema_arguments(struct json_object *schema, const char *command)
{
	return find(schema, "name", text(find(schema, "name", command), "arg-type"));
}

/* The words of the enum that @name of @object is. */
static struct json_object *schema_words(struct json_object *schema, struct json_object *object, const char *name)
{
	struct json_object *m = find(member(object, "members", json_type_array), "name", name), *type = find(schema, "name", text(m, "type"));

	return words_of(member(type, "values", json_type_array), NULL);
}

static struct json_object *keep_aio(struct json_object *schema)
{
	struct json_object *args = schema_arguments(schema, "blockdev-add");
	struct json_object *variant = find(member(args, "variants", json_type_array), "case", "file");

	return schema_words(schema, find(schema, "name", text(variant, "type")), "aio");
}

static struct json_object *keep_tpm(struct json_object *replies)
{
	struct json_object *ret = json_object_new_object();

	json_object_object_add(ret, "models", words_of(json_object_array_get_idx(replies, ASK_TPM_MODELS), NULL));
	json_object_object_add(ret, "types", words_of(json_object_array_get_idx(replies, ASK_TPM_TYPES), NULL));
	return ret;
}

static struct json_object *keep_version(struct json_object *reply)
{
	static const char *const numbers[] = { "major", "micro", "minor" };
	struct json_object *q = member(reply, "qemu", json_type_object), *ret = json_object_new_object();
	const char *package = text(reply, "package");

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		json_object_object_add(ret, numbers[i], json_object_get(member(q, numbers[i], json_type_int)));
	json_object_object_add(ret, "package", json_object_new_string(package ? package : ""));
	return ret;
}

static int check_replies(struct json_object *replies, struct err *e)
{
	static const struct {
		enum question question;
		enum json_type type;
		const char *command;
	} needed[] = { { ASK_VERSION, json_type_object, "query-version" },
		       { ASK_MACHINES, json_type_array, "query-machines" },
		       { ASK_OPTIONS, json_type_array, "query-command-line-options" },
		       { ASK_SCHEMA, json_type_array, "query-qmp-schema" } };

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!json_object_is_type(json_object_array_get_idx(replies, needed[i].question), needed[i].type))
			return err_set(e, -EPROTO, "no answer to %s", needed[i].command);
	return 0;
}

int qemu_answers_make(struct json_object *replies, const char *help, struct json_object **ret, struct err *e)
{
	struct json_object *schema = json_object_array_get_idx(replies, ASK_SCHEMA), *log = json_object_array_get_idx(replies, ASK_LOG_ITEMS), *o;
	int r = check_replies(replies, e);

	if (r < 0)
		return r;
	o = json_object_new_object();
	json_object_object_add(o, "aio", keep_aio(schema));
	json_object_object_add(o, "machines", keep_machines(json_object_array_get_idx(replies, ASK_MACHINES)));
	json_object_object_add(o, "netdevs", schema_words(schema, schema_arguments(schema, "netdev_add"), "type"));
	json_object_object_add(o, "options", keep_options(json_object_array_get_idx(replies, ASK_OPTIONS), help));
	json_object_object_add(o, "properties", keep_properties(replies));
	json_object_object_add(o, "schema", json_object_new_int(QEMU_ANSWERS_SCHEMA));
	json_object_object_add(o, "tpm", keep_tpm(replies));
	json_object_object_add(o, "trace_log", json_object_new_boolean(json_object_is_type(log, json_type_string) &&
								       strstr(json_object_get_string(log), "trace:PATTERN")));
	json_object_object_add(o, "types", keep_types(replies));
	json_object_object_add(o, "version", keep_version(json_object_array_get_idx(replies, ASK_VERSION)));
	*ret = o;
	return 0;
}
