# shellcheck shell=bash
# Who uses a device keeps it: a process is named and waited for, what the host itself does with it is refused at once, and nothing is touched.
# shape: default
# timeout: 600
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
output=

one=$SCENARIO_TMP/one.ini
printf '[vm]\nname = one\nfirmware = seabios\n[place]\ngpus = 1\ngpu-index = 2\n[memory]\nsize = 128M\n[lifecycle]\nstop-timeout = 500ms\n' >"$one"
gpuvm plan --json "$one" >"$SCENARIO_TMP/plan.json"
device() { jq -r --arg role "$1" '[.devices[] | select(.role == $role)][0].bdf' "$SCENARIO_TMP/plan.json"; }
gpu=$(device gpu) nic=$(device nic) nvme=$(device nvme)
node=/dev/$(nvme_of "$nvme")n1
evidence "one: GPU $gpu, NIC $nic, NVMe $nvme ($node)"
host_snapshot "$SCENARIO_TMP/before"

untouched() { # WHAT
	host_as_before "$1: host as before" "$SCENARIO_TMP/before"
	check "$1: no claim is left" test ! -e /run/gpuvm/one/claim.json
}
hold() { # start a process that has the node open
	sleep 10000 9<"$node" &
	holder=$!
}
let_go() {
	kill "$holder"
	wait "$holder" 2>/dev/null || :
}

say "a process has the NVMe open"
hold
expect_exit 5 "refused after the wait" timeout 120 gpuvm-launch "$one" --set lifecycle.busy-timeout=2s
expect_match "who is named: device, pid, command, node" "$nvme is in use: process $holder \(sleep\) has $node open" "$output"
expect_match "and for how long it was waited" 'waited [2-9] s' "$output"
evidence "$(grep -m1 'waited' <<<"$output" || :)"
untouched "a process has it"

say "it ends during the wait: the start goes on"
log=$SCENARIO_TMP/launch.log
gpuvm-launch "$one" --set lifecycle.busy-timeout=10min >"$log" 2>&1 &
launcher=$!
check "it says that it waits" wait_for 60 grep -q 'waiting until it is free' "$log"
expect_eq "nothing is bound meanwhile: driver of the NVMe" nvme "$(driver_of "$nvme")"
expect_eq "driver of the GPU" "" "$(driver_of "$gpu")"
check "QEMU is not there yet" no_vm one
let_go
is_running() { [[ $(gpuvm status one --json | jq -r .state) == running ]]; }
check "then it runs" wait_for 120 is_running
expect_eq "the NVMe is on" vfio-pci "$(driver_of "$nvme")"
check_show "gpuvm verify" gpuvm verify one
kill -TERM "$launcher"
rc=0
wait "$launcher" || rc=$?
expect_eq "asked to stop: exit status" 0 "$rc"
untouched "after it"

say "a wait that nobody wants any more"
hold
log=$SCENARIO_TMP/given-up.log
gpuvm-launch "$one" --set lifecycle.busy-timeout=10min >"$log" 2>&1 &
launcher=$!
check "it says that it waits" wait_for 60 grep -q 'waiting until it is free' "$log"
kill -TERM "$launcher"
rc=0
wait "$launcher" || rc=$?
expect_match "asked to stop while waiting: exit status" '^[15]$' "$rc"
expect_match "it says so" 'no longer waited for' "$(<"$log")"
let_go
untouched "a wait that was given up"

say "the host uses it: nobody waits"
cp "$node" "$SCENARIO_TMP/nvme.saved"
mkfs.ext4 -q -F "$node"
mkdir "$SCENARIO_TMP/mnt"
mount "$node" "$SCENARIO_TMP/mnt"
host_snapshot "$SCENARIO_TMP/mounted"
printf '\n[device own]\npci = %s\n' "$nvme" | cat "$one" - >"$SCENARIO_TMP/own.ini"
begin=$SECONDS
expect_exit 4 "a mounted NVMe that is asked for is refused by the plan" timeout 300 gpuvm-launch "$SCENARIO_TMP/own.ini" --set lifecycle.busy-timeout=10min
expect_match "the mount is named" "$nvme.*mounted on $SCENARIO_TMP/mnt" "$output"
check "at once" test $((SECONDS - begin)) -lt 300
host_as_before "host as before, the mount included" "$SCENARIO_TMP/mounted"
umount "$SCENARIO_TMP/mnt"

# In a mount namespace of its own, as a container's: /proc/self/mounts does not have it.
# shellcheck disable=SC2016 # for the shell in there to expand
unshare -m sh -c 'mount "$0" "$1" && echo mounted >"$2" && exec sleep 10000' "$node" "$SCENARIO_TMP/mnt" "$SCENARIO_TMP/ready" &
holder=$!
wait_for 30 test -s "$SCENARIO_TMP/ready"
begin=$SECONDS
expect_exit 5 "mounted where only the kernel knows" timeout 300 gpuvm-launch "$one" --set lifecycle.busy-timeout=10min
expect_match "the kernel's hold is told" "$nvme is in use: the kernel has ${node#/dev/} for itself" "$output"
check "at once" test $((SECONDS - begin)) -lt 300
untouched "mounted in a container"
let_go
wait_for 30 cp "$SCENARIO_TMP/nvme.saved" "$node" # the mount goes with its last process

say "an interface with an address"
interface=$(basename "$(echo "/sys/bus/pci/devices/$nic"/virtio*/net/*)")
ip addr add 192.0.2.1/24 dev "$interface"
ip link set "$interface" up
printf '\n[device own]\npci = %s\n' "$nic" | cat "$one" - >"$SCENARIO_TMP/own.ini"
expect_exit 4 "is refused by the plan" timeout 120 gpuvm-launch "$SCENARIO_TMP/own.ini"
expect_match "the interface and what it has are named" "$nic is used by the host: $interface has (the default|an IPv[46]) (route|address)" "$output"
ip link set "$interface" down
ip addr del 192.0.2.1/24 dev "$interface"
untouched "an interface with an address"

say "nobody has them any more"
launch "$one"
check_show "gpuvm verify" gpuvm verify one
check "it ends" vm_stop one 60
untouched "the end"
expect_match "the NVMe still says who it is" '^gpuvm-lab nvme' "$(nvme_marker "$nvme")"
