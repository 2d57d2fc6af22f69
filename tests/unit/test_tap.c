/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Taps in the kernel itself: each test is a process of its own, and takes a network namespace of its own. As root only. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gpuvm/parse.h"
#include "gpuvm/probe.h"
#include "gpuvm/tap.h"

#define QEMU    "/usr/bin/qemu-system-x86_64"
#define WAIT_MS 20000
#define VNET    10 /* bytes of struct virtio_net_hdr before each frame */

/* --- a network of our own --------------------------------------------------------------------------------------- */

/* The node of the kernel's tun driver, where a container has none. */
static void make_node(void)
{
	if (access("/dev/net/tun", F_OK) == 0)
		return;
	if ((mkdir("/dev/net", 0755) < 0 && errno != EEXIST) || mknod("/dev/net/tun", S_IFCHR | 0600, makedev(10, 200)) < 0)
		cr_skip("there is no /dev/net/tun here, and it cannot be made");
}

static void own_network(void)
{
	int fd;

	if (geteuid() != 0)
		cr_skip("needs root");
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		cr_skip("no network namespace can be made here");
	/* sysfs shows the network of whoever mounted it. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
		cr_skip("sysfs cannot be mounted here");
	make_node();
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		cr_skip("/dev/net/tun cannot be opened here");
	close(fd);
}

static int control(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	cr_assert(ge(int, fd, 0));
	return fd;
}

static void set_up(const char *name, int mtu)
{
	AUTO_CLOSE int fd = control();
	struct ifreq ifr = { 0 };

	strcpy(ifr.ifr_name, name);
	ifr.ifr_mtu = mtu;
	cr_assert(zero(int, mtu ? ioctl(fd, SIOCSIFMTU, &ifr) : 0));
	ifr.ifr_flags = IFF_UP;
	cr_assert(zero(int, ioctl(fd, SIOCSIFFLAGS, &ifr)));
}

static void add_bridge(const char *name, int mtu)
{
	AUTO_CLOSE int fd = control();

	if (ioctl(fd, SIOCBRADDBR, name) < 0)
		cr_skip("this kernel has no bridges");
	set_up(name, mtu);
}

/* As `ip tuntap add` makes one. */
static void add_tap(const char *name, bool multi_queue)
{
	AUTO_CLOSE int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	struct ifreq ifr = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (multi_queue ? IFF_MULTI_QUEUE : 0)) };

	strcpy(ifr.ifr_name, name);
	cr_assert(zero(int, ioctl(fd, TUNSETIFF, &ifr)));
	cr_assert(zero(int, ioctl(fd, TUNSETPERSIST, 1)));
}

static bool there(const char *name)
{
	return if_nametoindex(name) != 0;
}

static void assert_file(const char *want, const char *fmt, ...) PRINTF(2, 3);
static void assert_file(const char *want, const char *fmt, ...)
{
	AUTO_FREE char *path = NULL, *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	cr_assert(gt(int, vasprintf(&path, fmt, ap), 0));
	va_end(ap);
	cr_assert(zero(int, read_text_file(path, 4096, &text)), "%s", path);
	cr_assert_str_eq(text, want, "%s is '%s'", path, text);
}

static int count_queues(const char *name)
{
	AUTO_FREE char *path = xasprintf("/sys/class/net/%s/queues", name);
	AUTO_CLOSEDIR DIR *dir = opendir(path);
	struct dirent *d;
	int n = 0;

	while (dir && (d = readdir(dir)))
		n += strncmp(d->d_name, "rx-", 3) == 0;
	return n;
}

static void open_ok(const struct plan_tap *t, struct plan_tap_fds *fds)
{
	struct err e = { 0 };

	cr_assert(zero(int, tap_open(t, fds, &e)), "%s", e.msg);
}

static void open_fails(const struct plan_tap *t, int code, const char *why, const char *cure)
{
	struct plan_tap_fds fds = { .queues = 99 };
	struct err e = { 0 };

	cr_assert(eq(int, tap_open(t, &fds, &e), code), "%s", e.msg);
	cr_assert_not_null(strstr(e.msg, t->ifname), "%s", e.msg);
	cr_assert_not_null(strstr(e.msg, why), "%s", e.msg);
	cr_assert_not_null(strstr(e.msg, cure), "%s", e.msg);
	cr_assert(eq(int, fds.queues, 99), "the result was touched");
}

static char tap0[] = "tap0", br0[] = "br0", tap_mac[] = "fe:54:00:12:34:56";

/* --- one that is made -------------------------------------------------------------------------------------------------- */

Test(tap, is_made_and_goes, .timeout = 60)
{
	struct plan_tap t = { .ifname = tap0, .bridge = br0, .mac = tap_mac, .queues = 4, .mtu = 9000 };
	CLEANUP(topology_clear) struct topology host = { 0 };
	const struct host_net *n;
	struct plan_tap_fds fds;
	struct err e = { 0 };

	own_network();
	add_bridge(br0, 9000);
	open_ok(&t, &fds);
	cr_assert(eq(int, fds.queues, 4));
	cr_assert(zero(ptr, fds.vhost));
	/* IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR; not IFF_PERSIST */
	assert_file("0x5102", "/sys/class/net/%s/tun_flags", tap0);
	assert_file("9000", "/sys/class/net/%s/mtu", tap0);
	assert_file(tap_mac, "/sys/class/net/%s/address", tap0);
	assert_file("1", "/sys/class/net/%s/carrier", tap0);
	/* The bridge's MTU is that of its smallest member. */
	assert_file("9000", "/sys/class/net/%s/mtu", br0);
	cr_assert(eq(int, count_queues(tap0), 4));
	cr_assert(zero(int, access("/sys/class/net/br0/brif/tap0", F_OK)));
	for (int i = 0; i < 4; i++)
		cr_assert(fcntl(fds.tap[i], F_GETFD) & FD_CLOEXEC);

	/* As the planner sees it. */
	cr_assert(zero(int, probe_host("", &host, &e)), "%s", e.msg);
	n = topology_find_net(&host, tap0);
	cr_assert(host.nets_known && n && n->kind == HOST_NET_TAP && n->multi_queue && n->in_use && n->up && !n->persistent);
	cr_assert_str_eq(n->master, br0);
	cr_assert(eq(int, n->mtu, 9000));
	n = topology_find_net(&host, br0);
	cr_assert(n && n->kind == HOST_NET_BRIDGE);

	tap_close(&fds);
	cr_assert(not(there(tap0)));
	cr_assert(there(br0));
}

Test(tap, with_one_queue, .timeout = 60)
{
	struct plan_tap t = { .ifname = tap0, .mac = tap_mac, .queues = 1 };
	struct plan_tap_fds fds;

	own_network();
	open_ok(&t, &fds);
	assert_file("0x5002", "/sys/class/net/%s/tun_flags", tap0);
	assert_file("1500", "/sys/class/net/%s/mtu", tap0);
	tap_close(&fds);
	cr_assert(not(there(tap0)));
}

/* The planner counts on 256, and no more. */
Test(tap, has_256_queues, .timeout = 60)
{
	struct plan_tap t = { .ifname = tap0, .queues = 256 };
	struct rlimit lim = { .rlim_cur = 600, .rlim_max = 600 };
	struct plan_tap_fds fds;

	own_network();
	cr_assert(zero(int, setrlimit(RLIMIT_NOFILE, &lim)));
	open_ok(&t, &fds);
	cr_assert(eq(int, count_queues(tap0), 256));
	tap_close(&fds);
	t.queues = 257;
	open_fails(&t, -E2BIG, "257 queues", "more than it can have");
	cr_assert(not(there(tap0)));

	lim.rlim_cur = 100;
	cr_assert(zero(int, setrlimit(RLIMIT_NOFILE, &lim)));
	t.queues = 128;
	open_fails(&t, -EMFILE, "too many open files", "ulimit -n");
	cr_assert(not(there(tap0)));
}

/* Whoever is killed: the interface goes with its last open file. */
Test(tap, goes_with_a_process_that_is_killed, .timeout = 60)
{
	struct plan_tap t = { .ifname = tap0, .bridge = br0, .queues = 2 };
	int ready[2], status;
	char c = 0;
	pid_t pid;

	own_network();
	add_bridge(br0, 0);
	cr_assert(zero(int, pipe(ready)));
	pid = fork();
	if (pid == 0) {
		struct plan_tap_fds fds;
		struct err e;

		c = tap_open(&t, &fds, &e) == 0 ? 'y' : 'n';
		if (write(ready[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	cr_assert(eq(int, (int)read(ready[0], &c, 1), 1));
	cr_assert(eq(int, c, 'y'));
	cr_assert(there(tap0));
	cr_assert(zero(int, kill(pid, SIGKILL)));
	cr_assert(eq(int, waitpid(pid, &status, 0), pid));
	cr_assert(eq(int, WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGKILL));
	cr_assert(not(there(tap0)));
}

/* --- packets -------------------------------------------------------------------------------------------------------------- */

/* Our frame is recognised by an experimental protocol number; the kernel sends some of its own (IPv6). */
#define FRAME 64
static void send_frame(int fd, unsigned char mark)
{
	unsigned char b[VNET + FRAME] = { 0 };

	memset(b + VNET, 0xff, 6);
	memcpy(b + VNET + 6, "\x52\x54\x00\x00\x00\x01\x88\xb5", 8);
	b[VNET + 14] = mark;
	cr_assert(eq(int, (int)write(fd, b, sizeof(b)), (int)sizeof(b)));
}

/* Did the frame with @mark arrive on any of the queues? */
static bool receive_frame(const struct plan_tap_fds *f, unsigned char mark)
{
	struct pollfd p[8];
	unsigned char b[2048];

	for (int i = 0; i < f->queues; i++)
		p[i] = (struct pollfd){ .fd = f->tap[i], .events = POLLIN };
	while (poll(p, (nfds_t)f->queues, WAIT_MS) > 0) {
		for (int i = 0; i < f->queues; i++)
			if (p[i].revents & POLLIN && read(f->tap[i], b, sizeof(b)) == VNET + FRAME && b[VNET + 12] == 0x88 &&
			    b[VNET + 13] == 0xb5 && b[VNET + 14] == mark)
				return true;
	}
	return false;
}

Test(tap, packets_cross_the_bridge, .timeout = 90)
{
	char tap1[] = "tap1", mac1[] = "fe:54:00:00:00:02";
	struct plan_tap a = { .ifname = tap0, .bridge = br0, .mac = tap_mac, .queues = 3 },
			b = { .ifname = tap1, .bridge = br0, .mac = mac1, .queues = 2 };
	struct plan_tap_fds fa, fb;

	own_network();
	add_bridge(br0, 0);
	open_ok(&a, &fa);
	open_ok(&b, &fb);
	for (int q = 0; q < 3; q++) {
		send_frame(fa.tap[q], (unsigned char)(q + 1));
		cr_assert(receive_frame(&fb, (unsigned char)(q + 1)), "queue %d", q);
	}
	send_frame(fb.tap[1], 9);
	cr_assert(receive_frame(&fa, 9));
	tap_close(&fa);
	tap_close(&fb);
}

/* --- one that is there ------------------------------------------------------------------------------------------------------ */

Test(tap, an_existing_one_is_left_as_it_is, .timeout = 60)
{
	char other[] = "own-tap";
	/* What the planner gives for one that exists; bridge and MTU must have no effect. */
	struct plan_tap t = { .ifname = other, .exists = true, .queues = 3, .mtu = 9000, .bridge = br0 };
	AUTO_FREE char *before = NULL, *after = NULL;
	struct plan_tap_fds fds;

	own_network();
	add_bridge(br0, 0);
	add_tap(other, true);
	set_up(other, 1400);
	cr_assert(zero(int, read_text_file("/sys/class/net/own-tap/address", 64, &before)));
	open_ok(&t, &fds);
	cr_assert(eq(int, count_queues(other), 3));
	assert_file("1400", "/sys/class/net/%s/mtu", other);
	cr_assert(lt(int, access("/sys/class/net/own-tap/master", F_OK), 0));
	tap_close(&fds);
	cr_assert(there(other));
	cr_assert(zero(int, read_text_file("/sys/class/net/own-tap/address", 64, &after)));
	cr_assert_str_eq(before, after);

	/* One queue of a tap that was made for several. */
	t.queues = 1;
	open_ok(&t, &fds);
	assert_file("0x5902", "/sys/class/net/%s/tun_flags", other);
	tap_close(&fds);
	cr_assert(there(other));
}

Test(tap, an_existing_one_that_cannot_be_had, .timeout = 60)
{
	struct plan_tap t = { .ifname = tap0, .exists = true, .queues = 2 }, made = { .ifname = tap0, .queues = 2 };
	struct plan_tap_fds fds;

	own_network();
	open_fails(&t, -ENODEV, "gone", "since the plan");
	add_tap(tap0, false);
	open_fails(&t, -EINVAL, "not a tap with multi_queue", "ip tuntap add dev tap0 mode tap multi_queue");
	t.queues = 1;
	open_ok(&t, &fds);
	open_fails(&t, -EBUSY, "another process has it", "tap0");
	tap_close(&fds);
	cr_assert(there(tap0));
	/* One that came after the plan was made is somebody else's, although it could be attached to. */
	open_fails(&made, -EBUSY, "meanwhile", "another ifname");
	t.ifname = (char *)"lo";
	open_fails(&t, -EINVAL, "not a tap", "ip tuntap add dev lo mode tap");
}

Test(tap, a_bridge_that_cannot_be_joined, .timeout = 60)
{
	char lo[] = "lo";
	struct plan_tap t = { .ifname = tap0, .bridge = br0, .queues = 2 };

	own_network();
	open_fails(&t, -ENODEV, "no bridge 'br0'", "ip link add br0 type bridge");
	t.bridge = lo;
	open_fails(&t, -EOPNOTSUPP, "'lo'", "not a bridge");
	cr_assert(not(there(tap0)));
}

Test(tap, without_the_right, .timeout = 60)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	struct plan_tap t = { .ifname = tap0, .queues = 2 };

	own_network();
	cr_assert(zero(int, (int)syscall(SYS_capget, &head, caps)));
	caps[0].effective &= ~(1u << CAP_NET_ADMIN);
	cr_assert(zero(int, (int)syscall(SYS_capset, &head, caps)));
	open_fails(&t, -EPERM, "CAP_NET_ADMIN", "ip tuntap add dev tap0 mode tap multi_queue user");
}

/* --- vhost -------------------------------------------------------------------------------------------------------------------- */

Test(tap, vhost, .timeout = 60)
{
	struct plan_tap t = { .ifname = tap0, .queues = 2, .vhost = true };
	struct plan_tap_fds fds;
	struct err e = { 0 };
	int r;

	own_network();
	r = tap_open(&t, &fds, &e);
	if (r == 0) {
		cr_assert(fds.vhost[0] >= 0 && fds.vhost[1] >= 0 && fds.vhost[0] != fds.vhost[1]);
		tap_close(&fds);
	} else {
		/* A kernel that has no vhost_net to load: the planner would not have asked. */
		cr_assert_not_null(strstr(e.msg, "/dev/vhost-net"), "%s", e.msg);
		cr_assert_not_null(strstr(e.msg, "vhost = off"), "%s", e.msg);
	}
	cr_assert(not(there(tap0)));
}

/* --- QEMU -------------------------------------------------------------------------------------------------------------------- */

static void add_argv(struct strv *argv, const char *netdev)
{
	static const char *const args[] = { QEMU,
					    "-nodefaults",
					    "-no-user-config",
					    "-display",
					    "none",
					    "-machine",
					    "q35,accel=tcg",
					    "-S",
					    "-monitor",
					    "stdio",
					    "-sandbox",
					    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
					    "-device",
					    "virtio-net-pci,netdev=n,mq=on,vectors=10,romfile=",
					    "-netdev" };

	for (size_t i = 0; i < ARRAY_SIZE(args); i++)
		strv_push(argv, args[i]);
	strv_push(argv, netdev);
}

/* Run QEMU until it has made its devices and reads "quit"; its exit status. */
static int run_qemu(const char *netdev, const struct plan_tap_fds *fds)
{
	CLEANUP(strv_clear) struct strv argv = { 0 };
	int in[2], status = -1;
	pid_t pid;

	add_argv(&argv, netdev);
	cr_assert(zero(int, pipe(in)));
	cr_assert(eq(int, (int)write(in[1], "quit\n", 5), 5));
	pid = fork();
	if (pid == 0) {
		for (int i = 0; fds && i < fds->queues; i++)
			fcntl(fds->tap[i], F_SETFD, 0);
		dup2(in[0], 0);
		dup2(open("/dev/null", O_WRONLY), 1);
		close(in[1]);
		execv(QEMU, argv.v);
		_exit(127);
	}
	close(in[0]);
	close(in[1]);
	cr_assert(eq(int, waitpid(pid, &status, 0), pid));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Both forms of the option: with fds, as the launcher has it, and with the name, as it is printed. */
Test(tap, qemu_takes_both_forms, .timeout = 120)
{
	struct plan_tap t = { .ifname = tap0, .queues = 4 };
	AUTO_FREE char *netdev = NULL;
	struct plan_tap_fds fds;

	if (access(QEMU, X_OK) < 0)
		cr_skip("there is no " QEMU);
	own_network();
	open_ok(&t, &fds);
	netdev = xasprintf("tap,id=n,fds=%d:%d:%d:%d,vhost=off", fds.tap[0], fds.tap[1], fds.tap[2], fds.tap[3]);
	cr_assert(zero(int, run_qemu(netdev, &fds)));
	tap_close(&fds);
	cr_assert(not(there(tap0)));

	/* What the lines before the printed command do. */
	add_tap(tap0, true);
	set_up(tap0, 0);
	cr_assert(zero(int, run_qemu("tap,id=n,ifname=tap0,script=no,downscript=no,vhost=off,queues=4", NULL)));
	cr_assert(there(tap0));
	/* And why a tap must have been made with multi_queue. */
	add_tap("tap1", false);
	cr_assert(ne(int, run_qemu("tap,id=n,ifname=tap1,script=no,downscript=no,vhost=off,queues=4", NULL), 0));
}
