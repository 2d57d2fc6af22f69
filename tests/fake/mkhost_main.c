/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mkhost FILE DIR: make the sys/ and proc/ trees of the machine that FILE describes (see mkhost.h) in DIR. */
#include <stdio.h>

#include "tests/fake/mkhost.h"

int main(int argc, char **argv)
{
	struct err e = { 0 };

	if (argc != 3) {
		fputs("usage: mkhost FILE.host DIR\n", stderr);
		return 2;
	}
	if (mkhost_build(argv[1], argv[2], &e) < 0) {
		fprintf(stderr, "mkhost: %s\n", e.msg);
		return 1;
	}
	return 0;
}
