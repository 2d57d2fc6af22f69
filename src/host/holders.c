/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holders.c - who has a device: what the host does with it, and what workers see; waiting, and the words.
 * holders_dev.c finds the device nodes, holders_proc.c the processes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "gpuvm/probe.h"
#include "gpuvm/worker.h"
#include "holders_priv.h"

#define LOOK_MS	      20000 /* ten thousand processes take a second */
#define FIRST_PAUSE_MS 100
#define LAST_PAUSE_MS  2000
#define MAX_DEPTH      8    /* of stacked block devices, in words */
#define TEXT_DEVICES   4    /* named in a message; the rest are counted */
#define TEXT_EACH      3
#define DEVICE	       "/sys/bus/pci/devices/%s"

void holders_free(struct holder *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].what);
		free(v[i].hint);
	}
	free(v);
}

static struct holder *add(struct holder **v, size_t *n, const struct pci_addr *addr, enum holder_kind kind, char *what, char *hint)
{
	struct holder *h = PUSH_ZEROED(*v, *n);

	*h = (struct holder){ .addr = *addr, .kind = kind, .what = what, .hint = hint };
	return h;
}

/* --- what workers find --------------------------------------------------------------------------------------- */

enum excl_state { EXCL_UNKNOWN, EXCL_TRYING, EXCL_FREE, EXCL_HELD, EXCL_DENIED };

/* Shared with the workers. */
struct findings {
	struct held_hits hits;
	atomic_int excl[]; /* of each node, for block devices */
};

struct look {
	const struct sysfs *s;
	const struct held_things *t;
	struct findings *found;
};

static int look_at_processes(const void *arg, struct err *e)
{
	const struct look *l = arg;

	(void)e;
	held_scan_processes(l->s, l->t->nodes, l->t->n_nodes, &l->found->hits);
	return 0;
}

/* Without O_CREAT, O_EXCL on a block device fails if the kernel or a process has it for itself, or a part of it. */
static enum excl_state try_exclusive(const char *path, const struct held_node *n)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode) || st.st_rdev != makedev(n->major, n->minor))
		return EXCL_UNKNOWN;
	fd = open(path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		return EXCL_FREE;
	return errno == EBUSY ? EXCL_HELD : errno == EACCES || errno == EPERM ? EXCL_DENIED : EXCL_UNKNOWN;
}

static int look_at_disks(const void *arg, struct err *e)
{
	const struct look *l = arg;

	(void)e;
	for (size_t i = 0; i < l->t->n_nodes; i++) {
		const struct held_node *n = &l->t->nodes[i];
		AUTO_FREE char *path = xasprintf("%s/dev/%s", l->s->root, n->name);

		if (!n->block)
			continue;
		atomic_store(&l->found->excl[i], EXCL_TRYING);
		atomic_store(&l->found->excl[i], (int)try_exclusive(path, n));
	}
	return 0;
}

/* @why is freed. */
static int incomplete(struct err *e, int code, char *why)
{
	err_set(e, code, "not all users of the devices could be found: %s", why);
	free(why);
	return 1;
}

/* 0; 1 with words in @e if it is not all. */
static int run_looks(const struct look *l, struct err *e)
{
	/* One after the other: the first has disks open, and the second would find it so. */
	struct worker_job jobs[] = { { .run = look_at_disks, .arg = l }, { .run = look_at_processes, .arg = l } };
	unsigned int denied;

	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (l->s->serial)
			jobs[i].run(l, &jobs[i].err);
		else
			workers_run(&jobs[i], 1, LOOK_MS);
	}
	denied = atomic_load(&l->found->hits.denied);
	for (size_t i = 0; i < l->t->n_nodes; i++) {
		if (atomic_load(&l->found->excl[i]) == EXCL_TRYING)
			return incomplete(e, -ETIMEDOUT, xasprintf("opening '/dev/%s' does not end", l->t->nodes[i].name));
		denied += atomic_load(&l->found->excl[i]) == EXCL_DENIED;
	}
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		if (jobs[i].err.code < 0)
			return incomplete(e, jobs[i].err.code, xstrdup(jobs[i].err.msg));
	if (denied)
		return incomplete(e, -EACCES, xasprintf("no permission to look at %u of the processes and disks", denied));
	if (atomic_load(&l->found->hits.full))
		return incomplete(e, -E2BIG, xasprintf("there are more than %d", HELD_HITS_MAX));
	return 0;
}

/* --- processes -------------------------------------------------------------------------------------------------- */

/* Names as the kernel has them: 15 characters. %s: the device's address. */
static const struct {
	const char *comm, *hint;
} known[] = {
	{ "nvidia-persiste", "nvidia-smi -i %s -pm 0, or systemctl stop nvidia-persistenced" },
	{ "nv-fabricmanage", "systemctl stop nvidia-fabricmanager, unless VMs share the NVSwitches" },
	{ "nv-hostengine", "systemctl stop nvidia-dcgm" },
	{ "dcgm-exporter", "stop the DCGM exporter, or its container" },
	{ "nvidia-smi", "it ends by itself, unless it runs with -l" },
	{ "Xorg", "systemctl isolate multi-user.target" },
	{ "gnome-shell", "systemctl isolate multi-user.target" },
	{ "qemu-system-x86", "a VM has it: gpuvm list, virsh list" },
	{ "qemu-kvm", "a VM has it: gpuvm list, virsh list" },
	{ "opensm", "systemctl stop opensm" },
	{ "smartd", "systemctl stop smartd" },
	{ "multipathd", "multipath -f the disk, and add it to the blacklist in multipath.conf" },
};

static char *hint_for(const char *comm, const struct pci_addr *addr)
{
	char bdf[PCI_ADDR_STR];

	pci_addr_format(addr, bdf);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		const char *at = strstr(known[i].hint, "%s");

		if (strcmp(known[i].comm, comm))
			continue;
		return at ? xasprintf("%.*s%s%s", (int)(at - known[i].hint), known[i].hint, bdf, at + 2) : xstrdup(known[i].hint);
	}
	return NULL;
}

static void add_processes(const struct look *l, size_t func, const struct pci_addr *addr, struct holder **v, size_t *n)
{
	const struct held_hits *hits = &l->found->hits;
	size_t n_hits = atomic_load(&hits->n);

	for (size_t i = 0; i < n_hits; i++) {
		const struct held_hit *hit = &hits->v[i];
		const struct held_node *node = &l->t->nodes[hit->node];
		struct holder *h;

		if (node->func != func)
			continue;
		h = add(v, n, addr, hit->mapped ? HOLDER_MAPPED : HOLDER_OPEN,
			node->all_minors ? xasprintf("/dev/%s%u", node->name, hit->minor) : xasprintf("/dev/%s", node->name),
			hint_for(hit->comm, addr));
		h->pid = hit->pid;
		memcpy(h->comm, hit->comm, sizeof(h->comm));
	}
}

static bool process_has_disk(const struct look *l, size_t func)
{
	size_t n_hits = atomic_load(&l->found->hits.n);

	for (size_t i = 0; i < n_hits; i++) {
		const struct held_node *node = &l->t->nodes[l->found->hits.v[i].node];

		if (node->func == func && node->block)
			return true;
	}
	return false;
}

/* --- the host itself --------------------------------------------------------------------------------------------- */

/* " and that of dm-0 (vg-root)", as far as it goes; owned. */
static char *stacked_on(const struct sysfs *s, const char *name)
{
	char *out = xstrdup(""), *at = xstrdup(name);

	for (int depth = 0; depth < MAX_DEPTH && at; depth++) {
		struct strv above = { 0 };
		AUTO_FREE char *before = NULL, *label = NULL;

		sysfs_list(s, &above, "/sys/class/block/%s/holders", at);
		free(at);
		at = above.n ? xstrdup(above.v[0]) : NULL;
		strv_clear(&above);
		if (!at)
			break;
		label = sysfs_read(s, "/sys/class/block/%s/dm/name", at);
		before = out;
		out = xasprintf("%s%s%s%s%s%s", before, *before ? ", and that of " : "", at, label ? " (" : "", label ? label : "", label ? ")" : "");
	}
	free(at);
	return out;
}

/* "nvme0n1p3 is a part of md127, and that of dm-0 (vg-data)" */
static bool add_stacked(const struct look *l, size_t func, const struct pci_addr *addr, struct holder **v, size_t *n)
{
	for (size_t i = 0; i < l->t->n_nodes; i++) {
		const struct held_node *node = &l->t->nodes[i];
		AUTO_FREE char *above = node->func == func && node->block ? stacked_on(l->s, node->name) : NULL;

		if (!above || !*above)
			continue;
		add(v, n, addr, HOLDER_USE, xasprintf("%s is a part of %s", node->name, above),
		    xstrdup("vgchange -an, dmsetup remove or mdadm --stop"));
		return true;
	}
	return false;
}

/* The last node that is held: a partition rather than the disk around it, which is held along with it. */
static bool add_exclusive(const struct look *l, size_t func, const struct pci_addr *addr, struct holder **v, size_t *n)
{
	const struct held_node *held = NULL;

	for (size_t i = 0; i < l->t->n_nodes; i++) {
		const struct held_node *node = &l->t->nodes[i];

		if (node->func == func && atomic_load(&l->found->excl[i]) == EXCL_HELD && (!held || strlen(node->name) > strlen(held->name)))
			held = node;
	}
	if (!held)
		return false;
	add(v, n, addr, HOLDER_USE, xasprintf("the kernel has %s for itself (ZFS, btrfs, a mount in a container, ...)", held->name),
	    xasprintf("lsblk -f /dev/%s; zpool export or umount", held->name));
	return true;
}

static bool add_enslaved(const struct look *l, size_t func, const struct pci_addr *addr, struct holder **v, size_t *n)
{
	for (size_t i = 0; i < l->t->n_nets; i++) {
		const struct held_net *net = &l->t->nets[i];
		AUTO_FREE char *master = net->func == func ? sysfs_link_name(l->s, "/sys/class/net/%s/master", net->name) : NULL;

		if (!master)
			continue;
		add(v, n, addr, HOLDER_USE, xasprintf("network interface %s is a member of %s", net->name, master),
		    xasprintf("ip link set %s nomaster", net->name));
		return true;
	}
	return false;
}

static void add_vfs(const struct sysfs *s, const struct pci_addr *addr, struct holder **v, size_t *n)
{
	struct strv names = { 0 };
	unsigned int vfs = 0;
	char bdf[PCI_ADDR_STR];

	sysfs_list(s, &names, DEVICE, pci_addr_format(addr, bdf));
	for (size_t i = 0; i < names.n; i++)
		vfs += !strncmp(names.v[i], "virtfn", strlen("virtfn"));
	strv_clear(&names);
	if (vfs)
		add(v, n, addr, HOLDER_VFS, xasprintf("it has %u virtual function%s, which would go with it", vfs, vfs == 1 ? "" : "s"),
		    xasprintf("echo 0 > /sys/bus/pci/devices/%s/sriov_numvfs", bdf));
}

/* One reason of the host is enough: a mount is also what has the disk exclusively. */
static void add_host_use(const struct look *l, const struct topology *use, size_t func, const struct pci_addr *addr, struct holder **v, size_t *n)
{
	int at = topology_find_func(use, addr);

	if (at >= 0 && use->funcs[at].host_use)
		add(v, n, addr, HOLDER_USE, xstrdup(use->funcs[at].host_use), NULL);
	else if (!add_stacked(l, func, addr, v, n) && !add_enslaved(l, func, addr, v, n) && !process_has_disk(l, func))
		add_exclusive(l, func, addr, v, n);
	add_vfs(l->s, addr, v, n);
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

static int func_cmp(const void *a, const void *b)
{
	return pci_addr_cmp(&((const struct pci_func *)a)->addr, &((const struct pci_func *)b)->addr);
}

/* A machine of just these functions, for probe_host_use(). */
static int read_host_use(const struct sysfs *s, const struct pci_addr *v, size_t n, struct topology *ret, struct err *e)
{
	ret->funcs = xcalloc(n, sizeof(*ret->funcs));
	ret->n_funcs = n;
	for (size_t i = 0; i < n; i++)
		ret->funcs[i].addr = v[i];
	qsort(ret->funcs, n, sizeof(*ret->funcs), func_cmp);
	return probe_host_use(s->root, ret, e);
}

int holders_find(const struct sysfs *s, const struct pci_addr *v, size_t n, struct holder **ret, size_t *ret_n, struct err *e)
{
	CLEANUP(held_things_clear) struct held_things things = { 0 };
	CLEANUP(topology_clear) struct topology use = { 0 };
	struct look look = { .s = s, .t = &things };
	struct holder *found = NULL;
	size_t n_found = 0, size;
	int r = n ? read_host_use(s, v, n, &use, e) : 0;

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		char bdf[PCI_ADDR_STR];

		held_things_add(s, i, pci_addr_format(&v[i], bdf), &things);
	}
	size = sizeof(*look.found) + things.n_nodes * sizeof(look.found->excl[0]);
	look.found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (look.found == MAP_FAILED)
		return err_sys(e, -errno, "cannot share memory with the workers");
	r = run_looks(&look, e);
	for (size_t i = 0; i < n; i++) {
		add_processes(&look, i, &v[i], &found, &n_found);
		add_host_use(&look, &use, i, &v[i], &found, &n_found);
	}
	munmap(look.found, size);
	*ret = found;
	*ret_n = n_found;
	return r;
}

/* --- words ---------------------------------------------------------------------------------------------------------- */

static void print_holder(const struct holder *h, FILE *out)
{
	if (h->pid)
		fprintf(out, "process %d (%s) has %s %s", h->pid, h->comm, h->what, h->kind == HOLDER_MAPPED ? "mapped" : "open");
	else
		fputs(h->what, out);
	if (h->hint)
		fprintf(out, " [%s]", h->hint);
}

/* Those of one function, which are neighbours in the list: how many there are from @v on. */
static size_t same_device(const struct holder *v, size_t n)
{
	size_t i = 0;

	while (i < n && pci_addr_cmp(&v[i].addr, &v[0].addr) == 0)
		i++;
	return i;
}

char *holders_text(const struct holder *v, size_t n)
{
	size_t len = 0, devices = 0;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	for (size_t i = 0, count; i < n; i += count, devices++) {
		char bdf[PCI_ADDR_STR];

		count = same_device(v + i, n - i);
		if (devices >= TEXT_DEVICES)
			continue;
		fprintf(out, "%s%s is in use: ", i ? "; " : "", pci_addr_format(&v[i].addr, bdf));
		for (size_t k = 0; k < count && k < TEXT_EACH; k++) {
			fputs(k ? ", " : "", out);
			print_holder(&v[i + k], out);
		}
		if (count > TEXT_EACH)
			fprintf(out, " and %zu more", count - TEXT_EACH);
	}
	if (devices > TEXT_DEVICES)
		fprintf(out, "; and so are %zu more devices", devices - TEXT_DEVICES);
	fclose(out);
	return text;
}

/* --- waiting ----------------------------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static bool only_processes(const struct holder *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!v[i].pid)
			return false;
	return true;
}

/* Until one of the processes has ended, or @pause_ms have passed; -EINTR: cancelled. */
static int wait_for_end(const struct holder *v, size_t n, int cancel_fd, uint64_t pause_ms)
{
	AUTO_FREE struct pollfd *p = xcalloc(n + 1, sizeof(*p));
	int r;

	p[0] = (struct pollfd){ .fd = cancel_fd, .events = POLLIN };
	for (size_t i = 0; i < n; i++) {
		bool again = i > 0 && v[i].pid == v[i - 1].pid;

		/* One that has just gone is not found by the next look; that comes after the pause. */
		p[i + 1] = (struct pollfd){ .fd = again ? -1 : pidfd_open(v[i].pid, 0), .events = POLLIN };
	}
	r = poll(p, n + 1, (int)pause_ms);
	for (size_t i = 1; i <= n; i++)
		close_cleanup(&p[i].fd);
	return r > 0 && p[0].revents ? -EINTR : 0;
}

static uint64_t next_pause(uint64_t pause_ms, uint64_t left_ms)
{
	uint64_t p = pause_ms * 2 < LAST_PAUSE_MS ? pause_ms * 2 : LAST_PAUSE_MS;

	return p < left_ms ? p : left_ms;
}

static int give_up(int code, const char *why, struct holder *v, size_t n, struct holder **ret, size_t *ret_n, struct err *e)
{
	AUTO_FREE char *text = holders_text(v, n);

	err_set(e, code, "%s%s", text, why);
	e->word = "device-busy";
	*ret = v;
	*ret_n = n;
	return code;
}

int holders_wait(const struct sysfs *s, const struct pci_addr *v, size_t n, const struct holders_wait *o, struct holder **ret, size_t *ret_n,
		 struct err *e)
{
	uint64_t start = 0, pause_ms = FIRST_PAUSE_MS / 2;

	for (;;) {
		struct holder *who = NULL;
		size_t n_who = 0;
		struct err part = { 0 };
		int r = holders_find(s, v, n, &who, &n_who, &part);
		uint64_t now = now_ms(), waited;

		/* A look itself may take a while. */
		start = start ? start : now;
		waited = now - start;

		if (r < 0 || !n_who) {
			if (r)
				*e = part;
			*ret = NULL;
			*ret_n = 0;
			return r;
		}
		if (!only_processes(who, n_who))
			return give_up(-EBUSY, "", who, n_who, ret, ret_n, e);
		if (waited >= o->timeout_ms) {
			AUTO_FREE char *why = o->timeout_ms ? xasprintf("; waited %u s for that to end", o->timeout_ms / 1000) : xstrdup("");

			return give_up(-ETIMEDOUT, why, who, n_who, ret, ret_n, e);
		}
		if (o->progress)
			o->progress(o->ctx, who, n_who, waited);
		pause_ms = next_pause(pause_ms, o->timeout_ms - waited);
		if (wait_for_end(who, n_who, o->cancel_fd, pause_ms) == -EINTR)
			return give_up(-EINTR, "; no longer waited for", who, n_who, ret, ret_n, e);
		holders_free(who, n_who);
	}
}
