/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How it works: each GPU and NIC becomes an item with the switches above it, root first.  In a mirrored tree those are the
 * guest's upstream ports (NCCL's own walk through sysfs leaves root and downstream ports out, too); in another one, the host's
 * upstream ports that at least two of the items share.  emit_items() writes items that share a switch inside it, level by level, in
 * the order of their guest addresses.  A link is the slowest and narrowest on the host's path up to the element around. */
#include <inttypes.h>
#include <string.h>

#include "gpuvm/nccl.h"
#include "plan_priv.h"

#define MAX_SWITCHES    8
#define NCCL_STRING_MAX 255 /* MAX_STR_LEN: a longer value is an error. It reads a mask that is left out from sysfs */

struct sw {
	int host_func;
	const struct plan_port *port; /* NULL: the guest does not see it */
};

struct item {
	const struct plan_device *dev;
	struct sw sw[MAX_SWITCHES];
	int n_sw;
};

struct writer {
	const struct plan *p;
	const struct topology *host;
	FILE *out;
	int n_invented; /* addresses given to switches that the guest does not see */
};

/* --- writing -------------------------------------------------------------------------------------- */

static void put_attr(struct writer *w, const char *key, const char *value)
{
	fprintf(w->out, " %s=\"", key);
	for (; *value; value++) {
		switch (*value) {
		case '&':
			fputs("&amp;", w->out);
			break;
		case '<':
			fputs("&lt;", w->out);
			break;
		case '"':
			fputs("&quot;", w->out);
			break;
		default:
			fputc(*value, w->out);
		}
	}
	fputc('"', w->out);
}

static void put_hex(struct writer *w, const char *key, unsigned int value)
{
	char text[16];

	snprintf(text, sizeof(text), "0x%04x", value);
	put_attr(w, key, text);
}

static void begin(struct writer *w, int depth, const char *name)
{
	fprintf(w->out, "%*s<%s", 2 * depth, "", name);
}

/* The CPUs of a node as the kernel prints a mask: words of 32 bits, the highest first. */
static char *vcpu_mask(const struct plan *p, int guest_node)
{
	size_t words = (p->n_vcpus + 31) / 32, len;
	AUTO_FREE uint32_t *mask = xcalloc(words + 1, sizeof(*mask));
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	for (size_t i = 0; i < p->n_vcpus; i++)
		if (p->vcpus[i].guest_node == guest_node)
			mask[p->vcpus[i].vcpu / 32] |= UINT32_C(1) << p->vcpus[i].vcpu % 32;
	for (size_t i = words; i > 0; i--)
		fprintf(out, "%s%08" PRIx32, i == words ? "" : ",", mask[i - 1]);
	fclose(out);
	return text;
}

/* Class, ids and link of a host function, up to (not including) the host function @above; -1: up to the CPU. */
static void put_function(struct writer *w, const char *busid, int func, int above)
{
	const struct pci_func *f = &w->host->funcs[func];
	struct pci_link l = topology_link_below(w->host, func, above);
	char text[32];

	put_attr(w, "busid", busid);
	snprintf(text, sizeof(text), "0x%06x", f->class_code);
	put_attr(w, "class", text);
	/* Those of a switch are the host's, too: NCCL knows kinds that it treats in its own way (two levels as one). */
	if (f->vendor) {
		put_hex(w, "vendor", f->vendor);
		put_hex(w, "device", f->device);
		put_hex(w, "subsystem_vendor", f->subvendor);
		put_hex(w, "subsystem_device", f->subdevice);
	}
	if (l.mts) {
		snprintf(text, sizeof(text), "%u.%u GT/s PCIe", l.mts / 1000, l.mts % 1000 / 100);
		put_attr(w, "link_speed", text);
	}
	if (l.width) {
		snprintf(text, sizeof(text), "%u", l.width);
		put_attr(w, "link_width", text);
	}
}

/* --- the tree ----------------------------------------------------------------------------------------- */

/* A port's own address is on the bus of the port above it. */
static void switch_busid(struct writer *w, const struct sw *sw, char buf[PCI_ADDR_STR])
{
	struct pci_addr a = { .domain = 0xffff, .bus = (uint8_t)w->n_invented };
	const struct plan_port *parent = sw->port ? plan_find_port(w->p, sw->port->parent) : NULL;

	if (parent)
		a = (struct pci_addr){ .bus = (uint8_t)parent->bus_nr };
	else
		w->n_invented++;
	pci_addr_format(&a, buf);
}

static void emit_device(struct writer *w, const struct item *it, int depth, int above)
{
	struct pci_addr a = { .bus = (uint8_t)it->dev->guest_bus_nr };
	char busid[PCI_ADDR_STR];

	begin(w, depth, "pci");
	put_function(w, pci_addr_format(&a, busid), it->dev->func, above);
	fputs("/>\n", w->out);
}

static void emit_items(struct writer *w, const struct item *v, int n, int level, int depth)
{
	int above = level ? v[0].sw[level - 1].host_func : -1;

	while (n > 0) {
		int k = 1;
		char busid[PCI_ADDR_STR];

		if (v[0].n_sw <= level) {
			emit_device(w, v++, depth, above);
			n--;
			continue;
		}
		while (k < n && v[k].n_sw > level && v[k].sw[level].host_func == v[0].sw[level].host_func)
			k++;
		switch_busid(w, &v[0].sw[level], busid);
		begin(w, depth, "pci");
		put_function(w, busid, v[0].sw[level].host_func, above);
		fputs(">\n", w->out);
		emit_items(w, v, k, level + 1, depth + 1);
		fprintf(w->out, "%*s</pci>\n", 2 * depth, "");
		v += k;
		n -= k;
	}
}

/* The guest's upstream ports above a device. */
static void guest_switches(const struct plan *p, struct item *it)
{
	const char *id = it->dev->guest_port;

	for (const struct plan_port *port; (port = plan_find_port(p, id)) && it->n_sw < MAX_SWITCHES;
	     id = port->parent) {
		if (port->kind != GPORT_UPSTREAM)
			continue;
		memmove(&it->sw[1], &it->sw[0], sizeof(it->sw[0]) * (size_t)it->n_sw++);
		it->sw[0] = (struct sw){ .host_func = port->host_func, .port = port };
	}
}

static int users_of(const struct writer *w, int host_switch)
{
	char bdf[PCI_ADDR_STR];
	const char *id = pci_addr_format(&w->host->funcs[host_switch].addr, bdf);
	int n = 0;

	for (size_t i = 0; i < w->p->n_devices; i++) {
		const struct plan_device *d = &w->p->devices[i];

		n += (d->role == ROLE_GPU || d->role == ROLE_NIC) && strv_contains(&d->host_path, id);
	}
	return n;
}

/* The host's switches that the device shares with another GPU or NIC of the VM. */
static void host_switches(const struct writer *w, struct item *it)
{
	int path[32];
	size_t n = topology_path(w->host, it->dev->func, path, ARRAY_SIZE(path));

	for (size_t i = 0; i < n && i < ARRAY_SIZE(path) && it->n_sw < MAX_SWITCHES; i++)
		if (topology_is_upstream(w->host, path[i]) && users_of(w, path[i]) > 1)
			it->sw[it->n_sw++] = (struct sw){ .host_func = path[i] };
}

static bool tree_has_switches(const struct plan *p)
{
	for (size_t i = 0; i < p->n_ports; i++)
		if (p->ports[i].kind == GPORT_UPSTREAM)
			return true;
	return false;
}

/* By guest address.  Where the guest's tree is flat its order is the host's, which keeps what shares a switch together. */
static int item_cmp(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->dev->guest_bus_nr - y->dev->guest_bus_nr;
}

static int collect_items(const struct writer *w, int guest_node, struct item *ret)
{
	bool mirrored = tree_has_switches(w->p);
	int n = 0;

	for (size_t i = 0; i < w->p->n_devices; i++) {
		const struct plan_device *d = &w->p->devices[i];
		/* What has no node must be somewhere: node 0 is where most programs look for it. */
		int at = d->guest_node >= 0 ? d->guest_node : 0;

		if ((d->role != ROLE_GPU && d->role != ROLE_NIC) || at != guest_node)
			continue;
		ret[n] = (struct item){ .dev = d };
		if (mirrored)
			guest_switches(w->p, &ret[n++]);
		else
			host_switches(w, &ret[n++]);
	}
	if (n)
		qsort(ret, (size_t)n, sizeof(*ret), item_cmp);
	return n;
}

static void emit_node(struct writer *w, const struct plan_node *node, struct item *v)
{
	AUTO_FREE char *mask = vcpu_mask(w->p, node->guest_node);
	int n = collect_items(w, node->guest_node, v);
	char id[16];

	snprintf(id, sizeof(id), "%d", node->guest_node);
	begin(w, 1, "cpu");
	put_attr(w, "numaid", id);
	if (strlen(mask) < NCCL_STRING_MAX)
		put_attr(w, "affinity", mask);
	put_attr(w, "arch", "x86_64");
	if (!n) {
		fputs("/>\n", w->out);
		return;
	}
	fputs(">\n", w->out);
	emit_items(w, v, n, 0, 2);
	fputs("  </cpu>\n", w->out);
}

bool nccl_is_wanted(const struct plan *p)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (p->devices[i].role == ROLE_GPU)
			return true;
	return false;
}

char *nccl_topology_xml(const struct plan *p, const struct topology *host)
{
	AUTO_FREE struct item *v = xcalloc(p->n_devices + 1, sizeof(*v));
	char *text = NULL;
	size_t len;
	struct writer w = { .p = p, .host = host };

	if (!nccl_is_wanted(p))
		return NULL;
	w.out = open_memstream(&text, &len);
	if (!w.out)
		abort();
	/* NCCL's reader knows no <?xml?> line, no tabs, and takes a value as it is written. */
	fputs("<!-- Copy into the guest and set NCCL_TOPO_FILE to its path. Addresses are those of the guest, links "
	      "those of the host. -->\n"
	      "<system version=\"1\">\n",
	      w.out);
	for (size_t i = 0; i < p->n_nodes; i++)
		emit_node(&w, &p->nodes[i], v);
	fputs("</system>\n", w.out);
	fclose(w.out);
	return text;
}
