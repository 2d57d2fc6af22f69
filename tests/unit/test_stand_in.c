/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --fake-devices: another machine's VM made to fit on this one; and what else depends on how a device is passed. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

#define GIB UINT64_C(1073741824)

struct result {
	char *root;
	struct topology host, here;
	struct qemu_info qemu;
	struct vm_config vm;
	struct plan p;
	struct problems ps;
	int r;
};

/* This machine: one node. */
static void set_here(struct topology *t, int cpus, uint64_t mem_bytes, int phys_bits, bool kvm)
{
	struct host_node *n = PUSH_ZEROED(t->nodes, t->n_nodes);

	n->mem_bytes = mem_bytes;
	for (int i = 0; i < cpus; i++)
		cpuset_add(&t->allowed, i);
	t->phys_bits = phys_bits;
	t->kvm = kvm;
	snprintf(t->cpu_vendor, sizeof(t->cpu_vendor), "GenuineIntel");
}

/* @foreign: `here` is another machine than the fixture. */
static void plan_it(struct result *r, const char *fixture, const char *qemu, const char *text, bool fake, bool foreign)
{
	AUTO_FREE char *all = xasprintf("[vm]\nname = x\n%s", text);
	struct plan_request req = { .vm = &r->vm,
				    .host = &r->host,
				    .qemu = &r->qemu,
				    .rundir = "/run/gpuvm/x",
				    .statedir = "/var/lib/gpuvm",
				    .fake_devices = fake,
				    .foreign_host = foreign,
				    .here = foreign ? &r->here : NULL };
	struct err e = { 0 };

	r->qemu = fake_qemu(qemu);
	r->qemu.ovmf_code = (char *)"/code.fd";
	r->qemu.ovmf_vars = (char *)"/vars.fd";
	r->root = mkhost_fixture(fixture);
	cr_assert_not_null(r->root);
	cr_assert(probe_host(r->root, &r->host, &e) == 0, "%s", e.msg);
	cr_assert(config_parse("x.ini", all, strlen(all), NULL, &r->vm, &r->ps) == 0, "%s",
		  r->ps.n ? r->ps.v[0].message : "");
	r->r = plan_make(&req, &r->p, &r->ps);
}

static void result_clear(struct result *r)
{
	plan_clear(&r->p);
	config_clear(&r->vm);
	problems_clear(&r->ps);
	topology_clear(&r->host);
	topology_clear(&r->here);
	mkhost_remove(STEAL_PTR(r->root));
}

static void must_work(const struct result *r)
{
	cr_assert(r->r == 0, "%s", r->ps.n ? r->ps.v[0].message : "");
}

static const char *warning(const struct plan *p, const char *code)
{
	for (size_t i = 0; i < p->n_warnings; i++)
		if (strcmp(p->warnings[i].code, code) == 0)
			return p->warnings[i].text;
	return NULL;
}

static int count_args(const struct plan *p, const char *flag, const char *begin)
{
	int n = 0;

	for (size_t i = 0; i < p->n_args; i++)
		n += strcmp(p->args[i].flag, flag) == 0 && p->args[i].value &&
		     strncmp(p->args[i].value, begin, strlen(begin)) == 0;
	return n;
}

static bool has_arg(const struct plan *p, const char *flag, const char *words)
{
	for (size_t i = 0; i < p->n_args; i++)
		if (strcmp(p->args[i].flag, flag) == 0 && p->args[i].value && strstr(p->args[i].value, words))
			return true;
	return false;
}

static const struct plan_device *device(const struct plan *p, const char *id)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (strcmp(p->devices[i].id, id) == 0)
			return &p->devices[i];
	cr_assert_fail("there is no %s", id);
	return NULL;
}

/* --- scaling ---------------------------------------------------------------------------------------------------- */

/* What holds for all: the window is there for every BAR, and ends below the address bits, wherever firmware puts it. */
static void check_fit(const struct result *r, const char *what)
{
	const struct plan *p = &r->p;
	uint64_t sum = 0, base = 4 * GIB + plan_memory_bytes(p), window = p->mmio64_bytes ? p->mmio64_bytes : 32 * GIB;

	for (size_t i = 0; i < p->n_devices; i++) {
		uint64_t bytes = p->devices[i].stand_in_bytes;

		cr_expect(bytes >= 4096 && !(bytes & (bytes - 1)), "%s: %s has %" PRIu64, what, p->devices[i].id,
			  bytes);
		sum += bytes;
	}
	cr_expect(sum <= window, "%s: BARs of %" PRIu64 " GiB in %" PRIu64 " GiB", what, sum / GIB, window / GIB);
	if (p->vars_file)
		base = (base + window - 1) / window * window;
	cr_expect(base + window <= UINT64_C(1) << p->address_bits, "%s: ends at %" PRIu64 " GiB", what,
		  (base + window) / GIB);
	cr_expect(plan_memory_bytes(p) <= r->here.nodes[0].mem_bytes / 2, "%s", what);
	for (size_t i = 0; i < p->n_nodes; i++)
		cr_expect(p->nodes[i].page_bytes == 4096 && !p->nodes[i].prealloc && p->nodes[i].memory_bytes, "%s",
			  what);
}

Test(stand_in, whole_servers_fit_on_small_machines)
{
	static const struct {
		const char *fixture;
		int gpus, nodes;
	} servers[] = { { "xe9680-h200", 8, 2 },
			{ "dgx2", 16, 2 },
			{ "dgx-a100", 8, 8 },
			{ "dgx-b200", 8, 2 },
			{ "h200-cx7-4-stacked", 8, 2 } };
	static const struct {
		int cpus, bits;
		uint64_t gib;
		bool kvm;
	} small[] = { { 2, 48, 8, false },
		      { 16, 39, 16, true },
		      { 8, 36, 4, true },
		      { 64, 46, 512, false },
		      { 4, 52, 64, true } };

	for (size_t i = 0; i < ARRAY_SIZE(servers) * ARRAY_SIZE(small) * 2; i++) {
		size_t s = i / 2 % ARRAY_SIZE(servers), m = i / 2 / ARRAY_SIZE(servers);
		AUTO_FREE char *text = xasprintf("firmware = %s\n[place]\ngpus = %d\n[fabric]\nmode = none\n",
						 i % 2 ? "ovmf" : "seabios", servers[s].gpus);
		AUTO_FREE char *what =
			xasprintf("%s on %d bits, %s", servers[s].fixture, small[m].bits, i % 2 ? "OVMF" : "SeaBIOS");
		struct result r = { 0 };

		set_here(&r.here, small[m].cpus, small[m].gib * GIB, small[m].bits, small[m].kvm);
		plan_it(&r, servers[s].fixture, "10.0", text, true, true);
		cr_assert(r.r == 0, "%s: %s", what, r.ps.n ? r.ps.v[0].message : "");
		check_fit(&r, what);
		cr_expect(r.p.address_bits == (small[m].kvm ? small[m].bits : 40), "%s", what);
		cr_expect(r.p.n_nodes == (size_t)servers[s].nodes, "%s", what);
		cr_expect_str_eq(r.p.accel, small[m].kvm ? "kvm" : "tcg");
		cr_expect_not_null(warning(&r.p, "memory-scaled"), "%s", what);
		if (small[m].kvm || small[m].cpus == 2)
			cr_expect(small[m].kvm == !warning(&r.p, "vcpus-scaled"), "%s", what);
		result_clear(&r);
	}
}

/* Eight BARs of 256 GiB: below 40 bits an eighth of each is too much for the windows of eight switches. */
Test(stand_in, bars_are_scaled_by_what_is_needed)
{
	struct result r = { 0 };

	set_here(&r.here, 2, 24 * GIB, 48, false);
	plan_it(&r, "xe9680-h200", "7.2", "firmware = ovmf\n[place]\ngpus = 8\n", true, true);
	must_work(&r);
	cr_expect(r.p.mmio64_bytes == 512 * GIB);
	cr_expect(r.p.stand_in_scale == 16);
	cr_expect(device(&r.p, "gpu0")->stand_in_bytes == 16 * GIB);
	cr_expect(device(&r.p, "gpu0")->bars[2] == 256 * GIB, "the device itself is as it was");
	cr_expect(device(&r.p, "nic0")->stand_in_bytes == 2 << 20);
	cr_expect(device(&r.p, "nvme0")->stand_in_bytes == 4096, "no BAR is smaller than a page");
	cr_expect_not_null(strstr(warning(&r.p, "bars-scaled"), "1/16"));
	cr_expect_not_null(strstr(warning(&r.p, "bars-scaled"), "16 GiB in place of 256 GiB"));
	cr_expect(has_arg(&r.p, "-object", "id=bar-gpu0,size=17179869184,reserve=off"));
	cr_expect(has_arg(&r.p, "-device", "ivshmem-plain,id=gpu0,") && has_arg(&r.p, "-fw_cfg", "string=524288"));
	cr_expect(count_args(&r.p, "-device", "ivshmem-plain,") == (int)r.p.n_devices);
	cr_expect(count_args(&r.p, "-device", "vfio-pci,") == 0);
	result_clear(&r);
}

Test(stand_in, nothing_is_scaled_where_it_fits)
{
	struct result r = { 0 };

	set_here(&r.here, 256, 4096 * GIB, 52, true);
	plan_it(&r, "xe9680-h200", "7.2", "[place]\ngpus = 8\n", true, true);
	must_work(&r);
	cr_expect(r.p.stand_in_scale == 1);
	cr_expect(device(&r.p, "gpu0")->stand_in_bytes == 256 * GIB);
	cr_expect(plan_memory_bytes(&r.p) == 1920 * GIB);
	cr_expect(r.p.n_vcpus > 180);
	cr_expect(!warning(&r.p, "bars-scaled") && !warning(&r.p, "memory-scaled") && !warning(&r.p, "vcpus-scaled"));
	result_clear(&r);
}

/* What is asked for is taken, where it fits; the other machine's window may not. */
Test(stand_in, keys_of_the_definition)
{
	struct result r = { 0 };

	set_here(&r.here, 2, 24 * GIB, 48, false);
	plan_it(&r, "xe9680-h200", "7.2",
		"[place]\ngpus = 4\ngpu-index = 0\n[cpu]\nvcpus = 12\n[memory]\nsize = 4G\nhugepages = 1G\nmem-lock = "
		"on\n[pcie]\nmmio64 = 8T\n",
		true, true);
	must_work(&r);
	cr_expect(r.p.n_vcpus == 12);
	cr_expect(plan_memory_bytes(&r.p) == 4 * GIB);
	cr_expect(!warning(&r.p, "memory-scaled") && !warning(&r.p, "vcpus-scaled") && warning(&r.p, "bars-scaled"));
	cr_expect(r.p.mmio64_bytes <= 512 * GIB);
	cr_expect(!r.p.mem_lock && !has_arg(&r.p, "-overcommit", "mem-lock"),
		  "stand-ins' BARs are not there to be locked");
	result_clear(&r);
}

/* On the machine itself only what emulation cannot address is smaller. */
Test(stand_in, on_the_machine_itself)
{
	struct result r = { 0 };

	plan_it(&r, "xe9680-h200", "7.2", "accel = tcg\n[place]\ngpus = 8\n[memory]\nsize = 64G\n", true, false);
	must_work(&r);
	cr_expect(r.p.stand_in_scale > 1 && plan_memory_bytes(&r.p) == 64 * GIB && r.p.nodes[0].page_bytes == GIB);
	result_clear(&r);
	r = (struct result){ 0 };
	plan_it(&r, "xe9680-h200", "7.2", "accel = kvm\n[place]\ngpus = 8\n", true, false);
	must_work(&r);
	cr_expect(r.p.stand_in_scale == 1 && plan_memory_bytes(&r.p) == 1920 * GIB);
	result_clear(&r);
	r = (struct result){ 0 };
	/* No stand-in is small enough for memory that does not fit itself. */
	plan_it(&r, "xe9680-h200", "7.2", "accel = tcg\n[place]\ngpus = 8\n", true, false);
	cr_assert(r.ps.n == 1);
	cr_expect_str_eq(r.ps.v[0].code, "mmio-too-large");
	result_clear(&r);
}

Test(stand_in, kvm_that_is_not_here)
{
	struct result r = { 0 };

	set_here(&r.here, 2, 24 * GIB, 48, false);
	plan_it(&r, "xe9680-h200", "7.2", "accel = kvm\n[place]\ngpus = 1\n[fabric]\nmode = none\n", true, true);
	cr_assert(r.ps.n == 1);
	cr_expect_str_eq(r.ps.v[0].code, "kvm-missing");
	result_clear(&r);
}

/* --- iommufd ---------------------------------------------------------------------------------------------------- */

#define IOMMUFD                                                                                                        \
	"[device a]\npci = 0000:19:00.0\niommufd = on\n[device b]\npci = 0000:3b:00.0\niommufd = on\n[device c]\npci " \
	"= 0000:18:00.0\n"

Test(stand_in, iommufd_only_where_it_is_asked_for)
{
	struct result r = { 0 };

	plan_it(&r, "xe9680-h200", "10.0", IOMMUFD, false, false);
	must_work(&r);
	cr_expect(count_args(&r.p, "-object", "iommufd,id=iommufd0") == 1);
	cr_expect(has_arg(&r.p, "-device", "id=dev-a,bus=rp0,addr=0x0,iommufd=iommufd0") ||
		  has_arg(&r.p, "-device", "id=dev-a,bus=sw0-dp1,addr=0x0,iommufd=iommufd0"));
	for (size_t i = 0; i < r.p.n_args; i++)
		if (r.p.args[i].value && strstr(r.p.args[i].value, "id=dev-c"))
			cr_expect_null(strstr(r.p.args[i].value, "iommufd"), "%s", r.p.args[i].value);
	cr_expect_not_null(strstr(warning(&r.p, "iommufd-no-p2p"), "dev-a"));
	cr_expect(plan_pinned_bytes(&r.p) > plan_memory_bytes(&r.p) + 512 * GIB,
		  "iommufd charges the BARs of two GPUs");
	result_clear(&r);
	r = (struct result){ 0 };
	plan_it(&r, "xe9680-h200", "10.0", "[place]\ngpus = 4\ngpu-index = 0\n", false, false);
	must_work(&r);
	cr_expect(!has_arg(&r.p, "-object", "iommufd") && !has_arg(&r.p, "-device", "iommufd") &&
			  !has_arg(&r.p, "-device", "x-no-mmap"),
		  "GPUDirect works by default");
	result_clear(&r);
}

Test(stand_in, iommufd_needs_a_newer_qemu)
{
	struct result r = { 0 };

	plan_it(&r, "xe9680-h200", "7.2", IOMMUFD, false, false);
	cr_assert(r.ps.n == 2, "one for each device");
	cr_expect_str_eq(r.ps.v[0].code, "qemu-lacks");
	cr_expect_not_null(strstr(r.ps.v[0].message, "[device a] iommufd"));
	cr_expect_not_null(strstr(r.ps.v[0].hint, "9.0"));
	result_clear(&r);
	r = (struct result){ 0 };
	plan_it(&r, "xe9680-h200", "7.2", IOMMUFD "[memory]\nsize = 4G\n", true, false);
	must_work(&r);
	cr_expect(!has_arg(&r.p, "-object", "iommufd"), "stand-ins need none");
	result_clear(&r);
}
