/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_qemu.c - which QEMU there is, and its firmware. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gpuvm/plan.h"
#include "gpuvm/probe.h"

#define VERSION_TIMEOUT_MS 10000 /* a cold start from a slow disk takes a second or two */

extern char **environ;

static const char default_qemu[] = "qemu-system-x86_64";
static const char rhel_qemu[] = "/usr/libexec/qemu-kvm"; /* in no PATH */

/* Code and variable store belong together. 4 MiB builds come first: newer ones no longer have the 2 MiB variant. */
static const struct {
	const char *code, *vars;
} firmware[] = {
	{ "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd" }, /* Debian, Ubuntu */
	{ "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd" },
	{ "/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd" },         /* Fedora, RHEL */
	{ "/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd" },     /* Arch */
	{ "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd" }, /* older Arch, Gentoo */
	{ "/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin" }, /* openSUSE */
	{ "/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd" },           /* QEMU's own */
	{ "/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd" },
};

/* @binary through $PATH, as execvp() would find it; owned, NULL if it is nowhere. */
static char *find_binary(const char *binary)
{
	const char *env = getenv("PATH");
	AUTO_FREE char *dirs = xstrdup(env && *env ? env : "/usr/local/bin:/usr/bin:/bin");
	char *save = NULL;

	if (strchr(binary, '/'))
		return xstrdup(binary);
	for (char *d = strtok_r(dirs, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
		AUTO_FREE char *path = xasprintf("%s/%s", d, binary);

		if (access(path, X_OK) == 0)
			return STEAL_PTR(path);
	}
	return NULL;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Read until the other side closes. -ETIMEDOUT. */
static int read_until_closed(int fd, char *buf, size_t size)
{
	int64_t deadline = now_ms() + VERSION_TIMEOUT_MS;
	size_t len = 0;

	for (;;) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		int64_t left = deadline - now_ms();
		ssize_t n;

		if (left <= 0 || len + 1 >= size)
			return len + 1 >= size ? 0 : -ETIMEDOUT;
		if (poll(&pfd, 1, (int)left) <= 0)
			continue;
		n = read(fd, buf + len, size - len - 1);
		if (n <= 0)
			return 0;
		len += (size_t)n;
		buf[len] = '\0';
	}
}

static int spawn_version(const char *path, int out, pid_t *ret_pid)
{
	char version[] = "-version", *copy = xstrdup(path), *argv[] = { copy, version, NULL };
	posix_spawn_file_actions_t fa;
	int r;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&fa, out, STDERR_FILENO);
	r = posix_spawn(ret_pid, path, &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	free(copy);
	return -r;
}

/* What "BINARY -version" prints, in @buf. */
static int run_version(const char *path, char *buf, size_t size, struct err *e)
{
	AUTO_CLOSE int out = -1;
	int fds[2], r, status;
	pid_t pid;

	buf[0] = '\0';
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "pipe");
	out = fds[0];
	r = spawn_version(path, fds[1], &pid);
	close(fds[1]);
	if (r < 0)
		return err_sys(e, r, "run '%s'", path);
	r = read_until_closed(out, buf, size);
	if (r < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return r < 0 ? err_sys(e, r, "'%s -version' did not end", path) : 0;
}

/* "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)" */
static int parse_version(const char *path, const char *text, struct qemu_info *q, struct err *e)
{
	static const char head[] = "QEMU emulator version ";
	const char *at = strstr(text, head);

	if (!at || sscanf(at + strlen(head), "%d.%d.%d", &q->major, &q->minor, &q->micro) < 2)
		return err_set(e, -EPROTO, "'%s -version' does not name a version of QEMU; it printed: %.*s", path,
			       (int)strcspn(text, "\n"), text);
	return 0;
}

static void find_firmware(struct qemu_info *q)
{
	for (size_t i = 0; i < ARRAY_SIZE(firmware); i++) {
		if (access(firmware[i].code, R_OK) < 0 || access(firmware[i].vars, R_OK) < 0)
			continue;
		q->ovmf_code = xstrdup(firmware[i].code);
		q->ovmf_vars = xstrdup(firmware[i].vars);
		return;
	}
}

int probe_qemu(const char *binary, struct qemu_info *ret, struct err *e)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	char text[1024];
	int r;

	q.path = find_binary(binary ? binary : default_qemu);
	if (!q.path && !binary && access(rhel_qemu, X_OK) == 0)
		q.path = xstrdup(rhel_qemu);
	if (!q.path)
		return err_set(e, -ENOENT, "'%s' is not in PATH; install QEMU, or name it in [qemu] binary",
			       binary ? binary : default_qemu);
	r = run_version(q.path, text, sizeof(text), e);
	if (r < 0)
		return r;
	r = parse_version(q.path, text, &q, e);
	if (r < 0)
		return r;
	find_firmware(&q);
	*ret = q;
	q = (struct qemu_info){ 0 };
	return 0;
}
