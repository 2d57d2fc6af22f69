/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm console: the guest's serial console on this terminal.
 *
 * How it works: QEMU serves one client of serial.sock at a time and writes what the guest says to serial.log as well.  The first
 * console takes a lock and is that client; every further one only watches: it follows the log.  The terminal is in raw mode
 * meanwhile and is put back at every way out but SIGKILL: signals come through a signalfd, errors return. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/log.h"
#include "gpuvm/parse.h"

#define ESCAPE	     0x1d /* Ctrl-], as telnet and virsh */
#define CONTEXT_MAX  2048 /* bytes of the log to begin with */
#define FINISH_MS    1000 /* for the guest to read what was typed last */

static const char usage[] = "usage: gpuvm console [--watch] NAME\n\n"
			    "The guest's serial console on this terminal. Ctrl-] leaves it. One console at a time can type; others, and\n"
			    "--watch, see what the guest writes. The guest does not learn the terminal's size: run `stty rows R cols C` there.\n";

struct console {
	const char *rundir;
	int sock; /* -1: watching */
	int lock;
	int log;  /* watching: serial.log */
	int notify;
	int signals;
	int pidfd; /* of QEMU */
	bool raw;
	struct termios saved;
};

static int lock_console(struct console *c, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/serial.lock", c->rundir);

	c->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (c->lock < 0)
		return err_sys(e, -errno, "open '%s'", path);
	if (flock(c->lock, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? -EWOULDBLOCK : err_sys(e, -errno, "lock '%s'", path);
}

static int connect_serial(struct console *c, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/serial.sock", c->rundir);
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, -ENAMETOOLONG, "'%s' is too long for a socket", path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	c->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->sock < 0)
		return err_sys(e, -errno, "socket");
	if (connect(c->sock, (struct sockaddr *)&a, sizeof(a)) == 0)
		return 0;
	if (errno == ENOENT)
		return err_set(e, -ENOENT, "there is no '%s': the definition has [console] serial = log; --watch shows it", path);
	return err_sys(e, -errno, "connect to '%s'", path);
}

/* Everything in the log from where it was read to last; 0, or -Exxx of the terminal. */
static int copy_log(struct console *c)
{
	struct stat st;
	char buf[4096];
	ssize_t n;
	int r = 0;

	/* One that had grown too large was emptied meanwhile. */
	if (fstat(c->log, &st) == 0 && st.st_size < lseek(c->log, 0, SEEK_CUR) && lseek(c->log, 0, SEEK_SET) < 0)
		return -errno;
	while (r == 0 && (n = read(c->log, buf, sizeof(buf))) > 0)
		r = write_all(STDOUT_FILENO, buf, (size_t)n);
	return r;
}

/* What the guest said last, so that a console does not begin with an empty screen. */
static int open_log(struct console *c, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/serial.log", c->rundir);
	struct stat st;

	c->log = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (c->log < 0 && errno == ENOENT)
		return err_set(e, -ENOENT, "there is no '%s': the definition has [console] serial = stdio", path);
	if (c->log < 0 || fstat(c->log, &st) < 0)
		return err_sys(e, -errno, "open '%s'", path);
	if (st.st_size > CONTEXT_MAX && lseek(c->log, -CONTEXT_MAX, SEEK_END) < 0)
		return err_sys(e, -errno, "read '%s'", path);
	c->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (c->notify < 0 || inotify_add_watch(c->notify, path, IN_MODIFY) < 0)
		return err_sys(e, -errno, "watch '%s'", path);
	return copy_log(c);
}

static int raw_terminal(struct console *c, struct err *e)
{
	struct termios t;

	if (!isatty(STDIN_FILENO))
		return 0;
	if (tcgetattr(STDIN_FILENO, &c->saved) < 0)
		return err_sys(e, -errno, "terminal");
	t = c->saved;
	cfmakeraw(&t);
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &t) < 0)
		return err_sys(e, -errno, "terminal");
	c->raw = true;
	return 0;
}

static void close_console(struct console *c)
{
	const int fds[] = { c->sock, c->lock, c->log, c->notify, c->signals, c->pidfd };

	if (c->raw)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &c->saved);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int block_signals(struct console *c, struct err *e)
{
	sigset_t set;

	/* A guest that ends while one types, or a `tee` behind us: an error, not an end with a raw terminal. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGQUIT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(e, -errno, "block signals");
	c->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return c->signals < 0 ? err_sys(e, -errno, "signalfd") : 0;
}

/* What was typed, up to the escape key. 1: leave. A pipe that ends leaves too: nothing more can be typed. */
static int on_typed(struct console *c, struct err *e)
{
	char buf[1024], *escape;
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
	int r = 0;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return n < 0 ? err_sys(e, -errno, "read from the terminal") : 1;
	escape = c->raw ? memchr(buf, ESCAPE, (size_t)n) : NULL;
	if (c->sock >= 0)
		r = write_all(c->sock, buf, escape ? (size_t)(escape - buf) : (size_t)n);
	return r < 0 ? err_sys(e, r, "write to the guest") : escape != NULL;
}

/* 1: QEMU has closed the console. */
static int on_guest(struct console *c, struct err *e)
{
	char buf[4096];
	ssize_t n = read(c->sock, buf, sizeof(buf));
	int r;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return n < 0 && errno != ECONNRESET ? err_sys(e, -errno, "read from the guest") : 1;
	r = write_all(STDOUT_FILENO, buf, (size_t)n);
	return r < 0 ? err_sys(e, r, "write to the terminal") : 0;
}

static int on_log(struct console *c, struct err *e)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	int r;

	while (read(c->notify, buf, sizeof(buf)) > 0)
		;
	r = copy_log(c);
	return r < 0 ? err_sys(e, r, "write to the terminal") : 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* QEMU takes what is typed as the guest reads it, and drops the rest when its client is gone: say that nothing more comes, and let it
 * close when it has read all. A guest that does not read is not waited for. */
static int finish_typing(struct console *c, struct err *e)
{
	int64_t end = now_ms() + FINISH_MS;
	int r = 0;

	if (c->sock < 0 || shutdown(c->sock, SHUT_WR) < 0)
		return 0;
	while (r == 0) {
		struct pollfd p[] = { { .fd = c->sock, .events = POLLIN }, { .fd = c->signals, .events = POLLIN } };
		int64_t left = end - now_ms();

		if (left <= 0 || poll(p, ARRAY_SIZE(p), (int)left) <= 0 || p[1].revents)
			return 0;
		r = on_guest(c, e);
	}
	return r < 0 ? r : 0;
}

/* Until the escape key, the end of the VM, a signal or an error. 0, or -Exxx. @ret_ended: it was the VM. */
static int relay(struct console *c, bool *ret_ended, struct err *e)
{
	for (int r = 0;;) {
		struct pollfd p[] = { { .fd = c->sock, .events = POLLIN },
				      { .fd = STDIN_FILENO, .events = POLLIN },
				      { .fd = c->signals, .events = POLLIN },
				      { .fd = c->sock < 0 ? c->notify : -1, .events = POLLIN },
				      { .fd = c->pidfd, .events = POLLIN } };

		if (poll(p, ARRAY_SIZE(p), -1) < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(e, -errno, "poll");
		}
		/* The guest's last words before its end. */
		if (p[0].revents)
			*ret_ended = (r = on_guest(c, e)) > 0;
		if (p[3].revents && r == 0)
			r = on_log(c, e);
		if (p[1].revents && r == 0) {
			r = on_typed(c, e);
			if (r > 0)
				return finish_typing(c, e);
		}
		if (p[2].revents && r == 0)
			r = 1;
		if (p[4].revents && r == 0 && c->sock < 0)
			*ret_ended = (r = 1);
		if (r)
			return r < 0 ? r : 0;
	}
}

static int open_console(struct console *c, const struct claim *claim, bool watch, struct err *e)
{
	int r = watch ? -EWOULDBLOCK : lock_console(c, e);

	if (r < 0 && r != -EWOULDBLOCK)
		return r;
	c->pidfd = pidfd_open(claim->qemu_pid, 0);
	if (c->pidfd < 0 || !claim_qemu_alive(claim))
		return err_set(e, -ESRCH, "VM '%s' has ended", claim->vm);
	if (r == -EWOULDBLOCK) {
		r = open_log(c, e);
		/* On stderr: what the guest writes may go to a file. */
		if (r == 0)
			log_notice("watching the console of '%s'%s; Ctrl-] leaves", claim->vm, watch ? "" : ": another console types");
	} else {
		r = open_log(c, e);
		if (r == 0)
			r = connect_serial(c, e);
		if (r == 0)
			log_notice("console of '%s'; Ctrl-] leaves", claim->vm);
	}
	if (r == 0)
		r = block_signals(c, e);
	return r == 0 ? raw_terminal(c, e) : r;
}

int cmd_console(int argc, char **argv)
{
	struct console c = { .sock = -1, .lock = -1, .log = -1, .notify = -1, .signals = -1, .pidfd = -1 };
	struct claim claim = { 0 };
	struct err e = { 0 };
	struct cmd_simple o = { .flag = "watch" };
	bool ended = false;
	int r = cmd_parse_simple(argc, argv, usage, true, &o);

	if (r || o.help)
		return r;
	r = cmd_running_claim(o.name, &claim);
	if (r)
		return r;
	c.rundir = claim.rundir;
	r = open_console(&c, &claim, o.flag_set, &e);
	if (r == 0)
		r = relay(&c, &ended, &e);
	close_console(&c);
	if (r < 0)
		log_error("console of '%s': %s", claim.vm, e.msg);
	else if (ended)
		log_notice("VM '%s' has closed its console", claim.vm);
	claim_clear(&claim);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
