/* SPDX-License-Identifier: GPL-2.0-or-later */
/* choose_gpus.h - the best set of free GPUs of a machine. */
#ifndef GPUVM_CHOOSE_GPUS_H
#define GPUVM_CHOOSE_GPUS_H

#include "gpuvm/topology.h"

#define CHOOSE_MAX 64 /* GPUs of a machine that take part */

/* Choose @want of the GPUs for which is_free[gpu_index] is set: fewest pairs across sockets, then nodes, host
 * bridges, stacked switches; then no switch split between VMs without need; then what fills up used nodes; then the lowest
 * indexes.  Writes function indexes in gpu_index order. -ENOSPC if there are not enough. */
int choose_gpus(const struct topology *host, const bool *is_free, int want, int *ret);

/* What choose_gpus() minimises, for one given set: is_in[gpu_index].  Compared from the first entry on; those before CHOOSE_NEAR are about
 * sockets and nodes. Returns false if a GPU of the set is not free. */
#define CHOOSE_COSTS 7
#define CHOOSE_NEAR  2
bool choose_gpus_cost(const struct topology *host, const bool *is_free, const bool *is_in, unsigned int ret[CHOOSE_COSTS]);

#endif
