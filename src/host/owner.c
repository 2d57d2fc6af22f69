/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "gpuvm/owner.h"
#include "gpuvm/worker.h"

#define MAY_TIMEOUT_MS 10000 /* a network file system may not answer at all */
#define ALL_TIMEOUT_MS 1000

int owner_look(const char *path, char **ret_path, struct owner *ret, struct err *e)
{
	AUTO_FREE char *real = realpath(path, NULL);
	struct stat st;

	if (!real || lstat(real, &st) < 0)
		return err_sys(e, -errno, "'%s'", path);
	*ret = (struct owner){ .uid = st.st_uid, .gid = st.st_gid, .mode = st.st_mode & 0777 };
	*ret_path = STEAL_PTR(real);
	return 0;
}

/* O_PATH: a device node or a pipe is not opened by it. Without O_NOFOLLOW, with which a symlink at the end would be what is opened. */
static int open_path(const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

static int change_mode(int fd, mode_t mode)
{
	AUTO_FREE char *self = xasprintf("/proc/self/fd/%d", fd);

	return chmod(self, mode) < 0 ? -errno : 0;
}

/* All in folder @fd that are @from's. chown(2) takes set-user-ID bits away, and here it follows no symlink. */
static int change_files(int fd, uid_t from, uid_t to, gid_t gid)
{
	AUTO_CLOSE int dir_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSEDIR DIR *dir = dir_fd < 0 ? NULL : fdopendir(dir_fd);
	struct dirent *d;
	int r = 0;

	if (!dir)
		return -errno;
	(void)STEAL_FD(dir_fd);
	while (r == 0 && (errno = 0, d = readdir(dir))) {
		struct stat st;

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    (st.st_uid == from && fchownat(dirfd(dir), d->d_name, to, gid, AT_SYMLINK_NOFOLLOW) < 0))
			r = -errno;
	}
	return r < 0 ? r : -errno;
}

/* The owner first: owner_take_back() knows by it that there is something to take back. */
int owner_give(const char *path, uid_t uid, struct err *e)
{
	AUTO_CLOSE int fd = open_path(path);
	struct stat st;
	int r = fd < 0 ? fd : fstat(fd, &st) < 0 || fchownat(fd, "", uid, (gid_t)-1, AT_EMPTY_PATH) < 0 ? -errno : 0;

	if (r == 0)
		r = change_mode(fd, S_ISDIR(st.st_mode) ? 0700 : 0600);
	if (r == 0 && S_ISDIR(st.st_mode))
		r = change_files(fd, st.st_uid, uid, (gid_t)-1);
	return r < 0 ? err_sys(e, r, "give '%s' to uid %u", path, uid) : 0;
}

int owner_take_back(const char *path, uid_t uid, const struct owner *was, struct err *e)
{
	AUTO_CLOSE int fd = open_path(path);
	struct stat st;
	int r;

	/* A symlink in the way was not there before: what it leads to was never given away. */
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
		return 0;
	r = fd < 0 ? fd : fstat(fd, &st) < 0 ? -errno : 0;
	if (r == 0 && st.st_uid != uid)
		return 0;
	if (r == 0 && S_ISDIR(st.st_mode))
		r = change_files(fd, uid, was->uid, was->gid);
	if (r == 0)
		r = change_mode(fd, was->mode);
	if (r == 0 && fchownat(fd, "", was->uid, was->gid, AT_EMPTY_PATH) < 0)
		r = -errno;
	return r < 0 ? err_sys(e, r, "give '%s' back to uid %u", path, was->uid) : 0;
}

/* --- may a user? -------------------------------------------------------------------------------------------------- */

static int refuse(struct err *e, const char *word, const char *path)
{
	int r = err_set(e, -errno, "%s", path);

	e->word = word;
	return r;
}

/* As whom we are. @path: without symlinks, so that each folder on the way is one of its. */
static int check(const char *path, int mode, struct err *e)
{
	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		AUTO_FREE char *dir = xstrndup(path, (size_t)(slash - path));

		if (access(dir, X_OK) < 0)
			return refuse(e, "folder", dir);
	}
	return mode && access(path, mode) < 0 ? refuse(e, "file", path) : 0;
}

static char *resolve(const struct owner_wish *w)
{
	char *real = realpath(w->path, NULL);

	return real ? real : xstrdup(w->path);
}

static int ask(const void *arg, struct err *e)
{
	const struct owner_wish *w = arg;
	AUTO_FREE char *path = resolve(w);

	return spawn_become(w->id, e) < 0 ? e->code : check(path, w->mode, e);
}

struct wishes {
	const struct owner_wish *v;
	size_t n;
};

static int ask_all(const void *arg, struct err *e)
{
	const struct wishes *all = arg;
	AUTO_FREE char **paths = xcalloc(all->n, sizeof(*paths));
	int r;

	for (size_t i = 0; i < all->n; i++)
		paths[i] = resolve(&all->v[i]);
	r = spawn_become(all->v->id, e);
	for (size_t i = 0; i < all->n && r == 0; i++)
		r = check(paths[i], all->v[i].mode, e);
	for (size_t i = 0; i < all->n; i++)
		free(paths[i]);
	return r;
}

/* One process is sooner there than many, and as a rule nothing is missing. */
static bool all_granted(const struct owner_wish *wishes, size_t n)
{
	struct wishes all = { .v = wishes, .n = n };
	struct worker_job job = { .run = ask_all, .arg = &all };

	for (size_t i = 0; i < n; i++)
		if (wishes[i].id != wishes->id)
			return false;
	workers_run(&job, 1, ALL_TIMEOUT_MS);
	return job.err.code == 0;
}

void owner_may(struct owner_wish *wishes, size_t n)
{
	AUTO_FREE struct worker_job *jobs = xcalloc(n + 1, sizeof(*jobs));

	for (size_t i = 0; i < n; i++)
		wishes[i].err.code = 0;
	if (n == 0 || all_granted(wishes, n))
		return;
	for (size_t i = 0; i < n; i++)
		jobs[i] = (struct worker_job){ .run = ask, .arg = &wishes[i] };
	workers_run(jobs, n, MAY_TIMEOUT_MS);
	for (size_t i = 0; i < n; i++)
		wishes[i].err = jobs[i].err;
}
