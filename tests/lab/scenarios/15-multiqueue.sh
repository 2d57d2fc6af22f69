# shellcheck shell=bash
# A real Linux guest with a tap of four queues in a bridge (vhost) and one of two queues (without): counts, threads, packets, nothing left.
# shape: default
# timeout: 1900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
plan=$SCENARIO_TMP/plan.json output=
serial=/run/gpuvm/mq/serial.log

# The guest: the lab's kernel, busybox, and an init that runs every script of /report.d in the order of their names. Each says what it
# found on the serial console; the last one, 90-end, waits until the host tells it to power off.
guest=$SCENARIO_TMP/guest
mkdir -p "$guest/report.d" "$guest/usr/sbin"
cat >"$guest/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules.order); do $b insmod /modules/$m; done
say() { echo "REPORT $*"; }
for script in /report.d/*; do . $script; done
$b poweroff -f
INIT

# add_program FILE: into the guest, with the libraries that it is linked to.
add_program() {
	local file
	for file in "$1" $(ldd "$1" | grep -oE '/[^ ]+'); do cp -L --parents "$file" "$guest"; done
}
add_program "$(command -v ethtool)"

cat >"$guest/report.d/10-net" <<'INIT'
for n in /sys/class/net/eth*; do
	dev=${n##*/}
	case $($b cat $n/address) in
	52:54:00:00:15:01) name=lan addr=10.15.0.2 host=10.15.0.1 ;;
	52:54:00:00:15:02) name=own addr=10.15.1.2 host=10.15.1.1 ;;
	esac
	$b ip addr add $addr/24 dev $dev; $b ip link set $dev up
	say net $name mtu $($b cat $n/mtu)
	say net $name rx $($b ls -d $n/queues/rx-* | $b wc -l)
	say net $name tx $($b ls -d $n/queues/tx-* | $b wc -l)
	say net $name ethtool $(ethtool -l $dev | $b awk '/^Combined:/ { print $2 }')
	say net $name irqs $($b grep -c "$($b basename $($b readlink $n/device))-input" /proc/interrupts)
	say net $name ping $($b ping -c 3 -w 60 $host | $b grep -c 'bytes from')
done
# A megabyte to the host, and its sum.
$b dd if=/dev/urandom of=/data bs=64k count=16 2>/dev/null
say sum $($b md5sum </data)
$b nc 10.15.0.1 5015 </data
INIT
cat >"$guest/report.d/90-end" <<'INIT'
say ready after $($b cut -d" " -f1 /proc/uptime) s
say told $($b nc -l -p 5016)
say end
INIT
guest_initrd "$guest"

cat >"$SCENARIO_TMP/mq.ini" <<INI
[vm]
name = mq
firmware = seabios
kernel = $LAB_HOST/vmlinux
initrd = $SCENARIO_TMP/initrd.gz
append = console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests
[cpu]
vcpus = 4
[memory]
size = 256M
hugepages = 2M
[net lan]
type = bridge
bridge = br0
mac = 52:54:00:00:15:01
[net own]
type = tap
ifname = tap-own
queues = 2
vhost = off
mac = 52:54:00:00:15:02
[console]
serial = log
INI

# --- the host's network ----------------------------------------------------------------------------------
# A bridge with an MTU of its own, and a tap that the operator made.
modprobe bridge
modprobe tun
ip link add br0 type bridge
ip link set br0 mtu 9000 up
ip addr add 10.15.0.1/24 dev br0
ip tuntap add dev tap-own mode tap multi_queue
ip link set tap-own up
ip addr add 10.15.1.1/24 dev tap-own

queues_of() { # INTERFACE
	set -- "/sys/class/net/$1/queues/"rx-*
	echo $#
}
vhost_threads() { # PID: "TID CPUS" of each; kernel threads before Linux 6.4, threads of QEMU since
	local f line key value
	for f in /proc/[0-9]*/comm /proc/"$1"/task/*/comm; do
		read_line "$f"
		if [[ $line != "vhost-$1" ]]; then continue; fi
		while read -r key value; do
			if [[ $key == Cpus_allowed_list: ]]; then break; fi
		done <"${f%/comm}/status"
		f=${f%/comm}
		echo "${f##*/} $value"
	done
}
reported() { # WORDS...: what the guest said behind them
	tr -d '\r' <"$serial" | sed -n "s/^.*REPORT $* //p"
}
guest_ready() { grep -q 'REPORT ready' "$serial"; }

host_snapshot "$SCENARIO_TMP/before"
gpuvm plan "$SCENARIO_TMP/mq.ini"
gpuvm plan --json "$SCENARIO_TMP/mq.ini" >"$plan"
expect_eq "planned: taps" "mq-lan br0 false 4 true
tap-own null true 2 false" "$(jq -r '.taps[] | "\(.ifname) \(.bridge) \(.exists) \(.queues) \(.vhost)"' "$plan")"

# --- while it runs ------------------------------------------------------------------------------------------
say "start; the guest talks to the host, and the host to it"
# With an end of its input it would close its side, and the guest's nc end before all is sent: this pipe has none.
busybox nc -l -p 5015 >"$SCENARIO_TMP/data" <> <(:) &
receiver=$!
check_show "gpuvm-launch -d mq" launch "$SCENARIO_TMP/mq.ini"
pid=$(vm_qemu_pid mq)
say "what nobody may have now is refused before anything is touched"
sed 's/^name = mq/name = other/; s/^bridge = br0/&\nifname = mq-lan/' "$SCENARIO_TMP/mq.ini" >"$SCENARIO_TMP/other.ini"
expect_exit 5 "a second VM with the same taps" "$GPUVM_LAUNCH" "$SCENARIO_TMP/other.ini"
expect_match "it names the VM and the interface" "VM 'mq' .* has the interface 'mq-lan'" "$output"
check "the plan of the VM that runs can be made" gpuvm plan "$SCENARIO_TMP/mq.ini"

wait_for 1500 guest_ready
cp "$serial" "$SCENARIO_DIR/serial.log"
evidence "$(reported '')"
for net in lan own; do
	queues=$(jq -r --arg n "net-$net" '.taps[] | select(.netdev == $n) | .queues' "$plan")
	ifname=$(jq -r --arg n "net-$net" '.taps[] | select(.netdev == $n) | .ifname' "$plan")
	expect_eq "$net: receive queues in the guest, as planned" "$queues" "$(reported "net $net rx")"
	expect_eq "$net: send queues in the guest" "$queues" "$(reported "net $net tx")"
	expect_eq "$net: ethtool -l, maximum and current" "$queues $queues" "$(reported "net $net ethtool")"
	expect_eq "$net: interrupts for receiving" "$queues" "$(reported "net $net irqs")"
	expect_eq "$net: queues of $ifname on the host" "$queues" "$(queues_of "$ifname")"
	expect_eq "$net: the guest's pings answered by the host" 3 "$(reported "net $net ping")"
done
expect_eq "lan: the guest has the bridge's MTU" 9000 "$(reported "net lan mtu")"
expect_eq "own: the guest has the usual MTU" 1500 "$(reported "net own mtu")"
expect_eq "members of the bridge" mq-lan "$(basename /sys/class/net/br0/brif/*)"
expect_eq "MTU of the bridge" 9000 "$(<"/sys/class/net/br0/mtu")"
for host in 10.15.0.2 10.15.1.2; do
	check_show "the guest answers the host's pings at $host" busybox ping -c 3 -w 60 "$host"
done
wait "$receiver"
expect_eq "a megabyte from the guest: sum" "$(reported sum | cut -d' ' -f1)" "$(md5sum <"$SCENARIO_TMP/data" | cut -d' ' -f1)"

say "threads"
vm_check mq "$plan"
show vhost_threads "$pid" >"$SCENARIO_TMP/vhost"
cat "$SCENARIO_TMP/vhost"
expect_eq "vhost threads: one per queue pair of lan, none of own" 4 "$(grep -cE '^[0-9]+ ' "$SCENARIO_TMP/vhost")"
expect_eq "vhost threads are on the CPUs kept for the host" "$(jq -r .emulator_cpus "$plan")" \
	"$(awk '/^[0-9]+ / { print $2 }' "$SCENARIO_TMP/vhost" | sort -u)"
check_show "gpuvm verify mq" gpuvm verify mq

# --- its end, of its own and by force -------------------------------------------------------------------------
say "the guest is told to power off"
launcher=$(vm_launcher_pid mq)
echo goodbye | busybox nc -w 20 10.15.0.2 5016
wait_for 60 no_process "$launcher"
expect_eq "what the guest was told" goodbye "$(reported told)"
host_as_before "host as before: the tap of ours is gone, the operator's is as it was" "$SCENARIO_TMP/before"

say "both taps made for the VM, and everything killed at once"
check "start again" launch "$SCENARIO_TMP/mq.ini" --set net.own.ifname=auto
expect_eq "interfaces of the VM" "mq-lan mq-own" "$(cd /sys/class/net && echo mq-*)"
qemu=$(vm_qemu_pid mq)
kill -KILL "$(vm_launcher_pid mq)" "$qemu"
check "QEMU is gone" wait_for 60 no_process "$qemu"
host_as_before "host as before" "$SCENARIO_TMP/before"

ip tuntap del dev tap-own mode tap multi_queue
ip link del br0
