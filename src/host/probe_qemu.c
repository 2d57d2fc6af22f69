/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_qemu.c - which QEMU there is, and its firmware. */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "gpuvm/parse.h"
#include "gpuvm/probe.h"
#include "gpuvm/qemu.h"

/* Emulated hosts, and disks that have to spin up; a QEMU that answers at all needs a third of a second. */
#define ASK_TIMEOUT_MS 30000

static const char default_qemu[] = "qemu-system-x86_64";
static const char rhel_qemu[] = "/usr/libexec/qemu-kvm"; /* in no PATH */

/* Code and variable store belong together. 4 MiB builds come first: newer ones no longer have the 2 MiB variant. */
static const struct {
	const char *code, *vars;
} firmware[] = {
	{ "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd" }, /* Debian, Ubuntu */
	{ "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd" },
	{ "/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd" },         /* Fedora, RHEL */
	{ "/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd" },     /* Arch */
	{ "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd" }, /* older Arch, Gentoo */
	{ "/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin" }, /* openSUSE */
	{ "/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd" },           /* QEMU's own */
	{ "/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd" },
};

/* @binary through $PATH, as execvp() would find it; owned, NULL if it is nowhere. */
static char *find_binary(const char *binary)
{
	const char *env = getenv("PATH");
	AUTO_FREE char *dirs = xstrdup(env && *env ? env : "/usr/local/bin:/usr/bin:/bin");
	char *save = NULL;

	if (strchr(binary, '/'))
		return xstrdup(binary);
	for (char *d = strtok_r(dirs, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
		AUTO_FREE char *path = xasprintf("%s/%s", d, binary);

		if (access(path, X_OK) == 0)
			return STEAL_PTR(path);
	}
	return NULL;
}

static void find_firmware(struct qemu_info *q)
{
	for (size_t i = 0; i < ARRAY_SIZE(firmware); i++) {
		if (access(firmware[i].code, R_OK) < 0 || access(firmware[i].vars, R_OK) < 0)
			continue;
		q->ovmf_code = xstrdup(firmware[i].code);
		q->ovmf_vars = xstrdup(firmware[i].vars);
		return;
	}
}

static int locate(const char *binary, struct qemu_info *q, struct err *e)
{
	q->path = find_binary(binary ? binary : default_qemu);
	if (!q->path && !binary && access(rhel_qemu, X_OK) == 0)
		q->path = xstrdup(rhel_qemu);
	if (!q->path)
		return err_set(e, -ENOENT, "'%s' is not in PATH; install QEMU, or name it in [qemu] binary", binary ? binary : default_qemu);
	return access(q->path, X_OK) < 0 ? err_sys(e, -errno, "run '%s'", q->path) : 0;
}

static int ask(const struct qemu_probe *o, struct json_object *identity, struct qemu_info *q, struct err *e)
{
	struct json_object *answers = NULL;
	int r = qemu_ask(q->path, o->env, o->timeout_ms ? o->timeout_ms : ASK_TIMEOUT_MS, &answers, e);

	if (r == 0)
		r = qemu_info_from_answers(answers, q, e);
	if (r == 0 && o->cache_dir && !o->read_only)
		qemu_cache_write(o->cache_dir, identity, answers);
	json_object_put(answers);
	return r;
}

static void hand_over(struct qemu_info *q, struct qemu_info *ret)
{
	find_firmware(q);
	*ret = *q;
	*q = (struct qemu_info){ 0 };
}

int probe_qemu(const struct qemu_probe *o, struct qemu_info *ret, struct err *e)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { 0 };
	struct json_object *identity = NULL;
	int r = locate(o->binary, &q, e);

	if (r == 0)
		identity = qemu_identity(q.path, o->env); /* before it is asked: it may be replaced meanwhile */
	if (r == 0 && !(o->cache_dir && qemu_cache_read(o->cache_dir, identity, &q)))
		r = ask(o, identity, &q, e);
	if (r == 0)
		hand_over(&q, ret);
	json_object_put(identity);
	return r;
}

int probe_qemu_recorded(const char *file, const char *binary, struct qemu_info *ret, struct err *e)
{
	CLEANUP(qemu_info_clear) struct qemu_info q = { .path = xstrdup(binary ? binary : default_qemu) };
	AUTO_FREE char *text = NULL;
	int r = read_text_file(file, QEMU_ANSWERS_MAX, &text);

	if (r < 0)
		return err_sys(e, r, "read the answers of a QEMU from '%s'", file);
	r = qemu_info_from_text(text, strlen(text), &q, e);
	if (r < 0)
		return err_wrap(e, "'%s'", file);
	hand_over(&q, ret);
	return 0;
}
