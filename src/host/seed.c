/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gpuvm/guest_check.h"
#include "gpuvm/nccl.h"
#include "gpuvm/parse.h"
#include "gpuvm/seed.h"
#include "gpuvm/spawn.h"

#define TOOL_TIMEOUT_MS 60000 /* it takes milliseconds; a disk that hangs takes for ever */

/* What there may be in a VM's folder: NAME.iso, and NAME with these files while it is made. */
static const char *const images[] = { "seed", "check" };
static const char *const names[] = { "user-data", "meta-data", "network-config", GUEST_CHECK_FILE, NCCL_FILE };

char *seed_find_tool(void)
{
	static const char *const tools[] = { "xorrisofs", "genisoimage", "mkisofs" };

	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		char *path = spawn_find_program(tools[i]);

		if (path)
			return path;
	}
	return NULL;
}

/* --- files ------------------------------------------------------------------------------------------------ */

/* O_NONBLOCK: a FIFO must not hold us up. */
static int open_file(const char *path, int *ret)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	*ret = STEAL_FD(fd);
	return 0;
}

int seed_check_file(const char *path)
{
	AUTO_CLOSE int fd = -1;

	return open_file(path, &fd);
}

static int copy_bytes(int from, int to)
{
	char buf[16384];

	for (;;) {
		ssize_t n = read(from, buf, sizeof(buf));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		r = write_all(to, buf, (size_t)n);
		if (r < 0)
			return r;
	}
}

static int put_file(const char *dir, const struct plan_seed_file *f, struct err *e)
{
	AUTO_FREE char *to = xasprintf("%s/%s", dir, f->name);
	AUTO_CLOSE int out = -1;
	AUTO_CLOSE int in = -1;
	int r;

	r = f->path ? open_file(f->path, &in) : 0;
	if (r < 0)
		return err_sys(e, r, "open '%s'", f->path);
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	/* The image has these modes: user-data is for root, our files for everybody. */
	if (out < 0 || (f->ours && fchmod(out, 0644) < 0))
		return err_sys(e, -errno, "create '%s'", to);
	r = f->path ? copy_bytes(in, out) : write_all(out, f->text, strlen(f->text));
	return r < 0 ? err_sys(e, r, "copy '%s' to '%s'", f->path ? f->path : f->name, to) : 0;
}

static int remove_path(int (*fn)(const char *), struct err *e, const char *fmt, ...) PRINTF(3, 4);
static int remove_path(int (*fn)(const char *), struct err *e, const char *fmt, ...)
{
	AUTO_FREE char *path = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&path, fmt, ap) < 0)
		abort();
	va_end(ap);
	return fn(path) < 0 && errno != ENOENT ? err_sys(e, -errno, "remove '%s'", path) : 0;
}

static int remove_folder(const char *rundir, const char *image, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names) && r == 0; i++)
		r = remove_path(unlink, e, "%s/%s/%s", rundir, image, names[i]);
	return r == 0 ? remove_path(rmdir, e, "%s/%s", rundir, image) : r;
}

static int remove_image(const char *rundir, const char *image, struct err *e)
{
	int r = remove_path(unlink, e, "%s/%s.iso", rundir, image);

	return r == 0 ? remove_folder(rundir, image, e) : r;
}

int seed_remove(const char *rundir, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(images) && r == 0; i++)
		r = remove_image(rundir, images[i], e);
	return r;
}

/* --- the program ---------------------------------------------------------------------------------------------- */

static int wait_tool(struct spawn *child, const char *tool, int log, struct err *e)
{
	struct pollfd p = { .fd = child->pidfd, .events = POLLIN };
	char said[512] = "", text[96];
	int status = 0, n;

	do
		n = poll(&p, 1, TOOL_TIMEOUT_MS);
	while (n < 0 && errno == EINTR);
	if (n != 1 || waitpid(child->pid, &status, 0) != child->pid)
		return err_set(e, -ETIMEDOUT, "'%s' does not end", tool);
	if (status == 0)
		return 0;
	if (pread(log, said, sizeof(said) - 1, 0) < 0)
		said[0] = '\0';
	return err_set(e, -EIO, "'%s' failed (%s): %s", tool, spawn_status_text(status, text), said);
}

static int run_tool(const struct plan_seed *s, const char *dir, struct err *e)
{
	AUTO_CLOSE int log = memfd_create("seed", MFD_CLOEXEC);
	struct strv argv = { 0 };
	struct spawn_options o = { .argv = &argv, .stderr_fd = log, .cwd = dir, .die_with_parent = true };
	struct spawn child = { .pidfd = -1, .go_fd = -1, .exec_fd = -1 };
	int r;

	if (log < 0)
		return err_sys(e, -errno, "memfd_create");
	plan_seed_command(s, &argv);
	r = spawn_prepare(&o, &child, e);
	if (r == 0)
		r = spawn_go(&child, e);
	if (r == 0)
		r = wait_tool(&child, s->tool, log, e);
	spawn_abort(&child);
	strv_clear(&argv);
	return r;
}

int seed_make(const struct plan_seed *s, struct err *e)
{
	const char *slash = strrchr(s->image, '/');
	AUTO_FREE char *rundir = xstrndup(s->image, (size_t)(slash - s->image)), *name = xstrndup(slash + 1, strcspn(slash + 1, ".")),
		       *dir = xasprintf("%s/%s", rundir, name);
	struct err ignored;
	int r = remove_image(rundir, name, e);

	if (r == 0 && mkdir(dir, 0700) < 0)
		r = err_sys(e, -errno, "create '%s'", dir);
	for (size_t i = 0; i < s->n_files && r == 0; i++)
		r = put_file(dir, &s->files[i], e);
	if (r == 0)
		r = run_tool(s, dir, e);
	if (r == 0 && chmod(s->image, 0600) < 0)
		r = err_sys(e, -errno, "'%s' did not make '%s'", s->tool, s->image);
	if (r == 0)
		return remove_folder(rundir, name, e);
	/* What went wrong first is what matters. */
	remove_image(rundir, name, &ignored);
	return err_wrap(e, "%s.iso", name);
}
