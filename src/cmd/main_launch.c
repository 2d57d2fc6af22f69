/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm-launch FILE.ini: launch one VM and supervise it until it ends. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <json-c/json.h>
#include <locale.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "cmd.h"
#include "gpuvm/log.h"
#include "gpuvm/service.h"
#include "gpuvm/slim.h"

static const char usage[] =
	"usage: gpuvm-launch [options] FILE.ini\n"
	"\n"
	"Bind the VM's devices to vfio-pci, start QEMU, pin every thread, run the guest, and give everything back when it\n"
	"ends. SIGTERM and SIGINT press the guest's power button; a second one switches it off.\n"
	"\n"
	"  -n, --dry-run       print the command and touch nothing\n"
	"      --format=FORM   of the dry run: shell (default), lines, json\n"
	"      --explain       with the reason of every argument (dry run)\n"
	"      --set S.K=V     override a key of the definition; may be repeated\n"
	"      --sysroot DIR   plan for the machine captured in DIR, or in a tar (dry run)\n"
	"      --topology XML  plan for the machine of an hwloc XML (dry run)\n"
	"  -d, --daemonize     return 0 when the guest runs; the supervisor stays behind\n"
	"      --qemu PATH     use this QEMU\n"
	"      --qemu-answers FILE  plan for the QEMU that FILE was recorded of (dry run; gpuvm version --record)\n"
	"      --fake-devices  stand-ins in place of the devices: nothing is bound\n"
	"      --force-insecure  start although devices of other tenants can be reached (gpuvm audit)\n"
	"      --gdb[=WHERE]   let a debugger have the guest: gdb.sock in the VM's folder, or as QEMU's -gdb (tcp::1234)\n"
	"      --trace PATTERN trace events of QEMU into qemu.log; may be repeated\n"
	"      --strace[=FILE] system calls of QEMU into qemu.strace in the VM's folder\n"
	"      --timings       when the guest runs, how long each step of the start has taken\n"
	"  -v, --verbose       say what is done; twice: more\n"
	"  -q, --quiet         errors and warnings only\n"
	"      --help, --version\n"
	"\n"
	"exit: 0 done, 1 failed, 2 usage, 3 definition wrong, 4 host cannot, 5 in use, 6 guest ended abnormally\n";

struct launch_args {
	struct launch_options launch;
	const char *strace_file; /* as given; NULL: the default */
	bool explain, daemonize, timings, done;
	enum { FORMAT_SHELL, FORMAT_LINES, FORMAT_JSON } format;
	int verbose;
};

static int parse_format(const char *word, struct launch_args *a)
{
	static const char *const words[] = { "shell", "lines", "json" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(word, words[i]) == 0) {
			a->format = (typeof(a->format))i;
			return 0;
		}
	}
	fprintf(stderr, "gpuvm-launch: --format: '%s' is not shell, lines or json\n", word);
	return EXIT_USAGE;
}

static int parse_one(int c, struct launch_args *a)
{
	switch (c) {
	case 'n':
		a->launch.dry_run = true;
		return 0;
	case 'F':
		return parse_format(optarg, a);
	case 'e':
		a->explain = true;
		return 0;
	case 'S':
		strv_push(&a->launch.sets, optarg);
		return 0;
	case 'r':
		a->launch.sysroot = optarg;
		return 0;
	case 't':
		a->launch.topology_xml = optarg;
		return 0;
	case 'd':
		a->daemonize = true;
		return 0;
	case 'Q':
		a->launch.qemu = optarg;
		return 0;
	case 'A':
		a->launch.qemu_answers = optarg;
		return 0;
	case 'f':
		a->launch.fake_devices = true;
		return 0;
	case 'I':
		a->launch.force_insecure = true;
		return 0;
	case 'g':
		a->launch.gdb = optarg ? optarg : "";
		return 0;
	case 'T':
		strv_push(&a->launch.trace, optarg);
		return 0;
	case 's':
		a->launch.strace = true;
		a->strace_file = optarg;
		return 0;
	case 'M':
		a->timings = true;
		return 0;
	case 'v':
		a->verbose++;
		return 0;
	case 'q':
		a->verbose = -1;
		return 0;
	case 'h':
		fputs(usage, stdout);
		a->done = true;
		return 0;
	case 'V':
		printf("gpuvm-launch %s\n", GPUVM_VERSION);
		a->done = true;
		return 0;
	default:
		return EXIT_USAGE;
	}
}

/* Another machine's devices cannot be had here, nor another machine's QEMU be run. */
static int check_machine(const struct launch_args *a)
{
	const struct launch_options *l = &a->launch;
	const char *option = l->sysroot ? "--sysroot" : "--topology";

	if (l->qemu_answers && !l->dry_run) {
		fputs("gpuvm-launch: --qemu-answers is a QEMU that is not here; add --dry-run, or give --qemu instead\n", stderr);
		return EXIT_USAGE;
	}
	if (l->sysroot && l->topology_xml) {
		fputs("gpuvm-launch: --sysroot and --topology are two machines; give one\n", stderr);
		return EXIT_USAGE;
	}
	if ((l->sysroot || l->topology_xml) && !l->dry_run && !l->fake_devices) {
		fprintf(stderr, "gpuvm-launch: %s is another machine: its devices cannot be had here; add --dry-run or --fake-devices\n", option);
		return EXIT_USAGE;
	}
	return 0;
}

static int parse(int argc, char **argv, struct launch_args *a)
{
	static const struct option options[] = {
		{ "dry-run", no_argument, NULL, 'n' },	    { "format", required_argument, NULL, 'F' }, { "explain", no_argument, NULL, 'e' },
		{ "set", required_argument, NULL, 'S' },    { "sysroot", required_argument, NULL, 'r' }, { "daemonize", no_argument, NULL, 'd' },
		{ "qemu", required_argument, NULL, 'Q' },   { "fake-devices", no_argument, NULL, 'f' },	 { "verbose", no_argument, NULL, 'v' },
		{ "quiet", no_argument, NULL, 'q' },	    { "help", no_argument, NULL, 'h' },		 { "version", no_argument, NULL, 'V' },
		{ "topology", required_argument, NULL, 't' }, { "gdb", optional_argument, NULL, 'g' },		 { "trace", required_argument, NULL, 'T' },
		{ "strace", optional_argument, NULL, 's' },  { "qemu-answers", required_argument, NULL, 'A' },
		{ "force-insecure", no_argument, NULL, 'I' },
		{ "timings", no_argument, NULL, 'M' },
		{ 0 }
	};
	int c;

	while (!a->done && (c = getopt_long(argc, argv, "ndvqh", options, NULL)) != -1) {
		int r = parse_one(c, a);

		if (r)
			return r;
	}
	if (a->done)
		return 0;
	if (optind != argc - 1) {
		fprintf(stderr, "gpuvm-launch: %s\n%s", optind < argc ? "one definition at a time" : "which definition?", usage);
		return EXIT_USAGE;
	}
	a->launch.definition = argv[optind];
	return check_machine(a);
}

static int dry_run(struct launch_args *a)
{
	bool json = a->format == FORMAT_JSON;
	struct problems ps = { 0 };
	struct err e = { 0 };
	struct launch l;
	int code = 0;

	setlocale(LC_CTYPE, ""); /* what plan_print() may draw with */
	launch_init(&l, &a->launch);
	if (launch_plan(&l, &ps, &e) < 0)
		code = cmd_report(&ps, &e, l.vm.name, json);
	else if (json)
		cmd_print_json(plan_to_json(&l.plan));
	else
		plan_print_command(&l.plan, a->format == FORMAT_LINES ? PLAN_LINES : PLAN_SHELL, a->explain, stdout);
	launch_clear(&l);
	problems_clear(&ps);
	return code;
}

/* --- the real thing ----------------------------------------------------------------------------------------- */

struct readiness {
	const struct launch *l;
	bool timings; /* are to be printed */
	int fd; /* to the waiting parent of --daemonize; -1 in the foreground */
};

/* From here on the terminal belongs to somebody else: what is still to be said goes to launch.log. */
static void leave_terminal(const struct launch *l)
{
	AUTO_FREE char *path = xasprintf("%s/launch.log", l->plan.rundir);
	AUTO_CLOSE int log = open(path, O_WRONLY | O_CREAT | (l->adopted ? 0 : O_TRUNC) | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (log < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
		log_warning("%s: cannot leave the terminal: %s", l->plan.vm, strerror(errno));
}

static void on_ready(void *ctx)
{
	struct readiness *r = ctx;

	log_notice("%s: running, QEMU has pid %d", r->l->plan.vm, r->l->child.pid);
	launch_point_at_check(r->l);
	service_notify("READY=1\nSTATUS=%s is running, QEMU has pid %d\nMAINPID=%d", r->l->plan.vm, r->l->child.pid, getpid());
	if (r->timings) {
		AUTO_FREE char *table = launch_times_table(r->l);

		fputs(table, stdout);
		fflush(stdout);
	}
	if (r->fd < 0)
		return;
	leave_terminal(r->l);
	/* Exit code 0 for the parent. */
	if (write(r->fd, "", 1) != 1)
		log_warning("%s: the starting process is gone", r->l->plan.vm);
	close(r->fd);
	r->fd = -1;
}

static int64_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec;
}

/* @again: what was to be taken over has ended in this very moment; it is to be started in place of that. */
static int start_and_supervise(struct launch *l, bool *again)
{
	AUTO_FREE char *field = xasprintf("GPUVM_VM=%s", l->plan.vm);
	struct err e = { 0 };

	log_set_field(field);
	for (size_t i = 0; i < l->plan.n_warnings; i++)
		log_warning("%s: %s", l->plan.vm, l->plan.warnings[i].text);
	if (launch_start(l, &e) < 0) {
		*again = l->adopted && !l->asked_to_stop && !claim_qemu_alive(&l->claim);
		log_error("%s: %s", l->plan.vm, e.msg);
		return launch_exit_code(&e);
	}
	slim_down(); /* what only the start needed */
	return launch_supervise(l);
}

/* [lifecycle] on-crash = restart. */
struct restart {
	bool wanted;
	unsigned int delay_s; /* of the last time */
	char *name;	      /* that is held between two lives; NULL in the first one */
};

/* One life of the VM, and the wait after it if there is to be another one. */
static int launch_once(struct launch_args *a, struct readiness *ready, struct restart *again)
{
	struct problems ps = { 0 };
	struct err e = { 0 };
	struct launch l;
	int64_t began = now_s();
	bool gone = false;
	int code;

	again->wanted = false;
	launch_init(&l, &a->launch);
	ready->l = &l;
	code = launch_plan(&l, &ps, &e) < 0 ? cmd_report(&ps, &e, l.vm.name, false) : EXIT_DONE;
	/* The definition may have gone, or have got another name, while the restart was waited for. */
	if (again->name && (code || strcmp(again->name, l.plan.vm) != 0))
		launch_drop_name(again->name, code ? (ps.n ? ps.v[0].message : e.msg) : "the definition has another name now", code);
	if (code == EXIT_DONE)
		code = start_and_supervise(&l, &gone);
	again->wanted = gone;
	if (launch_restarts(&l, code)) {
		again->wanted = launch_pause_before_restart(&l, now_s() - began, &again->delay_s) == 0;
		free(again->name);
		again->name = xstrdup(l.plan.vm);
	}
	ready->l = NULL;
	launch_clear(&l);
	problems_clear(&ps);
	return code;
}

static int launch(struct launch_args *a, int ready_fd)
{
	struct readiness ready = { .fd = ready_fd, .timings = a->timings };
	struct restart again = { .wanted = true };
	int code = 0;

	a->launch.ready = on_ready;
	a->launch.ready_ctx = &ready;
	while (again.wanted)
		code = launch_once(a, &ready, &again);
	free(again.name);
	a->launch.ready_ctx = NULL;
	return code;
}

static pid_t daemon_pid;

static void pass_on(int sig)
{
	(void)sig;
	kill(daemon_pid, SIGTERM);
}

/* Who interrupts us means the start, which the child undoes; it has no terminal to hear it from. What the caller ignores stays ignored. Not SIGHUP: a line that drops
 * means nothing. */
static void pass_signals_on(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGQUIT };
	const struct sigaction ours = { .sa_handler = pass_on };
	struct sigaction before;

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
			sigaction(signals[i], &ours, NULL);
}

/* The child does all the work; the parent returns its exit code, or 0 as soon as the guest runs. */
static int daemonize(struct launch_args *a)
{
	int fds[2], status;
	pid_t pid, ended;
	ssize_t n;
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0 || (pid = fork()) < 0) {
		log_error("daemonize: %s", strerror(errno));
		return EXIT_FAILED;
	}
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		close(fds[0]);
		/* The terminal is not ours any more, nor a QEMU's that has its console there. */
		if (null < 0 || dup2(null, STDIN_FILENO) < 0)
			log_warning("daemonize: /dev/null: %s", strerror(errno));
		if (null > STDERR_FILENO)
			close(null);
		if (setsid() < 0 || chdir("/") < 0)
			log_warning("daemonize: %s", strerror(errno));
		exit(launch(a, fds[1]));
	}
	close(fds[1]);
	daemon_pid = pid;
	pass_signals_on();
	slim_down(); /* while we wait: what is given back now need not be when we end */
	do
		n = read(fds[0], &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(EXIT_DONE); /* nothing was printed, and all else is the child's */
	/* Closed without a word: it has failed, and said why on our stderr. */
	do
		ended = waitpid(pid, &status, 0);
	while (ended < 0 && errno == EINTR);
	return ended == pid && WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
}

/* A file that need not be there yet, seen from the folder that we are in; owned, NULL for NULL. */
static char *absolute_path(const char *file)
{
	AUTO_FREE char *here = file && *file != '/' ? getcwd(NULL, 0) : NULL;

	return !file ? NULL : here ? xasprintf("%s/%s", here, file) : xstrdup(file);
}

int main(int argc, char **argv)
{
	struct launch_args a = { 0 };
	AUTO_FREE char *absolute = NULL, *strace_file = NULL;
	int code = parse(argc, argv, &a);

	log_init("gpuvm-launch", a.verbose > 1 ? LOG_LEVEL_DEBUG : a.verbose == 1 ? LOG_LEVEL_INFO : a.verbose < 0 ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE);
	if (code == 0 && !a.done) {
		/* --daemonize changes the folder. */
		absolute = absolute_path(a.launch.definition);
		if (absolute && a.daemonize)
			a.launch.definition = absolute;
		strace_file = absolute_path(a.strace_file);
		a.launch.strace_file = strace_file;
		code = a.launch.dry_run ? dry_run(&a) : a.daemonize ? daemonize(&a) : launch(&a, -1);
	}
	strv_clear(&a.launch.sets);
	strv_clear(&a.launch.trace);
	return cmd_finish_output(code);
}
