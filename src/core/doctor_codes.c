/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_codes.c - the kinds of findings, in the order in which they are shown. docs/doctor.md has the same table; a test compares them. */
#include <string.h>

#include "gpuvm/doctor.h"

#define HGX	"NVIDIA, Optimizing VM Configuration for AI Inference"
#define NCCL256 "github.com/NVIDIA/nccl-tests/issues/256"
#define SRU	"Ubuntu bug 2111861"

const struct doctor_code doctor_codes[] = {
	{ "iommu", THEME_IOMMU, "no device can be given to a VM", "Linux, Documentation/driver-api/vfio.rst" },
	{ "iommu-mode", THEME_IOMMU, "", "Linux, Documentation/ABI/testing/sysfs-kernel-iommu_groups" },
	{ "interrupt-remapping", THEME_IOMMU, "VFIO refuses devices; or, with allow_unsafe_interrupts, a guest can raise any interrupt of the host",
	  "Linux, vfio_iommu_type1 parameter allow_unsafe_interrupts" },
	{ "vfio", THEME_IOMMU, "no device can be given to a VM", "Linux, Documentation/driver-api/vfio.rst" },
	{ "vfio-dma-entries", THEME_IOMMU, "a VM with many memory regions fails with VFIO_MAP_DMA: No space left on device",
	  "Linux, vfio_iommu_type1 parameter dma_entry_limit" },
	{ "kvm", THEME_IOMMU, "guests are emulated (TCG), many times slower", "QEMU, Introduction (accelerators)" },
	{ "kvm-nested", THEME_IOMMU, "", "Linux, Documentation/virt/kvm/x86/running-nested-guests.rst" },
	{ "acs-override", THEME_IOMMU,
	  "groups that the hardware does not isolate look isolated: devices of two VMs may reach each other past the IOMMU",
	  "the patch's own warning in the kernel log; it is in no mainline kernel" },
	{ "acs-cmdline", THEME_IOMMU, "redirection that is switched off at boot merges IOMMU groups: their devices can only go to one VM together",
	  "Linux, Documentation/admin-guide/kernel-parameters.txt (pci=config_acs=, pci=disable_acs_redir=)" },

	{ "gpus", THEME_DEVICES, "only VMs without passed-through GPUs can run", "PCI class codes" },
	{ "device-bad", THEME_DEVICES, "no VM gets it", "DGX-2 user guide, degraded mode" },
	{ "iommu-group", THEME_DEVICES, "the members of a group go to one VM together, or to none", "Linux, Documentation/driver-api/vfio.rst" },
	{ "acs-isolation", THEME_DEVICES, "devices below the port can reach each other past the IOMMU, whatever their groups say",
	  "PCI Express 6.12 (ACS); NCCL user guide, troubleshooting: VMs need ACS" },
	{ "acs-direct", THEME_DEVICES,
	  "GPUDirect RDMA goes through the IOMMU: NCCL 260 GB/s in a VM that mirrors the switches, 350 on bare metal; with it nearly the same",
	  HGX ", appendix; " NCCL256 },
	{ "acs-missing", THEME_DEVICES,
	  "what is below the switch can reach each other past the IOMMU, although the kernel may put it into groups of its own",
	  "PCI Express 6.12 (ACS)" },
	{ "ats", THEME_DEVICES, "GPUDirect RDMA is translated by the IOMMU request by request, whatever ACS is set to", HGX ", appendix" },
	{ "link-width", THEME_DEVICES, "bandwidth in proportion: x8 for x16 is half", "PCI Express 4.2 (link training)" },
	{ "link-speed", THEME_DEVICES, "bandwidth in proportion: 16 GT/s for 32 GT/s is half", "PCI Express 4.2 (link training)" },
	{ "bar-unassigned", THEME_DEVICES,
	  "its driver says \"This PCI I/O region assigned to your NVIDIA device is invalid\"; it is of no use to a VM",
	  "Linux, drivers/pci/setup-bus.c (IORESOURCE_UNSET)" },
	{ "bar-size", THEME_DEVICES, "the CPU and peers reach only a part of the GPU's memory at a time", "PCI Express 7.8.6 (Resizable BAR)" },
	{ "host-near-gpu", THEME_DEVICES,
	  "the VM with the GPU beside it does without its nearest drive or NIC, which the host keeps", HGX ", installing the hypervisor" },
	{ "gpu-node", THEME_DEVICES,
	  "CPUs and memory of its VM cannot be chosen near it", "Linux, Documentation/ABI/testing/sysfs-bus-pci (numa_node)" },
	{ "gpu-reset", THEME_DEVICES, "what a VM left in it, the next one finds; a hung GPU needs a reboot of the host",
	  "Linux, Documentation/ABI/testing/sysfs-bus-pci (reset_method)" },
	{ "gpu-vfs", THEME_DEVICES, "parts of it are given out: as a whole it is not free for a VM", "Linux, Documentation/PCI/pci-iov-howto.rst" },
	{ "gpu-driver", THEME_DEVICES,
	  "the host's driver opens GPUs, and they must be taken from it at each start", HGX ", additional system setup" },
	{ "aer", THEME_DEVICES, "errors that the link could not repair end in resets and lost data, those it repaired cost bandwidth",
	  "Linux, Documentation/PCI/pcieaer-howto.rst" },

	{ "hugepages", THEME_MEMORY, "guest memory is of 4 KiB or transparent huge pages: slower to prepare and map, more misses of the TLB",
	  "Linux, Documentation/admin-guide/mm/hugetlbpage.rst" },
	{ "hugepages-node", THEME_MEMORY,
	  "VMs on that node are refused or smaller, although the machine has enough pages in total", "github.com/kubevirt/kubevirt/issues/6981" },
	{ "hugepages-boot", THEME_MEMORY, "after a reboot they may be missing: when memory is fragmented, pages of 1 GiB can no longer be had",
	  "Linux, Documentation/admin-guide/mm/hugetlbpage.rst" },
	{ "thp", THEME_MEMORY, "guest memory without hugepages stays in pages of 4 KiB", "Linux, Documentation/admin-guide/mm/transhuge.rst" },
	{ "memory-free", THEME_MEMORY,
	  "the host itself may run out of memory and kill a QEMU", "Linux, Documentation/filesystems/proc.rst (MemAvailable)" },
	{ "swap", THEME_MEMORY, "memory was short: guest memory that is not pinned (of VMs without passed-through devices) may be on a disk",
	  "Linux, Documentation/filesystems/proc.rst (SwapFree)" },
	{ "ksm", THEME_MEMORY, "CPU time for a search that finds nothing in pinned guests; pages shared between tenants leak their content by timing",
	  "Linux, Documentation/admin-guide/mm/ksm.rst" },
	{ "numa-balancing", THEME_MEMORY, "", "Linux, mm/mempolicy.c (vma_policy_mof): memory bound to a node is left alone" },
	{ "max-map-count", THEME_MEMORY,
	  "QEMU's mmap() of memory or of a BAR fails with: Cannot allocate memory", "Linux, Documentation/admin-guide/sysctl/vm.rst" },

	{ "c-states", THEME_CPUS, "a sleeping CPU wakes late: latency of interrupts and of host threads", HGX ", additional system setup" },
	{ "smt", THEME_CPUS, "", HGX ", additional system setup" },
	{ "nodes-per-socket", THEME_CPUS, "", HGX ", additional system setup" },
	{ "governor", THEME_CPUS, "vCPU threads begin each burst of work at a low clock", "Linux, Documentation/admin-guide/pm/cpufreq.rst" },
	{ "isolated-cpus", THEME_CPUS, "QEMU's own threads and the host's share CPUs between which the kernel moves nothing",
	  "Linux, Documentation/admin-guide/kernel-parameters.txt (isolcpus)" },
	{ "irqbalance", THEME_CPUS,
	  "it moves interrupts of passed-through devices and of the host onto CPUs that run vCPUs", "irqbalance(1), IRQBALANCE_BANNED_CPULIST" },

	{ "kernel", THEME_SOFTWARE,
	  "large BARs are mapped page by page: a VM with 4 such GPUs took more than 5 minutes to boot, less than 30 s with the fix", SRU },
	{ "lockdown", THEME_SOFTWARE, "setpci cannot write: ACS cannot be set", "kernel_lockdown(7)" },
	{ "qemu", THEME_SOFTWARE, "no VM with passed-through devices can run", "the QEMU at hand, asked" },
	{ "qemu-large-bar", THEME_SOFTWARE,
	  "large BARs are mapped in small pages, on any kernel: minutes of boot time", SRU "; QEMU 9.2, vfio: align mmap() of BARs" },
	{ "qemu-link-speed", THEME_SOFTWARE, "guests see links of at most 16 GT/s, and NCCL computes with that", "QEMU 9.0, pcie-root-port x-speed" },
	{ "qemu-vcpus", THEME_SOFTWARE, "one VM cannot have all CPUs", "the QEMU at hand, asked" },
	{ "firmware", THEME_SOFTWARE, "VMs with [vm] firmware = ovmf are refused", "the files of this host" },
	{ "nvidia-drm", THEME_SOFTWARE,
	  "it opens GPUs for displays: taking one from the driver waits until they are closed", "NVIDIA driver README, nvidia-drm" },
	{ "nvidia-persistenced", THEME_SOFTWARE,
	  "it keeps GPUs open: taking one from its driver can wait for ever", "github.com/kubernetes-sigs/dra-driver-nvidia-gpu/issues/1037" },
	{ "fabric-manager", THEME_SOFTWARE,
	  "no NVLink: CUDA in the guests ends with error 802 (system not yet initialized)", "NVIDIA, Fabric Manager user guide" },
	{ "fabric-version", THEME_SOFTWARE,
	  "no NVLink: CUDA in the guests ends with error 802 (system not yet initialized)", "NVIDIA, Fabric Manager user guide" },
	{ "fabric-state", THEME_SOFTWARE, "VMs that share the NVSwitches are refused: their partition cannot be activated", "NVIDIA, Fabric Manager user guide" },
	{ "memlock", THEME_SOFTWARE,
	  "VFIO pins all memory of a guest: VFIO_MAP_DMA fails with: Cannot allocate memory", "Linux, Documentation/driver-api/vfio.rst" },
	{ "nofile", THEME_SOFTWARE, "QEMU has two eventfds for each interrupt vector: 8 NICs with 192 vectors have 3072", "QEMU, hw/vfio/pci.c" },
	{ "cgroup", THEME_SOFTWARE, "", "Linux, Documentation/admin-guide/cgroup-v2.rst" },

	{ "claim", THEME_RECORDS,
	  "its devices, CPUs and memory stay taken, or are given back at the next start, which takes longer", "gpuvm(1), recover" },
	{ "bad-record", THEME_RECORDS, "a device that is put there one day, of the same model, is refused", "gpuvm(1), doctor" },
};
const size_t doctor_n_codes = ARRAY_SIZE(doctor_codes);

const struct doctor_code *doctor_find_code(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(doctor_codes); i++)
		if (!strcmp(doctor_codes[i].word, word))
			return &doctor_codes[i];
	return NULL;
}

const char *doctor_severity_word(enum doctor_severity s)
{
	static const char *const words[] = { [DOCTOR_OK] = "ok", [DOCTOR_WARNING] = "warning", [DOCTOR_PROBLEM] = "problem" };

	return words[s];
}
