/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The corpora of the fuzzers once more, with whatever this build checks: make check-san has both sanitizers. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <sys/stat.h>

#include "gpuvm/cleanup.h"

static void replay(int (*fuzz)(const uint8_t *data, size_t size), const char *name)
{
	AUTO_FREE char *dir = xasprintf("tests/fuzz/corpus/%s", name);
	AUTO_CLOSEDIR DIR *d = opendir(dir);
	AUTO_CLOSE int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct dirent *f;
	int n = 0;

	cr_assert(d, "%s is not there", dir);
	/* What the programs say is not the subject. */
	cr_assert(dup2(null, STDOUT_FILENO) >= 0 && dup2(null, STDERR_FILENO) >= 0);
	while ((f = readdir(d))) {
		AUTO_CLOSE int fd = openat(dirfd(d), f->d_name, O_RDONLY | O_CLOEXEC);
		AUTO_FREE uint8_t *data = NULL;
		struct stat st;

		cr_assert(fd >= 0 && fstat(fd, &st) == 0);
		if (!S_ISREG(st.st_mode))
			continue;
		/* Of that very size: one byte too far is then seen. */
		data = xcalloc((size_t)st.st_size, 1);
		cr_assert(read(fd, data, (size_t)st.st_size) == st.st_size);
		cr_expect(fuzz(data, (size_t)st.st_size) == 0, "%s/%s", dir, f->d_name);
		n++;
	}
	cr_assert(n > 0, "%s is empty", dir);
}

#define REPLAY(name)                                             \
	int fuzz_##name(const uint8_t *data, size_t size);       \
	Test(fuzz, name, .timeout = 300)                         \
	{                                                        \
		replay(fuzz_##name, #name);                      \
	}

REPLAY(answers)
REPLAY(argv)
REPLAY(claim)
REPLAY(config)
REPLAY(fabric)
REPLAY(image)
REPLAY(irq)
REPLAY(qmp)
REPLAY(sysfs)
REPLAY(xml)
