# shellcheck shell=bash
# Three GPUs on one socket, one on the other, one NIC missing: the whole machine and a part of it.
# shape: uneven
# timeout: 600
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

host_snapshot "$SCENARIO_TMP/before"
show gpuvm topo
printf '[vm]\nname = three\n[place]\ngpus = 3\n[lifecycle]\nstop-timeout = 3s\n' >"$SCENARIO_TMP/three.ini"
gpuvm plan --json "$SCENARIO_TMP/three.ini" >"$SCENARIO_TMP/three.json"
expect_eq "three GPUs come from the socket that has three" 0 "$(jq -r '[.devices[].host_node] | unique | join(" ")' "$SCENARIO_TMP/three.json")"
expect_eq "two of them have a NIC" 2 "$(jq '[.devices[] | select(.role == "nic")] | length' "$SCENARIO_TMP/three.json")"

printf '[vm]\nname = all\n[place]\ngpus = 4\n[lifecycle]\nstop-timeout = 3s\n' >"$SCENARIO_TMP/all.ini"
show gpuvm plan --explain "$SCENARIO_TMP/all.ini"
gpuvm plan --json "$SCENARIO_TMP/all.ini" >"$SCENARIO_TMP/all.json"
expect_eq "all four need both nodes" "0 1" "$(jq -r '[.devices[].host_node] | unique | join(" ")' "$SCENARIO_TMP/all.json")"
expect_eq "and a warning says what that costs" 1 "$(jq '[.warnings[] | select(.code == "cross-socket")] | length' "$SCENARIO_TMP/all.json")"
launch "$SCENARIO_TMP/all.ini"
check_show "gpuvm verify all" gpuvm verify all
vm_check all "$SCENARIO_TMP/all.json"
check "all ends" vm_stop all 60
host_as_before "host as before" "$SCENARIO_TMP/before"
