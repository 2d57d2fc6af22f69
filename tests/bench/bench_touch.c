/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench_touch BYTES THREADS [PAGE-BYTES [NODE...]]: the floor of preallocation: how long as many threads take to write one byte of each page of that much
 * fresh memory, in ms. PAGE-BYTES (2097152, 1073741824): hugetlb pages. NODE: an equal part on each of these NUMA nodes and nowhere else, each by THREADS
 * threads on its CPUs, all at once. The kernel clears a page when it is first written, so no other way is quicker. */
#include <errno.h>
#include <linux/mman.h>
#include <numa.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "gpuvm/cleanup.h"
#include "gpuvm/parse.h"

struct part {
	pthread_t thread;
	volatile char *at;
	size_t bytes, page;
	int node; /* -1: any */
};

static void *touch(void *arg)
{
	struct part *p = arg;

	if (p->node >= 0 && numa_run_on_node(p->node) < 0) {
		fprintf(stderr, "bench_touch: CPUs of node %d: %s\n", p->node, strerror(errno));
		exit(1);
	}
	for (size_t i = 0; i < p->bytes; i += p->page)
		p->at[i] = 0;
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t bytes, threads, page = 4096, node;
	size_t nodes, each;
	struct timespec a, b;
	struct part *v;

	if (argc < 3 || parse_u64(argv[1], 1, UINT64_MAX, &bytes) < 0 || parse_u64(argv[2], 1, 4096, &threads) < 0 ||
	    (argc > 3 && parse_u64(argv[3], 4096, UINT64_MAX, &page) < 0)) {
		fputs("usage: bench_touch BYTES THREADS [PAGE-BYTES [NODE...]]\n", stderr);
		return 2;
	}
	if (argc > 4 && numa_available() < 0) {
		fputs("bench_touch: the kernel has no NUMA\n", stderr);
		return 1;
	}
	numa_exit_on_error = 1;
	numa_set_bind_policy(1);
	nodes = argc > 4 ? (size_t)argc - 4 : 1;
	each = bytes / nodes / page * page;
	v = xcalloc(nodes * threads, sizeof(*v));
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (size_t k = 0; k < nodes; k++) {
		int on = -1;
		char *m = mmap(NULL, each, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | (page > 4096 ? MAP_HUGETLB | (page > 2097152 ? MAP_HUGE_1GB : MAP_HUGE_2MB) : 0), -1, 0);

		if (m == MAP_FAILED) {
			fprintf(stderr, "bench_touch: %s\n", strerror(errno));
			return 1;
		}
		if (page == 4096)
			madvise(m, each, MADV_HUGEPAGE); /* as QEMU does for the memory of a guest */
		if (argc > 4) {
			if (parse_u64(argv[4 + k], 0, (uint64_t)numa_max_node(), &node) < 0) {
				fprintf(stderr, "bench_touch: there is no node '%s'\n", argv[4 + k]);
				return 2;
			}
			on = (int)node;
			numa_tonode_memory(m, each, on);
		}
		for (size_t i = 0; i < threads; i++) {
			size_t from = each / page * i / threads * page, to = each / page * (i + 1) / threads * page;

			v[k * threads + i] = (struct part){ .at = m + from, .bytes = to - from, .page = page, .node = on };
		}
	}
	for (size_t i = 0; i < nodes * threads; i++)
		if (pthread_create(&v[i].thread, NULL, touch, &v[i]))
			return 1;
	for (size_t i = 0; i < nodes * threads; i++)
		pthread_join(v[i].thread, NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.3f\n", (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
	free(v);
	return 0;
}
