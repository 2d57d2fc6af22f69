/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 64-bit window that the guest's BARs need, and how large stand-ins may be so that it fits.
 *
 * How it works: the need is summed up over the guest's tree as firmware does it, each port's window aligned to the largest BAR below it.
 * A real device has the BARs that it has: a window that does not fit is refused.  A stand-in (--fake-devices) need not be
 * as large as its device: all are made smaller by one power of two until the window fits, since emulation (TCG) has 40 address
 * bits, and eight BARs of 256 GiB do not fit below them.  A stand-in has one BAR, as large as the largest of its device. */
#include <inttypes.h>
#include <string.h>

#include "plan_priv.h"

#define MIB              (UINT64_C(1) << 20)
#define GIB              (UINT64_C(1) << 30)
#define PAGE_BYTES       UINT64_C(4096)
#define Q35_DEFAULT_HOLE (32 * GIB)        /* q35-pcihost pci-hole64-size */
#define OVMF_MAX_WINDOW  (16 * 1024 * GIB) /* opt/ovmf/X-PciMmio64Mb is taken up to 0x1000000 (OvmfPkg MemDetect) */
#define EMULATED_ROOM    (64 * MIB)        /* BARs of disks and NICs on pcie.0, which share the window */

static uint64_t pow2_at_least(uint64_t x)
{
	uint64_t p = 1;

	while (p < x)
		p <<= 1;
	return p;
}

static uint64_t align_up(uint64_t x, uint64_t a)
{
	return (x + a - 1) / a * a;
}

static uint64_t largest_bar(const struct plan_device *d)
{
	uint64_t largest = 0;

	for (size_t i = 0; i < ARRAY_SIZE(d->bars); i++)
		largest = d->bars[i] > largest ? d->bars[i] : largest;
	return largest ? pow2_at_least(largest) : 0;
}

/* Each device's BARs, in multiples of its largest: the window of the port above is aligned to that. */
static uint64_t bars_aligned(const struct plan *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < p->n_devices; i++) {
		uint64_t largest = largest_bar(&p->devices[i]);

		sum += largest ? align_up(p->devices[i].bar_bytes, largest) : 0;
	}
	return sum;
}

/* --- stand-ins ---------------------------------------------------------------------------------------- */

struct span {
	uint64_t bytes, align;
};

static void span_add(struct span *s, struct span part)
{
	s->bytes += part.bytes;
	s->align = part.align > s->align ? part.align : s->align;
}

/* The window of a bridge.  SeaBIOS makes its size a multiple of the largest BAR below it (pci_bios_check_devices), at each level. */
static struct span window_below(const struct plan *p, const char *bus)
{
	struct span s = { .align = 1 };

	for (size_t i = 0; i < p->n_devices; i++)
		if (strcmp(p->devices[i].guest_port, bus) == 0)
			span_add(&s, (struct span){ p->devices[i].stand_in_bytes, p->devices[i].stand_in_bytes });
	for (size_t i = 0; i < p->n_ports; i++)
		if (strcmp(p->ports[i].parent, bus) == 0)
			span_add(&s, window_below(p, p->ports[i].id));
	s.bytes = align_up(s.bytes, s.align);
	return s;
}

static uint64_t stand_ins_need(const struct plan *p)
{
	return p->n_devices ? window_below(p, "pcie.0").bytes + EMULATED_ROOM : 0;
}

/* The size of all stand-ins; false: none of them can become smaller. */
static bool scale_stand_ins(struct plan *p, unsigned int scale)
{
	bool smaller = false;

	for (size_t i = 0; i < p->n_devices; i++) {
		struct plan_device *d = &p->devices[i];
		uint64_t want = largest_bar(d) / scale;

		smaller = smaller || want > PAGE_BYTES;
		d->stand_in_bytes = want > PAGE_BYTES ? want : PAGE_BYTES;
	}
	p->stand_in_scale = scale;
	return smaller;
}

/* --- address bits ------------------------------------------------------------------------------------- */

/* For messages: a few MiB more make a number that nobody can read. */
static uint64_t about(uint64_t bytes)
{
	return bytes < GIB ? bytes : (bytes + GIB / 2) / GIB * GIB;
}

/* "phys-bits=46" of a CPU model that was given with options; 0: none. "host-phys-bits=on" is another one. */
static int model_phys_bits(const char *model)
{
	const char *at = strstr(model, ",phys-bits=");
	int bits;

	return at && sscanf(at, ",phys-bits=%d", &bits) == 1 ? bits : 0;
}

/* Physical address bits of the guest's CPU: -cpu host has the host's, emulation and named models have 40 unless told
 * otherwise (target/i386/cpu.c: TCG_PHYS_ADDR_BITS).  0: of a host that we do not know. */
static int cpu_bits(const struct planner *pl)
{
	const char *model = pl->req->vm->cpu_model;

	if (model && model_phys_bits(model))
		return model_phys_bits(model);
	if (strcmp(pl->plan->accel, "kvm") != 0)
		return 40;
	if (model && strcmp(model, "host") != 0 && strncmp(model, "host,", 5) != 0 &&
	    !strstr(model, "host-phys-bits=on"))
		return 40;
	return planner_machine(pl)->phys_bits;
}

/* What of CPU and IOMMU is the narrower; 0 and NULL: neither is known.  VFIO maps the guest's BARs at their guest addresses into
 * the IOMMU, which fails (-EINVAL) past its width. */
int planner_address_bits(const struct planner *pl, const char **ret_whose)
{
	int cpu = cpu_bits(pl), iommu = pl->plan->n_devices ? planner_machine(pl)->iommu_bits : 0;

	*ret_whose = NULL;
	if (!cpu && !iommu)
		return 0;
	if (iommu && (!cpu || iommu < cpu)) {
		*ret_whose = "the host's IOMMU";
		return iommu;
	}
	*ret_whose = "the guest's CPU";
	return cpu;
}

/* Where a window of @bytes would end.  QEMU puts it above RAM, which on AMD moves to 1 TiB when it would reach the
 * HyperTransport hole at 0xfd00000000 (hw/i386/pc.c; the CPU that emulation makes is an AMD one); OVMF aligns it to its own size. */
static uint64_t window_end(const struct planner *pl, uint64_t bytes)
{
	uint64_t base = 4 * GIB + plan_memory_bytes(pl->plan), size = pow2_at_least(bytes);
	bool amd = strcmp(pl->plan->accel, "tcg") == 0 || strcmp(planner_machine(pl)->cpu_vendor, "AuthenticAMD") == 0;

	if (amd && base + bytes > UINT64_C(0xfd00000000) && base < 1024 * GIB)
		base = 1024 * GIB + plan_memory_bytes(pl->plan);
	if (pl->plan->vars_file)
		base = align_up(base, size);
	return base + bytes;
}

/* SeaBIOS 1.17 puts its window at the end of the address space, and when something is reserved there, once more its size (a power of two) below.
 * The CPU that emulation makes is an AMD one with 40 bits, and has the HyperTransport hole there: a window of half the space
 * would begin at 0, on top of memory. */
static bool window_fits(const struct planner *pl, uint64_t bytes)
{
	const char *whose;
	int bits = planner_address_bits(pl, &whose);

	if (pl->plan->vars_file && bytes > OVMF_MAX_WINDOW)
		return false;
	if (!pl->plan->vars_file && strcmp(pl->plan->accel, "tcg") == 0 && bits > 2 && bytes > UINT64_C(1) << (bits - 2))
		return false;
	return !bits || bits >= 64 || window_end(pl, bytes) <= UINT64_C(1) << bits;
}

static void refuse_window(struct planner *pl, uint64_t need)
{
	const struct plan *p = pl->plan;
	const char *whose;
	int bits = planner_address_bits(pl, &whose);
	bool by_ovmf = p->vars_file && p->mmio64_bytes > OVMF_MAX_WINDOW;
	AUTO_FREE char *limit =
		by_ovmf ? xstrdup("OVMF's largest, 16 TiB") : xasprintf("the %d address bits of %s", bits, whose);
	char size[32], sum[32], ram[32];
	struct problem *pr;

	pr = config_problem(pl->ps, pl->req->vm, "pcie", "mmio64", "mmio-too-large",
			    "a 64-bit window of %s for BARs of %s, above %s of memory, does not fit into %s",
			    format_size(p->mmio64_bytes, size), format_size(about(need), sum),
			    format_size(plan_memory_bytes(p), ram), limit);
	pr->kind = PROBLEM_HOST;
	if (by_ovmf)
		problem_hint(pr, "use [vm] firmware = seabios, or pass fewer devices");
	else if (pl->req->vm->mmio64_bytes && !need)
		problem_hint(pr, "leave out [pcie] mmio64: the VM has no device that needs it");
	else if (pl->req->vm->mmio64_bytes && window_fits(pl, pow2_at_least(need)))
		problem_hint(pr, "leave out [pcie] mmio64: %s would do", format_size(pow2_at_least(need), size));
	else if (strcmp(p->accel, "tcg") == 0)
		problem_hint(pr, "emulation (tcg) has 40 bits; KVM has those of the host");
	else if (bits == cpu_bits(pl) && pl->req->vm->cpu_model && planner_machine(pl)->phys_bits > bits)
		problem_hint(pr, "[cpu] model = host has the host's %d bits", planner_machine(pl)->phys_bits);
	else if (bits < 46 && strcmp(whose, "the host's IOMMU") == 0)
		problem_hint(pr, "pass fewer devices; or look in the firmware's settings for a wider IOMMU (48 bits "
				 "and more are usual on servers)");
	else
		problem_hint(pr, "pass fewer devices, or give the VM less memory");
}

static void explain_bits(struct planner *pl)
{
	const char *whose;
	int bits = planner_address_bits(pl, &whose);

	if (bits)
		plan_reason(pl->plan, "phys-bits", "%d, those of %s: guest memory and the window end below them", bits,
			    whose);
	else
		plan_reason(pl->plan, "phys-bits", "not known of this host: whether the window fits was not checked");
}

/* --- the window ----------------------------------------------------------------------------------------- */

/* Make stand-ins as small as they must be, all by the same factor; returns the window that they need. */
static uint64_t size_stand_ins(struct planner *pl)
{
	struct plan *p = pl->plan;
	unsigned int scale = 1;
	bool smaller = scale_stand_ins(p, scale);

	while (smaller && !window_fits(pl, pow2_at_least(stand_ins_need(p))))
		smaller = scale_stand_ins(p, scale *= 2);
	return stand_ins_need(p);
}

static void warn_scaled(struct planner *pl)
{
	struct plan *p = pl->plan;
	const char *whose;
	int bits = planner_address_bits(pl, &whose);
	uint64_t device = 0, stand_in = 0;
	char a[32], b[32];

	if (p->stand_in_scale <= 1)
		return;
	for (size_t i = 0; i < p->n_devices; i++) {
		device = largest_bar(&p->devices[i]) > device ? largest_bar(&p->devices[i]) : device;
		stand_in = p->devices[i].stand_in_bytes > stand_in ? p->devices[i].stand_in_bytes : stand_in;
	}
	plan_warn(p, "bars-scaled",
		  "the stand-ins' BARs are 1/%u of the devices' (%s in place of %s): larger ones do not fit into the "
		  "%d address bits of %s",
		  p->stand_in_scale, format_size(stand_in, a), format_size(device, b), bits, whose);
}

static void use_given(struct planner *pl, uint64_t need)
{
	struct plan *p = pl->plan;
	char size[32];

	p->mmio64_bytes = pl->req->vm->mmio64_bytes;
	plan_reason(p, "mmio64", "%s, as [pcie] mmio64 says", format_size(p->mmio64_bytes, size));
	if (p->mmio64_bytes < need)
		plan_warn(p, "mmio64-small",
			  "[pcie] mmio64: the devices' BARs need %s: firmware will leave some without an address",
			  format_size(about(need), size));
}

/* Twice what is needed leaves room for firmware that does not pack tightly; where that does not fit, exactly that. */
static void compute_window(struct planner *pl, uint64_t need)
{
	struct plan *p = pl->plan;
	uint64_t roomy = need ? pow2_at_least(2 * need) : 0, tight = need ? pow2_at_least(need) : 0;
	char size[32], sum[32];

	/* Stand-ins that are small because memory leaves no room at all are to be refused, not to be left to the default. */
	if (roomy <= Q35_DEFAULT_HOLE / 2 && (!p->fake_devices || window_fits(pl, tight)))
		return;
	p->mmio64_bytes = window_fits(pl, roomy) || !window_fits(pl, tight) ? roomy : tight;
	plan_reason(p, "mmio64", "%s: the BARs need %s, each device's aligned to its largest; %s",
		    format_size(p->mmio64_bytes, size), format_size(about(need), sum),
		    p->mmio64_bytes == roomy ? "twice that, rounded up to a power of two, as firmware may leave gaps"
					     : "twice that would not fit");
}

void planner_size_window(struct planner *pl)
{
	struct plan *p = pl->plan;
	uint64_t given = pl->req->vm->mmio64_bytes, need = p->fake_devices ? size_stand_ins(pl) : bars_aligned(p);
	const char *whose;

	p->address_bits = planner_address_bits(pl, &whose);
	/* What is right for the devices may be too much for where the stand-ins run. */
	if (given && (!p->fake_devices || window_fits(pl, given)))
		use_given(pl, need);
	else
		compute_window(pl, need);
	if (p->fake_devices)
		warn_scaled(pl);
	if (!p->mmio64_bytes)
		return;
	explain_bits(pl);
	if (!window_fits(pl, p->mmio64_bytes))
		refuse_window(pl, need);
}
