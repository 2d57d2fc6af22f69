/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm create: a VM from nothing: its definition, its disks, and its start.
 *
 * Everything is decided and planned before the first file is made, so a refusal leaves nothing behind. Then record.h says how a
 * create that is killed is undone. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "cmd.h"
#include "gpuvm/definition.h"
#include "gpuvm/image.h"
#include "gpuvm/log.h"
#include "gpuvm/record.h"
#include "gpuvm/trust.h"

#define USER_DATA_MAX (INT64_C(16) << 20) /* clouds take some ten kilobytes */

static const char usage[] =
	"usage: gpuvm create [options] NAME\n"
	"\n"
	"Make a VM: write its definition, /etc/gpuvm/NAME.ini, make its disks, and start it. `gpuvm delete NAME` removes it all.\n"
	"\n"
	"  --gpus N          pass N GPUs through, with the NICs and NVMe drives near them; without it, nothing\n"
	"  --gpu-index N     these and not any: the first one, as `gpuvm topo` counts them\n"
	"  --vcpus N         instead of the GPUs' share of the CPUs\n"
	"  --memory SIZE     instead of their share of the memory: 960G\n"
	"  --image IMAGE     OS disk on an installed image (`gpuvm image list`)\n"
	"  --disk-size SIZE  of the OS disk; without --image an empty one\n"
	"  --data-disk SIZE  a second, empty disk\n"
	"  --net HOW         user (default), none, bridge=BRIDGE or tap=INTERFACE\n"
	"  --user-data FILE  cloud-init's, for the first boot\n"
	"  --set S.K=V       any key of the definition; may be repeated\n"
	"  --no-start        do not start it; what others use now is no obstacle then\n"
	"  --direct          do not start it as a unit of systemd\n"
	"  -n, --dry-run     print the definition and touch nothing\n"
	"  --sysroot DIR     as if on the machine captured in DIR, or in a tar (dry run)\n"
	"  --json            what was made, for scripts\n"
	"  --help\n"
	"\n"
	"exit: 0 done, 1 failed, 2 usage, 3 definition wrong, 4 host cannot, 5 exists or in use; nothing is left then. If only the\n"
	"start fails the VM stays, and the exit code is that of the start\n";

struct create {
	struct definition_request req;
	struct launch_options launch;
	const char *name, *image, *user_data;
	uint64_t disk_bytes, data_bytes; /* 0: not given */
	bool no_start, direct, dry_run, json, help;

	char *paths[RECORD_FILES]; /* of what will be made; else NULL */
	char uuid[37], date[16];
	char *command;
	struct strv sets;
	struct image base;
	int user_data_fd; /* -1: none */
	struct definition_facts facts;
	bool has_boot;		  /* a kernel or a disk, beside the data disk */
	struct problems ps, busy; /* busy: what is in the way of a start now, which was not asked for */
	struct strv warnings;
	struct err e;
};

/* --- options ---------------------------------------------------------------------------------------------------- */

static int bad_value(const char *option, const char *value, const char *want)
{
	fprintf(stderr, "gpuvm create: --%s: '%s' is not %s\n", option, value, want);
	return EXIT_USAGE;
}

static int parse_count(const char *option, const char *value, int min, int *ret)
{
	return parse_int(value, min, INT_MAX, ret) < 0 ? bad_value(option, value, "a number") : 0;
}

static int parse_bytes(const char *option, const char *value, uint64_t *ret)
{
	return parse_size(value, ret) < 0 || !*ret || *ret > INT64_MAX ? bad_value(option, value, "a size like 50G") : 0;
}

static int parse_net(const char *value, struct definition_request *r)
{
	static const struct {
		const char *word;
		enum definition_net net;
	} words[] = { { "user", DEFINITION_NET_USER }, { "none", DEFINITION_NET_NONE }, { "bridge=", DEFINITION_NET_BRIDGE }, { "tap=", DEFINITION_NET_TAP } };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t len = strlen(words[i].word);

		if (words[i].word[len - 1] == '=' ? strncmp(value, words[i].word, len) != 0 || !value[len] : strcmp(value, words[i].word) != 0)
			continue;
		r->net = words[i].net;
		r->net_host = value + len;
		return 0;
	}
	return bad_value("net", value, "user, none, bridge=BRIDGE or tap=INTERFACE");
}

enum {
	OPT_GPUS = 256,
	OPT_INDEX,
	OPT_VCPUS,
	OPT_MEMORY,
	OPT_IMAGE,
	OPT_DISK,
	OPT_DATA,
	OPT_NET,
	OPT_USER_DATA,
	OPT_SET,
	OPT_NO_START,
	OPT_DIRECT,
	OPT_SYSROOT,
	OPT_JSON,
};

static int take_option(int c, struct create *o)
{
	uint64_t bytes;

	switch (c) {
	case OPT_GPUS:
		return parse_count("gpus", optarg, 0, &o->req.gpus);
	case OPT_INDEX:
		return parse_count("gpu-index", optarg, 0, &o->req.gpu_index);
	case OPT_VCPUS:
		return parse_count("vcpus", optarg, 1, &o->req.vcpus);
	case OPT_MEMORY:
		o->req.memory = optarg;
		return parse_bytes("memory", optarg, &bytes);
	case OPT_IMAGE:
		o->image = optarg;
		return 0;
	case OPT_DISK:
		return parse_bytes("disk-size", optarg, &o->disk_bytes);
	case OPT_DATA:
		return parse_bytes("data-disk", optarg, &o->data_bytes);
	case OPT_NET:
		return parse_net(optarg, &o->req);
	case OPT_USER_DATA:
		o->user_data = optarg;
		return 0;
	case OPT_SET:
		strv_push(&o->sets, optarg);
		return 0;
	case OPT_NO_START:
		o->no_start = true;
		return 0;
	case OPT_DIRECT:
		o->direct = true;
		return 0;
	case 'n':
		o->dry_run = true;
		return 0;
	case OPT_SYSROOT:
		o->launch.sysroot = optarg;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case 'h':
		o->help = true;
		return 0;
	default:
		return EXIT_USAGE;
	}
}

static int complain(const char *what)
{
	fprintf(stderr, "gpuvm create: %s\n%s", what, usage);
	return EXIT_USAGE;
}

static int check_usage(int argc, char **argv, struct create *o)
{
	if (optind != argc - 1)
		return complain(optind < argc ? "one VM at a time" : "which name shall it have?");
	o->name = argv[optind];
	if (!cmd_check_name("create", o->name))
		return EXIT_USAGE;
	if (o->req.gpu_index >= 0 && !o->req.gpus)
		return complain("--gpu-index says which GPUs; --gpus N says how many");
	if (o->launch.sysroot && !o->dry_run)
		return complain("--sysroot is another machine, where no VM can be made; add --dry-run");
	return 0;
}

static int parse(int argc, char **argv, struct create *o)
{
	static const struct option options[] = {
		{ "gpus", required_argument, NULL, OPT_GPUS },	       { "gpu-index", required_argument, NULL, OPT_INDEX },
		{ "vcpus", required_argument, NULL, OPT_VCPUS },       { "memory", required_argument, NULL, OPT_MEMORY },
		{ "image", required_argument, NULL, OPT_IMAGE },       { "disk-size", required_argument, NULL, OPT_DISK },
		{ "data-disk", required_argument, NULL, OPT_DATA },    { "net", required_argument, NULL, OPT_NET },
		{ "user-data", required_argument, NULL, OPT_USER_DATA }, { "set", required_argument, NULL, OPT_SET },
		{ "no-start", no_argument, NULL, OPT_NO_START },       { "direct", no_argument, NULL, OPT_DIRECT },
		{ "dry-run", no_argument, NULL, 'n' },		       { "sysroot", required_argument, NULL, OPT_SYSROOT },
		{ "json", no_argument, NULL, OPT_JSON },	       { "help", no_argument, NULL, 'h' },
		{ 0 }
	};
	int c, r;

	optind = 0;
	while ((c = getopt_long(argc, argv, "nh", options, NULL)) != -1) {
		r = take_option(c, o);
		if (r)
			return r;
	}
	return o->help ? 0 : check_usage(argc, argv, o);
}

/* --- what is asked for ---------------------------------------------------------------------------------------------- */

/* Version 4 (RFC 4122): random but for six bits. */
static int make_uuid(char ret[37], struct err *e)
{
	uint8_t b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		return err_sys(e, -errno, "get random bytes for a UUID");
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(ret, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8],
		 b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return 0;
}

static char *command_line(int argc, char **argv)
{
	char *line = xstrdup("gpuvm");

	for (int i = 0; i < argc; i++) {
		AUTO_FREE char *before = line, *word = shell_quote(argv[i]);

		line = xasprintf("%s %s", before, word);
	}
	return line;
}

static int fill_request(struct create *o)
{
	const bool made[RECORD_FILES] = { [RECORD_OS_DISK] = o->image || o->disk_bytes,
					  [RECORD_DATA_DISK] = o->data_bytes,
					  [RECORD_USER_DATA] = o->user_data,
					  [RECORD_DEFINITION] = true };
	time_t now = time(NULL);
	struct tm tm;

	for (int what = 0; what < RECORD_FILES; what++)
		o->paths[what] = made[what] ? record_path(o->name, what) : NULL;
	o->req.name = o->name;
	o->req.uuid = o->uuid;
	o->req.os_disk = o->paths[RECORD_OS_DISK];
	o->req.image = o->image;
	o->req.data_disk = o->paths[RECORD_DATA_DISK];
	o->req.user_data = o->paths[RECORD_USER_DATA];
	o->req.user_data_from = o->user_data;
	o->req.sets = &o->sets;
	o->req.command = o->command;
	o->req.date = o->date;
	strftime(o->date, sizeof(o->date), "%Y-%m-%d", localtime_r(&now, &tm));
	return make_uuid(o->uuid, &o->e);
}

/* --- is there room for it? ------------------------------------------------------------------------------------------- */

/* A create that was killed is undone. @ret_interrupted: there was one; @ret_ready: one that came to its end. */
static int check_record(struct create *o, bool *ret_interrupted, bool *ret_ready)
{
	struct record rec = { 0 };
	int r = record_read(o->name, &rec, &o->e);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*ret_interrupted = !rec.ready;
	*ret_ready = rec.ready;
	if (!rec.ready && !o->dry_run) {
		log_notice("'%s': an earlier create was interrupted: what it has made is removed", o->name);
		r = record_undo(&rec, &o->e);
	}
	record_clear(&rec);
	return r;
}

/* A definition of that name, in whichever file, or another one in its file. */
static int check_definitions(struct create *o)
{
	struct strv paths = { 0 };
	int r = record_list_definitions(&paths, &o->e);

	for (size_t i = 0; i < paths.n && r == 0; i++) {
		AUTO_FREE char *name = cmd_vm_name(paths.v[i]);

		if (strcmp(name, o->name) == 0 || strcmp(paths.v[i], o->paths[RECORD_DEFINITION]) == 0)
			problem_hint(problems_add(&o->ps, PROBLEM_BUSY, "vm-exists", "VM '%s' exists already: its definition is '%s'", name, paths.v[i]),
				     "`gpuvm start %s` starts it; `gpuvm delete %s` removes what create has made", name, name);
	}
	strv_clear(&paths);
	return r;
}

static int check_files(struct create *o)
{
	int r = 0;

	for (int what = 0; what < RECORD_RUN && r == 0; what++) {
		AUTO_FREE char *path = record_path(o->name, what);
		bool there = false;

		if ((what < RECORD_FILES && !o->paths[what]) || what == RECORD_DEFINITION)
			continue;
		r = record_exists(o->name, what, &there, &o->e);
		/* UEFI variables and TPM of an earlier VM would become the new one's. */
		if (r == 0 && there)
			problem_hint(problems_add(&o->ps, PROBLEM_BUSY, "vm-exists", "'%s' is there already, where the %s of '%s' would be", path,
						  record_word(what), o->name),
				     "remove it or move it away, or choose another name");
	}
	return r;
}

static int check_not_running(struct create *o)
{
	AUTO_FREE char *dir = claim_vm_dir(o->name);
	struct claim c = { 0 };
	int r = claim_read(dir, &c, &o->e);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (claim_alive(&c))
		problem_hint(problems_add(&o->ps, PROBLEM_BUSY, "vm-running", "a VM '%s' is running, from '%s'", o->name, c.definition ? c.definition : "?"),
			     "`gpuvm status %s` shows it", o->name);
	claim_clear(&c);
	return 0;
}

/* 0, or -Exxx with o->ps or o->e. With the lock held, but for a dry run. */
static int check_free(struct create *o)
{
	bool interrupted = false, ready = false;
	AUTO_CLOSE int lock = -1;
	int r;

	if (o->launch.sysroot)
		return 0; /* another machine's */
	/* What an interrupted create has left may run all the same: it is whole from when its definition is there. */
	lock = o->dry_run ? -1 : claim_lock(&o->e);
	if (lock < 0 && !o->dry_run)
		return lock;
	r = check_not_running(o);
	if (r < 0 || o->ps.n)
		return r < 0 ? r : -EEXIST;
	r = check_record(o, &interrupted, &ready);
	/* A dry run that undoes nothing would find the remains. */
	if (r == 0 && !(interrupted && o->dry_run)) {
		r = check_definitions(o);
		if (r == 0 && ready && !o->ps.n)
			problem_hint(problems_add(&o->ps, PROBLEM_BUSY, "vm-exists", "VM '%s' was made and is not deleted, although its definition is gone", o->name),
				     "`gpuvm delete %s` removes what is left of it", o->name);
		if (r == 0)
			r = check_files(o);
	}
	return r == 0 && o->ps.n ? -EEXIST : r;
}

static int find_image(struct create *o)
{
	char have[32], want[32];
	int r = o->image ? image_find(launch_state_dir(), o->image, &o->base, &o->e) : 0;

	if (r == -ENOENT)
		problems_add(&o->ps, PROBLEM_HOST, "image-missing", "%s", o->e.msg);
	else if (r == 0 && o->disk_bytes && o->disk_bytes < o->base.virtual_bytes)
		problem_hint(problems_add(&o->ps, PROBLEM_CONFIG, "disk-too-small", "--disk-size %s is less than the image '%s' has, %s",
					  format_size(o->disk_bytes, want), o->image, format_size(o->base.virtual_bytes, have)),
			     "leave it out, or give more");
	return o->ps.n ? -EINVAL : r;
}

/* Before anything is made: it is copied later. */
static int open_user_data(struct create *o, struct err *e)
{
	AUTO_CLOSE int fd = o->user_data ? open(o->user_data, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	struct stat st;

	if (!o->user_data)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(e, -errno, "open the user-data '%s'", o->user_data);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "the user-data '%s' is not a regular file", o->user_data);
	if (st.st_size > USER_DATA_MAX)
		return err_set(e, -EFBIG, "the user-data '%s' has %jd bytes: at most %" PRId64 " MiB", o->user_data, (intmax_t)st.st_size, USER_DATA_MAX >> 20);
	o->user_data_fd = STEAL_FD(fd);
	return 0;
}

/* --- plan -------------------------------------------------------------------------------------------------------------- */

static void keep_facts(struct create *o, const struct launch *l)
{
	const struct plan *p = &l->plan;

	o->facts = (struct definition_facts){ .host_gpus = topology_n_gpus(&l->host),
					      .vcpus = (int)p->n_vcpus,
					      .memory_bytes = plan_memory_bytes(p),
					      .page_bytes = p->n_nodes ? p->nodes[0].page_bytes : 0 };
	o->has_boot = l->vm.kernel || l->vm.n_disks > (o->paths[RECORD_DATA_DISK] != NULL);
	strv_clear(&o->warnings);
	for (size_t i = 0; i < p->n_warnings; i++)
		strv_push(&o->warnings, p->warnings[i].text);
}

static int plan_once(struct create *o, const char *text, bool ignore_use)
{
	struct launch l;
	int r;

	o->launch.dry_run = true;
	o->launch.text = text;
	o->launch.ignore_use = ignore_use;
	launch_init(&l, &o->launch);
	r = launch_plan(&l, &o->ps, &o->e);
	if (r == 0)
		keep_facts(o, &l);
	/* Nobody can look up a line of a text that is not there. */
	for (size_t i = 0; i < o->ps.n; i++)
		if (!o->ps.v[i].file)
			o->ps.v[i].line = 0;
	launch_clear(&l);
	return r;
}

/* What only others are in the way of is no reason against making a VM that is not started now. */
static int plan(struct create *o, const char *text)
{
	int r = plan_once(o, text, false);

	if (r == 0 || !o->no_start || problems_exit_code(&o->ps) != EXIT_IN_USE)
		return r;
	o->busy = o->ps;
	o->ps = (struct problems){ 0 };
	return plan_once(o, text, true);
}

/* Planned first, so that the text can say what came of it. */
static char *make_text(struct create *o)
{
	AUTO_FREE char *text = definition_text(&o->req, NULL, &o->ps);

	for (int what = 0; what < RECORD_FILES; what++)
		if (o->paths[what])
			strv_push(&o->launch.promised, o->paths[what]);
	if (!text || plan(o, text) < 0)
		return NULL;
	return definition_text(&o->req, &o->facts, &o->ps);
}

/* --- make --------------------------------------------------------------------------------------------------------------- */

/* A file that nobody else has written to, and that is on the disk. @from: an open file to copy, or -1: @text. */
static int write_new(const char *path, unsigned int mode, int from, const char *text, struct err *e)
{
	AUTO_CLOSE int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	AUTO_FREE char *buf = xcalloc(1, 65536);
	int r = to < 0 ? -errno : from < 0 ? write_all(to, text, strlen(text)) : 0;
	ssize_t n = 0;

	while (r == 0 && from >= 0 && (n = read(from, buf, 65536)) > 0)
		r = write_all(to, buf, (size_t)n);
	if (r == 0 && (n < 0 || fsync(to) < 0))
		r = -errno;
	return r < 0 ? err_sys(e, r, "write '%s'", path) : 0;
}

static int make_one(struct create *o, enum record_what what, const char *text, struct err *e)
{
	AUTO_FREE char *temp = record_temp_path(o->name, what);

	switch (what) {
	case RECORD_OS_DISK:
		return disk_create(temp, o->image ? &o->base : NULL, o->disk_bytes, e);
	case RECORD_DATA_DISK:
		return disk_create(temp, NULL, o->data_bytes, e);
	case RECORD_USER_DATA:
		return write_new(temp, 0600, o->user_data_fd, NULL, e);
	default:
		return write_new(temp, 0644, -1, text, e);
	}
}

static int make_all(struct create *o, const char *text, struct record *rec)
{
	int r = 0;

	if (mkdir(launch_config_dir(), 0755) < 0 && errno != EEXIST)
		return err_sys(&o->e, -errno, "make the folder '%s'", launch_config_dir());
	r = record_write(rec, &o->e);
	for (int what = 0; what < RECORD_FILES && r == 0; what++) {
		if (!rec->files[what].listed)
			continue;
		r = make_one(o, what, text, &o->e);
		if (r == 0)
			r = record_publish(rec, what, &o->e);
	}
	rec->ready = r == 0;
	return r < 0 ? r : record_write(rec, &o->e);
}

/* A key that was pressed too late shall not leave half a VM behind: it counts when it is whole. */
static int make_vm(struct create *o, const char *text)
{
	struct record rec = { .vm = xstrdup(o->name), .created = time(NULL) };
	struct err undo = { 0 };
	sigset_t stop, before;
	int r;

	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGHUP);
	sigprocmask(SIG_BLOCK, &stop, &before);
	for (int what = 0; what < RECORD_FILES; what++)
		rec.files[what].listed = o->paths[what] != NULL;
	r = make_all(o, text, &rec);
	if (r < 0 && record_undo(&rec, &undo) < 0)
		log_error("undo: %s", undo.msg);
	sigprocmask(SIG_SETMASK, &before, NULL);
	record_clear(&rec);
	return r;
}

/* --- the whole -------------------------------------------------------------------------------------------------------- */

static struct json_object *files_json(const struct create *o)
{
	struct json_object *all = json_object_new_array();

	for (int what = 0; what < RECORD_FILES; what++)
		if (o->paths[what])
			json_object_array_add(all, json_object_new_string(o->paths[what]));
	return all;
}

static void print_json(const struct create *o, const char *text, int started)
{
	struct json_object *j = json_object_new_object(), *warnings = json_object_new_array();

	for (size_t i = 0; i < o->busy.n; i++)
		json_object_array_add(warnings, json_object_new_string(o->busy.v[i].message));
	for (size_t i = 0; i < o->warnings.n; i++)
		json_object_array_add(warnings, json_object_new_string(o->warnings.v[i]));
	json_object_object_add(j, "schema", json_object_new_int(1));
	json_object_object_add(j, "vm", json_object_new_string(o->name));
	json_object_object_add(j, "definition", json_object_new_string(o->paths[RECORD_DEFINITION]));
	json_object_object_add(j, "files", files_json(o));
	json_object_object_add(j, "text", json_object_new_string(text));
	json_object_object_add(j, "created", json_object_new_boolean(!o->dry_run));
	json_object_object_add(j, "started", json_object_new_boolean(!o->dry_run && !o->no_start && started == 0));
	json_object_object_add(j, "warnings", warnings);
	cmd_print_json(j);
}

static void say_made(const struct create *o)
{
	char memory[32];

	printf("%s: %d vCPU%s, %s of memory\n", o->name, o->facts.vcpus, o->facts.vcpus == 1 ? "" : "s", format_size(o->facts.memory_bytes, memory));
	for (int what = 0; what < RECORD_FILES; what++)
		if (o->paths[what])
			printf("  %-11s %s\n", record_word(what), o->paths[what]);
	fflush(stdout);
}

static void say_notes(const struct create *o)
{
	for (size_t i = 0; i < o->busy.n; i++)
		log_warning("%s: in the way of a start now: %s", o->name, o->busy.v[i].message);
	/* A start says the same. */
	for (size_t i = 0; i < o->warnings.n && (o->no_start || o->dry_run); i++)
		log_warning("%s: %s", o->name, o->warnings.v[i]);
	if (!o->has_boot)
		log_notice("%s has no OS disk: it can boot from a drive that is passed through, or with `--set vm.kernel=PATH`; --image or --disk-size make one",
			   o->name);
}

static int start(const struct create *o)
{
	int r = o->no_start ? 0 : cmd_start_vm(o->name, o->direct);

	if (r)
		log_error("'%s' is made, but its start has failed; `gpuvm start %s` tries again, `gpuvm delete %s` removes it", o->name, o->name, o->name);
	return r;
}

/* A start would refuse what is made there. */
static int check_folder(struct create *o)
{
	struct err e = { 0 };

	if (o->dry_run || geteuid() != 0 || trust_check(launch_config_dir(), &e) != -EPERM)
		return 0;
	problems_add(&o->ps, PROBLEM_CONFIG, "file-not-trusted", "%s", e.msg);
	return -EINVAL;
}

/* Look, decide, make. The text of the definition, or NULL with o->ps or o->e. */
static char *create(struct create *o)
{
	AUTO_CLOSE int lock = o->dry_run ? -1 : image_lock(launch_state_dir(), &o->e);
	AUTO_FREE char *text = NULL;

	if ((lock < 0 && !o->dry_run) || check_folder(o) < 0 || check_free(o) < 0 || find_image(o) < 0 || open_user_data(o, &o->e) < 0)
		return NULL;
	text = make_text(o);
	if (text && !o->dry_run && make_vm(o, text) < 0)
		return NULL;
	return STEAL_PTR(text);
}

static int run(struct create *o)
{
	AUTO_FREE char *text = NULL;
	int r = 0;

	if (fill_request(o) == 0)
		text = create(o);
	if (!text)
		return cmd_report(&o->ps, &o->e, o->name, o->json);
	say_notes(o);
	if (o->dry_run && !o->json)
		fputs(text, stdout);
	else if (!o->json)
		say_made(o);
	if (!o->dry_run)
		r = start(o);
	if (o->json)
		print_json(o, text, r);
	return r;
}

int cmd_create(int argc, char **argv)
{
	struct create o = { .req = { .gpu_index = CONF_AUTO, .vcpus = CONF_AUTO }, .user_data_fd = -1, .command = command_line(argc, argv) };
	int r = parse(argc, argv, &o);

	if (r == 0 && o.help)
		fputs(usage, stdout);
	else if (r == 0)
		r = run(&o);
	for (int what = 0; what < RECORD_FILES; what++)
		free(o.paths[what]);
	free(o.command);
	close_cleanup(&o.user_data_fd);
	strv_clear(&o.sets);
	strv_clear(&o.warnings);
	strv_clear(&o.launch.promised);
	image_clear(&o.base);
	problems_clear(&o.ps);
	problems_clear(&o.busy);
	return r;
}
