/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "gpuvm/bind.h"
#include "gpuvm/module.h"
#include "gpuvm/worker.h"

#define DEFAULT_TIMEOUT_MS 60000
#define DEVICE             "/sys/bus/pci/devices/%s"

/* --- names --------------------------------------------------------------------------------------- */

/* Equal but for '-' and '_': the module is vfio_pci, the driver that it registers is vfio-pci. */
static bool same_driver(const char *a, const char *b)
{
	if (!a || !b)
		return !a && !b;
	for (; *a && *b; a++, b++)
		if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
			return false;
	return *a == *b;
}

/* The name under which driver @name is registered, owned; NULL if it is not.  driver_override is compared byte by byte. */
static char *registered_name(const struct sysfs *s, const char *name)
{
	struct strv drivers = { 0 };
	char *found = NULL;

	if (sysfs_exists(s, "/sys/bus/pci/drivers/%s", name))
		return xstrdup(name);
	if (sysfs_list(s, &drivers, "/sys/bus/pci/drivers") < 0)
		return NULL;
	for (size_t i = 0; i < drivers.n && !found; i++)
		if (same_driver(drivers.v[i], name))
			found = xstrdup(drivers.v[i]);
	strv_clear(&drivers);
	return found;
}

char *bind_current_driver(const struct sysfs *s, const struct pci_addr *addr)
{
	char bdf[PCI_ADDR_STR];

	return sysfs_link_name(s, DEVICE "/driver", pci_addr_format(addr, bdf));
}

static bool is_bound_to(const struct sysfs *s, const char *bdf, const char *driver)
{
	AUTO_FREE char *now = sysfs_link_name(s, DEVICE "/driver", bdf);

	return same_driver(now, driver);
}

/* --- single writes ---------------------------------------------------------------------------------- */

/* Make driver_override @want (NULL or "": none), without a write if it is so already.
 * The kernel takes the device lock even to show it: this may block, like any of the writes. */
static int set_override(const struct sysfs *s, const char *bdf, const char *want, struct err *e)
{
	AUTO_FREE char *now = sysfs_read(s, DEVICE "/driver_override", bdf);
	const char *cur = now && strcmp(now, "(null)") != 0 ? now : "";

	if (!want || strcmp(want, "(null)") == 0)
		want = "";
	if (now && strcmp(cur, want) == 0)
		return 0;
	/* "\n" clears it; a write of no bytes does not reach the kernel. */
	return sysfs_store(s, e, *want ? want : "\n", DEVICE "/driver_override", bdf);
}

/* Take the driver away, if there is one. */
static int unbind(const struct sysfs *s, const char *bdf, struct err *e)
{
	int r;

	if (is_bound_to(s, bdf, NULL))
		return 0;
	r = sysfs_store(s, e, bdf, DEVICE "/driver/unbind", bdf);
	/* The driver may have gone away (rmmod) or let go between the look and the write. */
	if ((r == -ENOENT || r == -ENODEV) && is_bound_to(s, bdf, NULL))
		return 0;
	return r;
}

/* Ask for a driver and look at what came of it: whether a probe that finds no driver, or one that refuses,
 * is an error of this write differs between kernels. */
static int probe(const struct sysfs *s, const char *bdf, const char *want, struct err *e)
{
	AUTO_FREE char *now = NULL;
	int r = sysfs_store(s, e, bdf, "/sys/bus/pci/drivers_probe");

	now = sysfs_link_name(s, DEVICE "/driver", bdf);
	if (same_driver(now, want))
		return 0;
	if (r < 0)
		return r;
	return err_set(e, -EIO, "driver '%s' did not take it (driver is now: %s); the kernel log says why", want,
		       now ? now : "none");
}

/* --- one function, forth and back ------------------------------------------------------------------- */

static int bind_one(const struct sysfs *s, const struct bind_op *op, struct err *e)
{
	AUTO_FREE char *driver = registered_name(s, op->to);
	char bdf[PCI_ADDR_STR];
	int r;

	pci_addr_format(&op->addr, bdf);
	if (is_bound_to(s, bdf, op->to))
		return 0;
	if (!driver)
		return err_set(e, -ENOENT, "driver '%s' is not loaded", op->to);
	r = set_override(s, bdf, driver, e);
	if (r == 0)
		r = unbind(s, bdf, e);
	if (r == 0)
		r = probe(s, bdf, driver, e);
	return r;
}

/* Make it the driver's that it was, whatever its override says. */
static int give_back(const struct sysfs *s, const char *bdf, const char *from, struct err *e)
{
	AUTO_FREE char *driver = registered_name(s, from);
	int r;

	/* With its own name as the override the device cannot go to a third driver that also matches. */
	r = set_override(s, bdf, driver ? driver : from, e);
	if (r == 0)
		r = unbind(s, bdf, e);
	if (r == 0 && !driver)
		r = err_set(e, -ENOENT, "driver '%s', which had it, is not loaded any more", from);
	if (r == 0)
		r = probe(s, bdf, driver, e);
	return r;
}

static int restore_one(const struct sysfs *s, const struct bind_op *op, struct err *e)
{
	char bdf[PCI_ADDR_STR];
	struct err override_err = { 0 };
	int r, override_r;

	pci_addr_format(&op->addr, bdf);
	if (!op->from) {
		/* Without a probe it stays unbound.  The override first: then any probe from elsewhere does what it would have done. */
		r = set_override(s, bdf, op->override, e);
		return r < 0 ? r : unbind(s, bdf, e);
	}

	r = is_bound_to(s, bdf, op->from) ? 0 : give_back(s, bdf, op->from, e);
	/* Also after a failure: a later modprobe of the old driver then finds its device. */
	override_r = set_override(s, bdf, op->override, &override_err);
	if (r == 0 && override_r < 0)
		*e = override_err;
	return r < 0 ? r : override_r;
}

/* --- all functions ------------------------------------------------------------------------------------ */

struct job {
	const struct sysfs *s;
	const struct bind_op *op;
	int (*run)(const struct sysfs *s, const struct bind_op *op, struct err *e);
	const char *verb;
};

static int run_job(const void *arg, struct err *e)
{
	const struct job *j = arg;

	return j->run(j->s, j->op, e);
}

/* Say which function and what was wanted; returns the code. */
static int wrap(const struct job *j, struct err *e)
{
	const char *driver = j->run == bind_one ? j->op->to : j->op->from;
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&j->op->addr, bdf);
	if (e->code == -ETIMEDOUT) {
		e->word = "device-busy";
		return err_wrap(e, "%s %s: the kernel is still waiting for whoever uses it", j->verb, bdf);
	}
	return driver ? err_wrap(e, "%s %s (%s)", j->verb, bdf, driver) : err_wrap(e, "%s %s", j->verb, bdf);
}

/* One after the other in this process; @all: go on after a failure. The first error is returned; @ret_done may be NULL. */
static int run_serial(const struct job *jobs, size_t n, bool all, bool *ret_done, struct err *e)
{
	int first = 0;

	for (size_t i = 0; i < n; i++) {
		struct err mine = { 0 };

		if (jobs[i].run(jobs[i].s, jobs[i].op, &mine) == 0) {
			if (ret_done)
				ret_done[i] = true;
			continue;
		}
		if (!first) {
			*e = mine;
			first = wrap(&jobs[i], e);
		}
		if (!all)
			break;
	}
	return first;
}

static int run_workers(const struct job *jobs, size_t n, unsigned int timeout_ms, bool *ret_done, struct err *e)
{
	AUTO_FREE struct worker_job *work = xcalloc(n, sizeof(*work));
	size_t failed = 0;

	for (size_t i = 0; i < n; i++) {
		work[i].run = run_job;
		work[i].arg = &jobs[i];
		work[i].keep_fd = jobs[i].s->busy_fd;
	}
	workers_run(work, n, timeout_ms);
	for (size_t i = 0; i < n; i++) {
		if (ret_done)
			ret_done[i] = work[i].err.code == 0;
		if (work[i].err.code == 0)
			continue;
		if (failed++)
			continue;
		*e = work[i].err;
		wrap(&jobs[i], e);
	}
	if (failed > 1) {
		size_t len = strlen(e->msg);

		snprintf(e->msg + len, sizeof(e->msg) - len, " (and %zu more)", failed - 1);
	}
	return failed ? e->code : 0;
}

static int detach_one(const struct sysfs *s, const struct bind_op *op, struct err *e)
{
	AUTO_FREE char *now = bind_current_driver(s, &op->addr), *to = registered_name(s, op->to);
	char bdf[PCI_ADDR_STR];
	int r;

	pci_addr_format(&op->addr, bdf);
	if (now && bind_driver_is_idle(now))
		return 0;
	r = set_override(s, bdf, to ? to : op->to, e);
	return r < 0 ? r : unbind(s, bdf, e);
}

typedef int job_fn(const struct sysfs *s, const struct bind_op *op, struct err *e);

static int run_all(const struct sysfs *s, const struct bind_op *ops, size_t n, job_fn *run, const char *verb, bool *ret_done, struct err *e)
{
	AUTO_FREE struct job *jobs = xcalloc(n, sizeof(*jobs));

	for (size_t i = 0; i < n; i++) {
		jobs[i].s = s;
		jobs[i].op = &ops[i];
		jobs[i].run = run;
		jobs[i].verb = verb;
	}
	if (s->serial)
		return run_serial(jobs, n, run == restore_one, ret_done, e);
	return run_workers(jobs, n, s->timeout_ms ? s->timeout_ms : DEFAULT_TIMEOUT_MS, ret_done, e);
}

int bind_devices(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e)
{
	/* What can be seen beforehand is said before the first device has lost its driver. */
	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *driver = registered_name(s, ops[i].to);
		char bdf[PCI_ADDR_STR];

		pci_addr_format(&ops[i].addr, bdf);
		if (!sysfs_exists(s, DEVICE, bdf))
			return err_set(e, -ENODEV, "bind %s: there is no such PCI function", bdf);
		if (!driver)
			return err_set(e, -ENOENT, "bind %s: driver '%s' is not loaded", bdf, ops[i].to);
	}
	return run_all(s, ops, n, bind_one, "bind", NULL, e);
}

int bind_restore(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e)
{
	return run_all(s, ops, n, restore_one, "give back", NULL, e);
}

int bind_restore_each(const struct sysfs *s, const struct bind_op *ops, size_t n, bool *ret_back, struct err *e)
{
	return run_all(s, ops, n, restore_one, "give back", ret_back, e);
}

int bind_detach(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e)
{
	return run_all(s, ops, n, detach_one, "take from its driver", NULL, e);
}

/* --- groups -------------------------------------------------------------------------------------------- */

/* The kernel's own rule: drivers that set driver_managed_dma and never touch the device's DMA. */
bool bind_driver_is_idle(const char *driver)
{
	return !driver || strcmp(driver, "pci-stub") == 0 || strncmp(driver, "vfio", 4) == 0 ||
	       strstr(driver, "vfio-pci") || strstr(driver, "vfio_pci"); /* variants: mlx5_vfio_pci, nvgrace-gpu-vfio-pci */
}

static bool is_bridge(const struct sysfs *s, const char *bdf)
{
	AUTO_FREE char *text = sysfs_read(s, DEVICE "/class", bdf);
	uint64_t class_code;

	return text && parse_hex(text, 0xffffff, &class_code) == 0 && class_code >> 8 == 0x0604;
}

/* The group of @bdf; @members are all functions in it. */
static int check_group(const struct sysfs *s, const char *bdf, const struct strv *members, struct err *e)
{
	AUTO_FREE char *group = sysfs_link_name(s, DEVICE "/iommu_group", bdf);

	for (size_t i = 0; i < members->n; i++) {
		const char *member = members->v[i];
		AUTO_FREE char *driver = sysfs_link_name(s, DEVICE "/driver", member);

		if (bind_driver_is_idle(driver) || is_bridge(s, member))
			continue;
		if (strcmp(member, bdf) == 0)
			err_set(e, -EPERM, "%s is on driver '%s', not on a vfio driver", bdf, driver);
		else
			err_set(e, -EPERM, "bind %s: IOMMU group %s also has %s (%s); add it to the VM or turn on ACS above it",
				bdf, group ? group : "?", member, driver);
		e->word = "group-not-viable";
		return -EPERM;
	}
	return 0;
}

int bind_check_groups(const struct sysfs *s, const struct bind_op *ops, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		struct strv members = { 0 };
		char bdf[PCI_ADDR_STR];
		int r;

		pci_addr_format(&ops[i].addr, bdf);
		r = sysfs_list(s, &members, DEVICE "/iommu_group/devices", bdf);
		if (r < 0) {
			err_set(e, -ENODEV, "%s is in no IOMMU group; turn the IOMMU on (firmware: VT-d or AMD-Vi; Intel kernels: "
				"intel_iommu=on)", bdf);
			e->word = "iommu-off";
			return -ENODEV;
		}
		r = check_group(s, bdf, &members, e);
		strv_clear(&members);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- modules -------------------------------------------------------------------------------------------- */

static int load_missing(const struct sysfs *s, struct err *e)
{
	int r = 0;

	/* The container driver first: it is not a dependency of vfio-pci, and a built-in one has no /sys/module folder. */
	if (!sysfs_exists(s, "/sys/module/vfio_iommu_type1"))
		r = module_load("vfio_iommu_type1", e);
	if (r == 0 && !sysfs_exists(s, "/sys/bus/pci/drivers/vfio-pci"))
		r = module_load("vfio_pci", e);
	return r;
}

int bind_load_vfio(const struct sysfs *s, struct err *e)
{
	int r = 0;

	/* Another root is another machine: its modules are not ours to load. */
	if (*s->root == '\0')
		r = load_missing(s, e);
	if (r == 0 && !sysfs_exists(s, "/sys/bus/pci/drivers/vfio-pci"))
		r = err_set(e, -ENODEV, "driver vfio-pci is not there, although its module could be loaded");
	if (r == 0 && *s->root == '\0' && !sysfs_exists(s, "/dev/vfio/vfio"))
		r = err_set(e, -ENODEV, "/dev/vfio/vfio is not there, although the vfio modules are loaded");
	if (r < 0)
		e->word = "vfio-missing";
	return r;
}
