# shellcheck shell=bash
# A real Linux guest over two sockets reports from inside: nodes, devices, switches above them, and a read from its NVMe.
# shape: default
# timeout: 1700
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
plan=$SCENARIO_TMP/plan.json

# The guest: the lab's kernel, busybox, and an init that reports on the serial console and powers off.
mkdir "$SCENARIO_TMP/guest"
cat >"$SCENARIO_TMP/guest/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules.order); do $b insmod /modules/$m; done
say() { echo "REPORT $*"; }
for n in /sys/devices/system/node/node[0-9]*; do
	say node ${n##*/node} cpus $($b cat $n/cpulist) kb $($b awk '/MemTotal/ { print $4 }' $n/meminfo)
done
for d in /sys/bus/pci/devices/*; do
	say pci ${d##*/} class $($b cat $d/class) id $($b cat $d/vendor) $($b cat $d/device) node $($b cat $d/numa_node) path $($b readlink -f $d)
done
# The namespace appears a while after the module is in.
i=0
for c in /sys/class/nvme/nvme*; do
	dev=/dev/${c##*/}n1
	while [ ! -b $dev ] && [ $i -lt 600 ]; do $b usleep 100000; i=$((i + 1)); done
	pci=$($b readlink -f $c/device)
	say nvme ${pci##*/} holds $($b dd if=$dev bs=512 count=1 2>/dev/null | $b head -n 1 | $b tr -d '\000')
done
say end
$b poweroff -f
INIT
guest_initrd "$SCENARIO_TMP/guest"

# GPUs 3 and 4 are the last of socket 0 and the first of socket 1.
cat >"$SCENARIO_TMP/guest.ini" <<INI
[vm]
name = guest
firmware = seabios
kernel = $LAB_HOST/vmlinux
initrd = $SCENARIO_TMP/initrd.gz
append = console=ttyS0 quiet panic=-1 mitigations=off pcie_ports=compat cryptomgr.notests
[place]
gpus = 2
gpu-index = 3
[cpu]
vcpus = 2
[memory]
size = 512M
hugepages = 2M
[console]
serial = log
INI

host_snapshot "$SCENARIO_TMP/before"
gpuvm plan "$SCENARIO_TMP/guest.ini"
gpuvm plan --json "$SCENARIO_TMP/guest.ini" >"$plan"
# While the host still has them: what each NVMe of the plan holds, and the class of each device.
jq -r '.devices[] | "\(.id) \(.bdf) \(.role) \(.guest.node) \(.guest.bus_nr) \(.guest.switch) \(.host_path | length)"' "$plan" >"$SCENARIO_TMP/devices"
declare -A marker class
while read -r id bdf role _; do
	class[$id]=$(cat "/sys/bus/pci/devices/$bdf/class")
	if [[ $role == nvme ]]; then marker[$id]=$(nvme_marker "$bdf"); fi
done <"$SCENARIO_TMP/devices"

say "run the guest until it powers itself off"
rc=0
timeout 1500 "$GPUVM_LAUNCH" "$SCENARIO_TMP/guest.ini" >"$SCENARIO_TMP/launch.log" 2>&1 || rc=$?
cp /run/gpuvm/guest/serial.log "$SCENARIO_DIR/serial.log"
cat "$SCENARIO_TMP/launch.log"
expect_eq "the guest shut down by itself: exit status" 0 "$rc"
report=$SCENARIO_TMP/report
tr -d '\r' <"$SCENARIO_DIR/serial.log" | sed -n 's/^.*REPORT //p' >"$report"
check "the report is complete" grep -qx end "$report"
evidence "$(cat "$report")"

say "the report against the plan"
expect_eq "guest nodes" "$(jq -r '.nodes[].guest_node' "$plan" | sort -n | paste -sd' ')" \
	"$(awk '$1 == "node" { print $2 }' "$report" | sort -n | paste -sd' ')"
while read -r node bytes; do
	expect_eq "guest node $node: vCPUs" "$(jq -r --argjson n "$node" '[.vcpus[] | select(.guest_node == $n) | .vcpu] | sort | join(" ")' "$plan")" \
		"$(cpus_of "$(awk -v n="$node" '$1 == "node" && $2 == n { print $4 }' "$report")")"
	# The kernel keeps a part for itself.
	kb=$(awk -v n="$node" '$1 == "node" && $2 == n { print $6 }' "$report")
	check "guest node $node: $kb kB of $((bytes / 1024))" test "$kb" -gt $((bytes * 2 / 3 / 1024)) -a "$kb" -le $((bytes / 1024))
done < <(jq -r '.nodes[] | "\(.guest_node) \(.memory_bytes)"' "$plan")

declare -A switch_bdf
while read -r id bdf role node bus_nr switch depth; do
	guest=$(printf '0000:%02x:00.0' "$bus_nr")
	found=$(awk -v b="$guest" '$1 == "pci" && $2 == b' "$report")
	read -r _ _ _ guest_class _ guest_vendor guest_device _ guest_node _ path <<<"$found"
	expect_eq "$id ($bdf) is $guest: class" "${class[$id]}" "${guest_class:-not there}"
	expect_eq "$id: id" "$(cat "/sys/bus/pci/devices/$bdf/vendor" "/sys/bus/pci/devices/$bdf/device" | paste -sd' ')" "${guest_vendor:-} ${guest_device:-}"
	expect_eq "$id: numa_node in the guest" "$node" "${guest_node:-}"
	read -ra above <<<"$(tr / '\n' <<<"${path%/*}" | grep -E '^[0-9a-f]{4}:..:..\..$' | paste -sd' ')"
	expect_eq "$id: bridges above it, as on the host" "$depth" "${#above[@]}"
	# One switch of the plan is one upstream port in the guest, and the other way round.
	if [[ $switch != null ]]; then
		upstream=${above[1]:-none}
		expect_eq "$id: below switch $switch" "${switch_bdf[$switch]:-$upstream}" "$upstream"
		switch_bdf[$switch]=$upstream
	fi
	if [[ $role == nvme ]]; then
		expect_eq "$id: what the guest read from it" "${marker[$id]}" \
			"$(awk -v b="$guest" '$1 == "nvme" && $2 == b { sub(/.*holds /, ""); print }' "$report")"
	fi
done <"$SCENARIO_TMP/devices"
expect_eq "switches in the guest" "${#switch_bdf[@]}" "$(printf '%s\n' "${switch_bdf[@]}" | sort -u | wc -l)"
host_as_before "host as before" "$SCENARIO_TMP/before"
