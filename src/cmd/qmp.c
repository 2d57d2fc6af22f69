/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm qmp: give QEMU commands on its second monitor, one, a list of them, or as a person types them. */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "cmd.h"
#include "gpuvm/log.h"
#include "gpuvm/qmp_words.h"
#include "qmp_shell.h"

#define GREETING_TIMEOUT_MS 5000 /* the monitor's own thread greets: at once, or not as long as it serves another one */
#define REPLY_TIMEOUT_MS    30000

static const char usage[] =
	"usage: gpuvm qmp NAME [COMMAND [JSON | NAME=VALUE...]]\n"
	"\n"
	"Give the QEMU of a VM a QMP command and print its reply. A VALUE is a number, true, false, null, JSON, or else a string.\n"
	"Without COMMAND: on a terminal a shell with history, completion and help; else a command per line is read from standard\n"
	"input, each reply is a line, and the first error ends it with exit status 1.\n"
	"\n"
	"  gpuvm qmp half0 query-pci\n"
	"  gpuvm qmp half0 qom-get path=/machine property=type\n"
	"  gpuvm qmp half0 qom-get '{\"path\": \"/machine\", \"property\": \"type\"}'\n";

/* --- one command ---------------------------------------------------------------------------------------------------- */

static int run_one(struct qmp *q, const char *command, struct json_object *args)
{
	struct json_object *ret = NULL;
	struct err e = { 0 };

	if (qmp_command(q, command, args, REPLY_TIMEOUT_MS, &ret, &e) < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	cmd_print_json(ret);
	return EXIT_DONE;
}

/* --- a command per line --------------------------------------------------------------------------------------------- */

static void drop_events(struct qmp *q)
{
	struct json_object *event;

	while ((event = qmp_next_event(q)))
		json_object_put(event);
}

static int run_line(struct qmp *q, const char *line, struct err *e)
{
	AUTO_FREE char *command = NULL;
	struct json_object *args = NULL, *ret = NULL;
	int r = qmp_words_line(line, &command, &args, e);

	if (r < 0 || !command)
		return r;
	r = qmp_command(q, command, args, REPLY_TIMEOUT_MS, &ret, e);
	if (r == 0)
		puts(json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(ret);
	/* Who feeds us may wait for the reply before the next line. */
	fflush(stdout);
	return r;
}

static int run_lines(struct qmp *q)
{
	AUTO_FREE char *line = NULL;
	size_t size = 0;
	int nr = 0;

	while (getline(&line, &size, stdin) >= 0) {
		struct err e = { 0 };

		nr++;
		if (run_line(q, line, &e) < 0) {
			log_error("line %d: %s", nr, e.msg);
			return EXIT_FAILED;
		}
		drop_events(q);
	}
	if (ferror(stdin)) {
		log_error("read the commands: %s", strerror(errno));
		return EXIT_FAILED;
	}
	return EXIT_DONE;
}

/* --- the verb --------------------------------------------------------------------------------------------------------- */

static int run(const char *name, const char *command, struct json_object *args)
{
	struct claim c = { 0 };
	struct err e = { 0 };
	struct qmp q;
	int r = cmd_running_claim(name, &c);

	if (r == 0 && cmd_connect_monitor(&c, GREETING_TIMEOUT_MS, &q, &e) < 0) {
		log_error("%s", e.msg);
		r = EXIT_FAILED;
	}
	if (r) {
		json_object_put(args);
	} else {
		r = command						? run_one(&q, command, args)
		    : isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? qmp_shell(c.vm, &q)
								    : run_lines(&q);
		qmp_close(&q);
	}
	claim_clear(&c);
	return r;
}

int cmd_qmp(int argc, char **argv)
{
	struct json_object *args = NULL;
	struct err e = { 0 };

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage, stdout);
		return EXIT_DONE;
	}
	if (argc < 2 || *argv[1] == '-') {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (argc > 3 && qmp_words_arguments(argv + 3, (size_t)argc - 3, &args, &e) < 0) {
		log_error("qmp: %s", e.msg);
		return EXIT_USAGE;
	}
	return run(argv[1], argc > 2 ? argv[2] : NULL, args);
}
