/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The plan drawn for people. */
#include <inttypes.h>
#include <langinfo.h>
#include <string.h>

#include "gpuvm/plan.h"

struct tree_style {
	const char *tee, *last, *bar, *blank, *arrow;
};

static const struct tree_style *tree_style(void)
{
	static const struct tree_style utf8 = { "├─ ", "└─ ", "│  ", "   ", "→" }, ascii = { "|- ", "`- ", "|  ", "   ", "->" };

	return strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? &utf8 : &ascii;
}

static int count_role(const struct plan *p, enum pci_role role)
{
	int n = 0;

	for (size_t i = 0; i < p->n_devices; i++)
		n += p->devices[i].role == role;
	return n;
}

static void print_head(const struct plan *p, FILE *out)
{
	static const struct {
		enum pci_role role;
		const char *one, *many;
	} roles[] = { { ROLE_GPU, "GPU", "GPUs" }, { ROLE_NIC, "NIC", "NICs" }, { ROLE_NVME, "NVMe", "NVMe" }, { ROLE_NVSWITCH, "NVSwitch", "NVSwitches" },
		    { ROLE_FABRIC, "NVSwitch bridge", "NVSwitch bridges" } };
	char size[32];

	fprintf(out, "%s: ", p->vm);
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		int n = count_role(p, roles[i].role);

		if (n)
			fprintf(out, "%d %s, ", n, n == 1 ? roles[i].one : roles[i].many);
	}
	fprintf(out, "%zu vCPU%s, %s, %s, QEMU %s\n", p->n_vcpus, p->n_vcpus == 1 ? "" : "s", format_size(plan_memory_bytes(p), size), p->accel,
		p->qemu_version);
}

/* "0-3" of the vCPUs on one guest node. */
static char *node_vcpus(const struct plan *p, int guest_node)
{
	struct cpuset set = { 0 };

	for (size_t i = 0; i < p->n_vcpus; i++)
		if (p->vcpus[i].guest_node == guest_node)
			cpuset_add(&set, p->vcpus[i].vcpu);
	return cpuset_format(&set);
}

static void print_node(const struct plan *p, const struct plan_node *n, FILE *out)
{
	AUTO_FREE char *vcpus = node_vcpus(p, n->guest_node), *cpus = cpuset_format(&n->host_cpus);
	char size[32], page[32];

	fprintf(out, "\nguest node %d = host node %d: %s", n->guest_node, n->host_node, format_size(n->memory_bytes, size));
	if (n->page_bytes > 4096)
		fprintf(out, " in %" PRIu64 " pages of %s", n->memory_bytes / n->page_bytes, format_size(n->page_bytes, page));
	if (*cpus)
		fprintf(out, ", vCPUs %s on CPUs %s\n", vcpus, cpus);
	else
		fprintf(out, ", vCPUs %s not pinned\n", vcpus);
}

/* "256 GiB" for 256 GiB and a bit: what counts is the size class. */
static const char *about_size(uint64_t bytes, char buf[32])
{
	uint64_t unit = 1024;

	while (unit < UINT64_C(1) << 40 && bytes / unit >= 1024)
		unit *= 1024;
	return format_size((bytes + unit / 2) / unit * unit, buf);
}

static void print_device(const struct plan *p, const struct plan_device *d, FILE *out)
{
	char bdf[PCI_ADDR_STR], size[32];

	fprintf(out, "%-8s %s  bus %02x", d->id, pci_addr_format(&d->addr, bdf), (unsigned int)d->guest_bus_nr);
	if (p->fake_devices)
		fprintf(out, "  stand-in of %s", format_size(d->stand_in_bytes, size));
	else
		fprintf(out, "  %s %s vfio-pci", d->driver ? d->driver : "(no driver)", tree_style()->arrow);
	if (d->iommu_group >= 0)
		fprintf(out, ", group %d", d->iommu_group);
	if (d->link.mts)
		fprintf(out, ", %u.%u GT/s x%u", d->link.mts / 1000, d->link.mts % 1000 / 100, d->link.width);
	if (d->bar_bytes)
		fprintf(out, ", BARs %s", about_size(d->bar_bytes, size));
	fputc('\n', out);
}

static const struct plan_device *device_on(const struct plan *p, const char *port)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (strcmp(p->devices[i].guest_port, port) == 0)
			return &p->devices[i];
	return NULL;
}

/* What the devices below a guest switch are to each other: PXB where another switch hangs below one of its ports. */
static const char *switch_relation(const struct plan *p, const char *sw)
{
	for (size_t i = 0; i < p->n_ports; i++) {
		if (p->ports[i].kind != GPORT_UPSTREAM)
			continue;
		for (size_t k = 0; k < p->n_ports; k++)
			if (strcmp(p->ports[k].id, p->ports[i].parent) == 0 && strcmp(p->ports[k].parent, sw) == 0)
				return "PXB";
	}
	return "PIX";
}

static void print_port(const struct plan *p, const struct plan_port *port, const char *indent, bool last, FILE *out);

static void print_children(const struct plan *p, const char *parent, const char *indent, FILE *out)
{
	size_t left = 0;

	for (size_t i = 0; i < p->n_ports; i++)
		left += strcmp(p->ports[i].parent, parent) == 0 && p->ports[i].kind != GPORT_PXB;
	for (size_t i = 0; i < p->n_ports; i++)
		if (strcmp(p->ports[i].parent, parent) == 0 && p->ports[i].kind != GPORT_PXB)
			print_port(p, &p->ports[i], indent, --left == 0, out);
}

static void print_port(const struct plan *p, const struct plan_port *port, const char *indent, bool last, FILE *out)
{
	const struct tree_style *s = tree_style();
	const struct plan_device *d = device_on(p, port->id);
	AUTO_FREE char *below = xasprintf("%s%s", indent, last ? s->blank : s->bar);

	fprintf(out, "%s%s", indent, last ? s->last : s->tee);
	if (d) {
		if (port->kind == GPORT_ROOT)
			fprintf(out, "%-4s ", port->id);
		print_device(p, d, out);
		return;
	}
	/* A root or downstream port that carries a switch is one line with it. */
	for (size_t i = 0; i < p->n_ports; i++) {
		const struct plan_port *up = &p->ports[i];

		if (up->kind == GPORT_UPSTREAM && strcmp(up->parent, port->id) == 0) {
			fprintf(out, "%s switch %s  %s\n", port->id, up->id, switch_relation(p, up->id));
			print_children(p, up->id, below, out);
			return;
		}
	}
	fprintf(out, "%s\n", port->id);
}

static void print_tree(const struct plan *p, FILE *out)
{
	for (size_t i = 0; i < p->n_nodes; i++) {
		print_node(p, &p->nodes[i], out);
		for (size_t k = 0; k < p->n_ports; k++) {
			if (p->ports[k].kind != GPORT_PXB || p->ports[k].guest_node != (int)i)
				continue;
			fprintf(out, "  %s (bus %02x)\n", p->ports[k].id, (unsigned int)p->ports[k].bus_nr);
			print_children(p, p->ports[k].id, "  ", out);
		}
	}
	for (size_t k = 0; k < p->n_ports; k++) {
		if (p->ports[k].kind == GPORT_ROOT && strcmp(p->ports[k].parent, "pcie.0") == 0) {
			fprintf(out, "\npcie.0\n");
			print_children(p, "pcie.0", "  ", out);
			break;
		}
	}
}

/* "NVLink: partition 1 (physical IDs 1 2 3 4), shared" */
static void print_fabric(const struct plan_fabric *f, FILE *out)
{
	if (f->mode == FABRIC_NONE)
		return;
	fprintf(out, "NVLink: %s", fabric_mode_word(f->mode));
	if (f->partition >= 0)
		fprintf(out, ", partition %d", f->partition);
	for (int i = 0; i < f->n_ids; i++)
		fprintf(out, "%s%d", i ? " " : ", physical IDs ", f->ids[i]);
	if (f->manager)
		fprintf(out, ", activated by %s", f->manager);
	fputc('\n', out);
}

/* "ACS: direct translated requests at 0000:15:01.0 0000:17:00.0, while the VM runs" */
static void print_acs(const struct plan *p, FILE *out)
{
	char bdf[PCI_ADDR_STR];

	for (size_t i = 0; i < p->n_acs; i++)
		fprintf(out, "%s %s", i ? "" : "ACS: direct translated requests at", pci_addr_format(&p->acs[i].addr, bdf));
	if (p->n_acs)
		fputs(", while the VM runs\n", out);
}

void plan_print(const struct plan *p, bool explain, FILE *out)
{
	AUTO_FREE char *house = cpuset_format(&p->housekeeping), *emulator = cpuset_format(&p->emulator);
	char size[32];

	print_head(p, out);
	print_tree(p, out);
	fprintf(out, "\nQEMU's own threads on CPUs %s, kept for the host: %s", emulator, house);
	fprintf(out, "\nguest CPU: %d socket%s, %d core%s each, %d thread%s per core\n", p->smp_sockets, p->smp_sockets == 1 ? "" : "s", p->smp_cores,
		p->smp_cores == 1 ? "" : "s", p->smp_threads, p->smp_threads == 1 ? "" : "s");
	if (p->mmio64_bytes)
		fprintf(out, "64-bit MMIO window: %s\n", format_size(p->mmio64_bytes, size));
	print_fabric(&p->fabric, out);
	print_acs(p, out);
	for (size_t i = 0; i < p->n_warnings; i++)
		fprintf(out, "%swarning: %s (%s)\n", i ? "" : "\n", p->warnings[i].text, p->warnings[i].code);
	for (size_t i = 0; explain && i < p->n_reasons; i++)
		fprintf(out, "%s%-14s %s\n", i ? "" : "\nWhy:\n", p->reasons[i].what, p->reasons[i].text);
}

/* --- relations --------------------------------------------------------------------------------------------- */

/* "PIX", or "PIX/PHB" where the guest sees another one. */
static void relation_cell(const struct plan *p, int a, int b, char buf[16])
{
	snprintf(buf, 16, "%s", a == b ? "X" : "");
	for (size_t i = 0; i < p->n_relations; i++) {
		const struct plan_relation *r = &p->relations[i];

		if ((r->a != a || r->b != b) && (r->a != b || r->b != a))
			continue;
		if (r->host == r->guest)
			snprintf(buf, 16, "%s", pci_relation_word(r->host));
		else
			snprintf(buf, 16, "%s/%s", pci_relation_word(r->host), pci_relation_word(r->guest));
	}
}

static bool in_matrix(const struct plan_device *d)
{
	return d->role == ROLE_GPU || d->role == ROLE_NIC || d->role == ROLE_NVME;
}

/* As wide as the longest name or cell of a column. */
static int column_width(const struct plan *p, int b)
{
	int width = (int)strlen(p->devices[b].id);

	for (size_t i = 0; i < p->n_devices; i++) {
		char cell[16];

		if (p->devices[i].role != ROLE_GPU)
			continue;
		relation_cell(p, (int)i, b, cell);
		width = (int)strlen(cell) > width ? (int)strlen(cell) : width;
	}
	return width;
}

static void print_matrix_row(const struct plan *p, int a, int first, FILE *out)
{
	const char *text = a < 0 ? "" : p->devices[a].id;
	int width = first;
	char cell[16];

	for (size_t i = 0; i < p->n_devices; i++) {
		if (!in_matrix(&p->devices[i]))
			continue;
		fprintf(out, "%-*s  ", width, text);
		if (a >= 0)
			relation_cell(p, a, (int)i, cell);
		text = a < 0 ? p->devices[i].id : cell;
		width = column_width(p, (int)i);
	}
	fputs(text, out);
	fputc('\n', out);
}

void plan_print_matrix(const struct plan *p, FILE *out)
{
	int first = 0;
	bool differ = false;

	for (size_t i = 0; i < p->n_devices; i++)
		if (p->devices[i].role == ROLE_GPU && (int)strlen(p->devices[i].id) > first)
			first = (int)strlen(p->devices[i].id);
	if (!first) {
		fprintf(out, "%s has no GPU\n", p->vm);
		return;
	}
	print_matrix_row(p, -1, first, out);
	for (size_t i = 0; i < p->n_devices; i++)
		if (p->devices[i].role == ROLE_GPU)
			print_matrix_row(p, (int)i, first, out);
	for (size_t i = 0; i < p->n_relations; i++)
		differ = differ || p->relations[i].host != p->relations[i].guest;
	fputs("\nPIX: below one PCIe switch, PXB: below stacked switches, PHB: below one host bridge,\n"
	      "NODE: on one NUMA node or socket, SYS: across sockets\n",
	      out);
	if (differ)
		fputs("PIX/PHB: PIX on the host, PHB as the guest sees it\n", out);
}
