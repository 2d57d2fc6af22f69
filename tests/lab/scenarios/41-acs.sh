# shellcheck shell=bash
# [pcie] acs = direct-translated: 005d at exactly the ports of a VM's paths while it runs, 001d afterwards, whatever ended it; two VMs with one root port; a refusal.
# shape: stacked
# timeout: 900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
output=
host_snapshot "$SCENARIO_TMP/before"

# The kernel's and the hardware's word: every port that has ACS, by setpci.
all_ports=()
for dev in /sys/bus/pci/devices/*; do
	if [[ $(class_of "${dev##*/}") == 0604* ]] && setpci -s "${dev##*/}" ECAP_ACS+0x6.w >/dev/null 2>&1; then all_ports+=("${dev##*/}"); fi
done
ports_with() { # VALUE
	local port
	for port in "${all_ports[@]}"; do
		if [[ $(setpci -s "$port" ECAP_ACS+0x6.w) == "$1" ]]; then echo "$port"; fi
	done
}
# Root ports above these functions.
roots_of() { # BDF...
	local bdf
	for bdf; do
		read -r bdf _ <<<"$(bridges_of "$bdf")"
		echo "$bdf"
	done | sort -u
}
evidence "ports with ACS: ${all_ports[*]}"
expect_eq "as the kernel sets them" "${all_ports[*]}" "$(ports_with 001d | paste -sd' ')"

# What hangs from where: inner switches, with two GPUs and an NVMe each, and two of them below one root port.
gpus=()
for dev in /sys/bus/pci/devices/*; do
	if [[ $(class_of "${dev##*/}") == 038000 ]]; then gpus+=("${dev##*/}"); fi
done
switch_of() { # BDF: the upstream port nearest above it
	local path
	read -ra path <<<"$(bridges_of "$1")"
	echo "${path[-2]}"
}
below() { # BRIDGE: endpoints below it
	local dev
	for dev in /sys/bus/pci/devices/*; do
		dev=${dev##*/}
		if [[ $(class_of "$dev") != 0604* && " $(bridges_of "$dev") " == *" $1 "* ]]; then echo "$dev"; fi
	done
}
define() { # NAME BDF...
	local name=$1 n=0 bdf
	shift
	{
		printf '[vm]\nname = %s\n[cpu]\nvcpus = 2\npin = off\n[memory]\nsize = 64M\nhugepages = off\n' "$name"
		printf '[pcie]\nacs = direct-translated\n[lifecycle]\nstop-timeout = 3s\n'
		for bdf; do
			printf '[device d%d]\npci = %s\n' "$n" "$bdf"
			n=$((n + 1))
		done
	} >"$SCENARIO_TMP/$name.ini"
}
mapfile -t inner < <(for bdf in "${gpus[@]}"; do switch_of "$bdf"; done | sort -u)
evidence "inner switches: ${inner[*]}"
mapfile -t first < <(below "${inner[0]}")
mapfile -t second < <(below "${inner[1]}")
expect_eq "both below one root port" 1 "$(roots_of "${first[@]}" "${second[@]}" | wc -l)"
root=$(roots_of "${first[@]}")

say "one VM, and a switch of its own"
define a "${first[@]}"
show gpuvm plan --explain "$SCENARIO_TMP/a.ini"
launch "$SCENARIO_TMP/a.ini"
expect_eq "005d at the ports of its paths" "$(roots_of "${first[@]}")" "$(ports_with 005d)"
expect_eq "the others are as they were" "$((${#all_ports[@]} - 1))" "$(ports_with 001d | wc -l)"
show lspci -vvs "$root" | grep ACSCtl || :
expect_match "lspci" 'ACSCtl:.*DirectTrans\+' "$(lspci -vvs "$root")"
check_show "gpuvm verify a" gpuvm verify a
check "a ends" vm_stop a 60
expect_eq "and back" "${all_ports[*]}" "$(ports_with 001d | paste -sd' ')"

# The switch above both has no ACS (QEMU's xio3130), so two VMs below it are not isolated whatever ACSCtl of the root port says.
say "two VMs, a switch each, below one root port; the first one ends first"
define b "${second[@]}"
launch "$SCENARIO_TMP/a.ini" --force-insecure
launch "$SCENARIO_TMP/b.ini" --force-insecure
expect_eq "005d while both run" "$root" "$(ports_with 005d)"
check "a ends" vm_stop a 60
expect_eq "005d for the one that runs" "$root" "$(ports_with 005d)"
check "b ends" vm_stop b 60
expect_eq "and back" "${all_ports[*]}" "$(ports_with 001d | paste -sd' ')"

say "SIGKILL of launcher and QEMU, while the other VM runs; then of both VMs"
launch "$SCENARIO_TMP/a.ini" --force-insecure
launch "$SCENARIO_TMP/b.ini" --force-insecure
kill_vm() { # NAME
	local qemu
	qemu=$(vm_qemu_pid "$1")
	kill -KILL "$(vm_launcher_pid "$1")" "$qemu"
	check "QEMU of $1 is gone" wait_for 60 no_process "$qemu"
}
kill_vm b
expect_eq "005d is left behind" "$root" "$(ports_with 005d)"
check_show "gpuvm recover b" gpuvm recover b
expect_eq "a still has it" "$root" "$(ports_with 005d)"
kill_vm a
check_show "gpuvm recover" gpuvm recover
expect_eq "and back" "${all_ports[*]}" "$(ports_with 001d | paste -sd' ')"

say "the launcher alone is killed: the guest keeps it, and who takes over gives it back"
launch "$SCENARIO_TMP/a.ini"
launcher=$(vm_launcher_pid a)
kill -KILL "$launcher"
check "the launcher is gone" wait_for 60 no_process "$launcher"
check "gpuvm recover leaves it alone" gpuvm recover
expect_eq "005d" "$root" "$(ports_with 005d)"
check "gpuvm stop a" gpuvm stop --timeout 3s a
expect_eq "and back" "${all_ports[*]}" "$(ports_with 001d | paste -sd' ')"

say "refused: below the switch where its devices meet there is the host's, then another VM's"
of_class() { # CLASS BDF...: the last one
	local bdf found=
	for bdf in "${@:2}"; do
		if [[ $(class_of "$bdf") == "$1"* ]]; then found=$bdf; fi
	done
	echo "$found"
}
mapfile -t all < <(below "$root")
nic=$(of_class 0200 "${all[@]}") nvme=$(of_class 0108 "${first[@]}") nvme2=$(of_class 0108 "${second[@]}")
outer=$(switch_of "${inner[0]}")
define f "${first[@]}" "$nic"
expect_exit 4 "they meet at the outer switch, below which there is a drive of the host" "$GPUVM_LAUNCH" "$SCENARIO_TMP/f.ini"
expect_match "the reason" "below the switch $outer.*$nvme2 \(driver nvme\)" "$output"

others=()
for bdf in "${first[@]}"; do
	if [[ $bdf != "$nvme" ]]; then others+=("$bdf"); fi
done
define c "${others[@]}"
echo "$nvme" >/sys/bus/pci/drivers/nvme/unbind
launch "$SCENARIO_TMP/c.ini"
define d "$nvme"
sed -i 's/direct-translated/keep/' "$SCENARIO_TMP/d.ini"
expect_exit 5 "the drive comes later, and does not ask for it" "$GPUVM_LAUNCH" "$SCENARIO_TMP/d.ini"
expect_match "the reason" "below the switch ${inner[0]} devices of VM 'c'" "$output"
check "c ends" vm_stop c 60
launch "$SCENARIO_TMP/d.ini"
expect_exit 5 "another VM has the drive" "$GPUVM_LAUNCH" "$SCENARIO_TMP/c.ini"
expect_match "the reason" "$nvme \(VM 'd'\)" "$output"
check "d ends" vm_stop d 60
echo "$nvme" >/sys/bus/pci/drivers/nvme/bind
expect_eq "nothing is left" "${all_ports[*]}" "$(ports_with 001d | paste -sd' ')"

say "a NIC with ATS"
define e "$nic"
launch "$SCENARIO_TMP/e.ini"
show gpuvm verify e || :
expect_eq "ATSCtl, as gpuvm verify and setpci have it" "$(($(printf '%d' "0x$(setpci -s "$nic" ECAP_ATS+0x6.w)") >> 15 & 1))" \
	"$(gpuvm verify --json e | jq '[.rows[] | select(.what | startswith("ATSCtl"))][0].ok' | sed 's/true/1/; s/false/0/')"
check "e ends" vm_stop e 60
host_as_before "host as before" "$SCENARIO_TMP/before"
