/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: what a hostile QEMU may send.
 *
 * The first byte says how the rest is cut into pieces; then everything that reads a reply gets every reply.
 * covers: src/core/qmp_proto.c src/core/life_events.c */
#include <json-c/json.h>
#include <stdint.h>

#include "gpuvm/lifecycle.h"
#include "gpuvm/plan.h"
#include "gpuvm/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse_all(struct json_object *reply)
{
	AUTO_FREE struct qmp_vcpu *vcpus = NULL;
	AUTO_FREE struct qmp_iothread *iothreads = NULL;
	AUTO_FREE struct qmp_pci *pci = NULL;
	struct qmp_full_disk disk;
	struct err e;
	char status[32];
	size_t n;

	(void)qmp_parse_vcpus(reply, &vcpus, &n, &e);
	(void)qmp_parse_iothreads(reply, &iothreads, &n, &e);
	(void)qmp_parse_status(reply, status, &e);
	(void)qmp_parse_full_disk(reply, &disk, &e);
	if (qmp_parse_pci(reply, &pci, &n, &e) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (pci[i].parent >= (int)i || pci[i].n_bars > 6)
			abort();
}

static void read_event(struct json_object *event)
{
	struct plan plan = { .vm = (char[]){ "demo" } };
	struct life_context c = { .plan = &plan, .status = "io-error", .full_node = "disk-os", .full_file = "" };
	struct life_news n;

	life_read_event(event, &c, &n);
	if (n.ev > EV_NONE || (n.failed && n.asked))
		abort();
}

/* 0: all at once; else pieces of that many bytes. */
static int feed(struct qmp *q, const char *text, size_t len, size_t piece, struct err *e)
{
	int r = 0;

	if (!piece)
		return qmp_feed(q, text, len, e);
	for (size_t at = 0; r == 0 && at < len; at += piece)
		r = qmp_feed(q, text + at, len - at < piece ? len - at : piece, e);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_object *o = NULL;
	struct qmp q;
	struct err e;

	if (!size)
		return 0;
	qmp_init(&q);
	(void)feed(&q, (const char *)data + 1, size - 1, data[0], &e);
	for (size_t i = 0; i < q.n_replies; i++) {
		if (json_object_object_get_ex(q.replies[i], "return", &o))
			parse_all(o);
	}
	(void)qmp_take_greeting(&q, &e);
	for (uint64_t id = 1; q.n_replies; id++) {
		o = NULL;
		(void)qmp_take_reply(&q, id, &o, &e);
		json_object_put(o);
	}
	while ((o = qmp_next_event(&q))) {
		read_event(o);
		json_object_put(o);
	}
	qmp_reset(&q);
	return 0;
}
