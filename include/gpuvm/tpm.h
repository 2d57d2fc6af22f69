/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tpm.h - swtpm, a TPM 2.0 for one VM: started before QEMU, ends with it (swtpm(8)).
 *
 * How it works: we listen on the socket ourselves and hand it over, so QEMU can connect at once and nothing is waited for.  swtpm runs in
 * its state folder and so needs no path, which its options could not write with a comma.  It ends by itself when a QEMU that has given
 * it a data channel is gone (--terminate); one whose QEMU never came so far is left to tpm_stop().  Its pid goes into the claim
 * before it runs. */
#ifndef GPUVM_TPM_H
#define GPUVM_TPM_H

#include "gpuvm/plan.h"
#include "gpuvm/spawn.h"

/* The state folder, 0700, and those above it. */
int tpm_make_state(const char *dir, struct err *e);

/* Make the socket, and a process that waits at its gate (spawn_go()). @cpus: where it runs; NULL: anywhere.
 * @die_with_parent: as QEMU. @id: whom it runs as, QEMU, too; the state folder must be that user's, the socket will be; NULL: as we. What swtpm says goes to
 * swtpm.log in rundir. */
int tpm_prepare(const struct plan_tpm *t, const struct cpuset *cpus, const struct spawn_identity *id, bool die_with_parent, struct spawn *ret, struct err *e);

/* End it, if it is still there: asked first, so that it can write its state. Safe on a zeroed struct. */
void tpm_stop(struct spawn *s);

#endif
