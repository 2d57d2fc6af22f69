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

#include "plan_priv.h"

#define ROOT_SLOT_VIRTIO 0x02 /* pcie.0: disks, NICs, rng; eight functions to a slot up to 0x07 */
#define VIRTIO_MAX	 (8 * 6)

struct builder {
	struct planner *pl;
	struct plan *p;
	const struct vm_config *vm;
	const struct qemu_info *q;
	const char *group;
	int n_virtio; /* functions given out on pcie.0 */
	int next_boot; /* lowest boot index not given out */
};

static void arg_why(struct builder *b, const char *flag, char *value, const char *fmt, ...) PRINTF(4, 5);
static void arg_why(struct builder *b, const char *flag, char *value, const char *fmt, ...)
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
	arg_why(b, "-S", NULL, "the vCPUs wait until every thread is pinned and checked");
	arg_why(b, "-msg", xstrdup("timestamp=on"), "times in qemu.log");
	if (b->vm->sandbox)
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
	arg_why(b, "-machine", qopt_finish(&o), "q35 has PCI Express; i440fx does not%s",
		many ? "; with a split irqchip interrupts reach APIC IDs past 254 without a virtual IOMMU" : "");
	if (b->p->mmio64_bytes)
		arg_why(b, "-global", xasprintf("q35-pcihost.pci-hole64-size=%" PRIu64, b->p->mmio64_bytes),
			"64-bit window of %s for the BARs (default 32 GiB)", format_size(b->p->mmio64_bytes, size));
}

static void arg_cpu(struct builder *b)
{
	const struct topology *t = b->pl->req->host;
	const struct plan *p = b->p;
	bool kvm = strcmp(p->accel, "kvm") == 0;
	struct qopt o;

	b->group = "cpu";
	qopt_init(&o, b->vm->cpu_model ? b->vm->cpu_model : kvm ? "host" : "max");
	if (!b->vm->cpu_model && kvm && p->n_devices && t->iommu_bits && (!t->phys_bits || t->iommu_bits < t->phys_bits))
		qopt_u64(&o, "host-phys-bits-limit", (uint64_t)t->iommu_bits);
	if (!b->vm->cpu_model && p->smp_threads > 1 && strcmp(t->cpu_vendor, "AuthenticAMD") == 0)
		qopt_bool(&o, "topoext", true);
	/* Linux offers ARCH_CAPABILITIES on AMD too, where writing it fails: QEMU before 10.1 aborts ("failed to set MSR 0x10a"). */
	if (!b->vm->cpu_model && kvm && strcmp(t->cpu_vendor, "AuthenticAMD") == 0 && !qemu_at_least(b->q, 10, 1))
		qopt_bool(&o, "arch-capabilities", false);
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

/* --- memory ------------------------------------------------------------------------------------------ */

static void arg_node_memory(struct builder *b, const struct plan_node *n)
{
	bool huge = n->page_bytes > 4096, bind = n->host_node >= 0 && !b->p->foreign_host;
	/* Without a CPU of that node that we may use QEMU refuses ("The nodes select no CPUs") or the kernel does (cpuset). */
	bool context = n->prealloc && bind && !cpuset_empty(&n->prealloc_cpus);
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
	struct qopt o;

	qopt_init(&o, "socket");
	qopt_str(&o, "id", id);
	qopt_fmt(&o, "path", "%s/%s", b->p->rundir, file);
	qopt_bool(&o, "server", true);
	qopt_bool(&o, "wait", false);
	arg_why(b, "-chardev", qopt_finish(&o), "%s", why);
	qopt_init(&o, "");
	qopt_str(&o, "chardev", id);
	qopt_str(&o, "mode", "control");
	arg_why(b, "-mon", qopt_finish(&o), "QMP on it");
}

static void arg_console(struct builder *b)
{
	struct qopt o;

	b->group = "control";
	arg_monitor(b, "control", "control.sock", "the supervisor's own monitor");
	arg_monitor(b, "qmp", "qmp.sock", "a second monitor, for people and tools");
	switch (b->vm->serial) {
	case SERIAL_SOCKET:
		qopt_init(&o, "socket");
		qopt_str(&o, "id", "serial0");
		qopt_fmt(&o, "path", "%s/serial.sock", b->p->rundir);
		qopt_bool(&o, "server", true);
		qopt_bool(&o, "wait", false);
		qopt_fmt(&o, "logfile", "%s/serial.log", b->p->rundir);
		arg_why(b, "-chardev", qopt_finish(&o), "console: a socket, and a log of what the guest said");
		break;
	case SERIAL_LOG:
		qopt_init(&o, "file");
		qopt_str(&o, "id", "serial0");
		qopt_fmt(&o, "path", "%s/serial.log", b->p->rundir);
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

/* --- PCIe ------------------------------------------------------------------------------------------------ */

/* pcie-root-port x-speed: since 4.0 up to 16 GT/s, 32 and 64 since 9.0. */
static const char *speed_word(const struct qemu_info *q, unsigned int mts)
{
	static const struct {
		unsigned int mts;
		const char *word;
	} speeds[] = { { 2500, "2_5" }, { 5000, "5" }, { 8000, "8" }, { 16000, "16" }, { 32000, "32" }, { 64000, "64" } };

	for (size_t i = 0; i < ARRAY_SIZE(speeds); i++)
		if (speeds[i].mts == mts)
			return mts <= 16000 || qemu_at_least(q, 9, 0) ? speeds[i].word : "16";
	return NULL;
}

static bool width_known(unsigned int width)
{
	return width == 1 || width == 2 || width == 4 || width == 8 || width == 12 || width == 16 || width == 32;
}

static void add_root_addr(struct qopt *o, int addr)
{
	/* Root ports on pcie.0 sit eight to a slot; addr is then slot * 8 + function. */
	qopt_fmt(o, "addr", "0x%x.0x%x", (unsigned int)addr / 8, (unsigned int)addr % 8);
	if (addr % 8 == 0)
		qopt_bool(o, "multifunction", true);
}

static void add_root_port(struct builder *b, const struct plan_port *port, struct qopt *o)
{
	const char *speed = speed_word(b->q, port->link.mts);

	qopt_str(o, "bus", port->parent);
	if (strcmp(port->parent, "pcie.0") == 0)
		add_root_addr(o, port->addr);
	else
		qopt_fmt(o, "addr", "0x%x", (unsigned int)port->addr);
	qopt_u64(o, "chassis", (uint64_t)port->chassis);
	qopt_u64(o, "slot", (uint64_t)port->slot);
	qopt_bool(o, "hotplug", false);
	if (speed)
		qopt_str(o, "x-speed", speed);
	if (width_known(port->link.width))
		qopt_u64(o, "x-width", port->link.width);
}

static void arg_port(struct builder *b, const struct plan_port *port)
{
	static const char *const drivers[] = { [GPORT_PXB] = "pxb-pcie",
					       [GPORT_ROOT] = "pcie-root-port",
					       [GPORT_UPSTREAM] = "x3130-upstream",
					       [GPORT_DOWNSTREAM] = "xio3130-downstream" };
	AUTO_FREE char *why = NULL;
	struct qopt o;

	qopt_init(&o, drivers[port->kind]);
	qopt_str(&o, "id", port->id);
	switch (port->kind) {
	case GPORT_PXB:
		qopt_u64(&o, "bus_nr", (uint64_t)port->bus_nr);
		qopt_str(&o, "bus", port->parent);
		qopt_fmt(&o, "addr", "0x%x", (unsigned int)port->addr);
		qopt_u64(&o, "numa_node", (uint64_t)port->guest_node);
		why = xasprintf("host bridge of guest node %d: devices below it report that node", port->guest_node);
		break;
	case GPORT_ROOT:
		add_root_port(b, port, &o);
		why = xstrdup("root port: SXM GPUs do not work as root complex endpoints");
		break;
	case GPORT_UPSTREAM: {
		char bdf[PCI_ADDR_STR] = "?";

		qopt_str(&o, "bus", port->parent);
		qopt_str(&o, "addr", "0x0");
		if (port->host_func >= 0)
			pci_addr_format(&planner_func(b->pl, port->host_func)->addr, bdf);
		why = xasprintf("mirrors the host's PCIe switch at %s", bdf);
		break;
	}
	case GPORT_DOWNSTREAM:
		qopt_str(&o, "bus", port->parent);
		qopt_fmt(&o, "addr", "0x%x", (unsigned int)port->addr);
		qopt_u64(&o, "chassis", (uint64_t)port->chassis);
		qopt_u64(&o, "slot", (uint64_t)port->slot);
		qopt_bool(&o, "hotplug", false);
		why = xstrdup("switch port");
		break;
	}
	arg_why(b, "-device", qopt_finish(&o), "%s", why);
}

/* A stand-in with a memory BAR of the same size: the same ports, bus numbers and window without the hardware. */
static void arg_fake_device(struct builder *b, const struct plan_device *d)
{
	uint64_t largest = 4096;
	struct qopt o;

	for (size_t i = 0; i < ARRAY_SIZE(d->bars); i++)
		if (d->bars[i] > largest)
			largest = d->bars[i];
	qopt_init(&o, "pci-testdev");
	qopt_str(&o, "id", d->id);
	qopt_str(&o, "bus", d->guest_port);
	qopt_str(&o, "addr", "0x0");
	qopt_u64(&o, "membar", largest);
	arg_why(b, "-device", qopt_finish(&o), "stand-in for the %s (--fake-devices)", pci_role_word(d->role));
}

static void arg_device(struct builder *b, const struct plan_device *d)
{
	const struct device_config *c = d->options;
	char bdf[PCI_ADDR_STR];
	struct qopt o;

	qopt_init(&o, "vfio-pci");
	qopt_str(&o, "host", pci_addr_format(&d->addr, bdf));
	qopt_str(&o, "id", d->id);
	qopt_str(&o, "bus", d->guest_port);
	qopt_str(&o, "addr", "0x0");
	if (c && !c->rombar)
		qopt_u64(&o, "rombar", 0);
	if (c && c->romfile)
		qopt_str(&o, "romfile", strcmp(c->romfile, "none") ? c->romfile : "");
	if (d->clique >= 0)
		qopt_u64(&o, "x-nv-gpudirect-clique", (uint64_t)d->clique);
	if (c && c->x_no_mmap)
		qopt_bool(&o, "x-no-mmap", true);
	arg_why(b, "-device", qopt_finish(&o), "%s: %s, guest bus %02x, node %d", d->id, pci_role_word(d->role), (unsigned int)d->guest_bus_nr,
		d->guest_node);
}

static void arg_pcie(struct builder *b)
{
	b->group = "pcie";
	for (size_t i = 0; i < b->p->n_ports; i++)
		arg_port(b, &b->p->ports[i]);
	b->group = "devices";
	for (size_t i = 0; i < b->p->n_devices; i++) {
		if (b->p->fake_devices)
			arg_fake_device(b, &b->p->devices[i]);
		else
			arg_device(b, &b->p->devices[i]);
	}
}

/* --- disks, NICs --------------------------------------------------------------------------------------------- */

static void add_virtio_addr(struct builder *b, struct qopt *o)
{
	int n = ROOT_SLOT_VIRTIO * 8 + b->n_virtio++;

	qopt_str(o, "bus", "pcie.0");
	add_root_addr(o, n);
	if (b->n_virtio == VIRTIO_MAX + 1)
		problems_add(b->pl->ps, PROBLEM_CONFIG, "buses-exhausted", "too many disks and NICs: pcie.0 has room for %d", VIRTIO_MAX);
}

static bool ends_in(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* By what is said or the file's name; never by looking inside: a guest can write a qcow2 header into a raw disk. */
static const char *disk_format(struct builder *b, const struct disk_config *d)
{
	AUTO_FREE char *section = NULL;

	if (d->format != DISK_AUTO)
		return d->format == DISK_RAW ? "raw" : "qcow2";
	if (strncmp(d->file, "/dev/", 5) == 0 || ends_in(d->file, ".raw") || ends_in(d->file, ".img") || ends_in(d->file, ".iso"))
		return "raw";
	if (ends_in(d->file, ".qcow2"))
		return "qcow2";
	section = xasprintf("disk %s", d->name);
	problem_hint(config_problem(b->pl->ps, b->vm, section, "file", "format-unknown", "[%s] file: the format of '%s' cannot be told from its name",
				    section, d->file),
		     "add format = raw or format = qcow2; it is never guessed from the contents, which the guest can write");
	return "raw";
}

static const char *cache_word(const struct disk_config *d, bool device)
{
	static const char *const words[] = { [CACHE_NONE] = "none",
					     [CACHE_WRITEBACK] = "writeback",
					     [CACHE_WRITETHROUGH] = "writethrough",
					     [CACHE_DIRECTSYNC] = "directsync",
					     [CACHE_UNSAFE] = "unsafe" };

	return d->cache == CACHE_AUTO ? (device ? "none" : "writeback") : words[d->cache];
}

static void arg_blockdev(struct builder *b, const struct disk_config *d)
{
	bool device = strncmp(d->file, "/dev/", 5) == 0;
	const char *cache = cache_word(d, device), *format = disk_format(b, d);
	bool direct = strcmp(cache, "none") == 0 || strcmp(cache, "directsync") == 0;
	static const char *const aio[] = { [AIO_THREADS] = "threads", [AIO_NATIVE] = "native", [AIO_IO_URING] = "io_uring" };
	struct qopt o;

	qopt_init(&o, "");
	qopt_str(&o, "driver", format);
	qopt_fmt(&o, "node-name", "disk-%s", d->name);
	qopt_bool(&o, "read-only", d->readonly);
	qopt_bool(&o, "cache.direct", direct);
	qopt_bool(&o, "cache.no-flush", strcmp(cache, "unsafe") == 0);
	qopt_str(&o, "file.driver", device ? "host_device" : "file");
	qopt_str(&o, "file.filename", d->file);
	qopt_bool(&o, "file.cache.direct", direct);
	qopt_str(&o, "file.aio", d->aio != AIO_AUTO ? aio[d->aio] : direct ? "native" : "threads");
	arg_why(b, "-blockdev", qopt_finish(&o), "disk %s: %s, cache %s", d->name, format, cache);
}

/* The lowest that no disk asks for and none was given: QEMU refuses two alike. */
static int next_bootindex(struct builder *b)
{
	for (size_t i = 0; i < b->vm->n_disks; i++) {
		if (b->vm->disks[i].bootindex == b->next_boot) {
			b->next_boot++;
			i = (size_t)-1;
		}
	}
	return b->next_boot++;
}

static void arg_disk(struct builder *b, const struct disk_config *d)
{
	struct qopt o;
	const char *cache = cache_word(d, strncmp(d->file, "/dev/", 5) == 0);

	arg_blockdev(b, d);
	qopt_init(&o, "virtio-blk-pci");
	qopt_fmt(&o, "id", "blk-%s", d->name);
	qopt_fmt(&o, "drive", "disk-%s", d->name);
	add_virtio_addr(b, &o);
	qopt_u64(&o, "num-queues", d->queues > 0 ? (uint64_t)d->queues : b->p->n_vcpus);
	qopt_bool(&o, "write-cache", strcmp(cache, "writethrough") != 0 && strcmp(cache, "directsync") != 0);
	if (d->iothread)
		qopt_str(&o, "iothread", "io0");
	qopt_u64(&o, "bootindex", d->bootindex >= 0 ? (uint64_t)d->bootindex : (uint64_t)next_bootindex(b));
	arg_why(b, "-device", qopt_finish(&o), "a queue per vCPU%s", d->iothread ? "; requests are served by an I/O thread of its own" : "");
}

static void arg_disks(struct builder *b)
{
	bool need = false;

	b->group = "disks";
	for (size_t i = 0; i < b->vm->n_disks; i++)
		need = need || b->vm->disks[i].iothread;
	if (need) {
		struct plan_iothread *io = PUSH_ZEROED(b->p->iothreads, b->p->n_iothreads);

		io->id = xstrdup("io0");
		io->host_cpus = b->p->housekeeping;
		arg_why(b, "-object", xstrdup("iothread,id=io0"), "I/O thread, pinned to the cores kept for the host");
	}
	for (size_t i = 0; i < b->vm->n_disks; i++)
		arg_disk(b, &b->vm->disks[i]);
}

static uint64_t fnv1a(const char *s, uint64_t h)
{
	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	return h;
}

/* Stable over starts, different between hosts, VMs and NICs; 52:54:00 is what KVM guests use. */
static char *mac_for(const struct builder *b, const struct net_config *n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	if (n->mac)
		return xstrdup(n->mac);
	h = fnv1a(b->pl->req->host->machine_id, h);
	h = fnv1a("/", fnv1a(b->vm->name, fnv1a("/", h)));
	h = fnv1a(n->name, h);
	return xasprintf("52:54:00:%02x:%02x:%02x", (unsigned int)(h >> 16 & 0xff), (unsigned int)(h >> 8 & 0xff), (unsigned int)(h & 0xff));
}

static void arg_net(struct builder *b, const struct net_config *n)
{
	AUTO_FREE char *mac = mac_for(b, n);
	bool tap = n->type == NET_TAP;
	/* Pairs; the kernel's limit for a tap is 256. */
	uint64_t queues = !tap ? 1 : n->queues > 0 ? (uint64_t)n->queues : b->p->n_vcpus < 256 ? b->p->n_vcpus : 256;
	struct qopt o;

	qopt_init(&o, tap ? "tap" : "user");
	qopt_fmt(&o, "id", "net-%s", n->name);
	if (tap) {
		qopt_str(&o, "ifname", n->ifname);
		qopt_str(&o, "script", "no");
		qopt_str(&o, "downscript", "no");
		qopt_bool(&o, "vhost", n->vhost);
		if (queues > 1)
			qopt_u64(&o, "queues", queues);
	}
	arg_why(b, "-netdev", qopt_finish(&o), tap ? "the tap device of the host" : "user-mode network: outgoing only, no privileges");
	qopt_init(&o, "virtio-net-pci");
	qopt_fmt(&o, "id", "nic-%s", n->name);
	qopt_fmt(&o, "netdev", "net-%s", n->name);
	add_virtio_addr(b, &o);
	qopt_str(&o, "mac", mac);
	if (queues > 1) {
		/* QEMU computes the same since 7.2; stated, so that the command says what it does. */
		qopt_bool(&o, "mq", true);
		qopt_u64(&o, "vectors", 2 * queues + 2);
	}
	qopt_str(&o, "romfile", "");
	arg_why(b, "-device", qopt_finish(&o), "%" PRIu64 " queue pair%s; no boot ROM: the guest boots from disk", queues, PLURAL(queues));
}

static void arg_nets(struct builder *b)
{
	struct qopt o;

	b->group = "network";
	for (size_t i = 0; i < b->vm->n_nets; i++)
		arg_net(b, &b->vm->nets[i]);
	b->group = "misc";
	qopt_init(&o, "virtio-rng-pci");
	qopt_str(&o, "id", "rng0");
	add_virtio_addr(b, &o);
	arg_why(b, "-device", qopt_finish(&o), "entropy: guests that boot at once would wait for it");
}

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
		bool has_value = i + 1 < words.n && words.v[i + 1][0] != '-';

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
	arg_memory(&b);
	arg_firmware(&b);
	arg_console(&b);
	arg_pcie(&b);
	arg_disks(&b);
	arg_nets(&b);
	arg_raw(&b);
	return 0;
}

/* --- the command as a whole ------------------------------------------------------------------------------------ */

void plan_argv(const struct plan *p, int control_fd, struct strv *ret)
{
	strv_push(ret, p->qemu_binary);
	for (size_t i = 0; i < p->n_args; i++) {
		const struct plan_arg *a = &p->args[i];

		strv_push(ret, a->flag);
		if (!a->value)
			continue;
		/* The supervisor listens itself and hands the socket over, so it can connect at once: nothing to wait for. */
		if (control_fd >= 0 && strncmp(a->value, "socket,id=control,", 18) == 0)
			strv_pushf(ret, "socket,id=control,fd=%d,server=on,wait=off", control_fd);
		else
			strv_push(ret, a->value);
	}
}

/* env(1): a quoted 'K=V W' would not be an assignment to the shell. */
static void print_env(const struct plan *p, FILE *out)
{
	if (p->env.n)
		fputs("env ", out);
	for (size_t i = 0; i < p->env.n; i++) {
		AUTO_FREE char *q = shell_quote(p->env.v[i]);

		fprintf(out, "%s ", q);
	}
}

static void print_shell(const struct plan *p, bool explain, FILE *out)
{
	const char *group = "";
	AUTO_FREE char *binary = shell_quote(p->qemu_binary);

	if (explain)
		fprintf(out, "# %s: QEMU %s\n", p->vm, p->qemu_version);
	/* A comment cannot stand inside a command that goes on over lines, but it can inside an array. */
	if (explain) {
		fprintf(out, "argv=(%s\n", binary);
	} else {
		print_env(p, out);
		fputs(binary, out);
	}
	for (size_t i = 0; i < p->n_args; i++) {
		const struct plan_arg *a = &p->args[i];
		AUTO_FREE char *flag = shell_quote(a->flag), *value = a->value ? shell_quote(a->value) : NULL;

		if (explain && strcmp(group, a->group) != 0)
			fprintf(out, "\n    # --- %s\n", a->group);
		group = a->group;
		if (explain)
			fprintf(out, "    # %s\n    %s%s%s\n", a->why, flag, value ? " " : "", value ? value : "");
		else
			fprintf(out, " \\\n    %s%s%s", flag, value ? " " : "", value ? value : "");
	}
	if (explain) {
		fputs(")\n", out);
		print_env(p, out);
		fputs("\"${argv[@]}\"", out);
	}
	fputc('\n', out);
}

void plan_print_command(const struct plan *p, enum plan_format f, bool explain, FILE *out)
{
	struct strv argv = { 0 };

	if (f == PLAN_SHELL) {
		print_shell(p, explain, out);
		return;
	}
	plan_argv(p, -1, &argv);
	for (size_t i = 0; i < argv.n; i++)
		fprintf(out, "%s\n", argv.v[i]);
	strv_clear(&argv);
}
