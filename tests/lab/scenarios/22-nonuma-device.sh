# shellcheck shell=bash
# A switch whose devices have numa_node -1: said, never assumed to be node 0, and given to a VM by name.
# shape: nonuma-device
# timeout: 600
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

host_snapshot "$SCENARIO_TMP/before"
show gpuvm topo
lost='' line=''
for f in /sys/bus/pci/devices/*/numa_node; do
	read_line "$f"
	f=${f%/numa_node}
	case ${line}-$(class_of "${f##*/}") in -1-0380*) lost=${f##*/} ;; esac
done
expect_match "a GPU has numa_node -1" '^0000:' "$lost"
printf '[vm]\nname = lost\n[device gpu]\npci = %s\n[memory]\nsize = 256M\n[cpu]\nvcpus = 2\n[lifecycle]\nstop-timeout = 3s\n' "$lost" >"$SCENARIO_TMP/lost.ini"
show gpuvm plan --explain "$SCENARIO_TMP/lost.ini"
launch "$SCENARIO_TMP/lost.ini"
check_show "gpuvm verify lost" gpuvm verify lost
expect_eq "its devices" "$lost" "$(vm_devices lost)"

# Beside it, a VM with a GPU that knows its node.
printf '[vm]\nname = known\n[place]\ngpus = 1\nsocket = 1\n[memory]\nsize = 256M\n[lifecycle]\nstop-timeout = 3s\n' >"$SCENARIO_TMP/known.ini"
gpuvm plan --json "$SCENARIO_TMP/known.ini" >"$SCENARIO_TMP/known.json"
launch "$SCENARIO_TMP/known.ini"
check_show "gpuvm verify known" gpuvm verify known
vm_check known "$SCENARIO_TMP/known.json"
check "known ends" vm_stop known 60
check "lost ends" vm_stop lost 60
host_as_before "host as before" "$SCENARIO_TMP/before"
