/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "config_impl.h"

/* clang-format off */
/* --- words ------------------------------------------------------------------------------------- */

static const struct config_word word_auto[] = { { "auto", CONF_AUTO }, { NULL, 0 } };
static const struct config_word word_memlock[] = { { "auto", 0 }, { "unlimited", -1 }, { NULL, 0 } };
static const struct config_word word_none[] = { { "none", CONF_AUTO }, { NULL, 0 } };
static const struct config_word word_auto_zero[] = { { "auto", 0 }, { NULL, 0 } };
static const struct config_word word_per_gpu[] = { { "per-gpu", CONF_PER_GPU }, { "none", 0 }, { NULL, 0 } };

/* For strings: CONF_AUTO leaves the field NULL, any other word is stored as written. */
static const struct config_word word_firmware[] = {
	{ "auto", CONF_AUTO },
	{ "ovmf", 1 },
	{ "seabios", 2 },
	{ NULL, 0 },
};
static const struct config_word word_romfile[] = { { "auto", CONF_AUTO }, { "none", 1 }, { NULL, 0 } };

static const struct config_word word_accel[] = {
	{ "auto", ACCEL_AUTO },
	{ "kvm", ACCEL_KVM },
	{ "tcg", ACCEL_TCG },
	{ NULL, 0 },
};
static const struct config_word word_interrupts[] = { { "keep", INTERRUPTS_KEEP }, { "node", INTERRUPTS_NODE }, { NULL, 0 } };
static const struct config_word word_pcie[] = {
	{ "mirror", PCIE_MIRROR },
	{ "root-port", PCIE_ROOT_PORT },
	{ "flat", PCIE_FLAT },
	{ NULL, 0 },
};
static const struct config_word word_relation[] = {
	{ "prefer", RELATION_PREFER },
	{ "require PIX", RELATION_PIX },
	{ "require PXB", RELATION_PXB },
	{ "require PHB", RELATION_PHB },
	{ "require NODE", RELATION_NODE },
	{ NULL, 0 },
};
static const struct config_word word_acs[] = { { "keep", CONF_ACS_KEEP }, { "direct-translated", CONF_ACS_DIRECT }, { NULL, 0 } };
static const struct config_word word_check[] = { { "auto", CHECK_AUTO }, { "on", CHECK_ON }, { "off", CHECK_OFF }, { NULL, 0 } };
static const struct config_word word_cliques[] = {
	{ "auto", CLIQUES_AUTO },
	{ "on", CLIQUES_ON },
	{ "off", CLIQUES_OFF },
	{ NULL, 0 },
};
static const struct config_word word_nvswitch[] = { { "auto", NVSWITCH_AUTO }, { "none", NVSWITCH_NONE }, { NULL, 0 } };
static const struct config_word word_fabric[] = {
	{ "auto", CONF_FABRIC_AUTO },
	{ "none", CONF_FABRIC_NONE },
	{ "full", CONF_FABRIC_FULL },
	{ "shared", CONF_FABRIC_SHARED },
	{ NULL, 0 },
};
static const struct config_word word_format[] = {
	{ "auto", DISK_AUTO },
	{ "raw", DISK_RAW },
	{ "qcow2", DISK_QCOW2 },
	{ NULL, 0 },
};
static const struct config_word word_cache[] = {
	{ "auto", CACHE_AUTO },
	{ "none", CACHE_NONE },
	{ "writeback", CACHE_WRITEBACK },
	{ "writethrough", CACHE_WRITETHROUGH },
	{ "directsync", CACHE_DIRECTSYNC },
	{ "unsafe", CACHE_UNSAFE },
	{ NULL, 0 },
};
static const struct config_word word_aio[] = {
	{ "auto", AIO_AUTO }, { "threads", AIO_THREADS }, { "native", AIO_NATIVE }, { "io_uring", AIO_IO_URING }, { NULL, 0 },
};
static const struct config_word word_prealloc[] = { { "auto", PREALLOC_AUTO }, { "on", PREALLOC_ON }, { "off", PREALLOC_OFF }, { NULL, 0 } };
static const struct config_word word_bus[] = { { "blk", BUS_BLK }, { "scsi", BUS_SCSI }, { NULL, 0 } };
static const struct config_word word_net[] = { { "user", NET_USER }, { "tap", NET_TAP }, { "bridge", NET_BRIDGE }, { NULL, 0 } };
static const struct config_word word_vhost[] = { { "auto", VHOST_AUTO }, { "on", VHOST_ON }, { "off", VHOST_OFF }, { NULL, 0 } };
static const struct config_word word_vsock[] = { { "off", 0 }, { "auto", CONF_AUTO }, { NULL, 0 } };
static const struct config_word word_serial[] = {
	{ "socket", SERIAL_SOCKET },
	{ "log", SERIAL_LOG },
	{ "stdio", SERIAL_STDIO },
	{ NULL, 0 },
};
static const struct config_word word_reboot[] = { { "reset", REBOOT_RESET }, { "stop", REBOOT_STOP }, { NULL, 0 } };
static const struct config_word word_crash[] = { { "stop", CRASH_STOP }, { "restart", CRASH_RESTART }, { NULL, 0 } };
static const struct config_word word_death[] = { { "keep", DEATH_KEEP }, { "stop", DEATH_STOP }, { NULL, 0 } };

/* For the hints of CONF_CUSTOM keys: their parsers know the values. */
static const struct config_word word_pin[] = { { "auto", PIN_AUTO }, { "off", PIN_OFF }, { NULL, 0 } };
static const struct config_word word_hugepages[] = {
	{ "auto", CONF_AUTO }, { "1G", INT64_C(1) << 30 }, { "2M", INT64_C(2) << 20 }, { "off", 0 }, { NULL, 0 },
};

/* --- sections ---------------------------------------------------------------------------------- */

static const struct section_info {
	const char *section;
	bool named;
	const char *doc;
} sections[] = {
	{ "vm", false, "The machine as a whole." },
	{ "place", false,
	  "Devices by number and nearness. Without this section and without [device NAME] the VM has no "
	  "passed-through devices." },
	{ "device", true, "One more passed-through PCI function, or options for one that [place] selects." },
	{ "cpu", false, "Virtual CPUs and the host CPUs they run on." },
	{ "memory", false, "Guest memory. It is split over the guest's NUMA nodes." },
	{ "pcie", false, "The PCI Express tree that the guest sees." },
	{ "fabric", false, "NVLink between the GPUs of the VM, on machines with NVSwitches." },
	{ "disk", true, "A virtio disk, from an image file or a block device." },
	{ "net", true, "A virtio network interface." },
	{ "guest", false, "Small virtual devices that guests use to talk to the host." },
	{ "cloud-init", false, "First boot of a cloud image: a NoCloud seed, made at each start and given to the guest as a read-only disk." },
	{ "console", false, "The serial console of the guest." },
	{ "lifecycle", false, "Starting, stopping, and what happens when something ends." },
	{ "hooks", false,
	  "Programs of the operator's own, run at points of a VM's life. See HOOKS in gpuvm-launch(1) for what they are told." },
	{ "security", false, "What QEMU itself may do." },
	{ "qemu", false, "The QEMU program, and a way past everything that has no key here." },
};

/* clang-format on */
static const struct section_info *find_section(const char *section)
{
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (!strcmp(sections[i].section, section))
			return &sections[i];
	return NULL;
}

bool config_section_is_named(const char *section)
{
	const struct section_info *s = find_section(section);

	return s && s->named;
}

const char *config_section_doc(const char *section)
{
	const struct section_info *s = find_section(section);

	return s ? s->doc : "";
}

/* clang-format off */
/* --- keys -------------------------------------------------------------------------------------- */

#define KIB (INT64_C(1) << 10)
#define MIB (KIB << 10)
#define GIB (MIB << 10)
#define TIB (GIB << 10)

#define MAX_MEMORY   (64 * TIB) /* 46 bits: what the CPUs of such servers address */
#define MAX_MMIO     (16 * TIB) /* OVMF's limit for opt/ovmf/X-PciMmio64Mb */
#define MAX_VCPUS    4096       /* the kernel's KVM_MAX_VCPUS; the machine type may allow fewer */
#define MAX_TIMEOUT  (INT64_C(7) * 24 * 3600 * 1000)
#define IFNAME_MAX   15         /* IFNAMSIZ - 1 */

#define VM(f)     .offset = offsetof(struct vm_config, f)
#define DEVICE(f) .section = "device", .offset = offsetof(struct device_config, f)
#define DISK(f)   .section = "disk", .offset = offsetof(struct disk_config, f)
#define NET(f)    .section = "net", .offset = offsetof(struct net_config, f)

/* Sections in the order of the example file; `fallback` is parsed by config_init(), so that the documented
 * default and the real one are the same thing. */
const struct config_key config_keys[] = {
	{ .section = "vm", .key = "name", .type = CONF_NAME, VM(name), .required = true, .max = VM_NAME_MAX,
	  .fallback = "", .example = "half0",
	  .doc = "Name of the VM. One VM of a name runs at a time. A file without it takes its own name without "
		 "\".ini\"." },
	{ .section = "vm", .key = "uuid", .type = CONF_UUID, VM(uuid), .words = word_auto, .fallback = "auto",
	  .example = "6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11",
	  .doc = "SMBIOS UUID that the guest sees. auto: derived from this machine and the name, the same at every "
		 "start." },
	{ .section = "vm", .key = "firmware", .type = CONF_PATH, VM(firmware), .words = word_firmware,
	  .fallback = "auto", .example = "ovmf",
	  .doc = "Firmware: ovmf (UEFI), seabios, or the absolute path of an image. auto: ovmf with KVM and where it "
		 "is installed, else seabios." },
	{ .section = "vm", .key = "accel", .type = CONF_ENUM, VM(accel), .words = word_accel, .fallback = "auto",
	  .example = "kvm",
	  .doc = "How guest code is run: kvm, or tcg, which emulates and is slow. auto: kvm where /dev/kvm can be "
		 "used." },
	{ .section = "vm", .key = "machine", .type = CONF_STRING, VM(machine), .words = word_auto, .fallback = "auto",
	  .example = "pc-q35-7.2",
	  .doc = "QEMU machine type; it must be one of the q35 family. auto: q35, the newest that QEMU has. A "
		 "versioned one keeps the guest's hardware the same over QEMU upgrades." },
	{ .section = "vm", .key = "kernel", .type = CONF_PATH, VM(kernel), .fallback = "",
	  .example = "/boot/vmlinuz", .doc = "Boot this Linux kernel directly instead of a disk." },
	{ .section = "vm", .key = "initrd", .type = CONF_PATH, VM(initrd), .fallback = "",
	  .example = "/boot/initrd.img", .doc = "Initial RAM disk for `kernel`." },
	{ .section = "vm", .key = "append", .type = CONF_STRING, VM(append), .fallback = "",
	  .example = "root=/dev/vda1 console=ttyS0", .doc = "Command line for `kernel`, taken as written." },

	{ .section = "place", .key = "gpus", .type = CONF_INT, VM(gpus), .max = 256, .fallback = "0", .example = "4",
	  .doc = "Number of GPUs." },
	{ .section = "place", .key = "gpu-index", .type = CONF_INT, VM(gpu_index), .max = 255, .words = word_auto,
	  .fallback = "auto", .example = "0",
	  .doc = "Index of the first GPU, from 0, as `gpuvm topo` counts them: by socket, NUMA node, PCI address. The "
		 "others follow it. auto: those that are free and nearest to each "
		 "other." },
	{ .section = "place", .key = "socket", .type = CONF_INT, VM(socket), .max = 255, .words = word_auto,
	  .fallback = "auto", .example = "0",
	  .doc = "Take devices, CPUs and memory from this socket only. auto: where the devices are." },
	{ .section = "place", .key = "nics", .type = CONF_INT, VM(nics), .max = 256, .words = word_per_gpu,
	  .fallback = "per-gpu", .example = "4",
	  .doc = "Network adapters. per-gpu: those that share a PCIe switch with a GPU of the VM. A number: as many, "
		 "the nearest first. Adapters that the host uses are never taken." },
	{ .section = "place", .key = "nvme", .type = CONF_INT, VM(nvme), .max = 256, .words = word_per_gpu,
	  .fallback = "per-gpu", .example = "none",
	  .doc = "NVMe controllers, as with nics. Controllers with a mounted file system, swap or a volume that the "
		 "host uses are never taken." },

	{ .section = "place", .key = "nvswitch", .type = CONF_ENUM, VM(nvswitch), .words = word_nvswitch,
	  .fallback = "auto", .example = "none",
	  .doc = "auto: in full passthrough ([fabric] mode) the NVSwitches that belong to the VM's GPUs, or on B200 and B300 the "
		 "bridge functions that manage them, go along. none: never." },

	{ DEVICE(pci), .key = "pci", .type = CONF_PCI, .required = true, .fallback = "", .example = "0000:17:00.0",
	  .doc = "PCI address on the host. A device that [place] selects too is passed through once, with these "
		 "options." },
	{ DEVICE(force), .key = "force", .type = CONF_BOOL, .fallback = "off", .example = "on",
	  .doc = "Take the device although the host uses it: a mounted disk or the interface of the default route. "
		 "The host loses it." },
	{ DEVICE(rombar), .key = "rombar", .type = CONF_BOOL, .fallback = "on", .example = "off",
	  .doc = "Show the device's option ROM to the guest." },
	{ DEVICE(romfile), .key = "romfile", .type = CONF_PATH, .words = word_romfile, .fallback = "auto",
	  .example = "/usr/share/vgabios/gpu.rom",
	  .doc = "Option ROM from a file instead of the device's own. none: no ROM. auto: the device's own." },
	{ DEVICE(guest_node), .key = "guest-node", .type = CONF_INT, .max = 63, .words = word_auto,
	  .fallback = "auto", .example = "0",
	  .doc = "Guest NUMA node that the device is attached to. auto: the one that stands for the host node it is "
		 "on." },
	{ DEVICE(gpudirect_clique), .key = "gpudirect-clique", .type = CONF_INT, .max = 15, .words = word_none,
	  .fallback = "none", .example = "0",
	  .doc = "NVIDIA GPUDirect clique ID, which tells the guest's driver that GPUs with the same ID can reach each "
		 "other. GPUs of NVIDIA only." },
	{ DEVICE(x_no_mmap), .key = "x-no-mmap", .type = CONF_BOOL, .fallback = "off", .example = "on",
	  .doc = "Do not map the device's memory into QEMU. A debugging aid: peer-to-peer DMA (GPUDirect) stops "
		 "working and every access is trapped, which gpuvm warns about." },
	{ DEVICE(iommufd), .key = "iommufd", .type = CONF_BOOL, .fallback = "off", .example = "on",
	  .doc = "Use the kernel's iommufd in place of the VFIO container. Needs QEMU 9.0. Peer-to-peer DMA (GPUDirect) does not "
		 "work with it up to QEMU 10.2, which gpuvm warns about." },

	{ .section = "cpu", .key = "vcpus", .type = CONF_INT, VM(vcpus), .min = 1, .max = MAX_VCPUS,
	  .words = word_auto, .fallback = "auto", .example = "48",
	  .doc = "Number of virtual CPUs. auto: with GPUs, the VM's share of the CPUs of its nodes after `reserve`; "
		 "without, two, or one on a host with one CPU." },
	{ .section = "cpu", .key = "model", .type = CONF_STRING, VM(cpu_model), .words = word_auto,
	  .fallback = "auto", .example = "host", .doc = "QEMU CPU model. auto: host with KVM, max without." },
	{ .section = "cpu", .key = "threads", .type = CONF_INT, VM(threads), .min = 1, .max = 2, .words = word_auto,
	  .fallback = "auto", .example = "2",
	  .doc = "Threads per core that the guest sees. auto: 2 where both threads of each host core belong to the "
		 "VM." },
	{ .section = "cpu", .key = "pin", .type = CONF_CUSTOM, VM(pin), .words = word_pin, .fallback = "auto",
	  .example = "4-27,100-123", .parse = config_parse_pin,
	  .doc = "Host CPUs for the virtual CPUs, in this order: virtual CPU 0 runs on the first one. auto: chosen near "
		 "the devices. off: the kernel schedules them." },
	{ .section = "cpu", .key = "reserve", .type = CONF_INT, VM(cpu_reserve), .max = 1024, .words = word_auto,
	  .fallback = "auto", .example = "2",
	  .doc = "Cores of each host node that are left to the host and to QEMU's own threads: the first ones. auto: one in "
		 "24, at least one." },
	{ .section = "cpu", .key = "emulator", .type = CONF_CUSTOM, VM(emulator), .words = word_auto,
	  .fallback = "auto", .example = "0-3", .parse = config_parse_emulator,
	  .doc = "Host CPUs for QEMU's main and helper threads, swtpm and the supervisor. auto: the reserved cores." },
	{ .section = "cpu", .key = "interrupts", .type = CONF_ENUM, VM(interrupts), .words = word_interrupts, .fallback = "keep", .example = "node",
	  .doc = "Host CPUs for the interrupts of passed-through devices. node: on the device's node the CPUs of QEMU's own threads, or if those "
		 "have none there, of the VM's vCPUs. Looked after for some minutes from each start of the guest, which turns "
		 "them on, and at SIGHUP. keep: where the kernel, or irqbalance, puts them." },
	{ .section = "cpu", .key = "pmu", .type = CONF_BOOL, VM(pmu), .fallback = "on", .example = "off",
	  .doc = "Performance counters in the guest (perf, VTune). With KVM only." },
	{ .section = "cpu", .key = "invtsc", .type = CONF_BOOL, VM(invtsc), .fallback = "off", .example = "on",
	  .doc = "Tell the guest that its time stamp counter never stops or changes its rate. The host's must be so. With KVM only." },
	{ .section = "cpu", .key = "cpu-pm", .type = CONF_BOOL, VM(cpu_pm), .fallback = "off", .example = "on",
	  .doc = "Let the guest put its CPUs to sleep itself (HLT, MWAIT), for the shortest wake-up. The host then sees them "
		 "as always busy: for pinned CPUs only. With KVM only." },

	{ .section = "memory", .key = "size", .type = CONF_SIZE, VM(memory_bytes), .min = 16 * MIB,
	  .max = MAX_MEMORY, .words = word_auto_zero, .fallback = "auto", .example = "960G",
	  .doc = "Size, in binary units (960G, 1.5T). auto: with GPUs, the VM's share of the memory of its nodes after "
		 "`reserve`; without, 2G or half of what there is." },
	{ .section = "memory", .key = "hugepages", .type = CONF_CUSTOM, VM(hugepage_bytes), .words = word_hugepages,
	  .fallback = "auto", .example = "1G", .parse = config_parse_hugepages,
	  .doc = "Page size of the pool that memory is taken from: 1G, 2M, or off. auto: with devices the largest of "
		 "which every node of the VM has a pool, else off." },
	{ .section = "memory", .key = "prealloc", .type = CONF_ENUM, VM(prealloc), .words = word_prealloc, .fallback = "auto", .example = "off",
	  .doc = "Touch all memory before the guest starts, so that a shortage is found then and not later. auto: on with huge pages, and "
		 "with passed-through devices, which need all of it at once; else off." },
	{ .section = "memory", .key = "reserve", .type = CONF_SIZE, VM(mem_reserve_bytes), .max = MAX_MEMORY,
	  .words = word_auto, .fallback = "auto", .example = "16G",
	  .doc = "Memory of each host node that an automatic `size` leaves to the host. auto: nothing of a pool of huge pages, "
		 "which is set aside already; of normal memory 8G, at most an eighth." },
	{ .section = "memory", .key = "mem-lock", .type = CONF_BOOL, VM(mem_lock), .fallback = "off", .example = "on",
	  .doc = "Lock all of QEMU's memory, also what is not the guest's, so that nothing is ever swapped out." },

	{ .section = "pcie", .key = "topology", .type = CONF_ENUM, VM(pcie), .words = word_pcie,
	  .fallback = "mirror", .example = "root-port",
	  .doc = "mirror: devices below one host switch are below one guest switch, on their NUMA node. root-port: each "
		 "device below a root port of its own on its node, which shows the guest true link speeds but hides the "
		 "switches. flat: root ports on the first bus, without NUMA." },
	{ .section = "pcie", .key = "mmio64", .type = CONF_SIZE, VM(mmio64_bytes), .min = GIB, .max = MAX_MMIO,
	  .words = word_auto_zero, .fallback = "auto", .example = "4T",
	  .doc = "Window for 64-bit device memory. auto: from the sizes of the devices' BARs." },
	{ .section = "pcie", .key = "relation", .type = CONF_ENUM, VM(relation), .words = word_relation,
	  .fallback = "prefer", .example = "require PIX",
	  .doc = "How near each GPU must have a NIC, and an NVMe controller if the VM has any, in the host and as the guest "
		 "sees it: PIX, below the same switch; PXB, below stacked switches; PHB, below the same host bridge; NODE, on the "
		 "same NUMA node or socket. What is farther is refused. prefer: the nearest there is." },
	{ .section = "pcie", .key = "cliques", .type = CONF_ENUM, VM(cliques), .words = word_cliques,
	  .fallback = "auto", .example = "off",
	  .doc = "GPUDirect clique IDs (gpudirect-clique) for NVIDIA GPUs that can reach each other, which the guest's driver "
		 "takes as a promise that peer-to-peer works. on: the GPUs below one host bridge share one. auto: "
		 "those below one host switch, where the guest's PCI tree does not show the switch. off: none but those "
		 "that [device NAME] sets." },
	{ .section = "pcie", .key = "acs", .type = CONF_ENUM, VM(acs), .words = word_acs, .fallback = "keep",
	  .example = "direct-translated",
	  .doc = "direct-translated: while the VM runs, switches send requests that a NIC with ATS has had translated straight to "
		 "the GPU beside it, and not up to the IOMMU (GPUDirect RDMA). Sets ACSCtl to 0x5d at the root ports above the VM's "
		 "devices and at the ports of switches where they meet; all below such a switch must be this VM's. Old values "
		 "return when the last VM that needs them ends. keep: nothing is changed." },

	{ .section = "fabric", .key = "mode", .type = CONF_ENUM, VM(fabric), .words = word_fabric, .fallback = "auto",
	  .example = "shared",
	  .doc = "full: NVSwitches go to the guest with the GPUs, and Fabric Manager runs there. shared: only GPUs go, exactly those of "
		 "one partition of the host's Fabric Manager; which GPU is which comes from /etc/gpuvm/fabric.conf. none: no "
		 "NVLink. auto: full where no host driver has the NVSwitches and the number of GPUs is one that full passthrough "
		 "knows, else shared where the GPUs' IDs are known, else none, with a warning." },
	{ .section = "fabric", .key = "partition", .type = CONF_INT, VM(partition), .max = 255, .words = word_auto,
	  .fallback = "auto", .example = "1",
	  .doc = "Partition of shared mode, by Fabric Manager's ID. auto: the free one whose GPUs are nearest to each other and "
		 "which breaks up the fewest larger ones." },
	{ .section = "fabric", .key = "manager", .type = CONF_STRING, VM(fabric_manager), .fallback = "auto",
	  .example = "/usr/local/bin/fmpm 10.0.0.2",
	  .doc = "Who activates the partition of shared mode: the path of NVIDIA's program fmpm, or the name or path of its library "
		 "(libnvfm.so.1), or auto: that library, else fmpm in PATH; and then, where it is not 127.0.0.1, where Fabric Manager "
		 "listens: HOST, HOST:PORT, or unix:/PATH of its socket. none: you activate it yourself, before the VM is started." },

	{ DISK(file), .key = "file", .type = CONF_PATH, .required = true, .fallback = "",
	  .example = "/var/lib/gpuvm/disks/half0.qcow2", .doc = "Image file or block device." },
	{ DISK(format), .key = "format", .type = CONF_ENUM, .words = word_format, .fallback = "auto",
	  .example = "qcow2",
	  .doc = "Format of the file. auto: raw for a block device and for names that end in .raw, .img or .iso, qcow2 for "
		 ".qcow2; for any other it must be said, because the guest could fake what is found inside." },
	{ DISK(bus), .key = "bus", .type = CONF_ENUM, .words = word_bus, .fallback = "blk", .example = "scsi",
	  .doc = "blk: virtio-blk, a PCI function per disk (/dev/vda). scsi: all disks of this kind on one virtio-scsi controller "
		 "(/dev/sda), where an .iso with readonly = on is a CD-ROM." },
	{ DISK(queues), .key = "queues", .type = CONF_INT, .min = 1, .max = 1024, .words = word_auto,
	  .fallback = "auto", .example = "8", .doc = "Number of virtqueues. auto: one per virtual CPU. For bus = scsi they are the "
		 "controller's: the largest number that a disk on it asks for." },
	{ DISK(iothread), .key = "iothread", .type = CONF_BOOL, .fallback = "on", .example = "off",
	  .doc = "Serve the disk by I/O threads of their own, on the reserved cores: one for each guest node where QEMU can "
		 "spread the queues (9.0; bus = scsi 10.0), else one. For bus = scsi it is the "
		 "controller's, which has them unless it is off for each disk." },
	{ DISK(cache), .key = "cache", .type = CONF_ENUM, .words = word_cache, .fallback = "auto",
	  .example = "writeback", .doc = "Host page cache mode, as QEMU's. auto: none for a block device, writeback for an image." },
	{ DISK(aio), .key = "aio", .type = CONF_ENUM, .words = word_aio, .fallback = "auto", .example = "native",
	  .doc = "How I/O is submitted. native needs cache = none or directsync. auto: io_uring where QEMU and "
		 "the kernel have it; else native with those, else threads." },
	{ DISK(discard), .key = "discard", .type = CONF_BOOL, .fallback = "off", .example = "on",
	  .doc = "What the guest trims (fstrim) is freed in the file too." },
	{ DISK(serial), .key = "serial", .type = CONF_STRING, .max = DISK_SERIAL_MAX, .words = word_auto, .fallback = "auto", .example = "data-1",
	  .doc = "Serial number that the guest sees (/dev/disk/by-id), at most 20 characters, different for each disk. auto: the "
		 "name of the section, its first 20 characters." },
	{ DISK(readonly), .key = "readonly", .type = CONF_BOOL, .fallback = "off", .example = "on",
	  .doc = "The guest cannot write. Several VMs may share the file then." },
	{ DISK(bootindex), .key = "bootindex", .type = CONF_INT, .max = 9999, .words = word_auto, .fallback = "auto",
	  .example = "0", .doc = "Place in the boot order, lowest first. auto: in the order of the file." },

	{ NET(type), .key = "type", .type = CONF_ENUM, .words = word_net, .fallback = "user", .example = "tap",
	  .doc = "user: QEMU's own NAT, needs no privileges and is slow. tap: a tap interface of the host, existing or made for the "
		 "time that the VM runs. bridge: a tap interface made so, and attached to `bridge`." },
	{ NET(ifname), .key = "ifname", .type = CONF_NAME, .max = IFNAME_MAX, .words = word_auto, .fallback = "auto", .example = "tap-half0",
	  .doc = "Name of the tap interface. For tap it may exist already, made with multi_queue; it is then used and left as it is. "
		 "Not allowed for user. auto: made from the names of VM and section." },
	{ NET(bridge), .key = "bridge", .type = CONF_NAME, .max = IFNAME_MAX, .fallback = "", .example = "br0",
	  .doc = "Existing bridge of the host. Required for type = bridge, not allowed for others." },
	{ NET(queues), .key = "queues", .type = CONF_INT, .min = 1, .max = 256, .words = word_auto,
	  .fallback = "auto", .example = "8",
	  .doc = "Queue pairs. auto: one per virtual CPU for tap, at most 256; one for user." },
	{ NET(vhost), .key = "vhost", .type = CONF_ENUM, .words = word_vhost, .fallback = "auto", .example = "on",
	  .doc = "Move packets of a tap interface in the kernel (/dev/vhost-net). auto: where it can be had, else QEMU moves them, with a "
		 "warning. user cannot." },
	{ NET(mac), .key = "mac", .type = CONF_MAC, .words = word_auto, .fallback = "auto",
	  .example = "52:54:00:12:34:56",
	  .doc = "MAC address. auto: derived from this machine, the VM and the interface, the same at every start." },

	{ .section = "guest", .key = "agent", .type = CONF_BOOL, VM(guest_agent), .fallback = "on", .example = "off",
	  .doc = "Channel for qemu-guest-agent: agent.sock in the VM's run-time folder." },
	{ .section = "guest", .key = "rng", .type = CONF_BOOL, VM(guest_rng), .fallback = "on", .example = "off",
	  .doc = "Entropy from the host (virtio-rng)." },
	{ .section = "guest", .key = "panic", .type = CONF_BOOL, VM(guest_panic), .fallback = "on", .example = "off",
	  .doc = "Device by which a guest's kernel reports that it has panicked (pvpanic)." },
	{ .section = "guest", .key = "tpm", .type = CONF_BOOL, VM(guest_tpm), .fallback = "off", .example = "on",
	  .doc = "TPM 2.0, emulated by swtpm; its state is kept in the state folder (tpm/NAME). A kernel in [vm] must be compressed "
		 "then (vmlinuz): QEMU loads the initrd of an uncompressed one over the tables by which guests find the TPM." },
	{ .section = "guest", .key = "vsock", .type = CONF_INT, VM(vsock), .min = 3, .max = INT32_MAX, .words = word_vsock,
	  .fallback = "off", .example = "auto",
	  .doc = "Context ID of a socket between host and guest (AF_VSOCK). auto: derived from the VM's name. Each VM has its own: one that "
		 "another one has is refused." },
	{ .section = "guest", .key = "check-disk", .type = CONF_ENUM, VM(check_disk), .words = word_check, .fallback = "auto", .example = "on",
	  .doc = "Where the guest finds the script that checks it from inside (gpuvm-check.sh) and NCCL's topology file (nccl-topo.xml). auto: on the "
		 "cloud-init seed, if there is one. on: on a read-only disk of its own, with the volume name gpuvm. off: nowhere. "
		 "`gpuvm guest-check` prints the script in any case." },

	{ .section = "cloud-init", .key = "user-data", .type = CONF_PATH, VM(user_data), .fallback = "",
	  .example = "/etc/gpuvm/half0.user-data", .doc = "cloud-config or script. Without it an empty one." },
	{ .section = "cloud-init", .key = "meta-data", .type = CONF_PATH, VM(meta_data), .words = word_auto, .fallback = "auto",
	  .example = "/etc/gpuvm/half0.meta-data", .doc = "auto: an instance-id and a local-hostname, both from the VM's name; with uuid in [vm] the "
		 "instance-id has that, too." },
	{ .section = "cloud-init", .key = "network-config", .type = CONF_PATH, VM(network_config), .fallback = "",
	  .example = "/etc/gpuvm/half0.network", .doc = "Network configuration, version 1 or 2. Without it cloud-init uses DHCP." },

	{ .section = "console", .key = "serial", .type = CONF_ENUM, VM(serial), .words = word_serial,
	  .fallback = "socket", .example = "log",
	  .doc = "Where the serial port goes. socket: serial.sock in the VM's run-time folder, and what the guest writes also "
		 "to serial.log. log: serial.log only. stdio: the launcher's terminal, whose keys are the guest's "
		 "then, Ctrl-C, too: `gpuvm stop` from another one ends it." },

	{ .section = "lifecycle", .key = "stop-timeout", .type = CONF_DURATION, VM(stop_timeout_ms),
	  .max = MAX_TIMEOUT, .fallback = "90s", .example = "5min",
	  .doc = "How long the guest may take to shut down before it is ended." },
	{ .section = "lifecycle", .key = "ready-timeout", .type = CONF_DURATION, VM(ready_timeout_ms), .min = 1,
	  .max = MAX_TIMEOUT, .words = word_auto_zero, .fallback = "auto", .example = "10min",
	  .doc = "How long QEMU may take until it answers; it allocates all memory before. auto: from the size of "
		 "the memory." },
	{ .section = "lifecycle", .key = "busy-timeout", .type = CONF_DURATION, VM(busy_timeout_ms), .max = MAX_TIMEOUT, .fallback = "60s",
	  .example = "5min", .doc = "How long processes that use a device of the VM may take to let it go, before the start is refused. What the host itself "
		 "does with one, as a mount or an address, is not waited for." },
	{ .section = "lifecycle", .key = "on-reboot", .type = CONF_ENUM, VM(on_reboot), .words = word_reboot,
	  .fallback = "reset", .example = "stop",
	  .doc = "When the guest reboots. reset: it starts again in the same QEMU. stop: the VM ends." },
	{ .section = "lifecycle", .key = "on-crash", .type = CONF_ENUM, VM(on_crash), .words = word_crash,
	  .fallback = "stop", .example = "restart",
	  .doc = "When the guest ends abnormally: its kernel panics, a device fails, QEMU dies. stop: the VM ends, with exit code 6. "
		 "restart: everything is given back and the VM started anew, after 1 s, then 2 s, 4 s and so on up to 1 min; "
		 "one that ran for 10 min begins at 1 s again." },
	{ .section = "lifecycle", .key = "on-launcher-death", .type = CONF_ENUM, VM(on_launcher_death),
	  .words = word_death, .fallback = "keep", .example = "stop",
	  .doc = "When gpuvm-launch itself is killed. keep: the guest runs on, and the next start of the same definition takes it over. stop: QEMU "
		 "is killed with it." },

	{ .section = "hooks", .key = "pre-bind", .type = CONF_PATH, VM(hook_pre_bind), .fallback = "", .example = "/etc/gpuvm/hooks/drain-node",
	  .doc = "Run before any device is touched. If it fails the VM is not started." },
	{ .section = "hooks", .key = "post-start", .type = CONF_PATH, VM(hook_post_start), .fallback = "", .example = "/etc/gpuvm/hooks/announce",
	  .doc = "Run when the guest runs. A failure is a warning." },
	{ .section = "hooks", .key = "post-stop", .type = CONF_PATH, VM(hook_post_stop), .fallback = "", .example = "/etc/gpuvm/hooks/resume-node",
	  .doc = "Run when everything is given back, also after a start that failed. A failure is a warning." },
	{ .section = "hooks", .key = "timeout", .type = CONF_DURATION, VM(hook_timeout_ms), .min = 1, .max = MAX_TIMEOUT, .fallback = "60s",
	  .example = "5min", .doc = "How long each may take; it is killed then, which counts as a failure." },

	{ .section = "security", .key = "user", .type = CONF_NAME, VM(user), .max = 32, .words = word_auto, .fallback = "auto", .example = "half0",
	  .doc = "Whom QEMU and swtpm run as when root starts the VM: a user of this machine, root, or auto: a number made from the VM's name, which no "
		 "user database knows and no other VM has. A user other than root has no capabilities, and what it needs (disks, UEFI "
		 "variables, the nodes of devices) is its own as long as the VM runs. A launcher that is not root changes nothing." },
	{ .section = "security", .key = "memlock", .type = CONF_SIZE, VM(memlock_bytes), .min = MIB, .max = 64 * TIB, .words = word_memlock,
	  .fallback = "auto", .example = "unlimited",
	  .doc = "How much memory QEMU may lock (RLIMIT_MEMLOCK), which VFIO charges for all of the guest's. auto: as much as that and 1 GiB, with the devices' "
		 "BARs for iommufd; a limit that is higher already stays. Without passed-through devices it is left as it is." },
	{ .section = "security", .key = "sandbox", .type = CONF_BOOL, VM(sandbox), .fallback = "on",
	  .example = "off", .doc = "Run QEMU with its seccomp filter." },
	{ .section = "security", .key = "device-filter", .type = CONF_BOOL, VM(device_filter), .fallback = "on",
	  .example = "off", .doc = "Where QEMU has a cgroup of its own (version 2; as a unit of systemd, or where there is no systemd): it opens no device nodes but "
		 "those of the plan, and those that [qemu] args names. off: for devices that are plugged in later by hand." },

	{ .section = "qemu", .key = "binary", .type = CONF_PATH, VM(qemu_binary), .words = word_auto,
	  .fallback = "auto", .example = "/opt/qemu/bin/qemu-system-x86_64",
	  .doc = "QEMU program. auto: qemu-system-x86_64 from the usual folders." },
	{ .section = "qemu", .key = "args", .type = CONF_STRING, VM(qemu_args), .fallback = "",
	  .example = "-device virtio-rng-pci,id=rng0",
	  .doc = "More arguments for QEMU, appended as they are; split as a shell would, without expansion." },
	{ .section = "qemu", .key = "env", .type = CONF_CUSTOM, VM(qemu_env), .fallback = "",
	  .example = "G_MESSAGES_DEBUG=all", .parse = config_parse_env,
	  .doc = "Environment variables for QEMU: NAME=VALUE words, split as a shell would." },
};

/* clang-format on */
const size_t config_n_keys = ARRAY_SIZE(config_keys);

const struct config_key *config_find_key(const char *section, const char *key)
{
	for (size_t i = 0; i < config_n_keys; i++)
		if (!strcmp(config_keys[i].section, section) && !strcmp(config_keys[i].key, key))
			return &config_keys[i];
	return NULL;
}

/* --- the example file -------------------------------------------------------------------------- */

#define EXAMPLE_WIDTH 100

/* @text as comment lines. */
static void print_comment(FILE *out, const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t word = strcspn(text, " ");

		if (column && column + 1 + word > EXAMPLE_WIDTH) {
			putc('\n', out);
			column = 0;
		}
		if (!column)
			column = (size_t)fprintf(out, "#");
		column += (size_t)fprintf(out, " %.*s", (int)word, text);
		text += word;
		text += strspn(text, " ");
	}
	putc('\n', out);
}

/* Only [vm] and its required key are live: the example is a definition that can be read. */
static void print_section(FILE *out, const char *section)
{
	bool named = config_section_is_named(section);

	fputs("\n\n", out);
	print_comment(out, config_section_doc(section));
	fprintf(out, named ? "#[%s NAME]\n" : "[%s]\n", section);
}

static void print_key(FILE *out, const struct config_key *k)
{
	bool live = k->required && !config_section_is_named(k->section);
	AUTO_FREE char *expected = config_expected(k);

	putc('\n', out);
	print_comment(out, k->doc);
	if (*expected) {
		AUTO_FREE char *value = xasprintf("Value: %s", expected);

		print_comment(out, value);
	}
	if (k->required)
		fputs("# Required.\n", out);
	else
		fprintf(out, "# Default: %s\n", *k->fallback ? k->fallback : "none");
	fprintf(out, "%s%s = %s\n", live ? "" : "#", k->key, k->example);
}

char *config_example(void)
{
	const char *section = "";
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	fputs("# Every section and key of a gpuvm definition, with its default. See gpuvm.ini(5).\n"
	      "# Made from the program's key table by tools/mkexample: edit a copy.\n"
	      "#\n"
	      "# Lines that begin with # or ; are comments. A comment needs a line of its own, because a value\n"
	      "# goes to the end of its line. Only a name is required, everything else has a default.\n",
	      out);
	for (size_t i = 0; i < config_n_keys; i++) {
		if (strcmp(section, config_keys[i].section))
			print_section(out, config_keys[i].section);
		section = config_keys[i].section;
		print_key(out, &config_keys[i]);
	}
	if (fclose(out))
		abort();
	return text;
}
