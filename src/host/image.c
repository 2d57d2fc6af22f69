/* SPDX-License-Identifier: GPL-2.0-or-later */
/* image.c - the folder of images: its lock, its records, and their removal. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "gpuvm/log.h"
#include "gpuvm/parse.h"
#include "image_priv.h"

#define SCHEMA     1
#define RECORD_MAX 65536
#define USERS_MAX  5 /* that a message names */

void image_clear(struct image *i)
{
	free(i->name);
	free(i->format);
	free(i->sha256);
	free(i->file);
	free(i->source);
	strv_clear(&i->used_by);
	strv_clear(&i->older);
	*i = (struct image){ 0 };
}

void images_free(struct image *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		image_clear(&v[i]);
	free(v);
}

/* --- folders and temporary files --------------------------------------------------------------------------------- */

int image_make_dir(const char *dir, mode_t mode, struct err *e)
{
	AUTO_FREE char *above = xstrndup(dir, (size_t)(strrchr(dir, '/') - dir));

	if (mkdir(dir, mode) == 0 || errno == EEXIST)
		return 0;
	if (errno == ENOENT && *above && (mkdir(above, 0755) == 0 || errno == EEXIST) && (mkdir(dir, mode) == 0 || errno == EEXIST))
		return 0;
	return err_sys(e, -errno, "make the folder '%s'", dir);
}

/* ".NAME.XXXXXX" */
static bool is_temp(const char *name)
{
	size_t len = strlen(name);

	return len > 8 && name[0] == '.' && name[len - 7] == '.';
}

static void sweep(const char *dir)
{
	AUTO_CLOSEDIR DIR *d = opendir(dir);
	struct dirent *f;

	while (d && (f = readdir(d))) {
		AUTO_CLOSE int fd = is_temp(f->d_name) ? openat(dirfd(d), f->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;

		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		if (unlinkat(dirfd(d), f->d_name, 0) == 0)
			log_info("'%s/%s' was left by a program that was killed: removed", dir, f->d_name);
	}
}

int image_temp_make(const char *dir, const char *name, struct image_temp *ret, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	AUTO_FREE char *path = NULL;
	struct stat st;

	sweep(dir);
	do {
		free(path);
		path = xasprintf("%s/.%s.XXXXXX", dir, name);
		if (fd >= 0)
			close(fd);
		fd = mkostemp(path, O_CLOEXEC);
		if (fd < 0 || flock(fd, LOCK_EX) < 0 || fstat(fd, &st) < 0)
			return err_sys(e, -errno, "create a file in '%s'", dir);
		/* Another one's sweep may have come between the two. */
	} while (st.st_nlink == 0);
	*ret = (struct image_temp){ STEAL_PTR(path), STEAL_FD(fd) };
	return 0;
}

void image_temp_drop(struct image_temp *t)
{
	if (t->path)
		unlink(t->path);
	free(t->path);
	if (t->fd >= 0)
		close(t->fd);
	*t = (struct image_temp){ .fd = -1 };
}

int image_lock(const char *statedir, struct err *e)
{
	AUTO_FREE char *dir = xasprintf("%s/" IMAGES, statedir), *path = xasprintf("%s/.lock", dir);
	AUTO_CLOSE int fd = -1;
	int r = image_make_dir(dir, 0755, e);

	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "open '%s'", path);
	while ((r = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
		;
	return r < 0 ? err_sys(e, -errno, "lock '%s'", path) : STEAL_FD(fd);
}

/* --- records ---------------------------------------------------------------------------------------------------------- */

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
}

static bool number_of(struct json_object *o, const char *key, int64_t *ret)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int))
		return false;
	*ret = json_object_get_int64(v);
	return *ret >= 0;
}

/* NULL, or what is wrong with it. */
static const char *read_fields(struct json_object *o, const char *dir, const char *name, struct image *ret)
{
	const char *format = text_of(o, "format"), *sha256 = text_of(o, "sha256"), *file = text_of(o, "file"), *source = text_of(o, "source");
	int64_t schema, bytes, virtual_bytes, installed;

	if (!number_of(o, "schema", &schema) || schema != SCHEMA)
		return "it is of another version of gpuvm";
	if (!format || !sha256 || !file || !source || !number_of(o, "bytes", &bytes) || !number_of(o, "virtual_bytes", &virtual_bytes) ||
	    !number_of(o, "installed", &installed))
		return "a field is missing or of a wrong type";
	/* Not a path that leads elsewhere, and not another image's. */
	if (!image_file_is_of(file, name))
		return "the name of its file is not one of this image";
	*ret = (struct image){ .name = xstrdup(name),
			       .format = xstrdup(format),
			       .sha256 = xstrdup(sha256),
			       .file = xasprintf("%s/%s", dir, file),
			       .source = xstrdup(source),
			       .bytes = (uint64_t)bytes,
			       .virtual_bytes = (uint64_t)virtual_bytes,
			       .installed = installed };
	return NULL;
}

int image_record_read(const char *dir, const char *name, struct image *ret, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s.json", dir, name), *text = NULL;
	struct json_object *o;
	const char *wrong;
	int r = read_own_file(path, RECORD_MAX, &text);

	if (r < 0)
		return r == -ENOENT ? r : err_sys(e, r, "read '%s'", path);
	o = json_tokener_parse(text);
	wrong = json_object_is_type(o, json_type_object) ? read_fields(o, dir, name, ret) : "it is not JSON";
	json_object_put(o);
	return wrong ? err_set(e, -EBADMSG, "'%s' is damaged: %s; put it back from a backup, or move it away and install the image again", path, wrong) : 0;
}

int image_record_write(const char *dir, const struct image *i, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s.json", dir, i->name), *text = NULL;
	struct json_object *o = json_object_new_object();
	int r;

	json_object_object_add(o, "schema", json_object_new_int(SCHEMA));
	json_object_object_add(o, "format", json_object_new_string(i->format));
	json_object_object_add(o, "sha256", json_object_new_string(i->sha256));
	json_object_object_add(o, "file", json_object_new_string(strrchr(i->file, '/') + 1));
	json_object_object_add(o, "source", json_object_new_string(i->source));
	json_object_object_add(o, "bytes", json_object_new_int64((int64_t)i->bytes));
	json_object_object_add(o, "virtual_bytes", json_object_new_int64((int64_t)i->virtual_bytes));
	json_object_object_add(o, "installed", json_object_new_int64(i->installed));
	text = xasprintf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	r = write_file_atomic(path, text, strlen(text), 0644);
	return r < 0 ? err_sys(e, r, "write '%s'", path) : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the images, sorted. No folder: none. */
static int list_names(const char *dir, struct strv *ret, struct err *e)
{
	AUTO_CLOSEDIR DIR *d = opendir(dir);
	struct dirent *f;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "read '%s'", dir);
	while ((f = readdir(d))) {
		size_t len = strlen(f->d_name);
		AUTO_FREE char *name = len > 5 && strcmp(f->d_name + len - 5, ".json") == 0 ? xstrndup(f->d_name, len - 5) : NULL;

		if (name && image_name_ok(name))
			strv_push(ret, name);
	}
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_name);
	return 0;
}

int image_not_there(const char *dir, const char *name, struct err *e)
{
	struct strv names = { 0 };
	unsigned int best = (unsigned int)strlen(name) / 2;
	const char *nearest = NULL;
	int r = list_names(dir, &names, e);

	for (size_t i = 0; i < names.n; i++) {
		unsigned int distance = edit_distance(name, names.v[i]);

		if (distance < best) {
			best = distance;
			nearest = names.v[i];
		}
	}
	if (r == 0 && nearest)
		r = err_set(e, -ENOENT, "there is no image '%s'; did you mean '%s'? `gpuvm image list` shows all", name, nearest);
	else if (r == 0)
		r = err_set(e, -ENOENT, "there is no image '%s'; %s", name,
			    names.n ? "`gpuvm image list` shows those that there are" : "none is installed: `gpuvm image install FILE` does it");
	strv_clear(&names);
	return r;
}

int image_find(const char *statedir, const char *name, struct image *ret, struct err *e)
{
	AUTO_FREE char *dir = xasprintf("%s/" IMAGES, statedir);
	int r = image_name_ok(name) ? image_record_read(dir, name, ret, e) : -ENOENT;

	return r == -ENOENT ? image_not_there(dir, name, e) : r;
}

/* --- all of them, with their users ------------------------------------------------------------------------------------ */

/* Files in @dir that are of image @name, sorted. */
static int list_files(const char *dir, const char *name, struct strv *ret, struct err *e)
{
	AUTO_CLOSEDIR DIR *d = opendir(dir);
	struct dirent *f;

	if (!d)
		return err_sys(e, -errno, "read '%s'", dir);
	while ((f = readdir(d)))
		if (image_file_is_of(f->d_name, name))
			strv_pushf(ret, "%s/%s", dir, f->d_name);
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_name);
	return 0;
}

static int add_users(const char *dir, const struct image_uses *uses, struct image *i, struct err *e)
{
	struct strv files = { 0 };
	int r = list_files(dir, i->name, &files, e);

	for (size_t f = 0; r == 0 && f < files.n; f++) {
		image_uses_of(uses, files.v[f], &i->used_by);
		if (strcmp(files.v[f], i->file) != 0)
			strv_push(&i->older, files.v[f]);
	}
	if (i->used_by.n)
		qsort(i->used_by.v, i->used_by.n, sizeof(*i->used_by.v), by_name);
	strv_clear(&files);
	return r;
}

int image_list(const char *statedir, const struct image_users *u, struct image **ret, size_t *ret_n, struct strv *ret_unknown, struct err *e)
{
	AUTO_FREE char *dir = xasprintf("%s/" IMAGES, statedir);
	struct image_uses uses = { 0 };
	struct strv names = { 0 };
	struct image *v = NULL;
	size_t n = 0;
	int r = list_names(dir, &names, e);

	if (r == 0 && names.n)
		image_uses_collect(statedir, u, &uses);
	for (size_t i = 0; r == 0 && i < names.n; i++) {
		struct image one = { 0 };

		r = image_record_read(dir, names.v[i], &one, e);
		if (r == 0)
			r = add_users(dir, &uses, &one, e);
		if (r == 0)
			*PUSH_ZEROED(v, n) = one;
		else
			image_clear(&one);
		/* Removed since the folder was read. */
		if (r == -ENOENT)
			r = 0;
	}
	strv_clear(&names);
	if (r < 0) {
		images_free(v, n);
	} else {
		*ret = v;
		*ret_n = n;
		for (size_t i = 0; i < uses.unknown.n; i++)
			strv_push(ret_unknown, uses.unknown.v[i]);
	}
	image_uses_clear(&uses);
	return r;
}

/* --- removal ------------------------------------------------------------------------------------------------------------ */

bool image_is_orphan(const char *dir, const char *file)
{
	const char *at = strrchr(file, '@');
	AUTO_FREE char *name = at ? xstrndup(file, (size_t)(at - file)) : NULL, *path = xasprintf("%s/%s", dir, file);
	struct image i = { 0 };
	struct err e;
	bool orphan;
	int r;

	if (!name || !image_name_ok(name) || !image_file_is_of(file, name))
		return false;
	r = image_record_read(dir, name, &i, &e);
	orphan = r == -ENOENT || (r == 0 && strcmp(i.file, path) != 0);
	image_clear(&i);
	return orphan;
}

/* Half a record: who wrote it has not come to rename it, and has the lock no more. */
static bool is_half_record(const char *file)
{
	size_t len = strlen(file), tail = strlen(".json.new");

	return len > tail && strcmp(file + len - tail, ".json.new") == 0;
}

/* @ret: to be judged. Half a record needs no judgement. */
static void find_orphans(const char *dir, struct strv *ret)
{
	AUTO_CLOSEDIR DIR *d = opendir(dir);
	struct dirent *f;

	while (d && (f = readdir(d))) {
		if (image_is_orphan(dir, f->d_name))
			strv_pushf(ret, "%s/%s", dir, f->d_name);
		else if (is_half_record(f->d_name) && unlinkat(dirfd(d), f->d_name, 0) < 0)
			log_warning("remove '%s/%s': %s", dir, f->d_name, strerror(errno));
	}
}

void image_collect_garbage(const char *statedir, const struct image_users *u)
{
	AUTO_FREE char *dir = xasprintf("%s/" IMAGES, statedir);
	struct strv orphans = { 0 };
	struct image_uses uses = { 0 };

	find_orphans(dir, &orphans);
	if (orphans.n)
		image_uses_collect(statedir, u, &uses);
	for (size_t i = 0; i < orphans.n && !uses.unknown.n; i++) {
		struct strv by = { 0 };

		image_uses_of(&uses, orphans.v[i], &by);
		if (by.n)
			log_info("'%s' stays: '%s' needs it", orphans.v[i], by.v[0]);
		else if (unlink(orphans.v[i]) < 0)
			log_warning("remove '%s': %s", orphans.v[i], strerror(errno));
		strv_clear(&by);
	}
	for (size_t i = 0; i < orphans.n && uses.unknown.n; i++)
		log_warning("'%s' stays, because it cannot be told whether it is needed: %s", orphans.v[i], uses.unknown.v[0]);
	strv_clear(&orphans);
	image_uses_clear(&uses);
}

static int check_unused(const struct image_uses *uses, const struct image *i, struct err *e)
{
	AUTO_FREE char *text = xstrdup("");

	for (size_t u = 0; u < i->used_by.n && u < USERS_MAX; u++) {
		char *more = xasprintf("%s%s'%s'", text, u ? ", " : "", i->used_by.v[u]);

		free(text);
		text = more;
	}
	if (i->used_by.n > USERS_MAX)
		return err_set(e, -EBUSY, "image '%s' is needed by %s and %zu more", i->name, text, i->used_by.n - USERS_MAX);
	if (i->used_by.n)
		return err_set(e, -EBUSY, "image '%s' is needed by %s", i->name, text);
	if (uses->unknown.n)
		return err_set(e, -EBUSY, "it cannot be told whether image '%s' is needed: %s; put that right or move it away first", i->name,
			       uses->unknown.v[0]);
	return 0;
}

/* The record goes first: a file without one is removed by the next install. */
static int remove_files(const char *dir, const struct image *i, struct err *e)
{
	AUTO_FREE char *record = xasprintf("%s/%s.json", dir, i->name);
	struct strv files = { 0 };
	int r = list_files(dir, i->name, &files, e);

	if (r == 0 && unlink(record) < 0)
		r = err_sys(e, -errno, "remove '%s'", record);
	for (size_t f = 0; r == 0 && f < files.n; f++)
		if (unlink(files.v[f]) < 0)
			r = err_sys(e, -errno, "remove '%s'", files.v[f]);
	strv_clear(&files);
	if (r == 0) {
		r = fsync_parent(record);
		r = r < 0 ? err_sys(e, r, "sync '%s'", dir) : 0;
	}
	return r;
}

int image_remove(const char *statedir, const struct image_users *u, const char *name, struct err *e)
{
	AUTO_FREE char *dir = xasprintf("%s/" IMAGES, statedir);
	AUTO_CLOSE int lock = image_lock(statedir, e);
	struct image_uses uses = { 0 };
	struct image i = { 0 };
	int r = lock < 0 ? lock : image_find(statedir, name, &i, e);

	if (r < 0)
		return r;
	image_uses_collect(statedir, u, &uses);
	r = add_users(dir, &uses, &i, e);
	if (r == 0)
		r = check_unused(&uses, &i, e);
	if (r == 0)
		r = remove_files(dir, &i, e);
	image_uses_clear(&uses);
	image_clear(&i);
	return r < 0 ? err_wrap(e, "remove the image") : 0;
}
