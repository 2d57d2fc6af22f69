/* SPDX-License-Identifier: GPL-2.0-or-later */
/* trust.h - could somebody else have written what we are about to obey?
 *
 * Trusted are root, the user that we run as, and whoever has become root with sudo ($SUDO_UID: that one has root's rights anyway).  A path is trusted if
 * each of its folders, each link on the way and the file itself belongs to one of them, and others may write to none; but in a sticky folder (/tmp)
 * others cannot replace what is not theirs. The group root is no other. */
#ifndef GPUVM_TRUST_H
#define GPUVM_TRUST_H

#include "gpuvm/err.h"

/* 0; -EPERM with the word file-not-trusted: @e names the component, its owner and mode, and the command that mends it; other -Exxx: it cannot be
 * looked at (-ENOENT: there is none). */
int trust_check(const char *path, struct err *e);

#endif
