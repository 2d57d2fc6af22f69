/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor.h - is this host fit for VMs with passed-through GPUs, what does it cost where it is not, and what mends it?
 *
 * How it works: the facts are read below a root (doctor_facts_read(), host), also of a captured machine; doctor_check() (pure) makes findings of
 * them.  A fact that a root does not have, or that we may not read, is "not known": it gives neither an ok nor a problem, but an entry in `unknown`
 * that says what would make it known.  Nothing is changed.
 *
 * Each kind of finding has a stable code; what it costs and where that is known from are in one table (src/core/doctor_codes.c), which docs/doctor.md
 * repeats for people. */
#ifndef GPUVM_DOCTOR_H
#define GPUVM_DOCTOR_H

#include "gpuvm/qemu.h"
#include "gpuvm/strv.h"
#include "gpuvm/topology.h"

struct json_object;

#define DOCTOR_SCHEMA 1

/* --- facts --------------------------------------------------------------------------------------------------------- */

#define DOCTOR_CONFIG_SIZE 4096 /* of the configuration space of a PCI Express function; others have 256 bytes */
#define DOCTOR_RESIZABLE   6

/* What the topology does not have of the function of the same index. */
struct doctor_func {
	bool config;	      /* its extended configuration space was read: only root can */
	bool acs, ats;	      /* has the capability */
	uint16_t acs_can, acs_control, ats_control;
	unsigned int acs_offset; /* of the control register */
	bool head;	      /* the first 64 bytes were read */
	unsigned int bars_64; /* bit N: its register says that BAR N is a 64-bit one */
	struct {
		int bar;
		uint64_t bytes, max_bytes; /* as it is, and the largest it can be */
	} resizable[DOCTOR_RESIZABLE];
	int n_resizable;
	int64_t aer_fatal, aer_nonfatal, aer_correctable; /* errors since boot; -1: not known */
	char *group_type; /* "DMA", "DMA-FQ", "identity" ...: how the kernel itself uses it; NULL: not known */
	char *resets;	  /* "flr bus": the ways to reset it, in the kernel's order; "": none; NULL: not known */
	int physfn;	  /* of a virtual function, the index of its physical one; else, and if it is not known, -1 */
};

/* A claim of a VM that is not alive. */
struct doctor_claim {
	char *vm;
	char *damaged;		/* why it cannot be read; NULL: it can */
	int64_t recover_failed; /* unix time of a try to give its devices back that failed; 0: none */
};

/* Numbers: -1 is not known; of questions, 1 is yes. Texts: NULL is not known. All is owned but `host` and `qemu`. */
struct doctor_facts {
	const struct topology *host;  /* with what is marked as bad */
	const struct qemu_info *qemu; /* NULL: there is none, or it is not known */
	char *qemu_error;	      /* why there is none; NULL beside `qemu` NULL: not known */
	struct doctor_func *funcs;    /* host->n_funcs */
	bool live, root;	      /* this very machine; read as root */
	char *cmdline;		      /* of the kernel */
	int64_t uptime_s;
	/* IOMMU, VFIO and KVM */
	int interrupt_remapping, unsafe_interrupts, noiommu;
	int64_t dma_entry_limit;
	int kvm_device, kvm_nested;	 /* /dev/kvm is there, whether or not we may open it */
	int cpu_virtualization, hypervisor; /* flags of the CPU: vmx or svm; this is a VM itself */
	/* memory */
	int64_t mem_total, mem_available, hugetlb, swap_total, swap_used; /* bytes */
	int page_1g;							  /* the CPU has pages of 1 GiB */
	char *thp;							  /* "always", "madvise", "never" */
	int64_t ksm, numa_balancing, max_map_count;
	/* CPUs */
	char *idle_driver, *idle_state;	   /* the deepest state that is not switched off */
	int64_t idle_latency_us;	   /* to wake from it */
	int64_t latency_limit_us;	   /* what holders of /dev/cpu_dma_latency bear */
	char *smt;			   /* "on", "off", "forceoff", "notsupported" ... */
	char *governors;		   /* of all CPUs, each once, blanks between: "performance" */
	int isolated_known;
	char *cpu_model, *microcode;
	/* software */
	int irqbalance, persistenced, fabric_manager; /* a process of that name runs */
	char *fm_version, *fm_version_error;	      /* of the Fabric Manager that runs; why it is not known */
	char *fm_error;				      /* why it does not answer, or could not be asked */
	int fm_asked, fm_partitions, fm_active;	      /* 1: it answered, 0: it did not, -1: it was not asked */
	char *nvidia_version, *lockdown;	      /* of the driver that is loaded; "none", "integrity", "confidentiality" */
	int nvidia_drm;
	int cgroup;				      /* 1 or 2 */
	int64_t memlock, nofile;		      /* hard limits of this process; INT64_MAX: none */
	/* the machine */
	char *vendor, *product, *bios; /* "Dell Inc.", "PowerEdge XE9680", "2.1.3 of 2025-06-01" */
	/* what gpuvm keeps */
	struct pci_addr *bad_absent; /* marked as bad, and nothing is there */
	size_t n_bad_absent;
	struct doctor_claim *claims;
	size_t n_claims;
	int claims_known;
};

void doctor_facts_init(struct doctor_facts *f, const struct topology *host); /* nothing is known */
void doctor_facts_clear(struct doctor_facts *f);

/* Everything but qemu, bad_absent and claims, of the machine that @host was read from: below @root ("" for this one). What cannot be read stays
 * unknown.  (src/host/doctor_facts.c) */
void doctor_facts_read(const char *root, const struct topology *host, struct doctor_facts *ret);

/* Only what keeps tenants apart (audit.h): the command line, IOMMU and VFIO, and of the functions with @wanted[i] configuration space, group and resets. */
void doctor_facts_read_isolation(const char *root, const struct topology *host, const bool *wanted, struct doctor_facts *ret);

/* For captures: is a process of that name looked for? (src/host/doctor_facts.c)  Is the word "KEY" or "KEY=..." of the kernel command line looked at? */
bool doctor_wants_process(const char *comm);
bool doctor_wants_word(const char *word);

/* What is wanted of a configuration space of which @n bytes were read. */
void doctor_read_config(const uint8_t *config, size_t n, struct doctor_func *ret);

/* "SrcValid+ TransBlk- ReqRedir+ ..." as lspci has it. */
#define ACS_TEXT 96
const char *acs_text(uint16_t bits, char buf[ACS_TEXT]);

/* --- findings ------------------------------------------------------------------------------------------------------- */

enum doctor_severity { DOCTOR_OK, DOCTOR_WARNING, DOCTOR_PROBLEM, DOCTOR_N_SEVERITIES };
const char *doctor_severity_word(enum doctor_severity s); /* "ok", "warning", "problem" */

enum doctor_theme {
	THEME_IOMMU, THEME_DEVICES, THEME_MEMORY, THEME_CPUS, THEME_SOFTWARE, THEME_RECORDS,
	THEME_TRANSLATION, THEME_PEERS, THEME_SHARED, /* of audit.h */
	N_THEMES,
};

struct doctor_code {
	const char *word; /* stable */
	enum doctor_theme theme;
	const char *cost;   /* of what is not ok */
	const char *source; /* where that is known from */
};
extern const struct doctor_code doctor_codes[];
extern const size_t doctor_n_codes;
const struct doctor_code *doctor_find_code(const char *word); /* NULL: there is none */

struct doctor_finding {
	const struct doctor_code *code;
	enum doctor_severity severity;
	char *subject; /* "0000:17:00.0", "node 1", "host", a VM's name */
	char *text;    /* what is */
	char *fix;     /* the command or the firmware's setting; "": there is none */
	/* of audit.h */
	struct strv vms, devices; /* whom it concerns, and with which of their functions; no VM: all of them */
	const char *refusal;	  /* the problem's code with which a start is refused that would bring it about; NULL: it is not */
};

struct doctor_unknown {
	const struct doctor_code *code;
	char *why;
};

struct doctor_report {
	struct doctor_finding *v; /* by theme, then in the order of doctor_codes */
	size_t n;
	struct doctor_unknown *unknown;
	size_t n_unknown;
	size_t count[DOCTOR_N_SEVERITIES];
};

void doctor_check(const struct doctor_facts *f, struct doctor_report *ret);
void doctor_report_clear(struct doctor_report *r);

/* @flags: DRAW_COLOR of draw.h */
void doctor_print(const struct doctor_facts *f, const struct doctor_report *r, unsigned int flags, FILE *out);

/*	{"schema": 1, "host": NAME, "problems": N, "warnings": N,
 *	 "findings": [{"code", "severity", "subject", "text", "cost", "fix", "source"}],
 *	 "unknown": [{"code", "why"}],
 *	 "facts": {"kernel": "6.8.0", ...},                     what machines of a cluster should have in common; without what is not known
 *	 "functions": {"0000:17:00.0": "gpu 10de:2335 ..."}}    GPUs, NICs, NVMe, NVSwitches, and the ports above GPUs */
struct json_object *doctor_to_json(const struct doctor_facts *f, const struct doctor_report *r);

/* What differs between two such documents: [{"kind": "fact"|"function"|"finding", "key", "here", "there"}]; null: not there. What one of them does not
 * know is left out.  -EPROTO: @there is no such document.  Owned. */
int doctor_compare(struct json_object *here, struct json_object *there, struct json_object **ret, struct err *e);
void doctor_print_differences(struct json_object *differences, FILE *out);

#endif
