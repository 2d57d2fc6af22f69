/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "gpuvm/lazy.h"

int lazy_load(const char *library, const char *const *names, size_t n, void *ret, struct err *e)
{
	void *first, *handle, **pointers = ret;

	memcpy(&first, ret, sizeof(first));
	if (first)
		return 0;
	handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	/* All or nothing, the first one last: it says that the others are there. */
	for (size_t i = n; handle && i-- > 0;) {
		pointers[i] = dlsym(handle, names[i]);
		if (!pointers[i])
			break;
	}
	if (!handle || !pointers[0])
		return err_set(e, -ENOENT, "load the library %s: %s", library, dlerror());
	return 0;
}
