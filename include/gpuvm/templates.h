/* SPDX-License-Identifier: GPL-2.0-or-later */
/* templates.h - the sizes that a machine can be cut into.
 *
 * How it works: for 1, 2, 4, 8 ... GPUs and for all of them the definition "[place] gpus = N" is planned on the machine, and again beside what was
 * planned before, until one is refused: that is how many fit.  It is the planner itself that answers, so a size is offered exactly if
 * it can be had; nothing is tabulated.  Pure. */
#ifndef GPUVM_TEMPLATES_H
#define GPUVM_TEMPLATES_H

#include "gpuvm/plan.h"

struct template_size {
	int gpus;
	/* What the first one would get; zero if none fits. */
	int vcpus, nics, nvme, nvswitches;
	uint64_t memory_bytes, page_bytes;
	enum fabric_mode fabric;
	int fit;       /* more of them now, beside the VMs that run */
	int fit_empty; /* on the machine without any VM */
	char *why;     /* fit == 0: the first reason why not */
};

/* @base: machine, what runs (may be NULL), fabric and QEMU; its vm is not looked at. Owned array, smallest first. */
struct template_size *templates_make(const struct plan_request *base, size_t *ret_n);
void templates_free(struct template_size *v, size_t n);

struct json_object *templates_to_json(const struct template_size *v, size_t n);
void templates_print(const struct template_size *v, size_t n, FILE *out);

#endif
