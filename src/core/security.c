/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/security.h"

/* By number; linux/capability.h up to Linux 6.12. */
static const char *const cap_names[] = {
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable", "net_bind_service",
	"net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin",
	"sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap", "mac_override",
	"mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
};

/* The names of those in @caps that are @set, or not. */
static char *cap_list(uint64_t caps, bool set, const char *begin)
{
	char *text = xstrdup(begin);

	for (unsigned int i = 0; i < (set ? 64 : ARRAY_SIZE(cap_names)); i++) {
		AUTO_FREE char *before = NULL;

		if ((caps >> i & 1) != set)
			continue;
		before = text;
		text = i < ARRAY_SIZE(cap_names) ? xasprintf("%s%s%s", before, *before ? " " : "", cap_names[i])
						 : xasprintf("%s%s%u", before, *before ? " " : "", i);
	}
	return text;
}

/* "ipc_lock sys_nice", "none", "all", "all but sys_resource" */
static char *cap_text(uint64_t caps)
{
	const uint64_t all = (UINT64_C(1) << ARRAY_SIZE(cap_names)) - 1;
	bool most = __builtin_popcountll(caps & all) > (int)ARRAY_SIZE(cap_names) / 2;

	if (most)
		return cap_list(caps, false, (caps & all) == all ? "all" : "all but");
	return caps ? cap_list(caps, true, "") : xstrdup("none");
}

/* @value is consumed. */
static void add(struct security_report *r, const char *what, char *value, const char *why)
{
	*PUSH_ZEROED(r->v, r->n) = (struct security_row){ .what = what, .value = value, .why = why };
}

static bool all_are(const unsigned int v[4], unsigned int id)
{
	return v[0] == id && v[1] == id && v[2] == id && v[3] == id;
}

static char *list(const struct strv *s)
{
	char *text = xstrdup(s->n ? s->v[0] : "none");

	for (size_t i = 1; i < s->n; i++) {
		AUTO_FREE char *before = text;

		text = xasprintf("%s, %s", before, s->v[i]);
	}
	return text;
}

static void judge_user(const struct security_facts *f, struct security_report *r)
{
	bool one = all_are(f->uids, f->uids[0]) && all_are(f->gids, f->gids[0]);
	uint64_t caps = f->caps[0] | f->caps[1] | f->caps[2] | f->caps[4];

	add(r, "user", xasprintf("uid %u %u %u %u, gid %u %u %u %u", f->uids[0], f->uids[1], f->uids[2], f->uids[3], f->gids[0], f->gids[1], f->gids[2], f->gids[3]),
	    !one ? "it can change to another user" : f->uids[0] == 0 ? "it is root: whoever breaks out of the guest has the host" : NULL);
	add(r, "groups", xstrdup(*f->groups ? f->groups : "none"), NULL);
	add(r, "capabilities", cap_text(caps), caps ? "QEMU needs none" : NULL);
	/* With no_new_privs it can never be had. */
	add(r, "bounding set", cap_text(f->caps[3]), f->caps[3] && !f->no_new_privs ? "a program that it runs may get these" : NULL);
	add(r, "no new privileges", xstrdup(f->no_new_privs ? "on" : "off"), f->no_new_privs ? NULL : "a set-user-ID program gives it another user");
}

void security_judge(const struct security_facts *f, struct security_report *ret)
{
	static const char *const modes[] = { "not known", "off", "strict", "filter" };
	struct security_report r = { 0 };

	judge_user(f, &r);
	add(&r, "seccomp", xstrdup(modes[f->seccomp >= 0 && f->seccomp <= 2 ? f->seccomp + 1 : 0]),
	    f->seccomp == 2 ? NULL : "any system call is open to it: [security] sandbox");
	add(&r, "core files", xstrdup(f->core), strcmp(f->core, "0") ? "a crash writes what QEMU has in memory to a file" : NULL);
	add(&r, "locked memory", xstrdup(f->memlock), NULL);
	add(&r, "open files", xstrdup(f->files), NULL);
	add(&r, "cgroup", xstrdup(f->cgroup ? f->cgroup : "none of version 2"), NULL);
	add(&r, "cgroup limits", list(&f->limits), NULL);
	add(&r, "devices", xstrdup(f->devices > 0 ? "only those of the plan" : f->devices == 0 ? "all that its user may open" : "not known"), NULL);
	add(&r, "device nodes", list(&f->nodes), NULL);
	add(&r, "run folder", xasprintf("uid %u, gid %u, mode %04o", f->rundir_uid, f->rundir_gid, f->rundir_mode),
	    f->rundir_mode & 0022 ? "others may put files in it" :
	    f->rundir_mode & 0007 || (f->rundir_mode & 0070 && f->rundir_gid != f->gids[0]) ? "others may look into it" :
	    f->uids[0] && f->rundir_uid == f->uids[0] ? "QEMU may write to it: its launcher is the same user" : NULL);
	*ret = r;
}

void security_facts_clear(struct security_facts *f)
{
	free(f->groups);
	free(f->memlock);
	free(f->core);
	free(f->files);
	free(f->cgroup);
	strv_clear(&f->limits);
	strv_clear(&f->nodes);
	*f = (struct security_facts){ 0 };
}

void security_report_clear(struct security_report *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->v[i].value);
	free(r->v);
	*r = (struct security_report){ 0 };
}

void security_print(const struct security_report *r, FILE *out)
{
	for (size_t i = 0; i < r->n; i++)
		fprintf(out, "  %-8s %-18s %s%s%s\n", r->v[i].why ? "warning" : "ok", r->v[i].what, r->v[i].value, r->v[i].why ? ": " : "",
			r->v[i].why ? r->v[i].why : "");
}

struct json_object *security_to_json(const struct security_report *r)
{
	struct json_object *a = json_object_new_array();

	for (size_t i = 0; i < r->n; i++) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "what", json_object_new_string(r->v[i].what));
		json_object_object_add(o, "value", json_object_new_string(r->v[i].value));
		json_object_object_add(o, "ok", json_object_new_boolean(!r->v[i].why));
		json_object_object_add(o, "why", r->v[i].why ? json_object_new_string(r->v[i].why) : NULL);
		json_object_array_add(a, o);
	}
	return a;
}
