/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state x event table: whatever happens in whatever order, a VM ends. */
#include <criterion/criterion.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "gpuvm/lifecycle.h"
#include "gpuvm/plan.h"

#define RUNGS 3 /* powerdown, quit, kill: so many timeouts and the process is killed */

static const char *words(enum life_state s, enum life_event e)
{
	static char text[96];

	snprintf(text, sizeof(text), "%s(%d), %s", life_state_word(s), (int)s, life_event_word(e));
	return text;
}

#define FOR_EACH_STEP(s, e)                                                                                            \
	for (enum life_state s = 0; s < LIFE_N_STATES; s++)                                                            \
		for (enum life_event e = 0; e < EV_N_EVENTS; e++)

Test(lifecycle, every_cell_is_filled_in)
{
	FOR_EACH_STEP(s, e)
	{
		struct life_step step = life_next(s, e);

		cr_expect(step.next < LIFE_N_STATES && step.action <= ACT_END, "%s", words(s, e));
		/* An empty cell would be STARTING without an action. */
		cr_expect(step.next != LIFE_STARTING || s == LIFE_STARTING, "%s leads back to the beginning",
			  words(s, e));
	}
}

Test(lifecycle, states_and_events_have_words)
{
	static const char *const allowed[] = { "starting", "running", "paused", "stopping", "stopped", "failed" };

	for (enum life_state s = 0; s < LIFE_N_STATES; s++) {
		size_t i = 0;

		cr_assert(life_state_word(s));
		while (i < 6 && strcmp(allowed[i], life_state_word(s)) != 0)
			i++;
		cr_expect(i < 6, "'%s' is no state of `status`", life_state_word(s));
	}
	for (enum life_event e = 0; e < EV_N_EVENTS; e++) {
		cr_assert(life_event_word(e) && *life_event_word(e));
		for (enum life_event o = 0; o < e; o++)
			cr_expect(strcmp(life_event_word(e), life_event_word(o)), "two events are called '%s'",
				  life_event_word(e));
	}
}

Test(lifecycle, an_exit_ends_it_from_everywhere)
{
	for (enum life_state s = 0; s < LIFE_ENDED; s++) {
		struct life_step step = life_next(s, EV_EXITED);

		cr_expect(step.next == LIFE_ENDED && step.action == ACT_END, "%s", words(s, EV_EXITED));
	}
}

Test(lifecycle, the_end_is_final_and_nothing_else_ends_it)
{
	FOR_EACH_STEP(s, e)
	{
		struct life_step step = life_next(s, e);

		if (s == LIFE_ENDED)
			cr_expect(step.next == LIFE_ENDED && step.action == ACT_NONE, "%s", words(s, e));
		else
			cr_expect((step.next == LIFE_ENDED) == (e == EV_EXITED), "%s", words(s, e));
	}
}

/* The way out has one direction: who is on it does not run again, and a kill is not taken back. */
static int rank(enum life_state s)
{
	static const int ranks[LIFE_N_STATES] = { 0, 1, 1, 1, 3, 2, 3, 4, 5 };

	return ranks[s];
}

Test(lifecycle, the_way_out_has_one_direction)
{
	FOR_EACH_STEP(s, e)
	if (rank(s) >= 2)
		cr_expect(rank(life_next(s, e).next) >= rank(s), "%s goes back to %s", words(s, e),
			  life_state_word(life_next(s, e).next));
}

/* Whoever enters a state with a timer has it armed: by an action that arms one. Else the VM would wait for ever. */
Test(lifecycle, a_state_that_waits_for_a_timer_has_one)
{
	FOR_EACH_STEP(s, e)
	{
		struct life_step step = life_next(s, e);
		bool waits = step.next >= LIFE_FAILING && step.next < LIFE_ENDED;

		if (waits && step.next != s)
			cr_expect(step.action != ACT_NONE && step.action != ACT_END, "%s: no timer is armed",
				  words(s, e));
		/* And the timer is not armed anew by what merely comes in between: the time would never be up. */
		if (waits && step.next == s)
			cr_expect(step.action == ACT_NONE, "%s: the timer starts again", words(s, e));
	}
}

/* The most timeouts until a kill from @s, when any @noise events may come in between; -1: never. */
static int timeouts_to_kill(enum life_state s, int noise)
{
	int worst = 0;

	for (int n = 0; s != LIFE_KILLING && s != LIFE_ENDED; n++) {
		if (n > RUNGS)
			return -1;
		for (enum life_event e = 0; noise > 0 && e < EV_N_EVENTS; e++) {
			enum life_state to = life_next(s, e).next;
			int more = e == EV_TIMEOUT ? 0 : timeouts_to_kill(to, noise - 1);

			if (more < 0)
				return -1;
			worst = n + more > worst ? n + more : worst;
		}
		s = life_next(s, EV_TIMEOUT).next;
		worst = n + 1 > worst ? n + 1 : worst;
	}
	return worst;
}

Test(lifecycle, a_stop_request_leads_to_a_kill)
{
	for (enum life_state s = 0; s < LIFE_ENDED; s++) {
		int n = timeouts_to_kill(life_next(s, EV_STOP_REQUEST).next, 2);

		cr_expect(n >= 0 && n <= RUNGS, "%s: %d timeouts", words(s, EV_STOP_REQUEST), n);
	}
}

Test(lifecycle, a_kill_request_kills)
{
	for (enum life_state s = 0; s < LIFE_KILLING; s++) {
		struct life_step step = life_next(s, EV_KILL_REQUEST);

		cr_expect(step.next == LIFE_KILLING && step.action == ACT_KILL, "%s", words(s, EV_KILL_REQUEST));
	}
}

Test(lifecycle, faults_and_a_lost_monitor_do_not_leave_it_running)
{
	static const enum life_event events[] = { EV_QMP_FAULT, EV_QMP_SHUTDOWN, EV_QMP_LOST };

	for (enum life_state s = 0; s < LIFE_ENDED; s++)
		for (size_t i = 0; i < 3; i++)
			cr_expect(rank(life_next(s, events[i]).next) >= 2, "%s", words(s, events[i]));
}

/* Only a person's resume brings a paused guest back, and only a paused one. */
Test(lifecycle, pause_and_resume)
{
	cr_assert(life_next(LIFE_RUNNING, EV_QMP_STOP).next == LIFE_PAUSED);
	cr_assert(life_next(LIFE_PAUSED, EV_QMP_RESUME).next == LIFE_RUNNING);
	for (enum life_event e = 0; e < EV_N_EVENTS; e++)
		if (e != EV_QMP_RESUME)
			cr_expect(life_next(LIFE_PAUSED, e).next != LIFE_RUNNING, "%s", words(LIFE_PAUSED, e));
	cr_assert(life_next(LIFE_STARTING, EV_STARTED).next == LIFE_RUNNING);
	cr_assert(life_next(LIFE_RUNNING, EV_QMP_NOSPACE).next == LIFE_PAUSED);
}

/* One that sleeps cannot hear a power button either. */
Test(lifecycle, suspend_and_wake_up)
{
	cr_assert(life_next(LIFE_RUNNING, EV_QMP_SUSPEND).next == LIFE_SUSPENDED);
	cr_assert(life_next(LIFE_SUSPENDED, EV_QMP_WAKEUP).next == LIFE_RUNNING);
	cr_assert(life_next(LIFE_SUSPENDED, EV_QMP_RESUME).next == LIFE_RUNNING);
	cr_assert(life_next(LIFE_SUSPENDED, EV_STOP_REQUEST).action == ACT_QUIT);
	cr_expect_str_eq(life_state_word(LIFE_SUSPENDED), "paused");
}

Test(lifecycle, looks_have_an_end)
{
	uint64_t at = 0;
	unsigned int n = 0;

	for (uint64_t last = 0, pause; (pause = life_look_pause_ms(n)) > 0; last = pause, n++) {
		cr_assert(n < 10 && pause > last, "look %u after %d ms", n, (int)pause);
		at += pause;
	}
	cr_expect(n == 5 && at == 300000, "%u looks in %d ms", n, (int)at);
	cr_expect(life_look_pause_ms(UINT_MAX) == 0);
}

/* --- what QEMU's events mean ------------------------------------------------------------------------------------- */

static const struct meaning {
	const char *event, *data, *status;
	enum life_event ev;
	enum life_weight weight;
	const char *flags; /* failed, asked, often, look, let_run: a letter each */
	const char *text;  /* is in it */
	bool asleep, full;
} meanings[] = {
	/* qapi/run-state.json, ShutdownCause */
	{ "SHUTDOWN", "{'guest': true, 'reason': 'guest-shutdown'}", "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "the guest has shut down", false, false },
	{ "SHUTDOWN", "{'guest': true, 'reason': 'guest-reset'}", "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "on-reboot = stop", false, false },
	{ "SHUTDOWN", "{'guest': true, 'reason': 'subsystem-reset'}", "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "on-reboot = stop", false, false },
	{ "SHUTDOWN", "{'guest': false, 'reason': 'host-qmp-system-reset'}", "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "on-reboot = stop", false, false },
	{ "SHUTDOWN", "{'guest': false, 'reason': 'host-qmp-quit'}", "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "quit", false, false },
	{ "SHUTDOWN", "{'guest': false, 'reason': 'host-ui'}", "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "window", false, false },
	{ "SHUTDOWN", "{'guest': false, 'reason': 'host-signal'}", "", EV_QMP_SHUTDOWN, NEWS_WARNING, "a", "signal", false, false },
	{ "SHUTDOWN", "{'guest': true, 'reason': 'guest-panic'}", "", EV_QMP_SHUTDOWN, NEWS_WARNING, "f", "the guest's kernel panicked", false, false },
	{ "SHUTDOWN", "{'guest': false, 'reason': 'host-error'}", "", EV_QMP_SHUTDOWN, NEWS_WARNING, "f", "qemu.log", false, false },
	{ "SHUTDOWN", "{'guest': false, 'reason': 'sunset'}", "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "sunset", false, false },
	{ "SHUTDOWN", NULL, "", EV_QMP_SHUTDOWN, NEWS_NOTICE, "a", "does not say", false, false },
	{ "POWERDOWN", NULL, "", EV_NONE, NEWS_NOTICE, "", "power button", false, false },
	{ "SUSPEND_DISK", NULL, "", EV_NONE, NEWS_NOTICE, "", "saved itself", false, false },
	{ "GUEST_PVSHUTDOWN", NULL, "", EV_NONE, NEWS_NOTICE, "", "pvpanic", false, false },
	/* the run state says which kind of stop it is */
	{ "STOP", NULL, "paused", EV_QMP_STOP, NEWS_NOTICE, "", "monitor", false, false },
	{ "STOP", NULL, "debug", EV_QMP_STOP, NEWS_NOTICE, "", "debugger", false, false },
	{ "STOP", NULL, "internal-error", EV_QMP_FAULT, NEWS_WARNING, "f", "internal-error", false, false },
	{ "STOP", NULL, "guest-panicked", EV_QMP_FAULT, NEWS_WARNING, "f", "guest-panicked", false, false },
	{ "STOP", NULL, "watchdog", EV_QMP_FAULT, NEWS_WARNING, "f", "watchdog", false, false },
	{ "STOP", NULL, "io-error", EV_QMP_FAULT, NEWS_WARNING, "f", "io-error", false, false },
	{ "STOP", NULL, "io-error", EV_QMP_NOSPACE, NEWS_WARNING, "",
	  "no space left for disk os (node disk-os, /img/os.qcow2): free some and `gpuvm resume demo`", false, true },
	/* what the disk once was is no fault of today's */
	{ "STOP", NULL, "internal-error", EV_QMP_FAULT, NEWS_WARNING, "f", "internal-error", false, true },
	{ "STOP", NULL, "running", EV_NONE, NEWS_INFO, "", "", false, false }, /* it goes on already */
	{ "STOP", NULL, "shutdown", EV_NONE, NEWS_INFO, "", "", false, false },
	{ "STOP", NULL, "", EV_NONE, NEWS_INFO, "", "", false, false },
	{ "RESUME", NULL, "running", EV_QMP_RESUME, NEWS_NOTICE, "l", "", false, false },
	{ "RESUME", NULL, "", EV_QMP_RESUME, NEWS_NOTICE, "l", "", false, false },
	{ "RESUME", NULL, "suspended", EV_QMP_SUSPEND, NEWS_NOTICE, "l", "suspended", false, false },
	{ "SUSPEND", NULL, "", EV_QMP_SUSPEND, NEWS_NOTICE, "", "suspended by the guest; `gpuvm resume demo`", false, false },
	{ "WAKEUP", NULL, "", EV_QMP_WAKEUP, NEWS_NOTICE, "l", "woken", true, false },
	{ "RESET", "{'guest': true, 'reason': 'guest-reset'}", "running", EV_NONE, NEWS_NOTICE, "l", "the guest was reset (guest-reset)", false, false },
	{ "RESET", "{'guest': false, 'reason': 'host-qmp-system-reset'}", "prelaunch", EV_NONE, NEWS_NOTICE, "l", "was reset", false, false },
	{ "RESET", "{'guest': false, 'reason': 'host-qmp-system-reset'}", "prelaunch", EV_NONE, NEWS_NOTICE, "lr", "was reset", true, false },
	{ "RESET", "{'guest': false, 'reason': 'host-qmp-system-reset'}", "running", EV_QMP_WAKEUP, NEWS_NOTICE, "l", "was reset", true, false },
	{ "GUEST_PANICKED", "{'action': 'poweroff'}", "", EV_QMP_FAULT, NEWS_WARNING, "f", "the guest's kernel panicked", false, false },
	{ "GUEST_PANICKED", "{'action': 'pause'}", "", EV_QMP_FAULT, NEWS_WARNING, "f", "the guest's kernel panicked", false, false },
	{ "GUEST_PANICKED", "{'action': 'run'}", "", EV_NONE, NEWS_WARNING, "", "go on", false, false },
	{ "GUEST_CRASHLOADED", "{'action': 'run'}", "", EV_NONE, NEWS_WARNING, "", "crash kernel", false, false },
	{ "WATCHDOG", "{'action': 'reset'}", "", EV_NONE, NEWS_WARNING, "", "watchdog has expired: reset", false, false },
	{ "WATCHDOG", "{'action': 'shutdown'}", "", EV_NONE, NEWS_WARNING, "", "shutdown", false, false },
	{ "WATCHDOG", "{'action': 'poweroff'}", "", EV_NONE, NEWS_WARNING, "f", "poweroff", false, false },
	{ "WATCHDOG", "{'action': 'pause'}", "", EV_NONE, NEWS_WARNING, "", "pause", false, false },
	{ "WATCHDOG", "{'action': 'debug'}", "", EV_NONE, NEWS_WARNING, "", "debug", false, false },
	{ "WATCHDOG", "{'action': 'none'}", "", EV_NONE, NEWS_WARNING, "", "none", false, false },
	{ "WATCHDOG", "{'action': 'inject-nmi'}", "", EV_NONE, NEWS_WARNING, "", "inject-nmi", false, false },
	{ "MEMORY_FAILURE", "{'recipient': 'hypervisor', 'action': 'fatal', 'flags': {}}", "", EV_QMP_FAULT, NEWS_WARNING, "f", "of QEMU has failed", false, false },
	{ "MEMORY_FAILURE", "{'recipient': 'guest', 'action': 'fatal'}", "", EV_QMP_FAULT, NEWS_WARNING, "f", "of the guest has failed", false, false },
	{ "MEMORY_FAILURE", "{'recipient': 'guest', 'action': 'inject', 'flags': {'action-required': true, 'recursive': false}}", "", EV_NONE, NEWS_WARNING, "o",
	  "machine check, action required", false, false },
	{ "MEMORY_FAILURE", "{'recipient': 'guest', 'action': 'reset', 'flags': {'action-required': true, 'recursive': true}}", "", EV_NONE, NEWS_WARNING, "o",
	  "is reset, action required, recursive", false, false },
	{ "MEMORY_FAILURE", "{'recipient': 'hypervisor', 'action': 'ignore'}", "", EV_NONE, NEWS_WARNING, "o", "nothing was done", false, false },
	{ "BLOCK_IO_ERROR", "{'device': '', 'node-name': 'disk-os', 'operation': 'write', 'action': 'stop', 'nospace': true, 'reason': 'No space left on device'}", "",
	  EV_NONE, NEWS_WARNING, "o", "disk os: write: No space left on device; the guest is stopped", false, false },
	{ "BLOCK_IO_ERROR", "{'device': 'ide0-hd1', 'operation': 'read', 'action': 'report', 'reason': 'Input/output error'}", "", EV_NONE, NEWS_WARNING, "o",
	  "disk ide0-hd1: read: Input/output error; the guest was told", false, false },
	{ "BLOCK_IO_ERROR", "{'qom-path': '/machine/x', 'device': '', 'operation': 'read', 'action': 'ignore', 'reason': 'x'}", "", EV_NONE, NEWS_WARNING, "o",
	  "disk /machine/x: read: x; the guest was not told", false, false },
	{ "DEVICE_DELETED", "{'device': 'gpu0', 'path': '/machine/peripheral/gpu0'}", "", EV_NONE, NEWS_WARNING, "l",
	  "gpu0 was unplugged from the guest; its host device 0000:17:00.0", false, false },
	{ "DEVICE_DELETED", "{'device': 'other', 'path': '/machine/peripheral/other'}", "", EV_NONE, NEWS_NOTICE, "l", "device other", false, false },
	{ "DEVICE_DELETED", "{'path': '/machine/peripheral/other/virtio-backend'}", "", EV_NONE, NEWS_NOTICE, "l", "virtio-backend", false, false },
	{ "DEVICE_UNPLUG_GUEST_ERROR", "{'device': 'gpu0', 'path': '/machine/peripheral/gpu0'}", "", EV_NONE, NEWS_WARNING, "", "gpu0", false, false },
	{ "VFIO_MIGRATION", "{'device-id': 'nic0', 'qom-path': '/x', 'device-state': 'stop'}", "", EV_NONE, NEWS_INFO, "", "nic0: migration state stop", false, false },
	{ "VFU_CLIENT_HANGUP", "{'vfu-id': 'v1', 'vfu-qom-path': '/x', 'dev-id': 'd', 'dev-qom-path': '/y'}", "", EV_NONE, NEWS_WARNING, "", "v1", false, false },
	/* not known, not even an event */
	{ "NIC_RX_FILTER_CHANGED", "{'path': '/x'}", "", EV_NONE, NEWS_INFO, "", "", false, false },
	{ "", NULL, "", EV_NONE, NEWS_INFO, "", "", false, false },
};

static struct json_object *make_event(const struct meaning *m)
{
	struct json_object *o = json_object_new_object(), *data = m->data ? json_tokener_parse(m->data) : NULL;

	cr_assert(!m->data || data, "%s", m->data);
	if (*m->event)
		json_object_object_add(o, "event", json_object_new_string(m->event));
	if (data)
		json_object_object_add(o, "data", data);
	return o;
}

Test(lifecycle, events_have_a_meaning)
{
	struct plan_device gpu = { .id = (char[]){ "gpu0" }, .addr = { .bus = 0x17 } };
	struct plan plan = { .vm = (char[]){ "demo" }, .devices = &gpu, .n_devices = 1 };

	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++) {
		const struct meaning *m = &meanings[i];
		struct life_context c = { .plan = &plan, .status = m->status, .asleep = m->asleep, .full_node = m->full ? "disk-os" : "", .full_file = m->full ? "/img/os.qcow2" : "" };
		struct json_object *o = make_event(m);
		struct life_news n;
		char flags[8];

		life_read_event(o, &c, &n);
		snprintf(flags, sizeof(flags), "%s%s%s%s%s", n.failed ? "f" : "", n.asked ? "a" : "", n.often ? "o" : "", n.look ? "l" : "", n.let_run ? "r" : "");
		cr_expect(n.ev == m->ev && n.weight == m->weight, "%s %s: event %d, weight %d", m->event, m->data, (int)n.ev, (int)n.weight);
		cr_expect_str_eq(flags, m->flags, "%s %s: %s", m->event, m->data, flags);
		cr_expect(strstr(n.text, m->text) && (*m->text || n.ev != EV_NONE || !*n.text), "%s %s: '%s'", m->event, m->data, n.text);
		/* A change must be told by words, and a failure by a reason. */
		cr_expect(n.ev == EV_NONE || *n.text);
		cr_expect(!n.failed || n.weight == NEWS_WARNING);
		json_object_put(o);
	}
}

/* Only where it makes a difference: each question is an exchange with QEMU. */
Test(lifecycle, the_run_state_is_asked_for_where_it_counts)
{
	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++)
		cr_expect(life_asks_status(meanings[i].event) == (strstr("STOP RESUME RESET", meanings[i].event) && *meanings[i].event), "%s", meanings[i].event);
	cr_expect(!life_asks_status(NULL));
}

/* What is not known to the table, and so only logged, need not be. */
Test(lifecycle, events_are_documented)
{
	AUTO_FREE char *text = NULL;
	const char *page;

	cr_assert(read_text_file("docs/man/gpuvm-launch.1.scd", 1 << 20, &text) == 0);
	page = strstr(text, "# EVENTS");
	*strstr(text, "# JOURNAL") = '\0';
	cr_assert(page);
	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++) {
		AUTO_FREE char *reason = meanings[i].data && !strcmp(meanings[i].event, "SHUTDOWN") ? xstrdup(strstr(meanings[i].data, "reason") + 10) : NULL;

		cr_expect(strstr(page, meanings[i].event) || !strcmp(meanings[i].event, "NIC_RX_FILTER_CHANGED"), "%s", meanings[i].event);
		if (reason)
			reason[strcspn(reason, "'")] = '\0';
		cr_expect(!reason || strstr(page, reason) || !strcmp(reason, "sunset"), "%s", reason);
	}
}

/* Whatever QEMU may send in the place of what it should. */
Test(lifecycle, events_may_be_nonsense)
{
	static const char *const nonsense[] = { "null", "7", "[]", "{}", "{'event': 7}", "{'event': null}", "{'event': 'STOP', 'data': 7}", "{'event': 'RESET', 'data': []}",
						"{'event': 'SHUTDOWN', 'data': {'reason': null}}", "{'event': 'SHUTDOWN', 'data': {'reason': [1]}}",
						"{'event': 'DEVICE_DELETED', 'data': {'device': {}}}", "{'event': 'BLOCK_IO_ERROR'}",
						"{'event': 'MEMORY_FAILURE', 'data': {'flags': 7}}" };
	struct plan plan = { .vm = (char[]){ "demo" } };
	struct life_context c = { .plan = &plan, .status = "", .full_node = "", .full_file = "" };

	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		struct json_object *o = json_tokener_parse(nonsense[i]);
		struct life_news n;

		life_read_event(o, &c, &n);
		cr_expect(n.ev <= EV_NONE && !n.failed, "%s", nonsense[i]);
		json_object_put(o);
	}
}
