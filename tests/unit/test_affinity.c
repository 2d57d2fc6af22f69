/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <limits.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpuvm/affinity.h"

Test(affinity, set_and_read_back, .timeout = 30)
{
	struct cpuset before, one = { 0 }, now;
	struct err e = { 0 };

	cr_assert(zero(int, affinity_get(0, &before, &e)));
	cr_assert(not(cpuset_empty(&before)));
	cpuset_add(&one, cpuset_next(&before, -1));
	cr_assert(zero(int, affinity_set(0, &one, &e)), "%s", e.msg);
	cr_assert(zero(int, affinity_get(0, &now, &e)));
	cr_assert(cpuset_equal(&now, &one));
	cr_assert(zero(int, affinity_set(0, &before, &e)));
}

Test(affinity, what_the_kernel_changes_is_an_error, .timeout = 30)
{
	struct cpuset more, none = { 0 };
	struct err e = { 0 };

	cr_assert(zero(int, affinity_get(0, &more, &e)));
	cpuset_add(&more, CPUSET_MAX - 1); /* the kernel drops silently what it does not have */
	cr_assert(eq(int, affinity_set(0, &more, &e), -EXDEV));
	cr_assert_not_null(strstr(e.msg, "8191"), "%s", e.msg);
	cr_assert(eq(int, affinity_set(0, &none, &e), -EINVAL));
	cr_assert(eq(int, affinity_get(INT_MAX, &more, &e), -ESRCH));
}

/* Only the kernel's own workers are moved: any process may take such a name. */
Test(affinity, a_name_does_not_make_a_vhost_worker, .timeout = 30)
{
	AUTO_FREE char *name = xasprintf("vhost-%d", (int)getpid());
	struct thread_info *v = NULL;
	struct err e = { 0 };
	int ready[2], status;
	size_t n = 0;
	char c = 0;
	pid_t pid;

	cr_assert(zero(int, pipe(ready)));
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_NAME, name);
		if (write(ready[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	cr_assert(eq(int, (int)read(ready[0], &c, 1), 1));
	cr_assert(zero(int, affinity_add_vhost(getpid(), &v, &n, &e)), "%s", e.msg);
	cr_assert(zero(sz, n));
	kill(pid, SIGKILL);
	cr_assert(eq(int, waitpid(pid, &status, 0), pid));
	free(v);
}

struct helper {
	pthread_barrier_t ready, done;
};

static void *helper_main(void *arg)
{
	struct helper *h = arg;

	pthread_setname_np(pthread_self(), "CPU 0/KVM");
	pthread_barrier_wait(&h->ready);
	pthread_barrier_wait(&h->done);
	return NULL;
}

Test(affinity, threads_by_name, .timeout = 30)
{
	struct thread_info *v = NULL;
	struct cpuset one = { 0 };
	struct err e = { 0 };
	struct helper h;
	pthread_t t;
	size_t n = 0, at = 0;

	pthread_barrier_init(&h.ready, NULL, 2);
	pthread_barrier_init(&h.done, NULL, 2);
	cr_assert(zero(int, pthread_create(&t, NULL, helper_main, &h)));
	pthread_barrier_wait(&h.ready);

	cr_assert(zero(int, affinity_threads(getpid(), &v, &n, &e)), "%s", e.msg);
	cr_assert(ge(sz, n, 2));
	for (size_t i = 0; i < n; i++) {
		cr_assert(i == 0 || v[i].tid > v[i - 1].tid);
		if (strcmp(v[i].name, "CPU 0/KVM") == 0)
			at = i;
	}
	cr_assert(gt(sz, at, 0));
	cpuset_add(&one, cpuset_next(&v[at].cpus, -1));
	cr_assert(zero(int, affinity_set(v[at].tid, &one, &e)), "%s", e.msg);
	free(v);
	cr_assert(zero(int, affinity_threads(getpid(), &v, &n, &e)));
	cr_assert(cpuset_equal(&v[at].cpus, &one));
	free(v);
	pthread_barrier_wait(&h.done);
	pthread_join(t, NULL);
	pthread_barrier_destroy(&h.ready);
	pthread_barrier_destroy(&h.done);

	cr_assert(eq(int, affinity_threads(INT_MAX, &v, &n, &e), -ESRCH));
}

Test(affinity, numa_maps, .timeout = 30)
{
	const size_t bytes = 8 << 20;
	char *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	AUTO_FREE struct numa_mapping *v = NULL;
	const struct numa_mapping *mine = NULL;
	struct err e = { 0 };
	uint64_t resident = 0;
	size_t n = 0;

	if (access("/proc/self/numa_maps", F_OK) < 0) {
		munmap(mem, bytes);
		cr_skip("this kernel has no NUMA");
	}
	memset(mem, 1, bytes);
	cr_assert(zero(int, affinity_numa_maps(getpid(), NULL, 0, &v, &n, &e)), "%s", e.msg);
	for (size_t i = 0; i < n; i++)
		if (v[i].start <= (uintptr_t)mem && (uintptr_t)mem < v[i].start + v[i].bytes)
			mine = &v[i];
	cr_assert_not_null(mine);
	cr_assert(ge(u64, mine->bytes, bytes));
	cr_assert(ge(u64, mine->page_bytes, 4096));
	for (size_t i = 0; i < ARRAY_SIZE(mine->pages); i++)
		resident += mine->pages[i] * mine->page_bytes;
	cr_assert(ge(u64, resident, bytes));
	cr_assert(gt(sz, strlen(mine->policy), 0));
	munmap(mem, bytes);
	{
		struct numa_mapping *none = NULL;

		cr_assert(eq(int, affinity_numa_maps(INT_MAX, NULL, 0, &none, &n, &e), -ESRCH));
	}
}

static void *wait_for_ever(void *arg)
{
	pause();
	return arg;
}

/* A main thread that has ended is a zombie. The process lives as long as any of its threads. */
Test(affinity, a_process_without_its_main_thread_lives, .timeout = 30)
{
	struct pollfd p = { .events = POLLIN };
	char state = '?', path[64];
	uint64_t start;
	pid_t pid = fork();

	if (pid == 0) {
		pthread_t t;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (pthread_create(&t, NULL, wait_for_ever, NULL) == 0)
			syscall(SYS_exit, 0);
		_exit(1);
	}
	start = process_start_time(pid);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	while (state != 'Z') {
		FILE *f = fopen(path, "r");

		cr_assert(f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1);
		fclose(f);
	}
	cr_expect(process_start_time(pid) == start, "%" PRIu64 ", not %" PRIu64, process_start_time(pid), start);
	p.fd = pidfd_open(pid, 0);
	cr_assert(p.fd >= 0 && poll(&p, 1, 0) == 0);
	kill(pid, SIGKILL);
	cr_assert(poll(&p, 1, 20000) == 1);
	/* Not reaped yet. */
	cr_expect(process_start_time(pid) == 0);
	waitpid(pid, NULL, 0);
	close(p.fd);
}

Test(affinity, start_time_is_an_identity, .timeout = 30)
{
	uint64_t mine = process_start_time(getpid()), other;
	pid_t pid;

	cr_assert(gt(u64, mine, 0));
	cr_assert(eq(u64, process_start_time(getpid()), mine));
	/* A name made to confuse. */
	prctl(PR_SET_NAME, ") R 1 2 3 (");
	cr_assert(eq(u64, process_start_time(getpid()), mine));
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	other = process_start_time(pid);
	cr_assert(ge(u64, other, mine));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	cr_assert(zero(u64, process_start_time(pid)));
}
