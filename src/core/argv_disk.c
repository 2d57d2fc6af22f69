/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_disk.c - disks and the I/O threads that serve them.
 *
 * How it works: for each guest node with vCPUs an I/O thread can be made, on the reserved cores of that node.  Who is served by which is
 * decided first (serve()), for every queue where QEMU can tell queues apart; then the threads that are used are made, then the disks. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

#include "argv_priv.h"

#define BLK_QUEUES_MAX  1024 /* QEMU: VIRTIO_QUEUE_MAX */
#define SCSI_QUEUES_MAX 1022 /* less those for control and events */
#define QCOW2_L2_CACHE  (UINT64_C(256) << 20)
#define CONTROLLER      "scsi0"

struct server {
	int *of_queue; /* guest node of the I/O thread that serves it; NULL: QEMU's main loop */
	int queues;
};

struct disks {
	struct builder *b;
	int *cpus; /* vCPUs of each guest node */
	bool *used;
	int turn; /* guest node whose turn it is */
	struct server *blk, scsi;
	int n_scsi; /* disks on the controller */
};

/* --- a device, as a list of options or as JSON ----------------------------------------------------------------- */

/* Built as an object, because only JSON can say a list (iothread-vq-mapping). What has none is written as people write it. */
static struct json_object *dev_new(const char *driver, const char *id_prefix, const char *name)
{
	struct json_object *o = json_object_new_object();
	AUTO_FREE char *id = xasprintf("%s%s", id_prefix, name);

	json_object_object_add(o, "driver", json_object_new_string(driver));
	json_object_object_add(o, "id", json_object_new_string(id));
	return o;
}

static void dev_str(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static void dev_int(struct json_object *o, const char *key, int value)
{
	json_object_object_add(o, key, json_object_new_int(value));
}

static void dev_addr(struct json_object *o, struct builder *b)
{
	int at = arg_virtio_function(b);
	AUTO_FREE char *addr = xasprintf("0x%x.0x%x", (unsigned int)at / 8, (unsigned int)at % 8);

	dev_str(o, "bus", "pcie.0");
	dev_str(o, "addr", addr);
	if (at % 8 == 0)
		json_object_object_add(o, "multifunction", json_object_new_boolean(true));
}

/* Owned; consumes @o. */
static char *dev_finish(struct json_object *o, bool json)
{
	char *text =
		json ? xstrdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) : NULL;
	struct qopt q = { 0 };

	if (!json) {
		json_object_object_foreach (o, key, value) {
			if (strcmp(key, "driver") == 0)
				qopt_init(&q, json_object_get_string(value));
			else if (json_object_is_type(value, json_type_boolean))
				qopt_bool(&q, key, json_object_get_boolean(value));
			else
				qopt_str(&q, key, json_object_get_string(value));
		}
		text = qopt_finish(&q);
	}
	json_object_put(o);
	return text;
}

/* --- I/O threads --------------------------------------------------------------------------------------------- */

/* The next guest node with vCPUs. */
static int next_turn(struct disks *d)
{
	int n = (int)d->b->p->n_nodes, node = d->turn;

	while (!d->cpus[node % n])
		node++;
	d->turn = node + 1;
	return node % n;
}

static int nodes_with_cpus(const struct disks *d)
{
	int n = 0;

	for (size_t i = 0; i < d->b->p->n_nodes; i++)
		n += d->cpus[i] > 0;
	return n;
}

static bool can_spread(const struct disks *d, enum qemu_feature mapping)
{
	return nodes_with_cpus(d) > 1 && qemu_has(d->b->q, mapping);
}

static void serve(struct disks *d, int queues, enum qemu_feature mapping, struct server *ret)
{
	ret->queues = queues;
	ret->of_queue = xcalloc((size_t)queues, sizeof(*ret->of_queue));
	if (can_spread(d, mapping)) {
		spread_queues(d->cpus, d->b->p->n_nodes, queues, ret->of_queue);
	} else {
		int node = next_turn(d);

		for (int i = 0; i < queues; i++)
			ret->of_queue[i] = node;
	}
	for (int i = 0; i < queues; i++)
		d->used[ret->of_queue[i]] = true;
}

/* Or none. */
static bool one_thread(const struct server *s)
{
	for (int i = 1; s->of_queue && i < s->queues; i++)
		if (s->of_queue[i] != s->of_queue[0])
			return false;
	return true;
}

static struct json_object *queues_of(const struct server *s, int node)
{
	struct json_object *a = json_object_new_array();

	for (int i = 0; i < s->queues; i++)
		if (s->of_queue[i] == node)
			json_object_array_add(a, json_object_new_int(i));
	return a;
}

static void dev_threads(struct json_object *o, const struct disks *d, const struct server *s)
{
	struct json_object *map;
	char id[16];

	if (!s->of_queue)
		return;
	if (one_thread(s)) {
		snprintf(id, sizeof(id), "io%d", s->of_queue[0]);
		dev_str(o, "iothread", id);
		return;
	}
	map = json_object_new_array();
	for (int node = 0; node < (int)d->b->p->n_nodes; node++) {
		struct json_object *vqs = queues_of(s, node), *one;

		/* QEMU refuses an empty list. */
		if (!json_object_array_length(vqs)) {
			json_object_put(vqs);
			continue;
		}
		one = json_object_new_object();
		snprintf(id, sizeof(id), "io%d", node);
		dev_str(one, "iothread", id);
		json_object_object_add(one, "vqs", vqs);
		json_object_array_add(map, one);
	}
	json_object_object_add(o, "iothread-vq-mapping", map);
}

static const char *threads_why(const struct disks *d, const struct server *s, enum qemu_feature mapping)
{
	if (!s->of_queue)
		return "served by QEMU's main loop ([disk] iothread = off)";
	if (!one_thread(s))
		return "each served by the I/O thread of the node whose vCPUs Linux lets use it";
	if (nodes_with_cpus(d) > 1 && !qemu_has(d->b->q, mapping))
		return "served by one I/O thread: this QEMU cannot spread a device's queues over several";
	return "served by an I/O thread";
}

/* Cores of that node that are kept for the host; a node may have none, with [cpu] pin or emulator of the user's own. */
static struct cpuset thread_cpus(const struct builder *b, const struct plan_node *n)
{
	int host = planner_host_node(b->pl, n);
	struct cpuset set = b->p->housekeeping;

	if (host >= 0)
		cpuset_and(&set, &b->pl->req->host->nodes[host].cpus);
	return host < 0 || cpuset_empty(&set) ? b->p->housekeeping : set;
}

static void arg_threads(const struct disks *d)
{
	struct builder *b = d->b;

	for (size_t i = 0; i < b->p->n_nodes; i++) {
		struct plan_iothread *io;
		AUTO_FREE char *cpus = NULL;
		struct qopt o;

		if (!d->used[i])
			continue;
		io = PUSH_ZEROED(b->p->iothreads, b->p->n_iothreads);
		io->id = xasprintf("io%zu", i);
		io->host_cpus = thread_cpus(b, &b->p->nodes[i]);
		cpus = cpuset_format(&io->host_cpus);
		qopt_init(&o, "iothread");
		qopt_str(&o, "id", io->id);
		arg_why(b, "-object", qopt_finish(&o), "I/O thread of guest node %zu, on CPUs %s: cores kept for the host", i,
			cpus);
	}
}

/* --- image or device ------------------------------------------------------------------------------------------- */

static bool ends_in(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* By its name; files of a tmpfs are at /dev/shm. */
static bool is_device(const struct disk_config *c)
{
	return strncmp(c->file, "/dev/", 5) == 0 && strncmp(c->file, "/dev/shm/", 9) != 0;
}

const char *plan_disk_format(const struct disk_config *c)
{
	if (c->format != DISK_AUTO)
		return c->format == DISK_RAW ? "raw" : "qcow2";
	if (is_device(c) || ends_in(c->file, ".raw") || ends_in(c->file, ".img") || ends_in(c->file, ".iso"))
		return "raw";
	return ends_in(c->file, ".qcow2") ? "qcow2" : NULL;
}

static const char *disk_format(struct builder *b, const struct disk_config *c)
{
	const char *word = plan_disk_format(c);
	AUTO_FREE char *section = NULL;

	if (word)
		return word;
	section = xasprintf("disk %s", c->name);
	problem_hint(config_problem(b->pl->ps, b->vm, section, "file", "format-unknown",
				    "[%s] file: the format of '%s' cannot be told from its name", section, c->file),
		     "add format = raw or format = qcow2; it is never guessed from the contents, which the guest can write");
	return "raw";
}

static const char *cache_word(const struct disk_config *c)
{
	static const char *const words[] = { [CACHE_NONE] = "none",
					     [CACHE_WRITEBACK] = "writeback",
					     [CACHE_WRITETHROUGH] = "writethrough",
					     [CACHE_DIRECTSYNC] = "directsync",
					     [CACHE_UNSAFE] = "unsafe" };

	return c->cache == CACHE_AUTO ? (is_device(c) ? "none" : "writeback") : words[c->cache];
}

static bool is_direct(const char *cache)
{
	return strcmp(cache, "none") == 0 || strcmp(cache, "directsync") == 0;
}

static bool guest_write_cache(const char *cache)
{
	return strcmp(cache, "writethrough") != 0 && strcmp(cache, "directsync") != 0;
}

/* io_uring that was asked for: from QEMU, and from the kernel. */
static void check_io_uring(struct builder *b, const struct disk_config *c)
{
	AUTO_FREE char *section = xasprintf("disk %s", c->name);
	struct problem *p;

	if (!arg_needs(b, QF_IO_URING, section, "aio") || planner_machine(b->pl)->io_uring)
		return;
	p = config_problem(b->pl->ps, b->vm, section, "aio", "io-uring-missing",
			   "[%s] aio: io_uring is asked for, but the kernel does not allow it", section);
	p->kind = PROBLEM_HOST;
	problem_hint(
		p, "`sysctl kernel.io_uring_disabled=0` allows it (in a container its seccomp profile decides); or leave out aio");
}

static const char *aio_word(struct builder *b, const struct disk_config *c, bool direct, const char **ret_why)
{
	static const char *const words[] = { [AIO_THREADS] = "threads", [AIO_NATIVE] = "native", [AIO_IO_URING] = "io_uring" };
	bool qemu = qemu_has(b->q, QF_IO_URING), kernel = planner_machine(b->pl)->io_uring;

	if (c->aio == AIO_IO_URING)
		check_io_uring(b, c);
	*ret_why = c->aio != AIO_AUTO ? "as aio says"
		   : !qemu            ? "this QEMU has no io_uring"
		   : !kernel          ? "the kernel does not allow io_uring"
				      : "QEMU and the kernel have it";
	if (c->aio != AIO_AUTO)
		return words[c->aio];
	return qemu && kernel ? "io_uring" : direct ? "native" : "threads";
}

static void arg_blockdev(struct builder *b, const struct disk_config *c)
{
	const char *cache = cache_word(c), *format = disk_format(b, c), *why, *aio = aio_word(b, c, is_direct(cache), &why);
	AUTO_FREE char *what = xasprintf("disk %s", c->name);
	struct qopt o;

	qopt_init(&o, "");
	qopt_str(&o, "driver", format);
	qopt_fmt(&o, "node-name", "disk-%s", c->name);
	qopt_bool(&o, "read-only", c->readonly);
	qopt_bool(&o, "cache.direct", is_direct(cache));
	qopt_bool(&o, "cache.no-flush", strcmp(cache, "unsafe") == 0);
	if (c->discard) {
		qopt_str(&o, "discard", "unmap");
		/* A guest that clears blocks with zeros frees them, too. */
		qopt_str(&o, "detect-zeroes", "unmap");
	}
	/* QEMU's 32 MiB of tables are for 256 GiB of a disk: past that, random access reads tables between the data. No more is taken
	 * than the disk has tables, and none of it before they are read. */
	if (strcmp(format, "qcow2") == 0)
		qopt_u64(&o, "l2-cache-size", QCOW2_L2_CACHE);
	qopt_str(&o, "file.driver", is_device(c) ? "host_device" : "file");
	qopt_str(&o, "file.filename", c->file);
	qopt_bool(&o, "file.cache.direct", is_direct(cache));
	qopt_str(&o, "file.aio", aio);
	arg_why(b, "-blockdev", qopt_finish(&o), "disk %s: %s, cache %s, aio %s%s", c->name, format, cache, aio,
		strcmp(format, "qcow2") == 0 ? "; tables of up to 2 TiB are kept in memory" : "");
	plan_reason(b->p, what, "%s, cache %s, aio %s: %s", format, cache, aio, why);
}

/* --- devices ------------------------------------------------------------------------------------------------------- */

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

static void dev_disk(struct json_object *o, struct builder *b, const struct disk_config *c)
{
	AUTO_FREE char *serial = xasprintf("%.*s", DISK_SERIAL_MAX, c->serial ? c->serial : c->name);

	dev_str(o, "serial", serial);
	/* OnOffAuto: a string in JSON, too. */
	dev_str(o, "write-cache", guest_write_cache(cache_word(c)) ? "on" : "off");
	dev_int(o, "bootindex", c->bootindex >= 0 ? c->bootindex : next_bootindex(b));
}

static char *queues_text(const struct builder *b, int queues)
{
	return queues == (int)b->p->n_vcpus ? xasprintf("%d queue%s, one per vCPU", queues, PLURAL(queues))
					    : xasprintf("%d queue%s", queues, PLURAL(queues));
}

static void arg_blk(const struct disks *d, const struct disk_config *c, const struct server *s)
{
	struct builder *b = d->b;
	struct json_object *o = dev_new("virtio-blk-pci", "blk-", c->name);
	AUTO_FREE char *node = xasprintf("disk-%s", c->name), *what = xasprintf("disk %s", c->name),
		       *queues = queues_text(b, s->queues);

	arg_blockdev(b, c);
	dev_str(o, "drive", node);
	dev_addr(o, b);
	dev_int(o, "num-queues", s->queues);
	/* As QEMU computes it; stated, so that the command says what it does. */
	dev_int(o, "vectors", s->queues + 1);
	dev_threads(o, d, s);
	dev_disk(o, b, c);
	arg_why(b, "-device", dev_finish(o, !one_thread(s)), "%s; %s", queues, threads_why(d, s, QF_BLK_VQ_MAPPING));
	plan_reason(b->p, what, "%s; %s", queues, threads_why(d, s, QF_BLK_VQ_MAPPING));
}

static void arg_controller(const struct disks *d)
{
	struct builder *b = d->b;
	struct json_object *o = dev_new("virtio-scsi-pci", CONTROLLER, "");
	AUTO_FREE char *queues = queues_text(b, d->scsi.queues);

	dev_addr(o, b);
	dev_int(o, "num_queues", d->scsi.queues);
	/* Two more than queues for control and events, and one for changes of its configuration. */
	dev_int(o, "vectors", d->scsi.queues + 3);
	dev_threads(o, d, &d->scsi);
	arg_why(b, "-device", dev_finish(o, !one_thread(&d->scsi)), "controller of the disks with bus = scsi: %s; %s", queues,
		threads_why(d, &d->scsi, QF_SCSI_VQ_MAPPING));
	plan_reason(b->p, CONTROLLER, "%s; %s", queues, threads_why(d, &d->scsi, QF_SCSI_VQ_MAPPING));
}

/* An image of a CD that nobody writes: installers look for a CD-ROM. */
static bool is_cdrom(const struct disk_config *c)
{
	return c->readonly && ends_in(c->file, ".iso");
}

static void arg_scsi(const struct disks *d, const struct disk_config *c, int lun)
{
	struct builder *b = d->b;
	struct json_object *o = dev_new(is_cdrom(c) ? "scsi-cd" : "scsi-hd", "sd-", c->name);
	AUTO_FREE char *node = xasprintf("disk-%s", c->name);

	arg_blockdev(b, c);
	dev_str(o, "bus", CONTROLLER ".0");
	dev_int(o, "scsi-id", 0);
	dev_int(o, "lun", lun);
	dev_str(o, "drive", node);
	dev_disk(o, b, c);
	/* QEMU makes devices that are written in JSON after all others: on a controller written so must be disks written so. */
	arg_why(b, "-device", dev_finish(o, !one_thread(&d->scsi)), "%s, unit %d of the controller",
		is_cdrom(c) ? "a CD-ROM: an .iso with readonly = on" : "disk", lun);
}

/* --- all of them --------------------------------------------------------------------------------------------------- */

static int choose_queues(const struct builder *b, int wanted, int max)
{
	return wanted > 0 ? wanted : b->p->n_vcpus < (size_t)max ? (int)b->p->n_vcpus : max;
}

/* The controller has the most queues that a disk on it asks for, and an I/O thread unless none wants one. */
static void serve_scsi(struct disks *d)
{
	const struct vm_config *vm = d->b->vm;
	int queues = CONF_AUTO;
	bool thread = false;

	for (size_t i = 0; i < vm->n_disks; i++) {
		if (vm->disks[i].bus != BUS_SCSI)
			continue;
		queues = vm->disks[i].queues > queues ? vm->disks[i].queues : queues;
		thread = thread || vm->disks[i].iothread;
	}
	d->scsi.queues = choose_queues(d->b, queues, SCSI_QUEUES_MAX);
	if (thread)
		serve(d, d->scsi.queues, QF_SCSI_VQ_MAPPING, &d->scsi);
}

static void serve_all(struct disks *d)
{
	const struct vm_config *vm = d->b->vm;

	for (size_t i = 0; i < vm->n_disks; i++) {
		const struct disk_config *c = &vm->disks[i];

		if (c->bus == BUS_SCSI) {
			AUTO_FREE char *section = xasprintf("disk %s", c->name);

			if (!d->n_scsi++ && arg_needs(d->b, QF_VIRTIO_SCSI, section, "bus"))
				serve_scsi(d);
			continue;
		}
		d->blk[i].queues = choose_queues(d->b, c->queues, BLK_QUEUES_MAX);
		if (c->iothread)
			serve(d, d->blk[i].queues, QF_BLK_VQ_MAPPING, &d->blk[i]);
	}
}

void arg_disks(struct builder *b)
{
	struct disks d = { .b = b };
	int lun = 0;

	b->group = "disks";
	/* QEMU's loader for a kernel of ours is 0 itself. */
	b->next_boot = b->vm->kernel ? 1 : 0;
	d.cpus = xcalloc(b->p->n_nodes, sizeof(*d.cpus));
	d.used = xcalloc(b->p->n_nodes, sizeof(*d.used));
	d.blk = xcalloc(b->vm->n_disks, sizeof(*d.blk));
	for (size_t i = 0; i < b->p->n_vcpus; i++)
		d.cpus[b->p->vcpus[i].guest_node]++;
	serve_all(&d);
	arg_threads(&d);
	for (size_t i = 0; i < b->vm->n_disks; i++) {
		const struct disk_config *c = &b->vm->disks[i];

		if (c->bus == BUS_SCSI && lun == 0)
			arg_controller(&d);
		if (c->bus == BUS_SCSI)
			arg_scsi(&d, c, lun++);
		else
			arg_blk(&d, c, &d.blk[i]);
	}
	for (size_t i = 0; i < b->vm->n_disks; i++)
		free(d.blk[i].of_queue);
	free(d.scsi.of_queue);
	free(d.blk);
	free(d.used);
	free(d.cpus);
	arg_seed(b);
}
