/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm start, restart, pause, resume, reset. */
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/log.h"

#define QMP_TIMEOUT_MS	    30000
#define GREETING_TIMEOUT_MS 5000 /* at once, or not as long as another client is connected */

/* --- start, restart -------------------------------------------------------------------------------------------- */

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

int cmd_start_vm(const char *name, bool direct)
{
	AUTO_FREE char *unit = direct ? NULL : cmd_unit_of(name), *launcher = NULL, *path = NULL;
	char option[] = "-d";

	if (unit)
		return cmd_unit_start(unit);
	launcher = launcher_path();
	path = cmd_definition_path(name);
	return cmd_run((char *[]){ launcher, option, path, NULL });
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
