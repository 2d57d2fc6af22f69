/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw_topology.c - the host as a tree.
 *
 * How it works: the tree is turned into rows first, so that all columns can be aligned over the whole machine whatever
 * the depth; then the rows are printed.  Downstream ports say nothing that the device below does not, and are left out
 * (their device stands in their place); a root port with nothing but a switch below shares its line. */
#include <inttypes.h>
#include <string.h>

#include "draw_priv.h"

#define MAX_NAME 36

enum column { COL_LABEL, COL_BDF, COL_NAME, COL_DRIVER, COL_GROUP, COL_LINK, COL_BAR, N_COLUMNS };

/* What a row is coloured as. */
enum look { LOOK_PORT, LOOK_DEVICE, LOOK_GPU };

struct row {
	char *prefix; /* tree lines */
	enum look look;
	char *text; /* of a port: the whole row */
	char *cell[N_COLUMNS];
	char *note; /* what is special */
	bool note_busy;
};

struct drawing {
	const struct topology *t;
	const struct host_use *use;
	unsigned int flags;
	FILE *out;
	bool *visible; /* by function */
	struct row *rows;
	size_t n_rows;
};

struct tree_style {
	const char *tee, *last, *bar, *blank, *below, *stretch, *more;
};

static const struct tree_style *style_of(const struct drawing *d)
{
	static const struct tree_style utf8 = { "├─ ", "└─ ", "│  ", "   ", " → ", "─", "…" };
	static const struct tree_style ascii = { "|- ", "`- ", "|  ", "   ", " > ", "-", "..." };

	return d->flags & DRAW_UTF8 ? &utf8 : &ascii;
}

/* --- words ------------------------------------------------------------------------------------------- */

/* Columns that UTF-8 text takes, without combining or wide characters: names of devices have none. */
static int text_width(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

/* Three digits are enough to compare: "256 GiB", "1.5 GiB", "32 MiB". GiB up to 10 TiB, so that nodes compare. */
const char *draw_rough_size(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	size_t u = 0;

	while (u < 4 && v >= 1024 && (u < 3 || v >= 10240)) {
		v /= 1024;
		u++;
	}
	if (v < 10 && v - (double)(uint64_t)v >= 0.05)
		snprintf(buf, 32, "%.1f %s", v, units[u]);
	else
		snprintf(buf, 32, "%.0f %s", v, units[u]);
	return buf;
}

const char *draw_link_text(struct pci_link l, char buf[32])
{
	if (!l.mts || !l.width)
		buf[0] = '\0';
	else if (l.mts % 1000)
		snprintf(buf, 32, "%u.%u GT/s x%u", l.mts / 1000, l.mts % 1000 / 100, l.width);
	else
		snprintf(buf, 32, "%u GT/s x%u", l.mts / 1000, l.width);
	return buf;
}

/* Vendors by the names of pci.ids, and what they are called. */
static const struct {
	const char *full, *brief;
} vendors[] = {
	{ "NVIDIA Corporation", "NVIDIA" },
	{ "Advanced Micro Devices, Inc. [AMD/ATI]", "AMD" },
	{ "Advanced Micro Devices, Inc. [AMD]", "AMD" },
	{ "Intel Corporation", "Intel" },
	{ "Mellanox Technologies", "Mellanox" },
	{ "Broadcom Inc. and subsidiaries", "Broadcom" },
	{ "Broadcom / LSI", "Broadcom" },
	{ "Samsung Electronics Co Ltd", "Samsung" },
	{ "KIOXIA Corporation", "KIOXIA" },
	{ "Micron Technology Inc", "Micron" },
	{ "Marvell Technology Group Ltd.", "Marvell" },
	{ "ASPEED Technology, Inc.", "ASPEED" },
	{ "Solidigm", "Solidigm" },
	{ "Red Hat, Inc.", "Red Hat" },
};

const char *pci_func_short_name(const struct pci_func *f, char buf[96])
{
	const char *brief = "", *rest = f->name, *open, *close;

	for (size_t i = 0; i < ARRAY_SIZE(vendors); i++) {
		size_t n = strlen(vendors[i].full);

		if (!strncmp(f->name, vendors[i].full, n) && f->name[n] == ' ') {
			brief = vendors[i].brief;
			rest = f->name + n + 1;
			break;
		}
	}
	/* Of GPUs and NICs the marketing name stands in brackets behind that of the chip. */
	open = f->role == ROLE_GPU || f->role == ROLE_NIC || f->role == ROLE_NVSWITCH || f->role == ROLE_FABRIC ? strrchr(rest, '[') : NULL;
	close = open ? strrchr(open, ']') : NULL;
	if (*brief && close && close > open + 1)
		snprintf(buf, 96, "%s %.*s", brief, (int)(close - open - 1), open + 1);
	else if (!strncmp(rest, brief, strlen(brief))) /* "ASPEED Technology, Inc. ASPEED Graphics Family" */
		snprintf(buf, 96, "%s", rest);
	else
		snprintf(buf, 96, "%s %.*s", brief, 80, rest);
	return buf;
}

static const char *class_word(uint32_t class_code)
{
	static const struct {
		unsigned int code;
		const char *word;
	} words[] = { { 0x0104, "raid" }, { 0x0106, "sata" },   { 0x0107, "sas" },     { 0x0600, "host" },
		      { 0x0601, "isa" },  { 0x0604, "bridge" }, { 0x0300, "display" }, { 0x0403, "audio" },
		      { 0x0c03, "usb" },  { 0x0c05, "smbus" },  { 0x0806, "iommu" },   { 0x0880, "system" },
		      { 0x0100, "scsi" }, { 0x0180, "storage" } };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].code == class_code >> 8)
			return words[i].word;
	return "other";
}

/* "gpu 3", "nic", "sata" */
char *draw_label(const struct pci_func *f)
{
	if (f->gpu_index >= 0)
		return xasprintf("gpu %d", f->gpu_index);
	if (f->role == ROLE_OTHER)
		return xstrdup(class_word(f->class_code));
	return xasprintf("%s%s", pci_role_word(f->role), f->is_vf ? " vf" : "");
}

const char *draw_port_word(const struct topology *t, int i)
{
	const struct pci_func *f = &t->funcs[i];

	if (topology_is_upstream(t, i))
		return "switch";
	if (f->port == PORT_DOWNSTREAM || (f->parent >= 0 && topology_is_upstream(t, f->parent)))
		return "port";
	if (f->port == PORT_ROOT || (f->port == PORT_UNKNOWN && f->parent < 0))
		return "root port";
	return "bridge";
}

/* --- what is special about a function -------------------------------------------------------------------- */

static const struct used_device *user_of(const struct host_use *use, const struct pci_addr *a)
{
	for (size_t i = 0; use && i < use->n_devices; i++)
		if (pci_addr_cmp(&use->devices[i].addr, a) == 0)
			return &use->devices[i];
	return NULL;
}

static void add_note(char **note, char *more)
{
	AUTO_FREE char *old = *note, *add = more;

	*note = old ? xasprintf("%s; %s", old, add) : xstrdup(add);
}

/* Endpoints that would have to go with the device, for there is no isolation from them. */
static void note_group(const struct topology *t, int i, char **note)
{
	int members[16];
	size_t n = topology_group(t, i, members, ARRAY_SIZE(members));
	AUTO_FREE char *list = NULL;

	for (size_t k = 0; k < n && k < ARRAY_SIZE(members); k++) {
		const struct pci_func *f = &t->funcs[members[k]];
		AUTO_FREE char *old = list;
		char bdf[PCI_ADDR_STR];

		list = NULL;
		if (members[k] != i && f->role != ROLE_BRIDGE)
			list = xasprintf("%s%s%s", old ? old : "", old ? ", " : "", pci_addr_format(&f->addr, bdf));
		else
			list = STEAL_PTR(old);
	}
	if (list)
		add_note(note, xasprintf("group shared with %s", list));
}

static void note_link(const struct pci_func *f, char **note)
{
	/* Speed goes down when idle; lanes do not. */
	if (f->link.cur_width && f->link.cur_width < f->link.max_width)
		add_note(note, xasprintf("link is x%u, could be x%u", f->link.cur_width, f->link.max_width));
}

static void fill_note(const struct drawing *d, int i, int section, struct row *r)
{
	const struct pci_func *f = &d->t->funcs[i];
	const struct used_device *u = user_of(d->use, &f->addr);

	if (u)
		add_note(&r->note, xasprintf("vm %s", u->vm));
	if (f->bad)
		add_note(&r->note, xasprintf("BAD: %s", f->bad));
	if (f->host_use)
		add_note(&r->note, xasprintf("in use by host: %s", f->host_use));
	r->note_busy = r->note != NULL;
	if (*f->os_name)
		add_note(&r->note, xstrdup(f->os_name));
	if (f->boot_vga)
		add_note(&r->note, xstrdup("console"));
	if (f->sriov_vfs)
		add_note(&r->note, xasprintf("%u VF%s on", f->sriov_vfs, f->sriov_vfs == 1 ? "" : "s"));
	if (f->node != section && f->node >= 0)
		add_note(&r->note, xasprintf("on node %d", d->t->nodes[f->node].id));
	if (*f->override && strcmp(f->override, f->driver))
		add_note(&r->note, xasprintf("override %s", f->override));
	note_link(f, &r->note);
	if (f->role != ROLE_OTHER)
		note_group(d->t, i, &r->note);
}

/* --- rows ----------------------------------------------------------------------------------------------------- */

bool draw_is_interesting(const struct pci_func *f)
{
	if (f->host_use || f->bad)
		return true;
	return !f->is_vf && f->role != ROLE_OTHER && f->role != ROLE_BRIDGE;
}

/* Children come behind their parents: one pass from the end marks the bridges above what is shown. */
static void mark_visible(struct drawing *d)
{
	const struct topology *t = d->t;

	d->visible = xcalloc(t->n_funcs, sizeof(*d->visible));
	for (size_t i = t->n_funcs; i-- > 0;) {
		d->visible[i] |= d->flags & DRAW_ALL || draw_is_interesting(&t->funcs[i]);
		if (d->visible[i] && t->funcs[i].parent >= 0)
			d->visible[t->funcs[i].parent] = true;
	}
}

static bool is_left_out(const struct drawing *d, int i)
{
	return !(d->flags & DRAW_ALL) && d->t->funcs[i].role == ROLE_BRIDGE && !strcmp(draw_port_word(d->t, i), "port");
}

/* Functions to be drawn right below @parent; what hangs from a port that is left out takes its place. */
static void collect_children(const struct drawing *d, int parent, int **list, size_t *n)
{
	for (size_t i = (size_t)parent + 1; i < d->t->n_funcs; i++) {
		if (d->t->funcs[i].parent != parent || !d->visible[i])
			continue;
		if (is_left_out(d, (int)i))
			collect_children(d, (int)i, list, n);
		else
			*PUSH_ZEROED(*list, *n) = (int)i;
	}
}

/* One long name would push all columns to the right. Owned. */
static char *cut_name(const struct drawing *d, const char *name)
{
	if (strlen(name) <= MAX_NAME)
		return xstrdup(name);
	return xasprintf("%.*s%s", MAX_NAME - 3, name, style_of(d)->more);
}

static void add_device(struct drawing *d, int i, int section, char *prefix)
{
	const struct pci_func *f = &d->t->funcs[i];
	struct row *r = PUSH_ZEROED(d->rows, d->n_rows);
	uint64_t bars = pci_func_bar_bytes(f);
	char bdf[PCI_ADDR_STR], name[96], buf[32];

	r->prefix = prefix;
	r->look = f->role == ROLE_GPU ? LOOK_GPU : LOOK_DEVICE;
	r->cell[COL_LABEL] = draw_label(f);
	r->cell[COL_BDF] = xstrdup(pci_addr_format(&f->addr, bdf));
	r->cell[COL_NAME] = cut_name(d, pci_func_short_name(f, name));
	r->cell[COL_DRIVER] = xstrdup(*f->driver ? f->driver : "-");
	r->cell[COL_GROUP] = f->iommu_group >= 0 ? xasprintf("group %d", f->iommu_group) : xstrdup("-");
	r->cell[COL_LINK] = xstrdup(draw_link_text(topology_path_link(d->t, i), buf));
	r->cell[COL_BAR] = xstrdup(bars ? draw_rough_size(bars, buf) : "");
	fill_note(d, i, section, r);
}

static void add_level(struct drawing *d, const int *list, size_t n, int section, const char *prefix);

/* A port's row and what is below it. While its only child is another port, that one joins the row. */
static void add_port(struct drawing *d, int i, int section, const char *prefix, bool last)
{
	const struct tree_style *s = style_of(d);
	AUTO_FREE char *text = NULL, *inner = xasprintf("%s%s", prefix, last ? s->blank : s->bar);
	AUTO_FREE int *list = NULL;
	size_t n, at = d->n_rows;

	*PUSH_ZEROED(d->rows, d->n_rows) =
		(struct row){ .prefix = xasprintf("%s%s", prefix, last ? s->last : s->tee), .look = LOOK_PORT };
	for (;;) {
		AUTO_FREE char *old = text;
		char bdf[PCI_ADDR_STR];

		text = xasprintf("%s%s%s %s", old ? old : "", old ? s->below : "", draw_port_word(d->t, i),
				 pci_addr_format(&d->t->funcs[i].addr, bdf));
		free(list);
		list = NULL;
		n = 0;
		collect_children(d, i, &list, &n);
		if (n != 1 || d->t->funcs[list[0]].role != ROLE_BRIDGE || d->flags & DRAW_ALL)
			break;
		i = list[0];
	}
	d->rows[at].text = STEAL_PTR(text);
	add_level(d, list, n, section, inner);
}

static void add_level(struct drawing *d, const int *list, size_t n, int section, const char *prefix)
{
	const struct tree_style *s = style_of(d);

	for (size_t k = 0; k < n; k++) {
		bool last = k + 1 == n;

		if (d->t->funcs[list[k]].role == ROLE_BRIDGE)
			add_port(d, list[k], section, prefix, last);
		else
			add_device(d, list[k], section, xasprintf("%s%s", prefix, last ? s->last : s->tee));
	}
}

/* Rows of everything whose topmost bridge is on node index @section (-1: on none). */
static void add_section(struct drawing *d, int section)
{
	AUTO_FREE int *all = NULL;
	size_t n = 0, kept = 0;

	collect_children(d, -1, &all, &n);
	for (size_t k = 0; k < n; k++)
		if (d->t->funcs[all[k]].node == section)
			all[kept++] = all[k];
	add_level(d, all, kept, section, "");
}

static void rows_clear(struct drawing *d)
{
	for (size_t i = 0; i < d->n_rows; i++) {
		free(d->rows[i].prefix);
		free(d->rows[i].text);
		free(d->rows[i].note);
		for (size_t c = 0; c < N_COLUMNS; c++)
			free(d->rows[i].cell[c]);
	}
	free(d->rows);
	d->rows = NULL;
	d->n_rows = 0;
}

/* --- printing --------------------------------------------------------------------------------------------------- */

#define DIM    "\033[2m"
#define BOLD   "\033[1m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define RESET  "\033[0m"

static void print_styled(const struct drawing *d, const char *style, const char *text)
{
	if (d->flags & DRAW_COLOR && *text)
		fprintf(d->out, "%s%s" RESET, style, text);
	else
		fputs(text, d->out);
}

struct widths {
	int prefix, cell[N_COLUMNS];
};

static void measure(const struct drawing *d, struct widths *w)
{
	for (size_t i = 0; i < d->n_rows; i++) {
		const struct row *r = &d->rows[i];
		int n = text_width(r->prefix);

		if (r->look == LOOK_PORT)
			continue;
		w->prefix = n > w->prefix ? n : w->prefix;
		for (size_t c = 0; c < N_COLUMNS; c++) {
			n = text_width(r->cell[c]);
			w->cell[c] = n > w->cell[c] ? n : w->cell[c];
		}
	}
}

/* The tree lines of a device, drawn out to where the deepest one begins. */
static void print_branch(const struct drawing *d, const struct row *r, int width)
{
	AUTO_FREE char *line = xstrndup(r->prefix, strlen(r->prefix) - 1); /* without the blank */

	for (int n = text_width(r->prefix); n < width; n++) {
		AUTO_FREE char *old = line;

		line = xasprintf("%s%s", old, style_of(d)->stretch);
	}
	print_styled(d, DIM, line);
	fputc(' ', d->out);
}

static void print_cells(const struct drawing *d, const struct row *r, const struct widths *w)
{
	int gap = 0; /* blanks owed to the next text; none are left at the end of a line */

	for (int c = 0; c < N_COLUMNS; c++) {
		int pad = w->cell[c] - text_width(r->cell[c]);

		if (!w->cell[c])
			continue;
		if (c == COL_BAR) /* sizes read best flush right */
			gap += pad;
		if (*r->cell[c]) {
			fprintf(d->out, "%*s", gap, "");
			gap = 0;
			print_styled(d, c == COL_LABEL && r->look == LOOK_GPU ? BOLD GREEN : "", r->cell[c]);
		}
		gap += 2 + (c == COL_BAR ? 0 : pad);
	}
	if (r->note) {
		fprintf(d->out, "%*s", gap, "");
		print_styled(d, r->note_busy ? YELLOW : "", r->note);
	}
	fputc('\n', d->out);
}

static void print_rows(const struct drawing *d, size_t from, size_t to, const struct widths *w)
{
	for (size_t i = from; d->rows && i < to; i++) {
		const struct row *r = &d->rows[i];

		if (r->look == LOOK_PORT) {
			print_styled(d, DIM, r->prefix);
			print_styled(d, DIM, r->text);
			fputc('\n', d->out);
		} else {
			print_branch(d, r, w->prefix);
			print_cells(d, r, w);
		}
	}
}

/* Cores of node index @node, -1: of the machine. */
int draw_count_cores(const struct topology *t, int node)
{
	struct cpuset cores = { 0 };

	for (size_t i = 0; i < t->n_cpus; i++)
		if (node < 0 || t->cpus[i].node == node)
			cpuset_add(&cores, t->cpus[i].core);
	return cpuset_count(&cores);
}

static void print_pools(const struct drawing *d, const struct host_node *n)
{
	bool any = false;
	char size[32];

	for (size_t i = 0; i < n->n_pools; i++) {
		if (!n->pools[i].total)
			continue;
		fprintf(d->out, "%s%" PRIu64 " of %" PRIu64 " x %s",
			any ? ", " : "; hugepages free: ", n->pools[i].free, n->pools[i].total,
			draw_rough_size(n->pools[i].page_bytes, size));
		any = true;
	}
	if (!any)
		fputs("; no hugepages", d->out);
}

static void print_isolated(const struct drawing *d, int node)
{
	struct cpuset set = { 0 };
	AUTO_FREE char *list = NULL;

	for (size_t i = 0; i < d->t->n_cpus; i++)
		if (d->t->cpus[i].node == node && d->t->cpus[i].isolated)
			cpuset_add(&set, d->t->cpus[i].cpu);
	list = cpuset_format(&set);
	if (*list)
		fprintf(d->out, ", isolated %s", list);
}

static void print_node(const struct drawing *d, int i)
{
	const struct host_node *n = &d->t->nodes[i];
	AUTO_FREE char *cpus = cpuset_format(&n->cpus), *head = xasprintf("node %d", n->id);
	int cores = draw_count_cores(d->t, i);
	char size[32], avail[32];

	fputc('\n', d->out);
	print_styled(d, BOLD, head);
	fprintf(d->out, " (socket %d)  ", n->socket);
	if (*cpus)
		fprintf(d->out, "%d core%s, CPUs %s", cores, cores == 1 ? "" : "s", cpus);
	else
		fputs("no CPUs", d->out);
	print_isolated(d, i);
	fprintf(d->out, "; %s, %s free", draw_rough_size(n->mem_bytes, size), draw_rough_size(n->free_bytes, avail));
	print_pools(d, n);
	fputc('\n', d->out);
}

static void print_counts(const struct drawing *d)
{
	static const struct {
		enum pci_role role;
		const char *one, *many;
	} words[] = { { ROLE_GPU, "GPU", "GPUs" },
		      { ROLE_NIC, "NIC", "NICs" },
		      { ROLE_NVME, "NVMe", "NVMe" },
		      { ROLE_NVSWITCH, "NVSwitch", "NVSwitches" } };

	for (size_t k = 0; k < ARRAY_SIZE(words); k++) {
		int n = 0;

		for (size_t i = 0; i < d->t->n_funcs; i++)
			n += d->t->funcs[i].role == words[k].role && !d->t->funcs[i].is_vf;
		if (n || words[k].role == ROLE_GPU)
			fprintf(d->out, ", %d %s", n, n == 1 ? words[k].one : words[k].many);
	}
}

static void print_allowed(const struct drawing *d)
{
	AUTO_FREE char *allowed = cpuset_format(&d->t->allowed);

	if ((size_t)cpuset_count(&d->t->allowed) < d->t->n_cpus)
		fprintf(d->out, "we may use only CPUs %s\n", *allowed ? allowed : "(none)");
}

static void print_gaps(const struct drawing *d)
{
	AUTO_FREE char *gaps = topology_gaps_text(d->t), *line = xasprintf("not known from %s: %s", d->t->root, gaps);

	print_styled(d, YELLOW, line);
	fputc('\n', d->out);
}

static void print_machine(const struct drawing *d)
{
	const struct topology *t = d->t;
	uint64_t mem = 0;
	int cores = draw_count_cores(t, -1);
	char size[32];

	for (size_t i = 0; i < t->n_nodes; i++)
		mem += t->nodes[i].mem_bytes;
	print_styled(d, BOLD, *t->host_name ? t->host_name : "(no name)");
	fprintf(d->out, ": %d socket%s, %d core%s, %zu CPU%s, %s", t->n_sockets, t->n_sockets == 1 ? "" : "s", cores,
		cores == 1 ? "" : "s", t->n_cpus, t->n_cpus == 1 ? "" : "s", draw_rough_size(mem, size));
	print_counts(d);
	fprintf(d->out, "\n%s", *t->cpu_vendor ? t->cpu_vendor : "unknown CPU");
	if (t->phys_bits)
		fprintf(d->out, ", %d address bits", t->phys_bits);
	if (t->gaps & (GAP_GROUPS | GAP_DRIVERS)) {
		fprintf(d->out, ", Linux %s\n", *t->kernel ? t->kernel : "of unknown version");
		print_gaps(d);
		return;
	}
	fputs(", IOMMU ", d->out);
	if (t->iommu_groups && t->iommu_bits)
		fprintf(d->out, "on (%d bits)", t->iommu_bits);
	else
		print_styled(d, t->iommu_groups ? "" : YELLOW,
			     t->iommu_groups ? "on" : "off: no device can be passed through");
	fprintf(d->out, ", KVM %s, VFIO %s, Linux %s\n", t->kvm ? "yes" : "no", t->vfio ? "yes" : "no", t->kernel);
	print_allowed(d);
}

void topology_print(const struct topology *t, const struct host_use *use, unsigned int flags, FILE *out)
{
	struct drawing d = { .t = t, .use = use, .flags = flags, .out = out };
	AUTO_FREE size_t *ends = xcalloc(t->n_nodes, sizeof(*ends));
	struct widths w = { 0 };

	mark_visible(&d);
	for (size_t i = 0; i < t->n_nodes; i++) {
		add_section(&d, (int)i);
		ends[i] = d.n_rows;
	}
	add_section(&d, -1);
	measure(&d, &w);

	print_machine(&d);
	for (size_t i = 0; i < t->n_nodes; i++) {
		print_node(&d, (int)i);
		print_rows(&d, i ? ends[i - 1] : 0, ends[i], &w);
	}
	if (t->n_nodes && ends[t->n_nodes - 1] < d.n_rows) {
		fputs("\nnode not known\n", out);
		print_rows(&d, ends[t->n_nodes - 1], d.n_rows, &w);
	}
	rows_clear(&d);
	free(d.visible);
}
