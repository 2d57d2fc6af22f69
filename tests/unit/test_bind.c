/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/bind.h"
#include "gpuvm/worker.h"
#include "tests/fake/kernel.h"
#include "tests/fake/mkhost.h"

/* Two GPUs below a bridge that is in their group, a NIC whose companion nobody uses, an NVMe without a driver. */
static const struct fake_device machine[] = {
	{ "0000:00:01.0", 0x8086, 0x352a, 0x060400, 1, "pcieport" },
	{ "0000:17:00.0", 0x10de, 0x2335, 0x030200, 1, "nvidia" },
	{ "0000:18:00.0", 0x10de, 0x2335, 0x030200, 2, "nvidia" },
	{ "0000:19:00.0", 0x15b3, 0x1021, 0x020700, 3, "mlx5_core" },
	{ "0000:1a:00.0", 0x144d, 0xa824, 0x010802, 4, NULL },
	{ "0000:1b:00.0", 0x1af4, 0x1000, 0x020000, -1, "virtio-pci" },
};

#define OP(bus_, from_) { .addr = { .bus = (bus_) }, .from = (from_), .to = "vfio-pci" }
static const struct bind_op ops[] = { OP(0x17, "nvidia"), OP(0x18, "nvidia"), OP(0x19, "mlx5_core"), OP(0x1a, NULL) };
static const size_t n_ops = ARRAY_SIZE(ops);

static void setup(struct fake_kernel *k)
{
	cr_assert(zero(int, fake_kernel_make(k, machine, ARRAY_SIZE(machine))));
}

static void assert_driver(const struct fake_kernel *k, const struct bind_op *op, const char *want)
{
	AUTO_FREE char *now = bind_current_driver(&k->sys, &op->addr);

	cr_assert_str_eq(now ? now : "(none)", want ? want : "(none)", "bus %02x", op->addr.bus);
}

static void assert_same(const struct fake_kernel *k, const char *before)
{
	AUTO_FREE char *after = fake_kernel_snapshot(k);

	cr_assert_str_eq(after, before);
}

static unsigned int writes(const struct fake_kernel *k)
{
	return atomic_load(&k->sh->writes);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

Test(bind, there_and_back_leaves_no_trace, .timeout = 30)
{
	for (int serial = 0; serial < 2; serial++) {
		AUTO_FREE char *before = NULL;
		struct fake_kernel k;
		struct err e = { 0 };

		setup(&k);
		k.sys.serial = serial;
		before = fake_kernel_snapshot(&k);
		cr_assert(zero(int, bind_devices(&k.sys, ops, n_ops, &e)), "%s", e.msg);
		for (size_t i = 0; i < n_ops; i++)
			assert_driver(&k, &ops[i], "vfio-pci");
		cr_assert(sysfs_exists(&k.sys, "/dev/vfio/3"));
		cr_assert(zero(int, bind_restore(&k.sys, ops, n_ops, &e)), "%s", e.msg);
		assert_same(&k, before);
		fake_kernel_free(&k);
	}
}

Test(bind, order_of_writes, .timeout = 10)
{
	struct fake_kernel k;
	struct err e = { 0 };
	static const char *const want[][2] = {
		{ "/sys/bus/pci/devices/0000:17:00.0/driver_override", "vfio-pci" },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver/unbind", "0000:17:00.0" },
		{ "/sys/bus/pci/drivers_probe", "0000:17:00.0" },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver_override", "nvidia" },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver/unbind", "0000:17:00.0" },
		{ "/sys/bus/pci/drivers_probe", "0000:17:00.0" },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver_override", "\n" },
	};

	setup(&k);
	cr_assert(zero(int, bind_devices(&k.sys, ops, 1, &e)));
	cr_assert(zero(int, bind_restore(&k.sys, ops, 1, &e)));
	cr_assert(eq(uint, writes(&k), ARRAY_SIZE(want)));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		cr_assert_str_eq(k.sh->trace[i].path, want[i][0]);
		cr_assert_str_eq(k.sh->trace[i].value, want[i][1]);
	}
	fake_kernel_free(&k);
}

Test(bind, what_is_as_it_should_be_costs_no_write, .timeout = 10)
{
	struct fake_kernel k;
	struct err e = { 0 };
	unsigned int before;

	setup(&k);
	cr_assert(zero(int, bind_restore(&k.sys, ops, n_ops, &e)));
	cr_assert(zero(uint, writes(&k)));
	cr_assert(zero(int, bind_devices(&k.sys, ops, n_ops, &e)));
	before = writes(&k);
	cr_assert(zero(int, bind_devices(&k.sys, ops, n_ops, &e)));
	cr_assert(eq(uint, writes(&k), before));
	fake_kernel_free(&k);
}

/* One run of bind with write @nr failing; false when there was no such write. */
static bool fail_write(size_t n, bool serial, unsigned int nr, bool late, bool miss_fails)
{
	AUTO_FREE char *before = NULL;
	struct fake_kernel k;
	struct err e = { 0 };
	bool hit;
	int r;

	setup(&k);
	k.sys.serial = serial;
	k.probe_miss_fails = miss_fails;
	k.sh->fail_at = nr;
	k.sh->fail_errno = EBUSY;
	k.sh->fail_late = late;
	before = fake_kernel_snapshot(&k);
	r = bind_devices(&k.sys, ops, n, &e);
	hit = writes(&k) >= nr;
	/* A probe whose write fails after it has bound the device has done its work. */
	if (hit && !late) {
		cr_assert(eq(int, r, -EBUSY), "write %u: %s", nr, e.msg);
		cr_assert_not_null(strstr(e.msg, "bind 0000:1"), "%s", e.msg);
	} else if (!hit) {
		cr_assert(zero(int, r), "%s", e.msg);
	}
	k.sh->fail_at = 0;
	cr_assert(zero(int, bind_restore(&k.sys, ops, n, &e)), "write %u: %s", nr, e.msg);
	assert_same(&k, before);
	fake_kernel_free(&k);
	return hit;
}

Test(bind, any_failing_write_is_undone, .timeout = 120)
{
	for (int variant = 0; variant < 8; variant++) {
		size_t n = variant & 1 ? n_ops : 1;
		unsigned int nr = 1;

		while (fail_write(n, variant & 2, nr, variant & 4, false))
			nr++;
		/* Three writes a device, two for the one without a driver. */
		cr_assert(eq(uint, nr - 1, n == 1 ? 3 : 11));
	}
	for (unsigned int nr = 1; fail_write(n_ops, true, nr, false, true); nr++)
		;
}

/* Restore with write @nr failing, then again. */
static bool fail_restore_write(bool serial, unsigned int nr, bool late)
{
	AUTO_FREE char *before = NULL;
	struct fake_kernel k;
	struct err e = { 0 };
	unsigned int bound;
	bool hit;
	int r;

	setup(&k);
	k.sys.serial = serial;
	before = fake_kernel_snapshot(&k);
	cr_assert(zero(int, bind_devices(&k.sys, ops, n_ops, &e)));
	bound = writes(&k);
	k.sh->fail_at = bound + nr;
	k.sh->fail_errno = EIO;
	k.sh->fail_late = late;
	r = bind_restore(&k.sys, ops, n_ops, &e);
	hit = writes(&k) >= bound + nr;
	if (hit && !late)
		cr_assert(eq(int, r, -EIO), "write %u: %d %s", nr, r, e.msg);
	/* One device has failed; the three others have been given back all the same. */
	for (size_t i = 0, away = 0; i < n_ops; i++) {
		AUTO_FREE char *now = bind_current_driver(&k.sys, &ops[i].addr);

		away += ops[i].from ? !now || strcmp(now, ops[i].from) != 0 : now != NULL;
		cr_assert(le(sz, away, hit ? 1 : 0));
	}
	k.sh->fail_at = 0;
	cr_assert(zero(int, bind_restore(&k.sys, ops, n_ops, &e)), "write %u: %s", nr, e.msg);
	assert_same(&k, before);
	fake_kernel_free(&k);
	return hit;
}

Test(bind, a_failing_restore_can_be_repeated, .timeout = 120)
{
	for (int variant = 0; variant < 4; variant++) {
		unsigned int nr = 1;

		while (fail_restore_write(variant & 1, nr, variant & 2))
			nr++;
		cr_assert(ge(uint, nr, 14)); /* 4 + 4 + 4 + 2 writes */
	}
}

Test(bind, a_driver_that_refuses_is_named, .timeout = 30)
{
	for (int miss_fails = 0; miss_fails < 2; miss_fails++) {
		AUTO_FREE char *before = NULL;
		struct fake_kernel k;
		struct err e = { 0 };

		setup(&k);
		k.refuse_driver = "vfio-pci";
		k.probe_miss_fails = miss_fails;
		before = fake_kernel_snapshot(&k);
		cr_assert(lt(int, bind_devices(&k.sys, ops, n_ops, &e), 0));
		cr_assert_not_null(strstr(e.msg, "bind 0000:17:00.0 (vfio-pci)"), "%s", e.msg);
		k.refuse_driver = NULL;
		cr_assert(zero(int, bind_restore(&k.sys, ops, n_ops, &e)), "%s", e.msg);
		assert_same(&k, before);
		fake_kernel_free(&k);
	}
}

/* nvidia was unloaded meanwhile: the device must at least not stay with vfio-pci, nor keep an override. */
Test(bind, a_lost_driver_is_an_error_but_the_rest_is_given_back, .timeout = 30)
{
	struct fake_kernel k;
	struct err e = { 0 };
	AUTO_FREE char *override = NULL;

	setup(&k);
	cr_assert(zero(int, bind_devices(&k.sys, ops, n_ops, &e)));
	k.refuse_driver = "nvidia";
	cr_assert(eq(int, bind_restore(&k.sys, ops, n_ops, &e), -EIO));
	cr_assert_not_null(strstr(e.msg, "give back 0000:17:00.0 (nvidia)"), "%s", e.msg);
	assert_driver(&k, &ops[0], NULL);
	assert_driver(&k, &ops[2], "mlx5_core");
	override = sysfs_read(&k.sys, "/sys/bus/pci/devices/0000:17:00.0/driver_override");
	cr_assert_str_eq(override, "(null)");
	fake_kernel_free(&k);
}

Test(bind, the_old_override_comes_back, .timeout = 30)
{
	static const struct bind_op op = { .addr = { .bus = 0x17 }, .from = "nvidia", .override = "nvidia", .to = "vfio-pci" };
	static const struct bind_op none = { .addr = { .bus = 0x1a }, .override = "none-such", .to = "vfio-pci" };
	struct fake_kernel k;
	struct err e = { 0 };
	AUTO_FREE char *before = NULL;

	setup(&k);
	cr_assert(zero(int, sysfs_store(&k.sys, &e, "nvidia", "/sys/bus/pci/devices/0000:17:00.0/driver_override")));
	cr_assert(zero(int, sysfs_store(&k.sys, &e, "none-such", "/sys/bus/pci/devices/0000:1a:00.0/driver_override")));
	before = fake_kernel_snapshot(&k);
	cr_assert(zero(int, bind_devices(&k.sys, &op, 1, &e)), "%s", e.msg);
	cr_assert(zero(int, bind_devices(&k.sys, &none, 1, &e)), "%s", e.msg);
	assert_driver(&k, &none, "vfio-pci");
	cr_assert(zero(int, bind_restore(&k.sys, &op, 1, &e)), "%s", e.msg);
	cr_assert(zero(int, bind_restore(&k.sys, &none, 1, &e)), "%s", e.msg);
	assert_same(&k, before);
	fake_kernel_free(&k);
}

/* Somebody probes after every write: a device must not slip to its usual driver, nor away from it. */
Test(bind, probes_from_elsewhere_do_no_harm, .timeout = 30)
{
	AUTO_FREE char *before = NULL;
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	k.eager = true;
	before = fake_kernel_snapshot(&k);
	cr_assert(zero(int, bind_devices(&k.sys, ops, n_ops, &e)), "%s", e.msg);
	for (size_t i = 0; i < n_ops; i++)
		assert_driver(&k, &ops[i], "vfio-pci");
	cr_assert(zero(int, bind_restore(&k.sys, ops, n_ops, &e)), "%s", e.msg);
	assert_same(&k, before);
	fake_kernel_free(&k);
}

Test(bind, module_and_driver_names_are_one, .timeout = 10)
{
	static const struct bind_op op = { .addr = { .bus = 0x17 }, .from = "nvidia", .to = "vfio_pci" };
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	cr_assert(zero(int, bind_devices(&k.sys, &op, 1, &e)), "%s", e.msg);
	assert_driver(&k, &op, "vfio-pci");
	cr_assert_str_eq(k.sh->trace[0].value, "vfio-pci");
	fake_kernel_free(&k);
}

Test(bind, nothing_is_touched_if_it_cannot_work, .timeout = 10)
{
	static const struct bind_op missing[] = { OP(0x17, "nvidia"), OP(0x77, NULL) };
	static const struct bind_op no_driver = { .addr = { .bus = 0x17 }, .from = "nvidia", .to = "xe-vfio-pci" };
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	cr_assert(eq(int, bind_devices(&k.sys, missing, 2, &e), -ENODEV));
	cr_assert_not_null(strstr(e.msg, "0000:77:00.0"));
	cr_assert(eq(int, bind_devices(&k.sys, &no_driver, 1, &e), -ENOENT));
	cr_assert_not_null(strstr(e.msg, "'xe-vfio-pci' is not loaded"));
	cr_assert(zero(uint, writes(&k)));
	fake_kernel_free(&k);
}

Test(bind, a_blocked_unbind_hits_the_deadline, .timeout = 60)
{
	AUTO_FREE char *before = NULL;
	struct fake_kernel k;
	struct err e = { 0 };
	uint64_t start;

	setup(&k);
	k.sys.serial = false;
	/* Long enough for the others to be done on a machine that is busy with something else. */
	k.sys.timeout_ms = 4000;
	k.hold_bdf = "0000:18:00.0";
	before = fake_kernel_snapshot(&k);
	fake_kernel_hold(&k);

	start = now_ms();
	cr_assert(eq(int, bind_devices(&k.sys, ops, n_ops, &e), -ETIMEDOUT));
	cr_assert(ge(u64, now_ms() - start, 4000));
	cr_assert(lt(u64, now_ms() - start, 30000));
	cr_assert_not_null(strstr(e.msg, "0000:18:00.0"), "%s", e.msg);
	cr_assert_str_eq(e.word, "device-busy");
	assert_driver(&k, &ops[0], "vfio-pci");
	assert_driver(&k, &ops[1], "nvidia");

	/* It is still locked: its restore waits in vain, the others are given back. */
	cr_assert(eq(int, bind_restore(&k.sys, ops, n_ops, &e), -ETIMEDOUT));
	cr_assert_not_null(strstr(e.msg, "0000:18:00.0"), "%s", e.msg);
	assert_driver(&k, &ops[0], "nvidia");
	assert_driver(&k, &ops[2], "mlx5_core");
	assert_driver(&k, &ops[3], NULL);

	/* Its user goes: the old unbind completes, but not the rest of the killed worker. */
	fake_kernel_release(&k);
	cr_assert(zero(int, sysfs_store(&k.sys, &e, "0000:18:00.0", "/sys/bus/pci/devices/0000:18:00.0/driver/unbind")));
	cr_assert(zero(int, bind_restore(&k.sys, ops, n_ops, &e)), "%s", e.msg);
	assert_same(&k, before);
	fake_kernel_free(&k);
}

/* The model acts on a whole machine too. */
Test(bind, on_a_generated_machine, .timeout = 60)
{
	char *root = mkhost_text("host one\ncpu GenuineIntel\niommu intel\nnode 0 socket=0 cpus=0-1 memory=4G\n"
				 "kind gpu 10de:2335 030200 bars=16M,128G:p driver=nvidia\n"
				 "bus 0000:16 node=0\n  16:01.0 gpu\n  16:02.0 gpu override=nvidia\n");
	static const struct bind_op gpus[] = {
		{ .addr = { .bus = 0x16, .dev = 1 }, .from = "nvidia", .to = "vfio-pci" },
		{ .addr = { .bus = 0x16, .dev = 2 }, .from = "nvidia", .override = "nvidia", .to = "vfio-pci" },
	};
	AUTO_FREE char *before = NULL;
	struct fake_kernel k;
	struct err e = { 0 };

	cr_assert_not_null(root);
	cr_assert(zero(int, fake_kernel_attach(&k, root)));
	before = fake_kernel_snapshot(&k);
	k.sys.serial = false;
	cr_assert(zero(int, bind_devices(&k.sys, gpus, 2, &e)), "%s", e.msg);
	cr_assert(zero(int, bind_check_groups(&k.sys, gpus, 2, &e)), "%s", e.msg);
	cr_assert(zero(int, bind_restore(&k.sys, gpus, 2, &e)), "%s", e.msg);
	assert_same(&k, before);
	fake_kernel_free(&k);
	mkhost_remove(root);
}

Test(bind, groups, .timeout = 10)
{
	struct fake_kernel k;
	struct err e = { 0 };
	static const struct bind_op no_group = OP(0x1b, "virtio-pci");

	setup(&k);
	/* Not bound yet. */
	cr_assert(eq(int, bind_check_groups(&k.sys, ops, n_ops, &e), -EPERM));
	cr_assert_str_eq(e.word, "group-not-viable");
	cr_assert(zero(int, bind_devices(&k.sys, ops, n_ops, &e)));
	/* The bridge in group 1 is on pcieport, and that is fine. */
	cr_assert(zero(int, bind_check_groups(&k.sys, ops, n_ops, &e)), "%s", e.msg);
	cr_assert(eq(int, bind_check_groups(&k.sys, &no_group, 1, &e), -ENODEV));
	cr_assert_str_eq(e.word, "iommu-off");
	fake_kernel_free(&k);
}

Test(bind, the_offender_in_a_group_is_named, .timeout = 10)
{
	static const struct {
		const char *driver;
		int want;
	} rows[] = {
		{ "snd_hda_intel", -EPERM }, { "vfio-pci", 0 }, { "pci-stub", 0 }, { NULL, 0 },
		{ "mlx5_vfio_pci", 0 }, { "nvgrace-gpu-vfio-pci", 0 }, { "nvidia", -EPERM },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct fake_device devs[] = {
			{ "0000:81:00.0", 0x10de, 0x2335, 0x030200, 42, "vfio-pci" },
			{ "0000:81:00.1", 0x10de, 0x22ba, 0x040300, 42, rows[i].driver },
		};
		static const struct bind_op op = OP(0x81, "nvidia");
		struct fake_kernel k;
		struct err e = { 0 };

		cr_assert(zero(int, fake_kernel_make(&k, devs, 2)));
		cr_assert(eq(int, bind_check_groups(&k.sys, &op, 1, &e), rows[i].want));
		if (rows[i].want < 0) {
			cr_assert_not_null(strstr(e.msg, "IOMMU group 42 also has 0000:81:00.1"), "%s", e.msg);
			cr_assert_not_null(strstr(e.msg, rows[i].driver));
		}
		fake_kernel_free(&k);
	}
}

Test(bind, vfio_of_another_root_is_only_looked_at, .timeout = 10)
{
	struct fake_kernel k;
	struct sysfs empty = { .root = "/nonexistent" };
	struct err e = { 0 };

	setup(&k);
	cr_assert(zero(int, bind_load_vfio(&k.sys, &e)));
	cr_assert(zero(uint, writes(&k)));
	cr_assert(eq(int, bind_load_vfio(&empty, &e), -ENODEV));
	cr_assert_str_eq(e.word, "vfio-missing");
	fake_kernel_free(&k);
}

/* --- the model itself ------------------------------------------------------------------------------- */

Test(fake_kernel, answers_like_linux, .timeout = 10)
{
	static const struct {
		const char *path, *value;
		int want;
	} rows[] = {
		{ "/sys/bus/pci/drivers/mlx5_core/unbind", "0000:17:00.0", -ENODEV },
		{ "/sys/bus/pci/drivers/nvidia/unbind", "0000:99:00.0", -ENODEV },
		{ "/sys/bus/pci/drivers/none/unbind", "0000:17:00.0", -ENOENT },
		{ "/sys/bus/pci/drivers_probe", "0000:99:00.0", -ENODEV },
		{ "/sys/bus/pci/drivers_probe", "0000:17:00.0", 0 },
		{ "/sys/bus/pci/drivers/nvidia/bind", "0000:17:00.0", -EBUSY },
		{ "/sys/bus/pci/drivers/vfio-pci/bind", "0000:17:00.0", -ENODEV },
		{ "/sys/bus/pci/drivers/nvidia/unbind", "0000:17:00.0\n", 0 },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver/unbind", "0000:17:00.0", -ENOENT },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver_override", "none-such", 0 },
		{ "/sys/bus/pci/drivers_probe", "0000:17:00.0", 0 }, /* and nothing comes of it */
		{ "/sys/bus/pci/drivers/nvidia/bind", "0000:17:00.0", -ENODEV },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver_override", "", 0 }, /* never reaches the kernel */
		{ "/sys/bus/pci/drivers/nvidia/bind", "0000:17:00.0", -ENODEV },
		{ "/sys/bus/pci/devices/0000:17:00.0/driver_override", "\n", 0 },
		{ "/sys/bus/pci/drivers_probe", "0000:17:00.0", 0 },
	};
	AUTO_FREE char *before = NULL;
	struct fake_kernel k;

	setup(&k);
	before = fake_kernel_snapshot(&k);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *path = xasprintf("%s%s", k.root, rows[i].path);

		cr_assert(eq(int, k.sys.write(k.sys.ctx, path, rows[i].value), rows[i].want), "row %zu", i);
	}
	assert_same(&k, before);
	fake_kernel_free(&k);
}

/* --- sysfs -------------------------------------------------------------------------------------------- */

Test(sysfs, reads_below_the_root, .timeout = 10)
{
	struct fake_kernel k;
	struct strv names = { 0 };
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *link = NULL;

	setup(&k);
	text = sysfs_read(&k.sys, "/sys/bus/pci/devices/%s/class", "0000:17:00.0");
	cr_assert_str_eq(text, "0x030200");
	link = sysfs_link_name(&k.sys, "/sys/bus/pci/devices/%s/driver", "0000:17:00.0");
	cr_assert_str_eq(link, "nvidia");
	cr_assert(zero(ptr, sysfs_read(&k.sys, "/sys/none")));
	cr_assert(zero(ptr, sysfs_link_name(&k.sys, "/sys/bus")));
	cr_assert(zero(int, sysfs_list(&k.sys, &names, "/sys/bus/pci/devices")));
	cr_assert(eq(sz, names.n, ARRAY_SIZE(machine)));
	for (size_t i = 0; i < names.n; i++)
		cr_assert_str_eq(names.v[i], machine[i].bdf);
	strv_clear(&names);
	cr_assert(eq(int, sysfs_list(&k.sys, &names, "/sys/none"), -ENOENT));
	cr_assert(eq(int, sysfs_list(&k.sys, &names, "/sys/bus/pci/drivers_probe"), -ENOTDIR));
	cr_assert(zero(sz, names.n));
	cr_assert(sysfs_exists(&k.sys, "/sys/bus/pci"));
	cr_assert(not(sysfs_exists(&k.sys, "/sys/bus/usb")));
	fake_kernel_free(&k);
}

Test(sysfs, an_error_names_value_and_path, .timeout = 10)
{
	struct sysfs s = { .root = "/nonexistent", .write = sysfs_write_file };
	char deep[5000];
	struct err e = { 0 };

	cr_assert(eq(int, sysfs_store(&s, &e, "\n", "/sys/%s", "x"), -ENOENT));
	cr_assert_str_eq(e.msg, "write '\\n' to '/nonexistent/sys/x': No such file or directory");
	memset(deep, 'x', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	cr_assert(eq(int, sysfs_store(&s, &e, "1", "/%s", deep), -ENAMETOOLONG));
	cr_assert(zero(ptr, sysfs_read(&s, "/%s", deep)));
	cr_assert(not(sysfs_exists(&s, "/%s", deep)));
}

/* --- workers -------------------------------------------------------------------------------------------- */

static int job_ok(const void *arg, struct err *e)
{
	(void)arg, (void)e;
	return 0;
}

static int job_fails(const void *arg, struct err *e)
{
	e->word = "device-busy";
	snprintf(e->msg, sizeof(e->msg), "job %s", (const char *)arg);
	return -EBUSY;
}

static int job_dies(const void *arg, struct err *e)
{
	(void)arg, (void)e;
	_exit(3);
}

/* A lock that a stuck worker still had open would stay locked. */
static int job_looks_at_fd(const void *arg, struct err *e)
{
	(void)e;
	return fcntl(*(const int *)arg, F_GETFD) < 0 ? 0 : -EBUSY;
}

static int job_hangs(const void *arg, struct err *e)
{
	(void)arg, (void)e;
	for (;;)
		pause();
	return 0;
}

Test(workers, each_reports_for_itself, .timeout = 30)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct worker_job jobs[] = { { .run = job_hangs }, { .run = job_fails, .arg = "two" }, { .run = job_dies },
				     { .run = job_ok }, { .run = job_looks_at_fd, .arg = &fd } };
	uint64_t start = now_ms();

	workers_run(jobs, ARRAY_SIZE(jobs), 200);
	cr_assert(eq(int, jobs[0].err.code, -ETIMEDOUT));
	cr_assert(eq(int, jobs[1].err.code, -EBUSY));
	cr_assert_str_eq(jobs[1].err.word, "device-busy");
	cr_assert_str_eq(jobs[1].err.msg, "job two");
	cr_assert(eq(int, jobs[2].err.code, -EIO));
	cr_assert_not_null(strstr(jobs[2].err.msg, "exit code 3"), "%s", jobs[2].err.msg);
	cr_assert(zero(int, jobs[3].err.code));
	cr_assert(zero(int, jobs[4].err.code));
	close(fd);
	cr_assert(ge(u64, now_ms() - start, 200));
	/* The one that hung can write nothing any more: it is dead, and reaped like the others. */
	cr_assert(eq(int, waitpid(-1, NULL, WNOHANG), -1));
	cr_assert(eq(int, errno, ECHILD));
	workers_run(NULL, 0, 1000);
}
