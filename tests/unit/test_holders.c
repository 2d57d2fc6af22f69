/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who has a device. The device nodes of the made functions are numbers of real ones: /dev/null (1:3), a pseudoterminal of the test's own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "gpuvm/holders.h"
#include "tests/fake/kernel.h"

static const struct fake_device machine[] = {
	{ "0000:17:00.0", 0x10de, 0x2335, 0x030200, 1, "nvidia" },	    { "0000:18:00.0", 0x10de, 0x2335, 0x030200, 2, "nvidia" },
	{ "0000:19:00.0", 0x15b3, 0x1021, 0x020000, 3, "mlx5_core" },	    { "0000:1a:00.0", 0x144d, 0xa824, 0x010802, 4, "nvme" },
	{ "0000:05:00.0", 0x10de, 0x22a3, 0x068000, 5, "nvidia-nvswitch" },
};
static const struct pci_addr gpu = { .bus = 0x17 }, gpu2 = { .bus = 0x18 }, nic = { .bus = 0x19 }, nvme = { .bus = 0x1a }, nvswitch = { .bus = 5 };

#define GPU_DIR	 "/sys/bus/pci/devices/0000:17:00.0"
#define NIC_DIR	 "/sys/bus/pci/devices/0000:19:00.0"
#define NVME_DIR "/sys/bus/pci/devices/0000:1a:00.0"

/* --- a machine ------------------------------------------------------------------------------------------------ */

static void make_parents(char *path)
{
	for (char *c = strchr(path + 1, '/'); c; c = strchr(c + 1, '/')) {
		*c = '\0';
		cr_assert(mkdir(path, 0755) == 0 || errno == EEXIST, "%s: %s", path, strerror(errno));
		*c = '/';
	}
}

static void put(const struct fake_kernel *k, const char *text, const char *fmt, ...) PRINTF(3, 4);
static void put(const struct fake_kernel *k, const char *text, const char *fmt, ...)
{
	AUTO_FREE char *tail = NULL, *path = NULL;
	va_list ap;

	va_start(ap, fmt);
	cr_assert(vasprintf(&tail, fmt, ap) > 0);
	va_end(ap);
	path = xasprintf("%s%s", k->root, tail);
	make_parents(path);
	cr_assert(write_file_atomic(path, text, strlen(text), 0644) == 0, "%s", path);
}

static void put_link(const struct fake_kernel *k, const char *target, const char *fmt, ...) PRINTF(3, 4);
static void put_link(const struct fake_kernel *k, const char *target, const char *fmt, ...)
{
	AUTO_FREE char *tail = NULL, *path = NULL;
	va_list ap;

	va_start(ap, fmt);
	cr_assert(vasprintf(&tail, fmt, ap) > 0);
	va_end(ap);
	path = xasprintf("%s%s", k->root, tail);
	make_parents(path);
	cr_assert(symlink(target, path) == 0, "%s: %s", path, strerror(errno));
}

static void setup(struct fake_kernel *k)
{
	cr_assert(fake_kernel_make(k, machine, ARRAY_SIZE(machine)) == 0);
	put(k, "", "/proc/swaps");
}

/* A made process with one open file. */
static void put_process(const struct fake_kernel *k, int pid, const char *comm, int fd, const char *target)
{
	put(k, comm, "/proc/%d/comm", pid);
	put_link(k, target, "/proc/%d/fd/%d", pid, fd);
}

/* GPU number @minor of NVIDIA's driver, whose node has the number of /dev/null. */
static void put_nvidia(const struct fake_kernel *k, const char *bdf, int minor, const char *node)
{
	AUTO_FREE char *text = xasprintf("Model: \t\t NVIDIA H200\nBus Location: \t %s\nDevice Minor: \t %d\nGPU Excluded:\t No\n", bdf, minor);

	put(k, text, "/proc/driver/nvidia/gpus/%s/information", bdf);
	put_link(k, node, "/dev/nvidia%d", minor);
}

struct found {
	struct holder *v;
	size_t n;
	int r;
	char *text;
};

static void found_clear(struct found *f)
{
	holders_free(f->v, f->n);
	free(f->text);
}

static struct found find(const struct sysfs *s, const struct pci_addr *v, size_t n)
{
	struct found f = { 0 };
	struct err e = { 0 };

	f.r = holders_find(s, v, n, &f.v, &f.n, &e);
	cr_assert(f.r >= 0, "%s", e.msg);
	f.text = f.n ? holders_text(f.v, f.n) : xstrdup(e.msg);
	return f;
}

static void expect_text(const struct fake_kernel *k, const struct pci_addr *a, const char *want)
{
	CLEANUP(found_clear) struct found f = find(&k->sys, a, 1);

	cr_expect_str_eq(f.text, want);
}

/* --- processes, made up ------------------------------------------------------------------------------------------ */

Test(holders, nobody, .timeout = 30)
{
	const struct pci_addr all[] = { gpu, gpu2, nic, nvme, nvswitch };

	for (int serial = 0; serial < 2; serial++) {
		struct fake_kernel k;
		struct found f;

		setup(&k);
		k.sys.serial = serial;
		put_process(&k, 4711, "python3", 5, "/dev/null");
		put(&k, "1:5\n", NVME_DIR "/nvme/nvme0/dev");
		f = find(&k.sys, all, ARRAY_SIZE(all));
		cr_expect(f.n == 0 && f.r == 0, "%s", f.text);
		found_clear(&f);
		f = find(&k.sys, all, 0);
		cr_expect(f.n == 0 && f.r == 0, "%s", f.text);
		found_clear(&f);
		fake_kernel_free(&k);
	}
}

Test(holders, nodes_in_sysfs, .timeout = 30)
{
	static const struct {
		const char *folder, *uevent, *want;
	} rows[] = {
		{ GPU_DIR "/drm/card1", "MAJOR=1\nMINOR=3\nDEVNAME=dri/card1\n", "/dev/dri/card1" },
		{ GPU_DIR "/infiniband_verbs/uverbs0", "DEVNAME=infiniband/uverbs0\n", "/dev/infiniband/uverbs0" },
		{ GPU_DIR "/nvme/nvme0/nvme0n1/nvme0n1p2", "DEVNAME_X=1\n", "/dev/nvme0n1p2" },
		{ GPU_DIR "/vfio-dev/vfio3", NULL, "/dev/vfio3" },
		{ "/sys/class/vfio/1", NULL, "/dev/vfio/1" }, /* the group's */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *want = xasprintf("0000:17:00.0 is in use: process 4711 (python3) has %s open", rows[i].want);
		struct fake_kernel k;

		setup(&k);
		k.sys.serial = i % 2;
		put_process(&k, 4711, "python3", 5, "/dev/null");
		put_link(&k, "/dev/null", "/proc/4711/fd/7"); /* twice is once */
		put_link(&k, "socket:[77]", "/proc/4711/fd/8");
		put_process(&k, 4712, "other", 3, "/dev/zero");
		put(&k, "1:3\n", "%s/dev", rows[i].folder);
		if (rows[i].uevent)
			put(&k, rows[i].uevent, "%s/uevent", rows[i].folder);
		expect_text(&k, &gpu, want);
		expect_text(&k, &gpu2, "");
		fake_kernel_free(&k);
	}
}

/* A block device of the same number is another device; links lead to other devices; interfaces have no nodes. */
Test(holders, what_is_not_its_node, .timeout = 30)
{
	struct fake_kernel k;

	setup(&k);
	put_process(&k, 4711, "python3", 5, "/dev/null");
	put(&k, "1:3\n", GPU_DIR "/block/x/dev");
	put_link(&k, "../../../../../class/block", GPU_DIR "/block/x/subsystem");
	put(&k, "1:3\n", "/sys/devices/other/dev");
	put_link(&k, "../../other", GPU_DIR "/consumer");
	put(&k, "1:3\n", GPU_DIR "/net/eth0/dev");
	put(&k, "1\n", GPU_DIR "/bad/dev");
	expect_text(&k, &gpu, "");
	fake_kernel_free(&k);
}

Test(holders, gpus_of_nvidia_and_their_daemons, .timeout = 30)
{
	const struct pci_addr both[] = { gpu, gpu2 };
	struct fake_kernel k;
	struct found f;

	setup(&k);
	put_nvidia(&k, "0000:17:00.0", 3, "/dev/null");
	put_nvidia(&k, "0000:18:00.0", 0, "/dev/zero");
	put_process(&k, 900, "nvidia-persiste", 4, "/dev/null");
	put_link(&k, "/dev/zero", "/proc/900/fd/5");
	/* /dev/nvidiactl, and somebody who has only that. */
	put_link(&k, "/dev/full", "/dev/nvidiactl");
	put_link(&k, "/dev/full", "/proc/900/fd/6");
	put_process(&k, 901, "nvidia-smi", 4, "/dev/full");
	f = find(&k.sys, both, 2);
	cr_expect_str_eq(f.text,
			 "0000:17:00.0 is in use: process 900 (nvidia-persiste) has /dev/nvidia3 open [nvidia-smi -i 0000:17:00.0 -pm 0, or systemctl "
			 "stop nvidia-persistenced]; 0000:18:00.0 is in use: process 900 (nvidia-persiste) has /dev/nvidia0 open "
			 "[nvidia-smi -i 0000:18:00.0 -pm 0, or systemctl stop nvidia-persistenced]");
	cr_assert(f.n == 2);
	cr_expect(f.v[0].kind == HOLDER_OPEN && f.v[0].pid == 900 && !pci_addr_cmp(&f.v[0].addr, &gpu) && !pci_addr_cmp(&f.v[1].addr, &gpu2));
	found_clear(&f);
	fake_kernel_free(&k);
}

/* Without a node in /dev its number is known all the same: containers have nodes of their own. */
Test(holders, nvidia_without_a_node_of_the_host, .timeout = 30)
{
	AUTO_FREE char *node = NULL;
	struct fake_kernel k;

	setup(&k);
	put_nvidia(&k, "0000:17:00.0", 3, "/nonexistent");
	node = xasprintf("%s/container-nvidia3", k.root);
	if (mknod(node, S_IFCHR | 0600, makedev(195, 3)) < 0)
		cr_skip("device nodes cannot be made here");
	put_process(&k, 4711, "python3", 5, node);
	expect_text(&k, &gpu, "0000:17:00.0 is in use: process 4711 (python3) has /dev/nvidia3 open");
	fake_kernel_free(&k);
}

Test(holders, nvswitches, .timeout = 30)
{
	AUTO_FREE char *control = NULL;
	struct fake_kernel k;

	setup(&k);
	/* Of the number of /dev/null: what is open is minor 3. */
	put(&k, "Character devices:\n  1 nvidia-nvswitch\n195 nvidia\n\nBlock devices:\n259 blkext\n", "/proc/devices");
	control = xasprintf("%s/dev/nvidia-nvswitchctl", k.root);
	if (mknod(control, S_IFCHR | 0600, makedev(1, 255)) == 0) {
		put_process(&k, 70, "nvidia-smi", 3, control);
		expect_text(&k, &nvswitch, "");
	}
	put_process(&k, 71, "nv-fabricmanage", 3, "/dev/null");
	expect_text(&k, &nvswitch, "0000:05:00.0 is in use: process 71 (nv-fabricmanage) has /dev/nvidia-nvswitch3 open "
				   "[systemctl stop nvidia-fabricmanager, unless VMs share the NVSwitches]");
	expect_text(&k, &gpu, "");
	fake_kernel_free(&k);
}

Test(holders, nvme_multipath, .timeout = 30)
{
	struct fake_kernel k;

	setup(&k);
	put_process(&k, 4711, "dd", 3, "/dev/null");
	put(&k, "", NVME_DIR "/nvme/nvme1/nvme0c1n1/uevent");
	put(&k, "8:1\n", "/sys/class/block/nvme0n1/dev");
	put(&k, "1\n", "/sys/class/block/nvme0n1/nvme0n1p1/partition");
	put(&k, "1:3\n", "/sys/class/block/nvme0n1/nvme0n1p1/dev");
	expect_text(&k, &nvme, "0000:1a:00.0 is in use: process 4711 (dd) has /dev/nvme0n1p1 open");
	fake_kernel_free(&k);
}

Test(holders, mapped_after_it_was_closed, .timeout = 30)
{
	struct fake_kernel k;

	setup(&k);
	put_nvidia(&k, "0000:17:00.0", 3, "/dev/null");
	put(&k, "cuda app\n", "/proc/12/comm");
	put(&k, "55d0a000-55d0b000 r-xp 00000000 fd:00 123   /usr/bin/app\n"
		"7f12a000-7f12b000 rw-s 00000000 00:05 415   /dev/nvidia3\n"
		"7f12c000-7f12d000 rw-s 00001000 00:05 415   /dev/nvidia3\n"
		"7f12e000-7f12f000 rw-p 00000000 00:00 0   [heap]\n",
	    "/proc/12/maps");
	/* As a container has it; and without the right to look there, by the path. */
	put_link(&k, "/dev/null", "/proc/12/map_files/7f12a000-7f12b000");
	expect_text(&k, &gpu, "0000:17:00.0 is in use: process 12 (cuda app) has /dev/nvidia3 mapped");
	put_link(&k, "/dev/null", "/proc/12/fd/9");
	expect_text(&k, &gpu, "0000:17:00.0 is in use: process 12 (cuda app) has /dev/nvidia3 open");
	expect_text(&k, &gpu2, "");
	fake_kernel_free(&k);
}

/* A file that has the node's name is not the node. */
Test(holders, a_mapped_file_of_that_name, .timeout = 30)
{
	struct fake_kernel k;

	setup(&k);
	put_nvidia(&k, "0000:17:00.0", 3, "/dev/null");
	put(&k, "7f12a000-7f12b000 r--p 00000000 fd:00 415   /home/x/nvidia3\n", "/proc/12/maps");
	put(&k, "", "/home/x/nvidia3");
	expect_text(&k, &gpu, "");
	fake_kernel_free(&k);
}

Test(holders, a_name_is_shown_safely, .timeout = 30)
{
	struct fake_kernel k;

	setup(&k);
	put_nvidia(&k, "0000:17:00.0", 3, "/dev/null");
	put_process(&k, 12, "a\nb\033[31m", 3, "/dev/null");
	expect_text(&k, &gpu, "0000:17:00.0 is in use: process 12 (a?b?[31m) has /dev/nvidia3 open");
	fake_kernel_free(&k);
}

Test(holders, a_message_has_an_end, .timeout = 30)
{
	static char node[] = "/dev/y";
	struct holder v[40];
	AUTO_FREE char *text = NULL;

	for (int i = 0; i < 40; i++)
		v[i] = (struct holder){ .addr = { .bus = (uint8_t)(i / 5) }, .kind = HOLDER_OPEN, .pid = i + 1, .comm = "x", .what = node };
	text = holders_text(v, 40);
	cr_expect(strstr(text, "0000:00:00.0 is in use: process 1 (x) has /dev/y open, process 2 (x) has /dev/y open, process 3 (x) has /dev/y open and 2 "
			       "more; 0000:01:00.0 is in use: process 6 "),
		  "%s", text);
	cr_expect(strstr(text, "0000:03:00.0") && !strstr(text, "0000:04:00.0") && strstr(text, "; and so are 4 more devices"), "%s", text);
	cr_expect(strlen(text) < 1000);
}

/* --- the host itself ------------------------------------------------------------------------------------------------ */

static void put_disk(const struct fake_kernel *k, const char *number)
{
	put(k, number, NVME_DIR "/nvme/nvme0/nvme0n1/nvme0n1p1/dev");
	put_link(k, "../../../../../../../class/block", NVME_DIR "/nvme/nvme0/nvme0n1/nvme0n1p1/subsystem");
}

Test(holders, what_is_mounted, .timeout = 30)
{
	struct fake_kernel k;

	setup(&k);
	put_disk(&k, "259:77\n");
	put_link(&k, "../../devices/pci0000:1a/0000:1a:00.0/nvme/nvme0/nvme0n1/nvme0n1p1", "/sys/dev/block/259:77");
	put(&k, "36 1 259:77 / /data rw - ext4 /dev/nvme0n1p1 rw\n", "/proc/self/mountinfo");
	expect_text(&k, &nvme, "0000:1a:00.0 is in use: /dev/nvme0n1p1 is mounted on /data");
	expect_text(&k, &gpu, "");
	fake_kernel_free(&k);
}

Test(holders, what_stands_on_its_disks, .timeout = 30)
{
	struct fake_kernel k;

	setup(&k);
	put_disk(&k, "259:77\n");
	put(&k, "", "/sys/class/block/nvme0n1p1/holders/md127/x");
	put(&k, "", "/sys/class/block/md127/holders/dm-0/x");
	put(&k, "vg-data\n", "/sys/class/block/dm-0/dm/name");
	expect_text(&k, &nvme, "0000:1a:00.0 is in use: nvme0n1p1 is a part of md127, and that of dm-0 (vg-data) "
			       "[vgchange -an, dmsetup remove or mdadm --stop]");
	/* A loop, which cannot be, has an end. */
	put(&k, "", "/sys/class/block/dm-0/holders/md127/x");
	{
		CLEANUP(found_clear) struct found f = find(&k.sys, &nvme, 1);

		cr_expect(f.n == 1 && strlen(f.text) < 500, "%s", f.text);
	}
	fake_kernel_free(&k);
}

Test(holders, interfaces_and_virtual_functions, .timeout = 30)
{
	struct fake_kernel k;
	struct found f;

	setup(&k);
	put(&k, "1\n", NIC_DIR "/net/eth5/carrier");
	expect_text(&k, &nic, "");
	put_link(&k, "../../../../../virtual/net/bond0", "/sys/class/net/eth5/master");
	expect_text(&k, &nic, "0000:19:00.0 is in use: network interface eth5 is a member of bond0 [ip link set eth5 nomaster]");
	put_link(&k, "../0000:19:00.1", NIC_DIR "/virtfn0");
	put_link(&k, "../0000:19:00.2", NIC_DIR "/virtfn1");
	f = find(&k.sys, &nic, 1);
	cr_assert(f.n == 2);
	cr_expect(f.v[1].kind == HOLDER_VFS && !f.v[1].pid);
	cr_expect_str_eq(f.v[1].what, "it has 2 virtual functions, which would go with it");
	cr_expect_str_eq(f.v[1].hint, "echo 0 > /sys/bus/pci/devices/0000:19:00.0/sriov_numvfs");
	found_clear(&f);
	fake_kernel_free(&k);
}

/* --- real processes ---------------------------------------------------------------------------------------------------- */

/* A child that has what the test wants it to have, until it is told to let go of it. */
struct child {
	pid_t pid;
	int tell; /* a byte: close it; the end of file: end */
	int ready;
};

static void child_run(const char *path, int flags, bool map, int tell, int ready)
{
	int fd = open(path, flags | O_NOCTTY | O_CLOEXEC);
	void *p = fd >= 0 && map ? mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
	char c = fd >= 0 && p != MAP_FAILED ? 'y' : 'n';

	if (map)
		close(fd);
	if (write(ready, &c, 1) != 1)
		_exit(1);
	while (read(tell, &c, 1) == 1) {
		close(fd);
		if (write(ready, &c, 1) != 1)
			_exit(1);
	}
	_exit(0);
}

/* False if it cannot have it here. */
static bool child_start(struct child *c, const char *path, int flags, bool map)
{
	int tell[2], ready[2];
	char answer;

	cr_assert(pipe2(tell, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0);
	c->pid = fork();
	if (c->pid == 0) {
		close(tell[1]);
		child_run(path, flags, map, tell[0], ready[1]);
	}
	close(tell[0]);
	close(ready[1]);
	c->tell = tell[1];
	c->ready = ready[0];
	cr_assert(read(c->ready, &answer, 1) == 1);
	return answer == 'y';
}

static void child_let_go(struct child *c)
{
	char answer = 'x';

	cr_assert(write(c->tell, &answer, 1) == 1 && read(c->ready, &answer, 1) == 1);
}

static void child_end(struct child *c)
{
	close(c->tell);
	close(c->ready);
	cr_assert(waitpid(c->pid, NULL, 0) == c->pid);
}

/* A machine whose processes are the real ones, and whose GPU has this pseudoterminal for a node. */
struct live {
	struct fake_kernel k;
	int master;
	char slave[64];
};

static void live_init(struct live *l)
{
	AUTO_FREE char *number = NULL;
	struct stat st;

	cr_assert(fake_kernel_make(&l->k, machine, ARRAY_SIZE(machine)) == 0);
	l->k.sys.serial = false;
	put_link(&l->k, "/proc", "/proc");
	l->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	cr_assert(l->master >= 0 && grantpt(l->master) == 0 && unlockpt(l->master) == 0);
	cr_assert(ptsname_r(l->master, l->slave, sizeof(l->slave)) == 0 && stat(l->slave, &st) == 0);
	number = xasprintf("%u:%u\n", major(st.st_rdev), minor(st.st_rdev));
	put(&l->k, number, GPU_DIR "/drm/card0/dev");
	put(&l->k, "DEVNAME=dri/card0\n", GPU_DIR "/drm/card0/uevent");
}

static void live_end(struct live *l)
{
	close(l->master);
	fake_kernel_free(&l->k);
}

Test(holders, a_real_process, .timeout = 60)
{
	struct live l;
	struct child c;
	struct found f;

	live_init(&l);
	f = find(&l.k.sys, &gpu, 1);
	cr_expect(f.n == 0, "%s", f.text);
	found_clear(&f);
	cr_assert(child_start(&c, l.slave, O_RDWR, false));
	f = find(&l.k.sys, &gpu, 1);
	cr_assert(f.n == 1 && f.v[0].pid == c.pid && f.v[0].kind == HOLDER_OPEN, "%s", f.text);
	cr_expect_str_eq(f.v[0].what, "/dev/dri/card0");
	cr_expect(strstr("unit_tests", f.v[0].comm) && *f.v[0].comm, "%s", f.v[0].comm);
	found_clear(&f);
	child_let_go(&c);
	f = find(&l.k.sys, &gpu, 1);
	cr_expect(f.n == 0, "%s", f.text);
	found_clear(&f);
	child_end(&c);
	live_end(&l);
}

/* /dev/zero keeps its name in a private mapping. Others may have it, too. */
Test(holders, a_real_mapping, .timeout = 60)
{
	struct live l;
	struct child c;
	struct found f;
	int n = 0;

	live_init(&l);
	put(&l.k, "1:5\n", "/sys/bus/pci/devices/0000:18:00.0/x/zero/dev");
	put_link(&l.k, "/dev/zero", "/dev/zero");
	cr_assert(child_start(&c, "/dev/zero", O_RDONLY, true));
	f = find(&l.k.sys, &gpu2, 1);
	for (size_t i = 0; i < f.n; i++)
		if (f.v[i].pid == c.pid) {
			cr_expect(f.v[i].kind == HOLDER_MAPPED);
			cr_expect_str_eq(f.v[i].what, "/dev/zero");
			n++;
		}
	cr_expect(n == 1, "%d: %s", n, f.text);
	found_clear(&f);
	child_end(&c);
	live_end(&l);
}

struct waiter {
	struct child c;
	int what; /* 0: nothing, 1: let go, 2: end; in the second call */
	int calls;
	size_t n;
	pid_t pid;
	int cancel;
};

static void on_progress(void *ctx, const struct holder *v, size_t n, uint64_t waited_ms)
{
	struct waiter *w = ctx;

	cr_expect(w->calls || waited_ms == 0, "%d ms at the first call", (int)waited_ms);
	w->n = n;
	w->pid = v[0].pid;
	if (++w->calls != 2)
		return;
	if (w->what == 1)
		child_let_go(&w->c);
	else if (w->what == 2)
		cr_assert(kill(w->c.pid, SIGKILL) == 0);
	else if (w->cancel >= 0)
		cr_assert(write(w->cancel, "x", 1) == 1);
}

Test(holders, waiting_until_it_is_free, .timeout = 120)
{
	for (int what = 1; what <= 2; what++) {
		struct waiter w = { .what = what, .cancel = -1 };
		struct holders_wait o = { .timeout_ms = 100000, .cancel_fd = -1, .progress = on_progress, .ctx = &w };
		struct holder *left = (struct holder *)&w;
		struct err e = { 0 };
		struct live l;
		size_t n = 99;

		live_init(&l);
		cr_assert(child_start(&w.c, l.slave, O_RDWR, false));
		cr_assert(holders_wait(&l.k.sys, &gpu, 1, &o, &left, &n, &e) == 0, "%s", e.msg);
		cr_expect(n == 0 && !left && w.calls >= 2 && w.n == 1 && w.pid == w.c.pid, "%d calls, %zu of %d", w.calls, w.n, w.pid);
		child_end(&w.c);
		live_end(&l);
	}
}

Test(holders, waiting_in_vain, .timeout = 120)
{
	struct waiter w = { .cancel = -1 };
	struct holders_wait o = { .timeout_ms = 1000, .cancel_fd = -1, .progress = on_progress, .ctx = &w };
	AUTO_FREE char *want = NULL;
	struct holder *left;
	struct err e = { 0 };
	struct live l;
	int fds[2];
	size_t n;

	live_init(&l);
	cr_assert(child_start(&w.c, l.slave, O_RDWR, false));
	want = xasprintf("0000:17:00.0 is in use: process %d (", w.c.pid);
	cr_assert(holders_wait(&l.k.sys, &gpu, 1, &o, &left, &n, &e) == -ETIMEDOUT);
	cr_expect(n == 1 && left[0].pid == w.c.pid && w.calls >= 1);
	cr_expect(strstr(e.msg, want) && strstr(e.msg, "; waited 1 s"), "%s", e.msg);
	cr_expect_str_eq(e.word, "device-busy");
	holders_free(left, n);

	/* Not at all. */
	w.calls = 0;
	o.timeout_ms = 0;
	cr_assert(holders_wait(&l.k.sys, &gpu, 1, &o, &left, &n, &e) == -ETIMEDOUT);
	cr_expect(n == 1 && w.calls == 0 && !strstr(e.msg, "waited"), "%s", e.msg);
	holders_free(left, n);

	/* Until somebody has enough of it. */
	cr_assert(pipe2(fds, O_CLOEXEC) == 0);
	w.cancel = fds[1];
	o.cancel_fd = fds[0];
	o.timeout_ms = 100000;
	cr_assert(holders_wait(&l.k.sys, &gpu, 1, &o, &left, &n, &e) == -EINTR);
	cr_expect(n == 1 && w.calls == 2 && strstr(e.msg, want), "%d: %s", w.calls, e.msg);
	holders_free(left, n);
	close(fds[0]);
	close(fds[1]);
	child_end(&w.c);
	live_end(&l);
}

/* A mount does not end by itself. */
Test(holders, the_host_is_not_waited_for, .timeout = 30)
{
	struct waiter w = { .cancel = -1 };
	struct holders_wait o = { .timeout_ms = 100000, .cancel_fd = -1, .progress = on_progress, .ctx = &w };
	struct holder *left;
	struct fake_kernel k;
	struct err e = { 0 };
	size_t n;

	setup(&k);
	put_link(&k, "../0000:19:00.1", NIC_DIR "/virtfn0");
	cr_assert(holders_wait(&k.sys, &nic, 1, &o, &left, &n, &e) == -EBUSY);
	cr_expect(n == 1 && w.calls == 0 && strstr(e.msg, "1 virtual function,"), "%s", e.msg);
	holders_free(left, n);
	fake_kernel_free(&k);
}

/* Somebody has a disk for himself, and is no process that can be seen: what ZFS looks like. */
Test(holders, a_disk_that_the_kernel_has, .timeout = 60)
{
	static const char loop[] = "/dev/loop5";
	AUTO_FREE char *number = NULL;
	struct fake_kernel k;
	struct child c;
	struct stat st;

	if (stat(loop, &st) < 0 || !S_ISBLK(st.st_mode))
		cr_skip("there is no %s", loop);
	number = xasprintf("%u:%u\n", major(st.st_rdev), minor(st.st_rdev));
	setup(&k);
	k.sys.serial = false;
	put_disk(&k, number);
	put_link(&k, loop, "/dev/nvme0n1p1");
	expect_text(&k, &nvme, "");
	if (!child_start(&c, loop, O_RDONLY | O_EXCL, false))
		cr_skip("%s cannot be opened", loop);
	expect_text(&k, &nvme, "0000:1a:00.0 is in use: the kernel has nvme0n1p1 for itself (ZFS, btrfs, a mount in a container, ...) "
			       "[lsblk -f /dev/nvme0n1p1; zpool export or umount]");
	/* A process that has it open explains it. */
	put_process(&k, c.pid, "mkfs", 3, loop);
	{
		AUTO_FREE char *want = xasprintf("0000:1a:00.0 is in use: process %d (mkfs) has /dev/nvme0n1p1 open", c.pid);

		expect_text(&k, &nvme, want);
	}
	child_end(&c);
	fake_kernel_free(&k);
}

/* Our own look at a disk is not one of its users. */
Test(holders, we_are_not_found_ourselves, .timeout = 60)
{
	static const char loop[] = "/dev/loop6";
	AUTO_FREE char *number = NULL;
	struct stat st;
	struct live l;

	if (stat(loop, &st) < 0 || !S_ISBLK(st.st_mode))
		cr_skip("there is no %s", loop);
	number = xasprintf("%u:%u\n", major(st.st_rdev), minor(st.st_rdev));
	live_init(&l);
	put_disk(&l.k, number);
	put_link(&l.k, loop, "/dev/nvme0n1p1");
	for (int i = 0; i < 20; i++) {
		CLEANUP(found_clear) struct found f = find(&l.k.sys, &nvme, 1);

		cr_expect(f.n == 0, "%s", f.text);
	}
	live_end(&l);
}

/* Without root the processes of others are closed books, and that is said. */
Test(holders, not_all_can_be_looked_at, .timeout = 60)
{
	struct live l;
	struct found f;

	if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
		cr_skip("cannot be another user");
	live_init(&l);
	f = find(&l.k.sys, &gpu, 1);
	cr_expect(f.r == 1 && f.n == 0);
	cr_expect(strstr(f.text, "not all users of the devices could be found: ") && strstr(f.text, "no permission to look at "), "%s", f.text);
	found_clear(&f);
	live_end(&l);
}
