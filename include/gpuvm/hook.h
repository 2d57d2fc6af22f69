/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hook.h - run an operator's own program at a point of a VM's life.
 *
 * The program gets no arguments. Its environment, beside PATH and LANG: GPUVM_HOOK (pre-bind, post-start, post-stop), GPUVM_VM,
 * GPUVM_VM_DIR (the VM's run-time folder), GPUVM_DEFINITION, GPUVM_DEVICES (PCI addresses, blank between), and, where there is one,
 * GPUVM_QEMU_PID, GPUVM_EXIT_CODE and GPUVM_REASON; and GPUVM_RUNDIR and GPUVM_STATEDIR as the launcher has them, so that `gpuvm` in a hook
 * finds the same VMs.  Standard input is /dev/null; what it writes goes where the launcher's own messages go. */
#ifndef GPUVM_HOOK_H
#define GPUVM_HOOK_H

#include <stdint.h>

#include "gpuvm/err.h"
#include "gpuvm/strv.h"

/* Run @program and wait. -EREMOTEIO: it failed, @e has its exit code; -ETIMEDOUT: it and what it started were killed. */
int hook_run(const char *program, const struct strv *env, uint64_t timeout_ms, struct err *e);

#endif
