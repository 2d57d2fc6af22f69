/* SPDX-License-Identifier: GPL-2.0-or-later */
/* claim.h - what a VM holds of the host, on disk before it is taken.
 *
 * /run/gpuvm/NAME/claim.json is written and fsynced before the first effect and before each further one: every effect can
 * be undone from the file alone.  /run/gpuvm/lock serialises allocation (read claims, plan, write claim), not launches.
 * A claim is *alive* while its launcher or its QEMU lives (pid and start time), on this boot; but not with a QEMU alone that was not to
 * outlive its launcher (on-launcher-death = stop).  A stale one is undone by claim_recover(), which every allocation calls first.  What that cannot
 * undo (a device whose driver hangs) goes on being held, and only VMs that want it are refused.
 * The file is versioned: a reader that does not know its schema, or misses a key, touches nothing. A later version that needs more keys
 * raises the schema and goes on reading this one, since VMs outlive an upgrade. */
#ifndef GPUVM_CLAIM_H
#define GPUVM_CLAIM_H

#include "gpuvm/bind.h"
#include "gpuvm/plan.h"

#define CLAIM_SCHEMA 2 /* 1 has no registers, partition_active, fabric_manager, owned, cgroup, user, group, hooked, vsock */

struct claim_device {
	struct pci_addr addr;
	char *from;     /* NULL: no driver */
	char *override; /* NULL: none */
	char *to;
	char *id;
};

/* A process beside QEMU that must not outlive it: swtpm. */
struct claim_helper {
	char *name;
	pid_t pid;
	uint64_t start;
};

/* A word of a device's configuration space that is another one while the VM runs. */
struct claim_register {
	struct pci_addr addr;
	unsigned int offset;
	unsigned int from, to; /* 16 bits */
};

/* A file of the host's that is QEMU's user's while the VM runs. */
struct claim_owned {
	char *path;
	unsigned int uid, gid, mode; /* as before; mode: permission bits */
};

struct claim {
	char *vm;
	char *definition; /* path of the INI, absolute, or NULL */
	char *rundir;
	char *boot_id;
	int64_t started; /* unix time */
	pid_t launcher_pid;
	uint64_t launcher_start;
	pid_t qemu_pid; /* 0: not started yet */
	uint64_t qemu_start;
	enum conf_on_death on_launcher_death;
	bool bound; /* binding has begun: devices must be given back */
	bool hooked; /* the pre-bind hook was run, or there is none: post-stop is owed */
	struct claim_device *devices;
	size_t n_devices;
	struct cpuset cpus; /* pinned vCPUs */
	struct used_memory *memory;
	size_t n_memory;
	enum fabric_mode fabric;
	int partition; /* -1: none */
	bool partition_active; /* its activation has begun: it must be deactivated */
	char *fabric_manager;  /* by whom (fm_find()); NULL: gpuvm does neither */
	struct claim_register *registers;
	size_t n_registers;
	struct claim_owned *owned;
	size_t n_owned;
	char *cgroup; /* path below the cgroup mount, or NULL */
	unsigned int uid, gid; /* QEMU's; 0: root */
	struct claim_helper *helpers;
	size_t n_helpers;
	struct strv taps; /* interfaces that nobody else may attach to */
	uint32_t vsock; /* context ID; 0: none */
	int64_t recover_failed; /* unix time of a claim_recover() that could not undo all; 0: none */
	char state[16];  /* starting|running|paused|stopping|stopped|failed */
	char *reason;    /* of the last change of state */
};

void claim_clear(struct claim *c);
/* Fill a claim from a plan; nothing is written. */
void claim_from_plan(const struct plan *p, const char *definition, struct claim *ret);

/* Where VMs keep their run-time state: $GPUVM_RUNDIR or /run/gpuvm. */
const char *claim_rundir(void);
char *claim_vm_dir(const char *vm); /* owned */

/* Take the allocation lock (created 0600 if needed): fd to be closed, or -Exxx. Blocks; the holder works for milliseconds. */
int claim_lock(struct err *e);

/* Write claim.json atomically. */
int claim_write(const struct claim *c, struct err *e);
int claim_read(const char *dir, struct claim *ret, struct err *e);
bool claim_launcher_alive(const struct claim *c);
bool claim_qemu_alive(const struct claim *c);
bool claim_alive(const struct claim *c);

/* All claims that are alive, as the planner wants them; stale ones are recovered first. One that cannot be: the devices that are left in it are
 * in use (pid 0).  Call with the lock held.  @except: leave out this VM, but for its taps. @s NULL: only look; stale claims are skipped. A claim that cannot be read is an error that names it. */
int claim_collect_use(const struct sysfs *s, const char *except, struct host_use *ret, struct err *e);

/* A lock on the VM's devices, which the workers that change them keep until they have ended, also when their launcher is killed: as long as one
 * of them waits in the kernel, nobody else touches the devices. fd to be closed; -EBUSY after @timeout_ms; -ENOENT without @create if there never was one. */
int claim_busy(const char *rundir, bool create, unsigned int timeout_ms, struct err *e);

/* Undo a stale claim of a dead launcher: end QEMU if it was not to live on, end its helpers, give devices back, remove the claim.
 * and run the post-stop hook that is owed, which may take as long as it may. -EBUSY if it is alive. Idempotent. What fails is noted in the claim, which keeps only the devices that are not back, and claim_collect_use() tries again only after RECOVER_RETRY_S: a hung
 * device costs a minute each time. */
#define RECOVER_RETRY_S 600
#define BUSY_TIMEOUT_MS 3000
int claim_recover(const struct sysfs *s, struct claim *c, struct err *e);

/* What is QEMU's user's becomes its owners' again; what cannot, stays in @c, which is written. Idempotent. own.c */
int claim_give_back(struct claim *c, struct err *e);

/* End the helpers of a VM that is gone: most have ended with QEMU; one whose QEMU never came has not. */
int claim_stop_helpers(const struct claim *c, struct err *e);

/* The VM has ended and its devices are back: write last.json (state, reason, exit code, times), remove claim.json and the
 * sockets. Logs and plan.json stay for `status`, `log` and the curious until the next start. */
int claim_release(struct claim *c, int exit_code, struct err *e);

/* What claim_release() left behind: state, reason, exit code of the last run. -ENOENT if there was none. */
struct claim_last {
	char state[16];
	char *reason;
	int exit_code;
	int64_t started, ended;
};
int claim_read_last(const char *dir, struct claim_last *ret, struct err *e);

/* Names of VMs that have a folder, sorted. */
int claim_list(struct strv *ret, struct err *e);

/* The devices of a claim as bind operations that point into it; owned array. */
struct bind_op *claim_bind_ops(const struct claim *c);

/* This boot, from /proc/sys/kernel/random/boot_id; owned. */
char *claim_boot_id(void);

#endif
