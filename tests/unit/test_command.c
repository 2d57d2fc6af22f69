/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The printed command: what a shell makes of it, and that it starts the VM. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gpuvm/argv_diff.h"
#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

/* --- a plan with nasty names ------------------------------------------------------------------------------------------ */

/* A folder whose name is one itself. */
struct place {
	char root[64];
	char *dir, *rundir, *qemu;
};

static void make_folder(const char *path)
{
	cr_assert(mkdir(path, 0755) == 0, "%s: %s", path, strerror(errno));
}

static void place_start(struct place *p)
{
	/* Prints its arguments, and so is a QEMU whose command line can be read back. */
	static const char script[] = "#!/bin/sh\nprintf '%s\\0' \"$0\" \"$@\"\n";

	*p = (struct place){ .root = "/tmp/gpuvm-command-XXXXXX" };
	cr_assert(mkdtemp(p->root));
	cr_assert(chmod(p->root, 0755) == 0); /* as /run: QEMU's user goes through it */
	p->dir = xasprintf("%s/a b,c'd\"e$f", p->root);
	make_folder(p->dir);
	p->rundir = xasprintf("%s/r u,,n/nasty", p->dir);
	p->qemu = xasprintf("%s/qemu,'s", p->dir);
	cr_assert(write_file_atomic(p->qemu, script, strlen(script), 0755) == 0);
}

static void place_end(struct place *p)
{
	AUTO_FREE char *command = xasprintf("rm -rf %s", p->root);

	cr_assert(system(command) == 0);
	free(p->dir);
	free(p->rundir);
	free(p->qemu);
}

/* @text with each @DIR@ replaced; owned. */
static char *with_dir(const char *text, const char *dir)
{
	static const char mark[] = "@DIR@";
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	for (const char *at; (at = strstr(text, mark)); text = at + strlen(mark))
		fprintf(f, "%.*s%s", (int)(at - text), text, dir);
	fputs(text, f);
	fclose(f);
	return out;
}

static char *read_fixture(const char *dir)
{
	AUTO_FREE char *text = NULL;

	cr_assert(read_text_file("tests/fixtures/nasty/names.ini", 1 << 20, &text) == 0);
	return with_dir(text, dir);
}

/* Plan the fixture; @q NULL: for QEMU 7.2. Returns what plan_make() does. */
static int try_plan(const struct place *at, const struct plan_request *more, const struct strv *sets, const struct qemu_info *q,
		    struct vm_config *vm, struct plan *ret, struct problems *ps)
{
	AUTO_FREE char *text = read_fixture(at->dir), *root = mkhost_fixture("plain");
	struct qemu_info qemu = q ? *q : fake_qemu("7.2.22");
	struct plan_request req = *more;
	struct topology host = { 0 };
	struct err e = { 0 };
	int r;

	cr_assert(root);
	cr_assert(probe_host(root, &host, &e) == 0, "%s", e.msg);
	cr_assert(config_parse("names.ini", text, strlen(text), sets, vm, ps) == 0, "%s", ps->n ? ps->v[0].message : "");
	qemu.path = at->qemu;
	req.vm = vm;
	req.host = &host;
	req.qemu = &qemu;
	req.rundir = at->rundir;
	req.statedir = at->dir;
	req.foreign_host = true;
	req.fake_devices = true;
	r = plan_make(&req, ret, ps);
	topology_clear(&host);
	mkhost_remove(STEAL_PTR(root));
	return r;
}

static void make_plan(const struct place *at, const struct plan_request *more, struct vm_config *vm, struct plan *ret)
{
	struct problems ps = { 0 };

	cr_assert(try_plan(at, more, NULL, NULL, vm, ret, &ps) == 0, "%s", ps.n ? ps.v[0].message : "");
}

/* --- read back --------------------------------------------------------------------------------------------------------- */

/* What @shell runs when it is given the printed command: words of argv. */
static struct strv run_printed(const struct place *at, const struct plan *p, enum plan_format form, bool explain, const char *shell)
{
	AUTO_FREE char *script = xasprintf("%s/script", at->root), *command = xasprintf("%s %s", shell, script), *text = NULL, *word = NULL;
	struct strv got = { 0 };
	size_t len, size = 0;
	FILE *f = open_memstream(&text, &len);

	plan_print_command(p, form, explain, f);
	fclose(f);
	cr_assert(write_file_atomic(script, text, len, 0700) == 0);
	f = popen(form == PLAN_SCRIPT ? script : command, "r");
	while (getdelim(&word, &size, '\0', f) > 0)
		strv_push(&got, word);
	cr_assert(pclose(f) == 0, "%s", text);
	return got;
}

/* The argv of gpuvm-launch, without -S: nobody would let the guest run. */
static struct strv expected_argv(const struct plan *p)
{
	struct strv all = { 0 }, want = { 0 };

	plan_argv(p, NULL, &all);
	cr_assert(strv_contains(&all, "-S"));
	for (size_t i = 0; i < all.n; i++)
		if (strcmp(all.v[i], "-S") != 0)
			strv_push(&want, all.v[i]);
	strv_clear(&all);
	return want;
}

static void expect_words(const struct strv *got, const struct strv *want, const char *what)
{
	cr_assert(got->n == want->n, "%s: %zu words, expected %zu", what, got->n, want->n);
	for (size_t i = 0; i < want->n; i++)
		cr_assert_str_eq(got->v[i], want->v[i], "%s: word %zu: '%s' is not '%s'", what, i, got->v[i], want->v[i]);
}

Test(command, every_shell_reads_it_back, .timeout = 60)
{
	static const struct {
		const char *shell;
		enum plan_format form;
		bool explain;
	} ways[] = { { "sh", PLAN_SHELL, false },	{ "dash", PLAN_SHELL, false }, { "bash", PLAN_SHELL, false },
		     { "bash", PLAN_SHELL, true },	{ "sh", PLAN_SCRIPT, false },  { "bash", PLAN_SCRIPT, true },
		     { "bash --posix", PLAN_SHELL, false }, { "bash -euo pipefail", PLAN_SHELL, true } };
	const struct plan_request none = { 0 };
	struct vm_config vm = { 0 };
	struct plan p = { 0 };
	struct strv want;
	struct place at;

	place_start(&at);
	make_plan(&at, &none, &vm, &p);
	want = expected_argv(&p);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct strv got = run_printed(&at, &p, ways[i].form, ways[i].explain, ways[i].shell);

		expect_words(&got, &want, ways[i].shell);
		strv_clear(&got);
	}
	strv_clear(&want);
	plan_clear(&p);
	config_clear(&vm);
	place_end(&at);
}

/* Every name of a disk is in the command, and is taken out of it again. */
Test(command, names_come_back_from_options)
{
	const struct plan_request none = { 0 };
	struct argv_options o;
	struct strv argv = { 0 };
	struct vm_config vm = { 0 };
	struct plan p = { 0 };
	struct place at;

	place_start(&at);
	make_plan(&at, &none, &vm, &p);
	plan_argv(&p, NULL, &argv);
	argv_options_read(&argv, p.qemu_binary, &p.env, &o);
	for (size_t i = 0; i < vm.n_disks; i++) {
		AUTO_FREE char *node = xasprintf("disk-%s", vm.disks[i].name);
		const char *file = NULL;

		for (size_t k = 0; k < o.n; k++)
			if (strcmp(o.v[k].flag, "-blockdev") == 0 && strcmp(o.v[k].id, node) == 0)
				file = argv_option_get(&o.v[k], "file.filename");
		cr_assert(file, "%s", node);
		cr_expect_str_eq(file, vm.disks[i].file);
	}
	cr_expect(vm.n_disks > 15);
	argv_options_clear(&o);
	strv_clear(&argv);
	plan_clear(&p);
	config_clear(&vm);
	place_end(&at);
}

/* --- what goes before ------------------------------------------------------------------------------------------------ */

static void touch(const char *path)
{
	cr_assert(write_file_atomic(path, "x", 1, 0600) == 0, "%s", path);
}

Test(command, makes_what_it_needs_and_spares_what_runs, .timeout = 60)
{
	const struct plan_request none = { 0 };
	struct vm_config vm = { 0 };
	struct plan p = { 0 };
	struct place at;
	struct stat st;
	struct strv got;
	AUTO_FREE char *claim = NULL, *text = NULL, *script = NULL, *err = NULL, *command = NULL;

	place_start(&at);
	make_plan(&at, &none, &vm, &p);
	claim = xasprintf("%s/claim.json", at.rundir);

	got = run_printed(&at, &p, PLAN_SHELL, false, "sh");
	strv_clear(&got);
	cr_assert(stat(at.rundir, &st) == 0);
	cr_expect((st.st_mode & 0777) == 0700);

	/* A VM that runs: nothing of it is touched, and QEMU is not run. */
	touch(claim);
	script = xasprintf("%s/script", at.root);
	command = xasprintf("sh %s >%s/out 2>%s/err", script, at.root, at.root);
	cr_expect(WEXITSTATUS(system(command)) == 1);
	free(STEAL_PTR(command));
	command = xasprintf("%s/err", at.root);
	cr_assert(read_text_file(command, 4096, &err) == 0);
	cr_expect(strstr(err, "VM nasty runs already"), "%s", err);
	free(STEAL_PTR(command));
	command = xasprintf("%s/out", at.root);
	cr_assert(read_text_file(command, 4096, &text) == 0);
	cr_expect_str_eq(text, "");
	unlink(claim);

	/* Something fails: QEMU is not run. A later step does not hide it. */
	plan_prepare(&p, "a test", "false");
	plan_prepare(&p, "a test", "test -e / || true");
	free(STEAL_PTR(text));
	{
		size_t len;
		FILE *f = open_memstream(&text, &len);

		plan_print_command(&p, PLAN_SHELL, false, f);
		fclose(f);
		cr_assert(write_file_atomic(script, text, len, 0600) == 0);
	}
	free(STEAL_PTR(command));
	command = xasprintf("test -z \"$(sh %s)\"", script);
	cr_expect(system(command) == 0);
	plan_clear(&p);
	config_clear(&vm);
	place_end(&at);
}

Test(command, uefi_variables_are_copied_once, .timeout = 60)
{
	struct vm_config vm = { 0 };
	struct plan p = { 0 };
	struct place at;
	struct stat st;
	AUTO_FREE char *vars = NULL, *template = NULL;

	place_start(&at);
	vars = xasprintf("%s/vars/nasty.fd", at.dir);
	template = xasprintf("%s/templ'ate", at.dir);
	for (int round = 0; round < 2; round++) {
		const struct plan_request none = { 0 };
		struct qemu_info q = fake_qemu("7.2.22");
		struct problems ps = { 0 };
		struct strv sets = { 0 }, got;
		AUTO_FREE char *kept = NULL;

		strv_push(&sets, "vm.firmware=ovmf");
		q.ovmf_code = template;
		q.ovmf_vars = template;
		cr_assert(write_file_atomic(template, round ? "new" : "old", 3, 0644) == 0);
		cr_assert(try_plan(&at, &none, &sets, &q, &vm, &p, &ps) == 0, "%s", ps.n ? ps.v[0].message : "");
		got = run_printed(&at, &p, PLAN_SHELL, false, "sh");
		cr_assert(stat(vars, &st) == 0 && read_text_file(vars, 64, &kept) == 0);
		cr_expect((st.st_mode & 0777) == 0600);
		cr_expect_str_eq(kept, "old");
		strv_clear(&got);
		strv_clear(&sets);
		plan_clear(&p);
		config_clear(&vm);
	}
	place_end(&at);
}

/* --- for debugging -------------------------------------------------------------------------------------------------------- */

static const struct plan_arg *find_arg(const struct plan *p, const char *flag, const char *part)
{
	for (size_t i = 0; i < p->n_args; i++)
		if (strcmp(p->args[i].flag, flag) == 0 && (!part || (p->args[i].value && strstr(p->args[i].value, part))))
			return &p->args[i];
	return NULL;
}

Test(command, gdb_trace_strace)
{
	struct strv trace = { 0 }, argv = { 0 }, got;
	struct plan_request more = { .gdb = "", .trace = &trace, .strace = "/bin/env", .strace_file = NULL };
	struct vm_config vm = { 0 };
	struct plan p = { 0 };
	struct place at;
	AUTO_FREE char *socket = NULL;

	place_start(&at);
	strv_push(&trace, "vfio_*");
	strv_push(&trace, "a,b");
	make_plan(&at, &more, &vm, &p);
	cr_expect(find_arg(&p, "-trace", "enable=vfio_*"));
	cr_expect(find_arg(&p, "-trace", "enable=a,,b"));
	cr_expect(find_arg(&p, "-gdb", "chardev:gdb"));
	cr_expect(find_arg(&p, "-chardev", "id=gdb"));
	plan_argv(&p, NULL, &argv);
	socket = xasprintf("%s/qemu.strace", at.rundir);
	cr_assert(argv.n > 7);
	cr_expect_str_eq(argv.v[0], "/bin/env");
	cr_expect_str_eq(argv.v[1], "-D");
	cr_expect_str_eq(argv.v[2], "-f");
	cr_expect_str_eq(argv.v[3], "-o");
	cr_expect_str_eq(argv.v[4], socket);
	cr_expect_str_eq(argv.v[5], "--");
	cr_expect_str_eq(argv.v[6], at.qemu);
	plan_clear(&p);
	config_clear(&vm);
	strv_clear(&argv);

	/* Where it is told to; and the wrapper is in the printed command. */
	more = (struct plan_request){ .gdb = "tcp::1234", .trace = NULL };
	make_plan(&at, &more, &vm, &p);
	cr_expect(find_arg(&p, "-gdb", "tcp::1234"));
	cr_expect(!find_arg(&p, "-chardev", "id=gdb"));
	cr_expect(!find_arg(&p, "-trace", NULL));
	strv_push(&p.wrapper, "/usr/bin/env");
	strv_push(&p.wrapper, "X=a b");
	got = run_printed(&at, &p, PLAN_SHELL, false, "sh");
	cr_assert(got.n > 1);
	cr_expect_str_eq(got.v[0], at.qemu);
	strv_clear(&got);
	plan_clear(&p);
	config_clear(&vm);
	strv_clear(&trace);
	place_end(&at);
}

Test(command, trace_needs_a_qemu_that_can)
{
	struct strv trace = { 0 };
	const struct plan_request more = { .trace = &trace };
	struct qemu_info q = fake_qemu("7.2.22");
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	struct plan p = { 0 };
	struct place at;

	place_start(&at);
	strv_push(&trace, "vfio_*");
	q.features &= ~(UINT64_C(1) << QF_TRACE_LOG);
	cr_assert(try_plan(&at, &more, NULL, &q, &vm, &p, &ps) == -EINVAL);
	cr_assert(ps.n == 1);
	cr_expect_str_eq(ps.v[0].code, "qemu-lacks");
	cr_expect(strstr(ps.v[0].message, "--trace"), "%s", ps.v[0].message);
	cr_expect(problems_exit_code(&ps) == 4);
	problems_clear(&ps);
	config_clear(&vm);
	strv_clear(&trace);
	place_end(&at);
}

/* --- [qemu] args ------------------------------------------------------------------------------------------------------------ */

Test(command, raw_arguments_are_pairs)
{
	const struct plan_request none = { 0 };
	struct vm_config vm = { 0 };
	struct plan p = { 0 };
	struct place at;
	const struct plan_arg *last;

	place_start(&at);
	make_plan(&at, &none, &vm, &p);
	last = &p.args[p.n_args - 1];
	cr_expect_str_eq(last->flag, "-append");
	cr_expect_str_eq(last->value, "it's --odd");
	cr_expect_str_eq(last[-1].flag, "-fw_cfg");
	cr_expect_str_eq(last[-1].value, "name=opt/test,string=a,,b \"c\" $d");
	plan_clear(&p);
	config_clear(&vm);
	place_end(&at);
}

/* --- with a real QEMU -------------------------------------------------------------------------------------------------------- */

static const char *build_dir(void)
{
	const char *dir = getenv("GPUVM_BUILD");

	return dir ? dir : "build";
}

/* A real shell with $L, $G, $R and a run-time folder with an odd name. */
static void expect_sh(const struct place *at, int want, const char *command)
{
	AUTO_FREE char *script = xasprintf("%s/test.sh", at->root), *line = xasprintf("exec timeout -k 5 60 sh %s", script);
	AUTO_FREE char *text = xasprintf("L='%s/gpuvm-launch' G='%s/gpuvm' R='%s'\nexport GPUVM_RUNDIR=\"$R/r u,n\" GPUVM_STATEDIR=\"$R/st'ate\"\n"
					 "mkdir -p \"$GPUVM_RUNDIR\"\n%s\n", build_dir(), build_dir(), at->root, command);
	int status;

	cr_assert(write_file_atomic(script, text, strlen(text), 0600) == 0);
	status = system(line);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == want, "exit %d, expected %d: %s", WEXITSTATUS(status), want, command);
}

/* QEMU has opened exactly the files that the definition names. */
Test(command, qemu_opens_files_of_any_name, .timeout = 120)
{
	AUTO_FREE char *text = NULL, *ini = NULL;
	struct json_object *want = json_object_new_array();
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	struct place at;

	place_start(&at);
	text = read_fixture(at.dir);
	ini = xasprintf("%s/nasty.ini", at.root);
	cr_assert(write_file_atomic(ini, text, strlen(text), 0600) == 0);
	cr_assert(config_parse("x", text, strlen(text), NULL, &vm, &ps) == 0);
	for (size_t i = 0; i < vm.n_disks; i++) {
		int fd = open(vm.disks[i].file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

		cr_assert(fd >= 0 && ftruncate(fd, 1 << 20) == 0, "%s: %s", vm.disks[i].file, strerror(errno));
		close(fd);
		json_object_array_add(want, json_object_new_string(vm.disks[i].file));
	}
	{
		AUTO_FREE char *list = xasprintf("%s/want.json", at.root);
		const char *json = json_object_to_json_string(want);

		cr_assert(write_file_atomic(list, json, strlen(json), 0600) == 0);
	}
	/* -append in args needs a kernel. */
	expect_sh(&at, 0, "$L -q -d --set lifecycle.stop-timeout=100ms --set qemu.args='-name debug-threads=on' \"$R/nasty.ini\"");
	expect_sh(&at, 0, "$G qmp nasty query-named-block-nodes flat=true | jq -c '[.[] | select(.drv == \"file\") | .file] | sort' >\"$R/got\"");
	expect_sh(&at, 0, "jq -c sort \"$R/want.json\" | cmp - \"$R/got\"");
	expect_sh(&at, 0, "tr '\\0' '\\n' </proc/$(jq .qemu_pid \"$GPUVM_RUNDIR/nasty/claim.json\")/environ | grep -qxF 'GPUVM_TEST=a b,$c\"'");
	/* The file beside it starts the same again, but not while this one runs. */
	expect_sh(&at, 1, "\"$GPUVM_RUNDIR/nasty/command\" 2>/dev/null");
	expect_sh(&at, 0, "$G qmp nasty query-status | jq -e .running >/dev/null");
	expect_sh(&at, 0, "$G stop nasty");
	json_object_put(want);
	config_clear(&vm);
	place_end(&at);
}

/* Beside a run of the printed text: until its monitor says that the guest runs; then QEMU is told to quit. Tried again until it listens. */
static const char run_it[] =
	"python3 - \"$GPUVM_RUNDIR/demo/qmp.sock\" <<'END' || exit 1\n"
	"import socket, sys, time\n"
	"end = time.monotonic() + 30\n"
	"s = socket.socket(socket.AF_UNIX)\n"
	"while s.connect_ex(sys.argv[1]):\n"
	"    assert time.monotonic() < end\n"
	"f = s.makefile('rw')\n"
	"assert 'QMP' in f.readline()\n"
	"def run(what):\n"
	"    f.write('{\"execute\": \"%s\"}\\n' % what)\n"
	"    f.flush()\n"
	"    while True:\n"
	"        r = f.readline()\n"
	"        if '\"event\"' not in r: return r\n"
	"run('qmp_capabilities')\n"
	"assert '\"running\": true' in run('query-status')\n"
	"assert 'return' in run('quit')\n"
	"END\n";

Test(command, the_printed_text_starts_the_vm, .timeout = 240)
{
	static const char *const ways[] = { "sh", "dash", "bash", "--explain bash" };
	struct place at;

	place_start(&at);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		const char *shell = strrchr(ways[i], ' ') ? strrchr(ways[i], ' ') + 1 : ways[i];
		AUTO_FREE char *command = xasprintf("$L -n %s --set vm.accel=tcg conf/demo.ini >\"$R/text\" || exit 1\n%s \"$R/text\" &\n%swait $!",
						    shell == ways[i] ? "" : "--explain", shell, run_it);

		expect_sh(&at, 0, command);
	}
	/* As the launcher keeps it. */
	expect_sh(&at, 0, "$L -q -d --set vm.accel=tcg --set lifecycle.stop-timeout=100ms conf/demo.ini && $G stop demo");
	{
		AUTO_FREE char *command = xasprintf("\"$GPUVM_RUNDIR/demo/command\" &\n%swait $!", run_it);

		expect_sh(&at, 0, command);
	}
	place_end(&at);
}

/* The verb: exit codes as diff(1) has them, and those of plan. */
Test(command, diff_as_a_verb, .timeout = 120)
{
	struct place at;

	place_start(&at);
	expect_sh(&at, 0, "test -z \"$($G diff conf/demo.ini conf/demo.ini)\"");
	expect_sh(&at, 1, "$G diff conf/demo.ini conf/demo.ini --set vm.accel=tcg --set memory.size=128M >\"$R/out\"");
	expect_sh(&at, 0, "grep -qxF '+++ conf/demo.ini with vm.accel=tcg, memory.size=128M' \"$R/out\"");
	expect_sh(&at, 0, "grep -qxF '~ -m: size 262144k -> 131072k' \"$R/out\"");
	expect_sh(&at, 1, "$G diff --json conf/demo.ini conf/demo.ini --set memory.size=128M >\"$R/out\"");
	expect_sh(&at, 0, "jq -e '.schema == 1 and ([.changes[] | select(.option == \"-m\").properties[].b] == [\"131072k\"])' <\"$R/out\" >/dev/null");
	expect_sh(&at, 0, "$G diff --json conf/demo.ini conf/demo.ini | jq -e '.changes == []' >/dev/null");
	expect_sh(&at, 2, "$G diff 2>/dev/null");
	expect_sh(&at, 2, "$G diff a b c 2>/dev/null");
	expect_sh(&at, 2, "$G diff no-such-vm 2>/dev/null");
	expect_sh(&at, 2, "$G diff --sysroot / --topology x a b 2>/dev/null");
	expect_sh(&at, 3, "$G diff conf/demo.ini conf/demo.ini --set cpu.vcpus=none 2>/dev/null");
	expect_sh(&at, 3, "$G diff conf/demo.ini \"$R/none.ini\" 2>/dev/null");
	expect_sh(&at, 4, "$G diff conf/demo.ini conf/demo.ini --set vm.kernel=/no/such/file 2>/dev/null");
	/* A damaged plan is said, and not taken for an empty command. */
	expect_sh(&at, 0, "$L -q -d --set vm.accel=tcg --set lifecycle.stop-timeout=100ms conf/demo.ini");
	expect_sh(&at, 0, "$G diff conf/demo.ini demo --json | jq -e '.b == \"demo (running)\"' >/dev/null");
	expect_sh(&at, 2, "$G diff conf/demo.ini demo --set cpu.vcpus=2 2>/dev/null");
	expect_sh(&at, 2, "echo '{\"argv\": []' >\"$GPUVM_RUNDIR/demo/plan.json\"; $G diff demo 2>\"$R/err\"");
	expect_sh(&at, 0, "grep -q 'has no command in it' \"$R/err\" && $G stop demo");
	place_end(&at);
}

/* Under strace, with a debugger's socket and traces: pid, pins, stop and exit codes are as ever. */
Test(command, a_vm_that_is_debugged, .timeout = 240)
{
	struct place at;

	place_start(&at);
	expect_sh(&at, 0, "$L -q -d --gdb --strace --trace 'handle_qmp_*' --set vm.accel=tcg --set lifecycle.stop-timeout=100ms conf/demo.ini");
	expect_sh(&at, 0, "readlink /proc/$(jq .qemu_pid \"$GPUVM_RUNDIR/demo/claim.json\")/exe | grep -q qemu");
	expect_sh(&at, 0, "$G verify demo | grep -q ' 0 not as planned'");
	expect_sh(&at, 0, "grep -q 'execve(.*qemu-system' \"$GPUVM_RUNDIR/demo/qemu.strace\"");
	expect_sh(&at, 0, "grep -q 'handle_qmp_command' \"$GPUVM_RUNDIR/demo/qemu.log\"");
	expect_sh(&at, 0, "python3 - \"$GPUVM_RUNDIR/demo/gdb.sock\" <<'END'\n"
			  "import socket, sys\n"
			  "s = socket.socket(socket.AF_UNIX)\n"
			  "s.settimeout(30)\n"
			  "s.connect(sys.argv[1])\n"
			  "s.sendall(b'$?#3f')\n"
			  "got = b''\n"
			  "while b'$T' not in got: got += s.recv(100)\n"
			  "END");
	expect_sh(&at, 1, "$G diff demo --set vm.accel=tcg | grep -q '^~ '");
	expect_sh(&at, 0, "test \"$($G diff demo --set vm.accel=tcg | grep -c '^- \\(wrapper\\|-gdb\\|-trace\\|-chardev\\)')\" = 4");
	expect_sh(&at, 0, "$G stop demo && ! ps -C qemu-system-x86 -o args= | grep -F \"$R/\" && ! ls \"$GPUVM_RUNDIR\"/demo/*.sock 2>/dev/null");
	/* Its own end is its own end. */
	expect_sh(&at, 0, "$L -q -d --strace=\"$R/other\" --set vm.accel=tcg conf/demo.ini");
	expect_sh(&at, 6, "kill -SEGV $(jq .qemu_pid \"$GPUVM_RUNDIR/demo/claim.json\") && $G wait demo");
	expect_sh(&at, 0, "test -s \"$R/other\"");
	/* Nothing is touched without a strace. */
	expect_sh(&at, 0, "mkdir \"$R/bin\" && ln -s \"$(command -v qemu-system-x86_64)\" \"$R/bin/\"");
	expect_sh(&at, 4, "PATH=\"$R/bin\" $L -q --strace --set vm.accel=tcg conf/demo.ini 2>\"$R/err\"");
	expect_sh(&at, 0, "grep -q 'no strace in PATH' \"$R/err\" && ! test -e \"$GPUVM_RUNDIR/demo/claim.json\"");
	place_end(&at);
}
