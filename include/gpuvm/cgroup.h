/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup.h - a cgroup for each QEMU, of version 2 (the kernel's cgroup-v2.rst): what it may use of the host, and a name by which all of it can be ended.
 *
 * Only on a machine without systemd, which is else the one manager of all cgroups.  Below a unit's own (Delegate=yes) it would keep systemd from starting the next launcher there
 * while QEMU lives: a cgroup whose children have controllers takes no processes.  So with systemd the limits are those of the unit.  Version 1 is left alone.
 * Controllers that are not there set no limit.  Paths are those of /proc/PID/cgroup. */
#ifndef GPUVM_CGROUP_H
#define GPUVM_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gpuvm/cpuset.h"
#include "gpuvm/err.h"

#define CGROUP_MOUNT "/sys/fs/cgroup"

struct cgroup_limits {
	uint64_t memory_bytes;	   /* without huge pages; nothing of it is swapped; 0: no limit */
	uint64_t pids;		   /* threads; 0: no limit */
	const struct cpuset *cpus; /* NULL: all */
};

/* Where @vm's would be, owned; NULL: none can be made. */
char *cgroup_choose(const char *vm);

/* Make it, set its limits and let @pid in. */
int cgroup_make(const char *path, const struct cgroup_limits *limits, pid_t pid, struct err *e);

struct cgroup_device {
	bool block;	/* else a character device */
	bool any_minor; /* all of @major */
	unsigned int major, minor;
};

/* The device that a path leads to; false: none. */
bool cgroup_device_of(const char *path, struct cgroup_device *ret);

/* From now on no process in it opens or makes any other device node. Needs root, and a kernel with CONFIG_CGROUP_BPF. (cgroup_devices.c) */
int cgroup_allow_devices(const char *path, const struct cgroup_device *v, size_t n, struct err *e);

/* 1: its devices are limited, 0: not, -Exxx: not known. */
int cgroup_limits_devices(const char *path);

/* End what is in it, and remove it. 0 also if there is none. */
int cgroup_remove(const char *path, struct err *e);

#endif
