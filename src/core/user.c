/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdint.h>

#include "gpuvm/user.h"

unsigned int user_of_vm(const char *vm, unsigned int attempt)
{
	uint32_t h = 0x811c9dc5; /* FNV-1a */

	for (; *vm; vm++)
		h = (h ^ (uint8_t)*vm) * 0x01000193;
	/* Its high bits are the better mixed ones. */
	return USER_FIRST + ((h ^ h >> 26) + attempt) % USER_COUNT;
}

bool user_is_of_vm(unsigned int uid)
{
	return uid - USER_FIRST < USER_COUNT;
}
