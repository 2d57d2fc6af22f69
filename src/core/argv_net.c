/* SPDX-License-Identifier: GPL-2.0-or-later */
/* argv_net.c - NICs: plan->taps, the commands that make them for a shell, and the options.
 *
 * How it works: what the host has decides whether a tap is the operator's own or to be made, and every reason why it cannot be had
 * is found here, before anything is touched.  The option has the tap by its name, so that the printed command runs; the launcher
 * puts the fds of its own in place (plan_argv). */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "argv_priv.h"

#define TAP_QUEUES_MAX 256 /* the kernel's MAX_TAP_QUEUES */
#define ETHERNET_MTU   1500

static uint64_t fnv1a(const char *s, uint64_t h)
{
	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	return h;
}

#define FNV1A_BASIS UINT64_C(0xcbf29ce484222325)

/* Stable over starts, different between hosts, VMs and NICs; 52:54:00 is what KVM guests use. */
static char *mac_for(const struct builder *b, const struct net_config *n)
{
	uint64_t h = FNV1A_BASIS;

	if (n->mac)
		return xstrdup(n->mac);
	h = fnv1a(b->pl->req->host->machine_id, h);
	h = fnv1a("/", fnv1a(b->vm->name, fnv1a("/", h)));
	h = fnv1a(n->name, h);
	return xasprintf("52:54:00:%02x:%02x:%02x", (unsigned int)(h >> 16 & 0xff), (unsigned int)(h >> 8 & 0xff),
			 (unsigned int)(h & 0xff));
}

/* Of the host's end of the wire. A bridge without an address of its own takes the lowest one of its members: this one must not
 * be lower than that of a real NIC, and must differ from the guest's. */
static char *host_mac(const char *guest_mac)
{
	return xasprintf("%s%s", strncasecmp(guest_mac, "fe", 2) == 0 ? "fa" : "fe", guest_mac + 2);
}

/* --- the tap's name ---------------------------------------------------------------------------------------- */

/* VM-SECTION where that fits, else the beginning of the VM's name and a hash of both.  Two VMs or sections never get the same name but
 * by an equal hash: a section's name begins with a letter and, here, has no '-', so what follows the last '-' is either a
 * section or, with its digit in front, a hash. */
static char *ifname_for(const struct vm_config *vm, const struct net_config *n)
{
	uint64_t h;

	if (n->ifname)
		return xstrdup(n->ifname);
	if (!strchr(n->name, '-') && strlen(vm->name) + 1 + strlen(n->name) < HOST_NET_NAME)
		return xasprintf("%s-%s", vm->name, n->name);
	h = fnv1a(n->name, fnv1a("/", fnv1a(vm->name, FNV1A_BASIS)));
	return xasprintf("%.5s-%" PRIu64 "%08" PRIx32, vm->name, h % 10, (uint32_t)(h >> 32 ^ h));
}

/* --- what the host has ----------------------------------------------------------------------------------------- */

/* A stand-in for another machine's VM runs here, and here nobody has looked. */
static bool nets_known(const struct builder *b)
{
	const struct plan_request *req = b->pl->req;

	return req->host->nets_known && !(req->foreign_host && req->fake_devices);
}

static const struct host_net *host_net(const struct builder *b, const char *name)
{
	return nets_known(b) ? topology_find_net(b->pl->req->host, name) : NULL;
}

static struct problem *net_problem(const struct builder *b, enum problem_kind kind, const struct net_config *n, const char *key,
				   const char *code, const char *text)
{
	AUTO_FREE char *section = xasprintf("net %s", n->name);
	struct problem *p = config_problem(b->pl->ps, b->vm, section, key, code, "[%s] %s: %s", section, key, text);

	p->kind = kind;
	return p;
}

static const struct used_tap *tap_user(const struct builder *b, const char *ifname)
{
	const struct host_use *use = b->pl->req->use;

	for (size_t i = 0; use && i < use->n_taps; i++)
		if (strcmp(use->taps[i].ifname, ifname) == 0)
			return &use->taps[i];
	return NULL;
}

static void check_bridge(const struct builder *b, const struct net_config *n)
{
	const struct host_net *h = host_net(b, n->bridge);
	AUTO_FREE char *text = h ? xasprintf("the host's interface '%s' is not a bridge", n->bridge)
				 : xasprintf("the host has no interface '%s'", n->bridge);

	if (nets_known(b) && (!h || h->kind != HOST_NET_BRIDGE))
		problem_hint(net_problem(b, PROBLEM_HOST, n, "bridge", "bridge-missing", text),
			     "`ip link show type bridge` lists them, `ip link add %s type bridge` makes one", n->bridge);
}

/* Is it another VM's, or a stranger's?  A problem then. */
static bool tap_is_busy(const struct builder *b, const struct net_config *n, const struct plan_tap *t, const struct host_net *h)
{
	const struct used_tap *u = tap_user(b, t->ifname);
	AUTO_FREE char *text = NULL;
	struct problem *p;

	if (u && strcmp(u->vm, b->vm->name) == 0)
		return false;
	if (u)
		text = xasprintf("VM '%s' (pid %d) has the interface '%s'", u->vm, u->pid, t->ifname);
	else if (h && h->kind == HOST_NET_TAP && h->in_use && !b->pl->req->foreign_host)
		text = xasprintf("a process has the interface '%s' open", t->ifname);
	else
		return false;
	p = net_problem(b, PROBLEM_BUSY, n, "ifname", "tap-busy", text);
	if (u)
		problem_hint(p, "stop it (`gpuvm stop %s`), or set another ifname", u->vm);
	else
		problem_hint(p, "end it, or set another ifname; `grep -l 'iff:.*%s' /proc/[0-9]*/fdinfo/*` finds it", t->ifname);
	return true;
}

/* Can the interface that is there be used as it is? */
static void check_existing(const struct builder *b, const struct net_config *n, const struct plan_tap *t, const struct host_net *h)
{
	AUTO_FREE char *text = NULL;

	if (h->kind != HOST_NET_TAP) {
		text = xasprintf("the host's interface '%s' is not a tap", t->ifname);
		problem_hint(net_problem(b, PROBLEM_HOST, n, "ifname", "tap-unusable", text),
			     "set an ifname that is free, or one of a tap");
	} else if (t->queues > 1 && !h->multi_queue) {
		text = xasprintf("the tap '%s' was made without multi_queue, so it cannot have %d queues", t->ifname, t->queues);
		problem_hint(
			net_problem(b, PROBLEM_HOST, n, "ifname", "tap-unusable", text),
			"make it anew with `ip tuntap del dev %s mode tap; ip tuntap add dev %s mode tap multi_queue`, or set queues = 1",
			t->ifname, t->ifname);
	} else if (t->bridge && strcmp(h->master, t->bridge) != 0) {
		text = xasprintf("the tap '%s' exists already and is not in the bridge '%s'", t->ifname, t->bridge);
		problem_hint(net_problem(b, PROBLEM_HOST, n, "ifname", "tap-unusable", text),
			     "add it with `ip link set dev %s master %s`, or remove it (`ip link del %s`) to have one made", t->ifname,
			     t->bridge, t->ifname);
	} else if (!h->up) {
		plan_warn(b->p, "tap-down", "[net %s] the tap '%s' is down and is left so: `ip link set dev %s up`", n->name, t->ifname,
			  t->ifname);
	}
}

/* --- choices ----------------------------------------------------------------------------------------------------- */

/* Pairs. */
static int choose_queues(const struct builder *b, const struct net_config *n)
{
	if (n->queues > 0)
		return n->queues;
	return b->p->n_vcpus < TAP_QUEUES_MAX ? (int)b->p->n_vcpus : TAP_QUEUES_MAX;
}

/* Without the node QEMU 7.2 ends with an assertion instead of a message. */
static bool choose_vhost(struct builder *b, const struct net_config *n)
{
	const struct plan_request *req = b->pl->req;
	bool foreign = req->foreign_host || req->host->gaps & GAP_DRIVERS;
	/* Another machine is taken to have it; where its VM runs here with stand-ins, nothing is taken for granted. */
	bool have = foreign ? !req->fake_devices : req->host->vhost_net;

	if (n->vhost == VHOST_OFF)
		return false;
	if (n->vhost == VHOST_ON && !have && !foreign)
		problem_hint(net_problem(b, PROBLEM_HOST, n, "vhost", "vhost-missing", "on, but /dev/vhost-net cannot be opened"),
			     "load it with `modprobe vhost_net`, run as root, or use vhost = auto");
	if (n->vhost == VHOST_AUTO && !have && !foreign)
		plan_warn(b->p, "vhost-missing", "[net %s] QEMU itself moves the packets, which is slower: /dev/vhost-net cannot be opened",
			  n->name);
	return n->vhost == VHOST_ON || have;
}

/* Of the bridge, since a member with a smaller one would shrink the bridge's own; of a tap, what it has. */
static int choose_mtu(const struct builder *b, const struct plan_tap *t, const struct host_net *existing)
{
	const struct host_net *h = existing ? existing : t->bridge ? host_net(b, t->bridge) : NULL;

	return h ? h->mtu : 0;
}

/* Two sections of one VM, one of them with a name that is made. */
static void check_own_names(const struct builder *b, const struct net_config *n, const struct plan_tap *t)
{
	AUTO_FREE char *text = NULL;

	for (const struct plan_tap *o = b->p->taps; o < t; o++) {
		if (strcmp(o->ifname, t->ifname) != 0)
			continue;
		text = xasprintf("'%s' is also that of [net %s]", t->ifname, o->netdev + strlen("net-"));
		net_problem(b, PROBLEM_CONFIG, n, "ifname", "conflict", text);
		return;
	}
}

static const struct plan_tap *choose_tap(struct builder *b, const struct net_config *n, const char *mac)
{
	struct plan_tap *t = PUSH_ZEROED(b->p->taps, b->p->n_taps);
	const struct host_net *h;
	bool ours;

	t->netdev = xasprintf("net-%s", n->name);
	t->ifname = ifname_for(b->vm, n);
	t->bridge = n->type == NET_BRIDGE ? xstrdup(n->bridge) : NULL;
	t->queues = choose_queues(b, n);
	t->vhost = choose_vhost(b, n);
	check_own_names(b, n, t);
	if (t->bridge)
		check_bridge(b, n);
	h = host_net(b, t->ifname);
	/* Of a VM that runs and is planned once more: it is made anew at each start. */
	ours = h && tap_user(b, t->ifname) && !h->persistent;
	t->exists = h && !ours;
	if (!tap_is_busy(b, n, t, h) && t->exists)
		check_existing(b, n, t, h);
	t->mtu = choose_mtu(b, t, t->exists ? h : NULL);
	if (!t->exists)
		t->mac = host_mac(mac);
	return t;
}

/* --- lines for a shell ------------------------------------------------------------------------------------------- */

static void prepare(struct builder *b, char *command, const char *fmt, ...) PRINTF(3, 4);
static void prepare(struct builder *b, char *command, const char *fmt, ...)
{
	struct plan_prepare *p = PUSH_ZEROED(b->p->prepares, b->p->n_prepares);
	va_list ap;

	p->command = command;
	va_start(ap, fmt);
	if (vasprintf(&p->why, fmt, ap) < 0)
		abort();
	va_end(ap);
}

/* For the printed command. Each line may run again: the tap stays until somebody removes it. */
static void prepare_tap(struct builder *b, const struct plan_tap *t)
{
	AUTO_FREE char *dev = shell_quote(t->ifname), *bridge = t->bridge ? shell_quote(t->bridge) : NULL;
	AUTO_FREE char *mtu = t->mtu ? xasprintf(" mtu %d", t->mtu) : xstrdup("");

	prepare(b, xasprintf("test -e /sys/class/net/%s || ip tuntap add dev %s mode tap%s", dev, dev, t->queues > 1 ? " multi_queue" : ""),
		"the host's end of %s; gpuvm-launch has one that goes with QEMU, this one stays until `ip link del %s`", t->netdev,
		t->ifname);
	prepare(b, xasprintf("ip link set dev %s address %s%s", dev, t->mac, mtu), "an address that no bridge takes for its own%s",
		t->mtu ? ", and the bridge's MTU" : "");
	if (bridge)
		prepare(b, xasprintf("ip link set dev %s master %s", dev, bridge), "a member of the bridge %s", t->bridge);
	prepare(b, xasprintf("ip link set dev %s up", dev), "ready for packets");
}

/* --- options ------------------------------------------------------------------------------------------------------- */

static void arg_tap(struct builder *b, const struct net_config *n, const struct plan_tap *t)
{
	AUTO_FREE char *section = xasprintf("net %s", n->name);
	const char *vhost = t->vhost ? "the kernel moves the packets (vhost)" : "QEMU moves the packets";
	struct plan_arg *a;
	struct qopt o;

	qopt_init(&o, "tap");
	qopt_str(&o, "id", t->netdev);
	qopt_str(&o, "ifname", t->ifname);
	qopt_str(&o, "script", "no");
	qopt_str(&o, "downscript", "no");
	qopt_bool(&o, "vhost", t->vhost);
	if (t->queues > 1)
		qopt_u64(&o, "queues", (uint64_t)t->queues);
	a = arg_why(b, "-netdev", qopt_finish(&o), "%s%s%s; %s",
		    t->exists ? "the tap device of the host" : "a tap device, made for this VM", t->bridge ? ", in the bridge " : "",
		    t->bridge ? t->bridge : "", vhost);
	a->use = ARG_TAP;
	a->tap = (int)(t - b->p->taps);
	plan_reason(b->p, section, "%s %s%s%s, %d queue pair%s; %s", t->exists ? "existing tap" : "tap", t->ifname,
		    t->bridge ? " in the bridge " : "", t->bridge ? t->bridge : "", t->queues, PLURAL(t->queues), vhost);
}

static void arg_user(struct builder *b, const struct net_config *n)
{
	struct qopt o;

	qopt_init(&o, "user");
	qopt_fmt(&o, "id", "net-%s", n->name);
	arg_why(b, "-netdev", qopt_finish(&o), "user-mode network: outgoing only, no privileges");
}

static void arg_nic(struct builder *b, const struct net_config *n, const char *mac, uint64_t queues, int mtu)
{
	struct qopt o;

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
	/* So that the guest's interface begins with it, and need not be set by hand. */
	if (mtu && mtu != ETHERNET_MTU)
		qopt_u64(&o, "host_mtu", (uint64_t)mtu);
	qopt_str(&o, "romfile", "");
	arg_why(b, "-device", qopt_finish(&o), "%" PRIu64 " queue pair%s; no boot ROM: the guest boots from disk", queues, PLURAL(queues));
}

static void arg_net(struct builder *b, const struct net_config *n)
{
	AUTO_FREE char *mac = mac_for(b, n);
	const struct plan_tap *t = n->type == NET_USER ? NULL : choose_tap(b, n, mac);

	if (t && !t->exists)
		prepare_tap(b, t);
	if (t)
		arg_tap(b, n, t);
	else
		arg_user(b, n);
	arg_nic(b, n, mac, t ? (uint64_t)t->queues : 1, t ? t->mtu : 0);
}

void arg_nets(struct builder *b)
{
	b->group = "network";
	for (size_t i = 0; i < b->vm->n_nets; i++)
		arg_net(b, &b->vm->nets[i]);
}
