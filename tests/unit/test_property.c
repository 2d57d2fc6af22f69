/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Properties of every plan and of every refusal, over machines made from seeds.
 *
 *   GPUVM_PROPERTY_SEEDS=N   how many (default 2000)
 *   GPUVM_PROPERTY_SEED=S    only this one */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <string.h>

#include "property.h"

#define SHARDS     8
#define SEEDS      2000
#define JSON_EVERY 4 /* the round trip costs more than the plan */

struct shard {
	int nr;
};

void trial_fail(const struct trial *t, const char *file, int line, const char *fmt, ...)
{
	AUTO_FREE char *about = genhost_describe(&t->host);
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr,
		"%s:%d: seed %llu: %s\n"
		"  again: GPUVM_PROPERTY_SEED=%llu build/tests/unit_tests --filter 'property*/*' -j1\n"
		"  host: %s; %zu devices and %zu lists of CPUs in use\n%s\n",
		file, line, (unsigned long long)t->seed, text, (unsigned long long)t->seed, about, t->use.n_devices,
		t->use.n_cpus, t->text ? t->text : "");
	cr_assert_fail("seed %llu: %s", (unsigned long long)t->seed, text);
	abort();
}

/* --- what the machine says, counted anew ---------------------------------------------------------------- */

const char *property_device_user(const struct trial *t, const struct pci_addr *a)
{
	for (size_t i = 0; i < t->use.n_devices; i++)
		if (pci_addr_cmp(&t->use.devices[i].addr, a) == 0)
			return t->use.devices[i].vm;
	return NULL;
}

bool property_cpu_used(const struct trial *t, int cpu)
{
	for (size_t i = 0; i < t->use.n_cpus; i++)
		if (cpuset_has(&t->use.cpus[i].cpus, cpu))
			return true;
	return false;
}

uint64_t property_promised(const struct trial *t, int host_node, uint64_t page)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < t->use.n_memory; i++)
		if (t->use.memory[i].host_node == host_node && t->use.memory[i].page_bytes == page &&
		    !t->use.memory[i].allocated)
			sum += t->use.memory[i].bytes;
	return sum;
}

bool property_is_explicit(const struct trial *t, const struct pci_addr *a)
{
	for (size_t i = 0; i < t->vm.n_devices; i++)
		if (pci_addr_cmp(&t->vm.devices[i].pci, a) == 0)
			return true;
	return false;
}

static bool in_reach(const struct trial *t, const struct host_cpu *c, int host_node)
{
	return t->host.nodes[c->node].id == host_node && cpuset_has(&t->host.allowed, c->cpu);
}

/* Is any CPU of @core that we may use in @set (NULL: in use by a VM)? */
static bool core_meets(const struct trial *t, int host_node, int core, const struct cpuset *set)
{
	for (size_t i = 0; i < t->host.n_cpus; i++) {
		const struct host_cpu *c = &t->host.cpus[i];

		if (c->core == core && in_reach(t, c, host_node) &&
		    (set ? cpuset_has(set, c->cpu) : property_cpu_used(t, c->cpu)))
			return true;
	}
	return false;
}

/* Place of @core among the cores of its node, by lowest CPU; with core < 0 the number of cores. */
static int core_place(const struct trial *t, int host_node, int core)
{
	AUTO_FREE bool *seen = xcalloc(t->host.n_cpus * 2 + 1, sizeof(bool));
	int n = 0;

	for (size_t i = 0; i < t->host.n_cpus; i++) {
		const struct host_cpu *c = &t->host.cpus[i];

		if (!in_reach(t, c, host_node) || seen[c->core])
			continue;
		if (c->core == core)
			return n;
		seen[c->core] = true;
		n++;
	}
	return n;
}

bool property_core_reserved(const struct trial *t, int host_node, int core)
{
	int n = core_place(t, host_node, -1), keep = n <= 1 ? 0 : n / 24 > 1 ? n / 24 : 1;

	if (t->vm.cpu_reserve >= 0)
		keep = t->vm.cpu_reserve;
	else if (t->vm.emulator_set)
		return core_meets(t, host_node, core, &t->vm.emulator);
	return core_place(t, host_node, core) < keep;
}

struct core_count property_count_cores(const struct trial *t, int host_node)
{
	AUTO_FREE bool *seen = xcalloc(t->host.n_cpus * 2 + 1, sizeof(bool));
	struct core_count n = { 0 };

	for (size_t i = 0; i < t->host.n_cpus; i++) {
		const struct host_cpu *c = &t->host.cpus[i];

		if (!in_reach(t, c, host_node) || seen[c->core])
			continue;
		seen[c->core] = true;
		n.all++;
		if (property_core_reserved(t, host_node, c->core))
			n.reserved++;
		else if (core_meets(t, host_node, c->core, NULL))
			n.busy++;
	}
	return n;
}

/* --- the plan as data ------------------------------------------------------------------------------------ */

static void check_same(const struct trial *t, struct json_object *a, struct json_object *b, const char *key)
{
	CHECK(t, json_object_equal(json_object_object_get(a, key), json_object_object_get(b, key)),
	      "'%s' is not read back as written", key);
}

static void check_json(const struct trial *t, const struct plan *p)
{
	static const char *const keys[] = {
		"vm",        "qemu",         "nodes", "vcpus", "bind", "housekeeping_cpus", "emulator_cpus",
		"iothreads", "mmio64_bytes", "accel", "taps", "vsock", "lifecycle", "hooks"
	};
	static const char *const of_device[] = { "id",          "bdf",    "role",      "host_node",
						 "iommu_group", "driver", "bar_bytes", "guest" };
	struct json_object *o = plan_to_json(p), *parsed = json_tokener_parse(json_object_to_json_string(o)), *again,
			   *da, *db;
	struct plan back = { 0 };
	struct err e = { 0 };

	CHECK(t, json_object_equal(o, parsed), "the JSON text is not the JSON object");
	CHECK(t, plan_from_json(parsed, &back, &e) == 0, "the plan cannot be read back: %s", e.msg);
	again = plan_to_json(&back);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		check_same(t, o, again, keys[i]);
	da = json_object_object_get(o, "devices");
	db = json_object_object_get(again, "devices");
	CHECK(t, json_object_array_length(da) == json_object_array_length(db), "devices are lost");
	for (size_t i = 0; i < json_object_array_length(da); i++)
		for (size_t k = 0; k < ARRAY_SIZE(of_device); k++)
			check_same(t, json_object_array_get_idx(da, i), json_object_array_get_idx(db, i), of_device[k]);
	plan_clear(&back);
	json_object_put(o);
	json_object_put(parsed);
	json_object_put(again);
}

/* The same machine and the same definition give the same plan, to the letter. */
static void check_again(const struct trial *t, const struct plan *p)
{
	struct problems ps = { 0 };
	struct plan other = { 0 };

	CHECK(t, plan_make(&t->req, &other, &ps) == 0, "the second time it is refused");
	CHECK(t, p->n_args == other.n_args && p->n_reasons == other.n_reasons && p->n_warnings == other.n_warnings,
	      "the second plan is another");
	for (size_t i = 0; i < p->n_args; i++)
		CHECK(t,
		      !strcmp(p->args[i].flag, other.args[i].flag) &&
			      !strcmp(p->args[i].value ? p->args[i].value : "",
				      other.args[i].value ? other.args[i].value : ""),
		      "the second plan has another %s", p->args[i].flag);
	for (size_t i = 0; i < p->n_reasons; i++)
		CHECK(t, !strcmp(p->reasons[i].text, other.reasons[i].text), "the second plan has other reasons");
	plan_clear(&other);
}

/* --- trials ------------------------------------------------------------------------------------------------ */

static void trial_init(struct trial *t, uint64_t seed)
{
	struct problems ps = { 0 };

	*t = (struct trial){ .seed = seed, .rng = { seed * 31 + 7 } };
	genhost_make(seed, NULL, &t->host);
	genhost_run_vms(&t->rng, &t->host, rng_below(&t->rng, 4), &t->use);
	t->qemu = genhost_qemu(&t->rng);
	t->text = genhost_definition(&t->rng, &t->host, "vm", false);
	if (config_parse("vm.ini", t->text, strlen(t->text), NULL, &t->vm, &ps) < 0)
		trial_fail(t, __FILE__, __LINE__, "the definition is wrong: %s", ps.v[0].message);
	t->req = (struct plan_request){ .vm = &t->vm,
					.host = &t->host,
					.use = &t->use,
					.qemu = &t->qemu,
					.seed_tool = t->seed % 8 ? "/usr/bin/xorrisofs" : NULL,
					.swtpm = t->seed % 7 ? "/usr/bin/swtpm" : NULL,
					.rundir = "/run/gpuvm/vm",
					.statedir = "/var/lib/gpuvm" };
}

static void trial_clear(struct trial *t)
{
	config_clear(&t->vm);
	host_use_clear(&t->use);
	topology_clear(&t->host);
	free(t->text);
}

/* 1 if there was a plan. */
static int run_trial(uint64_t seed)
{
	struct problems ps = { 0 };
	struct plan p = { 0 };
	struct trial t;
	int planned;

	trial_init(&t, seed);
	property_check_choice(&t);
	planned = plan_make(&t.req, &p, &ps) == 0;
	if (planned) {
		CHECK(&t, ps.n == 0, "a plan, and a problem: %s", ps.v[0].message);
		property_check_plan(&t, &p);
		property_check_argv(&t, &p);
		check_again(&t, &p);
		if (seed % JSON_EVERY == 0)
			check_json(&t, &p);
	} else {
		CHECK(&t, ps.n > 0, "refused without a reason");
		property_check_refusal(&t, &ps);
	}
	plan_clear(&p);
	problems_clear(&ps);
	trial_clear(&t);
	return planned;
}

static uint64_t number_of(const char *name, uint64_t fallback)
{
	uint64_t n = fallback;

	if (getenv(name))
		cr_assert(parse_u64(getenv(name), 0, UINT64_MAX, &n) == 0, "%s is no number", name);
	return n;
}

ParameterizedTestParameters(property, every_plan_and_refusal)
{
	static struct shard shards[SHARDS];

	for (int i = 0; i < SHARDS; i++)
		shards[i].nr = i;
	return cr_make_param_array(struct shard, shards, SHARDS, NULL);
}

ParameterizedTest(struct shard *shard, property, every_plan_and_refusal, .timeout = 3600)
{
	uint64_t n = number_of("GPUVM_PROPERTY_SEEDS", SEEDS), done = 0, planned = 0;

	if (getenv("GPUVM_PROPERTY_SEED")) {
		if (shard->nr == 0)
			run_trial(number_of("GPUVM_PROPERTY_SEED", 0));
		return;
	}
	for (uint64_t seed = (uint64_t)shard->nr; seed < n; seed += SHARDS, done++)
		planned += (uint64_t)run_trial(seed);
	/* A generator that makes only one of the two would test nothing. */
	if (done >= 100)
		cr_assert(planned > done / 10 && planned < done * 9 / 10, "%llu of %llu trials gave a plan",
			  (unsigned long long)planned, (unsigned long long)done);
}
