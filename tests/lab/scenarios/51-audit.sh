# shellcheck shell=bash
# gpuvm audit on a real kernel: two VMs that are kept apart; a root port whose redirection somebody switched off; two tenants, and a tenant and the host,
# below a switch without ACS; a device whose functions two claims share. Each is found; the starts it forbids are refused, and forced.
# shape: default
# timeout: 900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
host_snapshot "$SCENARIO_TMP/before"
report=$SCENARIO_TMP/report.json output='' line=''

audit() { # CODE WHAT [NAME]: its exit status; into $report
	local rc=0
	gpuvm audit --json "${@:3}" >"$report" || rc=$?
	expect_eq "$2: exit status" "$1" "$rc"
}
problems() { # "code subject vms" of each
	jq -r '.findings[] | select(.severity == "problem") | "\(.code) \(.subject) \(.vms | join(","))"' "$report"
}
refusals() { jq -r '[.findings[].refusal | values] | unique | join(" ")' "$report"; }
define() { # NAME LINES: a small VM
	printf '[vm]\nname = %s\nfirmware = seabios\n[cpu]\nvcpus = 1\n[memory]\nsize = 128M\n[lifecycle]\nstop-timeout = 500ms\n%b' "$1" "$2" >"$SCENARIO_TMP/$1.ini"
}
start() { # NAME [OPTION...]: the firmware has nothing to do but to take time from what follows
	check "$1 starts" launch "$SCENARIO_TMP/$1.ini" "${@:2}"
	gpuvm pause "$1"
}
of_plan() { # NAME FILTER
	gpuvm plan --json "$SCENARIO_TMP/$1.ini" | jq -r "$2"
}

define a '[place]\ngpus = 1\ngpu-index = 0\n'
define b '[place]\ngpus = 1\ngpu-index = 4\n'
define c '[place]\ngpus = 1\ngpu-index = 1\n'
port=$(of_plan a '.devices[0].host_path[0]')
switch=$(of_plan c '.devices[0].host_path[1]')
gpu=$(of_plan c '.devices[] | select(.role == "gpu") | .bdf')
nic=$(of_plan c '.devices[] | select(.role == "nic") | .bdf')
acs=$(setpci -s "$port" ECAP_ACS+0x6.w)

say "two VMs"
audit 0 "no VM"
expect_eq "no VM: findings" 0 "$(jq '.findings | length' "$report")"
start a
start b
show gpuvm audit
audit 0 "two VMs"
expect_eq "all is proven" 0 "$(jq '.unknown | length' "$report")"
expect_eq "the ways" ok "$(jq -r '.findings[] | select(.code == "acs-off") | .severity' "$report")"
expect_eq "tenants" "a b" "$(jq -r '[.vms[].name] | join(" ")' "$report")"
# iommu=pt: the group's own domain does not translate, but it is not the one in force.
read_line "/sys/kernel/iommu_groups/$(basename "$(readlink "/sys/bus/pci/devices/$(jq -r '.vms[0].devices[0]' "$report")/iommu_group")")/type"
expect_eq "the default domain of a's device" identity "$line"
expect_eq "which does not count while VFIO has it" ok "$(jq -r '.findings[] | select(.code == "not-on-vfio") | .severity' "$report")"

say "a root port that does not redirect"
setpci -s "$port" ECAP_ACS+0x6.w=0x11
audit 1 "ReqRedir and CmpltRedir off"
expect_eq "found" "acs-off $port a,b" "$(problems)"
audit 1 "it concerns b, too, which a reaches" b
expect_eq "found" "acs-off $port a,b" "$(problems)"
audit 1 "and one that does not run yet" "$SCENARIO_TMP/c.ini"
expect_eq "which would be refused" isolation-p2p "$(refusals)"
expect_exit 4 "c is refused" gpuvm-launch -d "$SCENARIO_TMP/c.ini"
expect_match "why" "$port: ACSCtl is 0x11" "$output"
expect_match "what mends it" "setpci -s $port ECAP_ACS\+0x6.w=0x1D" "$output"
evidence "$(grep -m1 ACSCtl <<<"$output" || :)"
check "nothing of c is left" test ! -e /run/gpuvm/c/claim.json
start c --force-insecure
expect_eq "plan.json has it" 1 "$(jq '[.warnings[] | select(.code == "isolation-p2p")] | length' /run/gpuvm/c/plan.json)"
check "c ends" vm_stop c 60
eval "$(jq -r '.findings[] | select(.code == "acs-off") | .fix' "$report")"
expect_eq "mended" "$acs" "$(setpci -s "$port" ECAP_ACS+0x6.w)"
audit 0 "mended"

say "a switch without ACS"
define nic "[device nic]\npci = $nic\n"
define gpu "[device gpu]\npci = $gpu\n"
start nic
audit 1 "the host drives its neighbours"
expect_eq "found" "acs-missing $switch nic" "$(problems)"
expect_eq "which refuses no start, as the host does not need them" "" "$(refusals)"
expect_eq "but is in the plan" 1 "$(jq '[.warnings[] | select(.code == "isolation-weak")] | length' /run/gpuvm/nic/plan.json)"
expect_exit 4 "its GPU for another tenant is refused" gpuvm-launch -d "$SCENARIO_TMP/gpu.ini"
expect_match "why" "$switch: .*VM 'nic' \($nic\).* reach each other" "$output"
start gpu --force-insecure
audit 1 "two tenants"
expect_eq "found" "acs-missing $switch gpu,nic" "$(problems)"
for vm in gpu nic; do check "$vm ends" vm_stop "$vm" 60; done
audit 0 "both have ended"

say "one device, two claims"
# The planner takes all functions of the slot and the kernel lets one process have its group, so the second owner is written down by hand.
for file in /sys/kernel/iommu_groups/*/devices/*.1; do
	if [[ -e ${file%.1}.0 && $(class_of "$(basename "$file")") == 0200* ]]; then pair=("$(basename "${file%.1}.0")" "$(basename "$file")"); fi
done
define pair "[device nvme]\npci = ${pair[0]}\n"
start pair
expect_eq "all of the slot goes to one VM" "${pair[*]}" "$(jq -r '[.devices[].bdf] | join(" ")' /run/gpuvm/pair/claim.json)"
audit 0 "one owner"
cp /run/gpuvm/pair/claim.json "$SCENARIO_TMP/claim.json"
mkdir -m 700 /run/gpuvm/other
jq --arg bdf "${pair[1]}" '.vm = "other" | .devices |= map(select(.bdf == $bdf))' "$SCENARIO_TMP/claim.json" >/run/gpuvm/other/claim.json
jq --arg bdf "${pair[1]}" '.devices |= map(select(.bdf != $bdf))' "$SCENARIO_TMP/claim.json" >/run/gpuvm/pair/claim.json
audit 1 "two owners"
expect_eq "found" "group-shared multifunction" "$(problems | cut -d' ' -f1 | sort | paste -sd' ')"
cp "$SCENARIO_TMP/claim.json" /run/gpuvm/pair/claim.json
rm -r /run/gpuvm/other
audit 0 "one owner again"

say "the end"
for vm in pair a b; do check "$vm ends" vm_stop "$vm" 60; done
audit 0 "no VM"
host_as_before "host as before" "$SCENARIO_TMP/before"
