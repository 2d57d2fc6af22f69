/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The two programs as a user runs them: life cycle, refusals, faults. */
#include "programs.h"

Test(programs, start_verify_stop, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SAYS(&p, "demo: running");
	EXPECT_SH(&p, 0, "$G verify demo");
	EXPECT_SAYS(&p, " 0 not as planned");
	EXPECT_SAYS(&p, "vCPU 0");
	EXPECT_SAYS(&p, "memory of guest node 0");
	EXPECT_SH(&p, 0, "$G list");
	EXPECT_SAYS(&p, "running");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"running\" and .qemu_pid > 0 and .memory == 268435456'");
	EXPECT_SH(&p, 0, "$G verify demo --json | jq -e .ok");
	EXPECT_SH(&p, 0, "$G qmp demo query-status | jq -e '.status == \"running\"'");
	EXPECT_SH(&p, 0, "$G qmp demo qom-get '{\"path\": \"/machine\", \"property\": \"type\"}' | grep q35");
	EXPECT_SH(&p, 5, "$L -d " DEMO);
	EXPECT_SAYS(&p, "running already");
	EXPECT_SH(&p, 0, "$G stop demo");
	EXPECT_SH(&p, 0, "$G wait demo");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"stopped\" and .exit_code == 0'");
	EXPECT_SH(&p, 0, "$G stop demo");
	place_end(&p);
}

/* The command beside the claim starts the same VM by hand. */
Test(programs, command_file_runs_as_it_stands, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "$G kill demo");
	EXPECT_SH(&p, 0, "$R/demo/command & pid=$!; until [ -S $R/demo/qmp.sock ]; do kill -0 $pid || exit 9; done; kill $pid; wait $pid; rc=$?; [ $rc -eq 0 -o $rc -eq 143 ]");
	EXPECT_SH(&p, 0, "$L -n " DEMO " | sh -c 'sh -n' && $L -n --explain " DEMO " >$R/c.ini && bash -n $R/c.ini");
	EXPECT_SH(&p, 0, "$L -n --format=json " DEMO " | jq -e '.schema == 1 and .vm == \"demo\" and (.argv | length) > 10'");
	EXPECT_SH(&p, 0, "$L -n --format=lines " DEMO " | head -n1 | grep -q qemu-system-x86_64");
	place_end(&p);
}

Test(programs, foreground_ends_by_signal, .timeout = 60)
{
	struct place p = place_new();

	/* The second SIGTERM does not wait for the guest. */
	EXPECT_SH(&p, 0, "$L --set vm.accel=tcg conf/demo.ini & pid=$!; until $G status demo --json | grep running; do kill -0 $pid || exit 9; done >/dev/null 2>&1; "
			 "kill $pid; until grep -q stopping $R/demo/claim.json; do :; done; kill $pid; wait $pid; rc=$?; [ $rc -eq 0 -o $rc -eq 143 ]");
	EXPECT_SAYS(&p, "demo: ended: asked to stop");
	place_end(&p);
}

Test(programs, qemu_dies, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 6, "kill -SEGV $($G status demo --json | jq .qemu_pid); $G wait demo");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 6'");
	EXPECT_SH(&p, 0, "$G status demo");
	EXPECT_SAYS(&p, "killed by signal 11");
	place_end(&p);
}

Test(programs, qemu_ends_at_once, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 1, "$L --set 'qemu.args=-device no-such-device' " DEMO);
	EXPECT_SAYS(&p, "'no-such-device' is not a valid device model name");
	EXPECT_SAYS(&p, "exit code 1");
	EXPECT_SH(&p, 4, "$L --qemu /nonexistent/qemu " DEMO);
	EXPECT_SAYS(&p, "/nonexistent/qemu");
	EXPECT_SH(&p, 1, "$L -d --set 'qemu.args=-machine none,bad=1' " DEMO);
	place_end(&p);
}

Test(programs, launcher_is_killed, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "$G status demo --json | tee $R/s.ini; kill -9 $(jq .pid $R/s.ini); while kill -0 $(jq .pid $R/s.ini); do :; done 2>/dev/null");
	/* QEMU lives on, and it is not undone under it. The suite "adopt" has what becomes of it. */
	EXPECT_SH(&p, 0, "$G recover");
	EXPECT_SAYS(&p, "without its launcher");
	EXPECT_SH(&p, 0, "kill -0 $(jq .qemu_pid $R/s.ini)");
	EXPECT_SH(&p, 0, "$G kill demo");
	/* At most a zombie, until whoever inherited it reaps it. */
	EXPECT_SH(&p, 0, "case $(ps -o stat= -p $(jq .qemu_pid $R/s.ini)) in '' | Z*) ;; *) exit 1 ;; esac");
	/* Both dead: the next start clears up by itself. */
	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "$G status demo --json >$R/s.ini; kill -9 $(jq .pid $R/s.ini) $(jq .qemu_pid $R/s.ini); until $G list | grep -q 'launcher died'; do :; done");
	EXPECT_SH(&p, 0, "$G list");
	EXPECT_SAYS(&p, "the launcher died");
	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "$G stop demo");
	place_end(&p);
}

/* Where nobody has to look for it. */
Test(programs, bad_devices_are_shown, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G list && ! $G list | grep kept");
	EXPECT_SH(&p, 0, "mkdir $R/bad && printf '{\"schema\":1,\"bdf\":\"0000:17:00.0\",\"vendor\":\"10de\",\"device\":\"2335\",\"subvendor\":\"10de\",\"subdevice\":\"18be\",\"slot\":null,"
			 "\"reason\":\"it does not answer\",\"when\":1,\"boot_id\":\"x\",\"vm\":null,\"by\":\"reset\"}' >$R/bad/0000:17:00.0.json");
	EXPECT_SH(&p, 0, "$G list | grep '^0000:17:00.0 is kept from VMs: it does not answer .*doctor --clear 0000:17:00.0'");
	EXPECT_SH(&p, 0, "rm -r $R/bad; $G recover --all && $G recover");
	EXPECT_SH(&p, 2, "$G recover --all demo");
	place_end(&p);
}

Test(programs, refusals_come_together, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 3, "printf '[vm]\\nnmae = x\\n[memroy]\\nsize = 3 apples\\n[cpu]\\nvcpus = many\\n' >$R/bad.ini; $L $R/bad.ini");
	EXPECT_SAYS(&p, "bad.ini:2:");
	EXPECT_SAYS(&p, "bad.ini:3:");
	EXPECT_SAYS(&p, "bad.ini:6:");
	EXPECT_SAYS(&p, "name");
	EXPECT_SH(&p, 3, "$G plan --json $R/bad.ini | tee $R/e.ini; jq -e '.schema == 1 and (.errors | length) >= 3' $R/e.ini >/dev/null && exit 3");
	EXPECT_SH(&p, 4, "printf '[vm]\\nname = g\\n[place]\\ngpus = 64\\n' >$R/gpus.ini; $L $R/gpus.ini");
	EXPECT_SAYS(&p, "gpus.ini:4:");
	EXPECT_SH(&p, 2, "$L");
	EXPECT_SH(&p, 2, "$L --no-such-option x.ini");
	EXPECT_SH(&p, 2, "$G paln");
	EXPECT_SAYS(&p, "did you mean 'plan'?");
	EXPECT_SH(&p, 0, "$G --help && $G plan --help && $L --help && $L --version && $G version");
	EXPECT_SH(&p, 1, "$G status nobody");
	place_end(&p);
}

/* Guest memory on huge pages and preallocation need a pool, which this machine may not have: then that is what is said. */
Test(programs, too_few_hugepages, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 4, "$L --set memory.hugepages=1G --set memory.size=4096G " DEMO);
	EXPECT_SAYS(&p, "nr_hugepages");
	place_end(&p);
}

/* --- memory that goes between the plan and QEMU ------------------------------------------------------------ */

/* A script $R/@name.ini, whose first lines know $R. */
static void make_script(const struct place *p, const char *name, const char *script)
{
	AUTO_FREE char *path = xasprintf("%s/%s.ini", p->root, name), *text = xasprintf("#!/bin/sh\nR=%s\n%s\n", p->root, script);

	cr_assert(write_file_atomic(path, text, strlen(text), 0755) == 0);
}

#define PAGES "/sys/devices/system/node/node0/hugepages/hugepages-2048kB"
/* A pool for as long as a command runs: $n pages, 64 of them our own. Exit 77: not on this machine. */
#define POOL                                                                                                                                  \
	"exec 9>/tmp/gpuvm-test-hugepages.lock; flock 9; P=" PAGES "; had=$(cat $P/nr_hugepages) || exit 77; echo $had >$R/had.ini; "        \
	"trap 'echo $had >$P/nr_hugepages' EXIT; echo $((had + 64)) >$P/nr_hugepages || exit 77; n=$(cat $P/free_hugepages); [ $n -ge 64 ] || exit 77; "
#define TAKE_AWAY "cat $R/had.ini >" PAGES "/nr_hugepages"
/* As root: the script in QEMU's place changes the pool. */
#define HUGE	  "--set security.user=root --set memory.hugepages=2M --set memory.size=$((2 * n))M " DEMO

/* They were there when the VM was planned: then somebody lowers the pool before QEMU is started, or in the very moment when it is. */
Test(programs, hugepages_vanish, .timeout = 120)
{
	static const char *const how[] = { "--set hooks.pre-bind=$R/pre.ini ", "--qemu $R/qemu.ini " };
	struct place p = place_new();
	int r = sh(&p, POOL "$L -d " HUGE " && $G verify demo && $G kill demo && [ $(cat $P/free_hugepages) = $n ]");

	cr_expect(r == 0 || r == 77, "with enough of them: exit %d\n%s", r, p.out);
	make_script(&p, "pre", TAKE_AWAY);
	make_script(&p, "qemu", "case \"$*\" in *hugetlb=on*) " TAKE_AWAY " ;; esac\nexec qemu-system-x86_64 \"$@\"");
	for (size_t i = 0; i < ARRAY_SIZE(how) && r == 0; i++) {
		AUTO_FREE char *cmd = xasprintf(POOL "echo \"guest node 0 needs $n pages of 2 MiB on host node 0, which has $((n - 64)) free of $had now,\"; "
						     "$L %s" HUGE, how[i]);
		AUTO_FREE char *want = NULL;

		EXPECT_SH(&p, 1, cmd);
		want = xstrndup(p.out, strcspn(p.out, "\n"));
		cr_expect(strstr(strchr(p.out, '\n'), want), "%s", p.out);
		EXPECT_SAYS(&p, i ? "connect: guest node 0" : "check memory: guest node 0");
		EXPECT_SAYS(&p, "kB/nr_hugepages, or lower [memory] size");
		/* QEMU's own words are kept. */
		cr_expect(!i || strstr(p.out, "unable to map backing store for guest RAM"), "%s", p.out);
		EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 1' && [ $(cat " PAGES "/nr_hugepages) = $(cat $R/had.ini) ]");
	}
	place_end(&p);
	if (r == 77)
		cr_skip("needs root, and 128M in huge pages");
}

/* Not in huge pages: a limit that QEMU meets, and the node's memory. */
Test(programs, memory_vanishes, .timeout = 60)
{
	struct place p = place_new();

	make_script(&p, "pre", "touch $R/limit.ini");
	make_script(&p, "qemu", "[ ! -e $R/limit.ini ] || ulimit -v 4000000\nexec qemu-system-x86_64 \"$@\"");
	EXPECT_SH(&p, 1, "$L --set hooks.pre-bind=$R/pre.ini --qemu $R/qemu.ini --set memory.size=8G " DEMO);
	EXPECT_SAYS(&p, "connect: QEMU gets no memory, though the host has it: is there a limit");
	EXPECT_SAYS(&p, "Cannot allocate memory");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 1'");
	/* All that the node has, which is never free. */
	EXPECT_SH(&p, 1, "m=$($G topo --json | jq '.nodes[0].memory_bytes / 2097152 | floor * 2'); $L --set hooks.pre-bind=$R/pre.ini --qemu $R/qemu.ini --set memory.size=${m}M " DEMO);
	EXPECT_SAYS(&p, "connect: guest node 0 needs ");
	EXPECT_SAYS(&p, " free now; stop what uses it, or lower [memory] size: QEMU ended at once");
	place_end(&p);
}

/* Nothing that is there is replaced but a file, and what does not get out is no success. */
Test(programs, output, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "cd $R && mkfifo f.ini && { timeout 20 cat f.ini >svg.ini & } && $G topo --svg f.ini && wait && [ -p f.ini ] && grep '</svg>' svg.ini");
	EXPECT_SH(&p, 0, "cd $R && echo mine >out.ini.new && echo old >out.ini && ln -s out.ini link.ini && $G topo --svg link.ini && [ -L link.ini ] && grep '</svg>' out.ini &&"
			 " [ $(cat out.ini.new) = mine ] && [ $(stat -c %a out.ini) = 644 ] && rm out.ini.new");
	EXPECT_SH(&p, 1, "$G plan " DEMO " >/dev/full");
	EXPECT_SAYS(&p, "write to standard output: No space left on device");
	EXPECT_SH(&p, 1, "$L -n " DEMO " >/dev/full");
	EXPECT_SH(&p, 1, "$G guest-check " DEMO " >/dev/full");
	EXPECT_SH(&p, 1, "$G --help >/dev/full");
	place_end(&p);
}

/* The kernel ends QEMU: of a cgroup that has too little for it. */
Test(programs, memory_runs_out, .timeout = 60)
{
	struct place p = place_new();
	int r;

	make_script(&p, "pre", "d=/sys/fs/cgroup/memory f=memory.limit_in_bytes; [ -d $d ] || d=/sys/fs/cgroup f=memory.max\n"
			       "[ -w $d/cgroup.procs ] && mkdir $d/${R##*/} && echo $d/${R##*/} >$R/cgroup.ini && echo 128M >$d/${R##*/}/$f && echo $PPID >$d/${R##*/}/cgroup.procs");
	r = sh(&p, "$L --set hooks.pre-bind=$R/pre.ini --set memory.prealloc=on --set memory.size=1G " DEMO "; r=$?; "
		   "c=$(cat $R/cgroup.ini) || exit 77; for i in $(cat $c/cgroup.procs); do tail -f --pid=$i /dev/null; done; rmdir $c; exit $r");
	if (r != 77) {
		cr_expect(r == 1, "exit %d\n%s", r, p.out);
		EXPECT_SAYS(&p, "QEMU ended at once: killed by signal 9 (Killed); the kernel has killed for want of memory meanwhile");
	}
	place_end(&p);
	if (r == 77)
		cr_skip("no cgroup for us");
}

Test(programs, direct_kernel_and_disk_paths_survive, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 4, "$L --set 'disk.os.file=/nonexistent/a,b c.qcow2' " DEMO);
	EXPECT_SAYS(&p, "/nonexistent/a,b c.qcow2");
	EXPECT_SH(&p, 0, "qemu-img create -q -f qcow2 \"$R/a,b 'c'=d.qcow2\" 1M && $L -d --set \"disk.os.file=$R/a,b 'c'=d.qcow2\" " DEMO);
	EXPECT_SH(&p, 0, "$G qmp demo query-block | grep -F \"a,b 'c'=d.qcow2\"");
	EXPECT_SH(&p, 0, "$G verify demo");
	EXPECT_SAYS(&p, "I/O thread io0");
	EXPECT_SH(&p, 0, "$G kill demo; rm -f $R/a,b*");
	place_end(&p);
}

#define HELPED "--set disk.os.file=$R/os.raw --set disk.s.file=$R/s.qcow2 --set disk.s.bus=scsi --set disk.s.queues=3 --set disk.cd.file=$R/cd.iso " \
	       "--set disk.cd.bus=scsi --set disk.cd.readonly=on --set disk.os.discard=on --set guest.tpm=on --set \"cloud-init.user-data=$R/u,s 'e'=r\" "

static void make_images(struct place *p)
{
	EXPECT_SH(p, 0, "truncate -s 1M $R/os.raw $R/cd.iso; qemu-img create -q -f qcow2 $R/s.qcow2 1M; echo '#cloud-config' >\"$R/u,s 'e'=r\"");
}

static void remove_images(struct place *p)
{
	EXPECT_SH(p, 1, "ps -C swtpm -o stat=,args= | grep -v '^Z' | grep -F \"$R/\"");
	sh(p, "rm -rf $R/os.raw $R/cd.iso $R/s.qcow2 $R/u,s* $R/tpm");
	place_end(p);
}

/* Every kind of disk, the seed, a TPM and the guest's devices in a QEMU that runs. */
Test(programs, disks_seed_and_tpm, .timeout = 90)
{
	struct place p = place_new();

	if (sh(&p, "which swtpm xorrisofs") != 0)
		cr_skip("swtpm and xorriso are not installed");
	make_images(&p);
	EXPECT_SH(&p, 0, "$L -d --set cpu.vcpus=2 " HELPED DEMO);
	EXPECT_SH(&p, 0, "$G verify demo");
	EXPECT_SAYS(&p, " 0 not as planned");
	EXPECT_SAYS(&p, "I/O thread io0");
	EXPECT_SH(&p, 0, "$G qmp demo query-block | jq -e '[.[].inserted.file] | sort == ([env.R + (\"/os.raw\", \"/s.qcow2\", \"/cd.iso\", \"/demo/seed.iso\")] | sort)'");
	EXPECT_SH(&p, 0, "$G qmp demo query-block | jq -e '[.[] | select(.inserted.ro) | .inserted.\"node-name\"] | sort == [\"disk-cd\", \"seed\"]'");
	EXPECT_SH(&p, 0, "$G qmp demo query-iothreads | jq -e 'map(.id) == [\"io0\"]'");
	EXPECT_SH(&p, 0, "$G qmp demo qom-get '{\"path\": \"/machine/peripheral/blk-os\", \"property\": \"num-queues\"}' | grep -x 2");
	EXPECT_SH(&p, 0, "$G qmp demo qom-get '{\"path\": \"/machine/peripheral/scsi0\", \"property\": \"num_queues\"}' | grep -x 3");
	EXPECT_SH(&p, 0, "$G qmp demo query-tpm | jq -e '.[0].model == \"tpm-crb\"'");
	EXPECT_SH(&p, 0, "$G qmp demo query-chardev | jq -e 'map(.label) | contains([\"agent\", \"tpm\"])'");
	EXPECT_SH(&p, 0, "jq -e '.helpers[0].name == \"swtpm\"' $R/demo/claim.json && [ $(stat -c %a $R/tpm/demo) = 700 ] && ls $R/tpm/demo/*permall");
	EXPECT_SH(&p, 0, "pid=$(jq .helpers[0].pid $R/demo/claim.json); kill -0 $pid && $G stop demo && ! kill -0 $pid");
	EXPECT_SH(&p, 1, "ls $R/demo | grep -E 'sock|iso|seed$'");
	/* the command by itself does the same, until it is interrupted */
	EXPECT_SH(&p, 124, "$L -n --set cpu.vcpus=2 " HELPED DEMO " >$R/a.ini && timeout 3 sh $R/a.ini");
	/* it has been told to end, and takes its time on a busy machine */
	EXPECT_SH(&p, 0, "while ps -C qemu-system-x86 -o args= | grep -F \"$R/\"; do :; done >/dev/null");
	EXPECT_SH(&p, 0, "[ -s $R/demo/seed.iso ] && rm $R/demo/seed.iso && [ ! -e $R/demo/seed ]");
	remove_images(&p);
}

/* The process has, and who has seen to that has given everything back: another start would find the VM in use. */
static const char gone[] = "for i in $(seq 200); do kill -0 $pid 2>/dev/null && [ $(ps -o stat= $pid) != Z ] || [ -e $R/demo/claim.json ] || exit 0; "
			   "read -t 0.1 x <$R/fifo; done; exit 1";

/* Killed at every point, nothing of it stays. */
Test(programs, tpm_does_not_outlive_the_vm, .timeout = 120)
{
	struct place p = place_new();
	AUTO_FREE char *wait = xasprintf("[ -p $R/fifo ] || mkfifo $R/fifo; exec 9<>$R/fifo; pid=$(cat $R/pid); %s", gone);
	AUTO_FREE char *bash = xasprintf("bash -c '%s'", wait);

	if (sh(&p, "which swtpm xorrisofs") != 0)
		cr_skip("swtpm and xorriso are not installed");
	make_images(&p);
	/* QEMU refuses: swtpm was there already */
	EXPECT_SH(&p, 1, "$L --set 'qemu.args=-device no-such-device' " HELPED DEMO);
	EXPECT_SH(&p, 1, "ls $R/demo | grep -E 'sock|iso|seed$'");
	/* QEMU is killed */
	EXPECT_SH(&p, 0, "$L -d " HELPED DEMO " && jq .helpers[0].pid $R/demo/claim.json >$R/pid && kill -9 $(jq .qemu_pid $R/demo/claim.json)");
	EXPECT_SH(&p, 0, bash);
	/* the launcher is killed: QEMU keeps its TPM; then QEMU, too, while swtpm cannot see it */
	EXPECT_SH(&p, 0, "$L -d " HELPED DEMO " && jq .helpers[0].pid $R/demo/claim.json >$R/pid && kill -9 $(jq .launcher_pid $R/demo/claim.json)");
	EXPECT_SH(&p, 0, "kill -0 $(cat $R/pid) && kill -STOP $(cat $R/pid) && $G kill demo");
	EXPECT_SH(&p, 0, bash);
	EXPECT_SH(&p, 1, "ls $R/demo | grep -E 'sock|iso|seed$'");
	sh(&p, "rm -f $R/fifo $R/pid");
	remove_images(&p);
}

Test(programs, seed_files_are_looked_at_first, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 4, "$L --set cloud-init.user-data=$R/missing --set cloud-init.network-config=$R " DEMO);
	EXPECT_SAYS(&p, "[cloud-init] user-data: '");
	EXPECT_SAYS(&p, "[cloud-init] network-config: '");
	EXPECT_SAYS(&p, "directory");
	EXPECT_SH(&p, 0, "[ ! -e $R/demo ]");
	place_end(&p);
}

#define RECORDED "tests/fixtures/qemu"

/* Asked, recorded, and planned for without it. */
Test(programs, qemu_answers, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G version --json | jq -e '.qemu.features[\"stand-in\"] and .qemu.max_vcpus >= 288 and .gpuvm'");
	EXPECT_SH(&p, 0, "$G version --record $R/a.ini && $G version --record - | cmp - $R/a.ini && $G version --json >$R/b.ini && "
			 "$G version --qemu-answers $R/a.ini --json | jq -e --slurpfile b $R/b.ini '.qemu.features == $b[0].qemu.features'");
	EXPECT_SH(&p, 0, "$G version --qemu-answers " RECORDED "/11.1.3.json");
	EXPECT_SAYS(&p, "QEMU 11.1.3");
	EXPECT_SH(&p, 0, "$L -n --qemu-answers " RECORDED "/11.1.3.json " DEMO);
	EXPECT_SAYS(&p, "q35");
	EXPECT_SH(&p, 0, "$G plan --json --qemu-answers " RECORDED "/10.0.13.json " DEMO " | jq -e '.qemu.version == \"10.0.13\"'");
	EXPECT_SH(&p, 2, "$L --qemu-answers " RECORDED "/11.1.3.json " DEMO);
	EXPECT_SAYS(&p, "--dry-run");
	EXPECT_SH(&p, 4, "$L -n --qemu-answers conf/demo.ini " DEMO);
	EXPECT_SAYS(&p, "conf/demo.ini");
	EXPECT_SH(&p, 4, "$L -n --qemu-answers /nonexistent " DEMO);
	EXPECT_SAYS(&p, "'/nonexistent'");
	place_end(&p);
}

/* Ours is known without any; and a dry run leaves nothing on the disk. */
Test(programs, version_without_qemu, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "PATH=/nonexistent $G version");
	EXPECT_SAYS(&p, "gpuvm 0.");
	EXPECT_SAYS(&p, "QEMU: ");
	EXPECT_SH(&p, 0, "PATH=/nonexistent $G version --json | jq -e '.gpuvm and .qemu == null'");
	EXPECT_SH(&p, 0, "PATH=/nonexistent $G --version");
	EXPECT_SH(&p, 1, "$G version --qemu /bin/true");
	EXPECT_SAYS(&p, "exit code 0 and printed: nothing");
	EXPECT_SH(&p, 1, "$G version --qemu /bin/true --record $R/never.ini");
	EXPECT_SH(&p, 2, "$G version --json --record x");
	EXPECT_SH(&p, 2, "$G version --qemu x --qemu-answers y");
	EXPECT_SH(&p, 2, "$G version more");
	EXPECT_SH(&p, 4, "$L -n --qemu /bin/true " DEMO);
	EXPECT_SH(&p, 0, "$L -n " DEMO " >/dev/null && $G plan conf/demo.ini >/dev/null && [ ! -e $R/qemu ]");
	EXPECT_SH(&p, 0, "$G version >/dev/null && ls $R/qemu/*.json");
	place_end(&p);
}
