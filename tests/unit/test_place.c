/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Placing CPUs, memory and devices on machines built by hand: what no fixture has. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "gpuvm/nccl.h"
#include "gpuvm/plan.h"
#include "tests/fake/fakeqemu.h"

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)

#define H200       0x10de2335
#define CX7        0x15b31021
#define SWITCH     0x1000c030
#define CLASS_GPU  0x030200
#define CLASS_NIC  0x020700
#define CLASS_NVME 0x010802
#define CLASS_PORT 0x060400

/* --- a machine by hand ------------------------------------------------------------------------------ */

/* @cores cores of @threads CPUs; SMT siblings are numbered next to each other; @l3 cores share an L3. Memory in plain pages. */
static void add_node(struct topology *t, int socket, int cores, int threads, int l3, uint64_t mem_bytes)
{
	struct host_node *n = PUSH_ZEROED(t->nodes, t->n_nodes);
	int first = t->n_cpus ? t->cpus[t->n_cpus - 1].core + 1 : 0;

	n->id = (int)t->n_nodes - 1;
	n->socket = socket;
	n->mem_bytes = n->free_bytes = mem_bytes;
	for (int i = 0; i < cores * threads; i++) {
		struct host_cpu *c = PUSH_ZEROED(t->cpus, t->n_cpus);

		*c = (struct host_cpu){ .cpu = (int)t->n_cpus - 1,
					.node = n->id,
					.socket = socket,
					.core = first + i / threads,
					.l3 = (first + i / threads) / l3 };
		cpuset_add(&n->cpus, c->cpu);
		cpuset_add(&t->allowed, c->cpu);
	}
}

static void add_pool(struct topology *t, int node, uint64_t page, uint64_t total, uint64_t free_pages)
{
	struct host_node *n = &t->nodes[node];

	n->pools[n->n_pools++] = (struct hugepage_pool){ .page_bytes = page, .total = total, .free = free_pages };
}

static void add_distances(struct topology *t, int node, int other)
{
	t->nodes[node].distances = xcalloc(t->n_nodes, sizeof(int));
	for (size_t i = 0; i < t->n_nodes; i++)
		t->nodes[node].distances[i] = (int)i == node ? 10 : other;
}

/* CPUs that went offline. */
static void remove_cpu(struct topology *t, int cpu)
{
	for (size_t i = 0; i < t->n_cpus; i++) {
		if (t->cpus[i].cpu != cpu)
			continue;
		cpuset_del(&t->nodes[t->cpus[i].node].cpus, cpu);
		memmove(&t->cpus[i], &t->cpus[i + 1], (t->n_cpus - i - 1) * sizeof(*t->cpus));
		t->n_cpus--;
		return;
	}
}

/* On the next bus number; @parent -1: on a host bridge of its own. Returns its index. */
static int add_func(struct topology *t, int parent, int node, uint32_t class_code, uint32_t ids, uint64_t bar)
{
	struct pci_func *f = PUSH_ZEROED(t->funcs, t->n_funcs);
	int n = (int)t->n_funcs - 1;

	f->addr = (struct pci_addr){ .domain = (uint32_t)n / 256, .bus = (uint8_t)(n % 256) };
	f->parent = parent;
	f->class_code = class_code;
	f->vendor = (uint16_t)(ids >> 16);
	f->device = (uint16_t)ids;
	f->sysfs_node = node;
	f->local_node = -1;
	f->iommu_group = n;
	f->link.max_mts = 32000;
	f->link.max_width = 16;
	if (parent >= 0)
		memcpy(f->root_bus, t->funcs[parent].root_bus, sizeof(f->root_bus));
	else
		snprintf(f->root_bus, sizeof(f->root_bus), "%04x:%02x", (unsigned int)n / 256, (unsigned int)n % 256);
	if (bar)
		f->bars[0] = (struct pci_bar){ .start = 0x1000, .bytes = bar, .flags = 0x142200 };
	return n;
}

/* A root port and a switch below it; returns the upstream port. */
static int add_switch(struct topology *t, int node)
{
	int up = add_func(t, add_func(t, -1, node, CLASS_PORT, SWITCH, 0), node, CLASS_PORT, SWITCH, 0);

	t->funcs[up - 1].port = PORT_ROOT;
	t->funcs[up].port = PORT_UPSTREAM;
	return up;
}

static int add_below(struct topology *t, int up, int node, uint32_t class_code, uint32_t ids, uint64_t bar)
{
	int dn = add_func(t, up, node, CLASS_PORT, SWITCH, 0);

	t->funcs[dn].port = PORT_DOWNSTREAM;
	return add_func(t, dn, node, class_code, ids, bar);
}

static void finish(struct topology *t)
{
	snprintf(t->cpu_vendor, sizeof(t->cpu_vendor), "GenuineIntel");
	t->kvm = t->vfio = t->iommu_groups = true;
	topology_finish(t);
}

/* --- a plan --------------------------------------------------------------------------------------------- */

struct result {
	struct vm_config vm;
	struct plan p;
	struct problems ps;
	int r;
};

static struct result plan_for_qemu(const struct topology *t, const char *text, const char *version, bool ovmf)
{
	struct result res = { 0 };
	struct qemu_info q = fake_qemu(version);
	struct plan_request req = {
		.vm = &res.vm, .host = t, .qemu = &q, .rundir = "/run/gpuvm/x", .statedir = "/var/lib/gpuvm"
	};
	AUTO_FREE char *whole = xasprintf("[vm]\nname = x\n%s", text);

	q.ovmf_code = ovmf ? (char *)"/code.fd" : NULL;
	q.ovmf_vars = ovmf ? (char *)"/vars.fd" : NULL;
	res.r = config_parse("x.ini", whole, strlen(whole), NULL, &res.vm, &res.ps);
	if (res.r == 0)
		res.r = plan_make(&req, &res.p, &res.ps);
	return res;
}

static struct result plan_for(const struct topology *t, const char *text)
{
	return plan_for_qemu(t, text, "7.2", false);
}

static void result_clear(struct result *r)
{
	plan_clear(&r->p);
	config_clear(&r->vm);
	problems_clear(&r->ps);
}

static void must_work(const struct result *r)
{
	if (r->r < 0)
		problems_print(&r->ps, stderr);
	cr_assert(r->r == 0);
}

static void must_fail(const struct result *r, const char *code, const char *hint)
{
	cr_assert(r->r < 0, "it was planned, but %s was expected", code);
	for (size_t i = 0; i < r->ps.n; i++) {
		if (strcmp(r->ps.v[i].code, code) != 0)
			continue;
		cr_assert(!hint || (r->ps.v[i].hint && strstr(r->ps.v[i].hint, hint)), "%s: the hint is '%s', not '%s'",
			  r->ps.v[i].message, r->ps.v[i].hint, hint);
		return;
	}
	problems_print(&r->ps, stderr);
	cr_assert_fail("no %s among the problems", code);
}

static const char *warning(const struct plan *p, const char *code)
{
	for (size_t i = 0; i < p->n_warnings; i++)
		if (strcmp(p->warnings[i].code, code) == 0)
			return p->warnings[i].text;
	return NULL;
}

static const char *reason(const struct plan *p, const char *what)
{
	for (size_t i = 0; i < p->n_reasons; i++)
		if (strcmp(p->reasons[i].what, what) == 0)
			return p->reasons[i].text;
	return NULL;
}

static bool has_arg(const struct plan *p, const char *part)
{
	for (size_t i = 0; i < p->n_args; i++)
		if (p->args[i].value && strstr(p->args[i].value, part))
			return true;
	return false;
}

static void cpus_are(const struct plan *p, const char *list)
{
	struct cpuset set = { 0 };
	AUTO_FREE char *text = NULL;

	for (size_t i = 0; i < p->n_vcpus; i++)
		cpuset_add(&set, p->vcpus[i].host_cpu);
	text = cpuset_format(&set);
	cr_assert_str_eq(text, list);
}

/* --- CPUs ------------------------------------------------------------------------------------------------- */

/* One node of 8 cores x 2 threads in two L3s, CPUs 0-15, and a GPU. */
static void small_machine(struct topology *t)
{
	add_node(t, 0, 8, 2, 4, 64 * GIB);
	add_func(t, -1, 0, CLASS_GPU, H200, 256 * MIB);
	finish(t);
}

static const char one_gpu[] = "[place]\ngpus = 1\nnics = none\nnvme = none\n";

static struct result small_plan(struct topology *t, const char *more)
{
	AUTO_FREE char *text = xasprintf("%s%s", one_gpu, more);

	return plan_for(t, text);
}

Test(place, whole_cores_with_both_threads)
{
	struct topology t = { 0 };
	struct result r;

	small_machine(&t);
	r = small_plan(&t, "");
	must_work(&r);
	cpus_are(&r.p, "2-15");
	cr_assert(r.p.smp_threads == 2 && r.p.smp_cores == 7);
	cr_assert(strstr(reason(&r.p, "threads"), "SMT siblings"));
	result_clear(&r);
	topology_clear(&t);
}

Test(place, an_offline_sibling_makes_single_threads)
{
	struct topology t = { 0 };
	struct result r;

	small_machine(&t);
	remove_cpu(&t, 7);
	cpuset_del(&t.allowed, 7);
	r = small_plan(&t, "");
	must_work(&r);
	cr_assert(r.p.smp_threads == 1 && r.p.n_vcpus == 7);
	cpus_are(&r.p, "2,4,6,8,10,12,14");
	cr_assert(strstr(reason(&r.p, "threads"), "offline"));
	result_clear(&r);
	r = small_plan(&t, "[cpu]\nthreads = 2\nvcpus = 4\n");
	must_fail(&r, "bad-value", NULL);
	result_clear(&r);
	topology_clear(&t);
}

Test(place, stays_inside_the_inherited_cpus)
{
	struct topology t = { 0 };
	struct result r;

	small_machine(&t);
	t.allowed = (struct cpuset){ 0 };
	for (int i = 4; i < 12; i++)
		cpuset_add(&t.allowed, i);
	r = small_plan(&t, "");
	must_work(&r);
	cpus_are(&r.p, "6-11");
	cr_assert(cpuset_subset(&r.p.emulator, &t.allowed));
	cr_assert(cpuset_subset(&r.p.nodes[0].prealloc_cpus, &t.allowed));
	result_clear(&r);
	r = small_plan(&t, "[cpu]\npin = 0-3\n");
	must_fail(&r, "cpu-not-allowed", NULL);
	result_clear(&r);
	topology_clear(&t);
}

Test(place, keeps_l3_together)
{
	static const struct {
		const char *vcpus, *cpus;
	} rows[] = {
		{ "8", "8-15" }, /* all of the second L3: the first has a core reserved */
		{ "6", "2-7" },  /* the smallest that holds it */
		{ "2", "2-3" },
		{ "10", "2-3,8-15" }, /* one whole, the rest of the other */
	};
	struct topology t = { 0 };

	small_machine(&t);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *more = xasprintf("[cpu]\nvcpus = %s\n", rows[i].vcpus);
		struct result r = small_plan(&t, more);

		must_work(&r);
		cpus_are(&r.p, rows[i].cpus);
		result_clear(&r);
	}
	topology_clear(&t);
}

Test(place, says_how_many_vcpus_would_fit)
{
	struct topology t = { 0 };
	struct result r;

	small_machine(&t);
	r = small_plan(&t, "[cpu]\nvcpus = 20\n");
	must_fail(&r, "cpus-short", "vcpus = 14 would fit");
	result_clear(&r);
	r = small_plan(&t, "[cpu]\nvcpus = 14\n");
	must_work(&r);
	result_clear(&r);
	topology_clear(&t);
}

Test(place, reports_nohz_full)
{
	struct topology t = { 0 };
	struct result r;

	small_machine(&t);
	for (int i = 4; i < 8; i++)
		t.cpus[i].nohz_full = true;
	r = small_plan(&t, "[cpu]\npin = 6-9\n");
	must_work(&r);
	cr_assert(strstr(reason(&r.p, "nohz_full"), "2 of the 4 CPUs"));
	result_clear(&r);
	topology_clear(&t);
}

Test(place, reports_isolated_cpus)
{
	struct topology t = { 0 };
	struct result r;

	small_machine(&t);
	for (int i = 2; i < 16; i++)
		t.cpus[i].isolated = true;
	r = small_plan(&t, "");
	must_work(&r);
	cr_assert(strstr(reason(&r.p, "isolated"), "isolcpus"));
	cr_assert(!reason(&r.p, "nohz_full"));
	cr_assert(!warning(&r.p, "cpus-isolated"));
	result_clear(&r);
	t.cpus[4].isolated = false;
	r = small_plan(&t, "");
	must_work(&r);
	cr_assert(strstr(warning(&r.p, "cpus-isolated"), "13 of the vCPUs' CPUs are isolated"));
	result_clear(&r);
	r = small_plan(&t, "[cpu]\npin = 8-9\nemulator = 2-3\n");
	must_work(&r);
	cr_assert(strstr(warning(&r.p, "cpus-isolated"), "QEMU's own threads"));
	result_clear(&r);
	topology_clear(&t);
}

/* pc-q35 takes 288, 1024 or 4096 by its version; past APIC ID 254 x2APIC is needed. */
Test(place, vcpu_limits)
{
	static const struct {
		int nodes, cores;
		const char *qemu, *more, *code, *hint, *arg;
		size_t vcpus;
	} rows[] = {
		{ 1, 128, "7.2", "accel = kvm", NULL, NULL, "q35,accel=kvm", 246 },
		{ 1, 160, "7.2", "accel = kvm", NULL, NULL, "kernel-irqchip=split", 288 }, /* 308 would be its share */
		{ 1, 160, "10.0", "machine = pc-q35-8.1\naccel = kvm", NULL, NULL, "kernel-irqchip=split", 308 },
		{ 1, 160, "7.2", "accel = kvm\n[cpu]\nvcpus = 300", "vcpus-too-many", "vcpus = 288", NULL, 0 },
		{ 1, 160, "10.0", "machine = pc-q35-8.0\naccel = kvm\n[cpu]\nvcpus = 300", "vcpus-too-many", "vcpus = 288; pc-q35-10.0 takes 4096", NULL, 0 },
		{ 1, 160, "10.0", "accel = kvm\n[cpu]\nvcpus = 300", NULL, NULL, "kernel-irqchip=split", 300 },
		{ 1, 160, "7.2", "accel = tcg\n[cpu]\nvcpus = 256", "vcpus-too-many", "use KVM", NULL, 0 },
		{ 1, 160, "10.0", "accel = tcg\n[cpu]\nvcpus = 256", NULL, NULL, "q35,accel=tcg", 256 },
		/* Three sockets of 40 cores: IDs 0-79, 128-207, 256-335, although there are only 240. */
		{ 3, 42, "7.2", "accel = kvm\n[cpu]\nvcpus = 240", NULL, NULL, "kernel-irqchip=split", 240 },
		{ 2, 64, "7.2", "accel = kvm\n[cpu]\nvcpus = 240", NULL, NULL, "q35,accel=kvm", 240 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct topology t = { 0 };
		AUTO_FREE char *text =
			xasprintf("%s\n[place]\ngpus = %d\nnics = none\nnvme = none\n[memory]\nsize = 6G\n",
				  rows[i].more, rows[i].nodes);
		struct result r;

		for (int n = 0; n < rows[i].nodes; n++) {
			add_node(&t, n, rows[i].cores, 2, 8, 64 * GIB);
			add_func(&t, -1, n, CLASS_GPU, H200, 256 * MIB);
		}
		finish(&t);
		r = plan_for_qemu(&t, text, rows[i].qemu, false);
		if (rows[i].code) {
			must_fail(&r, rows[i].code, rows[i].hint);
		} else {
			must_work(&r);
			cr_expect(r.p.n_vcpus == rows[i].vcpus, "row %zu: %zu vCPUs", i, r.p.n_vcpus);
			cr_expect(has_arg(&r.p, rows[i].arg), "row %zu: no %s", i, rows[i].arg);
			cr_expect(!has_arg(&r.p, "split") || warning(&r.p, "vcpus-x2apic"), "row %zu", i);
		}
		result_clear(&r);
		topology_clear(&t);
	}
}

/* --- GPUs ------------------------------------------------------------------------------------------------- */

Test(place, says_which_gpus_would_do)
{
	static const struct {
		const char *place, *code, *hint;
	} rows[] = {
		{ "gpus = 3\nsocket = 0", "gpu-missing",
		  "socket 0: 2 of 2 free, socket 1: 4 of 4 free: use `socket = 1`" },
		{ "gpus = 5\nsocket = 1", "gpu-missing",
		  "without `socket` the VM would get them from several sockets" },
		{ "gpus = 7", "gpu-missing", "`gpus = 6` would fit" },
		{ "gpus = 2\ngpu-index = 5", "gpu-missing", "socket 1: 4 of 4 free" },
	};
	struct topology t = { 0 };

	for (int n = 0; n < 2; n++)
		add_node(&t, n, 8, 1, 8, 64 * GIB);
	for (int g = 0; g < 6; g++)
		add_func(&t, -1, g >= 2, CLASS_GPU, H200, 256 * MIB);
	finish(&t);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *text = xasprintf("[place]\n%s\n", rows[i].place);
		struct result r = plan_for(&t, text);

		must_fail(&r, rows[i].code, rows[i].hint);
		result_clear(&r);
	}
	topology_clear(&t);
}

/* --- memory ------------------------------------------------------------------------------------------------ */

static void two_nodes(struct topology *t, bool gpu_on_both)
{
	add_node(t, 0, 8, 2, 8, 64 * GIB);
	add_node(t, 1, 8, 2, 8, 32 * GIB);
	add_func(t, -1, 0, CLASS_GPU, H200, 256 * MIB);
	if (gpu_on_both)
		add_func(t, -1, 1, CLASS_GPU, H200, 256 * MIB);
}

static const char two_gpus[] = "[place]\ngpus = 2\nnics = none\nnvme = none\n";

Test(place, says_how_much_memory_would_fit)
{
	static const struct {
		uint64_t page, free0, free1;
		const char *size, *hint;
	} rows[] = {
		{ 2 * MIB, 300, 140, "600M", "[memory] size = 560M would fit" },
		{ GIB, 8, 16, "32G", "[memory] size = 16G would fit" },
		{ GIB, 0, 16, "32G", "echo" },
		{ 0, 0, 0, "100G", "[memory] size = 64G would fit" }, /* plain pages: the smaller node has 32 GiB */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct topology t = { 0 };
		AUTO_FREE char *text = xasprintf("%s[memory]\nsize = %s\n", two_gpus, rows[i].size);
		struct result r;

		two_nodes(&t, true);
		if (rows[i].page) {
			add_pool(&t, 0, rows[i].page, 1000, rows[i].free0);
			add_pool(&t, 1, rows[i].page, 1000, rows[i].free1);
		}
		finish(&t);
		r = plan_for(&t, text);
		must_fail(&r, rows[i].page ? "hugepages-short" : "memory-short", rows[i].hint);
		result_clear(&r);
		topology_clear(&t);
	}
}

/* QEMU wants every pair or none. */
Test(place, distances_all_or_none)
{
	static const struct {
		bool first, second;
	} rows[] = { { true, true }, { true, false }, { false, true }, { false, false } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct topology t = { 0 };
		struct result r;

		two_nodes(&t, true);
		if (rows[i].first)
			add_distances(&t, 0, 21);
		if (rows[i].second)
			add_distances(&t, 1, 31);
		finish(&t);
		r = plan_for(&t, two_gpus);
		must_work(&r);
		cr_expect(has_arg(&r.p, "dist,src=0,dst=1,val=21") == (rows[i].first && rows[i].second), "row %zu", i);
		cr_expect(has_arg(&r.p, "dist,src=1,dst=0,val=31") == (rows[i].first && rows[i].second), "row %zu", i);
		result_clear(&r);
		topology_clear(&t);
	}
}

/* --- devices and nodes ---------------------------------------------------------------------------------------- */

static const struct plan_device *device(const struct plan *p, const char *id)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (strcmp(p->devices[i].id, id) == 0)
			return &p->devices[i];
	cr_assert_fail("there is no %s", id);
	return NULL;
}

Test(place, a_stray_device_goes_to_the_nearest_node)
{
	static const int distances[3][3] = { { 10, 12, 32 }, { 12, 10, 32 }, { 32, 31, 10 } };
	struct topology t = { 0 };
	struct result r;

	for (int n = 0; n < 3; n++)
		add_node(&t, n / 2, 4, 1, 4, 64 * GIB);
	add_func(&t, -1, 0, CLASS_GPU, H200, 256 * MIB);
	add_func(&t, -1, 1, CLASS_GPU, H200, 256 * MIB);
	add_func(&t, -1, 2, CLASS_NIC, CX7, 32 * MIB); /* 0000:02:00.0 */
	for (int n = 0; n < 3; n++) {
		t.nodes[n].distances = xcalloc(3, sizeof(int));
		memcpy(t.nodes[n].distances, distances[n], sizeof(distances[n]));
	}
	finish(&t);
	r = plan_for(&t, "[place]\ngpus = 2\nnics = none\nnvme = none\n[device far]\npci = 0000:02:00.0\n");
	must_work(&r);
	cr_assert(device(&r.p, "dev-far")->guest_node == 1);
	cr_assert(strstr(
		warning(&r.p, "device-far"),
		"host node 2, where the VM has no vCPUs: the guest sees it on node 1, the nearest (distance 31)"));
	result_clear(&r);
	r = plan_for(&t,
		     "[place]\ngpus = 2\nnics = none\nnvme = none\n[device far]\npci = 0000:02:00.0\nguest-node = 0\n");
	must_work(&r);
	cr_assert(device(&r.p, "dev-far")->guest_node == 0);
	cr_assert(!warning(&r.p, "device-far"));
	result_clear(&r);
	topology_clear(&t);
}

Test(place, a_device_of_no_node)
{
	struct topology t = { 0 };
	struct result r;

	two_nodes(&t, false);
	add_func(&t, -1, -1, CLASS_NIC, CX7, 32 * MIB);
	finish(&t);
	r = plan_for(&t, "[place]\ngpus = 1\nnics = none\nnvme = none\n[device n]\npci = 0000:01:00.0\n");
	must_work(&r);
	cr_assert(device(&r.p, "dev-n")->guest_node == 0, "the VM has one node only");
	result_clear(&r);
	topology_clear(&t);
}

/* --- the 64-bit window ------------------------------------------------------------------------------------------ */

/* Eight H200: BARs of 256 GiB + 16 MiB + 32 MiB each, so 512 GiB with alignment, 4 TiB in all. */
Test(place, window_of_eight_h200)
{
	static const struct {
		int cpu, iommu;
		bool ovmf;
		const char *accel, *vendor, *model, *mmio64;
		uint64_t window; /* 0: refused */
		const char *hint;
	} rows[] = {
		{ 52, 57, true, "kvm", "GenuineIntel", NULL, NULL, 8 << 10, NULL },
		{ 46, 46, true, "kvm", "GenuineIntel", NULL, NULL, 8 << 10, NULL },
		{ 46, 48, false, "kvm", "GenuineIntel", NULL, NULL, 8 << 10, NULL },
		{ 46, 39, true, "kvm", "GenuineIntel", NULL, NULL, 0, "wider IOMMU" },
		{ 52, 48, true, "kvm", "GenuineIntel", NULL, NULL, 8 << 10, NULL },
		{ 52, 48, true, "kvm", "AuthenticAMD", NULL, NULL, 8 << 10, NULL },
		{ 0, 0, true, "kvm", "GenuineIntel", NULL, NULL, 8 << 10,
		  NULL }, /* a machine that we know only in part */
		{ 0, 39, true, "kvm", "GenuineIntel", NULL, NULL, 0, "wider IOMMU" },
		/* Twice the need would end at 16 TiB; what is needed ends at 8 TiB. */
		{ 43, 57, true, "kvm", "GenuineIntel", NULL, NULL, 4 << 10, NULL },
		{ 42, 57, false, "kvm", "GenuineIntel", NULL, NULL, 0, "pass fewer devices" },
		{ 52, 57, false, "tcg", "GenuineIntel", NULL, NULL, 0, "KVM has those of the host" },
		{ 52, 57, true, "kvm", "GenuineIntel", "EPYC", NULL, 0, "model = host has the host's 52 bits" },
		{ 52, 57, true, "kvm", "GenuineIntel", "EPYC,phys-bits=46", NULL, 8 << 10, NULL },
		{ 52, 57, true, "kvm", "GenuineIntel", "EPYC,host-phys-bits=on", NULL, 8 << 10, NULL },
		{ 43, 57, true, "kvm", "GenuineIntel", NULL, "16T", 0, "leave out [pcie] mmio64: 4 TiB would do" },
		{ 46, 57, true, "kvm", "GenuineIntel", NULL, "16T", 16 << 10, NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct topology t = { 0 };
		AUTO_FREE char *mmio = rows[i].mmio64 ? xasprintf("mmio64 = %s\n", rows[i].mmio64) : xstrdup("");
		AUTO_FREE char *model = rows[i].model ? xasprintf("[cpu]\nmodel = %s\n", rows[i].model) : xstrdup("");
		AUTO_FREE char *text = xasprintf("accel = %s\nfirmware = %s\n[place]\ngpus = 8\nnics = none\nnvme = "
						 "none\n[pcie]\ntopology = mirror\n%s%s",
						 rows[i].accel, rows[i].ovmf ? "ovmf" : "seabios", mmio, model);
		struct result r;

		add_node(&t, 0, 16, 2, 8, 64 * GIB);
		for (int g = 0; g < 8; g++) {
			int f = add_func(&t, -1, 0, CLASS_GPU, H200, 256 * GIB);

			t.funcs[f].bars[2] = (struct pci_bar){ .start = 0x1000, .bytes = 16 * MIB, .flags = 0x142200 };
			t.funcs[f].bars[4] = (struct pci_bar){ .start = 0x1000, .bytes = 32 * MIB, .flags = 0x142200 };
		}
		finish(&t);
		snprintf(t.cpu_vendor, sizeof(t.cpu_vendor), "%s", rows[i].vendor);
		t.phys_bits = rows[i].cpu;
		t.iommu_bits = rows[i].iommu;
		r = plan_for_qemu(&t, text, "7.2", rows[i].ovmf);
		if (rows[i].window) {
			must_work(&r);
			cr_expect(r.p.mmio64_bytes == rows[i].window * GIB, "row %zu: %" PRIu64 " GiB", i,
				  r.p.mmio64_bytes / GIB);
			cr_expect(reason(&r.p, "phys-bits") != NULL);
		} else {
			cr_expect(r.r < 0, "row %zu was planned", i);
			must_fail(&r, "mmio-too-large", rows[i].hint);
		}
		result_clear(&r);
		topology_clear(&t);
	}
}

Test(place, a_window_that_is_too_small_is_said)
{
	struct topology t = { 0 };
	struct result r;

	add_node(&t, 0, 4, 1, 4, 64 * GIB);
	add_func(&t, -1, 0, CLASS_GPU, H200, 256 * GIB);
	finish(&t);
	r = small_plan(&t, "[pcie]\nmmio64 = 64G\n");
	must_work(&r);
	cr_assert(strstr(warning(&r.p, "mmio64-small"), "256 GiB"));
	result_clear(&r);
	topology_clear(&t);
}

/* --- budgets ----------------------------------------------------------------------------------------------------- */

/* @switches switches with @per NVMe controllers each, and a GPU on the first, on @nodes nodes. */
static void many_devices(struct topology *t, int nodes, int switches, int per)
{
	for (int n = 0; n < nodes; n++)
		add_node(t, n, 2, 1, 2, 64 * GIB);
	for (int s = 0; s < switches; s++) {
		int node = s * nodes / switches, up = add_switch(t, node);

		if (s % (switches / nodes) == 0)
			add_below(t, up, node, CLASS_GPU, H200, 256 * MIB);
		for (int i = 0; i < per; i++)
			add_below(t, up, node, CLASS_NVME, 0x144da824, 32 * 1024);
	}
	finish(t);
}

static int max_bus(const struct plan *p)
{
	int max = 0;

	for (size_t i = 0; i < p->n_ports; i++)
		max = p->ports[i].bus_nr > max ? p->ports[i].bus_nr : max;
	return max;
}

Test(place, bus_budget)
{
	static const struct {
		int nodes, switches, per;
		const char *topology, *code, *hint;
	} rows[] = {
		{ 1, 4, 28, "mirror", NULL, NULL }, /* 113 devices: 1 + 4 * (2 + 28) + 1 buses */
		{ 2, 16, 7, "mirror", NULL, NULL }, /* 114 devices */
		{ 1, 16, 14, "mirror", "buses-exhausted", "topology = root-port" },
		{ 2, 16, 14, "root-port", "buses-exhausted", "topology = mirror" }, /* 113 root ports on a bus of 32 */
		{ 1, 1, 40, "flat", NULL, NULL },
		{ 1, 4, 28, "flat", "buses-exhausted", NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct topology t = { 0 };
		AUTO_FREE char *text = xasprintf("[place]\ngpus = %d\nnics = none\nnvme = %d\n[pcie]\ntopology = %s\n",
						 rows[i].nodes, rows[i].switches * rows[i].per, rows[i].topology);
		struct result r;

		many_devices(&t, rows[i].nodes, rows[i].switches, rows[i].per);
		r = plan_for(&t, text);
		if (rows[i].code) {
			must_fail(&r, rows[i].code, rows[i].hint);
		} else {
			must_work(&r);
			cr_expect(max_bus(&r.p) < 256, "row %zu", i);
			for (size_t k = 0; k < r.p.n_ports; k++)
				cr_expect(r.p.ports[k].chassis < 256, "row %zu", i);
		}
		result_clear(&r);
		topology_clear(&t);
	}
}

/* pcie.0 has room for 15 host bridges. */
Test(place, host_bridge_budget)
{
	for (int nodes = 15; nodes <= 16; nodes++) {
		AUTO_FREE char *text =
			xasprintf("[place]\ngpus = %d\nnics = none\nnvme = none\n[memory]\nsize = 32640M\n", nodes);
		struct topology t = { 0 };
		struct result r;

		for (int n = 0; n < nodes; n++) {
			add_node(&t, n, 2, 1, 2, 64 * GIB);
			add_func(&t, -1, n, CLASS_GPU, H200, 256 * MIB);
		}
		finish(&t);
		r = plan_for(&t, text);
		if (nodes == 15) {
			must_work(&r);
			cr_assert(has_arg(&r.p, "bus=pcie.0,addr=0x1e,numa_node=14"));
		} else {
			must_fail(&r, "buses-exhausted", NULL);
		}
		result_clear(&r);
		topology_clear(&t);
	}
}

/* Slots 2 to 7 of pcie.0, eight functions each; one is the entropy device's. */
Test(place, virtio_budget)
{
	struct topology t = { 0 };

	small_machine(&t);
	/* 48 functions, of which rng, guest agent and pvpanic take three. */
	for (int n = 45; n <= 46; n++) {
		AUTO_FREE char *text = xstrdup("[place]\ngpus = 0\n");
		struct result r;

		for (int i = 0; i < n; i++) {
			AUTO_FREE char *before = text;

			text = xasprintf("%s[disk d%d]\nfile = /d%d.img\n", before, i, i);
		}
		r = plan_for(&t, text);
		if (n == 45)
			must_work(&r);
		else
			must_fail(&r, "buses-exhausted", NULL);
		result_clear(&r);
	}
	topology_clear(&t);
}

/* --- relations and cliques ----------------------------------------------------------------------------------------- */

/* Two sockets. On the first: a switch with GPU 0, GPU 1 and a NIC; on the second: a switch with GPU 2, and a NIC elsewhere. */
static void related_machine(struct topology *t)
{
	int up;

	add_node(t, 0, 8, 1, 8, 64 * GIB);
	add_node(t, 1, 8, 1, 8, 64 * GIB);
	up = add_switch(t, 0);
	add_below(t, up, 0, CLASS_GPU, H200, 256 * MIB);
	add_below(t, up, 0, CLASS_GPU, H200, 256 * MIB);
	add_below(t, up, 0, CLASS_NIC, CX7, 32 * MIB);
	up = add_switch(t, 1);
	add_below(t, up, 1, CLASS_GPU, H200, 256 * MIB);
	up = add_switch(t, 1);
	add_below(t, up, 1, CLASS_NIC, CX7, 32 * MIB);
	finish(t);
}

static const struct plan_relation *relation(const struct plan *p, const char *a, const char *b)
{
	for (size_t i = 0; i < p->n_relations; i++)
		if (strcmp(p->devices[p->relations[i].a].id, a) == 0 &&
		    strcmp(p->devices[p->relations[i].b].id, b) == 0)
			return &p->relations[i];
	cr_assert_fail("no relation of %s and %s", a, b);
	return NULL;
}

Test(place, relations_in_host_and_guest)
{
	static const struct {
		const char *topology;
		enum pci_relation guest;
	} rows[] = { { "mirror", REL_PIX }, { "root-port", REL_PHB }, { "flat", REL_PHB } };
	struct topology t = { 0 };

	related_machine(&t);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *text = xasprintf("[place]\ngpus = 2\n[pcie]\ntopology = %s\n", rows[i].topology);
		struct result r = plan_for(&t, text);

		must_work(&r);
		cr_expect(relation(&r.p, "gpu0", "gpu1")->host == REL_PIX);
		cr_expect(relation(&r.p, "gpu0", "gpu1")->guest == rows[i].guest, "row %zu", i);
		cr_expect(relation(&r.p, "gpu1", "nic0")->guest == rows[i].guest, "row %zu", i);
		cr_expect(r.p.n_relations == 3);
		cr_expect((warning(&r.p, "relation-worse") != NULL) == (i > 0), "row %zu", i);
		result_clear(&r);
	}
	topology_clear(&t);
}

Test(place, relations_across_sockets)
{
	struct topology t = { 0 };
	struct result r;

	related_machine(&t);
	r = plan_for(&t, "[place]\ngpus = 3\nnics = 2\n");
	must_work(&r);
	cr_assert(relation(&r.p, "gpu0", "gpu2")->host == REL_SYS);
	/* Uneven nodes share one guest socket, so the guest sees less of a distance than there is. */
	cr_assert(relation(&r.p, "gpu0", "gpu2")->guest == (r.p.smp_sockets > 1 ? REL_SYS : REL_NODE));
	cr_assert(relation(&r.p, "gpu2", "nic1")->host == REL_NODE);
	cr_assert(relation(&r.p, "gpu2", "nic1")->guest == REL_PHB);
	result_clear(&r);
	topology_clear(&t);
}

Test(place, required_relations)
{
	static const struct {
		const char *text, *hint; /* hint NULL: it can be had */
	} rows[] = {
		{ "[place]\ngpus = 2\n[pcie]\nrelation = require PIX\n", NULL },
		{ "[place]\ngpus = 3\nnics = 2\n[pcie]\nrelation = require NODE\n", NULL },
		{ "[place]\ngpus = 3\nnics = 2\n[pcie]\nrelation = require PIX\n",
		  "GPUs 0-1 of this host have a NIC at PIX; or `relation = require NODE`" },
		{ "[place]\ngpus = 1\ngpu-index = 2\n[pcie]\nrelation = require PIX\n",
		  "GPUs 0-1 of this host have a NIC at PIX" },
		{ "[place]\ngpus = 1\ngpu-index = 2\nnics = none\n[pcie]\nrelation = require PIX\n", NULL },
		{ "[place]\ngpus = 2\n[pcie]\nrelation = require PIX\ntopology = root-port\n", "topology = mirror" },
		{ "[place]\ngpus = 2\n[pcie]\nrelation = require PHB\ntopology = root-port\n", NULL },
		{ "[place]\ngpus = 3\nnics = 2\n[pcie]\nrelation = prefer\n", NULL },
	};
	struct topology t = { 0 };

	related_machine(&t);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct result r = plan_for(&t, rows[i].text);

		if (rows[i].hint)
			must_fail(&r, "relation-too-far", rows[i].hint);
		else
			must_work(&r);
		result_clear(&r);
	}
	topology_clear(&t);
}

Test(place, cliques)
{
	static const struct {
		const char *text;
		int clique0, clique1, clique2;
		const char *code;
	} rows[] = {
		{ "[place]\ngpus = 3\n", -1, -1, -1, NULL }, /* the guest's tree shows the switch */
		{ "[place]\ngpus = 3\n[pcie]\ntopology = root-port\n", 0, 0, -1, NULL },
		{ "[place]\ngpus = 3\n[pcie]\ntopology = root-port\ncliques = off\n", -1, -1, -1, NULL },
		{ "[place]\ngpus = 3\n[pcie]\ncliques = on\n", 0, 0, -1, NULL },
		{ "[place]\ngpus = 1\n[pcie]\ncliques = on\n", -1, -1, -1, NULL }, /* one alone has no peer */
	};
	struct topology t = { 0 };

	related_machine(&t);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct result r = plan_for(&t, rows[i].text);

		must_work(&r);
		cr_expect(r.p.devices[0].clique == rows[i].clique0, "row %zu", i);
		if (r.p.n_devices > 2 && r.p.devices[2].role == ROLE_GPU) {
			cr_expect(r.p.devices[1].clique == rows[i].clique1, "row %zu", i);
			cr_expect(r.p.devices[2].clique == rows[i].clique2, "row %zu", i);
		}
		cr_expect(has_arg(&r.p, "x-nv-gpudirect-clique=0") == (rows[i].clique0 == 0), "row %zu", i);
		result_clear(&r);
	}
	topology_clear(&t);
}

Test(place, explicit_cliques)
{
	static const char gpus[] = "[device a]\npci = 0000:03:00.0\ngpudirect-clique = 5\n[device b]\npci = "
				   "0000:0b:00.0\ngpudirect-clique = 5\n";
	struct topology t = { 0 };
	struct result r;

	related_machine(&t);
	r = plan_for(&t, gpus);
	must_work(&r);
	cr_assert(has_arg(&r.p, "x-nv-gpudirect-clique=5"));
	cr_assert(strstr(warning(&r.p, "clique-too-far"), "different sockets"));
	result_clear(&r);
	r = plan_for(&t, "[device n]\npci = 0000:07:00.0\ngpudirect-clique = 0\n");
	must_fail(&r, "clique-unsupported", NULL);
	result_clear(&r);
	r = plan_for(&t, "[device a]\npci = 0000:03:00.0\ngpudirect-clique = 5\n[pcie]\ncliques = on\n");
	must_fail(&r, "conflict", NULL);
	result_clear(&r);
	topology_clear(&t);
}

/* --- NCCL ------------------------------------------------------------------------------------------------------------- */

Test(place, no_nccl_file_without_gpus)
{
	struct topology t = { 0 };
	struct result r;

	small_machine(&t);
	r = plan_for(&t, "[place]\ngpus = 0\n");
	must_work(&r);
	cr_assert(nccl_topology_xml(&r.p, &t) == NULL);
	result_clear(&r);
	topology_clear(&t);
}

/* --- groups ------------------------------------------------------------------------------------------------- */

static void must_have(const struct topology *t, const char *text, int gpu)
{
	struct result res = plan_for(t, text);

	must_work(&res);
	cr_assert(pci_addr_cmp(&res.p.devices[0].addr, &t->funcs[gpu].addr) == 0, "%s: it has another GPU", text);
	result_clear(&res);
}

static void must_refuse(const struct topology *t, const char *text, const char *code)
{
	struct result res = plan_for(t, text);

	must_fail(&res, code, NULL);
	result_clear(&res);
}

/* Two GPUs below a switch without ACS are in one group with what else is there: others come first. */
Test(place, a_gpu_whose_group_can_be_passed)
{
	struct topology t = { 0 };
	int up, gpu[3], nic, disk;

	add_node(&t, 0, 16, 1, 8, 64 * GIB);
	for (int i = 0; i < 3; i++) {
		up = add_switch(&t, 0);
		gpu[i] = add_below(&t, up, 0, CLASS_GPU, H200, 256 * MIB);
		if (i == 0)
			nic = add_below(&t, up, 0, CLASS_NIC, CX7, 0);
		if (i == 1)
			disk = add_below(&t, up, 0, CLASS_NVME, 0x144da808, 0);
	}
	snprintf(t.funcs[nic].driver, sizeof(t.funcs[nic].driver), "mlx5_core");
	t.funcs[nic].iommu_group = t.funcs[gpu[0]].iommu_group;
	snprintf(t.funcs[disk].driver, sizeof(t.funcs[disk].driver), "nvme");
	t.funcs[disk].iommu_group = t.funcs[gpu[1]].iommu_group;
	finish(&t);

	/* What else is in the group goes along, or has a driver that does no harm; or it stays, and the GPU with it. */
	must_have(&t, "[place]\ngpus = 1\nnics = 0\nnvme = 0\n", gpu[2]);
	must_have(&t, "[place]\ngpus = 1\nnics = per-gpu\nnvme = 0\n", gpu[0]);
	must_have(&t, "[place]\ngpus = 1\nnics = 0\nnvme = per-gpu\n", gpu[1]);
	must_refuse(&t, "[place]\ngpus = 2\nnics = 0\nnvme = 0\n", "group-not-viable");
	must_refuse(&t, "[place]\ngpus = 1\ngpu-index = 0\nnics = 0\nnvme = 0\n", "group-not-viable");
	t.funcs[nic].driver[0] = '\0';
	must_have(&t, "[place]\ngpus = 1\nnics = 0\nnvme = 0\n", gpu[0]);
	topology_clear(&t);
}
