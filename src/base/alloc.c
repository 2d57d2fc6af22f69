/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "gpuvm/cleanup.h"

static void die_oom(void)
{
	fputs("gpuvm: out of memory\n", stderr);
	abort();
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		die_oom();
	return p;
}

void *xrealloc(void *p, size_t size)
{
	void *q = realloc(p, size ? size : 1);

	if (!q)
		die_oom();
	return q;
}

char *xstrdup(const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		die_oom();
	return copy;
}

char *xstrndup(const char *s, size_t n)
{
	char *copy = strndup(s, n);

	if (!copy)
		die_oom();
	return copy;
}

char *xasprintf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (r < 0)
		die_oom();
	return s;
}

void *xgrow(void *v, size_t n, size_t size)
{
	/* A full array has 0, 1, 2, 4, 8 ... elements: only then is there no room. */
	if ((n & (n - 1)) == 0) {
		size_t room = n ? 2 * n : 1;

		if (room > SIZE_MAX / size)
			die_oom();
		v = xrealloc(v, room * size);
	}
	memset((char *)v + n * size, 0, size);
	return v;
}
