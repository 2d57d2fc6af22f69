# shellcheck shell=bash
# One socket, one NUMA node, four switches.
sockets 1 cores 5 threads 2
memory 4096 hugepages 320
boot_disk node0
management_nic node0
for k in 0 1 2 3; do
	switch "sw0$k" node0
	plug "sw0$k" gpu nic nvme
done
