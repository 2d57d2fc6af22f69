/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <string.h>
#include <unistd.h>

#include "tests/fake/mkhost_priv.h"

static struct blockdev *find_block(struct mk *m, const char *name)
{
	for (size_t i = 0; i < m->n_blocks; i++)
		if (!strcmp(m->blocks[i].name, name))
			return &m->blocks[i];
	return NULL;
}

static int add_block(struct mk *m, const char *name, const char *path, unsigned int major, unsigned int minor)
{
	struct blockdev *b = PUSH_ZEROED(m->blocks, m->n_blocks);

	snprintf(b->name, sizeof(b->name), "%s", name);
	b->path = xstrdup(path);
	b->major = major;
	b->minor = minor;
	if (mk_put(m, path, "dev", "%u:%u", major, minor) < 0 || mk_put(m, path, "size", "1875385008") < 0 ||
	    mk_make_link_at(m, path, "sys/class/block/%s", name) < 0)
		return -1;
	return mk_make_link_at(m, path, "sys/dev/block/%u:%u", major, minor);
}

/* The controller of nvme0n1: nvme0, with its link in the class. Its path, owned. */
static char *nvme_controller(struct mk *m, const struct dev *d, const char *name)
{
	AUTO_FREE char *ctrl = xstrndup(name, 4 + strspn(name + 4, "0123456789"));
	char *path = xasprintf("%s/nvme/%s", d->path, ctrl);

	mk_put(m, path, "state", "live");
	mk_make_link_at(m, path, "sys/class/nvme/%s", ctrl);
	return path;
}

/* Where the block device of a controller lies below the function, by what the name says it is. */
static char *disk_path(struct mk *m, const struct dev *d, const char *name)
{
	if (!strncmp(name, "nvme", 4)) {
		AUTO_FREE char *ctrl = nvme_controller(m, d, name);

		return xasprintf("%s/%s", ctrl, name);
	}
	if (!strncmp(name, "vd", 2))
		return xasprintf("%s/virtio0/block/%s", d->path, name);
	return xasprintf("%s/ata1/host0/target0:0:0/0:0:0:0/block/%s", d->path, name);
}

/* NVMe multipath: the disk hangs from a virtual subsystem that links to its controllers. */
static char *multipath_disk(struct mk *m, const struct dev *d, const char *name)
{
	AUTO_FREE char *real = nvme_controller(m, d, name);
	const char *ctrl = strrchr(real, '/') + 1;
	AUTO_FREE char *subsys = xasprintf("sys/devices/virtual/nvme-subsystem/nvme-subsys%s", ctrl + 4);

	if (mk_make_dirs(m, subsys) < 0 || mk_make_link_at(m, real, "%s/%s", subsys, ctrl) < 0)
		return NULL;
	return xasprintf("%s/%s", subsys, name);
}

static int late_disk(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *path = NULL;
	struct pci_addr a;
	struct dev *d;
	int parts = 0, r;

	if (w->n < 4 || mk_check_options(m, w, 4, "parts multipath") < 0 ||
	    mk_option_int(m, w, 4, "parts", &parts) < 0 || mk_parse_bdf(m, w->v[3], 0, &a) < 0)
		return mk_bad(m, "disk NAME at BDF [parts=N] [multipath]");
	d = mk_find_dev(m, &a);
	if (!d)
		return mk_bad(m, "no function %s", w->v[3]);
	path = mk_option(w, 4, "multipath") ? multipath_disk(m, d, w->v[1]) : disk_path(m, d, w->v[1]);
	if (!path)
		return -1;
	r = add_block(m, w->v[1], path, 259, (unsigned int)m->n_blocks);
	for (int i = 1; r == 0 && i <= parts; i++) {
		AUTO_FREE char *name = xasprintf("%s%s%d", w->v[1], strncmp(w->v[1], "nvme", 4) ? "" : "p", i);
		AUTO_FREE char *sub = xasprintf("%s/%s", path, name);

		r = add_block(m, name, sub, 259, (unsigned int)m->n_blocks);
		if (r == 0)
			r = mk_put(m, sub, "partition", "%d", i);
	}
	return r;
}

/* A 9p share: its function has a virtio device with the tag that mount shows as the source. */
static int late_share(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *path = NULL;
	struct pci_addr a;
	const struct dev *d;

	if (w->n < 4 || mk_parse_bdf(m, w->v[3], 0, &a) < 0 || !(d = mk_find_dev(m, &a)))
		return mk_bad(m, "share TAG at BDF");
	path = xasprintf("%s/virtio%zu", d->path, (size_t)(d - m->devs));
	if (mk_put(m, path, "mount_tag", "%s", w->v[1]) < 0)
		return -1;
	return mk_make_link_at(m, path, "sys/bus/virtio/drivers/9pnet_virtio/virtio%zu", (size_t)(d - m->devs));
}

/* dm-N and mdN: a virtual block device with links to what it is made of. */
static int stacked(struct mk *m, const char *name, const struct strv *w, size_t first)
{
	AUTO_FREE char *path = xasprintf("sys/devices/virtual/block/%s", name);

	for (size_t i = first; i < w->n; i++) {
		const struct blockdev *b = find_block(m, w->v[i]);

		if (!b)
			return mk_bad(m, "no block device '%s'", w->v[i]);
		if (mk_make_link_at(m, b->path, "%s/slaves/%s", path, b->name) < 0)
			return -1;
	}
	return add_block(m, name, path, *name == 'd' ? 254 : 9, (unsigned int)m->n_blocks);
}

static int late_dm(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *name = w->n >= 5 ? xasprintf("dm-%s", w->v[1]) : NULL;
	AUTO_FREE char *dir = name ? xasprintf("sys/devices/virtual/block/%s/dm", name) : NULL;

	if (!name)
		return mk_bad(m, "dm N NAME on DEV...");
	return mk_put(m, dir, "name", "%s", w->v[2]) < 0 ? -1 : stacked(m, name, w, 4);
}

static int late_md(struct mk *m, const struct strv *w)
{
	AUTO_FREE char *name = w->n >= 4 ? xasprintf("md%s", w->v[1]) : NULL;

	return name ? stacked(m, name, w, 3) : mk_bad(m, "md N on DEV...");
}

/* "/dev/mapper/vg-root" for a device mapper device, as mount shows it */
static char *dev_node(struct mk *m, const struct blockdev *b)
{
	AUTO_FREE char *file = xasprintf("%s/dm/name", b->path);
	char name[64] = "";
	int fd = openat(m->root, file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, name, sizeof(name) - 1) : -1;

	if (fd >= 0)
		close(fd);
	name[n > 0 ? strcspn(name, "\n") : 0] = '\0';
	return *name ? xasprintf("/dev/mapper/%s", name) : xasprintf("/dev/%s", b->name);
}

static int late_mount(struct mk *m, const struct strv *w)
{
	const struct blockdev *b = w->n >= 3 ? find_block(m, w->v[1]) : NULL;
	AUTO_FREE char *source = b ? dev_node(m, b) : NULL;
	const char *type = w->n > 3 && strcmp(w->v[3], "anonymous") ? w->v[3] : "ext4";
	unsigned int id = 30u + (unsigned int)m->line;

	if (w->n < 3)
		return mk_bad(m, "mount DEV DIR [TYPE] [anonymous]");
	if (b && !mk_option(w, 3, "anonymous"))
		mk_append(&m->mountinfo, "%u 1 %u:%u / %s rw,relatime shared:1 - %s %s rw\n", id, b->major, b->minor,
			  w->v[2], type, source);
	else
		mk_append(&m->mountinfo, "%u 1 0:%u / %s rw,relatime shared:1 - %s %s rw\n", id, id, w->v[2], type,
			  b ? source : w->v[1]);
	return 0;
}

static int late_swap(struct mk *m, const struct strv *w)
{
	mk_append(&m->swaps, "/dev/%-39s partition\t8388604\t0\t-2\n", w->v[1]);
	return 0;
}

/* Bridges and bonds: `master` in the member, `lower_X` in the master. */
static int net_stack(struct mk *m, const char *upper, const char *lower, bool master)
{
	AUTO_FREE char *up = xasprintf("sys/devices/virtual/net/%s", upper), *low = NULL;
	AUTO_FREE char *link = xasprintf("sys/class/net/%s", lower);
	char buf[PATH_MAX];
	ssize_t n = readlinkat(m->root, link, buf, sizeof(buf) - 1);

	if (n < 0)
		return mk_bad(m, "no interface '%s'", lower);
	buf[n] = '\0';
	low = xasprintf("sys/%s", strstr(buf, "devices/"));
	if ((master && mk_make_link_at(m, up, "%s/master", low) < 0) ||
	    mk_make_link_at(m, low, "%s/lower_%s", up, lower) < 0)
		return -1;
	return mk_make_link_at(m, up, "%s/upper_%s", low, upper);
}

/* What is the same for all kinds of interface, and what makes a bridge or a tap of it. */
static int net_files(struct mk *m, const char *path, const struct strv *w)
{
	unsigned int tun = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	int mtu = 1500;

	if (mk_check_options(m, w, 3, "at master bridge tap multi-queue transient busy down mtu") < 0 || mk_option_int(m, w, 3, "mtu", &mtu) < 0 ||
	    mk_put(m, path, "mtu", "%d", mtu) < 0 || mk_put(m, path, "flags", "0x%x", mk_option(w, 3, "down") ? 0x1002 : 0x1003) < 0)
		return -1;
	if (mk_option(w, 3, "bridge"))
		return mk_put(m, path, "bridge/stp_state", "0");
	if (!mk_option(w, 3, "tap"))
		return 0;
	tun |= (mk_option(w, 3, "multi-queue") ? IFF_MULTI_QUEUE : 0) | (mk_option(w, 3, "transient") ? 0 : IFF_PERSIST);
	/* Of an interface that is down the carrier cannot be read. */
	if (!mk_option(w, 3, "down") && mk_put(m, path, "carrier", "%d", mk_option(w, 3, "busy") || mk_option(w, 3, "transient")) < 0)
		return -1;
	return mk_put(m, path, "tun_flags", "0x%x", tun);
}

static int late_net(struct mk *m, const struct strv *w)
{
	bool at = w->n >= 4 && !strcmp(w->v[2], "at");
	const char *master = mk_option(w, 3, "master"), *vlan = w->n > 2 ? mk_option(w, 2, "vlan-of") : NULL;
	AUTO_FREE char *path = NULL;
	struct pci_addr a;
	struct dev *d = NULL;

	if (at && mk_parse_bdf(m, w->v[3], 0, &a) < 0)
		return -1;
	if (at && !(d = mk_find_dev(m, &a)))
		return mk_bad(m, "no function %s", w->v[3]);
	path = d ? xasprintf("%s/net/%s", d->path, w->v[1]) : xasprintf("sys/devices/virtual/net/%s", w->v[1]);
	if (mk_put(m, path, "ifindex", "%d", ++m->next_ifindex) < 0 || mk_put(m, path, "operstate", "up") < 0 ||
	    mk_put(m, path, "address", "02:00:00:00:00:%02x", m->next_ifindex) < 0 ||
	    mk_make_link_at(m, path, "sys/class/net/%s", w->v[1]) < 0)
		return -1;
	if (!at && !vlan && net_files(m, path, w) < 0)
		return -1;
	if (d && mk_make_link_at(m, d->path, "%s/device", path) < 0)
		return -1;
	if (master && net_stack(m, master, w->v[1], true) < 0)
		return -1;
	return vlan ? net_stack(m, w->v[1], vlan, false) : 0;
}

static int late_route(struct mk *m, const struct strv *w)
{
	unsigned int o[4] = { 0 }, bits = 0;
	uint32_t mask;
	char junk;

	if (w->n < 3)
		return mk_bad(m, "route NAME default|SUBNET");
	if (!strcmp(w->v[2], "default")) {
		mk_append(&m->route, "%s\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n", w->v[1]);
		return 0;
	}
	if (sscanf(w->v[2], "%u.%u.%u.%u/%u%c", &o[0], &o[1], &o[2], &o[3], &bits, &junk) != 5 || bits < 1 || bits > 32)
		return mk_bad(m, "'%s' is not a subnet", w->v[2]);
	mask = __builtin_bswap32(UINT32_MAX << (32 - bits));
	mk_append(&m->route, "%s\t%08X\t00000000\t0001\t0\t0\t100\t%08X\t0\t0\t0\n", w->v[1],
		  o[0] | o[1] << 8 | o[2] << 16 | o[3] << 24, mask);
	return 0;
}

static int late_address6(struct mk *m, const struct strv *w)
{
	const char *scope = mk_option(w, 3, "scope");

	if (w->n < 3 || strlen(w->v[2]) != 32)
		return mk_bad(m, "address6 NAME HEX (32 digits)");
	mk_append(&m->inet6, "%s 02 40 %s 80 %8s\n", w->v[2], scope && !strcmp(scope, "link") ? "20" : "00", w->v[1]);
	return 0;
}

static int do_late(struct mk *m, const char *line)
{
	static const struct {
		const char *word;
		int (*fn)(struct mk *m, const struct strv *w);
	} table[] = { { "disk", late_disk }, { "share", late_share }, { "dm", late_dm },
		      { "md", late_md },     { "mount", late_mount }, { "swap", late_swap },
		      { "net", late_net },   { "route", late_route }, { "address6", late_address6 } };
	CLEANUP(strv_clear) struct strv w = { 0 };

	if (strv_split_shell(line, &w, m->e) < 0 || w.n < 2)
		return mk_bad(m, "too short");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(w.v[0], table[i].word))
			return table[i].fn(m, &w);
	return 0;
}

int mk_write_late(struct mk *m)
{
	if (mk_make_dirs(m, "sys/class/block") < 0 || mk_make_dirs(m, "sys/dev/block") < 0 ||
	    mk_put(m, "sys/devices/virtual/net/lo", "ifindex", "1") < 0 ||
	    mk_put(m, "sys/devices/virtual/net/lo", "mtu", "65536") < 0 || mk_make_link(m, "sys/devices/virtual/net/lo", "sys/class/net/lo") < 0)
		return -1;
	for (size_t i = 0; i < m->late.n; i++) {
		m->line = m->late_lines[i];
		if (do_late(m, m->late.v[i]) < 0)
			return -1;
	}
	return 0;
}

int mk_write_proc(struct mk *m)
{
	AUTO_FREE char *mounts =
		xasprintf("22 1 0:20 / /proc rw - proc proc rw\n23 1 0:21 / /sys rw - sysfs sysfs rw\n%s",
			  m->mountinfo ? m->mountinfo : "");
	AUTO_FREE char *swaps =
		xasprintf("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n%s", m->swaps ? m->swaps : "");
	AUTO_FREE char *route =
		xasprintf("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n%s",
			  m->route ? m->route : "");
	AUTO_FREE char *inet6 =
		xasprintf("00000000000000000000000000000001 01 80 10 80       lo\n%s", m->inet6 ? m->inet6 : "");

	if (mk_put_bytes(m, "proc/self/mountinfo", mounts, strlen(mounts), 0) < 0 ||
	    mk_put_bytes(m, "proc/swaps", swaps, strlen(swaps), 0) < 0 ||
	    mk_put_bytes(m, "proc/net/route", route, strlen(route), 0) < 0 ||
	    mk_put_bytes(m, "proc/net/ipv6_route", "", 0, 0) < 0 ||
	    mk_put_bytes(m, "proc/net/if_inet6", inet6, strlen(inet6), 0) < 0)
		return -1;
	if (mk_put(m, "proc/sys/kernel", "osrelease", "%s", m->kernel) < 0 ||
	    mk_put(m, "proc/sys/kernel", "hostname", "%s", m->name) < 0 ||
	    mk_put(m, "proc/sys/kernel/random", "boot_id", "00000000-0000-4000-8000-000000000001") < 0)
		return -1;
	return mk_put(m, "etc", "machine-id", "%s", m->machine_id);
}

int mk_write_misc(struct mk *m)
{
	if (mk_make_dirs(m, "sys/class/misc") < 0)
		return -1;
	if (!m->no_kvm && mk_put(m, "sys/class/misc/kvm", "dev", "10:232") < 0)
		return -1;
	if (!m->no_vhost && mk_put(m, "sys/class/misc/vhost-net", "dev", "10:238") < 0)
		return -1;
	return m->no_vfio ? 0 : mk_put(m, "sys/class/misc/vfio", "dev", "10:196");
}
