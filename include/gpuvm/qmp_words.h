/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qmp_words.h - QMP commands as people write them.
 *
 * A command is its name and arguments: one JSON object, or NAME=VALUE words.  A VALUE is a number, true, false, null, a JSON object, array
 * or "string"; whatever else it is is a string as it stands.  Dots in a NAME go into objects: "a.b=1" is {"a": {"b": 1}}. */
#ifndef GPUVM_QMP_WORDS_H
#define GPUVM_QMP_WORDS_H

#include "gpuvm/strv.h"

struct json_object;

/* The words of a line: blanks separate, quotes and \ are a shell's, except within {} and [], where all is taken as it stands up to
 * the closing bracket.  -EINVAL on an open quote or bracket; @ret is untouched on failure. */
int qmp_words_split(const char *line, struct strv *ret, struct err *e);

/* Arguments from words; none: NULL in @ret. -EINVAL with the reason. */
int qmp_words_arguments(char *const *words, size_t n, struct json_object **ret, struct err *e);

/* A whole line: "COMMAND WORDS...", or a JSON message {"execute": .., "arguments": ..}.  An empty line or a comment (#) gives NULL. */
int qmp_words_line(const char *line, char **ret_command, struct json_object **ret_arguments, struct err *e);

#endif
