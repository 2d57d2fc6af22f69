/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_option.c - the options of a QEMU command, taken apart. */
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/argv_diff.h"

/* --- what is known of flags ------------------------------------------------------------------------------------- */

/* How the value of a flag is read. */
static const struct rule {
	const char *flag, *group;
	enum { LIST, PLAIN, BARE, GLOBAL } form; /* an option list; text; no value; driver.property=value */
	const char *first;  /* name of a first word without one */
	bool typed;	    /* `first` is the type: part of what the option is */
	const char *ids[3]; /* properties that say which one it is: the first that is there; "a+b": two of them */
} rules[] = {
	{ "binary", "program", PLAIN, NULL, false, { NULL } },
	{ "wrapper", "program", PLAIN, NULL, false, { NULL } },
	{ "env", "program", GLOBAL, NULL, false, { NULL } },

	{ "-name", "process", LIST, "guest", false, { NULL } },
	{ "-uuid", "process", PLAIN, NULL, false, { NULL } },
	{ "-nodefaults", "process", BARE, NULL, false, { NULL } },
	{ "-no-user-config", "process", BARE, NULL, false, { NULL } },
	{ "-display", "process", LIST, "type", false, { NULL } },
	{ "-S", "process", BARE, NULL, false, { NULL } },
	{ "-msg", "process", LIST, NULL, false, { NULL } },
	{ "-sandbox", "process", LIST, "enable", false, { NULL } },
	{ "-action", "process", LIST, NULL, false, { NULL } },
	{ "-run-with", "process", LIST, NULL, false, { NULL } },
	{ "-runas", "process", PLAIN, NULL, false, { NULL } },
	{ "-chroot", "process", PLAIN, NULL, false, { NULL } },
	{ "-pidfile", "process", PLAIN, NULL, false, { NULL } },
	{ "-daemonize", "process", BARE, NULL, false, { NULL } },
	{ "-async-teardown", "process", BARE, NULL, false, { NULL } },
	{ "-nographic", "process", BARE, NULL, false, { NULL } },
	{ "-no-reboot", "process", BARE, NULL, false, { NULL } },
	{ "-no-shutdown", "process", BARE, NULL, false, { NULL } },
	{ "-full-screen", "process", BARE, NULL, false, { NULL } },
	{ "-preconfig", "process", BARE, NULL, false, { NULL } },
	{ "-only-migratable", "process", BARE, NULL, false, { NULL } },
	{ "-incoming", "process", PLAIN, NULL, false, { NULL } },
	{ "-loadvm", "process", PLAIN, NULL, false, { NULL } },
	{ "-snapshot", "disks", BARE, NULL, false, { NULL } },

	{ "-machine", "machine", LIST, "type", false, { NULL } },
	{ "-M", "machine", LIST, "type", false, { NULL } },
	{ "-accel", "machine", LIST, "accel", true, { NULL } },
	{ "-enable-kvm", "machine", BARE, NULL, false, { NULL } },
	{ "-no-acpi", "machine", BARE, NULL, false, { NULL } },
	{ "-no-hpet", "machine", BARE, NULL, false, { NULL } },
	{ "-no-fd-bootchk", "machine", BARE, NULL, false, { NULL } },
	{ "-win2k-hack", "machine", BARE, NULL, false, { NULL } },
	{ "-global", "machine", GLOBAL, NULL, false, { NULL } },
	{ "-set", "other", GLOBAL, NULL, false, { NULL } },
	{ "-rtc", "machine", LIST, NULL, false, { NULL } },
	{ "-icount", "machine", LIST, "shift", false, { NULL } },
	{ "-smbios", "machine", LIST, NULL, false, { "type", "file" } },
	{ "-vga", "machine", PLAIN, NULL, false, { NULL } },

	{ "-cpu", "cpu", LIST, "model", false, { NULL } },
	{ "-smp", "cpu", LIST, "cpus", false, { NULL } },
	{ "-overcommit", "cpu", LIST, NULL, false, { NULL } },
	{ "-singlestep", "cpu", BARE, NULL, false, { NULL } },
	{ "-one-insn-per-tb", "cpu", BARE, NULL, false, { NULL } },

	{ "-m", "memory", LIST, "size", false, { NULL } },
	{ "-numa", "memory", LIST, "type", true, { "nodeid", "src+dst", "node-id+core-id" } },
	{ "-mem-path", "memory", PLAIN, NULL, false, { NULL } },
	{ "-mem-prealloc", "memory", BARE, NULL, false, { NULL } },

	{ "-bios", "firmware", PLAIN, NULL, false, { NULL } },
	{ "-kernel", "firmware", PLAIN, NULL, false, { NULL } },
	{ "-initrd", "firmware", PLAIN, NULL, false, { NULL } },
	{ "-append", "firmware", PLAIN, NULL, false, { NULL } },
	{ "-dtb", "firmware", PLAIN, NULL, false, { NULL } },
	{ "-L", "firmware", PLAIN, NULL, false, { NULL } },
	{ "-fw_cfg", "firmware", LIST, "name", false, { "name" } },
	{ "-boot", "firmware", LIST, "order", false, { NULL } },

	{ "-chardev", "control", LIST, "backend", true, { "id" } },
	{ "-mon", "control", LIST, "chardev", false, { "chardev" } },
	{ "-qmp", "control", PLAIN, NULL, false, { NULL } },
	{ "-monitor", "control", PLAIN, NULL, false, { NULL } },
	{ "-serial", "control", PLAIN, NULL, false, { NULL } },
	{ "-parallel", "control", PLAIN, NULL, false, { NULL } },
	{ "-s", "control", BARE, NULL, false, { NULL } },
	{ "-gdb", "control", PLAIN, NULL, false, { NULL } },
	{ "-trace", "control", LIST, "enable", false, { "enable" } },
	{ "-d", "control", PLAIN, NULL, false, { NULL } },
	{ "-D", "control", PLAIN, NULL, false, { NULL } },

	{ "-blockdev", "disks", LIST, "driver", true, { "node-name" } },
	{ "-drive", "disks", LIST, "file", false, { "id", "if+unit", "if+index" } },
	{ "-hda", "disks", PLAIN, NULL, false, { NULL } },
	{ "-cdrom", "disks", PLAIN, NULL, false, { NULL } },

	{ "-netdev", "network", LIST, "type", true, { "id" } },
	{ "-nic", "network", LIST, "type", true, { "id" } },
	{ "-tpmdev", "guest", LIST, "type", true, { "id" } },
	{ "-fsdev", "guest", LIST, "fsdriver", true, { "id" } },
	{ "-audiodev", "guest", LIST, "driver", true, { "id" } },
	{ "-object", "objects", LIST, "qom-type", true, { "id" } },
	{ "-device", "devices", LIST, "driver", true, { "id" } },
};
static const struct rule unknown = { "", "other", LIST, "value", false, { "id" } };

/* Where objects and devices belong, by their type. */
static const struct {
	const char *flag, *type, *group;
} homes[] = {
	{ "-object", "memory-backend-", "memory" }, { "-object", "thread-context", "memory" }, { "-object", "iothread", "disks" },
	{ "-device", "pxb-pcie", "pcie" },	    { "-device", "pcie-root-port", "pcie" },  { "-device", "x3130-upstream", "pcie" },
	{ "-device", "xio3130-downstream", "pcie" }, { "-device", "virtio-blk-", "disks" },    { "-device", "virtio-scsi-", "disks" },
	{ "-device", "scsi-", "disks" },	    { "-device", "nvme", "disks" },	       { "-device", "virtio-net-", "network" },
	{ "-device", "virtio-rng-", "guest" },	    { "-device", "pvpanic", "guest" },	       { "-device", "virtio-serial-", "guest" },
	{ "-object", "rng-", "guest" },		    { "-object", "iommufd", "devices" },
	{ "-device", "virtserialport", "guest" },   { "-device", "vhost-vsock-", "guest" },    { "-device", "tpm-", "guest" },
};

static const struct rule *find_rule(const char *flag)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (strcmp(rules[i].flag, flag) == 0)
			return &rules[i];
	return NULL;
}

/* QEMU takes two dashes for one. */
static const char *one_dash(const char *word)
{
	return word[0] == '-' && word[1] == '-' && word[2] ? word + 1 : word;
}

static bool looks_like_flag(const char *word)
{
	word = one_dash(word);
	return word[0] == '-' && ((word[1] >= 'a' && word[1] <= 'z') || (word[1] >= 'A' && word[1] <= 'Z'));
}

bool argv_takes_value(const struct strv *words, size_t i)
{
	const struct rule *r = find_rule(one_dash(words->v[i]));

	if (i + 1 >= words->n || !looks_like_flag(words->v[i]))
		return false;
	return r ? r->form != BARE : !looks_like_flag(words->v[i + 1]);
}

/* --- values ------------------------------------------------------------------------------------------------------ */

const char *argv_option_get(const struct argv_option *o, const char *name)
{
	for (size_t i = 0; i < o->n_properties; i++)
		if (strcmp(o->properties[i].name, name) == 0)
			return o->properties[i].value;
	return NULL;
}

/* Both strings are consumed.  Some properties may be repeated (-numa node,cpus=, -netdev user,hostfwd=). */
static void add_property(struct argv_option *o, char *name, char *value)
{
	struct argv_property *p;

	for (size_t i = 0; i < o->n_properties; i++) {
		AUTO_FREE char *before = NULL;

		p = &o->properties[i];
		if (strcmp(p->name, name) != 0)
			continue;
		before = p->value;
		p->value = xasprintf("%s, %s", before, value);
		free(name);
		free(value);
		return;
	}
	p = PUSH_ZEROED(o->properties, o->n_properties);
	p->name = name;
	p->value = value;
}

/* Up to the next single comma, which is passed over; two stand for one. */
static char *take_value(const char **p)
{
	char *out = xcalloc(strlen(*p) + 1, 1), *to = out;

	while (**p && (**p != ',' || (*p)[1] == ',')) {
		*p += **p == ',';
		*to++ = *(*p)++;
	}
	*p += **p == ',';
	return out;
}

/* "x" is x=on, "nox" x=off; in -cpu "+x" and "-x". */
static void add_switch(struct argv_option *o, bool cpu, const char *word)
{
	bool sign = cpu && (*word == '+' || *word == '-'), no = !cpu && strncmp(word, "no", 2) == 0;

	add_property(o, xstrdup(word + (sign ? 1 : no ? 2 : 0)), xstrdup(no || (sign && *word == '-') ? "off" : "on"));
}

static void parse_list(const char *text, const struct rule *r, struct argv_option *o)
{
	for (const char *p = text; *p;) {
		size_t len = strcspn(p, "=,");

		if (p[len] == '=') {
			char *name = xstrndup(p, len);

			p += len + 1;
			add_property(o, name, take_value(&p));
		} else if (p == text && r->first) {
			add_property(o, xstrdup(r->first), take_value(&p));
		} else {
			AUTO_FREE char *word = xstrndup(p, len);

			p += len + (p[len] == ',');
			add_switch(o, strcmp(o->flag, "-cpu") == 0, word);
		}
	}
}

static const char *json_text(struct json_object *v)
{
	if (json_object_is_type(v, json_type_boolean))
		return json_object_get_boolean(v) ? "on" : "off";
	return v ? json_object_get_string(v) : "null";
}

/* @prefix is consumed. */
static void flatten(struct json_object *v, char *prefix, struct argv_option *o)
{
	const char *dot = *prefix ? "." : "";

	if (json_object_is_type(v, json_type_object)) {
		json_object_object_foreach(v, key, member) {
			flatten(member, xasprintf("%s%s%s", prefix, dot, key), o);
		}
		free(prefix);
	} else if (json_object_is_type(v, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(v); i++)
			flatten(json_object_array_get_idx(v, i), xasprintf("%s%s%zu", prefix, dot, i), o);
		free(prefix);
	} else {
		add_property(o, prefix, xstrdup(json_text(v)));
	}
}

static bool parse_json(const char *text, struct argv_option *o)
{
	struct json_object *v = *text == '{' ? json_tokener_parse(text) : NULL;
	bool is = json_object_is_type(v, json_type_object);

	if (is)
		flatten(v, xstrdup(""), o);
	json_object_put(v);
	return is;
}

/* "driver.property=value", "NAME=VALUE" */
static void parse_global(const char *text, struct argv_option *o)
{
	const char *eq = strchr(text, '=');

	free(o->id);
	o->id = eq ? xstrndup(text, (size_t)(eq - text)) : xstrdup(text);
	add_property(o, xstrdup("value"), xstrdup(eq ? eq + 1 : ""));
}

/* --- what an option is ------------------------------------------------------------------------------------------- */

/* Take a property out; NULL if it is not there. */
static char *take_property(struct argv_option *o, const char *name)
{
	for (size_t i = 0; i < o->n_properties; i++) {
		char *value = o->properties[i].value;

		if (strcmp(o->properties[i].name, name) != 0)
			continue;
		free(o->properties[i].name);
		memmove(&o->properties[i], &o->properties[i + 1], (o->n_properties - i - 1) * sizeof(*o->properties));
		o->n_properties--;
		return value;
	}
	return NULL;
}

/* "a", or "a+b" if both are there. */
static char *take_id(struct argv_option *o, const char *names)
{
	const char *plus = strchr(names, '+');
	AUTO_FREE char *first = xstrndup(names, strcspn(names, "+")), *a = NULL, *b = NULL;

	if (!argv_option_get(o, first) || (plus && !argv_option_get(o, plus + 1)))
		return NULL;
	a = take_property(o, first);
	if (!plus)
		return STEAL_PTR(a);
	b = take_property(o, plus + 1);
	return xasprintf("%s-%s", a, b);
}

static void name_option(struct argv_option *o, const struct rule *r)
{
	char *id = NULL, *type = r->typed ? take_property(o, r->first) : NULL;

	if (type) {
		free(o->type);
		o->type = type;
	}
	for (size_t i = 0; i < ARRAY_SIZE(r->ids) && r->ids[i] && !id; i++)
		id = take_id(o, r->ids[i]);
	if (id) {
		free(o->id);
		o->id = id;
	}
	for (size_t i = 0; i < ARRAY_SIZE(homes); i++)
		if (strcmp(homes[i].flag, o->flag) == 0 && strncmp(o->type, homes[i].type, strlen(homes[i].type)) == 0)
			o->group = homes[i].group;
	/* Firmware is a drive of its own kind. */
	if (strcmp(o->flag, "-drive") == 0 && strncmp(o->id, "pflash", 6) == 0)
		o->group = "firmware";
}

void argv_option_parse(const char *flag, const char *value, struct argv_option *ret)
{
	const struct rule *r = find_rule(one_dash(flag));
	struct argv_option o = { .flag = xstrdup(one_dash(flag)), .type = xstrdup(""), .id = xstrdup("") };

	r = r ? r : &unknown;
	o.value = value ? xstrdup(value) : NULL;
	o.group = r->group;
	if (value && r->form == GLOBAL)
		parse_global(value, &o);
	else if (value && r->form == PLAIN)
		add_property(&o, xstrdup("value"), xstrdup(value));
	else if (value && !parse_json(value, &o))
		parse_list(value, r, &o);
	name_option(&o, r);
	*ret = o;
}

static void push_option(struct argv_options *o, const char *flag, const char *value)
{
	argv_option_parse(flag, value, PUSH_ZEROED(o->v, o->n));
}

/* Index of QEMU's own path; the words before it become one option. */
static size_t read_wrapper(const struct strv *argv, const char *binary, struct argv_options *ret)
{
	AUTO_FREE char *text = xstrdup("");
	size_t at = 0;

	while (binary && at < argv->n && strcmp(argv->v[at], binary) != 0)
		at++;
	if (at == argv->n)
		at = 0;
	for (size_t i = 0; i < at; i++) {
		AUTO_FREE char *before = text, *word = shell_quote(argv->v[i]);

		text = xasprintf("%s%s%s", before, i ? " " : "", word);
	}
	if (at)
		push_option(ret, "wrapper", text);
	return at;
}

void argv_options_read(const struct strv *argv, const char *binary, const struct strv *env, struct argv_options *ret)
{
	struct argv_options o = { 0 };
	size_t i;

	for (i = 0; env && i < env->n; i++)
		push_option(&o, "env", env->v[i]);
	i = read_wrapper(argv, binary, &o);
	if (i < argv->n)
		push_option(&o, "binary", argv->v[i++]);
	for (; i < argv->n; i++) {
		bool value = argv_takes_value(argv, i);

		push_option(&o, argv->v[i], value ? argv->v[i + 1] : NULL);
		i += value;
	}
	*ret = o;
}

void argv_options_clear(struct argv_options *o)
{
	for (size_t i = 0; i < o->n; i++) {
		struct argv_option *one = &o->v[i];

		for (size_t k = 0; k < one->n_properties; k++) {
			free(one->properties[k].name);
			free(one->properties[k].value);
		}
		free(one->properties);
		free(one->flag);
		free(one->value);
		free(one->type);
		free(one->id);
	}
	free(o->v);
	*o = (struct argv_options){ 0 };
}
