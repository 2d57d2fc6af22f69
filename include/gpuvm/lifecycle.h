/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lifecycle.h - the life of a running VM as a state x event table. Pure: the supervisor feeds events and carries out actions.
 *
 * Ladder of a stop: system_powerdown, after stop-timeout `quit`, after 10 s SIGKILL.  Events come from QMP (QEMU
 * docs/interop/qmp-events), signals, the pidfd and timers. */
#ifndef GPUVM_LIFECYCLE_H
#define GPUVM_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

enum life_state {
	LIFE_STARTING, /* until `cont` was answered */
	LIFE_RUNNING,
	LIFE_PAUSED,
	LIFE_SUSPENDED, /* by the guest itself (ACPI S3); "paused" for people */
	LIFE_FAILING,  /* stopped by QEMU because of a fault; being shut down */
	LIFE_STOPPING, /* system_powerdown sent */
	LIFE_QUITTING, /* quit sent */
	LIFE_KILLING,  /* SIGKILL sent */
	LIFE_ENDED,
	LIFE_N_STATES
};

enum life_event {
	EV_STARTED,        /* cont was answered */
	EV_STOP_REQUEST,   /* SIGTERM, SIGINT, `gpuvm stop` */
	EV_KILL_REQUEST,   /* a second SIGTERM, `gpuvm kill` */
	EV_TIMEOUT,        /* of the current rung of the ladder */
	EV_QMP_STOP,       /* vCPUs stopped, run state "paused": a person did it */
	EV_QMP_NOSPACE,    /* vCPUs stopped, because the host has no space for what a disk was to write: resumed when there is */
	EV_QMP_RESUME,
	EV_QMP_SUSPEND,    /* the guest went to sleep (S3) */
	EV_QMP_WAKEUP,     /* and runs again */
	EV_QMP_FAULT,      /* STOP with internal-error, io-error, guest-panicked, watchdog; GUEST_PANICKED */
	EV_QMP_SHUTDOWN,   /* the guest shut down, or was told to */
	EV_QMP_LOST,       /* control socket closed */
	EV_EXITED,         /* the process is gone */
	EV_N_EVENTS,
	EV_NONE = EV_N_EVENTS /* of no consequence for the state */
};

enum life_action {
	ACT_NONE,
	ACT_POWERDOWN, /* send system_powerdown, arm the stop timer */
	ACT_QUIT,      /* send quit, arm the quit timer */
	ACT_WAIT,      /* QEMU is on its way out: arm the quit timer */
	ACT_KILL,      /* SIGKILL, arm the kill timer */
	ACT_END,       /* leave the loop */
};

struct life_step {
	enum life_state next;
	enum life_action action;
};

struct life_step life_next(enum life_state s, enum life_event e);
const char *life_state_word(enum life_state s); /* as `status` prints it: starting running paused stopping stopped failed */
const char *life_event_word(enum life_event e);

/* --- what an event of QEMU means (life_events.c) ---------------------------------------------------------------- */

struct json_object;
struct plan;

/* What the event itself does not say. */
struct life_context {
	const struct plan *plan; /* the VM and its devices */
	const char *status;      /* QEMU's run state now, if life_asks_status(); "": it could not be had */
	bool asleep;             /* the state is LIFE_SUSPENDED */
	const char *full_node, *full_file; /* of a disk for which the host has no space, if status is "io-error"; "": there is none */
};

struct life_news {
	enum life_event ev; /* EV_NONE: of no consequence for the state */
	enum life_weight { NEWS_INFO, NEWS_NOTICE, NEWS_WARNING } weight; /* from NOTICE on `gpuvm log` has it */
	bool failed;  /* the VM ends, or has ended, as failed: text is why */
	bool asked;   /* it ends because somebody wants it to, the guest itself for one: text is who */
	bool let_run; /* `cont` is to be sent */
	bool often;   /* may come for each request: the same text is told once */
	bool look;    /* QEMU may have new threads now, or devices new interrupts */
	char text[512]; /* for people */
};

/* Does the meaning of that event depend on the run state (query-status)? */
bool life_asks_status(const char *event);

/* @event is what QEMU sent, {"event": "STOP", "data": {...}}, and may be anything. What is not known means nothing and is NEWS_INFO. */
void life_read_event(struct json_object *event, const struct life_context *c, struct life_news *ret);

/* When to look again for late threads and interrupts: the pause in ms before look @nth (from 0) after something that may have made some;
 * 0: that was the last one. */
uint64_t life_look_pause_ms(unsigned int nth);

#endif
