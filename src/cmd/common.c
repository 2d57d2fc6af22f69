/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <string.h>

#include "cmd.h"
#include "gpuvm/log.h"

char *cmd_definition_path(const char *name_or_path)
{
	const char *dot = strrchr(name_or_path, '.');

	if (strchr(name_or_path, '/') || (dot && strcmp(dot, ".ini") == 0))
		return xstrdup(name_or_path);
	return xasprintf("%s/%s.ini", launch_config_dir(), name_or_path);
}

char *cmd_vm_name(const char *name_or_path)
{
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	struct strv none = { 0 };
	char *name;

	if (!strchr(name_or_path, '/') && !strstr(name_or_path, ".ini"))
		return xstrdup(name_or_path);
	/* The name that the definition gives, or at least the one that the file has. */
	if (config_load(name_or_path, &none, &vm, &ps) == 0) {
		name = xstrdup(vm.name);
	} else {
		const char *base = strrchr(name_or_path, '/');
		size_t len;

		base = base ? base + 1 : name_or_path;
		len = strlen(base);
		name = xstrndup(base, len > 4 && strcmp(base + len - 4, ".ini") == 0 ? len - 4 : len);
	}
	config_clear(&vm);
	problems_clear(&ps);
	return name;
}

bool cmd_check_name(const char *verb, const char *name)
{
	AUTO_FREE char *set = xasprintf("vm.name=%s", name);
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	struct strv sets = { 0 };
	const char *dot = strrchr(name, '.');
	bool ok;

	strv_push(&sets, set);
	/* The parser cuts blanks off. */
	ok = config_parse(NULL, "", 0, &sets, &vm, &ps) == 0 && strcmp(vm.name, name) == 0;
	if (!ok)
		fprintf(stderr, "gpuvm %s: '%s' is not a name of a VM%s%s\n", verb, name, ps.n && ps.v[0].hint ? ": " : "",
			ps.n && ps.v[0].hint ? ps.v[0].hint : "");
	else if (dot && strcmp(dot, ".ini") == 0)
		fprintf(stderr, "gpuvm %s: '%s': a name that ends in .ini is taken for a file\n", verb, name);
	config_clear(&vm);
	problems_clear(&ps);
	strv_clear(&sets);
	return ok && !(dot && strcmp(dot, ".ini") == 0);
}

int cmd_parse_simple(int argc, char **argv, const char *usage, bool want_name, struct cmd_simple *ret)
{
	const struct option options[] = { { ret->flag ? ret->flag : "json", no_argument, NULL, 'f' },
					  { "help", no_argument, NULL, 'h' },
					  { ret->both_flags ? "json" : NULL, no_argument, NULL, 'j' },
					  { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'f')
			*(ret->flag ? &ret->flag_set : &ret->json) = true;
		else if (c == 'j')
			ret->json = true;
		else if (c == 'h')
			ret->help = true;
		else
			return EXIT_USAGE;
	}
	if (ret->help) {
		fputs(usage, stdout);
		return 0;
	}
	if (optind < argc)
		ret->name = argv[optind++];
	if ((want_name && !ret->name) || optind < argc) {
		fprintf(stderr, "gpuvm %s: %s\n%s", argv[0], optind < argc ? "too many words" : "which VM?", usage);
		return EXIT_USAGE;
	}
	return 0;
}

void cmd_print_json(struct json_object *o)
{
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

int cmd_report(const struct problems *ps, const struct err *e, const char *vm, bool json)
{
	struct problems one = { 0 };
	int code = ps->n ? problems_exit_code(ps) : EXIT_FAILED;

	if (!ps->n) {
		problems_add(&one, PROBLEM_HOST, e->word ? e->word : "failed", "%s", e->msg);
		ps = &one;
	}
	if (json)
		cmd_print_json(problems_to_json(ps, vm));
	else
		problems_print(ps, stderr);
	problems_clear(&one);
	return code;
}

static int connect_to(const char *sock, uint64_t timeout_ms, struct qmp *ret, struct err *e)
{
	int r = qmp_connect(sock, -1, ret, e);

	if (r == 0) {
		r = qmp_handshake(ret, timeout_ms, NULL, NULL, e);
		if (r < 0)
			qmp_close(ret);
	}
	/* QEMU listens again only when its client has gone; until then others are in the queue of the socket, or find it full. */
	if (r == -ETIMEDOUT || r == -EAGAIN)
		return err_set(e, r,
			       "'%s' does not greet: QEMU serves one client at a time, so another `gpuvm qmp` or qmp-shell is connected "
			       "(`ss -xp | grep %s` shows it), or QEMU hangs",
			       sock, strrchr(sock, '/') + 1);
	return r;
}

int cmd_connect_monitor(const struct claim *c, uint64_t timeout_ms, struct qmp *ret, struct err *e)
{
	AUTO_FREE char *sock = xasprintf("%s/qmp.sock", c->rundir);

	return connect_to(sock, timeout_ms, ret, e);
}

int cmd_connect_verbs(const struct claim *c, uint64_t timeout_ms, struct qmp *ret, struct err *e)
{
	AUTO_FREE char *sock = xasprintf("%s/verbs.sock", c->rundir);

	return access(sock, F_OK) == 0 ? connect_to(sock, timeout_ms, ret, e) : cmd_connect_monitor(c, timeout_ms, ret, e);
}

int cmd_running_claim(const char *name_or_path, struct claim *ret)
{
	AUTO_FREE char *name = cmd_vm_name(name_or_path), *dir = claim_vm_dir(name);
	struct err e = { 0 };
	int r = claim_read(dir, ret, &e);

	if (r == -ENOENT) {
		log_error("VM '%s' does not run", name);
		return EXIT_FAILED;
	}
	if (r < 0) {
		log_error("%s", e.msg);
		return EXIT_FAILED;
	}
	return 0;
}

int cmd_finish_output(int code)
{
	bool failed = ferror(stdout);

	if (fflush(stdout) == 0 && !failed)
		return code;
	log_error("write to standard output: %s", strerror(errno ? errno : EIO));
	return code == EXIT_DONE ? EXIT_FAILED : code;
}
