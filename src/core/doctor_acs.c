/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_acs.c - ACS of the ports above GPUs and their neighbours, and ATS of the NICs: what GPUDirect RDMA in a VM stands on.
 *
 * How it works: with SrcValid, ReqRedir, CmpltRedir and UpstreamFwd what peers send each other goes up to the IOMMU: that is the isolation.  A NIC
 * with ATS asks the IOMMU itself and sends requests that are translated already; with DirectTrans the switch lets exactly those go the short way.
 * So 0x5d is wanted, less what a port cannot do.  Only ports above what VMs get are looked at: NVIDIA advises against writing it anywhere else.
 *
 * Downstream ports that cannot do ACS are said, because Linux may put what is below each into a group of its own all the same: it asks the ports
 * on the way up from a device, not those beside it. */
#include <string.h>

#include "doctor_priv.h"
#include "gpuvm/acs.h"

static void add_setpci(struct doctor *d, const char *bdf, uint16_t want)
{
	doctor_fix(d, "setpci -s %s ECAP_ACS+0x6.w=0x%02X # until the next boot", bdf, want);
}

/* True: nothing is to be said against it. */
static bool port_is_fine(struct doctor *d, size_t i)
{
	const struct doctor_func *x = &d->f->funcs[i];
	uint16_t want = x->acs_can & ACS_WANTED, missing = want & (uint16_t)~x->acs_control, harmful = x->acs_control & ACS_HARMFUL;
	char bdf[PCI_ADDR_STR], is[ACS_TEXT];

	pci_addr_format(&d->host->funcs[i].addr, bdf);
	if (missing & ACS_ISOLATION) {
		doctor_add(d, "acs-isolation", DOCTOR_PROBLEM, bdf,
			   "ACSCtl is 0x%02x (%s); 0x%02x is wanted", x->acs_control, acs_text(x->acs_control, is), want);
		add_setpci(d, bdf, want);
		return false;
	}
	if (!d->places[i].direct || (!(missing & ACS_DIRECT) && !harmful))
		return true;
	doctor_add(d, "acs-direct", DOCTOR_WARNING, bdf,
		   "ACSCtl is 0x%02x (%s); 0x%02x is wanted", x->acs_control, acs_text(x->acs_control, is), want);
	add_setpci(d, bdf, want);
	return false;
}

/* Downstream ports without the capability, switch by switch. Root ports often have none that is standard; what the kernel makes of it is in the groups. */
static void check_missing(struct doctor *d)
{
	const struct topology *t = d->host;

	for (size_t up = 0; up < t->n_funcs; up++) {
		char bdf[PCI_ADDR_STR];
		bool any = false;

		for (size_t i = 0; i < t->n_funcs && t->funcs[up].is_switch && !any; i++)
			any = t->funcs[i].parent == (int)up && d->places[i].path && t->funcs[i].port == PORT_DOWNSTREAM && d->f->funcs[i].config &&
			      !d->f->funcs[i].acs;
		if (!any)
			continue;
		doctor_add(d, "acs-missing", DOCTOR_WARNING, pci_addr_format(&t->funcs[up].addr, bdf), "downstream ports of the switch cannot do ACS");
		doctor_fix(d, "a newer firmware of the switch may; else give all that is below it to one VM, or to VMs that trust each other");
	}
}

static void check_ports(struct doctor *d)
{
	size_t n = 0, hidden = 0, isolated = 0, direct = 0, n_direct = 0;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		if (!d->places[i].path || (d->host->funcs[i].port == PORT_PCI_BRIDGE))
			continue;
		hidden += !d->f->funcs[i].config;
		if (!d->f->funcs[i].acs)
			continue;
		n++;
		n_direct += d->places[i].direct;
		if (port_is_fine(d, i)) {
			isolated++;
			direct += d->places[i].direct;
		} else {
			isolated += d->r->v[d->r->n - 1].severity != DOCTOR_PROBLEM;
		}
	}
	if (n && isolated == n)
		doctor_add(d, "acs-isolation", DOCTOR_OK, "host",
			   "all %zu ports with ACS above GPUs and their neighbours redirect to the IOMMU what they can", n);
	if (n_direct && direct == n_direct)
		doctor_add(d, "acs-direct", DOCTOR_OK, "host",
			   "all %zu ports between GPUs and NICs are set for direct translated requests", n_direct);
	if (hidden) {
		doctor_not_known(d, "acs-isolation", "%zu ports: their configuration space past 64 bytes can be read by root only", hidden);
		doctor_not_known(d, "acs-direct", "%zu ports: their configuration space past 64 bytes can be read by root only", hidden);
	}
	check_missing(d);
}

static bool wants_ats(const struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];

	return d->places[i].near && f->role == ROLE_NIC && f->vendor == MELLANOX && !f->dead;
}

/* True: it is fine. */
static bool check_nic(struct doctor *d, size_t i)
{
	const struct doctor_func *x = &d->f->funcs[i];
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&d->host->funcs[i].addr, bdf);
	if (x->ats && x->ats_control & ATS_ENABLE)
		return true;
	if (x->ats) {
		doctor_add(d, "ats", DOCTOR_WARNING, bdf, "the NIC can do ATS, but ATSCtl says Enable-: the kernel has not turned it on");
		doctor_fix(d,
			   "turn ATS on in the firmware, by the IOMMU's settings; `lspci -vvd 15b3: | grep ATSCtl` must say Enable+ while a VM has the NIC");
		return false;
	}
	doctor_add(d, "ats", DOCTOR_WARNING, bdf, "the NIC does not offer ATS: ATS_ENABLED is False in its firmware's settings (the default)");
	doctor_fix(d, "mlxconfig -d %s set ATS_ENABLED=true, then reboot the host (to reboot a VM that has it is not enough)", bdf);
	return false;
}

static void check_nics(struct doctor *d)
{
	size_t n = 0, fine = 0, hidden = 0;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		if (!wants_ats(d, i))
			continue;
		n++;
		if (!d->f->funcs[i].config)
			hidden++;
		else
			fine += check_nic(d, i);
	}
	if (n && fine == n)
		doctor_add(d, "ats", DOCTOR_OK, "host", "on, in all %zu NICs beside GPUs", n);
	if (hidden)
		doctor_not_known(d, "ats", "%zu NICs: their configuration space past 64 bytes can be read by root only", hidden);
}

void doctor_check_acs(struct doctor *d)
{
	/* The kernel turns ACS and ATS on with the IOMMU, which is what has to be mended first. */
	if (!d->host->iommu_groups)
		return;
	check_ports(d);
	check_nics(d);
}
