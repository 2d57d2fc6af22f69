/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory per guest node: page size, amount, and whether the host node has it.
 *
 * The total being enough is not enough: with policy=bind QEMU dies when the *node* is short (kubevirt#6981), so each node's
 * own pool is counted, less what VMs that are just starting will take. */
#include <errno.h>
#include <inttypes.h>

#include "plan_priv.h"

#define MIB              (UINT64_C(1) << 20)
#define GIB              (UINT64_C(1) << 30)
#define PAGE_BYTES       UINT64_C(4096)
#define ALIGN_DOWN(x, a) ((x) / (a) * (a))

static const struct host_node *host_of(const struct planner *pl, const struct plan_node *n)
{
	int node = planner_host_node(pl, n);

	return node < 0 ? NULL : &pl->req->host->nodes[node];
}

/* Has every guest node's host node a pool of @page_bytes with pages in it? */
static bool all_have_pool(const struct planner *pl, uint64_t page_bytes)
{
	for (size_t i = 0; i < pl->plan->n_nodes; i++) {
		const struct host_node *h = host_of(pl, &pl->plan->nodes[i]);
		const struct hugepage_pool *pool = h ? host_node_pool(h, page_bytes) : NULL;

		if (!pool || !pool->total)
			return false;
	}
	return true;
}

static uint64_t choose_page_size(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	struct plan *p = pl->plan;

	if (vm->hugepage_bytes > 0)
		return (uint64_t)vm->hugepage_bytes;
	if (vm->hugepage_bytes == 0 || !p->n_devices)
		return PAGE_BYTES;
	for (uint64_t page = GIB; page >= 2 * MIB; page /= 512) {
		char size[32];

		if (!all_have_pool(pl, page))
			continue;
		plan_reason(p, "hugepages", "pages of %s: every node of the VM has a pool of them",
			    format_size(page, size));
		return page;
	}
	plan_warn(p, "no-hugepages",
		  "no pool of huge pages on the VM's nodes: normal pages cost TLB misses and a slow start");
	return PAGE_BYTES;
}

/* Bytes of the pool of @page that starting VMs have planned but QEMU has not allocated yet. */
static uint64_t promised(const struct planner *pl, int host_node, uint64_t page)
{
	const struct host_use *use = pl->req->use;
	uint64_t sum = 0;

	for (size_t i = 0; use && i < use->n_memory; i++)
		if (!use->memory[i].allocated && use->memory[i].host_node == host_node &&
		    use->memory[i].page_bytes == page)
			sum += use->memory[i].bytes;
	return sum;
}

/* What the node could give to VMs at all. */
static uint64_t node_capacity(const struct planner *pl, const struct host_node *h, uint64_t page)
{
	const struct hugepage_pool *pool = host_node_pool(h, page);
	int64_t keep = pl->req->vm->mem_reserve_bytes;
	uint64_t all = pool ? pool->total * page : page == PAGE_BYTES ? h->mem_bytes : 0;

	/* A pool of huge pages is set aside already: only normal memory needs a reserve by default. */
	if (keep < 0)
		keep = pool ? 0 : (int64_t)(h->mem_bytes / 8 > 8 * GIB ? 8 * GIB : h->mem_bytes / 8);
	return all > (uint64_t)keep ? all - (uint64_t)keep : 0;
}

static uint64_t auto_size(struct planner *pl, const struct plan_node *n, uint64_t page)
{
	const struct host_node *h = host_of(pl, n);
	int node = planner_host_node(pl, n), ours = planner_vm_gpus_on(pl, node), all = planner_host_gpus_on(pl, node);
	uint64_t unit = page > 2 * MIB ? page : 2 * MIB, bytes;

	if (!h)
		return 0;
	if (!pl->plan->n_devices) {
		bytes = node_capacity(pl, h, page) / 2;
		return ALIGN_DOWN(bytes < 2 * GIB ? bytes : 2 * GIB, unit);
	}
	bytes = node_capacity(pl, h, page);
	if (ours)
		bytes = bytes / (uint64_t)all * (uint64_t)ours;
	return ALIGN_DOWN(bytes, unit);
}

/* Even parts in whole pages; the first nodes take what is left over. */
static void split_size(struct planner *pl, uint64_t page)
{
	struct plan *p = pl->plan;
	uint64_t unit = page > 2 * MIB ? page : 2 * MIB, units = pl->req->vm->memory_bytes / unit;
	char size[32];

	if (pl->req->vm->memory_bytes % unit) {
		struct problem *pr = config_problem(pl->ps, pl->req->vm, "memory", "size", "memory-unaligned",
						    "[memory] size: must be a multiple of %s, the page size",
						    format_size(unit, size));

		problem_hint(pr, "nearest: %s", format_size((units + 1) * unit, size));
		return;
	}
	for (size_t i = 0; i < p->n_nodes; i++)
		p->nodes[i].memory_bytes = (units / p->n_nodes + (i < units % p->n_nodes)) * unit;
}

/* Free pages of the node's pool that no starting VM has been promised. */
static uint64_t pages_left(const struct planner *pl, const struct plan_node *n)
{
	const struct host_node *h = host_of(pl, n);
	const struct hugepage_pool *pool = h ? host_node_pool(h, n->page_bytes) : NULL;
	uint64_t owed = h ? promised(pl, h->id, n->page_bytes) / n->page_bytes : 0;

	return pool && pool->free > owed ? pool->free - owed : 0;
}

/* The largest [memory] size that every node can hold its part of: it is split evenly, so the smallest node decides. */
static uint64_t size_that_fits(const struct planner *pl)
{
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < pl->plan->n_nodes; i++) {
		const struct plan_node *n = &pl->plan->nodes[i];
		const struct host_node *h = host_of(pl, n);
		uint64_t bytes = n->page_bytes > PAGE_BYTES ? pages_left(pl, n) * n->page_bytes
				 : h                        ? ALIGN_DOWN(h->mem_bytes, 2 * MIB)
							    : 0;

		least = bytes < least ? bytes : least;
	}
	return least * pl->plan->n_nodes;
}

/* "size = 560M", as a definition would have it. */
static char *size_key(uint64_t bytes)
{
	if (bytes % GIB == 0)
		return xasprintf("size = %" PRIu64 "G", bytes / GIB);
	return xasprintf("size = %" PRIu64 "M", bytes / MIB);
}

static void check_pool(struct planner *pl, const struct plan_node *n)
{
	const struct host_node *h = host_of(pl, n);
	const struct hugepage_pool *pool = h ? host_node_pool(h, n->page_bytes) : NULL;
	uint64_t need = n->memory_bytes / n->page_bytes, have = pages_left(pl, n), fit = size_that_fits(pl);
	AUTO_FREE char *key = size_key(fit), * or = fit ? xasprintf("[memory] %s would fit; or ", key) : xstrdup("");
	char page[32];
	struct problem *p;

	if (!h || need <= have)
		return;
	format_size(n->page_bytes, page);
	p = config_problem(pl->ps, pl->req->vm, "memory", "size", "hugepages-short",
			   "guest node %d needs %" PRIu64 " pages of %s on host node %d, which has %" PRIu64
			   " free of %" PRIu64,
			   n->guest_node, need, page, h->id, have, pool ? pool->total : 0);
	p->kind = pool && need <= pool->total ? PROBLEM_BUSY : PROBLEM_HOST;
	/* Pages in use by whom we do not know are a lack of the host, not a VM in the way. */
	if (!pl->req->use || !pl->req->use->n_memory)
		p->kind = PROBLEM_HOST;
	problem_hint(p,
		     "%secho %" PRIu64 " > /sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64
		     "kB/nr_hugepages",
		     or, (pool ? pool->total : 0) + need - have, h->id, n->page_bytes / 1024);
}

static void check_plain(struct planner *pl, const struct plan_node *n)
{
	const struct host_node *h = host_of(pl, n);
	AUTO_FREE char *key = size_key(size_that_fits(pl));
	char need[32], have[32];
	struct problem *p;

	/* MemFree leaves out what the page cache would give back, so only what the node can never have is refused. */
	if (!h || n->memory_bytes <= h->mem_bytes)
		return;
	p = config_problem(pl->ps, pl->req->vm, "memory", "size", "memory-short",
			   "guest node %d needs %s, host node %d has %s of memory", n->guest_node,
			   format_size(n->memory_bytes, need), h->id, format_size(ALIGN_DOWN(h->mem_bytes, MIB), have));
	p->kind = PROBLEM_HOST;
	problem_hint(p, "[memory] %s would fit, if nothing else needs memory there", key);
}

/* Parts are whole pages: a small share, or a small size over many nodes, can come to none, and QEMU has no node of 0 bytes. */
static void refuse_nothing(struct planner *pl, const struct plan_node *n)
{
	char page[32];
	struct problem *p;

	p = config_problem(
		pl->ps, pl->req->vm, "memory", "size", "memory-short",
		"guest node %d gets no memory: its part of what host node %d can give is less than one page of %s",
		n->guest_node, n->host_node, format_size(n->page_bytes > PAGE_BYTES ? n->page_bytes : 2 * MIB, page));
	p->kind = PROBLEM_HOST;
	problem_hint(
		p,
		pl->req->vm->memory_bytes
			? "[memory] size must have at least a page for each of the %zu guest nodes"
			: "set [memory] size: at least a page for each of the %zu guest nodes; or use smaller pages",
		pl->plan->n_nodes);
}

/* Whose share of what. */
static void explain_node(struct planner *pl, const struct plan_node *n)
{
	int node = planner_host_node(pl, n), ours = planner_vm_gpus_on(pl, node), all = planner_host_gpus_on(pl, node);
	const struct host_node *h = host_of(pl, n);
	char size[32], can[32];

	format_size(n->memory_bytes, size);
	if (pl->req->vm->memory_bytes || !h)
		plan_reason(pl->plan, "memory", "guest node %d: %s, its even part of [memory] size", n->guest_node,
			    size);
	else if (!pl->plan->n_devices)
		plan_reason(pl->plan, "memory", "guest node %d: %s, small by default, as the VM has no devices",
			    n->guest_node, size);
	else if (ours)
		plan_reason(pl->plan, "memory",
			    "guest node %d: %s, the share of its %d of the %d GPU%s that the node is for, in the %s "
			    "that host node %d can give to VMs",
			    n->guest_node, size, ours, all, PLURAL(all),
			    format_size(ALIGN_DOWN(node_capacity(pl, h, n->page_bytes), MIB), can), h->id);
	else
		plan_reason(pl->plan, "memory",
			    "guest node %d: %s, all that host node %d can give to VMs: no GPU of the machine is on it",
			    n->guest_node, size, h->id);
}

int place_memory(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	struct plan *p = pl->plan;
	/* VFIO pins every page when a device is attached: prepared before, it is done by many threads and on the right node. */
	bool devices = p->n_devices && !pl->req->fake_devices;
	uint64_t page = choose_page_size(pl);
	size_t before = pl->ps->n;

	if (vm->memory_bytes)
		split_size(pl, page);
	for (size_t i = 0; i < p->n_nodes; i++) {
		struct plan_node *n = &p->nodes[i];

		n->page_bytes = page;
		n->prealloc = vm->prealloc == PREALLOC_ON || (vm->prealloc == PREALLOC_AUTO && (page > PAGE_BYTES || devices));
		if (!vm->memory_bytes)
			n->memory_bytes = auto_size(pl, n, page);
	}
	for (size_t i = 0; i < p->n_nodes; i++) {
		explain_node(pl, &p->nodes[i]);
		if (!p->nodes[i].memory_bytes && pl->ps->n == before)
			refuse_nothing(pl, &p->nodes[i]);
		else if (page > PAGE_BYTES)
			check_pool(pl, &p->nodes[i]);
		else
			check_plain(pl, &p->nodes[i]);
	}
	planner_fit_memory(pl);
	return 0;
}
