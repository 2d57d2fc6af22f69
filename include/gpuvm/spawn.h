/* SPDX-License-Identifier: GPL-2.0-or-later */
/* spawn.h - start a program with everything set before exec, and know for sure whether exec worked.
 *
 * The child waits on a pipe until the parent lets it go, so that the parent can put its pid into the claim first.
 * The error of a failed exec comes back through a close-on-exec pipe. */
#ifndef GPUVM_SPAWN_H
#define GPUVM_SPAWN_H

#include <sys/types.h>

#include "gpuvm/cpuset.h"
#include "gpuvm/err.h"
#include "gpuvm/strv.h"

/* Whom a child becomes, for good: no capability is left, and none can be had by exec (PR_SET_NO_NEW_PRIVS). uid 0 keeps its capabilities. */
struct spawn_identity {
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary ones */
	size_t n_groups;
};

struct spawn_options {
	const struct strv *argv;   /* argv[0] is the path */
	const struct strv *env;    /* "K=V" added to a minimal environment (PATH, LANG=C), may be NULL */
	int stderr_fd;             /* stdout and stderr of the child; -1: inherit */
	bool inherit_stdin;        /* else /dev/null */
	const char *cwd;           /* working folder; NULL: ours */
	const int *keep_fds;       /* stay open in the child under the same numbers; -1 is skipped */
	size_t n_keep_fds;
	const struct cpuset *cpus; /* affinity before exec; NULL: inherit */
	const struct cpuset *mem_nodes; /* preferred NUMA nodes for its own memory (libnuma); NULL: default policy */
	uint64_t memlock_bytes;    /* RLIMIT_MEMLOCK; 0: leave, UINT64_MAX: no limit */
	bool memlock_exact;        /* lower it, too; else an administrator's higher one stays */
	uint64_t address_bytes;    /* RLIMIT_AS; 0: leave */
	unsigned int cpu_s;        /* RLIMIT_CPU; 0: leave */
	bool die_with_parent;      /* PR_SET_PDEATHSIG SIGKILL */
	const struct spawn_identity *identity; /* the last thing before exec; NULL: stays as it is */
};

struct spawn {
	pid_t pid;
	int pidfd;
	int go_fd;   /* private: the gate */
	int exec_fd; /* private: the exec error */
};

/* Fork; the child prepares itself and waits at the gate. */
int spawn_prepare(const struct spawn_options *o, struct spawn *ret, struct err *e);

/* Open the gate; returns when exec has happened, or the error why not (the child is then reaped). */
int spawn_go(struct spawn *s, struct err *e);

/* Kill (SIGKILL) and reap if still there; close the fds. Safe on a zeroed struct. 0, or -ETIMEDOUT: it does not end, as the kernel has it. */
int spawn_abort(struct spawn *s);

/* Kill (SIGKILL) a process that another launcher has started, known by its start time (process_start_time()), and wait for its end.
 * 0 also if it is gone, or another one has its pid by now. */
int spawn_kill(pid_t pid, uint64_t start, struct err *e);

/* In a child: become @id, leave no core file (RLIMIT_CORE) and make files that are nobody else's (umask). */
int spawn_become(const struct spawn_identity *id, struct err *e);

/* In a child: close every fd above 2 but the @n in @keep (any order, -1 is skipped). */
void spawn_close_fds(const int *keep, size_t n);

/* @name through $PATH, as execvp() would find it; a name with a "/" is itself. Owned; NULL if it is nowhere. */
char *spawn_find_program(const char *name);

/* Exit status in words: "exit code 1", "killed by signal 11 (Segmentation fault), core dumped". */
const char *spawn_status_text(int wait_status, char buf[96]);

#endif
