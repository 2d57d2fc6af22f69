# shellcheck shell=bash
# QEMU with a GPU and an NVMe as a user without any right of its own: a Linux guest reads its NVMe, another VM's user gets nowhere, and all is root's again after.
# shape: default
# timeout: 1500
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
line=''

mkdir "$SCENARIO_TMP/guest"
cat >"$SCENARIO_TMP/guest/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules.order); do $b insmod /modules/$m; done
i=0
for c in /sys/class/nvme/nvme*; do
	dev=/dev/${c##*/}n1
	while [ ! -b $dev ] && [ $i -lt 600 ]; do $b usleep 100000; i=$((i + 1)); done
	echo "REPORT nvme holds $($b dd if=$dev bs=512 count=1 2>/dev/null | $b head -n 1 | $b tr -d '\000')"
done
echo "REPORT disk $($b dd if=/dev/vda bs=512 count=1 2>/dev/null | $b head -n 1 | $b tr -d '\000')"
echo "REPORT layered disk holds $($b dd if=/dev/vdb bs=512 count=1 2>/dev/null | $b head -n 1 | $b tr -d '\000')"
echo written | $b dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null && echo "REPORT disk is written to"
echo "REPORT end"
while :; do $b sleep 1000; done
INIT
guest_initrd "$SCENARIO_TMP/guest"

disk=$SCENARIO_TMP/disk.raw
truncate -s 1M "$disk"
echo "the disk" | dd of="$disk" conv=notrunc status=none
chmod 640 "$disk"
qemu-img create -q -f qcow2 "$SCENARIO_TMP/top.qcow2" 1M # until it is known on what to make it
cat >"$SCENARIO_TMP/guest.ini" <<INI
[vm]
name = guest
firmware = seabios
kernel = $LAB_HOST/vmlinux
initrd = $SCENARIO_TMP/initrd.gz
append = console=ttyS0 quiet panic=-1 mitigations=off pcie_ports=compat cryptomgr.notests
[place]
gpus = 1
gpu-index = 1
[cpu]
vcpus = 1
[memory]
size = 256M
[console]
serial = log
[disk data]
file = $disk
format = raw
[disk layered]
file = $SCENARIO_TMP/top.qcow2
[lifecycle]
stop-timeout = 2s
INI
cat >"$SCENARIO_TMP/other.ini" <<INI
[vm]
name = other
firmware = seabios
[place]
gpus = 1
gpu-index = 5
[cpu]
vcpus = 1
[memory]
size = 128M
[lifecycle]
stop-timeout = 2s
INI

owners() { stat -c '%n %u:%g %a' "$disk" /dev/vfio /dev/kvm /dev/vhost-net /dev/vhost-vsock 2>/dev/null || :; }
status_of() { # PID KEY: the value of a line of /proc/PID/status
	sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status" | tr -s '\t ' ' '
}
groups_of() { # NAME: the VFIO nodes of its devices
	local bdf path
	for bdf in $(vm_devices "$1"); do
		path=$(resolve "/sys/bus/pci/devices/$bdf/iommu_group")
		echo "/dev/vfio/${path##*/}"
	done | sort -u
}
as() { # UID COMMAND...
	setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"
}

host_snapshot "$SCENARIO_TMP/before"
modprobe vfio-pci
before=$(owners)
# As on a machine whose cgroups are nobody's: with real controllers.
mount -t cgroup2 none /sys/fs/cgroup
bdf=$(gpuvm plan --json "$SCENARIO_TMP/guest.ini" | jq -r '[.devices[] | select(.role == "nvme")][0].bdf')
marker=$(nvme_marker "$bdf")
# A drive that neither VM gets, below two files of the guest's second disk.
taken=$(for vm in guest other; do gpuvm plan --json "$SCENARIO_TMP/$vm.ini" | jq -r '.devices[].bdf'; done)
for c in /sys/class/nvme/nvme*; do
	read_line "$c/address"
	if ! grep -qxF "$line" <<<"$taken"; then break; fi
done
lowest=/dev/${c##*/}n1
lowest_marker=$(nvme_marker "$line")
mode=$(stat -c %a "$lowest")
qemu-img create -q -f qcow2 -b "$lowest" -F raw "$SCENARIO_TMP/middle.qcow2"
chmod 644 "$SCENARIO_TMP/middle.qcow2"
qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 "$SCENARIO_TMP/top.qcow2"
expect_exit 4 "what a disk is made on must be readable" gpuvm-launch -d "$SCENARIO_TMP/guest.ini"
chmod o+r "$lowest"

say "a Linux guest with a GPU, a NIC and an NVMe"
launch "$SCENARIO_TMP/guest.ini"
qemu=$(vm_qemu_pid guest)
uid=$(status_of "$qemu" Uid | cut -d' ' -f1)
check "QEMU is not root: uid $uid" test "$uid" -gt 0
expect_eq "all of its user IDs" "$uid $uid $uid $uid" "$(status_of "$qemu" Uid)"
for set in CapInh CapPrm CapEff CapBnd CapAmb; do expect_eq "$set" 0000000000000000 "$(status_of "$qemu" $set)"; done
expect_eq "no new privileges" 1 "$(status_of "$qemu" NoNewPrivs)"
expect_eq "seccomp filter" 2 "$(status_of "$qemu" Seccomp)"
expect_eq "no user database knows it" "" "$(getent passwd "$uid" || :)"
for node in $(groups_of guest); do expect_eq "$node is its own" "$uid 600" "$(stat -c '%u %a' "$node")"; done
check_show "gpuvm status --security" gpuvm status --security guest
group=/sys/fs/cgroup/gpuvm.slice/guest
expect_eq "its cgroup" 0::/gpuvm.slice/guest "$(grep '^0:' "/proc/$qemu/cgroup")"
check "a limit of memory: $(<$group/memory.max)" test "$(<$group/memory.max)" -gt $((4 << 30)) -a "$(<$group/memory.max)" -lt $((5 << 30))
check "a limit of threads: $(<$group/pids.max)" test "$(<$group/pids.max)" -ge 1024
expect_eq "CPUs: where its threads are, and no other node's" 0-9 "$(<$group/cpuset.cpus.effective)"
expect_match "its devices" 'devices +only those of the plan' "$(gpuvm status --security guest)"
# Root's shell in its cgroup: what permissions allow is refused.
in_group() { bash -c "echo \$\$ >$group/cgroup.procs; $1"; }
check "a device of the plan can be opened there" in_group ": <>/dev/vfio/vfio"
expect_exit 1 "another one cannot" in_group ": </dev/kmsg"
check "gpuvm verify" gpuvm verify guest
expect_eq "lines that are not ok" 0 "$(gpuvm status --security --json guest | jq '[.[] | select(.ok | not)] | length')"
check "the guest reports" wait_for 900 grep -q 'REPORT end' /run/gpuvm/guest/serial.log
report=$(tr -d '\r' </run/gpuvm/guest/serial.log | sed -n 's/^.*REPORT //p')
evidence "$report"
expect_match "what the guest read from its NVMe: $marker" "^nvme holds $marker" "$report"
expect_match "and from the drive that its second disk is made on: $lowest_marker" "^layered disk holds $lowest_marker" "$report"
expect_match "its disk is read" '^disk the disk' "$report"
expect_match "and written to" '^disk is written to' "$report"

say "another VM's user"
launch "$SCENARIO_TMP/other.ini"
other=$(status_of "$(vm_qemu_pid other)" Uid | cut -d' ' -f1)
check "is another one: $other" test "$other" -gt 0 -a "$other" -ne "$uid"
for node in $(groups_of other); do check "may open $node, its own" as "$other" test -r "$node" -a -w "$node"; done
for node in $(groups_of guest); do expect_exit 1 "may not open $node" as "$other" bash -c "exec 3<>$node"; done
expect_exit 1 "may not read the disk" as "$other" cat "$disk"
for sock in control qmp; do expect_exit 1 "may not reach $sock.sock" as "$other" test -w "/run/gpuvm/guest/$sock.sock"; done
expect_exit 1 "may not read the claim" as "$other" cat /run/gpuvm/guest/claim.json
expect_exit 1 "nor its own VM's" as "$other" cat /run/gpuvm/other/claim.json
expect_exit 1 "may not signal its QEMU" as "$other" bash -c "kill -0 $qemu"

say "after the end"
check "it ends" vm_stop guest 60
expect_eq "owners are as before" "$before" "$(owners)"
check "its cgroup is gone" test ! -e $group
check "the other VM's nodes are still its own" test "$(stat -c %u "$(groups_of other | sed -n 1p)")" = "$other"

say "launcher and QEMU are killed: recover gives back"
launch "$SCENARIO_TMP/guest.ini"
for vm in guest other; do
	qemu=$(vm_qemu_pid $vm)
	kill -KILL "$(vm_launcher_pid $vm)" "$qemu"
	check "QEMU of $vm is gone" wait_for 60 no_process "$qemu"
done
check "the disk is still its user's" test "$(stat -c %u "$disk")" = "$uid"
check_show "gpuvm recover" gpuvm recover
expect_eq "owners are as before" "$before" "$(owners)"
expect_eq "nothing in /run/gpuvm is anybody else's" "" "$(find /run/gpuvm ! -uid 0 -o ! -gid 0)"
check "no cgroup is left" test -z "$(find /sys/fs/cgroup/gpuvm.slice -mindepth 1 -type d)"
umount /sys/fs/cgroup
chmod "$mode" "$lowest"
host_as_before "host as before" "$SCENARIO_TMP/before"
