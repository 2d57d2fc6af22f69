/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/qmp.h"

#define GREETING                                                                                        \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "              \
	"\"package\": \"Debian\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define EVENT_STOP "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n"
#define EVENT_DOWN "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}"

/* --- the stream ------------------------------------------------------------------------------------------- */

static void assert_event(struct qmp *q, const char *want)
{
	struct json_object *ev = qmp_next_event(q), *name = NULL;

	cr_assert_not_null(ev);
	json_object_object_get_ex(ev, "event", &name);
	cr_assert_str_eq(json_object_get_string(name), want);
	json_object_put(ev);
}

/* What the stream below must give, however it was cut. */
static void assert_stream(struct qmp *q)
{
	struct json_object *value = NULL;
	struct err e = { 0 };

	cr_assert(zero(int, qmp_take_greeting(q, &e)), "%s", e.msg);
	cr_assert_str_eq(q->version, "7.2.22");
	cr_assert(zero(int, qmp_take_reply(q, 1, &value, &e)));
	json_object_put(value);
	cr_assert(eq(int, qmp_take_reply(q, 2, &value, &e), -EREMOTEIO));
	cr_assert_str_eq(e.msg, "Device 'é}{' not found");
	cr_assert(eq(int, qmp_take_reply(q, 3, &value, &e), -EAGAIN));
	assert_event(q, "STOP");
	assert_event(q, "SHUTDOWN");
	cr_assert(zero(ptr, qmp_next_event(q)));
}

static const char stream[] = GREETING EVENT_STOP "{\"return\": {\"a\": [1, -2.5e3, true, null, \"\\u00e9\\\"\"]}, \"id\": 1}"
	EVENT_DOWN "\n\n  {\"id\": 2, \"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'é}{' not found\"}}";

Test(qmp_stream, cut_at_every_position, .timeout = 60)
{
	for (size_t cut = 0; cut < sizeof(stream); cut++) {
		struct qmp q;
		struct err e = { 0 };

		qmp_init(&q);
		cr_assert(zero(int, qmp_feed(&q, stream, cut, &e)), "%zu: %s", cut, e.msg);
		cr_assert(zero(int, qmp_feed(&q, stream + cut, sizeof(stream) - 1 - cut, &e)), "%zu: %s", cut, e.msg);
		assert_stream(&q);
		qmp_reset(&q);
	}
}

Test(qmp_stream, byte_by_byte, .timeout = 60)
{
	struct qmp q;
	struct err e = { 0 };

	qmp_init(&q);
	for (size_t i = 0; i < sizeof(stream) - 1; i++)
		cr_assert(zero(int, qmp_feed(&q, stream + i, 1, &e)), "%zu: %s", i, e.msg);
	assert_stream(&q);
	qmp_reset(&q);
}

Test(qmp_stream, garbage_is_refused, .timeout = 60)
{
	static const char *const rows[] = {
		"x", "12 ", "\"return\"", "[{\"return\": 1}]", "null", "{}", "{\"a\": 1}", "{]", "{\"return\" 1}",
		"{\"return\": 1,}", "/* c */ {\"return\": 1}", "{\"return\": 1}}",
		"{\"return\": tru}", "{\"return\": \"\\q\"}", "\xff\xfe", "qemu-system-x86_64: error\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct qmp q;
		struct err e = { 0 };

		qmp_init(&q);
		cr_assert(eq(int, qmp_feed(&q, rows[i], strlen(rows[i]), &e), -EPROTO), "row %zu: '%s'", i, rows[i]);
		cr_assert(zero(int, strncmp(e.msg, "QMP: ", 5)));
		qmp_reset(&q);
	}
}

Test(qmp_stream, a_zero_byte_is_refused, .timeout = 60)
{
	static const char text[] = "{\"return\":\0 1}";
	struct qmp q;
	struct err e = { 0 };

	qmp_init(&q);
	cr_assert(eq(int, qmp_feed(&q, text, sizeof(text) - 1, &e), -EPROTO));
	qmp_reset(&q);
}

/* {"return": [[[...]]]} with @depth levels in all. */
static int feed_deep(int depth)
{
	struct qmp q;
	struct err e = { 0 };
	int r;

	qmp_init(&q);
	r = qmp_feed(&q, "{\"return\": ", 11, &e);
	for (int i = 1; i < depth && r == 0; i++)
		r = qmp_feed(&q, "[", 1, &e);
	for (int i = 1; i < depth && r == 0; i++)
		r = qmp_feed(&q, "]", 1, &e);
	if (r == 0)
		r = qmp_feed(&q, "}", 1, &e);
	qmp_reset(&q);
	return r;
}

Test(qmp_stream, depth_has_a_limit, .timeout = 60)
{
	cr_assert(zero(int, feed_deep(QMP_DEPTH_MAX - 1)));
	cr_assert(eq(int, feed_deep(QMP_DEPTH_MAX + 1), -EPROTO));
	cr_assert(eq(int, feed_deep(1000000), -EPROTO));
}

Test(qmp_stream, size_has_a_limit, .timeout = 120)
{
	AUTO_FREE char *chunk = xcalloc(1, 1 << 20);
	struct qmp q;
	struct err e = { 0 };
	size_t fed = 0;
	int r;

	memset(chunk, ' ', 1 << 20);
	qmp_init(&q);
	r = qmp_feed(&q, "{\"return\": ", 11, &e);
	for (; r == 0 && fed < 2 * QMP_MESSAGE_MAX; fed += 1 << 20)
		r = qmp_feed(&q, chunk, 1 << 20, &e);
	cr_assert(eq(int, r, -EPROTO));
	cr_assert(ge(sz, fed, QMP_MESSAGE_MAX));
	cr_assert(le(sz, fed, QMP_MESSAGE_MAX + (2 << 20)));

	/* Between messages there is no message: blanks are no load. */
	cr_assert(zero(int, qmp_feed(&q, chunk, 1 << 20, &e)));
	cr_assert(zero(sz, q.partial));
	/* A large one below the limit is fine. */
	memset(chunk, 'x', 1 << 20);
	cr_assert(zero(int, qmp_feed(&q, "{\"id\": 7, \"return\": \"", 21, &e)));
	for (int i = 0; i < 8; i++)
		cr_assert(zero(int, qmp_feed(&q, chunk, 1 << 20, &e)));
	cr_assert(zero(int, qmp_feed(&q, "\"}", 2, &e)), "%s", e.msg);
	cr_assert(eq(sz, q.n_replies, 1));
	qmp_reset(&q);
}

Test(qmp_stream, the_queue_has_a_limit, .timeout = 60)
{
	struct qmp q;
	struct err e = { 0 };
	int r = 0, n = 0;

	qmp_init(&q);
	for (; r == 0 && n <= QMP_QUEUE_MAX; n++)
		r = qmp_feed(&q, EVENT_DOWN, strlen(EVENT_DOWN), &e);
	cr_assert(eq(int, r, -EPROTO));
	cr_assert(eq(int, n, QMP_QUEUE_MAX + 1));
	assert_event(&q, "SHUTDOWN");
	qmp_reset(&q);
}

Test(qmp_stream, no_greeting, .timeout = 60)
{
	static const char *const rows[] = {
		"{\"return\": {}}", "{\"QMP\": 1}", "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": \"2\"}}}}",
		"{\"QMP\": {\"version\": {\"qemu\": {\"major\": -7, \"minor\": 2, \"micro\": 0}}}}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct qmp q;
		struct err e = { 0 };

		qmp_init(&q);
		cr_assert(eq(int, qmp_take_greeting(&q, &e), -EAGAIN));
		cr_assert(zero(int, qmp_feed(&q, rows[i], strlen(rows[i]), &e)));
		cr_assert(eq(int, qmp_take_greeting(&q, &e), -EPROTO));
		qmp_reset(&q);
	}
}

Test(qmp_stream, replies_go_by_id, .timeout = 60)
{
	static const char text[] = "{\"return\": \"late\", \"id\": 4} {\"return\": 5, \"id\": \"5\"} {\"return\": 6}"
		"{\"return\": \"mine\", \"id\": 5} {\"error\": {\"desc\": \"JSON parse error\"}} {\"error\": 3, \"id\": 7}";
	struct json_object *value = NULL;
	struct qmp q;
	struct err e = { 0 };

	qmp_init(&q);
	cr_assert(zero(int, qmp_feed(&q, text, strlen(text), &e)), "%s", e.msg);
	cr_assert(zero(int, qmp_take_reply(&q, 5, &value, &e)));
	cr_assert_str_eq(json_object_get_string(value), "mine");
	json_object_put(value);
	cr_assert(eq(int, qmp_take_reply(&q, 6, &value, &e), -EREMOTEIO));
	cr_assert_str_eq(e.msg, "JSON parse error");
	cr_assert(eq(int, qmp_take_reply(&q, 7, &value, &e), -EPROTO));
	qmp_reset(&q);
}

/* --- replies as structs ----------------------------------------------------------------------------------- */

static struct json_object *json(const char *text)
{
	struct json_object *o = json_tokener_parse(text);

	cr_assert_not_null(o, "bad JSON in the test: %s", text);
	return o;
}

Test(qmp_parse, vcpus, .timeout = 10)
{
	struct json_object *o = json("[{\"cpu-index\": 1, \"thread-id\": 22, \"qom-path\": \"/x\", \"props\": {\"core-id\": 3, "
		"\"thread-id\": 1, \"socket-id\": 2, \"node-id\": 4}}, {\"cpu-index\": 0, \"thread-id\": 21}]");
	AUTO_FREE struct qmp_vcpu *v = NULL;
	struct err e = { 0 };
	size_t n = 0;

	cr_assert(zero(int, qmp_parse_vcpus(o, &v, &n, &e)), "%s", e.msg);
	cr_assert(eq(sz, n, 2));
	cr_assert(eq(int, v[0].index, 0));
	cr_assert(eq(int, v[0].tid, 21));
	cr_assert(eq(int, v[0].node, -1));
	cr_assert(eq(int, v[1].tid, 22));
	cr_assert(eq(int, v[1].socket, 2));
	cr_assert(eq(int, v[1].core, 3));
	cr_assert(eq(int, v[1].thread, 1));
	cr_assert(eq(int, v[1].node, 4));
	json_object_put(o);
}

Test(qmp_parse, nonsense_is_refused, .timeout = 10)
{
	static const char *const rows[] = {
		"{}", "1", "[1]", "[{}]", "[[]]", "[null]",
		"[{\"cpu-index\": 0, \"thread-id\": 0, \"id\": \"a\"}]",
		"[{\"cpu-index\": -1, \"thread-id\": -5, \"id\": \"a\"}]",
		"[{\"cpu-index\": 0, \"thread-id\": 4294967297, \"id\": \"a\"}]",
		"[{\"cpu-index\": \"0\", \"thread-id\": \"5\", \"id\": 7}]",
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct json_object *o = json(rows[i]);
		struct qmp_vcpu *v = NULL;
		struct qmp_iothread *t = NULL;
		struct err e = { 0 };
		char buf[32];
		size_t n = 0;

		cr_assert(eq(int, qmp_parse_vcpus(o, &v, &n, &e), -EPROTO), "row %zu", i);
		cr_assert(eq(int, qmp_parse_iothreads(o, &t, &n, &e), -EPROTO), "row %zu", i);
		cr_assert(eq(int, qmp_parse_status(o, buf, &e), -EPROTO), "row %zu", i);
		json_object_put(o);
	}
}

Test(qmp_parse, iothreads_and_status, .timeout = 10)
{
	struct json_object *o = json("[{\"id\": \"io0\", \"thread-id\": 9, \"poll-max-ns\": 32768}]");
	struct json_object *status = json("{\"status\": \"prelaunch\", \"running\": false}");
	struct json_object *long_one = json("{\"status\": \"0123456789012345678901234567890123456789\"}");
	AUTO_FREE struct qmp_iothread *v = NULL;
	struct err e = { 0 };
	char buf[32] = "";
	size_t n = 0;

	cr_assert(zero(int, qmp_parse_iothreads(o, &v, &n, &e)));
	cr_assert(eq(sz, n, 1));
	cr_assert_str_eq(v[0].id, "io0");
	cr_assert(eq(int, v[0].tid, 9));
	cr_assert(zero(int, qmp_parse_status(status, buf, &e)));
	cr_assert_str_eq(buf, "prelaunch");
	cr_assert(eq(int, qmp_parse_status(long_one, buf, &e), -EPROTO));
	json_object_put(o);
	json_object_put(status);
	json_object_put(long_one);
}

/* Root port, switch, endpoint: shortened from QEMU 7.2. */
static const char pci_reply[] =
	"[{\"bus\": 0, \"devices\": ["
	"{\"bus\": 0, \"slot\": 0, \"function\": 0, \"class_info\": {\"class\": 1536, \"desc\": \"Host bridge\"}, "
	"\"id\": {\"device\": 10688, \"vendor\": 32902}, \"qdev_id\": \"\", \"regions\": []},"
	"{\"bus\": 0, \"slot\": 2, \"function\": 0, \"class_info\": {\"class\": 1540}, \"qdev_id\": \"rp0\", \"regions\": "
	"[{\"bar\": 0, \"type\": \"memory\", \"address\": -1, \"size\": 4096, \"prefetch\": false}], \"pci_bridge\": {\"bus\": "
	"{\"number\": 0, \"secondary\": 1, \"subordinate\": 3}, \"devices\": ["
	"{\"bus\": 1, \"slot\": 0, \"function\": 0, \"class_info\": {\"class\": 1540}, \"qdev_id\": \"up0\", \"regions\": [], "
	"\"pci_bridge\": {\"bus\": {\"secondary\": 2}, \"devices\": ["
	"{\"bus\": 2, \"slot\": 1, \"function\": 3, \"class_info\": {\"class\": 770}, \"qdev_id\": \"gpu0\", \"regions\": ["
	"{\"bar\": 0, \"type\": \"memory\", \"address\": 4261412864, \"size\": 16777216},"
	"{\"bar\": 1, \"type\": \"memory\", \"address\": 274877906944, \"size\": 137438953472, \"prefetch\": true},"
	"{\"bar\": 3, \"type\": \"memory\", \"address\": 18446744073709551615, \"size\": 33554432},"
	"{\"bar\": 4, \"type\": \"memory\", \"size\": 4096}, {\"bar\": 5, \"type\": \"io\", \"address\": 49152, \"size\": 128},"
	"{\"bar\": 6, \"type\": \"memory\", \"address\": 1, \"size\": 65536}]}]}}]}},"
	"{\"bus\": 0, \"slot\": 31, \"function\": 0, \"class_info\": {\"class\": 1537}, \"regions\": []}]},"
	"{\"bus\": 64, \"devices\": []}]";

Test(qmp_parse, pci, .timeout = 10)
{
	struct json_object *o = json(pci_reply);
	AUTO_FREE struct qmp_pci *v = NULL;
	struct err e = { 0 };
	size_t n = 0;

	cr_assert(zero(int, qmp_parse_pci(o, &v, &n, &e)), "%s", e.msg);
	cr_assert(eq(sz, n, 5));
	cr_assert(eq(int, v[0].parent, -1));
	cr_assert_str_eq(v[0].qdev_id, "");
	cr_assert_str_eq(v[1].qdev_id, "rp0");
	cr_assert(eq(int, v[1].secondary_bus, 1));
	cr_assert(eq(u64, v[1].bars[0].address, UINT64_MAX));
	cr_assert(eq(u32, v[1].class_code, 0x0604));
	cr_assert_str_eq(v[2].qdev_id, "up0");
	cr_assert(eq(int, v[2].parent, 1));
	cr_assert_str_eq(v[3].qdev_id, "gpu0");
	cr_assert(eq(int, v[3].parent, 2));
	cr_assert(eq(int, v[3].slot, 1));
	cr_assert(eq(int, v[3].function, 3));
	cr_assert(eq(int, v[3].secondary_bus, -1));
	cr_assert(eq(int, v[3].n_bars, 5)); /* not the ROM */
	cr_assert(eq(u64, v[3].bars[0].address, 0xfe000000));
	cr_assert(eq(u64, v[3].bars[1].bytes, UINT64_C(128) << 30));
	cr_assert(eq(u64, v[3].bars[2].address, UINT64_MAX));
	cr_assert(eq(u64, v[3].bars[3].address, UINT64_MAX));
	cr_assert(v[3].bars[3].memory);
	cr_assert(not(v[3].bars[4].memory));
	cr_assert(eq(int, v[4].parent, -1));
	cr_assert(eq(int, v[4].slot, 31));
	json_object_put(o);
}

Test(qmp_parse, pci_nonsense, .timeout = 10)
{
	static const char *const rows[] = {
		"{}", "[{\"devices\": [1]}]", "[{\"devices\": [{\"bus\": 256, \"slot\": 0, \"function\": 0}]}]",
		"[{\"devices\": [{\"bus\": 0, \"slot\": 0, \"function\": 0, \"class_info\": {\"class\": 65536}}]}]",
		("[{\"devices\": [{\"bus\": 0, \"slot\": 0, \"function\": 0, \"class_info\": {\"class\": 1}, \"qdev_id\": "
		 "\"0123456789012345678901234567890123456789012345678901234567890123456789\"}]}]"),
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct json_object *o = json(rows[i]);
		struct qmp_pci *v = NULL;
		struct err e = { 0 };
		size_t n = 0;

		cr_assert(eq(int, qmp_parse_pci(o, &v, &n, &e), -EPROTO), "row %zu", i);
		json_object_put(o);
	}
}

/* --- the socket: a child that plays QEMU ---------------------------------------------------------------- */

struct peer {
	char dir[64], path[96];
	int listen_fd;
	pid_t pid;
	int pidfd;
};

/* What the child does with the connection that it has accepted. */
typedef void (*peer_main)(int fd);

static void say(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0)
		_exit(9);
}

/* Read one command and answer: commands come without a newline, but one at a time. */
static bool answer(int fd, const char *before, const char *value)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf) - 1);
	const char *id;

	if (n <= 0)
		return false;
	buf[n] = '\0';
	id = strstr(buf, "\"id\":");
	if (!id)
		_exit(8);
	say(fd, before);
	dprintf(fd, "{\"return\": %s, \"id\": %d}\r\n", value, atoi(id + 5));
	return true;
}

static void peer_start(struct peer *p, struct qmp *q, peer_main run)
{
	struct err e = { 0 };

	snprintf(p->dir, sizeof(p->dir), "/tmp/gpuvm-qmp-XXXXXX");
	cr_assert_not_null(mkdtemp(p->dir));
	snprintf(p->path, sizeof(p->path), "%s/control.sock", p->dir);
	p->listen_fd = qmp_listen(p->path, &e);
	cr_assert(ge(int, p->listen_fd, 0), "%s", e.msg);
	p->pid = fork();
	if (p->pid == 0) {
		int fd;

		alarm(60); /* should the test die */
		fd = accept(p->listen_fd, NULL, NULL);
		run(fd);
		_exit(0);
	}
	p->pidfd = pidfd_open(p->pid, 0);
	/* We still hold the listening socket, as the launcher does. */
	cr_assert(zero(int, qmp_connect(p->path, p->pidfd, q, &e)), "%s", e.msg);
}

static void peer_stop(struct peer *p, struct qmp *q)
{
	qmp_close(q);
	close(p->listen_fd);
	pidfd_send_signal(p->pidfd, SIGKILL, NULL, 0);
	waitpid(p->pid, NULL, 0);
	close(p->pidfd);
	unlink(p->path);
	rmdir(p->dir);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void plays_well(int fd)
{
	say(fd, GREETING);
	answer(fd, "", "{}");
	answer(fd, EVENT_STOP EVENT_DOWN, "{\"status\": \"running\"}");
	answer(fd, "{\"return\": \"stale\", \"id\": 1}", "[{\"id\": \"io0\", \"thread-id\": 77}]");
	say(fd, EVENT_STOP);
	answer(fd, "", "{}");
}

Test(qmp_socket, events_come_between_replies, .timeout = 60)
{
	AUTO_FREE struct qmp_iothread *io = NULL;
	struct peer p;
	struct qmp q;
	struct err e = { 0 };
	char status[32];
	size_t n;
	int r;

	peer_start(&p, &q, plays_well);
	cr_assert(zero(int, qmp_handshake(&q, 30000, NULL, NULL, &e)), "%s", e.msg);
	cr_assert_str_eq(q.version, "7.2.22");
	cr_assert(zero(int, qmp_query_status(&q, status, &e)), "%s", e.msg);
	cr_assert_str_eq(status, "running");
	cr_assert(zero(int, qmp_query_iothreads(&q, &io, &n, &e)), "%s", e.msg);
	cr_assert(eq(int, io[0].tid, 77));
	cr_assert(zero(int, qmp_command(&q, "quit", NULL, 30000, NULL, &e)), "%s", e.msg);
	assert_event(&q, "STOP");
	assert_event(&q, "SHUTDOWN");
	assert_event(&q, "STOP");

	/* The child ends: the end of the connection is seen, and every further command fails at once. */
	do {
		struct pollfd pfd = { .fd = q.fd, .events = POLLIN };

		poll(&pfd, 1, 30000);
		r = qmp_read(&q, &e);
	} while (r == 0);
	cr_assert(eq(int, r, -ECONNRESET));
	cr_assert(q.closed);
	cr_assert(eq(int, qmp_command(&q, "cont", NULL, 30000, NULL, &e), -ESRCH), "%s", e.msg);
	peer_stop(&p, &q);
}

static void exits_at_once(int fd)
{
	(void)fd;
	_exit(1);
}

static void exits_unaccepted(void)
{
	_exit(1);
}

Test(qmp_socket, a_child_that_exits_before_the_greeting, .timeout = 60)
{
	uint64_t start = now_ms();
	struct peer p;
	struct qmp q;
	struct err e = { 0 };

	peer_start(&p, &q, exits_at_once);
	cr_assert(eq(int, qmp_handshake(&q, 60000, NULL, NULL, &e), -ESRCH), "%s", e.msg);
	cr_assert(lt(u64, now_ms() - start, 20000));
	peer_stop(&p, &q);
}

/* QEMU fails while it parses its options: it never accepts, and our own listening socket keeps the connection. */
Test(qmp_socket, a_child_that_never_accepts, .timeout = 60)
{
	uint64_t start = now_ms();
	struct err e = { 0 };
	struct qmp q;
	char dir[] = "/tmp/gpuvm-qmp-XXXXXX", path[64];
	int listen_fd, pidfd;
	pid_t pid;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	listen_fd = qmp_listen(path, &e);
	pid = fork();
	if (pid == 0)
		exits_unaccepted();
	pidfd = pidfd_open(pid, 0);
	cr_assert(zero(int, qmp_connect(path, pidfd, &q, &e)), "%s", e.msg);
	cr_assert(eq(int, qmp_handshake(&q, 60000, NULL, NULL, &e), -ESRCH), "%s", e.msg);
	cr_assert(lt(u64, now_ms() - start, 20000));
	waitpid(pid, NULL, 0);
	qmp_close(&q);
	close(pidfd);
	close(listen_fd);
	unlink(path);
	rmdir(dir);
}

static void is_silent(int fd)
{
	char c;

	while (read(fd, &c, 1) > 0)
		;
}

static void count_calls(void *ctx)
{
	++*(int *)ctx;
}

/* Answers each command, in whatever pieces they come. */
static void answers_commands(int fd)
{
	char buf[4096];
	size_t len = 0;
	int id = 0;

	say(fd, GREETING);
	for (;;) {
		ssize_t n = read(fd, buf + len, sizeof(buf) - 1 - len);
		char *at = buf, *end;

		if (n <= 0)
			_exit(0);
		len += (size_t)n;
		buf[len] = '\0';
		for (; (end = strchr(at, '}')); at = end + 1) {
			char name[32];

			if (sscanf(at, "{\"execute\":\"%31[^\"]\",\"id\":%d", name, &id) != 2)
				_exit(9);
			if (strcmp(name, "query-cpus-fast") == 0)
				dprintf(fd, "{\"return\": [{\"cpu-index\": 0, \"thread-id\": %d}], \"id\": %d}\r\n", 100 + id, id);
			else
				dprintf(fd, "{\"return\": {\"status\": \"running\"}, \"id\": %d}\r\n", id);
		}
		len = strlen(at);
		memmove(buf, at, len + 1);
	}
}

static int first_vcpu(struct qmp *q)
{
	AUTO_FREE struct qmp_vcpu *v = NULL;
	struct err e = { 0 };
	size_t n = 0;

	cr_assert(zero(int, qmp_query_vcpus(q, &v, &n, &e)), "%s", e.msg);
	cr_assert(eq(sz, n, 1));
	return v[0].tid;
}

/* The thread is 100 and the command's number: 2 came with the handshake. */
Test(qmp_socket, asked_ahead, .timeout = 60)
{
	char status[32];
	struct peer p;
	struct qmp q;
	struct err e = { 0 };

	peer_start(&p, &q, answers_commands);
	q.ahead = "query-cpus-fast";
	cr_assert(zero(int, qmp_handshake(&q, 30000, NULL, NULL, &e)), "%s", e.msg);
	cr_assert(eq(int, first_vcpu(&q), 102));
	cr_assert(eq(int, first_vcpu(&q), 103));
	peer_stop(&p, &q);
	/* Another command comes first: that reply has gone, and is asked for once more. */
	peer_start(&p, &q, answers_commands);
	q.ahead = "query-cpus-fast";
	cr_assert(zero(int, qmp_handshake(&q, 30000, NULL, NULL, &e)), "%s", e.msg);
	cr_assert(zero(int, qmp_query_status(&q, status, &e)), "%s", e.msg);
	cr_assert_str_eq(status, "running");
	cr_assert(eq(int, first_vcpu(&q), 104));
	peer_stop(&p, &q);
}

Test(qmp_socket, silence_hits_the_deadline, .timeout = 60)
{
	uint64_t start = now_ms();
	struct peer p;
	struct qmp q;
	struct err e = { 0 };
	int calls = 0;

	peer_start(&p, &q, is_silent);
	cr_assert(eq(int, qmp_handshake(&q, 50, NULL, NULL, &e), -ETIMEDOUT), "%s", e.msg);
	cr_assert(eq(int, qmp_handshake(&q, 2500, count_calls, &calls, &e), -ETIMEDOUT), "%s", e.msg);
	cr_assert(ge(u64, now_ms() - start, 2550));
	cr_assert(ge(int, calls, 1));
	cr_assert(le(int, calls, 2));
	cr_assert(eq(int, qmp_command(&q, "cont", NULL, 50, NULL, &e), -ETIMEDOUT));
	cr_assert_str_eq(e.msg, "QMP command 'cont': no answer within 50 ms");
	peer_stop(&p, &q);
}

static void closes_in_a_reply(int fd)
{
	char buf[4096];

	say(fd, GREETING);
	answer(fd, "", "{}");
	if (read(fd, buf, sizeof(buf)) <= 0)
		_exit(7);
	say(fd, EVENT_DOWN "{\"return\": {\"sta");
	close(fd);
	pause(); /* alive: only the connection ends */
}

Test(qmp_socket, end_of_file_while_waiting, .timeout = 60)
{
	struct peer p;
	struct qmp q;
	struct err e = { 0 };
	char status[32];

	peer_start(&p, &q, closes_in_a_reply);
	cr_assert(zero(int, qmp_handshake(&q, 30000, NULL, NULL, &e)), "%s", e.msg);
	cr_assert(eq(int, qmp_query_status(&q, status, &e), -ECONNRESET), "%s", e.msg);
	assert_event(&q, "SHUTDOWN"); /* what was said before still counts */
	peer_stop(&p, &q);
}

static void talks_nonsense(int fd)
{
	say(fd, GREETING);
	answer(fd, "", "{}");
	answer(fd, "HTTP/1.1 400 Bad Request\r\n", "{}");
	pause();
}

Test(qmp_socket, nonsense_ends_the_connection, .timeout = 60)
{
	struct peer p;
	struct qmp q;
	struct err e = { 0 };
	char status[32];

	peer_start(&p, &q, talks_nonsense);
	cr_assert(zero(int, qmp_handshake(&q, 30000, NULL, NULL, &e)), "%s", e.msg);
	cr_assert(eq(int, qmp_query_status(&q, status, &e), -EPROTO), "%s", e.msg);
	cr_assert(q.closed);
	peer_stop(&p, &q);
}

static void gives_an_error(int fd)
{
	char buf[4096];

	say(fd, GREETING);
	answer(fd, "", "{}");
	if (read(fd, buf, sizeof(buf)) <= 0)
		_exit(7);
	/* Arguments must have arrived as JSON. */
	if (!strstr(buf, "\"arguments\":{\"id\":\"x\\\"y\"}"))
		_exit(6);
	say(fd, "{\"id\": 2, \"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'x' not found\"}}");
	pause();
}

Test(qmp_socket, an_error_reply, .timeout = 60)
{
	struct json_object *args = json_object_new_object();
	struct peer p;
	struct qmp q;
	struct err e = { 0 };

	json_object_object_add(args, "id", json_object_new_string("x\"y"));
	peer_start(&p, &q, gives_an_error);
	cr_assert(zero(int, qmp_handshake(&q, 30000, NULL, NULL, &e)), "%s", e.msg);
	cr_assert(eq(int, qmp_command(&q, "device_del", args, 30000, NULL, &e), -EREMOTEIO), "%s", e.msg);
	cr_assert_str_eq(e.msg, "QMP command 'device_del': Device 'x' not found");
	peer_stop(&p, &q);
}

Test(qmp_socket, listening, .timeout = 60)
{
	char dir[] = "/tmp/gpuvm-qmp-XXXXXX", path[64], file[64], deep[200];
	struct err e = { 0 };
	struct stat st;
	struct qmp q;
	mode_t old = umask(0);
	int fd, again;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(file, sizeof(file), "%s/file", dir);
	fd = qmp_listen(path, &e);
	cr_assert(ge(int, fd, 0));
	cr_assert(zero(int, stat(path, &st)));
	cr_assert(eq(uint, st.st_mode & 0777, 0600)); /* whatever the umask */
	umask(old);

	/* A second one takes the place of what a crashed run has left. */
	again = qmp_listen(path, &e);
	cr_assert(ge(int, again, 0), "%s", e.msg);
	close(fd);
	close(again);
	cr_assert(eq(int, qmp_connect(path, -1, &q, &e), -ECONNREFUSED));
	cr_assert_not_null(strstr(e.msg, path));

	/* But no file, and a path must fit. */
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	cr_assert(eq(int, qmp_listen(file, &e), -EEXIST));
	memset(deep, 'x', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	cr_assert(eq(int, qmp_listen(deep, &e), -ENAMETOOLONG));
	cr_assert(eq(int, qmp_connect(deep, -1, &q, &e), -ENAMETOOLONG));
	unlink(file);
	unlink(path);
	rmdir(dir);
}
