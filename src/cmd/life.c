/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm start, restart, pause, resume, reset. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/log.h"

#define QMP_TIMEOUT_MS	    30000
#define GREETING_TIMEOUT_MS 5000 /* at once, or not as long as another client is connected */

/* --- start, restart -------------------------------------------------------------------------------------------- */

/* sd_booted(3): systemd is the init of this machine. */
static bool systemd_runs(void)
{
	return access("/run/systemd/system/", F_OK) == 0;
}

/* Run a program to its end: its exit code, or EXIT_FAILED. */
static int run(char *const argv[])
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execvp(argv[0], argv);
		fprintf(stderr, "gpuvm: run '%s': %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		log_error("run '%s': %s", argv[0], strerror(errno));
		return EXIT_FAILED;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : EXIT_FAILED;
}

/* The launcher that belongs to this program: beside it, else the one in PATH. */
static char *launcher_path(void)
{
	AUTO_FREE char *self = realpath("/proc/self/exe", NULL);
	char *slash = self ? strrchr(self, '/') : NULL, *path;

	if (!slash)
		return xstrdup("gpuvm-launch");
	*slash = '\0';
	path = xasprintf("%s/gpuvm-launch", self);
	if (access(path, X_OK) == 0)
		return path;
	free(path);
	return xstrdup("gpuvm-launch");
}

/* The unit's name, if systemd is to start it: a VM by its name, whose template unit is installed. */
static char *unit_of(const char *name)
{
	AUTO_FREE char *path = cmd_definition_path(name);
	char *unit;

	/* Without it systemd would skip the unit, and call that a success. */
	if (access(path, F_OK) < 0)
		return NULL;
	/* A unit does not have our environment. */
	if (!systemd_runs() || getenv("GPUVM_RUNDIR") || getenv("GPUVM_STATEDIR") || getenv("GPUVM_CONFDIR") || strchr(name, '/') ||
	    strstr(name, ".ini"))
		return NULL;
	/* Names are letters, digits and "-_.": only "-" has a meaning in a unit's instance name, as "/" in a path, which %i keeps as it is. */
	unit = xasprintf("gpuvm@%s.service", name);
	if (access("/etc/systemd/system/gpuvm@.service", F_OK) == 0 || access("/usr/lib/systemd/system/gpuvm@.service", F_OK) == 0 ||
	    access("/usr/local/lib/systemd/system/gpuvm@.service", F_OK) == 0 || access("/lib/systemd/system/gpuvm@.service", F_OK) == 0)
		return unit;
	free(unit);
	return NULL;
}

/* What a program prints; NULL if it cannot be run. Owned. */
static char *output_of(char *const argv[])
{
	char *text = NULL;
	size_t len = 0;
	int fds[2], status;
	FILE *from, *to;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return NULL;
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(fds[1]);
	from = fdopen(fds[0], "r");
	to = open_memstream(&text, &len);
	if (!from || !to)
		abort(); /* out of memory */
	for (int c; pid > 0 && (c = fgetc(from)) != EOF;)
		fputc(c, to);
	fclose(from);
	fclose(to);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return text;
	free(text);
	return NULL;
}

/* "KEY=VALUE" in the lines of `systemctl show`; the value, owned, or NULL. */
static char *property(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (strncmp(line, key, n) == 0 && line[n] == '=' && line[n + 1] && line[n + 1] != '\n')
			return xstrndup(line + n + 1, strcspn(line + n + 1, "\n"));
	return NULL;
}

/* The unit's properties of interest. */
static char *show_unit(const char *unit)
{
	char systemctl[] = "systemctl", show[] = "show", p[] = "-p", status[] = "ExecMainStatus", id[] = "InvocationID";
	AUTO_FREE char *copy = xstrdup(unit);

	return output_of((char *[]){ systemctl, show, p, status, p, id, copy, NULL });
}

/* What the launcher has said to the journal. */
static char *unit_words(const char *invocation)
{
	char journalctl[] = "journalctl", sync[] = "--sync", quiet[] = "-q", plain[] = "--no-pager", cat[] = "--output=cat", of[] = "--identifier=gpuvm-launch";
	AUTO_FREE char *match = xasprintf("_SYSTEMD_INVOCATION_ID=%s", invocation);

	free(output_of((char *[]){ journalctl, sync, NULL }));
	return output_of((char *[]){ journalctl, quiet, plain, cat, of, match, NULL });
}

/* The launcher's words and its exit code, if it has run at all. @before: the unit's last invocation before that; may be NULL. */
static int explain_unit(const char *unit, const char *before)
{
	AUTO_FREE char *text = show_unit(unit), *status = property(text, "ExecMainStatus"), *invocation = property(text, "InvocationID"), *said = NULL;
	int code = EXIT_FAILED;

	if (invocation && (!before || strcmp(invocation, before) != 0)) {
		said = unit_words(invocation);
		if (!status || parse_int(status, EXIT_FAILED, 127, &code) < 0)
			code = EXIT_FAILED;
	}
	if (said && *said)
		fputs(said, stderr);
	else
		log_error("`journalctl -u %s` says why", unit);
	return code;
}

static int start_unit(const char *unit)
{
	char systemctl[] = "systemctl", quiet[] = "-q", start[] = "start";
	AUTO_FREE char *text = show_unit(unit), *before = property(text, "InvocationID"), *copy = xstrdup(unit);

	return run((char *[]){ systemctl, quiet, start, copy, NULL }) ? explain_unit(unit, before) : EXIT_DONE;
}

int cmd_start_vm(const char *name, bool direct)
{
	AUTO_FREE char *unit = direct ? NULL : unit_of(name), *launcher = NULL, *path = NULL;
	char option[] = "-d";

	if (unit)
		return start_unit(unit);
	launcher = launcher_path();
	path = cmd_definition_path(name);
	return run((char *[]){ launcher, option, path, NULL });
}

int cmd_start(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm start [--direct] NAME\n\nStart a VM and return when its guest runs: as the unit gpuvm@NAME.service where\n"
				    "systemd runs and has it, else (or with --direct) by `gpuvm-launch -d`.\n";
	struct cmd_simple o = { .flag = "direct" };
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	return r || o.help ? r : cmd_start_vm(o.name, o.flag_set);
}

int cmd_restart(int argc, char **argv)
{
	static const char usage[] = "usage: gpuvm restart [--direct] NAME\n\nStop a VM as `gpuvm stop` does, and start it again. What the definition says now counts.\n";
	struct cmd_simple o = { .flag = "direct" };
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	if (r || o.help)
		return r;
	r = cmd_end_vm(o.name, SIGTERM, 0);
	return r ? r : cmd_start_vm(o.name, o.flag_set);
}

/* --- pause, resume, reset ------------------------------------------------------------------------------------------ */

/* After a fault (internal-error, io-error, guest-panicked) going on would hide it, or go on with a dead device. A guest that was stopped
 * because the host had no space writes again what could not be written; "prelaunch" is one that was reset while it did not run. */
static int check_resume(const struct claim *c, struct qmp *q, const char *status, struct err *e)
{
	static const char *const fine[] = { "paused", "prelaunch", "suspended", "running" };
	struct qmp_full_disk full = { 0 };
	int r = strcmp(status, "io-error") == 0 ? qmp_query_full_disk(q, &full, e) : 0;

	for (size_t i = 0; i < ARRAY_SIZE(fine); i++)
		if (strcmp(status, fine[i]) == 0)
			return strcmp(c->state, "starting") ? 0 : err_set(e, -EAGAIN, "it is being started and will run by itself");
	if (r < 0 || *full.node)
		return r;
	return err_set(e, -EINVAL, "QEMU stopped the guest itself (%s): it cannot go on; `gpuvm restart` starts it anew", status);
}

/* One QMP command that has no arguments, for a VM that is in order. */
static int tell(const struct claim *c, const char *command, struct err *e)
{
	struct qmp q;
	char status[32];
	int r = cmd_connect_verbs(c, GREETING_TIMEOUT_MS, &q, e);

	if (r < 0)
		return r;
	r = qmp_query_status(&q, status, e);
	if (r == 0 && strcmp(command, "cont") == 0) {
		r = check_resume(c, &q, status, e);
		/* QEMU takes no notice of `cont` while the guest sleeps. */
		command = strcmp(status, "suspended") == 0 ? "system_wakeup" : command;
	}
	if (r == 0)
		r = qmp_command(&q, command, NULL, QMP_TIMEOUT_MS, NULL, e);
	qmp_close(&q);
	return r;
}

static int tell_vm(int argc, char **argv, const char *usage, const char *command)
{
	struct cmd_simple o = { 0 };
	struct claim c = { 0 };
	struct err e = { 0 };
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	if (r || o.help)
		return r;
	r = cmd_running_claim(o.name, &c);
	if (r == 0 && tell(&c, command, &e) < 0) {
		log_error("%s: %s", argv[0], e.msg);
		r = EXIT_FAILED;
	}
	claim_clear(&c);
	return r;
}

int cmd_pause(int argc, char **argv)
{
	return tell_vm(argc, argv, "usage: gpuvm pause NAME\n\nStop the vCPUs. Devices, memory and CPUs stay the VM's; DMA of devices is not stopped.\n", "stop");
}

int cmd_resume(int argc, char **argv)
{
	return tell_vm(argc, argv, "usage: gpuvm resume NAME\n\nLet a paused VM run again, and wake one that sleeps.\n", "cont");
}

int cmd_reset(int argc, char **argv)
{
	return tell_vm(argc, argv, "usage: gpuvm reset NAME\n\nPress the guest's reset button: at once, without asking it. Passed-through devices are reset too.\n",
		       "system_reset");
}
