/* SPDX-License-Identifier: GPL-2.0-or-later */
/* own.c - whom QEMU runs as, and what is its own meanwhile.
 *
 * How it works: own_choose() decides before the plan is made, since the plan says it.  What QEMU must open is of three kinds.  Sockets and shared nodes
 * are opened by the launcher (plan.opens).  What is read only stays as it is and must be readable: own_check() asks, before anything is touched.  The rest, the VM's alone
 * as long as it runs, is handed over once it is there and before QEMU is started, and given back when QEMU has ended.  claim.owned says what was whose. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "gpuvm/launch.h"
#include "gpuvm/log.h"
#include "gpuvm/owner.h"
#include "gpuvm/user.h"

#define KVM_NODE "/dev/kvm"

/* --- who ---------------------------------------------------------------------------------------------------- */

static bool is_auto(const struct vm_config *vm)
{
	return vm->user == NULL;
}

static struct problem *user_problem(struct launch *l, struct problems *ps, const char *code, const char *text)
{
	struct problem *p = config_problem(ps, &l->vm, "security", "user", code, "[security] user: '%s' %s", l->vm.user, text);

	p->kind = PROBLEM_HOST;
	return p;
}

/* Does another VM have this number, or a user database? Call with the lock held, or in a dry run. */
static bool is_taken(const struct launch *l, unsigned int uid, const struct strv *vms)
{
	bool taken = getpwuid(uid) || getgrgid(uid);

	for (size_t i = 0; i < vms->n && !taken; i++) {
		AUTO_FREE char *dir = claim_vm_dir(vms->v[i]);
		struct claim c = { 0 };
		struct err e;

		taken = strcmp(vms->v[i], l->vm.name) && claim_read(dir, &c, &e) == 0 && c.uid == uid;
		claim_clear(&c);
	}
	return taken;
}

static int choose_number(struct launch *l, struct err *e)
{
	struct strv vms = { 0 };
	unsigned int attempt = 0;
	int r = claim_list(&vms, e);

	while (r == 0 && is_taken(l, user_of_vm(l->vm.name, attempt), &vms))
		attempt++;
	strv_clear(&vms);
	l->identity.uid = l->identity.gid = user_of_vm(l->vm.name, attempt);
	return r;
}

static void add_group(struct spawn_identity *id, gid_t gid)
{
	for (size_t i = 0; i < id->n_groups; i++)
		if (id->groups[i] == gid)
			return;
	*PUSH_ZEROED(id->groups, id->n_groups) = gid;
}

static void choose_named(struct launch *l, struct problems *ps)
{
	const struct passwd *pw = getpwnam(l->vm.user);
	struct spawn_identity *id = &l->identity;
	int n = 0;

	if (!pw) {
		problem_hint(user_problem(l, ps, "user-unknown", "is no user of this machine"),
			     "`useradd --system --no-create-home --shell /usr/sbin/nologin %s` makes it; auto needs none", l->vm.user);
		return;
	}
	id->uid = pw->pw_uid;
	id->gid = pw->pw_gid;
	getgrouplist(l->vm.user, id->gid, NULL, &n);
	id->groups = xcalloc((size_t)n, sizeof(*id->groups));
	if (getgrouplist(l->vm.user, id->gid, id->groups, &n) >= 0)
		id->n_groups = (size_t)n;
}

/* The node's group, unless it is for everybody or for root. */
static void add_kvm_group(struct spawn_identity *id)
{
	struct stat st;

	if (stat(KVM_NODE, &st) == 0 && (st.st_mode & 0006) != 0006 && (st.st_mode & 0060) == 0060 && st.st_gid != 0)
		add_group(id, st.st_gid);
}

/* By the mode of a node in /dev, which everybody may enter and no network file system serves: may @id, who is not its owner, read and write it?
 * -1: only the kernel knows (an ACL). */
static int mode_allows(const char *path, const struct spawn_identity *id)
{
	struct stat st;
	bool member;

	if (stat(path, &st) < 0 || (getxattr(path, "system.posix_acl_access", NULL, 0) >= 0 || (errno != ENODATA && errno != EOPNOTSUPP)))
		return -1;
	member = id->gid == st.st_gid;
	for (size_t i = 0; i < id->n_groups; i++)
		member = member || id->groups[i] == st.st_gid;
	return member ? (st.st_mode & 0060) == 0060 : (st.st_mode & 0006) == 0006;
}

/* Would the VM get KVM as root, and not as this user? */
static bool misses_kvm(const struct launch *l)
{
	struct owner_wish w = { .path = KVM_NODE, .mode = R_OK | W_OK, .id = &l->identity };
	const struct topology *here = l->here.n_nodes ? &l->here : &l->host;
	int by_mode;

	if (l->vm.accel == ACCEL_TCG || !here->kvm)
		return false;
	by_mode = mode_allows(KVM_NODE, &l->identity);
	/* Asking takes a process. */
	if (by_mode >= 0)
		return !by_mode;
	owner_may(&w, 1);
	return w.err.code < 0;
}

static void forget_identity(struct launch *l)
{
	free(l->identity.groups);
	l->identity = (struct spawn_identity){ 0 };
}

int own_choose(struct launch *l, struct problems *ps, struct err *e)
{
	struct plan_user *u = &l->user;
	int r = 0;

	if (geteuid() != 0) {
		const struct passwd *pw = is_auto(&l->vm) ? NULL : getpwnam(l->vm.user);

		if (!is_auto(&l->vm) && (!pw || pw->pw_uid != geteuid()))
			problem_hint(user_problem(l, ps, "user-needs-root", "can only be changed to by root"), "start the VM as root, or leave out user");
		return 0;
	}
	u->why = is_auto(&l->vm) ? "made from the VM's name; no user database knows it" : "as [security] user says";
	if (is_auto(&l->vm)) {
		/* None of the numbers owns a node: for KVM any of them will do, and to look for one that is free takes longer. */
		l->identity.uid = l->identity.gid = user_of_vm(l->vm.name, 0);
		add_kvm_group(&l->identity);
		if (misses_kvm(l)) {
			forget_identity(l);
			u->why = "no other user can open " KVM_NODE;
			u->unsafe = "no other user can open " KVM_NODE "; `chgrp kvm " KVM_NODE " && chmod 660 " KVM_NODE "` lets QEMU have a user of its own";
		} else {
			r = choose_number(l, e);
		}
	} else if (strcmp(l->vm.user, "root")) {
		choose_named(l, ps);
		add_kvm_group(&l->identity);
	}
	if (r < 0 || ps->n)
		return r;
	u->set = true;
	u->uid = l->identity.uid;
	u->gid = l->identity.gid;
	return 0;
}

void own_clear(struct launch *l)
{
	forget_identity(l);
	l->user = (struct plan_user){ 0 };
}

/* --- may it? ------------------------------------------------------------------------------------------------ */

struct wishes {
	struct owner_wish *v;
	size_t n;
};

static void wish(const struct launch *l, struct wishes *w, const char *path, int mode)
{
	/* What is to be made is made by us. */
	if (path && !strv_contains(&l->opt->promised, path) && access(path, F_OK) == 0)
		*PUSH_ZEROED(w->v, w->n) = (struct owner_wish){ .path = path, .mode = mode, .id = &l->identity };
}

static void refuse(const struct launch *l, const struct owner_wish *w, struct problems *ps)
{
	const char *what = strv_contains(&l->below, w->path) ? ", which a disk is made on" : "";
	bool folder = w->err.word && strcmp(w->err.word, "folder") == 0;
	const char *letters = folder || w->mode & X_OK ? "x" : w->mode & W_OK ? "rw" : "r";
	AUTO_FREE char *quoted = shell_quote(w->err.msg);
	struct problem *p;

	if (!w->err.word) {
		problems_add(ps, PROBLEM_HOST, "user-no-access", "'%s' cannot be looked at as uid %u: %s", w->path, w->id->uid, w->err.msg);
		return;
	}
	p = problems_add(ps, PROBLEM_HOST, "user-no-access", "QEMU runs as uid %u, which may not %s '%s'%s%s%s%s", w->id->uid,
			 folder ? "enter" : *letters == 'x' ? "enter or run" : "open", w->err.msg, folder ? ", where '" : "", folder ? w->path : "", folder ? "' is" : "",
			 what);
	problem_hint(p, "`setfacl -m u:%u:%s %s` allows it, or `chmod o+%s %s`; [security] user = root does without", w->id->uid, letters, quoted, letters,
		     quoted);
}

/* A folder of ours, which open_state_folders() lets everybody go through. */
static bool is_our_disk(const char *path)
{
	AUTO_FREE char *dir = xasprintf("%s/disks/", launch_state_dir());

	return strncmp(path, dir, strlen(dir)) == 0;
}

void own_check(struct launch *l, struct problems *ps)
{
	const struct vm_config *vm = &l->vm;
	struct wishes w = { 0 };

	if (!l->identity.uid)
		return;
	wish(l, &w, strcmp(l->plan.accel, "kvm") ? NULL : KVM_NODE, R_OK | W_OK);
	wish(l, &w, l->plan.qemu_binary, X_OK);
	wish(l, &w, claim_rundir(), X_OK);
	wish(l, &w, launch_state_dir(), X_OK);
	wish(l, &w, *l->plan.firmware == '/' ? l->plan.firmware : NULL, R_OK);
	wish(l, &w, vm->kernel, R_OK);
	wish(l, &w, vm->initrd, R_OK);
	for (size_t i = 0; i < vm->n_disks; i++)
		if (vm->disks[i].readonly || !is_our_disk(vm->disks[i].file))
			wish(l, &w, vm->disks[i].file, vm->disks[i].readonly ? R_OK : 0);
	for (size_t i = 0; i < l->below.n; i++)
		wish(l, &w, l->below.v[i], R_OK);
	for (size_t i = 0; i < vm->n_devices && !l->plan.fake_devices; i++)
		wish(l, &w, vm->devices[i].romfile && strcmp(vm->devices[i].romfile, "none") ? vm->devices[i].romfile : NULL, R_OK);
	owner_may(w.v, w.n);
	for (size_t i = 0; i < w.n; i++)
		if (w.v[i].err.code < 0)
			refuse(l, &w.v[i], ps);
	free(w.v);
}

/* --- the stage ---------------------------------------------------------------------------------------------- */

static int note(struct launch *l, const char *path, struct err *e)
{
	struct owner was;
	char *real;
	int r = owner_look(path, &real, &was, e);
	struct claim_owned *o;

	if (r < 0)
		return r;
	/* What a power failure has left: the claim went with it, and whose it had been. */
	if (user_is_of_vm(was.uid)) {
		was.uid = 0;
		was.gid = user_is_of_vm(was.gid) ? 0 : was.gid;
	}
	o = PUSH_ZEROED(l->claim.owned, l->claim.n_owned);
	*o = (struct claim_owned){ .path = real, .uid = was.uid, .gid = was.gid, .mode = was.mode };
	return 0;
}

/* In rundir, where nobody else can put anything. */
static int make_file(const char *path, struct err *e)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? err_sys(e, -errno, "create '%s'", path) : 0;
}

static int note_made(struct launch *l, const char *path, struct err *e)
{
	int r = make_file(path, e);

	return r < 0 ? r : note(l, path, e);
}

char *own_device_node(const struct launch *l, const struct plan_device *d)
{
	struct strv names = { 0 };
	char bdf[PCI_ADDR_STR], *path = NULL;

	if (!d->options || !d->options->iommufd)
		return xasprintf("/dev/vfio/%d", d->iommu_group);
	if (sysfs_list(&l->sys, &names, "/sys/bus/pci/devices/%s/vfio-dev", pci_addr_format(&d->addr, bdf)) == 0 && names.n)
		path = xasprintf("/dev/vfio/devices/%s", names.v[0]);
	strv_clear(&names);
	return path ? path : xasprintf("/dev/vfio/devices/(of %s)", bdf);
}

static bool is_noted(const struct claim *c, const char *path)
{
	for (size_t i = 0; i < c->n_owned; i++)
		if (strcmp(c->owned[i].path, path) == 0)
			return true;
	return false;
}

static int note_devices(struct launch *l, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < l->plan.n_devices && r == 0 && !l->plan.fake_devices; i++) {
		AUTO_FREE char *node = own_device_node(l, &l->plan.devices[i]);

		/* Several devices may be one group. */
		if (!is_noted(&l->claim, node))
			r = note(l, node, e);
	}
	return r;
}

static int note_disks(struct launch *l, struct err *e)
{
	int r = l->plan.vars_file ? note(l, l->plan.vars_file, e) : 0;

	for (size_t i = 0; i < l->vm.n_disks && r == 0; i++)
		if (!l->vm.disks[i].readonly)
			r = note(l, l->vm.disks[i].file, e);
	if (r == 0 && l->plan.tpm.state_dir)
		r = note(l, l->plan.tpm.state_dir, e);
	return r;
}

static int note_files(struct launch *l, struct err *e)
{
	AUTO_FREE char *serial = xasprintf("%s/serial.log", l->plan.rundir);
	int r = l->plan.serial_stdio ? 0 : note_made(l, serial, e);

	/* strace is run by QEMU's user, too: -o FILE, as the plan has it. */
	for (size_t i = 0; i + 1 < l->plan.wrapper.n && r == 0; i++)
		if (strcmp(l->plan.wrapper.v[i], "-o") == 0)
			r = note_made(l, l->plan.wrapper.v[i + 1], e);
	if (r == 0 && l->plan.seed.image)
		r = note(l, l->plan.seed.image, e);
	if (r == 0 && l->plan.check.image)
		r = note(l, l->plan.check.image, e);
	return r;
}

/* Disks and variables are in folders that were made for root alone; each file in them is closed to others by its own mode. */
static int open_state_folders(struct err *e)
{
	static const char *const names[] = { "disks", "vars", "tpm" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *dir = xasprintf("%s/%s", launch_state_dir(), names[i]);
		struct stat st;

		if (stat(dir, &st) == 0 && (st.st_mode & 0011) != 0011 && chmod(dir, (st.st_mode & 0777) | 0011) < 0)
			return err_sys(e, -errno, "chmod go+x '%s'", dir);
	}
	return 0;
}

/* QEMU may go through the run-time folder, but neither look around nor make anything in it: the claim is there. */
static int open_rundir(const struct claim *c, gid_t gid, mode_t mode, struct err *e)
{
	if (chown(c->rundir, (uid_t)-1, gid) < 0 || chmod(c->rundir, mode) < 0)
		return err_sys(e, -errno, "folder '%s': group %u, mode %o", c->rundir, gid, mode);
	return 0;
}

/* Another VM's disk, which was given to its user: that it is QEMU's to lock would be found out too late. */
static int check_foreign(const struct launch *l, const char *path, struct err *e)
{
	struct strv vms = { 0 };
	struct owner now;
	char *real = NULL;
	int r = owner_look(path, &real, &now, e);

	if (r == 0 && user_is_of_vm(now.uid) && now.uid != l->identity.uid)
		r = claim_list(&vms, e);
	for (size_t i = 0; i < vms.n && r == 0; i++) {
		AUTO_FREE char *dir = claim_vm_dir(vms.v[i]);
		struct claim c = { 0 };
		struct err ignored;

		if (claim_read(dir, &c, &ignored) == 0 && c.uid == now.uid && claim_alive(&c))
			r = err_set(e, -EBUSY, "'%s' is VM '%s''s as long as that runs", path, c.vm);
		claim_clear(&c);
	}
	strv_clear(&vms);
	free(real);
	return r;
}

int own_hand_over(struct launch *l, struct err *e)
{
	struct claim *c = &l->claim;
	int r = 0;

	if (!l->identity.uid)
		return 0;
	for (size_t i = 0; i < l->vm.n_disks && r == 0; i++)
		if (!l->vm.disks[i].readonly)
			r = check_foreign(l, l->vm.disks[i].file, e);
	if (r == 0)
		r = open_state_folders(e);
	if (r == 0)
		r = note_files(l, e);
	if (r == 0)
		r = note_disks(l, e);
	if (r == 0)
		r = note_devices(l, e);
	if (r == 0)
		r = claim_write(c, e);
	if (r == 0)
		r = open_rundir(c, l->identity.gid, 0710, e);
	for (size_t i = 0; i < c->n_owned && r == 0; i++)
		r = owner_give(c->owned[i].path, l->identity.uid, e);
	return r;
}

int claim_give_back(struct claim *c, struct err *e)
{
	int r = c->uid ? open_rundir(c, 0, 0700, e) : 0;
	size_t left = 0;

	for (size_t i = 0; i < c->n_owned; i++) {
		const struct claim_owned o = c->owned[i];
		int one = owner_take_back(o.path, c->uid, &(struct owner){ .uid = o.uid, .gid = o.gid, .mode = o.mode }, e);

		if (one < 0)
			c->owned[left++] = o;
		else
			free(o.path);
		r = one < 0 ? one : r;
	}
	/* Where users are shared the next one to have a file may be the same. */
	if (left < c->n_owned) {
		c->n_owned = left;
		return r < 0 ? r : claim_write(c, e);
	}
	return r;
}

int own_take_back(struct launch *l, int exit_code, struct err *e)
{
	(void)exit_code;
	return l->claimed ? claim_give_back(&l->claim, e) : 0;
}

/* --- when it fails ------------------------------------------------------------------------------------------- */

bool own_explain(const struct launch *l, const char *words, struct err *e)
{
	/* vfio_dma_map(...) = -12 (Cannot allocate memory); VFIO_MAP_DMA failed: Cannot allocate memory */
	bool dma = strstr(words, "Cannot allocate memory") && (strstr(words, "VFIO_MAP_DMA") || strstr(words, "vfio_dma_map") || strstr(words, "vfio_container_dma_map"));
	bool filtered = l->claim.cgroup && l->vm.device_filter && strstr(words, "Operation not permitted") && strstr(words, "Could not open '/dev/");
	bool denied = l->identity.uid && strstr(words, "Permission denied");

	if (dma)
		err_wrap(e, "VFIO may not lock as much memory as the VM has: raise [security] memlock");
	else if (filtered)
		err_wrap(e, "QEMU may open no device nodes but those of the plan: [security] device-filter = off lets it");
	else if (denied)
		err_wrap(e, "QEMU runs as uid %u, which may not open all that it was told to: give it access, or set [security] user = root", l->identity.uid);
	return dma || denied || filtered;
}
