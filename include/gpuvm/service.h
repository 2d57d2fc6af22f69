/* SPDX-License-Identifier: GPL-2.0-or-later */
/* service.h - what systemd is told and asked by one of its services.
 *
 * By libsystemd, which is loaded where there is something to tell: a launch outside of a unit does without it and the seven libraries that it brings
 * (1.2 ms of 3). Where it should be there and is not, a warning says so once. */
#ifndef GPUVM_SERVICE_H
#define GPUVM_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iovec;

/* sd_notify(3). Nothing outside of a unit with Type=notify ($NOTIFY_SOCKET). */
void service_notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* sd_watchdog_enabled(3): within which time systemd wants to hear WATCHDOG=1; 0: it does not wait for that. */
uint64_t service_watchdog_usec(void);

/* sd_journal_sendv(3), one entry of @n fields. False: it could not be sent. */
bool service_journal(const struct iovec *v, size_t n);

#endif
