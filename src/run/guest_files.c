/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest_files.c - what the guest is to have from us: its check and NCCL's topology file. They go into the VM's folder, and from there onto the disk
 * that the plan has for them, or by whatever way the operator has. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "gpuvm/guest_check.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/nccl.h"

char *launch_guest_check(const struct launch *l)
{
	/* Fabric Manager of the host has the version of the host's driver. */
	AUTO_FREE char *driver = l->plan.foreign_host ? NULL : sysfs_read(&sysfs_live, "/sys/module/nvidia/version");

	return guest_check_script(&l->plan, &l->host, driver);
}

/* One of an earlier VM of this name would be wrong: @text NULL removes it. */
static int write_file(const struct launch *l, const char *name, const char *text, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s", l->plan.rundir, name);
	int r;

	if (!text)
		return unlink(path) < 0 && errno != ENOENT ? err_sys(e, -errno, "remove '%s'", path) : 0;
	r = write_file_atomic(path, text, strlen(text), 0644);
	return r < 0 ? err_sys(e, r, "write '%s'", path) : 0;
}

int launch_write_guest_files(struct launch *l, struct err *e)
{
	AUTO_FREE char *check = launch_guest_check(l), *xml = nccl_topology_xml(&l->plan, &l->host);
	int r = write_file(l, GUEST_CHECK_FILE, check, e);

	return r < 0 ? r : write_file(l, NCCL_FILE, xml, e);
}

void launch_point_at_check(const struct launch *l)
{
	const struct plan_seed *disk = plan_check_disk(&l->plan);

	if (l->adopted || l->plan.fake_devices || !nccl_is_wanted(&l->plan))
		return;
	if (disk)
		log_notice("%s: to check the guest, in it: mount -o ro LABEL=%s /mnt && sh /mnt/" GUEST_CHECK_FILE, l->plan.vm, disk->label);
	else
		log_notice("%s: to check the guest: `gpuvm guest-check %s >" GUEST_CHECK_FILE "`, and in the guest `sh " GUEST_CHECK_FILE "`", l->plan.vm,
			   l->plan.vm);
	log_notice("%s: it also says how NCCL gets its topology file", l->plan.vm);
}
