/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cleanup.h - scoped ownership.
 *
 * A resource is released where its name goes out of scope; STEAL_PTR hands it to the caller instead.
 * Every pointer so declared must be initialised (NULL is fine), every fd to -1 or a real fd. */
#ifndef GPUVM_CLEANUP_H
#define GPUVM_CLEANUP_H

#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PRINTF(f, a)  __attribute__((format(printf, f, a)))
#define CLEANUP(fn)   __attribute__((cleanup(fn)))

static inline void free_cleanup(void *p)
{
	free(*(void **)p);
}
static inline void close_cleanup(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
static inline void fclose_cleanup(FILE **f)
{
	if (*f)
		fclose(*f);
}
static inline void closedir_cleanup(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define AUTO_FREE     CLEANUP(free_cleanup)
#define AUTO_CLOSE    CLEANUP(close_cleanup)
#define AUTO_FCLOSE   CLEANUP(fclose_cleanup)
#define AUTO_CLOSEDIR CLEANUP(closedir_cleanup)

/* Hand a scoped pointer (or fd) to the caller: returns it and leaves NULL (-1) behind. */
#define STEAL_PTR(p)                        \
	({                                  \
		__typeof__(p) stolen_ = (p); \
		(p) = NULL;                 \
		stolen_;                    \
	})
#define STEAL_FD(fd)             \
	({                       \
		int stolen_ = (fd); \
		(fd) = -1;       \
		stolen_;         \
	})

/* Allocation that aborts when memory is out: nothing here can be done with half a plan.
 * xasprintf() returns an owned string. xgrow() makes room for one more element of an array of @n:
 * it reallocates at powers of two, so that pushing one by one is linear. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF(1, 2);
void *xgrow(void *v, size_t n, size_t size);

/* Append a zeroed element to the array v of n elements; evaluates to a pointer to it. */
#define PUSH_ZEROED(v, n) ((v) = xgrow((v), (n), sizeof(*(v))), &(v)[(n)++])

#endif
