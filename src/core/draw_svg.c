/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw_svg.c - the machine as a picture: sockets, in them nodes, in those CPUs, memory and the PCIe tree.
 *
 * How it works: everything is measured for many widths of the page, with sockets below and beside each other; the
 * smallest page whose proportions are about those of a sheet of paper is drawn.  Colour means a VM, wherever it is; kinds
 * of devices have a coloured edge, and what the host itself needs is hatched. */
#include <string.h>

#include "draw_svg_priv.h"

#define MARGIN      28.0
#define PAD         14.0
#define GAP         14.0
#define TITLE_H     70.0
#define SOCKET_HEAD 30.0
#define NODE_HEAD   28.0
#define LEGEND_ROW  22.0
#define RATIO       1.45 /* width to height: between A4 and a screen */
#define MIN_WIDTH   640.0
#define MAX_WIDTH   3600.0

const struct svg_font font_title = { .size = 27, .bold = true, .fill = INK };
const struct svg_font font_head = { .size = 15, .bold = true, .fill = INK };
const struct svg_font font_text = { .size = 11, .fill = INK };
const struct svg_font font_small = { .size = 10, .fill = FAINT };
const struct svg_font font_mono = { .size = 10.5, .mono = true, .fill = FAINT };
const struct svg_font font_bold = { .size = 11.5, .bold = true, .fill = INK };

/* Paul Tol's "bright" and "muted" schemes, those that white text can be read on. */
static const char *const palette[] = { "#3465a4", "#c8444f", "#228833", "#9a6a00", "#aa3377",
				       "#117788", "#5b4aa0", "#b3541e", "#4d6b1f", "#7a4b4b" };

struct node_box {
	int node; /* index; -1: devices without a node */
	double x, y, w, h, cpu_h;
	struct boxes pci;
};

struct socket_box {
	int socket;
	double x, y, w, h;
	struct node_box *nodes;
	size_t n;
};

struct page {
	struct picture p;
	double w, h; /* of the whole */
	double legend_y;
	struct socket_box *sockets;
	size_t n;
};

const char *picture_colour(const struct picture *p, const char *vm)
{
	for (size_t i = 0; vm && i < p->vms.n; i++)
		if (!strcmp(p->vms.v[i], vm))
			return palette[i % ARRAY_SIZE(palette)];
	return "";
}

/* --- what there is --------------------------------------------------------------------------------------- */

static int name_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_vm(struct strv *v, const char *vm)
{
	if (!strv_contains(v, vm))
		strv_push(v, vm);
}

static void collect_vms(struct picture *p)
{
	const struct host_use *u = p->use;

	for (size_t i = 0; u && i < u->n_devices; i++)
		add_vm(&p->vms, u->devices[i].vm);
	for (size_t i = 0; u && i < u->n_cpus; i++)
		add_vm(&p->vms, u->cpus[i].vm);
	for (size_t i = 0; u && i < u->n_memory; i++)
		add_vm(&p->vms, u->memory[i].vm);
	if (p->vms.n)
		qsort(p->vms.v, p->vms.n, sizeof(*p->vms.v), name_cmp);
}

static struct socket_box *find_socket(struct page *g, int socket)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->sockets[i].socket == socket)
			return &g->sockets[i];
	PUSH_ZEROED(g->sockets, g->n)->socket = socket;
	return &g->sockets[g->n - 1];
}

static void add_node(struct page *g, int socket, int node)
{
	struct socket_box *s = find_socket(g, socket);
	struct node_box *b = PUSH_ZEROED(s->nodes, s->n);

	b->node = node;
	boxes_build(g->p.t, node, &b->pci);
}

static void page_build(struct page *g)
{
	struct boxes lost;

	collect_vms(&g->p);
	for (size_t i = 0; i < g->p.t->n_nodes; i++)
		add_node(g, g->p.t->nodes[i].socket, (int)i);
	boxes_build(g->p.t, -1, &lost);
	if (lost.n)
		add_node(g, -1, -1);
	boxes_clear(&lost);
}

static void page_clear(struct page *g)
{
	for (size_t i = 0; i < g->n; i++) {
		for (size_t k = 0; k < g->sockets[i].n; k++)
			boxes_clear(&g->sockets[i].nodes[k].pci);
		free(g->sockets[i].nodes);
	}
	free(g->sockets);
	strv_clear(&g->p.vms);
}

/* --- where it goes ------------------------------------------------------------------------------------------- */

static void measure_node(struct page *g, struct node_box *b, double width)
{
	double inner = width - 2 * PAD;

	b->w = width;
	boxes_layout(&g->p, &b->pci, inner);
	b->h = NODE_HEAD + PAD;
	if (b->node >= 0) {
		b->cpu_h = cpus_height(&g->p, b->node, inner);
		b->h += b->cpu_h + (b->cpu_h > 0 ? GAP : 0) + MEMORY_HEIGHT;
	}
	if (b->pci.n)
		b->h += b->pci.h + (b->node >= 0 ? 6 : 0);
}

/* Nodes of one socket share its width, two in a row; a last one that is alone takes it all. */
static void measure_socket(struct page *g, struct socket_box *s, double width)
{
	double y = SOCKET_HEAD, row_h = 0;

	for (size_t i = 0; i < s->n; i++) {
		bool pair = s->n > 1 && (i % 2 || i + 1 < s->n);

		measure_node(g, &s->nodes[i], pair ? (width - 3 * PAD) / 2 : width - 2 * PAD);
		s->nodes[i].x = i % 2 ? PAD + s->nodes[i].w + PAD : PAD;
		if (i % 2 == 0 && i) {
			y += row_h + PAD;
			row_h = 0;
		}
		s->nodes[i].y = y;
		row_h = s->nodes[i].h > row_h ? s->nodes[i].h : row_h;
	}
	/* Neighbours are equally high. */
	for (size_t i = 0; i < s->n; i++)
		for (size_t k = 0; k < s->n; k++)
			if (s->nodes[k].y == s->nodes[i].y && s->nodes[k].h > s->nodes[i].h)
				s->nodes[i].h = s->nodes[k].h;
	s->h = y + row_h + PAD;
}

/* The nodes of its last row grow with it. */
static void grow_socket(struct socket_box *s, double more)
{
	double last = s->nodes[s->n - 1].y;

	s->h += more;
	for (size_t i = 0; i < s->n; i++)
		if (s->nodes[i].y == last)
			s->nodes[i].h += more;
}

/* The legend: below it ends, from the top of it. With @draw, at @y. */
static double legend(const struct page *g, double y, bool draw);

/* Sockets in @columns columns. */
static void page_measure(struct page *g, double width, int columns)
{
	double y = TITLE_H + MARGIN / 2, row_h = 0, each = (width - 2 * MARGIN - (columns - 1) * GAP) / columns;

	g->w = width;
	for (size_t i = 0; i < g->n; i++) {
		struct socket_box *k = &g->sockets[i];
		int column = (int)i % columns;

		if (column == 0 && i) {
			y += row_h + GAP;
			row_h = 0;
		}
		k->w = each;
		k->x = MARGIN + column * (each + GAP);
		k->y = y;
		measure_socket(g, k, each);
		row_h = k->h > row_h ? k->h : row_h;
	}
	for (size_t i = 0; i < g->n; i++) /* neighbours are equally high */
		for (size_t k = 0; k < g->n; k++)
			if (g->sockets[k].y == g->sockets[i].y && g->sockets[k].h > g->sockets[i].h)
				grow_socket(&g->sockets[i], g->sockets[k].h - g->sockets[i].h);
	g->legend_y = y + row_h + MARGIN;
	g->h = g->legend_y + legend(g, 0, false) + MARGIN / 2;
}

static bool node_fits(const struct page *g, const struct node_box *b)
{
	double inner = b->w - 2 * PAD;

	return b->pci.w <= inner && (b->node < 0 || memory_width(&g->p, b->node) <= inner);
}

/* Is everything inside its frame? A card has its width, however narrow the page. */
static bool page_fits(const struct page *g)
{
	for (size_t i = 0; i < g->n; i++)
		for (size_t k = 0; k < g->sockets[i].n; k++)
			if (!node_fits(g, &g->sockets[i].nodes[k]))
				return false;
	return true;
}

/* Area, times what it is too long or too high: small is good. */
static double page_cost(const struct page *g)
{
	double ratio = g->w / g->h / RATIO, off = ratio > 1 ? ratio : 1 / ratio;

	return g->w * g->h * (off < 1.3 ? 1 : off * off);
}

static void choose_width(struct page *g)
{
	double best = MAX_WIDTH, best_cost = -1;
	int best_columns = 1;

	for (int columns = 1; columns <= 2 && (columns == 1 || g->n > 1); columns++) {
		for (int i = 0; MIN_WIDTH + 40 * i <= MAX_WIDTH; i++) {
			double w = MIN_WIDTH + 40 * i;

			page_measure(g, w, columns);
			if (!page_fits(g) || (best_cost >= 0 && page_cost(g) >= best_cost))
				continue;
			best_cost = page_cost(g);
			best = w;
			best_columns = columns;
		}
	}
	page_measure(g, best, best_columns);
}

/* --- drawing ----------------------------------------------------------------------------------------------------- */

static void draw_node(const struct page *g, const struct node_box *b, double x, double y)
{
	const struct topology *t = g->p.t;
	double inner = b->w - 2 * PAD;

	svg_rect(g->p.out, x, y, b->w, b->h, 8, "fill=\"#ffffff\" stroke=\"#cbd2d9\"");
	if (b->node < 0) {
		svg_text(g->p.out, x + PAD, y + 20, inner, SVG_START, &font_bold, "devices whose node is not known");
	} else {
		const struct host_node *n = &t->nodes[b->node];
		AUTO_FREE char *list = cpuset_format(&n->cpus), *head = xasprintf("node %d", n->id);
		int cores = draw_count_cores(t, b->node);
		AUTO_FREE char *words = *list ? xasprintf("%d core%s, CPUs %s", cores, cores == 1 ? "" : "s", list)
					      : xstrdup("no CPUs");
		double at = svg_text_width(&font_head, head) + 12;

		svg_text(g->p.out, x + PAD, y + 20, inner, SVG_START, &font_head, head);
		svg_text(g->p.out, x + PAD + at, y + 20, inner - at, SVG_START, &font_text, words);
	}
	y += NODE_HEAD;
	if (b->node >= 0) {
		cpus_draw(&g->p, b->node, x + PAD, y, inner);
		y += b->cpu_h + (b->cpu_h > 0 ? GAP : 0);
		memory_draw(&g->p, b->node, x + PAD, y, inner);
		y += MEMORY_HEIGHT + 6;
	}
	boxes_draw(&g->p, &b->pci, x + PAD, y);
}

static void draw_socket(const struct page *g, const struct socket_box *s)
{
	AUTO_FREE char *head = s->socket >= 0 ? xasprintf("Socket %d", s->socket) : xstrdup("Elsewhere");

	svg_rect(g->p.out, s->x, s->y, s->w, s->h, 12, "fill=\"#eef2f6\" stroke=\"#7b8794\" stroke-width=\"1.3\"");
	svg_text(g->p.out, s->x + PAD, s->y + 21, 400, SVG_START, &font_head, head);
	for (size_t i = 0; i < s->n; i++)
		draw_node(g, &s->nodes[i], s->x + s->nodes[i].x, s->y + s->nodes[i].y);
}

static size_t count_role(const struct topology *t, enum pci_role role)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n_funcs; i++)
		n += t->funcs[i].role == role && !t->funcs[i].is_vf;
	return n;
}

static char *machine_words(const struct topology *t)
{
	static const struct {
		enum pci_role role;
		const char *one, *many;
	} roles[] = { { ROLE_GPU, "GPU", "GPUs" },
		      { ROLE_NIC, "NIC", "NICs" },
		      { ROLE_NVME, "NVMe", "NVMe" },
		      { ROLE_NVSWITCH, "NVSwitch", "NVSwitches" } };
	uint64_t bytes = 0;
	char size[32];
	char *out;
	int cores = draw_count_cores(t, -1);

	for (size_t i = 0; i < t->n_nodes; i++)
		bytes += t->nodes[i].mem_bytes;
	out = xasprintf("%d socket%s, %d core%s, %zu CPU%s, %s of memory", t->n_sockets, t->n_sockets == 1 ? "" : "s", cores,
			cores == 1 ? "" : "s", t->n_cpus, t->n_cpus == 1 ? "" : "s", draw_rough_size(bytes, size));
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		size_t n = count_role(t, roles[i].role);
		AUTO_FREE char *old = NULL;

		if (!n)
			continue;
		old = out;
		out = xasprintf("%s, %zu %s", old, n, n == 1 ? roles[i].one : roles[i].many);
	}
	return out;
}

static char *host_words(const struct topology *t)
{
	if (t->gaps)
		return xstrdup("from an hwloc XML");
	return xasprintf("Linux %s, IOMMU %s", *t->kernel ? t->kernel : "?", t->iommu_groups ? "on" : "off");
}

static void draw_title(const struct page *g)
{
	const struct topology *t = g->p.t;
	AUTO_FREE char *words = machine_words(t), *side = host_words(t);
	double side_w = svg_text_width(&font_text, side), room = g->w - 2 * MARGIN;

	svg_text(g->p.out, MARGIN, 46, room, SVG_START, &font_title, *t->host_name ? t->host_name : "(no name)");
	svg_text(g->p.out, MARGIN, 68, room - side_w - 20, SVG_START, &font_text, words);
	svg_text(g->p.out, g->w - MARGIN, 68, room, SVG_END, &font_text, side);
}

/* --- legend --------------------------------------------------------------------------------------------------------- */

/* "4 GPUs and 10 other devices, 92 CPUs, 960 GiB" */
static char *vm_words(const struct page *g, const char *vm)
{
	const struct host_use *u = g->p.use;
	size_t gpus = 0, others = 0;
	uint64_t bytes = 0;
	int cpus = 0;
	char size[32];

	for (size_t i = 0; i < u->n_devices; i++) {
		int f = topology_find_func(g->p.t, &u->devices[i].addr);

		if (strcmp(u->devices[i].vm, vm))
			continue;
		if (f >= 0 && g->p.t->funcs[f].role == ROLE_GPU)
			gpus++;
		else
			others++;
	}
	for (size_t i = 0; i < u->n_cpus; i++)
		cpus += strcmp(u->cpus[i].vm, vm) ? 0 : cpuset_count(&u->cpus[i].cpus);
	for (size_t i = 0; i < u->n_memory; i++)
		bytes += strcmp(u->memory[i].vm, vm) ? 0 : u->memory[i].bytes;
	return xasprintf("%zu GPU%s, %zu other device%s, %d CPU%s, %s", gpus, gpus == 1 ? "" : "s", others,
			 others == 1 ? "" : "s", cpus, cpus == 1 ? "" : "s", draw_rough_size(bytes, size));
}

static double vm_legend(const struct page *g, double y, bool draw)
{
	double name_w = 0;

	for (size_t i = 0; i < g->p.vms.n; i++) {
		double w = svg_text_width(&font_bold, g->p.vms.v[i]);

		name_w = w > name_w ? w : name_w;
	}
	name_w = name_w > 220 ? 220 : name_w;
	for (size_t i = 0; draw && i < g->p.vms.n; i++) {
		AUTO_FREE char *words = vm_words(g, g->p.vms.v[i]);
		double at = MARGIN + 21 + name_w + 16, row = y + (double)i * LEGEND_ROW;
		char style[64];

		snprintf(style, sizeof(style), "fill=\"%s\"", picture_colour(&g->p, g->p.vms.v[i]));
		svg_rect(g->p.out, MARGIN, row - 11, 15, 15, 3, style);
		svg_text(g->p.out, MARGIN + 21, row + 1, name_w + 1, SVG_START, &font_bold, g->p.vms.v[i]);
		svg_text(g->p.out, at, row + 1, g->w - MARGIN - at, SVG_START, &font_text, words);
	}
	return y + (double)g->p.vms.n * LEGEND_ROW;
}

static double legend(const struct page *g, double y, bool draw)
{
	static const struct {
		const char *style, *text;
	} items[] = {
		{ "fill=\"#dde3ea\" stroke=\"" LINE "\"", "core, a stripe per thread" },
		{ "fill=\"#dde3ea\" stroke=\"" INK "\" stroke-width=\"1.4\" stroke-dasharray=\"2.5 1.8\"", "isolated core" },
		{ "fill=\"#bcdcf5\"", "free hugepages" },
		{ "fill=\"#cbd2d9\"", "memory in use" },
		{ "fill=\"url(#hatch)\" stroke=\"" LINE "\"", "used by the host" },
		{ "fill=\"#e3e6ea\" stroke=\"#7b8794\"", "PCIe switch" },
	};
	double x = MARGIN;

	y = vm_legend(g, y, draw);
	for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
		double w = 21 + svg_text_width(&font_text, items[i].text);

		if (x > MARGIN && x + w > g->w - MARGIN) {
			x = MARGIN;
			y += LEGEND_ROW;
		}
		if (draw) {
			svg_rect(g->p.out, x, y - 11, 15, 15, 3, items[i].style);
			svg_text(g->p.out, x + 21, y + 1, w, SVG_START, &font_text, items[i].text);
		}
		x += w + 22;
	}
	return y;
}

static void draw_page(const struct page *g)
{
	fprintf(g->p.out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n<title>",
		g->w, g->h, g->w, g->h);
	svg_escape(g->p.out, *g->p.t->host_name ? g->p.t->host_name : "machine");
	fputs("</title>\n<defs><pattern id=\"hatch\" width=\"9\" height=\"9\" patternUnits=\"userSpaceOnUse\" "
	      "patternTransform=\"rotate(45)\"><path d=\"M0 0V9\" stroke=\"#616e7c\" stroke-width=\"2.4\" "
	      "stroke-opacity=\"0.2\"/></pattern></defs>\n",
	      g->p.out);
	svg_rect(g->p.out, 0, 0, g->w, g->h, 0, "fill=\"#fbfcfd\"");
	draw_title(g);
	for (size_t i = 0; i < g->n; i++)
		draw_socket(g, &g->sockets[i]);
	legend(g, g->legend_y, true);
	fputs("</svg>\n", g->p.out);
}

void topology_draw_svg(const struct topology *t, const struct host_use *use, FILE *out)
{
	struct page g = { .p = { .t = t, .use = use, .out = out } };

	page_build(&g);
	choose_width(&g);
	draw_page(&g);
	page_clear(&g);
}
