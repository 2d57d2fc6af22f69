# shellcheck shell=bash
# SIGKILL: QEMU alone, then the launcher and QEMU. The first is cleaned up by the launcher, the second by `gpuvm recover` and by the next start.
# shape: default
# timeout: 600
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

host_snapshot "$SCENARIO_TMP/before"

say "QEMU is killed: exit code 6, everything given back"
launch "$CONF/quarter0.ini"
qemu=$(vm_qemu_pid quarter0)
launcher=$(vm_launcher_pid quarter0)
kill -KILL "$qemu"
check "the launcher ends" wait_for 60 no_process "$launcher"
expect_exit 6 "gpuvm wait" gpuvm wait quarter0
expect_match "the reason" 'killed by signal 9' "$(gpuvm status quarter0)"
host_as_before "host as before" "$SCENARIO_TMP/before"

say "both are killed: the devices stay on vfio-pci until somebody recovers them"
launch "$CONF/quarter0.ini"
qemu=$(vm_qemu_pid quarter0)
launcher=$(vm_launcher_pid quarter0)
devices=$(vm_devices quarter0)
kill -KILL "$launcher" "$qemu"
# Not only its command line: a process that is still letting go of its devices has not ended.
check "QEMU is gone" wait_for 60 no_process "$qemu"
for bdf in $devices; do expect_eq "$bdf is still on" vfio-pci "$(driver_of "$bdf")"; done
show gpuvm list
check_show "gpuvm recover" gpuvm recover
host_as_before "host as before" "$SCENARIO_TMP/before"
check "recovering twice is no harm" gpuvm recover

say "and without recover: the next start does it first"
launch "$CONF/quarter0.ini"
qemu=$(vm_qemu_pid quarter0)
kill -KILL "$(vm_launcher_pid quarter0)" "$qemu"
check "QEMU is gone" wait_for 60 no_process "$qemu"
launch "$CONF/quarter0.ini" --set lifecycle.stop-timeout=3s
check_show "gpuvm verify" gpuvm verify quarter0
check "it ends" vm_stop quarter0 60
host_as_before "host as before" "$SCENARIO_TMP/before"
