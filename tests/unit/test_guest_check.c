/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The script that checks a guest from inside: made for machines of all kinds, and run by several shells on guests that are as planned and are not. */
#include "programs.h"

#include "gpuvm/guest_check.h"
#include "tests/fake/mkhost.h"

/* --- for plans of all kinds ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *host, *golden, *says;
} plans[] = {
	{ "xe9680-h200", "xe9680-half0", "\n\tdevice gpu0 0000:24:00.0 10de:2335 '0000:20:00.0 0000:21:00.0 0000:22:01.0' 0\n" },
	{ "xe9680-h200", "xe9680-two-gpus-root-ports", "\n\troot_port 32000 16\n" },
	{ "hgx-h100", "hgx-h100-half", "\n\thost_manager ''\n\tfabric 4\n\tnccl\n}\n" },
	{ "dgx-b200", "dgx-b200-full", "\n\tpeermem\n\tmanager\n\tfabric 8\n\tnccl\n}\n" },
	{ "dgx2", "dgx2-sixteen", "\n\tnode 1 '" },
	{ "h200-cx7-4-stacked", "stacked-half", "\n\tats\n" },
	{ "desktop", "desktop-gpu", "\n\tdriver nvidia\n" },
	{ "plain", "plain-small", "\techo 'this VM has no GPU, so there is nothing that NCCL could use' >&2\n" },
};

Test(guest_check, scripts_of_many_plans, .timeout = 180)
{
	struct place p = place_new();

	for (size_t i = 0; i < ARRAY_SIZE(plans); i++) {
		char *host = mkhost_fixture(plans[i].host);
		AUTO_FREE char *ini = xasprintf("tests/golden/%s.ini", plans[i].golden), *script = xasprintf("%s/check.sh", p.root), *text = NULL;

		setenv("HOST", host, 1);
		setenv("INI", ini, 1);
		EXPECT_SH(&p, 0, "$G guest-check --sysroot $HOST $INI >$R/check.sh");
		cr_assert(read_text_file(script, 1 << 20, &text) == 0);
		cr_expect(strstr(text, plans[i].says), "%s: '%s' is not in the script", plans[i].golden, plans[i].says);
		EXPECT_SH(&p, 0, "dash -n $R/check.sh && bash --posix -n $R/check.sh && { ! command -v shellcheck || shellcheck $R/check.sh; }");
		EXPECT_SH(&p, 0, "$G plan --nccl --sysroot $HOST $INI >$R/xml 2>&1; sh $R/check.sh --nccl >$R/xml2 2>&1; "
				 "grep 'has no GPU' $R/xml || cmp $R/xml $R/xml2");
		/* Of this machine nothing is as planned. */
		EXPECT_SH(&p, 1, "sh $R/check.sh");
		EXPECT_SAYS(&p, "\nproblem  ");
		mkhost_remove(host);
	}
	EXPECT_SH(&p, 0, "rm $R/check.sh $R/xml $R/xml2");
	place_end(&p);
}

Test(guest_check, words, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 2, "$G guest-check");
	EXPECT_SH(&p, 2, "$G guest-check a b");
	EXPECT_SH(&p, 2, "$G guest-check --sysroot / --topology x.xml a");
	EXPECT_SH(&p, 2, "$G guest-check --frobnicate a");
	EXPECT_SH(&p, 3, "$G guest-check $R/nothing.ini");
	EXPECT_SH(&p, 0, "$G guest-check --help");
	EXPECT_SH(&p, 0, "$G guest-check " DEMO " >$R/check.sh; sh $R/check.sh --frobnicate; test $? = 2 && rm $R/check.sh");
	EXPECT_SAYS(&p, "usage: sh gpuvm-check.sh [--nccl]");
	place_end(&p);
}

/* --- a guest, and what can be wrong with it ------------------------------------------------------------------------------------- */

/* What the plan below looks like from inside. */
#define GUEST(cx7)                                                                                                                      \
	"host pair\ncpu GenuineIntel threads=2 smt=adjacent\niommu off\nnode 0 socket=0 cpus=0-3 memory=8G\n"                            \
	"kind rp 1b36:000c 060400 pcie=root link=32x16\nkind up 104c:8232 060400 pcie=upstream link=2.5x1\n"                             \
	"kind dn 104c:8233 060400 pcie=downstream link=2.5x1\n"                                                                         \
	"kind h100 10de:2330 030200 bars=16M:64,128G:p,32M:p link=32x16 now=2.5x16 driver=nvidia\n"                                      \
	"kind cx7 15b3:1021 020700 bars=32M:p link=32x16 driver=mlx5_core " cx7 "\n"                                                     \
	"bus 0000:20 node=0\n\t20:00.0 rp\n\t\t21:00.0 up\n\t\t\t22:00.0 dn\n\t\t\t\t23:00.0 h100\n\t\t\t22:01.0 dn\n\t\t\t\t24:00.0 h100\n" \
	"\t\t\t22:02.0 dn\n\t\t\t\t25:00.0 cx7\n"

#define GPU0 "sys/bus/pci/devices/0000:23:00.0"
#define GPU1 "sys/bus/pci/devices/0000:24:00.0"
#define NIC  "sys/bus/pci/devices/0000:25:00.0"
#define JOINED                                                                                                              \
	"GPU 00000000:23:00.0\\n    Product Name : NVIDIA H100 80GB HBM3\\n    GPU Fabric GUID : 0x1\\n    Fabric\\n        State  "  \
	"                           : Completed\\n        Status                            : Success\\n        CliqueId : 0\\n    Clocks " \
	"Event Reasons\\n"
#define SMI(text) "printf '#!/bin/sh\\nprintf \"" text "\"\\n' >nvidia-smi"

/* Commands run in a copy of the guest's root, in memory; then the script. */
static const struct {
	const char *change, *says; /* says NULL: nothing but ok */
} rows[] = {
	{ "", NULL },
	{ "echo 0-2 >sys/devices/system/cpu/online", "problem  cpus: 0-2 online, 0-3 planned  (cost: " },
	{ "echo 0 >sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "warning  cpus: sockets: 1, threads per core: 1; planned: 1 and 2" },
	{ "echo 1 >sys/devices/system/cpu/cpu3/topology/physical_package_id", "warning  cpus: sockets: 2, " },
	{ "rm -r sys/devices/system/node/node0", "problem  node 0: it is not there" },
	{ "echo 0-1 >sys/devices/system/node/node0/cpulist", "problem  node 0: it has the CPUs 0-1, planned: 0-3" },
	{ "echo 'Node 0 MemTotal: 7000000 kB' >sys/devices/system/node/node0/meminfo", "problem  node 0: it has 6835 MiB, planned: 8192" },
	{ "echo 'Node 0 MemTotal: 8388609 kB' >sys/devices/system/node/node0/meminfo", "problem  node 0: it has 8192 MiB, planned: 8192" },
	{ "echo 'Node 0 MemTotal: 7600000 kB' >sys/devices/system/node/node0/meminfo", NULL },
	{ "echo hpet >sys/devices/system/clocksource/clocksource0/current_clocksource", "warning  clock: hpet" },
	{ "echo kvm-clock >sys/devices/system/clocksource/clocksource0/current_clocksource", NULL },
	{ "rm -r sys/devices/system/clocksource", "unknown  clock: " },
	{ "rm " GPU0, "problem  gpu0: nothing is at 0000:23:00.0" },
	{ "echo 0x2331 >" GPU0 "/device", "problem  gpu0: 10de:2331 is at 0000:23:00.0, planned: 10de:2330" },
	{ "echo -1 >" GPU1 "/numa_node", "problem  gpu1: its NUMA node is -1, planned: 0" },
	{ "ln -sfn ../../../devices/pci0000:20/0000:20:00.0/0000:21:00.0/0000:22:01.0/0000:24:00.0 " GPU0,
	  "problem  gpu0: it is below 0000:20:00.0 0000:21:00.0 0000:22:01.0, planned: 0000:20:00.0 0000:21:00.0 0000:22:00.0" },
	{ "echo 8 >" GPU0 "/current_link_width", "problem  gpu0: its link has 8 lanes, planned: 16" },
	{ "echo '16.0 GT/s PCIe' >" NIC "/current_link_speed", "warning  nic0: its link runs at 16.0 GT/s, planned: 32.0" },
	{ "echo '32.0 GT/s PCIe' >" GPU0 "/current_link_speed", NULL },
	{ "echo Unknown >" NIC "/current_link_speed", "unknown  nic0: the guest does not see its link" },
	{ "sed -i '/device nic0/a root_port 32000 16' check.sh", "warning  nic0: its root port offers 2.5 GT/s x1, planned: 32.0 x16" },
	{ "sed -i '3s/.*/0x0000000000000000 0x0000001fffffffff 0x000000002014220c/' " GPU0 "/resource", "problem  gpu0: BAR 2 has no address" },
	{ "sed -i '1s/.*/0x0000000040000000 0x00000000407fffff 0x0000000000140204/' " GPU0 "/resource",
	  "problem  gpu0: BAR 0 has 8388608 bytes, planned: 16777216" },
	{ "sed -i '3,$d' " GPU0 "/resource", "problem  gpu0: these BARs are not there: 2:137438953472 4:33554432  (cost: " },
	{ "truncate -s 64 " NIC "/config", "unknown  nic0: ATS: its extended configuration space cannot be read" },
	{ "rm " GPU1 "/driver", "problem  gpu1: its driver is not loaded, wanted: nvidia" },
	{ "mkdir sys/bus/pci/drivers/nouveau && ln -sfn ../../../../bus/pci/drivers/nouveau " GPU1 "/driver; rm " GPU1 "/driver; "
	  "ln -s $PWD/sys/bus/pci/drivers/nouveau " GPU1 "/driver",
	  "problem  gpu1: its driver is nouveau, wanted: nvidia" },
	{ "rm -r sys/module/nvidia_peermem", "warning  peermem: nvidia_peermem is not loaded" },
	{ "echo 580.1.2 >sys/module/nvidia/version", "problem  fabric-manager: version 580.95.05, driver 580.1.2" },
	{ "rm sys/module/nvidia/version", "unknown  fabric-manager: version 580.95.05, driver not loaded" },
	{ "sed -i 's/host_manager 580.*/manager/' check.sh", "problem  fabric-manager: it does not run" },
	{ "sed -i 's/host_manager 580.*/manager/' check.sh; echo nv-fabricmanage >proc/7/comm", NULL },
	{ "sed -i 's/host_manager 580.*/manager/' check.sh; echo nv-fabricmanage >proc/7/comm; rm nv-fabricmanager",
	  "unknown  fabric-manager: version not known, driver 580.95.05" },
	{ "rm nvidia-smi", "unknown  fabric: nvidia-smi -q does not answer" },
	{ SMI(JOINED), "problem  fabric: 1 GPUs have joined, planned: 2" },
	{ SMI(JOINED "    Fabric\\n        State : In Progress\\n        Status : N/A\\n"),
	  "problem  fabric: 1 GPUs have not joined: State In Progress, Status N/A" },
	{ SMI("    Fabric\\n        State : N/A\\n        Status : N/A\\n"), "unknown  fabric: these GPUs do not say" },
	{ "rm etc/nccl.conf", "warning  nccl: NCCL_TOPO_FILE is set neither" },
	{ "rm etc/topo.xml", "problem  nccl: NCCL_TOPO_FILE of /etc/nccl.conf is /etc/topo.xml, which cannot be read" },
	{ "echo '<system/>' >etc/topo.xml", "problem  nccl: NCCL_TOPO_FILE of /etc/nccl.conf is /etc/topo.xml, which is not that of this plan" },
	{ "export NCCL_TOPO_FILE=/nowhere", "problem  nccl: NCCL_TOPO_FILE of the environment is /nowhere" },
	{ "rm etc/nccl.conf; export NCCL_TOPO_FILE=/etc/topo.xml", NULL },
};

#define MAKE_PLAN                                                                                                                                \
	"printf '[vm]\\nname = pair\\n[place]\\ngpus = 2\\nnics = 1\\nnvme = none\\n[cpu]\\nvcpus = 4\\n[memory]\\nsize = 8G\\n[fabric]\\nmode = shared\\n' " \
	">$R/pair.ini; $G guest-check --sysroot $HOST $R/pair.ini | sed \"s/host_manager ''/host_manager 580.95.05/\" >$GUEST/check.sh"

/* What mkhost does not make: the software. */
#define ADD_SOFTWARE                                                                                                                    \
	"cd $GUEST; mkdir -p etc proc/7 sys/module/nvidia sys/module/nvidia_peermem sys/devices/system/clocksource/clocksource0; "       \
	"echo tsc >sys/devices/system/clocksource/clocksource0/current_clocksource; echo 580.95.05 >sys/module/nvidia/version; "         \
	"echo bash >proc/7/comm; sh check.sh --nccl >etc/topo.xml; printf '# a comment\\nNCCL_DEBUG=INFO\\nNCCL_TOPO_FILE=/etc/topo.xml\\n' >etc/nccl.conf; " \
	"printf '#!/bin/sh\\necho Fabric Manager version is : 580.95.05\\n' >nv-fabricmanager; " SMI(JOINED JOINED) "; chmod +x nv-fabricmanager nvidia-smi"

#define RUN "export GPUVM_CHECK_ROOT=$PWD PATH=$PWD:$PATH; dash check.sh"

static void make_guest(struct place *p, const char *description, char **ret_host, char **ret_guest)
{
	*ret_host = mkhost_fixture("hgx-h100");
	*ret_guest = mkhost_text(description);
	setenv("HOST", *ret_host, 1);
	setenv("GUEST", *ret_guest, 1);
	unsetenv("NCCL_TOPO_FILE");
	EXPECT_SH(p, 0, MAKE_PLAN " && " ADD_SOFTWARE);
}

Test(guest_check, what_is_wrong_is_seen, .timeout = 300)
{
	struct place p = place_new();
	char *host, *guest;

	make_guest(&p, GUEST("ats=on"), &host, &guest);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		bool problem = rows[i].says && !strncmp(rows[i].says, "problem", strlen("problem"));
		AUTO_FREE char *cmd = xasprintf("rm -rf /dev/shm$R && mkdir -p /dev/shm/tmp && cp -a $GUEST /dev/shm$R && cd /dev/shm$R && { %s; } && " RUN, *rows[i].change ? rows[i].change : ":");
		AUTO_FREE char *line = xasprintf("\n%s", rows[i].says ? rows[i].says : "problems: 0, warnings: 0, ok: 10, not known: 0");

		EXPECT_SH(&p, problem ? 1 : 0, cmd);
		EXPECT_SAYS(&p, line);
	}
	EXPECT_SH(&p, 0, "rm -r /dev/shm$R $R/pair.ini");
	mkhost_remove(host);
	mkhost_remove(guest);
	place_end(&p);
}

Test(guest_check, ats, .timeout = 60)
{
	static const struct {
		const char *guest, *says;
	} nics[] = { { GUEST("ats=on"), ", ATS on\n" }, { GUEST("ats"), "\nwarning  nic0: its ATS is off  (" }, { GUEST(""), "\nwarning  nic0: it does not offer ATS  (" } };
	struct place p = place_new();

	for (size_t i = 0; i < ARRAY_SIZE(nics); i++) {
		char *host, *guest;

		make_guest(&p, nics[i].guest, &host, &guest);
		EXPECT_SH(&p, 0, "cd $GUEST && " RUN);
		EXPECT_SAYS(&p, nics[i].says);
		mkhost_remove(host);
		mkhost_remove(guest);
	}
	EXPECT_SH(&p, 0, "rm $R/pair.ini");
	place_end(&p);
}

/* Much is wrong at once, and all shells say the same. */
Test(guest_check, shells, .timeout = 60)
{
	struct place p = place_new();
	char *host, *guest;

	make_guest(&p, GUEST("ats"), &host, &guest);
	EXPECT_SH(&p, 0, "cd $GUEST && echo 0 >sys/devices/system/cpu/online; echo 8 >" GPU0 "/current_link_width; sed -i '2,$d' " GPU1 "/resource; rm nvidia-smi etc/topo.xml " NIC);
	EXPECT_SH(&p, 1, "cd $GUEST && " RUN " >$R/said; rc=$?; for sh in 'bash --posix' 'busybox sh'; do $sh check.sh | cmp - $R/said || exit 3; done; cat $R/said; rm $R/said; exit $rc");
	EXPECT_SAYS(&p, "problems: 5, warnings: 0, ok: 6, not known: 1");
	EXPECT_SH(&p, 0, "rm $R/pair.ini");
	mkhost_remove(host);
	mkhost_remove(guest);
	place_end(&p);
}

/* --- on its disk --------------------------------------------------------------------------------------------------------------------- */

#define STAND_INS "--sysroot $HOST --fake-devices --set vm.accel=tcg --set vm.firmware=seabios --set lifecycle.stop-timeout=500ms --set place.gpus=1 tests/golden/xe9680-half0.ini"

/* A file of an image, and the names of all. */
#define ISO                                                                                                                     \
	"cat_of() { rm -f $R/x && xorriso -osirrox on -indev $R/half0/$1.iso -extract /$2 $R/x >/dev/null 2>&1 && cat $R/x; }; " \
	"names_of() { xorriso -indev $R/half0/$1.iso -find / -type f 2>/dev/null | tr -d \"'/\" | sort | xargs; }; "

/* With the stand-ins of another machine: on the seed, on a disk of its own, and nowhere. */
Test(guest_check, disks, .timeout = 180)
{
	struct place p = place_new();
	char *host = mkhost_fixture("xe9680-h200");

	setenv("HOST", host, 1);
	EXPECT_SH(&p, 0, "printf '#cloud-config\\n' >$R/ud; $L -d --set cloud-init.user-data=$R/ud " STAND_INS);
	EXPECT_SH(&p, 0, "$G guest-check half0 >$R/check.sh && cmp $R/check.sh $R/half0/gpuvm-check.sh && $G guest-check " STAND_INS " | cmp - $R/check.sh");
	EXPECT_SH(&p, 0, "grep -x '\tdevice gpu0 0000:..:00.0 1af4:1110 .*' $R/check.sh && grep -A1 '\tdevice gpu0' $R/check.sh | grep '^\tbars 2:' && "
			 "! grep -E '^\t(link [0-9]|ats$|driver nvidia|peermem$)' $R/check.sh");
	EXPECT_SH(&p, 0, ISO "cat_of seed nccl-topo.xml | cmp - $R/half0/nccl-topo.xml && cat_of seed gpuvm-check.sh | cmp - $R/check.sh && "
			     "[ $(stat -c %a $R/x) = 644 ] && [ ! -e $R/half0/check.iso ]");
	/* The printed command makes the same. */
	EXPECT_SH(&p, 0, ISO "$G kill half0 && sed '/^exec /,$d' $R/half0/command >$R/prepares && echo : >>$R/prepares && sh -e $R/prepares && "
			     "cat_of seed gpuvm-check.sh | cmp - $R/check.sh && rm $R/half0/seed.iso");
	EXPECT_SH(&p, 0, "$L -d --set guest.check-disk=on --set cloud-init.user-data=$R/ud " STAND_INS);
	EXPECT_SH(&p, 0, ISO "[ \"$(names_of check)\" = 'gpuvm-check.sh nccl-topo.xml' ] && [ \"$(names_of seed)\" = 'meta-data user-data' ] && "
			     "$G qmp half0 query-block | jq -e '[.[] | select(.inserted.ro) | .inserted.\"node-name\"] | sort == [\"check\", \"seed\"]'");
	EXPECT_SH(&p, 0, "dd if=$R/half0/check.iso bs=1 skip=32808 count=5 2>/dev/null | grep -x gpuvm");
	EXPECT_SH(&p, 0, "$G kill half0 && ls $R/half0 | { ! grep -E 'iso|^check$|^seed$'; }");
	EXPECT_SH(&p, 0, ISO "$L -d --set guest.check-disk=off --set cloud-init.user-data=$R/ud " STAND_INS " && [ \"$(names_of seed)\" = 'meta-data user-data' ] && $G kill half0");
	EXPECT_SH(&p, 0, "rm -r $R/half0 $R/x $R/prepares $R/check.sh $R/ud");
	mkhost_remove(host);
	place_end(&p);
}
