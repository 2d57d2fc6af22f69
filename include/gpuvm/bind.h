/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bind.h - give PCI functions to vfio-pci, and back.
 *
 * How it works, per function: driver_override is written *first* (between an unbind and a later override any
 * probe, a module load or a rescan, would hand the device to its usual driver), then driver/unbind, then
 * drivers_probe; then the driver link is read back.  Giving back is the same with the recorded driver, after which the override is
 * put back to what it was ("\n" clears it; a write of zero bytes never reaches the kernel).
 * Kernel: Documentation/ABI/testing/sysfs-bus-pci.  An unbind of a device that is in use blocks the writer for as long
 * as it is in use, so each device is handled by a worker process with a deadline, side by side; the caller never blocks. */
#ifndef GPUVM_BIND_H
#define GPUVM_BIND_H

#include "gpuvm/err.h"
#include "gpuvm/parse.h"
#include "gpuvm/sysfs.h"

/* A function, where it was, and where it shall go. */
struct bind_op {
	struct pci_addr addr;
	const char *from;     /* driver it had, NULL: none */
	const char *override; /* driver_override it had, NULL or "": none */
	const char *to;       /* "vfio-pci" */
};

/* Read the driver bound to @addr now: owned, NULL if none. */
char *bind_current_driver(const struct sysfs *s, const struct pci_addr *addr);

/* Does @driver (NULL: none) leave the device's DMA alone, as vfio and pci-stub do? Any other one is at work for the host. */
bool bind_driver_is_idle(const char *driver);

/* Bind all @n functions to their `to`. Succeeds for all or fails; after a failure call bind_restore() for all.
 * A function that is already there is left alone. -ETIMEDOUT: the kernel did not finish; the message names the device. */
int bind_devices(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e);

/* Take the host's drivers away, and keep all but `to` from coming: the first half of binding. */
int bind_detach(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e);

/* Put every function back to `from` and its old override, as far as needed: idempotent. All are tried; the first error is returned. */
int bind_restore(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e);
/* The same; @ret_back[i], false before, is made true if function i is back. */
int bind_restore_each(const struct sysfs *s, const struct bind_op *ops, size_t n, bool *ret_back, struct err *e);

/* After binding: is every IOMMU group complete, i.e. is each endpoint in the groups of @ops on a vfio driver, on pci-stub
 * or unbound?  -EPERM names the offender ("group-not-viable").  Kernel: Documentation/driver-api/vfio.rst. */
int bind_check_groups(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e);

/* Load the vfio-pci and vfio_iommu_type1 modules (libkmod) unless they are there; then /dev/vfio/vfio must exist. */
int bind_load_vfio(const struct sysfs *s, struct err *e);

#endif
