/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench_probe [ROOT]: read a host, as each start does. */
#include <stdio.h>

#include "gpuvm/probe.h"

int main(int argc, char **argv)
{
	struct topology t = { 0 };
	struct err e = { 0 };

	if (probe_host(argc > 1 ? argv[1] : "", &t, &e) < 0) {
		fprintf(stderr, "bench_probe: %s\n", e.msg);
		return 1;
	}
	topology_clear(&t);
	return 0;
}
