/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_diff.h - QEMU commands as text: taken apart, and compared by what they say.
 *
 * How it works: an argv is cut into options (argv_options_read), and the value of each into properties.  Options of two commands belong
 * together if they are the same; or have the same flag, type and id ("-device vfio-pci,id=gpu0"); or the same flag and id.  Those that
 * have none are paired in their order.  The order of options does not count.  What belongs together is compared property by property.
 *
 * Values are read as QEMU reads them (util/qemu-option.c, util/keyval.c of 7.2): properties are separated by commas, a comma in a value is
 * doubled, the first word may stand without its name, a later name without "=" is a switch; or the whole is a JSON object, whose members
 * get the dotted names that the other form has ("file.driver"). */
#ifndef GPUVM_ARGV_DIFF_H
#define GPUVM_ARGV_DIFF_H

#include "gpuvm/strv.h"

struct json_object;

struct argv_property {
	char *name, *value;
};

struct argv_option {
	char *flag;	   /* "-device"; "binary", "wrapper" and "env" for what is in front of the options */
	char *value;	   /* as written; NULL: a flag without one */
	const char *group; /* heading: "devices" */
	char *type;	   /* "vfio-pci", as far as there are different types of such an option; else "" */
	char *id;	   /* "gpu0"; "" if it has none */
	struct argv_property *properties; /* without type and id; each name once: values of a repeated one are joined by ", " */
	size_t n_properties;
};

struct argv_options {
	struct argv_option *v;
	size_t n;
};

/* Does words[i], a flag, take words[i + 1] as its value?  QEMU's options take one or none, whatever the next word looks like; of flags not
 * known here those do that are followed by something that is not an option. */
bool argv_takes_value(const struct strv *words, size_t i);

/* Take @argv apart.  @binary is QEMU's path in it: words before it are a wrapper; NULL: argv[0].  @env: "K=V" words, may be NULL.
 * A word in the place of a flag that is none (QEMU takes it for a disk image) becomes an option without a value. */
void argv_options_read(const struct strv *argv, const char *binary, const struct strv *env, struct argv_options *ret);

/* The same of one option; @value may be NULL. What is not an option list in QEMU (-append, -kernel) is one property, "value". */
void argv_option_parse(const char *flag, const char *value, struct argv_option *ret);
void argv_options_clear(struct argv_options *o);

/* The value of a property, or NULL. */
const char *argv_option_get(const struct argv_option *o, const char *name);

enum argv_op { ARGV_CHANGE, ARGV_ADD, ARGV_REMOVE };
struct argv_change {
	enum argv_op op;
	const struct argv_option *a, *b; /* NULL where it is not */
	struct argv_delta {
		const char *name, *a, *b; /* borrowed; NULL: not there */
	} *properties; /* that differ; of ADD and REMOVE all */
	size_t n_properties;
};
struct argv_diff {
	struct argv_change *v; /* group by group */
	size_t n;
};

/* @ret borrows from both. */
void argv_compare(const struct argv_options *a, const struct argv_options *b, struct argv_diff *ret);
void argv_diff_clear(struct argv_diff *d);

/* A change is a line "~ -device vfio-pci gpu0: host 0000:17:00.0 -> 0000:65:00.0", or a line per property where that would be long;
 * "-" and "+" lines have whole options. Prints nothing for no changes. */
void argv_diff_print(const struct argv_diff *d, const char *a_name, const char *b_name, bool colour, FILE *out);

/* {"schema":1,"a":..,"b":..,"changes":[{"op":"change|add|remove","group","option","type","id","properties":[{"name","a","b"}]}]}; what is
 * not there is null. */
struct json_object *argv_diff_to_json(const struct argv_diff *d, const char *a_name, const char *b_name);

#endif
