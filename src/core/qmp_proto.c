/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The part of QMP that needs no socket: stream to messages, messages to structs.
 *
 * The other side is a QEMU that a guest may have taken over: every length, depth, count and type is checked. */
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <string.h>

#include "gpuvm/qmp.h"

#define FEED_MAX (1UL << 20) /* json-c counts in int */

/* --- messages ---------------------------------------------------------------------------------------- */

void qmp_init(struct qmp *q)
{
	*q = (struct qmp){ .fd = -1, .pidfd = -1, .next_id = 1 };
}

void qmp_reset(struct qmp *q)
{
	for (size_t i = 0; i < q->n_events; i++)
		json_object_put(q->events[i]);
	for (size_t i = 0; i < q->n_replies; i++)
		json_object_put(q->replies[i]);
	free(q->events);
	free(q->replies);
	if (q->tok)
		json_tokener_free(q->tok);
	q->tok = NULL;
	q->events = q->replies = NULL;
	q->n_events = q->n_replies = q->partial = 0;
}

/* Consumes @msg. */
static int queue_message(struct qmp *q, struct json_object *msg, struct err *e)
{
	bool is_event = json_object_object_get_ex(msg, "event", NULL);
	bool is_reply = json_object_object_get_ex(msg, "return", NULL) || json_object_object_get_ex(msg, "error", NULL) ||
			json_object_object_get_ex(msg, "QMP", NULL);

	if (!is_event && !is_reply) {
		json_object_put(msg);
		return err_set(e, -EPROTO, "QMP: a message that is neither greeting, event nor reply");
	}
	if ((is_event ? q->n_events : q->n_replies) >= QMP_QUEUE_MAX) {
		json_object_put(msg);
		return err_set(e, -EPROTO, "QMP: more than %d messages that nobody asked for", QMP_QUEUE_MAX);
	}
	if (is_event)
		*PUSH_ZEROED(q->events, q->n_events) = msg;
	else
		*PUSH_ZEROED(q->replies, q->n_replies) = msg;
	return 0;
}

static int new_tokener(struct qmp *q, struct err *e)
{
	q->tok = json_tokener_new_ex(QMP_DEPTH_MAX);
	if (!q->tok)
		return err_set(e, -ENOMEM, "QMP: no memory for the JSON parser");
	/* Strict: json-c otherwise takes comments and commas before a bracket.  The next message may follow directly. */
	json_tokener_set_flags(q->tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
	return 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Give the parser a piece of one message; returns in @used how much of it belonged to that. */
static int feed_piece(struct qmp *q, const char *data, size_t len, size_t *used, struct err *e)
{
	struct json_object *msg = json_tokener_parse_ex(q->tok, data, (int)len);
	enum json_tokener_error state = json_tokener_get_error(q->tok);

	*used = json_tokener_get_parse_end(q->tok);
	if (*used == 0 && state == json_tokener_continue)
		state = json_tokener_error_parse_unexpected; /* no progress would be no end */
	q->partial += *used;
	if (state == json_tokener_success && *used && json_object_is_type(msg, json_type_object)) {
		q->partial = 0;
		return queue_message(q, msg, e);
	}
	json_object_put(msg);
	if (state != json_tokener_continue)
		return err_set(e, -EPROTO, "QMP: not JSON: %s", json_tokener_error_desc(state));
	if (q->partial > QMP_MESSAGE_MAX)
		return err_set(e, -EPROTO, "QMP: a message of more than %lu bytes", QMP_MESSAGE_MAX);
	return 0;
}

int qmp_feed(struct qmp *q, const char *data, size_t len, struct err *e)
{
	while (len) {
		size_t used = 1;
		int r = 0;

		/* A message is an object; without this look json-c would take "12" for the beginning of a number. */
		if (q->partial == 0 && is_blank(*data)) {
			;
		} else if (q->partial == 0 && *data != '{') {
			r = err_set(e, -EPROTO, "QMP: not JSON: a message begins with byte 0x%02x", (unsigned char)*data);
		} else {
			if (!q->tok)
				r = new_tokener(q, e);
			if (r == 0)
				r = feed_piece(q, data, len < FEED_MAX ? len : FEED_MAX, &used, e);
		}
		if (r < 0) {
			/* The place where the next message begins is lost. */
			if (q->tok)
				json_tokener_reset(q->tok);
			q->partial = 0;
			return r;
		}
		data += used;
		len -= used;
	}
	return 0;
}

static struct json_object *take(struct json_object **v, size_t *n, size_t i)
{
	struct json_object *o = v[i];

	memmove(v + i, v + i + 1, (*n - i - 1) * sizeof(*v));
	--*n;
	return o;
}

struct json_object *qmp_next_event(struct qmp *q)
{
	return q->n_events ? take(q->events, &q->n_events, 0) : NULL;
}

/* --- fields ------------------------------------------------------------------------------------------- */

static struct json_object *field(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &v))
		return NULL;
	return json_object_is_type(v, type) ? v : NULL;
}

static const char *str_field(struct json_object *o, const char *key)
{
	struct json_object *v = field(o, key, json_type_string);

	return v ? json_object_get_string(v) : NULL;
}

static int int_field(struct json_object *o, const char *key, int min, int max, int *ret)
{
	struct json_object *v = field(o, key, json_type_int);
	int64_t n = v ? json_object_get_int64(v) : 0;

	if (!v || n < min || n > max)
		return -EPROTO;
	*ret = (int)n;
	return 0;
}

/* QAPI's `int` carries 64-bit addresses as signed: all ones is -1, or 18446744073709551615. */
static uint64_t u64_field(struct json_object *o, const char *key, uint64_t fallback)
{
	struct json_object *v = field(o, key, json_type_int);

	if (!v)
		return fallback;
	return json_object_get_int64(v) < 0 ? (uint64_t)json_object_get_int64(v) : json_object_get_uint64(v);
}

static int list_of(struct json_object *o, const char *what, struct err *e)
{
	if (json_object_is_type(o, json_type_array))
		return 0;
	return err_set(e, -EPROTO, "%s: the reply is not a list", what);
}

/* --- greeting and replies --------------------------------------------------------------------------------- */

int qmp_take_greeting(struct qmp *q, struct err *e)
{
	struct json_object *msg, *v;
	int major, minor, micro;

	if (!q->n_replies)
		return -EAGAIN;
	msg = take(q->replies, &q->n_replies, 0);
	v = field(field(field(msg, "QMP", json_type_object), "version", json_type_object), "qemu", json_type_object);
	if (int_field(v, "major", 0, INT_MAX, &major) < 0 || int_field(v, "minor", 0, INT_MAX, &minor) < 0 ||
	    int_field(v, "micro", 0, INT_MAX, &micro) < 0) {
		json_object_put(msg);
		return err_set(e, -EPROTO, "QMP: the first message is no greeting with a version");
	}
	snprintf(q->version, sizeof(q->version), "%d.%d.%d", major, minor, micro);
	json_object_put(msg);
	return 0;
}

/* An error without an id is QEMU's answer to something that it could not even parse: it is the one we wait for. */
static bool answers(struct json_object *msg, uint64_t id)
{
	struct json_object *v = NULL;

	if (!json_object_object_get_ex(msg, "id", &v))
		return json_object_object_get_ex(msg, "error", NULL);
	return json_object_is_type(v, json_type_int) && json_object_get_uint64(v) == id;
}

static int parse_reply(struct json_object *msg, struct json_object **ret, struct err *e)
{
	struct json_object *error = field(msg, "error", json_type_object), *value = NULL;
	const char *desc = str_field(error, "desc");

	if (error)
		return err_set(e, -EREMOTEIO, "%s", desc ? desc : "QEMU gave an error without a text");
	if (!json_object_object_get_ex(msg, "return", &value))
		return err_set(e, -EPROTO, "QMP: a reply without a value");
	*ret = json_object_get(value);
	return 0;
}

int qmp_take_reply(struct qmp *q, uint64_t id, struct json_object **ret, struct err *e)
{
	while (q->n_replies) {
		struct json_object *msg = take(q->replies, &q->n_replies, 0);
		int r = answers(msg, id) ? parse_reply(msg, ret, e) : -EAGAIN;

		json_object_put(msg);
		if (r != -EAGAIN)
			return r;
	}
	return -EAGAIN;
}

/* --- threads ------------------------------------------------------------------------------------------------ */

static int by_index(const void *a, const void *b)
{
	const struct qmp_vcpu *x = a, *y = b;

	return (x->index > y->index) - (x->index < y->index);
}

static int parse_vcpu(struct json_object *o, struct qmp_vcpu *v)
{
	struct json_object *props = field(o, "props", json_type_object);

	*v = (struct qmp_vcpu){ .socket = -1, .core = -1, .thread = -1, .node = -1 };
	/* Thread 0 would be ourselves to sched_setaffinity(). */
	if (int_field(o, "cpu-index", 0, INT_MAX, &v->index) < 0 || int_field(o, "thread-id", 1, INT_MAX, &v->tid) < 0)
		return -EPROTO;
	/* Which of them there are depends on the machine. */
	(void)int_field(props, "socket-id", 0, INT_MAX, &v->socket);
	(void)int_field(props, "core-id", 0, INT_MAX, &v->core);
	(void)int_field(props, "thread-id", 0, INT_MAX, &v->thread);
	(void)int_field(props, "node-id", 0, INT_MAX, &v->node);
	return 0;
}

int qmp_parse_vcpus(struct json_object *reply, struct qmp_vcpu **ret, size_t *ret_n, struct err *e)
{
	AUTO_FREE struct qmp_vcpu *v = NULL;
	size_t n = 0;
	int r = list_of(reply, "query-cpus-fast", e);

	for (size_t i = 0; r == 0 && i < json_object_array_length(reply); i++) {
		r = parse_vcpu(json_object_array_get_idx(reply, i), PUSH_ZEROED(v, n));
		if (r < 0)
			err_set(e, r, "query-cpus-fast: entry %zu has no index or no thread", i);
	}
	if (r < 0)
		return r;
	if (n)
		qsort(v, n, sizeof(*v), by_index);
	*ret = STEAL_PTR(v);
	*ret_n = n;
	return 0;
}

int qmp_parse_iothreads(struct json_object *reply, struct qmp_iothread **ret, size_t *ret_n, struct err *e)
{
	AUTO_FREE struct qmp_iothread *v = NULL;
	size_t n = 0;
	int r = list_of(reply, "query-iothreads", e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < json_object_array_length(reply); i++) {
		struct json_object *o = json_object_array_get_idx(reply, i);
		struct qmp_iothread *t = PUSH_ZEROED(v, n);
		const char *id = str_field(o, "id");

		if (!id || strlen(id) >= sizeof(t->id) || int_field(o, "thread-id", 1, INT_MAX, &t->tid) < 0)
			return err_set(e, -EPROTO, "query-iothreads: entry %zu has no usable id or no thread", i);
		memcpy(t->id, id, strlen(id) + 1);
	}
	*ret = STEAL_PTR(v);
	*ret_n = n;
	return 0;
}

int qmp_parse_status(struct json_object *reply, char buf[32], struct err *e)
{
	const char *status = str_field(reply, "status");

	if (!status || strlen(status) >= 32)
		return err_set(e, -EPROTO, "query-status: the reply has no usable status");
	memcpy(buf, status, strlen(status) + 1);
	return 0;
}

int qmp_parse_full_disk(struct json_object *reply, struct qmp_full_disk *ret, struct err *e)
{
	struct qmp_full_disk full = { 0 };
	int r = list_of(reply, "query-block", e);

	for (size_t i = 0; r == 0 && i < json_object_array_length(reply); i++) {
		struct json_object *o = json_object_array_get_idx(reply, i), *in = field(o, "inserted", json_type_object);
		const char *status = str_field(o, "io-status"), *node = str_field(in, "node-name"), *file = str_field(in, "file");

		if (status && strcmp(status, "failed") == 0) {
			*ret = (struct qmp_full_disk){ 0 };
			return 0;
		}
		if (!status || strcmp(status, "nospace") != 0 || *full.node)
			continue;
		snprintf(full.node, sizeof(full.node), "%s", node ? node : "without a name");
		snprintf(full.file, sizeof(full.file), "%s", file ? file : "");
	}
	if (r == 0)
		*ret = full;
	return r;
}

/* --- PCI ------------------------------------------------------------------------------------------------------ */

struct pci_list {
	struct qmp_pci *v;
	size_t n;
};

static void parse_bars(struct json_object *regions, struct qmp_pci *p)
{
	size_t n = regions ? json_object_array_length(regions) : 0;

	for (size_t i = 0; i < n && p->n_bars < (int)ARRAY_SIZE(p->bars); i++) {
		struct json_object *o = json_object_array_get_idx(regions, i);
		const char *type = str_field(o, "type");
		int bar;

		if (!type || int_field(o, "bar", 0, 5, &bar) < 0)
			continue; /* 6 is the ROM */
		p->bars[p->n_bars].memory = strcmp(type, "memory") == 0;
		p->bars[p->n_bars].address = u64_field(o, "address", UINT64_MAX);
		p->bars[p->n_bars].bytes = u64_field(o, "size", 0);
		/* Memory at 0 is what a BAR reads before the firmware has been there. */
		if (p->bars[p->n_bars].memory && p->bars[p->n_bars].address == 0)
			p->bars[p->n_bars].address = UINT64_MAX;
		p->n_bars++;
	}
}

static int parse_function(struct json_object *o, struct qmp_pci *p)
{
	struct json_object *bridge = field(field(o, "pci_bridge", json_type_object), "bus", json_type_object);
	const char *id = str_field(o, "qdev_id");
	int class_code;

	if (int_field(o, "bus", 0, 255, &p->bus) < 0 || int_field(o, "slot", 0, 31, &p->slot) < 0 ||
	    int_field(o, "function", 0, 7, &p->function) < 0 ||
	    int_field(field(o, "class_info", json_type_object), "class", 0, 0xffff, &class_code) < 0 ||
	    (id && strlen(id) >= sizeof(p->qdev_id)))
		return -EPROTO;
	p->class_code = (uint32_t)class_code;
	if (id)
		memcpy(p->qdev_id, id, strlen(id) + 1);
	p->secondary_bus = -1;
	(void)int_field(bridge, "secondary", 0, 255, &p->secondary_bus);
	parse_bars(field(o, "regions", json_type_array), p);
	return 0;
}

/* Depth first.  QMP_DEPTH_MAX bounds the recursion: a bridge takes four levels of JSON. */
static int parse_functions(struct json_object *devices, int parent, struct pci_list *l, struct err *e)
{
	size_t n = devices ? json_object_array_length(devices) : 0;

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(devices, i);
		struct json_object *bridge = field(o, "pci_bridge", json_type_object);
		struct qmp_pci *p = PUSH_ZEROED(l->v, l->n);
		int me = (int)l->n - 1;
		int r;

		p->parent = parent;
		if (parse_function(o, p) < 0)
			return err_set(e, -EPROTO, "query-pci: function %d has no usable address, class or id", me);
		r = parse_functions(field(bridge, "devices", json_type_array), me, l, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int qmp_parse_pci(struct json_object *reply, struct qmp_pci **ret, size_t *ret_n, struct err *e)
{
	struct pci_list l = { 0 };
	int r = list_of(reply, "query-pci", e);

	for (size_t i = 0; r == 0 && i < json_object_array_length(reply); i++)
		r = parse_functions(field(json_object_array_get_idx(reply, i), "devices", json_type_array), -1, &l, e);
	if (r < 0) {
		free(l.v);
		return r;
	}
	*ret = l.v;
	*ret_n = l.n;
	return 0;
}
