/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <numa.h>
#include <numaif.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "gpuvm/affinity.h"
#include "gpuvm/spawn.h"

/* How long a killed process may take to end: freeing and unpinning a terabyte of small pages takes minutes. */
#define KILL_TIMEOUT_MS 180000

/* The report about a failed exec is one write() into an empty pipe: whole or not at all. */
_Static_assert(sizeof(struct err) <= 4096, "struct err must fit into PIPE_BUF");

/* --- in the child ---------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
	return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

void spawn_close_fds(const int *keep, size_t n)
{
	AUTO_FREE int *sorted = xcalloc(n, sizeof(*sorted));
	unsigned int next = 3;

	memcpy(sorted, keep, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_number);
	for (size_t i = 0; i < n; i++) {
		if (sorted[i] < (int)next)
			continue;
		if (sorted[i] > (int)next)
			close_range(next, (unsigned int)sorted[i] - 1, 0);
		next = (unsigned int)sorted[i] + 1;
	}
	close_range(next, ~0U, 0);
}

static int child_fds(const struct spawn_options *o, const struct spawn *s, struct err *e)
{
	AUTO_FREE int *keep = xcalloc(o->n_keep_fds + 2, sizeof(*keep));
	int null_fd = o->inherit_stdin ? STDIN_FILENO : open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null_fd < 0)
		return err_sys(e, -errno, "open '/dev/null'");
	if (null_fd != STDIN_FILENO && dup2(null_fd, STDIN_FILENO) < 0)
		return err_sys(e, -errno, "standard input");
	if (o->stderr_fd >= 0 &&
	    (dup2(o->stderr_fd, STDOUT_FILENO) < 0 || dup2(o->stderr_fd, STDERR_FILENO) < 0))
		return err_sys(e, -errno, "standard output and error to fd %d", o->stderr_fd);
	for (size_t i = 0; i < o->n_keep_fds; i++) {
		keep[i] = o->keep_fds[i];
		if (keep[i] >= 0 && fcntl(keep[i], F_SETFD, 0) < 0)
			return err_sys(e, -errno, "keep fd %d open", keep[i]);
	}
	keep[o->n_keep_fds] = s->go_fd;
	keep[o->n_keep_fds + 1] = s->exec_fd;
	spawn_close_fds(keep, o->n_keep_fds + 2);
	return 0;
}

/* exec keeps ignored signals ignored and the mask as it is: a launcher that uses a signalfd would hand QEMU a
 * blocked SIGTERM. */
static void child_signals(void)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL); /* fails for SIGKILL, SIGSTOP and glibc's own two */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Where QEMU's own memory (not the guest's, which has host-nodes=) comes from, as long as there is some. */
static int child_memory_policy(const struct cpuset *nodes, struct err *e)
{
	const unsigned long *mask = (const unsigned long *)nodes->w;
	struct cpuset first = { 0 };
	AUTO_FREE char *list = NULL;
	int mode = cpuset_count(nodes) > 1 ? MPOL_PREFERRED_MANY : MPOL_PREFERRED;

	/* A kernel without NUMA has one memory; there is nothing to prefer. */
	if (numa_available() < 0 || cpuset_empty(nodes))
		return 0;
	if (set_mempolicy(mode, mask, CPUSET_MAX) == 0)
		return 0;
	/* Before Linux 5.15 only one node can be preferred; binding to the set could run it out of memory. */
	if (errno == EINVAL && mode == MPOL_PREFERRED_MANY) {
		cpuset_add(&first, cpuset_next(nodes, -1));
		if (set_mempolicy(MPOL_PREFERRED, (const unsigned long *)first.w, CPUSET_MAX) == 0)
			return 0;
	}
	mode = errno;
	list = cpuset_format(nodes);
	return err_sys(e, -mode, "prefer memory of NUMA node %s", list);
}

/* Raised, not lowered unless that was asked for: an administrator's unlimited stays unlimited. */
static int child_memlock(uint64_t bytes, bool exact, struct err *e)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_MEMLOCK, &lim) < 0)
		return err_sys(e, -errno, "RLIMIT_MEMLOCK");
	if (lim.rlim_cur >= bytes && !exact)
		return 0;
	lim.rlim_cur = bytes;
	if (lim.rlim_max < bytes || exact)
		lim.rlim_max = bytes;
	if (setrlimit(RLIMIT_MEMLOCK, &lim) < 0)
		return err_sys(e, -errno, "set RLIMIT_MEMLOCK to %llu bytes", (unsigned long long)bytes);
	return 0;
}

/* The last thing before exec: what this program has mapped by itself may be more. */
static int child_limits(const struct spawn_options *o, struct err *e)
{
	const struct rlimit as = { o->address_bytes, o->address_bytes }, cpu = { o->cpu_s, o->cpu_s };

	if (o->cpu_s && setrlimit(RLIMIT_CPU, &cpu) < 0)
		return err_sys(e, -errno, "limit its CPU time to %u s", o->cpu_s);
	if (o->address_bytes && setrlimit(RLIMIT_AS, &as) < 0)
		return err_sys(e, -errno, "limit its memory to %llu bytes", (unsigned long long)o->address_bytes);
	return 0;
}

/* Sent by the kernel when the thread that forked us ends. */
static int child_die_with(pid_t parent, struct err *e)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return err_sys(e, -errno, "PR_SET_PDEATHSIG");
	/* The parent may have died before: then nobody sends the signal. */
	if (getppid() != parent)
		_exit(127);
	return 0;
}

/* The bounding set has to go first, as CAP_SETPCAP goes with the user; what setresuid(2) leaves of the others is what could be inherited. */
static int drop_root(const struct spawn_identity *id, struct err *e)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return err_sys(e, -errno, "drop capability %lu from the bounding set", cap);
	if (setgroups(id->n_groups, id->groups) < 0 || setresgid(id->gid, id->gid, id->gid) < 0)
		return err_sys(e, -errno, "become group %u", id->gid);
	if (setresuid(id->uid, id->uid, id->uid) < 0)
		return err_sys(e, -errno, "become user %u", id->uid);
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 || syscall(SYS_capset, &head, none) < 0)
		return err_sys(e, -errno, "drop all capabilities");
	return 0;
}

int spawn_become(const struct spawn_identity *id, struct err *e)
{
	const struct rlimit none = { 0, 0 };

	umask(077);
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return err_sys(e, -errno, "RLIMIT_CORE");
	if (id->uid && drop_root(id, e) < 0)
		return e->code;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? err_sys(e, -errno, "PR_SET_NO_NEW_PRIVS") : 0;
}

/* A change of user takes the signal of the parent's death away. */
static int child_identity(const struct spawn_options *o, pid_t parent, struct err *e)
{
	int r = o->identity ? spawn_become(o->identity, e) : 0;

	return r == 0 && o->identity && o->die_with_parent ? child_die_with(parent, e) : r;
}

static int child_prepare(const struct spawn_options *o, const struct spawn *s, pid_t parent, struct err *e)
{
	int r = o->die_with_parent ? child_die_with(parent, e) : 0;

	if (r < 0)
		return r;
	child_signals();
	if (setsid() < 0)
		return err_sys(e, -errno, "setsid");
	if (o->cwd && chdir(o->cwd) < 0)
		return err_sys(e, -errno, "enter '%s'", o->cwd);
	r = child_fds(o, s, e);
	if (r == 0 && o->cpus)
		r = affinity_set(0, o->cpus, e);
	if (r == 0 && o->mem_nodes)
		r = child_memory_policy(o->mem_nodes, e);
	if (r == 0 && o->memlock_bytes)
		r = child_memlock(o->memlock_bytes, o->memlock_exact, e);
	return r;
}

static _Noreturn void child_main(const struct spawn_options *o, const struct strv *env, const struct spawn *s, pid_t parent)
{
	static struct err e; /* zeroed to the last byte: it goes through the pipe */
	char go;
	ssize_t n;

	if (child_prepare(o, s, parent, &e) == 0) {
		do
			n = read(s->go_fd, &go, 1);
		while (n < 0 && errno == EINTR);
		if (n != 1)
			_exit(127); /* the parent gave up or is gone */
		if (child_limits(o, &e) == 0 && child_identity(o, parent, &e) == 0) {
			execve(o->argv->v[0], o->argv->v, env->v);
			err_sys(&e, -errno, "execute '%s'", o->argv->v[0]);
		}
	}
	e.word = NULL;
	n = write(s->exec_fd, &e, sizeof(e));
	_exit(n == (ssize_t)sizeof(e) ? 126 : 127);
}

/* --- in the parent ----------------------------------------------------------------------------------- */

static bool env_has(const struct strv *env, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; env && i < env->n; i++)
		if (strncmp(env->v[i], name, len) == 0 && env->v[i][len] == '=')
			return true;
	return false;
}

/* getenv() finds the first of two equal names, so a default is only there where the caller has none. */
static void make_env(const struct strv *add, struct strv *ret)
{
	if (!env_has(add, "PATH"))
		strv_push(ret, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	if (!env_has(add, "LANG"))
		strv_push(ret, "LANG=C");
	for (size_t i = 0; add && i < add->n; i++)
		strv_push(ret, add->v[i]);
}

static pid_t fork_child(const struct spawn_options *o, const struct strv *env, const struct spawn *in_child)
{
	sigset_t all, old;
	pid_t parent = getpid(), pid;

	/* No handler of ours may run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		child_main(o, env, in_child, parent);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

int spawn_prepare(const struct spawn_options *o, struct spawn *ret, struct err *e)
{
	AUTO_CLOSE int gate_parent = -1;
	AUTO_CLOSE int gate_child = -1;
	AUTO_CLOSE int exec_rd = -1;
	AUTO_CLOSE int exec_wr = -1;
	struct spawn s = { 0 };
	struct strv env = { 0 };
	int fds[2];

	/* A socket and not a pipe: writing to a child that has died must not raise SIGPIPE. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return err_sys(e, -errno, "start '%s': socketpair", o->argv->v[0]);
	gate_parent = fds[0];
	gate_child = fds[1];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "start '%s': pipe", o->argv->v[0]);
	exec_rd = fds[0];
	exec_wr = fds[1];

	make_env(o->env, &env);
	s.pid = fork_child(o, &env, &(struct spawn){ .go_fd = gate_child, .exec_fd = exec_wr });
	strv_clear(&env);
	if (s.pid < 0)
		return err_sys(e, -errno, "start '%s': fork", o->argv->v[0]);
	s.go_fd = STEAL_FD(gate_parent);
	s.exec_fd = STEAL_FD(exec_rd);
	s.pidfd = pidfd_open(s.pid, 0);
	if (s.pidfd < 0) {
		int r = -errno;

		spawn_abort(&s);
		return err_sys(e, r, "start '%s': pidfd_open", o->argv->v[0]);
	}
	*ret = s;
	return 0;
}

static void close_private(struct spawn *s)
{
	if (s->go_fd >= 0)
		close(s->go_fd);
	if (s->exec_fd >= 0)
		close(s->exec_fd);
	s->go_fd = s->exec_fd = -1;
}

int spawn_go(struct spawn *s, struct err *e)
{
	struct err report = { 0 };
	ssize_t n;

	/* A failure to send means that the child has ended; the reason is in the other pipe. */
	if (send(s->go_fd, "", 1, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		return err_sys(e, -errno, "let the child go");
	do
		n = read(s->exec_fd, &report, sizeof(report));
	while (n < 0 && errno == EINTR);
	close_private(s);

	/* End of file: exec closed it.  (Or somebody killed the child in front of it, which is no other than killing it behind.) */
	if (n == 0)
		return 0;
	spawn_abort(s);
	if (n != (ssize_t)sizeof(report))
		return err_set(e, -EIO, "the child did not start and did not say why");
	*e = report;
	return e->code;
}

int spawn_abort(struct spawn *s)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };
	int r = 0;

	if (s->pid <= 0)
		return 0;
	if (s->pidfd < 0) {
		/* Just forked: the child waits at the gate, so it can die. */
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	} else {
		/* Through the pidfd, so that nobody else is hit if the caller has reaped it already. */
		pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
		if (poll(&p, 1, KILL_TIMEOUT_MS) > 0)
			waitpid(s->pid, NULL, WNOHANG);
		else
			r = -ETIMEDOUT;
		close(s->pidfd);
	}
	close_private(s);
	*s = (struct spawn){ .pidfd = -1, .go_fd = -1, .exec_fd = -1 };
	return r;
}

char *spawn_find_program(const char *name)
{
	const char *env = getenv("PATH");
	AUTO_FREE char *dirs = xstrdup(env && *env ? env : "/usr/local/bin:/usr/bin:/bin");
	char *save = NULL;

	if (strchr(name, '/'))
		return access(name, X_OK) == 0 ? xstrdup(name) : NULL;
	for (char *d = strtok_r(dirs, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
		AUTO_FREE char *path = xasprintf("%s/%s", d, name);

		if (access(path, X_OK) == 0)
			return STEAL_PTR(path);
	}
	return NULL;
}

int spawn_kill(pid_t pid, uint64_t start, struct err *e)
{
	AUTO_CLOSE int fd = pid > 0 && start ? pidfd_open(pid, 0) : -1;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd < 0 && pid > 0 && start && errno != ESRCH)
		return err_sys(e, -errno, "process %d", pid);
	/* The identity is looked at when the pidfd is open: from then on it is this process that is meant. */
	if (fd < 0 || process_start_time(pid) != start)
		return 0;
	if (pidfd_send_signal(fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		return err_sys(e, -errno, "kill process %d", pid);
	return poll(&p, 1, KILL_TIMEOUT_MS) > 0 ? 0 : err_set(e, -ETIMEDOUT, "process %d does not end", pid);
}

const char *spawn_status_text(int wait_status, char buf[96])
{
	const char *name;

	if (WIFEXITED(wait_status)) {
		snprintf(buf, 96, "exit code %d", WEXITSTATUS(wait_status));
	} else if (WIFSIGNALED(wait_status)) {
		name = sigdescr_np(WTERMSIG(wait_status));
		snprintf(buf, 96, "killed by signal %d (%s)%s", WTERMSIG(wait_status), name ? name : "unknown",
			 WCOREDUMP(wait_status) ? ", core dumped" : "");
	} else {
		snprintf(buf, 96, "wait status 0x%x", (unsigned int)wait_status);
	}
	return buf;
}
