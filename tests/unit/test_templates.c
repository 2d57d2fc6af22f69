/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sizes that a machine can be cut into. */
#include <criterion/criterion.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/probe.h"
#include "gpuvm/templates.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

struct setup {
	char *root;
	struct topology host;
	struct fabric_map fabric;
	struct qemu_info qemu;
	struct host_use use;
	struct plan_request req;
};

static void setup_init(struct setup *s, const char *fixture)
{
	struct problems ps = { 0 };
	struct err e = { 0 };

	*s = (struct setup){ .root = mkhost_fixture(fixture), .qemu = fake_qemu("10.0") };
	cr_assert(s->root && probe_host(s->root, &s->host, &e) == 0, "%s", e.msg);
	cr_assert(fabric_map_load(s->root, &s->fabric, &ps) == 0);
	fabric_map_apply(&s->fabric, &s->host);
	s->req = (struct plan_request){ .host = &s->host,
					.use = &s->use,
					.fabric = &s->fabric,
					.qemu = &s->qemu,
					.rundir = "/run/gpuvm",
					.statedir = "/var/lib/gpuvm",
					.foreign_host = true };
}

static void setup_clear(struct setup *s)
{
	host_use_clear(&s->use);
	topology_clear(&s->host);
	fabric_map_clear(&s->fabric);
	mkhost_remove(s->root);
}

/* "GPUS:FIT/EMPTY ..." */
static char *fits(const struct template_size *v, size_t n)
{
	char *out = xstrdup("");

	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *before = out;

		out = xasprintf("%s%s%d:%d/%d", before, i ? " " : "", v[i].gpus, v[i].fit, v[i].fit_empty);
	}
	return out;
}

static void check_fits(struct setup *s, const char *want)
{
	size_t n;
	struct template_size *v = templates_make(&s->req, &n);
	AUTO_FREE char *got = fits(v, n);

	cr_expect_str_eq(got, want);
	for (size_t i = 0; i < n; i++)
		cr_expect((v[i].why != NULL) == (v[i].fit == 0), "%d GPUs: a reason exactly where none fits", v[i].gpus);
	templates_free(v, n);
}

/* Plan one VM for real and let it run. */
static void run_vm(struct setup *s, const char *text, struct plan *ret)
{
	struct plan_request req = s->req;
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };

	req.vm = &vm;
	cr_assert(config_parse("vm.ini", text, strlen(text), NULL, &vm, &ps) == 0 && plan_make(&req, ret, &ps) == 0);
	host_use_add(&s->use, ret, 1);
	config_clear(&vm);
}

Test(templates, what_is_offered_can_be_had)
{
	struct template_size *v;
	struct plan p = { 0 };
	struct setup s;
	size_t n;
	int nics = 0;

	setup_init(&s, "xe9680-h200");
	v = templates_make(&s.req, &n);
	run_vm(&s, "[vm]\nname = a\n[place]\ngpus = 4\n", &p);
	cr_assert(n == 4 && v[2].gpus == 4);
	for (size_t i = 0; i < p.n_devices; i++)
		nics += p.devices[i].role == ROLE_NIC;
	cr_expect(v[2].vcpus == (int)p.n_vcpus && v[2].memory_bytes == plan_memory_bytes(&p) && v[2].nics == nics && nics == 4);
	templates_free(v, n);
	plan_clear(&p);
	setup_clear(&s);
}

Test(templates, running_vms_count)
{
	struct plan p = { 0 };
	struct setup s;

	setup_init(&s, "xe9680-h200");
	check_fits(&s, "1:8/8 2:4/4 4:2/2 8:1/1");
	run_vm(&s, "[vm]\nname = a\n[place]\ngpus = 2\n", &p);
	check_fits(&s, "1:6/8 2:3/4 4:1/2 8:0/1");
	/* QEMU has its pages: the host's counters say so, and give them back when it ends. */
	for (size_t i = 0; i < s.use.n_memory; i++) {
		struct host_node *h = &s.host.nodes[topology_find_node(&s.host, s.use.memory[i].host_node)];

		s.use.memory[i].allocated = true;
		for (size_t k = 0; k < h->n_pools; k++)
			if (h->pools[k].page_bytes == s.use.memory[i].page_bytes)
				h->pools[k].free -= s.use.memory[i].bytes / s.use.memory[i].page_bytes;
	}
	check_fits(&s, "1:6/8 2:3/4 4:1/2 8:0/1");
	plan_clear(&p);
	setup_clear(&s);
}

/* The last size is the whole machine also where its GPUs are no power of two; what the fabric forbids fits zero times. */
Test(templates, other_machines)
{
	static const struct {
		const char *fixture, *want;
	} rows[] = { { "dgx2", "1:16/16 2:8/8 4:4/4 8:2/2 16:1/1" },
		     { "desktop", "1:1/1" },
		     { "plain", "" } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct setup s;

		setup_init(&s, rows[i].fixture);
		check_fits(&s, rows[i].want);
		setup_clear(&s);
	}
}

Test(templates, json_and_table)
{
	struct json_object *o, *first, *fit;
	AUTO_FREE char *text = NULL;
	struct template_size *v;
	struct setup s;
	size_t n, len;
	FILE *out = open_memstream(&text, &len);

	setup_init(&s, "xe9680-h200");
	v = templates_make(&s.req, &n);
	o = templates_to_json(v, n);
	first = json_object_array_get_idx(o, 0);
	cr_expect(json_object_object_get_ex(first, "fit", &fit) && json_object_get_int(fit) == 8);
	templates_print(v, n, out);
	fclose(out);
	cr_expect(strstr(text, "   4     92    960 GiB     1 GiB     4     6         0 none    2 of 2\n"), "%s", text);
	json_object_put(o);
	templates_free(v, n);
	setup_clear(&s);
}
