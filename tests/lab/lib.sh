# shellcheck shell=bash
# lib.sh - what a scenario uses in the emulated host. Sourced by the agent and, first thing, by each scenario:
#
#   # What it shows, in a sentence.
#   # shape: default
#   # timeout: 120
#   . "$LAB/lib.sh"
#   scenario
#   check "the node has hugepages" test -s /sys/...
#
# A check that fails is reported and the scenario goes on; any other command that fails ends it. A scenario without a single
# check fails. Nothing here reads what gpuvm says of itself unless its name says so: the kernel is asked.

# --- checks ------------------------------------------------------------------------------------------

scenario() { # begin one
	set -Eeuo pipefail
	checks_ok=0 checks_bad=0
	trap 'echo "FAIL line $LINENO: $BASH_COMMAND" >&2; checks_bad=$((checks_bad + 1))' ERR
	trap 'scenario_end $?' EXIT
	mkdir -p "$SCENARIO_TMP"
}

scenario_end() { # STATUS
	trap - ERR EXIT
	echo "checks: $checks_ok ok, $checks_bad failed"
	if (($1 != 0 || checks_bad > 0 || checks_ok == 0)); then exit 1; fi
	exit 0
}

say() { printf '\n== %s\n' "$*"; }

ok() { # WHAT
	checks_ok=$((checks_ok + 1))
	echo "ok: $1"
}

bad() { # WHAT [TEXT...]
	checks_bad=$((checks_bad + 1))
	echo "FAIL: $1"
	shift
	if (($# > 0)); then printf '%s\n' "$@" | sed 's/^/    /'; fi
}

check() { # WHAT COMMAND...: its output is shown if it fails
	local what=$1 out
	shift
	if out=$("$@" 2>&1); then ok "$what"; else bad "$what" "$*" "$out"; fi
}

# Like check, for a command whose output is to be seen: it goes to the log as it comes, and into the results.
check_show() { # WHAT COMMAND...
	local what=$1
	shift
	if show "$@"; then ok "$what"; else bad "$what"; fi
}

expect_eq() { # WHAT EXPECTED ACTUAL
	local shown=${3:-none}
	if [[ $2 != "$3" ]]; then
		if [[ $2$3 == *$'\n'* ]]; then
			bad "$1" "expected - and actual + :" "$(diff -U1 <(echo "$2") <(echo "$3") | sed 1,2d)"
		else
			bad "$1" "expected: $2" "actual:   $3"
		fi
		return 0
	fi
	if [[ $shown == *$'\n'* ]]; then shown="$(wc -l <<<"$3") lines are equal"; fi
	ok "$1: $shown"
}

expect_match() { # WHAT REGEX TEXT: extended regular expression, any case
	if grep -qiE -- "$2" <<<"$3"; then ok "$1"; else bad "$1" "no match for: $2" "in: $3"; fi
}

# expect_exit CODE WHAT COMMAND...: sets $output (stdout and stderr) for further checks.
expect_exit() {
	local code=$1 what=$2 rc=0
	shift 2
	output=$("$@" 2>&1) || rc=$?
	printf '$ %s\n%s\n' "$*" "$output"
	if ((rc == code)); then ok "$what: exit $rc"; else bad "$what" "expected exit $code, got $rc"; fi
}

evidence() { # TEXT: goes into the results
	printf '%s\n' "$*" >>"$SCENARIO_DIR/evidence.txt"
	printf '%s\n' "$*"
}

# Run a command whose output is evidence.
show() { # COMMAND...
	local rc=0
	printf '$ %s\n' "$*" | tee -a "$SCENARIO_DIR/evidence.txt"
	"$@" 2>&1 | tee -a "$SCENARIO_DIR/evidence.txt" || rc=$?
	return "$rc"
}

# wait_for SECONDS COMMAND...: until it succeeds, or fail at the deadline.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS >= end)); then
			echo "waited in vain for: $*" >&2
			return 1
		fi
		read -rt 0.2 <> <(:) || : # a pause without a process
	done
}

# --- the host ----------------------------------------------------------------------------------------

read_line() { # FILE: its first line in $line, "" if there is none; without a process
	line=
	IFS= read -r line 2>/dev/null <"$1" || :
}

# Everything that gpuvm may change and must put back, as text. Only shell built-ins: a process costs 30 ms here.
host_snapshot() { # FILE
	local f d line name
	{
		for f in /sys/bus/pci/drivers/*/0000:*; do
			d=${f%/*}
			echo "driver ${f##*/} ${d##*/}"
		done
		for f in /sys/bus/pci/devices/*/driver_override; do
			read_line "$f"
			d=${f%/*}
			echo "override ${d##*/} $line"
		done
		for f in /sys/devices/system/node/node*/hugepages/*/{nr,free,surplus}_hugepages; do
			read_line "$f"
			echo "${f#/sys/devices/system/node/} $line"
		done
		for f in /sys/kernel/iommu_groups/*/devices/*; do
			d=${f%/devices/*}
			echo "group ${d##*/} ${f##*/}"
		done
		for f in /dev/vfio/*; do
			# "vfio" itself comes with the module, which stays.
			if [[ -e $f && $f != /dev/vfio/vfio ]]; then echo "vfio $f"; fi
		done
		for f in /sys/class/net/*/tun_flags; do
			if [[ -e $f ]]; then echo "tap $f"; fi
		done
		for f in /sys/class/iommu/*/devices/*; do
			if [[ -e $f ]]; then echo "iommu ${f##*/}"; fi
		done
		# Interfaces are counted, not named: without udev the kernel gives the lowest free number at each bind.
		set -- /sys/class/net/*
		echo "interfaces $#"
		set -- /sys/class/nvme/*
		echo "nvme controllers $#"
		for f in /dev/hugepages/*; do
			if [[ -e $f ]]; then echo "hugetlbfs $f"; fi
		done
		for f in /proc/[0-9]*/comm; do
			read_line "$f"
			case $line in
			qemu* | gpuvm* | vhost-*) echo "process $line" ;;
			esac
		done
		while read -r line; do echo "mount $line"; done </proc/self/mounts
		for name in /proc/sys/vm/nr_hugepages /proc/sys/kernel/numa_balancing; do
			if [[ -e $name ]]; then
				read_line "$name"
				echo "${name#/proc/} $line"
			fi
		done
	} >"$1"
}

host_compare() { # BEFORE AFTER: prints the difference, fails if there is one
	diff -U0 "$1" "$2" | sed 1,2d
	return "${PIPESTATUS[0]}"
}

host_as_before() { # WHAT SNAPSHOT: check that nothing is left
	host_snapshot "$2.now"
	check "$1" host_compare "$2" "$2.now"
}

# For the agent, after a scenario that failed: give every function the driver of the snapshot.
host_put_back() { # SNAPSHOT
	local word bdf driver now line
	while read -r word bdf driver; do
		case $word in
		override)
			# "(null)" is how the kernel shows that there is none; written back it would be a name.
			read_line "/sys/bus/pci/devices/$bdf/driver_override"
			if [[ $line != "$driver" ]]; then echo "${driver/#(null)/}" >"/sys/bus/pci/devices/$bdf/driver_override"; fi
			;;
		driver)
			now=$(driver_of "$bdf")
			if [[ $now == "$driver" ]]; then continue; fi
			if [[ -n $now ]]; then echo "$bdf" >"/sys/bus/pci/drivers/$now/unbind"; fi
			echo "$bdf" >"/sys/bus/pci/drivers/$driver/bind"
			;;
		esac
	done < <(grep '^override ' "$1"; grep '^driver ' "$1")
	# A function that had no driver.
	for bdf in /sys/bus/pci/drivers/vfio-pci/0000:*; do
		bdf=${bdf##*/}
		if ! grep -q "^driver $bdf " "$1"; then echo "$bdf" >/sys/bus/pci/drivers/vfio-pci/unbind; fi
	done
}

lab_processes() { # pids of every launcher and QEMU
	local f line
	for f in /proc/[0-9]*/comm; do
		read_line "$f"
		case $line in
		qemu-system* | gpuvm*) f=${f%/comm}; echo "${f##*/}" ;;
		esac
	done
}

no_lab_processes() { [[ -z $(lab_processes) ]]; }

# The folder that a link in sysfs stands for; without a process of its own.
resolve() { # LINK
	(cd -P "$1" 2>/dev/null && echo "$PWD")
}

driver_of() { # BDF: "" if none is bound
	local path
	path=$(resolve "/sys/bus/pci/devices/$1/driver") || return 0
	echo "${path##*/}"
}

class_of() { # BDF: "010802"
	local line
	read_line "/sys/bus/pci/devices/$1/class"
	echo "${line#0x}"
}

# BDFs of bridges above a function, root first, as the kernel's path has them.
bridges_of() { # BDF
	local path part parts out=()
	path=$(resolve "/sys/bus/pci/devices/$1")
	IFS=/ read -ra parts <<<"${path%/*}"
	for part in "${parts[@]}"; do
		if [[ $part =~ ^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]]; then out+=("$part"); fi
	done
	echo "${out[*]}"
}

nvme_of() { # BDF: name of the controller ("nvme3"), while the host has it
	local dir=(/sys/bus/pci/devices/"$1"/nvme/*)
	echo "${dir[0]##*/}"
}

# The text at the beginning of the NVMe at BDF, while the host has it.
nvme_marker() { # BDF
	local line
	read_line "/dev/$(nvme_of "$1")n1"
	echo "$line"
}

# Expand a CPU list: "0-2,7" -> "0 1 2 7".
cpus_of() { # LIST
	local part out=()
	for part in ${1//,/ }; do
		if [[ $part == *-* ]]; then
			for ((c = ${part%-*}; c <= ${part#*-}; c++)); do out+=("$c"); done
		else
			out+=("$part")
		fi
	done
	echo "${out[*]}"
}

cpu_in() { # CPU LIST
	[[ " $(cpus_of "$2") " == *" $1 "* ]]
}

# --- guests ------------------------------------------------------------------------------------------

# What a guest of $LAB_HOST/vmlinux boots: $SCENARIO_TMP/initrd.gz with busybox, the modules of mkhost, and what is in DIR, of which ./init is the beginning.
guest_initrd() { # DIR
	chmod +x "$1/init"
	cp "$LAB_HOST/guest-initrd.gz" "$SCENARIO_TMP/initrd.gz"
	(cd "$1" && find . -mindepth 1 | cpio --quiet -o -H newc) | gzip -1 >>"$SCENARIO_TMP/initrd.gz"
}

# --- VMs: found in /proc, not by asking gpuvm ---------------------------------------------------------

# launch FILE [OPTION...]: start in the background (-d). Returns the launcher's status.
launch() {
	local file=$1
	shift
	printf '$ gpuvm-launch -d %s %s\n' "$*" "$file"
	"$GPUVM_LAUNCH" -d "$@" "$file"
}

vm_qemu_pid() { # NAME: the QEMU whose -name is NAME
	local f args i
	for f in /proc/[0-9]*/cmdline; do
		mapfile -d '' -t args 2>/dev/null <"$f" || continue
		if [[ ${args[0]:-} != *qemu* ]]; then continue; fi
		for ((i = 1; i < ${#args[@]}; i++)); do
			if [[ ${args[i - 1]} == -name && ",${args[i]}," =~ ,(guest=)?"$1", ]]; then
				f=${f%/cmdline}
				echo "${f##*/}"
				return 0
			fi
		done
	done
	return 1
}

vm_launcher_pid() { # NAME: the supervisor is the parent of QEMU
	local qemu
	qemu=$(vm_qemu_pid "$1") || return 1
	awk '/^PPid:/ { print $2 }' "/proc/$qemu/status"
}

no_process() { ! kill -0 "$1" 2>/dev/null; }
no_vm() { ! vm_qemu_pid "$1"; }

# SIGTERM to the launcher, as systemd and Slurm do; it must be gone, and QEMU with it, within SECONDS.
vm_stop() { # NAME SECONDS
	local pid
	pid=$(vm_launcher_pid "$1")
	kill -TERM "$pid"
	wait_for "$2" no_process "$pid" && wait_for 5 no_vm "$1"
}

# Threads of QEMU: "TID NAME CPULIST" each.
vm_threads() { # NAME
	local pid dir line key value
	pid=$(vm_qemu_pid "$1") || return 1
	for dir in /proc/"$pid"/task/*; do
		read_line "$dir/comm"
		while read -r key value; do
			if [[ $key == Cpus_allowed_list: ]]; then break; fi
		done <"$dir/status"
		echo "${dir##*/} ${line// /_} $value"
	done
}

# Hugepages of QEMU per node: "NODE PAGES" each, added up over its mappings.
vm_hugepages() { # NAME
	local pid
	pid=$(vm_qemu_pid "$1") || return 1
	grep -E 'huge|kernelpagesize_kB=2048' "/proc/$pid/numa_maps" |
		grep -oE '\bN[0-9]+=[0-9]+' | awk -F'[N=]' '{ n[$2] += $3 } END { for (i in n) print i, n[i] }' | sort -n
}

# BDFs that QEMU was given on its command line; a VM may have none.
vm_devices() { # NAME
	local pid
	pid=$(vm_qemu_pid "$1") || return 1
	tr '\0' '\n' <"/proc/$pid/cmdline" | { grep -oE '0000:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]' || :; } | sort -u
}

# The plan of a running VM against the kernel's own words: affinity of every thread, node of every page, driver of every
# device, groups held. PLAN is the JSON that was printed before the start.
vm_check() { # NAME PLAN
	local name=$1 plan=$2 pid tid thread cpus vcpu host_cpu node bdf nodes wrong
	if ! pid=$(vm_qemu_pid "$name"); then
		bad "$name: QEMU runs" "no QEMU has -name $name"
		return 0
	fi
	vm_threads "$name" >"$SCENARIO_TMP/$name.threads"
	cat "$SCENARIO_TMP/$name.threads"

	nodes=$(jq -r '.nodes[] | "\(.guest_node) \(.host_node)"' "$plan")
	wrong=
	while read -r vcpu host_cpu node; do
		cpus=$(awk -v n="$vcpu" '$2 ~ "^CPU_" n "/" { print $3 }' "$SCENARIO_TMP/$name.threads")
		if [[ $cpus != "$host_cpu" ]]; then wrong+="vCPU $vcpu: planned $host_cpu, allowed '$cpus'"$'\n'; fi
		node=$(awk -v n="$node" '$1 == n { print $2 }' <<<"$nodes")
		if [[ ! -e /sys/devices/system/node/node$node/cpu$host_cpu ]]; then wrong+="CPU $host_cpu is not on node $node"$'\n'; fi
	done < <(jq -r '.vcpus[] | "\(.vcpu) \(.host_cpu) \(.guest_node)"' "$plan")
	expect_eq "$name: vCPU threads on the wrong CPU" "" "$wrong"
	expect_eq "$name: vCPU threads" "$(jq '.vcpus | length' "$plan")" "$(grep -c ' CPU_' "$SCENARIO_TMP/$name.threads")"

	# The rest (main thread, iothreads, workers) must stay away from every vCPU.
	local pinned emulator
	pinned=" $(jq -r '[.vcpus[].host_cpu] | join(" ")' "$plan") "
	wrong=
	while read -r tid thread emulator; do
		if [[ $thread == CPU_* ]]; then continue; fi
		for cpus in $(cpus_of "$emulator"); do
			if [[ $pinned == *" $cpus "* ]]; then wrong+="thread $tid $thread may run on $emulator"$'\n'; break; fi
		done
	done <"$SCENARIO_TMP/$name.threads"
	expect_eq "$name: other threads on vCPUs' CPUs" "" "$wrong"

	expect_eq "$name: hugepages per node" \
		"$(jq -r '.nodes[] | select(.page_bytes > 4096) | "\(.host_node) \(.memory_bytes / .page_bytes)"' "$plan" | sort -n)" \
		"$(vm_hugepages "$name")"

	expect_eq "$name: devices of QEMU" "$(jq -r '.devices[].bdf' "$plan" | sort)" "$(vm_devices "$name")"
	wrong=
	while read -r bdf node; do
		if [[ $(driver_of "$bdf") != vfio-pci ]]; then wrong+="$bdf has driver '$(driver_of "$bdf")'"$'\n'; fi
		if [[ $(<"/sys/bus/pci/devices/$bdf/numa_node") != "$node" ]]; then wrong+="$bdf is not on node $node"$'\n'; fi
	done < <(jq -r '.devices[] | "\(.bdf) \(.host_node)"' "$plan")
	expect_eq "$name: devices not on vfio-pci, or on another node than planned" "" "$wrong"
	expect_eq "$name: IOMMU groups that QEMU holds" \
		"$(jq -r '.devices[].bdf' "$plan" | while read -r bdf; do basename "$(readlink "/sys/bus/pci/devices/$bdf/iommu_group")"; done | sort -un)" \
		"$(find "/proc/$pid/fd" -lname '/dev/vfio/[0-9]*' -printf '%l\n' | sed 's|.*/||' | sort -un)"
	host_keeps_its_own
}

# What the host itself uses is still there: the management NIC has its address, the boot disk can be read.
host_keeps_its_own() {
	expect_match "the management NIC keeps its address" '10\.0\.2\.15' "$(ip -4 -br addr)"
	check "the boot disk can be read" dd if="$(findmnt -no SOURCE /boot)" of=/dev/null bs=64k count=1 iflag=direct
}
