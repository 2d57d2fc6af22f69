/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "gpuvm/cpuset.h"

#define WORDS (CPUSET_MAX / 64)

void cpuset_add(struct cpuset *s, int cpu)
{
	if (cpu >= 0 && cpu < CPUSET_MAX)
		s->w[cpu / 64] |= UINT64_C(1) << (cpu % 64);
}

void cpuset_del(struct cpuset *s, int cpu)
{
	if (cpu >= 0 && cpu < CPUSET_MAX)
		s->w[cpu / 64] &= ~(UINT64_C(1) << (cpu % 64));
}

bool cpuset_has(const struct cpuset *s, int cpu)
{
	return cpu >= 0 && cpu < CPUSET_MAX && (s->w[cpu / 64] >> (cpu % 64) & 1);
}

bool cpuset_empty(const struct cpuset *s)
{
	return cpuset_next(s, -1) < 0;
}

int cpuset_count(const struct cpuset *s)
{
	int n = 0;

	/* Mostly empty: most sets are the CPUs of a core or a node. */
	for (int i = 0; i < WORDS; i++)
		if (s->w[i])
			n += __builtin_popcountll(s->w[i]);
	return n;
}

int cpuset_next(const struct cpuset *s, int after)
{
	int cpu = after + 1;

	while (cpu < CPUSET_MAX) {
		uint64_t rest = s->w[cpu / 64] >> (cpu % 64);

		if (rest)
			return cpu + __builtin_ctzll(rest);
		cpu = (cpu / 64 + 1) * 64;
	}
	return -1;
}

void cpuset_or(struct cpuset *s, const struct cpuset *o)
{
	for (int i = 0; i < WORDS; i++)
		s->w[i] |= o->w[i];
}

void cpuset_and(struct cpuset *s, const struct cpuset *o)
{
	for (int i = 0; i < WORDS; i++)
		s->w[i] &= o->w[i];
}

void cpuset_andnot(struct cpuset *s, const struct cpuset *o)
{
	for (int i = 0; i < WORDS; i++)
		s->w[i] &= ~o->w[i];
}

bool cpuset_equal(const struct cpuset *a, const struct cpuset *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

bool cpuset_intersects(const struct cpuset *a, const struct cpuset *b)
{
	for (int i = 0; i < WORDS; i++)
		if (a->w[i] & b->w[i])
			return true;
	return false;
}

bool cpuset_subset(const struct cpuset *a, const struct cpuset *b)
{
	for (int i = 0; i < WORDS; i++)
		if (a->w[i] & ~b->w[i])
			return false;
	return true;
}

/* One number at *@p; moves *@p behind it. */
static int list_number(const char **p, int *ret)
{
	int n = 0;

	if (!isdigit((unsigned char)**p))
		return -EINVAL;
	for (; isdigit((unsigned char)**p); (*p)++) {
		n = n * 10 + (**p - '0');
		if (n >= CPUSET_MAX)
			return -ERANGE;
	}
	*ret = n;
	return 0;
}

/* Call @each for every number of the list in its order. */
static int list_walk(const char *s, int (*each)(void *ctx, int cpu), void *ctx)
{
	const char *p = s;

	if (!*p)
		return 0;
	for (;;) {
		int first = 0, last, r;

		r = list_number(&p, &first);
		if (r < 0)
			return r;
		last = first;
		if (*p == '-') {
			p++;
			r = list_number(&p, &last);
			if (r < 0)
				return r;
			if (last < first)
				return -EINVAL;
		}
		for (int cpu = first; cpu <= last; cpu++) {
			r = each(ctx, cpu);
			if (r < 0)
				return r;
		}
		if (!*p)
			return 0;
		if (*p++ != ',')
			return -EINVAL;
	}
}

static int add_to_set(void *ctx, int cpu)
{
	cpuset_add(ctx, cpu);
	return 0;
}

int cpuset_parse(const char *s, struct cpuset *ret)
{
	struct cpuset set = { 0 };
	int r = list_walk(s, add_to_set, &set);

	if (r == 0)
		*ret = set;
	return r;
}

struct ordered {
	int *v;
	size_t n;
	struct cpuset seen;
};

static int add_to_list(void *ctx, int cpu)
{
	struct ordered *o = ctx;

	if (cpuset_has(&o->seen, cpu))
		return -EINVAL;
	cpuset_add(&o->seen, cpu);
	*PUSH_ZEROED(o->v, o->n) = cpu;
	return 0;
}

int cpulist_parse_ordered(const char *s, int **ret_cpus, size_t *ret_n)
{
	struct ordered o = { 0 };
	int r = *s ? list_walk(s, add_to_list, &o) : -EINVAL;

	if (r < 0) {
		free(o.v);
		return r;
	}
	*ret_cpus = o.v;
	*ret_n = o.n;
	return 0;
}

char *cpuset_format(const struct cpuset *s)
{
	char *out = xstrdup("");

	for (int first = cpuset_next(s, -1); first >= 0;) {
		int last = first;
		char *next;

		while (cpuset_has(s, last + 1))
			last++;
		next = first == last ? xasprintf("%s%s%d", out, *out ? "," : "", first)
				     : xasprintf("%s%s%d-%d", out, *out ? "," : "", first, last);
		free(out);
		out = next;
		first = cpuset_next(s, last);
	}
	return out;
}
