# shellcheck shell=bash
# Two sockets, one NUMA node each, four switches per node with a GPU, a NIC and an NVMe (two below every second switch).
sockets 2 cores 5 threads 2
memory 4096 hugepages 320

# The host's own, outside the switches.
boot_disk node0
management_nic node0

for node in 0 1; do
	for k in 0 1 2 3; do
		switch "sw$node$k" "node$node"
		plug "sw$node$k" gpu nic nvme
		if ((k % 2)); then plug "sw$node$k" nvme; fi
	done
done
# IOMMU groups with several members: two functions of one slot, and two devices on a conventional bus.
slot_pair node1
conventional_bus node1
