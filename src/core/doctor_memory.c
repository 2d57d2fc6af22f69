/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_memory.c - hugepages node by node, and what else decides how guest memory is. */
#include <inttypes.h>
#include <string.h>

#include "doctor_priv.h"

#define GIB	      (UINT64_C(1) << 30)
#define MAP_COUNT_MIN 65530 /* the kernel's default */

static uint64_t pool_total(const struct host_node *n, uint64_t page_bytes)
{
	const struct hugepage_pool *p = host_node_pool(n, page_bytes);

	return p ? p->total : 0;
}

static uint64_t reserved_bytes(const struct host_node *n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n->n_pools; i++)
		sum += n->pools[i].total * n->pools[i].page_bytes;
	return sum;
}

/* Nodes without memory (of CPUs, or of nothing) need none. */
static bool counts(const struct host_node *n)
{
	return n->mem_bytes > 0;
}

static bool has_gpu(const struct doctor *d, size_t node)
{
	for (size_t i = 0; i < d->host->n_funcs; i++)
		if (d->places[i].gpu && d->host->funcs[i].node == (int)node)
			return true;
	return false;
}

/* "hugepagesz=1G hugepages=0:960,1:960": 15 of 16 GiB for guests. */
static char *boot_words(const struct topology *t)
{
	char *text = NULL;
	size_t len = 0, n = 0;
	FILE *f = open_memstream(&text, &len);

	fprintf(f, "hugepagesz=1G hugepages=");
	for (size_t i = 0; i < t->n_nodes; i++)
		if (counts(&t->nodes[i]))
			fprintf(f, "%s%d:%" PRIu64, n++ ? "," : "", t->nodes[i].id, t->nodes[i].mem_bytes / GIB * 15 / 16);
	fclose(f);
	return text;
}

static void fix_node(struct doctor *d, const struct host_node *n, uint64_t page_bytes, uint64_t pages)
{
	doctor_fix(d,
		   "echo %" PRIu64 " >/sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64 "kB/nr_hugepages%s", pages, n->id, page_bytes >> 10,
		   page_bytes >= GIB ? " (pages of 1 GiB: better by hugepages=NODE:N,... on the kernel command line)" : "");
}

/* Of a CPU without pages of 1 GiB: the same at run time, on each node. */
static void fix_all_nodes(struct doctor *d, uint64_t page_bytes)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0, n = 0;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < d->host->n_nodes; i++)
		if (counts(&d->host->nodes[i]))
			fprintf(f, "%secho %" PRIu64 " >/sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64 "kB/nr_hugepages", n++ ? "; " : "",
				d->host->nodes[i].mem_bytes / 16 * 15 / page_bytes, d->host->nodes[i].id, page_bytes >> 10);
	fclose(f);
	doctor_fix(d, "%s", text);
}

static uint64_t most_pages(const struct topology *t, uint64_t page_bytes)
{
	uint64_t most = 0;

	for (size_t i = 0; i < t->n_nodes; i++)
		if (pool_total(&t->nodes[i], page_bytes) > most)
			most = pool_total(&t->nodes[i], page_bytes);
	return most;
}

/* The page size of which the machine has most bytes; 0: none is reserved. */
static uint64_t main_size(const struct topology *t)
{
	uint64_t best = 0, best_bytes = 0;

	for (size_t k = 0; k < t->nodes[0].n_pools; k++) {
		uint64_t size = t->nodes[0].pools[k].page_bytes, bytes = most_pages(t, size) * size;

		if (bytes > best_bytes) {
			best = size;
			best_bytes = bytes;
		}
	}
	return best;
}

static uint64_t smallest_size(const struct topology *t)
{
	uint64_t size = t->nodes[0].pools[0].page_bytes;

	for (size_t k = 1; k < t->nodes[0].n_pools; k++)
		if (t->nodes[0].pools[k].page_bytes < size)
			size = t->nodes[0].pools[k].page_bytes;
	return size;
}

/* A node that has fewer than others: what one VM after the other gets there is less. True: it has not. */
static bool check_node(struct doctor *d, size_t i, uint64_t size)
{
	const struct host_node *n = &d->host->nodes[i];
	uint64_t most = most_pages(d->host, size), total = pool_total(n, size);
	char subject[24], page[32];

	snprintf(subject, sizeof(subject), "node %d", n->id);
	format_size(size, page);
	if (!reserved_bytes(n)) {
		doctor_add(d, "hugepages-node", has_gpu(d, i) || !d->n_gpus ? DOCTOR_PROBLEM : DOCTOR_WARNING, subject,
			   "no hugepages on this node%s; another one has %" PRIu64 " of %s", has_gpu(d, i) ? ", which has GPUs" : "", most, page);
		fix_node(d, n, size, most);
		return false;
	}
	/* By less than a sixteenth: a node has some memory more or less than another one. */
	if (total >= most - most / 16)
		return true;
	doctor_add(d, "hugepages-node", DOCTOR_WARNING, subject, "%" PRIu64 " pages of %s; another node has %" PRIu64, total, page, most);
	fix_node(d, n, size, most);
	return false;
}

static void say_pools(struct doctor *d)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0, parts = 0;
	FILE *f = open_memstream(&text, &len);
	char page[32];

	for (size_t i = 0; i < d->host->n_nodes; i++)
		for (size_t k = 0; k < d->host->nodes[i].n_pools; k++) {
			const struct hugepage_pool *p = &d->host->nodes[i].pools[k];

			if (p->total)
				fprintf(f, "%snode %d: %" PRIu64 " of %s, %" PRIu64 " free", parts++ ? "; " : "", d->host->nodes[i].id, p->total,
					format_size(p->page_bytes, page), p->free);
		}
	fclose(f);
	doctor_add(d, "hugepages", DOCTOR_OK, "host", "%s", text);
}

static void check_boot(struct doctor *d)
{
	bool by_boot = d->f->cmdline && strstr(d->f->cmdline, "hugepagesz=1G"); /* also default_hugepagesz=1G hugepages=N */
	AUTO_FREE char *words = boot_words(d->host);

	if (!most_pages(d->host, GIB))
		return;
	if (!d->f->cmdline) {
		doctor_not_known(d, "hugepages-boot", "the kernel command line could not be read");
	} else if (by_boot) {
		doctor_add(d, "hugepages-boot", DOCTOR_OK, "host", "pages of 1 GiB are reserved by the kernel command line");
	} else {
		doctor_add(d, "hugepages-boot", DOCTOR_WARNING, "host", "pages of 1 GiB were reserved after boot, not by the kernel command line");
		doctor_fix(d, "add %s to the kernel command line", words);
	}
}

static void check_hugepages(struct doctor *d)
{
	const struct topology *t = d->host;
	AUTO_FREE char *words = boot_words(t);
	uint64_t size = t->n_nodes ? main_size(t) : 0;
	size_t n = 0, fine = 0;

	if (!t->n_nodes || !t->nodes[0].n_pools) {
		doctor_not_known(d, "hugepages", "the kernel has no hugepages, or they could not be read");
		return;
	}
	if (!size) {
		doctor_add(d, "hugepages", DOCTOR_WARNING, "host", "none is reserved, of any size, on any node");
		if (d->f->page_1g == 0)
			fix_all_nodes(d, smallest_size(t));
		else
			doctor_fix(d, "add %s to the kernel command line and reboot", words);
		return;
	}
	say_pools(d);
	for (size_t i = 0; i < t->n_nodes; i++) {
		if (!counts(&t->nodes[i]))
			continue;
		n++;
		fine += check_node(d, i, size);
	}
	if (fine == n)
		doctor_add(d, "hugepages-node", DOCTOR_OK, "host", n > 1 ? "the nodes have equally many" : "there is one node");
	check_boot(d);
}

static bool hugepages_everywhere(const struct topology *t)
{
	for (size_t i = 0; i < t->n_nodes; i++)
		if (counts(&t->nodes[i]) && !reserved_bytes(&t->nodes[i]))
			return false;
	return t->n_nodes > 0;
}

static void check_thp(struct doctor *d)
{
	if (!d->f->thp) {
		doctor_not_known(d, "thp", "/sys/kernel/mm/transparent_hugepage/enabled could not be read");
	} else if (strcmp(d->f->thp, "never")) {
		doctor_add(d, "thp", DOCTOR_OK, "host", "%s: guest memory without hugepages gets them", d->f->thp);
	} else if (hugepages_everywhere(d->host)) {
		doctor_add(d, "thp", DOCTOR_OK, "host", "never; there are reserved hugepages on every node");
	} else {
		doctor_add(d, "thp", DOCTOR_WARNING, "host", "transparent huge pages are off (never)");
		doctor_fix(d, "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled");
	}
}

static void check_free(struct doctor *d)
{
	int64_t normal = d->f->mem_total - (d->f->hugetlb > 0 ? d->f->hugetlb : 0);
	bool few = d->f->mem_available < normal / 20;

	if (d->f->mem_total < 0 || d->f->mem_available < 0) {
		doctor_not_known(d, "memory-free", "/proc/meminfo has no MemAvailable");
		return;
	}
	doctor_add(d, "memory-free", few ? DOCTOR_WARNING : DOCTOR_OK, "host", "%.1f GiB of %.1f GiB%s are available",
		   (double)d->f->mem_available / (double)GIB, (double)normal / (double)GIB, d->f->hugetlb > 0 ? " outside of hugepages" : "");
	if (few)
		doctor_fix(d, "reserve fewer hugepages, or end what uses the memory (`ps --sort=-rss -eo rss,args`)");
}

static void check_swap(struct doctor *d)
{
	if (d->f->swap_total < 0 || d->f->swap_used < 0) {
		doctor_not_known(d, "swap", "/proc/meminfo has no SwapTotal");
	} else if (d->f->mem_total > 0 && d->f->swap_used > d->f->mem_total / 100) {
		doctor_add(d, "swap", DOCTOR_WARNING, "host", "%.1f GiB of swap are in use", (double)d->f->swap_used / (double)GIB);
		doctor_fix(d, "swapoff -a, if there is enough memory; reserve fewer hugepages if there is not");
	} else {
		doctor_add(d, "swap", DOCTOR_OK, "host", d->f->swap_total ? "on, and next to nothing is in it" : "off");
	}
}

static void check_kernel_threads(struct doctor *d)
{
	if (d->f->ksm == 1) {
		doctor_add(d, "ksm", DOCTOR_WARNING, "host", "the kernel merges equal pages (KSM)");
		doctor_fix(d, "echo 2 >/sys/kernel/mm/ksm/run; systemctl disable --now ksm ksmtuned");
	} else if (d->f->ksm >= 0) {
		doctor_add(d, "ksm", DOCTOR_OK, "host", "off");
	} else {
		doctor_not_known(d, "ksm", "/sys/kernel/mm/ksm/run could not be read");
	}
	if (d->f->numa_balancing < 0)
		doctor_not_known(d, "numa-balancing", "/proc/sys/kernel/numa_balancing could not be read");
	else
		doctor_add(d, "numa-balancing", DOCTOR_OK, "host",
			   d->f->numa_balancing ? "on; memory that is bound to nodes, as that of guests is, is left alone" : "off");
}

static void check_map_count(struct doctor *d)
{
	if (d->f->max_map_count < 0) {
		doctor_not_known(d, "max-map-count", "/proc/sys/vm/max_map_count could not be read");
	} else if (d->f->max_map_count >= MAP_COUNT_MIN) {
		doctor_add(d, "max-map-count", DOCTOR_OK, "host", "%" PRId64, d->f->max_map_count);
	} else {
		doctor_add(d, "max-map-count", DOCTOR_WARNING, "host", "%" PRId64 "; the kernel's default is %d", d->f->max_map_count, MAP_COUNT_MIN);
		doctor_fix(d, "sysctl -w vm.max_map_count=%d", MAP_COUNT_MIN);
	}
}

void doctor_check_memory(struct doctor *d)
{
	check_hugepages(d);
	check_thp(d);
	check_free(d);
	check_swap(d);
	check_kernel_threads(d);
	check_map_count(d);
}
