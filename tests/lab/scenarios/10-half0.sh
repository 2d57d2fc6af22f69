# shellcheck shell=bash
# The main job: conf/half0.ini is planned, started, verified and stopped, and the host is as before.
# shape: default
# timeout: 300
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
plan=$SCENARIO_TMP/plan.json

say "the host"
show gpuvm topo

say "the definition, and the plan with its reasons"
show cat "$CONF/half0.ini"
show gpuvm plan --explain "$CONF/half0.ini"
gpuvm plan --json "$CONF/half0.ini" >"$plan"
expect_eq "GPUs in the plan" 4 "$(jq '[.devices[] | select(.role == "gpu")] | length' "$plan")"
expect_eq "nodes of its devices" 0 "$(jq -r '[.devices[].host_node] | unique | join(" ")' "$plan")"
expect_eq "NICs and NVMe below the GPUs' switches" "4 6" \
	"$(jq -r '"\([.devices[] | select(.role == "nic")] | length) \([.devices[] | select(.role == "nvme")] | length)"' "$plan")"
host_snapshot "$SCENARIO_TMP/before"

say "start"
launch "$CONF/half0.ini" --set lifecycle.stop-timeout=3s
host_snapshot "$SCENARIO_TMP/running"
evidence "what changed on the host:"
show host_compare "$SCENARIO_TMP/before" "$SCENARIO_TMP/running" || true

say "verify: planned, and read back from the kernel and QEMU"
check_show "gpuvm verify half0" gpuvm verify half0
vm_check half0 "$plan"
expect_eq "plan.json of the running VM has the same placement" \
	"$(jq -S '[.devices, .nodes, .vcpus]' "$plan")" "$(jq -S '[.devices, .nodes, .vcpus]' /run/gpuvm/half0/plan.json)"

say "stop: SIGTERM to the launcher"
check "the VM ends" vm_stop half0 120

say "the host as before: driver links, overrides, hugepages, groups, processes, mounts"
host_as_before "host as before" "$SCENARIO_TMP/before"
evidence "host as before: $(wc -l <"$SCENARIO_TMP/before") facts compared, no difference"
