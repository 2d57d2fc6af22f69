# shellcheck shell=bash
# Two launchers want one GPU at the same moment, five times: one has it, the other one is told by whom. And QEMU is killed in the midst of DMA.
# shape: default
# timeout: 1500
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
host_snapshot "$SCENARIO_TMP/before"

for name in left right; do
	printf '[vm]\nname = %s\nfirmware = seabios\n[place]\ngpus = 1\ngpu-index = 5\n[memory]\nsize = 128M\n[lifecycle]\nstop-timeout = 500ms\n' \
		"$name" >"$SCENARIO_TMP/$name.ini"
done

say "two launchers, one GPU"
for round in 1 2 3 4 5; do
	declare -A pid=() code=()
	# Who is first changes from round to round.
	order=(left right)
	if ((round % 2)); then order=(right left); fi
	for name in "${order[@]}"; do
		gpuvm-launch -d "$SCENARIO_TMP/$name.ini" >"$SCENARIO_TMP/$name.log" 2>&1 &
		pid[$name]=$!
	done
	for name in left right; do
		code[$name]=0
		wait "${pid[$name]}" || code[$name]=$?
	done
	if ((code[left] == 0)); then winner=left loser=right; else winner=right loser=left; fi
	expect_eq "round $round: exit codes, the winner's first" "0 5" "${code[$winner]} ${code[$loser]}"
	expect_match "round $round: the winner is named" "'?$winner'?" "$(<"$SCENARIO_TMP/$loser.log")"
	check "round $round: the winner runs" vm_qemu_pid "$winner"
	check "round $round: the other one has no QEMU" no_vm "$loser"
	check "round $round: nor a claim" test ! -e "/run/gpuvm/$loser/claim.json"
	# No group in the hands of two, as the kernel has it.
	expect_eq "round $round: the winner's devices that are not on vfio-pci" "" \
		"$(for bdf in $(vm_devices "$winner"); do if [[ $(driver_of "$bdf") != vfio-pci ]]; then echo "$bdf"; fi; done)"
	evidence "round $round: $winner has it; ${order[0]} was started first; the other one: $(grep -m1 -i 'held' "$SCENARIO_TMP/$loser.log" || :)"
	check "round $round: it ends" vm_stop "$winner" 60
	host_as_before "round $round: host as before" "$SCENARIO_TMP/before"
done

say "QEMU is killed while its guest reads from the NVMe"
mkdir "$SCENARIO_TMP/guest"
cat >"$SCENARIO_TMP/guest/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules.order); do $b insmod /modules/$m; done
while [ ! -b /dev/nvme0n1 ]; do $b usleep 100000; done
n=0
while :; do
	$b dd if=/dev/nvme0n1 of=/dev/null bs=128k iflag=direct 2>/dev/null || $b dd if=/dev/nvme0n1 of=/dev/null bs=128k
	echo 1 >/proc/sys/vm/drop_caches
	n=$((n + 1))
	echo "READ $n"
done
INIT
guest_initrd "$SCENARIO_TMP/guest"
cat >"$SCENARIO_TMP/reader.ini" <<INI
[vm]
name = reader
firmware = seabios
kernel = $LAB_HOST/vmlinux
initrd = $SCENARIO_TMP/initrd.gz
append = console=ttyS0 quiet panic=-1 mitigations=off pcie_ports=compat cryptomgr.notests
[place]
gpus = 1
gpu-index = 5
[cpu]
vcpus = 1
[memory]
size = 256M
[console]
serial = log
INI
gpuvm plan --json "$SCENARIO_TMP/reader.ini" >"$SCENARIO_TMP/plan.json"
mapfile -t nvmes < <(jq -r '.devices[] | select(.role == "nvme") | .bdf' "$SCENARIO_TMP/plan.json")
content() { # of each of the VM's drives, while the host has them
	local bdf
	for bdf in "${nvmes[@]}"; do sha256sum <"/dev/$(nvme_of "$bdf")n1"; done
}
drives_are_there() {
	local bdf
	for bdf in "${nvmes[@]}"; do test -b "/dev/$(nvme_of "$bdf")n1" || return 1; done
}
content >"$SCENARIO_TMP/content"
gpuvm-launch "$SCENARIO_TMP/reader.ini" >"$SCENARIO_TMP/reader.log" 2>&1 &
launcher=$!
reads() { grep -qa "READ $1" /run/gpuvm/reader/serial.log; }
check "the guest reads again and again" wait_for 600 reads 3
qemu=$(vm_qemu_pid reader)
kill -KILL "$qemu"
rc=0
wait "$launcher" || rc=$?
expect_eq "the launcher's exit status" 6 "$rc"
expect_match "the reason" 'killed by signal 9' "$(gpuvm status reader)"
evidence "$(grep -m1 'ended' "$SCENARIO_TMP/reader.log" || :); after $(grep -ca READ /run/gpuvm/reader/serial.log) reads of ${nvmes[*]}"
host_as_before "host as before" "$SCENARIO_TMP/before"
check "the drives are back" wait_for 30 drives_are_there
content >"$SCENARIO_TMP/content.now"
check "and read as before" cmp "$SCENARIO_TMP/content" "$SCENARIO_TMP/content.now"
