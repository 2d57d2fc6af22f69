/* SPDX-License-Identifier: GPL-2.0-or-later */
/* err.h - what went wrong, in words for the operator.
 *
 * Functions return 0 or -Exxx; the words go into a struct err that lives on the caller's stack and is
 * the last parameter.  Callers put context in front; it is reported once, in src/cmd.
 * A message names the operation, the 'thing', the reason, and what to do if we know. */
#ifndef GPUVM_ERR_H
#define GPUVM_ERR_H

#include <stdbool.h>
#include <stddef.h>

#include "gpuvm/cleanup.h"

struct err {
	int code;         /* -Exxx, 0 while nothing has failed */
	const char *word; /* stable problem code ("device-busy"), or NULL; see docs/errors */
	char msg[1024];
};

/* Record a failure and return @code, so that callers can write `return err_set(...)`. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF(3, 4);

/* As err_set(), with ": strerror(-code)" appended. */
int err_sys(struct err *e, int code, const char *fmt, ...) PRINTF(3, 4);

/* Put context in front of an existing message: "bind 0000:81:00.0: write driver_override: EPERM". */
int err_wrap(struct err *e, const char *fmt, ...) PRINTF(2, 3);

/* Nothing in a message is obeyed by a terminal, whoever has written what it quotes: control characters (also C1 in UTF-8) but newlines and tabs
 * become '?'. Done by all of err, problems and log. */
void text_plain(char *text);
/* Is it UTF-8 without control characters? */
bool text_is_plain(const char *text);
/* Length of the UTF-8 sequence at @s (Unicode 15, table 3-7); 0 if it is none. @s ends with a NUL. */
size_t utf8_sequence(const unsigned char *s);

#endif
