/* SPDX-License-Identifier: GPL-2.0-or-later */
/* seed.h - the cloud-init seed and the disk with the guest's check: ISO images of a few files (plan_seed).
 *
 * How it works: the files are copied under their names into a folder in rundir that only we can read, and a program of the host
 * (xorrisofs, genisoimage or mkisofs) makes the image of it.  The copies go at once, the image with the VM: user-data may have secrets.
 * It is made anew at each start: cloud-init sees by the instance-id whether it is the same one. */
#ifndef GPUVM_SEED_H
#define GPUVM_SEED_H

#include "gpuvm/err.h"
#include "gpuvm/plan.h"

/* The first of these programs that is in PATH; owned, NULL if there is none. */
char *seed_find_tool(void);

/* Can this file be used? 0, or -Exxx: it is missing, cannot be read, or is a folder or a device. */
int seed_check_file(const char *path);

/* Make s->image. On failure nothing is left behind. */
int seed_make(const struct plan_seed *s, struct err *e);

/* Remove all such images from the folder @rundir, and what a seed_make() that was killed has left. Idempotent. */
int seed_remove(const char *rundir, struct err *e);

#endif
