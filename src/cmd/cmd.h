/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cmd.h - the verbs. Each takes its own words (argv[0] is the verb) and returns the exit code. */
#ifndef GPUVM_CMD_H
#define GPUVM_CMD_H

#include "gpuvm/claim.h"
#include "gpuvm/launch.h"

/* Exit codes, for scripts; docs/man/gpuvm-launch.1 */
enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,  /* something failed while running; everything was undone */
	EXIT_USAGE = 2,
	EXIT_CONFIG = 3,  /* the definition is wrong */
	EXIT_HOST = 4,    /* this host cannot satisfy it */
	EXIT_IN_USE = 5,
	EXIT_ABNORMAL = 6 /* the guest ended abnormally */
};

int cmd_topo(int argc, char **argv);
int cmd_capture(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_audit(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_guest_check(int argc, char **argv);
int cmd_templates(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_fabric(int argc, char **argv);
int cmd_diff(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_wait(int argc, char **argv);
int cmd_qmp(int argc, char **argv);
int cmd_recover(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_delete(int argc, char **argv);
int cmd_start(int argc, char **argv);
int cmd_restart(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_console(int argc, char **argv);
int cmd_log(int argc, char **argv);

/* --- shared (common.c) --------------------------------------------------------------------------------- */

/* A VM's definition: a path if it has a "/" or ends in ".ini", else NAME.ini in launch_config_dir(). Owned. */
char *cmd_definition_path(const char *name_or_path);

/* A VM's name from a name or a path of a definition; owned. */
char *cmd_vm_name(const char *name_or_path);

/* Can @name be the name of a VM, and so a part of paths? Says on stderr why not. */
bool cmd_check_name(const char *verb, const char *name);

/* Options that most verbs of a running VM have: --json, --help and one NAME. */
struct cmd_simple {
	const char *flag; /* given: a long option in place of --json, or with both_flags beside it */
	bool both_flags;
	bool flag_set;
	bool json, help;
	const char *name; /* NULL if none was given */
};
/* 0, or EXIT_USAGE after saying why. @want_name: one NAME is needed. */
int cmd_parse_simple(int argc, char **argv, const char *usage, bool want_name, struct cmd_simple *ret);

void cmd_print_json(struct json_object *o); /* consumes it */

/* At the end of a program: @code, or EXIT_FAILED after saying so if what was printed has not got out (a full disk). */
int cmd_finish_output(int code);

/* Print problems or a single error, as text on stderr or as {"errors":[...]} on stdout; returns the exit code. */
int cmd_report(const struct problems *ps, const struct err *e, const char *vm, bool json);

/* Be the client of qmp.sock, past the handshake, or of verbs.sock, which nobody holds for longer than a command takes; a QEMU that another version of gpuvm has
 * started may not have that. -ETIMEDOUT, -EAGAIN: another one is. */
int cmd_connect_monitor(const struct claim *c, uint64_t timeout_ms, struct qmp *ret, struct err *e);
int cmd_connect_verbs(const struct claim *c, uint64_t timeout_ms, struct qmp *ret, struct err *e);

/* Claim of a running VM: 0; EXIT_FAILED after saying that it does not run. */
int cmd_running_claim(const char *name_or_path, struct claim *ret);

/* Everybody who may need an image or a disk, from the definitions and the claims. */
struct image_users;
void cmd_image_users(struct image_users *ret);

/* Run a program to its end: its exit code, or EXIT_FAILED. */
int cmd_run(char *const argv[]);

/* VMs as units of systemd (unit.c). The unit's name, owned, if systemd is to start this VM; NULL: it runs no unit of it. */
char *cmd_unit_of(const char *name);
/* Its exit code is the launcher's, whose words it says. */
int cmd_unit_start(const char *unit);
/* Does the VM start with the host? And no longer: exit code. */
bool cmd_unit_enabled(const char *name);
int cmd_unit_disable(const char *name);

/* Start a VM as its unit where systemd runs and has it, else, or if @direct, by `gpuvm-launch -d`. Exit code. */
int cmd_start_vm(const char *name, bool direct);

/* End a VM by a signal to its launcher (SIGTERM: the power button, SIGQUIT: at once) and wait. @timeout_ms: after that at once; 0: as its
 * definition says. Exit code. */
int cmd_end_vm(const char *name_or_path, int sig, uint64_t timeout_ms);

/* "2026-11-22 03:04:05  running  state  ..." */
void cmd_event_text(struct json_object *event, char *buf, size_t size);

#endif
