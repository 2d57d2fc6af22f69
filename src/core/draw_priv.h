/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw_priv.h - what the tree and the picture share: words, and what is worth showing. */
#ifndef GPUVM_CORE_DRAW_PRIV_H
#define GPUVM_CORE_DRAW_PRIV_H

#include "gpuvm/draw.h"

const char *draw_rough_size(uint64_t bytes, char buf[32]);        /* "256 GiB", "1.5 GiB" */
const char *draw_link_text(struct pci_link l, char buf[32]);      /* "32 GT/s x16", "" */
const char *draw_port_word(const struct topology *t, int bridge); /* "switch", "port", "root port", "bridge" */
char *draw_label(const struct pci_func *f);                       /* "gpu 3", "nic", "sata"; owned */
bool draw_is_interesting(const struct pci_func *f);
int draw_count_cores(const struct topology *t, int node); /* -1: of the machine */

#endif
