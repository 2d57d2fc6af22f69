/* SPDX-License-Identifier: GPL-2.0-or-later */
/* kernel.h - a model of the kernel's PCI driver core behind the sysfs seam.
 *
 * All state is on disk, below a root: what is written through `sys` acts on it as Linux does
 * (drivers/base/bus.c, drivers/base/dd.c, drivers/pci/pci-driver.c):
 *
 *   devices/BDF/driver_override   set; "\n" clears; the file then reads "(null)"; a write of no bytes does nothing
 *   drivers/X/unbind              -ENODEV unless the device is bound to X
 *   drivers/X/bind                -ENODEV if X does not match, -EBUSY if it has a driver
 *   drivers_probe                 an override wins over the id tables, and matches only the driver of that name;
 *                                 no match, or a driver that refuses, is no error (older kernels: probe_miss_fails)
 *   devices/BDF/reset             "1" resets; config, where the ids are read back, may be all ones after it
 *   devices/BDF/config            a word is written as such
 *   dev/vfio/GROUP                is there while a member of the group is on a vfio driver
 *
 * A device's usual driver is the one that it was bound to when the model was attached to the tree.  Any other file is
 * just written.  Counters and faults are in shared memory: forked workers count too. */
#ifndef TESTS_FAKE_KERNEL_H
#define TESTS_FAKE_KERNEL_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "gpuvm/sysfs.h"

#define FAKE_TRACE_MAX 1024

struct fake_shared {
	atomic_uint writes; /* so far; the first is number 1 */
	unsigned int fail_at; /* this write fails, 0: none */
	int fail_errno;       /* e.g. EBUSY */
	bool fail_late;       /* it acts all the same */
	atomic_bool held, in_remove;
	sem_t release, lock;
	struct {
		char path[128]; /* without the root */
		char value[32];
	} trace[FAKE_TRACE_MAX];
};

struct fake_match {
	char driver[40];
	unsigned int vendor, device;
};

struct fake_kernel {
	char *root;
	bool own; /* made by fake_kernel_make() */
	struct sysfs sys; /* give this to the code under test */
	struct fake_shared *sh;
	struct fake_match *ids;
	size_t n_ids;

	/* What may go wrong; set before the code under test runs. */
	const char *refuse_driver; /* its probe fails */
	const char *hold_bdf;      /* its unbind or reset sleeps until fake_kernel_release(); so does then all that needs the device lock */
	const char *reset_fails_bdf; /* -ENOTTY, as for a device that is not ready after a minute */
	const char *reset_kills_bdf; /* no error, and then it does not answer */
	bool probe_miss_fails;     /* drivers_probe without a driver is -EINVAL */
	bool eager;                /* a rescan follows every write: what has no driver is probed at once */
};

struct fake_device {
	const char *bdf;
	unsigned int vendor, device, class_code;
	int group; /* -1: none */
	const char *driver; /* NULL: none */
};
#define FAKE_ACS_OFFSET 0x106 /* ACSCtl of bridges */
#define FAKE_ACS	0x1d

/* Make a tree with these devices in a temporary folder, with drivers vfio-pci and pci-stub besides theirs. 0 or -Exxx. */
int fake_kernel_make(struct fake_kernel *k, const struct fake_device *devs, size_t n);

/* How a device can be reset ("flr", "bus"); "": an old kernel, which does not say; NULL: not at all. Of all that are made: "flr". */
int fake_kernel_set_reset(const struct fake_kernel *k, const char *bdf, const char *method);

/* Act on a tree that is there. */
int fake_kernel_attach(struct fake_kernel *k, const char *root);

/* Removes the tree if the model made it. */
void fake_kernel_free(struct fake_kernel *k);

/* Begin to hold the unbind of k->hold_bdf, and let go of whoever waits in it. */
void fake_kernel_hold(struct fake_kernel *k);
void fake_kernel_release(struct fake_kernel *k);

/* Every folder, link (with its target) and file (with its content) below the root, sorted; owned. */
char *fake_kernel_snapshot(const struct fake_kernel *k);

#endif
