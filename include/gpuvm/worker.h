/* SPDX-License-Identifier: GPL-2.0-or-later */
/* worker.h - kernel writes that may block, each in a process of its own, side by side, with one deadline.
 *
 * An unbind or a reset of a device in use sleeps in the kernel for as long as it is in use, uninterruptibly, so neither a
 * thread nor a signal helps.  A worker that misses the deadline gets SIGKILL, which takes effect before it can
 * write anything further, and is left behind; when it does end, it is a zombie of ours until we exit.  A worker dies with its parent in the
 * same way: before its next write. */
#ifndef GPUVM_WORKER_H
#define GPUVM_WORKER_H

#include <stddef.h>

#include "gpuvm/err.h"

struct worker_job {
	/* Runs in the worker: all that comes back is its struct err (err.word must be a static string or NULL).
	 * Signals but SIGKILL are blocked in it, so that ^C does not stop it half way; only fds 0-2 and keep_fd are open. */
	int (*run)(const void *arg, struct err *e);
	const void *arg;
	int keep_fd; /* stays open in the worker: a lock that shall not be free before the worker has ended; 0: none */
	struct err err; /* the outcome; code 0: done. -ETIMEDOUT: left behind. -EIO: the worker died */
};

/* Run all jobs; returns when each has ended or @timeout_ms has passed. */
void workers_run(struct worker_job *jobs, size_t n, unsigned int timeout_ms);

#endif
