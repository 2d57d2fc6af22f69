# shellcheck shell=bash
# domain.sh - for libvirt, the same machine as conf/demo.ini.

# domain NAME ACCEL [DISK SERIAL-LOG]: its XML.
domain() {
	local type=qemu disk='' log=''
	if [[ $2 == kvm ]]; then type=kvm; fi
	if [[ -n ${3:-} ]]; then
		disk="<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$3'/><target dev='vda' bus='virtio'/><readonly/></disk>"
		log="<log file='$4' append='off'/>"
	fi
	cat <<XML
<domain type='$type'>
  <name>$1</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    $disk
    <controller type='usb' model='none'/>
    <interface type='user'><model type='virtio'/><rom enabled='no'/></interface>
    <serial type='unix'><source mode='bind' path='/run/$1-serial.sock'/>$log</serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
    <panic model='isa'/>
  </devices>
</domain>
XML
}
