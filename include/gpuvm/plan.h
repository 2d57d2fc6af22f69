/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plan.h - every decision about a VM, before anything is touched.
 *
 * How it works: plan_make() takes the definition, the host, what other VMs use and what QEMU can do, and gives
 * either a complete plan or all the reasons why there is none.  It is pure: no fd, clock, environment or log, so a
 * dry run is the program stopped at this arrow.  Order: select (devices) -> place_nodes -> place_cpus ->
 * place_memory -> place_pci (guest ports and buses) -> relate_devices (how near they are) -> queues and iothreads -> argv.
 *
 * The JSON form (plan_to_json) is a contract: scripts read it.  `schema` counts incompatible changes.
 * plan_from_json() reads back what `verify`, `status` and adoption need of a running VM. */
#ifndef GPUVM_PLAN_H
#define GPUVM_PLAN_H

#include "gpuvm/config.h"
#include "gpuvm/fabric.h"
#include "gpuvm/qemu.h"
#include "gpuvm/topology.h"

struct doctor_func;
struct json_object;

/* What running VMs hold (from their claims). */
struct host_use {
	struct used_device {
		struct pci_addr addr;
		char vm[VM_NAME_MAX + 1];
		int pid;
	} *devices;
	size_t n_devices;
	struct used_cpus {
		struct cpuset cpus; /* pinned vCPUs only: housekeeping CPUs are shared */
		char vm[VM_NAME_MAX + 1];
		int pid;
	} *cpus;
	size_t n_cpus;
	struct used_memory { /* planned but perhaps not allocated yet */
		int host_node;
		uint64_t bytes, page_bytes;
		char vm[VM_NAME_MAX + 1];
		bool allocated; /* QEMU has it already: the host's free counters know */
	} *memory;
	size_t n_memory;
	struct used_fabric { /* VMs with NVLink: full and shared exclude each other on one machine */
		enum fabric_mode mode;
		int partition; /* -1: none */
		char vm[VM_NAME_MAX + 1];
		int pid;
	} *fabrics;
	size_t n_fabrics;
	struct used_tap { /* also those of the VM that is planned, if it runs already */
		char ifname[HOST_NET_NAME];
		char vm[VM_NAME_MAX + 1];
		int pid;
	} *taps;
	size_t n_taps;
	struct used_vsock {
		uint32_t cid;
		char vm[VM_NAME_MAX + 1];
		int pid;
	} *vsocks;
	size_t n_vsocks;
	struct used_register { /* a word of configuration space that a VM has changed */
		struct pci_addr addr;
		unsigned int offset;
		uint16_t from, to;
		char vm[VM_NAME_MAX + 1];
	} *registers;
	size_t n_registers;
};
void host_use_clear(struct host_use *u);
struct plan;
/* What @p would hold, as if its VM ran with that launcher. */
void host_use_add(struct host_use *u, const struct plan *p, int pid);

/* The huge pages that QEMU has of @t for the VMs of @u: free ones, as they will be once these have ended. */
void host_use_free_memory(const struct host_use *u, struct topology *t);

struct plan_request {
	const struct vm_config *vm;
	const struct topology *host;
	const struct host_use *use; /* may be NULL */
	const struct fabric_map *fabric; /* may be NULL: nothing is known beside the PCI tree */
	const char *fabric_manager; /* what activates partitions (fm_find()); NULL: nobody does */
	const char *no_manager;	    /* why there is none, although one is needed for that; NULL: nobody has looked */
	const struct doctor_func *config; /* what ports and NICs of `host` say in configuration space, by function (acs_read()); NULL: not known */
	const struct qemu_info *qemu;
	const char *rundir;   /* the VM's own: "/run/gpuvm/NAME" */
	const char *statedir; /* "/var/lib/gpuvm": what outlives the VM's run (UEFI variables) */
	const char *seed_tool; /* program that makes ISO images (seed_find_tool()); NULL: there is none */
	const char *swtpm;     /* path of swtpm; NULL: there is none */
	bool fake_devices;  /* ivshmem-plain in place of vfio-pci; nothing is bound */
	const char *gdb;    /* --gdb: "" for gdb.sock in rundir, else QEMU's own device word; NULL: none */
	const struct strv *trace; /* --trace patterns; may be NULL */
	const char *strace; /* --strace: the program by which QEMU is run; NULL: by itself */
	const char *strace_file; /* what it writes; NULL: qemu.strace in rundir */
	const struct plan_user *user; /* NULL: nobody is changed to */
	bool foreign_host;  /* `host` is not this machine; with fake_devices pins and memory nodes are left out */
	const struct topology *here; /* with both: this machine, which the VM will run on; NULL: as large as `host` */
};

struct plan_device {
	char *id; /* "gpu0", "nic1", "nvme0", or the [device NAME] */
	int func; /* index into the topology it was planned on; -1 after plan_from_json() */
	struct pci_addr addr;
	enum pci_role role;
	uint16_t vendor, device;
	uint32_t class_code;
	int host_node; /* the kernel's number, -1 if none */
	int iommu_group;
	char *driver;            /* NULL: none bound */
	struct strv host_path;   /* BDF of each bridge, root first */
	struct cpuset irq_cpus;  /* where its host interrupts go; empty: where the kernel puts them */
	struct pci_link link;
	uint64_t bar_bytes;
	uint64_t bars[6];        /* sizes */
	uint64_t stand_in_bytes; /* with fake_devices: the stand-in's BAR, the largest of `bars` or a part of it; else 0 */
	const struct device_config *options; /* its [device] section, or NULL */
	/* guest side */
	int guest_node;
	char *guest_port;   /* id of the port it is plugged into */
	char *guest_switch; /* id of the upstream port above, or NULL */
	int guest_bus_nr;
	int clique; /* x-nv-gpudirect-clique; -1: none */
};

/* A bridge of the guest. Order in the plan is the order in argv: parents first. */
enum plan_port_kind { GPORT_PXB, GPORT_ROOT, GPORT_UPSTREAM, GPORT_DOWNSTREAM };
struct plan_port {
	enum plan_port_kind kind;
	char *id;
	char *parent; /* bus: id of the port above, "pcie.0" for a pxb */
	int addr;     /* device number on the parent bus; -1: QEMU chooses (upstream: always 0) */
	int chassis, slot; /* root and downstream ports */
	int guest_node;
	int bus_nr; /* pxb: its root bus. Else: the secondary bus the firmware will give it */
	int host_func; /* the host bridge mirrored, or -1 */
	struct pci_link link; /* root ports: what to advertise; 0 if unknown */
};

struct plan_group { /* the VM's devices below one host switch, or one device alone */
	char *switch_bdf; /* upstream port, or NULL */
	enum pci_relation relation;
	int *devices; /* indexes */
	size_t n_devices;
};

/* How near a GPU of the VM is to another one, a NIC or an NVMe controller. */
struct plan_relation {
	int a, b; /* indexes of devices; a is the GPU */
	enum pci_relation host, guest; /* what it is, and what the guest's PCI tree shows */
};

struct plan_node {
	int guest_node;
	int host_node; /* kernel's number; -1: host has no NUMA */
	uint64_t memory_bytes;
	uint64_t page_bytes; /* hugepage size; 4096: none */
	bool prealloc;       /* QEMU has all of it before it answers */
	struct cpuset host_cpus; /* where this node's vCPUs run */
	struct cpuset prealloc_cpus; /* online CPUs of the host node that we may use */
};

struct plan_vcpu {
	int vcpu;
	int host_cpu; /* -1: not pinned */
	int guest_node, socket, core, thread;
};

struct plan_iothread {
	char *id;
	struct cpuset host_cpus;
};

/* NVLink of the VM. */
struct plan_fabric {
	enum fabric_mode mode;
	int partition; /* -1: none */
	int ids[FABRIC_GPUS_MAX]; /* physical IDs of its GPUs, where they are known */
	int n_ids;
	char *manager; /* activates the partition; NULL: gpuvm does not */
};

struct plan_bind {
	struct pci_addr addr;
	char *from;     /* NULL: no driver */
	char *override; /* driver_override it has; NULL: none */
	char *to;
};

/* An ACSCtl register that is set while the VM runs: see acs.h. */
struct plan_acs {
	struct pci_addr addr;
	unsigned int offset;
	uint16_t from, to; /* from: what returns when no VM needs `to` any more */
};

/* One option of the command. `value` is NULL for a bare flag. `group` is a heading: "machine", "memory", "pcie". */
struct plan_arg {
	char *flag, *value;
	const char *group;
	char *why;
	enum plan_arg_use {
		ARG_PLAIN,
		ARG_PAUSE,   /* -S: the launcher continues the guest; a command for a shell has nobody who would */
		ARG_CONTROL, /* the chardev of control.sock: the launcher hands over a listening socket */
		ARG_TAP,     /* a tap netdev: the launcher hands over the fds of taps[tap] */
		ARG_OPEN,    /* the launcher hands over the fd of opens[open] */
	} use;
	int tap, open;
};

/* What the launcher opens for QEMU, whose user could not: a socket to listen on in the run-time folder, a node of the host's. */
struct plan_open {
	char *path;
	const char *key; /* property that takes the fd; NULL: a socket, whose fd= stands in place of path= */
};

/* A command that must have run before the printed one can: make a folder, a tap device, a seed image.  gpuvm-launch does
 * these things itself, with their undo; for a shell they are lines before the command. */
struct plan_prepare {
	char *command; /* quoted for a shell */
	char *why;
};

/* A tap device of ours: gpuvm-launch creates it (IFF_MULTI_QUEUE) and QEMU gets its fds, so it is gone when QEMU is. */
struct plan_tap {
	char *netdev; /* "net-NAME" */
	char *ifname;
	char *bridge; /* to attach it to; NULL: none */
	char *mac;    /* of the host's end; NULL: leave it */
	bool exists;  /* the operator's own device: fds are taken of it, it is not created, changed or removed */
	int queues;   /* pairs */
	int mtu;      /* 0: leave it */
	bool vhost;
};

/* An ISO 9660 image that the guest gets as a read-only disk: the NoCloud seed, with the volume name CIDATA (cloud-init documentation,
 * "NoCloud"), or the disk with the guest's check (guest_check.h). */
struct plan_seed {
	char *image;	   /* in rundir; NULL: none */
	const char *label; /* volume name */
	char *tool;	   /* program that makes it; it understands the options of mkisofs */
	struct plan_seed_file {
		const char *name;
		char *path; /* it is a copy of this file; NULL: of `text` */
		char *text;
		bool ours; /* gpuvm-launch writes `path` at each start */
	} files[5];
	size_t n_files;
};

/* An emulated TPM 2.0: swtpm, started before QEMU, ends with it. */
struct plan_tpm {
	char *state_dir; /* NULL: none; it outlives the VM's run */
	char *socket;	 /* its control channel, in rundir */
	char *program;	 /* swtpm */
};

/* Programs of the operator's, run at points of the VM's life; NULL: none. */
struct plan_hooks {
	char *pre_bind, *post_start, *post_stop;
	uint64_t timeout_ms;
};

/* Whom QEMU and swtpm run as, when a launcher that is root starts them. */
struct plan_user {
	bool set; /* else as the launcher itself */
	unsigned int uid, gid; /* 0: root */
	const char *why; /* for people */
	const char *unsafe; /* why it is root although nobody asked for it; NULL */
};

struct plan_note {
	const char *code; /* warnings: stable code. reasons: NULL */
	char *what;       /* reasons: "vcpus", "device gpu0" */
	char *text;
};

struct plan {
	char *vm, *uuid;
	struct strv wrapper; /* command that runs the QEMU command: strace and its options; empty: none */
	char *qemu_binary, *qemu_version;
	char *rundir;
	char *accel;    /* "kvm" or "tcg" */
	char *firmware; /* path or word */
	char *vars_template; /* OVMF variables, copied to vars_file when that does not exist yet; or NULL */
	char *vars_file;
	struct plan_device *devices;
	size_t n_devices;
	struct plan_port *ports;
	size_t n_ports;
	struct plan_group *groups;
	size_t n_groups;
	struct plan_relation *relations;
	size_t n_relations;
	struct plan_node *nodes;
	size_t n_nodes;
	struct plan_vcpu *vcpus;
	size_t n_vcpus;
	int smp_sockets, smp_cores, smp_threads;
	struct cpuset housekeeping; /* reserved cores of the VM's nodes */
	struct cpuset emulator;     /* main and helper threads of QEMU */
	struct plan_iothread *iothreads;
	size_t n_iothreads;
	uint64_t mmio64_bytes; /* 0: no 64-bit window is needed */
	int address_bits; /* of the guest's CPU, or of the host's IOMMU if that has less; 0: not known */
	unsigned int stand_in_scale; /* with fake_devices: the stand-ins' BARs are 1/N of the devices'; else 0 */
	struct plan_fabric fabric;
	struct plan_bind *binds;
	size_t n_binds;
	struct plan_acs *acs;
	size_t n_acs;
	struct plan_arg *args;
	size_t n_args;
	struct plan_open *opens;
	size_t n_opens;
	struct plan_prepare *prepares;
	size_t n_prepares;
	struct plan_tap *taps;
	size_t n_taps;
	struct plan_seed seed, check; /* check: a disk of its own; else its files are on the seed, if there is one */
	struct plan_tpm tpm;
	uint32_t vsock; /* context ID; 0: none */
	struct plan_user user; /* its texts are not kept */
	struct strv env;
	struct plan_note *warnings;
	size_t n_warnings;
	struct plan_note *reasons;
	size_t n_reasons;
	bool fake_devices;
	bool foreign_host; /* it will run here, with stand-ins: no pins, no memory nodes */
	uint64_t stop_timeout_ms, ready_timeout_ms, busy_timeout_ms;
	enum conf_on_reboot on_reboot;
	enum conf_on_crash on_crash;
	enum conf_on_death on_launcher_death;
	struct plan_hooks hooks;
	bool serial_stdio;
	bool mem_lock; /* QEMU locks all its memory: no limit */
};

/* Decide everything. 0, or -EINVAL with at least one problem in @ps; @ret is then empty.
 * @ret borrows nothing from the request but plan_device.options. */
int plan_make(const struct plan_request *req, struct plan *ret, struct problems *ps);
void plan_clear(struct plan *p);

/* The command that makes the image of the files in the folder where it runs, in the folder above. */
void plan_seed_command(const struct plan_seed *s, struct strv *ret);
/* The disk on which the guest finds its check: the seed, or one of its own; NULL: on none. */
const struct plan_seed *plan_check_disk(const struct plan *p);

uint64_t plan_memory_bytes(const struct plan *p);
/* What VFIO locks for the VM, by RLIMIT_MEMLOCK; right for a plan that was just made, as plan_device.options is needed. */
uint64_t plan_pinned_bytes(const struct plan *p);
/* Are there vhost workers, which until Linux 6.3 are kernel threads outside QEMU? */
bool plan_has_vhost(const struct plan *p);

/* "raw" or "qcow2", by what is said or the file's name, never by looking inside: a guest can write a qcow2 header into a raw disk. NULL: the name does not tell. */
const char *plan_disk_format(const struct disk_config *c);

/* Is memory of any guest node there before QEMU answers? */
bool plan_preallocates(const struct plan *p);

/* What QEMU inherits in place of what it would open itself. */
struct plan_fds {
	int control; /* a listening unix socket */
	struct plan_tap_fds {
		int *tap, *vhost; /* `queues` each; vhost NULL: none */
		int queues;
	} *taps; /* n_taps entries */
	int *opens; /* n_opens entries */
};

/* The command as an argv: wrapper, path, then options.  With @fds the sockets and taps of which it has fds are given as fds; NULL: everything by path and name. */
void plan_argv(const struct plan *p, const struct plan_fds *fds, struct strv *ret);

enum plan_format { PLAN_SHELL, PLAN_LINES, PLAN_SCRIPT };

/* The command for people. SHELL: runnable shell lines: what must be prepared, then one command, an option per line. It is without -S: nobody
 * else would let the guest run. SCRIPT: the same as a file that can be run. LINES: exactly the argv of gpuvm-launch (with paths for the fds), an argument per line, raw.
 * @explain puts the reason of each option before it as a comment (SHELL and SCRIPT); it is then for bash, which has arrays. */
void plan_print_command(const struct plan *p, enum plan_format f, bool explain, FILE *out);

/* The whole plan drawn for people: nodes, CPUs, memory, devices in their guest tree, binds, warnings; with @explain also every reason. */
void plan_print(const struct plan *p, bool explain, FILE *out);

/* The relations as a table, a row per GPU, with a legend. */
void plan_print_matrix(const struct plan *p, FILE *out);

struct json_object *plan_to_json(const struct plan *p);
int plan_from_json(struct json_object *o, struct plan *ret, struct err *e);

void plan_warn(struct plan *p, const char *code, const char *fmt, ...) PRINTF(3, 4);
/* Add a command of `prepares`, in the order of calls: a shell command that fails if it could not do its work. Words that
 * may have any character come from shell_quote(). */
void plan_prepare(struct plan *p, const char *why, const char *fmt, ...) PRINTF(3, 4);
void plan_reason(struct plan *p, const char *what, const char *fmt, ...) PRINTF(3, 4);

/* --- the steps, each in a file of its own; for tests ---------------------------------------------- */

/* State shared by the steps while a plan is made. */
struct planner {
	const struct plan_request *req;
	struct plan *plan;
	struct problems *ps;
	struct cpuset vcpu_cpus;  /* every CPU given to a vCPU */
	struct fabric fabric;
};

int select_devices(struct planner *pl);  /* plan->devices, groups, binds (src/core/select.c) */
int place_nodes(struct planner *pl);     /* plan->nodes: which host nodes become guest nodes (place_cpu.c) */
int place_cpus(struct planner *pl);      /* plan->vcpus, housekeeping, emulator (place_cpu.c) */
int place_memory(struct planner *pl);    /* memory_bytes, page_bytes per node (place_mem.c) */
int place_pci(struct planner *pl);       /* plan->ports, guest part of devices, mmio64 (place_pci.c) */
int place_interrupts(struct planner *pl); /* irq_cpus of devices (place_irq.c) */
int relate_devices(struct planner *pl);  /* plan->relations, what [pcie] relation requires, cliques (relations.c) */
int place_acs(struct planner *pl);       /* plan->acs (acs.c) */
int argv_build(struct planner *pl);      /* plan->args, iothreads (argv.c) */

#endif
