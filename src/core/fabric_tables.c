/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fabric_tables.c - NVIDIA Fabric Manager User Guide in numbers.
 *
 * "Full Passthrough Virtualization Model", supported VM configurations: the rows.  "Shared NVSwitch Virtualization
 * Model", default partitions: ID, physical IDs of the GPUs, NVLinks of each.  Fabric Manager's own list, where it
 * was asked, wins. */
#include <string.h>

#include "gpuvm/fabric.h"

/* Sets of physical IDs, as the guide counts them. */
#define G(id)            (UINT32_C(1) << ((id)-1))
#define R(from, to)      ((G(to) << 1) - G(from)) /* unsigned: G(16) << 1 does not overflow 32 bits */
#define PAIR(a, b)       (G(a) | G(b))
#define QUAD(a, b, c, d) (PAIR(a, b) | PAIR(c, d))
#define P(n, set, l)                                                                                                   \
	{                                                                                                              \
		.id = (n), .gpus = (set), .links = (l)                                                                 \
	}
#define TABLE(t)                                                                                                       \
	.rows = t##_rows, .n_rows = ARRAY_SIZE(t##_rows), .partitions = t##_partitions,                                \
	.n_partitions = ARRAY_SIZE(t##_partitions)

/* clang-format off */
/* --- DGX-2, HGX-2: 16 V100 and 12 NVSwitches on two baseboards -------------------------------------- */

static const struct fabric_row hgx2_rows[] = {
	{ 16, 12, 6, 6, "16 of 18", NULL },
	{  8,  6, 6, 6, "8 of 18", "one set of eight on each baseboard" },
	{  4,  3, 3, 6, "4 of 18", "two sets of four on each baseboard" },
	{  2,  1, 1, 6, "2 of 18", "four sets of two on each baseboard" },
	{  1,  0, 0, 6, "0 of 18", NULL },
};

static const struct fabric_partition hgx2_partitions[] = {
	P(0, R(1, 16), 6), P(1, R(1, 8), 6), P(2, R(9, 16), 6),
	P(3, QUAD(1, 4, 6, 7) | QUAD(9, 12, 14, 15), 5),
	P(4, QUAD(2, 3, 5, 8) | QUAD(10, 11, 13, 16), 5),
	P(5, QUAD(1, 4, 6, 7), 5), P(6, QUAD(2, 3, 5, 8), 5),
	P(7, QUAD(9, 12, 14, 15), 5), P(8, QUAD(10, 11, 13, 16), 5),
	P(9, PAIR(1, 4), 5), P(10, PAIR(2, 3), 5), P(11, PAIR(5, 8), 5), P(12, PAIR(6, 7), 5),
	P(13, PAIR(9, 12), 5), P(14, PAIR(10, 11), 5), P(15, PAIR(13, 16), 5), P(16, PAIR(14, 15), 5),
	P(17, G(1), 0), P(18, G(2), 0), P(19, G(3), 0), P(20, G(4), 0), P(21, G(5), 0), P(22, G(6), 0),
	P(23, G(7), 0), P(24, G(8), 0), P(25, G(9), 0), P(26, G(10), 0), P(27, G(11), 0), P(28, G(12), 0),
	P(29, G(13), 0), P(30, G(14), 0), P(31, G(15), 0), P(32, G(16), 0),
};

const struct fabric_platform fabric_hgx2 = {
	.name = "HGX-2", .board_gpus = 8, .boards_max = 2, .switch_word = "NVSwitch", TABLE(hgx2),
};

/* --- DGX A100, HGX A100: one or two baseboards of 8 GPUs and 6 NVSwitches --------------------------- */

static const struct fabric_row a100_rows[] = {
	{ 16, 12, 12, 12, "32 of 36", NULL },
	{  8,  6, 12, 12, "16 of 36", "one set of eight on each baseboard" },
	{  4,  3,  6, 12, "6 of 36", "two sets of four on each baseboard" },
	{  2,  1,  2, 12, "4 of 36", "four sets of two on each baseboard" },
	{  1,  0,  0, 12, "0 of 36", NULL },
};

/* A machine with one baseboard has those of its GPUs. Partitions with failed GPUs disappear, the others keep their
 * IDs. */
static const struct fabric_partition a100_partitions[] = {
	P(0, R(1, 16), 12), P(1, R(1, 8), 12), P(2, R(9, 16), 12),
	P(3, R(1, 4) | R(9, 12), 12), P(4, R(5, 8) | R(13, 16), 12),
	P(5, R(1, 4) | R(13, 16), 12), P(6, R(5, 8) | R(9, 12), 12),
	P(7, R(1, 4), 12), P(8, R(5, 8), 12), P(9, R(9, 12), 12), P(10, R(13, 16), 12),
	P(11, PAIR(1, 2), 12), P(12, PAIR(3, 4), 12), P(13, PAIR(5, 6), 12), P(14, PAIR(7, 8), 12),
	P(15, PAIR(9, 10), 12), P(16, PAIR(11, 12), 12), P(17, PAIR(13, 14), 12), P(18, PAIR(15, 16), 12),
	P(19, G(1), 0), P(20, G(2), 0), P(21, G(3), 0), P(22, G(4), 0), P(23, G(5), 0), P(24, G(6), 0),
	P(25, G(7), 0), P(26, G(8), 0), P(27, G(9), 0), P(28, G(10), 0), P(29, G(11), 0), P(30, G(12), 0),
	P(31, G(13), 0), P(32, G(14), 0), P(33, G(15), 0), P(34, G(16), 0),
};

const struct fabric_platform fabric_hgx_a100 = {
	.name = "HGX A100", .board_gpus = 8, .boards_max = 2, .switch_word = "NVSwitch", TABLE(a100),
};

/* --- DGX/HGX H100, H200, H800, H20 ------------------------------------------------------------------- */

static const struct fabric_row h100_rows[] = {
	{ 8, 4, 18, 18, "32 of 64 on two, 40 of 64 on the other two", NULL },
	{ 1, 0,  0, 18, "0 of 64", NULL }, /* "GPU NVLinks must be disabled" */
};

static const struct fabric_partition h100_partitions[] = {
	P(0, R(1, 8), 18), P(1, R(1, 4), 18), P(2, R(5, 8), 18),
	P(3, PAIR(1, 3), 18), P(4, PAIR(2, 4), 18), P(5, PAIR(5, 7), 18), P(6, PAIR(6, 8), 18),
	P(7, G(1), 0), P(8, G(2), 0), P(9, G(3), 0), P(10, G(4), 0),
	P(11, G(5), 0), P(12, G(6), 0), P(13, G(7), 0), P(14, G(8), 0),
};

const struct fabric_platform fabric_hgx_h100 = {
	.name = "HGX H100/H200", .board_gpus = 8, .boards_max = 1, .switch_word = "NVSwitch", TABLE(h100),
};

/* --- DGX/HGX B200, B300 ------------------------------------------------------------------------------ */

/* Two NVSwitches, passed "indirectly": the four ConnectX-7 bridge functions go to the guest. */
static const struct fabric_row b200_rows[] = {
	{ 8, 4, 18, 18, "72 of 72", NULL },
	{ 1, 0,  0, 18, "0 of 72", NULL },
};

/* IDs begin with 1, and pairs are neighbours: unlike H100's. */
static const struct fabric_partition b200_partitions[] = {
	P(1, R(1, 8), 18), P(2, R(1, 4), 18), P(3, R(5, 8), 18),
	P(4, PAIR(1, 2), 18), P(5, PAIR(3, 4), 18), P(6, PAIR(5, 6), 18), P(7, PAIR(7, 8), 18),
	P(8, G(1), 0), P(9, G(2), 0), P(10, G(3), 0), P(11, G(4), 0),
	P(12, G(5), 0), P(13, G(6), 0), P(14, G(7), 0), P(15, G(8), 0),
};

const struct fabric_platform fabric_hgx_b200 = {
	.name = "HGX B200/B300", .board_gpus = 8, .boards_max = 1, .bridges = true, .switch_word = "bridge function", TABLE(b200),
};

/* --- generations --------------------------------------------------------------------------------------- */

struct generation {
	uint16_t device;
	const struct fabric_platform *platform;
};

/* pci.ids; 22a4: NVIDIA, "Optimizing VM Configuration for AI Inference". */
static const struct generation switch_ids[] = {
	{ 0x1ac2, &fabric_hgx2 }, { 0x1af1, &fabric_hgx_a100 }, { 0x22a3, &fabric_hgx_h100 }, { 0x22a4, &fabric_hgx_h100 },
};

/* pci.ids; 2336 and 2901 as NVIDIA's guides give them, 2901 and 3182 as operators of B200 and B300 do. SXM only: a
 * PCIe card has no NVSwitch. */
static const struct generation gpu_ids[] = {
	{ 0x1db8, &fabric_hgx2 },
	{ 0x20b0, &fabric_hgx_a100 }, { 0x20b2, &fabric_hgx_a100 },
	{ 0x2324, &fabric_hgx_h100 }, { 0x2330, &fabric_hgx_h100 }, { 0x2335, &fabric_hgx_h100 }, { 0x2336, &fabric_hgx_h100 },
	{ 0x2901, &fabric_hgx_b200 }, { 0x3182, &fabric_hgx_b200 },
};

/* clang-format on */
static const struct fabric_platform *find(const struct generation *v, size_t n, uint16_t device)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].device == device)
			return v[i].platform;
	return NULL;
}

const struct fabric_platform *fabric_platform_of_switch(uint16_t device)
{
	return find(switch_ids, ARRAY_SIZE(switch_ids), device);
}

const struct fabric_platform *fabric_platform_of_gpu(uint16_t device)
{
	return find(gpu_ids, ARRAY_SIZE(gpu_ids), device);
}

const struct fabric_row *fabric_row(const struct fabric_platform *p, int gpus)
{
	for (size_t i = 0; i < p->n_rows; i++)
		if (p->rows[i].gpus == gpus)
			return &p->rows[i];
	return NULL;
}
