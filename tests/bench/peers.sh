# shellcheck shell=bash
# peers.sh - libvirt for as long as the bench runs: its own /run, /etc/libvirt and /var in a mount namespace, so it meets no other libvirtd, and nothing
# of it is left. $libvirt and $libvirt_why are for who sources it.
# shellcheck disable=SC2034

libvirt=false libvirt_why='' libvirt_pid='' libvirt_log_pid=''

lv() { nsenter -t "$libvirt_pid" -m -- "$@"; } # COMMAND...: where libvirtd is

libvirt_root() { # COMMAND...: in the new namespace
	local dir
	mount -t tmpfs tmpfs /run
	mkdir -p /run/libvirt "$work"/lv/{etc,lib,cache,log}
	printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\n' >"$work/lv/etc/qemu.conf"
	for dir in etc/libvirt:etc var/lib/libvirt:lib var/cache/libvirt:cache var/log/libvirt:log; do
		mount --bind "$work/lv/${dir#*:}" "/${dir%:*}"
	done
	exec "$@"
}

libvirt_begin() { # ACCEL
	local daemon name end=$((SECONDS + 60))
	daemon=$(command -v virtqemud || command -v libvirtd || :)
	if [[ -z $daemon ]] || ! command -v virsh >/dev/null || ! command -v virtlogd >/dev/null; then
		libvirt_why="libvirt is not installed (make bench BENCH_ARGS=--setup)"
		return
	fi
	if ! unshare -m true 2>/dev/null; then
		libvirt_why="mount namespaces are not allowed here"
		return
	fi
	export -f libvirt_root
	export work
	unshare -m bash -Eeuo pipefail -c 'libvirt_root "$@"' bash "$daemon" </dev/null >"$work/libvirtd.log" 2>&1 &
	libvirt_pid=$!
	until [[ -d /proc/$libvirt_pid/root/run/libvirt && $(cat "/proc/$libvirt_pid/comm") == "$(basename "$daemon")" ]]; do
		if ((SECONDS >= end)) || ! kill -0 "$libvirt_pid" 2>/dev/null; then break; fi
		read -rt 0.05 <> <(:) || :
	done
	nsenter -t "$libvirt_pid" -m -- virtlogd </dev/null >>"$work/libvirtd.log" 2>&1 &
	libvirt_log_pid=$!
	until lv virsh -q uri >/dev/null 2>&1 && [[ -S /proc/$libvirt_log_pid/root/run/libvirt/virtlogd-sock ]]; do
		if ((SECONDS >= end)) || ! kill -0 "$libvirt_pid" 2>/dev/null; then
			libvirt_why="$daemon does not come up: $(tail -n 1 "$work/libvirtd.log")"
			libvirt_end
			return
		fi
		read -rt 0.05 <> <(:) || :
	done
	domain demo "$1" >"$work/demo.xml"
	domain button "$1" "$work/guest.img" "$work/lv.serial" >"$work/button.xml"
	# Once before anything counts: libvirt asks QEMU, too, and keeps the answers.
	for name in demo button; do
		if ! lv virsh -q define "$work/$name.xml" 2>>"$work/libvirtd.log" >/dev/null || ! lv virsh -q start "$name" 2>>"$work/libvirtd.log" ||
			! lv virsh -q destroy "$name" 2>>"$work/libvirtd.log"; then
			libvirt_why="libvirt does not start the VM: $(tail -n 1 "$work/libvirtd.log")"
			libvirt_end
			return
		fi
	done
	libvirt=true
}

libvirt_pids() { printf '%s\n' "$libvirt_pid" "$libvirt_log_pid"; }

libvirt_end() {
	local name pid
	if [[ -z $libvirt_pid ]]; then return 0; fi # in a trap a bare "return" has the status from before it
	for name in demo button; do
		if lv virsh -q domstate "$name" 2>/dev/null | grep running >/dev/null; then lv virsh -q destroy "$name" || :; fi
	done
	for pid in "$libvirt_pid" "$libvirt_log_pid"; do
		if [[ -n $pid ]]; then
			kill "$pid" 2>/dev/null || :
			wait "$pid" 2>/dev/null || :
		fi
	done
	libvirt_pid='' libvirt=false
}
