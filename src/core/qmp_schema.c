/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/qmp_schema.h"
#include "gpuvm/qmp_words.h"

#define DEPTH_MAX 2   /* of objects in objects that are written out; types may contain themselves */
#define TEXT_MAX  600 /* of a type that is written out: blockdev options go on for pages */

static const char *text_field(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

/* An array's length, 0 for anything else. */
static size_t list_length(struct json_object *v)
{
	return json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;
}

static struct json_object *list_field(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_array) ? v : NULL;
}

static struct json_object *find(const struct qmp_schema *s, const char *name)
{
	struct json_object *v = NULL;

	return json_object_object_get_ex(s->byname, name, &v) ? v : NULL;
}

static bool is_meta(struct json_object *entry, const char *meta)
{
	return entry && strcmp(text_field(entry, "meta-type"), meta) == 0;
}

int qmp_schema_init(struct json_object *reply, struct qmp_schema *ret, struct err *e)
{
	struct qmp_schema s = { .byname = json_object_new_object() };

	for (size_t i = 0; i < list_length(reply); i++) {
		struct json_object *entry = json_object_array_get_idx(reply, i);

		if (json_object_is_type(entry, json_type_object) && *text_field(entry, "name"))
			json_object_object_add(s.byname, text_field(entry, "name"), json_object_get(entry));
	}
	if (!json_object_object_length(s.byname)) {
		qmp_schema_clear(&s);
		return err_set(e, -EPROTO, "query-qmp-schema: the reply has no entries");
	}
	s.reply = json_object_get(reply);
	*ret = s;
	return 0;
}

void qmp_schema_clear(struct qmp_schema *s)
{
	json_object_put(s->byname);
	json_object_put(s->reply);
	*s = (struct qmp_schema){ 0 };
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort(struct strv *v)
{
	if (v->n)
		qsort(v->v, v->n, sizeof(*v->v), by_name);
}

void qmp_schema_commands(const struct qmp_schema *s, struct strv *ret)
{
	json_object_object_foreach(s->byname, name, entry) {
		if (is_meta(entry, "command"))
			strv_push(ret, name);
	}
	sort(ret);
}

/* --- help ------------------------------------------------------------------------------------------------------------ */

static void print_type(const struct qmp_schema *s, const char *name, int depth, FILE *out);

static void print_enum(struct json_object *entry, FILE *out)
{
	struct json_object *values = list_field(entry, "values");

	for (size_t i = 0; i < list_length(values); i++)
		fprintf(out, "%s%s", i ? "|" : "", json_object_get_string(json_object_array_get_idx(values, i)));
}

static void print_object(const struct qmp_schema *s, struct json_object *entry, int depth, FILE *out)
{
	struct json_object *members = list_field(entry, "members");

	if (depth >= DEPTH_MAX) {
		fputs("{...}", out);
		return;
	}
	fputc('{', out);
	for (size_t i = 0; i < list_length(members); i++) {
		struct json_object *m = json_object_array_get_idx(members, i);

		fprintf(out, "%s%s%s: ", i ? ", " : "", text_field(m, "name"), json_object_object_get_ex(m, "default", NULL) ? "?" : "");
		print_type(s, text_field(m, "type"), depth + 1, out);
	}
	fputs(list_length(list_field(entry, "variants")) ? ", ...}" : "}", out);
}

static void print_alternate(const struct qmp_schema *s, struct json_object *entry, int depth, FILE *out)
{
	struct json_object *members = list_field(entry, "members");

	for (size_t i = 0; i < list_length(members); i++) {
		fputs(i ? " or " : "", out);
		print_type(s, text_field(json_object_array_get_idx(members, i), "type"), depth + 1, out);
	}
}

static void print_type(const struct qmp_schema *s, const char *name, int depth, FILE *out)
{
	struct json_object *entry = find(s, name);

	if (is_meta(entry, "builtin")) {
		fputs(text_field(entry, "json-type"), out);
	} else if (is_meta(entry, "enum")) {
		print_enum(entry, out);
	} else if (is_meta(entry, "array")) {
		fputc('[', out);
		print_type(s, text_field(entry, "element-type"), depth, out);
		fputc(']', out);
	} else if (is_meta(entry, "object")) {
		print_object(s, entry, depth, out);
	} else if (is_meta(entry, "alternate")) {
		print_alternate(s, entry, depth, out);
	} else {
		fputs("?", out);
	}
}

/* Owned. */
static char *type_text(const struct qmp_schema *s, const char *name)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	print_type(s, name, 0, f);
	if (fclose(f))
		abort();
	if (len > TEXT_MAX)
		memcpy(text + TEXT_MAX - 3, "...", 4);
	return text;
}

static void print_members(const struct qmp_schema *s, struct json_object *type, FILE *out)
{
	struct json_object *members = list_field(type, "members");

	for (size_t i = 0; i < list_length(members); i++) {
		struct json_object *m = json_object_array_get_idx(members, i);
		AUTO_FREE char *text = type_text(s, text_field(m, "type"));
		bool optional = json_object_object_get_ex(m, "default", NULL);

		fprintf(out, "    %-22s %s%s\n", text_field(m, "name"), text, optional ? " (optional)" : "");
	}
}

char *qmp_schema_help(const struct qmp_schema *s, const char *command)
{
	struct json_object *entry = find(s, command), *type, *variants;
	AUTO_FREE char *returns = NULL;
	char *text = NULL;
	size_t len = 0;
	FILE *f;

	if (!is_meta(entry, "command"))
		return NULL;
	f = open_memstream(&text, &len);
	fprintf(f, "%s\n", command);
	type = find(s, text_field(entry, "arg-type"));
	print_members(s, type, f);
	variants = list_field(type, "variants");
	if (list_length(variants))
		fprintf(f, "    ...                    more, by %s (completion knows them)\n", text_field(type, "tag"));
	returns = type_text(s, text_field(entry, "ret-type"));
	fprintf(f, "  returns %s\n", returns);
	if (fclose(f))
		abort();
	return text;
}

/* --- completion ---------------------------------------------------------------------------------------------------- */

static void offer(struct strv *ret, const char *word, const char *candidate, const char *suffix)
{
	if (strncmp(candidate, word, strlen(word)) == 0)
		strv_pushf(ret, "%s%s", candidate, suffix);
}

/* Value of the word "NAME=VALUE" in @words; NULL. */
static const char *given(const struct strv *words, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 1; i < words->n; i++)
		if (strncmp(words->v[i], name, len) == 0 && words->v[i][len] == '=')
			return words->v[i] + len + 1;
	return NULL;
}

/* The type of the members that come with the tag's value, if that is given. */
static struct json_object *variant_type(const struct qmp_schema *s, struct json_object *type, const struct strv *words)
{
	struct json_object *variants = list_field(type, "variants");
	const char *tag = list_length(variants) ? given(words, text_field(type, "tag")) : NULL;

	for (size_t i = 0; tag && i < list_length(variants); i++) {
		struct json_object *v = json_object_array_get_idx(variants, i);

		if (strcmp(text_field(v, "case"), tag) == 0)
			return find(s, text_field(v, "type"));
	}
	return NULL;
}

static void offer_names(struct json_object *type, const struct strv *words, const char *word, struct strv *ret)
{
	struct json_object *members = list_field(type, "members");

	for (size_t i = 0; i < list_length(members); i++) {
		const char *name = text_field(json_object_array_get_idx(members, i), "name");

		if (!given(words, name))
			offer(ret, word, name, "=");
	}
}

static const char *member_type(struct json_object *type, const char *name)
{
	struct json_object *members = list_field(type, "members");

	for (size_t i = 0; i < list_length(members); i++) {
		struct json_object *m = json_object_array_get_idx(members, i);

		if (strcmp(text_field(m, "name"), name) == 0)
			return text_field(m, "type");
	}
	return NULL;
}

static void offer_values(const struct qmp_schema *s, const char *type, const char *word, struct strv *ret)
{
	struct json_object *entry = find(s, type), *values = list_field(entry, "values");

	for (size_t i = 0; is_meta(entry, "enum") && i < list_length(values); i++)
		offer(ret, word, json_object_get_string(json_object_array_get_idx(values, i)), "");
	if (is_meta(entry, "builtin") && strcmp(text_field(entry, "json-type"), "boolean") == 0) {
		offer(ret, word, "false", "");
		offer(ret, word, "true", "");
	}
}

static void complete_argument(const struct qmp_schema *s, const struct strv *words, bool value, const char *word, struct strv *ret)
{
	struct json_object *command = find(s, words->v[0]);
	struct json_object *type = find(s, text_field(command, "arg-type")), *more = variant_type(s, type, words);

	if (value) {
		AUTO_FREE char *name = xstrndup(words->v[words->n - 1], strcspn(words->v[words->n - 1], "="));
		const char *of = member_type(type, name);

		of = of ? of : member_type(more, name);
		if (of)
			offer_values(s, of, word, ret);
		return;
	}
	offer_names(type, words, word, ret);
	offer_names(more, words, word, ret);
}

void qmp_schema_complete(const struct qmp_schema *s, const char *before, const char *word, struct strv *ret)
{
	struct strv words = { 0 };
	size_t len = strlen(before);
	struct err e = { 0 };

	/* An open quote or bracket: nothing is known of what is in it. */
	if (qmp_words_split(before, &words, &e) < 0)
		return;
	if (words.n == 1 && strcmp(words.v[0], "help") == 0 && before[len - 1] != '=')
		strv_clear(&words);
	if (!words.n) {
		struct strv commands = { 0 };

		qmp_schema_commands(s, &commands);
		for (size_t i = 0; i < commands.n; i++)
			offer(ret, word, commands.v[i], "");
		strv_clear(&commands);
	} else if (is_meta(find(s, words.v[0]), "command")) {
		complete_argument(s, &words, len && before[len - 1] == '=', word, ret);
	}
	sort(ret);
	strv_clear(&words);
}
