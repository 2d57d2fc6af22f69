/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu_cache.c - what a QEMU answered the last time, for as long as it is the same QEMU. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/log.h"
#include "gpuvm/parse.h"
#include "gpuvm/probe.h"
#include "gpuvm/qemu.h"
#include "gpuvm/strv.h"

/* Where distributions have the modules of a modular QEMU: one more or less there changes the answers. */
static const char *const module_dirs[] = { "/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib64/qemu", "/usr/lib/qemu", "/usr/local/lib/qemu" };
static const char module_env[] = "QEMU_MODULE_DIR=";

static void add_time(struct json_object *o, const char *key, const struct timespec *ts)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec));
}

static void add_modules(struct json_object *o, const char *dir)
{
	struct stat st;

	if (stat(dir, &st) == 0)
		add_time(o, dir, &st.st_mtim);
}

static bool is_elf(int fd)
{
	char magic[4];

	return pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) && memcmp(magic, "\177ELF", 4) == 0;
}

struct json_object *qemu_identity(const char *path, const struct strv *env)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct json_object *o, *modules, *list;
	AUTO_FREE char *real = NULL, *asked = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !is_elf(fd) || !(real = realpath(path, NULL)))
		return NULL;
	o = json_object_new_object();
	json_object_object_add(o, "path", json_object_new_string(real));
	json_object_object_add(o, "device", json_object_new_int64((int64_t)st.st_dev));
	json_object_object_add(o, "inode", json_object_new_int64((int64_t)st.st_ino));
	json_object_object_add(o, "size", json_object_new_int64(st.st_size));
	add_time(o, "mtime", &st.st_mtim);
	/* A package manager sets the mtime of a replaced file as it likes, but not this one. */
	add_time(o, "ctime", &st.st_ctim);
	asked = xasprintf("%016" PRIx64, qemu_questions_hash());
	json_object_object_add(o, "asked", json_object_new_string(asked));
	modules = json_object_new_object();
	for (size_t i = 0; i < ARRAY_SIZE(module_dirs); i++)
		add_modules(modules, module_dirs[i]);
	list = json_object_new_array();
	for (size_t i = 0; env && i < env->n; i++) {
		json_object_array_add(list, json_object_new_string(env->v[i]));
		if (strncmp(env->v[i], module_env, strlen(module_env)) == 0)
			add_modules(modules, env->v[i] + strlen(module_env));
	}
	json_object_object_add(o, "modules", modules);
	json_object_object_add(o, "env", list);
	return o;
}

/* One file per binary and environment: a new version of the binary takes the place of the old one. Owned. */
static char *cache_file(const char *dir, struct json_object *id)
{
	AUTO_FREE char *key = xasprintf("%s\n%s", json_object_get_string(json_object_object_get(id, "path")),
					json_object_to_json_string_ext(json_object_object_get(id, "env"), JSON_C_TO_STRING_PLAIN));
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (const char *s = key; *s; s++)
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	return xasprintf("%s/%016" PRIx64 ".json", dir, h);
}

/* Whose file is it? What a stranger could have written decides nothing. */
static char *read_trusted(const char *file)
{
	AUTO_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	AUTO_FREE char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)QEMU_ANSWERS_MAX)
		return NULL;
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || st.st_mode & (S_IWGRP | S_IWOTH)) {
		log_info("'%s' is not used: others than root or we could have written it", file);
		return NULL;
	}
	text = xcalloc(1, (size_t)st.st_size + 1);
	n = read(fd, text, (size_t)st.st_size);
	return n == st.st_size ? STEAL_PTR(text) : NULL;
}

bool qemu_cache_read(const char *dir, struct json_object *identity, struct qemu_info *ret)
{
	AUTO_FREE char *file = identity ? cache_file(dir, identity) : NULL, *text = file ? read_trusted(file) : NULL;
	struct json_object *o = text ? json_tokener_parse(text) : NULL, *theirs, *answers;
	struct err e = { 0 };
	bool hit = false;

	if (json_object_object_get_ex(o, "identity", &theirs) && json_object_equal(identity, theirs) &&
	    json_object_object_get_ex(o, "answers", &answers)) {
		hit = qemu_info_from_answers(answers, ret, &e) == 0;
		if (!hit)
			log_info("'%s' is damaged (%s): QEMU is asked again", file, e.msg);
	}
	json_object_put(o);
	return hit;
}

/* The folder and the one that it is in. */
static int make_dir(const char *dir)
{
	AUTO_FREE char *above = xstrndup(dir, strrchr(dir, '/') ? (size_t)(strrchr(dir, '/') - dir) : 0);

	if (mkdir(dir, 0755) == 0 || errno == EEXIST)
		return 0;
	if (errno != ENOENT || !*above || (mkdir(above, 0755) < 0 && errno != EEXIST))
		return -errno;
	return mkdir(dir, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

void qemu_cache_write(const char *dir, struct json_object *identity, struct json_object *answers)
{
	AUTO_FREE char *file = identity ? cache_file(dir, identity) : NULL;
	struct json_object *o;
	const char *text;
	int r;

	if (!file)
		return;
	o = json_object_new_object();
	json_object_object_add(o, "identity", json_object_get(identity));
	json_object_object_add(o, "answers", json_object_get(answers));
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	r = make_dir(dir);
	if (r == 0)
		r = write_file_atomic(file, text, strlen(text), 0644);
	if (r < 0)
		log_info("'%s' cannot be written (%s): QEMU will be asked again the next time", file, strerror(-r));
	json_object_put(o);
}
