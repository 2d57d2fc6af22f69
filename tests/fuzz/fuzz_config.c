/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any bytes as a definition: an answer, no crash, no leak, and every problem complete enough to be shown.
 * The first line may be "--set TEXT", so that the other way in is reached too.
 * covers: src/core/config.c src/core/config_values.c src/core/config_check.c src/core/config_keys.c */
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check_problems(const struct problems *ps)
{
	struct json_object *o = problems_to_json(ps, "fuzz");

	for (size_t i = 0; i < ps->n; i++) {
		require(ps->v[i].kind == PROBLEM_CONFIG && ps->v[i].code && *ps->v[i].message && ps->v[i].line >= 0);
		require(!strpbrk(ps->v[i].message, "\n\r\x1b"));
	}
	require(problems_exit_code(ps) == (ps->n ? 3 : 0));
	json_object_put(o);
}

/* What was taken keeps the promises of config.h. */
static void check_definition(const struct vm_config *vm)
{
	require(vm->name && *vm->name && strlen(vm->name) <= VM_NAME_MAX && !strpbrk(vm->name, "/ ,"));
	require(vm->gpus >= 0 && (vm->vcpus == CONF_AUTO || vm->vcpus > 0));
	require((vm->pin == PIN_LIST) == (vm->n_pin_cpus > 0));
	for (size_t i = 0; i < vm->n_disks; i++)
		require(vm->disks[i].file && vm->disks[i].file[0] == '/' && *vm->disks[i].name);
	for (size_t i = 0; i < vm->n_devices; i++)
		require(vm->devices[i].pci_set && *vm->devices[i].name);
	for (size_t i = 0; i < vm->n_nets; i++)
		require((vm->nets[i].type == NET_BRIDGE) == !!vm->nets[i].bridge && (vm->nets[i].type != NET_USER || !vm->nets[i].ifname));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char set[] = "--set ";
	struct problems ps = {0};
	struct strv sets = {0};
	struct vm_config vm;
	AUTO_FREE char *text = NULL;
	const char *newline = memchr(data, '\n', size);
	size_t skip = 0;

	if (newline && size > strlen(set) && !memcmp(data, set, strlen(set))) {
		AUTO_FREE char *arg =
		    xstrndup((const char *)data + strlen(set), (size_t)(newline - (const char *)data) - strlen(set));

		strv_push(&sets, arg);
		skip = (size_t)(newline - (const char *)data) + 1;
	}
	/* An exact copy: reading one byte too far is then seen. */
	text = xcalloc(size - skip, 1);
	memcpy(text, data + skip, size - skip);
	if (config_parse("fuzz.ini", text, size - skip, &sets, &vm, &ps) == 0)
		check_definition(&vm);
	check_problems(&ps);
	config_clear(&vm);
	problems_clear(&ps);
	strv_clear(&sets);
	return 0;
}
