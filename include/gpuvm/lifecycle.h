/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lifecycle.h - the life of a running VM as a state x event table. Pure: the supervisor feeds events and carries out actions.
 *
 * Ladder of a stop: system_powerdown, after stop-timeout `quit`, after 10 s SIGKILL.  Events come from QMP (QEMU
 * docs/interop/qmp-events), signals, the pidfd and timers. */
#ifndef GPUVM_LIFECYCLE_H
#define GPUVM_LIFECYCLE_H

enum life_state {
	LIFE_STARTING, /* until `cont` was answered */
	LIFE_RUNNING,
	LIFE_PAUSED,
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
	EV_QMP_RESUME,
	EV_QMP_FAULT,      /* STOP with internal-error, io-error, guest-panicked, watchdog; GUEST_PANICKED */
	EV_QMP_SHUTDOWN,   /* the guest shut down, or was told to */
	EV_QMP_LOST,       /* control socket closed */
	EV_EXITED,         /* the process is gone */
	EV_N_EVENTS
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

#endif
