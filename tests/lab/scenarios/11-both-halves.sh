# shellcheck shell=bash
# Both halves at once: no CPU, page or device shared; one stops and the other one does not notice.
# shape: default
# timeout: 900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

host_snapshot "$SCENARIO_TMP/before"
for vm in half0 half1; do gpuvm plan --json "$CONF/$vm.ini" >"$SCENARIO_TMP/$vm.json"; done

say "start both at the same time"
launch "$CONF/half0.ini" --set lifecycle.stop-timeout=3s &
first=$!
launch "$CONF/half1.ini" --set lifecycle.stop-timeout=3s &
second=$!
rc=0
wait "$first" || rc=$?
expect_eq "half0 starts: exit status" 0 "$rc"
rc=0
wait "$second" || rc=$?
expect_eq "half1 starts: exit status" 0 "$rc"

for vm in half0 half1; do
	say "$vm"
	check_show "gpuvm verify $vm" gpuvm verify "$vm"
	vm_check "$vm" "$SCENARIO_TMP/$vm.json"
done

say "nothing is shared"
common() { # COMMAND: lines that it prints for both
	comm -12 <("$1" half0 | sort -u) <("$1" half1 | sort -u)
}
vm_cpus() { # CPUs of the vCPU threads
	while read -r _ thread cpus; do
		if [[ $thread == CPU_* ]]; then cpus_of "$cpus" | tr ' ' '\n'; fi
	done < <(vm_threads "$1")
}
vm_nodes() { vm_hugepages "$1" | cut -d' ' -f1; }
vm_groups() { find "/proc/$(vm_qemu_pid "$1")/fd" -lname '/dev/vfio/[0-9]*' -printf '%l\n'; }
expect_eq "devices in common" "" "$(common vm_devices)"
expect_eq "CPUs of vCPUs in common" "" "$(common vm_cpus)"
expect_eq "memory nodes in common" "" "$(common vm_nodes)"
expect_eq "IOMMU groups in common" "" "$(common vm_groups)"
for vm in half0 half1; do
	evidence "$vm: devices $(vm_devices "$vm" | paste -sd' ')"
	evidence "$vm: vCPUs on CPUs $(vm_cpus "$vm" | sort -n | paste -sd' '); pages per node: $(vm_hugepages "$vm" | paste -sd';')"
done

say "stop one, the other one stays"
check "half0 ends" vm_stop half0 120
check "gpuvm verify half1" gpuvm verify half1
vm_check half1 "$SCENARIO_TMP/half1.json"
check "half1 ends" vm_stop half1 120
host_as_before "host as before" "$SCENARIO_TMP/before"
