/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdarg.h>

#include <libkmod.h>

#include "gpuvm/module.h"

/* libkmod's own messages would come on top of ours. */
static void drop_message(void *data, int priority, const char *file, int line, const char *fn, const char *format, va_list args)
{
	(void)data, (void)priority, (void)file, (void)line, (void)fn, (void)format, (void)args;
}

static int load(struct kmod_ctx *ctx, const char *name, struct err *e)
{
	struct kmod_list *list = NULL, *it;
	int r = kmod_module_new_from_lookup(ctx, name, &list);

	if (r < 0)
		return err_sys(e, r, "look up kernel module '%s'", name);
	if (!list)
		return err_set(e, -ENOENT, "load kernel module '%s': this kernel has none", name);
	kmod_list_foreach(it, list)
	{
		struct kmod_module *mod = kmod_module_get_module(it);

		r = kmod_module_probe_insert_module(mod, 0, NULL, NULL, NULL, NULL);
		kmod_module_unref(mod);
		if (r < 0)
			break;
	}
	kmod_module_unref_list(list);
	return r < 0 ? err_sys(e, r, "load kernel module '%s'", name) : 0;
}

int module_load(const char *name, struct err *e)
{
	struct kmod_ctx *ctx = kmod_new(NULL, NULL);
	int r;

	if (!ctx)
		return err_set(e, -ENOMEM, "libkmod: no context");
	kmod_set_log_fn(ctx, drop_message, NULL);
	r = load(ctx, name, e);
	kmod_unref(ctx);
	return r;
}
