/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_pci.c - PCI functions. libpci walks the capabilities of bridges; the rest is sysfs.
 *
 * Care is taken with what is read of each function, because there may be thousands (virtual functions), and because
 * some attributes wait for the device's lock, which a blocked unbind holds: uevent and sriov_numvfs are not read for
 * functions where something else answers the question.
 *
 * How it works: probe_pci_begin() lists the functions; where they are many, threads read them while the caller looks at CPUs, and each, with the caller in
 * the end, takes the next few until there are no more.  Only then probe_pci() puts them together, in order: parents come before what is below them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pci/pci.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/param.h>

#include "probe_priv.h"

#define MAX_THREADS	8
#define FEW_FUNCS	256 /* are read sooner than threads begin */
#define FUNCS_AT_A_TIME 16

/* A function as its folder has it. */
struct found {
	struct pci_func f;
	struct pci_addr up; /* the bridge above */
	bool is_below;      /* there is one */
	bool gone;	    /* since it was listed */
};

struct pci_reading {
	int devices; /* the folder of all, O_PATH */
	struct found *v;
	size_t n;
	atomic_size_t next; /* who wants to read takes the functions from here on */
	pthread_t threads[MAX_THREADS];
	int n_threads;
};

/* --- libpci: its errors end the program unless the handler does not come back --------------------------- */

static jmp_buf pci_escape;

static void __attribute__((noreturn, format(printf, 1, 2))) on_pci_error(char *msg, ...)
{
	(void)msg;
	longjmp(pci_escape, 1);
}

static void __attribute__((format(printf, 1, 2))) on_pci_note(char *msg, ...)
{
	(void)msg;
}

/* Run @fn, which may be left in the middle: it must own nothing. */
static bool guarded(void (*fn)(void *), void *arg)
{
	if (setjmp(pci_escape))
		return false;
	fn(arg);
	return true;
}

static void do_init(void *access)
{
	pci_init(access);
}

struct port_query {
	struct pci_access *access;
	const struct pci_addr *addr;
	struct pci_dev *dev;
	int type; /* of the express capability, -1 without one */
};

static void do_port_type(void *arg)
{
	struct port_query *q = arg;
	struct pci_cap *cap;

	q->dev = pci_get_dev(q->access, (int)q->addr->domain, q->addr->bus, q->addr->dev, q->addr->fn);
	cap = pci_find_cap(q->dev, PCI_CAP_ID_EXP, PCI_CAP_NORMAL);
	/* All ones: config space ends before it, as it does for a reader who is not root. */
	if (cap && pci_read_word(q->dev, (int)cap->addr) != 0xffff)
		q->type = (pci_read_word(q->dev, (int)cap->addr + PCI_EXP_FLAGS) & PCI_EXP_FLAGS_TYPE) >> 4;
}

static enum pcie_port_type port_type(struct pci_access *a, const struct pci_addr *addr)
{
	struct port_query q = { .access = a, .addr = addr, .type = -1 };
	bool known = guarded(do_port_type, &q);

	if (q.dev)
		pci_free_dev(q.dev);
	if (!known)
		return PORT_UNKNOWN;
	switch (q.type) {
	case PCI_EXP_TYPE_ROOT_PORT:
		return PORT_ROOT;
	case PCI_EXP_TYPE_UPSTREAM:
		return PORT_UPSTREAM;
	case PCI_EXP_TYPE_DOWNSTREAM:
		return PORT_DOWNSTREAM;
	case PCI_EXP_TYPE_PCI_BRIDGE:
	case PCI_EXP_TYPE_PCIE_BRIDGE:
		return PORT_PCI_BRIDGE;
	default:
		return PORT_UNKNOWN;
	}
}

static struct pci_access *open_access(const struct probe *p)
{
	struct pci_access *a = pci_alloc();
	AUTO_FREE char *path = xasprintf("%s/sys/bus/pci", p->root);
	char param[] = "sysfs.path";

	a->method = PCI_ACCESS_SYS_BUS_PCI;
	a->error = on_pci_error;
	a->warning = on_pci_note;
	a->debug = on_pci_note;
	pci_set_param(a, param, path);
	return a;
}

/* --- one function -------------------------------------------------------------------------------------- */

/* "pci:v000010DEd00002335sv000010DEsd000018BEbc03sc02i00": all ids in one file, and one that takes no lock. */
static bool ids_from_modalias(int dir, struct pci_func *f)
{
	unsigned int vendor, device, subvendor, subdevice, base, sub, iface;
	char buf[96];

	if (probe_read(dir, "modalias", buf, sizeof(buf)) < 0 ||
	    sscanf(buf, "pci:v%8Xd%8Xsv%8Xsd%8Xbc%2Xsc%2Xi%2X", &vendor, &device, &subvendor, &subdevice, &base, &sub,
		   &iface) != 7)
		return false;
	f->vendor = (uint16_t)vendor;
	f->device = (uint16_t)device;
	f->subvendor = (uint16_t)subvendor;
	f->subdevice = (uint16_t)subdevice;
	f->class_code = base << 16 | sub << 8 | iface;
	return true;
}

static bool ids_from_files(int dir, struct pci_func *f)
{
	f->vendor = (uint16_t)probe_read_u64(dir, "vendor");
	f->device = (uint16_t)probe_read_u64(dir, "device");
	f->subvendor = (uint16_t)probe_read_u64(dir, "subsystem_vendor");
	f->subdevice = (uint16_t)probe_read_u64(dir, "subsystem_device");
	f->class_code = (uint32_t)probe_read_u64(dir, "class");
	return f->vendor != 0;
}

/* "../../../devices/pci0000:15/0000:15:01.0/0000:16:00.0": the bridge above, and the host bridge.
 * A function behind VMD has two host bridges on its way; its own is the last one. */
static void place_in_tree(struct found *x, char *path)
{
	char *last = strrchr(path, '/'), *host = NULL;

	for (char *s = strstr(path, "/pci"); s; s = strstr(s + 1, "/pci"))
		host = s + strlen("/pci");
	if (host)
		snprintf(x->f.root_bus, sizeof(x->f.root_bus), "%.*s", (int)strcspn(host, "/"), host);
	if (!last)
		return;
	*last = '\0';
	last = strrchr(path, '/');
	x->is_below = last && parse_pci_addr(last + 1, &x->up) == 0;
}

static void read_bars(int dir, struct pci_func *f)
{
	static const char unused[] = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
	char buf[1024], *line = buf;

	if (probe_read(dir, "resource", buf, sizeof(buf)) < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(f->bars) && line; i++) {
		struct pci_bar *b = &f->bars[i];
		uint64_t start, end, flags;

		/* Most are, and sscanf() is slow. */
		if (strncmp(line, unused, sizeof(unused) - 1) != 0 &&
		    sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNx64, &start, &end, &flags) == 3 && flags && end >= start) {
			b->start = start;
			b->bytes = end - start + 1;
			b->flags = flags;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
}

/* "32.0 GT/s PCIe" is 32000; "Unknown" is 0. */
static unsigned int read_speed(int dir, const char *name)
{
	unsigned int whole, tenth;
	char buf[48];

	if (probe_read(dir, name, buf, sizeof(buf)) < 0 || sscanf(buf, "%u.%u GT/s", &whole, &tenth) != 2)
		return 0;
	return whole * 1000 + tenth * 100;
}

static unsigned int read_width(int dir, const char *name)
{
	int v = probe_read_int(dir, name, 0);

	return v > 0 && v <= 32 ? (unsigned int)v : 0; /* 255: the link is not there */
}

/* Only where there can be a link: not for functions on a root bus (integrated ones), nor for virtual functions. */
static void read_link(int dir, struct pci_func *f, bool is_below)
{
	if (f->is_vf || (!is_below && f->class_code >> 8 != 0x0604))
		return;
	f->link.max_mts = read_speed(dir, "max_link_speed");
	if (!f->link.max_mts)
		return;
	f->link.max_width = read_width(dir, "max_link_width");
	f->link.cur_mts = read_speed(dir, "current_link_speed");
	f->link.cur_width = read_width(dir, "current_link_width");
}

/* The node that has all CPUs of local_cpulist. It lists every CPU where the firmware said nothing. */
static int local_node(const struct topology *t, int devices, const struct pci_addr *addr)
{
	struct cpuset local;
	char buf[4096], bdf[PCI_ADDR_STR];

	if (t->n_nodes < 2 || probe_readf(devices, buf, sizeof(buf), "%s/local_cpulist", pci_addr_format(addr, bdf)) <= 0 ||
	    cpuset_parse(buf, &local) < 0 || cpuset_empty(&local))
		return -1;
	for (size_t i = 0; i < t->n_nodes; i++)
		if (cpuset_subset(&local, &t->nodes[i].cpus))
			return (int)i;
	return -1;
}

static void read_group(int dir, struct pci_func *f)
{
	char buf[32];

	f->iommu_group = -1;
	if (probe_link_name(dir, "iommu_group", buf, sizeof(buf)) > 0)
		parse_int(buf, 0, INT_MAX, &f->iommu_group);
}

static void read_state(int dir, struct pci_func *f)
{
	probe_link_name(dir, "driver", f->driver, sizeof(f->driver));
	probe_read(dir, "driver_override", f->override, sizeof(f->override));
	if (!strcmp(f->override, "(null)"))
		f->override[0] = '\0';
	read_group(dir, f);
	f->is_vf = probe_exists(dir, "physfn");
	if (!f->is_vf && probe_exists(dir, "virtfn0"))
		f->sriov_vfs = (unsigned int)probe_read_u64(dir, "sriov_numvfs");
	f->boot_vga = f->class_code >> 16 == 0x03 && probe_read_int(dir, "boot_vga", 0) == 1;
	f->can_reset = probe_exists(dir, "reset_method") || probe_exists(dir, "reset");
}

/* False: it has gone. */
static bool read_func(int devices, struct found *x)
{
	char bdf[PCI_ADDR_STR], path[PATH_MAX];
	struct pci_func *f = &x->f;
	AUTO_CLOSE int dir = -1;

	pci_addr_format(&f->addr, bdf);
	if (probe_link(devices, bdf, path, sizeof(path)) < 0)
		return false;
	dir = openat(devices, bdf, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || (!ids_from_modalias(dir, f) && !ids_from_files(dir, f)))
		return false;
	place_in_tree(x, path);
	read_state(dir, f);
	read_bars(dir, f);
	read_link(dir, f, x->is_below);
	f->sysfs_node = probe_read_int(dir, "numa_node", -1);
	return true;
}

/* --- all of them ------------------------------------------------------------------------------------------ */

static int addr_cmp(const void *a, const void *b)
{
	return pci_addr_cmp(a, b);
}

/* Sorted; -Exxx if the folder cannot be read. libpci's list would read two files of each first. */
static int list_functions(int devices, struct found **ret, size_t *ret_n)
{
	AUTO_CLOSE int fd = openat(devices, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSEDIR DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	AUTO_FREE struct pci_addr *addrs = NULL;
	struct dirent *d;
	struct pci_addr addr;
	size_t n = 0;

	if (!dir)
		return -errno;
	STEAL_FD(fd);
	while ((d = readdir(dir)))
		if (parse_pci_addr(d->d_name, &addr) == 0)
			*PUSH_ZEROED(addrs, n) = addr;
	if (n)
		qsort(addrs, n, sizeof(addr), addr_cmp);
	*ret = xcalloc(n + 1, sizeof(**ret));
	for (size_t i = 0; i < n; i++)
		(*ret)[i].f.addr = addrs[i];
	*ret_n = n;
	return 0;
}

static void *read_some(void *arg)
{
	struct pci_reading *r = arg;
	size_t i;

	while ((i = atomic_fetch_add(&r->next, FUNCS_AT_A_TIME)) < r->n)
		for (size_t end = MIN(i + FUNCS_AT_A_TIME, r->n); i < end; i++)
			r->v[i].gone = !read_func(r->devices, &r->v[i]);
	return NULL;
}

/* With open files of its own: two threads that share them meet at each open(). One that may not is slower. */
static void *read_aside(void *arg)
{
	(void)unshare(CLONE_FILES);
	return read_some(arg);
}

static void join_all(struct pci_reading *r)
{
	while (r->n_threads > 0)
		pthread_join(r->threads[--r->n_threads], NULL);
}

/* Signals are the caller's. One that cannot be started has nothing to do. */
static void start_threads(struct pci_reading *r)
{
	sigset_t all, before;
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : MAX_THREADS;

	if (r->n <= FEW_FUNCS)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (r->n_threads < MIN(n, MAX_THREADS) - 1 && pthread_create(&r->threads[r->n_threads], NULL, read_aside, r) == 0)
		r->n_threads++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int probe_pci_begin(struct probe *p, struct err *e)
{
	AUTO_CLOSE int devices = openat(p->sys_fd, "bus/pci/devices", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct found *v = NULL;
	size_t n = 0;
	int r;

	if (devices < 0)
		return 0; /* a machine without PCI */
	r = list_functions(devices, &v, &n);
	if (r < 0)
		return err_sys(e, r, "list PCI functions");
	p->pci = xcalloc(1, sizeof(*p->pci));
	*p->pci = (struct pci_reading){ .devices = STEAL_FD(devices), .v = v, .n = n };
	start_threads(p->pci);
	return 0;
}

void probe_pci_end(struct probe *p)
{
	if (!p->pci)
		return;
	join_all(p->pci);
	close(p->pci->devices);
	free(p->pci->v);
	free(p->pci);
	p->pci = NULL;
}

static void put_together(const struct probe *p)
{
	struct pci_access *a = open_access(p);
	const struct pci_reading *r = p->pci;
	struct topology *t = p->t;
	bool usable = r->n && guarded(do_init, a);

	for (size_t i = 0; i < r->n; i++) {
		const struct found *x = &r->v[i];
		struct pci_func *f;

		if (x->gone)
			continue;
		f = PUSH_ZEROED(t->funcs, t->n_funcs);
		*f = x->f;
		/* Bridges have lower bus numbers than what is below them: they have been added already. */
		f->parent = x->is_below ? topology_find_func(t, &x->up) : -1;
		f->local_node = f->sysfs_node < 0 ? local_node(t, r->devices, &f->addr) : -1;
		f->port = f->class_code >> 8 != 0x0604 ? PORT_ENDPOINT : usable ? port_type(a, &f->addr) : PORT_UNKNOWN;
	}
	pci_cleanup(a);
}

/* The ConnectX-7 functions that manage the NVSwitches of B200 and B300 look like any NIC; only their vital product data tell
 * ("SMDL=SW_MNG").  Reading those takes the device milliseconds per word: it is done where such functions can be, on a
 * machine with NVIDIA GPUs and no NVSwitch on the bus. */
static void find_nvlink_managers(const struct topology *t, int devices)
{
	static const char mark[] = "SMDL=SW_MNG";
	bool gpus = false;

	for (size_t i = 0; i < t->n_funcs; i++) {
		const struct pci_func *f = &t->funcs[i];

		gpus |= f->vendor == 0x10de && f->class_code >> 8 == 0x0302;
		if (f->vendor == 0x10de && f->class_code >> 8 == 0x0680)
			return;
	}
	for (size_t i = 0; i < t->n_funcs && gpus; i++) {
		struct pci_func *f = &t->funcs[i];
		char bdf[PCI_ADDR_STR], vpd[1024];
		ssize_t n;

		if (f->vendor != 0x15b3 || f->is_vf || (f->class_code >> 8 != 0x0207 && f->class_code >> 8 != 0x0200))
			continue;
		n = probe_readf(devices, vpd, sizeof(vpd), "%s/vpd", pci_addr_format(&f->addr, bdf));
		f->manages_nvlink = n > 0 && memmem(vpd, (size_t)n, mark, strlen(mark));
	}
}

/* Functions that fell off the bus: the kernel still lists them, with the ids that it read at boot.  Only what VMs get is looked at; one that
 * sleeps without power (D3cold) would be woken by it.  While a function is being reset the kernel makes readers wait, for a second at most as a rule. */
void probe_dead(struct probe *p)
{
	struct topology *t = p->t;

	for (size_t i = 0; i < t->n_funcs; i++) {
		struct pci_func *f = &t->funcs[i];
		uint8_t config[PCI_CONFIG_HEAD + 1];
		char bdf[PCI_ADDR_STR], power[16];

		if (f->role == ROLE_OTHER || f->role == ROLE_BRIDGE || f->is_vf)
			continue;
		pci_addr_format(&f->addr, bdf);
		probe_readf(p->sys_fd, power, sizeof(power), "bus/pci/devices/%s/power_state", bdf);
		if (!strcmp(power, "D3cold") || probe_readf(p->sys_fd, (char *)config, sizeof(config), "bus/pci/devices/%s/config", bdf) < PCI_CONFIG_HEAD)
			continue;
		f->dead = pci_config_is_dead(config);
		if (f->dead && !f->bad)
			f->bad = xstrdup("it does not answer: its config space reads all ones (fallen off the bus)");
	}
}

void probe_pci(struct probe *p)
{
	if (!p->pci)
		return;
	read_some(p->pci);
	join_all(p->pci);
	put_together(p);
	probe_names(p);
	find_nvlink_managers(p->t, p->pci->devices);
	probe_pci_end(p);
}
