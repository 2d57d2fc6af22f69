/* SPDX-License-Identifier: GPL-2.0-or-later */
/* files.c - the files that a definition names, before anything is touched: QEMU would find what is wrong with them when the devices are bound. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/claim.h"
#include "gpuvm/image.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/seed.h"

/* 0; -EINVAL: a folder or something else that is no file. */
static int file_is_regular(const char *path, int mode)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return access(path, mode) < 0 ? -errno : 0;
}

static void check_seed_files(struct launch *l, struct problems *ps)
{
	static const char section[] = "cloud-init";
	const struct {
		const char *key, *path;
	} files[] = { { "user-data", l->vm.user_data }, { "meta-data", l->vm.meta_data }, { "network-config", l->vm.network_config } };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int r = files[i].path && !strv_contains(&l->opt->promised, files[i].path) ? seed_check_file(files[i].path) : 0;

		if (r < 0)
			config_problem(ps, &l->vm, section, files[i].key, "file-missing", "[cloud-init] %s: '%s': %s", files[i].key, files[i].path,
				       r == -EINVAL ? "is not a file" : strerror(-r))
				->kind = PROBLEM_HOST;
	}
}

/* Option ROMs, which stand-ins do not have. */
static void check_roms(struct launch *l, struct problems *ps)
{
	for (size_t i = 0; i < l->vm.n_devices && !l->opt->fake_devices; i++) {
		const struct device_config *d = &l->vm.devices[i];
		AUTO_FREE char *section = xasprintf("device %s", d->name);

		if (d->romfile && strcmp(d->romfile, "none") && access(d->romfile, R_OK) < 0)
			config_problem(ps, &l->vm, section, "romfile", "file-missing", "[%s] romfile: '%s': %s", section, d->romfile, strerror(errno))->kind =
				PROBLEM_HOST;
	}
}

/* Images of distributions are called .img and are qcow2 files; what the guest would see is the file's header. */
static void warn_of_raw(const struct launch *l, const struct disk_config *d)
{
	const char *format = plan_disk_format(d);
	AUTO_CLOSE int fd = disk_open(d->file, 0);
	char head[4];

	if (d->format == DISK_AUTO && format && !strcmp(format, "raw") && fd >= 0 && pread(fd, head, sizeof(head), 0) == sizeof(head) && qcow2_is(head, sizeof(head)))
		log_warning("%s: '%s' begins as a qcow2 file does and is taken as raw, as its name says: if it is one, [disk %s] format = qcow2", l->vm.name, d->file,
			    d->name);
}

/* The VM whose QEMU has @pid; owned. NULL: none of ours. */
static char *vm_of(int pid)
{
	struct strv names = { 0 };
	char *vm = NULL;
	struct err e;

	claim_list(&names, &e);
	for (size_t i = 0; i < names.n && !vm; i++) {
		AUTO_FREE char *dir = claim_vm_dir(names.v[i]);
		struct claim c = { 0 };

		if (claim_read(dir, &c, &e) == 0 && c.qemu_pid == pid && claim_qemu_alive(&c))
			vm = xstrdup(c.vm);
		claim_clear(&c);
	}
	strv_clear(&names);
	return vm;
}

/* Who has the file open: "VM 'a'", "process 4711"; owned. NULL: this VM itself, which runs while it is planned anew, or there is no looking. */
static char *opened_by(const struct launch *l, int fd)
{
	AUTO_FREE int *pids = NULL;
	size_t n = disk_openers(fd, &pids);
	char *text = NULL;

	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *vm = vm_of(pids[i]), *before = text;
		const char *comma = before ? ", " : "";

		if (vm && !strcmp(vm, l->vm.name))
			return NULL;
		text = vm ? xasprintf("%s%sVM '%s'", before ? before : "", comma, vm) : xasprintf("%s%sprocess %d", before ? before : "", comma, pids[i]);
	}
	return text || l->opt->dry_run ? text : xstrdup("a QEMU that is not of this host, or not to be seen from here");
}

/* @d: the disk, or NULL for a file below one. */
static void check_lock(struct launch *l, const struct disk_config *d, const char *path, struct problems *ps)
{
	bool writes = d && !d->readonly;
	AUTO_CLOSE int fd = disk_open(path, 0);
	AUTO_FREE char *who = fd >= 0 && disk_is_locked(fd, writes) ? opened_by(l, fd) : NULL;
	AUTO_FREE char *section = d ? xasprintf("disk %s", d->name) : NULL, *where = d ? xasprintf("[%s] file: ", section) : xstrdup("");
	AUTO_FREE char *text = xasprintf("%s'%s'%s is open%s: %s", where, path, d ? "" : ", which a disk is made on,", writes ? "" : " for writing", who ? who : "");
	struct problem *p;

	if (!who)
		return;
	/* `create` makes what is started next. */
	if (l->opt->dry_run && !l->opt->text) {
		plan_warn(&l->plan, "disk-busy", "%s; a start is refused as long as it is", text);
		return;
	}
	p = d ? config_problem(ps, &l->vm, section, "file", "disk-busy", "%s", text) : problems_add(ps, PROBLEM_BUSY, "disk-busy", "%s", text);
	p->kind = PROBLEM_BUSY;
	problem_hint(p, "two guests on one file system destroy it; `gpuvm create` gives each VM a disk of its own that is made on one image");
}

void launch_check_locks(struct launch *l, struct problems *ps)
{
	for (size_t i = 0; i < l->vm.n_disks && !l->opt->ignore_use; i++)
		if (!strv_contains(&l->opt->promised, l->vm.disks[i].file))
			check_lock(l, &l->vm.disks[i], l->vm.disks[i].file, ps);
	for (size_t i = 0; i < l->below.n && !l->opt->ignore_use; i++)
		check_lock(l, NULL, l->below.v[i], ps);
}

/* For a block device O_EXCL is a question: has the kernel given it to anybody? Who asks has it for that moment: somebody else may be asking. */
static bool is_given_away(const char *file)
{
	int fd = -EBUSY;

	for (int i = 0; i < 5 && fd == -EBUSY; i++) {
		if (i)
			usleep(10000);
		fd = disk_open(file, O_EXCL);
	}
	if (fd >= 0)
		close(fd);
	return fd == -EBUSY;
}

/* And what it is made on, which QEMU would not find, or not make sense of, only when the devices are bound. */
static void check_disk(struct launch *l, const struct disk_config *d, struct problems *ps)
{
	AUTO_FREE char *section = xasprintf("disk %s", d->name);
	const char *format = plan_disk_format(d);
	struct err e = { 0 };
	struct problem *p;
	int r;

	if (strv_contains(&l->opt->promised, d->file))
		return;
	if (access(d->file, d->readonly ? R_OK : R_OK | W_OK) < 0) {
		config_problem(ps, &l->vm, section, "file", "file-missing", "[%s] file: '%s': %s", section, d->file, strerror(errno))->kind = PROBLEM_HOST;
		return;
	}
	if (!d->readonly && is_given_away(d->file)) {
		p = config_problem(ps, &l->vm, section, "file", "disk-mounted",
				   "[%s] file: the host has '%s', or a part of it, in use: mounted, as swap, or below RAID, LVM or another block device", section, d->file);
		p->kind = PROBLEM_HOST;
		problem_hint(p, "a guest that writes to it too would destroy what is on it; `lsblk %s` shows what it is", d->file);
	}
	warn_of_raw(l, d);
	/* Of no format yet: the plan says it. */
	r = format && !strcmp(format, "qcow2") ? disk_chain(d->file, &l->below, &e) : 0;
	if (r == 0)
		return;
	p = config_problem(ps, &l->vm, section, "file", r == -EINVAL || r == -ELOOP ? "disk-damaged" : "file-missing", "[%s] file: %s", section, e.msg);
	p->kind = PROBLEM_HOST;
	if (r == -EINVAL)
		problem_hint(p, "`qemu-img info` says what it is; a raw disk needs format = raw");
}

/* Files that the definition names must be there before anything is touched; a start that fails at a hook, the last of them after the VM's end, is late. */
void launch_check_files(struct launch *l, struct problems *ps)
{
	const char *firmware = l->vm.firmware && *l->vm.firmware == '/' ? l->vm.firmware : NULL;
	const struct {
		const char *section, *key, *path;
		int mode;
	} files[] = { { "vm", "kernel", l->vm.kernel, R_OK },
		      { "vm", "initrd", l->vm.initrd, R_OK },
		      { "vm", "firmware", firmware, R_OK },
		      { "hooks", "pre-bind", l->vm.hook_pre_bind, X_OK },
		      { "hooks", "post-start", l->vm.hook_post_start, X_OK },
		      { "hooks", "post-stop", l->vm.hook_post_stop, X_OK } };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int r = files[i].path ? file_is_regular(files[i].path, files[i].mode) : 0;

		if (r < 0)
			config_problem(ps, &l->vm, files[i].section, files[i].key, "file-missing", "[%s] %s: '%s': %s", files[i].section, files[i].key, files[i].path,
				       r == -EINVAL ? "is not a file" : strerror(-r))
				->kind = PROBLEM_HOST;
	}
	check_seed_files(l, ps);
	check_roms(l, ps);
	strv_clear(&l->below);
	for (size_t i = 0; i < l->vm.n_disks; i++)
		check_disk(l, &l->vm.disks[i], ps);
}
