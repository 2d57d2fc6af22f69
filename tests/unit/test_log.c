/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines of the log: on stderr, and in the journal with fields. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpuvm/log.h"
#include "gpuvm/parse.h"

#define JOURNAL_DIR "/run/systemd/journal"

Test(log, entry)
{
	static const char *const more[] = { "GPUVM_STATE=paused", "GPUVM_REASON=two\nlines", NULL };
	static const char *const want[] = { "MESSAGE=demo: a = b", "PRIORITY=4", "SYSLOG_IDENTIFIER=gpuvm-test", "GPUVM_VM=demo", "GPUVM_STATE=paused", "GPUVM_REASON=two\nlines" };
	char field[] = "GPUVM_VM=demo";
	struct strv v = { 0 };

	log_init("gpuvm-test", LOG_LEVEL_NOTICE);
	log_entry(LOG_LEVEL_WARNING, "demo: a = b", NULL, &v);
	cr_assert(v.n == 3);
	strv_clear(&v);
	log_set_field(field);
	memset(field, 'x', sizeof(field) - 1); /* it is copied */
	log_entry(LOG_LEVEL_WARNING, "demo: a = b", more, &v);
	cr_assert(v.n == ARRAY_SIZE(want));
	for (size_t i = 0; i < v.n; i++)
		cr_expect_str_eq(v.v[i], want[i]);
	strv_clear(&v);
	log_set_field(NULL);
	log_entry(LOG_LEVEL_ERROR, "x", NULL, &v);
	cr_expect(v.n == 3);
	strv_clear(&v);
}

/* stderr is @file from now on, and if @journal what systemd calls the journal. */
static void redirect(const char *file, bool journal)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
	struct stat st;
	char text[64];

	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || fstat(fd, &st) < 0)
		_exit(10);
	close(fd);
	snprintf(text, sizeof(text), "%lu:%lu", (unsigned long)st.st_dev, (unsigned long)st.st_ino + !journal);
	setenv("JOURNAL_STREAM", text, 1);
}

static void say_two_lines(void)
{
	static const char *const fields[] = { "GPUVM_EVENT=started", NULL };

	log_init("gpuvm-test", LOG_LEVEL_NOTICE);
	log_set_field("GPUVM_VM=demo");
	log_warning("careful");
	log_info("not at this level");
	log_line_with(LOG_LEVEL_NOTICE, fields, "demo: %d", 7);
	log_line_with(LOG_LEVEL_INFO, fields, "not at this level");
	log_set_field(NULL);
}

/* In a mount namespace of its own, with no journal or with one that is @ret_fd. False: not allowed to. */
static bool own_run(bool journal, int *ret_fd)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = JOURNAL_DIR "/socket" };

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", "/run", "tmpfs", 0, NULL) < 0)
		return false;
	if (!journal)
		return true;
	*ret_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (mkdir("/run/systemd", 0755) < 0 || mkdir(JOURNAL_DIR, 0755) < 0 || bind(*ret_fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		_exit(11);
	return true;
}

/* Each in a process of its own: 0 fine, 77 not allowed, else where it failed. */
static int in_child(int (*what)(const char *file), char **ret_text)
{
	char dir[] = "/tmp/gpuvm-test-XXXXXX";
	AUTO_FREE char *file = NULL;
	int status;
	pid_t pid;

	cr_assert(mkdtemp(dir));
	file = xasprintf("%s/log", dir);
	pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0)
		_exit(what(file));
	cr_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	*ret_text = NULL;
	if (access(file, F_OK) == 0)
		cr_assert(read_text_file(file, 1 << 16, ret_text) == 0);
	unlink(file);
	rmdir(dir);
	return WEXITSTATUS(status);
}

static int on_stderr(const char *file)
{
	redirect(file, false);
	say_two_lines();
	return 0;
}

Test(log, on_stderr, .timeout = 30)
{
	AUTO_FREE char *text = NULL;

	cr_assert(in_child(on_stderr, &text) == 0);
	cr_expect_str_eq(text, "gpuvm-test: warning: careful\ngpuvm-test: demo: 7");
}

static int without_socket(const char *file)
{
	if (!own_run(false, NULL))
		return 77;
	redirect(file, true);
	say_two_lines();
	return 0;
}

/* A container has the journal's stream, and no socket. */
Test(log, journal_without_its_socket, .timeout = 30)
{
	AUTO_FREE char *text = NULL;
	int code = in_child(without_socket, &text);

	if (code == 77)
		cr_skip("no mount namespaces for us");
	cr_assert(code == 0);
	cr_expect_str_eq(text, "<4>careful\n<5>demo: 7");
}

/* The next datagram, or fail. */
static const char *receive(int fd, char buf[4096])
{
	ssize_t n = recv(fd, buf, 4095, MSG_DONTWAIT);

	if (n <= 0)
		_exit(12);
	buf[n] = '\0';
	return buf;
}

static int to_journal(const char *file)
{
	char buf[4096];
	int fd = -1;

	if (!own_run(true, &fd))
		return 77;
	redirect(file, true);
	say_two_lines();
	if (strcmp(receive(fd, buf), "MESSAGE=careful\nPRIORITY=4\nSYSLOG_IDENTIFIER=gpuvm-test\nGPUVM_VM=demo\n") != 0)
		return 13;
	if (strcmp(receive(fd, buf), "MESSAGE=demo: 7\nPRIORITY=5\nSYSLOG_IDENTIFIER=gpuvm-test\nGPUVM_VM=demo\nGPUVM_EVENT=started\n") != 0)
		return 14;
	if (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0)
		return 15;
	/* --daemonize: stderr is a file from here on. */
	setenv("JOURNAL_STREAM", "1:1", 1);
	log_warning("for the file");
	return recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0 ? 16 : 0;
}

Test(log, to_the_journal, .timeout = 30)
{
	AUTO_FREE char *text = NULL;
	int code = in_child(to_journal, &text);

	if (code == 77)
		cr_skip("no mount namespaces for us");
	cr_assert(code == 0, "%d: %s", code, text);
	cr_expect_str_eq(text, "gpuvm-test: warning: for the file");
}
