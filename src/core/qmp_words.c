/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <string.h>

#include "gpuvm/qmp_words.h"

#define DEPTH_MAX 32 /* as json-c */

/* --- a line into words --------------------------------------------------------------------------------------------- */

/* From an opening bracket to the one that closes it, as it stands; NULL if none does. */
static const char *copy_brackets(const char *p, char **to)
{
	bool string = false;
	int depth = 0;

	for (; *p; p++) {
		*(*to)++ = *p;
		if (string && *p == '\\' && p[1])
			*(*to)++ = *++p;
		else if (*p == '"')
			string = !string;
		else if (!string && (*p == '{' || *p == '['))
			depth++;
		else if (!string && (*p == '}' || *p == ']') && --depth == 0)
			return p + 1;
	}
	return NULL;
}

/* From a quote to the one that closes it, without both; NULL if none does. */
static const char *copy_quoted(const char *p, char **to)
{
	char quote = *p++;

	for (; *p && *p != quote; p++) {
		if (quote == '"' && *p == '\\' && (p[1] == '"' || p[1] == '\\'))
			p++;
		*(*to)++ = *p;
	}
	return *p ? p + 1 : NULL;
}

/* One word at @p, into @to; NULL if a quote or bracket stays open. */
static const char *copy_word(const char *p, char *to)
{
	while (p && *p && !strchr(" \t\r\n", *p)) {
		if (*p == '{' || *p == '[') {
			p = copy_brackets(p, &to);
		} else if (*p == '"' || *p == '\'') {
			p = copy_quoted(p, &to);
		} else {
			p += *p == '\\' && p[1];
			*to++ = *p++;
		}
	}
	*to = '\0';
	return p;
}

int qmp_words_split(const char *line, struct strv *ret, struct err *e)
{
	AUTO_FREE char *word = xcalloc(strlen(line) + 1, 1);
	struct strv words = { 0 };

	for (const char *p = line + strspn(line, " \t\r\n"); *p; p += strspn(p, " \t\r\n")) {
		p = copy_word(p, word);
		if (!p) {
			strv_clear(&words);
			return err_set(e, -EINVAL, "a quote or bracket is opened and never closed");
		}
		strv_push(&words, word);
	}
	*ret = words;
	return 0;
}

/* --- words into arguments -------------------------------------------------------------------------------------------- */

/* The whole of @text as JSON; 0 or -EINVAL. */
static int parse_whole(const char *text, struct json_object **ret)
{
	struct json_tokener *tok = json_tokener_new_ex(DEPTH_MAX);
	size_t len = strlen(text);
	struct json_object *o;
	bool ok;

	json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
	/* With its final NUL: a number may go on until then. */
	o = json_tokener_parse_ex(tok, text, (int)len + 1);
	ok = json_tokener_get_error(tok) == json_tokener_success && json_tokener_get_parse_end(tok) == len;
	json_tokener_free(tok);
	/* json-c has numbers that JSON has not: NaN, Infinity. */
	if (!ok || (json_object_is_type(o, json_type_double) && !isfinite(json_object_get_double(o)))) {
		json_object_put(o);
		return -EINVAL;
	}
	*ret = o;
	return 0;
}

static int parse_value(const char *word, const char *text, struct json_object **ret, struct err *e)
{
	if (*text && parse_whole(text, ret) == 0)
		return 0;
	if (*text == '{' || *text == '[')
		return err_set(e, -EINVAL, "'%s': the value is not JSON", word);
	*ret = json_object_new_string(text);
	return 0;
}

/* The object in which the last name of a dotted one goes; @name is moved to that. -EINVAL if one on the way is no object. */
static struct json_object *walk_dots(struct json_object *o, const char **name)
{
	for (const char *dot; (dot = strchr(*name, '.')); *name = dot + 1) {
		AUTO_FREE char *key = xstrndup(*name, (size_t)(dot - *name));
		struct json_object *next = NULL;

		if (!json_object_object_get_ex(o, key, &next)) {
			next = json_object_new_object();
			json_object_object_add(o, key, next);
		}
		if (!json_object_is_type(next, json_type_object))
			return NULL;
		o = next;
	}
	return o;
}

static int add_word(struct json_object *args, const char *word, struct err *e)
{
	const char *eq = strchr(word, '='), *last;
	AUTO_FREE char *name = eq ? xstrndup(word, (size_t)(eq - word)) : NULL;
	struct json_object *value = NULL, *parent;
	int r;

	if (!eq || eq == word)
		return err_set(e, -EINVAL, "'%s' is not NAME=VALUE", word);
	r = parse_value(word, eq + 1, &value, e);
	if (r < 0)
		return r;
	last = name;
	parent = walk_dots(args, &last);
	if (!parent || json_object_object_get_ex(parent, last, NULL)) {
		json_object_put(value);
		return err_set(e, -EINVAL, "'%s': '%s' is given already", word, name);
	}
	json_object_object_add(parent, last, value);
	return 0;
}

int qmp_words_arguments(char *const *words, size_t n, struct json_object **ret, struct err *e)
{
	struct json_object *args = NULL;
	int r = 0;

	if (n == 1 && words && *words[0] == '{') {
		r = parse_whole(words[0], &args);
		if (r < 0)
			return err_set(e, r, "the arguments are not a JSON object: %s", words[0]);
		*ret = args;
		return 0;
	}
	if (n)
		args = json_object_new_object();
	for (size_t i = 0; words && i < n && r == 0; i++)
		r = add_word(args, words[i], e);
	if (r < 0)
		json_object_put(args);
	else
		*ret = args;
	return r;
}

/* {"execute": "query-status"} */
static int read_message(const char *text, char **ret_command, struct json_object **ret_arguments, struct err *e)
{
	struct json_object *msg = NULL, *execute = NULL, *args = NULL;
	bool named;

	if (parse_whole(text, &msg) < 0)
		return err_set(e, -EINVAL, "the line is not a JSON message: %s", text);
	named = json_object_object_get_ex(msg, "execute", &execute) && json_object_is_type(execute, json_type_string);
	json_object_object_get_ex(msg, "arguments", &args);
	if (named) {
		*ret_command = xstrdup(json_object_get_string(execute));
		*ret_arguments = json_object_get(args);
	}
	json_object_put(msg);
	return named ? 0 : err_set(e, -EINVAL, "the message has no \"execute\"");
}

int qmp_words_line(const char *line, char **ret_command, struct json_object **ret_arguments, struct err *e)
{
	struct json_object *args = NULL;
	struct strv words = { 0 };
	int r;

	*ret_command = NULL;
	*ret_arguments = NULL;
	line += strspn(line, " \t\r\n");
	if (!*line || *line == '#')
		return 0;
	r = qmp_words_split(line, &words, e);
	if (r < 0)
		return r;
	if (words.n == 1 && *words.v[0] == '{') {
		r = read_message(words.v[0], ret_command, ret_arguments, e);
	} else {
		r = qmp_words_arguments(words.v + 1, words.n - 1, &args, e);
		if (r == 0 && words.n) {
			*ret_command = xstrdup(words.v[0]);
			*ret_arguments = args;
		}
	}
	strv_clear(&words);
	return r;
}
