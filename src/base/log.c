/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/log.h"

static const char *log_program = "gpuvm";
static enum log_level log_max = LOG_LEVEL_NOTICE;
static bool log_journal;
static bool log_has_progress; /* a progress line stands on the terminal */

/* sd-daemon(3): JOURNAL_STREAM is "device:inode" of the stream that the journal reads. */
static bool stderr_is_journal(void)
{
	const char *js = getenv("JOURNAL_STREAM");
	unsigned long dev, ino;
	struct stat st;

	if (!js || sscanf(js, "%lu:%lu", &dev, &ino) != 2 || fstat(STDERR_FILENO, &st) < 0)
		return false;
	return st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *program, enum log_level max)
{
	log_program = program;
	log_max = max;
	log_journal = stderr_is_journal();
}

bool log_enabled(enum log_level level)
{
	return level <= log_max;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const char *const words[] = { [LOG_LEVEL_ERROR] = "error: ", [LOG_LEVEL_WARNING] = "warning: " };
	const char *word = level < ARRAY_SIZE(words) && words[level] ? words[level] : "";
	AUTO_FREE char *text = NULL;
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	log_progress_end();
	/* One write per line, so that lines of several processes do not mix. */
	if (log_journal)
		fprintf(stderr, "<%d>%s\n", level, text);
	else
		fprintf(stderr, "%s: %s%s\n", log_program, word, text);
}

void log_progress(const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	va_list ap;

	if (log_journal || !log_enabled(LOG_LEVEL_NOTICE) || !isatty(STDERR_FILENO))
		return;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	fprintf(stderr, "\r\033[K%s", text);
	fflush(stderr);
	log_has_progress = true;
}

void log_progress_end(void)
{
	if (!log_has_progress)
		return;
	fputs("\r\033[K", stderr);
	fflush(stderr);
	log_has_progress = false;
}

char *log_bar(uint64_t done, uint64_t total, int width)
{
	char *bar = xcalloc((size_t)width + 1, 1);
	double share = total ? (double)done / (double)total : 1;
	int full = (int)((share > 1 ? 1 : share) * width);

	memset(bar, '#', (size_t)full);
	memset(bar + full, '.', (size_t)(width - full));
	return bar;
}
