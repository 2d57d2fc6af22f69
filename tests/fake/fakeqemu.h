/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fakeqemu.h - QEMUs that are not here: what recorded ones answered (tests/fixtures/qemu/VERSION.json). */
#ifndef TESTS_FAKE_FAKEQEMU_H
#define TESTS_FAKE_FAKEQEMU_H

#include "gpuvm/qemu.h"

/* The newest recorded QEMU of @version, "7.2" or "7.2.22", as /usr/bin/qemu-system-x86_64, without firmware images.
 * Borrowed, for as long as the process lives: not for qemu_info_clear(); fields of the copy may be set. Aborts if there is none. */
struct qemu_info fake_qemu(const char *version);

/* Versions of all recorded ones, oldest first; NULL after the last. */
const char *const *fake_qemu_versions(void);

#endif
