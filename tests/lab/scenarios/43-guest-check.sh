# shellcheck shell=bash
# A real Linux guest checks itself with the script from its cloud-init seed: all as planned; then with a device removed, and against another plan.
# shape: default
# timeout: 1700
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
serial=/run/gpuvm/checked/serial.log

guest=$SCENARIO_TMP/guest
mkdir -p "$guest"/{mnt,etc,tmp}
# The edits make another plan of the script: each names what it changes, and ats is asked of NICs that it is not asked of otherwise.
cat >"$guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in $(cat /modules.order); do insmod /modules/$m; done
i=0
while [ ! -b /dev/vda ] && [ $i -lt 600 ]; do usleep 100000; i=$((i + 1)); done
mount -t iso9660 -o ro /dev/vda /mnt
report() { # TITLE COMMAND...
	title=$1
	shift
	"$@" >/tmp/out 2>&1
	rc=$?
	while IFS= read -r line; do echo "REPORT $title $line"; done </tmp/out
	echo "REPORT $title exit $rc"
}
report first sh /mnt/gpuvm-check.sh
echo NCCL_TOPO_FILE=/mnt/nccl-topo.xml >/etc/nccl.conf
report planned sh /mnt/gpuvm-check.sh
report nccl sh -c 'sh /mnt/gpuvm-check.sh --nccl | cmp - /mnt/nccl-topo.xml'
sed -e '/device nic0/,/device_end/s/device_end/ats; device_end/' -e '/device gpu0/,/device_end/s/ [0-9a-f]\{4\}:[0-9a-f]\{4\} / 10de:2335 /' \
	-e '/device gpu1/,/device_end/{s/bars 0:[0-9]*/bars 0:4096/;s/ \([01]\)$/ 7/}' -e "/device nic1/s/'0000:/'0001:/" \
	-e 's/node 0 .* /&16/' -e 's/cpus 0-1 /cpus 0-7 /' /mnt/gpuvm-check.sh >/tmp/other.sh
report other sh /tmp/other.sh
gone=$(sed -n 's/^\tdevice nvme0 \([0-9a-f:.]*\) .*/\1/p' /mnt/gpuvm-check.sh)
echo 1 >/sys/bus/pci/devices/$gone/remove
report removed sh /mnt/gpuvm-check.sh
echo 1 >/sys/bus/pci/rescan
report rescanned sh /mnt/gpuvm-check.sh
echo "REPORT end"
poweroff -f
INIT
guest_initrd "$guest"

# GPUs 3 and 4 are the last of socket 0 and the first of socket 1.
cat >"$SCENARIO_TMP/checked.ini" <<INI
[vm]
name = checked
firmware = seabios
kernel = $LAB_HOST/vmlinux
initrd = $SCENARIO_TMP/initrd.gz
append = console=ttyS0 quiet panic=-1 mitigations=off pcie_ports=compat cryptomgr.notests
[place]
gpus = 2
gpu-index = 3
nvme = 1
[cpu]
vcpus = 2
[memory]
size = 512M
hugepages = 2M
[cloud-init]
[console]
serial = log
INI
reported() { # TITLE: what the guest said of this run
	tr -d '\r' <"$serial" | sed -n "s/^.*REPORT $1 //p"
}

host_snapshot "$SCENARIO_TMP/before"
gpuvm plan "$SCENARIO_TMP/checked.ini"
gpuvm guest-check "$SCENARIO_TMP/checked.ini" >"$SCENARIO_TMP/planned.sh"
rc=0
timeout 1500 "$GPUVM_LAUNCH" "$SCENARIO_TMP/checked.ini" >"$SCENARIO_TMP/launch.log" 2>&1 || rc=$?
cp "$serial" "$SCENARIO_DIR/serial.log"
cat "$SCENARIO_TMP/launch.log"
expect_eq "the guest shut down by itself: exit status" 0 "$rc"
expect_match "the launcher says where the check is" 'mount -o ro LABEL=CIDATA /mnt && sh /mnt/gpuvm-check.sh' "$(<"$SCENARIO_TMP/launch.log")"
expect_eq "the script on the seed is the planned one" "$(cksum <"$SCENARIO_TMP/planned.sh")" "$(cksum </run/gpuvm/checked/gpuvm-check.sh)"

check "the guest came to its end" grep -q 'REPORT end' "$serial"

say "as planned"
evidence "$(reported planned)"
devices=$(grep -c '^	device ' "$SCENARIO_TMP/planned.sh")
expect_eq "lines that are ok: a device each, CPUs, two nodes, NCCL" $((devices + 4)) "$(reported planned | grep -c '^ok  ' || true)"
expect_eq "other lines" "" "$(reported planned | grep -E '^(warning|problem|unknown) ' || true)"
expect_eq "summary" "problems: 0, warnings: 0, ok: $((devices + 4)), not known: 0" "$(reported planned | grep '^problems:' || true)"
expect_eq "exit status" "exit 0" "$(reported planned | tail -n 1)"
expect_eq "before NCCL_TOPO_FILE was set" "warning  nccl" "$(reported first | sed -n 's/^\(warning[^:]*\):.*/\1/p')"
expect_eq "--nccl prints the file of the seed" "exit 0" "$(reported nccl)"

say "against another plan"
evidence "$(reported other | grep -v '^ok ' || true)"
other=$(reported other)
expect_match "more CPUs" '^problem  cpus: 0-1 online, 0-7 planned' "$other"
expect_match "more memory" '^problem  node 0: it has [0-9]+ MiB, planned: ' "$other"
expect_match "another GPU" '^problem  gpu0: [0-9a-f:]+ is at [^ ]+, planned: 10de:2335' "$other"
expect_match "another BAR" '^problem  gpu1: BAR 0 has [0-9]+ bytes, planned: 4096' "$other"
expect_match "another node" '^problem  gpu1: its NUMA node is [01], planned: 7' "$other"
expect_match "another switch port" '^problem  nic1: it is below ' "$other"
expect_match "ATS is read from the device" '(^warning  nic0: its ATS is off|^ok       nic0: .*ATS on)' "$other"
expect_eq "exit status" "exit 1" "$(tail -n 1 <<<"$other")"

say "a device that was removed in the guest"
evidence "$(reported removed | grep -v '^ok ' || true)"
expect_match "it is missed" '^problem  nvme0: nothing is at ' "$(reported removed)"
expect_eq "summary" "problems: 1, warnings: 0, ok: $((devices + 3)), not known: 0" "$(reported removed | grep '^problems:' || true)"
expect_eq "after a rescan" "problems: 0, warnings: 0, ok: $((devices + 4)), not known: 0" "$(reported rescanned | grep '^problems:' || true)"
host_as_before "host as before" "$SCENARIO_TMP/before"
