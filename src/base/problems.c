/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <json-c/json.h>
#include <stdarg.h>

#include "gpuvm/err.h"
#include "gpuvm/problems.h"

struct problem *problems_add(struct problems *ps, enum problem_kind kind, const char *code, const char *fmt, ...)
{
	struct problem *p = PUSH_ZEROED(ps->v, ps->n);
	va_list ap;

	p->kind = kind;
	p->code = code;
	va_start(ap, fmt);
	if (vasprintf(&p->message, fmt, ap) < 0)
		abort();
	va_end(ap);
	text_plain(p->message);
	return p;
}

void problem_hint(struct problem *p, const char *fmt, ...)
{
	va_list ap;

	free(p->hint);
	va_start(ap, fmt);
	if (vasprintf(&p->hint, fmt, ap) < 0)
		abort();
	va_end(ap);
	text_plain(p->hint);
}

void problem_device(struct problem *p, const char *bdf)
{
	free(p->device);
	p->device = xstrdup(bdf);
}

void problem_where(struct problem *p, const char *file, int line)
{
	free(p->file);
	p->file = file ? xstrdup(file) : NULL;
	p->line = line;
}

void problems_clear(struct problems *ps)
{
	for (size_t i = 0; i < ps->n; i++) {
		free(ps->v[i].message);
		free(ps->v[i].hint);
		free(ps->v[i].device);
		free(ps->v[i].file);
	}
	free(ps->v);
	*ps = (struct problems){ 0 };
}

int problems_exit_code(const struct problems *ps)
{
	static const int codes[] = { [PROBLEM_CONFIG] = 3, [PROBLEM_HOST] = 4, [PROBLEM_BUSY] = 5 };
	int code = 0;

	for (size_t i = 0; i < ps->n; i++)
		if (!code || codes[ps->v[i].kind] < code)
			code = codes[ps->v[i].kind];
	return code;
}

void problems_print(const struct problems *ps, FILE *out)
{
	for (size_t i = 0; i < ps->n; i++) {
		const struct problem *p = &ps->v[i];

		if (p->file && p->line)
			fprintf(out, "%s:%d: %s\n", p->file, p->line, p->message);
		else if (p->file)
			fprintf(out, "%s: %s\n", p->file, p->message);
		else
			fprintf(out, "%s\n", p->message);
		if (p->hint)
			fprintf(out, "    %s\n", p->hint);
	}
}

static void add_string(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, value ? json_object_new_string(value) : NULL);
}

struct json_object *problems_to_json(const struct problems *ps, const char *vm)
{
	struct json_object *o = json_object_new_object(), *errors = json_object_new_array();

	json_object_object_add(o, "schema", json_object_new_int(1));
	add_string(o, "vm", vm);
	for (size_t i = 0; i < ps->n; i++) {
		const struct problem *p = &ps->v[i];
		struct json_object *j = json_object_new_object();

		add_string(j, "code", p->code);
		add_string(j, "message", p->message);
		add_string(j, "hint", p->hint);
		add_string(j, "device", p->device);
		add_string(j, "file", p->file);
		json_object_object_add(j, "line", p->line ? json_object_new_int(p->line) : NULL);
		json_object_array_add(errors, j);
	}
	json_object_object_add(o, "errors", errors);
	return o;
}
