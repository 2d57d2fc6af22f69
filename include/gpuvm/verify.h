/* SPDX-License-Identifier: GPL-2.0-or-later */
/* verify.h - is the running VM what was planned? Read back from /proc, sysfs and QMP, never from our own memory.
 *
 *   threads  /proc/PID/task/TID/status Cpus_allowed_list of every thread
 *   memory   /proc/PID/numa_maps: the node of every page of the guest's memory
 *   devices  driver link and IOMMU group of every function
 *   ACS      ACSCtl of the ports that were set, ATSCtl of the NICs
 *   BARs     query-pci: bus number, and an address for every BAR (OVMF leaves out what does not fit, silently) */
#ifndef GPUVM_VERIFY_H
#define GPUVM_VERIFY_H

#include "gpuvm/plan.h"
#include "gpuvm/qmp.h"
#include "gpuvm/sysfs.h"

struct verify_row {
	char *what;    /* "vCPU 3 (tid 812)" */
	char *planned; /* "CPU 7" */
	char *actual;
	bool ok;
};

struct verify_report {
	struct verify_row *rows;
	size_t n;
	size_t n_bad;
};

/* @vcpus: the threads of the plan's vCPUs, which QEMU keeps as long as it lives; NULL: it is asked for them. */
int verify_threads(const struct plan *p, pid_t pid, struct qmp *q, const pid_t *vcpus, struct verify_report *rep, struct err *e);
int verify_memory(const struct plan *p, pid_t pid, struct verify_report *rep, struct err *e);
/* Drivers and groups, and where interrupts go if the plan says. */
int verify_devices(const struct plan *p, const struct sysfs *s, struct verify_report *rep, struct err *e);
/* ACSCtl of the plan's ports; ATSCtl of the VM's NICs that have ATS, if the plan has such ports. Both are in verify_devices(). */
void verify_acs(const struct plan *p, const struct sysfs *s, struct verify_report *rep);
void verify_ats(const struct plan *p, const struct sysfs *s, struct verify_report *rep);
/* The guest's PCI tree. The firmware sends no event when it has set up PCI: asks again until every device has its BARs, or
 * @timeout_ms is over. */
int verify_guest_pci(const struct plan *p, struct qmp *q, uint64_t timeout_ms, struct verify_report *rep, struct err *e);

const struct verify_row *verify_first_bad(const struct verify_report *rep);
void verify_print(const struct verify_report *rep, bool only_bad, FILE *out);
struct json_object *verify_to_json(const struct verify_report *rep, const char *vm);
void verify_clear(struct verify_report *rep);

#endif
