/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The supervisor: one loop over the QMP socket, QEMU's pidfd, signals and what is due.  Nothing polls.
 *
 * What to do is decided by the table in core/lifecycle; here events are recognised and actions carried out. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/param.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/events.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/service.h"
#include "gpuvm/slim.h"

#define QMP_TIMEOUT_MS	    1000 /* the loop stands still meanwhile; one that answers later was told all the same */
#define PATIENCE_MS	    5000 /* the same, for questions: a busy host's QEMU may need some */
#define QUIT_TIMEOUT_MS	    10000
#define KILL_TIMEOUT_MS	    30000
#define NEVER		    UINT64_MAX
#define LOGS_MS		    1000
#define PER_DEVICE_MS	    2000 /* the kernel's release of a passed device is slow; libvirt gives the same */

/* Of a change of state in the journal: `journalctl MESSAGE_ID=...`; gpuvm-launch(1). */
#define TRANSITION_ID "MESSAGE_ID=3bed1ab6f28048f48a97cf214ee67c6a"

struct supervisor {
	struct launch *l;
	/* What is due when, in ms of CLOCK_MONOTONIC; NEVER. */
	uint64_t rung_at;     /* the current rung of the ladder has failed */
	uint64_t look_at;     /* the next look for late threads, number `look` */
	uint64_t watchdog_at; /* systemd is told that we live, every watchdog_ms */
	uint64_t watchdog_ms;
	uint64_t logs_at;     /* their size is looked at: a second after one was written to */
	int logs_fd;
	unsigned int look;
	bool mute; /* QEMU has not answered a question: no more of them in this round */
	char pause_reason[512];
	char told[512]; /* the last thing that was */
	char lost[128]; /* why there is no control socket any more */
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void arm(struct supervisor *s, uint64_t ms)
{
	s->rung_at = now_ms() + ms;
}

/* The first reason is the cause; what follows are its consequences. */
static void set_reason(struct launch *l, const char *fmt, ...) PRINTF(2, 3);
static void set_reason(struct launch *l, const char *fmt, ...)
{
	va_list ap;

	if (*l->reason)
		return;
	va_start(ap, fmt);
	vsnprintf(l->reason, sizeof(l->reason), fmt, ap);
	va_end(ap);
}

static void send_command(struct launch *l, const char *command)
{
	struct err e = { 0 };

	/* When QEMU no longer listens, the ladder's next rung is a signal. */
	if (qmp_command(&l->qmp, command, NULL, QMP_TIMEOUT_MS, NULL, &e) < 0)
		log_warning("%s: %s: %s", l->plan.vm, command, e.msg);
}

static void kill_qemu(struct launch *l)
{
	l->killed_by_us = true;
	if (syscall(SYS_pidfd_send_signal, l->child.pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		log_error("%s: kill QEMU (pid %d): %s", l->plan.vm, l->child.pid, strerror(errno));
}

static uint64_t with_devices(const struct launch *l, uint64_t ms)
{
	return ms + PER_DEVICE_MS * l->plan.n_devices;
}

static const char *reason_of(const struct supervisor *s)
{
	return *s->l->reason ? s->l->reason : *s->lost ? s->lost : s->pause_reason;
}

static void save_state(struct supervisor *s)
{
	struct launch *l = s->l;
	const char *word = l->failed ? "failed" : life_state_word(l->state), *reason = reason_of(s);
	struct err e = { 0 };

	service_notify("STATUS=%s%s%s", word, *reason ? ": " : "", reason);

	if ((strcmp(l->claim.state, word) == 0 && l->claim.reason && strcmp(l->claim.reason, reason) == 0) || l->state == LIFE_ENDED)
		return;
	snprintf(l->claim.state, sizeof(l->claim.state), "%s", word);
	free(l->claim.reason);
	l->claim.reason = xstrdup(reason);
	if (claim_write(&l->claim, &e) < 0)
		log_warning("%s: %s", l->plan.vm, e.msg);
}

/* For `gpuvm status` and `gpuvm log`; a full /run must not end a VM. */
void launch_note(struct launch *l, const char *event, const char *text)
{
	struct err e = { 0 };

	if (events_add(l->plan.rundir, event, l->failed ? "failed" : life_state_word(l->state), text, &e) < 0)
		log_warning("%s: %s", l->plan.vm, e.msg);
}

static void log_change(const struct supervisor *s, enum life_state next, enum life_event ev)
{
	const char *from = life_state_word(s->l->state), *to = life_state_word(next);
	AUTO_FREE char *state = xasprintf("GPUVM_STATE=%s", s->l->failed ? "failed" : to), *before = xasprintf("GPUVM_STATE_BEFORE=%s", from),
		       *event = xasprintf("GPUVM_EVENT=%s", life_event_word(ev)), *reason = xasprintf("GPUVM_REASON=%s", reason_of(s));
	const char *const fields[] = { TRANSITION_ID, state, before, event, reason, NULL };

	log_line_with(LOG_LEVEL_NOTICE, fields, "%s: %s -> %s (%s)", s->l->plan.vm, from, to, life_event_word(ev));
}

static void take(struct supervisor *s, enum life_event ev)
{
	struct launch *l = s->l;
	struct life_step step = life_next(l->state, ev);
	bool changed = step.next != l->state;

	if (changed)
		log_change(s, step.next, ev);
	l->state = step.next;
	if (changed) {
		launch_note(l, life_event_word(ev), reason_of(s));
		*s->told = '\0';
	}
	save_state(s);
	switch (step.action) {
	case ACT_NONE:
	case ACT_END:
		break;
	case ACT_POWERDOWN:
		arm(s, l->plan.stop_timeout_ms);
		send_command(l, "system_powerdown");
		break;
	case ACT_QUIT:
		arm(s, with_devices(l, QUIT_TIMEOUT_MS));
		send_command(l, "quit");
		break;
	case ACT_WAIT:
		arm(s, with_devices(l, QUIT_TIMEOUT_MS));
		break;
	case ACT_KILL:
		arm(s, with_devices(l, KILL_TIMEOUT_MS));
		kill_qemu(l);
		break;
	}
}

/* --- late threads, interrupts --------------------------------------------------------------------------------- */

static void settle(struct launch *l, const char *when)
{
	struct err e = { 0 };
	int r = launch_settle(l, &e);

	/* That QEMU is about to end is seen in its place. */
	if (r < 0 && r != -ESRCH)
		log_warning("%s: %s: %s", l->plan.vm, when, e.msg);
	else if (r == 0)
		log_info("%s: %s: every thread is where the plan says", l->plan.vm, when);
}

/* From the first one on, unless that is still to come: a guest that resets itself all the time must not put it off for ever. */
static void start_looks(struct supervisor *s)
{
	if (s->l->plan.foreign_host || (s->look_at != NEVER && s->look == 0))
		return;
	s->look = 0;
	s->look_at = now_ms() + life_look_pause_ms(0);
}

static void on_look(struct supervisor *s)
{
	uint64_t pause = life_look_pause_ms(++s->look);

	settle(s->l, "late threads");
	launch_look_at_pages(s->l);
	slim_down();
	s->look_at = pause ? now_ms() + pause : NEVER;
}

/* --- events ------------------------------------------------------------------------------------------------ */

static const char *event_name(struct json_object *event)
{
	struct json_object *name = NULL;

	json_object_object_get_ex(event, "event", &name);
	return name ? json_object_get_string(name) : "";
}

/* What an event does not say itself. Without an answer it means less: QEMU is on its way out then, which is seen anyway, or stands still; then the events
 * that came with this one are not asked about. */
static void ask_status(struct supervisor *s, char status[32], struct qmp_full_disk *full)
{
	struct launch *l = s->l;
	struct err e = { 0 };
	int r = s->mute ? -ETIMEDOUT : qmp_query_status(&l->qmp, status, &e);

	if (s->mute)
		return;
	s->mute = r == -ETIMEDOUT;
	if (r == 0 && strcmp(status, "io-error") == 0)
		r = qmp_query_full_disk(&l->qmp, full, &e);
	if (r < 0 && r != -ESRCH && r != -ECONNRESET)
		log_warning("%s: %s", l->plan.vm, e.msg);
}

/* Why it is not running, while it is not ending either. */
static void set_pause_reason(struct supervisor *s, const struct life_news *n)
{
	if (n->ev == EV_QMP_STOP || n->ev == EV_QMP_NOSPACE || n->ev == EV_QMP_SUSPEND)
		snprintf(s->pause_reason, sizeof(s->pause_reason), "%s", n->text);
	else if (n->ev == EV_QMP_RESUME || n->ev == EV_QMP_WAKEUP)
		*s->pause_reason = '\0';
}

/* What changes the state is told by take(). */
static void tell(struct supervisor *s, const char *event, const struct life_news *n)
{
	struct launch *l = s->l;

	if (n->weight == NEWS_INFO || (n->often && strcmp(s->told, n->text) == 0))
		return;
	/* A fault is told once: QEMU says panicked, stopped and shut down. */
	if (n->failed && l->failed)
		return;
	snprintf(s->told, sizeof(s->told), "%s", n->text);
	if (n->weight == NEWS_WARNING)
		log_warning("%s: %s", l->plan.vm, n->text);
	else if (n->ev == EV_NONE)
		log_notice("%s: %s", l->plan.vm, n->text);
	if (n->ev == EV_NONE)
		launch_note(l, event, n->text);
}

static void on_qmp_event(struct supervisor *s, struct json_object *event)
{
	struct launch *l = s->l;
	struct qmp_full_disk full = { 0 };
	char status[32] = "";
	const char *name = event_name(event);
	struct life_context c = { .plan = &l->plan, .status = status, .asleep = l->state == LIFE_SUSPENDED, .full_node = full.node, .full_file = full.file };
	struct life_news n;

	log_info("%s: QEMU event %s", l->plan.vm, json_object_to_json_string_ext(event, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	if (life_asks_status(name))
		ask_status(s, status, &full);
	life_read_event(event, &c, &n);
	tell(s, name, &n);
	if (n.failed)
		l->failed = true;
	/* What follows a fault is our own `quit`: nobody's wish. */
	if (n.asked && !l->failed)
		l->asked_to_stop = true;
	if (n.failed || n.asked)
		set_reason(l, "%s", n.text);
	set_pause_reason(s, &n);
	if (n.ev != EV_NONE)
		take(s, n.ev);
	if (n.let_run)
		send_command(l, "cont");
	if (n.look)
		start_looks(s);
}

static void drain_events(struct supervisor *s)
{
	struct json_object *ev;

	s->mute = false;
	while ((ev = qmp_next_event(&s->l->qmp))) {
		on_qmp_event(s, ev);
		json_object_put(ev);
	}
}

/* A VM that was taken over: what happened while nobody listened. */
static void catch_up(struct supervisor *s)
{
	struct json_object *event;
	struct err e = { 0 };
	char status[32];

	/* Without an answer there is no socket, which the loop sees. */
	if (!s->l->adopted || qmp_query_status(&s->l->qmp, status, &e) < 0 || strcmp(status, "running") == 0)
		return;
	event = json_object_new_object();
	json_object_object_add(event, "event", json_object_new_string(strcmp(status, "suspended") == 0 ? "SUSPEND" : "STOP"));
	on_qmp_event(s, event);
	json_object_put(event);
}

static void on_socket(struct supervisor *s)
{
	struct err e = { 0 };
	int r = qmp_read(&s->l->qmp, &e);

	drain_events(s);
	if (r == 0)
		return;
	/* Also at every normal end: QEMU closes its monitor before it exits. */
	log_info("%s: control socket: %s", s->l->plan.vm, e.msg);
	snprintf(s->lost, sizeof(s->lost), "%.100s", e.msg);
	qmp_close(&s->l->qmp);
	take(s, EV_QMP_LOST);
}

/* systemctl reload: somebody may have moved threads, and vhost or worker threads may be new. */
static void repin(struct launch *l)
{
	struct err e = { 0 };

	if (launch_settle(l, &e) < 0)
		log_error("%s: SIGHUP: %s", l->plan.vm, e.msg);
	else
		log_notice("%s: SIGHUP: every thread is where the plan says", l->plan.vm);
}

static void on_signal(struct supervisor *s)
{
	struct signalfd_siginfo si;
	struct launch *l = s->l;

	while (read(l->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP) {
			repin(l);
			continue;
		}
		/* Asked twice: the operator does not want to wait. */
		bool again = l->asked_to_stop && l->state >= LIFE_STOPPING && si.ssi_signo != SIGQUIT;

		log_notice("%s: %s from pid %u", l->plan.vm, strsignal((int)si.ssi_signo), si.ssi_pid);
		if (!l->asked_to_stop && l->state == LIFE_PAUSED && si.ssi_signo != SIGQUIT)
			log_warning("%s: it is paused, and cannot hear its power button: it is ended at once", l->plan.vm);
		l->asked_to_stop = true;
		set_reason(l, "asked to stop (%s)", strsignal((int)si.ssi_signo));
		take(s, again || si.ssi_signo == SIGQUIT ? EV_KILL_REQUEST : EV_STOP_REQUEST);
	}
}

/* Twice in each interval, as sd_watchdog_enabled(3) advises. It is the loop itself that answers: one that hangs is found. What is outside
 * of the loop (giving terabytes back, the pause before a restart, preallocation) may take longer than any interval: there it is off. */
static void start_watchdog(struct supervisor *s)
{
	uint64_t usec = service_watchdog_usec();

	if (!usec)
		return;
	s->watchdog_ms = usec / 2000 ? usec / 2000 : 1;
	s->watchdog_at = now_ms() + s->watchdog_ms;
	service_notify("WATCHDOG=1\nWATCHDOG_USEC=%" PRIu64, usec);
}

static void on_watchdog(struct supervisor *s)
{
	s->watchdog_at = now_ms() + s->watchdog_ms;
	service_notify("WATCHDOG=1");
}

/* A VM is not ended because its logs cannot be watched. */
static void watch_logs(struct supervisor *s)
{
	struct err e = { 0 };

	s->logs_fd = logs_watch(s->l->plan.rundir, &e);
	if (s->logs_fd < 0)
		log_warning("%s: %s", s->l->plan.vm, e.msg);
	/* The life may have begun with another launcher. */
	s->logs_at = s->logs_fd < 0 ? NEVER : now_ms();
}

/* The kernel takes 15 ms to close an inotify file: it waits until nobody reads its marks any more. QEMU needs as long to end. */
static void unwatch_logs(struct supervisor *s)
{
	if (s->logs_fd < 0)
		return;
	close(s->logs_fd);
	s->logs_fd = -1;
	s->logs_at = NEVER;
}

static void stop_watchdog(struct supervisor *s)
{
	if (s->watchdog_ms)
		service_notify("WATCHDOG_USEC=0");
}

/* For poll(): until the first of what is due. */
static int next_due(const struct supervisor *s)
{
	uint64_t at = MIN(s->rung_at, MIN(s->look_at, MIN(s->watchdog_at, s->logs_at))), now = now_ms();

	if (at == NEVER)
		return -1;
	return at <= now ? 0 : at - now < INT_MAX ? (int)(at - now) : INT_MAX;
}

static void do_what_is_due(struct supervisor *s)
{
	uint64_t now = now_ms();

	if (s->rung_at <= now) {
		s->rung_at = NEVER;
		take(s, EV_TIMEOUT);
	}
	if (s->watchdog_at <= now)
		on_watchdog(s);
	if (s->look_at <= now)
		on_look(s);
	if (s->logs_at <= now) {
		s->logs_at = NEVER;
		logs_trim(s->l, s->logs_fd);
	}
}

static void on_exit_of_qemu(struct supervisor *s)
{
	struct launch *l = s->l;

	/* What QEMU said before it went decides why it went. */
	if (l->qmp.fd >= 0) {
		struct err e = { 0 };

		(void)qmp_read(&l->qmp, &e); /* closed by now, of course */
		drain_events(s);
	}
	/* One that was taken over is not our child. */
	if (!l->adopted && waitpid(l->child.pid, &l->wait_status, 0) < 0)
		log_error("%s: wait for QEMU (pid %d): %s", l->plan.vm, l->child.pid, strerror(errno));
	take(s, EV_EXITED);
}

/* --- the end ------------------------------------------------------------------------------------------------- */

static int judge_end(struct supervisor *s)
{
	struct launch *l = s->l;
	bool clean = l->adopted || (WIFEXITED(l->wait_status) && WEXITSTATUS(l->wait_status) == 0);
	AUTO_FREE char *tail = NULL;
	char text[96];

	if (!l->failed && l->asked_to_stop && (clean || l->killed_by_us))
		return LAUNCH_ENDED;
	if (!l->failed) {
		l->failed = true;
		if (l->killed_by_us && *s->lost)
			snprintf(l->reason, sizeof(l->reason), "QEMU could not be told anything any more (%s) and did not end: it was killed", s->lost);
		else
			snprintf(l->reason, sizeof(l->reason), "QEMU ended without being asked: %s%s",
				 l->adopted ? "how is not known, as another launcher had started it" : spawn_status_text(l->wait_status, text),
				 launch_oom_text(l, l->wait_status));
	}
	tail = launch_log_tail(l, 5);
	log_error("%s: %s%s%s", l->plan.vm, l->reason, *tail ? "; the last lines of qemu.log:\n" : "", tail);
	return LAUNCH_ABNORMAL;
}

int launch_supervise(struct launch *l)
{
	struct supervisor s = { .l = l, .rung_at = NEVER, .look_at = NEVER, .watchdog_at = NEVER };
	int code;

	launch_stand_aside(l);
	l->qmp.patience_ms = PATIENCE_MS;
	start_watchdog(&s);
	catch_up(&s);
	drain_events(&s); /* those that came between replies while starting */
	start_looks(&s);
	watch_logs(&s);
	while (l->state != LIFE_ENDED) {
		struct pollfd fds[] = { { .fd = l->child.pidfd, .events = POLLIN },
					{ .fd = l->qmp.fd, .events = POLLIN },
					{ .fd = l->signal_fd, .events = POLLIN },
					{ .fd = s.logs_at == NEVER ? s.logs_fd : -1, .events = POLLIN } };

		if (poll(fds, ARRAY_SIZE(fds), next_due(&s)) < 0) {
			if (errno == EINTR)
				continue;
			log_error("%s: poll: %s", l->plan.vm, strerror(errno));
			kill_qemu(l);
		}
		if (fds[1].revents)
			on_socket(&s);
		if (fds[2].revents)
			on_signal(&s);
		if (fds[3].revents)
			s.logs_at = now_ms() + LOGS_MS;
		if (fds[0].revents)
			on_exit_of_qemu(&s);
		else
			do_what_is_due(&s);
		/* Events that arrived while a command waited for its reply. */
		drain_events(&s);
		/* What is still written has an end: QEMU has a deadline. */
		if (l->state == LIFE_QUITTING || l->state == LIFE_KILLING)
			unwatch_logs(&s);
	}
	stop_watchdog(&s);
	unwatch_logs(&s);
	code = judge_end(&s);
	/* A unit that has said so cannot say READY=1 again. */
	if (!launch_restarts(l, code))
		service_notify("STOPPING=1");
	if (launch_undo(l, code))
		code = code ? code : LAUNCH_FAILED;
	log_notice("%s: ended: %s", l->plan.vm, l->reason);
	launch_note(l, "ended", l->reason);
	return code;
}
