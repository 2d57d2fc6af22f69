/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plan_command.c - the command as a whole: for exec, and for people. */
#include <string.h>

#include "plan_priv.h"

/* --- for exec -------------------------------------------------------------------------------------------------- */

/* "7:8:9" */
static char *fd_list(const int *fds, int n)
{
	char *out = xstrdup("");

	for (int i = 0; i < n; i++) {
		AUTO_FREE char *before = out;

		out = xasprintf("%s%s%d", before, i ? ":" : "", fds[i]);
	}
	return out;
}

/* A netdev with fds takes no name, script or number of queues: it has them. */
static char *tap_with_fds(const struct plan_tap *tap, const struct plan_tap_fds *fds)
{
	AUTO_FREE char *taps = fd_list(fds->tap, fds->queues), *vhosts = fds->vhost ? fd_list(fds->vhost, fds->queues) : NULL;
	struct qopt o;

	qopt_init(&o, "tap");
	qopt_str(&o, "id", tap->netdev);
	qopt_str(&o, "fds", taps);
	qopt_bool(&o, "vhost", vhosts != NULL);
	if (vhosts)
		qopt_str(&o, "vhostfds", vhosts);
	return qopt_finish(&o);
}

/* "path=X" gives way to "fd=N"; what else takes an open file has a property of its own for it. */
static char *value_with_fd(const char *value, const struct plan_open *o, int fd)
{
	AUTO_FREE char *path = NULL;
	const char *at;
	struct qopt q;

	if (o->key)
		return xasprintf("%s,%s=%d", value, o->key, fd);
	qopt_init(&q, "");
	qopt_str(&q, "path", o->path);
	path = qopt_finish(&q);
	at = strstr(value, path);
	return xasprintf("%.*sfd=%d%s", (int)(at - value), value, fd, at + strlen(path));
}

void plan_argv(const struct plan *p, const struct plan_fds *fds, struct strv *ret)
{
	for (size_t i = 0; i < p->wrapper.n; i++)
		strv_push(ret, p->wrapper.v[i]);
	strv_push(ret, p->qemu_binary);
	for (size_t i = 0; i < p->n_args; i++) {
		const struct plan_arg *a = &p->args[i];

		strv_push(ret, a->flag);
		if (!a->value)
			continue;
		/* The supervisor listens itself and hands the socket over, so it can connect at once: nothing to wait for. */
		if (fds && a->use == ARG_CONTROL) {
			strv_pushf(ret, "socket,id=control,fd=%d,server=on,wait=off", fds->control);
		} else if (fds && a->use == ARG_TAP) {
			AUTO_FREE char *value = tap_with_fds(&p->taps[a->tap], &fds->taps[a->tap]);

			strv_push(ret, value);
		} else if (fds && a->use == ARG_OPEN) {
			AUTO_FREE char *value = value_with_fd(a->value, &p->opens[a->open], fds->opens[a->open]);

			strv_push(ret, value);
		} else {
			strv_push(ret, a->value);
		}
	}
}

/* --- for people ------------------------------------------------------------------------------------------------- */

/* What a shell cannot do for the reader. In words without quotes or brackets: zsh takes no comments from a terminal unless told so. */
static void print_head(const struct plan *p, bool explain, FILE *out)
{
	fprintf(out, "# %s with QEMU %s. It must not run already.\n", p->vm, p->qemu_version);
	if (explain)
		fputs("# For bash: a list of words can have comments between them.\n", out);
	if (!p->n_binds || p->fake_devices)
		return;
	fputs("# These must be bound to their driver before:", out);
	for (size_t i = 0; i < p->n_binds; i++) {
		char bdf[PCI_ADDR_STR];

		fprintf(out, " %s to %s%s", pci_addr_format(&p->binds[i].addr, bdf), p->binds[i].to, i + 1 < p->n_binds ? "," : "\n");
	}
}

/* Joined by "&&" and not by set -e or exit: in a terminal those would end the reader's own shell. */
static void print_prepares(const struct plan *p, bool explain, FILE *out)
{
	for (size_t i = 0; i < p->n_prepares; i++) {
		const char *command = p->prepares[i].command;
		/* "a && b || c && d" is not what it looks like. */
		bool braces = strpbrk(command, "|;&") != NULL;

		if (explain)
			fprintf(out, "# %s\n", p->prepares[i].why);
		fprintf(out, braces ? "{ %s; } &&\n" : "%s &&\n", command);
	}
}

static void print_words(const struct strv *words, FILE *out)
{
	for (size_t i = 0; i < words->n; i++) {
		AUTO_FREE char *q = shell_quote(words->v[i]);

		fprintf(out, "%s ", q);
	}
}

/* Up to where QEMU's own name stands. env(1): a quoted 'K=V W' would not be an assignment to the shell. */
static void print_runner(const struct plan *p, bool script, FILE *out)
{
	if (script)
		fputs("exec ", out);
	if (p->env.n)
		fputs("env ", out);
	print_words(&p->env, out);
	print_words(&p->wrapper, out);
}

static void print_arg(const struct plan_arg *a, FILE *out)
{
	AUTO_FREE char *flag = shell_quote(a->flag), *value = a->value ? shell_quote(a->value) : NULL;

	fprintf(out, "%s%s%s", flag, value ? " " : "", value ? value : "");
}

/* An array: a comment cannot stand inside a command that goes on over lines. */
static void print_explained(const struct plan *p, bool script, FILE *out)
{
	AUTO_FREE char *binary = shell_quote(p->qemu_binary);
	const char *group = "";

	fprintf(out, "argv=(%s\n", binary);
	for (size_t i = 0; i < p->n_args; i++) {
		const struct plan_arg *a = &p->args[i];

		if (a->use == ARG_PAUSE)
			continue;
		if (strcmp(group, a->group) != 0)
			fprintf(out, "\n    # --- %s\n", a->group);
		group = a->group;
		fprintf(out, "    # %s\n    ", a->why);
		print_arg(a, out);
		fputc('\n', out);
	}
	fputs(")\n", out);
	print_prepares(p, true, out);
	print_runner(p, script, out);
	fputs("\"${argv[@]}\"\n", out);
}

static void print_plain(const struct plan *p, bool script, FILE *out)
{
	AUTO_FREE char *binary = shell_quote(p->qemu_binary);

	print_prepares(p, false, out);
	print_runner(p, script, out);
	fputs(binary, out);
	for (size_t i = 0; i < p->n_args; i++) {
		if (p->args[i].use == ARG_PAUSE)
			continue;
		fputs(" \\\n    ", out);
		print_arg(&p->args[i], out);
	}
	fputc('\n', out);
}

void plan_print_command(const struct plan *p, enum plan_format f, bool explain, FILE *out)
{
	struct strv argv = { 0 };

	if (f == PLAN_LINES) {
		plan_argv(p, NULL, &argv);
		for (size_t i = 0; i < argv.n; i++)
			fprintf(out, "%s\n", argv.v[i]);
		strv_clear(&argv);
		return;
	}
	if (f == PLAN_SCRIPT)
		fputs(explain ? "#!/bin/bash\n" : "#!/bin/sh\n", out);
	print_head(p, explain, out);
	if (explain)
		print_explained(p, f == PLAN_SCRIPT, out);
	else
		print_plain(p, f == PLAN_SCRIPT, out);
}
