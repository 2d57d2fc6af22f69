/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu.c - what a QEMU can do, from its own answers. */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/qemu.h"

static const struct feature {
	const char *word, *since, *what;
} features[QF_N] = {
	[QF_VFIO] = { "vfio", "1.3", "device vfio-pci" },
	[QF_IOMMUFD] = { "iommufd", "9.0", "-object iommufd" },
	[QF_VF_TOKEN] = { "vf-token", "8.1", "vfio-pci,vf-token=" },
	[QF_LINK_64GT] = { "link-64gt", "9.0", "pcie-root-port,x-speed=32 and 64" },
	[QF_THREAD_CONTEXT] = { "thread-context", "7.2", "-object thread-context" },
	[QF_BLK_VQ_MAPPING] = { "blk-iothread-vq-mapping", "9.0", "virtio-blk-pci,iothread-vq-mapping=" },
	[QF_SCSI_VQ_MAPPING] = { "scsi-iothread-vq-mapping", "10.0", "virtio-scsi-pci,iothread-vq-mapping=" },
	[QF_IO_URING] = { "io-uring", "5.0", "aio=io_uring (a build with liburing)" },
	[QF_RUN_WITH_USER] = { "run-with-user", "9.1", "-run-with user=" },
	[QF_RUNAS] = { "runas", "0.10", "-runas (gone in 10.0)" },
	[QF_RUN_WITH_ASYNC] = { "run-with-async-teardown", "8.0", "-run-with async-teardown=" },
	[QF_EXIT_WITH_PARENT] = { "exit-with-parent", "10.2", "-run-with exit-with-parent=" },
	[QF_SANDBOX] = { "sandbox", "1.2", "-sandbox (a build with libseccomp)" },
	[QF_PVPANIC_PCI] = { "pvpanic-pci", "6.0", "device pvpanic-pci" },
	[QF_VHOST_VSOCK] = { "vhost-vsock", "2.8", "device vhost-vsock-pci" },
	[QF_TPM_EMULATOR] = { "tpm-emulator", "2.12", "-tpmdev emulator with device tpm-crb" },
	[QF_VIRTIO_SCSI] = { "virtio-scsi", "1.1", "device virtio-scsi-pci" },
	[QF_PCI_TESTDEV] = { "pci-testdev", "5.0", "device pci-testdev with membar=" },
	[QF_PASST] = { "passt", "10.1", "-netdev passt" },
	[QF_TRACE_LOG] = { "trace-log", "2.6", "-trace with the log backend" },
};

const char *qemu_feature_word(enum qemu_feature f)
{
	return features[f].word;
}

const char *qemu_feature_since(enum qemu_feature f)
{
	return features[f].since;
}

const char *qemu_feature_what(enum qemu_feature f)
{
	return features[f].what;
}

int qemu_machine_vcpus(const struct qemu_info *q, const char *machine)
{
	for (size_t i = 0; i < q->n_machines; i++) {
		const struct qemu_machine *m = &q->machines[i];

		if (strcmp(m->name, machine ? machine : "q35") == 0 || (m->alias && strcmp(m->alias, machine ? machine : "q35") == 0))
			return m->max_vcpus;
	}
	return 0;
}

void qemu_info_clear(struct qemu_info *q)
{
	free(q->path);
	free(q->package);
	for (size_t i = 0; i < q->n_machines; i++) {
		free(q->machines[i].name);
		free(q->machines[i].alias);
	}
	free(q->machines);
	free(q->ovmf_code);
	free(q->ovmf_vars);
	json_object_put(q->answers);
	*q = (struct qemu_info){ 0 };
}
