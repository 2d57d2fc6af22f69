# shellcheck shell=bash disable=SC2016,SC2154 # jq programs; read_line sets $line
# Figures that need many devices or two nodes: probe against lstopo, all devices bound against the slowest, placement and preallocation by node. JSON lines.
# shape: default
# timeout: 2400
# long: yes
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
quiet=(--set lifecycle.stop-timeout=1s)

result() { evidence "$(jq -nc "$@")"; } # JQ ARGUMENTS...
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
timed() { # COMMAND...: ms
	local begin=${EPOCHREALTIME/./}
	"$@" >/dev/null
	echo "$(((${EPOCHREALTIME/./} - begin) / 1000))"
}

say "probe: gpuvm topo --json and lstopo --of xml, in turn"
if command -v lstopo-no-graphics >/dev/null; then
	for _ in 1 2 3 4 5 6 7; do
		timed gpuvm topo --json >>"$SCENARIO_TMP/gpuvm.ms"
		timed lstopo-no-graphics --of xml >>"$SCENARIO_TMP/lstopo.ms"
	done
	result --argjson ours "$(median <"$SCENARIO_TMP/gpuvm.ms")" --argjson peer "$(median <"$SCENARIO_TMP/lstopo.ms")" \
		'{row: "probe-lab", of: "gpuvm topo --json", ours_ms: $ours, lstopo_ms: $peer, ratio: ($ours / $peer * 100 | round / 100)}'
else
	result '{not_measured: "probe against lstopo", why: "there is no lstopo-no-graphics (tools/setup bench)"}'
fi

say "bind: the stage's own time, all devices side by side, and one of each kind alone"
gpuvm plan --json "$CONF/half0.ini" >"$SCENARIO_TMP/half0.json"
bind_ms() { # DEFINITION NAME
	gpuvm-launch -qd --timings "${quiet[@]}" "$1" | awk '$1 == "bind" { print $2 }'
	vm_stop "$2" 120
}
in_turn=0 slowest=0
for role in gpu nic nvme; do
	bdf=$(jq -r --arg role "$role" '[.devices[] | select(.role == $role) | .bdf] | first' "$SCENARIO_TMP/half0.json")
	n=$(jq --arg role "$role" '[.devices[] | select(.role == $role)] | length' "$SCENARIO_TMP/half0.json")
	printf '[vm]\nname = one\nfirmware = seabios\n[device x]\npci = %s\n[memory]\nsize = 128M\n' "$bdf" >"$SCENARIO_TMP/one.ini"
	for _ in 1 2 3; do bind_ms "$SCENARIO_TMP/one.ini" one; done >"$SCENARIO_TMP/$role.ms"
	ms=$(median <"$SCENARIO_TMP/$role.ms")
	read -r in_turn slowest < <(awk -v t="$in_turn" -v s="$slowest" -v ms="$ms" -v n="$n" 'BEGIN { print t + n * ms, (ms > s ? ms : s) }')
	result --arg role "$role" --argjson n "$n" --argjson ms "$ms" '{row: "bind-lab", role: $role, devices: $n, one_ms: $ms}'
done
for _ in 1 2 3; do
	gpuvm-launch -qd --timings "${quiet[@]}" "$CONF/half0.ini" >"$SCENARIO_TMP/timings"
	awk '$1 == "bind" { print $2 }' "$SCENARIO_TMP/timings" >>"$SCENARIO_TMP/all.ms"
	awk '/^read the host/ { print $4 }' "$SCENARIO_TMP/timings" >>"$SCENARIO_TMP/read.ms"
	vm_stop half0 120
done
if [[ -s $SCENARIO_TMP/lstopo.ms ]]; then
	result --argjson ours "$(median <"$SCENARIO_TMP/read.ms")" --argjson peer "$(median <"$SCENARIO_TMP/lstopo.ms")" \
		'{row: "probe-lab", of: "the step of a start", ours_ms: $ours, lstopo_ms: $peer, ratio: ($ours / $peer * 100 | round / 100)}'
fi
# Nothing is checked here: all CPUs of the emulated host are one thread.
result --argjson all "$(median <"$SCENARIO_TMP/all.ms")" --argjson turn "$in_turn" --argjson slowest "$slowest" \
	'{row: "bind-lab", role: "all", all_ms: $all, in_turn_ms: $turn, slowest_ms: $slowest, of_slowest: ($all / $slowest * 100 | round / 100)}'

say "the floor of bind: nothing but the writes for each device, all at once and one after the other"
mapfile -t bdfs < <(jq -r '.devices[].bdf' "$SCENARIO_TMP/half0.json")
move() { # DRIVER BDF: what binding it is to the kernel; DRIVER "": back to its own
	local dir=/sys/bus/pci/devices/$2
	echo "$1" >"$dir/driver_override"
	if [[ -e $dir/driver ]]; then echo "$2" >"$dir/driver/unbind"; fi
	echo "$2" >/sys/bus/pci/drivers_probe
}
all_at_once() {
	local bdf
	for bdf in "${bdfs[@]}"; do move vfio-pci "$bdf" & done
	wait
}
# The same, looking where those that wait are: the innermost function that is not only waiting.
all_watched() { # FILE
	local bdf pid pids=() function any=true
	for bdf in "${bdfs[@]}"; do
		move vfio-pci "$bdf" &
		pids+=($!)
	done
	while $any; do
		any=false
		for pid in "${pids[@]}"; do
			if [[ ! -e /proc/$pid/stack ]]; then continue; fi
			any=true
			while read -r _ function; do
				function=${function%%+*}
				case $function in
				__* | schedule* | down* | acpi_os_wait* | acpi_ut_acquire*) ;;
				*) echo "$function" >>"$1"; break ;;
				esac
			done 2>/dev/null <"/proc/$pid/stack" || :
		done
		sleep 0.1
	done
	wait "${pids[@]}"
}
one_by_one() {
	local bdf
	for bdf in "${bdfs[@]}"; do move vfio-pci "$bdf"; done
}
give_back() {
	local bdf
	for bdf in "${bdfs[@]}"; do
		expect_eq "driver of $bdf" vfio-pci "$(driver_of "$bdf")"
		move "" "$bdf"
	done
}
for _ in 1 2 3; do
	for how in one_by_one all_at_once; do
		timed "$how" >>"$SCENARIO_TMP/$how.ms"
		give_back
	done
done
all_watched "$SCENARIO_TMP/where"
give_back
where=$(sort "$SCENARIO_TMP/where" | uniq -c | sort -rn | awk 'NR <= 3 { printf "%s%s %d", (NR > 1 ? ", " : ""), $2, $1 }')
result --argjson all "$(median <"$SCENARIO_TMP/all.ms")" --argjson floor "$(median <"$SCENARIO_TMP/all_at_once.ms")" --argjson turn "$(median <"$SCENARIO_TMP/one_by_one.ms")" \
	--arg where "$where" '{row: "bind-floor", all_ms: $all, kernel_all_at_once_ms: $floor, kernel_in_turn_ms: $turn, of_floor: ($all / $floor * 100 | round / 100), waits_in: $where}'

say "prealloc: each node alone, and both together"
bench_prealloc() { "${LAB%/*}/tests/bench/run" --build "${GPUVM%/*}" --quick --json prealloc >"$SCENARIO_TMP/bench.json"; }
if [[ -x ${GPUVM%/*}/tests/bench_vm && -x ${GPUVM%/*}/tests/bench_touch ]]; then
	check "the bench runs" bench_prealloc
	expect_eq "its rows" "huge-all huge-node0 huge-node1 small-all small-node0 small-node1" "$(jq -r '[.rows[].row] | unique | join(" ")' "$SCENARIO_TMP/bench.json")"
	jq -c '.rows[] | {row: "prealloc-lab", text, ours_ms: .ours, peer_ms: .peer, ratio: .figure, low, high}' "$SCENARIO_TMP/bench.json" >"$SCENARIO_TMP/prealloc.rows"
	mapfile -t rows <"$SCENARIO_TMP/prealloc.rows"
	for row in "${rows[@]}"; do evidence "$row"; done
else
	result '{not_measured: "preallocation by node", why: "there is no bench_vm in the build (make bench makes it)"}'
fi

say "placement: pages on the planned node, threads on the planned CPUs"
# Of the guest's memory, the mapping with the most pages of its kind: the share on NODE.
pages_on() { # PID NODE
	awk -v node="N$2" '{
		sum = on = 0
		for (i = 3; i <= NF; i++) if ($i ~ /^N[0-9]+=/) { split($i, a, "="); sum += a[2]; if (a[1] == node) on += a[2] }
		if ($0 ~ /kernelpagesize_kB=2048/) sum *= 512
		if (sum > most) { most = sum; share = ($0 ~ /kernelpagesize_kB=2048/ ? 512 : 1) * on / sum }
	} END { print share + 0 }' "/proc/$1/numa_maps"
}
# The share of threads that may run on CPUs of the plan only: a vCPU on its own, others on QEMU's.
threads_on() { # PID PLAN
	local dir key value name want ok=0 all=0
	for dir in /proc/"$1"/task/*; do
		read_line "$dir/comm"
		name=$line want=
		while read -r key value; do if [[ $key == Cpus_allowed_list: ]]; then break; fi; done <"$dir/status"
		if [[ $name == "CPU "* ]]; then
			name=${name#CPU }
			want=$(jq -r --argjson v "${name%%/*}" '.vcpus[] | select(.vcpu == $v) | .host_cpu' "$2")
		else
			want=$(jq -r .emulator_cpus "$2")
		fi
		all=$((all + 1))
		if [[ $value == "$want" ]]; then ok=$((ok + 1)); fi
	done
	awk -v a="$ok" -v b="$all" 'BEGIN { print a / b }'
}
launch "$CONF/half0.ini" "${quiet[@]}"
plan=/run/gpuvm/half0/plan.json
cp "$plan" "$SCENARIO_TMP/plan.json"
pid=$(vm_qemu_pid half0)
node=$(jq '.nodes[0].host_node' "$plan")
pages=$(pages_on "$pid" "$node") threads=$(threads_on "$pid" "$plan")
result --argjson pages "$pages" --argjson threads "$threads" '{row: "placement", by: "gpuvm", pages_on_node: $pages, threads_on_cpus: $threads}'
expect_eq "share of the guest's pages on the planned node" 1 "$pages"
expect_eq "share of threads on the planned CPUs" 1 "$threads"
vcpus=$(jq '.vcpus | length' "$plan") mib=$(jq '[.nodes[].memory_bytes] | add / 1048576' "$plan")
check "the VM ends" vm_stop half0 120

# The same size without any placement, three times: it is chance.
for _ in 1 2 3; do
	qemu-system-x86_64 -name default -machine q35,accel=tcg -smp "$vcpus" -m "$mib" -mem-prealloc -nodefaults -display none -S -daemonize \
		-pidfile "$SCENARIO_TMP/default.pid"
	pid=$(<"$SCENARIO_TMP/default.pid")
	result --argjson pages "$(pages_on "$pid" "$node")" --argjson threads "$(threads_on "$pid" "$SCENARIO_TMP/plan.json")" \
		'{row: "placement", by: "QEMU alone", pages_on_node: $pages, threads_on_cpus: $threads}'
	kill "$pid"
	check "it ends" wait_for 60 no_process "$pid"
done
# The same by libvirt, which is told no more than the size.
if ! command -v libvirtd >/dev/null || ! command -v virsh >/dev/null; then
	result '{not_measured: "placement by libvirt'"'"'s default", why: "libvirt is not installed (tools/setup bench)"}'
	exit 0
fi
mkdir -p /run/libvirt
# virtlogd and users of its own are not what is measured.
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nstdio_handler = "file"\n' >/etc/libvirt/qemu.conf
libvirtd </dev/null >"$SCENARIO_TMP/libvirtd.log" 2>&1 &
libvirtd=$!
check "libvirtd answers" wait_for 180 virsh -q uri
cat >"$SCENARIO_TMP/default.xml" <<XML
<domain type='qemu'>
  <name>default</name>
  <memory unit='MiB'>$mib</memory>
  <memoryBacking><allocation mode='immediate'/></memoryBacking>
  <vcpu>$vcpus</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/><memballoon model='none'/></devices>
</domain>
XML
for _ in 1 2 3; do
	check "virsh starts it" virsh -q create --paused "$SCENARIO_TMP/default.xml"
	pid=$(</run/libvirt/qemu/default.pid)
	result --argjson pages "$(pages_on "$pid" "$node")" --argjson threads "$(threads_on "$pid" "$SCENARIO_TMP/plan.json")" \
		'{row: "placement", by: "libvirt", pages_on_node: $pages, threads_on_cpus: $threads}'
	check "virsh ends it" virsh -q destroy default
	check "it ends" wait_for 60 no_process "$pid"
done
kill "$libvirtd"
wait "$libvirtd" || :
