/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench_bind N MS serial|workers: how long bind_devices() takes, in ms, for N functions in the model of the kernel, whose drivers need MS each to let go. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gpuvm/bind.h"
#include "gpuvm/cleanup.h"
#include "tests/fake/kernel.h"

#define N_MAX 64

struct slow {
	struct fake_kernel kernel;
	struct timespec unbind;
};

static int slow_write(void *ctx, const char *path, const char *value)
{
	struct slow *s = ctx;
	size_t len = strlen(path);

	if (len > 7 && strcmp(path + len - 7, "/unbind") == 0)
		nanosleep(&s->unbind, NULL);
	return s->kernel.sys.write(s->kernel.sys.ctx, path, value);
}

int main(int argc, char **argv)
{
	struct fake_device devs[N_MAX];
	struct bind_op ops[N_MAX];
	char bdfs[N_MAX][PCI_ADDR_STR];
	struct timespec a, b;
	struct slow s = { 0 };
	struct sysfs sys;
	struct err e = { 0 };
	uint64_t n, ms;

	if (argc != 4 || parse_u64(argv[1], 1, N_MAX, &n) < 0 || parse_u64(argv[2], 0, 60000, &ms) < 0) {
		fputs("usage: bench_bind N MS serial|workers\n", stderr);
		return 2;
	}
	for (size_t i = 0; i < n; i++) {
		snprintf(bdfs[i], sizeof(bdfs[i]), "0000:%02zx:00.0", i + 1);
		devs[i] = (struct fake_device){ bdfs[i], 0x10de, 0x2330, 0x030200, (int)i, "nvidia" };
		ops[i] = (struct bind_op){ .from = "nvidia", .to = "vfio-pci" };
		parse_pci_addr(bdfs[i], &ops[i].addr);
	}
	if (fake_kernel_make(&s.kernel, devs, n) < 0)
		return 1;
	s.unbind = (struct timespec){ (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };
	sys = s.kernel.sys;
	sys.write = slow_write;
	sys.ctx = &s;
	sys.serial = strcmp(argv[3], "serial") == 0;
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (bind_devices(&sys, ops, n, &e) < 0)
		fprintf(stderr, "bench_bind: %s\n", e.msg);
	clock_gettime(CLOCK_MONOTONIC, &b);
	fake_kernel_free(&s.kernel);
	printf("%.3f\n", (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
	return e.code ? 1 : 0;
}
