# shellcheck shell=bash
# An upgrade under a running guest: the launcher is killed, programs from another folder take the VM over, and the guest counts on.
# shape: default
# timeout: 1700
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
output=
plan=$SCENARIO_TMP/plan.json
serial=/run/gpuvm/count/serial.log

# The guest counts, a number a second, on its serial console.
mkdir "$SCENARIO_TMP/guest"
cat >"$SCENARIO_TMP/guest/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules.order); do $b insmod /modules/$m; done
i=0
while :; do
	i=$((i + 1))
	echo "COUNT $i"
	$b sleep 1
done
INIT
guest_initrd "$SCENARIO_TMP/guest"
cat >"$SCENARIO_TMP/count.ini" <<INI
[vm]
name = count
firmware = seabios
kernel = $LAB_HOST/vmlinux
initrd = $SCENARIO_TMP/initrd.gz
append = console=ttyS0 quiet panic=-1 mitigations=off pcie_ports=compat cryptomgr.notests
[place]
gpus = 1
gpu-index = 0
[cpu]
vcpus = 1
[memory]
size = 256M
[console]
serial = log
[lifecycle]
stop-timeout = 500ms
INI
host_snapshot "$SCENARIO_TMP/before"
gpuvm plan --json "$SCENARIO_TMP/count.ini" >"$plan"
mapfile -t devices < <(jq -r '.devices[].bdf' "$plan" | sort)
evidence "devices: ${devices[*]}"
roles=$(jq -r '[.devices[].role] | sort | join(" ")' "$plan")
expect_match "a GPU, a NIC and an NVMe" 'gpu.*nic.*nvme' "$roles"

counted() { # the last number so far
	tr -d '\r' <"$serial" | sed -n 's/^.*COUNT \([0-9]*\)$/\1/p' | tail -n 1
}
reaches() { [[ $(counted) -ge $1 ]]; }
not_bound() { # the VM's devices that are not on vfio-pci
	local bdf
	for bdf in "${devices[@]}"; do if [[ $(driver_of "$bdf") != vfio-pci ]]; then echo "$bdf"; fi; done
}

say "it runs and counts"
launch "$SCENARIO_TMP/count.ini"
qemu=$(vm_qemu_pid count)
old=$(vm_launcher_pid count)
check "the guest counts" wait_for 1400 reaches 3
# When each number came, by the host's clock.
: >"$SCENARIO_TMP/times"
(
	exec 3>>"$SCENARIO_TMP/times"
	tail -n 0 -F "$serial" 2>/dev/null | while IFS= read -r line; do
		if [[ $line =~ COUNT\ ([0-9]+) ]]; then echo "${BASH_REMATCH[1]} $EPOCHREALTIME" >&3; fi
	done
) &
watcher=$!
check "and counts on" wait_for 120 reaches $(($(counted) + 8))

say "the launcher is killed, and the programs are replaced"
# Other files than those that the dead launcher was run from.
mkdir "$SCENARIO_TMP/new"
cp "$(command -v gpuvm)" "$(command -v gpuvm-launch)" "$SCENARIO_TMP/new/"
at=$(counted)
kill -KILL "$old"
check "it is gone" wait_for 30 no_process "$old"
expect_eq "QEMU is the same process" "$qemu" "$(vm_qemu_pid count)"
expect_eq "devices that are not on vfio-pci" "" "$(not_bound)"
expect_exit 5 "another VM does not get its GPU" gpuvm-launch -d "$SCENARIO_TMP/count.ini" --set vm.name=thief
expect_match "it is told whose it is" "held by the running VM 'count'" "$output"
check "gpuvm recover leaves it alone" gpuvm recover
expect_eq "QEMU is the same process" "$qemu" "$(vm_qemu_pid count)"

say "the new ones take it over"
check_show "gpuvm-launch -d" "$SCENARIO_TMP/new/gpuvm-launch" -d "$SCENARIO_TMP/count.ini"
expect_eq "QEMU is the same process" "$qemu" "$(vm_qemu_pid count)"
new=$(gpuvm status count --json | jq .pid)
expect_eq "its launcher is of the new programs" "$SCENARIO_TMP/new/gpuvm-launch" "$(readlink "/proc/$new/exe")"
expect_eq "devices that are not on vfio-pci" "" "$(not_bound)"
check_show "gpuvm verify" "$SCENARIO_TMP/new/gpuvm" verify count
check "the guest has counted on" wait_for 120 reaches $((at + 10))
kill "$watcher" 2>/dev/null || :
expect_eq "no number is missing" "" \
	"$(tr -d '\r' <"$serial" | sed -n 's/^.*COUNT \([0-9]*\)$/\1/p' | awk 'NR > 1 && $1 != last + 1 { print "after " last ": " $1 } { last = $1 }')"
# Seconds between two numbers: before the kill, and from then on. A machine that emulates this one and is busy makes all of them longer.
read -r before after < <(awk -v at="$at" 'NR > 1 { gap = $2 - last; if ($1 <= at) { if (gap > b) b = gap } else if (gap > a) a = gap } { last = $2 }
	END { printf "%.2f %.2f\n", b, a }' "$SCENARIO_TMP/times")
evidence "longest gap between two numbers: $before s before the kill, $after s from then on"
check "no gap of more than 2 s, or twice of what there was before" awk -v a="$after" -v b="$before" 'BEGIN { exit !(a > 0 && (a <= 2 || a <= 2 * b)) }'

say "the end"
check_show "gpuvm stop" "$SCENARIO_TMP/new/gpuvm" stop count
check "QEMU is gone" no_process "$qemu"
check "the new launcher, too" wait_for 30 no_process "$new"
expect_exit 0 "how it ended" gpuvm wait count
host_as_before "host as before" "$SCENARIO_TMP/before"
