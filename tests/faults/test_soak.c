/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A long day of a server, in the model kernel: four VMs want random sets of six devices, and everything that may go wrong does, in random order.
 * After each step nothing is lost: no device is in two hands, each that is away from its driver has a claim that says so, all others are as they were.
 *
 * A launcher is a process that does what run/launch.c does with the same functions: claim, bind, reset, QEMU, and all back. QEMU is a process that does
 * nothing. GPUVM_SOAK_SEED=N plays another day; the seed of one that went wrong is in the message. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gpuvm/affinity.h"
#include "gpuvm/bad.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "tests/fake/mkhost.h"
#include "tests/faults/deadly.h"

#define STEPS	   200
#define N_VMS	   4
#define N_DEVICES  6
#define MOMENTS	   40   /* a start with four devices has some 30 */
#define HELD_MS	   3000 /* what is not held must be done until then, on a busy machine too */
#define OTHER_BOOT "00000000-0000-0000-0000-000000000000"

static const struct fake_device machine[N_DEVICES] = {
	{ "0000:17:00.0", 0x10de, 0x2335, 0x030200, 1, "nvidia" },    { "0000:18:00.0", 0x10de, 0x2336, 0x030200, 2, "nvidia" },
	{ "0000:19:00.0", 0x15b3, 0x1021, 0x020700, 3, "mlx5_core" }, { "0000:1a:00.0", 0x15b3, 0x1023, 0x020700, 4, "mlx5_core" },
	{ "0000:1b:00.0", 0x144d, 0xa824, 0x010802, 5, "nvme" },      { "0000:1c:00.0", 0x8086, 0x0b25, 0x088000, 6, NULL },
};
/* As an administrator may have left it. */
static const char *const overrides[N_DEVICES] = { [1] = "nvidia" };

enum outcome { RUNNING = -1, KILLED = -2 }; /* or an exit code of the launcher */

enum op {
	START, START_KILLED, STOP, STOP_KILLED, KILL_LAUNCHER, KILL_QEMU, KILL_BOTH, RECOVER, RECOVER_KILLED, ADOPT, ADOPT_KILLED, DAMAGE, REFUSE, HOLD, WAIT, REBOOT,
	N_OPS
};
static const struct {
	const char *name;
	unsigned int weight;
} ops[N_OPS] = {
	[START] = { "start", 40 },
	[START_KILLED] = { "start, launcher killed", 20 },
	[STOP] = { "stop", 9 },
	[STOP_KILLED] = { "stop, launcher killed", 8 },
	[KILL_LAUNCHER] = { "launcher killed", 8 },
	[KILL_QEMU] = { "QEMU killed", 8 },
	[KILL_BOTH] = { "both killed", 4 },
	[RECOVER] = { "recover", 3 },
	[RECOVER_KILLED] = { "recover, killed", 4 },
	[ADOPT] = { "taken over", 10 },
	[ADOPT_KILLED] = { "taken over, killed", 4 },
	[DAMAGE] = { "claim damaged", 4 },
	[REFUSE] = { "driver refuses", 10 },
	[HOLD] = { "unbind held", 4 },
	[WAIT] = { "ten minutes later", 6 },
	[REBOOT] = { "reboot", 2 },
};

/* What test and launcher both see. */
struct shared {
	struct fake_kernel k;
	struct vm_shared {
		struct deadly deadly;
		pid_t qemu;
		bool gate_open; /* QEMU was let go: it outlives its launcher */
	} vm[N_VMS];
};

struct soak {
	struct shared *sh;
	char *dir, *before;
	struct vm {
		char name[8];
		pid_t launcher; /* that waits for a command; 0: none */
		int command_fd;
	} vms[N_VMS];
	int life[2]; /* who is left at the end of the test ends, too */
	uint64_t seed, random;
	int step;
	enum op op;
	unsigned int done[N_OPS], started, refused, failed;
};

#define EXPECT(t, cond, fmt, ...)                                                                                                                             \
	cr_assert(cond, "GPUVM_SOAK_SEED=%" PRIu64 ", step %d (%s): " fmt, (t)->seed, (t)->step, ops[(t)->op].name __VA_OPT__(, ) __VA_ARGS__)

/* splitmix64 */
static unsigned int draw(struct soak *t, unsigned int below)
{
	uint64_t z = t->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (unsigned int)((z ^ z >> 31) % below);
}

/* --- a launcher -------------------------------------------------------------------------------------------------- */

struct launcher {
	struct soak *t;
	struct vm_shared *sh;
	struct sysfs s;
	struct claim c;
	unsigned int devices; /* a bit each */
};

/* A device that hangs is left to workers; nobody is killed then. */
static bool is_serial(const struct soak *t)
{
	return !atomic_load(&t->sh->k.sh->held);
}

static struct sysfs sysfs_of(const struct soak *t, struct deadly *d)
{
	struct sysfs s = deadly_sysfs(d);

	s.serial = is_serial(t);
	s.timeout_ms = HELD_MS;
	return s;
}

static struct pci_addr addr_of(size_t device)
{
	struct pci_addr a;

	cr_assert(parse_pci_addr(machine[device].bdf, &a) == 0);
	return a;
}

static char *override_of(const struct sysfs *s, size_t device)
{
	char *text = sysfs_read(s, "/sys/bus/pci/devices/%s/driver_override", machine[device].bdf);

	if (text && strcmp(text, "(null)") == 0)
		free(STEAL_PTR(text));
	return text;
}

/* What the planner writes down: where the devices are now. */
static void fill_claim(struct launcher *l, const char *vm)
{
	struct claim *c = &l->c;

	*c = (struct claim){ .launcher_pid = getpid(), .launcher_start = process_start_time(getpid()), .partition = -1, .state = "starting" };
	c->vm = xstrdup(vm);
	c->rundir = claim_vm_dir(vm);
	c->boot_id = claim_boot_id();
	c->reason = xstrdup("");
	for (size_t i = 0; i < N_DEVICES; i++) {
		struct claim_device *d = l->devices & 1U << i ? PUSH_ZEROED(c->devices, c->n_devices) : NULL;

		if (!d)
			continue;
		d->addr = addr_of(i);
		d->from = bind_current_driver(&l->s, &d->addr);
		d->override = override_of(&l->s, i);
		d->to = xstrdup("vfio-pci");
		d->id = xasprintf("device%zu", i);
	}
}

static bool is_free(const struct launcher *l, const struct host_use *use)
{
	for (size_t i = 0; i < N_DEVICES; i++) {
		struct pci_addr a = addr_of(i);

		for (size_t k = 0; k < use->n_devices && l->devices & 1U << i; k++)
			if (pci_addr_cmp(&a, &use->devices[k].addr) == 0)
				return false;
	}
	return true;
}

static int save(struct launcher *l)
{
	struct err e = { 0 };

	deadly_moment(&l->sh->deadly);
	if (claim_write(&l->c, &e) < 0)
		return LAUNCH_FAILED;
	deadly_moment(&l->sh->deadly);
	return 0;
}

/* All that launch_plan() and the first stage do with claims. Holds the lock until its own is there. */
static int allocate(struct launcher *l, const char *vm)
{
	struct err e = { 0 };
	AUTO_CLOSE int lock = claim_lock(&e);
	AUTO_FREE char *dir = claim_vm_dir(vm), *file = xasprintf("%s/claim.json", dir);
	struct host_use use = { 0 };
	struct claim old = { 0 };
	int r = lock < 0 ? lock : claim_read(dir, &old, &e);

	if (r < 0 && r != -ENOENT)
		return LAUNCH_FAILED;
	if (r == 0 && claim_alive(&old))
		return LAUNCH_IN_USE;
	if (claim_collect_use(&l->s, vm, &use, &e) < 0)
		return LAUNCH_FAILED;
	/* Its last run could not be undone. */
	if (access(file, F_OK) == 0 || !is_free(l, &use))
		return LAUNCH_IN_USE;
	fill_claim(l, vm);
	return save(l);
}

/* Waits at the gate, as QEMU does in spawn_prepare(), until its pid is in the claim. */
static pid_t make_qemu(struct launcher *l, int *gate)
{
	int fds[2];
	char byte;
	pid_t pid;

	if (pipe(fds) < 0 || (pid = fork()) < 0)
		_exit(99);
	if (pid == 0) {
		/* Our end of the gate too, and what tells the operator that we are gone. */
		spawn_close_fds((int[]){ fds[0], l->t->life[0] }, 2);
		if (read(fds[0], &byte, 1) == 1)
			(void)!read(l->t->life[0], &byte, 1);
		_exit(0);
	}
	close(fds[0]);
	*gate = fds[1];
	return pid;
}

static int start_qemu(struct launcher *l)
{
	int gate, r;

	l->sh->qemu = l->c.qemu_pid = make_qemu(l, &gate);
	l->c.qemu_start = process_start_time(l->c.qemu_pid);
	r = save(l);
	l->sh->gate_open = true;
	if (r || write(gate, "", 1) != 1)
		return LAUNCH_FAILED;
	close(gate);
	strcpy(l->c.state, "running");
	return save(l);
}

static int take_devices(struct launcher *l)
{
	AUTO_FREE struct bind_op *v = claim_bind_ops(&l->c);
	struct err e = { 0 };

	l->s.busy_fd = claim_busy(l->c.rundir, true, BUSY_TIMEOUT_MS, &e);
	if (l->s.busy_fd < 0)
		return LAUNCH_FAILED;
	l->c.bound = true;
	if (save(l) || bind_devices(&l->s, v, l->c.n_devices, &e) < 0 || launch_reset(&l->s, &l->c, &e) < 0)
		return LAUNCH_FAILED;
	return 0;
}

/* In the order of launch_undo(): QEMU, reset, bind, claim, which stays while something is not given back. */
static int give_back(struct launcher *l, int code)
{
	AUTO_FREE struct bind_op *v = claim_bind_ops(&l->c);
	struct err e = { 0 };

	if (l->c.qemu_pid && spawn_kill(l->c.qemu_pid, l->c.qemu_start, &e) < 0)
		return LAUNCH_FAILED;
	deadly_moment(&l->sh->deadly);
	if (l->c.bound) {
		(void)launch_reset(&l->s, &l->c, &e);
		if (l->s.busy_fd <= 0)
			l->s.busy_fd = claim_busy(l->c.rundir, false, BUSY_TIMEOUT_MS, &e);
		if (l->s.busy_fd < 0 || bind_restore(&l->s, v, l->c.n_devices, &e) < 0)
			return LAUNCH_FAILED;
	}
	deadly_moment(&l->sh->deadly);
	return claim_release(&l->c, code, &e) < 0 ? LAUNCH_FAILED : code;
}

static int take_over(struct launcher *l, const char *vm)
{
	struct err e = { 0 };
	AUTO_CLOSE int lock = claim_lock(&e);
	AUTO_FREE char *dir = claim_vm_dir(vm);

	if (lock < 0 || claim_read(dir, &l->c, &e) < 0 || claim_launcher_alive(&l->c) || !claim_alive(&l->c))
		return LAUNCH_FAILED;
	l->c.launcher_pid = getpid();
	l->c.launcher_start = process_start_time(getpid());
	return save(l);
}

/* Until QEMU dies or somebody wants it to. */
static int supervise(struct launcher *l, int command_fd)
{
	struct pollfd fds[] = { { .fd = command_fd, .events = POLLIN }, { .fd = pidfd_open(l->c.qemu_pid, 0), .events = POLLIN } };

	/* Gone already: pidfd_open() says so. */
	while (fds[1].fd >= 0 && poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	/* Something may hang by now. */
	l->s.serial = is_serial(l->t);
	return give_back(l, fds[1].fd < 0 || fds[1].revents ? LAUNCH_ABNORMAL : LAUNCH_ENDED);
}

static _Noreturn void launcher_main(struct soak *t, size_t nr, unsigned int devices, bool adopt, int command_fd, int result_fd)
{
	struct launcher l = { .t = t, .sh = &t->sh->vm[nr], .devices = devices };
	const char *vm = t->vms[nr].name;
	int code;

	close(t->life[1]);
	l.s = sysfs_of(t, &l.sh->deadly);
	code = adopt ? take_over(&l, vm) : allocate(&l, vm);
	if (!adopt && code == 0) {
		code = take_devices(&l);
		if (code == 0)
			code = start_qemu(&l);
		if (code)
			_exit(give_back(&l, code));
	}
	if (code)
		_exit(code);
	if (write(result_fd, "", 1) != 1)
		_exit(98);
	close(result_fd);
	_exit(supervise(&l, command_fd));
}

/* --- the operator -------------------------------------------------------------------------------------------------- */

static void arm(struct soak *t, struct deadly *d, bool kill)
{
	*d = (struct deadly){ .k = &t->sh->k };
	if (kill && is_serial(t)) {
		d->at = 1 + (int)draw(t, MOMENTS);
		d->late = draw(t, 2);
	}
}

/* How a process of ours ended. */
static int end_of(struct soak *t, pid_t pid)
{
	int status;

	EXPECT(t, waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	EXPECT(t, WIFEXITED(status) || WTERMSIG(status) == SIGKILL, "a process ended with status %x", (unsigned int)status);
	return WIFEXITED(status) ? WEXITSTATUS(status) : KILLED;
}

static int end_of_launcher(struct soak *t, size_t nr)
{
	struct vm_shared *sh = &t->sh->vm[nr];
	int code = end_of(t, t->vms[nr].launcher);

	t->vms[nr].launcher = 0;
	close(t->vms[nr].command_fd);
	/* It was at the gate, which its launcher does not open any more. We inherit it, and so know when it is gone. */
	if (code == KILLED && sh->qemu && !sh->gate_open)
		EXPECT(t, end_of(t, sh->qemu) == 0, "QEMU went through the gate");
	return code;
}

static int read_claim(const struct soak *t, size_t nr, struct claim *c)
{
	AUTO_FREE char *dir = claim_vm_dir(t->vms[nr].name);
	struct err e = { 0 };

	return claim_read(dir, c, &e);
}

static bool lives(const struct soak *t, size_t nr)
{
	struct claim c = { 0 };
	bool yes = read_claim(t, nr, &c) == 0 && claim_alive(&c);

	claim_clear(&c);
	return yes;
}

static int launch_vm(struct soak *t, size_t nr, unsigned int devices, bool adopt, bool kill)
{
	struct vm *vm = &t->vms[nr];
	struct vm_shared *sh = &t->sh->vm[nr];
	int command[2], result[2];
	char byte;
	ssize_t n;

	arm(t, &sh->deadly, kill);
	/* Of one that runs already nothing is new: it is refused. */
	if (!lives(t, nr)) {
		sh->qemu = 0;
		sh->gate_open = false;
	}
	cr_assert(pipe(command) == 0 && pipe(result) == 0);
	vm->launcher = fork();
	cr_assert(vm->launcher >= 0);
	if (vm->launcher == 0) {
		close(command[1]);
		close(result[0]);
		launcher_main(t, nr, devices, adopt, command[0], result[1]);
	}
	close(command[0]);
	close(result[1]);
	vm->command_fd = command[1];
	n = read(result[0], &byte, 1);
	close(result[0]);
	return n == 1 ? RUNNING : end_of_launcher(t, nr);
}

static int stop_vm(struct soak *t, size_t nr, bool kill)
{
	arm(t, &t->sh->vm[nr].deadly, kill);
	EXPECT(t, write(t->vms[nr].command_fd, "", 1) == 1, "the launcher is gone");
	return end_of_launcher(t, nr);
}

/* `gpuvm recover` of all. */
static int recover_all(struct soak *t, bool kill)
{
	struct deadly d;
	pid_t pid;

	arm(t, &d, kill);
	pid = fork();
	if (pid == 0) {
		struct sysfs s = sysfs_of(t, &d);
		struct err e = { 0 };
		int bad = 0;

		if (claim_lock(&e) < 0)
			_exit(99);
		for (size_t i = 0; i < N_VMS; i++) {
			AUTO_FREE char *dir = claim_vm_dir(t->vms[i].name);
			struct claim c = { 0 };
			int r = claim_read(dir, &c, &e);

			if (r == 0 && !claim_alive(&c))
				r = claim_recover(&s, &c, &e);
			bad += r < 0 && r != -ENOENT;
		}
		_exit(bad);
	}
	return end_of(t, pid);
}

/* --- what is true at any time ---------------------------------------------------------------------------------------- */

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

struct look {
	int owner[N_DEVICES];	  /* the VM that lives and has it, -1: none */
	bool explained[N_DEVICES]; /* a claim says that it may be away */
	bool running[N_DEVICES];
	bool alive[N_VMS], stale[N_VMS], stuck[N_VMS];
	bool any_stale, any_stuck;
};

static void look_at_claim(struct soak *t, size_t nr, const struct claim *c, struct look *l)
{
	l->alive[nr] = claim_alive(c);
	l->stale[nr] = !l->alive[nr];
	l->stuck[nr] = l->stale[nr] && c->recover_failed;
	l->any_stale |= l->stale[nr];
	l->any_stuck |= l->stuck[nr];
	for (size_t i = 0; i < N_DEVICES; i++) {
		struct pci_addr a = addr_of(i);

		for (size_t k = 0; k < c->n_devices; k++) {
			if (pci_addr_cmp(&a, &c->devices[k].addr) != 0)
				continue;
			l->explained[i] |= c->bound;
			if (!l->alive[nr])
				continue;
			EXPECT(t, l->owner[i] < 0, "%s has two owners: %s and %s", machine[i].bdf, t->vms[l->owner[i]].name, c->vm);
			l->owner[i] = (int)nr;
			l->running[i] = same(c->state, "running");
		}
	}
}

static struct look look(struct soak *t)
{
	struct look l = { 0 };

	for (size_t i = 0; i < N_DEVICES; i++)
		l.owner[i] = -1;
	for (size_t nr = 0; nr < N_VMS; nr++) {
		struct claim c = { 0 };
		int r = read_claim(t, nr, &c);

		EXPECT(t, r == 0 || r == -ENOENT, "the claim of %s: %s", t->vms[nr].name, strerror(-r));
		if (r == 0)
			look_at_claim(t, nr, &c, &l);
		EXPECT(t, !t->vms[nr].launcher || l.alive[nr], "the launcher of %s lives and has no claim", t->vms[nr].name);
		claim_clear(&c);
	}
	return l;
}

static void check(struct soak *t)
{
	const struct sysfs *s = &t->sh->k.sys;
	struct look l = look(t);

	for (size_t i = 0; i < N_DEVICES; i++) {
		struct pci_addr a = addr_of(i);
		AUTO_FREE char *driver = bind_current_driver(s, &a), *override = override_of(s, i);

		if (l.running[i])
			EXPECT(t, same(driver, "vfio-pci"), "%s was taken from %s, which runs: it has driver %s", machine[i].bdf, t->vms[l.owner[i]].name,
			       driver ? driver : "(none)");
		if (!l.explained[i])
			EXPECT(t, same(driver, machine[i].driver) && same(override, overrides[i]), "%s is in no claim and has driver %s, override %s", machine[i].bdf,
			       driver ? driver : "(none)", override ? override : "(none)");
	}
}

/* --- the steps ------------------------------------------------------------------------------------------------------- */

static bool is_faulty(const struct soak *t)
{
	return t->sh->k.refuse_driver || atomic_load(&t->sh->k.sh->held);
}

static bool wants_what_is_taken(const struct look *l, unsigned int devices)
{
	for (size_t i = 0; i < N_DEVICES; i++)
		if (devices & 1U << i && l->owner[i] >= 0)
			return true;
	return false;
}

static bool start(struct soak *t, size_t nr, bool kill)
{
	/* Two, mostly. */
	unsigned int devices = 1U << draw(t, N_DEVICES) | (draw(t, 1U << N_DEVICES) & draw(t, 1U << N_DEVICES));
	AUTO_FREE char *before = fake_kernel_snapshot(&t->sh->k), *after = NULL;
	struct look l = look(t);
	bool conflict = l.alive[nr] || wants_what_is_taken(&l, devices), changed;
	struct vm old = t->vms[nr];
	int r = launch_vm(t, nr, devices, false, kill);

	/* Of a VM that ran and was not started once more. */
	if (old.launcher)
		t->vms[nr] = old;
	after = fake_kernel_snapshot(&t->sh->k);
	changed = strcmp(before, after) != 0;
	EXPECT(t, !conflict || r == LAUNCH_IN_USE || r == KILLED, "%s got what another one has: %d", t->vms[nr].name, r);
	if (!conflict && !is_faulty(t) && !l.any_stuck && r != KILLED)
		EXPECT(t, r == RUNNING, "%s wants %#x, which is free: %d", t->vms[nr].name, devices, r);
	if (r == LAUNCH_IN_USE && !l.any_stale)
		EXPECT(t, !changed, "%s was refused and has changed something", t->vms[nr].name);
	t->started += r == RUNNING;
	t->refused += r == LAUNCH_IN_USE;
	t->failed += r == LAUNCH_FAILED;
	return true;
}

static bool stop(struct soak *t, size_t nr, bool kill)
{
	int r;

	if (!t->vms[nr].launcher)
		return false;
	r = stop_vm(t, nr, kill);
	EXPECT(t, r == KILLED || r == LAUNCH_ENDED || is_faulty(t), "%s: exit %d", t->vms[nr].name, r);
	return true;
}

static void kill_launcher(struct soak *t, size_t nr)
{
	cr_assert(kill(t->vms[nr].launcher, SIGKILL) == 0);
	EXPECT(t, end_of_launcher(t, nr) == KILLED, "%s", t->vms[nr].name);
}

static void kill_orphan(struct soak *t, size_t nr)
{
	cr_assert(kill(t->sh->vm[nr].qemu, SIGKILL) == 0);
	EXPECT(t, end_of(t, t->sh->vm[nr].qemu) == KILLED, "%s", t->vms[nr].name);
}

static bool is_orphan(const struct soak *t, size_t nr)
{
	return !t->vms[nr].launcher && lives(t, nr);
}

static bool kill_qemu(struct soak *t, size_t nr)
{
	int r;

	if (is_orphan(t, nr)) {
		kill_orphan(t, nr);
		return true;
	}
	if (!t->vms[nr].launcher)
		return false;
	/* Every other time its launcher dies of it. */
	arm(t, &t->sh->vm[nr].deadly, draw(t, 2));
	cr_assert(kill(t->sh->vm[nr].qemu, SIGKILL) == 0);
	r = end_of_launcher(t, nr);
	EXPECT(t, r == KILLED || r == LAUNCH_ABNORMAL || is_faulty(t), "%s: exit %d", t->vms[nr].name, r);
	return true;
}

static bool recover(struct soak *t, bool kill)
{
	int r = recover_all(t, kill);

	EXPECT(t, r == KILLED || is_faulty(t) || (r == 0 && !look(t).any_stale), "exit %d", r);
	return true;
}

static bool adopt(struct soak *t, size_t nr, bool kill)
{
	int r;

	if (!is_orphan(t, nr))
		return false;
	r = launch_vm(t, nr, 0, true, kill);
	EXPECT(t, r == RUNNING || r == KILLED, "%s: exit %d", t->vms[nr].name, r);
	return true;
}

/* Nobody starts and nothing is given back on guesses; then the operator puts the file back. */
static bool damage(struct soak *t, size_t nr)
{
	AUTO_FREE char *dir = claim_vm_dir(t->vms[nr].name), *path = xasprintf("%s/claim.json", dir), *text = NULL, *before = NULL, *after = NULL;
	bool stale = look(t).any_stale;
	size_t other = (nr + 1) % N_VMS;

	if (t->vms[other].launcher || read_text_file(path, 1 << 20, &text) < 0)
		return false;
	before = fake_kernel_snapshot(&t->sh->k);
	cr_assert(write_file_atomic(path, text, draw(t, (unsigned int)strlen(text) / 2), 0600) == 0);
	EXPECT(t, launch_vm(t, other, 1, false, false) > 0, "%s starts beside a claim that cannot be read", t->vms[other].name);
	EXPECT(t, recover_all(t, false) == 1 || is_faulty(t), "recovered");
	after = fake_kernel_snapshot(&t->sh->k);
	EXPECT(t, stale || strcmp(before, after) == 0, "something was changed");
	cr_assert(write_file_atomic(path, text, strlen(text), 0600) == 0);
	return true;
}

static bool refuse(struct soak *t)
{
	static const char *const drivers[] = { "nvidia", "mlx5_core", "nvme", "vfio-pci" };

	if (is_faulty(t))
		return false;
	t->sh->k.refuse_driver = drivers[draw(t, ARRAY_SIZE(drivers))];
	return true;
}

/* A VM is stopped, and one of its devices does not let go. */
static bool hold(struct soak *t, size_t nr)
{
	struct look l = look(t);
	struct deadly *d = &t->sh->vm[nr].deadly;
	size_t i = draw(t, N_DEVICES);

	if (is_faulty(t) || !t->vms[nr].launcher)
		return false;
	while (l.owner[i] != (int)nr)
		i = (i + 1) % N_DEVICES;
	t->sh->k.hold_bdf = machine[i].bdf;
	*d = (struct deadly){ .k = &t->sh->k };
	fake_kernel_hold(&t->sh->k);
	EXPECT(t, stop_vm(t, nr, false) == LAUNCH_FAILED, "%s does not hang", machine[i].bdf);
	l = look(t);
	EXPECT(t, l.explained[i] && l.stale[nr], "%s hangs, and no claim says so", machine[i].bdf);
	return true;
}

static void end_faults(struct soak *t)
{
	struct err e = { 0 };
	size_t n;

	fake_kernel_release(&t->sh->k);
	t->sh->k.refuse_driver = NULL;
	/* A reset that hung has marked its device; that is another test's business. */
	cr_assert(bad_clear(launch_state_dir(), NULL, &n, &e) == 0, "%s", e.msg);
}

/* Claims are rewritten by @change, if it says so. */
static bool change_claims(struct soak *t, bool (*change)(struct claim *c))
{
	bool any = false;

	for (size_t nr = 0; nr < N_VMS; nr++) {
		struct claim c = { 0 };
		struct err e = { 0 };

		if (read_claim(t, nr, &c) == 0 && change(&c)) {
			cr_assert(claim_write(&c, &e) == 0, "%s", e.msg);
			any = true;
		}
		claim_clear(&c);
	}
	return any;
}

static bool make_older(struct claim *c)
{
	c->recover_failed -= c->recover_failed ? RECOVER_RETRY_S : 0;
	return c->recover_failed;
}

static bool make_another_boots(struct claim *c)
{
	free(c->boot_id);
	c->boot_id = xstrdup(OTHER_BOOT);
	return true;
}

/* Processes and what was bound are gone, the files are as they were. */
static bool reboot(struct soak *t)
{
	const struct sysfs *s = &t->sh->k.sys;
	struct err e = { 0 };

	for (size_t nr = 0; nr < N_VMS; nr++) {
		if (t->vms[nr].launcher)
			kill_launcher(t, nr);
		if (is_orphan(t, nr))
			kill_orphan(t, nr);
	}
	end_faults(t);
	for (size_t i = 0; i < N_DEVICES; i++) {
		(void)sysfs_store(s, &e, machine[i].bdf, "/sys/bus/pci/devices/%s/driver/unbind", machine[i].bdf);
		cr_assert(sysfs_store(s, &e, overrides[i] ? overrides[i] : "\n", "/sys/bus/pci/devices/%s/driver_override", machine[i].bdf) == 0);
		cr_assert(sysfs_store(s, &e, machine[i].bdf, "/sys/bus/pci/drivers_probe") == 0);
	}
	change_claims(t, make_another_boots);
	return true;
}

/* False: not possible now. */
static bool take_step(struct soak *t, enum op op, size_t nr)
{
	struct vm *vm = &t->vms[nr];

	switch (op) {
	case START:
	case START_KILLED:
		return start(t, nr, op == START_KILLED);
	case STOP:
	case STOP_KILLED:
		return stop(t, nr, op == STOP_KILLED);
	case KILL_LAUNCHER:
	case KILL_BOTH:
		if (!vm->launcher)
			return false;
		kill_launcher(t, nr);
		if (op == KILL_BOTH)
			kill_orphan(t, nr);
		return true;
	case KILL_QEMU:
		return kill_qemu(t, nr);
	case RECOVER:
	case RECOVER_KILLED:
		return recover(t, op == RECOVER_KILLED);
	case ADOPT:
	case ADOPT_KILLED:
		return adopt(t, nr, op == ADOPT_KILLED);
	case DAMAGE:
		return damage(t, nr);
	case REFUSE:
		return refuse(t);
	case HOLD:
		return hold(t, nr);
	case WAIT:
		return change_claims(t, make_older);
	case REBOOT:
		return reboot(t);
	case N_OPS:
		break;
	}
	cr_assert_fail("no such step");
	return false;
}

static enum op draw_op(struct soak *t)
{
	unsigned int all = 0, at;

	for (size_t i = 0; i < N_OPS; i++)
		all += ops[i].weight;
	at = draw(t, all);
	for (size_t i = 0;; i++) {
		if (at < ops[i].weight)
			return (enum op)i;
		at -= ops[i].weight;
	}
}

/* Of the first VM, from a random one on, of which it is possible. */
static bool take_step_of_any(struct soak *t)
{
	size_t first = draw(t, N_VMS);

	for (size_t i = 0; i < N_VMS; i++)
		if (take_step(t, t->op, (first + i) % N_VMS))
			return true;
	return false;
}

static void one_step(struct soak *t)
{
	if (is_faulty(t) && draw(t, 6) == 0)
		end_faults(t);
	do
		t->op = draw_op(t);
	while (!take_step_of_any(t));
	t->done[t->op]++;
	check(t);
}

static void setup(struct soak *t)
{
	const char *seed = getenv("GPUVM_SOAK_SEED");
	AUTO_FREE char *state = NULL;
	char dir[] = "/tmp/gpuvm-soak-XXXXXX";
	struct err e = { 0 };

	t->seed = 1;
	cr_assert(!seed || parse_u64(seed, 0, UINT64_MAX, &t->seed) == 0, "GPUVM_SOAK_SEED=%s", seed);
	t->random = t->seed;
	cr_assert(mkdtemp(dir));
	t->dir = xstrdup(dir);
	state = xasprintf("%s/state", dir);
	cr_assert(mkdir(state, 0700) == 0 && setenv("GPUVM_RUNDIR", dir, 1) == 0 && setenv("GPUVM_STATEDIR", state, 1) == 0);
	/* Faults are what this is about. */
	log_init("soak", (enum log_level)0);
	t->sh = mmap(NULL, sizeof(*t->sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert(t->sh != MAP_FAILED && pipe(t->life) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	cr_assert(fake_kernel_make(&t->sh->k, machine, N_DEVICES) == 0);
	for (size_t i = 0; i < N_DEVICES; i++)
		if (overrides[i])
			cr_assert(sysfs_store(&t->sh->k.sys, &e, overrides[i], "/sys/bus/pci/devices/%s/driver_override", machine[i].bdf) == 0, "%s", e.msg);
	for (size_t nr = 0; nr < N_VMS; nr++) {
		AUTO_FREE char *vm_dir = NULL;

		snprintf(t->vms[nr].name, sizeof(t->vms[nr].name), "vm%zu", nr);
		vm_dir = claim_vm_dir(t->vms[nr].name);
		cr_assert(mkdir(vm_dir, 0700) == 0);
	}
	t->before = fake_kernel_snapshot(&t->sh->k);
}

/* Everything ends, and everything is as it was. */
static void finish(struct soak *t)
{
	AUTO_FREE char *after = NULL;
	struct look l;

	end_faults(t);
	t->op = STOP;
	for (size_t nr = 0; nr < N_VMS; nr++)
		if (t->vms[nr].launcher || adopt(t, nr, false))
			stop(t, nr, false);
	t->op = RECOVER;
	recover(t, false);
	l = look(t);
	for (size_t nr = 0; nr < N_VMS; nr++)
		EXPECT(t, !l.alive[nr] && !l.stale[nr], "%s has a claim", t->vms[nr].name);
	after = fake_kernel_snapshot(&t->sh->k);
	cr_assert_str_eq(after, t->before, "GPUVM_SOAK_SEED=%" PRIu64, t->seed);
}

static void report(const struct soak *t)
{
	printf("soak: seed %" PRIu64 ": %d steps; %u starts, %u refused, %u failed", t->seed, t->step, t->started, t->refused, t->failed);
	for (size_t i = 0; i < N_OPS; i++)
		printf("; %s %u", ops[i].name, t->done[i]);
	printf("\n");
}

Test(soak, a_long_day, .timeout = 600)
{
	struct soak t = { 0 };

	setup(&t);
	while (t.step < STEPS) {
		t.step++;
		one_step(&t);
	}
	finish(&t);
	report(&t);
	fake_kernel_free(&t.sh->k);
	munmap(t.sh, sizeof(*t.sh));
	mkhost_remove(t.dir);
	free(t.before);
}
