/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_facts.c - what doctor wants to know of a host beside its topology. Nothing is opened for writing; what is not there, or not for us,
 * stays unknown. */
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "gpuvm/doctor.h"
#include "gpuvm/sysfs.h"

#define TEXT_MAX (4UL << 20) /* /proc/interrupts of 512 CPUs with a thousand lines */

struct reader {
	struct sysfs s;
	struct doctor_facts *f;
};

/* A whole file below the root, owned; NULL. */
static char *read_large(const struct reader *r, const char *path)
{
	AUTO_FREE char *full = xasprintf("%s%s", r->s.root, path);
	char *text = NULL;

	return read_text_file(full, TEXT_MAX, &text) < 0 ? NULL : text;
}

static int64_t read_number(const struct reader *r, const char *path)
{
	AUTO_FREE char *text = sysfs_read(&r->s, "%s", path);
	uint64_t v;

	return text && parse_u64(text, 0, INT64_MAX, &v) == 0 ? (int64_t)v : -1;
}

/* A module's parameter: "Y" and "N", or "1" and "0". */
static int read_switch(const struct reader *r, const char *path)
{
	AUTO_FREE char *text = sysfs_read(&r->s, "%s", path);

	if (!text || !*text)
		return -1;
	return *text == 'Y' || *text == 'y' || *text == '1' ? 1 : *text == 'N' || *text == 'n' || *text == '0' ? 0 : -1;
}

/* The chosen word of "always [madvise] never", owned; NULL. */
static char *read_choice(const struct reader *r, const char *path)
{
	AUTO_FREE char *text = sysfs_read(&r->s, "%s", path);
	const char *open = text ? strchr(text, '[') : NULL;

	return open ? xstrndup(open + 1, strcspn(open + 1, "]")) : NULL;
}

/* --- IOMMU, VFIO and KVM --------------------------------------------------------------------------------------------------- */

/* With remapping the kernel puts "IR-" before the names of interrupt chips. Without an IO-APIC (a VM of another kind) there is no telling. */
static void read_remapping(const struct reader *r)
{
	AUTO_FREE char *text = read_large(r, "/proc/interrupts");

	if (text && strstr(text, " IR-"))
		r->f->interrupt_remapping = 1;
	else if (text && strstr(text, "IO-APIC"))
		r->f->interrupt_remapping = 0;
}

static void read_vfio(const struct reader *r)
{
	struct doctor_facts *f = r->f;

	read_remapping(r);
	f->unsafe_interrupts = read_switch(r, "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
	f->noiommu = read_switch(r, "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
	f->dma_entry_limit = read_number(r, "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit");
	if (sysfs_exists(&r->s, "/sys/class/misc"))
		f->kvm_device = sysfs_exists(&r->s, "/sys/class/misc/kvm");
	f->kvm_nested = read_switch(r, "/sys/module/kvm_intel/parameters/nested");
	if (f->kvm_nested < 0)
		f->kvm_nested = read_switch(r, "/sys/module/kvm_amd/parameters/nested");
}

/* --- CPUs --------------------------------------------------------------------------------------------------------------------- */

/* What follows "KEY<tab>: " on its line; owned; NULL. */
static char *cpuinfo_value(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *s = text; s; s = strchr(s, '\n')) {
		s += *s == '\n';
		if (strncmp(s, key, len) || !strchr("\t :", s[len]))
			continue;
		s = strchr(s, ':');
		return s && s[1] == ' ' ? xstrndup(s + 2, strcspn(s + 2, "\n")) : NULL;
	}
	return NULL;
}

static bool has_word(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *s = words; (s = strstr(s, word)); s += len)
		if ((s == words || s[-1] == ' ') && (s[len] == ' ' || !s[len]))
			return true;
	return false;
}

static void read_cpuinfo(const struct reader *r)
{
	AUTO_FREE char *text = read_large(r, "/proc/cpuinfo"), *flags = text ? cpuinfo_value(text, "flags") : NULL;

	if (!text)
		return;
	r->f->cpu_model = cpuinfo_value(text, "model name");
	r->f->microcode = cpuinfo_value(text, "microcode");
	if (!flags)
		return;
	r->f->cpu_virtualization = has_word(flags, "vmx") || has_word(flags, "svm");
	r->f->hypervisor = has_word(flags, "hypervisor");
	r->f->page_1g = has_word(flags, "pdpe1gb");
}

/* The deepest state of CPU 0 that is not switched off: the others have the same ones. */
static void read_idle(const struct reader *r)
{
	struct doctor_facts *f = r->f;
	struct strv states = { 0 };

	f->idle_driver = sysfs_read(&r->s, "/sys/devices/system/cpu/cpuidle/current_driver");
	if (sysfs_list(&r->s, &states, "/sys/devices/system/cpu/cpu0/cpuidle") < 0)
		return;
	for (size_t i = 0; i < states.n; i++) {
		AUTO_FREE char *latency = sysfs_read(&r->s, "/sys/devices/system/cpu/cpu0/cpuidle/%s/latency", states.v[i]),
			       *off = sysfs_read(&r->s, "/sys/devices/system/cpu/cpu0/cpuidle/%s/disable", states.v[i]);
		uint64_t us;

		if (!latency || parse_u64(latency, 0, INT64_MAX, &us) < 0 || (off && *off == '1') || (int64_t)us <= f->idle_latency_us)
			continue;
		f->idle_latency_us = (int64_t)us;
		free(f->idle_state);
		f->idle_state = sysfs_read(&r->s, "/sys/devices/system/cpu/cpu0/cpuidle/%s/name", states.v[i]);
		if (!f->idle_state)
			f->idle_state = xstrdup(states.v[i]);
	}
	strv_clear(&states);
}

/* A read tells the limit in force as a number of 32 bits. To open it for reading asks for nothing. */
static void read_latency_limit(const struct reader *r)
{
	int32_t us;

	if (sysfs_read_bytes(&r->s, &us, sizeof(us), "/dev/cpu_dma_latency") == sizeof(us) && us >= 0)
		r->f->latency_limit_us = us;
}

static void read_governors(const struct reader *r)
{
	struct strv cpus = { 0 }, seen = { 0 };
	char *all = NULL;

	if (sysfs_list(&r->s, &cpus, "/sys/devices/system/cpu/cpufreq") < 0)
		return;
	for (size_t i = 0; i < cpus.n; i++) {
		AUTO_FREE char *governor = sysfs_read(&r->s, "/sys/devices/system/cpu/cpufreq/%s/scaling_governor", cpus.v[i]), *before = NULL;

		if (!governor || !*governor || strv_contains(&seen, governor))
			continue;
		strv_push(&seen, governor);
		before = all;
		all = before ? xasprintf("%s %s", before, governor) : xstrdup(governor);
	}
	r->f->governors = all;
	strv_clear(&cpus);
	strv_clear(&seen);
}

static void read_cpus(const struct reader *r)
{
	read_cpuinfo(r);
	read_idle(r);
	if (r->f->live)
		read_latency_limit(r);
	r->f->smt = sysfs_read(&r->s, "/sys/devices/system/cpu/smt/control");
	read_governors(r);
	if (sysfs_exists(&r->s, "/sys/devices/system/cpu/isolated"))
		r->f->isolated_known = 1;
}

/* --- memory --------------------------------------------------------------------------------------------------------------------- */

/* "MemTotal:  263846052 kB" in bytes; -1 */
static int64_t meminfo_bytes(const char *text, const char *key)
{
	size_t len = strlen(key);
	int64_t kb;

	for (const char *s = text; s; s = strchr(s, '\n')) {
		s += *s == '\n';
		if (!strncmp(s, key, len) && s[len] == ':')
			return sscanf(s + len + 1, "%" SCNd64, &kb) == 1 && kb >= 0 && kb < INT64_MAX / 1024 ? kb * 1024 : -1;
	}
	return -1;
}

static void read_memory(const struct reader *r)
{
	AUTO_FREE char *text = read_large(r, "/proc/meminfo");
	struct doctor_facts *f = r->f;
	int64_t swap_free;

	if (text) {
		f->mem_total = meminfo_bytes(text, "MemTotal");
		f->mem_available = meminfo_bytes(text, "MemAvailable");
		f->hugetlb = meminfo_bytes(text, "Hugetlb");
		f->swap_total = meminfo_bytes(text, "SwapTotal");
		swap_free = meminfo_bytes(text, "SwapFree");
		if (f->swap_total >= 0 && swap_free >= 0)
			f->swap_used = f->swap_total - swap_free;
	}
	f->thp = read_choice(r, "/sys/kernel/mm/transparent_hugepage/enabled");
	f->ksm = read_number(r, "/sys/kernel/mm/ksm/run");
	f->numa_balancing = read_number(r, "/proc/sys/kernel/numa_balancing");
	f->max_map_count = read_number(r, "/proc/sys/vm/max_map_count");
}

/* --- software --------------------------------------------------------------------------------------------------------------------- */

/* The kernel keeps 15 characters of a name. */
static const struct {
	const char *comm;
	size_t offset;
} processes[] = {
	{ "irqbalance", offsetof(struct doctor_facts, irqbalance) },
	{ "nvidia-persiste", offsetof(struct doctor_facts, persistenced) },
	{ "nv-fabricmanage", offsetof(struct doctor_facts, fabric_manager) },
};

bool doctor_wants_process(const char *comm)
{
	for (size_t i = 0; i < ARRAY_SIZE(processes); i++)
		if (!strcmp(comm, processes[i].comm))
			return true;
	return false;
}

static void read_processes(const struct reader *r)
{
	struct strv names = { 0 };
	bool any = false;

	if (sysfs_list(&r->s, &names, "/proc") < 0)
		return;
	for (size_t i = 0; i < names.n; i++) {
		AUTO_FREE char *comm = strspn(names.v[i], "0123456789") == strlen(names.v[i]) ? sysfs_read(&r->s, "/proc/%s/comm", names.v[i]) : NULL;

		for (size_t k = 0; comm && k < ARRAY_SIZE(processes); k++) {
			int *found = (int *)((char *)r->f + processes[k].offset);

			/* A machine on which there are processes: whichever is not seen does not run. */
			if (!any)
				*found = 0;
			if (!strcmp(comm, processes[k].comm))
				*found = 1;
		}
		any |= comm != NULL;
	}
	strv_clear(&names);
}

static int64_t hard_limit(int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0)
		return -1;
	return limit.rlim_max == RLIM_INFINITY || limit.rlim_max > INT64_MAX ? INT64_MAX : (int64_t)limit.rlim_max;
}

static void read_software(const struct reader *r)
{
	struct doctor_facts *f = r->f;

	read_processes(r);
	f->nvidia_version = sysfs_read(&r->s, "/sys/module/nvidia/version");
	if (sysfs_exists(&r->s, "/sys/module"))
		f->nvidia_drm = sysfs_exists(&r->s, "/sys/module/nvidia_drm");
	f->lockdown = read_choice(r, "/sys/kernel/security/lockdown");
	if (sysfs_exists(&r->s, "/sys/fs/cgroup/cgroup.controllers"))
		f->cgroup = 2;
	else if (sysfs_exists(&r->s, "/sys/fs/cgroup/memory"))
		f->cgroup = 1;
	if (f->live) {
		f->memlock = hard_limit(RLIMIT_MEMLOCK);
		f->nofile = hard_limit(RLIMIT_NOFILE);
	}
}

/* --- functions ----------------------------------------------------------------------------------------------------------------------- */

/* The last line of aer_dev_fatal and its like is "TOTAL_ERR_FATAL 0". */
static int64_t aer_total(const struct reader *r, const char *bdf, const char *kind)
{
	AUTO_FREE char *text = sysfs_read(&r->s, "/sys/bus/pci/devices/%s/aer_dev_%s", bdf, kind);
	const char *at = text ? strstr(text, "TOTAL_ERR_") : NULL;
	int64_t n;

	return at && sscanf(at, "%*s %" SCNd64, &n) == 1 && n >= 0 ? n : -1;
}

static void read_config(const struct reader *r, const char *bdf, struct doctor_func *ret)
{
	uint8_t config[DOCTOR_CONFIG_SIZE];
	ssize_t n = sysfs_read_bytes(&r->s, config, sizeof(config), "/sys/bus/pci/devices/%s/config", bdf);

	if (n > 0)
		doctor_read_config(config, (size_t)n, ret);
}

static void read_group(const struct reader *r, const struct pci_func *f, struct doctor_func *ret)
{
	if (f->iommu_group >= 0)
		ret->group_type = sysfs_read(&r->s, "/sys/kernel/iommu_groups/%d/type", f->iommu_group);
}

/* A function that sleeps without power would be woken by the read; of virtual functions, of which there are thousands, nothing is asked. */
static void read_func(const struct reader *r, const struct pci_func *f, struct doctor_func *ret)
{
	char bdf[PCI_ADDR_STR];
	AUTO_FREE char *power = sysfs_read(&r->s, "/sys/bus/pci/devices/%s/power_state", pci_addr_format(&f->addr, bdf));

	read_group(r, f, ret);
	/* Of what no VM gets nothing else is asked. */
	if (f->role == ROLE_OTHER)
		return;
	if (!power || strcmp(power, "D3cold"))
		read_config(r, bdf, ret);
	ret->aer_fatal = aer_total(r, bdf, "fatal");
	ret->aer_nonfatal = aer_total(r, bdf, "nonfatal");
	ret->aer_correctable = aer_total(r, bdf, "correctable");
}

static void read_isolation(const struct reader *r, size_t i)
{
	const struct pci_func *f = &r->f->host->funcs[i];
	struct doctor_func *ret = &r->f->funcs[i];
	AUTO_FREE char *physfn = NULL;
	struct pci_addr addr;
	char bdf[PCI_ADDR_STR];

	pci_addr_format(&f->addr, bdf);
	read_group(r, f, ret);
	read_config(r, bdf, ret);
	ret->resets = sysfs_read(&r->s, "/sys/bus/pci/devices/%s/reset_method", bdf);
	/* Captures, and kernels before 5.15, only tell whether there is a way. */
	if (ret->resets && !*ret->resets)
		free(STEAL_PTR(ret->resets));
	if (!ret->resets && !f->can_reset && !(r->f->host->gaps & GAP_DRIVERS))
		ret->resets = xstrdup("");
	physfn = f->is_vf ? sysfs_link_name(&r->s, "/sys/bus/pci/devices/%s/physfn", bdf) : NULL;
	if (physfn && parse_pci_addr(physfn, &addr) == 0)
		ret->physfn = topology_find_func(r->f->host, &addr);
}

/* --- the machine ------------------------------------------------------------------------------------------------------------------------ */

/* Nothing here is a serial number: the kernel shows those to root alone, in other files. */
static void read_board(const struct reader *r)
{
	AUTO_FREE char *version = sysfs_read(&r->s, "/sys/class/dmi/id/bios_version"), *date = sysfs_read(&r->s, "/sys/class/dmi/id/bios_date");

	r->f->vendor = sysfs_read(&r->s, "/sys/class/dmi/id/sys_vendor");
	r->f->product = sysfs_read(&r->s, "/sys/class/dmi/id/product_name");
	if (version)
		r->f->bios = date ? xasprintf("%s of %s", version, date) : xstrdup(version);
}

static int64_t read_uptime(const struct reader *r)
{
	AUTO_FREE char *text = sysfs_read(&r->s, "/proc/uptime");
	int64_t s;

	return text && sscanf(text, "%" SCNd64, &s) == 1 && s >= 0 ? s : -1;
}

static struct reader begin(const char *root, const struct topology *host, struct doctor_facts *ret)
{
	struct reader r = { .s = { .root = strcmp(root, "/") ? root : "" }, .f = ret };

	doctor_facts_init(ret, host);
	ret->live = !*r.s.root;
	ret->root = ret->live && geteuid() == 0;
	ret->cmdline = sysfs_read(&r.s, "/proc/cmdline");
	return r;
}

void doctor_facts_read_isolation(const char *root, const struct topology *host, const bool *wanted, struct doctor_facts *ret)
{
	struct reader r = begin(root, host, ret);

	read_vfio(&r);
	for (size_t i = 0; i < host->n_funcs; i++)
		if (wanted[i])
			read_isolation(&r, i);
}

void doctor_facts_read(const char *root, const struct topology *host, struct doctor_facts *ret)
{
	struct reader r = begin(root, host, ret);

	ret->uptime_s = read_uptime(&r);
	read_vfio(&r);
	read_cpus(&r);
	read_memory(&r);
	read_software(&r);
	read_board(&r);
	for (size_t i = 0; i < host->n_funcs; i++)
		if (!host->funcs[i].is_vf)
			read_func(&r, &host->funcs[i], &ret->funcs[i]);
}
