/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "gpuvm/bind.h"
#include "gpuvm/reset.h"
#include "gpuvm/topology.h"
#include "gpuvm/worker.h"

#define DEVICE		   "/sys/bus/pci/devices/%s"
#define DEFAULT_TIMEOUT_MS 75000 /* the kernel itself gives a device up after 60 s (PCIE_RESET_READY_POLL_MS), and says so */
#define FIRST_PAUSE_MS	   5

/* --- is it there? --------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Vendor as the kernel read it when it found the device; 0 for a virtual function, which has none in its config space. */
static uint16_t expected_vendor(const struct sysfs *s, const char *bdf)
{
	AUTO_FREE char *text = sysfs_read(s, DEVICE "/vendor", bdf);
	uint64_t v = 0;

	if (sysfs_exists(s, DEVICE "/physfn", bdf) || !text || parse_hex(text, 0xffff, &v) < 0)
		return 0;
	return (uint16_t)v;
}

/* -ENODEV: not (yet). */
static int look(const struct sysfs *s, const char *bdf, uint16_t expected, struct err *e)
{
	uint8_t c[PCI_CONFIG_HEAD];
	ssize_t n = sysfs_read_bytes(s, c, sizeof(c), DEVICE "/config", bdf);
	unsigned int vendor;

	if (n < (ssize_t)sizeof(c))
		return err_sys(e, n < 0 ? (int)n : -EIO, "read its config space");
	vendor = c[0] | (unsigned int)c[1] << 8;
	if (!pci_config_is_dead(c) && (!expected || vendor == expected))
		return 0;
	if (expected)
		return err_set(e, -ENODEV, "it does not answer any more: its config space has vendor %04x, not %04x", vendor, expected);
	return err_set(e, -ENODEV, "it does not answer any more: its config space reads all ones");
}

/* Give it time to come back. */
static int wait_for_return(const struct sysfs *s, const char *bdf, struct err *e)
{
	uint64_t deadline = now_ms() + RESET_RETURN_MS;
	uint16_t expected = expected_vendor(s, bdf);
	long pause_ms = FIRST_PAUSE_MS;

	for (;;) {
		struct timespec pause = { .tv_nsec = pause_ms * 1000000 };
		bool last = now_ms() >= deadline;
		int r = look(s, bdf, expected, e);

		if (r != -ENODEV || last)
			return r;
		nanosleep(&pause, NULL);
		pause_ms = pause_ms < 100 ? pause_ms * 2 : pause_ms;
	}
}

/* --- before: may it be? ---------------------------------------------------------------------------------- */

/* Every method resets all that is on the bus. */
static bool is_of_the_bus(const char *method)
{
	AUTO_FREE char *words = xstrdup(method);
	char *save = NULL;

	if (!*words)
		return false;
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
		if (strcmp(w, "bus") && strcmp(w, "cxl_bus") && strcmp(w, "slot"))
			return false;
	return true;
}

static bool in_list(const struct pci_addr *v, size_t n, const struct pci_addr *a)
{
	for (size_t i = 0; i < n; i++)
		if (pci_addr_cmp(&v[i], a) == 0)
			return true;
	return false;
}

/* A function on the same bus that is not in the list; owned, NULL without. */
static char *find_stranger(const struct sysfs *s, const struct pci_addr *v, size_t n, const struct pci_addr *a)
{
	struct strv all = { 0 };
	char *found = NULL;

	sysfs_list(s, &all, "/sys/bus/pci/devices");
	for (size_t i = 0; i < all.n && !found; i++) {
		struct pci_addr other;

		if (parse_pci_addr(all.v[i], &other) == 0 && other.domain == a->domain && other.bus == a->bus && !in_list(v, n, &other))
			found = xstrdup(all.v[i]);
	}
	strv_clear(&all);
	return found;
}

/* Fill in the method, and the outcome of what is not even tried; true if a worker shall go on with it. */
static bool prepare(const struct sysfs *s, const struct pci_addr *v, size_t n, size_t i, struct reset_result *ret)
{
	AUTO_FREE char *driver = NULL, *method = NULL, *stranger = NULL;
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&v[i], bdf);
	*ret = (struct reset_result){ .addr = v[i], .outcome = RESET_FAILED };
	if (!sysfs_exists(s, DEVICE, bdf)) {
		err_set(&ret->err, -ENODEV, "there is no such PCI function");
		return false;
	}
	driver = bind_current_driver(s, &v[i]);
	method = sysfs_read(s, DEVICE "/reset_method", bdf);
	snprintf(ret->method, sizeof(ret->method), "%s", method ? method : "");
	ret->outcome = RESET_REFUSED;
	if (!bind_driver_is_idle(driver)) {
		err_set(&ret->err, -EPERM, "not tried: driver '%s' of the host has it, and would lose it under its hands", driver);
		return false;
	}
	stranger = is_of_the_bus(ret->method) ? find_stranger(s, v, n, &v[i]) : NULL;
	if (stranger) {
		err_set(&ret->err, -EPERM, "not tried: its only reset is that of the whole bus, on which there is also %s", stranger);
		return false;
	}
	return true;
}

/* --- the reset ---------------------------------------------------------------------------------------------- */

/* In memory that the workers share with us: a worker's own report is one error for all that it did. */
struct progress {
	atomic_bool wanted, begun, ended;
	enum reset_outcome outcome;
	struct err err;
};

struct slot_job {
	const struct sysfs *s;
	const struct pci_addr *v;
	size_t n, first;
	struct progress *progress; /* of all */
};

static bool same_slot(const struct pci_addr *a, const struct pci_addr *b)
{
	return a->domain == b->domain && a->bus == b->bus && a->dev == b->dev;
}

static enum reset_outcome reset_one(const struct sysfs *s, const char *bdf, struct err *e)
{
	bool can = sysfs_exists(s, DEVICE "/reset", bdf);
	struct err back = { 0 };
	int r = can ? sysfs_store(s, e, "1", DEVICE "/reset", bdf) : 0;
	int answers = wait_for_return(s, bdf, &back);

	if (answers == -ENODEV) {
		*e = back;
		e->word = "device-bad";
		return RESET_DEAD;
	}
	if (r < 0)
		return RESET_FAILED;
	if (answers < 0) {
		*e = back;
		return RESET_FAILED;
	}
	return can ? RESET_DONE : RESET_NONE;
}

static int run_slot(const void *arg, struct err *e)
{
	const struct slot_job *j = arg;

	(void)e;
	for (size_t i = j->first; i < j->n; i++) {
		struct progress *p = &j->progress[i];
		char bdf[PCI_ADDR_STR];

		if (!same_slot(&j->v[i], &j->v[j->first]) || !atomic_load(&p->wanted))
			continue;
		atomic_store(&p->begun, true);
		p->outcome = reset_one(j->s, pci_addr_format(&j->v[i], bdf), &p->err);
		atomic_store(&p->ended, true);
	}
	return 0;
}

/* What the workers left in @p, or why there is nothing. @work: the error of its slot's worker. */
static void collect(const struct progress *p, const struct err *work, struct reset_result *ret)
{
	if (atomic_load(&p->ended)) {
		ret->outcome = p->outcome;
		ret->err = p->err;
		return;
	}
	ret->err = *work;
	if (work->code == -ETIMEDOUT && atomic_load(&p->begun)) {
		ret->outcome = RESET_STUCK;
		ret->err.word = "device-bad";
	} else {
		ret->outcome = RESET_FAILED;
		if (work->code == -ETIMEDOUT)
			err_set(&ret->err, -EIO, "not tried: another function of its slot does not come back");
	}
}

static void run_slots(const struct sysfs *s, const struct pci_addr *v, size_t n, struct progress *progress, struct reset_result *ret)
{
	AUTO_FREE struct slot_job *slots = xcalloc(n, sizeof(*slots));
	AUTO_FREE struct worker_job *jobs = xcalloc(n, sizeof(*jobs));
	size_t n_slots = 0;

	for (size_t i = 0; i < n; i++) {
		bool is_first = atomic_load(&progress[i].wanted);

		for (size_t k = 0; k < n_slots; k++)
			is_first = is_first && !same_slot(&v[slots[k].first], &v[i]);
		if (!is_first)
			continue;
		slots[n_slots] = (struct slot_job){ .s = s, .v = v, .n = n, .first = i, .progress = progress };
		jobs[n_slots] = (struct worker_job){ .run = run_slot, .arg = &slots[n_slots], .keep_fd = s->busy_fd };
		n_slots++;
	}
	if (!s->serial)
		workers_run(jobs, n_slots, s->timeout_ms ? s->timeout_ms : DEFAULT_TIMEOUT_MS);
	for (size_t k = 0; k < n_slots; k++) {
		if (s->serial)
			run_slot(&slots[k], &jobs[k].err);
		for (size_t i = slots[k].first; i < n; i++)
			if (atomic_load(&progress[i].wanted) && same_slot(&v[i], &v[slots[k].first]))
				collect(&progress[i], &jobs[k].err, &ret[i]);
	}
}

/* --- all ------------------------------------------------------------------------------------------------------ */

const char *reset_outcome_word(enum reset_outcome o)
{
	static const char *const words[] = {
		[RESET_DONE] = "done",     [RESET_NONE] = "none", [RESET_REFUSED] = "refused",
		[RESET_FAILED] = "failed", [RESET_DEAD] = "dead", [RESET_STUCK] = "stuck",
	};

	return words[o];
}

static int severity(enum reset_outcome o)
{
	static const int order[] = { [RESET_REFUSED] = 1, [RESET_FAILED] = 2, [RESET_STUCK] = 3, [RESET_DEAD] = 4 };

	return (size_t)o < ARRAY_SIZE(order) ? order[o] : 0;
}

/* Words for the operator around what was found. */
static void finish(struct reset_result *r)
{
	static const char *const then[] = {
		[RESET_FAILED] = "; the kernel log says why",
		[RESET_DEAD] = "; the kernel log may say why, and it may come back when the host is switched off and on",
		[RESET_STUCK] = ": the kernel still waits for it",
	};
	char bdf[PCI_ADDR_STR];
	size_t len;

	if (!severity(r->outcome))
		return;
	err_wrap(&r->err, "reset %s%s%s%s", pci_addr_format(&r->addr, bdf), *r->method ? " (" : "", r->method, *r->method ? ")" : "");
	len = strlen(r->err.msg);
	if (then[r->outcome])
		snprintf(r->err.msg + len, sizeof(r->err.msg) - len, "%s", then[r->outcome]);
}

static int report_worst(const struct reset_result *v, size_t n, struct err *e)
{
	static const int codes[] = { [RESET_REFUSED] = -EPERM, [RESET_FAILED] = -EIO, [RESET_DEAD] = -ENODEV, [RESET_STUCK] = -ETIMEDOUT };
	const struct reset_result *worst = NULL;
	size_t bad = 0, len;

	for (size_t i = 0; i < n; i++) {
		bad += severity(v[i].outcome) > 0;
		if (severity(v[i].outcome) > (worst ? severity(worst->outcome) : 0))
			worst = &v[i];
	}
	if (!worst)
		return 0;
	*e = worst->err;
	e->code = codes[worst->outcome];
	len = strlen(e->msg);
	if (bad > 1)
		snprintf(e->msg + len, sizeof(e->msg) - len, " (and %zu more)", bad - 1);
	return e->code;
}

int reset_devices(const struct sysfs *s, const struct pci_addr *v, size_t n, struct reset_result *ret, struct err *e)
{
	struct progress *progress;

	if (!n)
		return 0;
	progress = mmap(NULL, n * sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (progress == MAP_FAILED)
		return err_sys(e, -errno, "cannot share memory with the workers");
	for (size_t i = 0; i < n; i++)
		atomic_store(&progress[i].wanted, prepare(s, v, n, i, &ret[i]));
	run_slots(s, v, n, progress, ret);
	for (size_t i = 0; i < n; i++)
		finish(&ret[i]);
	munmap(progress, n * sizeof(*progress));
	return report_worst(ret, n, e);
}
