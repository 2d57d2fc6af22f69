/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "svg.h"

#define SANS "DejaVu Sans, Verdana, Liberation Sans, Arial, sans-serif"
#define MONO "DejaVu Sans Mono, Liberation Mono, Menlo, Consolas, monospace"

#define MONO_WIDTH  602 /* of 1000 */
#define OTHER_WIDTH 700 /* letters beyond ASCII; wider ones (CJK) do not occur in names of devices */
#define BOLD_FACTOR 1.13

/* Advance widths of DejaVu Sans, U+0020 to U+007E, in thousandths of the size. */
static const unsigned short widths[] = {
	318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636,
	636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632,
	575, 775, 752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685,
	611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579,
	278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
};

/* Length of the UTF-8 character at @s: 0 if it is none. */
static size_t utf8_length(const char *s)
{
	unsigned char c = (unsigned char)*s;
	size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if (((unsigned char)s[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong forms, surrogates, U+FFFE and U+FFFF, past U+10FFFF: no characters of XML. */
	if ((c == 0xe0 && (unsigned char)s[1] < 0xa0) || (c == 0xed && (unsigned char)s[1] > 0x9f) ||
	    (c == 0xf0 && (unsigned char)s[1] < 0x90) || (c == 0xf4 && (unsigned char)s[1] > 0x8f) ||
	    (c == 0xef && (unsigned char)s[1] == 0xbf && (unsigned char)s[2] >= 0xbe))
		return 0;
	return n;
}

static double char_width(const struct svg_font *f, const char *s)
{
	unsigned char c = (unsigned char)*s;
	unsigned int w = f->mono ? MONO_WIDTH : c >= 0x20 && c < 0x7f ? widths[c - 0x20] : OTHER_WIDTH;

	return w * f->size * (f->bold && !f->mono ? BOLD_FACTOR : 1) / 1000;
}

double svg_text_width(const struct svg_font *f, const char *s)
{
	double w = 0;

	while (*s) {
		size_t n = utf8_length(s);

		w += char_width(f, s);
		s += n ? n : 1;
	}
	return w;
}

static void escape(FILE *out, const char *s, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = utf8_length(s + i);

		switch (s[i]) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		default:
			if (!n || (unsigned char)s[i] < 0x20 || s[i] == 0x7f)
				fputc('?', out);
			else
				fwrite(s + i, 1, n, out);
		}
		i += n ? n : 1;
	}
}

void svg_escape(FILE *out, const char *s)
{
	escape(out, s, strlen(s));
}

/* Bytes of @s that fit in @max; all of them, or so many that an ellipsis still fits. */
static size_t fitting(const struct svg_font *f, const char *s, double max)
{
	double room = max - char_width(f, "\xe2\x80\xa6") * 1.45, w = 0;
	size_t i = 0;

	if (svg_text_width(f, s) <= max)
		return strlen(s);
	while (s[i]) {
		size_t n = utf8_length(s + i);

		w += char_width(f, s + i);
		if (w > room)
			break;
		i += n ? n : 1;
	}
	while (i && s[i - 1] == ' ')
		i--;
	return i;
}

void svg_text(FILE *out, double x, double y, double max, enum svg_anchor a, const struct svg_font *f, const char *s)
{
	static const char *const anchors[] = { "start", "middle", "end" };
	size_t n = fitting(f, s, max);

	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" fill=\"%s\"", x, y, f->size, f->fill);
	if (a != SVG_START)
		fprintf(out, " text-anchor=\"%s\"", anchors[a]);
	if (f->bold)
		fputs(" font-weight=\"bold\"", out);
	fprintf(out, " font-family=\"%s\">", f->mono ? MONO : SANS);
	escape(out, s, n);
	fprintf(out, "%s</text>\n", s[n] ? "\xe2\x80\xa6" : "");
}

void svg_rect(FILE *out, double x, double y, double w, double h, double radius, const char *style)
{
	fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"", x, y, w, h);
	if (radius > 0)
		fprintf(out, " rx=\"%.1f\"", radius);
	fprintf(out, " %s/>\n", style);
}
