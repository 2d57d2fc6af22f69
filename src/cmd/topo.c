/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm topo: show the host. */
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/draw.h"
#include "gpuvm/log.h"
#include "gpuvm/probe.h"

static const char usage[] = "usage: gpuvm topo [--sysroot DIR] [--json] [--all]\n"
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

/* What running VMs hold. Without the lock and without tidying up: this is only a look. */
static void collect_use(struct host_use *use)
{
	struct err e = { 0 };

	if (claim_collect_use(NULL, NULL, use, &e) < 0)
		log_warning("what VMs use is not shown: %s", e.msg);
}

int cmd_topo(int argc, char **argv)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	CLEANUP(host_use_clear) struct host_use use = { 0 };
	struct topo_options o = { .sysroot = "" };
	struct err e = { 0 };

	if (parse_options(argc, argv, &o) < 0) {
		fputs("try: gpuvm topo --help\n", stderr);
		return EXIT_USAGE;
	}
	if (o.help) {
		fputs(usage, stdout);
		return EXIT_DONE;
	}
	if (probe_host(o.sysroot, &t, &e) < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	if (!strcmp(t.root, "/"))
		collect_use(&use);
	if (o.json)
		cmd_print_json(topology_to_json(&t, &use));
	else
		topology_print(&t, &use, o.draw | terminal_flags(), stdout);
	return fflush(stdout) || ferror(stdout) ? EXIT_FAILED : EXIT_DONE;
}
