/* SPDX-License-Identifier: GPL-2.0-or-later */
/* restart.c - [lifecycle] on-crash = restart: the pause before a VM that ended abnormally is started anew. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gpuvm/events.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/service.h"

#define DELAY_MAX_S 60
#define HEALTHY_S   600 /* one that ran as long has not crashed because of how it was started */

bool launch_restarts(const struct launch *l, int code)
{
	return code == LAUNCH_ABNORMAL && l->plan.on_crash == CRASH_RESTART && !l->asked_to_stop;
}

/* Between the end of the last run and now, somebody else may have started the VM; and where not all was given back, the claim is
 * the only one that knows what. Call with the lock held. */
static int check_name_is_free(const struct launch *l, struct err *e)
{
	struct claim c = { 0 };
	int r = claim_read(l->plan.rundir, &c, e);

	claim_clear(&c);
	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : err_set(e, -EBUSY, "'%s' has a claim: `gpuvm status %s` shows whose", l->plan.rundir, l->plan.vm);
}

/* A claim as of the plan holds what it would take: all but the name goes. */
static void name_only(struct claim *c)
{
	struct claim name = { .started = c->started,
			      .launcher_pid = c->launcher_pid,
			      .launcher_start = c->launcher_start,
			      .on_launcher_death = c->on_launcher_death,
			      .fabric = FABRIC_NONE,
			      .partition = -1 };

	name.vm = STEAL_PTR(c->vm);
	name.definition = STEAL_PTR(c->definition);
	name.rundir = STEAL_PTR(c->rundir);
	name.boot_id = STEAL_PTR(c->boot_id);
	claim_clear(c);
	*c = name;
}

/* Nothing of the host is held meanwhile, but the name is: so `gpuvm stop` finds whom to tell, and nobody else starts the VM. */
static int hold_name(struct launch *l, unsigned int delay, struct claim *c, struct err *e)
{
	AUTO_CLOSE int lock = claim_lock(e);
	int r = lock < 0 ? lock : check_name_is_free(l, e);

	if (r < 0)
		return r;
	claim_from_plan(&l->plan, l->opt->definition, c);
	name_only(c);
	snprintf(c->state, sizeof(c->state), "starting");
	c->reason = xasprintf("restarts in %u s: %s", delay, l->reason);
	return claim_write(c, e);
}

/* @code: how the VM ended, or why it does not start again. */
static void release_name(struct claim *c, const char *reason, int code)
{
	struct err e = { 0 };

	snprintf(c->state, sizeof(c->state), "failed");
	free(c->reason);
	c->reason = xstrdup(reason);
	if (claim_release(c, code, &e) < 0)
		log_error("%s: %s", c->vm, e.msg);
}

void launch_drop_name(const char *vm, const char *reason, int exit_code)
{
	AUTO_FREE char *dir = claim_vm_dir(vm), *text = xasprintf("not restarted: %s", reason);
	struct claim c = { 0 };
	struct err e = { 0 };
	int r = claim_read(dir, &c, &e);

	if (r == 0 && c.launcher_pid == getpid() && claim_launcher_alive(&c)) {
		release_name(&c, text, exit_code);
		if (events_add(dir, "not restarted", "failed", reason, &e) < 0)
			log_warning("%s: %s", vm, e.msg);
	} else if (r < 0 && r != -ENOENT) {
		log_error("%s: %s", vm, e.msg);
	}
	claim_clear(&c);
}

/* True: somebody wants it to stop. */
static bool stopped_while_waiting(unsigned int delay)
{
	struct timespec left = { .tv_sec = delay };
	sigset_t set;
	int sig;

	/* They are blocked since the VM was started. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGQUIT);
	while ((sig = sigtimedwait(&set, NULL, &left)) < 0 && errno == EINTR)
		;
	return sig > 0;
}

int launch_pause_before_restart(struct launch *l, int64_t ran_s, unsigned int *delay_s)
{
	struct claim c = { 0 };
	struct err e = { 0 };
	AUTO_FREE char *text = NULL;
	bool stop;
	int r;

	*delay_s = ran_s >= HEALTHY_S || !*delay_s ? 1 : *delay_s * 2 > DELAY_MAX_S ? DELAY_MAX_S : *delay_s * 2;
	text = xasprintf("in %u s", *delay_s);
	r = hold_name(l, *delay_s, &c, &e);
	if (r < 0) {
		log_error("%s: not restarted: %s", l->plan.vm, e.msg);
		service_notify("STOPPING=1");
		claim_clear(&c);
		return 1;
	}
	log_notice("%s: restarts in %u s", l->plan.vm, *delay_s);
	launch_note(l, "restart", text);
	service_notify("STATUS=restarts in %u s: %s", *delay_s, l->reason);
	stop = stopped_while_waiting(*delay_s);
	if (stop) {
		log_notice("%s: not restarted: asked to stop", l->plan.vm);
		launch_note(l, "not restarted", "asked to stop");
		release_name(&c, l->reason, LAUNCH_ABNORMAL);
		service_notify("STOPPING=1");
	}
	claim_clear(&c);
	return stop;
}
