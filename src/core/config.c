/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.c - reading a definition.
 *
 * How it works: inih reads the text; ours is what it lacks.  ini_parse_stream() asks feed_inih() for one line after
 * the other and calls take_key() for each key it finds.  In both, r->line is the line that inih is at, which inih does
 * not tell its handler.
 *
 *   inih         skips comments and blank lines, splits a key from its value, trims both, knows the key's section
 *   feed_inih()  counts lines and refuses what inih would forgive: bytes that do not belong in a text, lines that are
 *                too long, indentation, lines that are neither header nor key, ':' for '='.  It enters sections, as
 *                inih is silent about one without keys.  For a refused line inih gets an empty one: both count alike
 *   take_key()   the key table: unknown keys, duplicates, values
 *
 * Inline comments are turned off in inih: it would cut values of `append`, `args` and `env` at " ;", and drop a comment
 * behind any other value, which is an error here (config_value_hint() says so).
 *
 * --set enters the same two functions, enter_section() and set_key(), with line 0. Every section and key seen leaves an
 * origin, also one whose value was refused: by the origins duplicates are found, required keys are missed, and
 * config_check() knows what was given. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

#include "config_impl.h"

#define LINE_MAX_BYTES 65536 /* without the newline: `args` and `append` may be long, a definition is not */
#define FILE_MAX_BYTES (1 << 20)
#define MAX_SECTIONS 256
#define MAX_PROBLEMS 100 /* beyond that it is not a definition */

struct reader {
	struct vm_config *vm;
	struct problems *ps;
	const char *file;    /* for messages; may be NULL */
	int line;            /* 0: --set */
	const char *section; /* as in the table; NULL: unknown, its keys are passed over */
	char *name;          /* of a named section, else NULL; owned */
	char *label;         /* "disk os"; owned; NULL before the first header */
	int n_sections;
	size_t first_problem;
	bool stop;
	const char *text, *end; /* what is not read yet */
	char *given;            /* the line that inih is at, with its newline; owned */
	const char *ungiven;    /* the part of it that inih has not asked for yet; NULL: none */
};

static void PRINTF(4, 5) complain(struct reader *r, const char *code, char *hint, const char *fmt, ...)
{
	AUTO_FREE char *owned_hint = hint, *message = NULL;
	struct problem *p;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&message, fmt, ap) < 0)
		abort();
	va_end(ap);
	p = problems_add(r->ps, PROBLEM_CONFIG, code, "%s", message);
	problem_where(p, r->file, r->line);
	if (hint)
		problem_hint(p, "%s", owned_hint);
	if (r->ps->n - r->first_problem < MAX_PROBLEMS || r->stop)
		return;
	r->stop = true;
	p = problems_add(r->ps, PROBLEM_CONFIG, "too-many-problems", "more than %d problems: the rest was not read",
			 MAX_PROBLEMS);
	problem_where(p, r->file, r->line);
}

/* --- origins ----------------------------------------------------------------------------------- */

static struct config_origin *find_origin(const struct vm_config *vm, const char *section, const char *key)
{
	for (size_t i = 0; i < vm->n_origins; i++)
		if (!strcmp(vm->origins[i].section, section) && !strcmp(vm->origins[i].key, key))
			return &vm->origins[i];
	return NULL;
}

const struct config_origin *config_find_origin(const struct vm_config *vm, const char *section, const char *key)
{
	return find_origin(vm, section, key);
}

static struct config_origin *put_origin(struct reader *r, const char *section, const char *key)
{
	struct config_origin *o = find_origin(r->vm, section, key);

	if (!o) {
		o = PUSH_ZEROED(r->vm->origins, r->vm->n_origins);
		o->section = xstrdup(section);
		o->key = xstrdup(key);
	}
	o->line = r->line;
	return o;
}

int config_line(const struct vm_config *vm, const char *section, const char *key)
{
	const struct config_origin *o = find_origin(vm, section, key);

	return o ? o->line : 0;
}

struct problem *config_problem(struct problems *ps, const struct vm_config *vm, const char *section, const char *key,
			       const char *code, const char *fmt, ...)
{
	const struct config_origin *o = find_origin(vm, section, key);
	AUTO_FREE char *message = NULL;
	struct problem *p;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&message, fmt, ap) < 0)
		abort();
	va_end(ap);
	p = problems_add(ps, PROBLEM_CONFIG, code, "%s", message);
	/* A key that is not there is missing in its section; a section that is not there, in the file. */
	if (!o)
		o = find_origin(vm, section, "");
	if (o && !o->line)
		problem_where(p, "--set", 0);
	else
		problem_where(p, vm->path, o ? o->line : 0);
	return p;
}

/* --- named sections ---------------------------------------------------------------------------- */

/* The element [section name] of @vm, or NULL. It moves when another is added. */
static void *find_element(const struct vm_config *vm, const char *section, const char *name)
{
	if (!strcmp(section, "device")) {
		for (size_t i = 0; i < vm->n_devices; i++)
			if (!strcmp(vm->devices[i].name, name))
				return &vm->devices[i];
	} else if (!strcmp(section, "disk")) {
		for (size_t i = 0; i < vm->n_disks; i++)
			if (!strcmp(vm->disks[i].name, name))
				return &vm->disks[i];
	} else if (!strcmp(section, "net")) {
		for (size_t i = 0; i < vm->n_nets; i++)
			if (!strcmp(vm->nets[i].name, name))
				return &vm->nets[i];
	}
	return NULL;
}

static void add_element(struct vm_config *vm, const char *section, const char *name)
{
	if (!strcmp(section, "device"))
		PUSH_ZEROED(vm->devices, vm->n_devices)->name = xstrdup(name);
	else if (!strcmp(section, "disk"))
		PUSH_ZEROED(vm->disks, vm->n_disks)->name = xstrdup(name);
	else
		PUSH_ZEROED(vm->nets, vm->n_nets)->name = xstrdup(name);
	config_set_defaults(vm, find_element(vm, section, name), section);
}

/* --- did you mean ------------------------------------------------------------------------------ */

/* Hint for an unknown section, owned, or NULL. */
static char *nearest_section(const char *section)
{
	unsigned int best = UINT_MAX;
	const char *found = NULL;

	for (size_t i = 0; i < config_n_keys; i++) {
		unsigned int d = config_nearness(section, config_keys[i].section);

		if (d && d < best) {
			best = d;
			found = config_keys[i].section;
		}
	}
	if (!found)
		return NULL;
	return xasprintf("did you mean [%s%s]?", found, config_section_is_named(found) ? " NAME" : "");
}

/* Hint for an unknown key: the nearest one of its section, or the section that has it. */
static char *nearest_key(const char *section, const char *key)
{
	unsigned int best = UINT_MAX;
	const char *found = NULL, *elsewhere = NULL;

	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		unsigned int d = strcmp(k->section, section) ? 0 : config_nearness(key, k->key);

		if (!strcmp(k->key, key))
			elsewhere = k->section;
		if (d && d < best) {
			best = d;
			found = k->key;
		}
	}
	/* The same word in another section is a better guess than a similar one here. */
	if (elsewhere)
		return xasprintf("'%s' belongs in [%s%s]", key, elsewhere,
				 config_section_is_named(elsewhere) ? " NAME" : "");
	return found ? xasprintf("did you mean '%s'?", found) : NULL;
}

/* --- sections ---------------------------------------------------------------------------------- */

/* @section as the table's own string, or NULL. */
static const char *table_section(const char *section)
{
	for (size_t i = 0; i < config_n_keys; i++)
		if (!strcmp(config_keys[i].section, section))
			return config_keys[i].section;
	return NULL;
}

/* @name as far as it can be one: what follows is read even if the name was refused. */
static char *clean_name(const char *name)
{
	char *clean = xstrndup(name, SECTION_NAME_MAX);

	for (char *c = clean; *c; c++)
		if (!strchr(CONFIG_NAME_CHARS, *c))
			*c = '_';
	return clean;
}

static void check_section_name(struct reader *r, const char *section, const char *name)
{
	AUTO_FREE char *quoted = config_quote(name);

	if (!*name)
		complain(r, "bad-section", xasprintf("write [%s NAME]", section), "[%s] needs a name", section);
	/* The name begins QEMU ids, which begin with a letter. */
	else if (!config_name_ok(name, SECTION_NAME_MAX) || !isalpha((unsigned char)*name))
		complain(r, "bad-section",
			 xasprintf("expected a letter, then letters, digits, '-', '_' and '.', at most %d characters",
				   SECTION_NAME_MAX),
			 "[%s] name %s is not a name", section, quoted);
}

/* Leave a section: keys that follow belong to none. */
static void leave_section(struct reader *r)
{
	r->section = NULL;
	free(STEAL_PTR(r->name));
	free(STEAL_PTR(r->label));
}

static void unknown_section(struct reader *r, const char *section)
{
	AUTO_FREE char *quoted = config_quote(section);

	complain(r, "unknown-section", nearest_section(section), "unknown section %s", quoted);
}

/* First sight of the section r->label. */
static void create_section(struct reader *r)
{
	put_origin(r, r->label, "");
	if (r->name)
		add_element(r->vm, r->section, r->name);
	else if (!strcmp(r->section, "place"))
		r->vm->place_present = true;
	else if (!strcmp(r->section, "cloud-init"))
		r->vm->cloud_init = true;
}

/* Judge the name of the section r->section, and make its label. */
static void take_section_name(struct reader *r, const char *name)
{
	free(r->label);
	if (config_section_is_named(r->section)) {
		check_section_name(r, r->section, name);
		r->name = clean_name(name);
		r->label = xasprintf("%s %s", r->section, r->name);
		return;
	}
	if (*name)
		complain(r, "bad-section", xasprintf("write [%s]", r->section), "[%s] takes no name", r->section);
	r->label = xstrdup(r->section);
}

/* [@section @name]; @name is "" if there is none. */
static void enter_section(struct reader *r, const char *section, const char *name)
{
	const struct config_origin *before;

	leave_section(r);
	r->label = xstrdup("");
	r->section = table_section(section);
	if (!r->section) {
		unknown_section(r, section);
		return;
	}
	if (++r->n_sections > MAX_SECTIONS) {
		complain(r, "too-many-sections", NULL, "more than %d sections", MAX_SECTIONS);
		r->stop = true;
		return;
	}
	take_section_name(r, name);
	before = find_origin(r->vm, r->label, "");
	if (!before)
		create_section(r);
	else if (r->line)
		complain(r, "duplicate-section", xstrdup("put its keys together"), "[%s] is in line %d already",
			 r->label, before->line);
}

/* --- keys -------------------------------------------------------------------------------------- */

static void unknown_key(struct reader *r, const char *key)
{
	AUTO_FREE char *quoted = config_quote(key);

	complain(r, "unknown-key", nearest_key(r->section, key), "[%s] unknown key %s", r->label, quoted);
}

static void set_value(struct reader *r, const struct config_key *k, const char *value)
{
	struct config_origin *o = put_origin(r, r->label, k->key);
	void *base = r->name ? find_element(r->vm, r->section, r->name) : r->vm;
	AUTO_FREE char *quoted = config_quote(value);
	struct err e;

	o->bad = true;
	if (!*value) {
		complain(r, "bad-value", xstrdup("leave the line out for the default"), "[%s] %s: has no value",
			 r->label, k->key);
		return;
	}
	if (config_set_value(r->vm, base, k, value, &e) < 0) {
		complain(r, "bad-value", config_value_hint(k, value), "[%s] %s: %s %s", r->label, k->key, quoted,
			 e.msg);
		return;
	}
	o->bad = false;
}

static void set_key(struct reader *r, const char *key, const char *value)
{
	const struct config_origin *before;
	const struct config_key *k;

	if (!r->section)
		return; /* the section was refused, that is enough */
	k = config_find_key(r->section, key);
	if (!k) {
		unknown_key(r, key);
		return;
	}
	before = find_origin(r->vm, r->label, key);
	if (before && r->line) {
		complain(r, "duplicate-key", xstrdup("remove one of the two"), "[%s] %s: is set in line %d already",
			 r->label, key, before->line);
		return;
	}
	set_value(r, k, value);
}

/* --- lines ------------------------------------------------------------------------------------- */

/* Values end up in messages, JSON and a command line: no control characters, and valid UTF-8. */
static bool check_bytes(struct reader *r, const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t n;

	for (size_t i = 0; i < len; i += n) {
		n = utf8_sequence(s + i);
		if (n && (s[i] >= 0x20 || s[i] == '\t') && s[i] != 0x7f)
			continue;
		complain(r, "bad-byte", xstrdup("a definition is plain text in UTF-8"), "byte 0x%02x in column %zu",
			 s[i], i + 1);
		return false;
	}
	return true;
}

/* Cut blanks off both ends of @s in place; returns where it begins now. */
static char *trim(char *s)
{
	size_t len;

	s += strspn(s, " \t");
	len = strlen(s);
	while (len && strchr(" \t", s[len - 1]))
		s[--len] = '\0';
	return s;
}

/* @line: "[section]" or "[section name]", trimmed; it is taken apart. */
static void read_header(struct reader *r, char *line)
{
	char *end = strchr(line, ']');
	AUTO_FREE char *quoted = config_quote(line);
	char *section, *name;

	if (!end || end[1]) {
		leave_section(r);
		r->label = xstrdup("");
		complain(r, "bad-section",
			 end && strchr(";#", *trim(end + 1)) ? xstrdup("a comment needs a line of its own") : NULL,
			 end ? "%s: text after the ']'" : "%s: the ']' is missing", quoted);
		return;
	}
	*end = '\0';
	section = trim(line + 1);
	name = section + strcspn(section, " \t");
	if (*name)
		*name++ = '\0';
	enter_section(r, section, trim(name));
}

/* May inih have @line, which is neither header nor comment? */
static bool check_assignment(struct reader *r, const char *line)
{
	AUTO_FREE char *trimmed = xstrdup(line);
	AUTO_FREE char *quoted = config_quote(trim(trimmed));
	size_t key = strcspn(line, "=:");

	/* inih splits at ':' too. */
	if (key == 0 || line[key] != '=') {
		complain(r, "syntax", xstrdup("expected '[section]', 'key = value' or a comment"), "cannot read %s",
			 quoted);
		return false;
	}
	if (!r->label) {
		complain(r, "key-outside-section", xstrdup("begin with [vm]"),
			 "key %s comes before the first [section]", quoted);
		return false;
	}
	return r->section; /* keys of a refused section would be those of the section before it */
}

/* What inih is to read for @line (without its newline); owned, NULL: nothing. */
static char *check_line(struct reader *r, char *line, size_t len)
{
	char *begin = line + strspn(line, " \t");

	if (!check_bytes(r, line, len))
		return NULL;
	if (!*begin || *begin == '#' || *begin == ';')
		return xstrdup(line);
	if (begin != line) {
		/* Elsewhere this continues the last value. Nobody should have to know which it is. */
		complain(r, "indented-line", xstrdup("begin it in the first column; a value is one line"),
			 "a line begins with a blank");
		if (*begin != '[')
			return NULL;
	}
	if (*begin != '[')
		return check_assignment(r, line) ? xstrdup(line) : NULL;
	read_header(r, trim(line));
	/* The label, not the line: inih cuts a name at 49 bytes, and one that was refused is read on under a clean one. */
	return r->section ? xasprintf("[%s]", r->label) : NULL;
}

/* Cut the next line off r->text; false if there is none. */
static bool next_line(struct reader *r)
{
	AUTO_FREE char *line = NULL, *checked = NULL;
	const char *newline;
	size_t n;

	if (r->text == r->end || r->stop)
		return false;
	newline = memchr(r->text, '\n', (size_t)(r->end - r->text));
	n = (size_t)((newline ? newline : r->end) - r->text);
	r->line++;
	if (n > LINE_MAX_BYTES) {
		complain(r, "line-too-long", NULL, "the line has %zu bytes, at most %d are read", n, LINE_MAX_BYTES);
	} else {
		line = xcalloc(n + 1, 1);
		memcpy(line, r->text, n);
		if (n && line[n - 1] == '\r')
			line[--n] = '\0';
		checked = check_line(r, line, n);
	}
	r->text = newline ? newline + 1 : r->end;
	free(r->given);
	r->given = xasprintf("%s\n", checked ? checked : "");
	r->ungiven = r->given;
	return true;
}

/* inih's reader, as fgets(): a line, or as much of it as fits in @buf; inih then asks for the rest. */
static char *feed_inih(char *buf, int size, void *reader)
{
	struct reader *r = reader;
	size_t n;

	if (!r->ungiven && !next_line(r))
		return NULL;
	n = strnlen(r->ungiven, (size_t)size - 1);
	memcpy(buf, r->ungiven, n);
	buf[n] = '\0';
	r->ungiven = r->ungiven[n] ? r->ungiven + n : NULL;
	return buf;
}

/* inih's handler: 0 makes inih remember the line as one that it could not read. */
static int take_key(void *reader, const char *section, const char *key, const char *value)
{
	struct reader *r = reader;

	if (strcmp(section, r->label))
		return 0;
	set_key(r, key, value);
	return 1;
}

/* Debian builds inih so that these are variables of the process; the defaults split a line at 200 bytes. */
static void configure_inih(void)
{
	ini_use_stack = false;
	ini_allow_realloc = true;
	ini_max_line = LINE_MAX_BYTES + 3; /* "\r\n" and the NUL: ini.h */
	ini_allow_inline_comments = false;
	ini_allow_multiline = false;
}

static void read_text(struct reader *r, const char *text, size_t len)
{
	static const char bom[] = "\xef\xbb\xbf";
	int bad_line;

	r->text = len >= 3 && !memcmp(text, bom, 3) ? text + 3 : text;
	r->end = text + len;
	configure_inih();
	bad_line = ini_parse_stream(feed_inih, r, take_key, r);
	free(STEAL_PTR(r->given));
	if (bad_line < 0)
		abort(); /* out of memory */
	/* The reader lets nothing through that inih cannot read. Should it differ, no line may be lost in silence. */
	if (bad_line > 0) {
		r->line = bad_line;
		complain(r, "syntax", NULL, "inih cannot read the line");
	}
}

/* --- --set ------------------------------------------------------------------------------------- */

static void bad_set(struct reader *r, const char *set)
{
	AUTO_FREE char *quoted = config_quote(set);

	complain(r, "bad-set", xstrdup("expected SECTION.KEY=VALUE, as in place.gpus=4 or disk.os.file=/path"),
		 "cannot read %s", quoted);
}

/* "vm.name=x", "disk.os.file=/x". Keys have no dots, names of sections may: the key follows the last one. */
int config_set_split(const char *set, struct config_set *ret)
{
	AUTO_FREE char *copy = xstrdup(set);
	char *eq = strchr(copy, '='), *dot, *key;

	if (eq)
		*eq = '\0';
	dot = strchr(copy, '.');
	key = strrchr(copy, '.');
	if (!eq || !dot || dot == copy || !key[1])
		return -EINVAL;
	*dot = *key = '\0';
	ret->name = dot == key ? key : dot + 1; /* key: an empty string now */
	ret->section = trim(copy);
	ret->key = trim(key + 1);
	ret->value = trim(eq + 1);
	ret->text = STEAL_PTR(copy);
	return 0;
}

static void apply_set(struct reader *r, const char *set)
{
	struct config_set s = { 0 };

	if (!check_bytes(r, set, strlen(set)))
		return;
	if (config_set_split(set, &s) < 0) {
		bad_set(r, set);
		return;
	}
	enter_section(r, s.section, s.name);
	set_key(r, s.key, s.value);
	free(s.text);
}

static void apply_sets(struct reader *r, const struct strv *sets)
{
	r->line = 0;
	r->file = "--set";
	for (size_t i = 0; sets && i < sets->n && !r->stop; i++)
		apply_set(r, sets->v[i]);
}

/* --- the whole --------------------------------------------------------------------------------- */

static void check_required_of(const struct vm_config *vm, struct problems *ps, const char *section, const char *label)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		if (k->required && !strcmp(k->section, section) && !find_origin(vm, label, k->key))
			problem_hint(
			    config_problem(ps, vm, label, k->key, "missing-key", "[%s] %s: is required", label, k->key),
			    "for example '%s = %s'", k->key, k->example);
	}
}

static void check_required(const struct vm_config *vm, struct problems *ps)
{
	if (!vm->name)
		check_required_of(vm, ps, "vm", "vm");
	for (size_t i = 0; i < vm->n_origins; i++) {
		const struct config_origin *o = &vm->origins[i];
		AUTO_FREE char *section = xstrndup(o->section, strcspn(o->section, " "));

		if (!*o->key && config_section_is_named(section))
			check_required_of(vm, ps, section, o->section);
	}
	for (size_t i = 0; i < vm->n_devices; i++)
		vm->devices[i].pci_set = true;
}

void config_init(struct vm_config *vm)
{
	*vm = (struct vm_config){0};
	for (size_t i = 0; i < config_n_keys; i++) {
		const char *section = config_keys[i].section;

		if ((i == 0 || strcmp(section, config_keys[i - 1].section)) && !config_section_is_named(section))
			config_set_defaults(vm, vm, section);
	}
}

static void free_elements(struct vm_config *vm)
{
	for (size_t i = 0; i < vm->n_devices; i++) {
		config_free_values(&vm->devices[i], "device");
		free(vm->devices[i].name);
	}
	for (size_t i = 0; i < vm->n_disks; i++) {
		config_free_values(&vm->disks[i], "disk");
		free(vm->disks[i].name);
	}
	for (size_t i = 0; i < vm->n_nets; i++) {
		config_free_values(&vm->nets[i], "net");
		free(vm->nets[i].name);
	}
	free(vm->devices);
	free(vm->disks);
	free(vm->nets);
}

void config_clear(struct vm_config *vm)
{
	for (size_t i = 0; i < config_n_keys; i++)
		if (!config_section_is_named(config_keys[i].section))
			config_free_values(vm, config_keys[i].section);
	free_elements(vm);
	for (size_t i = 0; i < vm->n_origins; i++) {
		free(vm->origins[i].section);
		free(vm->origins[i].key);
	}
	free(vm->origins);
	free(vm->pin_cpus);
	strv_clear(&vm->qemu_env);
	free(vm->path);
	*vm = (struct vm_config){0};
}

/* As config_parse(). @default_name: what the VM is called if the text does not say, or NULL. */
static int parse_definition(const char *file, const char *default_name, const char *text, size_t len,
			    const struct strv *sets, struct vm_config *vm, struct problems *ps)
{
	struct reader r = {.vm = vm, .ps = ps, .file = file, .first_problem = ps->n};

	config_init(vm);
	vm->path = file ? xstrdup(file) : NULL;
	read_text(&r, text, len);
	apply_sets(&r, sets);
	leave_section(&r);
	if (!r.stop) {
		if (default_name && !find_origin(vm, "vm", "name"))
			vm->name = xstrdup(default_name);
		check_required(vm, ps);
		config_check(vm, ps);
	}
	if (ps->n == r.first_problem)
		return 0;
	config_clear(vm);
	return -EINVAL;
}

int config_parse(const char *name, const char *text, size_t len, const struct strv *sets, struct vm_config *vm,
		 struct problems *ps)
{
	return parse_definition(name, NULL, text, len, sets, vm, ps);
}

/* The name of a definition without `name`: "/etc/gpuvm/half0.ini" is half0. NULL if that cannot be a name. */
static char *name_from_path(const char *path)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	size_t len = strlen(base);
	char *name;

	if (len > 4 && !strcmp(base + len - 4, ".ini"))
		len -= 4;
	name = xstrndup(base, len);
	if (!config_name_ok(name, VM_NAME_MAX))
		free(STEAL_PTR(name));
	return name;
}

/* Whole file with its length: read_text_file() would hide what follows a NUL byte. */
static int read_definition(const char *path, char **ret, size_t *ret_len)
{
	AUTO_FREE char *text = xcalloc(FILE_MAX_BYTES + 1, 1);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd < 0)
		return -errno;
	while (len <= FILE_MAX_BYTES) {
		ssize_t n = read(fd, text + len, FILE_MAX_BYTES + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len > FILE_MAX_BYTES)
		return -EFBIG;
	*ret = STEAL_PTR(text);
	*ret_len = len;
	return 0;
}

int config_load(const char *path, const struct strv *sets, struct vm_config *vm, struct problems *ps)
{
	AUTO_FREE char *text = NULL, *name = NULL;
	size_t len = 0;
	int r = read_definition(path, &text, &len);

	if (r < 0) {
		struct problem *p = problems_add(ps, PROBLEM_CONFIG, "definition-unreadable",
						 "cannot read the definition: %s", strerror(-r));

		problem_where(p, path, 0);
		*vm = (struct vm_config){0};
		return -EINVAL;
	}
	name = name_from_path(path);
	return parse_definition(path, name, text, len, sets, vm, ps);
}
