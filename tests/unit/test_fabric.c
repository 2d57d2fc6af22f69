/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NVSwitch fabrics: tables, recognition, physical IDs, and plans for every mix of sizes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/fabric_manager.h"
#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

struct machine {
	struct topology host;
	struct fabric_map map;
	struct host_use use;
	const char *manager, *no_manager;
};

static void machine_clear(struct machine *m)
{
	topology_clear(&m->host);
	fabric_map_clear(&m->map);
	host_use_clear(&m->use);
}

static struct machine machine_made(char *root)
{
	struct machine m = { 0 };
	struct problems ps = { 0 };
	struct err e = { 0 };

	cr_assert(root);
	cr_assert(probe_host(root, &m.host, &e) == 0, "%s", e.msg);
	cr_assert(fabric_map_load(root, &m.map, &ps) == 0);
	fabric_map_apply(&m.map, &m.host);
	mkhost_remove(root);
	return m;
}

static struct machine machine_of(const char *fixture)
{
	return machine_made(mkhost_fixture(fixture));
}

/* The positions of a list like "86 b8" of bus numbers. */
static uint32_t by_bus(const struct fabric *f, const char *buses)
{
	AUTO_FREE char *copy = xstrdup(buses);
	uint32_t set = 0;
	char *save = NULL;

	for (char *s = strtok_r(copy, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		int before = fabric_count(set);

		for (int i = 0; i < f->n_gpus; i++)
			if (f->host->funcs[f->gpus[i]].addr.bus == strtol(s, NULL, 16))
				set |= UINT32_C(1) << i;
		cr_assert(fabric_count(set) == before + 1, "no GPU on bus %s", s);
	}
	return set;
}

/* --- tables ----------------------------------------------------------------------------------------- */

static const struct fabric_platform *const platforms[] = { &fabric_hgx2, &fabric_hgx_a100, &fabric_hgx_h100,
							   &fabric_hgx_b200 };

Test(fabric, tables_hold_together)
{
	for (size_t i = 0; i < ARRAY_SIZE(platforms); i++) {
		const struct fabric_platform *p = platforms[i];
		int total = p->board_gpus * p->boards_max;
		uint32_t singles = 0;

		for (size_t k = 0; k < p->n_partitions; k++) {
			const struct fabric_partition *a = &p->partitions[k];

			cr_expect(a->gpus && a->gpus < UINT64_C(1) << total, "%s %d", p->name, a->id);
			cr_expect(k == 0 || a->id == p->partitions[k - 1].id + 1, "%s %d: ids have gaps", p->name,
				  a->id);
			cr_expect((a->links == 0) == (fabric_count(a->gpus) == 1), "%s %d", p->name, a->id);
			singles |= fabric_count(a->gpus) == 1 ? a->gpus : 0;
			for (size_t j = 0; j < k; j++)
				cr_expect(p->partitions[j].gpus != a->gpus, "%s: %d is %d", p->name, a->id,
					  p->partitions[j].id);
		}
		cr_expect(fabric_count(singles) == total, "%s: a GPU without a partition of its own", p->name);
		cr_expect(fabric_row(p, p->board_gpus) && fabric_row(p, 1) && !fabric_row(p, 3), "%s", p->name);
		for (size_t k = 0; k < p->n_rows; k++)
			cr_expect(p->rows[k].links <= p->rows[k].links_max &&
				  (p->rows[k].switches == 0) == (p->rows[k].gpus == 1));
	}
}

/* As the guide prints them; @ids end with 0. */
Test(fabric, tables_are_those_of_the_guide)
{
	static const struct {
		const struct fabric_platform *p;
		int id, ids[17], links;
	} rows[] = {
		{ &fabric_hgx_h100, 0, { 1, 2, 3, 4, 5, 6, 7, 8 }, 18 },
		{ &fabric_hgx_h100, 1, { 1, 2, 3, 4 }, 18 },
		{ &fabric_hgx_h100, 2, { 5, 6, 7, 8 }, 18 },
		{ &fabric_hgx_h100, 3, { 1, 3 }, 18 },
		{ &fabric_hgx_h100, 4, { 2, 4 }, 18 },
		{ &fabric_hgx_h100, 5, { 5, 7 }, 18 },
		{ &fabric_hgx_h100, 6, { 6, 8 }, 18 },
		{ &fabric_hgx_h100, 14, { 8 }, 0 },
		{ &fabric_hgx_b200, 1, { 1, 2, 3, 4, 5, 6, 7, 8 }, 18 },
		{ &fabric_hgx_b200, 3, { 5, 6, 7, 8 }, 18 },
		{ &fabric_hgx_b200, 4, { 1, 2 }, 18 },
		{ &fabric_hgx_b200, 15, { 8 }, 0 },
		{ &fabric_hgx_a100, 0, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 }, 12 },
		{ &fabric_hgx_a100, 4, { 5, 6, 7, 8, 13, 14, 15, 16 }, 12 },
		{ &fabric_hgx_a100, 6, { 5, 6, 7, 8, 9, 10, 11, 12 }, 12 },
		{ &fabric_hgx_a100, 10, { 13, 14, 15, 16 }, 12 },
		{ &fabric_hgx_a100, 18, { 15, 16 }, 12 },
		{ &fabric_hgx_a100, 34, { 16 }, 0 },
		{ &fabric_hgx2, 3, { 1, 4, 6, 7, 9, 12, 14, 15 }, 5 },
		{ &fabric_hgx2, 4, { 2, 3, 5, 8, 10, 11, 13, 16 }, 5 },
		{ &fabric_hgx2, 7, { 9, 12, 14, 15 }, 5 },
		{ &fabric_hgx2, 12, { 6, 7 }, 5 },
		{ &fabric_hgx2, 32, { 16 }, 0 },
	};
	static const struct {
		const struct fabric_platform *p;
		int gpus, switches, links;
	} full[] = {
		{ &fabric_hgx2, 16, 12, 6 },   { &fabric_hgx2, 8, 6, 6 },        { &fabric_hgx2, 4, 3, 3 },
		{ &fabric_hgx2, 2, 1, 1 },     { &fabric_hgx_a100, 16, 12, 12 }, { &fabric_hgx_a100, 8, 6, 12 },
		{ &fabric_hgx_a100, 4, 3, 6 }, { &fabric_hgx_a100, 2, 1, 2 },    { &fabric_hgx_h100, 8, 4, 18 },
		{ &fabric_hgx_h100, 1, 0, 0 }, { &fabric_hgx_b200, 8, 4, 18 },   { &fabric_hgx_b200, 1, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint32_t want = 0;
		bool found = false;

		for (int k = 0; rows[i].ids[k]; k++)
			want |= UINT32_C(1) << (rows[i].ids[k] - 1);
		for (size_t k = 0; k < rows[i].p->n_partitions; k++)
			found |= rows[i].p->partitions[k].id == rows[i].id && rows[i].p->partitions[k].gpus == want &&
				 rows[i].p->partitions[k].links == rows[i].links;
		cr_expect(found, "%s partition %d", rows[i].p->name, rows[i].id);
	}
	for (size_t i = 0; i < ARRAY_SIZE(full); i++) {
		const struct fabric_row *r = fabric_row(full[i].p, full[i].gpus);

		cr_expect(r && r->switches == full[i].switches && r->links == full[i].links, "%s %d", full[i].p->name,
			  full[i].gpus);
	}
	cr_expect(!fabric_row(&fabric_hgx_h100, 2) && !fabric_row(&fabric_hgx_h100, 4));
}

/* --- recognising ------------------------------------------------------------------------------------ */

Test(fabric, machines_are_recognised)
{
	static const struct {
		const char *fixture;
		const struct fabric_platform *p;
		int gpus, switches;
		bool ids;
	} rows[] = {
		{ "hgx-h100", &fabric_hgx_h100, 8, 4, true },
		{ "xe9680-h200", &fabric_hgx_h100, 8, 4, false },
		{ "dgx2", &fabric_hgx2, 16, 12, false },
		{ "dgx-a100", &fabric_hgx_a100, 8, 6, true },
		{ "dgx-b200", &fabric_hgx_b200, 8, 4, false },
		{ "desktop", NULL, 0, 0, false },
		{ "single-socket-4gpu", NULL, 0, 0, false },
		{ "plain", NULL, 0, 0, false },
		{ "lab", NULL, 0, 0, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(machine_clear) struct machine m = machine_of(rows[i].fixture);
		struct fabric f;
		struct err e = { 0 };

		cr_assert(fabric_init(&f, &m.host, &m.map, &e) == 0, "%s: %s", rows[i].fixture, e.msg);
		cr_expect(f.platform == rows[i].p && !f.unknown, "%s", rows[i].fixture);
		cr_expect(f.n_gpus == rows[i].gpus && f.n_switches == rows[i].switches, "%s: %d, %d", rows[i].fixture,
			  f.n_gpus, f.n_switches);
		cr_expect(fabric_has_ids(&f) == rows[i].ids, "%s", rows[i].fixture);
	}
}

Test(fabric, unknown_generations_have_no_rules)
{
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	struct fabric f;
	struct err e;

	/* A new NVSwitch beside known GPUs: these tell. */
	for (size_t i = 0; i < m.host.n_funcs; i++)
		if (m.host.funcs[i].role == ROLE_NVSWITCH)
			m.host.funcs[i].device = 0x7777;
	cr_assert(fabric_init(&f, &m.host, &m.map, &e) == 0);
	cr_expect(f.platform == &fabric_hgx_h100);
	for (size_t i = 0; i < m.host.n_funcs; i++)
		if (m.host.funcs[i].role == ROLE_GPU)
			m.host.funcs[i].device = 0x8888;
	cr_assert(fabric_init(&f, &m.host, &m.map, &e) == 0);
	cr_expect(!f.platform && f.unknown);
	cr_expect(fabric_sets(&f, FABRIC_SHARED, 0, NULL, 0) == 0);
}

Test(fabric, physical_ids_do_not_follow_addresses)
{
	/* NVIDIA WP-12736-002. */
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	static const struct {
		const char *buses;
		int partition;
	} rows[] = { { "86 b8 87 bb", 1 }, { "0f 41 10 44", 2 }, { "86 87", 3 }, { "b8 bb", 4 },
		     { "0f 10", 5 },       { "41 44", 6 },       { "b8", 8 },    { "0f 10 41 44 86 87 b8 bb", 0 } };
	struct fabric_set s;
	struct fabric f;
	struct err e;

	cr_assert(fabric_init(&f, &m.host, &m.map, &e) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		cr_assert(fabric_find_set(&f, FABRIC_SHARED, by_bus(&f, rows[i].buses), &s), "%s", rows[i].buses);
		cr_expect(s.partition == rows[i].partition, "%s", rows[i].buses);
	}
	cr_expect(!fabric_find_set(&f, FABRIC_SHARED, by_bus(&f, "10 41"), &s));
	cr_expect(!fabric_find_set(&f, FABRIC_SHARED, by_bus(&f, "0f 10 86 87"), &s));
	cr_expect(!fabric_find_set(&f, FABRIC_FULL, by_bus(&f, "0f 10"), &s));
	cr_expect(fabric_find_set(&f, FABRIC_FULL, 0xff, &s) && s.partition == -1);
}

Test(fabric, a_missing_gpu_takes_its_partitions_along)
{
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	struct fabric_set sets[FABRIC_SETS_MAX];
	struct fabric f;
	struct err e;

	/* 0000:86:00.0, physical ID 1, has fallen off the bus. */
	for (size_t i = 0; i < m.host.n_funcs; i++)
		if (m.host.funcs[i].addr.bus == 0x86)
			m.host.funcs[i].class_code = 0;
	topology_finish(&m.host);
	for (size_t i = 0; i < m.map.n_gpus; i++)
		if (m.map.gpus[i].addr.bus == 0x86)
			m.map.gpus[i].addr.bus = 0xee;
	cr_assert(fabric_init(&f, &m.host, &m.map, &e) == 0, "%s", e.msg);
	cr_expect(fabric_sets(&f, FABRIC_SHARED, 4, sets, FABRIC_SETS_MAX) == 1);
	cr_expect(sets[0].partition == 2);
	cr_expect(fabric_sets(&f, FABRIC_SHARED, 2, sets, FABRIC_SETS_MAX) == 3);
	cr_expect(fabric_sets(&f, FABRIC_SHARED, 8, sets, FABRIC_SETS_MAX) == 0);
	cr_expect(fabric_sets(&f, FABRIC_FULL, 8, sets, FABRIC_SETS_MAX) == 0);
}

Test(fabric, full_passthrough_sets_of_a_dgx2)
{
	CLEANUP(machine_clear) struct machine m = machine_of("dgx2");
	static const struct {
		int gpus;
		size_t sets;
	} rows[] = { { 1, 16 }, { 2, 8 }, { 4, 4 }, { 8, 2 }, { 16, 1 }, { 3, 0 }, { 6, 0 } };
	struct fabric_set sets[FABRIC_SETS_MAX];
	struct fabric f;
	struct err e;

	cr_assert(fabric_init(&f, &m.host, NULL, &e) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		cr_expect(fabric_sets(&f, FABRIC_FULL, rows[i].gpus, sets, FABRIC_SETS_MAX) == rows[i].sets, "%d",
			  rows[i].gpus);
	for (int i = 0; i < 12; i++)
		cr_expect(fabric_switch_board(&f, i) == i / 6);
	/* With IDs, in any order, the same numbers of sets. */
	for (int i = 0; i < f.n_gpus; i++) {
		struct fabric_id *id = PUSH_ZEROED(m.map.gpus, m.map.n_gpus);

		id->id = 1 + (i * 5 + 8) % 16;
		id->addr = m.host.funcs[f.gpus[i]].addr;
	}
	cr_assert(fabric_init(&f, &m.host, &m.map, &e) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		cr_expect(fabric_sets(&f, FABRIC_FULL, rows[i].gpus, sets, FABRIC_SETS_MAX) == rows[i].sets,
			  "%d with IDs", rows[i].gpus);
}

/* --- the operator's file ---------------------------------------------------------------------------- */

Test(fabric, the_file_is_read_strictly)
{
	static const struct {
		const char *text, *bad;
	} rows[] = {
		{ "[module-ids]\n1 = 0000:86:00.0\n2 = b8:00.0\n# x\n[fabric]\nbridges = 0000:05:00.0 0000:05:00.1\n",
		  NULL },
		{ "", NULL },
		{ "[module-ids]\n0 = 0000:86:00.0\n", "'0 = 0000:86:00.0' cannot be read" },
		{ "[module-ids]\n1 = 86\n", "'1 = 86' cannot be read" },
		{ "[module-ids]\n1 = 0000:86:00.0 x\n", "cannot be read" },
		{ "[module-ids]\n1 = 86:00.0\n1 = 87:00.0\n", "there already" },
		{ "[module-ids]\n1 = 86:00.0\n2 = 0000:86:00.0\n", "there already" },
		{ "[fabric]\nbridges = 5\n", "'5' is not a PCI address" },
		{ "[fabric]\nbridge = 05:00.0\n", "[fabric] bridge: unknown" },
		{ "[module-ids]\njunk\n", "line 2 cannot be read" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct problems ps = { 0 };
		struct fabric_map m = { 0 };
		int r = fabric_map_parse("f", rows[i].text, &m, &ps);

		cr_expect((r == 0) == !rows[i].bad, "row %zu", i);
		cr_expect(!rows[i].bad || (ps.n && strstr(ps.v[0].message, rows[i].bad)), "row %zu: %s", i,
			  ps.n ? ps.v[0].message : "");
		cr_expect(i || (m.n_gpus == 2 && m.n_bridges == 2 && m.gpus[1].id == 2 && m.gpus[1].addr.bus == 0xb8));
		fabric_map_clear(&m);
		problems_clear(&ps);
	}
}

Test(fabric, a_file_of_another_machine_is_refused)
{
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	struct fabric f;
	struct err e;

	m.map.gpus[0].addr.bus = 0xee;
	cr_expect(fabric_init(&f, &m.host, &m.map, &e) == -EINVAL);
	cr_expect(strstr(e.msg, "0000:0f:00.0 has no physical ID"), "%s", e.msg);
	m.map.gpus[0].addr.bus = 0x03; /* an NVSwitch */
	cr_expect(fabric_init(&f, &m.host, &m.map, &e) == -EINVAL);
	cr_expect(strstr(e.msg, "is not a GPU"), "%s", e.msg);
}

/* --- Fabric Manager --------------------------------------------------------------------------------- */

#define GPU(id, uuid, bdf)                                                                                             \
	"{\"physicalId\":" #id ",\"uuid\":\"" uuid "\",\"pciBusId\":\"" bdf                                            \
	"\",\"numNvLinksAvailable\":18,\"maxNumNvLinks\":18}"
#define FM(...) "{\"partitionInfo\":[{\"partitionId\":3,\"isActive\":1,\"numGpus\":2,\"gpuInfo\":[" __VA_ARGS__ "]}]}"
#define NO_BDF  "00000000:00:00.0"

Test(fabric, fabric_manager_names_gpus)
{
	static const struct {
		const char *text, *known;
		int r;
		int bus; /* of physical ID 3 */
	} rows[] = {
		{ FM(GPU(1, "GPU-a", "00000000:86:00.0") "," GPU(3, "GPU-b", "00000000:87:00.0")), "", 0, 0x87 },
		{ FM(GPU(1, "GPU-a", NO_BDF) "," GPU(3, "gpu-B", NO_BDF)), "", 0, 0x87 },
		/* Neither address nor UUID: the number, from the operator. */
		{ FM(GPU(1, "", NO_BDF) "," GPU(3, "", NO_BDF)), "1 = 86:00.0\n3 = bb:00.0\n", 0, 0xbb },
		{ FM(GPU(1, "", NO_BDF) "," GPU(3, "", NO_BDF)), "1 = 86:00.0\n", -ENOENT, 0 },
		{ FM(GPU(1, "", NO_BDF) "," GPU(3, "GPU-unknown", NO_BDF)), "", -ENOENT, 0 },
		/* A number never overrides an identity. */
		{ FM(GPU(1, "GPU-a", "00000000:86:00.0") "," GPU(3, "GPU-b", "00000000:87:00.0")), "3 = bb:00.0\n",
		  -EEXIST, 0 },
		{ FM(GPU(1, "GPU-b", "00000000:86:00.0")), "", -EEXIST, 0 },
		{ FM(GPU(1, "", "00000000:86:00.0") "," GPU(1, "", "00000000:87:00.0")), "", -EEXIST, 0 },
		{ "{}", "", -EPROTO, 0 },
		{ "[]", "", -EPROTO, 0 },
		{ "{\"partitionInfo\":[{\"partitionId\":3}]}", "", -EPROTO, 0 },
		{ FM("{}"), "", -EPROTO, 0 },
		{ FM(GPU(0, "", "00000000:86:00.0")), "", -EPROTO, 0 },
		{ FM(GPU(33, "", "00000000:86:00.0")), "", -EPROTO, 0 },
		{ FM(GPU(1, "", "00000000:86:00.0") "," GPU(3, "", "00000000:86:00.0")), "", -EEXIST, 0 },
	};
	static const struct fabric_uuid uuids[] = { { { 0, 0x86, 0, 0 }, "GPU-a" }, { { 0, 0x87, 0, 0 }, "GPU-b" } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *text = xasprintf("[module-ids]\n%s", rows[i].known);
		AUTO_FREE struct fm_list *list = xcalloc(1, sizeof(*list));
		struct fabric_map known = { 0 }, m = { 0 };
		struct problems ps = { 0 };
		struct err e = { 0 };
		int r;

		cr_assert(fabric_map_parse("f", text, &known, &ps) == 0);
		r = fm_list_parse(rows[i].text, list, &e);
		if (r == 0)
			r = fabric_map_from_fm(list, &known, uuids, ARRAY_SIZE(uuids), &m, &e);
		cr_expect(r == rows[i].r, "row %zu: %s", i, e.msg);
		if (r == 0) {
			cr_expect(m.n_partitions == 1 && m.partitions[0].id == 3 && m.partitions[0].active &&
				  m.partitions[0].gpus == 5 && m.partitions[0].links == 18);
			cr_expect(m.n_gpus == 2 && m.gpus[1].id == 3 && m.gpus[1].addr.bus == rows[i].bus, "row %zu",
				  i);
		}
		fabric_map_clear(&m);
		fabric_map_clear(&known);
	}
}

/* --- plans ------------------------------------------------------------------------------------------ */

static int plan_text(const struct machine *m, const char *text, struct plan *ret, struct problems *ps)
{
	struct qemu_info q = fake_qemu("10.0");
	struct plan_request req = { .host = &m->host,
				    .use = &m->use,
				    .fabric = &m->map,
				    .fabric_manager = m->manager,
				    .no_manager = m->no_manager,
				    .qemu = &q,
				    .rundir = "/run/gpuvm/t",
				    .statedir = "/var/lib/gpuvm",
				    .foreign_host = true };
	struct vm_config vm = { 0 };
	int r = config_parse("t.ini", text, strlen(text), NULL, &vm, ps);

	req.vm = &vm;
	if (r == 0)
		r = plan_make(&req, ret, ps);
	config_clear(&vm);
	return r;
}

static struct plan planned(const struct machine *m, const char *text)
{
	struct problems ps = { 0 };
	struct plan p = { 0 };

	if (plan_text(m, text, &p, &ps) < 0) {
		problems_print(&ps, stderr);
		cr_assert_fail("cannot be planned:\n%s", text);
	}
	return p;
}

/* The code of the first problem; a static string. */
static const char *refused(const struct machine *m, const char *text)
{
	struct problems ps = { 0 };
	struct plan p = { 0 };
	const char *code = "";

	if (plan_text(m, text, &p, &ps) == 0)
		plan_clear(&p);
	else if (ps.n)
		code = ps.v[0].code;
	problems_clear(&ps);
	return code;
}

static bool device_used(const struct machine *m, const struct pci_addr *a)
{
	for (size_t i = 0; i < m->use.n_devices; i++)
		if (pci_addr_cmp(&m->use.devices[i].addr, a) == 0)
			return true;
	return false;
}

/* The VM runs from now on. */
static void run(struct machine *m, const struct plan *p)
{
	struct used_cpus *cpus = PUSH_ZEROED(m->use.cpus, m->use.n_cpus);

	for (size_t i = 0; i < p->n_devices; i++) {
		cr_assert(!device_used(m, &p->devices[i].addr), "%s given twice", p->devices[i].id);
		PUSH_ZEROED(m->use.devices, m->use.n_devices)->addr = p->devices[i].addr;
	}
	for (size_t i = 0; i < p->n_vcpus; i++) {
		struct cpuset one = { 0 };

		cpuset_add(&one, p->vcpus[i].host_cpu);
		for (size_t k = 0; k < m->use.n_cpus; k++)
			cr_assert(!cpuset_intersects(&m->use.cpus[k].cpus, &one), "CPU %d given twice",
				  p->vcpus[i].host_cpu);
		cpuset_add(&cpus->cpus, p->vcpus[i].host_cpu);
	}
	for (size_t i = 0; i < p->n_nodes; i++) {
		struct used_memory *mem = PUSH_ZEROED(m->use.memory, m->use.n_memory);

		mem->host_node = p->nodes[i].host_node;
		mem->bytes = p->nodes[i].memory_bytes;
		mem->page_bytes = p->nodes[i].page_bytes;
	}
	if (p->fabric.mode != FABRIC_NONE) {
		struct used_fabric *f = PUSH_ZEROED(m->use.fabrics, m->use.n_fabrics);

		f->mode = p->fabric.mode;
		f->partition = p->fabric.partition;
	}
}

static int count_role(const struct plan *p, enum pci_role role)
{
	int n = 0;

	for (size_t i = 0; i < p->n_devices; i++)
		n += p->devices[i].role == role;
	return n;
}

/* One VM of @size beside those that run: it must be there, and right. */
static void add_vm(struct machine *m, int size, enum fabric_mode mode, const char *mix)
{
	AUTO_FREE char *text = xasprintf("[vm]\nname = t\n[place]\ngpus = %d\nnics = none\nnvme = none\n", size);
	struct fabric_set s;
	struct problems ps = { 0 };
	struct plan p = { 0 };
	struct fabric f;
	struct err e;
	uint32_t set = 0;

	if (plan_text(m, text, &p, &ps) < 0) {
		problems_print(&ps, stderr);
		cr_assert_fail("no room for %d in the mix %s", size, mix);
	}
	cr_assert(fabric_init(&f, &m->host, &m->map, &e) == 0);
	for (size_t i = 0; i < p.n_devices; i++)
		if (p.devices[i].role == ROLE_GPU)
			set |= UINT32_C(1) << fabric_position(&f, topology_find_func(&m->host, &p.devices[i].addr));
	cr_assert(fabric_count(set) == size);
	cr_assert(p.fabric.mode == mode, "%d in %s", size, mix);
	cr_assert(fabric_find_set(&f, mode, set, &s), "%d in %s: not a set of the fabric", size, mix);
	cr_assert(s.partition == p.fabric.partition);
	cr_assert(count_role(&p, ROLE_NVSWITCH) == (mode == FABRIC_FULL ? fabric_row(f.platform, size)->switches : 0));
	run(m, &p);
	plan_clear(&p);
}

/* One after the other, then undone. */
static void try_mix(struct machine *m, const int *sizes, int n, enum fabric_mode mode)
{
	AUTO_FREE char *mix = xstrdup("");

	for (int i = 0; i < n; i++) {
		char *next = xasprintf("%s %d", mix, sizes[i]);

		free(mix);
		mix = next;
	}
	for (int i = 0; i < n; i++)
		add_vm(m, sizes[i], mode, mix);
	host_use_clear(&m->use);
	for (int i = n; i-- > 0;)
		add_vm(m, sizes[i], mode, mix);
	host_use_clear(&m->use);
}

/* Every mix of powers of two up to @max whose sum is at most @room, largest first and smallest first. */
static int try_mixes(struct machine *m, int *sizes, int n, int max, int room, enum fabric_mode mode)
{
	int mixes = 0;

	if (n) {
		try_mix(m, sizes, n, mode);
		mixes++;
	}
	for (int size = max; size >= 1; size /= 2) {
		if (size > room)
			continue;
		sizes[n] = size;
		mixes += try_mixes(m, sizes, n + 1, size, room - size, mode);
	}
	return mixes;
}

Test(fabric, every_mix_fits_on_a_dgx2, .timeout = 120)
{
	CLEANUP(machine_clear) struct machine m = machine_of("dgx2");
	int sizes[16], mixes = try_mixes(&m, sizes, 0, 16, 16, FABRIC_FULL);

	cr_expect(mixes == 201);
}

Test(fabric, every_mix_fits_on_an_hgx_h100, .timeout = 60)
{
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	int sizes[8], mixes = try_mixes(&m, sizes, 0, 8, 8, FABRIC_SHARED);

	cr_expect(mixes == 35);
}

Test(fabric, every_mix_fits_on_a_dgx_a100, .timeout = 60)
{
	CLEANUP(machine_clear) struct machine m = machine_of("dgx-a100");
	int sizes[8], mixes = try_mixes(&m, sizes, 0, 8, 8, FABRIC_SHARED);

	cr_expect(mixes == 35);
}

#define VM                "[vm]\nname = t\n"
#define PLACE(n)          "[place]\ngpus = " #n "\nnics = none\nnvme = none\n"
#define DEVICE(name, bdf) "[device " name "]\npci = " bdf "\n"

Test(fabric, gpus_by_name_are_held_against_the_same_sets)
{
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	struct plan p = planned(&m, VM DEVICE("a", "86:00.0") DEVICE("b", "87:00.0"));

	cr_expect(p.fabric.mode == FABRIC_SHARED && p.fabric.partition == 3);
	plan_clear(&p);
	/* One by name, the others chosen to it. */
	p = planned(&m, VM PLACE(3) DEVICE("a", "b8:00.0"));
	cr_expect(p.fabric.partition == 1 && p.fabric.n_ids == 4);
	plan_clear(&p);
	cr_expect_str_eq(refused(&m, VM DEVICE("a", "86:00.0") DEVICE("b", "b8:00.0")), "fabric-not-allowed");
	cr_expect_str_eq(refused(&m, VM PLACE(4) "[fabric]\npartition = 3\n"), "fabric-not-allowed");
	cr_expect_str_eq(refused(&m, VM PLACE(4) "[fabric]\npartition = 77\n"), "fabric-not-allowed");
	cr_expect_str_eq(refused(&m, VM PLACE(4) "socket = 0\n[fabric]\npartition = 1\n"), "fabric-not-allowed");
	cr_expect_str_eq(refused(&m, VM PLACE(4) DEVICE("s", "03:00.0") "[fabric]\nmode = shared\n"),
			 "fabric-not-allowed");
	cr_expect_str_eq(refused(&m, VM PLACE(2) DEVICE("s", "03:00.0")), "fabric-not-allowed");
	cr_expect_str_eq(refused(&m, VM PLACE(4) DEVICE("s", "03:00.0") "[fabric]\nmode = none\n"),
			 "fabric-not-allowed");
}

Test(fabric, parts_of_every_set_are_taken)
{
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	struct plan p = planned(&m, VM DEVICE("a", "86:00.0"));

	run(&m, &p);
	plan_clear(&p);
	p = planned(&m, VM DEVICE("a", "0f:00.0"));
	run(&m, &p);
	plan_clear(&p);
	/* Six are free, three on each socket. */
	cr_expect_str_eq(refused(&m, VM PLACE(4)), "partition-busy");
	cr_expect_str_eq(refused(&m, VM PLACE(4) "[fabric]\npartition = 1\n"), "partition-busy");
	cr_expect_str_eq(refused(&m, VM PLACE(8)), "gpu-busy");
	cr_expect_str_eq(refused(&m, VM PLACE(2) "[fabric]\nmode = full\n"), "fabric-busy");
	p = planned(&m, VM PLACE(2));
	cr_expect(p.fabric.partition == 6, "the first pair of which nobody has a part");
	plan_clear(&p);
}

static bool warns(const struct plan *p, const char *code)
{
	for (size_t i = 0; i < p->n_warnings; i++)
		if (!strcmp(p->warnings[i].code, code))
			return true;
	return false;
}

/* The list that Fabric Manager has given, with which partitions are active, and who activates them. */
Test(fabric, planned_with_fabric_manager)
{
	CLEANUP(machine_clear) struct machine m = machine_of("hgx-h100");
	struct json_object *o;
	struct err e = { 0 };
	struct plan p, again = { 0 };

	m.map.partitions = xcalloc(fabric_hgx_h100.n_partitions, sizeof(*m.map.partitions));
	m.map.n_partitions = fabric_hgx_h100.n_partitions;
	memcpy(m.map.partitions, fabric_hgx_h100.partitions, m.map.n_partitions * sizeof(*m.map.partitions));
	m.manager = "/opt/fmpm 10.0.0.2";
	p = planned(&m, VM PLACE(2) "[fabric]\nmode = shared\npartition = 3\n");
	cr_expect(p.fabric.partition == 3 && !strcmp(p.fabric.manager, m.manager) && !warns(&p, "partition-by-hand"));
	o = plan_to_json(&p);
	cr_assert(plan_from_json(o, &again, &e) == 0, "%s", e.msg);
	cr_expect_str_eq(again.fabric.manager, m.manager);
	plan_clear(&again);
	json_object_object_del(json_object_object_get(o, "fabric"), "manager");
	cr_assert(plan_from_json(o, &again, &e) == 0 && !again.fabric.manager, "of an earlier version: %s", e.msg);
	json_object_put(o);
	plan_clear(&again);
	plan_clear(&p);
	/* One that is active for nobody that we know is not offered, nor what overlaps it; meant by number it is taken over. */
	m.map.partitions[3].active = true;
	cr_assert(m.map.partitions[3].id == 3);
	p = planned(&m, VM PLACE(4) "[fabric]\nmode = shared\n");
	cr_expect(p.fabric.partition == 2);
	plan_clear(&p);
	cr_expect_str_eq(refused(&m, VM PLACE(4) "[fabric]\npartition = 1\n"), "partition-busy");
	cr_expect_str_eq(refused(&m, VM PLACE(8) "[fabric]\nmode = shared\n"), "partition-busy");
	p = planned(&m, VM PLACE(2) "[fabric]\npartition = 3\n");
	plan_clear(&p);
	p = planned(&m, VM PLACE(2) "[fabric]\nmode = shared\n");
	cr_expect(p.fabric.partition != 3);
	plan_clear(&p);
	/* Nobody to activate it. */
	m.manager = NULL;
	m.no_manager = "there is no fmpm";
	cr_expect_str_eq(refused(&m, VM PLACE(2) "[fabric]\nmode = shared\n"), "fabric-no-manager");
	p = planned(&m, VM PLACE(2) "[fabric]\nmode = shared\nmanager = none\n");
	cr_expect(!p.fabric.manager && warns(&p, "partition-by-hand"));
	plan_clear(&p);
	p = planned(&m, VM PLACE(8) "[fabric]\nmode = full\n");
	plan_clear(&p);
	cr_expect_str_eq(refused(&m, VM "[fabric]\nmanager = one two three\n"), "bad-value");
}

Test(fabric, a_vm_for_fabric_manager)
{
	CLEANUP(machine_clear) struct machine m = machine_of("dgx-b200");
	CLEANUP(machine_clear) struct machine h = machine_of("hgx-h100");
	struct plan p = planned(&h, VM DEVICE("a", "03:00.0") DEVICE("b", "04:00.0") DEVICE("c", "05:00.0")
					    DEVICE("d", "06:00.0"));

	cr_expect(p.fabric.mode == FABRIC_NONE && count_role(&p, ROLE_NVSWITCH) == 4);
	plan_clear(&p);
	cr_expect_str_eq(refused(&m, VM DEVICE("nic", "05:00.0")), "fabric-not-allowed");
	p = planned(&m, VM DEVICE("nic", "05:00.0") "force = on\n");
	plan_clear(&p);
	/* Bridge functions that cannot be found: their vital product data were not readable. */
	for (size_t i = 0; i < m.host.n_funcs; i++)
		m.host.funcs[i].manages_nvlink = false;
	topology_finish(&m.host);
	cr_expect_str_eq(refused(&m, VM PLACE(8) "[fabric]\nmode = full\n"), "nvswitch-short");
	*PUSH_ZEROED(m.map.bridges, m.map.n_bridges) = (struct pci_addr){ 0, 5, 0, 0 };
	fabric_map_apply(&m.map, &m.host);
	cr_expect_str_eq(refused(&m, VM PLACE(8) "[fabric]\nmode = full\n"), "nvswitch-short");
	for (uint8_t fn = 1; fn < 4; fn++)
		*PUSH_ZEROED(m.map.bridges, m.map.n_bridges) = (struct pci_addr){ 0, 5, 0, fn };
	fabric_map_apply(&m.map, &m.host);
	p = planned(&m, VM PLACE(8) "[fabric]\nmode = full\n");
	cr_expect(count_role(&p, ROLE_FABRIC) == 4);
	cr_expect(count_role(&p, ROLE_NIC) == 0);
	plan_clear(&p);
	/* Never as somebody's NICs. */
	p = planned(&m, VM "[place]\ngpus = 4\nnics = 8\n[fabric]\nmode = none\n");
	cr_expect(count_role(&p, ROLE_FABRIC) == 0);
	plan_clear(&p);
}

Test(fabric, machines_without_fabric_have_no_mode)
{
	CLEANUP(machine_clear) struct machine m = machine_of("single-socket-4gpu");
	struct plan p = planned(&m, VM PLACE(3));

	cr_expect(p.fabric.mode == FABRIC_NONE && p.fabric.partition == -1 && p.n_warnings == 0);
	plan_clear(&p);
	cr_expect_str_eq(refused(&m, VM PLACE(2) "[fabric]\nmode = full\n"), "fabric-missing");
	cr_expect_str_eq(refused(&m, VM PLACE(2) "[fabric]\npartition = 1\n"), "fabric-missing");
}

/* --- shares of nodes without GPUs ------------------------------------------------------------------- */

Test(fabric, shares_add_up_to_the_machine)
{
	CLEANUP(machine_clear) struct machine m = machine_of("dgx-a100");
	size_t vcpus = 0;
	uint64_t memory = 0;

	for (int i = 0; i < 8; i++) {
		struct plan p = planned(&m, VM PLACE(1));

		cr_expect(p.n_nodes == 2, "the node of the GPU and one without");
		cr_expect(p.n_vcpus == 28, "7 of 15 cores on each");
		vcpus += p.n_vcpus;
		memory += plan_memory_bytes(&p);
		run(&m, &p);
		plan_clear(&p);
	}
	cr_expect(vcpus == 224);
	cr_expect(memory == UINT64_C(960) << 30);
}

Test(fabric, one_bare_node_serves_two)
{
	/* Three nodes on a socket, two of them with GPUs; on the other one GPU and two bare nodes. */
	CLEANUP(machine_clear)
	struct machine m = machine_made(
		mkhost_text("host three\ncpu GenuineIntel threads=1\niommu intel\n"
			    "node 0 socket=0 cpus=0-7 memory=32G 2M=8192/8192\nnode 1 socket=0 cpus=8-15 memory=32G "
			    "2M=8192/8192\nnode 2 socket=0 cpus=16-23 memory=32G 2M=8192/8192\n"
			    "node 3 socket=1 cpus=24-31 memory=32G 2M=8192/8192\nnode 4 socket=1 cpus=32-39 memory=32G "
			    "2M=8192/8192\nnode 5 socket=1 cpus=40-47 memory=32G 2M=8192/8192\n"
			    "kind rp 8086:352a 060400 pcie=root link=16x16 acs\nkind gpu 10de:26b9 030200 "
			    "bars=16M,1G:p link=16x16\n"
			    "bus 0000:10 node=0\n\t10:01.0 rp\n\t\t11:00.0 gpu\nbus 0000:20 node=2\n\t20:01.0 "
			    "rp\n\t\t21:00.0 gpu\nbus 0000:30 node=4\n\t30:01.0 rp\n\t\t31:00.0 gpu\n"));
	struct plan p = planned(&m, VM "[place]\ngpus = 1\ngpu-index = 0\n");

	/* Seven of the eight cores of node 0, and half of those of node 1. */
	cr_expect(p.n_nodes == 2 && p.nodes[0].host_node == 0 && p.nodes[1].host_node == 1);
	cr_expect(p.n_vcpus == 7 + 3);
	plan_clear(&p);
	p = planned(&m, VM "[place]\ngpus = 1\ngpu-index = 2\n");
	cr_expect(p.n_nodes == 3 && p.nodes[0].host_node == 3 && p.nodes[2].host_node == 5);
	cr_expect(p.n_vcpus == 3 * 7);
	plan_clear(&p);
	/* What fits on the GPU's own node stays there. */
	p = planned(&m, VM "[place]\ngpus = 1\ngpu-index = 2\n[cpu]\nvcpus = 4\n[memory]\nsize = 8G\n");
	cr_expect(p.n_nodes == 1 && p.nodes[0].host_node == 4);
	plan_clear(&p);
	/* Pins say which nodes are meant. */
	p = planned(&m, VM "[place]\ngpus = 1\ngpu-index = 2\n[cpu]\npin = 33,34,41,42\n");
	cr_expect(p.n_nodes == 2 && p.nodes[0].host_node == 4 && p.nodes[1].host_node == 5);
	plan_clear(&p);
}

/* --- functions that belong together ----------------------------------------------------------------- */

Test(fabric, companions_of_a_card)
{
	CLEANUP(machine_clear)
	struct machine m = machine_made(
		mkhost_text("host card\ncpu GenuineIntel threads=1\niommu intel\nnode 0 socket=0 cpus=0-7 memory=32G\n"
			    "kind rp 8086:352a 060400 pcie=root link=16x16 acs\nkind gpu 10de:1e07 030000 "
			    "bars=16M,256M:p link=16x16\nkind snd 10de:10f7 040300 bars=16K\n"
			    "kind usb 10de:1ad6 0c0330 bars=256K:p\nkind ucsi 10de:1ad7 0c8000 bars=4K\n"
			    "bus 0000:00 node=0\n\t00:01.0 rp\n\t\t01:00.0 gpu group=9\n\t\t01:00.1 snd "
			    "group=9\n\t\t01:00.2 usb group=9\n\t\t01:00.3 ucsi group=9\n"));
	struct plan p = planned(&m, VM PLACE(1));

	cr_assert(p.n_devices == 4);
	cr_expect_str_eq(p.devices[3].id, "gpu0.3");
	cr_expect(p.devices[1].role == ROLE_OTHER && p.devices[3].role == ROLE_OTHER);
	plan_clear(&p);
}

Test(fabric, virtual_functions_by_name_only)
{
	CLEANUP(machine_clear) struct machine m = machine_of("plain");
	struct plan p = planned(&m, VM DEVICE("vf", "41:01.1") "[memory]\nhugepages = off\nsize = 2G\n");

	cr_expect(p.n_devices == 1 && p.devices[0].role == ROLE_NIC);
	plan_clear(&p);
	/* The host bridges over the physical one, too; without that it is the virtual functions. */
	for (size_t i = 0; i < m.host.n_funcs; i++) {
		free(m.host.funcs[i].host_use);
		m.host.funcs[i].host_use = NULL;
	}
	cr_expect_str_eq(refused(&m, VM DEVICE("pf", "41:00.0")), "sriov-active");
}
