/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A launcher that is killed leaves its VM running; the next one takes it over. With a real QEMU. */
#include "programs.h"

/* $R/vm.ini is the definition: a claim knows its VM by the file. */
#define VM_INI	 "--set vm.accel=tcg --set lifecycle.stop-timeout=500ms $R/vm.ini"
/* At most a zombie, until init reaps it. */
#define GONE	 "case $(ps -o stat= -p $(cat $R/pid.ini)) in '' | Z*) ;; *) false ;; esac"
#define STATUS	 "$G status demo --json"
#define LAUNCHER "$(" STATUS " | jq .pid)"
#define QEMU	 "$(" STATUS " | jq .qemu_pid)"
#define QEMU_TO_FILE "echo " QEMU " >$R/pid.ini"
/* SIGKILL to the launcher, and until the kernel has made an end of it. */
#define KILL_LAUNCHER "p=" LAUNCHER "; kill -9 $p; until ! kill -0 $p; do :; done 2>/dev/null"

static struct place orphaned(const char *options)
{
	struct place p = place_new();
	AUTO_FREE char *start = xasprintf("cp conf/demo.ini $R/vm.ini; $L -d %s " VM_INI " && " QEMU_TO_FILE, options);

	EXPECT_SH(&p, 0, start);
	EXPECT_SH(&p, 0, KILL_LAUNCHER "; kill -0 $(cat $R/pid.ini)");
	return p;
}

Test(adopt, the_next_start_takes_it_over, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 0, STATUS " | jq -e '.state == \"running\" and (.reason | test(\"without its launcher\"))'");
	EXPECT_SH(&p, 0, "$L -d " VM_INI);
	EXPECT_SAYS(&p, "taken over: QEMU has pid");
	EXPECT_SH(&p, 0, "[ " QEMU " = $(cat $R/pid.ini) ] && " STATUS " | jq -e '.state == \"running\" and .reason == \"\" and .events[-1].event == \"taken over\"'");
	/* It is supervised again, and ends as any other. */
	EXPECT_SH(&p, 0, "$G pause demo && until " STATUS " | jq -e '.state == \"paused\"'; do :; done");
	EXPECT_SH(&p, 0, "$G resume demo && until " STATUS " | jq -e '.state == \"running\"'; do :; done");
	EXPECT_SH(&p, 5, "$L -d " VM_INI);
	EXPECT_SH(&p, 0, "$G stop demo && " GONE);
	EXPECT_SH(&p, 0, STATUS " | jq -e '.state == \"stopped\" and .exit_code == 0'");
	EXPECT_SH(&p, 1, "grep -i error $R/demo/launch.log");
	place_end(&p);
}

/* Ten times over: nothing of a launcher is left in what it hands on. */
Test(adopt, again_and_again, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 0, "for i in 1 2 3 4 5 6 7 8 9 10; do $L -d " VM_INI " || exit; [ " QEMU " = $(cat $R/pid.ini) ] || exit; " KILL_LAUNCHER "; done");
	EXPECT_SH(&p, 0, "$L -d " VM_INI " && " STATUS " | jq -e '[.events[] | select(.event == \"taken over\")] | length == 11' && $G kill demo");
	place_end(&p);
}

Test(adopt, a_paused_guest_stays_paused, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "cp conf/demo.ini $R/vm.ini; $L -d " VM_INI " && $G pause demo && until " STATUS " | jq -e '.state == \"paused\"'; do :; done; " KILL_LAUNCHER);
	EXPECT_SH(&p, 0, "$L -d " VM_INI " && " STATUS " | jq -e '.state == \"paused\"' && $G qmp demo query-status | jq -e '.status == \"paused\"'");
	EXPECT_SH(&p, 0, "$G resume demo && until " STATUS " | jq -e '.state == \"running\"'; do :; done; $G stop demo");
	place_end(&p);
}

/* The vCPUs' threads were moved meanwhile: they are put back. */
Test(adopt, pins_are_put_right, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 0, "taskset -acp 0-$(($(nproc --all) - 1)) $(cat $R/pid.ini) && ! $G verify demo");
	EXPECT_SH(&p, 0, "$L -d " VM_INI " && $G verify demo && $G kill demo");
	place_end(&p);
}

Test(adopt, whatever_the_definition_says_now, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 0, "echo '[nonsense' >>$R/vm.ini; touch -d '+1 hour' $R/vm.ini; $L -d " VM_INI);
	EXPECT_SAYS(&p, "the definition is wrong by now");
	EXPECT_SAYS(&p, "was changed since the VM was started");
	EXPECT_SH(&p, 0, "[ " QEMU " = $(cat $R/pid.ini) ] && $G stop demo");
	/* and the one after it is refused as usual */
	EXPECT_SH(&p, 3, "$L -d " VM_INI);
	place_end(&p);
}

/* The stop ladder as it was decided at the start, not killed: a guest that is asked may save its work. */
Test(adopt, stop_is_a_stop, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 0, "$G stop demo && " GONE);
	EXPECT_SH(&p, 0, STATUS " | jq -e '.state == \"stopped\" and .exit_code == 0 and ([.events[].event] | index(\"taken over\") and index(\"stop request\"))'");
	place_end(&p);
	p = orphaned("");
	EXPECT_SH(&p, 0, "$G kill demo && " GONE " && [ ! -e $R/demo/claim.json ]");
	place_end(&p);
}

/* The launcher is killed when it has been told, and before it could do anything. */
Test(adopt, a_stop_outlives_the_launcher, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "cp conf/demo.ini $R/vm.ini; $L -d " VM_INI " && " QEMU_TO_FILE "; l=" LAUNCHER "; kill -STOP $l; $G stop demo & s=$!; "
			 "until grep -q '^ShdPnd:.*[4-7c-f]...$' /proc/$l/status; do :; done; kill -9 $l; wait $s && " GONE);
	EXPECT_SH(&p, 0, STATUS " | jq -e '.state == \"stopped\" and .exit_code == 0'");
	place_end(&p);
}

Test(adopt, another_definition_of_that_name_is_refused, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 5, "cp $R/vm.ini $R/other.ini; $L -d $R/other.ini");
	EXPECT_SAYS(&p, "from another definition");
	EXPECT_SH(&p, 0, "kill -0 $(cat $R/pid.ini) && $G recover demo && kill -0 $(cat $R/pid.ini)");
	EXPECT_SAYS(&p, "takes it over");
	EXPECT_SH(&p, 0, "$G kill demo");
	place_end(&p);
}

Test(adopt, of_two_at_once_one_wins, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 0, "for i in 1 2 3 4; do { $L -d " VM_INI "; echo $? >$R/rc$i.ini; } & done; wait; sort $R/rc?.ini | tr -d '\\n' | grep -x 0555");
	EXPECT_SH(&p, 0, "[ " QEMU " = $(cat $R/pid.ini) ] && $G kill demo");
	place_end(&p);
}

/* The launcher was killed while QEMU was starting: the start goes on from there. The wrapper holds QEMU back until the pipe is opened. */
Test(adopt, a_start_goes_on, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "cp conf/demo.ini $R/vm.ini; mkfifo $R/gate.ini; printf '#!/bin/sh\\ncase \"$*\" in *guest=demo*) read x <%s/gate.ini;; esac\\nexec qemu-system-x86_64 \"$@\"\\n' $R >$R/qemu.ini; "
			 "chmod +x $R/qemu.ini");
	EXPECT_SH(&p, 0, "$L --set qemu.binary=$R/qemu.ini " VM_INI " & until [ -n \"" QEMU "\" ] && [ " QEMU " != null ]; do :; done 2>/dev/null; " KILL_LAUNCHER "; wait; " QEMU_TO_FILE);
	EXPECT_SH(&p, 0, STATUS " | jq -e '.state == \"starting\"'");
	EXPECT_SH(&p, 0, "$L -d " VM_INI " & echo go >$R/gate.ini; wait $!");
	EXPECT_SAYS(&p, "is 'prelaunch'");
	EXPECT_SH(&p, 0, "[ " QEMU " = $(cat $R/pid.ini) ] && " STATUS " | jq -e '.state == \"running\"' && $G qmp demo query-status | jq -e '.status == \"running\"' && $G verify demo && $G stop demo");
	place_end(&p);
}

Test(adopt, what_is_damaged_is_left_alone, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 1, "mv $R/demo/plan.json $R/plan.ini; head -c 100 $R/plan.ini >$R/demo/plan.json; $L -d " VM_INI);
	EXPECT_SAYS(&p, "plan.json' is damaged");
	EXPECT_SAYS(&p, "gpuvm kill demo");
	EXPECT_SH(&p, 0, "kill -0 $(cat $R/pid.ini) && mv $R/plan.ini $R/demo/plan.json && $L -d " VM_INI " && $G stop demo");
	place_end(&p);
}

/* Its exit status is init's to know; that it was not asked is enough. */
Test(adopt, a_crash_is_seen, .timeout = 90)
{
	struct place p = orphaned("");

	EXPECT_SH(&p, 6, "$L -d " VM_INI " && kill -SEGV $(cat $R/pid.ini) && $G wait demo");
	EXPECT_SH(&p, 0, STATUS " | jq -e '.state == \"failed\" and (.reason | test(\"without being asked\"))'");
	place_end(&p);
}

Test(adopt, not_one_that_was_to_end, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "cp conf/demo.ini $R/vm.ini; $L -d --set lifecycle.on-launcher-death=stop " VM_INI " && " QEMU_TO_FILE);
	EXPECT_SH(&p, 0, KILL_LAUNCHER "; $L -d " VM_INI " && [ " QEMU " != $(cat $R/pid.ini) ] && " GONE " && $G kill demo");
	place_end(&p);
}

/* The hooks that were decided at the start, of a launcher that is gone. */
Test(adopt, hooks_are_remembered, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "printf '#!/bin/sh\\necho $GPUVM_HOOK $GPUVM_EXIT_CODE >>$GPUVM_RUNDIR/hooks.ini\\n' >$R/hook.ini; chmod +x $R/hook.ini; cp conf/demo.ini $R/vm.ini; "
			 "$L -d --set hooks.post-start=$R/hook.ini --set hooks.post-stop=$R/hook.ini " VM_INI "; " KILL_LAUNCHER "; $L -d " VM_INI " && $G stop demo && "
			 "tr '\\n' , <$R/hooks.ini | grep -x 'post-start,post-stop 0,'");
	place_end(&p);
}
