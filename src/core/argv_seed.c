/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_seed.c - the cloud-init seed: plan->seed, the commands that make it for a shell, and the options. */
#include <errno.h>
#include <string.h>

#include "argv_priv.h"

/* Where another machine will make it. */
#define USUAL_TOOL "xorrisofs"

static char *copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

/* cloud-init runs what is "per instance" again when the ID changes: a VM of another uuid is another one. Quoted, because YAML has words
 * and numbers that are VM names, too. */
static char *meta_text(const struct plan *p)
{
	return xasprintf("instance-id: \"%s%s%s\"\nlocal-hostname: \"%s\"\n", p->vm, p->uuid ? "-" : "", p->uuid ? p->uuid : "",
			 p->vm);
}

static bool choose_tool(struct builder *b)
{
	const struct plan_request *req = b->pl->req;
	static const char section[] = "cloud-init";
	const char *tool = req->seed_tool ? req->seed_tool : req->foreign_host && !req->fake_devices ? USUAL_TOOL : NULL;
	struct problem *p;

	if (!tool) {
		p = config_problem(
			b->pl->ps, b->vm, section, "", "program-missing",
			"[cloud-init]: no program that makes ISO images was found: none of xorrisofs, genisoimage and mkisofs");
		p->kind = PROBLEM_HOST;
		problem_hint(p, "install one of the packages xorriso, genisoimage (Debian, Fedora) or mkisofs");
		return false;
	}
	b->p->seed.tool = xstrdup(tool);
	return true;
}

void plan_seed_command(const struct plan_seed *s, struct strv *ret)
{
	/* Rock Ridge and Joliet keep the names, which plain ISO 9660 would make USER_DAT.  Graft points, because xorrisofs cannot find a
	 * file whose folder has a '=' in its name without them. */
	static const char *const options[] = { "-quiet",
					       "-V",
					       "CIDATA",
					       "-R",
					       "-J",
					       "-o",
					       "../seed.iso",
					       "-graft-points",
					       "user-data=user-data",
					       "meta-data=meta-data" };

	strv_push(ret, s->tool);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		strv_push(ret, options[i]);
	if (s->network_config)
		strv_push(ret, "network-config=network-config");
}

/* A copy of @from; without one, @text. */
static void prepare_file(struct plan *p, const char *dir, const char *name, const char *from, const char *text)
{
	AUTO_FREE char *path = xasprintf("%s/%s", dir, name), *to = shell_quote(path), *what = shell_quote(from ? from : text);

	if (from)
		plan_prepare(p, name, "install -m 600 -- %s %s", what, to);
	else
		plan_prepare(p, name, "printf %%s %s >%s", what, to);
}

/* For the printed command. */
static void prepare_seed(struct plan *p)
{
	AUTO_FREE char *folder = xasprintf("%s/seed", p->rundir), *dir = shell_quote(folder), *image = shell_quote(p->seed.image);
	struct strv argv = { 0 };
	char *command = xstrdup("");

	plan_seed_command(&p->seed, &argv);
	for (size_t i = 0; i < argv.n; i++) {
		AUTO_FREE char *word = shell_quote(argv.v[i]), *before = command;

		command = xasprintf("%s%s%s", before, i ? " " : "", word);
	}
	plan_prepare(p, "the cloud-init seed, made anew from its files", "rm -rf -- %s %s && mkdir -m 700 -- %s", dir, image, dir);
	prepare_file(p, folder, "user-data", p->seed.user_data, "");
	prepare_file(p, folder, "meta-data", p->seed.meta_data, p->seed.meta_text);
	if (p->seed.network_config)
		prepare_file(p, folder, "network-config", p->seed.network_config, NULL);
	plan_prepare(p, "an ISO image with the volume name that cloud-init looks for",
		     "(cd -- %s && umask 077 && %s) && rm -rf -- %s", dir, command, dir);
	free(command);
	strv_clear(&argv);
}

static void plan_seed(struct builder *b)
{
	struct plan_seed *s = &b->p->seed;

	s->image = xasprintf("%s/seed.iso", b->p->rundir);
	s->user_data = copy(b->vm->user_data);
	s->meta_data = copy(b->vm->meta_data);
	s->network_config = copy(b->vm->network_config);
	s->meta_text = s->meta_data ? NULL : meta_text(b->p);
	prepare_seed(b->p);
}

/* NoCloud is found by the name of its file system, on whatever bus.  virtio-blk is what every cloud image can read: Debian's kernel for
 * clouds has no driver for q35's SATA, and its CD-ROM would never be seen. No boot index: firmware does not try it. */
void arg_seed(struct builder *b)
{
	struct qopt o;

	if (!b->vm->cloud_init || !choose_tool(b))
		return;
	plan_seed(b);
	b->group = "cloud-init";
	qopt_init(&o, "");
	qopt_str(&o, "driver", "raw");
	qopt_str(&o, "node-name", "seed");
	qopt_bool(&o, "read-only", true);
	qopt_str(&o, "file.driver", "file");
	qopt_str(&o, "file.filename", b->p->seed.image);
	arg_why(b, "-blockdev", qopt_finish(&o), "NoCloud seed, an ISO image made at each start");
	qopt_init(&o, "virtio-blk-pci");
	qopt_str(&o, "id", "seed0");
	qopt_str(&o, "drive", "seed");
	arg_virtio_addr(b, &o);
	qopt_u64(&o, "num-queues", 1);
	qopt_str(&o, "serial", "cidata");
	arg_why(b, "-device", qopt_finish(&o),
		"read-only virtio-blk: cloud-init finds it by its volume name, and every cloud image has the driver");
	plan_reason(b->p, "cloud-init", "%s, user-data %s, meta-data %s", b->p->seed.image,
		    b->p->seed.user_data ? b->p->seed.user_data : "empty",
		    b->p->seed.meta_data ? b->p->seed.meta_data : "from the VM's name");
}
