/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "config_impl.h"
#include "gpuvm/definition.h"

#define COMMENT_MAX 500 /* a command line may be as long as it likes */

/* --- a definition as sections and lines ----------------------------------------------------------------------- */

struct line {
	char *comment; /* NULL: none */
	char *key;
	char *value; /* NULL: only the comment, until a set says more */
};

struct section {
	char *label; /* "disk os" */
	char *comment;
	struct line *lines;
	size_t n_lines;
};

struct draft {
	struct section *v;
	size_t n;
};

static void draft_clear(struct draft *d)
{
	for (size_t i = 0; i < d->n; i++) {
		for (size_t k = 0; k < d->v[i].n_lines; k++) {
			free(d->v[i].lines[k].comment);
			free(d->v[i].lines[k].key);
			free(d->v[i].lines[k].value);
		}
		free(d->v[i].lines);
		free(d->v[i].label);
		free(d->v[i].comment);
	}
	free(d->v);
}

/* The section @label; made at the end if there is none. */
static struct section *section_of(struct draft *d, const char *label)
{
	struct section *s;

	for (size_t i = 0; i < d->n; i++)
		if (!strcmp(d->v[i].label, label))
			return &d->v[i];
	s = PUSH_ZEROED(d->v, d->n);
	s->label = xstrdup(label);
	return s;
}

/* One line, whatever is in it: nothing of a comment may become a line of its own, or a byte that no definition may have. */
static char *PRINTF(1, 0) comment_of(const char *fmt, va_list ap)
{
	char *text = NULL;

	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	for (char *c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	if (strlen(text) > COMMENT_MAX)
		memcpy(text + COMMENT_MAX - 3, "...", 4);
	return text;
}

/* A line at the end of section @label. @value NULL: only its comment. */
static void PRINTF(5, 6) add(struct draft *d, const char *label, const char *key, const char *value, const char *comment, ...)
{
	struct section *s = section_of(d, label);
	struct line *l = PUSH_ZEROED(s->lines, s->n_lines);
	va_list ap;

	l->key = xstrdup(key);
	l->value = value ? xstrdup(value) : NULL;
	va_start(ap, comment);
	l->comment = comment && *comment ? comment_of(comment, ap) : NULL;
	va_end(ap);
}

static void PRINTF(3, 4) describe(struct draft *d, const char *label, const char *comment, ...)
{
	struct section *s = section_of(d, label);
	va_list ap;

	free(s->comment);
	va_start(ap, comment);
	s->comment = comment_of(comment, ap);
	va_end(ap);
}

/* What a set says replaces what is there, and what was said about that. */
static void replace(struct draft *d, const char *label, const char *key, const char *value)
{
	struct section *s = section_of(d, label);
	struct line *l = s->lines, *end = s->lines + s->n_lines;

	while (l < end && strcmp(l->key, key))
		l++;
	if (l == end) {
		l = PUSH_ZEROED(s->lines, s->n_lines);
		l->key = xstrdup(key);
	} else if (l->value) {
		free(STEAL_PTR(s->comment));
	}
	free(STEAL_PTR(l->comment));
	free(l->value);
	l->value = xstrdup(value);
}

static char *render(const struct draft *d, const char *head)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		abort();
	fputs(head, f);
	for (const struct section *s = d->v; s < d->v + d->n; s++) {
		putc('\n', f);
		if (s->comment)
			fprintf(f, "# %s\n", s->comment);
		fprintf(f, "[%s]\n", s->label);
		for (const struct line *l = s->lines; l < s->lines + s->n_lines; l++) {
			if (l->comment)
				fprintf(f, "# %s\n", l->comment);
			if (l->value)
				fprintf(f, "%s = %s\n", l->key, l->value);
		}
	}
	if (fclose(f))
		abort();
	return text;
}

/* --- what was asked for ------------------------------------------------------------------------------------------- */

static void add_int(struct draft *d, const char *label, const char *key, int value)
{
	AUTO_FREE char *text = xasprintf("%d", value);

	add(d, label, key, text, NULL);
}

static void draft_place(struct draft *d, const struct definition_request *r)
{
	if (!r->gpus)
		return;
	add_int(d, "place", "gpus", r->gpus);
	if (r->gpu_index >= 0)
		add_int(d, "place", "gpu-index", r->gpu_index);
	else
		add(d, "place", "gpu-index", NULL, "gpu-index = auto: those that are free and nearest to each other. `gpu-index = 0` would always take the same ones.");
}

static void draft_sizes(struct draft *d, const struct definition_request *r, const struct definition_facts *f)
{
	char size[32], page[32];

	if (r->vcpus >= 0)
		add_int(d, "cpu", "vcpus", r->vcpus);
	else if (f)
		add(d, "cpu", "vcpus", NULL, "vcpus = auto: now %d.", f->vcpus);
	if (r->memory)
		add(d, "memory", "size", r->memory, NULL);
	else if (f)
		add(d, "memory", "size", NULL, "size = auto: now %s in pages of %s.", format_size(f->memory_bytes, size), format_size(f->page_bytes, page));
}

static void draft_disks(struct draft *d, const struct definition_request *r)
{
	const struct {
		const char *label, *file;
	} disks[] = { { "disk os", r->os_disk }, { "disk data", r->data_disk } };

	for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
		if (!disks[i].file)
			continue;
		add(d, disks[i].label, "file", disks[i].file, NULL);
		add(d, disks[i].label, "format", "qcow2", NULL);
	}
	if (r->os_disk && r->image)
		describe(d, "disk os", "What differs from the image '%s', as it was then; upgrades of the image do not change it.", r->image);
}

static bool sets_a_net(const struct strv *sets)
{
	for (size_t i = 0; sets && i < sets->n; i++)
		if (strncmp(sets->v[i], "net.", 4) == 0)
			return true;
	return false;
}

/* One name for all of them: the MAC address is derived from it and stays when the type is changed. */
static void draft_net(struct draft *d, const struct definition_request *r)
{
	static const char lan[] = "net lan";
	enum definition_net net = r->net;

	if (net == DEFINITION_NET_AUTO)
		net = sets_a_net(r->sets) ? DEFINITION_NET_NONE : DEFINITION_NET_USER;
	if (net == DEFINITION_NET_NONE)
		return;
	if (net == DEFINITION_NET_USER) {
		describe(d, lan, "QEMU's own NAT: the guest reaches others, nobody reaches the guest, and it is slow. On a bridge: `type = bridge` and `bridge = br0`.");
		add(d, lan, "type", "user", NULL);
	} else if (net == DEFINITION_NET_BRIDGE) {
		add(d, lan, "type", "bridge", NULL);
		add(d, lan, "bridge", r->net_host, NULL);
	} else {
		add(d, lan, "type", "tap", NULL);
		add(d, lan, "ifname", r->net_host, NULL);
	}
}

static void draft_make(struct draft *d, const struct definition_request *r, const struct definition_facts *f)
{
	add(d, "vm", "name", r->name, NULL);
	if (r->uuid)
		add(d, "vm", "uuid", r->uuid, "Made once, so that the guest stays the same machine wherever this file goes.");
	draft_place(d, r);
	draft_sizes(d, r, f);
	draft_disks(d, r);
	draft_net(d, r);
	if (!r->user_data)
		return;
	add(d, "cloud-init", "user-data", r->user_data, NULL);
	if (r->user_data_from)
		describe(d, "cloud-init", "For the guest's first boot. user-data is a copy of %s.", r->user_data_from);
}

static void merge_sets(struct draft *d, const struct strv *sets)
{
	for (size_t i = 0; sets && i < sets->n; i++) {
		struct config_set s = { 0 };
		AUTO_FREE char *label = NULL;

		if (config_set_split(sets->v[i], &s) < 0)
			continue; /* refused already */
		label = xasprintf("%s%s%s", s.section, *s.name ? " " : "", s.name);
		replace(d, label, s.key, s.value);
		free(s.text);
	}
}

/* --- checks ------------------------------------------------------------------------------------------------------------ */

/* A value is what stands between the "=" and the end of the line, without the blanks around it. */
static bool value_fits_line(const char *value)
{
	size_t len = strlen(value);

	for (const char *c = value; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return false;
	return len && value[0] != ' ' && value[len - 1] != ' ';
}

static void check_values(const struct draft *d, struct problems *ps)
{
	for (const struct section *s = d->v; s < d->v + d->n; s++)
		for (const struct line *l = s->lines; l < s->lines + s->n_lines; l++)
			if (l->value && !value_fits_line(l->value))
				problem_hint(problems_add(ps, PROBLEM_CONFIG, "bad-value", "[%s] %s: the value cannot be written into a definition", s->label,
							  l->key),
					     "it is empty, begins or ends with a blank, or has a control character in it");
}

static bool has_disk(const struct vm_config *vm, const char *file)
{
	for (size_t i = 0; i < vm->n_disks; i++)
		if (!strcmp(vm->disks[i].file, file))
			return true;
	return false;
}

/* What --set may not take away: by these the VM is known, and what is made for it used. */
static void check_kept(const struct definition_request *r, const struct vm_config *vm, struct problems *ps)
{
	const char *disks[] = { r->os_disk, r->data_disk };

	if (strcmp(vm->name, r->name))
		problem_where(problems_add(ps, PROBLEM_CONFIG, "conflict", "[vm] name: '%s', but the VM to be made is '%s'", vm->name, r->name), "--set", 0);
	for (size_t i = 0; i < ARRAY_SIZE(disks); i++)
		if (disks[i] && !has_disk(vm, disks[i]))
			problem_where(problems_add(ps, PROBLEM_CONFIG, "conflict", "[disk %s] file: '%s' is made for the VM, but would not be used",
						   i ? "data" : "os", disks[i]),
				      "--set", 0);
	if (r->user_data && (!vm->user_data || strcmp(vm->user_data, r->user_data)))
		problem_where(problems_add(ps, PROBLEM_CONFIG, "conflict", "[cloud-init] user-data: two of them are asked for"), "--set", 0);
}

/* Lines of a text that nobody has seen yet say nothing. */
static void forget_lines(struct problems *ps, size_t from)
{
	for (size_t i = from; i < ps->n; i++)
		if (!ps->v[i].file)
			ps->v[i].line = 0;
}

/* The definition as it will be, for what is said about it. 0, or -EINVAL with problems. */
static int read_back(const struct definition_request *r, const char *text, const struct strv *sets, struct vm_config *vm, struct problems *ps)
{
	size_t before = ps->n;
	int c = config_parse(NULL, text, strlen(text), sets, vm, ps);

	forget_lines(ps, before);
	if (c < 0)
		return c;
	check_kept(r, vm, ps);
	if (ps->n == before)
		return 0;
	config_clear(vm);
	return -EINVAL;
}

/* --- the whole -------------------------------------------------------------------------------------------------------- */

static char *devices_text(const struct vm_config *vm, const struct definition_facts *f)
{
	if (vm->gpus > 0 && f && f->host_gpus == vm->gpus)
		return xasprintf("all %d GPUs of this machine", vm->gpus);
	if (vm->gpus > 0 && f)
		return xasprintf("%d of this machine's %d GPUs", vm->gpus, f->host_gpus);
	if (vm->gpus > 0)
		return xasprintf("%d GPU%s", vm->gpus, vm->gpus > 1 ? "s" : "");
	return xstrdup(vm->n_devices || vm->place_present ? "no GPU" : "no passed-through devices");
}

static char *PRINTF(1, 2) comment(const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = comment_of(fmt, ap);
	va_end(ap);
	return text;
}

static char *make_head(const struct definition_request *r, const struct vm_config *vm, const struct definition_facts *f)
{
	AUTO_FREE char *devices = devices_text(vm, f), *what = comment("VM %s: %s.", r->name, devices);
	AUTO_FREE char *made = r->command ? comment("Made by `%s` on %s.", r->command, r->date ? r->date : "?") : NULL;

	return xasprintf("# %s%s%s\n# Every key that is not here is computed from the machine at each start: `gpuvm plan --explain %s` shows how,\n"
			 "# gpuvm.ini(5) has them all.\n",
			 what, made ? "\n# " : "", made ? made : "", r->name);
}

/* First as asked for with the sets beside it, so that what is wrong with a set is said of the set; then in one. */
char *definition_text(const struct definition_request *r, const struct definition_facts *f, struct problems *ps)
{
	AUTO_FREE char *plain = NULL, *head = NULL, *text = NULL;
	struct vm_config vm = { 0 };
	struct draft d = { 0 };
	size_t before = ps->n;

	draft_make(&d, r, f);
	check_values(&d, ps);
	if (ps->n == before) {
		plain = render(&d, "");
		if (read_back(r, plain, r->sets, &vm, ps) == 0) {
			merge_sets(&d, r->sets);
			head = make_head(r, &vm, f);
			text = render(&d, head);
			config_clear(&vm);
			if (read_back(r, text, NULL, &vm, ps) == 0)
				config_clear(&vm);
		}
	}
	draft_clear(&d);
	return ps->n == before ? STEAL_PTR(text) : NULL;
}
