/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole machines: the fixtures made into sys/ and proc/ trees, read back; and this machine. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/draw.h"
#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)

/* The machine of a fixture, read; its folder is removed again at once: a topology stands alone. */
static struct topology probe_made(char *dir)
{
	struct topology t = { 0 };
	struct err e = { 0 };
	int r;

	cr_assert_not_null(dir);
	r = probe_host(dir, &t, &e);
	mkhost_remove(dir);
	cr_assert(eq(int, r, 0), "%s", e.msg);
	return t;
}

static struct topology probe_fixture(const char *name)
{
	return probe_made(mkhost_fixture(name));
}

static int func_at(const struct topology *t, const char *bdf)
{
	struct pci_addr a;
	int i;

	cr_assert(eq(int, parse_pci_addr(bdf, &a), 0));
	i = topology_find_func(t, &a);
	cr_assert(ge(int, i, 0), "no function %s", bdf);
	return i;
}

static const struct pci_func *at(const struct topology *t, const char *bdf)
{
	return &t->funcs[func_at(t, bdf)];
}

static void assert_cpus(const struct cpuset *s, const char *list)
{
	AUTO_FREE char *text = cpuset_format(s);

	cr_assert_str_eq(text, list);
}

static void assert_use(const struct topology *t, const char *bdf, const char *reason)
{
	const struct pci_func *f = at(t, bdf);

	if (reason)
		cr_assert_str_eq(f->host_use ? f->host_use : "(none)", reason, "%s", bdf);
	else
		cr_assert_null(f->host_use, "%s: %s", bdf, f->host_use);
}

/* Nothing else than the @n functions in @bdfs is used by the host. */
static void assert_only_used(const struct topology *t, const char *const *bdfs, size_t n)
{
	size_t used = 0;

	for (size_t i = 0; i < t->n_funcs; i++)
		used += t->funcs[i].host_use != NULL;
	for (size_t i = 0; i < n; i++)
		cr_assert_not_null(at(t, bdfs[i])->host_use, "%s", bdfs[i]);
	cr_assert(eq(sz, used, n));
}

/* --- XE9680: the table of NVIDIA's paper ------------------------------------------------------------- */

/* "G3", "N0", "S9" to the function: n-th of its kind by address, the host's own left out. */
static int named(const struct topology *t, const char *name)
{
	enum pci_role role = *name == 'G' ? ROLE_GPU : *name == 'N' ? ROLE_NIC : ROLE_NVME;
	int n = name[1] - '0';

	for (size_t i = 0; i < t->n_funcs; i++)
		if (t->funcs[i].role == role && t->funcs[i].parent >= 0 && topology_switch_of(t, (int)i) >= 0 && n-- == 0)
			return (int)i;
	cr_assert(false, "no %s", name);
	return -1;
}

static void assert_relations(const struct topology *t, const char *names, enum pci_relation want)
{
	char buf[64], *v[8], *save = NULL;
	size_t n = 0;

	snprintf(buf, sizeof(buf), "%s", names);
	for (char *s = strtok_r(buf, " ", &save); s; s = strtok_r(NULL, " ", &save))
		v[n++] = s;
	for (size_t i = 1; i < n; i++) {
		enum pci_relation got = topology_relation(t, named(t, v[0]), named(t, v[i]));

		cr_assert_str_eq(pci_relation_word(got), pci_relation_word(want), "%s to %s", v[0], v[i]);
	}
}

Test(probe, xe9680_relations_are_those_of_the_paper)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	static const char *const same_switch[] = { "G0 N0 S0 S1", "G1 N1 S2 S3", "G2 N2 S4", "G3 N3 S5",
						   "G4 N4 S6",    "G5 N5 S7",    "G6 N6 S8", "G7 N7 S9" };
	static const char *const same_node[] = { "G0 N2 S5", "G2 N1 S0", "G4 N7 S8", "G7 N5 S6" };
	static const char *const apart[] = { "G1 N4 S8", "G5 N2 S3" };

	for (size_t i = 0; i < ARRAY_SIZE(same_switch); i++)
		assert_relations(&t, same_switch[i], REL_PIX);
	for (size_t i = 0; i < ARRAY_SIZE(same_node); i++)
		assert_relations(&t, same_node[i], REL_NODE);
	for (size_t i = 0; i < ARRAY_SIZE(apart); i++)
		assert_relations(&t, apart[i], REL_SYS);
}

Test(probe, xe9680_functions)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	static const char *const gpus[] = { "19:00.0", "3b:00.0", "4c:00.0", "5d:00.0", "9b:00.0", "bb:00.0", "cb:00.0", "db:00.0" };
	const struct pci_func *f = at(&t, "19:00.0");

	cr_assert(eq(int, topology_n_gpus(&t), 8));
	for (int i = 0; i < 8; i++) {
		cr_assert(eq(int, at(&t, gpus[i])->gpu_index, i));
		cr_assert(eq(int, at(&t, gpus[i])->socket, i / 4));
	}
	cr_assert_str_eq(f->name, "NVIDIA Corporation GH100 [H200 SXM 141GB]");
	cr_assert(eq(uint, f->vendor, 0x10de));
	cr_assert(eq(uint, f->device, 0x2335));
	cr_assert(eq(uint, f->subdevice, 0x18be));
	cr_assert(eq(uint, f->class_code, 0x030200));
	cr_assert_str_eq(f->driver, "");
	cr_assert_str_eq(f->override, "");
	cr_assert_str_eq(f->root_bus, "0000:15");
	cr_assert(eq(u64, f->bars[2].bytes, 256 * GIB));
	cr_assert(eq(u64, f->bars[2].flags, 0x14220c));
	cr_assert(eq(u64, f->bars[3].bytes, 0));
	cr_assert(eq(u64, pci_func_bar_bytes(f), 256 * GIB + 48 * MIB));
	cr_assert(eq(uint, f->link.max_mts, 32000));
	cr_assert(eq(uint, f->link.cur_mts, 2500));
	cr_assert(eq(uint, f->link.cur_width, 16));
	cr_assert(f->can_reset);
	cr_assert(eq(int, at(&t, "6d:00.0")->role, ROLE_NVSWITCH));
	cr_assert(eq(uint, topology_path_link(&t, func_at(&t, "1a:00.0")).width, 4));
	cr_assert(at(&t, "02:00.0")->boot_vga);
	cr_assert(eq(int, at(&t, "02:00.0")->role, ROLE_OTHER));
}

Test(probe, ports_by_their_capability)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	int path[4], gpu = func_at(&t, "19:00.0");

	cr_assert(eq(sz, topology_path(&t, gpu, path, 4), 3));
	cr_assert(eq(int, t.funcs[path[0]].port, PORT_ROOT));
	cr_assert(eq(int, t.funcs[path[1]].port, PORT_UPSTREAM));
	cr_assert(eq(int, t.funcs[path[2]].port, PORT_DOWNSTREAM));
	cr_assert(eq(int, at(&t, "01:00.0")->port, PORT_PCI_BRIDGE));
	cr_assert(eq(int, topology_switch_of(&t, gpu), func_at(&t, "16:00.0")));
	cr_assert(eq(int, topology_switch_of(&t, func_at(&t, "02:00.0")), -1));
}

Test(probe, xe9680_cpus_and_memory)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	const struct hugepage_pool *pool = host_node_pool(&t.nodes[1], GIB);

	cr_assert(eq(sz, t.n_nodes, 2));
	cr_assert(eq(int, t.n_sockets, 2));
	cr_assert(eq(sz, t.n_cpus, 192));
	assert_cpus(&t.nodes[0].cpus, "0-47,96-143");
	assert_cpus(&t.nodes[1].cpus, "48-95,144-191");
	assert_cpus(&t.allowed, "0-191");
	cr_assert(eq(int, topology_cpu(&t, 5)->core, topology_cpu(&t, 101)->core), "siblings");
	cr_assert(ne(int, topology_cpu(&t, 5)->core, topology_cpu(&t, 53)->core), "core numbers start again in each socket");
	cr_assert(ne(int, topology_cpu(&t, 5)->l3, topology_cpu(&t, 53)->l3));
	cr_assert(eq(int, topology_cpu(&t, 144)->socket, 1));
	cr_assert(eq(u64, t.nodes[0].mem_bytes, 1024 * GIB));
	cr_assert(eq(u64, t.nodes[1].free_bytes, 1006 * GIB));
	cr_assert_not_null(pool);
	cr_assert(eq(u64, pool->total, 960));
	cr_assert(eq(int, t.nodes[0].distances[1], 21));
	cr_assert(eq(int, t.nodes[1].distances[1], 10));
	cr_assert(eq(int, t.phys_bits, 52));
	cr_assert(eq(int, t.iommu_bits, 57));
	cr_assert(t.iommu_groups && t.kvm && t.vfio);
	cr_assert_str_eq(t.cpu_vendor, "GenuineIntel");
	cr_assert_str_eq(t.host_name, "xe9680");
	cr_assert_str_eq(t.kernel, "6.8.0-90-generic");
	cr_assert(eq(sz, strlen(t.machine_id), 32));
}

Test(probe, xe9680_host_use)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	static const char *const used[] = { "04:00.0", "03:00.0" };

	assert_use(&t, "04:00.0", "/dev/mapper/rhel-root is mounted on /");
	assert_use(&t, "03:00.0", "eno8303 has the default route");
	assert_only_used(&t, used, ARRAY_SIZE(used)); /* eno8403 has a link-local address at most; bridges are not marked */
}

/* --- other machines ------------------------------------------------------------------------------------- */

Test(probe, hgx_h100)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("hgx-h100");
	static const char *const gpus[] = { "0f:00.0", "10:00.0", "41:00.0", "44:00.0", "86:00.0", "87:00.0", "b8:00.0", "bb:00.0" };
	static const char *const used[] = { "61:00.0", "62:00.0", "62:00.1" };

	for (int i = 0; i < 8; i++) {
		cr_assert(eq(int, at(&t, gpus[i])->gpu_index, i));
		cr_assert(eq(int, at(&t, gpus[i])->node, i / 4));
		cr_assert_str_eq(at(&t, gpus[i])->driver, "nvidia");
	}
	for (int i = 3; i <= 6; i++) {
		char bdf[16];

		snprintf(bdf, sizeof(bdf), "%02x:00.0", (unsigned int)i);
		cr_assert(eq(int, at(&t, bdf)->role, ROLE_NVSWITCH));
	}
	cr_assert(eq(u64, at(&t, "0f:00.0")->bars[2].bytes, 131072 * MIB));
	assert_cpus(&t.nodes[1].cpus, "56-111,168-223");
	assert_use(&t, "62:00.1", "eno2 is below bond0, which has the default route");
	assert_only_used(&t, used, ARRAY_SIZE(used));
}

Test(probe, stacked_switches_and_a_gap_in_the_nodes)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("h200-cx7-4-stacked");
	static const struct {
		const char *pxb, *pix, *nic;
		int node;
	} rows[] = { { "0a:00.0", "18:00.0", "17:00.0", 0 },
		     { "3c:00.0", "45:00.0", "44:00.0", 0 },
		     { "87:00.0", "90:00.0", "8f:00.0", 2 },
		     { "b9:00.0", "c2:00.0", "c1:00.0", 2 } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		int pxb = func_at(&t, rows[i].pxb), pix = func_at(&t, rows[i].pix), nic = func_at(&t, rows[i].nic);

		cr_assert(eq(int, topology_relation(&t, pxb, nic), REL_PXB));
		cr_assert(eq(int, topology_relation(&t, pix, nic), REL_PIX));
		cr_assert(eq(int, topology_relation(&t, pix, pxb), REL_PXB));
		cr_assert(eq(int, t.nodes[t.funcs[nic].node].id, rows[i].node));
	}
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "0a:00.0"), func_at(&t, "44:00.0")), REL_NODE));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "0a:00.0"), func_at(&t, "8f:00.0")), REL_SYS));
	cr_assert(eq(sz, t.n_nodes, 2));
	cr_assert(eq(int, t.nodes[1].id, 2));
	cr_assert(eq(int, t.nodes[1].distances[0], 21));
	assert_cpus(&t.nodes[1].cpus, "48-71");
	cr_assert(eq(int, topology_cpu(&t, 48)->node, 1));
}

Test(probe, host_use_through_btrfs_nvme_multipath_and_a_bridge)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("h200-cx7-4-stacked");
	static const char *const used[] = { "01:00.0", "02:00.0" };

	assert_use(&t, "01:00.0", "/dev/nvme0n1p2 is mounted on /");
	assert_use(&t, "02:00.0", "ens1f0np0 is below br0, which has the default route");
	assert_only_used(&t, used, ARRAY_SIZE(used));
}

Test(probe, h200_order_inside_groups_and_nodes_from_parents)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("h200-cx7-8");
	static const char *const gpus[] = { "18:00.0", "2a:00.0", "3a:00.0", "5d:00.0", "9a:00.0", "ab:00.0", "ba:00.0", "db:00.0" };

	for (int i = 0; i < 8; i++) {
		cr_assert(eq(int, at(&t, gpus[i])->gpu_index, i));
		cr_assert(eq(int, at(&t, gpus[i])->node, i < 3 ? 0 : 1));
		cr_assert_str_eq(at(&t, gpus[i])->driver, "pci-stub");
	}
	cr_assert(eq(int, at(&t, "5d:00.0")->sysfs_node, -1));
	cr_assert(eq(int, at(&t, "5d:00.0")->node_source, NODE_FROM_PARENT));
	cr_assert(eq(int, at(&t, "18:00.0")->node_source, NODE_FROM_DEVICE));
	assert_use(&t, "02:00.0", "eno1 has an IPv4 route");
	assert_use(&t, "02:00.1", "eno2 has the default route");
}

Test(probe, dgx2)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("dgx2");
	int n[8] = { 0 };

	for (size_t i = 0; i < t.n_funcs; i++)
		n[t.funcs[i].role]++;
	cr_assert(eq(int, n[ROLE_GPU], 16));
	cr_assert(eq(int, n[ROLE_NVSWITCH], 12));
	cr_assert(eq(int, at(&t, "e7:00.0")->gpu_index, 15));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "34:00.0"), func_at(&t, "35:00.0")), REL_PIX));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "34:00.0"), func_at(&t, "3a:00.0")), REL_PXB));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "34:00.0"), func_at(&t, "58:00.0")), REL_NODE));
	assert_use(&t, "01:00.0", "/dev/md0 is mounted on /"); /* both halves of the mirror */
	assert_use(&t, "05:00.0", "/dev/md0 is mounted on /");
}

/* Four nodes on each socket, two with GPUs: a CPU belongs to one of them. */
Test(probe, dgx_a100_nps4)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("dgx-a100");

	cr_assert(eq(sz, t.n_nodes, 8));
	cr_assert(eq(int, t.n_sockets, 2));
	for (size_t i = 0; i < t.n_nodes; i++) {
		cr_assert(eq(int, cpuset_count(&t.nodes[i].cpus), 32));
		cr_assert(eq(int, t.nodes[i].socket, (int)i / 4));
		cr_assert(eq(int, topology_cpu(&t, 128 + 16 * (int)i)->node, (int)i));
	}
	cr_assert(eq(int, at(&t, "07:00.0")->node, 3));
	cr_assert(eq(int, at(&t, "47:00.0")->gpu_index, 0));
}

/* A list with an id twice is still a list. */
Test(probe, damaged_list_of_names)
{
	char *root = mkhost_fixture("desktop");
	AUTO_FREE char *path = xasprintf("%s/usr/share/misc/pci.ids", root);
	static const char twice[] = "10de  A\n\t2684  B\n\t2684  C\n";

	cr_assert(write_file_atomic(path, twice, strlen(twice), 0644) == 0);
	CLEANUP(topology_clear) struct topology t = probe_made(root);
	cr_assert_str_eq(at(&t, "02:00.0")->name, "144d:a80a");
}

/* A vendor without the device, subsystems and classes with the same digits, upper case, a last line that was cut off. */
Test(probe, list_of_names)
{
	char *root = mkhost_fixture("desktop");
	AUTO_FREE char *path = xasprintf("%s/usr/share/misc/pci.ids", root);
	static const char list[] = "# 144d  no\n144D  Drives\n\ta80b  Other\n\t\t144d a80a  Subsystem\n10de  Chips\n\t2684  Fast One\n\t\t10de 2684  Board\n"
				   "C 01  Class\n\t2684  Not this\n8086  Cut";

	cr_assert(write_file_atomic(path, list, strlen(list), 0644) == 0);
	CLEANUP(topology_clear) struct topology t = probe_made(root);
	cr_assert_str_eq(at(&t, "02:00.0")->name, "Drives [144d:a80a]");
	cr_assert_str_eq(at(&t, "01:00.0")->name, "Chips Fast One");
	for (size_t i = 0; i < t.n_funcs; i++)
		cr_assert(t.funcs[i].vendor != 0x8086 || !strstr(t.funcs[i].name, "Cut"));
}

Test(probe, dgx_b200)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("dgx-b200");
	int n[8] = { 0 };

	for (size_t i = 0; i < t.n_funcs; i++)
		n[t.funcs[i].role]++;
	cr_assert(eq(int, n[ROLE_GPU], 8));
	cr_assert(eq(int, n[ROLE_NIC], 9));
	cr_assert(eq(int, n[ROLE_FABRIC], 4));
	cr_assert(eq(int, at(&t, "05:00.3")->role, ROLE_FABRIC));
}

Test(probe, lab)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("lab");
	int members[4];

	cr_assert(eq(int, topology_n_gpus(&t), 8));
	assert_cpus(&t.nodes[1].cpus, "10-19");
	cr_assert(eq(int, topology_cpu(&t, 2)->core, topology_cpu(&t, 3)->core), "siblings are neighbours");
	cr_assert(eq(int, at(&t, "83:00.0")->gpu_index, 4));
	cr_assert_str_eq(at(&t, "83:00.0")->name, "1234:1111");
	cr_assert(eq(sz, topology_group(&t, func_at(&t, "23:00.0"), members, 4), 2), "with its downstream port");
	cr_assert(eq(int, members[0], func_at(&t, "22:00.0")));
	cr_assert(eq(int, at(&t, "00:01.0")->node_source, NODE_UNKNOWN));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "23:00.0"), func_at(&t, "24:00.0")), REL_PIX));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "23:00.0"), func_at(&t, "2a:00.0")), REL_PHB));
	cr_assert(eq(uint, topology_path_link(&t, func_at(&t, "24:00.0")).mts, 2500));
	assert_use(&t, "00:01.0", "9p share root is mounted on /");
}

Test(probe, desktop)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("desktop");
	int members[4];

	cr_assert(eq(int, topology_n_gpus(&t), 1));
	cr_assert(eq(int, at(&t, "01:00.0")->gpu_index, 0));
	cr_assert(eq(int, at(&t, "00:02.0")->role, ROLE_OTHER), "the console");
	cr_assert(eq(int, at(&t, "01:00.0")->node_source, NODE_ONLY_ONE));
	cr_assert(eq(sz, topology_group(&t, func_at(&t, "01:00.1"), members, 4), 3));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "01:00.0"), func_at(&t, "01:00.1")), REL_PHB));
	assert_use(&t, "02:00.0", "/dev/nvme0n1p2 is mounted on /");
	assert_use(&t, "00:17.0", NULL);
}

Test(probe, plain_vm_host)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("plain");
	static const char *const used[] = { "01:00.0", "41:00.0", "81:00.0" };

	cr_assert(eq(int, topology_n_gpus(&t), 0));
	cr_assert(eq(uint, at(&t, "41:00.0")->sriov_vfs, 2));
	cr_assert(eq(uint, at(&t, "41:00.1")->sriov_vfs, 0));
	cr_assert(at(&t, "41:01.1")->is_vf);
	cr_assert(eq(uint, at(&t, "41:01.1")->vendor, 0x8086), "config space of a VF reads ffff");
	cr_assert_str_eq(at(&t, "82:00.0")->override, "vfio-pci");
	cr_assert_str_eq(at(&t, "82:00.0")->driver, "vfio-pci");
	cr_assert(topology_cpu(&t, 2)->nohz_full && !topology_cpu(&t, 1)->nohz_full);
	cr_assert(topology_cpu(&t, 33)->isolated && !topology_cpu(&t, 32)->isolated && !topology_cpu(&t, 16)->isolated);
	cr_assert(eq(int, topology_cpu(&t, 0)->l3, topology_cpu(&t, 35)->l3));
	cr_assert(ne(int, topology_cpu(&t, 0)->l3, topology_cpu(&t, 4)->l3));
	cr_assert(eq(int, t.iommu_bits, 0));
	assert_use(&t, "01:00.0", "/dev/mapper/vg0-root is mounted on /");
	assert_use(&t, "41:00.0", "ens1f0 is below vlan7, which has the default route");
	assert_only_used(&t, used, ARRAY_SIZE(used));
}

/* --- odd machines ------------------------------------------------------------------------------------------ */

#define SMALL_CPU "cpu GenuineIntel threads=1\n"
#define KINDS                                                              \
	"kind rp 8086:352a 060400 pcie=root link=32x16\n"                  \
	"kind up 1000:c030 060400 pcie=upstream link=16x16\n"              \
	"kind dn 1000:c030 060400 pcie=downstream link=16x16\n"            \
	"kind gpu 10de:2335 030200 bars=16M,256G:p link=32x16 now=32x8\n"

Test(probe, kernel_without_numa)
{
	CLEANUP(topology_clear) struct topology t = probe_made(mkhost_text(
		"host nonuma no-kvm no-vfio\n" SMALL_CPU "numa off\nnode 0 socket=0 cpus=0-3 memory=8G free=6G 2M=7/9\n"));

	cr_assert(eq(sz, t.n_nodes, 1));
	cr_assert(eq(int, t.nodes[0].id, 0));
	assert_cpus(&t.nodes[0].cpus, "0-3");
	cr_assert(eq(u64, t.nodes[0].mem_bytes, 8 * GIB));
	cr_assert(eq(u64, t.nodes[0].free_bytes, 6 * GIB));
	cr_assert(eq(u64, host_node_pool(&t.nodes[0], 2 * MIB)->free, 7));
	cr_assert(eq(sz, t.n_funcs, 0));
	cr_assert(not(t.kvm || t.vfio || t.iommu_groups));
}

Test(probe, node_from_local_cpus_and_ports_that_cannot_be_read)
{
	CLEANUP(topology_clear) struct topology t = probe_made(mkhost_text(
		"host odd\n" SMALL_CPU "node 0 socket=0 cpus=0-1 memory=1G distances=10,20\n"
		"node 1 socket=1 cpus=2-3 memory=1G distances=20,10\n" KINDS "bus 0000:10\n"
		"\t10:00.0 rp unreadable\n\t\t11:00.0 up unreadable\n\t\t\t12:00.0 dn unreadable\n"
		"\t\t\t\t13:00.0 gpu cpulist=2-3\n\t\t\t12:01.0 dn unreadable\n\t\t\t\t14:00.0 gpu\n"));

	cr_assert(eq(int, at(&t, "11:00.0")->port, PORT_UNKNOWN));
	cr_assert(eq(int, topology_switch_of(&t, func_at(&t, "13:00.0")), func_at(&t, "11:00.0")));
	cr_assert(eq(int, at(&t, "13:00.0")->node, 1));
	cr_assert(eq(int, at(&t, "13:00.0")->node_source, NODE_FROM_CPULIST));
	cr_assert(eq(int, at(&t, "14:00.0")->node, -1), "a list of all CPUs says nothing");
	cr_assert(eq(int, at(&t, "14:00.0")->iommu_group, -1));
	cr_assert(eq(uint, at(&t, "14:00.0")->link.cur_width, 8));
	cr_assert(eq(int, topology_relation(&t, func_at(&t, "13:00.0"), func_at(&t, "14:00.0")), REL_PIX));
}

Test(probe, large_domains)
{
	CLEANUP(topology_clear) struct topology t = probe_made(
		mkhost_text("host vmd\n" SMALL_CPU "node 0 socket=0 cpus=0 memory=1G\n" KINDS
			    "bus 10000:e1\n\t10000:e1:00.0 rp\n\t\t10000:e2:00.0 gpu\nbus 0000:00\n\t00:01.0 gpu\n"));

	cr_assert(eq(sz, t.n_funcs, 3));
	cr_assert(eq(uint, t.funcs[0].addr.domain, 0), "sorted");
	cr_assert(eq(uint, t.funcs[2].addr.domain, 0x10000));
	cr_assert(eq(int, t.funcs[2].parent, 1));
	cr_assert_str_eq(t.funcs[2].root_bus, "10000:e1");
}

Test(probe, ipv6_swap_and_escaped_mounts)
{
	CLEANUP(topology_clear) struct topology t = probe_made(
		mkhost_text("host use\n" SMALL_CPU "node 0 socket=0 cpus=0 memory=1G\nkind hba 8086:1bf2 010601 pcie=none\n"
			    "kind nic 8086:1521 020000\nbus 0000:00\n\t00:01.0 hba\n\t00:02.0 hba\n\t00:03.0 nic\n\t00:04.0 nic\n"
			    "disk sda at 00:01.0 parts=1\ndisk sdb at 00:02.0 parts=1\nswap sdb1\n"
			    "mount sda1 '/mnt/a\\040b'\nnet eth0 at 00:03.0\nnet eth1 at 00:04.0\n"
			    "address6 eth0 20010db8000000000000000000000001\n"
			    "address6 eth1 fe800000000000000000000000000001 scope=link\n"));

	assert_use(&t, "00:01.0", "/dev/sda1 is mounted on /mnt/a b");
	assert_use(&t, "00:02.0", "/dev/sdb1 is swap space");
	assert_use(&t, "00:03.0", "eth0 has an IPv6 address");
	assert_use(&t, "00:04.0", NULL);
}

Test(probe, not_the_root_of_a_machine)
{
	CLEANUP(topology_clear) struct topology t = { .n_sockets = 77 };
	struct err e = { 0 };

	cr_assert(eq(int, probe_host("/nonexistent", &t, &e), -ENOENT));
	cr_assert_not_null(strstr(e.msg, "/nonexistent"));
	cr_assert(eq(int, probe_host("/etc", &t, &e), -ENOENT));
	cr_assert_not_null(strstr(e.msg, "no sys/"), "%s", e.msg);
	cr_assert(eq(int, t.n_sockets, 77), "untouched on failure");
	t.n_sockets = 0;
}

Test(probe, environment_is_put_back)
{
	struct topology t;

	setenv("HWLOC_XMLFILE", "/nonexistent.xml", 1); /* would make hwloc show another machine */
	unsetenv("HWLOC_FSROOT");
	t = probe_fixture("desktop");
	cr_assert(eq(sz, t.n_cpus, 16));
	cr_assert_str_eq(getenv("HWLOC_XMLFILE"), "/nonexistent.xml");
	cr_assert_null(getenv("HWLOC_FSROOT"));
	topology_clear(&t);
}

Test(probe, this_machine)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };

	cr_assert(eq(int, probe_host("", &t, &e), 0), "%s", e.msg);
	cr_assert_str_eq(t.root, "/");
	cr_assert(eq(sz, t.n_cpus, (size_t)sysconf(_SC_NPROCESSORS_ONLN)));
	cr_assert(ge(sz, t.n_nodes, 1));
	cr_assert(gt(u64, t.nodes[0].mem_bytes, 0));
	cr_assert(not(cpuset_empty(&t.allowed)));
	for (size_t i = 0; i < t.n_funcs; i++) {
		cr_assert(lt(int, t.funcs[i].parent, (int)i));
		cr_assert(i == 0 || pci_addr_cmp(&t.funcs[i - 1].addr, &t.funcs[i].addr) < 0);
		cr_assert(ne(uint, t.funcs[i].vendor, 0));
	}
}

/* --- drawing and JSON ------------------------------------------------------------------------------------------ */

static char *draw(const struct topology *t, const struct host_use *use, unsigned int flags)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	topology_print(t, use, flags, f);
	fclose(f);
	return text;
}

Test(draw, desktop)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("desktop");
	AUTO_FREE char *text = draw(&t, NULL, 0);

	cr_assert_str_eq(
		text,
		"desktop: 1 socket, 8 cores, 16 CPUs, 64 GiB, 1 GPU, 1 NIC, 1 NVMe\n"
		"GenuineIntel, 39 address bits, IOMMU on (39 bits), KVM yes, VFIO yes, Linux 6.12.10-1\n"
		"\n"
		"node 0 (socket 0)  8 cores, CPUs 0-15; 64 GiB, 41 GiB free; no hugepages\n"
		"|- root port 0000:00:01.0\n"
		"|  `- gpu 0  0000:01:00.0  NVIDIA GeForce RTX 4090               nvidia  group 2  16 GT/s x16  304 MiB  "
		"group shared with 0000:01:00.1\n"
		"|- root port 0000:00:06.0\n"
		"|  `- nvme   0000:02:00.0  Samsung NVMe SSD Controller PM9A1...  nvme    group 4  16 GT/s x4    16 KiB  "
		"in use by host: /dev/nvme0n1p2 is mounted on /\n"
		"`- root port 0000:00:1c.0\n"
		"   `- nic    0000:03:00.0  Intel Ethernet Controller I225-V      igc     group 7  5 GT/s x1      1 MiB  "
		"in use by host: enp3s0 has the default route\n");
}

Test(draw, names_the_vm_and_draws_utf8_and_colour)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	struct used_device d = { .vm = "half0" };
	struct host_use use = { .devices = &d, .n_devices = 1 };
	AUTO_FREE char *text = NULL;

	d.addr = at(&t, "19:00.0")->addr;
	text = draw(&t, &use, DRAW_UTF8 | DRAW_COLOR);
	cr_assert_not_null(strstr(text, "└─"));
	cr_assert_not_null(strstr(text, "root port 0000:15:01.0 → switch 0000:16:00.0"));
	cr_assert_not_null(strstr(text, "\033[33mvm half0\033[0m\n"));
	cr_assert_null(strstr(text, "17:00.0"), "downstream ports are left out");
	cr_assert_null(strstr(text, " \n"), "blanks at the end of a line");
}

Test(draw, all_has_every_function)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("plain");
	AUTO_FREE char *text = draw(&t, NULL, DRAW_ALL), *brief = draw(&t, NULL, 0);
	char bdf[PCI_ADDR_STR];

	for (size_t i = 0; i < t.n_funcs; i++)
		cr_assert_not_null(strstr(text, pci_addr_format(&t.funcs[i].addr, bdf)), "%s", bdf);
	cr_assert_null(strstr(brief, "0000:41:01.0"), "VFs only with --all");
	cr_assert_not_null(strstr(brief, "2 VFs on"));
}

static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	cr_assert(json_object_object_get_ex(o, key, &v), "no key '%s'", key);
	return v;
}

Test(draw, json)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("h200-cx7-4-stacked");
	struct json_object *o = topology_to_json(&t, NULL), *f, *n;

	cr_assert(eq(int, json_object_get_int(get(o, "schema")), 1));
	cr_assert(eq(sz, json_object_array_length(get(o, "functions")), t.n_funcs));
	n = json_object_array_get_idx(get(o, "nodes"), 1);
	cr_assert(eq(int, json_object_get_int(get(n, "node")), 2));
	cr_assert_str_eq(json_object_get_string(get(n, "cpus")), "48-71");
	f = json_object_array_get_idx(get(o, "functions"), (size_t)func_at(&t, "90:00.0"));
	cr_assert_str_eq(json_object_get_string(get(f, "bdf")), "0000:90:00.0");
	cr_assert_str_eq(json_object_get_string(get(f, "switch")), "0000:8c:00.0");
	cr_assert_str_eq(json_object_get_string(get(f, "vendor")), "10de");
	cr_assert(eq(int, json_object_get_int(get(f, "node")), 2));
	cr_assert(eq(int, json_object_get_int(get(f, "gpu_index")), 5));
	cr_assert(eq(sz, json_object_array_length(get(f, "host_path")), 5));
	cr_assert_null(get(f, "host_use"));
	json_object_put(o);
}

/* --- the generator's own messages ------------------------------------------------------------------------------------ */

Test(mkhost, errors_name_the_line)
{
	static const char *const bad[] = { "nonsense 1", "kind x 10de:1 030200", "kind x 10de:1111 0302", "node 0 cpus=5-2 memory=1G",
					   "kind x 10de:1111 030200 colour=red", "\t00:01.0 gpu" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		AUTO_FREE char *text = xasprintf("host x\n%s\n", bad[i]), *dir = xstrdup("/tmp/gpuvm-mkhost-XXXXXX");
		AUTO_FREE char *file = NULL;
		struct err e = { 0 };
		FILE *f;

		cr_assert_not_null(mkdtemp(dir));
		file = xasprintf("%s/x.host", dir);
		f = fopen(file, "w");
		fputs(text, f);
		fclose(f);
		cr_assert(eq(int, mkhost_build(file, dir, &e), -EINVAL), "%s", bad[i]);
		cr_assert_not_null(strstr(e.msg, ":2: "), "%s", e.msg);
		mkhost_remove(STEAL_PTR(dir));
	}
}

static struct json_object *plan_of(const struct topology *t, const char *text)
{
	struct qemu_info q = fake_qemu("7.2");
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	struct plan p = { 0 };
	struct plan_request req = { .vm = &vm, .host = t, .qemu = &q, .rundir = "/run/gpuvm/x", .statedir = "/var/lib/gpuvm" };
	struct json_object *o = NULL;

	cr_assert(zero(int, config_parse("x.ini", text, strlen(text), NULL, &vm, &ps)));
	if (plan_make(&req, &p, &ps) == 0)
		o = plan_to_json(&p);
	else
		o = problems_to_json(&ps, "x");
	plan_clear(&p);
	config_clear(&vm);
	problems_clear(&ps);
	return o;
}

/* A VM without devices gets the same on a machine of which only the needful is known. */
Test(probe, lean)
{
	static const char *const fixtures[] = { "dgx2", "xe9680-h200", "dgx-a100", "plain", "desktop" };
	static const char *const texts[] = { "[vm]\nname = x\n", "[vm]\nname = x\n[cpu]\nvcpus = 6\n[memory]\nsize = 4G\nhugepages = off\n",
					     "[vm]\nname = x\n[pcie]\nacs = direct-translated\n[net a]\ntype = bridge\nbridge = br0\n",
					     "[vm]\nname = x\n[disk os]\nfile = /dev/nvme0n1\nformat = raw\n" };

	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++) {
		char *dir = mkhost_fixture(fixtures[i]);
		struct topology whole = { 0 }, t = { 0 };
		struct err e = { 0 };

		cr_assert(zero(int, probe_host(dir, &whole, &e)), "%s", e.msg);
		cr_assert(zero(int, probe_host_lean(dir, &t, &e)), "%s", e.msg);
		mkhost_remove(dir);
		cr_assert(zero(sz, t.n_funcs));
		for (size_t k = 0; k < ARRAY_SIZE(texts); k++) {
			struct json_object *a = plan_of(&whole, texts[k]), *b = plan_of(&t, texts[k]);

			cr_assert(json_object_equal(a, b), "%s: %s\n%s\n%s", fixtures[i], texts[k], json_object_to_json_string(a), json_object_to_json_string(b));
			json_object_put(a);
			json_object_put(b);
		}
		topology_clear(&whole);
		topology_clear(&t);
	}
}
