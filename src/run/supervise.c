/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The supervisor: one loop over the QMP socket, QEMU's pidfd, signals and one timer.  Nothing polls.
 *
 * What to do is decided by the table in core/lifecycle; here events are recognised and actions carried out. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>

#include "gpuvm/events.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define QMP_TIMEOUT_MS	    5000
#define QUIT_TIMEOUT_MS	    10000
#define KILL_TIMEOUT_MS	    30000
#define PER_DEVICE_MS	    2000 /* the kernel's release of a passed device is slow; libvirt gives the same */

struct supervisor {
	struct launch *l;
	int timer_fd;
	int watchdog_fd; /* -1: systemd does not watch us */
};

static void arm(struct supervisor *s, uint64_t ms)
{
	struct itimerspec t = { .it_value = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 } };

	if (timerfd_settime(s->timer_fd, 0, &t, NULL) < 0)
		log_error("%s: timerfd_settime: %s", s->l->plan.vm, strerror(errno));
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

static void save_state(struct launch *l)
{
	const char *word = l->failed ? "failed" : life_state_word(l->state);
	struct err e = { 0 };

	sd_notifyf(0, "STATUS=%s%s%s", word, *l->reason ? ": " : "", l->reason);

	if (strcmp(l->claim.state, word) == 0 || l->state == LIFE_ENDED)
		return;
	snprintf(l->claim.state, sizeof(l->claim.state), "%s", word);
	free(l->claim.reason);
	l->claim.reason = xstrdup(l->reason);
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

static void take(struct supervisor *s, enum life_event ev)
{
	struct launch *l = s->l;
	struct life_step step = life_next(l->state, ev);
	bool changed = step.next != l->state;

	if (changed)
		log_notice("%s: %s -> %s (%s)", l->plan.vm, life_state_word(l->state), life_state_word(step.next), life_event_word(ev));
	l->state = step.next;
	if (changed)
		launch_note(l, life_event_word(ev), l->reason);
	save_state(l);
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

/* --- events ------------------------------------------------------------------------------------------------ */

/* STOP comes for a person's `stop`, and for faults: vfio stops the VM on an unrecoverable device error (QEMU
 * hw/vfio/pci.c, vfio_err_notifier_handler). The run state tells which. */
static void on_stop_event(struct supervisor *s)
{
	static const char *const faults[] = { "internal-error", "io-error", "guest-panicked", "watchdog" };
	struct launch *l = s->l;
	struct err e = { 0 };
	char status[32];

	if (qmp_query_status(&l->qmp, status, &e) < 0) {
		log_warning("%s: query-status: %s", l->plan.vm, e.msg);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		if (strcmp(status, faults[i]) != 0)
			continue;
		l->failed = true;
		set_reason(l, "QEMU stopped the guest: %s", status);
		take(s, EV_QMP_FAULT);
		return;
	}
	if (strcmp(status, "paused") == 0)
		take(s, EV_QMP_STOP);
}

static const char *event_data(struct json_object *ev, const char *key)
{
	struct json_object *data = NULL, *v = NULL;

	if (json_object_object_get_ex(ev, "data", &data) && json_object_object_get_ex(data, key, &v))
		return json_object_get_string(v);
	return "";
}

static void on_shutdown_event(struct supervisor *s, struct json_object *ev)
{
	struct launch *l = s->l;
	const char *reason = event_data(ev, "reason");

	if (strcmp(reason, "guest-panic") == 0 || strcmp(reason, "host-error") == 0)
		l->failed = true;
	else
		l->asked_to_stop = true;
	set_reason(l, "shutdown: %s", reason);
	take(s, EV_QMP_SHUTDOWN);
}

static void on_qmp_event(struct supervisor *s, struct json_object *ev)
{
	struct json_object *name = NULL;
	const char *n;

	json_object_object_get_ex(ev, "event", &name);
	n = json_object_get_string(name);
	if (!n)
		return;
	log_info("%s: QEMU event %s", s->l->plan.vm, json_object_to_json_string_ext(ev, JSON_C_TO_STRING_PLAIN));
	if (strcmp(n, "STOP") == 0) {
		on_stop_event(s);
	} else if (strcmp(n, "RESUME") == 0) {
		take(s, EV_QMP_RESUME);
	} else if (strcmp(n, "SHUTDOWN") == 0) {
		on_shutdown_event(s, ev);
	} else if (strcmp(n, "GUEST_PANICKED") == 0) {
		s->l->failed = true;
		set_reason(s->l, "the guest's kernel panicked");
		take(s, EV_QMP_FAULT);
	} else if (strcmp(n, "RESET") == 0) {
		log_notice("%s: the guest was reset (%s)", s->l->plan.vm, event_data(ev, "reason"));
		launch_note(s->l, "RESET", event_data(ev, "reason"));
	} else if (strcmp(n, "MEMORY_FAILURE") == 0 || strcmp(n, "BLOCK_IO_ERROR") == 0 || strcmp(n, "WATCHDOG") == 0) {
		log_warning("%s: %s %s", s->l->plan.vm, n, json_object_to_json_string_ext(ev, JSON_C_TO_STRING_PLAIN));
		launch_note(s->l, n, json_object_to_json_string_ext(ev, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	}
}

static void drain_events(struct supervisor *s)
{
	struct json_object *ev;

	while ((ev = qmp_next_event(&s->l->qmp))) {
		on_qmp_event(s, ev);
		json_object_put(ev);
	}
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
	qmp_close(&s->l->qmp);
	take(s, EV_QMP_LOST);
}

/* systemctl reload: somebody may have moved threads, and vhost or worker threads may be new. */
static void repin(struct launch *l)
{
	struct err e = { 0 };

	if (launch_pin(l, &e) < 0)
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
		l->asked_to_stop = true;
		set_reason(l, "asked to stop (%s)", strsignal((int)si.ssi_signo));
		take(s, again || si.ssi_signo == SIGQUIT ? EV_KILL_REQUEST : EV_STOP_REQUEST);
	}
}

static void on_timer(struct supervisor *s)
{
	uint64_t expired;

	if (read(s->timer_fd, &expired, sizeof(expired)) == sizeof(expired))
		take(s, EV_TIMEOUT);
}

/* Twice in each interval, as sd_watchdog_enabled(3) advises. It is the loop itself that answers: one that hangs is found. What is outside
 * of the loop (giving terabytes back, the pause before a restart, preallocation) may take longer than any interval: there it is off. */
static int start_watchdog(void)
{
	uint64_t usec = 0;
	struct itimerspec t = { 0 };
	int fd;

	if (sd_watchdog_enabled(0, &usec) <= 0)
		return -1;
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	usec /= 2;
	t.it_interval.tv_sec = t.it_value.tv_sec = (time_t)(usec / 1000000);
	t.it_interval.tv_nsec = t.it_value.tv_nsec = (long)(usec % 1000000) * 1000;
	if (fd < 0 || timerfd_settime(fd, 0, &t, NULL) < 0)
		log_error("watchdog: %s", strerror(errno));
	sd_notifyf(0, "WATCHDOG=1\nWATCHDOG_USEC=%" PRIu64, usec * 2);
	return fd;
}

static void on_watchdog(struct supervisor *s)
{
	uint64_t expired;

	if (read(s->watchdog_fd, &expired, sizeof(expired)) == sizeof(expired))
		sd_notify(0, "WATCHDOG=1");
}

static void stop_watchdog(struct supervisor *s)
{
	if (s->watchdog_fd < 0)
		return;
	close(s->watchdog_fd);
	sd_notify(0, "WATCHDOG_USEC=0");
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
	if (waitpid(l->child.pid, &l->wait_status, 0) < 0)
		log_error("%s: wait for QEMU (pid %d): %s", l->plan.vm, l->child.pid, strerror(errno));
	take(s, EV_EXITED);
}

/* --- the end ------------------------------------------------------------------------------------------------- */

static int judge_end(struct launch *l)
{
	bool clean = WIFEXITED(l->wait_status) && WEXITSTATUS(l->wait_status) == 0;
	AUTO_FREE char *tail = NULL;
	char text[96];

	if (!l->failed && l->asked_to_stop && (clean || l->killed_by_us))
		return LAUNCH_ENDED;
	if (!l->failed) {
		l->failed = true;
		snprintf(l->reason, sizeof(l->reason), "QEMU ended without being asked: %s", spawn_status_text(l->wait_status, text));
	}
	tail = launch_log_tail(l, 5);
	log_error("%s: %s%s%s", l->plan.vm, l->reason, *tail ? "; the last lines of qemu.log:\n" : "", tail);
	return LAUNCH_ABNORMAL;
}

int launch_supervise(struct launch *l)
{
	struct supervisor s = { .l = l, .timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), .watchdog_fd = start_watchdog() };
	int code;

	if (s.timer_fd < 0)
		log_error("%s: timerfd_create: %s", l->plan.vm, strerror(errno));
	drain_events(&s); /* those that came between replies while starting */
	while (l->state != LIFE_ENDED) {
		struct pollfd fds[] = { { .fd = l->child.pidfd, .events = POLLIN },
					{ .fd = l->qmp.fd, .events = POLLIN },
					{ .fd = l->signal_fd, .events = POLLIN },
					{ .fd = s.timer_fd, .events = POLLIN },
					{ .fd = s.watchdog_fd, .events = POLLIN } };

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
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
			on_timer(&s);
		if (fds[4].revents)
			on_watchdog(&s);
		if (fds[0].revents)
			on_exit_of_qemu(&s);
		/* Events that arrived while a command waited for its reply. */
		drain_events(&s);
	}
	close(s.timer_fd);
	stop_watchdog(&s);
	code = judge_end(l);
	/* A unit that has said so cannot say READY=1 again. */
	if (!launch_restarts(l, code))
		sd_notify(0, "STOPPING=1");
	if (launch_undo(l, code))
		code = code ? code : LAUNCH_FAILED;
	log_notice("%s: ended: %s", l->plan.vm, l->reason);
	launch_note(l, "ended", l->reason);
	return code;
}
