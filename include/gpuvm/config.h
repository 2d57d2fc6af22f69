/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.h - the definition of a VM: an INI file as a plain struct.
 *
 * How it works: one table, config_keys[], names every section and key, its type, its default and its
 * documentation.  The parser, `--set`, the commented example (conf/gpuvm.ini.example), the man page check and
 * the fuzzer are all driven by it.  One value is one line: no continuation, no comment behind a value, no
 * quotes; what INI readers usually forgive (junk, repeated keys and sections, unknown names) is an error with its line.
 * A value left out is AUTO/NULL here; the planner computes it from the host and says how in the plan's reasons.
 * Reading is done by inih, which splits lines into sections, keys and values; what it forgives is checked around it.
 *
 * Pure but for config_load(), which reads the one file. */
#ifndef GPUVM_CONFIG_H
#define GPUVM_CONFIG_H

#include <stdint.h>

#include "gpuvm/cpuset.h"
#include "gpuvm/parse.h"
#include "gpuvm/problems.h"
#include "gpuvm/strv.h"

#define CONF_AUTO    (-1) /* any int or int64 key: compute it */
#define CONF_PER_GPU (-2) /* place.nics, place.nvme: what shares a PCIe switch with a GPU of the VM */
#define DISK_SERIAL_MAX 20 /* virtio-blk: VIRTIO_BLK_ID_BYTES; QEMU cuts longer ones, silently */
#define VM_NAME_MAX  48   /* a unix socket path in /run/gpuvm/NAME must fit in 108 bytes */

enum conf_accel { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
enum conf_pin { PIN_AUTO, PIN_OFF, PIN_LIST };
enum conf_interrupts { INTERRUPTS_KEEP, INTERRUPTS_NODE };
enum conf_pcie { PCIE_MIRROR, PCIE_ROOT_PORT, PCIE_FLAT };
enum conf_relation { RELATION_PREFER, RELATION_PIX, RELATION_PXB, RELATION_PHB, RELATION_NODE }; /* as enum pci_relation */
enum conf_acs { CONF_ACS_KEEP, CONF_ACS_DIRECT };
enum conf_check { CHECK_AUTO, CHECK_ON, CHECK_OFF };
enum conf_cliques { CLIQUES_AUTO, CLIQUES_ON, CLIQUES_OFF };
enum conf_fabric { CONF_FABRIC_AUTO, CONF_FABRIC_NONE, CONF_FABRIC_FULL, CONF_FABRIC_SHARED };
enum conf_nvswitch { NVSWITCH_AUTO, NVSWITCH_NONE };
enum conf_disk_format { DISK_AUTO, DISK_RAW, DISK_QCOW2 };
enum conf_disk_cache { CACHE_AUTO, CACHE_NONE, CACHE_WRITEBACK, CACHE_WRITETHROUGH, CACHE_DIRECTSYNC, CACHE_UNSAFE };
enum conf_disk_aio { AIO_AUTO, AIO_THREADS, AIO_NATIVE, AIO_IO_URING };
enum conf_disk_bus { BUS_BLK, BUS_SCSI };
enum conf_net_type { NET_USER, NET_TAP, NET_BRIDGE };
enum conf_prealloc { PREALLOC_AUTO, PREALLOC_ON, PREALLOC_OFF };
enum conf_vhost { VHOST_AUTO, VHOST_ON, VHOST_OFF };
enum conf_serial { SERIAL_SOCKET, SERIAL_LOG, SERIAL_STDIO };
enum conf_on_reboot { REBOOT_RESET, REBOOT_STOP };
enum conf_on_crash { CRASH_STOP, CRASH_RESTART };
enum conf_on_death { DEATH_KEEP, DEATH_STOP };

struct device_config {
	char *name;
	struct pci_addr pci;
	bool pci_set;
	bool force;            /* take it although the host uses it (boot disk, management NIC) */
	bool rombar;           /* default on */
	char *romfile;         /* NULL: QEMU's default; "none": no ROM */
	int guest_node;        /* AUTO: the node the device is on */
	int gpudirect_clique;  /* 0-15, AUTO: none */
	bool x_no_mmap;        /* loses P2P: warned about */
	bool iommufd;          /* loses P2P too, up to QEMU 10.2 */
};

struct disk_config {
	char *name;
	char *file;
	enum conf_disk_format format;
	int queues; /* AUTO: one per vCPU */
	bool iothread;
	enum conf_disk_cache cache;
	enum conf_disk_aio aio;
	enum conf_disk_bus bus;
	bool discard;
	char *serial; /* that the guest sees; NULL: the section's name */
	bool readonly;
	int bootindex; /* AUTO: in the order of the file */
};

struct net_config {
	char *name;
	enum conf_net_type type;
	char *ifname; /* tap, bridge: the host's interface; NULL: named after VM and section */
	char *bridge; /* bridge: an existing one */
	int queues;   /* pairs; AUTO: one per vCPU for tap, 1 for user */
	enum conf_vhost vhost;
	char *mac; /* NULL: derived from host, VM and name */
};

struct vm_config {
	char *path; /* as given; NULL if read from memory */
	char *name, *uuid, *firmware /* NULL: auto */, *machine;
	char *kernel, *initrd, *append;
	enum conf_accel accel;

	bool place_present; /* without [place] and [device]: a VM without passthrough */
	int gpus, gpu_index, socket;
	int nics, nvme; /* number, CONF_PER_GPU; 0 = none */
	enum conf_nvswitch nvswitch;

	struct device_config *devices;
	size_t n_devices;

	int vcpus; /* AUTO */
	char *cpu_model;
	int threads; /* AUTO, 1, 2 */
	enum conf_pin pin;
	int *pin_cpus; /* in the order of the file: vCPU i runs on pin_cpus[i] */
	size_t n_pin_cpus;
	int cpu_reserve; /* cores per host node, AUTO */
	bool emulator_set;
	struct cpuset emulator;
	enum conf_interrupts interrupts;
	bool pmu, invtsc, cpu_pm;

	uint64_t memory_bytes;     /* 0: auto */
	int64_t hugepage_bytes;    /* AUTO, 0: off, 2 MiB or 1 GiB */
	enum conf_prealloc prealloc;
	int64_t mem_reserve_bytes; /* per host node, AUTO */
	bool mem_lock;

	enum conf_pcie pcie;
	enum conf_relation relation; /* the worst that a GPU may be to its nearest NIC and NVMe */
	enum conf_cliques cliques;
	enum conf_acs acs;
	uint64_t mmio64_bytes; /* 0: auto */

	enum conf_fabric fabric;
	int partition; /* AUTO, or Fabric Manager's ID */
	char *fabric_manager; /* fm_spec_parse() */

	struct disk_config *disks;
	size_t n_disks;
	struct net_config *nets;
	size_t n_nets;

	bool guest_agent, guest_rng, guest_panic, guest_tpm;
	int vsock; /* 0: off, AUTO, or the context ID */
	enum conf_check check_disk; /* auto: on the seed */

	bool cloud_init; /* there is a [cloud-init] */
	char *user_data, *meta_data, *network_config;

	enum conf_serial serial;
	uint64_t stop_timeout_ms;
	uint64_t ready_timeout_ms; /* 0: auto, from memory size */
	uint64_t busy_timeout_ms;
	enum conf_on_reboot on_reboot;
	enum conf_on_crash on_crash;
	char *hook_pre_bind, *hook_post_start, *hook_post_stop;
	uint64_t hook_timeout_ms;
	enum conf_on_death on_launcher_death;
	bool sandbox;
	bool device_filter;
	char *user; /* NULL: auto */
	uint64_t memlock_bytes; /* 0: auto; UINT64_MAX: no limit */

	char *qemu_binary;
	char *qemu_args; /* as written; split by the planner */
	struct strv qemu_env;

	/* Where each key was set, for messages about values that only the planner can judge. */
	struct config_origin {
		char *section, *key;
		int line; /* 0: by --set */
		bool bad; /* the value was refused, the field has its default */
	} *origins;
	size_t n_origins;
};

/* --- the key table ---------------------------------------------------------------------------- */

enum config_type {
	CONF_STRING,
	CONF_NAME,     /* letters, digits, "-_.", not starting with "." or "-" */
	CONF_UUID,
	CONF_PATH,     /* absolute */
	CONF_BOOL,
	CONF_INT,      /* min..max, and the words of `words` */
	CONF_ENUM,     /* one of `words` */
	CONF_SIZE,     /* uint64 bytes, words allowed */
	CONF_DURATION, /* ms */
	CONF_PCI,
	CONF_MAC,
	CONF_CUSTOM,   /* parsed by its own function: pin, emulator, hugepages, memory reserve, env */
};

/* A word of an enum, or a special value of a number: "auto" -> -1. The table ends with word == NULL. */
struct config_word {
	const char *word;
	int64_t value;
};

struct config_key {
	const char *section; /* "vm"; "device" for [device NAME] */
	const char *key;
	enum config_type type;
	bool required;
	size_t offset; /* into struct vm_config, or into the element of a named section */
	int64_t min, max;
	const struct config_word *words;
	int (*parse)(struct vm_config *vm, const char *value, struct err *e); /* CONF_CUSTOM */
	const char *fallback; /* the default in words, as it would be written: "auto", "on", "90s", "" = none */
	const char *example;  /* a value for the example file */
	const char *doc;      /* one or more sentences */
};

extern const struct config_key config_keys[];
extern const size_t config_n_keys;

/* True if @section is written [section NAME]. */
bool config_section_is_named(const char *section);

/* --- reading ------------------------------------------------------------------------------------ */

/* Set every default. */
void config_init(struct vm_config *vm);
void config_clear(struct vm_config *vm);

/* Read @text (@len bytes; @name is used in messages).  @sets are "SECTION.KEY=VALUE" overrides ("disk.os.file=..." for
 * named sections), applied after the text; they replace what the file says.  All problems are collected in @ps.
 * Returns 0, or -EINVAL if there were problems (then @vm is cleared). */
int config_parse(const char *name, const char *text, size_t len, const struct strv *sets, struct vm_config *vm,
		 struct problems *ps);

/* One of @sets, taken apart. -EINVAL if it is not SECTION.KEY=VALUE; whether there is such a section or key is not asked. */
struct config_set {
	char *text; /* owned: the others are parts of it */
	const char *section, *name /* "": none */, *key, *value;
};
int config_set_split(const char *set, struct config_set *ret);

/* As config_parse() for a file. A VM without `name` takes the file's base name. */
int config_load(const char *path, const struct strv *sets, struct vm_config *vm, struct problems *ps);

/* Line in which [section] key was set; 0 if it was not, or by --set. Named sections as "disk os"; key "": the header. */
int config_line(const struct vm_config *vm, const char *section, const char *key);

/* Add a PROBLEM_CONFIG that points at [section] key in the file; @fmt is the whole message, "[cpu] pin: ...". */
struct problem *config_problem(struct problems *ps, const struct vm_config *vm, const char *section, const char *key,
			       const char *code, const char *fmt, ...) PRINTF(6, 7);

/* The commented example with every key, made from the table; owned. */
char *config_example(void);

#endif
