/* SPDX-License-Identifier: GPL-2.0-or-later */
/* genhost.h - random machines and definitions, made in memory from a seed: the same seed gives the same machine.
 *
 * Valid, but not usual: sockets with several nodes, nodes without memory or CPUs, gaps in numbers, stacked switches,
 * GPUs anywhere, functions that the host uses or that nobody knows the node of, IOMMU groups that cannot be passed. */
#ifndef TESTS_FAKE_GENHOST_H
#define TESTS_FAKE_GENHOST_H

#include "gpuvm/plan.h"

/* A small generator of our own (splitmix64): rand() differs between C libraries. */
struct rng {
	uint64_t state;
};
uint64_t rng_next(struct rng *r);
int rng_below(struct rng *r, int n);             /* 0 .. n-1; 0 for n <= 0 */
int rng_range(struct rng *r, int low, int high); /* both included */
bool rng_percent(struct rng *r, int percent);

/* What shall be as stated; 0: anything. `functions` and `cpus` are reached exactly (cpus: if the nodes divide them). */
struct genhost_shape {
	int sockets, nodes_per_socket;
	int cpus;
	int gpus;
	int functions;
	bool plain; /* nothing is missing, in use, offline or forbidden: every plan that fits is possible */
};

/* A machine, finished. @shape may be NULL. Free with topology_clear(). */
void genhost_make(uint64_t seed, const struct genhost_shape *shape, struct topology *ret);

/* A definition for that machine as the text of an INI file, correct as such; often not satisfiable. @modest: a small
 * ordinary one. Owned. */
char *genhost_definition(struct rng *r, const struct topology *t, const char *name, bool modest);

/* The QEMU that these plans are for; borrowed (fakeqemu.h). */
struct qemu_info genhost_qemu(struct rng *r);

/* Plan up to @n VMs one after the other; those that fit run: @use has what they hold, and the free pages of @t what is
 * left. */
void genhost_run_vms(struct rng *r, struct topology *t, int n, struct host_use *use);

/* One line about the machine, for messages; owned. */
char *genhost_describe(const struct topology *t);

#endif
