/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holders_proc.c - processes that have device nodes open or mapped.
 *
 * All open files of all processes first, the mappings after that: reading a maps file waits for the process's memory, which a
 * process that is stuck in a driver may have locked. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "holders_priv.h"

#define CONTROL_MINOR 255 /* of those with all_minors: no device in particular */

struct scan {
	const struct sysfs *s;
	const struct held_node *nodes;
	size_t n;
	struct held_hits *hits;
	size_t first; /* hit of the process that is looked at */
	int pid;
};

/* --- hits -------------------------------------------------------------------------------------------------- */

static void read_comm(const struct scan *sc, char ret[16])
{
	AUTO_FREE char *text = sysfs_read(sc->s, "/proc/%d/comm", sc->pid);

	snprintf(ret, 16, "%s", text && *text ? text : "?");
	/* A process names itself. */
	for (char *c = ret; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

static bool is_known(const struct scan *sc, size_t from, size_t node, unsigned int minor)
{
	const struct held_hits *h = sc->hits;
	size_t n = atomic_load(&h->n);

	for (size_t i = from; i < n; i++)
		if (h->v[i].pid == sc->pid && h->v[i].node == node && h->v[i].minor == minor)
			return true;
	return false;
}

static void add_hit(const struct scan *sc, size_t node, unsigned int minor, bool mapped)
{
	struct held_hits *h = sc->hits;
	size_t at = atomic_load(&h->n);

	/* What is open is no news when it is mapped, too: that pass looks at all hits. */
	if (is_known(sc, mapped ? 0 : sc->first, node, minor))
		return;
	if (at == HELD_HITS_MAX) {
		atomic_store(&h->full, true);
		return;
	}
	h->v[at] = (struct held_hit){ .node = node, .minor = minor, .pid = sc->pid, .mapped = mapped };
	read_comm(sc, h->v[at].comm);
	atomic_store(&h->n, at + 1);
}

static bool is_node(const struct held_node *n, bool block, unsigned int major, unsigned int minor)
{
	return n->block == block && n->major == major && (n->all_minors ? minor != CONTROL_MINOR : n->minor == minor);
}

static void match(const struct scan *sc, const struct statx *st, bool mapped)
{
	bool block = S_ISBLK(st->stx_mode);

	if (!block && !S_ISCHR(st->stx_mode))
		return;
	for (size_t i = 0; i < sc->n; i++)
		if (is_node(&sc->nodes[i], block, st->stx_rdev_major, st->stx_rdev_minor))
			add_hit(sc, i, st->stx_rdev_minor, mapped);
}

/* Without asking a file server, which may not answer: of a device node all is known here. */
static int quick_stat(int at, const char *path, struct statx *ret)
{
	return statx(at, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, ret);
}

/* --- open files ----------------------------------------------------------------------------------------------- */

static bool can_be_node(int dir, const char *fd)
{
	char first;

	/* "socket:[123]", "anon_inode:[eventfd]": most of them, and that is told without touching them. */
	return readlinkat(dir, fd, &first, 1) == 1 && first == '/';
}

static void scan_fds(struct scan *sc)
{
	AUTO_FREE char *path = xasprintf("%s/proc/%d/fd", sc->s->root, sc->pid);
	AUTO_CLOSEDIR DIR *dir = opendir(path);
	struct dirent *d;

	if (!dir) {
		if (errno == EACCES || errno == EPERM)
			atomic_fetch_add(&sc->hits->denied, 1);
		return;
	}
	sc->first = atomic_load(&sc->hits->n);
	while ((d = readdir(dir))) {
		struct statx st;

		if (d->d_name[0] != '.' && can_be_node(dirfd(dir), d->d_name) && quick_stat(dirfd(dir), d->d_name, &st) == 0)
			match(sc, &st, false);
	}
}

/* --- mappings ---------------------------------------------------------------------------------------------------- */

/* Is the last part of @path the name of one of the nodes? Of thousands of mappings hardly any is. */
static bool looks_like_node(const struct scan *sc, const char *path)
{
	const char *name = strrchr(path, '/') + 1;

	for (size_t i = 0; i < sc->n; i++) {
		const char *slash = strrchr(sc->nodes[i].name, '/'), *want = slash ? slash + 1 : sc->nodes[i].name;

		if (sc->nodes[i].all_minors ? !strncmp(name, want, strlen(want)) : !strcmp(name, want))
			return true;
	}
	return false;
}

/* "7f12a000-7f12b000 rw-s 00000000 00:05 415     /dev/nvidia0" */
static void match_mapping(const struct scan *sc, char *line)
{
	AUTO_FREE char *file = NULL, *path = NULL;
	char *name = strchr(line, '/');
	struct statx st;

	line[strcspn(line, "\n")] = '\0';
	if (!name || !looks_like_node(sc, name))
		return;
	file = xasprintf("%s/proc/%d/map_files/%.*s", sc->s->root, sc->pid, (int)strcspn(line, " "), line);
	path = xasprintf("%s%s", sc->s->root, name);
	/* map_files is for CAP_SYS_ADMIN. */
	if (quick_stat(AT_FDCWD, file, &st) == 0 || quick_stat(AT_FDCWD, path, &st) == 0)
		match(sc, &st, true);
}

static void scan_maps(struct scan *sc)
{
	AUTO_FREE char *path = xasprintf("%s/proc/%d/maps", sc->s->root, sc->pid), *line = NULL;
	AUTO_FCLOSE FILE *f = fopen(path, "re");
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0)
		match_mapping(sc, line);
}

/* --- all ------------------------------------------------------------------------------------------------------------ */

static void each_process(struct scan *sc, void (*fn)(struct scan *sc))
{
	AUTO_FREE char *path = xasprintf("%s/proc", sc->s->root);
	AUTO_CLOSEDIR DIR *dir = opendir(path);
	struct dirent *d;

	while (dir && (d = readdir(dir)))
		if (parse_int(d->d_name, 1, INT_MAX, &sc->pid) == 0)
			fn(sc);
}

void held_scan_processes(const struct sysfs *s, const struct held_node *nodes, size_t n, struct held_hits *ret)
{
	struct scan sc = { .s = s, .nodes = nodes, .n = n, .hits = ret };

	if (!n)
		return;
	each_process(&sc, scan_fds);
	each_process(&sc, scan_maps);
}
