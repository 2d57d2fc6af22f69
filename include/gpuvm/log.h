/* SPDX-License-Identifier: GPL-2.0-or-later */
/* log.h - one line per thing that happened, to stderr.
 *
 * When stderr is the journal (JOURNAL_STREAM matches it), lines go to it by its own protocol (sd_journal_sendv(3)), with fields that can be searched;
 * if its socket is not there, to stderr with an sd-daemon(3) "<N>" prefix instead of the program name.  Nothing is logged by src/core: decisions
 * end in the plan. */
#ifndef GPUVM_LOG_H
#define GPUVM_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/strv.h"

enum log_level {
	LOG_LEVEL_ERROR = 3, /* the numbers are syslog's */
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* Default: NOTICE.  -v adds INFO then DEBUG, -q leaves errors and warnings. */
void log_init(const char *program, enum log_level max);
bool log_enabled(enum log_level level);
void log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);

/* A line with more fields for the journal: "KEY=value" each, up to a NULL. Elsewhere they are left out. */
void log_line_with(enum log_level level, const char *const *fields, const char *fmt, ...) PRINTF(3, 4);

/* A field that every line from now on has in the journal; copied; NULL: none. */
void log_set_field(const char *field);

/* What the journal gets of a line: "KEY=value" each. For tests. */
void log_entry(enum log_level level, const char *text, const char *const *fields, struct strv *ret);

/* How far long work has come: one line on a terminal, overwritten by the next and removed by any log line. In a pipe, a file, the journal
 * or with -q nothing is written. */
void log_progress(const char *fmt, ...) PRINTF(1, 2);
void log_progress_end(void);

/* "#######........." of @width characters: @done of @total; owned. */
char *log_bar(uint64_t done, uint64_t total, int width);

#define log_error(...)   log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
