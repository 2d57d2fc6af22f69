/* SPDX-License-Identifier: GPL-2.0-or-later */
/* [pcie] acs = direct-translated: which ports, who may not be there, and how the registers come back. */
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <sys/stat.h>

#include "gpuvm/acs.h"
#include "gpuvm/affinity.h"
#include "gpuvm/launch.h"
#include "gpuvm/probe.h"
#include "gpuvm/verify.h"
#include "programs.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/kernel.h"
#include "tests/fake/mkhost.h"

/* Below one root port a switch with two more below it, and a drive; a GPU alone; the host's NIC. %s: of the drives, of the NICs, of the lower ports. */
static const char machine[] = "host m kernel=6.15.0\n"
			      "cpu GenuineIntel threads=2 phys-bits=52\n"
			      "iommu intel bits=57\n"
			      "node 0 socket=0 cpus=0-15 memory=64G free=60G 1G=48/48 2M=0/0\n"
			      "kind rp 8086:352a 060400 pcie=root link=32x16 acs driver=pcieport\n"
			      "kind up 1000:c030 060400 pcie=upstream link=32x16 driver=pcieport\n"
			      "kind dn 1000:c030 060400 pcie=downstream link=32x16 acs driver=pcieport\n"
			      "kind lo 1000:c030 060400 pcie=downstream link=32x16 driver=pcieport %s\n"
			      "kind gpu 10de:2335 030200 bars=16M:64 link=32x16\n"
			      "kind nic 15b3:1021 020700 bars=32M:p link=32x16 %s\n"
			      "kind ssd 144d:a824 010802 bars=32K:64 link=32x4 %s\n"
			      "kind lom 14e4:165f 020000 bars=64K:p link=5x2 driver=tg3\n"
			      "bus 0000:10 node=0\n"
			      "\t10:01.0 rp\n"
			      "\t\t11:00.0 up\n"
			      "\t\t\t12:00.0 dn\n"
			      "\t\t\t\t13:00.0 up\n"
			      "\t\t\t\t\t14:00.0 lo\n"
			      "\t\t\t\t\t\t15:00.0 gpu\n"
			      "\t\t\t\t\t14:01.0 lo\n"
			      "\t\t\t\t\t\t16:00.0 nic\n"
			      "\t\t\t\t\t14:02.0 lo\n"
			      "\t\t\t\t\t\t17:00.0 ssd\n"
			      "\t\t\t12:01.0 dn\n"
			      "\t\t\t\t18:00.0 up\n"
			      "\t\t\t\t\t19:00.0 lo\n"
			      "\t\t\t\t\t\t1a:00.0 gpu\n"
			      "\t\t\t\t\t19:01.0 lo\n"
			      "\t\t\t\t\t\t1b:00.0 nic\n"
			      "\t\t\t12:02.0 dn\n"
			      "\t\t\t\t1c:00.0 ssd\n"
			      "\t10:02.0 rp\n"
			      "\t\t1d:00.0 gpu\n"
			      "\t10:03.0 rp\n"
			      "\t\t1e:00.0 lom\n"
			      "net eno1 at 1e:00.0\n"
			      "route eno1 default\n";

struct setup {
	char *root;
	struct topology host;
	struct doctor_func *config;
	struct host_use use;
	struct plan p;
	struct problems ps;
	int r;
	bool fake;
};

static void setup_with(struct setup *s, const char *lo, const char *nic, const char *ssd)
{
	AUTO_FREE char *text = xasprintf(machine, lo ? lo : "acs", nic ? nic : "ats=on", ssd ? ssd : "");
	struct err e = { 0 };

	*s = (struct setup){ .root = mkhost_text(text) };
	cr_assert(s->root && probe_host(s->root, &s->host, &e) == 0, "%s", e.msg);
	s->config = acs_read(s->root, &s->host);
}

static void setup(struct setup *s)
{
	setup_with(s, NULL, NULL, NULL);
}

static void forget_plan(struct setup *s)
{
	plan_clear(&s->p);
	problems_clear(&s->ps);
}

static void setup_clear(struct setup *s)
{
	forget_plan(s);
	host_use_clear(&s->use);
	free(s->config);
	topology_clear(&s->host);
	mkhost_remove(s->root);
}

static int func(const struct setup *s, const char *bdf)
{
	struct pci_addr a;

	cr_assert(parse_pci_addr(bdf, &a) == 0 && topology_find_func(&s->host, &a) >= 0, "%s", bdf);
	return topology_find_func(&s->host, &a);
}

/* Plan a VM with the devices "15 16". */
static void plan(struct setup *s, const char *name, const char *devices, const char *acs)
{
	AUTO_FREE char *rundir = xasprintf("/run/gpuvm/%s", name), *text = xasprintf("[vm]\nname = %s\naccel = tcg\n[cpu]\nvcpus = 1\npin = off\n"
				     "[memory]\nsize = 1G\nhugepages = off\n[pcie]\nacs = %s\n", name, acs);
	struct qemu_info q = fake_qemu("10.0");
	struct vm_config vm = { 0 };
	struct plan_request req = { .vm = &vm, .host = &s->host, .use = &s->use, .config = s->config, .qemu = &q, .rundir = rundir,
				    .statedir = "/var/lib/gpuvm", .fake_devices = s->fake };

	for (const char *d = devices; *d; d += strspn(d, " ")) {
		AUTO_FREE char *before = text;

		text = xasprintf("%s[device d%.2s]\npci = 0000:%.2s:00.0\n", before, d, d);
		d += 2;
	}
	forget_plan(s);
	s->r = config_parse("vm.ini", text, strlen(text), NULL, &vm, &s->ps);
	if (s->r == 0)
		s->r = plan_make(&req, &s->p, &s->ps);
	config_clear(&vm);
}

/* "10:01.0 14:00.0"; or of a refusal the code, the kind and the device that it names. */
static void expect_ports(const struct setup *s, const char *what, const char *ports)
{
	AUTO_FREE char *list = xstrdup("");

	for (size_t i = 0; i < s->p.n_acs; i++) {
		AUTO_FREE char *before = list;
		char bdf[PCI_ADDR_STR];

		list = xasprintf("%s%s%s", before, *before ? " " : "", pci_addr_format(&s->p.acs[i].addr, bdf) + 5);
		cr_expect(s->p.acs[i].from == 0x1d && s->p.acs[i].to == 0x5d && s->p.acs[i].offset == 0x106, "%s: %s: 0x%x 0x%x at 0x%x", what, bdf,
			  s->p.acs[i].from, s->p.acs[i].to, s->p.acs[i].offset);
	}
	cr_expect(s->r == 0, "%s: refused: %s", what, s->ps.n ? s->ps.v[0].message : "?");
	cr_expect_str_eq(list, ports, "%s: at '%s', and not at '%s'", what, list, ports);
}

static void expect_refused(const struct setup *s, const char *what, const char *code, enum problem_kind kind, const char *says)
{
	bool found = false;

	for (size_t i = 0; i < s->ps.n; i++)
		found |= strcmp(s->ps.v[i].code, code) == 0 && s->ps.v[i].kind == kind && strstr(s->ps.v[i].message, says);
	cr_expect(s->r < 0 && found, "%s: %s", what, s->ps.n ? s->ps.v[0].message : "was not refused");
}

static const char *warning(const struct setup *s, const char *code)
{
	for (size_t i = 0; i < s->p.n_warnings; i++)
		if (strcmp(s->p.warnings[i].code, code) == 0)
			return s->p.warnings[i].text;
	return NULL;
}

/* --- which ports ------------------------------------------------------------------------------------------------------------ */

Test(acs, ports_of_the_paths)
{
	static const struct {
		const char *devices, *acs, *ports;
	} rows[] = {
		{ "15 16", "keep", "" },
		{ "15 16", "direct-translated", "10:01.0 14:00.0 14:01.0" },
		{ "15 16 17", "direct-translated", "10:01.0 14:00.0 14:01.0 14:02.0" },
		/* Alone below its switch: there is nobody to turn around for. */
		{ "15", "direct-translated", "10:01.0" },
		{ "1d", "direct-translated", "10:02.0" },
		/* They meet at the upper switch only. */
		{ "15 1b", "direct-translated", "10:01.0 12:00.0 12:01.0" },
		{ "15 1c", "direct-translated", "10:01.0 12:00.0 12:02.0" },
		{ "15 16 1a 1b 1d", "direct-translated", "10:01.0 12:00.0 12:01.0 14:00.0 14:01.0 19:00.0 19:01.0 10:02.0" },
		{ "", "direct-translated", "" },
	};
	struct setup s;

	setup(&s);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *want = xstrdup("");
		size_t n = 0;

		plan(&s, "a", rows[i].devices, rows[i].acs);
		/* In the order of addresses. */
		for (size_t k = 0; k < s.host.n_funcs; k++) {
			char bdf[PCI_ADDR_STR];
			AUTO_FREE char *before = want;

			pci_addr_format(&s.host.funcs[k].addr, bdf);
			want = strstr(rows[i].ports, bdf + 5) ? xasprintf("%s%s%s", before, n++ ? " " : "", bdf + 5) : xstrdup(before);
		}
		expect_ports(&s, rows[i].devices, want);
	}
	s.fake = true;
	plan(&s, "a", "15 16", "direct-translated");
	expect_ports(&s, "stand-ins", "");
	setup_clear(&s);
}

Test(acs, bits)
{
	struct setup s;

	setup(&s);
	/* TransBlk and EgressCtrl go, what is not ACS as we know it stays, and only what the port can do is set. */
	s.config[func(&s, "14:00.0")].acs_control = 0x123;
	s.config[func(&s, "14:00.0")].acs_can = 0x4d;
	s.config[func(&s, "14:01.0")].acs_control = 0x5d;
	plan(&s, "a", "15 16", "direct-translated");
	cr_assert(s.r == 0 && s.p.n_acs == 3);
	cr_expect(s.p.acs[1].from == 0x123 && s.p.acs[1].to == 0x14d, "0x%x -> 0x%x", s.p.acs[1].from, s.p.acs[1].to);
	cr_expect(s.p.acs[2].from == 0x5d && s.p.acs[2].to == 0x5d, "what is right is relied on, too: 0x%x", s.p.acs[2].to);
	setup_clear(&s);
}

Test(acs, what_ports_cannot_do)
{
	struct setup s;

	setup(&s);
	s.config[func(&s, "14:00.0")].acs_can = 0x1f;
	s.config[func(&s, "14:01.0")].acs = false;
	plan(&s, "a", "15 16", "direct-translated");
	expect_ports(&s, "two cannot", "10:01.0");
	cr_assert(warning(&s, "acs-no-direct-translated") && strstr(warning(&s, "acs-no-direct-translated"), "at 0000:14:00.0, 0000:14:01.0:"), "%s",
		  warning(&s, "acs-no-direct-translated"));
	s.config[func(&s, "10:01.0")].acs_can = 0x1f;
	plan(&s, "a", "15 16", "direct-translated");
	expect_refused(&s, "none can", "acs-no-direct-translated", PROBLEM_HOST, "0000:10:01.0, 0000:14:00.0, 0000:14:01.0");
	/* Not for root to read, or not of this kind of machine. */
	s.config[func(&s, "14:00.0")].config = false;
	plan(&s, "a", "15 16", "direct-translated");
	expect_ports(&s, "one is not known", "");
	cr_assert(warning(&s, "acs-not-known") && strstr(warning(&s, "acs-not-known"), "1 port "), "%s", warning(&s, "acs-not-known"));
	free(s.config);
	s.config = NULL;
	plan(&s, "a", "15 16", "direct-translated");
	expect_ports(&s, "nothing was read", "");
	cr_assert(warning(&s, "acs-not-known") && strstr(warning(&s, "acs-not-known"), "3 ports "), "%s", warning(&s, "acs-not-known"));
	setup_clear(&s);
}

Test(acs, nics_without_ats)
{
	struct setup s;
	const char *text;

	setup_with(&s, NULL, "", NULL);
	plan(&s, "a", "15 16", "direct-translated");
	text = warning(&s, "nic-no-ats");
	cr_assert(text && strstr(text, "`mlxconfig -d 0000:16:00.0 set ATS_ENABLED=true`") && strstr(text, "reboot the host"), "%s", text);
	s.host.funcs[func(&s, "16:00.0")].vendor = 0x1dd8;
	plan(&s, "a", "15 16", "direct-translated");
	text = warning(&s, "nic-no-ats");
	cr_assert(text && !strstr(text, "mlxconfig"), "%s", text);
	plan(&s, "a", "15 16", "keep");
	cr_assert(!warning(&s, "nic-no-ats"));
	setup_clear(&s);
	/* Off until a VM has it: that is as it should be. */
	setup_with(&s, NULL, "ats", NULL);
	plan(&s, "a", "15 16", "direct-translated");
	cr_assert(s.r == 0 && !warning(&s, "nic-no-ats"));
	setup_clear(&s);
}

Test(acs, plan_in_json_and_print)
{
	struct setup s;
	struct json_object *o, *a, *v;
	struct plan back = { 0 };
	struct err e = { 0 };
	char *text = NULL;
	size_t len;
	FILE *f;

	setup(&s);
	plan(&s, "a", "15 16", "direct-translated");
	o = plan_to_json(&s.p);
	cr_assert(json_object_object_get_ex(o, "acs", &a) && json_object_array_length(a) == 3);
	cr_assert(json_object_object_get_ex(json_object_array_get_idx(a, 0), "to", &v));
	cr_expect_str_eq(json_object_get_string(v), "005d");
	cr_assert(plan_from_json(o, &back, &e) == 0, "%s", e.msg);
	cr_expect(back.n_acs == 3 && back.acs[2].from == 0x1d && back.acs[2].to == 0x5d && back.acs[2].offset == 0x106 && back.acs[2].addr.bus == 0x14);
	plan_clear(&back);
	json_object_object_add(json_object_array_get_idx(a, 1), "to", json_object_new_string("1005d"));
	cr_expect(plan_from_json(o, &back, &e) == -EPROTO);
	json_object_object_del(o, "acs");
	cr_expect(plan_from_json(o, &back, &e) == 0 && back.n_acs == 0, "a plan of an earlier version: %s", e.msg);
	plan_clear(&back);
	json_object_put(o);
	f = open_memstream(&text, &len);
	plan_print(&s.p, true, f);
	fclose(f);
	cr_expect(strstr(text, "\nACS: direct translated requests at 0000:10:01.0 0000:14:00.0 0000:14:01.0, while the VM runs\n"), "%s", text);
	cr_expect(strstr(text, "0000:12:00.0 is left alone"), "%s", text);
	cr_expect(strstr(text, "0000:14:01.0 0x001d -> 0x005d: at its switch 0000:13:00.0 devices of the VM meet"), "%s", text);
	free(text);
	setup_clear(&s);
}

/* --- who is beside ------------------------------------------------------------------------------------------------------------ */

Test(acs, the_host_beside)
{
	struct setup s;

	setup_with(&s, NULL, NULL, "driver=nvme");
	plan(&s, "a", "15 16", "direct-translated");
	expect_refused(&s, "a drive of the host", "acs-shared", PROBLEM_HOST, "below the switch 0000:13:00.0, and there is also 0000:17:00.0 (driver nvme)");
	plan(&s, "a", "15 16", "keep");
	expect_ports(&s, "nobody asked for it", "");
	plan(&s, "a", "15 16 17", "direct-translated");
	expect_ports(&s, "it is the VM's", "10:01.0 14:00.0 14:01.0 14:02.0");
	plan(&s, "a", "1a 1b", "direct-translated");
	expect_ports(&s, "below another switch", "10:01.0 19:00.0 19:01.0");
	plan(&s, "a", "15", "direct-translated");
	expect_ports(&s, "the VM's devices do not meet there", "10:01.0");
	plan(&s, "a", "16 1a", "direct-translated");
	expect_refused(&s, "below the upper switch", "acs-shared", PROBLEM_HOST, "0000:17:00.0 (driver nvme), 0000:1c:00.0 (driver nvme)");
	/* Kept for VMs. */
	strcpy(s.host.funcs[func(&s, "17:00.0")].driver, "vfio-pci");
	plan(&s, "a", "15 16", "direct-translated");
	expect_ports(&s, "vfio-pci", "10:01.0 14:00.0 14:01.0");
	strcpy(s.host.funcs[func(&s, "17:00.0")].driver, "pci-stub");
	plan(&s, "a", "15 16", "direct-translated");
	expect_ports(&s, "pci-stub", "10:01.0 14:00.0 14:01.0");
	s.host.funcs[func(&s, "17:00.0")].host_use = xstrdup("it has the root file system");
	plan(&s, "a", "15 16", "direct-translated");
	expect_refused(&s, "whatever its driver", "acs-shared", PROBLEM_HOST, "0000:17:00.0 (it has the root file system)");
	setup_clear(&s);
}

/* What the last plan would hold, as a VM that runs. */
static void runs(struct setup *s)
{
	cr_assert(s->r == 0, "%s", s->ps.v[0].message);
	host_use_add(&s->use, &s->p, 4711);
}

Test(acs, another_vm_beside)
{
	struct setup s;

	setup(&s);
	plan(&s, "a", "15 16", "direct-translated");
	runs(&s);
	/* As the kernel shows the port that both have. */
	s.config[func(&s, "10:01.0")].acs_control = 0x5d;
	plan(&s, "b", "1a 1b", "direct-translated");
	expect_ports(&s, "a switch each", "10:01.0 19:00.0 19:01.0");
	plan(&s, "b", "1a 1b", "keep");
	expect_ports(&s, "the other one does not care", "");
	plan(&s, "b", "1c", "keep");
	expect_ports(&s, "below the upper switch, where a's devices do not meet", "");
	plan(&s, "b", "17", "keep");
	expect_refused(&s, "into a's switch", "acs-shared", PROBLEM_BUSY, "below the switch 0000:13:00.0 devices of VM 'a'");
	plan(&s, "b", "17 1d", "direct-translated");
	expect_refused(&s, "into a's switch, with the key", "acs-shared", PROBLEM_BUSY, "below the switch 0000:13:00.0 devices of VM 'a'");
	plan(&s, "b", "1a 1c", "direct-translated");
	expect_refused(&s, "below the upper switch, where its own meet", "acs-shared", PROBLEM_BUSY, "0000:15:00.0 (VM 'a'), 0000:16:00.0 (VM 'a')");
	host_use_clear(&s.use);
	plan(&s, "a", "15 16", "keep");
	runs(&s);
	plan(&s, "b", "17", "keep");
	expect_ports(&s, "nobody turns around there", "");
	s.fake = true;
	plan(&s, "b", "17", "keep");
	expect_ports(&s, "stand-ins", "");
	setup_clear(&s);
}

/* --- the registers ------------------------------------------------------------------------------------------------------------ */

/* A host with the model kernel, and a VM's launch after its claim was written. */
struct bench {
	struct setup s;
	struct fake_kernel k;
	char dir[32];
};

static void bench(struct bench *b)
{
	setup(&b->s);
	strcpy(b->dir, "/tmp/gpuvm-acs-XXXXXX");
	cr_assert(mkdtemp(b->dir) && setenv("GPUVM_RUNDIR", b->dir, 1) == 0 && fake_kernel_attach(&b->k, b->s.root) == 0);
}

static void bench_end(struct bench *b)
{
	fake_kernel_free(&b->k);
	setup_clear(&b->s);
	mkhost_remove(xstrdup(b->dir));
}

static void begin(struct bench *b, struct launch *l, const struct launch_options *o, const char *vm, const char *devices)
{
	struct host_use use = { 0 };
	struct err e = { 0 };

	cr_assert(claim_collect_use(NULL, vm, &use, &e) == 0, "%s", e.msg);
	host_use_clear(&b->s.use);
	b->s.use = use;
	free(b->s.config);
	b->s.config = acs_read(b->s.root, &b->s.host);
	plan(&b->s, vm, devices, "direct-translated");
	cr_assert(b->s.r == 0, "%s", b->s.ps.v[0].message);
	launch_init(l, o);
	l->sys = b->k.sys;
	l->vm.acs = CONF_ACS_DIRECT;
	l->plan = b->s.p;
	b->s.p = (struct plan){ 0 };
	free(l->plan.rundir);
	l->plan.rundir = claim_vm_dir(vm);
	claim_from_plan(&l->plan, NULL, &l->claim);
	l->claimed = true;
	cr_assert(mkdir(l->claim.rundir, 0700) == 0 || errno == EEXIST);
	cr_assert(claim_write(&l->claim, &e) == 0, "%s", e.msg);
}

/* "10:01.0=5d ..." of the root port and the lower ports. */
static char *registers(struct bench *b)
{
	static const char *const ports[] = { "10:01.0", "12:00.0", "14:00.0", "14:01.0", "19:00.0", "19:01.0" };
	char *list = xstrdup("");

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		AUTO_FREE char *before = list;
		struct err e = { 0 };
		uint16_t v = 0;

		cr_assert(acs_get(&b->k.sys, &b->s.host.funcs[func(&b->s, ports[i])].addr, 0x106, &v, &e) == 0, "%s", e.msg);
		list = xasprintf("%s%s%s=%02x", before, i ? " " : "", ports[i], v);
	}
	return list;
}

#define EXPECT_REGISTERS(b, want, ...)                                       \
	do {                                                                 \
		AUTO_FREE char *now_ = registers(b);                         \
		cr_expect_str_eq(now_, want, "%s: %s", "" __VA_ARGS__, now_); \
	} while (0)

#define NONE   "10:01.0=1d 12:00.0=1d 14:00.0=1d 14:01.0=1d 19:00.0=1d 19:01.0=1d"
#define ONLY_A "10:01.0=5d 12:00.0=1d 14:00.0=5d 14:01.0=5d 19:00.0=1d 19:01.0=1d"
#define ONLY_B "10:01.0=5d 12:00.0=1d 14:00.0=1d 14:01.0=1d 19:00.0=5d 19:01.0=5d"
#define BOTH   "10:01.0=5d 12:00.0=1d 14:00.0=5d 14:01.0=5d 19:00.0=5d 19:01.0=5d"

static const struct launch_options none = { .definition = "x.ini" };

Test(acs, set_and_put_back)
{
	struct verify_report rep = { 0 };
	struct bench b = { 0 };
	struct launch l;
	struct err e = { 0 };
	unsigned int writes;

	bench(&b);
	begin(&b, &l, &none, "a", "15 16");
	EXPECT_REGISTERS(&b, NONE, "planned only");
	cr_assert(launch_acs(&l, &e) == 0, "%s", e.msg);
	EXPECT_REGISTERS(&b, ONLY_A);
	verify_acs(&l.plan, &l.sys, &rep);
	verify_ats(&l.plan, &l.sys, &rep);
	cr_expect(rep.n == 4 && rep.n_bad == 0 && strcmp(rep.rows[3].what, "ATSCtl of dev-d16") == 0, "%zu rows, %zu bad, %s", rep.n, rep.n_bad, rep.rows[3].what);
	verify_clear(&rep);
	/* ATSCtl; the IOMMU has not turned it on. */
	cr_assert(acs_set(&b.k.sys, &b.s.host.funcs[func(&b.s, "16:00.0")].addr, 0x106, 0, &e) == 0, "%s", e.msg);
	verify_ats(&l.plan, &l.sys, &rep);
	cr_expect(rep.n == 1 && rep.n_bad == 1 && strcmp(rep.rows[0].actual, "Enable-") == 0, "%zu rows, %zu bad", rep.n, rep.n_bad);
	verify_clear(&rep);
	/* As after an adoption: what is there is not written again. */
	writes = atomic_load(&b.k.sh->writes);
	cr_assert(launch_acs(&l, &e) == 0 && atomic_load(&b.k.sh->writes) == writes);
	cr_assert(launch_unacs(&l, 0, &e) == 0, "%s", e.msg);
	EXPECT_REGISTERS(&b, NONE);
	verify_acs(&l.plan, &l.sys, &rep);
	cr_expect(rep.n == 3 && rep.n_bad == 3 && strcmp(rep.rows[0].actual, "0x001d") == 0);
	verify_clear(&rep);
	writes = atomic_load(&b.k.sh->writes);
	cr_assert(launch_unacs(&l, 0, &e) == 0 && atomic_load(&b.k.sh->writes) == writes, "once is enough");
	launch_clear(&l);
	bench_end(&b);
}

/* Whichever ends first: the port that both have goes with the last one. */
Test(acs, two_vms_and_one_root_port)
{
	for (int order = 0; order < 2; order++) {
		struct bench b = { 0 };
		struct launch l[2];
		struct claim c;
		struct err e = { 0 };

		bench(&b);
		begin(&b, &l[0], &none, "a", "15 16");
		cr_assert(launch_acs(&l[0], &e) == 0, "%s", e.msg);
		begin(&b, &l[1], &none, "b", "1a 1b");
		cr_assert(launch_acs(&l[1], &e) == 0, "%s", e.msg);
		EXPECT_REGISTERS(&b, BOTH);
		cr_assert(launch_unacs(&l[order], 0, &e) == 0, "%s", e.msg);
		EXPECT_REGISTERS(&b, order ? ONLY_A : ONLY_B);
		/* Its claim is there until its devices are back, and does not keep the other one from putting the port back. */
		cr_assert(claim_read(l[order].claim.rundir, &c, &e) == 0 && claim_alive(&c) && !c.n_registers);
		claim_clear(&c);
		cr_assert(launch_unacs(&l[!order], 0, &e) == 0, "%s", e.msg);
		EXPECT_REGISTERS(&b, NONE);
		launch_clear(&l[0]);
		launch_clear(&l[1]);
		bench_end(&b);
	}
}

/* A process that has ended. */
static void kill_launcher(struct claim *c)
{
	struct err e = { 0 };
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	c->launcher_pid = pid;
	c->launcher_start = process_start_time(pid);
	kill(pid, SIGKILL);
	cr_assert(waitpid(pid, NULL, 0) == pid && !claim_alive(c));
	cr_assert(claim_write(c, &e) == 0, "%s", e.msg);
}

static void recover(struct bench *b, struct claim *c)
{
	struct err e = { 0 };

	cr_assert(claim_recover(&b->k.sys, c, &e) == 0, "%s", e.msg);
}

Test(acs, after_a_crash)
{
	struct bench b = { 0 };
	struct launch l[2], again;
	struct err e = { 0 };

	bench(&b);
	begin(&b, &l[0], &none, "a", "15 16");
	cr_assert(launch_acs(&l[0], &e) == 0, "%s", e.msg);
	begin(&b, &l[1], &none, "b", "1a 1b");
	cr_assert(launch_acs(&l[1], &e) == 0, "%s", e.msg);
	kill_launcher(&l[0].claim);
	recover(&b, &l[0].claim);
	EXPECT_REGISTERS(&b, ONLY_B, "the other one runs");
	/* Another boot: what the registers say now is the firmware's, not ours. */
	free(l[1].claim.boot_id);
	l[1].claim.boot_id = xstrdup("00000000-0000-0000-0000-000000000000");
	kill_launcher(&l[1].claim);
	recover(&b, &l[1].claim);
	EXPECT_REGISTERS(&b, ONLY_B, "another boot");
	cr_assert(acs_set(&b.k.sys, &b.s.host.funcs[func(&b.s, "19:00.0")].addr, 0x106, 0x1d, &e) == 0);
	cr_assert(acs_set(&b.k.sys, &b.s.host.funcs[func(&b.s, "19:01.0")].addr, 0x106, 0x1d, &e) == 0);
	cr_assert(acs_set(&b.k.sys, &b.s.host.funcs[func(&b.s, "10:01.0")].addr, 0x106, 0x1d, &e) == 0);
	launch_clear(&l[0]);
	launch_clear(&l[1]);

	/* Both dead. Who plans knows the value from before the first of them. */
	begin(&b, &l[0], &none, "a", "15 16");
	begin(&b, &l[1], &none, "b", "1a 1b");
	cr_assert(launch_acs(&l[0], &e) == 0 && launch_acs(&l[1], &e) == 0, "%s", e.msg);
	kill_launcher(&l[0].claim);
	kill_launcher(&l[1].claim);
	recover(&b, &l[1].claim);
	recover(&b, &l[0].claim);
	EXPECT_REGISTERS(&b, NONE, "both died");
	begin(&b, &again, &none, "a", "15 16");
	cr_assert(launch_acs(&again, &e) == 0 && launch_unacs(&again, 0, &e) == 0);
	EXPECT_REGISTERS(&b, NONE, "again");
	launch_clear(&again);
	launch_clear(&l[0]);
	launch_clear(&l[1]);
	bench_end(&b);
}

/* What is not ours is left alone, and a port that has been pulled is no reason to fail. */
Test(acs, changed_meanwhile)
{
	struct bench b = { 0 };
	struct launch l;
	struct err e = { 0 };
	AUTO_FREE char *gone = NULL, *dead = NULL;
	const uint8_t ones[64] = { [0 ... 63] = 0xff };

	bench(&b);
	begin(&b, &l, &none, "a", "15 16");
	cr_assert(launch_acs(&l, &e) == 0, "%s", e.msg);
	cr_assert(acs_set(&b.k.sys, &l.plan.acs[0].addr, 0x106, 0x1f, &e) == 0);
	gone = xasprintf("%s/sys/bus/pci/devices/0000:14:00.0/config", b.s.root);
	dead = xasprintf("%s/sys/bus/pci/devices/0000:14:01.0/config", b.s.root);
	cr_assert(unlink(gone) == 0 && write_file_atomic(dead, (const char *)ones, sizeof(ones), 0600) == 0);
	cr_assert(launch_unacs(&l, 0, &e) == 0 && !l.claim.n_registers, "%s", e.msg);
	{
		uint16_t v = 0;

		cr_assert(acs_get(&b.k.sys, &l.plan.acs[0].addr, 0x106, &v, &e) == 0 && v == 0x1f, "0x%x", v);
	}
	launch_clear(&l);
	bench_end(&b);
}

static int deaf(void *ctx, const char *path, unsigned int offset, uint16_t value)
{
	(void)ctx, (void)path, (void)offset, (void)value;
	return 0;
}

Test(acs, a_register_that_cannot_be_written)
{
	struct bench b = { 0 };
	struct launch l;
	struct claim c;
	struct err e = { 0 };

	bench(&b);
	begin(&b, &l, &none, "a", "15 16");
	/* A kernel that is locked down; a port that does not take it. */
	b.k.sh->fail_at = atomic_load(&b.k.sh->writes) + 2;
	b.k.sh->fail_errno = EPERM;
	cr_assert(launch_acs(&l, &e) == -EPERM && strstr(e.msg, "locked down") && strcmp(e.word, "acs-write-refused") == 0, "%s", e.msg);
	cr_assert(launch_unacs(&l, 1, &e) == 0, "%s", e.msg);
	EXPECT_REGISTERS(&b, NONE, "half-way");
	launch_clear(&l);
	begin(&b, &l, &none, "a", "15 16");
	l.sys.write_word = deaf;
	cr_assert(launch_acs(&l, &e) == -EIO && strstr(e.msg, "is 0x001d after 0x005d was written"), "%s", e.msg);
	l.sys = b.k.sys;

	/* The one that cannot be put back stays in the claim, alone; the next attempt is for that one. */
	cr_assert(launch_acs(&l, &e) == 0, "%s", e.msg);
	b.k.sh->fail_at = atomic_load(&b.k.sh->writes) + 2;
	b.k.sh->fail_errno = EIO;
	cr_assert(launch_unacs(&l, 0, &e) == -EIO && strstr(e.msg, "0000:14:00.0"), "%s", e.msg);
	EXPECT_REGISTERS(&b, "10:01.0=1d 12:00.0=1d 14:00.0=5d 14:01.0=1d 19:00.0=1d 19:01.0=1d");
	cr_assert(claim_read(l.claim.rundir, &c, &e) == 0 && c.n_registers == 1 && c.registers[0].addr.fn == 0, "%s", e.msg);
	kill_launcher(&c);
	recover(&b, &c);
	EXPECT_REGISTERS(&b, NONE);
	claim_clear(&c);
	launch_clear(&l);

	/* What the planner could not read is not taken for done. */
	begin(&b, &l, &none, "a", "15 16");
	l.claim.n_registers = 0;
	cr_assert(launch_acs(&l, &e) < 0 && strcmp(e.word, "acs-not-known") == 0, "%s", e.msg);
	launch_clear(&l);
	bench_end(&b);
}

/* From the command line, of another machine. */
Test(acs, dry_run, .timeout = 60)
{
	struct place p = place_new();
	struct setup s;
	AUTO_FREE char *cmd = NULL, *refused = NULL;

	setup_with(&s, NULL, NULL, "driver=nvme");
	EXPECT_SH(&p, 0, "printf '[vm]\\nname = a\\naccel = tcg\\n[pcie]\\nacs = direct-translated\\n[memory]\\nsize = 1G\\n[cpu]\\nvcpus = 2\\n"
			 "[device g]\\npci = 0000:1a:00.0\\n[device n]\\npci = 0000:1b:00.0\\n' >$R/a.ini");
	cmd = xasprintf("$L -n --format=json --sysroot %s $R/a.ini | jq -r '.acs[] | [.bdf, .from, .to] | join(\" \")'", s.root);
	EXPECT_SH(&p, 0, cmd);
	cr_expect_str_eq(p.out, "0000:10:01.0 001d 005d\n0000:19:00.0 001d 005d\n0000:19:01.0 001d 005d");
	refused = xasprintf("sed 's/1a:00/15:00/; s/1b:00/16:00/' $R/a.ini >$R/b.ini; $L -n --format=json --sysroot %s $R/b.ini", s.root);
	EXPECT_SH(&p, 4, refused);
	EXPECT_SAYS(&p, "\"acs-shared\"");
	setup_clear(&s);
	place_end(&p);
}
