/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_guest.c - small virtual devices by which guests talk to the host. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "argv_priv.h"

void arg_guest(struct builder *b)
{
	struct qopt o;

	b->group = "guest";
	if (b->vm->guest_rng) {
		qopt_init(&o, "virtio-rng-pci");
		qopt_str(&o, "id", "rng0");
		arg_virtio_addr(b, &o);
		arg_why(b, "-device", qopt_finish(&o), "entropy: guests that boot at once would wait for it");
	}
}
