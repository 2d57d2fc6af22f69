/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A host that has not enough of something: room in /run, files, processes. A VM that cannot be started leaves nothing; one that runs is not disturbed.
 *
 * Each is tried from nothing at all to more than enough, so that it runs out at every step of a start. */
#include <errno.h>
#include <pwd.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "tests/unit/programs.h"

/* QEMU's own exit takes a while for init to see: a zombie is none. */
#define NO_QEMU	  "! ps -C qemu-system-x86 -o stat=,args= | grep -F \"$R/\" | grep -v ^Z"
#define NO_REMAIN "! find $R/run/demo -name '*.sock' -o -name claim.json -o -name '.*' 2>/dev/null | grep ."
#define LAUNCHER_GONE "case $(ps -o stat= -p $(cat $R/pid.ini)) in '' | Z*) ;; *) false ;; esac"
#define QUIET	  "--set vm.accel=tcg --set lifecycle.stop-timeout=100ms conf/demo.ini"

static struct place limits_new(void)
{
	struct place p = place_new();
	AUTO_FREE char *run = xasprintf("%s/run", p.root);

	cr_assert(mkdir(run, 0755) == 0 && setenv("GPUVM_RUNDIR", run, 1) == 0);
	/* QEMU is asked what it can do only once: its answers are in the state folder. */
	EXPECT_SH(&p, 0, "$L -d " QUIET " && $G kill demo && rm -rf $R/run/demo $R/run/lock");
	return p;
}

static void limits_end(struct place *p)
{
	EXPECT_SH(p, 0, NO_QEMU);
	sh(p, "rm -rf $R/run $R/vars $R/qemu");
	place_end(p);
}

/* /run is a tmpfs of @kib. False: not for us. */
static bool mount_run(const struct place *p, int kib)
{
	AUTO_FREE char *run = xasprintf("%s/run", p->root), *size = xasprintf("size=%dk,mode=0755", kib);

	return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("tmpfs", run, "tmpfs", 0, size) == 0;
}

static void unmount_run(struct place *p)
{
	AUTO_FREE char *run = xasprintf("%s/run", p->root);

	EXPECT_SH(p, 0, NO_QEMU);
	cr_assert(umount(run) == 0, "%s", strerror(errno));
}

/* Started, or refused with the reason and nothing left. */
static bool start_with_room(struct place *p, int kib)
{
	int r = sh(p, "$L -d " QUIET);

	if (r == 0) {
		EXPECT_SH(p, 0, "$G verify demo && $G stop demo && $G wait demo");
	} else {
		cr_expect(r == 1 || r == 4, "%d KiB: exit %d\n%s", kib, r, p->out);
		EXPECT_SAYS(p, "No space left on device");
	}
	cr_expect(sh(p, NO_QEMU " && " NO_REMAIN) == 0, "%d KiB: something is left:\n%s", kib, p->out);
	return r == 0;
}

Test(limits, run_is_too_small, .timeout = 300)
{
	struct place p = limits_new();
	int kib = 4, refused = 0;
	bool starts;

	do {
		if (!mount_run(&p, kib))
			cr_skip("needs root, and mount namespaces");
		starts = start_with_room(&p, kib);
		refused += !starts;
		unmount_run(&p);
		kib += 4;
	} while (!starts && kib < 1024);
	cr_expect(starts && refused > 2, "%d refused, until %d KiB", refused, kib);
	limits_end(&p);
}

/* Its state cannot be written down any more: the VM goes on, and ends as any other. */
Test(limits, run_becomes_full, .timeout = 120)
{
	struct place p = limits_new();

	if (!mount_run(&p, 256))
		cr_skip("needs root, and mount namespaces");
	EXPECT_SH(&p, 0, "$L -d " QUIET " && ! dd if=/dev/zero of=$R/run/fill bs=1k 2>/dev/null && $G pause demo && $G resume demo && $G verify demo");
	EXPECT_SH(&p, 0, "jq .launcher_pid $R/run/demo/claim.json >$R/pid.ini; $G stop demo && " LAUNCHER_GONE);
	EXPECT_SH(&p, 0, NO_QEMU " && " NO_REMAIN);
	EXPECT_SH(&p, 0, "$G wait demo && $G status demo --json | jq -e '.state == \"stopped\" and .exit_code == 0'");
	EXPECT_SH(&p, 0, "rm $R/run/fill && $L -d " QUIET " && $G kill demo");
	unmount_run(&p);
	limits_end(&p);
}

/* Then not even the claim can be removed: that is said, and the VM's name is free again when somebody has cured it. */
Test(limits, run_becomes_read_only, .timeout = 120)
{
	struct place p = limits_new();

	/* A file system with files that are being written does not become read-only; a second mount of it does. */
	if (!mount_run(&p, 1024))
		cr_skip("needs root, and mount namespaces");
	EXPECT_SH(&p, 0, "$L -d " QUIET " && jq .launcher_pid $R/run/demo/claim.json >$R/pid.ini");
	EXPECT_SH(&p, 0, "mount --bind $R/run $R/run && mount -o remount,bind,ro $R/run && $G verify demo");
	EXPECT_SH(&p, 1, "$G stop demo");
	EXPECT_SAYS(&p, "`gpuvm recover demo`");
	EXPECT_SH(&p, 0, NO_QEMU " && " LAUNCHER_GONE " && grep 'claim.json.: Read-only file system' $R/run/demo/launch.log");
	EXPECT_SH(&p, 1, "$L -d " QUIET);
	EXPECT_SAYS(&p, "Read-only file system");
	EXPECT_SH(&p, 0, "umount $R/run && $G recover && " NO_REMAIN " && $L -d " QUIET " && $G kill demo");
	unmount_run(&p);
	limits_end(&p);
}

/* Started, or not and nothing is left: with @limit (of prlimit) from @from on, until it starts. Returns how often it did not. */
static int climb(struct place *p, const char *as, const char *limit, int from)
{
	int refused = 0;

	for (int n = from; refused < 200; n++) {
		AUTO_FREE char *cmd = xasprintf("%s prlimit %s=%d $L -d " QUIET, as, limit, n);
		int r = sh(p, cmd);

		cr_expect(r == 0 || r == 1 || r == 4 || r == 127, "%s: exit %d\n%s", cmd, r, p->out);
		if (r == 0) {
			EXPECT_SH(p, 0, "$G verify demo && $G kill demo");
		}
		cr_expect(sh(p, NO_QEMU " && " NO_REMAIN) == 0, "%s: something is left:\n%s", cmd, p->out);
		if (r == 0)
			return refused;
		refused++;
	}
	cr_assert_fail("%s: it never starts:\n%s", limit, p->out);
	return refused;
}

Test(limits, few_files, .timeout = 300)
{
	struct place p = limits_new();

	cr_expect(climb(&p, "", "--nofile", 4) > 5);
	limits_end(&p);
}

/* Root has no such limit: as nobody, who may have other processes, so the way up is long enough to pass them. */
Test(limits, few_processes, .timeout = 300)
{
	/* LeakSanitizer wants a process of its own. */
	static const char as[] = "env ASAN_OPTIONS=detect_leaks=0 setpriv --reuid=nobody --regid=nogroup --clear-groups";
	struct place p = limits_new();
	struct passwd *nobody = getpwnam("nobody");
	AUTO_FREE char *run = xasprintf("%s/run", p.root), *may = xasprintf("%s test -x $L -a -r conf/demo.ini", as);

	if (geteuid() != 0 || !nobody || sh(&p, may) != 0) {
		limits_end(&p);
		cr_skip("needs root, and a build folder that others can read");
	}
	cr_assert(chown(p.root, nobody->pw_uid, nobody->pw_gid) == 0 && chown(run, nobody->pw_uid, nobody->pw_gid) == 0);
	EXPECT_SH(&p, 0, "rm -rf $R/vars; chown -R nobody $R/qemu");
	cr_expect(climb(&p, as, "--nproc", 1) > 2);
	limits_end(&p);
}
