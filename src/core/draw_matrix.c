/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw_matrix.c - who is how near to whom.
 *
 * How it works: GPUs, NICs and NVMe controllers get short names (G0, N3, S9), so that a table of sixteen GPUs and two dozen
 * devices fits a terminal: one table per kind, in pieces where it is still too wide, and a key that says which is which.
 * Devices near a GPU are numbered first: a server's own network and disk, which no VM gets, do not shift the names. */
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/draw.h"

#define MAX_COLUMNS 20 /* in a piece: twenty columns of five, and the names of the rows */

struct member {
	int func;
	char name[24]; /* "G12" */
};

struct kind {
	enum pci_role role;
	char letter;
	const char *many;
	struct member *v;
	size_t n;
};

struct matrix {
	const struct topology *t;
	const struct host_use *use;
	unsigned int flags;
	FILE *out;
	struct kind kinds[3];
	const struct kind *rows;
};

static const struct {
	enum pci_relation rel;
	const char *text;
} legend[] = {
	{ REL_SELF, "the device itself" },
	{ REL_PIX, "below one PCIe switch: peer-to-peer traffic stays inside it" },
	{ REL_PXB, "below switches that are stacked: it crosses more than one of them" },
	{ REL_PHB, "below one host bridge: it goes through the CPU's PCIe root complex" },
	{ REL_NODE, "on one socket or NUMA node, below different host bridges: it crosses the CPU's mesh" },
	{ REL_SYS, "on different sockets: it crosses the link between CPUs, and peer-to-peer does not work well or at all" },
};

const char *host_use_device(const struct host_use *use, const struct pci_addr *a)
{
	for (size_t i = 0; use && i < use->n_devices; i++)
		if (pci_addr_cmp(&use->devices[i].addr, a) == 0)
			return use->devices[i].vm;
	return NULL;
}

const char *host_use_cpu(const struct host_use *use, int cpu)
{
	for (size_t i = 0; use && i < use->n_cpus; i++)
		if (cpuset_has(&use->cpus[i].cpus, cpu))
			return use->cpus[i].vm;
	return NULL;
}

/* --- who is in it ------------------------------------------------------------------------------------------ */

static bool near_a_gpu(const struct matrix *m, int func)
{
	const struct kind *gpus = &m->kinds[0];

	for (size_t i = 0; i < gpus->n; i++)
		if (topology_relation(m->t, gpus->v[i].func, func) <= REL_PHB)
			return true;
	return false;
}

/* By socket, node, address; what has no node comes last. As GPUs are numbered. */
static bool comes_before(const struct topology *t, int a, int b)
{
	const struct pci_func *x = &t->funcs[a], *y = &t->funcs[b];

	if (x->socket != y->socket)
		return (unsigned int)x->socket < (unsigned int)y->socket;
	if (x->node != y->node)
		return (unsigned int)x->node < (unsigned int)y->node;
	return a < b;
}

static void insert(struct matrix *m, struct kind *k, size_t from, int func)
{
	size_t at = k->n;

	PUSH_ZEROED(k->v, k->n);
	for (; at > from && comes_before(m->t, func, k->v[at - 1].func); at--)
		k->v[at] = k->v[at - 1];
	k->v[at].func = func;
}

static void collect(struct matrix *m, struct kind *k)
{
	for (int far = 0; far < 2; far++) {
		size_t from = k->n;

		for (size_t i = 0; i < m->t->n_funcs; i++) {
			const struct pci_func *f = &m->t->funcs[i];

			if (f->role != k->role || f->is_vf)
				continue;
			if (k->role == ROLE_GPU ? !far : near_a_gpu(m, (int)i) == !far)
				insert(m, k, from, (int)i);
		}
	}
	for (size_t i = 0; i < k->n; i++)
		snprintf(k->v[i].name, sizeof(k->v[i].name), "%c%zu", k->letter, i);
}

static void matrix_init(struct matrix *m)
{
	static const struct kind kinds[] = { { ROLE_GPU, 'G', "GPUs", NULL, 0 },
					     { ROLE_NIC, 'N', "NICs", NULL, 0 },
					     { ROLE_NVME, 'S', "NVMe", NULL, 0 } };

	memcpy(m->kinds, kinds, sizeof(kinds));
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		collect(m, &m->kinds[i]);
	m->rows = m->kinds[0].n ? &m->kinds[0] : &m->kinds[1];
}

static void matrix_clear(struct matrix *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(m->kinds); i++)
		free(m->kinds[i].v);
}

/* --- for people ------------------------------------------------------------------------------------------------- */

/* Near is green, far is red: the eye finds a device that is out of place. */
static const char *colour_of(const struct matrix *m, enum pci_relation r)
{
	static const char *const colours[] = { [REL_SELF] = "\033[2m",   [REL_PIX] = "\033[1;32m", [REL_PXB] = "\033[32m",
					       [REL_PHB] = "\033[36m", [REL_NODE] = "\033[33m",  [REL_SYS] = "\033[2;31m" };

	return m->flags & DRAW_COLOR ? colours[r] : "";
}

static void print_cell(const struct matrix *m, enum pci_relation r, bool last)
{
	const char *colour = colour_of(m, r), *word = pci_relation_word(r);

	fprintf(m->out, " %s%s%s", colour, word, *colour ? "\033[0m" : "");
	if (!last)
		fprintf(m->out, "%*s", 4 - (int)strlen(word), "");
}

static void print_piece(const struct matrix *m, const struct kind *k, size_t from, size_t to)
{
	fprintf(m->out, "\n%-4s", "");
	for (size_t c = from; c < to; c++)
		fprintf(m->out, c + 1 < to ? " %-4s" : " %s", k->v[c].name);
	fputc('\n', m->out);
	for (size_t r = 0; r < m->rows->n; r++) {
		fprintf(m->out, "%-4s", m->rows->v[r].name);
		for (size_t c = from; c < to; c++)
			print_cell(m, topology_relation(m->t, m->rows->v[r].func, k->v[c].func), c + 1 == to);
		fputc('\n', m->out);
	}
}

static void print_tables(const struct matrix *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(m->kinds); i++) {
		const struct kind *k = &m->kinds[i];
		size_t pieces = (k->n + MAX_COLUMNS - 1) / MAX_COLUMNS;

		/* Pieces of one size rather than a full one and a rest. */
		for (size_t p = 0; p < pieces; p++)
			print_piece(m, k, k->n * p / pieces, k->n * (p + 1) / pieces);
	}
}

static void print_member(const struct matrix *m, const struct member *x)
{
	const struct pci_func *f = &m->t->funcs[x->func];
	const char *vm = host_use_device(m->use, &f->addr);
	char bdf[PCI_ADDR_STR], name[96];
	AUTO_FREE char *place = f->node >= 0 ? xasprintf("socket %d node %d", f->socket, m->t->nodes[f->node].id)
					     : xstrdup("node not known");

	fprintf(m->out, "%-4s %s  %-16s  %s", x->name, pci_addr_format(&f->addr, bdf), place, pci_func_short_name(f, name));
	if (vm)
		fprintf(m->out, "; vm %s", vm);
	if (f->bad)
		fprintf(m->out, "; BAD: %s", f->bad);
	if (f->host_use)
		fprintf(m->out, "; in use by host: %s", f->host_use);
	fputc('\n', m->out);
}

static void print_legend(const struct matrix *m)
{
	fputs("\nNearest first; what traffic between two devices has to cross:\n", m->out);
	for (size_t i = 0; i < ARRAY_SIZE(legend); i++)
		fprintf(m->out, "  %-4s  %s\n", pci_relation_word(legend[i].rel), legend[i].text);
}

void topology_print_matrix(const struct topology *t, const struct host_use *use, unsigned int flags, FILE *out)
{
	struct matrix m = { .t = t, .use = use, .flags = flags, .out = out };

	matrix_init(&m);
	fprintf(out, "%s: %zu GPUs, %zu NICs, %zu NVMe\n", *t->host_name ? t->host_name : "(no name)", m.kinds[0].n,
		m.kinds[1].n, m.kinds[2].n);
	if (m.rows->n)
		print_tables(&m);
	for (size_t i = 0; i < ARRAY_SIZE(m.kinds); i++) {
		if (m.kinds[i].n)
			fputc('\n', out);
		for (size_t k = 0; k < m.kinds[i].n; k++)
			print_member(&m, &m.kinds[i].v[k]);
	}
	print_legend(&m);
	matrix_clear(&m);
}

/* --- for scripts --------------------------------------------------------------------------------------------------- */

static struct json_object *member_json(const struct matrix *m, const struct member *x)
{
	const struct pci_func *f = &m->t->funcs[x->func];
	const char *vm = host_use_device(m->use, &f->addr);
	struct json_object *o = json_object_new_object();
	char bdf[PCI_ADDR_STR];

	json_object_object_add(o, "short", json_object_new_string(x->name));
	json_object_object_add(o, "bdf", json_object_new_string(pci_addr_format(&f->addr, bdf)));
	json_object_object_add(o, "role", json_object_new_string(pci_role_word(f->role)));
	json_object_object_add(o, "name", json_object_new_string(f->name));
	json_object_object_add(o, "node", f->node >= 0 ? json_object_new_int(m->t->nodes[f->node].id) : NULL);
	json_object_object_add(o, "socket", f->socket >= 0 ? json_object_new_int(f->socket) : NULL);
	json_object_object_add(o, "host_use", f->host_use ? json_object_new_string(f->host_use) : NULL);
	json_object_object_add(o, "bad", f->bad ? json_object_new_string(f->bad) : NULL);
	json_object_object_add(o, "vm", vm ? json_object_new_string(vm) : NULL);
	return o;
}

/* {"G0": {"G0": "X", "N0": "PIX", ...}, ...}: a script asks for a pair by its names */
static struct json_object *relations_json(const struct matrix *m)
{
	struct json_object *o = json_object_new_object();

	for (size_t r = 0; r < m->rows->n; r++) {
		struct json_object *row = json_object_new_object();

		for (size_t i = 0; i < ARRAY_SIZE(m->kinds); i++)
			for (size_t c = 0; c < m->kinds[i].n; c++)
				json_object_object_add(row, m->kinds[i].v[c].name,
						       json_object_new_string(pci_relation_word(topology_relation(
							       m->t, m->rows->v[r].func, m->kinds[i].v[c].func))));
		json_object_object_add(o, m->rows->v[r].name, row);
	}
	return o;
}

struct json_object *topology_matrix_to_json(const struct topology *t, const struct host_use *use)
{
	struct json_object *o = json_object_new_object(), *devices = json_object_new_array();
	struct json_object *words = json_object_new_array();
	struct matrix m = { .t = t, .use = use };

	matrix_init(&m);
	for (size_t i = 0; i < ARRAY_SIZE(m.kinds); i++)
		for (size_t k = 0; k < m.kinds[i].n; k++)
			json_object_array_add(devices, member_json(&m, &m.kinds[i].v[k]));
	for (size_t i = 0; i < ARRAY_SIZE(legend); i++) {
		struct json_object *w = json_object_new_object();

		json_object_object_add(w, "word", json_object_new_string(pci_relation_word(legend[i].rel)));
		json_object_object_add(w, "rank", json_object_new_int((int)legend[i].rel));
		json_object_object_add(w, "meaning", json_object_new_string(legend[i].text));
		json_object_array_add(words, w);
	}
	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "host", *t->host_name ? json_object_new_string(t->host_name) : NULL);
	json_object_object_add(o, "devices", devices);
	json_object_object_add(o, "relations", relations_json(&m));
	json_object_object_add(o, "legend", words);
	matrix_clear(&m);
	return o;
}
