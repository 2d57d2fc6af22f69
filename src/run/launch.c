/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gpuvm/acs.h"
#include "gpuvm/affinity.h"
#include "gpuvm/bad.h"
#include "gpuvm/capture.h"
#include "gpuvm/holders.h"
#include "gpuvm/image.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/probe.h"
#include "gpuvm/reset.h"
#include "gpuvm/seed.h"
#include "gpuvm/trust.h"
#include "gpuvm/verify.h"

#define QMP_TIMEOUT_MS	  30000
#define CONT_TIMEOUT_MS	  120000 /* vfio may map terabytes of memory when the vCPUs first run */
#define MEMLOCK_HEADROOM (UINT64_C(1) << 30)

void launch_init(struct launch *l, const struct launch_options *opt)
{
	*l = (struct launch){ .opt = opt, .sys = sysfs_live, .lock_fd = -1, .listen_fd = -1, .log_fd = -1, .signal_fd = -1 };
	config_init(&l->vm);
	qmp_init(&l->qmp);
	l->child.pidfd = l->child.go_fd = l->child.exec_fd = -1;
	launch_time(l, NULL);
}

#define AUTOGROUP "/proc/self/autogroup"

/* The share of a session of its own, as a daemon has, among the others (sched(7), "The autogroup feature"): there a nice value alone says nothing to them.
 * A kernel without it is as good. */
static void session_nice(int nice)
{
	AUTO_FREE char *text = xasprintf("%d", nice);
	AUTO_CLOSE int fd = getsid(0) == getpid() ? open(AUTOGROUP, O_WRONLY | O_CLOEXEC) : -1;

	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		log_debug("%s: %s", AUTOGROUP, strerror(errno));
}

static int session_nice_now(void)
{
	AUTO_FREE char *text = NULL;
	int nice = 0;

	if (read_text_file(AUTOGROUP, 256, &text) < 0 || sscanf(text, "%*s nice %d", &nice) != 1)
		return 0;
	return nice;
}

/* Does what is forked inherit a negative nice value? */
static int reset_on_fork(bool on)
{
	return sched_setscheduler(0, SCHED_OTHER | (on ? SCHED_RESET_ON_FORK : 0), &(struct sched_param){ 0 });
}

static void hurry_end(struct launch *l)
{
	if (!l->hurries)
		return;
	session_nice(l->session_nice_before);
	if (setpriority(PRIO_PROCESS, 0, l->nice_before) < 0 || reset_on_fork(false) < 0)
		log_warning("%s: nice value %d: %s", l->plan.vm, l->nice_before, strerror(errno));
	l->hurries = false;
}

/* Who has the lock goes before what else the CPUs have to do: all other launches wait for it (priority inversion). Real-time priority would do better,
 * and take the CPU from a guest. It is root's privilege; others are as quick as they are. What it starts meanwhile does not hurry: the hook that a dead
 * launcher owes may leave a daemon behind. */
static void hurry(struct launch *l)
{
	errno = 0;
	l->nice_before = getpriority(PRIO_PROCESS, 0);
	l->hurries = errno == 0 && sched_getscheduler(0) == SCHED_OTHER && setpriority(PRIO_PROCESS, 0, -20) == 0;
	l->session_nice_before = session_nice_now();
	if (l->hurries)
		session_nice(-20);
	if (l->hurries && reset_on_fork(true) < 0)
		hurry_end(l);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void launch_clear(struct launch *l)
{
	qmp_close(&l->qmp);
	launch_forget_pins(l);
	launch_close_fds(l);
	close_fd(&l->listen_fd);
	close_fd(&l->log_fd);
	close_fd(&l->lock_fd);
	hurry_end(l);
	close_fd(&l->signal_fd);
	if (l->busy_fd)
		close_fd(&l->busy_fd);
	plan_clear(&l->plan);
	own_clear(l);
	claim_clear(&l->claim);
	host_use_clear(&l->use);
	strv_clear(&l->below);
	fabric_map_clear(&l->fabric);
	free(l->fabric_manager);
	free(l->no_manager);
	free(l->config);
	topology_clear(&l->host);
	topology_clear(&l->here);
	qemu_info_clear(&l->qemu);
	config_clear(&l->vm);
}

/* --- plan ------------------------------------------------------------------------------------------------- */

const char *launch_state_dir(void)
{
	const char *dir = getenv("GPUVM_STATEDIR");

	return dir && *dir ? dir : "/var/lib/gpuvm";
}

const char *launch_config_dir(void)
{
	const char *dir = getenv("GPUVM_CONFDIR");

	return dir && *dir ? dir : "/etc/gpuvm";
}

static bool same_file(const char *a, const char *b)
{
	AUTO_FREE char *real_a = a ? realpath(a, NULL) : NULL, *real_b = b ? realpath(b, NULL) : NULL;

	return real_a && real_b && strcmp(real_a, real_b) == 0;
}

/* A VM that runs already: the one problem that needs no planning. One of this definition whose launcher has died is taken over. */
static int check_not_running(struct launch *l, const char *dir, struct problems *ps, struct err *e)
{
	struct claim c = { 0 };
	int r = claim_read(dir, &c, e);
	struct problem *p = NULL;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	/* Our own claim holds the name between a crash and the restart. */
	if (claim_launcher_alive(&c) && c.launcher_pid == getpid())
		p = NULL;
	else if (claim_launcher_alive(&c))
		p = problems_add(ps, PROBLEM_BUSY, "vm-running", "VM '%s' is running already: its launcher has pid %d", c.vm, c.launcher_pid);
	else if (claim_alive(&c) && same_file(c.definition, l->opt->definition))
		r = adopt_claim(l, &c, e);
	else if (claim_alive(&c))
		p = problems_add(ps, PROBLEM_BUSY, "vm-running",
				 "VM '%s' is running already, without its launcher and from another definition, '%s': QEMU has pid %d", c.vm,
				 c.definition ? c.definition : "?", c.qemu_pid);
	if (p)
		problem_hint(p, "`gpuvm status %s` shows it, `gpuvm stop %s` ends it", c.vm, c.vm);
	claim_clear(&c);
	return p ? -EINVAL : r;
}

/* A definition that is wrong by now is no reason to leave its VM alone: the claims tell which one it is. */
static int adopt_despite(struct launch *l, const struct problems *ps, struct err *e)
{
	struct strv names = { 0 };
	int r = 0;

	l->lock_fd = claim_lock(e);
	if (l->lock_fd < 0)
		return l->lock_fd;
	if (claim_list(&names, e) < 0)
		return -EIO;
	for (size_t i = 0; i < names.n && !l->adopted && r == 0; i++) {
		AUTO_FREE char *dir = claim_vm_dir(names.v[i]);
		struct claim c = { 0 };

		if (claim_read(dir, &c, e) == 0 && !claim_launcher_alive(&c) && claim_alive(&c) && same_file(c.definition, l->opt->definition))
			r = adopt_claim(l, &c, e);
		claim_clear(&c);
	}
	strv_clear(&names);
	close_fd(&l->lock_fd);
	for (size_t i = 0; i < ps->n && l->adopted; i++)
		log_warning("%s: the definition is wrong by now: %s", l->plan.vm, ps->v[i].message);
	return r;
}

static int probe_binary(struct launch *l, struct problems *ps)
{
	const char *binary = l->opt->qemu ? l->opt->qemu : l->vm.qemu_binary;
	AUTO_FREE char *cache = xasprintf("%s/qemu", launch_state_dir());
	const struct qemu_probe probe = { .binary = binary, .env = &l->vm.qemu_env, .cache_dir = cache, .read_only = l->opt->dry_run };
	struct err e = { 0 };
	int r = l->opt->qemu_answers ? probe_qemu_recorded(l->opt->qemu_answers, binary, &l->qemu, &e) : probe_qemu(&probe, &l->qemu, &e);
	struct problem *p;

	if (r == 0 && qemu_at_least(&l->qemu, 7, 2))
		return 0;
	if (r == 0)
		err_set(&e, -ENOTSUP, "QEMU %d.%d.%d is too old: 7.2 is the first that has all that is needed", l->qemu.major, l->qemu.minor, l->qemu.micro);
	p = problems_add(ps, PROBLEM_HOST, "qemu-missing", "%s", e.msg);
	problem_hint(p, "install QEMU (Debian: qemu-system-x86), or name the program with --qemu or [qemu] binary");
	return -EINVAL;
}

/* Root does what these say: nobody else may write to them. What is not there, or cannot be looked at, is told in its place. */
static int check_trust(const struct launch *l, const char *path, struct problems *ps)
{
	struct err e = { 0 };

	if (l->opt->dry_run || geteuid() != 0 || !path || trust_check(path, &e) != -EPERM)
		return 0;
	problems_add(ps, PROBLEM_CONFIG, "file-not-trusted", "%s", e.msg);
	return -EINVAL;
}

static int check_trusted_files(const struct launch *l, struct problems *ps)
{
	const char *const files[] = { l->vm.hook_pre_bind, l->vm.hook_post_start, l->vm.hook_post_stop, l->opt->qemu ? l->opt->qemu : l->vm.qemu_binary,
				      l->vm.fabric_manager, "/etc/gpuvm/fabric.conf", launch_state_dir() };
	int r = 0;

	/* What is only a name is looked for in PATH, which is root's. */
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (files[i] && strchr(files[i], '/') && check_trust(l, files[i], ps) < 0)
			r = -EINVAL;
	return r;
}

static bool is_foreign(const struct launch *l)
{
	return l->opt->sysroot || l->opt->topology_xml;
}

/* Another machine's VM, with stand-ins, on this one. */
static bool runs_foreign(const struct launch *l)
{
	return is_foreign(l) && l->opt->fake_devices;
}

static char *find_strace(struct launch *l, struct problems *ps)
{
	char *path = l->opt->strace ? spawn_find_program("strace") : NULL;

	if (l->opt->strace && !path)
		problem_hint(problems_add(ps, PROBLEM_HOST, "strace-missing", "--strace: there is no strace in PATH"), "install the package strace");
	return path;
}

static int make_plan(struct launch *l, struct problems *ps)
{
	AUTO_FREE char *dir = claim_vm_dir(l->vm.name), *strace = find_strace(l, ps);
	int r;
	AUTO_FREE char *seed_tool = seed_find_tool(), *swtpm = spawn_find_program("swtpm");
	struct plan_request req = { .vm = &l->vm,
				    .host = &l->host,
				    .use = is_foreign(l) || l->opt->ignore_use ? NULL : &l->use,
				    .fabric = &l->fabric,
				    .fabric_manager = l->fabric_manager,
				    .no_manager = l->no_manager,
				    .config = l->config,
				    .qemu = &l->qemu,
				    .rundir = dir,
				    .statedir = launch_state_dir(),
				    .fake_devices = l->opt->fake_devices,
				    .seed_tool = seed_tool,
				    .swtpm = swtpm,
				    .gdb = l->opt->gdb,
				    .trace = &l->opt->trace,
				    .strace = strace,
				    .strace_file = l->opt->strace_file,
				    .user = &l->user,
				    .foreign_host = is_foreign(l),
				    .here = runs_foreign(l) ? &l->here : NULL };

	r = plan_make(&req, &l->plan, ps);
	/* There may be a plan, but not for a QEMU that cannot be run as asked. */
	return r == 0 && ps->n ? -EINVAL : r;
}

/* The host, and what its operator wrote down of the fabric. An XML has no files beside it; a tar is unpacked for as long
 * as it is read. */
static int read_machine(struct launch *l, struct problems *ps, struct err *e)
{
	const char *root = l->opt->sysroot ? l->opt->sysroot : "";
	/* A dry run shows the machine, too. */
	bool lean = !l->opt->dry_run && !l->vm.n_devices && !l->vm.place_present;
	char *unpacked = NULL;
	int r;

	if (l->opt->topology_xml)
		return probe_topology_xml(l->opt->topology_xml, &l->host, e);
	r = capture_resolve(root, &unpacked, e);
	if (r == 0)
		r = (lean ? probe_host_lean : probe_host)(unpacked ? unpacked : root, &l->host, e);
	if (r == 0 && l->vm.acs == CONF_ACS_DIRECT && !l->opt->fake_devices)
		l->config = acs_read(unpacked ? unpacked : root, &l->host);
	if (r == 0 && unpacked)
		snprintf(l->host.root, sizeof(l->host.root), "%s", root);
	if (r == 0 && fabric_map_load(unpacked ? unpacked : root, &l->fabric, ps) == 0)
		fabric_map_apply(&l->fabric, &l->host);
	capture_remove(unpacked);
	return r;
}

int launch_look(struct launch *l, struct problems *ps, struct err *e)
{
	int r = is_foreign(l) ? 0 : claim_collect_use(l->opt->dry_run ? NULL : &l->sys, l->vm.name, &l->use, e);

	/* Claims are root's. */
	if (r == -EACCES && l->opt->dry_run) {
		log_warning("%s: planned as if no other VM ran, as what they hold may not be read: %s", l->vm.name, e->msg);
		r = 0;
	}
	launch_time(l, "look at other VMs");
	if (r == 0)
		r = read_machine(l, ps, e);
	launch_time(l, "read the host");
	if (r == 0 && l->opt->ignore_use)
		host_use_free_memory(&l->use, &l->host);
	if (r == 0 && !is_foreign(l))
		r = bad_apply(launch_state_dir(), l->opt->dry_run, &l->host, e);
	if (r == 0 && runs_foreign(l))
		r = probe_host("", &l->here, e);
	if (r == 0)
		launch_consult_fabric(l, ps);
	launch_time(l, "ask Fabric Manager");
	if (r == 0)
		r = probe_binary(l, ps);
	launch_time(l, "ask QEMU");
	return r;
}

/* What the last run holds still would be forgotten with its claim. */
static int check_undone(const struct launch *l, const char *dir, struct problems *ps, struct err *e)
{
	struct claim c = { 0 };
	int r = claim_read(dir, &c, e);
	bool other = r == 0 && c.launcher_pid != getpid();

	if (other)
		problem_hint(problems_add(ps, PROBLEM_BUSY, "recover-failed", "the last run of VM '%s' could not be undone: %s", l->vm.name, c.reason),
			     "cure what it says, then `gpuvm recover %s`", l->vm.name);
	claim_clear(&c);
	return other ? -EINVAL : r == -ENOENT ? 0 : r;
}

int launch_plan(struct launch *l, struct problems *ps, struct err *e)
{
	const char *text = l->opt->text;
	AUTO_FREE char *dir = NULL;
	bool here;
	int r;

	config_clear(&l->vm); /* the defaults of launch_init() */
	r = text ? config_parse(NULL, text, strlen(text), &l->opt->sets, &l->vm, ps) : check_trust(l, l->opt->definition, ps);
	if (r == 0 && !text)
		r = config_load(l->opt->definition, &l->opt->sets, &l->vm, ps);
	if (r == 0)
		r = check_trusted_files(l, ps);
	if (r < 0 && !l->opt->dry_run) {
		int adopted = adopt_despite(l, ps, e);

		if (l->adopted)
			problems_clear(ps);
		return adopted < 0 || l->adopted ? adopted : r;
	}
	if (r < 0)
		return r;
	launch_time(l, "read the definition");
	dir = claim_vm_dir(l->vm.name);
	/* Claims first, then the machine: a VM that ends in between has given its devices back before its claim went, so a
	 * device without a claim is seen with its own driver and not with the vfio-pci that it had a moment ago. */
	if (!l->opt->dry_run) {
		l->lock_fd = claim_lock(e);
		if (l->lock_fd < 0)
			return l->lock_fd;
		hurry(l);
		launch_time(l, "wait for the lock");
		r = check_not_running(l, dir, ps, e);
		if (l->adopted) {
			close_fd(&l->lock_fd);
			hurry_end(l);
		}
		if (r < 0 || l->adopted)
			return r;
	}
	r = launch_look(l, ps, e);
	if (r == 0 && !l->opt->dry_run)
		r = check_undone(l, dir, ps, e);
	if (r < 0)
		return r;
	/* A dry run of another machine's VM names that machine's files; one that runs here needs them here. */
	here = !is_foreign(l) || (runs_foreign(l) && !l->opt->dry_run);
	if (here)
		launch_check_files(l, ps);
	if (here && !ps->n)
		r = own_choose(l, ps, e);
	if (r == 0)
		r = ps->n ? -EINVAL : make_plan(l, ps);
	if (r == 0 && here) {
		launch_check_locks(l, ps);
		if (!ps->n)
			own_check(l, ps);
	}
	if (r == 0)
		launch_isolate(l, ps);
	launch_time(l, "plan");
	return r == 0 && ps->n ? -EINVAL : r;
}

/* --- stages ------------------------------------------------------------------------------------------------- */

static int note_state(struct launch *l, const char *state, struct err *e)
{
	snprintf(l->claim.state, sizeof(l->claim.state), "%s", state);
	return claim_write(&l->claim, e);
}

static int write_text(const char *dir, const char *file, const char *text, unsigned int mode, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, file);
	int r = write_file_atomic(path, text, strlen(text), mode);

	return r < 0 ? err_sys(e, r, "write '%s'", path) : 0;
}

/* The command and the plan beside the claim: what runs can always be read and run again. */
static int write_plan_files(struct launch *l, struct err *e)
{
	AUTO_FREE char *command = NULL;
	struct json_object *o = plan_to_json(&l->plan);
	size_t len = 0;
	FILE *f = open_memstream(&command, &len);
	int r;

	plan_print_command(&l->plan, PLAN_SCRIPT, false, f);
	fclose(f);
	r = write_text(l->plan.rundir, "plan.json", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE),
		       0600, e);
	json_object_put(o);
	if (r == 0)
		r = write_text(l->plan.rundir, "command", command, 0700, e);
	return r < 0 ? r : launch_write_guest_files(l, e);
}

static int run_claim(struct launch *l, struct err *e)
{
	int r;

	if (mkdir(l->plan.rundir, 0700) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "create '%s'", l->plan.rundir);
	r = logs_begin(l->plan.rundir, e);
	if (r < 0)
		return r;
	claim_from_plan(&l->plan, l->opt->definition, &l->claim);
	r = write_plan_files(l, e);
	if (r == 0)
		r = claim_write(&l->claim, e);
	l->claimed = r == 0;
	/* From here on other launches see what this one holds. */
	close_fd(&l->lock_fd);
	hurry_end(l);
	return r;
}

static int undo_claim(struct launch *l, int exit_code, struct err *e)
{
	if (!l->claimed)
		return 0;
	snprintf(l->claim.state, sizeof(l->claim.state), "%s", exit_code ? "failed" : "stopped");
	free(l->claim.reason);
	l->claim.reason = xstrdup(l->reason);
	l->claimed = false;
	/* Those that could not be put back: `gpuvm recover` goes on from the claim. */
	if (l->claim.n_registers || l->claim.n_owned || l->claim.cgroup)
		return claim_write(&l->claim, e);
	return claim_release(&l->claim, exit_code, e);
}

static int run_vfio(struct launch *l, struct err *e)
{
	return l->claim.n_devices ? bind_load_vfio(&l->sys, e) : 0;
}

/* What a worker of an earlier life may still be doing to them must have ended. */
int launch_take_devices(struct launch *l, bool create, struct err *e)
{
	int fd = l->busy_fd ? l->busy_fd : claim_busy(l->plan.rundir, create, BUSY_TIMEOUT_MS, e);

	if (fd < 0)
		return fd;
	l->busy_fd = l->sys.busy_fd = fd;
	return 0;
}

static int run_bind(struct launch *l, struct err *e)
{
	AUTO_FREE struct bind_op *ops = claim_bind_ops(&l->claim);
	int r;

	if (!l->claim.n_devices)
		return 0;
	r = launch_take_devices(l, true, e);
	if (r < 0)
		return r;
	l->claim.bound = true;
	r = claim_write(&l->claim, e);
	if (r == 0)
		r = bind_devices(&l->sys, ops, l->claim.n_devices, e);
	if (r == 0)
		r = bind_check_groups(&l->sys, ops, l->claim.n_devices, e);
	return r;
}

/* --- who has the devices, and do they answer -------------------------------------------------------------- */

static bool is_forced(const struct launch *l, const struct claim_device *d)
{
	for (size_t i = 0; i < l->plan.n_devices; i++)
		if (pci_addr_cmp(&l->plan.devices[i].addr, &d->addr) == 0)
			return l->plan.devices[i].options && l->plan.devices[i].options->force;
	return false;
}

static void on_holders(void *ctx, const struct holder *v, size_t n, uint64_t waited_ms)
{
	const struct launch *l = ctx;
	AUTO_FREE char *text = holders_text(v, n);

	if (waited_ms == 0)
		log_notice("%s: waiting until it is free: %s", l->plan.vm, text);
	log_progress("waiting for %zu processes, %" PRIu64 " s", n, waited_ms / 1000);
}

/* The kernel would wait for ever for those who have a device open, or take it from under them. */
static int run_holders(struct launch *l, struct err *e)
{
	AUTO_FREE struct pci_addr *v = xcalloc(l->claim.n_devices + 1, sizeof(*v));
	const struct holders_wait wait = {
		.timeout_ms = (unsigned int)l->plan.busy_timeout_ms, .cancel_fd = l->signal_fd, .progress = on_holders, .ctx = l
	};
	struct holder *left = NULL;
	size_t n = 0, n_left = 0;
	int r;

	/* What its owner has said to take all the same is not asked for. */
	for (size_t i = 0; i < l->claim.n_devices; i++)
		if (!is_forced(l, &l->claim.devices[i]))
			v[n++] = l->claim.devices[i].addr;
	if (!n)
		return 0;
	r = holders_wait(&l->sys, v, n, &wait, &left, &n_left, e);
	log_progress_end();
	holders_free(left, n_left);
	if (r == 1)
		log_warning("%s: who uses the devices is not known for all: %s", l->plan.vm, e->msg);
	return r < 0 ? r : 0;
}

/* Those that were not taken yet, or are back, are the host's. */
static size_t list_taken(const struct sysfs *s, const struct claim *c, struct pci_addr *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_devices; i++) {
		AUTO_FREE char *driver = bind_current_driver(s, &c->devices[i].addr);

		if (driver && strcmp(driver, c->devices[i].to) == 0)
			ret[n++] = c->devices[i].addr;
	}
	return n;
}

int launch_reset_functions(const struct sysfs *s, const char *vm, const struct pci_addr *v, size_t n, struct err *e)
{
	AUTO_FREE struct reset_result *res = xcalloc(n + 1, sizeof(*res));
	int bad = 0, r = reset_devices(s, v, n, res, e);

	for (size_t i = 0; i < n; i++) {
		struct err why = { 0 };
		char bdf[PCI_ADDR_STR];

		log_info("%s: reset %s (%s): %s", vm, pci_addr_format(&v[i], bdf), res[i].method, reset_outcome_word(res[i].outcome));
		if (!reset_is_bad(res[i].outcome)) {
			if (res[i].err.code)
				log_warning("%s: %s", vm, res[i].err.msg);
			continue;
		}
		bad++;
		if (bad_mark(launch_state_dir(), s, &v[i], res[i].err.msg, vm, "reset", &why) < 0)
			log_error("%s: %s", vm, why.msg);
	}
	return bad ? r : 0;
}

int launch_reset(const struct sysfs *s, const struct claim *c, struct err *e)
{
	AUTO_FREE struct pci_addr *v = xcalloc(c->n_devices + 1, sizeof(*v));

	return launch_reset_functions(s, c->vm, v, list_taken(s, c, v), e);
}

/* QEMU resets them once more, but starts with a dead one, too. */
static int run_reset(struct launch *l, struct err *e)
{
	AUTO_FREE struct pci_addr *v = xcalloc(l->claim.n_devices + 1, sizeof(*v));
	size_t n = list_taken(&l->sys, &l->claim, v);

	return launch_reset_functions(&l->sys, l->plan.vm, v, launch_spare_partition(l, v, n), e);
}

/* What the guest has left in them stays with nobody; a dead one is marked, and no reason to keep the others. */
static int undo_reset(struct launch *l, int exit_code, struct err *e)
{
	(void)exit_code;
	if (l->claim.bound && launch_reset(&l->sys, &l->claim, e) < 0)
		log_error("%s: %s", l->plan.vm, e->msg);
	return 0;
}

static int undo_bind(struct launch *l, int exit_code, struct err *e)
{
	AUTO_FREE struct bind_op *ops = NULL;
	int r;

	(void)exit_code;
	if (!l->claim.bound)
		return 0;
	r = launch_take_devices(l, false, e);
	if (r < 0)
		return r;
	ops = claim_bind_ops(&l->claim);
	r = bind_restore(&l->sys, ops, l->claim.n_devices, e);
	if (r == 0)
		l->claim.bound = false;
	return r;
}

static int open_for_qemu(const struct plan_open *o, struct err *e)
{
	int fd = o->key ? open(o->path, O_RDWR | O_CLOEXEC) : qmp_listen(o->path, e);

	return fd < 0 && o->key ? err_sys(e, -errno, "open '%s'", o->path) : fd;
}

static int open_sockets(struct launch *l, struct err *e)
{
	AUTO_FREE char *control = xasprintf("%s/control.sock", l->plan.rundir), *log = xasprintf("%s/qemu.log", l->plan.rundir);

	l->listen_fd = qmp_listen(control, e);
	if (l->listen_fd < 0)
		return l->listen_fd;
	l->fds.opens = xcalloc(l->plan.n_opens + 1, sizeof(*l->fds.opens));
	for (size_t i = 0; i < l->plan.n_opens; i++)
		l->fds.opens[i] = -1;
	for (size_t i = 0; i < l->plan.n_opens; i++) {
		int fd = open_for_qemu(&l->plan.opens[i], e);

		if (fd < 0)
			return fd;
		l->fds.opens[i] = fd;
	}
	l->log_fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return l->log_fd < 0 ? err_sys(e, -errno, "create '%s'", log) : 0;
}

/* QEMU's own memory and its preallocation stay on the VM's nodes from the first instruction. */
static int run_spawn(struct launch *l, struct err *e)
{
	struct strv argv = { 0 };
	struct cpuset cpus = { 0 }, nodes = { 0 };
	struct spawn_options o = { .argv = &argv,
				   .env = &l->plan.env,
				   .inherit_stdin = l->plan.serial_stdio,
				   .identity = l->user.set ? &l->identity : NULL,
				   .die_with_parent = l->plan.on_launcher_death == DEATH_STOP };
	AUTO_FREE int *keep = NULL;
	int r = open_sockets(l, e);

	if (r < 0)
		return r;
	l->fds.control = l->listen_fd;
	for (size_t i = 0; i < l->plan.n_nodes && !l->plan.foreign_host; i++) {
		cpuset_or(&cpus, &l->plan.nodes[i].prealloc_cpus);
		cpuset_add(&nodes, l->plan.nodes[i].host_node);
	}
	cpuset_or(&cpus, &l->plan.emulator);
	o.cpus = cpuset_empty(&cpus) || l->plan.foreign_host ? NULL : &cpus;
	o.mem_nodes = cpuset_empty(&nodes) ? NULL : &nodes;
	o.stderr_fd = l->plan.serial_stdio ? -1 : l->log_fd;
	keep = launch_fds(l, &o.n_keep_fds);
	o.keep_fds = keep;
	/* VFIO pins all of the guest's memory, charged once (type1, one container); iommufd charges the device's BARs, too. */
	o.memlock_bytes = l->plan.mem_lock ? UINT64_MAX : l->claim.n_devices ? plan_pinned_bytes(&l->plan) + MEMLOCK_HEADROOM : 0;
	if (l->vm.memlock_bytes) {
		o.memlock_bytes = l->vm.memlock_bytes;
		o.memlock_exact = true;
	}
	plan_argv(&l->plan, &l->fds, &argv);
	l->has_tty = l->plan.serial_stdio && tcgetattr(STDIN_FILENO, &l->tty) == 0;
	r = spawn_prepare(&o, &l->child, e);
	if (r == 0) {
		l->claim.qemu_pid = l->child.pid;
		l->claim.qemu_start = process_start_time(l->child.pid);
		limits_name(l);
		r = claim_write(&l->claim, e);
	}
	if (r == 0)
		limits_set(l, &argv);
	if (r == 0)
		r = spawn_go(&l->child, e);
	strv_clear(&argv);
	close_fd(&l->listen_fd);
	/* QEMU alone has the taps now: they go when it goes. */
	launch_close_fds(l);
	return r;
}

static int undo_spawn(struct launch *l, int exit_code, struct err *e)
{
	int pid = l->child.pid, r;

	(void)exit_code;
	qmp_close(&l->qmp);
	r = spawn_abort(&l->child);
	/* QEMU does it when it ends by itself. From the background it would stop us. */
	if (l->has_tty && tcgetpgrp(STDIN_FILENO) == getpgrp())
		tcsetattr(STDIN_FILENO, TCSANOW, &l->tty);
	l->has_tty = false;
	close_fd(&l->listen_fd);
	/* In the kernel, for ever: all that it has is still its. */
	if (r < 0)
		return err_set(e, r, "QEMU (pid %d) does not end, although it was killed", pid);
	return limits_remove(&l->claim, e);
}

/* A stop that is asked for while QEMU prepares memory: end QEMU, and the handshake sees it. */
static void on_handshake_wait(void *ctx)
{
	struct launch *l = ctx;
	struct signalfd_siginfo si;

	while (l->signal_fd >= 0 && read(l->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			continue; /* pinning comes anyway */
		l->asked_to_stop = true;
		log_notice("%s: stopped by signal %u while starting", l->plan.vm, si.ssi_signo);
		kill(l->child.pid, SIGKILL);
	}
	launch_progress(l);
}

static int run_qmp(struct launch *l, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/control.sock", l->plan.rundir), *tail = NULL;
	int r = qmp_connect(path, l->child.pidfd, &l->qmp, e), status;
	char text[96];

	l->qmp.ahead = "query-cpus-fast"; /* launch_pin() */
	if (r == 0)
		r = qmp_handshake(&l->qmp, l->plan.ready_timeout_ms, on_handshake_wait, l, e);
	log_progress_end();
	if (r == 0) {
		for (size_t i = 0; i < l->claim.n_memory; i++)
			l->claim.memory[i].allocated = true;
		return claim_write(&l->claim, e);
	}
	if (l->asked_to_stop)
		return err_set(e, -EINTR, "stopped by a signal before the guest ran");
	tail = launch_log_tail(l, 5);
	if (r == -ESRCH && waitpid(l->child.pid, &status, WNOHANG) == l->child.pid) {
		err_set(e, r, "QEMU ended at once: %s%s%s%s", spawn_status_text(status, text), launch_oom_text(l, status), *tail ? "; its last words:\n" : "",
			tail);
		if (!own_explain(l, tail, e))
			launch_explain_memory(l, tail, e);
	} else if (*tail) {
		AUTO_FREE char *why = xstrdup(e->msg);

		err_set(e, r, "%s; the last lines of qemu.log:\n%s", why, tail);
	}
	return r;
}

/* --- run ----------------------------------------------------------------------------------------------------- */

/* @rep is cleared; the first thing that is not as planned is the error. */
static int judge(struct verify_report *rep, int r, struct err *e)
{
	if (r == 0 && rep->n_bad) {
		const struct verify_row *bad = verify_first_bad(rep);

		r = err_set(e, -EXDEV, "%s: planned %s, found %s", bad->what, bad->planned, bad->actual);
	}
	verify_clear(rep);
	return r;
}

int launch_check_pages(struct launch *l, struct err *e)
{
	struct verify_report rep = { 0 };

	return l->plan.foreign_host ? 0 : judge(&rep, verify_memory(&l->plan, l->child.pid, &rep, e), e);
}

/* What is preallocated, or pinned for devices, is there before QEMU answers. The rest comes when the guest uses it: launch_look_at_pages(). This stage is before launch_pin(), as
 * the answer to what that asks is on its way. */
static int run_check_pages(struct launch *l, struct err *e)
{
	l->seen_pages = plan_preallocates(&l->plan) || (l->plan.n_devices && !l->plan.fake_devices);
	return l->seen_pages ? launch_check_pages(l, e) : 0;
}

void launch_look_at_pages(struct launch *l)
{
	struct err e = { 0 };
	int r = l->seen_pages ? 0 : launch_check_pages(l, &e);

	l->seen_pages = true;
	/* That QEMU is about to end is seen in its place. */
	if (r == 0 || r == -ESRCH)
		return;
	log_warning("%s: not as planned: %s", l->plan.vm, e.msg);
	launch_note(l, "not as planned", e.msg);
}

int launch_check(struct launch *l, struct err *e)
{
	AUTO_FREE pid_t *vcpus = launch_vcpu_threads(l);
	struct verify_report rep = { 0 };
	int r;

	if (l->plan.foreign_host)
		return 0;
	r = verify_threads(&l->plan, l->child.pid, &l->qmp, vcpus, &rep, e);
	if (r == 0)
		verify_acs(&l->plan, &l->sys, &rep);
	r = judge(&rep, r, e);
	if (r == 0)
		launch_check_ats(l);
	return r;
}

static int run_cont(struct launch *l, struct err *e)
{
	int r = qmp_command(&l->qmp, "cont", NULL, CONT_TIMEOUT_MS, NULL, e);

	if (r < 0)
		return r;
	l->state = life_next(LIFE_STARTING, EV_STARTED).next;
	/* Threads that `cont` made (vhost, workers) have inherited the main thread's CPUs; look anyway. QEMU is not asked again: a guest keeps it waiting. */
	r = launch_settle(l, e);
	if (r == 0)
		r = note_state(l, "running", e);
	if (r == 0)
		launch_note(l, "started", NULL);
	return r;
}

struct stage {
	const char *name;
	int (*run)(struct launch *l, struct err *e);
	int (*undo)(struct launch *l, int exit_code, struct err *e);
};

static const struct stage stages[] = {
	{ "claim", run_claim, undo_claim }, { "pre-bind hook", hooks_pre_bind, hooks_post_stop }, { "free devices", run_holders, NULL }, { "load vfio", run_vfio, NULL },
	{ "fabric", launch_partition, launch_unpartition }, { "bind", run_bind, undo_bind }, { "reset", run_reset, undo_reset }, { "acs", launch_acs, launch_unacs }, { "prepare", launch_prepare, launch_unprepare },
	{ "hand over", own_hand_over, own_take_back }, { "start TPM", launch_start_tpm, launch_stop_tpm },
	{ "check memory", launch_check_memory, NULL }, { "start QEMU", run_spawn, undo_spawn }, { "connect", run_qmp, NULL },
	{ "verify memory", run_check_pages, NULL }, { "pin", launch_pin, launch_unpin },
	{ "verify", launch_check, NULL }, { "run", run_cont, NULL },
};

int launch_undo(struct launch *l, int exit_code)
{
	int bad = 0;

	for (size_t i = ARRAY_SIZE(stages); i-- > 0;) {
		struct err e = { 0 };

		if (!stages[i].undo)
			continue;
		log_info("%s: undo %s", l->plan.vm, stages[i].name);
		if (stages[i].undo(l, exit_code, &e) == 0)
			continue;
		log_error("undo '%s': %s", stages[i].name, e.msg);
		bad++;
		/* The claim stays while something is not given back: `gpuvm recover` continues from it. */
		if (stages[i].undo == undo_bind || stages[i].undo == launch_unpartition || (stages[i].undo == undo_spawn && e.code == -ETIMEDOUT))
			return bad;
	}
	return bad;
}

static int block_signals(struct launch *l, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(e, -errno, "block signals");
	l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return l->signal_fd < 0 ? err_sys(e, -errno, "signalfd") : 0;
}

int launch_exit_code(const struct err *e)
{
	return e->word && (strcmp(e->word, "device-busy") == 0 || strcmp(e->word, "partition-busy") == 0) ? LAUNCH_IN_USE : LAUNCH_FAILED;
}

/* Run the stages from @first on; if one fails, all is undone. */
static int run_stages(struct launch *l, size_t first, struct err *e)
{
	int r;

	for (size_t i = first; i < ARRAY_SIZE(stages); i++) {
		log_info("%s: %s", l->plan.vm, stages[i].name);
		r = stages[i].run(l, e);
		launch_time(l, stages[i].name);
		if (r == 0)
			continue;
		err_wrap(e, "%s", stages[i].name);
		snprintf(l->reason, sizeof(l->reason), "start failed: %s", e->msg);
		l->failed = true;
		launch_note(l, "start failed", e->msg);
		launch_undo(l, launch_exit_code(e));
		return r;
	}
	hooks_post_start(l);
	launch_time(l, "post-start hook");
	launch_log_times(l);
	return 0;
}

/* The first stage after QEMU has answered. */
static size_t stage_after_connect(void)
{
	size_t i = 0;

	while (stages[i].run != run_qmp)
		i++;
	return i + 1;
}

/* A guest that runs is left alone whatever fails here; one that has not run yet is started on from where its launcher died. */
static int run_adoption(struct launch *l, struct err *e)
{
	int r = adopt_connect(l, e);

	if (r < 0)
		return err_wrap(e, "take over '%s'", l->plan.vm);
	return l->state == LIFE_STARTING ? run_stages(l, stage_after_connect(), e) : adopt_running(l, e);
}

int launch_start(struct launch *l, struct err *e)
{
	int r = block_signals(l, e);

	if (r == 0)
		r = l->adopted ? run_adoption(l, e) : run_stages(l, 0, e);
	if (r == 0 && l->opt->ready)
		l->opt->ready(l->opt->ready_ctx);
	return r;
}
