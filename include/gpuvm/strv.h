/* SPDX-License-Identifier: GPL-2.0-or-later */
/* strv.h - NULL-terminated, owned vectors of strings, and QEMU option values. */
#ifndef GPUVM_STRV_H
#define GPUVM_STRV_H

#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/cleanup.h"
#include "gpuvm/err.h"

/* `v` may be passed to execv() once something was pushed. Aborts on OOM. */
struct strv {
	char **v;
	size_t n;
};

void strv_push(struct strv *s, const char *arg);
void strv_pushf(struct strv *s, const char *fmt, ...) PRINTF(2, 3);
void strv_clear(struct strv *s);
bool strv_contains(const struct strv *s, const char *arg);

/* Split @text as a POSIX shell would, without expansion: blanks separate; '..', ".." and \ quote.
 * Returns -EINVAL (unterminated quote) and leaves @ret untouched on failure. */
int strv_split_shell(const char *text, struct strv *ret, struct err *e);

/* @arg quoted so that a POSIX shell reads exactly @arg back; owned. Plain words stay bare. */
char *shell_quote(const char *arg);

/* One QEMU option value, "driver,key=value,...".  Commas in values are doubled here and only here. */
struct qopt {
	char *buf;
	size_t len;
};

void qopt_init(struct qopt *o, const char *head);
void qopt_str(struct qopt *o, const char *key, const char *value);
void qopt_fmt(struct qopt *o, const char *key, const char *fmt, ...) PRINTF(3, 4);
void qopt_u64(struct qopt *o, const char *key, uint64_t value);
void qopt_bool(struct qopt *o, const char *key, bool value); /* on|off */
char *qopt_finish(struct qopt *o);                           /* owned; resets @o */

#endif
