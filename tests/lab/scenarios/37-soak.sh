# shellcheck shell=bash
# Thirty random steps with three VMs that want overlapping GPUs, and SIGKILLs: no group is ever in two hands, what no VM has is with its driver.
# shape: default
# timeout: 1900
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
RANDOM=20 # the same steps each time; what they meet depends on how fast the machine is
names=(a b c)
# GPUs of each: a and b share one, b and c another.
declare -A first=([a]=0 [b]=1 [c]=2) met=()
for name in "${names[@]}"; do
	printf '[vm]\nname = %s\nfirmware = seabios\n[place]\ngpus = 2\ngpu-index = %s\n[memory]\nsize = 128M\n[lifecycle]\nstop-timeout = 500ms\n' \
		"$name" "${first[$name]}" >"$SCENARIO_TMP/$name.ini"
done
host_snapshot "$SCENARIO_TMP/before"
grep '^driver' "$SCENARIO_TMP/before" | sort >"$SCENARIO_TMP/drivers"

launcher_of() { # NAME: from the kernel's list of processes; nothing if it has none
	local f args
	for f in /proc/[0-9]*/cmdline; do
		mapfile -d '' -t args 2>/dev/null <"$f" || continue
		if [[ ${args[0]:-} == *gpuvm-launch && ${args[-1]} == "$SCENARIO_TMP/$1.ini" ]]; then
			f=${f%/cmdline}
			echo "${f##*/}"
			return 0
		fi
	done
}

# What has to be true after every step.
invariants() { # STEP
	local name pid claimed='' path driver bdf wrong
	for name in "${names[@]}"; do
		# One that ends meanwhile has none.
		if pid=$(vm_qemu_pid "$name"); then { find "/proc/$pid/fd" -lname '/dev/vfio/[0-9]*' -printf '%l\n' 2>/dev/null || :; } | sort -u; fi
	done | sort | uniq -d >"$SCENARIO_TMP/twice"
	expect_eq "$1: groups that two QEMUs hold" "" "$(<"$SCENARIO_TMP/twice")"
	# The claim is the only word of gpuvm's that is asked for: it must explain what is away.
	for name in "${names[@]}"; do
		if [[ -e /run/gpuvm/$name/claim.json ]]; then claimed+=$(jq -r '.devices[].bdf' "/run/gpuvm/$name/claim.json")$'\n'; fi
	done
	for path in /sys/bus/pci/drivers/*/0000:*; do
		driver=${path%/*}
		echo "driver ${path##*/} ${driver##*/}"
	done | sort >"$SCENARIO_TMP/drivers.now"
	wrong=
	while read -r _ bdf driver; do
		if [[ $claimed != *"$bdf"* ]]; then wrong+="$bdf $driver"$'\n'; fi
	done < <(comm -3 "$SCENARIO_TMP/drivers" "$SCENARIO_TMP/drivers.now")
	expect_eq "$1: devices of no claim that are not as before" "" "$wrong"
}

for ((step = 1; step <= 30; step++)); do
	name=${names[RANDOM % 3]}
	what=$((RANDOM % 8))
	qemu=$(vm_qemu_pid "$name" || :)
	launcher=$(launcher_of "$name")
	rc=0
	case $what in
	0 | 1 | 2)
		op="start $name"
		timeout 120 gpuvm-launch -d "$SCENARIO_TMP/$name.ini" >"$SCENARIO_TMP/log" 2>&1 || rc=$?
		# 5: it runs, or another one has the GPU.
		if ((rc != 0 && rc != 5)); then bad "step $step: $op: exit $rc" "$(<"$SCENARIO_TMP/log")"; fi
		;;
	3)
		op="start $name, launcher killed"
		gpuvm-launch -d "$SCENARIO_TMP/$name.ini" >"$SCENARIO_TMP/log" 2>&1 &
		launcher=$!
		for ((k = RANDOM % 400; k > 0; k--)); do read_line /proc/uptime; done
		# With -d there are two: who waits, and who works.
		for pid in "$launcher" $(cat "/proc/$launcher/task/$launcher/children" 2>/dev/null || :); do
			if [[ $(readlink "/proc/$pid/exe" || :) == *gpuvm-launch ]]; then kill -KILL "$pid" 2>/dev/null || :; fi
		done
		wait "$launcher" || rc=$?
		;;
	4)
		op="stop $name"
		timeout 120 gpuvm stop "$name" >"$SCENARIO_TMP/log" 2>&1 || rc=$?
		if [[ -n $qemu$launcher ]] && ((rc)); then bad "step $step: $op: exit $rc" "$(<"$SCENARIO_TMP/log")"; fi
		;;
	5)
		op="kill launcher of $name"
		if [[ -n $launcher ]]; then kill -KILL "$launcher" && wait_for 30 no_process "$launcher"; else op+=": none"; fi
		;;
	6)
		op="kill QEMU of $name"
		if [[ -n $qemu ]]; then
			kill -KILL "$qemu"
			wait_for 60 no_process "$qemu"
			if [[ -n $launcher ]]; then wait_for 60 no_process "$launcher"; fi
		else
			op+=": none"
		fi
		;;
	7)
		op="kill both of $name, recover"
		if [[ -n $launcher$qemu ]]; then
			# shellcheck disable=SC2086 # none or one each
			kill -KILL $launcher $qemu
			if [[ -n $qemu ]]; then wait_for 60 no_process "$qemu"; fi
		fi
		gpuvm recover >"$SCENARIO_TMP/log" 2>&1 || bad "step $step: gpuvm recover: exit $?" "$(<"$SCENARIO_TMP/log")"
		;;
	esac
	evidence "$step: $op: $rc"
	met[$what]=yes
	invariants "step $step, $op"
done
evidence "kinds of steps met: ${#met[@]} of 8"

say "the end"
for name in "${names[@]}"; do
	if vm_qemu_pid "$name" >/dev/null; then check "gpuvm stop $name" gpuvm stop "$name"; fi
done
check "gpuvm recover" gpuvm recover
check "no process is left" wait_for 60 no_lab_processes
for name in "${names[@]}"; do check "$name: no claim is left" test ! -e "/run/gpuvm/$name/claim.json"; done
host_as_before "host as before" "$SCENARIO_TMP/before"
