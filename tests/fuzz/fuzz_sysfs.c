/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: what a kernel, a capture or a device's configuration space may say. A small machine is made once; the input puts other contents
 * into its files: a byte that chooses one of `files`, a byte with the length (255: all that is left), the contents. What is a link, or is not there and begins with "../", is a
 * link with another target.
 * Then the machine is probed, checked and drawn, and is made as it was.
 * covers: src/host/probe.c src/host/probe_fs.c src/host/probe_cpu.c src/host/probe_pci.c src/host/probe_use.c src/host/probe_net.c src/host/doctor_facts.c */
#include <stdint.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/doctor.h"
#include "gpuvm/draw.h"
#include "gpuvm/probe.h"
#include "tests/fake/mkhost.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char machine[] = "host m kernel=6.15.0\n"
			      "cpu GenuineIntel threads=2 l3-cores=2\n"
			      "iommu intel\n"
			      "node 0 socket=0 cpus=0-3 memory=64G free=60G 1G=48/48 2M=0/0 distances=10,21\n"
			      "node 1 socket=1 cpus=4-7 memory=64G free=60G 1G=48/48 2M=0/0 distances=21,10\n"
			      "kind rp 8086:352a 060400 pcie=root link=32x16 acs=0x5d driver=pcieport\n"
			      "kind gpu 10de:2335 030200 bars=16M:64,256G:p,32M:p link=32x16\n"
			      "kind nic 15b3:1021 020000 bars=32M:p link=32x16 driver=mlx5_core ats=on vfs=1\n"
			      "kind ssd 144d:a824 010802 bars=32K:64 link=32x4 driver=nvme\n"
			      "bus 0000:10 node=0\n"
			      "\t10:01.0 rp\n"
			      "\t\t13:00.0 gpu\n"
			      "bus 0000:80 node=1\n"
			      "\t80:01.0 rp\n"
			      "\t\t84:00.0 nic\n"
			      "\t80:02.0 rp\n"
			      "\t\t85:00.0 ssd\n"
			      "disk nvme0n1 at 85:00.0 parts=2\n"
			      "dm 0 vg-root on nvme0n1p2\n"
			      "mount dm-0 / ext4\n"
			      "net eno1 at 84:00.0 master=br0\n"
			      "net br0 virtual bridge\n"
			      "route br0 default\n";

/* With LeakSanitizer they are there. hwloc (2.9) does not free the half-read processor of a /proc/cpuinfo that it cannot parse. */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));

#define CPUINFO "proc/cpuinfo"
#define RP  "sys/devices/pci0000:10/0000:10:01.0/"
#define GPU RP "0000:13:00.0/"
#define NIC "sys/devices/pci0000:80/0000:80:01.0/0000:84:00.0/"
#define SSD "sys/devices/pci0000:80/0000:80:02.0/0000:85:00.0/"
#define BR0 "sys/devices/virtual/net/br0/"

/* By real paths: a link that was changed must not lead to another file here. The corpus goes by the order: only append. */
static const char *const files[] = {
	GPU "config", GPU "resource", GPU "numa_node", GPU "local_cpulist", GPU "driver_override", GPU "boot_vga", GPU "reset_method", GPU "power_state",
	GPU "max_link_speed", GPU "max_link_width", GPU "current_link_speed", GPU "current_link_width", GPU "modalias", GPU "iommu_group", GPU "driver",
	RP "config", RP "resource", RP "iommu_group", RP "driver", RP "modalias",
	NIC "config", NIC "resource", NIC "numa_node", NIC "sriov_numvfs", NIC "physfn", NIC "virtfn0", NIC "driver", NIC "iommu_group", NIC "modalias",
	SSD "config", SSD "resource", SSD "driver", SSD "modalias", "sys/bus/pci/devices/0000:13:00.0",
	NIC "net/eno1/mtu", NIC "net/eno1/flags", NIC "net/eno1/carrier", NIC "net/eno1/master", "sys/class/net/eno1",
	BR0 "tun_flags", BR0 "mtu", BR0 "lower_eno1",
	"sys/devices/system/cpu/online", "sys/devices/system/cpu/possible", "sys/devices/system/cpu/present", "sys/devices/system/cpu/isolated",
	"sys/devices/system/cpu/nohz_full", "sys/devices/system/cpu/cpu1/topology/core_id", "sys/devices/system/cpu/cpu1/topology/thread_siblings",
	"sys/devices/system/cpu/cpu1/topology/core_cpus", "sys/devices/system/cpu/cpu1/topology/package_cpus", "sys/devices/system/cpu/cpu1/topology/physical_package_id",
	"sys/devices/system/cpu/cpu1/cache/index3/shared_cpu_map", "sys/devices/system/cpu/cpu1/cache/index3/size",
	"sys/devices/system/node/online", "sys/devices/system/node/node1/cpumap", "sys/devices/system/node/node1/cpulist", "sys/devices/system/node/node1/meminfo",
	"sys/devices/system/node/node1/distance", "sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages",
	"sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
	"sys/devices/virtual/iommu/dmar0/intel-iommu/cap", SSD "nvme/nvme0/nvme0n1/dev", "sys/dev/block/253:0", "sys/class/block/dm-0", "sys/class/block/nvme0n1",
	CPUINFO, "proc/meminfo", "proc/swaps", "proc/self/mountinfo", "proc/net/route", "proc/net/ipv6_route", "proc/net/if_inet6",
	"proc/sys/kernel/hostname", "proc/sys/kernel/osrelease", "etc/machine-id", "proc/interrupts", "proc/cmdline", "proc/uptime",
	"sys/module/kvm_intel/parameters/nested", "sys/kernel/mm/transparent_hugepage/enabled", "sys/devices/system/cpu/cpu0/cpuidle/state0/latency",
	"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "sys/class/dmi/id/product_name", GPU "aer_dev_fatal", GPU "aer_dev_correctable",
	"sys/kernel/iommu_groups/1/type", "sys/module/nvidia/version", "sys/kernel/security/lockdown", "proc/sys/vm/max_map_count",
};

struct original {
	bool is_link;
	uint8_t *data;
	size_t size;
};

static char *root;
static struct original originals[ARRAY_SIZE(files)];

static void require(bool ok)
{
	if (!ok)
		abort();
}

static bool put(size_t i, bool as_link, const uint8_t *data, size_t size)
{
	AUTO_FREE char *path = xasprintf("%s/%s", root, files[i]), *target = NULL;
	AUTO_FCLOSE FILE *f = NULL;

	(void)remove(path);
	if (as_link) {
		target = xstrndup((const char *)data, size);
		return symlink(target, path) == 0;
	}
	f = fopen(path, "we");
	return f && fwrite(data, 1, size, f) == size;
}

static void remove_root(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		free(originals[i].data);
	mkhost_remove(root);
}

static void make_parents(char *path)
{
	for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(path, 0755);
		*slash = '/';
	}
}

static void keep(size_t i)
{
	AUTO_FREE char *path = xasprintf("%s/%s", root, files[i]);
	struct original *o = &originals[i];
	AUTO_FCLOSE FILE *f = NULL;
	struct stat st;

	if (lstat(path, &st) < 0) {
		make_parents(path);
		return;
	}
	o->is_link = S_ISLNK(st.st_mode);
	o->data = xcalloc(65536, 1);
	if (o->is_link) {
		o->size = (size_t)readlink(path, (char *)o->data, 65536);
	} else {
		f = fopen(path, "re");
		require(f != NULL);
		o->size = fread(o->data, 1, 65536, f);
	}
}

static void make_root(void)
{
	root = mkhost_text(machine);
	require(root != NULL);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		keep(i);
	atexit(remove_root);
}

static void check(const struct topology *t)
{
	CLEANUP(doctor_facts_clear) struct doctor_facts f = { 0 };
	CLEANUP(doctor_report_clear) struct doctor_report r = { 0 };
	AUTO_FCLOSE FILE *null = fopen("/dev/null", "we");

	for (size_t i = 0; i < t->n_funcs; i++)
		require(t->funcs[i].parent < (int)i && t->funcs[i].node < (int)t->n_nodes);
	for (size_t i = 0; i < t->n_cpus; i++)
		require(t->cpus[i].node >= 0 && (size_t)t->cpus[i].node < t->n_nodes);
	topology_print(t, NULL, DRAW_ALL, null);
	topology_print_matrix(t, NULL, 0, null);
	doctor_facts_read(root, t, &f);
	doctor_check(&f, &r);
	doctor_print(&f, &r, 0, null);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool changed[ARRAY_SIZE(files)] = { 0 }, leaks = false;
	struct topology t = { 0 };
	struct err e = { 0 };
	int r;

	if (!root)
		make_root();
	while (size >= 2) {
		size_t i = data[0] % ARRAY_SIZE(files), len = data[1] == 255 ? size - 2 : MIN(data[1], size - 2);

		/* What a function has or not: its driver, its physical function. */
		bool as_link = originals[i].is_link || (!originals[i].data && len > 3 && !memcmp(data + 2, "../", 3));

		changed[i] = put(i, as_link, data + 2, len) || changed[i] || originals[i].data;
		data += 2 + len;
		size -= 2 + len;
	}
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		leaks = leaks || (changed[i] && !strcmp(files[i], CPUINFO));
	if (leaks && __lsan_disable)
		__lsan_disable();
	r = probe_host(root, &t, &e);
	if (leaks && __lsan_enable)
		__lsan_enable();
	if (r == 0)
		check(&t);
	else
		require(*e.msg);
	topology_clear(&t);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		AUTO_FREE char *path = xasprintf("%s/%s", root, files[i]);

		if (changed[i] && originals[i].data)
			require(put(i, originals[i].is_link, originals[i].data, originals[i].size));
		else if (changed[i])
			(void)remove(path);
	}
	return 0;
}
