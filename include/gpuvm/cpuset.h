/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cpuset.h - a set of CPU (or NUMA node) numbers, as a plain value.
 *
 * Our own and not hwloc's bitmap or libnuma's bitmask: src/core plans machines other than this one, and
 * both parsers accept what they should not ("5-2", "0-3x"). */
#ifndef GPUVM_CPUSET_H
#define GPUVM_CPUSET_H

#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/cleanup.h"

#define CPUSET_MAX 8192 /* CONFIG_NR_CPUS limit of the kernel (x86 MAXSMP) */

struct cpuset {
	uint64_t w[CPUSET_MAX / 64];
};

/* Iterate over the members in ascending order. */
#define cpuset_for_each(cpu, set) \
	for (int cpu = cpuset_next((set), -1); cpu >= 0; cpu = cpuset_next((set), cpu))

void cpuset_add(struct cpuset *s, int cpu);
void cpuset_del(struct cpuset *s, int cpu);
bool cpuset_has(const struct cpuset *s, int cpu);
bool cpuset_empty(const struct cpuset *s);
int cpuset_count(const struct cpuset *s);
int cpuset_next(const struct cpuset *s, int after); /* -1 if none */
void cpuset_or(struct cpuset *s, const struct cpuset *o);
void cpuset_and(struct cpuset *s, const struct cpuset *o);
void cpuset_andnot(struct cpuset *s, const struct cpuset *o);
bool cpuset_equal(const struct cpuset *a, const struct cpuset *b);
bool cpuset_intersects(const struct cpuset *a, const struct cpuset *b);
bool cpuset_subset(const struct cpuset *a, const struct cpuset *b); /* a is inside b */

/* The kernel's list format: "0-3,8,10-11". Strict; "" gives the empty set. 0 or -EINVAL/-ERANGE. */
int cpuset_parse(const char *s, struct cpuset *ret);

/* As cpuset_parse(), but the order of the list is kept and duplicates are -EINVAL: @ret_cpus is owned. */
int cpulist_parse_ordered(const char *s, int **ret_cpus, size_t *ret_n);

/* Owned string in list format; "" for the empty set. */
char *cpuset_format(const struct cpuset *s);

#endif
