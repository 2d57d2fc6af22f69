/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holders_priv.h - what the parts of holders.c share: device nodes, and what workers find. */
#ifndef GPUVM_HOST_HOLDERS_PRIV_H
#define GPUVM_HOST_HOLDERS_PRIV_H

#include <stdatomic.h>

#include "gpuvm/holders.h"

/* A node of a function, whether or not it is in /dev. */
struct held_node {
	size_t func; /* index in the caller's list */
	bool block;
	bool all_minors; /* but for 255: it is not known which of them is this function's */
	unsigned int major, minor;
	char *name; /* below /dev: "infiniband/uverbs0"; with all_minors what comes before the number */
};

struct held_net {
	size_t func;
	char *name; /* "eth0" */
};

struct held_things {
	struct held_node *nodes;
	size_t n_nodes;
	struct held_net *nets;
	size_t n_nets;
};

/* Nodes and interfaces of function number @func at @bdf (holders_dev.c). */
void held_things_add(const struct sysfs *s, size_t func, const char *bdf, struct held_things *t);
void held_things_clear(struct held_things *t);

/* What the worker finds, in memory that it shares with us: an entry is whole before `n` counts it. */
#define HELD_HITS_MAX 1024
struct held_hits {
	atomic_size_t n;
	atomic_uint denied; /* processes that may not be looked at */
	atomic_bool full;
	struct held_hit {
		size_t node;
		unsigned int minor;
		int pid;
		bool mapped;
		char comm[16];
	} v[HELD_HITS_MAX];
};

/* Look through all processes below @s for @nodes (holders_proc.c). May block. */
void held_scan_processes(const struct sysfs *s, const struct held_node *nodes, size_t n, struct held_hits *ret);

#endif
