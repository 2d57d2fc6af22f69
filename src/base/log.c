/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gpuvm/log.h"
#include "gpuvm/service.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static const char *log_program = "gpuvm";
static enum log_level log_max = LOG_LEVEL_NOTICE;
static char *log_field; /* of every line */
static bool log_has_progress; /* a progress line stands on the terminal */

/* sd-daemon(3): JOURNAL_STREAM is "device:inode" of the stream that the journal reads. Asked anew for each line: --daemonize gives stderr to a file. */
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
}

bool log_enabled(enum log_level level)
{
	return level <= log_max;
}

void log_set_field(const char *field)
{
	free(log_field);
	log_field = field ? xstrdup(field) : NULL;
}

void log_entry(enum log_level level, const char *text, const char *const *fields, struct strv *ret)
{
	strv_pushf(ret, "MESSAGE=%s", text);
	strv_pushf(ret, "PRIORITY=%d", level);
	strv_pushf(ret, "SYSLOG_IDENTIFIER=%s", log_program);
	if (log_field)
		strv_push(ret, log_field);
	for (; fields && *fields; fields++)
		strv_push(ret, *fields);
}

/* False: there is no such journal, of which sd_journal_sendv() would say nothing. */
static bool send_to_journal(enum log_level level, const char *text, const char *const *fields)
{
	AUTO_FREE struct iovec *v = NULL;
	struct strv entry = { 0 };
	bool sent;

	if (access(JOURNAL_SOCKET, W_OK) < 0)
		return false;
	log_entry(level, text, fields, &entry);
	v = xcalloc(entry.n, sizeof(*v));
	for (size_t i = 0; i < entry.n; i++)
		v[i] = (struct iovec){ .iov_base = entry.v[i], .iov_len = strlen(entry.v[i]) };
	sent = service_journal(v, entry.n);
	strv_clear(&entry);
	return sent;
}

static void put_line(enum log_level level, const char *const *fields, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
static void put_line(enum log_level level, const char *const *fields, const char *fmt, va_list ap)
{
	static const char *const words[] = { [LOG_LEVEL_ERROR] = "error: ", [LOG_LEVEL_WARNING] = "warning: " };
	const char *word = level < ARRAY_SIZE(words) && words[level] ? words[level] : "";
	AUTO_FREE char *text = NULL;
	bool journal = stderr_is_journal();

	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	text_plain(text);
	log_progress_end();
	/* One write per line, so that lines of several processes do not mix. */
	if (!journal)
		fprintf(stderr, "%s: %s%s\n", log_program, word, text);
	else if (!send_to_journal(level, text, fields))
		fprintf(stderr, "<%d>%s\n", level, text);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	put_line(level, NULL, fmt, ap);
	va_end(ap);
}

void log_line_with(enum log_level level, const char *const *fields, const char *fmt, ...)
{
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	put_line(level, fields, fmt, ap);
	va_end(ap);
}

void log_progress(const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	va_list ap;

	if (stderr_is_journal() || !log_enabled(LOG_LEVEL_NOTICE) || !isatty(STDERR_FILENO))
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
