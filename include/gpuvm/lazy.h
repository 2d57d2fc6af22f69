/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lazy.h - libraries that few runs need, loaded by those that do.
 *
 * libarchive and libkmod bring 18 more libraries (libcrypto, ICU, libstdc++ ...), libsystemd seven (libgcrypt, four compressors ...): to load and link
 * them took longer than to plan a VM, and each supervisor kept 1 MiB for them. A user lists the functions once, CALLS(X) being X(name) for each, and calls them through a struct:
 *
 *     static struct { CALLS(LAZY_POINTER) } lib;
 *     static const char *const names[] = { CALLS(LAZY_NAME) };
 *     lazy_load("libkmod.so.2", names, ARRAY_SIZE(names), &lib, e)      then      lib.kmod_new(...) */
#ifndef GPUVM_LAZY_H
#define GPUVM_LAZY_H

#include <stddef.h>

#include "gpuvm/err.h"

#define LAZY_POINTER(name) __typeof__(name) *name;
#define LAZY_NAME(name)	   #name,

/* Fill @ret, an array or struct of @n pointers, with the functions of @names. A second time it does nothing. -ENOENT: the library is not there,
 * or is another one. */
int lazy_load(const char *library, const char *const *names, size_t n, void *ret, struct err *e);

#endif
