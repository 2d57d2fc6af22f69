/* SPDX-License-Identifier: GPL-2.0-or-later */
/* deadly.h - the model kernel, and a hand that kills who writes to it.
 *
 * A process that is to be killed at a given moment uses the sysfs of deadly_sysfs(): its writes are counted, and so is each deadly_moment(), which
 * stands for a moment between two of them. Everything happens in that process, one device after the other. */
#ifndef TESTS_FAULTS_DEADLY_H
#define TESTS_FAULTS_DEADLY_H

#include "tests/fake/kernel.h"

struct deadly {
	struct fake_kernel *k;
	int at;	   /* 1: at the first moment; 0: never */
	bool late; /* behind the write rather than before it */
	int seen;
};

/* @d must outlive it. */
struct sysfs deadly_sysfs(struct deadly *d);
void deadly_moment(struct deadly *d);

#endif
