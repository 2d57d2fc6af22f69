/* SPDX-License-Identifier: GPL-2.0-or-later */
/* svg.h - text and shapes of an SVG, with text that is known to fit.
 *
 * Who looks at the picture may have other fonts.  Widths are those of DejaVu Sans, which is wider than Arial, Helvetica,
 * Liberation Sans or Verdana's digits; what does not fit is cut with an ellipsis. */
#ifndef GPUVM_CORE_SVG_H
#define GPUVM_CORE_SVG_H

#include <stdbool.h>
#include <stdio.h>

struct svg_font {
	double size; /* px */
	bool bold, mono;
	const char *fill;
};

enum svg_anchor { SVG_START, SVG_MIDDLE, SVG_END };

double svg_text_width(const struct svg_font *f, const char *s);

/* Text with its baseline at @y, cut to @max wide. */
void svg_text(FILE *out, double x, double y, double max, enum svg_anchor a, const struct svg_font *f, const char *s);

/* Text as XML, without what XML cannot have (control characters, bytes that are not UTF-8). */
void svg_escape(FILE *out, const char *s);

/* @style: attributes as they are, e.g. fill="#fff" */
void svg_rect(FILE *out, double x, double y, double w, double h, double radius, const char *style);

#endif
