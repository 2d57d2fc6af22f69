/* SPDX-License-Identifier: GPL-2.0-or-later */
/* image.h - installed disk images, and the disks that are made on them.
 *
 * How it works: $GPUVM_STATEDIR/images has for each image one NAME.json and the file that it names, NAME@DIGEST12.qcow2 (or .raw): read-only,
 * checked with qemu-img, its SHA-256 recorded.  An upgrade writes another file and then replaces NAME.json; overlays go on naming the file that they
 * were made on, so no disk of an existing VM changes.  A file that nothing uses any more goes with the next install or upgrade.
 * A disk of a VM is a qcow2 overlay in $GPUVM_STATEDIR/disks that names its base relative to itself ("../images/..."), with the base's format, so that nothing is ever
 * guessed from contents that a guest wrote.  images/.lock is held while an image is looked up and an overlay made on it, and while one is removed: neither
 * can happen in the middle of the other.  Writes go to a temporary name, are synced and renamed: after a crash there is the old or the new, and
 * leftovers of a killed install (.NAME.XXXXXX) are removed by the next one.
 * All that qemu-img is asked runs with limits on CPU time and memory: an image may be made to exhaust it. */
#ifndef GPUVM_IMAGE_H
#define GPUVM_IMAGE_H

#include <stdint.h>
#include <sys/types.h>

#include "gpuvm/config.h"
#include "gpuvm/err.h"
#include "gpuvm/strv.h"

/* What qemu-img says of a file. */
struct disk_info {
	char *format;          /* "qcow2", "raw", ... */
	uint64_t virtual_bytes;
	uint64_t actual_bytes; /* on the disk */
	char *backing;         /* as the header names it, NULL: none */
	char *backing_format;
	char *data_file;       /* external data file, NULL: none */
	bool encrypted, dirty, corrupt;
};
void disk_info_clear(struct disk_info *d);
/* @format NULL: detect; only for files that no guest has written, and refused while a VM has the file open for writing.
 * -ENOENT, -EINVAL (not an image), -ETIMEDOUT, ... */
int disk_info_read(const char *path, const char *format, struct disk_info *ret, struct err *e);
/* From what `qemu-img info --output=json` prints. Pure. */
int disk_info_parse(const char *text, struct disk_info *ret, struct err *e);
/* Errors that `qemu-img check --output=json` has counted. Pure. */
uint64_t disk_check_parse(const char *text);

struct image {
	char *name, *format, *sha256; /* sha256: of the whole file, 64 hex digits */
	char *file;                   /* absolute */
	char *source;                 /* path that it was installed from */
	uint64_t bytes, virtual_bytes;
	int64_t installed;            /* unix time */
	struct strv used_by;          /* image_list(): disks and definitions that need this file or an older one of this name; absolute paths */
	struct strv older;            /* files of this name that only older disks need */
};
/* Letters, digits and "-_.", not beginning with "." or "-", at most VM_NAME_MAX. */
bool image_name_ok(const char *name);
bool image_sha256_ok(const char *hex); /* 64 hexadecimal digits */
/* The base name of @path without .qcow2, .img or .raw; owned. NULL: that is no name. */
char *image_name_from_file(const char *path);
/* "NAME@DIGEST12.qcow2"; owned. And is @file such a name of an image @name, old or new? */
char *image_file_name(const char *name, const char *sha256, const char *format);
bool image_file_is_of(const char *file, const char *name);

void image_clear(struct image *i);
void images_free(struct image *v, size_t n);

/* Take the images' lock (created if needed, with its folder): fd to be closed, or -Exxx. */
int image_lock(const char *statedir, struct err *e);

/* Who may need an image beside the disks in $statedir/disks. */
struct image_users {
	const char *confdir;     /* its definitions (*.ini); NULL: none */
	struct strv definitions; /* others: those that VMs were started from */
	struct image_process {
		char *who; /* absolute path to name it by */
		pid_t pid; /* a QEMU: what it has open */
	} *processes;
	size_t n_processes;
	struct strv unknown;     /* what the caller could not judge, and why */
};
void image_users_clear(struct image_users *u);

/* All images, sorted by name; owned array. A damaged NAME.json is an error that names it. @ret_unknown: what could not be judged, and why: a
 * definition that cannot be read, a damaged disk; each may use any image. */
int image_list(const char *statedir, const struct image_users *u, struct image **ret, size_t *ret_n, struct strv *ret_unknown, struct err *e);

/* One image, without used_by. -ENOENT says what may have been meant, and where all are shown. */
int image_find(const char *statedir, const char *name, struct image *ret, struct err *e);

struct image_install {
	const char *file;     /* qcow2 or raw */
	const char *name;     /* NULL: image_name_from_file() */
	const char *sha256;   /* expected, or NULL */
	bool upgrade;         /* the name must be there already (-ENOENT); else it must not: -EEXIST */
};
/* Copy, check, record. Takes the lock by itself, not for as long as it copies. On failure nothing is left; SIGINT, SIGTERM and SIGHUP are one (-EINTR).
 * Progress goes to a terminal. 1: an upgrade to what is installed already; nothing was changed. */
int image_install(const char *statedir, const struct image_users *u, const struct image_install *o, struct image *ret, struct err *e);

/* -EBUSY names what uses it, or may: see image_list(). */
int image_remove(const char *statedir, const struct image_users *u, const char *name, struct err *e);

/* --- pure: what may be an image --------------------------------------------------------------------------------------- */

#define IMAGE_HEAD 512 /* bytes at the beginning of a file that image_judge() looks at */

/* Can a file that begins with @head (@len bytes, fewer than IMAGE_HEAD only if it ends there) be an image, before qemu-img has seen it? Archives and formats
 * that consist of several files cannot: -EINVAL, with the command that makes one of it. @path is for the message. */
int image_judge_head(const char *path, const void *head, size_t len, struct err *e);
/* And after: one file, qcow2 or raw, sound and complete in itself. @bytes: its size. */
int image_judge(const char *path, const struct disk_info *d, uint64_t bytes, struct err *e);
/* Has it the signature of a boot sector? What has none is hardly a disk. */
bool image_head_boots(const void *head, size_t len);

/* --- pure: what a qcow2 file is made on ------------------------------------------------------------------------------- */

#define QCOW2_HEAD 65536 /* bytes at its beginning; QEMU writes the name into the first few hundred */

bool qcow2_is(const void *head, size_t len);
/* The backing file as the header names it, and its format; owned. NULL: it has none; a format that is not said is QEMU's to find out. @len is less than QCOW2_HEAD
 * only if the file ends there. -EINVAL: damaged, or no qcow2 file. */
int qcow2_backing(const void *head, size_t len, char **ret_name, char **ret_format, struct err *e);
/* Where QEMU looks for it when it has opened @file; owned. NULL: it is no path ("json:{...}", "nbd://..."). */
char *qcow2_backing_path(const char *file, const char *name);

/* --- disks ------------------------------------------------------------------------------------------------------------ */

/* A new disk at @path (in $statedir/disks, created 0711 if needed): an overlay on @base, or an empty one if NULL. @bytes 0: as large as the base.
 * -EEXIST if there is a file; -EINVAL if it would be smaller than the base. Atomic; 0600. */
int disk_create(const char *path, const struct image *base, uint64_t bytes, struct err *e);

/* To read, with @flags beside it, a file or a block device, which is what QEMU has for disks: fd, or -Exxx. Others are not even opened (-EINVAL), which may be more than
 * a look (a watchdog, a tape, a FIFO): a header, which is a tenant's, may have named them. */
int disk_open(const char *path, int flags);

/* Has a QEMU the disk @fd open in a way that keeps another from opening it (@writes: for writing, too)? By its locks on the file, of whatever host. */
bool disk_is_locked(int fd, bool writes);
/* QEMUs and their tools on this host that have it open, as far as one may look; owned. */
size_t disk_openers(int fd, int **ret_pids);

/* The files that @file, a disk of format qcow2, is made on, nearest first, as QEMU finds them: until one that is not said to be qcow2 - in a raw one a guest may have
 * written a header - or is no path. -ENOENT and others name the file that cannot be read. */
int disk_chain(const char *file, struct strv *ret, struct err *e);

/* Who else needs one of a VM's files @own, its disks among them: disks made on one of its, definitions, processes. The files themselves do not
 * count. @ret_unknown: as image_list(), but for what is wrong with @own. */
void disk_users(const char *statedir, const struct image_users *u, const struct strv *own, struct strv *ret, struct strv *ret_unknown);

#endif
