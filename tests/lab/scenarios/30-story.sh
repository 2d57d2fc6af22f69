# shellcheck shell=bash
# The story of a new user: install an image, make three VMs of the eight GPUs, log in to one on its console, stop it, start it again and find what was
# written there, upgrade the image, list, delete all; in the end the host is as before.
# shape: default
# long: yes
# timeout: 3000
# shellcheck disable=SC2016 # what is typed into the guest is the guest's to expand
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
host_snapshot "$SCENARIO_TMP/before"
bb=/bin/busybox

# --- an image: an ext4 with busybox, a password and a getty; its kernel is the lab's, started directly ---------------------------
root=$SCENARIO_TMP/root
mkdir -p "$root"/{bin,etc,proc,sys,dev,root,tmp,run}
cp "$bb" "$root/bin/"
for applet in sh login getty; do ln -s busybox "$root/bin/$applet"; done
printf 'root:%s:0:0:root:/root:/bin/sh\n' "$(perl -e 'print crypt("sesame", "\$1\$lab")')" >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
cat >"$root/etc/profile" <<'PROFILE'
export PATH=/bin PS1='tiny# '
for a in cat echo ls poweroff reboot sync head wc; do alias $a="busybox $a"; done
PROFILE
cat >"$root/bin/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
echo boot >>/root/boots
$b hostname tiny
while :; do $b getty -n -l /bin/login.tiny -L ttyS0 115200 vt100; done
INIT
# "login" asks for the name itself.
printf '#!/bin/busybox sh\nexec /bin/busybox login\n' >"$root/bin/login.tiny"
chmod +x "$root/bin/init" "$root/bin/login.tiny"
mkdir "$SCENARIO_TMP/initramfs"
cat >"$SCENARIO_TMP/initramfs/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules.order); do $b insmod /modules/$m; done
$b mkdir /new
while ! $b mount -t ext4 /dev/vda /new 2>/dev/null; do $b usleep 100000; done
for d in proc sys dev; do $b mount --move /$d /new/$d; done
exec $b switch_root /new /bin/init
INIT
guest_initrd "$SCENARIO_TMP/initramfs"
mkfs.ext4 -q -d "$root" "$SCENARIO_TMP/tiny.raw" 16M
qemu-img convert -O qcow2 "$SCENARIO_TMP/tiny.raw" "$SCENARIO_TMP/tiny.qcow2"

# --- the console, as typed ----------------------------------------------------------------------------------------------------------
# `gpuvm console` on a terminal of its own; what comes is in $1.
console_open() { # FILE NAME
	mkfifo "$1.in"
	script -qfec "gpuvm console $2" "$1" <"$1.in" >/dev/null 2>&1 &
	console=$!
	exec 4>"$1.in"
}
console_close() { # FILE: Ctrl-] leaves
	printf '\035' >&4
	wait_for 30 no_process "$console"
	exec 4>&-
	rm "$1.in"
}
said() { grep -qaE -- "$2" "$1"; } # FILE REGEX

kernel=(--set "vm.kernel=$LAB_HOST/vmlinux" --set "vm.initrd=$SCENARIO_TMP/initrd.gz"
	--set 'vm.append=console=ttyS0 quiet panic=-1 mitigations=off pcie_ports=compat cryptomgr.notests')
# SeaBIOS has no ear for the power button.
quick=(--set vm.firmware=seabios --set lifecycle.stop-timeout=3s)

is_in_state() { [[ $(gpuvm status "$1" --json | jq -r .state) == "$2" ]]; } # NAME STATE
others() { # VERB STATE
	local name
	for name in train2 train3; do
		check_show "$1 $name" gpuvm "$1" "$name"
		check "$name is $2" wait_for 30 is_in_state "$name" "$2"
	done
}

say "images"
check_show "image install" gpuvm image install "$SCENARIO_TMP/tiny.qcow2" --sha256 "$(sha256sum <"$SCENARIO_TMP/tiny.qcow2" | cut -c1-64)"
check_show "image list" gpuvm image list
expect_eq "its digest is recorded" "$(sha256sum <"$SCENARIO_TMP/tiny.qcow2" | cut -c1-64)" "$(gpuvm image list --json | jq -r '.[0].sha256')"

say "two tenants"
# Before the guest with a kernel: the emulator's races are met when drivers are bound while a guest uses its devices.
check_show "create train2" gpuvm create train2 --gpus 2 --memory 128M --vcpus 1 --net none "${quick[@]}"
check_show "create train3" gpuvm create train3 --gpus 4 --image tiny --memory 256M --vcpus 2 --net none "${quick[@]}"

# All CPUs of the emulated host are one thread: a firmware that looks for a disk for ever would take most of it.
expect_eq "two run" 2 "$(gpuvm list --json | jq '[.[] | select(.state == "running")] | length')"
others pause paused

say "a third one beside them, with a guest to log in to"
check_show "create train1" gpuvm create train1 --gpus 2 --image tiny --vcpus 2 --memory 320M --net none "${quick[@]}" "${kernel[@]}"
show cat /etc/gpuvm/train1.ini
expect_eq "its GPUs" 2 "$(gpuvm status train1 --json | jq '[.devices[] | select(.id | test("^gpu[0-9]+$"))] | length')"
console_open "$SCENARIO_TMP/console1" train1
check "the guest asks who it is" wait_for 600 said "$SCENARIO_TMP/console1" 'login:'
printf 'root\r' >&4
check "and for the password" wait_for 300 said "$SCENARIO_TMP/console1" 'assword:'
printf 'sesame\r' >&4
check "and lets in" wait_for 300 said "$SCENARIO_TMP/console1" 'tiny# '
printf 'echo GPUS $(cat /sys/bus/pci/devices/*/class | busybox grep -c 0x0380)\r' >&4
check "it sees its two GPUs" wait_for 300 said "$SCENARIO_TMP/console1" 'GPUS 2'
printf 'echo kept >/root/work; sync; echo WRITTEN $(cat /root/work)\r' >&4
check "it has written to its disk" wait_for 300 said "$SCENARIO_TMP/console1" 'WRITTEN kept'
console_close "$SCENARIO_TMP/console1"

say "three of them"
others resume running
show gpuvm list
expect_eq "three run" 3 "$(gpuvm list --json | jq '[.[] | select(.state == "running")] | length')"
expect_eq "all eight GPUs are given, each once" 8 \
	"$(gpuvm list --json | jq '[.[].devices[] | select(.id | test("^gpu[0-9]+$")) | .bdf] | unique | length')"
expect_exit 5 "a fourth finds none" gpuvm create train4 --gpus 1 --net none
check "and leaves nothing" test ! -e /etc/gpuvm/train4.ini
expect_exit 5 "an image in use is not removed" gpuvm image remove tiny

say "an upgrade of the image changes no disk of theirs"
printf 'newer\n' >"$root/etc/issue"
mkfs.ext4 -q -d "$root" "$SCENARIO_TMP/newer.raw" 16M
check_show "image upgrade" gpuvm image upgrade "$SCENARIO_TMP/newer.raw" --name tiny
check_show "image list" gpuvm image list

say "stop, start: what was written is there"
others pause paused
mapfile -t had < <(gpuvm status train1 --json | jq -r '.devices[].bdf')
check_show "stop train1" gpuvm stop train1
expect_eq "its state" stopped "$(gpuvm status train1 --json | jq -r .state)"
kept=
for bdf in "${had[@]}"; do if [[ $(driver_of "$bdf") == vfio-pci ]]; then kept+="$bdf "; fi; done
expect_eq "devices of its that are still on vfio-pci, of ${#had[@]}" "" "$kept"
check_show "start train1" gpuvm start train1
console_open "$SCENARIO_TMP/console2" train1
check "it asks again" wait_for 600 said "$SCENARIO_TMP/console2" 'login:'
printf 'root\r' >&4
check "for the password" wait_for 300 said "$SCENARIO_TMP/console2" 'assword:'
printf 'sesame\r' >&4
check "lets in" wait_for 300 said "$SCENARIO_TMP/console2" 'tiny# '
printf 'echo FOUND $(cat /root/work) $(cat /root/boots | busybox wc -l) $(cat /etc/issue)\r' >&4
check "its work is there, and it has not the newer image" wait_for 300 said "$SCENARIO_TMP/console2" 'FOUND kept 2 *.?$'
console_close "$SCENARIO_TMP/console2"
evidence "$(tr -d '\r' <"$SCENARIO_TMP/console2" | tail -n 12)"

say "the end"
show gpuvm list
expect_exit 2 "delete asks first, and there is nobody to ask" gpuvm delete train1
for name in train1 train2 train3; do check_show "delete $name" gpuvm delete --yes "$name"; done
expect_eq "no VM is left" 0 "$(gpuvm list --json | jq length)"
check_show "image remove" gpuvm image remove tiny
expect_eq "no image is left" 0 "$(gpuvm image list --json | jq length)"
expect_eq "no file of theirs is left" "" \
	"$(find /etc/gpuvm /var/lib/gpuvm/disks /var/lib/gpuvm/images /var/lib/gpuvm/vms -type f ! -name .lock 2>/dev/null || :)"
host_as_before "host as before" "$SCENARIO_TMP/before"
