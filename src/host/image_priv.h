/* SPDX-License-Identifier: GPL-2.0-or-later */
/* image_priv.h - what the files of the image store share: image.c has the folder, its lock and records, image_install.c makes new ones,
 * image_users.c looks for who needs a file, disk.c runs qemu-img. */
#ifndef GPUVM_HOST_IMAGE_PRIV_H
#define GPUVM_HOST_IMAGE_PRIV_H

#include <sys/types.h>

#include "gpuvm/image.h"

#define IMAGES "images" /* below the state folder */
#define DISKS  "disks"

/* @dir and the folder that it is in. */
int image_make_dir(const char *dir, mode_t mode, struct err *e);

/* A file ".NAME.XXXXXX" (0600) that nobody uses yet. flock() on it says that its maker lives: what is left of dead ones goes when the next is made. */
struct image_temp {
	char *path;
	int fd;
};
int image_temp_make(const char *dir, const char *name, struct image_temp *ret, struct err *e);
/* Remove and close it; no-op if it is not there. After a rename: set path to NULL before. */
void image_temp_drop(struct image_temp *t);

/* The record of one image; -ENOENT without words. */
int image_record_read(const char *dir, const char *name, struct image *ret, struct err *e);
int image_record_write(const char *dir, const struct image *i, struct err *e);

/* -ENOENT, in words: what may have been meant. */
int image_not_there(const char *dir, const char *name, struct err *e);
/* Is @file (a name in @dir) one that no record names? When in doubt: no. */
bool image_is_orphan(const char *dir, const char *file);
/* Remove files that are no image's and that nothing needs; with the lock held. Nothing if something cannot be judged. */
void image_collect_garbage(const char *statedir, const struct image_users *u);

/* Which files are needed by whom (image_users.c). A file may be there several times. */
struct image_uses {
	struct image_use {
		char *who;
		char *name; /* where the file is no path: what a header says in its place; else NULL */
		dev_t dev;
		ino_t ino;
	} *v;
	size_t n;
	struct strv unknown;
};
void image_uses_collect(const char *statedir, const struct image_users *u, struct image_uses *ret);
void image_uses_clear(struct image_uses *u);
/* Add who needs @file to @ret, each once. */
void image_uses_of(const struct image_uses *u, const char *file, struct strv *ret);

/* qemu-img check. @stop_fd: readable when we are to stop (-EINTR), or -1. -EINVAL: it is damaged. */
int disk_check(const char *path, const char *format, int stop_fd, struct err *e);

#endif
