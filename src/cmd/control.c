/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm list, status, stop, kill, wait, recover: verbs for VMs that run, or did. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "cmd.h"
#include "gpuvm/bad.h"
#include "gpuvm/events.h"
#include "gpuvm/log.h"
#include "gpuvm/record.h"
#include "gpuvm/security.h"

#define STATUS_EVENTS 20 /* the newest */

/* --- state of one VM --------------------------------------------------------------------------------------- */

/* What is known about a VM: its claim if it has one, else how its last run ended, else that there is a definition of it. */
struct vm_state {
	bool has_claim, alive, has_last;
	bool defined, unfinished; /* unfinished: a create was interrupted */
	struct claim claim;
	struct claim_last last;
};

static int read_state(const char *name, struct vm_state *ret, struct err *e)
{
	AUTO_FREE char *dir = claim_vm_dir(name);
	int r = claim_read(dir, &ret->claim, e);

	if (r < 0 && r != -ENOENT)
		return r;
	ret->has_claim = r == 0;
	ret->alive = ret->has_claim && claim_alive(&ret->claim);
	r = claim_read_last(dir, &ret->last, e);
	if (r < 0 && r != -ENOENT)
		return r;
	ret->has_last = r == 0;
	return 0;
}

/* Names of all VMs that have a definition, or would have one if their creation had been finished. */
static int list_defined(struct strv *ret, struct err *e)
{
	struct strv paths = { 0 };
	int r = record_list(ret, e);

	if (r == 0)
		r = record_list_definitions(&paths, e);
	for (size_t i = 0; i < paths.n; i++) {
		AUTO_FREE char *name = cmd_vm_name(paths.v[i]);

		if (!strv_contains(ret, name))
			strv_push(ret, name);
	}
	strv_clear(&paths);
	return r;
}

static void add_defined(struct vm_state *s, const char *name, const struct strv *defined)
{
	struct record rec = { 0 };
	struct err ignored;

	s->defined = strv_contains(defined, name);
	/* A damaged record is for `gpuvm delete` to complain about. */
	s->unfinished = s->defined && record_read(name, &rec, &ignored) == 0 && !rec.ready;
	record_clear(&rec);
}

static void clear_state(struct vm_state *s)
{
	claim_clear(&s->claim);
	free(s->last.reason);
	*s = (struct vm_state){ 0 };
}

static const char *state_word(const struct vm_state *s)
{
	if (s->alive)
		return s->claim.state;
	if (s->has_claim)
		return "failed"; /* nobody is there to give it back: `gpuvm recover` */
	return s->has_last ? s->last.state : "stopped";
}

static const char *state_reason(const struct vm_state *s)
{
	if (s->alive && !claim_launcher_alive(&s->claim))
		return "QEMU runs without its launcher; `gpuvm start` takes it over";
	if (s->alive || (s->has_claim && s->claim.recover_failed))
		return s->claim.reason;
	if (s->has_claim)
		return "the launcher died; `gpuvm recover` gives its devices back";
	if (s->unfinished)
		return "it is being made, or that was interrupted: `gpuvm delete` removes what there is then";
	return s->has_last ? s->last.reason : "has not run since the host was started";
}

static uint64_t memory_of(const struct claim *c)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < c->n_memory; i++)
		sum += c->memory[i].bytes;
	return sum;
}

/* Devices that no VM may have; a folder that cannot be read is told, and no reason to show nothing. */
struct bad_devices {
	struct bad_device *v;
	size_t n;
};

static struct bad_devices read_bad(void)
{
	struct bad_devices b = { 0 };
	struct err e = { 0 };

	if (bad_list(launch_state_dir(), &b.v, &b.n, &e) < 0)
		log_warning("%s", e.msg);
	return b;
}

static const char *bad_text(const struct bad_device *b)
{
	return b->damaged ? b->damaged : b->reason;
}

static const char *why_bad(const struct bad_devices *b, const struct pci_addr *addr)
{
	for (size_t i = 0; i < b->n; i++)
		if (pci_addr_cmp(&b->v[i].addr, addr) == 0)
			return bad_text(&b->v[i]);
	return NULL;
}

static void list_bad(void)
{
	struct bad_devices b = read_bad();

	for (size_t i = 0; i < b.n; i++) {
		char bdf[PCI_ADDR_STR];

		pci_addr_format(&b.v[i].addr, bdf);
		printf("%s%s is kept from VMs: %s (`gpuvm doctor --clear %s`)\n", i ? "" : "\n", bdf, bad_text(&b.v[i]), bdf);
	}
	bad_free(b.v, b.n);
}

static struct json_object *state_json(const char *name, const struct vm_state *s)
{
	AUTO_FREE char *dir = claim_vm_dir(name);
	struct json_object *o = json_object_new_object(), *devices = json_object_new_array();
	AUTO_FREE char *cpus = cpuset_format(&s->claim.cpus);
	struct bad_devices bad = read_bad();

	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "name", json_object_new_string(name));
	json_object_object_add(o, "state", json_object_new_string(state_word(s)));
	json_object_object_add(o, "reason", json_object_new_string(state_reason(s)));
	json_object_object_add(o, "pid", s->alive ? json_object_new_int(s->claim.launcher_pid) : NULL);
	json_object_object_add(o, "qemu_pid", s->alive && s->claim.qemu_pid ? json_object_new_int(s->claim.qemu_pid) : NULL);
	json_object_object_add(o, "started", s->has_claim ? json_object_new_int64(s->claim.started)
					      : s->has_last ? json_object_new_int64(s->last.started)
							    : NULL);
	for (size_t i = 0; s->alive && i < s->claim.n_devices; i++) {
		struct json_object *d = json_object_new_object();
		char bdf[PCI_ADDR_STR];
		const char *why;

		json_object_object_add(d, "id", json_object_new_string(s->claim.devices[i].id));
		json_object_object_add(d, "bdf", json_object_new_string(pci_addr_format(&s->claim.devices[i].addr, bdf)));
		why = why_bad(&bad, &s->claim.devices[i].addr);
		json_object_object_add(d, "bad", why ? json_object_new_string(why) : NULL);
		json_object_array_add(devices, d);
	}
	bad_free(bad.v, bad.n);
	json_object_object_add(o, "devices", devices);
	json_object_object_add(o, "vcpus", json_object_new_string(s->alive ? cpus : ""));
	json_object_object_add(o, "memory", json_object_new_uint64(s->alive ? memory_of(&s->claim) : 0));
	json_object_object_add(o, "events", events_read(dir, STATUS_EVENTS));
	json_object_object_add(o, "autostart", json_object_new_boolean(cmd_unit_enabled(name)));
	json_object_object_add(o, "exit_code", !s->has_claim && s->has_last ? json_object_new_int(s->last.exit_code) : NULL);
	return o;
}

/* --- list, status ---------------------------------------------------------------------------------------------- */

static void uptime_text(int64_t started, char buf[32])
{
	int64_t s = time(NULL) - started;

	if (s < 0)
		s = 0;
	snprintf(buf, 32, "%" PRId64 "d %02d:%02d:%02d", s / 86400, (int)(s / 3600 % 24), (int)(s / 60 % 60), (int)(s % 60));
}

static void list_row(const char *name, const struct vm_state *s)
{
	AUTO_FREE char *cpus = cpuset_format(&s->claim.cpus);
	/* It may quote QEMU's last lines: the first one is enough here, with what it announces. */
	const char *reason = state_reason(s);
	size_t first = strcspn(reason, "\n");
	bool colon = first && reason[first - 1] == ':' && reason[first];
	char size[32] = "-", up[32] = "-";
	int gpus = 0;

	for (size_t i = 0; s->alive && i < s->claim.n_devices; i++)
		gpus += strncmp(s->claim.devices[i].id, "gpu", 3) == 0 && !strchr(s->claim.devices[i].id, '.');
	if (s->alive) {
		format_size(memory_of(&s->claim), size);
		uptime_text(s->claim.started, up);
	}
	printf("%-16s %-9s %4d  %-14s %-10s %-14s %.*s%s%.*s\n", name, state_word(s), gpus, s->alive && *cpus ? cpus : "-", size, up, (int)first, reason,
	       colon ? " " : "", colon ? (int)strcspn(reason + first + 1, "\n") : 0, colon ? reason + first + 1 : "");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int cmd_list(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm list [--json]\n\nEvery VM that runs or has a definition, and how those that do not run have ended.\n";
	struct cmd_simple o = { 0 };
	struct strv names = { 0 }, defined = { 0 };
	struct err e = { 0 };
	struct json_object *all;
	int r = cmd_parse_simple(argc, argv, usage, false, &o);

	if (r || o.help)
		return r;
	if (claim_list(&names, &e) < 0 || list_defined(&defined, &e) < 0) {
		log_error("%s", e.msg);
		strv_clear(&names);
		strv_clear(&defined);
		return EXIT_FAILED;
	}
	for (size_t i = 0; i < defined.n; i++)
		if (!strv_contains(&names, defined.v[i]))
			strv_push(&names, defined.v[i]);
	if (names.n)
		qsort(names.v, names.n, sizeof(*names.v), by_name);
	all = json_object_new_array();
	if (!o.json)
		printf("%-16s %-9s %4s  %-14s %-10s %-14s %s\n", "NAME", "STATE", "GPUS", "CPUS", "MEMORY", "UP", "REASON");
	for (size_t i = 0; i < names.n; i++) {
		struct vm_state s = { 0 };
		bool known;

		if (read_state(names.v[i], &s, &e) < 0) {
			log_error("%s", e.msg);
			r = EXIT_FAILED;
			clear_state(&s);
			continue;
		}
		add_defined(&s, names.v[i], &defined);
		/* Somebody else's folder, or what a start has left that failed before it had begun. */
		known = s.has_claim || s.has_last || s.defined;
		if (known && o.json)
			json_object_array_add(all, state_json(names.v[i], &s));
		else if (known)
			list_row(names.v[i], &s);
		clear_state(&s);
	}
	if (o.json) {
		cmd_print_json(all);
	} else {
		json_object_put(all);
		list_bad();
	}
	strv_clear(&names);
	strv_clear(&defined);
	return r;
}

static void print_events(const char *name)
{
	AUTO_FREE char *dir = claim_vm_dir(name);
	struct json_object *all = events_read(dir, STATUS_EVENTS);
	size_t n = json_object_array_length(all);

	for (size_t i = 0; i < n; i++) {
		char text[160];

		cmd_event_text(json_object_array_get_idx(all, i), text, sizeof(text));
		printf("  %-13s %s\n", i ? "" : "events", text);
	}
	json_object_put(all);
}

static void print_status(const char *name, const struct vm_state *s)
{
	AUTO_FREE char *cpus = cpuset_format(&s->claim.cpus);
	struct bad_devices bad;
	char text[32];

	printf("%s: %s%s%s\n", name, state_word(s), *state_reason(s) ? ": " : "", state_reason(s));
	if (s->has_last && !s->has_claim)
		printf("  exit code     %d\n", s->last.exit_code);
	if (cmd_unit_enabled(name))
		printf("  autostart     with the host, as gpuvm@%s.service\n", name);
	if (!s->has_claim)
		return;
	bad = read_bad();
	uptime_text(s->claim.started, text);
	printf("  up            %s\n", text);
	printf("  launcher pid  %d%s\n  QEMU pid      %d%s\n", s->claim.launcher_pid, claim_launcher_alive(&s->claim) ? "" : " (gone)", s->claim.qemu_pid,
	       claim_qemu_alive(&s->claim) ? "" : " (gone)");
	printf("  vCPUs on      %s\n  memory        %s\n", *cpus ? cpus : "not pinned", format_size(memory_of(&s->claim), text));
	for (size_t i = 0; i < s->claim.n_devices; i++) {
		const char *why = why_bad(&bad, &s->claim.devices[i].addr);
		char bdf[PCI_ADDR_STR];

		printf("  %-13s %s, from %s%s%s\n", s->claim.devices[i].id, pci_addr_format(&s->claim.devices[i].addr, bdf),
		       s->claim.devices[i].from ? s->claim.devices[i].from : "no driver", why ? "; bad: " : "", why ? why : "");
	}
	bad_free(bad.v, bad.n);
	printf("  files         %s\n", s->claim.rundir);
}

static int show_security(const char *name, const struct vm_state *s, bool json)
{
	struct security_facts f = { 0 };
	struct security_report report = { 0 };
	struct err e = { 0 };
	int r = s->has_claim && claim_qemu_alive(&s->claim) ? security_read(s->claim.qemu_pid, s->claim.rundir, &f, &e)
							     : err_set(&e, -ESRCH, "VM '%s' does not run", name);

	if (r < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	security_judge(&f, &report);
	if (json) {
		cmd_print_json(security_to_json(&report));
	} else {
		printf("%s: QEMU has pid %d\n", name, f.pid);
		security_print(&report, stdout);
	}
	security_report_clear(&report);
	security_facts_clear(&f);
	return EXIT_DONE;
}

int cmd_status(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm status [--json] [--security] NAME\n\nEverything about one VM, or how it ended. --security: what its QEMU may do.\n";
	struct cmd_simple o = { .flag = "security", .both_flags = true };
	struct vm_state s = { 0 };
	struct strv defined = { 0 };
	struct err e = { 0 };
	AUTO_FREE char *name = NULL;
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	if (r || o.help)
		return r;
	name = cmd_vm_name(o.name);
	r = list_defined(&defined, &e);
	if (r == 0)
		r = read_state(name, &s, &e);
	add_defined(&s, name, &defined);
	strv_clear(&defined);
	if (r < 0) {
		log_error("%s", e.msg);
		r = EXIT_FAILED;
	} else if (!s.has_claim && !s.has_last && !s.defined) {
		log_error("no VM '%s' has run since the host was started, and there is no definition of it in '%s'", name, launch_config_dir());
		r = EXIT_FAILED;
	} else if (o.flag_set) {
		r = show_security(name, &s, o.json);
	} else if (o.json) {
		cmd_print_json(state_json(name, &s));
	} else {
		print_status(name, &s);
		print_events(name);
	}
	clear_state(&s);
	return r;
}

/* --- stop, kill, wait --------------------------------------------------------------------------------------------- */

/* Wait until the process behind @pidfd has ended: 0; 1 when @timeout_ms (-1: for ever) is over before. */
static int wait_pidfd(int pidfd, int timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int n;

	while ((n = poll(&p, 1, timeout_ms)) < 0)
		if (errno != EINTR)
			return -errno;
	return n == 0;
}

static int open_pidfd(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

static int send_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

/* QEMU without its launcher: be the launcher for the rest of its life. */
static int end_by_ourselves(const char *vm, int sig, uint64_t timeout_ms)
{
	const struct launch_options opt = { 0 };
	struct launch l;
	struct err e = { 0 };
	int r;

	launch_init(&l, &opt);
	r = launch_adopt(&l, vm, &e);
	if (r == 0) {
		if (timeout_ms)
			l.plan.stop_timeout_ms = timeout_ms;
		/* Signals are blocked by now: the loop takes it. */
		raise(sig);
		r = launch_supervise(&l) == LAUNCH_ENDED ? EXIT_DONE : EXIT_FAILED;
	} else {
		log_error("%s", e.msg);
	}
	launch_clear(&l);
	return r < 0 ? EXIT_FAILED : r;
}

/* QEMU cannot be taken over: it does not answer, or its plan is gone. */
static int kill_orphan(const struct claim *dead)
{
	AUTO_FREE char *dir = claim_vm_dir(dead->vm);
	AUTO_CLOSE int lock = -1;
	struct claim c = { 0 };
	struct err e = { 0 };
	int r;

	if (spawn_kill(dead->qemu_pid, dead->qemu_start, &e) < 0) {
		log_error("kill QEMU of '%s': %s", dead->vm, e.msg);
		return EXIT_FAILED;
	}
	/* Another start may have had the lock before: it has given back what was left, and what is claimed by now is its own. */
	lock = claim_lock(&e);
	r = lock < 0 ? lock : claim_read(dir, &c, &e);
	if (r == 0 && c.qemu_pid == dead->qemu_pid && c.qemu_start == dead->qemu_start && !claim_launcher_alive(&c))
		r = claim_recover(&sysfs_live, &c, &e);
	else if (r == 0)
		log_notice("VM '%s' was started anew meanwhile", dead->vm);
	claim_clear(&c);
	if (r < 0 && r != -ENOENT)
		log_error("%s", e.msg);
	return r < 0 && r != -ENOENT ? EXIT_FAILED : EXIT_DONE;
}

/* The power button; with a timeout the plug after it. */
static int end_by_launcher(int pidfd, int sig, uint64_t timeout_ms)
{
	int r = send_signal(pidfd, sig);

	if (r == 0)
		r = wait_pidfd(pidfd, timeout_ms ? (int)timeout_ms : -1);
	if (r == 1) {
		r = send_signal(pidfd, SIGQUIT);
		r = r == 0 || r == -ESRCH ? wait_pidfd(pidfd, -1) : r;
	}
	return r == -ESRCH ? 0 : r;
}

/* Its launcher has ended. What it could not give back is in the claim that it left. @ret_orphan: it was killed before it could end the guest. */
static int check_given_back(const char *vm, bool *ret_orphan)
{
	AUTO_FREE char *dir = claim_vm_dir(vm);
	struct claim c = { 0 };
	struct err e = { 0 };
	int r = claim_read(dir, &c, &e);
	bool left = r == 0 && !claim_alive(&c);

	if (left)
		log_error("VM '%s' has ended, but not everything could be given back; `gpuvm recover %s` tries it once more and says what hinders it", vm, vm);
	else if (r < 0 && r != -ENOENT)
		log_error("%s", e.msg);
	*ret_orphan = r == 0 && claim_alive(&c) && !claim_launcher_alive(&c);
	claim_clear(&c);
	return left || (r < 0 && r != -ENOENT) ? EXIT_FAILED : EXIT_DONE;
}

/* Under the allocation lock. */
static int recover_one(const char *name)
{
	AUTO_FREE char *dir = claim_vm_dir(name);
	struct claim c = { 0 };
	struct err e = { 0 };
	int r = claim_read(dir, &c, &e);

	if (r == -ENOENT)
		return EXIT_DONE;
	if (r == 0 && claim_alive(&c)) {
		log_notice("'%s' is running%s", c.vm, claim_launcher_alive(&c) ? ": nothing to recover" : " without its launcher; `gpuvm start` takes it over");
		claim_clear(&c);
		return EXIT_DONE;
	}
	if (r == 0)
		r = claim_recover(&sysfs_live, &c, &e);
	if (r < 0)
		log_error("%s", e.msg);
	else
		log_notice("'%s': everything was given back", name);
	claim_clear(&c);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

/* Stopping what is stopped is done already; what was killed together with its launcher still holds things. */
static int end_dead(const char *vm, bool has_claim)
{
	AUTO_CLOSE int lock = -1;
	struct err e = { 0 };

	if (!has_claim) {
		log_notice("VM '%s' does not run", vm);
		return EXIT_DONE;
	}
	lock = claim_lock(&e);
	if (lock < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	return recover_one(vm);
}

int cmd_end_vm(const char *name, int sig, uint64_t timeout_ms)
{
	AUTO_FREE char *vm = cmd_vm_name(name);
	AUTO_CLOSE int pidfd = -1;
	struct vm_state s = { 0 };
	struct err e = { 0 };
	bool orphan = false;
	int r = read_state(vm, &s, &e);

	if (r < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	if (!s.alive) {
		r = end_dead(vm, s.has_claim);
	} else if (!claim_launcher_alive(&s.claim)) {
		r = sig == SIGQUIT ? kill_orphan(&s.claim) : end_by_ourselves(vm, sig, timeout_ms);
	} else {
		pidfd = open_pidfd(s.claim.launcher_pid);
		/* The pid may have been given to another process since: the start time says. */
		r = pidfd < 0 ? pidfd : claim_launcher_alive(&s.claim) ? end_by_launcher(pidfd, sig, timeout_ms) : 0;
		if (r < 0 && r != -ESRCH)
			log_error("stop '%s': its launcher (pid %d) cannot be told: %s", vm, s.claim.launcher_pid, strerror(-r));
		r = r < 0 && r != -ESRCH ? EXIT_FAILED : check_given_back(vm, &orphan);
	}
	clear_state(&s);
	return orphan ? cmd_end_vm(name, sig, timeout_ms) : r;
}

int cmd_stop(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm stop [--timeout TIME] NAME\n\nPress the guest's power button and wait until it has ended. After stop-timeout it is\n"
				    "switched off, with --timeout (10s, 5min) no later than that. Devices, CPUs and memory are given back; disks are kept.\n";
	static const struct option options[] = { { "timeout", required_argument, NULL, 't' }, { "help", no_argument, NULL, 'h' }, { 0 } };
	uint64_t timeout_ms = 0;
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return EXIT_DONE;
		}
		if (c != 't')
			return EXIT_USAGE;
		if (parse_duration(optarg, &timeout_ms) < 0 || !timeout_ms || timeout_ms > INT_MAX) {
			fprintf(stderr, "gpuvm stop: --timeout: '%s' is not a time like 10s or 5min\n", optarg);
			return EXIT_USAGE;
		}
	}
	if (optind != argc - 1) {
		fprintf(stderr, "gpuvm stop: %s\n%s", optind < argc ? "too many words" : "which VM?", usage);
		return EXIT_USAGE;
	}
	return cmd_end_vm(argv[optind], SIGTERM, timeout_ms);
}

int cmd_kill(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm kill NAME\n\nEnd QEMU at once, as pulling the plug would, and give everything back.\n";
	struct cmd_simple o = { 0 };
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	return r || o.help ? r : cmd_end_vm(o.name, SIGQUIT, 0);
}

/* For the end of its launcher, or of a QEMU without one; who takes that over is seen next. */
static int wait_for_one(const struct claim *c)
{
	bool launcher = claim_launcher_alive(c);
	AUTO_CLOSE int pidfd = open_pidfd(launcher ? c->launcher_pid : c->qemu_pid);

	if (pidfd < 0)
		return pidfd == -ESRCH ? 0 : pidfd;
	/* The pid may have been given to another process since: the start time says. */
	return (launcher ? claim_launcher_alive(c) : claim_qemu_alive(c)) ? wait_pidfd(pidfd, -1) : 0;
}

int cmd_wait(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm wait NAME\n\nReturn when the VM has ended, with its exit code.\n";
	struct cmd_simple o = { 0 };
	struct vm_state s = { 0 };
	AUTO_FREE char *name = NULL;
	struct err e = { 0 };
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	if (r || o.help)
		return r;
	name = cmd_vm_name(o.name);
	while ((r = read_state(name, &s, &e)) == 0 && s.alive) {
		r = wait_for_one(&s.claim);
		if (r < 0)
			break;
		clear_state(&s);
	}
	if (r < 0) {
		log_error("wait for '%s': %s", name, *e.msg ? e.msg : strerror(-r));
		r = EXIT_FAILED;
	} else if (s.has_claim) {
		log_error("VM '%s' has ended without its launcher, and what it holds is not given back: `gpuvm recover %s`", name, name);
		r = EXIT_FAILED;
	} else if (!s.has_last) {
		log_error("no VM '%s' has run since the host was started", name);
		r = EXIT_FAILED;
	} else {
		r = s.last.exit_code;
	}
	clear_state(&s);
	return r;
}

/* --- recover ----------------------------------------------------------------------------------------------------------- */

int cmd_recover(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm recover [NAME|--all]\n\nGive back what a VM holds whose launcher and QEMU are dead, or (--all, or no NAME) all such\n"
				    "VMs. Safe at any time; every start does the same first.\n";
	struct cmd_simple o = { .flag = "all" };
	struct strv names = { 0 };
	AUTO_CLOSE int lock = -1;
	struct err e = { 0 };
	int r = cmd_parse_simple(argc, argv, usage, false, &o);

	if (r || o.help)
		return r;
	if (o.name && o.flag_set) {
		fprintf(stderr, "gpuvm recover: a NAME or --all?\n%s", usage);
		return EXIT_USAGE;
	}
	lock = claim_lock(&e);
	if (lock < 0 || (!o.name && claim_list(&names, &e) < 0)) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	if (o.name) {
		AUTO_FREE char *name = cmd_vm_name(o.name);

		strv_push(&names, name);
	}
	for (size_t i = 0; i < names.n; i++) {
		int one = recover_one(names.v[i]);

		r = r ? r : one;
	}
	strv_clear(&names);
	return r;
}
