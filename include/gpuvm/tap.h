/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap.h - tap devices for QEMU: made, put in a bridge and brought up, as open files.
 *
 * How it works: each queue pair is an open file of /dev/net/tun that TUNSETIFF attaches to the interface
 * (Documentation/networking/tuntap.rst).  One that is made here is not persistent: the kernel removes it, from its bridge too, when
 * the last file is closed.  So there is no undo, and nothing is left whoever is killed.  An existing one is attached to and
 * otherwise left as it is.  With vhost each pair has an open file of /dev/vhost-net as well; modules are loaded when a node is missing. */
#ifndef GPUVM_TAP_H
#define GPUVM_TAP_H

#include "gpuvm/err.h"
#include "gpuvm/plan.h"

/* Open what @t says. 0, or -Exxx with the interface and the cure in @e; @ret, to be given to tap_close(), is untouched then. */
int tap_open(const struct plan_tap *t, struct plan_tap_fds *ret, struct err *e);
void tap_close(struct plan_tap_fds *fds);

#endif
