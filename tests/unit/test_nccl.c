/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The topology file for NCCL: tests/golden/NAME.nccl.xml is that of tests/golden/NAME.ini.
 * GPUVM_UPDATE_GOLDEN=1 rewrites the files. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "gpuvm/nccl.h"
#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "tests/fake/mkhost.h"

static const char *golden_dir(void)
{
	const char *dir = getenv("GPUVM_GOLDEN");

	return dir ? dir : "tests/golden";
}

/* A fixture and a plan on it. */
struct scene {
	char *root;
	struct topology host;
	struct vm_config vm;
	struct plan p;
};

static void scene_init(struct scene *s, const char *name, const char *fixture, const char *set)
{
	AUTO_FREE char *path = xasprintf("%s/%s.ini", golden_dir(), name), *text = NULL;
	struct qemu_info q = fake_qemu("7.2");
	struct plan_request req = { .host = &s->host,
				    .qemu = &q,
				    .rundir = "/run/gpuvm/x",
				    .statedir = "/var/lib/gpuvm",
				    .foreign_host = true };
	struct strv sets = { 0 };
	struct problems ps = { 0 };
	struct err e = { 0 };
	int r;

	*s = (struct scene){ 0 };
	req.vm = &s->vm;
	s->root = mkhost_fixture(fixture);
	cr_assert(s->root && probe_host(s->root, &s->host, &e) == 0, "%s", e.msg);
	cr_assert(read_text_file(path, 1 << 20, &text) == 0, "%s", path);
	if (set)
		strv_push(&sets, set);
	r = config_parse(path, text, strlen(text), &sets, &s->vm, &ps);
	if (r == 0)
		r = plan_make(&req, &s->p, &ps);
	problems_print(&ps, stderr);
	cr_assert(r == 0, "%s cannot be planned", name);
	strv_clear(&sets);
	problems_clear(&ps);
}

static void scene_clear(struct scene *s)
{
	plan_clear(&s->p);
	config_clear(&s->vm);
	topology_clear(&s->host);
	mkhost_remove(s->root);
}

/* Every element closed in order, attributes quoted, no tabs (NCCL's reader knows no others). Enough XML for what we write. */
static void check_well_formed(const char *xml)
{
	const char *open[64];
	size_t depth = 0, roots = 0;

	cr_assert(!strchr(xml, '\t') && !strchr(xml, '\''));
	for (const char *p = xml; *p;) {
		const char *end = strchr(p, '>');
		size_t name;

		if (*p == ' ' || *p == '\n') {
			p++;
			continue;
		}
		cr_assert(*p == '<' && end, "junk at '%.20s'", p);
		if (strncmp(p, "<!--", 4) == 0) {
			end = strstr(p + 4, "--");
			cr_assert(end && strncmp(end, "-->", 3) == 0, "a comment ends at its first --");
			p = end + 3;
			continue;
		}
		name = strcspn(p + 1, " />");
		if (p[1] == '/') {
			name = strcspn(p + 2, ">");
			cr_assert(depth > 0 && strncmp(open[depth - 1], p + 2, name) == 0 &&
					  strchr(" >", open[depth - 1][name]),
				  "'%.20s' closes nothing", p);
			depth--;
		} else if (end[-1] != '/') {
			cr_assert(depth < ARRAY_SIZE(open));
			roots += depth == 0;
			open[depth++] = p + 1;
		}
		for (const char *a = p + 1 + name; p[1] != '/' && *a == ' ';) {
			const char *value = strstr(a, "=\"");

			cr_assert(value && value < end, "an attribute without a value at '%.30s'", a);
			a = strchr(value + 2, '"') + 1;
		}
		p = end + 1;
	}
	cr_assert(depth == 0 && roots == 1);
}

static int count(const char *text, const char *what)
{
	int n = 0;

	for (const char *p = text; (p = strstr(p, what)); p++)
		n++;
	return n;
}

/* Each GPU and NIC is there once, at the guest's address, with a known link, and no address is there twice. */
static void check_addresses(const struct scene *s, const char *xml)
{
	int n = 0;

	for (size_t i = 0; i < s->p.n_devices; i++) {
		const struct plan_device *d = &s->p.devices[i];
		AUTO_FREE char *busid = xasprintf("busid=\"0000:%02x:00.0\"", (unsigned int)d->guest_bus_nr);
		bool wanted = d->role == ROLE_GPU || d->role == ROLE_NIC;

		cr_expect(count(xml, busid) == wanted, "%s (%s) is there %d times", d->id, busid, count(xml, busid));
		n += wanted;
	}
	for (const char *p = xml; (p = strstr(p, "busid=")); p++) {
		AUTO_FREE char *busid = xstrndup(p, strlen("busid=\"0000:00:00.0\""));

		cr_expect(count(xml, busid) == 1, "%s is there twice", busid);
	}
	cr_expect(count(xml, "link_speed=") == count(xml, "<pci "));
	cr_expect(count(xml, "link_speed=\"2.5 GT/s") == 0, "that is QEMU's, not the host's");
	cr_expect(count(xml, "<pci ") >= n && count(xml, "<cpu ") == (int)s->p.n_nodes);
}

static void check_golden(const char *name, const char *xml)
{
	AUTO_FREE char *path = xasprintf("%s/%s.nccl.xml", golden_dir(), name), *want = NULL,
		       *got = xstrndup(xml, strlen(xml) - 1);

	if (getenv("GPUVM_UPDATE_GOLDEN")) {
		cr_assert(write_file_atomic(path, xml, strlen(xml), 0644) == 0);
		return;
	}
	cr_assert(read_text_file(path, 1 << 20, &want) == 0, "there is no %s", path);
	cr_assert_str_eq(got, want);
}

static void check_file(const char *name, const char *fixture, const char *set, bool golden)
{
	struct scene s;
	AUTO_FREE char *xml = NULL, *again = NULL;

	scene_init(&s, name, fixture, set);
	xml = nccl_topology_xml(&s.p, &s.host);
	again = nccl_topology_xml(&s.p, &s.host);
	cr_assert(xml);
	cr_assert_str_eq(xml, again);
	check_well_formed(xml);
	check_addresses(&s, xml);
	if (golden)
		check_golden(name, xml);
	scene_clear(&s);
}

Test(nccl, files, .timeout = 60)
{
	check_file("xe9680-half0", "xe9680-h200", NULL, true);
	check_file("stacked-pair", "h200-cx7-4-stacked", NULL, true);
	check_file("stacked-half", "h200-cx7-4-stacked", NULL, false);
	check_file("hgx-h100-half", "hgx-h100", NULL, false);
	check_file("xe9680-full", "xe9680-h200", NULL, false);
}

/* Switches that the guest does not see are in the file all the same, at addresses that no function has. */
Test(nccl, hidden_switches, .timeout = 60)
{
	static const char *const sets[] = { "pcie.topology=root-port", "pcie.topology=flat" };

	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		struct scene s;
		AUTO_FREE char *xml = NULL;

		check_file("stacked-pair", "h200-cx7-4-stacked", sets[i], false);
		scene_init(&s, "stacked-pair", "h200-cx7-4-stacked", sets[i]);
		xml = nccl_topology_xml(&s.p, &s.host);
		cr_expect(count(xml, "busid=\"ffff:00:00.0\"") == 1 && count(xml, "busid=\"ffff:01:00.0\"") == 1 &&
			  count(xml, "busid=\"ffff:") == 2);
		cr_expect(count(xml, "class=\"0x060400\"") == 2);
		scene_clear(&s);
	}
}

/* The CPUs of each node are the vCPUs, in words of 32 bits, the highest first. */
Test(nccl, affinity, .timeout = 60)
{
	struct scene s;
	AUTO_FREE char *xml = NULL;

	scene_init(&s, "xe9680-full", "xe9680-h200", "cpu.vcpus=80");
	xml = nccl_topology_xml(&s.p, &s.host);
	cr_expect(strstr(xml, "<cpu numaid=\"0\" affinity=\"00000000,000000ff,ffffffff\" arch=\"x86_64\">"), "%s", xml);
	cr_expect(strstr(xml, "<cpu numaid=\"1\" affinity=\"0000ffff,ffffff00,00000000\" arch=\"x86_64\">"), "%s", xml);
	scene_clear(&s);
}
