/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture_priv.h - writing a tree of small files below a folder, never through a link. */
#ifndef GPUVM_HOST_CAPTURE_PRIV_H
#define GPUVM_HOST_CAPTURE_PRIV_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/err.h"

struct tree {
	int root_fd, dir_fd;
	char dir[PATH_MAX]; /* that dir_fd is open at */
};

/* Paths are relative, without "." and ".." (tree_path_ok()); folders come into being on the way. What is there already
 * stays as it is, and that is no error: two ways lead to many a folder of sysfs. 0 or -Exxx. */
void tree_init(struct tree *t, int root_fd);
void tree_close(struct tree *t); /* not root_fd */
int tree_dir(struct tree *t, const char *path);
int tree_file(struct tree *t, const char *path, const void *data, size_t len);
int tree_link(struct tree *t, const char *path, const char *target);

bool tree_path_ok(const char *path);

/* May the link @path point to @target? Only "../" as often as leads to the root of the tree, then names: then no chain of
 * such links leads outside. That is the form that all links in sysfs have. */
bool tree_link_ok(const char *path, const char *target);

/* Remove a folder and all in it, crossing neither links nor mounts. */
void tree_remove(const char *path);

#endif
