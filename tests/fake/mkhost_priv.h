/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mkhost_priv.h - the description as structs, and what the parts of mkhost.c share.
 *
 * Paths are relative to the root ("sys/bus/pci"); link targets too, and are made relative as the kernel's are. */
#ifndef TESTS_FAKE_MKHOST_PRIV_H
#define TESTS_FAKE_MKHOST_PRIV_H

#include "gpuvm/cpuset.h"
#include "gpuvm/parse.h"
#include "gpuvm/strv.h"

#define MAX_POOLS   2
#define GROUP_OWN   (-1)
#define GROUP_UP    (-2)
#define GROUP_NONE  (-3)
#define NODE_OF_BUS (-2)

struct bar {
	uint64_t start, bytes, flags;
};

struct props {
	struct bar bars[6];
	int pcie; /* port type of the express capability, -1: none */
	unsigned int gts10, width, now_gts10, now_width;
	int acs, ats; /* control register, -1: no such capability */
	char driver[40], override[40], cpulist[256];
	int node;
	uint16_t subvendor, subdevice;
	int group;
	int vfs;
	struct pci_addr vf_of;
	bool is_vf, boot_vga, no_reset, unreadable, sw_mng;
	int module; /* physical ID in etc/gpuvm/fabric.conf; 0: none */
};

struct kind {
	char word[32];
	uint16_t vendor, device;
	uint32_t class_code;
	char *vendor_name, *device_name;
	struct props p;
};

struct dev {
	struct pci_addr addr;
	size_t kind;
	struct props p;
	int indent, parent, bus;
	uint8_t last_bus; /* subordinate, for bridges */
	int group;
	char *path; /* "sys/devices/pci0000:16/0000:16:00.0" */
};

struct bus {
	unsigned int domain, number;
	int node;
};

struct node {
	int id, socket;
	struct cpuset cpus;
	uint64_t bytes, free_bytes;
	struct {
		uint64_t page, free, total;
	} pools[MAX_POOLS];
	char distances[256];
};

struct blockdev {
	char name[64];
	char *path;
	unsigned int major, minor;
};

struct mk {
	int root;
	struct err *e;
	int line;
	const char *file;

	char name[64], kernel[64], machine_id[40];
	bool no_kvm, no_vfio, no_vhost, no_numa;
	char cpu_vendor[32], iommu[8], isolated[256], nohz_full[256];
	int threads, phys_bits, iommu_bits, l3_cores;
	bool smt_adjacent;

	struct node *nodes;
	size_t n_nodes;
	struct kind *kinds;
	size_t n_kinds;
	struct bus *buses;
	size_t n_buses;
	struct dev *devs;
	size_t n_devs;
	struct blockdev *blocks;
	size_t n_blocks;
	struct strv late; /* disk, net ... statements as lines: done after the PCI tree is there */
	int *late_lines;
	size_t n_late_lines;
	uint64_t next_address;
	int next_ifindex;
	char *mountinfo, *swaps, *route, *inet6;
};

/* mkhost_files.c: errors with the line of the description; files and links below the root. 0 or -Exxx. */
int mk_bad(struct mk *m, const char *fmt, ...) PRINTF(2, 3);
void mk_append(char **s, const char *fmt, ...) PRINTF(2, 3);
int mk_make_dirs(struct mk *m, const char *path);
int mk_put_bytes(struct mk *m, const char *path, const void *data, size_t len, size_t size);
int mk_put(struct mk *m, const char *dir, const char *name, const char *fmt, ...) PRINTF(4, 5);
int mk_make_link(struct mk *m, const char *target, const char *path);
int mk_make_link_at(struct mk *m, const char *target, const char *fmt, ...) PRINTF(3, 4);

/* mkhost_parse.c: the description to structs; words of a statement. */
int mk_read_description(struct mk *m, FILE *in);
const char *mk_option(const struct strv *w, size_t from, const char *key);
int mk_check_options(struct mk *m, const struct strv *w, size_t from, const char *keys);
int mk_option_int(struct mk *m, const struct strv *w, size_t from, const char *key, int *ret);
int mk_parse_bdf(struct mk *m, const char *s, unsigned int domain, struct pci_addr *ret);

/* mkhost_cpu.c */
int mk_write_cpus(struct mk *m);
int mk_write_nodes(struct mk *m);
int mk_put_cpuset(struct mk *m, const char *dir, const char *mask_name, const char *list_name, const struct cpuset *s);

/* mkhost_pci.c */
int mk_write_pci(struct mk *m);
struct dev *mk_find_dev(struct mk *m, const struct pci_addr *a);

/* mkhost_use.c: disks, mounts, network, and the rest of /proc */
int mk_write_late(struct mk *m);
int mk_write_proc(struct mk *m);
int mk_write_misc(struct mk *m);

#endif
