/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm verify: is the running VM what was planned? */
#include <errno.h>
#include <json-c/json.h>
#include <time.h>

#include "cmd.h"
#include "gpuvm/log.h"
#include "gpuvm/verify.h"

#define CONNECT_TIMEOUT_MS 30000
#define SETTLE_TRIES	   30 /* of SETTLE_PAUSE_MS */
#define SETTLE_PAUSE_MS	   50
#define PCI_TIMEOUT_MS	   180000 /* firmware under emulation takes its time */

static const char usage[] =
	"usage: gpuvm verify [--json] NAME\n"
	"\n"
	"Read back from /proc, sysfs and QMP where every thread, page, device and BAR of the running VM is, and compare it with\n"
	"the plan. Exit code 0 if all is as planned, 1 if not.\n";

static int read_plan(const struct claim *c, struct plan *ret, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/plan.json", c->rundir), *text = NULL;
	struct json_object *o;
	int r = read_text_file(path, 64 << 20, &text);

	if (r < 0)
		return err_sys(e, r, "read '%s'", path);
	o = json_tokener_parse(text);
	if (!o)
		return err_set(e, -EPROTO, "'%s' is not JSON", path);
	r = plan_from_json(o, ret, e);
	json_object_put(o);
	return r < 0 ? err_wrap(e, "'%s'", path) : 0;
}

static int verify_placement(const struct claim *c, const struct plan *p, struct qmp *q, struct verify_report *rep, struct err *e)
{
	int r;

	/* Planned for CPUs and nodes that are not here. */
	if (p->foreign_host)
		return 0;
	r = verify_threads(p, c->qemu_pid, q, NULL, rep, e);
	return r < 0 ? r : verify_memory(p, c->qemu_pid, rep, e);
}

/* A thread that QEMU or the kernel made a moment ago (KVM has one as soon as a vCPU runs) is moved at the supervisor's next look. */
static int settled_placement(const struct claim *c, const struct plan *p, struct qmp *q, struct verify_report *rep, struct err *e)
{
	const struct timespec pause = { .tv_nsec = SETTLE_PAUSE_MS * 1000000L };
	int r = verify_placement(c, p, q, rep, e);

	for (int i = 0; i < SETTLE_TRIES && r == 0 && rep->n_bad && claim_launcher_alive(c); i++) {
		nanosleep(&pause, NULL);
		verify_clear(rep);
		r = verify_placement(c, p, q, rep, e);
	}
	return r;
}

static int collect(const struct claim *c, const struct plan *p, struct verify_report *rep, struct err *e)
{
	struct qmp q;
	int r = cmd_connect_verbs(c, CONNECT_TIMEOUT_MS, &q, e);

	if (r < 0)
		return r;
	r = settled_placement(c, p, &q, rep, e);
	if (r == 0)
		r = verify_devices(p, &sysfs_live, rep, e);
	if (r == 0)
		r = verify_guest_pci(p, &q, PCI_TIMEOUT_MS, rep, e);
	qmp_close(&q);
	return r;
}

int cmd_verify(int argc, char **argv)
{
	struct cmd_simple o = { 0 };
	struct verify_report rep = { 0 };
	struct claim c = { 0 };
	struct plan p = { 0 };
	struct err e = { 0 };
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	if (r || o.help)
		return r;
	r = cmd_running_claim(o.name, &c);
	if (r)
		return r;
	if (read_plan(&c, &p, &e) < 0 || collect(&c, &p, &rep, &e) < 0) {
		log_error("verify '%s': %s", c.vm, e.msg);
		r = EXIT_FAILED;
	} else {
		if (o.json)
			cmd_print_json(verify_to_json(&rep, c.vm));
		else
			verify_print(&rep, false, stdout);
		r = rep.n_bad ? EXIT_FAILED : EXIT_DONE;
	}
	verify_clear(&rep);
	plan_clear(&p);
	claim_clear(&c);
	return r;
}
