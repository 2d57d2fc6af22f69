/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The matrix and the picture. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <ctype.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "gpuvm/draw.h"
#include "gpuvm/probe.h"
#include "tests/fake/mkhost.h"

static struct topology probe_fixture(const char *name)
{
	struct topology t = { 0 };
	struct err e = { 0 };
	char *dir = mkhost_fixture(name);

	cr_assert_not_null(dir);
	cr_assert(eq(int, probe_host(dir, &t, &e), 0), "%s", e.msg);
	mkhost_remove(dir);
	return t;
}

/* A VM that has a GPU, CPUs and memory of node index 0. */
struct tenant {
	struct used_device device;
	struct used_cpus cpus;
	struct used_memory memory;
	struct host_use use;
};

static void tenant_init(struct tenant *v, const struct topology *t, const char *name)
{
	*v = (struct tenant){ 0 };
	snprintf(v->device.vm, sizeof(v->device.vm), "%s", name);
	snprintf(v->cpus.vm, sizeof(v->cpus.vm), "%s", name);
	snprintf(v->memory.vm, sizeof(v->memory.vm), "%s", name);
	v->device.addr = t->funcs[topology_find_gpu(t, 0)].addr;
	cpuset_add(&v->cpus.cpus, 2);
	v->memory = (struct used_memory){ .host_node = t->nodes[0].id, .bytes = UINT64_C(64) << 30, .page_bytes = 1 << 30 };
	snprintf(v->memory.vm, sizeof(v->memory.vm), "%s", name);
	v->use = (struct host_use){ .devices = &v->device, .n_devices = 1, .cpus = &v->cpus, .n_cpus = 1, .memory = &v->memory, .n_memory = 1 };
}

static char *matrix(const struct topology *t, const struct host_use *use, unsigned int flags)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	topology_print_matrix(t, use, flags, f);
	fclose(f);
	return text;
}

static char *svg(const struct topology *t, const struct host_use *use)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	topology_draw_svg(t, use, f);
	fclose(f);
	return text;
}

/* --- matrix ---------------------------------------------------------------------------------------------- */

Test(matrix, golden)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	static const char path[] = "tests/golden/topo/xe9680-h200.matrix";
	AUTO_FREE char *got = matrix(&t, NULL, 0), *want = NULL;

	if (getenv("GPUVM_UPDATE_GOLDEN"))
		cr_assert(eq(int, write_file_atomic(path, got, strlen(got), 0644), 0));
	cr_assert(eq(int, read_text_file(path, 1 << 20, &want), 0));
	got[strlen(got) - 1] = '\0';
	cr_assert_str_eq(got, want);
}

static const char *relation(struct json_object *o, const char *a, const char *b)
{
	struct json_object *relations = NULL, *row = NULL, *v = NULL;

	cr_assert(json_object_object_get_ex(o, "relations", &relations));
	cr_assert(json_object_object_get_ex(relations, a, &row), "no row %s", a);
	cr_assert(json_object_object_get_ex(row, b, &v), "no column %s", b);
	return json_object_get_string(v);
}

/* Names as NVIDIA's "Optimizing VM Configuration for AI Inference" has them: G0-G7, N0-N7, S0-S9. */
Test(matrix, xe9680_has_the_whole_table_of_the_paper)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	struct json_object *o = topology_matrix_to_json(&t, NULL);
	static const struct {
		const char *gpu, *others, *word;
	} rows[] = {
		{ "G0", "N0 S0 S1", "PIX" }, { "G1", "N1 S2 S3", "PIX" }, { "G2", "N2 S4", "PIX" },  { "G3", "N3 S5", "PIX" },
		{ "G4", "N4 S6", "PIX" },    { "G5", "N5 S7", "PIX" },	  { "G6", "N6 S8", "PIX" },  { "G7", "N7 S9", "PIX" },
		{ "G0", "N2 S5", "NODE" },   { "G2", "N1 S0", "NODE" },	  { "G4", "N7 S8", "NODE" }, { "G7", "N5 S6", "NODE" },
		{ "G1", "N4 S8", "SYS" },    { "G5", "N2 S3", "SYS" },	  { "G0", "G0", "X" },	     { "G0", "G3", "NODE" },
		{ "G0", "G4", "SYS" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char buf[32], *save = NULL;

		snprintf(buf, sizeof(buf), "%s", rows[i].others);
		for (char *s = strtok_r(buf, " ", &save); s; s = strtok_r(NULL, " ", &save))
			cr_assert_str_eq(relation(o, rows[i].gpu, s), rows[i].word, "%s to %s", rows[i].gpu, s);
	}
	json_object_put(o);
}

Test(matrix, sixteen_gpus_fit_a_terminal)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("dgx2");
	AUTO_FREE char *text = matrix(&t, NULL, 0);
	char *save = NULL;

	cr_assert_not_null(strstr(text, "\nG15 "));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		cr_assert(strchr(line, ':') || strlen(line) <= 110, "%s", line);
		cr_assert(ne(int, line[strlen(line) - 1], ' '), "blank at the end: '%s'", line);
	}
}

Test(matrix, names_vms_and_has_all_words)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("h200-cx7-4-stacked");
	static const char *const words[] = { "PIX", "PXB", "PHB", "NODE", "SYS" };
	struct tenant v;
	AUTO_FREE char *text = NULL, *colour = NULL;

	tenant_init(&v, &t, "half0");
	text = matrix(&t, &v.use, 0);
	colour = matrix(&t, &v.use, DRAW_COLOR);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		AUTO_FREE char *row = xasprintf("\n  %-4s  ", words[i]);

		cr_assert_not_null(strstr(text, row), "legend of %s", words[i]);
	}
	cr_assert_not_null(strstr(text, "; vm half0\n"));
	cr_assert_not_null(strstr(text, "in use by host: ens1f0np0"));
	cr_assert_null(strstr(text, "\033"));
	cr_assert_not_null(strstr(colour, "\033[1;32mPIX\033[0m"));
}

Test(matrix, without_gpus_it_is_of_nics)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("plain");
	AUTO_FREE char *text = matrix(&t, NULL, 0);

	cr_assert_not_null(strstr(text, "\nN0   X    PHB\n"), "%s", text);
}

/* --- the picture -------------------------------------------------------------------------------------------- */

struct xml {
	const char *at;
	char open[64][16];
	size_t depth;
};

static void skip_name(struct xml *x, char *name, size_t size)
{
	size_t n = 0;

	while (isalnum((unsigned char)*x->at) || strchr("-:_", *x->at)) {
		if (n + 1 < size)
			name[n++] = *x->at;
		x->at++;
	}
	name[n] = '\0';
	cr_assert(gt(sz, n, 0), "a name is missing at '%.40s'", x->at);
}

/* "&amp;" and the like; anything else after & is wrong. */
static void check_reference(const char *s)
{
	static const char *const ok[] = { "&amp;", "&lt;", "&gt;", "&quot;" };

	for (size_t i = 0; i < ARRAY_SIZE(ok); i++)
		if (!strncmp(s, ok[i], strlen(ok[i])))
			return;
	cr_assert(false, "reference at '%.20s'", s);
}

static void check_attributes(struct xml *x)
{
	char name[32];

	for (;;) {
		x->at += strspn(x->at, " \n");
		if (*x->at == '>' || *x->at == '/' || *x->at == '?')
			return;
		skip_name(x, name, sizeof(name));
		cr_assert(eq(int, strncmp(x->at, "=\"", 2), 0), "attribute %s", name);
		for (x->at += 2; *x->at != '"'; x->at++) {
			cr_assert(strchr("<", *x->at) == NULL, "inside %s", name); /* nor the end */
			if (*x->at == '&')
				check_reference(x->at);
		}
		x->at++;
	}
}

static void check_tag(struct xml *x)
{
	char name[16];

	if (x->at[1] == '/') {
		x->at += 2;
		skip_name(x, name, sizeof(name));
		cr_assert(gt(sz, x->depth, 0));
		cr_assert_str_eq(name, x->open[--x->depth]);
		cr_assert(eq(int, *x->at++, '>'));
		return;
	}
	x->at += 1 + (x->at[1] == '?');
	skip_name(x, name, sizeof(name));
	check_attributes(x);
	if (*x->at == '>') {
		cr_assert(lt(sz, x->depth, 64));
		snprintf(x->open[x->depth++], sizeof(x->open[0]), "%s", name);
		x->at++;
	} else {
		cr_assert(eq(int, x->at[1], '>'));
		x->at += 2;
	}
}

static void assert_well_formed(const char *text)
{
	struct xml x = { .at = text };

	while (*x.at) {
		unsigned char c = (unsigned char)*x.at;

		if (c == '<') {
			check_tag(&x);
			continue;
		}
		cr_assert(c >= 0x20 || c == '\n', "control character %u", c);
		if (c == '&')
			check_reference(x.at);
		x.at++;
	}
	cr_assert(eq(sz, x.depth, 0));
}

/* Every rectangle is on the page. */
static void assert_on_page(const char *text)
{
	double w, h, x, y, rw, rh;
	const char *s = strstr(text, "<svg");

	cr_assert(eq(int, sscanf(s, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%lf\" height=\"%lf\"", &w, &h), 2));
	for (; (s = strstr(s, "<rect ")); s++) {
		cr_assert(eq(int, sscanf(s, "<rect x=\"%lf\" y=\"%lf\" width=\"%lf\" height=\"%lf\"", &x, &y, &rw, &rh), 4));
		cr_assert(x >= 0 && y >= 0 && rw >= 0 && rh >= 0 && x + rw <= w + 0.1 && y + rh <= h + 0.1, "%.80s", s);
	}
}

Test(svg, every_machine, .timeout = 60)
{
	static const char *const fixtures[] = { "xe9680-h200", "dgx2", "desktop", "h200-cx7-4-stacked", "plain", "lab", "hgx-h100" };

	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++) {
		CLEANUP(topology_clear) struct topology t = probe_fixture(fixtures[i]);
		AUTO_FREE char *text = svg(&t, NULL), *again = svg(&t, NULL);

		assert_well_formed(text);
		assert_on_page(text);
		cr_assert_str_eq(text, again);
	}
}

Test(svg, shows_all_that_can_be_given_to_a_vm)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("dgx2");
	AUTO_FREE char *text = svg(&t, NULL);
	char bdf[PCI_ADDR_STR];

	for (size_t i = 0; i < t.n_funcs; i++)
		if (t.funcs[i].role != ROLE_OTHER && t.funcs[i].role != ROLE_BRIDGE)
			cr_assert_not_null(strstr(text, pci_addr_format(&t.funcs[i].addr, bdf)), "%s", bdf);
	cr_assert_not_null(strstr(text, ">GPU 15<"));
}

Test(svg, escapes_names_and_colours_vms)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("xe9680-h200");
	struct tenant v;
	AUTO_FREE char *text = NULL, *plain = svg(&t, NULL);

	tenant_init(&v, &t, "a<b>&\"c");
	snprintf(t.host_name, sizeof(t.host_name), "x<&>\x01\xff\xc3\xa9");
	snprintf(t.funcs[topology_find_gpu(&t, 0)].name, sizeof(t.funcs->name), "<script>&amp; \xf0\x9f");
	text = svg(&t, &v.use);
	assert_well_formed(text);
	assert_on_page(text);
	cr_assert_not_null(strstr(text, "x&lt;&amp;&gt;??\xc3\xa9"));
	cr_assert_null(strstr(text, "<script>"));
	cr_assert_not_null(strstr(text, ">a&lt;b&gt;&amp;&quot;c<"));
	cr_assert_not_null(strstr(text, "#3465a4"));
	cr_assert_null(strstr(plain, "#3465a4"), "colour means a VM");
}

/* The real parser, where there is one. */
Test(svg, xmllint_reads_it)
{
	CLEANUP(topology_clear) struct topology t = probe_fixture("h200-cx7-4-stacked");
	AUTO_FREE char *text = svg(&t, NULL);
	FILE *f;

	if (access("/usr/bin/xmllint", X_OK) < 0)
		cr_skip_test("no xmllint");
	f = popen("/usr/bin/xmllint --noout -", "w");
	cr_assert_not_null(f);
	fputs(text, f);
	cr_assert(eq(int, pclose(f), 0));
}
