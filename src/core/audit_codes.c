/* SPDX-License-Identifier: GPL-2.0-or-later */
/* audit_codes.c - the kinds of findings, in the order in which they are shown. docs/audit.md has the same table; a test compares them. */
#include <string.h>

#include "gpuvm/audit.h"

#define ACS "PCI Express 6.12 (ACS)"

const struct doctor_code audit_codes[] = {
	{ "iommu", THEME_TRANSLATION, "a guest's device writes wherever it likes in the host's memory", "Linux, Documentation/driver-api/vfio.rst" },
	{ "not-on-vfio", THEME_TRANSLATION, "a device that a guest has set up does DMA for whoever drives it now, translated as the host's own or not at all",
	  "Linux, Documentation/ABI/testing/sysfs-kernel-iommu_groups" },
	{ "interrupt-remapping", THEME_TRANSLATION, "a guest can raise any interrupt of the host, by DMA writes of its devices",
	  "Linux, vfio_iommu_type1 parameter allow_unsafe_interrupts" },
	{ "noiommu", THEME_TRANSLATION, "VFIO gives out devices that no IOMMU translates", "Linux, drivers/vfio/Kconfig (VFIO_NOIOMMU)" },
	{ "acs-override", THEME_TRANSLATION, "IOMMU groups look isolated that the hardware does not isolate",
	  "the patch's own warning in the kernel log; it is in no mainline kernel" },
	{ "acs-cmdline", THEME_TRANSLATION, "ports begin without redirection at each boot",
	  "Linux, Documentation/admin-guide/kernel-parameters.txt (pci=config_acs=, pci=disable_acs_redir=)" },
	{ "group-shared", THEME_TRANSLATION, "the members of an IOMMU group can reach each other, or send in each other's name",
	  "Linux, Documentation/driver-api/vfio.rst" },

	{ "acs-off", THEME_PEERS, "requests reach the other tenant's device without the IOMMU: it can be read, set up, and made to do DMA", ACS },
	{ "acs-missing", THEME_PEERS, "requests reach the other tenant's device without the IOMMU, whatever the groups say", ACS },
	{ "multifunction", THEME_PEERS, "functions of a device that has no ACS may reach each other inside it", ACS },
	{ "direct-translated", THEME_PEERS, "a device that calls its requests translated reaches the other tenant's without the IOMMU", ACS },

	{ "switch-shared", THEME_SHARED, "", ACS },
	{ "vf-siblings", THEME_SHARED, "", "Linux, Documentation/PCI/pci-iov-howto.rst" },
	{ "vf-parent", THEME_SHARED, "who has the physical function resets and reads the virtual ones", "Linux, Documentation/PCI/pci-iov-howto.rst" },
	{ "reset-bus", THEME_SHARED, "its only reset would hit the neighbour, so it is refused: what a tenant leaves in it, the next one finds",
	  "Linux, Documentation/ABI/testing/sysfs-bus-pci (reset_method)" },
	{ "rom-writable", THEME_SHARED, "code of somebody else runs in the guest before its own", "QEMU, vfio-pci property romfile" },
};
const size_t audit_n_codes = ARRAY_SIZE(audit_codes);

const struct doctor_code *audit_find_code(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(audit_codes); i++)
		if (!strcmp(audit_codes[i].word, word))
			return &audit_codes[i];
	return NULL;
}
