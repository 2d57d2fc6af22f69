/* SPDX-License-Identifier: GPL-2.0-or-later */
/* image_users.c - who needs a file: disks through their chains of backing files, definitions through their disks, and what a running QEMU has open.
 *
 * Files are compared by device and inode: a chain may come to the same one by "../images" or through a symlink. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/plan.h"
#include "image_priv.h"

#define CHAIN_MAX 200 /* QEMU itself gives up on far fewer; a loop has no end */

void image_users_clear(struct image_users *u)
{
	for (size_t i = 0; i < u->n_processes; i++)
		free(u->processes[i].who);
	free(u->processes);
	strv_clear(&u->definitions);
	strv_clear(&u->unknown);
	*u = (struct image_users){ 0 };
}

void image_uses_clear(struct image_uses *u)
{
	for (size_t i = 0; i < u->n; i++) {
		free(u->v[i].who);
		free(u->v[i].name);
	}
	free(u->v);
	strv_clear(&u->unknown);
	*u = (struct image_uses){ 0 };
}

static void add_inode(struct image_uses *u, const char *who, const struct stat *st)
{
	*PUSH_ZEROED(u->v, u->n) = (struct image_use){ .who = xstrdup(who), .dev = st->st_dev, .ino = st->st_ino };
}

void image_uses_of(const struct image_uses *u, const char *file, struct strv *ret)
{
	struct stat st;
	bool there = stat(file, &st) == 0;

	for (size_t i = 0; i < u->n; i++) {
		const struct image_use *use = &u->v[i];
		bool same = use->name ? strstr(use->name, strrchr(file, '/') + 1) != NULL : there && use->dev == st.st_dev && use->ino == st.st_ino;

		if (same && !strv_contains(ret, use->who))
			strv_push(ret, use->who);
	}
}

/* --- disks ---------------------------------------------------------------------------------------------------------- */

int disk_open(const char *path, int flags)
{
	AUTO_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);
	char again[32];
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return -EINVAL;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
	r = open(again, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
	return r < 0 ? -errno : r;
}

/* The first bytes of @path, as many as there are of QCOW2_HEAD, to @head. */
static ssize_t read_head(const char *path, uint8_t *head)
{
	AUTO_CLOSE int fd = disk_open(path, 0);
	ssize_t n = fd < 0 ? fd : pread(fd, head, QCOW2_HEAD, 0);

	return fd < 0 || n >= 0 ? n : -errno;
}

/* What the qcow2 file @path is made on, and of which format that is said to be: 0, and both NULL if on nothing. */
static int read_backing(const char *path, char **ret_name, char **ret_format, struct err *e)
{
	AUTO_FREE uint8_t *head = xcalloc(QCOW2_HEAD, 1);
	ssize_t n = read_head(path, head);
	int r;

	*ret_name = *ret_format = NULL;
	if (n == -EINVAL)
		return err_set(e, -EINVAL, "'%s' is neither a file nor a block device", path);
	if (n < 0)
		return err_sys(e, (int)n, "'%s'", path);
	r = qcow2_backing(head, (size_t)n, ret_name, ret_format, e);
	return r < 0 ? err_wrap(e, "'%s'", path) : 0;
}

/* The backing file of the qcow2 file @path, owned, and whether that is one, too, or QEMU would look (the header does not say). NULL: none, or there is no saying:
 * then that is in u->unknown. */
static char *next_in_chain(struct image_uses *u, const char *path, bool *ret_qcow2)
{
	AUTO_FREE char *name = NULL, *format = NULL;
	struct err e;
	int r = read_backing(path, &name, &format, &e);
	char *next;

	/* What is not there needs nothing. */
	if (r < 0 && r != -ENOENT)
		strv_push(&u->unknown, e.msg);
	if (!name)
		return NULL;
	*ret_qcow2 = !format || strcmp(format, "qcow2") == 0;
	next = qcow2_backing_path(path, name);
	return next ? next : STEAL_PTR(name);
}

/* @path and all that is below it. What is raw is the guest's, which may have written a header there. */
static void add_chain(struct image_uses *u, const char *who, const char *path, bool qcow2)
{
	AUTO_FREE char *at = xstrdup(path);

	for (int depth = 0; at; depth++) {
		struct stat st;
		char *next;

		if (*at != '/') {
			/* "json:{...}" or a protocol: what it names is searched for in it. */
			*PUSH_ZEROED(u->v, u->n) = (struct image_use){ .who = xstrdup(who), .name = xstrdup(at) };
			return;
		}
		if (depth == CHAIN_MAX) {
			strv_pushf(&u->unknown, "'%s': its chain of backing files has no end", path);
			return;
		}
		if (stat(at, &st) == 0)
			add_inode(u, who, &st);
		next = qcow2 ? next_in_chain(u, at, &qcow2) : NULL;
		free(at);
		at = next;
	}
}

/* By the format that a definition says, or by the file's name. */
static void add_disk_of(struct image_uses *u, const char *who, const struct disk_config *d)
{
	const char *format = plan_disk_format(d);

	add_chain(u, who, d->file, format && strcmp(format, "qcow2") == 0);
}

/* Each file of a folder, with @add; names that begin with "." are not finished. */
static void each_file(struct image_uses *u, const char *dir, const char *extension, void (*add)(struct image_uses *, const char *))
{
	AUTO_CLOSEDIR DIR *d = opendir(dir);
	size_t tail = strlen(extension);
	struct dirent *f;

	if (!d && errno != ENOENT)
		strv_pushf(&u->unknown, "'%s' cannot be read: %s", dir, strerror(errno));
	while (d && (f = readdir(d))) {
		size_t len = strlen(f->d_name);
		AUTO_FREE char *path = xasprintf("%s/%s", dir, f->d_name);

		if (f->d_name[0] != '.' && len > tail && strcmp(f->d_name + len - tail, extension) == 0)
			add(u, path);
	}
}

static void add_disk(struct image_uses *u, const char *path)
{
	add_disk_of(u, path, &(struct disk_config){ .file = (char *)path });
}

int disk_chain(const char *file, struct strv *ret, struct err *e)
{
	const char *at = file;

	for (size_t depth = 0; depth < CHAIN_MAX; depth++) {
		AUTO_FREE char *name = NULL, *format = NULL, *path = NULL;
		AUTO_CLOSE int lowest = -1;
		int r = read_backing(at, &name, &format, e);

		if (r < 0)
			return at == file ? r : err_wrap(e, "'%s' is made on", file);
		path = name ? qcow2_backing_path(at, name) : NULL;
		if (!path)
			return 0;
		lowest = disk_open(path, 0);
		if (lowest < 0) {
			if (lowest == -EINVAL)
				err_set(e, -EINVAL, "'%s' is neither a file nor a block device", path);
			else
				err_sys(e, lowest, "'%s'", path);
			return err_wrap(e, "'%s' is made on", at);
		}
		strv_push(ret, path);
		if (!format || strcmp(format, "qcow2") != 0)
			return 0;
		at = ret->v[ret->n - 1];
	}
	return err_set(e, -ELOOP, "'%s': its chain of backing files has no end", file);
}

/* --- definitions, processes ------------------------------------------------------------------------------------------- */

static void add_definition(struct image_uses *u, const char *path)
{
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	struct strv none = { 0 };

	if (config_load(path, &none, &vm, &ps) < 0)
		strv_pushf(&u->unknown, "'%s' is no valid definition: %s", path, ps.n ? ps.v[0].message : "it cannot be read");
	for (size_t i = 0; i < vm.n_disks; i++)
		if (vm.disks[i].file)
			add_disk_of(u, path, &vm.disks[i]);
	config_clear(&vm);
	problems_clear(&ps);
}

/* What it has open: also files that were named on its command line alone. */
static void add_process(struct image_uses *u, const struct image_process *p)
{
	AUTO_FREE char *dir = xasprintf("/proc/%d/fd", p->pid);
	AUTO_CLOSEDIR DIR *d = opendir(dir);
	struct dirent *f;

	/* It has ended: then it needs nothing. */
	if (!d && errno != ENOENT && errno != ESRCH)
		strv_pushf(&u->unknown, "'%s' cannot be read: %s", dir, strerror(errno));
	while (d && (f = readdir(d))) {
		struct stat st;

		if (f->d_name[0] != '.' && fstatat(dirfd(d), f->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
			add_inode(u, p->who, &st);
	}
}

void image_uses_collect(const char *statedir, const struct image_users *u, struct image_uses *ret)
{
	AUTO_FREE char *disks = xasprintf("%s/" DISKS, statedir);

	for (size_t i = 0; i < u->unknown.n; i++)
		strv_push(&ret->unknown, u->unknown.v[i]);
	each_file(ret, disks, "", add_disk);
	if (u->confdir)
		each_file(ret, u->confdir, ".ini", add_definition);
	for (size_t i = 0; i < u->definitions.n; i++)
		add_definition(ret, u->definitions.v[i]);
	for (size_t i = 0; i < u->n_processes; i++)
		add_process(ret, &u->processes[i]);
}

/* --- the other way round: who needs a disk -------------------------------------------------------------------------------- */

static bool is_one_of(const struct strv *own, const char *path)
{
	struct stat a, b;

	for (size_t i = 0; i < own->n; i++)
		if (strcmp(own->v[i], path) == 0 ||
		    (stat(path, &a) == 0 && stat(own->v[i], &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino))
			return true;
	return false;
}

/* "'PATH': ..." */
static bool is_about_one_of(const struct strv *own, const char *text)
{
	for (size_t i = 0; i < own->n; i++) {
		size_t len = strlen(own->v[i]);

		if (*text == '\'' && strncmp(text + 1, own->v[i], len) == 0 && text[1 + len] == '\'')
			return true;
	}
	return false;
}

void disk_users(const char *statedir, const struct image_users *u, const struct strv *own, struct strv *ret, struct strv *ret_unknown)
{
	struct image_uses uses = { 0 };
	struct strv all = { 0 };

	image_uses_collect(statedir, u, &uses);
	for (size_t i = 0; i < own->n; i++)
		image_uses_of(&uses, own->v[i], &all);
	for (size_t i = 0; i < all.n; i++)
		if (!is_one_of(own, all.v[i]))
			strv_push(ret, all.v[i]);
	for (size_t i = 0; i < uses.unknown.n; i++)
		if (!is_about_one_of(own, uses.unknown.v[i]))
			strv_push(ret_unknown, uses.unknown.v[i]);
	strv_clear(&all);
	image_uses_clear(&uses);
}
