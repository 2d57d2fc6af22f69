/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/claim.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/record.h"

#define RECORD_MAX 65536
#define RECORDS	   "vms"

/* --- places ------------------------------------------------------------------------------------------------------- */

static const struct place {
	const char *word;   /* in the record */
	const char *name;   /* for people */
	const char *folder; /* below the state folder; "": the one of the definitions; NULL: run-time */
	const char *suffix;
} places[] = {
	[RECORD_OS_DISK] = { "os-disk", "OS disk", "/disks", ".qcow2" },
	[RECORD_DATA_DISK] = { "data-disk", "data disk", "/disks", "-data.qcow2" },
	[RECORD_USER_DATA] = { "user-data", "user-data", "", ".user-data" },
	[RECORD_DEFINITION] = { "definition", "definition", "", ".ini" },
	[RECORD_VARS] = { NULL, "UEFI variables", "/vars", ".fd" },
	[RECORD_TPM] = { NULL, "state of the TPM", "/tpm", "" },
	[RECORD_RUN] = { NULL, "logs of the last run", NULL, "" },
};

/* Definitions name files by absolute paths; the folders may come from the environment. */
static char *absolute(const char *dir)
{
	AUTO_FREE char *here = *dir == '/' ? NULL : getcwd(NULL, 0);

	return here ? xasprintf("%s/%s", here, dir) : xstrdup(dir);
}

static char *folder_of(enum record_what what)
{
	const struct place *p = &places[what];
	AUTO_FREE char *top = absolute(!p->folder ? claim_rundir() : *p->folder ? launch_state_dir() : launch_config_dir());

	return xasprintf("%s%s", top, p->folder ? p->folder : "");
}

char *record_path(const char *vm, enum record_what what)
{
	AUTO_FREE char *folder = folder_of(what);

	return xasprintf("%s/%s%s", folder, vm, places[what].suffix);
}

char *record_temp_path(const char *vm, enum record_what what)
{
	AUTO_FREE char *folder = folder_of(what);

	return xasprintf("%s/.%s%s.new", folder, vm, places[what].suffix);
}

const char *record_word(enum record_what what)
{
	return places[what].name;
}

static char *records_dir(void)
{
	AUTO_FREE char *state = absolute(launch_state_dir());

	return xasprintf("%s/" RECORDS, state);
}

static char *json_path(const char *vm)
{
	AUTO_FREE char *dir = records_dir();

	return xasprintf("%s/%s.json", dir, vm);
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

void record_clear(struct record *r)
{
	free(r->vm);
	*r = (struct record){ 0 };
}

static struct json_object *file_to_json(const struct record *r, enum record_what what)
{
	AUTO_FREE char *path = record_path(r->vm, what);
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "what", json_object_new_string(places[what].word));
	json_object_object_add(o, "path", json_object_new_string(path));
	json_object_object_add(o, "inode", json_object_new_uint64(r->files[what].inode));
	json_object_object_add(o, "born_us", json_object_new_int64(r->files[what].born_us));
	return o;
}

static struct json_object *record_to_json(const struct record *r)
{
	struct json_object *o = json_object_new_object(), *files = json_object_new_array();

	json_object_object_add(o, "schema", json_object_new_int(RECORD_SCHEMA));
	json_object_object_add(o, "vm", json_object_new_string(r->vm));
	json_object_object_add(o, "state", json_object_new_string(r->ready ? "ready" : "creating"));
	json_object_object_add(o, "created", json_object_new_int64(r->created));
	for (int what = 0; what < RECORD_FILES; what++)
		if (r->files[what].listed)
			json_object_array_add(files, file_to_json(r, what));
	json_object_object_add(o, "files", files);
	return o;
}

static struct json_object *field(struct json_object *o, const char *key, enum json_type type)
{
	struct json_object *v = NULL;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, type) ? v : NULL;
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v = field(o, key, json_type_string);

	return v ? json_object_get_string(v) : "";
}

/* NULL, or what is wrong with it. */
static const char *read_file(struct json_object *o, struct record *r)
{
	struct json_object *inode = field(o, "inode", json_type_int), *born = field(o, "born_us", json_type_int);
	AUTO_FREE char *path = NULL;
	int what = 0;

	while (what < RECORD_FILES && strcmp(text_of(o, "what"), places[what].word) != 0)
		what++;
	if (what == RECORD_FILES || r->files[what].listed || !inode || !born)
		return "a field of 'files' is missing, of a wrong type, or there twice";
	path = record_path(r->vm, what);
	if (strcmp(text_of(o, "path"), path) != 0)
		return "a file is not where those of this VM are (with this GPUVM_STATEDIR and GPUVM_CONFDIR)";
	r->files[what] = (struct record_file){ true, json_object_get_uint64(inode), json_object_get_int64(born) };
	return NULL;
}

static const char *read_fields(struct json_object *o, struct record *r)
{
	struct json_object *schema = field(o, "schema", json_type_int), *created = field(o, "created", json_type_int);
	struct json_object *files = field(o, "files", json_type_array);
	const char *state = text_of(o, "state"), *wrong = NULL;

	if (!schema || json_object_get_int(schema) != RECORD_SCHEMA)
		return "it is of another version of gpuvm";
	r->ready = strcmp(state, "ready") == 0;
	if ((!r->ready && strcmp(state, "creating") != 0) || !created || !files)
		return "a field is missing or of a wrong type";
	if (strcmp(text_of(o, "vm"), r->vm) != 0)
		return "it is another VM's";
	r->created = json_object_get_int64(created);
	for (size_t i = 0; i < json_object_array_length(files) && !wrong; i++)
		wrong = read_file(json_object_array_get_idx(files, i), r);
	return wrong;
}

int record_read(const char *vm, struct record *ret, struct err *e)
{
	AUTO_FREE char *path = json_path(vm), *text = NULL;
	struct record rec = { .vm = xstrdup(vm) };
	struct json_object *o;
	const char *wrong;
	int r = read_own_file(path, RECORD_MAX, &text);

	if (r < 0) {
		record_clear(&rec);
		return err_sys(e, r, "read '%s'", path);
	}
	o = json_tokener_parse(text);
	wrong = json_object_is_type(o, json_type_object) ? read_fields(o, &rec) : "it is not JSON";
	json_object_put(o);
	if (wrong) {
		record_clear(&rec);
		err_set(e, -EBADMSG, "'%s' is damaged: %s; put it back from a backup, or remove the files of '%s' and this one yourself", path, wrong, vm);
		e->word = "record-damaged";
		return -EBADMSG;
	}
	*ret = rec;
	return 0;
}

static int make_folder(const char *dir, unsigned int mode, struct err *e)
{
	return mkdir(dir, mode) < 0 && errno != EEXIST ? err_sys(e, -errno, "make the folder '%s'", dir) : 0;
}

int record_write(const struct record *r, struct err *e)
{
	AUTO_FREE char *path = json_path(r->vm), *dir = records_dir(), *text = NULL;
	struct json_object *o = record_to_json(r);
	int c = make_folder(launch_state_dir(), 0755, e);

	text = xasprintf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	if (c == 0)
		c = make_folder(dir, 0700, e);
	if (c < 0)
		return c;
	c = write_file_atomic(path, text, strlen(text), 0600);
	return c < 0 ? err_sys(e, c, "write '%s'", path) : 0;
}

/* Names in @dir that end in @suffix, without it, sorted. No folder: none. */
static int list_names(const char *dir, const char *suffix, struct strv *ret, struct err *e)
{
	const struct sysfs here = { .root = "" };
	struct strv all = { 0 };
	int r = sysfs_list(&here, &all, "%s", dir);

	for (size_t i = 0; i < all.n; i++) {
		size_t len = strlen(all.v[i]), end = strlen(suffix);

		if (len > end && strcmp(all.v[i] + len - end, suffix) == 0)
			strv_pushf(ret, "%.*s", (int)(len - end), all.v[i]);
	}
	strv_clear(&all);
	return r < 0 && r != -ENOENT ? err_sys(e, r, "read '%s'", dir) : 0;
}

int record_list(struct strv *ret, struct err *e)
{
	AUTO_FREE char *dir = records_dir();

	return list_names(dir, ".json", ret, e);
}

int record_list_definitions(struct strv *ret, struct err *e)
{
	AUTO_FREE char *dir = folder_of(RECORD_DEFINITION);
	struct strv names = { 0 };
	int r = list_names(dir, ".ini", &names, e);

	for (size_t i = 0; i < names.n; i++)
		strv_pushf(ret, "%s/%s.ini", dir, names.v[i]);
	strv_clear(&names);
	return r;
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

static int identify(const char *path, struct record_file *ret)
{
	struct statx st;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &st) < 0)
		return -errno;
	ret->inode = st.stx_ino;
	/* A number alone is given to the next file when this one is gone. Not nanoseconds: few readers of JSON have more than 53 bits. */
	ret->born_us = st.stx_mask & STATX_BTIME ? st.stx_btime.tv_sec * INT64_C(1000000) + st.stx_btime.tv_nsec / 1000 : 0;
	return 0;
}

/* rename() that does not replace. */
static int give_name(const char *from, const char *to)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return 0;
	/* NFS does not know how. */
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (link(from, to) < 0)
		return -errno;
	unlink(from);
	return 0;
}

int record_publish(struct record *r, enum record_what what, struct err *e)
{
	AUTO_FREE char *temp = record_temp_path(r->vm, what), *path = record_path(r->vm, what);
	int c = identify(temp, &r->files[what]);

	if (c < 0)
		return err_sys(e, c, "'%s'", temp);
	c = record_write(r, e);
	if (c < 0)
		return c;
	c = give_name(temp, path);
	if (c == 0)
		c = fsync_parent(path);
	return c < 0 ? err_sys(e, c, "write '%s'", path) : 0;
}

static int remove_file(const char *path, struct err *e)
{
	int c;

	if (unlink(path) < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "remove '%s'", path);
	c = fsync_parent(path);
	return c < 0 ? err_sys(e, c, "remove '%s'", path) : 0;
}

static int undo_file(const struct record *r, enum record_what what, struct err *e)
{
	AUTO_FREE char *temp = record_temp_path(r->vm, what), *path = record_path(r->vm, what);
	const struct record_file *made = &r->files[what];
	struct record_file now = { 0 };
	int c = remove_file(temp, e);

	/* Not made yet: whatever has its name is somebody else's. */
	if (c < 0 || !made->inode || identify(path, &now) < 0)
		return c;
	if (now.inode == made->inode && now.born_us == made->born_us)
		return remove_file(path, e);
	log_warning("'%s' is not the file that the interrupted `gpuvm create %s` has made: it is left as it is", path, r->vm);
	return 0;
}

int record_undo(const struct record *r, struct err *e)
{
	int c = 0;

	for (int what = RECORD_FILES - 1; what >= 0 && c == 0; what--)
		if (r->files[what].listed)
			c = undo_file(r, what, e);
	return c == 0 ? record_forget(r->vm, e) : c;
}

int record_exists(const char *vm, enum record_what what, bool *ret, struct err *e)
{
	AUTO_FREE char *path = record_path(vm, what);
	struct stat st;

	if (lstat(path, &st) < 0 && errno != ENOENT && errno != ENOTDIR)
		return err_sys(e, -errno, "'%s'", path);
	*ret = lstat(path, &st) == 0;
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path) < 0 && errno != ENOENT ? -errno : 0;
}

int record_remove(const char *vm, enum record_what what, struct err *e)
{
	AUTO_FREE char *path = record_path(vm, what);
	int c;

	if (what != RECORD_TPM && what != RECORD_RUN)
		return remove_file(path, e);
	c = nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	if (c == -1)
		c = errno == ENOENT ? 0 : -errno;
	return c < 0 ? err_sys(e, c, "remove '%s'", path) : 0;
}

int record_forget(const char *vm, struct err *e)
{
	AUTO_FREE char *path = json_path(vm);

	return remove_file(path, e);
}
