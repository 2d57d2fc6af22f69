/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hwloc's XML: what it says of a machine must be what the machine itself says, as far as it goes. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <hwloc.h>
#include <string.h>
#include <unistd.h>

#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

/* What `lstopo --whole-io x.xml` would write on the machine: path, owned. */
static char *export_xml(const char *root)
{
	char *path = xstrdup("/tmp/gpuvm-test-xml-XXXXXX");
	int fd = mkstemp(path);
	hwloc_topology_t h;

	cr_assert(ge(int, fd, 0));
	close(fd);
	setenv("HWLOC_FSROOT", root, 1);
	setenv("HWLOC_COMPONENTS", "linux,-x86,stop", 1);
	setenv("HWLOC_HIDE_ERRORS", "2", 1);
	cr_assert(eq(int, hwloc_topology_init(&h), 0));
	hwloc_topology_set_io_types_filter(h, HWLOC_TYPE_FILTER_KEEP_ALL);
	cr_assert(eq(int, hwloc_topology_load(h), 0));
	cr_assert(eq(int, hwloc_topology_export_xml(h, path, 0), 0));
	hwloc_topology_destroy(h);
	unsetenv("HWLOC_FSROOT");
	unsetenv("HWLOC_COMPONENTS");
	unsetenv("HWLOC_HIDE_ERRORS");
	return path;
}

/* A fixture, and the same machine from its XML. */
static void probe_both(const char *fixture, struct topology *ret_host, struct topology *ret_xml)
{
	char *root = mkhost_fixture(fixture);
	AUTO_FREE char *xml = export_xml(root);
	struct err e = { 0 };

	cr_assert(eq(int, probe_host(root, ret_host, &e), 0), "%s", e.msg);
	cr_assert(eq(int, probe_topology_xml(xml, ret_xml, &e), 0), "%s", e.msg);
	unlink(xml);
	mkhost_remove(root);
}

static void assert_same_nodes(const struct topology *a, const struct topology *b)
{
	cr_assert(eq(sz, a->n_nodes, b->n_nodes));
	cr_assert(eq(sz, a->n_cpus, b->n_cpus));
	cr_assert(eq(int, a->n_sockets, b->n_sockets));
	for (size_t i = 0; i < a->n_nodes; i++) {
		const struct host_node *x = &a->nodes[i], *y = &b->nodes[i];

		cr_assert(eq(int, x->id, y->id));
		cr_assert(eq(int, x->socket, y->socket));
		cr_assert(cpuset_equal(&x->cpus, &y->cpus));
		cr_assert(eq(u64, x->mem_bytes, y->mem_bytes));
		for (size_t k = 0; k < x->n_pools; k++)
			cr_assert(eq(u64, host_node_pool(y, x->pools[k].page_bytes)->total, x->pools[k].total));
		for (size_t k = 0; x->distances && a->n_nodes > 1 && k < a->n_nodes; k++)
			cr_assert(eq(int, x->distances[k], y->distances[k]));
	}
	for (size_t i = 0; i < a->n_cpus; i++) {
		cr_assert(eq(int, a->cpus[i].cpu, b->cpus[i].cpu));
		cr_assert(eq(int, a->cpus[i].core, b->cpus[i].core));
		cr_assert(eq(int, a->cpus[i].l3, b->cpus[i].l3));
	}
}

static void assert_same_functions(const struct topology *a, const struct topology *b)
{
	cr_assert(eq(sz, a->n_funcs, b->n_funcs));
	for (size_t i = 0; i < a->n_funcs; i++) {
		const struct pci_func *x = &a->funcs[i], *y = &b->funcs[i];

		cr_assert(eq(int, pci_addr_cmp(&x->addr, &y->addr), 0));
		cr_assert(eq(int, x->parent, y->parent));
		cr_assert(eq(uint, x->vendor, y->vendor));
		cr_assert(eq(uint, x->device, y->device));
		cr_assert(eq(uint, x->class_code >> 8, y->class_code >> 8));
		cr_assert(eq(int, x->role, y->role));
		cr_assert(eq(int, x->node, y->node));
		cr_assert(eq(int, x->gpu_index, y->gpu_index));
		cr_assert_str_eq(x->root_bus, y->root_bus);
	}
	for (size_t i = 0; i < a->n_funcs; i++)
		for (size_t k = 0; k < a->n_funcs && a->funcs[i].role == ROLE_GPU; k++)
			cr_assert(eq(int, topology_relation(a, (int)i, (int)k), topology_relation(b, (int)i, (int)k)));
}

Test(xml, is_the_machine, .timeout = 60)
{
	static const char *const fixtures[] = { "xe9680-h200", "h200-cx7-4-stacked", "dgx2", "hgx-h100" };

	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++) {
		CLEANUP(topology_clear) struct topology host = { 0 };
		CLEANUP(topology_clear) struct topology xml = { 0 };

		probe_both(fixtures[i], &host, &xml);
		assert_same_nodes(&host, &xml);
		assert_same_functions(&host, &xml);
		cr_assert(eq(uint, host.gaps, 0));
		cr_assert(xml.gaps & GAP_GROUPS && xml.gaps & GAP_BARS);
	}
}

/* --- plans ---------------------------------------------------------------------------------------------- */

struct planned {
	struct vm_config vm;
	struct plan plan;
	struct problems ps;
	int r;
};

static void make_plan(const struct topology *host, const char *text, struct planned *ret)
{
	struct qemu_info q = fake_qemu("7.2.22");
	struct plan_request req = { .vm = &ret->vm, .host = host, .qemu = &q, .rundir = "/run/gpuvm/x", .statedir = "/var/lib/gpuvm", .foreign_host = true };

	*ret = (struct planned){ 0 };
	cr_assert(eq(int, config_parse("x.ini", text, strlen(text), NULL, &ret->vm, &ret->ps), 0));
	ret->r = plan_make(&req, &ret->plan, &ret->ps);
	if (ret->r < 0)
		problems_print(&ret->ps, stderr);
}

static void planned_clear(struct planned *p)
{
	plan_clear(&p->plan);
	config_clear(&p->vm);
	problems_clear(&p->ps);
}

static bool has_warning(const struct plan *p, const char *code)
{
	for (size_t i = 0; i < p->n_warnings; i++)
		if (!strcmp(p->warnings[i].code, code))
			return true;
	return false;
}

static void assert_same_plan(const struct plan *a, const struct plan *b)
{
	cr_assert(eq(sz, a->n_devices, b->n_devices));
	for (size_t i = 0; i < a->n_devices; i++) {
		cr_assert_str_eq(a->devices[i].id, b->devices[i].id);
		cr_assert(eq(int, pci_addr_cmp(&a->devices[i].addr, &b->devices[i].addr), 0));
		cr_assert_str_eq(a->devices[i].guest_port, b->devices[i].guest_port);
		cr_assert(eq(int, a->devices[i].guest_bus_nr, b->devices[i].guest_bus_nr));
	}
	cr_assert(eq(sz, a->n_vcpus, b->n_vcpus));
	for (size_t i = 0; i < a->n_vcpus; i++)
		cr_assert(eq(int, a->vcpus[i].host_cpu, b->vcpus[i].host_cpu));
	cr_assert(eq(sz, a->n_nodes, b->n_nodes));
	for (size_t i = 0; i < a->n_nodes; i++) {
		cr_assert(eq(u64, a->nodes[i].memory_bytes, b->nodes[i].memory_bytes));
		cr_assert(eq(u64, a->nodes[i].page_bytes, b->nodes[i].page_bytes));
	}
}

Test(xml, plans_the_same)
{
	CLEANUP(topology_clear) struct topology host = { 0 };
	CLEANUP(topology_clear) struct topology xml = { 0 };
	static const char text[] = "[vm]\nname = x\n[place]\ngpus = 4\nnics = per-gpu\nnvme = per-gpu\n[memory]\nsize = 900G\n";
	struct planned a, b;

	probe_both("xe9680-h200", &host, &xml);
	make_plan(&host, text, &a);
	make_plan(&xml, text, &b);
	cr_assert(eq(int, a.r, 0));
	cr_assert(eq(int, b.r, 0));
	assert_same_plan(&a.plan, &b.plan);
	cr_assert(has_warning(&b.plan, "topology-partial"));
	cr_assert(not(has_warning(&a.plan, "topology-partial")));
	planned_clear(&a);
	planned_clear(&b);
}

/* --- files from anywhere --------------------------------------------------------------------------------------- */

Test(xml, a_stored_file)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };
	AUTO_FREE char *gaps = NULL;
	int nvme;

	cr_assert(eq(int, probe_source("", "tests/fixtures/xml/desktop.xml", &t, &e), 0), "%s", e.msg);
	cr_assert(eq(sz, t.n_cpus, 16));
	cr_assert(eq(int, topology_n_gpus(&t), 1), "the display without a slot is the console");
	nvme = topology_find_func(&t, &(struct pci_addr){ 0, 2, 0, 0 });
	cr_assert_str_eq(t.funcs[nvme].os_name, "nvme0n1");
	cr_assert(eq(uint, t.funcs[nvme].link.max_mts, 16000));
	cr_assert(eq(uint, t.funcs[nvme].link.max_width, 4));
	gaps = topology_gaps_text(&t);
	cr_assert_str_eq(gaps, "IOMMU groups, drivers, the size of device memory, what the host itself uses, free memory and the full speed of links");
}

static int probe_text(const char *text, struct err *e)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	char path[] = "/tmp/gpuvm-test-xml-XXXXXX";
	int fd = mkstemp(path), r;

	cr_assert(ge(int, fd, 0));
	close(fd);
	cr_assert(eq(int, write_file_atomic(path, text, strlen(text), 0644), 0));
	r = probe_topology_xml(path, &t, e);
	unlink(path);
	return r;
}

Test(xml, says_what_is_wrong)
{
	static const struct {
		const char *text, *says;
		int code;
	} rows[] = {
		{ "", "not an hwloc XML", -EBADMSG },
		{ "hello", "not an hwloc XML", -EBADMSG },
		{ "<html></html>", "not an hwloc XML", -EBADMSG },
		{ "<?xml version=\"1.0\"?>\n<topology version=\"3.0\">\n</topology>\n", "hwloc 3", -EPROTONOSUPPORT },
		{ "<?xml version=\"1.0\"?>\n<topology version=\"2.0\">\n</topology>\n", "damaged", -EBADMSG },
		{ "<?xml version=\"1.0\"?>\n<topology version=\"x\">\n", "not an hwloc XML", -EBADMSG },
	};
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		cr_assert(eq(int, probe_text(rows[i].text, &e), rows[i].code), "%s", rows[i].text);
		cr_assert_not_null(strstr(e.msg, rows[i].says), "%s", e.msg);
	}
	cr_assert(eq(int, probe_topology_xml("/nonexistent.xml", &t, &e), -ENOENT));
	cr_assert(eq(int, probe_topology_xml("/tmp", &t, &e), -EINVAL));
}

/* Cut at every length: an error or a machine, never a crash. */
Test(xml, cut_short, .timeout = 60)
{
	AUTO_FREE char *text = NULL;
	struct err e = { 0 };

	cr_assert(eq(int, read_text_file("tests/fixtures/xml/desktop.xml", 1 << 20, &text), 0));
	for (size_t n = strlen(text) - 30; n > 40; n -= 37) {
		text[n] = '\0';
		cr_assert(lt(int, probe_text(text, &e), 0), "%zu", n);
	}
}

/* Numbers that are too large for what they count. */
Test(xml, indexes_out_of_range)
{
	AUTO_FREE char *text = NULL, *bad = NULL;
	struct err e = { 0 };
	char *at;

	cr_assert(eq(int, read_text_file("tests/fixtures/xml/desktop.xml", 1 << 20, &text), 0));
	at = strstr(text, "type=\"PU\" os_index=\"");
	cr_assert_not_null(at);
	bad = xasprintf("%.*s9999999%s", (int)(at + 20 - text), text, at + 21);
	cr_assert(lt(int, probe_text(bad, &e), 0));
}
