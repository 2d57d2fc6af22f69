/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_compare.c - what the machines of a cluster should have in common, and what two of them have not.
 *
 * NVIDIA, Optimizing VM Configuration for AI Inference: "A cluster must be identically configured - hardware and firmware - in order to reliably be mass
 * deployed using fixed hardware topology maps."  So addresses count, too: a map is made of them. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <string.h>

#include "doctor_priv.h"

/* --- facts ----------------------------------------------------------------------------------------------------------------- */

/* Words of the kernel command line that decide what guests get; others (root=, console=) differ from host to host. */
static const char *const cmdline_words[] = {
	"iommu", "intel_iommu", "amd_iommu", "intremap", "pci", "pcie_acs_override", "pcie_aspm", "hugepagesz", "hugepages", "default_hugepagesz",
	"isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity", "intel_idle.max_cstate", "processor.max_cstate", "idle", "mitigations", "nosmt", "transparent_hugepage",
	"numa_balancing", "pci-stub.ids", "vfio-pci.ids", "vfio_pci.ids", "modprobe.blacklist", "rd.driver.blacklist", "cgroup_disable", "lockdown",
	"clocksource",
};

bool doctor_wants_word(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(cmdline_words); i++)
		if (strlen(cmdline_words[i]) == strcspn(word, "=") && !strncmp(word, cmdline_words[i], strlen(cmdline_words[i])))
			return true;
	return false;
}

static void fact(struct json_object *o, const char *key, const char *fmt, ...) PRINTF(3, 4);
static void fact(struct json_object *o, const char *key, const char *fmt, ...)
{
	char buf[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	json_object_object_add(o, key, json_object_new_string(buf));
}

static void text_fact(struct json_object *o, const char *key, const char *value)
{
	if (value && *value)
		json_object_object_add(o, key, json_object_new_string(value));
}

static void number_fact(struct json_object *o, const char *key, int64_t value)
{
	if (value >= 0)
		fact(o, key, "%" PRId64, value);
}

static void add_cmdline(struct json_object *o, const char *cmdline)
{
	for (size_t i = 0; cmdline && i < ARRAY_SIZE(cmdline_words); i++) {
		AUTO_FREE char *value = doctor_cmdline_value(cmdline, cmdline_words[i]), *key = xasprintf("cmdline %s", cmdline_words[i]);

		if (value)
			text_fact(o, key, *value ? value : "(given)");
		else
			fact(o, key, "(not given)");
	}
}

static void add_nodes(struct json_object *o, const struct topology *t)
{
	char key[64], page[32];

	for (size_t i = 0; i < t->n_nodes; i++) {
		const struct host_node *n = &t->nodes[i];
		AUTO_FREE char *cpus = cpuset_format(&n->cpus);

		snprintf(key, sizeof(key), "node %d CPUs", n->id);
		text_fact(o, key, cpus);
		snprintf(key, sizeof(key), "node %d memory", n->id);
		/* The kernel's own share differs by some MiB from boot to boot. */
		fact(o, key, "%" PRIu64 " GiB", (n->mem_bytes + (UINT64_C(1) << 29)) >> 30);
		for (size_t k = 0; k < n->n_pools; k++) {
			snprintf(key, sizeof(key), "node %d pages of %s", n->id, format_size(n->pools[k].page_bytes, page));
			fact(o, key, "%" PRIu64, n->pools[k].total);
		}
	}
}

static size_t count_role(const struct topology *t, enum pci_role role)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n_funcs; i++)
		n += t->funcs[i].role == role && !t->funcs[i].is_vf;
	return n;
}

struct json_object *doctor_facts_json(const struct doctor *d)
{
	const struct doctor_facts *f = d->f;
	const struct topology *t = d->host;
	struct json_object *o = json_object_new_object();

	text_fact(o, "vendor", f->vendor);
	text_fact(o, "product", f->product);
	text_fact(o, "BIOS", f->bios);
	text_fact(o, "CPU", f->cpu_model);
	text_fact(o, "microcode", f->microcode);
	text_fact(o, "kernel", t->kernel);
	if (f->qemu)
		fact(o, "QEMU", "%d.%d.%d%s%s", f->qemu->major, f->qemu->minor, f->qemu->micro, f->qemu->package ? " " : "",
		     f->qemu->package ? f->qemu->package : "");
	text_fact(o, "NVIDIA driver", f->nvidia_version);
	fact(o, "sockets", "%d", t->n_sockets);
	fact(o, "CPUs", "%zu", t->n_cpus);
	add_nodes(o, t);
	fact(o, "GPUs", "%d", d->n_gpus);
	fact(o, "NICs", "%zu", count_role(t, ROLE_NIC));
	fact(o, "NVMe controllers", "%zu", count_role(t, ROLE_NVME));
	fact(o, "NVSwitches", "%zu", count_role(t, ROLE_NVSWITCH));
	if (!(t->gaps & GAP_GROUPS))
		fact(o, "IOMMU", "%s", t->iommu_groups ? "on" : "off");
	text_fact(o, "SMT", f->smt);
	text_fact(o, "governor", f->governors);
	text_fact(o, "cpuidle driver", f->idle_driver);
	text_fact(o, "transparent huge pages", f->thp);
	number_fact(o, "KSM", f->ksm);
	number_fact(o, "numa_balancing", f->numa_balancing);
	number_fact(o, "nested KVM", f->kvm_nested);
	number_fact(o, "cgroup", f->cgroup);
	add_cmdline(o, f->cmdline);
	return o;
}

/* "gpu 10de:2335, below 0000:17:01.0, node 0, link 32.0 GT/s x16, BARs 257 GiB" */
static struct json_object *function_json(const struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];
	char *text = NULL, up[PCI_ADDR_STR], size[32];
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct json_object *o;

	fprintf(out, "%s %04x:%04x, %s%s, node %d", pci_role_word(f->role), f->vendor, f->device, f->parent >= 0 ? "below " : "on bus ",
		f->parent >= 0 ? pci_addr_format(&d->host->funcs[f->parent].addr, up) : f->root_bus, f->node >= 0 ? d->host->nodes[f->node].id : -1);
	if (f->link.max_mts)
		fprintf(out, ", link %.1f GT/s x%u", f->link.max_mts / 1000.0, f->link.max_width);
	if (f->role != ROLE_BRIDGE && !(d->host->gaps & GAP_BARS))
		fprintf(out, ", BARs %s", format_size(pci_func_bar_bytes(f), size));
	fclose(out);
	o = json_object_new_string(text);
	free(text);
	return o;
}

struct json_object *doctor_functions_json(const struct doctor *d)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		const struct pci_func *f = &d->host->funcs[i];
		char bdf[PCI_ADDR_STR];

		if (f->is_vf || f->role == ROLE_OTHER || (f->role == ROLE_BRIDGE && !d->places[i].path))
			continue;
		json_object_object_add(o, pci_addr_format(&f->addr, bdf), function_json(d, i));
	}
	return o;
}

/* --- comparison ------------------------------------------------------------------------------------------------------------------ */

struct comparison {
	struct json_object *here, *there, *ret;
};

static void differ(struct json_object *ret, const char *kind, const char *key, struct json_object *here, struct json_object *there)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "kind", json_object_new_string(kind));
	json_object_object_add(o, "key", json_object_new_string(key));
	json_object_object_add(o, "here", json_object_get(here));
	json_object_object_add(o, "there", json_object_get(there));
	json_object_array_add(ret, o);
}

/* Two objects of strings. @absent: what only one has is a difference, and not only something that the other does not know. */
static void compare_objects(const struct comparison *c, const char *member, const char *kind, bool absent)
{
	struct json_object *a = json_object_object_get(c->here, member), *b = json_object_object_get(c->there, member);

	json_object_object_foreach(a, key, value) {
		struct json_object *other = json_object_object_get(b, key);

		if ((other || absent) && (!other || !json_object_equal(value, other)))
			differ(c->ret, kind, key, value, other);
	}
	json_object_object_foreach(b, name, only) {
		if (absent && !json_object_object_get(a, name))
			differ(c->ret, kind, name, NULL, only);
	}
}

static const char *member_text(struct json_object *o, const char *key)
{
	const char *s = json_object_get_string(json_object_object_get(o, key));

	return s ? s : "";
}

static bool is_ok(struct json_object *finding)
{
	return !strcmp(member_text(finding, "severity"), "ok");
}

static struct json_object *find_entry(struct json_object *list, const char *code, const char *subject)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);

		if (!strcmp(member_text(o, "code"), code) && (!subject || !strcmp(member_text(o, "subject"), subject)))
			return o;
	}
	return NULL;
}

/* Findings of @a that are not ok, and that @b has not, or not so. @turned: @a is there; what neither calls ok was found the other way round. */
static void compare_findings(struct json_object *a, struct json_object *b, struct json_object *ret, bool turned)
{
	struct json_object *list = json_object_object_get(a, "findings"), *others = json_object_object_get(b, "findings");

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *f = json_object_array_get_idx(list, i), *o;
		const char *code = member_text(f, "code"), *subject = member_text(f, "subject");
		AUTO_FREE char *key = xasprintf("%s: %s", code, subject), *mine = NULL, *theirs = NULL;
		struct json_object *x, *y;

		o = find_entry(others, code, subject);
		if (is_ok(f) || (o && !is_ok(o) && turned) || (o && !strcmp(member_text(o, "severity"), member_text(f, "severity"))))
			continue;
		if (!o && find_entry(json_object_object_get(b, "unknown"), code, NULL))
			continue;
		mine = xasprintf("%s: %s", member_text(f, "severity"), member_text(f, "text"));
		theirs = o ? xasprintf("%s: %s", member_text(o, "severity"), member_text(o, "text")) : NULL;
		x = json_object_new_string(mine);
		y = theirs ? json_object_new_string(theirs) : NULL;
		differ(ret, "finding", key, turned ? y : x, turned ? x : y);
		json_object_put(x);
		json_object_put(y);
	}
}

static bool is_report(struct json_object *o)
{
	static const struct {
		const char *key;
		enum json_type type;
	} members[] = { { "findings", json_type_array }, { "unknown", json_type_array }, { "facts", json_type_object }, { "functions", json_type_object } };
	struct json_object *v;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, "schema", &v) || json_object_get_int(v) != DOCTOR_SCHEMA)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (!json_object_object_get_ex(o, members[i].key, &v) || !json_object_is_type(v, members[i].type))
			return false;
	for (int k = 0; k < 2; k++) {
		struct json_object *list = json_object_object_get(o, members[k].key);

		for (size_t i = 0; i < json_object_array_length(list); i++)
			if (!json_object_is_type(json_object_array_get_idx(list, i), json_type_object))
				return false;
	}
	return true;
}

int doctor_compare(struct json_object *here, struct json_object *there, struct json_object **ret, struct err *e)
{
	struct comparison c = { .here = here, .there = there };

	if (!is_report(there))
		return err_set(e, -EPROTO, "it is not what `gpuvm doctor --json` of this version prints");
	c.ret = json_object_new_array();
	compare_objects(&c, "facts", "fact", false);
	compare_objects(&c, "functions", "function", true);
	compare_findings(here, there, c.ret, false);
	compare_findings(there, here, c.ret, true);
	*ret = c.ret;
	return 0;
}

void doctor_print_differences(struct json_object *differences, FILE *out)
{
	size_t n = json_object_array_length(differences);

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(differences, i);
		const char *here = json_object_get_string(json_object_object_get(o, "here"));
		const char *there = json_object_get_string(json_object_object_get(o, "there"));

		fprintf(out, "%s\n  here:  %s\n  there: %s\n", member_text(o, "key"), here ? here : "-", there ? there : "-");
	}
	fprintf(out, "%s%zu difference%s\n", n ? "\n" : "", n, n == 1 ? "" : "s");
}
