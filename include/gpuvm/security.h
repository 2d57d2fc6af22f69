/* SPDX-License-Identifier: GPL-2.0-or-later */
/* security.h - what of a running QEMU's confinement is in force: read from the kernel, not from what was asked for.
 *
 * security_read() (host) takes the facts from /proc, security_judge() (pure) says which of them leave QEMU more than it needs.  Linux: proc(5), capabilities(7). */
#ifndef GPUVM_SECURITY_H
#define GPUVM_SECURITY_H

#include <stdio.h>
#include <sys/types.h>

#include "gpuvm/err.h"
#include "gpuvm/strv.h"

struct json_object;

struct security_facts {
	pid_t pid;
	unsigned int uids[4], gids[4];	/* real, effective, saved, file system */
	char *groups;			/* supplementary ones, as the kernel writes them */
	uint64_t caps[5];		/* inheritable, permitted, effective, bounding, ambient */
	bool no_new_privs;
	int seccomp;			/* 0: none, 1: strict, 2: filter; -1: not known */
	char *memlock, *core, *files;	/* hard limits, as the kernel writes them */
	char *cgroup;			/* of the unified hierarchy; NULL: none */
	struct strv limits;		/* "memory.max 12345" of it */
	int devices;			/* 1: the cgroup has a program that limits them, 0: none, -1: not known */
	struct strv nodes;		/* device nodes that it has open */
	unsigned int rundir_mode, rundir_uid, rundir_gid;
};

struct security_row {
	const char *what;
	char *value;
	const char *why; /* NULL: as it should be; else what is wrong with it */
};

struct security_report {
	struct security_row *v;
	size_t n;
};

/* -ESRCH if the process is gone, -EACCES if it is not ours to look at. */
int security_read(pid_t pid, const char *rundir, struct security_facts *ret, struct err *e);
void security_facts_clear(struct security_facts *f);

void security_judge(const struct security_facts *f, struct security_report *ret);
void security_report_clear(struct security_report *r);
void security_print(const struct security_report *r, FILE *out);
/* [{"what", "value", "ok", "why"}] */
struct json_object *security_to_json(const struct security_report *r);

#endif
