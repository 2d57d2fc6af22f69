/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many VMs, many lives of one VM, and guests that misbehave: with the real programs, QEMU and firmware, and no passed-through devices.
 *
 * A guest here is a boot sector, given as bytes. What a test waits for is a line in a file of the VM, which inotify reports. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

#include "gpuvm/affinity.h"
#include "gpuvm/claim.h"
#include "gpuvm/probe.h"
#include "programs.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

#if defined(__has_feature)
#define HAS_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#else
#define HAS_ASAN 0
#endif

/* ASan keeps what was freed, and makes each start of a program slower; what leaks is found by LeakSanitizer then. */
#define CYCLES	   (HAS_ASAN ? 24 : 100) /* a multiple of PARTS */
#define GROWTH_KIB (HAS_ASAN ? 1L << 30 : 1024)
#define DEADLINE_S 50

/* Firmware's code runs everywhere by emulation, and sooner. */
#define SMALL "--set memory.size=16M --set lifecycle.stop-timeout=300ms conf/demo.ini"
#define TCG   "--set vm.accel=tcg "
#define BOOT  TCG "--set disk.os.file=$R/disk.raw "

/* --- places and waiting --------------------------------------------------------------------------------------- */

/* Folders apart, as installed: a VM's name is a folder of the first one. Temporary files have one, too. */
static struct place many_new(void)
{
	struct place p = place_new();
	AUTO_FREE char *run = xasprintf("%s/run", p.root), *state = xasprintf("%s/state", p.root), *tmp = xasprintf("%s/tmp", p.root);

	setenv("GPUVM_RUNDIR", run, 1);
	setenv("GPUVM_STATEDIR", state, 1);
	setenv("TMPDIR", tmp, 1);
	EXPECT_SH(&p, 0, "mkdir $R/run $R/state $R/tmp");
	return p;
}

static void many_end(struct place *p)
{
	EXPECT_SH(p, 1, "ls $R/run/*/claim.json 2>/dev/null | grep .");
	EXPECT_SH(p, 0, "[ -z \"$(ls -A $R/tmp)\" ]");
	sh(p, "rm -rf $R/run $R/state $R/tmp $R/disk.raw");
	place_end(p);
}

/* A network and mounts of this test's own: what is left behind in them is ours. False: not as root, or not in this container. */
static bool own_namespaces(void)
{
	return geteuid() == 0 && unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       /* sysfs shows the network of whoever mounted it */
	       mount("sysfs", "/sys", "sysfs", 0, NULL) == 0 && mount("tmpfs", "/dev/shm", "tmpfs", 0, NULL) == 0;
}

static int count_of(const char *path, const char *text)
{
	AUTO_FREE char *all = NULL;
	int n = 0;

	if (read_text_file(path, 4 << 20, &all) < 0)
		return 0;
	for (const char *at = all; (at = strstr(at, text)); at += strlen(text))
		n++;
	return n;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait until @text is in @file of the VM "demo" @n times. */
static void await_text(const char *file, const char *text, int n)
{
	AUTO_FREE char *dir = claim_vm_dir("demo"), *path = xasprintf("%s/%s", dir, file), *have = NULL;
	AUTO_CLOSE int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int64_t end = now_ms() + DEADLINE_S * 1000;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char buf[4096];

	cr_assert(fd >= 0 && inotify_add_watch(fd, dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO) >= 0, "%s: %s", dir, strerror(errno));
	while (count_of(path, text) < n && now_ms() < end) {
		poll(&p, 1, (int)(end - now_ms()));
		while (read(fd, buf, sizeof(buf)) > 0)
			;
	}
	if (count_of(path, text) < n)
		(void)read_text_file(path, 4 << 20, &have);
	cr_assert(count_of(path, text) >= n, "'%s' is not %d times in %s:\n%s", text, n, path, have ? have : "(nothing)");
}

#define await_event(word, n) await_text("events.jsonl", "\"event\":\"" word "\"", n)

static struct claim claim_of(const char *vm)
{
	AUTO_FREE char *dir = claim_vm_dir(vm);
	struct claim c = { 0 };
	struct err e = { 0 };

	cr_assert(claim_read(dir, &c, &e) == 0, "%s", e.msg);
	return c;
}

static pid_t launcher_of(const char *vm)
{
	struct claim c = claim_of(vm);
	pid_t pid = c.launcher_pid;

	claim_clear(&c);
	return pid;
}

static pid_t qemu_of(const char *vm)
{
	struct claim c = claim_of(vm);
	pid_t pid = c.qemu_pid;

	claim_clear(&c);
	return pid;
}

/* --- guests ----------------------------------------------------------------------------------------------------- */

/* A disk of 1 MiB, of which only the boot sector is there: @code, loaded at 0x7c00, and the signature. */
static void make_disk(const struct place *p, const char *name, const uint8_t *code, size_t len)
{
	AUTO_FREE char *path = xasprintf("%s/%s", p->root, name);
	uint8_t sector[512] = { [510] = 0x55, [511] = 0xaa };

	cr_assert(len <= 446);
	memcpy(sector, code, len);
	cr_assert(write_file_atomic(path, (const char *)sector, sizeof(sector), 0600) == 0 && truncate(path, 1 << 20) == 0);
}

/* Write "boot\n" to the serial port and reset the machine. */
static const uint8_t rebooting[] = {
	0x31, 0xc0,	  /*	xor	ax, ax */
	0x8e, 0xd8,	  /*	mov	ds, ax */
	0xbe, 0x17, 0x7c, /*	mov	si, text */
	0xba, 0xf8, 0x03, /*	mov	dx, 0x3f8		COM1 */
	0xac,		  /* a:	lodsb */
	0xee,		  /*	out	dx, al */
	0x3c, 0x0a,	  /*	cmp	al, '\n' */
	0x75, 0xfa,	  /*	jne	a */
	0xb0, 0xfe,	  /*	mov	al, 0xfe */
	0xe6, 0x64,	  /*	out	0x64, al		the keyboard controller pulls the reset line */
	0xf4,		  /* b:	hlt */
	0xeb, 0xfd,	  /*	jmp	b */
	'b',  'o',  'o',  't', '\n',
};

/* Find pvpanic-pci, whose only register is above what real mode reaches, and tell it what a kernel that panics does. */
static const uint8_t panicking[] = {
	0xfa,				  /*	cli */
	0xb8, 0x02, 0xb1,		  /*	mov	ax, 0xb102		PCI BIOS: find device */
	0xb9, 0x11, 0x00,		  /*	mov	cx, 0x0011		pvpanic-pci */
	0xba, 0x36, 0x1b,		  /*	mov	dx, 0x1b36		Red Hat */
	0x31, 0xf6,			  /*	xor	si, si			the first one */
	0xcd, 0x1a,			  /*	int	0x1a			bx: bus, device, function */
	0xb8, 0x0a, 0xb1,		  /*	mov	ax, 0xb10a		read configuration dword */
	0xbf, 0x10, 0x00,		  /*	mov	di, 0x10		BAR 0 */
	0xcd, 0x1a,			  /*	int	0x1a			to ecx */
	0x80, 0xe1, 0xf0,		  /*	and	cl, 0xf0 */
	0x31, 0xc0,			  /*	xor	ax, ax */
	0x8e, 0xd8,			  /*	mov	ds, ax */
	0x0f, 0x01, 0x16, 0x46, 0x7c,	  /*	lgdt	[gdtr] */
	0x0f, 0x20, 0xc0,		  /*	mov	eax, cr0 */
	0x0c, 0x01,			  /*	or	al, 1			protected mode */
	0x0f, 0x22, 0xc0,		  /*	mov	cr0, eax */
	0xb8, 0x08, 0x00,		  /*	mov	ax, 8 */
	0x8e, 0xd8,			  /*	mov	ds, ax			4 GiB of data */
	0x67, 0xc6, 0x01, 0x01,		  /*	mov	byte [ecx], 1		PVPANIC_PANICKED */
	0xf4,				  /* a:	hlt */
	0xeb, 0xfd,			  /*	jmp	a */
	0,    0,    0,	  0,	0, 0,	 0,    0, /* gdt: the null descriptor, and a flat one */
	0xff, 0xff, 0,	  0,	0, 0x92, 0xcf, 0,
	0x0f, 0,    0x36, 0x7c, 0, 0, /* gdtr: limit, 0x7c36 */
};

/* Write 16 times 32 KiB, one behind the other, to the disk it came from; then "D" to the serial port, or "E" at an error. */
static const uint8_t writing[] = {
	0x31, 0xc0,			  /*	xor	ax, ax */
	0x8e, 0xd8,			  /*	mov	ds, ax */
	0xb9, 0x10, 0x00,		  /*	mov	cx, 16 */
	0xbe, 0x25, 0x7c,		  /* a:	mov	si, packet */
	0xb8, 0x00, 0x43,		  /*	mov	ax, 0x4300		extended write, to drive dl as the BIOS left it */
	0xcd, 0x13,			  /*	int	0x13 */
	0x72, 0x10,			  /*	jc	error */
	0x83, 0x06, 0x2d, 0x7c, 0x40,	  /*	add	word [sector], 64 */
	0xe2, 0xef,			  /*	loop	a */
	0xb0, 'D',			  /*	mov	al, 'D' */
	0xba, 0xf8, 0x03,		  /* say: mov	dx, 0x3f8 */
	0xee,				  /*	out	dx, al */
	0xf4,				  /* b:	hlt */
	0xeb, 0xfd,			  /*	jmp	b */
	0xb0, 'E',			  /* error: mov	al, 'E' */
	0xeb, 0xf5,			  /*	jmp	say */
	0x10, 0,    0x40, 0,		  /* packet: its size; 64 sectors */
	0x00, 0x7c, 0,	  0,		  /*	from 0:0x7c00 */
	0x40, 0,    0,	  0,	0, 0, 0, 0, /* sector: 64 */
};

/* --- many VMs at once -------------------------------------------------------------------------------------------- */

#define EIGHT	    "1 2 3 4 5 6 7 8"
#define EACH(words) "for i in " EIGHT "; do " words "; done"
/* Each beside the others; fails if one does. */
#define ALL_AT_ONCE(command) "pids=; " EACH(command " & pids=\"$pids $!\"") "; for p in $pids; do wait $p || exit 9; done"
#define AFTER_THE_END	     "command events.jsonl gpuvm-check.sh last.json launch.log plan.json qemu.log serial.log"

static void expect_disjoint_cpus(void)
{
	struct cpuset all = { 0 };

	for (int i = 1; i <= 8; i++) {
		AUTO_FREE char *name = xasprintf("m%d", i);
		struct claim c = claim_of(name);

		cr_expect(!cpuset_intersects(&all, &c.cpus), "%s runs on CPUs of another VM", name);
		cpuset_or(&all, &c.cpus);
		claim_clear(&c);
	}
	/* The first one that came had the machine for itself. */
	cr_expect(!cpuset_empty(&all));
}

Test(many, eight_at_once, .timeout = 150)
{
	struct place p = many_new();
	/* Without, it is QEMU's own network, which leaves nothing behind. */
	bool taps = own_namespaces() && access("/dev/net/tun", R_OK | W_OK) == 0;

	setenv("NET", taps ? "--set net.user.type=tap" : "", 1);
	setenv("TAPS", taps ? "8" : "0", 1);
	EXPECT_SH(&p, 0, "grep HugePages_Free /proc/meminfo >$R/huge.ini; ls /sys/class/net >$R/net.ini; " ALL_AT_ONCE("$L -d $NET --set vm.name=m$i " SMALL));
	EXPECT_SH(&p, 0, "$G list --json | jq -e 'length == 8 and all(.state == \"running\") and ([.[].qemu_pid] | unique | length == 8) and "
			 "([.[].name] == [range(1; 9) | \"m\\(.)\"])'");
	EXPECT_SH(&p, 0, "jq -s -e '[.[].taps[]] | unique | length == (env.TAPS | tonumber)' $R/run/*/claim.json");
	expect_disjoint_cpus();
	EXPECT_SH(&p, 0, EACH("$G verify m$i || exit 9"));
	EXPECT_SH(&p, 0, ALL_AT_ONCE("$G stop m$i"));
	EXPECT_SH(&p, 0, "$G list --json | jq -e 'length == 8 and all(.state == \"stopped\" and .exit_code == 0)'");
	EXPECT_SH(&p, 0, EACH("echo $(ls -A $R/run/m$i)") " | sort -u");
	cr_expect_str_eq(p.out, AFTER_THE_END);
	EXPECT_SH(&p, 0, "grep HugePages_Free /proc/meminfo | diff $R/huge.ini - && ls /sys/class/net | diff $R/net.ini -");
	many_end(&p);
}

/* --- many lives of one VM ------------------------------------------------------------------------------------------ */

/* What is left of a life: files, sockets, shared memory, interfaces, pages. In namespaces of our own, or the others' would count. */
#define LEFT                                                                                                                                          \
	"{ find $R/run $R/state $R/tmp /dev/shm | sort; wc -l </proc/net/unix; ls /sys/class/net; grep HugePages_Free /proc/meminfo; } "
/* The ways to end: at once, asked, the monitor's, and a crash. */
#define CYCLE                                                                                                                                         \
	"$L -q -d $NET " TCG SMALL " || exit 9; case $((i % 4)) in 0) $G kill demo ;; 1) $G stop --timeout 1ms demo ;; 2) $G qmp demo quit ;; "       \
	"3) kill -9 $(jq .qemu_pid $R/run/demo/claim.json) ;; esac || exit 8; $G wait demo; case $((i % 4))$? in [012]0 | 36) ;; *) exit 7 ;; esac; "

/* Our children: the launchers, since nobody else is there to inherit them. All have ended, or -1. */
static int reap_all(void)
{
	int status, n = 0;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		n++;
	return pid < 0 && errno == ECHILD ? n : -1;
}

/* A command has a minute: several of them. */
#define PARTS 4

Test(many, a_hundred_lives_leave_nothing, .timeout = 300)
{
	struct place p = many_new();
	AUTO_FREE char *part = xasprintf("%d", CYCLES / PARTS);

	if (!own_namespaces())
		cr_skip("needs root, and namespaces");
	setenv("NET", access("/dev/net/tun", R_OK | W_OK) == 0 ? "--set net.user.type=tap" : "", 1);
	setenv("PART", part, 1);
	cr_assert(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	/* one of each first: what they leave is what stays */
	EXPECT_SH(&p, 0, "for i in 1 2 3 4; do " CYCLE " done >/dev/null; " LEFT ">$R/first.ini");
	for (int i = 0; i < PARTS; i++)
		EXPECT_SH(&p, 0, "for i in $(seq $PART); do " CYCLE " done >/dev/null; " LEFT "| diff $R/first.ini -");
	cr_expect(reap_all() == 4 + CYCLES, "a process is left, or a launcher was somebody else's");
	EXPECT_SH(&p, 0, "ls -A $R/run $R/run/demo; [ \"$(echo $(ls -A $R/run/demo))\" = '" AFTER_THE_END "' ]");
	many_end(&p);
}

struct usage {
	int fds;
	long rss_kib; /* what it has made itself: pages of its code come and go */
};

/* It waits in its loop: what it was told is done, and the files for that are closed. A kernel that does not say where a process waits costs the
 * deadline. */
static void await_idle(pid_t pid)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/wchan", pid);
	int64_t end = now_ms() + 5000;

	while (count_of(path, "poll") == 0 && now_ms() < end)
		sched_yield();
}

static struct usage usage_of(pid_t pid)
{
	AUTO_FREE char *dir = xasprintf("/proc/%d/fd", pid), *path = xasprintf("/proc/%d/status", pid), *text = NULL;
	struct usage u = { 0 };
	const char *rss = NULL;
	DIR *d;

	await_idle(pid);
	d = opendir(dir);
	cr_assert(d && read_text_file(path, 1 << 16, &text) == 0 && (rss = strstr(text, "RssAnon:")), "the launcher (pid %d) is gone", pid);
	while (readdir(d))
		u.fds++;
	closedir(d);
	u.rss_kib = strtol(rss + strlen("RssAnon:"), NULL, 10);
	return u;
}

static void expect_no_growth(pid_t pid, const struct usage *before)
{
	struct usage now = usage_of(pid);

	cr_expect(now.fds == before->fds, "%d open files, %d before", now.fds, before->fds);
	cr_expect(now.rss_kib - before->rss_kib < GROWTH_KIB, "%ld KiB of memory, %ld before", now.rss_kib, before->rss_kib);
}

/* The pauses between two lives double: a fifth one would be 16 s long, and is cut short. */
#define LIVES 5

Test(many, lives_of_one_launcher, .timeout = 150)
{
	struct place p = many_new();
	struct usage second = { 0 };
	pid_t launcher;

	EXPECT_SH(&p, 0, "$L -d --set lifecycle.on-crash=restart " TCG SMALL);
	launcher = launcher_of("demo");
	for (int i = 1; i <= LIVES; i++) {
		await_event("started", i);
		/* It answers from its loop now, not on its way there. */
		EXPECT_SH(&p, 0, "$G pause demo");
		await_event("stopped by a monitor", i);
		cr_expect(launcher_of("demo") == launcher);
		if (i == 2)
			second = usage_of(launcher);
		else if (i > 2)
			expect_no_growth(launcher, &second);
		cr_assert(kill(qemu_of("demo"), SIGKILL) == 0);
	}
	await_event("restart", LIVES);
	EXPECT_SH(&p, 0, "$G stop demo");
	EXPECT_SH(&p, 6, "$G wait demo");
	many_end(&p);
}

#define QMP(n, commands) "for i in $(seq " n "); do printf '" commands "'; done | $G qmp demo | jq -s -e 'all(. == {})'"

/* Each reset is asked for when the one before was done: QEMU answers the next command after it. */
static void expect_resets(struct place *p, int n)
{
	await_text("events.jsonl", "host-qmp-system-reset", n);
	EXPECT_SH(p, 0, "$G status demo --json | jq -e '.state == \"running\"'");
}

Test(many, pauses_and_resets_of_one_life, .timeout = 150)
{
	struct place p = many_new();
	struct usage before;
	pid_t launcher;

	EXPECT_SH(&p, 0, "$L -d " TCG SMALL);
	launcher = launcher_of("demo");
	/* as many as its buffers need to have their size */
	EXPECT_SH(&p, 0, QMP("10", "stop\\ncont\\nsystem_reset\\n"));
	expect_resets(&p, 10);
	before = usage_of(launcher);
	EXPECT_SH(&p, 0, QMP("190", "stop\\ncont\\n"));
	EXPECT_SH(&p, 0, QMP("90", "system_reset\\n"));
	expect_resets(&p, 100);
	expect_no_growth(launcher, &before);
	EXPECT_SH(&p, 0, "$G kill demo");
	many_end(&p);
}

/* --- who is first ---------------------------------------------------------------------------------------------------- */

/* Whoever has the lock first has the name. The other one says whose it is. */
#define ROUND                                                                                                                                         \
	"$L -d " TCG SMALL " 2>$R/tmp/a & a=$!; $L -d " TCG SMALL " 2>$R/tmp/b & b=$!; wait $a; ra=$?; wait $b; rb=$?; "                              \
	"case $ra$rb in 05) lost=$R/tmp/b ;; 50) lost=$R/tmp/a ;; *) echo exit $ra and $rb; cat $R/tmp/?; exit 9 ;; esac; "                           \
	"grep \"'demo' is running already.* pid $(jq .launcher_pid $R/run/demo/claim.json)$\" $lost || { cat $lost; exit 8; }; $G kill demo || exit 7; "

Test(many, two_starts_have_one_winner, .timeout = 150)
{
	struct place p = many_new();

	for (int i = 0; i < 4; i++)
		EXPECT_SH(&p, 0, "for i in 1 2 3 4 5; do " ROUND " done");
	EXPECT_SH(&p, 0, "rm $R/tmp/a $R/tmp/b");
	many_end(&p);
}

/* A VM that lives as long as this test does. */
static void hold(struct claim *c, const char *vm)
{
	struct err e = { 0 };

	*c = (struct claim){ .started = 1, .launcher_pid = getpid(), .launcher_start = process_start_time(getpid()), .fabric = FABRIC_NONE, .partition = -1 };
	c->vm = xstrdup(vm);
	c->rundir = claim_vm_dir(vm);
	c->boot_id = claim_boot_id();
	c->reason = xstrdup("");
	strcpy(c->state, "running");
	cr_assert(mkdir(c->rundir, 0700) == 0 && claim_write(c, &e) == 0, "%s", e.msg);
}

static void hold_again(const struct claim *c)
{
	struct err e = { 0 };

	cr_assert(claim_write(c, &e) == 0, "%s", e.msg);
}

static void let_go(struct claim *c)
{
	struct err e = { 0 };

	cr_assert(claim_release(c, 0, &e) == 0, "%s", e.msg);
	claim_clear(c);
}

static int last_cpu(void)
{
	cpu_set_t set;
	int last = -1;

	cr_assert(sched_getaffinity(0, sizeof(set), &set) == 0);
	for (int i = 0; i < CPU_SETSIZE; i++)
		last = CPU_ISSET(i, &set) ? i : last;
	return last;
}

Test(many, the_holder_is_named, .timeout = 60)
{
	struct place p = many_new();
	AUTO_FREE char *pid = xasprintf("its launcher has pid %d", getpid()), *cpu = xasprintf("%d", last_cpu()), *pin = xasprintf("CPU %s is pinned by the running VM 'demo' (pid %d)", cpu, getpid());
	AUTO_FREE char *holds_cid = xasprintf("the running VM 'demo' (pid %d) has context ID 77", getpid());
	struct claim c;

	hold(&c, "demo");
	EXPECT_SH(&p, 5, "$L -d " TCG SMALL);
	EXPECT_SAYS(&p, "'demo'");
	EXPECT_SAYS(&p, pid);
	/* Another name is free, but not the CPU. */
	cpuset_add(&c.cpus, last_cpu());
	c.vsock = 77;
	hold_again(&c);
	setenv("PIN", cpu, 1);
	EXPECT_SH(&p, 5, "$L -d --set vm.name=other --set cpu.vcpus=1 --set cpu.pin=$PIN " TCG SMALL);
	EXPECT_SAYS(&p, pin);
	/* Nor is the context ID, where there are any. */
	EXPECT_SH(&p, 0, "$L --set vm.name=other --set guest.vsock=77 " TCG SMALL "; case $? in 4) [ ! -e /dev/vhost-vsock ] ;; *) [ $? = 5 ] ;; esac");
	EXPECT_SAYS(&p, holds_cid);
	EXPECT_SH(&p, 0, "[ ! -e $R/run/other ]");
	let_go(&c);
	EXPECT_SH(&p, 0, "$L -d --set vm.name=other --set cpu.vcpus=1 --set cpu.pin=$PIN " TCG SMALL " && $G kill other");
	many_end(&p);
}

/* As the launcher decides it, from the claims on disk, on a machine that has GPUs. */
static int plan_gpu(const struct topology *host, struct place *p, struct problems *ps)
{
	AUTO_FREE char *path = xasprintf("%s/gpu.ini", p->root);
	static const char text[] = "[vm]\nname = second\n[place]\ngpus = 1\ngpu-index = 0\n";
	struct qemu_info qemu = fake_qemu("10.0");
	struct fabric_map fabric = { 0 };
	struct host_use use = { 0 };
	struct strv none = { 0 };
	struct vm_config vm;
	struct plan plan = { 0 };
	struct err e = { 0 };
	int r;

	cr_assert(write_file_atomic(path, text, strlen(text), 0600) == 0 && config_load(path, &none, &vm, ps) == 0);
	cr_assert(claim_collect_use(NULL, vm.name, &use, &e) == 0, "%s", e.msg);
	r = plan_make(&(struct plan_request){ .vm = &vm, .host = host, .use = &use, .fabric = &fabric, .qemu = &qemu, .rundir = "/run/gpuvm/second",
					      .statedir = "/var/lib/gpuvm", .foreign_host = true },
		      &plan, ps);
	plan_clear(&plan);
	host_use_clear(&use);
	config_clear(&vm);
	return r;
}

static int first_gpu(const struct topology *t)
{
	for (size_t i = 0; i < t->n_funcs; i++)
		if (t->funcs[i].role == ROLE_GPU)
			return (int)i;
	cr_assert_fail("the machine has no GPU");
	return -1;
}

Test(many, the_holder_of_a_gpu_is_named, .timeout = 60)
{
	struct place p = many_new();
	AUTO_FREE char *root = mkhost_fixture("single-socket-4gpu"), *says = xasprintf("is held by the running VM 'first' (pid %d)", getpid());
	struct topology host = { 0 };
	struct problems ps = { 0 };
	struct err e = { 0 };
	struct claim_device *d;
	struct claim c;

	cr_assert(root && probe_host(root, &host, &e) == 0, "%s", e.msg);
	hold(&c, "first");
	cr_expect(plan_gpu(&host, &p, &ps) == 0, "%s", ps.n ? ps.v[0].message : "");
	d = PUSH_ZEROED(c.devices, c.n_devices);
	d->addr = host.funcs[first_gpu(&host)].addr;
	d->id = xstrdup("gpu0");
	d->to = xstrdup("vfio-pci");
	hold_again(&c);
	cr_assert(plan_gpu(&host, &p, &ps) < 0 && ps.n > 0);
	cr_expect(problems_exit_code(&ps) == 5);
	cr_expect(strstr(ps.v[0].message, says), "'%s' is not in: %s", says, ps.v[0].message);
	problems_clear(&ps);
	let_go(&c);
	cr_expect(plan_gpu(&host, &p, &ps) == 0);
	problems_clear(&ps);
	topology_clear(&host);
	mkhost_remove(STEAL_PTR(root));
	many_end(&p);
}

/* --- guests that misbehave ------------------------------------------------------------------------------------------- */

Test(many, a_guest_reboots, .timeout = 90)
{
	struct place p = many_new();

	make_disk(&p, "disk.raw", rebooting, sizeof(rebooting));
	EXPECT_SH(&p, 0, "$L -d " BOOT SMALL);
	await_text("serial.log", "boot\n", 3);
	await_text("events.jsonl", "guest-reset", 2);
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"running\"'");
	EXPECT_SH(&p, 0, "$G log demo --json | jq -s -e '[.[] | select(.event == \"RESET\" and (.text | contains(\"guest-reset\")))] | length >= 2'");
	EXPECT_SH(&p, 0, "$G kill demo");
	/* and once only */
	EXPECT_SH(&p, 0, "$L --set lifecycle.on-reboot=stop " BOOT SMALL);
	EXPECT_SH(&p, 0, "[ $(grep -c boot $R/run/demo/serial.log) = 1 ]");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"stopped\" and .exit_code == 0 and (.reason | contains(\"rebooted\"))'");
	many_end(&p);
}

Test(many, a_guest_panics, .timeout = 90)
{
	struct place p = many_new();

	make_disk(&p, "disk.raw", panicking, sizeof(panicking));
	EXPECT_SH(&p, 0, "$L -d " BOOT SMALL);
	EXPECT_SH(&p, 6, "$G wait demo");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 6 and (.reason | contains(\"panic\"))'");
	EXPECT_SH(&p, 0, "$G log demo --json | jq -s -e 'any(.event == \"fault\" and .state == \"failed\" and (.text | contains(\"panic\")))'");
	/* A guest that nobody listens to stands still. */
	EXPECT_SH(&p, 0, "$L -d --set guest.panic=off " BOOT SMALL " && $G kill demo");
	many_end(&p);
}

/* It hears neither its monitor nor signals but one. */
Test(many, qemu_hangs, .timeout = 90)
{
	struct place p = many_new();

	EXPECT_SH(&p, 0, "$L -d " TCG SMALL);
	cr_assert(kill(qemu_of("demo"), SIGSTOP) == 0);
	EXPECT_SH(&p, 0, "$G stop --timeout 1s demo");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"stopped\" and .exit_code == 0'");
	EXPECT_SH(&p, 0, "$L -d " TCG SMALL);
	cr_assert(kill(qemu_of("demo"), SIGSTOP) == 0);
	EXPECT_SH(&p, 0, "$G kill demo");
	many_end(&p);
}

/* The host's disk is full: the guest waits, and writes on when there is room again. */
Test(many, no_space_left, .timeout = 90)
{
	struct place p = many_new();
	AUTO_FREE char *full = xasprintf("%s/full", p.root);

	if (!own_namespaces())
		cr_skip("needs root, and namespaces");
	cr_assert(mkdir(full, 0700) == 0 && mount("tmpfs", full, "tmpfs", 0, "size=1M") == 0);
	make_disk(&p, "full/disk.raw", writing, sizeof(writing));
	EXPECT_SH(&p, 0, "head -c 768K /dev/zero >$R/full/other && $L -d " TCG "--set disk.os.file=$R/full/disk.raw " SMALL);
	await_text("claim.json", "\"paused\"", 1);
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"paused\" and (.reason | contains(\"no space left\"))'");
	EXPECT_SH(&p, 0, "[ ! -s $R/run/demo/serial.log ] && $G log demo | grep BLOCK_IO_ERROR");
	/* Too early: the guest writes once more, in vain. */
	EXPECT_SH(&p, 0, "$G resume demo");
	await_event("BLOCK_IO_ERROR", 2);
	EXPECT_SH(&p, 0, "rm $R/full/other && $G resume demo");
	await_text("serial.log", "D", 1);
	await_text("claim.json", "\"running\"", 1);
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"running\"' && [ $(stat -c %b $R/full/disk.raw) -ge 1024 ]");
	EXPECT_SH(&p, 0, "$G stop demo");
	cr_assert(umount(full) == 0 && rmdir(full) == 0);
	many_end(&p);
}

/* --- what status says -------------------------------------------------------------------------------------------------- */

/* Every key in every state, with its type; those of a VM that runs are null, empty or 0 for one that does not. */
static const char schema[] =
	"def is(t): type == t;\n"
	"def event: (.time | is(\"number\")) and ([.event, .state, .text] | all(is(\"string\")));\n"
	"def alive: ([.pid, .qemu_pid] | all(is(\"number\"))) and .exit_code == null and .memory == 16 * 1048576;\n"
	"def ended: .pid == null and .qemu_pid == null and (.exit_code | is(\"number\")) and .memory == 0 and .vcpus == \"\";\n"
	".schema == 1 and .name == \"demo\" and .state == $state and ([.reason, .vcpus] | all(is(\"string\"))) and (.started > 1e9)\n"
	"and .devices == [] and (.events | is(\"array\") and length > 0 and all(event))\n"
	"and ([\"pid\", \"qemu_pid\", \"exit_code\"] - keys == [])\n"
	"and if $state == \"running\" or $state == \"paused\" then alive else ended end\n";

#define EXPECT_STATE(p, state)                                                                                                                        \
	EXPECT_SH(p, 0, "$G status demo --json | jq -e --arg state " state " -f $R/schema.ini && "                                                    \
			"$G list --json | jq -e '.[0]' | jq -e --arg state " state " -f $R/schema.ini")

Test(many, status_of_every_state, .timeout = 90)
{
	struct place p = many_new();
	AUTO_FREE char *path = xasprintf("%s/schema.ini", p.root);

	cr_assert(write_file_atomic(path, schema, strlen(schema), 0600) == 0);
	EXPECT_SH(&p, 0, "$L -d " TCG SMALL);
	EXPECT_STATE(&p, "running");
	EXPECT_SH(&p, 0, "$G pause demo");
	await_text("claim.json", "\"paused\"", 1);
	EXPECT_STATE(&p, "paused");
	EXPECT_SH(&p, 0, "$G stop demo");
	EXPECT_STATE(&p, "stopped");
	EXPECT_SH(&p, 0, "$L -d " TCG SMALL);
	cr_assert(kill(qemu_of("demo"), SIGSEGV) == 0);
	EXPECT_SH(&p, 6, "$G wait demo");
	EXPECT_STATE(&p, "failed");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.exit_code == 6 and (.reason | contains(\"signal 11\"))'");
	many_end(&p);
}
