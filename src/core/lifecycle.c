/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "gpuvm/lifecycle.h"

/* Short names keep the table readable as a table. */
#define STAY(s)  { LIFE_##s, ACT_NONE }
#define GO(s, a) { LIFE_##s, ACT_##a }

static const struct life_step steps[LIFE_N_STATES][EV_N_EVENTS] = {
	[LIFE_STARTING] = { [EV_STARTED] = STAY(RUNNING),
			    [EV_STOP_REQUEST] = GO(QUITTING, QUIT), /* no guest to ask yet */
			    [EV_KILL_REQUEST] = GO(KILLING, KILL),
			    [EV_TIMEOUT] = STAY(STARTING),
			    [EV_QMP_STOP] = STAY(STARTING),
			    [EV_QMP_NOSPACE] = STAY(STARTING),
			    [EV_QMP_RESUME] = STAY(STARTING), /* RESUME comes before the answer to cont */
			    [EV_QMP_SUSPEND] = STAY(STARTING),
			    [EV_QMP_WAKEUP] = STAY(STARTING),
			    [EV_QMP_FAULT] = GO(FAILING, QUIT),
			    [EV_QMP_SHUTDOWN] = GO(QUITTING, WAIT),
			    [EV_QMP_LOST] = GO(QUITTING, WAIT),
			    [EV_EXITED] = GO(ENDED, END) },
	[LIFE_RUNNING] = { [EV_STARTED] = STAY(RUNNING),
			   [EV_STOP_REQUEST] = GO(STOPPING, POWERDOWN),
			   [EV_KILL_REQUEST] = GO(KILLING, KILL),
			   [EV_TIMEOUT] = STAY(RUNNING),
			   [EV_QMP_STOP] = STAY(PAUSED),
			   [EV_QMP_NOSPACE] = STAY(PAUSED),
			   [EV_QMP_RESUME] = STAY(RUNNING),
			   [EV_QMP_SUSPEND] = STAY(SUSPENDED),
			   [EV_QMP_WAKEUP] = STAY(RUNNING),
			   [EV_QMP_FAULT] = GO(FAILING, QUIT),
			   [EV_QMP_SHUTDOWN] = GO(QUITTING, WAIT),
			   [EV_QMP_LOST] = GO(QUITTING, WAIT), /* it died, or nobody can stop it any more */
			   [EV_EXITED] = GO(ENDED, END) },
	[LIFE_PAUSED] = { [EV_STARTED] = STAY(PAUSED),
			  [EV_STOP_REQUEST] = GO(QUITTING, QUIT), /* a paused guest cannot hear a power button */
			  [EV_KILL_REQUEST] = GO(KILLING, KILL),
			  [EV_TIMEOUT] = STAY(PAUSED),
			  [EV_QMP_STOP] = STAY(PAUSED),
			  [EV_QMP_NOSPACE] = STAY(PAUSED),
			  [EV_QMP_RESUME] = STAY(RUNNING),
			  [EV_QMP_SUSPEND] = STAY(SUSPENDED),
			  [EV_QMP_WAKEUP] = STAY(PAUSED),
			  [EV_QMP_FAULT] = GO(FAILING, QUIT),
			  [EV_QMP_SHUTDOWN] = GO(QUITTING, WAIT),
			  [EV_QMP_LOST] = GO(QUITTING, WAIT),
			  [EV_EXITED] = GO(ENDED, END) },
	[LIFE_SUSPENDED] = { [EV_STARTED] = STAY(SUSPENDED),
			     [EV_STOP_REQUEST] = GO(QUITTING, QUIT), /* it sleeps: no ear for a power button, and Linux has synced its file systems */
			     [EV_KILL_REQUEST] = GO(KILLING, KILL),
			     [EV_TIMEOUT] = STAY(SUSPENDED),
			     [EV_QMP_STOP] = STAY(PAUSED),
			     [EV_QMP_NOSPACE] = STAY(PAUSED),
			     [EV_QMP_RESUME] = STAY(RUNNING),
			     [EV_QMP_SUSPEND] = STAY(SUSPENDED),
			     [EV_QMP_WAKEUP] = STAY(RUNNING),
			     [EV_QMP_FAULT] = GO(FAILING, QUIT),
			     [EV_QMP_SHUTDOWN] = GO(QUITTING, WAIT),
			     [EV_QMP_LOST] = GO(QUITTING, WAIT),
			     [EV_EXITED] = GO(ENDED, END) },
	[LIFE_FAILING] = { [EV_STARTED] = STAY(FAILING),
			   [EV_STOP_REQUEST] = STAY(FAILING),
			   [EV_KILL_REQUEST] = GO(KILLING, KILL),
			   [EV_TIMEOUT] = GO(KILLING, KILL),
			   [EV_QMP_STOP] = STAY(FAILING),
			   [EV_QMP_NOSPACE] = STAY(FAILING),
			   [EV_QMP_RESUME] = STAY(FAILING),
			   [EV_QMP_SUSPEND] = STAY(FAILING),
			   [EV_QMP_WAKEUP] = STAY(FAILING),
			   [EV_QMP_FAULT] = STAY(FAILING),
			   [EV_QMP_SHUTDOWN] = STAY(FAILING),
			   [EV_QMP_LOST] = STAY(FAILING),
			   [EV_EXITED] = GO(ENDED, END) },
	[LIFE_STOPPING] = { [EV_STARTED] = STAY(STOPPING),
			    [EV_STOP_REQUEST] = STAY(STOPPING),
			    [EV_KILL_REQUEST] = GO(KILLING, KILL),
			    [EV_TIMEOUT] = GO(QUITTING, QUIT),
			    [EV_QMP_STOP] = STAY(STOPPING),
			    [EV_QMP_NOSPACE] = STAY(STOPPING),
			    [EV_QMP_RESUME] = STAY(STOPPING),
			    [EV_QMP_SUSPEND] = STAY(STOPPING),
			    [EV_QMP_WAKEUP] = STAY(STOPPING),
			    [EV_QMP_FAULT] = GO(FAILING, QUIT),
			    [EV_QMP_SHUTDOWN] = STAY(STOPPING), /* QEMU is on its way out; the timer still runs */
			    [EV_QMP_LOST] = STAY(STOPPING),
			    [EV_EXITED] = GO(ENDED, END) },
	[LIFE_QUITTING] = { [EV_STARTED] = STAY(QUITTING),
			    [EV_STOP_REQUEST] = STAY(QUITTING),
			    [EV_KILL_REQUEST] = GO(KILLING, KILL),
			    [EV_TIMEOUT] = GO(KILLING, KILL),
			    [EV_QMP_STOP] = STAY(QUITTING),
			    [EV_QMP_NOSPACE] = STAY(QUITTING),
			    [EV_QMP_RESUME] = STAY(QUITTING),
			    [EV_QMP_SUSPEND] = STAY(QUITTING),
			    [EV_QMP_WAKEUP] = STAY(QUITTING),
			    [EV_QMP_FAULT] = STAY(QUITTING),
			    [EV_QMP_SHUTDOWN] = STAY(QUITTING),
			    [EV_QMP_LOST] = STAY(QUITTING),
			    [EV_EXITED] = GO(ENDED, END) },
	[LIFE_KILLING] = { [EV_STARTED] = STAY(KILLING),
			   [EV_STOP_REQUEST] = STAY(KILLING),
			   [EV_KILL_REQUEST] = STAY(KILLING),
			   [EV_TIMEOUT] = STAY(KILLING),
			   [EV_QMP_STOP] = STAY(KILLING),
			   [EV_QMP_NOSPACE] = STAY(KILLING),
			   [EV_QMP_RESUME] = STAY(KILLING),
			   [EV_QMP_SUSPEND] = STAY(KILLING),
			   [EV_QMP_WAKEUP] = STAY(KILLING),
			   [EV_QMP_FAULT] = STAY(KILLING),
			   [EV_QMP_SHUTDOWN] = STAY(KILLING),
			   [EV_QMP_LOST] = STAY(KILLING),
			   [EV_EXITED] = GO(ENDED, END) },
	[LIFE_ENDED] = { [EV_STARTED] = STAY(ENDED),
			 [EV_STOP_REQUEST] = STAY(ENDED),
			 [EV_KILL_REQUEST] = STAY(ENDED),
			 [EV_TIMEOUT] = STAY(ENDED),
			 [EV_QMP_STOP] = STAY(ENDED),
			 [EV_QMP_NOSPACE] = STAY(ENDED),
			 [EV_QMP_RESUME] = STAY(ENDED),
			 [EV_QMP_SUSPEND] = STAY(ENDED),
			 [EV_QMP_WAKEUP] = STAY(ENDED),
			 [EV_QMP_FAULT] = STAY(ENDED),
			 [EV_QMP_SHUTDOWN] = STAY(ENDED),
			 [EV_QMP_LOST] = STAY(ENDED),
			 [EV_EXITED] = STAY(ENDED) },
};

struct life_step life_next(enum life_state s, enum life_event e)
{
	return steps[s][e];
}

/* A guest's driver is loaded seconds to minutes after a (re)start: later looks are farther apart, and there is a last one. */
uint64_t life_look_pause_ms(unsigned int nth)
{
	static const uint64_t pauses[] = { 100, 900, 4000, 25000, 270000 }; /* so it is at 0.1 s, 1 s, 5 s, 30 s and 5 min */

	return nth < sizeof(pauses) / sizeof(*pauses) ? pauses[nth] : 0;
}

const char *life_state_word(enum life_state s)
{
	static const char *const words[LIFE_N_STATES] = { "starting", "running",  "paused",   "paused",	"stopping",
							  "stopping", "stopping", "stopping", "stopped" };

	return words[s];
}

const char *life_event_word(enum life_event e)
{
	static const char *const words[EV_N_EVENTS] = { "started",	"stop request",	  "kill request", "timeout", "stopped by a monitor", "no space left", "resumed",
							"suspended",	"woken up",	  "fault",	  "shutdown", "monitor lost",	     "process ended" };

	return words[e];
}
