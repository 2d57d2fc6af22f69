/* SPDX-License-Identifier: GPL-2.0-or-later */
/* restart.c - [lifecycle] on-crash = restart: the pause before a VM that ended abnormally is started anew. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define DELAY_MAX_S 60
#define HEALTHY_S   600 /* one that ran as long has not crashed because of how it was started */

/* Nothing of the host is held meanwhile, but the name is: so `gpuvm stop` finds whom to tell, and nobody else starts the VM. */
static int hold_name(struct launch *l, unsigned int delay, struct claim *c, struct err *e)
{
	claim_from_plan(&l->plan, l->opt->definition, c);
	c->n_devices = 0;
	c->n_memory = 0;
	c->cpus = (struct cpuset){ 0 };
	c->fabric = FABRIC_NONE;
	c->partition = -1;
	snprintf(c->state, sizeof(c->state), "starting");
	c->reason = xasprintf("restarts in %u s: %s", delay, l->reason);
	return claim_write(c, e);
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
		claim_clear(&c);
		return 1;
	}
	log_notice("%s: restarts in %u s", l->plan.vm, *delay_s);
	launch_note(l, "restart", text);
	sd_notifyf(0, "STATUS=restarts in %u s: %s", *delay_s, l->reason);
	stop = stopped_while_waiting(*delay_s);
	if (stop) {
		log_notice("%s: not restarted: asked to stop", l->plan.vm);
		snprintf(c.state, sizeof(c.state), "failed");
		if (claim_release(&c, LAUNCH_ABNORMAL, &e) < 0)
			log_error("%s: %s", l->plan.vm, e.msg);
	}
	claim_clear(&c);
	return stop;
}
