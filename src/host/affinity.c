/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <string.h>

#include "gpuvm/affinity.h"
#include "gpuvm/parse.h"
#include "gpuvm/strv.h"

/* The kernel's mask is an array of unsigned long, and so is ours: it is passed as it is. */
_Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "LP64 only");

/* --- threads ----------------------------------------------------------------------------------------- */

int affinity_set(pid_t tid, const struct cpuset *cpus, struct err *e)
{
	AUTO_FREE char *want = cpuset_format(cpus);
	struct cpuset now;
	int r;

	if (sched_setaffinity(tid, sizeof(cpus->w), (const cpu_set_t *)cpus->w) < 0)
		return err_sys(e, -errno, "run thread %d on CPUs '%s'", (int)tid, want);
	r = affinity_get(tid, &now, e);
	if (r < 0)
		return r;
	if (!cpuset_equal(cpus, &now)) {
		AUTO_FREE char *got = cpuset_format(&now);

		return err_set(e, -EXDEV, "run thread %d on CPUs '%s': the kernel allows only '%s' (cgroup cpuset, or CPUs offline)",
			       (int)tid, want, got);
	}
	return 0;
}

bool affinity_unlimit(pid_t tid)
{
	struct cpuset all;

	memset(&all, 0xff, sizeof(all));
	return sched_setaffinity(tid, sizeof(all.w), (const cpu_set_t *)all.w) == 0;
}

int affinity_get(pid_t tid, struct cpuset *ret, struct err *e)
{
	struct cpuset now = { 0 };

	if (sched_getaffinity(tid, sizeof(now.w), (cpu_set_t *)now.w) < 0)
		return err_sys(e, -errno, "read the CPUs of thread %d", (int)tid);
	*ret = now;
	return 0;
}

static int by_tid(const void *a, const void *b)
{
	const struct thread_info *x = a, *y = b;

	return (x->tid > y->tid) - (x->tid < y->tid);
}

/* False if the thread has ended meanwhile. */
static bool read_thread(pid_t pid, int tid, struct thread_info *ret)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/task/%d/comm", (int)pid, tid);
	AUTO_FREE char *name = NULL;
	struct err ignored;

	if (read_text_file(path, 64, &name) < 0 || affinity_get(tid, &ret->cpus, &ignored) < 0)
		return false;
	ret->tid = tid;
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	return true;
}

int affinity_threads(pid_t pid, struct thread_info **ret, size_t *ret_n, struct err *e)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/task", (int)pid);
	AUTO_FREE struct thread_info *v = NULL;
	AUTO_CLOSEDIR DIR *dir = opendir(path);
	struct dirent *d;
	size_t n = 0;

	if (!dir)
		return err_sys(e, errno == ENOENT ? -ESRCH : -errno, "list the threads of process %d", (int)pid);
	while (errno = 0, (d = readdir(dir))) {
		struct thread_info t = { 0 };
		int tid;

		if (parse_int(d->d_name, 1, INT_MAX, &tid) == 0 && read_thread(pid, tid, &t))
			*PUSH_ZEROED(v, n) = t;
	}
	if (errno)
		return err_sys(e, -errno, "list the threads of process %d", (int)pid);
	if (n)
		qsort(v, n, sizeof(*v), by_tid);
	*ret = STEAL_PTR(v);
	*ret_n = n;
	return 0;
}

/* Any process may take any name, but not kthreadd (2) for its parent. */
static bool is_kernel_thread(int pid)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/stat", pid), *text = NULL;
	const char *tail;
	int parent;

	if (read_text_file(path, 4096, &text) < 0)
		return false;
	tail = strrchr(text, ')');
	return tail && sscanf(tail + 1, " %*c %d", &parent) == 1 && parent == 2;
}

int affinity_add_vhost(pid_t pid, struct thread_info **v, size_t *n, struct err *e)
{
	AUTO_FREE char *name = xasprintf("vhost-%d", (int)pid);
	AUTO_CLOSEDIR DIR *dir = opendir("/proc");
	struct dirent *d;

	if (!dir)
		return err_sys(e, -errno, "list '/proc'");
	while (errno = 0, (d = readdir(dir))) {
		struct thread_info t = { 0 };
		int tid;

		if (parse_int(d->d_name, 1, INT_MAX, &tid) == 0 && read_thread(tid, tid, &t) && !strcmp(t.name, name) && is_kernel_thread(tid))
			*PUSH_ZEROED(*v, *n) = t;
	}
	return errno ? err_sys(e, -errno, "list '/proc'") : 0;
}

/* --- memory ------------------------------------------------------------------------------------------ */

static int open_proc(pid_t pid, const char *file, FILE **ret, struct err *e)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/%s", (int)pid, file);

	*ret = fopen(path, "re");
	return *ret ? 0 : err_sys(e, errno == ENOENT ? -ESRCH : -errno, "open '%s'", path);
}

/* "7f12-7f34 rw-p ..." -> start and end. */
static bool parse_range(char *line, uint64_t *start, uint64_t *end)
{
	char *dash = strchr(line, '-');
	char *blank = strchr(line, ' ');

	if (!dash || !blank || blank < dash)
		return false;
	*dash = *blank = '\0';
	return parse_hex(line, UINT64_MAX, start) == 0 && parse_hex(dash + 1, UINT64_MAX, end) == 0;
}

/* One word of a numa_maps line behind the address: "N0=512", "kernelpagesize_kB=2048"; all others do not matter here. */
static void parse_numa_word(char *word, struct numa_mapping *m)
{
	char *eq = strchr(word, '=');
	uint64_t node, value;

	if (!eq)
		return;
	*eq = '\0';
	if (parse_u64(eq + 1, 0, UINT64_MAX / 1024, &value) < 0)
		return;
	if (strcmp(word, "kernelpagesize_kB") == 0)
		m->page_bytes = value * 1024;
	else if (*word == 'N' && parse_u64(word + 1, 0, ARRAY_SIZE(m->pages) - 1, &node) == 0)
		m->pages[node] = value;
}

/* "7f12 bind:0 file=/memfd:x dirty=512 N0=512 kernelpagesize_kB=2048"; the kernel escapes blanks in file names. */
static bool parse_numa_line(char *line, struct numa_mapping *m)
{
	char *save = NULL;
	char *addr = strtok_r(line, " ", &save);
	char *policy = strtok_r(NULL, " ", &save);
	char *word = strtok_r(NULL, " ", &save);

	if (!policy || parse_hex(addr, UINT64_MAX, &m->start) < 0)
		return false;
	snprintf(m->policy, sizeof(m->policy), "%s", policy);
	/* Two policies have a name of two words: "prefer (many):0-1", "weighted interleave:0-1". */
	if (word && (*word == '(' || strncmp(word, "interleave", 10) == 0)) {
		snprintf(m->policy, sizeof(m->policy), "%s %s", policy, word);
		word = strtok_r(NULL, " ", &save);
	}
	m->page_bytes = 4096;
	for (; word; word = strtok_r(NULL, " ", &save))
		parse_numa_word(word, m);
	return true;
}

static int read_numa_lines(FILE *f, const char *policy, size_t enough, struct numa_mapping **v, size_t *n)
{
	AUTO_FREE char *line = NULL;
	size_t size = 0;

	while ((!enough || *n < enough) && (errno = 0, getline(&line, &size, f)) >= 0) {
		struct numa_mapping m = { 0 };

		line[strcspn(line, "\n")] = '\0';
		if (parse_numa_line(line, &m) && (!policy || strncmp(m.policy, policy, strlen(policy)) == 0))
			*PUSH_ZEROED(*v, *n) = m;
	}
	return ferror(f) ? -errno : 0;
}

/* Both files list the mappings by address; one that came or went between the two readings has no length. */
static int join_lengths(FILE *f, struct numa_mapping *v, size_t n)
{
	AUTO_FREE char *line = NULL;
	size_t size = 0, i = 0;

	while (i < n && (errno = 0, getline(&line, &size, f)) >= 0) {
		uint64_t start, end;

		if (!parse_range(line, &start, &end))
			continue;
		while (i < n && v[i].start < start)
			i++;
		if (i < n && v[i].start == start && end > start)
			v[i++].bytes = end - start;
	}
	return ferror(f) ? -errno : 0;
}

int affinity_numa_maps(pid_t pid, const char *policy, size_t enough, struct numa_mapping **ret, size_t *ret_n, struct err *e)
{
	AUTO_FCLOSE FILE *numa = NULL, *maps = NULL;
	AUTO_FREE struct numa_mapping *v = NULL;
	size_t n = 0;
	int r = open_proc(pid, "numa_maps", &numa, e);

	if (r == 0)
		r = open_proc(pid, "maps", &maps, e);
	if (r < 0)
		return r;
	r = read_numa_lines(numa, policy, enough, &v, &n);
	if (r == 0)
		r = join_lengths(maps, v, n);
	if (r < 0)
		return err_sys(e, r, "read the mappings of process %d", (int)pid);
	*ret = STEAL_PTR(v);
	*ret_n = n;
	return 0;
}

/* --- identity ------------------------------------------------------------------------------------------ */

uint64_t process_start_time(pid_t pid)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/stat", (int)pid);
	AUTO_FREE char *text = NULL;
	char *word, *save = NULL;
	uint64_t ticks, threads = 0;
	bool ended;

	if (read_text_file(path, 4096, &text) < 0)
		return 0;
	/* "PID (name) S ...": the name may hold anything, blanks and brackets too.  Behind it comes field 3. */
	word = strrchr(text, ')');
	if (!word)
		return 0;
	word = strtok_r(word + 1, " ", &save);
	ended = word && (*word == 'Z' || *word == 'X');
	for (int field = 3; word && field < 22; field++) {
		if (field == 20 && parse_u64(word, 0, UINT64_MAX, &threads) < 0)
			return 0;
		word = strtok_r(NULL, " ", &save);
	}
	/* A zombie runs no code and holds nothing; who has to reap it may be slow. But a main thread is one, too, when it alone has ended: the others have the memory
	 * and the files still. */
	if (ended && threads <= 1)
		return 0;
	return word && parse_u64(word, 0, UINT64_MAX, &ticks) == 0 ? ticks : 0;
}
