/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: what qemu-img says of a tenant's file, and the first bytes of one.
 * covers: src/core/disk_info.c src/core/qcow2.c */
#include <stdint.h>
#include <string.h>

#include "gpuvm/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(const struct disk_info *d, uint64_t bytes)
{
	struct err e = { 0 };

	if (!d->format)
		abort();
	if (image_judge("/images/a b.img", d, bytes, &e) < 0)
		return;
	/* What is taken is one file, whole in itself. */
	if (!d->virtual_bytes || (strcmp(d->format, "raw") != 0 && (d->backing || d->data_file || d->encrypted || d->corrupt || d->dirty)))
		abort();
}

/* A name is a component of paths. */
static void name(const char *text)
{
	AUTO_FREE char *of_image = image_name_from_file(text), *file = NULL;

	if (!of_image)
		return;
	if (!image_name_ok(of_image) || strchr(of_image, '/') || *of_image == '.')
		abort();
	file = image_file_name(of_image, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "qcow2");
	if (!image_file_is_of(file, of_image))
		abort();
}

/* Words without zeros, or none at all. */
static void header(const uint8_t *head, size_t size)
{
	AUTO_FREE char *backing = NULL, *format = NULL, *path = NULL;
	struct err e = { 0 };
	int r = qcow2_backing(head, size, &backing, &format, &e);

	if (r < 0 ? backing || format || !*e.msg : (backing && !*backing) || (format && (!*format || !backing)))
		abort();
	path = backing ? qcow2_backing_path("/images/a.qcow2", backing) : NULL;
	if (path && *path != '/')
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	AUTO_FREE uint8_t *head = xcalloc(size, 1);
	struct disk_info d = { 0 };
	struct err e = { 0 };

	memcpy(head, data, size);
	(void)image_judge_head("/images/x.img", head, size < IMAGE_HEAD ? size : IMAGE_HEAD, &e);
	(void)image_head_boots(head, size);
	header(head, size);
	(void)disk_check_parse(text);
	if (disk_info_parse(text, &d, &e) == 0)
		judge(&d, size);
	disk_info_clear(&d);
	name(text);
	return 0;
}
