/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: lines of /proc/interrupts, in which drivers write what they like.
 * covers: src/core/irq_line.c */
#include <stdint.h>
#include <string.h>

#include "gpuvm/irq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *line = xstrndup((const char *)data, size);
	struct irq irq = { .nr = -1 };

	if (irq_parse_line(line, &irq) && (irq.nr < 0 || irq.dev.dev > 31 || irq.dev.fn > 7 || !strstr(line, "vfio-")))
		abort();
	return 0;
}
