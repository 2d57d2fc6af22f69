/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NICs as they are planned: names, queues, vhost, what the host must have, and the lines for a shell. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/capture.h"
#include "gpuvm/claim.h"
#include "gpuvm/plan.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

#define CPUS    "cpu GenuineIntel threads=1\nnode 0 socket=0 cpus=0-7 memory=8G\n"
#define MACHINE "host net\n" CPUS NETS
#define NETS                                                                                                              \
	"net br0 virtual bridge\nnet jumbo virtual bridge mtu=9000\nnet dummy0 virtual\n"                                  \
	"net tap-mq virtual tap multi-queue\nnet tap-one virtual tap\nnet tap-down virtual tap multi-queue down\n"         \
	"net tap-busy virtual tap multi-queue busy\nnet x-gone virtual tap multi-queue transient\n"                        \
	"net tap-br virtual tap multi-queue master=br0\nnet tap-big virtual tap multi-queue mtu=4000\n"

struct result {
	struct topology host;
	struct host_use use;
	struct vm_config vm;
	struct plan p;
	struct problems ps;
	int r;
};

static void result_clear(struct result *r)
{
	plan_clear(&r->p);
	config_clear(&r->vm);
	problems_clear(&r->ps);
	host_use_clear(&r->use);
	topology_clear(&r->host);
}

static void add_use(struct host_use *u, const char *vm, const char *ifname)
{
	struct used_tap *t = PUSH_ZEROED(u->taps, u->n_taps);

	snprintf(t->vm, sizeof(t->vm), "%s", vm);
	snprintf(t->ifname, sizeof(t->ifname), "%s", ifname);
	t->pid = 4711;
}

/* VM "x" with what @text adds, on @machine. */
static struct result plan_of(const char *machine, const char *accel, int vcpus, const char *text, bool foreign, bool fake, const struct used_tap *used)
{
	AUTO_FREE char *all = xasprintf("[vm]\nname = x\naccel = %s\n[cpu]\nvcpus = %d\n[memory]\nsize = 512M\n%s", accel, vcpus, text);
	struct qemu_info q = fake_qemu("7.2");
	struct result res = { 0 };
	struct plan_request req = { .vm = &res.vm, .host = &res.host, .use = &res.use, .qemu = &q, .rundir = "/run/gpuvm/x",
				    .statedir = "/var/lib/gpuvm", .foreign_host = foreign, .fake_devices = fake };
	char *root = mkhost_text(machine);
	struct err e = { 0 };

	cr_assert_not_null(root);
	cr_assert(zero(int, probe_host(root, &res.host, &e)), "%s", e.msg);
	mkhost_remove(root);
	if (used)
		add_use(&res.use, used->vm, used->ifname);
	res.r = config_parse("x.ini", all, strlen(all), NULL, &res.vm, &res.ps);
	if (res.r == 0)
		res.r = plan_make(&req, &res.p, &res.ps);
	return res;
}

static struct result plan_on(const char *machine, const char *text, bool foreign, bool fake, const struct used_tap *used)
{
	return plan_of(machine, "tcg", 4, text, foreign, fake, used);
}

static struct result plan_here(const char *text)
{
	struct result res = plan_on(MACHINE, text, false, false, NULL);

	if (res.r < 0)
		problems_print(&res.ps, stderr);
	cr_assert(zero(int, res.r));
	return res;
}

/* The value of option number @nth called @flag that begins with @head. */
static const char *option(const struct plan *p, const char *flag, const char *head, int nth)
{
	for (size_t i = 0; i < p->n_args; i++)
		if (strcmp(p->args[i].flag, flag) == 0 && strncmp(p->args[i].value, head, strlen(head)) == 0 && nth-- == 0)
			return p->args[i].value;
	return "none";
}

static bool has_warning(const struct plan *p, const char *code)
{
	for (size_t i = 0; i < p->n_warnings; i++)
		if (strcmp(p->warnings[i].code, code) == 0)
			return true;
	return false;
}

/* --- what is probed ------------------------------------------------------------------------------------------ */

static void assert_nets(const struct topology *t)
{
	const struct host_net *found;

	cr_assert(t->nets_known);
	cr_assert(t->vhost_net);
	found = topology_find_net(t, "br0");
	cr_assert(found && found->kind == HOST_NET_BRIDGE && found->mtu == 1500 && found->up);
	found = topology_find_net(t, "dummy0");
	cr_assert(found && found->kind == HOST_NET_OTHER);
	found = topology_find_net(t, "tap-one");
	cr_assert(found && found->kind == HOST_NET_TAP && !found->multi_queue && found->persistent && !found->in_use);
	found = topology_find_net(t, "tap-busy");
	cr_assert(found && found->kind == HOST_NET_TAP && found->multi_queue && found->persistent && found->in_use);
	found = topology_find_net(t, "x-gone");
	cr_assert(found && found->kind == HOST_NET_TAP && !found->persistent && found->in_use);
	found = topology_find_net(t, "tap-down");
	cr_assert(found && found->kind == HOST_NET_TAP && !found->up && !found->in_use);
	found = topology_find_net(t, "tap-br");
	cr_assert_not_null(found);
	cr_assert_str_eq(found->master, "br0");
	cr_assert(zero(ptr, (void *)topology_find_net(t, "nothing")));
}

Test(net, interfaces_are_probed_and_captured)
{
	char *root = mkhost_text(MACHINE), dir[] = "/tmp/gpuvm-net-XXXXXX";
	CLEANUP(topology_clear) struct topology t = { 0 }, again = { 0 };
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	AUTO_FREE char *dest = NULL;
	struct err e = { 0 };

	cr_assert_not_null(root);
	cr_assert(zero(int, probe_host(root, &t, &e)), "%s", e.msg);
	assert_nets(&t);
	cr_assert_not_null(mkdtemp(dir));
	dest = xasprintf("%s/c", dir);
	cr_assert(zero(int, capture_host(root, dest, false, &report, &e)), "%s", e.msg);
	cr_assert(zero(int, probe_host(dest, &again, &e)), "%s", e.msg);
	assert_nets(&again);
	cr_assert(eq(sz, again.n_nets, t.n_nets));
	mkhost_remove(xstrdup(dir));
	mkhost_remove(root);
}

Test(net, without_vhost)
{
	char *root = mkhost_text("host net no-vhost\n" CPUS);
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };

	cr_assert(zero(int, probe_host(root, &t, &e)), "%s", e.msg);
	cr_assert(not(t.vhost_net));
	mkhost_remove(root);
}

/* --- options --------------------------------------------------------------------------------------------------- */

struct option_row {
	const char *text;
	const char *netdev;	/* its option */
	const char *nic;	/* what the NIC's option has from mq= to romfile= */
	const char *prepares;	/* lines, joined by newlines */
};

#define ADD(dev, multi) "test -e /sys/class/net/" dev " || ip tuntap add dev " dev " mode tap" multi "\n"

static const struct option_row options[] = {
	{ "[net lan]\n", "user,id=net-lan", "romfile=", "" },
	/* one queue pair for each of the four vCPUs */
	{ "[net lan]\ntype = tap\n", "tap,id=net-lan,ifname=x-lan,script=no,downscript=no,vhost=on,queues=4", "mq=on,vectors=10,romfile=",
	  ADD("x-lan", " multi_queue") "ip link set dev x-lan address fe:MAC\nip link set dev x-lan up\n" },
	{ "[net lan]\ntype = tap\nqueues = 1\nvhost = off\nifname = t.0\n", "tap,id=net-lan,ifname=t.0,script=no,downscript=no,vhost=off", "romfile=",
	  ADD("t.0", "") "ip link set dev t.0 address fe:MAC\nip link set dev t.0 up\n" },
	{ "[net lan]\ntype = tap\nqueues = 256\nmac = FE:00:00:00:00:01\n",
	  "tap,id=net-lan,ifname=x-lan,script=no,downscript=no,vhost=on,queues=256", "mq=on,vectors=514,romfile=",
	  ADD("x-lan", " multi_queue") "ip link set dev x-lan address fa:00:00:00:00:01\nip link set dev x-lan up\n" },
	{ "[net lan]\ntype = bridge\nbridge = br0\nqueues = 2\n", "tap,id=net-lan,ifname=x-lan,script=no,downscript=no,vhost=on,queues=2",
	  "mq=on,vectors=6,romfile=",
	  ADD("x-lan", " multi_queue") "ip link set dev x-lan address fe:MAC mtu 1500\nip link set dev x-lan master br0\nip link set dev x-lan up\n" },
	{ "[net lan]\ntype = bridge\nbridge = jumbo\nqueues = 2\n", "tap,id=net-lan,ifname=x-lan,script=no,downscript=no,vhost=on,queues=2",
	  "mq=on,vectors=6,host_mtu=9000,romfile=",
	  ADD("x-lan", " multi_queue") "ip link set dev x-lan address fe:MAC mtu 9000\nip link set dev x-lan master jumbo\nip link set dev x-lan up\n" },
	/* the operator's own: nothing is prepared */
	{ "[net lan]\ntype = tap\nifname = tap-mq\n", "tap,id=net-lan,ifname=tap-mq,script=no,downscript=no,vhost=on,queues=4",
	  "mq=on,vectors=10,romfile=", "" },
	{ "[net lan]\ntype = tap\nifname = tap-big\n", "tap,id=net-lan,ifname=tap-big,script=no,downscript=no,vhost=on,queues=4",
	  "mq=on,vectors=10,host_mtu=4000,romfile=", "" },
	{ "[net lan]\ntype = tap\nifname = tap-one\nqueues = 1\n", "tap,id=net-lan,ifname=tap-one,script=no,downscript=no,vhost=on", "romfile=", "" },
	{ "[net lan]\ntype = bridge\nbridge = br0\nifname = tap-br\n", "tap,id=net-lan,ifname=tap-br,script=no,downscript=no,vhost=on,queues=4",
	  "mq=on,vectors=10,romfile=", "" },
};

/* Those that are about networks. */
static char *prepares(const struct plan *p, const char *mac)
{
	char *text = NULL, *at;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < p->n_prepares; i++) {
		if (strstr(p->prepares[i].command, "ip link") || strstr(p->prepares[i].command, "ip tuntap"))
			fprintf(f, "%s\n", p->prepares[i].command);
		cr_expect(p->prepares[i].why && *p->prepares[i].why);
	}
	fclose(f);
	/* The five octets that the host's end has in common with the guest's depend on the machine. */
	at = strstr(text, mac + 3);
	if (at && strncmp(mac, "52:54:00", 8) == 0) {
		memcpy(at, "MAC", 3);
		memmove(at + 3, at + strlen(mac) - 3, strlen(at + strlen(mac) - 3) + 1);
	}
	return text;
}

static void check_option(const struct option_row *row)
{
	struct result res = plan_here(row->text);
	const char *nic = option(&res.p, "-device", "virtio-net-pci", 0), *mac = strstr(nic, "mac=");
	AUTO_FREE char *address = NULL, *lines = NULL;

	cr_assert_not_null(mac, "%s", nic);
	address = xstrndup(mac + 4, strcspn(mac + 4, ","));
	lines = prepares(&res.p, address);
	cr_expect_str_eq(option(&res.p, "-netdev", "", 0), row->netdev);
	cr_expect_str_eq(mac + 4 + strlen(address) + 1, row->nic);
	cr_expect_str_eq(lines, row->prepares);
	result_clear(&res);
}

Test(net, options)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		check_option(&options[i]);
}

/* A tap has at most 256 queues, however many vCPUs there are. */
Test(net, no_more_queues_than_a_tap_has)
{
	struct result res = plan_of("host net\ncpu GenuineIntel threads=2\nnode 0 socket=0 cpus=0-319 memory=64G\n", "kvm", 280,
				    "[net lan]\ntype = tap\n", true, false, NULL);

	cr_assert(zero(int, res.r));
	cr_assert(eq(sz, res.p.n_vcpus, 280));
	cr_assert(eq(int, res.p.taps[0].queues, 256));
	cr_assert_not_null(strstr(option(&res.p, "-device", "virtio-net-pci", 0), "vectors=514"));
	result_clear(&res);
}

static bool argv_has(const struct strv *argv, const char *value)
{
	return strv_contains(argv, value);
}

/* What QEMU gets from the launcher, and what a shell does. */
Test(net, fds_in_place_of_names)
{
	struct result res = plan_here("[net a]\ntype = tap\nqueues = 2\n[net b]\ntype = bridge\nbridge = br0\nvhost = off\nqueues = 3\n[net c]\n");
	int taps[] = { 10, 11, 12, 13, 14 }, vhosts[] = { 20, 21 };
	struct plan_tap_fds fds[] = { { taps, vhosts, 2 }, { taps + 2, NULL, 3 } };
	int opens[] = { 30, 31, 32, 33 };
	CLEANUP(strv_clear) struct strv argv = { 0 }, plain = { 0 };

	cr_assert(eq(sz, res.p.n_taps, 2));
	cr_assert(eq(sz, res.p.n_opens, ARRAY_SIZE(opens)));
	plan_argv(&res.p, &(struct plan_fds){ .control = 5, .taps = fds, .opens = opens }, &argv);
	cr_assert(argv_has(&argv, "socket,id=control,fd=5,server=on,wait=off"));
	cr_assert(argv_has(&argv, "socket,id=qmp,fd=30,server=on,wait=off"));
	cr_assert(argv_has(&argv, "socket,id=verbs,fd=31,server=on,wait=off"));
	cr_assert(argv_has(&argv, "socket,id=agent,fd=33,server=on,wait=off"));
	cr_assert(argv_has(&argv, "tap,id=net-a,fds=10:11,vhost=on,vhostfds=20:21"));
	cr_assert(argv_has(&argv, "tap,id=net-b,fds=12:13:14,vhost=off"));
	cr_assert(argv_has(&argv, "user,id=net-c"));
	plan_argv(&res.p, NULL, &plain);
	cr_assert(argv_has(&plain, "tap,id=net-a,ifname=x-a,script=no,downscript=no,vhost=on,queues=2"));
	cr_assert(eq(sz, plain.n, argv.n));
	result_clear(&res);
}

/* --- names ------------------------------------------------------------------------------------------------------ */

static char *name_for(const char *vm, const char *section)
{
	AUTO_FREE char *text = xasprintf("[vm]\nname = %s\naccel = tcg\n[memory]\nsize = 128M\n[net %s]\ntype = tap\n", vm, section);
	struct qemu_info q = fake_qemu("7.2");
	struct topology t = { .nets_known = true };
	struct vm_config c = { 0 };
	struct problems ps = { 0 };
	struct plan p = { 0 };
	struct plan_request req = { .vm = &c, .host = &t, .qemu = &q, .rundir = "/run/gpuvm/x", .statedir = "/var/lib/gpuvm" };
	char *name;

	t.nodes = xcalloc(1, sizeof(*t.nodes));
	t.nodes[t.n_nodes++] = (struct host_node){ .mem_bytes = UINT64_C(8) << 30, .free_bytes = UINT64_C(8) << 30 };
	t.cpus = xcalloc(1, sizeof(*t.cpus));
	t.n_cpus = 1;
	cpuset_add(&t.nodes[0].cpus, 0);
	cpuset_add(&t.allowed, 0);
	topology_finish(&t);
	cr_assert(config_parse("x.ini", text, strlen(text), NULL, &c, &ps) == 0, "%s", text);
	if (plan_make(&req, &p, &ps) < 0)
		problems_print(&ps, stderr);
	cr_assert(eq(sz, p.n_taps, 1));
	name = xstrdup(p.taps[0].ifname);
	cr_assert(lt(sz, strlen(name), HOST_NET_NAME), "%s", name);
	plan_clear(&p);
	config_clear(&c);
	problems_clear(&ps);
	topology_clear(&t);
	return name;
}

Test(net, names_are_stable_and_differ)
{
	static const char *const vms[] = { "a", "a-b", "a-b-c", "half0", "half1", "a-very-long-name-of-a-vm-0", "a-very-long-name-of-a-vm-1",
					   "a-ver", "0123456789ab", "0123456789abc", "a-ver-0" };
	static const char *const sections[] = { "b", "b-c", "c", "lan", "LAN", "a-section-that-is-long-0", "a-section-that-is-long-1", "ab", "d0" };
	CLEANUP(strv_clear) struct strv names = { 0 };
	AUTO_FREE char *plain = name_for("half0", "lan"), *longer = name_for("a-very-long-name-of-a-vm-0", "lan");

	cr_assert_str_eq(plain, "half0-lan");
	/* Kept: an interface that an operator's firewall names must not get another name by an update. */
	cr_assert_str_eq(longer, "a-ver-129a1c1b8");
	for (size_t v = 0; v < ARRAY_SIZE(vms); v++) {
		for (size_t s = 0; s < ARRAY_SIZE(sections); s++) {
			AUTO_FREE char *name = name_for(vms[v], sections[s]), *again = name_for(vms[v], sections[s]);

			cr_assert_str_eq(name, again);
			cr_assert(not(strv_contains(&names, name)), "%s of %s and %s is there twice", name, vms[v], sections[s]);
			strv_push(&names, name);
		}
	}
}

/* --- refusals ---------------------------------------------------------------------------------------------------- */

struct refusal {
	const char *text;
	int exit_code;
	const char *code, *message, *hint;
};

static const struct refusal refusals[] = {
	{ "[net m]\ntype = bridge\nbridge = br9\n", 4, "bridge-missing", "no interface 'br9'", "ip link add br9 type bridge" },
	{ "[net m]\ntype = bridge\nbridge = dummy0\n", 4, "bridge-missing", "'dummy0' is not a bridge", "ip link show type bridge" },
	{ "[net m]\ntype = tap\nifname = dummy0\n", 4, "tap-unusable", "'dummy0' is not a tap", "ifname" },
	{ "[net m]\ntype = tap\nifname = br0\n", 4, "tap-unusable", "'br0' is not a tap", "ifname" },
	{ "[net m]\ntype = tap\nifname = tap-one\n", 4, "tap-unusable", "without multi_queue", "ip tuntap add dev tap-one mode tap multi_queue" },
	{ "[net m]\ntype = bridge\nbridge = jumbo\nifname = tap-br\n", 4, "tap-unusable", "not in the bridge 'jumbo'",
	  "ip link set dev tap-br master jumbo" },
	{ "[net m]\ntype = bridge\nbridge = br0\nifname = tap-mq\n", 4, "tap-unusable", "not in the bridge 'br0'",
	  "ip link set dev tap-mq master br0" },
	{ "[net m]\ntype = tap\nifname = tap-busy\n", 5, "tap-busy", "a process has the interface 'tap-busy'", "fdinfo" },
	/* By its name it could be of VM x, but no claim says so. */
	{ "[net gone]\ntype = tap\n", 5, "tap-busy", "a process has the interface 'x-gone'", "fdinfo" },
	{ "[net a]\ntype = tap\nifname = x-b\n[net b]\ntype = tap\n", 3, "conflict", "'x-b' is also that of [net a]", "" },
};

static void check_refusal(const struct result *res, const struct refusal *want)
{
	cr_assert(lt(int, res->r, 0), "it was planned, but %s was expected", want->code);
	cr_assert(eq(sz, res->ps.n, 1), "%s: %zu problems", want->code, res->ps.n);
	cr_expect(eq(int, problems_exit_code(&res->ps), want->exit_code), "%s", want->message);
	cr_expect_str_eq(res->ps.v[0].code, want->code);
	cr_expect_not_null(strstr(res->ps.v[0].message, want->message), "%s", res->ps.v[0].message);
	cr_expect_not_null(strstr(res->ps.v[0].hint ? res->ps.v[0].hint : "", want->hint), "%s", res->ps.v[0].hint);
	cr_expect(gt(int, res->ps.v[0].line, 7), "%s", want->message);
}

Test(net, refusals)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct result res = plan_on(MACHINE, refusals[i].text, false, false, NULL);

		check_refusal(&res, &refusals[i]);
		result_clear(&res);
	}
}

/* The claims of running VMs count, whether or not the interface is there yet. */
Test(net, a_name_that_another_vm_has)
{
	static const struct refusal want = { NULL, 5, "tap-busy", "VM 'y' (pid 4711) has the interface 'tap-y'", "gpuvm stop y" };
	struct used_tap other = { .ifname = "tap-y", .vm = "y" }, own = { .ifname = "x-gone", .vm = "x" };
	struct result res = plan_on(MACHINE, "[net m]\ntype = tap\nifname = tap-y\n", false, false, &other);

	check_refusal(&res, &want);
	result_clear(&res);

	/* VM x runs and is planned once more, to be compared: the plan is the one that it was started with. */
	res = plan_on(MACHINE, "[net gone]\ntype = tap\n", false, false, &own);
	cr_assert(zero(int, res.r));
	cr_assert(not(res.p.taps[0].exists));
	cr_assert_not_null(res.p.taps[0].mac);
	result_clear(&res);
}

/* --- vhost -------------------------------------------------------------------------------------------------------- */

struct vhost_row {
	const char *host, *vhost;
	bool foreign, fake;
	int exit_code; /* 0: planned, with: */
	bool on, warned;
};

static const struct vhost_row vhosts[] = {
	{ "host net\n", "auto", false, false, 0, true, false },
	{ "host net\n", "on", false, false, 0, true, false },
	{ "host net\n", "off", false, false, 0, false, false },
	{ "host net no-vhost\n", "auto", false, false, 0, false, true },
	{ "host net no-vhost\n", "on", false, false, 4, false, false },
	{ "host net no-vhost\n", "off", false, false, 0, false, false },
	/* another machine: taken to have it; a stand-in here: not */
	{ "host net no-vhost\n", "auto", true, false, 0, true, false },
	{ "host net no-vhost\n", "on", true, false, 0, true, false },
	{ "host net no-vhost\n", "auto", true, true, 0, false, false },
	{ "host net\n", "auto", true, true, 0, false, false },
};

Test(net, vhost)
{
	for (size_t i = 0; i < ARRAY_SIZE(vhosts); i++) {
		const struct vhost_row *row = &vhosts[i];
		AUTO_FREE char *machine = xasprintf("%s" CPUS, row->host), *text = xasprintf("[net m]\ntype = tap\nvhost = %s\n", row->vhost);
		struct result res = plan_on(machine, text, row->foreign, row->fake, NULL);

		cr_assert(eq(int, problems_exit_code(&res.ps), row->exit_code), "row %zu", i);
		if (row->exit_code) {
			cr_expect_str_eq(res.ps.v[0].code, "vhost-missing");
		} else {
			cr_expect(eq(int, res.p.taps[0].vhost, row->on), "row %zu", i);
			cr_expect(eq(int, has_warning(&res.p, "vhost-missing"), row->warned), "row %zu", i);
			cr_expect_not_null(strstr(option(&res.p, "-netdev", "tap", 0), row->on ? "vhost=on" : "vhost=off"));
		}
		result_clear(&res);
	}
}

Test(net, a_tap_that_is_down_is_warned_about)
{
	struct result res = plan_here("[net m]\ntype = tap\nifname = tap-down\n");

	cr_assert(has_warning(&res.p, "tap-down"));
	cr_assert(res.p.taps[0].exists);
	result_clear(&res);
}

/* Of another machine's description nothing is known of its networks, and of this one's nothing was looked at. */
Test(net, nothing_is_checked_where_nothing_is_known)
{
	static const char text[] = "[net m]\ntype = bridge\nbridge = br9\n[net n]\ntype = tap\nifname = tap-busy\n";
	struct result res = plan_on(MACHINE, text, true, true, NULL);

	cr_assert(zero(int, res.r));
	cr_assert(not(res.p.taps[1].exists));
	result_clear(&res);

	/* A capture says what is there, but not who would be running then. */
	res = plan_on(MACHINE, text, true, false, NULL);
	cr_assert(lt(int, res.r, 0));
	cr_assert(eq(sz, res.ps.n, 1));
	cr_assert_str_eq(res.ps.v[0].code, "bridge-missing");
	result_clear(&res);
}

/* --- claims ------------------------------------------------------------------------------------------------------- */

Test(net, a_claim_holds_the_interfaces)
{
	struct result res = plan_here("[net a]\ntype = tap\n[net b]\ntype = bridge\nbridge = br0\nifname = tap-b\n");
	char dir[] = "/tmp/gpuvm-net-XXXXXX";
	struct host_use use = { 0 }, own = { 0 };
	struct claim c = { 0 };
	struct err e = { 0 };

	cr_assert_not_null(mkdtemp(dir));
	cr_assert(zero(int, setenv("GPUVM_RUNDIR", dir, 1)));
	free(res.p.rundir);
	res.p.rundir = claim_vm_dir("x");
	cr_assert(zero(int, mkdir(res.p.rundir, 0700)));
	claim_from_plan(&res.p, NULL, &c);
	cr_assert(zero(int, claim_write(&c, &e)), "%s", e.msg);

	cr_assert(zero(int, claim_collect_use(NULL, NULL, &use, &e)), "%s", e.msg);
	cr_assert(eq(sz, use.n_taps, 2));
	cr_assert_str_eq(use.taps[0].ifname, "x-a");
	cr_assert_str_eq(use.taps[1].ifname, "tap-b");
	cr_assert_str_eq(use.taps[1].vm, "x");
	cr_assert(eq(int, use.taps[1].pid, getpid()));
	/* Its CPUs are left out for the VM itself, its taps are not. */
	cr_assert(zero(int, claim_collect_use(NULL, "x", &own, &e)), "%s", e.msg);
	cr_assert(zero(sz, own.n_cpus));
	cr_assert(eq(sz, own.n_taps, 2));

	claim_clear(&c);
	host_use_clear(&use);
	host_use_clear(&own);
	result_clear(&res);
	mkhost_remove(xstrdup(dir));
}
