/* SPDX-License-Identifier: GPL-2.0-or-later */
/* spawn, qmp and affinity against a real QEMU: no GPU, no root, no KVM needed (with KVM where there is one). */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gpuvm/affinity.h"
#include "gpuvm/qmp.h"
#include "gpuvm/spawn.h"

#define QEMU    "/usr/bin/qemu-system-x86_64"
#define WAIT_MS 120000

struct vm {
	char dir[64], path[96];
	int listen_fd, log;
	struct strv argv;
	struct spawn s;
	struct qmp q;
};

static void vm_init(struct vm *vm)
{
	struct err e = { 0 };

	if (access(QEMU, X_OK) < 0)
		cr_skip("there is no " QEMU);
	*vm = (struct vm){ .dir = "/tmp/gpuvm-qemu-XXXXXX", .log = memfd_create("log", MFD_CLOEXEC) };
	qmp_init(&vm->q);
	cr_assert_not_null(mkdtemp(vm->dir));
	snprintf(vm->path, sizeof(vm->path), "%s/control.sock", vm->dir);
	vm->listen_fd = qmp_listen(vm->path, &e);
	cr_assert(ge(int, vm->listen_fd, 0), "%s", e.msg);
	for (const char *const *a = (const char *const[]){ QEMU, "-name", "test,debug-threads=on", "-nodefaults",
		     "-no-user-config", "-display", "none", "-S", "-mon", "chardev=ctl,mode=control", NULL }; *a; a++)
		strv_push(&vm->argv, *a);
	strv_push(&vm->argv, "-chardev");
	strv_pushf(&vm->argv, "socket,id=ctl,fd=%d,server=on,wait=off", vm->listen_fd);
}

static void vm_args(struct vm *vm, const char *const *args)
{
	for (; *args; args++)
		strv_push(&vm->argv, *args);
}

/* Connect before QEMU has begun, as the launcher does. */
static int vm_start(struct vm *vm, struct err *e)
{
	struct spawn_options o = { .argv = &vm->argv, .stderr_fd = vm->log, .keep_fds = &vm->listen_fd, .n_keep_fds = 1, .die_with_parent = true };
	int r = spawn_prepare(&o, &vm->s, e);

	if (r == 0)
		r = qmp_connect(vm->path, vm->s.pidfd, &vm->q, e);
	if (r == 0)
		r = spawn_go(&vm->s, e);
	return r < 0 ? r : qmp_handshake(&vm->q, WAIT_MS, NULL, NULL, e);
}

static const char *vm_log(const struct vm *vm, char buf[4096])
{
	ssize_t n = pread(vm->log, buf, 4095, 0);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static int vm_wait(struct vm *vm)
{
	struct pollfd p = { .fd = vm->s.pidfd, .events = POLLIN };
	int status = -1;

	cr_assert(eq(int, poll(&p, 1, WAIT_MS), 1), "QEMU does not end");
	cr_assert(eq(int, waitpid(vm->s.pid, &status, 0), vm->s.pid));
	return status;
}

static bool is_shutdown(struct json_object *ev, const char *want)
{
	struct json_object *name = NULL, *data = NULL, *reason = NULL;

	json_object_object_get_ex(ev, "event", &name);
	if (strcmp(json_object_get_string(name), "SHUTDOWN") != 0)
		return false;
	json_object_object_get_ex(ev, "data", &data);
	json_object_object_get_ex(data, "reason", &reason);
	return strcmp(json_object_get_string(reason), want) == 0;
}

/* Wait for SHUTDOWN with this reason; the events before it are dropped.  A guest that resets is seen to do so more than
 * once, until its last vCPU has stopped. */
static void wait_shutdown(struct vm *vm, const char *want)
{
	struct err e = { 0 };
	bool seen = false;
	int r = 0;

	while (!seen) {
		struct pollfd p = { .fd = vm->q.fd, .events = POLLIN };
		struct json_object *ev = qmp_next_event(&vm->q);

		if (ev) {
			seen = is_shutdown(ev, want);
			json_object_put(ev);
			continue;
		}
		cr_assert(zero(int, r), "no SHUTDOWN %s: %s", want, e.msg);
		cr_assert(eq(int, poll(&p, 1, WAIT_MS), 1), "no SHUTDOWN %s", want);
		r = qmp_read(&vm->q, &e);
	}
}

static void vm_quit(struct vm *vm)
{
	struct err e = { 0 };

	cr_assert(zero(int, qmp_command(&vm->q, "quit", NULL, WAIT_MS, NULL, &e)), "%s", e.msg);
	wait_shutdown(vm, "host-qmp-quit");
	cr_assert(zero(int, vm_wait(vm)));
}

static void vm_clear(struct vm *vm)
{
	qmp_close(&vm->q);
	spawn_abort(&vm->s);
	strv_clear(&vm->argv);
	close(vm->listen_fd);
	close(vm->log);
	unlink(vm->path);
	rmdir(vm->dir);
}

static void assert_status(struct vm *vm, const char *want)
{
	struct err e = { 0 };
	char status[32];

	cr_assert(zero(int, qmp_query_status(&vm->q, status, &e)), "%s", e.msg);
	cr_assert_str_eq(status, want);
}

static const struct thread_info *thread_of(const struct thread_info *v, size_t n, int tid)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].tid == tid)
			return &v[i];
	cr_fatal("thread %d is not there", tid);
	return NULL;
}

/* Pin @tid to one of our CPUs and look at what the process says. */
static void pin(struct vm *vm, int tid, int nr, const char *name)
{
	AUTO_FREE struct thread_info *threads = NULL;
	struct cpuset mine, one = { 0 };
	struct err e = { 0 };
	size_t n = 0;
	int cpu;

	cr_assert(zero(int, affinity_get(0, &mine, &e)));
	cpu = cpuset_next(&mine, -1);
	for (int i = 0; i < nr % cpuset_count(&mine); i++)
		cpu = cpuset_next(&mine, cpu);
	cpuset_add(&one, cpu);
	cr_assert(zero(int, affinity_set(tid, &one, &e)), "%s", e.msg);
	cr_assert(zero(int, affinity_threads(vm->s.pid, &threads, &n, &e)), "%s", e.msg);
	cr_assert_str_eq(thread_of(threads, n, tid)->name, name);
	cr_assert(cpuset_equal(&thread_of(threads, n, tid)->cpus, &one));
}

/* A backend of 64 MiB that is all on node 0, by policy and in fact. */
static void assert_guest_memory(struct vm *vm, uint64_t bytes)
{
	AUTO_FREE struct numa_mapping *maps = NULL;
	struct err e = { 0 };
	size_t n = 0, found = 0;

	if (access("/proc/self/numa_maps", F_OK) < 0)
		return;
	cr_assert(zero(int, affinity_numa_maps(vm->s.pid, NULL, 0, &maps, &n, &e)), "%s", e.msg);
	for (size_t i = 0; i < n; i++) {
		if (maps[i].bytes != bytes || strcmp(maps[i].policy, "bind:0") != 0)
			continue;
		found++;
		cr_assert(eq(u64, maps[i].pages[0] * maps[i].page_bytes, bytes));
	}
	cr_assert(eq(sz, found, 1));
}

static const struct qmp_pci *function_of(const struct qmp_pci *v, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].qdev_id, id) == 0)
			return &v[i];
	return NULL;
}

/* A device behind a root port, before the firmware has run: QEMU shows no bus that has no number yet. */
static void assert_pci_before(struct vm *vm)
{
	AUTO_FREE struct qmp_pci *v = NULL;
	struct err e = { 0 };
	size_t n = 0;

	cr_assert(zero(int, qmp_query_pci(&vm->q, &v, &n, &e)), "%s", e.msg);
	cr_assert_not_null(function_of(v, n, "rp0"));
	cr_assert(zero(int, function_of(v, n, "rp0")->secondary_bus));
	cr_assert(zero(ptr, (void *)function_of(v, n, "gpu0")));
}

/* And after: pci-testdev has memory, I/O, and membar as BAR 2. */
static void assert_pci_after(struct vm *vm)
{
	AUTO_FREE struct qmp_pci *v = NULL;
	const struct qmp_pci *port, *dev;
	struct err e = { 0 };
	size_t n = 0;

	cr_assert(zero(int, qmp_query_pci(&vm->q, &v, &n, &e)), "%s", e.msg);
	port = function_of(v, n, "rp0");
	dev = function_of(v, n, "gpu0");
	cr_assert_not_null(port);
	cr_assert_not_null(dev);
	cr_assert(eq(u32, port->class_code, 0x0604));
	cr_assert(eq(int, port->slot, 4));
	cr_assert(gt(int, port->secondary_bus, 0));
	cr_assert(eq(int, dev->parent, (int)(port - v)));
	cr_assert(eq(int, dev->bus, port->secondary_bus));
	cr_assert(eq(int, dev->secondary_bus, -1));
	cr_assert(eq(int, dev->n_bars, 3));
	cr_assert(dev->bars[0].memory);
	cr_assert(not(dev->bars[1].memory));
	cr_assert(eq(u64, dev->bars[2].bytes, UINT64_C(256) << 20));
	cr_assert(ne(u64, dev->bars[2].address, UINT64_MAX));
}

static const char *const small_q35[] = { "-machine", "q35,memory-backend=m0", "-smp", "2,sockets=2,cores=1,threads=1",
	"-m", "64M", "-object", "memory-backend-memfd,id=m0,size=64M,host-nodes=0,policy=bind,prealloc=on",
	"-object", "iothread,id=io0", "-device", "pcie-root-port,id=rp0,bus=pcie.0,chassis=1,addr=4",
	"-device", "pci-testdev,id=gpu0,bus=rp0,membar=256M",
	/* SeaBIOS finds nothing to boot and resets: that stops the machine as it is, with an event. */
	"-boot", "reboot-timeout=1", "-no-reboot", "-no-shutdown", NULL };

static void whole_life(const char *accel)
{
	AUTO_FREE struct qmp_vcpu *vcpus = NULL;
	AUTO_FREE struct qmp_iothread *io = NULL;
	struct err e = { 0 };
	size_t n_vcpus = 0, n_io = 0;
	char log[4096], name[32];
	struct vm vm;

	vm_init(&vm);
	vm_args(&vm, small_q35);
	vm_args(&vm, (const char *const[]){ "-accel", accel, NULL });
	cr_assert(zero(int, vm_start(&vm, &e)), "%s\n%s", e.msg, vm_log(&vm, log));
	cr_assert(gt(sz, strlen(vm.q.version), 4));
	assert_status(&vm, "prelaunch");

	cr_assert(zero(int, qmp_query_vcpus(&vm.q, &vcpus, &n_vcpus, &e)), "%s", e.msg);
	cr_assert(eq(sz, n_vcpus, 2));
	cr_assert(zero(int, qmp_query_iothreads(&vm.q, &io, &n_io, &e)), "%s", e.msg);
	cr_assert(eq(sz, n_io, 1));
	cr_assert_str_eq(io[0].id, "io0");
	for (int i = 0; i < 2; i++) {
		cr_assert(eq(int, vcpus[i].index, i));
		cr_assert(eq(int, vcpus[i].socket, i));
		snprintf(name, sizeof(name), "CPU %d/%s", i, strcmp(accel, "kvm") == 0 ? "KVM" : "TCG");
		pin(&vm, vcpus[i].tid, i, name);
	}
	pin(&vm, io[0].tid, 0, "IO io0");
	assert_guest_memory(&vm, 64 << 20);
	assert_pci_before(&vm);

	cr_assert(zero(int, qmp_command(&vm.q, "cont", NULL, WAIT_MS, NULL, &e)), "%s", e.msg);
	wait_shutdown(&vm, "guest-reset");
	assert_status(&vm, "shutdown");
	assert_pci_after(&vm);
	vm_quit(&vm);
	vm_clear(&vm);
}

Test(real_qemu, whole_life_tcg, .timeout = 300)
{
	whole_life("tcg,thread=multi");
}

Test(real_qemu, whole_life_kvm_seabios, .timeout = 300)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		cr_skip("no /dev/kvm here");
	close(fd);
	whole_life("kvm");
}

/* The socket stays QEMU's: when its launcher has gone, another one connects. */
Test(real_qemu, can_be_adopted, .timeout = 300)
{
	struct err e = { 0 };
	char log[4096];
	struct vm vm;
	struct qmp second;

	vm_init(&vm);
	vm_args(&vm, (const char *const[]){ "-machine", "none", NULL });
	cr_assert(zero(int, vm_start(&vm, &e)), "%s\n%s", e.msg, vm_log(&vm, log));
	/* The first launcher goes; QEMU listens on for another. */
	qmp_close(&vm.q);
	cr_assert(zero(int, qmp_connect(vm.path, vm.s.pidfd, &second, &e)), "%s", e.msg);
	cr_assert(zero(int, qmp_handshake(&second, WAIT_MS, NULL, NULL, &e)), "%s", e.msg);
	vm.q = second;
	cr_assert(eq(int, qmp_command(&vm.q, "no-such-command", NULL, WAIT_MS, NULL, &e), -EREMOTEIO));
	cr_assert_not_null(strstr(e.msg, "no-such-command"), "%s", e.msg);
	vm_quit(&vm);
	vm_clear(&vm);
}

Test(real_qemu, a_bad_option_fails_at_once, .timeout = 300)
{
	struct timespec a, b;
	struct err e = { 0 };
	char log[4096];
	struct vm vm;

	vm_init(&vm);
	vm_args(&vm, (const char *const[]){ "-machine", "none", "-device", "no-such-device", NULL });
	clock_gettime(CLOCK_MONOTONIC, &a);
	cr_assert(eq(int, vm_start(&vm, &e), -ESRCH), "%s", e.msg);
	clock_gettime(CLOCK_MONOTONIC, &b);
	cr_assert(lt(i64, b.tv_sec - a.tv_sec, WAIT_MS / 1000 / 2)); /* by the exit, not by the deadline */
	cr_assert_not_null(strstr(vm_log(&vm, log), "no-such-device"), "%s", log);
	cr_assert(eq(int, WEXITSTATUS(vm_wait(&vm)), 1));
	vm_clear(&vm);
}

Test(real_qemu, killed_while_a_command_waits, .timeout = 300)
{
	struct err e = { 0 };
	char log[4096], status[32];
	struct vm vm;

	vm_init(&vm);
	vm_args(&vm, (const char *const[]){ "-machine", "none", NULL });
	cr_assert(zero(int, vm_start(&vm, &e)), "%s\n%s", e.msg, vm_log(&vm, log));
	kill(vm.s.pid, SIGSTOP); /* so that it cannot answer first */
	kill(vm.s.pid, SIGKILL);
	cr_assert(eq(int, qmp_query_status(&vm.q, status, &e), -ESRCH), "%s", e.msg);
	vm_clear(&vm);
}
