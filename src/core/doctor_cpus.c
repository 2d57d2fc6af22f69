/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_cpus.c - what keeps a vCPU from running when it should, and the shape of the CPUs. */
#include <inttypes.h>
#include <string.h>

#include "doctor_priv.h"

/* Between C1E (2 to 10 us on servers) and C6 (85 us and more). */
#define LATENCY_MAX_US 50

static void check_idle(struct doctor *d)
{
	const struct doctor_facts *f = d->f;

	if (!f->idle_driver) {
		doctor_not_known(d, "c-states", "/sys/devices/system/cpu/cpuidle could not be read");
	} else if (!strcmp(f->idle_driver, "none") || f->idle_latency_us < 0) {
		doctor_add(d, "c-states", DOCTOR_OK, "host",
			   "the kernel sends CPUs into no states to choose from (cpuidle driver: %s)", f->idle_driver);
	} else if (f->idle_latency_us < LATENCY_MAX_US) {
		doctor_add(d, "c-states", DOCTOR_OK, "host",
			   "the deepest state in use is %s, %" PRId64 " us to wake from (%s)", f->idle_state, f->idle_latency_us,
			   f->idle_driver);
	} else if (f->latency_limit_us >= 0 && f->latency_limit_us < LATENCY_MAX_US) {
		doctor_add(d, "c-states", DOCTOR_OK, "host",
			   "a process holds /dev/cpu_dma_latency at %" PRId64 " us: no deep state is entered", f->latency_limit_us);
	} else {
		doctor_add(d, "c-states", DOCTOR_WARNING, "host",
			   "the deepest state in use is %s, %" PRId64 " us to wake from (%s)", f->idle_state, f->idle_latency_us,
			   f->idle_driver);
		doctor_fix(d, "cpupower idle-set -D %d; to stay: %s on the kernel command line, or C-states off in the firmware", LATENCY_MAX_US,
			   !strcmp(f->idle_driver, "intel_idle") ? "intel_idle.max_cstate=1" : "processor.max_cstate=1");
	}
}

static void check_shape(struct doctor *d)
{
	int nodes = (int)d->host->n_nodes, sockets = d->host->n_sockets;

	if (!d->f->smt)
		doctor_not_known(d, "smt", "/sys/devices/system/cpu/smt/control could not be read");
	else if (!strcmp(d->f->smt, "on"))
		doctor_add(d, "smt", DOCTOR_OK, "host",
			   "on: guests see pairs of threads; off in the firmware, the map of cores is simpler and may be slower");
	else
		doctor_add(d, "smt", DOCTOR_OK, "host", "%s: each CPU is a core", d->f->smt);
	if (sockets < 1 || nodes < 1)
		doctor_not_known(d, "nodes-per-socket", "the machine does not say how many sockets it has");
	else if (nodes > sockets)
		doctor_add(d, "nodes-per-socket", DOCTOR_OK, "host",
			   "%d nodes on %d sockets (NPS or SNC): a VM with the GPUs of a socket gets several guest nodes", nodes, sockets);
	else
		doctor_add(d, "nodes-per-socket", DOCTOR_OK, "host",
			   "%d node%s on %d socket%s", nodes, nodes == 1 ? "" : "s", sockets, sockets == 1 ? "" : "s");
}

static void check_governor(struct doctor *d)
{
	if (!d->f->governors) {
		doctor_not_known(d, "governor",
			   "/sys/devices/system/cpu/cpufreq has none: firmware or a hypervisor sets the clock, or it could not be read");
	} else if (!strcmp(d->f->governors, "performance")) {
		doctor_add(d, "governor", DOCTOR_OK, "host", "performance, on all CPUs");
	} else {
		doctor_add(d, "governor", DOCTOR_WARNING, "host", "%s", d->f->governors);
		doctor_fix(d, "cpupower frequency-set -g performance; or the firmware's profile for low latency");
	}
}

/* Each node needs CPUs for the host and for QEMU's own threads: the first cores, as the planner chooses. */
static void check_isolated(struct doctor *d)
{
	bool any = false, full = false;

	if (d->f->isolated_known != 1) {
		doctor_not_known(d, "isolated-cpus", "/sys/devices/system/cpu/isolated could not be read");
		return;
	}
	for (size_t n = 0; n < d->host->n_nodes; n++) {
		int cpus = 0, isolated = 0;
		char subject[24];

		for (size_t i = 0; i < d->host->n_cpus; i++) {
			if (d->host->cpus[i].node != (int)n)
				continue;
			cpus++;
			isolated += d->host->cpus[i].isolated;
		}
		any |= isolated > 0;
		if (!isolated || isolated < cpus)
			continue;
		full = true;
		snprintf(subject, sizeof(subject), "node %d", d->host->nodes[n].id);
		doctor_add(d, "isolated-cpus", DOCTOR_WARNING, subject, "all its %d CPUs are isolated", cpus);
		doctor_fix(d, "leave the first core of each node out of isolcpus (and nohz_full, rcu_nocbs) on the kernel command line");
	}
	if (!full)
		doctor_add(d, "isolated-cpus", DOCTOR_OK,
			   "host", any ? "some CPUs are isolated, and each node has others for the host" : "no CPU is isolated");
}

static void check_irqbalance(struct doctor *d)
{
	if (d->f->irqbalance < 0) {
		doctor_not_known(d, "irqbalance", "the processes of this machine cannot be seen");
	} else if (d->f->irqbalance) {
		doctor_add(d, "irqbalance", DOCTOR_WARNING, "host", "it runs");
		doctor_fix(d,
			   "systemctl disable --now irqbalance; or IRQBALANCE_BANNED_CPULIST with the CPUs of vCPUs (`gpuvm plan` shows them) in its configuration");
	} else {
		doctor_add(d, "irqbalance", DOCTOR_OK, "host", "it does not run");
	}
}

void doctor_check_cpus(struct doctor *d)
{
	check_idle(d);
	check_shape(d);
	check_governor(d);
	check_isolated(d);
	check_irqbalance(d);
}
