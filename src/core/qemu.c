/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu.c - what a QEMU can do, from its own answers. */
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <string.h>

#include "gpuvm/qemu.h"

/* Where in the answers a feature shows. */
enum where {
	IN_NOTHING,
	IN_TYPES,   /* a is listed */
	IN_PROPS,   /* device a has a property b */
	IN_WORDS,   /* the description of property b of device a, "2_5/5/8/16", has the word c */
	IN_OPTIONS, /* command line option a, with a parameter b if that is not NULL */
	IN_NETDEVS,
	IN_AIO,
	IN_TPM, /* a back end */
	IN_TRACE_LOG,
};

#define TYPE(type)		   { IN_TYPES, type, NULL, NULL }
#define PROP(device, prop)	   { IN_PROPS, device, prop, NULL }
#define WORD(device, prop, word)   { IN_WORDS, device, prop, word }
#define OPTION(option, parameter)  { IN_OPTIONS, option, parameter, NULL }
#define LISTED(where, word)	   { where, word, NULL, NULL }

static const struct feature {
	const char *word, *since, *until, *what;
	struct place {
		enum where where;
		const char *a, *b, *c;
	} places[2]; /* all of them */
} features[QF_N] = {
	[QF_VFIO] = { "vfio", "1.3", NULL, "device vfio-pci", { TYPE("vfio-pci") } },
	[QF_IOMMUFD] = { "iommufd", "9.0", NULL, "-object iommufd", { TYPE("iommufd"), PROP("vfio-pci", "iommufd") } },
	[QF_VF_TOKEN] = { "vf-token", "8.1", NULL, "vfio-pci,vf-token=", { PROP("vfio-pci", "vf-token") } },
	[QF_LINK_64GT] = { "link-64gt", "9.0", NULL, "pcie-root-port,x-speed=32 and 64",
			   { WORD("pcie-root-port", "x-speed", "32"), WORD("pcie-root-port", "x-speed", "64") } },
	[QF_THREAD_CONTEXT] = { "thread-context", "7.2", NULL, "-object thread-context", { TYPE("thread-context") } },
	[QF_BLK_VQ_MAPPING] = { "blk-iothread-vq-mapping", "9.0", NULL, "virtio-blk-pci,iothread-vq-mapping=",
				{ PROP("virtio-blk-pci", "iothread-vq-mapping") } },
	[QF_SCSI_VQ_MAPPING] = { "scsi-iothread-vq-mapping", "10.0", NULL, "virtio-scsi-pci,iothread-vq-mapping=",
				 { PROP("virtio-scsi-pci", "iothread-vq-mapping") } },
	[QF_IO_URING] = { "io-uring", "5.0", NULL, "aio=io_uring (a build with liburing)", { LISTED(IN_AIO, "io_uring") } },
	[QF_RUN_WITH_USER] = { "run-with-user", "9.1", NULL, "-run-with user=", { OPTION("run-with", "user") } },
	[QF_RUNAS] = { "runas", "0.10", "10.0", "-runas", { OPTION("runas", NULL) } },
	[QF_RUN_WITH_ASYNC] = { "run-with-async-teardown", "8.0", NULL, "-run-with async-teardown=", { OPTION("run-with", "async-teardown") } },
	[QF_EXIT_WITH_PARENT] = { "exit-with-parent", "10.2", NULL, "-run-with exit-with-parent=", { OPTION("run-with", "exit-with-parent") } },
	[QF_SANDBOX] = { "sandbox", "1.2", NULL, "-sandbox (a build with libseccomp)", { OPTION("sandbox", "enable") } },
	[QF_PVPANIC_PCI] = { "pvpanic-pci", "6.0", NULL, "device pvpanic-pci", { TYPE("pvpanic-pci") } },
	[QF_VHOST_VSOCK] = { "vhost-vsock", "2.8", NULL, "device vhost-vsock-pci", { TYPE("vhost-vsock-pci") } },
	[QF_TPM_EMULATOR] = { "tpm-emulator", "2.12", NULL, "-tpmdev emulator with device tpm-crb",
			      { LISTED(IN_TPM, "emulator"), TYPE("tpm-crb") } },
	[QF_VIRTIO_SCSI] = { "virtio-scsi", "1.1", NULL, "device virtio-scsi-pci", { TYPE("virtio-scsi-pci") } },
	[QF_STAND_IN] = { "stand-in", "2.6", NULL, "device ivshmem-plain", { TYPE("ivshmem-plain") } },
	[QF_PASST] = { "passt", "10.1", NULL, "-netdev passt", { LISTED(IN_NETDEVS, "passt") } },
	[QF_TRACE_LOG] = { "trace-log", "2.6", NULL, "-trace with the log backend", { LISTED(IN_TRACE_LOG, NULL) } },
};

const char *qemu_feature_word(enum qemu_feature f)
{
	return features[f].word;
}

const char *qemu_feature_since(enum qemu_feature f)
{
	return features[f].since;
}

const char *qemu_feature_until(enum qemu_feature f)
{
	return features[f].until;
}

const char *qemu_feature_what(enum qemu_feature f)
{
	return features[f].what;
}

/* --- the document -------------------------------------------------------------------------------------------- */

static struct json_object *member(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) ? v : NULL;
}

static bool has_word(struct json_object *list, const char *word)
{
	for (size_t i = 0; json_object_is_type(list, json_type_array) && i < json_object_array_length(list); i++)
		if (strcmp(json_object_get_string(json_object_array_get_idx(list, i)), word) == 0)
			return true;
	return false;
}

/* Is @word between the slashes of "2_5/5/8/16"? */
static bool has_part(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = text; p; p = strchr(p, '/')) {
		p += *p == '/';
		if (strncmp(p, word, len) == 0 && (p[len] == '/' || !p[len]))
			return true;
	}
	return false;
}

static bool shows(struct json_object *answers, const struct place *p)
{
	struct json_object *prop = p->b ? member(member(member(answers, "properties"), p->a), p->b) : NULL, *option;

	switch (p->where) {
	case IN_NOTHING:
		return true;
	case IN_TYPES:
		return has_word(member(answers, "types"), p->a);
	case IN_PROPS:
		return prop;
	case IN_WORDS:
		return prop && has_part(json_object_get_string(prop), p->c);
	case IN_OPTIONS:
		option = member(member(answers, "options"), p->a);
		return option && (!p->b || has_word(option, p->b));
	case IN_NETDEVS:
		return has_word(member(answers, "netdevs"), p->a);
	case IN_AIO:
		return has_word(member(answers, "aio"), p->a);
	case IN_TPM:
		return has_word(member(member(answers, "tpm"), "types"), p->a);
	case IN_TRACE_LOG:
		return json_object_get_boolean(member(answers, "trace_log"));
	}
	return false;
}

static uint64_t read_features(struct json_object *answers)
{
	uint64_t ret = 0;

	for (int f = 0; f < QF_N; f++)
		if (shows(answers, &features[f].places[0]) && shows(answers, &features[f].places[1]))
			ret |= UINT64_C(1) << f;
	return ret;
}

static bool is_words(struct json_object *list)
{
	if (!json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++)
		if (!json_object_is_type(json_object_array_get_idx(list, i), json_type_string))
			return false;
	return true;
}

/* An object of lists of words, or of objects of words. */
static bool is_object_of(struct json_object *o, enum json_type type)
{
	if (!json_object_is_type(o, json_type_object))
		return false;
	json_object_object_foreach(o, key, val) {
		(void)key;
		if (!json_object_is_type(val, type) || (type == json_type_array && !is_words(val)) ||
		    (type == json_type_object && !is_object_of(val, json_type_string)))
			return false;
	}
	return true;
}

static int check_shape(struct json_object *answers, struct err *e)
{
	static const char *const lists[] = { "types", "netdevs", "aio" };
	struct json_object *schema = member(answers, "schema");

	if (!json_object_is_type(schema, json_type_int))
		return err_set(e, -EPROTO, "not a document of a QEMU's answers: it has no 'schema'");
	if (json_object_get_int64(schema) != QEMU_ANSWERS_SCHEMA)
		return err_set(e, -EPROTO, "answers of schema %lld; this gpuvm reads %d: record them anew (gpuvm version --record)",
			       (long long)json_object_get_int64(schema), QEMU_ANSWERS_SCHEMA);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (!is_words(member(answers, lists[i])))
			return err_set(e, -EPROTO, "a QEMU's answers: '%s' is not a list of words", lists[i]);
	if (!is_object_of(member(answers, "options"), json_type_array))
		return err_set(e, -EPROTO, "a QEMU's answers: 'options' does not give a list of words for each option");
	if (!is_object_of(member(answers, "tpm"), json_type_array))
		return err_set(e, -EPROTO, "a QEMU's answers: 'tpm' does not give lists of words");
	if (!is_object_of(member(answers, "properties"), json_type_object))
		return err_set(e, -EPROTO, "a QEMU's answers: 'properties' does not give a description for each property of each device");
	if (!json_object_is_type(member(answers, "trace_log"), json_type_boolean))
		return err_set(e, -EPROTO, "a QEMU's answers: 'trace_log' is not true or false");
	return 0;
}

static bool read_number(struct json_object *o, const char *key, int max, int *ret)
{
	struct json_object *v = member(o, key);

	if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0 || json_object_get_int64(v) > max)
		return false;
	*ret = json_object_get_int(v);
	return true;
}

static int read_version(struct json_object *answers, struct qemu_info *q, struct err *e)
{
	struct json_object *v = member(answers, "version"), *package = member(v, "package");

	if (!read_number(v, "major", 999, &q->major) || !read_number(v, "minor", 999, &q->minor) || !read_number(v, "micro", 999, &q->micro))
		return err_set(e, -EPROTO, "a QEMU's answers: 'version' does not have major, minor and micro");
	if (json_object_is_type(package, json_type_string) && json_object_get_string_len(package) > 0)
		q->package = xstrdup(json_object_get_string(package));
	return 0;
}

static int read_machines(struct json_object *answers, struct qemu_info *q, struct err *e)
{
	struct json_object *list = member(answers, "machines");

	for (size_t i = 0; json_object_is_type(list, json_type_array) && i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i), *name = member(o, "name"), *alias = member(o, "alias");
		struct qemu_machine *m = PUSH_ZEROED(q->machines, q->n_machines);

		if (!json_object_is_type(name, json_type_string) || (alias && !json_object_is_type(alias, json_type_string)) ||
		    !read_number(o, "cpu-max", INT_MAX, &m->max_vcpus))
			return err_set(e, -EPROTO, "a QEMU's answers: machine %zu does not have a name and 'cpu-max'", i);
		m->name = xstrdup(json_object_get_string(name));
		m->alias = alias ? xstrdup(json_object_get_string(alias)) : NULL;
	}
	if (!q->n_machines)
		return err_set(e, -EPROTO, "a QEMU's answers: there is no machine of the q35 family; is it a build for x86?");
	return 0;
}

int qemu_info_from_answers(struct json_object *answers, struct qemu_info *ret, struct err *e)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	int r = check_shape(answers, e);

	if (r == 0)
		r = read_version(answers, &q, e);
	if (r == 0)
		r = read_machines(answers, &q, e);
	if (r < 0)
		return r;
	q.features = read_features(answers);
	q.answers = json_object_get(answers);
	q.path = STEAL_PTR(ret->path);
	q.ovmf_code = STEAL_PTR(ret->ovmf_code);
	q.ovmf_vars = STEAL_PTR(ret->ovmf_vars);
	qemu_info_clear(ret);
	*ret = q;
	q = (struct qemu_info){ 0 };
	return 0;
}

int qemu_info_from_text(const char *text, size_t len, struct qemu_info *q, struct err *e)
{
	struct json_tokener *tok;
	struct json_object *o;
	size_t rest;
	int r;

	if (len > QEMU_ANSWERS_MAX)
		return err_set(e, -EPROTO, "not a document of a QEMU's answers: it is larger than %lu bytes", QEMU_ANSWERS_MAX);
	tok = json_tokener_new_ex(8);
	o = json_tokener_parse_ex(tok, text, (int)len);
	rest = o ? strspn(text + json_tokener_get_parse_end(tok), " \t\r\n") + json_tokener_get_parse_end(tok) : 0;
	json_tokener_free(tok);
	if (!o || rest != len)
		r = err_set(e, -EPROTO, "not a document of a QEMU's answers: it is not JSON");
	else
		r = qemu_info_from_answers(o, q, e);
	json_object_put(o);
	return r;
}

/* --- questions ------------------------------------------------------------------------------------------------ */

int qemu_machine_vcpus(const struct qemu_info *q, const char *machine)
{
	for (size_t i = 0; i < q->n_machines; i++) {
		const struct qemu_machine *m = &q->machines[i];

		if (strcmp(m->name, machine ? machine : "q35") == 0 || (m->alias && strcmp(m->alias, machine ? machine : "q35") == 0))
			return m->max_vcpus;
	}
	return 0;
}

void qemu_info_clear(struct qemu_info *q)
{
	free(q->path);
	free(q->package);
	for (size_t i = 0; i < q->n_machines; i++) {
		free(q->machines[i].name);
		free(q->machines[i].alias);
	}
	free(q->machines);
	free(q->ovmf_code);
	free(q->ovmf_vars);
	json_object_put(q->answers);
	*q = (struct qemu_info){ 0 };
}
