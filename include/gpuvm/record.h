/* SPDX-License-Identifier: GPL-2.0-or-later */
/* record.h - what `gpuvm create` has made for a VM, so that a create that was killed can be undone and a delete knows what to remove.
 *
 * How it works: STATEDIR/vms/NAME.json (schema 1) lists the files before the first of them is made, with state "creating".  Each file is made under a
 * temporary name (".NAME.ini.new"), its inode and time of birth are written into the record, and only then it gets its own name,
 * which replaces nothing.  So record_undo() can tell at any point what is of the interrupted create: everything with a temporary
 * name, and of the others the very files that the record describes.  State "ready" is written last.
 * All files of a VM are at places that follow from its name: a record that says anything else is damaged.
 * The lock of the images (image_lock) is held from the first look at these files to "ready", and while they are removed. */
#ifndef GPUVM_RECORD_H
#define GPUVM_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/err.h"
#include "gpuvm/strv.h"

#define RECORD_SCHEMA 1

enum record_what {
	RECORD_OS_DISK,
	RECORD_DATA_DISK,
	RECORD_USER_DATA,
	RECORD_DEFINITION,
	RECORD_FILES, /* these are in the record; the rest comes with running, and goes with the VM */
	RECORD_VARS = RECORD_FILES, /* UEFI variables */
	RECORD_TPM,   /* a folder */
	RECORD_RUN,   /* a folder: logs of the last run */
	RECORD_ALL,
};

struct record {
	char *vm;
	bool ready;      /* else a create is at work, or was killed */
	int64_t created; /* unix time */
	struct record_file {
		bool listed;
		uint64_t inode;  /* 0: not made yet */
		int64_t born_us; /* where the file system knows it, else 0 */
	} files[RECORD_FILES];
};
void record_clear(struct record *r);

/* Where it is, absolute; owned. */
char *record_path(const char *vm, enum record_what what);
/* The name under which it is made. */
char *record_temp_path(const char *vm, enum record_what what);
/* "OS disk" */
const char *record_word(enum record_what what);

/* -ENOENT: there is none; -EBADMSG: it is damaged, @e names the file. */
int record_read(const char *vm, struct record *ret, struct err *e);
/* Atomic and durable; makes the folder. */
int record_write(const struct record *r, struct err *e);
/* Names of VMs that have one, sorted. */
int record_list(struct strv *ret, struct err *e);
/* Paths of all definitions in the folder of definitions, made by create or not; absolute, sorted. */
int record_list_definitions(struct strv *ret, struct err *e);

/* What is at the temporary path gets its own: -EEXIST if there is something. */
int record_publish(struct record *r, enum record_what what, struct err *e);

/* Remove what a create that did not come to its end has made, and its record. What is not its own is left, with a warning. */
int record_undo(const struct record *r, struct err *e);

/* Is there anything? Symlinks are not followed. -Exxx if it cannot be seen. */
int record_exists(const char *vm, enum record_what what, bool *ret, struct err *e);
/* Remove one thing of the VM, a folder with all that is in it; 0 if it is gone already. Symlinks are removed, not followed. Durable. */
int record_remove(const char *vm, enum record_what what, struct err *e);
/* The record itself: last. */
int record_forget(const char *vm, struct err *e);

#endif
