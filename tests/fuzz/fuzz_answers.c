/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: recorded answers, and the replies of a program that says it is QEMU.
 * covers: src/core/qemu_answers.c src/core/qemu.c */
#include <json-c/json.h>
#include <stdint.h>
#include <string.h>

#include "gpuvm/qemu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was read can be written, and is the same when it is read again. */
static void check_again(const struct qemu_info *q)
{
	CLEANUP(qemu_info_clear) struct qemu_info again = { 0 };
	const char *text = json_object_to_json_string_ext(q->answers, JSON_C_TO_STRING_PLAIN);
	struct err e;

	if (!q->n_machines || q->features >> QF_N)
		abort();
	for (size_t i = 0; i < q->n_machines; i++)
		if (qemu_machine_vcpus(q, q->machines[i].name) < 0)
			abort();
	if (qemu_info_from_text(text, strlen(text), &again, &e) < 0 || again.features != q->features || again.n_machines != q->n_machines)
		abort();
}

/* Whatever a document is made of, it has the shape of one: only machines and version may be missing. */
static void from_replies(struct json_object *replies)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct json_object *answers = NULL;
	struct err e;

	if (!json_object_is_type(replies, json_type_array) || qemu_answers_make(replies, "-runas user\n", &answers, &e) < 0)
		return;
	if (qemu_info_from_answers(answers, &q, &e) < 0 && !strstr(e.msg, "machine") && !strstr(e.msg, "version"))
		abort();
	json_object_put(answers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	struct json_object *o = json_tokener_parse(text);
	struct err e;

	if (qemu_info_from_text(text, strlen(text), &q, &e) == 0)
		check_again(&q);
	from_replies(o);
	json_object_put(o);
	return 0;
}
