/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_iommu.c - IOMMU, VFIO and KVM: can devices be given to VMs at all, and are these kept apart? */
#include <string.h>

#include "doctor_priv.h"

#define TYPE1_ENTRIES 65535 /* the default of vfio_iommu_type1 */
#define ACS_REDIRECT  0x0c  /* ReqRedir and CmpltRedir */

static bool is_amd(const struct doctor *d)
{
	return !strcmp(d->host->cpu_vendor, "AuthenticAMD");
}

static void fix_iommu(struct doctor *d)
{
	AUTO_FREE char *intel = doctor_cmdline_value(d->f->cmdline, "intel_iommu"), *amd = doctor_cmdline_value(d->f->cmdline, "amd_iommu"),
		       *both = doctor_cmdline_value(d->f->cmdline, "iommu");
	const char *off = intel && !strcmp(intel, "off") ? "intel_iommu=off" : amd && !strcmp(amd, "off") ? "amd_iommu=off"
								       : both && !strcmp(both, "off")	  ? "iommu=off"
													  : NULL;

	if (off)
		doctor_fix(d, "take %s off the kernel command line and reboot", off);
	else if (d->f->hypervisor == 1)
		doctor_fix(d, "this is a VM: its hypervisor has to give it an IOMMU (QEMU: -device intel-iommu,intremap=on, kernel-irqchip=split)");
	else if (is_amd(d))
		doctor_fix(d, "turn on \"IOMMU\" (AMD-Vi) in the firmware, add iommu=pt to the kernel command line and reboot");
	else
		doctor_fix(d, "turn on \"VT-d\" in the firmware, add intel_iommu=on iommu=pt to the kernel command line and reboot");
}

/* How the kernel itself uses the groups of the GPUs: all alike as a rule. */
static void check_mode(struct doctor *d)
{
	const char *type = NULL;

	for (size_t i = 0; i < d->host->n_funcs && !type; i++)
		if (d->places[i].gpu || !d->n_gpus)
			type = d->f->funcs[i].group_type;
	if (!type)
		doctor_not_known(d, "iommu-mode", "/sys/kernel/iommu_groups/N/type could not be read");
	else if (!strcmp(type, "identity"))
		doctor_add(d, "iommu-mode", DOCTOR_OK, "host", "identity for the host's own devices (iommu=pt); those of VMs are translated");
	else
		doctor_add(d, "iommu-mode", DOCTOR_OK, "host",
			   "translated (%s), also for the host's own devices: iommu=pt on the kernel command line spares these a mapping for each DMA", type);
}

static void check_remapping(struct doctor *d)
{
	AUTO_FREE char *intremap = doctor_cmdline_value(d->f->cmdline, "intremap");
	bool unsafe = d->f->unsafe_interrupts == 1;

	if (d->f->interrupt_remapping < 0) {
		doctor_not_known(d, "interrupt-remapping", "/proc/interrupts could not be read, or has no IO-APIC");
		return;
	}
	if (d->f->interrupt_remapping) {
		doctor_add(d, "interrupt-remapping", DOCTOR_OK, "host", "on: /proc/interrupts has chips \"IR-...\"%s",
			   unsafe ? " (and allow_unsafe_interrupts of vfio_iommu_type1 is not needed)" : "");
		return;
	}
	doctor_add(d, "interrupt-remapping", unsafe ? DOCTOR_WARNING : DOCTOR_PROBLEM, "host", "off: no chip in /proc/interrupts is \"IR-...\"%s",
		   unsafe ? "; VFIO was told to go on all the same (allow_unsafe_interrupts)" : "");
	if (intremap && !strcmp(intremap, "off"))
		doctor_fix(d, "take intremap=off off the kernel command line and reboot");
	else
		doctor_fix(d, "turn on interrupt remapping (x2APIC%s) in the firmware and reboot", is_amd(d) ? "" : ", no \"x2APIC opt out\"");
}

static void check_groups_on(struct doctor *d)
{
	if (!d->host->iommu_groups) {
		doctor_add(d, "iommu", DOCTOR_PROBLEM, "host", "off: /sys/kernel/iommu_groups is empty");
		fix_iommu(d);
		return;
	}
	doctor_add(d, "iommu", DOCTOR_OK, "host", "on: there are IOMMU groups");
	check_mode(d);
	check_remapping(d);
}

static void check_vfio(struct doctor *d)
{
	int64_t limit = d->f->dma_entry_limit;

	if (d->host->vfio) {
		doctor_add(d, "vfio", DOCTOR_OK, "host", "vfio-pci is there or can be loaded");
	} else {
		doctor_add(d, "vfio", DOCTOR_PROBLEM, "host", "the kernel %s has no vfio-pci, neither built in nor as a module", d->host->kernel);
		doctor_fix(d,
			   "install the package with the kernel's other modules (of Ubuntu: linux-modules-extra-%s), or a kernel with CONFIG_VFIO_PCI",
			   d->host->kernel);
	}
	if (limit >= TYPE1_ENTRIES) {
		doctor_add(d, "vfio-dma-entries", DOCTOR_OK, "host", "a VM can have %lld DMA mappings", (long long)limit);
	} else if (limit >= 0) {
		doctor_add(d, "vfio-dma-entries", DOCTOR_WARNING, "host",
			   "a VM can have %lld DMA mappings; the default is %d", (long long)limit, TYPE1_ENTRIES);
		doctor_fix(d,
			   "echo %d >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit, and take dma_entry_limit out of /etc/modprobe.d", TYPE1_ENTRIES);
	} else {
		doctor_not_known(d, "vfio-dma-entries", "vfio_iommu_type1 is not loaded, or its parameter could not be read");
	}
}

static void kvm_missing(struct doctor *d)
{
	const char *module = is_amd(d) ? "kvm_amd" : "kvm_intel";

	doctor_add(d, "kvm", DOCTOR_PROBLEM, "host", "there is no /dev/kvm%s",
		   d->f->cpu_virtualization == 0	 ? ": the CPU offers no virtualization (neither vmx nor svm in /proc/cpuinfo)"
		   : d->f->cpu_virtualization == 1 ? ", although the CPU can virtualize"
						   : "");
	if (d->f->hypervisor == 1)
		doctor_fix(d, "this is a VM: turn on nested virtualization on its host");
	else if (d->f->cpu_virtualization == 0)
		doctor_fix(d, "turn on \"%s\" in the firmware", is_amd(d) ? "SVM" : "VT-x");
	else
		doctor_fix(d, "modprobe %s; if that fails, `dmesg | grep kvm` says why (switched off in the firmware, as a rule)", module);
}

static void check_kvm(struct doctor *d)
{
	if (d->host->kvm) {
		doctor_add(d, "kvm", DOCTOR_OK, "host", d->f->live ? "/dev/kvm can be opened" : "/dev/kvm is there");
	} else if (d->f->kvm_device == 1) {
		doctor_add(d, "kvm", DOCTOR_PROBLEM, "host", "/dev/kvm is there, but this user may not open it");
		doctor_fix(d, "run as root, or usermod -aG kvm USER");
	} else if (d->f->kvm_device == 0) {
		kvm_missing(d);
	} else {
		doctor_not_known(d, "kvm", "sys/class/misc is not there");
	}
	if (d->f->kvm_nested >= 0)
		doctor_add(d, "kvm-nested", DOCTOR_OK, "host", d->f->kvm_nested ? "on: guests can run VMs" : "off: guests cannot run VMs");
	else
		doctor_not_known(d, "kvm-nested", "kvm_intel and kvm_amd are not loaded, or their parameter could not be read");
}

#define ACS_BITS 16 /* of the register; the kernel reads no more */

/* FLAGS@DEVICES;FLAGS@DEVICES...: bits from right to left, "x" leaves one alone. Does one of them switch redirection off? */
static bool config_acs_merges(const char *value)
{
	for (const char *s = value; s && *s; s += strcspn(s, ";"), s += *s == ';') {
		size_t flags = strcspn(s, "@;");

		for (size_t bit = 0; bit < flags && bit < ACS_BITS; bit++)
			if (s[flags - 1 - bit] == '0' && ACS_REDIRECT >> bit & 1)
				return true;
	}
	return false;
}

/* pci= has words with commas between them, and may come more than once. The value of @key in one of them; owned. */
static char *pci_option(const char *cmdline, const char *key)
{
	size_t len = strlen(key);

	for (const char *s = cmdline; s && *s; s += strcspn(s, " ")) {
		s += strspn(s, " ");
		if (strncmp(s, "pci=", 4))
			continue;
		for (const char *w = s + 4; *w && *w != ' '; w += strcspn(w, ", "), w += *w == ',')
			if (!strncmp(w, key, len))
				return xstrndup(w + len, strcspn(w + len, ", "));
	}
	return NULL;
}

char *doctor_acs_off_word(const char *cmdline)
{
	AUTO_FREE char *config = pci_option(cmdline, "config_acs="), *redir = pci_option(cmdline, "disable_acs_redir=");

	if (redir)
		return xasprintf("pci=disable_acs_redir=%s", redir);
	return config && config_acs_merges(config) ? xasprintf("pci=config_acs=%s", config) : NULL;
}

static void check_acs_words(struct doctor *d)
{
	AUTO_FREE char *override = doctor_cmdline_value(d->f->cmdline, "pcie_acs_override"), *config = pci_option(d->f->cmdline, "config_acs="),
		       *redir = pci_option(d->f->cmdline, "disable_acs_redir=");

	if (!d->f->cmdline) {
		doctor_not_known(d, "acs-override", "the kernel command line could not be read");
		doctor_not_known(d, "acs-cmdline", "the kernel command line could not be read");
		return;
	}
	if (override) {
		doctor_add(d, "acs-override", DOCTOR_PROBLEM, "host", "pcie_acs_override=%s is on the kernel command line", override);
		doctor_fix(d, "take pcie_acs_override off the kernel command line and reboot");
	} else {
		doctor_add(d, "acs-override", DOCTOR_OK, "host", "no pcie_acs_override on the kernel command line");
	}
	if (redir) {
		doctor_add(d, "acs-cmdline", DOCTOR_WARNING, "host",
			   "pci=disable_acs_redir=%s switches redirection off before groups are made", redir);
		doctor_fix(d, "take disable_acs_redir off the kernel command line; ATS and DirectTrans give peers the short way without it");
	}
	if (config && config_acs_merges(config)) {
		doctor_add(d, "acs-cmdline", DOCTOR_WARNING, "host",
			   "pci=config_acs=%s switches ReqRedir or CmpltRedir off before groups are made", config);
		doctor_fix(d,
			   "have \"1\" or \"x\" in place of the \"0\": bits are, from the right, SrcValid TransBlk ReqRedir CmpltRedir UpstreamFwd EgressCtrl DirectTrans");
	} else if (!redir) {
		doctor_add(d, "acs-cmdline", DOCTOR_OK,
			   "host", config ? "pci=config_acs=%s leaves redirection alone" : "the kernel command line does not change ACS%s",
			   config ? config : "");
	}
}

void doctor_check_iommu(struct doctor *d)
{
	if (d->host->gaps & GAP_GROUPS)
		doctor_not_known(d, "iommu", "this description of the machine has no IOMMU groups");
	else
		check_groups_on(d);
	check_vfio(d);
	check_kvm(d);
	check_acs_words(d);
}
