/* SPDX-License-Identifier: GPL-2.0-or-later */
/* user.h - a user for each VM, without an entry in any user database.
 *
 * [security] user = auto: a number made from the VM's name, the same at each start, from 2^26 that nobody gives to users: above what systemd (UIDS-GIDS: "unused"
 * from 1879048192 on) and SSSD (up to 2000200000 by default) take, below systemd's foreign ones and 2^31.  user and group are the same number.  Pure. */
#ifndef GPUVM_USER_H
#define GPUVM_USER_H

#include <stdbool.h>

#define USER_FIRST 0x78000000U
#define USER_COUNT 0x04000000U

/* The number for @vm; @attempt 1, 2, ...: the next ones, where another one has it. */
unsigned int user_of_vm(const char *vm, unsigned int attempt);

/* Is it such a number? Files have such owners only while a VM runs, or because the power went meanwhile. */
bool user_is_of_vm(unsigned int uid);

#endif
