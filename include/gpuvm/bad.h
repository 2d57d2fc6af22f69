/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bad.h - devices that no VM may have until somebody has looked at them.
 *
 * A record is one file, STATEDIR/bad/BDF.json, which outlives the VM and a reboot of the host:
 *
 *   {schema, bdf, vendor, device, subvendor, subdevice, slot, reason, when, boot_id, vm, by}
 *
 * The ids are what tells the device from another one put in its place: it has then been replaced, and the record goes by itself.  One of the same model
 * cannot be told from it: `gpuvm doctor --clear BDF`.  @dir is the state folder (launch_state_dir()) in all functions.
 * DGX-2 user guide, 11.9: a GPU that has failed is never given to a VM, and does not keep others from being started. */
#ifndef GPUVM_BAD_H
#define GPUVM_BAD_H

#include <time.h>

#include "gpuvm/err.h"
#include "gpuvm/sysfs.h"
#include "gpuvm/topology.h"

#define BAD_SCHEMA 1

struct bad_device {
	struct pci_addr addr;
	char *damaged; /* why the rest could not be read, with the file's path; NULL: it is what follows */
	uint16_t vendor, device, subvendor, subdevice;
	char *slot;    /* the label of the slot, as the kernel has it; NULL: none */
	char *reason;
	int64_t when;  /* unix time */
	char *boot_id; /* of the boot on which it was marked */
	char *vm;      /* that had it; NULL: none */
	char *by;      /* who marked it: "reset", "operator" */
};

void bad_free(struct bad_device *v, size_t n);

/* Mark the function at @addr, on disk when this returns. A record that is there for the same device stays: the first reason is nearest to the cause.
 * -ENODEV: there is no such function below @s. */
int bad_mark(const char *dir, const struct sysfs *s, const struct pci_addr *addr, const char *reason, const char *vm, const char *by, struct err *e);

/* All records by address; a damaged one is in the list, too. None: 0 and nothing. -EPROTO: a file is not named after a device. */
int bad_list(const char *dir, struct bad_device **ret, size_t *ret_n, struct err *e);

/* Remove the record of @addr, NULL: all. How many went is in *@ret_n. -ENOENT: there is none of @addr. */
int bad_clear(const char *dir, const struct pci_addr *addr, size_t *ret_n, struct err *e);

/* Does the record mean what is in @f's place now? */
bool bad_is_same(const struct bad_device *b, const struct pci_func *f);

/* Set `bad` of every function that has a record; a damaged record counts, too, so that only its own device is left out.
 * Records of devices that were replaced are logged and, unless @look_only, removed.  Fails only if the folder cannot be read, or a file in it is
 * not named after a device (-EPROTO). */
int bad_apply(const char *dir, bool look_only, struct topology *t, struct err *e);

#endif
