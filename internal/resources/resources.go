// Package resources describes the machine that the daemon runs on, as /proc and /sys tell it.
//
// What the kernel does not tell stays empty; only a machine whose memory or processors cannot be
// read is an error. Serial numbers are among what it tells: who may see them is not its business.
// The package knows nothing of the rest of the daemon.
package resources

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"incusd/api"
)

// Read describes this machine. It takes some milliseconds.
func Read() (*api.Resources, error) { return reader{root: "/"}.read() }

// A reader reads the machine whose /proc and /sys are below root.
type reader struct{ root string }

func (r reader) read() (*api.Resources, error) {
	out := &api.Resources{Serial: api.ResourcesDevices{Devices: []api.ResourcesDevice{}}}
	var err, err2, err3 error
	out.CPU, err = r.cpu()
	out.Memory, err2 = r.memory()
	out.Load, err3 = r.load()
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, fmt.Errorf("read the machine's resources: %w", err)
	}
	out.Network, out.Storage, out.System = r.network(), r.storage(), r.system()
	out.PCI, out.GPU = r.pci()
	out.USB = r.usb()
	return out, nil
}

// text is what a small file says; "" if it is not there.
func (r reader) text(parts ...string) string {
	data, err := os.ReadFile(filepath.Join(append([]string{r.root}, parts...)...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (r reader) number(parts ...string) uint64 {
	n, err := strconv.ParseUint(r.text(parts...), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// id is the number of a vendor or product, in hex.
func (r reader) id(parts ...string) string { return strings.TrimPrefix(r.text(parts...), "0x") }

// list is the names in a folder, in order.
func (r reader) list(parts ...string) []string {
	entries, err := os.ReadDir(filepath.Join(append([]string{r.root}, parts...)...))
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// target is the last part of where a link leads; "" if there is none.
func (r reader) target(parts ...string) string {
	to, err := os.Readlink(filepath.Join(append([]string{r.root}, parts...)...))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

func (r reader) proc() (procfs.FS, error) { return procfs.NewFS(filepath.Join(r.root, "proc")) }

const cpuFolder = "sys/devices/system/cpu"

// architectures are the protocol's names of those that differ from Go's.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}

func (r reader) cpu() (api.ResourcesCPU, error) {
	out := api.ResourcesCPU{Architecture: runtime.GOARCH, Sockets: []api.ResourcesCPUSocket{}}
	if name, ok := architectures[runtime.GOARCH]; ok {
		out.Architecture = name
	}
	proc, err := r.proc()
	if err != nil {
		return out, err
	}
	infos, err := proc.CPUInfo()
	if err != nil {
		return out, err
	}
	names := r.list(cpuFolder)
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }) // cpu2 before cpu10
	isolated := rangeOf(r.text(cpuFolder, "isolated"))
	sockets := map[uint64]*api.ResourcesCPUSocket{}
	for _, name := range names {
		id, err := strconv.ParseUint(strings.TrimPrefix(name, "cpu"), 10, 32)
		if err != nil || !strings.HasPrefix(name, "cpu") {
			continue
		}
		number := r.number(cpuFolder, name, "topology", "physical_package_id")
		socket, ok := sockets[number]
		if !ok {
			socket = r.socket(name, number, infos)
			sockets[number] = socket
		}
		addThread(socket, r.number(cpuFolder, name, "topology", "core_id"), r.number(cpuFolder, name, "topology", "die_id"), api.ResourcesCPUThread{
			ID: int64(id), NUMANode: r.node(cpuFolder, name), Online: r.text(cpuFolder, name, "online") != "0", Isolated: isolated[id],
		})
		out.Total++
	}
	for _, socket := range sockets {
		out.Sockets = append(out.Sockets, *socket)
	}
	slices.SortFunc(out.Sockets, func(a, b api.ResourcesCPUSocket) int { return int(a.Socket) - int(b.Socket) })
	return out, nil
}

// rangeOf reads a list such as "0-2,5".
func rangeOf(text string) map[uint64]bool {
	out := map[uint64]bool{}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			continue
		}
		to := from
		if isRange {
			if to, err = strconv.ParseUint(last, 10, 16); err != nil {
				continue
			}
		}
		for n := from; n <= to; n++ {
			out[n] = true
		}
	}
	return out
}

// node is the NUMA node that a folder of a CPU names.
func (r reader) node(parts ...string) uint64 {
	for _, name := range r.list(parts...) {
		if n, err := strconv.ParseUint(strings.TrimPrefix(name, "node"), 10, 32); err == nil && strings.HasPrefix(name, "node") {
			return n
		}
	}
	return 0
}

func (r reader) socket(cpu string, number uint64, infos []procfs.CPUInfo) *api.ResourcesCPUSocket {
	s := &api.ResourcesCPUSocket{
		Socket: number, Cores: []api.ResourcesCPUCore{},
		FrequencyMinimum: r.number(cpuFolder, cpu, "cpufreq", "cpuinfo_min_freq") / 1000,
		FrequencyTurbo:   r.number(cpuFolder, cpu, "cpufreq", "cpuinfo_max_freq") / 1000,
	}
	for _, info := range infos {
		if info.PhysicalID == strconv.FormatUint(number, 10) || info.PhysicalID == "" {
			s.Name, s.Vendor, s.Frequency = info.ModelName, info.VendorID, uint64(info.CPUMHz)
			break
		}
	}
	for _, name := range r.list(cpuFolder, cpu, "cache") {
		if !strings.HasPrefix(name, "index") {
			continue
		}
		kib, _ := strconv.ParseUint(strings.TrimSuffix(r.text(cpuFolder, cpu, "cache", name, "size"), "K"), 10, 64)
		s.Cache = append(s.Cache, api.ResourcesCPUCache{
			Level: r.number(cpuFolder, cpu, "cache", name, "level"), Type: r.text(cpuFolder, cpu, "cache", name, "type"), Size: kib << 10,
		})
	}
	return s
}

func addThread(s *api.ResourcesCPUSocket, core, die uint64, thread api.ResourcesCPUThread) {
	for i := range s.Cores {
		if s.Cores[i].Core == core && s.Cores[i].Die == die {
			thread.Thread = uint64(len(s.Cores[i].Threads))
			s.Cores[i].Threads = append(s.Cores[i].Threads, thread)
			return
		}
	}
	s.Cores = append(s.Cores, api.ResourcesCPUCore{Core: core, Die: die, Threads: []api.ResourcesCPUThread{thread}})
}

func (r reader) memory() (api.ResourcesMemory, error) {
	out := api.ResourcesMemory{Nodes: []api.ResourcesMemoryNode{}}
	proc, err := r.proc()
	if err != nil {
		return out, err
	}
	info, err := proc.Meminfo()
	if err != nil {
		return out, err
	}
	bytes := func(n *uint64) uint64 {
		if n == nil {
			return 0
		}
		return *n
	}
	out.Total = bytes(info.MemTotalBytes)
	free := bytes(info.MemAvailableBytes)
	if info.MemAvailableBytes == nil {
		free = bytes(info.MemFreeBytes)
	}
	out.Used = out.Total - min(free, out.Total)
	out.HugepagesSize = bytes(info.HugepagesizeBytes)
	out.HugepagesTotal = bytes(info.HugePagesTotal) * out.HugepagesSize
	out.HugepagesUsed = (bytes(info.HugePagesTotal) - min(bytes(info.HugePagesFree), bytes(info.HugePagesTotal))) * out.HugepagesSize
	return out, nil
}

func (r reader) load() (api.ResourcesLoad, error) {
	proc, err := r.proc()
	if err != nil {
		return api.ResourcesLoad{}, err
	}
	load, err := proc.LoadAvg()
	if err != nil {
		return api.ResourcesLoad{}, err
	}
	out := api.ResourcesLoad{Average1Min: load.Load1, Average5Min: load.Load5, Average10Min: load.Load15}
	for _, name := range r.list("proc") {
		if _, err := strconv.ParseUint(name, 10, 32); err == nil {
			out.Processes++
		}
	}
	return out, nil
}

func (r reader) network() api.ResourcesNetwork {
	out := api.ResourcesNetwork{Cards: []api.ResourcesNetworkCard{}}
	const folder = "sys/class/net"
	for _, name := range r.list(folder) {
		device := r.target(folder, name, "device")
		if device == "" {
			continue // no hardware
		}
		out.Cards = append(out.Cards, api.ResourcesNetworkCard{
			Driver: r.target(folder, name, "device", "driver"), NUMANode: r.numa(folder, name, "device"), PCIAddress: pciAddress(device),
			VendorID:  r.id(folder, name, "device", "vendor"),
			ProductID: r.id(folder, name, "device", "device"),
			Ports: []api.ResourcesNetworkPort{{
				ID: name, Address: r.text(folder, name, "address"), Port: r.number(folder, name, "dev_port"), Protocol: "ethernet",
				LinkDetected: r.text(folder, name, "carrier") == "1", LinkSpeed: r.number(folder, name, "speed"), LinkDuplex: r.text(folder, name, "duplex"),
			}},
		})
		out.Total++
	}
	return out
}

// numa is a device's NUMA node; the kernel says -1 where there is one node only.
func (r reader) numa(parts ...string) uint64 { return r.number(append(parts, "numa_node")...) }

// pciAddress is a device's name if it is one of PCI's.
func pciAddress(device string) string {
	if strings.Count(device, ":") == 2 {
		return device
	}
	return ""
}

// sector is the unit of sizes in /sys/block, in bytes.
const sector = 512

func (r reader) storage() api.ResourcesStorage {
	out := api.ResourcesStorage{Disks: []api.ResourcesStorageDisk{}}
	const folder = "sys/class/block"
	for _, name := range r.list("sys/block") {
		if r.target(folder, name) == "" || r.text("sys/block", name, "hidden") == "1" || isVirtual(name) {
			continue
		}
		disk := api.ResourcesStorageDisk{
			ID: name, Device: r.text("sys/block", name, "dev"), Model: r.text("sys/block", name, "device", "model"), Type: r.target("sys/block", name, "device", "subsystem"),
			ReadOnly: r.text("sys/block", name, "ro") == "1", Size: r.number("sys/block", name, "size") * sector,
			Removable: r.text("sys/block", name, "removable") == "1", BlockSize: r.number("sys/block", name, "queue", "physical_block_size"),
			Serial:   r.text("sys/block", name, "serial"),
			NUMANode: r.numa("sys/block", name, "device"), Partitions: []api.ResourcesStoragePartition{},
		}
		for _, part := range r.list("sys/block", name) {
			if number := r.number("sys/block", name, part, "partition"); number > 0 {
				disk.Partitions = append(disk.Partitions, api.ResourcesStoragePartition{
					ID: part, Device: r.text("sys/block", name, part, "dev"), ReadOnly: r.text("sys/block", name, part, "ro") == "1",
					Size: r.number("sys/block", name, part, "size") * sector, Partition: number,
				})
			}
		}
		out.Disks = append(out.Disks, disk)
		out.Total++
	}
	return out
}

// isVirtual tells whether a block device is made of others, or of memory.
func isVirtual(name string) bool {
	return slices.ContainsFunc([]string{"loop", "ram", "zram", "dm-", "md", "nbd"}, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// displayClass begins the PCI class of graphics cards.
const displayClass = "0x03"

func (r reader) pci() (api.ResourcesDevices, api.ResourcesGPU) {
	all, gpus := api.ResourcesDevices{Devices: []api.ResourcesDevice{}}, api.ResourcesGPU{Cards: []api.ResourcesDevice{}}
	const folder = "sys/bus/pci/devices"
	for _, name := range r.list(folder) {
		device := api.ResourcesDevice{
			Driver: r.target(folder, name, "driver"), NUMANode: r.numa(folder, name), PCIAddress: name,
			VendorID:  r.id(folder, name, "vendor"),
			ProductID: r.id(folder, name, "device"),
		}
		all.Devices = append(all.Devices, device)
		if strings.HasPrefix(r.text(folder, name, "class"), displayClass) {
			gpus.Cards = append(gpus.Cards, device)
		}
	}
	all.Total, gpus.Total = uint64(len(all.Devices)), uint64(len(gpus.Cards))
	return all, gpus
}

func (r reader) usb() api.ResourcesDevices {
	all := api.ResourcesDevices{Devices: []api.ResourcesDevice{}}
	const folder = "sys/bus/usb/devices"
	for _, name := range r.list(folder) {
		vendor := r.text(folder, name, "idVendor")
		if vendor == "" {
			continue // an interface of a device
		}
		all.Devices = append(all.Devices, api.ResourcesDevice{
			Driver: r.target(folder, name, "driver"), VendorID: vendor, Vendor: r.text(folder, name, "manufacturer"),
			ProductID: r.text(folder, name, "idProduct"), Product: r.text(folder, name, "product"),
		})
	}
	all.Total = uint64(len(all.Devices))
	return all
}

func (r reader) system() api.ResourcesSystem {
	const folder = "sys/class/dmi/id"
	out := api.ResourcesSystem{
		UUID: r.text(folder, "product_uuid"), Vendor: r.text(folder, "sys_vendor"), Product: r.text(folder, "product_name"),
		Family: r.text(folder, "product_family"), Version: r.text(folder, "product_version"), SKU: r.text(folder, "product_sku"),
		Serial: r.text(folder, "product_serial"), Type: "physical",
	}
	// A hypervisor tells its guests by a flag of the processor.
	for line := range strings.Lines(r.text("proc", "cpuinfo")) {
		if key, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "flags" && slices.Contains(strings.Fields(flags), "hypervisor") {
			out.Type = "virtual-machine"
			break
		}
	}
	return out
}
