/* SPDX-License-Identifier: GPL-2.0-or-later */
/* golden.h - the golden definitions, for tests that do other things with them than test_golden.c. */
#ifndef TESTS_UNIT_GOLDEN_H
#define TESTS_UNIT_GOLDEN_H

#include "gpuvm/plan.h"

struct golden {
	char name[256];
};

/* How to plan a case so that it can be started on this machine, with stand-ins. */
struct golden_run {
	const struct qemu_info *qemu;
	const struct topology *here;
	const char *dir;                                      /* for everything that the command names */
	void (*adapt)(struct vm_config *vm, const char *dir); /* files that are not there */
};

/* Every case of tests/golden, sorted; cr_malloc'd, for cr_make_param_array(). */
struct golden *golden_cases(size_t *ret_n);

/* Plan @name for its machine, after those that run there already.  @run NULL: as it is recorded.  As plan_make(). */
int golden_plan(const char *name, const struct golden_run *run, struct vm_config *vm, struct plan *ret,
		struct problems *ps);

#endif
