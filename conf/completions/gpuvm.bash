# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2046,SC2086
# (lists of names and options, which have no blanks)
# Completion of gpuvm and gpuvm-launch, for bash, and through _gpuvm for zsh. It needs nothing but the shell, and never runs gpuvm. (Variables called
# path, words or options would be zsh's own.)
# What a verb takes is written down here; tests/unit/test_completion.c compares it with each --help and with the keys.

_gpuvm_verbs=(topo capture doctor audit plan guest-check diff templates image fabric verify list status log console create delete start restart pause resume reset stop kill
	wait qmp recover version)
_gpuvm_image_words=(list install upgrade remove)

# For --set; not those of sections that have a name of their own (disk.os.file).
_gpuvm_keys=(
	vm.name vm.uuid vm.firmware vm.accel vm.machine vm.kernel vm.initrd vm.append place.gpus place.gpu-index place.socket place.nics
	place.nvme place.nvswitch cpu.vcpus cpu.model cpu.threads cpu.pin cpu.reserve cpu.emulator cpu.interrupts cpu.pmu cpu.invtsc cpu.cpu-pm
	memory.size memory.hugepages memory.prealloc memory.reserve memory.mem-lock pcie.topology pcie.mmio64 pcie.relation pcie.cliques pcie.acs
	fabric.mode fabric.partition fabric.manager guest.agent guest.rng guest.panic guest.tpm guest.vsock guest.check-disk cloud-init.user-data cloud-init.meta-data
	cloud-init.network-config console.serial lifecycle.stop-timeout lifecycle.ready-timeout lifecycle.busy-timeout lifecycle.on-reboot lifecycle.on-crash
	lifecycle.on-launcher-death hooks.pre-bind hooks.post-start hooks.post-stop hooks.timeout security.user security.memlock security.sandbox security.device-filter qemu.binary qemu.args
	qemu.env
)

# Long options of a verb, of "image WORD", of gpuvm itself or of gpuvm-launch; "=": a value follows.
_gpuvm_options() {
	case $1 in
	gpuvm) echo --help --version ;;
	gpuvm-launch)
		echo --dry-run --format= --explain --set= --sysroot= --topology= --daemonize --qemu= --qemu-answers= --fake-devices --force-insecure --gdb \
			--trace= --strace --timings --verbose --quiet --help --version
		;;
	topo) echo --json --all --matrix --svg= --sysroot= --topology= --help ;;
	capture) echo --sysroot= --keep-name --json --help ;;
	doctor) echo --json --sysroot= --compare= --clear= --help ;;
	audit) echo --json --sysroot= --help ;;
	plan) echo --json --explain --matrix --nccl --sysroot= --topology= --qemu= --qemu-answers= --set= --fake-devices --help ;;
	guest-check) echo --sysroot= --topology= --set= --fake-devices --help ;;
	diff) echo --json --set= --sysroot= --topology= --qemu= --qemu-answers= --fake-devices --help ;;
	templates) echo --json --sysroot= --topology= --qemu= --help ;;
	'image install' | 'image upgrade') echo --name= --sha256= --json --help ;;
	fabric) echo --manager= --json --help ;;
	log) echo --follow --qemu --console --launcher --json --help ;;
	console) echo --watch --help ;;
	create)
		echo --gpus= --gpu-index= --vcpus= --memory= --image= --disk-size= --data-disk= --net= --user-data= --set= --no-start --direct \
			--dry-run --sysroot= --json --help
		;;
	delete) echo --yes --json --help ;;
	recover) echo --all --help ;;
	start | restart) echo --direct --help ;;
	stop) echo --timeout= --help ;;
	version) echo --qemu= --qemu-answers= --record= --json --help ;;
	verify | list | 'image list') echo --json --help ;;
	status) echo --json --security --help ;;
	*) echo --help ;;
	esac
}

# Names of VMs: those that have a definition, those that run, and those that have ended.
_gpuvm_vms() {
	local file
	for file in "${GPUVM_CONFDIR:-/etc/gpuvm}"/*.ini "${GPUVM_RUNDIR:-/run/gpuvm}"/*/claim.json \
		"${GPUVM_RUNDIR:-/run/gpuvm}"/*/last.json; do
		[[ -e $file ]] || continue
		[[ $file == *.json ]] && file=${file%/*}
		file=${file##*/}
		echo "${file%.ini}"
	done | sort -u
}

_gpuvm_images() {
	local file
	for file in "${GPUVM_STATEDIR:-/var/lib/gpuvm}"/images/*.json; do
		[[ -e $file ]] || continue
		file=${file##*/}
		echo "${file%.json}"
	done
}

# How the line goes on. zsh has no such thing, and there is none outside of a completion.
_gpuvm_how() {
	compopt -o "$1" 2>/dev/null || :
}

# Those of the words that begin as the first one; after one with "=" at its end the line goes on.
_gpuvm_add() {
	local begin=$1 word
	shift
	for word; do
		[[ $word == "$begin"* ]] || continue
		COMPREPLY+=("$word")
		if [[ $word == *= ]]; then _gpuvm_how nospace; fi
	done
}

# Files that begin so, or of them those with a suffix; folders are on the way there.
_gpuvm_files() { # BEGINNING [SUFFIX]
	local file
	while read -r file; do
		if [[ -d $file || $file == *"${2-}" ]]; then COMPREPLY+=("$file"); fi
	done < <(compgen -f -- "$1")
	_gpuvm_how filenames
}

# What option $1 can have that begins with $2.
_gpuvm_values() {
	case $1 in
	--format) _gpuvm_add "$2" shell lines json ;;
	--net) _gpuvm_add "$2" user none bridge= tap= ;;
	--image) _gpuvm_add "$2" $(_gpuvm_images) ;;
	--set) _gpuvm_add "$2" "${_gpuvm_keys[@]/%/=}" ;;
	--svg | --compare | --sysroot | --topology | --qemu | --qemu-answers | --record | --user-data | --strace) _gpuvm_files "$2" ;;
	esac
}

# What can be the word after $2 others of the verb, that begins with $3.
_gpuvm_operands() {
	case "$1 $2" in
	'gpuvm-launch 0') _gpuvm_files "$3" .ini ;;
	'capture 0' | 'image install 0' | 'image upgrade 0') _gpuvm_files "$3" ;;
	'fabric 0') _gpuvm_add "$3" list status activate deactivate sync ;;
	'image 0') _gpuvm_add "$3" "${_gpuvm_image_words[@]}" ;;
	'image remove 0') _gpuvm_add "$3" $(_gpuvm_images) ;;
	'plan 0' | 'audit 0' | 'guest-check 0' | 'start 0' | 'restart 0' | 'diff 0' | 'diff 1')
		_gpuvm_add "$3" $(_gpuvm_vms)
		_gpuvm_files "$3" .ini
		;;
	'topo 0' | 'doctor 0' | 'templates 0' | 'list 0' | 'create 0' | 'version 0' | 'image list 0') ;;
	*' 0') _gpuvm_add "$3" $(_gpuvm_vms) ;;
	esac
}

_gpuvm_complete() {
	local all=() glue='' verb='' known option='' operands=0 word last i
	COMPREPLY=()
	# bash takes words apart at "=", zsh does not.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		last=$((${#all[@]} - 1))
		if [[ $i -gt 1 && ($word == = || -n $glue) ]]; then
			all[last]+=$word
		else
			all+=("$word")
		fi
		if [[ $word == = ]]; then glue=1; else glue=''; fi
	done
	last=$((${#all[@]} - 1))
	[[ ${all[0]##*/} == gpuvm-launch ]] && verb=gpuvm-launch
	for ((i = 1; i < last; i++)); do
		word=${all[i]}
		known=" $(_gpuvm_options "${verb:-gpuvm}") "
		if [[ -n $option ]]; then
			option=''
		elif [[ $word == -* ]]; then
			[[ $known == *" $word= "* ]] && option=$word
		elif [[ -z $verb ]]; then
			verb=$word
		elif [[ $verb == image ]]; then
			verb="image $word"
		else
			operands=$((operands + 1))
		fi
	done
	word=${all[last]}
	if [[ -n $option ]]; then
		_gpuvm_values "$option" "$word"
	elif [[ $word == --*=* ]]; then
		_gpuvm_values "${word%%=*}" "${word#*=}"
		COMPREPLY=("${COMPREPLY[@]/#/${word%%=*}=}")
	elif [[ $word == -* ]]; then
		known=$(_gpuvm_options "${verb:-gpuvm}")
		_gpuvm_add "$word" ${known//=/}
	elif [[ -z $verb ]]; then
		_gpuvm_add "$word" "${_gpuvm_verbs[@]}"
	else
		_gpuvm_operands "$verb" "$operands" "$word"
	fi
	# Only what is behind the last "=" is replaced where words are taken apart.
	if [[ ${COMP_WORDBREAKS-} == *=* && $word == *=* ]]; then
		COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
	fi
}
complete -F _gpuvm_complete gpuvm gpuvm-launch
