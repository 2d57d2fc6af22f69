/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libnvfm.c - a stand-in for NVIDIA's libnvfm.so with a Fabric Manager behind it, for tests of fm_lib.c. It keeps its state in the folder that it is loaded from, in
 * the files that tests/fake/fmpm has and describes, and so agrees with it. More faults are: v1, v2 (the only version of fmConnectParams that it knows), crash OP.
 *
 * What it offers is declared here once more, from the documents and not from fm_lib.c, so that the two can disagree. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, BADPARAM = -1, NOT_SUPPORTED = -3, UNINITIALIZED = -4, TIMEOUT = -5, MISMATCH = -6, IN_USE = -7, NOT_CONFIGURED = -8, NO_CONNECTION = -9, NVLINK = -10,
       ID_IN_USE = -17, ID_NOT_IN_USE = -18 };

struct connect_v1 {
	unsigned int version;
	char addressInfo[256];
	unsigned int timeoutMs, addressIsUnixSocket;
};
struct connect_v2 {
	struct connect_v1 v1;
	int addressType;
};
struct gpu_info {
	unsigned int physicalId;
	char uuid[80], pciBusId[32];
	unsigned int numNvLinksAvailable, maxNumNvLinks, nvlinkLineRateMBps;
};
struct partition_info {
	unsigned int partitionId, isActive, numGpus;
	struct gpu_info gpuInfo[16];
};
struct partition_list {
	unsigned int version, numPartitions, maxNumPartitions;
	struct partition_info partitionInfo[64];
};
struct activated_list {
	unsigned int version, numPartitions, partitionIds[64];
};
#define VERSION(type, n) ((unsigned int)(sizeof(type) | (n) << 24))

int fmLibInit(void);
int fmLibShutdown(void);
int fmConnect(struct connect_v1 *c, void **handle);
int fmDisconnect(void *handle);
int fmGetSupportedFabricPartitions(void *handle, struct partition_list *l);
int fmActivateFabricPartition(void *handle, unsigned int id);
int fmDeactivateFabricPartition(void *handle, unsigned int id);
int fmSetActivatedFabricPartitions(void *handle, struct activated_list *l);

static int initialised, connected;
static struct partition_list state;
static char fault[32], fault_arg[32];

static FILE *open_file(const char *name, const char *mode)
{
	char path[4200];
	Dl_info self;

	if (!dladdr((void *)fmLibInit, &self))
		abort();
	snprintf(path, sizeof(path), "%s", self.dli_fname);
	snprintf(strrchr(path, '/'), 64, "/%s", name);
	return fopen(path, mode);
}

static void write_fault(const char *word, int left)
{
	FILE *f = open_file("fault", "w");

	if (left > 0)
		fprintf(f, "%s %d\n", word, left);
	fclose(f);
}

static void read_gpu(struct gpu_info *g)
{
	FILE *f = open_file("gpus", "r");
	unsigned int id;
	char uuid[80], bdf[32];

	while (fscanf(f, "%u %79s %31s", &id, uuid, bdf) == 3) {
		if (id != g->physicalId)
			continue;
		strcpy(g->uuid, strcmp(uuid, "-") ? uuid : "");
		strcpy(g->pciBusId, strcmp(bdf, "-") ? bdf : "00000000:00:00.0");
	}
	fclose(f);
}

static struct partition_info *find(unsigned int id)
{
	for (unsigned int i = 0; i < state.numPartitions; i++)
		if (state.partitionInfo[i].partitionId == id)
			return &state.partitionInfo[i];
	return NULL;
}

/* Everything anew: the program beside may have changed it. */
static void read_state(void)
{
	FILE *f = open_file("table", "r");
	unsigned int id, links;
	char gpus[128];

	state = (struct partition_list){ .maxNumPartitions = 64 };
	while (fscanf(f, "%u %u %127s", &id, &links, gpus) == 3) {
		struct partition_info *p = &state.partitionInfo[state.numPartitions++];

		p->partitionId = id;
		for (char *save, *s = strtok_r(gpus, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
			struct gpu_info *g = &p->gpuInfo[p->numGpus++];

			*g = (struct gpu_info){ .physicalId = (unsigned int)atoi(s), .numNvLinksAvailable = links, .maxNumNvLinks = 18, .nvlinkLineRateMBps = 25000 };
			read_gpu(g);
		}
	}
	fclose(f);
	f = open_file("active", "r");
	while (f && fscanf(f, "%u", &id) == 1)
		if (find(id))
			find(id)->isActive = 1;
	if (f)
		fclose(f);
	f = open_file("fault", "r");
	*fault = *fault_arg = '\0';
	if (f) {
		if (fscanf(f, "%31s %31s", fault, fault_arg) < 1)
			*fault = '\0';
		fclose(f);
	}
}

static void write_active(void)
{
	FILE *f = open_file("active", "w");

	for (unsigned int i = 0; i < state.numPartitions; i++)
		if (state.partitionInfo[i].isActive)
			fprintf(f, "%u\n", state.partitionInfo[i].partitionId);
	fclose(f);
}

/* What comes before any answer; OK: go on. */
static int begin(void *handle, const char *op, int id)
{
	FILE *f = open_file("log", "a");

	fprintf(f, "%s %d\n", op, id);
	fclose(f);
	if (!initialised)
		return UNINITIALIZED;
	if (handle != &connected)
		return BADPARAM;
	read_state();
	if (!strcmp(fault, "not-ready")) {
		write_fault(fault, atoi(fault_arg) - 1);
		return NOT_CONFIGURED;
	}
	while (!strcmp(fault, "hang") && !strcmp(fault_arg, op))
		pause();
	if (!strcmp(fault, "crash") && !strcmp(fault_arg, op))
		abort();
	if (!strcmp(fault, "restart") && strcmp(op, "--set-activated-list"))
		return NOT_CONFIGURED;
	return !strcmp(fault, "not-shared") ? NOT_SUPPORTED : !strcmp(fault, "timeout") && *op == '-' ? TIMEOUT : OK;
}

int fmLibInit(void)
{
	return initialised++ ? IN_USE : OK;
}

int fmLibShutdown(void)
{
	return initialised ? (initialised = 0) : UNINITIALIZED;
}

int fmConnect(struct connect_v1 *c, void **handle)
{
	int v1 = c->version == VERSION(struct connect_v1, 1), v2 = c->version == VERSION(struct connect_v2, 2);
	FILE *f = open_file("log", "a");

	fprintf(f, "connect %s %s\n", c->addressIsUnixSocket ? "unix" : "inet", c->addressInfo);
	fclose(f);
	if (!initialised)
		return UNINITIALIZED;
	read_state();
	if ((!v1 && !v2) || (!strcmp(fault, "v1") && !v1) || (!strcmp(fault, "v2") && !v2) || !strcmp(fault, "mismatch"))
		return MISMATCH;
	if (v2 && ((struct connect_v2 *)c)->addressType != (c->addressIsUnixSocket ? 2 : 1))
		return BADPARAM;
	if (!strcmp(fault, "unreachable")) {
		write_fault(fault, atoi(fault_arg) - 1);
		return NO_CONNECTION;
	}
	*handle = &connected;
	return OK;
}

int fmDisconnect(void *handle)
{
	return handle == &connected ? OK : BADPARAM;
}

int fmGetSupportedFabricPartitions(void *handle, struct partition_list *l)
{
	int r = begin(handle, "list", 0);

	if (r == OK && l->version != VERSION(struct partition_list, 1))
		return MISMATCH;
	if (r != OK)
		return r;
	*l = state;
	l->version = VERSION(struct partition_list, 1);
	if (!strcmp(fault, "huge"))
		l->numPartitions = 65;
	if (!strcmp(fault, "garbage"))
		l->partitionInfo[0].numGpus = 17;
	return OK;
}

static int overlaps(const struct partition_info *p)
{
	for (unsigned int i = 0; i < state.numPartitions; i++)
		for (unsigned int k = 0; state.partitionInfo[i].isActive && k < state.partitionInfo[i].numGpus; k++)
			for (unsigned int g = 0; g < p->numGpus; g++)
				if (p->gpuInfo[g].physicalId == state.partitionInfo[i].gpuInfo[k].physicalId)
					return 1;
	return 0;
}

int fmActivateFabricPartition(void *handle, unsigned int id)
{
	int r = begin(handle, "-a", (int)id);
	struct partition_info *p = find(id);

	if (r != OK || !p)
		return r != OK ? r : BADPARAM;
	if (!strcmp(fault, "nvlink"))
		return NVLINK;
	if (p->isActive)
		return strcmp(fault, "old-codes") ? ID_IN_USE : IN_USE;
	if (overlaps(p))
		return IN_USE;
	p->isActive = 1;
	write_active();
	return OK;
}

int fmDeactivateFabricPartition(void *handle, unsigned int id)
{
	int r = begin(handle, "-d", (int)id);
	struct partition_info *p = find(id);

	if (r != OK || !p)
		return r != OK ? r : BADPARAM;
	if (!p->isActive)
		return strcmp(fault, "old-codes") ? ID_NOT_IN_USE : UNINITIALIZED;
	if (!strcmp(fault, "nvlink"))
		return NVLINK;
	p->isActive = 0;
	write_active();
	return OK;
}

int fmSetActivatedFabricPartitions(void *handle, struct activated_list *l)
{
	int r = begin(handle, "--set-activated-list", (int)l->numPartitions);

	if (r == OK && l->version != VERSION(struct activated_list, 1))
		return MISMATCH;
	if (r != OK || strcmp(fault, "restart"))
		return r != OK ? r : NOT_SUPPORTED;
	for (unsigned int i = 0; i < state.numPartitions; i++)
		state.partitionInfo[i].isActive = 0;
	for (unsigned int i = 0; i < l->numPartitions; i++)
		if (find(l->partitionIds[i]))
			find(l->partitionIds[i])->isActive = 1;
	write_active();
	write_fault("", 0);
	return OK;
}
