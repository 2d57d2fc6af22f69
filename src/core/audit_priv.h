/* SPDX-License-Identifier: GPL-2.0-or-later */
/* audit_priv.h - what the checks share. */
#ifndef GPUVM_CORE_AUDIT_PRIV_H
#define GPUVM_CORE_AUDIT_PRIV_H

#include "doctor_priv.h"
#include "gpuvm/audit.h"

struct auditor {
	struct doctor d; /* findings; places is not used */
	const struct audit *a;
	const struct topology *host;
	const struct doctor_func *funcs;
	bool override; /* the kernel was told to take ports for isolating that are not */
};

/* Does anybody's work depend on this function: a VM's, or the host's, which drives it? */
bool audit_is_in_use(const struct auditor *x, size_t i);
bool audit_same_tenant(const struct auditor *x, size_t i, size_t k);

/* "VM 'a' (0000:23:00.0, 0000:24:00.0) and the host (0000:25:00.0 nvme)" of the functions in @set; owned */
char *audit_tenants(const struct auditor *x, const bool *set);

/* The finding that was added last is about these functions: its vms and devices. */
void audit_concern(struct auditor *x, const bool *set);
/* And it refuses a start with @code. */
void audit_refuse(struct auditor *x, const char *code);

void audit_check_paths(struct auditor *x); /* audit_paths.c */

#endif
