/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm diff: two QEMU commands, of definitions or of VMs that run, compared by what they say. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <locale.h>
#include <string.h>

#include "cmd.h"
#include "gpuvm/argv_diff.h"
#include "gpuvm/log.h"

static const char usage[] =
	"usage: gpuvm diff [--json] [--set SECTION.KEY=VALUE]... [--sysroot DIR|TAR|--topology XML]\n"
	"                  [--qemu PATH|--qemu-answers FILE]... [--fake-devices] A [B]\n"
	"\n"
	"Compare the QEMU commands of A and B: what A becomes to be B. Each is the path of a definition, or a name: of the VM\n"
	"that runs, or else of /etc/gpuvm/NAME.ini. A alone: the VM that runs, with its definition as it is now.\n"
	"\n"
	"  --json          for scripts\n"
	"  --set S.K=V     override a key of the definition B; may be repeated\n"
	"  --sysroot DIR   plan for the machine captured in DIR, or in a tar (gpuvm capture)\n"
	"  --topology XML  plan for the machine of an hwloc XML (lstopo x.xml)\n"
	"  --qemu PATH     plan for this QEMU; given twice: that of A, then that of B\n"
	"  --qemu-answers FILE  for the one that was recorded (gpuvm version --record); as --qemu\n"
	"  --fake-devices  with stand-ins in place of the devices\n"
	"  --help\n"
	"\n"
	"exit: 0 no difference, 1 differences, 2 usage or trouble, 3 definition wrong, 4 host cannot, 5 in use\n"
	"  gpuvm diff half0.ini half0.ini --set cpu.vcpus=8      what a key does\n";

/* As diff(1): 1 is for what was found. */
enum { EXIT_SAME = 0, EXIT_DIFFERENT = 1, EXIT_TROUBLE = 2 };

struct diff_options {
	struct launch_options launch;
	struct qemu_choice {
		const char *path, *answers;
	} qemu[2]; /* of A and B, or of both */
	int n_qemu;
	bool json, help;
};

struct side {
	char *label;
	struct argv_options options;
};

/* --- a definition ------------------------------------------------------------------------------------------------- */

/* "half0.ini with QEMU 10.0.13, cpu.vcpus=8": what was asked for. */
static char *label_definition(const char *word, const struct launch_options *o, const char *version)
{
	bool asked = o->qemu || o->qemu_answers;
	char *label = asked ? xasprintf("%s with QEMU %s", word, version) : xstrdup(word);

	for (size_t i = 0; i < o->sets.n; i++) {
		AUTO_FREE char *before = label;

		label = xasprintf("%s%s%s", before, i || asked ? ", " : " with ", o->sets.v[i]);
	}
	return label;
}

static int read_definition(const char *word, const struct launch_options *opt, bool json, struct side *ret)
{
	AUTO_FREE char *path = cmd_definition_path(word);
	struct launch_options own = *opt;
	struct problems ps = { 0 };
	struct strv argv = { 0 };
	struct err e = { 0 };
	struct launch l;
	int code = 0;

	own.definition = path;
	launch_init(&l, &own);
	if (launch_plan(&l, &ps, &e) < 0) {
		code = cmd_report(&ps, &e, l.vm.name, json);
		code = code == EXIT_FAILED ? EXIT_TROUBLE : code;
	} else {
		plan_argv(&l.plan, NULL, &argv);
		argv_options_read(&argv, l.plan.qemu_binary, &l.plan.env, &ret->options);
		ret->label = label_definition(word, opt, l.plan.qemu_version);
	}
	strv_clear(&argv);
	launch_clear(&l);
	problems_clear(&ps);
	return code;
}

/* --- a VM that runs ----------------------------------------------------------------------------------------------- */

/* @ret_definition (may be NULL) gets the path that it was started from, or NULL. */
static bool runs(const char *name, char **ret_definition)
{
	AUTO_FREE char *dir = claim_vm_dir(name);
	struct claim c = { 0 };
	struct err e = { 0 };
	bool alive = claim_read(dir, &c, &e) == 0 && (claim_launcher_alive(&c) || claim_qemu_alive(&c));

	if (alive && ret_definition && c.definition)
		*ret_definition = xstrdup(c.definition);
	claim_clear(&c);
	return alive;
}

static void read_words(struct json_object *array, struct strv *ret)
{
	for (size_t i = 0; i < json_object_array_length(array); i++)
		strv_push(ret, json_object_get_string(json_object_array_get_idx(array, i)));
}

/* What plan.json says of the command; 0 or -EPROTO. */
static int read_plan_json(struct json_object *o, struct side *ret)
{
	struct json_object *argv = NULL, *env = NULL, *qemu = NULL, *binary = NULL;
	struct strv words = { 0 }, vars = { 0 };

	if (!json_object_object_get_ex(o, "argv", &argv) || !json_object_is_type(argv, json_type_array) ||
	    !json_object_object_get_ex(o, "qemu", &qemu) || !json_object_object_get_ex(qemu, "binary", &binary))
		return -EPROTO;
	read_words(argv, &words);
	if (json_object_object_get_ex(o, "env", &env) && json_object_is_type(env, json_type_object)) {
		json_object_object_foreach(env, key, value) {
			strv_pushf(&vars, "%s=%s", key, json_object_get_string(value));
		}
	}
	argv_options_read(&words, json_object_get_string(binary), &vars, &ret->options);
	strv_clear(&words);
	strv_clear(&vars);
	return 0;
}

static int read_running(const char *name, struct side *ret)
{
	AUTO_FREE char *dir = claim_vm_dir(name), *path = xasprintf("%s/plan.json", dir), *text = NULL;
	struct json_object *o = NULL;
	int r = read_text_file(path, 64 << 20, &text);

	if (r == 0)
		o = json_tokener_parse(text);
	if (r == 0)
		r = read_plan_json(o, ret);
	json_object_put(o);
	if (r < 0) {
		log_error("read '%s': %s", path, r == -EPROTO ? "it has no command in it" : strerror(-r));
		return EXIT_TROUBLE;
	}
	ret->label = xasprintf("%s (running)", name);
	return 0;
}

/* --- the verb ------------------------------------------------------------------------------------------------------- */

static bool is_name(const char *word)
{
	AUTO_FREE char *path = cmd_definition_path(word);

	return strcmp(path, word) != 0;
}

static int read_side(const char *word, const struct launch_options *opt, bool json, struct side *ret)
{
	if (!is_name(word) || !runs(word, NULL))
		return read_definition(word, opt, json, ret);
	if (!opt->sets.n)
		return read_running(word, ret);
	log_error("diff: --set changes a definition, and '%s' is a VM that runs; name its definition by path", word);
	return EXIT_TROUBLE;
}

static void use_qemu(struct launch_options *o, const struct qemu_choice *q)
{
	o->qemu = q->path;
	o->qemu_answers = q->answers;
}

static int read_both(char **words, int n, const struct diff_options *o, struct side *a, struct side *b)
{
	struct launch_options a_opt = o->launch, b_opt = o->launch;
	AUTO_FREE char *name = NULL, *definition = NULL;
	int r;

	a_opt.sets = (struct strv){ 0 };
	use_qemu(&a_opt, &o->qemu[0]);
	use_qemu(&b_opt, &o->qemu[o->n_qemu > 1]);
	if (n == 2) {
		r = read_side(words[0], &a_opt, o->json, a);
		return r ? r : read_side(words[1], &b_opt, o->json, b);
	}
	name = cmd_vm_name(words[0]);
	if (!runs(name, &definition)) {
		log_error("diff: VM '%s' does not run; give a second definition to compare with", name);
		return EXIT_TROUBLE;
	}
	r = read_running(name, a);
	return r ? r : read_definition(is_name(words[0]) && definition ? definition : words[0], &b_opt, o->json, b);
}

static int compare(char **words, int n, const struct diff_options *o)
{
	struct side a = { 0 }, b = { 0 };
	struct argv_diff d = { 0 };
	int r = read_both(words, n, o, &a, &b);

	if (r == 0) {
		argv_compare(&a.options, &b.options, &d);
		if (o->json)
			cmd_print_json(argv_diff_to_json(&d, a.label, b.label));
		else
			argv_diff_print(&d, a.label, b.label, isatty(STDOUT_FILENO) && !getenv("NO_COLOR"), stdout);
		r = d.n ? EXIT_DIFFERENT : EXIT_SAME;
	}
	argv_diff_clear(&d);
	argv_options_clear(&a.options);
	argv_options_clear(&b.options);
	free(a.label);
	free(b.label);
	return r;
}

static int add_qemu(struct diff_options *o, const char *path, const char *answers)
{
	if (o->n_qemu == 2) {
		fputs("gpuvm diff: --qemu and --qemu-answers: one for both, or one for A and one for B\n", stderr);
		return -EINVAL;
	}
	o->qemu[o->n_qemu++] = (struct qemu_choice){ .path = path, .answers = answers };
	return 0;
}

static int parse(int argc, char **argv, struct diff_options *o)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },	      { "sysroot", required_argument, NULL, 's' },
						 { "topology", required_argument, NULL, 't' }, { "qemu", required_argument, NULL, 'q' },
						 { "qemu-answers", required_argument, NULL, 'Q' },
						 { "set", required_argument, NULL, 'S' },      { "fake-devices", no_argument, NULL, 'f' },
						 { "help", no_argument, NULL, 'h' },	      { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			o->json = true;
			break;
		case 's':
			o->launch.sysroot = optarg;
			break;
		case 't':
			o->launch.topology_xml = optarg;
			break;
		case 'q':
		case 'Q':
			if (add_qemu(o, c == 'q' ? optarg : NULL, c == 'Q' ? optarg : NULL) < 0)
				return EXIT_TROUBLE;
			break;
		case 'S':
			strv_push(&o->launch.sets, optarg);
			break;
		case 'f':
			o->launch.fake_devices = true;
			break;
		case 'h':
			o->help = true;
			break;
		default:
			return EXIT_TROUBLE;
		}
	}
	if (o->launch.sysroot && o->launch.topology_xml) {
		fputs("gpuvm diff: --sysroot and --topology are two machines; give one\n", stderr);
		return EXIT_TROUBLE;
	}
	if (!o->help && (optind >= argc || optind + 2 < argc)) {
		fprintf(stderr, "gpuvm diff: %s\n%s", optind < argc ? "two commands at a time" : "what shall be compared?", usage);
		return EXIT_TROUBLE;
	}
	return 0;
}

int cmd_diff(int argc, char **argv)
{
	struct diff_options o = { .launch = { .dry_run = true } };
	int r = parse(argc, argv, &o);

	setlocale(LC_CTYPE, "");
	if (r == 0 && o.help)
		fputs(usage, stdout);
	else if (r == 0)
		r = compare(argv + optind, argc - optind, &o);
	strv_clear(&o.launch.sets);
	return r;
}
