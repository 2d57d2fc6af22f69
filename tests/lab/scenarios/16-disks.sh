# shellcheck shell=bash
# A real Linux guest over two sockets with disks: queues and who uses them, I/O threads on their nodes, the cloud-init seed, agent, vsock; a TPM that is left alone.
# shape: default
# timeout: 1700
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
plan=$SCENARIO_TMP/plan.json
serial=/run/gpuvm/disks/serial.log

guest=$SCENARIO_TMP/guest
mkdir -p "$guest/mnt"
cat >"$guest/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules.order); do $b insmod /modules/$m; done
say() { echo "REPORT $*"; }
# SCSI disks appear a while after the module is in.
i=0
while [ ! -b /dev/sda ] && [ $i -lt 600 ]; do $b usleep 100000; i=$((i + 1)); done
for d in /sys/block/vd? /sys/block/sd?; do
	dev=/dev/${d##*/}
	serial=$($b cat $d/serial 2>/dev/null || $b tail -c +5 $d/device/vpd_pg80)
	say disk $serial queues $($b ls $d/mq | $b wc -l) ro $($b cat $d/ro) begins $($b dd if=$dev bs=512 count=1 2>/dev/null | $b head -n 1 | $b tr -d '\000')
	for q in $d/mq/*; do say queue $serial ${q##*/} cpus $($b cat $q/cpu_list); done
	# The volume name of an ISO 9660 image.
	case $($b dd if=$dev bs=1 skip=32808 count=6 2>/dev/null) in CIDATA) seed=$dev ;; esac
done
say seed $seed
$b mount -t iso9660 -o ro $seed /mnt
say files $($b ls /mnt)
say user-data $($b md5sum </mnt/user-data)
say meta-data $($b cat /mnt/meta-data)
say written $(echo by the guest | $b dd of=/dev/vda bs=512 count=1 seek=8 conv=fsync 2>&1 | $b grep -c 'records out')
for n in /sys/class/virtio-ports/*/name; do say port $($b cat $n); done
say end
while :; do $b sleep 1000; done
INIT
guest_initrd "$guest"

# Files with names that have to be written with care.
os="$SCENARIO_TMP/o,s 'x'=1.raw" data="$SCENARIO_TMP/data:2.qcow2" user="$SCENARIO_TMP/user, data"
for name in os data; do
	printf 'gpuvm-lab disk %s\n' "$name" >"$SCENARIO_TMP/$name.raw"
	truncate -s 4M "$SCENARIO_TMP/$name.raw"
done
mv "$SCENARIO_TMP/os.raw" "$os"
qemu-img convert -f raw -O qcow2 "$SCENARIO_TMP/data.raw" "$data"
printf 'gpuvm-lab disk unit\n' >"$SCENARIO_TMP/unit.img"
truncate -s 4M "$SCENARIO_TMP/unit.img"
printf '#cloud-config\nruncmd: [ "echo, = :" ]\n' >"$user"

# GPUs 3 and 4 are the last of socket 0 and the first of socket 1.
cat >"$SCENARIO_TMP/disks.ini" <<INI
[vm]
name = disks
firmware = seabios
kernel = $LAB_HOST/vmlinux
initrd = $SCENARIO_TMP/initrd.gz
append = console=ttyS0 quiet panic=-1 mitigations=off pcie_ports=compat cryptomgr.notests
[place]
gpus = 2
gpu-index = 3
nics = none
nvme = none
[cpu]
vcpus = 4
[memory]
size = 512M
hugepages = 2M
[disk os]
file = $os
[disk data]
file = $data
queues = 2
readonly = on
[disk unit]
file = $SCENARIO_TMP/unit.img
bus = scsi
serial = unit,1=a
[cloud-init]
user-data = $user
[guest]
vsock = auto
[console]
serial = log
[lifecycle]
stop-timeout = 1s
INI
reported() { # WORDS...: what the guest said behind them
	tr -d '\r' <"$serial" | sed -n "s/^.*REPORT $* //p"
}
guest_done() { grep -q 'REPORT end' "$serial"; }
node_of() { # CPU
	local dir
	for dir in "/sys/devices/system/cpu/cpu$1/"node*; do echo "${dir##*node}"; done
}

host_snapshot "$SCENARIO_TMP/before"
gpuvm plan "$SCENARIO_TMP/disks.ini"
gpuvm plan --json "$SCENARIO_TMP/disks.ini" >"$plan"
check_show "gpuvm-launch -d disks" launch "$SCENARIO_TMP/disks.ini"
pid=$(vm_qemu_pid disks)

say "threads on their nodes"
vm_check disks "$plan"
vm_threads disks | awk '$2 ~ /^IO_io/ { print substr($2, 4), $3 }' | sort >"$SCENARIO_TMP/threads"
show cat "$SCENARIO_TMP/threads"
expect_eq "I/O threads and their CPUs, as planned" "$(jq -r '.iothreads[] | "\(.id) \(.host_cpus)"' "$plan" | sort)" "$(<"$SCENARIO_TMP/threads")"
expect_eq "I/O threads" "io0 io1" "$(cut -d' ' -f1 "$SCENARIO_TMP/threads" | paste -sd' ')"
while read -r io cpus; do
	for cpu in $(cpus_of "$cpus"); do
		expect_eq "$io: the node of CPU $cpu" "$(jq -r --arg io "$io" '.nodes[] | select("io\(.guest_node)" == $io) | .host_node' "$plan")" "$(node_of "$cpu")"
	done
done <"$SCENARIO_TMP/threads"
check_show "gpuvm verify disks" gpuvm verify disks
expect_eq "QEMU has /dev/vhost-vsock open" 1 "$(find "/proc/$pid/fd" -lname /dev/vhost-vsock | wc -l)"

say "what the guest sees"
wait_for 1400 guest_done
cp "$serial" "$SCENARIO_DIR/serial.log"
evidence "$(reported '')"
expect_eq "os: queues, contents" "4 ro 0 begins gpuvm-lab disk os" "$(reported disk os queues)"
expect_eq "data: queues, contents" "2 ro 1 begins gpuvm-lab disk data" "$(reported disk data queues)"
expect_eq "unit: queues, contents" "4 ro 0 begins gpuvm-lab disk unit" "$(reported disk unit,1=a queues)"
# The rule by which queues are spread over I/O threads: with two equal nodes the second one's CPUs come first.
expect_eq "os: who uses which queue" "0 cpus 2
1 cpus 3
2 cpus 0
3 cpus 1" "$(reported queue os)"
expect_eq "data: who uses which queue" "0 cpus 0, 1
1 cpus 2, 3" "$(reported queue data)"
expect_match "the seed is one of the disks" '^/dev/vd' "$(reported seed)"
expect_eq "files of the seed" "gpuvm-check.sh meta-data nccl-topo.xml user-data" "$(reported files)"
expect_eq "user-data, read in the guest" "$(md5sum <"$user" | cut -d' ' -f1)" "$(reported user-data | cut -d' ' -f1)"
expect_eq "meta-data" 'instance-id: "disks" local-hostname: "disks"' "$(reported meta-data)"
expect_eq "the guest wrote to its disk" 1 "$(reported written)"
expect_eq "and the file has it" "by the guest" "$(dd if="$os" bs=1 skip=4096 count=12 2>/dev/null)"
expect_eq "the guest agent's channel" org.qemu.guest_agent.0 "$(reported port)"

say "its end"
check "the VM ends" vm_stop disks 60
expect_eq "sockets and seed are gone" "" "$(find /run/gpuvm/disks -name '*.sock' -o -name 'seed*')"
host_as_before "host as before" "$SCENARIO_TMP/before"

# Not above: QEMU 7.2 loads the initrd of an uncompressed kernel over the ACPI tables when a TPM makes them longer.
say "again with a TPM, and everything killed at once"
check "start again" launch "$SCENARIO_TMP/disks.ini" --set guest.tpm=on
qemu=$(vm_qemu_pid disks)
swtpm=$(jq -r '.helpers[0].pid' /run/gpuvm/disks/claim.json)
expect_match "swtpm runs" '^swtpm' "$(<"/proc/$swtpm/comm")"
kill -KILL "$(vm_launcher_pid disks)" "$qemu"
check "QEMU is gone" wait_for 60 no_process "$qemu"
check "swtpm has ended by itself" wait_for 60 no_process "$swtpm"
check "gpuvm recover" gpuvm recover
expect_eq "sockets and seed are gone" "" "$(find /run/gpuvm/disks -name '*.sock' -o -name 'seed*')"
check "the TPM's state is kept" test -s /var/lib/gpuvm/tpm/disks/tpm2-00.permall
host_as_before "host as before" "$SCENARIO_TMP/before"
