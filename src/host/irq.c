/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "gpuvm/irq.h"
#include "gpuvm/sysfs.h"

/* Line by line: with hundreds of CPUs and thousands of interrupts the file has tens of megabytes. */
int irq_list(const struct sysfs *s, struct irq **ret, size_t *ret_n, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/proc/interrupts", s->root), *line = NULL;
	AUTO_FREE struct irq *v = NULL;
	FILE *f = fopen(path, "re");
	size_t n = 0, size = 0;
	struct irq irq;
	int r;

	if (!f)
		return err_sys(e, -errno, "read '%s'", path);
	while (errno = 0, getline(&line, &size, f) >= 0)
		if (irq_parse_line(line, &irq))
			*PUSH_ZEROED(v, n) = irq;
	r = ferror(f) ? -(errno ? errno : EIO) : 0;
	fclose(f);
	if (r < 0)
		return err_sys(e, r, "read '%s'", path);
	*ret = STEAL_PTR(v);
	*ret_n = n;
	return 0;
}

int irq_cpus(const struct sysfs *s, int nr, struct cpuset *ret, struct err *e)
{
	AUTO_FREE char *text = sysfs_read(s, "/proc/irq/%d/smp_affinity_list", nr);

	if (!text)
		return err_set(e, -ENOENT, "interrupt %d is gone", nr);
	if (cpuset_parse(text, ret) < 0)
		return err_set(e, -EPROTO, "'/proc/irq/%d/smp_affinity_list' has '%.80s', which is no list of CPUs", nr, text);
	return 0;
}

int irq_steer(const struct sysfs *s, int nr, const struct cpuset *cpus, struct err *e)
{
	AUTO_FREE char *list = cpuset_format(cpus);
	struct cpuset now = { 0 };
	int r = irq_cpus(s, nr, &now, e);

	if (r == -ENOENT || (r == 0 && cpuset_equal(&now, cpus)))
		return 0;
	if (r == 0)
		r = sysfs_store(s, e, list, "/proc/irq/%d/smp_affinity_list", nr);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

bool irq_balancer_runs(const struct sysfs *s)
{
	struct strv names = { 0 };
	bool runs = false;

	if (sysfs_list(s, &names, "/proc") < 0)
		return false;
	for (size_t i = 0; i < names.n && !runs; i++) {
		AUTO_FREE char *comm = names.v[i][strspn(names.v[i], "0123456789")] ? NULL : sysfs_read(s, "/proc/%s/comm", names.v[i]);

		runs = comm && strcmp(comm, "irqbalance") == 0;
	}
	strv_clear(&names);
	return runs;
}
