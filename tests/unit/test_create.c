/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm create and delete: the text of a definition, what is made and removed, and what is left when either is refused or killed. */
#include <fcntl.h>
#include <poll.h>
#include <pty.h>

#include "gpuvm/definition.h"
#include "gpuvm/record.h"
#include "programs.h"
#include "tests/fake/genhost.h"
#include "tests/fake/mkhost.h"

/* --- the text ----------------------------------------------------------------------------------------------------- */

static char *describe(const struct problems *ps)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < ps->n; i++)
		fprintf(f, "%s%s%s: %s\n", ps->v[i].file ? ps->v[i].file : "", ps->v[i].file ? ": " : "", ps->v[i].code, ps->v[i].message);
	fclose(f);
	return text;
}

Test(create, text_with_everything)
{
	static const char want[] =
		"# VM train1: 4 of this machine's 8 GPUs.\n"
		"# Made by `gpuvm create train1 --gpus 4` on 2026-11-22.\n"
		"# Every key that is not here is computed from the machine at each start: `gpuvm plan --explain train1` shows how,\n"
		"# gpuvm.ini(5) has them all.\n"
		"\n[vm]\nname = train1\n"
		"# Made once, so that the guest stays the same machine wherever this file goes.\n"
		"uuid = 6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11\n"
		"\n[place]\ngpus = 4\n"
		"# gpu-index = auto: those that are free and nearest to each other. `gpu-index = 0` would always take the same ones.\n"
		"nics = none\n"
		"\n[cpu]\n# vcpus = auto: now 92.\n"
		"\n[memory]\n# size = auto: now 960 GiB in pages of 1 GiB.\n"
		"\n# What differs from the image 'ubuntu', as it was then; upgrades of the image do not change it.\n"
		"[disk os]\nfile = /s/disks/train1.qcow2\nformat = qcow2\ncache = none\n"
		"\n[disk data]\nfile = /s/disks/train1-data.qcow2\nformat = qcow2\n"
		"\n[net lan]\ntype = bridge\nbridge = br0\n"
		"\n# For the guest's first boot. user-data is a copy of /root/ud.\n"
		"[cloud-init]\nuser-data = /c/train1.user-data\n"
		"\n[lifecycle]\nstop-timeout = 5min\n";
	const struct definition_facts facts = { .host_gpus = 8, .vcpus = 92, .memory_bytes = UINT64_C(960) << 30, .page_bytes = UINT64_C(1) << 30 };
	struct strv sets = { 0 };
	const struct definition_request r = { .name = "train1",
					      .uuid = "6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11",
					      .gpus = 4,
					      .gpu_index = CONF_AUTO,
					      .vcpus = CONF_AUTO,
					      .os_disk = "/s/disks/train1.qcow2",
					      .image = "ubuntu",
					      .data_disk = "/s/disks/train1-data.qcow2",
					      .net = DEFINITION_NET_BRIDGE,
					      .net_host = "br0",
					      .user_data = "/c/train1.user-data",
					      .user_data_from = "/root/ud",
					      .command = "gpuvm create train1 --gpus 4",
					      .date = "2026-11-22",
					      .sets = &sets };
	struct problems ps = { 0 };
	AUTO_FREE char *text = NULL;

	strv_push(&sets, "place.nics=none");
	strv_push(&sets, "disk.os.cache = none");
	strv_push(&sets, "lifecycle.stop-timeout=1s");
	strv_push(&sets, "lifecycle.stop-timeout=5min"); /* the last one counts */
	text = definition_text(&r, &facts, &ps);
	cr_assert(text);
	cr_expect_str_eq(text, want);
	strv_clear(&sets);
}

/* A set replaces the line and what was said about it; one network of the user's is enough. */
Test(create, sets_replace)
{
	const struct definition_facts facts = { .host_gpus = 2, .vcpus = 3, .memory_bytes = 1 << 30, .page_bytes = 4096 };
	struct strv sets = { 0 };
	const struct definition_request r = { .name = "a", .gpu_index = CONF_AUTO, .vcpus = CONF_AUTO, .sets = &sets };
	struct problems ps = { 0 };
	AUTO_FREE char *text = NULL;

	strv_push(&sets, "place.gpus=2");
	strv_push(&sets, "cpu.vcpus=3");
	strv_push(&sets, "net.lan.type=tap");
	text = definition_text(&r, &facts, &ps);
	cr_assert(text);
	cr_expect_str_eq(strchr(text, '['), "[vm]\nname = a\n\n[cpu]\nvcpus = 3\n\n[memory]\n# size = auto: now 1 GiB in pages of 4 KiB.\n"
					    "\n[place]\ngpus = 2\n\n[net lan]\ntype = tap\n");
	cr_expect(strstr(text, "# VM a: all 2 GPUs of this machine.\n# Every key"), "%s", text);
	strv_clear(&sets);
}

/* Each is refused, with its reason; clang-format would hide the pairs. */
/* clang-format off */
static const struct {
	struct definition_request r;
	const char *set, *problems;
} refused[] = {
	{ { .name = "a b" }, NULL, "bad-value: [vm] name: 'a b' is not a name\n" },
	{ { .name = "../a" }, NULL, "bad-value: [vm] name: '../a' is not a name\n" },
	{ { .name = "a\nb" }, NULL, "bad-value: [vm] name: the value cannot be written into a definition\n" },
	{ { .name = "" }, NULL, "bad-value: [vm] name: the value cannot be written into a definition\n" },
	{ { .name = "a", .os_disk = "/d/x\n[qemu]\nargs = -S" }, NULL, "bad-value: [disk os] file: the value cannot be written into a definition\n" },
	{ { .name = "a", .os_disk = "/d/x " }, NULL, "bad-value: [disk os] file: the value cannot be written into a definition\n" },
	{ { .name = "a", .os_disk = "/d/x #1" }, NULL, "bad-value: [disk os] file: '/d/x #1' has a comment in it\n" },
	{ { .name = "a", .os_disk = "x" }, NULL, "bad-value: [disk os] file: 'x' is not an absolute path\n" },
	{ { .name = "a", .os_disk = "/\xff" }, NULL, "bad-byte: byte 0xff in column 9\nmissing-key: [disk os] file: is required\n" },
	{ { .name = "a", .net = DEFINITION_NET_BRIDGE, .net_host = "br 0" }, NULL, "bad-value: [net lan] bridge: 'br 0' is not a name\n" },
	{ { .name = "a", .net = DEFINITION_NET_TAP, .net_host = "a-name-of-20-letters" }, NULL, "bad-value: [net lan] ifname: 'a-name-of-20-letters' is too long: 20 characters, at most 15\n" },
	{ { .name = "a", .memory = "1M" }, NULL, "bad-value: [memory] size: '1M' is out of range (16 MiB to 64 TiB)\n" },
	{ { .name = "a" }, "cpu.vcpsu=4", "--set: unknown-key: [cpu] unknown key 'vcpsu'\n" },
	{ { .name = "a" }, "vcpus", "--set: bad-set: cannot read 'vcpus'\n" },
	{ { .name = "a" }, "vm.append=a\nb", "--set: bad-byte: byte 0x0a in column 12\n" },
	{ { .name = "a" }, "vm.name=b", "--set: conflict: [vm] name: 'b', but the VM to be made is 'a'\n" },
	{ { .name = "a", .os_disk = "/d/x" }, "disk.os.file=/d/y", "--set: conflict: [disk os] file: '/d/x' is made for the VM, but would not be used\n" },
	{ { .name = "a", .user_data = "/d/x" }, "cloud-init.user-data=/d/y", "--set: conflict: [cloud-init] user-data: two of them are asked for\n" },
	{ { .name = "a" }, "net.lan.type=bridge", "--set: missing-key: [net lan] bridge: is required for type = bridge\n" },
};
/* clang-format on */

Test(create, text_is_refused)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct definition_request r = refused[i].r;
		struct strv sets = { 0 };
		struct problems ps = { 0 };
		AUTO_FREE char *text = NULL, *got = NULL;

		r.gpu_index = r.vcpus = CONF_AUTO;
		r.sets = &sets;
		if (refused[i].set)
			strv_push(&sets, refused[i].set);
		text = definition_text(&r, NULL, &ps);
		got = describe(&ps);
		cr_expect(!text, "row %zu:\n%s", i, text);
		cr_expect_str_eq(got, refused[i].problems, "row %zu: got\n%s\nexpected\n%s", i, got, refused[i].problems);
		for (size_t k = 0; k < ps.n; k++)
			cr_expect(ps.v[k].line == 0, "row %zu: a line of a text that is nowhere", i);
		problems_clear(&ps);
		strv_clear(&sets);
	}
}

/* --- property: what is read back is what was asked for --------------------------------------------------------------- */

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* The values of @section's keys; custom ones are compared by same_custom(). */
static bool same_keys(const char *section, const void *a, const void *b)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		const char *x = (const char *)a + k->offset, *y = (const char *)b + k->offset;
		bool same = true;

		if (strcmp(k->section, section))
			continue;
		switch (k->type) {
		case CONF_BOOL:
			same = *(const bool *)x == *(const bool *)y;
			break;
		case CONF_INT:
		case CONF_ENUM:
			same = *(const int *)x == *(const int *)y;
			break;
		case CONF_SIZE:
		case CONF_DURATION:
			same = *(const uint64_t *)x == *(const uint64_t *)y;
			break;
		case CONF_PCI:
			same = pci_addr_cmp((const struct pci_addr *)x, (const struct pci_addr *)y) == 0;
			break;
		case CONF_CUSTOM:
			break;
		default:
			same = same_text(*(char *const *)x, *(char *const *)y);
		}
		if (!same)
			return false;
	}
	return true;
}

static bool same_custom(const struct vm_config *a, const struct vm_config *b)
{
	return a->pin == b->pin && a->n_pin_cpus == b->n_pin_cpus &&
	       (!a->n_pin_cpus || memcmp(a->pin_cpus, b->pin_cpus, a->n_pin_cpus * sizeof(*a->pin_cpus)) == 0) && a->hugepage_bytes == b->hugepage_bytes &&
	       a->emulator_set == b->emulator_set && a->qemu_env.n == b->qemu_env.n;
}

/* Sections may be in another order: a set that makes one comes last in both. */
static bool same_config(const struct vm_config *a, const struct vm_config *b)
{
	bool same = a->n_disks == b->n_disks && a->n_nets == b->n_nets && a->n_devices == b->n_devices && a->place_present == b->place_present &&
		    a->cloud_init == b->cloud_init && same_custom(a, b);

	for (size_t i = 0; i < config_n_keys && same; i++)
		if (!config_section_is_named(config_keys[i].section))
			same = same_keys(config_keys[i].section, a, b);
	for (size_t i = 0; same && i < a->n_disks; i++)
		same = same_text(a->disks[i].name, b->disks[i].name) && same_keys("disk", &a->disks[i], &b->disks[i]);
	for (size_t i = 0; same && i < a->n_nets; i++)
		same = same_text(a->nets[i].name, b->nets[i].name) && same_keys("net", &a->nets[i], &b->nets[i]);
	for (size_t i = 0; same && i < a->n_devices; i++)
		same = same_text(a->devices[i].name, b->devices[i].name) && same_keys("device", &a->devices[i], &b->devices[i]);
	return same;
}

/* Mostly ordinary, now and then anything but. */
static char *random_word(struct rng *g, const char *prefix)
{
	static const char usual[] = "abcxyzABC0189-_.", odd[] = " \t\n\r\x01\x7f=#;[]\"'\\,:/%$\xc3\xa4\xff";
	int n = rng_range(g, 1, rng_percent(g, 5) ? 60 : 8);
	bool nasty = rng_percent(g, 20);
	char text[64] = "";

	for (int i = 0; i < n; i++)
		text[i] = nasty && rng_percent(g, 40) ? odd[rng_below(g, sizeof(odd) - 1)] : usual[rng_below(g, sizeof(usual) - 1)];
	return xasprintf("%s%s", prefix, text);
}

static char *random_set(struct rng *g)
{
	static const char *const plain[] = { "cpu.vcpus=3",	 "cpu.pin=0-2,5",	 "place.gpus=2",	   "place.nics=none",	  "memory.size=1.5G",
					     "memory.hugepages=2M", "disk.os.queues=2",	 "disk.os.discard=on",	   "disk.more.file=/m.raw", "net.lan.queues=2",
					     "net.lan.mac=auto", "net.x.type=tap",	 "vm.append=a=b  c;d #e", "vm.kernel=/k",	  "qemu.args=-device 'a b',x=1",
					     "qemu.env=A=b C=d", "device.g.pci=0:17:0.0", "device.g.pci=17:00.0",	   "cloud-init.meta-data=/m", "vm.uuid=auto",
					     "lifecycle.stop-timeout=3min", " hooks . timeout = 5 ", "disk.data.serial=s1", "net.lan.type=user" };

	if (rng_percent(g, 15))
		return random_word(g, rng_percent(g, 50) ? "vm.append=" : "disk.more.file=/");
	return xstrdup(plain[rng_below(g, ARRAY_SIZE(plain))]);
}

struct trial_request {
	struct definition_request r;
	struct strv sets;
	char *owned[8];
};

static void random_request(struct rng *g, struct trial_request *t)
{
	*t = (struct trial_request){ .r = { .gpus = rng_percent(g, 50) ? rng_range(g, 1, 300) : 0,
					    .gpu_index = CONF_AUTO,
					    .vcpus = rng_percent(g, 50) ? rng_range(g, 1, 5000) : CONF_AUTO,
					    .net = (enum definition_net)rng_below(g, 5) } };
	for (size_t i = 0; i < ARRAY_SIZE(t->owned); i++)
		t->owned[i] = random_word(g, i == 0 || i > 3 ? "" : "/");
	t->r.name = t->owned[0];
	t->r.os_disk = rng_percent(g, 60) ? t->owned[1] : NULL;
	t->r.data_disk = rng_percent(g, 30) ? t->owned[2] : NULL;
	t->r.user_data = rng_percent(g, 30) ? t->owned[3] : NULL;
	t->r.net_host = t->owned[4];
	/* for comments: whatever they are, they spoil nothing */
	t->r.image = t->owned[5];
	t->r.command = t->owned[6];
	t->r.user_data_from = t->owned[7];
	t->r.memory = rng_percent(g, 30) ? "960 GiB" : NULL;
	t->r.uuid = rng_percent(g, 50) ? "6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11" : NULL;
	if (t->r.gpus && rng_percent(g, 30))
		t->r.gpu_index = rng_below(g, 300);
	for (int i = rng_below(g, 4); i > 0; i--) {
		AUTO_FREE char *set = random_set(g);

		strv_push(&t->sets, set);
	}
	t->r.sets = &t->sets;
}

static bool was_set(const struct strv *sets, const char *start)
{
	for (size_t i = 0; i < sets->n; i++)
		if (strncmp(sets->v[i], start, strlen(start)) == 0)
			return true;
	return false;
}

/* Against the request itself, what no set has changed. */
static bool is_as_asked(const struct definition_request *r, const struct vm_config *vm)
{
	const char *disks[] = { r->os_disk, r->data_disk };
	size_t at = 0;

	if (strcmp(vm->name, r->name) || (!was_set(r->sets, "vm.uuid") && !same_text(vm->uuid, r->uuid)) || (r->user_data && strcmp(vm->user_data, r->user_data)))
		return false;
	if (!was_set(r->sets, "place.gpus") && (vm->gpus != r->gpus || vm->gpu_index != r->gpu_index))
		return false;
	if (!was_set(r->sets, "cpu.vcpus") && vm->vcpus != r->vcpus)
		return false;
	if (!was_set(r->sets, "memory.size") && vm->memory_bytes != (r->memory ? UINT64_C(960) << 30 : 0))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(disks); i++)
		if (disks[i] && (at == vm->n_disks || strcmp(vm->disks[at].file, disks[i]) || vm->disks[at++].format != DISK_QCOW2))
			return false;
	if (was_set(r->sets, "net."))
		return true;
	if (r->net == DEFINITION_NET_NONE)
		return vm->n_nets == 0;
	if (vm->n_nets != 1 || (r->net == DEFINITION_NET_BRIDGE && strcmp(vm->nets[0].bridge, r->net_host)) ||
	    (r->net == DEFINITION_NET_TAP && strcmp(vm->nets[0].ifname, r->net_host)))
		return false;
	return vm->nets[0].type == (r->net == DEFINITION_NET_BRIDGE ? NET_BRIDGE : r->net == DEFINITION_NET_TAP ? NET_TAP : NET_USER);
}

Test(create, text_says_what_was_asked_for)
{
	const struct definition_facts facts = { .host_gpus = 8, .vcpus = 46, .memory_bytes = UINT64_C(5) << 30, .page_bytes = 2 << 20 };
	const struct strv none = { 0 };
	int made = 0;

	for (uint64_t seed = 1; seed <= 3000; seed++) {
		struct rng g = { seed };
		struct trial_request t;
		struct definition_request bare;
		struct problems ps = { 0 };
		struct vm_config vm = { 0 }, other = { 0 };
		AUTO_FREE char *text = NULL, *plain = NULL, *why = NULL;

		random_request(&g, &t);
		text = definition_text(&t.r, rng_percent(&g, 50) ? &facts : NULL, &ps);
		why = describe(&ps);
		cr_assert((text == NULL) == (ps.n > 0), "seed %ju", (uintmax_t)seed);
		problems_clear(&ps);
		if (text) {
			made++;
			cr_assert(config_parse("t", text, strlen(text), NULL, &vm, &ps) == 0, "seed %ju:\n%s\n%s", (uintmax_t)seed, text, describe(&ps));
			cr_assert(is_as_asked(&t.r, &vm), "seed %ju:\n%s", (uintmax_t)seed, text);
			/* The sets in the text are the sets beside it. */
			bare = t.r;
			bare.sets = &none;
			if (bare.net == DEFINITION_NET_AUTO && was_set(&t.sets, "net."))
				bare.net = DEFINITION_NET_NONE;
			plain = definition_text(&bare, NULL, &ps);
			cr_assert(plain && config_parse("t", plain, strlen(plain), &t.sets, &other, &ps) == 0, "seed %ju", (uintmax_t)seed);
			cr_assert(same_config(&vm, &other), "seed %ju:\n%s", (uintmax_t)seed, text);
		}
		config_clear(&vm);
		config_clear(&other);
		strv_clear(&t.sets);
		for (size_t i = 0; i < ARRAY_SIZE(t.owned); i++)
			free(t.owned[i]);
	}
	cr_expect(made > 300 && made < 2900, "%d of 3000 were made: the requests are too nasty, or not enough", made);
}

/* --- the programs -------------------------------------------------------------------------------------------------------- */

/* A VM that every machine can run, and that a second power button ends soon. */
#define SMALL "--set vm.accel=tcg --set vm.firmware=seabios --set cpu.model=qemu64 --set lifecycle.stop-timeout=300ms --vcpus 1 --memory 64M "
#define FILES(name) "find $R -name images -prune -o -name qemu -prune -o -name 'lock' -prune -o -type f ! -name '*.list' ! -name cmd ! -name out -print | sort >$R/" name ".list"

static void end(struct place *p)
{
	EXPECT_SH(p, 1, "ls $R/vms $R/disks $R/conf 2>/dev/null | grep -v : | grep .");
	sh(p, "rm -rf $R/vms $R/disks $R/conf $R/images $R/tpm $R/x $R/y $R/z $R/*.list $R/*.qcow2");
	place_end(p);
}

static void make_image(struct place *p)
{
	EXPECT_SH(p, 0, "qemu-img create -q -f qcow2 $R/base.qcow2 3M && qemu-io -f qcow2 -c 'write -q -P 7 0 64k' $R/base.qcow2 && "
			"$G image install --name base $R/base.qcow2 && rm $R/base.qcow2");
}

Test(create, whole_life, .timeout = 120)
{
	struct place p = place_new();

	make_image(&p);
	EXPECT_SH(&p, 0, FILES("before") "; printf '#cloud-config\\n\\000' >$R/ud.list");
	EXPECT_SH(&p, 0, "$G create x " SMALL "--image base --disk-size 5M --data-disk 2M --user-data $R/ud.list --json >$R/made.list");
	EXPECT_SH(&p, 0, "jq -e --arg R $R '.vm == \"x\" and .created and .started and .definition == $R + \"/conf/x.ini\" and (.files | length) == 4' $R/made.list");
	EXPECT_SH(&p, 0, "cmp $R/ud.list $R/conf/x.user-data && [ $(stat -c %a $R/conf/x.user-data) = 600 ]");
	EXPECT_SH(&p, 0, "qemu-img info -U --output=json $R/disks/x.qcow2 | jq -e '.[\"virtual-size\"] == 5242880 and (.[\"backing-filename\"] | startswith(\"../images/base@\"))'");
	EXPECT_SH(&p, 0, "qemu-img info -U --output=json $R/disks/x-data.qcow2 | jq -e '.[\"virtual-size\"] == 2097152 and .[\"backing-filename\"] == null'");
	EXPECT_SH(&p, 0, "jq -e '.schema == 1 and .state == \"ready\" and (.files | length) == 4' $R/vms/x.json");
	EXPECT_SH(&p, 0, "$G list --json | jq -e 'length == 1 and .[0].name == \"x\" and .[0].state == \"running\"'");
	/* the UUID that was made is the guest's */
	EXPECT_SH(&p, 0, "u=$(sed -n 's/^uuid = //p' $R/conf/x.ini); [ ${#u} = 36 ] && $G qmp x query-uuid | grep -q $u");
	EXPECT_SH(&p, 5, "$G create x " SMALL);
	EXPECT_SAYS(&p, "/conf/x.ini");
	/* by its name, as any other */
	EXPECT_SH(&p, 0, "$G stop x && $G status x --json | jq -e '.state == \"stopped\"' && $G start x && $G status x --json | jq -e '.state == \"running\"'");
	/* it is shown, and without anybody to ask nothing happens */
	EXPECT_SH(&p, 2, "$G delete x </dev/null");
	EXPECT_SAYS(&p, "--yes");
	EXPECT_SAYS(&p, "/disks/x-data.qcow2");
	EXPECT_SAYS(&p, "It runs");
	EXPECT_SH(&p, 0, "$G status x --json | jq -e '.state == \"running\"'");
	EXPECT_SH(&p, 0, "$G delete x --yes --json | jq -e '.vm == \"x\" and (.deleted | length) == 5'");
	EXPECT_SH(&p, 0, FILES("after") " && diff $R/before.list $R/after.list");
	EXPECT_SH(&p, 1, "$G delete x --yes");
	EXPECT_SAYS(&p, "there is no VM 'x'");
	EXPECT_SH(&p, 0, "$G image remove base");
	end(&p);
}

/* A VM that has never run is in the list, as is every definition; a restart of the host forgets runs, not VMs. */
Test(create, list_shows_what_is_defined, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G create y " SMALL "--no-start && [ ! -e $R/y ]");
	EXPECT_SAYS(&p, "no OS disk");
	EXPECT_SH(&p, 0, "printf '[vm]\\nname = other\\n' >$R/conf/z.ini; echo junk >$R/conf/broken.ini; echo >$R/conf/readme; "
			 "$G list --json | jq -e 'map(.name + \" \" + .state) == [\"broken stopped\", \"other stopped\", \"y stopped\"]'");
	EXPECT_SH(&p, 0, "$G status y --json | jq -e '.state == \"stopped\" and .exit_code == null and (.reason | startswith(\"has not run\"))'");
	EXPECT_SH(&p, 1, "$G status nobody");
	/* the name of a VM counts, not that of its file */
	EXPECT_SH(&p, 5, "$G create other " SMALL "--no-start");
	EXPECT_SAYS(&p, "/conf/z.ini");
	EXPECT_SH(&p, 5, "$G create z " SMALL "--no-start");
	EXPECT_SAYS(&p, "VM 'other' exists already");
	EXPECT_SH(&p, 1, "rm $R/conf/broken.ini; $G delete other --yes");
	EXPECT_SH(&p, 1, "$G delete z --yes");
	EXPECT_SAYS(&p, "was not made by `gpuvm create`");
	EXPECT_SAYS(&p, "/conf/z.ini");
	EXPECT_SH(&p, 0, "rm $R/conf/z.ini $R/conf/readme; $G delete y --yes");
	end(&p);
}

Test(create, refusal_leaves_nothing, .timeout = 120)
{
	static const struct {
		int code;
		const char *args, *says;
	} rows[] = { { 2, "", "which name" },
		     { 2, "x y", "one VM at a time" },
		     { 2, "../x", "not a name" },
		     { 2, "'a b'", "not a name" },
		     { 2, ".hidden", "not a name" },
		     { 2, "' x'", "not a name" },
		     { 2, "x.ini", "taken for a file" },
		     { 2, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "at most 48" },
		     { 2, "x --gpus four", "--gpus: 'four'" },
		     { 2, "x --memory lots", "--memory: 'lots'" },
		     { 2, "x --net bridge=", "--net: 'bridge='" },
		     { 2, "x --net bonded", "--net: 'bonded'" },
		     { 2, "x --gpu-index 1", "--gpus N" },
		     { 2, "x --sysroot /", "--dry-run" },
		     { 2, "x --disk-size 0", "--disk-size: '0'" },
		     { 3, "x --set cpu.vcpsu=1", "did you mean 'vcpus'" },
		     { 3, "x --memory 1M", "out of range" },
		     { 3, "x --image base --disk-size 1M", "the image 'base' has, 3 MiB" },
		     { 4, "x --image bsae", "did you mean 'base'" },
		     { 4, "x --gpus 200", "200 GPUs" },
		     { 4, "x --net bridge=nosuchbridge --disk-size 1M", "nosuchbridge" },
		     { 4, "x --set vm.kernel=/no/kernel --image base --data-disk 1M", "/no/kernel" },
		     { 1, "x --user-data $R/none", "no such file" },
		     { 1, "x --user-data $R", "not a regular file" },
		     { 1, "x --user-data $R/fifo.list", "not a regular file" } };
	struct place p = place_new();

	make_image(&p);
	EXPECT_SH(&p, 0, "mkfifo $R/fifo.list; mkdir $R/disks $R/conf; " FILES("before"));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *cmd = xasprintf("$G create %s --set vm.accel=tcg", rows[i].args);

		EXPECT_SH(&p, rows[i].code, cmd);
		cr_expect(strcasestr(p.out, rows[i].says), "%s: '%s' is not in:\n%s", cmd, rows[i].says, p.out);
		EXPECT_SH(&p, 0, "rm -f $R/x.list; " FILES("after") "; diff $R/before.list $R/after.list && [ ! -e $R/vms ]");
	}
	if (geteuid() == 0) {
		EXPECT_SH(&p, 3, "chmod o+w $R/conf; $G create x --set vm.accel=tcg");
		EXPECT_SAYS(&p, "could have been written by others");
		EXPECT_SH(&p, 0, "chmod o-w $R/conf; rm -f $R/x.list; " FILES("after") "; diff $R/before.list $R/after.list && [ ! -e $R/vms ]");
	}
	/* as JSON, as a plan's */
	EXPECT_SH(&p, 0, "$G create x --image nix --json | jq -e '.vm == \"x\" and .errors[0].code == \"image-missing\"'");
	EXPECT_SH(&p, 0, "$G image remove base");
	end(&p);
}

Test(create, what_is_there_already_stays, .timeout = 60)
{
	static const char *const files[] = { "disks/x.qcow2", "disks/x-data.qcow2", "conf/x.user-data", "conf/x.ini", "vars/x.fd", "tpm/x" };
	struct place p = place_new();

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		AUTO_FREE char *make = xasprintf("mkdir -p $R/disks $R/conf $R/vars $R/tpm; echo mine >$R/%s", files[i]);
		AUTO_FREE char *check = xasprintf("grep -qx mine $R/%s && rm $R/%s && [ ! -e $R/vms/x.json ]", files[i], files[i]);

		EXPECT_SH(&p, 0, make);
		EXPECT_SH(&p, 5, "$G create x " SMALL "--disk-size 1M --data-disk 1M --user-data /dev/null --no-start");
		EXPECT_SAYS(&p, files[i]);
		EXPECT_SH(&p, 0, check);
	}
	/* a link is something, too, wherever it leads to */
	EXPECT_SH(&p, 5, "ln -s $R/nowhere $R/disks/x.qcow2; $G create x " SMALL "--disk-size 1M --no-start");
	EXPECT_SH(&p, 0, "[ -L $R/disks/x.qcow2 ] && [ ! -e $R/nowhere ] && rm $R/disks/x.qcow2");
	/* a VM of that name that runs from somewhere else */
	EXPECT_SH(&p, 5, "$L -d " DEMO "; $G create demo " SMALL "--no-start");
	EXPECT_SAYS(&p, "conf/demo.ini");
	EXPECT_SH(&p, 0, "$G kill demo && rmdir $R/conf");
	end(&p);
}

/* What another VM holds now refuses a VM that is to be started, and is said of one that is not. */
Test(create, in_use_now, .timeout = 90)
{
	struct place p = place_new();

	if (sh(&p, "[ $(nproc) -ge 2 ]") != 0)
		cr_skip("one CPU only");
	EXPECT_SH(&p, 0, "$G create x " SMALL "--set cpu.pin=1 --set cpu.emulator=0");
	EXPECT_SH(&p, 5, "$G create y " SMALL "--set cpu.pin=1 --set cpu.emulator=0 --disk-size 1M");
	EXPECT_SAYS(&p, "'x'");
	EXPECT_SH(&p, 0, "[ ! -e $R/conf/y.ini ] && [ ! -e $R/disks/y.qcow2 ] && [ ! -e $R/vms/y.json ]");
	EXPECT_SH(&p, 0, "$G create y " SMALL "--set cpu.pin=1 --set cpu.emulator=0 --disk-size 1M --no-start");
	EXPECT_SAYS(&p, "in the way of a start now");
	EXPECT_SH(&p, 5, "$G start y");
	EXPECT_SH(&p, 0, "$G kill x && $G start y && $G kill y");
	/* what is missing for good is no matter of time */
	EXPECT_SH(&p, 4, "$G create z " SMALL "--set cpu.pin=4000 --no-start");
	/* made, but its start fails: it stays, and the code is the start's */
	EXPECT_SH(&p, 1, "$G create z " SMALL "--disk-size 1M --set hooks.pre-bind=/bin/false");
	EXPECT_SAYS(&p, "its start has failed");
	EXPECT_SH(&p, 0, "jq -e '.state == \"ready\"' $R/vms/z.json && $G delete z --yes && $G delete y --yes && $G delete x --yes");
	end(&p);
}

Test(create, dry_run_touches_nothing, .timeout = 60)
{
	struct place p = place_new();
	char *root = mkhost_fixture("xe9680-h200");

	setenv("F", root, 1);
	EXPECT_SH(&p, 0, FILES("before") "; $G create train1 -n --gpus 4 --disk-size 50G --data-disk 1T --user-data /etc/passwd --sysroot $F >$R/text.list");
	EXPECT_SH(&p, 0, "grep -qx '# VM train1: 4 of this machine.s 8 GPUs[.]' $R/text.list && grep -qx '# vcpus = auto: now 92[.]' $R/text.list && "
			 "grep -qx '# size = auto: now 960 GiB in pages of 1 GiB[.]' $R/text.list && grep -qx \"file = $R/disks/train1-data.qcow2\" $R/text.list");
	EXPECT_SH(&p, 4, "$G create train1 -n --gpus 9 --sysroot $F");
	/* here: the disks that it would have are missing, and that is no problem */
	EXPECT_SH(&p, 0, "$G create x -n " SMALL "--disk-size 1M --json | jq -e '.created == false and .started == false and (.text | contains(\"[disk os]\"))'");
	EXPECT_SH(&p, 0, "rm $R/text.list; " FILES("after") "; diff $R/before.list $R/after.list && [ ! -e $R/conf ] && [ ! -e $R/vms ] && [ ! -e $R/images ]");
	mkhost_remove(root);
	end(&p);
}

/* --- two at once, and killed ones ------------------------------------------------------------------------------------------ */

Test(create, one_of_four_wins, .timeout = 120)
{
	struct place p = place_new();

	for (int round = 0; round < 3; round++) {
		EXPECT_SH(&p, 0, "for i in 1 2 3 4; do { $G create x " SMALL "--disk-size 1M --data-disk 1M --no-start >$R/$i.list 2>&1; echo $? >$R/rc$i.list; } & done; wait; "
				 "[ \"$(cat $R/rc?.list | sort | xargs)\" = '0 5 5 5' ] || { cat $R/?.list $R/rc?.list; false; }");
		EXPECT_SH(&p, 0, "jq -e '.state == \"ready\"' $R/vms/x.json && qemu-img check -q $R/disks/x.qcow2 && $G plan x >/dev/null");
		/* one of them deletes it, the others find nothing more, or nothing at all */
		EXPECT_SH(&p, 0, "for i in 1 2 3 4; do { $G delete x --yes >$R/$i.list 2>&1; echo $? >$R/rc$i.list; } & done; wait; "
				 "[ \"$(cat $R/rc?.list | sort | xargs)\" = '0 1 1 1' ] || { cat $R/?.list $R/rc?.list; false; }");
	}
	end(&p);
}

/* The record and the files as a create leaves them that is killed: before the file @cut is made, when it is made, when the record knows it, and when
 * it has its name. */
enum { BEFORE, MADE, RECORDED, NAMED, PHASES };

static void interrupt(struct place *p, int cut, int phase)
{
	EXPECT_SH(p, 0, "$G create x " SMALL "--disk-size 1M --data-disk 1M --user-data /etc/passwd --no-start");
	for (int what = 0; what < RECORD_FILES; what++) {
		AUTO_FREE char *path = record_path("x", what), *temp = record_temp_path("x", what);
		AUTO_FREE char *forget = xasprintf("jq '.files[%d].inode = 0 | .files[%d].born_us = 0' $R/vms/x.json >$R/x.list && mv $R/x.list $R/vms/x.json", what, what);

		if (what > cut || (what == cut && phase == BEFORE))
			cr_assert(unlink(path) == 0);
		else if (what == cut && phase != NAMED)
			cr_assert(rename(path, temp) == 0);
		if (what > cut || (what == cut && phase < RECORDED))
			EXPECT_SH(p, 0, forget);
	}
	EXPECT_SH(p, 0, "jq '.state = \"creating\"' $R/vms/x.json >$R/x.list && mv $R/x.list $R/vms/x.json");
}

#define NOTHING_IS_LEFT "[ -z \"$(ls -A $R/conf $R/disks $R/vms | grep -v : | grep .)\" ]"

Test(create, killed_at_each_step, .timeout = 300)
{
	struct place p = place_new();

	for (int cut = 0; cut < RECORD_FILES; cut++) {
		for (int phase = 0; phase < PHASES; phase++) {
			interrupt(&p, cut, phase);
			EXPECT_SH(&p, 0, "$G list --json | jq -e '.[] | select(.name == \"x\") | .state == \"stopped\" and (.reason | contains(\"interrupted\"))'");
			if ((cut + phase) % 2) {
				EXPECT_SH(&p, 0, "$G create x " SMALL "--data-disk 2M --no-start");
				EXPECT_SAYS(&p, "was interrupted");
				EXPECT_SH(&p, 0, "jq -e '.state == \"ready\" and (.files | map(.what)) == [\"data-disk\", \"definition\"]' $R/vms/x.json && "
						 "[ \"$(ls -A $R/disks)\" = x-data.qcow2 ] && [ \"$(ls -A $R/conf)\" = x.ini ]");
			}
			EXPECT_SH(&p, 0, "$G delete x --yes");
			EXPECT_SH(&p, 0, NOTHING_IS_LEFT);
		}
	}
	end(&p);
}

/* What somebody has put where the interrupted create would have put something is not the create's. */
Test(create, undo_spares_what_is_not_its_own, .timeout = 60)
{
	struct place p = place_new();

	interrupt(&p, RECORD_DATA_DISK, RECORDED);
	EXPECT_SH(&p, 0, "rm $R/disks/x.qcow2; echo mine >$R/disks/x.qcow2; echo too >$R/disks/x-data.qcow2");
	EXPECT_SH(&p, 5, "$G create x " SMALL "--disk-size 1M --no-start");
	EXPECT_SAYS(&p, "left as it is");
	EXPECT_SAYS(&p, "disks/x.qcow2' is there already");
	EXPECT_SH(&p, 0, "grep -qx mine $R/disks/x.qcow2 && grep -qx too $R/disks/x-data.qcow2 && [ ! -e $R/vms/x.json ] && rm $R/disks/x.qcow2 $R/disks/x-data.qcow2");
	end(&p);
}

/* It is whole when its definition is there, and may run before it is called finished. */
Test(create, undo_spares_what_runs, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M && jq '.state = \"creating\"' $R/vms/x.json >$R/x.list && mv $R/x.list $R/vms/x.json");
	EXPECT_SH(&p, 5, "$G create x " SMALL "--disk-size 1M");
	EXPECT_SAYS(&p, "a VM 'x' is running");
	EXPECT_SH(&p, 0, "[ -e $R/disks/x.qcow2 -a -e $R/conf/x.ini ] && $G kill x && $G delete x --yes && " NOTHING_IS_LEFT);
	end(&p);
}

/* For real: wherever it was, the next one gets on. */
Test(create, killed_somewhere, .timeout = 180)
{
	/* when to kill it: as soon as this is true */
	static const char *const when[] = { "[ -e $R/vms/x.json ]", "[ -e $R/disks/.x.qcow2.new -o -e $R/disks/x.qcow2 ]", "[ -e $R/disks/x-data.qcow2 ]",
					    "[ -e $R/conf/.x.ini.new -o -e $R/conf/x.ini ]" };
	struct place p = place_new();

	for (size_t i = 0; i < ARRAY_SIZE(when); i++) {
		AUTO_FREE char *cmd = xasprintf("$G create x " SMALL "--disk-size 1M --data-disk 1M --no-start & g=$!; "
						"until %s || ! kill -0 $g; do :; done; kill -9 $g; wait $g; true", when[i]);

		EXPECT_SH(&p, 0, cmd);
		EXPECT_SH(&p, 0, "[ -e $R/vms/x.json ] && $G delete x --yes");
		/* what qemu-img was at goes with the next disk that is made */
		EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M --no-start && $G delete x --yes && " NOTHING_IS_LEFT);
	}
	end(&p);
}

/* A key that is pressed while files are made counts when they are: whole, and not started. */
Test(create, interrupted_by_a_signal_is_whole, .timeout = 60)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M --data-disk 1M & g=$!; until [ -e $R/vms/x.json ] || ! kill -0 $g; do :; done; kill -TERM $g; wait $g; "
			 "jq -e '.state == \"ready\"' $R/vms/x.json && $G plan x >/dev/null");
	EXPECT_SH(&p, 0, "$G delete x --yes");
	end(&p);
}

/* --- delete --------------------------------------------------------------------------------------------------------------- */

Test(create, delete_refuses_what_others_need, .timeout = 90)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M --data-disk 1M --no-start");
	/* a disk on ours, and one on that one */
	EXPECT_SH(&p, 5, "qemu-img create -q -f qcow2 -b x.qcow2 -F qcow2 $R/disks/mid.qcow2 && qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 $R/disks/top.qcow2 && $G delete x --yes");
	EXPECT_SAYS(&p, "/disks/mid.qcow2");
	EXPECT_SAYS(&p, "/disks/top.qcow2");
	/* another definition */
	EXPECT_SH(&p, 5, "rm $R/disks/mid.qcow2 $R/disks/top.qcow2; printf \"[vm]\\nname = o\\n[disk d]\\nfile = $R/disks/x-data.qcow2\\n\" >$R/conf/o.ini; $G delete x --yes");
	EXPECT_SAYS(&p, "/conf/o.ini");
	/* one that cannot be read may name it, too */
	EXPECT_SH(&p, 5, "echo junk >$R/conf/o.ini; $G delete x --yes");
	EXPECT_SAYS(&p, "/conf/o.ini");
	/* a VM that runs from elsewhere */
	EXPECT_SH(&p, 5, "rm $R/conf/o.ini; $L -d --set disk.d.file=$R/disks/x.qcow2 " DEMO " && $G delete x --yes");
	EXPECT_SAYS(&p, "/demo' needs");
	EXPECT_SH(&p, 0, "$G kill demo; [ -e $R/disks/x.qcow2 ] && [ -e $R/disks/x-data.qcow2 ] && [ -e $R/conf/x.ini ] && $G delete x --yes");
	end(&p);
}

Test(create, damaged_records, .timeout = 60)
{
	static const char *const edits[] = { ".schema = 2", "del(.state)", ".state = \"odd\"", ".vm = \"y\"", "del(.files)", ".files = [7]", ".files[0].what = \"x\"",
					     ".files[0].path = \"/etc/passwd\"", ".files[0].path |= sub(\"x.qcow2\"; \"y.qcow2\")", ".files[1] = .files[0]",
					     "del(.files[0].inode)", ".files[0].path |= sub(\"/disks/\"; \"/disks/../\")", "[]" };
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M --no-start && cp $R/vms/x.json $R/good.list && " FILES("before"));
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		AUTO_FREE char *edit = xasprintf("jq '%s' $R/good.list >$R/vms/x.json", edits[i]);

		EXPECT_SH(&p, 0, edit);
		EXPECT_SH(&p, 1, "$G delete x --yes");
		EXPECT_SAYS(&p, "/vms/x.json' is damaged");
		EXPECT_SH(&p, 1, "$G create x " SMALL "--no-start");
		EXPECT_SH(&p, 0, FILES("after") "; diff $R/before.list $R/after.list && $G list >/dev/null");
	}
	EXPECT_SH(&p, 1, "head -c 40 $R/good.list >$R/vms/x.json; $G delete x --yes");
	/* with another folder of definitions it is not this VM */
	EXPECT_SH(&p, 1, "cp $R/good.list $R/vms/x.json; GPUVM_CONFDIR=$R/conf/other $G delete x --yes");
	EXPECT_SH(&p, 0, "[ -e $R/disks/x.qcow2 ] && $G delete x --yes");
	end(&p);
}

/* Whatever is gone already is no obstacle, links are not followed, and what a run has left goes, too. */
Test(create, delete_is_thorough, .timeout = 120)
{
	static const char *const gone[] = { "$R/disks/x.qcow2", "$R/disks/x*.qcow2", "$R/disks/x*.qcow2 $R/conf/x.user-data", "$R/disks/x*.qcow2 $R/conf/x.*" };
	struct place p = place_new();

	for (size_t i = 0; i < ARRAY_SIZE(gone); i++) {
		AUTO_FREE char *cmd = xasprintf("$G create x " SMALL "--disk-size 1M --data-disk 1M --user-data /etc/passwd --no-start && rm %s && $G delete x --yes", gone[i]);

		EXPECT_SH(&p, 0, cmd);
		EXPECT_SH(&p, 0, NOTHING_IS_LEFT);
	}
	/* what is left of one is not forgotten for another one */
	EXPECT_SH(&p, 5, "$G create x " SMALL "--disk-size 1M --no-start && rm $R/conf/x.ini && $G create x " SMALL "--no-start");
	EXPECT_SAYS(&p, "its definition is gone");
	EXPECT_SH(&p, 0, "$G delete x --yes && " NOTHING_IS_LEFT);
	EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M --no-start && mv $R/disks/x.qcow2 $R/moved.list && ln -s $R/moved.list $R/disks/x.qcow2 && "
			 "mkdir -p $R/tpm/x $R/vars $R/x && echo s >$R/tpm/x/state && echo v >$R/vars/x.fd && ln -s $R/moved.list $R/tpm/x/link && ln -s / $R/x/link && $G delete x --yes");
	EXPECT_SAYS(&p, "a link");
	EXPECT_SH(&p, 0, NOTHING_IS_LEFT " && [ -s $R/moved.list ] && [ ! -e $R/tpm/x ] && [ ! -e $R/vars/x.fd ] && [ ! -e $R/x ]");
	/* both processes were killed: what they held is given back first */
	EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M && pids=$($G status x --json | jq -r '.pid, .qemu_pid') && kill -9 $pids && "
			 "until ! $G status x --json | jq -e '.pid != null or .qemu_pid != null'; do :; done; $G delete x --yes");
	EXPECT_SH(&p, 0, NOTHING_IS_LEFT " && [ ! -e $R/x ]");
	/* it runs under another name by now */
	EXPECT_SH(&p, 0, "$G create x " SMALL "--no-start && sed -i 's/^name = x/name = y/' $R/conf/x.ini && $L -d $R/conf/x.ini && $G delete x --yes");
	EXPECT_SH(&p, 0, NOTHING_IS_LEFT " && $G status y --json | jq -e '.state == \"stopped\"'");
	end(&p);
}

/* The UEFI variables are made by the first start. */
Test(create, delete_removes_uefi_variables, .timeout = 60)
{
	struct place p = place_new();

	if (sh(&p, "ls /usr/share/OVMF/OVMF_CODE*.fd") != 0)
		cr_skip("no OVMF");
	EXPECT_SH(&p, 0, "$G create x " SMALL "--set vm.firmware=ovmf && [ -s $R/vars/x.fd ]");
	EXPECT_SH(&p, 0, "$G delete x --yes && " NOTHING_IS_LEFT " && [ ! -e $R/vars/x.fd ]");
	end(&p);
}

/* What `gpuvm delete x` on a terminal makes of @answer. */
static int answer_delete(const char *answer, char *said, size_t size)
{
	AUTO_FREE char *program = xasprintf("%s/gpuvm", build_dir());
	int fd, status;
	pid_t pid = forkpty(&fd, NULL, NULL, NULL);
	size_t len = 0;

	cr_assert(pid >= 0);
	if (pid == 0) {
		execl(program, "gpuvm", "delete", "x", (char *)NULL);
		_exit(127);
	}
	cr_assert(write(fd, answer, strlen(answer)) == (ssize_t)strlen(answer));
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		cr_assert(poll(&p, 1, 30000) == 1, "it does not end: %s", said);
		n = read(fd, said + len, size - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
		said[len] = '\0';
	}
	close(fd);
	cr_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	return WEXITSTATUS(status);
}

Test(create, delete_asks, .timeout = 60)
{
	static const char *const no[] = { "n\n", "\n", "yesno\n", "Y es\n" };
	struct place p = place_new();
	char said[4096] = "";

	EXPECT_SH(&p, 0, "$G create x " SMALL "--disk-size 1M --no-start");
	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		cr_expect(answer_delete(no[i], said, sizeof(said)) == 1, "%s", said);
		cr_expect(strstr(said, "disks/x.qcow2 (") && strstr(said, "Delete? [y/N]") && strstr(said, "nothing was deleted"), "%s", said);
	}
	EXPECT_SH(&p, 0, "[ -e $R/disks/x.qcow2 ] && [ -e $R/vms/x.json ]");
	cr_expect(answer_delete("y\n", said, sizeof(said)) == 0, "%s", said);
	EXPECT_SH(&p, 0, NOTHING_IS_LEFT);
	end(&p);
}
