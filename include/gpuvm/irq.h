/* SPDX-License-Identifier: GPL-2.0-or-later */
/* irq.h - the host's interrupts of passed-through devices, and the CPUs they go to.
 *
 * vfio-pci asks for them when the guest's driver turns its own on, and names them after the device (drivers/vfio/pci/vfio_pci_intrs.c):
 * "vfio-msix[3](0000:17:00.0)", "vfio-msi[0](...)", "vfio-intx(...)" at the end of a line of /proc/interrupts.  They are steered by
 * /proc/irq/N/smp_affinity_list (the kernel's core-api/irq/irq-affinity.rst). */
#ifndef GPUVM_IRQ_H
#define GPUVM_IRQ_H

#include "gpuvm/cpuset.h"
#include "gpuvm/err.h"
#include "gpuvm/parse.h"

struct sysfs;

struct irq {
	int nr;
	struct pci_addr dev;
};

/* One line of /proc/interrupts. False: it is not that of a passed-through device, or one that the device shares with a driver of the
 * host, which has its own idea of where it should go. */
bool irq_parse_line(const char *line, struct irq *ret);

/* Those of all passed-through devices, in the kernel's order; owned array. */
int irq_list(const struct sysfs *s, struct irq **ret, size_t *ret_n, struct err *e);

/* Where it may go. -ENOENT: it is gone, as the guest may turn it off at any time. */
int irq_cpus(const struct sysfs *s, int nr, struct cpuset *ret, struct err *e);

/* Let it go to @cpus only: 1; 0 if it does already, or is gone. -EIO: the kernel does not let it be moved. */
int irq_steer(const struct sysfs *s, int nr, const struct cpuset *cpus, struct err *e);

/* Is there an irqbalance, which moves them as it sees fit? */
bool irq_balancer_runs(const struct sysfs *s);

#endif
