/* SPDX-License-Identifier: GPL-2.0-or-later */
/* programs.h - the two programs as a user runs them, with a real QEMU (TCG, no devices).
 *
 * Each test has a run-time folder of its own ($R). Commands are given to a shell with $L and $G as the programs, and have a minute. */
#ifndef TEST_PROGRAMS_H
#define TEST_PROGRAMS_H

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gpuvm/cleanup.h"
#include "gpuvm/parse.h"

struct place {
	char root[64];
	char *out; /* stdout and stderr of the last command */
};

static inline const char *build_dir(void)
{
	const char *dir = getenv("GPUVM_BUILD");

	return dir ? dir : "build";
}

static inline struct place place_new(void)
{
	struct place p = { .root = "/tmp/gpuvm-test-XXXXXX" };

	cr_assert(mkdtemp(p.root));
	/* As /run/gpuvm: QEMU's user goes through it. */
	cr_assert(chmod(p.root, 0755) == 0);
	setenv("R", p.root, 1);
	setenv("GPUVM_RUNDIR", p.root, 1);
	setenv("GPUVM_STATEDIR", p.root, 1);
	setenv("GPUVM_CONFDIR", strcat(strcpy((char[96]){ 0 }, p.root), "/conf"), 1);
	/* A leak in a program is found by its own sanitizer; QEMU is not ours to check. */
	return p;
}

/* Run @cmd; returns its exit code. What it printed is in p->out. */
static inline int sh(struct place *p, const char *cmd)
{
	AUTO_FREE char *file = xasprintf("%s/out", p->root), *script = xasprintf("%s/cmd", p->root);
	AUTO_FREE char *text = xasprintf("L='%s/gpuvm-launch' G='%s/gpuvm'; %s\n", build_dir(), build_dir(), cmd);
	/* A loop in a command must not outlive a test that has failed. */
	AUTO_FREE char *line = xasprintf("exec >'%s' 2>&1; exec timeout -k 5 60 sh '%s'", file, script);
	int status;

	cr_assert(write_file_atomic(script, text, strlen(text), 0600) == 0);
	status = system(line);

	free(STEAL_PTR(p->out));
	cr_assert(read_text_file(file, 1 << 20, &p->out) == 0);
	cr_assert(WIFEXITED(status), "%s: status %x\n%s", cmd, (unsigned int)status, p->out);
	return WEXITSTATUS(status);
}

#define EXPECT_SH(p, want, cmd)                                                                        \
	do {                                                                                           \
		int got_ = sh((p), (cmd));                                                             \
		cr_expect(got_ == (want), "%s: exit %d, expected %d\n%s", (cmd), got_, (want), (p)->out); \
	} while (0)
#define EXPECT_SAYS(p, text) cr_expect(strstr((p)->out, (text)), "'%s' is not in:\n%s", (text), (p)->out)

static inline void place_end(struct place *p)
{
	/* Nothing of this test may be left: neither a process nor a claim. */
	EXPECT_SH(p, 1, "ps -C qemu-system-x86 -o args= | grep -F \"$R/\"");
	EXPECT_SH(p, 1, "ls $R/*/claim.json 2>/dev/null | grep .");
	sh(p, "rm -rf $R/demo $R/vars $R/qemu $R/*.ini $R/lock");
	free(p->out);
	p->out = NULL;
	unlink(strcat(strcpy((char[96]){ 0 }, p->root), "/out"));
	unlink(strcat(strcpy((char[96]){ 0 }, p->root), "/cmd"));
	rmdir(p->root);
}

#define DEMO "--set vm.accel=tcg --set lifecycle.stop-timeout=500ms conf/demo.ini"

#endif
