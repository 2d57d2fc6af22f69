/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "gpuvm/acs.h"
#include "gpuvm/affinity.h"
#include "gpuvm/irq.h"
#include "gpuvm/verify.h"

#define QMP_TIMEOUT_MS 30000
#define PCI_RETRY_MS   250

static struct verify_row *row_add(struct verify_report *rep, bool ok, char *what, char *planned, char *actual)
{
	struct verify_row *r = PUSH_ZEROED(rep->rows, rep->n);

	*r = (struct verify_row){ .what = what, .planned = planned, .actual = actual, .ok = ok };
	rep->n_bad += !ok;
	return r;
}

void verify_clear(struct verify_report *rep)
{
	for (size_t i = 0; i < rep->n; i++) {
		free(rep->rows[i].what);
		free(rep->rows[i].planned);
		free(rep->rows[i].actual);
	}
	free(rep->rows);
	*rep = (struct verify_report){ 0 };
}

const struct verify_row *verify_first_bad(const struct verify_report *rep)
{
	for (size_t i = 0; i < rep->n; i++)
		if (!rep->rows[i].ok)
			return &rep->rows[i];
	return NULL;
}

/* --- threads -------------------------------------------------------------------------------------------- */

static const struct thread_info *find_thread(const struct thread_info *t, size_t n, int tid)
{
	for (size_t i = 0; i < n; i++)
		if (t[i].tid == tid)
			return &t[i];
	return NULL;
}

/* A thread may run on @want only; an empty @want: anywhere. */
static void thread_row(struct verify_report *rep, char *what, const struct thread_info *t, const struct cpuset *want)
{
	AUTO_FREE char *cpus = cpuset_format(want), *has = t ? cpuset_format(&t->cpus) : NULL;
	bool any = cpuset_empty(want);

	row_add(rep, t && (any || cpuset_equal(&t->cpus, want)), what, any ? xstrdup("not pinned") : xasprintf("CPUs %s", cpus),
		has ? xasprintf("CPUs %s", has) : xstrdup("no such thread"));
}

/* As many as the plan has; owned. */
static int ask_vcpus(const struct plan *p, struct qmp *q, pid_t **ret, struct verify_report *rep, struct err *e)
{
	AUTO_FREE struct qmp_vcpu *v = NULL;
	size_t n = 0;
	int r = qmp_query_vcpus(q, &v, &n, e);

	if (r < 0)
		return r;
	*ret = xcalloc(p->n_vcpus + 1, sizeof(**ret));
	for (size_t i = 0; i < p->n_vcpus; i++)
		(*ret)[i] = i < n ? v[i].tid : -1;
	if (n != p->n_vcpus)
		row_add(rep, false, xstrdup("vCPUs"), xasprintf("%zu", p->n_vcpus), xasprintf("%zu", n));
	return 0;
}

static void verify_vcpus(const struct plan *p, const pid_t *vcpus, const struct thread_info *t, size_t n, struct cpuset *seen, struct verify_report *rep)
{
	for (size_t i = 0; i < p->n_vcpus; i++) {
		struct cpuset want = { 0 };
		pid_t tid = vcpus[i];

		cpuset_add(&want, p->vcpus[i].host_cpu);
		for (size_t k = 0; k < n; k++)
			if (t[k].tid == tid)
				cpuset_add(seen, (int)k);
		thread_row(rep, xasprintf("vCPU %zu", i), find_thread(t, n, tid), &want);
	}
}

static int verify_iothreads(const struct plan *p, struct qmp *q, const struct thread_info *t, size_t n, struct cpuset *seen,
			    struct verify_report *rep, struct err *e)
{
	AUTO_FREE struct qmp_iothread *io = NULL;
	size_t n_io = 0;
	int r = p->n_iothreads ? qmp_query_iothreads(q, &io, &n_io, e) : 0;

	if (r < 0)
		return r;
	for (size_t i = 0; i < p->n_iothreads; i++) {
		int tid = -1;

		for (size_t k = 0; k < n_io; k++)
			if (strcmp(io[k].id, p->iothreads[i].id) == 0)
				tid = io[k].tid;
		for (size_t k = 0; k < n; k++)
			if (t[k].tid == tid)
				cpuset_add(seen, (int)k);
		thread_row(rep, xasprintf("I/O thread %s", p->iothreads[i].id), find_thread(t, n, tid), &p->iothreads[i].host_cpus);
	}
	return 0;
}

int verify_threads(const struct plan *p, pid_t pid, struct qmp *q, const pid_t *vcpus, struct verify_report *rep, struct err *e)
{
	AUTO_FREE struct thread_info *t = NULL;
	AUTO_FREE pid_t *asked = NULL;
	struct cpuset seen = { 0 }; /* positions in t */
	size_t n = 0;
	int r = affinity_threads(pid, &t, &n, e);

	/* It looks through all processes, thousands on a large machine. */
	if (r == 0 && plan_has_vhost(p))
		r = affinity_add_vhost(pid, &t, &n, e);
	if (r == 0 && !vcpus)
		r = ask_vcpus(p, q, &asked, rep, e);
	if (r == 0)
		verify_vcpus(p, vcpus ? vcpus : asked, t, n, &seen, rep);
	if (r == 0)
		r = verify_iothreads(p, q, t, n, &seen, rep, e);
	for (size_t i = 0; i < n && r == 0; i++)
		if (!cpuset_has(&seen, (int)i))
			thread_row(rep, xasprintf("thread %s", t[i].name), &t[i], &p->emulator);
	return r;
}

/* --- memory ---------------------------------------------------------------------------------------------- */

struct node_pages {
	uint64_t right, wrong; /* bytes on the planned node, and elsewhere */
	bool found;
};

/* A guest node's memory is the mapping with its size and its policy. */
static struct node_pages count_pages(const struct plan_node *node, const struct numa_mapping *m, size_t n)
{
	AUTO_FREE char *policy = xasprintf("bind:%d", node->host_node);
	struct node_pages np = { 0 };

	for (size_t i = 0; i < n; i++) {
		if (m[i].bytes != node->memory_bytes || strcmp(m[i].policy, policy) != 0)
			continue;
		np.found = true;
		for (size_t k = 0; k < ARRAY_SIZE(m[i].pages); k++) {
			if ((int)k == node->host_node)
				np.right += m[i].pages[k] * m[i].page_bytes;
			else
				np.wrong += m[i].pages[k] * m[i].page_bytes;
		}
	}
	return np;
}

static void memory_row(struct verify_report *rep, const struct plan_node *node, const struct node_pages *np)
{
	char planned[32], here[32], there[32];
	bool all = !node->prealloc || np->right == node->memory_bytes;
	char *actual;

	format_size(node->memory_bytes, planned);
	format_size(np->right, here);
	if (!np->found)
		actual = xstrdup("no mapping of that size and policy");
	else if (np->wrong)
		actual = xasprintf("%s there, %s on other nodes", here, format_size(np->wrong, there));
	else
		actual = xasprintf("%s there, none elsewhere", here);
	row_add(rep, np->found && !np->wrong && all, xasprintf("memory of guest node %d", node->guest_node),
		xasprintf("%s on host node %d%s", planned, node->host_node, node->prealloc ? "" : ", as it is used"), actual);
}

static bool all_found(const struct plan *p, const struct numa_mapping *m, size_t n)
{
	for (size_t i = 0; i < p->n_nodes; i++)
		if (!count_pages(&p->nodes[i], m, n).found)
			return false;
	return true;
}

/* The guest's memory stands before QEMU's libraries, with their thousands of pages that would have to be looked at. Where it does not, all is read. */
int verify_memory(const struct plan *p, pid_t pid, struct verify_report *rep, struct err *e)
{
	AUTO_FREE struct numa_mapping *m = NULL;
	size_t n = 0;
	int r = affinity_numa_maps(pid, "bind:", p->n_nodes, &m, &n, e);

	if (r == 0 && !all_found(p, m, n)) {
		free(m);
		m = NULL;
		r = affinity_numa_maps(pid, "bind:", 0, &m, &n, e);
	}
	for (size_t i = 0; i < p->n_nodes && r == 0; i++) {
		struct node_pages np = count_pages(&p->nodes[i], m, n);

		memory_row(rep, &p->nodes[i], &np);
	}
	return r;
}

/* --- devices ------------------------------------------------------------------------------------------------ */

/* One row for all interrupts of a device; none where the guest has not turned them on, or where they may go anywhere. */
static void irq_row(const struct plan_device *d, const struct sysfs *s, const struct irq *v, size_t n, struct verify_report *rep)
{
	AUTO_FREE char *want = cpuset_format(&d->irq_cpus), *wrong = NULL;
	int there = 0, elsewhere = 0;

	for (size_t i = 0; i < n && *want; i++) {
		struct cpuset now = { 0 };
		struct err gone;

		if (pci_addr_cmp(&v[i].dev, &d->addr) != 0 || irq_cpus(s, v[i].nr, &now, &gone) < 0)
			continue;
		if (cpuset_subset(&now, &d->irq_cpus)) {
			there++;
		} else if (!elsewhere++) {
			AUTO_FREE char *list = cpuset_format(&now);

			wrong = xasprintf("interrupt %d on CPUs %s", v[i].nr, list);
		}
	}
	if (there || elsewhere)
		row_add(rep, !elsewhere, xasprintf("interrupts of %s", d->id), xasprintf("CPUs %s", want),
			elsewhere ? xasprintf("%d there, %d not: %s", there, elsewhere, wrong) : xasprintf("all %d there", there));
}

static int verify_interrupts(const struct plan *p, const struct sysfs *s, struct verify_report *rep, struct err *e)
{
	AUTO_FREE struct irq *v = NULL;
	bool any = false;
	size_t n = 0;
	int r;

	for (size_t i = 0; i < p->n_devices; i++)
		any = any || !cpuset_empty(&p->devices[i].irq_cpus);
	r = any ? irq_list(s, &v, &n, e) : 0;
	for (size_t i = 0; i < p->n_devices && r == 0; i++)
		irq_row(&p->devices[i], s, v, n, rep);
	return r;
}

void verify_acs(const struct plan *p, const struct sysfs *s, struct verify_report *rep)
{
	for (size_t i = 0; i < p->n_acs; i++) {
		char bdf[PCI_ADDR_STR];
		uint16_t now = 0;
		struct err e;
		bool read = acs_get(s, &p->acs[i].addr, p->acs[i].offset, &now, &e) == 0;

		row_add(rep, read && now == p->acs[i].to, xasprintf("ACSCtl of %s", pci_addr_format(&p->acs[i].addr, bdf)),
			xasprintf("0x%04x", p->acs[i].to), read ? xasprintf("0x%04x", now) : xstrdup(e.msg));
	}
}

void verify_ats(const struct plan *p, const struct sysfs *s, struct verify_report *rep)
{
	for (size_t i = 0; p->n_acs && i < p->n_devices; i++) {
		const struct plan_device *d = &p->devices[i];
		bool offered = false, on = false;
		struct err e;
		int r = d->role == ROLE_NIC ? acs_get_ats(s, &d->addr, &offered, &on, &e) : 0;

		/* One that does not offer it was a warning of the plan. */
		if (r < 0 || offered)
			row_add(rep, on, xasprintf("ATSCtl of %s", d->id), xstrdup("Enable+"), r < 0 ? xstrdup(e.msg) : xstrdup(on ? "Enable+" : "Enable-"));
	}
}

int verify_devices(const struct plan *p, const struct sysfs *s, struct verify_report *rep, struct err *e)
{
	for (size_t i = 0; i < p->n_devices && !p->fake_devices; i++) {
		const struct plan_device *d = &p->devices[i];
		char bdf[PCI_ADDR_STR];
		AUTO_FREE char *driver = NULL, *group = NULL, *want_group = xasprintf("%d", d->iommu_group);

		pci_addr_format(&d->addr, bdf);
		driver = sysfs_link_name(s, "/sys/bus/pci/devices/%s/driver", bdf);
		group = sysfs_link_name(s, "/sys/bus/pci/devices/%s/iommu_group", bdf);
		row_add(rep, driver && strncmp(driver, "vfio", 4) == 0 && group && strcmp(group, want_group) == 0, xasprintf("%s %s", d->id, bdf),
			xasprintf("vfio-pci, group %d", d->iommu_group), xasprintf("%s, group %s", driver ? driver : "no driver", group ? group : "none"));
	}
	verify_acs(p, s, rep);
	verify_ats(p, s, rep);
	return p->fake_devices ? 0 : verify_interrupts(p, s, rep, e);
}

/* --- the guest's PCI tree --------------------------------------------------------------------------------------- */

static const struct qmp_pci *find_pci(const struct qmp_pci *v, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].qdev_id, id) == 0)
			return &v[i];
	return NULL;
}

static int unmapped_bars(const struct qmp_pci *f)
{
	int n = 0;

	for (int i = 0; i < f->n_bars; i++)
		n += f->bars[i].memory && f->bars[i].address == UINT64_MAX;
	return n;
}

static int memory_bars(const struct qmp_pci *f)
{
	int n = 0;

	for (int i = 0; i < f->n_bars; i++)
		n += f->bars[i].memory;
	return n;
}

static const char *port_above(const struct qmp_pci *v, const struct qmp_pci *f)
{
	return f->parent >= 0 ? v[f->parent].qdev_id : "no port";
}

static bool pci_is_as_planned(const struct plan_device *d, const struct qmp_pci *v, const struct qmp_pci *f)
{
	return f && f->bus == d->guest_bus_nr && strcmp(port_above(v, f), d->guest_port) == 0 && unmapped_bars(f) == 0;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static bool all_as_planned(const struct plan *p, const struct qmp_pci *v, size_t n)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (!pci_is_as_planned(&p->devices[i], v, find_pci(v, n, p->devices[i].id)))
			return false;
	return true;
}

/* What the BARs of the VM's devices above 4 GiB span. False: there are none. */
static bool span_of_bars(const struct plan *p, const struct qmp_pci *v, size_t n, uint64_t *ret_first, uint64_t *ret_end)
{
	*ret_first = UINT64_MAX;
	*ret_end = 0;
	for (size_t i = 0; i < p->n_devices; i++) {
		const struct qmp_pci *f = find_pci(v, n, p->devices[i].id);

		for (int b = 0; f && b < f->n_bars; b++) {
			uint64_t at = f->bars[b].address;

			if (!f->bars[b].memory || at == UINT64_MAX || at >> 32 == 0)
				continue;
			*ret_first = at < *ret_first ? at : *ret_first;
			*ret_end = at + f->bars[b].bytes > *ret_end ? at + f->bars[b].bytes : *ret_end;
		}
	}
	return *ret_end > 0;
}

/* Firmware may go beyond what it was told, and beyond what the CPU can address: the guest finds nothing there. */
static void window_row(const struct plan *p, const struct qmp_pci *v, size_t n, struct verify_report *rep)
{
	uint64_t first, end, limit;
	bool any = span_of_bars(p, v, n, &first, &end);
	char size[32], *planned;

	if (!p->mmio64_bytes)
		return;
	limit = p->address_bits && p->address_bits < 64 ? UINT64_C(1) << p->address_bits : UINT64_MAX;
	planned = limit == UINT64_MAX ? xstrdup(format_size(p->mmio64_bytes, size))
				      : xasprintf("%s, below 2^%d", format_size(p->mmio64_bytes, size), p->address_bits);
	row_add(rep, any && end - first <= p->mmio64_bytes && end <= limit, xstrdup("64-bit window"), planned,
		any ? xasprintf("BARs from 0x%" PRIx64 " to 0x%" PRIx64, first, end) : xstrdup("no BAR above 4 GiB"));
}

static void pci_rows(const struct plan *p, const struct qmp_pci *v, size_t n, struct verify_report *rep)
{
	for (size_t i = 0; i < p->n_devices; i++) {
		const struct plan_device *d = &p->devices[i];
		const struct qmp_pci *f = find_pci(v, n, d->id);
		char *actual = f ? xasprintf("bus %02x below %s, %d of %d BARs mapped", (unsigned int)f->bus, port_above(v, f),
					     memory_bars(f) - unmapped_bars(f), memory_bars(f))
				 : xstrdup("not in the guest");

		row_add(rep, pci_is_as_planned(d, v, f), xasprintf("%s in the guest", d->id),
			xasprintf("bus %02x below %s, every BAR mapped", (unsigned int)d->guest_bus_nr, d->guest_port), actual);
	}
	window_row(p, v, n, rep);
}

int verify_guest_pci(const struct plan *p, struct qmp *q, uint64_t timeout_ms, struct verify_report *rep, struct err *e)
{
	const struct timespec pause = { .tv_nsec = PCI_RETRY_MS * 1000000L };
	uint64_t deadline = now_ms() + timeout_ms;

	for (;;) {
		AUTO_FREE struct qmp_pci *v = NULL;
		size_t n = 0;
		int r = qmp_query_pci(q, &v, &n, e);

		if (r < 0)
			return r;
		if (all_as_planned(p, v, n) || now_ms() >= deadline) {
			pci_rows(p, v, n, rep);
			return 0;
		}
		nanosleep(&pause, NULL);
	}
}

/* --- printing ------------------------------------------------------------------------------------------------------ */

void verify_print(const struct verify_report *rep, bool only_bad, FILE *out)
{
	int what = 4, planned = 7, actual = 6;

	for (size_t i = 0; i < rep->n; i++) {
		what = (int)strlen(rep->rows[i].what) > what ? (int)strlen(rep->rows[i].what) : what;
		planned = (int)strlen(rep->rows[i].planned) > planned ? (int)strlen(rep->rows[i].planned) : planned;
		actual = (int)strlen(rep->rows[i].actual) > actual ? (int)strlen(rep->rows[i].actual) : actual;
	}
	fprintf(out, "%-*s  %-*s  %-*s  %s\n", what, "what", planned, "planned", actual, "actual", "ok");
	for (size_t i = 0; i < rep->n; i++) {
		const struct verify_row *r = &rep->rows[i];

		if (!only_bad || !r->ok)
			fprintf(out, "%-*s  %-*s  %-*s  %s\n", what, r->what, planned, r->planned, actual, r->actual, r->ok ? "ok" : "NO");
	}
	fprintf(out, "%zu checked, %zu not as planned\n", rep->n, rep->n_bad);
}

struct json_object *verify_to_json(const struct verify_report *rep, const char *vm)
{
	struct json_object *o = json_object_new_object(), *rows = json_object_new_array();

	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "vm", json_object_new_string(vm));
	json_object_object_add(o, "ok", json_object_new_boolean(rep->n_bad == 0));
	for (size_t i = 0; i < rep->n; i++) {
		struct json_object *r = json_object_new_object();

		json_object_object_add(r, "what", json_object_new_string(rep->rows[i].what));
		json_object_object_add(r, "planned", json_object_new_string(rep->rows[i].planned));
		json_object_object_add(r, "actual", json_object_new_string(rep->rows[i].actual));
		json_object_object_add(r, "ok", json_object_new_boolean(rep->rows[i].ok));
		json_object_array_add(rows, r);
	}
	json_object_object_add(o, "rows", rows);
	return o;
}
