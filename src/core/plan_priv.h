/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plan_priv.h - what the steps of the planner share. */
#ifndef GPUVM_PLAN_PRIV_H
#define GPUVM_PLAN_PRIV_H

#include "gpuvm/plan.h"

/* The running VM that holds a function or any CPU of @cpus, or NULL. */
const struct used_device *planner_device_user(const struct planner *pl, const struct pci_func *f);
const struct used_cpus *planner_cpu_user(const struct planner *pl, const struct cpuset *cpus);

/* Number of GPUs that host node index @node is for, the VM's own and all the machine's: those on it, or, of a bare node (one without GPUs
 * on a socket that has some elsewhere), those of the nodes that it serves. node_share.c */
int planner_vm_gpus_on(const struct planner *pl, int node);
int planner_host_gpus_on(const struct planner *pl, int node);
bool planner_node_is_bare(const struct planner *pl, int node);

/* Is this bare node to be a guest node, for the CPUs and memory that it has for the VM's GPUs? */
bool planner_takes_bare_node(const struct planner *pl, int node);

/* Host node index of a guest node; -1 if the host has none. */
int planner_host_node(const struct planner *pl, const struct plan_node *n);

/* The highest APIC ID that the guest's vCPUs get, and the first that needs x2APIC (255 is the broadcast of xAPIC). */
int planner_max_apic_id(const struct plan *p);
#define X2APIC_FIRST 255

/* The guest port of that id; NULL for "pcie.0" and others that are not in the plan. */
const struct plan_port *plan_find_port(const struct plan *p, const char *id);

static inline const struct pci_func *planner_func(const struct planner *pl, int func)
{
	return &pl->req->host->funcs[func];
}

/* "1 GPU", "4 GPUs" */
#define PLURAL(n) ((n) == 1 ? "" : "s")

#endif
