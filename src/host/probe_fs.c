/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "gpuvm/parse.h"
#include "probe_priv.h"

static int open_dir(int at, const char *path)
{
	return openat(at, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int probe_open(const char *root, struct probe *ret, struct err *e)
{
	struct probe p = { .root = root, .root_fd = -1, .sys_fd = -1, .proc_fd = -1 };

	p.live = !*root || !strcmp(root, "/");
	if (p.live)
		p.root = "";
	p.root_fd = open_dir(AT_FDCWD, p.live ? "/" : root);
	if (p.root_fd < 0)
		return err_sys(e, -errno, "open root '%s'", root);
	p.sys_fd = open_dir(p.root_fd, "sys");
	p.proc_fd = open_dir(p.root_fd, "proc");
	if (p.sys_fd < 0 || p.proc_fd < 0) {
		int r = -errno;

		probe_close(&p);
		return err_sys(e, r, "'%s' is not the root of a machine: no sys/ and proc/ in it", root);
	}
	*ret = p;
	return 0;
}

void probe_close(struct probe *p)
{
	probe_pci_end(p);
	free(p->modules);
	p->modules = NULL;
	close_cleanup(&p->root_fd);
	close_cleanup(&p->sys_fd);
	close_cleanup(&p->proc_fd);
}

ssize_t probe_read(int dir_fd, const char *path, char *buf, size_t size)
{
	AUTO_CLOSE int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n;

	buf[0] = '\0';
	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		return -errno;
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
	return n;
}

ssize_t probe_readf(int dir_fd, char *buf, size_t size, const char *fmt, ...)
{
	char path[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	return probe_read(dir_fd, path, buf, size);
}

char *probe_read_all(int dir_fd, const char *path)
{
	AUTO_CLOSE int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t len = 0, size = 16384;
	char *text;

	if (fd < 0)
		return NULL;
	text = xrealloc(NULL, size);
	for (;;) {
		/* Kernel files say nothing about their size. */
		ssize_t n = read(fd, text + len, size - len - 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		if (len + 1 >= size)
			text = xrealloc(text, size *= 2);
	}
	text[len] = '\0';
	return text;
}

int probe_read_int(int dir_fd, const char *path, int fallback)
{
	char buf[32];
	int v;

	if (probe_read(dir_fd, path, buf, sizeof(buf)) < 0 || parse_int(buf, INT_MIN + 1, INT_MAX, &v) < 0)
		return fallback;
	return v;
}

uint64_t probe_read_u64(int dir_fd, const char *path)
{
	char buf[32];
	uint64_t v;

	if (probe_read(dir_fd, path, buf, sizeof(buf)) < 0 || parse_u64(buf, 0, UINT64_MAX, &v) < 0)
		return 0;
	return v;
}

bool probe_exists(int dir_fd, const char *path)
{
	return faccessat(dir_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

ssize_t probe_link(int dir_fd, const char *path, char *buf, size_t size)
{
	ssize_t n = readlinkat(dir_fd, path, buf, size);

	if (n < 0 || (size_t)n >= size) {
		buf[0] = '\0';
		return n < 0 ? -errno : -ENAMETOOLONG;
	}
	buf[n] = '\0';
	return n;
}

ssize_t probe_link_name(int dir_fd, const char *path, char *buf, size_t size)
{
	char target[PATH_MAX];
	ssize_t n = probe_link(dir_fd, path, target, sizeof(target));
	const char *name;
	size_t len;

	buf[0] = '\0';
	if (n < 0)
		return n;
	name = strrchr(target, '/');
	name = name ? name + 1 : target;
	len = strlen(name);
	if (len >= size)
		return -ENAMETOOLONG;
	memcpy(buf, name, len + 1);
	return (ssize_t)len;
}

ssize_t probe_device_path(const struct probe *p, const char *path, char *buf, size_t size)
{
	ssize_t n = probe_link(p->sys_fd, path, buf, size);
	const char *s = buf;

	if (n < 0)
		return n;
	while (!strncmp(s, "../", 3))
		s += 3;
	if (strncmp(s, "devices/", 8))
		return -EINVAL;
	n -= s - buf;
	memmove(buf, s, (size_t)n + 1);
	return n;
}
