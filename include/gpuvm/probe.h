/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe.h - read a host into struct topology. The only user of hwloc (nodes, CPUs, caches) and libpci (functions, names).
 *
 * With a sysroot, the same files are read below it and nothing of this machine is: a captured or generated root
 * gives the same topology on every machine (names too, if it brings usr/share/misc/pci.ids).
 * What a captured root needs (links relative, as sysfs has them):
 *   sys/devices/system/{cpu,node}, sys/kernel/mm/hugepages, sys/kernel/iommu_groups, sys/class/iommu, sys/class/misc/{kvm,vfio},
 *   sys/bus/pci/{devices,drivers}, of each function: modalias, config, resource, numa_node, local_cpulist, driver, driver_override,
 *   iommu_group, physfn, virtfn0, sriov_numvfs, boot_vga, reset_method, {max,current}_link_{speed,width};
 *   sys/{dev,class}/block, sys/class/{net,nvme}, sys/devices/virtual/{block,net,nvme-subsystem}, sys/fs/btrfs;
 *   proc/{cpuinfo,meminfo,swaps,self/mountinfo,net/{route,ipv6_route,if_inet6},sys/kernel/{hostname,osrelease}}, etc/machine-id. */
#ifndef GPUVM_PROBE_H
#define GPUVM_PROBE_H

#include "gpuvm/err.h"
#include "gpuvm/topology.h"

/* @root: "" or "/" for this machine, else a folder with sys/ and proc/.
 * A machine without NUMA gets one node 0 with everything. Returns 0 or -Exxx; @ret is untouched on failure. */
int probe_host(const char *root, struct topology *ret, struct err *e);

/* From an hwloc XML (`lstopo x.xml`), of hwloc 1 or 2: nodes, CPUs, memory, PCI tree, as far as it has them; ret->gaps
 * says what it cannot have.  A file of hwloc 3 is -EPROTONOSUPPORT, a damaged one -EBADMSG. */
int probe_topology_xml(const char *path, struct topology *ret, struct err *e);

/* From whatever names a machine: @xml if it is not NULL, else @root, which may also be a tar of `gpuvm capture`. */
int probe_source(const char *root, const char *xml, struct topology *ret, struct err *e);

/* Mark the functions that the host itself uses (host_use): mounted file systems and swap (through device mapper
 * and md to the controllers below), network interfaces with an address or a route, also below bridges and bonds.
 * Reads /proc/self/mountinfo, /proc/swaps, /proc/net/{route,ipv6_route,if_inet6}, /sys/class/{block,net}. Called by probe_host(). */
int probe_host_use(const char *root, struct topology *t, struct err *e);

/* Find the version of a QEMU binary by running it; and the OVMF images of this machine. */
struct qemu_info;
int probe_qemu(const char *binary, struct qemu_info *ret, struct err *e);
void qemu_info_clear(struct qemu_info *q);

#endif
