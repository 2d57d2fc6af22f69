/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "gpuvm/fabric.h"

#define PCI_VENDOR_NVIDIA 0x10de

const char *fabric_mode_word(enum fabric_mode m)
{
	static const char *const words[] = {
		[FABRIC_NONE] = "none", [FABRIC_FULL] = "full", [FABRIC_SHARED] = "shared"
	};

	return words[m];
}

int fabric_mode_parse(const char *word, enum fabric_mode *ret)
{
	for (int i = FABRIC_NONE; i <= FABRIC_SHARED; i++) {
		if (strcmp(word, fabric_mode_word((enum fabric_mode)i)) == 0) {
			*ret = (enum fabric_mode)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* --- recognising ------------------------------------------------------------------------------------ */

/* GPUs on a baseboard are 3D controllers, all of one kind; a display card or an inference card may be in the
 * machine beside them. */
static bool is_board_gpu(const struct pci_func *f)
{
	return f->gpu_index >= 0 && f->vendor == PCI_VENDOR_NVIDIA && f->class_code >> 8 == 0x0302;
}

/* The device ID that most of them have; the lower one where two are equal. -1: there are none. */
static int board_gpu_id(const struct topology *t)
{
	int best = -1, best_n = 0;

	for (size_t i = 0; i < t->n_funcs; i++) {
		int n = 0;

		if (!is_board_gpu(&t->funcs[i]))
			continue;
		for (size_t k = 0; k < t->n_funcs; k++)
			n += is_board_gpu(&t->funcs[k]) && t->funcs[k].device == t->funcs[i].device;
		if (n > best_n || (n == best_n && t->funcs[i].device < best)) {
			best = t->funcs[i].device;
			best_n = n;
		}
	}
	return best;
}

/* The NVSwitches say which generation it is; where none of them is known, the GPUs do. Without NVSwitches on the
 * bus only B200 and later have a fabric: those of their boards are managed through the bridge functions. */
static const struct fabric_platform *recognise(const struct topology *t, int gpu_id, int n_nvswitches)
{
	const struct fabric_platform *by_gpu = gpu_id < 0 ? NULL : fabric_platform_of_gpu((uint16_t)gpu_id);

	if (!n_nvswitches)
		return by_gpu && by_gpu->bridges ? by_gpu : NULL;
	for (size_t i = 0; i < t->n_funcs; i++)
		if (t->funcs[i].role == ROLE_NVSWITCH && fabric_platform_of_switch(t->funcs[i].device))
			return fabric_platform_of_switch(t->funcs[i].device);
	return by_gpu;
}

static int count_role(const struct topology *t, enum pci_role role)
{
	int n = 0;

	for (size_t i = 0; i < t->n_funcs; i++)
		n += t->funcs[i].role == role;
	return n;
}

/* Nearest sockets first, as GPUs are numbered. */
static bool comes_before(const struct pci_func *a, const struct pci_func *b)
{
	if (a->socket != b->socket)
		return (unsigned int)a->socket < (unsigned int)b->socket;
	if (a->node != b->node)
		return (unsigned int)a->node < (unsigned int)b->node;
	return pci_addr_cmp(&a->addr, &b->addr) < 0;
}

static void list_switches(struct fabric *f, enum pci_role role)
{
	const struct topology *t = f->host;

	for (size_t i = 0; i < t->n_funcs; i++) {
		int at = f->n_switches;

		if (t->funcs[i].role != role)
			continue;
		while (at > 0 && comes_before(&t->funcs[i], &t->funcs[f->switches[at - 1]])) {
			f->switches[at] = f->switches[at - 1];
			at--;
		}
		f->switches[at] = (int)i;
		f->n_switches++;
	}
}

static int count_gpus(const struct topology *t, int gpu_id)
{
	int n = 0;

	for (size_t i = 0; i < t->n_funcs; i++)
		n += is_board_gpu(&t->funcs[i]) && t->funcs[i].device == gpu_id;
	return n;
}

static void list_gpus(struct fabric *f, int gpu_id)
{
	for (int g = 0; g < topology_n_gpus(f->host); g++) {
		int func = topology_find_gpu(f->host, g);

		if (is_board_gpu(&f->host->funcs[func]) && f->host->funcs[func].device == gpu_id)
			f->gpus[f->n_gpus++] = func;
	}
}

/* --- physical IDs ----------------------------------------------------------------------------------- */

static int id_of(const struct fabric_map *m, const struct pci_addr *a)
{
	for (size_t i = 0; i < m->n_gpus; i++)
		if (pci_addr_cmp(&m->gpus[i].addr, a) == 0)
			return m->gpus[i].id;
	return 0;
}

/* A GPU of the map that is not there has fallen off the bus: its partitions cannot be had, the others can.  A GPU
 * without an ID means that the map is of another machine, unless Fabric Manager made it: that leaves out GPUs that
 * failed. */
static int take_ids(struct fabric *f, const struct fabric_map *m, struct err *e)
{
	int max = f->platform->board_gpus * f->platform->boards_max;
	char bdf[PCI_ADDR_STR];

	for (size_t i = 0; i < m->n_gpus; i++) {
		int func = topology_find_func(f->host, &m->gpus[i].addr);

		pci_addr_format(&m->gpus[i].addr, bdf);
		if (func >= 0 && fabric_position(f, func) < 0)
			return err_set(e, -EINVAL,
				       "%s: physical ID %d is said to be %s, which is not a GPU of the fabric",
				       m->source, m->gpus[i].id, bdf);
		if (m->gpus[i].id > max)
			return err_set(e, -EINVAL, "%s: physical ID %d of %s: %s has 1 to %d", m->source, m->gpus[i].id,
				       bdf, f->platform->name, max);
	}
	for (int i = 0; i < f->n_gpus; i++) {
		f->ids[i] = id_of(m, &f->host->funcs[f->gpus[i]].addr);
		if (!f->ids[i] && !m->n_partitions)
			return err_set(e, -EINVAL, "%s: GPU %s has no physical ID there", m->source,
				       pci_addr_format(&f->host->funcs[f->gpus[i]].addr, bdf));
	}
	return 0;
}

int fabric_init(struct fabric *ret, const struct topology *host, const struct fabric_map *map, struct err *e)
{
	struct fabric f = { .host = host };
	int gpu_id = board_gpu_id(host), n_nvswitches = count_role(host, ROLE_NVSWITCH), r;

	f.platform = recognise(host, gpu_id, n_nvswitches);
	f.unknown = n_nvswitches && !f.platform;
	/* More than any board has: a machine that the tables do not know. */
	if (f.platform && (count_gpus(host, gpu_id) > f.platform->board_gpus * f.platform->boards_max ||
			   n_nvswitches > FABRIC_SWITCHES_MAX || count_role(host, ROLE_FABRIC) > FABRIC_SWITCHES_MAX)) {
		f.platform = NULL;
		f.unknown = true;
	}
	if (f.platform) {
		list_gpus(&f, gpu_id);
		list_switches(&f, f.platform->bridges ? ROLE_FABRIC : ROLE_NVSWITCH);
		f.partitions = f.platform->partitions;
		f.n_partitions = f.platform->n_partitions;
	}
	if (f.platform && map && map->n_gpus) {
		r = take_ids(&f, map, e);
		if (r < 0)
			return r;
	}
	if (f.platform && map && map->n_partitions) {
		f.partitions = map->partitions;
		f.n_partitions = map->n_partitions;
	}
	*ret = f;
	return 0;
}

bool fabric_has_ids(const struct fabric *f)
{
	for (int i = 0; i < f->n_gpus; i++)
		if (f->ids[i])
			return true;
	return false;
}

int fabric_position(const struct fabric *f, int func)
{
	for (int i = 0; i < f->n_gpus; i++)
		if (f->gpus[i] == func)
			return i;
	return -1;
}

/* --- baseboards ------------------------------------------------------------------------------------- */

int fabric_gpu_board(const struct fabric *f, int position)
{
	return (f->ids[position] ? f->ids[position] - 1 : position) / f->platform->board_gpus;
}

static bool board_on_socket(const struct fabric *f, int board, int socket)
{
	for (int i = 0; i < f->n_gpus; i++)
		if (fabric_gpu_board(f, i) == board && f->host->funcs[f->gpus[i]].socket == socket)
			return true;
	return false;
}

/* A baseboard hangs from one socket, so that of its GPUs tells; where that decides nothing, by number. */
int fabric_switch_board(const struct fabric *f, int position)
{
	int socket = f->host->funcs[f->switches[position]].socket, found = -1, n = 0;
	int per_board = fabric_row(f->platform, f->platform->board_gpus)->switches;

	for (int b = 0; b < f->platform->boards_max; b++) {
		if (board_on_socket(f, b, socket)) {
			found = b;
			n++;
		}
	}
	return n == 1 ? found : position / per_board % f->platform->boards_max;
}

/* --- sets ------------------------------------------------------------------------------------------- */

/* The positions of the GPUs of @p; 0 if one of them is not there. */
static uint32_t partition_gpus(const struct fabric *f, const struct fabric_partition *p)
{
	uint32_t set = 0;

	for (int i = 0; i < f->n_gpus; i++)
		if (f->ids[i] && p->gpus >> (f->ids[i] - 1) & 1)
			set |= UINT32_C(1) << i;
	return fabric_count(set) == fabric_count(p->gpus) ? set : 0;
}

static bool on_one_board(const struct fabric *f, uint32_t set)
{
	int board = -1;

	for (int i = 0; i < f->n_gpus; i++) {
		if (!(set >> i & 1))
			continue;
		if (board >= 0 && fabric_gpu_board(f, i) != board)
			return false;
		board = fabric_gpu_board(f, i);
	}
	return true;
}

struct set_list {
	struct fabric_set *v;
	size_t n, max;
};

static void push_set(struct set_list *l, uint32_t gpus, int partition, int links)
{
	for (size_t i = 0; i < l->n; i++)
		if (partition < 0 && l->v[i].gpus == gpus)
			return;
	if (gpus && l->n < l->max)
		l->v[l->n++] = (struct fabric_set){ .gpus = gpus, .partition = partition, .links = links };
}

static void mark_active(const struct fabric *f, const struct fabric_partition *p, struct fabric_set *s)
{
	s->active = p->active;
	for (size_t i = 0; i < f->n_partitions; i++)
		s->blocked = s->blocked || (&f->partitions[i] != p && f->partitions[i].active && f->partitions[i].gpus & p->gpus);
}

static void list_shared(const struct fabric *f, struct set_list *l)
{
	for (size_t i = 0; i < f->n_partitions; i++) {
		size_t before = l->n;

		push_set(l, partition_gpus(f, &f->partitions[i]), f->partitions[i].id, f->partitions[i].links);
		if (l->n > before)
			mark_active(f, &f->partitions[i], &l->v[before]);
	}
}

/* Sets of one row of the full passthrough table.  The guide gives only their number on each baseboard; which GPUs
 * they are is taken from the default partitions, where physical IDs are known, for these are the sets that the
 * links are laid out for.  Without IDs: blocks of neighbours in the order of sockets and addresses, which keeps a
 * set on its baseboard. */
static void list_full_row(const struct fabric *f, const struct fabric_row *row, struct set_list *l)
{
	int n = row->gpus, board = f->platform->board_gpus;

	if (n == f->n_gpus || n == 1) {
		for (int i = 0; i + n <= f->n_gpus; i += n)
			push_set(l, (uint32_t)((UINT64_C(1) << n) - 1) << i, -1, row->links);
	} else if (fabric_has_ids(f)) {
		for (size_t i = 0; i < f->platform->n_partitions; i++) {
			uint32_t set = partition_gpus(f, &f->platform->partitions[i]);

			if (fabric_count(set) == n && on_one_board(f, set))
				push_set(l, set, -1, row->links);
		}
	} else if (f->n_gpus % board == 0) {
		/* With a GPU missing the count is off, and with it every block behind the gap. */
		for (int i = 0; i + n <= f->n_gpus; i += n)
			push_set(l, (uint32_t)((UINT64_C(1) << n) - 1) << i, -1, row->links);
	}
}

size_t fabric_sets(const struct fabric *f, enum fabric_mode mode, int n_gpus, struct fabric_set *ret, size_t max)
{
	struct fabric_set all[FABRIC_SETS_MAX];
	struct set_list l = { .v = all, .max = ARRAY_SIZE(all) };
	size_t n = 0;

	if (!f->platform || mode == FABRIC_NONE)
		return 0;
	if (mode == FABRIC_SHARED)
		list_shared(f, &l);
	for (size_t i = 0; mode == FABRIC_FULL && i < f->platform->n_rows; i++)
		if (f->platform->rows[i].gpus <= f->n_gpus)
			list_full_row(f, &f->platform->rows[i], &l);
	for (size_t i = 0; i < l.n && n < max; i++)
		if (!n_gpus || fabric_count(all[i].gpus) == n_gpus)
			ret[n++] = all[i];
	return n;
}

bool fabric_find_set(const struct fabric *f, enum fabric_mode mode, uint32_t gpus, struct fabric_set *ret)
{
	struct fabric_set sets[FABRIC_SETS_MAX];
	size_t n = fabric_sets(f, mode, fabric_count(gpus), sets, ARRAY_SIZE(sets));

	for (size_t i = 0; i < n; i++) {
		if (sets[i].gpus == gpus) {
			*ret = sets[i];
			return true;
		}
	}
	return false;
}

int fabric_breaks(const struct fabric_set *sets, size_t n, const struct fabric_set *s, uint32_t busy)
{
	int broken = 0;

	for (size_t i = 0; i < n; i++)
		broken += fabric_count(sets[i].gpus) > fabric_count(s->gpus) && sets[i].gpus & s->gpus &&
			  !(sets[i].gpus & busy);
	return broken;
}

/* --- words ------------------------------------------------------------------------------------------ */

static char *join_numbers(const int *v, int n)
{
	char *out = xstrdup("");

	for (int i = 0; i < n; i++) {
		char *next = xasprintf("%s%s%d", out, i == 0 ? "" : i + 1 < n ? ", " : " or ", v[i]);

		free(out);
		out = next;
	}
	return out;
}

/* Of shared mode without IDs, what it could do with them. */
static bool has_size(const struct fabric *f, enum fabric_mode mode, int size)
{
	struct fabric_set one;

	if (mode != FABRIC_SHARED || fabric_has_ids(f))
		return fabric_sets(f, mode, size, &one, 1);
	for (size_t i = 0; i < f->n_partitions; i++)
		if (fabric_count(f->partitions[i].gpus) == size)
			return true;
	return false;
}

char *fabric_sizes(const struct fabric *f, enum fabric_mode mode)
{
	int sizes[FABRIC_GPUS_MAX], n = 0;

	for (int size = 1; size <= f->n_gpus; size++)
		if (has_size(f, mode, size))
			sizes[n++] = size;
	return join_numbers(sizes, n);
}

/* "8 GPUs with 4 NVSwitches, or 1 without" */
static char *describe_full(const struct fabric *f)
{
	char *out = xstrdup("");

	for (size_t i = 0; i < f->platform->n_rows; i++) {
		const struct fabric_row *r = &f->platform->rows[i];
		const char *es = r->switches == 1 ? "" : f->platform->bridges ? "s" : "es";
		char *next;

		if (r->gpus > f->n_gpus)
			continue;
		if (r->switches)
			next = xasprintf("%s%s%d%s with %d %s%s", out, *out ? ", " : "", r->gpus, *out ? "" : " GPUs",
					 r->switches, f->platform->switch_word, es);
		else
			next = xasprintf("%s%s%d without", out, *out ? ", or " : "", r->gpus);
		free(out);
		out = next;
	}
	return out;
}

char *fabric_describe(const struct fabric *f)
{
	AUTO_FREE char *full = describe_full(f), *shared = fabric_sizes(f, FABRIC_SHARED);

	return xasprintf("full passthrough: %s%s%s%s", full, *shared ? "; shared mode: " : "", shared,
			 *shared ? " GPUs" : "");
}
