/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mkexample - print conf/gpuvm.ini.example, made from the key table. */
#include <stdio.h>

#include "gpuvm/config.h"

int main(void)
{
	AUTO_FREE char *text = config_example();

	return fputs(text, stdout) < 0 || fflush(stdout) ? 1 : 0;
}
