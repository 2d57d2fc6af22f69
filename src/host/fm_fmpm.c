/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fm_fmpm.c - Fabric Manager by NVIDIA's program fmpm. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "fm_priv.h"
#include "gpuvm/spawn.h"

#define OUTPUT_MAX (1UL << 20)

static void make_argv(const struct fm_spec *s, const struct fm_request *q, struct strv *ret)
{
	bool is_unix = strncmp(s->address, "unix:", 5) == 0;
	AUTO_FREE char *list = xstrdup("");

	strv_push(ret, s->tool);
	if (*s->address) {
		strv_push(ret, is_unix ? "--unix-domain-socket" : "--hostname");
		strv_push(ret, is_unix ? s->address + 5 : s->address);
	}
	for (int i = 0; i < q->n_ids; i++) {
		char *next = xasprintf("%s%s%d", list, i ? "," : "", q->ids[i]);

		free(list);
		list = next;
	}
	strv_push(ret, q->op == FM_LIST ? "-l" : q->op == FM_ACTIVATE ? "-a" : q->op == FM_DEACTIVATE ? "-d" : "--set-activated-list");
	if (q->op != FM_LIST)
		strv_push(ret, list);
}

/* A file that ends where it ends: a program that prints without end gets an error, instead of our memory. */
static int make_output(struct err *e)
{
	AUTO_CLOSE int fd = memfd_create("gpuvm-fmpm", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, OUTPUT_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return err_sys(e, -errno, "a memory file for fmpm's output");
	return STEAL_FD(fd);
}

static int wait_end(const struct spawn *s, unsigned int timeout_ms, int *ret_status, struct err *e)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };
	int n;

	while ((n = poll(&p, 1, (int)timeout_ms)) < 0 && errno == EINTR)
		;
	if (n > 0 && waitpid(s->pid, ret_status, 0) == s->pid)
		return 0;
	/* It leads a session of its own: what it has started goes with it. */
	kill(-s->pid, SIGKILL);
	return err_set(e, -ETIMEDOUT, "it did not end within %u ms", timeout_ms);
}

/* All that it printed; owned. */
static char *run(const struct strv *argv, unsigned int timeout_ms, int *ret_status, struct err *e)
{
	AUTO_CLOSE int out = make_output(e);
	AUTO_FREE char *text = xcalloc(1, OUTPUT_MAX + 1);
	struct spawn_options o = { .argv = argv, .stderr_fd = out, .die_with_parent = true };
	struct spawn s = { .pidfd = -1, .go_fd = -1, .exec_fd = -1 };
	int r = out;

	if (out >= 0)
		r = spawn_prepare(&o, &s, e);
	if (r == 0)
		r = spawn_go(&s, e);
	if (r == 0)
		r = wait_end(&s, timeout_ms, ret_status, e);
	spawn_abort(&s);
	if (r == 0 && pread(out, text, OUTPUT_MAX, 0) < 0)
		r = err_sys(e, -errno, "read what it printed");
	return r < 0 ? NULL : STEAL_PTR(text);
}

char *fm_version(unsigned int timeout_ms, struct err *e)
{
	AUTO_FREE char *tool = spawn_find_program("nv-fabricmanager"), *text = NULL;
	struct strv argv = { 0 };
	const char *at;
	int status = 0;

	if (!tool) {
		err_set(e, -ENOENT, "there is no nv-fabricmanager in PATH");
		return NULL;
	}
	strv_push(&argv, tool);
	strv_push(&argv, "--version");
	text = run(&argv, timeout_ms, &status, e);
	strv_clear(&argv);
	if (!text)
		return NULL;
	/* "Fabric Manager version is : 580.95.05" */
	text[strcspn(text, "\n")] = '\0';
	at = strpbrk(text, "0123456789");
	if (status != 0 || !at || !strchr(at, '.')) {
		err_set(e, -EPROTO, "'%s --version' says '%.100s'", tool, text);
		return NULL;
	}
	return xstrndup(at, strspn(at, "0123456789."));
}

int fm_ask_program(const struct fm_spec *s, const struct fm_request *q, unsigned int timeout_ms, int *ret_code, struct fm_list *ret_list, struct err *e)
{
	AUTO_FREE char *text = NULL;
	struct strv argv = { 0 };
	char how[96];
	int status = 0;

	make_argv(s, q, &argv);
	text = run(&argv, timeout_ms, &status, e);
	strv_clear(&argv);
	if (!text)
		return err_wrap(e, "'%s'", s->tool);
	*ret_code = WIFEXITED(status) ? fm_code_of_exit(WEXITSTATUS(status)) : 1;
	if (*ret_code > 0) {
		text[strcspn(text, "\n")] = '\0';
		return err_set(e, -EPROTO, "'%s' does not end as fmpm does, but with %s: '%.100s'", s->tool, spawn_status_text(status, how), text);
	}
	return *ret_code == 0 && q->op == FM_LIST ? fm_list_parse(text, ret_list, e) : 0;
}
