# shellcheck shell=bash
# The emulated host is what the other scenarios take it for: nodes, IOMMU groups, ATS, hugepages, busy devices.
# shape: default
# timeout: 120
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

say "nodes and CPUs"
expect_eq "nodes" "0-1" "$(cat /sys/devices/system/node/online)"
expect_eq "distance" "10 21" "$(cat /sys/devices/system/node/node0/distance)"
for node in 0 1; do
	evidence "node$node: cpus $(cat /sys/devices/system/node/node$node/cpulist)," \
		"2M pages $(cat /sys/devices/system/node/node$node/hugepages/hugepages-2048kB/free_hugepages) free"
	check "node $node has hugepages" test "$(cat /sys/devices/system/node/node$node/hugepages/hugepages-2048kB/free_hugepages)" -ge 256
done
expect_eq "CPU 0 has an SMT sibling" "0-1" "$(cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list)"

say "PCI"
lspci -nnk
gpus=0 node0=0
for dir in /sys/bus/pci/devices/*; do
	bdf=${dir##*/}
	case $(class_of "$bdf") in
	0380*)
		node=$(<"$dir/numa_node")
		gpus=$((gpus + 1)) node0=$((node0 + (node == 0)))
		read -ra path <<<"$(bridges_of "$bdf")"
		expect_eq "GPU $bdf: root port, upstream and downstream port above it" 3 ${#path[@]}
		# What shares the switch with it.
		below=
		for file in /sys/bus/pci/devices/"${path[1]}"/0000:*/0000:*/class; do
			read -r class <"$file"
			below+="${class:2:4} "
		done
		expect_eq "GPU $bdf (node $node): classes below its switch ${path[1]}" "0380 0200 0108" "${below:0:14}"
		;;
	esac
done
expect_eq "GPUs" 8 "$gpus"
expect_eq "GPUs on node 0" 4 "$node0"
set -- /sys/kernel/iommu_groups/*
check "IOMMU groups: $#" test $# -ge 40

nic=$(lspci -Dnd ::0200 | awk 'NR == 2 { print $1 }')
check "NIC $nic has ATS" grep -q 'Address Translation Service' <(lspci -s "$nic" -vv)
nvme=$(lspci -Dnd ::0108 | awk 'NR == 2 { print $1 }')
expect_match "NVMe $nvme: reset methods" 'flr|pm|bus' "$(cat "/sys/bus/pci/devices/$nvme/reset_method")"
for dir in /sys/class/nvme/*; do
	read -r serial <"$dir/serial"
	if [[ $serial == boot ]]; then continue; fi
	read -r nvme <"$dir/address"
	expect_eq "NVMe $nvme holds its marker" "gpuvm-lab nvme${serial#lab}" "$(nvme_marker "$nvme")"
done

say "what the host itself uses"
expect_match "the management NIC has the default route" 'default via 10.0.2.2 dev eth' "$(ip route)"
mgmt=$(ip route show default | awk '{ print $5 }')
evidence "management NIC: $mgmt at $(basename "$(readlink -f "/sys/class/net/$mgmt/device/..")")"
check "the boot disk is mounted" findmnt -t ext4 /boot
evidence "boot disk: $(findmnt -no SOURCE /boot)"

say "the snapshot sees a change and sees it undone"
host_snapshot "$SCENARIO_TMP/a"
host_as_before "nothing has changed" "$SCENARIO_TMP/a"
gpu=$(lspci -Dnd ::0380 | awk 'NR == 1 { print $1 }')
modprobe vfio-pci
echo vfio-pci >"/sys/bus/pci/devices/$gpu/driver_override"
echo "$gpu" >/sys/bus/pci/drivers_probe
host_snapshot "$SCENARIO_TMP/b"
diff=$(host_compare "$SCENARIO_TMP/a" "$SCENARIO_TMP/b" || true)
expect_match "a bound GPU is seen" "\+driver $gpu vfio-pci" "$diff"
echo "$gpu" >/sys/bus/pci/drivers/vfio-pci/unbind
echo >"/sys/bus/pci/devices/$gpu/driver_override"
host_as_before "as before" "$SCENARIO_TMP/a"
