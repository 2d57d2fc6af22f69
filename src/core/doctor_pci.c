/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_pci.c - links, BARs, errors, and what the host has beside the GPUs. */
#include <inttypes.h>
#include <string.h>

#include "doctor_priv.h"

#define RESOURCE_UNSET 0x20000000 /* IORESOURCE_UNSET: the kernel found no place for it */

/* Errors that the link has repaired are worth a word from one in an hour on; a few come with each boot. */
#define CORRECTABLE_FREE     16
#define CORRECTABLE_PER_HOUR 1

static bool watched(const struct doctor *d, size_t i)
{
	return d->places[i].gpu || d->places[i].near || d->places[i].path;
}

/* --- links ------------------------------------------------------------------------------------------------------------ */

/* Both ends of a link say the same, so only the lower one is looked at: endpoints, and the upper side of switches. */
static bool has_own_link(const struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];

	return watched(d, i) && (d->places[i].gpu || d->places[i].near || f->is_switch) && f->addr.fn == 0 && f->link.max_mts && f->link.max_width &&
	       f->link.cur_mts && f->link.cur_width;
}

/* What the link can be: the lesser of its two ends. */
static struct pci_link best_link(const struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i], *up = f->parent >= 0 ? &d->host->funcs[f->parent] : NULL;
	struct pci_link best = { f->link.max_mts, f->link.max_width };

	if (up && up->link.max_mts && up->link.max_mts < best.mts)
		best.mts = up->link.max_mts;
	if (up && up->link.max_width && up->link.max_width < best.width)
		best.width = up->link.max_width;
	return best;
}

static void check_width(struct doctor *d, size_t i, struct pci_link best, size_t *bad)
{
	const struct pci_func *f = &d->host->funcs[i];
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&f->addr, bdf);
	if (f->link.cur_width < best.width) {
		doctor_add(d, "link-width", DOCTOR_PROBLEM, bdf, "the link runs with x%u of x%u lanes (%s)", f->link.cur_width, best.width,
			   f->name[0] ? f->name : pci_role_word(f->role));
		doctor_fix(d,
			   "seat the board, its riser or its cable anew; `lspci -vvs %s` must say LnkSta: Width x%u (without \"downgraded\")", bdf, best.width);
		++*bad;
	} else if (best.width < f->link.max_width) {
		doctor_add(d, "link-width", DOCTOR_WARNING, bdf,
			   "the device has x%u lanes, the port above it x%u (%s)", f->link.max_width, best.width, f->name);
		doctor_fix(d, "put it into a slot with x%u lanes, or look for lanes shared out (bifurcation) in the firmware", f->link.max_width);
		++*bad;
	}
}

static void check_links(struct doctor *d)
{
	size_t n = 0, narrow = 0, slow = 0, idle = 0;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		const struct pci_func *f = &d->host->funcs[i];
		struct pci_link best;
		char bdf[PCI_ADDR_STR];

		if (!has_own_link(d, i))
			continue;
		best = best_link(d, i);
		n++;
		check_width(d, i, best, &narrow);
		if (f->link.cur_mts >= best.mts)
			continue;
		if (d->places[i].gpu) {
			idle++;
			continue;
		}
		slow++;
		doctor_add(d, "link-speed", DOCTOR_WARNING, pci_addr_format(&f->addr, bdf),
			   "the link runs at %.1f of %.1f GT/s (%s)", f->link.cur_mts / 1000.0,
			   best.mts / 1000.0, f->name[0] ? f->name : pci_role_word(f->role));
		doctor_fix(d,
			   "set the slot's speed to automatic and its power saving (ASPM) off in the firmware; `lspci -vv` has the speeds (LnkCap, LnkSta, LnkCtl2)");
	}
	if (n && !narrow)
		doctor_add(d, "link-width", DOCTOR_OK, "host", "all %zu links of GPUs, their neighbours and switches have their full width", n);
	if (n && !slow)
		doctor_add(d, "link-speed", DOCTOR_OK,
			   "host", idle ? "the links of %zu idle GPUs run below their maximum, as GPUs do to save power; all others do not"
								    : "all %zu links run at their full speed",
			   idle ? idle : n);
	if (!n && d->n_gpus) {
		doctor_not_known(d, "link-width", "the GPUs' links do not say what they are");
		doctor_not_known(d, "link-speed", "the GPUs' links do not say what they are");
	}
}

/* --- BARs --------------------------------------------------------------------------------------------------------------- */

/* A BAR without an address: the kernel says so, or it has forgotten it although the device's register has a 64-bit one. */
static bool bar_unassigned(const struct doctor *d, size_t i, size_t bar)
{
	const struct pci_bar *b = &d->host->funcs[i].bars[bar];

	return b->flags & RESOURCE_UNSET || (b->bytes && !b->start) || (!b->bytes && d->f->funcs[i].bars_64 >> bar & 1);
}

static bool check_assigned(struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];
	char bdf[PCI_ADDR_STR];

	for (size_t bar = 0; bar < ARRAY_SIZE(f->bars); bar++) {
		if (!bar_unassigned(d, i, bar))
			continue;
		doctor_add(d, "bar-unassigned", DOCTOR_PROBLEM, pci_addr_format(&f->addr, bdf), "BAR %zu has no address (%s)", bar, f->name);
		doctor_fix(d,
			   "turn on \"Above 4G Decoding\" (\"Memory Mapped I/O above 4 GB\", with its largest size) in the firmware and reboot; pci=realloc may do it, too");
		return false;
	}
	return true;
}

static bool check_sizes(struct doctor *d, size_t i)
{
	const struct doctor_func *x = &d->f->funcs[i];
	char bdf[PCI_ADDR_STR], is[32], max[32];
	bool fine = true;

	pci_addr_format(&d->host->funcs[i].addr, bdf);
	for (int k = 0; k < x->n_resizable; k++) {
		if (x->resizable[k].bytes >= x->resizable[k].max_bytes)
			continue;
		fine = false;
		doctor_add(d, "bar-size", DOCTOR_WARNING, bdf,
			   "BAR %d has %s and can have %s", x->resizable[k].bar, format_size(x->resizable[k].bytes, is),
			   format_size(x->resizable[k].max_bytes, max));
		/* The attribute takes the power of two in MiB. */
		doctor_fix(d,
			   "turn on \"Resizable BAR\" in the firmware; or, without a driver bound, echo %d >/sys/bus/pci/devices/%s/resource%d_resize",
			   __builtin_ctzll(x->resizable[k].max_bytes) - 20, bdf, x->resizable[k].bar);
	}
	return fine;
}

static void check_bars(struct doctor *d)
{
	int n = 0, assigned = 0, full = 0, hidden = 0;

	if (d->host->gaps & GAP_BARS)
		return;
	for (size_t i = 0; i < d->host->n_funcs; i++) {
		if (!d->places[i].gpu || d->host->funcs[i].dead)
			continue;
		n++;
		assigned += check_assigned(d, i);
		hidden += !d->f->funcs[i].config;
		full += d->f->funcs[i].config && check_sizes(d, i);
	}
	if (n && assigned == n)
		doctor_add(d, "bar-unassigned", DOCTOR_OK, "host", "all BARs of %d GPUs have an address", n);
	if (n && full == n)
		doctor_add(d, "bar-size", DOCTOR_OK, "host", "no GPU has a BAR that could be larger");
	if (hidden)
		doctor_not_known(d, "bar-size", "%d GPUs: their configuration space past 64 bytes can be read by root only, or is not there", hidden);
}

/* --- errors --------------------------------------------------------------------------------------------------------------- */

static bool check_errors(struct doctor *d, size_t i)
{
	const struct doctor_func *x = &d->f->funcs[i];
	int64_t hours = d->f->uptime_s > 0 ? d->f->uptime_s / 3600 : 0;
	bool many = x->aer_correctable > CORRECTABLE_FREE + hours * CORRECTABLE_PER_HOUR;
	char bdf[PCI_ADDR_STR];

	if (x->aer_fatal <= 0 && x->aer_nonfatal <= 0 && !many)
		return true;
	doctor_add(d, "aer", x->aer_fatal > 0 ? DOCTOR_PROBLEM : DOCTOR_WARNING, pci_addr_format(&d->host->funcs[i].addr, bdf),
		   "errors since boot: %" PRId64 " fatal, %" PRId64 " not fatal, %" PRId64 " repaired (%s)", x->aer_fatal > 0 ? x->aer_fatal : 0,
		   x->aer_nonfatal > 0 ? x->aer_nonfatal : 0, x->aer_correctable > 0 ? x->aer_correctable : 0, d->host->funcs[i].name);
	doctor_fix(d, "`dmesg | grep AER` and /sys/bus/pci/devices/%s/aer_dev_* say which; seat the board, its riser or its cable anew", bdf);
	return false;
}

static void check_aer(struct doctor *d)
{
	size_t n = 0, known = 0, fine = 0;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		const struct doctor_func *x = &d->f->funcs[i];

		if (!watched(d, i))
			continue;
		n++;
		if (x->aer_fatal < 0 && x->aer_nonfatal < 0 && x->aer_correctable < 0)
			continue;
		known++;
		fine += check_errors(d, i);
	}
	if (known && fine == known)
		doctor_add(d, "aer", DOCTOR_OK, "host", "no errors to speak of since boot, in %zu functions on the way to GPUs", known);
	if (n && !known)
		doctor_not_known(d, "aer",
			   "no function has aer_dev_fatal: the firmware keeps AER to itself, pci=noaer is on the command line, or it was not captured");
}

/* --- the host's own ----------------------------------------------------------------------------------------------------------- */

static void check_host_devices(struct doctor *d)
{
	size_t n = 0;

	if (d->host->gaps & GAP_HOST_USE || !d->n_gpus)
		return;
	for (size_t i = 0; i < d->host->n_funcs; i++) {
		const struct pci_func *f = &d->host->funcs[i];
		char bdf[PCI_ADDR_STR];

		if (!d->places[i].near || !f->host_use)
			continue;
		n++;
		doctor_add(d, "host-near-gpu", DOCTOR_WARNING, pci_addr_format(&f->addr, bdf),
			   "it is below the switch of a GPU, and the host needs it: %s", f->host_use);
		doctor_fix(d, f->role == ROLE_NIC ? "give the host's addresses and routes to a NIC on the main board (LOM)"
						  : "install the host on a drive that is not below a GPU's switch");
	}
	if (!n)
		doctor_add(d, "host-near-gpu", DOCTOR_OK, "host", "the host needs no drive and no NIC below a GPU's switch");
}

void doctor_check_pci(struct doctor *d)
{
	check_links(d);
	check_bars(d);
	check_aer(d);
	check_host_devices(d);
}
