/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What follows from the facts: roles, nodes, numbering, relations. On small machines built by hand. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "gpuvm/draw.h"
#include "gpuvm/topology.h"

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)

/* --- a machine by hand ------------------------------------------------------------------------------ */

static struct pci_func *add_func(struct topology *t, int bus, int parent, uint32_t class_code)
{
	struct pci_func *f = PUSH_ZEROED(t->funcs, t->n_funcs);

	f->addr.bus = (uint8_t)bus;
	f->parent = parent;
	f->class_code = class_code;
	f->sysfs_node = f->local_node = -1;
	f->iommu_group = -1;
	snprintf(f->root_bus, sizeof(f->root_bus), "0000:00");
	return f;
}

static void add_node(struct topology *t, int id, int socket)
{
	struct host_node *n = PUSH_ZEROED(t->nodes, t->n_nodes);
	struct host_cpu *c = PUSH_ZEROED(t->cpus, t->n_cpus);

	n->id = id;
	n->socket = socket;
	*c = (struct host_cpu){ .cpu = id, .node = (int)t->n_nodes - 1, .socket = socket, .core = id };
	cpuset_add(&n->cpus, id);
}

/* Root port 0, then @n bridges below one another, then a GPU. */
static void add_chain(struct topology *t, int n)
{
	for (int i = 0; i <= n; i++)
		add_func(t, i, i - 1, 0x060400);
	add_func(t, n + 1, n, 0x030200);
}

/* --- roles ------------------------------------------------------------------------------------------ */

Test(topology, roles_come_from_class_codes)
{
	static const struct {
		uint32_t class_code;
		uint16_t vendor;
		bool boot_vga;
		enum pci_role role;
	} rows[] = {
		{ 0x030200, 0x10de, false, ROLE_GPU },    /* HGX board: 3D controller */
		{ 0x030000, 0x10de, false, ROLE_GPU },    /* graphics card: VGA */
		{ 0x030000, 0x10de, true, ROLE_OTHER },   /* the console */
		{ 0x030000, 0x1a03, false, ROLE_OTHER },  /* BMC, although not marked as the console */
		{ 0x038000, 0x1234, false, ROLE_GPU },    /* bochs-display */
		{ 0x120000, 0x1002, false, ROLE_GPU },    /* MI300X: processing accelerator */
		{ 0x020000, 0x8086, false, ROLE_NIC },    /* Ethernet */
		{ 0x020700, 0x15b3, false, ROLE_NIC },    /* InfiniBand */
		{ 0x028000, 0x8086, false, ROLE_OTHER },  /* wireless */
		{ 0x010802, 0x144d, false, ROLE_NVME },
		{ 0x010601, 0x8086, false, ROLE_OTHER },
		{ 0x068000, 0x10de, false, ROLE_NVSWITCH },
		{ 0x068000, 0x8086, false, ROLE_OTHER },
		{ 0x060400, 0x1000, false, ROLE_BRIDGE },
		{ 0x040300, 0x10de, false, ROLE_OTHER },  /* companions of a card: audio, */
		{ 0x0c0330, 0x10de, false, ROLE_OTHER },  /* USB, */
		{ 0x0c8000, 0x10de, false, ROLE_OTHER },  /* UCSI */
		{ 0x060000, 0x8086, false, ROLE_OTHER },
		{ 0x000000, 0x0000, false, ROLE_OTHER },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		cr_assert(eq(int, pci_role_of(rows[i].class_code, rows[i].vendor, rows[i].boot_vga), rows[i].role), "row %zu", i);
}

/* Two NVSwitches and a function that reads zeros below one switch, as in a capture of a DGX-2; the same beside a drive; and one alone. */
Test(topology, a_silent_function_among_nvswitches_is_one)
{
	for (int with_drive = 0; with_drive <= 1; with_drive++) {
		struct topology t = { 0 };

		add_chain(&t, 2);
		t.funcs[3].class_code = 0x068000;
		t.funcs[3].vendor = 0x10de;
		add_func(&t, 4, 1, 0x060400);
		add_func(&t, 5, 4, 0);
		add_func(&t, 6, 1, 0x060400);
		add_func(&t, 7, 6, with_drive ? 0x010802 : 0x068000)->vendor = 0x10de;
		add_func(&t, 8, 0, 0); /* beside the switch */
		topology_finish(&t);
		cr_assert(eq(int, t.funcs[3].role, ROLE_NVSWITCH));
		cr_assert(eq(int, t.funcs[5].role, with_drive ? ROLE_OTHER : ROLE_NVSWITCH));
		cr_assert(eq(int, t.funcs[8].role, ROLE_OTHER));
		topology_clear(&t);
	}
}

Test(topology, what_manages_nvswitches_is_no_nic)
{
	struct topology t = { 0 };

	for (int i = 0; i < 4; i++) {
		struct pci_func *f = add_func(&t, i, -1, i == 3 ? 0x010802 : 0x020700);

		f->vendor = 0x15b3;
		f->manages_nvlink = i != 1;
		f->is_vf = i == 2;
	}
	topology_finish(&t);
	cr_assert(eq(int, t.funcs[0].role, ROLE_FABRIC));
	cr_assert(eq(int, t.funcs[1].role, ROLE_NIC));
	cr_assert(eq(int, t.funcs[2].role, ROLE_NIC), "a virtual function of it");
	cr_assert(eq(int, t.funcs[3].role, ROLE_NVME));
	cr_assert_str_eq(pci_role_word(ROLE_FABRIC), "bridge");
	topology_clear(&t);
}

/* --- switches --------------------------------------------------------------------------------------- */

Test(topology, switches_by_place_where_ports_are_unknown)
{
	/* bridges above the GPU -> upstream ports: root, up, down, up, down, ... */
	for (int n = 0; n <= 5; n++) {
		struct topology t = { 0 };
		int gpu = n + 1;

		add_chain(&t, n);
		topology_finish(&t);
		for (int i = 0; i <= n; i++)
			cr_assert(eq(int, topology_is_upstream(&t, i), i % 2), "bridge %d of %d", i, n);
		cr_assert(eq(int, topology_is_upstream(&t, gpu), 0), "an endpoint is no switch");
		cr_assert(eq(int, topology_switch_of(&t, gpu), n == 0 ? -1 : n % 2 ? n : n - 1));
		topology_clear(&t);
	}
}

Test(topology, capability_wins_over_place)
{
	struct topology t = { 0 };

	/* A conventional PCI bridge below a root port is no switch. */
	add_chain(&t, 1);
	t.funcs[0].port = PORT_ROOT;
	t.funcs[1].port = PORT_PCI_BRIDGE;
	topology_finish(&t);
	cr_assert(eq(int, topology_switch_of(&t, 2), -1));
	topology_clear(&t);
}

Test(topology, path_is_root_first_and_cut_at_max)
{
	struct topology t = { 0 };
	int path[4] = { -7, -7, -7, -7 };

	add_chain(&t, 3);
	cr_assert(eq(sz, topology_path(&t, 4, path, 2), 4));
	cr_assert(eq(int, path[0], 0));
	cr_assert(eq(int, path[1], 1));
	cr_assert(eq(int, path[2], -7), "written past max");
	cr_assert(eq(sz, topology_path(&t, 4, path, 4), 4));
	cr_assert(eq(int, path[3], 3));
	cr_assert(eq(sz, topology_path(&t, 0, path, 4), 0));
	topology_clear(&t);
}

Test(topology, path_link_is_the_narrowest_known)
{
	struct topology t = { 0 };
	struct pci_link l;

	add_chain(&t, 2);
	cr_assert(zero(uint, topology_path_link(&t, 3).mts));
	t.funcs[0].link.max_mts = 16000;
	t.funcs[0].link.max_width = 16;
	t.funcs[2].link.max_mts = 32000;
	t.funcs[2].link.max_width = 8;
	t.funcs[3].link.max_mts = 32000;
	t.funcs[3].link.max_width = 16;
	t.funcs[3].link.cur_mts = 2500; /* idle: not a limit */
	l = topology_path_link(&t, 3);
	cr_assert(eq(uint, l.mts, 16000));
	cr_assert(eq(uint, l.width, 8));
	topology_clear(&t);
}

/* --- relations -------------------------------------------------------------------------------------- */

Test(topology, relation_without_a_switch)
{
	struct topology t = { 0 };

	add_node(&t, 0, 0);
	add_node(&t, 1, 1);
	add_func(&t, 0, -1, 0x060400)->sysfs_node = 0;
	add_func(&t, 1, 0, 0x030000);
	add_func(&t, 2, 0, 0x040300);
	add_func(&t, 3, -1, 0x020000)->sysfs_node = 0;
	add_func(&t, 4, -1, 0x010802)->sysfs_node = 1;
	snprintf(t.funcs[3].root_bus, sizeof(t.funcs[3].root_bus), "0000:15");
	snprintf(t.funcs[4].root_bus, sizeof(t.funcs[4].root_bus), "0000:97");
	topology_finish(&t);
	cr_assert(eq(int, topology_relation(&t, 1, 1), REL_SELF));
	cr_assert(eq(int, topology_relation(&t, 1, 2), REL_PHB), "one root port, no switch");
	cr_assert(eq(int, topology_relation(&t, 1, 3), REL_NODE));
	cr_assert(eq(int, topology_relation(&t, 1, 4), REL_SYS));
	cr_assert(eq(int, topology_relation(&t, 4, 1), REL_SYS), "the same both ways");
	topology_clear(&t);
}

Test(topology, unknown_nodes_are_near_only_on_one_socket)
{
	for (int sockets = 1; sockets <= 2; sockets++) {
		struct topology t = { 0 };

		add_node(&t, 0, 0);
		add_node(&t, 1, sockets - 1);
		add_func(&t, 0, -1, 0x030200);
		snprintf(add_func(&t, 1, -1, 0x030200)->root_bus, 8, "0000:97");
		topology_finish(&t);
		cr_assert(eq(int, t.n_sockets, sockets));
		cr_assert(eq(int, t.funcs[0].node_source, NODE_UNKNOWN));
		cr_assert(eq(int, topology_relation(&t, 0, 1), sockets == 1 ? REL_NODE : REL_SYS));
		topology_clear(&t);
	}
}

Test(topology, nodes_of_one_socket_are_node)
{
	struct topology t = { 0 };

	add_node(&t, 0, 0);
	add_node(&t, 1, 0);
	add_node(&t, 2, 1);
	for (int i = 0; i < 3; i++) {
		struct pci_func *f = add_func(&t, i, -1, 0x030200);

		f->sysfs_node = i;
		snprintf(f->root_bus, sizeof(f->root_bus), "0000:%02x", (unsigned int)i);
	}
	topology_finish(&t);
	cr_assert(eq(int, topology_relation(&t, 0, 1), REL_NODE));
	cr_assert(eq(int, topology_relation(&t, 0, 2), REL_SYS));
	topology_clear(&t);
}

/* --- nodes ------------------------------------------------------------------------------------------- */

Test(topology, node_is_asked_of_device_parent_cpus_in_this_order)
{
	struct topology t = { 0 };

	add_node(&t, 0, 0);
	add_node(&t, 2, 1);
	add_func(&t, 0, -1, 0x060400)->sysfs_node = 2;
	add_func(&t, 1, 0, 0x060400);
	add_func(&t, 2, 1, 0x030200); /* nothing of its own: from two bridges up */
	add_func(&t, 3, 1, 0x020000)->sysfs_node = 0;
	add_func(&t, 4, 1, 0x020000)->local_node = 0; /* the bridge comes first */
	add_func(&t, 5, -1, 0x060400)->local_node = 1;
	add_func(&t, 6, 5, 0x010802);
	add_func(&t, 7, -1, 0x010802)->sysfs_node = 1; /* there is no node 1 */
	topology_finish(&t);
	static const struct {
		int func, node;
		enum node_source source;
	} rows[] = { { 0, 1, NODE_FROM_DEVICE }, { 1, 1, NODE_FROM_PARENT }, { 2, 1, NODE_FROM_PARENT },
		     { 3, 0, NODE_FROM_DEVICE }, { 4, 1, NODE_FROM_PARENT }, { 5, 1, NODE_FROM_CPULIST },
		     { 6, 1, NODE_FROM_CPULIST }, { 7, -1, NODE_UNKNOWN } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct pci_func *f = &t.funcs[rows[i].func];

		cr_assert(eq(int, f->node, rows[i].node), "function %d", rows[i].func);
		cr_assert_str_eq(node_source_word(f->node_source), node_source_word(rows[i].source));
		cr_assert(eq(int, f->socket, rows[i].node < 0 ? -1 : rows[i].node));
	}
	topology_clear(&t);
}

Test(topology, single_node_takes_what_is_left)
{
	struct topology t = { 0 };

	add_node(&t, 0, 0);
	add_func(&t, 0, -1, 0x030200);
	topology_finish(&t);
	cr_assert(eq(int, t.funcs[0].node, 0));
	cr_assert(eq(int, t.funcs[0].node_source, NODE_ONLY_ONE));
	topology_clear(&t);
}

Test(topology, memory_without_cpus_belongs_to_the_nearest_socket)
{
	struct topology t = { 0 };
	static const int near_1[] = { 31, 21, 10 };

	add_node(&t, 0, 0);
	add_node(&t, 1, 1);
	PUSH_ZEROED(t.nodes, t.n_nodes)->id = 2;
	t.nodes[2].distances = xcalloc(3, sizeof(int));
	memcpy(t.nodes[2].distances, near_1, sizeof(near_1));
	topology_finish(&t);
	cr_assert(eq(int, t.nodes[2].socket, 1));
	cr_assert(eq(int, t.n_sockets, 2));
	topology_clear(&t);
}

/* --- numbering and look-ups ---------------------------------------------------------------------------- */

Test(topology, gpus_are_numbered_by_socket_then_node_then_address)
{
	struct topology t = { 0 };

	/* Socket 1 has the lower node number here: the socket decides first. */
	add_node(&t, 0, 1);
	add_node(&t, 1, 0);
	add_func(&t, 0, -1, 0x030200)->sysfs_node = 0;
	add_func(&t, 1, -1, 0x030200); /* no node: last */
	add_func(&t, 2, -1, 0x030200)->sysfs_node = 1;
	add_func(&t, 3, -1, 0x030200)->sysfs_node = 0;
	add_func(&t, 4, -1, 0x020000)->sysfs_node = 0;
	add_func(&t, 5, -1, 0x030200)->is_vf = true;
	topology_finish(&t);
	cr_assert(eq(int, topology_n_gpus(&t), 4));
	cr_assert(eq(int, topology_find_gpu(&t, 0), 2));
	cr_assert(eq(int, topology_find_gpu(&t, 1), 0));
	cr_assert(eq(int, topology_find_gpu(&t, 2), 3));
	cr_assert(eq(int, topology_find_gpu(&t, 3), 1));
	cr_assert(eq(int, topology_find_gpu(&t, 4), -1));
	cr_assert(eq(int, topology_find_gpu(&t, -1), -1), "-1 marks what is no GPU");
	cr_assert(eq(int, t.funcs[5].gpu_index, -1), "a VF must not renumber the machine");
	topology_clear(&t);
}

Test(topology, look_ups)
{
	struct topology t = { 0 };

	add_node(&t, 0, 0);
	add_node(&t, 2, 0);
	for (int i = 0; i < 5; i++)
		add_func(&t, i * 3, -1, 0x020000);
	topology_finish(&t);
	for (int i = 0; i < 15; i++)
		cr_assert(eq(int, topology_find_func(&t, &(struct pci_addr){ .bus = (uint8_t)i }), i % 3 ? -1 : i / 3));
	cr_assert(eq(int, topology_find_func(&t, &(struct pci_addr){ .domain = 1 }), -1));
	cr_assert(eq(int, topology_find_node(&t, 2), 1));
	cr_assert(eq(int, topology_find_node(&t, 1), -1));
	cr_assert(eq(ptr, (void *)(uintptr_t)topology_cpu(&t, 2), &t.cpus[1]), "numbers with a gap");
	cr_assert(eq(ptr, (void *)(uintptr_t)topology_cpu(&t, 1), NULL));
	cr_assert(eq(ptr, (void *)(uintptr_t)topology_cpu(&t, -1), NULL));
	topology_clear(&t);
}

Test(topology, group_without_iommu_is_the_function_alone)
{
	struct topology t = { 0 };
	int members[2];

	add_func(&t, 0, -1, 0x030000);
	add_func(&t, 1, -1, 0x040300);
	cr_assert(eq(sz, topology_group(&t, 1, members, 2), 1));
	cr_assert(eq(int, members[0], 1));
	t.funcs[0].iommu_group = t.funcs[1].iommu_group = 7;
	cr_assert(eq(sz, topology_group(&t, 1, members, 1), 2));
	cr_assert(eq(int, members[0], 0));
	topology_clear(&t);
}

/* --- sizes and names ------------------------------------------------------------------------------------- */

Test(topology, bar_bytes_rounds_each_memory_bar_up)
{
	struct pci_func f = { .bars = { { .bytes = 16 * MIB, .flags = 0x40200 },
					{ .bytes = 96 * GIB, .flags = 0x14220c },
					{ .bytes = 0, .flags = 0 },
					{ .bytes = 128, .flags = 0x40101 }, /* I/O */
					{ .bytes = 1, .flags = 0x40200 } } };

	cr_assert(eq(u64, pci_func_bar_bytes(&f), 16 * MIB + 128 * GIB + 1));
	f.bars[1].bytes = UINT64_MAX; /* must end */
	cr_assert(eq(u64, pci_func_bar_bytes(&f), 16 * MIB + (UINT64_C(1) << 63) + 1));
}

Test(topology, hugepage_pool_by_size)
{
	struct host_node n = { .pools = { { 2 * MIB, 10, 5 }, { GIB, 4, 4 } }, .n_pools = 2 };

	cr_assert(eq(u64, host_node_pool(&n, GIB)->free, 4));
	cr_assert(eq(ptr, (void *)(uintptr_t)host_node_pool(&n, 4096), NULL));
}

Test(topology, short_names)
{
	static const struct {
		const char *full, *brief;
		enum pci_role role;
	} rows[] = {
		{ "NVIDIA Corporation GH100 [H200 SXM 141GB]", "NVIDIA H200 SXM 141GB", ROLE_GPU },
		{ "Advanced Micro Devices, Inc. [AMD/ATI] Aqua Vanjaram [Instinct MI300X]", "AMD Instinct MI300X", ROLE_GPU },
		{ "Advanced Micro Devices, Inc. [AMD] FCH SATA Controller [AHCI mode]", "AMD FCH SATA Controller [AHCI mode]",
		  ROLE_OTHER },
		{ "Mellanox Technologies MT2910 Family [ConnectX-7]", "Mellanox ConnectX-7", ROLE_NIC },
		{ "NVIDIA Corporation [10de:ffff]", "NVIDIA 10de:ffff", ROLE_GPU },
		{ "10de:2335", "10de:2335", ROLE_GPU },
		{ "Somebody Thing []", "Somebody Thing []", ROLE_GPU },
		{ "", "", ROLE_OTHER },
	};
	char buf[96];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct pci_func f = { .role = rows[i].role };

		snprintf(f.name, sizeof(f.name), "%s", rows[i].full);
		cr_assert_str_eq(pci_func_short_name(&f, buf), rows[i].brief);
	}
}

Test(topology, words)
{
	cr_assert_str_eq(pci_relation_word(REL_SELF), "X");
	cr_assert_str_eq(pci_relation_word(REL_PXB), "PXB");
	cr_assert_str_eq(pci_relation_word(REL_SYS), "SYS");
	cr_assert_str_eq(pci_role_word(ROLE_NVSWITCH), "nvswitch");
	cr_assert_str_eq(pci_role_word(ROLE_OTHER), "other");
}
