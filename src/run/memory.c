/* SPDX-License-Identifier: GPL-2.0-or-later */
/* memory.c - is the memory that was planned still there?
 *
 * The planner has counted it, but until QEMU takes it minutes may pass (hooks, devices that are waited for), and pools of huge pages are anybody's who can
 * write to sysfs.  So they are counted once more right before QEMU is started, and when it has ended for want of memory: its own words say no more than that. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "gpuvm/launch.h"
#include "gpuvm/probe.h"

#define PAGE_BYTES 4096
#define MIB	   (UINT64_C(1) << 20)

/* Pages of the pool that the node is given from; false if that is not known. */
static bool read_pool(const struct launch *l, const struct plan_node *n, const char *file, uint64_t *ret)
{
	AUTO_FREE char *path = xasprintf("hugepages/hugepages-%" PRIu64 "kB/%s", n->page_bytes / 1024, file);
	AUTO_FREE char *text = sysfs_read(&l->sys, "/sys/devices/system/node/node%d/%s", n->host_node, path);

	/* A kernel without NUMA. */
	if (!text)
		text = sysfs_read(&l->sys, "/sys/kernel/mm/%s", path);
	return text && parse_u64(text, 0, UINT64_MAX, ret) == 0;
}

static int check_pool(const struct launch *l, const struct plan_node *n, struct err *e)
{
	int node = topology_find_node(&l->host, n->host_node);
	const struct hugepage_pool *then = node < 0 ? NULL : host_node_pool(&l->host.nodes[node], n->page_bytes);
	uint64_t need = n->memory_bytes / n->page_bytes, have, total;
	char page[32];

	if (!read_pool(l, n, "free_hugepages", &have) || !read_pool(l, n, "nr_hugepages", &total) || have >= need)
		return 0;
	err_set(e, -ENOMEM,
		"guest node %d needs %" PRIu64 " pages of %s on host node %d, which has %" PRIu64 " free of %" PRIu64 " now, and had %" PRIu64
		" free when the VM was planned; echo %" PRIu64 " > /sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64
		"kB/nr_hugepages, or lower [memory] size",
		n->guest_node, need, format_size(n->page_bytes, page), n->host_node, have, total, then ? then->free : 0, total + need - have, n->host_node,
		n->page_bytes / 1024);
	e->word = "hugepages-short";
	return -ENOMEM;
}

static int check_pools(const struct launch *l, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < l->plan.n_nodes && r == 0; i++)
		if (l->plan.nodes[i].page_bytes > PAGE_BYTES)
			r = check_pool(l, &l->plan.nodes[i], e);
	return r;
}

/* How many processes the kernel has killed for want of memory, a cgroup's included; 0 if it does not say. */
static uint64_t oom_kills(void)
{
	AUTO_FREE char *text = NULL;
	const char *at = read_text_file("/proc/vmstat", 1 << 20, &text) == 0 ? strstr(text, "\noom_kill ") : NULL;
	uint64_t n;

	return at && sscanf(at, "\noom_kill %" SCNu64, &n) == 1 ? n : 0;
}

int launch_check_memory(struct launch *l, struct err *e)
{
	l->oom_kills = oom_kills();
	return l->plan.foreign_host ? 0 : check_pools(l, e);
}

/* --- afterwards ------------------------------------------------------------------------------------------- */

const char *launch_oom_text(const struct launch *l, int wait_status)
{
	if (!WIFSIGNALED(wait_status) || WTERMSIG(wait_status) != SIGKILL || oom_kills() <= l->oom_kills)
		return "";
	return "; the kernel has killed for want of memory meanwhile, the host's or a cgroup's (`dmesg` says whom)";
}

static bool is_about_memory(const char *words)
{
	/* mmap(2) of any kind; QEMU's preallocation until 7.2, since. */
	static const char *const texts[] = { "Cannot allocate memory", "Insufficient free host memory pages", "preallocating memory failed" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (strstr(words, texts[i]))
			return true;
	return false;
}

/* The first node that has less than is planned there; else it is not the node that lacks it. */
static int explain_plain(const struct launch *l, struct err *e)
{
	struct topology now = { 0 };
	char need[32], have[32];
	int r = probe_host_lean("", &now, e);

	if (r < 0)
		return r;
	err_set(e, -ENOMEM, "QEMU gets no memory, though the host has it: is there a limit (of the cgroup; ulimit -v, -l), or are huge pages "
			    "reserved (HugePages_Rsvd in /proc/meminfo)?");
	for (size_t i = 0; i < l->plan.n_nodes; i++) {
		const struct plan_node *n = &l->plan.nodes[i];
		int node = topology_find_node(&now, n->host_node);

		if (n->page_bytes > PAGE_BYTES || node < 0 || now.nodes[node].free_bytes >= n->memory_bytes)
			continue;
		err_set(e, -ENOMEM, "guest node %d needs %s on host node %d, which has %s free now; stop what uses it, or lower [memory] size", n->guest_node,
			format_size(n->memory_bytes, need), n->host_node, format_size(now.nodes[node].free_bytes / MIB * MIB, have));
		break;
	}
	e->word = "memory-short";
	topology_clear(&now);
	return 0;
}

void launch_explain_memory(const struct launch *l, const char *words, struct err *e)
{
	struct err why = { 0 };

	/* Another machine's nodes are not ours. */
	if (!is_about_memory(words) || l->plan.foreign_host || (check_pools(l, &why) == 0 && explain_plain(l, &why) < 0))
		return;
	err_wrap(e, "%s", why.msg);
	e->word = why.word;
}
