# shellcheck shell=bash
# A capture of this host plans like the host itself: the same GPUs, CPUs, memory and ports, far away from the machine.
# shape: default
# timeout: 400
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
tar=$SCENARIO_DIR/lab-capture.tar.gz

host_snapshot "$SCENARIO_TMP/before"
check_show "gpuvm capture" gpuvm capture "$tar"
expect_exit 1 "a file that is there is not overwritten" gpuvm capture "$tar"
evidence "size of the capture: $(stat -c %s "$tar") bytes"

# The MAC address of the management NIC and the machine's own names are in none of its files.
mkdir "$SCENARIO_TMP/capture"
tar -xzf "$tar" -C "$SCENARIO_TMP/capture"
for file in /sys/bus/pci/devices/*/virtio*/net/*/address; do mac=$(<"$file"); done
expect_eq "files with a MAC address" "" "$(grep -rIl "$mac" "$SCENARIO_TMP/capture")"

for ini in half0 half1 full; do
	live=$(gpuvm plan --json --set vm.accel=tcg "$CONF/$ini.ini" | jq -S '[.devices, .nodes, .vcpus, .argv]')
	far=$(gpuvm plan --json --set vm.accel=tcg --sysroot "$tar" "$CONF/$ini.ini" | jq -S '[.devices, .nodes, .vcpus, .argv]')
	expect_eq "$ini planned from the capture" "$live" "$far"
done
host_as_before "host as before" "$SCENARIO_TMP/before"
