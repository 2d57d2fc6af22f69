/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stage "acs": the registers of the claim, and how they come back. Which ones, and why: gpuvm/acs.h. */
#include <errno.h>

#include "gpuvm/acs.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/verify.h"

int launch_acs(struct launch *l, struct err *e)
{
	const struct claim *c = &l->claim;
	int r = 0;

	/* A dry run may not know them; a start must not go on as if they were set. */
	if (l->vm.acs == CONF_ACS_DIRECT && c->n_devices && !c->n_registers) {
		r = err_set(e, -EIO, "what the ports above the VM's devices can do could not be read: the host has no extended configuration space "
				     "(pci=nommconf?); [pcie] acs = keep does without");
		e->word = "acs-not-known";
	}
	for (size_t i = 0; i < c->n_registers && r == 0; i++) {
		const struct claim_register *v = &c->registers[i];
		uint16_t now;

		r = acs_get(&l->sys, &v->addr, v->offset, &now, e);
		if (r == 0 && now != v->to)
			r = acs_set(&l->sys, &v->addr, v->offset, (uint16_t)v->to, e);
	}
	return r;
}

static bool is_used(const struct host_use *others, const struct claim_register *v)
{
	for (size_t i = 0; i < others->n_registers; i++)
		if (pci_addr_cmp(&others->registers[i].addr, &v->addr) == 0 && others->registers[i].offset == v->offset)
			return true;
	return false;
}

static int restore(const struct sysfs *s, const char *vm, const struct claim_register *v, struct err *e)
{
	uint16_t now;
	char bdf[PCI_ADDR_STR];
	int r = acs_get(s, &v->addr, v->offset, &now, e);

	if (r == -ENODEV) {
		log_warning("%s: ACSCtl is not what it was: %s", vm, e->msg);
		return 0;
	}
	if (r < 0 || now == v->from)
		return r;
	if (now == v->to)
		return acs_set(s, &v->addr, v->offset, (uint16_t)v->from, e);
	log_warning("%s: ACSCtl of %s is 0x%04x, which is not from here (0x%04x): left as it is, and not set back to 0x%04x", vm,
		    pci_addr_format(&v->addr, bdf), now, v->to, v->from);
	return 0;
}

int acs_restore(const struct sysfs *s, struct claim *c, struct err *e)
{
	struct host_use others = { 0 };
	int r = c->n_registers ? claim_collect_use(NULL, c->vm, &others, e) : 0;
	size_t left = 0;

	if (r < 0)
		return err_wrap(e, "who else needs the ACS registers is not known");
	for (size_t i = 0; i < c->n_registers; i++) {
		struct claim_register v = c->registers[i];
		struct err one = { 0 };

		if (is_used(&others, &v) || restore(s, c->vm, &v, &one) == 0)
			continue;
		*e = one;
		r = one.code;
		c->registers[left++] = v;
	}
	c->n_registers = left;
	host_use_clear(&others);
	return r;
}

int launch_unacs(struct launch *l, int exit_code, struct err *e)
{
	AUTO_CLOSE int lock = -1;
	struct err why = { 0 };
	int r, written;

	(void)exit_code;
	if (!l->claimed || !l->claim.n_registers)
		return 0;
	/* Nobody may plan with a register that is about to change, or come to need one while it is put back. */
	lock = claim_lock(e);
	r = lock < 0 ? lock : acs_restore(&l->sys, &l->claim, e);
	/* While devices are given back the claim is still there, and who else has the register would leave it to us. */
	written = lock < 0 ? 0 : claim_write(&l->claim, r < 0 ? &why : e);
	return r < 0 ? r : written;
}

void launch_check_ats(struct launch *l)
{
	struct verify_report rep = { 0 };

	verify_ats(&l->plan, &l->sys, &rep);
	for (size_t i = 0; i < rep.n; i++)
		if (!rep.rows[i].ok)
			log_warning("%s: %s is %s while the VM has the device: its requests go by the IOMMU; is ATS on in the firmware, and does the IOMMU do it?",
				    l->plan.vm, rep.rows[i].what, rep.rows[i].actual);
	verify_clear(&rep);
}
