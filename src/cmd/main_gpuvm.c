/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm VERB: look at the host, plan, and control VMs that run. */
#include <string.h>

#include "cmd.h"
#include "gpuvm/log.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} verbs[] = {
	{ "topo", cmd_topo, "show this host: sockets, nodes, PCIe tree, what can be given to a VM" },
	{ "capture", cmd_capture, "copy what is needed to plan for this host elsewhere; without serial numbers" },
	{ "doctor", cmd_doctor, "check this host: what is wrong or slow, what it costs, what mends it" },
	{ "audit", cmd_audit, "are tenants kept apart? of the VMs that run, or of one as it would be" },
	{ "plan", cmd_plan, "decide everything for a VM and show it; touch nothing" },
	{ "guest-check", cmd_guest_check, "a script that checks the guest from inside against the plan" },
	{ "diff", cmd_diff, "compare the QEMU commands of two definitions, or of a VM that runs and its definition" },
	{ "templates", cmd_templates, "the sizes this machine can be cut into, and how many fit now" },
	{ "image", cmd_image, "disk images to make VMs from: install, list, upgrade, remove" },
	{ "fabric", cmd_fabric, "NVLink partitions: list them, activate, deactivate, tell a restarted Fabric Manager" },
	{ "verify", cmd_verify, "is the running VM what was planned? threads, pages, devices, BARs" },
	{ "list", cmd_list, "every VM that runs, and how the others ended" },
	{ "status", cmd_status, "everything about one VM" },
	{ "log", cmd_log, "what happened to a VM, what QEMU said, what the guest wrote" },
	{ "console", cmd_console, "the guest's serial console on this terminal" },
	{ "create", cmd_create, "make a VM: its definition, its disks, and start it" },
	{ "delete", cmd_delete, "remove what create has made" },
	{ "start", cmd_start, "start a VM and return when its guest runs" },
	{ "restart", cmd_restart, "stop a VM and start it again" },
	{ "pause", cmd_pause, "stop the vCPUs" },
	{ "resume", cmd_resume, "let them run again" },
	{ "reset", cmd_reset, "press the guest's reset button" },
	{ "stop", cmd_stop, "shut a guest down and give its devices back" },
	{ "kill", cmd_kill, "end a guest at once and give its devices back" },
	{ "wait", cmd_wait, "return when a VM has ended, with its exit code" },
	{ "qmp", cmd_qmp, "talk to QEMU: one QMP command, or a shell with history and completion" },
	{ "recover", cmd_recover, "give back what a dead launcher held" },
	{ "version", cmd_version, "versions of gpuvm and QEMU, and what that QEMU can do" },
};

static void print_usage(FILE *out)
{
	fputs("usage: gpuvm VERB [options]\n\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(out, "  %-11s %s\n", verbs[i].name, verbs[i].what);
	fputs("\n`gpuvm VERB --help` says more. `gpuvm-launch FILE.ini` starts a VM.\n", out);
}

static void suggest(const char *word)
{
	const struct verb *best = NULL;
	unsigned int distance = 3;

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (edit_distance(word, verbs[i].name) < distance) {
			distance = edit_distance(word, verbs[i].name);
			best = &verbs[i];
		}
	}
	fprintf(stderr, "gpuvm: there is no verb '%s'", word);
	fprintf(stderr, best ? "; did you mean '%s'?\n" : "; `gpuvm --help` lists them%s\n", best ? best->name : "");
}

int main(int argc, char **argv)
{
	log_init("gpuvm", LOG_LEVEL_NOTICE);
	if (argc < 2) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		print_usage(stdout);
		return cmd_finish_output(EXIT_DONE);
	}
	if (strcmp(argv[1], "--version") == 0)
		return cmd_finish_output(cmd_version(0, NULL));
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return cmd_finish_output(verbs[i].run(argc - 1, argv + 1));
	suggest(argv[1]);
	return EXIT_USAGE;
}
