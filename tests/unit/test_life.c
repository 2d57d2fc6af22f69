/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs of every day and what stands behind them: events, log, console, hooks, restart after a crash, reload, watchdog. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <utmp.h>

#include "gpuvm/events.h"
#include "gpuvm/launch.h"
#include "programs.h"

/* --- events -------------------------------------------------------------------------------------------------- */

static const char *text_of(struct json_object *all, size_t i)
{
	struct json_object *v = NULL;

	json_object_object_get_ex(json_object_array_get_idx(all, i), "text", &v);
	return json_object_get_string(v);
}

Test(life, events_are_read_in_order)
{
	struct place p = place_new();
	struct json_object *all = events_read(p.root, 10);
	struct err e = { 0 };

	cr_assert(json_object_array_length(all) == 0);
	json_object_put(all);
	for (int i = 0; i < 5; i++) {
		char text[16];

		snprintf(text, sizeof(text), "\"%d\"\n", i);
		cr_assert(events_add(p.root, "word", "running", text, &e) == 0, "%s", e.msg);
	}
	all = events_read(p.root, 2);
	cr_assert(json_object_array_length(all) == 2);
	cr_expect_str_eq(text_of(all, 0), "\"3\"\n");
	cr_expect_str_eq(text_of(all, 1), "\"4\"\n");
	json_object_put(all);
	EXPECT_SH(&p, 0, "jq -s -e 'length == 5 and all(.event == \"word\" and .state == \"running\" and .time > 1e9)' $R/" EVENTS_FILE " && rm $R/" EVENTS_FILE);
	place_end(&p);
}

/* A full disk has cut one off, something else has written another: the next ones are whole. */
Test(life, damaged_events_are_skipped)
{
	struct place p = place_new();
	struct json_object *all;
	struct err e = { 0 };

	EXPECT_SH(&p, 0, "printf '{\"text\": \"a\"}\\n\\nno json\\n[1]\\n7\\n{\"text\": \"cut o' >$R/" EVENTS_FILE);
	cr_assert(events_add(p.root, "word", "running", "b", &e) == 0, "%s", e.msg);
	all = events_read(p.root, 10);
	cr_assert(json_object_array_length(all) == 2, "%s", json_object_to_json_string(all));
	cr_expect_str_eq(text_of(all, 0), "a");
	cr_expect_str_eq(text_of(all, 1), "b");
	json_object_put(all);
	cr_expect(events_add("/nonexistent", "word", "running", NULL, &e) == -ENOENT);
	EXPECT_SH(&p, 0, "rm $R/" EVENTS_FILE);
	place_end(&p);
}

Test(life, events_do_not_fill_the_disk)
{
	struct place p = place_new();
	AUTO_FREE char *path = xasprintf("%s/" EVENTS_FILE, p.root), *old = xasprintf("%s.1", path);
	char text[1001] = "";
	struct json_object *all;
	struct err e = { 0 };
	struct stat st;

	memset(text, 'x', sizeof(text) - 1);
	for (int i = 0; i < 700; i++) {
		text[snprintf(text, 8, "%06d", i)] = 'x';
		cr_assert(events_add(p.root, "word", "running", text, &e) == 0, "%s", e.msg);
		cr_assert(stat(path, &st) < 0 || (size_t)st.st_size < EVENTS_MAX + 2000);
	}
	cr_assert(stat(old, &st) == 0 && (size_t)st.st_size < EVENTS_MAX + 2000);
	/* from both files, nothing between them is missing */
	all = events_read(p.root, 300);
	cr_assert(json_object_array_length(all) == 300);
	cr_expect(strncmp(text_of(all, 0), "000400x", 7) == 0, "%.10s", text_of(all, 0));
	cr_expect(strncmp(text_of(all, 299), "000699x", 7) == 0, "%.10s", text_of(all, 299));
	json_object_put(all);
	EXPECT_SH(&p, 0, "rm $R/" EVENTS_FILE "*");
	place_end(&p);
}

/* --- verbs ----------------------------------------------------------------------------------------------------- */

/* A loop that ends when its condition holds, or with the VM's launcher, or after sh()'s minute. */
#define UNTIL(condition) "until " condition "; do :; done >/dev/null 2>&1"
#define QEMU_PID	 "$($G status demo --json | jq .qemu_pid)"

Test(life, pause_resume_reset_log, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 1, "$G log demo");
	EXPECT_SAYS(&p, "since the host was started");
	EXPECT_SH(&p, 1, "$G pause demo");
	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.events | map(.event) == [\"started\"]'");
	EXPECT_SH(&p, 0, "$G status demo | grep -E '^  events +[0-9-]+ [0-9:]+ +running +started'");
	EXPECT_SH(&p, 0, "$G pause demo && " UNTIL("$G status demo --json | jq -e '.state == \"paused\"'"));
	EXPECT_SH(&p, 0, "$G qmp demo query-status | jq -e '.status == \"paused\"'");
	EXPECT_SH(&p, 0, "$G resume demo && " UNTIL("$G status demo --json | jq -e '.state == \"running\"'"));
	/* Twice is no error. */
	EXPECT_SH(&p, 0, "$G resume demo");
	EXPECT_SH(&p, 0, "$G reset demo && " UNTIL("$G log demo | grep RESET"));
	EXPECT_SH(&p, 0, "$G log demo --json | jq -s -e '[.[].event][:4] == [\"started\", \"stopped by a monitor\", \"resumed\", \"RESET\"]'");
	EXPECT_SH(&p, 0, "$G log --launcher demo");
	EXPECT_SAYS(&p, "the guest was reset");
	EXPECT_SH(&p, 0, "$G log --qemu demo && $G log --console demo");
	EXPECT_SH(&p, 2, "$G log");
	EXPECT_SH(&p, 2, "$G log --no-such demo");
	EXPECT_SH(&p, 2, "$G stop --timeout soon demo");
	EXPECT_SH(&p, 2, "$G stop --timeout 0s demo");
	EXPECT_SH(&p, 0, "$G stop demo && $G log demo | tail -n1 | grep -E 'stopped +ended'");
	EXPECT_SH(&p, 1, "$G reset demo");
	EXPECT_SAYS(&p, "does not run");
	place_end(&p);
}

/* Every line once, over the file's being put aside, and nothing of it from before. */
Test(life, log_follows, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "$G log -f --json demo >$R/f.ini & f=$!; " UNTIL("grep started $R/f.ini") "; $G reset demo; " UNTIL("grep RESET $R/f.ini")
			 "; mv $R/demo/events.jsonl $R/demo/events.jsonl.1; $G pause demo; " UNTIL("grep paused $R/f.ini")
			 "; grep -q inotify /proc/$f/wchan /proc/$f/fdinfo/*; rc=$?; kill $f; exit $rc");
	EXPECT_SH(&p, 0, "jq -s -e '[.[].event] | .[0] == \"started\" and .[1] == \"RESET\" and .[-1] == \"stopped by a monitor\" and index(\"started\") == rindex(\"started\")' $R/f.ini");
	EXPECT_SH(&p, 0, "$G kill demo");
	place_end(&p);
}

/* SeaBIOS has no ear for the power button: without --timeout this would take an hour. */
Test(life, stop_with_a_timeout, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d --set vm.accel=tcg --set lifecycle.stop-timeout=1h conf/demo.ini");
	EXPECT_SH(&p, 0, "$G stop --timeout 300ms demo");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"stopped\" and .exit_code == 0'");
	EXPECT_SH(&p, 0, "$G log demo --json | jq -s -e '[.[].event] | contains([\"stop request\", \"kill request\", \"ended\"])'");
	place_end(&p);
}

Test(life, start_and_restart, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "printf '[vm]\\nname = demo\\nfirmware = seabios\\naccel = tcg\\n[memory]\\nsize = 64M\\nhugepages = off\\nprealloc = off\\n"
			 "[lifecycle]\\nstop-timeout = 200ms\\n' >$R/demo.ini");
	EXPECT_SH(&p, 0, "$G start --direct $R/demo.ini");
	EXPECT_SH(&p, 5, "$G start --direct $R/demo.ini");
	EXPECT_SH(&p, 0, "a=" QEMU_PID "; sed -i 's/64M/80M/' $R/demo.ini; $G restart --direct $R/demo.ini && b=" QEMU_PID " && [ $a -gt 0 -a $b -gt 0 -a $a != $b ]");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.memory == 80 * 1048576'");
	EXPECT_SH(&p, 0, "$G kill demo");
	/* Restarting what is stopped starts it. */
	EXPECT_SH(&p, 0, "$G restart --direct $R/demo.ini && $G kill demo");
	EXPECT_SH(&p, 1, "$G start --direct $R/missing.ini || exit 1");
	EXPECT_SH(&p, 2, "$G start");
	place_end(&p);
}

/* The ISA port, which a monitor can write to as the guest would. */
#define PANIC	     "$G qmp demo human-monitor-command command-line='\"o /b 0x505 1\"'"

Test(life, resume_is_refused_after_a_fault, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d --set guest.panic=off --set 'qemu.args=-device pvpanic -action panic=pause' " DEMO);
	/* A supervisor that is awake would end QEMU. */
	EXPECT_SH(&p, 0, "kill -STOP $($G status demo --json | jq .pid) && " PANIC " && $G qmp demo query-status | jq -e '.status == \"guest-panicked\"'");
	EXPECT_SH(&p, 1, "$G resume demo");
	EXPECT_SAYS(&p, "guest-panicked");
	EXPECT_SH(&p, 0, "$G qmp demo query-status | jq -e '.status == \"guest-panicked\"'");
	EXPECT_SH(&p, 6, "kill -CONT $($G status demo --json | jq .pid); $G wait demo");
	EXPECT_SH(&p, 0, "$G log demo --json | jq -s -e 'any(.event == \"fault\" and .state == \"failed\" and (.text | contains(\"panicked\")))'");
	place_end(&p);
}

/* --- what QEMU's events do ------------------------------------------------------------------------------------------- */

/* The guest's own ports, from a monitor. The firmware has given the power management its place when it reads as 0. */
#define PORT(rest) "$G qmp demo human-monitor-command command-line='\"" rest "\"'"
#define POWER_READY UNTIL(PORT("i /h 0x604") " | grep -q 0x0000")
#define SLEEP	   PORT("o /h 0x604 0x2400") /* ACPI S3: SLP_EN, and the type that QEMU has for it */
#define SWITCH_OFF PORT("o /h 0x604 0x2000")
#define STATE_IS(state) UNTIL("$G status demo --json | jq -e '.state == \"" state "\"'")
#define ENDED(state, code, reason) "$G wait demo >/dev/null; $G status demo --json | jq -e '.state == \"" state "\" and .exit_code == " code " and (.reason | contains(\"" reason "\"))'"

Test(life, a_guest_that_sleeps, .timeout = 120)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d --set vm.accel=tcg --set lifecycle.stop-timeout=1h conf/demo.ini; " POWER_READY "; " SLEEP "; " STATE_IS("paused"));
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.reason | startswith(\"suspended by the guest\")'");
	EXPECT_SH(&p, 0, "$G resume demo; " STATE_IS("running"));
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.reason == \"\"'");
	/* A reset wakes it, too: QEMU alone would let it stand still. */
	EXPECT_SH(&p, 0, POWER_READY "; " SLEEP "; " STATE_IS("paused") "; $G reset demo; " STATE_IS("running") "; $G qmp demo query-status | jq -e '.status == \"running\"'");
	/* Nor does it hear the power button, for which there would be an hour. */
	EXPECT_SH(&p, 0, POWER_READY "; " SLEEP "; " STATE_IS("paused") "; $G stop demo");
	EXPECT_SH(&p, 0, ENDED("stopped", "0", "asked to stop"));
	place_end(&p);
}

/* One that was paused stays so, and can be resumed. */
Test(life, reset_while_paused, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO "; $G pause demo; " STATE_IS("paused") "; $G reset demo; " UNTIL("$G log demo | grep RESET"));
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"paused\" and .reason == \"a monitor has stopped the guest\"'");
	EXPECT_SH(&p, 0, "$G resume demo; " STATE_IS("running") "; $G kill demo");
	place_end(&p);
}

Test(life, ways_to_end, .timeout = 240)
{
	static const struct {
		const char *how, *state, *code, *reason;
	} rows[] = {
		{ POWER_READY "; " SWITCH_OFF, "stopped", "0", "the guest has shut down" },
		{ "$G qmp demo quit", "stopped", "0", "a monitor has told QEMU to quit" },
		{ "kill -TERM " QEMU_PID, "stopped", "0", "somebody else has sent QEMU a signal" },
		{ "kill -SEGV " QEMU_PID, "failed", "6", "killed by signal 11" },
		{ PORT("o /b 0x505 1"), "failed", "6", "the guest's kernel panicked" },
		{ "$G reset demo", "stopped", "0", "reset by a monitor" },
		{ POWER_READY "; " PORT("o /b 0xcf9 6"), "stopped", "0", "the guest rebooted" },
	};
	struct place p = place_new();

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		/* jq is given the words in single quotes */
		AUTO_FREE char *reason = xstrdup(rows[i].reason), *cmd = NULL;

		for (char *q = reason; (q = strchr(q, '\''));)
			*q = '.';
		cmd = xasprintf("$L -d --set lifecycle.on-reboot=stop --set guest.panic=off --set 'qemu.args=-device pvpanic' " DEMO "; %s >/dev/null; $G wait demo; "
				"$G status demo --json | jq -e '.state == \"%s\" and .exit_code == %s and (.reason | test(\"%s\"))'", rows[i].how, rows[i].state,
				rows[i].code, reason);
		EXPECT_SH(&p, 0, cmd);
		/* The reason is a VM's last word in the log, too. */
		EXPECT_SH(&p, 0, "[ \"$($G log demo --json | jq -rs '.[-1].text')\" = \"$($G status demo --json | jq -r .reason)\" ]");
	}
	place_end(&p);
}

/* The guest's crash kernel is not disturbed. */
Test(life, crash_kernel, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d --set guest.panic=off --set 'qemu.args=-device pvpanic' " DEMO "; " PORT("o /b 0x505 2") "; " UNTIL("$G log demo | grep GUEST_CRASHLOADED"));
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"running\"' && $G qmp demo query-status | jq -e .running && $G kill demo");
	place_end(&p);
}

/* A boot sector that writes itself to sector 60, and then a "!" to the serial port:
 *   cld; xor ax,ax; mov ds,ax; mov es,ax; mov ax,0x301; mov bx,0x7c00; mov cx,60; mov dx,0x80; int 0x13; jc $;
 *   mov dx,0x3f8; mov al,'!'; out dx,al; 1: hlt; jmp 1b */
static void make_writer(struct place *p)
{
	static const char code[] = "\xfc\x31\xc0\x8e\xd8\x8e\xc0\xb8\x01\x03\xbb\x00\x7c\xb9\x3c\x00\xba\x80\x00\xcd\x13\x72\xfe"
				   "\xba\xf8\x03\xb0\x21\xee\xf4\xeb\xfd";
	AUTO_FREE char *path = xasprintf("%s/boot.ini", p->root);
	char sector[512] = "";

	memcpy(sector, code, sizeof(code));
	memcpy(sector + 510, "\x55\xaa", 2);
	cr_assert(write_file_atomic(path, sector, sizeof(sector), 0600) == 0);
}

/* On a file system of two pages, one of which something else has. */
Test(life, no_space_left, .timeout = 120)
{
	struct place p = place_new();

	if (sh(&p, "unshare -m true") != 0)
		cr_skip("no mount namespaces for us");
	make_writer(&p);
	EXPECT_SH(&p, 0, "mkdir $R/t; unshare -m sh -c \"mount -t tmpfs -o size=8k none $R/t && cp $R/boot.ini $R/t/os && truncate -s 1M $R/t/os && "
			 "! dd if=/dev/zero of=$R/t/fill bs=4k 2>/dev/null && $L -d --set disk.os.file=$R/t/os --set disk.os.format=raw " DEMO "\"");
	EXPECT_SH(&p, 0, STATE_IS("paused") "; $G status demo --json | jq -e '.reason == \"no space left for disk os (node disk-os, '$R'/t/os): free some and `gpuvm resume demo`\"'");
	EXPECT_SH(&p, 0, "$G status demo | grep 'paused: no space left' && $G log demo | grep 'BLOCK_IO_ERROR.*disk os: write: No space left'");
	/* As long as there is none it comes back to that. */
	EXPECT_SH(&p, 0, "$G resume demo; " UNTIL("[ $($G log demo --json | jq -s '[.[] | select(.event == \"no space left\")] | length') = 2 ]") "; " STATE_IS("paused"));
	EXPECT_SH(&p, 1, "grep -a '!' $R/demo/serial.log");
	EXPECT_SH(&p, 0, "nsenter -m -t " QEMU_PID " rm $R/t/fill && $G resume demo && " UNTIL("grep -aq '!' $R/demo/serial.log") "; " STATE_IS("running"));
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.reason == \"\"'");
	/* A stop is a stop, whatever was before. */
	EXPECT_SH(&p, 0, "$G stop demo; " ENDED("stopped", "0", "asked to stop"));
	EXPECT_SH(&p, 0, "rmdir $R/t");
	place_end(&p);
}

/* --- on-crash = restart -------------------------------------------------------------------------------------------- */

#define RESTART "--set lifecycle.on-crash=restart "
/* jq has no complaint about no input at all: while there is no state yet. */
#define RUNNING UNTIL("[ \"$($G status demo --json | jq -r .state)\" = running ]")
#define RUNNING_ANEW(old) UNTIL("$G status demo --json | jq -e '.state == \"running\" and .qemu_pid != " old "'")
#define WAITING UNTIL("$G status demo --json | jq -e '.state == \"starting\" and (.reason | startswith(\"restarts in\"))'")

/* Killed twice, it comes back, later each time; killed a third time, it is stopped while it waits. */
Test(life, restarts_after_a_crash, .timeout = 120)
{
	struct place p = place_new();

	EXPECT_SH(&p, 6, "$L " RESTART DEMO " 2>$R/l.ini & l=$!; " RUNNING
			 "; a=" QEMU_PID "; kill -9 $a; " WAITING "; " RUNNING_ANEW("'$a'") "; b=" QEMU_PID "; kill -9 $b; " RUNNING_ANEW("'$b'")
			 "; c=" QEMU_PID "; [ $a != $b -a $b != $c -a $a != $c ] || exit 90; kill -9 $c; " WAITING "; $G stop demo || exit 91; wait $l");
	EXPECT_SH(&p, 0, "$G log --json demo | jq -s -e '[.[] | select(.event == \"restart\") | .text] == [\"in 1 s\", \"in 2 s\", \"in 4 s\"]'");
	/* the pauses were made: the time between each restart and the next start */
	EXPECT_SH(&p, 0, "$G log --json demo | jq -s -e '[.[] | select(.event == \"restart\" or .event == \"started\") | .time] | .[2] - .[1] >= 0.99 and .[4] - .[3] >= 1.99'");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 6 and .events[-1].event == \"not restarted\"'");
	EXPECT_SH(&p, 6, "$G wait demo");
	place_end(&p);
}

/* What has gone meanwhile is said, and the name is free. */
Test(life, restart_that_cannot_be_planned, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 4, "truncate -s 1M $R/os.ini; $L " RESTART "--set disk.os.file=$R/os.ini --set disk.os.format=raw " DEMO
			 " & l=$!; " RUNNING "; rm $R/os.ini; kill -9 " QEMU_PID "; wait $l");
	EXPECT_SAYS(&p, "os.ini");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 4 and (.reason | startswith(\"not restarted: \"))'");
	EXPECT_SH(&p, 0, "[ ! -e $R/demo/claim.json ]");
	/* the definition itself, which had the name */
	EXPECT_SH(&p, 3, "cp conf/demo.ini $R/gone.ini; $L " RESTART "--set vm.accel=tcg $R/gone.ini & l=$!; " RUNNING
			 "; rm $R/gone.ini; kill -9 " QEMU_PID "; wait $l");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 3'");
	EXPECT_SH(&p, 0, "[ ! -e $R/demo/claim.json ]");
	place_end(&p);
}

/* A guest that panics is restarted, one that was asked to stop is not. */
Test(life, restarts_after_a_panic, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " RESTART "--set guest.panic=off --set 'qemu.args=-device pvpanic' " DEMO);
	EXPECT_SH(&p, 0, "a=" QEMU_PID "; " PANIC "; " RUNNING_ANEW("'$a'"));
	EXPECT_SH(&p, 0, "$G stop demo && $G status demo --json | jq -e '.state == \"stopped\" and .exit_code == 0'");
	EXPECT_SH(&p, 0, "$G log --json demo | jq -s -e '[.[] | select(.event == \"restart\")] | length == 1'");
	/* QEMU, which has only stopped the guest, is told to quit: that is nobody's wish. */
	EXPECT_SH(&p, 0, "$L -d " RESTART "--set guest.panic=off --set 'qemu.args=-device pvpanic -action panic=pause' " DEMO);
	EXPECT_SH(&p, 0, "a=" QEMU_PID "; " PANIC "; " RUNNING_ANEW("'$a'") "; $G stop demo");
	place_end(&p);
}

/* --- hooks ------------------------------------------------------------------------------------------------------------ */

static void make_hook(struct place *p, const char *name, const char *script)
{
	AUTO_FREE char *path = xasprintf("%s/%s.ini", p->root, name), *text = xasprintf("#!/bin/sh\n%s\n", script);

	cr_assert(write_file_atomic(path, text, strlen(text), 0700) == 0);
}

#define HOOKS "--set hooks.pre-bind=$R/pre.ini --set hooks.post-start=$R/start.ini --set hooks.post-stop=$R/stop.ini "
#define NOTE  "env | grep ^GPUVM_ | sort >$GPUVM_RUNDIR/env-$GPUVM_HOOK.ini; "

Test(life, hooks_are_told, .timeout = 60)
{
	struct place p = place_new();

	make_hook(&p, "pre", NOTE "[ $# = 0 ] && ! read -r line");
	make_hook(&p, "start", NOTE "'$G' status \"$GPUVM_VM\" --json >$GPUVM_RUNDIR/status.ini");
	make_hook(&p, "stop", NOTE "exit 3");
	EXPECT_SH(&p, 0, "sed -i \"s,[$]G',$(realpath $G)',\" $R/start.ini; $L -d " HOOKS DEMO);
	EXPECT_SH(&p, 0, "[ \"$(cat $R/env-pre-bind.ini)\" = \"GPUVM_CONFDIR=$GPUVM_CONFDIR\nGPUVM_DEFINITION=$(realpath conf/demo.ini)\nGPUVM_DEVICES=\nGPUVM_HOOK=pre-bind\n"
			 "GPUVM_RUNDIR=$R\nGPUVM_STATEDIR=$R\nGPUVM_VM=demo\nGPUVM_VM_DIR=$R/demo\" ]");
	EXPECT_SH(&p, 0, "grep -x GPUVM_HOOK=post-start $R/env-post-start.ini && grep -x GPUVM_QEMU_PID=" QEMU_PID " $R/env-post-start.ini");
	/* gpuvm in a hook finds the VM. */
	EXPECT_SH(&p, 0, "jq -e '.state == \"running\"' $R/status.ini && [ ! -e $R/env-post-stop.ini ]");
	EXPECT_SH(&p, 0, "$G kill demo");
	EXPECT_SH(&p, 0, "grep -x GPUVM_EXIT_CODE=0 $R/env-post-stop.ini && grep -x 'GPUVM_REASON=asked to stop (Quit)' $R/env-post-stop.ini");
	/* One that fails there is said, and changes nothing. */
	EXPECT_SH(&p, 0, "$G log demo");
	EXPECT_SAYS(&p, "hook post-stop: '");
	EXPECT_SAYS(&p, "exit code 3");
	EXPECT_SH(&p, 0, "$G wait demo");
	place_end(&p);
}

Test(life, hook_refuses_the_start, .timeout = 60)
{
	struct place p = place_new();

	make_hook(&p, "pre", "echo the node is busy; exit 7");
	make_hook(&p, "start", NOTE);
	make_hook(&p, "stop", NOTE);
	EXPECT_SH(&p, 1, "$L -d " HOOKS DEMO);
	EXPECT_SAYS(&p, "the node is busy");
	EXPECT_SAYS(&p, "exit code 7");
	EXPECT_SH(&p, 0, "[ ! -e $R/env-post-start.ini ] && grep -x GPUVM_EXIT_CODE=1 $R/env-post-stop.ini && grep 'GPUVM_REASON=start failed: .*exit code 7' $R/env-post-stop.ini");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == 1'");
	/* one that cannot be run, and one that is not there */
	EXPECT_SH(&p, 1, "printf '#!/nowhere\n' >$R/pre.ini; $L " HOOKS DEMO);
	EXPECT_SAYS(&p, "execute '");
	EXPECT_SH(&p, 4, "rm $R/pre.ini; $L " HOOKS DEMO);
	EXPECT_SAYS(&p, "pre.ini': No such file");
	place_end(&p);
}

/* With what it has started. */
Test(life, hook_that_hangs_is_killed, .timeout = 60)
{
	struct place p = place_new();

	make_hook(&p, "pre", "sleep 1000 & echo $! $$ >$GPUVM_RUNDIR/pids.ini; wait");
	make_hook(&p, "stop", NOTE);
	EXPECT_SH(&p, 1, "$L --set hooks.timeout=700ms --set hooks.pre-bind=$R/pre.ini --set hooks.post-stop=$R/stop.ini " DEMO);
	EXPECT_SAYS(&p, "did not end within 0.7 s");
	/* At most zombies, until whoever inherited them reaps them. */
	EXPECT_SH(&p, 0, "[ $(wc -w <$R/pids.ini) = 2 ] && for pid in $(cat $R/pids.ini); do " UNTIL("case $(ps -o stat= -p $pid) in '' | Z*) ;; *) false ;; esac") "; done");
	EXPECT_SH(&p, 0, "grep -x GPUVM_EXIT_CODE=1 $R/env-post-stop.ini");
	place_end(&p);
}

/* Nobody is left of the VM but its claim. */
#define KILL_BOTH                                                                                                                       \
	"$G status demo --json >$R/s.ini; kill -9 $(jq '.pid, .qemu_pid' $R/s.ini); until $G list | grep -q 'launcher died'; do :; done; "

/* The hook that a dead launcher owes is run by whoever gives the rest back, once. */
Test(life, hooks_of_a_dead_launcher, .timeout = 120)
{
	struct place p = place_new();

	make_hook(&p, "pre", "exit 0");
	make_hook(&p, "start", "exit 0");
	make_hook(&p, "stop", NOTE "nice >$GPUVM_RUNDIR/nice.ini; echo x >>$GPUVM_RUNDIR/times.ini");
	EXPECT_SH(&p, 0, "$L -d " HOOKS DEMO "; " KILL_BOTH "[ ! -e $R/times.ini ] && $G recover && [ $(wc -l <$R/times.ini) = 1 ]");
	EXPECT_SH(&p, 0, "grep -x GPUVM_HOOK=post-stop $R/env-post-stop.ini && grep -x GPUVM_EXIT_CODE=1 $R/env-post-stop.ini && "
			 "grep -x GPUVM_DEFINITION=$(realpath conf/demo.ini) $R/env-post-stop.ini && grep '^GPUVM_REASON=the launcher died' $R/env-post-stop.ini");
	EXPECT_SH(&p, 0, "$G recover && $G recover demo && [ $(wc -l <$R/times.ini) = 1 ]");
	/* before an allocation, whosesoever */
	EXPECT_SH(&p, 0, "$L -d " HOOKS DEMO "; " KILL_BOTH "$L -d --set vm.name=other " DEMO " && [ $(wc -l <$R/times.ini) = 2 ]");
	/* Who has the lock goes first; what it starts meanwhile and afterwards does not. */
	EXPECT_SH(&p, 0, "for n in $(cat $R/nice.ini) $(ps -o ni= -p $($G status other --json | jq -r '\"\\(.pid),\\(.qemu_pid)\"')); do [ $n = $(nice) ] || exit 1; done");
	EXPECT_SH(&p, 0, "$G kill other && rm -r $R/other");
	/* an orphan that is stopped, and one that can only be killed, as its plan is damaged: then the hook is not known */
	EXPECT_SH(&p, 0, "$L -d " HOOKS DEMO "; kill -9 $($G status demo --json | jq .pid); $G stop demo && [ $(wc -l <$R/times.ini) = 3 ]");
	EXPECT_SH(&p, 0, "$L -d " HOOKS DEMO "; kill -9 $($G status demo --json | jq .pid); echo '{' >$R/demo/plan.json; $G kill demo");
	EXPECT_SAYS(&p, "whether there is a hook post-stop, and which, is not known");
	EXPECT_SH(&p, 0, "[ $(wc -l <$R/times.ini) = 3 ]");
	/* One that has its own life is not run for a VM that has none. */
	EXPECT_SH(&p, 0, "$L -d " DEMO "; " KILL_BOTH "$G recover && [ $(wc -l <$R/times.ini) = 3 ]");
	place_end(&p);
}

/* What has no launcher is waited for all the same; what nobody gives back is no success, whatever an earlier run was. */
Test(life, wait_without_a_launcher, .timeout = 120)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO " && $G stop demo && $G wait demo");
	EXPECT_SH(&p, 0, "$L -d " DEMO "; kill -9 $($G status demo --json | jq .pid); $G wait demo & w=$!; " UNTIL("[ -e /proc/$w/fd/4 ] || ! kill -0 $w")
			 "; kill -0 $w && $G stop demo && wait $w");
	EXPECT_SH(&p, 1, "$L -d " DEMO "; " KILL_BOTH "$G wait demo");
	EXPECT_SAYS(&p, "`gpuvm recover demo`");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"failed\" and .exit_code == null'");
	/* What is dead is given back by who is told to end it. */
	EXPECT_SH(&p, 0, "$G stop demo && [ ! -e $R/demo/claim.json ] && $G log demo --json | tail -n 1 | jq -e '.event == \"recovered\" and .state == \"failed\"'");
	EXPECT_SAYS(&p, "everything was given back");
	EXPECT_SH(&p, 1, "$G wait demo");
	EXPECT_SH(&p, 0, "$L -d " DEMO "; " KILL_BOTH "$G kill demo && [ ! -e $R/demo/claim.json ]");
	place_end(&p);
}

/* The lock was somebody else's when its QEMU was dead: what is claimed by then is not what was killed. */
Test(life, kill_spares_who_came_meanwhile, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO "; cp $R/demo/claim.json $R/c.ini; kill -9 $(jq .launcher_pid $R/c.ini); q=$(jq .qemu_pid $R/c.ini); exec 9>$R/lock; flock 9; "
			 "$G kill demo 9>&- & k=$!; while kill -0 $q; do :; done 2>/dev/null; jq '.qemu_pid = 1 | .qemu_start = 1' $R/c.ini >$R/demo/claim.json; "
			 "flock -u 9; wait $k && [ -e $R/demo/claim.json ] && [ -S $R/demo/qmp.sock ]");
	EXPECT_SAYS(&p, "was started anew meanwhile");
	EXPECT_SH(&p, 0, "$G recover demo");
	place_end(&p);
}

/* Four questions wait for a QEMU that stands still; who wants to end it does not wait for them all. */
Test(life, a_qemu_that_stands_still_is_killed_soon, .timeout = 120)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO "; l=$($G status demo --json | jq .pid) q=" QEMU_PID "; kill -STOP $l; for i in 1 2; do $G qmp demo stop && $G qmp demo cont || exit 1; done; "
			 "kill -STOP $q; kill -CONT $l; a=$(date +%s); $G kill demo && [ $(($(date +%s) - a)) -lt 25 ]");
	EXPECT_SH(&p, 0, "$G log --launcher demo | grep 'no answer' | wc -l | grep -x 1");
	place_end(&p);
}

/* It has its time, and its failure changes nothing. One that is cut short, as who runs it is killed, is run again. */
Test(life, hook_of_a_dead_launcher_has_an_end, .timeout = 120)
{
	struct place p = place_new();

	make_hook(&p, "pre", "exit 0");
	make_hook(&p, "start", "exit 0");
	make_hook(&p, "stop", "sleep 1000");
	EXPECT_SH(&p, 0, "$L -d --set hooks.timeout=600ms " HOOKS DEMO "; " KILL_BOTH "$G recover && [ ! -e $R/demo/claim.json ]");
	EXPECT_SAYS(&p, "hook post-stop: ");
	EXPECT_SAYS(&p, "did not end within 0.6 s");
	EXPECT_SH(&p, 0, "$G log demo | grep 'hook failed'");
	make_hook(&p, "stop", "echo begin >>$GPUVM_RUNDIR/times.ini; [ -e $GPUVM_RUNDIR/go.ini ] || exec sleep 1000; echo end >>$GPUVM_RUNDIR/times.ini");
	EXPECT_SH(&p, 0, "$L -d " HOOKS DEMO "; " KILL_BOTH "$G recover & r=$!; " UNTIL("grep begin $R/times.ini") "; kill -9 $r; touch $R/go.ini; $G recover && "
			 "[ \"$(tr '\\n' ' ' <$R/times.ini)\" = 'begin begin end ' ] && [ ! -e $R/demo/claim.json ]");
	EXPECT_SH(&p, 0, "$G recover && [ $(wc -l <$R/times.ini) = 3 ]");
	place_end(&p);
}

/* --- console ------------------------------------------------------------------------------------------------------------ */

/* A boot sector that greets on the first serial port and says what it hears:
 *   cld; xor ax,ax; mov ds,ax; mov si,greeting; 1: lodsb; test al,al; jz 2f; mov dx,0x3f8; out dx,al; jmp 1b;
 *   2: mov dx,0x3fd; in al,dx; test al,1; jnz 3f; sti; hlt; jmp 2b; 3: mov dx,0x3f8; in al,dx; out dx,al; jmp 2b */
static void make_guest(struct place *p)
{
	static const char code[] = "\xfc\x31\xc0\x8e\xd8\xbe\x26\x7c\xac\x84\xc0\x74\x06\xba\xf8\x03\xee\xeb\xf5"
				   "\xba\xfd\x03\xec\xa8\x01\x75\x04\xfb\xf4\xeb\xf4\xba\xf8\x03\xec\xee\xeb\xed"
				   "the guest is here\r\n";
	AUTO_FREE char *path = xasprintf("%s/boot.ini", p->root);
	char sector[512] = "";

	memcpy(sector, code, sizeof(code));
	memcpy(sector + 510, "\x55\xaa", 2);
	cr_assert(write_file_atomic(path, sector, sizeof(sector), 0600) == 0);
	/* SeaBIOS wants a cylinder. */
	EXPECT_SH(p, 0, "truncate -s 1M $R/boot.ini; $L -d --set disk.os.file=$R/boot.ini --set disk.os.format=raw " DEMO);
	EXPECT_SH(p, 0, UNTIL("grep -a 'the guest is here' $R/demo/serial.log"));
}

/* A `gpuvm` on a terminal of its own. */
struct term {
	pid_t pid;
	int fd, slave; /* the slave stays open, so that its attributes can be read when the program has gone */
	struct termios before;
	char text[1 << 16];
	size_t len;
};

static void term_open(struct term *t, const char *const args[])
{
	AUTO_FREE char *program = xasprintf("%s/gpuvm", build_dir());

	t->len = 0;
	cr_assert(openpty(&t->fd, &t->slave, NULL, NULL, NULL) == 0);
	cr_assert(tcgetattr(t->slave, &t->before) == 0);
	t->pid = fork();
	cr_assert(t->pid >= 0);
	if (t->pid == 0) {
		close(t->fd);
		if (login_tty(t->slave) == 0)
			execv(program, (char *const *)args);
		_exit(127);
	}
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Read until @text has come @times in all; half a minute at most. */
static void term_expect(struct term *t, const char *text, int times)
{
	int64_t end = now_ms() + 30000;

	for (;;) {
		struct pollfd p = { .fd = t->fd, .events = POLLIN };
		int64_t left = end - now_ms();
		int found = 0;
		ssize_t n;

		t->text[t->len] = '\0';
		for (const char *at = t->text; (at = strstr(at, text)); at++)
			found++;
		if (found >= times)
			return;
		cr_assert(left > 0 && poll(&p, 1, (int)left) == 1, "'%s' came %d times in:\n%s", text, found, t->text);
		n = read(t->fd, t->text + t->len, sizeof(t->text) - 1 - t->len);
		cr_assert(n > 0, "the terminal has ended before '%s':\n%s", text, t->text);
		t->len += (size_t)n;
	}
}

static void term_type(struct term *t, const char *text)
{
	cr_assert(write(t->fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static bool is_raw(const struct term *t)
{
	struct termios now;

	cr_assert(tcgetattr(t->slave, &now) == 0);
	return !(now.c_lflag & (ICANON | ECHO | ISIG));
}

/* The program ends by itself, with @code, and its terminal is as it was. */
static void term_end(struct term *t, int code)
{
	struct pollfd p = { .fd = (int)syscall(SYS_pidfd_open, t->pid, 0), .events = POLLIN };
	struct termios now;
	int status;

	cr_assert(p.fd >= 0);
	cr_assert(poll(&p, 1, 30000) == 1, "it does not end:\n%s", t->text);
	close(p.fd);
	cr_assert(waitpid(t->pid, &status, 0) == t->pid);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == code, "status %x, expected exit code %d", (unsigned int)status, code);
	cr_assert(tcgetattr(t->slave, &now) == 0);
	cr_expect(now.c_lflag == t->before.c_lflag && now.c_iflag == t->before.c_iflag && now.c_oflag == t->before.c_oflag &&
		  now.c_cflag == t->before.c_cflag && memcmp(now.c_cc, t->before.c_cc, sizeof(now.c_cc)) == 0);
	close(t->fd);
	close(t->slave);
}

static const char *const console[] = { "gpuvm", "console", "demo", NULL };
static const char *const watching[] = { "gpuvm", "console", "--watch", "demo", NULL };

/* Both ways, the second one only watches, Ctrl-] leaves and hands over. */
Test(life, console_types_and_watches, .timeout = 120)
{
	struct place p = place_new();
	static struct term a, b;

	make_guest(&p);
	term_open(&a, console);
	term_expect(&a, "the guest is here", 1); /* what was said before */
	term_expect(&a, "Ctrl-] leaves", 1);
	EXPECT_SH(&p, 0, "$G reset demo");
	term_expect(&a, "the guest is here", 2);
	cr_expect(is_raw(&a));
	term_open(&b, console);
	term_expect(&b, "another console types", 1);
	/* The terminal does not echo: this is the guest. Ctrl-C is its business. */
	term_type(&a, "hel\x03lo");
	term_expect(&a, "hel\x03lo", 1);
	term_expect(&b, "hel\x03lo", 1);
	/* In the log when it comes to @b, so what @b types would come before the next that @a types. */
	term_type(&b, "lost");
	term_type(&a, "kept");
	term_expect(&b, "kept", 1);
	cr_expect(!strstr(b.text, "lost"), "%s", b.text);
	term_type(&b, "\x1d");
	term_end(&b, 0);
	/* Up to the escape key is typed. */
	term_type(&a, "last\x1dnever");
	term_end(&a, 0);
	EXPECT_SH(&p, 0, UNTIL("grep -aq last $R/demo/serial.log") "; ! grep -a -e lost -e never $R/demo/serial.log");
	/* A pipe that ends: all that was in it. */
	EXPECT_SH(&p, 0, "printf 'a whole command\\r' | $G console demo && " UNTIL("grep -aq 'a whole command' $R/demo/serial.log"));
	/* free again */
	term_open(&a, console);
	term_expect(&a, "console of 'demo'", 1);
	EXPECT_SH(&p, 0, "$G reset demo");
	term_expect(&a, "the guest is here", 3);
	EXPECT_SH(&p, 0, "$G kill demo");
	term_expect(&a, "has closed its console", 1);
	term_end(&a, 0);
	place_end(&p);
}

/* Every way out but SIGKILL puts the terminal back. */
Test(life, console_restores_the_terminal, .timeout = 120)
{
	static const int signals[] = { SIGTERM, SIGHUP, SIGINT, SIGQUIT };
	struct place p = place_new();
	static struct term t;

	make_guest(&p);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		term_open(&t, i % 2 ? watching : console);
		term_expect(&t, i % 2 ? "watching the console of 'demo';" : "console of 'demo';", 1);
		EXPECT_SH(&p, 0, "$G reset demo");
		term_expect(&t, "the guest is here", i == 0 ? 2 : 3 + (int)i - 1);
		cr_expect(is_raw(&t));
		cr_assert(kill(t.pid, signals[i]) == 0);
		term_end(&t, 0);
	}
	/* a watcher sees the end */
	term_open(&t, watching);
	term_expect(&t, "watching the console", 1);
	EXPECT_SH(&p, 0, "$G kill demo");
	term_expect(&t, "has closed its console", 1);
	term_end(&t, 0);
	/* not on a terminal, and without a VM */
	EXPECT_SH(&p, 1, "$G console demo </dev/null");
	EXPECT_SH(&p, 2, "$G console");
	place_end(&p);
}

Test(life, console_says_where_the_guest_writes, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d --set console.serial=log " DEMO);
	EXPECT_SH(&p, 1, "$G console demo </dev/null");
	EXPECT_SAYS(&p, "serial = log");
	EXPECT_SH(&p, 0, "$G console --watch demo </dev/null");
	EXPECT_SH(&p, 0, "$G kill demo");
	place_end(&p);
}

/* --- the supervisor ------------------------------------------------------------------------------------------------------- */

Test(life, sighup_pins_again, .timeout = 60)
{
	struct place p = place_new();

	if (sh(&p, "[ $(nproc) -ge 2 ] && which taskset") != 0)
		cr_skip("one CPU only, or no taskset");
	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "$G verify demo");
	/* A launcher that is stopped does not look by itself. */
	EXPECT_SH(&p, 1, "$G status demo --json | jq .pid >$R/pid.ini; q=" QEMU_PID "; c=$($G status demo --json | jq -r .vcpus); kill -STOP $(cat $R/pid.ini); "
			 "taskset -cap $c $q >/dev/null && $G verify demo");
	EXPECT_SAYS(&p, "thread qemu-system");
	EXPECT_SH(&p, 0, "kill -HUP $(cat $R/pid.ini) && kill -CONT $(cat $R/pid.ini); " UNTIL("grep 'SIGHUP: every thread' $R/demo/launch.log") "; $G verify demo");
	EXPECT_SAYS(&p, " 0 not as planned");
	EXPECT_SH(&p, 0, "$G status demo --json | jq -e '.state == \"running\"' && $G kill demo");
	place_end(&p);
}

/* Nobody asks: a thread that is on the wrong CPUs some time after the guest has started anew is found. */
Test(life, late_threads_are_moved, .timeout = 90)
{
	struct place p = place_new();

	if (sh(&p, "[ $(nproc) -ge 2 ] && which taskset") != 0)
		cr_skip("one CPU only, or no taskset");
	EXPECT_SH(&p, 0, "$L -v -d " DEMO);
	EXPECT_SH(&p, 0, "q=" QEMU_PID "; taskset -cp $($G status demo --json | jq -r .vcpus) $q >/dev/null && $G reset demo && "
			 UNTIL("grep \"thread 'qemu-system-x86' ($q) moved from CPUs\" $R/demo/launch.log"));
	EXPECT_SH(&p, 0, UNTIL("grep 'late threads: every thread' $R/demo/launch.log") "; $G verify demo && $G kill demo");
	place_end(&p);
}

/* Memory that comes when the guest uses it is looked at then, once: here of a "QEMU" that has none where the plan says. */
Test(life, pages_are_looked_at_later)
{
	char dir[] = "/tmp/gpuvm-pages-XXXXXX";
	struct plan_node node = { .memory_bytes = 123 << 12 };
	struct launch l = { .plan = { .vm = (char[]){ "x" }, .rundir = dir, .nodes = &node, .n_nodes = 1 }, .child = { .pid = getpid() } };
	AUTO_FREE char *path = NULL, *text = NULL;
	struct err e = { 0 };

	cr_assert_not_null(mkdtemp(dir));
	path = xasprintf("%s/events.jsonl", dir);
	l.seen_pages = true; /* before the guest ran */
	launch_look_at_pages(&l);
	cr_assert(access(path, F_OK) < 0);
	l.seen_pages = false;
	cr_assert(launch_check_pages(&l, &e) == -EXDEV);
	cr_assert_str_eq(e.msg, "memory of guest node 0: planned 492 KiB on host node 0, as it is used, found no mapping of that size and policy");
	launch_look_at_pages(&l);
	launch_look_at_pages(&l);
	cr_assert(read_text_file(path, 4096, &text) == 0);
	cr_expect(strstr(text, "\"not as planned\"") && !strchr(text, '\n'), "%s", text); /* one line, whose end is not read */
	unlink(path);
	rmdir(dir);
}

/* Also where the kernel gives it only a part of what it asked for; and it gets everything back. */
Test(life, stands_aside_and_comes_back)
{
	static const char *const parts[] = { "0,8191", "8191" };
	cpu_set_t all, now;

	if (sched_getaffinity(0, sizeof(all), &all) < 0 || !CPU_ISSET(0, &all))
		cr_skip("CPU 0 is not ours");
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		struct launch l = { .plan = { .vm = (char[]){ "x" } } };
		struct err e = { 0 };

		cr_assert(cpuset_parse(parts[i], &l.plan.emulator) == 0);
		launch_stand_aside(&l);
		cr_assert(sched_getaffinity(0, sizeof(now), &now) == 0);
		cr_expect(i == 1 || CPU_COUNT(&now) == 1);
		cr_expect(launch_unpin(&l, 0, &e) == 0);
		cr_assert(sched_getaffinity(0, sizeof(now), &now) == 0);
		cr_expect(CPU_EQUAL(&now, &all), "%s: %d CPUs of %d", parts[i], CPU_COUNT(&now), CPU_COUNT(&all));
	}
}

/* Who interrupts a start in the background means that, and not only the one who waits for it. */
Test(life, an_interrupted_start_is_undone, .timeout = 60)
{
	struct place p = place_new();

	make_hook(&p, "hook", "echo $PPID >$GPUVM_RUNDIR/began.ini; until [ -e $GPUVM_RUNDIR/go.ini ]; do sleep 0.01; done");
	/* Undone, or ended as soon as it ran: the signal is looked at where a start waits. */
	EXPECT_SH(&p, 0, "$L -d --set lifecycle.stop-timeout=100ms --set hooks.pre-bind=$R/hook.ini " DEMO " & l=$!; until [ -s $R/began.ini ]; do :; done;"
			 " kill -TERM $l; : >$R/go.ini; wait $l; until ! kill -0 $(cat $R/began.ini) 2>/dev/null; do :; done;"
			 " $G status demo --json | jq -e '.state == \"failed\" or (.state == \"stopped\" and (.reason | contains(\"asked to stop\")))'");
	place_end(&p);
}

/* A console on a terminal that is not ours any more: QEMU would make that raw and keep it. */
Test(life, daemon_lets_go_of_the_terminal, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "tail -f /dev/null | { $L -d --set console.serial=stdio " DEMO "; r=$?; kill $(pgrep -x -P $$ tail); exit $r; }");
	EXPECT_SH(&p, 0, "[ $(readlink /proc/$(jq .qemu_pid $R/demo/claim.json)/fd/0) = /dev/null ] && $G kill demo");
	place_end(&p);
}

/* What QEMU has made of a terminal is put right also when QEMU could not. */
Test(life, the_terminal_is_as_it_was, .timeout = 60)
{
	struct place p = place_new();

	if (sh(&p, "which script") != 0)
		cr_skip("no script(1)");
	EXPECT_SH(&p, 0, "script -qec \"$L -q --set console.serial=stdio " DEMO "; stty -a >$R/tty.ini\" /dev/null >$R/out.ini & "
			 UNTIL("[ \"$($G status demo --json | jq -r .state)\" = running ]") "; kill -9 $(jq .qemu_pid $R/demo/claim.json); wait; grep -w icanon $R/tty.ini && ! grep -e -icanon $R/tty.ini");
	place_end(&p);
}

/* A wake-up of ours is not to take a vCPU's turn; what a hook starts has nothing to do with that. */
Test(life, supervisor_stands_aside, .timeout = 90)
{
	struct place p = place_new();

	if (sh(&p, "[ $(nproc) -ge 2 ] && which taskset") != 0)
		cr_skip("one CPU only, or no taskset");
	make_hook(&p, "hook", "taskset -cp $$ | sed 's/.*: //' >>$GPUVM_RUNDIR/cpus.ini");
	EXPECT_SH(&p, 0, "$L -d --set hooks.post-start=$R/hook.ini --set hooks.post-stop=$R/hook.ini " DEMO);
	/* After it has said that the guest runs. */
	EXPECT_SH(&p, 0, "pid=$($G status demo --json | jq -r .pid); "
			 UNTIL("[ \"$(taskset -cp $pid | sed 's/.*: //')\" = \"$(jq -r .emulator_cpus $R/demo/plan.json)\" ]") "; $G kill demo");
	EXPECT_SH(&p, 0, UNTIL("[ \"$(wc -l <$R/cpus.ini)\" = 2 ]") "; all=$(taskset -cp $$ | sed 's/.*: //'); [ \"$(sort -u $R/cpus.ini)\" = \"$all\" ]");
	place_end(&p);
}

/* One datagram of the service manager's protocol; ten seconds. */
static const char *notified(int fd, char buf[512])
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	cr_assert(poll(&p, 1, 10000) == 1, "nothing is said to the service manager");
	n = recv(fd, buf, 511, 0);
	cr_assert(n > 0);
	buf[n] = '\0';
	return buf;
}

/* Read on until one begins with @text; none until then may begin with @never. */
static void expect_notified(int fd, const char *text, const char *never)
{
	int64_t end = now_ms() + 30000;
	char buf[512];

	do {
		cr_assert(now_ms() < end, "'%s' is not said", text);
		notified(fd, buf);
		cr_assert(!never || strncmp(buf, never, strlen(never)) != 0, "'%s' before '%s'", buf, text);
	} while (strncmp(buf, text, strlen(text)) != 0);
}

static int bind_notify(struct place *p)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	cr_assert(fd >= 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify.ini", p->root);
	cr_assert(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

#define AS_UNIT "export NOTIFY_SOCKET=$R/notify.ini; "

/* On while the loop turns, and off outside of it: unbinding and preallocation take longer than any interval. */
Test(life, watchdog_is_fed, .timeout = 90)
{
	struct place p = place_new();
	int fd = bind_notify(&p);

	EXPECT_SH(&p, 0, AS_UNIT "WATCHDOG_USEC=200000 $L -d " RESTART DEMO);
	expect_notified(fd, "READY=1", "WATCHDOG");
	expect_notified(fd, "WATCHDOG=1\nWATCHDOG_USEC=200000", NULL);
	for (int i = 0; i < 4; i++)
		expect_notified(fd, "WATCHDOG=1", NULL);
	/* A unit that says STOPPING=1 could not come back. */
	EXPECT_SH(&p, 0, "kill -9 " QEMU_PID);
	expect_notified(fd, "WATCHDOG_USEC=0", "STOPPING");
	expect_notified(fd, "STATUS=restarts in 1 s", "STOPPING");
	expect_notified(fd, "READY=1", "STOPPING");
	expect_notified(fd, "WATCHDOG=1", "STOPPING");
	EXPECT_SH(&p, 0, "$G kill demo");
	expect_notified(fd, "WATCHDOG_USEC=0", "STOPPING");
	expect_notified(fd, "STOPPING=1", NULL);
	close(fd);
	/* without it, not a word */
	EXPECT_SH(&p, 0, "rm $R/notify.ini");
	fd = bind_notify(&p);
	EXPECT_SH(&p, 0, AS_UNIT "$L -d " DEMO " && $G kill demo");
	expect_notified(fd, "READY=1", "WATCHDOG");
	expect_notified(fd, "STOPPING=1", "WATCHDOG");
	close(fd);
	place_end(&p);
}
