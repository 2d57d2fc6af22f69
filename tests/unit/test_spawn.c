/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpuvm/affinity.h"
#include "gpuvm/parse.h"
#include "gpuvm/spawn.h"

/* A shell whose output goes to a file in memory. */
struct shell {
	struct strv argv;
	struct spawn_options o;
	int out;
	struct spawn s;
};

static void shell_init(struct shell *sh, const char *script)
{
	*sh = (struct shell){ .out = memfd_create("out", MFD_CLOEXEC) };
	strv_push(&sh->argv, "/bin/sh");
	strv_push(&sh->argv, "-c");
	strv_push(&sh->argv, script);
	sh->o = (struct spawn_options){ .argv = &sh->argv, .stderr_fd = sh->out };
}

static int wait_status(const struct spawn *s)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };
	int status = -1;

	cr_assert(eq(int, poll(&p, 1, 30000), 1), "the child does not end");
	cr_assert(eq(int, waitpid(s->pid, &status, 0), s->pid));
	return status;
}

static char *output(const struct shell *sh)
{
	char *text = xcalloc(1, 65536);

	cr_assert(ge(int, (int)pread(sh->out, text, 65535, 0), 0));
	return text;
}

/* Run to the end: what it printed, owned. */
static char *shell_run(struct shell *sh)
{
	struct err e = { 0 };
	char text[96];
	int status;

	cr_assert(zero(int, spawn_prepare(&sh->o, &sh->s, &e)), "%s", e.msg);
	cr_assert(zero(int, spawn_go(&sh->s, &e)), "%s", e.msg);
	status = wait_status(&sh->s);
	cr_assert_str_eq(spawn_status_text(status, text), "exit code 0");
	return output(sh);
}

static void shell_clear(struct shell *sh)
{
	spawn_abort(&sh->s);
	strv_clear(&sh->argv);
	close(sh->out);
}

Test(spawn, runs_with_a_minimal_environment, .timeout = 60)
{
	struct strv env = { 0 };
	AUTO_FREE char *text = NULL;
	struct shell sh;

	setenv("GPUVM_SECRET", "x", 1);
	/* The shell adds PWD; /proc shows what it was given. */
	shell_init(&sh, "tr '\\0' '\\n' < /proc/$$/environ");
	strv_push(&env, "LANG=de_DE.UTF-8");
	strv_push(&env, "QEMU_AUDIO_DRV=none");
	sh.o.env = &env;
	text = shell_run(&sh);
	cr_assert_str_eq(text, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
			       "LANG=de_DE.UTF-8\nQEMU_AUDIO_DRV=none\n");
	strv_clear(&env);
	shell_clear(&sh);
}

Test(spawn, says_why_exec_failed, .timeout = 60)
{
	struct strv argv = { 0 };
	struct spawn_options o = { .argv = &argv, .stderr_fd = -1 };
	struct spawn s = { 0 };
	struct err e = { 0 };

	strv_push(&argv, "/nonexistent/qemu");
	cr_assert(zero(int, spawn_prepare(&o, &s, &e)));
	cr_assert(eq(int, spawn_go(&s, &e), -ENOENT));
	cr_assert_str_eq(e.msg, "execute '/nonexistent/qemu': No such file or directory");
	cr_assert(zero(int, s.pid > 0));
	spawn_abort(&s); /* nothing left to do */
	cr_assert(eq(int, waitpid(-1, NULL, WNOHANG), -1));
	cr_assert(eq(int, errno, ECHILD));

	strv_clear(&argv);
	strv_push(&argv, "/etc/passwd");
	cr_assert(zero(int, spawn_prepare(&o, &s, &e)));
	cr_assert(eq(int, spawn_go(&s, &e), -EACCES));
	strv_clear(&argv);
}

Test(spawn, says_why_preparing_failed, .timeout = 60)
{
	struct cpuset none = { 0 };
	struct shell sh;
	struct err e = { 0 };

	cpuset_add(&none, CPUSET_MAX - 1);
	shell_init(&sh, "true");
	sh.o.cpus = &none;
	cr_assert(zero(int, spawn_prepare(&sh.o, &sh.s, &e)));
	cr_assert(lt(int, spawn_go(&sh.s, &e), 0));
	cr_assert_not_null(strstr(e.msg, "CPUs '8191'"), "%s", e.msg);
	shell_clear(&sh);

	shell_init(&sh, "true");
	sh.o.mem_nodes = &none;
	cr_assert(zero(int, spawn_prepare(&sh.o, &sh.s, &e)));
	cr_assert(lt(int, spawn_go(&sh.s, &e), 0));
	cr_assert_not_null(strstr(e.msg, "NUMA node 8191"), "%s", e.msg);
	shell_clear(&sh);
}

Test(spawn, waits_at_the_gate, .timeout = 60)
{
	char path[] = "/tmp/gpuvm-spawn-XXXXXX";
	AUTO_FREE char *script = NULL;
	struct pollfd p = { .events = POLLIN };
	struct shell sh;
	struct err e = { 0 };
	int fd = mkstemp(path);

	close(fd);
	unlink(path);
	script = xasprintf("echo > %s", path);
	shell_init(&sh, script);

	/* Aborted at the gate: nothing has run. */
	cr_assert(zero(int, spawn_prepare(&sh.o, &sh.s, &e)));
	p.fd = sh.s.pidfd;
	cr_assert(zero(int, poll(&p, 1, 200)), "it did not wait");
	spawn_abort(&sh.s);
	cr_assert(lt(int, access(path, F_OK), 0));

	/* Let go: it has. */
	cr_assert(zero(int, spawn_prepare(&sh.o, &sh.s, &e)));
	cr_assert(zero(int, spawn_go(&sh.s, &e)));
	cr_assert(zero(int, wait_status(&sh.s)));
	cr_assert(zero(int, access(path, F_OK)));
	unlink(path);
	shell_clear(&sh);
}

/* The launcher dies between fork and exec: the child must not start QEMU on its own. */
Test(spawn, a_lost_parent_closes_the_gate, .timeout = 60)
{
	struct shell sh;
	int pipe_fds[2];
	char c;
	pid_t launcher;

	cr_assert(zero(int, pipe(pipe_fds)));
	shell_init(&sh, "echo started >&2");
	launcher = fork();
	if (launcher == 0) {
		struct err e;

		sh.o.stderr_fd = pipe_fds[1];
		_exit(spawn_prepare(&sh.o, &sh.s, &e) == 0 ? 0 : 1);
	}
	waitpid(launcher, NULL, 0);
	close(pipe_fds[1]);
	/* The grandchild has the last copy of the pipe: it ends without a word. */
	cr_assert(zero(int, (int)read(pipe_fds[0], &c, 1)));
	close(pipe_fds[0]);
	shell_clear(&sh);
}

Test(spawn, only_the_wanted_fds_are_open, .timeout = 60)
{
	int leak = open("/dev/null", O_RDONLY), high = fcntl(leak, F_DUPFD, 500); /* without close-on-exec */
	int keep = fcntl(leak, F_DUPFD_CLOEXEC, 77);
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *want = xasprintf("0\n1\n2\n3\n%d\n", keep);
	struct shell sh;

	/* 3 is the folder itself. */
	shell_init(&sh, "exec ls /proc/self/fd");
	sh.o.keep_fds = &keep;
	sh.o.n_keep_fds = 1;
	text = shell_run(&sh);
	cr_assert_str_eq(text, want);
	close(leak);
	close(high);
	close(keep);
	shell_clear(&sh);
}

Test(spawn, closes_around_what_is_kept, .timeout = 60)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int base = open("/dev/null", O_RDONLY);
		int a = fcntl(base, F_DUPFD, 40), b = fcntl(base, F_DUPFD, a + 1), c = fcntl(base, F_DUPFD, 60);
		const int keep[] = { c, -1, a, a };

		spawn_close_fds(keep, ARRAY_SIZE(keep));
		_exit(fcntl(a, F_GETFD) >= 0 && fcntl(c, F_GETFD) >= 0 && fcntl(b, F_GETFD) < 0 && fcntl(base, F_GETFD) < 0 &&
				      fcntl(2, F_GETFD) >= 0 ?
			      0 :
			      1);
	}
	waitpid(pid, &status, 0);
	cr_assert(zero(int, status));
}

Test(spawn, signals_session_and_stdin_are_fresh, .timeout = 60)
{
	AUTO_FREE char *text = NULL;
	struct shell sh;
	sigset_t set;
	char want[200], *ign;
	unsigned long ignored;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	/* With exec, since a shell blocks signals of its own while it forks. */
	shell_init(&sh, "readlink /proc/$$/fd/0; cut -d' ' -f6 /proc/$$/stat; echo $$; "
			"exec grep -E 'Sig(Blk|Ign)' /proc/self/status");
	text = shell_run(&sh);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	/* glibc keeps signals 32 and 33 for itself and lets nobody change them: if whoever started us ignores one, so does the child. */
	ign = strstr(text, "SigIgn:");
	if (!ign || sscanf(ign, "SigIgn:\t%lx", &ignored) != 1)
		cr_fatal("%s", text);
	if (ignored & ~(3UL << 31))
		cr_fail("%s", ign);
	*ign = '\0';
	snprintf(want, sizeof(want), "/dev/null\n%d\n%d\nSigBlk:\t0000000000000000\n", (int)sh.s.pid, (int)sh.s.pid);
	cr_assert_str_eq(text, want);
	shell_clear(&sh);
}

Test(spawn, affinity_memory_and_limits, .timeout = 60)
{
	struct cpuset mine, one = { 0 }, node0 = { 0 };
	AUTO_FREE char *list = NULL;
	AUTO_FREE char *want = NULL;
	AUTO_FREE char *text = NULL;
	struct rlimit lim;
	struct err e = { 0 };
	struct shell sh;
	uint64_t bytes;
	int cpu;

	cr_assert(zero(int, affinity_get(0, &mine, &e)));
	for (cpu = cpuset_next(&mine, -1); cpuset_next(&mine, cpu) >= 0; cpu = cpuset_next(&mine, cpu))
		;
	cpuset_add(&one, cpu);
	cpuset_add(&node0, 0);
	list = cpuset_format(&one);
	cr_assert(zero(int, getrlimit(RLIMIT_MEMLOCK, &lim)));
	/* Raising the hard limit takes a privilege, so raise what was lowered. */
	bytes = lim.rlim_max == RLIM_INFINITY ? 64 << 20 : lim.rlim_max;
	lim.rlim_cur = bytes / 2;
	cr_assert(zero(int, setrlimit(RLIMIT_MEMLOCK, &lim)));

	shell_init(&sh, "grep Cpus_allowed_list /proc/$$/status; ulimit -l; head -n1 /proc/$$/numa_maps | cut -d' ' -f2");
	sh.o.cpus = &one;
	sh.o.mem_nodes = &node0;
	sh.o.memlock_bytes = bytes;
	text = shell_run(&sh);
	want = xasprintf("Cpus_allowed_list:\t%s\n%llu\n", list, (unsigned long long)bytes / 1024);
	cr_assert(zero(int, strncmp(text, want, strlen(want))), "got: %s", text);
	/* A kernel without NUMA has no numa_maps. */
	if (access("/proc/self/numa_maps", F_OK) == 0)
		cr_assert_str_eq(text + strlen(want), "prefer:0\n");
	shell_clear(&sh);
}

Test(spawn, a_limit_is_never_lowered, .timeout = 60)
{
	AUTO_FREE char *before = NULL;
	AUTO_FREE char *text = NULL;
	struct shell sh;

	shell_init(&sh, "ulimit -l");
	before = shell_run(&sh);
	shell_clear(&sh);
	shell_init(&sh, "ulimit -l");
	sh.o.memlock_bytes = 4096;
	text = shell_run(&sh);
	cr_assert_str_eq(text, before);
	shell_clear(&sh);
}

Test(spawn, dies_with_its_parent, .timeout = 60)
{
	struct shell sh;
	int fds[2];
	pid_t launcher;
	char c;

	cr_assert(zero(int, pipe(fds)));
	shell_init(&sh, "echo x; kill -STOP $$");
	launcher = fork();
	if (launcher == 0) {
		struct err e;

		sh.o.stderr_fd = fds[1];
		sh.o.die_with_parent = true;
		if (spawn_prepare(&sh.o, &sh.s, &e) < 0 || spawn_go(&sh.s, &e) < 0)
			_exit(1);
		pause();
	}
	close(fds[1]);
	cr_assert(eq(int, (int)read(fds[0], &c, 1), 1)); /* the child runs */
	kill(launcher, SIGKILL);
	waitpid(launcher, NULL, 0);
	/* The end of the file is the end of the child, which had the last copy of the pipe. */
	while (read(fds[0], &c, 1) > 0)
		;
	close(fds[0]);
	shell_clear(&sh);
}

/* An exact limit is set, whatever was there. */
Test(spawn, a_limit_that_was_asked_for_is_set, .timeout = 60)
{
	AUTO_FREE char *text = NULL;
	struct shell sh;

	shell_init(&sh, "ulimit -l; ulimit -Hl");
	sh.o.memlock_bytes = 4096;
	sh.o.memlock_exact = true;
	text = shell_run(&sh);
	cr_assert_str_eq(text, "4\n4\n");
	shell_clear(&sh);
}

/* --- another user ---------------------------------------------------------------------------------------------- */

#define STATUS "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs):' /proc/self/status | tr -s ' \\t' ' '; umask; ulimit -c; ulimit -Hc"

Test(spawn, becomes_another_user_for_good, .timeout = 60)
{
	gid_t groups[] = { 61002 };
	const struct spawn_identity id = { .uid = 61000, .gid = 61001, .groups = groups, .n_groups = 1 };
	AUTO_FREE char *text = NULL;
	struct shell sh;

	if (geteuid() != 0)
		cr_skip("only root can change to another user");
	shell_init(&sh, STATUS);
	sh.o.identity = &id;
	text = shell_run(&sh);
	cr_assert_str_eq(text, "Uid: 61000 61000 61000 61000\nGid: 61001 61001 61001 61001\nGroups: 61002 \n"
			       "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\n"
			       "CapAmb: 0000000000000000\nNoNewPrivs: 1\n0077\n0\n0\n");
	shell_clear(&sh);
}

/* What root has of capabilities stays, what set-user-ID programs would give does not. */
Test(spawn, root_stays_root, .timeout = 60)
{
	const struct spawn_identity id = { 0 };
	AUTO_FREE char *text = NULL, *before = NULL;
	struct shell sh;

	if (geteuid() != 0)
		cr_skip("only root stays root");
	shell_init(&sh, "grep CapEff /proc/self/status");
	before = shell_run(&sh);
	shell_clear(&sh);
	shell_init(&sh, "grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; ulimit -c");
	sh.o.identity = &id;
	text = shell_run(&sh);
	cr_expect(strncmp(text, before, strlen(before)) == 0, "%s", text);
	cr_expect_str_eq(text + strlen(before), "NoNewPrivs:\t1\n0\n");
	shell_clear(&sh);
}

Test(spawn, says_why_it_could_not_become_it, .timeout = 60)
{
	/* More groups than Linux has for a process. */
	const struct spawn_identity id = { .uid = 61000, .gid = 61000, .n_groups = 100000 };
	struct err e = { 0 };
	struct shell sh;

	if (geteuid() != 0)
		cr_skip("only root can change to another user");
	shell_init(&sh, "echo it runs");
	sh.o.identity = &id;
	cr_assert(zero(int, spawn_prepare(&sh.o, &sh.s, &e)), "%s", e.msg);
	cr_expect(lt(int, spawn_go(&sh.s, &e), 0));
	cr_expect(strstr(e.msg, "become group") != NULL, "%s", e.msg);
	shell_clear(&sh);
}

/* The kernel forgets the wish when the user changes. */
Test(spawn, another_user_dies_with_its_parent, .timeout = 60)
{
	const struct spawn_identity id = { .uid = 61000, .gid = 61000 };
	struct shell sh;
	int fds[2];
	pid_t launcher;
	char c;

	if (geteuid() != 0)
		cr_skip("only root can change to another user");
	cr_assert(zero(int, pipe(fds)));
	shell_init(&sh, "echo x; kill -STOP $$");
	launcher = fork();
	if (launcher == 0) {
		struct err e;

		sh.o.stderr_fd = fds[1];
		sh.o.die_with_parent = true;
		sh.o.identity = &id;
		if (spawn_prepare(&sh.o, &sh.s, &e) < 0 || spawn_go(&sh.s, &e) < 0)
			_exit(1);
		pause();
	}
	close(fds[1]);
	cr_assert(eq(int, (int)read(fds[0], &c, 1), 1));
	kill(launcher, SIGKILL);
	waitpid(launcher, NULL, 0);
	while (read(fds[0], &c, 1) > 0)
		;
	close(fds[0]);
	shell_clear(&sh);
}

Test(spawn, abort_kills, .timeout = 60)
{
	struct shell sh;
	struct err e = { 0 };
	pid_t pid;

	shell_init(&sh, "trap '' TERM INT; exec sleep 1000");
	cr_assert(zero(int, spawn_prepare(&sh.o, &sh.s, &e)));
	cr_assert(zero(int, spawn_go(&sh.s, &e)));
	pid = sh.s.pid;
	spawn_abort(&sh.s);
	cr_assert(eq(int, waitpid(pid, NULL, WNOHANG), -1)); /* reaped */
	spawn_abort(&sh.s);
	spawn_abort(&(struct spawn){ 0 });
	cr_assert(ge(int, fcntl(0, F_GETFD), 0)); /* a zeroed struct does not mean fd 0 */
	shell_clear(&sh);
}

Test(spawn, status_in_words, .timeout = 60)
{
	char buf[96];

	cr_assert_str_eq(spawn_status_text(1 << 8, buf), "exit code 1");
	cr_assert_str_eq(spawn_status_text(11, buf), "killed by signal 11 (Segmentation fault)");
	cr_assert_str_eq(spawn_status_text(6 | 0x80, buf), "killed by signal 6 (Aborted), core dumped");
}
