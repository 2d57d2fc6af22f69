/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fabric Manager: what it says, and talking to its stand-ins (tests/fake/fmpm, tests/fake/libnvfm.c); the stage that activates a VM's partition; `gpuvm fabric`. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/affinity.h"
#include "gpuvm/fabric_manager.h"
#include "gpuvm/launch.h"
#include "programs.h"
#include "tests/fake/kernel.h"
#include "tests/fake/mkhost.h"

/* --- what is said -------------------------------------------------------------------------------------------- */

Test(fm_proto, return_values)
{
	static const struct {
		enum fm_op op;
		int code, r;
	} rows[] = {
		{ FM_LIST, 0, 0 },
		{ FM_LIST, -8, -EAGAIN },
		{ FM_LIST, -22, -EAGAIN },
		{ FM_LIST, -9, -ENOTCONN },
		{ FM_LIST, -3, -EOPNOTSUPP },
		{ FM_LIST, -4, -EIO },
		{ FM_LIST, -6, -EPROTONOSUPPORT },
		{ FM_LIST, 1, -EIO },
		{ FM_LIST, -99, -EIO },
		{ FM_ACTIVATE, -1, -EINVAL },
		{ FM_ACTIVATE, -4, -EIO },
		{ FM_ACTIVATE, -5, -ETIMEDOUT },
		{ FM_ACTIVATE, -10, -EIO },
		/* Of the guide, and of later headers. */
		{ FM_ACTIVATE, -7, -EALREADY },
		{ FM_ACTIVATE, -17, -EALREADY },
		{ FM_ACTIVATE, -23, -EALREADY },
		{ FM_ACTIVATE, -24, -EALREADY },
		{ FM_ACTIVATE, -18, -EIO },
		{ FM_DEACTIVATE, -4, -EALREADY },
		{ FM_DEACTIVATE, -18, -EALREADY },
		{ FM_DEACTIVATE, -7, -EBUSY },
		{ FM_SET_ACTIVE, -4, -EIO },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct err e = { 0 };

		cr_expect(fm_judge(rows[i].op, 3, rows[i].code, &e) == rows[i].r, "row %zu: %d", i, e.code);
		cr_expect(e.code == rows[i].r && !strcmp(e.word ? e.word : "", rows[i].r ? "fabric-manager-failed" : ""), "row %zu", i);
	}
	cr_expect(fm_code_of_exit(0) == 0 && fm_code_of_exit(239) == -17 && fm_code_of_exit(238) == -18 && fm_code_of_exit(248) == -8);
	cr_expect(fm_code_of_exit(1) == 1 && fm_code_of_exit(127) == 1 && fm_code_of_exit(-1) == 1);
}

Test(fm_proto, whom_to_talk_to)
{
	static const struct {
		const char *text, *tool, *address; /* tool NULL: refused */
	} rows[] = {
		{ "auto", "", "" },
		{ "none", "", "" },
		{ "/opt/my fmpm", "/opt/my", "fmpm" },
		{ "'/opt/my fmpm'", "/opt/my fmpm", "" },
		{ "libnvfm.so.1", "libnvfm.so.1", "" },
		{ "/usr/lib/libnvfm.so.550 10.0.0.2:7000", "/usr/lib/libnvfm.so.550", "10.0.0.2:7000" },
		{ "fm-vm.local", "", "fm-vm.local" },
		{ "unix:/run/nvidia-fabricmanager/socket", "", "unix:/run/nvidia-fabricmanager/socket" },
		{ "auto 10.0.0.2", "", "10.0.0.2" },
		{ "", NULL, NULL },
		{ "none 10.0.0.2", NULL, NULL },
		{ "10.0.0.2 10.0.0.3", NULL, NULL },
		{ "/usr/bin/fmpm /run/socket", NULL, NULL },
		{ "10.0.0.2:0", NULL, NULL },
		{ "10.0.0.2:66666", NULL, NULL },
		{ "--hostname", NULL, NULL },
		{ "unix:run/socket", NULL, NULL },
		{ "10.0.0.2;reboot", NULL, NULL },
		{ "a b c", NULL, NULL },
		{ "'", NULL, NULL },
	};
	AUTO_FREE char *endless = xasprintf("/%0300d", 1), *socket = xasprintf("unix:/%0120d", 1);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fm_spec s = { 0 };
		int r = fm_spec_parse(rows[i].text, &s);

		cr_expect((r == 0) == (rows[i].tool != NULL), "'%s': %d", rows[i].text, r);
		cr_expect(r < 0 || !rows[i].tool || (!strcmp(s.tool, rows[i].tool) && !strcmp(s.address, rows[i].address) && s.none == !strcmp(rows[i].text, "none")), "'%s'",
			  rows[i].text);
	}
	cr_expect(fm_spec_parse(endless, &(struct fm_spec){ 0 }) == -EINVAL && fm_spec_parse(socket, &(struct fm_spec){ 0 }) == -EINVAL);
	cr_expect(fm_tool_is_library("/a.so/libnvfm.so") && !fm_tool_is_library("/opt/x.so.d/fmpm"));
}

#define GPUS(n) "{\"physicalId\":" #n ",\"uuid\":\"GPU-a\",\"pciBusId\":\"00000000:86:00.0\",\"numNvLinksAvailable\":18,\"maxNumNvLinks\":18,\"nvlinkLineRateMBps\":25000}"
#define PART(n, gpus) "{\"partitionId\":" #n ",\"isActive\":1,\"numGpus\":1,\"gpuInfo\":[" gpus "]}"
#define LIST(parts) "{\"version\":1,\"partitionInfo\":[" parts "]}"

static int parse(const char *text, struct fm_list *l)
{
	struct err e = { 0 };
	int r = fm_list_parse(text, l, &e);

	cr_expect((r < 0) == (*e.msg != '\0') && (r == 0 || !strcmp(e.word, "fabric-manager-failed")));
	return r;
}

Test(fm_proto, lists)
{
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	AUTO_FREE char *many = xstrdup(""), *gpus = xstrdup(GPUS(1)), *deep = xasprintf("%0200d", 0), *text = NULL;

	cr_assert(parse(LIST(PART(3, GPUS(7))), l) == 0 && l->n == 1);
	cr_expect(l->v[0].id == 3 && l->v[0].active && l->v[0].n_gpus == 1 && l->v[0].gpus[0].physical_id == 7 && !strcmp(l->v[0].gpus[0].uuid, "GPU-a"));
	cr_expect(l->v[0].gpus[0].links == 18 && l->v[0].gpus[0].links_max == 18 && l->v[0].gpus[0].link_mbps == 25000);
	cr_expect(fm_list_find(l, 3) == &l->v[0] && !fm_list_find(l, 4));
	/* Words of the library in front. */
	cr_expect(parse("warning: old\n" LIST(PART(3, GPUS(7))) "\n\n", l) == 0);
	cr_expect(parse(LIST(""), l) == 0 && l->n == 0);
	cr_expect(parse("", l) == -EPROTO);
	cr_expect(parse("nothing", l) == -EPROTO);
	cr_expect(parse("{}", l) == -EPROTO);
	cr_expect(parse(LIST(PART(3, GPUS(7))) "x", l) == -EPROTO);
	cr_expect(parse("{\"partitionInfo\":[", l) == -EPROTO);
	cr_expect(parse("{\"partitionInfo\":{}}", l) == -EPROTO);
	cr_expect(parse("{\"partitionInfo\":[1]}", l) == -EPROTO);
	cr_expect(parse("{\"partitionInfo\":[null]}", l) == -EPROTO);
	cr_expect(parse(LIST(PART(3, "null")), l) == -EPROTO);
	cr_expect(parse(LIST(PART(64, GPUS(7))), l) == -EPROTO);
	cr_expect(parse(LIST(PART(-1, GPUS(7))), l) == -EPROTO);
	cr_expect(parse(LIST(PART(3, GPUS(7)) "," PART(3, GPUS(8))), l) == -EPROTO);
	cr_expect(parse(LIST(PART(3, GPUS(0))), l) == -EPROTO);
	for (int i = 0; i < 64; i++) {
		char *next = xasprintf("%s%s" PART(%d, GPUS(1)), many, i ? "," : "", i);

		free(many);
		many = next;
	}
	text = xasprintf(LIST("%s"), many);
	cr_expect(parse(text, l) == 0 && l->n == 64);
	free(text);
	text = xasprintf(LIST("%s" "," PART(64, GPUS(1))), many);
	cr_expect(parse(text, l) == -EPROTO);
	for (int i = 1; i < 17; i++) {
		char *next = xasprintf("%s," GPUS(%d), gpus, i + 1);

		free(gpus);
		gpus = next;
	}
	free(text);
	text = xasprintf(LIST(PART(3, "%s")), gpus);
	cr_expect(parse(text, l) == -EPROTO, "17 GPUs");
	memset(deep, '[', strlen(deep));
	free(text);
	text = xasprintf("{\"partitionInfo\":%s", deep);
	cr_expect(parse(text, l) == -EPROTO);
	free(text);
	text = xasprintf("{%*s}", 1 << 20, "");
	cr_expect(parse(text, l) == -EPROTO);
}

Test(fm_proto, exactly_the_gpus_of_the_partition)
{
	struct fabric_id ids[] = { { 1, { .bus = 0x86 } }, { 3, { .bus = 0x87 } }, { 5, { .bus = 0x0f } } };
	struct fabric_partition partitions[] = { { .id = 3, .gpus = 0x5 }, { .id = 7, .gpus = 0x1 } };
	struct fabric_map map = { .gpus = ids, .n_gpus = 3, .partitions = partitions, .n_partitions = 2 };
	const struct pci_addr right[] = { { .bus = 0x87 }, { .bus = 0x86 } }, wrong[] = { { .bus = 0x86 }, { .bus = 0x0f } },
			      other[] = { { .bus = 0x86 }, { .bus = 0x99 } };
	struct err e = { 0 };

	cr_expect(fm_check_gpus(&map, 3, right, 2, &e) == 0);
	cr_expect(fm_check_gpus(&map, 3, right, 1, &e) == -EXDEV && !strcmp(e.word, "fabric-mismatch"));
	cr_expect(fm_check_gpus(&map, 3, wrong, 2, &e) == -EXDEV);
	cr_expect(fm_check_gpus(&map, 3, other, 2, &e) == -EXDEV);
	cr_expect(fm_check_gpus(&map, 7, right, 2, &e) == -EXDEV);
	cr_expect(fm_check_gpus(&map, 3, right, 0, &e) == -EXDEV);
	cr_expect(fm_check_gpus(&map, 4, right, 2, &e) == -ENOENT && !strcmp(e.word, "fabric-mismatch"));
}

/* --- talking to a stand-in --------------------------------------------------------------------------------------- */

/* HGX H100/H200 with both tools. GPUs by module ID: PCI order is not module order (NVIDIA WP-12736-002). */
static const char *const hgx[] = { "86", "b8", "87", "bb", "0f", "41", "10", "44" };

struct manager {
	char dir[32];
	char *tools[2];
	struct fm m;
};

static void put(const struct manager *f, const char *name, const char *text)
{
	AUTO_FREE char *path = xasprintf("%s/%s", f->dir, name);

	cr_assert(write_file_atomic(path, text, strlen(text), 0600) == 0);
}

/* Owned; without the last newline. */
static char *get(const struct manager *f, const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", f->dir, name);
	char *text = NULL;

	return read_text_file(path, 1 << 16, &text) < 0 ? xstrdup("") : text;
}

static void expect_file(const struct manager *f, const char *name, const char *want)
{
	AUTO_FREE char *text = get(f, name);

	cr_expect_str_eq(text, want, "%s: '%s', expected '%s'", name, text, want);
}

static void copy(const char *from, const char *to, unsigned int mode)
{
	AUTO_FREE char *cmd = xasprintf("install -m %o '%s' '%s'", mode, from, to);

	cr_assert(system(cmd) == 0, "%s", cmd);
}

/* @reports: "bdf", "uuid", or "" for neither, as on H100 and later. */
static void put_gpus(const struct manager *f, const char *reports)
{
	AUTO_FREE char *text = xstrdup("");

	for (int i = 0; i < 8; i++) {
		AUTO_FREE char *bdf = xasprintf("00000000:%s:00.0", hgx[i]), *uuid = xasprintf("GPU-%d", i + 1);
		char *next = xasprintf("%s%d %s %s\n", text, i + 1, strcmp(reports, "uuid") ? "-" : uuid, strcmp(reports, "bdf") ? "-" : bdf);

		free(text);
		text = next;
	}
	put(f, "gpus", text);
}

static void manager_new(struct manager *f)
{
	AUTO_FREE char *lib = xasprintf("%s/tests/libnvfm.so.1", build_dir()), *table = xstrdup("");

	*f = (struct manager){ .dir = "/tmp/gpuvm-fm-XXXXXX" };
	cr_assert(mkdtemp(f->dir));
	f->tools[0] = xasprintf("%s/fmpm", f->dir);
	f->tools[1] = xasprintf("%s/libnvfm.so.1", f->dir);
	copy("tests/fake/fmpm", f->tools[0], 0700);
	copy(lib, f->tools[1], 0600);
	for (size_t i = 0; i < fabric_hgx_h100.n_partitions; i++) {
		const struct fabric_partition *p = &fabric_hgx_h100.partitions[i];
		char *next = xasprintf("%s%d %d ", table, p->id, p->links);

		for (int k = 0, n = 0; k < 8; k++) {
			if (!(p->gpus >> k & 1))
				continue;
			free(table);
			table = next;
			next = xasprintf("%s%s%d", table, n++ ? "," : "", k + 1);
		}
		free(table);
		table = xasprintf("%s\n", next);
		free(next);
	}
	put(f, "table", table);
	put_gpus(f, "bdf");
	f->m = (struct fm){ .manager = f->tools[0] };
}

static void manager_end(struct manager *f)
{
	mkhost_remove(xstrdup(f->dir));
	free(f->tools[0]);
	free(f->tools[1]);
}

/* With each of the two tools; state, faults and log are new for each. */
#define EACH(f)                                                                                                                                           \
	for (int tool_ = 0; tool_ < 2; tool_++)                                                                                                           \
		for (bool once_ = (put(&(f), "fault", ""), put(&(f), "active", ""), put(&(f), "log", ""), (f).m = (struct fm){ .manager = (f).tools[tool_] }, true); \
		     once_; once_ = false)
#define BY (tool_ ? "libnvfm" : "fmpm")

Test(fm_talk, the_h200_table, .timeout = 60)
{
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	struct fabric_map map = { 0 }, known = { 0 };
	struct manager f;
	struct err e = { 0 };

	manager_new(&f);
	EACH(f) {
		cr_assert(fm_read_map(&f.m, &sysfs_live, NULL, l, &map, &e) == 0, "%s: %s", BY, e.msg);
		cr_assert(l->n == 15 && map.n_partitions == 15 && map.n_gpus == 8);
		for (size_t i = 0; i < 15; i++)
			cr_expect(map.partitions[i].id == fabric_hgx_h100.partitions[i].id && map.partitions[i].gpus == fabric_hgx_h100.partitions[i].gpus &&
					  map.partitions[i].links == fabric_hgx_h100.partitions[i].links && !map.partitions[i].active,
				  "%s: partition %zu", BY, i);
		cr_expect(map.gpus[0].id == 1 && map.gpus[0].addr.bus == 0x86 && map.gpus[4].id == 5 && map.gpus[4].addr.bus == 0x0f);
		fabric_map_clear(&map);
		/* Reported is nothing, and nothing is known. */
		put_gpus(&f, "");
		cr_expect(fm_read_map(&f.m, &sysfs_live, &known, l, &map, &e) == -ENOENT && !strcmp(e.word, "fabric-mismatch") && l->n == 15, "%s: %s", BY, e.msg);
		put_gpus(&f, "bdf");
	}
	manager_end(&f);
}

static void make_uuids(const char *root)
{
	AUTO_FREE char *cmd = xasprintf("i=1; for b in 86 b8 87 bb 0f 41 10 44; do d='%s'/proc/driver/nvidia/gpus/0000:$b:00.0; mkdir -p $d; "
					"printf 'Model: \\t\\t NVIDIA H100\\nGPU UUID: \\t GPU-%%d\\nBus Location: \\t 0000\\n' $i >$d/information; i=$((i + 1)); done",
					root);

	cr_assert(system(cmd) == 0);
}

Test(fm_talk, gpus_by_uuid, .timeout = 60)
{
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	struct fabric_id wrong[] = { { 1, { .bus = 0x0f } } };
	struct fabric_map map = { 0 }, known = { .gpus = wrong, .n_gpus = 1, .source = (char[]){ "fabric.conf" } };
	struct sysfs s = sysfs_live;
	struct manager f;
	struct err e = { 0 };

	manager_new(&f);
	s.root = f.dir;
	make_uuids(f.dir);
	put_gpus(&f, "uuid");
	EACH(f) {
		cr_assert(fm_read_map(&f.m, &s, NULL, l, &map, &e) == 0, "%s: %s", BY, e.msg);
		cr_expect(map.gpus[0].id == 1 && map.gpus[0].addr.bus == 0x86 && !strcmp(map.source, "Fabric Manager"));
		fabric_map_clear(&map);
		cr_expect(fm_read_map(&f.m, &s, &known, l, &map, &e) == -EEXIST, "a number overrides no identity: %s", e.msg);
	}
	manager_end(&f);
}

Test(fm_talk, activate_and_deactivate, .timeout = 60)
{
	struct manager f;
	struct err e = { 0 };

	manager_new(&f);
	EACH(f) {
		cr_assert(fm_activate(&f.m, 1, &e) == 0, "%s: %s", BY, e.msg);
		cr_assert(fm_activate(&f.m, 5, &e) == 0, "%s: %s", BY, e.msg);
		expect_file(&f, "active", "1\n5");
		for (int old = 0; old < 2; old++) {
			put(&f, "fault", old ? "old-codes" : "");
			cr_expect(fm_activate(&f.m, 1, &e) == -EALREADY, "%s: %s", BY, e.msg);
			/* 3 is a part of 1, 2 has 5 in it. */
			cr_expect(fm_activate(&f.m, 3, &e) == -EBUSY && !strcmp(e.word, "partition-busy") && strstr(e.msg, "has a GPU of partition 1,"), "%s: %s", BY,
				  e.msg);
			cr_expect(fm_activate(&f.m, 2, &e) == -EBUSY && strstr(e.msg, "`gpuvm fabric deactivate 5`"), "%s: %s", BY, e.msg);
			cr_expect(fm_deactivate(&f.m, 6, &e) == 0, "%s: not active: %s", BY, e.msg);
		}
		expect_file(&f, "active", "1\n5");
		cr_expect(fm_deactivate(&f.m, 1, &e) == 0, "%s: %s", BY, e.msg);
		expect_file(&f, "active", "5");
		cr_expect(fm_activate(&f.m, 63, &e) == -EINVAL && strstr(e.msg, "activate partition 63: it has no such partition"), "%s: %s", BY, e.msg);
	}
	manager_end(&f);
}

static void count(void *ctx, const char *why, uint64_t waited_ms)
{
	(void)waited_ms;
	cr_expect(strstr(why, "initialising") || strstr(why, "cannot be reached"), "%s", why);
	++*(int *)ctx;
}

Test(fm_talk, not_ready_yet, .timeout = 60)
{
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	struct manager f;
	struct err e = { 0 };
	int fds[2], n = 0;

	manager_new(&f);
	cr_assert(pipe2(fds, O_CLOEXEC) == 0 && write(fds[1], "", 1) == 1);
	EACH(f) {
		put(&f, "fault", "not-ready 1");
		cr_expect(fm_list(&f.m, l, &e) == -EAGAIN, "%s: %s", BY, e.msg);
		f.m.ready_ms = 30000;
		f.m.progress = count;
		f.m.ctx = &n;
		n = 0;
		put(&f, "fault", "not-ready 2");
		cr_expect(fm_activate(&f.m, 4, &e) == 0 && n == 2, "%s: %d attempts: %s", BY, n, e.msg);
		put(&f, "fault", "unreachable 1");
		cr_expect(fm_deactivate(&f.m, 4, &e) == 0 && n == 3, "%s: %d attempts: %s", BY, n, e.msg);
		expect_file(&f, "active", "");
		put(&f, "fault", "not-ready 100000");
		f.m.ready_ms = 1;
		cr_expect(fm_list(&f.m, l, &e) == -EAGAIN && strstr(e.msg, "; waited 0 s"), "%s: %s", BY, e.msg);
		f.m.ready_ms = 30000;
		f.m.cancel_fd = fds[0];
		cr_expect(fm_list(&f.m, l, &e) == -EINTR, "%s: %s", BY, e.msg);
	}
	close(fds[0]);
	close(fds[1]);
	manager_end(&f);
}

Test(fm_talk, what_goes_wrong, .timeout = 120)
{
	static const struct {
		const char *fault;
		int list, activate;
		const char *text;
	} rows[] = {
		{ "mismatch", -EPROTONOSUPPORT, -EPROTONOSUPPORT, "(VERSION_MISMATCH, -6)" },
		{ "not-shared", -EOPNOTSUPP, -EOPNOTSUPP, "FABRIC_MODE=1" },
		{ "timeout", 0, -ETIMEDOUT, "(TIMEOUT, -5)" },
		{ "nvlink", 0, -EIO, "(NVLINK_ERROR, -10)" },
		{ "garbage", -EPROTO, 0, NULL },
		{ "huge", -EPROTO, 0, NULL },
	};
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	struct manager f;

	manager_new(&f);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		EACH(f) {
			struct err e = { 0 };

			put(&f, "fault", rows[i].fault);
			cr_expect(fm_list(&f.m, l, &e) == rows[i].list, "%s, %s: %s", BY, rows[i].fault, e.msg);
			cr_expect(!rows[i].list || !strcmp(e.word, "fabric-manager-failed"));
			cr_expect(fm_activate(&f.m, 3, &e) == rows[i].activate, "%s, %s: %s", BY, rows[i].fault, e.msg);
			cr_expect(!rows[i].text || strstr(e.msg, rows[i].text), "%s, %s: %s", BY, rows[i].fault, e.msg);
		}
	}
	manager_end(&f);
}

/* Neither a program nor a call that does not return keeps us, nor is it left behind. */
Test(fm_talk, one_that_hangs, .timeout = 60)
{
	struct place p = place_new();
	struct manager f;
	struct err e = { 0 };

	manager_new(&f);
	EACH(f) {
		put(&f, "fault", "hang -a");
		f.m.call_ms = 2000;
		cr_expect(fm_activate(&f.m, 3, &e) == -ETIMEDOUT && !strcmp(e.word, "fabric-manager-failed"), "%s: %s", BY, e.msg);
		expect_file(&f, "active", "");
		put(&f, "fault", "");
		f.m.call_ms = 0;
		cr_expect(fm_activate(&f.m, 3, &e) == 0, "%s: %s", BY, e.msg);
	}
	EXPECT_SH(&p, 1, "ps -C sleep -o args= | grep -x 'sleep 600'");
	place_end(&p);
	manager_end(&f);
}

static char *ask_version(const struct manager *f, const char *script, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/nv-fabricmanager", f->dir);

	put(f, "nv-fabricmanager", script);
	cr_assert(chmod(path, 0700) == 0);
	return fm_version(2000, e);
}

Test(fm_talk, its_version, .timeout = 60)
{
	static const struct {
		const char *script, *version, *error;
	} cases[] = {
		{ "#!/bin/sh\ntest \"$*\" = --version && echo Fabric Manager version is : 580.95.05\n", "580.95.05", NULL },
		{ "#!/bin/sh\necho no such option\n", NULL, "says 'no such option'" },
		{ "#!/bin/sh\necho 1.2; exit 3\n", NULL, "says '1.2'" },
		{ "#!/bin/sh\nexec sleep 100\n", NULL, "did not end within 2000 ms" },
	};
	struct manager f;
	AUTO_FREE char *before = xstrdup(getenv("PATH")), *path = NULL;

	manager_new(&f);
	path = xasprintf("%s:%s", f.dir, before);
	cr_assert(setenv("PATH", path, 1) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e = { 0 };
		AUTO_FREE char *version = ask_version(&f, cases[i].script, &e);

		cr_expect(cases[i].version ? version && !strcmp(version, cases[i].version) : !version && strstr(e.msg, cases[i].error), "%zu: '%s': %s", i,
			  version ? version : "none", e.msg);
	}
	setenv("PATH", "/nowhere", 1);
	cr_expect_null(fm_version(2000, &(struct err){ 0 }));
	setenv("PATH", before, 1);
	manager_end(&f);
}

Test(fm_talk, how_it_is_addressed, .timeout = 60)
{
	static const struct {
		const char *address, *fmpm, *lib;
	} rows[] = {
		{ "", "list ", "connect inet 127.0.0.1:6666\nlist 0" },
		{ " 10.0.0.2", "--hostname 10.0.0.2\nlist ", "connect inet 10.0.0.2:6666\nlist 0" },
		{ " 10.0.0.2:7000", "--hostname 10.0.0.2:7000\nlist ", "connect inet 10.0.0.2:7000\nlist 0" },
		{ " unix:/run/fm/socket", "--unix-domain-socket /run/fm/socket\nlist ", "connect unix /run/fm/socket\nlist 0" },
	};
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	struct manager f;
	struct err e = { 0 };

	manager_new(&f);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		EACH(f) {
			AUTO_FREE char *manager = xasprintf("%s%s", f.tools[tool_], rows[i].address);

			f.m.manager = manager;
			cr_expect(fm_list(&f.m, l, &e) == 0, "%s: %s", BY, e.msg);
			expect_file(&f, "log", tool_ ? rows[i].lib : rows[i].fmpm);
		}
	}
	manager_end(&f);
}

Test(fm_talk, tools_that_are_none, .timeout = 60)
{
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	AUTO_FREE char *found = NULL, *missing = NULL;
	struct manager f;
	struct err e = { 0 };

	manager_new(&f);
	missing = xasprintf("%s/nobody", f.dir);
	cr_expect(fm_find(missing, &found, &e) == -ENOENT && strstr(e.msg, "nobody"), "%s", e.msg);
	cr_expect(fm_find("libgpuvm-none.so.9 10.0.0.2", &found, &e) == -ENOENT && strstr(e.msg, "libgpuvm-none.so.9"), "%s", e.msg);
	cr_expect(fm_find("libm.so.6", &found, &e) == -ENOENT && strstr(e.msg, "has no fmLibInit"), "%s", e.msg);
	cr_expect(fm_find("none", &found, &e) == -EINVAL);
	f.m.manager = "/bin/false";
	cr_expect(fm_list(&f.m, l, &e) == -EPROTO && strstr(e.msg, "exit code 1"), "%s", e.msg);
	f.m.manager = missing;
	cr_expect(fm_list(&f.m, l, &e) == -ENOENT, "%s", e.msg);
	f.m.manager = "/bin/true";
	cr_expect(fm_list(&f.m, l, &e) == -EPROTO, "%s", e.msg);
	f.m.manager = f.tools[0];
	put(&f, "fault", "usage");
	cr_expect(fm_list(&f.m, l, &e) == -EPROTO && strstr(e.msg, "what is that?"), "%s", e.msg);
	f.m.manager = f.tools[1];
	put(&f, "fault", "crash list");
	cr_expect(fm_list(&f.m, l, &e) == -EIO, "%s", e.msg);
	/* Whichever form of the parameters it knows. */
	for (int v = 1; v <= 2; v++) {
		put(&f, "fault", v == 1 ? "v1" : "v2");
		cr_expect(fm_list(&f.m, l, &e) == 0 && l->n == 15, "version %d: %s", v, e.msg);
	}
	free(STEAL_PTR(found));
	cr_expect(setenv("PATH", f.dir, 1) == 0 && fm_find("auto 10.0.0.2", &found, &e) == 0, "%s", e.msg);
	missing = (free(missing), xasprintf("%s 10.0.0.2", f.tools[0]));
	cr_expect_str_eq(found, missing);
	cr_expect(setenv("PATH", "/nowhere", 1) == 0 && fm_find("auto", &(char *){ NULL }, &e) == -ENOENT && strstr(e.msg, "no fmpm in PATH"), "%s", e.msg);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	manager_end(&f);
}

Test(fm_talk, after_a_restart, .timeout = 120)
{
	AUTO_FREE struct fm_list *l = xcalloc(1, sizeof(*l));
	const int ids[] = { 1, 5 };
	struct manager f;
	struct err e = { 0 };

	manager_new(&f);
	EACH(f) {
		f.m.ready_ms = 30000;
		put(&f, "fault", "restart");
		cr_expect(fm_sync(&f.m, ids, 2, l, &e) == 0, "%s: %s", BY, e.msg);
		expect_file(&f, "active", "1\n5");
		/* It was not restarted: nothing is set. */
		put(&f, "log", "");
		cr_expect(fm_sync(&f.m, ids, 2, l, &e) == 0, "%s: %s", BY, e.msg);
		cr_expect(fm_sync(&f.m, ids, 0, l, &e) == 0, "%s: %s", BY, e.msg);
		AUTO_FREE char *log = get(&f, "log");
		cr_expect(!strstr(log, "set"), "%s", log);
		/* None: the list must be sent all the same. */
		put(&f, "fault", "restart");
		cr_expect(fm_sync(&f.m, ids, 0, l, &e) == 0, "%s: %s", BY, e.msg);
		expect_file(&f, "active", "");
		/* Anew, and not in restart mode. */
		cr_expect(fm_sync(&f.m, ids, 2, l, &e) == -ESTALE, "%s: %s", BY, e.msg);
		/* First it starts. */
		put(&f, "fault", "unreachable 2");
		cr_expect(fm_sync(&f.m, ids, 0, l, &e) == 0, "%s: %s", BY, e.msg);
		put(&f, "fault", "not-shared");
		cr_expect(fm_sync(&f.m, ids, 0, l, &e) == -EOPNOTSUPP, "%s: %s", BY, e.msg);
	}
	/* As fmpm 1.0.1 does. */
	f.m.manager = f.tools[0];
	put(&f, "fault", "restart loses-list");
	cr_expect(fm_sync(&f.m, ids, 2, l, &e) == -ESTALE && !strcmp(e.word, "fabric-manager-failed"), "%s", e.msg);
	manager_end(&f);
}

/* --- the stage ------------------------------------------------------------------------------------------------------ */

#define H100 0x10de, 0x2330, 0x030200
static const struct fake_device machine[] = {
	{ "0000:0f:00.0", H100, 1, "nvidia" }, { "0000:10:00.0", H100, 2, "nvidia" }, { "0000:41:00.0", H100, 3, "nvidia" },
	{ "0000:44:00.0", H100, 4, "nvidia" }, { "0000:86:00.0", H100, 5, "nvidia" }, { "0000:87:00.0", H100, 6, "nvidia" },
	{ "0000:b8:00.0", H100, 7, "nvidia" }, { "0000:bb:00.0", H100, 8, "nvidia" }, { "0000:90:00.0", 0x15b3, 0x1021, 0x020700, 9, "mlx5_core" },
};

struct bench {
	struct fake_kernel k;
	struct manager f;
	struct launch l;
	char run[32];
	char *before;
};

static const struct launch_options options = { 0 };

static void add_device(struct plan *p, const char *bus, enum pci_role role, const char *driver)
{
	AUTO_FREE char *bdf = xasprintf("0000:%s:00.0", bus);
	struct plan_device *d = PUSH_ZEROED(p->devices, p->n_devices);
	struct plan_bind *b = PUSH_ZEROED(p->binds, p->n_binds);

	d->id = xasprintf("%s%zu", pci_role_word(role), p->n_devices);
	d->role = role;
	d->clique = -1;
	cr_assert(parse_pci_addr(bdf, &d->addr) == 0);
	b->addr = d->addr;
	b->from = xstrdup(driver);
	b->to = xstrdup("vfio-pci");
}

/* A VM after the stage "claim", with the GPUs on @buses and partition @id. */
static void bench_new(struct bench *b, const char *buses, int id)
{
	AUTO_FREE char *words = xstrdup(buses);
	struct plan *p = &b->l.plan;
	char *save = NULL;
	struct err e = { 0 };

	*b = (struct bench){ .run = "/tmp/gpuvm-run-XXXXXX" };
	cr_assert(mkdtemp(b->run) && setenv("GPUVM_RUNDIR", b->run, 1) == 0 && setenv("GPUVM_STATEDIR", b->run, 1) == 0);
	cr_assert(fake_kernel_make(&b->k, machine, ARRAY_SIZE(machine)) == 0);
	b->before = fake_kernel_snapshot(&b->k);
	manager_new(&b->f);
	launch_init(&b->l, &options);
	b->l.sys = b->k.sys;
	p->vm = xstrdup("vm");
	p->rundir = claim_vm_dir("vm");
	for (char *s = strtok_r(words, " ", &save); s; s = strtok_r(NULL, " ", &save))
		add_device(p, s, ROLE_GPU, "nvidia");
	add_device(p, "90", ROLE_NIC, "mlx5_core");
	/* As planned: with the operator's file. */
	for (int i = 0; i < 8; i++) {
		AUTO_FREE char *bdf = xasprintf("0000:%s:00.0", hgx[i]);
		struct fabric_id *gpu = PUSH_ZEROED(b->l.fabric.gpus, b->l.fabric.n_gpus);

		gpu->id = i + 1;
		cr_assert(parse_pci_addr(bdf, &gpu->addr) == 0);
	}
	b->l.fabric.source = xstrdup("fabric.conf");
	p->fabric = (struct plan_fabric){ .mode = FABRIC_SHARED, .partition = id, .manager = xstrdup(b->f.tools[0]) };
	claim_from_plan(p, NULL, &b->l.claim);
	b->l.claimed = true;
	cr_assert(mkdir(p->rundir, 0700) == 0 && claim_write(&b->l.claim, &e) == 0, "%s", e.msg);
}

static void bench_end(struct bench *b)
{
	if (b->l.busy_fd)
		b->k.sys.busy_fd = 0;
	launch_clear(&b->l);
	fake_kernel_free(&b->k);
	manager_end(&b->f);
	mkhost_remove(xstrdup(b->run));
	free(b->before);
}

static void expect_drivers(struct bench *b, const char *buses, const char *want)
{
	AUTO_FREE char *words = xstrdup(buses);
	char *save = NULL;

	for (char *s = strtok_r(words, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		AUTO_FREE char *bdf = xasprintf("0000:%s:00.0", s), *driver = NULL;
		struct pci_addr a;

		cr_assert(parse_pci_addr(bdf, &a) == 0);
		driver = bind_current_driver(&b->k.sys, &a);
		cr_expect(want ? driver && !strcmp(driver, want) : !driver, "%s is on %s", bdf, driver ? driver : "nothing");
	}
}

/* How often was the function reset so far? */
static int resets(const struct bench *b, const char *bus)
{
	AUTO_FREE char *path = xasprintf("/sys/bus/pci/devices/0000:%s:00.0/reset", bus);
	unsigned int n = atomic_load(&b->k.sh->writes);
	int found = 0;

	for (unsigned int i = 0; i < n; i++)
		found += !strcmp(b->k.sh->trace[i].path, path);
	return found;
}

static void expect_as_before(struct bench *b)
{
	AUTO_FREE char *now = fake_kernel_snapshot(&b->k);

	cr_expect_str_eq(now, b->before);
	expect_file(&b->f, "active", "");
}

/* As bind and undo of bind do. */
static void give_back(struct bench *b)
{
	AUTO_FREE struct bind_op *ops = claim_bind_ops(&b->l.claim);
	struct err e = { 0 };

	cr_assert(bind_restore(&b->l.sys, ops, b->l.claim.n_devices, &e) == 0, "%s", e.msg);
}

Test(partition, up_and_down, .timeout = 60)
{
	AUTO_FREE struct bind_op *ops = NULL;
	struct pci_addr all[5];
	struct claim on_disk = { 0 };
	struct err e = { 0 };
	struct bench b;

	bench_new(&b, "86 87 b8 bb", 1);
	cr_assert(launch_partition(&b.l, &e) == 0, "%s", e.msg);
	expect_file(&b.f, "active", "1");
	/* Reset and not bound yet: nothing between activating and the guest but vfio-pci's own. */
	expect_drivers(&b, "86 87 b8 bb", NULL);
	expect_drivers(&b, "0f 10 41 44", "nvidia");
	expect_drivers(&b, "90", "mlx5_core");
	cr_expect(resets(&b, "86") == 1 && resets(&b, "bb") == 1 && resets(&b, "0f") == 0 && resets(&b, "90") == 0);
	cr_assert(claim_read(b.l.claim.rundir, &on_disk, &e) == 0, "%s", e.msg);
	cr_expect(on_disk.partition_active && on_disk.bound && !strcmp(on_disk.fabric_manager, b.f.tools[0]) && on_disk.partition == 1);
	claim_clear(&on_disk);
	ops = claim_bind_ops(&b.l.claim);
	cr_assert(bind_devices(&b.l.sys, ops, 5, &e) == 0, "%s", e.msg);
	expect_drivers(&b, "86 87 b8 bb 90", "vfio-pci");
	/* The stage "reset" leaves the GPUs out from here on. */
	for (int i = 0; i < 5; i++)
		all[i] = ops[i].addr;
	cr_expect(launch_spare_partition(&b.l, all, 5) == 1 && all[0].bus == 0x90);
	give_back(&b);
	cr_assert(launch_unpartition(&b.l, 0, &e) == 0, "%s", e.msg);
	cr_expect(!b.l.claim.partition_active);
	expect_as_before(&b);
	cr_assert(launch_unpartition(&b.l, 0, &e) == 0, "%s", e.msg);
	expect_file(&b.f, "log", "list \n-a 1\n-d 1");
	for (int i = 0; i < 5; i++)
		all[i] = ops[i].addr;
	cr_expect(launch_spare_partition(&b.l, all, 5) == 5);
	bench_end(&b);
}

/* GPUs by their order on the bus and a partition by its number make a VM without NVLink, and no error anywhere else. */
Test(partition, the_wrong_one, .timeout = 60)
{
	struct err e = { 0 };
	struct bench b;

	bench_new(&b, "0f 10 41 44", 1);
	cr_expect(launch_partition(&b.l, &e) == -EXDEV && !strcmp(e.word, "fabric-mismatch"), "%s", e.msg);
	cr_expect(!b.l.claim.partition_active && !b.l.claim.bound && atomic_load(&b.k.sh->writes) == 0, "nothing was touched");
	expect_as_before(&b);
	expect_file(&b.f, "log", "list ");
	bench_end(&b);
	/* One GPU short of it. */
	bench_new(&b, "86 87 b8", 1);
	cr_expect(launch_partition(&b.l, &e) == -EXDEV, "%s", e.msg);
	bench_end(&b);
	/* Cards were moved since the file was written. */
	bench_new(&b, "86 87 b8 bb", 1);
	b.l.fabric.gpus[0].addr.bus = 0x87;
	b.l.fabric.gpus[2].addr.bus = 0x86;
	cr_expect(launch_partition(&b.l, &e) == -EEXIST && !strcmp(e.word, "fabric-mismatch"), "%s", e.msg);
	bench_end(&b);
	/* By the operator's file, where nothing is reported. */
	bench_new(&b, "86 87", 3);
	put_gpus(&b.f, "");
	cr_assert(launch_partition(&b.l, &e) == 0, "%s", e.msg);
	give_back(&b);
	cr_assert(launch_unpartition(&b.l, 0, &e) == 0, "%s", e.msg);
	expect_as_before(&b);
	bench_end(&b);
}

Test(partition, without_one, .timeout = 60)
{
	struct err e = { 0 };
	struct bench b;

	bench_new(&b, "86", 7);
	free(STEAL_PTR(b.l.claim.fabric_manager));
	cr_expect(launch_partition(&b.l, &e) == 0 && launch_unpartition(&b.l, 0, &e) == 0, "%s", e.msg);
	expect_as_before(&b);
	expect_file(&b.f, "log", "");
	bench_end(&b);
}

/* Whatever fails, the two undos leave the host as it was. */
Test(partition, fails_half_way, .timeout = 120)
{
	static const struct {
		const char *fault, *active, *kills;
		int r;
	} rows[] = {
		{ "nvlink", "", NULL, -EIO },
		{ "timeout", "", NULL, -ETIMEDOUT },
		{ "not-shared", "", NULL, -EOPNOTSUPP },
		{ "garbage", "", NULL, -EPROTO },
		{ "", "3\n", NULL, -EBUSY },
		{ "", "", "0000:b8:00.0", -ENODEV },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct err e = { 0 };
		struct bench b;

		bench_new(&b, "86 87 b8 bb", 1);
		put(&b.f, "fault", rows[i].fault);
		put(&b.f, "active", rows[i].active);
		b.k.reset_kills_bdf = rows[i].kills;
		cr_expect(launch_partition(&b.l, &e) == rows[i].r, "row %zu: %d: %s", i, e.code, e.msg);
		put(&b.f, "fault", "");
		give_back(&b);
		cr_expect(launch_unpartition(&b.l, 1, &e) == 0, "row %zu: %s", i, e.msg);
		expect_drivers(&b, "86 87 b8 bb", "nvidia");
		/* What is somebody else's stays. */
		expect_file(&b.f, "active", *rows[i].active ? "3" : "");
		bench_end(&b);
	}
}

/* Taken over, since all its GPUs are this VM's. */
Test(partition, active_already, .timeout = 60)
{
	struct err e = { 0 };
	struct bench b;

	bench_new(&b, "86 87 b8 bb", 1);
	put(&b.f, "active", "1\n");
	cr_assert(launch_partition(&b.l, &e) == 0, "%s", e.msg);
	cr_expect(b.l.claim.partition_active);
	give_back(&b);
	cr_assert(launch_unpartition(&b.l, 0, &e) == 0, "%s", e.msg);
	expect_as_before(&b);
	bench_end(&b);
}

/* A launcher that dies at any write, in front of the activation and behind it: the claim has all that recover needs. */
static void die_and_recover(unsigned int at_write, bool after_activation)
{
	struct claim c = { 0 };
	struct err e = { 0 };
	struct bench b;
	int status;
	pid_t pid;

	bench_new(&b, "86 87 b8 bb", 1);
	pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0) {
		AUTO_FREE char *fault = xasprintf("kill %d", getpid());

		b.l.claim.launcher_pid = getpid();
		b.l.claim.launcher_start = process_start_time(getpid());
		b.k.sh->fail_at = at_write;
		b.k.sh->fail_errno = EIO;
		if (after_activation)
			put(&b.f, "fault", fault);
		if (launch_partition(&b.l, &e) < 0 && at_write)
			kill(getpid(), SIGKILL);
		_exit(1);
	}
	cr_assert(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "write %u: %x", at_write, (unsigned int)status);
	b.k.sh->fail_at = 0;
	put(&b.f, "fault", "");
	if (after_activation)
		expect_file(&b.f, "active", "1");
	cr_assert(claim_read(b.l.plan.rundir, &c, &e) == 0 && !claim_launcher_alive(&c), "%s", e.msg);
	cr_assert(claim_recover(&b.k.sys, &c, &e) == 0, "write %u: %s", at_write, e.msg);
	expect_as_before(&b);
	cr_expect(claim_read(b.l.plan.rundir, &(struct claim){ 0 }, &e) == -ENOENT);
	claim_clear(&c);
	bench_end(&b);
}

Test(partition, killed_after_activating, .timeout = 60)
{
	die_and_recover(0, true);
}

Test(partition, killed_at_each_write, .timeout = 120)
{
	/* Four times override and unbind; a reset that the kernel refuses is no end. */
	for (unsigned int n = 1; n <= 8; n++)
		die_and_recover(n, false);
}

/* As long as Fabric Manager is not there the partition stays active, and so all of the VM's devices stay its. */
Test(partition, recover_without_fabric_manager, .timeout = 120)
{
	struct host_use use = { 0 };
	struct claim c = { 0 };
	struct err e = { 0 };
	struct bench b;

	bench_new(&b, "86 87 b8 bb", 1);
	cr_assert(launch_partition(&b.l, &e) == 0, "%s", e.msg);
	b.l.claim.launcher_pid = 4194304; /* no process has it */
	b.l.claim.launcher_start = 1;
	cr_assert(claim_write(&b.l.claim, &e) == 0 && claim_read(b.l.plan.rundir, &c, &e) == 0, "%s", e.msg);
	close(b.l.busy_fd);
	b.l.busy_fd = 0;
	put(&b.f, "fault", "unreachable 100000");
	cr_expect(claim_recover(&b.k.sys, &c, &e) == -ENOTCONN && strstr(e.msg, "partition 1 is still active"), "%s", e.msg);
	claim_clear(&c);
	expect_drivers(&b, "86 87 b8 bb", "nvidia");
	cr_assert(claim_read(b.l.plan.rundir, &c, &e) == 0, "%s", e.msg);
	cr_expect(c.n_devices == 5 && c.partition_active && c.recover_failed && strstr(c.reason, "partition 1 is still active"), "%s", c.reason);
	cr_assert(claim_collect_use(&b.k.sys, NULL, &use, &e) == 0, "%s", e.msg);
	cr_expect(use.n_devices == 5 && use.devices[0].pid == 0, "nobody else gets them");
	host_use_clear(&use);
	put(&b.f, "fault", "");
	cr_assert(claim_recover(&b.k.sys, &c, &e) == 0, "%s", e.msg);
	claim_clear(&c);
	expect_as_before(&b);
	bench_end(&b);
}

/* --- gpuvm fabric ------------------------------------------------------------------------------------------------------ */

/* A VM of this process with GPUs on @buses. */
static void put_vm(const struct place *p, const struct manager *f, const char *vm, const char *buses, int partition, bool active)
{
	struct claim c = { .started = 1700000000, .launcher_pid = getpid(), .launcher_start = process_start_time(getpid()), .bound = true };
	AUTO_FREE char *words = xstrdup(buses);
	char *save = NULL;
	struct err e = { 0 };

	c.vm = xstrdup(vm);
	c.rundir = xasprintf("%s/%s", p->root, vm);
	c.boot_id = claim_boot_id();
	c.reason = xstrdup("");
	strcpy(c.state, "running");
	c.fabric = FABRIC_SHARED;
	c.partition = partition;
	c.partition_active = active;
	c.fabric_manager = xstrdup(f->tools[0]);
	for (char *s = strtok_r(words, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		AUTO_FREE char *bdf = xasprintf("0000:%s:00.0", s);
		struct claim_device *d = PUSH_ZEROED(c.devices, c.n_devices);

		cr_assert(parse_pci_addr(bdf, &d->addr) == 0);
		d->id = xstrdup(s);
		d->to = xstrdup("vfio-pci");
	}
	cr_assert((mkdir(c.rundir, 0700) == 0 || errno == EEXIST) && claim_write(&c, &e) == 0, "%s", e.msg);
	claim_clear(&c);
}

Test(fabric_verb, list_and_status, .timeout = 120)
{
	struct place p = place_new();
	struct manager f;

	manager_new(&f);
	setenv("F", f.dir, 1);
	for (int tool = 0; tool < 2; tool++) {
		setenv("T", f.tools[tool], 1);
		put(&f, "active", "1\n5\n");
		put_vm(&p, &f, "half", "86 87 b8 bb", 1, true);
		EXPECT_SH(&p, 0, "$G fabric list --manager $T");
		EXPECT_SAYS(&p, "  1  active  half              18 links  1=0000:86:00.0 2=0000:b8:00.0 3=0000:87:00.0 4=0000:bb:00.0\n");
		EXPECT_SAYS(&p, "  5  active  -                 18 links  5=0000:0f:00.0 7=0000:10:00.0\n");
		EXPECT_SAYS(&p, "\n 14  -       -  ");
		EXPECT_SAYS(&p, " 0 links  8=0000:44:00.0");
		EXPECT_SH(&p, 1, "$G fabric status --manager $T");
		EXPECT_SAYS(&p, "15 partitions, 2 active\n* partition 5 is active, for no VM that gpuvm knows: `gpuvm fabric deactivate 5`");
		put(&f, "active", "1\n");
		EXPECT_SH(&p, 0, "$G fabric status --json --manager $T");
		EXPECT_SAYS(&p, "\"active\":1,\n  \"findings\":[\n  ]");
		EXPECT_SH(&p, 0, "$G fabric list --json --manager $T");
		EXPECT_SAYS(&p, "\"vm\":\"half\"");
		EXPECT_SAYS(&p, "\"bdf\":\"0000:86:00.0\"");
		put(&f, "active", "");
		EXPECT_SH(&p, 1, "$G fabric status --manager $T");
		EXPECT_SAYS(&p, "partition 1 of VM 'half', which runs, is not active");
		/* As on H100: nothing is reported, and this host has no file. */
		put_gpus(&f, "");
		EXPECT_SH(&p, 0, "$G fabric list --manager $T");
		EXPECT_SAYS(&p, "1=? 2=? 3=? 4=?");
		put_gpus(&f, "bdf");
	}
	/* Without --manager: the one that VMs have. */
	EXPECT_SH(&p, 1, "$G fabric status");
	EXPECT_SAYS(&p, "Fabric Manager by /tmp/gpuvm-fm-");
	EXPECT_SH(&p, 0, "rm -r $R/half; PATH=/usr/bin:/bin:$F $G fabric status");
	EXPECT_SH(&p, 1, "PATH=/usr/bin:/bin $G fabric status --json");
	EXPECT_SAYS(&p, "\"code\":\"fabric-no-manager\"");
	/* The library first, if it loads. */
	EXPECT_SH(&p, 0, "PATH=/usr/bin:/bin:$F LD_LIBRARY_PATH=$F $G fabric status");
	EXPECT_SAYS(&p, "Fabric Manager by libnvfm.so.1: 15 partitions, 0 active");
	EXPECT_SH(&p, 2, "$G fabric; $G fabric what");
	EXPECT_SH(&p, 2, "$G fabric activate --manager $T");
	EXPECT_SH(&p, 2, "$G fabric activate 64 --manager $T");
	EXPECT_SH(&p, 2, "$G fabric list 3 --manager $T");
	place_end(&p);
	manager_end(&f);
}

Test(fabric_verb, by_hand, .timeout = 120)
{
	struct place p = place_new();
	struct manager f;

	manager_new(&f);
	for (int tool = 0; tool < 2; tool++) {
		setenv("T", f.tools[tool], 1);
		EXPECT_SH(&p, 0, "$G fabric activate 5 --manager $T");
		EXPECT_SH(&p, 0, "$G fabric activate 5 --manager $T");
		expect_file(&f, "active", "5");
		EXPECT_SH(&p, 5, "$G fabric activate 2 --manager $T");
		EXPECT_SAYS(&p, "partition 2 has a GPU of partition 5, which is active");
		EXPECT_SH(&p, 4, "$G fabric activate 60 --manager $T");
		EXPECT_SH(&p, 0, "$G fabric deactivate 5 --manager $T && $G fabric deactivate 5 --manager $T");
		expect_file(&f, "active", "");
		put_vm(&p, &f, "half", "86 87 b8 bb", 1, true);
		put(&f, "active", "1\n");
		EXPECT_SH(&p, 5, "$G fabric deactivate 1 --manager $T");
		EXPECT_SAYS(&p, "VM 'half', which runs, has GPUs of partition 1");
		EXPECT_SH(&p, 5, "$G fabric deactivate 3 --manager $T");
		EXPECT_SH(&p, 5, "$G fabric activate 0 --json --manager $T");
		EXPECT_SAYS(&p, "\"code\":\"partition-busy\"");
		EXPECT_SH(&p, 0, "$G fabric activate 2 --manager $T && $G fabric deactivate 2 --manager $T");
		/* Also where it is not known which GPU is which; and one that has GPUs, but no partition. */
		put_gpus(&f, "");
		EXPECT_SH(&p, 5, "$G fabric deactivate 3 --manager $T");
		put_gpus(&f, "bdf");
		put_vm(&p, &f, "half", "0f", -1, false);
		EXPECT_SH(&p, 5, "$G fabric activate 5 --manager $T");
		put(&f, "active", "");
		EXPECT_SH(&p, 0, "rm -r $R/half");
	}
	place_end(&p);
	manager_end(&f);
}

Test(fabric_verb, sync, .timeout = 120)
{
	struct place p = place_new();
	struct manager f;

	manager_new(&f);
	for (int tool = 0; tool < 2; tool++) {
		setenv("T", f.tools[tool], 1);
		put_vm(&p, &f, "half", "86 87 b8 bb", 1, true);
		put_vm(&p, &f, "pair", "0f 10", 5, true);
		put_vm(&p, &f, "starts", "41", 12, false);
		put(&f, "fault", "restart");
		EXPECT_SH(&p, 0, "$G fabric sync --manager $T");
		EXPECT_SAYS(&p, "all VMs that run (2)");
		expect_file(&f, "active", "1\n5");
		put(&f, "active", "5\n");
		EXPECT_SH(&p, 1, "$G fabric sync --manager $T");
		EXPECT_SAYS(&p, "partition 1 of VM 'half', which runs, is not active");
		EXPECT_SH(&p, 0, "rm -r $R/half $R/pair $R/starts");
		put(&f, "fault", "restart");
		EXPECT_SH(&p, 0, "$G fabric sync --manager $T");
		expect_file(&f, "active", "");
	}
	place_end(&p);
	manager_end(&f);
}
