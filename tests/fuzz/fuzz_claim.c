/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: the JSON files of /run/gpuvm and /var/lib/gpuvm, as they are read after a crash. The first byte says which one the rest is.
 * covers: src/run/claim.c src/run/record.c src/run/events.c src/core/plan_json.c src/host/bad.c src/host/image.c */
#include <json-c/json.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/bad.h"
#include "gpuvm/claim.h"
#include "gpuvm/events.h"
#include "gpuvm/image.h"
#include "gpuvm/log.h"
#include "gpuvm/record.h"
#include "src/cmd/cmd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/dev/shm/gpuvm-fuzz-XXXXXX"; /* fsync costs nothing there */

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void remove_dir(void)
{
	AUTO_FREE char *command = xasprintf("rm -rf %s", dir);

	(void)!system(command);
}

static void make_dirs(void)
{
	static const char *const folders[] = { "demo", "again", "vms", "bad", "images" };
	static bool made;

	if (made)
		return;
	made = true;
	require(mkdtemp(dir));
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		AUTO_FREE char *path = xasprintf("%s/%s", dir, folders[i]);

		require(mkdir(path, 0700) == 0);
	}
	setenv("GPUVM_RUNDIR", dir, 1);
	setenv("GPUVM_STATEDIR", dir, 1);
	setenv("GPUVM_CONFDIR", dir, 1);
	log_init("fuzz", LOG_LEVEL_ERROR);
	atexit(remove_dir);
}

static void put(const char *file, const uint8_t *data, size_t size)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, file);
	AUTO_FCLOSE FILE *f = fopen(path, "we");

	require(f && fwrite(data, 1, size, f) == size);
}

/* What was read can be written, is the same when it is read again, and can be undone. */
static void claim(const char *vm_dir)
{
	AUTO_FREE char *again = xasprintf("%s/again", dir);
	CLEANUP(claim_clear) struct claim c = { 0 };
	CLEANUP(claim_clear) struct claim back = { 0 };
	struct err e = { 0 };

	if (claim_read(vm_dir, &c, &e) < 0) {
		require(*e.msg);
		return;
	}
	require(c.vm && c.boot_id && c.reason && *c.state && !strchr(c.vm, '/'));
	(void)claim_alive(&c);
	free(claim_bind_ops(&c));
	for (size_t i = 0; i < c.n_devices; i++)
		require(c.devices[i].to && !strchr(c.devices[i].to, '/') && (!c.devices[i].from || !strchr(c.devices[i].from, '/')));
	free(c.rundir);
	c.rundir = STEAL_PTR(again);
	free(c.vm);
	c.vm = xstrdup("again");
	require(claim_write(&c, &e) == 0 && claim_read(c.rundir, &back, &e) == 0);
	require(back.n_devices == c.n_devices && back.n_registers == c.n_registers && back.n_owned == c.n_owned && back.taps.n == c.taps.n &&
		back.n_helpers == c.n_helpers && back.launcher_pid == c.launcher_pid && cpuset_equal(&back.cpus, &c.cpus) && back.partition == c.partition);
}

static void last(const char *vm_dir)
{
	struct claim_last l = { 0 };
	struct err e = { 0 };

	if (claim_read_last(vm_dir, &l, &e) == 0)
		require(l.reason != NULL);
	free(l.reason);
}

/* A launcher that takes over puts threads on CPUs by it. */
static void plan(const char *text)
{
	CLEANUP(plan_clear) struct plan p = { 0 };
	struct json_object *o = json_tokener_parse(text);
	struct cpuset cpus = { 0 };
	struct err e = { 0 };

	if (plan_from_json(o, &p, &e) == 0) {
		for (size_t i = 0; i < p.n_vcpus; i++)
			cpuset_add(&cpus, p.vcpus[i].host_cpu);
		require(p.vm && p.qemu_binary && (size_t)p.fabric.n_ids <= ARRAY_SIZE(p.fabric.ids));
	} else {
		require(*e.msg);
	}
	json_object_put(o);
}

static void record(void)
{
	CLEANUP(record_clear) struct record r = { 0 };
	struct err e = { 0 };

	if (record_read("demo", &r, &e) == 0)
		require(strcmp(r.vm, "demo") == 0);
	else
		require(*e.msg);
}

static void bad(void)
{
	struct bad_device *v = NULL;
	struct err e = { 0 };
	size_t n = 0;

	require(bad_list(dir, &v, &n, &e) == 0 && n == 1 && (v->damaged || (v->reason && v->by && v->boot_id)));
	bad_free(v, n);
}

static void image(void)
{
	CLEANUP(image_clear) struct image i = { 0 };
	struct err e = { 0 };

	if (image_find(dir, "debian", &i, &e) == 0)
		require(strstr(i.file, "/images/debian@") && !strchr(strstr(i.file, "/images/") + 8, '/'));
	else
		require(*e.msg);
}

static void events(const char *vm_dir)
{
	struct json_object *all = events_read(vm_dir, 100);
	char text[1024];

	require(json_object_array_length(all) <= 100);
	for (size_t i = 0; i < json_object_array_length(all); i++) {
		cmd_event_text(json_object_array_get_idx(all, i), text, sizeof(text));
		require(!strpbrk(text, "\n\r\x1b"));
	}
	json_object_put(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = NULL, *vm_dir = NULL;

	if (!size)
		return 0;
	make_dirs();
	vm_dir = xasprintf("%s/demo", dir);
	text = xstrndup((const char *)++data, --size);
	switch (data[-1]) {
	case 'c':
		put("demo/claim.json", data, size);
		claim(vm_dir);
		break;
	case 'l':
		put("demo/last.json", data, size);
		last(vm_dir);
		break;
	case 'p':
		plan(text);
		break;
	case 'r':
		put("vms/demo.json", data, size);
		record();
		break;
	case 'b':
		put("bad/0000:17:00.0.json", data, size);
		bad();
		break;
	case 'i':
		put("images/debian.json", data, size);
		image();
		break;
	case 'e':
		put("demo/" EVENTS_FILE, data, size);
		events(vm_dir);
		break;
	default:
		break;
	}
	return 0;
}
