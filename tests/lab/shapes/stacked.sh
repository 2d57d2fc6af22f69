# shellcheck shell=bash
# Switches below switches: per socket one switch at the root with a NIC, and two below it with two GPUs and an NVMe each.
sockets 2 cores 5 threads 2
memory 4096 hugepages 320
boot_disk node0
management_nic node0
for node in 0 1; do
	switch "top$node" "node$node"
	plug "top$node" nic
	for k in 0 1; do
		switch "sw$node$k" "top$node"
		plug "sw$node$k" gpu gpu nvme
	done
done
