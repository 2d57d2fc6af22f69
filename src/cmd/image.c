/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm image: what disks of VMs are made from. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cmd.h"
#include "gpuvm/image.h"
#include "gpuvm/log.h"

struct image_args {
	struct image_install install;
	bool json, help;
};

/* --- who uses them -------------------------------------------------------------------------------------------------- */

/* What a VM has open, and what it was started from: that may lie anywhere. */
static void add_vm(const char *name, struct image_users *u)
{
	AUTO_FREE char *dir = claim_vm_dir(name);
	struct claim c = { 0 };
	struct err e = { 0 };
	int r = claim_read(dir, &c, &e);

	if (r < 0 && r != -ENOENT)
		strv_push(&u->unknown, e.msg);
	if (r == 0 && claim_qemu_alive(&c))
		*PUSH_ZEROED(u->processes, u->n_processes) = (struct image_process){ .who = xstrdup(dir), .pid = c.qemu_pid };
	/* It comes back from its definition after a crash. One that was removed does not. */
	if (r == 0 && c.definition && (claim_qemu_alive(&c) || claim_launcher_alive(&c)) && access(c.definition, F_OK) == 0)
		strv_push(&u->definitions, c.definition);
	claim_clear(&c);
}

void cmd_image_users(struct image_users *u)
{
	struct strv names = { 0 };
	struct err e = { 0 };

	u->confdir = launch_config_dir();
	if (claim_list(&names, &e) < 0)
		strv_push(&u->unknown, e.msg);
	for (size_t i = 0; i < names.n; i++)
		add_vm(names.v[i], u);
	strv_clear(&names);
}

/* --- printing ----------------------------------------------------------------------------------------------------------- */

static int report(const struct err *e, bool json)
{
	struct problems ps = { 0 };
	int code;

	if (e->code == -EEXIST)
		problems_add(&ps, PROBLEM_BUSY, "image-exists", "%s", e->msg);
	else if (e->code == -EBUSY)
		problems_add(&ps, PROBLEM_BUSY, "image-in-use", "%s", e->msg);
	code = cmd_report(&ps, e, NULL, json);
	problems_clear(&ps);
	return code;
}

static struct json_object *strings(const struct strv *s)
{
	struct json_object *v = json_object_new_array();

	for (size_t i = 0; i < s->n; i++)
		json_object_array_add(v, json_object_new_string(s->v[i]));
	return v;
}

/* Of its file and of older ones. */
static uint64_t on_disk(const struct image *i)
{
	struct stat st;
	uint64_t blocks = stat(i->file, &st) == 0 ? (uint64_t)st.st_blocks : 0;

	for (size_t f = 0; f < i->older.n; f++)
		blocks += stat(i->older.v[f], &st) == 0 ? (uint64_t)st.st_blocks : 0;
	return blocks * 512;
}

static struct json_object *image_json(const struct image *i)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "name", json_object_new_string(i->name));
	json_object_object_add(o, "format", json_object_new_string(i->format));
	json_object_object_add(o, "file", json_object_new_string(i->file));
	json_object_object_add(o, "sha256", json_object_new_string(i->sha256));
	json_object_object_add(o, "source", json_object_new_string(i->source));
	json_object_object_add(o, "bytes", json_object_new_uint64(i->bytes));
	json_object_object_add(o, "virtual_bytes", json_object_new_uint64(i->virtual_bytes));
	json_object_object_add(o, "disk_bytes", json_object_new_uint64(on_disk(i)));
	json_object_object_add(o, "installed", json_object_new_int64(i->installed));
	return o;
}

static struct json_object *list_json(const struct image *i)
{
	struct json_object *o = image_json(i);

	json_object_object_add(o, "used_by", strings(&i->used_by));
	json_object_object_add(o, "older", strings(&i->older));
	return o;
}

/* "2.3 GiB": for a table; exact sizes are in the JSON. */
static void short_size(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		v /= 1024;
	snprintf(buf, 32, u && v != (double)(uint64_t)v ? "%.1f %s" : "%.0f %s", v, units[u]);
}

static void list_row(const struct image *i)
{
	char size[32], disk[32], when[32] = "-";
	time_t installed = (time_t)i->installed;
	struct tm tm;

	short_size(i->virtual_bytes, size);
	short_size(on_disk(i), disk);
	if (localtime_r(&installed, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
	printf("%-28s %-6s %-10s %-10s %-17s %zu", i->name, i->format, size, disk, when, i->used_by.n);
	if (i->older.n)
		printf(" (with %zu older version%s)", i->older.n, i->older.n == 1 ? "" : "s");
	putchar('\n');
}

/* --- verbs ----------------------------------------------------------------------------------------------------------------- */

static int image_verb_list(const struct image_args *a)
{
	struct json_object *all = json_object_new_array();
	struct image_users u = { 0 };
	struct strv unknown = { 0 };
	struct image *v = NULL;
	struct err e = { 0 };
	size_t n = 0;
	int r;

	cmd_image_users(&u);
	r = image_list(launch_state_dir(), &u, &v, &n, &unknown, &e);
	if (r == 0 && !a->json)
		printf("%-28s %-6s %-10s %-10s %-17s %s\n", "NAME", "FORMAT", "SIZE", "ON-DISK", "INSTALLED", "USED-BY");
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (a->json)
			json_object_array_add(all, list_json(&v[i]));
		else
			list_row(&v[i]);
	}
	for (size_t i = 0; i < unknown.n; i++)
		log_warning("it cannot be told whether an image is used: %s", unknown.v[i]);
	if (r < 0)
		r = report(&e, a->json);
	else if (a->json)
		cmd_print_json(STEAL_PTR(all));
	else if (!n)
		log_notice("there is no image; `gpuvm image install FILE` makes one of a file");
	json_object_put(all);
	images_free(v, n);
	strv_clear(&unknown);
	image_users_clear(&u);
	return r;
}

static int image_verb_install(const struct image_args *a)
{
	struct image_users u = { 0 };
	struct image i = { 0 };
	struct err e = { 0 };
	char size[32];
	int r;

	cmd_image_users(&u);
	r = image_install(launch_state_dir(), &u, &a->install, &i, &e);
	image_users_clear(&u);
	if (r < 0)
		return report(&e, a->json);
	short_size(i.virtual_bytes, size);
	if (r == 1)
		log_notice("image '%s' is that one already (SHA-256 %s); nothing was changed", i.name, i.sha256);
	else if (a->install.upgrade)
		log_notice("image '%s' is now this one (%s, %s, SHA-256 %s); disks that there are keep the one that they were made on", i.name, i.format,
			   size, i.sha256);
	else
		log_notice("image '%s' is installed (%s, %s, SHA-256 %s); `gpuvm create VM --image %s` makes a VM with it", i.name, i.format, size,
			   i.sha256, i.name);
	if (a->json) {
		struct json_object *o = image_json(&i);

		json_object_object_add(o, "changed", json_object_new_boolean(r == 0));
		cmd_print_json(o);
	}
	image_clear(&i);
	return EXIT_DONE;
}

static int image_verb_remove(const struct image_args *a)
{
	struct image_users u = { 0 };
	struct err e = { 0 };
	int r;

	cmd_image_users(&u);
	r = image_remove(launch_state_dir(), &u, a->install.name, &e);
	image_users_clear(&u);
	return r < 0 ? report(&e, false) : EXIT_DONE;
}

/* --- words --------------------------------------------------------------------------------------------------------------------- */

static const char usage_all[] = "usage: gpuvm image list|install|upgrade|remove ...\n\n"
				"Disk images that VMs are made from (`gpuvm create --image NAME`). `gpuvm image WORD --help` says more.\n"
				"  list     the images, and how many disks and definitions use each\n"
				"  install  check a qcow2 or raw file and copy it into the store\n"
				"  upgrade  another version of an image, for VMs that are made from now on\n"
				"  remove   an image that nothing uses\n";

#define INSTALL_OPTIONS                                                                                       \
	"  --name NAME   what it is called; without it as FILE is, without .qcow2, .img or .raw\n"             \
	"  --sha256 HEX  refuse a file that has another one\n"                                                 \
	"  --json        print the record of the image\n"

static const struct image_verb {
	const char *name;
	int (*run)(const struct image_args *a);
	const char *word; /* that it wants, or NULL */
	const char *options;
	const char *usage;
} verbs[] = {
	{ "list", image_verb_list, NULL, "j", "usage: gpuvm image list [--json]\n\nThe images, and how many disks, definitions and running VMs use each.\n" },
	{ "install", image_verb_install, "FILE", "jns",
	  "usage: gpuvm image install [--name NAME] [--sha256 HEX] [--json] FILE\n\n"
	  "Check a disk image (qcow2 or raw) and copy it into the store, where nothing changes it.\n" INSTALL_OPTIONS },
	{ "upgrade", image_verb_install, "FILE", "jns",
	  "usage: gpuvm image upgrade [--name NAME] [--sha256 HEX] [--json] FILE\n\n"
	  "As install, in place of the image of that name. Disks that were made on the old one keep it; it goes when none is left.\n" INSTALL_OPTIONS },
	{ "remove", image_verb_remove, "NAME", "",
	  "usage: gpuvm image remove NAME\n\nRemove an image. Refused while a disk, a definition or a running VM uses it or an older version of it.\n" },
};

static const struct option long_options[] = { { "json", no_argument, NULL, 'j' },
					      { "name", required_argument, NULL, 'n' },
					      { "sha256", required_argument, NULL, 's' },
					      { "help", no_argument, NULL, 'h' },
					      { 0 } };

/* The options of @v: those of long_options that it has, and --help. */
static void options_of(const struct image_verb *v, struct option ret[ARRAY_SIZE(long_options)])
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(long_options); i++)
		if (!long_options[i].name || long_options[i].val == 'h' || strchr(v->options, long_options[i].val))
			ret[n++] = long_options[i];
}

static int check_words(const struct image_verb *v, const struct image_args *a)
{
	if (a->install.name && !image_name_ok(a->install.name)) {
		fprintf(stderr, "gpuvm image %s: '%s' is no name of an image: letters, digits and \"-_.\", not beginning with \"-\" or \".\", at most %d\n",
			v->name, a->install.name, VM_NAME_MAX);
		return EXIT_USAGE;
	}
	if (a->install.sha256 && !image_sha256_ok(a->install.sha256)) {
		fprintf(stderr, "gpuvm image %s: --sha256: '%s' has not 64 hexadecimal digits\n", v->name, a->install.sha256);
		return EXIT_USAGE;
	}
	return 0;
}

static int parse(const struct image_verb *v, int argc, char **argv, struct image_args *a)
{
	struct option options[ARRAY_SIZE(long_options)];
	int c;

	options_of(v, options);
	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'j')
			a->json = true;
		else if (c == 'n')
			a->install.name = optarg;
		else if (c == 's')
			a->install.sha256 = optarg;
		else if (c == 'h')
			a->help = true;
		else
			return EXIT_USAGE;
	}
	if (a->help)
		return 0;
	if (argc - optind != (v->word ? 1 : 0)) {
		fprintf(stderr, "gpuvm image %s: %s%s\n%s", v->name, argc - optind < 1 ? "missing: " : "too many words", argc - optind < 1 ? v->word : "",
			v->usage);
		return EXIT_USAGE;
	}
	a->install.upgrade = strcmp(v->name, "upgrade") == 0;
	if (v->run == image_verb_remove)
		a->install.name = argv[optind];
	else if (v->word)
		a->install.file = argv[optind];
	return check_words(v, a);
}

int cmd_image(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";
	struct image_args a = { 0 };
	int r;

	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
		fputs(usage_all, stdout);
		return EXIT_DONE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(word, verbs[i].name) != 0)
			continue;
		r = parse(&verbs[i], argc - 1, argv + 1, &a);
		if (a.help && r == 0)
			fputs(verbs[i].usage, stdout);
		return r || a.help ? r : verbs[i].run(&a);
	}
	if (*word)
		fprintf(stderr, "gpuvm image: there is no '%s'\n", word);
	fputs(usage_all, stderr);
	return EXIT_USAGE;
}
