/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm fabric: NVLink partitions, as Fabric Manager has them and as VMs do. */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>

#include "cmd.h"
#include "gpuvm/fabric_manager.h"
#include "gpuvm/log.h"

static const char usage[] =
	"usage: gpuvm fabric list|status|sync [--manager WHO] [--json]\n"
	"       gpuvm fabric activate|deactivate ID [--manager WHO] [--json]\n\n"
	"NVLink partitions of a host that shares its NVSwitches. VMs activate and deactivate theirs by themselves.\n"
	"  list          every partition: its GPUs, whether it is active, and for which VM\n"
	"  status        what does not fit together; exit code 1 if something does not\n"
	"  activate, deactivate\n"
	"                by hand; refused while a VM that runs has one of its GPUs\n"
	"  sync          tell a Fabric Manager that was restarted which partitions are in use\n"
	"--manager: as [fabric] manager in gpuvm.ini(5); default: that of the VMs that run, else auto.\n";

struct view {
	struct fm m;
	char *manager;
	struct fm_list list;
	struct fabric_map known, map; /* the operator's file; with Fabric Manager's list, empty if it cannot be told whose GPUs they are */
	struct claim *claims;
	size_t n_claims;
	bool json;
	int id;
};

static void view_clear(struct view *v)
{
	for (size_t i = 0; i < v->n_claims; i++)
		claim_clear(&v->claims[i]);
	free(v->claims);
	free(v->manager);
	fabric_map_clear(&v->known);
	fabric_map_clear(&v->map);
}

static void on_wait(void *ctx, const char *why, uint64_t waited_ms)
{
	(void)ctx;
	if (waited_ms < 1000)
		log_notice("waiting: %s", why);
}

static int fail(const struct view *v, const struct err *e)
{
	struct problems none = { 0 };

	return cmd_report(&none, e, NULL, v->json);
}

/* --- what VMs have ----------------------------------------------------------------------------------------- */

static int read_claims(struct view *v, struct err *e)
{
	struct strv names = { 0 };
	int r = claim_list(&names, e);

	for (size_t i = 0; i < names.n && r == 0; i++) {
		AUTO_FREE char *dir = claim_vm_dir(names.v[i]);
		struct claim c = { 0 };

		r = claim_read(dir, &c, e);
		if (r == 0)
			*PUSH_ZEROED(v->claims, v->n_claims) = c;
		r = r == -ENOENT ? 0 : r;
	}
	strv_clear(&names);
	return r;
}

/* Whom VMs that run talk to: a host has one Fabric Manager. */
static const char *manager_of_vms(const struct view *v)
{
	for (size_t i = 0; i < v->n_claims; i++)
		if (v->claims[i].fabric_manager && claim_alive(&v->claims[i]))
			return v->claims[i].fabric_manager;
	return "auto";
}

/* The VM whose partition it is, running or not given back. */
static const struct claim *owner_of(const struct view *v, int id)
{
	for (size_t i = 0; i < v->n_claims; i++)
		if (v->claims[i].partition == id && (claim_alive(&v->claims[i]) || v->claims[i].partition_active))
			return &v->claims[i];
	return NULL;
}

static const struct fabric_id *find_gpu(const struct view *v, int physical_id)
{
	for (size_t i = 0; i < v->map.n_gpus; i++)
		if (v->map.gpus[i].id == physical_id)
			return &v->map.gpus[i];
	return NULL;
}

static bool claims_gpu(const struct claim *c, const struct fabric_id *gpu)
{
	for (size_t i = 0; gpu && i < c->n_devices; i++)
		if (pci_addr_cmp(&c->devices[i].addr, &gpu->addr) == 0)
			return true;
	return false;
}

static bool has_physical_id(const struct fm_partition *p, int id)
{
	for (int i = 0; p && i < p->n_gpus; i++)
		if (p->gpus[i].physical_id == id)
			return true;
	return false;
}

/* A VM that runs and has a GPU of @p: by its devices, and by its partition where it is not known which GPU is which. */
static const struct claim *user_of(const struct view *v, const struct fm_partition *p)
{
	for (size_t i = 0; i < v->n_claims; i++) {
		const struct claim *c = &v->claims[i];

		for (int k = 0; claim_alive(c) && k < p->n_gpus; k++)
			if (claims_gpu(c, find_gpu(v, p->gpus[k].physical_id)) || has_physical_id(fm_list_find(&v->list, c->partition), p->gpus[k].physical_id))
				return c;
	}
	return NULL;
}

/* --- list ---------------------------------------------------------------------------------------------------- */

static struct json_object *partition_json(const struct view *v, const struct fm_partition *p)
{
	struct json_object *o = json_object_new_object(), *gpus = json_object_new_array();
	const struct claim *owner = owner_of(v, p->id);

	json_object_object_add(o, "id", json_object_new_int(p->id));
	json_object_object_add(o, "active", json_object_new_boolean(p->active));
	json_object_object_add(o, "vm", owner ? json_object_new_string(owner->vm) : NULL);
	for (int i = 0; i < p->n_gpus; i++) {
		const struct fabric_id *known = find_gpu(v, p->gpus[i].physical_id);
		struct json_object *g = json_object_new_object();
		char bdf[PCI_ADDR_STR];

		json_object_object_add(g, "physical_id", json_object_new_int(p->gpus[i].physical_id));
		json_object_object_add(g, "bdf", known ? json_object_new_string(pci_addr_format(&known->addr, bdf)) : NULL);
		json_object_object_add(g, "uuid", *p->gpus[i].uuid ? json_object_new_string(p->gpus[i].uuid) : NULL);
		json_object_object_add(g, "links", json_object_new_int(p->gpus[i].links));
		json_object_object_add(g, "links_max", json_object_new_int(p->gpus[i].links_max));
		json_object_array_add(gpus, g);
	}
	json_object_object_add(o, "gpus", gpus);
	return o;
}

static void print_partition(const struct view *v, const struct fm_partition *p)
{
	const struct claim *owner = owner_of(v, p->id);

	printf("%3d  %-6s  %-16s  %2d links ", p->id, p->active ? "active" : "-", owner ? owner->vm : "-", p->n_gpus ? p->gpus[0].links : 0);
	for (int i = 0; i < p->n_gpus; i++) {
		const struct fabric_id *known = find_gpu(v, p->gpus[i].physical_id);
		char bdf[PCI_ADDR_STR];

		printf(" %d=%s", p->gpus[i].physical_id, known ? pci_addr_format(&known->addr, bdf) : "?");
	}
	putchar('\n');
}

static int verb_list(struct view *v)
{
	struct json_object *o = json_object_new_object(), *a = json_object_new_array();

	if (!v->json)
		printf(" ID  state   VM                NVLinks    physical ID=GPU\n");
	for (int i = 0; i < v->list.n; i++) {
		if (v->json)
			json_object_array_add(a, partition_json(v, &v->list.v[i]));
		else
			print_partition(v, &v->list.v[i]);
	}
	json_object_object_add(o, "schema", json_object_new_int(1));
	json_object_object_add(o, "manager", json_object_new_string(v->manager));
	json_object_object_add(o, "partitions", a);
	if (v->json)
		cmd_print_json(o);
	else
		json_object_put(o);
	return EXIT_DONE;
}

/* --- status -------------------------------------------------------------------------------------------------- */

static void find_lost(const struct view *v, struct strv *ret)
{
	for (size_t i = 0; i < v->n_claims; i++) {
		const struct claim *c = &v->claims[i];
		const struct fm_partition *p = fm_list_find(&v->list, c->partition);

		if (!c->partition_active)
			continue;
		if (!claim_alive(c))
			strv_pushf(ret, "VM '%s' is gone and still has partition %d: `gpuvm recover %s`", c->vm, c->partition, c->vm);
		else if (!p || !p->active)
			strv_pushf(ret, "partition %d of VM '%s', which runs, is not active: Fabric Manager was started anew without being told (`gpuvm fabric sync`); "
				   "`gpuvm restart %s` gives the VM its NVLink back", c->partition, c->vm, c->vm);
	}
}

static void find_leaked(const struct view *v, struct strv *ret)
{
	for (int i = 0; i < v->list.n; i++)
		if (v->list.v[i].active && !owner_of(v, v->list.v[i].id))
			strv_pushf(ret, "partition %d is active, for no VM that gpuvm knows: `gpuvm fabric deactivate %d` if nobody else uses it", v->list.v[i].id,
				   v->list.v[i].id);
}

static int verb_status(struct view *v)
{
	struct strv findings = { 0 };
	int active = 0, r;

	find_lost(v, &findings);
	find_leaked(v, &findings);
	for (int i = 0; i < v->list.n; i++)
		active += v->list.v[i].active;
	r = findings.n ? EXIT_FAILED : EXIT_DONE;
	if (v->json) {
		struct json_object *o = json_object_new_object(), *a = json_object_new_array();

		json_object_object_add(o, "schema", json_object_new_int(1));
		json_object_object_add(o, "manager", json_object_new_string(v->manager));
		json_object_object_add(o, "partitions", json_object_new_int(v->list.n));
		json_object_object_add(o, "active", json_object_new_int(active));
		for (size_t i = 0; i < findings.n; i++)
			json_object_array_add(a, json_object_new_string(findings.v[i]));
		json_object_object_add(o, "findings", a);
		cmd_print_json(o);
	} else {
		printf("Fabric Manager by %s: %d partitions, %d active\n", v->manager, v->list.n, active);
		for (size_t i = 0; i < findings.n; i++)
			printf("* %s\n", findings.v[i]);
	}
	strv_clear(&findings);
	return r;
}

/* --- activate, deactivate, sync -------------------------------------------------------------------------------- */

static int check_free(const struct view *v, struct problems *ps)
{
	const struct fm_partition *p = fm_list_find(&v->list, v->id);
	const struct claim *user = p ? user_of(v, p) : NULL;

	if (!p)
		problems_add(ps, PROBLEM_HOST, "fabric-mismatch", "Fabric Manager has no partition %d", v->id);
	else if (user)
		problem_hint(problems_add(ps, PROBLEM_BUSY, "partition-busy", "VM '%s', which runs, has GPUs of partition %d", user->vm, v->id),
			     "`gpuvm stop %s` deactivates its partition", user->vm);
	return ps->n ? cmd_report(ps, NULL, NULL, v->json) : 0;
}

static int change(struct view *v, bool activate)
{
	struct problems ps = { 0 };
	struct err e = { 0 };
	int r = check_free(v, &ps);

	problems_clear(&ps);
	if (r)
		return r;
	r = activate ? fm_activate(&v->m, v->id, &e) : fm_deactivate(&v->m, v->id, &e);
	if (r < 0 && r != -EALREADY) {
		if (r == -EBUSY)
			problems_add(&ps, PROBLEM_BUSY, "partition-busy", "%s", e.msg);
		r = cmd_report(&ps, &e, NULL, v->json);
		problems_clear(&ps);
		return r;
	}
	log_notice("partition %d is %sactive", v->id, activate ? "" : "not ");
	return EXIT_DONE;
}

static int verb_activate(struct view *v)
{
	return change(v, true);
}

static int verb_deactivate(struct view *v)
{
	return change(v, false);
}

static int verb_sync(struct view *v)
{
	int ids[FM_PARTITIONS_MAX];
	struct err e = { 0 };
	size_t n = 0;

	for (size_t i = 0; i < v->n_claims && n < FM_PARTITIONS_MAX; i++)
		if (v->claims[i].partition_active && claim_alive(&v->claims[i]))
			ids[n++] = v->claims[i].partition;
	if (fm_sync(&v->m, ids, n, &v->list, &e) < 0)
		return e.code == -ESTALE && !v->json ? verb_status(v) : fail(v, &e);
	log_notice("Fabric Manager has the partitions of all VMs that run (%zu) as active", n);
	return EXIT_DONE;
}

/* --- words ------------------------------------------------------------------------------------------------------- */

static const struct fabric_verb {
	const char *name;
	int (*run)(struct view *v);
	bool id;   /* takes a partition: nobody may start a VM meanwhile */
	bool list; /* needs the list */
} verbs[] = {
	{ "list", verb_list, false, true },
	{ "status", verb_status, false, true },
	{ "activate", verb_activate, true, true },
	{ "deactivate", verb_deactivate, true, true },
	{ "sync", verb_sync, false, false },
};

static int look(struct view *v, struct err *e)
{
	struct problems ps = { 0 };
	int r;

	if (fabric_map_load("", &v->known, &ps) < 0)
		problems_print(&ps, stderr);
	problems_clear(&ps);
	r = fm_read_map(&v->m, &sysfs_live, &v->known, &v->list, &v->map, e);
	/* Without knowing whose GPUs they are. */
	if (r < 0 && e->word && strcmp(e->word, "fabric-mismatch") == 0) {
		log_warning("%s", e->msg);
		return 0;
	}
	return r;
}

static int run(const struct fabric_verb *verb, struct view *v, const char *manager)
{
	struct err e = { 0 };
	AUTO_CLOSE int lock = verb->id ? claim_lock(&e) : -1;
	int r = verb->id && lock < 0 ? lock : read_claims(v, &e);

	if (r == 0)
		r = fm_find(manager ? manager : manager_of_vms(v), &v->manager, &e);
	v->m = (struct fm){ .manager = v->manager, .ready_ms = verb->list ? 0 : FM_READY_MS, .progress = on_wait };
	if (r == 0 && verb->list)
		r = look(v, &e);
	if (r == -ENOENT && !v->manager)
		e.word = "fabric-no-manager";
	return r < 0 ? fail(v, &e) : verb->run(v);
}

static int parse(const struct fabric_verb *verb, int argc, char **argv, struct view *v, const char **ret_manager, bool *ret_help)
{
	static const struct option options[] = {
		{ "manager", required_argument, NULL, 'm' }, { "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' }, { 0 }
	};
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'm')
			*ret_manager = optarg;
		else if (c == 'j')
			v->json = true;
		else if (c == 'h')
			*ret_help = true;
		else
			return EXIT_USAGE;
	}
	if (*ret_help)
		return 0;
	if (argc - optind != verb->id || (verb->id && parse_int(argv[optind], 0, FM_PARTITIONS_MAX - 1, &v->id) < 0)) {
		fprintf(stderr, "gpuvm fabric %s: %s\n%s", verb->name, argc - optind > verb->id ? "too many words" : "which partition? (0 to 63)", usage);
		return EXIT_USAGE;
	}
	return 0;
}

int cmd_fabric(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "", *manager = NULL;
	AUTO_FREE struct view *v = xcalloc(1, sizeof(*v));
	bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
	int r = EXIT_USAGE;

	for (size_t i = 0; i < ARRAY_SIZE(verbs) && !help; i++) {
		if (strcmp(word, verbs[i].name) != 0)
			continue;
		r = parse(&verbs[i], argc - 1, argv + 1, v, &manager, &help);
		if (r == 0 && !help)
			r = run(&verbs[i], v, manager);
		view_clear(v);
		if (!help)
			return r;
	}
	if (help) {
		fputs(usage, stdout);
		return EXIT_DONE;
	}
	if (*word)
		fprintf(stderr, "gpuvm fabric: there is no '%s'\n", word);
	fputs(usage, stderr);
	return EXIT_USAGE;
}
