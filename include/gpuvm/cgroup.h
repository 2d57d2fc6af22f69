/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup.h - a cgroup for each QEMU, of version 2 (the kernel's cgroup-v2.rst): what it may use of the host, and a name by which all of it can be ended.
 *
 * Without systemd it is gpuvm.slice/VM, with limits.  systemd is else the one manager of all cgroups: there it is below that of the launcher's unit, if the unit leaves that to us
 * (Delegate=yes), and has no controllers: a cgroup whose children have any takes no processes, and systemd could not start the next launcher there while QEMU lives.  So the limits
 * are those of the unit, and only which device nodes may be opened is ours to say.  Version 1 is left alone.
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

/* Is it below a unit's? */
bool cgroup_is_in_unit(const char *path);

/* Make it, set its limits (NULL: none) and let @pid in. */
int cgroup_make(const char *path, const struct cgroup_limits *limits, pid_t pid, struct err *e);

struct cgroup_device {
	bool block;	/* else a character device */
	bool any_minor; /* all of @major */
	bool read_only; /* it may not be opened for writing */
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
