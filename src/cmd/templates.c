/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm templates: the sizes this machine can be cut into. */
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>

#include "cmd.h"
#include "gpuvm/templates.h"

static const char usage[] = "usage: gpuvm templates [--json] [--sysroot DIR|TAR|--topology XML] [--qemu PATH]\n\n"
			    "The sizes this machine can be cut into: what a VM with 1, 2, 4 ... GPUs gets when its definition says only `gpus`, how\n"
			    "many of them go beside the VMs that run now, and how many the machine holds when it is empty.\n";

static int parse(int argc, char **argv, struct launch_options *o, bool *json, bool *help)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },	     { "sysroot", required_argument, NULL, 's' },
						 { "topology", required_argument, NULL, 't' }, { "qemu", required_argument, NULL, 'q' },
						 { "help", no_argument, NULL, 'h' },	     { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'j')
			*json = true;
		else if (c == 's')
			o->sysroot = optarg;
		else if (c == 't')
			o->topology_xml = optarg;
		else if (c == 'q')
			o->qemu = optarg;
		else if (c == 'h')
			*help = true;
		else
			return EXIT_USAGE;
	}
	if (optind < argc || (o->sysroot && o->topology_xml)) {
		fprintf(stderr, "gpuvm templates: %s\n%s", optind < argc ? "too many words" : "--sysroot and --topology are two machines; give one", usage);
		return EXIT_USAGE;
	}
	return 0;
}

static void show(const struct launch *l, bool json)
{
	struct plan_request req = { .host = &l->host,
				    .use = &l->use,
				    .fabric = &l->fabric,
				    .fabric_manager = l->fabric_manager,
				    .no_manager = l->no_manager,
				    .qemu = &l->qemu,
				    .rundir = claim_rundir(),
				    .statedir = launch_state_dir(),
				    .foreign_host = l->opt->sysroot || l->opt->topology_xml };
	size_t n;
	struct template_size *v = templates_make(&req, &n);

	if (json) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "schema", json_object_new_int(1));
		json_object_object_add(o, "templates", templates_to_json(v, n));
		cmd_print_json(o);
	} else {
		templates_print(v, n, stdout);
	}
	templates_free(v, n);
}

int cmd_templates(int argc, char **argv)
{
	struct launch_options o = { .dry_run = true };
	struct problems ps = { 0 };
	struct err e = { 0 };
	struct launch l;
	bool json = false, help = false;
	int r = parse(argc, argv, &o, &json, &help);

	if (r || help) {
		if (!r)
			fputs(usage, stdout);
		return r;
	}
	launch_init(&l, &o);
	if (launch_look(&l, &ps, &e) < 0)
		r = cmd_report(&ps, &e, NULL, json);
	else
		show(&l, json);
	launch_clear(&l);
	problems_clear(&ps);
	return r;
}
