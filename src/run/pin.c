/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pin.c - threads of QEMU, and interrupts of devices, to the CPUs that the plan has for them.
 *
 * How it works: launch_pin() asks QEMU once for the threads of vCPUs and I/O threads, which it keeps as long as it lives; all others are
 * for the emulator CPUs.  Later QEMU and the kernel make more: workers of the thread pool and of io_uring, which inherit the CPUs of the
 * thread that needed them, a vCPU for one, and vhost's.  launch_settle() looks for those without QEMU, and moves what is not in its place;
 * the supervisor calls it some times after each thing that may have made some (life_look_pause_ms()), and at SIGHUP. */
#include <errno.h>
#include <string.h>

#include "gpuvm/affinity.h"
#include "gpuvm/irq.h"
#include "gpuvm/launch.h"
#include "gpuvm/log.h"

struct pins {
	struct pinned {
		int tid;
		struct cpuset cpus;
	} *v; /* threads that have CPUs of their own */
	size_t n;
};

static const struct cpuset *iothread_cpus(const struct plan *p, const char *id)
{
	for (size_t i = 0; i < p->n_iothreads; i++)
		if (strcmp(p->iothreads[i].id, id) == 0)
			return &p->iothreads[i].host_cpus;
	return &p->emulator;
}

/* CPUs of a vCPU: its own one, or all of its node when it is not pinned. */
static struct cpuset vcpu_cpus(const struct plan *p, const struct plan_vcpu *v)
{
	struct cpuset set = { 0 };

	if (v->host_cpu >= 0)
		cpuset_add(&set, v->host_cpu);
	else
		set = p->nodes[v->guest_node].prealloc_cpus;
	return set;
}

static void add_pin(struct pins *pins, int tid, const struct cpuset *cpus)
{
	struct pinned *p = PUSH_ZEROED(pins->v, pins->n);

	p->tid = tid;
	p->cpus = *cpus;
}

static int ask_vcpus(struct launch *l, struct pins *pins, struct err *e)
{
	AUTO_FREE struct qmp_vcpu *v = NULL;
	size_t n = 0;
	int r = qmp_query_vcpus(&l->qmp, &v, &n, e);

	if (r < 0)
		return r;
	if (n != l->plan.n_vcpus)
		return err_set(e, -EPROTO, "QEMU has %zu vCPUs, planned are %zu", n, l->plan.n_vcpus);
	for (size_t i = 0; i < n; i++) {
		struct cpuset set = vcpu_cpus(&l->plan, &l->plan.vcpus[i]);

		/* By index, not by position. */
		if (v[i].index != l->plan.vcpus[i].vcpu)
			return err_set(e, -EPROTO, "QEMU has no vCPU %d", l->plan.vcpus[i].vcpu);
		add_pin(pins, v[i].tid, &set);
	}
	return 0;
}

static int ask_iothreads(struct launch *l, struct pins *pins, struct err *e)
{
	AUTO_FREE struct qmp_iothread *io = NULL;
	size_t n = 0;
	/* Those of nobody's plan are for the emulator CPUs, as all others. */
	int r = l->plan.n_iothreads ? qmp_query_iothreads(&l->qmp, &io, &n, e) : 0;

	for (size_t i = 0; i < n && r == 0; i++)
		add_pin(pins, io[i].tid, iothread_cpus(&l->plan, io[i].id));
	return r;
}

pid_t *launch_vcpu_threads(const struct launch *l)
{
	pid_t *tids = l->pins ? xcalloc(l->plan.n_vcpus + 1, sizeof(*tids)) : NULL;

	/* Those of the vCPUs come first, in the plan's order. */
	for (size_t i = 0; tids && i < l->plan.n_vcpus; i++)
		tids[i] = l->pins->v[i].tid;
	return tids;
}

void launch_forget_pins(struct launch *l)
{
	if (l->pins)
		free(l->pins->v);
	free(l->pins);
	l->pins = NULL;
}

/* --- threads -------------------------------------------------------------------------------------------------- */

/* What belongs to QEMU: its own threads first, @ret_own of them. */
static int list_threads(const struct launch *l, struct thread_info **ret, size_t *ret_n, size_t *ret_own, struct err *e)
{
	int r = affinity_threads(l->child.pid, ret, ret_n, e);

	*ret_own = *ret_n;
	if (r == 0 && plan_has_vhost(&l->plan))
		r = affinity_add_vhost(l->child.pid, ret, ret_n, e);
	return r;
}

static const struct pinned *find_pin(const struct pins *pins, int tid)
{
	for (size_t i = 0; i < pins->n; i++)
		if (pins->v[i].tid == tid)
			return &pins->v[i];
	return NULL;
}

/* Those of the kernel are root's to move, and until Linux 6.3 those of io_uring nobody's (PF_NO_SETAFFINITY). */
static bool may_stay(const struct thread_info *t, bool own, int error)
{
	return (error == -EPERM && !own) || (error == -EINVAL && strncmp(t->name, "iou-", 4) == 0);
}

/* 1: moved; 0: it is where it should be, or has ended, or may stay. */
static int place_thread(struct launch *l, const struct thread_info *t, bool own, struct err *e)
{
	const struct pinned *pin = find_pin(l->pins, t->tid);
	const struct cpuset *want = pin ? &pin->cpus : &l->plan.emulator;
	int r;

	if (cpuset_equal(&t->cpus, want))
		return 0;
	r = affinity_set(t->tid, want, e);
	/* Worker threads come and go. */
	if (r == -ESRCH && !pin)
		return 0;
	if (r < 0 && may_stay(t, own, r)) {
		if (!l->told_thread)
			log_warning("%s: the kernel thread '%s' may run on the vCPUs' CPUs: the kernel does not let it be moved by %s", l->plan.vm, t->name,
				    r == -EPERM ? "anybody but root" : "anybody");
		l->told_thread = true;
		return 0;
	}
	return r < 0 ? err_wrap(e, "move thread '%s' to its CPUs", t->name) : 1;
}

static void tell_moved(const struct launch *l, const struct thread_info *t)
{
	AUTO_FREE char *from = cpuset_format(&t->cpus);

	log_info("%s: thread '%s' (%d) moved from CPUs %s to where the plan says", l->plan.vm, t->name, (int)t->tid, from);
}

/* All of them, whatever becomes of one; the first error counts. */
static int place_threads(struct launch *l, bool late, struct err *e)
{
	AUTO_FREE struct thread_info *t = NULL;
	size_t n = 0, own, pinned = 0;
	int r = list_threads(l, &t, &n, &own, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		struct err why = { 0 };
		int one = place_thread(l, &t[i], i < own, &why);

		pinned += find_pin(l->pins, t[i].tid) != NULL;
		if (one == 1 && late)
			tell_moved(l, &t[i]);
		if (one < 0 && r == 0) {
			*e = why;
			r = one;
		}
	}
	return r == 0 && pinned != l->pins->n ? err_set(e, -ESRCH, "%zu vCPUs and I/O threads of QEMU have ended", l->pins->n - pinned) : r;
}

/* A wake-up of the supervisor is not to take a vCPU's turn. It is as well where it was, if it may not run there. */
void launch_stand_aside(struct launch *l)
{
	struct cpuset most;
	struct err e = { 0 };

	if (l->aside || l->plan.foreign_host || affinity_get(0, &l->cpus_before, &e) < 0)
		return;
	l->aside = true;
	l->unlimited = affinity_unlimit(0) && affinity_get(0, &most, &e) == 0 && cpuset_equal(&most, &l->cpus_before);
	/* It may have got some of them. */
	if (affinity_set(0, &l->plan.emulator, &e) < 0)
		log_info("%s: the supervisor is not where QEMU's own threads are: %s", l->plan.vm, e.msg);
}

/* One of these CPUs may have been taken offline since: no reason to keep anything. */
int launch_unpin(struct launch *l, int exit_code, struct err *e)
{
	(void)exit_code;
	/* CPUs that its cpuset has been given since are for the next start, too. */
	if (l->aside && !(l->unlimited && affinity_unlimit(0)) && affinity_set(0, &l->cpus_before, e) < 0)
		log_info("%s: the supervisor is not on all CPUs that it had: %s", l->plan.vm, e->msg);
	l->aside = false;
	return 0;
}

int launch_pin(struct launch *l, struct err *e)
{
	int r;

	if (l->plan.foreign_host)
		return 0;
	launch_forget_pins(l);
	l->pins = xcalloc(1, sizeof(*l->pins));
	r = ask_vcpus(l, l->pins, e);
	if (r == 0)
		r = ask_iothreads(l, l->pins, e);
	if (r == 0)
		return place_threads(l, false, e);
	launch_forget_pins(l);
	return r;
}

/* --- interrupts --------------------------------------------------------------------------------------------------- */

static const struct plan_device *device_of(const struct plan *p, const struct irq *irq)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (pci_addr_cmp(&p->devices[i].addr, &irq->dev) == 0)
			return cpuset_empty(&p->devices[i].irq_cpus) ? NULL : &p->devices[i];
	return NULL;
}

static void steer_one(struct launch *l, const struct irq *irq, const struct plan_device *d)
{
	AUTO_FREE char *cpus = cpuset_format(&d->irq_cpus);
	struct err e = { 0 };
	int r = irq_steer(&l->sys, irq->nr, &d->irq_cpus, &e);

	if (r == 1)
		log_info("%s: interrupt %d of %s goes to CPUs %s now", l->plan.vm, irq->nr, d->id, cpus);
	/* As with any other that comes: those that are managed by the kernel (EIO) are of one kind. */
	if (r < 0 && !l->told_irq)
		log_warning("%s: interrupts of %s stay where the kernel puts them: %s", l->plan.vm, d->id, e.msg);
	l->told_irq = l->told_irq || r < 0;
}

static void tell_balancer(struct launch *l)
{
	if (l->told_balancer || !irq_balancer_runs(&l->sys))
		return;
	l->told_balancer = true;
	log_warning("%s: irqbalance runs and may move the interrupts of passed-through devices back: give it a --policyscript that prints ban=true for "
		    "the devices, or stop it", l->plan.vm);
}

void launch_steer(struct launch *l)
{
	AUTO_FREE struct irq *v = NULL;
	struct err e = { 0 };
	bool wanted = false, any = false;
	size_t n = 0;

	for (size_t i = 0; i < l->plan.n_devices; i++)
		wanted = wanted || !cpuset_empty(&l->plan.devices[i].irq_cpus);
	if (!wanted)
		return;
	if (irq_list(&l->sys, &v, &n, &e) < 0)
		log_warning("%s: interrupts: %s", l->plan.vm, e.msg);
	for (size_t i = 0; i < n; i++) {
		const struct plan_device *d = device_of(&l->plan, &v[i]);

		if (d)
			steer_one(l, &v[i], d);
		any = any || d;
	}
	if (any)
		tell_balancer(l);
}

int launch_settle(struct launch *l, struct err *e)
{
	int r;

	if (l->plan.foreign_host)
		return 0;
	r = l->pins ? place_threads(l, true, e) : launch_pin(l, e);
	launch_steer(l);
	return r;
}
