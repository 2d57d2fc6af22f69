/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nccl.h - a topology file for NCCL in the guest.
 *
 * NCCL reads link speeds from the guest's sysfs, where QEMU's switch ports (x3130, xio3130) say 2.5 GT/s x1: it then
 * counts 0.2 GB/s between a switch and the CPU.  With NCCL_TOPO_FILE=FILE in the guest's environment it takes what the file
 * says about a PCI function for true, and asks the guest only for what the file leaves out (src/graph/xml.cc of NCCL).
 *
 * The file has the guest's nodes with their vCPUs, the switches, the GPUs and the NICs, at the addresses that the guest will see,
 * with the links of the host's path.  NVLink, NVSwitch and the CPU's model are left to NCCL, which asks driver and CPU.
 * Where the guest's tree hides the host's switches ([pcie] topology = root-port or flat), the file shows them, at
 * addresses that no function has (ffff:NN:00.0). */
#ifndef GPUVM_NCCL_H
#define GPUVM_NCCL_H

#include "gpuvm/plan.h"

#define NCCL_FILE "nccl-topo.xml" /* its name in the VM's run-time folder */

/* Is there anything in it? Not for a VM without GPUs. */
bool nccl_is_wanted(const struct plan *p);

/* The file's text, owned; NULL if it is not wanted.  @host is the topology that @p was planned on. */
char *nccl_topology_xml(const struct plan *p, const struct topology *host);

#endif
