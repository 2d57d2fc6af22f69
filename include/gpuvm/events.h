/* SPDX-License-Identifier: GPL-2.0-or-later */
/* events.h - what happened to a VM, for `gpuvm status` and `gpuvm log`.
 *
 * How it works: events.jsonl in the VM's run-time folder has one JSON object per line: {"time": seconds since 1970 with a
 * fraction, "event": word, "state": word, "text": for people}.  Lines are appended with one write, so a reader sees whole ones; a line that
 * was cut off by a full disk or a crash is skipped when read.  The file outlives the VM's run; past EVENTS_MAX it becomes
 * events.jsonl.1, so a guest that reboots for ever does not fill /run. */
#ifndef GPUVM_EVENTS_H
#define GPUVM_EVENTS_H

#include <stddef.h>

#include "gpuvm/err.h"

struct json_object;

#define EVENTS_FILE "events.jsonl"
#define EVENTS_MAX  (256UL << 10)

/* @text may be NULL. */
int events_add(const char *rundir, const char *event, const char *state, const char *text, struct err *e);

/* The newest @max events, oldest first, as a JSON array to be put; an empty one if there is no file. */
struct json_object *events_read(const char *rundir, size_t max);

#endif
