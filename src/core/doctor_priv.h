/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_priv.h - what the checks share. */
#ifndef GPUVM_CORE_DOCTOR_PRIV_H
#define GPUVM_CORE_DOCTOR_PRIV_H

#include "gpuvm/doctor.h"

/* What a function is to the GPUs. */
struct doctor_place {
	bool gpu;
	bool near;   /* a NIC or an NVMe controller below the switch of a GPU */
	bool path;   /* a port above one of these */
	bool direct; /* of the way between a GPU and a NIC below one switch: here direct translated requests are worth something */
};

struct doctor {
	const struct doctor_facts *f;
	const struct topology *host;
	struct doctor_place *places; /* host->n_funcs */
	struct doctor_report *r;
	int n_gpus;
	const struct doctor_code *(*find_code)(const char *word); /* NULL: doctor_find_code() */
};

/* @code is a word of doctor_codes. The fix is "" until doctor_fix(), which asks for the finding that was added last. */
void doctor_add(struct doctor *d, const char *code, enum doctor_severity severity, const char *subject, const char *fmt, ...) PRINTF(5, 6);
void doctor_fix(struct doctor *d, const char *fmt, ...) PRINTF(2, 3);
void doctor_not_known(struct doctor *d, const char *code, const char *fmt, ...) PRINTF(3, 4);

/* The value of a word of the kernel command line, the last one counts: "pt" of "iommu=pt", "" of one without "="; NULL if it is not there. Owned. */
char *doctor_cmdline_value(const char *cmdline, const char *key);

/* What on the kernel command line switches redirection off before groups are made, "pci=disable_acs_redir=..."; NULL: nothing. Owned. */
char *doctor_acs_off_word(const char *cmdline);

void doctor_check_iommu(struct doctor *d);
void doctor_check_acs(struct doctor *d);
void doctor_check_pci(struct doctor *d);
void doctor_check_gpus(struct doctor *d);
void doctor_check_memory(struct doctor *d);
void doctor_check_cpus(struct doctor *d);
void doctor_check_software(struct doctor *d);
void doctor_check_records(struct doctor *d);

/* By code; the order in which findings of one code were made is kept. */
void doctor_sort_findings(struct doctor_report *r);
void doctor_finding_clear(struct doctor_finding *f);

/* Findings by theme, what is not known, the totals. */
void doctor_print_report(const struct doctor_report *r, unsigned int flags, FILE *out);
/* {"schema": 1, "host", "problems", "warnings", "findings", "unknown"}; @tenants: findings with vms, devices, refusal */
struct json_object *doctor_report_json(const char *host, const struct doctor_report *r, bool tenants);

/* "facts" and "functions" of the document */
struct json_object *doctor_facts_json(const struct doctor *d);
struct json_object *doctor_functions_json(const struct doctor *d);
void doctor_find_places(const struct doctor_facts *f, struct doctor *ret); /* owns places afterwards */

#endif
