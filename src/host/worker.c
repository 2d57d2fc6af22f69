/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/spawn.h"
#include "gpuvm/worker.h"

#define KILL_GRACE_MS 200 /* a process that sleeps interruptibly is gone long before */

/* A report is written with one write() into an empty pipe: it is there whole or not at all, and never blocks. */
_Static_assert(sizeof(struct err) <= 4096, "struct err must fit into PIPE_BUF");

struct worker {
	pid_t pid;
	int pidfd; /* -1: not started, or done */
	int report_fd;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static _Noreturn void worker_main(const struct worker_job *job, int report_fd, pid_t parent)
{
	static struct err e; /* zeroed to the last byte: it goes through the pipe */
	ssize_t n;

	/* Our locks (flock) and sockets would live on in a worker that is stuck. */
	spawn_close_fds((int[]){ report_fd, job->keep_fd ? job->keep_fd : -1 }, 2);
	/* Whoever undoes what a dead launcher did must not meet its workers at work. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
	e.code = job->run(job->arg, &e);
	n = write(report_fd, &e, sizeof(e));
	_exit(n == (ssize_t)sizeof(e) ? 0 : 1);
}

static int worker_start(const struct worker_job *job, struct worker *w, struct err *e)
{
	AUTO_CLOSE int report_rd = -1;
	AUTO_CLOSE int report_wr = -1;
	pid_t parent = getpid();
	sigset_t all, old;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, -errno, "cannot make a pipe");
	report_rd = fds[0];
	report_wr = fds[1];
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	w->pid = fork();
	if (w->pid == 0)
		worker_main(job, report_wr, parent);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (w->pid < 0)
		return err_sys(e, -errno, "cannot fork");
	w->pidfd = pidfd_open(w->pid, 0);
	if (w->pidfd < 0) {
		int r = -errno;

		kill(w->pid, SIGKILL);
		waitpid(w->pid, NULL, 0);
		return err_sys(e, r, "pidfd_open");
	}
	w->report_fd = STEAL_FD(report_rd);
	return 0;
}

static void worker_close(struct worker *w)
{
	if (w->pidfd >= 0)
		close(w->pidfd);
	if (w->report_fd >= 0)
		close(w->report_fd);
	w->pidfd = w->report_fd = -1;
}

/* The process has ended: reap it and take its report. */
static void worker_finish(struct worker *w, struct worker_job *job)
{
	struct err e = { 0 };
	char text[96];
	int status = 0;
	ssize_t n;

	if (waitpid(w->pid, &status, 0) < 0)
		status = 0; /* reaped by a waitpid(-1) elsewhere; the report still counts */
	n = read(w->report_fd, &e, sizeof(e));
	if (n == (ssize_t)sizeof(e))
		job->err = e;
	else
		err_set(&job->err, -EIO, "the worker ended without a report: %s", spawn_status_text(status, text));
	worker_close(w);
}

static int poll_timeout(uint64_t now, uint64_t deadline)
{
	if (now >= deadline)
		return 0;
	return deadline - now < INT_MAX ? (int)(deadline - now) : INT_MAX;
}

/* Wait for workers until all are done or @deadline has passed; returns how many are not done. */
static size_t workers_wait(struct worker *w, struct worker_job *jobs, size_t n, uint64_t deadline)
{
	AUTO_FREE struct pollfd *p = xcalloc(n, sizeof(*p));
	size_t left;

	for (;;) {
		uint64_t now = now_ms();
		int r;

		left = 0;
		for (size_t i = 0; i < n; i++) {
			p[i] = (struct pollfd){ .fd = w[i].pidfd, .events = POLLIN };
			left += w[i].pidfd >= 0;
		}
		if (!left)
			return 0;
		r = poll(p, n, poll_timeout(now, deadline));
		for (size_t i = 0; r > 0 && i < n; i++)
			if (p[i].fd >= 0 && p[i].revents)
				worker_finish(&w[i], &jobs[i]);
		if (r == 0 && now >= deadline)
			return left;
	}
}

/* SIGKILL whoever is left, and give those that can die a moment to do so. */
static void workers_kill(struct worker *w, struct worker_job *jobs, size_t n, unsigned int timeout_ms)
{
	AUTO_FREE bool *killed = xcalloc(n, sizeof(*killed));

	for (size_t i = 0; i < n; i++) {
		killed[i] = w[i].pidfd >= 0;
		if (killed[i])
			pidfd_send_signal(w[i].pidfd, SIGKILL, NULL, 0);
	}
	workers_wait(w, jobs, n, now_ms() + KILL_GRACE_MS);
	for (size_t i = 0; i < n; i++) {
		if (killed[i] && (w[i].pidfd >= 0 || jobs[i].err.code == -EIO))
			err_set(&jobs[i].err, -ETIMEDOUT, "not finished within %u ms", timeout_ms);
		worker_close(&w[i]);
	}
}

void workers_run(struct worker_job *jobs, size_t n, unsigned int timeout_ms)
{
	AUTO_FREE struct worker *w = xcalloc(n, sizeof(*w));
	uint64_t deadline = now_ms() + timeout_ms;

	for (size_t i = 0; i < n; i++) {
		w[i].pidfd = w[i].report_fd = -1;
		jobs[i].err = (struct err){ 0 };
		/* One that cannot start does not keep the others from being given back. */
		worker_start(&jobs[i], &w[i], &jobs[i].err);
	}
	if (workers_wait(w, jobs, n, deadline))
		workers_kill(w, jobs, n, timeout_ms);
}
