/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fabric.h - NVSwitch fabrics: which sets of GPUs a machine can give to a VM with NVLink between them.
 *
 * Source of every number: NVIDIA Fabric Manager User Guide, chapters "Full Passthrough Virtualization Model" and
 * "Shared NVSwitch Virtualization Model".  Two ways to have NVLink in a VM:
 *
 *   full    GPUs and NVSwitches go to the guest and Fabric Manager runs there.  The guide's table says how many
 *           NVSwitches belong to how many GPUs; other numbers are no configuration.  On B200 and B300 the
 *           NVSwitches cannot be passed: the four ConnectX-7 functions that manage them are ("bridge" functions)
 *   shared  only GPUs go to the guest; Fabric Manager of the host activates a *partition*, a set of GPUs fixed by
 *           the fabric.  The VM's GPUs must be exactly those of one partition: with others NVLink is missing,
 *           without any error
 *
 * Partitions name GPUs by physical ID ("Module ID" of nvidia-smi -q), which does not follow the order of PCI
 * addresses: it comes from Fabric Manager or from the operator (fabric_map), never from counting.
 *
 * How it works: fabric_init() finds the platform and the functions that take part; fabric_sets() lists what the
 * platform allows on this host as sets of positions in fabric.gpus[], the same for both ways, so that the planner
 * can count, compare and refuse alike.  Pure but for fabric_map_load(), which reads the one file. */
#ifndef GPUVM_FABRIC_H
#define GPUVM_FABRIC_H

#include "gpuvm/err.h"
#include "gpuvm/problems.h"
#include "gpuvm/topology.h"

#define FABRIC_GPUS_MAX     16 /* two baseboards of eight */
#define FABRIC_SWITCHES_MAX 16
#define FABRIC_SETS_MAX     128

enum fabric_mode { FABRIC_NONE, FABRIC_FULL, FABRIC_SHARED };
const char *fabric_mode_word(enum fabric_mode m);               /* "none", "full", "shared" */
int fabric_mode_parse(const char *word, enum fabric_mode *ret); /* 0 or -EINVAL */

/* --- tables (fabric_tables.c) ----------------------------------------------------------------------- */

/* A size of VM that full passthrough knows. */
struct fabric_row {
	int gpus, switches;       /* switches: NVSwitches, or bridge functions */
	int links, links_max;     /* NVLinks of each GPU that are in use; those that are not must be blocked */
	const char *switch_links; /* per NVSwitch, as the guide puts it */
	const char *sets;         /* the guide's constraint, NULL: none */
};

struct fabric_partition {
	int id;
	uint32_t gpus; /* bit i: physical ID i + 1 */
	int links;     /* NVLinks per GPU; 0: a single GPU, which has none to use */
	bool active;   /* Fabric Manager says so; never in a table */
};

struct fabric_platform {
	const char *name; /* "HGX H100/H200" */
	int board_gpus;   /* on a baseboard; physical IDs count through them */
	int boards_max;
	bool bridges;            /* full passthrough takes bridge functions, not NVSwitches */
	const char *switch_word; /* "NVSwitch", "bridge function" */
	const struct fabric_row *rows;
	size_t n_rows;
	const struct fabric_partition *partitions; /* Fabric Manager's defaults */
	size_t n_partitions;
};

extern const struct fabric_platform fabric_hgx2, fabric_hgx_a100, fabric_hgx_h100, fabric_hgx_b200;

/* By PCI device ID of an NVIDIA NVSwitch or GPU. NULL: not known. Only tells generations: what is a GPU or an
 * NVSwitch is a matter of class codes. */
const struct fabric_platform *fabric_platform_of_switch(uint16_t device);
const struct fabric_platform *fabric_platform_of_gpu(uint16_t device);

/* The row for @gpus GPUs, or NULL. */
const struct fabric_row *fabric_row(const struct fabric_platform *p, int gpus);

/* --- what is known beside the PCI tree -------------------------------------------------------------- */

/* Physical IDs, and more where Fabric Manager was asked. Zeroed: nothing is known. */
struct fabric_map {
	struct fabric_id {
		int id; /* physical ID, from 1 */
		struct pci_addr addr;
	} * gpus;
	size_t n_gpus;
	struct pci_addr *bridges; /* bridge functions that the operator names */
	size_t n_bridges;
	struct fabric_partition *partitions; /* Fabric Manager's list; none: the platform's defaults */
	size_t n_partitions;
	char *source; /* for messages: the file, or "Fabric Manager"; NULL: nothing is known */
};
void fabric_map_clear(struct fabric_map *m);

/* Read ROOT/etc/gpuvm/fabric.conf (gpuvm.ini(5), THE FABRIC FILE; not .ini, which are VMs); @root "" is this
 * machine. A missing file is an empty map. Returns 0, or -EINVAL with problems. */
int fabric_map_load(const char *root, struct fabric_map *ret, struct problems *ps);
int fabric_map_parse(const char *file, const char *text, struct fabric_map *ret, struct problems *ps);

/* UUIDs of GPUs, where the host knows them. */
struct fabric_uuid {
	struct pci_addr addr;
	char uuid[48];
};

/* What Fabric Manager lists (fabric_manager.h).  A GPU is found by PCI address or UUID; where Fabric Manager reports neither
 * (address zero, UUID empty), by the physical ID in @known (the operator's map).  A number never overrides an
 * identity: if they disagree, -EEXIST. Returns 0, -EPROTO (an ID that cannot be), -EEXIST, or -ENOENT (a GPU that cannot
 * be found) with @e. */
struct fm_list;
int fabric_map_from_fm(const struct fm_list *l, const struct fabric_map *known, const struct fabric_uuid *uuids,
		       size_t n_uuids, struct fabric_map *ret, struct err *e);

/* Give the functions that the map names as bridges their role. Call once, after probing. */
void fabric_map_apply(const struct fabric_map *m, struct topology *t);

/* --- one host --------------------------------------------------------------------------------------- */

struct fabric {
	const struct topology *host;
	const struct fabric_platform *platform; /* NULL: no fabric, or one that is not in the tables */
	bool unknown;              /* there are NVSwitches, but of an unknown generation or in unknown numbers */
	int gpus[FABRIC_GPUS_MAX]; /* functions, in gpu_index order */
	int ids[FABRIC_GPUS_MAX];  /* physical ID of each; 0: not known */
	int n_gpus;
	int switches[FABRIC_SWITCHES_MAX]; /* functions of NVSwitches or bridges: by socket, node, address */
	int n_switches;
	const struct fabric_partition *partitions;
	size_t n_partitions;
};

/* A set that the fabric allows: bit i stands for fabric.gpus[i]. */
struct fabric_set {
	uint32_t gpus;
	int partition; /* -1 in full passthrough */
	int links;
	bool active; /* Fabric Manager has it activated */
	bool blocked; /* or another one with a GPU of it */
};

/* Recognise the fabric of @host. @map may be NULL; it must outlive @ret.  0, or -EINVAL if the map names GPUs that
 * are not there. */
int fabric_init(struct fabric *ret, const struct topology *host, const struct fabric_map *map, struct err *e);

/* True if every GPU's physical ID is known. */
bool fabric_has_ids(const struct fabric *f);

/* Position of function @func in f->gpus, or -1. */
int fabric_position(const struct fabric *f, int func);

/* Sets of @n_gpus GPUs (0: of any number) that @mode allows here, in the platform's order; at most @max. */
size_t fabric_sets(const struct fabric *f, enum fabric_mode mode, int n_gpus, struct fabric_set *ret, size_t max);

/* The set that equals @gpus, in @ret. False: there is none. */
bool fabric_find_set(const struct fabric *f, enum fabric_mode mode, uint32_t gpus, struct fabric_set *ret);

/* How many of @n sets are larger than @s, have a GPU of it, and none of @busy: what taking @s breaks up. */
int fabric_breaks(const struct fabric_set *sets, size_t n, const struct fabric_set *s, uint32_t busy);

/* The baseboard of f->gpus[position], or of f->switches[position]. */
int fabric_gpu_board(const struct fabric *f, int position);
int fabric_switch_board(const struct fabric *f, int position);

/* "1, 2, 4 or 8": the sizes that @mode allows here (shared mode without IDs: would allow); owned, "" if there are
 * none. */
char *fabric_sizes(const struct fabric *f, enum fabric_mode mode);

/* "full passthrough: 8 GPUs with 4 NVSwitches, or 1 without; shared mode: 1, 2, 4 or 8 GPUs"; owned. */
char *fabric_describe(const struct fabric *f);

static inline int fabric_count(uint32_t gpus)
{
	return __builtin_popcount(gpus);
}

#endif
