/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QEMU command.
 *
 * How it works: each arg_*() below adds the options of one group, in the order in which QEMU should meet them (objects before
 * what refers to them, ports before what is plugged into them), each with the reason why it is there.  Values are built by
 * qopt only, which doubles commas.  Every object has an id of ours.
 *
 * QEMU versions are those in which an option appeared or left; older than 7.2 is not supported. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "argv_priv.h"
#include "gpuvm/argv_diff.h"

#define ROOT_SLOT_VIRTIO 0x02 /* pcie.0: disks, NICs, rng; eight functions to a slot up to 0x07 */
#define VIRTIO_MAX	 (8 * 6)

struct plan_arg *arg_why(struct builder *b, const char *flag, char *value, const char *fmt, ...)
{
	struct plan_arg *a = PUSH_ZEROED(b->p->args, b->p->n_args);
	va_list ap;

	a->flag = xstrdup(flag);
	a->value = value;
	a->group = b->group;
	va_start(ap, fmt);
	if (vasprintf(&a->why, fmt, ap) < 0)
		abort();
	va_end(ap);
	return a;
}

void arg_open(struct builder *b, const char *key, const char *path)
{
	struct plan_arg *a = &b->p->args[b->p->n_args - 1];

	a->use = ARG_OPEN;
	a->open = (int)b->p->n_opens;
	*PUSH_ZEROED(b->p->opens, b->p->n_opens) = (struct plan_open){ .path = xstrdup(path), .key = key };
}

bool arg_needs(struct builder *b, enum qemu_feature feature, const char *section, const char *key)
{
	if (qemu_has(b->q, feature))
		return true;
	problem_hint(config_problem(b->pl->ps, b->vm, section, key, "qemu-lacks", "[%s] %s: QEMU %s does not have %s", section, key, b->p->qemu_version,
				    qemu_feature_what(feature)),
		     "QEMU %s is the first that has it; [qemu] binary or --qemu names another one", qemu_feature_since(feature));
	return false;
}

void arg_root_addr(struct qopt *o, int addr)
{
	/* Functions on pcie.0 sit eight to a slot; addr is then slot * 8 + function. */
	qopt_fmt(o, "addr", "0x%x.0x%x", (unsigned int)addr / 8, (unsigned int)addr % 8);
	if (addr % 8 == 0)
		qopt_bool(o, "multifunction", true);
}

int arg_virtio_function(struct builder *b)
{
	if (b->n_virtio == VIRTIO_MAX)
		problems_add(b->pl->ps, PROBLEM_CONFIG, "buses-exhausted", "too many disks and NICs: pcie.0 has room for %d", VIRTIO_MAX);
	return ROOT_SLOT_VIRTIO * 8 + b->n_virtio++;
}

void arg_virtio_addr(struct builder *b, struct qopt *o)
{
	qopt_str(o, "bus", "pcie.0");
	arg_root_addr(o, arg_virtio_function(b));
}

/* --- process and machine --------------------------------------------------------------------------- */

static void arg_process(struct builder *b)
{
	struct qopt o;

	b->group = "process";
	qopt_init(&o, "");
	qopt_str(&o, "guest", b->vm->name);
	qopt_bool(&o, "debug-threads", true);
	arg_why(b, "-name", qopt_finish(&o), "thread names (CPU 0/KVM, IO io0) show in /proc and top");
	if (b->p->uuid)
		arg_why(b, "-uuid", xstrdup(b->p->uuid), "as [vm] uuid says");
	arg_why(b, "-nodefaults", NULL, "only the devices of this plan");
	arg_why(b, "-no-user-config", NULL, "no settings from files that the plan does not know");
	arg_why(b, "-display", xstrdup("none"), "no graphics: the console is serial");
	arg_why(b, "-S", NULL, "the vCPUs wait until every thread is pinned and checked")->use = ARG_PAUSE;
	arg_why(b, "-msg", xstrdup("timestamp=on"), "times in qemu.log");
	if (b->vm->sandbox && qemu_has(b->q, QF_SANDBOX))
		arg_why(b, "-sandbox", xstrdup("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
			"seccomp: QEMU may not start programs, raise its rights or move its threads");
	if (b->p->on_reboot == REBOOT_STOP)
		arg_why(b, "-action", xstrdup("reboot=shutdown"), "[lifecycle] on-reboot = stop");
}

static void arg_machine(struct builder *b)
{
	bool many = planner_max_apic_id(b->p) >= X2APIC_FIRST;
	struct qopt o;
	char size[32];

	b->group = "machine";
	qopt_init(&o, b->vm->machine ? b->vm->machine : "q35");
	qopt_str(&o, "accel", b->p->accel);
	if (many && strcmp(b->p->accel, "kvm") == 0)
		qopt_str(&o, "kernel-irqchip", "split");
	qopt_bool(&o, "dump-guest-core", false);
	arg_why(b, "-machine", qopt_finish(&o), "q35 has PCI Express; i440fx does not%s",
		many ? "; with a split irqchip interrupts reach APIC IDs past 254 without a virtual IOMMU" : "");
	if (b->p->mmio64_bytes)
		arg_why(b, "-global", xasprintf("q35-pcihost.pci-hole64-size=%" PRIu64, b->p->mmio64_bytes),
			"64-bit window of %s for the BARs (default 32 GiB)", format_size(b->p->mmio64_bytes, size));
}

static void arg_cpu(struct builder *b)
{
	const struct topology *t = planner_machine(b->pl);
	const struct plan *p = b->p;
	bool kvm = strcmp(p->accel, "kvm") == 0;
	struct qopt o;

	b->group = "cpu";
	qopt_init(&o, b->vm->cpu_model ? b->vm->cpu_model : kvm ? "host" : "max");
	if (!b->vm->cpu_model && kvm && p->n_devices && t->iommu_bits && (!t->phys_bits || t->iommu_bits < t->phys_bits))
		qopt_u64(&o, "host-phys-bits-limit", (uint64_t)t->iommu_bits);
	if (!b->vm->cpu_model && kvm && p->smp_threads > 1 && strcmp(t->cpu_vendor, "AuthenticAMD") == 0)
		qopt_bool(&o, "topoext", true);
	/* Linux offers ARCH_CAPABILITIES on AMD too, where writing it fails: QEMU before 10.1 aborts ("failed to set MSR 0x10a"). */
	if (!b->vm->cpu_model && kvm && strcmp(t->cpu_vendor, "AuthenticAMD") == 0 && !qemu_at_least(b->q, 10, 1))
		qopt_bool(&o, "arch-capabilities", false);
	if (kvm && !b->vm->pmu)
		qopt_bool(&o, "pmu", false);
	/* "host" leaves it out, because a guest that relies on it cannot migrate; one with passed-through devices cannot anyway. */
	if (kvm && b->vm->invtsc)
		qopt_bool(&o, "invtsc", true);
	arg_why(b, "-cpu", qopt_finish(&o), kvm ? "the host's own CPU: GPU libraries choose code by it" : "all that emulation has");
	qopt_init(&o, "");
	qopt_u64(&o, "cpus", p->n_vcpus);
	qopt_u64(&o, "maxcpus", p->n_vcpus);
	qopt_u64(&o, "sockets", (uint64_t)p->smp_sockets);
	qopt_u64(&o, "cores", (uint64_t)p->smp_cores);
	qopt_u64(&o, "threads", (uint64_t)p->smp_threads);
	arg_why(b, "-smp", qopt_finish(&o), "%s", p->smp_threads > 1 ? "a socket per guest node; guest threads are real SMT siblings"
								      : "a socket per guest node; a guest core is a host core");
}

static void arg_overcommit(struct builder *b)
{
	bool cpu_pm = b->vm->cpu_pm && strcmp(b->p->accel, "kvm") == 0;
	struct qopt o;

	if (b->vm->cpu_pm && b->vm->pin == PIN_OFF)
		problem_hint(config_problem(b->pl->ps, b->vm, "cpu", "cpu-pm", "conflict",
					    "[cpu] cpu-pm: a guest that idles without leaving its CPU takes it from others, and pin = off shares CPUs"),
			     "leave out pin, or cpu-pm");
	if (!b->p->mem_lock && !cpu_pm)
		return;
	qopt_init(&o, "");
	if (b->p->mem_lock)
		qopt_bool(&o, "mem-lock", true);
	if (cpu_pm)
		qopt_bool(&o, "cpu-pm", true);
	arg_why(b, "-overcommit", qopt_finish(&o), "%s%s%s", b->p->mem_lock ? "[memory] mem-lock: nothing of QEMU is swapped out" : "",
		b->p->mem_lock && cpu_pm ? "; " : "", cpu_pm ? "[cpu] cpu-pm: the guest idles its own CPUs" : "");
}

/* --- memory ------------------------------------------------------------------------------------------ */

static void arg_node_memory(struct builder *b, const struct plan_node *n)
{
	bool huge = n->page_bytes > 4096, bind = n->host_node >= 0 && !b->p->foreign_host;
	/* Without a CPU of that node that we may use QEMU refuses ("The nodes select no CPUs") or the kernel does (cpuset). */
	bool context = n->prealloc && bind && !cpuset_empty(&n->prealloc_cpus) && qemu_has(b->q, QF_THREAD_CONTEXT);
	uint64_t threads = (uint64_t)cpuset_count(&n->prealloc_cpus);
	char size[32], page[32];
	struct qopt o;

	if (context) {
		qopt_init(&o, "thread-context");
		qopt_fmt(&o, "id", "tc%d", n->guest_node);
		qopt_u64(&o, "node-affinity", (uint64_t)n->host_node);
		arg_why(b, "-object", qopt_finish(&o), "pages of node %d are prepared by CPUs of node %d", n->host_node, n->host_node);
	}
	qopt_init(&o, huge ? "memory-backend-memfd" : "memory-backend-ram");
	qopt_fmt(&o, "id", "ram%d", n->guest_node);
	qopt_u64(&o, "size", n->memory_bytes);
	if (huge) {
		qopt_bool(&o, "hugetlb", true);
		qopt_u64(&o, "hugetlbsize", n->page_bytes);
		qopt_bool(&o, "share", true);
	}
	qopt_bool(&o, "merge", false);
	qopt_bool(&o, "dump", false);
	if (bind) {
		qopt_u64(&o, "host-nodes", (uint64_t)n->host_node);
		qopt_str(&o, "policy", "bind");
	}
	if (n->prealloc)
		qopt_bool(&o, "prealloc", true);
	/* More threads than the kernel can use only contend for the node's zone lock. */
	if (context) {
		qopt_u64(&o, "prealloc-threads", threads > 16 ? 16 : threads ? threads : 1);
		qopt_fmt(&o, "prealloc-context", "tc%d", n->guest_node);
	}
	arg_why(b, "-object", qopt_finish(&o), "%s in pages of %s%s", format_size(n->memory_bytes, size), format_size(n->page_bytes, page),
		bind ? ", on its own host node or not at all" : "");
}

/* vCPU numbers of a guest node, as "cpus=0-3" options: a range each. */
static void add_cpus(const struct plan *p, int guest_node, struct qopt *o)
{
	struct cpuset set = { 0 };

	for (size_t i = 0; i < p->n_vcpus; i++)
		if (p->vcpus[i].guest_node == guest_node)
			cpuset_add(&set, p->vcpus[i].vcpu);
	for (int first = cpuset_next(&set, -1); first >= 0;) {
		int last = first;

		while (cpuset_has(&set, last + 1))
			last++;
		qopt_fmt(o, "cpus", first == last ? "%d" : "%d-%d", first, last);
		first = cpuset_next(&set, last);
	}
}

/* QEMU wants all pairs or none. */
static bool all_distances_known(const struct builder *b)
{
	for (size_t i = 0; i < b->p->n_nodes; i++) {
		int node = planner_host_node(b->pl, &b->p->nodes[i]);

		if (node < 0 || !b->pl->req->host->nodes[node].distances)
			return false;
	}
	return true;
}

static void arg_distances(struct builder *b)
{
	const struct plan *p = b->p;

	if (!all_distances_known(b))
		return;
	for (size_t i = 0; i < p->n_nodes; i++) {
		for (size_t k = 0; k < p->n_nodes; k++) {
			int from = planner_host_node(b->pl, &p->nodes[i]), to = planner_host_node(b->pl, &p->nodes[k]);
			struct qopt o;

			if (i == k)
				continue;
			qopt_init(&o, "dist");
			qopt_u64(&o, "src", i);
			qopt_u64(&o, "dst", k);
			qopt_u64(&o, "val", (uint64_t)b->pl->req->host->nodes[from].distances[to]);
			arg_why(b, "-numa", qopt_finish(&o), "the host's own distance");
		}
	}
}

static void arg_memory(struct builder *b)
{
	const struct plan *p = b->p;
	struct qopt o;

	b->group = "memory";
	qopt_init(&o, "");
	qopt_fmt(&o, "size", "%" PRIu64 "k", plan_memory_bytes(p) / 1024);
	arg_why(b, "-m", qopt_finish(&o), "the sum of the nodes");
	for (size_t i = 0; i < p->n_nodes; i++)
		arg_node_memory(b, &p->nodes[i]);
	for (size_t i = 0; i < p->n_nodes; i++) {
		qopt_init(&o, "node");
		qopt_u64(&o, "nodeid", i);
		add_cpus(p, (int)i, &o);
		qopt_fmt(&o, "memdev", "ram%zu", i);
		arg_why(b, "-numa", qopt_finish(&o), "guest node %zu mirrors host node %d", i, p->nodes[i].host_node);
	}
	arg_distances(b);
}

/* --- firmware, console, monitors ------------------------------------------------------------------------ */

static void arg_firmware(struct builder *b)
{
	const struct plan *p = b->p;
	struct qopt o;

	b->group = "firmware";
	if (p->vars_file) {
		qopt_init(&o, "");
		qopt_str(&o, "if", "pflash");
		qopt_u64(&o, "unit", 0);
		qopt_str(&o, "format", "raw");
		qopt_bool(&o, "readonly", true);
		qopt_str(&o, "file", p->firmware);
		arg_why(b, "-drive", qopt_finish(&o), "UEFI code, shared by all VMs");
		qopt_init(&o, "");
		qopt_str(&o, "if", "pflash");
		qopt_u64(&o, "unit", 1);
		qopt_str(&o, "format", "raw");
		qopt_str(&o, "file", p->vars_file);
		arg_why(b, "-drive", qopt_finish(&o), "this VM's own UEFI variables");
		/* OVMF sizes its window by the CPU's address bits, and leaves BARs without an address, silently, when it is too small. */
		if (p->mmio64_bytes)
			arg_why(b, "-fw_cfg", xasprintf("name=opt/ovmf/X-PciMmio64Mb,string=%" PRIu64, p->mmio64_bytes >> 20),
				"the same window for OVMF, which drops BARs silently when its own guess is too small");
	} else if (strcmp(p->firmware, "seabios") != 0) {
		arg_why(b, "-bios", xstrdup(p->firmware), "as [vm] firmware says");
	}
	if (b->vm->kernel)
		arg_why(b, "-kernel", xstrdup(b->vm->kernel), "as [vm] kernel says");
	if (b->vm->initrd)
		arg_why(b, "-initrd", xstrdup(b->vm->initrd), "as [vm] initrd says");
	if (b->vm->append)
		arg_why(b, "-append", xstrdup(b->vm->append), "as [vm] append says");
}

static void arg_monitor(struct builder *b, const char *id, const char *file, const char *why)
{
	AUTO_FREE char *path = xasprintf("%s/%s", b->p->rundir, file);
	struct plan_arg *a;
	struct qopt o;

	qopt_init(&o, "socket");
	qopt_str(&o, "id", id);
	qopt_str(&o, "path", path);
	qopt_bool(&o, "server", true);
	qopt_bool(&o, "wait", false);
	a = arg_why(b, "-chardev", qopt_finish(&o), "%s", why);
	if (strcmp(id, "control") == 0)
		a->use = ARG_CONTROL;
	else
		arg_open(b, NULL, path);
	qopt_init(&o, "");
	qopt_str(&o, "chardev", id);
	qopt_str(&o, "mode", "control");
	arg_why(b, "-mon", qopt_finish(&o), "QMP on it");
}

static void arg_console(struct builder *b)
{
	AUTO_FREE char *socket = xasprintf("%s/serial.sock", b->p->rundir);
	struct qopt o;

	b->group = "control";
	arg_monitor(b, "control", "control.sock", "the supervisor's own monitor");
	arg_monitor(b, "qmp", "qmp.sock", "a second monitor, for people and tools");
	arg_monitor(b, "verbs", "verbs.sock", "a third one, for gpuvm's other verbs: whoever holds the second is not in their way");
	switch (b->vm->serial) {
	case SERIAL_SOCKET:
		qopt_init(&o, "socket");
		qopt_str(&o, "id", "serial0");
		qopt_str(&o, "path", socket);
		qopt_bool(&o, "server", true);
		qopt_bool(&o, "wait", false);
		qopt_fmt(&o, "logfile", "%s/serial.log", b->p->rundir);
		qopt_bool(&o, "logappend", true);
		arg_why(b, "-chardev", qopt_finish(&o), "console: a socket, and a log of what the guest said");
		arg_open(b, NULL, socket);
		break;
	case SERIAL_LOG:
		qopt_init(&o, "file");
		qopt_str(&o, "id", "serial0");
		qopt_fmt(&o, "path", "%s/serial.log", b->p->rundir);
		qopt_bool(&o, "append", true);
		arg_why(b, "-chardev", qopt_finish(&o), "console: a log only");
		break;
	case SERIAL_STDIO:
		qopt_init(&o, "stdio");
		qopt_str(&o, "id", "serial0");
		qopt_bool(&o, "signal", false);
		arg_why(b, "-chardev", qopt_finish(&o), "console: this terminal");
		break;
	}
	arg_why(b, "-serial", xstrdup("chardev:serial0"), "the guest's first serial port");
}

/* --- for people who debug QEMU or a kernel ---------------------------------------------------------------- */

static void arg_gdb(struct builder *b)
{
	const char *where = b->pl->req->gdb;
	AUTO_FREE char *path = xasprintf("%s/gdb.sock", b->p->rundir);
	struct qopt o;

	if (!where)
		return;
	if (*where) {
		arg_why(b, "-gdb", xstrdup(where), "--gdb: a debugger may stop the guest and look at it");
		return;
	}
	qopt_init(&o, "socket");
	qopt_str(&o, "id", "gdb");
	qopt_str(&o, "path", path);
	qopt_bool(&o, "server", true);
	qopt_bool(&o, "wait", false);
	arg_why(b, "-chardev", qopt_finish(&o), "--gdb: where a debugger connects");
	arg_open(b, NULL, path);
	arg_why(b, "-gdb", xstrdup("chardev:gdb"), "--gdb: a debugger may stop the guest and look at it");
}

static void arg_trace(struct builder *b)
{
	const struct strv *patterns = b->pl->req->trace;

	if (!patterns || !patterns->n)
		return;
	if (!qemu_has(b->q, QF_TRACE_LOG)) {
		problem_hint(problems_add(b->pl->ps, PROBLEM_HOST, "qemu-lacks", "--trace: QEMU %s was built without %s", b->p->qemu_version,
					  qemu_feature_what(QF_TRACE_LOG)),
			     "use one that was configured with --enable-trace-backends=log; --qemu names it");
		return;
	}
	for (size_t i = 0; i < patterns->n; i++) {
		struct qopt o;

		qopt_init(&o, "");
		qopt_str(&o, "enable", patterns->v[i]);
		arg_why(b, "-trace", qopt_finish(&o), "--trace: these events go to qemu.log");
	}
}

static void arg_debug(struct builder *b)
{
	b->group = "debug";
	arg_gdb(b);
	arg_trace(b);
}

/* Last, so that QEMU merges or replaces with it what the plan says. */
static void arg_raw(struct builder *b)
{
	struct strv words = { 0 };
	struct err e = { 0 };

	if (!b->vm->qemu_args)
		return;
	b->group = "raw";
	if (strv_split_shell(b->vm->qemu_args, &words, &e) < 0) {
		config_problem(b->pl->ps, b->vm, "qemu", "args", "bad-value", "[qemu] args: %s", e.msg);
		return;
	}
	for (size_t i = 0; i < words.n; i++) {
		bool has_value = argv_takes_value(&words, i);

		arg_why(b, words.v[i], has_value ? xstrdup(words.v[i + 1]) : NULL, "[qemu] args");
		i += has_value;
	}
	strv_clear(&words);
}

int argv_build(struct planner *pl)
{
	struct builder b = { .pl = pl, .p = pl->plan, .vm = pl->req->vm, .q = pl->req->qemu };

	/* What could not be placed cannot be written down. */
	if (pl->ps->n)
		return -EINVAL;
	arg_process(&b);
	arg_machine(&b);
	arg_cpu(&b);
	arg_overcommit(&b);
	arg_memory(&b);
	arg_firmware(&b);
	arg_console(&b);
	arg_pcie(&b);
	arg_disks(&b);
	arg_nets(&b);
	arg_guest(&b);
	arg_debug(&b);
	arg_raw(&b);
	return 0;
}
