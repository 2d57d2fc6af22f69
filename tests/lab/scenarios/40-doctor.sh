# shellcheck shell=bash
# gpuvm doctor on a real kernel: what it says of a sound host, and each planted fault found, mended by the very command that it prints, and gone.
# shape: default
# timeout: 400
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
host_snapshot "$SCENARIO_TMP/before"
report=$SCENARIO_TMP/report.json

doctor() { # into $report; /dev/kvm is not there, so there is always a problem
	local rc=0
	gpuvm doctor --json >"$report" || rc=$?
	if ((rc != 1)); then bad "gpuvm doctor --json" "exit $rc"; fi
}
severities() { # CODE: each once
	jq -r --arg code "$1" '[.findings[] | select(.code == $code) | .severity] | unique | join(" ")' "$report"
}
subjects() { # CODE SEVERITY
	jq -r --arg code "$1" --arg severity "$2" '[.findings[] | select(.code == $code and .severity == $severity) | .subject] | join(" ")' "$report"
}
# No jq beside the loop (in a pipe or substitution): its end is a signal to this shell, at which the kernel stops handing out hugepages where it is.
mend() { # CODE: what it says
	local fix
	jq -r --arg code "$1" '.findings[] | select(.code == $code and .severity != "ok") | .fix' "$report" >"$SCENARIO_TMP/fixes"
	while IFS= read -r fix; do
		evidence "  $fix"
		eval "$fix"
	done <"$SCENARIO_TMP/fixes"
}

say "a sound host"
show gpuvm doctor || :
doctor
cp "$report" "$SCENARIO_TMP/sound.json"
for code in iommu iommu-mode vfio gpus device-bad iommu-group acs-isolation link-width bar-unassigned gpu-node hugepages hugepages-node isolated-cpus irqbalance qemu claim; do
	expect_eq "$code" ok "$(severities "$code")"
done
# Its own words on how it came up.
remapping=problem
if dmesg | grep -i 'Enabled IRQ remapping' >/dev/null; then remapping=ok; fi
expect_eq "interrupt-remapping, as dmesg has it" "$remapping" "$(severities interrupt-remapping)"
kvm=problem
if [[ -e /dev/kvm ]]; then kvm=ok; fi
expect_eq "kvm, as /dev has it" "$kvm" "$(severities kvm)"
expect_eq "identity, as iommu=pt asks for" 1 "$(jq '[.findings[] | select(.code == "iommu-mode" and (.text | startswith("identity")))] | length' "$report")"

say "a node without hugepages"
pages=/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages
read_line "$pages"
echo 0 >"$pages"
doctor
expect_eq "hugepages-node" "node 1" "$(subjects hugepages-node problem)"
pages_before=$line
mend hugepages-node
read_line "$pages"
expect_eq "its pages, after what doctor says" "$pages_before" "$line"
doctor
expect_eq "mended" ok "$(severities hugepages-node)"
echo "$line" >"$pages"

say "ACS: direct translated requests, then a port that lets peers past the IOMMU"
doctor
read -ra ports <<<"$(subjects acs-direct warning)"
expect_eq "ports between GPUs and NICs" 8 "${#ports[@]}"
declare -A acs=()
for port in "${ports[@]}"; do acs[$port]=$(setpci -s "$port" ECAP_ACS+0x6.w); done
mend acs-direct
doctor
expect_eq "acs-direct, mended" ok "$(severities acs-direct)"
expect_eq "the register, read by setpci" 005d "$(setpci -s "${ports[0]}" ECAP_ACS+0x6.w)"
setpci -s "${ports[3]}" ECAP_ACS+0x6.w=0x59
doctor
expect_eq "acs-isolation" "${ports[3]}" "$(subjects acs-isolation problem)"
mend acs-isolation
doctor
expect_eq "acs-isolation, mended" ok "$(severities acs-isolation)"
for port in "${ports[@]}"; do setpci -s "$port" ECAP_ACS+0x6.w="${acs[$port]}"; done

say "a process that moves interrupts"
mkfifo "$SCENARIO_TMP/end"
(
	printf irqbalance >"/proc/$BASHPID/comm"
	echo ready >"$SCENARIO_TMP/end"
	read -r _ <"$SCENARIO_TMP/end"
) &
pid=$!
read -r _ <"$SCENARIO_TMP/end"
doctor
expect_eq "irqbalance runs" warning "$(severities irqbalance)"
echo >"$SCENARIO_TMP/end"
wait "$pid"
doctor
expect_eq "and no more" ok "$(severities irqbalance)"

say "a device that is marked as bad"
gpu=$(jq -r '.functions | to_entries[] | select(.value | startswith("gpu ")) | .key' "$report" | sed -n '3p')
id() { local line; read_line "/sys/bus/pci/devices/$gpu/$1"; echo "$line"; }
mkdir -p /var/lib/gpuvm/bad
jq -n --arg bdf "$gpu" --arg vendor "$(id vendor)" --arg device "$(id device)" --arg subvendor "$(id subsystem_vendor)" \
	--arg subdevice "$(id subsystem_device)" '{schema: 1, bdf: $bdf, vendor: $vendor, device: $device, subvendor: $subvendor, subdevice: $subdevice,
	slot: null, reason: "its reset failed", when: 1790000000, boot_id: "another", vm: "one", by: "reset"}' >"/var/lib/gpuvm/bad/$gpu.json"
doctor
expect_eq "device-bad" "$gpu" "$(subjects device-bad problem)"
expect_match "why" 'its reset failed' "$(jq -r '.findings[] | select(.code == "device-bad") | .text' "$report")"
expect_exit 0 "taken back" gpuvm doctor --clear "$gpu"
expect_exit 1 "only once" gpuvm doctor --clear "$gpu"
expect_exit 0 "none is left" gpuvm doctor --clear all
doctor
expect_eq "device-bad, cleared" ok "$(severities device-bad)"

say "a launcher that died"
printf '[vm]\nname = dead\n[place]\ngpus = 1\n[lifecycle]\non-launcher-death = stop\n' >"$SCENARIO_TMP/dead.ini"
gpuvm-launch -d "$SCENARIO_TMP/dead.ini"
kill -KILL "$(jq .launcher_pid /run/gpuvm/dead/claim.json)"
wait_for 30 no_lab_processes
doctor
expect_eq "claim" dead "$(subjects claim warning)"
mend claim
doctor
expect_eq "claim, mended" ok "$(severities claim)"

say "as it was, also by its own account and by its capture"
expect_exit 0 "the same machine" gpuvm doctor --compare "$SCENARIO_TMP/sound.json"
gpuvm capture "$SCENARIO_TMP/host.tar.gz"
expect_exit 0 "and so says its capture" gpuvm doctor --compare "$SCENARIO_TMP/host.tar.gz"
host_as_before "host as before" "$SCENARIO_TMP/before"
