/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "tests/fake/mkhost_priv.h"

/* Value of KEY=VALUE among the words from @from on; "" for a bare KEY; NULL if it is not there. */
const char *mk_option(const struct strv *w, size_t from, const char *key)
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
int mk_check_options(struct mk *m, const struct strv *w, size_t from, const char *keys)
{
	for (size_t i = from; i < w->n; i++) {
		size_t n = strcspn(w->v[i], "=");
		const char *p = keys;

		while (p && (strncmp(p, w->v[i], n) || (p[n] && p[n] != ' '))) {
			p = strchr(p, ' ');
			p = p ? p + 1 : NULL;
		}
		if (!p)
			return mk_bad(m, "'%s' is none of: %s", w->v[i], keys);
	}
	return 0;
}

int mk_option_int(struct mk *m, const struct strv *w, size_t from, const char *key, int *ret)
{
	const char *v = mk_option(w, from, key);

	return v && parse_int(v, -1, INT_MAX, ret) < 0 ? mk_bad(m, "bad number in '%s=%s'", key, v) : 0;
}

static void option_text(const struct strv *w, size_t from, const char *key, char *ret, size_t size)
{
	const char *v = mk_option(w, from, key);

	if (v)
		snprintf(ret, size, "%s", v);
}

/* "1af4:1041" */
static int parse_ids(struct mk *m, const char *s, uint16_t *ret_a, uint16_t *ret_b)
{
	unsigned int a, b;
	char junk;

	if (sscanf(s, "%4x:%4x%c", &a, &b, &junk) != 2)
		return mk_bad(m, "'%s' is not VVVV:DDDD", s);
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
		return mk_bad(m, "'%s' is not SPEEDxLANES", s);
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
		return mk_bad(m, "bad BAR '%s'", s);
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
		return mk_bad(m, "bad BAR type ':%s'", colon);
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
			return mk_bad(m, "more BARs than fit");
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
	} ports[] = { { "endpoint", 0 }, { "root", 4 },       { "upstream", 5 }, { "downstream", 6 },
		      { "bridge", 7 },   { "integrated", 9 }, { "none", -1 } };

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		if (!strcmp(s, ports[i].word)) {
			*ret = ports[i].type;
			return 0;
		}
	}
	return mk_bad(m, "pcie=%s?", s);
}

static int parse_group(struct mk *m, const char *s, int *ret)
{
	if (!strcmp(s, "parent"))
		*ret = GROUP_UP;
	else if (!strcmp(s, "none"))
		*ret = GROUP_NONE;
	else if (parse_int(s, 0, INT_MAX, ret) < 0)
		return mk_bad(m, "group=%s?", s);
	return 0;
}

/* "16:00.0" in @domain, or with a domain of its own. */
int mk_parse_bdf(struct mk *m, const char *s, unsigned int domain, struct pci_addr *ret)
{
	if (parse_pci_addr(s, ret) < 0)
		return mk_bad(m, "'%s' is not a PCI address", s);
	if (strchr(s, ':') == strrchr(s, ':'))
		ret->domain = domain;
	return 0;
}

#define PROP_KEYS                                                                                                      \
	"bars pcie link now acs ats driver override node cpulist subsys group vfs vf-of boot-vga no-reset "            \
	"unreadable sw-mng module"

static int parse_registers(struct mk *m, const struct strv *w, size_t from, struct props *p)
{
	const char *v;
	uint64_t u;

	if ((v = mk_option(w, from, "acs"))) {
		p->acs = 0x1d; /* what Linux sets where an IOMMU is on */
		if (*v && parse_u64(v, 0, 0xffff, &u) < 0)
			return mk_bad(m, "acs=%s?", v);
		if (*v)
			p->acs = (int)u;
	}
	if ((v = mk_option(w, from, "ats")))
		p->ats = strcmp(v, "on") == 0 ? 0x8000 : 0;
	return 0;
}

static int parse_props(struct mk *m, const struct strv *w, size_t from, unsigned int domain, struct props *p)
{
	const char *v;

	if (((v = mk_option(w, from, "bars")) && parse_bars(m, v, p) < 0) ||
	    ((v = mk_option(w, from, "pcie")) && parse_port(m, v, &p->pcie) < 0) ||
	    ((v = mk_option(w, from, "link")) && parse_link(m, v, &p->gts10, &p->width) < 0) ||
	    ((v = mk_option(w, from, "now")) && parse_link(m, v, &p->now_gts10, &p->now_width) < 0) ||
	    ((v = mk_option(w, from, "subsys")) && parse_ids(m, v, &p->subvendor, &p->subdevice) < 0) ||
	    ((v = mk_option(w, from, "group")) && parse_group(m, v, &p->group) < 0) ||
	    ((v = mk_option(w, from, "vf-of")) && mk_parse_bdf(m, v, domain, &p->vf_of) < 0) ||
	    mk_option_int(m, w, from, "node", &p->node) < 0 || mk_option_int(m, w, from, "vfs", &p->vfs) < 0 ||
	    mk_option_int(m, w, from, "module", &p->module) < 0 ||
	    parse_registers(m, w, from, p) < 0)
		return -EINVAL;
	option_text(w, from, "driver", p->driver, sizeof(p->driver));
	option_text(w, from, "override", p->override, sizeof(p->override));
	option_text(w, from, "cpulist", p->cpulist, sizeof(p->cpulist));
	p->is_vf |= mk_option(w, from, "vf-of") != NULL;
	p->boot_vga |= mk_option(w, from, "boot-vga") != NULL;
	p->no_reset |= mk_option(w, from, "no-reset") != NULL;
	p->unreadable |= mk_option(w, from, "unreadable") != NULL;
	p->sw_mng |= mk_option(w, from, "sw-mng") != NULL;
	return 0;
}

/* --- statements ------------------------------------------------------------------------------------ */

static int st_host(struct mk *m, const struct strv *w)
{
	if (mk_check_options(m, w, 2, "kernel machine-id no-kvm no-vfio no-vhost") < 0)
		return -EINVAL;
	snprintf(m->name, sizeof(m->name), "%s", w->v[1]);
	option_text(w, 2, "kernel", m->kernel, sizeof(m->kernel));
	option_text(w, 2, "machine-id", m->machine_id, sizeof(m->machine_id));
	m->no_kvm = mk_option(w, 2, "no-kvm") != NULL;
	m->no_vfio = mk_option(w, 2, "no-vfio") != NULL;
	m->no_vhost = mk_option(w, 2, "no-vhost") != NULL;
	return 0;
}

static int st_cpu(struct mk *m, const struct strv *w)
{
	const char *smt = mk_option(w, 2, "smt");

	if (mk_check_options(m, w, 2, "threads smt phys-bits l3-cores isolated nohz-full") < 0 ||
	    mk_option_int(m, w, 2, "threads", &m->threads) < 0 ||
	    mk_option_int(m, w, 2, "phys-bits", &m->phys_bits) < 0 ||
	    mk_option_int(m, w, 2, "l3-cores", &m->l3_cores) < 0)
		return -EINVAL;
	snprintf(m->cpu_vendor, sizeof(m->cpu_vendor), "%s", w->v[1]);
	option_text(w, 2, "isolated", m->isolated, sizeof(m->isolated));
	option_text(w, 2, "nohz-full", m->nohz_full, sizeof(m->nohz_full));
	m->smt_adjacent = smt && !strcmp(smt, "adjacent");
	return m->threads < 1 ? mk_bad(m, "threads?") : 0;
}

static int st_iommu(struct mk *m, const struct strv *w)
{
	snprintf(m->iommu, sizeof(m->iommu), "%s", w->v[1]);
	return mk_check_options(m, w, 2, "bits") < 0 ? -EINVAL : mk_option_int(m, w, 2, "bits", &m->iommu_bits);
}

/* "900/960": free and all pages */
static int parse_pool(struct mk *m, const char *s, uint64_t page, struct node *n, size_t i)
{
	char junk;

	n->pools[i].page = page;
	if (s && sscanf(s, "%" SCNu64 "/%" SCNu64 "%c", &n->pools[i].free, &n->pools[i].total, &junk) != 2)
		return mk_bad(m, "'%s' is not FREE/TOTAL", s);
	return 0;
}

static int st_node(struct mk *m, const struct strv *w)
{
	struct node *n = PUSH_ZEROED(m->nodes, m->n_nodes);
	const char *cpus = mk_option(w, 2, "cpus"), *mem = mk_option(w, 2, "memory"), *avail = mk_option(w, 2, "free");

	if (mk_check_options(m, w, 2, "socket cpus memory free 1G 2M distances") < 0 ||
	    mk_option_int(m, w, 2, "socket", &n->socket) < 0)
		return -EINVAL;
	if (parse_int(w->v[1], 0, 1023, &n->id) < 0 || !mem || parse_size(mem, &n->bytes) < 0 ||
	    (cpus && cpuset_parse(cpus, &n->cpus) < 0))
		return mk_bad(m, "node ID cpus=LIST memory=SIZE");
	n->free_bytes = n->bytes;
	if (avail && parse_size(avail, &n->free_bytes) < 0)
		return mk_bad(m, "free=%s?", avail);
	option_text(w, 2, "distances", n->distances, sizeof(n->distances));
	if (parse_pool(m, mk_option(w, 2, "2M"), UINT64_C(2) << 20, n, 0) < 0)
		return -EINVAL;
	return parse_pool(m, mk_option(w, 2, "1G"), UINT64_C(1) << 30, n, 1);
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
	static const char *const bare[] = { "acs", "ats", "boot-vga", "no-reset", "unreadable", "sw-mng" };

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
		return mk_bad(m, "a second kind '%s'", w->v[1]);
	if (parse_ids(m, w->v[2], &k.vendor, &k.device) < 0)
		return -EINVAL;
	if (strlen(w->v[3]) != 6 || parse_hex(w->v[3], 0xffffff, &class_code) < 0)
		return mk_bad(m, "class '%s' must have six hex digits", w->v[3]);
	if (mk_check_options(m, &options, 4, PROP_KEYS) < 0 || parse_props(m, &options, 4, 0, &k.p) < 0)
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
		return mk_bad(m, "'%s' is not DOMAIN:BUS", w->v[1]);
	return mk_check_options(m, w, 2, "node") < 0 ? -EINVAL : mk_option_int(m, w, 2, "node", &b->node);
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
		return mk_bad(m, "a function before the first bus");
	if (kind < 0)
		return mk_bad(m, "unknown kind '%s'", w->n > 1 ? w->v[1] : "");
	d.kind = (size_t)kind;
	d.p = m->kinds[kind].p;
	d.bus = (int)m->n_buses - 1;
	d.parent = parent_of(m, indent);
	if (mk_parse_bdf(m, w->v[0], b->domain, &d.addr) < 0 || mk_check_options(m, w, 2, PROP_KEYS) < 0 ||
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
		return mk_bad(m, "unbalanced quote");
	if (!w.n)
		return 0;
	for (const char *p = line; *p == ' ' || *p == '\t'; p++)
		indent += *p == '\t' ? 8 : 1;
	if (indent)
		return st_device(m, &w, indent);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(w.v[0], table[i].word))
			return w.n < table[i].words ? mk_bad(m, "%s: too short", w.v[0]) : table[i].fn(m, &w);
	for (size_t i = 0; i < ARRAY_SIZE(late); i++)
		if (!strcmp(w.v[0], late[i]))
			return st_late(m, line);
	return mk_bad(m, "unknown statement '%s'", w.v[0]);
}

int mk_read_description(struct mk *m, FILE *in)
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
	return m->n_nodes ? 0 : mk_bad(m, "no node");
}
