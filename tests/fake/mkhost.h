/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mkhost.h - make the sys/ and proc/ trees of a machine from a short description.
 *
 * The result is what probe_host() reads below another root: real symbolic links as the kernel has them, config
 * spaces with capabilities, CPUs that hwloc accepts.  tests/fixtures/NAME.host are the machines; each is one text file:
 *
 *   host NAME [kernel=RELEASE] [machine-id=HEX] [no-kvm] [no-vfio] [no-vhost]
 *   cpu VENDOR [threads=N] [smt=split|adjacent] [phys-bits=N] [l3-cores=N] [isolated=LIST] [nohz-full=LIST]
 *   iommu intel|amd|off [bits=N]
 *   node ID socket=N cpus=LIST memory=SIZE [free=SIZE] [1G=FREE/TOTAL] [2M=FREE/TOTAL] [distances=10,21]
 *   numa off                                  the kernel has no NUMA: no /sys/devices/system/node
 *   kind WORD VENDOR:DEVICE CLASS [PROPERTIES] ["Vendor name" ["Device name"]]
 *   bus DOMAIN:BUS [node=N]                   a host bridge; below it, indented as the tree is:
 *     BDF KIND [PROPERTIES]                   (BDF without domain: that of the bus)
 *   disk NAME at BDF [parts=N] [multipath]    nvme0n1, sda or vda
 *   share TAG at BDF                          a virtio 9p share; `mount TAG DIR 9p`
 *   dm N NAME on DEV...                       device mapper: dm-N; DEV is a disk, a partition, dm-N or mdN
 *   md N on DEV...
 *   mount DEV DIR [TYPE] [anonymous]          anonymous: a device number that is in no /dev/block, as btrfs has
 *   swap DEV
 *   net NAME at BDF [master=NAME]             an interface of a function
 *   net NAME virtual [master=NAME] [bridge] [mtu=N] [down]   a bridge, a bond; its members name it as master
 *   net NAME virtual tap [multi-queue] [busy|transient] ...  busy: a process has it open; transient: it goes with that one
 *   net NAME vlan-of=NAME
 *   route NAME default|SUBNET                 an IPv4 route, e.g. 10.1.0.0/16
 *   address6 NAME HEX [scope=global|link]
 *
 * Properties, of a kind or of one function (the latter win):
 *   bars=16M,256G:p,32M  in order; :p 64-bit prefetchable, :64 64-bit, :io; "-" leaves one out
 *   pcie=root|upstream|downstream|endpoint|bridge|none      link=32x16 (GT/s x lanes)   now=2.5x16
 *   acs[=VALUE] ats[=on] driver=NAME override=NAME node=N cpulist=LIST subsys=VVVV:DDDD
 *   group=N|parent|none (else: a group of its own) vfs=N vf-of=BDF boot-vga no-reset unreadable (config: 64 bytes only)
 *   sw-mng (vital product data of a function that manages NVSwitches) module=N (physical ID, written to etc/gpuvm/fabric.conf) */
#ifndef TESTS_FAKE_MKHOST_H
#define TESTS_FAKE_MKHOST_H

#include "gpuvm/err.h"

/* Make the machine of the file @description in the folder @dir, which is created if need be. */
int mkhost_build(const char *description, const char *dir, struct err *e);

/* Make tests/fixtures/@name.host ($GPUVM_FIXTURES/ if set) in a new temporary folder: its path, owned.
 * A failure is printed and gives NULL. */
char *mkhost_fixture(const char *name);

/* As mkhost_fixture(), of a description in memory. */
char *mkhost_text(const char *text);

/* Remove a folder with everything in it, and free the path. NULL is fine. */
void mkhost_remove(char *dir);

#endif
