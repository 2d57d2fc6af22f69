/* SPDX-License-Identifier: GPL-2.0-or-later */
/* disk_info.c - what qemu-img has said of a file, as a struct; and what is judged from a file's first bytes, its name and that struct. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

#include "config_impl.h"
#include "gpuvm/image.h"

void disk_info_clear(struct disk_info *d)
{
	free(d->format);
	free(d->backing);
	free(d->backing_format);
	free(d->data_file);
	*d = (struct disk_info){ 0 };
}

/* --- qemu-img --output=json -------------------------------------------------------------------------------- */

static char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ? xstrdup(json_object_get_string(v)) : NULL;
}

static bool bool_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_get_boolean(v);
}

static bool number_of(struct json_object *o, const char *key, uint64_t *ret)
{
	struct json_object *v;
	int64_t n;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int))
		return false;
	n = json_object_get_int64(v);
	if (n < 0)
		return false;
	*ret = (uint64_t)n;
	return true;
}

/* A warning may be in front of it, in the same stream. */
static struct json_object *find_json(const char *text)
{
	const char *line = strstr(text, "\n{");

	return json_tokener_parse(*text == '{' ? text : line ? line + 1 : "");
}

uint64_t disk_check_parse(const char *text)
{
	struct json_object *o = find_json(text);
	uint64_t n = 0;

	if (!number_of(o, "corruptions", &n))
		n = 0;
	json_object_put(o);
	return n;
}

int disk_info_parse(const char *text, struct disk_info *ret, struct err *e)
{
	struct json_object *o = find_json(text), *specific = NULL, *data = NULL;
	struct disk_info d = { 0 };
	bool ok;

	d.format = text_of(o, "format");
	ok = d.format && number_of(o, "virtual-size", &d.virtual_bytes);
	/* Not every file system tells. */
	if (!number_of(o, "actual-size", &d.actual_bytes))
		d.actual_bytes = 0;
	d.backing = text_of(o, "backing-filename");
	d.backing_format = text_of(o, "backing-filename-format");
	d.encrypted = bool_of(o, "encrypted");
	d.dirty = bool_of(o, "dirty-flag");
	if (json_object_object_get_ex(o, "format-specific", &specific) && json_object_object_get_ex(specific, "data", &data)) {
		d.corrupt = bool_of(data, "corrupt");
		d.data_file = text_of(data, "data-file");
	}
	json_object_put(o);
	if (!ok) {
		disk_info_clear(&d);
		return err_set(e, -EPROTO, "what qemu-img says of it makes no sense");
	}
	*ret = d;
	return 0;
}

/* --- names ------------------------------------------------------------------------------------------------------------ */

#define DIGEST_SHOWN 12

bool image_name_ok(const char *name)
{
	return config_name_ok(name, VM_NAME_MAX);
}

bool image_sha256_ok(const char *hex)
{
	return strlen(hex) == 64 && strspn(hex, "0123456789abcdefABCDEF") == 64;
}

char *image_name_from_file(const char *path)
{
	static const char *const extensions[] = { ".qcow2", ".img", ".raw" };
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *name = xstrdup(slash ? slash + 1 : path);
	char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(extensions); i++)
		if (strcmp(dot, extensions[i]) == 0)
			*dot = '\0';
	return image_name_ok(name) ? STEAL_PTR(name) : NULL;
}

char *image_file_name(const char *name, const char *sha256, const char *format)
{
	return xasprintf("%s@%.*s.%s", name, DIGEST_SHOWN, sha256, format);
}

bool image_file_is_of(const char *file, const char *name)
{
	size_t len = strlen(name);
	const char *digest;

	if (strncmp(file, name, len) != 0 || file[len] != '@')
		return false;
	digest = file + len + 1;
	return strspn(digest, "0123456789abcdef") == DIGEST_SHOWN &&
	       (strcmp(digest + DIGEST_SHOWN, ".qcow2") == 0 || strcmp(digest + DIGEST_SHOWN, ".raw") == 0);
}

/* --- what may be an image ------------------------------------------------------------------------------------------------ */

/* @path with @extension in place of its own; quoted for a shell. Owned. */
static char *other_name(const char *path, const char *extension)
{
	const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
	AUTO_FREE char *name = xasprintf("%.*s%s", dot ? (int)(dot - path) : (int)strlen(path), path, extension);

	/* Never onto itself. */
	if (strcmp(name, path) == 0) {
		free(name);
		name = xasprintf("%.*s-whole%s", (int)(dot - path), path, extension);
	}
	return shell_quote(name);
}

static int say_convert(const char *path, const char *what, struct err *e)
{
	AUTO_FREE char *in = shell_quote(path), *out = other_name(path, ".qcow2");

	return err_set(e, -EINVAL, "'%s' %s; make one file of it: qemu-img convert -O qcow2 %s %s", path, what, in, out);
}

/* First bytes of what is often offered for download. Formats of several files are named here, because qemu-img would open what they name. */
static const struct {
	size_t at;
	const char *magic;
	size_t len;
	const char *what, *unpack; /* NULL: qemu-img converts it */
} magics[] = {
	{ 0, "\x1f\x8b", 2, "is compressed with gzip", "gunzip -k" },
	{ 0, "\xfd" "7zXZ\0", 6, "is compressed with xz", "xz -dk" },
	{ 0, "\x28\xb5\x2f\xfd", 4, "is compressed with zstd", "zstd -d" },
	{ 0, "BZh", 3, "is compressed with bzip2", "bzip2 -dk" },
	{ 0, "\x04\x22\x4d\x18", 4, "is compressed with lz4", "lz4 -d" },
	{ 0, "PK\3\4", 4, "is a zip archive", "unzip" },
	{ 257, "ustar", 5, "is a tar archive (an OVA is one, too)", "tar -xf" },
	{ 0, "KDMV", 4, "is in the format vmdk", NULL },
	{ 0, "COWD", 4, "is in the format vmdk", NULL },
	{ 0, "# Disk DescriptorFile", 21, "is in the format vmdk", NULL },
};

int image_judge_head(const char *path, const void *head, size_t len, struct err *e)
{
	AUTO_FREE char *quoted = shell_quote(path);

	if (!len)
		return err_set(e, -EINVAL, "'%s' is empty", path);
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		if (len < magics[i].at + magics[i].len || memcmp((const char *)head + magics[i].at, magics[i].magic, magics[i].len) != 0)
			continue;
		if (!magics[i].unpack)
			return say_convert(path, magics[i].what, e);
		return err_set(e, -EINVAL, "'%s' %s; unpack it first: %s %s", path, magics[i].what, magics[i].unpack, quoted);
	}
	return 0;
}

bool image_head_boots(const void *head, size_t len)
{
	const uint8_t *b = head;

	/* Of a master boot record; a GPT has one in front, for the sake of others. */
	return len >= 512 && b[510] == 0x55 && b[511] == 0xaa;
}

static int judge_qcow2(const char *path, const struct disk_info *d, struct err *e)
{
	AUTO_FREE char *in = shell_quote(path), *what = NULL;

	if (d->backing) {
		what = xasprintf("is only the difference to another file ('%s')", d->backing);
		return say_convert(path, what, e);
	}
	if (d->data_file) {
		what = xasprintf("has its data in another file ('%s')", d->data_file);
		return say_convert(path, what, e);
	}
	if (d->encrypted)
		return err_set(e, -EINVAL, "'%s' is encrypted: a VM could not read it; decrypt it with qemu-img convert (qemu-img(1), --image-opts)", path);
	if (d->corrupt || d->dirty)
		return err_set(e, -EINVAL, "'%s' is marked as %s; fetch it again, or repair it: qemu-img check -r all %s", path,
			       d->corrupt ? "corrupt" : "not closed cleanly", in);
	return 0;
}

int image_judge(const char *path, const struct disk_info *d, uint64_t bytes, struct err *e)
{
	AUTO_FREE char *what = NULL;
	bool qcow2 = strcmp(d->format, "qcow2") == 0, raw = strcmp(d->format, "raw") == 0;

	if (!qcow2 && !raw) {
		what = xasprintf("is in the format %s, and images are qcow2 or raw", d->format);
		return say_convert(path, what, e);
	}
	if (raw && bytes % 512)
		return err_set(e, -EINVAL, "'%s' is no disk: its size (%" PRIu64 " bytes) is no multiple of 512. A text or web page in place of the image, or "
			       "not all of it?", path, bytes);
	if (!d->virtual_bytes)
		return err_set(e, -EINVAL, "'%s' is a disk of 0 bytes", path);
	return qcow2 ? judge_qcow2(path, d, e) : 0;
}
