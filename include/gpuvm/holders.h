/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holders.h - who uses a PCI function right now, before it is taken from its driver.
 *
 * The kernel does not refuse to take a driver away from a device in use: the write blocks for as long as it is (vfio, nvidia), or the
 * device goes from under its users (nvme, mlx5).  So it is asked beforehand:
 *
 *   processes   that have one of its device nodes open or mapped: every `dev` file below the function's folder in sysfs, its heads of NVMe
 *               multipath, its VFIO group, and /dev/nvidiaN and /dev/nvidia-nvswitchN, which sysfs does not know.  By device number, not by
 *               path: containers have nodes of their own.  /dev/nvidiactl and nvidia-uvm are of no GPU in particular; who uses an
 *               instance of MIG (nvidia-caps) has the GPU's node open, too.
 *   the host    mounts, swap, addresses and routes, all as probe_host_use() knows them; members of md and device mapper; block devices
 *               that somebody has exclusively, which nothing in sysfs tells of ZFS and btrfs (an open with O_EXCL is EBUSY: open(2)); interfaces
 *               that are in a bond or a bridge; virtual functions that are switched on.
 *
 * What else is in the IOMMU groups is not asked here: the planner and bind_check_groups() do.
 * Looking into processes may block (a maps file waits for the memory of a process that is itself stuck in a driver), and so may opening a
 * disk that does not answer: both are done in worker processes with a deadline (20 s each), and what they have found until then counts. */
#ifndef GPUVM_HOLDERS_H
#define GPUVM_HOLDERS_H

#include "gpuvm/err.h"
#include "gpuvm/parse.h"
#include "gpuvm/sysfs.h"

enum holder_kind {
	HOLDER_OPEN,   /* a process has a node open: pid, comm; what is "/dev/nvidia0" */
	HOLDER_MAPPED, /* likewise, but only mapped */
	HOLDER_USE,    /* what the host does with it: what is a sentence, "nvme0n1p2 is mounted on /data" */
	HOLDER_VFS,    /* it has virtual functions */
};

struct holder {
	struct pci_addr addr; /* the function that is held */
	enum holder_kind kind;
	int pid; /* 0: no process */
	char comm[16];
	char *what;
	char *hint; /* how to get rid of it: "systemctl stop nvidia-persistenced"; or NULL */
};

void holders_free(struct holder *v, size_t n);

/* Who holds any of the @n functions: one look at all processes for all of them. *@ret in the order of @v, each process and node once.
 * 0; 1 if not everything could be looked at (processes of others without root, or the deadline): @e says what; -Exxx. */
int holders_find(const struct sysfs *s, const struct pci_addr *v, size_t n, struct holder **ret, size_t *ret_n, struct err *e);

struct holders_wait {
	unsigned int timeout_ms; /* 0: do not wait */
	int cancel_fd;		 /* readable: give up; -1: none. Nothing is read from it */
	/* Called after each look that found somebody, with 0 after the first one; may be NULL. */
	void (*progress)(void *ctx, const struct holder *v, size_t n, uint64_t waited_ms);
	void *ctx;
};

/* Wait until nobody holds them. Only processes are waited for, by their pidfds, and by looking again now and then for those that live on: what the host
 * itself does with a device does not end by itself.
 * 0, or 1 as above: free.  -EBUSY: the host uses one; -ETIMEDOUT: processes do, still; -EINTR: cancelled. Then *@ret is who is left (else
 * nothing) and @e names them, with the word "device-busy". */
int holders_wait(const struct sysfs *s, const struct pci_addr *v, size_t n, const struct holders_wait *o, struct holder **ret, size_t *ret_n,
		 struct err *e);

/* "0000:17:00.0 is in use: process 4711 (python3) has /dev/nvidia0 open; ..." for a message, with hints; owned. */
char *holders_text(const struct holder *v, size_t n);

#endif
