/* SPDX-License-Identifier: GPL-2.0-or-later */
/* plan_command.c - the command as a whole: for exec, and for people. */
#include <string.h>

#include "plan_priv.h"

/* --- the command as a whole ------------------------------------------------------------------------------------ */

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

void plan_argv(const struct plan *p, const struct plan_fds *fds, struct strv *ret)
{
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
		} else {
			strv_push(ret, a->value);
		}
	}
}

/* env(1): a quoted 'K=V W' would not be an assignment to the shell. */
static void print_env(const struct plan *p, FILE *out)
{
	if (p->env.n)
		fputs("env ", out);
	for (size_t i = 0; i < p->env.n; i++) {
		AUTO_FREE char *q = shell_quote(p->env.v[i]);

		fprintf(out, "%s ", q);
	}
}

static void print_shell(const struct plan *p, bool explain, FILE *out)
{
	const char *group = "";
	AUTO_FREE char *binary = shell_quote(p->qemu_binary);

	if (explain)
		fprintf(out, "# %s: QEMU %s\n", p->vm, p->qemu_version);
	/* A comment cannot stand inside a command that goes on over lines, but it can inside an array. */
	if (explain) {
		fprintf(out, "argv=(%s\n", binary);
	} else {
		print_env(p, out);
		fputs(binary, out);
	}
	for (size_t i = 0; i < p->n_args; i++) {
		const struct plan_arg *a = &p->args[i];
		AUTO_FREE char *flag = shell_quote(a->flag), *value = a->value ? shell_quote(a->value) : NULL;

		if (explain && strcmp(group, a->group) != 0)
			fprintf(out, "\n    # --- %s\n", a->group);
		group = a->group;
		if (explain)
			fprintf(out, "    # %s\n    %s%s%s\n", a->why, flag, value ? " " : "", value ? value : "");
		else
			fprintf(out, " \\\n    %s%s%s", flag, value ? " " : "", value ? value : "");
	}
	if (explain) {
		fputs(")\n", out);
		print_env(p, out);
		fputs("\"${argv[@]}\"", out);
	}
	fputc('\n', out);
}

void plan_print_command(const struct plan *p, enum plan_format f, bool explain, FILE *out)
{
	struct strv argv = { 0 };

	if (f == PLAN_SHELL) {
		print_shell(p, explain, out);
		return;
	}
	plan_argv(p, NULL, &argv);
	for (size_t i = 0; i < argv.n; i++)
		fprintf(out, "%s\n", argv.v[i]);
	strv_clear(&argv);
}
