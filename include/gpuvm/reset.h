/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reset.h - reset PCI functions, and see whether they come back.
 *
 * When: after a VM's functions are bound to vfio-pci and before QEMU is started (QEMU resets them once more, but only prints a warning if
 * that fails), and after QEMU has ended, before they are given back.  With NVLink it is all GPUs and NVSwitches of the VM together,
 * before the partition is activated and never after that (Fabric Manager User Guide, "full passthrough": select a partition, reset its GPUs and
 * switches, block links, no further reset, start); NVSwitches that the host's Fabric Manager has are in no VM, and so in no list.
 *
 * How it works: "1" is written to each function's `reset` (Documentation/ABI/testing/sysfs-bus-pci), by a process for each slot, side by side,
 * with one deadline: the functions of one slot come one after the other.  Then the ids in config space are read back: the cached
 * `vendor` file says nothing.  A function that is not ready answers with 0x0001 or all ones (PCIe 2.3.1: RRS), and gets RESET_RETURN_MS.
 *
 * What it never does: reset a function that a driver of the host has, or a bus on which there are functions beside those of the list.  The
 * kernel offers a bus reset by `reset` only for a function that is alone on its bus (pci_parent_bus_reset()); an administrator's hands in
 * `reset_method` and other kernels are why it is looked at all the same. */
#ifndef GPUVM_RESET_H
#define GPUVM_RESET_H

#include "gpuvm/err.h"
#include "gpuvm/parse.h"
#include "gpuvm/sysfs.h"

#define RESET_RETURN_MS 1000

enum reset_outcome {
	RESET_DONE,    /* reset, and it answers */
	RESET_NONE,    /* it cannot be reset by itself (no `reset` file); it answers */
	RESET_REFUSED, /* not tried: on a driver of the host, or others would be hit; err says which */
	RESET_FAILED,  /* the kernel could not, but it answers */
	RESET_DEAD,    /* it does not answer any more */
	RESET_STUCK,   /* the kernel is still at it; nothing more can be done with the device until that ends */
};

struct reset_result {
	struct pci_addr addr;
	enum reset_outcome outcome;
	char method[64]; /* `reset_method`, in the order in which the kernel tries: "flr bus"; "": Linux before 5.15 does not say */
	struct err err;	 /* code 0 for DONE and NONE */
};

/* Reset all @n functions; @ret has an entry for each, in their order. 0 if each is DONE or NONE.  Else @e has the words of the worst (DEAD before STUCK
 * before FAILED before REFUSED) and how many more there are: -ENODEV, -ETIMEDOUT, -EIO or -EPERM; the words are "device-bad" for the first two. */
int reset_devices(const struct sysfs *s, const struct pci_addr *v, size_t n, struct reset_result *ret, struct err *e);

/* No VM should get a device after that: bad_mark() it. */
static inline bool reset_is_bad(enum reset_outcome o)
{
	return o == RESET_DEAD || o == RESET_STUCK;
}

const char *reset_outcome_word(enum reset_outcome o); /* "done", "none", "refused", "failed", "dead", "stuck" */

#endif
