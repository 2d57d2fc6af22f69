/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whom QEMU runs as, and what is its own meanwhile: with a real QEMU, as root. */
#include <errno.h>
#include <json-c/json.h>
#include <unistd.h>

#include "gpuvm/owner.h"
#include "gpuvm/security.h"
#include "gpuvm/user.h"
#include "programs.h"

/* $R/d.qcow2 is a disk of root's that others may read, $R/vm.ini the definition. */
#define VM	 "--set disk.os.file=$R/d.qcow2 --set disk.os.format=qcow2 --set vm.accel=tcg --set lifecycle.stop-timeout=500ms "
#define START	 "$L -d " VM "$R/vm.ini"
#define MADE	 "qemu-img create -q -f qcow2 $R/d.qcow2 64M && chmod 640 $R/d.qcow2 && cp conf/demo.ini $R/vm.ini"
#define OWNERS	 "stat -c '%n %u:%g %a' $R/d.qcow2 $R/tpm/demo $R/tpm/demo/* $R/vars/* $R/demo/serial.log"
#define KEY(key) "$(jq " key " $R/demo/claim.json)"
/* Somebody who is neither root nor this VM's user. */
#define OTHER	 "setpriv --reuid 2013265921 --regid 2013265921 --clear-groups "

static struct place place_root(void)
{
	struct place p;

	if (geteuid() != 0)
		cr_skip("only root can change to another user");
	p = place_new();
	EXPECT_SH(&p, 0, MADE);
	return p;
}

static void end(struct place *p)
{
	sh(p, "rm -rf $R/tpm $R/d.qcow2 $R/other.qcow2 $R/real $R/link $R/closed");
	place_end(p);
}

/* Nothing of the VM's user is left anywhere. */
#define AS_BEFORE "[ \"$(stat -c '%u:%g %a' $R/d.qcow2)\" = '0:0 640' ] && [ -z \"$(find $R ! -user 0 -o ! -group 0)\" ]"

/* --- numbers ------------------------------------------------------------------------------------------------------ */

Test(user, a_number_for_each_name)
{
	unsigned int a = user_of_vm("half0", 0);

	cr_expect(a == user_of_vm("half0", 0));
	cr_expect(a != user_of_vm("half1", 0));
	cr_expect(a != user_of_vm("half0", 1));
	for (unsigned int i = 0; i < 1000; i++) {
		AUTO_FREE char *name = xasprintf("vm%u", i);

		cr_expect(user_is_of_vm(user_of_vm(name, i)));
	}
	/* root, nobody, DynamicUser=, SSSD, systemd's foreign images, none */
	for (size_t i = 0; i < 6; i++)
		cr_expect(!user_is_of_vm((unsigned int[]){ 0, 65534, 65519, 2000200000, 0x7ffe0000, ~0U }[i]));
	cr_expect(user_is_of_vm(USER_FIRST) && user_is_of_vm(USER_FIRST + USER_COUNT - 1));
}

/* --- a life --------------------------------------------------------------------------------------------------------- */

Test(own, a_life, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, START);
	EXPECT_SH(&p, 0, "u=" KEY(".user") "; [ $u -ge 2013265920 ] && q=/proc/" KEY(".qemu_pid") "/status && grep -P \"^Uid:\\t$u\\t$u\\t$u\\t$u\" $q && "
			 "grep -P \"^Gid:\\t$u\\t$u\\t$u\\t$u\" $q && [ $(grep -c 'Cap...:.0000000000000000$' $q) = 5 ] && grep -P '^NoNewPrivs:\\t1' $q && "
			 "grep -P '^Seccomp:\\t2' $q && grep -P '^Groups:\\t *$' $q");
	EXPECT_SH(&p, 0, "[ \"$(stat -c '%u %a' $R/d.qcow2)\" = \"" KEY(".user") " 600\" ] && [ \"$(stat -c '%u:%g %a' $R/demo)\" = \"0:" KEY(".user") " 710\" ]");
	/* The guest's disk can be written: QEMU has it open so. Nobody else can. */
	EXPECT_SH(&p, 0, "ls -l /proc/" KEY(".qemu_pid") "/fd | grep -F 'lrwx' | grep -F $R/d.qcow2");
	EXPECT_SH(&p, 1, OTHER "cat $R/d.qcow2");
	EXPECT_SH(&p, 2, OTHER "ls $R/demo");
	EXPECT_SH(&p, 1, OTHER "cat $R/demo/claim.json $R/demo/serial.log $R/demo/plan.json");
	/* Its own user can neither read the claim nor put anything beside it. */
	EXPECT_SH(&p, 1, "u=" KEY(".user") "; setpriv --reuid $u --regid $u --clear-groups cat $R/demo/claim.json");
	EXPECT_SH(&p, 1, "u=" KEY(".user") "; setpriv --reuid $u --regid $u --clear-groups touch $R/demo/x");
	/* Sockets are the launcher's, and QEMU answers on them. */
	EXPECT_SH(&p, 0, "$G qmp demo query-status | jq -e .running && [ $(stat -c %u:%a $R/demo/*.sock | sort -u) = 0:600 ]");
	EXPECT_SH(&p, 0, "$G status demo --security --json | jq -e '[.[] | select(.ok | not)] | length == 0' && $G stop demo");
	EXPECT_SH(&p, 0, AS_BEFORE);
	/* and the same number once more */
	EXPECT_SH(&p, 0, START " && echo " KEY(".user") " >$R/u1.ini && $G kill demo && " START " && [ $(cat $R/u1.ini) = " KEY(".user") " ] && $G kill demo");
	EXPECT_SH(&p, 0, AS_BEFORE);
	end(&p);
}

#define KILL_BOTH "l=$(jq .launcher_pid $R/demo/claim.json); q=$(jq .qemu_pid $R/demo/claim.json); kill -9 $l $q; until ! kill -0 $l && ! kill -0 $q; do :; done 2>/dev/null"

Test(own, what_a_dead_launcher_gave_away, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, START " && " KILL_BOTH);
	EXPECT_SH(&p, 1, AS_BEFORE);
	EXPECT_SH(&p, 0, "$G recover demo && " AS_BEFORE);
	/* one that is killed again and again comes to the same end: by the next start */
	EXPECT_SH(&p, 0, START " && " KILL_BOTH " && " START " && $G stop demo && " AS_BEFORE);
	end(&p);
}

Test(own, a_launcher_that_takes_over_gives_back, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, START " && l=" KEY(".launcher_pid") "; kill -9 $l; until ! kill -0 $l; do :; done 2>/dev/null; " START);
	EXPECT_SAYS(&p, "taken over");
	EXPECT_SH(&p, 1, AS_BEFORE);
	EXPECT_SH(&p, 0, "$G stop demo && " AS_BEFORE);
	end(&p);
}

/* The power went: the disk is the VM's user's, and nobody knows whose it was. */
Test(own, what_a_power_failure_left, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, START " && " KILL_BOTH " && rm -r $R/demo && [ $(stat -c %u $R/d.qcow2) -ge 2013265920 ]");
	EXPECT_SH(&p, 0, START " && $G stop demo && [ \"$(stat -c '%u:%g %a' $R/d.qcow2)\" = '0:0 600' ]");
	end(&p);
}

Test(own, tpm_uefi_seed_and_strace, .timeout = 180)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, "printf '#cloud-config\\n' >$R/user.ini");
	EXPECT_SH(&p, 0, START " --set guest.tpm=on --set vm.firmware=ovmf --set cloud-init.user-data=$R/user.ini");
	EXPECT_SH(&p, 0, "s=" KEY(".helpers[0].pid") "; grep -P \"^Uid:\\t" KEY(".user") "\\t\" /proc/$s/status && grep -P '^CapBnd:\\t0000000000000000' /proc/$s/status && "
			 "grep -P '^NoNewPrivs:\\t1' /proc/$s/status");
	/* What swtpm makes while it runs is its user's, too. */
	EXPECT_SH(&p, 0, "[ \"$(find $R/tpm/demo -user " KEY(".user") " | wc -l)\" -ge 3 ] && [ $(stat -c %u $R/vars/demo.fd) = " KEY(".user") " ]");
	EXPECT_SH(&p, 1, OTHER "cat $R/vars/demo.fd $R/tpm/demo/tpm2-00.permall");
	EXPECT_SH(&p, 0, "$G stop demo && " AS_BEFORE);
	EXPECT_SH(&p, 0, START " --strace && " AS_BEFORE " || grep -F execve $R/demo/qemu.strace && $G kill demo && " AS_BEFORE);
	end(&p);
}

/* --- other users ------------------------------------------------------------------------------------------------------ */

Test(own, users_by_name, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, START " --set security.user=nobody && grep -P \"^Uid:\\t$(id -u nobody)\\t\" /proc/" KEY(".qemu_pid") "/status && $G stop demo && " AS_BEFORE);
	EXPECT_SH(&p, 0, START " --set security.user=root && grep -P '^Uid:\\t0\\t' /proc/" KEY(".qemu_pid") "/status && grep -P '^NoNewPrivs:\\t1' /proc/" KEY(".qemu_pid") "/status");
	EXPECT_SH(&p, 0, "$G status demo --security | grep '^  warning  user' && $G stop demo && " AS_BEFORE);
	EXPECT_SH(&p, 4, START " --set security.user=nobody-of-this-name");
	EXPECT_SAYS(&p, "useradd --system");
	end(&p);
}

/* Two at once: different users, each shut out of the other's. */
Test(own, two_vms, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, "qemu-img create -q -f qcow2 $R/other.qcow2 64M; " START " && " START " --set vm.name=other --set disk.os.file=$R/other.qcow2");
	EXPECT_SH(&p, 0, "u=$(jq .user $R/other/claim.json); [ $u != " KEY(".user") " ] && setpriv --reuid $u --regid $u --clear-groups test -w $R/other.qcow2");
	EXPECT_SH(&p, 1, "u=$(jq .user $R/other/claim.json); setpriv --reuid $u --regid $u --clear-groups cat $R/d.qcow2 $R/demo/serial.log");
	/* One disk for both: the second one is told whose it is, and takes nothing away. */
	EXPECT_SH(&p, 5, START " --set vm.name=third");
	EXPECT_SAYS(&p, "/d.qcow2' is open: VM 'demo'");
	EXPECT_SH(&p, 0, "[ $(stat -c %u $R/d.qcow2) = " KEY(".user") " ] && $G stop demo && $G stop other && rm -rf $R/other $R/third && " AS_BEFORE);
	end(&p);
}

/* --- cgroup ------------------------------------------------------------------------------------------------------------ */

/* Where the unified hierarchy is at its place: here it may be beside that of version 1, without controllers. */
#define UNIFIED "u=/sys/fs/cgroup/unified; [ -w $u/cgroup.procs ] || exit 77; [ ! -d /run/systemd/system ] || exit 77; mount --bind $u /sys/fs/cgroup; "
#define CGROUP	"/sys/fs/cgroup/gpuvm.slice/cg-$$"

Test(own, a_cgroup_of_its_own, .timeout = 120)
{
	struct place p = place_root();
	int r = sh(&p, "cat >$R/run.ini <<'END'\n" UNIFIED "vm=cg-$$\n" START " --set vm.name=$vm || exit 1\n"
		       "q=$(jq .qemu_pid $R/$vm/claim.json)\n"
		       "[ $(jq -r .cgroup $R/$vm/claim.json) = /gpuvm.slice/$vm ] && [ $(cat " CGROUP "/cgroup.procs) = $q ] || exit 2\n"
		       "grep -x 0::/gpuvm.slice/$vm /proc/$q/cgroup && ! grep gpuvm.slice /proc/$(jq .launcher_pid $R/$vm/claim.json)/cgroup || exit 3\n"
		       "$G status --security $vm | grep -w gpuvm.slice/$vm || exit 4\n"
		       /* A kernel that has no such programs says so there. */
		       "if $G status --security $vm | grep 'only those of the plan'; then\n"
		       "  sh -c 'echo $$ >" "/sys/fs/cgroup/gpuvm.slice/'$vm'/cgroup.procs; : </dev/null >/dev/zero && ! ( : </dev/kmsg ) && ! mknod $R/n.ini c 1 3' || exit 6\n"
		       "else $G status --security $vm | grep 'all that its user may open' || exit 7; fi\n"
		       "$G stop $vm && [ ! -e " CGROUP " ] || exit 4\n"
		       START " --set vm.name=$vm --set security.device-filter=off && $G status --security $vm | grep 'all that its user may open' && dead=\"$(jq .launcher_pid $R/$vm/claim.json) $(jq .qemu_pid $R/$vm/claim.json)\" && kill -9 $dead && [ -e " CGROUP " ] || exit 5\n"
		       "for i in $dead; do tail -f --pid=$i /dev/null; done\n"
		       /* something that was left in it goes with it */
		       "sh -c 'echo $$ >" "/sys/fs/cgroup/gpuvm.slice/'$vm'/cgroup.procs; echo in >$R/in.ini; exec sleep 1000' & left=$!\n"
		       "until [ -s $R/in.ini ]; do :; done; $G recover $vm && [ ! -e " CGROUP " ] && ! wait $left && rm -r $R/$vm\n"
		       "END\nL=$L G=$G unshare -m sh $R/run.ini");

	cr_expect(r == 0 || r == 77, "exit %d\n%s", r, p.out);
	EXPECT_SH(&p, 0, AS_BEFORE);
	end(&p);
}

/* --- refusals ---------------------------------------------------------------------------------------------------------- */

Test(own, what_the_user_may_not_open_is_refused, .timeout = 60)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, "mkdir -m 700 $R/closed && cp $R/d.qcow2 $R/closed/ && head -c 4096 /dev/zero >$R/kernel.ini && chmod 600 $R/kernel.ini");
	EXPECT_SH(&p, 4, START " --set disk.os.file=$R/closed/d.qcow2 --set vm.kernel=$R/kernel.ini --set disk.ro.file=$R/d.qcow2 --set disk.ro.readonly=on");
	EXPECT_SAYS(&p, "may not enter '/tmp/gpuvm-test-");
	EXPECT_SAYS(&p, "/closed', where '/tmp/gpuvm-test-");
	EXPECT_SAYS(&p, "may not open '/tmp/gpuvm-test-");
	EXPECT_SAYS(&p, "/kernel.ini'");
	EXPECT_SAYS(&p, "setfacl -m u:");
	/* What it says is what helps. */
	EXPECT_SH(&p, 0, "chmod o+x $R/closed && chmod o+r $R/kernel.ini $R/d.qcow2 && $L -n --set disk.os.file=$R/closed/d.qcow2 --set vm.kernel=$R/kernel.ini "
			 "--set vm.accel=tcg --set disk.ro.file=$R/d.qcow2 --set disk.ro.readonly=on --set disk.ro.format=qcow2 --set disk.os.format=qcow2 $R/vm.ini");
	/* What a disk is made on is looked at before anything is touched. */
	EXPECT_SH(&p, 0, "cd $R/closed && chmod 600 d.qcow2 && qemu-img create -q -f qcow2 -b d.qcow2 -F qcow2 top.qcow2");
	EXPECT_SH(&p, 4, "$L -d " VM "--set disk.os.file=$R/closed/top.qcow2 $R/vm.ini");
	EXPECT_SAYS(&p, "/closed/d.qcow2', which a disk is made on");
	EXPECT_SH(&p, 0, "chmod o+r $R/closed/d.qcow2 && $L -d " VM "--set disk.os.file=$R/closed/top.qcow2 $R/vm.ini && $G kill demo");
	EXPECT_SH(&p, 4, "mv $R/closed/d.qcow2 $R/closed/e; $L -d " VM "--set disk.os.file=$R/closed/top.qcow2 $R/vm.ini");
	EXPECT_SAYS(&p, "[disk os] file: '/tmp/gpuvm-test-");
	EXPECT_SAYS(&p, "/closed/top.qcow2' is made on: '/tmp/gpuvm-test-");
	EXPECT_SAYS(&p, "/closed/d.qcow2': No such file or directory");
	EXPECT_SH(&p, 4, "truncate -s 1M $R/closed/d.qcow2; " START " --set disk.os.file=$R/closed/d.qcow2");
	EXPECT_SAYS(&p, "/closed/d.qcow2': it does not begin as a qcow2 file does");
	EXPECT_SAYS(&p, "format = raw");
	/* What nobody can see in time QEMU says itself, and we whose fault it is. */
	EXPECT_SH(&p, 1, "chmod 600 $R/kernel.ini; " START " --set qemu.args=\"-drive file=$R/kernel.ini,format=raw\"");
	EXPECT_SAYS(&p, "which may not open all that it was told to");
	EXPECT_SH(&p, 0, "[ -z \"$(find $R ! -user 0 -o ! -group 0)\" ]");
	end(&p);
}

/* A file system that the host has mounted would be destroyed. */
Test(own, a_disk_that_is_mounted_is_refused, .timeout = 60)
{
	struct place p = place_root();
	int r = sh(&p, "truncate -s 4M $R/m.ini; loop=$(losetup -f --show $R/m.ini) || exit 77; mkfs.ext4 -q $R/m.ini || exit 78; mkdir $R/real;"
		       " mount $loop $R/real || { losetup -d $loop; exit 77; }\n"
		       "$L -n --set disk.x.file=$loop $R/vm.ini; r=$?; $L -n --set disk.x.file=$loop --set disk.x.readonly=on $R/vm.ini >/dev/null || r=79\n"
		       "umount $R/real; $L -n --set disk.x.file=$loop $R/vm.ini >/dev/null || r=80; losetup -d $loop; exit $r");

	if (r == 77)
		cr_skip("no loop device, or no mount");
	cr_expect(r == 4, "exit %d\n%s", r, p.out);
	EXPECT_SAYS(&p, "or a part of it, in use: mounted");
	end(&p);
}

/* By the locks of a real QEMU. What two VMs only read they may share; a disk that the VM itself has open is no hindrance to planning it anew. */
Test(own, a_disk_of_another_vm_is_refused, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, "cd $R && qemu-img create -q -f qcow2 base.qcow2 4M && for n in a b; do qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 $n.qcow2; done");
	EXPECT_SH(&p, 0, "for n in a b c; do sed \"s/^name = demo/name = $n\\naccel = tcg/\" conf/demo.ini >$R/$n.ini; done; "
			 "$L -d --set disk.x.file=$R/a.qcow2 $R/a.ini && $L -d --set disk.x.file=$R/b.qcow2 $R/b.ini && "
			 "$L -n --set disk.x.file=$R/a.qcow2 $R/a.ini >/dev/null");
	EXPECT_SH(&p, 0, "$L -n --format=json --set disk.x.file=$R/a.qcow2 $R/c.ini | jq -e '.warnings[] | select(.code == \"disk-busy\").text'");
	EXPECT_SAYS(&p, "/a.qcow2' is open: VM 'a'; a start is refused as long as it is");
	EXPECT_SH(&p, 5, "$L -d --set disk.x.file=$R/a.qcow2 $R/c.ini");
	EXPECT_SAYS(&p, "/a.qcow2' is open: VM 'a'");
	EXPECT_SH(&p, 5, "$L -d --set disk.x.file=$R/a.qcow2 --set disk.x.readonly=on $R/c.ini");
	EXPECT_SAYS(&p, "/a.qcow2' is open for writing: VM 'a'");
	EXPECT_SH(&p, 5, "$L -d --set disk.x.file=$R/base.qcow2 $R/c.ini");
	EXPECT_SAYS(&p, "/base.qcow2' is open: VM 'a', VM 'b'");
	EXPECT_SH(&p, 0, "[ ! -e $R/c/claim.json ] && $L -d --set disk.x.file=$R/base.qcow2 --set disk.x.readonly=on $R/c.ini && "
			 "$G kill a && $G kill b && $G kill c");
	/* And what it is made on; its tools have locks, too. */
	EXPECT_SH(&p, 0, "$L -d --set disk.x.file=$R/base.qcow2 $R/c.ini");
	EXPECT_SH(&p, 5, "$L -d --set disk.x.file=$R/a.qcow2 $R/a.ini");
	EXPECT_SAYS(&p, "/base.qcow2', which a disk is made on, is open for writing: VM 'c'");
	EXPECT_SH(&p, 5, "$G kill c && { qemu-nbd -t -k $R/nbd $R/a.qcow2 & n=$!; until grep -q \":$(stat -c %i $R/a.qcow2) 10. 101\" /proc/locks; do sleep 0.1; done; $L -d --set disk.x.file=$R/a.qcow2 $R/a.ini; r=$?; kill $n; "
			 "wait $n; exit $r; }");
	EXPECT_SAYS(&p, "is open: process ");
	end(&p);
}

/* What would not run, before anything is touched. */
Test(own, files_that_are_none_are_refused, .timeout = 60)
{
	static const char *const rows[][2] = { { "hooks.pre-bind=/nowhere", "[hooks] pre-bind: '/nowhere': No such file" },
					       { "hooks.post-start=/etc/passwd", "[hooks] post-start: '/etc/passwd': Permission denied" },
					       { "hooks.post-stop=/etc", "[hooks] post-stop: '/etc': is not a file" },
					       { "vm.kernel=/etc", "[vm] kernel: '/etc': is not a file" },
					       { "vm.firmware=/etc", "[vm] firmware: '/etc': is not a file" },
					       { "place.socket=7", "there is no socket 7: this machine has " } };
	struct place p = place_root();

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *cmd = xasprintf("$L -n --set %s conf/demo.ini", rows[i][0]);

		EXPECT_SH(&p, 4, cmd);
		EXPECT_SAYS(&p, rows[i][1]);
	}
	EXPECT_SH(&p, 3, "$L -n --set vm.accel=tcg --set cpu.model=host conf/demo.ini");
	EXPECT_SAYS(&p, "host needs KVM");
	end(&p);
}

/* What nobody may know who is not root: the plan is made without it, and says so. */
Test(own, dry_runs_need_no_rights, .timeout = 60)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, START " && chmod 711 $R && " OTHER "$L -n --set vm.accel=tcg conf/demo.ini >/dev/null");
	EXPECT_SAYS(&p, "planned as if no other VM ran");
	EXPECT_SH(&p, 0, "$G kill demo; chmod 700 $R");
	end(&p);
}

/* A launcher that is not root changes nobody and nothing. */
Test(own, without_root, .timeout = 120)
{
	struct place p = place_root();

	EXPECT_SH(&p, 0, "chown -R 61000:61000 $R && run() { setpriv --reuid 61000 --regid 61000 --clear-groups \"$@\"; }; run " START
			 " && [ " KEY(".user") " = 0 ] && grep -P '^Uid:\\t61000\\t' /proc/" KEY(".qemu_pid") "/status && [ $(stat -c %a $R/d.qcow2) = 640 ] && run $G stop demo");
	EXPECT_SH(&p, 4, "setpriv --reuid 61000 --regid 61000 --clear-groups " START " --set security.user=nobody");
	EXPECT_SAYS(&p, "only be changed to by root");
	EXPECT_SH(&p, 0, "chown -R 0:0 $R");
	end(&p);
}

/* --- files ------------------------------------------------------------------------------------------------------------ */

#define SOMEBODY 61000

static void look(const char *path, char **real, struct owner *was)
{
	struct err e = { 0 };

	cr_assert(owner_look(path, real, was, &e) == 0, "%s", e.msg);
}

static void expect_owner(const char *path, uid_t uid, mode_t mode)
{
	struct stat st;

	cr_assert(lstat(path, &st) == 0, "%s: %s", path, strerror(errno));
	cr_expect(st.st_uid == uid && (st.st_mode & 07777) == mode, "%s: uid %u, mode %o", path, st.st_uid, st.st_mode & 07777);
}

Test(own, files_there_and_back)
{
	struct place p = place_root();
	AUTO_FREE char *link = xasprintf("%s/link", p.root), *file = xasprintf("%s/d.qcow2", p.root), *real = NULL;
	struct err e = { 0 };
	struct owner was;

	/* A symlink of the operator's is followed once. */
	EXPECT_SH(&p, 0, "ln -s d.qcow2 $R/link");
	look(link, &real, &was);
	cr_assert_str_eq(real, file);
	for (int i = 0; i < 2; i++)
		cr_assert(owner_give(real, SOMEBODY, &e) == 0, "%s", e.msg);
	expect_owner(file, SOMEBODY, 0600);
	for (int i = 0; i < 2; i++)
		cr_assert(owner_take_back(real, SOMEBODY, &was, &e) == 0, "%s", e.msg);
	expect_owner(file, 0, 0640);

	/* What is somebody else's by now stays so; what is gone is no error. */
	cr_assert(chown(file, 61001, (gid_t)-1) == 0);
	cr_assert(owner_take_back(real, SOMEBODY, &was, &e) == 0);
	expect_owner(file, 61001, 0640);
	cr_assert(unlink(file) == 0);
	cr_assert(owner_take_back(real, SOMEBODY, &was, &e) == 0);
	cr_expect(owner_give(real, SOMEBODY, &e) == -ENOENT);
	end(&p);
}

/* QEMU's user may have put something else in a file's place, where the folder is its own: what a symlink leads to is not touched. */
Test(own, nothing_in_a_files_place)
{
	struct place p = place_root();
	AUTO_FREE char *file = xasprintf("%s/real/disk", p.root), *secret = xasprintf("%s/d.qcow2", p.root);
	struct owner was = { .mode = 0666 };
	struct err e = { 0 };

	EXPECT_SH(&p, 0, "mkdir $R/real && ln -s ../d.qcow2 $R/real/disk && chown 61000 $R/d.qcow2");
	cr_assert(owner_take_back(file, SOMEBODY, &was, &e) == 0);
	expect_owner(secret, SOMEBODY, 0640);
	cr_expect(owner_give(file, 61001, &e) == -ELOOP);
	/* neither through a folder */
	EXPECT_SH(&p, 0, "rm $R/real/disk && mv $R/real $R/closed && mv $R/d.qcow2 $R/closed/disk && ln -s closed $R/real");
	cr_assert(owner_take_back(file, SOMEBODY, &was, &e) == 0);
	cr_expect(owner_give(file, 61001, &e) == -ELOOP);
	EXPECT_SH(&p, 0, "[ \"$(stat -c '%u %a' $R/closed/disk)\" = '61000 640' ] && rm $R/real");
	end(&p);
}

/* --- what is in force --------------------------------------------------------------------------------------------------- */

static struct security_facts confined(void)
{
	return (struct security_facts){ .uids = { 7, 7, 7, 7 }, .gids = { 7, 7, 7, 7 }, .groups = xstrdup(""), .no_new_privs = true, .seccomp = 2,
					.memlock = xstrdup("8388608"), .core = xstrdup("0"), .files = xstrdup("1024"), .rundir_mode = 0710, .rundir_gid = 7 };
}

/* The rows that are no longer ok. */
static char *warnings(struct security_facts *f)
{
	struct security_report r;
	char *text = xstrdup("");

	security_judge(f, &r);
	for (size_t i = 0; i < r.n; i++) {
		AUTO_FREE char *before = text;

		text = r.v[i].why ? xasprintf("%s%s=%s;", before, r.v[i].what, r.v[i].value) : xstrdup(before);
	}
	security_report_clear(&r);
	security_facts_clear(f);
	return text;
}

#define EXPECT_WARNS(change, want)                              \
	do {                                                    \
		struct security_facts f = confined();           \
		AUTO_FREE char *text = NULL;                    \
		change;                                         \
		text = warnings(&f);                            \
		cr_expect_str_eq(text, want);                   \
	} while (0)

Test(security, each_weakness_is_seen)
{
	EXPECT_WARNS((void)0, "");
	EXPECT_WARNS(f.uids[2] = 0, "user=uid 7 7 0 7, gid 7 7 7 7;");
	EXPECT_WARNS(f.gids[1] = 0, "user=uid 7 7 7 7, gid 7 0 7 7;");
	EXPECT_WARNS(memset(f.uids, 0, sizeof(f.uids)), "user=uid 0 0 0 0, gid 7 7 7 7;");
	EXPECT_WARNS(f.caps[2] = 1 << 14 | 1, "capabilities=chown ipc_lock;");
	EXPECT_WARNS(f.caps[0] = UINT64_C(1) << 63, "capabilities=63;");
	EXPECT_WARNS(f.caps[2] = UINT64_MAX, "capabilities=all;");
	EXPECT_WARNS(f.caps[2] = 0x1fffeffffff, "capabilities=all but sys_resource;");
	/* The bounding set is nothing to have by itself. */
	EXPECT_WARNS(f.caps[3] = 1 << 21, "");
	EXPECT_WARNS(f.caps[3] = 1 << 21; f.no_new_privs = false, "bounding set=sys_admin;no new privileges=off;");
	EXPECT_WARNS(f.seccomp = 0, "seccomp=off;");
	EXPECT_WARNS(f.seccomp = -1, "seccomp=not known;");
	EXPECT_WARNS(free(f.core); f.core = xstrdup("unlimited"), "core files=unlimited;");
	EXPECT_WARNS(f.rundir_mode = 0770, "run folder=uid 0, gid 7, mode 0770;");
	EXPECT_WARNS(f.rundir_mode = 0711, "run folder=uid 0, gid 7, mode 0711;");
	EXPECT_WARNS(f.rundir_gid = 8, "run folder=uid 0, gid 8, mode 0710;");
	EXPECT_WARNS(f.rundir_uid = 7, "run folder=uid 7, gid 7, mode 0710;");
}

Test(security, of_this_process)
{
	struct security_facts f;
	struct err e = { 0 };

	cr_assert(security_read(getpid(), "/tmp", &f, &e) == 0, "%s", e.msg);
	cr_expect(f.uids[1] == geteuid());
	cr_expect(f.gids[1] == getegid());
	cr_expect(f.caps[3] != 0);
	cr_expect(f.rundir_mode == 01777);
	security_facts_clear(&f);
	cr_expect(security_read(0x7fffffff, "/tmp", &f, &e) == -ESRCH);
}
