/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpuvm/slim.h"

/* Code and constants, as they are in the file: whatever is needed again comes back from the page cache. Never what may have been written to. */
static int drop_constant(struct dl_phdr_info *info, size_t size, void *ctx)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)ctx;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t from = (info->dlpi_addr + ph->p_vaddr) & ~(page - 1), to = info->dlpi_addr + ph->p_vaddr + ph->p_filesz;

		if (ph->p_type == PT_LOAD && !(ph->p_flags & PF_W))
			(void)madvise((void *)from, to - from, MADV_DONTNEED); /* the vdso has no file: it says no */
	}
	return 0;
}

void slim_down(void)
{
	malloc_trim(0);
	dl_iterate_phdr(drop_constant, NULL);
}
