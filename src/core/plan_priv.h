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

/* The machine that the VM will run on: the one planned for, or, with another machine's stand-ins, this one. stand_in.c */
const struct topology *planner_machine(const struct planner *pl);

/* The most vCPUs of a guest node that make sense where another machine's VM is emulated; 0: no limit. stand_in.c */
int planner_vcpus_per_node(const struct planner *pl);

/* With another machine's stand-ins: as much memory as this one has, in its normal pages. stand_in.c */
void planner_fit_memory(struct planner *pl);

/* What of CPU and IOMMU is the narrower, and whose that is; 0 and NULL: neither is known. place_window.c */
int planner_address_bits(const struct planner *pl, const char **ret_whose);

/* plan->mmio64_bytes, and how large stand-ins are. place_window.c */
void planner_size_window(struct planner *pl);

/* Machine type, and features that the plan as a whole needs or would like; after all steps. check_qemu.c */
void planner_check_qemu(struct planner *pl);

/* "1 GPU", "4 GPUs" */
#define PLURAL(n) ((n) == 1 ? "" : "s")

#endif
