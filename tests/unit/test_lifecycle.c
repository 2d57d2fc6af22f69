/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state x event table: whatever happens in whatever order, a VM ends. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "gpuvm/lifecycle.h"

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
	static const int ranks[LIFE_N_STATES] = { 0, 1, 1, 3, 2, 3, 4, 5 };

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
}
