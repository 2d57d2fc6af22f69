# shellcheck shell=bash disable=SC2016,SC2154 # jq programs; read_line sets $line
# Figures that need many devices or two nodes: probe against lstopo, all devices bound against the slowest, placement against QEMU's default. JSON lines.
# shape: default
# timeout: 1500
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
		'{row: "probe-lab", ours_ms: $ours, lstopo_ms: $peer, ratio: ($ours / $peer * 100 | round / 100)}'
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
for _ in 1 2 3; do bind_ms "$CONF/half0.ini" half0; done >"$SCENARIO_TMP/all.ms"
# Nothing is checked here: all CPUs of the emulated host are one thread.
result --argjson all "$(median <"$SCENARIO_TMP/all.ms")" --argjson turn "$in_turn" --argjson slowest "$slowest" \
	'{row: "bind-lab", role: "all", all_ms: $all, in_turn_ms: $turn, slowest_ms: $slowest, of_slowest: ($all / $slowest * 100 | round / 100)}'

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
result '{not_measured: "placement by libvirt'"'"'s default", why: "no libvirtd is started in the emulated host"}'
