/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/reset.h"
#include "tests/fake/kernel.h"

/* A GPU with its audio function, a GPU, a NIC that nobody has, and the host's NVMe. */
static const struct fake_device machine[] = {
	{ "0000:17:00.0", 0x10de, 0x2335, 0x030200, 1, "vfio-pci" }, { "0000:17:00.1", 0x10de, 0x22ba, 0x040300, 1, "vfio-pci" },
	{ "0000:18:00.0", 0x10de, 0x2335, 0x030200, 2, "vfio-pci" }, { "0000:19:00.0", 0x15b3, 0x1021, 0x020700, 3, NULL },
	{ "0000:1a:00.0", 0x144d, 0xa824, 0x010802, 4, "nvme" },
};
static const struct pci_addr gpu = { .bus = 0x17 }, audio = { .bus = 0x17, .fn = 1 }, other = { .bus = 0x18 }, nic = { .bus = 0x19 }, nvme = { .bus = 0x1a };

#define N 4
static const struct pci_addr all[N] = { { .bus = 0x17 }, { .bus = 0x17, .fn = 1 }, { .bus = 0x18 }, { .bus = 0x19 } };

static void setup(struct fake_kernel *k)
{
	cr_assert(fake_kernel_make(k, machine, ARRAY_SIZE(machine)) == 0);
}

static void assert_outcome(const struct reset_result *r, enum reset_outcome want, const char *text)
{
	cr_expect_str_eq(reset_outcome_word(r->outcome), reset_outcome_word(want), "%02x.%d: %s", r->addr.bus, r->addr.fn, r->err.msg);
	cr_expect((r->err.code == 0) == !text, "%02x.%d: code %d", r->addr.bus, r->addr.fn, r->err.code);
	if (text)
		cr_expect_not_null(strstr(r->err.msg, text), "'%s' is not in: %s", text, r->err.msg);
}

static bool was_reset(const struct fake_kernel *k, const char *bdf)
{
	AUTO_FREE char *path = xasprintf("/sys/bus/pci/devices/%s/reset", bdf);
	unsigned int n = atomic_load(&k->sh->writes);

	for (unsigned int i = 0; i < n; i++)
		if (!strcmp(k->sh->trace[i].path, path) && !strcmp(k->sh->trace[i].value, "1"))
			return true;
	return false;
}

Test(reset, all_come_back, .timeout = 30)
{
	for (int serial = 0; serial < 2; serial++) {
		struct reset_result ret[N];
		struct fake_kernel k;
		struct err e = { 0 };

		setup(&k);
		k.sys.serial = serial;
		cr_assert(reset_devices(&k.sys, all, N, ret, &e) == 0, "%s", e.msg);
		for (size_t i = 0; i < N; i++) {
			assert_outcome(&ret[i], RESET_DONE, NULL);
			cr_expect_str_eq(ret[i].method, "flr");
			cr_expect(was_reset(&k, machine[i].bdf), "%s", machine[i].bdf);
		}
		cr_assert(atomic_load(&k.sh->writes) == N);
		fake_kernel_free(&k);
	}
}

Test(reset, one_that_does_not_answer_any_more_is_dead, .timeout = 30)
{
	struct reset_result ret[N];
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	k.sys.serial = false;
	k.reset_kills_bdf = "0000:18:00.0";
	cr_assert(reset_devices(&k.sys, all, N, ret, &e) == -ENODEV);
	cr_expect_str_eq(e.word, "device-bad");
	cr_expect_not_null(strstr(e.msg, "reset 0000:18:00.0 (flr): it does not answer any more: its config space has vendor ffff, not 10de"), "%s", e.msg);
	assert_outcome(&ret[0], RESET_DONE, NULL);
	assert_outcome(&ret[1], RESET_DONE, NULL);
	assert_outcome(&ret[2], RESET_DEAD, "vendor ffff");
	assert_outcome(&ret[3], RESET_DONE, NULL);
	cr_expect(reset_is_bad(ret[2].outcome) && !reset_is_bad(ret[3].outcome));
	fake_kernel_free(&k);
}

/* Its neighbour in the slot waits for it, the others do not. */
Test(reset, a_stuck_one_hits_the_deadline, .timeout = 60)
{
	struct reset_result ret[N];
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	k.sys.serial = false;
	k.sys.timeout_ms = 4000; /* the others are done by then, also on a busy machine */
	k.hold_bdf = "0000:17:00.0";
	fake_kernel_hold(&k);
	cr_assert(reset_devices(&k.sys, all, N, ret, &e) == -ETIMEDOUT, "%s", e.msg);
	cr_expect_str_eq(e.word, "device-bad");
	cr_expect_not_null(strstr(e.msg, "reset 0000:17:00.0 (flr): not finished within 4000 ms: the kernel still waits for it (and 1 more)"), "%s", e.msg);
	assert_outcome(&ret[0], RESET_STUCK, "still waits");
	assert_outcome(&ret[1], RESET_FAILED, "not tried: another function of its slot");
	assert_outcome(&ret[2], RESET_DONE, NULL);
	assert_outcome(&ret[3], RESET_DONE, NULL);
	fake_kernel_free(&k);
}

Test(reset, an_error_of_the_kernel_is_no_death, .timeout = 30)
{
	struct reset_result ret[N];
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	k.reset_fails_bdf = "0000:19:00.0";
	cr_assert(reset_devices(&k.sys, all, N, ret, &e) == -EIO);
	cr_expect_null(e.word);
	assert_outcome(&ret[3], RESET_FAILED, "reset 0000:19:00.0 (flr): write '1' to '");
	assert_outcome(&ret[0], RESET_DONE, NULL);
	fake_kernel_free(&k);
}

Test(reset, the_worst_is_reported, .timeout = 30)
{
	struct reset_result ret[N];
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	k.reset_fails_bdf = "0000:17:00.0";
	k.reset_kills_bdf = "0000:19:00.0";
	cr_assert(reset_devices(&k.sys, all, N, ret, &e) == -ENODEV);
	cr_expect_not_null(strstr(e.msg, "reset 0000:19:00.0"), "%s", e.msg);
	cr_expect_not_null(strstr(e.msg, "(and 1 more)"), "%s", e.msg);
	fake_kernel_free(&k);
}

Test(reset, what_cannot_be_reset_is_looked_at_all_the_same, .timeout = 30)
{
	struct reset_result ret;
	struct fake_kernel k;
	struct err e = { 0 };
	AUTO_FREE char *config = NULL;
	char ones[64];

	setup(&k);
	cr_assert(fake_kernel_set_reset(&k, "0000:18:00.0", NULL) == 0);
	cr_assert(reset_devices(&k.sys, &other, 1, &ret, &e) == 0, "%s", e.msg);
	assert_outcome(&ret, RESET_NONE, NULL);
	cr_assert(atomic_load(&k.sh->writes) == 0);

	memset(ones, 0xff, sizeof(ones));
	config = xasprintf("%s/sys/bus/pci/devices/0000:18:00.0/config", k.root);
	cr_assert(write_file_atomic(config, ones, sizeof(ones), 0600) == 0);
	cr_assert(reset_devices(&k.sys, &other, 1, &ret, &e) == -ENODEV);
	assert_outcome(&ret, RESET_DEAD, "vendor ffff");
	fake_kernel_free(&k);
}

Test(reset, a_bus_is_not_reset_over_others, .timeout = 30)
{
	const struct pci_addr both[] = { gpu, audio };
	struct reset_result ret[2];
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	cr_assert(fake_kernel_set_reset(&k, "0000:17:00.0", "bus") == 0);
	cr_assert(reset_devices(&k.sys, &gpu, 1, ret, &e) == -EPERM);
	assert_outcome(&ret[0], RESET_REFUSED, "on which there is also 0000:17:00.1");
	cr_assert(atomic_load(&k.sh->writes) == 0);
	/* Both are the VM's. */
	cr_assert(reset_devices(&k.sys, both, 2, ret, &e) == 0, "%s", e.msg);
	assert_outcome(&ret[0], RESET_DONE, NULL);
	/* Nobody else is on that bus; or it is only the last resort; or the kernel does not say, and has its own rule. */
	cr_assert(fake_kernel_set_reset(&k, "0000:18:00.0", "bus") == 0);
	cr_assert(reset_devices(&k.sys, &other, 1, ret, &e) == 0, "%s", e.msg);
	cr_assert(fake_kernel_set_reset(&k, "0000:17:00.0", "flr bus") == 0);
	cr_assert(reset_devices(&k.sys, &gpu, 1, ret, &e) == 0, "%s", e.msg);
	cr_expect_str_eq(ret[0].method, "flr bus");
	cr_assert(fake_kernel_set_reset(&k, "0000:17:00.0", "") == 0);
	cr_assert(reset_devices(&k.sys, &gpu, 1, ret, &e) == 0, "%s", e.msg);
	cr_expect_str_eq(ret[0].method, "");
	fake_kernel_free(&k);
}

Test(reset, what_the_host_has_is_left_alone, .timeout = 30)
{
	const struct pci_addr list[] = { nvme, nic, { .bus = 0x77 } };
	struct reset_result ret[3];
	struct fake_kernel k;
	struct err e = { 0 };

	setup(&k);
	cr_assert(reset_devices(&k.sys, list, 3, ret, &e) == -EIO);
	assert_outcome(&ret[0], RESET_REFUSED, "driver 'nvme' of the host");
	assert_outcome(&ret[1], RESET_DONE, NULL);
	assert_outcome(&ret[2], RESET_FAILED, "reset 0000:77:00.0: there is no such PCI function");
	cr_assert(reset_devices(&k.sys, list, 0, ret, &e) == 0);
	fake_kernel_free(&k);
}

/* SR-IOV: vendor and device of a virtual function read all ones, also when it is well. */
Test(reset, a_virtual_function_has_no_vendor, .timeout = 30)
{
	AUTO_FREE char *config = NULL, *link = NULL;
	struct reset_result ret;
	struct fake_kernel k;
	struct err e = { 0 };
	char head[64];

	setup(&k);
	memset(head, 0, sizeof(head));
	memset(head, 0xff, 4);
	head[10] = 2;
	head[11] = 2;
	config = xasprintf("%s/sys/bus/pci/devices/0000:18:00.0/config", k.root);
	link = xasprintf("%s/sys/bus/pci/devices/0000:18:00.0/physfn", k.root);
	cr_assert(write_file_atomic(config, head, sizeof(head), 0600) == 0);
	cr_assert(reset_devices(&k.sys, &other, 1, &ret, &e) == -ENODEV);
	cr_assert(symlink("../../pci0000:17/0000:17:00.0", link) == 0);
	cr_assert(reset_devices(&k.sys, &other, 1, &ret, &e) == 0, "%s", e.msg);
	k.reset_kills_bdf = "0000:18:00.0";
	cr_assert(reset_devices(&k.sys, &other, 1, &ret, &e) == -ENODEV);
	assert_outcome(&ret, RESET_DEAD, "reads all ones");
	fake_kernel_free(&k);
}

/* A config space that says "not ready" (RRS) to the first look, nothing to the second, and the ids to the third; each look waits for what there is to see. */
static void *answer_slowly(void *arg)
{
	static const unsigned char looks[3][12] = {
		{ 0x01, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
		{ 0xde, 0x10, 0x35, 0x23, 0, 0, 0, 0, 0, 0, 2, 3 },
	};
	static int fd;

	fd = open(arg, O_WRONLY | O_CLOEXEC);
	cr_assert((size_t)write(fd, looks, sizeof(looks)) == sizeof(looks));
	return &fd; /* open until the last look: what is in a FIFO goes with its last writer and reader */
}

Test(reset, one_that_comes_back_slowly_is_waited_for, .timeout = 30)
{
	struct reset_result ret;
	struct fake_kernel k;
	struct err e = { 0 };
	AUTO_FREE char *config = NULL;
	pthread_t thread;
	void *fd;

	setup(&k);
	config = xasprintf("%s/sys/bus/pci/devices/0000:18:00.0/config", k.root);
	cr_assert(unlink(config) == 0);
	cr_assert(mkfifo(config, 0600) == 0);
	cr_assert(pthread_create(&thread, NULL, answer_slowly, config) == 0);
	cr_assert(reset_devices(&k.sys, &other, 1, &ret, &e) == 0, "%s", e.msg);
	assert_outcome(&ret, RESET_DONE, NULL);
	cr_assert(pthread_join(thread, &fd) == 0);
	close(*(int *)fd);
	fake_kernel_free(&k);
}
