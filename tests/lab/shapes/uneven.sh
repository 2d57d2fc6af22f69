# shellcheck shell=bash
# Three GPUs on one socket, one on the other one; the NIC of one GPU is missing.
sockets 2 cores 5 threads 2
memory 4096 hugepages 320
boot_disk node0
management_nic node1
for k in 0 1 2; do
	switch "sw0$k" node0
	plug "sw0$k" gpu nvme
	if ((k > 0)); then plug "sw0$k" nic; fi
done
switch sw10 node1
plug sw10 gpu nic nvme
