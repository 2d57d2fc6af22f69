/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe.c - see probe.h. The machine as a whole here; CPUs, PCI and the host's own use in probe_*.c. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gpuvm/probe.h"
#include "probe_priv.h"

/* What follows "KEY<tab>: " in /proc/cpuinfo; all CPUs say the same, the first is enough. */
static const char *cpuinfo_value(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	at = at ? strchr(at, ':') : NULL;
	return at && at[1] == ' ' ? at + 2 : NULL;
}

static void read_cpuinfo(const struct probe *p)
{
	struct topology *t = p->t;
	const char *v;
	char buf[16384]; /* the flags alone are more than two thousand characters by now */

	if (probe_read(p->proc_fd, "cpuinfo", buf, sizeof(buf)) < 0)
		return;
	v = cpuinfo_value(buf, "vendor_id");
	if (v)
		snprintf(t->cpu_vendor, sizeof(t->cpu_vendor), "%.*s", (int)strcspn(v, "\n"), v);
	v = cpuinfo_value(buf, "address sizes");
	if (v && sscanf(v, "%d bits physical", &t->phys_bits) != 1)
		t->phys_bits = 0;
}

/* Width that the narrowest VT-d unit can address: MGAW, bits 21:16 of its capability register, plus one. */
static void read_iommu_bits(const struct probe *p)
{
	AUTO_CLOSE int fd = openat(p->sys_fd, "class/iommu", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSEDIR DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *d;

	if (!dir)
		return;
	STEAL_FD(fd);
	while ((d = readdir(dir))) {
		char buf[32];
		uint64_t cap;
		int bits;

		if (d->d_name[0] == '.' ||
		    probe_readf(dirfd(dir), buf, sizeof(buf), "%s/intel-iommu/cap", d->d_name) < 0 ||
		    parse_hex(buf, UINT64_MAX, &cap) < 0)
			continue;
		bits = (int)(cap >> 16 & 0x3f) + 1;
		if (!p->t->iommu_bits || bits < p->t->iommu_bits)
			p->t->iommu_bits = bits;
	}
}

static bool has_entries(int at, const char *path)
{
	AUTO_CLOSE int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSEDIR DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *d;

	if (!dir)
		return false;
	STEAL_FD(fd);
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.')
			return true;
	return false;
}

static bool kvm_usable(const struct probe *p)
{
	AUTO_CLOSE int fd = -1;

	if (!p->live)
		return probe_exists(p->sys_fd, "class/misc/kvm");
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	return fd >= 0;
}

/* A distribution's list of modules has a megabyte: it is read once, and only if something is not loaded yet. */
static char *read_modules(const struct probe *p)
{
	static const char *const lists[] = { "modules.builtin", "modules.dep" };
	char *all = xstrdup("");

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		AUTO_FREE char *path = xasprintf("lib/modules/%s/%s", p->t->kernel, lists[i]), *text = probe_read_all(p->root_fd, path), *before = all;

		all = xasprintf("%s%s", before, text ? text : "");
	}
	return all;
}

static bool module_on_disk(struct probe *p, const char *file)
{
	if (!p->modules)
		p->modules = read_modules(p);
	return strstr(p->modules, file);
}

static bool vfio_usable(struct probe *p)
{
	return probe_exists(p->sys_fd, "bus/pci/drivers/vfio-pci") || probe_exists(p->sys_fd, "class/misc/vfio") ||
	       module_on_disk(p, "/vfio-pci.ko");
}

/* A node that devtmpfs or kmod made before the module is there is opened through the module: looking must not load it. */
static bool vhost_usable(struct probe *p, const char *node, const char *module)
{
	AUTO_FREE char *class = xasprintf("class/misc/%s", node), *dev = xasprintf("/dev/%s", node);
	bool loadable = probe_exists(p->sys_fd, class) || module_on_disk(p, module);

	if (!p->live || !loadable)
		return loadable;
	if (access(dev, F_OK) < 0)
		return geteuid() == 0; /* it comes with the module, which root can load */
	return access(dev, R_OK | W_OK) == 0;
}

/* Of another machine only what an administrator has set is known: 2 is off, 1 off but for root and a group (Linux 6.6). */
static bool io_uring_usable(const struct probe *p)
{
	if (!p->live)
		return probe_read_int(p->proc_fd, "sys/kernel/io_uring_disabled", 0) != 2;
	/* A container's seccomp profile may forbid it, too. Who may have a ring is told that this one has no parameters: none has to be made. */
	return syscall(SYS_io_uring_setup, 1, NULL) >= 0 || errno == EFAULT;
}

static void read_machine(struct probe *p)
{
	struct topology *t = p->t;

	snprintf(t->root, sizeof(t->root), "%s", p->live ? "/" : p->root);
	probe_read(p->proc_fd, "sys/kernel/hostname", t->host_name, sizeof(t->host_name));
	probe_read(p->proc_fd, "sys/kernel/osrelease", t->kernel, sizeof(t->kernel));
	probe_read(p->root_fd, "etc/machine-id", t->machine_id, sizeof(t->machine_id));
	read_cpuinfo(p);
	read_iommu_bits(p);
	t->iommu_groups = has_entries(p->sys_fd, "kernel/iommu_groups");
	t->kvm = kvm_usable(p);
	t->vfio = vfio_usable(p);
	t->vhost_net = vhost_usable(p, "vhost-net", "/vhost_net.ko");
	t->vhost_vsock = vhost_usable(p, "vhost-vsock", "/vhost_vsock.ko");
	t->io_uring = io_uring_usable(p);
}

static int read_host(const char *root, bool lean, struct topology *ret, struct err *e)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	CLEANUP(probe_close) struct probe p = { .root_fd = -1, .sys_fd = -1, .proc_fd = -1 };
	int r = probe_open(root, &p, e);

	if (r < 0)
		return r;
	p.t = &t;
	r = lean ? 0 : probe_pci_begin(&p, e);
	if (r < 0)
		return r;
	read_machine(&p);
	r = probe_cpus(&p, e);
	if (r < 0)
		return r;
	probe_pci(&p);
	topology_finish(&t);
	if (!lean) {
		probe_dead(&p);
		probe_use(&p);
	}
	probe_nets(&p);
	*ret = t;
	t = (struct topology){ 0 };
	return 0;
}

int probe_host(const char *root, struct topology *ret, struct err *e)
{
	return read_host(root, false, ret, e);
}

int probe_host_lean(const char *root, struct topology *ret, struct err *e)
{
	return read_host(root, true, ret, e);
}

int probe_host_use(const char *root, struct topology *t, struct err *e)
{
	CLEANUP(probe_close) struct probe p = { .root_fd = -1, .sys_fd = -1, .proc_fd = -1 };
	int r = probe_open(root, &p, e);

	if (r < 0)
		return r;
	p.t = t;
	probe_use(&p);
	return 0;
}
