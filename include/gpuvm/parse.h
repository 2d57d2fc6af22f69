/* SPDX-License-Identifier: GPL-2.0-or-later */
/* parse.h - text to values, all or nothing: the whole string is consumed or -EINVAL/-ERANGE is returned and
 * the result is untouched.  The only place that calls strtoull(). */
#ifndef GPUVM_PARSE_H
#define GPUVM_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/cleanup.h"

struct pci_addr {
	uint32_t domain; /* VMD and cloud hosts go past 16 bits */
	uint8_t bus;
	uint8_t dev; /* 0-31 */
	uint8_t fn;  /* 0-7 */
};

#define PCI_ADDR_STR 24 /* room for "ffffffff:ff:1f.7" */

int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret); /* decimal or 0x hex */
int parse_int(const char *s, int min, int max, int *ret);                /* decimal, may be negative */
int parse_hex(const char *s, uint64_t max, uint64_t *ret);               /* with or without 0x */
int parse_bool(const char *s, bool *ret);                                /* on|off yes|no true|false 1|0 */

/* "4096", "2M", "1.5G", "960 GiB", "1T": binary units, result in bytes; a fraction must come out whole. */
int parse_size(const char *s, uint64_t *ret_bytes);

/* "90", "90s", "500ms", "2min": result in milliseconds; a bare number is seconds. */
int parse_duration(const char *s, uint64_t *ret_ms);

/* "0000:81:00.0" or "81:00.0" (domain 0). */
int parse_pci_addr(const char *s, struct pci_addr *ret);

/* Writes "0000:81:00.0" to @buf and returns it. */
const char *pci_addr_format(const struct pci_addr *a, char buf[PCI_ADDR_STR]);
int pci_addr_cmp(const struct pci_addr *a, const struct pci_addr *b);

/* Exact size for people: "960 GiB", "1536 MiB", "4 KiB", "17 bytes"; the largest unit that stays whole. */
const char *format_size(uint64_t bytes, char buf[32]);

/* Damerau-Levenshtein distance, for "did you mean". */
unsigned int edit_distance(const char *a, const char *b);

/* Whole file (or at most @max bytes of it) as an owned string without the final newline; -Exxx. */
int read_text_file(const char *path, size_t max, char **ret);

/* As read_text_file() of what we have written ourselves: a link, or what is no regular file, is somebody else's (-ELOOP, -EINVAL). */
int read_own_file(const char *path, size_t max, char **ret);

/* All of @text, over short writes and signals; -Exxx. */
int write_all(int fd, const char *text, size_t len);

/* What was created, renamed or removed at @path is so after a crash, too; -Exxx. */
int fsync_parent(const char *path);

/* What a user asked for with a path: all of it or nothing, through links; what is there and no regular file (a FIFO, /dev/stdout) is written into. 0 or -Exxx. */
int write_output_file(const char *path, const char *text, size_t len);

/* Write, fsync, rename over @path, fsync the folder: after a crash the old or the new file, never half of one. */
int write_file_atomic(const char *path, const char *text, size_t len, unsigned int mode);

#endif
