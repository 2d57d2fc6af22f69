#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# gpuvm-check.sh - is this guest what was planned for it? For use in the guest, as root: sh gpuvm-check.sh
# Needs a POSIX shell, cat, od, /proc and /sys; nvidia-smi is asked if it is there. Changes nothing.
# Each line is ok, warning (it costs speed), problem (it is not as planned), or unknown (it could not be looked at).
# Exit status: 0 no problems, 1 problems, 2 wrong usage.
#   --nccl   print the topology file for NCCL that belongs to this guest, and check nothing

root=${GPUVM_CHECK_ROOT:-} # another root than / is for tests
n_ok=0 n_warning=0 n_problem=0 n_unknown=0

# --- saying ----------------------------------------------------------------------------------------------------------

say() { # WORD SUBJECT TEXT [COST FIX]
	eval "n_$1=\$((n_$1 + 1))"
	if [ $# -gt 3 ]; then
		printf '%-7s  %s: %s  (cost: %s; fix: %s)\n' "$@"
	else
		printf '%-7s  %s: %s\n' "$@"
	fi
}

finish() {
	printf '\nproblems: %s, warnings: %s, ok: %s, not known: %s\n' "$n_problem" "$n_warning" "$n_ok" "$n_unknown"
	[ "$n_problem" = 0 ]
}

# --- reading ---------------------------------------------------------------------------------------------------------

get() { # FILE: its first line is in $line, "" if it cannot be read
	line=
	{ IFS= read -r line <"$root$1"; } 2>/dev/null || :
}

get_list() { # FILE: likewise, of a list of CPUs, which the kernel does not give byte by byte, as some shells read
	line=$(cat "$root$1" 2>/dev/null) || line=
}

# --- CPUs and memory ---------------------------------------------------------------------------------------------------

cpus() { # ONLINE SOCKETS THREADS: "-" for an emulated CPU, which may not show them
	get /sys/devices/system/cpu/online
	if [ "$line" != "$1" ]; then
		say problem cpus "$line online, $1 planned" "the guest computes with other CPUs than it was given" \
			"no maxcpus= or nr_cpus= on the guest's kernel command line; write 1 into /sys/devices/system/cpu/cpuN/online"
		return
	fi
	sockets=0 seen=' '
	for dir in "$root"/sys/devices/system/cpu/cpu[0-9]*; do
		get "${dir#"$root"}/topology/physical_package_id"
		case $seen in
		*" $line "*) ;;
		*) seen="$seen$line " sockets=$((sockets + 1)) ;;
		esac
	done
	if [ "$3" = - ] && [ "$sockets" = "$2" ]; then
		say ok cpus "$1 online, sockets: $2"
		return
	fi
	get_list /sys/devices/system/cpu/cpu0/topology/thread_siblings_list
	threads=0
	for part in $(printf '%s' "$line" | tr , ' '); do
		threads=$((threads + ${part#*-} - ${part%-*} + 1))
	done
	if [ "$sockets $threads" = "$2 $3" ]; then
		say ok cpus "$1 online, sockets: $2, threads per core: $3"
	else
		say warning cpus "sockets: $sockets, threads per core: $threads; planned: $2 and $3" \
			"the scheduler shares cores and caches otherwise than the host has them" "no nosmt on the guest's kernel command line"
	fi
}

node() { # NODE CPUS BYTES
	dir=/sys/devices/system/node/node$1 kb=0
	if [ ! -d "$root$dir" ]; then
		say problem "node $1" "it is not there" "memory and devices look equally near to all CPUs" \
			"no numa=off on the guest's kernel command line; a kernel with CONFIG_NUMA"
		return
	fi
	get_list "$dir/cpulist"
	if [ "$line" != "$2" ]; then
		say problem "node $1" "it has the CPUs ${line:-none}, planned: $2" "threads run far from their memory and GPUs" \
			"no numa=off or numa=fake= on the guest's kernel command line"
		return
	fi
	while read -r _ _ key value _; do
		if [ "$key" = MemTotal: ]; then kb=$value; fi
	done <"$root$dir/meminfo"
	# The kernel keeps 1.6 % for its pages, and for itself, a crash kernel and bounce buffers what a small guest feels most.
	if [ "$kb" -gt $(($3 / 1024)) ] || [ "$kb" -lt $(($3 * 96 / 102400 - 524288)) ]; then
		say problem "node $1" "it has $((kb / 1024)) MiB, planned: $(($3 / 1048576))" "what was planned to fit may not" \
			"no mem= and no large crashkernel= on the guest's kernel command line"
	else
		say ok "node $1" "CPUs $2, $((kb / 1024)) MiB of $(($3 / 1048576))"
	fi
}

clock() {
	get /sys/devices/system/clocksource/clocksource0/current_clocksource
	case $line in
	kvm-clock | tsc) say ok clock "$line" ;;
	'') say unknown clock "the kernel does not say which clock it uses" ;;
	*) say warning clock "$line" "each look at the clock leaves the guest, microseconds in place of nanoseconds" \
		"no clocksource=, notsc or no-kvmclock on the guest's kernel command line" ;;
	esac
}

# --- devices: device() begins one, the others are about it, device_end() says what was right ----------------------------

device() { # ID BDF VENDOR:DEVICE PATH NODE: the bridges above it; the node is "-" where none was planned
	id=$1 bdf=$2 dir=/sys/bus/pci/devices/$2 good=
	if [ ! -d "$root$dir" ]; then
		say problem "$id" "nothing is at $bdf" "it cannot be used" \
			"dmesg | grep ${bdf#0000:}; if it was removed: echo 1 >/sys/bus/pci/rescan; gpuvm verify on the host"
		dir=
		return
	fi
	get "$dir/vendor"
	found=${line#0x}
	get "$dir/device"
	found=$found:${line#0x}
	if [ "$found" = "$3" ]; then
		good="$bdf $3"
	else
		say problem "$id" "$found is at $bdf, planned: $3" "another device is in its place, and NCCL's topology file is wrong" \
			"no pci= on the guest's kernel command line that gives out other bus numbers"
	fi
	path=
	for part in $(cd -P "$root$dir" && pwd -P | tr / ' '); do
		case $part in
		*.[0-7]) path="$path${path:+ }$part" ;;
		esac
	done
	path=${path% *}
	if [ "$path" = "$4" ]; then
		good="$good below $path"
	else
		say problem "$id" "it is below $path, planned: $4" "GPUs, NICs and drives look nearer or farther than they are" \
			"no pci= on the guest's kernel command line; gpuvm plan --matrix"
	fi
	get "$dir/numa_node"
	if [ "$5" = - ] || [ "$line" = "$5" ]; then
		good="$good, node $line"
	else
		say problem "$id" "its NUMA node is $line, planned: $5" "drivers and NCCL take CPUs and memory far from it" \
			"no numa=off on the guest's kernel command line; a kernel with ACPI"
	fi
}

gts() { # MT/s: "32.0"
	printf '%s.%s' $(($1 / 1000)) $(($1 % 1000 / 100))
}

read_link() { # DIR WHICH: $mts and $width, 0 if they are not known
	get "$1/$2_link_speed"
	case $line in
	[0-9]*.[0-9]*) mts=${line%%[!0-9.]*} mts=$((${mts%.*} * 1000 + ${mts#*.} * 100)) ;;
	*) mts=0 ;;
	esac
	get "$1/$2_link_width"
	width=$((${line:-0}))
}

link() { # MTS WIDTH [idles]: what the host's path has
	[ "$dir" ] || return 0
	read_link "$dir" current
	if [ "$mts" = 0 ]; then
		say unknown "$id" "the guest does not see its link"
	elif [ "$width" -lt "$2" ]; then
		say problem "$id" "its link has $width lanes, planned: $2" "bandwidth in proportion" "gpuvm doctor on the host"
	elif [ "$mts" -lt "$1" ] && [ $# -lt 3 ]; then
		say warning "$id" "its link runs at $(gts "$mts") GT/s, planned: $(gts "$1")" "bandwidth in proportion" "gpuvm doctor on the host"
	else
		good="$good, link $(gts "$mts") GT/s x$width"
		if [ "$mts" -lt "$1" ]; then good="$good (idle; $(gts "$1") under load)"; fi
	fi
}

root_port() { # MTS WIDTH: what the root port right above it was told to offer
	[ "$dir" ] || return 0
	read_link "/sys/bus/pci/devices/${path##* }" max
	if [ "$mts" -lt "$1" ] || [ "$width" -lt "$2" ]; then
		say warning "$id" "its root port offers $(gts "$mts") GT/s x$width, planned: $(gts "$1") x$2" \
			"NCCL counts with the slower one where it has no topology file" "QEMU 9.0 offers 32 and 64 GT/s"
	fi
}

bars() { # INDEX:BYTES...
	[ "$dir" ] || return 0
	index=0 list=" $* " total=$# before=$n_problem
	while read -r start end _; do
		case $list in
		*" $index:"*)
			bytes=${list#*" $index:"} bytes=${bytes%% *}
			if [ $((start)) = 0 ]; then
				say problem "$id" "BAR $index has no address" "its driver cannot work" \
					"dmesg | grep 'BAR $index'; [pcie] mmio64 of the definition; no pci= on the guest's kernel command line"
			elif [ $((end - start + 1)) != "$bytes" ]; then
				say problem "$id" "BAR $index has $((end - start + 1)) bytes, planned: $bytes" "the device was changed after the plan" \
					"start the VM anew"
			fi
			list=${list%%" $index:"*}" "${list#*" $index:$bytes "}
			;;
		esac
		index=$((index + 1))
	done <"$root$dir/resource"
	# shellcheck disable=SC2086 # it is a list of words
	set -- $list
	if [ $# -gt 0 ]; then
		say problem "$id" "these BARs are not there: $*" "its driver cannot work" "start the VM anew"
	fi
	if [ "$n_problem" = "$before" ]; then good="$good, BARs: $total"; fi
}

word_at() { # OFFSET: a 32-bit word of the device's configuration space in $word, "" if it cannot be read
	word=$(od -An -v -tu4 -j "$1" -N 4 "$root$dir/config" 2>/dev/null) || word=
	word=${word##* }
}

ats() {
	[ "$dir" ] || return 0
	at=256 steps=0
	while [ "$at" -ge 256 ] && [ "$steps" -lt 64 ]; do
		word_at "$at"
		if [ ! "$word" ]; then
			say unknown "$id" "ATS: its extended configuration space cannot be read; root can, with od"
			return
		fi
		if [ $((word & 65535)) = 15 ]; then
			word_at $((at + 4))
			if [ $((word >> 31)) = 1 ]; then
				good="$good, ATS on"
			else
				say warning "$id" "its ATS is off" "GPUDirect RDMA goes through the host's IOMMU" "gpuvm doctor on the host: ats"
			fi
			return
		fi
		at=$((word >> 20 & 4092)) steps=$((steps + 1))
	done
	say warning "$id" "it does not offer ATS" "GPUDirect RDMA goes through the host's IOMMU" \
		"on the host mlxconfig set ATS_ENABLED=true, then reboot the host: gpuvm doctor"
}

driver() { # WANTED
	[ "$dir" ] || return 0
	have=$(cd -P "$root$dir/driver" 2>/dev/null && pwd -P) || have=
	have=${have##*/}
	if [ "$have" = "$1" ]; then
		good="$good, driver $have"
	else
		say problem "$id" "its driver is ${have:-not loaded}, wanted: $1" "it cannot compute" \
			"install the NVIDIA driver in the guest, and blacklist nouveau"
	fi
}

device_end() {
	if [ "$dir" ] && [ "$good" ]; then say ok "$id" "${good# }"; fi
}

# --- NVIDIA's software ---------------------------------------------------------------------------------------------------

peermem() {
	if [ -d "$root/sys/module/nvidia_peermem" ]; then
		say ok peermem "nvidia_peermem is loaded"
	else
		say warning peermem "nvidia_peermem is not loaded" "no GPUDirect RDMA, but for programs that use DMA-BUF" \
			"modprobe nvidia-peermem, and a line in /etc/modules-load.d"
	fi
}

manager() { # of NVSwitches that the guest has itself
	get /sys/module/nvidia/version
	driver=$line
	for dir in "$root"/proc/[0-9]*; do
		get "${dir#"$root"}/comm"
		[ "$line" = nv-fabricmanage ] && break
	done
	if [ "$line" != nv-fabricmanage ]; then
		say problem fabric-manager "it does not run" "no NVLink: CUDA ends with error 802 (system not yet initialized)" \
			"systemctl enable --now nvidia-fabricmanager, of the driver's version"
		return
	fi
	version=$(nv-fabricmanager --version 2>/dev/null) || version=
	version=${version##* }
	compare_versions "$version" "$driver" "install the Fabric Manager of the driver's version in the guest"
}

host_manager() { # VERSION of the host's driver, "" if it is not known
	get /sys/module/nvidia/version
	compare_versions "$1" "$line" "install the driver of that version in the guest"
}

compare_versions() { # FABRIC-MANAGER DRIVER FIX
	if [ ! "$1" ] || [ ! "$2" ]; then
		say unknown fabric-manager "version ${1:-not known}, driver ${2:-not loaded}: both must be the same"
	elif [ "$1" = "$2" ]; then
		say ok fabric-manager "version $1, as the driver"
	else
		say problem fabric-manager "version $1, driver $2" "no NVLink: CUDA ends with error 802 (system not yet initialized)" "$3"
	fi
}

fabric() { # GPUS: Hopper and later say whether each one has joined
	answer=$(nvidia-smi -q 2>/dev/null) || answer=
	if [ ! "$answer" ]; then
		say unknown fabric "nvidia-smi -q does not answer"
		return
	fi
	inside='' state='' joined=0 others=0
	while IFS=: read -r key value; do
		key=${key#"${key%%[! ]*}"} key=${key%%" "*} value=${value# }
		case $key in
		Fabric) inside=1 ;;
		State) if [ "$inside" ]; then state=$value; fi ;;
		Status)
			[ "$inside" ] || continue
			inside=''
			case $state/$value in
			Completed/Success) joined=$((joined + 1)) ;;
			N/A/*) ;;
			*) others=$((others + 1)) last="State $state, Status $value" ;;
			esac
			;;
		esac
	done <<ANSWER
$answer
ANSWER
	if [ "$others" -gt 0 ]; then
		say problem fabric "$others GPUs have not joined: $last" "no NVLink: CUDA ends with error 802 (system not yet initialized)" \
			"nvidia-smi -q -d FABRIC; Fabric Manager and the partition, on the host: gpuvm fabric"
	elif [ "$joined" = 0 ]; then
		say unknown fabric "these GPUs do not say whether they have joined: nvidia-smi topo -m, nvidia-smi nvlink -s"
	elif [ "$joined" != "$1" ]; then
		say problem fabric "$joined GPUs have joined, planned: $1" "no NVLink to the others" "nvidia-smi -L"
	else
		say ok fabric "all $1 GPUs have joined: State Completed, Status Success"
	fi
}

nccl() { # NAMES the file of nccl_file
	file=${NCCL_TOPO_FILE:-} where="of the environment"
	if [ ! "$file" ] && [ -e "$root/etc/nccl.conf" ]; then
		where="of /etc/nccl.conf"
		while IFS='=' read -r key value; do
			if [ "$key" = NCCL_TOPO_FILE ]; then file=$value; fi
		done <"$root/etc/nccl.conf"
	fi
	fix='mkdir -p /etc/gpuvm && sh gpuvm-check.sh --nccl >/etc/gpuvm/nccl-topo.xml && echo NCCL_TOPO_FILE=/etc/gpuvm/nccl-topo.xml >>/etc/nccl.conf'
	cost='NCCL asks the guest for links, and the emulated switch ports say 2.5 GT/s x1'
	if [ ! "$file" ]; then
		say warning nccl "NCCL_TOPO_FILE is set neither in the environment nor in /etc/nccl.conf" "$cost" "$fix"
	elif [ ! -r "$root$file" ]; then
		say problem nccl "NCCL_TOPO_FILE $where is $file, which cannot be read" "$cost" "$fix"
	elif [ "$(cat "$root$file")" != "$(nccl_file)" ]; then
		say problem nccl "NCCL_TOPO_FILE $where is $file, which is not that of this plan" \
			"NCCL takes what it says for true: addresses and links of another machine" "$fix"
	else
		say ok nccl "NCCL_TOPO_FILE $where is $file, that of this plan"
	fi
}

# --- main: below are the functions "planned" and "nccl_file", written for one VM -------------------------------------------

main() {
	case $#:${1:-} in
	0:) ;;
	1:--nccl)
		nccl_file
		return
		;;
	*)
		echo "usage: sh gpuvm-check.sh [--nccl]" >&2
		return 2
		;;
	esac
	planned
	finish
}
