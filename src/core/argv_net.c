/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_net.c - NICs. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "argv_priv.h"

static uint64_t fnv1a(const char *s, uint64_t h)
{
	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	return h;
}

/* Stable over starts, different between hosts, VMs and NICs; 52:54:00 is what KVM guests use. */
static char *mac_for(const struct builder *b, const struct net_config *n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	if (n->mac)
		return xstrdup(n->mac);
	h = fnv1a(b->pl->req->host->machine_id, h);
	h = fnv1a("/", fnv1a(b->vm->name, fnv1a("/", h)));
	h = fnv1a(n->name, h);
	return xasprintf("52:54:00:%02x:%02x:%02x", (unsigned int)(h >> 16 & 0xff), (unsigned int)(h >> 8 & 0xff), (unsigned int)(h & 0xff));
}

static void arg_net(struct builder *b, const struct net_config *n)
{
	AUTO_FREE char *mac = mac_for(b, n);
	bool tap = n->type == NET_TAP;
	/* Pairs; the kernel's limit for a tap is 256. */
	uint64_t queues = !tap ? 1 : n->queues > 0 ? (uint64_t)n->queues : b->p->n_vcpus < 256 ? b->p->n_vcpus : 256;
	struct qopt o;

	qopt_init(&o, tap ? "tap" : "user");
	qopt_fmt(&o, "id", "net-%s", n->name);
	if (tap) {
		qopt_str(&o, "ifname", n->ifname);
		qopt_str(&o, "script", "no");
		qopt_str(&o, "downscript", "no");
		qopt_bool(&o, "vhost", n->vhost != VHOST_OFF);
		if (queues > 1)
			qopt_u64(&o, "queues", queues);
	}
	arg_why(b, "-netdev", qopt_finish(&o), tap ? "the tap device of the host" : "user-mode network: outgoing only, no privileges");
	qopt_init(&o, "virtio-net-pci");
	qopt_fmt(&o, "id", "nic-%s", n->name);
	qopt_fmt(&o, "netdev", "net-%s", n->name);
	arg_virtio_addr(b, &o);
	qopt_str(&o, "mac", mac);
	if (queues > 1) {
		/* QEMU computes the same since 7.2; stated, so that the command says what it does. */
		qopt_bool(&o, "mq", true);
		qopt_u64(&o, "vectors", 2 * queues + 2);
	}
	qopt_str(&o, "romfile", "");
	arg_why(b, "-device", qopt_finish(&o), "%" PRIu64 " queue pair%s; no boot ROM: the guest boots from disk", queues, PLURAL(queues));
}

void arg_nets(struct builder *b)
{
	b->group = "network";
	for (size_t i = 0; i < b->vm->n_nets; i++)
		arg_net(b, &b->vm->nets[i]);
}
