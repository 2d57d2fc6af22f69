/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every golden command that can be planned, started by a real QEMU: planned with the answers of that QEMU, with stand-ins for the devices, and
 * without what belongs to the other machine (pins, memory nodes, huge pages, taps).  QEMU must take every argument and have every
 * device and port.  The guest does not run (-S): tests/boot is for that.
 *
 * GPUVM_TEST_QEMU names another QEMU than the installed one. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpuvm/parse.h"
#include "gpuvm/probe.h"
#include "gpuvm/qmp.h"
#include "gpuvm/spawn.h"
#include "tests/fake/mkhost.h"
#include "tests/unit/golden.h"

#define WAIT_MS 120000

static const char *qemu_path(void)
{
	const char *path = getenv("GPUVM_TEST_QEMU");

	return path ? path : "/usr/bin/qemu-system-x86_64";
}

/* --- what the definitions name and is not here ---------------------------------------------------------------- */

static void make_file(const char *path, off_t bytes)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert(ge(int, fd, 0), "%s: %s", path, strerror(errno));
	cr_assert(zero(int, ftruncate(fd, bytes)), "%s: %s", path, strerror(errno));
}

static void make_qcow2(const char *path)
{
	AUTO_CLOSE int log = memfd_create("qemu-img", MFD_CLOEXEC);
	AUTO_FREE char *program = spawn_find_program("qemu-img");
	struct strv argv = { 0 };
	struct spawn s = { 0 };
	struct err e = { 0 };
	int status = -1;

	if (!program)
		cr_skip("there is no qemu-img");
	for (const char *const *a = (const char *const[]){ program, "create", "-q", "-f", "qcow2", path, "16M", NULL };
	     *a; a++)
		strv_push(&argv, *a);
	cr_assert(zero(int, spawn_prepare(&(struct spawn_options){ .argv = &argv, .stderr_fd = log }, &s, &e)), "%s",
		  e.msg);
	cr_assert(zero(int, spawn_go(&s, &e)), "%s", e.msg);
	cr_assert(eq(int, waitpid(s.pid, &status, 0), s.pid));
	cr_assert(zero(int, status), "qemu-img create '%s'", path);
	strv_clear(&argv);
}

static bool ends_with(const char *s, const char *end)
{
	return strlen(s) >= strlen(end) && strcmp(s + strlen(s) - strlen(end), end) == 0;
}

/* Under the same last name, which may be the point of the case. */
static void adapt(struct vm_config *vm, const char *dir)
{
	for (size_t i = 0; i < vm->n_disks; i++) {
		struct disk_config *d = &vm->disks[i];
		const char *slash = strrchr(d->file, '/');
		AUTO_FREE char *file = xasprintf("%s/disk%zu", dir, i), *path = NULL;

		cr_assert(zero(int, mkdir(file, 0700)));
		path = xasprintf("%s/%s", file, slash ? slash + 1 : d->file);
		if (d->format == DISK_AUTO && strncmp(d->file, "/dev/", 5) == 0)
			d->format = DISK_RAW;
		if (d->format == DISK_QCOW2 || (d->format == DISK_AUTO && ends_with(path, ".qcow2")))
			make_qcow2(path);
		else
			make_file(path, 16 << 20);
		free(d->file);
		d->file = STEAL_PTR(path);
	}
}

/* Options that need a program or a device of this machine that it may lack; other tests start those. */
static bool is_left_out(const char *flag, const char *value)
{
	static const struct {
		const char *flag, *value;
	} out[] = { { "-kernel", "" },
		    { "-initrd", "" },
		    { "-append", "" },
		    { "-tpmdev", "" },
		    { "-chardev", "socket,id=tpm" },
		    { "-device", "tpm-" },
		    { "-device", "vhost-vsock-pci" } };

	for (size_t i = 0; i < ARRAY_SIZE(out); i++)
		if (strcmp(flag, out[i].flag) == 0 && value && strncmp(value, out[i].value, strlen(out[i].value)) == 0)
			return true;
	return false;
}

/* --- a QEMU ------------------------------------------------------------------------------------------------------ */

struct machine {
	char *dir;
	struct topology here;
	struct qemu_info info;
	struct vm_config vm;
	struct plan p;
	int listen_fd, log;
	struct strv argv;
	struct spawn s;
	struct qmp q;
};

static void machine_init(struct machine *m)
{
	const char *build = getenv("GPUVM_BUILD");
	struct qemu_probe probe = { .binary = qemu_path() };
	struct err e = { 0 };

	*m = (struct machine){ .listen_fd = -1, .log = memfd_create("log", MFD_CLOEXEC) };
	qmp_init(&m->q);
	if (access(qemu_path(), X_OK) < 0)
		cr_skip("there is no %s", qemu_path());
	/* Not on a tmpfs, where files may not take O_DIRECT; with a short name, for sockets. */
	m->dir = xasprintf("%s/gq-XXXXXX", build && strlen(build) < 60 ? build : "/var/tmp");
	cr_assert_not_null(mkdtemp(m->dir));
	cr_assert(zero(int, probe_qemu(&probe, &m->info, &e)), "%s", e.msg);
	cr_assert(zero(int, probe_host("", &m->here, &e)), "%s", e.msg);
}

static void machine_clear(struct machine *m)
{
	qmp_close(&m->q);
	spawn_abort(&m->s);
	if (m->listen_fd >= 0)
		close(m->listen_fd);
	close(m->log);
	strv_clear(&m->argv);
	plan_clear(&m->p);
	config_clear(&m->vm);
	topology_clear(&m->here);
	qemu_info_clear(&m->info);
	mkhost_remove(STEAL_PTR(m->dir));
}

static void add_arg(struct machine *m, const struct plan_arg *a)
{
	if (is_left_out(a->flag, a->value))
		return;
	strv_push(&m->argv, a->flag);
	if (a->use == ARG_CONTROL)
		strv_pushf(&m->argv, "socket,id=control,fd=%d,server=on,wait=off", m->listen_fd);
	else if (a->use == ARG_TAP)
		strv_pushf(&m->argv, "user,id=%s", m->p.taps[a->tap].netdev);
	else if (a->value)
		strv_push(&m->argv, a->value);
}

static void copy_file(const char *from, const char *to)
{
	AUTO_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
	struct stat st;

	cr_assert(in >= 0 && fstat(in, &st) == 0, "%s: %s", from, strerror(errno));
	out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert(ge(int, out, 0), "%s: %s", to, strerror(errno));
	cr_assert(eq(i64, copy_file_range(in, NULL, out, NULL, (size_t)st.st_size, 0), st.st_size), "%s: %s", to,
		  strerror(errno));
}

static int machine_start(struct machine *m, struct err *e)
{
	AUTO_FREE char *control = xasprintf("%s/control.sock", m->dir), *vars = xasprintf("%s/vars", m->dir);
	struct spawn_options o = { .argv = &m->argv,
				   .env = &m->p.env,
				   .stderr_fd = m->log,
				   .keep_fds = &m->listen_fd,
				   .n_keep_fds = 1,
				   .die_with_parent = true };
	int r;

	m->listen_fd = qmp_listen(control, e);
	cr_assert(ge(int, m->listen_fd, 0), "%s", e->msg);
	if (m->p.vars_file) {
		cr_assert(zero(int, mkdir(vars, 0700)));
		copy_file(m->p.vars_template, m->p.vars_file);
	}
	if (m->p.seed.image)
		make_file(m->p.seed.image, 1 << 20);
	strv_push(&m->argv, m->p.qemu_binary);
	for (size_t i = 0; i < m->p.n_args; i++)
		add_arg(m, &m->p.args[i]);
	r = spawn_prepare(&o, &m->s, e);
	if (r == 0)
		r = qmp_connect(control, m->s.pidfd, &m->q, e);
	if (r == 0)
		r = spawn_go(&m->s, e);
	return r < 0 ? r : qmp_handshake(&m->q, WAIT_MS, NULL, NULL, e);
}

static const char *machine_log(const struct machine *m, char buf[4096])
{
	ssize_t n = pread(m->log, buf, 4095, 0);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

/* Is a device with that id there, of that type? */
static void assert_device(struct json_object *list, const char *id, const char *type)
{
	AUTO_FREE char *want = xasprintf("child<%s>", type);

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i), *name = NULL, *has = NULL;

		json_object_object_get_ex(o, "name", &name);
		json_object_object_get_ex(o, "type", &has);
		if (strcmp(json_object_get_string(name), id) != 0)
			continue;
		cr_assert_str_eq(json_object_get_string(has), want);
		return;
	}
	cr_fatal("QEMU has no device '%s'", id);
}

static void assert_devices(struct machine *m)
{
	static const char *const types[] = { [GPORT_PXB] = "pxb-pcie",
					     [GPORT_ROOT] = "pcie-root-port",
					     [GPORT_UPSTREAM] = "x3130-upstream",
					     [GPORT_DOWNSTREAM] = "xio3130-downstream" };
	struct json_object *args = json_object_new_object(), *list = NULL;
	struct err e = { 0 };

	json_object_object_add(args, "path", json_object_new_string("/machine/peripheral"));
	cr_assert(zero(int, qmp_command(&m->q, "qom-list", args, WAIT_MS, &list, &e)), "%s", e.msg);
	for (size_t i = 0; i < m->p.n_devices; i++)
		assert_device(list, m->p.devices[i].id, "ivshmem-plain");
	for (size_t i = 0; i < m->p.n_ports; i++)
		assert_device(list, m->p.ports[i].id, types[m->p.ports[i].kind]);
	json_object_put(list);
}

static void machine_quit(struct machine *m)
{
	struct pollfd p = { .fd = m->s.pidfd, .events = POLLIN };
	struct err e = { 0 };
	int status = -1;

	cr_assert(zero(int, qmp_command(&m->q, "quit", NULL, WAIT_MS, NULL, &e)), "%s", e.msg);
	cr_assert(eq(int, poll(&p, 1, WAIT_MS), 1), "QEMU does not end");
	cr_assert(eq(int, waitpid(m->s.pid, &status, 0), m->s.pid));
	cr_assert(zero(int, status));
}

/* --- tests ------------------------------------------------------------------------------------------------------ */

/* A case may ask for what this QEMU is too old for: nothing is tested then, and that is said. */
static bool plan_it(struct machine *m, const char *name)
{
	struct golden_run run = { .qemu = &m->info, .here = &m->here, .dir = m->dir, .adapt = adapt };
	struct problems ps = { 0 };
	bool too_old = true;
	int r;

	r = golden_plan(name, &run, &m->vm, &m->p, &ps);
	for (size_t i = 0; i < ps.n; i++) {
		fprintf(stderr, "%s: %s\n", name, ps.v[i].message);
		too_old = too_old && strcmp(ps.v[i].code, "qemu-lacks") == 0;
	}
	problems_clear(&ps);
	if (r < 0 && too_old)
		cr_skip("%s: this QEMU is too old", name);
	return r == 0;
}

/* Was the case refused when it was recorded? */
static bool is_refusal(const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s.expect",
					 getenv("GPUVM_GOLDEN") ? getenv("GPUVM_GOLDEN") : "tests/golden", name),
		       *text = NULL;

	cr_assert(zero(int, read_text_file(path, 1 << 20, &text)), "%s", path);
	return strncmp(text, "exit ", 5) == 0;
}

ParameterizedTestParameters(golden_qemu, takes_every_command)
{
	size_t n = 0;
	struct golden *v = golden_cases(&n);

	return cr_make_param_array(struct golden, v, n, NULL);
}

ParameterizedTest(struct golden *g, golden_qemu, takes_every_command, .timeout = 300)
{
	struct machine m;
	struct err e = { 0 };
	char log[4096];

	if (is_refusal(g->name))
		return;
	machine_init(&m);
	cr_assert(plan_it(&m, g->name), "%s cannot be planned for this QEMU", g->name);
	cr_assert(zero(int, machine_start(&m, &e)), "%s: %s\n%s", g->name, e.msg, machine_log(&m, log));
	assert_devices(&m);
	machine_quit(&m);
	machine_clear(&m);
}

/* What the tests above rest upon: QEMU refuses an argument that it does not know. */
Test(golden_qemu, a_wrong_argument_is_noticed, .timeout = 300)
{
	struct machine m;
	struct err e = { 0 };
	char log[4096];
	bool broken = false;

	machine_init(&m);
	cr_assert(plan_it(&m, "dgx2-sixteen"));
	for (size_t i = 0; i < m.p.n_args && !broken; i++) {
		struct plan_arg *a = &m.p.args[i];
		AUTO_FREE char *old = a->value;

		broken = old && strncmp(old, "xio3130-downstream", 18) == 0;
		a->value = broken ? xasprintf("%s,x-speed=8", old) : STEAL_PTR(old);
	}
	cr_assert(broken);
	cr_assert(eq(int, machine_start(&m, &e), -ESRCH), "%s", e.msg);
	cr_assert_not_null(strstr(machine_log(&m, log), "x-speed"), "%s", log);
	machine_clear(&m);
}
