/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdarg.h>

#include <libkmod.h>

#include "gpuvm/cleanup.h"
#include "gpuvm/module.h"
#include "gpuvm/lazy.h"

#define KMOD_CALLS(X) \
	X(kmod_new) X(kmod_unref) X(kmod_set_log_fn) X(kmod_module_new_from_lookup) X(kmod_module_get_module) \
	X(kmod_module_probe_insert_module) X(kmod_module_unref) X(kmod_module_unref_list) X(kmod_list_next)

static struct {
	KMOD_CALLS(LAZY_POINTER)
} kmod;
static const char *const kmod_names[] = { KMOD_CALLS(LAZY_NAME) };

/* libkmod's own messages would come on top of ours. */
static void drop_message(void *data, int priority, const char *file, int line, const char *fn, const char *format, va_list args)
{
	(void)data, (void)priority, (void)file, (void)line, (void)fn, (void)format, (void)args;
}

static int load(struct kmod_ctx *ctx, const char *name, struct err *e)
{
	struct kmod_list *list = NULL, *it;
	int r = kmod.kmod_module_new_from_lookup(ctx, name, &list);

	if (r < 0)
		return err_sys(e, r, "look up kernel module '%s'", name);
	if (!list)
		return err_set(e, -ENOENT, "load kernel module '%s': this kernel has none", name);
	/* kmod_list_foreach() */
	for (it = list; it; it = kmod.kmod_list_next(list, it)) {
		struct kmod_module *mod = kmod.kmod_module_get_module(it);

		r = kmod.kmod_module_probe_insert_module(mod, 0, NULL, NULL, NULL, NULL);
		kmod.kmod_module_unref(mod);
		if (r < 0)
			break;
	}
	kmod.kmod_module_unref_list(list);
	return r < 0 ? err_sys(e, r, "load kernel module '%s'", name) : 0;
}

int module_load(const char *name, struct err *e)
{
	int r = lazy_load("libkmod.so.2", kmod_names, ARRAY_SIZE(kmod_names), &kmod, e);
	struct kmod_ctx *ctx;

	if (r < 0)
		return r;
	ctx = kmod.kmod_new(NULL, NULL);
	if (!ctx)
		return err_set(e, -ENOMEM, "libkmod: no context");
	kmod.kmod_set_log_fn(ctx, drop_message, NULL);
	r = load(ctx, name, e);
	kmod.kmod_unref(ctx);
	return r;
}
