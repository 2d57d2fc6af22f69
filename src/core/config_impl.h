/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_impl.h - what the files of the config module share: config.c reads a text through inih, config_values.c turns a
 * value into a field, config_check.c judges combinations, config_keys.c is the table. */
#ifndef GPUVM_CORE_CONFIG_IMPL_H
#define GPUVM_CORE_CONFIG_IMPL_H

#include "gpuvm/config.h"

#define CONFIG_NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
#define SECTION_NAME_MAX 32 /* becomes part of QEMU ids and thread names */

/* The key of the table, or NULL. */
const struct config_key *config_find_key(const char *section, const char *key);

/* What [section] is for, for the example file. */
const char *config_section_doc(const char *section);

/* Store @value in the field of @k; @base is the struct that k->offset counts from.  On failure the field keeps
 * its value and @e says why in words that follow the quoted value: "is not one of auto, kvm, tcg". */
int config_set_value(struct vm_config *vm, void *base, const struct config_key *k, const char *value, struct err *e);

/* Give every key of @section its default. */
void config_set_defaults(struct vm_config *vm, void *base, const char *section);

/* Free the strings of @section's keys. */
void config_free_values(void *base, const char *section);

/* The values that @k takes: "auto, or a number from 0 to 15"; owned, "" for free text. */
char *config_expected(const struct config_key *k);

/* What to write instead of @value; owned, NULL if there is nothing to say. */
char *config_value_hint(const struct config_key *k, const char *value);

/* @value in quotes for a message, shortened if it is long; owned. */
char *config_quote(const char *value);

/* The parsers of CONF_CUSTOM keys. */
int config_parse_pin(struct vm_config *vm, const char *value, struct err *e);
int config_parse_emulator(struct vm_config *vm, const char *value, struct err *e);
int config_parse_hugepages(struct vm_config *vm, const char *value, struct err *e);
int config_parse_env(struct vm_config *vm, const char *value, struct err *e);

/* True if @s is made of letters, digits and "-_.", does not start with "-" or ".", and is at most @max long. */
bool config_name_ok(const char *s, size_t max);

/* Is @candidate what someone who wrote @word may have meant?  0: no; else lower is nearer. */
unsigned int config_nearness(const char *word, const char *candidate);

const struct config_origin *config_find_origin(const struct vm_config *vm, const char *section, const char *key);

/* Everything about a definition that can be judged without a host. Values that were refused are left out. */
void config_check(const struct vm_config *vm, struct problems *ps);

#endif
