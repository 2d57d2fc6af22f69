/* SPDX-License-Identifier: GPL-2.0-or-later */
/* affinity.h - where threads and memory are, and putting them there. sched_setaffinity(2), /proc, libnuma. */
#ifndef GPUVM_AFFINITY_H
#define GPUVM_AFFINITY_H

#include <stdbool.h>
#include <sys/types.h>

#include "gpuvm/cpuset.h"
#include "gpuvm/err.h"

/* Set and read back: -EXDEV if the kernel gave something else (a cpuset in the way). */
int affinity_set(pid_t tid, const struct cpuset *cpus, struct err *e);
/* All that its cpuset has, now and later. */
bool affinity_unlimit(pid_t tid);
int affinity_get(pid_t tid, struct cpuset *ret, struct err *e);

/* All threads of a process with their names ("CPU 0/KVM", "IO io0"), sorted by tid; owned array. */
struct thread_info {
	pid_t tid;
	char name[32];
	struct cpuset cpus;
};
int affinity_threads(pid_t pid, struct thread_info **ret, size_t *ret_n, struct err *e);

/* Append the kernel's vhost workers of process @pid. They have its threads' numbers from Linux 6.4 on; before, each is a kernel
 * thread of its own, "vhost-PID", which runs anywhere. @v may be reallocated. */
int affinity_add_vhost(pid_t pid, struct thread_info **v, size_t *n, struct err *e);

/* One mapping of /proc/PID/numa_maps joined with its length from /proc/PID/maps, by address; only those whose policy begins with @policy, if it is not NULL, and
 * not more than @enough, if it is not 0: the kernel looks at each page of a mapping to write its line. */
struct numa_mapping {
	uint64_t start, bytes;
	char policy[32]; /* "bind:0", "default", "prefer:1" */
	uint64_t page_bytes;
	uint64_t pages[64]; /* resident pages of page_bytes, by node number */
};
int affinity_numa_maps(pid_t pid, const char *policy, size_t enough, struct numa_mapping **ret, size_t *ret_n, struct err *e);

/* Start time of a process in clock ticks since boot (/proc/PID/stat field 22): with the pid, its identity. 0 if it is gone or a zombie. */
uint64_t process_start_time(pid_t pid);

#endif
