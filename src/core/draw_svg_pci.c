/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw_svg_pci.c - root ports and switches as boxes in boxes, devices as cards in them. */
#include <string.h>

#include "draw_svg_priv.h"

#define CARD_W    232.0
#define CARD_H    52.0
#define REASON_H  14.0 /* more, for why no VM may have it */
#define GAP       8.0
#define PAD       8.0
#define HEADER    21.0
#define STRETCH   140.0 /* of a card at most, to fill a row */
#define COLUMN_H  300.0 /* cards higher than that are set in two columns */

#define BAD       "#c53030"

static const struct svg_font font_bad = { .size = 10, .bold = true, .fill = BAD };

/* --- who is shown ---------------------------------------------------------------------------------------- */

static void mark_visible(const struct topology *t, bool *visible)
{
	for (size_t i = t->n_funcs; i-- > 0;) {
		visible[i] |= draw_is_interesting(&t->funcs[i]);
		if (visible[i] && t->funcs[i].parent >= 0)
			visible[t->funcs[i].parent] = true;
	}
}

/* A downstream port says nothing that its device does not: that takes its place. */
static void add_children(const struct topology *t, const bool *visible, int parent, int node, struct box **v, size_t *n)
{
	for (size_t i = (size_t)(parent + 1); i < t->n_funcs; i++) {
		const struct pci_func *f = &t->funcs[i];
		bool bridge = f->role == ROLE_BRIDGE;
		struct box *b;

		if (f->parent != parent || !visible[i] || (parent < 0 && f->node != node))
			continue;
		if (bridge && !strcmp(draw_port_word(t, (int)i), "port")) {
			add_children(t, visible, (int)i, node, v, n);
			continue;
		}
		b = PUSH_ZEROED(*v, *n);
		b->func = (int)i;
		b->port = bridge;
		if (bridge) {
			struct box *kids = NULL;
			size_t n_kids = 0;

			add_children(t, visible, (int)i, node, &kids, &n_kids);
			(*v)[*n - 1].kids = kids;
			(*v)[*n - 1].n = n_kids;
		}
	}
}

void boxes_build(const struct topology *t, int node, struct boxes *ret)
{
	AUTO_FREE bool *visible = xcalloc(t->n_funcs + 1, sizeof(*visible));

	*ret = (struct boxes){ 0 };
	mark_visible(t, visible);
	add_children(t, visible, -1, node, &ret->v, &ret->n);
}

static void clear_kids(struct box *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		clear_kids(v[i].kids, v[i].n);
	free(v);
}

void boxes_clear(struct boxes *b)
{
	clear_kids(b->v, b->n);
	*b = (struct boxes){ 0 };
}

/* --- where they are ------------------------------------------------------------------------------------------ */

static double column_height(const struct box *v, size_t n)
{
	double h = 0;

	for (size_t i = 0; i < n; i++)
		h += v[i].h + (i ? GAP : 0);
	return h;
}

/* Below each other, in as many columns as keep them below COLUMN_H. */
static void stack(struct box *v, size_t n, double *ret_w, double *ret_h)
{
	double total = column_height(v, n), x = 0, y = 0, wide = 0, high = 0;
	int columns = 1 + (int)(total / COLUMN_H);
	double limit = total / columns + 1;

	for (size_t i = 0; i < n; i++) {
		if (y > 0 && y + v[i].h / 2 > limit) {
			x += wide + GAP;
			y = wide = 0;
		}
		v[i].x = x;
		v[i].y = y;
		y += v[i].h + GAP;
		wide = v[i].w > wide ? v[i].w : wide;
		high = y - GAP > high ? y - GAP : high;
	}
	*ret_w = x + wide;
	*ret_h = high;
}

static void measure(const struct topology *t, struct box *b)
{
	double w = 0, h = 0;

	if (!b->port) {
		b->w = CARD_W;
		b->h = CARD_H + (t->funcs[b->func].host_use || t->funcs[b->func].bad ? REASON_H : 0);
		return;
	}
	for (size_t i = 0; i < b->n; i++)
		measure(t, &b->kids[i]);
	stack(b->kids, b->n, &w, &h);
	for (size_t i = 0; i < b->n; i++) {
		b->kids[i].x += PAD;
		b->kids[i].y += HEADER + PAD / 2;
	}
	b->w = w + 2 * PAD;
	b->h = h + HEADER + 1.5 * PAD;
}

/* Columns of boxes that stand at the same x. */
static int count_columns(const struct box *v, size_t n)
{
	int columns = 0;

	for (size_t i = 0; i < n; i++)
		columns += !i || v[i].x > v[i - 1].x;
	return columns;
}

/* Wider by @extra; what is in it, too. In a column all get the width of the widest. */
static void widen(struct box *b, double extra)
{
	int columns = count_columns(b->kids, b->n), at = -1;

	b->w += extra;
	for (size_t i = 0, k; i < b->n; i = k) {
		double old_x = b->kids[i].x, widest = 0;

		at++;
		for (k = i; k < b->n && b->kids[k].x <= old_x; k++)
			widest = b->kids[k].w > widest ? b->kids[k].w : widest;
		for (size_t j = i; j < k; j++) {
			b->kids[j].x += extra / columns * at;
			widen(&b->kids[j], widest + extra / columns - b->kids[j].w);
		}
	}
}

/* Cards that stand beside each other in a box. */
static int cards_across(const struct box *b)
{
	int inner = 1;

	for (size_t i = 0; i < b->n; i++) {
		int n = cards_across(&b->kids[i]);

		inner = n > inner ? n : inner;
	}
	return b->n ? inner * count_columns(b->kids, b->n) : 1;
}

/* Boxes @from to @to stand in one row: let them fill it. */
static void fill_row(struct boxes *b, size_t from, size_t to, double width)
{
	double right = 0, extra;
	int columns = count_columns(b->v + from, to - from), at = -1, across = 1;

	for (size_t i = from; i < to; i++) {
		int n = cards_across(&b->v[i]);

		across = n > across ? n : across;
		right = b->v[i].x + b->v[i].w > right ? b->v[i].x + b->v[i].w : right;
	}
	extra = columns && width > right ? (width - right) / columns : 0;
	extra = extra > STRETCH * across ? STRETCH * across : extra;
	for (size_t i = from, k; i < to; i = k) {
		double old_x = b->v[i].x, widest = 0;

		at++;
		for (k = i; k < to && b->v[k].x <= old_x; k++)
			widest = b->v[k].w > widest ? b->v[k].w : widest;
		for (size_t j = i; j < k; j++) {
			b->v[j].x += extra * at;
			widen(&b->v[j], widest + extra - b->v[j].w);
		}
	}
}

/* Rows of columns. What is low goes below its neighbour rather than beside it, as long as the row does not grow. */
void boxes_layout(const struct picture *p, struct boxes *b, double width)
{
	double x = 0, row_y = 0, row_h = 0, col_y = 0, col_w = 0;
	size_t row = 0;

	b->w = 0;
	for (size_t i = 0; i < b->n; i++)
		measure(p->t, &b->v[i]);
	for (size_t i = 0; i < b->n; i++) {
		struct box *k = &b->v[i];

		if (col_y > 0 && col_y + k->h > row_h) { /* next column */
			x += col_w + GAP;
			col_y = col_w = 0;
		}
		if (x > 0 && x + k->w > width) { /* next row */
			fill_row(b, row, i, width);
			row = i;
			row_y += row_h + GAP;
			x = row_h = col_y = col_w = 0;
		}
		/* The height of a row is that of its highest box: look ahead over what still fits. */
		if (x == 0 && col_y == 0) {
			double sum = 0;

			for (size_t j = i; j < b->n && sum + b->v[j].w <= width + 0.5; sum += b->v[j++].w + GAP)
				row_h = b->v[j].h > row_h ? b->v[j].h : row_h;
			row_h = k->h > row_h ? k->h : row_h;
		}
		k->x = x;
		k->y = row_y + col_y;
		col_y += k->h + GAP;
		col_w = k->w > col_w ? k->w : col_w;
		b->w = x + k->w > b->w ? x + k->w : b->w;
	}
	fill_row(b, row, b->n, width);
	b->h = b->n ? row_y + row_h : 0;
}

/* --- drawing ----------------------------------------------------------------------------------------------------- */

static const char *role_colour(const struct pci_func *f)
{
	switch (f->role) {
	case ROLE_GPU:
		return "#3f8f3a";
	case ROLE_NIC:
		return "#2b6cb0";
	case ROLE_NVME:
		return "#b7791f";
	case ROLE_NVSWITCH:
		return "#6b46c1";
	default:
		return "#718096";
	}
}

/* "GPU 3", "NIC": people write them so */
static char *card_label(const struct pci_func *f)
{
	if (f->gpu_index >= 0)
		return xasprintf("GPU %d", f->gpu_index);
	switch (f->role) {
	case ROLE_GPU:
		return xstrdup("GPU VF");
	case ROLE_NIC:
		return xstrdup(f->is_vf ? "NIC VF" : "NIC");
	case ROLE_NVME:
		return xstrdup("NVMe");
	case ROLE_NVSWITCH:
		return xstrdup("NVSwitch");
	default:
		return draw_label(f);
	}
}

/* The line below, if there is one; owned. */
static char *card_reason(const struct pci_func *f)
{
	if (f->bad)
		return xasprintf("BAD: %s", f->bad);
	return f->host_use ? xasprintf("host: %s", f->host_use) : NULL;
}

static void draw_chip(const struct picture *p, double right, double y, double max, const char *vm)
{
	static const struct svg_font white = { .size = 10, .bold = true, .fill = "#ffffff" };
	double w = svg_text_width(&white, vm) + 12;
	char style[64];

	w = w > max ? max : w;
	snprintf(style, sizeof(style), "fill=\"%s\"", picture_colour(p, vm));
	svg_rect(p->out, right - w, y - 10.5, w, 14, 7, style);
	svg_text(p->out, right - w / 2, y, w - 8, SVG_MIDDLE, &white, vm);
}

static void draw_card(const struct picture *p, const struct box *b, double x, double y)
{
	const struct pci_func *f = &p->t->funcs[b->func];
	const char *vm = host_use_device(p->use, &f->addr), *side = *f->driver ? f->driver : f->os_name;
	AUTO_FREE char *label = card_label(f), *reason = card_reason(f);
	char bdf[PCI_ADDR_STR], name[96], link[32], style[160];
	double right = x + b->w - 8;

	snprintf(style, sizeof(style), "fill=\"#ffffff\" stroke=\"%s\" stroke-width=\"%s\"",
		 f->bad ? BAD : vm ? picture_colour(p, vm) : LINE, vm || f->bad ? "1.6" : "1");
	svg_rect(p->out, x, y, b->w, b->h, 5, style);
	if (vm) {
		snprintf(style, sizeof(style), "fill=\"%s\" fill-opacity=\"0.2\"", picture_colour(p, vm));
		svg_rect(p->out, x, y, b->w, b->h, 5, style);
	}
	if (f->host_use)
		svg_rect(p->out, x, y, b->w, b->h, 5, "fill=\"url(#hatch)\"");
	fprintf(p->out, "<path d=\"M%.1f %.1f h-2 a5 5 0 0 0 -5 5 v%.1f a5 5 0 0 0 5 5 h2 z\" fill=\"%s\"/>\n", x + 7, y,
		b->h - 10, role_colour(f));

	pci_addr_format(&f->addr, bdf);
	svg_text(p->out, x + 14, y + 16, 90, SVG_START, &font_bold, label);
	svg_text(p->out, right, y + 16, 110, SVG_END, &font_mono, bdf);
	svg_text(p->out, x + 14, y + 30, b->w - 22, SVG_START, &font_text, pci_func_short_name(f, name));
	svg_text(p->out, x + 14, y + 45, 90, SVG_START, &font_small, draw_link_text(topology_path_link(p->t, b->func), link));
	if (vm)
		draw_chip(p, right, y + 45, 130, vm);
	else
		svg_text(p->out, right, y + 45, 100, SVG_END, &font_small, side);
	if (reason)
		svg_text(p->out, x + 14, y + 59, b->w - 22, SVG_START, f->bad ? &font_bad : &font_small, reason);
}

static void draw_box(const struct picture *p, const struct box *b, double x, double y)
{
	bool is_switch;
	const char *word;
	char bdf[PCI_ADDR_STR], link[32];
	AUTO_FREE char *head = NULL;

	x += b->x;
	y += b->y;
	if (!b->port) {
		draw_card(p, b, x, y);
		return;
	}
	is_switch = topology_is_upstream(p->t, b->func);
	word = draw_port_word(p->t, b->func);
	svg_rect(p->out, x, y, b->w, b->h, 7,
		 is_switch ? "fill=\"#e3e6ea\" stroke=\"#7b8794\" stroke-width=\"1.2\""
			   : "fill=\"#f5f7fa\" stroke=\"#9aa5b1\" stroke-width=\"1\"");
	head = xasprintf("%s %s", word, pci_addr_format(&p->t->funcs[b->func].addr, bdf));
	svg_text(p->out, x + PAD + 1, y + 15, b->w - 2 * PAD - (is_switch ? 75 : 0), SVG_START,
		 is_switch ? &font_bold : &font_small, head);
	if (is_switch)
		svg_text(p->out, x + b->w - PAD, y + 15, 72, SVG_END, &font_small,
			 draw_link_text(topology_path_link(p->t, b->func), link));
	for (size_t i = 0; i < b->n; i++)
		draw_box(p, &b->kids[i], x, y);
}

void boxes_draw(const struct picture *p, const struct boxes *b, double x, double y)
{
	for (size_t i = 0; i < b->n; i++)
		draw_box(p, &b->v[i], x, y);
}
