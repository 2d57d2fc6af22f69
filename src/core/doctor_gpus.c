/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_gpus.c - each GPU: its IOMMU group, node, driver, reset, and what is held against it. */
#include <string.h>

#include "doctor_priv.h"

#define NVIDIA 0x10de

static bool same_slot(const struct pci_addr *a, const struct pci_addr *b)
{
	return a->domain == b->domain && a->bus == b->bus && a->dev == b->dev;
}

static void say_gpus(struct doctor *d)
{
	const struct pci_func *first = NULL;
	bool alike = true;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		const struct pci_func *f = &d->host->funcs[i];

		if (!d->places[i].gpu)
			continue;
		alike &= !first || (f->vendor == first->vendor && f->device == first->device);
		first = first ? first : f;
	}
	if (!first) {
		doctor_add(d, "gpus", DOCTOR_WARNING, "host", "no GPU was found on the PCI bus");
		doctor_fix(d, "`lspci -nn` must list them; if not: power, seating, and slots that the firmware has switched off");
	} else if (alike) {
		doctor_add(d, "gpus", DOCTOR_OK, "host", "%d x %s", d->n_gpus, first->name);
	} else {
		doctor_add(d, "gpus", DOCTOR_OK, "host", "%d GPUs, which are not all alike", d->n_gpus);
	}
}

static void check_bad(struct doctor *d)
{
	size_t n = 0;

	for (size_t i = 0; i < d->host->n_funcs; i++) {
		const struct pci_func *f = &d->host->funcs[i];
		char bdf[PCI_ADDR_STR];

		if (!f->bad)
			continue;
		n++;
		pci_addr_format(&f->addr, bdf);
		doctor_add(d, "device-bad", DOCTOR_PROBLEM, bdf, "%s", f->bad);
		if (f->dead)
			doctor_fix(d, "reboot the host, with a power cycle if that does not help; `lspci -s %s` must not say \"rev ff\"", bdf);
		else
			doctor_fix(d, "see to the device or replace it, then: gpuvm doctor --clear %s", bdf);
	}
	if (!n && d->f->live)
		doctor_add(d, "device-bad", DOCTOR_OK, "host", "every device answers, and none is marked as bad");
	else if (!n)
		doctor_not_known(d, "device-bad", "every device answers; marks are kept on that machine");
}

/* --- groups ----------------------------------------------------------------------------------------------------------------- */

/* Who else is in the group, bridges aside: "0000:17:00.1 (snd_hda_intel), ..."; NULL: nobody. *@ret_use: why the host needs one of them. */
static char *strangers(const struct doctor *d, int gpu, const char **ret_use)
{
	size_t n = topology_group(d->host, gpu, NULL, 0), len = 0, found = 0;
	AUTO_FREE int *group = xcalloc(n, sizeof(*group));
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	topology_group(d->host, gpu, group, n);
	for (size_t i = 0; i < n; i++) {
		const struct pci_func *f = &d->host->funcs[group[i]];
		char bdf[PCI_ADDR_STR];

		if (f->role == ROLE_BRIDGE || same_slot(&f->addr, &d->host->funcs[gpu].addr))
			continue;
		fprintf(out, "%s%s (%s)", found++ ? ", " : "", pci_addr_format(&f->addr, bdf), *f->driver ? f->driver : pci_role_word(f->role));
		if (f->host_use)
			*ret_use = f->host_use;
	}
	fclose(out);
	if (found)
		return text;
	free(text);
	return NULL;
}

static bool check_group(struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];
	AUTO_FREE char *others = NULL;
	const char *use = NULL;
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&f->addr, bdf);
	if (f->iommu_group < 0) {
		doctor_add(d, "iommu-group", DOCTOR_PROBLEM, bdf, "the GPU is in no IOMMU group, although there are some");
		doctor_fix(d, "look for its IOMMU in `dmesg | grep -e DMAR -e AMD-Vi`; a newer firmware may know it");
		return false;
	}
	others = strangers(d, (int)i, &use);
	if (!others)
		return true;
	doctor_add(d, "iommu-group", use ? DOCTOR_PROBLEM : DOCTOR_WARNING, bdf, "IOMMU group %d also has %s%s%s%s", f->iommu_group, others,
		   use ? "; the host needs one of them (" : "", use ? use : "", use ? ")" : "");
	doctor_fix(d,
		   "turn on ACS in the firmware (\"PCIe ACS Support\"), take words that change ACS off the kernel command line, or move what does not belong to it to another slot");
	return false;
}

static void check_groups(struct doctor *d)
{
	int fine = 0;

	if (!d->host->iommu_groups || d->host->gaps & GAP_GROUPS)
		return;
	for (size_t i = 0; i < d->host->n_funcs; i++)
		fine += d->places[i].gpu && check_group(d, i);
	if (fine && fine == d->n_gpus)
		doctor_add(d, "iommu-group", DOCTOR_OK, "host", "each GPU shares its group with its own functions and bridges only");
}

/* --- the function itself ------------------------------------------------------------------------------------------------------ */

static bool check_node(struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];
	char bdf[PCI_ADDR_STR];

	if (f->node >= 0)
		return true;
	doctor_add(d, "gpu-node", DOCTOR_WARNING, pci_addr_format(&f->addr, bdf),
		   "its NUMA node is not known: numa_node is %d, and neither bridges nor CPUs tell", f->sysfs_node);
	doctor_fix(d, "[device NAME] guest-node in the definition, or a firmware whose ACPI tables have _PXM for its host bridge");
	return false;
}

static bool check_reset(struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];
	char bdf[PCI_ADDR_STR];

	if (f->can_reset)
		return true;
	doctor_add(d, "gpu-reset", DOCTOR_WARNING, pci_addr_format(&f->addr, bdf), "the kernel knows no way to reset it alone");
	return false;
}

static bool check_vfs(struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];
	char bdf[PCI_ADDR_STR];

	if (!f->sriov_vfs)
		return true;
	pci_addr_format(&f->addr, bdf);
	doctor_add(d, "gpu-vfs", DOCTOR_PROBLEM, bdf, "%u virtual functions are switched on", f->sriov_vfs);
	doctor_fix(d, "echo 0 >/sys/bus/pci/devices/%s/sriov_numvfs", bdf);
	return false;
}

/* With the host's driver on the NVSwitches the fabric is shared out by it, and GPUs are on it while idle. */
static bool fabric_is_shared(const struct doctor *d)
{
	for (size_t i = 0; i < d->host->n_funcs; i++)
		if (d->host->funcs[i].role == ROLE_NVSWITCH && !strcmp(d->host->funcs[i].driver, "nvidia"))
			return true;
	return false;
}

static bool check_driver(struct doctor *d, size_t i)
{
	const struct pci_func *f = &d->host->funcs[i];
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&f->addr, bdf);
	if (!strcmp(f->driver, "nouveau")) {
		doctor_add(d, "gpu-driver", DOCTOR_WARNING, bdf, "it is on nouveau");
		doctor_fix(d,
			   "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' >/etc/modprobe.d/blacklist-nvidia-nouveau.conf; update-initramfs -u (or dracut -f); reboot");
	} else if (f->vendor == NVIDIA && !strcmp(f->driver, "nvidia") && !fabric_is_shared(d)) {
		doctor_add(d, "gpu-driver", DOCTOR_WARNING, bdf, "it is on nvidia, which the host needs only for a shared NVSwitch fabric");
		doctor_fix(d, "remove the NVIDIA driver from the host, or have it leave this GPU alone (driverctl set-override %s vfio-pci)", bdf);
	} else {
		return true;
	}
	return false;
}

static const struct {
	const char *code;
	bool (*check)(struct doctor *d, size_t i);
	unsigned int gap; /* cannot be told with this */
	const char *ok;
} checks[] = {
	{ "gpu-node", check_node, 0, "the node of each GPU is known" },
	{ "gpu-reset", check_reset, GAP_DRIVERS, "each GPU can be reset" },
	{ "gpu-vfs", check_vfs, GAP_DRIVERS, "no GPU has virtual functions switched on" },
	{ "gpu-driver", check_driver, GAP_DRIVERS, "no GPU is on a driver that the host should not have" },
};

void doctor_check_gpus(struct doctor *d)
{
	say_gpus(d);
	check_bad(d);
	check_groups(d);
	for (size_t k = 0; k < ARRAY_SIZE(checks) && d->n_gpus; k++) {
		int fine = 0;

		if (d->host->gaps & checks[k].gap)
			continue;
		for (size_t i = 0; i < d->host->n_funcs; i++)
			fine += d->places[i].gpu && checks[k].check(d, i);
		if (fine == d->n_gpus)
			doctor_add(d, checks[k].code, DOCTOR_OK, "host", "%s", checks[k].ok);
	}
}
