/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_software.c - kernel, QEMU, the NVIDIA driver's companions, limits; and what gpuvm has written down. */
#include <inttypes.h>
#include <string.h>

#include "doctor_priv.h"

#define LARGE_BAR (UINT64_C(16) << 30) /* about half a second to map page by page */
#define FILES_MIN 16384		       /* eight NICs with 192 vectors, GPUs, NVMe, vhost queues, and as much again */

/* --- kernel and QEMU --------------------------------------------------------------------------------------------------- */

static bool has_large_bar(const struct doctor *d)
{
	for (size_t i = 0; i < d->host->n_funcs; i++)
		for (size_t k = 0; d->places[i].gpu && k < ARRAY_SIZE(d->host->funcs[i].bars); k++)
			if (d->host->funcs[i].bars[k].bytes >= LARGE_BAR)
				return true;
	return false;
}

static void check_kernel(struct doctor *d)
{
	const char *release = d->host->kernel;
	int major, minor;

	if (sscanf(release, "%d.%d", &major, &minor) != 2) {
		doctor_not_known(d, "kernel", "/proc/sys/kernel/osrelease could not be read");
	} else if (!has_large_bar(d)) {
		doctor_add(d, "kernel", DOCTOR_OK, "host", "%s; no GPU here has a BAR so large that the kernel matters", release);
	} else if (major > 6 || (major == 6 && minor >= 15)) {
		doctor_add(d, "kernel", DOCTOR_OK, "host", "%s maps large BARs in large pages", release);
	} else {
		doctor_add(d, "kernel", DOCTOR_WARNING, "host",
			   "%s: before 6.15 large BARs are mapped slowly, unless the distribution has mended its kernel", release);
		doctor_fix(d, "a newer kernel: 6.15, or one of the distribution with \"vfio/type1: huge pfnmap\" (Ubuntu: bug 2111861)");
	}
	if (!d->f->lockdown) {
		doctor_not_known(d, "lockdown", "/sys/kernel/security/lockdown could not be read");
	} else if (!strcmp(d->f->lockdown, "none") || !d->n_gpus) {
		doctor_add(d, "lockdown", DOCTOR_OK, "host", "%s", d->f->lockdown);
	} else {
		doctor_add(d, "lockdown", DOCTOR_WARNING, "host", "the kernel is locked down (%s)", d->f->lockdown);
		doctor_fix(d, "switch Secure Boot off in the firmware, or take lockdown= off the kernel command line");
	}
}

/* A GPU whose way to the CPU is faster than what QEMU before 9.0 can show. */
static bool has_fast_link(const struct doctor *d)
{
	for (size_t i = 0; i < d->host->n_funcs; i++)
		if (d->places[i].gpu && topology_path_link(d->host, (int)i).mts >= 32000)
			return true;
	return false;
}

static void check_qemu_large_bar(struct doctor *d, const struct qemu_info *q)
{
	if (qemu_at_least(q, 9, 2) || !has_large_bar(d)) {
		doctor_add(d, "qemu-large-bar", DOCTOR_OK,
			   "host", has_large_bar(d) ? "it places large BARs so that the kernel can map them in large pages"
										      : "no GPU here has a large BAR");
		return;
	}
	doctor_add(d, "qemu-large-bar", DOCTOR_WARNING, "host",
		   "QEMU %d.%d: before 9.2 large BARs are not aligned for large pages", q->major, q->minor);
	doctor_fix(d, "QEMU 9.2 or newer ([qemu] binary in the definitions); not x-no-mmap, which ends GPUDirect");
}

static void qemu_not_known(struct doctor *d)
{
	static const char *const codes[] = { "qemu", "qemu-large-bar", "qemu-link-speed", "qemu-vcpus", "firmware" };

	for (size_t i = d->f->qemu_error ? 1 : 0; i < ARRAY_SIZE(codes); i++)
		doctor_not_known(d, codes[i], d->f->qemu_error ? "there is no QEMU" : "it is another machine's");
}

static void check_qemu(struct doctor *d)
{
	const struct qemu_info *q = d->f->qemu;
	int vcpus = q ? qemu_machine_vcpus(q, NULL) : 0;

	if (!q && d->f->qemu_error) {
		doctor_add(d, "qemu", DOCTOR_PROBLEM, "host", "%s", d->f->qemu_error);
		doctor_fix(d, "install the package qemu-system-x86 (RHEL: qemu-kvm)");
	}
	if (!q) {
		qemu_not_known(d);
		return;
	}
	doctor_add(d, "qemu", qemu_has(q, QF_VFIO) ? DOCTOR_OK : DOCTOR_PROBLEM, "host", "%d.%d.%d, %s%s", q->major, q->minor, q->micro,
		   q->path ? q->path : "recorded answers", qemu_has(q, QF_VFIO) ? "" : ", has no vfio-pci");
	if (!qemu_has(q, QF_VFIO))
		doctor_fix(d, "a QEMU that was built with VFIO, as the package qemu-system-x86 is");
	check_qemu_large_bar(d, q);
	if (qemu_has(q, QF_LINK_64GT) || !has_fast_link(d)) {
		doctor_add(d, "qemu-link-speed", DOCTOR_OK, "host", "it can show guests the speed of the links here");
	} else {
		doctor_add(d, "qemu-link-speed", DOCTOR_WARNING, "host", "QEMU %d.%d has no x-speed=32 for root ports", q->major, q->minor);
		doctor_fix(d, "QEMU 9.0 or newer ([qemu] binary in the definitions)");
	}
	if (vcpus >= (int)d->host->n_cpus) {
		doctor_add(d, "qemu-vcpus", DOCTOR_OK, "host", "a VM can have %d vCPUs", vcpus);
	} else {
		doctor_add(d, "qemu-vcpus", DOCTOR_WARNING, "host", "a VM can have %d vCPUs, the host has %zu CPUs", vcpus, d->host->n_cpus);
		doctor_fix(d, "a newer QEMU ([qemu] binary in the definitions), or VMs of a socket each");
	}
	if (q->ovmf_code) {
		doctor_add(d, "firmware", DOCTOR_OK, "host", "%s", q->ovmf_code);
	} else {
		doctor_add(d, "firmware", DOCTOR_WARNING, "host", "no UEFI image (OVMF) was found");
		doctor_fix(d, "install the package ovmf (RHEL: edk2-ovmf)");
	}
}

/* --- services -------------------------------------------------------------------------------------------------------------- */

/* Guests that share the fabric need a driver of its version, too; and it refuses to start beside another one, so a pair that differs was upgraded in part. */
static void check_fabric_version(struct doctor *d)
{
	const char *fm = d->f->fm_version, *driver = d->f->nvidia_version;

	if (!fm || !driver) {
		doctor_not_known(d, "fabric-version", "%s", fm ? "the NVIDIA driver is not loaded" : d->f->fm_version_error ? d->f->fm_version_error : "it was not asked");
	} else if (!strcmp(fm, driver)) {
		doctor_add(d, "fabric-version", DOCTOR_OK, "host", "Fabric Manager and driver are %s; guests need that driver, too", fm);
	} else {
		doctor_add(d, "fabric-version", DOCTOR_PROBLEM, "host", "Fabric Manager is %s, the driver %s", fm, driver);
		doctor_fix(d, "install nvidia-fabricmanager of version %s, and systemctl restart nvidia-fabricmanager", driver);
	}
}

static void check_fabric_state(struct doctor *d)
{
	if (d->f->fm_asked < 0) {
		doctor_not_known(d, "fabric-state", "%s", d->f->fm_error ? d->f->fm_error : "Fabric Manager was not asked");
	} else if (!d->f->fm_asked) {
		doctor_add(d, "fabric-state", DOCTOR_WARNING, "host", "Fabric Manager does not tell its partitions: %s", d->f->fm_error ? d->f->fm_error : "no reason");
		doctor_fix(d, "FABRIC_MODE=1 in /usr/share/nvidia/nvswitch/fabricmanager.cfg; systemctl restart nvidia-fabricmanager; gpuvm fabric list");
	} else {
		doctor_add(d, "fabric-state", DOCTOR_OK, "host", "%d partitions, %d active", d->f->fm_partitions, d->f->fm_active);
	}
}

static void check_fabric_manager(struct doctor *d)
{
	size_t switches = 0, ours = 0;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		switches += d->host->funcs[i].role == ROLE_NVSWITCH;
		ours += d->host->funcs[i].role == ROLE_NVSWITCH && !strcmp(d->host->funcs[i].driver, "nvidia");
	}
	if (!switches || d->host->gaps & GAP_DRIVERS)
		return;
	if (d->f->fabric_manager < 0) {
		doctor_not_known(d, "fabric-manager", "the processes of this machine cannot be seen");
	} else if (ours && !d->f->fabric_manager) {
		doctor_add(d, "fabric-manager", DOCTOR_PROBLEM, "host",
			   "%zu of %zu NVSwitches are on nvidia, and Fabric Manager does not run", ours, switches);
		doctor_fix(d, "systemctl enable --now nvidia-fabricmanager (of exactly the driver's version%s%s)", d->f->nvidia_version ? ", " : "",
			   d->f->nvidia_version ? d->f->nvidia_version : "");
	} else if (!ours && d->f->fabric_manager) {
		doctor_add(d, "fabric-manager", DOCTOR_WARNING, "host", "it runs, but no NVSwitch is on nvidia for it to manage");
		doctor_fix(d, "where VMs get the NVSwitches: systemctl disable --now nvidia-fabricmanager; else load the NVIDIA driver");
	} else {
		doctor_add(d, "fabric-manager", DOCTOR_OK,
			   "host", ours ? "it runs" : "no NVSwitch is on nvidia: it runs in the guests that get the switches");
	}
	if (ours && d->f->fabric_manager == 1) {
		check_fabric_version(d);
		check_fabric_state(d);
	}
}

static void check_companions(struct doctor *d)
{
	if (d->f->nvidia_drm < 0) {
		doctor_not_known(d, "nvidia-drm", "/sys/module could not be read");
	} else if (d->f->nvidia_drm) {
		doctor_add(d, "nvidia-drm", DOCTOR_WARNING, "host", "the module nvidia_drm is loaded");
		doctor_fix(d, "echo 'blacklist nvidia_drm' >/etc/modprobe.d/nvidia-drm.conf; modprobe -r nvidia_drm");
	} else {
		doctor_add(d, "nvidia-drm", DOCTOR_OK, "host", "not loaded");
	}
	if (d->f->persistenced < 0) {
		doctor_not_known(d, "nvidia-persistenced", "the processes of this machine cannot be seen");
	} else if (d->f->persistenced) {
		doctor_add(d, "nvidia-persistenced", DOCTOR_WARNING, "host", "it runs");
		doctor_fix(d, "systemctl disable --now nvidia-persistenced; or for each GPU of a VM: nvidia-smi -i BDF -pm 0");
	} else {
		doctor_add(d, "nvidia-persistenced", DOCTOR_OK, "host", "it does not run");
	}
}

/* --- limits ------------------------------------------------------------------------------------------------------------------ */

static void check_limits(struct doctor *d)
{
	const struct doctor_facts *f = d->f;

	if (f->memlock < 0) {
		doctor_not_known(d, "memlock", "limits are those of a process of that machine");
	} else if (f->root || f->memlock == INT64_MAX) {
		doctor_add(d, "memlock", DOCTOR_OK, "host", f->root ? "root is not bound by it" : "unlimited");
	} else {
		doctor_add(d, "memlock", DOCTOR_WARNING, "host", "this user may lock %" PRId64 " KiB of memory", f->memlock >> 10);
		doctor_fix(d, "run as root; or \"USER - memlock unlimited\" in /etc/security/limits.d, LimitMEMLOCK=infinity in a unit");
	}
	if (f->nofile < 0) {
		doctor_not_known(d, "nofile", "limits are those of a process of that machine");
	} else if (f->nofile >= FILES_MIN) {
		if (f->nofile == INT64_MAX)
			doctor_add(d, "nofile", DOCTOR_OK, "host", "unlimited");
		else
			doctor_add(d, "nofile", DOCTOR_OK, "host", "%" PRId64 " open files", f->nofile);
	} else {
		doctor_add(d, "nofile", DOCTOR_WARNING, "host",
			   "a process may have %" PRId64 " open files; a VM with all devices may need %d", f->nofile, FILES_MIN);
		doctor_fix(d, "\"USER - nofile 524288\" in /etc/security/limits.d, LimitNOFILE=524288 in a unit");
	}
	if (f->cgroup > 0)
		doctor_add(d, "cgroup", DOCTOR_OK, "host", "version %d", f->cgroup);
	else
		doctor_not_known(d, "cgroup", "/sys/fs/cgroup has neither version");
}

void doctor_check_software(struct doctor *d)
{
	check_kernel(d);
	check_qemu(d);
	check_companions(d);
	check_fabric_manager(d);
	check_limits(d);
}

/* --- records --------------------------------------------------------------------------------------------------------------- */

static void check_claims(struct doctor *d)
{
	if (d->f->claims_known < 0) {
		doctor_not_known(d, "claim", "VMs of another machine, or their claims cannot be read");
		return;
	}
	for (size_t i = 0; i < d->f->n_claims; i++) {
		const struct doctor_claim *c = &d->f->claims[i];

		if (c->damaged) {
			doctor_add(d, "claim", DOCTOR_PROBLEM, c->vm, "its claim cannot be read, and until it can no VM starts: %s", c->damaged);
			doctor_fix(d, "if nothing of it runs, remove its claim.json");
			continue;
		}
		doctor_add(d, "claim", c->recover_failed ? DOCTOR_PROBLEM : DOCTOR_WARNING, c->vm,
			   c->recover_failed ? "its launcher is dead, and its devices could not be given back" : "its launcher is dead");
		doctor_fix(d, "gpuvm recover %s", c->vm);
	}
	if (!d->f->n_claims)
		doctor_add(d, "claim", DOCTOR_OK, "host", "no launcher has died without giving back what it had");
}

void doctor_check_records(struct doctor *d)
{
	check_claims(d);
	if (!d->f->live)
		doctor_not_known(d, "bad-record", "marks are kept on that machine");
	for (size_t i = 0; i < d->f->n_bad_absent; i++) {
		char bdf[PCI_ADDR_STR];

		doctor_add(d, "bad-record", DOCTOR_WARNING, pci_addr_format(&d->f->bad_absent[i], bdf),
			   "marked as bad, and there is no such function any more");
		doctor_fix(d, "if it was taken out for good: gpuvm doctor --clear %s", bdf);
	}
}
