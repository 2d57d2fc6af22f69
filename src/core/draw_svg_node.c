/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw_svg_node.c - a node's CPUs, a square per core and in it a stripe per thread, and its memory as a bar. */
#include <inttypes.h>
#include <string.h>

#include "draw_svg_priv.h"

#define CORE     17.0 /* high, and at least as wide */
#define CORE_MAX 30.0
#define SPACE    3.0 /* between cores */
#define CHIP     8.0 /* more, where another L3 begins */
#define BAR_H 20.0

/* --- CPUs ----------------------------------------------------------------------------------------------- */

/* CPUs of the node by core, siblings together. */
static size_t cpus_by_core(const struct topology *t, int node, const struct host_cpu **ret)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n_cpus; i++) {
		size_t at = n;

		if (t->cpus[i].node != node)
			continue;
		for (; at > 0 && ret[at - 1]->core > t->cpus[i].core; at--)
			ret[at] = ret[at - 1];
		ret[at] = &t->cpus[i];
		n++;
	}
	return n;
}

struct grid {
	double width, core; /* of the row, of one core */
	double at_x, at_y;
	int l3;
	bool any;
};

/* Where the next core goes. */
static void next_core(struct grid *g, int l3)
{
	if (g->any) {
		g->at_x += g->core + SPACE + (l3 != g->l3 ? CHIP : 0);
		if (g->at_x + g->core > g->width + 0.5) {
			g->at_x = 0;
			g->at_y += CORE + SPACE;
		}
	}
	g->any = true;
	g->l3 = l3;
}

/* As wide as lets all cores of a node stand in one row, or in rows of one length. */
static double core_width(const struct host_cpu *const *cpus, size_t n, double width)
{
	size_t cores = 0, chips = 0, rows;
	double w;

	for (size_t i = 0; i < n; i++) {
		cores += !i || cpus[i]->core != cpus[i - 1]->core;
		chips += i && cpus[i]->l3 != cpus[i - 1]->l3;
	}
	rows = 1 + (size_t)(((double)cores * (CORE + SPACE) + (double)chips * CHIP - SPACE) / (width + 0.5));
	w = (width + SPACE - (double)chips * CHIP / (double)rows) / (double)((cores + rows - 1) / rows) - SPACE;
	return w > CORE_MAX ? CORE_MAX : w < CORE ? CORE : w;
}

static void draw_core(const struct picture *p, double x, double y, double width, const struct host_cpu *const *cpus, size_t n)
{
	double w = width / (double)n;

	fprintf(p->out, "<g><title>core %d: CPU ", cpus[0]->core);
	for (size_t i = 0; i < n; i++) {
		const char *vm = host_use_cpu(p->use, cpus[i]->cpu);

		fprintf(p->out, "%s%d", i ? ", " : "", cpus[i]->cpu);
		if (vm) {
			fputs(" (", p->out);
			svg_escape(p->out, vm);
			fputc(')', p->out);
		}
	}
	fputs("</title>\n", p->out);
	for (size_t i = 0; i < n; i++) {
		const char *vm = host_use_cpu(p->use, cpus[i]->cpu);
		char style[64];

		snprintf(style, sizeof(style), "fill=\"%s\"", vm ? picture_colour(p, vm) : "#dde3ea");
		svg_rect(p->out, x + w * (double)i, y, w - (i + 1 < n ? 1 : 0), CORE, 0, style);
	}
	svg_rect(p->out, x, y, width, CORE, 2.5,
		 cpus[0]->isolated ? "fill=\"none\" stroke=\"" INK "\" stroke-width=\"1.4\" stroke-dasharray=\"2.5 1.8\""
				   : "fill=\"none\" stroke=\"" LINE "\"");
	fputs("</g>\n", p->out);
}

/* Walk over the cores; draw if there is something to draw on. Returns the height. */
static double walk_cores(const struct picture *p, int node, double x, double y, double width, bool draw)
{
	AUTO_FREE const struct host_cpu **cpus = xcalloc(p->t->n_cpus + 1, sizeof(*cpus));
	size_t n = cpus_by_core(p->t, node, cpus);
	struct grid g = { .width = width, .core = n ? core_width(cpus, n, width) : CORE };

	for (size_t i = 0, k; i < n; i = k) {
		for (k = i + 1; k < n && cpus[k]->core == cpus[i]->core; k++)
			;
		next_core(&g, cpus[i]->l3);
		if (draw)
			draw_core(p, x + g.at_x, y + g.at_y, g.core, &cpus[i], k - i);
	}
	return n ? g.at_y + CORE : 0;
}

double cpus_height(const struct picture *p, int node, double width)
{
	return walk_cores(p, node, 0, 0, width, false);
}

void cpus_draw(const struct picture *p, int node, double x, double y, double width)
{
	walk_cores(p, node, x, y, width, true);
}

/* --- memory ------------------------------------------------------------------------------------------------- */

struct bar {
	const struct picture *p;
	double x, y, width;
	uint64_t total, used; /* bytes that are drawn */
};

static void segment(struct bar *b, uint64_t bytes, const char *style, const char *label, const char *text_fill)
{
	struct svg_font f = { .size = 10, .bold = true, .fill = text_fill };
	double x, w;

	if (bytes > b->total - b->used)
		bytes = b->total - b->used;
	if (!bytes)
		return;
	x = b->x + b->width * (double)b->used / (double)b->total;
	w = b->width * (double)bytes / (double)b->total;
	b->used += bytes;
	svg_rect(b->p->out, x, b->y, w, BAR_H, 0, style);
	if (svg_text_width(&f, label) < w - 8)
		svg_text(b->p->out, x + w / 2, b->y + 14, w - 8, SVG_MIDDLE, &f, label);
}

/* What VMs have here; less what the kernel's counters do not know yet (@ret_pending). */
static void vm_segments(struct bar *b, const struct host_node *n, uint64_t *ret_huge, uint64_t *ret_pending_huge)
{
	const struct host_use *use = b->p->use;

	for (size_t i = 0; use && i < use->n_memory; i++) {
		const struct used_memory *m = &use->memory[i];
		char style[64], size[32];
		AUTO_FREE char *label = NULL;

		if (m->host_node != n->id)
			continue;
		snprintf(style, sizeof(style), "fill=\"%s\"", picture_colour(b->p, m->vm));
		label = xasprintf("%s %s", m->vm, draw_rough_size(m->bytes, size));
		segment(b, m->bytes, style, label, "#ffffff");
		if (m->page_bytes > 4096) {
			*ret_huge += m->bytes;
			*ret_pending_huge += m->allocated ? 0 : m->bytes;
		}
	}
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static char *memory_words(const struct host_node *n)
{
	char a[32], b[32];
	AUTO_FREE char *pools = xstrdup("");

	for (size_t i = 0; i < n->n_pools; i++) {
		AUTO_FREE char *old = pools;

		if (n->pools[i].total)
			pools = xasprintf("%s; hugepages of %s: %" PRIu64 " of %" PRIu64 " free", old,
					  draw_rough_size(n->pools[i].page_bytes, a), n->pools[i].free, n->pools[i].total);
		else
			pools = STEAL_PTR(old);
	}
	return xasprintf("%s, %s free%s", draw_rough_size(n->mem_bytes, a), draw_rough_size(n->free_bytes, b), pools);
}

double memory_width(const struct picture *p, int node)
{
	AUTO_FREE char *words = memory_words(&p->t->nodes[node]);

	return svg_text_width(&font_small, words);
}

void memory_draw(const struct picture *p, int node, double x, double y, double width)
{
	const struct host_node *n = &p->t->nodes[node];
	struct bar b = { .p = p, .x = x, .y = y, .width = width, .total = n->mem_bytes };
	uint64_t huge = 0, huge_free = 0, by_vms = 0, pending = 0;
	AUTO_FREE char *words = memory_words(n), *label = NULL;
	char size[32];

	for (size_t i = 0; i < n->n_pools; i++) {
		huge += n->pools[i].total * n->pools[i].page_bytes;
		huge_free += n->pools[i].free * n->pools[i].page_bytes;
	}
	svg_rect(p->out, x, y, width, BAR_H, 0, "fill=\"#ffffff\"");
	vm_segments(&b, n, &by_vms, &pending);
	huge_free = minus(huge_free, pending);
	label = xasprintf("hugepages %s", draw_rough_size(huge_free, size));
	segment(&b, minus(minus(huge, huge_free), by_vms), "fill=\"#cbd2d9\"", "hugepages in use", INK);
	segment(&b, huge_free, "fill=\"#bcdcf5\"", label, INK);
	segment(&b, minus(minus(n->mem_bytes, huge), n->free_bytes), "fill=\"#cbd2d9\"", "in use", INK);
	if (b.used < b.total)
		segment(&b, b.total - b.used, "fill=\"none\"", "free", FAINT);
	svg_rect(p->out, x, y, width, BAR_H, 3, "fill=\"none\" stroke=\"" LINE "\"");
	svg_text(p->out, x, y + BAR_H + 15, width, SVG_START, &font_small, words);
}
