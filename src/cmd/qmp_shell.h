/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qmp_shell.h - `gpuvm qmp NAME` on a terminal: a line editor with history, completion and help; events are shown as they come. */
#ifndef GPUVM_QMP_SHELL_H
#define GPUVM_QMP_SHELL_H

#include "gpuvm/qmp.h"

/* Until the end of input (Ctrl-D, exit) or of the VM. @q is past its handshake. Returns the exit code. */
int qmp_shell(const char *vm, struct qmp *q);

#endif
