/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_names.c - what the functions of a machine are called, from pci.ids.
 *
 * The file has 36000 lines, by vendor, in order: those of the few vendors that are there are looked up.  libpci makes a hash table of them all first, which took
 * three quarters of the time in which the rest of a small machine is read.  A file that is not in order, or does not have a vendor, is read as a whole. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/stat.h>

#include "probe_priv.h"

struct id_name {
	uint16_t vendor, device;
	const char *vendor_name, *name; /* in the text of the list, to the end of the line; NULL: not there */
};

static int id_cmp(const void *pa, const void *pb)
{
	const struct id_name *a = pa, *b = pb;

	return a->vendor != b->vendor ? (a->vendor > b->vendor) - (a->vendor < b->vendor) : (a->device > b->device) - (a->device < b->device);
}

/* Each pair of ids once, sorted. Equal ones stand in rows, of virtual functions for one. */
static struct id_name *unique_ids(const struct topology *t, size_t *ret_n)
{
	struct id_name *v = NULL;
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < t->n_funcs; i++)
		if (!n || v[n - 1].vendor != t->funcs[i].vendor || v[n - 1].device != t->funcs[i].device)
			*PUSH_ZEROED(v, n) = (struct id_name){ .vendor = t->funcs[i].vendor, .device = t->funcs[i].device };
	if (n)
		qsort(v, n, sizeof(*v), id_cmp);
	for (size_t i = 0; i < n; i++)
		if (!kept || id_cmp(&v[kept - 1], &v[i]))
			v[kept++] = v[i];
	*ret_n = kept;
	return v;
}

/* "10de  NVIDIA Corporation", four digits and two blanks: the id and where the name begins, or NULL. */
static const char *id_line(const char *s, const char *end, uint16_t *ret)
{
	unsigned int id = 0;

	if (end - s < 7 || s[4] != ' ' || s[5] != ' ')
		return NULL;
	for (int i = 0; i < 4; i++) {
		char c = s[i];
		int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (digit < 0)
			return NULL;
		id = id << 4 | (unsigned int)digit;
	}
	*ret = (uint16_t)id;
	return s + 6;
}

/* Vendors stand at the margin, their devices behind a tab, subsystems behind two; then come classes ("C 00"), which are no ids. */
static void read_names(const char *text, const char *stop, struct id_name *v, size_t n)
{
	struct id_name *first = NULL; /* those of the vendor that we are in */
	const char *name;
	uint16_t id;

	/* What follows the last line break is no line: memchr() finds the end of each of the others. */
	for (const char *s = text, *end; s < stop && (end = memchr(s, '\n', (size_t)(stop - s))); s = end + 1) {
		if (*s == '\t') {
			name = first ? id_line(s + 1, end, &id) : NULL;
			for (struct id_name *k = first; name && k < v + n && k->vendor == first->vendor; k++)
				if (k->device == id)
					k->name = name;
		} else if ((name = id_line(s, end, &id))) {
			first = NULL;
			for (size_t i = n; i-- > 0;) {
				if (v[i].vendor != id)
					continue;
				first = &v[i];
				first->vendor_name = name;
			}
		} else if (*s != '#' && s != end) {
			first = NULL;
		}
	}
}

static const char *next_line(const char *s, const char *stop)
{
	const char *end = memchr(s, '\n', (size_t)(stop - s));

	return end ? end + 1 : stop;
}

/* The first line of a vendor at or behind @s, which is the beginning of a line; @stop: there is none. */
static const char *vendor_line(const char *s, const char *stop, uint16_t *ret)
{
	while (s < stop && (*s == '\t' || *s == '#' || !id_line(s, stop, ret)))
		s = next_line(s, stop);
	return s;
}

/* By halves: where the lines of @vendor begin, NULL if they are not where they should be. */
static const char *find_vendor(const char *text, const char *stop, uint16_t vendor)
{
	const char *from = text, *to = stop;
	uint16_t id = 0;

	while (from < to) {
		const char *middle = vendor_line(next_line(from + (to - from) / 2, to), to, &id);

		/* No vendor begins in the second half: the rest is short enough. */
		if (middle == to)
			break;
		if (id == vendor)
			return middle;
		if (id < vendor)
			from = next_line(middle, to);
		else
			to = middle;
	}
	while ((from = vendor_line(from, to, &id)) < to && id < vendor)
		from = next_line(from, to);
	return from < to && id == vendor ? from : NULL;
}

static bool read_vendor(const char *text, const char *stop, uint16_t vendor, struct id_name *v, size_t n)
{
	const char *from = find_vendor(text, stop, vendor);
	uint16_t next;

	if (!from)
		return false;
	read_names(from, vendor_line(next_line(from, stop), stop, &next), v, n);
	return true;
}

static void look_up(const char *text, const char *stop, struct id_name *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if ((i && v[i].vendor == v[i - 1].vendor) || read_vendor(text, stop, v[i].vendor, v, n))
			continue;
		read_names(text, stop, v, n);
		return;
	}
}

static void name_func(const struct id_name *v, size_t n, struct pci_func *f)
{
	const struct id_name key = { .vendor = f->vendor, .device = f->device }, *k = bsearch(&key, v, n, sizeof(*v), id_cmp);
	int vendor = k->vendor_name ? (int)strcspn(k->vendor_name, "\n") : 0, name = k->name ? (int)strcspn(k->name, "\n") : 0;

	if (vendor && name)
		snprintf(f->name, sizeof(f->name), "%.*s %.*s", vendor, k->vendor_name, name, k->name);
	else if (vendor)
		snprintf(f->name, sizeof(f->name), "%.*s [%04x:%04x]", MIN(vendor, (int)sizeof(f->name) - 13), k->vendor_name, f->vendor, f->device);
	else
		snprintf(f->name, sizeof(f->name), "%04x:%04x", f->vendor, f->device);
}

void probe_names(const struct probe *p)
{
	/* Debian's place, Red Hat's. A root may bring its own names: a machine that was made, or captured, reads the same everywhere. */
	static const char *const places[] = { "/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids" };
	size_t n;
	AUTO_FREE struct id_name *v = unique_ids(p->t, &n);
	struct stat st;
	char *text = MAP_FAILED;
	AUTO_CLOSE int fd = p->live ? -1 : openat(p->root_fd, places[0] + 1, O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < ARRAY_SIZE(places) && fd < 0; i++)
		fd = open(places[i], O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size)
		text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text != MAP_FAILED)
		look_up(text, text + st.st_size, v, n);
	for (size_t i = 0; i < p->t->n_funcs; i++)
		name_func(v, n, &p->t->funcs[i]);
	if (text != MAP_FAILED)
		munmap(text, (size_t)st.st_size);
}
