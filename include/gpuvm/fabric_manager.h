/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fabric_manager.h - talk to NVIDIA's Fabric Manager: which partitions are there, activate, deactivate.
 *
 * Two ways, which give the same answers: its library libnvfm.so, loaded at run time in a worker process, and the program fmpm, which is built on that
 * library.  A call may block for as long as Fabric Manager likes, so each has a deadline, behind which library or program are killed.
 *
 * Sources:
 *   Fabric Manager User Guide (docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide), "Fabric Manager SDK": functions, structures, what each return
 *     value means; "Resiliency": --restart, 60 s; "Error Handling", "Partition Life Cycle Errors".
 *   nv_fm_agent.h and nv_fm_types.h of the package nvidia-fabricmanager-dev, as public programs repeat them (NVIDIA's device plugin for KubeVirt, 2026): the
 *     numbers of fmReturn_t, version 2 of fmConnectParams, port 6666.  Older headers have codes down to -10, later ones to -29.
 *   github.com/NVIDIA/Fabric-Manager-Client, fmpm.cpp 1.0.0 and 1.0.1: options, JSON; its exit code is fmReturn_t, of which 8 bits remain.
 *   Ubicloud's rhizome/host/lib/vm_setup.rb takes exit codes 239 (-17) of `fmpm -a` and 238 (-18) of `fmpm -d` for "is so already".
 * Where the guide has one code for "is so already" (IN_USE, UNINITIALIZED) and later headers have others (PARTITION_ID_IN_USE ...), both are taken.
 *
 * Not confirmed anywhere: with which code requests are rejected while a Fabric Manager in restart mode waits for the list (taken: any); whether libraries that know
 * version 2 of fmConnectParams still take version 1 (both are tried).  fmpm 1.0.1 loses the list of --set-activated-list on its way (it advances the
 * pointer to the count, not the count), so fm_sync() looks afterwards.  No real Fabric Manager has been met. */
#ifndef GPUVM_FABRIC_MANAGER_H
#define GPUVM_FABRIC_MANAGER_H

#include "gpuvm/err.h"
#include "gpuvm/fabric.h"
#include "gpuvm/sysfs.h"

#define FM_PARTITIONS_MAX 64 /* FM_MAX_FABRIC_PARTITIONS; IDs are below it, too */
#define FM_WORD_MAX	  256 /* FM_MAX_STR_LENGTH */
#define FM_PORT		  6666 /* FM_CMD_PORT_NUMBER */
#define FM_CALL_MS	  30000 /* for one answer; activating trains links on A100 */
#define FM_READY_MS	  60000 /* until it has initialised; in restart mode it waits as long for the list */

/* --- what is said (fm_proto.c, pure) ------------------------------------------------------------------ */

struct fm_gpu {
	int physical_id;
	char uuid[80], bus_id[32]; /* "" or zeros: not reported, as on H100 and later */
	int links, links_max, link_mbps;
};

struct fm_partition {
	int id;
	bool active;
	int n_gpus;
	struct fm_gpu gpus[FABRIC_GPUS_MAX];
};

/* Of fixed size: a worker fills it in shared memory. */
struct fm_list {
	int n;
	struct fm_partition v[FM_PARTITIONS_MAX];
};

const struct fm_partition *fm_list_find(const struct fm_list *l, int id); /* or NULL */

/* What `fmpm -l` prints; -EPROTO if it is not that, or larger than it may be. */
int fm_list_parse(const char *text, struct fm_list *ret, struct err *e);

enum fm_op { FM_LIST, FM_ACTIVATE, FM_DEACTIVATE, FM_SET_ACTIVE };

/* fmReturn_t from the exit code of fmpm; 1 if it is none. */
int fm_code_of_exit(int exit_code);

/* What fmReturn_t @code means as an answer to @op on partition @id: 0; -EALREADY: active already or in the way of one that is (FM_ACTIVATE), not active
 * (FM_DEACTIVATE); -EAGAIN: it initialises; -ENOTCONN: it cannot be reached; or another -Exxx. */
int fm_judge(enum fm_op op, int id, int code, struct err *e);

/* Whom to talk to: [fabric] manager. "auto", "none", or a tool, an address, or both, in this order: "/usr/bin/fmpm 10.0.0.2:6666". */
struct fm_spec {
	bool none;
	char tool[FM_WORD_MAX];    /* a path of fmpm, or libnvfm's name or path, which has ".so" in it; "": to be found */
	char address[FM_WORD_MAX]; /* "HOST[:PORT]" or "unix:/PATH"; "": 127.0.0.1 */
};
int fm_spec_parse(const char *text, struct fm_spec *ret); /* 0 or -EINVAL */
bool fm_tool_is_library(const char *tool);

/* Is partition @id of @map exactly the GPUs @v? -ENOENT: there is no such partition; -EXDEV: it is others. */
int fm_check_gpus(const struct fabric_map *map, int id, const struct pci_addr *v, size_t n, struct err *e);

/* The first active partition but @id that has a GPU of partition @id; NULL: there is none. */
const struct fm_partition *fm_find_rival(const struct fm_list *l, int id);

/* --- talking (fabric_manager.c) --------------------------------------------------------------------------- */

/* The tool that @spec stands for: "TOOL[ ADDRESS]", owned, to be kept in a claim. -ENOENT: there is none; @e says what was looked for. */
int fm_find(const char *spec, char **ret, struct err *e);

/* The version of the Fabric Manager of this machine ("580.95.05", owned), as its program nv-fabricmanager says; NULL. (fm_fmpm.c) */
char *fm_version(unsigned int timeout_ms, struct err *e);

struct fm {
	const char *manager;   /* of fm_find() */
	unsigned int call_ms;  /* 0: FM_CALL_MS */
	unsigned int ready_ms; /* ask again for so long while it initialises or cannot be reached; 0: once */
	int cancel_fd;	       /* readable: give up with -EINTR; 0: none */
	void (*progress)(void *ctx, const char *why, uint64_t waited_ms); /* before each further attempt; may be NULL */
	void *ctx;
};

/* Each 0 or -Exxx; the word is "fabric-manager-failed". */
int fm_list(const struct fm *m, struct fm_list *ret, struct err *e);
/* -EALREADY: it is active already; -EBUSY: a GPU of it is in another active one ("partition-busy"). */
int fm_activate(const struct fm *m, int id, struct err *e);
/* 0 also if it was not active. */
int fm_deactivate(const struct fm *m, int id, struct err *e);

/* Have Fabric Manager know that partitions @ids, and no others, are active, if it was restarted and waits to be told; @m->ready_ms should be FM_READY_MS.
 * 0: they are active by now.  -ESTALE: it does not wait, and one of them is not active (the list is in @ret). */
int fm_sync(const struct fm *m, const int *ids, size_t n, struct fm_list *ret, struct err *e);

/* fm_list(), and whose GPUs they are: by address and UUID (of the NVIDIA driver below @s), by physical ID in @known only where neither is reported. */
int fm_read_map(const struct fm *m, const struct sysfs *s, const struct fabric_map *known, struct fm_list *ret_list, struct fabric_map *ret, struct err *e);

#endif
