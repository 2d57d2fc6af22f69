/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench_touch BYTES THREADS [PAGE-BYTES]: the floor of preallocation: how long as many threads take to write one byte of each page of that much fresh
 * memory, in ms. PAGE-BYTES (2097152, 1073741824): hugetlb pages. The kernel clears a page when it is first written, so no other way is quicker. */
#include <errno.h>
#include <linux/mman.h>
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
};

static void *touch(void *arg)
{
	struct part *p = arg;

	for (size_t i = 0; i < p->bytes; i += p->page)
		p->at[i] = 0;
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t bytes, threads, page = 4096;
	struct timespec a, b;
	struct part *v;
	char *m;

	if (argc < 3 || parse_u64(argv[1], 1, UINT64_MAX, &bytes) < 0 || parse_u64(argv[2], 1, 4096, &threads) < 0 ||
	    (argc > 3 && parse_u64(argv[3], 4096, UINT64_MAX, &page) < 0)) {
		fputs("usage: bench_touch BYTES THREADS [PAGE-BYTES]\n", stderr);
		return 2;
	}
	v = xcalloc(threads, sizeof(*v));
	clock_gettime(CLOCK_MONOTONIC, &a);
	m = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | (page > 4096 ? MAP_HUGETLB | (page > 2097152 ? MAP_HUGE_1GB : MAP_HUGE_2MB) : 0), -1, 0);
	if (m == MAP_FAILED) {
		fprintf(stderr, "bench_touch: %s\n", strerror(errno));
		return 1;
	}
	if (page == 4096)
		madvise(m, bytes, MADV_HUGEPAGE); /* as QEMU does for the memory of a guest */
	for (size_t i = 0; i < threads; i++) {
		size_t from = bytes / page * i / threads * page, to = bytes / page * (i + 1) / threads * page;

		v[i] = (struct part){ .at = m + from, .bytes = to - from, .page = page };
		if (pthread_create(&v[i].thread, NULL, touch, &v[i]))
			return 1;
	}
	for (size_t i = 0; i < threads; i++)
		pthread_join(v[i].thread, NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.3f\n", (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
	free(v);
	return 0;
}
