/* SPDX-License-Identifier: GPL-2.0-or-later */
#define SD_JOURNAL_SUPPRESS_LOCATION /* the function, not the macro that adds this file to each entry */
#include <stdarg.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#include "gpuvm/cleanup.h"
#include "gpuvm/lazy.h"
#include "gpuvm/log.h"
#include "gpuvm/service.h"

#define SYSTEMD_CALLS(X) X(sd_notify) X(sd_watchdog_enabled) X(sd_journal_sendv)

static struct {
	SYSTEMD_CALLS(LAZY_POINTER)
} systemd;
static const char *const systemd_names[] = { SYSTEMD_CALLS(LAZY_NAME) };

static bool load(void)
{
	static bool told;
	struct err e;

	if (lazy_load("libsystemd.so.0", systemd_names, ARRAY_SIZE(systemd_names), &systemd, &e) == 0)
		return true;
	if (!told) {
		told = true; /* before the line, which asks for the library as well */
		log_warning("systemd is not told about this service: %s", e.msg);
	}
	return false;
}

void service_notify(const char *fmt, ...)
{
	AUTO_FREE char *text = NULL;
	va_list ap;

	if (!getenv("NOTIFY_SOCKET") || !load())
		return;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	(void)systemd.sd_notify(0, text); /* as it asks: nobody has to listen */
}

uint64_t service_watchdog_usec(void)
{
	uint64_t usec = 0;

	return getenv("WATCHDOG_USEC") && load() && systemd.sd_watchdog_enabled(0, &usec) > 0 ? usec : 0;
}

bool service_journal(const struct iovec *v, size_t n)
{
	return load() && systemd.sd_journal_sendv(v, (int)n) >= 0;
}
