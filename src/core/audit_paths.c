/* SPDX-License-Identifier: GPL-2.0-or-later */
/* audit_paths.c - the ways by which a VM's function could send to another tenant's: see audit.h.
 *
 * Every pair is judged, and what is wrong is gathered by the port, or the switch, that is to blame: there are thousands of pairs and few ports. */
#include <string.h>

#include "audit_priv.h"
#include "gpuvm/acs.h"

#define ACS_SOURCE   0x01
#define ACS_BLOCK    0x02 /* TransBlk */
#define ACS_REDIRECT 0x0c /* ReqRedir, CmpltRedir */
#define ACS_FORWARD  0x10
#define ACS_EGRESS   0x20

enum weakness {
	WEAK_OFF,     /* bits that it has are off */
	WEAK_MISSING, /* the switch, or root port, has no ACS */
	WEAK_FUNCTIONS, /* of one device, without ACS */
	WEAK_DIRECT,  /* translated requests turn around in the switch */
	SHARED,	      /* nothing: tenants meet at this switch */
};

struct weak {
	enum weakness kind;
	int port;
	bool ats;	 /* one of those who send can do ATS */
	bool *from, *to; /* host->n_funcs: who reaches whom */
};

struct paths {
	struct auditor *x;
	const struct topology *t;
	struct weak *v;
	size_t n, n_pairs;
	bool *hidden;  /* ports whose registers could not be read */
	bool *trusted; /* without ACS, but the kernel vouches for them */
};

static bool *new_set(const struct topology *t)
{
	return xcalloc(t->n_funcs + 1, sizeof(bool));
}

static void note(struct paths *p, enum weakness kind, int port, int a, int b)
{
	struct weak *w = NULL;

	for (size_t i = 0; i < p->n && !w; i++)
		if (p->v[i].kind == kind && p->v[i].port == port)
			w = &p->v[i];
	if (!w) {
		w = PUSH_ZEROED(p->v, p->n);
		*w = (struct weak){ .kind = kind, .port = port, .from = new_set(p->t), .to = new_set(p->t) };
	}
	w->from[a] = w->to[b] = true;
	w->ats |= p->x->funcs[a].ats;
}

static int depth(const struct topology *t, int f)
{
	int n = 0;

	for (; t->funcs[f].parent >= 0; f = t->funcs[f].parent)
		n++;
	return n;
}

/* By which @a's requests come to where its way and that of @b meet: of @a and the ports above it, the last one that @b's way does not have. */
static int way_in(const struct topology *t, int a, int b)
{
	int da = depth(t, a), db = depth(t, b);

	for (; da > db; da--)
		a = t->funcs[a].parent;
	for (; db > da; db--)
		b = t->funcs[b].parent;
	while (t->funcs[a].parent != t->funcs[b].parent) {
		a = t->funcs[a].parent;
		b = t->funcs[b].parent;
	}
	return a;
}

static bool is_off(const struct doctor_func *x, unsigned int bits)
{
	return x->acs_can & bits & ~(unsigned int)x->acs_control;
}

/* With EgressCtrl a table decides, of which nothing is known. */
static bool redirects(const struct doctor_func *x)
{
	return !is_off(x, ACS_REDIRECT) && !(x->acs_control & ACS_EGRESS);
}

/* Two functions of one device. A virtual function is kept apart from its siblings by the device (SR-IOV 1.1), which is said elsewhere. */
static void judge_functions(struct paths *p, int a, int b, int in)
{
	const struct doctor_func *x = &p->x->funcs[in];
	int other = way_in(p->t, b, a);

	if (p->t->funcs[in].is_vf || p->t->funcs[other].is_vf)
		return;
	if (!x->config)
		p->hidden[in] = true;
	else if (x->acs && !redirects(x))
		note(p, WEAK_OFF, in, a, b);
	else if (!x->acs && p->t->funcs[a].iommu_group == p->t->funcs[b].iommu_group)
		note(p, WEAK_FUNCTIONS, in < other ? in : other, a, b);
	else if (!x->acs)
		p->trusted[in] = true; /* a quirk of the kernel knows the device */
}

static bool is_one_device(const struct pci_addr *a, const struct pci_addr *b)
{
	return a->domain == b->domain && a->bus == b->bus && a->dev == b->dev;
}

/* A root port without ACS that is standard: what Linux knows of its maker is in the groups. */
static void judge_root_without(struct paths *p, int a, int b, int port)
{
	if (p->x->override)
		note(p, WEAK_MISSING, port, a, b);
	else
		p->trusted[port] = true;
}

static void judge_redirect(struct paths *p, int a, int b, int in)
{
	const struct doctor_func *x = &p->x->funcs[in];
	int up = p->t->funcs[in].parent;
	bool at_switch = up >= 0 && p->t->funcs[up].is_switch;

	if (up >= 0 && p->t->funcs[up].port == PORT_PCI_BRIDGE) {
		note(p, WEAK_MISSING, up, a, b); /* all on a conventional bus hear all */
		return;
	}
	/* On one link, or on a root bus without a port, which is beside the IOMMU. */
	if (up >= 0 ? !at_switch : p->t->funcs[in].role != ROLE_BRIDGE) {
		if (up >= 0 || is_one_device(&p->t->funcs[in].addr, &p->t->funcs[way_in(p->t, b, a)].addr))
			judge_functions(p, a, b, in);
		return;
	}
	if (!x->config)
		p->hidden[in] = true;
	else if (x->acs && !redirects(x))
		note(p, WEAK_OFF, in, a, b);
	else if (!x->acs && up < 0)
		judge_root_without(p, a, b, in);
	else if (!x->acs)
		note(p, WEAK_MISSING, up, a, b);
	/* Of a root port the IOMMU has the last word on translated requests, with DirectTrans or without. */
	if (at_switch && x->acs && x->acs_control & ACS_DIRECT && !(x->acs_control & ACS_BLOCK))
		note(p, WEAK_DIRECT, in, a, b);
	if (at_switch)
		note(p, SHARED, up, a, b);
}

/* Ports from above @a up to where the ways meet: one that validates the source is enough, as @b is not below it. */
static void judge_source(struct paths *p, int a, int b, int in)
{
	int blame = -1;

	for (int port = p->t->funcs[a].parent; a != in; port = p->t->funcs[port].parent) {
		const struct doctor_func *x = &p->x->funcs[port];

		if (!x->config || (x->acs && !p->t->funcs[port].is_switch && !is_off(x, ACS_SOURCE)))
			return;
		if (x->acs && !p->t->funcs[port].is_switch && blame < 0)
			blame = port;
		if (port == in)
			break;
	}
	if (blame >= 0)
		note(p, WEAK_OFF, blame, a, b);
}

static void judge_forward(struct paths *p, int a, int b, int in)
{
	for (int port = p->t->funcs[in].parent; port >= 0; port = p->t->funcs[port].parent) {
		const struct doctor_func *x = &p->x->funcs[port];
		int up = p->t->funcs[port].parent;

		if (p->t->funcs[port].is_switch || p->t->funcs[port].port == PORT_PCI_BRIDGE)
			continue;
		if (!x->config)
			p->hidden[port] = true;
		else if (x->acs && is_off(x, ACS_FORWARD))
			note(p, WEAK_OFF, port, a, b);
		else if (!x->acs && up < 0)
			judge_root_without(p, a, b, port);
		else if (!x->acs)
			note(p, WEAK_MISSING, up, a, b);
	}
}

static void judge(struct paths *p, int a, int b)
{
	int in = way_in(p->t, a, b);

	p->n_pairs++;
	judge_redirect(p, a, b, in);
	judge_source(p, a, b, in);
	judge_forward(p, a, b, in);
}

/* --- what is said ------------------------------------------------------------------------------------------------------------ */

/* "VM 'a' (...) and VM 'b' (...) reach each other and the host (...)"; owned */
static char *who_reaches_whom(struct paths *p, const struct weak *w)
{
	AUTO_FREE bool *others = new_set(p->t);
	AUTO_FREE char *from = audit_tenants(p->x, w->from), *to = NULL;
	bool mutual = false, any = false, several = false;
	int first = -1;

	for (size_t i = 0; i < p->t->n_funcs; i++) {
		several |= w->from[i] && first >= 0 && p->x->a->owner[i] != first;
		first = w->from[i] ? p->x->a->owner[i] : first;
		others[i] = w->to[i] && !w->from[i];
		any |= others[i];
		mutual |= w->to[i] && w->from[i];
	}
	to = audit_tenants(p->x, others);
	return xasprintf("%s reach%s%s%s%s%s", from, several ? "" : "es", mutual ? " each other" : "", mutual && any ? " and" : "", any ? " " : "",
			 any ? to : "");
}

static const char *bdf_of(const struct paths *p, int func, char buf[PCI_ADDR_STR])
{
	return pci_addr_format(&p->t->funcs[func].addr, buf);
}

static void say_off(struct paths *p, const struct weak *w, const char *who)
{
	const struct doctor_func *x = &p->x->funcs[w->port];
	unsigned int want = (x->acs_control | (x->acs_can & ACS_ISOLATION)) & ~(unsigned int)ACS_EGRESS;
	char bdf[PCI_ADDR_STR], is[ACS_TEXT];

	doctor_add(&p->x->d, "acs-off", DOCTOR_PROBLEM, bdf_of(p, w->port, bdf), "ACSCtl is 0x%02x (%s); 0x%02x is wanted: %s", x->acs_control,
		   acs_text(x->acs_control, is), want, who);
	doctor_fix(&p->x->d, "setpci -s %s ECAP_ACS+0x6.w=0x%02X # until the next boot", bdf, want);
}

static void say_missing(struct paths *p, const struct weak *w, const char *who)
{
	const struct pci_func *f = &p->t->funcs[w->port];
	char bdf[PCI_ADDR_STR];

	doctor_add(&p->x->d, "acs-missing", DOCTOR_PROBLEM, bdf_of(p, w->port, bdf), "%s: %s",
		   f->is_switch			  ? "a downstream port of the switch cannot do ACS"
		   : f->port == PORT_PCI_BRIDGE	  ? "a conventional PCI bus has no ACS"
						  : "the root port cannot do ACS, and pcie_acs_override hides that",
		   who);
	doctor_fix(&p->x->d,
		   "give all that is below it to one VM, and take what the host keeps from its driver (echo BDF >/sys/bus/pci/devices/BDF/driver/unbind)%s",
		   f->is_switch ? "; a newer firmware of the switch may have ACS" : "; or use another slot");
}

static void say_functions(struct paths *p, const struct weak *w, const char *who)
{
	char bdf[PCI_ADDR_STR];

	doctor_add(&p->x->d, "multifunction", DOCTOR_PROBLEM, bdf_of(p, w->port, bdf),
		   "the device has several functions and no ACS between them: %s", who);
	doctor_fix(&p->x->d, "give all functions of the device to one VM");
}

static void say_direct(struct paths *p, const struct weak *w, const char *who)
{
	const struct doctor_func *x = &p->x->funcs[w->port];
	char bdf[PCI_ADDR_STR];

	doctor_add(&p->x->d, "direct-translated", w->ats ? DOCTOR_PROBLEM : DOCTOR_WARNING, bdf_of(p, w->port, bdf),
		   "ACSCtl is 0x%02x: with DirectTrans+, %s by requests that %s translated", x->acs_control, who,
		   w->ats ? "its ATS calls" : "a faulty device calls (it has no ATS)");
	doctor_fix(&p->x->d, "setpci -s %s ECAP_ACS+0x6.w=0x%02X # DirectTrans is for a switch of which one VM has all", bdf,
		   x->acs_control & ~(unsigned int)ACS_DIRECT);
}

/* Does a switch without ACS open what a VM has, or what the host needs? What the host merely drives is said, but refuses no start. */
static bool is_dear(const struct paths *p, const struct weak *w)
{
	for (size_t i = 0; i < p->t->n_funcs; i++)
		if (w->to[i] && (p->x->a->owner[i] >= 0 || p->t->funcs[i].host_use))
			return true;
	return false;
}

static void say_weak(struct paths *p, const struct weak *w)
{
	static void (*const say[])(struct paths *, const struct weak *, const char *) = {
		[WEAK_OFF] = say_off, [WEAK_MISSING] = say_missing, [WEAK_FUNCTIONS] = say_functions, [WEAK_DIRECT] = say_direct
	};
	AUTO_FREE char *who = who_reaches_whom(p, w);
	AUTO_FREE bool *both = new_set(p->t);

	for (size_t i = 0; i < p->t->n_funcs; i++)
		both[i] = w->from[i] || w->to[i];
	say[w->kind](p, w, who);
	audit_concern(p->x, both);
	if (w->kind != WEAK_MISSING || is_dear(p, w))
		audit_refuse(p->x, "isolation-p2p");
}

/* Is anything wrong, or not known, with the ports of this switch? */
static bool is_doubtful(const struct paths *p, int sw)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].kind != SHARED && (p->v[i].port == sw || p->t->funcs[p->v[i].port].parent == sw))
			return true;
	for (size_t i = 0; i < p->t->n_funcs; i++)
		if (p->hidden[i] && p->t->funcs[i].parent == sw)
			return true;
	return false;
}

static void say_shared(struct paths *p, const struct weak *w)
{
	AUTO_FREE bool *both = new_set(p->t);
	AUTO_FREE char *who = NULL;
	char bdf[PCI_ADDR_STR];

	if (is_doubtful(p, w->port))
		return;
	for (size_t i = 0; i < p->t->n_funcs; i++)
		both[i] = w->from[i] || w->to[i];
	who = audit_tenants(p->x, both);
	doctor_add(&p->x->d, "switch-shared", DOCTOR_OK, bdf_of(p, w->port, bdf), "below it are %s: ACS of its downstream ports keeps them apart", who);
	audit_concern(p->x, both);
}

/* "3 ports (a, b, c)"; owned, NULL: none */
static char *list_ports(const struct paths *p, const bool *set)
{
	char *text = NULL, bdf[PCI_ADDR_STR];
	size_t len = 0, n = 0;
	FILE *out = open_memstream(&text, &len);

	for (size_t i = 0; i < p->t->n_funcs; i++)
		if (set[i])
			fprintf(out, "%s%s", n++ ? ", " : "", bdf_of(p, (int)i, bdf));
	fclose(out);
	if (n)
		return text;
	free(text);
	return NULL;
}

static void say_all(struct paths *p)
{
	AUTO_FREE char *hidden = list_ports(p, p->hidden), *trusted = list_ports(p, p->trusted);
	bool weak = false;

	for (size_t i = 0; i < p->n; i++) {
		weak |= p->v[i].kind != SHARED;
		if (p->v[i].kind == SHARED)
			say_shared(p, &p->v[i]);
		else
			say_weak(p, &p->v[i]);
	}
	if (hidden)
		doctor_not_known(&p->x->d, "acs-off", "%s: the configuration space past 64 bytes can be read by root only", hidden);
	if (trusted)
		doctor_not_known(&p->x->d, "acs-missing",
				 "%s: without ACS that is standard. Linux goes by what it knows of the maker, and its groups say what came of that; the registers do not prove it",
				 trusted);
	if (p->n_pairs && !weak && !hidden && !trusted)
		doctor_add(&p->x->d, "acs-off", DOCTOR_OK, "host",
			   "whatever functions of VMs send to those of other tenants goes through the IOMMU: %zu pairs", p->n_pairs);
}

void audit_check_paths(struct auditor *x)
{
	struct paths p = { .x = x, .t = x->host, .hidden = new_set(x->host), .trusted = new_set(x->host) };

	for (size_t a = 0; a < x->host->n_funcs; a++)
		for (size_t b = 0; b < x->host->n_funcs && x->a->owner[a] >= 0; b++)
			if (audit_is_in_use(x, b) && !audit_same_tenant(x, a, b))
				judge(&p, (int)a, (int)b);
	say_all(&p);
	for (size_t i = 0; i < p.n; i++) {
		free(p.v[i].from);
		free(p.v[i].to);
	}
	free(p.v);
	free(p.hidden);
	free(p.trusted);
}
