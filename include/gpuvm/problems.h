/* SPDX-License-Identifier: GPL-2.0-or-later */
/* problems.h - a list of everything that is wrong with a definition or a host, shown together.
 *
 * An operator who is told one error per run runs the program ten times.  Whatever can be found before the
 * host is touched is collected here, with a stable code that scripts can rely on (docs/errors.md). */
#ifndef GPUVM_PROBLEMS_H
#define GPUVM_PROBLEMS_H

#include "gpuvm/cleanup.h"

struct json_object;

enum problem_kind {
	PROBLEM_CONFIG, /* the definition is wrong: exit 3 */
	PROBLEM_HOST,   /* this host cannot satisfy it: exit 4 */
	PROBLEM_BUSY,   /* it could, but something is in use: exit 5 */
};

struct problem {
	enum problem_kind kind;
	const char *code; /* static string, e.g. "group-not-viable" */
	char *message;
	char *hint;   /* what to do, or NULL */
	char *device; /* BDF, or NULL */
	char *file;   /* definition, or NULL */
	int line;     /* 1-based, 0 if unknown */
};

struct problems {
	struct problem *v;
	size_t n;
};

/* Append one; the result is valid until the next call and takes details from the three setters below. */
struct problem *problems_add(struct problems *ps, enum problem_kind kind, const char *code, const char *fmt, ...)
	PRINTF(4, 5);
void problem_hint(struct problem *p, const char *fmt, ...) PRINTF(2, 3);
void problem_device(struct problem *p, const char *bdf);
void problem_where(struct problem *p, const char *file, int line);
void problems_clear(struct problems *ps);

/* 0 without problems; else 3 if any is PROBLEM_CONFIG, else 4 if any is PROBLEM_HOST, else 5. */
int problems_exit_code(const struct problems *ps);

/* "file:line: message" and an indented hint for each, to @out. */
void problems_print(const struct problems *ps, FILE *out);

/* {"schema":1,"vm":..,"errors":[{"code","message","hint","device","file","line"}]}; absent facts are null. */
struct json_object *problems_to_json(const struct problems *ps, const char *vm);

#endif
