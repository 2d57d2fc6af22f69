/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mkhost.c - see mkhost.h for the language.
 *
 * How it works: the description is read into the structs below, then each part of the trees is written from them.
 * Paths are relative to the root ("sys/bus/pci"); link targets too, and are made relative as the kernel's are. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/cpuset.h"
#include "gpuvm/parse.h"
#include "gpuvm/strv.h"
#include "tests/fake/mkhost.h"

#define MAX_POOLS  2
#define GROUP_OWN  (-1)
#define GROUP_UP   (-2)
#define GROUP_NONE (-3)
#define NODE_OF_BUS (-2)

struct bar {
	uint64_t start, bytes, flags;
};

struct props {
	struct bar bars[6];
	int pcie; /* port type of the express capability, -1: none */
	unsigned int gts10, width, now_gts10, now_width;
	int acs, ats; /* control register, -1: no such capability */
	char driver[40], override[40], cpulist[256];
	int node;
	uint16_t subvendor, subdevice;
	int group;
	int vfs;
	struct pci_addr vf_of;
	bool is_vf, boot_vga, no_reset, unreadable;
};

struct kind {
	char word[32];
	uint16_t vendor, device;
	uint32_t class_code;
	char *vendor_name, *device_name;
	struct props p;
};

struct dev {
	struct pci_addr addr;
	size_t kind;
	struct props p;
	int indent, parent, bus;
	uint8_t last_bus; /* subordinate, for bridges */
	int group;
	char *path; /* "sys/devices/pci0000:16/0000:16:00.0" */
};

struct bus {
	unsigned int domain, number;
	int node;
};

struct node {
	int id, socket;
	struct cpuset cpus;
	uint64_t bytes, free_bytes;
	struct {
		uint64_t page, free, total;
	} pools[MAX_POOLS];
	char distances[256];
};

struct blockdev {
	char name[64];
	char *path;
	unsigned int major, minor;
};

struct mk {
	int root;
	struct err *e;
	int line;
	const char *file;

	char name[64], kernel[64], machine_id[40];
	bool no_kvm, no_vfio, no_numa;
	char cpu_vendor[32], iommu[8], isolated[256];
	int threads, phys_bits, iommu_bits, l3_cores;
	bool smt_adjacent;

	struct node *nodes;
	size_t n_nodes;
	struct kind *kinds;
	size_t n_kinds;
	struct bus *buses;
	size_t n_buses;
	struct dev *devs;
	size_t n_devs;
	struct blockdev *blocks;
	size_t n_blocks;
	struct strv late;        /* disk, net ... statements as lines: done after the PCI tree is there */
	int *late_lines;
	size_t n_late_lines;
	uint64_t next_address;
	int next_ifindex;
	char *mountinfo, *swaps, *route, *inet6;
};

static int PRINTF(2, 3) bad(struct mk *m, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(m->e, -EINVAL, "%s:%d: %s", m->file, m->line, text);
}

static void PRINTF(2, 3) append(char **s, const char *fmt, ...)
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

static int make_dirs(struct mk *m, const char *path)
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

	return slash ? make_dirs(m, dir) : 0;
}

static int put_bytes(struct mk *m, const char *path, const void *data, size_t len, size_t size)
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
static int PRINTF(4, 5) put(struct mk *m, const char *dir, const char *name, const char *fmt, ...)
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
	return put_bytes(m, path, text, n ? n + 1 : 0, 0);
}

/* Link @path to @target, both relative to the root. */
static int make_link(struct mk *m, const char *target, const char *path)
{
	AUTO_FREE char *up = NULL, *rel = NULL;
	size_t same = 0;

	for (size_t i = 0; target[i] && target[i] == path[i]; i++)
		if (target[i] == '/')
			same = i + 1;
	append(&up, "%s", "");
	for (const char *p = path + same; (p = strchr(p, '/')); p++)
		append(&up, "../");
	rel = xasprintf("%s%s", up, target + same);
	if (symlinkat(rel, m->root, path) == 0)
		return 0;
	if (errno == ENOENT && make_parent(m, path) == 0 && symlinkat(rel, m->root, path) == 0)
		return 0;
	return errno == EEXIST ? 0 : err_sys(m->e, -errno, "link '%s'", path);
}

static int PRINTF(3, 4) make_link_at(struct mk *m, const char *target, const char *fmt, ...)
{
	AUTO_FREE char *path = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&path, fmt, ap) < 0)
		abort();
	va_end(ap);
	return make_link(m, target, path);
}

/* --- words of a statement ------------------------------------------------------------------------ */

/* Value of KEY=VALUE among the words from @from on; "" for a bare KEY; NULL if it is not there. */
static const char *option(const struct strv *w, size_t from, const char *key)
{
	size_t n = strlen(key);

	for (size_t i = from; i < w->n; i++) {
		if (strncmp(w->v[i], key, n))
			continue;
		if (!w->v[i][n])
			return "";
		if (w->v[i][n] == '=')
			return w->v[i] + n + 1;
	}
	return NULL;
}

/* Every word from @from on must be one of the keys in the blank-separated @keys. */
static int check_options(struct mk *m, const struct strv *w, size_t from, const char *keys)
{
	for (size_t i = from; i < w->n; i++) {
		size_t n = strcspn(w->v[i], "=");
		const char *p = keys;

		while (p && (strncmp(p, w->v[i], n) || (p[n] && p[n] != ' '))) {
			p = strchr(p, ' ');
			p = p ? p + 1 : NULL;
		}
		if (!p)
			return bad(m, "'%s' is none of: %s", w->v[i], keys);
	}
	return 0;
}

static int option_int(struct mk *m, const struct strv *w, size_t from, const char *key, int *ret)
{
	const char *v = option(w, from, key);

	return v && parse_int(v, -1, INT_MAX, ret) < 0 ? bad(m, "bad number in '%s=%s'", key, v) : 0;
}

static void option_text(const struct strv *w, size_t from, const char *key, char *ret, size_t size)
{
	const char *v = option(w, from, key);

	if (v)
		snprintf(ret, size, "%s", v);
}

/* "1af4:1041" */
static int parse_ids(struct mk *m, const char *s, uint16_t *ret_a, uint16_t *ret_b)
{
	unsigned int a, b;
	char junk;

	if (sscanf(s, "%4x:%4x%c", &a, &b, &junk) != 2)
		return bad(m, "'%s' is not VVVV:DDDD", s);
	*ret_a = (uint16_t)a;
	*ret_b = (uint16_t)b;
	return 0;
}

/* "32x16", "2.5x1": speed in tenths of GT/s, lanes. */
static int parse_link(struct mk *m, const char *s, unsigned int *ret_gts10, unsigned int *ret_width)
{
	double gts;
	unsigned int width;
	char junk;

	if (sscanf(s, "%lfx%u%c", &gts, &width, &junk) != 2)
		return bad(m, "'%s' is not SPEEDxLANES", s);
	*ret_gts10 = (unsigned int)(gts * 10 + 0.5);
	*ret_width = width;
	return 0;
}

static int parse_bar(struct mk *m, const char *s, struct bar *bar)
{
	AUTO_FREE char *copy = xstrdup(s);
	char *colon = strchr(copy, ':');

	*bar = (struct bar){ 0 };
	if (!strcmp(s, "-"))
		return 0;
	if (colon)
		*colon++ = '\0';
	if (parse_size(copy, &bar->bytes) < 0 || !bar->bytes)
		return bad(m, "bad BAR '%s'", s);
	/* The flag words that Linux shows for these kinds of BAR. */
	if (!colon)
		bar->flags = 0x40200;
	else if (!strcmp(colon, "p"))
		bar->flags = 0x14220c;
	else if (!strcmp(colon, "64"))
		bar->flags = 0x140204;
	else if (!strcmp(colon, "io"))
		bar->flags = 0x40101;
	else
		return bad(m, "bad BAR type ':%s'", colon);
	return 0;
}

/* A 64-bit BAR takes two slots. */
static int parse_bars(struct mk *m, const char *list, struct props *p)
{
	AUTO_FREE char *copy = xstrdup(list);
	char *save = NULL;
	size_t n = 0;

	memset(p->bars, 0, sizeof(p->bars));
	for (char *s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
		if (n >= 6)
			return bad(m, "more BARs than fit");
		if (parse_bar(m, s, &p->bars[n]) < 0)
			return -EINVAL;
		n += p->bars[n].flags & 0x100000 ? 2 : 1;
	}
	return 0;
}

static int parse_port(struct mk *m, const char *s, int *ret)
{
	static const struct {
		const char *word;
		int type; /* PCI Express capabilities register, bits 7:4 */
	} ports[] = { { "endpoint", 0 }, { "root", 4 }, { "upstream", 5 }, { "downstream", 6 },
		      { "bridge", 7 },   { "integrated", 9 }, { "none", -1 } };

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		if (!strcmp(s, ports[i].word)) {
			*ret = ports[i].type;
			return 0;
		}
	}
	return bad(m, "pcie=%s?", s);
}

static int parse_group(struct mk *m, const char *s, int *ret)
{
	if (!strcmp(s, "parent"))
		*ret = GROUP_UP;
	else if (!strcmp(s, "none"))
		*ret = GROUP_NONE;
	else if (parse_int(s, 0, INT_MAX, ret) < 0)
		return bad(m, "group=%s?", s);
	return 0;
}

/* "16:00.0" in @domain, or with a domain of its own. */
static int parse_bdf(struct mk *m, const char *s, unsigned int domain, struct pci_addr *ret)
{
	if (parse_pci_addr(s, ret) < 0)
		return bad(m, "'%s' is not a PCI address", s);
	if (strchr(s, ':') == strrchr(s, ':'))
		ret->domain = domain;
	return 0;
}

#define PROP_KEYS                                                                                      \
	"bars pcie link now acs ats driver override node cpulist subsys group vfs vf-of boot-vga no-reset " \
	"unreadable"

static int parse_registers(struct mk *m, const struct strv *w, size_t from, struct props *p)
{
	const char *v;
	uint64_t u;

	if ((v = option(w, from, "acs"))) {
		p->acs = 0x1d; /* what Linux sets where an IOMMU is on */
		if (*v && parse_u64(v, 0, 0xffff, &u) < 0)
			return bad(m, "acs=%s?", v);
		if (*v)
			p->acs = (int)u;
	}
	if ((v = option(w, from, "ats")))
		p->ats = strcmp(v, "on") == 0 ? 0x8000 : 0;
	return 0;
}

static int parse_props(struct mk *m, const struct strv *w, size_t from, unsigned int domain, struct props *p)
{
	const char *v;

	if (((v = option(w, from, "bars")) && parse_bars(m, v, p) < 0) ||
	    ((v = option(w, from, "pcie")) && parse_port(m, v, &p->pcie) < 0) ||
	    ((v = option(w, from, "link")) && parse_link(m, v, &p->gts10, &p->width) < 0) ||
	    ((v = option(w, from, "now")) && parse_link(m, v, &p->now_gts10, &p->now_width) < 0) ||
	    ((v = option(w, from, "subsys")) && parse_ids(m, v, &p->subvendor, &p->subdevice) < 0) ||
	    ((v = option(w, from, "group")) && parse_group(m, v, &p->group) < 0) ||
	    ((v = option(w, from, "vf-of")) && parse_bdf(m, v, domain, &p->vf_of) < 0) ||
	    option_int(m, w, from, "node", &p->node) < 0 || option_int(m, w, from, "vfs", &p->vfs) < 0 ||
	    parse_registers(m, w, from, p) < 0)
		return -EINVAL;
	option_text(w, from, "driver", p->driver, sizeof(p->driver));
	option_text(w, from, "override", p->override, sizeof(p->override));
	option_text(w, from, "cpulist", p->cpulist, sizeof(p->cpulist));
	p->is_vf |= option(w, from, "vf-of") != NULL;
	p->boot_vga |= option(w, from, "boot-vga") != NULL;
	p->no_reset |= option(w, from, "no-reset") != NULL;
	p->unreadable |= option(w, from, "unreadable") != NULL;
	return 0;
}

/* --- statements ------------------------------------------------------------------------------------ */

static int st_host(struct mk *m, const struct strv *w)
{
	if (check_options(m, w, 2, "kernel machine-id no-kvm no-vfio") < 0)
		return -EINVAL;
	snprintf(m->name, sizeof(m->name), "%s", w->v[1]);
	option_text(w, 2, "kernel", m->kernel, sizeof(m->kernel));
	option_text(w, 2, "machine-id", m->machine_id, sizeof(m->machine_id));
	m->no_kvm = option(w, 2, "no-kvm") != NULL;
	m->no_vfio = option(w, 2, "no-vfio") != NULL;
	return 0;
}

static int st_cpu(struct mk *m, const struct strv *w)
{
	const char *smt = option(w, 2, "smt");

	if (check_options(m, w, 2, "threads smt phys-bits l3-cores isolated") < 0 ||
	    option_int(m, w, 2, "threads", &m->threads) < 0 || option_int(m, w, 2, "phys-bits", &m->phys_bits) < 0 ||
	    option_int(m, w, 2, "l3-cores", &m->l3_cores) < 0)
		return -EINVAL;
	snprintf(m->cpu_vendor, sizeof(m->cpu_vendor), "%s", w->v[1]);
	option_text(w, 2, "isolated", m->isolated, sizeof(m->isolated));
	m->smt_adjacent = smt && !strcmp(smt, "adjacent");
	return m->threads < 1 ? bad(m, "threads?") : 0;
}

static int st_iommu(struct mk *m, const struct strv *w)
{
	snprintf(m->iommu, sizeof(m->iommu), "%s", w->v[1]);
	return check_options(m, w, 2, "bits") < 0 ? -EINVAL : option_int(m, w, 2, "bits", &m->iommu_bits);
}

/* "900/960": free and all pages */
static int parse_pool(struct mk *m, const char *s, uint64_t page, struct node *n, size_t i)
{
	char junk;

	n->pools[i].page = page;
	if (s && sscanf(s, "%" SCNu64 "/%" SCNu64 "%c", &n->pools[i].free, &n->pools[i].total, &junk) != 2)
		return bad(m, "'%s' is not FREE/TOTAL", s);
	return 0;
}

static int st_node(struct mk *m, const struct strv *w)
{
	struct node *n = PUSH_ZEROED(m->nodes, m->n_nodes);
	const char *cpus = option(w, 2, "cpus"), *mem = option(w, 2, "memory"), *avail = option(w, 2, "free");

	if (check_options(m, w, 2, "socket cpus memory free 1G 2M distances") < 0 ||
	    option_int(m, w, 2, "socket", &n->socket) < 0)
		return -EINVAL;
	if (parse_int(w->v[1], 0, 1023, &n->id) < 0 || !mem || parse_size(mem, &n->bytes) < 0 ||
	    (cpus && cpuset_parse(cpus, &n->cpus) < 0))
		return bad(m, "node ID cpus=LIST memory=SIZE");
	n->free_bytes = n->bytes;
	if (avail && parse_size(avail, &n->free_bytes) < 0)
		return bad(m, "free=%s?", avail);
	option_text(w, 2, "distances", n->distances, sizeof(n->distances));
	if (parse_pool(m, option(w, 2, "2M"), UINT64_C(2) << 20, n, 0) < 0)
		return -EINVAL;
	return parse_pool(m, option(w, 2, "1G"), UINT64_C(1) << 30, n, 1);
}

static int st_numa(struct mk *m, const struct strv *w)
{
	m->no_numa = !strcmp(w->v[1], "off");
	return 0;
}

static int find_kind(const struct mk *m, const char *word)
{
	for (size_t i = 0; i < m->n_kinds; i++)
		if (!strcmp(m->kinds[i].word, word))
			return (int)i;
	return -1;
}

static bool is_property(const char *word)
{
	static const char *const bare[] = { "acs", "ats", "boot-vga", "no-reset", "unreadable" };

	for (size_t i = 0; i < ARRAY_SIZE(bare); i++)
		if (!strcmp(word, bare[i]))
			return true;
	return strchr(word, '=') != NULL;
}

/* The words at the end that are no properties are names. */
static int st_kind(struct mk *m, const struct strv *w)
{
	struct strv options = { .v = w->v, .n = w->n };
	struct kind k = { .p = { .pcie = 0, .acs = -1, .ats = -1, .group = GROUP_OWN, .node = NODE_OF_BUS } };
	uint64_t class_code;
	size_t n = w->n;

	while (n > 4 && !is_property(w->v[n - 1]))
		n--;
	options.n = n;
	if (find_kind(m, w->v[1]) >= 0)
		return bad(m, "a second kind '%s'", w->v[1]);
	if (parse_ids(m, w->v[2], &k.vendor, &k.device) < 0)
		return -EINVAL;
	if (strlen(w->v[3]) != 6 || parse_hex(w->v[3], 0xffffff, &class_code) < 0)
		return bad(m, "class '%s' must have six hex digits", w->v[3]);
	if (check_options(m, &options, 4, PROP_KEYS) < 0 || parse_props(m, &options, 4, 0, &k.p) < 0)
		return -EINVAL;
	k.class_code = (uint32_t)class_code;
	snprintf(k.word, sizeof(k.word), "%s", w->v[1]);
	k.vendor_name = n < w->n ? xstrdup(w->v[n]) : NULL;
	k.device_name = n + 1 < w->n ? xstrdup(w->v[n + 1]) : NULL;
	*PUSH_ZEROED(m->kinds, m->n_kinds) = k;
	return 0;
}

static int st_bus(struct mk *m, const struct strv *w)
{
	struct bus *b = PUSH_ZEROED(m->buses, m->n_buses);
	char junk;

	b->node = -1;
	if (sscanf(w->v[1], "%x:%x%c", &b->domain, &b->number, &junk) != 2)
		return bad(m, "'%s' is not DOMAIN:BUS", w->v[1]);
	return check_options(m, w, 2, "node") < 0 ? -EINVAL : option_int(m, w, 2, "node", &b->node);
}

/* The bridge above: the nearest line before that is less indented, on the same bus. */
static int parent_of(const struct mk *m, int indent)
{
	for (size_t i = m->n_devs; i-- > 0;) {
		if (m->devs[i].bus != (int)m->n_buses - 1)
			return -1;
		if (m->devs[i].indent < indent)
			return (int)i;
	}
	return -1;
}

static int st_device(struct mk *m, const struct strv *w, int indent)
{
	struct dev d = { .indent = indent, .group = -1 };
	int kind = w->n > 1 ? find_kind(m, w->v[1]) : -1;
	const struct bus *b = m->n_buses ? &m->buses[m->n_buses - 1] : NULL;

	if (!b)
		return bad(m, "a function before the first bus");
	if (kind < 0)
		return bad(m, "unknown kind '%s'", w->n > 1 ? w->v[1] : "");
	d.kind = (size_t)kind;
	d.p = m->kinds[kind].p;
	d.bus = (int)m->n_buses - 1;
	d.parent = parent_of(m, indent);
	if (parse_bdf(m, w->v[0], b->domain, &d.addr) < 0 || check_options(m, w, 2, PROP_KEYS) < 0 ||
	    parse_props(m, w, 2, b->domain, &d.p) < 0)
		return -EINVAL;
	if (d.p.node == NODE_OF_BUS)
		d.p.node = b->node;
	*PUSH_ZEROED(m->devs, m->n_devs) = d;
	return 0;
}

/* Statements about what hangs on the functions wait until these have their paths. */
static int st_late(struct mk *m, const char *line)
{
	strv_push(&m->late, line);
	*PUSH_ZEROED(m->late_lines, m->n_late_lines) = m->line;
	return 0;
}

static int read_statement(struct mk *m, const char *line)
{
	static const struct {
		const char *word;
		size_t words;
		int (*fn)(struct mk *m, const struct strv *w);
	} table[] = { { "host", 2, st_host }, { "cpu", 2, st_cpu },   { "iommu", 2, st_iommu }, { "node", 3, st_node },
		      { "numa", 2, st_numa }, { "kind", 4, st_kind }, { "bus", 2, st_bus } };
	static const char *const late[] = { "disk", "share", "dm", "md", "mount", "swap", "net", "route", "address6" };
	CLEANUP(strv_clear) struct strv w = { 0 };
	int indent = 0;

	if (strv_split_shell(line, &w, m->e) < 0)
		return bad(m, "unbalanced quote");
	if (!w.n)
		return 0;
	for (const char *p = line; *p == ' ' || *p == '\t'; p++)
		indent += *p == '\t' ? 8 : 1;
	if (indent)
		return st_device(m, &w, indent);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(w.v[0], table[i].word))
			return w.n < table[i].words ? bad(m, "%s: too short", w.v[0]) : table[i].fn(m, &w);
	for (size_t i = 0; i < ARRAY_SIZE(late); i++)
		if (!strcmp(w.v[0], late[i]))
			return st_late(m, line);
	return bad(m, "unknown statement '%s'", w.v[0]);
}

static int read_description(struct mk *m, FILE *in)
{
	AUTO_FREE char *line = NULL;
	size_t size = 0;
	int r;

	while (getline(&line, &size, in) >= 0) {
		m->line++;
		line[strcspn(line, "#\r\n")] = '\0';
		r = read_statement(m, line);
		if (r < 0)
			return r;
	}
	return m->n_nodes ? 0 : bad(m, "no node");
}

/* --- CPUs and nodes ------------------------------------------------------------------------------------ */

/* The kernel's mask format: groups of 32 bits, the highest first. */
static char *format_mask(const struct cpuset *s)
{
	char *out = NULL;
	int last = 0;

	cpuset_for_each(cpu, s)
		last = cpu;
	for (int g = last / 32; g >= 0; g--) {
		uint32_t bits = (uint32_t)(s->w[g / 2] >> (g % 2 * 32));

		append(&out, out ? ",%08x" : "%08x", bits);
	}
	return out;
}

static int put_cpuset(struct mk *m, const char *dir, const char *mask_name, const char *list_name, const struct cpuset *s)
{
	AUTO_FREE char *mask = format_mask(s), *list = cpuset_format(s);

	if (mask_name && put(m, dir, mask_name, "%s", mask) < 0)
		return -1;
	return list_name ? put(m, dir, list_name, "%s", list) : 0;
}

/* Thread siblings of the @i-th CPU of a node: neighbours, or the same place in each part of the list. */
static void siblings_of(const struct mk *m, const int *cpus, int n, int i, struct cpuset *ret, int *ret_core)
{
	int cores = n / m->threads;

	*ret = (struct cpuset){ 0 };
	if (m->smt_adjacent || cores * m->threads != n) {
		*ret_core = i / m->threads;
		for (int t = 0; t < m->threads && *ret_core * m->threads + t < n; t++)
			cpuset_add(ret, cpus[*ret_core * m->threads + t]);
		return;
	}
	*ret_core = i % cores;
	for (int t = 0; t < m->threads; t++)
		cpuset_add(ret, cpus[t * cores + *ret_core]);
}

static void cpus_of_socket(const struct mk *m, int socket, struct cpuset *ret)
{
	*ret = (struct cpuset){ 0 };
	for (size_t i = 0; i < m->n_nodes; i++)
		if (m->nodes[i].socket == socket)
			cpuset_or(ret, &m->nodes[i].cpus);
}

static int write_cache(struct mk *m, const char *dir, const struct cpuset *shared)
{
	AUTO_FREE char *cache = xasprintf("%s/cache/index3", dir);

	if (put(m, cache, "level", "3") < 0 || put(m, cache, "type", "Unified") < 0 || put(m, cache, "size", "32768K") < 0 ||
	    put(m, cache, "coherency_line_size", "64") < 0 || put(m, cache, "ways_of_associativity", "16") < 0 ||
	    put(m, cache, "number_of_sets", "32768") < 0 || put(m, cache, "physical_line_partition", "1") < 0)
		return -1;
	return put_cpuset(m, cache, "shared_cpu_map", "shared_cpu_list", shared);
}

static int write_cpu(struct mk *m, const struct node *n, int cpu, int core_id, const struct cpuset *core,
		     const struct cpuset *l3)
{
	AUTO_FREE char *dir = xasprintf("sys/devices/system/cpu/cpu%d", cpu);
	AUTO_FREE char *topo = xasprintf("%s/topology", dir);
	struct cpuset package;

	cpus_of_socket(m, n->socket, &package);
	if (put(m, topo, "physical_package_id", "%d", n->socket) < 0 || put(m, topo, "core_id", "%d", core_id) < 0 ||
	    put_cpuset(m, topo, "core_cpus", "core_cpus_list", core) < 0 ||
	    put_cpuset(m, topo, "thread_siblings", "thread_siblings_list", core) < 0 ||
	    put_cpuset(m, topo, "package_cpus", "package_cpus_list", &package) < 0 ||
	    put_cpuset(m, topo, "core_siblings", "core_siblings_list", &package) < 0)
		return -1;
	return write_cache(m, dir, l3);
}

/* L3: shared by the socket's CPUs of this node, or by l3-cores cores of it. */
static void l3_of(const struct mk *m, const int *cpus, int n, int core, struct cpuset *ret)
{
	struct cpuset sib;
	int c;

	*ret = (struct cpuset){ 0 };
	for (int i = 0; i < n; i++) {
		siblings_of(m, cpus, n, i, &sib, &c);
		if (!m->l3_cores || c / m->l3_cores == core / m->l3_cores)
			cpuset_or(ret, &sib);
	}
}

static int write_node_cpus(struct mk *m, const struct node *n, int *first_core)
{
	AUTO_FREE int *cpus = xcalloc(CPUSET_MAX, sizeof(*cpus));
	struct cpuset core, l3 = { 0 };
	int count = 0, core_id, last = 0;

	cpuset_for_each(cpu, &n->cpus)
		cpus[count++] = cpu;
	if (count)
		l3_of(m, cpus, count, 0, &l3);
	for (int i = 0; i < count; i++) {
		siblings_of(m, cpus, count, i, &core, &core_id);
		if (m->l3_cores)
			l3_of(m, cpus, count, core_id, &l3);
		if (write_cpu(m, n, cpus[i], *first_core + core_id, &core, &l3) < 0)
			return -1;
		last = core_id > last ? core_id : last;
	}
	*first_core += last + 1;
	return 0;
}

static int write_cpuinfo(struct mk *m, const struct cpuset *all)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		abort();
	cpuset_for_each(cpu, all)
		fprintf(f, "processor\t: %d\nvendor_id\t: %s\nmodel name\t: Fixture CPU\naddress sizes\t: %d bits physical, 48 bits virtual\n\n",
			cpu, m->cpu_vendor, m->phys_bits);
	fclose(f);
	r = put_bytes(m, "proc/cpuinfo", text, len, 0);
	return r;
}

static int write_cpus(struct mk *m)
{
	const char *dir = "sys/devices/system/cpu";
	struct cpuset all = { 0 };
	int core = 0, socket = -1;

	for (size_t i = 0; i < m->n_nodes; i++) {
		/* Core numbers of the kernel start again in each package. */
		if (m->nodes[i].socket != socket)
			core = 0;
		socket = m->nodes[i].socket;
		cpuset_or(&all, &m->nodes[i].cpus);
		if (write_node_cpus(m, &m->nodes[i], &core) < 0)
			return -1;
	}
	if (put_cpuset(m, dir, NULL, "online", &all) < 0 || put_cpuset(m, dir, NULL, "possible", &all) < 0 ||
	    put_cpuset(m, dir, NULL, "present", &all) < 0 || put(m, dir, "offline", "%s", "") < 0 ||
	    put(m, dir, "isolated", "%s", m->isolated) < 0 || put(m, dir, "smt/active", "%d", m->threads > 1) < 0)
		return -1;
	return write_cpuinfo(m, &all);
}

static int write_pools(struct mk *m, const char *dir, const struct node *nodes, size_t n_nodes)
{
	for (size_t i = 0; i < MAX_POOLS; i++) {
		uint64_t page = nodes[0].pools[i].page, avail = 0, total = 0;
		AUTO_FREE char *pool = xasprintf("%s/hugepages-%" PRIu64 "kB", dir, page >> 10);

		for (size_t k = 0; k < n_nodes; k++) {
			avail += nodes[k].pools[i].free;
			total += nodes[k].pools[i].total;
		}
		if (put(m, pool, "nr_hugepages", "%" PRIu64, total) < 0 ||
		    put(m, pool, "free_hugepages", "%" PRIu64, avail) < 0 || put(m, pool, "surplus_hugepages", "0") < 0)
			return -1;
	}
	return 0;
}

static int write_node(struct mk *m, const struct node *n)
{
	AUTO_FREE char *dir = xasprintf("sys/devices/system/node/node%d", n->id);
	AUTO_FREE char *pools = xasprintf("%s/hugepages", dir);
	AUTO_FREE char *dist = xstrdup(n->distances);

	for (char *p = dist; *p; p++)
		if (*p == ',')
			*p = ' ';
	cpuset_for_each(cpu, &n->cpus) {
		AUTO_FREE char *target = xasprintf("sys/devices/system/cpu/cpu%d", cpu);

		if (make_link_at(m, target, "%s/cpu%d", dir, cpu) < 0)
			return -1;
	}
	if (put_cpuset(m, dir, "cpumap", "cpulist", &n->cpus) < 0 || put(m, dir, "distance", "%s", *dist ? dist : "10") < 0 ||
	    put(m, dir, "meminfo", "Node %d MemTotal:       %" PRIu64 " kB\nNode %d MemFree:        %" PRIu64 " kB", n->id,
		n->bytes >> 10, n->id, n->free_bytes >> 10) < 0)
		return -1;
	return write_pools(m, pools, n, 1);
}

static int write_nodes(struct mk *m)
{
	const char *dir = "sys/devices/system/node";
	struct cpuset ids = { 0 };
	uint64_t total = 0, avail = 0;

	for (size_t i = 0; i < m->n_nodes; i++) {
		cpuset_add(&ids, m->nodes[i].id);
		total += m->nodes[i].bytes;
		avail += m->nodes[i].free_bytes;
		if (!m->no_numa && write_node(m, &m->nodes[i]) < 0)
			return -1;
	}
	if (!m->no_numa && (put_cpuset(m, dir, NULL, "online", &ids) < 0 || put_cpuset(m, dir, NULL, "possible", &ids) < 0))
		return -1;
	if (put(m, "proc", "meminfo", "MemTotal:       %" PRIu64 " kB\nMemFree:        %" PRIu64 " kB\nMemAvailable:   %" PRIu64 " kB",
		total >> 10, avail >> 10, avail >> 10) < 0)
		return -1;
	return write_pools(m, "sys/kernel/mm/hugepages", m->nodes, m->n_nodes);
}

/* --- PCI --------------------------------------------------------------------------------------------------- */

static bool is_bridge(const struct mk *m, const struct dev *d)
{
	return m->kinds[d->kind].class_code >> 8 == 0x0604;
}

static struct dev *find_dev(struct mk *m, const struct pci_addr *a)
{
	for (size_t i = 0; i < m->n_devs; i++)
		if (pci_addr_cmp(&m->devs[i].addr, a) == 0)
			return &m->devs[i];
	return NULL;
}

static bool group_used(const struct mk *m, int group)
{
	for (size_t i = 0; i < m->n_devs; i++)
		if (m->devs[i].group == group)
			return true;
	return false;
}

/* Groups that the description names come first; the others get the lowest free numbers in the order of the file. */
static void number_groups(struct mk *m)
{
	bool off = !strcmp(m->iommu, "off");
	int next = 0;

	for (size_t i = 0; i < m->n_devs; i++)
		m->devs[i].group = !off && m->devs[i].p.group >= 0 ? m->devs[i].p.group : -1;
	for (size_t i = 0; !off && i < m->n_devs; i++) {
		struct dev *d = &m->devs[i];

		if (d->p.group == GROUP_UP && d->parent >= 0) {
			d->group = m->devs[d->parent].group;
		} else if (d->p.group == GROUP_OWN) {
			while (group_used(m, next))
				next++;
			d->group = next++;
		}
	}
}

static void place_devs(struct mk *m)
{
	char bdf[PCI_ADDR_STR];

	for (size_t i = 0; i < m->n_devs; i++) {
		struct dev *d = &m->devs[i];
		const struct bus *b = &m->buses[d->bus];

		pci_addr_format(&d->addr, bdf);
		d->last_bus = d->addr.bus;
		if (d->parent >= 0)
			d->path = xasprintf("%s/%s", m->devs[d->parent].path, bdf);
		else
			d->path = xasprintf("sys/devices/pci%04x:%02x/%s", b->domain, b->number, bdf);
		for (int p = d->parent; p >= 0; p = m->devs[p].parent)
			if (m->devs[p].last_bus < d->addr.bus)
				m->devs[p].last_bus = d->addr.bus;
		for (size_t k = 0; k < 6; k++) {
			struct bar *bar = &d->p.bars[k];

			if (!bar->bytes)
				continue;
			m->next_address = (m->next_address + bar->bytes - 1) / bar->bytes * bar->bytes;
			bar->start = m->next_address;
			m->next_address += bar->bytes;
		}
	}
}

static void le16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void le32(uint8_t *p, uint32_t v)
{
	le16(p, v & 0xffff);
	le16(p + 2, v >> 16);
}

/* Supported link speeds vector code: 2.5 GT/s is 1, each step doubles (roughly). */
static unsigned int speed_code(unsigned int gts10)
{
	static const unsigned int gts10s[] = { 25, 50, 80, 160, 320, 640 };

	for (unsigned int i = 0; i < ARRAY_SIZE(gts10s); i++)
		if (gts10s[i] == gts10)
			return i + 1;
	return 0;
}

static void config_express(const struct dev *d, uint8_t *cap)
{
	const struct props *p = &d->p;

	cap[0] = 0x10;
	le16(cap + 2, 2u | (unsigned int)p->pcie << 4);
	le32(cap + 0x0c, speed_code(p->gts10) | p->width << 4);
	le16(cap + 0x12, speed_code(p->now_gts10 ? p->now_gts10 : p->gts10) | (p->now_width ? p->now_width : p->width) << 4);
}

/* Extended capabilities, chained from 0x100. */
static void config_extended(const struct dev *d, uint8_t *c)
{
	unsigned int at = 0x100, last = 0;

	if (d->p.acs >= 0) {
		le32(c + at, 0x0001000d);
		le16(c + at + 4, 0x5f);
		le16(c + at + 6, (unsigned int)d->p.acs);
		last = at;
		at = 0x480;
	}
	if (d->p.ats >= 0) {
		le32(c + at, 0x0001000f);
		le16(c + at + 6, (unsigned int)d->p.ats);
		if (last)
			le32(c + last, 0x0001000d | at << 20);
	}
}

static void config_header(const struct mk *m, const struct dev *d, uint8_t *c)
{
	const struct kind *k = &m->kinds[d->kind];
	bool bridge = is_bridge(m, d);

	/* A virtual function reads ffff here: its ids are those of the physical one. */
	le16(c, d->p.is_vf ? 0xffff : k->vendor);
	le16(c + 2, d->p.is_vf ? 0xffff : k->device);
	le16(c + 4, 0x0406);
	le16(c + 6, 0x0010); /* has capabilities */
	c[9] = (uint8_t)k->class_code;
	le16(c + 10, k->class_code >> 8);
	c[14] = bridge ? 1 : 0;
	c[0x34] = 0x60;
	if (bridge) {
		c[0x18] = d->addr.bus;
		c[0x1a] = d->last_bus;
		for (size_t i = 0; i < m->n_devs; i++)
			if (m->devs[i].parent == (int)(d - m->devs))
				c[0x19] = m->devs[i].addr.bus;
		return;
	}
	le16(c + 0x2c, d->p.subvendor);
	le16(c + 0x2e, d->p.subdevice);
	for (size_t i = 0; i < 6; i++)
		if (d->p.bars[i].bytes)
			le32(c + 0x10 + 4 * i, (uint32_t)d->p.bars[i].start | (d->p.bars[i].flags & 0xf));
}

static int write_config(struct mk *m, const struct dev *d)
{
	uint8_t c[0x500] = { 0 };
	AUTO_FREE char *path = xasprintf("%s/config", d->path);
	bool express = d->p.pcie >= 0;

	config_header(m, d, c);
	/* Power management, then express: two entries make a walk of the list worth the name. */
	c[0x60] = 0x01;
	c[0x61] = express ? 0x68 : 0;
	if (express) {
		config_express(d, c + 0x68);
		config_extended(d, c);
	}
	if (d->p.unreadable)
		return put_bytes(m, path, c, 64, 0);
	return put_bytes(m, path, c, express ? sizeof(c) : 256, express ? 4096 : 256);
}

static int write_resource(struct mk *m, const struct dev *d)
{
	AUTO_FREE char *text = NULL;

	for (size_t i = 0; i < 13; i++) {
		const struct bar *b = i < 6 ? &d->p.bars[i] : NULL;

		append(&text, "0x%016" PRIx64 " 0x%016" PRIx64 " 0x%016" PRIx64 "%s", b ? b->start : 0,
		       b && b->bytes ? b->start + b->bytes - 1 : 0, b ? b->flags : 0, i < 12 ? "\n" : "");
	}
	return put(m, d->path, "resource", "%s", text);
}

static int write_link_attr(struct mk *m, const struct dev *d, const char *prefix, unsigned int gts10, unsigned int width)
{
	AUTO_FREE char *speed = xasprintf("%s_link_speed", prefix), *lanes = xasprintf("%s_link_width", prefix);

	if (!gts10 ? put(m, d->path, speed, "Unknown") < 0
		   : put(m, d->path, speed, "%u.%u GT/s PCIe", gts10 / 10, gts10 % 10) < 0)
		return -1;
	return put(m, d->path, lanes, "%u", width);
}

static int write_links(struct mk *m, const struct dev *d)
{
	const struct props *p = &d->p;

	if (p->pcie < 0 || p->pcie == 9)
		return 0;
	if (write_link_attr(m, d, "max", p->gts10, p->width) < 0)
		return -1;
	return write_link_attr(m, d, "current", p->now_gts10 ? p->now_gts10 : p->gts10,
			       p->now_width ? p->now_width : p->width);
}

static int write_locality(struct mk *m, const struct dev *d)
{
	struct cpuset cpus = { 0 };

	for (size_t i = 0; i < m->n_nodes; i++)
		if (d->p.node < 0 || m->nodes[i].id == d->p.node)
			cpuset_or(&cpus, &m->nodes[i].cpus);
	if (*d->p.cpulist) {
		cpus = (struct cpuset){ 0 };
		if (cpuset_parse(d->p.cpulist, &cpus) < 0)
			return bad(m, "cpulist=%s?", d->p.cpulist);
	}
	if (!m->no_numa && put(m, d->path, "numa_node", "%d", d->p.node) < 0)
		return -1;
	return put_cpuset(m, d->path, "local_cpus", "local_cpulist", &cpus);
}

static int write_ids(struct mk *m, const struct dev *d, const char *bdf)
{
	const struct kind *k = &m->kinds[d->kind];
	AUTO_FREE char *driver = *d->p.driver ? xasprintf("DRIVER=%s\n", d->p.driver) : xstrdup("");
	AUTO_FREE char *alias = xasprintf("pci:v%08Xd%08Xsv%08Xsd%08Xbc%02Xsc%02Xi%02X", k->vendor, k->device, d->p.subvendor,
					  d->p.subdevice, k->class_code >> 16, k->class_code >> 8 & 0xff, k->class_code & 0xff);

	if (put(m, d->path, "vendor", "0x%04x", k->vendor) < 0 || put(m, d->path, "device", "0x%04x", k->device) < 0 ||
	    put(m, d->path, "class", "0x%06x", k->class_code) < 0 || put(m, d->path, "revision", "0x00") < 0 ||
	    put(m, d->path, "subsystem_vendor", "0x%04x", d->p.subvendor) < 0 ||
	    put(m, d->path, "subsystem_device", "0x%04x", d->p.subdevice) < 0)
		return -1;
	if (put(m, d->path, "modalias", "%s", alias) < 0)
		return -1;
	return put(m, d->path, "uevent", "%sPCI_CLASS=%X\nPCI_ID=%04X:%04X\nPCI_SUBSYS_ID=%04X:%04X\nPCI_SLOT_NAME=%s\nMODALIAS=%s",
		   driver, k->class_code, k->vendor, k->device, d->p.subvendor, d->p.subdevice, bdf, alias);
}

static int vf_number(const struct mk *m, const struct dev *d)
{
	int n = 0;

	for (const struct dev *o = m->devs; o < d; o++)
		n += o->p.is_vf && pci_addr_cmp(&o->p.vf_of, &d->p.vf_of) == 0;
	return n;
}

static int write_optional(struct mk *m, struct dev *d)
{
	if (m->kinds[d->kind].class_code >> 16 == 0x03 && put(m, d->path, "boot_vga", "%d", d->p.boot_vga) < 0)
		return -1;
	if (d->p.vfs > 0 &&
	    (put(m, d->path, "sriov_numvfs", "%d", d->p.vfs) < 0 || put(m, d->path, "sriov_totalvfs", "%d", d->p.vfs) < 0))
		return -1;
	if (d->p.is_vf) {
		const struct dev *pf = find_dev(m, &d->p.vf_of);

		if (!pf)
			return bad(m, "vf-of a function that is not there");
		if (make_link_at(m, pf->path, "%s/physfn", d->path) < 0 ||
		    make_link_at(m, d->path, "%s/virtfn%d", pf->path, vf_number(m, d)) < 0)
			return -1;
	}
	if (d->p.no_reset || is_bridge(m, d))
		return 0;
	return put(m, d->path, "reset", "%s", "") < 0 ? -1 : put(m, d->path, "reset_method", "flr bus");
}

static int write_driver(struct mk *m, const char *name)
{
	AUTO_FREE char *dir = xasprintf("sys/bus/pci/drivers/%s", name);
	static const char *const files[] = { "bind", "unbind", "new_id", "remove_id", "uevent" };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (put(m, dir, files[i], "%s", "") < 0)
			return -1;
	return 0;
}

static int write_dev_links(struct mk *m, const struct dev *d, const char *bdf)
{
	AUTO_FREE char *driver = xasprintf("sys/bus/pci/drivers/%s", d->p.driver);
	AUTO_FREE char *group = xasprintf("sys/kernel/iommu_groups/%d", d->group);

	if (make_link_at(m, "sys/bus/pci", "%s/subsystem", d->path) < 0 ||
	    make_link_at(m, d->path, "sys/bus/pci/devices/%s", bdf) < 0)
		return -1;
	if (*d->p.driver && (write_driver(m, d->p.driver) < 0 || make_link_at(m, driver, "%s/driver", d->path) < 0 ||
			     make_link_at(m, d->path, "%s/%s", driver, bdf) < 0))
		return -1;
	if (d->group >= 0 && (make_link_at(m, group, "%s/iommu_group", d->path) < 0 ||
			      make_link_at(m, d->path, "%s/devices/%s", group, bdf) < 0))
		return -1;
	return 0;
}

static int write_dev(struct mk *m, struct dev *d)
{
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&d->addr, bdf);
	if (make_dirs(m, d->path) < 0 || write_ids(m, d, bdf) < 0 || write_config(m, d) < 0 || write_resource(m, d) < 0 ||
	    write_links(m, d) < 0 || write_locality(m, d) < 0 || write_optional(m, d) < 0 || write_dev_links(m, d, bdf) < 0)
		return -1;
	return put(m, d->path, "driver_override", "%s", *d->p.override ? d->p.override : "(null)");
}

/* Names of the ids in use, so that they do not depend on the database of the machine that reads the tree. */
static int write_pci_ids(struct mk *m)
{
	AUTO_FREE char *text = xstrdup("# of this machine\n");

	for (size_t i = 0; i < m->n_kinds; i++) {
		const struct kind *k = &m->kinds[i];
		bool seen = false;

		for (size_t j = 0; j < i; j++)
			seen |= m->kinds[j].vendor == k->vendor;
		if (seen || !k->vendor_name)
			continue;
		append(&text, "%04x  %s\n", k->vendor, k->vendor_name);
		for (size_t j = i; j < m->n_kinds; j++)
			if (m->kinds[j].vendor == k->vendor && m->kinds[j].device_name)
				append(&text, "\t%04x  %s\n", m->kinds[j].device, m->kinds[j].device_name);
	}
	return put_bytes(m, "usr/share/misc/pci.ids", text, strlen(text), 0);
}

static int write_iommu(struct mk *m)
{
	uint64_t cap = m->iommu_bits > 0 ? (uint64_t)(m->iommu_bits - 1) << 16 : 0;

	if (make_dirs(m, "sys/kernel/iommu_groups") < 0 || make_dirs(m, "sys/class/iommu") < 0)
		return -1;
	if (!strcmp(m->iommu, "off"))
		return 0;
	if (!strcmp(m->iommu, "intel"))
		return put(m, "sys/class/iommu/dmar0/intel-iommu", "cap", "%" PRIx64, UINT64_C(0x8d2008c40000660) | cap);
	return put(m, "sys/class/iommu/ivhd0/amd-iommu", "cap", "%s", "190b640f");
}

static int write_pci(struct mk *m)
{
	static const char *const drivers[] = { "vfio-pci", "pci-stub", "pcieport" };

	place_devs(m);
	number_groups(m);
	if (make_dirs(m, "sys/bus/pci/devices") < 0 || put(m, "sys/bus/pci", "drivers_probe", "%s", "") < 0 ||
	    put(m, "sys/bus/pci", "rescan", "%s", "") < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
		if (!(m->no_vfio && i == 0) && write_driver(m, drivers[i]) < 0)
			return -1;
	for (size_t i = 0; i < m->n_devs; i++)
		if (write_dev(m, &m->devs[i]) < 0)
			return -1;
	return write_iommu(m) < 0 ? -1 : write_pci_ids(m);
}

/* --- disks, mounts, network -------------------------------------------------------------------------------- */

static struct blockdev *find_block(struct mk *m, const char *name)
{
	for (size_t i = 0; i < m->n_blocks; i++)
		if (!strcmp(m->blocks[i].name, name))
			return &m->blocks[i];
	return NULL;
}

static int add_block(struct mk *m, const char *name, const char *path, unsigned int major, unsigned int minor)
{
	struct blockdev *b = PUSH_ZEROED(m->blocks, m->n_blocks);

	snprintf(b->name, sizeof(b->name), "%s", name);
	b->path = xstrdup(path);
	b->major = major;
	b->minor = minor;
	if (put(m, path, "dev", "%u:%u", major, minor) < 0 || put(m, path, "size", "1875385008") < 0 ||
	    make_link_at(m, path, "sys/class/block/%s", name) < 0)
		return -1;
	return make_link_at(m, path, "sys/dev/block/%u:%u", major, minor);
}

/* The controller of nvme0n1: nvme0, with its link in the class. Its path, owned. */
static char *nvme_controller(struct mk *m, const struct dev *d, const char *name)
{
	AUTO_FREE char *ctrl = xstrndup(name, 4 + strspn(name + 4, "0123456789"));
	char *path = xasprintf("%s/nvme/%s", d->path, ctrl);

	put(m, path, "state", "live");
	make_link_at(m, path, "sys/class/nvme/%s", ctrl);
	return path;
}

/* Where the block device of a controller lies below the function, by what the name says it is. */
static char *disk_path(struct mk *m, const struct dev *d, const char *name)
{
	if (!strncmp(name, "nvme", 4)) {
		AUTO_FREE char *ctrl = nvme_controller(m, d, name);

		return xasprintf("%s/%s", ctrl, name);
	}
	if (!strncmp(name, "vd", 2))
		return xasprintf("%s/virtio0/block/%s", d->path, name);
	return xasprintf("%s/ata1/host0/target0:0:0/0:0:0:0/block/%s", d->path, name);
}

/* NVMe multipath: the disk hangs from a virtual subsystem that links to its controllers. */
static char *multipath_disk(struct mk *m, const struct dev *d, const char *name)
{
	AUTO_FREE char *real = nvme_controller(m, d, name);
	const char *ctrl = strrchr(real, '/') + 1;
	AUTO_FREE char *subsys = xasprintf("sys/devices/virtual/nvme-subsystem/nvme-subsys%s", ctrl + 4);

	if (make_dirs(m, subsys) < 0 || make_link_at(m, real, "%s/%s", subsys, ctrl) < 0)
		return NULL;
	return xasprintf("%s/%s", subsys, name);
}

static int late_disk(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *path = NULL;
	struct pci_addr a;
	struct dev *d;
	int parts = 0, r;

	if (w->n < 4 || check_options(m, w, 4, "parts multipath") < 0 || option_int(m, w, 4, "parts", &parts) < 0 ||
	    parse_bdf(m, w->v[3], 0, &a) < 0)
		return bad(m, "disk NAME at BDF [parts=N] [multipath]");
	d = find_dev(m, &a);
	if (!d)
		return bad(m, "no function %s", w->v[3]);
	path = option(w, 4, "multipath") ? multipath_disk(m, d, w->v[1]) : disk_path(m, d, w->v[1]);
	if (!path)
		return -1;
	r = add_block(m, w->v[1], path, 259, (unsigned int)m->n_blocks);
	for (int i = 1; r == 0 && i <= parts; i++) {
		AUTO_FREE char *name = xasprintf("%s%s%d", w->v[1], strncmp(w->v[1], "nvme", 4) ? "" : "p", i);
		AUTO_FREE char *sub = xasprintf("%s/%s", path, name);

		r = add_block(m, name, sub, 259, (unsigned int)m->n_blocks);
		if (r == 0)
			r = put(m, sub, "partition", "%d", i);
	}
	return r;
}

/* A 9p share: its function has a virtio device with the tag that mount shows as the source. */
static int late_share(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *path = NULL;
	struct pci_addr a;
	const struct dev *d;

	if (w->n < 4 || parse_bdf(m, w->v[3], 0, &a) < 0 || !(d = find_dev(m, &a)))
		return bad(m, "share TAG at BDF");
	path = xasprintf("%s/virtio%zu", d->path, (size_t)(d - m->devs));
	if (put(m, path, "mount_tag", "%s", w->v[1]) < 0)
		return -1;
	return make_link_at(m, path, "sys/bus/virtio/drivers/9pnet_virtio/virtio%zu", (size_t)(d - m->devs));
}

/* dm-N and mdN: a virtual block device with links to what it is made of. */
static int stacked(struct mk *m, const char *name, const struct strv *w, size_t first)
{
	AUTO_FREE char *path = xasprintf("sys/devices/virtual/block/%s", name);

	for (size_t i = first; i < w->n; i++) {
		const struct blockdev *b = find_block(m, w->v[i]);

		if (!b)
			return bad(m, "no block device '%s'", w->v[i]);
		if (make_link_at(m, b->path, "%s/slaves/%s", path, b->name) < 0)
			return -1;
	}
	return add_block(m, name, path, *name == 'd' ? 254 : 9, (unsigned int)m->n_blocks);
}

static int late_dm(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *name = w->n >= 5 ? xasprintf("dm-%s", w->v[1]) : NULL;
	AUTO_FREE char *dir = name ? xasprintf("sys/devices/virtual/block/%s/dm", name) : NULL;

	if (!name)
		return bad(m, "dm N NAME on DEV...");
	return put(m, dir, "name", "%s", w->v[2]) < 0 ? -1 : stacked(m, name, w, 4);
}

static int late_md(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *name = w->n >= 4 ? xasprintf("md%s", w->v[1]) : NULL;

	return name ? stacked(m, name, w, 3) : bad(m, "md N on DEV...");
}

/* "/dev/mapper/vg-root" for a device mapper device, as mount shows it */
static char *dev_node(struct mk *m, const struct blockdev *b)
{
	AUTO_FREE char *file = xasprintf("%s/dm/name", b->path);
	char name[64] = "";
	int fd = openat(m->root, file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, name, sizeof(name) - 1) : -1;

	if (fd >= 0)
		close(fd);
	name[n > 0 ? strcspn(name, "\n") : 0] = '\0';
	return *name ? xasprintf("/dev/mapper/%s", name) : xasprintf("/dev/%s", b->name);
}

static int late_mount(struct mk *m, const struct strv *w)
{
	const struct blockdev *b = w->n >= 3 ? find_block(m, w->v[1]) : NULL;
	AUTO_FREE char *source = b ? dev_node(m, b) : NULL;
	const char *type = w->n > 3 && strcmp(w->v[3], "anonymous") ? w->v[3] : "ext4";
	unsigned int id = 30u + (unsigned int)m->line;

	if (w->n < 3)
		return bad(m, "mount DEV DIR [TYPE] [anonymous]");
	if (b && !option(w, 3, "anonymous"))
		append(&m->mountinfo, "%u 1 %u:%u / %s rw,relatime shared:1 - %s %s rw\n", id, b->major, b->minor, w->v[2], type, source);
	else
		append(&m->mountinfo, "%u 1 0:%u / %s rw,relatime shared:1 - %s %s rw\n", id, id, w->v[2], type,
		       b ? source : w->v[1]);
	return 0;
}

static int late_swap(struct mk *m, const struct strv *w)
{
	append(&m->swaps, "/dev/%-39s partition\t8388604\t0\t-2\n", w->v[1]);
	return 0;
}

/* Bridges and bonds: `master` in the member, `lower_X` in the master. */
static int net_stack(struct mk *m, const char *upper, const char *lower, bool master)
{
	AUTO_FREE char *up = xasprintf("sys/devices/virtual/net/%s", upper), *low = NULL;
	AUTO_FREE char *link = xasprintf("sys/class/net/%s", lower);
	char buf[PATH_MAX];
	ssize_t n = readlinkat(m->root, link, buf, sizeof(buf) - 1);

	if (n < 0)
		return bad(m, "no interface '%s'", lower);
	buf[n] = '\0';
	low = xasprintf("sys/%s", strstr(buf, "devices/"));
	if ((master && make_link_at(m, up, "%s/master", low) < 0) || make_link_at(m, low, "%s/lower_%s", up, lower) < 0)
		return -1;
	return make_link_at(m, up, "%s/upper_%s", low, upper);
}

static int late_net(struct mk *m, const struct strv *w)
{
	bool at = w->n >= 4 && !strcmp(w->v[2], "at");
	const char *master = option(w, 3, "master"), *vlan = w->n > 2 ? option(w, 2, "vlan-of") : NULL;
	AUTO_FREE char *path = NULL;
	struct pci_addr a;
	struct dev *d = NULL;

	if (at && parse_bdf(m, w->v[3], 0, &a) < 0)
		return -1;
	if (at && !(d = find_dev(m, &a)))
		return bad(m, "no function %s", w->v[3]);
	path = d ? xasprintf("%s/net/%s", d->path, w->v[1]) : xasprintf("sys/devices/virtual/net/%s", w->v[1]);
	if (put(m, path, "ifindex", "%d", ++m->next_ifindex) < 0 || put(m, path, "operstate", "up") < 0 ||
	    put(m, path, "address", "02:00:00:00:00:%02x", m->next_ifindex) < 0 ||
	    make_link_at(m, path, "sys/class/net/%s", w->v[1]) < 0)
		return -1;
	if (d && make_link_at(m, d->path, "%s/device", path) < 0)
		return -1;
	if (master && net_stack(m, master, w->v[1], true) < 0)
		return -1;
	return vlan ? net_stack(m, w->v[1], vlan, false) : 0;
}

static int late_route(struct mk *m, const struct strv *w)
{
	unsigned int o[4] = { 0 }, bits = 0;
	uint32_t mask;
	char junk;

	if (w->n < 3)
		return bad(m, "route NAME default|SUBNET");
	if (!strcmp(w->v[2], "default")) {
		append(&m->route, "%s\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n", w->v[1]);
		return 0;
	}
	if (sscanf(w->v[2], "%u.%u.%u.%u/%u%c", &o[0], &o[1], &o[2], &o[3], &bits, &junk) != 5 || bits < 1 || bits > 32)
		return bad(m, "'%s' is not a subnet", w->v[2]);
	mask = __builtin_bswap32(UINT32_MAX << (32 - bits));
	append(&m->route, "%s\t%08X\t00000000\t0001\t0\t0\t100\t%08X\t0\t0\t0\n", w->v[1],
	       o[0] | o[1] << 8 | o[2] << 16 | o[3] << 24, mask);
	return 0;
}

static int late_address6(struct mk *m, const struct strv *w)
{
	const char *scope = option(w, 3, "scope");

	if (w->n < 3 || strlen(w->v[2]) != 32)
		return bad(m, "address6 NAME HEX (32 digits)");
	append(&m->inet6, "%s 02 40 %s 80 %8s\n", w->v[2], scope && !strcmp(scope, "link") ? "20" : "00", w->v[1]);
	return 0;
}

static int do_late(struct mk *m, const char *line)
{
	static const struct {
		const char *word;
		int (*fn)(struct mk *m, const struct strv *w);
	} table[] = { { "disk", late_disk }, { "share", late_share }, { "dm", late_dm },
		      { "md", late_md },     { "mount", late_mount }, { "swap", late_swap },
		      { "net", late_net },   { "route", late_route }, { "address6", late_address6 } };
	CLEANUP(strv_clear) struct strv w = { 0 };

	if (strv_split_shell(line, &w, m->e) < 0 || w.n < 2)
		return bad(m, "too short");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(w.v[0], table[i].word))
			return table[i].fn(m, &w);
	return 0;
}

static int write_late(struct mk *m)
{
	if (make_dirs(m, "sys/class/block") < 0 || make_dirs(m, "sys/dev/block") < 0 ||
	    put(m, "sys/devices/virtual/net/lo", "ifindex", "1") < 0 ||
	    make_link(m, "sys/devices/virtual/net/lo", "sys/class/net/lo") < 0)
		return -1;
	for (size_t i = 0; i < m->late.n; i++) {
		m->line = m->late_lines[i];
		if (do_late(m, m->late.v[i]) < 0)
			return -1;
	}
	return 0;
}

static int write_proc(struct mk *m)
{
	AUTO_FREE char *mounts = xasprintf("22 1 0:20 / /proc rw - proc proc rw\n23 1 0:21 / /sys rw - sysfs sysfs rw\n%s",
					   m->mountinfo ? m->mountinfo : "");
	AUTO_FREE char *swaps = xasprintf("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n%s", m->swaps ? m->swaps : "");
	AUTO_FREE char *route = xasprintf("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n%s",
					  m->route ? m->route : "");
	AUTO_FREE char *inet6 = xasprintf("00000000000000000000000000000001 01 80 10 80       lo\n%s", m->inet6 ? m->inet6 : "");

	if (put_bytes(m, "proc/self/mountinfo", mounts, strlen(mounts), 0) < 0 ||
	    put_bytes(m, "proc/swaps", swaps, strlen(swaps), 0) < 0 ||
	    put_bytes(m, "proc/net/route", route, strlen(route), 0) < 0 ||
	    put_bytes(m, "proc/net/ipv6_route", "", 0, 0) < 0 || put_bytes(m, "proc/net/if_inet6", inet6, strlen(inet6), 0) < 0)
		return -1;
	if (put(m, "proc/sys/kernel", "osrelease", "%s", m->kernel) < 0 ||
	    put(m, "proc/sys/kernel", "hostname", "%s", m->name) < 0 ||
	    put(m, "proc/sys/kernel/random", "boot_id", "00000000-0000-4000-8000-000000000001") < 0)
		return -1;
	return put(m, "etc", "machine-id", "%s", m->machine_id);
}

static int write_misc(struct mk *m)
{
	if (make_dirs(m, "sys/class/misc") < 0)
		return -1;
	if (!m->no_kvm && put(m, "sys/class/misc/kvm", "dev", "10:232") < 0)
		return -1;
	return m->no_vfio ? 0 : put(m, "sys/class/misc/vfio", "dev", "10:196");
}

/* --- entry points -------------------------------------------------------------------------------------------- */

static void mk_clear(struct mk *m)
{
	for (size_t i = 0; i < m->n_kinds; i++) {
		free(m->kinds[i].vendor_name);
		free(m->kinds[i].device_name);
	}
	for (size_t i = 0; i < m->n_devs; i++)
		free(m->devs[i].path);
	for (size_t i = 0; i < m->n_blocks; i++)
		free(m->blocks[i].path);
	free(m->kinds);
	free(m->devs);
	free(m->blocks);
	free(m->buses);
	free(m->nodes);
	strv_clear(&m->late);
	free(m->late_lines);
	free(m->mountinfo);
	free(m->swaps);
	free(m->route);
	free(m->inet6);
	if (m->root >= 0)
		close(m->root);
}

static int build(struct mk *m, FILE *in, const char *dir)
{
	if (read_description(m, in) < 0)
		return m->e->code;
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_sys(m->e, -errno, "mkdir '%s'", dir);
	m->root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (m->root < 0)
		return err_sys(m->e, -errno, "open '%s'", dir);
	if (write_cpus(m) < 0 || write_nodes(m) < 0 || write_pci(m) < 0 || write_late(m) < 0 || write_proc(m) < 0 ||
	    write_misc(m) < 0)
		return m->e->code;
	return 0;
}

static int build_from(FILE *in, const char *file, const char *dir, struct err *e)
{
	struct mk m = { .root = -1, .e = e, .file = file, .name = "fixture", .kernel = "6.8.0-90-generic",
			.machine_id = "0123456789abcdef0123456789abcdef", .iommu = "off", .cpu_vendor = "GenuineIntel",
			.threads = 1, .phys_bits = 46, .next_address = UINT64_C(0x200000000000), .next_ifindex = 1 };
	int r = build(&m, in, dir);

	mk_clear(&m);
	return r;
}

int mkhost_build(const char *description, const char *dir, struct err *e)
{
	AUTO_FCLOSE FILE *in = fopen(description, "re");

	if (!in)
		return err_sys(e, -errno, "open '%s'", description);
	return build_from(in, description, dir, e);
}

static char *build_in_temp(FILE *in, const char *file)
{
	const char *tmp = getenv("TMPDIR");
	AUTO_FREE char *dir = xasprintf("%s/gpuvm-host-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	struct err e = { 0 };

	if (!mkdtemp(dir)) {
		perror(dir);
		return NULL;
	}
	if (build_from(in, file, dir, &e) < 0) {
		fprintf(stderr, "mkhost: %s\n", e.msg);
		mkhost_remove(STEAL_PTR(dir));
		return NULL;
	}
	return STEAL_PTR(dir);
}

char *mkhost_fixture(const char *name)
{
	const char *fixtures = getenv("GPUVM_FIXTURES");
	AUTO_FREE char *path = xasprintf("%s/%s.host", fixtures ? fixtures : "tests/fixtures", name);
	AUTO_FCLOSE FILE *in = fopen(path, "re");

	if (!in) {
		perror(path);
		return NULL;
	}
	return build_in_temp(in, path);
}

char *mkhost_text(const char *text)
{
	AUTO_FCLOSE FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

	return in ? build_in_temp(in, "text") : NULL;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void mkhost_remove(char *dir)
{
	if (!dir)
		return;
	nftw(dir, remove_entry, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	free(dir);
}
