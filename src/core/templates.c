/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/templates.h"

/* Plan one more VM of that size beside @use, and add it there. */
static bool plan_one(const struct plan_request *base, struct host_use *use, int gpus, int number, struct plan *ret, char **why)
{
	AUTO_FREE char *name = xasprintf("size%d-%d", gpus, number);
	AUTO_FREE char *text = xasprintf("[vm]\nname = %s\n[place]\ngpus = %d\n", name, gpus);
	struct plan_request req = *base;
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	bool ok = false;

	req.vm = &vm;
	req.use = use;
	if (config_parse("template", text, strlen(text), NULL, &vm, &ps) == 0) {
		ok = plan_make(&req, ret, &ps) == 0;
		if (ok)
			host_use_add(use, ret, 0);
		config_clear(&vm);
	}
	if (!ok && why && ps.n)
		*why = xstrdup(ps.v[0].message);
	problems_clear(&ps);
	return ok;
}

static void copy_use(const struct host_use *from, struct host_use *to)
{
	*to = (struct host_use){ 0 };
	for (size_t i = 0; from && i < from->n_devices; i++)
		*PUSH_ZEROED(to->devices, to->n_devices) = from->devices[i];
	for (size_t i = 0; from && i < from->n_cpus; i++)
		*PUSH_ZEROED(to->cpus, to->n_cpus) = from->cpus[i];
	for (size_t i = 0; from && i < from->n_memory; i++)
		*PUSH_ZEROED(to->memory, to->n_memory) = from->memory[i];
	for (size_t i = 0; from && i < from->n_fabrics; i++)
		*PUSH_ZEROED(to->fabrics, to->n_fabrics) = from->fabrics[i];
	for (size_t i = 0; from && i < from->n_taps; i++)
		*PUSH_ZEROED(to->taps, to->n_taps) = from->taps[i];
	for (size_t i = 0; from && i < from->n_vsocks; i++)
		*PUSH_ZEROED(to->vsocks, to->n_vsocks) = from->vsocks[i];
}

static void describe(const struct plan *p, struct template_size *t)
{
	t->vcpus = (int)p->n_vcpus;
	t->memory_bytes = plan_memory_bytes(p);
	t->page_bytes = p->n_nodes ? p->nodes[0].page_bytes : 0;
	t->fabric = p->fabric.mode;
	for (size_t i = 0; i < p->n_devices; i++) {
		t->nics += p->devices[i].role == ROLE_NIC;
		t->nvme += p->devices[i].role == ROLE_NVME;
		t->nvswitches += p->devices[i].role == ROLE_NVSWITCH || p->devices[i].role == ROLE_FABRIC;
	}
}

/* How many VMs of that size go beside @present. */
static int count_fit(const struct plan_request *base, const struct host_use *present, struct template_size *t, char **why)
{
	struct host_use use;
	int n = 0;

	copy_use(present, &use);
	for (bool ok = true; ok && n < topology_n_gpus(base->host);) {
		struct plan p = { 0 };

		ok = plan_one(base, &use, t->gpus, n, &p, n ? NULL : why);
		if (ok && !t->vcpus)
			describe(&p, t);
		n += ok;
		plan_clear(&p);
	}
	host_use_clear(&use);
	return n;
}

struct template_size *templates_make(const struct plan_request *base, size_t *ret_n)
{
	int all = topology_n_gpus(base->host);
	AUTO_FREE struct host_node *nodes = xcalloc(base->host->n_nodes, sizeof(*nodes));
	struct topology host = *base->host;
	struct plan_request empty = *base;
	struct template_size *v = NULL;

	memcpy(nodes, host.nodes, host.n_nodes * sizeof(*nodes));
	host.nodes = nodes;
	if (base->use)
		host_use_free_memory(base->use, &host);
	empty.host = &host;
	*ret_n = 0;
	for (int gpus = 1; gpus <= all; gpus = gpus * 2 > all && gpus < all ? all : gpus * 2) {
		struct template_size *t = PUSH_ZEROED(v, *ret_n);

		t->gpus = gpus;
		t->fit = count_fit(base, base->use, t, &t->why);
		/* What it would get is also of interest when nothing is free. */
		t->fit_empty = count_fit(&empty, NULL, t, NULL);
	}
	return v;
}

void templates_free(struct template_size *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i].why);
	free(v);
}

struct json_object *templates_to_json(const struct template_size *v, size_t n)
{
	struct json_object *all = json_object_new_array();

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "gpus", json_object_new_int(v[i].gpus));
		json_object_object_add(o, "vcpus", json_object_new_int(v[i].vcpus));
		json_object_object_add(o, "memory_bytes", json_object_new_uint64(v[i].memory_bytes));
		json_object_object_add(o, "page_bytes", json_object_new_uint64(v[i].page_bytes));
		json_object_object_add(o, "nics", json_object_new_int(v[i].nics));
		json_object_object_add(o, "nvme", json_object_new_int(v[i].nvme));
		json_object_object_add(o, "nvswitches", json_object_new_int(v[i].nvswitches));
		json_object_object_add(o, "fabric", json_object_new_string(fabric_mode_word(v[i].fabric)));
		json_object_object_add(o, "fit", json_object_new_int(v[i].fit));
		json_object_object_add(o, "fit_empty", json_object_new_int(v[i].fit_empty));
		json_object_object_add(o, "why", v[i].why ? json_object_new_string(v[i].why) : NULL);
		json_object_array_add(all, o);
	}
	return all;
}

void templates_print(const struct template_size *v, size_t n, FILE *out)
{
	if (!n) {
		fputs("this machine has no GPUs to give to VMs\n", out);
		return;
	}
	fprintf(out, "%4s %6s %10s %9s %5s %5s %9s %-7s %s\n", "GPUS", "VCPUS", "MEMORY", "PAGES", "NICS", "NVME", "NVSWITCH", "NVLINK", "FIT NOW");
	for (size_t i = 0; i < n; i++) {
		const struct template_size *t = &v[i];
		char size[32], page[32];

		if (!t->vcpus)
			fprintf(out, "%4d %6s %10s %9s %5s %5s %9s %-7s", t->gpus, "-", "-", "-", "-", "-", "-", "-");
		else
			fprintf(out, "%4d %6d %10s %9s %5d %5d %9d %-7s", t->gpus, t->vcpus, format_size(t->memory_bytes, size), format_size(t->page_bytes, page),
				t->nics, t->nvme, t->nvswitches, fabric_mode_word(t->fabric));
		fprintf(out, " %d of %d%s%s\n", t->fit, t->fit_empty, t->why ? ": " : "", t->why ? t->why : "");
	}
}
