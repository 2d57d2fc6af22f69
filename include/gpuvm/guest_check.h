/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest_check.h - a script for the guest that finds out whether the guest is what was planned.
 *
 * How it works: src/core/guest-check.sh has the checks as shell functions, the same for all VMs; behind it a function is written that calls them with
 * what was planned for one VM (addresses as firmware will give them, bridges above, nodes, sizes of BARs), and one with the topology file for
 * NCCL.  So it is one file that needs nothing else, and can be copied by whatever way there is.
 *
 * It compares what Linux shows in /proc and /sys with the plan.  Links, ATS, the NVIDIA driver, nvidia-peermem and Fabric Manager are looked at for
 * devices that have them; what nvidia-smi answers is known from documents only. */
#ifndef GPUVM_GUEST_CHECK_H
#define GPUVM_GUEST_CHECK_H

#include "gpuvm/plan.h"

#define GUEST_CHECK_FILE "gpuvm-check.sh" /* in the VM's run-time folder, and on the disk that the guest gets */

/* The script, owned.  @host is the topology that @p was planned on.  @host_driver: version of the host's NVIDIA driver, which its Fabric Manager
 * has, too; NULL or "": not known. */
char *guest_check_script(const struct plan *p, const struct topology *host, const char *host_driver);

#endif
