# shellcheck shell=bash
# Bad input and faults: each with its exit code and a clear error, and the host untouched or restored.
# shape: default
# timeout: 900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
half0=$CONF/half0.ini
output=
before=$SCENARIO_TMP/before

# refused CODE WHAT REGEX COMMAND...: exit CODE, a message that matches, and the host as before.
refused() {
	local code=$1 what=$2 regex=$3
	shift 3
	say "$what"
	host_snapshot "$before"
	expect_exit "$code" "$what" timeout 120 "$@"
	expect_match "$what: the message" "$regex" "$output"
	evidence "$what: exit $code: $(grep -m1 -iE -- "$regex" <<<"$output" || true)"
	host_as_before "$what: host as before" "$before"
}

define() { # NAME: a definition from standard input
	cat >"$SCENARIO_TMP/$1.ini"
}

define malformed <<'INI'
[vm]
name = malformed
colour = blue
[place]
gpus = four
gpus = 4
[plaice]
x = 1
[memory]
size = 12 parsecs
INI
refused 3 "malformed definition" 'malformed\.ini:3:.*colour' gpuvm-launch "$SCENARIO_TMP/malformed.ini"
for line in 5 6 7 10; do
	expect_match "the problem of line $line is told with the others" "malformed\.ini:$line:" "$output"
done
refused 3 "a definition that is not there" 'no such file' gpuvm-launch "$SCENARIO_TMP/nowhere.ini"

refused 4 "a GPU that is not there" 'gpu' gpuvm-launch "$half0" --set vm.name=far --set place.gpu-index=6
refused 4 "too few hugepages on the node" 'hugepage|2M|2 MiB' \
	gpuvm-launch "$half0" --set vm.name=big --set memory.size=2G --set memory.hugepages=2M

# Two NICs on a conventional bus: one without the other one cannot be isolated.
foreign=()
for group in /sys/kernel/iommu_groups/*; do
	members=()
	for file in "$group"/devices/*; do
		if [[ $(class_of "${file##*/}") == 0200* ]]; then members+=("${file##*/}"); fi
	done
	if ((${#members[@]} == 2)); then foreign=("${members[@]}"); fi
done
define foreign <<INI
[vm]
name = foreign
[device nic]
pci = ${foreign[0]}
[memory]
size = 256M
INI
refused 4 "an IOMMU group with a foreign member" "${foreign[1]}" gpuvm-launch "$SCENARIO_TMP/foreign.ini"

mgmt=$(basename "$(readlink -f "/sys/class/net/$(ip route show default | awk '{ print $5 }')/device/..")")
boot=$(basename "$(findmnt -no SOURCE /boot)")
boot=$(basename "$(readlink -f "/sys/class/nvme/${boot%n1}/device")")
for own in "$mgmt" "$boot"; do
	printf '[vm]\nname = thief\n[device own]\npci = %s\n[memory]\nsize = 256M\n' "$own" | define thief
	refused 4 "what the host itself uses: $own" 'default route|mount|address' gpuvm-launch "$SCENARIO_TMP/thief.ini"
done

# It answers all questions, but starts no VM.
cat >"$SCENARIO_TMP/broken-qemu" <<'SH'
#!/bin/bash
if [[ $* == *"-machine none"* || $* == -help ]]; then exec qemu-system-x86_64 "$@"; fi
echo "lab: no electricity" >&2
exit 1
SH
chmod +x "$SCENARIO_TMP/broken-qemu"
refused 1 "QEMU that exits at once" 'no electricity' gpuvm-launch "$half0" --set "qemu.binary=$SCENARIO_TMP/broken-qemu"
refused 1 "QEMU that refuses an argument" 'no-such-device' gpuvm-launch "$half0" --set 'qemu.args=-device no-such-device'
refused 4 "a program that is no QEMU" 'no QEMU' gpuvm-launch "$half0" --qemu /bin/true

say "a VM that runs"
host_snapshot "$SCENARIO_TMP/start"
gpuvm plan --json "$half0" >"$SCENARIO_TMP/half0.json"
launch "$half0" --set lifecycle.stop-timeout=3s
refused 5 "the same VM again" 'half0' gpuvm-launch -d "$half0"
refused 5 "another VM that wants its devices" 'half0' gpuvm-launch "$half0" --set vm.name=twin
check "half0 is untouched" gpuvm verify half0
vm_check half0 "$SCENARIO_TMP/half0.json"
check "half0 ends" vm_stop half0 120
host_as_before "host as before" "$SCENARIO_TMP/start"

say "no VFIO"
# The modules are out, and cannot be found.
modprobe -r vfio-pci vfio_iommu_type1
umount "/lib/modules/$(uname -r)"
check "there is no /dev/vfio/vfio" test ! -e /dev/vfio/vfio
refused 4 "no /dev/vfio" 'vfio' gpuvm-launch "$half0"
mount --bind "$LAB_HOST/modules/$(uname -r)" "/lib/modules/$(uname -r)"
