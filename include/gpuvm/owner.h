/* SPDX-License-Identifier: GPL-2.0-or-later */
/* owner.h - files and device nodes that belong to QEMU's user while its VM runs.
 *
 * Paths are resolved once (owner_look()), before that user has anything to say; from then on a symlink anywhere in one is an error, so that nothing
 * else can be put in a file's place.  While it is the user's, nobody but root shares a file: group and others have no access.  What has another owner
 * than we gave it is not ours to give back.  Of a folder its files go with it, but not what is in folders below. */
#ifndef GPUVM_OWNER_H
#define GPUVM_OWNER_H

#include "gpuvm/spawn.h"

struct owner {
	uid_t uid;
	gid_t gid;
	mode_t mode; /* permission bits */
};

/* The path without symlinks (owned), and whose it is now. */
int owner_look(const char *path, char **ret_path, struct owner *ret, struct err *e);

/* Give @path, as owner_look() gave it, to @uid. */
int owner_give(const char *path, uid_t uid, struct err *e);

/* As it was before, if it is still @uid's. 0 also if it is gone or somebody else's by now. Idempotent. */
int owner_take_back(const char *path, uid_t uid, const struct owner *was, struct err *e);

/* What a user needs of a path, and in @err, after owner_may(), why it does not have it: word "folder" or "file", and in msg which one. */
struct owner_wish {
	const char *path;
	int mode; /* R_OK, W_OK of access(2), or 0: only the way to it */
	const struct spawn_identity *id;
	struct err err;
};

/* Ask the kernel, as that user. Needs root. */
void owner_may(struct owner_wish *wishes, size_t n);

#endif
