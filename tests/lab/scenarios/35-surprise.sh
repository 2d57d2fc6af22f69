# shellcheck shell=bash
# A device of a running VM is lost: its slot has no power any more (it reads as all ones, as a GPU that fell off the bus), and another one is removed by hand.
# shape: default
# timeout: 1200
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
output=

define() { # NAME GPU
	printf '[vm]\nname = %s\nfirmware = seabios\n[place]\ngpus = 1\ngpu-index = %s\n[memory]\nsize = 128M\n[lifecycle]\nstop-timeout = 500ms\n' "$1" "$2" \
		>"$SCENARIO_TMP/$1.ini"
}
define lost 1
define other 2
lost=$SCENARIO_TMP/lost.ini
gpuvm plan --json "$lost" >"$SCENARIO_TMP/plan.json"
device() { jq -r --arg role "$1" '[.devices[] | select(.role == $role)][0].bdf' "$SCENARIO_TMP/plan.json"; }
mapfile -t devices < <(jq -r '.devices[].bdf' "$SCENARIO_TMP/plan.json")
gpu=$(device gpu) nvme=$(device nvme)
port=$(bridges_of "$gpu")
port=${port##* }
record=/var/lib/gpuvm/bad/$gpu.json
host_snapshot "$SCENARIO_TMP/before"
evidence "GPU $gpu below port $port, NVMe $nvme"

# The power controller of the port's slot (Slot Control, bit 10). The kernel is not told: presence and link stay as they were.
power() { # on|off
	if [[ $1 == off ]]; then setpci -s "$port" CAP_EXP+18.w=0400:0400; else setpci -s "$port" CAP_EXP+18.w=0000:0400; fi
}
ids() { setpci -s "$gpu" 00.l; }
away() { # which of the lost VM's devices are not back with their drivers
	local bdf
	for bdf in "${devices[@]}"; do if [[ $(driver_of "$bdf") == vfio-pci ]]; then echo "$bdf"; fi; done
}

say "the GPU of a running VM loses its power"
launch "$lost"
was=$(ids)
power off
expect_eq "its ids, read from config space" ffffffff "$(ids)"
check "QEMU lives on: nobody has told it" vm_qemu_pid lost
launcher=$(vm_launcher_pid lost)
check "it can be stopped" vm_stop lost 120
check "the launcher is gone" no_process "$launcher"
show gpuvm status lost || :
expect_eq "devices that are still on vfio-pci" "" "$(away)"
check "no claim is left" test ! -e /run/gpuvm/lost/claim.json
check "the GPU is marked as bad" test -e "$record"
evidence "$(jq -r .reason "$record" || :)"
check_show "gpuvm topo says so" sh -c "gpuvm topo | grep -i 'bad\|$gpu'"
expect_exit 4 "a VM that needs it is refused" gpuvm-launch -d "$lost"
expect_match "with the reason" "$gpu.*(bad|answer)" "$output"
launch "$SCENARIO_TMP/other.ini"
check "another VM starts" gpuvm verify other
check "it ends" vm_stop other 60
power on
expect_eq "with power again it says who it is" "$was" "$(ids)"
expect_exit 4 "but a record is for somebody to look at" gpuvm-launch -d "$lost"
check_show "which clears it" gpuvm doctor --clear "$gpu"
launch "$lost"
check "it is given again" gpuvm verify lost

say "its NVMe is removed by hand while the VM runs"
# The kernel asks QEMU to let go of it, and waits.
(echo 1 >"/sys/bus/pci/devices/$nvme/remove") &
remover=$!
is_asked() { dmesg | grep "vfio-pci $nvme: Relaying device request to user" >/dev/null; }
check "the kernel asks for it" wait_for 60 is_asked
check "the guest goes on" vm_qemu_pid lost
launcher=$(vm_launcher_pid lost)
check "it can be stopped" vm_stop lost 120
wait "$remover" || bad "the removal ends"
check "the NVMe is gone" test ! -e "/sys/bus/pci/devices/$nvme"
show gpuvm status lost || :
expect_eq "the other devices are back" "" "$(away)"
# What is not there cannot be given back: the claim goes on saying which driver it came from.
check "its claim stays" test -e /run/gpuvm/lost/claim.json
expect_exit 1 "gpuvm recover says what is missing" gpuvm recover lost
expect_match "by its address" "$nvme" "$output"
expect_eq "the claim has only that device" "$nvme" "$(jq -r '.devices[].bdf' /run/gpuvm/lost/claim.json)"
expect_exit 5 "the VM is refused until that is cured" gpuvm-launch -d "$lost"
launch "$SCENARIO_TMP/other.ini"
check "another VM starts" gpuvm verify other
check "it ends" vm_stop other 60
echo 1 >/sys/bus/pci/rescan
check "a rescan brings it back" wait_for 60 test -e "/sys/bus/pci/devices/$nvme/driver"
check_show "gpuvm recover" gpuvm recover lost
check "no claim is left" test ! -e /run/gpuvm/lost/claim.json
launch "$lost"
check "the VM starts again, with its NVMe" gpuvm verify lost
check "it ends" vm_stop lost 60
host_as_before "host as before" "$SCENARIO_TMP/before"
