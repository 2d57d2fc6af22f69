/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm audit: a machine on which tenants are kept apart, each planted weakness found once and nothing beside it, what is not known, documents, exit codes. */
#include <json-c/json.h>

#include "gpuvm/acs.h"
#include "gpuvm/audit.h"
#include "gpuvm/probe.h"
#include "programs.h"
#include "tests/fake/mkhost.h"

/* A switch with a GPU, a NIC and a drive; two root ports with a device each, one of two functions; two stacked switches; the host's NIC with virtual functions. */
static const char machine[] = "host m kernel=6.15.0\n"
			      "cpu GenuineIntel threads=2\n"
			      "iommu intel\n"
			      "node 0 socket=0 cpus=0-7 memory=64G free=60G 1G=48/48 2M=0/0\n"
			      "kind rp 8086:352a 060400 pcie=root acs=0x1d driver=pcieport\n"
			      "kind up 1000:c030 060400 pcie=upstream driver=pcieport\n"
			      "kind dn 1000:c030 060400 pcie=downstream driver=pcieport %s\n"
			      "kind gpu 10de:2335 030200 bars=16M:64 driver=vfio-pci\n"
			      "kind nic 15b3:1021 020700 bars=32M:p driver=vfio-pci ats=on\n"
			      "kind ssd 144d:a824 010802 bars=32K:64 driver=nvme\n"
			      "kind duo 8086:1521 020000 bars=1M driver=vfio-pci\n"
			      "kind lom 14e4:165f 020000 bars=64K:p driver=tg3\n"
			      "kind vf 14e4:16dc 020000 bars=64K:p driver=vfio-pci\n"
			      "bus 0000:10 node=0\n"
			      "\t10:01.0 rp\n"
			      "\t\t11:00.0 up\n"
			      "\t\t\t12:00.0 dn\n"
			      "\t\t\t\t13:00.0 gpu\n"
			      "\t\t\t12:01.0 dn\n"
			      "\t\t\t\t14:00.0 nic\n"
			      "\t\t\t12:02.0 dn\n"
			      "\t\t\t\t15:00.0 ssd\n"
			      "\t10:02.0 rp\n"
			      "\t\t16:00.0 gpu\n"
			      "\t10:03.0 rp\n"
			      "\t\t17:00.0 duo\n"
			      "\t\t17:00.1 duo\n"
			      "bus 0000:80 node=0\n"
			      "\t80:01.0 rp\n"
			      "\t\t81:00.0 up\n"
			      "\t\t\t82:00.0 dn\n"
			      "\t\t\t\t83:00.0 up\n"
			      "\t\t\t\t\t84:00.0 dn\n"
			      "\t\t\t\t\t\t85:00.0 gpu\n"
			      "\t\t\t\t\t84:01.0 dn\n"
			      "\t\t\t\t\t\t86:00.0 gpu\n"
			      "\t80:02.0 rp\n"
			      "\t\t87:00.0 lom vfs=2\n"
			      "\t\t87:00.1 vf vf-of=87:00.0\n"
			      "\t\t87:00.2 vf vf-of=87:00.0\n"
			      "net eno1 at 87:00.0\n"
			      "route eno1 default\n";

struct setup {
	char *root;
	struct topology host;
	struct audit a;
	struct doctor_facts f;
	struct doctor_report r;
};

static void set(char **text, const char *value)
{
	free(*text);
	*text = value ? xstrdup(value) : NULL;
}

static void setup_text(struct setup *s, const char *text)
{
	struct err e = { 0 };

	*s = (struct setup){ .root = mkhost_text(text) };
	cr_assert(s->root && probe_host(s->root, &s->host, &e) == 0, "%s", e.msg);
	audit_init(&s->a, &s->host);
}

/* @dn: properties of downstream ports */
static void setup_with(struct setup *s, const char *dn)
{
	AUTO_FREE char *text = xasprintf(machine, dn);

	setup_text(s, text);
}

static void setup(struct setup *s)
{
	setup_with(s, "acs=0x1d");
}

static void setup_clear(struct setup *s)
{
	doctor_report_clear(&s->r);
	doctor_facts_clear(&s->f);
	audit_clear(&s->a);
	topology_clear(&s->host);
	mkhost_remove(s->root);
}

static size_t at(const struct setup *s, const char *bdf)
{
	struct pci_addr a;
	int i;

	cr_assert(parse_pci_addr(bdf, &a) == 0);
	i = topology_find_func(&s->host, &a);
	cr_assert(i >= 0, "%s", bdf);
	return (size_t)i;
}

static void give(struct setup *s, const char *vm, const char *bdf)
{
	audit_give(&s->a, audit_add_vm(&s->a, vm, true), &s->host.funcs[at(s, bdf)].addr);
}

/* Facts of who has what by now, on a machine with interrupt remapping. */
static void look(struct setup *s)
{
	AUTO_FREE bool *wanted = audit_wanted(&s->a);

	doctor_facts_clear(&s->f);
	doctor_facts_read_isolation(s->root, &s->host, wanted, &s->f);
	s->f.interrupt_remapping = 1;
	set(&s->f.cmdline, "quiet iommu=pt");
}

static struct doctor_func *facts_of(struct setup *s, const char *bdf)
{
	return &s->f.funcs[at(s, bdf)];
}

static void check(struct setup *s)
{
	doctor_report_clear(&s->r);
	audit_check(&s->a, &s->f, &s->r);
	cr_expect(s->r.count[DOCTOR_OK] + s->r.count[DOCTOR_WARNING] + s->r.count[DOCTOR_PROBLEM] == s->r.n);
}

static const struct doctor_finding *find(const struct setup *s, const char *code)
{
	for (size_t i = 0; i < s->r.n; i++)
		if (!strcmp(s->r.v[i].code->word, code))
			return &s->r.v[i];
	return NULL;
}

static const char *join(const struct strv *v, char *buf, size_t size)
{
	*buf = '\0';
	for (size_t i = 0; i < v->n; i++)
		snprintf(buf + strlen(buf), size - strlen(buf), "%s%s", i ? " " : "", v->v[i]);
	return buf;
}

/* Nothing is wrong but this. @vms, @part of the text or the fix, @refusal ("" is none) */
static void expect_only(struct setup *s, const char *code, enum doctor_severity severity, const char *subject, const char *vms, const char *part,
			const char *refusal)
{
	const struct doctor_finding *f;
	char buf[256];

	check(s);
	cr_expect(s->r.count[DOCTOR_PROBLEM] + s->r.count[DOCTOR_WARNING] == 1, "%s: %zu problems, %zu warnings", code, s->r.count[DOCTOR_PROBLEM],
		  s->r.count[DOCTOR_WARNING]);
	for (size_t i = 0; i < s->r.n; i++)
		if (s->r.v[i].severity != DOCTOR_OK)
			cr_expect(!strcmp(s->r.v[i].code->word, code), "%s: there is also %s: %s: %s", code, s->r.v[i].code->word, s->r.v[i].subject, s->r.v[i].text);
	f = find(s, code);
	cr_assert(f, "no %s", code);
	cr_expect(f->severity == severity && !strcmp(f->subject, subject), "%s: %s %s", code, doctor_severity_word(f->severity), f->subject);
	cr_expect(!strcmp(join(&f->vms, buf, sizeof(buf)), vms), "%s: of '%s'", code, buf);
	cr_expect(strstr(f->text, part) || strstr(f->fix, part), "%s: '%s' is not in '%s', '%s'", code, part, f->text, f->fix);
	cr_expect(!strcmp(f->refusal ? f->refusal : "", refusal), "%s: refuses with %s", code, f->refusal ? f->refusal : "nothing");
	cr_expect(*f->code->cost && *f->fix, "%s: what does it cost, and what mends it?", code);
}

static void expect_clean(struct setup *s)
{
	check(s);
	for (size_t i = 0; i < s->r.n; i++)
		cr_expect(s->r.v[i].severity == DOCTOR_OK, "%s: %s: %s", s->r.v[i].code->word, s->r.v[i].subject, s->r.v[i].text);
	for (size_t i = 0; i < s->r.n_unknown; i++)
		cr_expect(false, "not known: %s: %s", s->r.unknown[i].code->word, s->r.unknown[i].why);
}

/* --- ways -------------------------------------------------------------------------------------------------------------------------- */

Test(audit, nobody)
{
	struct setup s;

	setup(&s);
	look(&s);
	s.f.interrupt_remapping = 0;
	expect_clean(&s);
	cr_expect(s.r.n == 0);
	setup_clear(&s);
}

Test(audit, kept_apart)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "13:00.0");
	give(&s, "a", "85:00.0");
	give(&s, "b", "14:00.0");
	give(&s, "b", "86:00.0");
	give(&s, "b", "16:00.0");
	give(&s, "c", "17:00.0");
	give(&s, "c", "17:00.1");
	look(&s);
	expect_clean(&s);
	cr_expect(find(&s, "acs-off") && find(&s, "iommu") && find(&s, "not-on-vfio") && find(&s, "interrupt-remapping"));
	/* Both VMs and the host's drive below the first switch; the inner one of the stacked ones. */
	cr_expect(!strcmp(find(&s, "switch-shared")->subject, "0000:11:00.0"));
	cr_expect(!strcmp(find(&s, "switch-shared")->text,
			  "below it are VM 'a' (0000:13:00.0), VM 'b' (0000:14:00.0) and the host (0000:15:00.0 nvme): ACS of its downstream ports keeps them apart"),
		  "%s", find(&s, "switch-shared")->text);
	setup_clear(&s);
}

/* Each bit by itself, on each port of the way, and whose it is. */
Test(audit, bits_that_are_off)
{
	static const struct {
		const char *port;
		uint16_t control;
		const char *vms, *part; /* NULL: that is no weakness */
	} rows[] = {
		{ "12:00.0", 0x19, "a b", "VM 'a' (0000:13:00.0) reaches VM 'b' (0000:14:00.0) and the host (0000:15:00.0 nvme)" }, /* ReqRedir */
		{ "12:00.0", 0x15, "a b", "setpci -s 0000:12:00.0 ECAP_ACS+0x6.w=0x1D" },					    /* CmpltRedir */
		{ "12:00.0", 0x3d, "a b", "setpci -s 0000:12:00.0 ECAP_ACS+0x6.w=0x1D" },					    /* EgressCtrl */
		{ "12:00.0", 0x1c, "a b", "SrcValid-" },
		{ "12:00.0", 0x0d, NULL, NULL }, /* UpstreamFwd: only one function is below it */
		{ "12:00.0", 0x1f, NULL, NULL }, /* TransBlk */
		{ "12:02.0", 0x00, NULL, NULL }, /* above the host's drive */
		{ "10:01.0", 0x19, "a b", "VM 'a' (0000:13:00.0) and VM 'b' (0000:14:00.0) reach VM 'b' (0000:16:00.0) and the host (0000:87:00.0 tg3)" },
		{ "10:01.0", 0x0d, "a b", "VM 'a' (0000:13:00.0) and VM 'b' (0000:14:00.0) reach each other and the host (0000:15:00.0 nvme)" },
		{ "10:01.0", 0x1c, NULL, NULL }, /* the switch's ports validate */
		{ "10:02.0", 0x19, "a b", "VM 'b' (0000:16:00.0) reaches VM 'a' (0000:13:00.0) and the host" },
		{ "10:02.0", 0x1c, "a b", "SrcValid-" },
		{ "82:00.0", 0x00, NULL, NULL }, /* nobody has what is below it */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *subject = xasprintf("0000:%s", rows[i].port);
		struct setup s;

		setup(&s);
		give(&s, "a", "13:00.0");
		give(&s, "b", "14:00.0");
		give(&s, "b", "16:00.0");
		look(&s);
		facts_of(&s, rows[i].port)->acs_control = rows[i].control;
		if (rows[i].part)
			expect_only(&s, "acs-off", DOCTOR_PROBLEM, subject, rows[i].vms, rows[i].part, "isolation-p2p");
		else
			expect_clean(&s);
		setup_clear(&s);
	}
}

/* What a port cannot do is hard-wired; what is one tenant's needs nothing. */
Test(audit, bits_that_matter_to_nobody)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "85:00.0");
	give(&s, "a", "86:00.0");
	look(&s);
	facts_of(&s, "84:00.0")->acs_control = facts_of(&s, "84:01.0")->acs_control = 0;
	expect_clean(&s);
	/* All bits of the port above the stacked switch matter as soon as there is another tenant. */
	give(&s, "b", "86:00.0");
	look(&s);
	facts_of(&s, "82:00.0")->acs_control = 0x0d;
	expect_only(&s, "acs-off", DOCTOR_PROBLEM, "0000:82:00.0", "a b", "UpstreamFwd-", "isolation-p2p");
	facts_of(&s, "82:00.0")->acs_can = 0x0d;
	expect_clean(&s);
	setup_clear(&s);
}

Test(audit, switch_without_acs)
{
	struct setup s;

	setup_with(&s, "");
	/* All that is below both is one VM's, but the host's drive. */
	give(&s, "a", "13:00.0");
	give(&s, "a", "14:00.0");
	look(&s);
	expect_only(&s, "acs-missing", DOCTOR_PROBLEM, "0000:11:00.0", "a", "reaches the host (0000:15:00.0 nvme)", "");
	set(&s.host.funcs[at(&s, "15:00.0")].host_use, "it has /home");
	expect_only(&s, "acs-missing", DOCTOR_PROBLEM, "0000:11:00.0", "a", "reaches the host", "isolation-p2p");
	*s.host.funcs[at(&s, "15:00.0")].driver = '\0';
	expect_clean(&s);
	give(&s, "b", "14:00.0");
	expect_only(&s, "acs-missing", DOCTOR_PROBLEM, "0000:11:00.0", "a b", "VM 'a' (0000:13:00.0) and VM 'b' (0000:14:00.0) reach each other", "isolation-p2p");
	cr_expect(!find(&s, "switch-shared"));
	setup_clear(&s);
}

/* The port that is to send up what comes from the inner switch cannot. */
Test(audit, stacked_switch_without_acs_above)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "85:00.0");
	give(&s, "b", "86:00.0");
	look(&s);
	facts_of(&s, "82:00.0")->acs = false;
	expect_only(&s, "acs-missing", DOCTOR_PROBLEM, "0000:81:00.0", "a b", "reach each other", "isolation-p2p");
	setup_clear(&s);
}

Test(audit, direct_translated)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "13:00.0");
	give(&s, "b", "14:00.0");
	look(&s);
	facts_of(&s, "12:01.0")->acs_control = 0x5d; /* above the NIC, which has ATS */
	expect_only(&s, "direct-translated", DOCTOR_PROBLEM, "0000:12:01.0", "a b", "ECAP_ACS+0x6.w=0x1D", "isolation-p2p");
	facts_of(&s, "12:01.0")->acs_control = 0x5f;
	expect_clean(&s);
	facts_of(&s, "12:01.0")->acs_control = 0x1d;
	facts_of(&s, "12:00.0")->acs_control = 0x5d; /* above the GPU, which has none */
	expect_only(&s, "direct-translated", DOCTOR_WARNING, "0000:12:00.0", "a b", "it has no ATS", "");
	/* Of a whole switch that is one VM's: as [pcie] acs = direct-translated sets it. */
	give(&s, "a", "14:00.0");
	*s.host.funcs[at(&s, "15:00.0")].driver = '\0';
	facts_of(&s, "12:01.0")->acs_control = facts_of(&s, "10:01.0")->acs_control = 0x5d;
	expect_clean(&s);
	setup_clear(&s);
}

Test(audit, functions_of_one_device)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "17:00.0");
	give(&s, "b", "17:00.1");
	look(&s);
	/* Linux has them in groups of their own: it knows the device. */
	check(&s);
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 0 && s.r.n_unknown == 1 && strstr(s.r.unknown[0].why, "0000:17:00.0, 0000:17:00.1"));
	s.host.funcs[at(&s, "17:00.1")].iommu_group = s.host.funcs[at(&s, "17:00.0")].iommu_group;
	check(&s);
	cr_expect(find(&s, "multifunction") && find(&s, "group-shared") && s.r.count[DOCTOR_PROBLEM] == 2);
	cr_expect(!strcmp(find(&s, "multifunction")->subject, "0000:17:00.0") && find(&s, "multifunction")->devices.n == 2);
	s.host.funcs[at(&s, "17:00.1")].iommu_group = 4711;
	facts_of(&s, "17:00.0")->acs = facts_of(&s, "17:00.1")->acs = true;
	facts_of(&s, "17:00.0")->acs_can = facts_of(&s, "17:00.1")->acs_can = 0x0c;
	facts_of(&s, "17:00.0")->acs_control = 0x0c;
	expect_only(&s, "acs-off", DOCTOR_PROBLEM, "0000:17:00.1", "a b", "VM 'b' (0000:17:00.1) reaches VM 'a' (0000:17:00.0)", "isolation-p2p");
	facts_of(&s, "17:00.1")->acs_control = 0x0c;
	expect_clean(&s);
	setup_clear(&s);
}

Test(audit, root_port_without_acs)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "16:00.0");
	look(&s);
	facts_of(&s, "10:02.0")->acs = false;
	check(&s);
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 0 && s.r.n_unknown == 1 && strstr(s.r.unknown[0].why, "0000:10:02.0: without ACS that is standard"));
	cr_expect(!find(&s, "acs-off"), "what is not known is not called fine");
	/* Then groups prove nothing. */
	set(&s.f.cmdline, "pcie_acs_override=downstream");
	check(&s);
	cr_expect(find(&s, "acs-override")->severity == DOCTOR_WARNING && find(&s, "acs-missing")->severity == DOCTOR_PROBLEM);
	cr_expect(!strcmp(find(&s, "acs-missing")->subject, "0000:10:02.0") && s.r.n_unknown == 0);
	setup_clear(&s);
}

Test(audit, not_readable)
{
	struct setup s;

	setup_with(&s, "acs=0x1d unreadable");
	give(&s, "a", "13:00.0");
	give(&s, "b", "14:00.0");
	look(&s);
	check(&s);
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 0 && !find(&s, "acs-off") && !find(&s, "switch-shared"));
	cr_expect(s.r.n_unknown == 1 && strstr(s.r.unknown[0].why, "0000:12:00.0, 0000:12:01.0: "), "%s", s.r.n_unknown ? s.r.unknown[0].why : "");
	setup_clear(&s);
}

/* --- translation ----------------------------------------------------------------------------------------------------------------------- */

Test(audit, translation)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "16:00.0");
	look(&s);
	/* The default domain of iommu=pt is none of a device that VFIO has. */
	set(&facts_of(&s, "16:00.0")->group_type, "identity");
	expect_clean(&s);
	strcpy(s.host.funcs[at(&s, "16:00.0")].driver, "nvidia");
	expect_only(&s, "not-on-vfio", DOCTOR_PROBLEM, "0000:16:00.0", "a", "on driver nvidia: its group's own domain is identity, its DMA is not translated", "");
	strcpy(s.host.funcs[at(&s, "16:00.0")].driver, "nvgrace-gpu-vfio-pci");
	expect_clean(&s);
	/* Before it runs it is on whatever driver it was on. */
	strcpy(s.host.funcs[at(&s, "16:00.0")].driver, "nvidia");
	s.a.vms[0].running = false;
	expect_clean(&s);
	s.f.interrupt_remapping = 0;
	expect_only(&s, "interrupt-remapping", DOCTOR_PROBLEM, "host", "", "VFIO refuses devices", "");
	s.f.unsafe_interrupts = 1;
	expect_only(&s, "interrupt-remapping", DOCTOR_PROBLEM, "host", "", "allow_unsafe_interrupts", "isolation-interrupts");
	s.f.interrupt_remapping = 1;
	expect_only(&s, "interrupt-remapping", DOCTOR_WARNING, "host", "", "allow_unsafe_interrupts", "");
	s.f.unsafe_interrupts = 0;
	s.f.noiommu = 1;
	expect_only(&s, "noiommu", DOCTOR_WARNING, "host", "", "enable_unsafe_noiommu_mode", "");
	s.f.noiommu = 0;
	set(&s.f.cmdline, "pci=noaer,disable_acs_redir=pci:1000:c030");
	expect_only(&s, "acs-cmdline", DOCTOR_WARNING, "host", "", "pci=disable_acs_redir=pci:1000:c030", "");
	set(&s.f.cmdline, "pci=config_acs=xx00xx1@pci:1000:c030");
	expect_only(&s, "acs-cmdline", DOCTOR_WARNING, "host", "", "pci=config_acs=xx00xx1", "");
	set(&s.f.cmdline, "pci=config_acs=1xx11x1@pci:0:0");
	expect_clean(&s);
	s.host.funcs[at(&s, "16:00.0")].iommu_group = -1;
	expect_only(&s, "iommu", DOCTOR_PROBLEM, "0000:16:00.0", "a", "in no IOMMU group", "isolation-iommu");
	s.host.gaps |= GAP_GROUPS;
	s.f.interrupt_remapping = -1;
	set(&s.f.cmdline, NULL);
	check(&s);
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 0 && s.r.n_unknown == 4, "%zu problems, %zu not known", s.r.count[DOCTOR_PROBLEM], s.r.n_unknown);
	setup_clear(&s);
}

Test(audit, groups)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "13:00.0");
	give(&s, "a", "16:00.0");
	look(&s);
	s.host.funcs[at(&s, "13:00.0")].iommu_group = s.host.funcs[at(&s, "16:00.0")].iommu_group = 300;
	s.host.funcs[at(&s, "10:01.0")].iommu_group = s.host.funcs[at(&s, "14:00.0")].iommu_group = 300; /* a bridge, and a NIC on vfio-pci that nobody has */
	expect_clean(&s);
	s.host.funcs[at(&s, "15:00.0")].iommu_group = 300;
	expect_only(&s, "group-shared", DOCTOR_PROBLEM, "group 300", "a", "VM 'a' (0000:13:00.0, 0000:16:00.0) and the host (0000:15:00.0 nvme) are in one IOMMU group",
		    "isolation-group");
	s.host.funcs[at(&s, "15:00.0")].iommu_group = 301;
	give(&s, "b", "14:00.0");
	look(&s);
	expect_only(&s, "group-shared", DOCTOR_PROBLEM, "group 300", "a b", "VM 'b' (0000:14:00.0)", "isolation-group");
	setup_clear(&s);
}

/* --- what is shared ------------------------------------------------------------------------------------------------------------------------ */

Test(audit, virtual_functions)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "87:00.1");
	look(&s);
	expect_clean(&s);
	cr_expect(!find(&s, "vf-siblings"), "one VM alone has some");
	give(&s, "b", "87:00.2");
	look(&s);
	expect_clean(&s);
	cr_expect(strstr(find(&s, "vf-siblings")->text, "VM 'a' (0000:87:00.1) and VM 'b' (0000:87:00.2)") && strstr(find(&s, "vf-siblings")->text, "(tg3)"));
	give(&s, "c", "87:00.0");
	strcpy(s.host.funcs[at(&s, "87:00.0")].driver, "vfio-pci");
	look(&s);
	expect_only(&s, "vf-parent", DOCTOR_PROBLEM, "0000:87:00.0", "c a b", "leave the physical function to the host", "");
	setup_clear(&s);
}

Test(audit, resets)
{
	static const struct {
		const char *resets, *part; /* NULL: fine */
	} rows[] = { { "flr bus", NULL },	  { "pm", NULL },   { "af_flr", NULL }, { "device_specific bus", NULL }, { "acpi", NULL },
		     { "bus", "it can be reset with its whole bus only" }, { "cxl_bus", "it can be reset with its whole bus only" }, { "", "it cannot be reset alone" } };
	struct setup s;

	setup(&s);
	give(&s, "a", "17:00.0");
	give(&s, "b", "17:00.1");
	look(&s);
	for (size_t i = 0; i < 2; i++) {
		struct doctor_func *x = facts_of(&s, i ? "17:00.1" : "17:00.0");

		x->acs = true;
		x->acs_can = x->acs_control = 0x0c;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		set(&facts_of(&s, "17:00.0")->resets, rows[i].resets);
		if (rows[i].part)
			expect_only(&s, "reset-bus", DOCTOR_PROBLEM, "0000:17:00.0", "a b", rows[i].part, "isolation-reset");
		else
			expect_clean(&s);
	}
	set(&facts_of(&s, "17:00.0")->resets, NULL);
	check(&s);
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 0 && s.r.n_unknown == 1);
	/* On a root bus, which is never reset; and with a neighbour of the same VM. */
	set(&facts_of(&s, "17:00.0")->resets, "bus");
	s.host.funcs[at(&s, "17:00.0")].parent = s.host.funcs[at(&s, "17:00.1")].parent = -1;
	expect_clean(&s);
	s.host.funcs[at(&s, "17:00.0")].parent = s.host.funcs[at(&s, "17:00.1")].parent = (int)at(&s, "10:03.0");
	give(&s, "a", "17:00.1");
	expect_clean(&s);
	setup_clear(&s);
}

Test(audit, option_roms)
{
	struct setup s;

	setup(&s);
	give(&s, "a", "16:00.0");
	look(&s);
	audit_add_rom(&s.a, "a", "'/srv/gpu.rom' could have been written by others");
	expect_only(&s, "rom-writable", DOCTOR_WARNING, "a", "a", "romfile: '/srv/gpu.rom' could have been", "");
	audit_keep(&s.r, "b");
	cr_expect(!find(&s, "rom-writable"));
	setup_clear(&s);
}

/* --- machines that are known --------------------------------------------------------------------------------------------------------------- */

/* GPUs dealt out to two VMs; with the NICs and drives below the switches left to the host. */
static void deal(struct setup *s, const char *fixture)
{
	struct err e = { 0 };

	*s = (struct setup){ .root = mkhost_fixture(fixture) };
	cr_assert(s->root && probe_host(s->root, &s->host, &e) == 0, "%s", e.msg);
	audit_init(&s->a, &s->host);
	for (int i = 0; i < s->host.n_gpus; i++)
		audit_give(&s->a, audit_add_vm(&s->a, i < s->host.n_gpus / 2 ? "left" : "right", false), &s->host.funcs[s->host.gpus[i]].addr);
	look(s);
	check(s);
}

Test(audit, known_machines)
{
	static const char *const clean[] = { "hgx-h100", "dgx-a100", "dgx-b200", "dgx2", "xe9680-h200", "h200-cx7-8", "h200-cx7-4-stacked" };
	struct setup s;

	for (size_t i = 0; i < ARRAY_SIZE(clean); i++) {
		deal(&s, clean[i]);
		cr_expect(s.r.count[DOCTOR_PROBLEM] == 0, "%s: %s: %s: %s", clean[i], s.r.v[0].code->word, s.r.v[0].subject, s.r.v[0].text);
		cr_expect(find(&s, "acs-off") || s.r.n_unknown, "%s: neither proven nor not known", clean[i]);
		setup_clear(&s);
	}
	/* The emulated server: switches without ACS, on whose drives and NICs the host has its drivers. */
	deal(&s, "lab");
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 8 && find(&s, "acs-missing") && !find(&s, "acs-missing")->refusal, "%zu", s.r.count[DOCTOR_PROBLEM]);
	setup_clear(&s);
}

/* --- what is printed -------------------------------------------------------------------------------------------------------------------------- */

Test(audit, text_and_json)
{
	AUTO_FREE char *text = NULL;
	struct json_object *o, *findings;
	size_t len = 0, all;
	FILE *out = open_memstream(&text, &len);
	struct setup s;

	setup(&s);
	give(&s, "a", "13:00.0");
	give(&s, "b", "16:00.0");
	audit_add_vm(&s.a, "c", false);
	look(&s);
	facts_of(&s, "12:00.0")->acs_control = 0x11;
	check(&s);
	all = s.r.n;
	o = audit_to_json(&s.a, &s.r);
	findings = json_object_object_get(o, "findings");
	cr_expect(json_object_array_length(findings) == all && json_object_get_int(json_object_object_get(o, "problems")) == 1);
	cr_expect(!strcmp(json_object_to_json_string_ext(json_object_object_get(o, "vms"), JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
			  "[{\"name\":\"a\",\"running\":true,\"devices\":[\"0000:13:00.0\"]},{\"name\":\"b\",\"running\":true,\"devices\":[\"0000:16:00.0\"]},"
			  "{\"name\":\"c\",\"running\":false,\"devices\":[]}]"));
	json_object_put(o);
	/* What is between a and the host is nothing to b. */
	audit_keep(&s.r, "b");
	cr_expect(s.r.n == all - 1 && s.r.count[DOCTOR_PROBLEM] == 0);
	check(&s);
	audit_keep(&s.r, "a");
	cr_expect(s.r.n == all && s.r.count[DOCTOR_PROBLEM] == 1);
	audit_print(&s.a, &s.r, "a", 0, out);
	fclose(out);
	cr_expect(strstr(text, "m, Linux 6.15.0\n"
			       "  VM 'a': 1 function; what concerns it follows\n"
			       "  VM 'b': 1 function\n"
			       "  VM 'c', which does not run: 0 functions\n"
			       "\n"
			       "Translation of DMA and interrupts\n"
			       "  ok       iommu: all 2 functions of VMs are in IOMMU groups\n"), "%s", text);
	cr_expect(strstr(text, "Peer-to-peer through the PCIe tree\n"
			       "  PROBLEM  acs-off: 0000:12:00.0: ACSCtl is 0x11 (SrcValid+ TransBlk- ReqRedir- CmpltRedir- UpstreamFwd+ EgressCtrl- DirectTrans-); "
			       "0x1d is wanted: VM 'a' (0000:13:00.0) reaches the host (0000:15:00.0 nvme)\n"
			       "            fix:    setpci -s 0000:12:00.0 ECAP_ACS+0x6.w=0x1D # until the next boot\n"
			       "            cost:   requests reach the other tenant's device without the IOMMU"), "%s", text);
	cr_expect(strstr(text, "\n1 problem, 0 warnings, "), "%s", text);
	setup_clear(&s);
}

/* docs/audit.md has exactly the codes, with their costs and sources. */
Test(audit, documentation)
{
	AUTO_FREE char *text = NULL;
	size_t rows = 0;

	cr_assert(read_text_file("docs/audit.md", 1 << 20, &text) == 0);
	for (size_t i = 0; i < audit_n_codes; i++) {
		const struct doctor_code *c = &audit_codes[i];
		AUTO_FREE char *begin = xasprintf("\n| `%s` | ", c->word), *cost = xasprintf(" | %s | ", *c->cost ? c->cost : "-"),
			       *source = xasprintf(" | %s |", c->source), *row = NULL;
		const char *row_at = strstr(text, begin);

		cr_expect(row_at, "docs/audit.md has no row for '%s'", c->word);
		if (!row_at)
			continue;
		row = xstrndup(row_at + 1, strcspn(row_at + 1, "\n"));
		cr_expect(strstr(row, cost) && strstr(row, source), "docs/audit.md says of '%s':\n%s\nthe program:%s%s", c->word, row, cost, source);
	}
	for (const char *s = text; (s = strstr(s, "\n| `")); s++)
		rows++;
	cr_expect(rows == audit_n_codes, "docs/audit.md has %zu rows for %zu codes", rows, audit_n_codes);
}

Test(audit, exit_codes, .timeout = 60)
{
	AUTO_FREE char *text = xasprintf(machine, "");
	struct setup good, bad;
	struct place p = place_new();

	setup(&good);
	setup_text(&bad, text);
	setenv("GOOD", good.root, 1);
	setenv("BAD", bad.root, 1);
	EXPECT_SH(&p, 0, "printf '[vm]\\nname=one\\nfirmware=seabios\\n[device g]\\npci=0000:13:00.0\\n[memory]\\nsize=256M\\nhugepages=off\\n' >$R/one.ini; "
			 "sed s/0000:13/0000:99/ $R/one.ini >$R/missing.ini");
	EXPECT_SH(&p, 0, "$G audit --sysroot $GOOD");
	EXPECT_SAYS(&p, "no VM has devices");
	EXPECT_SH(&p, 0, "$G audit --sysroot $GOOD $R/one.ini");
	EXPECT_SAYS(&p, "VM 'one', which does not run: 1 function; what concerns it follows");
	EXPECT_SH(&p, 1, "$G audit --sysroot $BAD $R/one.ini");
	EXPECT_SAYS(&p, "PROBLEM  acs-missing: 0000:11:00.0: a downstream port of the switch cannot do ACS: VM 'one' (0000:13:00.0) reaches the host (0000:15:00.0 nvme)");
	EXPECT_SH(&p, 1, "$G audit --json --sysroot $BAD $R/one.ini >$R/r.json; rc=$?; jq -e '.schema == 1 and .problems == 1 and .vms[0].name == \"one\" and "
			 "([.findings[] | select(.severity == \"problem\")] == [.findings[] | select(.code == \"acs-missing\" and .vms == [\"one\"] and "
			 ".devices == [\"0000:13:00.0\"] and .refusal == null)])' $R/r.json && exit $rc");
	EXPECT_SH(&p, 0, "$G capture --sysroot $BAD $R/bad.tar >/dev/null; $G audit --sysroot $R/bad.tar $R/one.ini; test $? = 1");
	EXPECT_SAYS(&p, "acs-missing: 0000:11:00.0");
	EXPECT_SH(&p, 4, "$G audit --sysroot $GOOD $R/missing.ini");
	EXPECT_SH(&p, 3, "$G audit --sysroot $GOOD $R/nowhere.ini");
	EXPECT_SH(&p, 2, "$G audit --sysroot $R/nothing");
	EXPECT_SH(&p, 2, "$G audit one two");
	EXPECT_SH(&p, 2, "$G audit --frobnicate");
	EXPECT_SH(&p, 0, "$G audit --help && rm $R/*.json $R/*.tar $R/*.ini");
	place_end(&p);
	setup_clear(&good);
	setup_clear(&bad);
}

/* Of this very machine: a VM without devices, and one that claims some. */
Test(audit, running_vms, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO " && $G audit && $G audit demo && $G audit --json | jq -e '.vms == [] and .findings == []'");
	EXPECT_SH(&p, 0, "$G kill demo");
	/* What cannot be read is not passed over. */
	EXPECT_SH(&p, 2, "mkdir -p $R/odd && echo '{' >$R/odd/claim.json; $G audit");
	EXPECT_SAYS(&p, "odd/claim.json");
	EXPECT_SH(&p, 0, "rm -r $R/odd");
	place_end(&p);
}
