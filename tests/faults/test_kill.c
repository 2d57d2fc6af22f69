/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SIGKILL at every moment.
 *
 * With a real QEMU: the launcher is killed before every system call of its life that changes anything. Whatever the moment: the same command starts
 * the VM or takes it over, and when that one ends nothing is left.  Then QEMU is killed at the same moments: the launcher ends, and leaves nothing.
 * Then no process is killed, but each of these calls fails once, with each of a few errors; and then the launcher is asked to stop, or to go on, at each.
 * And `gpuvm recover` is killed before each of its own.
 * With the model kernel: who binds, who gives back and who recovers are killed before and behind every write to a device. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "gpuvm/acs.h"
#include "gpuvm/affinity.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "tests/fake/mkhost.h"
#include "tests/faults/deadly.h"
#include "tests/unit/programs.h"

#ifdef __SANITIZE_ADDRESS__
#define STRIDE 8 /* the sanitizers see the same code at each */
#else
#define STRIDE 1
#endif
#define SHARES 4 /* tests side by side */

static const int reads_only[] = {
	SYS_read, SYS_pread64, SYS_readv, SYS_fstat, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_readlink,
	SYS_readlinkat, SYS_getdents64, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_brk, SYS_lseek, SYS_poll, SYS_ppoll,
	SYS_select, SYS_pselect6, SYS_epoll_wait, SYS_getpid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getppid, SYS_clock_gettime,
	SYS_gettimeofday, SYS_futex, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_close, SYS_recvmsg, SYS_recvfrom, SYS_sched_getaffinity, SYS_getcpu,
	SYS_get_mempolicy, SYS_prlimit64, SYS_getrlimit, SYS_getrandom, SYS_uname, SYS_sysinfo, SYS_statfs, SYS_fstatfs, SYS_fcntl, SYS_getcwd, SYS_arch_prctl,
	SYS_set_tid_address, SYS_set_robust_list, SYS_rseq, SYS_wait4, SYS_waitid, SYS_execve, SYS_sigaltstack, SYS_nanosleep, SYS_clock_nanosleep,
	SYS_getsockopt, SYS_setsockopt,
};
/* To be killed before one of these is no other moment; that it fails is another matter. */
static const int make_fds[] = { SYS_pipe2, SYS_socket, SYS_socketpair, SYS_dup, SYS_dup2, SYS_timerfd_create, SYS_signalfd4, SYS_pidfd_open };

/* ASKED: nobody is killed, but the launcher gets a signal that it may have an answer to. RECOVER: not a launcher. */
enum victim { LAUNCHER, QEMU, CALL, ASKED, RECOVER };

static bool is_one_of(unsigned long nr, const int *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (nr == (unsigned long)v[i])
			return true;
	return false;
}

static bool counts(const struct __ptrace_syscall_info *info, enum victim victim)
{
	unsigned long nr = info->entry.nr;

	if (nr == SYS_openat)
		return info->entry.args[2] & (O_WRONLY | O_RDWR | O_CREAT);
	if (nr == SYS_exit_group)
		return victim != CALL;
	return !is_one_of(nr, reads_only, ARRAY_SIZE(reads_only)) && (victim == CALL || !is_one_of(nr, make_fds, ARRAY_SIZE(make_fds)));
}

static pid_t start_traced(const struct place *p, enum victim victim)
{
	AUTO_FREE char *program = xasprintf("%s/%s", build_dir(), victim == RECOVER ? "gpuvm" : "gpuvm-launch");
	AUTO_FREE char *arg = victim == RECOVER ? xstrdup("recover") : xasprintf("%s/vm.ini", p->root), *out = xasprintf("%s/out.ini", p->root);
	pid_t pid = fork();

	cr_assert(pid >= 0);
	if (pid == 0) {
		int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(127);
		execl(program, program, arg, NULL);
		_exit(127);
	}
	return pid;
}

static bool is_running(const struct place *p)
{
	AUTO_FREE char *path = xasprintf("%s/demo/claim.json", p->root), *text = NULL;

	return read_text_file(path, 1 << 16, &text) == 0 && strstr(text, "\"state\":\"running\"");
}

/* 0: there is none yet. */
static pid_t qemu_pid(const struct place *p)
{
	AUTO_FREE char *path = xasprintf("%s/demo/claim.json", p->root), *text = NULL;
	const char *at = read_text_file(path, 1 << 16, &text) == 0 ? strstr(text, "\"qemu_pid\":") : NULL;

	return at ? atoi(at + strlen("\"qemu_pid\":")) : 0;
}

/* The call that the process is about to make is not made: it fails with @error. */
static void fail_call(pid_t pid, int error)
{
	int status;

	cr_assert(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), -1L) == 0);
	cr_assert(ptrace(PTRACE_SYSCALL, pid, NULL, 0) == 0);
	cr_assert(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	cr_assert(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rax), (long)-error) == 0);
}

static void on_alarm(int sig)
{
	(void)sig; /* waitpid() returns */
}

/* The launcher has ended by itself, or of a signal that came before it had an answer to it. */
static void check_end(int status, int calls, enum victim victim, pid_t qemu, int number)
{
	int code = WEXITSTATUS(status);

	if (victim == ASKED && WIFSIGNALED(status) && WTERMSIG(status) == number)
		return;
	cr_assert(WIFEXITED(status), "the launcher: status %x", (unsigned int)status);
	if (victim == ASKED) {
		/* 1: the guest had not run yet. */
		cr_assert(code == 0 || (code == 1 && number == SIGTERM), "%s before call %d: exit %d", strsignal(number), calls, code);
		return;
	}
	/* Without its QEMU: 1 before the guest ran, 6 then; 0 if it had been asked to stop. */
	cr_assert(code == 0 || ((qemu || victim == CALL) && (code == 1 || code == 4 || code == 6)), "before call %d: exit %d", calls, code);
}

/* Run the launcher until it has made @calls calls that count, and kill it before the next one, or its QEMU if there is one, or let that call fail
 * with the error @number, or send the signal @number. Once the guest runs it is asked to stop, so the way down is met, too. Returns false if it ended
 * without such a moment. */
static bool hit_after(const struct place *p, int calls, enum victim victim, int number)
{
	pid_t pid = start_traced(p, victim), qemu = 0;
	bool asked = victim == RECOVER;
	int status, seen = 0, sig = 0;

	cr_assert(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	cr_assert(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) == 0);
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	alarm(60);
	for (;;) {
		struct __ptrace_syscall_info info;

		cr_assert(ptrace(PTRACE_SYSCALL, pid, NULL, sig) == 0);
		if (waitpid(pid, &status, 0) != pid) {
			AUTO_FREE char *out = xasprintf("%s/out.ini", p->root), *text = NULL;

			kill(pid, SIGKILL);
			cr_assert(read_text_file(out, 1 << 16, &text) == 0);
			cr_assert_fail("call %d, error or signal %d: the launcher does not end:\n%s", calls, number, text);
		}
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			check_end(status, calls, victim, qemu, number);
			return seen > calls;
		}
		sig = WSTOPSIG(status) & 0x7f;
		if (WSTOPSIG(status) != (SIGTRAP | 0x80))
			continue;
		sig = 0;
		cr_assert(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0);
		if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
			continue;
		if (info.entry.nr == SYS_poll && !asked && is_running(p)) {
			asked = true;
			kill(pid, SIGTERM);
		}
		if (!counts(&info, victim) || seen++ != calls)
			continue;
		if (victim == LAUNCHER || victim == RECOVER)
			break;
		if (victim == CALL) {
			fail_call(pid, number);
			continue;
		}
		if (victim == ASKED) {
			kill(pid, number);
			continue;
		}
		qemu = qemu_pid(p);
		if (qemu > 0)
			kill(qemu, SIGKILL);
	}
	kill(pid, SIGKILL);
	cr_assert(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	return true;
}

#define LEFT "ls -A $R/demo | grep -vxE 'command|events.jsonl|gpuvm-check.sh|last.json|launch.log|plan.json|qemu.log|serial.log|swtpm.log|busy|seed-user-data'"

static void make_definition(struct place *p)
{
	EXPECT_SH(p, 0, "sed 's/^name = demo/&\\naccel = tcg/' conf/demo.ini >$R/vm.ini; printf '#cloud-config\\n' >$R/user.ini; "
			"printf '\\n[lifecycle]\\nstop-timeout = 100ms\\n[cloud-init]\\nuser-data = %s/user.ini\\n' $R >>$R/vm.ini");
}

static void kill_matrix(enum victim victim, int share)
{
	struct place p = place_new();
	int n = share * STRIDE;

	make_definition(&p);
	while (hit_after(&p, n, victim, 0)) {
		int r = victim == QEMU ? 0 : sh(&p, "$L -d $R/vm.ini && $G status demo --json | jq -e '.state == \"running\"' && $G kill demo");

		cr_expect(r == 0, "killed before call %d: it does not start again: exit %d\n%s", n, r, p.out);
		r = sh(&p, "! " LEFT " && ! ps -C qemu-system-x86 -o stat=,args= | grep -F \"$R/\" | grep -v ^Z");
		cr_expect(r == 0, "killed before call %d: something is left: exit %d\n%s", n, r, p.out);
		n += SHARES * STRIDE;
	}
	cr_log_info("%d moments", n / (SHARES * STRIDE));
	cr_expect(n > 100, "the launcher makes only %d calls that change something?", n);
	sh(&p, "rm -rf $R/demo $R/*.ini");
	place_end(&p);
}

/* Of a VM with a TPM whose launcher and QEMU were killed. The next one finishes what the one that was killed has begun; the hook that the launcher owes
 * comes to its end, and once more only if it was that which was cut short. */
Test(kill, recover, .timeout = 600)
{
	struct place p = place_new();
	int n = 0, twice = 0;

	make_definition(&p);
	EXPECT_SH(&p, 0, "printf '#!/bin/sh\\necho x >>%s/hook.ini\\n' $R >$R/stop.ini; chmod +x $R/stop.ini; printf '[guest]\\ntpm = on\\n[hooks]\\npost-stop = %s/stop.ini\\n' $R >>$R/vm.ini");
	EXPECT_SH(&p, 0, "$L -d $R/vm.ini && kill -9 $(jq '.launcher_pid, .qemu_pid' $R/demo/claim.json); "
			 "until $G status demo --json | jq -e '.state == \"failed\"'; do :; done; mkdir $R/keep; cp -a $R/demo $R/keep");
	for (;; n += STRIDE) {
		bool more;

		EXPECT_SH(&p, 0, "rm -rf $R/demo $R/hook.ini && cp -a $R/keep/demo $R");
		more = hit_after(&p, n, RECOVER, 0);
		cr_expect(sh(&p, "$G recover && ! " LEFT) == 0, "killed before call %d: something is left:\n%s", n, p.out);
		EXPECT_SH(&p, 0, "wc -l <$R/hook.ini");
		cr_expect(atoi(p.out) == 1 || atoi(p.out) == 2, "killed before call %d: the hook was run %d times", n, atoi(p.out));
		twice += atoi(p.out) == 2;
		if (!more)
			break;
	}
	cr_log_info("%d moments, at %d the hook was run again", n / STRIDE, twice);
	cr_expect(n > 20 && twice < n / STRIDE / 2, "%d calls, %d times twice", n, twice);
	sh(&p, "rm -rf $R/demo $R/keep $R/tpm $R/*.ini");
	place_end(&p);
}

/* SIGTERM ends it, once is enough; SIGHUP does not, if it comes when there is something to end. */
static void asked_matrix(int number, int share)
{
	struct place p = place_new();
	int n = share * STRIDE;

	make_definition(&p);
	for (; hit_after(&p, n, ASKED, number); n += SHARES * STRIDE) {
		int r = sh(&p, "[ ! -e $R/demo ] || ! " LEFT " && ! ps -C qemu-system-x86 -o stat=,args= | grep -F \"$R/\" | grep -v ^Z");

		cr_expect(r == 0, "%s before call %d: something is left: exit %d\n%s", strsignal(number), n, r, p.out);
	}
	cr_log_info("%d moments", n / (SHARES * STRIDE));
	cr_expect(n > 100, "the launcher makes only %d calls that change something?", n);
	sh(&p, "rm -rf $R/demo $R/*.ini");
	place_end(&p);
}

static const int errors[] = { EIO, ENOSPC, EBUSY, EINTR };

/* A call that fails on the way down may leave a claim: recovering, or the next command, makes an end of it. */
static void failure_matrix(int share)
{
	struct place p = place_new();
	int n = share * STRIDE;
	bool more = true;

	make_definition(&p);
	for (; more; n += SHARES * STRIDE) {
		for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
			int r;

			more = hit_after(&p, n, CALL, errors[i]);
			r = sh(&p, "[ ! -e $R/demo/claim.json ] || { $G recover; $G kill demo; }; [ ! -e $R/demo ] || ! " LEFT
				   " && ! ps -C qemu-system-x86 -o stat=,args= | grep -F \"$R/\" | grep -v ^Z");
			cr_expect(r == 0, "call %d fails with %s: something is left: exit %d\n%s", n, strerrorname_np(errors[i]), r, p.out);
		}
	}
	cr_log_info("%d failures", (n / (SHARES * STRIDE) - 1) * (int)ARRAY_SIZE(errors));
	cr_expect(n > 100, "the launcher makes only %d calls that can fail?", n);
	sh(&p, "rm -rf $R/demo $R/*.ini");
	place_end(&p);
}

#define SHARE(n)                                            \
	Test(kill, call_share_##n, .timeout = 900)          \
	{                                                   \
		failure_matrix(n);                          \
	}                                                   \
	Test(kill, sigterm_share_##n, .timeout = 600)       \
	{                                                   \
		asked_matrix(SIGTERM, n);                   \
	}                                                   \
	Test(kill, sighup_share_##n, .timeout = 600)        \
	{                                                   \
		asked_matrix(SIGHUP, n);                    \
	}                                                   \
	Test(kill, launcher_share_##n, .timeout = 600)      \
	{                                                   \
		kill_matrix(LAUNCHER, n);                   \
	}                                                   \
	Test(kill, qemu_share_##n, .timeout = 600)          \
	{                                                   \
		kill_matrix(QEMU, n);                       \
	}
SHARE(0)
SHARE(1)
SHARE(2)
SHARE(3)

/* --- the model kernel ------------------------------------------------------------------------------------------- */

static const struct fake_device machine[] = {
	{ .bdf = "0000:17:00.0", .vendor = 0x10de, .device = 0x2335, .class_code = 0x030200, .group = 1, .driver = "nvidia" },
	{ .bdf = "0000:18:00.0", .vendor = 0x15b3, .device = 0x1021, .class_code = 0x020700, .group = 2, .driver = "mlx5_core" },
	{ .bdf = "0000:19:00.0", .vendor = 0x144d, .device = 0xa824, .class_code = 0x010802, .group = 3, .driver = NULL },
};
static const struct fake_device port = { .bdf = "0000:15:01.0", .vendor = 0x8086, .device = 0x352a, .class_code = 0x060400, .group = 4 };

/* The device tables of the tests: the machine and its port. */
static int make_machine(struct fake_kernel *k)
{
	struct fake_device v[ARRAY_SIZE(machine) + 1];

	memcpy(v, machine, sizeof(machine));
	v[ARRAY_SIZE(machine)] = port;
	return fake_kernel_make(k, v, ARRAY_SIZE(v));
}

static uint16_t acs_of_port(struct fake_kernel *k)
{
	struct pci_addr a;
	struct err e = { 0 };
	uint16_t now = 0;

	cr_assert(parse_pci_addr(port.bdf, &a) == 0 && acs_get(&k->sys, &a, FAKE_ACS_OFFSET, &now, &e) == 0, "%s", e.msg);
	return now;
}

/* A launcher's way up and down: claim, bind, give back, release. */
static void bind_and_give_back(struct sysfs *s)
{
	struct claim c = { .launcher_pid = getpid(), .launcher_start = process_start_time(getpid()), .partition = -1, .state = "starting" };
	AUTO_FREE struct bind_op *ops = NULL;
	struct err e = { 0 };

	c.vm = xstrdup("a");
	c.rundir = claim_vm_dir("a");
	c.boot_id = claim_boot_id();
	c.reason = xstrdup("");
	for (size_t i = 0; i < ARRAY_SIZE(machine); i++) {
		struct claim_device *d = PUSH_ZEROED(c.devices, c.n_devices);

		parse_pci_addr(machine[i].bdf, &d->addr);
		d->from = machine[i].driver ? xstrdup(machine[i].driver) : NULL;
		d->to = xstrdup("vfio-pci");
		d->id = xstrdup("x");
	}
	*PUSH_ZEROED(c.registers, c.n_registers) = (struct claim_register){ .offset = FAKE_ACS_OFFSET, .from = FAKE_ACS, .to = 0x5d };
	parse_pci_addr(port.bdf, &c.registers[0].addr);
	ops = claim_bind_ops(&c);
	c.bound = true;
	if (claim_write(&c, &e) < 0 || bind_devices(s, ops, c.n_devices, &e) < 0 || acs_set(s, &c.registers[0].addr, FAKE_ACS_OFFSET, 0x5d, &e) < 0 ||
	    acs_restore(s, &c, &e) < 0 || claim_write(&c, &e) < 0 || bind_restore(s, ops, c.n_devices, &e) < 0 || claim_release(&c, 0, &e) < 0)
		_exit(1);
}

static void recover(struct sysfs *s)
{
	AUTO_FREE char *dir = claim_vm_dir("a");
	struct claim c;
	struct err e = { 0 };

	if (claim_read(dir, &c, &e) < 0 || claim_recover(s, &c, &e) < 0)
		_exit(1);
}

/* In a process of its own; true if it was killed. */
static bool run_deadly(struct fake_kernel *k, void (*fn)(struct sysfs *s), int at, bool late)
{
	struct deadly d = { .k = k, .at = at, .late = late };
	struct sysfs s = deadly_sysfs(&d);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		fn(&s);
		_exit(0);
	}
	cr_assert(waitpid(pid, &status, 0) == pid);
	cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "exit %d", WEXITSTATUS(status));
	return WIFSIGNALED(status);
}

/* Who recovers is killed at each of its writes, too, before one is let live. */
Test(kill, every_write_to_a_device, .timeout = 300)
{
	char dir[] = "/tmp/gpuvm-kill-XXXXXX";
	struct fake_kernel k = { 0 };
	AUTO_FREE char *before = NULL, *claim = NULL;
	int moments = 0;

	cr_assert(mkdtemp(dir));
	cr_assert(setenv("GPUVM_RUNDIR", dir, 1) == 0);
	claim = xasprintf("%s/a", dir);
	cr_assert(mkdir(claim, 0700) == 0);
	cr_assert(make_machine(&k) == 0);
	before = fake_kernel_snapshot(&k);
	for (int late = 0; late < 2; late++) {
		int at = 1;

		for (; run_deadly(&k, bind_and_give_back, at, late); at++) {
			for (int again = 1; run_deadly(&k, recover, again, late); again++)
				moments++;
			/* It lived: nothing is claimed, and the machine is what it was. */
			AUTO_FREE char *now = fake_kernel_snapshot(&k), *file = xasprintf("%s/claim.json", claim);

			cr_assert(access(file, F_OK) < 0);
			cr_assert_str_eq(now, before, "killed %s write %d", late ? "behind" : "before", at);
			cr_assert(acs_of_port(&k) == FAKE_ACS, "killed %s write %d", late ? "behind" : "before", at);
			moments++;
		}
		cr_assert(at > 12, "only %d writes?", at);
	}
	cr_log_info("%d moments", moments);
	fake_kernel_free(&k);
	mkhost_remove(xstrdup(dir));
}

/* As run_deadly(), but the write fails. False: there was no such write. */
static bool run_failing(struct fake_kernel *k, void (*fn)(struct sysfs *s), unsigned int at, int error)
{
	unsigned int nr = atomic_load(&k->sh->writes) + at;
	bool met;

	k->sh->fail_at = nr;
	k->sh->fail_errno = error;
	pid_t pid = fork();

	if (pid == 0) {
		fn(&k->sys);
		_exit(0);
	}
	cr_assert(waitpid(pid, NULL, 0) == pid);
	met = atomic_load(&k->sh->writes) >= nr;
	k->sh->fail_at = 0;
	return met;
}

/* Who binds and gives back meets an error, and ends; who recovers after it meets one, too, at each of its writes. Then one is let do its work. */
Test(kill, every_write_to_a_device_fails, .timeout = 300)
{
	static const int of_devices[] = { EIO, EBUSY, ENOSPC, EINTR, ENODEV };
	char dir[] = "/tmp/gpuvm-kill-XXXXXX";
	struct fake_kernel k = { 0 };
	AUTO_FREE char *before = NULL, *claim = NULL, *file = NULL;
	int failures = 0;

	log_init("kill", LOG_LEVEL_ERROR);
	cr_assert(mkdtemp(dir));
	cr_assert(setenv("GPUVM_RUNDIR", dir, 1) == 0);
	claim = xasprintf("%s/a", dir);
	file = xasprintf("%s/claim.json", claim);
	cr_assert(mkdir(claim, 0700) == 0);
	cr_assert(make_machine(&k) == 0);
	before = fake_kernel_snapshot(&k);
	for (size_t i = 0; i < ARRAY_SIZE(of_devices); i++) {
		for (unsigned int at = 1; run_failing(&k, bind_and_give_back, at, of_devices[i]); at++) {
			for (unsigned int again = 1; access(file, F_OK) == 0 && run_failing(&k, recover, again, of_devices[i]); again++)
				failures++;
			AUTO_FREE char *now = NULL;

			if (access(file, F_OK) == 0)
				run_failing(&k, recover, 1U << 20, 0);
			now = fake_kernel_snapshot(&k);
			cr_assert(access(file, F_OK) < 0, "%s of write %u: the claim is still there", strerrorname_np(of_devices[i]), at);
			cr_assert_str_eq(now, before, "%s of write %u", strerrorname_np(of_devices[i]), at);
			cr_assert(acs_of_port(&k) == FAKE_ACS, "%s of write %u", strerrorname_np(of_devices[i]), at);
			failures++;
		}
	}
	cr_assert(failures > 100, "only %d", failures);
	cr_log_info("%d failures", failures);
	fake_kernel_free(&k);
	mkhost_remove(xstrdup(dir));
}
