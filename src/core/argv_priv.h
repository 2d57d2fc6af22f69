/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_priv.h - what the files that write the QEMU command share. */
#ifndef GPUVM_ARGV_PRIV_H
#define GPUVM_ARGV_PRIV_H

#include "plan_priv.h"

struct builder {
	struct planner *pl;
	struct plan *p;
	const struct vm_config *vm;
	const struct qemu_info *q;
	const char *group; /* heading of the options that follow */
	int n_virtio;	   /* functions given out on pcie.0 */
	int next_boot;	   /* lowest boot index not given out */
};

/* Add an option with the reason why it is there. @value is consumed; NULL for a bare flag. The entry is good until the next one is added. */
struct plan_arg *arg_why(struct builder *b, const char *flag, char *value, const char *fmt, ...) PRINTF(4, 5);

/* The launcher opens @path for the option that was added last; see struct plan_open. */
void arg_open(struct builder *b, const char *key, const char *path);

/* addr= (and multifunction=) of function @addr on pcie.0, eight to a slot. */
void arg_root_addr(struct qopt *o, int addr);

/* bus= and addr= of the next virtio device on pcie.0; a problem when there is no room. */
void arg_virtio_addr(struct builder *b, struct qopt *o);

/* As arg_virtio_addr(), for a device that is written otherwise: the function on pcie.0, as arg_root_addr() takes it. */
int arg_virtio_function(struct builder *b);

/* Is @feature there? If not, a PROBLEM_CONFIG at [section] key that names the first QEMU which has it. */
bool arg_needs(struct builder *b, enum qemu_feature feature, const char *section, const char *key);

/* For each of a disk's @queues the guest node whose vCPUs a Linux guest lets use it.  @cpus: the number of vCPUs of each guest node,
 * of which one at least has some. queue_spread.c */
void spread_queues(const int *cpus, size_t n_nodes, int queues, int *ret);

void arg_seed(struct builder *b);  /* the cloud-init seed (argv_seed.c) */
void arg_pcie(struct builder *b);  /* ports and passed-through devices (argv_pci.c) */
void arg_disks(struct builder *b); /* disks and their I/O threads (argv_disk.c) */
void arg_nets(struct builder *b);  /* NICs (argv_net.c) */
void arg_guest(struct builder *b); /* rng, pvpanic, guest agent, vsock, TPM (argv_guest.c) */

#endif
