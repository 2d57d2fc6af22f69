/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_pci.c - ports and devices. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "argv_priv.h"

#define IOMMUFD_ID "iommufd0"

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
			return mts <= 16000 || qemu_has(q, QF_LINK_64GT) ? speeds[i].word : "16";
	return NULL;
}

static bool width_known(unsigned int width)
{
	return width == 1 || width == 2 || width == 4 || width == 8 || width == 12 || width == 16 || width == 32;
}

static void add_root_port(struct builder *b, const struct plan_port *port, struct qopt *o)
{
	const char *speed = speed_word(b->q, port->link.mts);

	qopt_str(o, "bus", port->parent);
	if (strcmp(port->parent, "pcie.0") == 0)
		arg_root_addr(o, port->addr);
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

/* A stand-in with one memory BAR: the same ports, bus numbers and window without the hardware.  ivshmem-plain and not pci-testdev, which
 * has an I/O BAR, too: each port's I/O window takes 4 KiB of the 64 KiB that there are, and from the 16th device on firmware gives up.
 * The memory is never touched, so it must not be reserved either: a GPU's is more than a laptop has. */
static void arg_fake_device(struct builder *b, const struct plan_device *d)
{
	char size[32];
	struct qopt o;

	qopt_init(&o, "memory-backend-ram");
	qopt_fmt(&o, "id", "bar-%s", d->id);
	qopt_u64(&o, "size", d->stand_in_bytes);
	qopt_bool(&o, "reserve", false);
	qopt_bool(&o, "merge", false);
	qopt_bool(&o, "dump", false);
	arg_why(b, "-object", qopt_finish(&o), "the BAR of %s's stand-in, %s: takes no memory until the guest writes there", d->id,
		format_size(d->stand_in_bytes, size));
	qopt_init(&o, "ivshmem-plain");
	qopt_str(&o, "id", d->id);
	qopt_str(&o, "bus", d->guest_port);
	qopt_str(&o, "addr", "0x0");
	qopt_fmt(&o, "memdev", "bar-%s", d->id);
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
	if (c && c->iommufd)
		qopt_str(&o, "iommufd", IOMMUFD_ID);
	arg_why(b, "-device", qopt_finish(&o), "%s: %s, guest bus %02x, node %d", d->id, pci_role_word(d->role), (unsigned int)d->guest_bus_nr,
		d->guest_node);
}

/* The object for the devices that ask for it; the others share the VFIO container, with which peer-to-peer DMA works. */
static void arg_iommufd(struct builder *b)
{
	bool wanted = false;
	struct qopt o;

	for (size_t i = 0; i < b->p->n_devices; i++) {
		const struct device_config *c = b->p->devices[i].options;
		AUTO_FREE char *section = c && c->iommufd ? xasprintf("device %s", c->name) : NULL;

		wanted = wanted || (section && arg_needs(b, QF_IOMMUFD, section, "iommufd"));
	}
	if (!wanted)
		return;
	qopt_init(&o, "iommufd");
	qopt_str(&o, "id", IOMMUFD_ID);
	arg_why(b, "-object", qopt_finish(&o), "[device] iommufd: /dev/iommu in place of /dev/vfio/vfio");
	arg_open(b, "fd", "/dev/iommu");
}

void arg_pcie(struct builder *b)
{
	b->group = "pcie";
	for (size_t i = 0; i < b->p->n_ports; i++)
		arg_port(b, &b->p->ports[i]);
	b->group = "devices";
	if (!b->p->fake_devices)
		arg_iommufd(b);
	for (size_t i = 0; i < b->p->n_devices; i++) {
		if (b->p->fake_devices)
			arg_fake_device(b, &b->p->devices[i]);
		else
			arg_device(b, &b->p->devices[i]);
	}
}
