/* SPDX-License-Identifier: GPL-2.0-or-later */
/* progress.c - how far QEMU has come with the guest's memory, for whoever sits at the terminal. */
#include <inttypes.h>
#include <string.h>

#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define BAR_WIDTH 24
#define GIB	  (double)(UINT64_C(1) << 30)

/* Value of "@key:   123 kB" in a /proc/PID/status, in bytes; 0 if it is not there. */
static uint64_t status_bytes(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	uint64_t kib = 0;

	if (!at || sscanf(at + strlen(key), " %" SCNu64, &kib) != 1)
		return 0;
	return kib << 10;
}

/* Resident memory does not count hugetlb pages (proc(5)). */
uint64_t progress_resident(const char *status)
{
	return status_bytes(status, "\nVmRSS:") + status_bytes(status, "\nHugetlbPages:");
}

void launch_progress(struct launch *l)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/status", l->child.pid), *status = NULL, *bar = NULL;
	uint64_t done, total = plan_memory_bytes(&l->plan);

	if (!l->plan.n_nodes || !l->plan.nodes[0].prealloc || read_text_file(path, 1 << 16, &status) < 0)
		return;
	done = progress_resident(status);
	if (done > total)
		done = total;
	bar = log_bar(done, total, BAR_WIDTH);
	/* With the memory there QEMU still maps it for each device's IOMMU before it answers. */
	if (done > total - total / 64 && l->plan.n_devices)
		log_progress("%s: [%s] memory is there, devices are being attached, %" PRIu64 " s", l->plan.vm, bar, l->waited_s++);
	else
		log_progress("%s: [%s] preparing memory: %.1f of %.1f GiB, %" PRIu64 " s", l->plan.vm, bar, (double)done / GIB, (double)total / GIB,
			     l->waited_s++);
}
