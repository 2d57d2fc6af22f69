# SPDX-License-Identifier: GPL-2.0-or-later
# The description (tests/fake/mkhost.h) of a machine with 16 GPUs, 4096 PCI functions and 512 CPUs: a PCI domain for each GPU, with a NIC of 250
# virtual functions below the same switch. Run as: awk -f large.awk
BEGIN {
	print "host large kernel=6.1.0"
	print "cpu AuthenticAMD threads=2 phys-bits=48 l3-cores=8"
	print "iommu amd"
	for (n = 0; n < 4; n++)
		printf "node %d socket=%d cpus=%d-%d,%d-%d memory=512G free=500G 1G=0/0 2M=200000/200000 distances=%s\n", n, int(n / 2), 64 * n, 64 * n + 63,
			256 + 64 * n, 256 + 64 * n + 63, n == 0 ? "10,12,32,32" : n == 1 ? "12,10,32,32" : n == 2 ? "32,32,10,12" : "32,32,12,10"
	print "kind rp 1022:1483 060400 pcie=root link=32x16 acs driver=pcieport"
	print "kind up 1000:c030 060400 pcie=upstream link=32x16 driver=pcieport"
	print "kind dn 1000:c030 060400 pcie=downstream link=32x16 acs driver=pcieport"
	print "kind gpu 10de:2330 030200 bars=16M:p,128G:p,32M:p link=32x16 driver=nvidia"
	print "kind nic 15b3:1021 020700 bars=32M:p link=32x16 ats driver=mlx5_core vfs=250"
	print "kind vf 15b3:101e 020700 bars=1M:p link=32x16 ats driver=mlx5_core"
	for (g = 0; g < 16; g++) {
		printf "bus %04x:00 node=%d\n\t00:01.0 rp\n\t\t01:00.0 up\n\t\t\t02:00.0 dn\n\t\t\t\t03:00.0 gpu\n\t\t\t02:01.0 dn\n\t\t\t\t04:00.0 nic\n", g, int(g / 4)
		for (v = 1; v <= 250; v++)
			printf "\t\t\t\t04:%02x.%d vf vf-of=04:00.0\n", int(v / 8), v % 8
	}
}
