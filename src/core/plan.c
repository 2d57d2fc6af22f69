/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "plan_priv.h"

static void note_add(struct plan_note **v, size_t *n, const char *code, const char *what, const char *fmt, va_list ap)
	__attribute__((format(printf, 5, 0)));
static void note_add(struct plan_note **v, size_t *n, const char *code, const char *what, const char *fmt, va_list ap)
{
	struct plan_note *note = PUSH_ZEROED(*v, *n);

	note->code = code;
	note->what = what ? xstrdup(what) : NULL;
	if (vasprintf(&note->text, fmt, ap) < 0)
		abort();
}

void plan_warn(struct plan *p, const char *code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	note_add(&p->warnings, &p->n_warnings, code, NULL, fmt, ap);
	va_end(ap);
}

void plan_reason(struct plan *p, const char *what, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	note_add(&p->reasons, &p->n_reasons, NULL, what, fmt, ap);
	va_end(ap);
}

void plan_prepare(struct plan *p, const char *why, const char *fmt, ...)
{
	struct plan_prepare *one = PUSH_ZEROED(p->prepares, p->n_prepares);
	va_list ap;

	one->why = xstrdup(why);
	va_start(ap, fmt);
	if (vasprintf(&one->command, fmt, ap) < 0)
		abort();
	va_end(ap);
}

void host_use_clear(struct host_use *u)
{
	free(u->devices);
	free(u->cpus);
	free(u->memory);
	free(u->fabrics);
	free(u->taps);
	free(u->registers);
	free(u->vsocks);
	*u = (struct host_use){ 0 };
}

void host_use_free_memory(const struct host_use *u, struct topology *t)
{
	for (size_t i = 0; i < u->n_memory; i++) {
		const struct used_memory *m = &u->memory[i];
		int node = m->allocated ? topology_find_node(t, m->host_node) : -1;
		struct host_node *h = node < 0 ? NULL : &t->nodes[node];

		for (size_t k = 0; h && k < h->n_pools; k++)
			if (h->pools[k].page_bytes == m->page_bytes)
				h->pools[k].free += m->bytes / m->page_bytes;
	}
}

static void add_fabric(struct host_use *u, const struct plan *p, int pid)
{
	struct used_fabric *f;

	if (p->fabric.mode == FABRIC_NONE)
		return;
	f = PUSH_ZEROED(u->fabrics, u->n_fabrics);
	f->mode = p->fabric.mode;
	f->partition = p->fabric.partition;
	f->pid = pid;
	snprintf(f->vm, sizeof(f->vm), "%s", p->vm);
}

void host_use_add(struct host_use *u, const struct plan *p, int pid)
{
	struct used_cpus *cpus = PUSH_ZEROED(u->cpus, u->n_cpus);

	add_fabric(u, p, pid);
	for (size_t i = 0; i < p->n_devices; i++) {
		struct used_device *d = PUSH_ZEROED(u->devices, u->n_devices);

		d->addr = p->devices[i].addr;
		d->pid = pid;
		snprintf(d->vm, sizeof(d->vm), "%s", p->vm);
	}
	cpus->pid = pid;
	snprintf(cpus->vm, sizeof(cpus->vm), "%s", p->vm);
	for (size_t i = 0; i < p->n_vcpus; i++)
		cpuset_add(&cpus->cpus, p->vcpus[i].host_cpu);
	for (size_t i = 0; i < p->n_acs; i++) {
		struct used_register *v = PUSH_ZEROED(u->registers, u->n_registers);

		*v = (struct used_register){ .addr = p->acs[i].addr, .offset = p->acs[i].offset, .from = p->acs[i].from, .to = p->acs[i].to };
		snprintf(v->vm, sizeof(v->vm), "%s", p->vm);
	}
	for (size_t i = 0; i < p->n_nodes; i++) {
		struct used_memory *m = PUSH_ZEROED(u->memory, u->n_memory);

		m->host_node = p->nodes[i].host_node;
		m->bytes = p->nodes[i].memory_bytes;
		m->page_bytes = p->nodes[i].page_bytes;
		snprintf(m->vm, sizeof(m->vm), "%s", p->vm);
	}
}

const struct used_device *planner_device_user(const struct planner *pl, const struct pci_func *f)
{
	const struct host_use *use = pl->req->use;

	for (size_t i = 0; use && i < use->n_devices; i++)
		if (pci_addr_cmp(&use->devices[i].addr, &f->addr) == 0)
			return &use->devices[i];
	return NULL;
}

const struct used_cpus *planner_cpu_user(const struct planner *pl, const struct cpuset *cpus)
{
	const struct host_use *use = pl->req->use;

	for (size_t i = 0; use && i < use->n_cpus; i++)
		if (cpuset_intersects(&use->cpus[i].cpus, cpus))
			return &use->cpus[i];
	return NULL;
}

int planner_host_node(const struct planner *pl, const struct plan_node *n)
{
	return n->host_node < 0 ? -1 : topology_find_node(pl->req->host, n->host_node);
}

/* Which accelerator, and may it be had? */
static void choose_accel(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	struct plan *p = pl->plan;
	/* Another machine's plan is for work, not for a test: it will have KVM. */
	bool assumed = pl->req->foreign_host && !pl->req->fake_devices;
	bool have = planner_machine(pl)->kvm;
	bool kvm = vm->accel == ACCEL_KVM || (vm->accel == ACCEL_AUTO && (have || assumed));

	if (vm->accel == ACCEL_KVM && !have && (!pl->req->foreign_host || pl->req->here)) {
		struct problem *pr = config_problem(pl->ps, vm, "vm", "accel", "kvm-missing",
						    "[vm] accel: kvm is asked for, but /dev/kvm cannot be opened");

		pr->kind = PROBLEM_HOST;
		problem_hint(pr, "load kvm_intel or kvm_amd, turn on virtualization in the BIOS, or use accel = tcg for tests");
	}
	p->accel = xstrdup(kvm ? "kvm" : "tcg");
	if (!kvm && vm->cpu_model && strcmp(vm->cpu_model, "host") == 0) {
		struct problem *pr = config_problem(pl->ps, vm, "cpu", "model", vm->accel == ACCEL_TCG ? "conflict" : "kvm-missing",
						    "[cpu] model: host needs KVM, and guest code is emulated%s",
						    vm->accel == ACCEL_TCG ? ", as [vm] accel says" : ": there is no usable /dev/kvm");

		pr->kind = vm->accel == ACCEL_TCG ? PROBLEM_CONFIG : PROBLEM_HOST;
		problem_hint(pr, "model = max has all that emulation can do");
	}
	plan_reason(p, "accel", "%s: %s", p->accel,
		    vm->accel != ACCEL_AUTO ? "as [vm] accel says"
		    : assumed		    ? "assumed: the plan is for another machine"
		    : kvm		    ? "/dev/kvm can be opened"
					    : "there is no usable /dev/kvm; emulation is slow");
}

static void check_socket(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	int n = pl->req->host->n_sockets;

	if (vm->socket < n || vm->socket < 0)
		return;
	problem_hint(config_problem(pl->ps, vm, "place", "socket", "socket-missing", "[place] socket: there is no socket %d: this machine has %d, counted from 0",
				    vm->socket, n),
		     "`gpuvm topo` shows which devices are on which");
	pl->ps->v[pl->ps->n - 1].kind = PROBLEM_HOST;
}

static void choose_firmware(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	const struct qemu_info *q = pl->req->qemu;
	const char *want = vm->firmware;
	struct plan *p = pl->plan;
	bool have_ovmf = q->ovmf_code && q->ovmf_vars;

	if (!want || strcmp(want, "auto") == 0) {
		bool ovmf = have_ovmf && strcmp(p->accel, "kvm") == 0;

		want = ovmf ? "ovmf" : "seabios";
		plan_reason(p, "firmware", ovmf	      ? "ovmf: UEFI is what current guests and large BARs want"
					   : have_ovmf ? "seabios: UEFI takes minutes under emulation"
						       : "seabios: no OVMF image was found (package ovmf)");
	}
	if (strcmp(want, "ovmf") == 0 && !have_ovmf) {
		struct problem *pr = config_problem(pl->ps, vm, "vm", "firmware", "file-missing",
						    "[vm] firmware: ovmf is asked for, but no OVMF image is installed");

		pr->kind = PROBLEM_HOST;
		problem_hint(pr, "install the package ovmf (edk2-ovmf), give the path of an image, or use firmware = seabios");
		return;
	}
	if (strcmp(want, "ovmf") == 0) {
		p->firmware = xstrdup(q->ovmf_code);
		p->vars_template = xstrdup(q->ovmf_vars);
		p->vars_file = xasprintf("%s/vars/%s.fd", pl->req->statedir, vm->name);
		return;
	}
	p->firmware = xstrdup(want);
}

static char *copy_or_null(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static void copy_lifecycle(struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	struct plan *p = pl->plan;

	p->vm = xstrdup(vm->name);
	p->uuid = copy_or_null(vm->uuid);
	p->qemu_binary = xstrdup(pl->req->qemu->path);
	p->qemu_version = xasprintf("%d.%d.%d", pl->req->qemu->major, pl->req->qemu->minor, pl->req->qemu->micro);
	p->rundir = xstrdup(pl->req->rundir);
	p->fake_devices = pl->req->fake_devices;
	p->foreign_host = pl->req->foreign_host && pl->req->fake_devices;
	if (p->foreign_host)
		plan_warn(p, "foreign-host", "the plan is of another machine: its pins, memory nodes and huge pages are left out of what runs here");
	if (pl->req->host->gaps) {
		AUTO_FREE char *gaps = topology_gaps_text(pl->req->host);

		plan_warn(p, "topology-partial", "the description of the machine does not have %s: nothing that needs it was checked", gaps);
	}
	p->stop_timeout_ms = vm->stop_timeout_ms;
	p->busy_timeout_ms = vm->busy_timeout_ms;
	p->on_reboot = vm->on_reboot;
	p->on_crash = vm->on_crash;
	p->hooks.pre_bind = copy_or_null(vm->hook_pre_bind);
	p->hooks.post_start = copy_or_null(vm->hook_post_start);
	p->hooks.post_stop = copy_or_null(vm->hook_post_stop);
	p->hooks.timeout_ms = vm->hook_timeout_ms;
	p->on_launcher_death = vm->on_launcher_death;
	/* Stand-ins' BARs are memory that is not there. */
	p->mem_lock = vm->mem_lock && !p->fake_devices;
	p->serial_stdio = vm->serial == SERIAL_STDIO;
	for (size_t i = 0; i < vm->qemu_env.n; i++)
		strv_push(&p->env, vm->qemu_env.v[i]);
}

/* QEMU removes a socket that is in its way, so a second one would cut the first one off. */
static void prepare_folder(struct plan *p)
{
	AUTO_FREE char *claim = xasprintf("%s/claim.json", p->rundir), *quoted_claim = shell_quote(claim), *dir = shell_quote(p->rundir);

	plan_prepare(p, "what runs already keeps its sockets and devices",
		     "test ! -e %s || { echo 'VM %s runs already; see gpuvm status %s' >&2; false; }", quoted_claim, p->vm, p->vm);
	plan_prepare(p, "sockets and logs of the VM", "mkdir -p -m 700 -- %s", dir);
}

static void prepare_vars(struct plan *p)
{
	AUTO_FREE char *vars = NULL, *template = NULL, *folder = NULL, *dir = NULL;

	if (!p->vars_file)
		return;
	vars = shell_quote(p->vars_file);
	template = shell_quote(p->vars_template);
	folder = xstrndup(p->vars_file, (size_t)(strrchr(p->vars_file, '/') - p->vars_file));
	dir = shell_quote(folder);
	plan_prepare(p, "UEFI variables of the VM, kept from run to run",
		     "test -e %s || { mkdir -p -m 700 -- %s && install -m 600 -- %s %s; }", vars, dir, template, vars);
}

/* -D: QEMU is the process that was started, and strace its descendant; so the pid is QEMU's, and stop and exit codes are as ever. */
static void wrap_strace(struct plan *p, const struct plan_request *req)
{
	if (!req->strace)
		return;
	strv_push(&p->wrapper, req->strace);
	strv_push(&p->wrapper, "-D");
	strv_push(&p->wrapper, "-f");
	strv_push(&p->wrapper, "-o");
	if (req->strace_file)
		strv_push(&p->wrapper, req->strace_file);
	else
		strv_pushf(&p->wrapper, "%s/qemu.strace", req->rundir);
	strv_push(&p->wrapper, "--");
}

/* How long QEMU may take to answer: it preallocates before it does, and VFIO pins and zeroes all of the guest's
 * memory.  Reports on other launchers have 512 GiB at 4 to 5 minutes, so 2 s per GiB is a limit for what hangs,
 * not an estimate. */
static uint64_t ready_timeout(const struct planner *pl)
{
	uint64_t gib = plan_memory_bytes(pl->plan) >> 30;

	if (pl->req->vm->ready_timeout_ms)
		return pl->req->vm->ready_timeout_ms;
	return 120000 + 2000 * gib + 5000 * pl->plan->n_devices;
}

static void copy_user(struct plan *p, const struct plan_user *u)
{
	if (!u || !u->set)
		return;
	p->user = (struct plan_user){ .set = true, .uid = u->uid, .gid = u->gid };
	plan_reason(p, "user", "uid %u: %s", u->uid, u->why);
	if (u->unsafe)
		plan_warn(p, "runs-as-root", "QEMU runs as root: %s", u->unsafe);
}

int plan_make(const struct plan_request *req, struct plan *ret, struct problems *ps)
{
	static int (*const steps[])(struct planner *) = { select_devices, place_nodes, place_cpus,
							  place_memory,	  place_pci,   place_interrupts, relate_devices, place_acs, argv_build };
	size_t before = ps->n;
	struct plan plan = { .fabric.partition = -1 };
	struct planner pl = { .req = req, .plan = &plan, .ps = ps };

	copy_lifecycle(&pl);
	copy_user(&plan, req->user);
	choose_accel(&pl);
	check_socket(&pl);
	choose_firmware(&pl);
	wrap_strace(&plan, req);
	prepare_folder(&plan);
	prepare_vars(&plan);
	/* A step returns an error only when those after it would have nothing to work on: all that can be found in
	 * one run is reported in one run. */
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
		if (steps[i](&pl) < 0)
			break;
	planner_check_qemu(&pl);
	if (ps->n != before) {
		plan_clear(&plan);
		return -EINVAL;
	}
	if (plan.n_devices && strcmp(plan.accel, "tcg") == 0 && !req->fake_devices)
		plan_warn(&plan, "tcg-with-gpu", "devices are passed to an emulated CPU (no KVM): right for tests, useless for work");
	plan.ready_timeout_ms = ready_timeout(&pl);
	*ret = plan;
	return 0;
}

uint64_t plan_memory_bytes(const struct plan *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < p->n_nodes; i++)
		sum += p->nodes[i].memory_bytes;
	return sum;
}

bool plan_preallocates(const struct plan *p)
{
	bool any = false;

	for (size_t i = 0; i < p->n_nodes; i++)
		any = any || p->nodes[i].prealloc;
	return any;
}

bool plan_has_vhost(const struct plan *p)
{
	for (size_t i = 0; i < p->n_taps; i++)
		if (p->taps[i].vhost)
			return true;
	return p->vsock != 0; /* it has a worker of its own */
}

uint64_t plan_pinned_bytes(const struct plan *p)
{
	uint64_t sum = plan_memory_bytes(p);

	for (size_t i = 0; i < p->n_devices; i++)
		if (p->devices[i].options && p->devices[i].options->iommufd)
			sum += p->devices[i].bar_bytes;
	return sum;
}

static void clear_devices(struct plan *p)
{
	for (size_t i = 0; i < p->n_devices; i++) {
		struct plan_device *d = &p->devices[i];

		free(d->id);
		free(d->driver);
		free(d->guest_port);
		free(d->guest_switch);
		strv_clear(&d->host_path);
	}
	free(p->devices);
	for (size_t i = 0; i < p->n_ports; i++) {
		free(p->ports[i].id);
		free(p->ports[i].parent);
	}
	free(p->ports);
	for (size_t i = 0; i < p->n_groups; i++) {
		free(p->groups[i].switch_bdf);
		free(p->groups[i].devices);
	}
	free(p->groups);
	free(p->relations);
	for (size_t i = 0; i < p->n_binds; i++) {
		free(p->binds[i].from);
		free(p->binds[i].override);
		free(p->binds[i].to);
	}
	free(p->binds);
	free(p->acs);
}

static void clear_notes(struct plan_note *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].what);
		free(v[i].text);
	}
	free(v);
}

static void clear_taps(struct plan *p)
{
	for (size_t i = 0; i < p->n_taps; i++) {
		free(p->taps[i].netdev);
		free(p->taps[i].ifname);
		free(p->taps[i].bridge);
		free(p->taps[i].mac);
	}
	free(p->taps);
}

static void clear_seed(struct plan_seed *s)
{
	free(s->image);
	free(s->tool);
	for (size_t i = 0; i < s->n_files; i++) {
		free(s->files[i].path);
		free(s->files[i].text);
	}
}

static void clear_helpers(struct plan *p)
{
	clear_seed(&p->seed);
	clear_seed(&p->check);
	free(p->tpm.state_dir);
	free(p->tpm.socket);
	free(p->tpm.program);
}

void plan_clear(struct plan *p)
{
	clear_devices(p);
	clear_taps(p);
	for (size_t i = 0; i < p->n_iothreads; i++)
		free(p->iothreads[i].id);
	free(p->iothreads);
	for (size_t i = 0; i < p->n_args; i++) {
		free(p->args[i].flag);
		free(p->args[i].value);
		free(p->args[i].why);
	}
	free(p->args);
	for (size_t i = 0; i < p->n_opens; i++)
		free(p->opens[i].path);
	free(p->opens);
	for (size_t i = 0; i < p->n_prepares; i++) {
		free(p->prepares[i].command);
		free(p->prepares[i].why);
	}
	free(p->prepares);
	clear_notes(p->warnings, p->n_warnings);
	clear_notes(p->reasons, p->n_reasons);
	clear_helpers(p);
	strv_clear(&p->env);
	strv_clear(&p->wrapper);
	free(p->nodes);
	free(p->vcpus);
	free(p->vm);
	free(p->uuid);
	free(p->qemu_binary);
	free(p->qemu_version);
	free(p->rundir);
	free(p->fabric.manager);
	free(p->hooks.pre_bind);
	free(p->hooks.post_start);
	free(p->hooks.post_stop);
	free(p->accel);
	free(p->firmware);
	free(p->vars_template);
	free(p->vars_file);
	*p = (struct plan){ 0 };
}
