/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <string.h>

#include "tests/fake/mkhost_priv.h"

static bool is_bridge(const struct mk *m, const struct dev *d)
{
	return m->kinds[d->kind].class_code >> 8 == 0x0604;
}

struct dev *mk_find_dev(struct mk *m, const struct pci_addr *a)
{
	for (size_t i = 0; i < m->n_devs; i++)
		if (pci_addr_cmp(&m->devs[i].addr, a) == 0)
			return &m->devs[i];
	return NULL;
}

static bool group_used(const struct mk *m, int group)
{
	for (size_t i = 0; i < m->n_devs; i++)
		if (m->devs[i].group == group)
			return true;
	return false;
}

/* Groups that the description names come first; the others get the lowest free numbers in the order of the file. */
static void number_groups(struct mk *m)
{
	bool off = !strcmp(m->iommu, "off");
	int next = 0;

	for (size_t i = 0; i < m->n_devs; i++)
		m->devs[i].group = !off && m->devs[i].p.group >= 0 ? m->devs[i].p.group : -1;
	for (size_t i = 0; !off && i < m->n_devs; i++) {
		struct dev *d = &m->devs[i];

		if (d->p.group == GROUP_UP && d->parent >= 0) {
			d->group = m->devs[d->parent].group;
		} else if (d->p.group == GROUP_OWN) {
			while (group_used(m, next))
				next++;
			d->group = next++;
		}
	}
}

static void place_devs(struct mk *m)
{
	char bdf[PCI_ADDR_STR];

	for (size_t i = 0; i < m->n_devs; i++) {
		struct dev *d = &m->devs[i];
		const struct bus *b = &m->buses[d->bus];

		pci_addr_format(&d->addr, bdf);
		d->last_bus = d->addr.bus;
		if (d->parent >= 0)
			d->path = xasprintf("%s/%s", m->devs[d->parent].path, bdf);
		else
			d->path = xasprintf("sys/devices/pci%04x:%02x/%s", b->domain, b->number, bdf);
		for (int p = d->parent; p >= 0; p = m->devs[p].parent)
			if (m->devs[p].last_bus < d->addr.bus)
				m->devs[p].last_bus = d->addr.bus;
		for (size_t k = 0; k < 6; k++) {
			struct bar *bar = &d->p.bars[k];

			if (!bar->bytes)
				continue;
			m->next_address = (m->next_address + bar->bytes - 1) / bar->bytes * bar->bytes;
			bar->start = m->next_address;
			m->next_address += bar->bytes;
		}
	}
}

static void le16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void le32(uint8_t *p, uint32_t v)
{
	le16(p, v & 0xffff);
	le16(p + 2, v >> 16);
}

/* Supported link speeds vector code: 2.5 GT/s is 1, each step doubles (roughly). */
static unsigned int speed_code(unsigned int gts10)
{
	static const unsigned int gts10s[] = { 25, 50, 80, 160, 320, 640 };

	for (unsigned int i = 0; i < ARRAY_SIZE(gts10s); i++)
		if (gts10s[i] == gts10)
			return i + 1;
	return 0;
}

static void config_express(const struct dev *d, uint8_t *cap)
{
	const struct props *p = &d->p;

	cap[0] = 0x10;
	le16(cap + 2, 2u | (unsigned int)p->pcie << 4);
	le32(cap + 0x0c, speed_code(p->gts10) | p->width << 4);
	le16(cap + 0x12, speed_code(p->now_gts10 ? p->now_gts10 : p->gts10) | (p->now_width ? p->now_width : p->width)
										      << 4);
}

/* Extended capabilities, chained from 0x100. */
static void config_extended(const struct dev *d, uint8_t *c)
{
	unsigned int at = 0x100, last = 0;

	if (d->p.acs >= 0) {
		le32(c + at, 0x0001000d);
		le16(c + at + 4, 0x5f);
		le16(c + at + 6, (unsigned int)d->p.acs);
		last = at;
		at = 0x480;
	}
	if (d->p.ats >= 0) {
		le32(c + at, 0x0001000f);
		le16(c + at + 6, (unsigned int)d->p.ats);
		if (last)
			le32(c + last, 0x0001000d | at << 20);
	}
}

static void config_header(const struct mk *m, const struct dev *d, uint8_t *c)
{
	const struct kind *k = &m->kinds[d->kind];
	bool bridge = is_bridge(m, d);

	/* A virtual function reads ffff here: its ids are those of the physical one. */
	le16(c, d->p.is_vf ? 0xffff : k->vendor);
	le16(c + 2, d->p.is_vf ? 0xffff : k->device);
	le16(c + 4, 0x0406);
	le16(c + 6, 0x0010); /* has capabilities */
	c[9] = (uint8_t)k->class_code;
	le16(c + 10, k->class_code >> 8);
	c[14] = bridge ? 1 : 0;
	c[0x34] = 0x60;
	if (bridge) {
		c[0x18] = d->addr.bus;
		c[0x1a] = d->last_bus;
		for (size_t i = 0; i < m->n_devs; i++)
			if (m->devs[i].parent == (int)(d - m->devs))
				c[0x19] = m->devs[i].addr.bus;
		return;
	}
	le16(c + 0x2c, d->p.subvendor);
	le16(c + 0x2e, d->p.subdevice);
	for (size_t i = 0; i < 6; i++)
		if (d->p.bars[i].bytes)
			le32(c + 0x10 + 4 * i, (uint32_t)d->p.bars[i].start | (d->p.bars[i].flags & 0xf));
}

static int write_config(struct mk *m, const struct dev *d)
{
	uint8_t c[0x500] = { 0 };
	AUTO_FREE char *path = xasprintf("%s/config", d->path);
	bool express = d->p.pcie >= 0;

	config_header(m, d, c);
	/* Power management, then express: two entries make a walk of the list worth the name. */
	c[0x60] = 0x01;
	c[0x61] = express ? 0x68 : 0;
	if (express) {
		config_express(d, c + 0x68);
		config_extended(d, c);
	}
	if (d->p.unreadable)
		return mk_put_bytes(m, path, c, 64, 0);
	return mk_put_bytes(m, path, c, express ? sizeof(c) : 256, express ? 4096 : 256);
}

static int write_resource(struct mk *m, const struct dev *d)
{
	AUTO_FREE char *text = NULL;

	for (size_t i = 0; i < 13; i++) {
		const struct bar *b = i < 6 ? &d->p.bars[i] : NULL;

		mk_append(&text, "0x%016" PRIx64 " 0x%016" PRIx64 " 0x%016" PRIx64 "%s", b ? b->start : 0,
			  b && b->bytes ? b->start + b->bytes - 1 : 0, b ? b->flags : 0, i < 12 ? "\n" : "");
	}
	return mk_put(m, d->path, "resource", "%s", text);
}

static int write_link_attr(struct mk *m, const struct dev *d, const char *prefix, unsigned int gts10,
			   unsigned int width)
{
	AUTO_FREE char *speed = xasprintf("%s_link_speed", prefix), *lanes = xasprintf("%s_link_width", prefix);

	if (!gts10 ? mk_put(m, d->path, speed, "Unknown") < 0
		   : mk_put(m, d->path, speed, "%u.%u GT/s PCIe", gts10 / 10, gts10 % 10) < 0)
		return -1;
	return mk_put(m, d->path, lanes, "%u", width);
}

static int write_links(struct mk *m, const struct dev *d)
{
	const struct props *p = &d->p;

	if (p->pcie < 0 || p->pcie == 9)
		return 0;
	if (write_link_attr(m, d, "max", p->gts10, p->width) < 0)
		return -1;
	return write_link_attr(m, d, "current", p->now_gts10 ? p->now_gts10 : p->gts10,
			       p->now_width ? p->now_width : p->width);
}

static int write_locality(struct mk *m, const struct dev *d)
{
	struct cpuset cpus = { 0 };

	for (size_t i = 0; i < m->n_nodes; i++)
		if (d->p.node < 0 || m->nodes[i].id == d->p.node)
			cpuset_or(&cpus, &m->nodes[i].cpus);
	if (*d->p.cpulist) {
		cpus = (struct cpuset){ 0 };
		if (cpuset_parse(d->p.cpulist, &cpus) < 0)
			return mk_bad(m, "cpulist=%s?", d->p.cpulist);
	}
	if (!m->no_numa && mk_put(m, d->path, "numa_node", "%d", d->p.node) < 0)
		return -1;
	return mk_put_cpuset(m, d->path, "local_cpus", "local_cpulist", &cpus);
}

static int write_ids(struct mk *m, const struct dev *d, const char *bdf)
{
	const struct kind *k = &m->kinds[d->kind];
	AUTO_FREE char *driver = *d->p.driver ? xasprintf("DRIVER=%s\n", d->p.driver) : xstrdup("");
	AUTO_FREE char *alias =
		xasprintf("pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X", k->vendor, k->device, d->p.subvendor,
			  d->p.subdevice, k->class_code >> 16, k->class_code >> 8 & 0xff, k->class_code & 0xff);

	if (mk_put(m, d->path, "vendor", "0x%04x", k->vendor) < 0 ||
	    mk_put(m, d->path, "device", "0x%04x", k->device) < 0 ||
	    mk_put(m, d->path, "class", "0x%06x", k->class_code) < 0 || mk_put(m, d->path, "revision", "0x00") < 0 ||
	    mk_put(m, d->path, "subsystem_vendor", "0x%04x", d->p.subvendor) < 0 ||
	    mk_put(m, d->path, "subsystem_device", "0x%04x", d->p.subdevice) < 0)
		return -1;
	if (mk_put(m, d->path, "modalias", "%s", alias) < 0)
		return -1;
	return mk_put(m, d->path, "uevent",
		      "%sPCI_CLASS=%X\nPCI_ID=%04X:%04X\nPCI_SUBSYS_ID=%04X:%04X\nPCI_SLOT_NAME=%s\nMODALIAS=%s",
		      driver, k->class_code, k->vendor, k->device, d->p.subvendor, d->p.subdevice, bdf, alias);
}

static int vf_number(const struct mk *m, const struct dev *d)
{
	int n = 0;

	for (const struct dev *o = m->devs; o < d; o++)
		n += o->p.is_vf && pci_addr_cmp(&o->p.vf_of, &d->p.vf_of) == 0;
	return n;
}

static int write_optional(struct mk *m, struct dev *d)
{
	/* An identifier string, then the read-only part: the serial number and a vendor's field. */
	static const char vpd[] = "\x82\x0a\x00Nvidia CX7\x90\x2a\x00SN\x04none" "VA\x20MLX:MN=MLNX:MODL=CX7;SMDL=SW_MNG\x78";

	if (d->p.sw_mng) {
		AUTO_FREE char *path = xasprintf("%s/vpd", d->path);

		if (mk_put_bytes(m, path, vpd, sizeof(vpd) - 1, 0) < 0)
			return -1;
	}
	if (m->kinds[d->kind].class_code >> 16 == 0x03 && mk_put(m, d->path, "boot_vga", "%d", d->p.boot_vga) < 0)
		return -1;
	if (d->p.vfs > 0 && (mk_put(m, d->path, "sriov_numvfs", "%d", d->p.vfs) < 0 ||
			     mk_put(m, d->path, "sriov_totalvfs", "%d", d->p.vfs) < 0))
		return -1;
	if (d->p.is_vf) {
		const struct dev *pf = mk_find_dev(m, &d->p.vf_of);

		if (!pf)
			return mk_bad(m, "vf-of a function that is not there");
		if (mk_make_link_at(m, pf->path, "%s/physfn", d->path) < 0 ||
		    mk_make_link_at(m, d->path, "%s/virtfn%d", pf->path, vf_number(m, d)) < 0)
			return -1;
	}
	if (d->p.no_reset || is_bridge(m, d))
		return 0;
	return mk_put(m, d->path, "reset", "%s", "") < 0 ? -1 : mk_put(m, d->path, "reset_method", "flr bus");
}

static int write_driver(struct mk *m, const char *name)
{
	AUTO_FREE char *dir = xasprintf("sys/bus/pci/drivers/%s", name);
	static const char *const files[] = { "bind", "unbind", "new_id", "remove_id", "uevent" };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (mk_put(m, dir, files[i], "%s", "") < 0)
			return -1;
	return 0;
}

static int write_dev_links(struct mk *m, const struct dev *d, const char *bdf)
{
	AUTO_FREE char *driver = xasprintf("sys/bus/pci/drivers/%s", d->p.driver);
	AUTO_FREE char *group = xasprintf("sys/kernel/iommu_groups/%d", d->group);

	if (mk_make_link_at(m, "sys/bus/pci", "%s/subsystem", d->path) < 0 ||
	    mk_make_link_at(m, d->path, "sys/bus/pci/devices/%s", bdf) < 0)
		return -1;
	if (*d->p.driver && (write_driver(m, d->p.driver) < 0 || mk_make_link_at(m, driver, "%s/driver", d->path) < 0 ||
			     mk_make_link_at(m, d->path, "%s/%s", driver, bdf) < 0))
		return -1;
	if (d->group >= 0 && (mk_make_link_at(m, group, "%s/iommu_group", d->path) < 0 ||
			      mk_make_link_at(m, d->path, "%s/devices/%s", group, bdf) < 0))
		return -1;
	return 0;
}

static int write_dev(struct mk *m, struct dev *d)
{
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&d->addr, bdf);
	if (mk_make_dirs(m, d->path) < 0 || write_ids(m, d, bdf) < 0 || write_config(m, d) < 0 ||
	    write_resource(m, d) < 0 || write_links(m, d) < 0 || write_locality(m, d) < 0 || write_optional(m, d) < 0 ||
	    write_dev_links(m, d, bdf) < 0)
		return -1;
	return mk_put(m, d->path, "driver_override", "%s", *d->p.override ? d->p.override : "(null)");
}

/* Has a kind before @kind the same ids? libpci refuses a list that names them twice. */
static bool device_named(const struct mk *m, size_t kind)
{
	for (size_t i = 0; i < kind; i++)
		if (m->kinds[i].device_name && m->kinds[i].vendor == m->kinds[kind].vendor && m->kinds[i].device == m->kinds[kind].device)
			return true;
	return false;
}

/* Names of the ids in use, so that they do not depend on the database of the machine that reads the tree. */
static int write_pci_ids(struct mk *m)
{
	AUTO_FREE char *text = xstrdup("# of this machine\n");

	for (size_t i = 0; i < m->n_kinds; i++) {
		const struct kind *k = &m->kinds[i];
		bool seen = false;

		for (size_t j = 0; j < i; j++)
			seen |= m->kinds[j].vendor == k->vendor;
		if (seen || !k->vendor_name)
			continue;
		mk_append(&text, "%04x  %s\n", k->vendor, k->vendor_name);
		for (size_t j = i; j < m->n_kinds; j++)
			if (m->kinds[j].vendor == k->vendor && m->kinds[j].device_name && !device_named(m, j))
				mk_append(&text, "\t%04x  %s\n", m->kinds[j].device, m->kinds[j].device_name);
	}
	return mk_put_bytes(m, "usr/share/misc/pci.ids", text, strlen(text), 0);
}

static int write_iommu(struct mk *m)
{
	uint64_t cap = m->iommu_bits > 0 ? (uint64_t)(m->iommu_bits - 1) << 16 : 0;

	if (mk_make_dirs(m, "sys/kernel/iommu_groups") < 0 || mk_make_dirs(m, "sys/class/iommu") < 0)
		return -1;
	if (!strcmp(m->iommu, "off"))
		return 0;
	if (!strcmp(m->iommu, "intel"))
		return mk_put(m, "sys/class/iommu/dmar0/intel-iommu", "cap", "%" PRIx64,
			      UINT64_C(0x8d2008c40000660) | cap);
	return mk_put(m, "sys/class/iommu/ivhd0/amd-iommu", "cap", "%s", "190b640f");
}

/* What the operator of the machine would have written. */
static int write_fabric(struct mk *m)
{
	AUTO_FREE char *text = xstrdup("[module-ids]\n");
	char bdf[PCI_ADDR_STR];
	bool any = false;

	for (size_t i = 0; i < m->n_devs; i++) {
		if (!m->devs[i].p.module)
			continue;
		mk_append(&text, "%d = %s\n", m->devs[i].p.module, pci_addr_format(&m->devs[i].addr, bdf));
		any = true;
	}
	return any ? mk_put_bytes(m, "etc/gpuvm/fabric.conf", text, strlen(text), 0) : 0;
}

int mk_write_pci(struct mk *m)
{
	static const char *const drivers[] = { "vfio-pci", "pci-stub", "pcieport" };

	place_devs(m);
	number_groups(m);
	if (mk_make_dirs(m, "sys/bus/pci/devices") < 0 || mk_put(m, "sys/bus/pci", "drivers_probe", "%s", "") < 0 ||
	    mk_put(m, "sys/bus/pci", "rescan", "%s", "") < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
		if (!(m->no_vfio && i == 0) && write_driver(m, drivers[i]) < 0)
			return -1;
	for (size_t i = 0; i < m->n_devs; i++)
		if (write_dev(m, &m->devs[i]) < 0)
			return -1;
	return write_iommu(m) < 0 || write_fabric(m) < 0 ? -1 : write_pci_ids(m);
}
