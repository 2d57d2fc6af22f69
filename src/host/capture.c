/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture.c - see capture.h. What is kept is decided in probe_keep.c; here it goes into a folder or a tar, and out of one.
 *
 * Tars are libarchive's: pax headers where paths are long, as those of sysfs are.  What comes out of a tar is written by
 * tree.c, which never goes through a link. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "capture_priv.h"
#include "gpuvm/capture.h"
#include "gpuvm/lazy.h"
#include "probe_keep.h"

#define ARCHIVE_CALLS(X) \
	X(archive_entry_filetype) X(archive_entry_free) X(archive_entry_hardlink) X(archive_entry_new) X(archive_entry_pathname) \
	X(archive_entry_set_filetype) X(archive_entry_set_mtime) X(archive_entry_set_pathname) X(archive_entry_set_perm) \
	X(archive_entry_set_size) X(archive_entry_set_symlink) X(archive_entry_size) X(archive_entry_size_is_set) X(archive_entry_symlink) \
	X(archive_error_string) X(archive_read_data) X(archive_read_free) X(archive_read_new) X(archive_read_next_header) \
	X(archive_read_open_fd) X(archive_read_support_filter_gzip) X(archive_read_support_filter_xz) X(archive_read_support_filter_zstd) \
	X(archive_read_support_format_tar) X(archive_write_add_filter_gzip) X(archive_write_add_filter_none) \
	X(archive_write_add_filter_xz) X(archive_write_add_filter_zstd) X(archive_write_close) X(archive_write_data) X(archive_write_free) \
	X(archive_write_header) X(archive_write_new) X(archive_write_open_fd) X(archive_write_set_format_pax_restricted)

static struct {
	ARCHIVE_CALLS(LAZY_POINTER)
} lib;
static const char *const lib_names[] = { ARCHIVE_CALLS(LAZY_NAME) };

/* What a tar may hold. The largest machine (4096 functions, 512 CPUs) has 60000 entries and 20 MiB. */
#define MAX_ENTRIES 500000
#define MAX_BYTES   (UINT64_C(512) << 20)
#define MAX_FILE    (UINT64_C(4) << 20)

static int load_archive(struct err *e)
{
	return lazy_load("libarchive.so.13", lib_names, ARRAY_SIZE(lib_names), &lib, e);
}

struct output {
	struct capture_report *report;
	struct err *e;
	const char *dest;
	struct tree tree;     /* a folder, or */
	struct archive *tar; /* a tar */
};

void capture_report_clear(struct capture_report *r)
{
	strv_clear(&r->missing);
	*r = (struct capture_report){ 0 };
}

static bool ends_in(const char *s, const char *tail)
{
	size_t n = strlen(s), t = strlen(tail);

	return n > t && !strcmp(s + n - t, tail);
}

static const struct {
	const char *suffix;
	int (**add)(struct archive *);
} tar_kinds[] = {
	{ ".tar", &lib.archive_write_add_filter_none },    { ".tar.gz", &lib.archive_write_add_filter_gzip },
	{ ".tgz", &lib.archive_write_add_filter_gzip },    { ".tar.xz", &lib.archive_write_add_filter_xz },
	{ ".tar.zst", &lib.archive_write_add_filter_zstd },
};

/* Index into tar_kinds, -1: a folder */
static int tar_kind(const char *dest)
{
	for (size_t i = 0; i < ARRAY_SIZE(tar_kinds); i++)
		if (ends_in(dest, tar_kinds[i].suffix))
			return (int)i;
	return -1;
}

/* --- writing ------------------------------------------------------------------------------------------- */

static int output_failed(const struct output *o, int r, const char *path)
{
	if (o->tar)
		return err_set(o->e, r, "write '%s': %s", o->dest, lib.archive_error_string(o->tar));
	return err_sys(o->e, r, "write '%s/%s'", o->dest, path);
}

/* One entry of the tar. Owner and times are those of nobody: captures of one machine are the same. */
static int put_entry(struct output *o, const char *path, unsigned int type, const char *target, const void *data, size_t len)
{
	struct archive_entry *entry = lib.archive_entry_new();
	int r = 0;

	lib.archive_entry_set_pathname(entry, path);
	lib.archive_entry_set_filetype(entry, type);
	lib.archive_entry_set_perm(entry, type == AE_IFDIR ? 0755 : 0644);
	lib.archive_entry_set_mtime(entry, 0, 0);
	lib.archive_entry_set_size(entry, (la_int64_t)len);
	if (target)
		lib.archive_entry_set_symlink(entry, target);
	if (lib.archive_write_header(o->tar, entry) < ARCHIVE_WARN ||
	    (len && lib.archive_write_data(o->tar, data, len) != (la_ssize_t)len))
		r = -EIO;
	lib.archive_entry_free(entry);
	return r < 0 ? output_failed(o, r, path) : 0;
}

static int on_dir(void *ctx, const char *path)
{
	struct output *o = ctx;
	int r;

	if (o->tar)
		return put_entry(o, path, AE_IFDIR, NULL, NULL, 0);
	r = tree_dir(&o->tree, path);
	return r < 0 ? output_failed(o, r, path) : 0;
}

static int on_file(void *ctx, const char *path, const void *data, size_t len)
{
	struct output *o = ctx;
	int r;

	o->report->n_files++;
	o->report->bytes += len;
	if (o->tar)
		return put_entry(o, path, AE_IFREG, NULL, data, len);
	r = tree_file(&o->tree, path, data, len);
	return r < 0 ? output_failed(o, r, path) : 0;
}

static int on_link(void *ctx, const char *path, const char *target)
{
	struct output *o = ctx;
	int r;

	o->report->n_links++;
	if (o->tar)
		return put_entry(o, path, AE_IFLNK, target, NULL, 0);
	r = tree_link(&o->tree, path, target);
	return r < 0 ? output_failed(o, r, path) : 0;
}

static void on_missing(void *ctx, const char *what)
{
	struct output *o = ctx;

	strv_push(&o->report->missing, what);
}

static int keep_all(const struct probe *p, bool keep_name, struct output *o)
{
	struct keep_sink sink = { .dir = on_dir, .file = on_file, .link = on_link, .missing = on_missing, .ctx = o };
	struct keep_counts counts = { 0 };
	int r = probe_keep(p, keep_name ? NULL : CAPTURE_HOST_NAME, &sink, &counts);

	o->report->n_cpus = counts.n_cpus;
	o->report->n_functions = counts.n_functions;
	return r;
}

static int to_folder(const struct probe *p, bool keep_name, struct output *o)
{
	AUTO_CLOSE int fd = -1;
	int r;

	if (mkdir(o->dest, 0755) < 0)
		return err_sys(o->e, -errno, "create folder '%s'", o->dest);
	fd = open(o->dest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_sys(o->e, -errno, "open '%s'", o->dest);
	tree_init(&o->tree, fd);
	r = keep_all(p, keep_name, o);
	tree_close(&o->tree);
	if (r < 0)
		tree_remove(o->dest);
	return r;
}

static int to_tar(const struct probe *p, bool keep_name, int kind, struct output *o)
{
	AUTO_CLOSE int fd = -1;
	int r = load_archive(o->e);

	if (r < 0)
		return r;
	fd = open(o->dest, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(o->e, -errno, "create '%s'", o->dest);
	o->tar = lib.archive_write_new();
	if ((*tar_kinds[kind].add)(o->tar) < ARCHIVE_WARN || lib.archive_write_set_format_pax_restricted(o->tar) != ARCHIVE_OK ||
	    lib.archive_write_open_fd(o->tar, fd) != ARCHIVE_OK)
		r = output_failed(o, -EIO, "");
	if (r == 0)
		r = keep_all(p, keep_name, o);
	if (lib.archive_write_close(o->tar) != ARCHIVE_OK && r == 0)
		r = output_failed(o, -EIO, "");
	lib.archive_write_free(o->tar);
	if (r < 0)
		unlink(o->dest);
	return r;
}

int capture_host(const char *root, const char *dest, bool keep_name, struct capture_report *ret, struct err *e)
{
	CLEANUP(probe_close) struct probe p = { .root_fd = -1, .sys_fd = -1, .proc_fd = -1 };
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	struct output o = { .report = &report, .e = e, .dest = dest };
	int kind = tar_kind(dest), r = probe_open(root, &p, e);
	struct stat st;

	if (r < 0)
		return r;
	if (lstat(dest, &st) == 0)
		return err_set(e, -EEXIST, "'%s' exists already: name another place, or remove it", dest);
	r = kind < 0 ? to_folder(&p, keep_name, &o) : to_tar(&p, keep_name, kind, &o);
	if (r < 0)
		return r;
	*ret = report;
	report = (struct capture_report){ 0 };
	return 0;
}

/* --- reading ------------------------------------------------------------------------------------------------- */

struct input {
	struct archive *a;
	const char *file;
	struct tree tree;
	char *buf;
	size_t entries;
	uint64_t bytes;
	struct err *e;
};

/* "./sys/bus/" is "sys/bus"; owned. */
static char *clean_name(const char *name)
{
	size_t n;

	while (!strncmp(name, "./", 2))
		name += 2;
	n = strlen(name);
	while (n && name[n - 1] == '/')
		n--;
	return xstrndup(name, n);
}

static int unpack_file(struct input *in, struct archive_entry *entry, const char *path)
{
	uint64_t size = lib.archive_entry_size_is_set(entry) ? (uint64_t)lib.archive_entry_size(entry) : UINT64_MAX;
	la_ssize_t n;
	int r;

	if (size > MAX_FILE || in->bytes + size > MAX_BYTES)
		return err_set(in->e, -EFBIG, "'%s': '%s' is too large for the capture of a machine", in->file, path);
	in->bytes += size;
	n = lib.archive_read_data(in->a, in->buf, size);
	if (n < 0 || (uint64_t)n != size)
		return err_set(in->e, -EBADMSG, "'%s' is damaged at '%s': %s", in->file, path,
			       n < 0 ? lib.archive_error_string(in->a) : "it ends early");
	r = tree_file(&in->tree, path, in->buf, size);
	return r < 0 ? err_sys(in->e, r, "'%s': unpack '%s'", in->file, path) : 0;
}

static int unpack_entry(struct input *in, struct archive_entry *entry)
{
	const char *raw = lib.archive_entry_pathname(entry), *target = lib.archive_entry_symlink(entry);
	AUTO_FREE char *path = raw ? clean_name(raw) : xstrdup("");
	int r = 0;

	if (++in->entries > MAX_ENTRIES)
		return err_set(in->e, -EFBIG, "'%s' has more than %d entries: it is not the capture of a machine", in->file,
			       MAX_ENTRIES);
	if (!*path || !strcmp(path, "."))
		return 0;
	if (!tree_path_ok(path))
		return err_set(in->e, -EINVAL, "'%s': refusing the name '%s' in it: it leads outside", in->file, raw);
	if (lib.archive_entry_hardlink(entry))
		return 0;
	switch (lib.archive_entry_filetype(entry)) {
	case AE_IFDIR:
		r = tree_dir(&in->tree, path);
		break;
	case AE_IFREG:
		return unpack_file(in, entry, path);
	case AE_IFLNK:
		r = target && tree_link_ok(path, target) ? tree_link(&in->tree, path, target) : 0;
		break;
	default: /* devices, sockets: a machine has none that the probe needs */
		break;
	}
	return r < 0 ? err_sys(in->e, r, "'%s': unpack '%s'", in->file, path) : 0;
}

static int unpack_all(struct input *in)
{
	struct archive_entry *entry;
	int r, c;

	while ((c = lib.archive_read_next_header(in->a, &entry)) == ARCHIVE_OK || c == ARCHIVE_WARN) {
		r = unpack_entry(in, entry);
		if (r < 0)
			return r;
	}
	if (c != ARCHIVE_EOF)
		return err_set(in->e, -EBADMSG, "'%s' is damaged, or not a tar: %s", in->file, lib.archive_error_string(in->a));
	return in->entries ? 0 : err_set(in->e, -EBADMSG, "'%s' is empty, or not a tar", in->file);
}

static int unpack_from(int fd, const char *file, int root_fd, struct err *e)
{
	AUTO_FREE char *buf = xrealloc(NULL, MAX_FILE);
	struct input in = { .file = file, .buf = buf, .e = e };
	int r = load_archive(e);

	if (r < 0)
		return r;
	in.a = lib.archive_read_new();
	/* In this process only: libarchive's other decompressors start programs. */
	lib.archive_read_support_filter_gzip(in.a);
	lib.archive_read_support_filter_xz(in.a);
	lib.archive_read_support_filter_zstd(in.a);
	lib.archive_read_support_format_tar(in.a);
	tree_init(&in.tree, root_fd);
	if (lib.archive_read_open_fd(in.a, fd, 65536) != ARCHIVE_OK)
		r = err_set(e, -EBADMSG, "'%s' is not a tar: %s", file, lib.archive_error_string(in.a));
	else
		r = unpack_all(&in);
	tree_close(&in.tree);
	lib.archive_read_free(in.a);
	return r;
}

/* Thousands of small files for a moment: in memory if that can be. */
static const char *temp_folder(void)
{
	const char *tmp = getenv("TMPDIR");

	if (tmp && *tmp)
		return tmp;
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

int capture_unpack(const char *file, char **ret_root, struct err *e)
{
	AUTO_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), root_fd = -1;
	AUTO_FREE char *root = xasprintf("%s/gpuvm-capture-XXXXXX", temp_folder());
	int r;

	if (fd < 0)
		return err_sys(e, -errno, "open '%s'", file);
	if (!mkdtemp(root)) /* 0700 */
		return err_sys(e, -errno, "create a temporary folder '%s'", root);
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = root_fd < 0 ? err_sys(e, -errno, "open '%s'", root) : unpack_from(fd, file, root_fd, e);
	if (r < 0) {
		tree_remove(root);
		return r;
	}
	*ret_root = STEAL_PTR(root);
	return 0;
}

int capture_resolve(const char *sysroot, char **ret_unpacked, struct err *e)
{
	struct stat st;

	*ret_unpacked = NULL;
	if (!*sysroot || stat(sysroot, &st) < 0 || !S_ISREG(st.st_mode))
		return 0; /* probe_host() says what is wrong with it */
	return capture_unpack(sysroot, ret_unpacked, e);
}

void capture_remove(char *root)
{
	if (root)
		tree_remove(root);
	free(root);
}
