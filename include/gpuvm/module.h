/* SPDX-License-Identifier: GPL-2.0-or-later */
/* module.h - kernel modules, loaded as modprobe does: dependencies first, as modprobe.d says. libkmod. */
#ifndef GPUVM_MODULE_H
#define GPUVM_MODULE_H

#include "gpuvm/err.h"

/* Load module @name (or what it is an alias of). 0 also if it is there already; -ENOENT if this kernel has none. */
int module_load(const char *name, struct err *e);

#endif
