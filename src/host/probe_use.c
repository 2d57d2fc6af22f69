/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_use.c - which PCI functions the host itself lives on.
 *
 * How it works: every mount, swap area and interface that is in use leads through sysfs to a device path
 * ("devices/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme/nvme0/nvme0n1"), and each function named in that path that is
 * not a bridge gets the reason as its host_use; the first reason stays.  What stands on other block devices
 * (device mapper, md) or interfaces (bridges, bonds, VLANs) is followed down to those. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "probe_priv.h"

#define MAX_DEPTH 16 /* of stacked devices; a loop cannot be, but a captured root may hold anything */

/* --- from a device path to functions ----------------------------------------------------------------------- */

static void mark_function(struct topology *t, const struct pci_addr *a, const char *reason)
{
	int i = topology_find_func(t, a);

	if (i >= 0 && t->funcs[i].role != ROLE_BRIDGE && !t->funcs[i].host_use)
		t->funcs[i].host_use = xstrdup(reason);
}

/* A disk behind VMD names two functions, and both are needed. */
static void mark_path(struct topology *t, const char *path, const char *reason)
{
	char part[PCI_ADDR_STR];
	struct pci_addr a;

	for (const char *s = path; *s; s += strspn(s, "/")) {
		size_t n = strcspn(s, "/");

		if (n < sizeof(part) && n >= strlen("0000:00:00.0")) {
			memcpy(part, s, n);
			part[n] = '\0';
			if (parse_pci_addr(part, &a) == 0)
				mark_function(t, &a, reason);
		}
		s += n;
	}
}

/* Call @fn for each entry of a folder below sys; false if there is no such folder. */
static bool each_entry(const struct probe *p, const char *path,
		       void (*fn)(const struct probe *, const char *name, void *), void *ctx)
{
	AUTO_CLOSE int fd = openat(p->sys_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSEDIR DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *d;

	if (!dir)
		return false;
	STEAL_FD(fd);
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.')
			fn(p, d->d_name, ctx);
	return true;
}

/* --- block devices --------------------------------------------------------------------------------------------- */

struct block_walk {
	const char *reason;
	int depth;
};

static void mark_block(const struct probe *p, const char *name, void *ctx);

static void mark_controller(const struct probe *p, const char *name, void *ctx)
{
	const struct block_walk *w = ctx;
	char link[300], path[PATH_MAX];

	/* The subsystem's folder has its disks (nvme0n1), too. */
	snprintf(link, sizeof(link), "class/nvme/%s", name);
	if (!strncmp(name, "nvme", 4) && probe_device_path(p, link, path, sizeof(path)) > 0)
		mark_path(p->t, path, w->reason);
}

/* Leave the folder that @path is in. */
static void cut_last(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash)
		*slash = '\0';
}

/* @path: "devices/..." of a disk or partition; used up. */
static void mark_block_path(const struct probe *p, char *path, const struct block_walk *w)
{
	struct block_walk below = { .reason = w->reason, .depth = w->depth + 1 };
	char dir[PATH_MAX + 16];

	if (w->depth > MAX_DEPTH)
		return;
	mark_path(p->t, path, w->reason);

	snprintf(dir, sizeof(dir), "%s/partition", path);
	if (probe_exists(p->sys_fd, dir))
		cut_last(path); /* what a partition stands on is written at its disk */
	snprintf(dir, sizeof(dir), "%s/slaves", path);
	each_entry(p, dir, mark_block, &below);

	/* With NVMe multipath the disk hangs from a virtual subsystem; its controllers are beside it. */
	if (strstr(path, "/nvme-subsystem/")) {
		cut_last(path);
		each_entry(p, path, mark_controller, &below);
	}
}

static void mark_block(const struct probe *p, const char *name, void *ctx)
{
	char link[300], path[PATH_MAX];

	snprintf(link, sizeof(link), "class/block/%s", name);
	if (probe_device_path(p, link, path, sizeof(path)) > 0)
		mark_block_path(p, path, ctx);
}

/* "/dev/mapper/vg-root" is a name that only the device knows: dm-N/dm/name. */
struct dm_search {
	const char *wanted;
	char name[256];
};

static void match_dm(const struct probe *p, const char *name, void *ctx)
{
	struct dm_search *s = ctx;
	char buf[256];

	if (strncmp(name, "dm-", 3) == 0 &&
	    probe_readf(p->sys_fd, buf, sizeof(buf), "class/block/%s/dm/name", name) > 0 && !strcmp(buf, s->wanted))
		snprintf(s->name, sizeof(s->name), "%s", name);
}

static void mark_dev_node(const struct probe *p, const char *source, const char *reason)
{
	struct block_walk w = { .reason = reason };
	struct dm_search s = { 0 };

	if (strncmp(source, "/dev/", 5))
		return;
	if (strncmp(source, "/dev/mapper/", 12)) {
		mark_block(p, strrchr(source, '/') + 1, &w);
		return;
	}
	s.wanted = source + 12;
	each_entry(p, "class/block", match_dm, &s);
	if (*s.name)
		mark_block(p, s.name, &w);
}

/* --- mounts and swap ------------------------------------------------------------------------------------------- */

struct share_search {
	const char *tag, *reason;
};

static void match_share(const struct probe *p, const char *name, void *ctx)
{
	const struct share_search *s = ctx;
	char buf[256], link[320], path[PATH_MAX];

	snprintf(link, sizeof(link), "bus/virtio/drivers/9pnet_virtio/%s", name);
	if (strncmp(name, "virtio", 6) || probe_readf(p->sys_fd, buf, sizeof(buf), "%s/mount_tag", link) <= 0 ||
	    strcmp(buf, s->tag))
		return;
	if (probe_device_path(p, link, path, sizeof(path)) > 0)
		mark_path(p->t, path, s->reason);
}

/* The kernel writes blanks in names as \040. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
		    s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

struct mount {
	char *device, *point, *type, *source; /* "259:3", "/boot", "xfs", "/dev/nvme0n1p2" */
};

/* "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw": proc_pid_mountinfo(5). Cuts @line up. */
static bool parse_mount(char *line, struct mount *ret)
{
	char *save = NULL, *tail = strstr(line, " - "), *w;

	if (!tail)
		return false;
	*tail = '\0';
	*ret = (struct mount){ 0 };
	w = strtok_r(line, " ", &save);
	for (int i = 0; w; i++, w = strtok_r(NULL, " ", &save)) {
		if (i == 2)
			ret->device = w;
		if (i == 4)
			ret->point = w;
	}
	ret->type = strtok_r(tail + 3, " ", &save);
	ret->source = ret->type ? strtok_r(NULL, " ", &save) : NULL;
	if (!ret->point || !ret->source)
		return false;
	unescape(ret->point);
	unescape(ret->source);
	return true;
}

static void mark_mount(const struct probe *p, const struct mount *m)
{
	bool share = !strcmp(m->type, "9p");
	AUTO_FREE char *reason = xasprintf("%s%s is mounted on %s", share ? "9p share " : "", m->source, m->point);
	struct block_walk w = { .reason = reason };
	char link[64], path[PATH_MAX];

	snprintf(link, sizeof(link), "dev/block/%s", m->device);
	if (probe_device_path(p, link, path, sizeof(path)) > 0) {
		mark_block_path(p, path, &w);
	} else if (share) {
		struct share_search s = { m->source, reason };

		each_entry(p, "bus/virtio/drivers/9pnet_virtio", match_share, &s);
	} else {
		/* btrfs shows a device number of its own, but names the device. */
		mark_dev_node(p, m->source, reason);
	}
}

static void mark_mounts(const struct probe *p)
{
	AUTO_FREE char *text = probe_read_all(p->proc_fd, "self/mountinfo");
	char *save = NULL;
	struct mount m;

	if (!text)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (parse_mount(line, &m))
			mark_mount(p, &m);
}

/* A mounted btrfs may stand on more devices than the one that mountinfo names. */
static void mark_btrfs(const struct probe *p, const char *uuid, void *ctx)
{
	AUTO_FREE char *reason = xasprintf("it is a part of the mounted btrfs %s", uuid);
	struct block_walk w = { .reason = reason };
	char dir[320];

	(void)ctx;
	snprintf(dir, sizeof(dir), "fs/btrfs/%s/devices", uuid);
	each_entry(p, dir, mark_block, &w);
}

/* A swap file is on a mounted file system, and so found already. */
static void mark_swaps(const struct probe *p)
{
	AUTO_FREE char *text = probe_read_all(p->proc_fd, "swaps");
	char *save = NULL;

	if (!text)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		AUTO_FREE char *reason = NULL;

		line[strcspn(line, " \t")] = '\0';
		unescape(line);
		reason = xasprintf("%s is swap space", line);
		mark_dev_node(p, line, reason);
	}
}

/* --- network ------------------------------------------------------------------------------------------------------ */

struct net_walk {
	const char *top, *what; /* "br0", "has the default route" */
	int depth;
};

static void mark_interface(const struct probe *p, const char *name, const struct net_walk *w);

static void mark_lower(const struct probe *p, const char *name, void *ctx)
{
	if (!strncmp(name, "lower_", 6))
		mark_interface(p, name + 6, ctx);
}

static void mark_interface(const struct probe *p, const char *name, const struct net_walk *w)
{
	struct net_walk below = { .top = w->top, .what = w->what, .depth = w->depth + 1 };
	AUTO_FREE char *reason = NULL;
	char link[300], path[PATH_MAX];

	if (w->depth > MAX_DEPTH || strchr(name, '/'))
		return;
	reason = w->depth ? xasprintf("%s is below %s, which %s", name, w->top, w->what)
			  : xasprintf("%s %s", name, w->what);
	snprintf(link, sizeof(link), "class/net/%s", name);
	if (probe_device_path(p, link, path, sizeof(path)) < 0)
		return;
	mark_path(p->t, path, reason);
	each_entry(p, path, mark_lower, &below);
}

static void mark_net(const struct probe *p, const char *name, const char *what)
{
	struct net_walk w = { .top = name, .what = what };

	if (strcmp(name, "lo"))
		mark_interface(p, name, &w);
}

/* /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask ..., hexadecimal */
static void mark_ipv4(const struct probe *p, bool defaults)
{
	AUTO_FREE char *text = probe_read_all(p->proc_fd, "net/route");
	char *save = NULL, name[64];
	unsigned int destination, mask;

	if (!text)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "%63s %8X %*s %*s %*s %*s %*s %8X", name, &destination, &mask) != 3)
			continue; /* the heading */
		if (defaults == (!destination && !mask))
			mark_net(p, name, defaults ? "has the default route" : "has an IPv4 route");
	}
}

/* /proc/net/ipv6_route: destination, its length, source, its length, next hop, metric, refs, use, flags, device */
static void mark_ipv6_default(const struct probe *p)
{
	AUTO_FREE char *text = probe_read_all(p->proc_fd, "net/ipv6_route");
	char *save = NULL, name[64];
	unsigned int length, flags;

	if (!text)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (sscanf(line, "%*32s %x %*32s %*x %*32s %*x %*x %*x %x %63s", &length, &flags, name) == 3 &&
		    !length && (flags & 0x3) == 0x3) /* RTF_UP | RTF_GATEWAY */
			mark_net(p, name, "has the default route");
}

/* /proc/net/if_inet6: address, index, prefix length, scope, flags, name. Link-local ones say nothing: each interface that
 * is up has one. */
static void mark_ipv6(const struct probe *p)
{
	AUTO_FREE char *text = probe_read_all(p->proc_fd, "net/if_inet6");
	char *save = NULL, name[64];
	unsigned int scope;

	if (!text)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (sscanf(line, "%*32s %*x %*x %x %*x %63s", &scope, name) == 2 && scope != 0x20 && scope != 0x10)
			mark_net(p, name, "has an IPv6 address");
}

void probe_use(struct probe *p)
{
	mark_mounts(p);
	each_entry(p, "fs/btrfs", mark_btrfs, NULL);
	mark_swaps(p);
	/* The default route first: of several reasons it is the one to show. */
	mark_ipv4(p, true);
	mark_ipv6_default(p);
	mark_ipv4(p, false);
	mark_ipv6(p);
}
