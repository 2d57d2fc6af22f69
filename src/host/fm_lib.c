/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fm_lib.c - Fabric Manager by its library, libnvfm.so.
 *
 * How it works: a worker process loads the library, connects, asks one thing and ends; what it found is in memory that it shares with us.  So a call that
 * hangs or crashes is the worker's, nothing of the library stays in the launcher, and a Fabric Manager that was restarted meanwhile is no trouble.
 *
 * The declarations are our own; what they follow is told in fabric_manager.h.  Each structure begins with its version: its size, and a number above bit 24. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "fm_priv.h"
#include "gpuvm/worker.h"

#define CONNECT_MS	5000
#define VERSION(type, n) ((unsigned int)sizeof(type) | (n) << 24)
#define FM_OK		0
#define FM_MISMATCH	(-6)
#define FM_IN_USE	(-7)

enum address_type { ADDRESS_INET = 1, ADDRESS_UNIX };

struct nvfm_connect {
	unsigned int version;
	char address[FM_WORD_MAX];
	unsigned int timeout_ms;
	unsigned int is_unix;
	unsigned int type; /* since version 2 */
};
/* Without its last member. */
#define CONNECT_V1 ((unsigned int)offsetof(struct nvfm_connect, type) | 1 << 24)
#define CONNECT_V2 VERSION(struct nvfm_connect, 2)

struct nvfm_gpu {
	unsigned int physical_id;
	char uuid[80];
	char bus_id[32];
	unsigned int links, links_max, link_mbps;
};

struct nvfm_partition {
	unsigned int id, is_active, n_gpus;
	struct nvfm_gpu gpus[FABRIC_GPUS_MAX];
};

struct nvfm_list {
	unsigned int version, n, n_max;
	struct nvfm_partition v[FM_PARTITIONS_MAX];
};

struct nvfm_active {
	unsigned int version, n;
	unsigned int ids[FM_PARTITIONS_MAX];
};

/* The sizes are part of the interface. */
_Static_assert(sizeof(struct nvfm_connect) == 272, "fmConnectParams_v2");
_Static_assert(sizeof(struct nvfm_gpu) == 128 && sizeof(struct nvfm_partition) == 2060, "fmFabricPartitionInfo_t");
_Static_assert(sizeof(struct nvfm_list) == 131852 && sizeof(struct nvfm_active) == 264, "fmFabricPartitionList_v2, fmActivatedFabricPartitionList_v1");

struct nvfm {
	int (*init)(void);
	int (*shutdown)(void);
	int (*connect)(struct nvfm_connect *, void **ret_handle);
	int (*disconnect)(void *handle);
	int (*list)(void *handle, struct nvfm_list *);
	int (*activate)(void *handle, unsigned int id);
	int (*deactivate)(void *handle, unsigned int id);
	int (*set_active)(void *handle, struct nvfm_active *);
};

static int load(const char *name, struct nvfm *ret, struct err *e)
{
	static const struct {
		const char *name;
		size_t at;
	} symbols[] = {
		{ "fmLibInit", offsetof(struct nvfm, init) },
		{ "fmLibShutdown", offsetof(struct nvfm, shutdown) },
		{ "fmConnect", offsetof(struct nvfm, connect) },
		{ "fmDisconnect", offsetof(struct nvfm, disconnect) },
		{ "fmGetSupportedFabricPartitions", offsetof(struct nvfm, list) },
		{ "fmActivateFabricPartition", offsetof(struct nvfm, activate) },
		{ "fmDeactivateFabricPartition", offsetof(struct nvfm, deactivate) },
		{ "fmSetActivatedFabricPartitions", offsetof(struct nvfm, set_active) },
	};
	void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);

	if (!lib)
		return err_set(e, -ELIBACC, "load '%s': %s", name, dlerror());
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *f = dlsym(lib, symbols[i].name);

		if (!f)
			return err_set(e, -ELIBBAD, "'%s' has no %s: it is not Fabric Manager's library, or of an unknown version", name, symbols[i].name);
		memcpy((char *)ret + symbols[i].at, &f, sizeof(f));
	}
	return 0;
}

/* --- in the worker --------------------------------------------------------------------------------------- */

struct library_job {
	const struct fm_spec *spec;
	const struct fm_request *request;
	struct answer {
		int code;
		struct nvfm_list list;
	} *answer; /* shared */
};

static int run_load(const void *arg, struct err *e)
{
	struct nvfm f;

	return load(arg, &f, e);
}

/* Older libraries know the first form only, and how long later ones go on knowing it nobody says. */
static int do_connect(const struct nvfm *f, const struct fm_spec *s, void **ret_handle)
{
	bool is_unix = strncmp(s->address, "unix:", 5) == 0;
	const char *address = is_unix ? s->address + 5 : *s->address ? s->address : "127.0.0.1";
	struct nvfm_connect c = { .version = CONNECT_V1, .timeout_ms = CONNECT_MS, .is_unix = is_unix, .type = is_unix ? ADDRESS_UNIX : ADDRESS_INET };
	int code;

	if (is_unix || strchr(address, ':'))
		snprintf(c.address, sizeof(c.address), "%s", address);
	else
		snprintf(c.address, sizeof(c.address), "%.240s:%d", address, FM_PORT);
	code = f->connect(&c, ret_handle);
	if (code != FM_MISMATCH)
		return code;
	c.version = CONNECT_V2;
	return f->connect(&c, ret_handle);
}

static int do_request(const struct nvfm *f, void *handle, const struct library_job *j)
{
	const struct fm_request *q = j->request;
	struct nvfm_active active = { .version = VERSION(struct nvfm_active, 1), .n = (unsigned int)q->n_ids };

	switch (q->op) {
	case FM_LIST:
		j->answer->list.version = VERSION(struct nvfm_list, 1);
		return f->list(handle, &j->answer->list);
	case FM_ACTIVATE:
		return f->activate(handle, (unsigned int)q->ids[0]);
	case FM_DEACTIVATE:
		return f->deactivate(handle, (unsigned int)q->ids[0]);
	case FM_SET_ACTIVE:
		for (int i = 0; i < q->n_ids; i++)
			active.ids[i] = (unsigned int)q->ids[i];
		return f->set_active(handle, &active);
	}
	return FM_OK;
}

static int run_ask(const void *arg, struct err *e)
{
	const struct library_job *j = arg;
	void *handle = NULL;
	struct nvfm f = { 0 };
	int code, r = load(j->spec->tool, &f, e);

	if (r < 0)
		return r;
	code = f.init(); /* NOLINT(clang-analyzer-core.CallAndMessage): load() has found all of them */
	/* Its own constructor may have done it. */
	if (code == FM_OK || code == FM_IN_USE)
		code = do_connect(&f, j->spec, &handle);
	if (handle && code == FM_OK) {
		code = do_request(&f, handle, j);
		f.disconnect(handle);
	}
	f.shutdown();
	j->answer->code = code;
	return 0;
}

/* --- here ---------------------------------------------------------------------------------------------------- */

static void take_gpu(const struct nvfm_gpu *g, struct fm_gpu *ret)
{
	ret->physical_id = (int)g->physical_id;
	snprintf(ret->uuid, sizeof(ret->uuid), "%.*s", (int)sizeof(g->uuid) - 1, g->uuid);
	snprintf(ret->bus_id, sizeof(ret->bus_id), "%.*s", (int)sizeof(g->bus_id) - 1, g->bus_id);
	ret->links = (int)g->links;
	ret->links_max = (int)g->links_max;
	ret->link_mbps = (int)g->link_mbps;
}

static int take_list(const struct nvfm_list *l, struct fm_list *ret, struct err *e)
{
	*ret = (struct fm_list){ 0 };
	if (l->n > FM_PARTITIONS_MAX)
		return err_set(e, -EPROTO, "Fabric Manager: %u partitions, of %d that there can be", l->n, FM_PARTITIONS_MAX);
	for (unsigned int i = 0; i < l->n; i++) {
		struct fm_partition *p = &ret->v[i];

		if (l->v[i].n_gpus > FABRIC_GPUS_MAX || l->v[i].id >= FM_PARTITIONS_MAX || fm_list_find(ret, (int)l->v[i].id))
			return err_set(e, -EPROTO, "Fabric Manager: partition %u with %u GPUs cannot be", l->v[i].id, l->v[i].n_gpus);
		p->id = (int)l->v[i].id;
		p->active = l->v[i].is_active != 0;
		p->n_gpus = (int)l->v[i].n_gpus;
		for (int k = 0; k < p->n_gpus; k++)
			take_gpu(&l->v[i].gpus[k], &p->gpus[k]);
		ret->n++;
	}
	return 0;
}

int fm_ask_library(const struct fm_spec *s, const struct fm_request *q, unsigned int timeout_ms, int *ret_code, struct fm_list *ret_list, struct err *e)
{
	struct answer *a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct library_job j = { .spec = s, .request = q, .answer = a };
	struct worker_job work = { .run = run_ask, .arg = &j };
	int r;

	if (a == MAP_FAILED)
		return err_sys(e, -errno, "cannot share memory with the worker");
	workers_run(&work, 1, timeout_ms);
	r = work.err.code;
	if (r == -ETIMEDOUT)
		err_set(e, r, "Fabric Manager did not answer '%s' within %u ms", s->tool, timeout_ms);
	else if (r < 0)
		*e = work.err;
	else
		*ret_code = a->code;
	if (r == 0 && q->op == FM_LIST && a->code == FM_OK)
		r = take_list(&a->list, ret_list, e);
	munmap(a, sizeof(*a));
	return r;
}

int fm_try_library(const char *name, struct err *e)
{
	struct worker_job work = { .run = run_load, .arg = name };

	workers_run(&work, 1, CONNECT_MS);
	*e = work.err;
	return work.err.code;
}
