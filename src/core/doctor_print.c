/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_print.c - the report for people and for scripts. */
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

#include "doctor_priv.h"
#include "gpuvm/draw.h"

#define INDENT	 12
#define PER_LINE 8 /* subjects */

static const char *const theme_names[N_THEMES] = {
	[THEME_IOMMU] = "IOMMU, VFIO and KVM", [THEME_DEVICES] = "GPUs and the PCIe tree", [THEME_MEMORY] = "Memory",
	[THEME_CPUS] = "CPUs",		       [THEME_SOFTWARE] = "Software",		    [THEME_RECORDS] = "What gpuvm has written down",
	[THEME_TRANSLATION] = "Translation of DMA and interrupts", [THEME_PEERS] = "Peer-to-peer through the PCIe tree", [THEME_SHARED] = "What tenants share",
};

static const char *mark(enum doctor_severity s, unsigned int flags)
{
	static const char *const plain[] = { [DOCTOR_OK] = "ok     ", [DOCTOR_WARNING] = "warning", [DOCTOR_PROBLEM] = "PROBLEM" };
	static const char *const colour[] = { [DOCTOR_OK] = "\033[32mok     \033[0m",
					      [DOCTOR_WARNING] = "\033[33mwarning\033[0m",
					      [DOCTOR_PROBLEM] = "\033[1;31mPROBLEM\033[0m" };

	return flags & DRAW_COLOR ? colour[s] : plain[s];
}

/* How many findings from @i on say the same of several subjects. */
static size_t run_length(const struct doctor_report *r, size_t i)
{
	size_t n = 1;

	while (i + n < r->n && r->v[i + n].code == r->v[i].code && r->v[i + n].severity == r->v[i].severity && !strcmp(r->v[i + n].text, r->v[i].text))
		n++;
	return n;
}

static bool one_fix(const struct doctor_finding *v, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (strcmp(v[i].fix, v[0].fix))
			return false;
	return true;
}

static void print_fixes(const struct doctor_finding *v, size_t n, FILE *out)
{
	if (!one_fix(v, n)) {
		for (size_t i = 0; i < n; i++)
			fprintf(out, "%*s%s  fix: %s\n", INDENT, "", v[i].subject, v[i].fix);
		return;
	}
	for (size_t i = 0; i < n && n > 1; i++)
		fprintf(out, "%*s%s%s", i % PER_LINE ? 0 : INDENT, "", v[i].subject, i + 1 == n || i % PER_LINE == PER_LINE - 1 ? "\n" : " ");
	if (*v->fix)
		fprintf(out, "%*sfix:    %s\n", INDENT, "", v->fix);
}

/* What was said in the same words of several devices is said once. Returns how many findings that were. */
static size_t print_findings(const struct doctor_report *r, size_t i, unsigned int flags, FILE *out)
{
	const struct doctor_finding *f = &r->v[i];
	size_t n = run_length(r, i);
	bool named = n == 1 && strcmp(f->subject, "host") != 0;

	fprintf(out, "  %s  %s: %s%s%s\n", mark(f->severity, flags), f->code->word, named ? f->subject : "", named ? ": " : "", f->text);
	if (f->severity == DOCTOR_OK)
		return n;
	print_fixes(f, n, out);
	/* Below the last one of its code. */
	if (i + n == r->n || f[n].code != f->code || f[n].severity == DOCTOR_OK)
		fprintf(out, "%*scost:   %s\n%*ssource: %s\n", INDENT, "", f->code->cost, INDENT, "", f->code->source);
	return n;
}

static void print_unknown(const struct doctor_report *r, FILE *out)
{
	if (r->n_unknown)
		fputs("\nNot known\n", out);
	for (size_t i = 0; i < r->n_unknown; i++)
		fprintf(out, "  %s: %s\n", r->unknown[i].code->word, r->unknown[i].why);
}

void doctor_print_report(const struct doctor_report *r, unsigned int flags, FILE *out)
{
	int theme = -1;

	for (size_t i = 0; i < r->n;) {
		if ((int)r->v[i].code->theme != theme) {
			theme = (int)r->v[i].code->theme;
			fprintf(out, "\n%s\n", theme_names[theme]);
		}
		i += print_findings(r, i, flags, out);
	}
	print_unknown(r, out);
	fprintf(out, "\n%zu problem%s, %zu warning%s, %zu ok; %zu not known\n", r->count[DOCTOR_PROBLEM], r->count[DOCTOR_PROBLEM] == 1 ? "" : "s",
		r->count[DOCTOR_WARNING], r->count[DOCTOR_WARNING] == 1 ? "" : "s", r->count[DOCTOR_OK], r->n_unknown);
}

void doctor_print(const struct doctor_facts *f, const struct doctor_report *r, unsigned int flags, FILE *out)
{
	fprintf(out, "%s, Linux %s", *f->host->host_name ? f->host->host_name : "this host", *f->host->kernel ? f->host->kernel : "of unknown version");
	if (f->product)
		fprintf(out, ", %s%s%s", f->vendor ? f->vendor : "", f->vendor ? " " : "", f->product);
	if (f->uptime_s >= 0)
		fprintf(out, ", up %" PRId64 " d %" PRId64 " h", f->uptime_s / 86400, f->uptime_s / 3600 % 24);
	fputc('\n', out);
	doctor_print_report(r, flags, out);
}

/* --- JSON ------------------------------------------------------------------------------------------------------------------ */

static void add_str(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static struct json_object *strings_json(const struct strv *s)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < s->n; i++)
		json_object_array_add(a, json_object_new_string(s->v[i]));
	return a;
}

static struct json_object *finding_json(const struct doctor_finding *f, bool tenants)
{
	struct json_object *o = json_object_new_object();

	add_str(o, "code", f->code->word);
	add_str(o, "severity", doctor_severity_word(f->severity));
	add_str(o, "subject", f->subject);
	add_str(o, "text", f->text);
	add_str(o, "cost", f->severity == DOCTOR_OK ? "" : f->code->cost);
	add_str(o, "fix", f->fix);
	add_str(o, "source", f->code->source);
	if (tenants) {
		json_object_object_add(o, "vms", strings_json(&f->vms));
		json_object_object_add(o, "devices", strings_json(&f->devices));
		json_object_object_add(o, "refusal", f->refusal ? json_object_new_string(f->refusal) : NULL);
	}
	return o;
}

static struct json_object *unknown_json(const struct doctor_unknown *u)
{
	struct json_object *o = json_object_new_object();

	add_str(o, "code", u->code->word);
	add_str(o, "why", u->why);
	return o;
}

struct json_object *doctor_report_json(const char *host, const struct doctor_report *r, bool tenants)
{
	struct json_object *o = json_object_new_object(), *findings = json_object_new_array(), *unknown = json_object_new_array();

	for (size_t i = 0; i < r->n; i++)
		json_object_array_add(findings, finding_json(&r->v[i], tenants));
	for (size_t i = 0; i < r->n_unknown; i++)
		json_object_array_add(unknown, unknown_json(&r->unknown[i]));
	json_object_object_add(o, "schema", json_object_new_int(DOCTOR_SCHEMA));
	add_str(o, "host", host);
	json_object_object_add(o, "problems", json_object_new_uint64(r->count[DOCTOR_PROBLEM]));
	json_object_object_add(o, "warnings", json_object_new_uint64(r->count[DOCTOR_WARNING]));
	json_object_object_add(o, "findings", findings);
	json_object_object_add(o, "unknown", unknown);
	return o;
}

struct json_object *doctor_to_json(const struct doctor_facts *f, const struct doctor_report *r)
{
	struct json_object *o = doctor_report_json(f->host->host_name, r, false);
	struct doctor d;

	doctor_find_places(f, &d);
	json_object_object_add(o, "facts", doctor_facts_json(&d));
	json_object_object_add(o, "functions", doctor_functions_json(&d));
	free(d.places);
	return o;
}
