/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

#include "gpuvm/parse.h"
#include "gpuvm/sysfs.h"

#define ATTRIBUTE_MAX 4096 /* a sysfs attribute is at most one page */

const struct sysfs sysfs_live = { .root = "", .write = sysfs_write_file, .write_word = sysfs_write_word };

int sysfs_write_file(void *ctx, const char *path, const char *value)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(value);
	ssize_t n;

	(void)ctx;
	if (fd < 0)
		return -errno;
	/* One write(2): each is a complete order to the kernel, so neither a retry nor the rest of a short one makes sense. */
	n = write(fd, value, len);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

int sysfs_write_word(void *ctx, const char *path, unsigned int offset, uint16_t value)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	const uint8_t bytes[2] = { (uint8_t)value, (uint8_t)(value >> 8) };
	ssize_t n;

	(void)ctx;
	if (fd < 0)
		return -errno;
	n = pwrite(fd, bytes, sizeof(bytes), offset);
	if (n < 0)
		return -errno;
	return n == sizeof(bytes) ? 0 : -EIO;
}

/* The path below the root; false if it does not fit. */
static bool __attribute__((format(printf, 3, 0))) make_path(const struct sysfs *s, char buf[PATH_MAX], const char *fmt,
							    va_list ap)
{
	size_t len = strlen(s->root);
	int n;

	if (len >= PATH_MAX)
		return false;
	memcpy(buf, s->root, len + 1);
	n = vsnprintf(buf + len, PATH_MAX - len, fmt, ap);
	return n >= 0 && (size_t)n < PATH_MAX - len;
}

int sysfs_store(const struct sysfs *s, struct err *e, const char *value, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	bool fits;
	int r;

	va_start(ap, fmt);
	fits = make_path(s, path, fmt, ap);
	va_end(ap);
	if (!fits)
		return err_set(e, -ENAMETOOLONG, "write '%s': path below '%s' is too long", value, s->root);

	r = s->write(s->ctx, path, value);
	if (r < 0)
		return err_sys(e, r, "write '%s' to '%s'", strcmp(value, "\n") == 0 ? "\\n" : value, path);
	return 0;
}

int sysfs_store_word(const struct sysfs *s, struct err *e, unsigned int offset, uint16_t value, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	bool fits;
	int r;

	va_start(ap, fmt);
	fits = make_path(s, path, fmt, ap);
	va_end(ap);
	r = fits ? s->write_word(s->ctx, path, offset, value) : -ENAMETOOLONG;
	return r < 0 ? err_sys(e, r, "write 0x%04x at 0x%x of '%s'", value, offset, fits ? path : s->root) : 0;
}

char *sysfs_read(const struct sysfs *s, const char *fmt, ...)
{
	char path[PATH_MAX], *text = NULL;
	va_list ap;
	bool fits;

	va_start(ap, fmt);
	fits = make_path(s, path, fmt, ap);
	va_end(ap);
	if (!fits || read_text_file(path, ATTRIBUTE_MAX, &text) < 0)
		return NULL;
	return text;
}

ssize_t sysfs_read_bytes(const struct sysfs *s, void *buf, size_t size, const char *fmt, ...)
{
	AUTO_CLOSE int fd = -1;
	char path[PATH_MAX];
	ssize_t n;
	va_list ap;
	bool fits;

	va_start(ap, fmt);
	fits = make_path(s, path, fmt, ap);
	va_end(ap);
	if (!fits)
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	do
		n = read(fd, buf, size);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

char *sysfs_link_name(const struct sysfs *s, const char *fmt, ...)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *slash;
	ssize_t len;
	va_list ap;
	bool fits;

	va_start(ap, fmt);
	fits = make_path(s, path, fmt, ap);
	va_end(ap);
	if (!fits)
		return NULL;
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		return NULL;
	target[len] = '\0';
	slash = strrchr(target, '/');
	return xstrdup(slash ? slash + 1 : target);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int sysfs_list(const struct sysfs *s, struct strv *ret, const char *fmt, ...)
{
	AUTO_CLOSEDIR DIR *dir = NULL;
	struct strv names = { 0 };
	char path[PATH_MAX];
	struct dirent *d;
	va_list ap;
	bool fits;

	va_start(ap, fmt);
	fits = make_path(s, path, fmt, ap);
	va_end(ap);
	if (!fits)
		return -ENAMETOOLONG;
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (errno = 0, (d = readdir(dir)))
		if (d->d_name[0] != '.')
			strv_push(&names, d->d_name);
	if (errno) {
		int r = -errno;

		strv_clear(&names);
		return r;
	}
	if (names.n)
		qsort(names.v, names.n, sizeof(*names.v), by_name);
	*ret = names;
	return 0;
}

bool sysfs_exists(const struct sysfs *s, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	bool fits;

	va_start(ap, fmt);
	fits = make_path(s, path, fmt, ap);
	va_end(ap);
	return fits && access(path, F_OK) == 0;
}
