/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the events of QEMU's monitor mean for a VM (qapi/run-state.json, qdev.json, block-core.json; up to QEMU 11).
 * gpuvm-launch(1), "EVENTS", says the same to people. */
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gpuvm/lifecycle.h"
#include "gpuvm/plan.h"

/* "" for what is not there. */
static const char *data(struct json_object *event, const char *key)
{
	struct json_object *d = NULL, *v = NULL;

	if (!json_object_object_get_ex(event, "data", &d) || !json_object_object_get_ex(d, key, &v))
		return "";
	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

/* Of MEMORY_FAILURE. */
static bool flag(struct json_object *event, const char *key)
{
	struct json_object *d = NULL, *flags = NULL, *v = NULL;

	return json_object_object_get_ex(event, "data", &d) && json_object_object_get_ex(d, "flags", &flags) && json_object_object_get_ex(flags, key, &v) &&
	       json_object_get_boolean(v);
}

static void say(struct life_news *n, enum life_weight weight, const char *fmt, ...) PRINTF(3, 4);
static void say(struct life_news *n, enum life_weight weight, const char *fmt, ...)
{
	va_list ap;

	n->weight = weight;
	va_start(ap, fmt);
	vsnprintf(n->text, sizeof(n->text), fmt, ap);
	va_end(ap);
}

static void fail(struct life_news *n)
{
	n->failed = true;
	n->ev = EV_QMP_FAULT;
}

/* --- the guest ends ------------------------------------------------------------------------------------------ */

static const struct shutdown {
	const char *reason;
	bool failed;
	enum life_weight weight;
	const char *text;
} shutdowns[] = {
	{ "guest-shutdown", false, NEWS_NOTICE, "the guest has shut down" },
	/* With on-reboot = stop, QEMU makes a shutdown of every reset. */
	{ "guest-reset", false, NEWS_NOTICE, "the guest rebooted, which ends the VM ([lifecycle] on-reboot = stop)" },
	{ "subsystem-reset", false, NEWS_NOTICE, "the guest was reset, which ends the VM ([lifecycle] on-reboot = stop)" },
	{ "host-qmp-system-reset", false, NEWS_NOTICE, "it was reset by a monitor, which ends the VM ([lifecycle] on-reboot = stop)" },
	{ "host-qmp-quit", false, NEWS_NOTICE, "a monitor has told QEMU to quit" },
	{ "host-ui", false, NEWS_NOTICE, "its window was closed" },
	/* Ours is SIGKILL, of which QEMU says nothing. A SIGTERM is a wish, by whomever: a restart would be against it. */
	{ "host-signal", false, NEWS_WARNING, "somebody else has sent QEMU a signal to end; qemu.log says who" },
	{ "guest-panic", true, NEWS_WARNING, "the guest's kernel panicked" },
	{ "host-error", true, NEWS_WARNING, "QEMU cannot go on with the guest after an error of the host; qemu.log says which" },
};

static void read_shutdown(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	const char *reason = data(event, "reason");
	const struct shutdown *s = NULL;

	(void)c;
	for (size_t i = 0; i < ARRAY_SIZE(shutdowns) && !s; i++)
		if (strcmp(shutdowns[i].reason, reason) == 0)
			s = &shutdowns[i];
	n->ev = EV_QMP_SHUTDOWN;
	n->failed = s && s->failed;
	n->asked = !n->failed;
	if (s)
		say(n, s->weight, "%s", s->text);
	else
		say(n, NEWS_NOTICE, "shutdown: %s", *reason ? reason : "QEMU does not say why");
}

static void read_powerdown(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)event;
	(void)c;
	say(n, NEWS_NOTICE, "the guest's power button was pressed");
}

static void read_suspend_disk(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)event;
	(void)c;
	say(n, NEWS_NOTICE, "the guest has saved itself on its disk and switches off");
}

static void read_pvshutdown(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)event;
	(void)c;
	say(n, NEWS_NOTICE, "the guest says that it shuts down (pvpanic)");
}

/* --- the guest stops and goes on --------------------------------------------------------------------------------- */

/* STOP comes for a person's `stop`, and for faults: vfio stops the VM on an unrecoverable device error (QEMU
 * hw/vfio/pci.c, vfio_err_notifier_handler). The run state tells which. */
static void read_stop(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	static const char *const faults[] = { "internal-error", "io-error", "guest-panicked", "watchdog" };

	(void)event;
	if (strcmp(c->status, "paused") == 0) {
		n->ev = EV_QMP_STOP;
		say(n, NEWS_NOTICE, "a monitor has stopped the guest");
	} else if (strcmp(c->status, "debug") == 0) {
		n->ev = EV_QMP_STOP;
		say(n, NEWS_NOTICE, "a debugger has stopped the guest");
	} else if (strcmp(c->status, "io-error") == 0 && *c->full_node) {
		const char *name = strncmp(c->full_node, "disk-", 5) == 0 ? c->full_node + 5 : c->full_node;

		n->ev = EV_QMP_NOSPACE;
		say(n, NEWS_WARNING, "no space left for disk %s (node %s, %s): free some and `gpuvm resume %s`", name, c->full_node,
		    *c->full_file ? c->full_file : "file not known", c->plan->vm);
	}
	for (size_t i = 0; i < ARRAY_SIZE(faults) && n->ev == EV_NONE; i++) {
		if (strcmp(c->status, faults[i]) != 0)
			continue;
		fail(n);
		say(n, NEWS_WARNING, "QEMU stopped the guest: %s", c->status);
	}
}

static void read_resume(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)event;
	n->look = true;
	/* QEMU 9.0 and later put a guest back to sleep that was paused in its sleep. */
	if (strcmp(c->status, "suspended") == 0) {
		n->ev = EV_QMP_SUSPEND;
		say(n, NEWS_NOTICE, "suspended by the guest");
	} else {
		n->ev = EV_QMP_RESUME;
		say(n, NEWS_NOTICE, "the guest runs");
	}
}

static void read_suspend(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)event;
	n->ev = EV_QMP_SUSPEND;
	say(n, NEWS_NOTICE, "suspended by the guest; `gpuvm resume %s` wakes it", c->plan->vm);
}

static void read_wakeup(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)event;
	(void)c;
	n->ev = EV_QMP_WAKEUP;
	n->look = true;
	say(n, NEWS_NOTICE, "the guest has woken up");
}

static void read_reset(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	const char *reason = data(event, "reason");

	n->look = true;
	say(n, NEWS_NOTICE, "the guest was reset (%s)", reason);
	/* One that did not run does not run now (seen with 7.2). A person has paused it, but nobody wants it to sleep on. */
	n->let_run = strcmp(c->status, "prelaunch") == 0 && c->asleep;
	if (strcmp(c->status, "running") == 0 && c->asleep)
		n->ev = EV_QMP_WAKEUP;
}

/* --- faults -------------------------------------------------------------------------------------------------------- */

static void read_panic(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)c;
	/* -action panic=none, in [qemu] args. */
	if (strcmp(data(event, "action"), "run") == 0) {
		say(n, NEWS_WARNING, "the guest's kernel panicked; QEMU was told to let it go on");
		return;
	}
	fail(n);
	say(n, NEWS_WARNING, "the guest's kernel panicked");
}

static void read_crashloaded(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)event;
	(void)c;
	say(n, NEWS_WARNING, "the guest's kernel panicked; its crash kernel runs now");
}

static void read_watchdog(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	const char *action = data(event, "action");

	(void)c;
	/* QEMU exits at once, with 0 and without SHUTDOWN (hw/watchdog/watchdog.c). */
	n->failed = strcmp(action, "poweroff") == 0;
	say(n, NEWS_WARNING, "the guest's watchdog has expired: %s", *action ? action : "QEMU does not say what follows");
}

static void read_memory_failure(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	const char *action = data(event, "action"), *where = data(event, "recipient");
	bool guest = strcmp(where, "guest") == 0;

	(void)c;
	if (strcmp(action, "fatal") == 0) {
		fail(n);
		say(n, NEWS_WARNING, "host memory of %s has failed, and it cannot go on without", guest ? "the guest" : "QEMU");
		return;
	}
	n->often = true;
	say(n, NEWS_WARNING, "host memory of %s has failed: %s%s%s; see the host's kernel log", guest ? "the guest" : "QEMU",
	    strcmp(action, "inject") == 0  ? "the guest was told by a machine check"
	    : strcmp(action, "reset") == 0 ? "the guest could not handle it and is reset"
					   : "nothing was done",
	    flag(event, "action-required") ? ", action required" : "", flag(event, "recursive") ? ", recursive" : "");
}

static void read_disk_error(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	const char *node = data(event, "node-name"), *device = data(event, "device"), *action = data(event, "action");
	const char *name = strncmp(node, "disk-", 5) == 0 ? node + 5 : *node ? node : *device ? device : data(event, "qom-path");

	(void)c;
	n->often = true;
	/* QEMU's werror=enospc, rerror=report: stop is for a host without space, which a STOP follows. */
	say(n, NEWS_WARNING, "disk %s: %s: %s; %s", name, data(event, "operation"), data(event, "reason"),
	    strcmp(action, "stop") == 0	   ? "the guest is stopped"
	    : strcmp(action, "report") == 0 ? "the guest was told"
					    : "the guest was not told");
}

/* --- devices --------------------------------------------------------------------------------------------------------- */

static const struct plan_device *find_device(const struct plan *p, const char *id)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (strcmp(p->devices[i].id, id) == 0)
			return &p->devices[i];
	return NULL;
}

static void read_deleted(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	const char *id = data(event, "device");
	const struct plan_device *d = find_device(c->plan, id);
	char bdf[PCI_ADDR_STR];

	n->look = true;
	if (d)
		say(n, NEWS_WARNING, "%s was unplugged from the guest; its host device %s stays the VM's until that ends", id, pci_addr_format(&d->addr, bdf));
	else
		say(n, NEWS_NOTICE, "device %s was unplugged from the guest", *id ? id : data(event, "path"));
}

static void read_unplug_error(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	const char *id = data(event, "device");

	(void)c;
	say(n, NEWS_WARNING, "the guest does not let go of device %s", *id ? id : data(event, "path"));
}

static void read_migration(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)c;
	say(n, NEWS_INFO, "device %s: migration state %s", data(event, "device-id"), data(event, "device-state"));
}

static void read_hangup(struct json_object *event, const struct life_context *c, struct life_news *n)
{
	(void)c;
	say(n, NEWS_WARNING, "the client of the vfio-user device %s has gone", data(event, "vfu-id"));
}

/* --- the table ---------------------------------------------------------------------------------------------------------- */

static const struct reader {
	const char *event;
	void (*read)(struct json_object *event, const struct life_context *c, struct life_news *n);
	bool asks_status;
} readers[] = {
	{ "SHUTDOWN", read_shutdown, false },
	{ "POWERDOWN", read_powerdown, false },
	{ "RESET", read_reset, true },
	{ "STOP", read_stop, true },
	{ "RESUME", read_resume, true },
	{ "SUSPEND", read_suspend, false },
	{ "SUSPEND_DISK", read_suspend_disk, false },
	{ "WAKEUP", read_wakeup, false },
	{ "GUEST_PANICKED", read_panic, false },
	{ "GUEST_CRASHLOADED", read_crashloaded, false },
	{ "GUEST_PVSHUTDOWN", read_pvshutdown, false },
	{ "WATCHDOG", read_watchdog, false },
	{ "MEMORY_FAILURE", read_memory_failure, false },
	{ "BLOCK_IO_ERROR", read_disk_error, false },
	{ "DEVICE_DELETED", read_deleted, false },
	{ "DEVICE_UNPLUG_GUEST_ERROR", read_unplug_error, false },
	{ "VFIO_MIGRATION", read_migration, false },
	{ "VFU_CLIENT_HANGUP", read_hangup, false },
};

static const struct reader *find_reader(const char *event)
{
	for (size_t i = 0; event && i < ARRAY_SIZE(readers); i++)
		if (strcmp(readers[i].event, event) == 0)
			return &readers[i];
	return NULL;
}

bool life_asks_status(const char *event)
{
	const struct reader *r = find_reader(event);

	return r && r->asks_status;
}

void life_read_event(struct json_object *event, const struct life_context *c, struct life_news *ret)
{
	struct json_object *name = NULL;
	const struct reader *r;

	*ret = (struct life_news){ .ev = EV_NONE };
	json_object_object_get_ex(event, "event", &name);
	r = find_reader(json_object_get_string(name));
	if (r)
		r->read(event, c, ret);
}
