/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu.h - what the QEMU at hand is and can do: asked, not guessed.
 *
 * How it works: probe_qemu() (host) starts the binary with "-machine none" and asks it over QMP: query-version, query-machines,
 * device-list-properties, qom-list-properties, query-command-line-options, query-qmp-schema ...  What matters of the answers is
 * one JSON document, the *answers*; it is cached under the binary's identity (device, inode, size, times), and can be recorded and given in
 * place of a binary (--qemu-answers), so that a plan can be made for a QEMU that is not here.
 * qemu_info_from_answers() (pure) turns it into features.  The planner asks qemu_has() and nothing else.
 *
 * The version in which a feature appeared is only for messages: distributions backport, and builds leave things out. */
#ifndef GPUVM_QEMU_H
#define GPUVM_QEMU_H

#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/cleanup.h"
#include "gpuvm/err.h"

struct json_object;

#define QEMU_ANSWERS_SCHEMA 1
#define QEMU_ANSWERS_MAX    (1UL << 20) /* bytes of a document that is read; recorded ones have some ten KiB */

enum qemu_feature {
	QF_VFIO,		/* device vfio-pci */
	QF_IOMMUFD,		/* -object iommufd and vfio-pci,iommufd=; 9.0 */
	QF_VF_TOKEN,		/* vfio-pci,vf-token=; 8.1 */
	QF_LINK_64GT,		/* pcie-root-port x-speed=32 and 64; 9.0 */
	QF_THREAD_CONTEXT,	/* -object thread-context; 7.2 */
	QF_BLK_VQ_MAPPING,	/* virtio-blk-pci,iothread-vq-mapping=; 9.0 */
	QF_SCSI_VQ_MAPPING,	/* virtio-scsi-pci,iothread-vq-mapping=; 10.0 */
	QF_IO_URING,		/* aio=io_uring; 5.0, if built with liburing */
	QF_RUN_WITH_USER,	/* -run-with user=; 9.1 */
	QF_RUNAS,		/* -runas; gone in 10.0 */
	QF_RUN_WITH_ASYNC,	/* -run-with async-teardown=; 8.0 */
	QF_EXIT_WITH_PARENT,	/* -run-with exit-with-parent=; 10.2 */
	QF_SANDBOX,		/* -sandbox; if built with libseccomp */
	QF_PVPANIC_PCI,		/* device pvpanic-pci; 6.0 */
	QF_VHOST_VSOCK,		/* device vhost-vsock-pci; 2.8, on Linux */
	QF_TPM_EMULATOR,	/* -tpmdev emulator and tpm-crb; 2.12 */
	QF_VIRTIO_SCSI,		/* device virtio-scsi-pci */
	QF_STAND_IN,		/* device ivshmem-plain, for --fake-devices; 2.6, on Linux */
	QF_PASST,		/* -netdev passt; 10.1 */
	QF_TRACE_LOG,		/* -trace with the log backend */
	QF_N,
};

struct qemu_machine {
	char *name, *alias; /* alias may be NULL */
	int max_vcpus;
};

struct qemu_info {
	char *path;
	int major, minor, micro;
	char *package; /* "Debian 1:7.2+dfsg-7"; may be NULL */
	uint64_t features; /* 1 << enum qemu_feature */
	struct qemu_machine *machines; /* of the q35 family */
	size_t n_machines;
	char *ovmf_code, *ovmf_vars; /* firmware images found, or NULL */
	struct json_object *answers; /* what features and machines were read from; may be NULL */
};

static inline bool qemu_at_least(const struct qemu_info *q, int major, int minor)
{
	return q->major > major || (q->major == major && q->minor >= minor);
}
static inline bool qemu_has(const struct qemu_info *q, enum qemu_feature f)
{
	return q->features >> f & 1;
}

const char *qemu_feature_word(enum qemu_feature f);  /* stable: "iommufd" */
const char *qemu_feature_since(enum qemu_feature f); /* "9.0": first upstream version that has it */
const char *qemu_feature_until(enum qemu_feature f); /* "10.0": first one without it; NULL: still there */
const char *qemu_feature_what(enum qemu_feature f);  /* for messages: "-object iommufd" */

/* Most vCPUs of a machine type; @machine NULL: "q35". 0: this QEMU has no such machine. */
int qemu_machine_vcpus(const struct qemu_info *q, const char *machine);

/* Fill version, features and machines. Takes a reference of @answers. -EPROTO on what is not such a document; @q is then untouched. */
int qemu_info_from_answers(struct json_object *answers, struct qemu_info *q, struct err *e);

/* The same from text, of which all must be the document. */
int qemu_info_from_text(const char *text, size_t len, struct qemu_info *q, struct err *e);
void qemu_info_clear(struct qemu_info *q);

/* --- asking: what to ask, and what is kept of the replies (src/core/qemu_answers.c); probe_qemu() carries it out -------- */

/* QMP commands in their order: [{"execute": .., "arguments": {..}}, ...]. Owned. */
struct json_object *qemu_questions(void);

/* Changes whenever other things are asked or kept: older answers do not have them. */
uint64_t qemu_questions_hash(void);

/* The document from what was answered: @replies has a "return" value for each question, null where QEMU answered with an error.
 * @help is what "-help" printed: options without parameters are listed nowhere else.
 * Keys and lists are sorted, so that two recordings can be compared.  -EPROTO when what every QEMU answers is missing. */
int qemu_answers_make(struct json_object *replies, const char *help, struct json_object **ret, struct err *e);

/*	{"schema": 1,
 *	 "version": {"major": 7, "minor": 2, "micro": 22, "package": "Debian 1:7.2+dfsg-7"},
 *	 "types": ["vfio-pci", ...],                                of those that are looked at
 *	 "properties": {"vfio-pci": {"x-vga": "on/off", ...}},      each with its description, "" without one
 *	 "options": {"sandbox": ["enable", ...], "runas": []},      with their parameters
 *	 "netdevs": ["tap", ...], "aio": ["threads", ...], "tpm": {"types": [..], "models": [..]}, "trace_log": true,
 *	 "machines": [{"name": "pc-q35-7.2", "alias": "q35", "cpu-max": 288}, ...]} */

#endif
