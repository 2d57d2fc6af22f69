# shellcheck shell=bash
# One socket, one node: two tenants with two GPUs each, placed by gpuvm, side by side.
# shape: one-socket
# timeout: 600
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

host_snapshot "$SCENARIO_TMP/before"
for name in first second; do
	printf '[vm]\nname = %s\n[place]\ngpus = 2\n[lifecycle]\nstop-timeout = 3s\n' "$name" >"$SCENARIO_TMP/$name.ini"
	show gpuvm plan "$SCENARIO_TMP/$name.ini"
	gpuvm plan --json "$SCENARIO_TMP/$name.ini" >"$SCENARIO_TMP/$name.json"
	expect_eq "$name: GPUs" 2 "$(jq '[.devices[] | select(.role == "gpu")] | length' "$SCENARIO_TMP/$name.json")"
	launch "$SCENARIO_TMP/$name.ini"
done
expect_eq "devices in both VMs" "" "$(comm -12 <(vm_devices first) <(vm_devices second))"
for name in first second; do
	check_show "gpuvm verify $name" gpuvm verify "$name"
	vm_check "$name" "$SCENARIO_TMP/$name.json"
done
printf '[vm]\nname = third\n[place]\ngpus = 1\n' >"$SCENARIO_TMP/third.ini"
expect_exit 5 "a third tenant finds no free GPU" "$GPUVM_LAUNCH" -d "$SCENARIO_TMP/third.ini"
check "first ends" vm_stop first 60
check "second ends" vm_stop second 60
host_as_before "host as before" "$SCENARIO_TMP/before"
