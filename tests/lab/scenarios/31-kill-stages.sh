# shellcheck shell=bash
# SIGKILL at every stage, on real devices: the launcher on the way up and on the way down, QEMU, and who recovers. The host is as before each time.
# shape: default
# timeout: 1200
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario

one=$SCENARIO_TMP/one.ini
printf '[vm]\nname = one\n[place]\ngpus = 1\n[lifecycle]\nstop-timeout = 2s\n' >"$one"
host_snapshot "$SCENARIO_TMP/before"
log=$SCENARIO_TMP/launch

# Start a launcher; its log is fd 3.
start_launcher() {
	rm -f "$log"
	mkfifo "$log"
	"$GPUVM_LAUNCH" -v "$one" 2>"$log" >/dev/null &
	launcher=$!
	exec 3<"$log"
}

# Read its log until it says TEXT at the end of a line. Fails if it ends before.
until_says() { # TEXT
	local line
	while IFS= read -r line <&3; do
		if [[ $line == *": $1" ]]; then return 0; fi
	done
	return 1
}

# What an operator types after it: whatever it left, all is given back.
give_back() { # WHAT
	local rc=0
	gpuvm recover one >"$SCENARIO_TMP/recover" 2>&1 || rc=$?
	if vm_qemu_pid one >/dev/null; then
		evidence "  $1: QEMU lives on; gpuvm kill ends it"
		gpuvm kill one >>"$SCENARIO_TMP/recover" 2>&1 || rc=$?
	fi
	if ((rc)); then bad "$1: recover" "$(<"$SCENARIO_TMP/recover")"; fi
	host_as_before "$1: host as before" "$SCENARIO_TMP/before"
}

say "the launcher, at each stage of a start"
for stage in claim "load vfio" bind prepare "start QEMU" connect pin verify run; do
	start_launcher
	if until_says "$stage"; then
		kill -KILL "$launcher"
		wait "$launcher" || :
		give_back "launcher killed at '$stage'"
	else
		bad "the stage '$stage' is not in the log"
	fi
	exec 3<&-
done

say "the launcher, at each step of the end"
for step in "undo start QEMU" "undo prepare" "undo bind" "undo claim"; do
	start_launcher
	until_says run
	wait_for 60 test -n "$(vm_qemu_pid one)"
	kill -TERM "$launcher"
	if until_says "$step"; then
		kill -KILL "$launcher"
		wait "$launcher" || :
		give_back "launcher killed at '$step'"
	else
		bad "the step '$step' is not in the log"
	fi
	exec 3<&-
done

say "QEMU, at each stage of a start: the launcher gives all back by itself"
for stage in connect pin verify run; do
	start_launcher
	if until_says "$stage"; then
		qemu=$(vm_qemu_pid one)
		kill -KILL "$qemu"
		rc=0
		while IFS= read -r _ <&3; do :; done
		wait "$launcher" || rc=$?
		expect_match "QEMU killed at '$stage': exit code" '^[16]$' "$rc"
		check "no claim" test ! -e /run/gpuvm/one/claim.json
		host_as_before "QEMU killed at '$stage': host as before" "$SCENARIO_TMP/before"
	else
		bad "the stage '$stage' is not in the log"
	fi
	exec 3<&-
done

say "recover itself, again and again, after a launcher that died with its devices bound"
start_launcher
until_says "start QEMU"
kill -KILL "$launcher"
wait "$launcher" || :
exec 3<&-
if qemu=$(vm_qemu_pid one); then kill -KILL "$qemu" && wait_for 20 no_vm one; fi
for i in 1 2 3 4 5 6; do
	gpuvm recover one 2>/dev/null &
	pid=$!
	# The later ones get further.
	for ((k = 0; k < i * 40; k++)); do read_line /proc/uptime; done
	kill -KILL "$pid" 2>/dev/null || :
	wait "$pid" || :
done
give_back "recover killed six times"

say "two at once"
start_launcher
until_says "start QEMU"
kill -KILL "$launcher"
wait "$launcher" || :
exec 3<&-
if qemu=$(vm_qemu_pid one); then kill -KILL "$qemu" && wait_for 20 no_vm one; fi
gpuvm recover & first=$!
gpuvm recover & second=$!
rc=0
wait "$first" || rc=$?
wait "$second" || rc=$?
expect_eq "both end well" 0 "$rc"
host_as_before "host as before" "$SCENARIO_TMP/before"
