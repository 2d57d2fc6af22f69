/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "gpuvm/qmp.h"

#define QUERY_TIMEOUT_MS 30000
#define EXIT_GRACE_MS    2000 /* between the end of QEMU's fds and the end of QEMU */
#define BACKLOG          4    /* connections that wait while QEMU serves one */
#define READS_MAX        256  /* of 64 KiB at a time, so that a flood cannot outrun a deadline */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* --- sockets ------------------------------------------------------------------------------------------ */

static int make_address(const char *path, struct sockaddr_un *ret, struct err *e)
{
	size_t len = strlen(path);

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (len >= sizeof(ret->sun_path))
		return err_set(e, -ENAMETOOLONG, "socket '%s': a path of a unix socket has at most %zu bytes", path,
			       sizeof(ret->sun_path) - 1);
	memcpy(ret->sun_path, path, len + 1);
	return 0;
}

/* A socket that a former run has left is in the way of bind(2); anything else is not ours to remove. */
static int remove_old(const char *path, struct err *e)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "socket '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST, "socket '%s': there is a file of that name", path);
	return unlink(path) < 0 ? err_sys(e, -errno, "remove the old socket '%s'", path) : 0;
}

int qmp_listen(const char *path, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	struct sockaddr_un sa;
	int r = make_address(path, &sa, e);

	if (r == 0)
		r = remove_old(path, e);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, -errno, "socket '%s'", path);
	/* Linux gives the name the mode that the socket has at bind(2): at no time can others connect. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, BACKLOG) < 0)
		return err_sys(e, -errno, "listen on socket '%s'", path);
	return STEAL_FD(fd);
}

int qmp_connect(const char *path, int pidfd, struct qmp *ret, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	struct sockaddr_un sa;
	int r = make_address(path, &sa, e);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, -errno, "socket '%s'", path);
	/* Never waits: it is either queued at once or the queue is full (EAGAIN). */
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_sys(e, -errno, "connect to socket '%s'", path);
	qmp_init(ret);
	ret->fd = STEAL_FD(fd);
	ret->pidfd = pidfd;
	return 0;
}

void qmp_close(struct qmp *q)
{
	qmp_reset(q);
	if (q->fd >= 0)
		close(q->fd);
	qmp_init(q);
}

/* --- waiting -------------------------------------------------------------------------------------------- */

int qmp_read(struct qmp *q, struct err *e)
{
	static char buf[65536]; /* one thread */

	for (int i = 0; i < READS_MAX; i++) {
		ssize_t n = q->closed ? 0 : recv(q->fd, buf, sizeof(buf), MSG_DONTWAIT);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n < 0 && errno != ECONNRESET)
			return err_sys(e, -errno, "read from QEMU's monitor");
		if (n <= 0) {
			q->closed = true;
			return err_set(e, -ECONNRESET, "QEMU closed its monitor");
		}
		r = qmp_feed(q, buf, (size_t)n, e);
		if (r < 0) {
			q->closed = true; /* nothing behind this can be trusted */
			return r;
		}
	}
	return 0;
}

static bool qemu_ended(const struct qmp *q, int wait_ms)
{
	struct pollfd p = { .fd = q->pidfd, .events = POLLIN };

	return q->pidfd >= 0 && poll(&p, 1, wait_ms) > 0;
}

/* Wait at most until @until, then read what is there.
 * 0 (there may be news), -ETIMEDOUT, -ESRCH, -ECONNRESET, -EPROTO. */
static int wait_news(struct qmp *q, short events, uint64_t until, struct err *e)
{
	struct pollfd p[2] = { { .fd = q->fd, .events = (short)(POLLIN | events) }, { .fd = q->pidfd, .events = POLLIN } };
	uint64_t now = now_ms();
	int r;

	r = poll(p, 2, now < until ? (int)(until - now < 60000 ? until - now : 60000) : 0);
	if (r < 0 && errno != EINTR)
		return err_sys(e, -errno, "wait for QEMU's monitor");
	if (r <= 0)
		return now_ms() >= until ? err_set(e, -ETIMEDOUT, "no answer in time") : 0;

	/* What QEMU said before it ended still counts: read first. */
	r = p[0].revents ? qmp_read(q, e) : 0;
	if (r == -ECONNRESET && qemu_ended(q, EXIT_GRACE_MS))
		return err_set(e, -ESRCH, "QEMU has ended");
	/* Our connection may still be in the queue of a socket that we hold open ourselves: nobody would close it. */
	if (r == 0 && !p[0].revents && p[1].revents)
		return err_set(e, -ESRCH, "QEMU has ended");
	return r;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int wait_greeting(struct qmp *q, uint64_t deadline, void (*progress)(void *), void *ctx, struct err *e)
{
	for (;;) {
		uint64_t until = progress ? earlier(deadline, now_ms() + 1000) : deadline;
		int r = qmp_take_greeting(q, e);

		if (r != -EAGAIN)
			return r;
		r = wait_news(q, 0, until, e);
		if (r == -ETIMEDOUT && progress && now_ms() < deadline)
			progress(ctx);
		else if (r < 0 && q->n_replies == 0)
			return r;
	}
}

/* --- commands --------------------------------------------------------------------------------------------- */

static int send_all(struct qmp *q, const char *text, size_t len, uint64_t deadline, struct err *e)
{
	while (len) {
		ssize_t n = q->closed ? -1 : send(q->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		int r;

		if (n >= 0) {
			text += n;
			len -= (size_t)n;
			continue;
		}
		if (q->closed || (errno != EAGAIN && errno != EINTR))
			return qemu_ended(q, EXIT_GRACE_MS) ? err_set(e, -ESRCH, "QEMU has ended")
							    : err_set(e, -ECONNRESET, "QEMU closed its monitor");
		/* It may not read because it waits for us to read. */
		r = wait_news(q, POLLOUT, deadline, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* @args is consumed. */
static int send_command(struct qmp *q, const char *command, struct json_object *args, uint64_t id, uint64_t deadline,
			struct err *e)
{
	struct json_object *msg = json_object_new_object();
	const char *text;
	size_t len;
	int r;

	json_object_object_add(msg, "execute", json_object_new_string(command));
	if (args)
		json_object_object_add(msg, "arguments", args);
	json_object_object_add(msg, "id", json_object_new_uint64(id));
	text = json_object_to_json_string_length(msg, JSON_C_TO_STRING_PLAIN, &len);
	r = send_all(q, text, len, deadline, e);
	json_object_put(msg);
	return r;
}

int qmp_send(struct qmp *q, const char *command, struct json_object *args, uint64_t timeout_ms, uint64_t *ret_id, struct err *e)
{
	uint64_t id = q->next_id++;
	int r = send_command(q, command, args, id, now_ms() + timeout_ms, e);

	if (r < 0)
		return err_wrap(e, "QMP command '%s'", command);
	*ret_id = id;
	return 0;
}

static int wait_reply(struct qmp *q, uint64_t id, uint64_t deadline, struct json_object **ret, struct err *e)
{
	int last = 0;

	for (;;) {
		int r = qmp_take_reply(q, id, ret, e);

		/* A reply that came together with the end of the connection is a reply: "quit" does that. */
		if (r != -EAGAIN)
			return r;
		if (last < 0)
			return last;
		last = wait_news(q, 0, deadline, e);
	}
}

/* What was sent is waited for, @timeout_ms from @began on. */
struct asked {
	const char *command;
	uint64_t id, began, timeout_ms;
};

static int finish_command(struct qmp *q, const struct asked *a, struct json_object **ret, struct err *e)
{
	struct json_object *value = NULL;
	int r = wait_reply(q, a->id, a->began + a->timeout_ms, &value, e);

	if (r == -ETIMEDOUT)
		err_set(e, r, "no answer within %llu ms", (unsigned long long)a->timeout_ms);
	if (r < 0)
		return err_wrap(e, "QMP command '%s'", a->command);
	if (ret)
		*ret = value;
	else
		json_object_put(value);
	return 0;
}

int qmp_command(struct qmp *q, const char *command, struct json_object *args, uint64_t timeout_ms,
		struct json_object **ret, struct err *e)
{
	struct asked a = { command, q->ahead_id, now_ms(), timeout_ms };
	bool sent = a.id && !args && strcmp(command, q->ahead) == 0;
	int r = sent ? 0 : qmp_send(q, command, args, timeout_ms, &a.id, e);

	/* The reply to an earlier command that nobody has taken goes when a later one comes. */
	q->ahead_id = 0;
	return r < 0 ? r : finish_command(q, &a, ret, e);
}

/* QEMU answers when it has set up the machine, one command after the other: what is there already need not be waited for twice. */
static int negotiate(struct qmp *q, uint64_t timeout_ms, struct err *e)
{
	struct asked a = { "qmp_capabilities", 0, now_ms(), timeout_ms };
	int r = qmp_send(q, a.command, NULL, timeout_ms, &a.id, e);

	if (r == 0 && q->ahead)
		r = qmp_send(q, q->ahead, NULL, timeout_ms, &q->ahead_id, e);
	return r < 0 ? r : finish_command(q, &a, NULL, e);
}

int qmp_handshake(struct qmp *q, uint64_t timeout_ms, void (*progress)(void *), void *ctx, struct err *e)
{
	uint64_t deadline = now_ms() + timeout_ms, now;
	int r = wait_greeting(q, deadline, progress, ctx, e);

	if (r == -ETIMEDOUT)
		return err_set(e, r, "QEMU's monitor did not answer within %llu ms", (unsigned long long)timeout_ms);
	if (r < 0)
		return err_wrap(e, "wait for QEMU's monitor");
	now = now_ms();
	return negotiate(q, now < deadline ? deadline - now : 0, e);
}

/* --- questions ----------------------------------------------------------------------------------------------- */

static uint64_t patience(const struct qmp *q)
{
	return q->patience_ms ? q->patience_ms : QUERY_TIMEOUT_MS;
}

int qmp_query_vcpus(struct qmp *q, struct qmp_vcpu **ret, size_t *ret_n, struct err *e)
{
	struct json_object *reply = NULL;
	int r = qmp_command(q, "query-cpus-fast", NULL, patience(q), &reply, e);

	if (r == 0)
		r = qmp_parse_vcpus(reply, ret, ret_n, e);
	json_object_put(reply);
	return r;
}

int qmp_query_iothreads(struct qmp *q, struct qmp_iothread **ret, size_t *ret_n, struct err *e)
{
	struct json_object *reply = NULL;
	int r = qmp_command(q, "query-iothreads", NULL, patience(q), &reply, e);

	if (r == 0)
		r = qmp_parse_iothreads(reply, ret, ret_n, e);
	json_object_put(reply);
	return r;
}

int qmp_query_status(struct qmp *q, char buf[32], struct err *e)
{
	struct json_object *reply = NULL;
	int r = qmp_command(q, "query-status", NULL, patience(q), &reply, e);

	if (r == 0)
		r = qmp_parse_status(reply, buf, e);
	json_object_put(reply);
	return r;
}

int qmp_query_full_disk(struct qmp *q, struct qmp_full_disk *ret, struct err *e)
{
	struct json_object *reply = NULL;
	int r = qmp_command(q, "query-block", NULL, patience(q), &reply, e);

	if (r == 0)
		r = qmp_parse_full_disk(reply, ret, e);
	json_object_put(reply);
	return r;
}

int qmp_query_pci(struct qmp *q, struct qmp_pci **ret, size_t *ret_n, struct err *e)
{
	struct json_object *reply = NULL;
	int r = qmp_command(q, "query-pci", NULL, patience(q), &reply, e);

	if (r == 0)
		r = qmp_parse_pci(reply, ret, ret_n, e);
	json_object_put(reply);
	return r;
}
