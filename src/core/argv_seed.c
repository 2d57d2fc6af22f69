/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_seed.c - disks that are made at each start: the cloud-init seed, and one with the guest's check. plan->seed, plan->check, the commands
 * that make them for a shell, and the options. */
#include <errno.h>
#include <string.h>

#include "argv_priv.h"
#include "gpuvm/guest_check.h"
#include "gpuvm/nccl.h"

/* Where another machine will make it. */
#define USUAL_TOOL "xorrisofs"

#define NOT_FOUND "no program that makes ISO images was found: none of xorrisofs, genisoimage and mkisofs"

/* cloud-init runs what is "per instance" again when the ID changes: a VM of another uuid is another one. Quoted, because YAML has words
 * and numbers that are VM names, too. */
static char *meta_text(const struct plan *p)
{
	return xasprintf("instance-id: \"%s%s%s\"\nlocal-hostname: \"%s\"\n", p->vm, p->uuid ? "-" : "", p->uuid ? p->uuid : "",
			 p->vm);
}

static bool choose_tool(struct builder *b, struct plan_seed *s, const char *section, const char *key)
{
	const struct plan_request *req = b->pl->req;
	const char *tool = req->seed_tool ? req->seed_tool : req->foreign_host && !req->fake_devices ? USUAL_TOOL : NULL;
	struct problem *p;

	if (!tool) {
		p = config_problem(b->pl->ps, b->vm, section, key, "program-missing", "[%s]%s%s: " NOT_FOUND, section, *key ? " " : "", key);
		p->kind = PROBLEM_HOST;
		problem_hint(p, "install one of the packages xorriso, genisoimage (Debian, Fedora) or mkisofs");
		return false;
	}
	s->tool = xstrdup(tool);
	return true;
}

/* The image's name in the folder, "seed.iso". */
static const char *image_name(const struct plan_seed *s)
{
	return strrchr(s->image, '/') + 1;
}

void plan_seed_command(const struct plan_seed *s, struct strv *ret)
{
	/* Rock Ridge and Joliet keep the names, which plain ISO 9660 would make USER_DAT.  Graft points, because xorrisofs cannot find a
	 * file whose folder has a '=' in its name without them. */
	AUTO_FREE char *image = xasprintf("../%s", image_name(s));
	const char *const options[] = { s->tool, "-quiet", "-V", s->label, "-R", "-J", "-o", image, "-graft-points" };

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		strv_push(ret, options[i]);
	for (size_t i = 0; i < s->n_files; i++) {
		AUTO_FREE char *graft = xasprintf("%s=%s", s->files[i].name, s->files[i].name);

		strv_push(ret, graft);
	}
}

static void prepare_file(struct plan *p, const char *dir, const struct plan_seed_file *f)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, f->name), *to = shell_quote(path), *what = shell_quote(f->path ? f->path : f->text);

	if (f->ours)
		plan_prepare(p, "as gpuvm-launch has left it; else empty", "install -m 644 -- %s %s || : >%s", what, to, to);
	else if (f->path)
		plan_prepare(p, f->name, "install -m 600 -- %s %s", what, to);
	else
		plan_prepare(p, f->name, "printf %%s %s >%s", what, to);
}

/* For the printed command. */
static void prepare_seed(struct plan *p, const struct plan_seed *s)
{
	AUTO_FREE char *folder = xstrndup(s->image, strlen(s->image) - strlen(".iso")), *dir = shell_quote(folder), *image = shell_quote(s->image);
	struct strv argv = { 0 };
	char *command = xstrdup("");

	plan_seed_command(s, &argv);
	for (size_t i = 0; i < argv.n; i++) {
		AUTO_FREE char *word = shell_quote(argv.v[i]), *before = command;

		command = xasprintf("%s%s%s", before, i ? " " : "", word);
	}
	plan_prepare(p, s == &p->seed ? "the cloud-init seed, made anew from its files" : "the disk with the guest's check, made anew",
		     "rm -rf -- %s %s && mkdir -m 700 -- %s", dir, image, dir);
	for (size_t i = 0; i < s->n_files; i++)
		prepare_file(p, folder, &s->files[i]);
	plan_prepare(p, s == &p->seed ? "an ISO image with the volume name that cloud-init looks for" : "an ISO image with a volume name to mount it by",
		     "(cd -- %s && umask 077 && %s) && rm -rf -- %s", dir, command, dir);
	free(command);
	strv_clear(&argv);
}

/* Consumes @text. */
static struct plan_seed_file *add_file(struct plan_seed *s, const char *name, const char *path, char *text)
{
	struct plan_seed_file *f = &s->files[s->n_files++];

	*f = (struct plan_seed_file){ .name = name, .path = path ? xstrdup(path) : NULL, .text = text };
	return f;
}

/* What gpuvm-launch has written for the guest into the VM's folder. */
static void add_check(struct plan *p, struct plan_seed *s)
{
	static const char *const names[] = { GUEST_CHECK_FILE, NCCL_FILE };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = xasprintf("%s/%s", p->rundir, names[i]);

		if (i == 0 || nccl_is_wanted(p))
			add_file(s, names[i], path, NULL)->ours = true;
	}
}

/* NoCloud is found by the name of its file system, on whatever bus.  virtio-blk is what every cloud image can read: Debian's kernel for
 * clouds has no driver for q35's SATA, and its CD-ROM would never be seen. No boot index: firmware does not try it. */
static void arg_disk(struct builder *b, const struct plan_seed *s, const char *node, const char *serial, const char *why, const char *why_device)
{
	AUTO_FREE char *id = xasprintf("%s0", node);
	struct qopt o;

	prepare_seed(b->p, s);
	qopt_init(&o, "");
	qopt_str(&o, "driver", "raw");
	qopt_str(&o, "node-name", node);
	qopt_bool(&o, "read-only", true);
	qopt_str(&o, "file.driver", "file");
	qopt_str(&o, "file.filename", s->image);
	arg_why(b, "-blockdev", qopt_finish(&o), "%s", why);
	qopt_init(&o, "virtio-blk-pci");
	qopt_str(&o, "id", id);
	qopt_str(&o, "drive", node);
	arg_virtio_addr(b, &o);
	qopt_u64(&o, "num-queues", 1);
	qopt_str(&o, "serial", serial);
	arg_why(b, "-device", qopt_finish(&o), "%s", why_device);
}

static void plan_seed(struct builder *b, struct plan_seed *s)
{
	const struct vm_config *vm = b->vm;

	s->image = xasprintf("%s/seed.iso", b->p->rundir);
	s->label = "CIDATA";
	/* NoCloud takes a seed without user-data or meta-data for none. */
	add_file(s, "user-data", vm->user_data, vm->user_data ? NULL : xstrdup(""));
	add_file(s, "meta-data", vm->meta_data, vm->meta_data ? NULL : meta_text(b->p));
	if (vm->network_config)
		add_file(s, "network-config", vm->network_config, NULL);
	/* A VM without devices and nodes is what it is everywhere. */
	if (vm->check_disk == CHECK_AUTO && (b->p->n_devices || b->p->n_nodes > 1))
		add_check(b->p, s);
	plan_reason(b->p, "cloud-init", "%s, user-data %s, meta-data %s", s->image, vm->user_data ? vm->user_data : "empty",
		    vm->meta_data ? vm->meta_data : "from the VM's name");
}

void arg_seed(struct builder *b)
{
	struct plan *p = b->p;

	b->group = "cloud-init";
	if (b->vm->cloud_init && choose_tool(b, &p->seed, "cloud-init", "")) {
		plan_seed(b, &p->seed);
		arg_disk(b, &p->seed, "seed", "cidata", "NoCloud seed, an ISO image made at each start",
			 "read-only virtio-blk: cloud-init finds it by its volume name, and every cloud image has the driver");
	}
	if (b->vm->check_disk == CHECK_ON && choose_tool(b, &p->check, "guest", "check-disk")) {
		p->check.image = xasprintf("%s/check.iso", p->rundir);
		p->check.label = "gpuvm";
		add_check(p, &p->check);
		arg_disk(b, &p->check, "check", "gpuvm", "script that checks the guest from inside, and NCCL's topology file",
			 "read-only virtio-blk: mount LABEL=gpuvm");
	}
}

const struct plan_seed *plan_check_disk(const struct plan *p)
{
	if (p->check.image)
		return &p->check;
	for (size_t i = 0; i < p->seed.n_files; i++)
		if (p->seed.files[i].ours)
			return &p->seed;
	return NULL;
}
