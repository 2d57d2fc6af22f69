/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_diff.c - two QEMU commands compared by what they say. */
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/argv_diff.h"

#define LINE_MAX_WIDTH 120

/* Headings, in the order in which they are printed. */
static const char *const groups[] = { "program", "process", "machine", "cpu",	 "memory", "firmware", "control",
				      "disks",	 "network", "guest",   "objects", "pcie",   "devices",	"other" };

/* --- which belongs to which ------------------------------------------------------------------------------------- */

struct pairing {
	const struct argv_options *a, *b;
	const struct argv_option **of_a; /* partner of a->v[i], or NULL */
	bool *taken;			 /* b->v[k] has a partner */
};

static const char *text_of(const char *s)
{
	return s ? s : "";
}

static bool is_same(const struct argv_option *a, const struct argv_option *b)
{
	return strcmp(a->flag, b->flag) == 0 && !a->value == !b->value && strcmp(text_of(a->value), text_of(b->value)) == 0;
}

static bool is_same_thing(const struct argv_option *a, const struct argv_option *b)
{
	return strcmp(a->flag, b->flag) == 0 && strcmp(a->type, b->type) == 0 && strcmp(a->id, b->id) == 0;
}

static bool has_same_name(const struct argv_option *a, const struct argv_option *b)
{
	return *a->id && strcmp(a->flag, b->flag) == 0 && strcmp(a->id, b->id) == 0;
}

static void pair(struct pairing *p, bool (*belongs)(const struct argv_option *a, const struct argv_option *b))
{
	for (size_t i = 0; i < p->a->n; i++) {
		for (size_t k = 0; k < p->b->n && !p->of_a[i]; k++) {
			if (p->taken[k] || !belongs(&p->a->v[i], &p->b->v[k]))
				continue;
			p->of_a[i] = &p->b->v[k];
			p->taken[k] = true;
		}
	}
}

/* --- what differs ------------------------------------------------------------------------------------------------ */

static void add_delta(struct argv_change *c, const char *name, const char *a, const char *b)
{
	struct argv_delta *d;

	if (a && b && strcmp(a, b) == 0)
		return;
	d = PUSH_ZEROED(c->properties, c->n_properties);
	d->name = name;
	d->a = a;
	d->b = b;
}

static void compare_properties(struct argv_change *c)
{
	const struct argv_option *a = c->a, *b = c->b;

	if (a && b && strcmp(a->type, b->type) != 0)
		add_delta(c, "type", a->type, b->type);
	for (size_t i = 0; a && i < a->n_properties; i++)
		add_delta(c, a->properties[i].name, a->properties[i].value, b ? argv_option_get(b, a->properties[i].name) : NULL);
	for (size_t i = 0; b && i < b->n_properties; i++)
		if (!a || !argv_option_get(a, b->properties[i].name))
			add_delta(c, b->properties[i].name, NULL, b->properties[i].value);
}

static void add_change(struct argv_diff *d, enum argv_op op, const struct argv_option *a, const struct argv_option *b)
{
	struct argv_change *c = PUSH_ZEROED(d->v, d->n);

	c->op = op;
	c->a = a;
	c->b = b;
	compare_properties(c);
	/* Written differently, and saying the same. */
	if (op == ARGV_CHANGE && !c->n_properties)
		d->n--;
}

static const struct argv_option *of_change(const struct argv_change *c)
{
	return c->b ? c->b : c->a;
}

static void compare_group(const struct pairing *p, const char *group, struct argv_diff *ret)
{
	for (size_t i = 0; i < p->a->n; i++) {
		const struct argv_option *a = &p->a->v[i], *b = p->of_a[i];

		if (strcmp(b ? b->group : a->group, group) == 0 && !(b && is_same(a, b)))
			add_change(ret, b ? ARGV_CHANGE : ARGV_REMOVE, a, b);
	}
	for (size_t k = 0; k < p->b->n; k++)
		if (!p->taken[k] && strcmp(p->b->v[k].group, group) == 0)
			add_change(ret, ARGV_ADD, NULL, &p->b->v[k]);
}

void argv_compare(const struct argv_options *a, const struct argv_options *b, struct argv_diff *ret)
{
	struct pairing p = { .a = a, .b = b, .of_a = xcalloc(a->n + 1, sizeof(*p.of_a)), .taken = xcalloc(b->n + 1, sizeof(*p.taken)) };
	struct argv_diff d = { 0 };

	pair(&p, is_same);
	pair(&p, is_same_thing);
	pair(&p, has_same_name);
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		compare_group(&p, groups[i], &d);
	free(p.of_a);
	free(p.taken);
	*ret = d;
}

void argv_diff_clear(struct argv_diff *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->v[i].properties);
	free(d->v);
	*d = (struct argv_diff){ 0 };
}

/* --- for people ---------------------------------------------------------------------------------------------------- */

struct ink {
	const char *head, *change, *add, *remove, *off;
};
static const struct ink plain = { "", "", "", "", "" };
static const struct ink coloured = { "\033[1m", "\033[33m", "\033[32m", "\033[31m", "\033[0m" };

/* "host 0000:17:00.0 -> 0000:65:00.0", "-rombar 0", "+x-no-mmap on"; owned. */
static char *delta_text(const struct argv_delta *d)
{
	AUTO_FREE char *a = d->a ? shell_quote(d->a) : NULL, *b = d->b ? shell_quote(d->b) : NULL;

	if (!a || !b)
		return xasprintf("%s%s %s", a ? "-" : "+", d->name, a ? a : b);
	/* A text that has no name of its own. */
	if (strcmp(d->name, "value") == 0)
		return xasprintf("%s -> %s", a, b);
	return xasprintf("%s %s -> %s", d->name, a, b);
}

static void print_change(const struct argv_change *c, const struct ink *ink, FILE *out)
{
	const struct argv_option *o = c->b;
	AUTO_FREE char *head = xasprintf("%s%s%s%s%s", o->flag, *o->type ? " " : "", o->type, *o->id ? " " : "", o->id);
	AUTO_FREE char *line = xstrdup("");

	for (size_t i = 0; i < c->n_properties; i++) {
		AUTO_FREE char *before = line, *one = delta_text(&c->properties[i]);

		line = xasprintf("%s%s%s", before, i ? ", " : "", one);
	}
	if (strlen(head) + strlen(line) < LINE_MAX_WIDTH) {
		fprintf(out, "%s~ %s: %s%s\n", ink->change, head, line, ink->off);
		return;
	}
	fprintf(out, "%s~ %s:%s\n", ink->change, head, ink->off);
	for (size_t i = 0; i < c->n_properties; i++) {
		AUTO_FREE char *one = delta_text(&c->properties[i]);

		fprintf(out, "%s    %s%s\n", ink->change, one, ink->off);
	}
}

static void print_whole(const struct argv_change *c, const struct ink *ink, FILE *out)
{
	const struct argv_option *o = of_change(c);
	AUTO_FREE char *flag = shell_quote(o->flag), *value = o->value ? shell_quote(o->value) : xstrdup("");

	bool add = c->op == ARGV_ADD;

	fprintf(out, "%s%c %s%s%s%s\n", add ? ink->add : ink->remove, add ? '+' : '-', flag, o->value ? " " : "", value, ink->off);
}

void argv_diff_print(const struct argv_diff *d, const char *a_name, const char *b_name, bool colour, FILE *out)
{
	const struct ink *ink = colour ? &coloured : &plain;
	const char *group = "";

	if (!d->n)
		return;
	fprintf(out, "%s--- %s%s\n%s+++ %s%s\n", ink->remove, a_name, ink->off, ink->add, b_name, ink->off);
	for (size_t i = 0; i < d->n; i++) {
		const char *next = of_change(&d->v[i])->group;

		if (strcmp(group, next) != 0)
			fprintf(out, "%s[%s]%s\n", ink->head, next, ink->off);
		group = next;
		if (d->v[i].op == ARGV_CHANGE)
			print_change(&d->v[i], ink, out);
		else
			print_whole(&d->v[i], ink, out);
	}
}

/* --- for scripts --------------------------------------------------------------------------------------------------- */

static void add_string(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, value ? json_object_new_string(value) : NULL);
}

static struct json_object *change_json(const struct argv_change *c)
{
	static const char *const words[] = { [ARGV_CHANGE] = "change", [ARGV_ADD] = "add", [ARGV_REMOVE] = "remove" };
	struct json_object *o = json_object_new_object(), *properties = json_object_new_array();
	const struct argv_option *is = of_change(c);

	add_string(o, "op", words[c->op]);
	add_string(o, "group", is->group);
	add_string(o, "option", is->flag);
	add_string(o, "type", *is->type ? is->type : NULL);
	add_string(o, "id", *is->id ? is->id : NULL);
	for (size_t i = 0; i < c->n_properties; i++) {
		struct json_object *p = json_object_new_object();

		add_string(p, "name", c->properties[i].name);
		add_string(p, "a", c->properties[i].a);
		add_string(p, "b", c->properties[i].b);
		json_object_array_add(properties, p);
	}
	json_object_object_add(o, "properties", properties);
	return o;
}

struct json_object *argv_diff_to_json(const struct argv_diff *d, const char *a_name, const char *b_name)
{
	struct json_object *o = json_object_new_object(), *changes = json_object_new_array();

	json_object_object_add(o, "schema", json_object_new_int(1));
	add_string(o, "a", a_name);
	add_string(o, "b", b_name);
	for (size_t i = 0; i < d->n; i++)
		json_object_array_add(changes, change_json(&d->v[i]));
	json_object_object_add(o, "changes", changes);
	return o;
}
