/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qmp_schema.h - what QEMU says of its own commands (query-qmp-schema), for help and completion.
 *
 * QEMU docs/devel/qapi-code-gen.rst, "Client JSON Protocol introspection".  Types have numbers in place of names, so they are written as
 * what they are: "string", "int", "[T]", "a|b|c". */
#ifndef GPUVM_QMP_SCHEMA_H
#define GPUVM_QMP_SCHEMA_H

#include "gpuvm/strv.h"

struct json_object;

/* Reads the reply of query-qmp-schema; borrows nothing. */
struct qmp_schema {
	struct json_object *reply;  /* a reference */
	struct json_object *byname; /* {"name": entry} */
};
int qmp_schema_init(struct json_object *reply, struct qmp_schema *ret, struct err *e); /* -EPROTO */
void qmp_schema_clear(struct qmp_schema *s);

/* Names of all commands, sorted. */
void qmp_schema_commands(const struct qmp_schema *s, struct strv *ret);

/* "NAME" with its arguments and what it returns, for reading; owned. NULL if there is no such command. */
char *qmp_schema_help(const struct qmp_schema *s, const char *command);

/* What may stand in place of @word behind @before (a line up to it): commands, NAME= of arguments not given yet, or words of
 * an enum or on/off for "NAME=".  Only those that begin with @word. */
void qmp_schema_complete(const struct qmp_schema *s, const char *before, const char *word, struct strv *ret);

#endif
