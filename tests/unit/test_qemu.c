/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a QEMU can do: from recorded answers, from the installed one, from programs that are none; and the cache. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/parse.h"
#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "gpuvm/strv.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

#define QEMU "/usr/bin/qemu-system-x86_64"

/* --- features ----------------------------------------------------------------------------------------------- */

/* Of each recorded version: Y yes, - no. */
Test(qemu, features_of_recorded_versions)
{
	static const char *const versions[] = { "7.2.22", "10.0.13", "11.1.3" };
	static const struct {
		enum qemu_feature feature;
		const char *has;
	} rows[] = {
		{ QF_VFIO, "YYY" },	      { QF_IOMMUFD, "-YY" },	      { QF_VF_TOKEN, "-YY" },
		{ QF_LINK_64GT, "-YY" },    { QF_THREAD_CONTEXT, "YYY" }, { QF_BLK_VQ_MAPPING, "-YY" },
		{ QF_SCSI_VQ_MAPPING, "-YY" }, { QF_IO_URING, "YYY" },    { QF_RUN_WITH_USER, "-YY" },
		{ QF_RUNAS, "Y--" },	      { QF_RUN_WITH_ASYNC, "-YY" }, { QF_EXIT_WITH_PARENT, "--Y" },
		{ QF_SANDBOX, "YYY" },      { QF_PVPANIC_PCI, "YYY" },    { QF_VHOST_VSOCK, "YYY" },
		{ QF_TPM_EMULATOR, "YYY" }, { QF_VIRTIO_SCSI, "YYY" },    { QF_STAND_IN, "YYY" },
		{ QF_PASST, "--Y" },	      { QF_TRACE_LOG, "YYY" },
	};
	size_t n = 0;

	cr_assert(eq(sz, ARRAY_SIZE(rows), QF_N), "every feature has a row");
	for (const char *const *v = fake_qemu_versions(); *v; v++)
		n++;
	cr_assert(eq(sz, ARRAY_SIZE(versions), n), "every recorded version has a column");
	for (size_t v = 0; v < ARRAY_SIZE(versions); v++) {
		struct qemu_info q = fake_qemu(versions[v]);
		AUTO_FREE char *version = xasprintf("%d.%d.%d", q.major, q.minor, q.micro);

		cr_expect_str_eq(version, versions[v], "the file has the name of its version");
		cr_expect_not_null(q.package);
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
			cr_expect(qemu_has(&q, rows[i].feature) == (rows[i].has[v] == 'Y'), "%s in %s", qemu_feature_word(rows[i].feature), versions[v]);
	}
}

/* What is told of a version in messages is true of those that are recorded. */
Test(qemu, features_are_there_since_the_version_that_messages_name)
{
	for (const char *const *v = fake_qemu_versions(); *v; v++) {
		struct qemu_info q = fake_qemu(*v);

		for (int f = 0; f < QF_N; f++) {
			const char *until = qemu_feature_until(f);
			bool since = strverscmp(*v, qemu_feature_since(f)) >= 0;

			cr_expect(qemu_has(&q, f) == (since && (!until || strverscmp(*v, until) < 0)), "%s: QEMU %s", qemu_feature_word(f), *v);
		}
	}
}

Test(qemu, machines)
{
	static const struct {
		const char *version, *machine;
		int vcpus;
	} rows[] = {
		{ "7.2", NULL, 288 },		 { "7.2", "q35", 288 },		  { "7.2", "pc-q35-2.4", 255 },	   { "7.2", "pc-q35-8.0", 0 },
		{ "10.0", "pc-q35-8.0", 288 },	 { "10.0", "pc-q35-8.1", 1024 },  { "10.0", "pc-q35-8.2", 1024 },  { "10.0", "pc-q35-9.0", 4096 },
		{ "10.0", "pc-q35-10.0", 4096 }, { "10.0", "pc-i440fx-9.0", 0 }, { "10.0", "", 0 },		   { "11.1", NULL, 4096 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct qemu_info q = fake_qemu(rows[i].version);

		cr_expect(eq(int, qemu_machine_vcpus(&q, rows[i].machine), rows[i].vcpus), "row %zu", i);
	}
}

/* --- documents that are none ---------------------------------------------------------------------------------- */

static int read_text(const char *text, struct err *e)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	int r = qemu_info_from_text(text, strlen(text), &q, e);

	cr_expect(eq(int, r == 0, q.answers != NULL), "all or nothing: %s", text);
	return r;
}

static int read_object(struct json_object *o)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct err e = { 0 };
	int r = qemu_info_from_answers(o, &q, &e);

	cr_expect(r == 0 || *e.msg);
	return r;
}

static struct json_object *copy(struct json_object *o)
{
	struct json_object *ret = NULL;

	cr_assert(eq(int, json_object_deep_copy(o, &ret, NULL), 0));
	return ret;
}

Test(qemu, damaged_texts)
{
	static const char *const bad[] = {
		"", "{", "[]", "null", "1", "{}", "\"x\"", "{\"schema\": 1}", "{\"schema\": \"1\"}", "{\"schema\": 2}", "\xff",
	};
	struct qemu_info whole = fake_qemu("7.2");
	const char *text = json_object_to_json_string(whole.answers);
	AUTO_FREE char *more = xasprintf("%s x", text), *blank = xasprintf(" %s\n\n", text);
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_expect(eq(int, read_text(bad[i], &e), -EPROTO), "%s", bad[i]);
	cr_expect(eq(int, read_text("{\"schema\": 2}", &e), -EPROTO));
	cr_expect(strstr(e.msg, "record them anew") != NULL, "%s", e.msg);
	cr_expect(eq(int, read_text(more, &e), -EPROTO));
	cr_expect(eq(int, read_text(blank, &e), 0), "%s", e.msg);
	for (size_t len = 0; len < strlen(text); len += 61) {
		AUTO_FREE char *part = xstrndup(text, len);

		cr_expect(eq(int, read_text(part, &e), -EPROTO), "the first %zu bytes", len);
	}
}

/* Each part taken away, and replaced by things of other kinds. */
Test(qemu, damaged_parts)
{
	static const char *const wrong[] = {
		"null", "5", "-1", "\"x\"", "[null]", "[[]]", "{\"x\": 5}", "{\"x\": null}", "{\"x\": [5]}", "{\"x\": {\"y\": 5}}",
	};
	struct qemu_info whole = fake_qemu("10.0");

	json_object_object_foreach(whole.answers, key, val) {
		struct json_object *less = copy(whole.answers);

		(void)val;
		json_object_object_del(less, key);
		cr_expect(eq(int, read_object(less), -EPROTO), "without %s", key);
		json_object_put(less);
		for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
			struct json_object *o = copy(whole.answers);

			json_object_object_add(o, key, json_tokener_parse(wrong[i]));
			cr_expect(eq(int, read_object(o), -EPROTO), "%s = %s", key, wrong[i]);
			json_object_put(o);
		}
	}
}

Test(qemu, damaged_machines_and_versions)
{
	static const struct {
		const char *key, *value;
	} rows[] = {
		{ "machines", "[]" },
		{ "machines", "[{\"name\": \"pc-q35-1\"}]" },
		{ "machines", "[{\"cpu-max\": 5}]" },
		{ "machines", "[{\"name\": 5, \"cpu-max\": 5}]" },
		{ "machines", "[{\"name\": \"pc-q35-1\", \"cpu-max\": -1}]" },
		{ "machines", "[{\"name\": \"pc-q35-1\", \"cpu-max\": 4294967296}]" },
		{ "machines", "[{\"name\": \"pc-q35-1\", \"cpu-max\": 5, \"alias\": 5}]" },
		{ "version", "{\"major\": 7, \"minor\": 2}" },
		{ "version", "{\"major\": 7, \"minor\": 2, \"micro\": \"1\"}" },
		{ "version", "{\"major\": 1000, \"minor\": 2, \"micro\": 1}" },
		{ "version", "{\"major\": -7, \"minor\": 2, \"micro\": 1}" },
	};
	struct qemu_info whole = fake_qemu("10.0");

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct json_object *o = copy(whole.answers);

		json_object_object_add(o, rows[i].key, json_tokener_parse(rows[i].value));
		cr_expect(eq(int, read_object(o), -EPROTO), "row %zu", i);
		json_object_put(o);
	}
}

/* --- from replies to the document ------------------------------------------------------------------------------ */

static struct json_object *replies_with(const char *schema)
{
	struct json_object *questions = qemu_questions(), *replies = json_object_new_array();

	for (size_t i = 0; i < json_object_array_length(questions); i++) {
		const char *command = json_object_get_string(json_object_object_get(json_object_array_get_idx(questions, i), "execute"));
		const char *reply = "null";

		if (strcmp(command, "query-version") == 0)
			reply = "{\"qemu\": {\"major\": 9, \"minor\": 0, \"micro\": 1}, \"package\": \"\"}";
		else if (strcmp(command, "query-machines") == 0)
			reply = "[{\"name\": \"pc-q35-10.0\", \"alias\": \"q35\", \"cpu-max\": 4096}, {\"name\": \"pc-q35-9.2\", \"cpu-max\": 4096},"
				" {\"name\": \"pc-i440fx-9.2\", \"alias\": \"pc\", \"cpu-max\": 255}, {\"cpu-max\": 255}, 5]";
		else if (strcmp(command, "query-command-line-options") == 0)
			reply = "[{\"option\": \"run-with\", \"parameters\": [{\"name\": \"user\"}, {\"name\": \"chroot\"}]},"
				" {\"option\": \"vnc\", \"parameters\": []}]";
		else if (strcmp(command, "query-qmp-schema") == 0)
			reply = schema;
		json_object_array_add(replies, json_tokener_parse(reply));
	}
	json_object_put(questions);
	return replies;
}

static const char small_schema[] =
	"[{\"name\": \"netdev_add\", \"meta-type\": \"command\", \"arg-type\": \"1\"},"
	" {\"name\": \"1\", \"members\": [{\"name\": \"id\", \"type\": \"str\"}, {\"name\": \"type\", \"type\": \"2\"}]},"
	" {\"name\": \"2\", \"meta-type\": \"enum\", \"values\": [\"user\", \"passt\"]},"
	" {\"name\": \"blockdev-add\", \"meta-type\": \"command\", \"arg-type\": \"3\"},"
	" {\"name\": \"3\", \"members\": [], \"variants\": [{\"case\": \"nbd\", \"type\": \"1\"}, {\"case\": \"file\", \"type\": \"4\"}]},"
	" {\"name\": \"4\", \"meta-type\": \"object\", \"members\": [{\"name\": \"aio\", \"type\": \"5\"}]},"
	" {\"name\": \"5\", \"meta-type\": \"enum\", \"values\": [\"threads\", \"io_uring\"]}]";

Test(qemu, document_from_replies)
{
	struct json_object *replies = replies_with(small_schema), *answers = NULL;
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct err e = { 0 };

	cr_assert(eq(int, qemu_answers_make(replies, "usage:\n-chroot dir  change\n-runaso x\n-runas\n", &answers, &e), 0), "%s", e.msg);
	cr_assert(eq(int, qemu_info_from_answers(answers, &q, &e), 0), "%s", e.msg);
	cr_expect_str_eq(json_object_to_json_string_ext(answers, JSON_C_TO_STRING_PLAIN),
			 "{\"aio\":[\"io_uring\",\"threads\"],\"machines\":[{\"cpu-max\":4096,\"name\":\"pc-q35-9.2\"},"
			 "{\"alias\":\"q35\",\"cpu-max\":4096,\"name\":\"pc-q35-10.0\"}],\"netdevs\":[\"passt\",\"user\"],"
			 "\"options\":{\"chroot\":[],\"run-with\":[\"chroot\",\"user\"],\"runas\":[]},\"properties\":{},\"schema\":1,"
			 "\"tpm\":{\"models\":[],\"types\":[]},\"trace_log\":false,\"types\":[],"
			 "\"version\":{\"major\":9,\"micro\":1,\"minor\":0,\"package\":\"\"}}");
	cr_expect_null(q.package);
	cr_expect(qemu_has(&q, QF_PASST) && qemu_has(&q, QF_IO_URING) && qemu_has(&q, QF_RUNAS) && qemu_has(&q, QF_RUN_WITH_USER));
	cr_expect(eq(int, qemu_has(&q, QF_VFIO) || qemu_has(&q, QF_RUN_WITH_ASYNC) || qemu_has(&q, QF_SANDBOX), 0));
	json_object_put(answers);
	json_object_put(replies);
}

/* An answer that every QEMU has is missing: that is no QEMU. A schema that leads nowhere only lacks features. */
Test(qemu, replies_with_holes)
{
	struct json_object *all = replies_with(small_schema), *answers = NULL;
	int refused = 0;
	struct err e = { 0 };

	for (size_t i = 0; i < json_object_array_length(all); i++) {
		struct json_object *some = copy(all);
		int r;

		json_object_array_put_idx(some, i, NULL);
		r = qemu_answers_make(some, "", &answers, &e);
		cr_expect(r == 0 || r == -EPROTO);
		refused += r < 0;
		if (r == 0)
			json_object_put(answers);
		json_object_put(some);
	}
	cr_expect(eq(int, refused, 4));
	json_object_put(all);
	for (size_t cut = 0; cut < 7; cut++) {
		struct json_object *schema = json_tokener_parse(small_schema), *replies;

		json_object_array_del_idx(schema, cut, 1);
		replies = replies_with(json_object_to_json_string(schema));
		cr_assert(eq(int, qemu_answers_make(replies, "", &answers, &e), 0), "%s", e.msg);
		cr_expect(json_object_array_length(json_object_object_get(answers, "aio")) == (cut < 3 ? 2 : 0), "cut %zu", cut);
		cr_expect(json_object_array_length(json_object_object_get(answers, "netdevs")) == (cut < 3 ? 0 : 2), "cut %zu", cut);
		json_object_put(answers);
		json_object_put(replies);
		json_object_put(schema);
	}
}

/* --- programs that are no QEMU ------------------------------------------------------------------------------ */

/* A shell script; owned. */
static char *script(const char *text)
{
	char *path = xstrdup("/tmp/gpuvm-no-qemu-XXXXXX");
	int fd = mkstemp(path);
	FILE *f = fdopen(fd, "w");

	fprintf(f, "#!/bin/sh\n%s\n", text);
	fchmod(fd, 0700);
	fclose(f);
	return path;
}

Test(qemu, programs_that_are_none)
{
	static const struct {
		const char *text, *words;
		int r;
	} rows[] = {
		{ "echo hello", "printed: hello", -EPROTO },
		{ "exit 3", "exit code 3 and printed: nothing", -EPROTO },
		{ "echo some; echo 'no such library: libx.so' >&2; exit 127", "no such library: libx.so", -EPROTO },
		{ "kill -ABRT $$", "Aborted", -EPROTO },
		/* It has our end of the socket as fd N of "-chardev socket,id=ask,fd=N". */
		{ "n=${8##*=}; eval \"echo nonsense >&$n\"; sleep 1000", "", -EPROTO },
		{ "echo waiting; sleep 1000", "printed: waiting", -ETIMEDOUT },
		{ "trap '' TERM; while :; do echo y; done", "does not answer", -ETIMEDOUT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *path = script(rows[i].text);
		struct qemu_info q = { .major = 42 };
		struct qemu_probe o = { .binary = path, .timeout_ms = rows[i].r == -ETIMEDOUT ? 300 : 20000 };
		struct err e = { 0 };

		cr_expect(eq(int, probe_qemu(&o, &q, &e), rows[i].r), "row %zu: %s", i, e.msg);
		cr_expect(strstr(e.msg, rows[i].words) && strstr(e.msg, path), "row %zu: %s", i, e.msg);
		cr_expect(eq(int, q.major, 42), "untouched on failure");
		unlink(path);
	}
}

/* What a wrapper has started ends with it: here, the writer of a pipe. */
Test(qemu, leaves_nothing_behind)
{
	AUTO_FREE char *pipe = xstrdup("/tmp/gpuvm-pipe-XXXXXX"), *text = NULL, *path = NULL;
	struct qemu_info q = { 0 };
	struct err e = { 0 };
	struct pollfd p = { .events = POLLIN };
	char byte[8];

	close(mkstemp(pipe));
	unlink(pipe);
	cr_assert(eq(int, mkfifo(pipe, 0600), 0));
	text = xasprintf("(echo here; sleep 1000) >'%s' & wait", pipe);
	path = script(text);
	p.fd = open(pipe, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = path, .timeout_ms = 3000 }, &q, &e), -ETIMEDOUT), "%s", e.msg);
	cr_assert(eq(int, (int)read(p.fd, byte, sizeof(byte)), 5), "it had begun");
	cr_assert(poll(&p, 1, 30000) == 1 && p.revents == POLLHUP, "the writer is still there: %x", (unsigned int)p.revents);
	close(p.fd);
	unlink(pipe);
	unlink(path);
}

Test(qemu, programs_that_are_nowhere)
{
	struct qemu_info q = { 0 };
	struct err e = { 0 };

	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = "/nonexistent/qemu" }, &q, &e), -ENOENT));
	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = "no-such-qemu-anywhere" }, &q, &e), -ENOENT));
	cr_assert_not_null(strstr(e.msg, "PATH"), "%s", e.msg);
}

/* --- the installed one --------------------------------------------------------------------------------------- */

Test(qemu, asks_the_installed_one)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct err e = { 0 };

	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = QEMU }, &q, &e), 0), "%s", e.msg);
	cr_assert(qemu_at_least(&q, 7, 2));
	cr_assert_str_eq(q.path, QEMU);
	cr_assert(qemu_machine_vcpus(&q, NULL) >= 288);
	cr_assert(eq(int, qemu_machine_vcpus(&q, "pc-q35-6.2"), 288));
	cr_assert(eq(int, qemu_machine_vcpus(&q, "pc-i440fx-6.2"), 0));
	cr_assert(qemu_has(&q, QF_THREAD_CONTEXT) && qemu_has(&q, QF_STAND_IN) && qemu_has(&q, QF_VIRTIO_SCSI));
	/* What it says is what is recorded of that very package. */
	for (const char *const *v = fake_qemu_versions(); *v; v++) {
		struct qemu_info recorded = fake_qemu(*v);

		if (q.package && strcmp(recorded.package, q.package) == 0)
			cr_expect(json_object_equal(recorded.answers, q.answers), "%s", *v);
	}
}

/* --- the cache --------------------------------------------------------------------------------------------------- */

/* A program with an identity that is no QEMU: an answer that comes can only have come from the cache. */
struct cached {
	char dir[64];
	char *binary, *cache, *modules, *file; /* file: the one in the cache */
	struct strv env;
	struct qemu_info fake;
};

static void copy_true(const struct cached *c)
{
	AUTO_FREE char *line = xasprintf("cp /bin/true '%s'", c->binary);

	cr_assert(eq(int, system(line), 0));
}

static void write_cache(struct cached *c)
{
	struct json_object *id = qemu_identity(c->binary, &c->env);
	AUTO_FREE char *line = xasprintf("ls %s/*.json", c->cache), *name = NULL;
	size_t size = 0;
	FILE *f;

	cr_assert_not_null(id);
	qemu_cache_write(c->cache, id, c->fake.answers);
	json_object_put(id);
	f = popen(line, "r");
	cr_assert(getline(&name, &size, f) > 0, "nothing was written");
	pclose(f);
	free(c->file);
	c->file = xstrndup(name, strcspn(name, "\n"));
}

static void cached_init(struct cached *c)
{
	*c = (struct cached){ .dir = "/tmp/gpuvm-cache-XXXXXX", .fake = fake_qemu("10.0") };
	cr_assert_not_null(mkdtemp(c->dir));
	c->binary = xasprintf("%s/qemu", c->dir);
	c->cache = xasprintf("%s/state/qemu", c->dir);
	c->modules = xasprintf("%s/modules", c->dir);
	cr_assert(eq(int, mkdir(c->modules, 0755), 0));
	strv_pushf(&c->env, "QEMU_MODULE_DIR=%s", c->modules);
	copy_true(c);
	write_cache(c);
}

static void cached_clear(struct cached *c)
{
	AUTO_FREE char *line = xasprintf("rm -r '%s'", c->dir);

	cr_assert(eq(int, system(line), 0));
	free(c->binary);
	free(c->cache);
	free(c->modules);
	free(c->file);
	strv_clear(&c->env);
}

static bool hits(struct cached *c)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct qemu_probe o = { .binary = c->binary, .env = &c->env, .cache_dir = c->cache, .read_only = true };
	struct err e = { 0 };
	int r = probe_qemu(&o, &q, &e);

	cr_assert(r == 0 || r == -EPROTO, "%s", e.msg);
	cr_assert(r < 0 || (q.features == c->fake.features && q.major == 10 && strcmp(q.path, c->binary) == 0));
	return r == 0;
}

static void set_mtime(const char *path, time_t seconds, long nanoseconds)
{
	const struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = seconds, .tv_nsec = nanoseconds } };

	cr_assert(eq(int, utimensat(AT_FDCWD, path, t, 0), 0));
}

Test(qemu_cache, holds_for_the_same_binary_alone)
{
	struct cached c;
	struct stat st;

	cached_init(&c);
	cr_assert(hits(&c));
	cr_assert(hits(&c));
	set_mtime(c.binary, 1000000000, 5);
	cr_assert(not(hits(&c)), "its time is another one");
	write_cache(&c);
	cr_assert(hits(&c));
	set_mtime(c.binary, 1000000000, 6);
	cr_assert(not(hits(&c)), "nanoseconds count");
	write_cache(&c);
	cr_assert(eq(int, stat(c.binary, &st), 0));
	unlink(c.binary);
	copy_true(&c);
	set_mtime(c.binary, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	cr_assert(not(hits(&c)), "another file of that name, size and time");
	write_cache(&c);
	cr_assert(hits(&c));
	set_mtime(c.modules, 1000000000, 7);
	cr_assert(not(hits(&c)), "modules came or went");
	write_cache(&c);
	cr_assert(hits(&c));
	strv_push(&c.env, "LD_LIBRARY_PATH=/opt/qemu/lib");
	cr_assert(not(hits(&c)), "it is started with another environment");
	cached_clear(&c);
}

Test(qemu_cache, damaged_files_are_not_believed)
{
	struct cached c;
	AUTO_FREE char *text = NULL, *other = NULL, *moved = NULL;

	cached_init(&c);
	cr_assert(eq(int, read_text_file(c.file, 1 << 20, &text), 0));
	for (size_t len = 0; len < strlen(text); len += 211) {
		cr_assert(eq(int, write_file_atomic(c.file, text, len, 0644), 0));
		cr_assert(not(hits(&c)), "%zu bytes of %zu", len, strlen(text));
	}
	other = xstrdup(text);
	memcpy(strstr(other, "\"schema\":1"), "\"schema\":7", 10);
	cr_assert(eq(int, write_file_atomic(c.file, other, strlen(other), 0644), 0));
	cr_assert(not(hits(&c)), "another schema");
	memcpy(other, text, strlen(text));
	memcpy(strstr(other, "\"asked\":\""), "\"asked\":\"xx", 11);
	cr_assert(eq(int, write_file_atomic(c.file, other, strlen(other), 0644), 0));
	cr_assert(not(hits(&c)), "other things were asked");
	cr_assert(eq(int, write_file_atomic(c.file, text, strlen(text), 0644), 0));
	cr_assert(hits(&c), "the original is believed again");
	chmod(c.file, 0666);
	cr_assert(not(hits(&c)), "anybody can have written it");
	chmod(c.file, 0644);
	moved = xasprintf("%s/elsewhere.json", c.dir);
	cr_assert(eq(int, rename(c.file, moved), 0));
	cr_assert(eq(int, symlink(moved, c.file), 0));
	cr_assert(not(hits(&c)), "a link may lead anywhere");
	unlink(c.file);
	cr_assert(eq(int, mkdir(c.file, 0755), 0));
	cr_assert(not(hits(&c)), "a folder");
	cached_clear(&c);
}

/* The real one: asked once, then read; and a folder that cannot be written is no error. */
Test(qemu_cache, of_the_installed_one)
{
	char dir[] = "/tmp/gpuvm-cache-XXXXXX";
	AUTO_FREE char *cache = xasprintf("%s/qemu", mkdtemp(dir)), *line = xasprintf("rm -r '%s'", dir);
	AUTO_FREE char *file = xasprintf("%s/file", dir), *below = xasprintf("%s/file/x/qemu", dir);
	struct qemu_info first = { 0 }, second = { 0 }, none = { 0 };
	struct json_object *id = qemu_identity(QEMU, NULL);
	struct err e = { 0 };

	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = QEMU, .cache_dir = cache, .read_only = true }, &first, &e), 0), "%s", e.msg);
	cr_assert(access(cache, F_OK) < 0, "a dry run writes nothing");
	qemu_info_clear(&first);
	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = QEMU, .cache_dir = cache }, &first, &e), 0), "%s", e.msg);
	cr_assert(qemu_cache_read(cache, id, &second));
	cr_assert(json_object_equal(first.answers, second.answers));
	cr_assert(eq(int, write_file_atomic(file, "x", 1, 0644), 0));
	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = QEMU, .cache_dir = below }, &none, &e), 0), "%s", e.msg);
	cr_assert(none.features == first.features);
	json_object_put(id);
	qemu_info_clear(&first);
	qemu_info_clear(&second);
	qemu_info_clear(&none);
	cr_assert(eq(int, system(line), 0));
}

/* It says nothing about the program that it starts. */
Test(qemu_cache, scripts_are_asked_each_time)
{
	AUTO_FREE char *path = script("exec " QEMU " \"$@\"");
	char dir[] = "/tmp/gpuvm-cache-XXXXXX";
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct err e = { 0 };

	cr_assert_not_null(mkdtemp(dir));
	cr_assert(eq(int, probe_qemu(&(struct qemu_probe){ .binary = path, .cache_dir = dir }, &q, &e), 0), "%s", e.msg);
	cr_assert(eq(int, rmdir(dir), 0), "nothing was written");
	unlink(path);
}

/* --- plans ---------------------------------------------------------------------------------------------------------- */

struct planned {
	struct vm_config vm;
	struct plan p;
	struct problems ps;
	int r;
};

static struct planned plan_with(struct qemu_info *q, const char *text, bool fake_devices)
{
	struct planned ret = { 0 };
	struct topology host = { 0 };
	char *root = mkhost_fixture("xe9680-h200");
	struct plan_request req = {
		.vm = &ret.vm, .host = &host, .qemu = q, .rundir = "/run/gpuvm/x", .statedir = "/var/lib/gpuvm", .fake_devices = fake_devices
	};
	struct err e = { 0 };

	cr_assert(root && probe_host(root, &host, &e) == 0, "%s", e.msg);
	mkhost_remove(root);
	cr_assert(eq(int, config_parse("x.ini", text, strlen(text), NULL, &ret.vm, &ret.ps), 0), "%s", text);
	ret.r = plan_make(&req, &ret.p, &ret.ps);
	topology_clear(&host);
	return ret;
}

static void planned_clear(struct planned *p)
{
	plan_clear(&p->p);
	config_clear(&p->vm);
	problems_clear(&p->ps);
}

static int count_args(const struct plan *p, const char *text)
{
	int n = 0;

	for (size_t i = 0; i < p->n_args; i++)
		n += strcmp(p->args[i].flag, text) == 0 || (p->args[i].value && strstr(p->args[i].value, text));
	return n;
}

static bool noted(const struct plan_note *v, size_t n, const char *code_or_what, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if ((v[i].code ? strcmp(v[i].code, code_or_what) == 0 : strcmp(v[i].what, code_or_what) == 0) && strstr(v[i].text, text))
			return true;
	return false;
}

#define TWO_GPUS "[vm]\nname = x\naccel = kvm\n[place]\ngpus = 2\nnics = per-gpu\n[pcie]\ntopology = root-port\n"

/* The same definition with every recorded QEMU. */
Test(qemu, plans_differ_where_the_answers_do)
{
	static const struct {
		const char *version;
		bool fast_links, slow_bars;
	} rows[] = { { "7.2.22", false, true }, { "10.0.13", true, false }, { "11.1.3", true, false } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct qemu_info q = fake_qemu(rows[i].version);
		struct planned r = plan_with(&q, TWO_GPUS, false);

		cr_assert(eq(int, r.r, 0), "%s: %s", rows[i].version, r.ps.n ? r.ps.v[0].message : "");
		cr_expect_str_eq(r.p.qemu_version, rows[i].version);
		cr_expect(eq(int, count_args(&r.p, "x-speed=32") > 0, rows[i].fast_links), "%s", rows[i].version);
		cr_expect(noted(r.p.reasons, r.p.n_reasons, "links", "since 9.0") != rows[i].fast_links, "%s", rows[i].version);
		cr_expect(noted(r.p.warnings, r.p.n_warnings, "qemu-slow-bars", "256 GiB") == rows[i].slow_bars, "%s", rows[i].version);
		cr_expect(count_args(&r.p, "-sandbox") == 1 && count_args(&r.p, "thread-context,") == 1, "%s", rows[i].version);
		planned_clear(&r);
	}
}

/* What is asked for and not there is refused; what would only be liked is left out, with a reason. */
Test(qemu, builds_without_something)
{
	static const struct {
		enum qemu_feature without;
		bool fake;
		const char *more, *code, *words; /* code NULL: a reason about `words` */
	} rows[] = {
		{ QF_VFIO, false, "", "qemu-lacks", "device vfio-pci" },
		{ QF_VFIO, true, "", NULL, NULL },
		{ QF_STAND_IN, true, "", "qemu-lacks", "ivshmem-plain" },
		{ QF_STAND_IN, false, "", NULL, NULL },
		{ QF_SANDBOX, false, "[security]\nsandbox = on\n", "qemu-lacks", "libseccomp" },
		{ QF_SANDBOX, false, "[security]\nsandbox = off\n", NULL, NULL },
		{ QF_SANDBOX, false, "", NULL, "sandbox" },
		{ QF_THREAD_CONTEXT, false, "", NULL, "memory" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *text = xasprintf("%s%s", TWO_GPUS, rows[i].more);
		struct qemu_info q = fake_qemu("10.0");
		struct planned r;

		q.features &= ~(UINT64_C(1) << rows[i].without);
		r = plan_with(&q, text, rows[i].fake);
		if (rows[i].code) {
			cr_assert(r.r == -EINVAL && r.ps.n == 1, "row %zu", i);
			cr_expect_str_eq(r.ps.v[0].code, rows[i].code);
			cr_expect(strstr(r.ps.v[0].message, rows[i].words) && strstr(r.ps.v[0].hint, qemu_feature_since(rows[i].without)), "row %zu: %s (%s)", i,
				  r.ps.v[0].message, r.ps.v[0].hint);
		} else {
			cr_assert(r.r == 0, "row %zu: %s", i, r.ps.n ? r.ps.v[0].message : "");
			cr_expect(rows[i].words == NULL || noted(r.p.reasons, r.p.n_reasons, rows[i].words, "does not have"), "row %zu", i);
			cr_expect(rows[i].without != QF_SANDBOX || count_args(&r.p, "-sandbox") == 0, "row %zu", i);
			cr_expect(rows[i].without != QF_THREAD_CONTEXT || (count_args(&r.p, "thread-context") == 0 && count_args(&r.p, "prealloc-context") == 0),
				  "row %zu", i);
		}
		planned_clear(&r);
	}
}

Test(qemu, machine_types)
{
	static const struct {
		const char *version, *machine, *hint; /* hint NULL: it is there */
	} rows[] = {
		{ "7.2", "q35", NULL },
		{ "7.2", "pc-q35-7.1", NULL },
		{ "7.2", "pc-q35-8.0", "it has q35, pc-q35-7.2, pc-q35-7.1, pc-q35-7.0, pc-q35-6.2, ..." },
		{ "10.0", "pc-q35-8.0", NULL },
		{ "10.0", "pc-q35-11.0", "it has q35, pc-q35-10.0, pc-q35-9.2" },
		{ "10.0", "pc-q35-10.0,accel=tcg", "it has q35" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *text = xasprintf("[vm]\nname = x\nmachine = %s\n[place]\ngpus = 1\n", rows[i].machine);
		struct qemu_info q = fake_qemu(rows[i].version);
		struct planned r = plan_with(&q, text, false);

		if (rows[i].hint) {
			cr_assert(r.r == -EINVAL && r.ps.n == 1, "row %zu", i);
			cr_expect_str_eq(r.ps.v[0].code, "machine-unknown");
			cr_expect(strstr(r.ps.v[0].hint, rows[i].hint) != NULL, "row %zu: %s", i, r.ps.v[0].hint);
			cr_expect(eq(int, r.ps.v[0].line, 3));
		} else {
			cr_expect(r.r == 0, "row %zu: %s", i, r.ps.n ? r.ps.v[0].message : "");
		}
		planned_clear(&r);
	}
}
