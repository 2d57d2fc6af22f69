/* SPDX-License-Identifier: GPL-2.0-or-later */
/* disk.c - qemu-img: what is in a file, is it sound, and a new one.
 *
 * A file is whatever somebody has uploaded, and one can be made to take any amount of time and memory, so each run has limits on both. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gpuvm/parse.h"
#include "gpuvm/spawn.h"
#include "image_priv.h"

#define OUTPUT_MAX (1UL << 20)
#define GIB        (UINT64_C(1) << 30)

/* OpenStack's limits for the same (nova/privsep/qemu.py): 1 GiB, 30 s. A check reads all tables of the image: for 10 TiB in clusters of 64 KiB
 * it holds 300 MiB of reference counts. */
static const struct tool_limits {
	uint64_t address_bytes;
	unsigned int cpu_s, timeout_ms;
} quick = { GIB, 30, 60 * 1000 }, thorough = { 4 * GIB, 600, 1800 * 1000 };

/* --- running it --------------------------------------------------------------------------------------------------- */

/* A file that ends where it ends: a program that prints without end gets an error, instead of our memory. */
static int make_output(struct err *e)
{
	AUTO_CLOSE int fd = memfd_create("gpuvm-qemu-img", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, OUTPUT_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return err_sys(e, -errno, "a memory file for qemu-img's output");
	return STEAL_FD(fd);
}

static char *read_output(int fd)
{
	char *text = xcalloc(1, OUTPUT_MAX + 1);
	ssize_t n = pread(fd, text, OUTPUT_MAX, 0);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* @stop_fd (or -1): readable when somebody wants us to stop. */
static int wait_tool(const struct spawn *s, const struct tool_limits *l, int stop_fd, int *ret_status, struct err *e)
{
	struct pollfd p[] = { { .fd = s->pidfd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };
	int n;

	while ((n = poll(p, 2, (int)l->timeout_ms)) < 0 && errno == EINTR)
		;
	if (n == 0)
		return err_set(e, -ETIMEDOUT, "qemu-img did not end within %u s", l->timeout_ms / 1000);
	if (n < 0 || !p[0].revents)
		return err_set(e, -EINTR, "stopped by a signal");
	return waitpid(s->pid, ret_status, 0) == s->pid ? 0 : err_sys(e, -errno, "wait for qemu-img");
}

/* qemu-img with @args: what it printed and how it ended. */
static int run_tool(const struct strv *args, const struct tool_limits *l, int stop_fd, char **ret_text, int *ret_status, struct err *e)
{
	AUTO_FREE char *tool = spawn_find_program("qemu-img");
	AUTO_CLOSE int out = make_output(e);
	struct strv argv = { 0 };
	struct spawn_options o = { .argv = &argv, .stderr_fd = out, .address_bytes = l->address_bytes, .cpu_s = l->cpu_s, .die_with_parent = true };
	struct spawn s = { .pidfd = -1, .go_fd = -1, .exec_fd = -1 };
	int r;

	if (out < 0)
		return out;
	if (!tool)
		return err_set(e, -ENOENT, "there is no qemu-img; install qemu-utils (Debian) or qemu-img (RHEL)");
	strv_push(&argv, tool);
	for (size_t i = 0; i < args->n; i++)
		strv_push(&argv, args->v[i]);
	r = spawn_prepare(&o, &s, e);
	if (r == 0)
		r = spawn_go(&s, e);
	if (r == 0)
		r = wait_tool(&s, l, stop_fd, ret_status, e);
	spawn_abort(&s);
	strv_clear(&argv);
	if (r == 0)
		*ret_text = read_output(out);
	return r;
}

/* The last two lines of what it printed, as one, without its own name and that of @file, which the caller has said. */
static char *last_words(const char *text, const char *file)
{
	AUTO_FREE char *said = xstrdup(text), *could_not = xasprintf("Could not open '%s': ", file), *words = xstrdup("");
	char *line, *next;
	size_t n = 0, i = 0;

	for (const char *p = said; *p; p++)
		n += *p == '\n' && p[1] != '\0';
	for (line = said; *line; line = next, i++) {
		char *joined;

		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		if (strncmp(line, "qemu-img: ", 10) == 0)
			line += 10;
		if (strncmp(line, could_not, strlen(could_not)) == 0)
			line += strlen(could_not);
		if (i + 1 < n)
			continue;
		joined = xasprintf("%s%s%.300s", words, *words ? " " : "", line);
		free(words);
		words = joined;
	}
	return STEAL_PTR(words);
}

/* qemu-img has failed. */
static int blame(const char *text, int status, const char *file, const struct tool_limits *l, struct err *e)
{
	AUTO_FREE char *words = last_words(text, file);
	char how[96];

	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
		return err_set(e, -EINVAL, "qemu-img needs more than %u s of CPU time for it", l->cpu_s);
	if (WIFSIGNALED(status) || !*words)
		return err_set(e, -EINVAL, "qemu-img ended with %s%s%s", spawn_status_text(status, how), *words ? ": " : "", words);
	return err_set(e, -EINVAL, "%s", words);
}

/* qemu-img would take "nbd:x" for a protocol; not so what begins with "/". Symlinks stay: QEMU looks for a relative backing file beside the name it was given. */
static char *absolute(const char *path)
{
	AUTO_FREE char *cwd = NULL;

	if (*path == '/')
		return xstrdup(path);
	cwd = getcwd(NULL, 0);
	return xasprintf("%s/%s", cwd ? cwd : ".", path);
}

/* --- info, check ------------------------------------------------------------------------------------------------------ */

int disk_info_read(const char *path, const char *format, struct disk_info *ret, struct err *e)
{
	AUTO_FREE char *file = absolute(path), *text = NULL;
	struct strv args = { 0 };
	struct stat st;
	int status = 0, r;

	if (stat(file, &st) < 0)
		return err_sys(e, -errno, "'%s'", path);
	/* qemu-img would wait for the other side of a FIFO. */
	if (!S_ISREG(st.st_mode) && !(format && S_ISBLK(st.st_mode)))
		return err_set(e, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "'%s' is %s", path, S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
	strv_push(&args, "info");
	strv_push(&args, "--output=json");
	if (format) {
		/* A disk that a running VM has open may be looked at, but not be taken for an image to install. */
		strv_push(&args, "-U");
		strv_push(&args, "-f");
		strv_push(&args, format);
	}
	strv_push(&args, file);
	r = run_tool(&args, &quick, -1, &text, &status, e);
	strv_clear(&args);
	if (r == 0)
		r = status ? blame(text, status, file, &quick, e) : disk_info_parse(text, ret, e);
	return r < 0 ? err_wrap(e, "'%s'", path) : 0;
}

int disk_check(const char *path, const char *format, int stop_fd, struct err *e)
{
	AUTO_FREE char *file = absolute(path), *text = NULL;
	struct strv args = { 0 };
	int status = 0, r;

	strv_push(&args, "check");
	strv_push(&args, "--output=json");
	strv_push(&args, "-f");
	strv_push(&args, format);
	strv_push(&args, file);
	r = run_tool(&args, &thorough, stop_fd, &text, &status, e);
	strv_clear(&args);
	if (r < 0)
		return r;
	/* qemu-img(1): 3 is clusters that are allocated and not used, which only wastes space. */
	if (status == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 3))
		return 0;
	if (disk_check_parse(text))
		return err_set(e, -EINVAL, "qemu-img check finds %" PRIu64 " errors; fetch it again", disk_check_parse(text));
	blame(text, status, file, &thorough, e);
	return err_wrap(e, "qemu-img check");
}

/* --- create --------------------------------------------------------------------------------------------------------------- */

/* The base as the overlay's header names it: relative, so that the state folder can be moved; absolute if that would be another file. Owned. */
static char *base_name(const char *dir, const struct image *base)
{
	AUTO_FREE char *relative = xasprintf("../" IMAGES "/%s", strrchr(base->file, '/') + 1), *seen = xasprintf("%s/%s", dir, relative);
	struct stat a, b;
	bool same = stat(seen, &a) == 0 && stat(base->file, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;

	return same ? STEAL_PTR(relative) : xstrdup(base->file);
}

static void create_args(const char *file, const char *dir, const struct image *base, uint64_t bytes, struct strv *ret)
{
	AUTO_FREE char *backing = base ? base_name(dir, base) : NULL;

	for (const char *const *a = (const char *const[]){ "create", "-q", "-f", "qcow2", NULL }; *a; a++)
		strv_push(ret, *a);
	if (base) {
		strv_push(ret, "-b");
		strv_push(ret, backing);
		strv_push(ret, "-F");
		strv_push(ret, base->format);
	}
	strv_push(ret, file);
	if (bytes)
		strv_pushf(ret, "%" PRIu64, bytes);
}

/* Write it under its temporary name and give it the real one. */
static int make_disk(const struct image_temp *t, const char *path, const char *dir, const struct image *base, uint64_t bytes, struct err *e)
{
	AUTO_FREE char *text = NULL;
	struct strv args = { 0 };
	int status = 0, r;

	create_args(t->path, dir, base, bytes, &args);
	r = run_tool(&args, &quick, -1, &text, &status, e);
	strv_clear(&args);
	if (r == 0 && status)
		r = blame(text, status, t->path, &quick, e);
	if (r < 0)
		return r;
	/* link() and not rename(): it does not replace. */
	if (fsync(t->fd) < 0 || link(t->path, path) < 0)
		return err_sys(e, -errno, "write it");
	r = fsync_parent(path);
	/* Then it would be there or not after a crash, and the caller is told that it is not. */
	if (r < 0)
		unlink(path);
	return r < 0 ? err_sys(e, r, "sync '%s'", dir) : 0;
}

int disk_create(const char *path, const struct image *base, uint64_t bytes, struct err *e)
{
	AUTO_FREE char *file = absolute(path), *dir = xstrndup(file, (size_t)(strrchr(file, '/') - file));
	struct image_temp t = { .fd = -1 };
	char have[32], want[32];
	int r;

	if (!base && !bytes)
		return err_set(e, -EINVAL, "make the disk '%s': an empty disk needs a size", path);
	if (base && bytes && bytes < base->virtual_bytes)
		return err_set(e, -EINVAL, "make the disk '%s': %s are less than the image '%s' has (%s)", path, format_size(bytes, want), base->name,
			       format_size(base->virtual_bytes, have));
	r = image_make_dir(dir, 0711, e);
	if (r == 0)
		r = image_temp_make(dir, strrchr(file, '/') + 1, &t, e);
	if (r == 0)
		r = make_disk(&t, file, dir, base, bytes, e);
	image_temp_drop(&t);
	return r < 0 ? err_wrap(e, "make the disk '%s'", path) : 0;
}
