/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "gpuvm/strv.h"

static void push_owned(struct strv *s, char *arg)
{
	s->v = xrealloc(s->v, (s->n + 2) * sizeof(*s->v));
	s->v[s->n++] = arg;
	s->v[s->n] = NULL;
}

void strv_push(struct strv *s, const char *arg)
{
	push_owned(s, xstrdup(arg));
}

void strv_pushf(struct strv *s, const char *fmt, ...)
{
	char *arg = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&arg, fmt, ap) < 0)
		abort();
	va_end(ap);
	push_owned(s, arg);
}

void strv_clear(struct strv *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct strv){ 0 };
}

bool strv_contains(const struct strv *s, const char *arg)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->v[i], arg) == 0)
			return true;
	return false;
}

/* Read one word at *@p into @word (large enough for the rest of the text). Returns -EINVAL on an open quote. */
static int split_word(const char **p, char *word)
{
	char quote = 0;

	for (; **p; (*p)++) {
		char c = **p;

		if (quote == '\'') {
			if (c == '\'')
				quote = 0;
			else
				*word++ = c;
		} else if (c == '\\' && (*p)[1]) {
			/* Inside "..", POSIX keeps the backslash before ordinary characters. */
			if (quote && !strchr("\\\"$`", (*p)[1]))
				*word++ = c;
			*word++ = *++*p;
		} else if (c == '"') {
			quote = quote ? 0 : '"';
		} else if (c == '\'' && !quote) {
			quote = '\'';
		} else if (!quote && strchr(" \t\n", c)) {
			break;
		} else {
			*word++ = c;
		}
	}
	*word = '\0';
	return quote ? -EINVAL : 0;
}

int strv_split_shell(const char *text, struct strv *ret, struct err *e)
{
	AUTO_FREE char *word = xcalloc(strlen(text) + 1, 1);
	struct strv words = { 0 };
	const char *p = text;

	for (;;) {
		p += strspn(p, " \t\n");
		if (!*p)
			break;
		if (split_word(&p, word) < 0) {
			strv_clear(&words);
			return err_set(e, -EINVAL, "a quote is opened and never closed");
		}
		strv_push(&words, word);
	}
	*ret = words;
	return 0;
}

char *shell_quote(const char *arg)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
	char *out, *o;

	if (*arg && strspn(arg, plain) == strlen(arg))
		return xstrdup(arg);
	out = o = xcalloc(4 * strlen(arg) + 3, 1);
	*o++ = '\'';
	for (; *arg; arg++) {
		if (*arg == '\'')
			o = stpcpy(o, "'\\''");
		else
			*o++ = *arg;
	}
	*o++ = '\'';
	return out;
}

static void qopt_putc(struct qopt *o, char c)
{
	o->buf = xrealloc(o->buf, o->len + 2);
	o->buf[o->len++] = c;
	o->buf[o->len] = '\0';
}

static void qopt_puts(struct qopt *o, const char *s)
{
	while (*s)
		qopt_putc(o, *s++);
}

void qopt_init(struct qopt *o, const char *head)
{
	*o = (struct qopt){ 0 };
	qopt_puts(o, head);
}

void qopt_str(struct qopt *o, const char *key, const char *value)
{
	if (o->len)
		qopt_putc(o, ',');
	qopt_puts(o, key);
	qopt_putc(o, '=');
	for (; *value; value++) {
		if (*value == ',')
			qopt_putc(o, ',');
		qopt_putc(o, *value);
	}
}

void qopt_fmt(struct qopt *o, const char *key, const char *fmt, ...)
{
	AUTO_FREE char *value = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&value, fmt, ap) < 0)
		abort();
	va_end(ap);
	qopt_str(o, key, value);
}

void qopt_u64(struct qopt *o, const char *key, uint64_t value)
{
	qopt_fmt(o, key, "%" PRIu64, value);
}

void qopt_bool(struct qopt *o, const char *key, bool value)
{
	qopt_str(o, key, value ? "on" : "off");
}

char *qopt_finish(struct qopt *o)
{
	char *s = o->buf ? o->buf : xstrdup("");

	*o = (struct qopt){ 0 };
	return s;
}
