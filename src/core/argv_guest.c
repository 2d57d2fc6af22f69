/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_guest.c - small virtual devices by which guests talk to the host. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "argv_priv.h"

#define USUAL_SWTPM "swtpm" /* where another machine will run it */
#define CID_FIRST   3       /* 0 to 2: hypervisor, loopback, host (vsock(7)) */

static void arg_socket(struct builder *b, const char *id, const char *path, bool server, const char *why)
{
	struct qopt o;

	qopt_init(&o, "socket");
	qopt_str(&o, "id", id);
	qopt_str(&o, "path", path);
	if (server) {
		qopt_bool(&o, "server", true);
		qopt_bool(&o, "wait", false);
	}
	arg_why(b, "-chardev", qopt_finish(&o), "%s", why);
	if (server)
		arg_open(b, NULL, path);
}

static void arg_agent(struct builder *b)
{
	AUTO_FREE char *path = xasprintf("%s/agent.sock", b->p->rundir);
	struct qopt o;

	arg_socket(b, "agent", path, true, "where the host talks to qemu-guest-agent");
	qopt_init(&o, "virtio-serial-pci");
	qopt_str(&o, "id", "vserial0");
	arg_virtio_addr(b, &o);
	arg_why(b, "-device", qopt_finish(&o), "carries the guest agent's channel");
	qopt_init(&o, "virtserialport");
	qopt_str(&o, "id", "agent0");
	qopt_str(&o, "bus", "vserial0.0");
	qopt_u64(&o, "nr", 1);
	qopt_str(&o, "chardev", "agent");
	qopt_str(&o, "name", "org.qemu.guest_agent.0");
	arg_why(b, "-device", qopt_finish(&o), "the name by which the guest agent finds its channel");
}

static void arg_rng(struct builder *b)
{
	struct qopt o;

	qopt_init(&o, "rng-random");
	qopt_str(&o, "id", "entropy");
	qopt_str(&o, "filename", "/dev/urandom");
	arg_why(b, "-object", qopt_finish(&o), "the host's random numbers");
	qopt_init(&o, "virtio-rng-pci");
	qopt_str(&o, "id", "rng0");
	qopt_str(&o, "rng", "entropy");
	arg_virtio_addr(b, &o);
	arg_why(b, "-device", qopt_finish(&o), "entropy: guests that boot at once would wait for it");
}

static void arg_panic(struct builder *b)
{
	bool pci = qemu_has(b->q, QF_PVPANIC_PCI);
	struct qopt o;

	qopt_init(&o, pci ? "pvpanic-pci" : "pvpanic");
	qopt_str(&o, "id", "panic0");
	if (pci)
		arg_virtio_addr(b, &o);
	arg_why(b, "-device", qopt_finish(&o),
		"a guest's kernel that panics says so: the VM ends as failed instead of standing still");
}

/* --- vsock -------------------------------------------------------------------------------------------------- */

/* The same at every start: services find the guest by it. Two VMs of a host meet with a chance of one in a thousand million. */
static uint32_t cid_of(const char *name)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
	return (uint32_t)(CID_FIRST + h % (INT32_MAX - CID_FIRST));
}

static void check_vsock(struct builder *b)
{
	const struct plan_request *req = b->pl->req;
	bool unknown = (req->foreign_host && !req->fake_devices) || planner_machine(b->pl)->gaps & GAP_DRIVERS;
	struct problem *p;

	if (!arg_needs(b, QF_VHOST_VSOCK, "guest", "vsock") || unknown || planner_machine(b->pl)->vhost_vsock)
		return;
	p = config_problem(b->pl->ps, b->vm, "guest", "vsock", "vsock-missing", "[guest] vsock: /dev/vhost-vsock cannot be opened");
	p->kind = PROBLEM_HOST;
	problem_hint(p, "load it with `modprobe vhost_vsock`, run as root, or use vsock = off");
}

/* QEMU would find out, but not say whose it is. */
static void check_cid(struct builder *b)
{
	const struct host_use *use = b->pl->req->use;

	for (size_t i = 0; use && i < use->n_vsocks; i++) {
		const struct used_vsock *u = &use->vsocks[i];
		struct problem *p;

		if (u->cid != b->p->vsock)
			continue;
		p = config_problem(b->pl->ps, b->vm, "guest", "vsock", "vsock-in-use", "[guest] vsock: the running VM '%s' (pid %d) has context ID %" PRIu32, u->vm,
				   u->pid, u->cid);
		p->kind = PROBLEM_BUSY;
		problem_hint(p, "stop it (`gpuvm stop %s`), or set another ID", u->vm);
	}
}

static void arg_vsock(struct builder *b)
{
	bool made = b->vm->vsock == CONF_AUTO;
	struct qopt o;

	check_vsock(b);
	b->p->vsock = made ? cid_of(b->vm->name) : (uint32_t)b->vm->vsock;
	check_cid(b);
	plan_prepare(b->p, "the node that vsock needs comes with its module", "test -e /dev/vhost-vsock || modprobe vhost_vsock");
	qopt_init(&o, "vhost-vsock-pci");
	qopt_str(&o, "id", "vsock0");
	arg_virtio_addr(b, &o);
	qopt_u64(&o, "guest-cid", b->p->vsock);
	arg_why(b, "-device", qopt_finish(&o), "AF_VSOCK: the guest is context %" PRIu32, b->p->vsock);
	arg_open(b, "vhostfd", "/dev/vhost-vsock");
	plan_reason(b->p, "vsock", "context ID %" PRIu32 "%s", b->p->vsock,
		    made ? ", from the VM's name" : "");
}

/* --- TPM ---------------------------------------------------------------------------------------------------- */

static bool choose_swtpm(struct builder *b)
{
	const struct plan_request *req = b->pl->req;
	const char *program = req->swtpm ? req->swtpm : req->foreign_host && !req->fake_devices ? USUAL_SWTPM : NULL;
	struct problem *p;

	if (!arg_needs(b, QF_TPM_EMULATOR, "guest", "tpm"))
		return false;
	if (!program) {
		p = config_problem(b->pl->ps, b->vm, "guest", "tpm", "program-missing", "[guest] tpm: swtpm was not found");
		p->kind = PROBLEM_HOST;
		problem_hint(p, "install the package swtpm, or use tpm = off");
		return false;
	}
	b->p->tpm.program = xstrdup(program);
	return true;
}

/* swtpm's options have no way to write a comma: such a folder is handed over as an open file. */
static char *shell_dir(const char *path, int fd, char **ret_redirect)
{
	AUTO_FREE char *quoted = shell_quote(path);

	*ret_redirect = strchr(path, ',') ? xasprintf(" %d<%s", fd, quoted) : xstrdup("");
	return strchr(path, ',') ? xasprintf("/dev/fd/%d", fd) : xstrdup(path);
}

/* --daemon: it goes on in the background when its socket is there. */
static void prepare_tpm(struct plan *p)
{
	AUTO_FREE char *state_fd = NULL, *run_fd = NULL, *state = shell_dir(p->tpm.state_dir, 9, &state_fd),
		       *run = shell_dir(p->rundir, 8, &run_fd);
	AUTO_FREE char *dir = xasprintf("dir=%s", state), *ctrl = xasprintf("type=unixio,path=%s/tpm.sock", run);
	AUTO_FREE char *quoted_dir = shell_quote(dir), *quoted_ctrl = shell_quote(ctrl), *program = shell_quote(p->tpm.program);
	AUTO_FREE char *folder = shell_quote(p->tpm.state_dir), *socket = shell_quote(p->tpm.socket);

	plan_prepare(p, "state of the VM's TPM, kept from run to run", "mkdir -p -m 700 -- %s", folder);
	plan_prepare(p, "the TPM; it ends when QEMU does",
		     "rm -f -- %s && %s socket --tpm2 --tpmstate %s --ctrl %s --terminate --daemon%s%s", socket, program,
		     quoted_dir, quoted_ctrl, state_fd, run_fd);
}

static void arg_tpm(struct builder *b)
{
	struct qopt o;

	if (!choose_swtpm(b))
		return;
	b->p->tpm.state_dir = xasprintf("%s/tpm/%s", b->pl->req->statedir, b->vm->name);
	b->p->tpm.socket = xasprintf("%s/tpm.sock", b->p->rundir);
	prepare_tpm(b->p);
	arg_socket(b, "tpm", b->p->tpm.socket, false, "swtpm's control channel");
	qopt_init(&o, "emulator");
	qopt_str(&o, "id", "tpmdev0");
	qopt_str(&o, "chardev", "tpm");
	arg_why(b, "-tpmdev", qopt_finish(&o), "TPM 2.0, emulated by swtpm; state in %s", b->p->tpm.state_dir);
	qopt_init(&o, "tpm-crb");
	qopt_str(&o, "id", "tpm0");
	qopt_str(&o, "tpmdev", "tpmdev0");
	arg_why(b, "-device", qopt_finish(&o), "the interface that TPM 2.0 drivers of current guests know");
}

void arg_guest(struct builder *b)
{
	b->group = "guest";
	if (b->vm->guest_agent)
		arg_agent(b);
	if (b->vm->guest_rng)
		arg_rng(b);
	if (b->vm->guest_panic)
		arg_panic(b);
	if (b->vm->vsock)
		arg_vsock(b);
	if (b->vm->guest_tpm)
		arg_tpm(b);
}
