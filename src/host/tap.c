/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/if_tun.h>
#include <linux/sockios.h>

#include "gpuvm/module.h"
#include "gpuvm/tap.h"

#define TUN   "/dev/net/tun"
#define VHOST "/dev/vhost-net"

static int *no_fds(int n)
{
	int *v = xcalloc((size_t)n, sizeof(*v));

	for (int i = 0; i < n; i++)
		v[i] = -1;
	return v;
}

static void close_fds(int *fds, int n)
{
	for (int i = 0; fds && i < n; i++)
		close_cleanup(&fds[i]);
	free(fds);
}

void tap_close(struct plan_tap_fds *fds)
{
	close_fds(fds->tap, fds->queues);
	close_fds(fds->vhost, fds->queues);
	*fds = (struct plan_tap_fds){ 0 };
}

/* A system without udev has no node before the module is there. */
static int open_node(const char *path, const char *module, struct err *e)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), r;

	if (fd < 0 && (errno == ENOENT || errno == ENODEV)) {
		r = module_load(module, e);
		if (r < 0)
			return err_wrap(e, "there is no %s; `modprobe %s` would make it", path, module);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (fd >= 0)
		return fd;
	r = -errno;
	if (r == -EMFILE)
		return err_set(e, r,
			       "open '%s': too many open files; each queue pair is one or two: raise the limit (ulimit -n, LimitNOFILE=)",
			       path);
	return err_sys(e, r, "open '%s'", path);
}

static void set_name(struct ifreq *ifr, const char *name)
{
	*ifr = (struct ifreq){ 0 };
	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", name);
}

static int attach_error(const struct plan_tap *t, int code, struct err *e)
{
	const char *multi = t->queues > 1 ? " multi_queue" : "";

	switch (code) {
	case -EPERM:
		if (t->exists)
			return err_set(e, code, "it belongs to another user or group: run as that one, or as root");
		return err_set(e, code,
			       "making it needs CAP_NET_ADMIN: run as root, or use type = tap and one that was made with "
			       "`ip tuntap add dev %s mode tap%s user NAME`",
			       t->ifname, multi);
	case -EINVAL:
		return err_set(e, code, "it is there already, and is not a tap%s%s; `ip tuntap add dev %s mode tap%s` makes one that is",
			       *multi ? " with" : "", multi, t->ifname, multi);
	case -EBUSY:
		return err_set(e, code,
			       t->exists ? "another process has it" : "it came into being meanwhile; start again, or set another ifname");
	case -E2BIG:
		return err_set(e, code, "%d queues are more than it can have beside those that other processes have", t->queues);
	default:
		return err_sys(e, code, "TUNSETIFF");
	}
}

/* Attach @fd as queue @i. */
static int attach(const struct plan_tap *t, int fd, int i, struct err *e)
{
	const int base = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, multi = t->queues > 1 ? IFF_MULTI_QUEUE : 0;
	/* Never by chance the interface of somebody else: one that is to be made must not be there. */
	const int exclusive = i == 0 && !t->exists ? IFF_TUN_EXCL : 0;
	struct ifreq ifr;
	int r;

	set_name(&ifr, t->ifname);
	ifr.ifr_flags = (short)(base | multi | exclusive);
	r = ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : 0;
	if (r == -EINVAL && t->exists && !multi) {
		/* The flag must be as the device was made, also for one queue. */
		set_name(&ifr, t->ifname);
		ifr.ifr_flags = base | IFF_MULTI_QUEUE;
		r = ioctl(fd, TUNSETIFF, &ifr) < 0 ? -errno : 0;
	}
	return r < 0 ? attach_error(t, r, e) : 0;
}

static int open_queues(const struct plan_tap *t, struct plan_tap_fds *f, struct err *e)
{
	/* TUNSETIFF would make one of that name. */
	if (t->exists && !if_nametoindex(t->ifname))
		return err_set(e, -ENODEV, "it is gone since the plan was made");
	for (int i = 0; i < f->queues; i++) {
		int r = f->tap[i] = open_node(TUN, "tun", e);

		if (r >= 0)
			r = attach(t, f->tap[i], i, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int open_vhosts(const struct plan_tap *t, struct plan_tap_fds *f, struct err *e)
{
	if (!t->vhost)
		return 0;
	f->vhost = no_fds(f->queues);
	for (int i = 0; i < f->queues; i++) {
		f->vhost[i] = open_node(VHOST, "vhost_net", e);
		if (f->vhost[i] < 0)
			return err_wrap(e, "set vhost = off to do without it");
	}
	return 0;
}

/* --- the interface of ours ------------------------------------------------------------------------------------ */

static int set_address(int sock, const struct plan_tap *t, struct err *e)
{
	struct ifreq ifr;
	unsigned char *a = (unsigned char *)ifr.ifr_hwaddr.sa_data;

	if (!t->mac)
		return 0;
	set_name(&ifr, t->ifname);
	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	if (sscanf(t->mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &a[0], &a[1], &a[2], &a[3], &a[4], &a[5]) != 6)
		return err_set(e, -EINVAL, "'%s' is not a MAC address", t->mac);
	return ioctl(sock, SIOCSIFHWADDR, &ifr) < 0 ? err_sys(e, -errno, "set its address to %s", t->mac) : 0;
}

static int set_mtu(int sock, const struct plan_tap *t, struct err *e)
{
	struct ifreq ifr;

	if (!t->mtu)
		return 0;
	set_name(&ifr, t->ifname);
	ifr.ifr_mtu = t->mtu;
	return ioctl(sock, SIOCSIFMTU, &ifr) < 0 ? err_sys(e, -errno, "set its MTU to %d", t->mtu) : 0;
}

static int join_bridge(int sock, const struct plan_tap *t, struct err *e)
{
	struct ifreq ifr;
	int r;

	if (!t->bridge)
		return 0;
	set_name(&ifr, t->bridge);
	ifr.ifr_ifindex = (int)if_nametoindex(t->ifname);
	if (ioctl(sock, SIOCBRADDIF, &ifr) == 0)
		return 0;
	r = -errno;
	if (r == -ENODEV)
		return err_set(e, r, "there is no bridge '%s'; `ip link add %s type bridge` makes one", t->bridge, t->bridge);
	if (r == -EOPNOTSUPP)
		return err_set(e, r, "'%s' is not a bridge", t->bridge);
	return err_sys(e, r, "add it to the bridge '%s'", t->bridge);
}

static int bring_up(int sock, const struct plan_tap *t, struct err *e)
{
	struct ifreq ifr;

	set_name(&ifr, t->ifname);
	if (ioctl(sock, SIOCGIFFLAGS, &ifr) < 0)
		return err_sys(e, -errno, "read its flags");
	ifr.ifr_flags |= IFF_UP;
	return ioctl(sock, SIOCSIFFLAGS, &ifr) < 0 ? err_sys(e, -errno, "bring it up") : 0;
}

/* The MTU before the bridge, which takes the smallest one of its members. */
static int configure(const struct plan_tap *t, struct err *e)
{
	AUTO_CLOSE int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = sock < 0 ? err_sys(e, -errno, "open a socket") : 0;

	if (r == 0)
		r = set_address(sock, t, e);
	if (r == 0)
		r = set_mtu(sock, t, e);
	if (r == 0)
		r = join_bridge(sock, t, e);
	return r == 0 ? bring_up(sock, t, e) : r;
}

int tap_open(const struct plan_tap *t, struct plan_tap_fds *ret, struct err *e)
{
	struct plan_tap_fds f = { .tap = no_fds(t->queues), .queues = t->queues };
	int r = open_queues(t, &f, e);

	if (r == 0 && !t->exists)
		r = configure(t, e);
	if (r == 0)
		r = open_vhosts(t, &f, e);
	if (r < 0) {
		tap_close(&f);
		return err_wrap(e, "tap '%s'", t->ifname);
	}
	*ret = f;
	return 0;
}
