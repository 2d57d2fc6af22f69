/* SPDX-License-Identifier: GPL-2.0-or-later */
/* property.h - what the parts of the property test share: one trial, and the checks on what came of it.
 *
 * The checks are written from the documentation, not from src/core, and share no code with it beyond the look-ups of
 * topology.h (topology_relation(), the path of a function). */
#ifndef TESTS_UNIT_PROPERTY_H
#define TESTS_UNIT_PROPERTY_H

#include "gpuvm/plan.h"
#include "tests/fake/genhost.h"

struct trial {
	uint64_t seed;
	struct rng rng;
	struct topology host;
	struct host_use use;
	struct qemu_info qemu;
	char *text; /* of the definition */
	struct vm_config vm;
	struct plan_request req;
};

/* Say what is wrong and how to see it again, and end the test. */
_Noreturn void trial_fail(const struct trial *t, const char *file, int line, const char *fmt, ...) PRINTF(4, 5);
#define CHECK(t, cond, ...)                                                                                            \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			trial_fail(t, __FILE__, __LINE__, __VA_ARGS__);                                                \
	} while (0)

/* The plan is valid: devices, CPUs, memory. */
void property_check_plan(const struct trial *t, const struct plan *p);
/* Its command is valid: ids, ports, buses, sizes. */
void property_check_argv(const struct trial *t, const struct plan *p);
/* Each reason of a refusal holds. */
void property_check_refusal(const struct trial *t, const struct problems *ps);
/* choose_gpus() is as good as trying every set. */
void property_check_choice(struct trial *t);

/* Where a core stands, counted anew. */
struct core_count {
	int all, reserved, busy; /* busy: not reserved, and another VM runs on it */
};
struct core_count property_count_cores(const struct trial *t, int host_node);
bool property_core_reserved(const struct trial *t, int host_node, int core);

/* What the running VMs hold. */
const char *property_device_user(const struct trial *t, const struct pci_addr *a);
bool property_cpu_used(const struct trial *t, int cpu);
uint64_t property_promised(const struct trial *t, int host_node, uint64_t page);

bool property_is_explicit(const struct trial *t, const struct pci_addr *a);

#endif
