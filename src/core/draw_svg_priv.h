/* SPDX-License-Identifier: GPL-2.0-or-later */
/* draw_svg_priv.h - the parts of the picture: the whole (draw_svg.c), a node's PCIe boxes (draw_svg_pci.c), its CPUs and
 * memory (draw_svg_node.c). Each part is first measured, then drawn. All lengths are pixels. */
#ifndef GPUVM_CORE_DRAW_SVG_PRIV_H
#define GPUVM_CORE_DRAW_SVG_PRIV_H

#include "draw_priv.h"
#include "gpuvm/strv.h"
#include "svg.h"

#define INK   "#1f2933"
#define FAINT "#616e7c"
#define LINE  "#9aa5b1"

struct picture {
	const struct topology *t;
	const struct host_use *use;
	FILE *out;
	struct strv vms; /* sorted */
};

extern const struct svg_font font_title, font_head, font_text, font_small, font_mono, font_bold;

/* Colour of a VM: of a palette that survives printing and most colour blindness. "" for no VM. */
const char *picture_colour(const struct picture *p, const char *vm);

/* --- draw_svg_pci.c ------------------------------------------------------------------------------------- */

struct box {
	int func; /* device or bridge */
	bool port;
	double x, y, w, h; /* relative to the box it is in */
	struct box *kids;
	size_t n;
};

struct boxes {
	struct box *v;
	size_t n;
	double w, h;
};

void boxes_build(const struct topology *t, int node, struct boxes *ret); /* @node -1: those without a node */
void boxes_clear(struct boxes *b);
/* Place side by side as far as @width goes; sets w and h. */
void boxes_layout(const struct picture *p, struct boxes *b, double width);
void boxes_draw(const struct picture *p, const struct boxes *b, double x, double y);

/* --- draw_svg_node.c ------------------------------------------------------------------------------------- */

double cpus_height(const struct picture *p, int node, double width);
void cpus_draw(const struct picture *p, int node, double x, double y, double width);

#define MEMORY_HEIGHT 46.0
double memory_width(const struct picture *p, int node); /* that its words need */
void memory_draw(const struct picture *p, int node, double x, double y, double width);

#endif
