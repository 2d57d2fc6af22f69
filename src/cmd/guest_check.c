/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm guest-check: the script that checks a guest from inside. */
#include <errno.h>
#include <getopt.h>

#include "cmd.h"
#include "gpuvm/guest_check.h"
#include "gpuvm/log.h"

#define SCRIPT_MAX (1UL << 20)

static const char usage[] =
	"usage: gpuvm guest-check [--sysroot DIR|TAR|--topology XML] [--set SECTION.KEY=VALUE] [--fake-devices] NAME|FILE.ini\n"
	"\n"
	"Print a shell script that finds out in the guest whether it is what was planned: CPUs, nodes and memory, each device with its\n"
	"place, node, link, BARs, ATS and driver, nvidia-peermem, Fabric Manager, NVLink, and NCCL_TOPO_FILE. It needs a POSIX shell, /proc\n"
	"and /sys; run it there as root: `sh gpuvm-check.sh`. Each line is ok, warning, problem or unknown; exit status 0: no problems, 1:\n"
	"problems. `sh gpuvm-check.sh --nccl` prints NCCL's topology file.\n"
	"\n"
	"Of a VM that runs it is what the VM was started with, the same that is on its seed or on [guest] check-disk; of another one, or with\n"
	"any option, what a start would do.\n"
	"\n"
	"  --sysroot DIR   plan for the machine captured in DIR, or in a tar (gpuvm capture)\n"
	"  --topology XML  plan for the machine of an hwloc XML (lstopo x.xml), as far as it goes\n"
	"  --set S.K=V     override a key of the definition; may be repeated\n"
	"  --fake-devices  with stand-ins in place of the devices\n"
	"  --help\n";

static int parse(int argc, char **argv, struct launch_options *o, bool *help)
{
	static const struct option options[] = { { "sysroot", required_argument, NULL, 's' }, { "topology", required_argument, NULL, 't' },
						 { "set", required_argument, NULL, 'S' },     { "fake-devices", no_argument, NULL, 'f' },
						 { "help", no_argument, NULL, 'h' },	      { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 's')
			o->sysroot = optarg;
		else if (c == 't')
			o->topology_xml = optarg;
		else if (c == 'S')
			strv_push(&o->sets, optarg);
		else if (c == 'f')
			o->fake_devices = true;
		else if (c == 'h')
			*help = true;
		else
			return EXIT_USAGE;
	}
	if (o->sysroot && o->topology_xml) {
		fputs("gpuvm guest-check: --sysroot and --topology are two machines; give one\n", stderr);
		return EXIT_USAGE;
	}
	if (!*help && optind != argc - 1) {
		fprintf(stderr, "gpuvm guest-check: %s\n%s", optind < argc ? "one VM at a time" : "which VM?", usage);
		return EXIT_USAGE;
	}
	return 0;
}

/* What the VM was started with; NULL: it does not run. */
static int of_running(const char *name_or_path, char **ret, struct err *e)
{
	AUTO_FREE char *name = cmd_vm_name(name_or_path), *dir = claim_vm_dir(name), *path = xasprintf("%s/" GUEST_CHECK_FILE, dir), *text = NULL;
	struct claim c = { 0 };
	int r = claim_read(dir, &c, e);
	bool alive = r == 0 && claim_alive(&c);

	claim_clear(&c);
	if (r < 0 && r != -ENOENT)
		return r;
	r = alive ? read_text_file(path, SCRIPT_MAX, &text) : 0;
	if (text)
		*ret = xasprintf("%s\n", text);
	return r < 0 ? err_sys(e, r, "read '%s', which the launcher of '%s' has written", path, name) : 0;
}

static int planned(const struct launch_options *o, char **ret)
{
	struct problems ps = { 0 };
	struct err e = { 0 };
	struct launch l;
	int code = 0;

	launch_init(&l, o);
	if (launch_plan(&l, &ps, &e) < 0)
		code = cmd_report(&ps, &e, l.vm.name, false);
	else
		*ret = launch_guest_check(&l);
	launch_clear(&l);
	problems_clear(&ps);
	return code;
}

static int print(struct launch_options *o, const char *name_or_path)
{
	bool as_it_runs = !o->sysroot && !o->topology_xml && !o->sets.n && !o->fake_devices;
	AUTO_FREE char *path = cmd_definition_path(name_or_path), *script = NULL;
	struct err e = { 0 };
	int code = EXIT_DONE;

	if (as_it_runs && of_running(name_or_path, &script, &e) < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	o->definition = path;
	if (!script)
		code = planned(o, &script);
	if (code == EXIT_DONE)
		fputs(script, stdout);
	return code;
}

int cmd_guest_check(int argc, char **argv)
{
	struct launch_options o = { .dry_run = true };
	bool help = false;
	int code = parse(argc, argv, &o, &help);

	if (code == 0 && help)
		fputs(usage, stdout);
	else if (code == 0)
		code = print(&o, argv[optind]);
	strv_clear(&o.sets);
	return code;
}
