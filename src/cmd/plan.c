/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm plan: what a start would do. */
#include <getopt.h>
#include <json-c/json.h>
#include <locale.h>

#include "cmd.h"
#include "gpuvm/nccl.h"

static const char usage[] =
	"usage: gpuvm plan [--json|--matrix|--nccl] [--explain] [--sysroot DIR|TAR|--topology XML] [--qemu PATH] [--qemu-answers FILE] [--set SECTION.KEY=VALUE] NAME|FILE.ini\n"
	"\n"
	"Decide everything for a VM and show it; touch nothing.\n"
	"\n"
	"  --json          the whole plan, for scripts\n"
	"  --explain       with the reason of every choice\n"
	"  --matrix        how near GPUs, NICs and NVMe are to each other, on the host and in the guest\n"
	"  --nccl          the topology file for NCCL in the guest (NCCL_TOPO_FILE)\n"
	"  --sysroot DIR   plan for the machine captured in DIR, or in a tar (gpuvm capture)\n"
	"  --topology XML  plan for the machine of an hwloc XML (lstopo x.xml), as far as it goes\n"
	"  --qemu PATH     plan for this QEMU\n"
	"  --qemu-answers FILE  plan for the QEMU that FILE was recorded of (gpuvm version --record)\n"
	"  --set S.K=V     override a key of the definition; may be repeated\n"
	"  --fake-devices  with stand-ins in place of the devices\n"
	"  --help\n";

struct plan_options {
	struct launch_options launch;
	bool json, explain, matrix, nccl, help;
};

static int parse(int argc, char **argv, struct plan_options *o)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },	   { "explain", no_argument, NULL, 'e' },
						 { "sysroot", required_argument, NULL, 's' }, { "qemu", required_argument, NULL, 'q' },
						 { "set", required_argument, NULL, 'S' },     { "fake-devices", no_argument, NULL, 'f' },
						 { "matrix", no_argument, NULL, 'm' },	   { "nccl", no_argument, NULL, 'n' },
						 { "help", no_argument, NULL, 'h' },	   { "topology", required_argument, NULL, 't' },
						 { "qemu-answers", required_argument, NULL, 'a' },
						 { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			o->json = true;
			break;
		case 'e':
			o->explain = true;
			break;
		case 's':
			o->launch.sysroot = optarg;
			break;
		case 't':
			o->launch.topology_xml = optarg;
			break;
		case 'q':
			o->launch.qemu = optarg;
			break;
		case 'a':
			o->launch.qemu_answers = optarg;
			break;
		case 'S':
			strv_push(&o->launch.sets, optarg);
			break;
		case 'f':
			o->launch.fake_devices = true;
			break;
		case 'm':
			o->matrix = true;
			break;
		case 'n':
			o->nccl = true;
			break;
		case 'h':
			o->help = true;
			break;
		default:
			return EXIT_USAGE;
		}
	}
	if (o->json + o->matrix + o->nccl > 1) {
		fprintf(stderr, "gpuvm plan: one of --json, --matrix and --nccl\n%s", usage);
		return EXIT_USAGE;
	}
	if (o->launch.sysroot && o->launch.topology_xml) {
		fputs("gpuvm plan: --sysroot and --topology are two machines; give one\n", stderr);
		return EXIT_USAGE;
	}
	if (!o->help && optind != argc - 1) {
		fprintf(stderr, "gpuvm plan: %s\n%s", optind < argc ? "one definition at a time" : "which definition?", usage);
		return EXIT_USAGE;
	}
	return 0;
}

static void print_nccl(const struct launch *l)
{
	AUTO_FREE char *xml = nccl_topology_xml(&l->plan, &l->host);

	if (xml)
		fputs(xml, stdout);
	else
		fprintf(stderr, "gpuvm plan: %s has no GPU, so there is nothing that NCCL could use\n", l->plan.vm);
}

static int show(struct plan_options *o)
{
	struct problems ps = { 0 };
	struct err e = { 0 };
	struct launch l;
	int code = 0;

	launch_init(&l, &o->launch);
	if (launch_plan(&l, &ps, &e) < 0)
		code = cmd_report(&ps, &e, l.vm.name, o->json);
	else if (o->json)
		cmd_print_json(plan_to_json(&l.plan));
	else if (o->matrix)
		plan_print_matrix(&l.plan, stdout);
	else if (o->nccl)
		print_nccl(&l);
	else
		plan_print(&l.plan, o->explain, stdout);
	launch_clear(&l);
	problems_clear(&ps);
	return code;
}

int cmd_plan(int argc, char **argv)
{
	struct plan_options o = { .launch = { .dry_run = true } };
	AUTO_FREE char *path = NULL;
	int r = parse(argc, argv, &o);

	setlocale(LC_CTYPE, "");
	if (r == 0 && o.help) {
		fputs(usage, stdout);
	} else if (r == 0) {
		path = cmd_definition_path(argv[optind]);
		o.launch.definition = path;
		r = show(&o);
	}
	strv_clear(&o.launch.sets);
	return r;
}
