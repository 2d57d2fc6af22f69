/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_check.c - combinations of values that no host can make right.
 *
 * A value that was refused already is not judged again: each check asks usable() for every key that it reads. */
#include <string.h>
#include <strings.h>

#include "config_impl.h"
#include "gpuvm/fabric_manager.h"

struct check {
	const struct vm_config *vm;
	struct problems *ps;
};

static bool usable(const struct check *c, const char *section, const char *key)
{
	const struct config_origin *o = config_find_origin(c->vm, section, key);

	return !o || !o->bad;
}

static bool given(const struct check *c, const char *section, const char *key)
{
	return config_find_origin(c->vm, section, key) != NULL;
}

/* Given, and with a value that was taken. */
static bool set(const struct check *c, const char *section, const char *key)
{
	return given(c, section, key) && usable(c, section, key);
}

#define complain(c, code, section, key, fmt, ...)                                                                      \
	config_problem((c)->ps, (c)->vm, section, key, code, "[%s] %s: " fmt, section, key, ##__VA_ARGS__)
#define conflict(c, section, key, ...) complain(c, "conflict", section, key, __VA_ARGS__)

/* --- sections ---------------------------------------------------------------------------------- */

/* The guest's PCI tree is PCI Express, which i440fx does not have. */
static void check_machine(const struct check *c)
{
	const char *machine = c->vm->machine;

	if (machine && strcmp(machine, "q35") && strncmp(machine, "pc-q35-", 7))
		problem_hint(complain(c, "bad-value", "vm", "machine", "'%s' is not a q35 machine", machine),
			     "expected q35, or a version of it like pc-q35-7.2");
}

/* A VM's folder in the run-time folder has its name, and beside them is the allocation lock. */
static void check_name(const struct check *c)
{
	if (c->vm->name && strcmp(c->vm->name, "lock") == 0)
		problem_hint(complain(c, "bad-value", "vm", "name", "'lock' is the name of gpuvm's own lock"), "take another name");
}

static void check_boot(const struct check *c)
{
	if (given(c, "vm", "kernel"))
		return;
	for (size_t i = 0; i < 2; i++) {
		const char *key = i ? "append" : "initrd";

		if (given(c, "vm", key))
			problem_hint(conflict(c, "vm", key, "has no effect without a kernel"),
				     "add 'kernel = /path/to/vmlinuz'");
	}
}

static void check_place(const struct check *c)
{
	const struct vm_config *vm = c->vm;

	if (!usable(c, "place", "gpus") || vm->gpus > 0)
		return;
	if (vm->gpu_index >= 0)
		problem_hint(conflict(c, "place", "gpu-index", "is set, but the VM takes no GPUs"),
			     "add 'gpus = N' to [place]");
	for (size_t i = 0; i < 2; i++) {
		const char *key = i ? "nvme" : "nics";

		/* The default is per-gpu too, and means none here. */
		if (set(c, "place", key) && (i ? vm->nvme : vm->nics) == CONF_PER_GPU)
			problem_hint(
			    conflict(c, "place", key, "'per-gpu' means next to the VM's GPUs, and it has none"),
			    "add 'gpus = N', or name the device in a [device NAME]");
	}
}

static void check_fabric(const struct check *c)
{
	const struct vm_config *vm = c->vm;
	bool full = vm->fabric == CONF_FABRIC_FULL, mode = usable(c, "fabric", "mode");

	if (mode && set(c, "fabric", "partition") && vm->partition >= 0 && (full || vm->fabric == CONF_FABRIC_NONE))
		problem_hint(conflict(c, "fabric", "partition", "is set, but mode = %s has no partitions", full ? "full" : "none"),
			     "use mode = shared, or leave partition out");
	if (fm_spec_parse(vm->fabric_manager, &(struct fm_spec){ 0 }) < 0)
		problem_hint(complain(c, "bad-value", "fabric", "manager", "'%s' cannot be read", vm->fabric_manager),
			     "expected auto, none, or a path of fmpm or libnvfm.so, an address (HOST[:PORT] or unix:/PATH), or both");
	if (mode && full && usable(c, "place", "nvswitch") && vm->nvswitch == NVSWITCH_NONE)
		problem_hint(conflict(c, "place", "nvswitch", "none, but [fabric] mode = full passes NVSwitches"),
			     "remove one of the two");
}

/* The list of pins fixes the number of vCPUs. */
static void check_pins(const struct check *c)
{
	const struct vm_config *vm = c->vm;

	if (vm->pin != PIN_LIST || !usable(c, "cpu", "pin"))
		return;
	if (usable(c, "cpu", "vcpus") && vm->vcpus >= 0 && (size_t)vm->vcpus != vm->n_pin_cpus)
		problem_hint(conflict(c, "cpu", "pin", "lists %zu host CPUs for %d vCPUs", vm->n_pin_cpus, vm->vcpus),
			     "list one host CPU for each vCPU, or leave vcpus out");
	else if (vm->threads == 2 && vm->n_pin_cpus % 2)
		problem_hint(conflict(c, "cpu", "pin",
				      "lists %zu host CPUs, which threads = 2 cannot divide into cores",
				      vm->n_pin_cpus),
			     "list the two threads of each core one after the other");
}

static void check_cpu(const struct check *c)
{
	const struct vm_config *vm = c->vm;

	check_pins(c);
	if (usable(c, "cpu", "vcpus") && vm->pin != PIN_LIST && vm->threads == 2 && vm->vcpus > 0 && vm->vcpus % 2)
		problem_hint(conflict(c, "cpu", "vcpus", "%d vCPUs cannot be cores of threads = 2", vm->vcpus),
			     "use an even number, or threads = 1");
}

static void check_qemu(const struct check *c)
{
	struct strv words = {0};
	struct err e;

	if (c->vm->qemu_args && strv_split_shell(c->vm->qemu_args, &words, &e) < 0)
		complain(c, "bad-value", "qemu", "args", "%s", e.msg);
	strv_clear(&words);
}

/* --- named sections ---------------------------------------------------------------------------- */

/* "disk os", in a buffer of the caller. */
#define LABEL_MAX (SECTION_NAME_MAX + 16)

static const char *label(char buf[LABEL_MAX], const char *type, const char *name)
{
	snprintf(buf, LABEL_MAX, "%s %s", type, name);
	return buf;
}

static void check_device(const struct check *c, const struct device_config *d)
{
	char section[LABEL_MAX];

	label(section, "device", d->name);
	if (!d->rombar && d->romfile && strcmp(d->romfile, "none"))
		problem_hint(conflict(c, section, "romfile", "is never seen by the guest with rombar = off"),
			     "remove one of the two");
	if (d->gpudirect_clique >= 0 && c->vm->cliques == CLIQUES_ON && usable(c, section, "gpudirect-clique"))
		problem_hint(conflict(c, section, "gpudirect-clique", "[pcie] cliques = on gives the numbers itself"),
			     "take one of them away: the numbers must not mix");
}

static bool has_pci(const struct check *c, const struct device_config *d)
{
	char section[LABEL_MAX];

	label(section, "device", d->name);
	return set(c, section, "pci");
}

static void check_devices(const struct check *c)
{
	char section[LABEL_MAX], addr[PCI_ADDR_STR];

	for (size_t i = 0; i < c->vm->n_devices; i++) {
		const struct device_config *d = &c->vm->devices[i], *other = c->vm->devices;

		check_device(c, d);
		if (!has_pci(c, d))
			continue;
		while (other < d && (pci_addr_cmp(&other->pci, &d->pci) || !has_pci(c, other)))
			other++;
		if (other < d)
			conflict(c, label(section, "device", d->name), "pci", "%s is also [device %s]",
				 pci_addr_format(&d->pci, addr), other->name);
	}
}

/* Does the host's page cache stand between the disk and its file?  auto: only for an image, not for a device. */
static bool is_cached(const struct disk_config *d)
{
	if (d->cache == CACHE_AUTO)
		return d->file && strncmp(d->file, "/dev/", 5) != 0;
	return d->cache != CACHE_NONE && d->cache != CACHE_DIRECTSYNC;
}

static void check_bootindex(const struct check *c, const struct disk_config *d, const char *section)
{
	const struct disk_config *other = c->vm->disks;

	while (other < d && other->bootindex != d->bootindex)
		other++;
	if (other < d && d->bootindex >= 0)
		problem_hint(
		    conflict(c, section, "bootindex", "%d is also that of [disk %s]", d->bootindex, other->name),
		    "give each disk a number of its own, or leave them out");
}

/* QEMU would fail to get its lock on the image, for a good reason: two writers destroy a file system. */
static void check_shared_file(const struct check *c, const struct disk_config *d, const char *section)
{
	for (const struct disk_config *other = c->vm->disks; other < d; other++) {
		if (!d->file || !other->file || strcmp(d->file, other->file) || (d->readonly && other->readonly))
			continue;
		problem_hint(conflict(c, section, "file", "'%s' is also that of [disk %s]", d->file, other->name),
			     "only disks that are all readonly can share a file");
		return;
	}
}

#define SCSI_QUEUES_MAX 1022 /* a virtio device has 1024, two of which are the controller's own */

static const char *serial_of(const struct disk_config *d)
{
	return d->serial ? d->serial : d->name;
}

static void check_serial(const struct check *c, const struct disk_config *d, const char *section)
{
	const struct disk_config *other = c->vm->disks;

	while (other < d && strncmp(serial_of(other), serial_of(d), DISK_SERIAL_MAX))
		other++;
	if (other < d && usable(c, section, "serial"))
		problem_hint(conflict(c, section, "serial", "'%.*s' is also that of [disk %s]", DISK_SERIAL_MAX, serial_of(d), other->name),
			     "the guest would see two disks of one name in /dev/disk/by-id: give one a 'serial' of its own");
}

static void check_scsi_queues(const struct check *c, const struct disk_config *d, const char *section)
{
	if (d->bus == BUS_SCSI && d->queues > SCSI_QUEUES_MAX && usable(c, section, "queues"))
		problem_hint(conflict(c, section, "queues", "bus = scsi has at most %d", SCSI_QUEUES_MAX), "leave queues out");
}

static void check_disks(const struct check *c)
{
	char section[LABEL_MAX];

	for (size_t i = 0; i < c->vm->n_disks; i++) {
		const struct disk_config *d = &c->vm->disks[i];

		label(section, "disk", d->name);
		/* QEMU: "aio=native was specified, but it requires cache.direct=on". */
		if (d->aio == AIO_NATIVE && is_cached(d) && usable(c, section, "cache"))
			problem_hint(
			    conflict(c, section, "aio", "native needs a cache mode that bypasses the page cache"),
			    "use cache = none or directsync, or aio = threads");
		check_bootindex(c, d, section);
		if (c->vm->kernel && d->bootindex == 0 && usable(c, section, "bootindex"))
			problem_hint(conflict(c, section, "bootindex", "0 is that of [vm] kernel, which is booted first"), "use 1, or leave it out");
		check_shared_file(c, d, section);
		check_serial(c, d, section);
		check_scsi_queues(c, d, section);
	}
}

static void check_net(const struct check *c, const struct net_config *n)
{
	char section[LABEL_MAX];

	label(section, "net", n->name);
	if (!usable(c, section, "type"))
		return;
	if (n->type == NET_BRIDGE && !given(c, section, "bridge"))
		problem_hint(complain(c, "missing-key", section, "bridge", "is required for type = bridge"),
			     "name the host's bridge; `ip link show type bridge` lists them");
	if (n->type != NET_BRIDGE && given(c, section, "bridge"))
		problem_hint(conflict(c, section, "bridge", "has an effect for type = bridge only"), "add 'type = bridge'");
	if (n->type == NET_USER && n->ifname)
		problem_hint(conflict(c, section, "ifname", "has no effect for type = user"), "add 'type = tap'");
	if (n->type == NET_USER && n->vhost == VHOST_ON)
		problem_hint(conflict(c, section, "vhost", "cannot be on for type = user"), "add 'type = tap'");
	if (n->type == NET_USER && n->queues > 1)
		problem_hint(conflict(c, section, "queues", "type = user has one queue pair"), "add 'type = tap'");
}

static bool same(const char *a, const char *b)
{
	return a && b && !strcasecmp(a, b);
}

static void check_nets(const struct check *c)
{
	char section[LABEL_MAX];

	for (size_t i = 0; i < c->vm->n_nets; i++) {
		const struct net_config *n = &c->vm->nets[i], *other;

		check_net(c, n);
		label(section, "net", n->name);
		for (other = c->vm->nets; other < n; other++) {
			if (same(n->ifname, other->ifname))
				conflict(c, section, "ifname", "'%s' is also that of [net %s]", n->ifname, other->name);
			if (same(n->mac, other->mac))
				conflict(c, section, "mac", "'%s' is also that of [net %s]", n->mac, other->name);
			if (same(n->ifname, other->ifname) || same(n->mac, other->mac))
				break;
		}
	}
}

void config_check(const struct vm_config *vm, struct problems *ps)
{
	const struct check c = {vm, ps};

	check_name(&c);
	check_machine(&c);
	check_boot(&c);
	check_place(&c);
	check_fabric(&c);
	check_devices(&c);
	check_cpu(&c);
	check_disks(&c);
	check_nets(&c);
	check_qemu(&c);
}
