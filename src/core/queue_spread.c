/* SPDX-License-Identifier: GPL-2.0-or-later */
/* queue_spread.c - which guest node Linux lets use which queue of a disk.
 *
 * How it works: a virtio disk's interrupts are spread over the CPUs by the kernel (irq_create_affinity_masks() in kernel/irq/affinity.c up
 * to 6.1, group_cpus_evenly() in lib/group_cpus.c since), and a CPU uses the queue whose interrupt it has.  Not by number: nodes are
 * sorted by their CPUs, fewest first, with a heap sort that turns equal ones around: with two equal nodes queue 0 is the second
 * node's.  Measured with Linux 6.1 in tests/unit/test_disk.c; the guest cannot change it, so QEMU's side has to follow.
 *
 * The kernel's sort was rewritten in 6.11: three and more equal nodes come out in another order there.  Such a guest works as well, with
 * some queues served by another node's thread. */

#include "argv_priv.h"

struct entry {
	int node;
	int cpus; /* -1: none; the kernel has UINT_MAX there, and compares by a difference that is an int */
};

static void swap(struct entry *a, struct entry *b)
{
	struct entry t = *a;

	*a = *b;
	*b = t;
}

/* Put v[top] where it belongs in the heap below it: first down to a leaf, always to the larger child (the left one of equals), then
 * back up past all that is not larger.  The order of equal entries depends on this way of doing it. */
static void sift_down(struct entry *v, size_t top, size_t n)
{
	size_t at = top, child;

	for (child = 2 * at + 1; child + 1 < n; child = 2 * at + 1)
		at = v[child].cpus >= v[child + 1].cpus ? child : child + 1;
	if (child + 1 == n)
		at = child;
	while (at != top && v[top].cpus >= v[at].cpus)
		at = (at - 1) / 2;
	for (size_t to = at; at != top;) {
		at = (at - 1) / 2;
		swap(&v[at], &v[to]);
	}
}

static void heap_sort(struct entry *v, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sift_down(v, i, n);
	while (n > 1) {
		swap(&v[0], &v[--n]);
		sift_down(v, 0, n);
	}
}

/* Queues in the order of sorted nodes, to each its share of what is left. */
static int share_out(const struct entry *v, size_t n, int cpus, int queues, int *ret)
{
	int next = 0;

	for (size_t i = 0; i < n && next < queues; i++) {
		int mine;

		if (v[i].cpus < 0)
			continue;
		mine = (int)((int64_t)(queues - next) * v[i].cpus / cpus);
		mine = mine ? mine : 1;
		cpus -= v[i].cpus;
		while (mine-- > 0)
			ret[next++] = v[i].node;
	}
	return next;
}

void spread_queues(const int *cpus, size_t n_nodes, int queues, int *ret)
{
	AUTO_FREE struct entry *v = xcalloc(n_nodes, sizeof(*v));
	AUTO_FREE int *with = xcalloc(n_nodes, sizeof(*with)); /* nodes that have CPUs */
	int all = 0, n_with = 0, done = 0;

	for (size_t i = 0; i < n_nodes; i++) {
		v[i] = (struct entry){ .node = (int)i, .cpus = cpus[i] ? cpus[i] : -1 };
		all += cpus[i];
		if (cpus[i])
			with[n_with++] = (int)i;
	}
	/* With no more queues than nodes each has whole nodes, by number. */
	if (queues > n_with) {
		heap_sort(v, n_nodes);
		done = share_out(v, n_nodes, all, queues < all ? queues : all, ret);
	}
	/* Also those past the number of CPUs, which Linux does not use. */
	for (int i = done; i < queues && n_with; i++)
		ret[i] = with[i % n_with];
}
