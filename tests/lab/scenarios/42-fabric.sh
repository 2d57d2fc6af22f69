# shellcheck shell=bash
# NVLink partitions, with a stand-in for Fabric Manager: a start activates, an end, a failure and `recover` deactivate; two VMs side by side, and a third that would overlap.
# shape: default
# timeout: 900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
# What makes the GPUs look like B200s (whose NVSwitches are not on the bus) is for this scenario's eyes only.
if [[ ${1:-} != unshared ]]; then exec unshare --mount bash "$0" unshared; fi
scenario
output=

# The functions stay what they are; files of sysfs, and the ids in config space, say something else.
lie() { # BDF
	local dir tmp=$SCENARIO_TMP/sysfs/$1 f
	dir=$(resolve "/sys/bus/pci/devices/$1")
	mkdir -p "$tmp"
	echo 0x10de >"$tmp/vendor"
	echo 0x2901 >"$tmp/device"
	echo 0x030200 >"$tmp/class"
	echo pci:v000010DEd00002901sv00001AF4sd00001100bc03sc02i00 >"$tmp/modalias"
	cp "$dir/config" "$tmp/config"
	printf '\xde\x10\x01\x29' | dd of="$tmp/config" conv=notrunc status=none
	printf '\x00\x02\x03' | dd of="$tmp/config" bs=1 seek=9 conv=notrunc status=none
	for f in vendor device class modalias config; do mount --bind "$tmp/$f" "$dir/$f"; done
}

# Module IDs do not follow PCI order (as on NVIDIA's HGX H100): 1 to 4 are on node 1.
ids=(5 7 6 8 1 3 2 4)
gpus=()
for bdf in /sys/bus/pci/devices/*; do
	bdf=${bdf##*/}
	if [[ $(class_of "$bdf") == 0380* ]]; then gpus+=("$bdf"); fi
done
expect_eq "GPUs" 8 "${#gpus[@]}"
mkdir -p /etc/gpuvm
mount -t tmpfs none /etc/gpuvm
fm=$SCENARIO_TMP/fm
mkdir -p "$fm/real"
echo '[module-ids]' >/etc/gpuvm/fabric.conf
for i in "${!gpus[@]}"; do
	lie "${gpus[i]}"
	echo "${ids[i]} = ${gpus[i]}" >>/etc/gpuvm/fabric.conf
	# As since H100: neither UUID nor address.
	echo "${ids[i]} - -" >>"$fm/real/gpus"
done
cp "$REPO/tests/fake/fmpm" "$fm/real/fmpm"
# The defaults of HGX B200.
cat >"$fm/real/table" <<'END'
1 18 1,2,3,4,5,6,7,8
2 18 1,2,3,4
3 18 5,6,7,8
4 18 1,2
5 18 3,4
6 18 5,6
7 18 7,8
END
# Between gpuvm and the stand-in: at which point of a start is it called?
cat >"$fm/fmpm" <<END
#!/bin/bash
if [[ \$* == *-a* ]]; then
	for bdf in ${gpus[*]}; do
		if [[ -e /sys/bus/pci/devices/\$bdf/driver ]]; then d=\$(readlink /sys/bus/pci/devices/\$bdf/driver); echo "\$bdf \${d##*/}"; else echo "\$bdf none"; fi
	done >"$fm/drivers"
fi
exec "$fm/real/fmpm" "\$@"
END
chmod +x "$fm/fmpm" "$fm/real/fmpm"
export PATH="$fm:$PATH"
active() { xargs <"$fm/real/active"; }

definition() { # NAME PARTITION GPUS
	printf '[vm]\nname = %s\nfirmware = seabios\n[place]\ngpus = %s\nnics = none\nnvme = none\n[cpu]\nvcpus = 2\n[memory]\nsize = 128M\n[fabric]\npartition = %s\n[lifecycle]\nstop-timeout = 500ms\n' \
		"$1" "$3" "$2" >"$SCENARIO_TMP/$1.ini"
}
definition a auto 2
definition b 7 2
definition c 2 4
touch "$fm/real/active"
host_snapshot "$SCENARIO_TMP/before"

say "what is planned"
check_show "gpuvm fabric list" gpuvm fabric list
gpuvm plan "$SCENARIO_TMP/a.ini" >"$SCENARIO_TMP/plan"
expect_match "the partition of the plan" "NVLink: shared, partition [4-7], physical IDs [0-9 ]+, activated by $fm/fmpm" "$(<"$SCENARIO_TMP/plan")"

say "a start activates, after the GPUs have lost their drivers and before they have vfio-pci"
definition a 4 2
launch "$SCENARIO_TMP/a.ini"
expect_eq "active" 4 "$(active)"
expect_eq "a's GPUs, by module ID" "${gpus[4]} ${gpus[6]}" "$(vm_devices a | xargs)"
for bdf in $(vm_devices a); do
	expect_eq "$bdf at the activation" "$bdf none" "$(grep "^$bdf " "$fm/drivers")"
	expect_eq "$bdf now" vfio-pci "$(driver_of "$bdf")"
done
launch "$SCENARIO_TMP/b.ini"
expect_eq "active" "4 7" "$(active)"
check_show "gpuvm fabric status" gpuvm fabric status
expect_match "the claim" '"partition_active": ?true' "$(</run/gpuvm/a/claim.json)"

say "one that overlaps is refused, and what a VM has cannot be deactivated"
expect_exit 5 "a start with partition 2" gpuvm-launch -d "$SCENARIO_TMP/c.ini"
expect_match "why" "VM 'a' has GPU" "$output"
expect_exit 5 "gpuvm fabric deactivate 4" gpuvm fabric deactivate 4
expect_eq "active" "4 7" "$(active)"

say "Fabric Manager is restarted, and told"
: >"$fm/real/active"
echo restart >"$fm/real/fault"
check_show "gpuvm fabric sync" gpuvm fabric sync
expect_eq "active" "4 7" "$(active)"

say "an end deactivates"
check "a ends" vm_stop a 60
expect_eq "active" 7 "$(active)"

say "launcher and QEMU are killed: recover deactivates"
qemu=$(vm_qemu_pid b)
kill -KILL "$(vm_launcher_pid b)" "$qemu"
check "QEMU is gone" wait_for 60 no_process "$qemu"
expect_eq "active" 7 "$(active)"
expect_exit 1 "gpuvm fabric status" gpuvm fabric status
expect_match "it says" "gpuvm recover b" "$output"
check_show "gpuvm recover" gpuvm recover
expect_eq "active" "" "$(active)"
host_as_before "host as before" "$SCENARIO_TMP/before"

say "a partition whose links do not come up"
echo nvlink >"$fm/real/fault"
expect_exit 1 "the start" gpuvm-launch -d "$SCENARIO_TMP/b.ini"
expect_match "why" "NVLINK_ERROR" "$output"
rm "$fm/real/fault"
expect_eq "active" "" "$(active)"
host_as_before "host as before" "$SCENARIO_TMP/before"

say "nobody to activate it"
expect_exit 4 "the start" gpuvm-launch -d --set fabric.manager=/nowhere/fmpm "$SCENARIO_TMP/b.ini"
expect_match "why" "fabric-no-manager|nobody could activate" "$output"
host_as_before "host as before" "$SCENARIO_TMP/before"
