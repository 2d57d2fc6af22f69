/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_disk.c - disks. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "argv_priv.h"

static bool ends_in(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* By what is said or the file's name; never by looking inside: a guest can write a qcow2 header into a raw disk. */
static const char *disk_format(struct builder *b, const struct disk_config *d)
{
	AUTO_FREE char *section = NULL;

	if (d->format != DISK_AUTO)
		return d->format == DISK_RAW ? "raw" : "qcow2";
	if (strncmp(d->file, "/dev/", 5) == 0 || ends_in(d->file, ".raw") || ends_in(d->file, ".img") || ends_in(d->file, ".iso"))
		return "raw";
	if (ends_in(d->file, ".qcow2"))
		return "qcow2";
	section = xasprintf("disk %s", d->name);
	problem_hint(config_problem(b->pl->ps, b->vm, section, "file", "format-unknown", "[%s] file: the format of '%s' cannot be told from its name",
				    section, d->file),
		     "add format = raw or format = qcow2; it is never guessed from the contents, which the guest can write");
	return "raw";
}

static const char *cache_word(const struct disk_config *d, bool device)
{
	static const char *const words[] = { [CACHE_NONE] = "none",
					     [CACHE_WRITEBACK] = "writeback",
					     [CACHE_WRITETHROUGH] = "writethrough",
					     [CACHE_DIRECTSYNC] = "directsync",
					     [CACHE_UNSAFE] = "unsafe" };

	return d->cache == CACHE_AUTO ? (device ? "none" : "writeback") : words[d->cache];
}

static void arg_blockdev(struct builder *b, const struct disk_config *d)
{
	bool device = strncmp(d->file, "/dev/", 5) == 0;
	const char *cache = cache_word(d, device), *format = disk_format(b, d);
	bool direct = strcmp(cache, "none") == 0 || strcmp(cache, "directsync") == 0;
	static const char *const aio[] = { [AIO_THREADS] = "threads", [AIO_NATIVE] = "native", [AIO_IO_URING] = "io_uring" };
	struct qopt o;

	qopt_init(&o, "");
	qopt_str(&o, "driver", format);
	qopt_fmt(&o, "node-name", "disk-%s", d->name);
	qopt_bool(&o, "read-only", d->readonly);
	qopt_bool(&o, "cache.direct", direct);
	qopt_bool(&o, "cache.no-flush", strcmp(cache, "unsafe") == 0);
	qopt_str(&o, "file.driver", device ? "host_device" : "file");
	qopt_str(&o, "file.filename", d->file);
	qopt_bool(&o, "file.cache.direct", direct);
	qopt_str(&o, "file.aio", d->aio != AIO_AUTO ? aio[d->aio] : direct ? "native" : "threads");
	arg_why(b, "-blockdev", qopt_finish(&o), "disk %s: %s, cache %s", d->name, format, cache);
}

/* The lowest that no disk asks for and none was given: QEMU refuses two alike. */
static int next_bootindex(struct builder *b)
{
	for (size_t i = 0; i < b->vm->n_disks; i++) {
		if (b->vm->disks[i].bootindex == b->next_boot) {
			b->next_boot++;
			i = (size_t)-1;
		}
	}
	return b->next_boot++;
}

static void arg_disk(struct builder *b, const struct disk_config *d)
{
	struct qopt o;
	const char *cache = cache_word(d, strncmp(d->file, "/dev/", 5) == 0);

	arg_blockdev(b, d);
	qopt_init(&o, "virtio-blk-pci");
	qopt_fmt(&o, "id", "blk-%s", d->name);
	qopt_fmt(&o, "drive", "disk-%s", d->name);
	arg_virtio_addr(b, &o);
	qopt_u64(&o, "num-queues", d->queues > 0 ? (uint64_t)d->queues : b->p->n_vcpus);
	qopt_bool(&o, "write-cache", strcmp(cache, "writethrough") != 0 && strcmp(cache, "directsync") != 0);
	if (d->iothread)
		qopt_str(&o, "iothread", "io0");
	qopt_u64(&o, "bootindex", d->bootindex >= 0 ? (uint64_t)d->bootindex : (uint64_t)next_bootindex(b));
	arg_why(b, "-device", qopt_finish(&o), "a queue per vCPU%s", d->iothread ? "; requests are served by an I/O thread of its own" : "");
}

void arg_disks(struct builder *b)
{
	bool need = false;

	b->group = "disks";
	for (size_t i = 0; i < b->vm->n_disks; i++)
		need = need || b->vm->disks[i].iothread;
	if (need) {
		struct plan_iothread *io = PUSH_ZEROED(b->p->iothreads, b->p->n_iothreads);

		io->id = xstrdup("io0");
		io->host_cpus = b->p->housekeeping;
		arg_why(b, "-object", xstrdup("iothread,id=io0"), "I/O thread, pinned to the cores kept for the host");
	}
	for (size_t i = 0; i < b->vm->n_disks; i++)
		arg_disk(b, &b->vm->disks[i]);
}
