/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm topo: show the host. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/bad.h"
#include "gpuvm/draw.h"
#include "gpuvm/log.h"
#include "gpuvm/probe.h"

static const char usage[] =
	"usage: gpuvm topo [--json] [--all|--matrix|--svg FILE] [--sysroot DIR|TAR|--topology XML]\n"
	"\n"
	"Show the sockets, nodes and CPUs of this host, and the PCIe tree with its GPUs, NICs,\n"
	"NVMe controllers and NVSwitches: what can be given to a VM, and what is in use.\n"
	"\n"
	"  --all           draw all functions and ports\n"
	"  --matrix        how near each GPU is to every GPU, NIC and NVMe controller\n"
	"  --svg FILE      draw a picture; \"-\" for standard output\n"
	"  --json          everything, for scripts; with --matrix, the relations\n"
	"  --sysroot DIR   the machine below DIR, or in a tar (gpuvm capture), instead of this one\n"
	"  --topology XML  the machine of an hwloc XML (lstopo x.xml), as far as it goes\n"
	"  --help\n";

struct topo_options {
	const char *sysroot, *xml, *svg;
	bool json, matrix, help;
	unsigned int draw;
};

static int parse_one(int c, struct topo_options *ret)
{
	switch (c) {
	case 's':
		ret->sysroot = optarg;
		return 0;
	case 't':
		ret->xml = optarg;
		return 0;
	case 'g':
		ret->svg = optarg;
		return 0;
	case 'j':
		ret->json = true;
		return 0;
	case 'm':
		ret->matrix = true;
		return 0;
	case 'a':
		ret->draw |= DRAW_ALL;
		return 0;
	case 'h':
		ret->help = true;
		return 0;
	default:
		return -1;
	}
}

static int parse_options(int argc, char **argv, struct topo_options *ret)
{
	static const struct option options[] = { { "sysroot", required_argument, NULL, 's' },
						 { "topology", required_argument, NULL, 't' },
						 { "svg", required_argument, NULL, 'g' },
						 { "matrix", no_argument, NULL, 'm' },
						 { "json", no_argument, NULL, 'j' },
						 { "all", no_argument, NULL, 'a' },
						 { "help", no_argument, NULL, 'h' },
						 { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "ah", options, NULL)) != -1)
		if (parse_one(c, ret) < 0)
			return -1;
	if (optind < argc) {
		fprintf(stderr, "gpuvm topo: '%s' is one word too many\n", argv[optind]);
		return -1;
	}
	if (*ret->sysroot && ret->xml) {
		fputs("gpuvm topo: --sysroot and --topology are two machines; give one\n", stderr);
		return -1;
	}
	if (ret->svg && (ret->json || ret->matrix)) {
		fputs("gpuvm topo: --svg goes with neither --json nor --matrix\n", stderr);
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

/* What running VMs hold, and what is marked as bad. Without the lock and without tidying up: this is only a look. */
static void collect_use(struct host_use *use, struct topology *t)
{
	struct err e = { 0 };

	if (bad_apply(launch_state_dir(), true, t, &e) < 0)
		log_warning("what is marked as bad is not shown: %s", e.msg);
	if (claim_collect_use(NULL, NULL, use, &e) < 0)
		log_warning("what VMs use is not shown: %s", e.msg);
}

static int draw_svg(const struct topo_options *o, const struct topology *t, const struct host_use *use)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	topology_draw_svg(t, use, f);
	fclose(f);
	if (!strcmp(o->svg, "-")) {
		fwrite(text, 1, len, stdout);
		return EXIT_DONE;
	}
	r = write_output_file(o->svg, text, len);
	if (r == 0)
		return EXIT_DONE;
	log_error("write '%s': %s", o->svg, strerror(-r));
	return EXIT_FAILED;
}

static int show(const struct topo_options *o, const struct topology *t, const struct host_use *use)
{
	unsigned int flags = o->draw | terminal_flags();

	if (o->svg)
		return draw_svg(o, t, use);
	if (o->json)
		cmd_print_json(o->matrix ? topology_matrix_to_json(t, use) : topology_to_json(t, use));
	else if (o->matrix)
		topology_print_matrix(t, use, flags, stdout);
	else
		topology_print(t, use, flags, stdout);
	return EXIT_DONE;
}

int cmd_topo(int argc, char **argv)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	CLEANUP(host_use_clear) struct host_use use = { 0 };
	struct topo_options o = { .sysroot = "" };
	struct err e = { 0 };
	int code;

	if (parse_options(argc, argv, &o) < 0) {
		fputs("try: gpuvm topo --help\n", stderr);
		return EXIT_USAGE;
	}
	if (o.help) {
		fputs(usage, stdout);
		return EXIT_DONE;
	}
	if (probe_source(o.sysroot, o.xml, &t, &e) < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	if (!strcmp(t.root, "/"))
		collect_use(&use, &t);
	code = show(&o, &t, &use);
	return fflush(stdout) || ferror(stdout) ? EXIT_FAILED : code;
}
