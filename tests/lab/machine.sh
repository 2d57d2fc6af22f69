# shellcheck shell=bash
# machine.sh - the shape language: functions that turn a machine into QEMU arguments. Sourced by run.
#
#   sockets N cores N threads N     CPUs; one NUMA node per socket
#   memory MIB hugepages N          per node; 2 MiB pages, reserved on the kernel's command line
#   switch NAME PARENT              a PCIe switch. PARENT: node0, node1, "nonuma", or the name of a switch (a stacked one)
#   plug NAME gpu|nic|nvme...       an endpoint each, below a downstream port of switch NAME
#   slot_pair NODE                  a slot with two functions (nvme, NIC) that share an IOMMU group
#   conventional_bus NODE           two NICs on a conventional PCI bus behind a bridge: one IOMMU group
#   boot_disk NODE, management_nic NODE   what the host itself uses, on root ports of their own
#
# Where a function of the lab comes from: ids are SWITCH.gpu0, SWITCH.nic0, SWITCH.nvme0. NVMe number N of the machine
# (serial "labN", counted in the order of the shape) holds the text "gpuvm-lab nvmeN".

machine_init() {
	machine_args=() machine_cmdline=()
	n_sockets=1 n_cpus=1 n_nvme=0 n_nic=0
	chassis=0
	declare -gA bus_next=() port_count=()
}

sockets() { # N cores N threads N
	n_sockets=$1
	n_cpus=$(($1 * $3 * $5))
	machine_args+=(-smp "$n_cpus,sockets=$1,cores=$3,threads=$5")
	# Room for the bus numbers of each node's bridges; pcie.0 has those up to the first pxb.
	local node per=$((0xe0 / n_sockets))
	for ((node = 0; node < n_sockets; node++)); do
		machine_args+=(-device "pxb-pcie,id=node$node,bus_nr=$((0x20 + per * node)),bus=pcie.0,numa_node=$node")
	done
}

memory() { # MIB hugepages N
	local node other per=$((n_cpus / n_sockets)) pages=
	machine_args+=(-m "$(($1 * n_sockets))M")
	for ((node = 0; node < n_sockets; node++)); do
		machine_args+=(-object "memory-backend-ram,id=mem$node,size=$1M"
			-numa "node,nodeid=$node,cpus=$((node * per))-$(((node + 1) * per - 1)),memdev=mem$node")
		pages+=${pages:+,}$node:$3
		for ((other = 0; other < node; other++)); do
			machine_args+=(-numa "dist,src=$other,dst=$node,val=21" -numa "dist,src=$node,dst=$other,val=21")
		done
	done
	machine_cmdline+=(hugepagesz=2M "hugepages=$pages")
}

# (chassis, slot) must be unique in the whole machine: every port is a chassis of its own.
next_port() { # BUS: sets port_addr, chassis
	port_addr=${bus_next[$1]:-0}
	# On pcie.0 the low device numbers belong to the machine itself.
	if [[ $1 == pcie.0 && $port_addr == 0 ]]; then port_addr=16; fi
	bus_next[$1]=$((port_addr + 1))
	chassis=$((chassis + 1))
}

root_port() { # NAME PARENT
	local bus=$2
	# A function below pcie.0 has numa_node -1, like a device whose firmware tells nothing.
	if [[ $bus == nonuma ]]; then bus=pcie.0; fi
	next_port "$bus"
	machine_args+=(-device "pcie-root-port,id=$1,bus=$bus,addr=$port_addr,chassis=$chassis,slot=0")
}

downstream_port() { # NAME SWITCH
	next_port "$2"
	machine_args+=(-device "xio3130-downstream,id=$1,bus=$2,addr=$port_addr,chassis=$chassis,slot=0")
}

switch() { # NAME PARENT
	if [[ $2 == node* || $2 == nonuma ]]; then
		root_port "$1.port" "$2"
	else
		downstream_port "$1.port" "$2"
	fi
	machine_args+=(-device "x3130-upstream,id=$1,bus=$1.port")
}

endpoint() { # KIND ID PORT [OPTIONS]: what stands for a GPU, a NIC, an NVMe
	case $1 in
	gpu) machine_args+=(-device "bochs-display,id=$2,bus=$3${4:-}") ;;
	nic)
		# A network of its own, with nothing in it: without a peer QEMU warns.
		machine_args+=(-netdev "user,restrict=on,id=net$n_nic"
			-device "virtio-net-pci,id=$2,bus=$3,netdev=net$n_nic,ats=on,iommu_platform=on,disable-legacy=on${4:-}")
		n_nic=$((n_nic + 1))
		;;
	nvme)
		machine_args+=(-drive "if=none,id=drive$n_nvme,file=$lab_host/nvme$n_nvme.img,format=raw,snapshot=on"
			-device "nvme,id=$2,bus=$3,serial=lab$n_nvme,drive=drive$n_nvme${4:-}")
		n_nvme=$((n_nvme + 1))
		;;
	*) echo "machine.sh: no such endpoint: $1" >&2; return 1 ;;
	esac
}

plug() { # SWITCH KIND...
	local switch=$1 kind n
	shift
	for kind; do
		n=${port_count[$switch.$kind]:-0}
		port_count[$switch.$kind]=$((n + 1))
		downstream_port "$switch.$kind$n.port" "$switch"
		endpoint "$kind" "$switch.$kind$n" "$switch.$kind$n.port"
	done
}

slot_pair() { # NODE
	root_port pair.port "$1"
	endpoint nvme pair.nvme pair.port ",multifunction=on,addr=0.0"
	endpoint nic pair.nic pair.port ",addr=0.1"
}

conventional_bus() { # NODE
	root_port old.port "$1"
	machine_args+=(-device "pcie-pci-bridge,id=old,bus=old.port")
	endpoint nic old.nic0 old ",addr=1"
	endpoint nic old.nic1 old ",addr=2"
}

boot_disk() { # NODE
	root_port boot.port "$1"
	machine_args+=(-drive "if=none,id=boot,file=$lab_host/boot.img,format=raw,snapshot=on"
		-device "nvme,id=boot.nvme,bus=boot.port,serial=boot,drive=boot")
}

management_nic() { # NODE
	root_port mgmt.port "$1"
	machine_args+=(-netdev "user,id=mgmt,restrict=on"
		-device "virtio-net-pci,id=mgmt.nic,bus=mgmt.port,netdev=mgmt,mac=52:54:00:00:00:01,ats=on,iommu_platform=on,disable-legacy=on")
}
