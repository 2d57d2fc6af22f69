/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Golden plans: tests/golden/NAME.ini planned for a machine of tests/fixtures, compared with NAME.expect: the command, the plan
 * with its reasons, and warnings; or, for a refusal, the problems.
 *
 * Comments in the .ini say how:  "# host: FIXTURE", "# qemu: 10.0.13" (a recorded one, see fakeqemu.h; default 7.2.22), "# after: NAME" (that VM runs already; may be repeated).
 * GPUVM_UPDATE_GOLDEN=1 rewrites the .expect files: read the difference before it is committed. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "gpuvm/acs.h"
#include "gpuvm/capture.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"
#include "tests/unit/golden.h"

struct machine {
	struct topology host;
	struct fabric_map fabric;
	struct doctor_func *config;
	struct host_use use;
};

static const char *golden_dir(void)
{
	const char *dir = getenv("GPUVM_GOLDEN");

	return dir ? dir : "tests/golden";
}

/* The rest of the line "# KEY: value" number @nth in @text; owned, NULL if there is none. */
static char *directive(const char *text, const char *key, int nth)
{
	AUTO_FREE char *head = xasprintf("# %s: ", key);

	for (const char *p = text; (p = strstr(p, head)); p += strlen(head))
		if ((p == text || p[-1] == '\n') && nth-- == 0)
			return xstrndup(p + strlen(head), strcspn(p + strlen(head), "\n"));
	return NULL;
}

static char *read_case(const char *name, const char *suffix)
{
	AUTO_FREE char *path = xasprintf("%s/%s.%s", golden_dir(), name, suffix);
	char *text = NULL;
	int r = read_text_file(path, 1 << 20, &text);

	cr_assert(r == 0 || (r == -ENOENT && strcmp(suffix, "expect") == 0), "%s: %s", path, strerror(-r));
	return text;
}

/* @run NULL: as it is recorded. */
static int make(const char *name, const struct golden_run *run, const struct machine *m, struct vm_config *vm, struct plan *ret, struct problems *ps)
{
	AUTO_FREE char *text = read_case(name, "ini"), *version = directive(text, "qemu", 0), *file = xasprintf("%s.ini", name);
	struct qemu_info q = run ? *run->qemu : fake_qemu(version ? version : "7.2.22");
	AUTO_FREE char *rundir = NULL;
	struct plan_request req = { .vm = vm, .host = &m->host, .use = &m->use, .fabric = &m->fabric, .config = m->config, .qemu = &q, .statedir = "/var/lib/gpuvm", .foreign_host = true };
	int r;

	r = config_parse(file, text, strlen(text), NULL, vm, ps);
	if (r < 0)
		return r;
	rundir = xasprintf("/run/gpuvm/%s", vm->name);
	req.rundir = run ? run->dir : rundir;
	if (run) {
		run->adapt(vm, run->dir);
		req.seed_tool = "xorriso";
		req.swtpm = "swtpm";
		req.statedir = run->dir;
		req.here = run->here;
		req.fake_devices = true;
	} else {
		q.ovmf_code = (char *)"/usr/share/OVMF/OVMF_CODE_4M.fd";
		q.ovmf_vars = (char *)"/usr/share/OVMF/OVMF_VARS_4M.fd";
	}
	return plan_make(&req, ret, ps);
}

static void add_earlier(const char *text, struct machine *m)
{
	for (int i = 0;; i++) {
		AUTO_FREE char *other = directive(text, "after", i);
		struct problems ps = { 0 };
		struct vm_config vm = { 0 };
		struct plan p = { 0 };

		if (!other)
			return;
		if (make(other, NULL, m, &vm, &p, &ps) < 0) {
			problems_print(&ps, stderr);
			cr_assert_fail("'%s' cannot be planned", other);
		}
		host_use_add(&m->use, &p, 4711);
		plan_clear(&p);
		config_clear(&vm);
	}
}

/* Whatever can be read back must be what was written. */
static void check_round_trip(const struct plan *p)
{
	struct json_object *o = plan_to_json(p), *again;
	struct plan back = { 0 };
	struct err e = { 0 };

	cr_assert(plan_from_json(o, &back, &e) == 0, "%s", e.msg);
	again = plan_to_json(&back);
	static const char *const keys[] = { "vm", "qemu", "nodes", "vcpus", "bind", "acs", "housekeeping_cpus", "emulator_cpus", "iothreads", "mmio64_bytes", "fabric", "taps", "vsock", "lifecycle", "hooks" };
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		cr_expect(json_object_equal(json_object_object_get(o, keys[i]), json_object_object_get(again, keys[i])), "%s differs", keys[i]);
	json_object_put(o);
	json_object_put(again);
	plan_clear(&back);
}

/* The machine of a case: a description of tests/fixtures, or a capture (NAME.tar.gz). To be given to capture_remove(). */
static char *machine_root(const char *fixture)
{
	const char *dir = getenv("GPUVM_FIXTURES");
	AUTO_FREE char *tar = xasprintf("%s/%s.tar.gz", dir ? dir : "tests/fixtures", fixture);
	char *root = NULL;
	struct err e = { 0 };

	if (access(tar, R_OK) < 0)
		return mkhost_fixture(fixture);
	cr_assert(capture_unpack(tar, &root, &e) == 0, "%s", e.msg);
	return root;
}

int golden_plan(const char *name, const struct golden_run *run, struct vm_config *vm, struct plan *ret, struct problems *ps)
{
	AUTO_FREE char *text = read_case(name, "ini"), *fixture = directive(text, "host", 0), *root = NULL;
	struct machine m = { 0 };
	struct err e = { 0 };
	int r;

	cr_assert(fixture, "%s.ini has no '# host:' line", name);
	root = machine_root(fixture);
	cr_assert(root);
	cr_assert(probe_host(root, &m.host, &e) == 0, "%s", e.msg);
	cr_assert(fabric_map_load(root, &m.fabric, ps) == 0);
	fabric_map_apply(&m.fabric, &m.host);
	m.config = acs_read(root, &m.host);
	add_earlier(text, &m);
	r = make(name, run, &m, vm, ret, ps);
	host_use_clear(&m.use);
	fabric_map_clear(&m.fabric);
	free(m.config);
	topology_clear(&m.host);
	mkhost_remove(STEAL_PTR(root));
	return r;
}

static char *render(const char *name)
{
	struct problems ps = { 0 };
	struct vm_config vm = { 0 };
	struct plan p = { 0 };
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	if (golden_plan(name, NULL, &vm, &p, &ps) < 0) {
		fprintf(f, "exit %d\n", problems_exit_code(&ps));
		for (size_t i = 0; i < ps.n; i++)
			fprintf(f, "%s\n", ps.v[i].code);
		problems_print(&ps, f);
	} else {
		check_round_trip(&p);
		for (size_t i = 0; i < p.n_args; i++)
			fprintf(f, "%s%s%s\n", p.args[i].flag, p.args[i].value ? " " : "", p.args[i].value ? p.args[i].value : "");
		fputs("---\n", f);
		plan_print(&p, true, f);
	}
	fclose(f);
	plan_clear(&p);
	config_clear(&vm);
	problems_clear(&ps);
	return out;
}

/* The first line in which two texts differ, for a message that can be read. */
static void explain_difference(const char *name, const char *want, const char *got)
{
	int line = 1;

	while (*want && *want == *got) {
		line += *want == '\n';
		want++;
		got++;
	}
	while (line > 1 && want[-1] != '\n') {
		want--;
		got--;
	}
	cr_assert_fail("%s.expect:%d: expected\n  %.*s\nbut got\n  %.*s", name, line, (int)strcspn(want, "\n"), want, (int)strcspn(got, "\n"), got);
}

static void add_golden(struct golden **v, size_t *n, const char *name)
{
	struct golden *bigger = cr_malloc((*n + 1) * sizeof(*bigger));

	if (*n)
		memcpy(bigger, *v, *n * sizeof(*bigger));
	cr_free(*v);
	*v = bigger;
	snprintf((*v)[*n].name, sizeof((*v)[*n].name), "%s", name);
	(*n)++;
}

static int golden_cmp(const void *a, const void *b)
{
	return strcmp(((const struct golden *)a)->name, ((const struct golden *)b)->name);
}

struct golden *golden_cases(size_t *ret_n)
{
	struct golden *v = NULL;
	size_t n = 0;
	AUTO_CLOSEDIR DIR *d = opendir(golden_dir());
	struct dirent *de;

	while (d && (de = readdir(d))) {
		size_t len = strlen(de->d_name);

		if (len > 4 && strcmp(de->d_name + len - 4, ".ini") == 0) {
			de->d_name[len - 4] = '\0';
			add_golden(&v, &n, de->d_name);
		}
	}
	if (n)
		qsort(v, n, sizeof(*v), golden_cmp);
	*ret_n = n;
	return v;
}

ParameterizedTestParameters(golden, plans)
{
	size_t n = 0;
	struct golden *v = golden_cases(&n);

	return cr_make_param_array(struct golden, v, n, NULL);
}

ParameterizedTest(struct golden *g, golden, plans, .timeout = 60)
{
	AUTO_FREE char *got = render(g->name), *again = render(g->name), *want = read_case(g->name, "expect");
	AUTO_FREE char *path = xasprintf("%s/%s.expect", golden_dir(), g->name);

	cr_assert_str_eq(got, again, "planning twice gives two plans");
	if (getenv("GPUVM_UPDATE_GOLDEN")) {
		cr_assert(write_file_atomic(path, got, strlen(got), 0644) == 0);
		return;
	}
	cr_assert(want, "there is no %s", path);
	got[strlen(got) - 1] = '\0'; /* read_text_file() takes the last newline off */
	if (strcmp(got, want) != 0)
		explain_difference(g->name, want, got);
}

Test(golden, there_are_cases)
{
	AUTO_FREE char *text = read_case("xe9680-half0", "ini");

	cr_assert(text);
}
