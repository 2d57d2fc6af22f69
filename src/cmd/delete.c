/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm delete: what `gpuvm create` has made goes, and what running has left of the VM.
 *
 * What is removed comes from the record (record.h), which goes last: a delete that was killed is finished by the next one. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"
#include "gpuvm/image.h"
#include "gpuvm/log.h"
#include "gpuvm/record.h"

#define KIB UINT64_C(1024)

static const char usage[] = "usage: gpuvm delete [--yes] [--json] NAME\n\n"
			    "Remove a VM that `gpuvm create` has made: its disks with all that is on them, its definition, UEFI variables, TPM and\n"
			    "logs. It is shown first what will go. A VM that runs is stopped as `gpuvm stop` does.\n\n"
			    "  --yes   do not ask\n"
			    "  --json  what was removed, for scripts\n"
			    "  --help\n\n"
			    "exit: 0 done, 1 failed, 2 usage or nobody to ask, 5 another VM needs one of its disks\n";

/* The definition after what it names. */
static const enum record_what order[] = { RECORD_OS_DISK, RECORD_DATA_DISK, RECORD_USER_DATA, RECORD_VARS, RECORD_TPM, RECORD_RUN, RECORD_DEFINITION };

struct doomed {
	const char *name;
	bool yes, json;
	struct record rec;
	struct problems ps;
	struct err e;
	struct json_object *removed;
};

static bool is_ours(const struct doomed *d, enum record_what what)
{
	return what >= RECORD_FILES || d->rec.files[what].listed;
}

/* --- may it go? ------------------------------------------------------------------------------------------------------ */

static int no_record(struct doomed *d)
{
	AUTO_FREE char *path = record_path(d->name, RECORD_DEFINITION);
	bool there = false;
	int r = record_exists(d->name, RECORD_DEFINITION, &there, &d->e);

	if (r < 0)
		return r;
	if (there)
		return err_set(&d->e, -ENOENT, "VM '%s' was not made by `gpuvm create`: its definition is '%s'; remove that yourself", d->name, path);
	return err_set(&d->e, -ENOENT, "there is no VM '%s'", d->name);
}

static int read_record(struct doomed *d)
{
	int r;

	record_clear(&d->rec);
	r = record_read(d->name, &d->rec, &d->e);
	return r == -ENOENT ? no_record(d) : r;
}

/* Other disks that are made on ours, other definitions that name them, other VMs that have them. @running: what we are called while we run, or NULL. */
static int check_users(struct doomed *d, const char *running)
{
	AUTO_FREE char *run = running ? claim_vm_dir(running) : NULL;
	struct strv own = { 0 }, who = { 0 }, unknown = { 0 };
	struct image_users users = { 0 };

	for (int what = 0; what < RECORD_FILES; what++) {
		AUTO_FREE char *path = record_path(d->name, what);

		if (d->rec.files[what].listed)
			strv_push(&own, path);
	}
	if (run)
		strv_push(&own, run);
	cmd_image_users(&users);
	disk_users(launch_state_dir(), &users, &own, &who, &unknown);
	for (size_t i = 0; i < who.n; i++)
		problems_add(&d->ps, PROBLEM_BUSY, "disk-used", "'%s' needs a disk of '%s'", who.v[i], d->name);
	for (size_t i = 0; i < unknown.n; i++)
		problem_hint(problems_add(&d->ps, PROBLEM_BUSY, "disk-used", "cannot tell whether a disk of '%s' is needed: %s", d->name, unknown.v[i]),
			     "repair or remove that first");
	strv_clear(&own);
	strv_clear(&who);
	strv_clear(&unknown);
	image_users_clear(&users);
	return d->ps.n ? -EBUSY : 0;
}

/* The claim that was made from this VM's definition, whatever name that has by now. ret->vm NULL: none. */
static int find_claim(struct doomed *d, struct claim *ret)
{
	AUTO_FREE char *path = record_path(d->name, RECORD_DEFINITION), *definition = realpath(path, NULL);
	struct strv names = { 0 };
	int r = claim_list(&names, &d->e);
	bool found = false;

	for (size_t i = 0; i < names.n && r == 0 && !found; i++) {
		AUTO_FREE char *dir = claim_vm_dir(names.v[i]);

		r = claim_read(dir, ret, &d->e);
		if (r < 0) {
			r = r == -ENOENT ? 0 : r;
			continue;
		}
		found = strcmp(ret->vm, d->name) == 0 || (definition && ret->definition && strcmp(definition, ret->definition) == 0);
		if (!found)
			claim_clear(ret);
	}
	strv_clear(&names);
	return r;
}

/* --- ask --------------------------------------------------------------------------------------------------------------- */

/* "3 MiB" of the disk, rounded up, or what else there is to know of it. */
static const char *size_text(const struct stat *st, char buf[32])
{
	uint64_t bytes = (uint64_t)st->st_blocks * 512, unit = bytes < 1024 * KIB ? KIB : 1024 * KIB;

	if (S_ISLNK(st->st_mode))
		return "a link: where it leads to is left";
	return S_ISREG(st->st_mode) ? format_size((bytes + unit - 1) / unit * unit, buf) : "a folder";
}

static void show(const struct doomed *d, bool running)
{
	printf("%s %s:\n", d->name, d->rec.ready ? "will be deleted" : "was not finished; what there is of it will be deleted");
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		AUTO_FREE char *path = record_path(d->name, order[i]);
		char size[32];
		struct stat st;

		if (is_ours(d, order[i]) && lstat(path, &st) == 0)
			printf("  %-20s %s (%s)\n", record_word(order[i]), path, size_text(&st, size));
	}
	if (cmd_unit_enabled(d->name))
		printf("It starts with the host, and will no longer.\n");
	if (running)
		printf("It runs, and is stopped first.\n");
}

static bool agreed(void)
{
	char answer[16];

	fputs("Delete? [y/N] ", stdout);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0);
}

/* Under the lock of the images, so that it is not a create that is at work. @ret_running: the name under which it runs, owned, or NULL. */
static int look(struct doomed *d, char **ret_running)
{
	AUTO_CLOSE int lock = image_lock(launch_state_dir(), &d->e);
	struct claim c = { 0 };
	int r = lock < 0 ? lock : read_record(d);

	if (r == 0)
		r = find_claim(d, &c);
	if (c.vm && claim_alive(&c))
		*ret_running = xstrdup(c.vm);
	claim_clear(&c);
	return r == 0 ? check_users(d, *ret_running) : r;
}

/* --- do it ------------------------------------------------------------------------------------------------------------- */

static int remove_all(struct doomed *d)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(order) && r == 0; i++) {
		AUTO_FREE char *path = record_path(d->name, order[i]);
		bool there = false;

		if (!is_ours(d, order[i]))
			continue;
		r = record_exists(d->name, order[i], &there, &d->e);
		if (r == 0 && there)
			r = record_remove(d->name, order[i], &d->e);
		if (r == 0 && there)
			json_object_array_add(d->removed, json_object_new_string(path));
	}
	return r == 0 ? record_forget(d->name, &d->e) : r;
}

/* Nobody starts it now: the allocation lock is held. What a launcher that was killed has left is given back first. */
static int check_ended(struct doomed *d)
{
	struct claim c = { 0 };
	int r = find_claim(d, &c);

	if (r < 0 || !c.vm)
		return r;
	if (claim_alive(&c)) {
		problems_add(&d->ps, PROBLEM_BUSY, "vm-running", "VM '%s' was started again meanwhile", c.vm);
		r = -EBUSY;
	} else {
		r = claim_recover(&sysfs_live, &c, &d->e);
	}
	claim_clear(&c);
	return r;
}

/* Everything is looked at again: the question may have been open for hours. */
static int finish(struct doomed *d)
{
	AUTO_CLOSE int images = image_lock(launch_state_dir(), &d->e), claims = images < 0 ? -1 : claim_lock(&d->e);
	int r = images < 0 || claims < 0 ? -EIO : read_record(d);

	if (r == 0)
		r = check_ended(d);
	if (r == 0)
		r = check_users(d, NULL);
	if (r == 0 && !d->rec.ready)
		return record_undo(&d->rec, &d->e);
	return r == 0 ? remove_all(d) : r;
}

static void say_removed(struct doomed *d)
{
	struct json_object *o;

	if (!d->json) {
		printf("%s is deleted\n", d->name);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "vm", json_object_new_string(d->name));
	json_object_object_add(o, "deleted", json_object_get(d->removed));
	cmd_print_json(o);
}

static int delete(struct doomed *d)
{
	AUTO_FREE char *running = NULL;

	if (look(d, &running) < 0)
		return cmd_report(&d->ps, &d->e, d->name, d->json);
	if (!d->json)
		show(d, running);
	if (!d->yes && !isatty(STDIN_FILENO)) {
		fputs("gpuvm delete: there is no terminal to ask on; --yes deletes without asking\n", stderr);
		return EXIT_USAGE;
	}
	if (!d->yes && !agreed()) {
		log_notice("nothing was deleted");
		return EXIT_FAILED;
	}
	if (running && cmd_end_vm(running, SIGTERM, 0) != EXIT_DONE)
		return EXIT_FAILED; /* it has said why */
	/* Before there is nothing that it could start. */
	if (cmd_unit_enabled(d->name) && cmd_unit_disable(d->name) != 0) {
		log_error("%s: it starts with the host, which `systemctl disable gpuvm@%s` ends; nothing was deleted", d->name, d->name);
		return EXIT_FAILED;
	}
	if (finish(d) < 0)
		return cmd_report(&d->ps, &d->e, d->name, d->json);
	say_removed(d);
	return EXIT_DONE;
}

int cmd_delete(int argc, char **argv)
{
	static const struct option options[] = { { "yes", no_argument, NULL, 'y' }, { "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 } };
	struct doomed d = { 0 };
	int c, r;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return EXIT_DONE;
		}
		if (c == '?')
			return EXIT_USAGE;
		*(c == 'y' ? &d.yes : &d.json) = true;
	}
	if (optind != argc - 1) {
		fprintf(stderr, "gpuvm delete: %s\n%s", optind < argc ? "one VM at a time" : "which VM?", usage);
		return EXIT_USAGE;
	}
	d.name = argv[optind];
	if (!cmd_check_name("delete", d.name))
		return EXIT_USAGE;
	d.removed = json_object_new_array();
	r = delete(&d);
	json_object_put(d.removed);
	record_clear(&d.rec);
	problems_clear(&d.ps);
	return r;
}
