# shellcheck shell=bash
# Switches below switches: the guest gets the same stack, PIX stays PIX and PXB stays PXB.
# shape: stacked
# timeout: 600
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

host_snapshot "$SCENARIO_TMP/before"
show gpuvm topo
printf '[vm]\nname = half\n[place]\ngpus = 4\n[lifecycle]\nstop-timeout = 3s\n' >"$SCENARIO_TMP/half.ini"
show gpuvm plan --explain "$SCENARIO_TMP/half.ini"
gpuvm plan --json "$SCENARIO_TMP/half.ini" >"$SCENARIO_TMP/half.json"
expect_eq "one socket" 1 "$(jq '[.devices[].host_node] | unique | length' "$SCENARIO_TMP/half.json")"
expect_eq "upstream ports in the command" 3 "$(jq '[.argv[] | select(startswith("x3130-upstream"))] | length' "$SCENARIO_TMP/half.json")"
expect_eq "relation of the group" PXB "$(jq -r '.groups[0].relation' "$SCENARIO_TMP/half.json")"
launch "$SCENARIO_TMP/half.ini"
check_show "gpuvm verify half" gpuvm verify half
vm_check half "$SCENARIO_TMP/half.json"
check "half ends" vm_stop half 60

# Two of the four below one inner switch are closer than one of each.
printf '[vm]\nname = pair\n[place]\ngpus = 2\n' >"$SCENARIO_TMP/pair.ini"
expect_eq "a pair shares its nearest switch" 1 \
	"$(gpuvm plan --json "$SCENARIO_TMP/pair.ini" | jq '[.devices[] | select(.role == "gpu") | .host_path | join(" ") | split(" ")[:-1] | join(" ")] | unique | length')"
host_as_before "host as before" "$SCENARIO_TMP/before"
