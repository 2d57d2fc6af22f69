/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe.h - read a host into struct topology. The only user of hwloc (nodes, CPUs, caches) and libpci (functions, names).
 *
 * With a sysroot, the same files are read below it and nothing of this machine is: a captured or generated root
 * gives the same topology on every machine (names too, if it brings usr/share/misc/pci.ids).
 * What a captured root needs (links relative, as sysfs has them):
 *   sys/devices/system/{cpu,node}, sys/kernel/mm/hugepages, sys/kernel/iommu_groups, sys/class/iommu, sys/class/misc/{kvm,vfio,vhost-net,vhost-vsock},
 *   sys/bus/pci/{devices,drivers}, of each function: modalias, config, resource, numa_node, local_cpulist, driver, driver_override,
 *   iommu_group, physfn, virtfn0, sriov_numvfs, boot_vga, reset_method, power_state, {max,current}_link_{speed,width};
 *   sys/{dev,class}/block, sys/class/{net,nvme}, of each interface: mtu, flags,
 *   carrier, tun_flags, bridge, master, lower_*; sys/devices/virtual/{block,net,nvme-subsystem}, sys/fs/btrfs;
 *   proc/{cpuinfo,meminfo,swaps,self/mountinfo,net/{route,ipv6_route,if_inet6},sys/kernel/{hostname,osrelease}}, etc/machine-id. */
#ifndef GPUVM_PROBE_H
#define GPUVM_PROBE_H

#include "gpuvm/err.h"
#include "gpuvm/topology.h"

/* @root: "" or "/" for this machine, else a folder with sys/ and proc/.
 * A machine without NUMA gets one node 0 with everything. Returns 0 or -Exxx; @ret is untouched on failure. */
int probe_host(const char *root, struct topology *ret, struct err *e);

/* The same for a VM without devices: without PCI functions, which nothing asks for then, and what the host uses of them. */
int probe_host_lean(const char *root, struct topology *ret, struct err *e);

/* From an hwloc XML (`lstopo x.xml`), of hwloc 1 or 2: nodes, CPUs, memory, PCI tree, as far as it has them; ret->gaps
 * says what it cannot have.  A file of hwloc 3 is -EPROTONOSUPPORT, a damaged one -EBADMSG. */
int probe_topology_xml(const char *path, struct topology *ret, struct err *e);

/* From whatever names a machine: @xml if it is not NULL, else @root, which may also be a tar of `gpuvm capture`. */
int probe_source(const char *root, const char *xml, struct topology *ret, struct err *e);

/* Mark the functions that the host itself uses (host_use): mounted file systems and swap (through device mapper
 * and md to the controllers below), network interfaces with an address or a route, also below bridges and bonds.
 * Reads /proc/self/mountinfo, /proc/swaps, /proc/net/{route,ipv6_route,if_inet6}, /sys/class/{block,net}. Called by probe_host(). */
int probe_host_use(const char *root, struct topology *t, struct err *e);

/* --- QEMU: what it is and can do (qemu.h) ---------------------------------------------------------------------------- */

struct qemu_info;
struct strv;
struct json_object;

struct qemu_probe {
	const char *binary;    /* a path, or a name to be found in PATH; NULL: qemu-system-x86_64, or where RHEL has it */
	const struct strv *env; /* what it is started with beside a minimal environment: [qemu] env; may be NULL */
	const char *cache_dir; /* "/var/lib/gpuvm/qemu"; NULL: none */
	bool read_only;	       /* read the cache, never write it (a dry run) */
	unsigned int timeout_ms; /* 0: 30 s */
};

/* Find the binary, ask it or read what it has answered before, and find the OVMF images of this machine.
 * -ENOENT: no such program. -ETIMEDOUT, -EPROTO, ...: it is no QEMU that answers; the message quotes what it has printed.
 * @ret is untouched on failure. */
int probe_qemu(const struct qemu_probe *o, struct qemu_info *ret, struct err *e);

/* For a QEMU that is not here: recorded answers. @binary (may be NULL) only names the program in the command. */
int probe_qemu_recorded(const char *file, const char *binary, struct qemu_info *ret, struct err *e);

/* The answers of the binary at @path, asked now. Owned. */
int qemu_ask(const char *path, const struct strv *env, unsigned int timeout_ms, struct json_object **ret, struct err *e);

/* The cache holds one file per binary (path and environment), valid for that very file, its set of modules, and what this program
 * asks.  identity: NULL if there is no saying; a program that is not an ELF file has none, as a script says nothing about what it starts.
 * read: true if @ret was filled.  write: failures are logged, not returned: the next run asks again. */
struct json_object *qemu_identity(const char *path, const struct strv *env);
bool qemu_cache_read(const char *dir, struct json_object *identity, struct qemu_info *ret);
void qemu_cache_write(const char *dir, struct json_object *identity, struct json_object *answers);

#endif
