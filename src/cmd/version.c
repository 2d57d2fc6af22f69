/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm version: what there is here, of us and of QEMU; and the recording of a QEMU's answers. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>

#include "cmd.h"
#include "gpuvm/log.h"
#include "gpuvm/parse.h"
#include "gpuvm/probe.h"

static const char usage[] =
	"usage: gpuvm version [--qemu PATH|--qemu-answers FILE] [--json|--record FILE]\n"
	"\n"
	"Versions of gpuvm and of QEMU, and what that QEMU can do.\n"
	"\n"
	"  --qemu PATH          ask this QEMU\n"
	"  --qemu-answers FILE  show recorded answers in place of a QEMU's\n"
	"  --record FILE        write QEMU's answers, for --qemu-answers; \"-\": to standard output\n"
	"  --json               for scripts\n"
	"  --help\n";

struct version_options {
	const char *qemu, *answers, *record;
	bool json, help;
};

static int parse(int argc, char **argv, struct version_options *o)
{
	static const struct option options[] = { { "qemu", required_argument, NULL, 'q' },	{ "qemu-answers", required_argument, NULL, 'a' },
						 { "record", required_argument, NULL, 'r' }, { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' },	{ 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'q')
			o->qemu = optarg;
		else if (c == 'a')
			o->answers = optarg;
		else if (c == 'r')
			o->record = optarg;
		else if (c == 'j')
			o->json = true;
		else if (c == 'h')
			o->help = true;
		else
			return EXIT_USAGE;
	}
	if (optind < argc || (o->json && o->record) || (o->qemu && o->answers)) {
		fprintf(stderr, "gpuvm version: %s\n%s",
			optind < argc	? "too many words"
			: o->json	? "--json and --record are two outputs; give one"
					: "--qemu and --qemu-answers are two QEMUs; give one",
			usage);
		return EXIT_USAGE;
	}
	return 0;
}

static int probe(const struct version_options *o, struct qemu_info *q, struct err *e)
{
	AUTO_FREE char *cache = xasprintf("%s/qemu", launch_state_dir());
	/* A recording is of now. */
	struct qemu_probe p = { .binary = o->qemu, .cache_dir = o->record ? NULL : cache };

	return o->answers ? probe_qemu_recorded(o->answers, NULL, q, e) : probe_qemu(&p, q, e);
}

static struct json_object *string_or_null(const char *s)
{
	return s ? json_object_new_string(s) : NULL;
}

static struct json_object *qemu_json(const struct qemu_info *q)
{
	struct json_object *o = json_object_new_object(), *features = json_object_new_object(), *firmware = json_object_new_object();
	AUTO_FREE char *version = xasprintf("%d.%d.%d", q->major, q->minor, q->micro);

	for (int f = 0; f < QF_N; f++)
		json_object_object_add(features, qemu_feature_word(f), json_object_new_boolean(qemu_has(q, f)));
	json_object_object_add(firmware, "ovmf_code", string_or_null(q->ovmf_code));
	json_object_object_add(firmware, "ovmf_vars", string_or_null(q->ovmf_vars));
	json_object_object_add(o, "path", string_or_null(q->path));
	json_object_object_add(o, "version", json_object_new_string(version));
	json_object_object_add(o, "package", string_or_null(q->package));
	json_object_object_add(o, "max_vcpus", json_object_new_int(qemu_machine_vcpus(q, NULL)));
	json_object_object_add(o, "firmware", firmware);
	json_object_object_add(o, "features", features);
	return o;
}

static void print_qemu(const struct qemu_info *q, bool recorded)
{
	AUTO_FREE char *package = q->package ? xasprintf(" (%s)", q->package) : xstrdup("");

	printf("QEMU %d.%d.%d%s, %s\n", q->major, q->minor, q->micro, package, recorded ? "recorded answers" : q->path);
	printf("  q35 takes %d vCPUs\n", qemu_machine_vcpus(q, NULL));
	printf("  UEFI: %s\n\n", q->ovmf_code ? q->ovmf_code : "no OVMF image was found (package ovmf)");
	for (int f = 0; f < QF_N; f++) {
		printf("  %-24s  %s  %s", qemu_feature_word(f), qemu_has(q, f) ? "yes" : "no ", qemu_feature_what(f));
		if (!qemu_has(q, f))
			printf(qemu_feature_until(f) ? ", gone in %s" : ", since %s", qemu_feature_until(f) ? qemu_feature_until(f) : qemu_feature_since(f));
		putchar('\n');
	}
}

static int record(const struct qemu_info *q, const char *file)
{
	const int style = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE;
	AUTO_FREE char *text = xasprintf("%s\n", json_object_to_json_string_ext(q->answers, style));
	int r;

	if (strcmp(file, "-") == 0) {
		fputs(text, stdout);
		return EXIT_DONE;
	}
	r = write_output_file(file, text, strlen(text));
	if (r < 0)
		log_error("write '%s': %s", file, strerror(-r));
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

static int show(const struct version_options *o)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct err e = { 0 };
	int r = probe(o, &q, &e);
	/* Our own version is known in any case. */
	bool fatal = r < 0 && (o->qemu || o->answers || o->record);

	if (o->record && r == 0)
		return record(&q, o->record);
	if (o->json) {
		struct json_object *all = json_object_new_object();

		json_object_object_add(all, "gpuvm", json_object_new_string(GPUVM_VERSION));
		json_object_object_add(all, "qemu", r < 0 ? NULL : qemu_json(&q));
		cmd_print_json(all);
	} else if (!o->record) {
		printf("gpuvm %s\n", GPUVM_VERSION);
		if (r == 0)
			print_qemu(&q, o->answers);
		else if (!fatal)
			printf("QEMU: %s\n", e.msg);
	}
	if (fatal)
		log_error("%s", e.msg);
	return fatal ? EXIT_FAILED : EXIT_DONE;
}

int cmd_version(int argc, char **argv)
{
	struct version_options o = { 0 };
	int r;

	/* gpuvm --version: nobody wants to wait for a QEMU. */
	if (argc == 0) {
		printf("gpuvm %s\n", GPUVM_VERSION);
		return EXIT_DONE;
	}
	r = parse(argc, argv, &o);
	if (r == 0 && o.help)
		fputs(usage, stdout);
	else if (r == 0)
		r = show(&o);
	return r;
}
