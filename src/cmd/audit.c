/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm audit: are tenants kept apart? */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>

#include "cmd.h"
#include "gpuvm/audit.h"
#include "gpuvm/capture.h"
#include "gpuvm/draw.h"
#include "gpuvm/log.h"
#include "gpuvm/probe.h"
#include "gpuvm/trust.h"

static const char usage[] =
	"usage: gpuvm audit [--json] [--sysroot DIR|TAR] [NAME|FILE.ini]\n"
	"\n"
	"Prove or refute that no device of a VM can reach another tenant's, or the host's, past the IOMMU: by the registers of the\n"
	"ports between them, IOMMU groups, translation, virtual functions and resets. Of all VMs that run; or what concerns one\n"
	"that runs; or one that does not, as it would be. Nothing is changed. Run it as root: else neither what VMs hold nor the\n"
	"registers can be read. Exit status: 0 no problems (warnings may be), 1 problems, 2 wrong usage, or something cannot be\n"
	"read; 3, 4 and 5 as with plan.\n"
	"\n"
	"  --sysroot DIR   the machine below DIR, or in a tar (gpuvm capture), instead of this one; no VM runs there\n"
	"  --json          for scripts\n"
	"  --help\n";

struct audit_options {
	const char *sysroot, *vm;
	bool json, help;
};

static int parse(int argc, char **argv, struct audit_options *o)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' }, { "sysroot", required_argument, NULL, 's' }, { "help", no_argument, NULL, 'h' }, { 0 }
	};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'j')
			o->json = true;
		else if (c == 's')
			o->sysroot = optarg;
		else if (c == 'h')
			o->help = true;
		else
			return EXIT_USAGE;
	}
	if (optind < argc)
		o->vm = argv[optind++];
	if (optind < argc) {
		fprintf(stderr, "gpuvm audit: one VM at a time\n%s", usage);
		return EXIT_USAGE;
	}
	return 0;
}

/* --- who has what ----------------------------------------------------------------------------------------------------------- */

struct claims {
	struct claim *v;
	size_t n;
};

static void claims_clear(struct claims *c)
{
	for (size_t i = 0; i < c->n; i++)
		claim_clear(&c->v[i]);
	free(c->v);
	*c = (struct claims){ 0 };
}

/* Without one of them it is not known whose a device is: there is nothing to be proven then. */
static int read_claims(struct claims *ret, struct err *e)
{
	struct strv names = { 0 };
	int r = claim_list(&names, e);

	for (size_t i = 0; r == 0 && i < names.n; i++) {
		AUTO_FREE char *dir = claim_vm_dir(names.v[i]);
		struct claim c = { 0 };

		r = claim_read(dir, &c, e);
		if (r == 0)
			*PUSH_ZEROED(ret->v, ret->n) = c;
		else if (r == -ENOENT)
			r = 0;
	}
	strv_clear(&names);
	return r;
}

static bool is_running(const struct claim *c)
{
	return claim_alive(c) && (!strcmp(c->state, "running") || !strcmp(c->state, "paused"));
}

static void add_roms(struct audit *a, const char *vm, const struct vm_config *config)
{
	for (size_t i = 0; i < config->n_devices; i++) {
		const char *rom = config->devices[i].romfile;
		struct err e = { 0 };

		if (rom && strcmp(rom, "none") != 0 && trust_check(rom, &e) == -EPERM)
			audit_add_rom(a, vm, e.msg);
	}
}

/* Which file it was is not in the claim; the definition says which it is now. */
static void add_roms_of(struct audit *a, const struct claim *c)
{
	struct vm_config config = { 0 };
	struct problems ps = { 0 };
	struct strv none = { 0 };

	if (c->definition && config_load(c->definition, &none, &config, &ps) == 0)
		add_roms(a, c->vm, &config);
	else
		log_warning("option ROMs of VM '%s' are not looked at: its definition cannot be read any more", c->vm);
	config_clear(&config);
	problems_clear(&ps);
}

static void add_claims(struct audit *a, const struct claims *claims)
{
	for (size_t i = 0; i < claims->n; i++) {
		const struct claim *c = &claims->v[i];

		for (size_t k = 0; k < c->n_devices; k++)
			audit_give(a, audit_add_vm(a, c->vm, is_running(c)), &c->devices[k].addr);
		if (c->n_devices && claim_alive(c))
			add_roms_of(a, c);
	}
}

static void add_planned(struct audit *a, const struct launch *l)
{
	int vm = audit_add_vm(a, l->plan.vm, false);

	for (size_t i = 0; i < l->plan.n_binds; i++)
		audit_give(a, vm, &l->plan.binds[i].addr);
	if (!l->opt->sysroot)
		add_roms(a, l->plan.vm, &l->vm);
}

/* --- the verb ------------------------------------------------------------------------------------------------------------------ */

struct audited {
	char *unpacked;
	struct claims claims;
	struct launch launch; /* its host, and the plan of a VM that does not run */
	struct audit audit;
	struct doctor_facts facts;
	struct doctor_report report;
};

static void audited_clear(struct audited *m)
{
	doctor_report_clear(&m->report);
	doctor_facts_clear(&m->facts);
	audit_clear(&m->audit);
	launch_clear(&m->launch);
	claims_clear(&m->claims);
	capture_remove(m->unpacked);
}

static bool runs(const struct claims *claims, const char *vm)
{
	for (size_t i = 0; i < claims->n; i++)
		if (!strcmp(claims->v[i].vm, vm) && claim_alive(&claims->v[i]))
			return true;
	return false;
}

/* Claims come before the machine, as a VM that ends gives its devices back first. Exit code, or -1: go on. */
static int look(const struct audit_options *o, const char *vm, struct audited *m, struct err *e)
{
	const char *root = m->unpacked ? m->unpacked : o->sysroot ? o->sysroot : "";
	AUTO_FREE bool *wanted = NULL;
	struct problems ps = { 0 };
	bool plan;
	int r = o->sysroot ? 0 : read_claims(&m->claims, e);

	plan = r == 0 && vm && !runs(&m->claims, vm);
	if (plan && launch_plan(&m->launch, &ps, e) < 0) {
		r = cmd_report(&ps, e, vm, o->json);
		problems_clear(&ps);
		return r;
	}
	problems_clear(&ps);
	if (r == 0 && !plan)
		r = probe_host(root, &m->launch.host, e);
	if (r < 0) {
		log_error("%s", e->msg);
		return EXIT_USAGE; /* 1 would say that it was looked at */
	}
	audit_init(&m->audit, &m->launch.host);
	add_claims(&m->audit, &m->claims);
	if (plan)
		add_planned(&m->audit, &m->launch);
	wanted = audit_wanted(&m->audit);
	doctor_facts_read_isolation(root, &m->launch.host, wanted, &m->facts);
	audit_check(&m->audit, &m->facts, &m->report);
	return -1;
}

static int show(const struct audit_options *o, const char *vm, struct audited *m)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	bool color = isatty(STDOUT_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;

	if (vm)
		audit_keep(&m->report, vm);
	if (o->json)
		cmd_print_json(audit_to_json(&m->audit, &m->report));
	else
		audit_print(&m->audit, &m->report, vm, color ? DRAW_COLOR : 0, stdout);
	if (fflush(stdout) || ferror(stdout))
		return EXIT_FAILED;
	return m->report.count[DOCTOR_PROBLEM] ? EXIT_FAILED : EXIT_DONE;
}

int cmd_audit(int argc, char **argv)
{
	struct audit_options o = { 0 };
	struct audited m = { 0 };
	AUTO_FREE char *path = NULL, *vm = NULL;
	struct launch_options launch = { .dry_run = true };
	struct err e = { 0 };
	int code = parse(argc, argv, &o);

	if (code)
		return code;
	if (o.help) {
		fputs(usage, stdout);
		return EXIT_DONE;
	}
	if (capture_resolve(o.sysroot ? o.sysroot : "", &m.unpacked, &e) < 0) {
		log_error("%s", e.msg);
		return EXIT_USAGE;
	}
	path = o.vm ? cmd_definition_path(o.vm) : NULL;
	vm = o.vm ? cmd_vm_name(o.vm) : NULL;
	launch.definition = path;
	launch.sysroot = m.unpacked ? m.unpacked : o.sysroot;
	launch_init(&m.launch, &launch);
	code = look(&o, vm, &m, &e);
	if (code < 0)
		code = show(&o, vm, &m);
	audited_clear(&m);
	return code;
}
