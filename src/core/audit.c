/* SPDX-License-Identifier: GPL-2.0-or-later */
/* audit.c - see audit.h. Tenants, and all checks but those of the ways between them (audit_paths.c). */
#include <json-c/json.h>
#include <string.h>

#include "audit_priv.h"
#include "gpuvm/draw.h"

#define NAMED 4 /* functions of each tenant in a text */

/* --- tenants ----------------------------------------------------------------------------------------------------------------- */

void audit_init(struct audit *a, const struct topology *host)
{
	*a = (struct audit){ .host = host, .owner = xcalloc(host->n_funcs + 1, sizeof(*a->owner)) };
	for (size_t i = 0; i < host->n_funcs; i++)
		a->owner[i] = -1;
}

void audit_clear(struct audit *a)
{
	for (size_t i = 0; i < a->n_vms; i++)
		free(a->vms[i].name);
	for (size_t i = 0; i < a->n_roms; i++) {
		free(a->roms[i].vm);
		free(a->roms[i].why);
	}
	free(a->vms);
	free(a->roms);
	free(a->owner);
	*a = (struct audit){ 0 };
}

int audit_add_vm(struct audit *a, const char *name, bool running)
{
	struct audit_vm *vm;

	for (size_t i = 0; i < a->n_vms; i++)
		if (!strcmp(a->vms[i].name, name))
			return (int)i;
	vm = PUSH_ZEROED(a->vms, a->n_vms);
	*vm = (struct audit_vm){ .name = xstrdup(name), .running = running };
	return (int)a->n_vms - 1;
}

void audit_give(struct audit *a, int vm, const struct pci_addr *addr)
{
	int func = topology_find_func(a->host, addr);

	if (func >= 0)
		a->owner[func] = vm;
}

void audit_add_rom(struct audit *a, const char *vm, const char *why)
{
	struct audit_rom *rom = PUSH_ZEROED(a->roms, a->n_roms);

	*rom = (struct audit_rom){ .vm = xstrdup(vm), .why = xstrdup(why) };
}

bool *audit_wanted(const struct audit *a)
{
	bool *wanted = xcalloc(a->host->n_funcs + 1, sizeof(*wanted));

	for (size_t i = 0; i < a->host->n_funcs; i++)
		for (int f = a->owner[i] < 0 ? -1 : (int)i; f >= 0; f = a->host->funcs[f].parent)
			wanted[f] = true;
	return wanted;
}

/* Variants are mlx5_vfio_pci, nvgrace-gpu-vfio-pci ... */
static bool is_vfio(const char *driver)
{
	return strstr(driver, "vfio");
}

bool audit_is_in_use(const struct auditor *x, size_t i)
{
	const struct pci_func *f = &x->host->funcs[i];

	return x->a->owner[i] >= 0 || (f->role != ROLE_BRIDGE && *f->driver && !is_vfio(f->driver) && strcmp(f->driver, "pci-stub") != 0);
}

bool audit_same_tenant(const struct auditor *x, size_t i, size_t k)
{
	return x->a->owner[i] == x->a->owner[k];
}

/* --- findings -------------------------------------------------------------------------------------------------------------------- */

static size_t count_of(const struct auditor *x, const bool *set, int owner)
{
	size_t n = 0;

	for (size_t i = 0; i < x->host->n_funcs; i++)
		n += set[i] && x->a->owner[i] == owner;
	return n;
}

static void print_tenant(const struct auditor *x, const bool *set, int owner, FILE *out)
{
	size_t n = 0;

	fputs(owner < 0 ? "the host (" : "VM '", out);
	if (owner >= 0)
		fprintf(out, "%s' (", x->a->vms[owner].name);
	for (size_t i = 0; i < x->host->n_funcs; i++) {
		char bdf[PCI_ADDR_STR];

		if (!set[i] || x->a->owner[i] != owner || n++ >= NAMED)
			continue;
		fprintf(out, "%s%s%s%s", n > 1 ? ", " : "", pci_addr_format(&x->host->funcs[i].addr, bdf), owner < 0 ? " " : "",
			owner < 0 ? x->host->funcs[i].driver : "");
	}
	if (n > NAMED)
		fprintf(out, " and %zu more", n - NAMED);
	fputc(')', out);
}

char *audit_tenants(const struct auditor *x, const bool *set)
{
	int n_vms = (int)x->a->n_vms, left = 0, done = 0;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	for (int owner = -1; owner < n_vms; owner++)
		left += count_of(x, set, owner) > 0;
	/* The host comes last. */
	for (int k = 0; k <= n_vms; k++) {
		int owner = k < n_vms ? k : -1;

		if (!count_of(x, set, owner))
			continue;
		fputs(!done ? "" : done + 1 == left ? " and " : ", ", out);
		print_tenant(x, set, owner, out);
		done++;
	}
	fclose(out);
	return text;
}

static struct doctor_finding *last(struct auditor *x)
{
	return &x->d.r->v[x->d.r->n - 1];
}

void audit_concern(struct auditor *x, const bool *set)
{
	struct doctor_finding *f = last(x);

	for (size_t i = 0; i < x->host->n_funcs; i++) {
		char bdf[PCI_ADDR_STR];

		if (!set[i] || x->a->owner[i] < 0)
			continue;
		strv_push(&f->devices, pci_addr_format(&x->host->funcs[i].addr, bdf));
		if (!strv_contains(&f->vms, x->a->vms[x->a->owner[i]].name))
			strv_push(&f->vms, x->a->vms[x->a->owner[i]].name);
	}
}

void audit_refuse(struct auditor *x, const char *code)
{
	if (last(x)->severity == DOCTOR_PROBLEM)
		last(x)->refusal = code;
}

/* Of one function. */
static void concern_one(struct auditor *x, size_t func)
{
	AUTO_FREE bool *set = xcalloc(x->host->n_funcs + 1, sizeof(*set));

	set[func] = true;
	audit_concern(x, set);
}

static bool has_vm_functions(const struct auditor *x)
{
	for (size_t i = 0; i < x->host->n_funcs; i++)
		if (x->a->owner[i] >= 0)
			return true;
	return false;
}

/* --- translation --------------------------------------------------------------------------------------------------------------------- */

static void check_iommu(struct auditor *x)
{
	size_t n = 0, bad = 0;

	if (x->host->gaps & GAP_GROUPS) {
		doctor_not_known(&x->d, "iommu", "the description of the machine has no IOMMU groups");
		return;
	}
	for (size_t i = 0; i < x->host->n_funcs; i++) {
		char bdf[PCI_ADDR_STR];

		if (x->a->owner[i] < 0)
			continue;
		n++;
		if (x->host->funcs[i].iommu_group >= 0)
			continue;
		bad++;
		doctor_add(&x->d, "iommu", DOCTOR_PROBLEM, pci_addr_format(&x->host->funcs[i].addr, bdf), "VM '%s' has a device that is in no IOMMU group%s",
			   x->a->vms[x->a->owner[i]].name, x->host->iommu_groups ? "" : ": the IOMMU is off");
		doctor_fix(&x->d, "gpuvm doctor says how the IOMMU is turned on");
		concern_one(x, i);
		audit_refuse(x, "isolation-iommu");
	}
	if (!bad)
		doctor_add(&x->d, "iommu", DOCTOR_OK, "host", "all %zu functions of VMs are in IOMMU groups", n);
}

/* The default domain of a group (its `type`) is identity on any host with iommu=pt, and says nothing while VFIO has put the group into a domain of
 * the VM's own. It counts again when the function is not on a vfio driver any more. */
static void check_drivers(struct auditor *x)
{
	size_t n = 0, bad = 0;

	if (x->host->gaps & GAP_DRIVERS)
		return;
	for (size_t i = 0; i < x->host->n_funcs; i++) {
		const struct pci_func *f = &x->host->funcs[i];
		const char *type = x->funcs[i].group_type;
		char bdf[PCI_ADDR_STR];

		if (x->a->owner[i] < 0 || !x->a->vms[x->a->owner[i]].running)
			continue;
		n++;
		if (is_vfio(f->driver))
			continue;
		bad++;
		doctor_add(&x->d, "not-on-vfio", DOCTOR_PROBLEM, pci_addr_format(&f->addr, bdf),
			   "VM '%s' holds it, but it is on %s%s: its group's own domain is %s",
			   x->a->vms[x->a->owner[i]].name, *f->driver ? "driver " : "no driver", f->driver,
			   !type			? "not known"
			   : !strcmp(type, "identity") ? "identity, its DMA is not translated"
						       : type);
		doctor_fix(&x->d, "gpuvm stop %s, which gives its devices back", x->a->vms[x->a->owner[i]].name);
		concern_one(x, i);
	}
	if (n && !bad)
		doctor_add(&x->d, "not-on-vfio", DOCTOR_OK, "host", "all %zu functions of running VMs are on vfio drivers, which translate for the VM", n);
}

static void check_interrupts(struct auditor *x)
{
	const struct doctor_facts *f = x->d.f;

	if (f->interrupt_remapping < 0) {
		doctor_not_known(&x->d, "interrupt-remapping", "/proc/interrupts could not be read, or has no IO-APIC");
	} else if (f->interrupt_remapping && f->unsafe_interrupts == 1) {
		doctor_add(&x->d, "interrupt-remapping", DOCTOR_WARNING, "host",
			   "on; but VFIO was told to do without, should it be off after the next boot (allow_unsafe_interrupts)");
		doctor_fix(&x->d, "take allow_unsafe_interrupts out of /etc/modprobe.d; echo N >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
	} else if (f->interrupt_remapping) {
		doctor_add(&x->d, "interrupt-remapping", DOCTOR_OK, "host", "on: an interrupt of a device is what the host has made of it");
	} else {
		doctor_add(&x->d, "interrupt-remapping", DOCTOR_PROBLEM, "host", "off: no chip in /proc/interrupts is \"IR-...\"%s",
			   f->unsafe_interrupts == 1 ? ", and VFIO was told to do without (allow_unsafe_interrupts)" : "; VFIO refuses devices");
		doctor_fix(&x->d, "turn on interrupt remapping (x2APIC) in the firmware, take intremap=off off the kernel command line, and reboot");
		if (f->unsafe_interrupts == 1)
			audit_refuse(x, "isolation-interrupts");
	}
}

static void check_words(struct auditor *x)
{
	AUTO_FREE char *override = doctor_cmdline_value(x->d.f->cmdline, "pcie_acs_override"), *off = doctor_acs_off_word(x->d.f->cmdline);

	if (x->d.f->noiommu == 1) {
		doctor_add(&x->d, "noiommu", DOCTOR_WARNING, "host", "VFIO's mode without an IOMMU is on (enable_unsafe_noiommu_mode)");
		doctor_fix(&x->d, "echo N >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode, and take it out of /etc/modprobe.d");
	}
	if (!x->d.f->cmdline) {
		doctor_not_known(&x->d, "acs-override", "the kernel command line could not be read");
		doctor_not_known(&x->d, "acs-cmdline", "the kernel command line could not be read");
		return;
	}
	x->override = override;
	if (override) {
		doctor_add(&x->d, "acs-override", DOCTOR_WARNING, "host", "pcie_acs_override=%s is on the kernel command line", override);
		doctor_fix(&x->d, "take pcie_acs_override off the kernel command line and reboot");
	}
	if (off) {
		doctor_add(&x->d, "acs-cmdline", DOCTOR_WARNING, "host", "%s is on the kernel command line", off);
		doctor_fix(&x->d, "take it off and reboot; the registers as they are now are judged below");
	}
}

static void check_group(struct auditor *x, size_t func)
{
	int group = x->host->funcs[func].iommu_group;
	AUTO_FREE bool *set = xcalloc(x->host->n_funcs + 1, sizeof(*set));
	AUTO_FREE char *who = NULL, *subject = xasprintf("group %d", group);
	bool shared = false;

	for (size_t i = 0; i < x->host->n_funcs; i++) {
		if (x->host->funcs[i].iommu_group != group || !audit_is_in_use(x, i))
			continue;
		if (i < func && x->a->owner[i] >= 0)
			return; /* this group was looked at */
		set[i] = true;
		shared |= !audit_same_tenant(x, i, func);
	}
	if (!shared)
		return;
	who = audit_tenants(x, set);
	doctor_add(&x->d, "group-shared", DOCTOR_PROBLEM, subject, "%s are in one IOMMU group", who);
	doctor_fix(&x->d, "give all of the group to one VM, or turn on ACS in the firmware and reboot");
	audit_concern(x, set);
	audit_refuse(x, "isolation-group");
}

/* --- what is shared ------------------------------------------------------------------------------------------------------------------- */

static void check_virtual(struct auditor *x, size_t pf)
{
	AUTO_FREE bool *set = xcalloc(x->host->n_funcs + 1, sizeof(*set));
	AUTO_FREE char *who = NULL;
	int first = -1, owner = x->a->owner[pf];
	bool several = false, strangers = false;
	char bdf[PCI_ADDR_STR];

	for (size_t i = 0; i < x->host->n_funcs; i++) {
		int vm = x->funcs[i].physfn == (int)pf ? x->a->owner[i] : -1;

		if (vm < 0)
			continue;
		several |= first >= 0 && vm != first;
		strangers |= owner >= 0 && vm != owner;
		first = first < 0 ? vm : first;
		set[i] = true;
	}
	pci_addr_format(&x->host->funcs[pf].addr, bdf);
	who = audit_tenants(x, set);
	if (strangers) {
		set[pf] = true;
		doctor_add(&x->d, "vf-parent", DOCTOR_PROBLEM, bdf, "VM '%s' has the physical function of what %s have", x->a->vms[owner].name, who);
		doctor_fix(&x->d, "leave the physical function to the host");
		audit_concern(x, set);
	} else if (several) {
		doctor_add(&x->d, "vf-siblings", DOCTOR_OK, bdf,
			   "virtual functions of it are with %s: the device keeps them apart, and the host's driver (%s) of the physical one can reset them", who,
			   *x->host->funcs[pf].driver ? x->host->funcs[pf].driver : "none");
		audit_concern(x, set);
	}
}

/* Each of them resets the function alone (Linux, Documentation/ABI/testing/sysfs-bus-pci: reset_method). */
static bool resets_alone(const char *resets)
{
	static const char *const words[] = { "device_specific", "acpi", "flr", "af_flr", "pm" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t len = strlen(words[i]);

		for (const char *s = resets; (s = strstr(s, words[i])); s += len)
			if ((s == resets || s[-1] == ' ') && (!s[len] || s[len] == ' '))
				return true;
	}
	return false;
}

static void check_reset(struct auditor *x, size_t func)
{
	const struct pci_func *f = &x->host->funcs[func];
	AUTO_FREE bool *set = xcalloc(x->host->n_funcs + 1, sizeof(*set));
	AUTO_FREE char *who = NULL;
	const char *resets = x->funcs[func].resets;
	char bdf[PCI_ADDR_STR];
	bool others = false;

	for (size_t i = 0; i < x->host->n_funcs; i++) {
		const struct pci_func *o = &x->host->funcs[i];

		set[i] = o->addr.domain == f->addr.domain && o->addr.bus == f->addr.bus && audit_is_in_use(x, i) && !audit_same_tenant(x, i, func);
		others |= set[i];
	}
	/* A root bus is never reset. */
	if (!others || f->parent < 0 || f->is_vf || (resets && resets_alone(resets)))
		return;
	pci_addr_format(&f->addr, bdf);
	if (!resets) {
		doctor_not_known(&x->d, "reset-bus", "%s has a neighbour on its bus, and its reset_method could not be read", bdf);
		return;
	}
	who = audit_tenants(x, set);
	doctor_add(&x->d, "reset-bus", DOCTOR_PROBLEM, bdf, "VM '%s' has it, it can%s be reset%s, and on that bus is also %s",
		   x->a->vms[x->a->owner[func]].name, *resets ? "" : "not", *resets ? " with its whole bus only" : " alone", who);
	doctor_fix(&x->d, "give all functions on that bus to one VM, or move the device to a slot of its own");
	set[func] = true;
	audit_concern(x, set);
	audit_refuse(x, "isolation-reset");
}

static void check_roms(struct auditor *x)
{
	for (size_t i = 0; i < x->a->n_roms; i++) {
		const struct audit_rom *rom = &x->a->roms[i];

		doctor_add(&x->d, "rom-writable", DOCTOR_WARNING, rom->vm, "romfile: %s", rom->why);
		doctor_fix(&x->d, "chown or chmod what is named, so that only those can write to it whom the host trusts");
		strv_push(&last(x)->vms, rom->vm);
	}
}

void audit_check(const struct audit *a, const struct doctor_facts *f, struct doctor_report *ret)
{
	struct doctor_report r = { 0 };
	struct auditor x = { .d = { .f = f, .host = a->host, .r = &r, .find_code = audit_find_code }, .a = a, .host = a->host, .funcs = f->funcs };

	if (has_vm_functions(&x)) {
		check_iommu(&x);
		check_drivers(&x);
		check_interrupts(&x);
		check_words(&x);
		audit_check_paths(&x);
	}
	for (size_t i = 0; i < a->host->n_funcs; i++) {
		if (a->host->funcs[i].sriov_vfs)
			check_virtual(&x, i);
		if (a->owner[i] < 0)
			continue;
		if (a->host->funcs[i].iommu_group >= 0)
			check_group(&x, i);
		check_reset(&x, i);
	}
	check_roms(&x);
	doctor_sort_findings(&r);
	*ret = r;
}

void audit_keep(struct doctor_report *r, const char *vm)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->n; i++) {
		if (r->v[i].vms.n && !strv_contains(&r->v[i].vms, vm)) {
			r->count[r->v[i].severity]--;
			doctor_finding_clear(&r->v[i]);
		} else {
			r->v[kept++] = r->v[i];
		}
	}
	r->n = kept;
}

/* --- printing ---------------------------------------------------------------------------------------------------------------------------- */

static size_t functions_of(const struct audit *a, int vm)
{
	size_t n = 0;

	for (size_t i = 0; i < a->host->n_funcs; i++)
		n += a->owner[i] == vm;
	return n;
}

void audit_print(const struct audit *a, const struct doctor_report *r, const char *vm, unsigned int flags, FILE *out)
{
	fprintf(out, "%s, Linux %s\n", *a->host->host_name ? a->host->host_name : "this host", *a->host->kernel ? a->host->kernel : "of unknown version");
	for (size_t i = 0; i < a->n_vms; i++) {
		size_t n = functions_of(a, (int)i);

		fprintf(out, "  VM '%s'%s: %zu function%s%s\n", a->vms[i].name, a->vms[i].running ? "" : ", which does not run", n, n == 1 ? "" : "s",
			vm && !strcmp(a->vms[i].name, vm) ? "; what concerns it follows" : "");
	}
	if (!a->n_vms)
		fputs("  no VM has devices\n", out);
	doctor_print_report(r, flags, out);
}

static struct json_object *vm_json(const struct audit *a, int vm)
{
	struct json_object *o = json_object_new_object(), *devices = json_object_new_array();

	for (size_t i = 0; i < a->host->n_funcs; i++) {
		char bdf[PCI_ADDR_STR];

		if (a->owner[i] == vm)
			json_object_array_add(devices, json_object_new_string(pci_addr_format(&a->host->funcs[i].addr, bdf)));
	}
	json_object_object_add(o, "name", json_object_new_string(a->vms[vm].name));
	json_object_object_add(o, "running", json_object_new_boolean(a->vms[vm].running));
	json_object_object_add(o, "devices", devices);
	return o;
}

struct json_object *audit_to_json(const struct audit *a, const struct doctor_report *r)
{
	struct json_object *o = doctor_report_json(a->host->host_name, r, true), *vms = json_object_new_array();

	for (size_t i = 0; i < a->n_vms; i++)
		json_object_array_add(vms, vm_json(a, (int)i));
	json_object_object_add(o, "vms", vms);
	return o;
}
