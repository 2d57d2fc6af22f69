/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm doctor: each check with a planted fault and without it, what is not known, the facts below a root, documents and exit codes. */
#include <errno.h>
#include <json-c/json.h>
#include <sys/stat.h>

#include "gpuvm/bad.h"
#include "gpuvm/doctor.h"
#include "gpuvm/probe.h"
#include "programs.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

/* A good machine: two nodes, each with a switch that has a GPU, a NIC and a drive below it. %s: properties of root port, downstream port, GPU, NIC. */
static const char machine[] = "host m kernel=6.15.0\n"
			      "cpu GenuineIntel threads=2\n"
			      "iommu intel\n"
			      "node 0 socket=0 cpus=0-7 memory=64G free=60G 1G=48/48 2M=0/0 distances=10,21\n"
			      "node 1 socket=1 cpus=8-15 memory=64G free=60G 1G=48/48 2M=0/0 distances=21,10\n"
			      "kind rp 8086:352a 060400 pcie=root link=32x16 acs=0x5d driver=pcieport %s\n"
			      "kind up 1000:c030 060400 pcie=upstream link=32x16 driver=pcieport\n"
			      "kind dn 1000:c030 060400 pcie=downstream link=32x16 driver=pcieport %s\n"
			      "kind gpu 10de:2335 030200 bars=16M:64,256G:p,32M:p link=32x16 %s\n"
			      "kind nic 15b3:1021 020700 bars=32M:p link=32x16 driver=mlx5_core %s\n"
			      "kind ssd 144d:a824 010802 bars=32K:64 link=32x4 driver=nvme\n"
			      "kind lom 14e4:165f 020000 bars=64K:p link=5x2 driver=tg3\n"
			      "bus 0000:10 node=0\n"
			      "\t10:01.0 rp\n"
			      "\t\t11:00.0 up\n"
			      "\t\t\t12:00.0 dn\n"
			      "\t\t\t\t13:00.0 gpu\n"
			      "\t\t\t12:01.0 dn\n"
			      "\t\t\t\t14:00.0 nic\n"
			      "\t\t\t12:02.0 dn link=32x4\n"
			      "\t\t\t\t15:00.0 ssd\n"
			      "bus 0000:80 node=1\n"
			      "\t80:01.0 rp\n"
			      "\t\t81:00.0 up\n"
			      "\t\t\t82:00.0 dn\n"
			      "\t\t\t\t83:00.0 gpu\n"
			      "\t\t\t82:01.0 dn\n"
			      "\t\t\t\t84:00.0 nic\n"
			      "\t80:02.0 rp link=8x4\n"
			      "\t\t85:00.0 lom\n"
			      "net eno1 at 85:00.0\n"
			      "route eno1 default\n";

struct setup {
	char *root;
	struct topology host;
	struct doctor_facts f;
	struct doctor_report r;
	struct qemu_info qemu;
};

static void setup_root(struct setup *s, char *root)
{
	struct err e = { 0 };

	*s = (struct setup){ .root = root };
	cr_assert(root && probe_host(root, &s->host, &e) == 0, "%s", e.msg);
	doctor_facts_read(root, &s->host, &s->f);
}

/* Properties: NULL is those of the good machine. */
static void setup_with(struct setup *s, const char *rp, const char *dn, const char *gpu, const char *nic)
{
	AUTO_FREE char *text = xasprintf(machine, rp ? rp : "", dn ? dn : "acs=0x5d", gpu ? gpu : "", nic ? nic : "ats=on");

	setup_root(s, mkhost_text(text));
}

static void setup(struct setup *s)
{
	setup_with(s, NULL, NULL, NULL, NULL);
}

static void setup_clear(struct setup *s)
{
	doctor_report_clear(&s->r);
	doctor_facts_clear(&s->f);
	topology_clear(&s->host);
	mkhost_remove(s->root);
}

static struct pci_func *func(struct setup *s, const char *bdf)
{
	struct pci_addr a;
	int at;

	cr_assert(parse_pci_addr(bdf, &a) == 0);
	at = topology_find_func(&s->host, &a);
	cr_assert(at >= 0, "%s", bdf);
	return &s->host.funcs[at];
}

static struct doctor_func *facts_of(struct setup *s, const char *bdf)
{
	return &s->f.funcs[func(s, bdf) - s->host.funcs];
}

static void check(struct setup *s)
{
	doctor_report_clear(&s->r);
	doctor_check(&s->f, &s->r);
	cr_expect(s->r.count[DOCTOR_OK] + s->r.count[DOCTOR_WARNING] + s->r.count[DOCTOR_PROBLEM] == s->r.n);
}

static bool is_unknown(const struct setup *s, const char *code)
{
	for (size_t i = 0; i < s->r.n_unknown; i++)
		if (!strcmp(s->r.unknown[i].code->word, code))
			return true;
	return false;
}

/* The finding of @code that weighs most; NULL: there is none. */
static const struct doctor_finding *worst(const struct setup *s, const char *code)
{
	const struct doctor_finding *w = NULL;

	for (size_t i = 0; i < s->r.n; i++)
		if (!strcmp(s->r.v[i].code->word, code) && (!w || s->r.v[i].severity > w->severity))
			w = &s->r.v[i];
	return w;
}

#define EXPECT(s, what, want)                                                                                                              \
	do {                                                                                                                               \
		const struct doctor_finding *w_;                                                                                           \
		check(s);                                                                                                                  \
		w_ = worst((s), (what));                                                                                                   \
		cr_expect(w_ && w_->severity == (want), "%s is %s, expected %s%s%s", (what), w_ ? doctor_severity_word(w_->severity) : "missing", \
			  doctor_severity_word(want), w_ ? ": " : "", w_ ? w_->text : "");                                                 \
		cr_expect(!w_ || w_->severity == DOCTOR_OK || *w_->code->cost, "%s: what does it cost?", (what));                          \
	} while (0)
#define EXPECT_UNKNOWN(s, what)                                                                                                            \
	do {                                                                                                                               \
		check(s);                                                                                                                  \
		cr_expect(!worst((s), (what)), "%s: something is said of what is not known", (what));                                      \
		cr_expect(is_unknown((s), (what)), "%s: it is not said that it is not known", (what));                                     \
	} while (0)
#define EXPECT_TEXT(s, what, part)                                                                                                         \
	do {                                                                                                                               \
		const struct doctor_finding *w_ = worst((s), (what));                                                                      \
		cr_expect(w_ && (strstr(w_->text, (part)) || strstr(w_->fix, (part)) || !strcmp(w_->subject, (part))), "%s: '%s' is not in '%s', %s, '%s'", \
			  (what), (part), w_ ? w_->text : "", w_ ? w_->subject : "", w_ ? w_->fix : "");                                   \
	} while (0)

static void set(char **text, const char *value)
{
	free(*text);
	*text = value ? xstrdup(value) : NULL;
}

/* --- IOMMU, VFIO and KVM --------------------------------------------------------------------------------------------------- */

Test(doctor, iommu)
{
	struct setup s;

	setup(&s);
	EXPECT(&s, "iommu", DOCTOR_OK);
	s.host.iommu_groups = false;
	EXPECT(&s, "iommu", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "iommu", "intel_iommu=on");
	/* What depends on it is not blamed, too. */
	cr_expect(!worst(&s, "acs-isolation") && !worst(&s, "iommu-group") && !worst(&s, "interrupt-remapping") && !is_unknown(&s, "interrupt-remapping"));
	set(&s.f.cmdline, "quiet intel_iommu=off");
	EXPECT(&s, "iommu", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "iommu", "take intel_iommu=off off");
	set(&s.f.cmdline, "quiet");
	strcpy(s.host.cpu_vendor, "AuthenticAMD");
	check(&s);
	EXPECT_TEXT(&s, "iommu", "AMD-Vi");
	s.f.hypervisor = 1;
	check(&s);
	EXPECT_TEXT(&s, "iommu", "its hypervisor");
	s.host.gaps |= GAP_GROUPS;
	EXPECT_UNKNOWN(&s, "iommu");
	setup_clear(&s);
}

Test(doctor, iommu_mode_and_interrupts)
{
	struct setup s;

	setup(&s);
	EXPECT_UNKNOWN(&s, "iommu-mode");
	facts_of(&s, "13:00.0")->group_type = xstrdup("DMA-FQ");
	EXPECT(&s, "iommu-mode", DOCTOR_OK);
	EXPECT_TEXT(&s, "iommu-mode", "translated (DMA-FQ)");
	EXPECT_UNKNOWN(&s, "interrupt-remapping");
	s.f.interrupt_remapping = 1;
	EXPECT(&s, "interrupt-remapping", DOCTOR_OK);
	s.f.interrupt_remapping = 0;
	EXPECT(&s, "interrupt-remapping", DOCTOR_PROBLEM);
	set(&s.f.cmdline, "intremap=off");
	check(&s);
	EXPECT_TEXT(&s, "interrupt-remapping", "take intremap=off off");
	s.f.unsafe_interrupts = 1;
	EXPECT(&s, "interrupt-remapping", DOCTOR_WARNING);
	setup_clear(&s);
}

Test(doctor, vfio_and_kvm)
{
	struct setup s;

	setup(&s);
	EXPECT(&s, "vfio", DOCTOR_OK);
	s.host.vfio = false;
	EXPECT(&s, "vfio", DOCTOR_PROBLEM);
	EXPECT_UNKNOWN(&s, "vfio-dma-entries");
	s.f.dma_entry_limit = 65535;
	EXPECT(&s, "vfio-dma-entries", DOCTOR_OK);
	s.f.dma_entry_limit = 100;
	EXPECT(&s, "vfio-dma-entries", DOCTOR_WARNING);
	EXPECT(&s, "kvm", DOCTOR_OK);
	s.host.kvm = false;
	s.f.kvm_device = 1;
	EXPECT(&s, "kvm", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "kvm", "may not open it");
	s.f.kvm_device = 0;
	s.f.cpu_virtualization = 1;
	EXPECT(&s, "kvm", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "kvm", "modprobe kvm_intel");
	s.f.cpu_virtualization = 0;
	check(&s);
	EXPECT_TEXT(&s, "kvm", "VT-x");
	s.f.kvm_device = -1;
	EXPECT_UNKNOWN(&s, "kvm");
	EXPECT_UNKNOWN(&s, "kvm-nested");
	s.f.kvm_nested = 0;
	EXPECT(&s, "kvm-nested", DOCTOR_OK);
	setup_clear(&s);
}

Test(doctor, acs_on_the_command_line)
{
	static const struct {
		const char *cmdline;
		enum doctor_severity override, cmd;
	} rows[] = {
		{ "quiet", DOCTOR_OK, DOCTOR_OK },
		{ "pcie_acs_override=downstream,multifunction", DOCTOR_PROBLEM, DOCTOR_OK },
		{ "pci=noaer,disable_acs_redir=pci:1000:c030 quiet", DOCTOR_OK, DOCTOR_WARNING },
		/* from the right: SrcValid TransBlk ReqRedir CmpltRedir UpstreamFwd EgressCtrl DirectTrans */
		{ "pci=config_acs=xx00xx1@pci:1000:c030", DOCTOR_OK, DOCTOR_WARNING },
		{ "pci=config_acs=1xx11x1@pci:0:0", DOCTOR_OK, DOCTOR_OK },
		{ "pci=config_acs=1011101@pci:0:0", DOCTOR_OK, DOCTOR_OK },
		{ "pci=config_acs=1xxxxxx@0000:12:00.0;xxx0xxx@0000:12:01.0", DOCTOR_OK, DOCTOR_WARNING },
		{ "pci=config_acs=1xxxxxx@0000:12:00.0;xx0@0000:12:01.0", DOCTOR_OK, DOCTOR_OK },
		{ "pci=config_acs=1xxxxxx@0000:12:00.0;0xx@0000:12:01.0", DOCTOR_OK, DOCTOR_WARNING },
	};
	struct setup s;

	setup(&s);
	EXPECT_UNKNOWN(&s, "acs-override");
	EXPECT_UNKNOWN(&s, "acs-cmdline");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		set(&s.f.cmdline, rows[i].cmdline);
		EXPECT(&s, "acs-override", rows[i].override);
		EXPECT(&s, "acs-cmdline", rows[i].cmd);
	}
	setup_clear(&s);
}

/* --- devices ----------------------------------------------------------------------------------------------------------------- */

Test(doctor, good_machine)
{
	static const char *const codes[] = { "gpus",	"iommu-group", "acs-isolation", "acs-direct", "ats",	    "link-width", "link-speed",
					     "bar-unassigned", "bar-size", "host-near-gpu", "gpu-node",    "gpu-reset",	"gpu-vfs", "gpu-driver", "hugepages",
					     "hugepages-node", "memory-free", "nodes-per-socket", "isolated-cpus", "kernel" };
	struct setup s;

	setup(&s);
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		EXPECT(&s, codes[i], DOCTOR_OK);
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 0 && s.r.count[DOCTOR_WARNING] == 0);
	setup_clear(&s);
}

Test(doctor, acs)
{
	static const struct {
		const char *dn;
		enum doctor_severity isolation, direct;
		const char *fix; /* of the worse one */
	} rows[] = {
		{ "acs=0x5d", DOCTOR_OK, DOCTOR_OK, NULL },
		{ "acs=0x1d", DOCTOR_OK, DOCTOR_WARNING, "ECAP_ACS+0x6.w=0x5D" },
		{ "acs=0x5f", DOCTOR_OK, DOCTOR_WARNING, "ECAP_ACS+0x6.w=0x5D" }, /* TransBlk */
		{ "acs=0x59", DOCTOR_PROBLEM, DOCTOR_OK, "ECAP_ACS+0x6.w=0x5D" }, /* ReqRedir is off */
		{ "acs=0x00", DOCTOR_PROBLEM, DOCTOR_OK, "ECAP_ACS+0x6.w=0x5D" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *code = rows[i].isolation ? "acs-isolation" : "acs-direct";
		struct setup s;

		setup_with(&s, NULL, rows[i].dn, NULL, NULL);
		EXPECT(&s, code, rows[i].isolation ? rows[i].isolation : rows[i].direct);
		if (rows[i].fix)
			EXPECT_TEXT(&s, code, rows[i].fix);
		if (rows[i].isolation == DOCTOR_PROBLEM)
			cr_expect(!worst(&s, "acs-direct"), "what is not isolated is not called fine for peers");
		setup_clear(&s);
	}
}

/* What a port cannot do is not asked of it. */
Test(doctor, acs_of_what_a_port_can)
{
	struct setup s;

	setup(&s);
	facts_of(&s, "12:00.0")->acs_can = 0x1d;
	facts_of(&s, "12:00.0")->acs_control = 0x1d;
	EXPECT(&s, "acs-direct", DOCTOR_OK);
	facts_of(&s, "12:00.0")->acs_control = 0x0d;
	EXPECT(&s, "acs-isolation", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "acs-isolation", "ECAP_ACS+0x6.w=0x1D");
	EXPECT_TEXT(&s, "acs-isolation", "0000:12:00.0");
	EXPECT_TEXT(&s, "acs-isolation", "UpstreamFwd-");
	setup_clear(&s);
}

/* Ports that lead to no NIC beside a GPU need isolation, but not the short way: as that of a drive. */
Test(doctor, acs_where_it_matters)
{
	struct setup s;

	setup(&s);
	facts_of(&s, "12:02.0")->acs_control = 0x1d;
	EXPECT(&s, "acs-direct", DOCTOR_OK);
	facts_of(&s, "80:02.0")->acs_control = 0; /* above the host's own NIC */
	EXPECT(&s, "acs-isolation", DOCTOR_OK);
	facts_of(&s, "12:01.0")->acs_control = 0x1d;
	EXPECT(&s, "acs-direct", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "acs-direct", "0000:12:01.0");
	setup_clear(&s);
}

Test(doctor, acs_missing_or_hidden)
{
	struct setup s;

	setup_with(&s, NULL, "", NULL, NULL);
	EXPECT(&s, "acs-missing", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "acs-missing", "downstream ports of the switch cannot do ACS");
	EXPECT_TEXT(&s, "acs-missing", "0000:11:00.0");
	setup_clear(&s);
	setup_with(&s, "unreadable", "acs=0x0 unreadable", "unreadable", "unreadable");
	EXPECT_UNKNOWN(&s, "ats");
	EXPECT_UNKNOWN(&s, "bar-size");
	EXPECT_UNKNOWN(&s, "acs-isolation");
	EXPECT_UNKNOWN(&s, "acs-direct");
	cr_expect(!worst(&s, "acs-missing"));
	setup_clear(&s);
}

Test(doctor, ats)
{
	struct setup s;

	setup_with(&s, NULL, NULL, NULL, "ats");
	EXPECT(&s, "ats", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "ats", "Enable-");
	setup_clear(&s);
	setup_with(&s, NULL, NULL, NULL, "");
	EXPECT(&s, "ats", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "ats", "mlxconfig -d 0000:14:00.0 set ATS_ENABLED=true");
	/* Nothing is said of a NIC that is not beside a GPU. */
	func(&s, "14:00.0")->vendor = func(&s, "84:00.0")->vendor = 0x8086;
	func(&s, "85:00.0")->vendor = 0x15b3;
	check(&s);
	cr_expect(!worst(&s, "ats"));
	setup_clear(&s);
}

Test(doctor, links)
{
	struct setup s;

	setup_with(&s, NULL, NULL, "now=2.5x16", NULL);
	EXPECT(&s, "link-speed", DOCTOR_OK);
	EXPECT_TEXT(&s, "link-speed", "2 idle GPUs");
	EXPECT(&s, "link-width", DOCTOR_OK);
	func(&s, "13:00.0")->link.cur_width = 8;
	EXPECT(&s, "link-width", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "link-width", "0000:13:00.0");
	EXPECT_TEXT(&s, "link-width", "x8 of x16");
	func(&s, "12:00.0")->link.max_width = 8; /* the slot has no more */
	EXPECT(&s, "link-width", DOCTOR_WARNING);
	func(&s, "14:00.0")->link.cur_mts = 16000;
	EXPECT(&s, "link-speed", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "link-speed", "16.0 of 32.0 GT/s");
	func(&s, "12:01.0")->link.max_mts = 16000;
	EXPECT(&s, "link-speed", DOCTOR_OK);
	func(&s, "11:00.0")->link.cur_mts = 8000; /* the switch itself */
	EXPECT(&s, "link-speed", DOCTOR_WARNING);
	func(&s, "85:00.0")->link.cur_width = 1; /* the host's NIC is nobody's business */
	func(&s, "13:00.0")->link.cur_width = func(&s, "13:00.0")->link.max_width = 16;
	func(&s, "12:00.0")->link.max_width = 16;
	EXPECT(&s, "link-width", DOCTOR_OK);
	for (size_t i = 0; i < s.host.n_funcs; i++)
		s.host.funcs[i].link.cur_mts = 0;
	EXPECT_UNKNOWN(&s, "link-width");
	EXPECT_UNKNOWN(&s, "link-speed");
	setup_clear(&s);
}

Test(doctor, bars)
{
	struct setup s;

	setup(&s);
	func(&s, "13:00.0")->bars[2].start = 0;
	EXPECT(&s, "bar-unassigned", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "bar-unassigned", "BAR 2");
	func(&s, "13:00.0")->bars[2].start = 0x1000;
	func(&s, "13:00.0")->bars[2].flags |= 0x20000000;
	EXPECT(&s, "bar-unassigned", DOCTOR_PROBLEM);
	/* The kernel gave up on it, but the register says what it is. */
	func(&s, "13:00.0")->bars[2] = (struct pci_bar){ 0 };
	EXPECT(&s, "bar-unassigned", DOCTOR_PROBLEM);
	facts_of(&s, "13:00.0")->bars_64 = 0;
	EXPECT(&s, "bar-unassigned", DOCTOR_OK);
	facts_of(&s, "83:00.0")->resizable[0].bar = 1;
	facts_of(&s, "83:00.0")->resizable[0].bytes = UINT64_C(256) << 20;
	facts_of(&s, "83:00.0")->resizable[0].max_bytes = UINT64_C(32) << 30;
	facts_of(&s, "83:00.0")->n_resizable = 1;
	EXPECT(&s, "bar-size", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "bar-size", "BAR 1 has 256 MiB and can have 32 GiB");
	EXPECT_TEXT(&s, "bar-size", "echo 15 >/sys/bus/pci/devices/0000:83:00.0/resource1_resize");
	facts_of(&s, "83:00.0")->resizable[0].bytes = UINT64_C(32) << 30;
	EXPECT(&s, "bar-size", DOCTOR_OK);
	setup_clear(&s);
}

Test(doctor, groups)
{
	struct setup s;

	setup(&s);
	func(&s, "14:00.0")->iommu_group = func(&s, "13:00.0")->iommu_group;
	EXPECT(&s, "iommu-group", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "iommu-group", "0000:14:00.0 (mlx5_core)");
	EXPECT_TEXT(&s, "iommu-group", "0000:13:00.0");
	func(&s, "85:00.0")->iommu_group = func(&s, "13:00.0")->iommu_group;
	EXPECT(&s, "iommu-group", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "iommu-group", "default route");
	func(&s, "85:00.0")->iommu_group = 900;
	func(&s, "14:00.0")->iommu_group = 901;
	func(&s, "12:00.0")->iommu_group = func(&s, "13:00.0")->iommu_group; /* its own port */
	EXPECT(&s, "iommu-group", DOCTOR_OK);
	func(&s, "83:00.0")->iommu_group = -1;
	EXPECT(&s, "iommu-group", DOCTOR_PROBLEM);
	setup_clear(&s);
}

Test(doctor, gpus_themselves)
{
	struct pci_func *gpu;
	struct setup s;

	setup(&s);
	gpu = func(&s, "13:00.0");
	gpu->node = -1;
	EXPECT(&s, "gpu-node", DOCTOR_WARNING);
	gpu->can_reset = false;
	EXPECT(&s, "gpu-reset", DOCTOR_WARNING);
	gpu->sriov_vfs = 4;
	EXPECT(&s, "gpu-vfs", DOCTOR_PROBLEM);
	strcpy(gpu->driver, "nouveau");
	EXPECT(&s, "gpu-driver", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "gpu-driver", "blacklist nouveau");
	strcpy(gpu->driver, "nvidia");
	EXPECT(&s, "gpu-driver", DOCTOR_WARNING);
	strcpy(gpu->driver, "vfio-pci");
	EXPECT(&s, "gpu-driver", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "device-bad");
	s.f.live = true;
	EXPECT(&s, "device-bad", DOCTOR_OK);
	gpu->bad = xstrdup("its reset failed");
	EXPECT(&s, "device-bad", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "device-bad", "gpuvm doctor --clear 0000:13:00.0");
	gpu->dead = true;
	check(&s);
	EXPECT_TEXT(&s, "device-bad", "reboot the host");
	func(&s, "84:00.0")->host_use = xstrdup("network interface ib0 has an address");
	EXPECT(&s, "host-near-gpu", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "host-near-gpu", "0000:84:00.0");
	setup_clear(&s);
}

/* Where the fabric is shared, the host has the driver, and Fabric Manager has to run. */
Test(doctor, fabric_manager)
{
	struct setup s;

	setup_root(&s, mkhost_fixture("xe9680-h200"));
	EXPECT_UNKNOWN(&s, "fabric-manager");
	s.f.fabric_manager = 0;
	EXPECT(&s, "fabric-manager", DOCTOR_OK);
	s.f.fabric_manager = 1;
	EXPECT(&s, "fabric-manager", DOCTOR_WARNING);
	strcpy(func(&s, "6d:00.0")->driver, "nvidia");
	strcpy(func(&s, "19:00.0")->driver, "nvidia");
	EXPECT(&s, "fabric-manager", DOCTOR_OK);
	EXPECT(&s, "gpu-driver", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "fabric-version");
	EXPECT_UNKNOWN(&s, "fabric-state");
	s.f.nvidia_version = xstrdup("580.95.05");
	s.f.fm_version = xstrdup("580.95.05");
	EXPECT(&s, "fabric-version", DOCTOR_OK);
	s.f.fm_version[0] = '4';
	EXPECT(&s, "fabric-version", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "fabric-version", "Fabric Manager is 480.95.05, the driver 580.95.05");
	s.f.fm_asked = 0;
	s.f.fm_error = xstrdup("NOT_SUPPORTED: it does not share NVSwitches");
	EXPECT(&s, "fabric-state", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "fabric-state", "NOT_SUPPORTED");
	s.f.fm_asked = 1;
	s.f.fm_partitions = 15;
	s.f.fm_active = 2;
	EXPECT(&s, "fabric-state", DOCTOR_OK);
	EXPECT_TEXT(&s, "fabric-state", "15 partitions, 2 active");
	s.f.fabric_manager = 0;
	EXPECT(&s, "fabric-manager", DOCTOR_PROBLEM);
	setup_clear(&s);
}

Test(doctor, errors)
{
	struct doctor_func *x;
	struct setup s;

	setup(&s);
	EXPECT_UNKNOWN(&s, "aer");
	x = facts_of(&s, "12:00.0");
	x->aer_fatal = x->aer_nonfatal = x->aer_correctable = 0;
	EXPECT(&s, "aer", DOCTOR_OK);
	x->aer_correctable = 20;
	s.f.uptime_s = 3600 * 10;
	EXPECT(&s, "aer", DOCTOR_OK);
	x->aer_correctable = 27;
	EXPECT(&s, "aer", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "aer", "0000:12:00.0");
	x->aer_correctable = 0;
	x->aer_nonfatal = 1;
	EXPECT(&s, "aer", DOCTOR_WARNING);
	x->aer_fatal = 1;
	EXPECT(&s, "aer", DOCTOR_PROBLEM);
	setup_clear(&s);
}

Test(doctor, no_gpus)
{
	struct setup s;

	setup_root(&s, mkhost_fixture("plain"));
	EXPECT(&s, "gpus", DOCTOR_WARNING);
	cr_expect(!worst(&s, "link-width") && !worst(&s, "gpu-node") && !worst(&s, "bar-size") && !worst(&s, "iommu-group") && !worst(&s, "host-near-gpu"));
	setup_clear(&s);
}

/* --- memory and CPUs ------------------------------------------------------------------------------------------------------------- */

static struct hugepage_pool *pool(struct setup *s, size_t node, uint64_t page_bytes)
{
	for (size_t i = 0; i < s->host.nodes[node].n_pools; i++)
		if (s->host.nodes[node].pools[i].page_bytes == page_bytes)
			return &s->host.nodes[node].pools[i];
	cr_assert_fail("node %zu has no such pool", node);
	return NULL;
}

Test(doctor, hugepages)
{
	uint64_t gib = UINT64_C(1) << 30;
	struct setup s;

	setup(&s);
	EXPECT(&s, "hugepages-node", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "hugepages-boot");
	set(&s.f.cmdline, "hugepagesz=1G hugepages=96");
	EXPECT(&s, "hugepages-boot", DOCTOR_OK);
	set(&s.f.cmdline, "quiet");
	EXPECT(&s, "hugepages-boot", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "hugepages-boot", "hugepagesz=1G hugepages=0:60,1:60");
	pool(&s, 1, gib)->total = 46; /* a little less */
	EXPECT(&s, "hugepages-node", DOCTOR_OK);
	pool(&s, 1, gib)->total = 44;
	EXPECT(&s, "hugepages-node", DOCTOR_WARNING);
	pool(&s, 1, gib)->total = 0;
	EXPECT(&s, "hugepages-node", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "hugepages-node", "node 1");
	EXPECT_TEXT(&s, "hugepages-node", "echo 48 >/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages");
	pool(&s, 1, UINT64_C(2) << 20)->total = 1000; /* of another size: not the same, but something */
	EXPECT(&s, "hugepages-node", DOCTOR_WARNING);
	pool(&s, 1, UINT64_C(2) << 20)->total = 0;
	func(&s, "83:00.0")->node = 0; /* then there is no GPU on node 1 */
	EXPECT(&s, "hugepages-node", DOCTOR_WARNING);
	pool(&s, 0, gib)->total = 0;
	EXPECT(&s, "hugepages", DOCTOR_WARNING);
	cr_expect(!worst(&s, "hugepages-node") && !worst(&s, "hugepages-boot"));
	EXPECT_TEXT(&s, "hugepages", "add hugepagesz=1G hugepages=0:60,1:60 to the kernel command line");
	s.f.page_1g = 0;
	check(&s);
	EXPECT_TEXT(&s, "hugepages", "echo 30720 >/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages");
	s.host.nodes[0].n_pools = 0;
	EXPECT_UNKNOWN(&s, "hugepages");
	setup_clear(&s);
}

Test(doctor, memory)
{
	struct setup s;

	setup(&s);
	EXPECT_UNKNOWN(&s, "thp");
	set(&s.f.thp, "never");
	EXPECT(&s, "thp", DOCTOR_OK);
	pool(&s, 0, UINT64_C(1) << 30)->total = 0;
	EXPECT(&s, "thp", DOCTOR_WARNING);
	set(&s.f.thp, "madvise");
	EXPECT(&s, "thp", DOCTOR_OK);
	s.f.mem_total = INT64_C(128) << 30;
	s.f.hugetlb = INT64_C(96) << 30;
	s.f.mem_available = INT64_C(2) << 30;
	EXPECT(&s, "memory-free", DOCTOR_OK);
	s.f.mem_available = INT64_C(1) << 30;
	EXPECT(&s, "memory-free", DOCTOR_WARNING);
	s.f.mem_available = -1;
	EXPECT_UNKNOWN(&s, "memory-free");
	EXPECT_UNKNOWN(&s, "swap");
	s.f.swap_total = s.f.swap_used = 0;
	EXPECT(&s, "swap", DOCTOR_OK);
	s.f.swap_total = INT64_C(8) << 30;
	s.f.swap_used = INT64_C(2) << 30;
	EXPECT(&s, "swap", DOCTOR_WARNING);
	EXPECT_UNKNOWN(&s, "ksm");
	s.f.ksm = 0;
	EXPECT(&s, "ksm", DOCTOR_OK);
	s.f.ksm = 1;
	EXPECT(&s, "ksm", DOCTOR_WARNING);
	EXPECT_UNKNOWN(&s, "numa-balancing");
	s.f.numa_balancing = 1;
	EXPECT(&s, "numa-balancing", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "max-map-count");
	s.f.max_map_count = 65530;
	EXPECT(&s, "max-map-count", DOCTOR_OK);
	s.f.max_map_count = 1000;
	EXPECT(&s, "max-map-count", DOCTOR_WARNING);
	setup_clear(&s);
}

Test(doctor, cpus)
{
	struct setup s;

	setup(&s);
	EXPECT_UNKNOWN(&s, "c-states");
	set(&s.f.idle_driver, "intel_idle");
	set(&s.f.idle_state, "C6");
	s.f.idle_latency_us = 170;
	EXPECT(&s, "c-states", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "c-states", "intel_idle.max_cstate=1");
	s.f.latency_limit_us = 2000000000;
	EXPECT(&s, "c-states", DOCTOR_WARNING);
	s.f.latency_limit_us = 0;
	EXPECT(&s, "c-states", DOCTOR_OK);
	s.f.idle_latency_us = 10;
	s.f.latency_limit_us = -1;
	EXPECT(&s, "c-states", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "smt");
	set(&s.f.smt, "on");
	EXPECT(&s, "smt", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "governor");
	set(&s.f.governors, "performance schedutil");
	EXPECT(&s, "governor", DOCTOR_WARNING);
	set(&s.f.governors, "performance");
	EXPECT(&s, "governor", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "irqbalance");
	s.f.irqbalance = 1;
	EXPECT(&s, "irqbalance", DOCTOR_WARNING);
	s.f.irqbalance = 0;
	EXPECT(&s, "irqbalance", DOCTOR_OK);
	for (size_t i = 0; i < s.host.n_cpus; i++)
		s.host.cpus[i].isolated = s.host.cpus[i].node == 1 && s.host.cpus[i].cpu != 8;
	EXPECT(&s, "isolated-cpus", DOCTOR_OK);
	for (size_t i = 0; i < s.host.n_cpus; i++)
		s.host.cpus[i].isolated = s.host.cpus[i].node == 1;
	EXPECT(&s, "isolated-cpus", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "isolated-cpus", "node 1");
	s.f.isolated_known = -1;
	EXPECT_UNKNOWN(&s, "isolated-cpus");
	setup_clear(&s);
}

/* --- software and records --------------------------------------------------------------------------------------------------------- */

Test(doctor, kernel_and_qemu)
{
	struct qemu_info q7, q10;
	struct setup s;

	setup(&s);
	q7 = fake_qemu("7.2");
	q10 = fake_qemu("10.0");
	EXPECT(&s, "kernel", DOCTOR_OK);
	strcpy(s.host.kernel, "6.14.0-27-generic");
	EXPECT(&s, "kernel", DOCTOR_WARNING);
	strcpy(s.host.kernel, "5.15.0");
	EXPECT(&s, "kernel", DOCTOR_WARNING);
	strcpy(s.host.kernel, "7.0.0");
	EXPECT(&s, "kernel", DOCTOR_OK);
	*s.host.kernel = '\0';
	EXPECT_UNKNOWN(&s, "kernel");
	EXPECT_UNKNOWN(&s, "qemu");
	EXPECT_UNKNOWN(&s, "qemu-vcpus");
	s.f.qemu_error = xstrdup("there is no program 'qemu-system-x86_64'");
	EXPECT(&s, "qemu", DOCTOR_PROBLEM);
	EXPECT_UNKNOWN(&s, "firmware");
	s.f.qemu = &q7;
	EXPECT(&s, "qemu", DOCTOR_OK);
	EXPECT(&s, "qemu-large-bar", DOCTOR_WARNING);
	EXPECT(&s, "qemu-link-speed", DOCTOR_WARNING);
	EXPECT(&s, "qemu-vcpus", DOCTOR_OK);
	s.f.qemu = &q10;
	EXPECT(&s, "qemu-large-bar", DOCTOR_OK);
	EXPECT(&s, "qemu-link-speed", DOCTOR_OK);
	q7.features &= ~(UINT64_C(1) << QF_VFIO);
	s.f.qemu = &q7;
	EXPECT(&s, "qemu", DOCTOR_PROBLEM);
	/* Small and slow GPUs need neither. */
	for (size_t i = 0; i < s.host.n_funcs; i++) {
		s.host.funcs[i].link.max_mts = 8000;
		s.host.funcs[i].bars[1].bytes = s.host.funcs[i].bars[0].bytes = 1 << 20;
	}
	for (size_t i = 0; i < s.host.n_funcs; i++)
		for (size_t k = 2; k < 6; k++)
			s.host.funcs[i].bars[k].bytes = 0;
	strcpy(s.host.kernel, "5.15.0");
	EXPECT(&s, "qemu-large-bar", DOCTOR_OK);
	EXPECT(&s, "qemu-link-speed", DOCTOR_OK);
	EXPECT(&s, "kernel", DOCTOR_OK);
	setup_clear(&s);
}

Test(doctor, services_and_limits)
{
	struct setup s;

	setup(&s);
	EXPECT_UNKNOWN(&s, "lockdown");
	set(&s.f.lockdown, "none");
	EXPECT(&s, "lockdown", DOCTOR_OK);
	set(&s.f.lockdown, "integrity");
	EXPECT(&s, "lockdown", DOCTOR_WARNING);
	EXPECT_UNKNOWN(&s, "nvidia-drm");
	s.f.nvidia_drm = 0;
	EXPECT(&s, "nvidia-drm", DOCTOR_OK);
	s.f.nvidia_drm = 1;
	EXPECT(&s, "nvidia-drm", DOCTOR_WARNING);
	EXPECT_UNKNOWN(&s, "nvidia-persistenced");
	s.f.persistenced = 0;
	EXPECT(&s, "nvidia-persistenced", DOCTOR_OK);
	s.f.persistenced = 1;
	EXPECT(&s, "nvidia-persistenced", DOCTOR_WARNING);
	EXPECT_UNKNOWN(&s, "memlock");
	s.f.memlock = 64 << 10;
	EXPECT(&s, "memlock", DOCTOR_WARNING);
	s.f.root = true;
	EXPECT(&s, "memlock", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "nofile");
	s.f.nofile = 4096;
	EXPECT(&s, "nofile", DOCTOR_WARNING);
	s.f.nofile = 524288;
	EXPECT(&s, "nofile", DOCTOR_OK);
	EXPECT_UNKNOWN(&s, "cgroup");
	s.f.cgroup = 2;
	EXPECT(&s, "cgroup", DOCTOR_OK);
	setup_clear(&s);
}

Test(doctor, records)
{
	struct setup s;

	setup(&s);
	EXPECT_UNKNOWN(&s, "claim");
	s.f.claims_known = 1;
	EXPECT(&s, "claim", DOCTOR_OK);
	PUSH_ZEROED(s.f.claims, s.f.n_claims)->vm = xstrdup("half0");
	EXPECT(&s, "claim", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "claim", "gpuvm recover half0");
	s.f.claims[0].recover_failed = 1790000000;
	EXPECT(&s, "claim", DOCTOR_PROBLEM);
	s.f.claims[0].damaged = xstrdup("not a JSON object");
	EXPECT(&s, "claim", DOCTOR_PROBLEM);
	EXPECT_TEXT(&s, "claim", "remove its claim.json");
	EXPECT_UNKNOWN(&s, "bad-record");
	s.f.live = true;
	check(&s);
	cr_expect(!worst(&s, "bad-record") && !is_unknown(&s, "bad-record"));
	*PUSH_ZEROED(s.f.bad_absent, s.f.n_bad_absent) = (struct pci_addr){ .bus = 0x99 };
	EXPECT(&s, "bad-record", DOCTOR_WARNING);
	EXPECT_TEXT(&s, "bad-record", "gpuvm doctor --clear 0000:99:00.0");
	setup_clear(&s);
}

/* Of a machine of which nothing but the PCI tree is known there is neither a problem nor praise for what was not seen. */
Test(doctor, what_is_not_known)
{
	struct setup s;

	setup(&s);
	doctor_facts_clear(&s.f);
	doctor_facts_init(&s.f, &s.host);
	check(&s);
	cr_expect(s.r.count[DOCTOR_PROBLEM] == 0 && s.r.count[DOCTOR_WARNING] == 0);
	for (size_t i = 0; i < s.r.n_unknown; i++)
		cr_expect(!worst(&s, s.r.unknown[i].code->word), "%s: not known, and yet something is said of it", s.r.unknown[i].code->word);
	cr_expect(s.r.n_unknown >= 20);
	setup_clear(&s);
}

/* --- facts ------------------------------------------------------------------------------------------------------------------------ */

static void put(const struct setup *s, const char *path, const char *text)
{
	AUTO_FREE char *full = xasprintf("%s/%s", s->root, path);

	for (char *at = strchr(full + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = '\0';
		cr_assert(mkdir(full, 0755) == 0 || errno == EEXIST);
		*at = '/';
	}
	cr_assert(write_file_atomic(full, text, strlen(text), 0644) == 0, "%s", full);
}

static void read_again(struct setup *s)
{
	doctor_facts_clear(&s->f);
	doctor_facts_read(s->root, &s->host, &s->f);
}

static void put_facts(struct setup *s)
{
	put(s, "proc/cmdline", "BOOT_IMAGE=/vmlinuz intel_iommu=on iommu=pt\n");
	put(s, "proc/uptime", "7265.12 100.00\n");
	put(s, "proc/interrupts", "      CPU0\n  8:   0  IR-IO-APIC    8-edge   rtc0\n");
	put(s, "proc/meminfo", "MemTotal:  1000 kB\nMemAvailable:  600 kB\nSwapTotal:  100 kB\nSwapFree:  60 kB\nHugetlb:   200 kB\n");
	put(s, "proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some CPU @ 2 GHz\nmicrocode\t: 0x2b\nflags\t\t: fpu vmx pdpe1gb hypervisorx\n");
	put(s, "proc/1/comm", "systemd\n");
	put(s, "proc/77/comm", "nv-fabricmanage\n");
	put(s, "proc/sys/kernel/numa_balancing", "1\n");
	put(s, "proc/sys/vm/max_map_count", "65530\n");
	put(s, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	put(s, "sys/kernel/mm/ksm/run", "0\n");
	put(s, "sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
	put(s, "sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "65535\n");
	put(s, "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "N\n");
	put(s, "sys/module/kvm_amd/parameters/nested", "1\n");
	put(s, "sys/module/nvidia/version", "580.95.05\n");
	put(s, "sys/devices/system/cpu/cpuidle/current_driver", "intel_idle\n");
	put(s, "sys/devices/system/cpu/cpu0/cpuidle/state1/name", "C1E\n");
	put(s, "sys/devices/system/cpu/cpu0/cpuidle/state1/latency", "10\n");
	put(s, "sys/devices/system/cpu/cpu0/cpuidle/state1/disable", "0\n");
	put(s, "sys/devices/system/cpu/cpu0/cpuidle/state2/name", "C6\n");
	put(s, "sys/devices/system/cpu/cpu0/cpuidle/state2/latency", "170\n");
	put(s, "sys/devices/system/cpu/cpu0/cpuidle/state2/disable", "1\n");
	put(s, "sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "performance\n");
	put(s, "sys/devices/system/cpu/cpufreq/policy1/scaling_governor", "powersave\n");
	put(s, "sys/devices/system/cpu/cpufreq/policy2/scaling_governor", "performance\n");
	put(s, "sys/devices/system/cpu/smt/control", "on\n");
	put(s, "sys/class/dmi/id/bios_version", "2.1.3\n");
	put(s, "sys/class/dmi/id/bios_date", "06/01/2025\n");
	put(s, "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
	put(s, "sys/bus/pci/devices/0000:13:00.0/aer_dev_fatal", "Undefined 0\nDLP 3\nTOTAL_ERR_FATAL 3\n");
	put(s, "sys/kernel/iommu_groups/0/type", "identity\n");
}

Test(doctor, facts_below_a_root)
{
	const struct doctor_facts *f;
	struct setup s;

	setup(&s);
	f = &s.f;
	cr_expect(!f->live && !f->root && !f->cmdline && f->interrupt_remapping == -1 && f->irqbalance == -1 && f->ksm == -1 && f->memlock == -1);
	put_facts(&s);
	read_again(&s);
	cr_expect_str_eq(f->cmdline, "BOOT_IMAGE=/vmlinuz intel_iommu=on iommu=pt");
	cr_expect(f->uptime_s == 7265 && f->interrupt_remapping == 1 && f->unsafe_interrupts == 0 && f->dma_entry_limit == 65535 && f->kvm_nested == 1);
	cr_expect(f->mem_total == 1000 << 10 && f->mem_available == 600 << 10 && f->hugetlb == 200 << 10 && f->swap_total == 100 << 10 && f->swap_used == 40 << 10);
	cr_expect(f->cpu_virtualization == 1 && f->page_1g == 1 && f->hypervisor == 0);
	cr_expect_str_eq(f->cpu_model, "Some CPU @ 2 GHz");
	cr_expect_str_eq(f->microcode, "0x2b");
	cr_expect(f->irqbalance == 0 && f->persistenced == 0 && f->fabric_manager == 1 && f->nvidia_drm == 0 && f->cgroup == 2);
	cr_expect(f->numa_balancing == 1 && f->max_map_count == 65530 && f->ksm == 0);
	cr_expect_str_eq(f->thp, "madvise");
	cr_expect_str_eq(f->lockdown, "integrity");
	cr_expect_str_eq(f->nvidia_version, "580.95.05");
	cr_expect_str_eq(f->idle_driver, "intel_idle");
	cr_expect_str_eq(f->idle_state, "C1E");
	cr_expect(f->idle_latency_us == 10 && f->latency_limit_us == -1);
	cr_expect_str_eq(f->governors, "performance powersave");
	cr_expect_str_eq(f->bios, "2.1.3 of 06/01/2025");
	cr_expect(facts_of(&s, "13:00.0")->aer_fatal == 3 && facts_of(&s, "13:00.0")->aer_nonfatal == -1);
	put(&s, "proc/interrupts", "      CPU0\n  8:   0  IO-APIC    8-edge   rtc0\n 24:  1 PCI-MSI-0000:00:1f.2   0-edge IR-thing\n");
	put(&s, "proc/9/comm", "irqbalance\n");
	put(&s, "proc/meminfo", "MemTotal:  damaged\n");
	read_again(&s);
	cr_expect(f->irqbalance == 1 && f->mem_total == -1 && f->swap_used == -1);
	setup_clear(&s);
}

Test(doctor, configuration_space)
{
	uint8_t c[DOCTOR_CONFIG_SIZE] = { 0x86, 0x80, 1, 0 };
	struct doctor_func x = { 0 };
	char text[ACS_TEXT];

	/* 64-bit BARs 0 and 4; the upper half of one looks like one itself. */
	c[0x10] = 0x0c;
	c[0x14] = 0x04;
	c[0x18] = 0x01;
	c[0x20] = 0x04;
	/* ACS at 0x100, then resizable BARs at 0x148, then ATS at 0xffc, cut off: what does not fit is left out. */
	memcpy(c + 0x100, (uint8_t[]){ 0x0d, 0, 0x81, 0x14, 0x5f, 0, 0x1d, 0 }, 8);
	/* two of them: BAR 1 has 256 MiB and can have 256 MiB or 64 GiB, BAR 3 is as large as it can be */
	memcpy(c + 0x148, (uint8_t[]){ 0x15, 0, 0xc1, 0xff, 0, 0x10, 0x10, 0, 0x41, 0x08, 0, 0, 0, 0x10, 0, 0, 0x43, 0x08, 0, 0 }, 20);
	memcpy(c + 0xffc, (uint8_t[]){ 0x0f, 0, 1, 0 }, 4);
	doctor_read_config(c, sizeof(c), &x);
	cr_expect(x.head && x.config && x.bars_64 == 0x11, "%x", x.bars_64);
	cr_expect(x.acs && x.acs_can == 0x5f && x.acs_control == 0x1d && !x.ats);
	cr_expect(x.n_resizable == 2 && x.resizable[0].bar == 1 && x.resizable[1].bar == 3);
	cr_expect(x.resizable[0].bytes == UINT64_C(256) << 20 && x.resizable[0].max_bytes == UINT64_C(64) << 30, "%lx %lx", x.resizable[0].bytes, x.resizable[0].max_bytes);
	cr_expect(x.resizable[1].bytes == x.resizable[1].max_bytes);
	cr_expect_str_eq(acs_text(0x5d, text), "SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans+");

	/* A circle, an end outside, and every length: nothing is read that is not there, and it ends. */
	c[0x102] = 0x01;
	c[0x103] = 0x10;
	for (size_t n = 0; n <= sizeof(c); n += n < 0x200 ? 1 : 64) {
		AUTO_FREE uint8_t *exact = xcalloc(n ? n : 1, 1);

		memcpy(exact, c, n);
		x = (struct doctor_func){ 0 };
		doctor_read_config(exact, n, &x);
		cr_expect(x.head == (n >= 64) && x.config == (n > 256) && x.acs == (n >= 0x108), "%zu bytes", n);
	}
	/* Nobody answers. */
	memset(c, 0xff, sizeof(c));
	x = (struct doctor_func){ 0 };
	doctor_read_config(c, sizeof(c), &x);
	cr_expect(!x.head && !x.config && !x.acs);
}

/* --- documents --------------------------------------------------------------------------------------------------------------------- */

static struct json_object *member(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	cr_assert(json_object_object_get_ex(o, key, &v) && json_object_is_type(v, type), "%s", key);
	return v;
}

static const char *text_of(struct json_object *o, const char *key)
{
	return json_object_get_string(member(o, key, json_type_string));
}

Test(doctor, json)
{
	static const char *const keys[] = { "code", "severity", "subject", "text", "cost", "fix", "source" };
	struct json_object *o, *findings, *unknown;
	enum doctor_theme last = 0;
	struct setup s;

	setup_with(&s, NULL, "acs=0x00", NULL, "");
	check(&s);
	o = doctor_to_json(&s.f, &s.r);
	cr_expect(json_object_get_int(member(o, "schema", json_type_int)) == 1);
	cr_expect_str_eq(text_of(o, "host"), "m");
	findings = member(o, "findings", json_type_array);
	unknown = member(o, "unknown", json_type_array);
	cr_expect(json_object_array_length(findings) == s.r.n && json_object_array_length(unknown) == s.r.n_unknown);
	cr_expect((size_t)json_object_get_int(member(o, "problems", json_type_int)) == s.r.count[DOCTOR_PROBLEM] && s.r.count[DOCTOR_PROBLEM] == 5);
	for (size_t i = 0; i < s.r.n; i++) {
		struct json_object *f = json_object_array_get_idx(findings, i);

		for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
			text_of(f, keys[k]);
		cr_expect_str_eq(text_of(f, "code"), s.r.v[i].code->word);
		cr_expect(s.r.v[i].code->theme >= last, "sorted by theme");
		last = s.r.v[i].code->theme;
		cr_expect(!!*text_of(f, "cost") == (s.r.v[i].severity != DOCTOR_OK));
	}
	cr_expect_str_eq(text_of(member(o, "facts", json_type_object), "node 1 pages of 1 GiB"), "48");
	cr_expect_str_eq(text_of(member(o, "functions", json_type_object), "0000:13:00.0"),
			 "gpu 10de:2335, below 0000:12:00.0, node 0, link 32.0 GT/s x16, BARs 262192 MiB");
	json_object_put(o);
	setup_clear(&s);
}

static struct json_object *document(struct setup *s)
{
	check(s);
	return doctor_to_json(&s->f, &s->r);
}

static const char *difference(struct json_object *list, const char *key, const char *side)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		const char *text = json_object_get_string(json_object_object_get(o, side));

		if (!strcmp(text_of(o, "key"), key))
			return text ? text : "-";
	}
	return NULL;
}

Test(doctor, comparison)
{
	struct json_object *a, *b, *list = NULL;
	struct err e = { 0 };
	struct setup s;

	setup(&s);
	set(&s.f.cmdline, "root=/dev/sda1 iommu=pt pci=noaer");
	a = document(&s);
	cr_assert(doctor_compare(a, a, &list, &e) == 0 && json_object_array_length(list) == 0);
	json_object_put(list);
	set(&s.f.cmdline, "root=/dev/sdb9 pci=noaer");
	pool(&s, 1, UINT64_C(1) << 30)->total = 0;
	pool(&s, 1, UINT64_C(1) << 30)->free = 0;
	pool(&s, 0, UINT64_C(1) << 30)->free = 7; /* in use: no difference */
	func(&s, "13:00.0")->link.max_width = 8;
	func(&s, "15:00.0")->addr.bus = 0x16;
	s.f.ksm = 1;	     /* the other one does not know */
	set(&s.f.smt, "on"); /* likewise */
	facts_of(&s, "12:00.0")->acs_control = 0;
	b = document(&s);
	cr_assert(doctor_compare(a, b, &list, &e) == 0);
	cr_expect_str_eq(difference(list, "cmdline iommu", "here"), "pt");
	cr_expect_str_eq(difference(list, "cmdline iommu", "there"), "(not given)");
	cr_expect_str_eq(difference(list, "node 1 pages of 1 GiB", "there"), "0");
	cr_expect(strstr(difference(list, "0000:13:00.0", "here"), "x16") && strstr(difference(list, "0000:13:00.0", "there"), "x8"));
	cr_expect_str_eq(difference(list, "0000:16:00.0", "here"), "-");
	cr_expect_str_eq(difference(list, "0000:15:00.0", "there"), "-");
	cr_expect_str_eq(difference(list, "hugepages-node: node 1", "here"), "-");
	cr_expect(strstr(difference(list, "hugepages-node: node 1", "there"), "problem: no hugepages"));
	cr_expect(strstr(difference(list, "acs-isolation: 0000:12:00.0", "there"), "problem: "));
	cr_expect(!difference(list, "ksm: host", "there") && !difference(list, "KSM", "there") && !difference(list, "SMT", "there"));
	cr_expect(!difference(list, "cmdline root", "there") && !difference(list, "cmdline pci", "there"));
	/* here: 1 word, 1 pool, 3 functions, 2 findings */
	cr_expect(json_object_array_length(list) == 7, "%s", json_object_to_json_string(list));
	json_object_put(list);

	/* The other way round it is the same list, turned. */
	cr_assert(doctor_compare(b, a, &list, &e) == 0 && json_object_array_length(list) == 7);
	cr_expect(strstr(difference(list, "acs-isolation: 0000:12:00.0", "here"), "problem: "));
	json_object_put(list);
	json_object_put(a);
	json_object_put(b);
	setup_clear(&s);
}

Test(doctor, comparison_with_something_else)
{
	static const char *const texts[] = { "{}", "[]", "{\"schema\": 2, \"findings\": [], \"unknown\": [], \"facts\": {}, \"functions\": {}}",
					     "{\"schema\": 1, \"findings\": {}, \"unknown\": [], \"facts\": {}, \"functions\": {}}",
					     "{\"schema\": 1, \"findings\": [1], \"unknown\": [], \"facts\": {}, \"functions\": {}}" };
	/* What is there need not be what it should: it differs then. */
	static const char odd[] = "{\"schema\": 1, \"findings\": [{}], \"unknown\": [{\"code\": 3}], \"facts\": {\"GPUs\": null}, \"functions\": {\"x\": []}}";
	struct json_object *a, *b, *list = NULL;
	struct err e = { 0 };
	struct setup s;

	setup(&s);
	a = document(&s);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		b = json_tokener_parse(texts[i]);
		cr_expect(doctor_compare(a, b, &list, &e) == -EPROTO && !list, "%s", texts[i]);
		json_object_put(b);
	}
	b = json_tokener_parse(odd);
	cr_expect(b && doctor_compare(a, b, &list, &e) == 0 && json_object_array_length(list) > 0);
	json_object_put(list);
	json_object_put(b);
	json_object_put(a);
	setup_clear(&s);
}

Test(doctor, text)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct setup s;

	setup_with(&s, NULL, "acs=0x1d", NULL, NULL);
	check(&s);
	doctor_print(&s.f, &s.r, 0, out);
	fclose(out);
	cr_expect(strstr(text, "m, Linux 6.15.0\n\nIOMMU, VFIO and KVM\n  ok       iommu: on"), "%s", text);
	/* What is the same for several is said once, with each one's own command. */
	cr_expect(strstr(text, "0x5d is wanted\n            0000:12:00.0  fix: setpci -s 0000:12:00.0 ECAP_ACS+0x6.w=0x5D # until the next boot\n"), "%s", text);
	cr_expect(strstr(text, "            cost:   GPUDirect RDMA goes through the IOMMU"), "%s", text);
	cr_expect(strstr(text, "\n0 problems, 4 warnings, "), "%s", text);
	cr_expect(!strstr(text, "\033["));
	setup_clear(&s);
}

/* docs/doctor.md has exactly the codes, with their costs and sources. */
Test(doctor, documentation)
{
	AUTO_FREE char *text = NULL;
	size_t rows = 0;

	cr_assert(read_text_file("docs/doctor.md", 1 << 20, &text) == 0);
	for (size_t i = 0; i < doctor_n_codes; i++) {
		const struct doctor_code *c = &doctor_codes[i];
		AUTO_FREE char *begin = xasprintf("\n| `%s` | ", c->word), *cost = xasprintf(" | %s | ", *c->cost ? c->cost : "-"),
			       *source = xasprintf(" | %s |", c->source), *row = NULL;
		const char *at = strstr(text, begin);

		cr_expect(at, "docs/doctor.md has no row for '%s'", c->word);
		if (!at)
			continue;
		row = xstrndup(at + 1, strcspn(at + 1, "\n"));
		cr_expect(strstr(row, cost) && strstr(row, source), "docs/doctor.md says of '%s':\n%s\nthe program:%s%s", c->word, row, cost, source);
	}
	for (const char *s = text; (s = strstr(s, "\n| `")); s++)
		rows++;
	cr_expect(rows == doctor_n_codes, "docs/doctor.md has %zu rows for %zu codes", rows, doctor_n_codes);
}

/* --- the verb ------------------------------------------------------------------------------------------------------------------------ */

Test(doctor, exit_codes, .timeout = 60)
{
	struct setup good, bad;
	struct place p = place_new();

	setup(&good);
	setup(&bad);
	setenv("GOOD", good.root, 1);
	setenv("BAD", bad.root, 1);
	put(&bad, "proc/cmdline", "pcie_acs_override=downstream\n");
	EXPECT_SH(&p, 0, "$G doctor --sysroot $GOOD");
	EXPECT_SAYS(&p, "0 problems, 0 warnings, ");
	EXPECT_SH(&p, 1, "$G doctor --sysroot $BAD");
	EXPECT_SAYS(&p, "PROBLEM  acs-override: pcie_acs_override=downstream is on the kernel command line");
	EXPECT_SH(&p, 1, "$G doctor --json --sysroot $BAD >$R/bad.json; rc=$?; jq -e '.schema == 1 and .problems == 1 and (.findings | length) > 9' $R/bad.json && exit $rc");
	EXPECT_SH(&p, 0, "$G doctor --json --sysroot $GOOD >$R/good.json && $G doctor --sysroot $GOOD --compare $R/good.json");
	EXPECT_SAYS(&p, "0 differences");
	EXPECT_SH(&p, 0, "$G capture --sysroot $GOOD --keep-name $R/good.tar >/dev/null && $G doctor --sysroot $R/good.tar --compare $GOOD");
	EXPECT_SH(&p, 0, "$G doctor --sysroot $GOOD --compare $R/good.tar --json | jq -e '.schema == 1 and .differences == []'");
	EXPECT_SH(&p, 0, "$G doctor --sysroot $GOOD --compare $R/bad.json"); /* one does not know its command line */
	EXPECT_SH(&p, 0, "echo quiet >$GOOD/proc/cmdline");
	EXPECT_SH(&p, 1, "$G doctor --sysroot $GOOD --compare $BAD");
	EXPECT_SAYS(&p, "cmdline pcie_acs_override\n  here:  (not given)\n  there: downstream\n");
	EXPECT_SAYS(&p, "acs-override: host\n  here:  ok: ");
	EXPECT_SAYS(&p, "2 differences");
	EXPECT_SH(&p, 2, "echo '{' >$R/broken.json; $G doctor --sysroot $GOOD --compare $R/broken.json");
	EXPECT_SAYS(&p, "is damaged");
	EXPECT_SH(&p, 2, "echo '{}' >$R/broken.json; $G doctor --sysroot $GOOD --compare $R/broken.json");
	EXPECT_SAYS(&p, "is not what `gpuvm doctor --json` of this version prints");
	EXPECT_SH(&p, 2, "$G doctor --sysroot $GOOD --compare $R/nothing");
	EXPECT_SH(&p, 2, "$G doctor --sysroot $R/nothing");
	EXPECT_SH(&p, 2, "$G doctor twice");
	EXPECT_SH(&p, 2, "$G doctor --clear all --json");
	EXPECT_SH(&p, 2, "$G doctor --clear everything");
	EXPECT_SH(&p, 2, "$G doctor --frobnicate");
	EXPECT_SH(&p, 0, "$G doctor --help && rm $R/*.json $R/good.tar");
	place_end(&p);
	setup_clear(&good);
	setup_clear(&bad);
}

/* All that can be read below a root is in a capture of it. */
Test(doctor, a_capture_is_judged_like_the_machine, .timeout = 60)
{
	struct place p = place_new();
	struct setup s;

	setup(&s);
	setenv("ROOT", s.root, 1);
	put_facts(&s);
	put(&s, "proc/cmdline", "BOOT_IMAGE=/vmlinuz-6.8 root=UUID=0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0 ip=10.9.8.7 intel_iommu=on iommu=pt pci=realloc,config_acs=xx00xx1@pci:1000:c030\n");
	put(&s, "proc/1234/comm", "secretd\n");
	put(&s, "proc/77/comm", "irqbalance\n");
	put(&s, "proc/interrupts", "      CPU0\n  8:   0  IR-IO-APIC    8-edge   rtc0\n 99: 1 IR-PCI-MSI eno1-with-a-name\n");
	put(&s, "sys/class/dmi/id/product_serial", "SERIAL77\n");
	put(&s, "usr/share/misc/pci.ids", "10de  NVIDIA Corporation\n");
	EXPECT_SH(&p, 0, "$G capture --sysroot $ROOT --keep-name $R/c && $G capture --sysroot $ROOT --keep-name $R/c.tar && $G capture --sysroot $R/c --keep-name $R/c2 && diff -r --no-dereference $R/c $R/c2");
	EXPECT_SH(&p, 0, "$G doctor --json --sysroot $ROOT >$R/a; for c in c c.tar c2; do $G doctor --json --sysroot $R/$c >$R/b; diff $R/a $R/b || exit 3; done; [ $(wc -l <$R/b) -gt 300 ]");
	EXPECT_SH(&p, 0, "jq -e '[.findings[].code] as $have | [\"acs-cmdline\", \"aer\", \"c-states\", \"governor\", \"interrupt-remapping\", \"ksm\", \"lockdown\", \"smt\", \"swap\", \"thp\", \"vfio-dma-entries\"] - $have == []' $R/b && "
			 "jq -e '.facts.\"NVIDIA driver\" == \"580.95.05\" and .facts.BIOS == \"2.1.3 of 06/01/2025\" and .facts.cgroup == \"2\" and "
			 "(.findings[] | select(.code == \"irqbalance\") | .severity) == \"warning\"' $R/b");
	EXPECT_SH(&p, 1, "grep -rE 'UUID|10\\.9|secretd|SERIAL77|with-a-name|BOOT_IMAGE' $R/c");
	EXPECT_SH(&p, 0, "rm -r $R/c $R/c2 $R/c.tar $R/a $R/b");
	place_end(&p);
	setup_clear(&s);
}

/* But for what is no file: docs/doctor.md has the list. Memory that is free is another the moment after. */
Test(doctor, a_capture_of_this_machine, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G doctor --json >$R/a; $G capture --keep-name $R/c.tar && { $G doctor --json --sysroot $R/c.tar >$R/b; "
			 "for f in a b; do jq '{host, findings: [.findings[] | select(.code | test(\"^(qemu.*|firmware|memlock|nofile|c-states|claim|bad-record|device-bad)$\") | not) | "
			 "[.code, .severity, .subject, if .code | IN(\"kvm\", \"memory-free\", \"swap\") then null else .text end]], "
			 "facts: (.facts | del(.QEMU)), functions}' $R/$f >$R/$f.part || exit 3; done; diff $R/a.part $R/b.part; }");
	EXPECT_SH(&p, 0, "rm $R/c.tar $R/a* $R/b*");
	place_end(&p);
}

/* Of this very machine: what the kernel says by other ways. */
Test(doctor, this_machine, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G doctor --json >$R/r.json; rc=$?; jq -e --argjson rc $rc '(.problems > 0) == ($rc == 1)' $R/r.json");
	EXPECT_SH(&p, 0, "s() { jq -r --arg c $1 '.findings[] | select(.code == $c) | .severity' $R/r.json; }; "
			 "test \"$(s iommu)\" = $(ls /sys/kernel/iommu_groups 2>/dev/null | grep -q . && echo ok || echo problem) && "
			 "test \"$(s claim)\" = ok && test \"$(s qemu)\" = ok");
	/* Nothing is left where it looked. */
	EXPECT_SH(&p, 0, "rm $R/r.json && test \"$(ls $R | sort | xargs)\" = 'cmd out'");
	place_end(&p);
}

Test(doctor, clear, .timeout = 60)
{
	struct bad_device *v;
	struct setup s;
	struct place p = place_new();
	struct sysfs root;
	struct err e = { 0 };
	size_t n;

	setup(&s);
	root = (struct sysfs){ .root = s.root };
	EXPECT_SH(&p, 0, "$G doctor --clear all");
	EXPECT_SAYS(&p, "no device is marked as bad");
	cr_assert(bad_mark(p.root, &root, &func(&s, "13:00.0")->addr, "its reset failed", "half0", "reset", &e) == 0, "%s", e.msg);
	cr_assert(bad_mark(p.root, &root, &func(&s, "83:00.0")->addr, "XID 79", NULL, "operator", &e) == 0, "%s", e.msg);
	/* Neither is a function of this machine. */
	EXPECT_SH(&p, 0, "$G doctor --json >$R/r.json; jq -e '[.findings[] | select(.code == \"bad-record\") | .subject] == [\"0000:13:00.0\", \"0000:83:00.0\"]' $R/r.json");
	EXPECT_SH(&p, 0, "$G doctor --clear 13:00.0");
	EXPECT_SAYS(&p, "13:00.0 is no longer marked as bad");
	cr_assert(bad_list(p.root, &v, &n, &e) == 0 && n == 1 && v[0].addr.bus == 0x83);
	bad_free(v, n);
	EXPECT_SH(&p, 1, "$G doctor --clear 0000:13:00.0");
	EXPECT_SAYS(&p, "is not marked as bad");
	EXPECT_SH(&p, 0, "$G doctor --clear all");
	EXPECT_SAYS(&p, "1 device is no longer marked as bad");
	EXPECT_SH(&p, 0, "rmdir $R/bad && rm $R/r.json");
	place_end(&p);
	setup_clear(&s);
}
