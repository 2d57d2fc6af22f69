/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu_ask.c - start a QEMU without a machine and ask it what it can do.
 *
 * It is started twice: for QMP, and with -help, which alone lists the options that have no parameters. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/probe.h"
#include "gpuvm/qemu.h"
#include "gpuvm/qmp.h"
#include "gpuvm/spawn.h"

#define OUTPUT_MAX    (1UL << 20) /* what is kept of its output: the help of QEMU 11 has 60 KiB */
#define QUIT_GRACE_MS 5000

struct asked {
	const char *path;
	uint64_t deadline;
	int output; /* a memory file */
	struct spawn child;
	int status;
	bool ended;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t time_left(const struct asked *a)
{
	uint64_t now = now_ms();

	return now < a->deadline ? a->deadline - now : 0;
}

/* A file that ends where it ends: a program that prints without end gets an error, instead of our memory. */
static int make_output(struct err *e)
{
	AUTO_CLOSE int fd = memfd_create("gpuvm-qemu-output", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, OUTPUT_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return err_sys(e, -errno, "a memory file for QEMU's output");
	return STEAL_FD(fd);
}

/* All that it printed; owned. */
static char *read_output(const struct asked *a)
{
	char *text = xcalloc(1, OUTPUT_MAX + 1);
	ssize_t n = pread(a->output, text, OUTPUT_MAX, 0);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* The last words of a program that failed; owned, with no control characters. */
static char *last_words(const struct asked *a)
{
	AUTO_FREE char *text = read_output(a);
	size_t len = strlen(text);
	char *line;

	while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		text[--len] = '\0';
	line = strrchr(text, '\n') ? strrchr(text, '\n') + 1 : text;
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	return xstrndup(line, 400);
}

static int start(struct asked *a, const struct strv *argv, const struct strv *env, int fd, struct err *e)
{
	struct spawn_options o = { .argv = argv, .env = env, .keep_fds = &fd, .n_keep_fds = fd >= 0, .die_with_parent = true };
	int r;

	a->output = make_output(e);
	if (a->output < 0)
		return a->output;
	o.stderr_fd = a->output;
	r = spawn_prepare(&o, &a->child, e);
	return r < 0 ? r : spawn_go(&a->child, e);
}

static bool wait_end(struct asked *a, uint64_t ms)
{
	struct pollfd p = { .fd = a->child.pidfd, .events = POLLIN };

	if (!a->ended && a->child.pid > 0 && poll(&p, 1, (int)ms) > 0)
		a->ended = waitpid(a->child.pid, &a->status, WNOHANG) == a->child.pid;
	return a->ended;
}

/* It leads a process group of its own: what a wrapper script has started goes with it. */
static void finish(struct asked *a)
{
	if (a->child.pid > 0 && !a->ended)
		kill(-a->child.pid, SIGKILL);
	spawn_abort(&a->child);
	if (a->output >= 0)
		close(a->output);
}

static struct asked asked_init(const char *path, uint64_t deadline)
{
	return (struct asked){ .path = path, .deadline = deadline, .output = -1, .child = { .pidfd = -1, .go_fd = -1, .exec_fd = -1 } };
}

/* Say how it failed: @e has what was noticed first. */
static int blame(struct asked *a, int r, struct err *e)
{
	AUTO_FREE char *words = a->output >= 0 ? last_words(a) : xstrdup("");
	AUTO_FREE char *noticed = xstrdup(e->msg);
	char status[96];

	if (r == -ETIMEDOUT)
		return err_set(e, r, "'%s' does not answer as a QEMU would; is it one?%s%s", a->path, *words ? " It printed: " : "", words);
	if (wait_end(a, 0))
		return err_set(e, -EPROTO, "'%s' is no QEMU that can be used: it ended with %s and printed: %s", a->path,
			       spawn_status_text(a->status, status), *words ? words : "nothing");
	return err_set(e, r, "'%s': %s%s%s", a->path, noticed, *words ? "; it printed: " : "", words);
}

/* --- QMP -------------------------------------------------------------------------------------------------------- */

static int ask_one(struct asked *a, struct qmp *q, struct json_object *question, struct json_object *replies, struct err *e)
{
	struct json_object *args = NULL, *reply = NULL;
	const char *command = json_object_get_string(json_object_object_get(question, "execute"));
	int r;

	json_object_object_get_ex(question, "arguments", &args);
	r = qmp_command(q, command, json_object_get(args), time_left(a), &reply, e);
	if (r < 0 && r != -EREMOTEIO)
		return r;
	json_object_array_add(replies, reply);
	return 0;
}

static int ask_all(struct asked *a, struct qmp *q, struct json_object *replies, struct err *e)
{
	struct json_object *questions = qemu_questions();
	int r = qmp_handshake(q, time_left(a), NULL, NULL, e);

	for (size_t i = 0; r == 0 && i < json_object_array_length(questions); i++)
		r = ask_one(a, q, json_object_array_get_idx(questions, i), replies, e);
	json_object_put(questions);
	return r;
}

/* A wrapper's QEMU is not our child: it is asked to go. */
static void quit(struct asked *a, struct qmp *q)
{
	struct err ignored = { 0 };

	if (qmp_command(q, "quit", NULL, QUIT_GRACE_MS, NULL, &ignored) == 0)
		wait_end(a, QUIT_GRACE_MS);
}

static int ask_qmp(struct asked *a, const struct strv *env, struct json_object *replies, struct err *e)
{
	static const char *const bare[] = { "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none" };
	AUTO_CLOSE int theirs = -1;
	struct strv argv = { 0 };
	struct qmp q;
	int fds[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return err_sys(e, -errno, "ask '%s': socketpair", a->path);
	qmp_init(&q);
	q.fd = fds[0];
	theirs = fds[1];
	strv_push(&argv, a->path);
	for (size_t i = 0; i < ARRAY_SIZE(bare); i++)
		strv_push(&argv, bare[i]);
	strv_push(&argv, "-chardev");
	strv_pushf(&argv, "socket,id=ask,fd=%d", theirs);
	strv_push(&argv, "-mon");
	strv_push(&argv, "chardev=ask,mode=control");
	r = start(a, &argv, env, theirs, e);
	strv_clear(&argv);
	/* Else nobody would notice that the other side has gone. */
	close(STEAL_FD(theirs));
	q.pidfd = a->child.pidfd;
	if (r == 0) {
		r = ask_all(a, &q, replies, e);
		if (r == 0)
			quit(a, &q);
		else
			r = blame(a, r, e);
	}
	qmp_close(&q);
	return r;
}

/* --- help ------------------------------------------------------------------------------------------------------- */

static int ask_help(struct asked *a, const struct strv *env, char **ret, struct err *e)
{
	struct strv argv = { 0 };
	int r;

	strv_push(&argv, a->path);
	strv_push(&argv, "-help");
	r = start(a, &argv, env, -1, e);
	strv_clear(&argv);
	if (r < 0)
		return r;
	if (!wait_end(a, time_left(a)))
		return blame(a, -ETIMEDOUT, e);
	if (!WIFEXITED(a->status) || WEXITSTATUS(a->status) != 0)
		return blame(a, -EPROTO, e);
	*ret = read_output(a);
	return 0;
}

int qemu_ask(const char *path, const struct strv *env, unsigned int timeout_ms, struct json_object **ret, struct err *e)
{
	uint64_t deadline = now_ms() + timeout_ms;
	struct asked qmp = asked_init(path, deadline), help = asked_init(path, deadline);
	struct json_object *replies = json_object_new_array();
	AUTO_FREE char *text = NULL;
	int r = ask_qmp(&qmp, env, replies, e);

	if (r == 0)
		r = ask_help(&help, env, &text, e);
	if (r == 0)
		r = qemu_answers_make(replies, text, ret, e);
	if (r == -EPROTO && !*e->msg)
		r = err_set(e, r, "'%s': its answers make no sense", path);
	finish(&qmp);
	finish(&help);
	json_object_put(replies);
	return r;
}
