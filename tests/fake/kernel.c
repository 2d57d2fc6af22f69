/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "gpuvm/parse.h"
#include "tests/fake/kernel.h"

/* --- files ------------------------------------------------------------------------------------------- */

static int put_file(const char *text, const char *fmt, ...) PRINTF(2, 3);
static int put_file(const char *text, const char *fmt, ...)
{
	char path[PATH_MAX];
	AUTO_CLOSE int fd = -1;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		return -errno;
	return 0;
}

static int make_dirs(const char *fmt, ...) PRINTF(1, 2);
static int make_dirs(const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	for (char *p = path + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
		if (c == '\0')
			return 0;
		*p = c;
	}
}

/* Link sys/@from to sys/@to as sysfs does: relative, up to the first common folder. */
static int link_sys(const struct fake_kernel *k, const char *from, const char *to)
{
	char path[PATH_MAX], target[PATH_MAX] = "";
	size_t common = 0;

	for (size_t i = 0; from[i] && from[i] == to[i]; i++)
		if (from[i] == '/')
			common = i + 1;
	for (const char *p = strchr(from + common, '/'); p; p = strchr(p + 1, '/'))
		strncat(target, "../", sizeof(target) - strlen(target) - 1);
	strncat(target, to + common, sizeof(target) - strlen(target) - 1);
	snprintf(path, sizeof(path), "%s/sys/%s", k->root, from);
	return symlink(target, path) < 0 ? -errno : 0;
}

static void unlink_sys(const struct fake_kernel *k, const char *fmt, ...) PRINTF(2, 3);
static void unlink_sys(const struct fake_kernel *k, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	int n = snprintf(path, sizeof(path), "%s/", k->root);

	va_start(ap, fmt);
	vsnprintf(path + n, sizeof(path) - (size_t)n, fmt, ap);
	va_end(ap);
	unlink(path);
}

/* --- devices and drivers ---------------------------------------------------------------------------- */

/* "devices/pci0000:00/0000:00:01.0/0000:81:00.0": where it really is, below sys/. */
static bool device_dir(const struct fake_kernel *k, const char *bdf, char ret[PATH_MAX])
{
	char path[PATH_MAX], real_root[PATH_MAX], real[PATH_MAX];
	size_t len;

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s", k->root, bdf);
	if (!realpath(k->root, real_root) || !realpath(path, real))
		return false;
	len = strlen(real_root);
	if (strncmp(real, real_root, len) != 0 || strncmp(real + len, "/sys/", 5) != 0)
		return false;
	snprintf(ret, PATH_MAX, "%s", real + len + 5);
	return true;
}

static unsigned int hex_attr(const struct fake_kernel *k, const char *bdf, const char *attr)
{
	AUTO_FREE char *text = sysfs_read(&k->sys, "/sys/bus/pci/devices/%s/%s", bdf, attr);
	uint64_t v = 0;

	if (!text || parse_hex(text, UINT32_MAX, &v) < 0)
		return 0;
	return (unsigned int)v;
}

static char *driver_of(const struct fake_kernel *k, const char *bdf)
{
	return sysfs_link_name(&k->sys, "/sys/bus/pci/devices/%s/driver", bdf);
}

/* pci_match_device(): with an override nothing else counts. */
static bool driver_matches(const struct fake_kernel *k, const char *driver, const char *bdf)
{
	AUTO_FREE char *override = sysfs_read(&k->sys, "/sys/bus/pci/devices/%s/driver_override", bdf);
	unsigned int vendor = hex_attr(k, bdf, "vendor"), device = hex_attr(k, bdf, "device");

	if (override && strcmp(override, "(null)") != 0)
		return strcmp(override, driver) == 0;
	for (size_t i = 0; i < k->n_ids; i++)
		if (strcmp(k->ids[i].driver, driver) == 0 && k->ids[i].vendor == vendor && k->ids[i].device == device)
			return true;
	return false;
}

/* dev/vfio/GROUP is there while a member is on a vfio driver. */
static void update_vfio_node(const struct fake_kernel *k, const char *bdf)
{
	AUTO_FREE char *group = sysfs_link_name(&k->sys, "/sys/bus/pci/devices/%s/iommu_group", bdf);
	struct strv members = { 0 };
	bool used = false;

	if (!group || !sysfs_exists(&k->sys, "/dev/vfio"))
		return;
	sysfs_list(&k->sys, &members, "/sys/kernel/iommu_groups/%s/devices", group);
	for (size_t i = 0; i < members.n; i++) {
		AUTO_FREE char *driver = driver_of(k, members.v[i]);

		used |= driver && strstr(driver, "vfio");
	}
	strv_clear(&members);
	if (used)
		put_file("", "%s/dev/vfio/%s", k->root, group);
	else
		unlink_sys(k, "dev/vfio/%s", group);
}

static int attach(const struct fake_kernel *k, const char *bdf, const char *driver)
{
	char dir[PATH_MAX], from[PATH_MAX + 64], to[PATH_MAX + 64];
	int r;

	if (k->refuse_driver && strcmp(k->refuse_driver, driver) == 0)
		return -EIO;
	if (!device_dir(k, bdf, dir))
		return -ENODEV;
	snprintf(from, sizeof(from), "%s/driver", dir);
	snprintf(to, sizeof(to), "bus/pci/drivers/%s", driver);
	r = link_sys(k, from, to);
	if (r < 0)
		return r;
	snprintf(from, sizeof(from), "bus/pci/drivers/%s/%s", driver, bdf);
	r = link_sys(k, from, dir);
	update_vfio_node(k, bdf);
	return r;
}

static void detach(const struct fake_kernel *k, const char *bdf, const char *driver)
{
	unlink_sys(k, "sys/bus/pci/devices/%s/driver", bdf);
	unlink_sys(k, "sys/bus/pci/drivers/%s/%s", driver, bdf);
	update_vfio_node(k, bdf);
}

static int probe_device(const struct fake_kernel *k, const char *bdf)
{
	AUTO_FREE char *now = driver_of(k, bdf);
	struct strv drivers = { 0 };
	bool bound = now;

	if (!sysfs_exists(&k->sys, "/sys/bus/pci/devices/%s", bdf))
		return -ENODEV;
	if (bound)
		return 0;
	sysfs_list(&k->sys, &drivers, "/sys/bus/pci/drivers");
	for (size_t i = 0; i < drivers.n && !bound; i++)
		bound = driver_matches(k, drivers.v[i], bdf) && attach(k, bdf, drivers.v[i]) == 0;
	strv_clear(&drivers);
	return !bound && k->probe_miss_fails ? -EINVAL : 0;
}

static void rescan(const struct fake_kernel *k)
{
	struct strv devices = { 0 };

	sysfs_list(&k->sys, &devices, "/sys/bus/pci/devices");
	for (size_t i = 0; i < devices.n; i++)
		probe_device(k, devices.v[i]);
	strv_clear(&devices);
}

/* --- what a write does ----------------------------------------------------------------------------------- */

static int bind_write(const struct fake_kernel *k, const char *driver, const char *bdf)
{
	AUTO_FREE char *now = driver_of(k, bdf);

	if (!sysfs_exists(&k->sys, "/sys/bus/pci/devices/%s", bdf) || !driver_matches(k, driver, bdf))
		return -ENODEV;
	return now ? -EBUSY : attach(k, bdf, driver);
}

static int unbind_write(const struct fake_kernel *k, const char *driver, const char *bdf)
{
	AUTO_FREE char *now = driver_of(k, bdf);

	if (!now || strcmp(now, driver) != 0)
		return -ENODEV;
	detach(k, bdf, driver);
	return 0;
}

static int reset_write(const struct fake_kernel *k, const char *bdf, const char *value)
{
	char ones[65];

	if (strcmp(value, "1") != 0)
		return -EINVAL;
	if (k->reset_fails_bdf && strcmp(k->reset_fails_bdf, bdf) == 0)
		return -ENOTTY;
	if (!k->reset_kills_bdf || strcmp(k->reset_kills_bdf, bdf) != 0)
		return 0;
	memset(ones, 0xff, sizeof(ones) - 1);
	ones[sizeof(ones) - 1] = '\0';
	return put_file(ones, "%s/sys/bus/pci/devices/%s/config", k->root, bdf);
}

enum attribute { ATTR_OTHER, ATTR_OVERRIDE, ATTR_RESET, ATTR_UNBIND, ATTR_BIND, ATTR_PROBE };

/* Which attribute @path (without the root) is; @name is the device of the path, or the driver. */
static enum attribute attribute_of(const struct fake_kernel *k, const char *path, char name[64])
{
	AUTO_FREE char *driver = NULL;
	char attr[32];
	int end = 0;

	if (strcmp(path, "/sys/bus/pci/drivers_probe") == 0)
		return ATTR_PROBE;
	if (sscanf(path, "/sys/bus/pci/devices/%63[^/]/driver_override%n", name, &end) == 1 && end && !path[end])
		return ATTR_OVERRIDE;
	if (sscanf(path, "/sys/bus/pci/devices/%63[^/]/reset%n", name, &end) == 1 && end && !path[end])
		return ATTR_RESET;
	if (sscanf(path, "/sys/bus/pci/devices/%63[^/]/driver/%31[^/]%n", name, attr, &end) == 2 && end && !path[end]) {
		driver = driver_of(k, name);
		snprintf(name, 64, "%s", driver ? driver : "");
	} else if (sscanf(path, "/sys/bus/pci/drivers/%63[^/]/%31[^/]%n", name, attr, &end) != 2 || !end || path[end]) {
		return ATTR_OTHER;
	}
	if (strcmp(attr, "unbind") == 0)
		return ATTR_UNBIND;
	return strcmp(attr, "bind") == 0 ? ATTR_BIND : ATTR_OTHER;
}

static int act(const struct fake_kernel *k, const char *path, const char *value)
{
	const char *full = path + strlen(k->root);
	char name[64] = "", word[64], shown[72];

	if (access(path, F_OK) < 0)
		return -errno;
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(value, "\n"), value);
	switch (attribute_of(k, full, name)) {
	case ATTR_OVERRIDE:
		snprintf(shown, sizeof(shown), "%s\n", *word ? word : "(null)");
		return put_file(shown, "%s", path);
	case ATTR_RESET:
		return reset_write(k, name, word);
	case ATTR_UNBIND:
		return unbind_write(k, name, word);
	case ATTR_BIND:
		return bind_write(k, name, word);
	case ATTR_PROBE:
		return probe_device(k, word);
	default:
		return sysfs_write_file(NULL, path, value);
	}
}

/* The driver's remove() waits for the user of the device, a reset for the device; meanwhile it is locked. */
static void wait_if_held(const struct fake_kernel *k, const char *path, const char *value)
{
	bool override, unbind, reset;

	if (!k->hold_bdf || !atomic_load(&k->sh->held))
		return;
	override = strstr(path, k->hold_bdf) && strstr(path, "/driver_override");
	unbind = strncmp(value, k->hold_bdf, strlen(k->hold_bdf)) == 0;
	reset = strstr(path, k->hold_bdf) && strstr(path, "/reset");
	if ((unbind && strstr(path, "/unbind")) || reset)
		atomic_store(&k->sh->in_remove, true);
	else if (!(override || unbind) || !atomic_load(&k->sh->in_remove))
		return;
	while (atomic_load(&k->sh->held))
		sem_wait(&k->sh->release);
	sem_post(&k->sh->release); /* wake the next one */
}

/* Its number. */
static unsigned int count_write(const struct fake_kernel *k, const char *path, const char *value)
{
	struct fake_shared *sh = k->sh;
	unsigned int nr = atomic_fetch_add(&sh->writes, 1) + 1;

	if (nr <= FAKE_TRACE_MAX) {
		snprintf(sh->trace[nr - 1].path, sizeof(sh->trace[0].path), "%s", path + strlen(k->root));
		snprintf(sh->trace[nr - 1].value, sizeof(sh->trace[0].value), "%s", value);
	}
	return nr;
}

static int fake_write(void *ctx, const char *path, const char *value)
{
	const struct fake_kernel *k = ctx;
	struct fake_shared *sh = k->sh;
	unsigned int nr = count_write(k, path, value);
	int r;

	if (nr == sh->fail_at && !sh->fail_late)
		return -sh->fail_errno;
	if (!*value)
		return 0;
	wait_if_held(k, path, value);
	while (sem_wait(&sh->lock) < 0 && errno == EINTR)
		;
	r = act(k, path, value);
	if (k->eager)
		rescan(k);
	sem_post(&sh->lock);
	return nr == sh->fail_at ? -sh->fail_errno : r;
}

static int fake_write_word(void *ctx, const char *path, unsigned int offset, uint16_t value)
{
	const struct fake_kernel *k = ctx;
	char text[8];
	unsigned int nr;
	int r;

	snprintf(text, sizeof(text), "0x%04x", value);
	nr = count_write(k, path, text);
	if (nr == k->sh->fail_at && !k->sh->fail_late)
		return -k->sh->fail_errno;
	r = sysfs_write_word(NULL, path, offset, value);
	return nr == k->sh->fail_at ? -k->sh->fail_errno : r;
}

int fake_kernel_set_reset(const struct fake_kernel *k, const char *bdf, const char *method)
{
	AUTO_FREE char *line = xasprintf("%s\n", method ? method : "");
	int r;

	unlink_sys(k, "sys/bus/pci/devices/%s/reset", bdf);
	unlink_sys(k, "sys/bus/pci/devices/%s/reset_method", bdf);
	if (!method)
		return 0;
	r = put_file("", "%s/sys/bus/pci/devices/%s/reset", k->root, bdf);
	return r < 0 || !*method ? r : put_file(line, "%s/sys/bus/pci/devices/%s/reset_method", k->root, bdf);
}

/* --- making the tree ------------------------------------------------------------------------------------- */

static int make_driver(const struct fake_kernel *k, const char *name)
{
	int r = make_dirs("%s/sys/bus/pci/drivers/%s", k->root, name);

	if (r == 0)
		r = put_file("", "%s/sys/bus/pci/drivers/%s/bind", k->root, name);
	return r < 0 ? r : put_file("", "%s/sys/bus/pci/drivers/%s/unbind", k->root, name);
}

static int make_group(const struct fake_kernel *k, const char *dir, const struct fake_device *d)
{
	char from[256], to[128];
	int r = make_dirs("%s/sys/kernel/iommu_groups/%d/devices", k->root, d->group);

	snprintf(from, sizeof(from), "%s/iommu_group", dir);
	snprintf(to, sizeof(to), "kernel/iommu_groups/%d", d->group);
	if (r == 0)
		r = link_sys(k, from, to);
	snprintf(from, sizeof(from), "kernel/iommu_groups/%d/devices/%s", d->group, d->bdf);
	return r < 0 ? r : link_sys(k, from, dir);
}

/* The ids and the class, where probe and reset look for them, and of a bridge ACS. */
static int make_config(const struct fake_kernel *k, const char *dir, const struct fake_device *d)
{
	const unsigned char c[0x108] = { (unsigned char)d->vendor, (unsigned char)(d->vendor >> 8), (unsigned char)d->device,
				      (unsigned char)(d->device >> 8), [8] = 1, [9] = (unsigned char)d->class_code,
				      [10] = (unsigned char)(d->class_code >> 8), [11] = (unsigned char)(d->class_code >> 16),
				      [0x100] = 0x0d, [0x102] = 1, [0x104] = 0x5f, [FAKE_ACS_OFFSET] = FAKE_ACS };
	AUTO_FREE char *path = xasprintf("%s/sys/%s/config", k->root, dir);

	return write_file_atomic(path, (const char *)c, d->class_code >> 8 == 0x0604 ? sizeof(c) : 64, 0600);
}

static int make_device(const struct fake_kernel *k, const struct fake_device *d)
{
	char dir[128], from[128], text[32];
	int r;

	snprintf(dir, sizeof(dir), "devices/pci%.7s/%s", d->bdf, d->bdf);
	r = make_dirs("%s/sys/%s", k->root, dir);
	snprintf(from, sizeof(from), "bus/pci/devices/%s", d->bdf);
	if (r == 0)
		r = link_sys(k, from, dir);
	snprintf(text, sizeof(text), "0x%04x\n", d->vendor);
	if (r == 0)
		r = put_file(text, "%s/sys/%s/vendor", k->root, dir);
	snprintf(text, sizeof(text), "0x%04x\n", d->device);
	if (r == 0)
		r = put_file(text, "%s/sys/%s/device", k->root, dir);
	snprintf(text, sizeof(text), "0x%06x\n", d->class_code);
	if (r == 0)
		r = put_file(text, "%s/sys/%s/class", k->root, dir);
	if (r == 0)
		r = put_file("(null)\n", "%s/sys/%s/driver_override", k->root, dir);
	if (r == 0)
		r = make_config(k, dir, d);
	if (r == 0)
		r = fake_kernel_set_reset(k, d->bdf, "flr");
	if (r == 0 && d->group >= 0)
		r = make_group(k, dir, d);
	if (r == 0 && d->driver) {
		r = make_driver(k, d->driver);
		if (r == 0)
			r = attach(k, d->bdf, d->driver);
	}
	return r;
}

static int make_tree(const struct fake_kernel *k, const struct fake_device *devs, size_t n)
{
	int r = make_dirs("%s/sys/bus/pci/devices", k->root);

	if (r == 0)
		r = make_dirs("%s/dev/vfio", k->root);
	if (r == 0)
		r = put_file("", "%s/dev/vfio/vfio", k->root);
	if (r == 0)
		r = make_driver(k, "vfio-pci");
	if (r == 0)
		r = make_driver(k, "pci-stub");
	if (r == 0)
		r = put_file("", "%s/sys/bus/pci/drivers_probe", k->root);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = make_device(k, &devs[i]);
	return r;
}

/* Whoever has a device now has its ID in its table. */
static void learn_ids(struct fake_kernel *k)
{
	struct strv devices = { 0 };

	sysfs_list(&k->sys, &devices, "/sys/bus/pci/devices");
	for (size_t i = 0; i < devices.n; i++) {
		AUTO_FREE char *driver = driver_of(k, devices.v[i]);
		struct fake_match *m;

		if (!driver || strstr(driver, "vfio") || strcmp(driver, "pci-stub") == 0)
			continue;
		m = PUSH_ZEROED(k->ids, k->n_ids);
		snprintf(m->driver, sizeof(m->driver), "%s", driver);
		m->vendor = hex_attr(k, devices.v[i], "vendor");
		m->device = hex_attr(k, devices.v[i], "device");
	}
	strv_clear(&devices);
}

int fake_kernel_attach(struct fake_kernel *k, const char *root)
{
	*k = (struct fake_kernel){ .root = xstrdup(root) };
	k->sh = mmap(NULL, sizeof(*k->sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (k->sh == MAP_FAILED) {
		free(k->root);
		return -ENOMEM;
	}
	sem_init(&k->sh->release, 1, 0);
	sem_init(&k->sh->lock, 1, 1);
	k->sys = (struct sysfs){ .root = k->root, .write = fake_write, .write_word = fake_write_word, .ctx = k, .serial = true };
	learn_ids(k);
	return 0;
}

int fake_kernel_make(struct fake_kernel *k, const struct fake_device *devs, size_t n)
{
	const char *tmp = getenv("TMPDIR");
	AUTO_FREE char *root = xasprintf("%s/gpuvm-kernel-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	int r;

	if (!mkdtemp(root))
		return -errno;
	r = fake_kernel_attach(k, root);
	if (r < 0)
		return r;
	k->own = true;
	r = make_tree(k, devs, n);
	if (r < 0)
		fake_kernel_free(k);
	else
		learn_ids(k);
	return r;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void remove_tree(char *root)
{
	char *roots[] = { root, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *f;

	while (fts && (f = fts_read(fts)))
		if (f->fts_info != FTS_D)
			remove(f->fts_accpath);
	if (fts)
		fts_close(fts);
}

void fake_kernel_free(struct fake_kernel *k)
{
	if (!k->root)
		return;
	fake_kernel_release(k);
	if (k->own)
		remove_tree(k->root);
	munmap(k->sh, sizeof(*k->sh));
	free(k->ids);
	free(k->root);
	*k = (struct fake_kernel){ 0 };
}

void fake_kernel_hold(struct fake_kernel *k)
{
	atomic_store(&k->sh->held, true);
}

void fake_kernel_release(struct fake_kernel *k)
{
	atomic_store(&k->sh->in_remove, false);
	if (atomic_exchange(&k->sh->held, false))
		sem_post(&k->sh->release);
}

/* --- comparing ------------------------------------------------------------------------------------------- */

static void snapshot_entry(FILE *out, const FTSENT *f, const char *name)
{
	AUTO_FREE char *text = NULL;
	char target[PATH_MAX];
	ssize_t n;

	switch (f->fts_info) {
	case FTS_D:
		fprintf(out, "%s/\n", name);
		break;
	case FTS_SL:
	case FTS_SLNONE:
		n = readlink(f->fts_accpath, target, sizeof(target) - 1);
		fprintf(out, "%s -> %.*s\n", name, n > 0 ? (int)n : 0, target);
		break;
	case FTS_F:
		read_text_file(f->fts_accpath, 4096, &text);
		fprintf(out, "%s: %s\n", name, text ? text : "(unreadable)");
		break;
	default:
		break;
	}
}

char *fake_kernel_snapshot(const struct fake_kernel *k)
{
	char *roots[] = { k->root, NULL }, *text = NULL;
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	FTSENT *f;

	while (fts && out && (f = fts_read(fts)))
		snapshot_entry(out, f, f->fts_path + strlen(k->root));
	if (fts)
		fts_close(fts);
	if (out)
		fclose(out);
	return text;
}
