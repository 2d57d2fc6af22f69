/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupts of passed-through devices: found in /proc/interrupts, and steered. */
#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "golden.h"
#include "gpuvm/irq.h"
#include "gpuvm/launch.h"
#include "gpuvm/verify.h"

/* --- lines --------------------------------------------------------------------------------------------------- */

static const struct line {
	const char *text;
	int nr; /* -1: not one of ours */
	const char *bdf;
} lines[] = {
	{ "           CPU0       CPU1       ", -1, NULL },
	{ " 190:          0         17 IR-PCI-MSIX-0000:17:00.0    0-edge      vfio-msix[0](0000:17:00.0)\n", 190, "0000:17:00.0" },
	/* kernels before 6.6: no address in the chip's name */
	{ "1042:     812345          0  IR-PCI-MSI 12058624-edge      vfio-msix[31](0000:17:00.1)", 1042, "0000:17:00.1" },
	{ " 77:          0          0   PCI-MSI 12058625-edge      vfio-msi[0](10001:e1:00.0)", 77, "10001:e1:00.0" },
	{ " 16:          0          0 IR-IO-APIC   16-fasteoi   vfio-intx(0000:03:00.0)", 16, "0000:03:00.0" },
	/* one that a driver of the host shares */
	{ " 16:          0          0 IR-IO-APIC   16-fasteoi   vfio-intx(0000:03:00.0), i801_smbus", -1, NULL },
	{ " 16:          0          0 IR-IO-APIC   16-fasteoi   i801_smbus, vfio-intx(0000:03:00.0)", -1, NULL },
	{ " 28:          0          0 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config", -1, NULL },
	{ " 28:          0          0 PCI-MSIX-0000:00:01.0   0-edge      mlx5_comp0@pci:0000:17:00.0", -1, NULL },
	{ "NMI:          0          0   Non-maskable interrupts", -1, NULL },
	{ "ERR:          0", -1, NULL },
	{ "NMI:          0   vfio-msix[0](0000:17:00.0)", -1, NULL },
	{ "99999999999: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:17:00.0)", -1, NULL },
	{ " 190: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:17:00.0", -1, NULL },
	{ " 190: 0 IR-PCI-MSIX 0-edge vfio-msix[](0000:17:00.0)", -1, NULL },
	{ " 190: 0 IR-PCI-MSIX 0-edge vfio-msix[x](0000:17:00.0)", -1, NULL },
	{ " 190: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:17:00.9)", -1, NULL },
	{ " 190: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:17:00.0)x", -1, NULL },
	{ " 190: 0 IR-PCI-MSIX 0-edge vfio-msix", -1, NULL },
	{ " 190: 0 IR-PCI-MSIX 0-edge vfio-msix[0](00000000000000000000000000000:17:00.0)", -1, NULL },
	{ "190 vfio-msix[0](0000:17:00.0)", -1, NULL },
	{ ":  vfio-msix[0](0000:17:00.0)", -1, NULL },
	{ "", -1, NULL },
};

Test(irq, lines)
{
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct irq irq = { .nr = 4711 };
		bool ours = irq_parse_line(lines[i].text, &irq);
		char bdf[PCI_ADDR_STR];

		cr_expect(ours == (lines[i].nr >= 0), "%s", lines[i].text);
		/* untouched on failure */
		cr_expect(irq.nr == (ours ? lines[i].nr : 4711), "%s: %d", lines[i].text, irq.nr);
		if (ours && lines[i].bdf)
			cr_expect_str_eq(pci_addr_format(&irq.dev, bdf), lines[i].bdf);
	}
}

/* Every beginning of a line, as a file that is cut off. */
Test(irq, a_cut_line_is_none)
{
	const char *text = lines[1].text;

	for (size_t n = 0; n + 2 < strlen(text); n++) {
		AUTO_FREE char *cut = xstrndup(text, n);
		struct irq irq;

		cr_expect(!irq_parse_line(cut, &irq), "%s", cut);
	}
}

/* --- files ------------------------------------------------------------------------------------------------------ */

struct host {
	char root[64];
	struct sysfs s;
	int fail_irq, fail_errno; /* its affinity cannot be set */
	int writes;
};

static int store(void *ctx, const char *path, const char *value)
{
	struct host *h = ctx;
	int nr = -1;

	h->writes++;
	if (sscanf(path + strlen(h->root), "/proc/irq/%d/", &nr) == 1 && nr == h->fail_irq)
		return h->fail_errno;
	/* A file of the kernel has what was written last, not that over what was there. */
	return access(path, W_OK) < 0 ? -errno : write_file_atomic(path, value, strlen(value), 0600);
}

static void put(const struct host *h, const char *file, const char *text)
{
	AUTO_FREE char *path = xasprintf("%s/%s", h->root, file);

	for (char *p = path + strlen(h->root) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		cr_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
	}
	cr_assert(write_file_atomic(path, text, strlen(text), 0600) == 0, "%s", path);
}

static void host_open(struct host *h)
{
	*h = (struct host){ .root = "/tmp/gpuvm-test-XXXXXX", .fail_irq = -1 };
	cr_assert(mkdtemp(h->root));
	h->s = (struct sysfs){ .root = h->root, .write = store, .ctx = h };
}

static void host_close(struct host *h)
{
	AUTO_FREE char *cmd = xasprintf("rm -r '%s'", h->root);

	cr_assert(system(cmd) == 0);
}

static void set_affinity(const struct host *h, int nr, const char *cpus)
{
	AUTO_FREE char *file = xasprintf("proc/irq/%d/smp_affinity_list", nr), *text = xasprintf("%s\n", cpus);

	put(h, file, text);
}

/* As a server with 512 CPUs has it: lines of 5.6 kB. */
static void put_wide(const struct host *h)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	for (int c = 0; c < 512; c++)
		fprintf(f, "%s     CPU%-3d", c ? "" : "      ", c);
	fputc('\n', f);
	for (int nr = 0; nr < 1000; nr++) {
		fprintf(f, "%5d:", nr);
		for (int c = 0; c < 512; c++)
			fprintf(f, " %10u", c == nr % 512 ? 4294967295U : 0);
		if (nr >= 600 && nr < 664)
			fprintf(f, " IR-PCI-MSIX-0000:17:00.0 %4d-edge      vfio-msix[%d](0000:17:00.0)\n", nr - 600, nr - 600);
		else
			fprintf(f, " IR-PCI-MSIX-0000:9a:00.0 %4d-edge      nvme0q%d\n", nr, nr);
	}
	fclose(f);
	put(h, "proc/interrupts", text);
	free(text);
}

Test(irq, many_cpus)
{
	struct irq *v = NULL;
	struct err e = { 0 };
	struct host h;
	size_t n = 0;

	host_open(&h);
	cr_expect(irq_list(&h.s, &v, &n, &e) == -ENOENT && strstr(e.msg, "/proc/interrupts"), "%s", e.msg);
	put_wide(&h);
	cr_assert(irq_list(&h.s, &v, &n, &e) == 0, "%s", e.msg);
	cr_assert(n == 64, "%zu", n);
	for (int i = 0; i < 64; i++)
		cr_expect(v[i].nr == 600 + i && v[i].dev.bus == 0x17);
	free(v);
	host_close(&h);
}

Test(irq, steer)
{
	struct cpuset set = { 0 }, now = { 0 };
	struct err e = { 0 };
	struct host h;

	host_open(&h);
	set_affinity(&h, 7, "0-511");
	set_affinity(&h, 8, "0-511");
	set_affinity(&h, 9, "all of them");
	cr_assert(cpuset_parse("2-3,258-259", &set) == 0);
	cr_expect(irq_steer(&h.s, 7, &set, &e) == 1 && h.writes == 1, "%s", e.msg);
	cr_expect(irq_cpus(&h.s, 7, &now, &e) == 0 && cpuset_equal(&now, &set));
	/* It is there: nothing is written. */
	cr_expect(irq_steer(&h.s, 7, &set, &e) == 0 && h.writes == 1);
	/* The guest has turned it off. */
	cr_expect(irq_steer(&h.s, 6, &set, &e) == 0 && h.writes == 1);
	h.fail_irq = 8;
	h.fail_errno = -ENOENT;
	cr_expect(irq_steer(&h.s, 8, &set, &e) == 0);
	h.fail_errno = -EIO;
	cr_expect(irq_steer(&h.s, 8, &set, &e) == -EIO && strstr(e.msg, "/proc/irq/8/smp_affinity_list"), "%s", e.msg);
	cr_expect(irq_steer(&h.s, 9, &set, &e) == -EPROTO && strstr(e.msg, "all of them"), "%s", e.msg);
	host_close(&h);
}

Test(irq, balancer)
{
	struct host h;

	host_open(&h);
	cr_expect(!irq_balancer_runs(&h.s));
	put(&h, "proc/1/comm", "systemd\n");
	put(&h, "proc/812/comm", "irqbalance2\n");
	put(&h, "proc/self/comm", "irqbalance\n");
	cr_expect(!irq_balancer_runs(&h.s));
	put(&h, "proc/813/comm", "irqbalance\n");
	cr_expect(irq_balancer_runs(&h.s));
	host_close(&h);
}

/* What was decided (tests/golden/xe9680-interrupts) comes back for `gpuvm verify`, and for a launcher that takes over. */
Test(irq, plan_is_read_back, .timeout = 60)
{
	struct plan p = { 0 }, back = { 0 };
	struct vm_config vm = { 0 };
	struct problems ps = { 0 };
	struct err e = { 0 };
	struct json_object *o;

	cr_assert(golden_plan("xe9680-interrupts", NULL, &vm, &p, &ps) == 0);
	o = plan_to_json(&p);
	cr_assert(plan_from_json(o, &back, &e) == 0, "%s", e.msg);
	cr_assert(back.n_devices == p.n_devices && p.n_devices == 2);
	for (size_t i = 0; i < p.n_devices; i++)
		cr_expect(!cpuset_empty(&p.devices[i].irq_cpus) && cpuset_equal(&back.devices[i].irq_cpus, &p.devices[i].irq_cpus));
	json_object_put(o);
	plan_clear(&p);
	plan_clear(&back);
	config_clear(&vm);
	problems_clear(&ps);
}

/* What a launcher does, again and again: only what is not in its place is written, and one that is not to be moved stops nobody. */
Test(irq, steer_all)
{
	struct plan_device devs[] = { { .id = (char[]){ "gpu0" }, .addr = { .bus = 0x17 } }, { .id = (char[]){ "nic0" }, .addr = { .bus = 0x18 } } };
	static const char *const want[] = { "0-511", "2-3", "2-3", "0-511" };
	struct launch l = { .plan = { .vm = (char[]){ "demo" }, .devices = devs, .n_devices = 2 } };
	struct host h;

	host_open(&h);
	l.sys = h.s;
	l.sys.ctx = &h;
	put(&h, "proc/interrupts", " 30: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:17:00.0)\n 31: 0 IR-PCI-MSIX 0-edge vfio-msix[1](0000:17:00.0)\n"
				   " 32: 0 IR-PCI-MSIX 0-edge vfio-msix[2](0000:17:00.0)\n 33: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:18:00.0)\n");
	for (int i = 0; i < 4; i++)
		set_affinity(&h, 30 + i, "0-511");
	launch_steer(&l); /* interrupts = keep */
	cr_assert(h.writes == 0);
	cr_assert(cpuset_parse("2-3", &devs[0].irq_cpus) == 0);
	h.fail_irq = 30;
	h.fail_errno = -EIO;
	launch_steer(&l);
	cr_expect(h.writes == 3 && l.told_irq && !l.told_balancer, "%d", h.writes);
	for (int i = 0; i < 4; i++) {
		AUTO_FREE char *now = sysfs_read(&h.s, "/proc/irq/%d/smp_affinity_list", 30 + i);

		cr_expect_str_eq(now, want[i]);
	}
	put(&h, "proc/813/comm", "irqbalance\n");
	launch_steer(&l);
	cr_expect(h.writes == 4 && l.told_balancer, "%d", h.writes);
	host_close(&h);
}

Test(irq, verify)
{
	struct plan_device devs[] = { { .id = (char[]){ "gpu0" }, .addr = { .bus = 0x17 } }, { .id = (char[]){ "nic0" }, .addr = { .bus = 0x18 } } };
	struct plan p = { .devices = devs, .n_devices = 2 };
	struct verify_report rep = { 0 };
	struct err e = { 0 };
	struct host h;

	host_open(&h);
	/* Not asked for: not even read. */
	cr_assert(verify_devices(&p, &h.s, &rep, &e) == 0 && rep.n == 2, "%s", e.msg);
	verify_clear(&rep);
	cr_assert(cpuset_parse("4-7", &devs[0].irq_cpus) == 0);
	cr_assert(cpuset_parse("8", &devs[1].irq_cpus) == 0);
	cr_assert(verify_devices(&p, &h.s, &rep, &e) == -ENOENT);
	verify_clear(&rep);
	put(&h, "proc/interrupts", " 30: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:17:00.0)\n 31: 0 IR-PCI-MSIX 0-edge vfio-msix[1](0000:17:00.0)\n"
				   " 32: 0 IR-PCI-MSIX 0-edge vfio-msix[0](0000:99:00.0)\n");
	set_affinity(&h, 30, "4");
	set_affinity(&h, 31, "4-7");
	set_affinity(&h, 32, "0");
	cr_assert(verify_devices(&p, &h.s, &rep, &e) == 0 && rep.n == 3, "%s, %zu rows", e.msg, rep.n);
	cr_expect(rep.rows[2].ok);
	cr_expect_str_eq(rep.rows[2].what, "interrupts of gpu0");
	cr_expect_str_eq(rep.rows[2].planned, "CPUs 4-7");
	cr_expect_str_eq(rep.rows[2].actual, "all 2 there");
	verify_clear(&rep);
	set_affinity(&h, 31, "0-7");
	cr_assert(verify_devices(&p, &h.s, &rep, &e) == 0 && rep.n == 3);
	cr_expect(!rep.rows[2].ok);
	cr_expect_str_eq(rep.rows[2].actual, "1 there, 1 not: interrupt 31 on CPUs 0-7");
	verify_clear(&rep);
	host_close(&h);
}
