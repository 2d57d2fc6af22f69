/* SPDX-License-Identifier: GPL-2.0-or-later */
/* slim.h - less memory for a process that has done its work and waits, for weeks perhaps. */
#ifndef GPUVM_SLIM_H
#define GPUVM_SLIM_H

/* Give back free heap, and the pages of code and constants that only the past has needed: what is needed again comes back from the page cache. */
void slim_down(void);

#endif
