/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "gpuvm/parse.h"

/* Digits of @base at *@p; moves *@p. */
static int number(const char **p, unsigned int base, uint64_t *ret)
{
	char *end;
	uint64_t v;

	/* strtoull() would take blanks and signs, and a 0x of its own. */
	if (base == 16 ? !isxdigit((unsigned char)**p) : !isdigit((unsigned char)**p))
		return -EINVAL;
	if (base == 16 && **p == '0' && ((*p)[1] == 'x' || (*p)[1] == 'X'))
		return -EINVAL;
	errno = 0;
	v = strtoull(*p, &end, (int)base);
	if (errno == ERANGE)
		return -ERANGE;
	*p = end;
	*ret = v;
	return 0;
}

int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
	const char *p = hex ? s + 2 : s;
	uint64_t v;
	int r = number(&p, hex ? 16 : 10, &v);

	if (r < 0)
		return r;
	if (*p)
		return -EINVAL;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int parse_int(const char *s, int min, int max, int *ret)
{
	bool minus = *s == '-';
	const char *p = minus ? s + 1 : s;
	uint64_t v;
	int64_t i;
	int r = number(&p, 10, &v);

	if (r < 0)
		return r;
	if (*p)
		return -EINVAL;
	if (v > INT_MAX)
		return -ERANGE;
	i = minus ? -(int64_t)v : (int64_t)v;
	if (i < min || i > max)
		return -ERANGE;
	*ret = (int)i;
	return 0;
}

int parse_hex(const char *s, uint64_t max, uint64_t *ret)
{
	const char *p = s[0] == '0' && (s[1] == 'x' || s[1] == 'X') ? s + 2 : s;
	uint64_t v;
	int r = number(&p, 16, &v);

	if (r < 0)
		return r;
	if (*p)
		return -EINVAL;
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int parse_bool(const char *s, bool *ret)
{
	static const char *const yes[] = { "on", "yes", "true", "1" };
	static const char *const no[] = { "off", "no", "false", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcasecmp(s, yes[i]) == 0) {
			*ret = true;
			return 0;
		}
		if (strcasecmp(s, no[i]) == 0) {
			*ret = false;
			return 0;
		}
	}
	return -EINVAL;
}

/* The unit behind a number: blanks may be between the two, not at the end. NULL if they are. */
static const char *unit_of(const char *p)
{
	const char *unit = p + strspn(p, " ");

	return unit > p && !*unit ? NULL : unit;
}

/* "K", "KiB", "kb" ... to a shift; a bare number and "B" are bytes. */
static int size_unit(const char *s, unsigned int *ret_shift)
{
	static const char letters[] = "KMGTPE";
	const char *l;

	if (!*s || strcasecmp(s, "B") == 0) {
		*ret_shift = 0;
		return 0;
	}
	l = strchr(letters, toupper((unsigned char)*s));
	if (!l || (s[1] && strcasecmp(s + 1, "B") && strcasecmp(s + 1, "iB")))
		return -EINVAL;
	*ret_shift = 10 * (unsigned int)(l - letters + 1);
	return 0;
}

int parse_size(const char *s, uint64_t *ret_bytes)
{
	uint64_t whole, frac = 0, scale = 1, bytes;
	unsigned int shift;
	const char *p = s;
	int r = number(&p, 10, &whole);

	if (r < 0)
		return r;
	if (*p == '.') {
		for (p++; isdigit((unsigned char)*p); p++) {
			if (scale > UINT64_C(100000000))
				return -ERANGE;
			frac = frac * 10 + (uint64_t)(*p - '0');
			scale *= 10;
		}
		if (scale == 1)
			return -EINVAL;
	}
	p = unit_of(p);
	if (!p)
		return -EINVAL;
	r = size_unit(p, &shift);
	if (r < 0)
		return r;
	if (whole > UINT64_MAX >> shift)
		return -ERANGE;
	bytes = whole << shift;
	if (frac) {
		unsigned __int128 part = (unsigned __int128)frac << shift;

		if (part % scale)
			return -EINVAL;
		if (__builtin_add_overflow(bytes, (uint64_t)(part / scale), &bytes))
			return -ERANGE;
	}
	*ret_bytes = bytes;
	return 0;
}

int parse_duration(const char *s, uint64_t *ret_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = { { "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "min", 60000 }, { "h", 3600000 } };
	const char *p = s;
	uint64_t v;
	int r = number(&p, 10, &v);

	if (r < 0)
		return r;
	p = unit_of(p);
	for (size_t i = 0; p && i < ARRAY_SIZE(units); i++) {
		if (strcmp(p, units[i].unit) != 0)
			continue;
		if (v > INT64_MAX / units[i].ms)
			return -ERANGE;
		*ret_ms = v * units[i].ms;
		return 0;
	}
	return -EINVAL;
}

/* Hex digits up to @max followed by @sep (0: end of string). */
static int addr_part(const char **p, char sep, uint64_t max, uint64_t *ret)
{
	int r = number(p, 16, ret);

	if (r < 0)
		return -EINVAL;
	if (*ret > max || **p != sep)
		return -EINVAL;
	if (sep)
		(*p)++;
	return 0;
}

int parse_pci_addr(const char *s, struct pci_addr *ret)
{
	uint64_t domain = 0, bus, dev, fn;
	const char *first = strchr(s, ':');
	const char *p = s;

	if (!first)
		return -EINVAL;
	if (strchr(first + 1, ':') && addr_part(&p, ':', UINT32_MAX, &domain) < 0)
		return -EINVAL;
	if (addr_part(&p, ':', 0xff, &bus) < 0 || addr_part(&p, '.', 0x1f, &dev) < 0 || addr_part(&p, 0, 7, &fn) < 0)
		return -EINVAL;
	*ret = (struct pci_addr){ .domain = (uint32_t)domain, .bus = (uint8_t)bus, .dev = (uint8_t)dev, .fn = (uint8_t)fn };
	return 0;
}

const char *pci_addr_format(const struct pci_addr *a, char buf[PCI_ADDR_STR])
{
	snprintf(buf, PCI_ADDR_STR, "%04x:%02x:%02x.%x", a->domain, a->bus, a->dev, a->fn);
	return buf;
}

static uint64_t addr_key(const struct pci_addr *a)
{
	return (uint64_t)a->domain << 24 | (uint64_t)a->bus << 16 | (uint64_t)a->dev << 8 | a->fn;
}

int pci_addr_cmp(const struct pci_addr *a, const struct pci_addr *b)
{
	uint64_t x = addr_key(a), y = addr_key(b);

	return x < y ? -1 : x > y;
}

const char *format_size(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	size_t u = 0;

	while (bytes && bytes % 1024 == 0 && u + 1 < ARRAY_SIZE(units)) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, 32, "%" PRIu64 " %s", bytes, units[u]);
	return buf;
}

static unsigned int min3(unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int m = a < b ? a : b;

	return m < c ? m : c;
}

unsigned int edit_distance(const char *a, const char *b)
{
	enum { MAX = 64 };
	unsigned int d[MAX + 1][MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > MAX || m > MAX)
		return MAX;
	for (size_t i = 0; i <= n; i++)
		d[i][0] = (unsigned int)i;
	for (size_t j = 0; j <= m; j++)
		d[0][j] = (unsigned int)j;
	for (size_t i = 1; i <= n; i++) {
		for (size_t j = 1; j <= m; j++) {
			unsigned int cost = a[i - 1] != b[j - 1];

			d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < d[i][j])
				d[i][j] = d[i - 2][j - 2] + 1;
		}
	}
	return d[n][m];
}

static int read_text(int fd, size_t max, char **ret)
{
	AUTO_FREE char *buf = NULL;
	size_t len = 0, room = 4096;

	buf = xcalloc(1, room + 1);
	for (;;) {
		ssize_t n = read(fd, buf + len, room - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
		if (n == 0 || len >= max)
			break;
		if (len == room) {
			room *= 2;
			buf = xrealloc(buf, room + 1);
		}
	}
	if (len > max)
		len = max;
	if (len && buf[len - 1] == '\n')
		len--;
	buf[len] = '\0';
	*ret = STEAL_PTR(buf);
	return 0;
}

int read_text_file(const char *path, size_t max, char **ret)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : read_text(fd, max, ret);
}

int read_own_file(const char *path, size_t max, char **ret)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) ? read_text(fd, max, ret) : -EINVAL;
}

int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

int fsync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *dir = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path)) : xstrdup(".");
	AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int write_output_file(const char *path, const char *text, size_t len)
{
	AUTO_FREE char *real = realpath(path, NULL), *tmp = xasprintf("%s.XXXXXX", real ? real : path);
	mode_t mask = umask(0);
	struct stat st;
	int fd, r;

	umask(mask);
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		AUTO_CLOSE int out = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);

		return out < 0 ? -errno : write_all(out, text, len);
	}
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, len);
	if (r == 0 && (fchmod(fd, 0666 & ~mask) < 0 || fsync(fd) < 0))
		r = -errno;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(tmp, real ? real : path) < 0)
		r = -errno;
	if (r < 0)
		unlink(tmp);
	return r;
}

int write_file_atomic(const char *path, const char *text, size_t len, unsigned int mode)
{
	AUTO_FREE char *tmp = xasprintf("%s.new", path);
	int fd, r;

	/* A leftover of a crash; O_EXCL|O_NOFOLLOW then make sure that the file is ours. */
	if (unlink(tmp) < 0 && errno != ENOENT)
		return -errno;
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, len);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return r;
	}
	return fsync_parent(path);
}
