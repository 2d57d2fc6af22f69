/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fake/mkhost_priv.h"

int mk_bad(struct mk *m, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(m->e, -EINVAL, "%s:%d: %s", m->file, m->line, text);
}

void mk_append(char **s, const char *fmt, ...)
{
	AUTO_FREE char *old = *s, *add = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&add, fmt, ap) < 0)
		abort();
	va_end(ap);
	*s = xasprintf("%s%s", old ? old : "", add);
}

/* --- files and links below the root ------------------------------------------------------------ */

int mk_make_dirs(struct mk *m, const char *path)
{
	char buf[PATH_MAX];

	snprintf(buf, sizeof(buf), "%s", path);
	if (mkdirat(m->root, buf, 0755) == 0 || errno == EEXIST)
		return 0;
	for (char *p = strchr(buf, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdirat(m->root, buf, 0755) < 0 && errno != EEXIST)
			return err_sys(m->e, -errno, "mkdir '%s'", buf);
		*p = '/';
	}
	if (mkdirat(m->root, buf, 0755) < 0 && errno != EEXIST)
		return err_sys(m->e, -errno, "mkdir '%s'", buf);
	return 0;
}

static int make_parent(struct mk *m, const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *dir = xstrndup(path, slash ? (size_t)(slash - path) : 0);

	return slash ? mk_make_dirs(m, dir) : 0;
}

int mk_put_bytes(struct mk *m, const char *path, const void *data, size_t len, size_t size)
{
	int fd = openat(m->root, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 && errno == ENOENT && make_parent(m, path) == 0)
		fd = openat(m->root, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(m->e, -errno, "create '%s'", path);
	if ((len && write(fd, data, len) != (ssize_t)len) || (size > len && ftruncate(fd, (off_t)size) < 0)) {
		close(fd);
		return err_sys(m->e, -EIO, "write '%s'", path);
	}
	close(fd);
	return 0;
}

/* A file @dir/@name with the text and a newline, as sysfs attributes have it. */
int mk_put(struct mk *m, const char *dir, const char *name, const char *fmt, ...)
{
	AUTO_FREE char *text = NULL, *path = xasprintf("%s/%s", dir, name);
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	n = strlen(text);
	if (n)
		text[n] = '\n'; /* in place of the final NUL: the length is known */
	return mk_put_bytes(m, path, text, n ? n + 1 : 0, 0);
}

/* Link @path to @target, both relative to the root. */
int mk_make_link(struct mk *m, const char *target, const char *path)
{
	AUTO_FREE char *up = NULL, *rel = NULL;
	size_t same = 0;

	for (size_t i = 0; target[i] && target[i] == path[i]; i++)
		if (target[i] == '/')
			same = i + 1;
	mk_append(&up, "%s", "");
	for (const char *p = path + same; (p = strchr(p, '/')); p++)
		mk_append(&up, "../");
	rel = xasprintf("%s%s", up, target + same);
	if (symlinkat(rel, m->root, path) == 0)
		return 0;
	if (errno == ENOENT && make_parent(m, path) == 0 && symlinkat(rel, m->root, path) == 0)
		return 0;
	return errno == EEXIST ? 0 : err_sys(m->e, -errno, "link '%s'", path);
}

int mk_make_link_at(struct mk *m, const char *target, const char *fmt, ...)
{
	AUTO_FREE char *path = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&path, fmt, ap) < 0)
		abort();
	va_end(ap);
	return mk_make_link(m, target, path);
}
