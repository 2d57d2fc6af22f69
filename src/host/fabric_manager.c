/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fabric_manager.c - ask Fabric Manager, again if it is not ready, and understand the answer. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "fm_priv.h"
#include "gpuvm/parse.h"
#include "gpuvm/spawn.h"

#define LIBRARY	 "libnvfm.so.1"
#define PROGRAM	 "fmpm"
#define PAUSE_MS 500 /* Fabric Manager tells nobody when it is ready */
#define NVIDIA_GPUS "/proc/driver/nvidia/gpus"

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* --- whom -------------------------------------------------------------------------------------------------- */

static int find_auto(struct fm_spec *s, struct err *e)
{
	AUTO_FREE char *program = NULL, *why = NULL;

	if (fm_try_library(LIBRARY, e) == 0) {
		snprintf(s->tool, sizeof(s->tool), "%s", LIBRARY);
		return 0;
	}
	program = spawn_find_program(PROGRAM);
	if (program && strlen(program) < sizeof(s->tool)) {
		snprintf(s->tool, sizeof(s->tool), "%s", program);
		return 0;
	}
	why = xstrdup(e->msg);
	return err_set(e, -ENOENT, "%s; and there is no " PROGRAM " in PATH", why);
}

int fm_find(const char *spec, char **ret, struct err *e)
{
	AUTO_FREE char *tool = NULL;
	struct fm_spec s;
	int r = fm_spec_parse(spec, &s);

	if (r < 0 || s.none)
		return err_set(e, -EINVAL, "'%s' names no Fabric Manager", spec);
	if (!*s.tool)
		r = find_auto(&s, e);
	else if (fm_tool_is_library(s.tool))
		r = fm_try_library(s.tool, e) < 0 ? -ENOENT : 0;
	else if (access(s.tool, X_OK) < 0)
		r = err_sys(e, -ENOENT, "'%s'", s.tool);
	if (r < 0)
		return r;
	tool = shell_quote(s.tool);
	*ret = xasprintf("%s%s%s", tool, *s.address ? " " : "", s.address);
	return 0;
}

/* --- asking ------------------------------------------------------------------------------------------------- */

static int ask_once(const struct fm *m, const struct fm_spec *s, const struct fm_request *q, struct fm_list *ret_list, struct err *e)
{
	unsigned int timeout_ms = m->call_ms ? m->call_ms : FM_CALL_MS;
	int code = 0, r;

	r = (fm_tool_is_library(s->tool) ? fm_ask_library : fm_ask_program)(s, q, timeout_ms, &code, ret_list, e);
	if (r == 0)
		return fm_judge(q->op, q->ids[0], code, e);
	e->word = "fabric-manager-failed";
	return r;
}

/* -EINTR: cancelled. */
static int pause_for(const struct fm *m, uint64_t ms, struct err *e)
{
	struct pollfd p = { .fd = m->cancel_fd > 0 ? m->cancel_fd : -1, .events = POLLIN };

	if (poll(&p, 1, (int)ms) > 0)
		return err_set(e, -EINTR, "no longer waited for Fabric Manager: stopped by a signal");
	return 0;
}

static bool is_not_ready(int r)
{
	return r == -EAGAIN || r == -ENOTCONN;
}

/* Wait before a further attempt, if there is to be one: 0, or @r, which the last one has failed with. */
static int wait_to_ask_again(const struct fm *m, uint64_t start, int r, struct err *e)
{
	uint64_t waited = now_ms() - start;
	struct err stop = { 0 };
	size_t len = strlen(e->msg);

	if (waited >= m->ready_ms) {
		if (m->ready_ms)
			snprintf(e->msg + len, sizeof(e->msg) - len, "; waited %u s for that to change", m->ready_ms / 1000);
		return r;
	}
	if (m->progress)
		m->progress(m->ctx, e->msg, waited);
	if (pause_for(m, m->ready_ms - waited < PAUSE_MS ? m->ready_ms - waited : PAUSE_MS, &stop) < 0) {
		*e = stop;
		return stop.code;
	}
	return 0;
}

static int ask(const struct fm *m, const struct fm_request *q, struct fm_list *ret_list, struct err *e)
{
	uint64_t start = now_ms();
	struct fm_spec s;
	int r;

	if (fm_spec_parse(m->manager, &s) < 0 || !*s.tool)
		return err_set(e, -EINVAL, "'%s' is no tool to talk to Fabric Manager with", m->manager);
	for (;;) {
		r = ask_once(m, &s, q, ret_list, e);
		if (!is_not_ready(r))
			return r;
		r = wait_to_ask_again(m, start, r, e);
		if (r < 0)
			return r;
	}
}

int fm_list(const struct fm *m, struct fm_list *ret, struct err *e)
{
	const struct fm_request q = { .op = FM_LIST };

	return ask(m, &q, ret, e);
}

int fm_activate(const struct fm *m, int id, struct err *e)
{
	const struct fm_request q = { .op = FM_ACTIVATE, .ids = { id }, .n_ids = 1 };
	AUTO_FREE struct fm_list *l = NULL;
	const struct fm_partition *p;
	struct err look = { 0 };
	int r = ask(m, &q, NULL, e);

	if (r != -EALREADY)
		return r;
	/* One code for two things: only the list tells which. */
	l = xcalloc(1, sizeof(*l));
	if (fm_list(m, l, &look) < 0) {
		*e = look;
		return look.code;
	}
	p = fm_list_find(l, id);
	if (p && p->active)
		return -EALREADY;
	p = fm_find_rival(l, id);
	if (p)
		err_set(e, -EBUSY, "partition %d has a GPU of partition %d, which is active and of no VM that gpuvm knows: `gpuvm fabric deactivate %d` if it is nobody's", id,
			p->id, p->id);
	e->code = -EBUSY;
	e->word = "partition-busy";
	return -EBUSY;
}

int fm_deactivate(const struct fm *m, int id, struct err *e)
{
	const struct fm_request q = { .op = FM_DEACTIVATE, .ids = { id }, .n_ids = 1 };
	int r = ask(m, &q, NULL, e);

	return r == -EALREADY ? 0 : r;
}

/* --- after a restart ------------------------------------------------------------------------------------------ */

static bool all_active(const struct fm_list *l, const int *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct fm_partition *p = fm_list_find(l, ids[i]);

		if (!p || !p->active)
			return false;
	}
	return true;
}

int fm_sync(const struct fm *m, const int *ids, size_t n, struct fm_list *ret, struct err *e)
{
	const struct fm now = { .manager = m->manager, .call_ms = m->call_ms };
	struct fm_request q = { .op = FM_SET_ACTIVE };
	uint64_t start = now_ms();
	int r;

	for (size_t i = 0; i < n && q.n_ids < FM_PARTITIONS_MAX; i++)
		q.ids[q.n_ids++] = ids[i];
	for (;;) {
		r = fm_list(&now, ret, e);
		if (r == 0)
			break;
		/* In restart mode it rejects all but this, until it has it. */
		if (r != -ENOTCONN && r != -ETIMEDOUT)
			r = ask(&now, &q, NULL, e);
		if (r == 0) {
			r = fm_list(m, ret, e);
			break;
		}
		if (!is_not_ready(r))
			return r;
		r = wait_to_ask_again(m, start, r, e);
		if (r < 0)
			return r;
	}
	if (r == 0 && !all_active(ret, ids, n)) {
		r = err_set(e, -ESTALE, "Fabric Manager does not have the partitions of all VMs that run as active");
		e->word = "fabric-manager-failed";
	}
	return r;
}

/* --- whose GPUs ------------------------------------------------------------------------------------------------ */

/* /proc/driver/nvidia/gpus/ADDRESS/information has "GPU UUID: \t GPU-...". */
static void read_uuid(const struct sysfs *s, const char *bdf, struct fabric_uuid **v, size_t *n)
{
	AUTO_FREE char *text = sysfs_read(s, NVIDIA_GPUS "/%s/information", bdf);
	const char *at = text ? strstr(text, "GPU UUID:") : NULL;
	struct fabric_uuid u = { 0 };

	if (!at || parse_pci_addr(bdf, &u.addr) < 0)
		return;
	at += strlen("GPU UUID:");
	at += strspn(at, " \t");
	snprintf(u.uuid, sizeof(u.uuid), "%.*s", (int)strcspn(at, " \t\n"), at);
	*PUSH_ZEROED(*v, *n) = u;
}

int fm_read_map(const struct fm *m, const struct sysfs *s, const struct fabric_map *known, struct fm_list *ret_list, struct fabric_map *ret, struct err *e)
{
	AUTO_FREE struct fabric_uuid *uuids = NULL;
	struct strv names = { 0 };
	size_t n = 0;
	int r = fm_list(m, ret_list, e);

	if (r < 0)
		return r;
	/* Without the NVIDIA driver there are none. */
	sysfs_list(s, &names, NVIDIA_GPUS);
	for (size_t i = 0; i < names.n; i++)
		read_uuid(s, names.v[i], &uuids, &n);
	strv_clear(&names);
	r = fabric_map_from_fm(ret_list, known, uuids, n, ret, e);
	if (r < 0)
		e->word = "fabric-mismatch";
	return r;
}
