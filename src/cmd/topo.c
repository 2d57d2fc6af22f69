/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm topo: show the host. */
#include <getopt.h>
#include <json-c/json.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/draw.h"
#include "gpuvm/log.h"
#include "gpuvm/probe.h"

static const char usage[] =
	"usage: gpuvm topo [--sysroot DIR] [--json] [--all]\n"
	"\n"
	"Show the sockets, nodes and CPUs of this host, and the PCIe tree with its GPUs, NICs,\n"
	"NVMe controllers and NVSwitches: what can be given to a VM, and what is in use.\n"
	"\n"
	"  --sysroot DIR   read the machine below DIR (a captured one) instead of this one\n"
	"  --json          everything, for scripts\n"
	"  --all           draw all functions and ports\n"
	"  --help\n";

struct topo_options {
	const char *sysroot;
	bool json, help;
	unsigned int draw;
};

static int parse_options(int argc, char **argv, struct topo_options *ret)
{
	static const struct option options[] = { { "sysroot", required_argument, NULL, 's' },
						 { "json", no_argument, NULL, 'j' },
						 { "all", no_argument, NULL, 'a' },
						 { "help", no_argument, NULL, 'h' },
						 { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "ah", options, NULL)) != -1) {
		switch (c) {
		case 's':
			ret->sysroot = optarg;
			break;
		case 'j':
			ret->json = true;
			break;
		case 'a':
			ret->draw |= DRAW_ALL;
			break;
		case 'h':
			ret->help = true;
			break;
		default:
			return -1;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "gpuvm topo: '%s' is one word too many\n", argv[optind]);
		return -1;
	}
	return 0;
}

/* https://no-color.org: set and not empty. */
static unsigned int terminal_flags(void)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	unsigned int flags = 0;

	setlocale(LC_CTYPE, "");
	if (!strcmp(nl_langinfo(CODESET), "UTF-8"))
		flags |= DRAW_UTF8;
	if (isatty(STDOUT_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb"))
		flags |= DRAW_COLOR;
	return flags;
}

static void print_json(const struct topology *t)
{
	struct json_object *o = topology_to_json(t, NULL);

	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

int cmd_topo(int argc, char **argv)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct topo_options o = { .sysroot = "" };
	struct err e = { 0 };

	if (parse_options(argc, argv, &o) < 0) {
		fputs("try: gpuvm topo --help\n", stderr);
		return 2;
	}
	if (o.help) {
		fputs(usage, stdout);
		return 0;
	}
	if (probe_host(o.sysroot, &t, &e) < 0) {
		log_error("%s", e.msg);
		return 1;
	}
	if (o.json)
		print_json(&t);
	else
		topology_print(&t, NULL, o.draw | terminal_flags(), stdout);
	return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
