/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random definitions for the machines of genhost.c, and VMs that run on them. */
#include <string.h>

#include "tests/fake/fakeqemu.h"
#include "tests/fake/genhost.h"

#define MIB (UINT64_C(1) << 20)

/* --- sections ---------------------------------------------------------------------------------------- */

/* Explicit devices: any function, often an endpoint, seldom one that is not there. Each once. */
static void write_devices(struct rng *r, const struct topology *t, FILE *f)
{
	int n = rng_percent(r, 70) ? 0 : rng_range(r, 1, 3), used[3];

	for (int i = 0; i < n; i++) {
		int func = rng_below(r, (int)t->n_funcs);
		struct pci_addr a;
		char bdf[PCI_ADDR_STR];
		bool again = false;

		for (int tries = 0; tries < 20 && (t->funcs[func].role == ROLE_BRIDGE || t->funcs[func].host_use) &&
				    !rng_percent(r, 5);
		     tries++)
			func = rng_below(r, (int)t->n_funcs);
		used[i] = func;
		for (int k = 0; k < i; k++)
			again = again || used[k] == func;
		if (again)
			continue;
		a = t->funcs[func].addr;
		if (rng_percent(r, 3))
			a.domain = 0xdead0000 + (uint32_t)i;
		fprintf(f, "[device d%d]\npci = %s\n", i, pci_addr_format(&a, bdf));
		if (rng_percent(r, 30))
			fputs("force = on\n", f);
		if (rng_percent(r, 10))
			fprintf(f, "guest-node = %d\n", rng_below(r, 3));
		if (rng_percent(r, 10))
			fputs("rombar = off\n", f);
	}
}

static void write_count(struct rng *r, FILE *f, const char *key, int gpus)
{
	switch (rng_below(r, 5)) {
	case 0:
		fprintf(f, "%s = none\n", key);
		break;
	case 1:
		fprintf(f, "%s = %d\n", key, rng_range(r, 1, gpus + 2));
		break;
	case 2:
		if (gpus)
			fprintf(f, "%s = per-gpu\n", key);
		break;
	}
}

static void write_place(struct rng *r, const struct topology *t, FILE *f)
{
	int total = topology_n_gpus(t),
	    gpus = rng_percent(r, 8) ? 0 : rng_range(r, 1, rng_percent(r, 50) ? 4 : total + 1);

	fprintf(f, "[place]\ngpus = %d\n", gpus);
	if (gpus && rng_percent(r, 20))
		fprintf(f, "gpu-index = %d\n", rng_below(r, total - gpus > 0 ? total - gpus + 2 : 2));
	if (rng_percent(r, 15))
		fprintf(f, "socket = %d\n", t->nodes[rng_below(r, (int)t->n_nodes)].socket);
	write_count(r, f, "nics", gpus);
	write_count(r, f, "nvme", gpus);
}

/* A list of CPUs for [cpu] pin, in any order; those of whole cores side by side if @pairs. */
static int write_pins(struct rng *r, const struct topology *t, FILE *f)
{
	int n = rng_range(r, 1, t->n_cpus > 12 ? 12 : (int)t->n_cpus), count = 0;
	struct cpuset used = { 0 };
	bool pairs = rng_percent(r, 50);

	for (int i = 0; i < n; i++) {
		const struct host_cpu *c = &t->cpus[rng_below(r, (int)t->n_cpus)];

		for (size_t k = 0; k < t->n_cpus; k++) {
			const struct host_cpu *o = &t->cpus[k];

			if (cpuset_has(&used, o->cpu) || (o != c && (!pairs || o->core != c->core)))
				continue;
			cpuset_add(&used, o->cpu);
			fprintf(f, "%s%d", count++ ? "," : "pin = ", o->cpu);
		}
	}
	if (rng_percent(r, 3))
		fprintf(f, ",%d", CPUSET_MAX - 1 - count++);
	fputc('\n', f);
	return count;
}

static void write_cpu(struct rng *r, const struct topology *t, FILE *f, bool modest)
{
	int threads = rng_percent(r, 80) ? 0 : rng_range(r, 1, 2), vcpus = 0, pins = 0;

	fputs("[cpu]\n", f);
	if (!modest && rng_percent(r, 12)) {
		pins = write_pins(r, t, f);
		if (threads == 2 && pins % 2)
			threads = 1;
	} else if (rng_percent(r, modest ? 70 : 45)) {
		vcpus = rng_range(r, 1, modest || rng_percent(r, 70) ? 8 : (int)t->n_cpus + 2);
		vcpus += threads == 2 && vcpus % 2;
		fprintf(f, "vcpus = %d\n", vcpus);
	}
	if (threads)
		fprintf(f, "threads = %d\n", threads);
	if (!pins && rng_percent(r, 5))
		fputs("pin = off\n", f);
	if (rng_percent(r, 10))
		fprintf(f, "reserve = %d\n", rng_below(r, 6));
	if (rng_percent(r, 10))
		fprintf(f, "emulator = %d\n", t->cpus[rng_below(r, (int)t->n_cpus)].cpu);
}

static void write_memory(struct rng *r, FILE *f, bool modest)
{
	static const char *const pages[] = { "auto", "auto", "1G", "2M", "off" };

	fputs("[memory]\n", f);
	if (rng_percent(r, 25))
		fprintf(f, "hugepages = %s\n", pages[rng_below(r, (int)ARRAY_SIZE(pages))]);
	if (rng_percent(r, modest ? 80 : 45))
		fprintf(f, "size = %dM\n",
			rng_percent(r, 80) ? 1024 * rng_range(r, 1, modest ? 8 : 128) : 2 * rng_range(r, 8, 100000));
	if (rng_percent(r, 8))
		fprintf(f, "reserve = %dG\n", rng_below(r, 16));
	if (rng_percent(r, 10))
		fputs("prealloc = off\n", f);
}

/* On the interfaces of genhost.c: some are there, some can be used. */
static void write_net(struct rng *r, FILE *f, int i)
{
	static const char *const vhost[] = { "auto", "auto", "on", "off" };
	static const char *const own[] = { "tap0", "tap1", "tap2", "tap9", "eth0" };

	fprintf(f, "[net n%d]\n", i);
	if (rng_percent(r, 40)) {
		fputs("type = user\n", f);
		return;
	}
	if (rng_percent(r, 50))
		fputs("type = tap\n", f);
	else
		fprintf(f, "type = bridge\nbridge = %s\n", rng_percent(r, 90) ? "br0" : "eth0");
	fprintf(f, "vhost = %s\n", vhost[rng_below(r, (int)ARRAY_SIZE(vhost))]);
	if (rng_percent(r, 30))
		fprintf(f, "queues = %d\n", rng_range(r, 1, 256));
	/* One section only: each name once. */
	if (i == 1 && rng_percent(r, 40))
		fprintf(f, "ifname = %s\n", own[rng_below(r, (int)ARRAY_SIZE(own))]);
}

static void write_disk(struct rng *r, FILE *f, int i)
{
	static const char *const aio[] = { "auto", "threads", "io_uring" };

	fprintf(f, "[disk k%d]\nfile = /var/lib/disk,%d.qcow2\n", i, i);
	fprintf(f, "bus = %s\niothread = %s\n", rng_percent(r, 60) ? "blk" : "scsi", rng_percent(r, 85) ? "on" : "off");
	if (rng_percent(r, 30))
		fprintf(f, "queues = %d\n", rng_range(r, 1, rng_percent(r, 90) ? 16 : 1022));
	if (rng_percent(r, 20))
		fprintf(f, "aio = %s\n", aio[rng_below(r, (int)ARRAY_SIZE(aio))]);
	if (rng_percent(r, 20))
		fprintf(f, "bootindex = %d\n", 3 - i);
}

static void write_guest(struct rng *r, FILE *f)
{
	fputs("[guest]\n", f);
	if (rng_percent(r, 20))
		fprintf(f, "vsock = %s\n", rng_percent(r, 50) ? "auto" : "3");
	if (rng_percent(r, 20))
		fputs("tpm = on\n", f);
	if (rng_percent(r, 10))
		fputs("agent = off\nrng = off\npanic = off\n", f);
	if (rng_percent(r, 20))
		fputs("[cloud-init]\n", f);
}

static void write_rest(struct rng *r, FILE *f)
{
	static const char *const topologies[] = { "mirror", "mirror", "root-port", "flat" };

	fprintf(f, "[pcie]\ntopology = %s\n", topologies[rng_below(r, (int)ARRAY_SIZE(topologies))]);
	if (rng_percent(r, 8))
		fprintf(f, "mmio64 = %dG\n", 1 << rng_range(r, 5, 14));
	for (int i = rng_below(r, 4); i > 0; i--)
		write_disk(r, f, i);
	for (int i = rng_below(r, 3); i > 0; i--)
		write_net(r, f, i);
	write_guest(r, f);
}

char *genhost_definition(struct rng *r, const struct topology *t, const char *name, bool modest)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	fprintf(f, "[vm]\nname = %s\n", name);
	if (rng_percent(r, 10))
		fprintf(f, "accel = %s\n", rng_percent(r, 50) ? "kvm" : "tcg");
	if (rng_percent(r, 10))
		fprintf(f, "firmware = %s\n", rng_percent(r, 50) ? "ovmf" : "seabios");
	if (modest)
		fprintf(f, "[place]\ngpus = %d\n", rng_range(r, 1, 3));
	else if (rng_percent(r, 92))
		write_place(r, t, f);
	if (!modest)
		write_devices(r, t, f);
	write_cpu(r, t, f, modest);
	write_memory(r, f, modest);
	write_rest(r, f);
	fclose(f);
	return text;
}

struct qemu_info genhost_qemu(struct rng *r)
{
	const char *const *versions = fake_qemu_versions();
	struct qemu_info q;
	int n = 0;

	while (versions[n])
		n++;
	q = fake_qemu(versions[rng_below(r, n)]);

	if (rng_percent(r, 80)) {
		q.ovmf_code = (char *)"/usr/share/OVMF/OVMF_CODE_4M.fd";
		q.ovmf_vars = (char *)"/usr/share/OVMF/OVMF_VARS_4M.fd";
	}
	return q;
}

/* --- VMs that run --------------------------------------------------------------------------------------- */

/* QEMU has the memory: the host counts it as used. */
static void take_pages(struct topology *t, const struct plan_node *n)
{
	struct host_node *h = &t->nodes[topology_find_node(t, n->host_node)];

	for (size_t i = 0; i < h->n_pools; i++)
		if (h->pools[i].page_bytes == n->page_bytes)
			h->pools[i].free -= n->memory_bytes / n->page_bytes;
}

static void use_plan(struct rng *r, struct topology *t, const struct plan *p, int pid, struct host_use *u)
{
	bool allocated = rng_percent(r, 60);
	size_t first = u->n_memory;

	host_use_add(u, p, pid);
	for (size_t i = 0; i < p->n_nodes && allocated; i++) {
		u->memory[first + i].allocated = true;
		take_pages(t, &p->nodes[i]);
	}
}

void genhost_run_vms(struct rng *r, struct topology *t, int n, struct host_use *use)
{
	for (int i = 0; i < n; i++) {
		AUTO_FREE char *name = xasprintf("run%d", i), *text = genhost_definition(r, t, name, true);
		struct qemu_info q = genhost_qemu(r);
		struct vm_config vm = { 0 };
		struct problems ps = { 0 };
		struct plan p = { 0 };
		struct plan_request req = { .vm = &vm,
					    .host = t,
					    .use = use,
					    .qemu = &q,
					    .rundir = "/run/gpuvm/x",
					    .statedir = "/var/lib/gpuvm" };

		if (config_parse(name, text, strlen(text), NULL, &vm, &ps) == 0) {
			if (plan_make(&req, &p, &ps) == 0)
				use_plan(r, t, &p, 4000 + i, use);
			plan_clear(&p);
			config_clear(&vm);
		}
		problems_clear(&ps);
	}
}
