/* SPDX-License-Identifier: GPL-2.0-or-later */
/* audit.h - can what one VM has reach what another one has, or the host?
 *
 * How it works: each function belongs to a VM or to the host.  For every function A of a VM and every function B of another tenant, the PCI tree says
 * where their ways meet, and what is proven there (PCI Express 6.12):
 *
 *   - where A's side comes in (a switch's downstream port, a root port, or A itself if both are functions of one device), ReqRedir and CmpltRedir send
 *     up what is meant for a peer, and EgressCtrl does not overrule them;
 *   - of the ports from there down to A one has SrcValid: A cannot send in another function's name;
 *   - all ports above have UpstreamFwd: what was sent up is not turned around on its way to the IOMMU;
 *   - a switch's port does not let translated requests turn around (DirectTrans).
 *
 * A bit that a capability does not have is hard-wired, as Linux takes it (drivers/pci/pci.c, pci_acs_flags_enabled).  Registers are read and not groups: a
 * group is made once, at boot, and stays whatever setpci does afterwards; and Linux gives each downstream port of a switch without ACS a group of its own.
 * Functions of the host count as far as it drives them: one without a driver, on pci-stub or on vfio neither asks nor answers for anybody.  Beside
 * the ways there are the groups themselves, translation, virtual functions, resets and option ROMs.
 *
 * Findings and their printing are doctor's (doctor.h); the codes are in src/core/audit_codes.c, which docs/audit.md repeats for people.  Nothing is changed. */
#ifndef GPUVM_AUDIT_H
#define GPUVM_AUDIT_H

#include "gpuvm/doctor.h"

struct audit_vm {
	char *name;
	bool running; /* its guest runs: its functions must be on a vfio driver */
};

/* An option ROM that somebody else can replace. */
struct audit_rom {
	char *vm, *why; /* why: of trust_check() */
};

/* Who has what. Owned but `host`. */
struct audit {
	const struct topology *host;
	struct audit_vm *vms;
	size_t n_vms;
	int *owner; /* host->n_funcs: index of vms; -1: the host's */
	struct audit_rom *roms;
	size_t n_roms;
};

void audit_init(struct audit *a, const struct topology *host);
void audit_clear(struct audit *a);
/* Its index; that of one with this name, if there is one. */
int audit_add_vm(struct audit *a, const char *name, bool running);
/* A function that is not there is left out. */
void audit_give(struct audit *a, int vm, const struct pci_addr *addr);
void audit_add_rom(struct audit *a, const char *vm, const char *why);

/* Of which functions doctor_facts_read_isolation() is to read more: those of VMs, and the ports above them. Owned. */
bool *audit_wanted(const struct audit *a);

void audit_check(const struct audit *a, const struct doctor_facts *f, struct doctor_report *ret);
/* Only what concerns @vm, and what concerns all. */
void audit_keep(struct doctor_report *r, const char *vm);

/* @flags: DRAW_COLOR of draw.h. @vm: whose findings these are; NULL: all */
void audit_print(const struct audit *a, const struct doctor_report *r, const char *vm, unsigned int flags, FILE *out);
/*	{"schema": 1, "host": NAME, "problems": N, "warnings": N, "vms": [{"name", "running", "devices": [..]}],
 *	 "findings": [{"code", "severity", "subject", "text", "cost", "fix", "source", "vms": [..], "devices": [..], "refusal": CODE|null}],
 *	 "unknown": [{"code", "why"}]} */
struct json_object *audit_to_json(const struct audit *a, const struct doctor_report *r);

extern const struct doctor_code audit_codes[];
extern const size_t audit_n_codes;
const struct doctor_code *audit_find_code(const char *word); /* NULL: there is none */

#endif
