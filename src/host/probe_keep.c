/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_keep.c - what the probe and doctor read, as a table, and the walk over it.
 *
 * How it works: each row names folders by a pattern and, in them, files whose text is kept, links that are kept as they
 * are, and entries that only have to be there.  Where the pattern leads through a link, the link is kept and the walk goes
 * on at its end, so that every file comes once, below sys/devices, as the kernel has it.  Files that need more than
 * copying (addresses, names, ids) have a function in their row.
 *
 * Names of interfaces and volumes may be made of a MAC or a UUID: twelve or more hexadecimal digits in a row become
 * "idN", the same N for the same digits everywhere in one capture. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "capture_priv.h"
#include "gpuvm/capture.h"
#include "gpuvm/doctor.h"
#include "gpuvm/parse.h"
#include "gpuvm/strv.h"
#include "probe_keep.h"

#define MAX_FILE     (64 << 10) /* of sysfs: an attribute has at most a page, config space too */
#define MIN_ID       12         /* hexadecimal digits: a MAC has as many */
#define CONFIG_BYTES 4096

struct keeper {
	const struct probe *p;
	const struct keep_sink *s;
	const char *host_name;
	struct strv ids;       /* runs of digits that were replaced */
	struct strv pci_names; /* "10de", "10de:2335": what the functions are */
	bool nvidia_gpus, nvswitches;
	struct strv nics;      /* folders of functions that may manage NVSwitches */
	size_t n_denied;       /* files that we may not read */
	size_t n_short_config;
	char first_denied[256];
	struct keep_counts counts;
	char buf[MAX_FILE];
};

struct row {
	const char *dir;     /* pattern; "*" stays inside one name */
	const char *files;   /* names or patterns, blanks between them */
	const char *links;
	const char *present; /* a link as it is, a folder, or an empty file */
	int (*more)(struct keeper *k, int fd, const char *dir);
	bool bare; /* the folder itself is not kept */
};

/* --- scrubbing ------------------------------------------------------------------------------------------ */

static size_t id_number(struct keeper *k, const char *s, size_t n)
{
	AUTO_FREE char *id = xstrndup(s, n);
	size_t i = 0;

	while (i < k->ids.n && strcmp(k->ids.v[i], id))
		i++;
	if (i == k->ids.n)
		strv_push(&k->ids, id);
	return i + 1;
}

/* @s without what identifies a device or volume; owned. */
static char *scrub(struct keeper *k, const char *s)
{
	char *out = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&out, &len);

	while (*s) {
		size_t n = strspn(s, "0123456789abcdefABCDEF-"), digits = 0;

		for (size_t i = 0; i < n; i++)
			digits += s[i] != '-';
		if (digits >= MIN_ID)
			fprintf(f, "id%zu", id_number(k, s, n));
		else
			fwrite(s, 1, n ? n : 1, f);
		s += n ? n : 1;
	}
	fclose(f);
	return out;
}

static int put_link(struct keeper *k, const char *path, const char *target)
{
	AUTO_FREE char *a = scrub(k, path), *b = scrub(k, target);

	return k->s->link(k->s->ctx, a, b);
}

static int put_file(struct keeper *k, const char *path, const void *data, size_t len)
{
	AUTO_FREE char *a = scrub(k, path);

	return k->s->file(k->s->ctx, a, data, len);
}

static int put_text(struct keeper *k, const char *path, const char *text)
{
	return put_file(k, path, text, strlen(text));
}

static int put_dir(struct keeper *k, const char *path)
{
	AUTO_FREE char *a = scrub(k, path);

	return k->s->dir(k->s->ctx, a);
}

/* --- entries ------------------------------------------------------------------------------------------------ */

static void note_denied(struct keeper *k, const char *dir, const char *name, int error)
{
	/* That the kernel has no value, it says with many errors; that we may not see it, with these. */
	if (error != EACCES && error != EPERM && error != EIO)
		return;
	if (!k->n_denied++)
		snprintf(k->first_denied, sizeof(k->first_denied), "/%s/%s: %s", dir, name, strerror(error));
}

/* All of a small file into k->buf: its length or -Exxx. */
static ssize_t read_small(struct keeper *k, int fd, const char *dir, const char *name, size_t max)
{
	AUTO_CLOSE int file = openat(fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	size_t len = 0;
	ssize_t n = 0;

	if (file >= 0)
		while (len < max && (n = read(file, k->buf + len, max - len)) > 0)
			len += (size_t)n;
	if (file < 0 || (n < 0 && !len)) {
		int error = errno;

		note_denied(k, dir, name, error);
		return -error;
	}
	return (ssize_t)len;
}

static int keep_file(struct keeper *k, int fd, const char *dir, const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, name);
	ssize_t n = read_small(k, fd, dir, name, sizeof(k->buf));

	return n < 0 ? 0 : put_file(k, path, k->buf, (size_t)n);
}

static int keep_link(struct keeper *k, int fd, const char *dir, const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, name);
	char target[PATH_MAX];

	return probe_link(fd, name, target, sizeof(target)) < 0 ? 0 : put_link(k, path, target);
}

static int keep_present(struct keeper *k, int fd, const char *dir, const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, name);
	struct stat st;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (S_ISLNK(st.st_mode))
		return keep_link(k, fd, dir, name);
	return S_ISDIR(st.st_mode) ? put_dir(k, path) : put_text(k, path, "");
}

typedef int (*entry_fn)(struct keeper *k, int fd, const char *dir, const char *name);

static bool is_pattern(const char *s)
{
	return s[strcspn(s, "*[?")] != '\0';
}

/* Names in a folder that match, sorted: a capture is the same each time. */
static void matching(int fd, const char *pattern, struct strv *ret)
{
	struct dirent **v = NULL;
	int n = scandirat(fd, ".", &v, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		if (v[i]->d_name[0] != '.' && fnmatch(pattern, v[i]->d_name, 0) == 0)
			strv_push(ret, v[i]->d_name);
		free(v[i]);
	}
	free(v);
}

/* @fn for each of @names (blanks between them) that may be in the folder. */
static int each_name(struct keeper *k, int fd, const char *dir, const char *names, entry_fn fn)
{
	AUTO_FREE char *copy = names ? xstrdup(names) : NULL;
	char *save = NULL;
	int r = 0;

	for (char *w = copy ? strtok_r(copy, " ", &save) : NULL; w && r == 0; w = strtok_r(NULL, " ", &save)) {
		CLEANUP(strv_clear) struct strv found = { 0 };

		if (!is_pattern(w)) {
			r = fn(k, fd, dir, w);
			continue;
		}
		matching(fd, w, &found);
		for (size_t i = 0; i < found.n && r == 0; i++)
			r = fn(k, fd, dir, found.v[i]);
	}
	return r;
}

/* --- PCI ---------------------------------------------------------------------------------------------------------- */

static bool ids_known(const struct keeper *k, const char *s)
{
	/* From the end: neighbours are alike. */
	for (size_t i = k->pci_names.n; i-- > 0;)
		if (!strcmp(k->pci_names.v[i], s))
			return true;
	return false;
}

static void remember_ids(struct keeper *k, unsigned int vendor, unsigned int device)
{
	char s[16];

	snprintf(s, sizeof(s), "%04x:%04x", vendor & 0xffff, device & 0xffff);
	if (ids_known(k, s))
		return;
	strv_push(&k->pci_names, s);
	s[4] = '\0';
	if (!ids_known(k, s))
		strv_push(&k->pci_names, s);
}

/* modalias has all ids; the files are for kernels that do not show it. Returns the class, 0 if unknown. */
static unsigned int keep_ids(struct keeper *k, int fd, const char *dir, int *r)
{
	unsigned int vendor = 0, device = 0, base = 0, sub = 0;
	char buf[96];

	if (probe_read(fd, "modalias", buf, sizeof(buf)) > 0 &&
	    sscanf(buf, "pci:v%8Xd%8Xsv%*8Xsd%*8Xbc%2Xsc%2X", &vendor, &device, &base, &sub) == 4) {
		*r = keep_file(k, fd, dir, "modalias");
	} else {
		*r = each_name(k, fd, dir, "vendor device class subsystem_vendor subsystem_device", keep_file);
		vendor = (unsigned int)probe_read_u64(fd, "vendor");
		device = (unsigned int)probe_read_u64(fd, "device");
		base = (unsigned int)(probe_read_u64(fd, "class") >> 16) & 0xff;
		sub = (unsigned int)(probe_read_u64(fd, "class") >> 8) & 0xff;
	}
	remember_ids(k, vendor, device);
	return base << 8 | sub;
}

static void blank(unsigned char *c, size_t size, size_t from, size_t n)
{
	if (from < size)
		memset(c + from, 0, n < size - from ? n : size - from);
}

/* The device serial number (of a NIC it is a MAC), the word that was last read of the VPD, and what vendors put there. */
static void blank_config(unsigned char *c, size_t size)
{
	for (size_t at = size >= 64 ? c[0x34] & 0xfcu : 0, steps = 0; at >= 64 && at + 4 <= size && steps < 48; steps++) {
		if (c[at] == 0x03)
			blank(c, size, at + 2, 6);
		else if (c[at] == 0x09 && c[at + 2] > 3)
			blank(c, size, at + 3, c[at + 2] - 3u);
		at = c[at + 1] & 0xfcu;
	}
	for (size_t at = 256, steps = 0; at >= 256 && at + 8 <= size && steps < 480; steps++) {
		unsigned int id = c[at] | (unsigned int)c[at + 1] << 8;
		size_t bytes = (size_t)(c[at + 6] >> 4) | (size_t)c[at + 7] << 4;

		if (id == 0x0003)
			blank(c, size, at + 4, 8);
		else if ((id == 0x000b || id == 0x0023) && bytes > 8)
			blank(c, size, at + 8, bytes - 8);
		at = (size_t)(c[at + 2] >> 4) | (size_t)c[at + 3] << 4;
		at &= ~(size_t)3;
	}
}

/* Config space costs the device a read for each word: virtual functions, of which there are many, have nothing in it
 * that is needed. */
static int keep_config(struct keeper *k, int fd, const char *dir, bool bridge)
{
	AUTO_FREE char *path = xasprintf("%s/config", dir);
	ssize_t n = read_small(k, fd, dir, "config", CONFIG_BYTES);

	if (n < 0)
		return 0;
	blank_config((unsigned char *)k->buf, (size_t)n);
	k->n_short_config += bridge && n <= 64;
	return put_file(k, path, k->buf, (size_t)n);
}

/* Who is who, for keep_vpd(). */
static void note_nvlink(struct keeper *k, int fd, const char *dir, unsigned int class_code)
{
	char buf[16];

	if (probe_read(fd, "modalias", buf, sizeof(buf)) < (ssize_t)strlen("pci:v000010DE"))
		return;
	if (!strncasecmp(buf, "pci:v000010DE", 13)) {
		k->nvidia_gpus |= class_code == 0x0302;
		k->nvswitches |= class_code == 0x0680;
	} else if (!strncasecmp(buf, "pci:v000015B3", 13) && (class_code == 0x0207 || class_code == 0x0200)) {
		strv_push(&k->nics, dir);
	}
}

static int keep_function(struct keeper *k, int fd, const char *dir)
{
	bool vf = probe_exists(fd, "physfn");
	int r;
	unsigned int class_code = keep_ids(k, fd, dir, &r);

	k->counts.n_functions++;
	if (!vf)
		note_nvlink(k, fd, dir, class_code);
	if (r == 0 && probe_read_int(fd, "numa_node", -1) < 0)
		r = keep_file(k, fd, dir, "local_cpulist");
	if (r == 0 && !vf)
		r = each_name(k, fd, dir, "max_link_speed max_link_width current_link_speed current_link_width", keep_file);
	if (r == 0 && !vf && probe_exists(fd, "virtfn0"))
		r = keep_file(k, fd, dir, "sriov_numvfs");
	if (r == 0 && class_code >> 8 == 0x03)
		r = keep_file(k, fd, dir, "boot_vga");
	if (r == 0 && !vf)
		r = each_name(k, fd, dir, "power_state aer_dev_fatal aer_dev_nonfatal aer_dev_correctable", keep_file);
	/* Newer kernels have both; one tells. */
	if (r == 0)
		r = probe_exists(fd, "reset_method") ? keep_file(k, fd, dir, "reset_method") : keep_present(k, fd, dir, "reset");
	return r == 0 && !vf ? keep_config(k, fd, dir, class_code == 0x0604) : r;
}

/* Of vital product data, which are serial numbers for the most part, only the one mark that the probe looks for, and
 * only where the probe does. */
static int keep_vpd(struct keeper *k, int fd, const char *dir)
{
	static const char mark[] = "SMDL=SW_MNG";
	int r = 0;

	(void)fd;
	(void)dir;
	for (size_t i = 0; i < k->nics.n && r == 0 && k->nvidia_gpus && !k->nvswitches; i++) {
		AUTO_FREE char *path = xasprintf("%s/vpd", k->nics.v[i]);
		char vpd[1024];
		ssize_t n = probe_read(k->p->root_fd, path, vpd, sizeof(vpd));

		if (n > 0 && memmem(vpd, (size_t)n, mark, strlen(mark)))
			r = put_text(k, path, mark);
	}
	return r;
}

/* Of the list of all devices' names, those that are here. */
static int keep_names(struct keeper *k, int fd, const char *dir)
{
	AUTO_FREE char *text = probe_read_all(fd, "pci.ids"), *out = NULL;
	bool vendor_kept = false;
	char *save = NULL, vendor[8] = "", key[16];
	size_t len = 0;
	FILE *f;
	int r;

	(void)dir;
	if (!text)
		return 0;
	f = open_memstream(&out, &len);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (strspn(line, "0123456789abcdef") == 4) {
			snprintf(vendor, sizeof(vendor), "%.4s", line);
			vendor_kept = ids_known(k, vendor);
			if (vendor_kept)
				fprintf(f, "%s\n", line);
		} else if (vendor_kept && *line == '\t' && line[1] != '\t') {
			snprintf(key, sizeof(key), "%s:%.4s", vendor, line + 1);
			if (ids_known(k, key))
				fprintf(f, "%s\n", line);
		} else if (*line != '\t') {
			vendor_kept = false; /* comments, and the classes at the end */
		}
	}
	fclose(f);
	/* libpci looks in one place; distributions have two. */
	r = len ? put_file(k, "usr/share/misc/pci.ids", out, len) : 0;
	return r;
}

/* --- CPUs ----------------------------------------------------------------------------------------------------------- */

static int count_cpu(struct keeper *k, int fd, const char *dir)
{
	(void)fd;
	(void)dir;
	k->counts.n_cpus++;
	return 0;
}

/* The first CPU's paragraph: what is read of it, all others say, too. */
static int keep_cpuinfo(struct keeper *k, int fd, const char *dir)
{
	ssize_t n = read_small(k, fd, dir, "cpuinfo", sizeof(k->buf) - 1);
	char *end;

	if (n < 0)
		return 0;
	k->buf[n] = '\0';
	end = strstr(k->buf, "\n\n");
	if (end)
		end[1] = '\0';
	return put_text(k, "proc/cpuinfo", k->buf);
}

/* Are interrupts remapped? That is in the names of their chips; names of devices and counts are not needed. */
static int keep_interrupts(struct keeper *k, int fd, const char *dir)
{
	AUTO_FREE char *text = probe_read_all(fd, "interrupts");

	(void)dir;
	return text ? put_text(k, "proc/interrupts", strstr(text, " IR-") ? " IR-\n" : strstr(text, "IO-APIC") ? " IO-APIC\n" : "") : 0;
}

/* The first one shows that there are processes, so that another one which is not there does not run. */
static int keep_process(struct keeper *k, int fd, const char *dir)
{
	char comm[32];

	if (probe_read(fd, "comm", comm, sizeof(comm)) <= 0)
		return 0;
	return doctor_wants_process(comm) || !strcmp(dir, "proc/1") ? keep_file(k, fd, dir, "comm") : 0;
}

/* Only words that are looked at: others have names of volumes, addresses, and whatever somebody gives to init. */
static int keep_cmdline(struct keeper *k, int fd, const char *dir)
{
	AUTO_FREE char *text = probe_read_all(fd, "cmdline"), *out = NULL;
	char *save = NULL;
	size_t len = 0;
	FILE *f;

	(void)dir;
	if (!text)
		return 0;
	f = open_memstream(&out, &len);
	for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save))
		if (doctor_wants_word(w))
			fprintf(f, "%s%s", ftell(f) ? " " : "", w);
	fputc('\n', f);
	fclose(f);
	return put_text(k, "proc/cmdline", out);
}

/* --- names and addresses ----------------------------------------------------------------------------------------------- */

static int keep_host_name(struct keeper *k, int fd, const char *dir)
{
	if (!k->host_name)
		return keep_file(k, fd, dir, "hostname");
	return put_text(k, "proc/sys/kernel/hostname", k->host_name);
}

static int keep_machine_id(struct keeper *k, int fd, const char *dir)
{
	(void)dir;
	return probe_exists(fd, "machine-id") ? put_text(k, "etc/machine-id", CAPTURE_MACHINE_ID) : 0;
}

/* A file line by line through @fn, which writes to @out what is to be kept. */
static int keep_lines(struct keeper *k, int fd, const char *dir, const char *name,
		      void (*fn)(struct keeper *k, char *line, FILE *out))
{
	AUTO_FREE char *text = probe_read_all(fd, name), *path = xasprintf("%s/%s", dir, name), *out = NULL;
	char *save = NULL;
	size_t len = 0;
	FILE *f;

	if (!text) {
		note_denied(k, dir, name, errno);
		return 0;
	}
	f = open_memstream(&out, &len);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		fn(k, line, f);
	fclose(f);
	return k->s->file(k->s->ctx, path, out, len);
}

/* Only file systems on a device or a share say something about devices. Options, and what a mount shows of its file
 * system, are left out: they have names of servers and containers. */
static void mount_line(struct keeper *k, char *line, FILE *out)
{
	AUTO_FREE char *where = NULL, *what = NULL;
	char device[64], link[80], point[PATH_MAX], type[64], source[PATH_MAX];
	const char *tail = strstr(line, " - ");

	if (!tail || strlen(line) >= PATH_MAX || sscanf(line, "%*s %*s %63s %*s %4095s", device, point) != 2 ||
	    sscanf(tail, " - %63s %4095s", type, source) != 2)
		return;
	snprintf(link, sizeof(link), "dev/block/%s", device);
	if (strncmp(source, "/dev/", 5) && strcmp(type, "9p") && !probe_exists(k->p->sys_fd, link))
		return;
	where = scrub(k, point);
	what = scrub(k, source);
	fprintf(out, "1 1 %s / %s rw - %s %s rw\n", device, where, type, what);
}

static void scrubbed_line(struct keeper *k, char *line, FILE *out)
{
	AUTO_FREE char *clean = scrub(k, line);

	fprintf(out, "%s\n", clean);
}

/* Which interface has the default route, and which another: that is all. */
static void route_line(struct keeper *k, char *line, FILE *out)
{
	AUTO_FREE char *name = NULL;
	char raw[64];
	unsigned int destination, mask;

	if (sscanf(line, "%63s %8X %*s %*s %*s %*s %*s %8X", raw, &destination, &mask) != 3)
		return;
	name = scrub(k, raw);
	fprintf(out, "%s\t00000000\t00000000\t0001\t0\t0\t0\t%s\t0\t0\t0\n", name,
		!destination && !mask ? "00000000" : "FFFFFFFF");
}

static void route6_line(struct keeper *k, char *line, FILE *out)
{
	static const char zero[] = "00000000000000000000000000000000";
	AUTO_FREE char *name = NULL;
	char raw[64];
	unsigned int length, flags;

	if (sscanf(line, "%*32s %x %*32s %*x %*32s %*x %*x %*x %x %63s", &length, &flags, raw) != 3 || length)
		return;
	name = scrub(k, raw);
	fprintf(out, "%s 00 %s 00 %s 00000000 00000000 00000000 %08x %s\n", zero, zero, zero, flags, name);
}

static void address6_line(struct keeper *k, char *line, FILE *out)
{
	AUTO_FREE char *name = NULL;
	char raw[64];
	unsigned int scope;

	if (sscanf(line, "%*32s %*x %*x %x %*x %63s", &scope, raw) != 2)
		return;
	name = scrub(k, raw);
	fprintf(out, "00000000000000000000000000000000 00 00 %02x 00 %s\n", scope, name);
}

static int keep_network(struct keeper *k, int fd, const char *dir)
{
	int r = keep_lines(k, fd, dir, "route", route_line);

	if (r == 0)
		r = keep_lines(k, fd, dir, "ipv6_route", route6_line);
	return r == 0 ? keep_lines(k, fd, dir, "if_inet6", address6_line) : r;
}

static int keep_mounts(struct keeper *k, int fd, const char *dir)
{
	int r = keep_lines(k, fd, dir, "self/mountinfo", mount_line);

	return r == 0 ? keep_lines(k, fd, dir, "swaps", scrubbed_line) : r;
}

static int keep_volume(struct keeper *k, int fd, const char *dir)
{
	return probe_exists(fd, "dm/name") ? keep_lines(k, fd, dir, "dm/name", scrubbed_line) : 0;
}

static void module_line(struct keeper *k, char *line, FILE *out)
{
	(void)k;
	if (strstr(line, "/vfio-pci.ko") || strstr(line, "/vhost_net.ko") || strstr(line, "/vhost_vsock.ko"))
		fprintf(out, "%s\n", line);
}

/* Which GPU is which for the fabric, as the operator wrote it down: a plan needs it. */
static int keep_fabric(struct keeper *k, int fd, const char *dir)
{
	return probe_exists(fd, "fabric.conf") ? keep_lines(k, fd, dir, "fabric.conf", scrubbed_line) : 0;
}

/* Can vfio-pci, vhost_net and vhost_vsock be loaded? Only for the kernel that runs. */
static int keep_modules(struct keeper *k, int fd, const char *dir)
{
	char release[96];
	int r = 0;

	if (probe_read(k->p->proc_fd, "sys/kernel/osrelease", release, sizeof(release)) <= 0 || strchr(release, '/'))
		return 0;
	for (int i = 0; i < 2 && r == 0; i++) {
		AUTO_FREE char *name = xasprintf("%s/modules.%s", release, i ? "dep" : "builtin");

		if (probe_exists(fd, name))
			r = keep_lines(k, fd, dir, name, module_line);
	}
	return r;
}

/* --- the table ------------------------------------------------------------------------------------------------------------- */

static const struct row rows[] = {
	/* probe.c */
	{ .dir = "proc/sys/kernel", .files = "osrelease io_uring_disabled", .more = keep_host_name },
	{ .dir = "etc", .more = keep_machine_id },
	{ .dir = "etc/gpuvm", .more = keep_fabric },
	{ .dir = "proc", .files = "meminfo", .more = keep_cpuinfo },
	{ .dir = "lib/modules", .more = keep_modules },
	{ .dir = "sys/class/iommu/*/intel-iommu", .files = "cap" },
	{ .dir = "sys/class/misc", .present = "kvm vfio vhost-net vhost-vsock" },
	{ .dir = "sys/bus/pci/drivers", .present = "vfio-pci" },
	{ .dir = "sys/kernel/iommu_groups", .present = "*" },

	/* probe_cpu.c: what hwloc reads, then what we do */
	{ .dir = "sys/devices/system/cpu", .files = "online possible isolated nohz_full" },
	{ .dir = "sys/devices/system/cpu/cpu[0-9]*", .files = "online", .more = count_cpu },
	{ .dir = "sys/devices/system/cpu/cpu[0-9]*/topology",
	  .files = "core_cpus thread_siblings cluster_cpus die_cpus package_cpus core_siblings core_id die_id cluster_id "
		   "physical_package_id book_siblings book_id drawer_siblings drawer_id" },
	{ .dir = "sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*",
	  .files = "shared_cpu_map level type size id coherency_line_size number_of_sets physical_line_partition "
		   "ways_of_associativity" },
	{ .dir = "sys/devices/system/node", .files = "online possible" },
	{ .dir = "sys/devices/system/node/node[0-9]*", .files = "cpumap meminfo distance" },
	{ .dir = "sys/devices/system/node/node[0-9]*/access0/initiators", .links = "node[0-9]*" },
	{ .dir = "sys/devices/system/node/node[0-9]*/hugepages/hugepages-*", .files = "nr_hugepages free_hugepages" },
	{ .dir = "sys/kernel/mm/hugepages/hugepages-*", .files = "nr_hugepages free_hugepages" },

	/* probe_pci.c */
	{ .dir = "sys/bus/pci/devices" },
	{ .dir = "sys/bus/pci/devices/*",
	  .files = "numa_node resource driver_override",
	  .links = "driver iommu_group physfn virtfn0",
	  .more = keep_function },
	{ .dir = "sys/bus/pci", .more = keep_vpd },
	{ .dir = "usr/share/misc", .more = keep_names },
	{ .dir = "usr/share/hwdata", .more = keep_names },

	/* probe_use.c; sys/class/net also probe_net.c */
	{ .dir = "sys/dev/block", .links = "*" },
	{ .dir = "sys/class/block/*", .files = "partition", .more = keep_volume },
	{ .dir = "sys/class/block/*/slaves", .links = "*" },
	{ .dir = "sys/class/nvme", .links = "nvme*" },
	{ .dir = "sys/devices/virtual/nvme-subsystem/*", .links = "nvme*" },
	{ .dir = "sys/fs/btrfs/*/devices", .links = "*" },
	{ .dir = "sys/bus/virtio/drivers/9pnet_virtio/virtio*", .files = "mount_tag" },
	{ .dir = "sys/class/net/*", .files = "mtu flags carrier tun_flags", .links = "lower_* master", .present = "bridge" },
	{ .dir = "proc", .more = keep_mounts },
	{ .dir = "proc/net", .more = keep_network },

	/* doctor_facts.c. Of sys/class/dmi/id, nothing with a serial number or an asset tag. */
	{ .dir = "proc", .files = "uptime", .more = keep_cmdline },
	{ .dir = "proc", .more = keep_interrupts },
	{ .dir = "proc/[0-9]*", .bare = true, .more = keep_process },
	{ .dir = "proc/sys/kernel", .files = "numa_balancing" },
	{ .dir = "proc/sys/vm", .files = "max_map_count" },
	{ .dir = "sys/kernel/iommu_groups/[0-9]*", .files = "type" },
	{ .dir = "sys/kernel/mm/transparent_hugepage", .files = "enabled" },
	{ .dir = "sys/kernel/mm/ksm", .files = "run" },
	{ .dir = "sys/kernel/security", .files = "lockdown" },
	{ .dir = "sys/fs/cgroup", .present = "cgroup.controllers memory" },
	{ .dir = "sys/module", .present = "nvidia_drm" },
	{ .dir = "sys/module/nvidia", .files = "version" },
	{ .dir = "sys/module/vfio/parameters", .files = "enable_unsafe_noiommu_mode" },
	{ .dir = "sys/module/vfio_iommu_type1/parameters", .files = "allow_unsafe_interrupts dma_entry_limit" },
	{ .dir = "sys/module/kvm_intel/parameters", .files = "nested" },
	{ .dir = "sys/module/kvm_amd/parameters", .files = "nested" },
	{ .dir = "sys/devices/system/cpu/cpuidle", .files = "current_driver" },
	{ .dir = "sys/devices/system/cpu/cpu0/cpuidle/state[0-9]*", .files = "name latency disable" },
	{ .dir = "sys/devices/system/cpu/cpufreq", },
	{ .dir = "sys/devices/system/cpu/cpufreq/policy[0-9]*", .files = "scaling_governor" },
	{ .dir = "sys/devices/system/cpu/smt", .files = "control" },
	{ .dir = "sys/class/dmi/id", .files = "sys_vendor product_name bios_version bios_date" },
};

static int keep_here(struct keeper *k, const struct row *row, int fd, const char *dir)
{
	int r = row->bare ? 0 : put_dir(k, dir);

	if (r == 0)
		r = each_name(k, fd, dir, row->files, keep_file);
	if (r == 0)
		r = each_name(k, fd, dir, row->links, keep_link);
	if (r == 0)
		r = each_name(k, fd, dir, row->present, keep_present);
	return r == 0 && row->more ? row->more(k, fd, dir) : r;
}

/* Where the link @name in the folder @dir leads: a path below the root, owned; NULL if that is not in sysfs's way. */
static char *follow(const char *dir, const char *name, const char *target)
{
	AUTO_FREE char *link = xasprintf("%s/%s", dir, name), *base = xstrdup(dir);

	if (!tree_link_ok(link, target))
		return NULL;
	for (; !strncmp(target, "../", 3); target += 3) {
		char *slash = strrchr(base, '/');

		*(slash ? slash : base) = '\0';
	}
	return *base ? xasprintf("%s/%s", base, target) : xstrdup(target);
}

static int walk(struct keeper *k, const struct row *row, int fd, const char *dir, const char *rest);

/* Into the entry @name of @dir: if that is a link, keep it, and go on where it leads. */
static int descend(struct keeper *k, const struct row *row, int fd, const char *dir, const char *name, const char *rest)
{
	AUTO_FREE char *sub = NULL;
	AUTO_CLOSE int next = -1;
	char target[PATH_MAX];
	int r = 0;

	if (probe_link(fd, name, target, sizeof(target)) > 0) {
		sub = *dir ? follow(dir, name, target) : NULL;
		if (!sub)
			return 0; /* /lib is a link to usr/lib: see below */
		r = keep_link(k, fd, dir, name);
	} else {
		sub = *dir ? xasprintf("%s/%s", dir, name) : xstrdup(name);
	}
	next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (next < 0) {
		note_denied(k, dir, name, errno);
		return r;
	}
	return r < 0 ? r : walk(k, row, next, sub, rest);
}

/* @rest: what of the pattern is below the folder @dir, which @fd is open at. */
static int walk(struct keeper *k, const struct row *row, int fd, const char *dir, const char *rest)
{
	CLEANUP(strv_clear) struct strv found = { 0 };
	AUTO_FREE char *part = xstrndup(rest, strcspn(rest, "/"));
	const char *after = rest + strlen(part) + (rest[strlen(part)] == '/');
	int r = 0;

	if (!*part)
		return keep_here(k, row, fd, dir);
	if (!is_pattern(part))
		return descend(k, row, fd, dir, part, after);
	matching(fd, part, &found);
	for (size_t i = 0; i < found.n && r == 0; i++)
		r = descend(k, row, fd, dir, found.v[i], after);
	return r;
}

/* The first folders of a path may be links that are no part of the machine: /lib to usr/lib, /proc/net to self/net. */
static int walk_row(struct keeper *k, const struct row *row)
{
	AUTO_FREE char *head = xstrndup(row->dir, strcspn(row->dir, "*["));
	AUTO_CLOSE int fd = -1;
	char *slash;

	if (!is_pattern(row->dir)) {
		fd = openat(k->p->root_fd, row->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			note_denied(k, "", row->dir, errno);
		return fd < 0 ? 0 : keep_here(k, row, fd, row->dir);
	}
	slash = strrchr(head, '/');
	*slash = '\0';
	fd = openat(k->p->root_fd, head, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		note_denied(k, "", head, errno);
	return fd < 0 ? 0 : walk(k, row, fd, head, row->dir + strlen(head) + 1);
}

static void say(const struct keeper *k, const char *fmt, ...) PRINTF(2, 3);
static void say(const struct keeper *k, const char *fmt, ...)
{
	char buf[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	k->s->missing(k->s->ctx, buf);
}

static void report(const struct keeper *k)
{
	if (!k->counts.n_cpus)
		say(k, "no CPUs: there is no sys/devices/system/cpu, so this capture cannot be planned for");
	if (!k->counts.n_functions)
		say(k, "no PCI functions: sys/bus/pci/devices is empty or not there");
	if (k->n_short_config)
		say(k, "PCI configuration space of %zu bridges could be read only in part: where switches begin is then "
		       "guessed from the tree; capture as root",
		    k->n_short_config);
	if (k->n_denied)
		say(k, "%zu file%s could not be read, the first is %s", k->n_denied, k->n_denied == 1 ? "" : "s",
		    k->first_denied);
}

int probe_keep(const struct probe *p, const char *host_name, const struct keep_sink *s, struct keep_counts *ret)
{
	struct keeper *k = xcalloc(1, sizeof(*k));
	int r = 0;

	*k = (struct keeper){ .p = p, .s = s, .host_name = host_name };
	for (size_t i = 0; i < ARRAY_SIZE(rows) && r == 0; i++)
		r = walk_row(k, &rows[i]);
	if (r == 0) {
		report(k);
		*ret = k->counts;
	}
	strv_clear(&k->ids);
	strv_clear(&k->pci_names);
	strv_clear(&k->nics);
	free(k);
	return r;
}
