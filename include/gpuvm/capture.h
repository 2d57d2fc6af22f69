/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture.h - a machine in a folder or a file: what probe_host() and doctor_facts_read() read, and nothing else.
 *
 * A capture is a root with sys/ and proc/ that probes to the same topology on every machine, so that a machine can be
 * planned and judged at a desk.  It has no serial numbers, no network addresses and no machine id: whatever the probe does not need
 * is not read in the first place, and what identifies in the rest (a MAC in an interface's name, a UUID in that of a
 * volume, the serial number in PCI configuration space) is blanked.  What is kept is listed beside the probe
 * (host/probe_keep.c). */
#ifndef GPUVM_CAPTURE_H
#define GPUVM_CAPTURE_H

#include "gpuvm/err.h"
#include "gpuvm/strv.h"

#define CAPTURE_MACHINE_ID "00000000000000000000000000000000"
#define CAPTURE_HOST_NAME  "captured"

struct capture_report {
	size_t n_cpus, n_functions;
	size_t n_files, n_links;
	uint64_t bytes;
	struct strv missing; /* what could not be read, in sentences */
};
void capture_report_clear(struct capture_report *r);

/* Write the machine below @root ("" for this one) to @dest: a tar if the name ends in .tar, .tar.gz, .tgz, .tar.xz or
 * .tar.zst, else a new folder.  -EEXIST if there is something already; on failure nothing is left behind.  What cannot
 * be read is reported, and is no failure. @keep_name: with the host's name. */
int capture_host(const char *root, const char *dest, bool keep_name, struct capture_report *ret, struct err *e);

/* Unpack a tar into a new temporary folder of ours (0700), to be given to capture_remove(); the tar may be anybody's.
 * Refused: names that are absolute or have "..", names below a link, more than 500000 entries or 512 MiB.  Left
 * out: links that might lead outside, devices, sockets. */
int capture_unpack(const char *file, char **ret_root, struct err *e);

/* What --sysroot names: if that is a file, unpack it. *@ret_unpacked is the folder then, else NULL. */
int capture_resolve(const char *sysroot, char **ret_unpacked, struct err *e);

/* Remove a folder of capture_unpack() and free its name. NULL is fine. */
void capture_remove(char *root);

#endif
