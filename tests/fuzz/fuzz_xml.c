/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: an hwloc XML from anywhere. What comes out must hold together, and can be drawn.
 * covers: src/host/probe_xml.c */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpuvm/draw.h"
#include "gpuvm/probe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct topology *t)
{
	FILE *null = fopen("/dev/null", "we");

	for (size_t i = 0; i < t->n_funcs; i++)
		if (t->funcs[i].parent >= (int)i || t->funcs[i].node >= (int)t->n_nodes)
			abort();
	for (size_t i = 0; i < t->n_cpus; i++)
		if (t->cpus[i].node < 0 || (size_t)t->cpus[i].node >= t->n_nodes)
			abort();
	topology_print(t, NULL, DRAW_ALL, null);
	topology_print_matrix(t, NULL, 0, null);
	fclose(null);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct topology t = { 0 };
	struct err e;
	char path[64];
	int fd = memfd_create("xml", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (probe_topology_xml(path, &t, &e) == 0)
		check(&t);
	topology_clear(&t);
	close(fd);
	return 0;
}
