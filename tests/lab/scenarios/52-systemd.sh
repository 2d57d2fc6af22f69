# shellcheck shell=bash
# The units under a real systemd: started by name, its launcher killed and hung, a start that is refused, stopped, deleted, and the host shut down and booted with a VM.
# shape: default
# timeout: 900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
output='' init='' shim='' rc=0
host_snapshot "$SCENARIO_TMP/before"

# systemd as the init of namespaces of its own: processes, mounts with a /run of its own, cgroups. Kernel, devices and programs are the host's. Of the distribution's
# services only what a unit needs below it: udev would name and bind devices anew.
units=$SCENARIO_TMP/units
mkdir -p "$units/gpuvm@.service.d" "$SCENARIO_TMP/etc" "$SCENARIO_TMP/rundir" /etc/gpuvm
sed "s|@bindir@|${GPUVM%/*}|" "$CONF/systemd/gpuvm@.service.in" >"$units/gpuvm@.service"
cp "$CONF/systemd/gpuvm.target" "$units/"
printf '[Service]\nWatchdogSec=10\nRestartSec=1\n' >"$units/gpuvm@.service.d/lab.conf"
printf '[Unit]\nAllowIsolate=yes\n' >"$units/lab.target"
# As multi-user.target has it by `make install`.
mkdir "$units/lab.target.wants"
ln -s ../gpuvm.target "$units/lab.target.wants/"
for unit in systemd-{udevd,udev-trigger,hwdb-update,sysctl,modules-load,binfmt,tmpfiles-setup,tmpfiles-setup-dev,update-utmp,random-seed,sysusers,firstboot,pstore,remount-fs}.service \
	systemd-{journal-catalog-update,journal-flush,machine-id-commit,boot-system-token,update-done,networkd-wait-online}.service systemd-udevd-{control,kernel}.socket \
	proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount ldconfig.service networking.service ifupdown-wait-online.service; do
	ln -s /dev/null "$units/$unit"
done
cat >"$SCENARIO_TMP/init.sh" <<'INIT'
#!/bin/bash
set -e
mount -n -t proc proc /proc
if ! mountpoint -q /sys/fs/cgroup; then mount -n -t cgroup2 cgroup2 /sys/fs/cgroup; fi
mount -n --bind "$1/units" /etc/systemd/system
mount -n --bind "$1/etc" /etc/gpuvm
mkdir -p "$1/run"
mount -n -t tmpfs -o mode=0755 tmpfs "$1/run"
mkdir -p "$1/run/lab" "$1/run/gpuvm"
mount -n --bind /run/lab "$1/run/lab"
mount -n --bind "$1/rundir" "$1/run/gpuvm"
mount -n --move "$1/run" /run
exec env -i PATH="$PATH" container=lab /lib/systemd/systemd --unit=lab.target --log-target=journal
INIT
give_back() {
	if [[ -n $init ]]; then
		kill -KILL "$init" || :
		wait "$shim" || :
	fi
	rmdir /etc/gpuvm || :
	mkdir "$SCENARIO_TMP/cgroups"
	mount -t cgroup2 cgroup2 "$SCENARIO_TMP/cgroups"
	find "$SCENARIO_TMP/cgroups" -mindepth 1 -depth -type d -exec rmdir {} +
	umount "$SCENARIO_TMP/cgroups"
}
trap 'rc=$?; give_back; scenario_end $rc' EXIT

boot() {
	unshare --pid --mount --cgroup --fork --propagation private bash "$SCENARIO_TMP/init.sh" "$SCENARIO_TMP" &
	shim=$!
	wait_for 20 init_of
	if ! wait_for 120 booted; then
		inside systemctl list-jobs || :
		inside systemctl --failed || :
		inside journalctl --no-pager -n 60 || :
		return 1
	fi
}
init_of() { init=$(pgrep -P "$shim") && [[ $(<"/proc/$init/comm") == systemd ]]; }
booted() { [[ $(inside systemctl is-active lab.target) == active ]]; }
inside() { nsenter -t "$init" -r -p -m -C -- "$@"; }
of_unit() { # PROPERTY [NAME]
	inside systemctl show -P "$1" "gpuvm@${2:-a}.service"
}
unit_is() { # STATE [NAME]
	[[ $(of_unit ActiveState "${2:-a}") == "$1" ]]
}
taken_over() { # PID-BEFORE
	[[ $(of_unit MainPID) != 0 && $(of_unit MainPID) != "$1" ]] && unit_is active
}
define() { # NAME GPUS
	printf '[vm]\nname = %s\nfirmware = seabios\n[cpu]\nvcpus = 1\n[memory]\nsize = 128M\n[place]\ngpus = %s\ngpu-index = 0\n[lifecycle]\nstop-timeout = 2s\n' "$1" "$2" \
		>"$SCENARIO_TMP/etc/$1.ini"
}
define a 1
define b 99

say "systemd $(/lib/systemd/systemd --version | sed -n 's/^systemd \([0-9]*\).*/\1/p')"
boot
ok "systemd is up"

say "start"
check "gpuvm start a" inside gpuvm start a
expect_eq "the unit" "active running 0" "$(of_unit ActiveState) $(of_unit SubState) $(of_unit NRestarts)"
expect_match "systemctl status shows what the launcher says" '^running' "$(of_unit StatusText)"
qemu=$(vm_qemu_pid a)
launcher=$(vm_launcher_pid a)
main=$(of_unit MainPID)
expect_eq "its main process is the launcher" "gpuvm-launch $main" "$(<"/proc/$launcher/comm") $(awk '/^NSpid:/ { print $NF }' "/proc/$launcher/status")"
expect_match "QEMU is in a cgroup of its own below the unit's" '/gpuvm@a\.service/qemu$' "$(grep '^0:' "/proc/$qemu/cgroup")"
expect_match "the launcher is in the unit's" '/gpuvm@a\.service$' "$(grep '^0:' "/proc/$launcher/cgroup")"
expect_match "QEMU's devices" 'devices +only those of the plan' "$(inside gpuvm status --security a)"
group=/sys/fs/cgroup$(jq -r .cgroup "$SCENARIO_TMP/rundir/a/claim.json")
in_group() { inside bash -c "echo \$\$ >$group/cgroup.procs; $1"; }
check "a device of the plan can be opened there" in_group ": <>/dev/vfio/vfio"
expect_exit 1 "another one cannot" in_group ": </dev/kmsg"
expect_match "the journal has its lines by the VM's name" 'running, QEMU has pid' "$(inside journalctl -o cat GPUVM_VM=a)"
expect_eq "QEMU may be killed for want of memory after everything else" -900 "$(<"/proc/$qemu/oom_score_adj")"
check "verify" inside gpuvm verify a
check "reload" inside systemctl reload gpuvm@a

say "the launcher is killed"
kill -KILL "$launcher"
check "systemd starts another one" wait_for 60 taken_over "$main"
expect_eq "which has taken over the same QEMU" "$qemu" "$(vm_qemu_pid a)"
expect_eq "restarts" 1 "$(of_unit NRestarts)"
check "verify" inside gpuvm verify a

say "the launcher hangs"
main=$(of_unit MainPID)
inside kill -STOP "$main"
check "the watchdog ends it, and systemd starts another one" wait_for 90 taken_over "$main"
expect_match "the journal says so" 'watchdog' "$(inside journalctl -o cat -u gpuvm@a)"
expect_eq "the same QEMU" "$qemu" "$(vm_qemu_pid a)"
expect_match "the VM" '"state": *"running"' "$(inside gpuvm status --json a)"

say "launcher and QEMU are killed"
main=$(of_unit MainPID)
inside systemctl kill -s KILL gpuvm@a
check "systemd starts another launcher" wait_for 90 taken_over "$main"
expect_match "which gives back what the dead one held, and starts the VM" 'giving its devices back' "$(inside journalctl -o cat -u gpuvm@a)"
expect_match "another QEMU" '^[0-9]+$' "$(vm_qemu_pid a | grep -vx "$qemu")"
check "verify" inside gpuvm verify a

say "restart"
qemu=$(vm_qemu_pid a)
check "systemctl restart" inside systemctl restart gpuvm@a
expect_match "another QEMU" '^[0-9]+$' "$(vm_qemu_pid a | grep -vx "$qemu")"

say "a start that is refused"
expect_exit 4 "gpuvm start b has the launcher's exit code" inside gpuvm start b
expect_eq "and its words, nothing else" "/etc/gpuvm/b.ini:9: [place] gpus: GPUs 0 to 98 are asked for, but this host has 8 GPUs (numbered from 0)" "$(head -n 1 <<<"$output")"
expect_eq "the unit" "failed exit-code 4 0" "$(of_unit ActiveState b) $(of_unit Result b) $(of_unit ExecMainStatus b) $(of_unit NRestarts b)"
expect_exit 3 "a definition that is not there is no success" inside gpuvm start nosuch

say "stop"
check "systemctl stop" inside systemctl stop gpuvm@a
expect_eq "the unit" "inactive success" "$(of_unit ActiveState) $(of_unit Result)"
check "QEMU has gone" no_vm a
check "and its cgroup" inside test ! -e "$group"
say "start once more, and gpuvm stop"
check "systemctl start" inside systemctl start gpuvm@a
check "gpuvm stop" inside gpuvm stop a
check "the unit is not started again" wait_for 20 unit_is inactive

say "a VM that starts with the host is deleted"
check "gpuvm create c" inside gpuvm create c --no-start --vcpus 1 --memory 128M --net none --data-disk 8M --set vm.firmware=seabios
autostart() { inside gpuvm list --json | jq -r '[.[] | select(.autostart) | .name] | join(" ")'; }
expect_eq "VMs that start with the host" "" "$(autostart)"
inside systemctl enable -q gpuvm@c gpuvm@a
expect_eq "and those that are enabled" "a c" "$(autostart)"
expect_match "gpuvm status c" 'autostart +with the host, as gpuvm@c\.service' "$(inside gpuvm status c)"
check "gpuvm delete c" inside gpuvm delete --yes c
expect_eq "its link is gone, another VM's is not" "gpuvm@a.service" "$(ls "$units/gpuvm.target.wants")"

say "the host shuts down"
shut_down() {
	inside systemctl poweroff || : # the answer may be lost
	check "it comes to its end" wait_for 120 no_process "$init"
	init=''
	wait "$shim" || :
	check "QEMU has gone" no_vm a
}
check "systemctl start gpuvm.target starts what is enabled" inside systemctl start gpuvm.target
check "a runs" vm_qemu_pid a
shut_down
expect_match "its guest was asked to end" 'asked to stop' "$(tail -n 3 "$SCENARIO_TMP/rundir/a/events.jsonl")"
show tail -n 3 "$SCENARIO_TMP/rundir/a/events.jsonl"

say "and boots"
boot
check "what is enabled starts" wait_for 60 unit_is active
check "verify" inside gpuvm verify a
expect_eq "nothing else does" 1 "$(inside systemctl list-units --no-legend 'gpuvm@*' | wc -l)"
shut_down
host_as_before "host as before" "$SCENARIO_TMP/before"
