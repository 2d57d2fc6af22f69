/* SPDX-License-Identifier: GPL-2.0-or-later */
/* choose_gpus() against every set there is. */
#include <errno.h>
#include <string.h>

#include "property.h"
#include "src/core/choose_gpus.h"

#define MAX_GPUS 12

/* In the order of choose_gpus.h. */
enum { SYS, SOCKET, NODE, PHB, PXB, CUT, LEFT, PARTS };

struct cost {
	int part[PARTS];
};

/* A machine's GPUs, as the cost of a set needs them. */
struct board {
	int n, funcs[MAX_GPUS];
	bool is_free[MAX_GPUS];
	int pair[MAX_GPUS][MAX_GPUS]; /* part, or -1: as near as can be */
	uint32_t below[MAX_GPUS * 8]; /* GPUs below each switch */
	int n_switches;
	uint32_t node[MAX_GPUS]; /* GPUs on the node of each GPU */
};

/* The node of the host bridge above: what any function below it says, -1 if none does. */
static int node_of(const struct topology *t, int func)
{
	for (size_t i = 0; i < t->n_funcs; i++)
		if (t->funcs[i].node >= 0 && !strcmp(t->funcs[i].root_bus, t->funcs[func].root_bus))
			return t->funcs[i].node;
	return -1;
}

/* Unknown nodes are not the same node, unless it is the same host bridge. */
static bool same_node(const struct topology *t, int a, int b)
{
	return !strcmp(t->funcs[a].root_bus, t->funcs[b].root_bus) ||
	       (node_of(t, a) >= 0 && node_of(t, a) == node_of(t, b));
}

static int pair_part(const struct topology *t, int a, int b)
{
	switch (topology_relation(t, a, b)) {
	case REL_SELF:
	case REL_PIX:
		return -1;
	case REL_PXB:
		return PXB;
	case REL_PHB:
		return PHB;
	case REL_NODE:
		return same_node(t, a, b) ? NODE : SOCKET;
	case REL_SYS:
		break;
	}
	return SYS;
}

static void add_switches(struct board *b, const struct topology *t, int gpu, int *seen)
{
	int path[32];
	size_t n = topology_path(t, b->funcs[gpu], path, ARRAY_SIZE(path));

	for (size_t k = 0; k < n && k < ARRAY_SIZE(path); k++) {
		int s = 0;

		if (!topology_is_upstream(t, path[k]))
			continue;
		while (s < b->n_switches && seen[s] != path[k])
			s++;
		if (s == b->n_switches)
			seen[b->n_switches++] = path[k];
		b->below[s] |= 1u << gpu;
	}
}

static void board_init(struct board *b, const struct topology *t, int n)
{
	int seen[MAX_GPUS * 8];

	*b = (struct board){ .n = n };
	for (int i = 0; i < n; i++)
		b->funcs[i] = topology_find_gpu(t, i);
	for (int i = 0; i < n; i++) {
		add_switches(b, t, i, seen);
		for (int k = 0; k < n; k++) {
			b->pair[i][k] = pair_part(t, b->funcs[i], b->funcs[k]);
			if (same_node(t, b->funcs[i], b->funcs[k]))
				b->node[i] |= 1u << k;
		}
	}
}

static struct cost cost_of(const struct board *b, uint32_t set, uint32_t free)
{
	struct cost c = { 0 };
	uint32_t nodes_done = 0;

	for (int i = 0; i < b->n; i++) {
		if (!(set >> i & 1))
			continue;
		for (int k = i + 1; k < b->n; k++)
			if ((set >> k & 1) && b->pair[i][k] >= 0)
				c.part[b->pair[i][k]]++;
		if (!(nodes_done & b->node[i]))
			c.part[LEFT] += __builtin_popcount(free & ~set & b->node[i]);
		nodes_done |= b->node[i];
	}
	/* A switch that was whole, and is begun but not used up. */
	for (int s = 0; s < b->n_switches; s++)
		c.part[CUT] += !(b->below[s] & ~free) && (b->below[s] & set) && (b->below[s] & ~set);
	return c;
}

static int cost_cmp(const struct cost *a, const struct cost *b)
{
	for (int i = 0; i < PARTS; i++)
		if (a->part[i] != b->part[i])
			return a->part[i] < b->part[i] ? -1 : 1;
	return 0;
}

/* Of two sets, does @a have the lowest GPU in which they differ? */
static bool lower(uint32_t a, uint32_t b)
{
	uint32_t diff = a ^ b;

	return a & diff & -diff;
}

static uint32_t best_set(const struct board *b, uint32_t free, int want)
{
	struct cost best_cost = { 0 };
	uint32_t best = 0;

	for (uint32_t set = 1; set < 1u << b->n; set++) {
		struct cost c;
		int order;

		if (set & ~free || __builtin_popcount(set) != want)
			continue;
		c = cost_of(b, set, free);
		order = best ? cost_cmp(&c, &best_cost) : -1;
		if (order < 0 || (order == 0 && lower(set, best))) {
			best = set;
			best_cost = c;
		}
	}
	return best;
}

static void check_one(const struct trial *t, const struct board *b, uint32_t free, int want)
{
	int chosen[CHOOSE_MAX], r;
	bool is_free[CHOOSE_MAX];
	uint32_t set = 0, best;

	for (int i = 0; i < b->n; i++)
		is_free[i] = free >> i & 1;
	r = choose_gpus(&t->host, is_free, want, chosen);
	CHECK(t, (r == 0) == (want <= __builtin_popcount(free)), "%d of the free GPUs 0x%x: %d", want, free, r);
	if (r < 0)
		return;
	for (int i = 0; i < want; i++) {
		int g = t->host.funcs[chosen[i]].gpu_index;

		CHECK(t, g >= 0 && (free >> g & 1) && !(set >> g & 1), "GPU %d is not free, or chosen twice", g);
		set |= 1u << g;
	}
	best = best_set(b, free, want);
	if (set != best) {
		struct cost c = cost_of(b, set, free), d = cost_of(b, best, free);

		CHECK(t, false,
		      "%d of the free GPUs 0x%x: chosen 0x%x (sys %d socket %d node %d phb %d pxb %d cut %d left %d), "
		      "best is 0x%x (%d %d %d %d %d %d %d)",
		      want, free, set, c.part[0], c.part[1], c.part[2], c.part[3], c.part[4], c.part[5], c.part[6],
		      best, d.part[0], d.part[1], d.part[2], d.part[3], d.part[4], d.part[5], d.part[6]);
	}
}

void property_check_choice(struct trial *t)
{
	int n = topology_n_gpus(&t->host);
	struct board b;

	if (n < 1 || n > MAX_GPUS)
		return;
	board_init(&b, &t->host, n);
	for (int round = 0; round < 3; round++) {
		uint32_t all = (1u << n) - 1, free = round ? all & (uint32_t)rng_next(&t->rng) : all;

		check_one(t, &b, free, rng_range(&t->rng, 1, n));
	}
}
