/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: /etc/gpuvm/fabric.conf, or the value of [fabric] manager; if it begins with "{", the partitions that Fabric
 * Manager lists.
 * covers: src/core/fabric_map.c src/core/fm_proto.c */
#include <stdint.h>
#include <string.h>

#include "gpuvm/fabric.h"
#include "gpuvm/fabric_manager.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct fabric_map *m)
{
	if (!m->source)
		abort();
	for (size_t i = 0; i < m->n_gpus; i++) {
		if (m->gpus[i].id < 1 || m->gpus[i].id > 32)
			abort();
		for (size_t k = 0; k < i; k++)
			if (m->gpus[i].id == m->gpus[k].id)
				abort();
	}
}

static void from_manager(const char *text)
{
	static const struct fabric_uuid uuids[] = { { { 0, 0x3b, 0, 0 }, "GPU-5f3c4ca1-9a9c-40c4-8a2e-4e2f4f6e3c11" } };
	struct fabric_map known = { .source = (char[]){ "fabric.conf" } }, m = { 0 };
	struct fm_list list = { 0 };
	struct err e = { 0 };

	if (fm_list_parse(text, &list, &e) < 0) {
		if (!*e.msg)
			abort();
		return;
	}
	for (int i = 0; i < list.n; i++)
		if (fm_find_rival(&list, list.v[i].id) == &list.v[i] || fm_list_find(&list, list.v[i].id) != &list.v[i])
			abort();
	*PUSH_ZEROED(known.gpus, known.n_gpus) = (struct fabric_id){ .id = 2, .addr = { 0, 0x4d, 0, 0 } };
	if (fabric_map_from_fm(&list, &known, uuids, ARRAY_SIZE(uuids), &m, &e) == 0)
		check(&m);
	else if (!*e.msg)
		abort();
	fabric_map_clear(&m);
	free(known.gpus);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	struct fabric_map m = { 0 };
	struct problems ps = { 0 };
	struct fm_spec spec;

	(void)fm_spec_parse(text, &spec);
	if (*text == '{') {
		from_manager(text);
		return 0;
	}
	if (fabric_map_parse("fabric.conf", text, &m, &ps) == 0)
		check(&m);
	else if (!ps.n)
		abort();
	for (size_t i = 0; i < ps.n; i++)
		if (strpbrk(ps.v[i].message, "\n\r\x1b"))
			abort();
	fabric_map_clear(&m);
	problems_clear(&ps);
	return 0;
}
