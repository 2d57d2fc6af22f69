# shellcheck shell=bash
# A switch whose devices have numa_node -1, as firmware that tells nothing about them leaves it, beside one per node.
sockets 2 cores 5 threads 2
memory 4096 hugepages 320
boot_disk node0
management_nic node0
for node in 0 1; do
	switch "sw${node}0" "node$node"
	plug "sw${node}0" gpu nic nvme
done
switch lost nonuma
plug lost gpu nic nvme
