/* SPDX-License-Identifier: GPL-2.0-or-later */
/* choose_gpus() on machines built by hand. The comparison with every possible set is in the property test. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <time.h>

#include "src/core/choose_gpus.h"

/* --- a machine by hand ------------------------------------------------------------------------------ */

static struct pci_func *add_func(struct topology *t, int root, int parent, int node, uint32_t class_code)
{
	struct pci_func *f = PUSH_ZEROED(t->funcs, t->n_funcs);

	f->addr.domain = (uint32_t)root;
	f->addr.bus = (uint8_t)(t->n_funcs - 1);
	f->parent = parent;
	f->class_code = class_code;
	f->sysfs_node = node;
	f->local_node = f->iommu_group = -1;
	f->vendor = 0x10de;
	snprintf(f->root_bus, sizeof(f->root_bus), "%04x:00", (unsigned int)root);
	return f;
}

static int add_port(struct topology *t, int root, int parent, int node, enum pcie_port_type port)
{
	add_func(t, root, parent, node, 0x060400)->port = port;
	return (int)t->n_funcs - 1;
}

/* A switch: root port (below @parent < 0), upstream port. Returns the upstream port. */
static int add_switch(struct topology *t, int root, int parent, int node)
{
	int above = add_port(t, root, parent, node, parent < 0 ? PORT_ROOT : PORT_DOWNSTREAM);

	return add_port(t, root, above, node, PORT_UPSTREAM);
}

/* GPUs directly below a bridge (-1: on the root bus). */
static void add_gpus(struct topology *t, int root, int parent, int node, int n)
{
	for (int i = 0; i < n; i++) {
		int port = parent < 0 ? -1 : add_port(t, root, parent, node, PORT_DOWNSTREAM);

		add_func(t, root, port, node, 0x030200)->port = PORT_ENDPOINT;
	}
}

/* Sockets with one node each, or two nodes of one socket (@snc). */
static void add_nodes(struct topology *t, int n, bool snc)
{
	for (int i = 0; i < n; i++) {
		struct host_node *h = PUSH_ZEROED(t->nodes, t->n_nodes);
		struct host_cpu *c = PUSH_ZEROED(t->cpus, t->n_cpus);

		h->id = i;
		h->socket = snc ? i / 2 : i;
		*c = (struct host_cpu){ .cpu = i, .node = i, .socket = h->socket, .core = i };
		cpuset_add(&h->cpus, i);
	}
}

/* Choose @want of the GPUs that are free in @free ("11010..." by index), and compare with @expect, written alike. */
static void check(const struct topology *t, const char *free, int want, const char *expect)
{
	bool is_free[CHOOSE_MAX] = { false };
	char got[CHOOSE_MAX + 1] = { 0 };
	int chosen[CHOOSE_MAX];

	for (int i = 0; free[i]; i++) {
		is_free[i] = free[i] == '1';
		got[i] = '0';
	}
	cr_assert(choose_gpus(t, is_free, want, chosen) == 0);
	for (int i = 0; i < want; i++) {
		got[t->funcs[chosen[i]].gpu_index] = '1';
		cr_assert(i == 0 || t->funcs[chosen[i]].gpu_index > t->funcs[chosen[i - 1]].gpu_index, "not in order");
	}
	cr_assert_str_eq(got, expect, "%d of %s", want, free);
}

/* --- cases ------------------------------------------------------------------------------------------ */

/* Four switches of two, on two sockets. */
static void eight_on_four_switches(struct topology *t)
{
	add_nodes(t, 2, false);
	for (int i = 0; i < 4; i++)
		add_gpus(t, i, add_switch(t, i, -1, i / 2), i / 2, 2);
	topology_finish(t);
}

Test(choose, ties_go_to_the_lowest_index)
{
	struct topology t = { 0 };

	eight_on_four_switches(&t);
	check(&t, "11111111", 1, "10000000");
	check(&t, "11111111", 2, "11000000");
	check(&t, "11111111", 4, "11110000");
	check(&t, "11111111", 8, "11111111");
	topology_clear(&t);
}

Test(choose, a_switch_that_is_split_already_is_filled_first)
{
	struct topology t = { 0 };

	eight_on_four_switches(&t);
	check(&t, "11011111", 1, "00010000");
	check(&t, "11111110", 1, "00000010");
	/* The half switch on the same socket goes along with a whole one. */
	check(&t, "11011111", 3, "11010000");
	topology_clear(&t);
}

Test(choose, a_pair_on_one_switch_before_two_halves)
{
	struct topology t = { 0 };

	eight_on_four_switches(&t);
	check(&t, "10100011", 2, "00000011");
	topology_clear(&t);
}

Test(choose, best_fit_of_nodes)
{
	struct topology t = { 0 };

	eight_on_four_switches(&t);
	/* Two are left on socket 1: taking them keeps socket 0 whole. */
	check(&t, "11111100", 2, "00001100");
	check(&t, "11001111", 2, "11000000");
	/* Four fit on socket 1 only. */
	check(&t, "11101111", 4, "00001111");
	topology_clear(&t);
}

Test(choose, three_and_three_free_and_four_wanted)
{
	struct topology t = { 0 };

	eight_on_four_switches(&t);
	/* It has to be both sockets: 3 + 1 has fewer pairs across than 2 + 2, and the half switch is used for the one. */
	check(&t, "11101110", 4, "11100010");
	topology_clear(&t);
}

Test(choose, nodes_of_one_socket_before_another_socket)
{
	struct topology t = { 0 };

	add_nodes(&t, 4, true);
	for (int i = 0; i < 4; i++)
		add_gpus(&t, i, -1, i, 2);
	topology_finish(&t);
	check(&t, "10011111", 4, "00001111");
	check(&t, "10101011", 3, "00001011");
	/* Two nodes of socket 0, or one node of socket 1. */
	check(&t, "10100011", 2, "00000011");
	topology_clear(&t);
}

Test(choose, stacked_switches)
{
	struct topology t = { 0 };
	int top;

	add_nodes(&t, 1, false);
	/* One switch with two switches of two below, then one flat switch of three on another host bridge. */
	top = add_switch(&t, 0, -1, 0);
	add_gpus(&t, 0, add_switch(&t, 0, top, 0), 0, 2);
	add_gpus(&t, 0, add_switch(&t, 0, top, 0), 0, 2);
	add_gpus(&t, 1, add_switch(&t, 1, -1, 0), 0, 3);
	topology_finish(&t);
	check(&t, "1111111", 2, "1100000");
	/* Three below one switch: none of the pairs is stacked. */
	check(&t, "1111111", 3, "0000111");
	check(&t, "1111111", 4, "1111000");
	topology_clear(&t);
}

Test(choose, uneven_sockets)
{
	struct topology t = { 0 };

	add_nodes(&t, 2, false);
	add_gpus(&t, 0, -1, 0, 3);
	add_gpus(&t, 1, -1, 1, 5);
	topology_finish(&t);
	check(&t, "11111111", 3, "11100000");
	check(&t, "11111111", 2, "11000000");
	check(&t, "11111111", 4, "00011110");
	check(&t, "11111111", 6, "10011111");
	topology_clear(&t);
}

Test(choose, unknown_nodes_are_near_to_nothing)
{
	struct topology t = { 0 };

	add_nodes(&t, 2, false);
	add_gpus(&t, 0, -1, 0, 1);
	add_gpus(&t, 1, -1, 0, 1);
	add_gpus(&t, 2, -1, -1, 1);
	add_gpus(&t, 3, -1, -1, 2);
	topology_finish(&t);
	check(&t, "11111", 2, "00011"); /* one host bridge, wherever it is */
	check(&t, "11101", 2, "11000");
	check(&t, "10101", 2, "10100"); /* all alike: the lowest */
	topology_clear(&t);
}

Test(choose, too_many)
{
	struct topology t = { 0 };
	bool is_free[8] = { true, false, true };
	int chosen[16];

	eight_on_four_switches(&t);
	cr_assert(choose_gpus(&t, is_free, 3, chosen) == -ENOSPC);
	cr_assert(choose_gpus(&t, is_free, 9, chosen) == -ENOSPC);
	cr_assert(choose_gpus(&t, is_free, 2, chosen) == 0);
	topology_clear(&t);
}

/* 2^64 sets are not tried. */
Test(choose, sixty_four_gpus_are_quick, .timeout = 20)
{
	struct topology t = { 0 };
	bool is_free[CHOOSE_MAX];
	int chosen[CHOOSE_MAX];
	clock_t start;

	add_nodes(&t, 4, false);
	for (int i = 0; i < 16; i++) {
		int top = add_switch(&t, i, -1, i / 4);

		add_gpus(&t, i, add_switch(&t, i, top, i / 4), i / 4, 2);
		add_gpus(&t, i, add_switch(&t, i, top, i / 4), i / 4, 2);
	}
	topology_finish(&t);
	cr_assert(topology_n_gpus(&t) == CHOOSE_MAX);
	for (int i = 0; i < CHOOSE_MAX; i++)
		is_free[i] = i % 7 != 3;
	start = clock();
	for (int want = 1; want <= 54; want++)
		cr_assert(choose_gpus(&t, is_free, want, chosen) == 0);
	/* A few hundred microseconds each; the limit is for slow machines and sanitizers. */
	cr_assert(clock() - start < 54 * CLOCKS_PER_SEC / 10);
	topology_clear(&t);
}
