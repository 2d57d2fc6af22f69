/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Choosing the best set of N free GPUs.
 *
 * How it works: a machine is a tree (socket, node, host bridge, switch, stacked switch ...) with GPUs as leaves.  The
 * cost of a set adds up over the tree: pairs of chosen GPUs that only meet at a vertex cost that vertex's relation, and a
 * switch or node that is used but not used up costs what is left for the next VM.  So the best set of k GPUs below a vertex is
 * made of best sets below its children: a knapsack over the children, exact and cheap (no 2^n search).
 * Ties go to the lowest GPU indexes, so equal machines give equal plans. */
#include <errno.h>
#include <string.h>

#include "choose_gpus.h"

#define MAX_LEVELS 16

/* Compared from the first entry on. */
enum cost_part {
	COST_SYS,    /* pairs across sockets: P2P does not work */
	COST_SOCKET, /* pairs across nodes of one socket */
	COST_NODE,   /* pairs across host bridges */
	COST_PHB,    /* pairs below one host bridge */
	COST_PXB,    /* pairs below stacked switches */
	COST_CUT,    /* switches that this VM begins and leaves partly free: split between tenants */
	COST_LEFT,   /* free GPUs left on the nodes it uses: fill up what is begun */
	COST_PARTS
};

_Static_assert(COST_PARTS == CHOOSE_COSTS && COST_NODE == CHOOSE_NEAR, "choose_gpus.h");

struct choice {
	bool ok;
	unsigned int cost[COST_PARTS];
	uint64_t set; /* of positions in gpus[] */
};

struct chooser {
	const struct topology *host;
	int gpus[CHOOSE_MAX]; /* functions, in gpu_index order */
	bool free[CHOOSE_MAX];
	bool fixed; /* the set is given: in[] */
	bool in[CHOOSE_MAX];
	int keys[CHOOSE_MAX][MAX_LEVELS]; /* path from the root of the tree */
	int depth[CHOOSE_MAX];
};

/* Lower cost, or the set with the lower indexes. */
static bool better(const struct choice *a, const struct choice *b)
{
	uint64_t diff = a->set ^ b->set;

	if (!a->ok || !b->ok)
		return a->ok;
	for (int i = 0; i < COST_PARTS; i++)
		if (a->cost[i] != b->cost[i])
			return a->cost[i] < b->cost[i];
	return diff && (a->set & diff & -diff);
}

/* The path of a GPU: socket, node, host bridge, then each switch from the root down.  All below one host bridge is on its
 * node; host bridges of which no node is known are near to no other. */
static void make_keys(struct chooser *c, int i)
{
	const struct topology *t = c->host;
	const struct pci_func *f = &t->funcs[c->gpus[i]];
	int path[32], n = 0, unknown = -2 - f->host_bridge, node = f->bridge_node;
	size_t len = topology_path(t, c->gpus[i], path, ARRAY_SIZE(path));

	if (len > ARRAY_SIZE(path))
		len = ARRAY_SIZE(path);
	c->keys[i][n++] = t->n_sockets <= 1 ? 0 : node >= 0 ? t->nodes[node].socket : unknown;
	c->keys[i][n++] = node >= 0 ? node : unknown;
	c->keys[i][n++] = f->host_bridge;
	for (size_t k = 0; k < len && n < MAX_LEVELS; k++)
		if (topology_is_upstream(t, path[k]))
			c->keys[i][n++] = path[k];
	c->depth[i] = n;
}

static enum cost_part pair_cost(int level)
{
	static const enum cost_part parts[] = { COST_SYS, COST_SOCKET, COST_NODE, COST_PHB };

	return level < (int)ARRAY_SIZE(parts) ? parts[level] : COST_PXB;
}

static void add_cost(struct choice *to, const struct choice *from)
{
	for (int i = 0; i < COST_PARTS; i++)
		to->cost[i] += from->cost[i];
	to->set |= from->set;
}

/* Join the best choices of two sibling subtrees; pairs across cost @part (COST_PARTS: nothing). */
static void join(struct choice *acc, int *n, const struct choice *child, int child_n, int part)
{
	struct choice out[CHOOSE_MAX + 1] = { 0 };

	for (int a = 0; a <= *n; a++) {
		for (int b = 0; b <= child_n; b++) {
			struct choice c = acc[a];

			if (!acc[a].ok || !child[b].ok)
				continue;
			add_cost(&c, &child[b]);
			if (part < COST_PARTS)
				c.cost[part] += (unsigned int)(a * b);
			if (better(&c, &out[a + b]))
				out[a + b] = c;
		}
	}
	*n += child_n;
	memcpy(acc, out, sizeof(*out) * (size_t)(*n + 1));
}

static void leaf(const struct chooser *c, int i, struct choice ret[2])
{
	ret[0] = (struct choice){ .ok = !c->fixed || !c->in[i] };
	ret[1] = (struct choice){ .ok = c->free[i] && (!c->fixed || c->in[i]), .set = UINT64_C(1) << i };
}

/* What a vertex that is used, but not used up, leaves behind. */
static void add_leftovers(struct choice *v, int n, int n_free, int level)
{
	for (int k = 1; k <= n; k++) {
		if (!v[k].ok || k == n_free)
			continue;
		if (level == 2)
			v[k].cost[COST_LEFT] += (unsigned int)(n_free - k);
		/* Only a switch that is whole before can be begun. */
		if (level > 3 && n_free == n)
			v[k].cost[COST_CUT]++;
	}
}

/* Best choices of 0..n GPUs among the n positions @v, which share the first @level keys. */
static void solve(const struct chooser *c, const int *v, int n, int level, struct choice *ret)
{
	struct choice leaves[CHOOSE_MAX + 1] = { { .ok = true } }, subs[CHOOSE_MAX + 1] = { { .ok = true } };
	bool done[CHOOSE_MAX] = { false };
	int n_leaves = 0, n_subs = 0, n_free = 0;

	for (int i = 0; i < n; i++) {
		struct choice child[CHOOSE_MAX + 1];
		int same[CHOOSE_MAX], n_same = 0;

		n_free += c->free[v[i]];
		if (done[i])
			continue;
		if (c->depth[v[i]] <= level) {
			leaf(c, v[i], child);
			/* Two GPUs right below one switch are as close as can be; below none they meet in the host bridge. */
			join(leaves, &n_leaves, child, 1, level > 3 ? COST_PARTS : COST_PHB);
			continue;
		}
		for (int k = i; k < n; k++) {
			if (c->depth[v[k]] > level && c->keys[v[k]][level] == c->keys[v[i]][level]) {
				same[n_same++] = v[k];
				done[k] = true;
			}
		}
		solve(c, same, n_same, level + 1, child);
		join(subs, &n_subs, child, n_same, (int)pair_cost(level));
	}
	join(leaves, &n_leaves, subs, n_subs, (int)pair_cost(level));
	add_leftovers(leaves, n, n_free, level);
	memcpy(ret, leaves, sizeof(*ret) * (size_t)(n + 1));
}

static int fill_chooser(struct chooser *c, const bool *is_free, const bool *is_in, int *ret_all)
{
	int n = 0;

	for (int g = 0; g < topology_n_gpus(c->host) && n < CHOOSE_MAX; g++) {
		c->gpus[n] = topology_find_gpu(c->host, g);
		c->free[n] = is_free[g];
		c->in[n] = is_in && is_in[g];
		make_keys(c, n);
		ret_all[n] = n;
		n++;
	}
	c->fixed = is_in != NULL;
	return n;
}

int choose_gpus(const struct topology *host, const bool *is_free, int want, int *ret)
{
	struct chooser c = { .host = host };
	struct choice best[CHOOSE_MAX + 1] = { 0 };
	int all[CHOOSE_MAX], n = fill_chooser(&c, is_free, NULL, all), k = 0;

	if (want > n)
		return -ENOSPC;
	solve(&c, all, n, 0, best);
	if (!best[want].ok)
		return -ENOSPC;
	for (int i = 0; i < n; i++)
		if (best[want].set >> i & 1)
			ret[k++] = c.gpus[i];
	return 0;
}

bool choose_gpus_cost(const struct topology *host, const bool *is_free, const bool *is_in, unsigned int ret[CHOOSE_COSTS])
{
	struct chooser c = { .host = host };
	struct choice best[CHOOSE_MAX + 1] = { 0 };
	int all[CHOOSE_MAX], n = fill_chooser(&c, is_free, is_in, all), want = 0;

	for (int i = 0; i < n; i++)
		want += c.in[i];
	solve(&c, all, n, 0, best);
	if (!best[want].ok)
		return false;
	memcpy(ret, best[want].cost, sizeof(best[want].cost));
	return true;
}
