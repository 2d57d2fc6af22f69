/* SPDX-License-Identifier: GPL-2.0-or-later */
/* adopt.c - take over a QEMU whose launcher has died.
 *
 * All that a launcher knows is in the VM's folder: claim.json says what is held, plan.json what was decided, and control.sock, which
 * QEMU listens on, has room for the next client.  The definition is not read: it may have changed, and what runs is what was started. */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#include "gpuvm/affinity.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define PLAN_MAX      (16UL << 20)
#define GREETING_MS   30000
#define SAME_SECOND_S 1 /* a file's time may be of the second in which the claim was made */

int adopt_read_plan(const char *dir, struct plan *ret, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/plan.json", dir), *text = NULL;
	int r = read_own_file(path, PLAN_MAX, &text);
	struct json_object *o;

	if (r < 0)
		return err_sys(e, r, "read '%s'", path);
	o = json_tokener_parse(text);
	if (o)
		r = plan_from_json(o, ret, e);
	else
		r = err_set(e, -EPROTO, "not a JSON object");
	json_object_put(o);
	if (r < 0)
		return err_wrap(e, "'%s' is damaged", path);
	ret->rundir = xstrdup(dir);
	return 0;
}

/* What runs is not what the definition says now: the operator should know before the next start. */
static void compare_definition(const struct claim *c)
{
	struct stat st;

	if (!c->definition)
		return;
	if (stat(c->definition, &st) < 0)
		log_warning("%s: its definition '%s' is gone: %s", c->vm, c->definition, strerror(errno));
	else if (st.st_mtime > c->started + SAME_SECOND_S)
		log_notice("%s: '%s' was changed since the VM was started; what it says now counts from the next start on", c->vm, c->definition);
}

int adopt_claim(struct launch *l, struct claim *c, struct err *e)
{
	int r = adopt_read_plan(c->rundir, &l->plan, e);

	if (r < 0)
		return err_wrap(e, "'%s' runs, but cannot be taken over (`gpuvm kill %s` ends it and gives its devices back)", c->vm, c->vm);
	l->claim = *c;
	*c = (struct claim){ 0 };
	l->claim.launcher_pid = getpid();
	l->claim.launcher_start = process_start_time(getpid());
	r = claim_write(&l->claim, e);
	l->claimed = r == 0;
	l->adopted = r == 0;
	return r;
}

/* Where the VM is in its life. A fault is left to the supervisor, who asks again. */
static enum life_state state_of(const char *status)
{
	if (strcmp(status, "prelaunch") == 0)
		return LIFE_STARTING;
	return strcmp(status, "paused") == 0 || strcmp(status, "suspended") == 0 ? LIFE_PAUSED : LIFE_RUNNING;
}

static bool has_memory(const struct claim *c)
{
	for (size_t i = 0; i < c->n_memory; i++)
		if (!c->memory[i].allocated)
			return false;
	return true;
}

int adopt_connect(struct launch *l, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/control.sock", l->plan.rundir);
	/* One that died while QEMU was preallocating leaves a QEMU that does not answer yet. */
	uint64_t timeout = has_memory(&l->claim) || l->plan.ready_timeout_ms < GREETING_MS ? GREETING_MS : l->plan.ready_timeout_ms;
	char status[32];
	int r;

	l->child.pid = l->claim.qemu_pid;
	l->child.pidfd = pidfd_open(l->child.pid, 0);
	/* The identity is looked at when the pidfd is open: from then on it is this process that is meant. */
	if (l->child.pidfd < 0 || !claim_qemu_alive(&l->claim))
		return err_set(e, -ESRCH, "QEMU (pid %d) ended meanwhile", l->child.pid);
	r = qmp_connect(path, l->child.pidfd, &l->qmp, e);
	if (r == 0)
		r = qmp_handshake(&l->qmp, timeout, NULL, NULL, e);
	if (r == 0)
		r = qmp_query_status(&l->qmp, status, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < l->claim.n_memory; i++)
		l->claim.memory[i].allocated = true;
	l->state = state_of(status);
	log_notice("%s: taken over: QEMU has pid %d and is '%s'", l->plan.vm, l->child.pid, status);
	compare_definition(&l->claim);
	return 0;
}

/* The guest runs: what is not as planned is put right or told, and no reason to end it. */
int adopt_running(struct launch *l, struct err *e)
{
	struct err why = { 0 };

	l->seen_pages = true;
	if (launch_pin(l, &why) < 0 || launch_check(l, &why) < 0 || launch_check_pages(l, &why) < 0) {
		log_warning("%s: not as planned: %s", l->plan.vm, why.msg);
		launch_note(l, "not as planned", why.msg);
	}
	snprintf(l->claim.state, sizeof(l->claim.state), "%s", life_state_word(l->state));
	free(l->claim.reason);
	l->claim.reason = xstrdup("");
	launch_note(l, "taken over", NULL);
	return claim_write(&l->claim, e);
}

int launch_adopt(struct launch *l, const char *vm, struct err *e)
{
	AUTO_FREE char *dir = claim_vm_dir(vm);
	AUTO_CLOSE int lock = claim_lock(e);
	struct claim c = { 0 };
	int r = lock < 0 ? lock : claim_read(dir, &c, e);

	if (r == 0 && claim_launcher_alive(&c))
		r = err_set(e, -EBUSY, "'%s' has a launcher again: pid %d", vm, c.launcher_pid);
	else if (r == 0 && !claim_alive(&c))
		r = err_set(e, -ESRCH, "'%s' does not run any more", vm);
	if (r == 0)
		r = adopt_claim(l, &c, e);
	claim_clear(&c);
	return r < 0 ? r : launch_start(l, e);
}
