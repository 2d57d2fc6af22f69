/* SPDX-License-Identifier: GPL-2.0-or-later */
/* launch.h - from a definition to a running, supervised VM, and back to the host as it was.
 *
 * How it works: launch_plan() reads the host and plans; nothing is touched.  launch_start() runs the stages
 *
 *     claim -> pre-bind hook -> holders -> vfio -> fabric -> bind -> reset -> acs -> prepare -> hand over -> TPM -> memory -> spawn (-S) -> qmp -> pin -> verify -> cont
 *
 * each over all devices, with its undo beside it.  A stage records in the claim what it is about to do before it does it;
 * on a failure the undo of the failed stage and of all before it run in reverse.  Undo works from the claim alone and is idempotent, so it does not
 * matter how far a stage came.  launch_supervise() waits for the end; launch_undo() gives everything back. */
#ifndef GPUVM_LAUNCH_H
#define GPUVM_LAUNCH_H

#include <termios.h>

#include "gpuvm/claim.h"
#include "gpuvm/lifecycle.h"
#include "gpuvm/qmp.h"
#include "gpuvm/spawn.h"

/* Exit codes of a VM that was started; docs/man/gpuvm-launch.1 */
enum { LAUNCH_ENDED = 0, LAUNCH_FAILED = 1, LAUNCH_IN_USE = 5, LAUNCH_ABNORMAL = 6 };

struct launch_options {
	const char *definition;   /* path */
	struct strv sets;         /* SECTION.KEY=VALUE */
	const char *sysroot;      /* NULL: this host; a folder or a tar */
	const char *topology_xml; /* --topology: an hwloc XML instead of a host, or NULL */
	const char *qemu;         /* --qemu: overrides [qemu] binary */
	const char *qemu_answers; /* --qemu-answers: recorded answers in place of a binary (dry run only), or NULL */
	bool fake_devices;
	const char *gdb;          /* --gdb: "" for gdb.sock, else as -gdb takes it; NULL: none */
	struct strv trace;        /* --trace: patterns of trace events */
	bool strace;              /* --strace: QEMU is run by strace */
	const char *strace_file;  /* NULL: qemu.strace */
	bool dry_run;             /* claims are looked at, never touched */
	bool force_insecure;      /* --force-insecure: what breaks isolation is a warning */
	/* For a VM that is being made; dry run only */
	const char *text;         /* the definition, in place of the file */
	struct strv promised;     /* files that will be there when it starts */
	bool ignore_use;          /* plan as if no other VM ran */
	void (*ready)(void *ctx); /* called once the guest runs */
	void *ready_ctx;
};

/* What one step of a start has taken. */
struct launch_time {
	const char *what; /* static */
	uint64_t us;
};

struct launch {
	const struct launch_options *opt;
	struct vm_config vm;
	struct topology host;
	struct topology here; /* with another machine's stand-ins: this one */
	struct qemu_info qemu;
	struct host_use use;
	struct strv below; /* files that the VM's disks are made on: absolute paths */
	struct fabric_map fabric;
	char *fabric_manager; /* of fm_find(); NULL: there is none, because of no_manager, or none was looked for */
	char *no_manager;
	struct doctor_func *config; /* acs_read(), if the definition asks for what needs it */
	struct plan_user user; /* and as what spawn takes: own_choose() */
	struct spawn_identity identity;
	struct plan plan;
	struct claim claim;
	struct sysfs sys;
	bool claimed;
	bool adopted; /* QEMU was started by another launcher: it is not our child */
	int busy_fd; /* claim_busy(); 0: not taken */
	bool hurries; /* with nice values of -20 in place of these */
	int nice_before, session_nice_before;
	int lock_fd, listen_fd, log_fd, signal_fd;
	struct plan_fds fds; /* control is listen_fd: not closed with the others */
	struct spawn child;
	struct termios tty; /* as it was before QEMU's console was there */
	bool has_tty;
	struct spawn tpm; /* swtpm; pid 0: none */
	struct qmp qmp;
	struct pins *pins;   /* whose CPUs are whose (pin.c) */
	bool aside;	     /* the supervisor runs on the emulator CPUs, and not on these */
	bool unlimited;	     /* which were all that its cpuset had */
	struct cpuset cpus_before;
	bool told_thread, told_irq, told_balancer; /* what pin.c says once */
	bool seen_pages; /* launch_look_at_pages() */
	enum life_state state;
	bool asked_to_stop;  /* by us or by the guest itself */
	bool failed;         /* a fault was seen */
	bool killed_by_us;
	int wait_status;
	uint64_t oom_kills;  /* the kernel's count of them before QEMU was started */
	uint64_t waited_s;   /* for QEMU to answer: launch_progress() is called once a second */
	char reason[1100];    /* why it ended */
	struct launch_time times[32]; /* of the start so far (timings.c) */
	size_t n_times;
	uint64_t timed_at;   /* us: when the last of them ended */
};

void launch_init(struct launch *l, const struct launch_options *opt);
void launch_clear(struct launch *l);

/* Read definition and host, and plan. 0, or -EINVAL with @ps filled (exit 3, 4 or 5), or another -Exxx with @e (exit 1). Takes the allocation lock
 * unless dry_run: launch_start() writes the claim and lets it go. */
int launch_plan(struct launch *l, struct problems *ps, struct err *e);

/* The part of it that needs no definition: what VMs hold, the machine, QEMU. */
int launch_look(struct launch *l, struct problems *ps, struct err *e);

/* Take over a VM that runs without its launcher; launch_supervise() follows. The guest is left alone if it fails.
 * -EBUSY: it has one again; -ESRCH: it has ended. */
int launch_adopt(struct launch *l, const char *vm, struct err *e);

/* Start what was planned, or go on with what launch_plan() found running without its launcher. On failure everything is undone and @e says why. */
int launch_start(struct launch *l, struct err *e);

/* Wait until the VM has ended and give everything back. Returns the program's exit code: 0, 1 or 6. */
int launch_supervise(struct launch *l);

/* Of a start that failed with @e: LAUNCH_IN_USE if somebody has a device, else LAUNCH_FAILED. */
int launch_exit_code(const struct err *e);

/* Does a VM that has ended with @code start again, by [lifecycle] on-crash? Not if somebody wanted it to stop. */
bool launch_restarts(const struct launch *l, int code);

/* A restart that could not even be planned: the name that was held for it is free again. No-op if none is held. */
void launch_drop_name(const char *vm, const char *reason, int exit_code);

/* After launch_supervise(), if launch_restarts(): hold the VM's name and wait. @delay_s: of the last
 * time, 0 at first. 0: start it again; 1: do not: it was asked to stop and the name is given back, or not all of the last run could be undone, or another one has
 * taken the name. */
int launch_pause_before_restart(struct launch *l, int64_t ran_s, unsigned int *delay_s);

/* --- for launch.c, prepare.c and supervise.c -------------------------------------------------------------------- */

/* Move all threads of QEMU where the plan says; -Exxx if one cannot be. Threads that the plan does not name go to the emulator CPUs. */
int launch_pin(struct launch *l, struct err *e);
void launch_forget_pins(struct launch *l);
/* Move this process to the emulator CPUs, too; launch_unpin() is its undo. */
void launch_stand_aside(struct launch *l);
int launch_unpin(struct launch *l, int exit_code, struct err *e);
/* The threads of the plan's vCPUs, in its order; owned. NULL before launch_pin(). */
pid_t *launch_vcpu_threads(const struct launch *l);
/* Again, for those that came since, without QEMU, and launch_steer(). One that cannot be moved is an error, when all others have been. */
int launch_settle(struct launch *l, struct err *e);
/* The interrupts that devices have by now, to the CPUs that the plan has for them. What the kernel does not move is said, and no error. */
void launch_steer(struct launch *l);
/* Reset the devices of a claim; those that do not answer any more are marked as bad. -ENODEV or -ETIMEDOUT if there is one. */
int launch_reset(const struct sysfs *s, const struct claim *c, struct err *e);
int launch_reset_functions(const struct sysfs *s, const char *vm, const struct pci_addr *v, size_t n, struct err *e);
/* The lock on the VM's devices (claim_busy()), unless it is held. */
int launch_take_devices(struct launch *l, bool create, struct err *e);
/* The NVLink partition (partition.c). consult: what Fabric Manager lists counts for the plan; the stage "fabric" and its undo; of a dead launcher's claim;
 * and what is left of @v without the GPUs of a partition that is active, which must not be reset any more. */
void launch_consult_fabric(struct launch *l, struct problems *ps);
int launch_partition(struct launch *l, struct err *e);
int launch_unpartition(struct launch *l, int exit_code, struct err *e);
int partition_recover(struct claim *c, struct err *e);
size_t launch_spare_partition(const struct launch *l, struct pci_addr *v, size_t n);
/* The stage "acs" and its undo (acs.c). acs_restore(): the claim's registers get their old values, but those that another VM that runs has, too; what
 * is done leaves the claim. With the allocation lock held. */
int launch_acs(struct launch *l, struct err *e);
int launch_unacs(struct launch *l, int exit_code, struct err *e);
int acs_restore(const struct sysfs *s, struct claim *c, struct err *e);
/* Say which of the VM's NICs have ATS off, where direct translated requests were asked for. */
void launch_check_ats(struct launch *l);
/* The files that the definition names (files.c): there and sound. Fills @l->below. */
void launch_check_files(struct launch *l, struct problems *ps);
/* And none that another QEMU has open; after the plan, of which it is a warning in a dry run. */
void launch_check_locks(struct launch *l, struct problems *ps);
/* What would break the isolation between tenants (isolate.c), after the plan: problems, or warnings of the plan in a dry run and with force_insecure. */
void launch_isolate(struct launch *l, struct problems *ps);
/* Is every page of the guest's memory where the plan says, and every thread of QEMU? -EXDEV names the first that is not. */
int launch_check_pages(struct launch *l, struct err *e);
/* Memory that is not preallocated, once, soon after the guest has begun: later the kernel would go through all of its pages, with QEMU's mappings locked. */
void launch_look_at_pages(struct launch *l);
int launch_check(struct launch *l, struct err *e);
/* Taking over (adopt.c). adopt_claim(): with the lock held; takes @c. adopt_connect(): until l->state is known. adopt_running(): of a guest that has begun. */
int adopt_claim(struct launch *l, struct claim *c, struct err *e);
int adopt_read_plan(const char *rundir, struct plan *ret, struct err *e);
int adopt_connect(struct launch *l, struct err *e);
int adopt_running(struct launch *l, struct err *e);
/* Run every undo, in reverse. Errors are logged and counted. */
int launch_undo(struct launch *l, int exit_code);
/* The stage "prepare" and its undo: what QEMU needs that is not a passed-through device (prepare.c). */
int launch_prepare(struct launch *l, struct err *e);
int launch_unprepare(struct launch *l, int exit_code, struct err *e);
/* Memory (memory.c): the last stage before QEMU is started; -ENOMEM names the node that has too few huge pages by now.  explain: of a QEMU that ended at
 * once, with these last @words; if they are about memory, what is missing where is put in front of @e.  oom_text: "; the kernel ..." of a QEMU that was killed
 * while the kernel killed for want of memory, else "". */
int launch_check_memory(struct launch *l, struct err *e);
void launch_explain_memory(const struct launch *l, const char *words, struct err *e);
const char *launch_oom_text(const struct launch *l, int wait_status);
/* For the guest (guest_files.c): its check as text, owned; that and NCCL's topology file into rundir; and a word on where they are. */
char *launch_guest_check(const struct launch *l);
int launch_write_guest_files(struct launch *l, struct err *e);
void launch_point_at_check(const struct launch *l);
/* QEMU's user (own.c). own_choose(): l->user and l->identity, before the plan; own_check(): what that user cannot open, after it. own_hand_over(): the
 * stage after "prepare"; own_take_back(): its undo. own_explain(): of a QEMU that ended with these last @words: puts in front of @e what to do; false: it is about something else. */
int own_choose(struct launch *l, struct problems *ps, struct err *e);
void own_clear(struct launch *l);
void own_check(struct launch *l, struct problems *ps);
int own_hand_over(struct launch *l, struct err *e);
char *own_device_node(const struct launch *l, const struct plan_device *d); /* what VFIO has for it: the group, or with iommufd the device of its own; owned */
int own_take_back(struct launch *l, int exit_code, struct err *e);
bool own_explain(const struct launch *l, const char *words, struct err *e);
/* QEMU's cgroup (limits.c). limits_name(): claim.cgroup, to be written before limits_set(), which lets the child in that waits at its gate; a host that has none for
 * us is a warning at most. limits_remove(): idempotent; -EBUSY while something in it does not end. */
void limits_name(struct launch *l);
void limits_set(struct launch *l, const struct strv *argv);
int limits_remove(struct claim *c, struct err *e);
/* The stage after it, and its undo: swtpm (prepare.c). */
int launch_start_tpm(struct launch *l, struct err *e);
int launch_stop_tpm(struct launch *l, int exit_code, struct err *e);
/* For the guest (guest_files.c): its check as text, owned; that and NCCL's topology file into rundir; and a word on where they are. */
char *launch_guest_check(const struct launch *l);
int launch_write_guest_files(struct launch *l, struct err *e);
void launch_point_at_check(const struct launch *l);
/* Hooks (hooks.c): a stage, its undo, and what is run once the guest runs. */
int hooks_pre_bind(struct launch *l, struct err *e);
void hooks_post_start(struct launch *l);
int hooks_post_stop(struct launch *l, int exit_code, struct err *e);
/* The post-stop hook that a dead launcher owes: of plan.json, once the rest is given back. One that comes to an end, however, is run but once; one
 * that is cut short, as who runs it is killed, is run again by the next one. */
void hooks_recovered(struct claim *c, int exit_code);
/* Where the time of a start goes (timings.c). launch_time(): @what (static) has taken the time since the last call; NULL: begin here. */
void launch_time(struct launch *l, const char *what);
char *launch_times_table(const struct launch *l); /* a line each, then all; owned */
void launch_log_times(const struct launch *l);
/* An event for `gpuvm status` and `gpuvm log`; a full /run is a warning. */
void launch_note(struct launch *l, const char *event, const char *text);
/* One line on a terminal about the guest's memory (progress.c); called once a second while QEMU does not answer. */
void launch_progress(struct launch *l);
uint64_t progress_resident(const char *proc_pid_status); /* bytes, hugetlb pages too */
/* Every fd that QEMU inherits; owned array. */
int *launch_fds(const struct launch *l, size_t *ret_n);
void launch_close_fds(struct launch *l);
/* $GPUVM_STATEDIR or /var/lib/gpuvm. */
const char *launch_state_dir(void);
/* Where definitions are, NAME.ini: $GPUVM_CONFDIR or /etc/gpuvm. */
const char *launch_config_dir(void);
/* Logs that a guest or QEMU can make grow (logs.c). logs_begin(): those of the VM's last life go. logs_watch(): fd that is readable when one was
 * written to. logs_trim(): none is longer than this afterwards; what cannot be done is a warning. */
#define LOG_FILE_MAX (16UL << 20)
int logs_begin(const char *rundir, struct err *e);
int logs_watch(const char *rundir, struct err *e);
void logs_trim(struct launch *l, int watch_fd);
/* One of them: over @max, its last @max / 2 bytes become @path.1 and it is emptied. No file: 0. */
int logs_trim_file(const char *path, size_t max, struct err *e);
/* Last lines of qemu.log as one string for messages, owned; "" if there are none. */
char *launch_log_tail(const struct launch *l, int lines);

#endif
