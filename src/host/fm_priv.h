/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fm_priv.h - the two ways to ask Fabric Manager once. */
#ifndef GPUVM_FM_PRIV_H
#define GPUVM_FM_PRIV_H

#include "gpuvm/fabric_manager.h"

struct fm_request {
	enum fm_op op;
	int ids[FM_PARTITIONS_MAX]; /* the partition, or for FM_SET_ACTIVE the list */
	int n_ids;
};

/* 0: it has answered, with fmReturn_t @ret_code, and to FM_LIST with @ret_list (not NULL then). -Exxx: it has not. */
int fm_ask_program(const struct fm_spec *s, const struct fm_request *q, unsigned int timeout_ms, int *ret_code, struct fm_list *ret_list, struct err *e);
int fm_ask_library(const struct fm_spec *s, const struct fm_request *q, unsigned int timeout_ms, int *ret_code, struct fm_list *ret_list, struct err *e);

/* Can the library be loaded, and has it all functions? -ELIBACC, -ELIBBAD, -ETIMEDOUT */
int fm_try_library(const char *name, struct err *e);

#endif
