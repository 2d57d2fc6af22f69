/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_priv.h - what the parts of the probe share: a root, and reading small kernel files below it.
 *
 * Paths are relative to a folder's fd ("bus/pci/devices" below sys): one root or another makes no difference, and the
 * kernel need not walk from "/" for each of thousands of files. */
#ifndef GPUVM_HOST_PROBE_PRIV_H
#define GPUVM_HOST_PROBE_PRIV_H

#include "gpuvm/err.h"
#include "gpuvm/topology.h"

struct probe {
	const char *root; /* "" for this machine */
	bool live;
	int root_fd, sys_fd, proc_fd;
	struct topology *t; /* being filled */
	char *modules; /* of its kernel: those built in and those on disk; NULL: not read yet */
	struct pci_reading *pci; /* from probe_pci_begin() to probe_pci_end() */
};

int probe_open(const char *root, struct probe *ret, struct err *e);
void probe_close(struct probe *p);

/* First @size - 1 bytes of a file, without the final newline. Length or -Exxx. */
ssize_t probe_read(int dir_fd, const char *path, char *buf, size_t size);
ssize_t probe_readf(int dir_fd, char *buf, size_t size, const char *fmt, ...) PRINTF(4, 5);

/* A whole file, owned; NULL if it cannot be read. */
char *probe_read_all(int dir_fd, const char *path);

/* A number; @fallback if the file is not there or is something else. */
int probe_read_int(int dir_fd, const char *path, int fallback);
uint64_t probe_read_u64(int dir_fd, const char *path);
bool probe_exists(int dir_fd, const char *path);

/* Target of a link as it is, and only its last component. Length or -Exxx. */
ssize_t probe_link(int dir_fd, const char *path, char *buf, size_t size);
ssize_t probe_link_name(int dir_fd, const char *path, char *buf, size_t size);

/* Of a link below sys that leads into sys/devices: the way from sys, "devices/pci0000:00/...". -Exxx if it does not. */
ssize_t probe_device_path(const struct probe *p, const char *path, char *buf, size_t size);

/* Keep hwloc's variables of the user out of the way while it loads. */
#define N_HWLOC_ENV 7
struct hwloc_env {
	char *value[N_HWLOC_ENV];
};
void hwloc_env_enter(const char *fsroot, struct hwloc_env *ret); /* @fsroot: NULL for none */
void hwloc_env_leave(struct hwloc_env *s);

/* From hwloc's view of a machine to nodes and CPUs; also for an XML. */
struct hwloc_topology;
void probe_hwloc_cpus(struct topology *t, struct hwloc_topology *h);

/* The parts; each fills its fields of p->t. */
int probe_cpus(struct probe *p, struct err *e); /* nodes, cpus, memory, allowed */
int probe_pci_begin(struct probe *p, struct err *e); /* list the functions, and begin to read them where they are many */
void probe_pci(struct probe *p);                /* funcs; after probe_cpus() */
void probe_pci_end(struct probe *p);            /* whatever became of it; probe_close() does it */
void probe_names(const struct probe *p);        /* names of funcs */
void probe_dead(struct probe *p);               /* dead; after topology_finish() */
void probe_nets(struct probe *p);               /* nets */
void probe_use(struct probe *p);                /* host_use; after topology_finish() */

#endif
