/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_values.c - one value of a definition: text to field, and what to say when it is not right. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "config_impl.h"

/* --- words and names --------------------------------------------------------------------------- */

static const struct config_word *find_word(const struct config_key *k, const char *value)
{
	for (const struct config_word *w = k->words; w && w->word; w++)
		if (!strcmp(w->word, value))
			return w;
	return NULL;
}

bool config_name_ok(const char *s, size_t max)
{
	size_t len = strlen(s);

	return len && len <= max && *s != '-' && *s != '.' && strspn(s, CONFIG_NAME_CHARS) == len;
}

unsigned int config_nearness(const char *word, const char *candidate)
{
	char lower[64];
	size_t len = strlen(word), common;
	unsigned int d;

	if (len < 2 || len >= sizeof(lower))
		return 0;
	for (size_t i = 0; i <= len; i++)
		lower[i] = (char)tolower((unsigned char)word[i]);
	d = edit_distance(lower, candidate);
	/* Two changes make any three letters out of any other three: short words must be nearer. */
	if (d <= 2 && 2 * d <= strlen(candidate))
		return d + 1;
	common = len < strlen(candidate) ? len : strlen(candidate);
	return common >= 2 && !strncmp(lower, candidate, common) ? 4 : 0;
}

char *config_quote(const char *value)
{
	enum { SHOWN = 60 };
	size_t len = strlen(value), cut = SHOWN;

	if (len <= SHOWN)
		return xasprintf("'%s'", value);
	/* Not in the middle of a UTF-8 sequence: messages become JSON. */
	while (cut && ((unsigned char)value[cut] & 0xc0) == 0x80)
		cut--;
	return xasprintf("'%.*s...' (%zu bytes)", (int)cut, value, len);
}

/* --- what is expected -------------------------------------------------------------------------- */

static char *nearest_word(const struct config_key *k, const char *value)
{
	unsigned int best = UINT_MAX;
	const char *found = NULL;

	for (const struct config_word *w = k->words; w && w->word; w++) {
		unsigned int d = config_nearness(value, w->word);

		if (d && d < best) {
			best = d;
			found = w->word;
		}
	}
	return found ? xasprintf("did you mean '%s'?", found) : NULL;
}

/* "auto, kvm or tcg"; "" without words. */
static char *word_list(const struct config_key *k)
{
	char *list = xstrdup("");

	for (const struct config_word *w = k->words; w && w->word; w++) {
		const char *joint = !*list ? "" : w[1].word || k->type != CONF_ENUM ? ", " : " or ";
		char *longer = xasprintf("%s%s%s", list, joint, w->word);

		free(list);
		list = longer;
	}
	return list;
}

/* "0 to 15", "16 MiB to 64 TiB", "1 ms to 604800 s" */
static char *range_text(const struct config_key *k)
{
	char low[32], high[32];

	switch (k->type) {
	case CONF_SIZE:
		return xasprintf("%s to %s", format_size((uint64_t)k->min, low), format_size((uint64_t)k->max, high));
	case CONF_DURATION:
		return xasprintf("%" PRId64 " ms to %" PRId64 " s", k->min, k->max / 1000);
	default:
		return xasprintf("%" PRId64 " to %" PRId64, k->min, k->max);
	}
}

static char *expected_form(const struct config_key *k)
{
	AUTO_FREE char *range = range_text(k);

	switch (k->type) {
	case CONF_NAME:
		return xasprintf("letters, digits, '-', '_' and '.', not beginning with '-' or '.', at most %" PRId64
				 " characters",
				 k->max);
	case CONF_UUID:
		return xstrdup("a UUID like 6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11");
	case CONF_PATH:
		return xstrdup("an absolute path");
	case CONF_BOOL:
		return xstrdup("on or off");
	case CONF_INT:
		return xasprintf("a number from %s", range);
	case CONF_SIZE:
		return xasprintf("a size like 512M, 960G or 1.5T from %s", range);
	case CONF_DURATION:
		return xasprintf("a time like 500ms, 90s or 5min from %s", range);
	case CONF_PCI:
		return xstrdup("a PCI address like 0000:17:00.0");
	case CONF_MAC:
		return xstrdup("a unicast MAC address like 52:54:00:12:34:56");
	case CONF_CUSTOM:
		return k->parse == config_parse_env         ? xstrdup("NAME=VALUE words")
		       : k->parse == config_parse_hugepages ? xstrdup("")
							    : xstrdup("a CPU list like 4-27,100-123");
	case CONF_STRING:
		if (k->max)
			return xasprintf("one word of at most %" PRId64 " characters", k->max);
		return xstrdup(k->words ? "one word" : "");
	default:
		return xstrdup("");
	}
}

static bool is_quoted(const char *value)
{
	size_t len = strlen(value);

	return len >= 2 && (*value == '"' || *value == '\'') && value[len - 1] == *value;
}

/* Many INI readers, inih unless told otherwise, take " ;" for the begin of a comment. Here it is part of the value,
 * which is rarely meant. */
static bool has_inline_comment(const char *value)
{
	return strstr(value, " ;") || strstr(value, " #") || strstr(value, "\t;") || strstr(value, "\t#");
}

char *config_expected(const struct config_key *k)
{
	AUTO_FREE char *words = word_list(k);
	AUTO_FREE char *form = expected_form(k);

	return xasprintf("%s%s%s", words, *words && *form ? ", or " : "", form);
}

char *config_value_hint(const struct config_key *k, const char *value)
{
	AUTO_FREE char *expected = config_expected(k);
	char *near;

	if (has_inline_comment(value))
		return xstrdup("a comment needs a line of its own");
	if (is_quoted(value))
		return xstrdup("values are written without quotes");
	near = nearest_word(k, value);
	return near || !*expected ? near : xasprintf("expected %s", expected);
}

/* --- storing ----------------------------------------------------------------------------------- */

static void store_string(void *field, const char *value)
{
	free(*(char **)field);
	*(char **)field = value ? xstrdup(value) : NULL;
}

static int out_of_range(const struct config_key *k, struct err *e)
{
	AUTO_FREE char *range = range_text(k);

	return err_set(e, -ERANGE, "is out of range (%s)", range);
}

static int set_int(int *field, const struct config_key *k, const char *value, struct err *e)
{
	int r = parse_int(value, (int)k->min, (int)k->max, field);

	if (r == -ERANGE)
		return out_of_range(k, e);
	return r < 0 ? err_set(e, r, "is not a number") : 0;
}

static int set_enum(struct err *e, const struct config_key *k)
{
	AUTO_FREE char *words = word_list(k);

	return err_set(e, -EINVAL, "is not one of %s", words);
}

/* Sizes and times: a uint64 in the range of the key. */
static int set_amount(uint64_t *field, const struct config_key *k, const char *value, struct err *e)
{
	bool size = k->type == CONF_SIZE;
	uint64_t v = 0;
	int r = size ? parse_size(value, &v) : parse_duration(value, &v);

	if (r == -ERANGE || (r == 0 && (v < (uint64_t)k->min || v > (uint64_t)k->max)))
		return out_of_range(k, e);
	if (r < 0)
		return err_set(e, r, size ? "is not a size" : "is not a time");
	*field = v;
	return 0;
}

static int too_long(const struct config_key *k, const char *value, struct err *e)
{
	return err_set(e, -EINVAL, "is too long: %zu characters, at most %" PRId64, strlen(value), k->max);
}

static int check_name(const struct config_key *k, const char *value, struct err *e)
{
	if (strlen(value) > (size_t)k->max)
		return too_long(k, value, e);
	if (!config_name_ok(value, (size_t)k->max))
		return err_set(e, -EINVAL, "is not a name");
	return 0;
}

/* "xx-x": hex digits where the pattern has x, else the same character. */
static bool matches(const char *pattern, const char *value)
{
	for (; *pattern && *value; pattern++, value++)
		if (*pattern == 'x' ? !isxdigit((unsigned char)*value) : *value != *pattern)
			return false;
	return !*pattern && !*value;
}

static int check_mac(const char *value, struct err *e)
{
	uint64_t first;
	char byte[3];

	if (!matches("xx:xx:xx:xx:xx:xx", value))
		return err_set(e, -EINVAL, "is not a MAC address");
	snprintf(byte, sizeof(byte), "%.2s", value);
	if (parse_hex(byte, 0xff, &first) == 0 && first & 1)
		return err_set(e, -EINVAL, "is a multicast address, which no interface can have");
	if (strspn(value, "0:") == strlen(value))
		return err_set(e, -EINVAL, "is all zeros, which no interface can have");
	return 0;
}

static int check_string(const struct config_key *k, const char *value, struct err *e)
{
	switch (k->type) {
	case CONF_NAME:
		return check_name(k, value, e);
	case CONF_UUID:
		return matches("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", value) ? 0
									      : err_set(e, -EINVAL, "is not a UUID");
	case CONF_MAC:
		return check_mac(value, e);
	case CONF_PATH:
		if (*value != '/')
			return err_set(e, -EINVAL, "is not an absolute path");
		if (strlen(value) >= PATH_MAX)
			return err_set(e, -EINVAL, "is too long for a path");
		return has_inline_comment(value) ? err_set(e, -EINVAL, "has a comment in it") : 0;
	default:
		/* A string that has words is a word itself (a machine type); the others are free text. */
		if (k->words && strpbrk(value, " \t"))
			return err_set(e, -EINVAL, "is more than one word");
		/* QEMU and the guest would each cut it somewhere, silently. */
		return k->max && strlen(value) > (size_t)k->max ? too_long(k, value, e) : 0;
	}
}

static int set_string(void *field, const struct config_key *k, const char *value, struct err *e)
{
	int r = check_string(k, value, e);

	if (r == 0)
		store_string(field, value);
	return r;
}

static void set_word(void *field, const struct config_key *k, const struct config_word *w)
{
	switch (k->type) {
	case CONF_INT:
	case CONF_ENUM:
		*(int *)field = (int)w->value;
		break;
	case CONF_SIZE:
	case CONF_DURATION:
		/* CONF_AUTO in an int64 field and in a uint64 one are the same bits. */
		*(uint64_t *)field = (uint64_t)w->value;
		break;
	default:
		store_string(field, w->value == CONF_AUTO ? NULL : w->word);
	}
}

int config_set_value(struct vm_config *vm, void *base, const struct config_key *k, const char *value, struct err *e)
{
	void *field = (char *)base + k->offset;
	const struct config_word *w = find_word(k, value);
	int r;

	if (k->type == CONF_CUSTOM)
		return k->parse(vm, value, e);
	if (w) {
		set_word(field, k, w);
		return 0;
	}
	switch (k->type) {
	case CONF_BOOL:
		r = parse_bool(value, field);
		return r < 0 ? err_set(e, r, "is not on or off") : 0;
	case CONF_INT:
		return set_int(field, k, value, e);
	case CONF_ENUM:
		return set_enum(e, k);
	case CONF_SIZE:
	case CONF_DURATION:
		return set_amount(field, k, value, e);
	case CONF_PCI:
		r = parse_pci_addr(value, field);
		return r < 0 ? err_set(e, r, "is not a PCI address") : 0;
	default:
		return set_string(field, k, value, e);
	}
}

static bool owns_string(const struct config_key *k)
{
	return k->type == CONF_STRING || k->type == CONF_NAME || k->type == CONF_UUID || k->type == CONF_PATH ||
	       k->type == CONF_MAC;
}

void config_free_values(void *base, const char *section)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		if (owns_string(k) && !strcmp(k->section, section))
			store_string((char *)base + k->offset, NULL);
	}
}

void config_set_defaults(struct vm_config *vm, void *base, const char *section)
{
	struct err e;

	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		/* A default that its own key refuses is a bug of the table; the tests walk over it. */
		if (*k->fallback && !strcmp(k->section, section) && config_set_value(vm, base, k, k->fallback, &e) < 0)
			abort();
	}
}

/* --- keys with a form of their own -------------------------------------------------------------- */

static int bad_cpu_list(int r, struct err *e)
{
	if (r == -ERANGE)
		return err_set(e, r, "has a CPU number above %d", CPUSET_MAX - 1);
	return err_set(e, r, "is not a CPU list");
}

int config_parse_pin(struct vm_config *vm, const char *value, struct err *e)
{
	enum conf_pin pin = !strcmp(value, "auto") ? PIN_AUTO : !strcmp(value, "off") ? PIN_OFF : PIN_LIST;
	struct cpuset set;
	int *cpus = NULL;
	size_t n = 0;
	int r;

	if (pin == PIN_LIST) {
		r = cpulist_parse_ordered(value, &cpus, &n);
		if (r == -EINVAL && cpuset_parse(value, &set) == 0)
			return err_set(e, r, "names a CPU twice");
		if (r < 0)
			return bad_cpu_list(r, e);
	}
	free(vm->pin_cpus);
	vm->pin = pin;
	vm->pin_cpus = cpus;
	vm->n_pin_cpus = n;
	return 0;
}

int config_parse_emulator(struct vm_config *vm, const char *value, struct err *e)
{
	bool automatic = !strcmp(value, "auto");
	struct cpuset set = {0};
	int r = automatic ? 0 : cpuset_parse(value, &set);

	if (r < 0)
		return bad_cpu_list(r, e);
	vm->emulator_set = !automatic;
	vm->emulator = set;
	return 0;
}

int config_parse_hugepages(struct vm_config *vm, const char *value, struct err *e)
{
	uint64_t bytes = 0;

	if (!strcmp(value, "auto"))
		vm->hugepage_bytes = CONF_AUTO;
	else if (!strcmp(value, "off"))
		vm->hugepage_bytes = 0;
	else if (parse_size(value, &bytes) == 0 && (bytes == UINT64_C(2) << 20 || bytes == UINT64_C(1) << 30))
		vm->hugepage_bytes = (int64_t)bytes;
	else
		return err_set(e, -EINVAL, "is not a huge page size of x86");
	return 0;
}

static bool is_assignment(const char *word)
{
	size_t name = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

	return name && word[name] == '=' && !isdigit((unsigned char)*word);
}

int config_parse_env(struct vm_config *vm, const char *value, struct err *e)
{
	struct strv words = {0};
	int r = strv_split_shell(value, &words, e);

	if (r < 0)
		return err_set(e, r, "has a quote that is not closed");
	for (size_t i = 0; i < words.n; i++) {
		if (is_assignment(words.v[i]))
			continue;
		strv_clear(&words);
		return err_set(e, -EINVAL, "has a word that is not NAME=VALUE");
	}
	strv_clear(&vm->qemu_env);
	vm->qemu_env = words;
	return 0;
}
