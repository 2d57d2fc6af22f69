/* SPDX-License-Identifier: GPL-2.0-or-later */
/* logs.c - the logs in a VM's folder do not fill /run, whatever a guest or QEMU writes.
 *
 * How it works: inotify tells the supervisor that one was written to; a second later it looks at their sizes, so a VM that writes nothing costs nothing
 * and one that writes all the time a look a second.  Of a log that is over its limit the newer half becomes NAME.1, and the log itself is emptied in
 * place: its writers all append (O_APPEND), so they go on at its beginning.  What they write between the copy and the emptying is lost.
 * QEMU's user may write to some of these files: they are never followed as links. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define TAIL_MAX (64 << 10)

static const char *const names[] = { "serial.log", "qemu.log", "swtpm.log", "launch.log" };

static char *log_path(const char *rundir, const char *name, const char *suffix)
{
	return xasprintf("%s/%s%s", rundir, name, suffix);
}

int logs_begin(const char *rundir, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = log_path(rundir, names[i], ""), *old = log_path(rundir, names[i], ".1");

		/* A launcher that starts its VM again goes on with its own. */
		if (strcmp(names[i], "launch.log") != 0 && unlink(path) < 0 && errno != ENOENT)
			return err_sys(e, -errno, "remove '%s'", path);
		if (unlink(old) < 0 && errno != ENOENT)
			return err_sys(e, -errno, "remove '%s'", old);
	}
	return 0;
}

int logs_watch(const char *rundir, struct err *e)
{
	AUTO_CLOSE int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd < 0 || inotify_add_watch(fd, rundir, IN_MODIFY | IN_ONLYDIR) < 0)
		return err_sys(e, -errno, "watch the logs in '%s', which may grow without limit", rundir);
	return STEAL_FD(fd);
}

/* -ENOENT without words. */
static int open_log(const char *path, int flags, struct stat *st, struct err *e)
{
	AUTO_CLOSE int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 || fstat(fd, st) < 0)
		return err_sys(e, -errno, "open '%s'", path);
	/* One with another name may be anybody's. */
	if (!S_ISREG(st->st_mode) || st->st_nlink > 1)
		return err_set(e, -EINVAL, "'%s' is not a file of its own", path);
	return STEAL_FD(fd);
}

/* The last @max bytes of an open file of @size; owned. */
static char *read_end(int fd, off_t size, size_t max, size_t *ret_len)
{
	size_t want = (size_t)size > max ? max : (size_t)size, len = 0;
	char *text = xcalloc(want + 1, 1);
	ssize_t n = 1;

	while (len < want && n > 0) {
		n = pread(fd, text + len, want - len, size - (off_t)(want - len));
		len += n > 0 ? (size_t)n : 0;
	}
	text[len] = '\0';
	*ret_len = len;
	return text;
}

int logs_trim_file(const char *path, size_t max, struct err *e)
{
	AUTO_FREE char *old = xasprintf("%s.1", path), *text = NULL;
	struct stat st = { 0 };
	size_t len = 0;
	AUTO_CLOSE int fd = open_log(path, O_RDWR, &st, e);
	int r;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	if ((size_t)st.st_size <= max)
		return 0;
	text = read_end(fd, st.st_size, max / 2, &len);
	r = write_file_atomic(old, text, len, 0600);
	/* Where there is no room for a copy, room is what is needed. */
	if (ftruncate(fd, 0) < 0)
		return err_sys(e, -errno, "empty '%s'", path);
	return r < 0 ? err_sys(e, r, "write '%s'", old) : 0;
}

void logs_trim(struct launch *l, int watch_fd)
{
	char buf[4096];

	while (read(watch_fd, buf, sizeof(buf)) > 0)
		;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = log_path(l->plan.rundir, names[i], "");
		struct err e = { 0 };

		if (logs_trim_file(path, LOG_FILE_MAX, &e) < 0)
			log_warning("%s: %s", l->plan.vm, e.msg);
	}
}

/* Of a log that was emptied a moment ago, of what it was. */
static char *read_tail(const char *rundir)
{
	static const char *const suffixes[] = { "", ".1" };
	char *text = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(suffixes) && (!text || !*text); i++) {
		AUTO_FREE char *path = log_path(rundir, "qemu.log", suffixes[i]);
		struct err e;
		struct stat st = { 0 };
		size_t len;
		AUTO_CLOSE int fd = open_log(path, O_RDONLY, &st, &e);

		free(text);
		text = fd < 0 ? NULL : read_end(fd, st.st_size, TAIL_MAX, &len);
	}
	return text ? text : xstrdup("");
}

char *launch_log_tail(const struct launch *l, int lines)
{
	AUTO_FREE char *text = read_tail(l->plan.rundir);
	const char *from = text + strlen(text);

	if (from > text && from[-1] == '\n')
		text[--from - text] = '\0';
	while (from > text && lines > 0)
		if (*--from == '\n')
			lines--;
	return xstrdup(*from == '\n' ? from + 1 : from);
}
