/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/parse.h"
#include "gpuvm/strv.h"
#include "gpuvm/trust.h"

#define LINKS_MAX 40 /* as the kernel */

static bool is_trusted(uid_t uid)
{
	const char *sudo = geteuid() == 0 ? getenv("SUDO_UID") : NULL;
	uint64_t who;

	return uid == 0 || uid == geteuid() || (sudo && parse_u64(sudo, 0, UINT32_MAX, &who) == 0 && uid == who);
}

static int refuse(const char *path, const char *part, const struct stat *st, bool owner, struct err *e)
{
	AUTO_FREE char *quoted = shell_quote(part);

	err_set(e, -EPERM, "'%s' could have been written by others: '%s' belongs to user %u, group %u, mode %04o; %s %s", path, part, st->st_uid, st->st_gid,
		st->st_mode & 07777, owner ? "chown root" : "chmod go-w", quoted);
	e->word = "file-not-trusted";
	return -EPERM;
}

/* @part is a prefix of what @path has become by now. */
static int check_part(const char *path, const char *part, bool last, struct stat *ret, struct err *e)
{
	bool writable;

	if (lstat(part, ret) < 0)
		return err_sys(e, -errno, "'%s'", part);
	if (!is_trusted(ret->st_uid))
		return refuse(path, part, ret, true, e);
	writable = ret->st_mode & S_IWOTH || (ret->st_mode & S_IWGRP && ret->st_gid != 0);
	if (!writable || S_ISLNK(ret->st_mode) || (!last && ret->st_mode & S_ISVTX))
		return 0;
	return refuse(path, part, ret, false, e);
}

/* What the link at @part and the rest of the path behind it name; owned. */
static char *follow(const char *part, const char *rest)
{
	char target[PATH_MAX];
	ssize_t n = readlink(part, target, sizeof(target));

	if (n < 0 || (size_t)n == sizeof(target))
		return NULL;
	if (*target == '/')
		return xasprintf("%.*s%s", (int)n, target, rest);
	return xasprintf("%.*s/%.*s%s", (int)(strrchr(part, '/') - part), part, (int)n, target, rest);
}

/* From the root on, so that what is looked at cannot be replaced by then: only those who are trusted can write above it. ".." goes up as the
 * kernel does, as all links before it are resolved. */
int trust_check(const char *path, struct err *e)
{
	AUTO_FREE char *here = *path == '/' ? NULL : getcwd(NULL, 0);
	AUTO_FREE char *at = *path == '/' ? xstrdup(path) : xasprintf("%s/%s", here ? here : "", path);
	size_t end = 0;
	int links = 0;

	if (!here && *path != '/')
		return err_sys(e, -errno, "the current folder");
	for (;;) {
		AUTO_FREE char *part = xstrndup(at, end ? end : 1);
		size_t next = end + strspn(at + end, "/");
		struct stat st;
		int r = check_part(path, part, !at[next], &st, e);

		if (r < 0)
			return r;
		if (S_ISLNK(st.st_mode)) {
			char *to = ++links > LINKS_MAX ? NULL : follow(part, at + end);

			if (!to)
				return err_set(e, -ELOOP, "'%s': a link that leads nowhere, or too many of them", path);
			free(at);
			at = to;
			end = 0;
			continue;
		}
		if (!at[next])
			return 0;
		end = next + strcspn(at + next, "/");
	}
}
