/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stand_in.c - another machine's VM with stand-ins, made to run on this one (--fake-devices with --sysroot or --topology).
 *
 * The tree, the nodes, and with KVM the vCPUs stay as they are for the other machine.  Its memory is not here: what a guest does not touch
 * costs nothing, but a kernel writes 1/64 of its memory just to keep count of it (struct page), 32 GiB for 2 TiB. */
#include <inttypes.h>
#include <string.h>

#include "plan_priv.h"

#define MIB   (UINT64_C(1) << 20)
#define GRAIN (2 * MIB) /* a node's memory is a multiple of it */

const struct topology *planner_machine(const struct planner *pl)
{
	return pl->req->here ? pl->req->here : pl->req->host;
}

int planner_vcpus_per_node(const struct planner *pl)
{
	const struct topology *here = pl->req->here;
	int each;

	if (!here || !pl->plan->foreign_host || strcmp(pl->plan->accel, "tcg") != 0)
		return 0;
	/* Whole pairs, so that cores keep their threads. */
	each = 2 * cpuset_count(&here->allowed) / (int)pl->plan->n_nodes / 2 * 2;
	return each > 2 ? each : 2;
}

static uint64_t machine_memory(const struct topology *t)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < t->n_nodes; i++)
		sum += t->nodes[i].mem_bytes;
	return sum;
}

/* Half of the machine's memory, and a quarter of the guest's address space, which the window shares. */
static uint64_t most_memory(const struct planner *pl)
{
	const char *whose;
	int bits = planner_address_bits(pl, &whose);
	uint64_t half = machine_memory(planner_machine(pl)) / 2,
		 quarter = bits > 2 && bits < 64 ? UINT64_C(1) << (bits - 2) : UINT64_MAX;

	return half < quarter ? half : quarter;
}

static void scale_nodes(struct planner *pl, uint64_t most)
{
	struct plan *p = pl->plan;
	uint64_t all = plan_memory_bytes(p), scale = 1;
	char before[32], after[32], here[32];

	while (all / scale > most)
		scale *= 2;
	if (scale == 1)
		return;
	for (size_t i = 0; i < p->n_nodes; i++) {
		uint64_t bytes = p->nodes[i].memory_bytes / scale / GRAIN * GRAIN;

		p->nodes[i].memory_bytes = bytes ? bytes : GRAIN;
	}
	plan_warn(p, "memory-scaled",
		  "the guest has 1/%" PRIu64 " of the memory, %s in place of %s: this machine has %s", scale,
		  format_size(plan_memory_bytes(p), after), format_size(all, before),
		  format_size(machine_memory(planner_machine(pl)) / MIB * MIB, here));
}

void planner_fit_memory(struct planner *pl)
{
	struct plan *p = pl->plan;

	if (!pl->req->here || !p->foreign_host)
		return;
	/* Huge pages are the other machine's, too. */
	for (size_t i = 0; i < p->n_nodes; i++) {
		p->nodes[i].page_bytes = 4096;
		p->nodes[i].prealloc = false;
	}
	if (machine_memory(pl->req->here))
		scale_nodes(pl, most_memory(pl));
}
