/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Claims: what is written is read, what is damaged is refused, what is stale is recovered; one at a time allocates. */
#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/affinity.h"
#include "gpuvm/claim.h"
#include "tests/fake/kernel.h"
#include "tests/fake/mkhost.h"

#define GIB (UINT64_C(1) << 30)

static const struct fake_device machine[] = {
	{ "0000:17:00.0", 0x10de, 0x2335, 0x030200, 1, "nvidia" },
	{ "0000:18:00.0", 0x10de, 0x2335, 0x030200, 2, "nvidia" },
	{ "0000:19:00.0", 0x144d, 0xa824, 0x010802, 3, NULL },
};

/* --- a claim to begin with ---------------------------------------------------------------------------- */

static char *rundir(void)
{
	char path[] = "/tmp/gpuvm-claim-XXXXXX";

	cr_assert(mkdtemp(path));
	cr_assert(setenv("GPUVM_RUNDIR", path, 1) == 0);
	return xstrdup(path);
}

static void add_device(struct claim *c, const char *bdf, const char *from, const char *id)
{
	struct claim_device *d = PUSH_ZEROED(c->devices, c->n_devices);

	cr_assert(parse_pci_addr(bdf, &d->addr) == 0);
	d->from = from ? xstrdup(from) : NULL;
	d->to = xstrdup("vfio-pci");
	d->id = xstrdup(id);
}

/* A claim of this process, with an odd value in each field. */
static void make_claim(struct claim *c, const char *vm)
{
	struct used_memory *m;

	*c = (struct claim){ .started = 1700000000,
			     .launcher_pid = getpid(),
			     .launcher_start = process_start_time(getpid()),
			     .bound = true };
	c->on_launcher_death = DEATH_STOP;
	c->vm = xstrdup(vm);
	c->definition = xstrdup("/etc/gpuvm/a \"quoted\" name.ini");
	c->rundir = claim_vm_dir(vm);
	c->boot_id = claim_boot_id();
	c->reason = xstrdup("a line\nand another \xc3\xa4");
	strcpy(c->state, "running");
	add_device(c, "0000:17:00.0", "nvidia", "gpu0");
	add_device(c, "0000:19:00.0", NULL, "nvme0");
	c->devices[0].override = xstrdup("nvidia");
	cpuset_add(&c->cpus, 3);
	cpuset_add(&c->cpus, 4095);
	m = PUSH_ZEROED(c->memory, c->n_memory);
	*m = (struct used_memory){ .host_node = 2, .bytes = 960 * GIB, .page_bytes = GIB, .allocated = true };
	strv_push(&c->taps, "tap-x");
	strv_push(&c->taps, "a-lan");
	/* No process has it: the kernel's highest is one less. */
	*PUSH_ZEROED(c->helpers, c->n_helpers) = (struct claim_helper){ .name = xstrdup("swtpm"), .pid = 4194304, .start = 1 };
	cr_assert(mkdir(c->rundir, 0700) == 0 || errno == EEXIST);
}

/* With what nothing here gives back. */
static void make_whole_claim(struct claim *c, const char *vm)
{
	make_claim(c, vm);
	c->fabric = FABRIC_SHARED;
	c->partition = 3;
	c->partition_active = true;
	c->fabric_manager = xstrdup("/usr/bin/fmpm 10.0.0.2");
	*PUSH_ZEROED(c->registers, c->n_registers) =
		(struct claim_register){ .addr = { 0xffff, 0xff, 0x1f, 7 }, .offset = 4094, .from = 0xffff, .to = 0x5d };
	*PUSH_ZEROED(c->owned, c->n_owned) =
		(struct claim_owned){ .path = xstrdup("/dev/vfio/12"), .uid = UINT32_MAX, .gid = 7, .mode = 0600 };
	c->cgroup = xstrdup("gpuvm.slice/a");
	c->hooked = true;
	c->vsock = 4000000001;
	c->uid = 4000000000;
	c->gid = 12;
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool claims_equal(const struct claim *a, const struct claim *b)
{
	bool eq = same(a->vm, b->vm) && same(a->definition, b->definition) && same(a->rundir, b->rundir) &&
		  same(a->boot_id, b->boot_id) && a->started == b->started && a->launcher_pid == b->launcher_pid &&
		  a->launcher_start == b->launcher_start && a->qemu_pid == b->qemu_pid &&
		  a->qemu_start == b->qemu_start && a->on_launcher_death == b->on_launcher_death &&
		  a->bound == b->bound && a->n_devices == b->n_devices && cpuset_equal(&a->cpus, &b->cpus) &&
		  a->n_memory == b->n_memory && same(a->state, b->state) && same(a->reason, b->reason);

	for (size_t i = 0; eq && i < a->n_devices; i++)
		eq = pci_addr_cmp(&a->devices[i].addr, &b->devices[i].addr) == 0 &&
		     same(a->devices[i].from, b->devices[i].from) &&
		     same(a->devices[i].override, b->devices[i].override) && same(a->devices[i].to, b->devices[i].to) &&
		     same(a->devices[i].id, b->devices[i].id);
	eq = eq && a->n_helpers == b->n_helpers;
	for (size_t i = 0; eq && i < a->n_helpers; i++)
		eq = same(a->helpers[i].name, b->helpers[i].name) && a->helpers[i].pid == b->helpers[i].pid && a->helpers[i].start == b->helpers[i].start;
	eq = eq && a->taps.n == b->taps.n;
	for (size_t i = 0; eq && i < a->taps.n; i++)
		eq = same(a->taps.v[i], b->taps.v[i]);
	eq = eq && a->fabric == b->fabric && a->partition == b->partition && a->partition_active == b->partition_active &&
	     same(a->fabric_manager, b->fabric_manager) &&
	     a->n_registers == b->n_registers && a->n_owned == b->n_owned && same(a->cgroup, b->cgroup) && a->uid == b->uid && a->gid == b->gid &&
	     a->hooked == b->hooked && a->vsock == b->vsock;
	for (size_t i = 0; eq && i < a->n_registers; i++)
		eq = pci_addr_cmp(&a->registers[i].addr, &b->registers[i].addr) == 0 && a->registers[i].offset == b->registers[i].offset &&
		     a->registers[i].from == b->registers[i].from && a->registers[i].to == b->registers[i].to;
	for (size_t i = 0; eq && i < a->n_owned; i++)
		eq = same(a->owned[i].path, b->owned[i].path) && a->owned[i].uid == b->owned[i].uid && a->owned[i].gid == b->owned[i].gid &&
		     a->owned[i].mode == b->owned[i].mode;
	for (size_t i = 0; eq && i < a->n_memory; i++)
		eq = a->memory[i].host_node == b->memory[i].host_node && a->memory[i].bytes == b->memory[i].bytes &&
		     a->memory[i].page_bytes == b->memory[i].page_bytes &&
		     a->memory[i].allocated == b->memory[i].allocated;
	return eq;
}

static void write_ok(const struct claim *c)
{
	struct err e = { 0 };

	cr_assert(claim_write(c, &e) == 0, "%s", e.msg);
}

/* --- on disk ------------------------------------------------------------------------------------------- */

Test(claim, what_is_written_is_read)
{
	AUTO_FREE char *dir = rundir(), *vm_dir = NULL;
	struct claim c, back = { 0 };
	struct err e = { 0 };
	struct stat st;

	make_whole_claim(&c, "a");
	vm_dir = xasprintf("%s/claim.json", c.rundir);
	write_ok(&c);
	cr_assert(stat(vm_dir, &st) == 0 && (st.st_mode & 0777) == 0600, "others can read it");
	cr_assert(claim_read(c.rundir, &back, &e) == 0, "%s", e.msg);
	cr_assert(claims_equal(&c, &back));
	claim_clear(&back);
	/* Nothing optional, nothing held. */
	free(STEAL_PTR(c.definition));
	c.n_memory = 0;
	write_ok(&c);
	cr_assert(claim_read(c.rundir, &back, &e) == 0, "%s", e.msg);
	cr_assert(claims_equal(&c, &back));
	claim_clear(&back);
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

static void put(const char *dir, const char *text, size_t len)
{
	AUTO_FREE char *path = xasprintf("%s/claim.json", dir);
	FILE *f = fopen(path, "w");

	cr_assert(f && fwrite(text, 1, len, f) == len && fclose(f) == 0);
}

static char *claim_text(const char *dir)
{
	AUTO_FREE char *path = xasprintf("%s/claim.json", dir);
	char *text = NULL;

	cr_assert(read_text_file(path, 1 << 20, &text) == 0);
	return text;
}

/* A damaged file is an error, or so little damaged that nothing is lost: never another claim. */
static void read_damaged(const struct claim *c, const char *what, size_t at)
{
	struct claim back = { 0 };
	struct err e = { 0 };
	int r = claim_read(c->rundir, &back, &e);

	if (r == 0) {
		cr_assert(claims_equal(c, &back), "%s at %zu: another claim is read", what, at);
		claim_clear(&back);
		return;
	}
	cr_assert(r == -EPROTO && strstr(e.msg, c->rundir) && same(e.word, "claim-damaged"), "%s at %zu: %d, %s", what,
		  at, r, e.msg);
	cr_assert(!back.vm && !back.devices, "%s at %zu: an error, and a claim", what, at);
}

Test(claim, cut_off_at_every_byte)
{
	AUTO_FREE char *dir = rundir(), *text = NULL;
	struct claim c;

	make_whole_claim(&c, "a");
	write_ok(&c);
	text = claim_text(c.rundir);
	for (size_t i = 0; i < strlen(text); i++) {
		put(c.rundir, text, i);
		read_damaged(&c, "cut", i);
	}
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

/* A key that is not there, under another name, of another type. */
Test(claim, every_key_is_needed)
{
	AUTO_FREE char *dir = rundir(), *text = NULL;
	struct claim c;

	make_whole_claim(&c, "a");
	write_ok(&c);
	text = claim_text(c.rundir);
	for (char *key = text; (key = strchr(key, '"')); key++) {
		char *end = strchr(key + 1, '"');

		if (!end)
			break;
		if (end[1] != ':') {
			key = end;
			continue;
		}
		key[1] ^= 1;
		put(c.rundir, text, strlen(text));
		read_damaged(&c, "another key", (size_t)(key - text));
		key[1] ^= 1;
		key = end;
	}
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

/* A VM that an older gpuvm started. */
Test(claim, schema_1_is_read)
{
	AUTO_FREE char *dir = rundir(), *text = NULL;
	static const char *const later[] = { "partition_active", "fabric_manager", "registers", "owned", "cgroup", "user", "group", "hooked", "vsock" };
	struct json_object *o;
	struct claim c, back = { 0 };
	struct err e = { 0 };

	make_claim(&c, "a");
	write_ok(&c);
	text = claim_text(c.rundir);
	o = json_tokener_parse(text);
	for (size_t i = 0; i < ARRAY_SIZE(later); i++)
		json_object_object_del(o, later[i]);
	json_object_object_add(o, "schema", json_object_new_int(1));
	put(c.rundir, json_object_to_json_string(o), strlen(json_object_to_json_string(o)));
	cr_assert(claim_read(c.rundir, &back, &e) == 0, "%s", e.msg);
	cr_assert(claims_equal(&c, &back));
	claim_clear(&back);
	/* QEMU was started: then the pre-bind hook was run before. */
	json_object_object_add(o, "qemu_pid", json_object_new_int(4194304));
	put(c.rundir, json_object_to_json_string(o), strlen(json_object_to_json_string(o)));
	cr_assert(claim_read(c.rundir, &back, &e) == 0 && back.hooked && back.qemu_pid == 4194304, "%s", e.msg);
	claim_clear(&back);
	json_object_object_add(o, "schema", json_object_new_int(CLAIM_SCHEMA + 1));
	put(c.rundir, json_object_to_json_string(o), strlen(json_object_to_json_string(o)));
	cr_assert(claim_read(c.rundir, &back, &e) == -EPROTO && strstr(e.msg, "'schema'"), "%s", e.msg);
	json_object_put(o);
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

Test(claim, there_is_none)
{
	AUTO_FREE char *dir = rundir(), *vm = claim_vm_dir("none");
	struct claim c = { 0 };
	struct err e = { 0 };

	cr_assert(claim_read(vm, &c, &e) == -ENOENT);
	mkhost_remove(STEAL_PTR(dir));
}

/* --- alive or stale -------------------------------------------------------------------------------------- */

Test(claim, alive_is_pid_and_start_time_on_this_boot)
{
	AUTO_FREE char *dir = rundir();
	struct claim c;

	make_claim(&c, "a");
	cr_assert(claim_launcher_alive(&c) && !claim_qemu_alive(&c));
	c.launcher_start++;
	cr_assert(!claim_launcher_alive(&c), "another process has the pid");
	c.launcher_start--;
	c.boot_id[0] = c.boot_id[0] == 'x' ? 'y' : 'x';
	cr_assert(!claim_launcher_alive(&c), "the host was restarted");
	free(c.boot_id);
	c.boot_id = claim_boot_id();
	c.qemu_pid = c.launcher_pid;
	c.qemu_start = c.launcher_start;
	c.launcher_pid = 0;
	cr_assert(!claim_launcher_alive(&c) && claim_qemu_alive(&c));
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

/* A pid that was in use and is no more. */
static pid_t dead_pid(uint64_t *ret_start)
{
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	cr_assert(pid > 0);
	*ret_start = process_start_time(pid);
	kill(pid, SIGKILL);
	cr_assert(waitpid(pid, NULL, 0) == pid);
	return pid;
}

Test(claim, a_process_that_is_gone)
{
	AUTO_FREE char *dir = rundir();
	struct claim c;

	make_claim(&c, "a");
	c.launcher_pid = dead_pid(&c.launcher_start);
	cr_assert(c.launcher_start && !claim_launcher_alive(&c));
	/* Start time 0 is what a process that is gone has: two unknowns are not one process. */
	c.launcher_start = 0;
	cr_assert(!claim_launcher_alive(&c));
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

Test(claim, release_leaves_the_last_run)
{
	AUTO_FREE char *dir = rundir(), *socket = NULL, *log = NULL;
	struct claim c, back = { 0 };
	struct claim_last last = { 0 };
	struct err e = { 0 };

	make_claim(&c, "a");
	write_ok(&c);
	socket = xasprintf("%s/qmp.sock", c.rundir);
	log = xasprintf("%s/qemu.log", c.rundir);
	cr_assert(write_file_atomic(socket, "", 0, 0600) == 0 && write_file_atomic(log, "x", 1, 0600) == 0);
	cr_assert(claim_read_last(c.rundir, &last, &e) == -ENOENT);
	cr_assert(claim_release(&c, 6, &e) == 0, "%s", e.msg);
	cr_assert(claim_read(c.rundir, &back, &e) == -ENOENT, "the claim is still there");
	cr_assert(access(socket, F_OK) < 0 && access(log, F_OK) == 0);
	cr_assert(claim_read_last(c.rundir, &last, &e) == 0, "%s", e.msg);
	cr_assert(last.exit_code == 6 && last.started == c.started && last.ended > last.started);
	cr_assert(same(last.state, c.state) && same(last.reason, c.reason));
	/* Twice is once. */
	cr_assert(claim_release(&c, 6, &e) == 0, "%s", e.msg);
	free(last.reason);
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

/* --- what is in use ---------------------------------------------------------------------------------------- */

/* As a launcher that died with its device bound left it. */
static void make_stale(struct claim *c, const char *vm, struct fake_kernel *k)
{
	struct bind_op op = { .from = "nvidia", .to = "vfio-pci" };
	struct err e = { 0 };

	make_claim(c, vm);
	c->launcher_pid = dead_pid(&c->launcher_start);
	c->n_devices = 1;
	free(STEAL_PTR(c->devices[0].override));
	free(c->devices[1].to);
	free(c->devices[1].id);
	op.addr = c->devices[0].addr;
	cr_assert(bind_devices(&k->sys, &op, 1, &e) == 0, "%s", e.msg);
	write_ok(c);
}

static void assert_driver(const struct fake_kernel *k, const char *want)
{
	struct pci_addr a = { .bus = 0x17 };
	AUTO_FREE char *now = bind_current_driver(&k->sys, &a);

	cr_assert(same(now, want), "%s, not %s", now ? now : "(none)", want);
}

Test(claim, stale_claims_are_recovered_and_live_ones_count)
{
	AUTO_FREE char *dir = rundir();
	struct fake_kernel k = { 0 };
	struct host_use use = { 0 };
	struct claim live, stale, back = { 0 };
	struct err e = { 0 };

	cr_assert(fake_kernel_make(&k, machine, ARRAY_SIZE(machine)) == 0);
	k.sys.serial = true;
	make_stale(&stale, "stale", &k);
	make_claim(&live, "live");
	write_ok(&live);
	assert_driver(&k, "vfio-pci");

	/* Only looking changes nothing. */
	cr_assert(claim_collect_use(NULL, NULL, &use, &e) == 0, "%s", e.msg);
	cr_assert(use.n_devices == 2 && use.n_cpus == 1 && use.n_memory == 1);
	assert_driver(&k, "vfio-pci");
	host_use_clear(&use);

	cr_assert(claim_collect_use(&k.sys, NULL, &use, &e) == 0, "%s", e.msg);
	assert_driver(&k, "nvidia");
	cr_assert(claim_read(stale.rundir, &back, &e) == -ENOENT, "the stale claim is still there");
	cr_assert(use.n_devices == 2 && same(use.devices[0].vm, "live") && use.devices[0].pid == getpid());
	cr_assert(cpuset_has(&use.cpus[0].cpus, 4095) && use.memory[0].bytes == 960 * GIB &&
		  same(use.memory[0].vm, "live"));
	host_use_clear(&use);
	cr_assert(claim_collect_use(&k.sys, "live", &use, &e) == 0 && !use.n_devices && !use.n_cpus && !use.n_memory,
		  "its own claim counts");
	host_use_clear(&use);
	claim_clear(&live);
	claim_clear(&stale);
	fake_kernel_free(&k);
	mkhost_remove(STEAL_PTR(dir));
}

Test(claim, after_a_reboot_nothing_is_bound_back)
{
	AUTO_FREE char *dir = rundir();
	struct fake_kernel k = { 0 };
	struct host_use use = { 0 };
	struct claim c;
	struct err e = { 0 };
	unsigned int writes;

	cr_assert(fake_kernel_make(&k, machine, ARRAY_SIZE(machine)) == 0);
	k.sys.serial = true;
	make_stale(&c, "old", &k);
	free(c.boot_id);
	c.boot_id = xstrdup("00000000-0000-0000-0000-000000000000");
	write_ok(&c);
	writes = atomic_load(&k.sh->writes);
	cr_assert(claim_collect_use(&k.sys, NULL, &use, &e) == 0, "%s", e.msg);
	cr_assert(atomic_load(&k.sh->writes) == writes && !use.n_devices);
	host_use_clear(&use);
	claim_clear(&c);
	fake_kernel_free(&k);
	mkhost_remove(STEAL_PTR(dir));
}

Test(claim, one_that_lives_is_not_recovered)
{
	AUTO_FREE char *dir = rundir();
	struct fake_kernel k = { 0 };
	struct claim c;
	struct err e = { 0 };

	cr_assert(fake_kernel_make(&k, machine, ARRAY_SIZE(machine)) == 0);
	make_claim(&c, "a");
	cr_assert(claim_recover(&k.sys, &c, &e) == -EBUSY);
	c.qemu_pid = c.launcher_pid;
	c.qemu_start = c.launcher_start;
	c.launcher_pid = dead_pid(&c.launcher_start);
	c.on_launcher_death = DEATH_KEEP;
	cr_assert(claim_recover(&k.sys, &c, &e) == -EBUSY, "QEMU lives on");
	cr_assert(atomic_load(&k.sh->writes) == 0);
	claim_clear(&c);
	fake_kernel_free(&k);
	mkhost_remove(STEAL_PTR(dir));
}

/* on-launcher-death = stop: nobody else will end it. */
Test(claim, a_qemu_that_was_to_end_is_ended, .timeout = 30)
{
	AUTO_FREE char *dir = rundir();
	struct fake_kernel k = { 0 };
	struct claim c;
	struct err e = { 0 };
	int status;

	cr_assert(fake_kernel_make(&k, machine, ARRAY_SIZE(machine)) == 0);
	k.sys.serial = true;
	make_stale(&c, "a", &k);
	c.qemu_pid = fork();
	if (c.qemu_pid == 0)
		for (;;)
			pause();
	c.qemu_start = process_start_time(c.qemu_pid);
	cr_assert(claim_qemu_alive(&c) && !claim_alive(&c));
	cr_assert(claim_recover(&k.sys, &c, &e) == 0, "%s", e.msg);
	cr_assert(waitpid(c.qemu_pid, &status, 0) == c.qemu_pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_driver(&k, "nvidia");
	claim_clear(&c);
	fake_kernel_free(&k);
	mkhost_remove(STEAL_PTR(dir));
}

/* A device that does not come back is refused to others; all else is not. */
Test(claim, one_that_cannot_be_undone_holds_its_devices)
{
	AUTO_FREE char *dir = rundir();
	struct fake_kernel k = { 0 };
	struct host_use use = { 0 };
	struct claim c, back = { 0 };
	struct err e = { 0 };
	unsigned int writes;

	cr_assert(fake_kernel_make(&k, machine, ARRAY_SIZE(machine)) == 0);
	k.sys.serial = true;
	make_stale(&c, "stuck", &k);
	k.refuse_driver = "nvidia";
	cr_assert(claim_collect_use(&k.sys, NULL, &use, &e) == 0, "%s", e.msg);
	cr_assert(use.n_devices == 1 && use.devices[0].pid == 0 && same(use.devices[0].vm, "stuck") && !use.n_cpus && !use.n_memory);
	host_use_clear(&use);
	cr_assert(claim_read(c.rundir, &back, &e) == 0 && back.recover_failed && strstr(back.reason, "0000:17:00.0") && same(back.state, "failed"));

	/* Not again for a while, since a hung driver costs a minute. */
	writes = atomic_load(&k.sh->writes);
	cr_assert(claim_collect_use(&k.sys, NULL, &use, &e) == 0 && use.n_devices == 1);
	cr_assert(atomic_load(&k.sh->writes) == writes);
	host_use_clear(&use);
	/* A clock that is set back by a year does not make that a year. */
	back.recover_failed = time(NULL) + 365 * 24 * 3600;
	write_ok(&back);
	claim_clear(&back);
	cr_assert(claim_collect_use(&k.sys, NULL, &use, &e) == 0 && use.n_devices == 1);
	cr_assert(atomic_load(&k.sh->writes) > writes);
	host_use_clear(&use);
	cr_assert(claim_read(c.rundir, &back, &e) == 0 && back.recover_failed <= time(NULL), "%s", e.msg);
	/* but then */
	back.recover_failed -= RECOVER_RETRY_S;
	write_ok(&back);
	k.refuse_driver = NULL;
	cr_assert(claim_collect_use(&k.sys, NULL, &use, &e) == 0 && use.n_devices == 0);
	assert_driver(&k, "nvidia");
	claim_clear(&back);
	cr_assert(claim_read(c.rundir, &back, &e) == -ENOENT);
	host_use_clear(&use);
	claim_clear(&c);
	fake_kernel_free(&k);
	mkhost_remove(STEAL_PTR(dir));
}

/* One device hangs, the other one is back and may be another VM's by now: the next attempt is for the first one only. */
Test(claim, what_is_back_is_not_given_back_twice)
{
	AUTO_FREE char *dir = rundir(), *stuck = claim_vm_dir("stuck");
	struct fake_kernel k = { 0 };
	struct host_use use = { 0 };
	struct claim c, back = { 0 };
	struct bind_op other = { .addr = { .bus = 0x18 }, .from = "nvidia", .to = "vfio-pci" }, none = { .addr = { .bus = 0x19 }, .to = "vfio-pci" };
	struct err e = { 0 };

	cr_assert(fake_kernel_make(&k, machine, ARRAY_SIZE(machine)) == 0);
	k.sys.serial = true;
	make_claim(&c, "stuck");
	c.launcher_pid = dead_pid(&c.launcher_start);
	add_device(&c, "0000:18:00.0", "nvidia", "gpu1");
	free(STEAL_PTR(c.devices[0].override));
	write_ok(&c);
	{
		AUTO_FREE struct bind_op *v = claim_bind_ops(&c);

		cr_assert(bind_devices(&k.sys, v, c.n_devices, &e) == 0, "%s", e.msg);
	}
	k.refuse_driver = "nvidia";
	cr_assert(claim_collect_use(&k.sys, NULL, &use, &e) == 0, "%s", e.msg);
	cr_assert(use.n_devices == 2 && use.devices[0].addr.bus == 0x17 && use.devices[1].addr.bus == 0x18, "%zu are held", use.n_devices);
	host_use_clear(&use);
	cr_assert(claim_read(c.rundir, &back, &e) == 0 && back.n_devices == 2 && same(back.devices[1].id, "gpu1"));
	claim_clear(&back);

	/* Another VM has the one that is back, and an operator has cured the others. */
	k.refuse_driver = NULL;
	cr_assert(bind_devices(&k.sys, &none, 1, &e) == 0, "%s", e.msg);
	claim_clear(&c);
	cr_assert(claim_read(stuck, &c, &e) == 0 && claim_recover(&k.sys, &c, &e) == 0, "%s", e.msg);
	{
		AUTO_FREE char *now = bind_current_driver(&k.sys, &none.addr), *cured = bind_current_driver(&k.sys, &other.addr);

		cr_assert(same(now, "vfio-pci") && same(cured, "nvidia"), "%s was taken away", now ? now : "it");
	}
	assert_driver(&k, "nvidia");
	claim_clear(&c);
	fake_kernel_free(&k);
	mkhost_remove(STEAL_PTR(dir));
}

/* Its launcher and its worker were killed, but the worker is still in the kernel: what it does there comes later than what is read now. */
Test(claim, not_while_a_worker_is_in_the_kernel, .timeout = 30)
{
	AUTO_FREE char *dir = rundir();
	struct fake_kernel k = { 0 };
	struct claim c;
	struct err e = { 0 };
	unsigned int writes;
	int fd;
	pid_t pid;

	cr_assert(fake_kernel_make(&k, machine, ARRAY_SIZE(machine)) == 0);
	k.sys.serial = true;
	make_stale(&c, "a", &k);
	fd = claim_busy(c.rundir, true, 0, &e);
	cr_assert(fd > 0, "%s", e.msg);
	pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	close(fd);
	writes = atomic_load(&k.sh->writes);
	cr_assert(claim_recover(&k.sys, &c, &e) == -EBUSY && strstr(e.msg, "still waits in the kernel"), "%s", e.msg);
	cr_assert(atomic_load(&k.sh->writes) == writes);
	kill(pid, SIGKILL);
	cr_assert(waitpid(pid, NULL, 0) == pid);
	cr_assert(claim_recover(&k.sys, &c, &e) == 0, "%s", e.msg);
	assert_driver(&k, "nvidia");
	claim_clear(&c);
	fake_kernel_free(&k);
	mkhost_remove(STEAL_PTR(dir));
}

Test(claim, a_damaged_one_stops_allocation)
{
	AUTO_FREE char *dir = rundir();
	struct host_use use = { 0 };
	struct claim c;
	struct err e = { 0 };

	make_claim(&c, "a");
	put(c.rundir, "{", 1);
	cr_assert(claim_collect_use(NULL, NULL, &use, &e) == -EPROTO && strstr(e.msg, c.rundir) && !use.devices, "%s",
		  e.msg);
	claim_clear(&c);
	mkhost_remove(STEAL_PTR(dir));
}

/* --- one at a time -------------------------------------------------------------------------------------------- */

#define ROUNDS 200

/* Read a number, wait a little, write one more: without the lock some are lost. */
static void count_up(const char *file)
{
	for (int i = 0; i < ROUNDS; i++) {
		AUTO_FREE char *text = NULL, *next = NULL;
		struct err e = { 0 };
		int n = 0, fd = claim_lock(&e);

		if (fd < 0 || read_text_file(file, 64, &text) < 0 || parse_int(text, 0, 1 << 20, &n) < 0)
			_exit(1);
		sched_yield();
		next = xasprintf("%d\n", n + 1);
		sysfs_write_file(NULL, file, next);
		close(fd);
	}
	_exit(0);
}

Test(claim, two_processes_want_the_lock, .timeout = 60)
{
	AUTO_FREE char *dir = rundir(), *file = xasprintf("%s/count", dir), *text = NULL;
	pid_t pids[2];

	cr_assert(write_file_atomic(file, "0\n", 2, 0600) == 0);
	for (int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			count_up(file);
	}
	for (int i = 0; i < 2; i++) {
		int status;

		cr_assert(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
	}
	cr_assert(read_text_file(file, 64, &text) == 0);
	cr_assert_str_eq(text, "400");
	mkhost_remove(STEAL_PTR(dir));
}
