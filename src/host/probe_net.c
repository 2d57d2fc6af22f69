/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_net.c - the host's network interfaces, for taps and bridges of VMs. Addresses are not read. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>

#include "probe_priv.h"

static uint64_t read_flags(int fd, const char *file)
{
	char buf[32];
	uint64_t v;

	return probe_read(fd, file, buf, sizeof(buf)) > 0 && parse_hex(buf, UINT32_MAX, &v) == 0 ? v : 0;
}

/* A layer 3 tun has the file too, but QEMU's netdev needs Ethernet frames. */
static void read_tap(int fd, struct host_net *n)
{
	uint64_t flags = read_flags(fd, "tun_flags");

	if (!(flags & IFF_TAP))
		return;
	n->kind = HOST_NET_TAP;
	n->multi_queue = flags & IFF_MULTI_QUEUE;
	n->persistent = flags & IFF_PERSIST;
	/* The kernel turns the carrier on when a process attaches, and off when the last one goes. It cannot be read (EINVAL)
	 * while the interface is down. */
	n->in_use = !n->persistent || probe_read_int(fd, "carrier", 0) == 1;
}

static bool read_net(int at, const char *name, struct host_net *ret)
{
	AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct host_net n = { 0 };

	/* Not every entry is an interface: bonding has a file of its own there. */
	if (fd < 0 || strlen(name) >= sizeof(n.name))
		return false;
	memcpy(n.name, name, strlen(name) + 1);
	n.mtu = probe_read_int(fd, "mtu", 0);
	n.up = read_flags(fd, "flags") & IFF_UP;
	probe_link_name(fd, "master", n.master, sizeof(n.master));
	if (probe_exists(fd, "bridge"))
		n.kind = HOST_NET_BRIDGE;
	else
		read_tap(fd, &n);
	*ret = n;
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct host_net *)a)->name, ((const struct host_net *)b)->name);
}

void probe_nets(struct probe *p)
{
	AUTO_CLOSE int fd = openat(p->sys_fd, "class/net", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSEDIR DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct topology *t = p->t;
	struct dirent *d;

	if (!dir)
		return;
	STEAL_FD(fd);
	while ((d = readdir(dir))) {
		struct host_net n;

		if (d->d_name[0] == '.' || !read_net(dirfd(dir), d->d_name, &n))
			continue;
		*PUSH_ZEROED(t->nets, t->n_nets) = n;
		/* Captures of earlier versions have the names only. */
		t->nets_known = t->nets_known || n.mtu > 0;
	}
	if (t->n_nets)
		qsort(t->nets, t->n_nets, sizeof(*t->nets), by_name);
}
