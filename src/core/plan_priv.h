/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plan_priv.h - what the steps of the planner share. */
#ifndef GPUVM_PLAN_PRIV_H
#define GPUVM_PLAN_PRIV_H

#include "gpuvm/plan.h"

/* The running VM that holds a function or any CPU of @cpus, or NULL. */
const struct used_device *planner_device_user(const struct planner *pl, const struct pci_func *f);
const struct used_cpus *planner_cpu_user(const struct planner *pl, const struct cpuset *cpus);

/* Number of the VM's own GPUs on host node index @node, and of all the machine's. */
int planner_vm_gpus_on(const struct planner *pl, int node);
int planner_host_gpus_on(const struct planner *pl, int node);

/* Host node index of a guest node; -1 if the host has none. */
int planner_host_node(const struct planner *pl, const struct plan_node *n);

static inline const struct pci_func *planner_func(const struct planner *pl, int func)
{
	return &pl->req->host->funcs[func];
}

/* "1 GPU", "4 GPUs" */
#define PLURAL(n) ((n) == 1 ? "" : "s")

#endif
