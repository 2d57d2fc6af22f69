/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks, their queues and I/O threads, the seed and the small guest devices, as they are planned for QEMUs of several versions. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "src/core/argv_priv.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

/* Two sockets with a GPU each: a VM with both has two guest nodes. CPUs 0 and 8 are kept for the host. */
#define TWO_NODES                                                                                                                  \
	"host two\ncpu GenuineIntel threads=1 phys-bits=46\niommu intel\n"                                                         \
	"node 0 socket=0 cpus=0-7 memory=8G distances=10,21\nnode 1 socket=1 cpus=8-15 memory=8G distances=21,10\n"                \
	"kind rp 8086:352a 060400 pcie=root link=16x16 acs driver=pcieport\nkind gpu 10de:2330 030200 bars=16M link=16x16\n"       \
	"bus 0000:10 node=0\n\t10:01.0 rp\n\t\t11:00.0 gpu\nbus 0000:80 node=1\n\t80:01.0 rp\n\t\t81:00.0 gpu\n"
#define BOTH "[place]\ngpus = 2\n[memory]\nsize = 1G\nhugepages = off\n"

struct result {
	struct topology host;
	struct vm_config vm;
	struct plan p;
	struct problems ps;
	int r;
};

struct setting {
	const char *version; /* NULL: "7.2" */
	uint64_t without;    /* features that are taken from it */
	bool no_io_uring, vsock, foreign, fake, no_tools;
	const struct host_use *use;
};

static void result_clear(struct result *r)
{
	plan_clear(&r->p);
	config_clear(&r->vm);
	problems_clear(&r->ps);
	topology_clear(&r->host);
}

static struct result plan_with(struct setting s, const char *text)
{
	AUTO_FREE char *all = xasprintf("[vm]\nname = x\n%s", text);
	struct qemu_info q = fake_qemu(s.version ? s.version : "7.2");
	struct result res = { 0 };
	struct plan_request req = { .vm = &res.vm,
				    .host = &res.host,
				    .qemu = &q,
				    .use = s.use,
				    .rundir = "/run/gpuvm/x",
				    .statedir = "/var/lib/gpuvm",
				    .seed_tool = s.no_tools ? NULL : "/usr/bin/genisoimage",
				    .swtpm = s.no_tools ? NULL : "/usr/bin/swtpm",
				    .foreign_host = s.foreign,
				    .fake_devices = s.fake };
	char *root = mkhost_text(TWO_NODES);
	struct err e = { 0 };

	cr_assert_not_null(root);
	cr_assert(zero(int, probe_host(root, &res.host, &e)), "%s", e.msg);
	mkhost_remove(root);
	res.host.io_uring = !s.no_io_uring;
	res.host.vhost_vsock = s.vsock;
	q.features &= ~s.without;
	res.r = config_parse("x.ini", all, strlen(all), NULL, &res.vm, &res.ps);
	if (res.r == 0)
		res.r = plan_make(&req, &res.p, &res.ps);
	return res;
}

static struct result plan_ok(struct setting s, const char *text)
{
	struct result res = plan_with(s, text);

	if (res.r < 0)
		problems_print(&res.ps, stderr);
	cr_assert(zero(int, res.r));
	return res;
}

static bool says(const char *text, const char *part)
{
	return strstr(text, part) != NULL;
}

/* Refused, with this code, kind and line, and a hint that says this. */
static void expect_refused(struct setting s, const char *text, const char *code, enum problem_kind kind, int line, const char *hint)
{
	struct result res = plan_with(s, text);
	const struct problem *p = res.ps.n ? &res.ps.v[0] : NULL;

	cr_assert(lt(int, res.r, 0), "planned: %s", text);
	cr_assert(eq(sz, res.ps.n, 1));
	cr_expect_str_eq(p->code, code);
	cr_expect(eq(int, (int)p->kind, (int)kind), "%s", p->message);
	cr_expect(eq(int, p->line, line), "%s", p->message);
	cr_expect(says(p->hint ? p->hint : "", hint), "%s: %s", p->message, p->hint);
	result_clear(&res);
}

/* The value of option @nth called @flag that has @part; "none". */
static const char *option(const struct plan *p, const char *flag, const char *part, int nth)
{
	for (size_t i = 0; i < p->n_args; i++)
		if (strcmp(p->args[i].flag, flag) == 0 && p->args[i].value && strstr(p->args[i].value, part) && nth-- == 0)
			return p->args[i].value;
	return "none";
}

static const char *reason(const struct plan *p, const char *what, int nth)
{
	for (size_t i = 0; i < p->n_reasons; i++)
		if (strcmp(p->reasons[i].what, what) == 0 && nth-- == 0)
			return p->reasons[i].text;
	return "none";
}

static void expect_iothreads(const struct plan *p, const char *want)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < p->n_iothreads; i++) {
		AUTO_FREE char *cpus = cpuset_format(&p->iothreads[i].host_cpus),
			       *object = xasprintf("iothread,id=%s", p->iothreads[i].id);

		fprintf(f, "%s%s on %s", i ? "; " : "", p->iothreads[i].id, cpus);
		cr_expect_str_eq(option(p, "-object", object, 0), object);
	}
	fclose(f);
	cr_expect_str_eq(text, want);
	cr_expect_str_eq(option(p, "-object", "iothread,", (int)p->n_iothreads), "none");
	free(text);
}

/* --- which node uses which queue: as Linux 6.1 in a guest showed it in /sys/block/vda/mq --------------------------- */

static const struct spread_row {
	int cpus[9];       /* of each node; -1 ends */
	const char *nodes; /* of queue 0, 1, ... */
} spreads[] = {
	{ { 4, -1 }, "0000" },
	{ { 2, 2, -1 }, "1100" },
	{ { 2, 2, -1 }, "01" },
	{ { 4, 4, -1 }, "11110000" },
	{ { 4, 4, -1 }, "1100" },
	{ { 4, 4, -1 }, "11000" },
	{ { 4, 4, -1 }, "100" },
	{ { 4, 2, -1 }, "110000" },
	{ { 2, 2, 2, -1 }, "112200" },
	{ { 1, 2, 3, -1 }, "011222" },
	{ { 1, 2, 3, -1 }, "01222" },
	{ { 3, 2, 1, -1 }, "211000" },
	{ { 2, 2, 2, 2, -1 }, "11223300" },
	{ { 2, 2, 2, 2, -1 }, "123300" },
	{ { 2, 2, 2, 2, -1 }, "012" },
	{ { 2, 2, 2, 2, 2, 2, 2, 2, -1 }, "1122334455667700" },
	{ { 2, 0, 2, -1 }, "2200" },
	/* Linux uses no more queues than CPUs; the others are given out all the same. */
	{ { 4, 2, -1 }, "11000001" },
};

Test(disk, queues_are_spread_as_linux_does)
{
	for (size_t i = 0; i < ARRAY_SIZE(spreads); i++) {
		const struct spread_row *r = &spreads[i];
		int nodes[32], queues = (int)strlen(r->nodes);
		char found[32] = "";
		size_t n = 0;

		while (r->cpus[n] >= 0)
			n++;
		spread_queues(r->cpus, n, queues, nodes);
		for (int q = 0; q < queues; q++)
			found[q] = (char)('0' + nodes[q]);
		cr_expect_str_eq(found, r->nodes, "row %zu: %s, not %s", i, found, r->nodes);
	}
}

/* Every queue is given to one node with CPUs, and nobody to none. */
Test(disk, any_spread_is_whole)
{
	unsigned int seed = 1;

	for (int round = 0; round < 20000; round++) {
		int cpus[16], nodes[64], n = rand_r(&seed) % 16 + 1, queues = rand_r(&seed) % 64 + 1;

		for (int i = 0; i < n; i++)
			cpus[i] = rand_r(&seed) % 5;
		cpus[rand_r(&seed) % n] += 1;
		memset(nodes, -1, sizeof(nodes));
		spread_queues(cpus, (size_t)n, queues, nodes);
		for (int q = 0; q < queues; q++)
			cr_assert(nodes[q] >= 0 && nodes[q] < n && cpus[nodes[q]] > 0, "round %d, queue %d: node %d", round, q,
				  nodes[q]);
	}
}

/* --- I/O threads -------------------------------------------------------------------------------------------------- */

#define TWO_DISKS "[cpu]\nvcpus = 4\n[disk a]\nfile = /a.raw\n[disk b]\nfile = /b.raw\n"

Test(disk, one_thread_each_in_turn_where_queues_cannot_be_told_apart)
{
	struct result res = plan_ok((struct setting){ 0 }, BOTH TWO_DISKS);

	expect_iothreads(&res.p, "io0 on 0; io1 on 8");
	cr_expect_str_eq(option(&res.p, "-device", "id=blk-a,", 0), "virtio-blk-pci,id=blk-a,drive=disk-a,bus=pcie.0,addr=0x2.0x0,"
								    "multifunction=on,num-queues=4,vectors=5,iothread=io0,serial=a,"
								    "write-cache=on,bootindex=0");
	cr_expect(says(option(&res.p, "-device", "id=blk-b,", 0), ",num-queues=4,vectors=5,iothread=io1,serial=b,"));
	cr_expect(says(reason(&res.p, "disk a", 1), "this QEMU cannot spread a device's queues"), "%s",
		  reason(&res.p, "disk a", 1));
	result_clear(&res);
}

Test(disk, threads_are_made_for_those_who_use_them)
{
	struct result res = plan_ok((struct setting){ 0 },
				    BOTH "[cpu]\nvcpus = 4\n[disk a]\nfile = /a.raw\n[disk b]\nfile = /b.raw\niothread = off\n");

	expect_iothreads(&res.p, "io0 on 0");
	cr_expect(not(says(option(&res.p, "-device", "id=blk-b,", 0), "iothread")));
	result_clear(&res);
	res = plan_ok((struct setting){ 0 }, BOTH);
	expect_iothreads(&res.p, "");
	result_clear(&res);
	/* more disks than nodes */
	res = plan_ok((struct setting){ 0 }, BOTH TWO_DISKS "[disk c]\nfile = /c.raw\n");
	expect_iothreads(&res.p, "io0 on 0; io1 on 8");
	cr_expect(says(option(&res.p, "-device", "id=blk-c,", 0), ",iothread=io0,"));
	result_clear(&res);
}

static void expect_json(const char *text, const char *key, const char *want)
{
	struct json_object *o = json_tokener_parse(text), *v = NULL;

	cr_assert(o != NULL, "not JSON: %s", text);
	json_object_object_get_ex(o, key, &v);
	cr_expect_str_eq(json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN), want, "%s in %s", key, text);
	json_object_put(o);
}

Test(disk, queues_are_served_on_the_node_that_uses_them)
{
	static const char map[] = "[{\"iothread\":\"io0\",\"vqs\":[2,3]},{\"iothread\":\"io1\",\"vqs\":[0,1]}]";
	struct result res = plan_ok((struct setting){ .version = "10.0", .without = 1u << QF_SCSI_VQ_MAPPING },
				    BOTH TWO_DISKS "[disk s]\nfile = /s,\"1.raw\nbus = scsi\nserial = a,\"b\n");
	const char *dev = option(&res.p, "-device", "\"blk-a\"", 0);

	expect_iothreads(&res.p, "io0 on 0; io1 on 8");
	expect_json(dev, "iothread-vq-mapping", map);
	expect_json(dev, "driver", "\"virtio-blk-pci\"");
	expect_json(dev, "num-queues", "4");
	expect_json(dev, "addr", "\"0x2.0x0\"");
	expect_json(dev, "multifunction", "true");
	expect_json(dev, "write-cache", "\"on\"");
	expect_json(dev, "bootindex", "0");
	expect_json(option(&res.p, "-device", "\"blk-b\"", 0), "iothread-vq-mapping", map);
	/* QEMU 9.x cannot do it for virtio-scsi: the controller has one thread, and the form that people write */
	cr_expect_str_eq(option(&res.p, "-device", "id=scsi0,", 0),
			 "virtio-scsi-pci,id=scsi0,bus=pcie.0,addr=0x2.0x2,num_queues=4,vectors=7,iothread=io0");
	cr_expect_str_eq(option(&res.p, "-device", "id=sd-s,", 0),
			 "scsi-hd,id=sd-s,bus=scsi0.0,scsi-id=0,lun=0,drive=disk-s,serial=a,,\"b,write-cache=on,bootindex=2");
	result_clear(&res);
}

/* QEMU makes devices in JSON after all others, so a disk must be in JSON when its controller is. */
Test(disk, a_controller_in_json_has_its_disks_in_json)
{
	struct result res = plan_ok((struct setting){ .version = "10.0" },
				    BOTH "[cpu]\nvcpus = 4\n[disk s]\nfile = /s.raw\nbus = scsi\nserial = a,\"b\n[disk i]\nfile = "
					 "/i.iso\nbus = scsi\nreadonly = on\n");

	expect_json(option(&res.p, "-device", "\"scsi0\"", 0), "iothread-vq-mapping",
		    "[{\"iothread\":\"io0\",\"vqs\":[2,3]},{\"iothread\":\"io1\",\"vqs\":[0,1]}]");
	expect_json(option(&res.p, "-device", "\"sd-s\"", 0), "serial", "\"a,\\\"b\"");
	expect_json(option(&res.p, "-device", "\"sd-i\"", 0), "driver", "\"scsi-cd\"");
	expect_json(option(&res.p, "-device", "\"sd-i\"", 0), "lun", "1");
	result_clear(&res);
}

Test(disk, one_node_needs_no_map)
{
	struct result res = plan_ok((struct setting){ .version = "10.0" },
				    "[cpu]\nvcpus = 4\n[disk a]\nfile = /a.raw\n[disk b]\nfile = /b.raw\nqueues = 9\n");

	expect_iothreads(&res.p, "io0 on 0");
	cr_expect(says(option(&res.p, "-device", "id=blk-b,", 0), ",num-queues=9,vectors=10,iothread=io0,"));
	result_clear(&res);
}

/* --- the controller ------------------------------------------------------------------------------------------------ */

Test(disk, the_controller_has_what_its_disks_ask_for)
{
	struct result res = plan_ok((struct setting){ 0 }, "[disk a]\nfile = /a.raw\nbus = scsi\nqueues = 2\n[disk b]\nfile = "
							   "/b.raw\nbus = scsi\nqueues = 7\niothread = off\n");

	cr_expect(says(option(&res.p, "-device", "id=scsi0,", 0), ",num_queues=7,vectors=10,iothread=io0"));
	cr_expect_str_eq(option(&res.p, "-device", "id=scsi0,", 1), "none");
	cr_expect(says(option(&res.p, "-device", "id=sd-b,", 0), ",lun=1,"));
	result_clear(&res);
	res = plan_ok((struct setting){ 0 }, "[disk a]\nfile = /a.raw\nbus = scsi\niothread = off\n");
	cr_expect(not(says(option(&res.p, "-device", "id=scsi0,", 0), "iothread")));
	result_clear(&res);
	expect_refused((struct setting){ .without = 1u << QF_VIRTIO_SCSI }, "[disk a]\nfile = /a.raw\nbus = scsi\n", "qemu-lacks",
		       PROBLEM_CONFIG, 5, "1.1");
}

/* --- image, cache, aio ---------------------------------------------------------------------------------------------- */

static const struct block_row {
	struct setting s;
	const char *text; /* of [disk a] */
	const char *blockdev;
	const char *part; /* of the device */
} blocks[] = {
	{ { 0 },
	  "file = /a.raw\n",
	  "driver=raw,node-name=disk-a,read-only=off,cache.direct=off,cache.no-flush=off,file.driver=file,file.filename=/"
	  "a.raw,file.cache.direct=off,"
	  "file.aio=io_uring",
	  "write-cache=on" },
	{ { .no_io_uring = true },
	  "file = /a.raw\n",
	  "driver=raw,node-name=disk-a,read-only=off,cache.direct=off,cache.no-flush=off,file.driver=file,file.filename=/"
	  "a.raw,file.cache.direct=off,"
	  "file.aio=threads",
	  "serial=a," },
	{ { .no_io_uring = true },
	  "file = /dev/shm/a.raw\n",
	  "driver=raw,node-name=disk-a,read-only=off,cache.direct=off,cache.no-flush=off,file.driver=file,file.filename=/"
	  "dev/shm/a.raw,file.cache.direct=off,"
	  "file.aio=threads",
	  "serial=a," },
	{ { .no_io_uring = true },
	  "file = /dev/nvme0n1\n",
	  "driver=raw,node-name=disk-a,read-only=off,cache.direct=on,cache.no-flush=off,file.driver=host_device,file.filename=/dev/"
	  "nvme0n1,"
	  "file.cache.direct=on,file.aio=native",
	  "write-cache=on" },
	{ { .without = 1u << QF_IO_URING },
	  "file = /dev/nvme0n1\ncache = directsync\n",
	  "driver=raw,node-name=disk-a,read-only=off,cache.direct=on,cache.no-flush=off,file.driver=host_device,file.filename=/dev/"
	  "nvme0n1,"
	  "file.cache.direct=on,file.aio=native",
	  "write-cache=off" },
	{ { 0 },
	  "file = /a.qcow2\n",
	  "driver=qcow2,node-name=disk-a,read-only=off,cache.direct=off,cache.no-flush=off,l2-cache-size=268435456,file.driver="
	  "file,"
	  "file.filename=/a.qcow2,file.cache.direct=off,file.aio=io_uring",
	  "write-cache=on" },
	{ { 0 },
	  "file = /dev/nvme0n1\naio = threads\ncache = writethrough\n",
	  "driver=raw,node-name=disk-a,read-only=off,cache.direct=off,cache.no-flush=off,file.driver=host_device,file.filename=/"
	  "dev/nvme0n1,"
	  "file.cache.direct=off,file.aio=threads",
	  "write-cache=off" },
	{ { 0 },
	  "file = /a, b='c':\"d\\e\nformat = qcow2\ncache = unsafe\ndiscard = on\n",
	  "driver=qcow2,node-name=disk-a,read-only=off,cache.direct=off,cache.no-flush=on,discard=unmap,detect-zeroes=unmap,l2-"
	  "cache-size=268435456,"
	  "file.driver=file,file.filename=/a,, b='c':\"d\\e,file.cache.direct=off,file.aio=io_uring",
	  "serial=a," },
	{ { 0 },
	  "file = /a.iso\nreadonly = on\naio = native\ncache = none\nserial = x=1,y\n",
	  "driver=raw,node-name=disk-a,read-only=on,cache.direct=on,cache.no-flush=off,file.driver=file,file.filename=/"
	  "a.iso,file.cache.direct=on,"
	  "file.aio=native",
	  "serial=x=1,,y," },
};

Test(disk, image_cache_and_aio)
{
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
		AUTO_FREE char *text = xasprintf("[disk a]\n%s", blocks[i].text);
		struct result res = plan_ok(blocks[i].s, text);

		cr_expect_str_eq(option(&res.p, "-blockdev", "disk-a", 0), blocks[i].blockdev, "row %zu", i);
		cr_expect(says(option(&res.p, "-device", "id=blk-a", 0), blocks[i].part), "row %zu: %s", i,
			  option(&res.p, "-device", "id=blk-a", 0));
		result_clear(&res);
	}
}

Test(disk, io_uring_that_cannot_be_had)
{
	static const char text[] = "[disk a]\nfile = /a.raw\naio = io_uring\n";

	expect_refused((struct setting){ .without = 1u << QF_IO_URING }, text, "qemu-lacks", PROBLEM_CONFIG, 5, "5.0");
	expect_refused((struct setting){ .no_io_uring = true }, text, "io-uring-missing", PROBLEM_HOST, 5, "io_uring_disabled=0");
}

Test(disk, boot_order_is_of_the_file_and_leaves_the_seed_out)
{
	struct result res = plan_ok((struct setting){ 0 }, "[disk a]\nfile = /a.raw\n[disk b]\nfile = /b.raw\nbootindex = 0\n[disk "
							   "c]\nfile = /c.raw\nbus = scsi\n[cloud-init]\n");

	cr_expect(says(option(&res.p, "-device", "id=blk-a", 0), ",bootindex=1"));
	cr_expect(says(option(&res.p, "-device", "id=blk-b", 0), ",bootindex=0"));
	cr_expect(says(option(&res.p, "-device", "id=sd-c", 0), ",bootindex=2"));
	cr_expect_str_eq(option(&res.p, "-device", "id=seed0", 0),
			 "virtio-blk-pci,id=seed0,drive=seed,bus=pcie.0,addr=0x2.0x3,num-queues=1,serial=cidata");
	result_clear(&res);
}

Test(disk, a_long_name_is_cut_to_a_serial_number)
{
	struct result res = plan_ok((struct setting){ 0 }, "[disk a-name-longer-than-20]\nfile = /a.raw\n");

	cr_expect(says(option(&res.p, "-device", "virtio-blk-pci", 0), ",serial=a-name-longer-than-2,"));
	result_clear(&res);
}

/* QEMU: "The bootindex 0 has already been used", by its loader. */
Test(disk, a_kernel_is_booted_before_disks)
{
	struct result res = plan_ok((struct setting){ 0 }, "kernel = /k\n[disk a]\nfile = /a.raw\n[disk b]\nfile = /b.raw\nbootindex = 1\n");

	cr_expect(says(option(&res.p, "-device", "id=blk-a", 0), ",bootindex=2"));
	cr_expect(says(option(&res.p, "-device", "id=blk-b", 0), ",bootindex=1"));
	result_clear(&res);
}

/* --- definitions that cannot work ------------------------------------------------------------------------------------ */

static const struct bad_row {
	const char *text, *code;
	int line;
	const char *hint;
} bad[] = {
	{ "[disk a-name-longer-than-20]\nfile = /a.raw\n[disk a-name-longer-than-21]\nfile = /b.raw\n", "conflict", 5,
	  "two disks of one name" },
	{ "[disk a]\nfile = /a.raw\n[disk b]\nfile = /b.raw\nserial = a\n", "conflict", 7, "two disks of one name" },
	{ "[disk a]\nfile = /a.raw\nbus = scsi\nqueues = 1023\n", "conflict", 6, "leave queues out" },
	{ "kernel = /k\n[disk a]\nfile = /a.raw\nbootindex = 0\n", "conflict", 6, "use 1" },
	{ "[disk a]\nfile = /a.raw\nserial = 123456789012345678901\n", "bad-value", 5, "at most 20" },
};

Test(disk, what_cannot_work_is_refused)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		expect_refused((struct setting){ 0 }, bad[i].text, bad[i].code, PROBLEM_CONFIG, bad[i].line, bad[i].hint);
}

/* --- seed -------------------------------------------------------------------------------------------------------------- */

static char *prepares(const struct plan *p, const char *part)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < p->n_prepares; i++)
		if (strstr(p->prepares[i].command, part))
			fprintf(f, "%s\n", p->prepares[i].command);
	fclose(f);
	return text;
}

Test(seed, lines_for_a_shell)
{
	struct result res =
		plan_ok((struct setting){ 0 }, "uuid = 6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11\n[cloud-init]\nuser-data = /u, 's\n");
	AUTO_FREE char *lines = prepares(&res.p, "/seed");

	cr_expect_str_eq(
		lines,
		"rm -rf -- /run/gpuvm/x/seed /run/gpuvm/x/seed.iso && mkdir -m 700 -- /run/gpuvm/x/seed\n"
		"install -m 600 -- '/u, '\\''s' /run/gpuvm/x/seed/user-data\n"
		"printf %s 'instance-id: \"x-6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11\"\nlocal-hostname: \"x\"\n' "
		">/run/gpuvm/x/seed/meta-data\n"
		"(cd -- /run/gpuvm/x/seed && umask 077 && /usr/bin/genisoimage -quiet -V CIDATA -R -J -o ../seed.iso -graft-points "
		"user-data=user-data meta-data=meta-data) && rm -rf -- /run/gpuvm/x/seed\n");
	cr_expect_str_eq(option(&res.p, "-blockdev", "seed", 0),
			 "driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=/run/gpuvm/x/seed.iso");
	result_clear(&res);
	res = plan_ok((struct setting){ .no_tools = true, .foreign = true }, "[cloud-init]\nmeta-data = /m\nnetwork-config = /n\n");
	free(STEAL_PTR(lines));
	lines = prepares(&res.p, "/seed");
	cr_expect(says(lines, "printf %s '' >/run/gpuvm/x/seed/user-data\n"), "%s", lines);
	cr_expect(says(lines,
		       "install -m 600 -- /m /run/gpuvm/x/seed/meta-data\ninstall -m 600 -- /n /run/gpuvm/x/seed/network-config\n"),
		  "%s", lines);
	cr_expect(says(lines, "xorrisofs -quiet"), "%s", lines);
	cr_expect(says(lines, " network-config=network-config)"), "%s", lines);
	result_clear(&res);
}

Test(seed, disk_of_its_own_for_the_check)
{
	struct result res = plan_ok((struct setting){ 0 }, "[guest]\ncheck-disk = on\n");
	AUTO_FREE char *lines = prepares(&res.p, "/check");

	cr_expect_str_eq(lines,
			 "rm -rf -- /run/gpuvm/x/check /run/gpuvm/x/check.iso && mkdir -m 700 -- /run/gpuvm/x/check\n"
			 "install -m 644 -- /run/gpuvm/x/gpuvm-check.sh /run/gpuvm/x/check/gpuvm-check.sh || : >/run/gpuvm/x/check/gpuvm-check.sh\n"
			 "(cd -- /run/gpuvm/x/check && umask 077 && /usr/bin/genisoimage -quiet -V gpuvm -R -J -o ../check.iso -graft-points "
			 "gpuvm-check.sh=gpuvm-check.sh) && rm -rf -- /run/gpuvm/x/check\n");
	cr_expect(says(option(&res.p, "-blockdev", "check", 0), "read-only=on,file.driver=file,file.filename=/run/gpuvm/x/check.iso"));
	cr_expect(says(option(&res.p, "-device", "id=check0", 0), "virtio-blk-pci,id=check0,drive=check,bus=pcie.0,addr="));
	cr_expect(plan_check_disk(&res.p) == &res.p.check && !res.p.seed.image);
	result_clear(&res);
	/* A VM of one node and without devices has nothing to be checked that a seed would be changed for. */
	res = plan_ok((struct setting){ 0 }, "[cloud-init]\n");
	cr_expect(plan_check_disk(&res.p) == NULL && res.p.seed.n_files == 2);
	result_clear(&res);
}

Test(seed, without_a_program_that_makes_it)
{
	expect_refused((struct setting){ .no_tools = true }, "[guest]\ncheck-disk = on\n", "program-missing", PROBLEM_HOST, 4, "xorriso, genisoimage");
	expect_refused((struct setting){ .no_tools = true }, "[cloud-init]\n", "program-missing", PROBLEM_HOST, 3,
		       "xorriso, genisoimage");
	/* another machine's VM with stand-ins runs here */
	expect_refused((struct setting){ .no_tools = true, .foreign = true, .fake = true }, "[cloud-init]\n", "program-missing",
		       PROBLEM_HOST, 3, "xorriso");
}

/* --- guest devices ------------------------------------------------------------------------------------------------------- */

Test(guest, defaults)
{
	struct result res = plan_ok((struct setting){ 0 }, "");

	cr_expect_str_eq(option(&res.p, "-chardev", "id=agent", 0),
			 "socket,id=agent,path=/run/gpuvm/x/agent.sock,server=on,wait=off");
	cr_expect_str_eq(option(&res.p, "-device", "virtserialport", 0),
			 "virtserialport,id=agent0,bus=vserial0.0,nr=1,chardev=agent,name=org.qemu.guest_agent.0");
	cr_expect_str_eq(option(&res.p, "-object", "rng-random", 0), "rng-random,id=entropy,filename=/dev/urandom");
	cr_expect(says(option(&res.p, "-device", "virtio-rng-pci", 0), ",rng=entropy,"));
	cr_expect(says(option(&res.p, "-device", "pvpanic", 0), "pvpanic-pci,id=panic0,bus=pcie.0,"));
	cr_expect_str_eq(option(&res.p, "-device", "vsock", 0), "none");
	cr_expect_str_eq(option(&res.p, "-tpmdev", "", 0), "none");
	result_clear(&res);
	res = plan_ok((struct setting){ .without = 1u << QF_PVPANIC_PCI }, "");
	cr_expect_str_eq(option(&res.p, "-device", "pvpanic", 0), "pvpanic,id=panic0");
	result_clear(&res);
	res = plan_ok((struct setting){ 0 }, "[guest]\nagent = off\nrng = off\npanic = off\n");
	cr_expect_str_eq(option(&res.p, "-device", "vserial0", 0), "none");
	cr_expect_str_eq(option(&res.p, "-device", "rng", 0), "none");
	cr_expect_str_eq(option(&res.p, "-device", "pvpanic", 0), "none");
	result_clear(&res);
}

Test(guest, vsock)
{
	struct result res = plan_ok((struct setting){ .vsock = true }, "[guest]\nvsock = 77\n");
	AUTO_FREE char *lines = prepares(&res.p, "vsock");
	uint32_t cid;

	cr_expect_str_eq(lines, "test -e /dev/vhost-vsock || modprobe vhost_vsock\n");
	cr_expect(says(option(&res.p, "-device", "vhost-vsock-pci", 0), ",guest-cid=77"));
	result_clear(&res);
	res = plan_ok((struct setting){ .vsock = true }, "[guest]\nvsock = auto\n");
	cid = res.p.vsock;
	cr_expect(ge(u32, cid, 3));
	cr_expect(le(u32, cid, INT32_MAX));
	result_clear(&res);
	/* the name decides, and nothing else */
	res = plan_ok((struct setting){ .vsock = true, .version = "10.0" }, "[guest]\nvsock = auto\nagent = off\n");
	cr_expect(eq(u32, res.p.vsock, cid));
	result_clear(&res);
	res = plan_ok((struct setting){ .foreign = true }, "[guest]\nvsock = 3\n");
	result_clear(&res);
	expect_refused((struct setting){ 0 }, "[guest]\nvsock = 3\n", "vsock-missing", PROBLEM_HOST, 4, "modprobe vhost_vsock");
	expect_refused((struct setting){ .vsock = true, .without = 1u << QF_VHOST_VSOCK }, "[guest]\nvsock = 3\n", "qemu-lacks",
		       PROBLEM_CONFIG, 4, "2.8");
	expect_refused((struct setting){ .vsock = true }, "[guest]\nvsock = 2\n", "bad-value", PROBLEM_CONFIG, 4, "from 3");
}

/* Two VMs of one context ID: the second one is told by whom. */
Test(guest, vsock_of_another_vm)
{
	struct used_vsock other = { .cid = 77, .vm = "other", .pid = 4711 };
	struct host_use use = { .vsocks = &other, .n_vsocks = 1 };
	struct setting s = { .vsock = true, .use = &use };
	struct result res = plan_ok(s, "[guest]\nvsock = 78\n");

	result_clear(&res);
	expect_refused(s, "[guest]\nvsock = 77\n", "vsock-in-use", PROBLEM_BUSY, 4, "gpuvm stop other");
	res = plan_with(s, "[guest]\nvsock = 77\n");
	cr_expect_str_eq(res.ps.v[0].message, "[guest] vsock: the running VM 'other' (pid 4711) has context ID 77");
	result_clear(&res);
	/* A made one is as good as taken. */
	res = plan_ok(s, "[guest]\nvsock = auto\n");
	other.cid = res.p.vsock;
	result_clear(&res);
	expect_refused(s, "[guest]\nvsock = auto\n", "vsock-in-use", PROBLEM_BUSY, 4, "another ID");
}

Test(guest, tpm)
{
	struct result res = plan_ok((struct setting){ 0 }, "[guest]\ntpm = on\n");
	AUTO_FREE char *lines = prepares(&res.p, "tpm");

	cr_expect_str_eq(option(&res.p, "-chardev", "id=tpm", 0), "socket,id=tpm,path=/run/gpuvm/x/tpm.sock");
	cr_expect_str_eq(option(&res.p, "-tpmdev", "", 0), "emulator,id=tpmdev0,chardev=tpm");
	cr_expect_str_eq(option(&res.p, "-device", "tpm-crb", 0), "tpm-crb,id=tpm0,tpmdev=tpmdev0");
	cr_expect_str_eq(
		lines, "mkdir -p -m 700 -- /var/lib/gpuvm/tpm/x\n"
		       "rm -f -- /run/gpuvm/x/tpm.sock && /usr/bin/swtpm socket --tpm2 --tpmstate dir=/var/lib/gpuvm/tpm/x --ctrl "
		       "type=unixio,path=/run/gpuvm/x/tpm.sock --terminate --daemon\n");
	result_clear(&res);
	expect_refused((struct setting){ .no_tools = true }, "[guest]\ntpm = on\n", "program-missing", PROBLEM_HOST, 4,
		       "package swtpm");
	expect_refused((struct setting){ .without = 1u << QF_TPM_EMULATOR }, "[guest]\ntpm = on\n", "qemu-lacks", PROBLEM_CONFIG, 4,
		       "2.12");
}
