/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm capture: this machine in a folder or a file, for planning at a desk. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>
#include <time.h>

#include "cmd.h"
#include "gpuvm/capture.h"
#include "gpuvm/log.h"

static const char usage[] =
	"usage: gpuvm capture [--sysroot DIR] [--keep-name] [--json] DIR|FILE.tar\n"
	"\n"
	"Copy what is needed to plan for this machine and to judge it: what `gpuvm topo` and `gpuvm doctor` read of /sys and\n"
	"/proc. There are no serial numbers, network addresses or machine id in it. Run it as root: else parts of the PCI tree\n"
	"cannot be read. `gpuvm topo --sysroot DIR|FILE.tar` shows it; doctor, plan and dry runs take it, too.\n"
	"\n"
	"  DIR|FILE.tar    a new folder, or a tar (.tar, .tar.gz, .tar.xz, .tar.zst)\n"
	"  --keep-name     with the host's name\n"
	"  --sysroot DIR   capture the machine below DIR instead of this one\n"
	"  --json          the figures as JSON\n"
	"  --help\n";

struct capture_options {
	const char *sysroot, *dest;
	bool keep_name, json, help;
};

static int parse_options(int argc, char **argv, struct capture_options *o)
{
	static const struct option options[] = { { "sysroot", required_argument, NULL, 's' },
						 { "keep-name", no_argument, NULL, 'k' },
						 { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' },
						 { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 's':
			o->sysroot = optarg;
			break;
		case 'k':
			o->keep_name = true;
			break;
		case 'j':
			o->json = true;
			break;
		case 'h':
			o->help = true;
			break;
		default:
			return EXIT_USAGE;
		}
	}
	if (o->help)
		return 0;
	if (optind != argc - 1) {
		fprintf(stderr, "gpuvm capture: %s\n%s", optind < argc ? "one place at a time" : "where to?", usage);
		return EXIT_USAGE;
	}
	o->dest = argv[optind];
	return 0;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_json(const struct capture_options *o, const struct capture_report *r, double seconds)
{
	struct json_object *j = json_object_new_object(), *missing = json_object_new_array();

	json_object_object_add(j, "schema", json_object_new_int(1));
	json_object_object_add(j, "capture", json_object_new_string(o->dest));
	json_object_object_add(j, "cpus", json_object_new_uint64(r->n_cpus));
	json_object_object_add(j, "functions", json_object_new_uint64(r->n_functions));
	json_object_object_add(j, "files", json_object_new_uint64(r->n_files));
	json_object_object_add(j, "links", json_object_new_uint64(r->n_links));
	json_object_object_add(j, "bytes", json_object_new_uint64(r->bytes));
	json_object_object_add(j, "seconds", json_object_new_double(seconds));
	for (size_t i = 0; i < r->missing.n; i++)
		json_object_array_add(missing, json_object_new_string(r->missing.v[i]));
	json_object_object_add(j, "missing", missing);
	cmd_print_json(j);
}

static int capture(const struct capture_options *o)
{
	CLEANUP(capture_report_clear) struct capture_report r = { 0 };
	struct err e = { 0 };
	double begin = now_s(), seconds;

	if (capture_host(o->sysroot ? o->sysroot : "", o->dest, o->keep_name, &r, &e) < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	seconds = now_s() - begin;
	for (size_t i = 0; i < r.missing.n; i++)
		log_warning("%s", r.missing.v[i]);
	if (o->json)
		print_json(o, &r, seconds);
	else
		printf("%s: %zu CPUs, %zu PCI functions; %zu files and %zu links in %.2f s\n", o->dest, r.n_cpus,
		       r.n_functions, r.n_files, r.n_links, seconds);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

int cmd_capture(int argc, char **argv)
{
	struct capture_options o = { 0 };
	int r = parse_options(argc, argv, &o);

	if (r)
		return r;
	if (o.help) {
		fputs(usage, stdout);
		return EXIT_DONE;
	}
	return capture(&o);
}
