/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw.h - a topology for people and for scripts. Pure: what the terminal can do is told by flags. */
#ifndef GPUVM_DRAW_H
#define GPUVM_DRAW_H

#include "gpuvm/plan.h"
#include "gpuvm/topology.h"

struct json_object;

#define DRAW_ALL   1u /* every function and port, not only GPUs, NICs, NVMe, NVSwitches and what the host uses */
#define DRAW_UTF8  2u /* tree lines as box drawing characters */
#define DRAW_COLOR 4u /* ANSI colours */

/* The machine, then each node with its CPUs, memory and the PCIe tree below it.
 * @use: what running VMs hold, for "vm half0"; may be NULL. */
void topology_print(const struct topology *t, const struct host_use *use, unsigned int flags, FILE *out);

/* How near each GPU is to every GPU, NIC and NVMe controller, in the words of `nvidia-smi topo -m`, with a key and a
 * legend; of a machine without GPUs, how near its NICs are.  Devices have short names: G0 is GPU 0; NICs and
 * NVMe controllers are numbered with those near a GPU first. */
void topology_print_matrix(const struct topology *t, const struct host_use *use, unsigned int flags, FILE *out);
struct json_object *topology_matrix_to_json(const struct topology *t, const struct host_use *use);

/* A picture of the machine as SVG: who has which CPUs, memory and devices. */
void topology_draw_svg(const struct topology *t, const struct host_use *use, FILE *out);

/* The VM that has a device or a CPU (the kernel's number), NULL if none has. */
const char *host_use_device(const struct host_use *use, const struct pci_addr *a);
const char *host_use_cpu(const struct host_use *use, int cpu);

/* Everything in the topology, as JSON: "schema": 1; absent facts are null. Put it after use. */
struct json_object *topology_to_json(const struct topology *t, const struct host_use *use);

/* "NVIDIA H200 SXM 141GB" of "NVIDIA Corporation GH100 [H200 SXM 141GB]": what people call the device. */
const char *pci_func_short_name(const struct pci_func *f, char buf[96]);

#endif
