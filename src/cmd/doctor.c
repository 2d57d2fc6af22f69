/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm doctor: is this host fit for its VMs? */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"
#include "gpuvm/bad.h"
#include "gpuvm/capture.h"
#include "gpuvm/doctor.h"
#include "gpuvm/draw.h"
#include "gpuvm/fabric_manager.h"
#include "gpuvm/log.h"
#include "gpuvm/probe.h"

#define FM_TIMEOUT_MS 5000
#define REPORT_MAX (16UL << 20) /* bytes of another machine's report; one of 4096 functions has 1 MiB */

static const char usage[] =
	"usage: gpuvm doctor [--json] [--sysroot DIR|TAR] [--compare FILE]\n"
	"       gpuvm doctor --clear BDF|all\n"
	"\n"
	"Check this host: IOMMU, VFIO and KVM, the PCIe tree and its GPUs, memory, CPUs, software, and what gpuvm has written down.\n"
	"Whatever is not as it should be is listed with what it costs, and the command or setting that mends it. Nothing is\n"
	"changed. Run it as root: else parts of the PCI tree cannot be read. Exit status: 0 no problems (warnings may be), 1 problems,\n"
	"2 wrong usage, or the machine cannot be read.\n"
	"\n"
	"  --compare FILE  only what differs from another machine of the cluster: what `gpuvm doctor --json` has printed there, or\n"
	"                  its capture (gpuvm capture). Exit status: 0 nothing, 1 differences\n"
	"  --clear BDF     take back that the device is marked as bad, after it was seen to; \"all\": of all devices\n"
	"  --sysroot DIR   the machine below DIR, or in a tar (gpuvm capture), instead of this one, as far as it goes\n"
	"  --json          for scripts\n"
	"  --help\n";

struct doctor_options {
	const char *sysroot, *compare, *clear;
	bool json, help;
};

/* A machine that was looked at. */
struct machine {
	char *unpacked;
	struct topology host;
	struct qemu_info qemu;
	struct doctor_facts facts;
	struct doctor_report report;
};

static void machine_clear(struct machine *m)
{
	doctor_report_clear(&m->report);
	doctor_facts_clear(&m->facts);
	qemu_info_clear(&m->qemu);
	topology_clear(&m->host);
	capture_remove(m->unpacked);
	*m = (struct machine){ 0 };
}

static int parse(int argc, char **argv, struct doctor_options *o)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },	    { "sysroot", required_argument, NULL, 's' },
						 { "compare", required_argument, NULL, 'c' }, { "clear", required_argument, NULL, 'x' },
						 { "help", no_argument, NULL, 'h' },	    { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'j')
			o->json = true;
		else if (c == 's')
			o->sysroot = optarg;
		else if (c == 'c')
			o->compare = optarg;
		else if (c == 'x')
			o->clear = optarg;
		else if (c == 'h')
			o->help = true;
		else
			return EXIT_USAGE;
	}
	if (optind < argc || (o->clear && (o->json || o->sysroot || o->compare))) {
		fprintf(stderr, "gpuvm doctor: %s\n%s", optind < argc ? "too many words" : "--clear goes alone", usage);
		return EXIT_USAGE;
	}
	return 0;
}

/* --- what only the live host has ------------------------------------------------------------------------------------------ */

static void find_bad(struct machine *m)
{
	struct bad_device *v = NULL;
	struct err e = { 0 };
	size_t n = 0;

	if (bad_apply(launch_state_dir(), true, &m->host, &e) < 0 || bad_list(launch_state_dir(), &v, &n, &e) < 0) {
		log_warning("what is marked as bad is not shown: %s", e.msg);
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (topology_find_func(&m->host, &v[i].addr) < 0)
			*PUSH_ZEROED(m->facts.bad_absent, m->facts.n_bad_absent) = v[i].addr;
	bad_free(v, n);
}

/* -EACCES: it is not ours to read. */
static int look_at_claim(struct doctor_facts *f, const char *vm)
{
	AUTO_FREE char *dir = claim_vm_dir(vm);
	struct doctor_claim *found;
	struct claim c = { 0 };
	struct err e = { 0 };
	int r = claim_read(dir, &c, &e);

	if (r == -EACCES || r == -EPERM)
		return r;
	if (r < 0 && r != -ENOENT) {
		found = PUSH_ZEROED(f->claims, f->n_claims);
		*found = (struct doctor_claim){ .vm = xstrdup(vm), .damaged = xstrdup(e.msg) };
	} else if (r == 0 && !claim_alive(&c)) {
		found = PUSH_ZEROED(f->claims, f->n_claims);
		*found = (struct doctor_claim){ .vm = xstrdup(vm), .recover_failed = c.recover_failed };
	}
	claim_clear(&c);
	return 0;
}

static void find_claims(struct doctor_facts *f)
{
	struct strv names = { 0 };
	struct err e = { 0 };
	int r = claim_list(&names, &e);

	for (size_t i = 0; r == 0 && i < names.n; i++)
		r = look_at_claim(f, names.v[i]);
	if (r == 0)
		f->claims_known = 1;
	strv_clear(&names);
}

static void find_qemu(struct machine *m)
{
	AUTO_FREE char *cache = xasprintf("%s/qemu", launch_state_dir());
	struct qemu_probe p = { .cache_dir = cache, .read_only = true };
	struct err e = { 0 };

	if (probe_qemu(&p, &m->qemu, &e) < 0)
		m->facts.qemu_error = xstrdup(e.msg);
	else
		m->facts.qemu = &m->qemu;
}

/* Only one that runs: its program would start another. */
static void find_fabric_manager(struct doctor_facts *f)
{
	AUTO_FREE char *manager = NULL;
	AUTO_FREE struct fm_list *list = xcalloc(1, sizeof(*list));
	struct fm m = { .call_ms = FM_TIMEOUT_MS };
	struct err e = { 0 };
	int r;

	if (f->fabric_manager != 1)
		return;
	f->fm_version = fm_version(FM_TIMEOUT_MS, &e);
	if (!f->fm_version)
		f->fm_version_error = xstrdup(e.msg);
	r = fm_find("auto", &manager, &e);
	if (r == 0) {
		m.manager = manager;
		r = fm_list(&m, list, &e);
		f->fm_asked = r == 0;
	}
	if (r < 0)
		f->fm_error = xstrdup(e.msg);
	for (int i = 0; r == 0 && i < list->n; i++)
		f->fm_active += list->v[i].active;
	f->fm_partitions = list->n;
}

/* @sysroot: NULL for this machine */
static int examine(const char *sysroot, struct machine *m, struct err *e)
{
	const char *root = sysroot ? sysroot : "";
	int r = capture_resolve(root, &m->unpacked, e);

	if (r == 0)
		r = probe_host(m->unpacked ? m->unpacked : root, &m->host, e);
	if (r < 0)
		return r;
	doctor_facts_read(m->unpacked ? m->unpacked : root, &m->host, &m->facts);
	if (m->facts.live) {
		find_bad(m);
		find_claims(&m->facts);
		find_qemu(m);
		find_fabric_manager(&m->facts);
	}
	doctor_check(&m->facts, &m->report);
	return 0;
}

/* --- verbs ------------------------------------------------------------------------------------------------------------------ */

static int clear_marks(const char *what)
{
	bool all = !strcmp(what, "all");
	struct pci_addr addr;
	struct err e = { 0 };
	size_t n = 0;
	int r;

	if (!all && parse_pci_addr(what, &addr) < 0) {
		fprintf(stderr, "gpuvm doctor: --clear '%s': that is neither a device (0000:17:00.0) nor \"all\"\n", what);
		return EXIT_USAGE;
	}
	r = bad_clear(launch_state_dir(), all ? NULL : &addr, &n, &e);
	if (r < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	if (all)
		printf(n ? "%zu device%s no longer marked as bad\n" : "no device is marked as bad\n", n, n == 1 ? " is" : "s are");
	else
		printf("%s is no longer marked as bad\n", what);
	return EXIT_DONE;
}

/* A report begins with "{"; anything else is a machine: a folder or a tar. */
static int read_report(const char *file, struct json_object **ret, struct err *e)
{
	CLEANUP(machine_clear) struct machine m = { 0 };
	AUTO_FREE char *text = NULL;
	struct stat st;
	int r;

	if (stat(file, &st) < 0)
		return err_sys(e, -errno, "open '%s'", file);
	if (S_ISREG(st.st_mode)) {
		r = read_text_file(file, REPORT_MAX, &text);
		if (r < 0)
			return err_sys(e, r, "read '%s'", file);
		if (text[strspn(text, " \t\n")] == '{') {
			*ret = json_tokener_parse(text);
			return *ret ? 0 : err_set(e, -EPROTO, "'%s' is damaged: it begins like JSON, but is none", file);
		}
	}
	r = examine(file, &m, e);
	if (r == 0)
		*ret = doctor_to_json(&m.facts, &m.report);
	return r;
}

static int compare(const struct doctor_options *o, struct err *e)
{
	CLEANUP(machine_clear) struct machine m = { 0 };
	struct json_object *here = NULL, *there = NULL, *differences = NULL;
	int code = EXIT_USAGE, r = read_report(o->compare, &there, e);

	if (r == 0)
		r = examine(o->sysroot, &m, e);
	if (r == 0) {
		here = doctor_to_json(&m.facts, &m.report);
		r = doctor_compare(here, there, &differences, e);
		if (r < 0)
			err_wrap(e, "'%s'", o->compare);
	}
	if (r == 0) {
		code = json_object_array_length(differences) ? EXIT_FAILED : EXIT_DONE;
		if (!o->json) {
			doctor_print_differences(differences, stdout);
		} else {
			struct json_object *all = json_object_new_object();

			json_object_object_add(all, "schema", json_object_new_int(DOCTOR_SCHEMA));
			json_object_object_add(all, "differences", json_object_get(differences));
			cmd_print_json(all);
		}
	}
	json_object_put(here);
	json_object_put(there);
	json_object_put(differences);
	if (r < 0)
		log_error("%s", e->msg);
	return code;
}

static int check(const struct doctor_options *o, struct err *e)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	bool color = isatty(STDOUT_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
	CLEANUP(machine_clear) struct machine m = { 0 };

	if (examine(o->sysroot, &m, e) < 0) {
		log_error("%s", e->msg);
		return EXIT_USAGE; /* 1 would say that it was looked at */
	}
	if (o->json)
		cmd_print_json(doctor_to_json(&m.facts, &m.report));
	else
		doctor_print(&m.facts, &m.report, color ? DRAW_COLOR : 0, stdout);
	return m.report.count[DOCTOR_PROBLEM] ? EXIT_FAILED : EXIT_DONE;
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor_options o = { 0 };
	struct err e = { 0 };
	int code = parse(argc, argv, &o);

	if (code)
		return code;
	if (o.help) {
		fputs(usage, stdout);
		return EXIT_DONE;
	}
	code = o.clear ? clear_marks(o.clear) : o.compare ? compare(&o, &e) : check(&o, &e);
	return fflush(stdout) || ferror(stdout) ? EXIT_FAILED : code;
}
