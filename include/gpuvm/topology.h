/* SPDX-License-Identifier: GPL-2.0-or-later */
/* topology.h - the host as a plain struct: nodes, CPUs, PCI tree.
 *
 * Filled by host/probe from "/", from a captured root, or built by a test.  After topology_finish() it is read
 * only; plan and drawing work on nothing else.  Indexes into the arrays are used for references; -1 is "none".
 *
 * GPU numbering (gpu_index): this machine's GPUs by socket, then NUMA node, then PCI address. */
#ifndef GPUVM_TOPOLOGY_H
#define GPUVM_TOPOLOGY_H

#include "gpuvm/cpuset.h"
#include "gpuvm/parse.h"

/* What a function is for. From the class code (PCI Code and ID Assignment, 1.x): a vendor table only refines. */
enum pci_role {
	ROLE_OTHER,
	ROLE_BRIDGE,   /* 0x0604 PCI-to-PCI bridge */
	ROLE_GPU,      /* base class 0x03 but not the boot VGA, or 0x12 processing accelerator */
	ROLE_NIC,      /* 0x0200 Ethernet, 0x0207 InfiniBand */
	ROLE_NVME,     /* 0x0108 */
	ROLE_NVSWITCH, /* NVIDIA 0x0680, or a function that reads zeros beside one */
	ROLE_FABRIC,   /* a ConnectX-7 function that manages the NVSwitches of B200 and B300 ("bridge"): never a tenant's NIC */
};

/* Where the NUMA node of a function comes from. */
enum node_source { NODE_FROM_DEVICE, NODE_FROM_PARENT, NODE_FROM_CPULIST, NODE_ONLY_ONE, NODE_UNKNOWN };

/* How close two functions are, best first: the words of `nvidia-smi topo -m`. */
enum pci_relation {
	REL_SELF,
	REL_PIX,  /* below one PCIe switch */
	REL_PXB,  /* below a common, stacked switch */
	REL_PHB,  /* below the same host bridge (root complex) */
	REL_NODE, /* same NUMA node or socket, other host bridge */
	REL_SYS,  /* across sockets */
};

struct hugepage_pool {
	uint64_t page_bytes;
	uint64_t total, free; /* pages */
};

#define HUGEPAGE_POOLS 4

struct host_node {
	int id; /* the kernel's number: nodes may be {0, 2} */
	int socket;
	struct cpuset cpus; /* online */
	uint64_t mem_bytes, free_bytes; /* free: with what the kernel drops for it (page cache); hugepages are not in it */
	struct hugepage_pool pools[HUGEPAGE_POOLS];
	size_t n_pools;
	int *distances; /* n_nodes entries, in the order of `nodes`; NULL if the host does not say */
};

struct host_cpu {
	int cpu;    /* the kernel's number */
	int node;   /* index into nodes */
	int socket; /* physical package number, as the kernel counts */
	int core;   /* index, unique in the machine: SMT siblings share it */
	int l3;     /* index, unique in the machine; -1 if unknown */
	bool isolated;  /* on the kernel's isolcpus list */
	bool nohz_full; /* without a timer tick while one thread runs */
};

enum pcie_port_type { PORT_UNKNOWN, PORT_ENDPOINT, PORT_ROOT, PORT_UPSTREAM, PORT_DOWNSTREAM, PORT_PCI_BRIDGE };

struct pci_bar {
	uint64_t start, bytes; /* bytes == 0: not implemented */
	uint64_t flags;        /* as in sysfs `resource`: IORESOURCE_MEM 0x200, _PREFETCH 0x2000, _MEM_64 0x100000 */
};

struct pci_func {
	struct pci_addr addr;
	int parent; /* index of the bridge above, -1 for a function on a root bus */
	char root_bus[24]; /* host bridge it hangs from: "0000:16" */
	uint16_t vendor, device, subvendor, subdevice;
	uint32_t class_code; /* 24 bits: base, sub, interface */
	enum pci_role role;
	enum pcie_port_type port;
	bool boot_vga;
	char driver[40];   /* "" if none is bound */
	char override[40]; /* driver_override, "" if unset */
	int iommu_group;   /* -1: no IOMMU, or not in a group */
	int sysfs_node;    /* as numa_node says: -1 is common */
	int local_node;    /* index of the one node that holds all of local_cpulist, -1 if it spans nodes or is not known */
	int node;          /* index into nodes after resolution, -1 if it could not be found out */
	enum node_source node_source;
	int socket; /* of node, -1 if unknown */
	struct pci_bar bars[6];
	struct {
		unsigned int max_mts, cur_mts; /* MT/s: 32000 is "32.0 GT/s"; 0 unknown */
		unsigned int max_width, cur_width;
	} link;
	unsigned int sriov_vfs; /* sriov_numvfs: VFs that are switched on */
	bool is_vf;
	bool manages_nvlink; /* its vital product data say so: see ROLE_FABRIC */
	bool can_reset;
	char name[96];    /* "NVIDIA Corporation GH100 [H200 SXM 141GB]" where the ids are known, else "10de:2335" */
	char os_name[32]; /* "eno1", "nvme0n1": from an hwloc XML only, in place of host_use */
	char *host_use;   /* why the host itself needs it: "network interface eno1 has the default route"; NULL = free */
	char *bad;	  /* why no VM may have it: "its reset failed ..." (bad.h), or what the probe saw; NULL: nothing is known against it */
	bool dead;	  /* its config space reads all ones: `bad` says so */
	int gpu_index;    /* -1 if not a GPU, or only a virtual function of one */
	/* Shortcuts through the tree, by topology_finish(). */
	bool is_switch;   /* topology_is_upstream() */
	int switch_above; /* topology_switch_of() */
	int host_bridge;  /* the first function on its root bus stands for it */
	int bridge_node;  /* index of the node of its host bridge: what any function below it says; -1 if none does */
};

/* A network interface of the host, as far as taps and bridges for VMs need it; addresses are not read. */
#define HOST_NET_NAME 16 /* IFNAMSIZ */
enum host_net_kind { HOST_NET_OTHER, HOST_NET_TAP, HOST_NET_BRIDGE };
struct host_net {
	char name[HOST_NET_NAME];
	enum host_net_kind kind;
	char master[HOST_NET_NAME]; /* the bridge or bond that it is a member of, or "" */
	int mtu;		    /* 0: not known */
	bool up;
	/* of a tap */
	bool multi_queue; /* made with multi_queue */
	bool persistent;  /* stays without a process that has it open */
	bool in_use;	  /* a process has it open */
};

/* Facts that a source does not have. A machine that was probed has them all, one from an hwloc XML has not: checks that
 * need one are then left out, and the plan says so. */
enum topology_gap {
	GAP_GROUPS = 1,      /* IOMMU and its groups */
	GAP_DRIVERS = 2,     /* drivers, virtual functions, VFIO and KVM */
	GAP_BARS = 4,        /* sizes of device memory */
	GAP_HOST_USE = 8,    /* what the host itself needs */
	GAP_FREE_MEMORY = 16, /* memory and hugepages in use: all is taken for free */
	GAP_LINKS = 32,      /* of links only the throughput at that moment */
	GAP_ALL = 63,
};

struct topology {
	char root[256]; /* below which it was read; "/" */
	char host_name[64];
	char machine_id[40]; /* of the host, or "" */
	char kernel[96];     /* release */
	struct host_node *nodes;
	size_t n_nodes;
	struct host_cpu *cpus;
	size_t n_cpus;
	struct pci_func *funcs; /* sorted by address; a parent may come after its child in no case */
	size_t n_funcs;
	int *gpus; /* functions by gpu_index */
	int n_gpus;
	int n_sockets;
	char cpu_vendor[16];   /* "GenuineIntel", "AuthenticAMD" */
	int phys_bits;         /* of the host CPU; 0 unknown */
	int iommu_bits;        /* MGAW of the narrowest IOMMU; 0 unknown */
	bool iommu_groups;     /* /sys/kernel/iommu_groups has entries */
	bool kvm;              /* /dev/kvm can be opened by us */
	bool vfio;             /* /dev/vfio/vfio exists, or vfio-pci can be loaded */
	bool io_uring;         /* the kernel lets us use it; of a machine that is not this one: not switched off */
	bool vhost_vsock;      /* as vhost_net, for /dev/vhost-vsock */
	bool vhost_net;        /* /dev/vhost-net can be opened by us, or its module loaded */
	bool nets_known;       /* `nets` is what there is: an XML and older captures do not have it */
	struct host_net *nets;
	size_t n_nets;
	struct cpuset allowed; /* CPUs that we inherited: plans stay inside */
	unsigned int gaps;     /* enum topology_gap: what could not be known */
};

void topology_clear(struct topology *t);

/* Fill everything that follows from the rest: roles, resolved nodes, sockets, gpu_index. Call once after probing. */
void topology_finish(struct topology *t);

/* What is not known, in words for a sentence ("IOMMU groups, drivers and BAR sizes"); owned, "" if nothing is. */
char *topology_gaps_text(const struct topology *t);
const char *topology_gap_word(enum topology_gap g); /* of one: "iommu-groups" */

const char *pci_role_word(enum pci_role r);    /* "gpu", "nic", ... */
const char *pci_relation_word(enum pci_relation r); /* "PIX", ... "SELF" is "X" */
const char *node_source_word(enum node_source s);

enum pci_role pci_role_of(uint32_t class_code, uint16_t vendor, bool boot_vga);

/* Could a VM have it, as far as the host and the function itself are concerned? Other VMs are not looked at. */
bool pci_func_is_usable(const struct pci_func *f);

/* Does nobody answer? @config is the beginning of its config space, PCI_CONFIG_HEAD bytes of it: reads of a function that is gone give all ones.
 * The vendor alone does not tell: a virtual function has none (SR-IOV specification 3.4.1.1), but its class. */
#define PCI_CONFIG_HEAD 12
bool pci_config_is_dead(const uint8_t config[PCI_CONFIG_HEAD]);

int topology_find_func(const struct topology *t, const struct pci_addr *a); /* index or -1 */
int topology_find_gpu(const struct topology *t, int gpu_index);             /* index or -1 */
int topology_n_gpus(const struct topology *t);
int topology_find_node(const struct topology *t, int id); /* kernel's number -> index or -1 */
const struct host_net *topology_find_net(const struct topology *t, const char *name); /* or NULL */
const struct host_cpu *topology_cpu(const struct topology *t, int cpu); /* kernel's number -> entry or NULL */

/* Bridges above @func, root first. Writes at most @max indexes and returns how many there are. */
size_t topology_path(const struct topology *t, int func, int *ret, size_t max);

/* Is @bridge an upstream port: does a switch begin here? By its PCIe capability, or, where that could not be
 * read, by its place: every second bridge below the root port. */
bool topology_is_upstream(const struct topology *t, int bridge);

/* The upstream port of the switch nearest above @func, or -1. */
int topology_switch_of(const struct topology *t, int func);

enum pci_relation topology_relation(const struct topology *t, int a, int b);

/* Sum of memory BARs, each rounded up to a power of two. */
uint64_t pci_func_bar_bytes(const struct pci_func *f);

/* "32.0 GT/s x16"; "" if unknown. The slowest and narrowest link on the way from the root to @func, from the maxima. */
struct pci_link {
	unsigned int mts, width;
};
struct pci_link topology_path_link(const struct topology *t, int func);

/* The same of the way from @func up to, but without, the bridge @above; -1: the whole way. */
struct pci_link topology_link_below(const struct topology *t, int func, int above);

/* Functions in the same IOMMU group as @func, itself included; returns the number, writes at most @max. */
size_t topology_group(const struct topology *t, int func, int *ret, size_t max);

/* Free pages of @page_bytes on node index @node; 0 if there is no such pool. */
const struct hugepage_pool *host_node_pool(const struct host_node *n, uint64_t page_bytes);

#endif
