/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Times of processes, for tests/bench/run, printed in ms.
 *
 *   bench_vm time COMMAND...      from its start to its end; it must succeed
 *   bench_vm gone PID COMMAND...  the same, and until process PID has gone
 *   bench_vm qemu [-x SCRIPT] [-b|-k] FILE...
 *                                 the floor of a launcher: the QEMU whose arguments are the lines of each FILE, with the least QMP client that there can
 *                                 be. Two numbers: from the first fork to the reply to the last `cont`; from `quit` (-b: the power button; -k: SIGKILL)
 *                                 to the last one's end. All are started at once. SCRIPT is run by bash in between, with the first one's pid as $1.
 *
 * The socket is one that we listen on, as gpuvm's is: no waiting for a path to be there. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/cleanup.h"
#include "gpuvm/parse.h"
#include "gpuvm/strv.h"

struct machine {
	struct strv argv;
	char path[108];
	pid_t pid;
	FILE *qmp;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench_vm: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void wait_for(pid_t pid, const char *what, bool killed)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		die(what);
	if (!killed && (!WIFEXITED(status) || WEXITSTATUS(status))) {
		fprintf(stderr, "bench_vm: %s: wait status 0x%x\n", what, (unsigned int)status);
		exit(1);
	}
}

static void run_command(char **argv)
{
	pid_t pid;

	errno = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (errno)
		die(argv[0]);
	wait_for(pid, argv[0], false);
}

/* The arguments, with our socket in the place of the control socket's path. */
static void read_machine(struct machine *m, const char *file)
{
	AUTO_FREE char *text = NULL;
	char *save = NULL;

	errno = -read_text_file(file, 1 << 20, &text);
	if (errno)
		die(file);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "socket,id=control,path=%107[^,]", m->path) == 1)
			strv_push(&m->argv, "socket,id=control,fd=3,server=on,wait=off");
		else
			strv_push(&m->argv, line);
	}
	if (!*m->path) {
		fprintf(stderr, "bench_vm: %s: no control socket in it\n", file);
		exit(1);
	}
}

static void start(struct machine *m)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path, m->path, sizeof(sa.sun_path));
	unlink(m->path);
	if (fd < 0 || client < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 1) < 0)
		die(m->path);
	m->pid = vfork();
	if (m->pid == 0) {
		/* Nothing else is below 3 or without close-on-exec. dup2() to itself would leave that on. It must not outlive a bench that fails. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
			_exit(127);
		if (fd == 3 ? fcntl(3, F_SETFD, 0) == 0 : dup2(fd, 3) == 3)
			execv(m->argv.v[0], m->argv.v);
		_exit(127);
	}
	close(fd);
	if (m->pid < 0 || connect(client, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		die(m->argv.v[0]);
	m->qmp = fdopen(client, "r+");
}

/* One line from QEMU that begins with @want, past events. */
static void expect(struct machine *m, const char *want)
{
	char line[4096];

	do
		if (!fgets(line, sizeof(line), m->qmp)) {
			fprintf(stderr, "bench_vm: QEMU closed its monitor before '%s'\n", want);
			exit(1);
		}
	while (strncmp(line, want, strlen(want)) != 0);
}

static void say(struct machine *m, const char *command)
{
	fseek(m->qmp, 0, SEEK_CUR);
	fprintf(m->qmp, "{\"execute\":\"%s\"}\n", command);
	fflush(m->qmp);
}

int main(int argc, char **argv)
{
	const char *script = NULL, *end = "quit";
	bool kills = false;
	struct machine *v;
	double began, runs;
	int c, n;

	if (argc > 2 && strcmp(argv[1], "time") == 0) {
		began = now_ms();
		run_command(argv + 2);
		printf("%.3f\n", now_ms() - began);
		return 0;
	}
	if (argc > 3 && strcmp(argv[1], "gone") == 0) {
		struct pollfd p = { .fd = pidfd_open(atoi(argv[2]), 0), .events = POLLIN };

		if (p.fd < 0)
			die(argv[2]);
		began = now_ms();
		run_command(argv + 3);
		if (poll(&p, 1, 60000) != 1)
			die(argv[2]);
		printf("%.3f\n", now_ms() - began);
		return 0;
	}
	optind = 2;
	while ((c = getopt(argc, argv, "x:bk")) != -1) {
		if (c == 'x')
			script = optarg;
		else if (c == 'b')
			end = "system_powerdown";
		else if (c == 'k')
			kills = true;
		else
			return 2;
	}
	n = argc - optind;
	if (argc < 3 || strcmp(argv[1], "qemu") != 0 || n < 1) {
		fputs("usage: bench_vm time COMMAND... | bench_vm gone PID COMMAND... | bench_vm qemu [-x SCRIPT] [-b|-k] FILE...\n", stderr);
		return 2;
	}
	v = xcalloc((size_t)n, sizeof(*v));
	for (int i = 0; i < n; i++)
		read_machine(&v[i], argv[optind + i]);
	began = now_ms();
	for (int i = 0; i < n; i++)
		start(&v[i]);
	for (int i = 0; i < n; i++) {
		expect(&v[i], "{\"QMP\"");
		say(&v[i], "qmp_capabilities");
		expect(&v[i], "{\"return\"");
		say(&v[i], "cont");
	}
	for (int i = 0; i < n; i++)
		expect(&v[i], "{\"return\"");
	runs = now_ms();
	if (script) {
		char pid[16], sh[] = "bash", dash_c[] = "-c", *args[] = { sh, dash_c, xstrdup(script), sh, pid, NULL };

		snprintf(pid, sizeof(pid), "%d", v[0].pid);
		run_command(args);
		free(args[2]);
	}
	printf("%.3f ", runs - began);
	began = now_ms();
	for (int i = 0; i < n; i++)
		if (kills)
			kill(v[i].pid, SIGKILL);
		else
			say(&v[i], end);
	for (int i = 0; i < n; i++) {
		wait_for(v[i].pid, "QEMU", kills);
		fclose(v[i].qmp);
		unlink(v[i].path);
		strv_clear(&v[i].argv);
	}
	printf("%.3f\n", now_ms() - began);
	free(v);
	return 0;
}
