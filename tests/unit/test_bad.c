/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <json-c/json.h>
#include <sys/stat.h>

#include "gpuvm/bad.h"
#include "gpuvm/draw.h"
#include "gpuvm/fabric.h"
#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/kernel.h"
#include "tests/fake/mkhost.h"
#include "tests/unit/programs.h"

/* --- records ---------------------------------------------------------------------------------------------- */

static const struct fake_device machine[] = {
	{ "0000:17:00.0", 0x10de, 0x2335, 0x030200, 1, "vfio-pci" },
	{ "0000:18:00.0", 0x10de, 0x2335, 0x030200, 2, "nvidia" },
};
static const struct pci_addr first = { .bus = 0x17 }, second = { .bus = 0x18 };

struct shelf {
	struct fake_kernel k;
	char *dir; /* the state folder */
};

static void put(const char *text, const char *fmt, ...) PRINTF(2, 3);
static void put(const char *text, const char *fmt, ...)
{
	AUTO_FREE char *path = NULL;
	va_list ap;

	va_start(ap, fmt);
	cr_assert(vasprintf(&path, fmt, ap) > 0);
	va_end(ap);
	for (char *c = strchr(path + 1, '/'); c; c = strchr(c + 1, '/')) {
		*c = '\0';
		cr_assert(mkdir(path, 0700) == 0 || errno == EEXIST, "%s", path);
		*c = '/';
	}
	cr_assert(write_file_atomic(path, text, strlen(text), 0600) == 0, "%s", path);
}

static void shelf_init(struct shelf *s)
{
	cr_assert(fake_kernel_make(&s->k, machine, ARRAY_SIZE(machine)) == 0);
	s->dir = xasprintf("%s/state", s->k.root);
}

static void shelf_end(struct shelf *s)
{
	fake_kernel_free(&s->k);
	free(s->dir);
}

static void mark(struct shelf *s, const struct pci_addr *a, const char *reason)
{
	struct err e = { 0 };

	cr_assert(bad_mark(s->dir, &s->k.sys, a, reason, "half0", "reset", &e) == 0, "%s", e.msg);
}

Test(bad, a_record_has_all_that_is_known, .timeout = 30)
{
	struct shelf s;
	struct bad_device *v = NULL;
	struct err e = { 0 };
	size_t n = 99;

	shelf_init(&s);
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0, "%s", e.msg);
	cr_assert(n == 0 && !v);
	put("0x10de\n", "%s/sys/bus/pci/devices/0000:17:00.0/subsystem_vendor", s.k.root);
	put("0x18be\n", "%s/sys/bus/pci/devices/0000:17:00.0/subsystem_device", s.k.root);
	put("0000:18:00\n", "%s/sys/bus/pci/slots/4/address", s.k.root);
	put("0000:17:00\n", "%s/sys/bus/pci/slots/3-1/address", s.k.root);
	put("d3adb33f\n", "%s/proc/sys/kernel/random/boot_id", s.k.root);
	cr_assert(bad_mark(s.dir, &s.k.sys, &second, "its fan is loud", NULL, "operator", &e) == 0, "%s", e.msg);
	mark(&s, &first, "it does not answer");

	cr_assert(bad_list(s.dir, &v, &n, &e) == 0, "%s", e.msg);
	cr_assert(n == 2);
	cr_expect(v[0].addr.bus == 0x17 && v[1].addr.bus == 0x18);
	cr_expect(!v[0].damaged && v[0].vendor == 0x10de && v[0].device == 0x2335 && v[0].subvendor == 0x10de && v[0].subdevice == 0x18be);
	cr_expect_str_eq(v[0].slot, "3-1");
	cr_expect_str_eq(v[0].reason, "it does not answer");
	cr_expect_str_eq(v[0].boot_id, "d3adb33f");
	cr_expect_str_eq(v[0].vm, "half0");
	cr_expect_str_eq(v[0].by, "reset");
	cr_expect(v[0].when >= time(NULL) - 600 && v[0].when <= time(NULL));
	cr_expect(!v[1].vm && v[1].subvendor == 0);
	bad_free(v, n);

	/* The first reason stays. */
	mark(&s, &first, "something that came of it");
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 2);
	cr_expect_str_eq(v[0].reason, "it does not answer");
	bad_free(v, n);
	/* Another device is another matter. */
	put("0x2901\n", "%s/sys/bus/pci/devices/0000:17:00.0/device", s.k.root);
	mark(&s, &first, "this one, too");
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 2);
	cr_expect_str_eq(v[0].reason, "this one, too");
	cr_expect(v[0].device == 0x2901);
	bad_free(v, n);
	shelf_end(&s);
}

Test(bad, marks_are_cleared_one_by_one_and_all, .timeout = 30)
{
	static const struct pci_addr nobody = { .bus = 0x77 };
	struct shelf s;
	struct bad_device *v = NULL;
	struct err e = { 0 };
	size_t n;

	shelf_init(&s);
	cr_assert(bad_mark(s.dir, &s.k.sys, &nobody, "x", NULL, "operator", &e) == -ENODEV);
	cr_expect_str_eq(e.msg, "mark 0000:77:00.0 as bad: there is no such PCI function");
	mark(&s, &first, "a");
	mark(&s, &second, "b");
	cr_assert(bad_clear(s.dir, &nobody, &n, &e) == -ENOENT && n == 0);
	cr_expect(strstr(e.msg, "0000:77:00.0 is not marked as bad"), "%s", e.msg);
	cr_assert(bad_clear(s.dir, &first, &n, &e) == 0 && n == 1);
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 1);
	cr_expect(v[0].addr.bus == 0x18);
	bad_free(v, n);
	mark(&s, &first, "a");
	cr_assert(bad_clear(s.dir, NULL, &n, &e) == 0 && n == 2);
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 0);
	cr_assert(bad_clear(s.dir, NULL, &n, &e) == 0 && n == 0);
	shelf_end(&s);
}

static struct topology two_gpus(void)
{
	struct topology t = { .funcs = xcalloc(2, sizeof(*t.funcs)), .n_funcs = 2 };

	for (size_t i = 0; i < 2; i++) {
		t.funcs[i].addr = i ? second : first;
		t.funcs[i].vendor = 0x10de;
		t.funcs[i].device = 0x2335;
	}
	return t;
}

Test(bad, a_damaged_record_keeps_only_its_own_device_out, .timeout = 30)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{ "", "not a JSON object" },
		{ "{\"schema\": 1, \"bdf\": \"0000:17", "not a JSON object" },
		{ "[]", "not a JSON object" },
		{ "{}", "'schema' is missing" },
		{ "{\"schema\":2,\"bdf\":\"0000:17:00.0\",\"vendor\":\"0x10de\",\"device\":\"0x2335\",\"subvendor\":\"0x0\",\"subdevice\":\"0x0\","
		  "\"slot\":null,\"reason\":\"r\",\"when\":1,\"boot_id\":\"b\",\"vm\":null,\"by\":\"reset\"}",
		  "'schema'" },
		{ "{\"schema\":1,\"bdf\":\"0000:18:00.0\",\"vendor\":\"0x10de\",\"device\":\"0x2335\",\"subvendor\":\"0x0\",\"subdevice\":\"0x0\","
		  "\"slot\":null,\"reason\":\"r\",\"when\":1,\"boot_id\":\"b\",\"vm\":null,\"by\":\"reset\"}",
		  "'bdf'" },
		{ "{\"schema\":1,\"bdf\":\"0000:17:00.0\",\"vendor\":\"0x110de\",\"device\":\"0x2335\",\"subvendor\":\"0x0\",\"subdevice\":\"0x0\","
		  "\"slot\":null,\"reason\":\"r\",\"when\":1,\"boot_id\":\"b\",\"vm\":null,\"by\":\"reset\"}",
		  "'vendor'" },
		{ "{\"schema\":1,\"bdf\":\"0000:17:00.0\",\"vendor\":\"0x10de\",\"device\":\"0x2335\",\"subvendor\":\"0x0\",\"subdevice\":\"0x0\","
		  "\"slot\":null,\"reason\":7,\"when\":1,\"boot_id\":\"b\",\"vm\":null,\"by\":\"reset\"}",
		  "'reason'" },
	};
	struct shelf s;

	shelf_init(&s);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(topology_clear) struct topology t = two_gpus();
		struct bad_device *v = NULL;
		struct err e = { 0 };
		size_t n;

		put(rows[i].text, "%s/bad/0000:17:00.0.json", s.dir);
		cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 1, "row %zu: %s", i, e.msg);
		cr_expect(v[0].damaged && strstr(v[0].damaged, rows[i].says), "row %zu: %s", i, v[0].damaged);
		cr_expect(v[0].damaged && strstr(v[0].damaged, "/bad/0000:17:00.0.json' is damaged"), "row %zu: %s", i, v[0].damaged);
		cr_expect(!v[0].reason && v[0].addr.bus == 0x17);
		cr_assert(bad_apply(s.dir, false, &t, &e) == 0, "%s", e.msg);
		cr_expect(t.funcs[0].bad && !strcmp(t.funcs[0].bad, v[0].damaged), "row %zu: %s", i, t.funcs[0].bad);
		cr_expect_null(t.funcs[1].bad);
		bad_free(v, n);
	}
	shelf_end(&s);
}

Test(bad, files_that_are_no_records, .timeout = 30)
{
	CLEANUP(topology_clear) struct topology t = two_gpus();
	struct shelf s;
	struct bad_device *v = NULL;
	struct err e = { 0 };
	size_t n;

	shelf_init(&s);
	/* Half-written ones of a crash, and what editors leave. */
	put("{", "%s/bad/0000:17:00.0.json.new", s.dir);
	put("{", "%s/bad/0000:17:00.0.json~", s.dir);
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 0, "%s", e.msg);
	/* Neither says which device it is about. */
	for (int i = 0; i < 2; i++) {
		AUTO_FREE char *path = xasprintf("%s/bad/%s", s.dir, i ? "17:00.0.json" : "gpu3.json");

		put("{}", "%s", path);
		cr_assert(bad_list(s.dir, &v, &n, &e) == -EPROTO);
		cr_expect(strstr(e.msg, path) && strstr(e.msg, "not named after a device"), "%s", e.msg);
		cr_assert(bad_apply(s.dir, false, &t, &e) == -EPROTO);
		unlink(path);
	}
	shelf_end(&s);
}

Test(bad, a_device_that_was_replaced_is_another_one, .timeout = 30)
{
	CLEANUP(topology_clear) struct topology t = two_gpus();
	struct shelf s;
	struct bad_device *v = NULL;
	struct err e = { 0 };
	size_t n;

	shelf_init(&s);
	mark(&s, &first, "it does not answer");
	t.funcs[0].device = 0x2901;
	cr_assert(bad_apply(s.dir, true, &t, &e) == 0);
	cr_expect_null(t.funcs[0].bad);
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 1);
	bad_free(v, n);
	cr_assert(bad_apply(s.dir, false, &t, &e) == 0);
	cr_expect_null(t.funcs[0].bad);
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 0);

	/* The same again; and one that is not there any more is still to be looked at. */
	t.funcs[0].device = 0x2335;
	mark(&s, &first, "it does not answer");
	cr_assert(bad_apply(s.dir, false, &t, &e) == 0);
	cr_expect(t.funcs[0].bad && strstr(t.funcs[0].bad, "it does not answer (marked ") && strstr(t.funcs[0].bad, "by reset, VM half0)"), "%s",
		  t.funcs[0].bad);
	t.n_funcs = 1;
	t.funcs[0].addr.bus = 0x33;
	cr_assert(bad_apply(s.dir, false, &t, &e) == 0);
	cr_assert(bad_list(s.dir, &v, &n, &e) == 0 && n == 1);
	bad_free(v, n);
	t.n_funcs = 2;
	shelf_end(&s);
}

/* --- the probe ------------------------------------------------------------------------------------------------- */

static void kill_func(const char *root, const char *bdf)
{
	AUTO_FREE char *config = xasprintf("%s/sys/bus/pci/devices/%s/config", root, bdf);
	char ones[256];

	memset(ones, 0xff, sizeof(ones));
	cr_assert(write_file_atomic(config, ones, sizeof(ones), 0600) == 0);
}

static struct pci_func *at(struct topology *t, const char *bdf)
{
	struct pci_addr a;

	cr_assert(parse_pci_addr(bdf, &a) == 0 && topology_find_func(t, &a) >= 0, "%s", bdf);
	return &t->funcs[topology_find_func(t, &a)];
}

Test(bad, the_probe_sees_who_fell_off_the_bus, .timeout = 60)
{
	char *root = mkhost_fixture("xe9680-h200");
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };

	cr_assert(root);
	kill_func(root, "0000:3b:00.0");
	kill_func(root, "0000:4c:00.0");
	put("D3cold\n", "%s/sys/bus/pci/devices/0000:4c:00.0/power_state", root);
	cr_assert(probe_host(root, &t, &e) == 0, "%s", e.msg);
	for (size_t i = 0; i < t.n_funcs; i++) {
		bool dead = t.funcs[i].addr.bus == 0x3b;

		cr_expect(t.funcs[i].dead == dead && !t.funcs[i].bad == !dead, "bus %02x: %s", t.funcs[i].addr.bus, t.funcs[i].bad);
	}
	cr_expect(strstr(at(&t, "3b:00.0")->bad, "reads all ones"));
	cr_expect(at(&t, "3b:00.0")->gpu_index == 1, "it is still listed, with its number");
	mkhost_remove(root);
}

Test(bad, a_virtual_function_is_not_dead, .timeout = 60)
{
	char *root = mkhost_text("host one\ncpu GenuineIntel\niommu intel\nnode 0 socket=0 cpus=0-1 memory=4G\n"
				 "kind nic 15b3:1021 020000 bars=16M\n"
				 "bus 0000:16 node=0\n  16:01.0 nic\n  16:01.1 nic vf-of=16:01.0\n");
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };

	cr_assert(root);
	/* Its vendor and device read all ones; here all of it does. */
	kill_func(root, "0000:16:01.1");
	cr_assert(probe_host(root, &t, &e) == 0, "%s", e.msg);
	cr_assert(at(&t, "16:01.1")->is_vf);
	cr_expect(!at(&t, "16:01.1")->dead && !at(&t, "16:01.0")->dead);
	mkhost_remove(root);
}

/* --- plans -------------------------------------------------------------------------------------------------------- */

struct try {
	struct topology host;
	struct fabric_map map;
	struct plan plan;
	struct problems ps;
	int r;
};

static void try_clear(struct try *t)
{
	plan_clear(&t->plan);
	problems_clear(&t->ps);
	fabric_map_clear(&t->map);
	topology_clear(&t->host);
}

/* Plan the definition @text on the fixture @host, of which the functions at @bad are bad. */
static struct try try_plan(const char *host, const char *text, const char *const *bad)
{
	struct qemu_info q = fake_qemu("10.0");
	struct strv none = { 0 };
	struct vm_config vm;
	struct try t = { 0 };
	struct err e = { 0 };
	char *root = mkhost_fixture(host);
	struct plan_request req = { .vm = &vm, .host = &t.host, .fabric = &t.map, .qemu = &q, .rundir = "/run/gpuvm/x", .statedir = "/var/lib/gpuvm" };

	cr_assert(root);
	cr_assert(probe_host(root, &t.host, &e) == 0, "%s", e.msg);
	cr_assert(fabric_map_load(root, &t.map, &t.ps) == 0);
	fabric_map_apply(&t.map, &t.host);
	mkhost_remove(root);
	for (; *bad; bad++) {
		free(at(&t.host, *bad)->bad);
		at(&t.host, *bad)->bad = xstrdup("its reset failed");
	}
	cr_assert(config_parse("x.ini", text, strlen(text), &none, &vm, &t.ps) == 0, "%s", t.ps.n ? t.ps.v[0].message : "");
	t.r = plan_make(&req, &t.plan, &t.ps);
	config_clear(&vm);
	return t;
}

static const struct problem *problem_of(const struct try *t, const char *code)
{
	for (size_t i = 0; i < t->ps.n; i++)
		if (!strcmp(t->ps.v[i].code, code))
			return &t->ps.v[i];
	cr_assert(false, "no problem '%s', but %s: %s", code, t->ps.n ? t->ps.v[0].code : "none", t->ps.n ? t->ps.v[0].message : "");
	return NULL;
}

static bool plan_has(const struct plan *p, const char *bdf)
{
	for (size_t i = 0; i < p->n_devices; i++) {
		char buf[PCI_ADDR_STR];

		if (!strcmp(pci_addr_format(&p->devices[i].addr, buf), bdf))
			return true;
	}
	return false;
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

Test(bad, the_planner_goes_round_it, .timeout = 60)
{
	struct try t = try_plan("xe9680-h200", "[vm]\nname=x\n[place]\ngpus=3\nsocket=0\nnvme=0\n", LIST("0000:3b:00.0"));

	cr_assert(t.r == 0, "%s", t.ps.n ? t.ps.v[0].message : "");
	cr_expect(plan_has(&t.plan, "0000:19:00.0") && plan_has(&t.plan, "0000:4c:00.0") && plan_has(&t.plan, "0000:5d:00.0"));
	cr_expect(!plan_has(&t.plan, "0000:3b:00.0"));
	try_clear(&t);
}

Test(bad, too_few_are_left, .timeout = 60)
{
	struct try t = try_plan("xe9680-h200", "[vm]\nname=x\n[place]\ngpus=4\nsocket=0\n", LIST("0000:3b:00.0"));
	const struct problem *p = problem_of(&t, "gpu-missing");

	cr_expect(p->kind == PROBLEM_HOST);
	cr_expect(strstr(p->hint, "socket 0: 3 of 4 free") && strstr(p->hint, "GPU 1 (0000:3b:00.0) is bad: its reset failed"), "%s", p->hint);
	cr_expect(strstr(p->hint, "socket = 1"), "the other half is not proposed: %s", p->hint);
	try_clear(&t);
}

Test(bad, one_that_is_asked_for_is_refused, .timeout = 60)
{
	static const char *const texts[] = { "[vm]\nname=x\n[device g]\npci=0000:3b:00.0\n", "[vm]\nname=x\n[device g]\npci=0000:3b:00.0\nforce=on\n",
					     "[vm]\nname=x\n[place]\ngpus=1\ngpu-index=1\n" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct try t = try_plan("xe9680-h200", texts[i], LIST("0000:3b:00.0"));
		const struct problem *p = problem_of(&t, "device-bad");

		cr_expect(p->kind == PROBLEM_HOST && t.r == -EINVAL);
		cr_expect(strstr(p->message, "0000:3b:00.0 is bad: its reset failed"), "%s", p->message);
		cr_expect_str_eq(p->device, "0000:3b:00.0");
		cr_expect(strstr(p->hint, "gpuvm doctor --clear 0000:3b:00.0"), "%s", p->hint);
		try_clear(&t);
	}
}

Test(bad, peers_are_left_out_with_a_warning, .timeout = 60)
{
	struct try t = try_plan("xe9680-h200", "[vm]\nname=x\n[place]\ngpus=4\nsocket=0\nnvme=0\n", LIST("0000:18:00.0"));
	bool warned = false;

	cr_assert(t.r == 0, "%s", t.ps.n ? t.ps.v[0].message : "");
	cr_assert(at(&t.host, "18:00.0")->role == ROLE_NIC);
	for (size_t i = 0; i < t.plan.n_warnings; i++)
		warned |= !strcmp(t.plan.warnings[i].code, "device-bad") && strstr(t.plan.warnings[i].text, "0000:18:00.0");
	cr_expect(warned);
	cr_expect(!plan_has(&t.plan, "0000:18:00.0"));
	try_clear(&t);
}

/* HGX H100 in full passthrough: eight GPUs need all four NVSwitches; a partition with a bad GPU is not one to choose. */
Test(bad, the_fabric_goes_round_it, .timeout = 60)
{
	struct try t = try_plan("hgx-h100", "[vm]\nname=x\n[place]\ngpus=4\n[fabric]\nmode=shared\n", LIST("0000:86:00.0"));
	const struct problem *p;

	cr_assert(t.r == 0, "%s", t.ps.n ? t.ps.v[0].message : "");
	cr_expect(t.plan.fabric.partition == 2, "partition %d", t.plan.fabric.partition);
	try_clear(&t);

	t = try_plan("hgx-h100", "[vm]\nname=x\n[place]\ngpus=4\n[fabric]\nmode=shared\n", LIST("0000:86:00.0", "0000:0f:00.0"));
	p = problem_of(&t, "partition-busy");
	cr_expect(p->kind == PROBLEM_HOST && strstr(p->hint, "is bad)"), "%s", p->hint);
	try_clear(&t);

	t = try_plan("hgx-h100", "[vm]\nname=x\n[place]\ngpus=8\n[fabric]\nmode=full\n", LIST("0000:04:00.0"));
	p = problem_of(&t, "nvswitch-short");
	cr_expect(strstr(p->hint, "nvswitch (0000:04:00.0) is bad: its reset failed"), "%s", p->hint);
	try_clear(&t);
}

/* --- what is shown --------------------------------------------------------------------------------------------------- */

Test(bad, topo_shows_it, .timeout = 60)
{
	struct try t = try_plan("xe9680-h200", "[vm]\nname=x\n[place]\ngpus=0\n", LIST("0000:3b:00.0"));
	void (*const draw[])(const struct topology *, const struct host_use *, unsigned int, FILE *) = { topology_print, topology_print_matrix };
	struct json_object *o = topology_to_json(&t.host, NULL), *funcs;
	int n = 0;

	for (size_t i = 0; i <= ARRAY_SIZE(draw); i++) {
		AUTO_FREE char *text = NULL;
		size_t len = 0;
		FILE *f = open_memstream(&text, &len);

		if (i < ARRAY_SIZE(draw))
			draw[i](&t.host, NULL, 0, f);
		else
			topology_draw_svg(&t.host, NULL, f);
		fclose(f);
		cr_expect(strstr(text, "BAD: its reset failed"), "%zu: %s", i, text);
	}
	cr_assert(json_object_object_get_ex(o, "functions", &funcs));
	for (size_t i = 0; i < json_object_array_length(funcs); i++) {
		struct json_object *bad = NULL;

		cr_assert(json_object_object_get_ex(json_object_array_get_idx(funcs, i), "bad", &bad));
		n += bad && !strcmp(json_object_get_string(bad), "its reset failed");
	}
	cr_expect(n == 1);
	json_object_put(o);
	try_clear(&t);
}

Test(bad, topo_reads_the_records_of_this_machine, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "mkdir $R/bad && echo '{}' >$R/bad/gpu3.json && $G topo");
	EXPECT_SAYS(&p, "what is marked as bad is not shown: ");
	EXPECT_SAYS(&p, "bad/gpu3.json' is not named after a device");
	/* Any function of this machine will do. */
	EXPECT_SH(&p, 0, "rm $R/bad/*; set -- $(ls /sys/bus/pci/devices); [ $# = 0 ] && exit 0; "
			 "echo '[]' >$R/bad/$1.json; $G topo --all >$R/topo && grep -F 'is damaged: not a JSON object' $R/topo");
	EXPECT_SH(&p, 0, "rm -rf $R/bad $R/topo");
	place_end(&p);
}
