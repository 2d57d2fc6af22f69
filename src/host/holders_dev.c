/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holders_dev.c - the device nodes and network interfaces of a PCI function. */
#include <fts.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "holders_priv.h"

#define MAX_LEVEL	   24 /* a disk behind USB hubs is at about 15 */
#define NVIDIA_MAJOR	   195 /* Documentation/admin-guide/devices.txt */
#define DEVICE		   "/sys/bus/pci/devices/%s"

void held_things_clear(struct held_things *t)
{
	for (size_t i = 0; i < t->n_nodes; i++)
		free(t->nodes[i].name);
	for (size_t i = 0; i < t->n_nets; i++)
		free(t->nets[i].name);
	free(t->nodes);
	free(t->nets);
	*t = (struct held_things){ 0 };
}

static void add_node(struct held_things *t, size_t func, bool block, unsigned int major, unsigned int minor, const char *name)
{
	for (size_t i = 0; i < t->n_nodes; i++) {
		const struct held_node *o = &t->nodes[i];

		if (o->func == func && o->block == block && o->major == major && o->minor == minor)
			return;
	}
	*PUSH_ZEROED(t->nodes, t->n_nodes) =
		(struct held_node){ .func = func, .block = block, .major = major, .minor = minor, .name = xstrdup(name) };
}

/* --- what sysfs knows ----------------------------------------------------------------------------------- */

/* "DEVNAME=infiniband/uverbs0" of an uevent file; owned, NULL without. */
static char *dev_name(const struct sysfs *s, const char *dir)
{
	AUTO_FREE char *text = sysfs_read(s, "%s/uevent", dir);
	const char *at = text ? strstr(text, "DEVNAME=") : NULL;

	if (!at || (at > text && at[-1] != '\n'))
		return NULL;
	at += strlen("DEVNAME=");
	return xstrndup(at, strcspn(at, "\n"));
}

/* @dir: a folder of sysfs, without the root, that has a file `dev`. */
static void add_folder(const struct sysfs *s, size_t func, const char *dir, struct held_things *t)
{
	AUTO_FREE char *text = sysfs_read(s, "%s/dev", dir), *subsystem = sysfs_link_name(s, "%s/subsystem", dir), *name = dev_name(s, dir);
	unsigned int major, minor;
	const char *slash = strrchr(dir, '/');

	if (!text || sscanf(text, "%u:%u", &major, &minor) != 2)
		return;
	add_node(t, func, subsystem && !strcmp(subsystem, "block"), major, minor, name ? name : slash + 1);
}

/* With native multipath the function has a hidden nvme0c1n1, and the disk is nvme0n1, of the subsystem. */
static void add_nvme_head(const struct sysfs *s, size_t func, const char *hidden, struct held_things *t)
{
	unsigned int subsystem, controller, ns;
	struct strv parts = { 0 };
	AUTO_FREE char *dir = NULL;
	int end = 0;

	if (sscanf(hidden, "nvme%uc%un%u%n", &subsystem, &controller, &ns, &end) != 3 || hidden[end])
		return;
	dir = xasprintf("/sys/class/block/nvme%un%u", subsystem, ns);
	add_folder(s, func, dir, t);
	sysfs_list(s, &parts, "%s", dir);
	for (size_t i = 0; i < parts.n; i++) {
		AUTO_FREE char *part = xasprintf("%s/%s", dir, parts.v[i]);

		if (sysfs_exists(s, "%s/partition", part))
			add_folder(s, func, part, t);
	}
	strv_clear(&parts);
}

static void add_nets(const struct sysfs *s, size_t func, const char *dir, struct held_things *t)
{
	struct strv names = { 0 };

	sysfs_list(s, &names, "%s", dir);
	for (size_t i = 0; i < names.n; i++)
		*PUSH_ZEROED(t->nets, t->n_nets) = (struct held_net){ .func = func, .name = xstrdup(names.v[i]) };
	strv_clear(&names);
}

/* Folders with many files and no device in them. */
static bool is_barren(const char *name)
{
	static const char *const names[] = { "power", "msi_irqs", "statistics", "queues", "ports", "hwmon", "trace" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

/* Everything below the function's folder, which links do not lead out of. */
static void walk(const struct sysfs *s, size_t func, const char *bdf, struct held_things *t)
{
	AUTO_FREE char *top = xasprintf("%s" DEVICE, s->root, bdf);
	char *paths[] = { top, NULL };
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
	FTSENT *f;

	while (fts && (f = fts_read(fts))) {
		AUTO_FREE char *dir = NULL;

		if (f->fts_info == FTS_D && f->fts_level > 0) {
			if (!strcmp(f->fts_name, "net"))
				add_nets(s, func, f->fts_path + strlen(s->root), t);
			if (!strcmp(f->fts_name, "net") || is_barren(f->fts_name) || f->fts_level > MAX_LEVEL)
				fts_set(fts, f, FTS_SKIP);
			add_nvme_head(s, func, f->fts_name, t);
		} else if (f->fts_info == FTS_F && f->fts_level > 1 && !strcmp(f->fts_name, "dev")) {
			dir = xstrndup(f->fts_path + strlen(s->root), f->fts_pathlen - strlen(s->root) - strlen("/dev"));
			add_folder(s, func, dir, t);
		}
	}
	if (fts)
		fts_close(fts);
}

/* Another VMM's way to it. A character device of its own, below /sys/devices/virtual. */
static void add_vfio_group(const struct sysfs *s, size_t func, const char *bdf, struct held_things *t)
{
	AUTO_FREE char *group = sysfs_link_name(s, DEVICE "/iommu_group", bdf);
	AUTO_FREE char *dir = group ? xasprintf("/sys/class/vfio/%s", group) : NULL, *name = NULL, *text = NULL;
	unsigned int major, minor;

	text = dir ? sysfs_read(s, "%s/dev", dir) : NULL;
	if (!text || sscanf(text, "%u:%u", &major, &minor) != 2)
		return;
	name = xasprintf("vfio/%s", group);
	add_node(t, func, false, major, minor, name);
}

/* --- what only NVIDIA's driver knows ---------------------------------------------------------------------- */

/* "Device Minor: 	 3" */
static void add_nvidia(const struct sysfs *s, size_t func, const char *bdf, struct held_things *t)
{
	AUTO_FREE char *text = sysfs_read(s, "/proc/driver/nvidia/gpus/%s/information", bdf), *name = NULL, *path = NULL;
	const char *at = text ? strstr(text, "Device Minor:") : NULL;
	unsigned int minor;
	struct stat st;

	if (!at || sscanf(at, "Device Minor: %u", &minor) != 1)
		return;
	name = xasprintf("nvidia%u", minor);
	path = xasprintf("%s/dev/%s", s->root, name);
	if (stat(path, &st) == 0 && S_ISCHR(st.st_mode))
		add_node(t, func, false, major(st.st_rdev), minor(st.st_rdev), name);
	else
		add_node(t, func, false, NVIDIA_MAJOR, minor, name);
}

/* Which number an NVSwitch has nobody says, but who has one of them open is Fabric Manager or a tool like it, and has all. */
static void add_nvswitch(const struct sysfs *s, size_t func, const char *bdf, struct held_things *t)
{
	AUTO_FREE char *driver = sysfs_link_name(s, DEVICE "/driver", bdf), *text = NULL;
	char *save = NULL, word[64];
	unsigned int major;

	if (!driver || strcmp(driver, "nvidia-nvswitch"))
		return;
	text = sysfs_read(s, "/proc/devices");
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "%u %63s", &major, word) != 2 || strcmp(word, "nvidia-nvswitch"))
			continue;
		add_node(t, func, false, major, 0, word);
		t->nodes[t->n_nodes - 1].all_minors = true;
	}
}

void held_things_add(const struct sysfs *s, size_t func, const char *bdf, struct held_things *t)
{
	walk(s, func, bdf, t);
	add_vfio_group(s, func, bdf, t);
	add_nvidia(s, func, bdf, t);
	add_nvswitch(s, func, bdf, t);
}
