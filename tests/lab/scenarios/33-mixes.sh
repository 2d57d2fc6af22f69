# shellcheck shell=bash
# All ways to cut the eight GPUs into VMs of 1, 2, 4 and 8: each has its own GPUs, CPUs and memory, one too many is refused, and the host is as before.
# shape: default
# long: yes
# timeout: 3000
# shellcheck source=/dev/null
. "$LAB/lib.sh"
scenario
host_snapshot "$SCENARIO_TMP/before"
show gpuvm templates

for size in 1 2 4 8; do
	# Each GPU has its share of the memory, so any mix fits. SeaBIOS has no ear for the power button.
	printf '[vm]\nfirmware = seabios\n[place]\ngpus = %d\n[memory]\nsize = %dM\n[lifecycle]\nstop-timeout = 500ms\n' "$size" $((size * 128)) \
		>"$SCENARIO_TMP/size$size.ini"
done

# Once more what the claims say, from the kernel: no two QEMUs have a group, a CPU of a vCPU or a page pool beyond their own.
disjoint() { # NAME...
	local name
	for name; do vm_devices "$name"; done | sort >"$SCENARIO_TMP/devices"
	for name; do vm_threads "$name" | awk '$2 ~ /^CPU_/ { print $3 }'; done | sort >"$SCENARIO_TMP/cpus"
	expect_eq "devices in two VMs" "" "$(uniq -d "$SCENARIO_TMP/devices")"
	expect_eq "CPUs with two vCPUs" "" "$(uniq -d "$SCENARIO_TMP/cpus")"
}

gpus_in_use() {
	local bdf n=0
	for bdf in /sys/bus/pci/drivers/vfio-pci/0000:*; do
		bdf=${bdf##*/}
		if [[ $(class_of "$bdf") == 03* ]]; then n=$((n + 1)); fi
	done
	echo "$n"
}

all_paused() { [[ $(gpuvm list --json | jq '[.[] | select(.state == "paused")] | length') == "$1" ]]; } # N

# The mixes that fill the machine, largest first: each mix that does not is met on the way to one of them.
met=()
for mix in "8" "4 4" "4 2 2" "4 2 1 1" "4 1 1 1 1" "2 2 2 2" "2 2 2 1 1" "2 2 1 1 1 1" "2 1 1 1 1 1 1" "1 1 1 1 1 1 1 1"; do
	say "mix $mix"
	names=() used=0 way=
	for size in $mix; do
		name=vm${#names[@]}
		way+="${way:+ }$size"
		if launch "$SCENARIO_TMP/size$size.ini" --set "vm.name=$name"; then
			# The firmware has nothing to do but to take time from the next one: all CPUs here are one thread.
			gpuvm pause "$name"
			names+=("$name")
			used=$((used + size))
			met+=("$way")
		else
			bad "$way: the last one starts"
		fi
	done
	expect_eq "$mix: GPUs given" 8 "$(gpus_in_use)"
	wait_for 60 all_paused "${#names[@]}"
	expect_eq "$mix: VMs that are there" "${#names[@]}" "$(gpuvm list --json | jq '[.[] | select(.state == "paused")] | length')"
	disjoint "${names[@]}"
	expect_exit 5 "$mix: one more is refused" "$GPUVM_LAUNCH" -d "$SCENARIO_TMP/size1.ini" --set vm.name=more
	pids=()
	for name in "${names[@]}"; do
		gpuvm stop "$name" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || bad "$mix: gpuvm stop" "exit $?"; done
	host_as_before "$mix: host as before" "$SCENARIO_TMP/before"
done
# 35 multisets of 1, 2, 4, 8 have a sum of at most 8, the empty one left out.
expect_eq "mixes met" 35 "$(printf '%s\n' "${met[@]}" | sort -u | wc -l)"
