/* SPDX-License-Identifier: GPL-2.0-or-later */
/* select_priv.h - what select.c and select_fabric.c share: taking one function for the VM, and its place in the
 * fabric. */
#ifndef GPUVM_SELECT_PRIV_H
#define GPUVM_SELECT_PRIV_H

#include "plan_priv.h"

/* Has the VM this function already? */
bool select_has(const struct planner *pl, int func);

/* May the VM have it? Adds the reasons why not; @asked_by begins the message, @dc is its [device] section or NULL. */
bool select_check(struct planner *pl, int func, const struct device_config *dc, const char *asked_by);

/* Take it. @id is owned by the plan from now on. */
struct plan_device *select_add(struct planner *pl, int func, char *id, const struct device_config *options);

/* "nic3": the next id of a role. */
char *select_next_id(const struct planner *pl, enum pci_role role);

/* Can this GPU be chosen: nobody has it, and it is on [place] socket? */
bool select_gpu_is_free(const struct planner *pl, int func);

/* "; GPU 3 (0000:5d:00.0) is bad: ..." for each function of @role, on [place] socket, that no VM may have; owned, "" if there is none. */
char *select_bad_text(const struct planner *pl, enum pci_role role);

/* A problem with [place] gpus; the hint says what is free on each socket. */
void select_refuse_gpus(struct planner *pl, enum problem_kind kind, const char *code, const char *text);

/* --- select_fabric.c: in this order ----------------------------------------------------------------- */

void select_fabric_mode(struct planner *pl); /* plan->fabric.mode; after explicit devices */
void select_fabric_gpus(struct planner *pl); /* the best free set that the fabric allows */
void select_fabric_finish(
	struct planner *pl); /* is the VM's set one that the fabric allows? Then its NVSwitches, and plan->fabric */

#endif
