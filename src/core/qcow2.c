/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2.c - which file a qcow2 file is made on, from its header. qemu-img says it, too, but takes longer than the rest of a start.
 * Source: QEMU, docs/interop/qcow2.txt (Header, Header extensions); numbers are big-endian. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "gpuvm/image.h"

#define MAGIC		 "QFI\xfb"
#define VERSION_2_BYTES	 72 /* the header of version 2, which has no field for its length */
#define VERSION_3_BYTES	 104
#define NAME_MAX_BYTES	 1023
#define EXT_END		 0
#define EXT_BACKING_FORMAT UINT32_C(0xe2792aca)

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const uint8_t *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

bool qcow2_is(const void *head, size_t len)
{
	return len >= 4 && memcmp(head, MAGIC, 4) == 0;
}

/* Text in a header; NULL: there is none, or what has no place in a message: control characters, what is not UTF-8. */
static char *text_at(const uint8_t *p, size_t len)
{
	AUTO_FREE char *text = len && !memchr(p, '\0', len) ? xstrndup((const char *)p, len) : NULL;

	return text && text_is_plain(text) ? STEAL_PTR(text) : NULL;
}

/* The extension that says the format; extensions are between the header and @end, where the name is. */
static int find_format(const uint8_t *b, size_t at, size_t end, char **ret, struct err *e)
{
	while (end - at >= 8) {
		uint32_t type = be32(b + at), len = be32(b + at + 4);

		at += 8;
		if (type == EXT_END)
			return 0;
		if (len > end - at)
			return err_set(e, -EINVAL, "an extension of its qcow2 header is longer than the header");
		if (type == EXT_BACKING_FORMAT && !*ret)
			*ret = text_at(b + at, len);
		len = (len + 7) / 8 * 8;
		at += len > end - at ? end - at : len;
	}
	return 0;
}

int qcow2_backing(const void *head, size_t len, char **ret_name, char **ret_format, struct err *e)
{
	const uint8_t *b = head;
	uint64_t at;
	uint32_t version, size, bytes = VERSION_2_BYTES;
	int r;

	*ret_name = *ret_format = NULL;
	if (!qcow2_is(head, len))
		return err_set(e, -EINVAL, "it does not begin as a qcow2 file does");
	if (len < VERSION_2_BYTES)
		return err_set(e, -EINVAL, "it ends within its qcow2 header");
	version = be32(b + 4);
	at = be64(b + 8);
	size = be32(b + 16);
	if (version < 2 || version > 3)
		return err_set(e, -EINVAL, "its qcow2 header is of version %u; QEMU knows 2 and 3", version);
	if (version == 3 && len < VERSION_3_BYTES)
		return err_set(e, -EINVAL, "it ends within its qcow2 header");
	if (version == 3)
		bytes = be32(b + 100);
	if (!at || !size)
		return 0;
	if (bytes < VERSION_2_BYTES || bytes > len || at < bytes || at > len || size > NAME_MAX_BYTES || size > len - at)
		return err_set(e, -EINVAL, "its qcow2 header has its backing file's name where none can be");
	*ret_name = text_at(b + at, size);
	r = *ret_name ? find_format(b, bytes, at, ret_format, e) : err_set(e, -EINVAL, "the name of its backing file has characters that no name has here");
	if (r < 0) {
		free(*ret_name);
		free(*ret_format);
		*ret_name = *ret_format = NULL;
	}
	return r;
}

char *qcow2_backing_path(const char *file, const char *name)
{
	const char *colon = strchr(name, ':'), *slash = strchr(name, '/'), *last = strrchr(file, '/');

	if (colon && (!slash || colon < slash))
		return NULL;
	if (*name == '/' || !last)
		return xstrdup(name);
	return xasprintf("%.*s%s", (int)(last + 1 - file), file, name);
}
