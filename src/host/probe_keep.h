/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_keep.h - walk over everything that the probe reads; for capture.
 *
 * Whoever makes the probe read another file adds it to the table in probe_keep.c: the capture of every test machine has
 * to probe to what the machine itself does. */
#ifndef GPUVM_HOST_PROBE_KEEP_H
#define GPUVM_HOST_PROBE_KEEP_H

#include "probe_priv.h"

struct keep_sink {
	/* Each called with a path below the root ("sys/bus/pci"); a failure (-Exxx) ends the walk. */
	int (*dir)(void *ctx, const char *path);
	int (*file)(void *ctx, const char *path, const void *data, size_t len);
	int (*link)(void *ctx, const char *path, const char *target);
	void (*missing)(void *ctx, const char *what); /* a sentence about what could not be read */
	void *ctx;
};

struct keep_counts {
	size_t n_cpus, n_functions;
};

/* @host_name: to be written for the machine's name; NULL: its own. */
int probe_keep(const struct probe *p, const char *host_name, const struct keep_sink *s, struct keep_counts *ret);

#endif
