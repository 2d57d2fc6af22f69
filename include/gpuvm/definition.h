/* SPDX-License-Identifier: GPL-2.0-or-later */
/* definition.h - the text of a definition for a VM that is being made.
 *
 * How it works: what was asked for becomes sections and keys, each with a comment that says what else could stand there; what --set says replaces
 * keys or adds some.  What was not asked for is left out, so that it is computed at each start, and a comment says what it is now.
 * The text is read back by config_parse() before it is handed out: it says what was asked for, or it is refused with the
 * reason.  Pure. */
#ifndef GPUVM_DEFINITION_H
#define GPUVM_DEFINITION_H

#include "gpuvm/config.h"

struct definition_request {
	const char *name;
	const char *uuid;      /* NULL: leave it to the start, which derives it from machine and name */
	int gpus;              /* 0: no passthrough */
	int gpu_index;         /* CONF_AUTO */
	int vcpus;             /* CONF_AUTO */
	const char *memory;    /* as in [memory] size; NULL: auto */
	const char *os_disk;   /* absolute path of a qcow2 file; NULL: none */
	const char *image;     /* that it is made on, for a comment; NULL: it is empty */
	const char *data_disk; /* as os_disk */
	enum definition_net {
		DEFINITION_NET_AUTO, /* user, unless a set has a [net] */
		DEFINITION_NET_NONE,
		DEFINITION_NET_USER,
		DEFINITION_NET_BRIDGE,
		DEFINITION_NET_TAP,
	} net;
	const char *net_host;  /* the bridge or tap interface */
	const char *user_data; /* absolute path; NULL: no [cloud-init] */
	const struct strv *sets; /* SECTION.KEY=VALUE; may be NULL */

	/* For comments only; any bytes may be in them */
	const char *command;   /* by which it is made; NULL: not said */
	const char *date;      /* "2026-11-22" */
	const char *user_data_from; /* what user_data is a copy of */
};

/* What the planner has made of it, for comments. */
struct definition_facts {
	int host_gpus;
	int vcpus;
	uint64_t memory_bytes, page_bytes;
};

/* Owned text, or NULL with problems in @ps. @facts may be NULL. */
char *definition_text(const struct definition_request *req, const struct definition_facts *facts, struct problems *ps);

#endif
