/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sysfs.h - the one seam through which the host is changed, and its kernel files are read.
 *
 * Everything below a root that can be another one than "/": a captured machine, a generated one, or a test's
 * model of the kernel, which supplies `write` and acts on what is written.  @root has no trailing slash ("" is "/");
 * paths given to the functions are absolute on that host: "/sys/bus/pci/devices/...". */
#ifndef GPUVM_SYSFS_H
#define GPUVM_SYSFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gpuvm/err.h"
#include "gpuvm/strv.h"

struct sysfs {
	const char *root; /* "" for the live host */

	/* How a value is stored: sysfs_write_file(), or a test's model of the kernel.  0 or -Exxx.
	 * @path already has the root in front. */
	int (*write)(void *ctx, const char *path, const char *value);
	/* The same of 16 bits of a configuration space: sysfs_write_word(). */
	int (*write_word)(void *ctx, const char *path, unsigned int offset, uint16_t value);
	void *ctx;

	bool serial;           /* one device after the other in this process (tests count writes); else side by side in workers */
	int busy_fd; /* a lock that workers keep as long as they live (claim_busy()); 0: none */
	unsigned int timeout_ms; /* for one device's rebind; 0: 60 s */
};

/* The live host: root "", real writes. */
extern const struct sysfs sysfs_live;

int sysfs_write_file(void *ctx, const char *path, const char *value);
int sysfs_write_word(void *ctx, const char *path, unsigned int offset, uint16_t value);

/* Write @value to the file that @fmt names. The error names value and path. */
int sysfs_store(const struct sysfs *s, struct err *e, const char *value, const char *fmt, ...) PRINTF(4, 5);

/* Write @value at @offset (even) of the configuration space that @fmt names ("config"): one access of 16 bits. */
int sysfs_store_word(const struct sysfs *s, struct err *e, unsigned int offset, uint16_t value, const char *fmt, ...) PRINTF(5, 6);

/* First 4 KiB of a file without the final newline, owned; NULL if it cannot be read. */
char *sysfs_read(const struct sysfs *s, const char *fmt, ...) PRINTF(2, 3);

/* The first @size bytes of a file as they are ("config"): how many there were, or -Exxx. */
ssize_t sysfs_read_bytes(const struct sysfs *s, void *buf, size_t size, const char *fmt, ...) PRINTF(4, 5);

/* Last component of a link's target, owned; NULL if there is no such link. */
char *sysfs_link_name(const struct sysfs *s, const char *fmt, ...) PRINTF(2, 3);

/* Names in a folder, sorted, without dot files. -Exxx if it cannot be read. */
int sysfs_list(const struct sysfs *s, struct strv *ret, const char *fmt, ...) PRINTF(3, 4);
bool sysfs_exists(const struct sysfs *s, const char *fmt, ...) PRINTF(2, 3);

#endif
