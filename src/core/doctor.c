/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor.c - see doctor.h. The findings as a list; the checks are in doctor_*.c by what they look at. */
#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "doctor_priv.h"

/* --- facts ------------------------------------------------------------------------------------------------------------- */

void doctor_facts_init(struct doctor_facts *f, const struct topology *host)
{
	*f = (struct doctor_facts){
		.host = host,
		.funcs = xcalloc(host->n_funcs, sizeof(*f->funcs)),
		.uptime_s = -1,
		.interrupt_remapping = -1,
		.unsafe_interrupts = -1,
		.noiommu = -1,
		.dma_entry_limit = -1,
		.kvm_device = -1,
		.cpu_virtualization = -1,
		.hypervisor = -1,
		.kvm_nested = -1,
		.mem_total = -1,
		.mem_available = -1,
		.hugetlb = -1,
		.swap_total = -1,
		.swap_used = -1,
		.page_1g = -1,
		.ksm = -1,
		.numa_balancing = -1,
		.max_map_count = -1,
		.idle_latency_us = -1,
		.latency_limit_us = -1,
		.isolated_known = -1,
		.irqbalance = -1,
		.persistenced = -1,
		.fabric_manager = -1,
		.fm_asked = -1,
		.nvidia_drm = -1,
		.cgroup = -1,
		.memlock = -1,
		.nofile = -1,
		.claims_known = -1,
	};
	for (size_t i = 0; i < host->n_funcs; i++)
		f->funcs[i].aer_fatal = f->funcs[i].aer_nonfatal = f->funcs[i].aer_correctable = f->funcs[i].physfn = -1;
}

void doctor_facts_clear(struct doctor_facts *f)
{
	char *texts[] = { f->qemu_error, f->cmdline,	 f->thp,	   f->idle_driver, f->idle_state, f->smt,  f->governors,
			  f->cpu_model,	 f->microcode, f->nvidia_version, f->fm_version, f->fm_version_error, f->fm_error, f->lockdown,	   f->vendor,	  f->product, f->bios };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		free(texts[i]);
	for (size_t i = 0; f->funcs && i < f->host->n_funcs; i++) {
		free(f->funcs[i].group_type);
		free(f->funcs[i].resets);
	}
	for (size_t i = 0; i < f->n_claims; i++) {
		free(f->claims[i].vm);
		free(f->claims[i].damaged);
	}
	free(f->funcs);
	free(f->claims);
	free(f->bad_absent);
	*f = (struct doctor_facts){ 0 };
}

char *doctor_cmdline_value(const char *cmdline, const char *key)
{
	size_t len = strlen(key);
	char *found = NULL;

	for (const char *s = cmdline; s && *s; s += strcspn(s, " ")) {
		s += strspn(s, " ");
		if (strncmp(s, key, len) || (s[len] != '=' && s[len] != ' ' && s[len]))
			continue;
		free(found);
		found = s[len] == '=' ? xstrndup(s + len + 1, strcspn(s + len + 1, " ")) : xstrdup("");
	}
	return found;
}

/* --- findings ------------------------------------------------------------------------------------------------------------ */

static char *__attribute__((format(printf, 1, 0))) format(const char *fmt, va_list ap)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	vfprintf(f, fmt, ap);
	fclose(f);
	return text;
}

static const struct doctor_code *find_code(const struct doctor *d, const char *word)
{
	const struct doctor_code *code = d->find_code ? d->find_code(word) : doctor_find_code(word);

	assert(code);
	return code;
}

void doctor_add(struct doctor *d, const char *code, enum doctor_severity severity, const char *subject, const char *fmt, ...)
{
	struct doctor_finding *f = PUSH_ZEROED(d->r->v, d->r->n);
	va_list ap;

	f->code = find_code(d, code);
	f->severity = severity;
	f->subject = xstrdup(subject);
	f->fix = xstrdup("");
	va_start(ap, fmt);
	f->text = format(fmt, ap);
	va_end(ap);
	d->r->count[severity]++;
}

void doctor_fix(struct doctor *d, const char *fmt, ...)
{
	struct doctor_finding *f = &d->r->v[d->r->n - 1];
	va_list ap;

	free(f->fix);
	va_start(ap, fmt);
	f->fix = format(fmt, ap);
	va_end(ap);
}

void doctor_not_known(struct doctor *d, const char *code, const char *fmt, ...)
{
	struct doctor_unknown *u = PUSH_ZEROED(d->r->unknown, d->r->n_unknown);
	va_list ap;

	u->code = find_code(d, code);
	va_start(ap, fmt);
	u->why = format(fmt, ap);
	va_end(ap);
}

/* The order in which they were found is kept within a code. */
static int by_code(const void *pa, const void *pb)
{
	const struct doctor_finding *a = *(const struct doctor_finding *const *)pa, *b = *(const struct doctor_finding *const *)pb;

	if (a->code != b->code)
		return a->code < b->code ? -1 : 1;
	return a < b ? -1 : a > b;
}

void doctor_sort_findings(struct doctor_report *r)
{
	AUTO_FREE struct doctor_finding **order = xcalloc(r->n, sizeof(struct doctor_finding *));
	struct doctor_finding *v = xcalloc(r->n, sizeof(*v));

	for (size_t i = 0; i < r->n; i++)
		order[i] = &r->v[i];
	if (r->n)
		qsort(order, r->n, sizeof(struct doctor_finding *), by_code);
	for (size_t i = 0; i < r->n; i++)
		v[i] = *order[i];
	free(r->v);
	r->v = v;
}

/* --- where the GPUs are ------------------------------------------------------------------------------------------------ */

static void mark_path(struct doctor *d, int func, bool direct)
{
	size_t n = topology_path(d->host, func, NULL, 0);
	AUTO_FREE int *path = xcalloc(n, sizeof(*path));

	topology_path(d->host, func, path, n);
	for (size_t i = 0; i < n; i++) {
		d->places[path[i]].path = true;
		d->places[path[i]].direct |= direct;
	}
}

/* A NIC or a drive of the same switch as the GPU, or of stacked ones. */
static void mark_neighbours(struct doctor *d, int gpu)
{
	bool nic = false;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		const struct pci_func *f = &d->host->funcs[i];

		if ((f->role != ROLE_NIC && f->role != ROLE_NVME) || f->is_vf || topology_relation(d->host, gpu, (int)i) > REL_PXB)
			continue;
		d->places[i].near = true;
		nic |= f->role == ROLE_NIC;
		mark_path(d, (int)i, f->role == ROLE_NIC);
	}
	mark_path(d, gpu, nic);
}

void doctor_find_places(const struct doctor_facts *f, struct doctor *ret)
{
	*ret = (struct doctor){ .f = f, .host = f->host, .places = xcalloc(f->host->n_funcs, sizeof(*ret->places)) };
	for (size_t i = 0; i < f->host->n_funcs; i++)
		ret->places[i].gpu = f->host->funcs[i].role == ROLE_GPU && !f->host->funcs[i].is_vf;
	for (size_t i = 0; i < f->host->n_funcs; i++) {
		if (!ret->places[i].gpu)
			continue;
		ret->n_gpus++;
		mark_neighbours(ret, (int)i);
	}
}

void doctor_check(const struct doctor_facts *f, struct doctor_report *ret)
{
	struct doctor_report r = { 0 };
	struct doctor d;

	doctor_find_places(f, &d);
	d.r = &r;
	doctor_check_iommu(&d);
	doctor_check_gpus(&d);
	doctor_check_acs(&d);
	doctor_check_pci(&d);
	doctor_check_memory(&d);
	doctor_check_cpus(&d);
	doctor_check_software(&d);
	doctor_check_records(&d);
	doctor_sort_findings(&r);
	free(d.places);
	*ret = r;
}

void doctor_finding_clear(struct doctor_finding *f)
{
	free(f->subject);
	free(f->text);
	free(f->fix);
	strv_clear(&f->vms);
	strv_clear(&f->devices);
}

void doctor_report_clear(struct doctor_report *r)
{
	for (size_t i = 0; i < r->n; i++)
		doctor_finding_clear(&r->v[i]);
	for (size_t i = 0; i < r->n_unknown; i++)
		free(r->unknown[i].why);
	free(r->v);
	free(r->unknown);
	*r = (struct doctor_report){ 0 };
}
