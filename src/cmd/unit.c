/* SPDX-License-Identifier: GPL-2.0-or-later */
/* unit.c - VMs as units of systemd: gpuvm@NAME.service. systemctl and journalctl are asked, as an administrator would. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/log.h"

/* sd_booted(3): systemd is the init of this machine. */
static bool systemd_runs(void)
{
	return access("/run/systemd/system/", F_OK) == 0;
}

/* A unit does not have our environment. */
static bool has_own_folders(void)
{
	return getenv("GPUVM_RUNDIR") || getenv("GPUVM_STATEDIR") || getenv("GPUVM_CONFDIR");
}

int cmd_run(char *const argv[])
{
	/* As system(3): who interrupts us means the program, which hears it, too, and ends as it has to. */
	const struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct sigaction before;
	int status, r;
	pid_t pid;

	sigaction(SIGINT, &ignore, &before);
	pid = fork();
	if (pid == 0) {
		sigaction(SIGINT, &before, NULL);
		execvp(argv[0], argv);
		fprintf(stderr, "gpuvm: run '%s': %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	r = pid < 0 || waitpid(pid, &status, 0) < 0 ? -errno : 0;
	sigaction(SIGINT, &before, NULL);
	if (r < 0) {
		log_error("run '%s': %s", argv[0], strerror(-r));
		return EXIT_FAILED;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : EXIT_FAILED;
}

/* A VM by its name, whose template unit is installed. */
char *cmd_unit_of(const char *name)
{
	AUTO_FREE char *path = cmd_definition_path(name);
	char *unit;

	/* Without it systemd would skip the unit, and call that a success. */
	if (access(path, F_OK) < 0)
		return NULL;
	if (!systemd_runs() || has_own_folders() || strchr(name, '/') || strstr(name, ".ini"))
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
	char systemctl[] = "systemctl", show[] = "show", p[] = "-p", status[] = "ExecMainStatus", how[] = "ExecMainCode", id[] = "InvocationID";
	AUTO_FREE char *copy = xstrdup(unit);

	return output_of((char *[]){ systemctl, show, p, status, p, how, p, id, copy, NULL });
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
	AUTO_FREE char *text = show_unit(unit), *status = property(text, "ExecMainStatus"), *how = property(text, "ExecMainCode");
	AUTO_FREE char *invocation = property(text, "InvocationID"), *said = NULL;
	int code = EXIT_FAILED, cause = 0;

	if (invocation && (!before || strcmp(invocation, before) != 0)) {
		said = unit_words(invocation);
		/* Of one that was killed it is the signal. */
		if (!how || parse_int(how, 0, 127, &cause) < 0 || cause != CLD_EXITED || !status || parse_int(status, EXIT_FAILED, 127, &code) < 0)
			code = EXIT_FAILED;
	}
	if (said && *said)
		fputs(said, stderr);
	else
		log_error("`journalctl -u %s` says why", unit);
	return code;
}

int cmd_unit_start(const char *unit)
{
	char systemctl[] = "systemctl", quiet[] = "-q", start[] = "start";
	AUTO_FREE char *text = show_unit(unit), *before = property(text, "InvocationID"), *copy = xstrdup(unit);

	return cmd_run((char *[]){ systemctl, quiet, start, copy, NULL }) ? explain_unit(unit, before) : EXIT_DONE;
}

/* --- with the host ---------------------------------------------------------------------------------------------- */

/* What `systemctl enable` makes by the unit's [Install]; there also while systemd does not run, as in a container that prepares a disk. */
bool cmd_unit_enabled(const char *name)
{
	AUTO_FREE char *link = xasprintf("/etc/systemd/system/gpuvm.target.wants/gpuvm@%s.service", name);
	struct stat st;

	return !has_own_folders() && lstat(link, &st) == 0;
}

int cmd_unit_disable(const char *name)
{
	char systemctl[] = "systemctl", quiet[] = "-q", disable[] = "disable";
	AUTO_FREE char *unit = xasprintf("gpuvm@%s.service", name);

	return cmd_run((char *[]){ systemctl, quiet, disable, unit, NULL });
}
