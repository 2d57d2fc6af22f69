/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tree.c - see capture_priv.h. Entries come folder by folder, so the last folder is kept open: with it, a tree of a
 * hundred thousand files needs hardly more than one system call for a path. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

#include "capture_priv.h"
#include "gpuvm/parse.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

void tree_init(struct tree *t, int root_fd)
{
	*t = (struct tree){ .root_fd = root_fd, .dir_fd = -1 };
}

void tree_close(struct tree *t)
{
	close_cleanup(&t->dir_fd);
	t->dir_fd = -1;
}

bool tree_path_ok(const char *path)
{
	if (!*path || strlen(path) >= PATH_MAX)
		return false;
	for (const char *s = path;;) {
		size_t n = strcspn(s, "/");

		if (!n || n > NAME_MAX || (n == 1 && *s == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return false;
		if (!s[n])
			return true;
		s += n + 1;
	}
}

bool tree_link_ok(const char *path, const char *target)
{
	int depth = 0;

	for (const char *s = path; *s; s++)
		depth += *s == '/';
	for (; !strncmp(target, "../", 3); target += 3)
		depth--;
	return depth >= 0 && tree_path_ok(target);
}

/* Open the folder @path, one name after the other so that none is a link. -Exxx */
static int open_folder(int root_fd, const char *path)
{
	int fd = openat(root_fd, ".", DIR_FLAGS);

	while (fd >= 0 && *path) {
		size_t n = strcspn(path, "/");
		AUTO_FREE char *name = xstrndup(path, n);
		int next;

		if (mkdirat(fd, name, 0755) < 0 && errno != EEXIST)
			next = -1;
		else
			next = openat(fd, name, DIR_FLAGS);
		if (next < 0) {
			int r = -errno;

			close(fd);
			return r;
		}
		close(fd);
		fd = next;
		path += n + (path[n] == '/');
	}
	return fd < 0 ? -errno : fd;
}

int tree_dir(struct tree *t, const char *path)
{
	int fd;

	if (t->dir_fd >= 0 && !strcmp(t->dir, path))
		return 0;
	tree_close(t);
	fd = open_folder(t->root_fd, path);
	if (fd < 0)
		return fd;
	t->dir_fd = fd;
	snprintf(t->dir, sizeof(t->dir), "%s", path);
	return 0;
}

/* Open the folder that @path is in; its last name is @ret_name. */
static int enter(struct tree *t, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *dir = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup("");

	*ret_name = slash ? slash + 1 : path;
	return tree_dir(t, dir);
}

int tree_file(struct tree *t, const char *path, const void *data, size_t len)
{
	AUTO_CLOSE int fd = -1;
	const char *name;
	int r = enter(t, path, &name);

	if (r < 0)
		return r;
	fd = openat(t->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;
	return write_all(fd, data, len);
}

int tree_link(struct tree *t, const char *path, const char *target)
{
	const char *name;
	int r = enter(t, path, &name);

	if (r < 0)
		return r;
	return symlinkat(target, t->dir_fd, name) < 0 && errno != EEXIST ? -errno : 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void tree_remove(const char *path)
{
	nftw(path, remove_entry, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
