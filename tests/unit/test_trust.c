/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What others could have written is not obeyed; what they have put in our way is not followed. */
#include <errno.h>
#include <sys/stat.h>

#include "gpuvm/claim.h"
#include "gpuvm/trust.h"
#include "programs.h"

#define STRANGER 54321

/* --- one path ----------------------------------------------------------------------------------------------- */

/* A command that changes $T/dir/sub/file (all root's, 0755 and 0644), and the component that is refused then ("": none). */
static const struct {
	const char *change, *path, *refused, *cure;
} paths[] = {
	{ ":", "dir/sub/file", "", "" },
	{ "chmod 666 dir/sub/file", "dir/sub/file", "dir/sub/file", "chmod go-w" },
	{ "chmod 664 dir/sub/file; chgrp 54321 dir/sub/file", "dir/sub/file", "dir/sub/file", "chmod go-w" },
	{ "chmod 664 dir/sub/file", "dir/sub/file", "", "" }, /* the group root */
	{ "chown 54321 dir/sub/file", "dir/sub/file", "dir/sub/file", "chown root" },
	{ "chmod 777 dir", "dir/sub/file", "dir", "chmod go-w" },
	{ "chmod 1777 dir", "dir/sub/file", "", "" }, /* as /tmp */
	{ "chmod 1777 dir; chown 54321 dir/sub", "dir/sub/file", "dir/sub", "chown root" },
	{ "chown 54321 dir", "dir/sub/file", "dir", "chown root" },
	{ "chmod 1777 dir/sub", "dir/sub", "dir/sub", "chmod go-w" }, /* what is made in it next may be in our way */
	{ "ln -s dir/sub/file link", "link", "", "" },
	{ "ln -s dir/sub/file link; chown -h 54321 link", "link", "link", "chown root" },
	{ "ln -s dir/sub/file link; chmod 777 dir/sub", "link", "dir/sub", "chmod go-w" },
	{ "ln -s $PWD/dir link; chmod 777 dir/sub", "link/sub/file", "dir/sub", "chmod go-w" },
	{ "ln -s dir/sub link", "link/../../dir//sub/./file", "", "" },
	{ "mkdir -m 777 open; ln -s ../dir/sub/file open/link", "open/link", "open", "chmod go-w" },
};

Test(trust, components, .timeout = 60)
{
	if (geteuid() != 0)
		cr_skip("files of others can only be made by root");
	unsetenv("SUDO_UID");
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		char dir[] = "/tmp/gpuvm-trust-XXXXXX";
		AUTO_FREE char *command = NULL, *path = NULL, *part = NULL, *cleanup = NULL;
		struct err e = { 0 };
		int r;

		cr_assert(mkdtemp(dir));
		command = xasprintf("umask 022; cd %s && mkdir -p dir/sub && echo x >dir/sub/file && { %s; }", dir, paths[i].change);
		cr_assert(system(command) == 0, "%s", command);
		path = xasprintf("%s/%s", dir, paths[i].path);
		part = xasprintf("'%s/%s' belongs to", dir, paths[i].refused);
		r = trust_check(path, &e);
		if (*paths[i].refused)
			cr_expect(r == -EPERM && strcmp(e.word, "file-not-trusted") == 0 && strstr(e.msg, part) && strstr(e.msg, paths[i].cure), "%s: %d %s",
				  paths[i].change, r, e.msg);
		else
			cr_expect(r == 0, "%s: %s", paths[i].change, e.msg);
		cleanup = xasprintf("rm -rf %s", dir);
		cr_assert(system(cleanup) == 0);
	}
}

Test(trust, neither_there_nor_endless)
{
	char dir[] = "/tmp/gpuvm-trust-XXXXXX";
	AUTO_FREE char *loop = NULL, *none = NULL;
	struct err e = { 0 };

	cr_assert(mkdtemp(dir));
	loop = xasprintf("%s/loop", dir);
	none = xasprintf("%s/none/file", dir);
	cr_assert(symlink("loop", loop) == 0);
	cr_expect(trust_check(loop, &e) == -ELOOP);
	cr_expect(trust_check(none, &e) == -ENOENT);
	cr_expect(trust_check("/", &e) == 0, "%s", e.msg);
	unlink(loop);
	rmdir(dir);
}

/* Who has become root with sudo could have been root anyway. */
Test(trust, sudo)
{
	char file[] = "/tmp/gpuvm-trust-XXXXXX";
	struct err e = { 0 };
	int fd = mkstemp(file);

	if (geteuid() != 0)
		cr_skip("files of others can only be made by root");
	cr_assert(fd >= 0 && fchown(fd, STRANGER, 0) == 0);
	setenv("SUDO_UID", "54321", 1);
	cr_expect(trust_check(file, &e) == 0, "%s", e.msg);
	setenv("SUDO_UID", "54322", 1);
	cr_expect(trust_check(file, &e) == -EPERM);
	unsetenv("SUDO_UID");
	cr_expect(trust_check(file, &e) == -EPERM);
	close(fd);
	unlink(file);
}

/* --- the programs ------------------------------------------------------------------------------------------- */

static void open_folder(struct place *p)
{
	if (geteuid() != 0)
		cr_skip("only root must not obey others");
	*p = place_new();
	EXPECT_SH(p, 0, "mkdir $R/open && cp conf/demo.ini $R/open/ && printf '#!/bin/sh\\n' >$R/open/hook && chmod 755 $R/open/hook && chmod 777 $R/open");
}

static void close_folder(struct place *p)
{
	EXPECT_SH(p, 0, "rm -r $R/open");
	place_end(p);
}

Test(trust, definition, .timeout = 120)
{
	struct place p;

	open_folder(&p);
	EXPECT_SH(&p, 3, "$L --set vm.accel=tcg $R/open/demo.ini");
	EXPECT_SAYS(&p, "could have been written by others");
	EXPECT_SAYS(&p, "mode 0777; chmod go-w");
	EXPECT_SH(&p, 3, "$L -d --set vm.accel=tcg $R/open/demo.ini");
	EXPECT_SH(&p, 1, "test -e $R/demo");
	/* To look at it is not to obey. */
	EXPECT_SH(&p, 0, "$G plan --set vm.accel=tcg $R/open/demo.ini && $L -n --set vm.accel=tcg $R/open/demo.ini");
	EXPECT_SH(&p, 3, "$L --set hooks.pre-bind=$R/open/hook " DEMO);
	EXPECT_SAYS(&p, "/open/hook' could have been written by others");
	EXPECT_SH(&p, 3, "$L --qemu $R/open/hook " DEMO);
	EXPECT_SAYS(&p, "/open/hook' could have been written by others");
	close_folder(&p);
}

Test(trust, run_folder, .timeout = 120)
{
	struct place p;

	open_folder(&p);
	EXPECT_SH(&p, 1, "GPUVM_RUNDIR=$R/open $L " DEMO);
	EXPECT_SAYS(&p, "chmod go-w");
	EXPECT_SH(&p, 1, "mkdir $R/theirs && chown 54321 $R/theirs && GPUVM_RUNDIR=$R/theirs $L " DEMO);
	EXPECT_SAYS(&p, "chown root");
	EXPECT_SH(&p, 1, "ln -s $R/open $R/link && GPUVM_RUNDIR=$R/link $L " DEMO);
	EXPECT_SH(&p, 1, "GPUVM_RUNDIR=relative $L " DEMO);
	EXPECT_SAYS(&p, "is not an absolute path");
	EXPECT_SH(&p, 1, "GPUVM_RUNDIR=\"$R/a\nb\" $L " DEMO);
	EXPECT_SAYS(&p, "control characters");
	EXPECT_SH(&p, 1, "ls -d relative $R/a*b $R/*/demo 2>/dev/null | grep .");
	EXPECT_SH(&p, 0, "rmdir $R/theirs; rm $R/link");
	close_folder(&p);
}

/* Links in the VM's folder that lead to a file of somebody's. */
Test(trust, planted_links, .timeout = 180)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "mkdir -m 700 $R/demo; echo precious >$R/precious; for f in serial.log qemu.log launch.log.1 "
			 "plan.json command; do ln -s $R/precious $R/demo/$f; done");
	EXPECT_SH(&p, 0, "$L -d " DEMO " && $G status demo && $G stop demo");
	EXPECT_SH(&p, 0, "test \"$(cat $R/precious)\" = precious && ! find $R/demo -type l | grep .");
	/* What is in the way of a socket is not removed, unless it is one. */
	for (const char *const *sock = (const char *const[]){ "control", "qmp", "serial", "agent", NULL }; *sock; sock++) {
		AUTO_FREE char *plant = xasprintf("ln -sf $R/precious $R/demo/%s.sock", *sock), *away = xasprintf("rm -f $R/demo/%s.sock", *sock);

		EXPECT_SH(&p, 0, plant);
		EXPECT_SH(&p, 1, "$L " DEMO);
		EXPECT_SAYS(&p, "there is a file of that name");
		EXPECT_SH(&p, 0, away);
	}
	/* What cannot be put out of the way is not followed. */
	EXPECT_SH(&p, 0, "ln -sf $R/precious $R/demo/events.jsonl; ln -sf $R/none $R/demo/launch.log");
	EXPECT_SH(&p, 0, "$L -d " DEMO " && $G stop demo");
	EXPECT_SH(&p, 0, "test \"$(cat $R/precious)\" = precious && ! test -e $R/none");
	EXPECT_SH(&p, 0, "rm -r $R/demo; mkdir -m 700 $R/demo; echo '{}' >$R/claim; ln -s $R/claim $R/demo/claim.json");
	EXPECT_SH(&p, 1, "$L " DEMO);
	EXPECT_SAYS(&p, "demo/claim.json");
	EXPECT_SH(&p, 0, "rm -r $R/demo $R/claim; mkfifo $R/fifo; mkdir -m 700 $R/demo; mkfifo $R/demo/claim.json");
	EXPECT_SH(&p, 1, "$L " DEMO);
	EXPECT_SH(&p, 0, "rm -r $R/demo $R/precious $R/fifo");
	place_end(&p);
}

Test(trust, names, .timeout = 120)
{
	static const struct {
		const char *word;
		int code; /* of a VM that is not there */
	} verbs[] = { { "status", 1 }, { "log", 1 }, { "wait", 1 }, { "verify", 1 }, { "pause", 1 }, { "stop", 0 }, { "kill", 0 }, { "recover", 0 } };
	struct place p = place_new();

	EXPECT_SH(&p, 3, "$L --set vm.name=../../x " DEMO);
	EXPECT_SH(&p, 3, "$L --set vm.name=.. " DEMO);
	EXPECT_SH(&p, 3, "$L --set vm.name=a/b " DEMO);
	EXPECT_SH(&p, 3, "$L --set vm.name=$(printf %0300d 0) " DEMO);
	EXPECT_SH(&p, 3, "cp conf/demo.ini $R/...ini; sed -i '/^name/d' $R/...ini; $L --set vm.accel=tcg $R/...ini");
	EXPECT_SH(&p, 2, "$G create ../../x");
	EXPECT_SH(&p, 2, "$G delete ../../x");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		AUTO_FREE char *up = xasprintf("$G %s ../../x", verbs[i].word), *dots = xasprintf("$G %s ..", verbs[i].word);
		AUTO_FREE char *many = xasprintf("$G %s $(printf %%0100000d 0)", verbs[i].word);

		EXPECT_SH(&p, verbs[i].code, up);
		EXPECT_SH(&p, verbs[i].code, dots);
		EXPECT_SH(&p, 1, many);
	}
	EXPECT_SH(&p, 1, "$G log missing$(printf '\\033')[2J");
	cr_expect(!strchr(p.out, '\033'), "an escape sequence: %s", p.out);
	EXPECT_SH(&p, 0, "rm $R/...ini");
	place_end(&p);
}

/* A claim that was changed by hand, or by a bug: nothing is done by it. */
Test(trust, claims_that_lead_elsewhere, .timeout = 120)
{
	static const char *const changes[] = { ".vm = \"../x\"", ".vm = \"other\"", ".launcher_pid = 4294967297", ".qemu_pid = -1", ".partition = -2",
					       ".devices = [{id: \"g\", bdf: \"0000:17:00.0\", from: \"../../../tmp/x\", override: null, to: \"vfio-pci\"}]",
					       ".devices = [{id: \"g\", bdf: \"0000:17:00.0\", from: null, override: null, to: \"..\"}]",
					       ".helpers = [{name: \"x\", pid: 4294967297, start: 1}]" };
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO " && cp $R/demo/claim.json $R/whole && $G stop demo");
	EXPECT_SH(&p, 0, "cp $R/whole $R/demo/claim.json && $G recover demo");
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		AUTO_FREE char *change = xasprintf("jq '%s' $R/whole >$R/demo/claim.json", changes[i]);

		EXPECT_SH(&p, 0, change);
		EXPECT_SH(&p, 1, "$G recover demo");
		EXPECT_SAYS(&p, "is damaged");
	}
	EXPECT_SH(&p, 0, "rm $R/demo/claim.json $R/whole");
	place_end(&p);
}
