/* SPDX-License-Identifier: GPL-2.0-or-later */
/* partition.c - the VM's NVLink partition: planned with what Fabric Manager says, activated before its GPUs are bound, deactivated when they are back.
 *
 * How it works: GPUs are taken from the host's driver and reset first, since a reset takes the links down that activating sets up; "reset", the stage after
 * "bind", leaves them out.  The claim says that the partition is to be deactivated, and by whom, before it is activated.  As long as it cannot be
 * deactivated the claim keeps all of the VM's devices: so nobody is given GPUs whose links still lead to each other. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "gpuvm/fabric_manager.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"

#define CONSULT_MS 5000 /* while other starts wait */
#define RECOVER_MS 5000 /* likewise: a later one tries again */

/* --- planning ---------------------------------------------------------------------------------------------- */

static bool may_share(const struct launch *l)
{
	struct fabric f;
	struct err e = { 0 };

	if (l->opt->sysroot || l->opt->topology_xml || l->opt->fake_devices || (l->vm.fabric != CONF_FABRIC_AUTO && l->vm.fabric != CONF_FABRIC_SHARED))
		return false;
	return fabric_init(&f, &l->host, &l->fabric, &e) == 0 && f.platform;
}

/* Nobody else's list is as good, but a machine can be planned for without: then the operator's file and NVIDIA's defaults count, and what differs is found before
 * anything is activated. */
void launch_consult_fabric(struct launch *l, struct problems *ps)
{
	struct fm m = { .call_ms = CONSULT_MS };
	AUTO_FREE struct fm_list *list = NULL;
	struct fabric_map map = { 0 };
	struct fm_spec spec;
	struct err e = { 0 };

	if (!may_share(l) || fm_spec_parse(l->vm.fabric_manager, &spec) < 0 || spec.none)
		return;
	if (fm_find(l->vm.fabric_manager, &l->fabric_manager, &e) < 0) {
		l->no_manager = xstrdup(e.msg);
		return;
	}
	m.manager = l->fabric_manager;
	list = xcalloc(1, sizeof(*list));
	if (fm_read_map(&m, &l->sys, &l->fabric, list, &map, &e) == 0 && map.n_partitions) {
		fabric_map_clear(&l->fabric);
		l->fabric = map;
	} else if (e.code == -EEXIST) {
		problem_hint(problems_add(ps, PROBLEM_HOST, "fabric-mismatch", "%s", e.msg), "correct /etc/gpuvm/fabric.conf: the address is what counts");
	} else {
		log_info("%s", e.code ? e.msg : "Fabric Manager has no partitions");
		fabric_map_clear(&map);
	}
}

/* --- up -------------------------------------------------------------------------------------------------------- */

static void on_wait(void *ctx, const char *why, uint64_t waited_ms)
{
	const struct launch *l = ctx;

	if (waited_ms < 1000)
		log_notice("%s: waiting: %s", l->plan.vm, why);
	log_progress("waiting for Fabric Manager, %" PRIu64 " s", waited_ms / 1000);
}

/* The VM's GPUs that the partition was planned for, as many as are returned: it may have others, which are not of the fabric and have no physical ID. */
static size_t list_gpus(const struct launch *l, struct pci_addr *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < l->plan.n_devices; i++)
		for (size_t k = 0; k < l->fabric.n_gpus; k++)
			if (pci_addr_cmp(&l->plan.devices[i].addr, &l->fabric.gpus[k].addr) == 0)
				ret[n++] = l->plan.devices[i].addr;
	return n;
}

static int check_partition(struct launch *l, const struct fm *m, const struct pci_addr *v, size_t n, struct err *e)
{
	AUTO_FREE struct fm_list *list = xcalloc(1, sizeof(*list));
	struct fabric_map map = { 0 };
	const struct fm_partition *p;
	int r = fm_read_map(m, &l->sys, &l->fabric, list, &map, e);

	if (r == 0)
		r = fm_check_gpus(&map, l->claim.partition, v, n, e);
	fabric_map_clear(&map);
	p = r == 0 ? fm_list_find(list, l->claim.partition) : NULL;
	/* All its GPUs are this VM's, so nobody's VM uses it. */
	if (p && p->active)
		log_warning("%s: partition %d is active already; it is taken over, and deactivated when the VM has ended", l->plan.vm, p->id);
	return r;
}

static int take_gpus(struct launch *l, const struct pci_addr *v, size_t n, struct err *e)
{
	AUTO_FREE struct bind_op *all = claim_bind_ops(&l->claim), *ops = xcalloc(n + 1, sizeof(*ops));
	size_t n_ops = 0;
	int r = launch_take_devices(l, true, e);

	for (size_t i = 0; i < l->claim.n_devices; i++)
		for (size_t k = 0; k < n; k++)
			if (pci_addr_cmp(&all[i].addr, &v[k]) == 0)
				ops[n_ops++] = all[i];
	if (r < 0)
		return r;
	l->claim.bound = true;
	r = claim_write(&l->claim, e);
	if (r == 0)
		r = bind_detach(&l->sys, ops, n_ops, e);
	return r < 0 ? r : launch_reset_functions(&l->sys, l->claim.vm, v, n, e);
}

static int activate(struct launch *l, const struct fm *m, struct err *e)
{
	int r;

	l->claim.partition_active = true;
	r = claim_write(&l->claim, e);
	if (r == 0)
		r = fm_activate(m, l->claim.partition, e);
	/* Somebody else's stays active, and is not ours to deactivate. */
	if (r == -EBUSY)
		l->claim.partition_active = false;
	return r == -EALREADY ? 0 : r;
}

int launch_partition(struct launch *l, struct err *e)
{
	const struct fm m = { .manager = l->claim.fabric_manager, .ready_ms = FM_READY_MS, .cancel_fd = l->signal_fd, .progress = on_wait, .ctx = l };
	AUTO_FREE struct pci_addr *v = xcalloc(l->plan.n_devices + 1, sizeof(*v));
	size_t n = list_gpus(l, v);
	int r;

	if (l->claim.partition < 0 || !m.manager)
		return 0;
	r = check_partition(l, &m, v, n, e);
	if (r == 0)
		r = take_gpus(l, v, n, e);
	if (r == 0)
		r = activate(l, &m, e);
	log_progress_end();
	return r;
}

/* --- down -------------------------------------------------------------------------------------------------------- */

static int release(struct claim *c, unsigned int ready_ms, struct err *e)
{
	const struct fm m = { .manager = c->fabric_manager, .ready_ms = ready_ms };
	int r = c->partition_active ? fm_deactivate(&m, c->partition, e) : 0;

	if (r < 0)
		return err_wrap(e, "partition %d is still active, and the VM's devices are held with it", c->partition);
	c->partition_active = false;
	return 0;
}

int launch_unpartition(struct launch *l, int exit_code, struct err *e)
{
	(void)exit_code;
	return release(&l->claim, FM_READY_MS, e);
}

int partition_recover(struct claim *c, struct err *e)
{
	return release(c, RECOVER_MS, e);
}

size_t launch_spare_partition(const struct launch *l, struct pci_addr *v, size_t n)
{
	AUTO_FREE struct pci_addr *gpus = xcalloc(l->plan.n_devices + 1, sizeof(*gpus));
	size_t n_gpus = l->claim.partition_active ? list_gpus(l, gpus) : 0, left = 0;

	for (size_t i = 0; i < n; i++) {
		bool spare = false;

		for (size_t k = 0; k < n_gpus; k++)
			spare = spare || pci_addr_cmp(&gpus[k], &v[i]) == 0;
		if (!spare)
			v[left++] = v[i];
	}
	return left;
}
