/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <string.h>

#include "gpuvm/guest_check.h"
#include "gpuvm/nccl.h"
#include "gpuvm/strv.h"
#include "plan_priv.h"

#define MELLANOX	0x15b3
#define NVIDIA		0x10de
#define STAND_IN	"1af4:1110" /* ivshmem */
#define STAND_IN_BAR	2
#define IORESOURCE_MEM	0x200
#define MAX_PORTS_ABOVE 16

/* The file itself, with a zero behind it: no copy of it as C, and the Makefile need not make one. */
__asm__(".pushsection .rodata\n"
	".globl guest_check_functions\n"
	"guest_check_functions:\n"
	".incbin \"src/core/guest-check.sh\"\n"
	".byte 0\n"
	".popsection\n");
extern const char guest_check_functions[];

struct writer {
	const struct plan *p;
	const struct topology *host;
	FILE *out;
};

/* --- machine -------------------------------------------------------------------------------------------------------- */

static bool is_kvm(const struct plan *p)
{
	return strcmp(p->accel, "kvm") == 0;
}

static void put_cpus(const struct writer *w)
{
	const struct plan *p = w->p;
	struct cpuset all = { 0 };
	AUTO_FREE char *online = NULL;

	for (size_t i = 0; i < p->n_vcpus; i++)
		cpuset_add(&all, p->vcpus[i].vcpu);
	online = cpuset_format(&all);
	/* QEMU's own AMD CPUs have no TOPOEXT, by which Linux sees threads. */
	if (is_kvm(p))
		fprintf(w->out, "\tcpus %s %d %d\n", online, p->smp_sockets, p->smp_threads);
	else
		fprintf(w->out, "\tcpus %s %d -\n", online, p->smp_sockets);
}

static void put_node(const struct writer *w, const struct plan_node *n)
{
	struct cpuset cpus = { 0 };
	AUTO_FREE char *list = NULL;

	for (size_t i = 0; i < w->p->n_vcpus; i++)
		if (w->p->vcpus[i].guest_node == n->guest_node)
			cpuset_add(&cpus, w->p->vcpus[i].vcpu);
	list = cpuset_format(&cpus);
	fprintf(w->out, "\tnode %d '%s' %" PRIu64 "\n", n->guest_node, list, n->memory_bytes);
}

/* --- devices ---------------------------------------------------------------------------------------------------------- */

/* A port's own address is on the bus above it; a pxb is a root bus of its own and no bridge above anything. */
static struct pci_addr port_address(const struct plan *p, const struct plan_port *port)
{
	const struct plan_port *above = plan_find_port(p, port->parent);
	struct pci_addr a = { .bus = (uint8_t)(above ? above->bus_nr : 0) };

	if (port->kind == GPORT_UPSTREAM)
		return a;
	a.dev = (uint8_t)(above ? port->addr : port->addr / 8);
	a.fn = (uint8_t)(above ? 0 : port->addr % 8);
	return a;
}

/* Bridges above it, root first, and the node of the host bridge that they hang from: pcie.0 has none. */
static void put_place(const struct writer *w, const struct plan_device *d)
{
	const struct plan_port *v[MAX_PORTS_ABOVE], *port = plan_find_port(w->p, d->guest_port);
	char bdf[PCI_ADDR_STR];
	size_t n = 0;

	for (; port && port->kind != GPORT_PXB && n < MAX_PORTS_ABOVE; port = plan_find_port(w->p, port->parent))
		v[n++] = port;
	fputs(" '", w->out);
	while (n--) {
		struct pci_addr a = port_address(w->p, v[n]);

		fprintf(w->out, "%s%s", pci_addr_format(&a, bdf), n ? " " : "");
	}
	if (port)
		fprintf(w->out, "' %d\n", port->guest_node);
	else
		fputs("' -\n", w->out);
}

static void put_link(const struct writer *w, const struct plan_device *d)
{
	const struct plan_port *port = plan_find_port(w->p, d->guest_port);

	/* A GPU that has nothing to do lets its link run slower. */
	if (d->link.mts && d->link.width)
		fprintf(w->out, "\tlink %u %u%s\n", d->link.mts, d->link.width, d->role == ROLE_GPU ? " idles" : "");
	if (port && port->kind == GPORT_ROOT && port->link.mts && port->link.width)
		fprintf(w->out, "\troot_port %u %u\n", port->link.mts, port->link.width);
}

/* Without I/O ports: guests have too few of them, and drivers know. */
static void put_bars(const struct writer *w, const struct plan_device *d)
{
	const struct pci_bar *bars = w->host->funcs[d->func].bars;
	bool any = false;

	for (size_t i = 0; i < ARRAY_SIZE(d->bars); i++) {
		if (!bars[i].bytes || !(bars[i].flags & IORESOURCE_MEM))
			continue;
		fprintf(w->out, "%s %zu:%" PRIu64, any ? "" : "\tbars", i, bars[i].bytes);
		any = true;
	}
	if (any)
		fputc('\n', w->out);
}

/* The NICs that GPUDirect RDMA is for, as in doctor_acs.c. */
static bool wants_ats(const struct plan *p, size_t device)
{
	if (p->devices[device].role != ROLE_NIC || p->devices[device].vendor != MELLANOX)
		return false;
	for (size_t i = 0; i < p->n_relations; i++)
		if ((size_t)p->relations[i].b == device && p->relations[i].host <= REL_PXB)
			return true;
	return false;
}

static void put_device(const struct writer *w, size_t i)
{
	const struct plan_device *d = &w->p->devices[i];
	struct pci_addr a = { .bus = (uint8_t)d->guest_bus_nr };
	AUTO_FREE char *id = shell_quote(d->id);
	char bdf[PCI_ADDR_STR];

	fprintf(w->out, "\tdevice %s %s ", id, pci_addr_format(&a, bdf));
	if (w->p->fake_devices) {
		fputs(STAND_IN, w->out);
		put_place(w, d);
		fprintf(w->out, "\tbars %d:%" PRIu64 "\n", STAND_IN_BAR, d->stand_in_bytes);
	} else {
		fprintf(w->out, "%04x:%04x", d->vendor, d->device);
		put_place(w, d);
		put_link(w, d);
		put_bars(w, d);
		if (wants_ats(w->p, i))
			fputs("\tats\n", w->out);
		if (d->role == ROLE_GPU && d->vendor == NVIDIA)
			fputs("\tdriver nvidia\n", w->out);
	}
	fputs("\tdevice_end\n", w->out);
}

/* --- software ----------------------------------------------------------------------------------------------------------- */

static int count(const struct plan *p, enum pci_role role, uint16_t vendor)
{
	int n = 0;

	for (size_t i = 0; i < p->n_devices; i++)
		n += p->devices[i].role == role && p->devices[i].vendor == vendor;
	return n;
}

static void put_software(const struct writer *w, const char *host_driver)
{
	int gpus = count(w->p, ROLE_GPU, NVIDIA);

	if (w->p->fake_devices || !gpus)
		return;
	if (count(w->p, ROLE_NIC, MELLANOX))
		fputs("\tpeermem\n", w->out);
	/* A GPU alone has no NVLink. */
	if (w->p->fabric.mode == FABRIC_NONE || gpus == 1)
		return;
	if (w->p->fabric.mode == FABRIC_FULL) {
		fputs("\tmanager\n", w->out);
	} else {
		AUTO_FREE char *version = shell_quote(host_driver ? host_driver : "");

		fprintf(w->out, "\thost_manager %s\n", version);
	}
	fprintf(w->out, "\tfabric %d\n", gpus);
}

/* --- all ------------------------------------------------------------------------------------------------------------------ */

/* @xml NULL: no GPU. */
static void put_nccl_file(const struct writer *w, const char *xml)
{
	if (xml)
		fprintf(w->out, "\nnccl_file() {\n\tcat <<'END_OF_XML'\n%sEND_OF_XML\n}\n", xml);
	else
		fputs("\nnccl_file() {\n\techo 'this VM has no GPU, so there is nothing that NCCL could use' >&2\n\treturn 1\n}\n", w->out);
}

char *guest_check_script(const struct plan *p, const struct topology *host, const char *host_driver)
{
	AUTO_FREE char *xml = nccl_topology_xml(p, host);
	char *text = NULL;
	size_t len;
	struct writer w = { .p = p, .host = host, .out = open_memstream(&text, &len) };

	if (!w.out)
		abort();
	fprintf(w.out, "%s\nplanned() {\n\techo '%s, as gpuvm %s has planned it'\n", guest_check_functions, p->vm, GPUVM_VERSION);
	put_cpus(&w);
	for (size_t i = 0; i < p->n_nodes; i++)
		put_node(&w, &p->nodes[i]);
	if (is_kvm(p))
		fputs("\tclock\n", w.out);
	for (size_t i = 0; i < p->n_devices; i++)
		put_device(&w, i);
	put_software(&w, host_driver);
	/* One GPU alone has nobody to talk to. */
	if (xml && p->n_relations)
		fputs("\tnccl\n", w.out);
	fputs("}\n", w.out);
	put_nccl_file(&w, xml);
	fputs("\nmain \"$@\"\n", w.out);
	fclose(w.out);
	return text;
}
