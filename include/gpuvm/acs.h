/* SPDX-License-Identifier: GPL-2.0-or-later */
/* acs.h - direct translated requests: [pcie] acs = direct-translated.
 *
 * How it works: with ReqRedir, CmpltRedir and UpstreamFwd what peers send each other goes up to the IOMMU, which is the isolation.  A NIC with
 * ATS asks the IOMMU for addresses itself and sends requests that are translated already; a port with DirectTrans lets exactly those
 * turn around in its switch (PCI Express 6.12.1.1).  While a VM runs that asks for it, ACSCtl has 0x5d, less what the port cannot do, at
 *
 *   - the root port above each of its devices, and
 *   - of a switch at which its devices meet (they are below more than one of its downstream ports), the ports that lead to them.
 *
 * Below a switch where devices of such a VM meet everything is that VM's: whatever else were there could be reached past the IOMMU by a device whose
 * firmware is not to be trusted.  A switch at which a VM's devices do not meet has nothing to turn around for it and is left alone, so two VMs may
 * have a switch each below a third one.  They then have the root port in common: the first one sets it, and the last one to end puts the old
 * value back.  What a root port does with a translated request for another root port is the root complex's affair, as it is without DirectTrans.
 *
 * The registers forget at a reset of the host, and are set at each start.  What was there is in the claim before it is changed.
 * Sources: PCI Express 7.7.11 (the bits), 10.5.1 (ATS); NVIDIA, Optimizing VM Configuration for AI Inference, appendix (the value 0x5d, and at which ports). */
#ifndef GPUVM_ACS_H
#define GPUVM_ACS_H

#include "gpuvm/doctor.h"

struct sysfs;

#define ACS_ISOLATION 0x1d /* SrcValid, ReqRedir, CmpltRedir, UpstreamFwd */
#define ACS_DIRECT    0x40 /* DirectTrans */
#define ACS_HARMFUL   0x22 /* TransBlk blocks what DirectTrans lets through, EgressCtrl depends on a table that nobody sets */
#define ACS_WANTED    (ACS_ISOLATION | ACS_DIRECT)
#define ATS_ENABLE    0x8000
#define MELLANOX      0x15b3

/* What ports and NICs (but virtual functions) say in configuration space, by function of @host; owned. What cannot be read stays unknown.
 * @root: "" for this machine. (src/host/acs.c) */
struct doctor_func *acs_read(const char *root, const struct topology *host);

/* 16 bits of a function's configuration space. -ENODEV: it is gone, or reads all ones. */
int acs_get(const struct sysfs *s, const struct pci_addr *a, unsigned int offset, uint16_t *ret, struct err *e);
/* Write, and read back. A kernel that is locked down refuses: the error has the word "acs-write-refused". */
int acs_set(const struct sysfs *s, const struct pci_addr *a, unsigned int offset, uint16_t value, struct err *e);
/* Does the function offer ATS, and is it on? -ENODEV as above. */
int acs_get_ats(const struct sysfs *s, const struct pci_addr *a, bool *ret_offered, bool *ret_on, struct err *e);

#endif
