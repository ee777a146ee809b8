package api

// Resources is what a machine is made of: GET /1.0/resources. Lists are never null.
type Resources struct {
	CPU     ResourcesCPU     `json:"cpu" yaml:"cpu"`
	Memory  ResourcesMemory  `json:"memory" yaml:"memory"`
	GPU     ResourcesGPU     `json:"gpu" yaml:"gpu"`
	Network ResourcesNetwork `json:"network" yaml:"network"`
	Storage ResourcesStorage `json:"storage" yaml:"storage"`
	USB     ResourcesDevices `json:"usb" yaml:"usb"`
	PCI     ResourcesDevices `json:"pci" yaml:"pci"`
	System  ResourcesSystem  `json:"system" yaml:"system"`
	Load    ResourcesLoad    `json:"load" yaml:"load"`
	Serial  ResourcesDevices `json:"serial" yaml:"serial"`
}

// ResourcesCPU is all processors.
type ResourcesCPU struct {
	Architecture string               `json:"architecture" yaml:"architecture"`
	Sockets      []ResourcesCPUSocket `json:"sockets" yaml:"sockets"`
	// Total counts threads.
	Total uint64 `json:"total" yaml:"total"`
}

// ResourcesCPUSocket is one processor. Frequencies are in MHz, 0 where they are not told.
type ResourcesCPUSocket struct {
	Name             string              `json:"name,omitempty" yaml:"name,omitempty"`
	Vendor           string              `json:"vendor,omitempty" yaml:"vendor,omitempty"`
	Socket           uint64              `json:"socket" yaml:"socket"`
	Cache            []ResourcesCPUCache `json:"cache,omitempty" yaml:"cache,omitempty"`
	Cores            []ResourcesCPUCore  `json:"cores" yaml:"cores"`
	Frequency        uint64              `json:"frequency,omitempty" yaml:"frequency,omitempty"`
	FrequencyMinimum uint64              `json:"frequency_minimum,omitempty" yaml:"frequency_minimum,omitempty"`
	FrequencyTurbo   uint64              `json:"frequency_turbo,omitempty" yaml:"frequency_turbo,omitempty"`
}

// ResourcesCPUCache is a cache of a processor, its size in bytes.
type ResourcesCPUCache struct {
	Level uint64 `json:"level" yaml:"level"`
	Type  string `json:"type" yaml:"type"`
	Size  uint64 `json:"size" yaml:"size"`
}

// ResourcesCPUCore is one core.
type ResourcesCPUCore struct {
	Core      uint64               `json:"core" yaml:"core"`
	Die       uint64               `json:"die" yaml:"die"`
	Threads   []ResourcesCPUThread `json:"threads" yaml:"threads"`
	Frequency uint64               `json:"frequency,omitempty" yaml:"frequency,omitempty"`
}

// ResourcesCPUThread is one thread of a core.
type ResourcesCPUThread struct {
	ID       int64  `json:"id" yaml:"id"`
	NUMANode uint64 `json:"numa_node" yaml:"numa_node"`
	Thread   uint64 `json:"thread" yaml:"thread"`
	Online   bool   `json:"online" yaml:"online"`
	Isolated bool   `json:"isolated" yaml:"isolated"`
}

// ResourcesMemory is in bytes.
type ResourcesMemory struct {
	Nodes          []ResourcesMemoryNode `json:"nodes" yaml:"nodes"`
	HugepagesTotal uint64                `json:"hugepages_total" yaml:"hugepages_total"`
	HugepagesUsed  uint64                `json:"hugepages_used" yaml:"hugepages_used"`
	HugepagesSize  uint64                `json:"hugepages_size" yaml:"hugepages_size"`
	Used           uint64                `json:"used" yaml:"used"`
	Total          uint64                `json:"total" yaml:"total"`
}

// ResourcesMemoryNode is the memory of one NUMA node, in bytes.
type ResourcesMemoryNode struct {
	NUMANode       uint64 `json:"numa_node" yaml:"numa_node"`
	HugepagesUsed  uint64 `json:"hugepages_used" yaml:"hugepages_used"`
	HugepagesTotal uint64 `json:"hugepages_total" yaml:"hugepages_total"`
	Used           uint64 `json:"used" yaml:"used"`
	Total          uint64 `json:"total" yaml:"total"`
}

// ResourcesGPU is all graphics cards.
type ResourcesGPU struct {
	Cards []ResourcesDevice `json:"cards" yaml:"cards"`
	Total uint64            `json:"total" yaml:"total"`
}

// ResourcesNetwork is all network cards.
type ResourcesNetwork struct {
	Cards []ResourcesNetworkCard `json:"cards" yaml:"cards"`
	Total uint64                 `json:"total" yaml:"total"`
}

// ResourcesNetworkCard is one network card.
type ResourcesNetworkCard struct {
	Driver        string                 `json:"driver,omitempty" yaml:"driver,omitempty"`
	DriverVersion string                 `json:"driver_version,omitempty" yaml:"driver_version,omitempty"`
	Ports         []ResourcesNetworkPort `json:"ports" yaml:"ports"`
	NUMANode      uint64                 `json:"numa_node" yaml:"numa_node"`
	PCIAddress    string                 `json:"pci_address,omitempty" yaml:"pci_address,omitempty"`
	VendorID      string                 `json:"vendor_id,omitempty" yaml:"vendor_id,omitempty"`
	ProductID     string                 `json:"product_id,omitempty" yaml:"product_id,omitempty"`
}

// ResourcesNetworkPort is one port of a card. LinkSpeed is in Mbit/s.
type ResourcesNetworkPort struct {
	ID           string `json:"id" yaml:"id"`
	Address      string `json:"address,omitempty" yaml:"address,omitempty"`
	Port         uint64 `json:"port" yaml:"port"`
	Protocol     string `json:"protocol" yaml:"protocol"`
	LinkDetected bool   `json:"link_detected" yaml:"link_detected"`
	LinkSpeed    uint64 `json:"link_speed,omitempty" yaml:"link_speed,omitempty"`
	LinkDuplex   string `json:"link_duplex,omitempty" yaml:"link_duplex,omitempty"`
}

// ResourcesStorage is all disks.
type ResourcesStorage struct {
	Disks []ResourcesStorageDisk `json:"disks" yaml:"disks"`
	Total uint64                 `json:"total" yaml:"total"`
}

// ResourcesStorageDisk is one disk, sizes in bytes.
type ResourcesStorageDisk struct {
	ID         string                      `json:"id" yaml:"id"`
	Device     string                      `json:"device" yaml:"device"`
	Model      string                      `json:"model,omitempty" yaml:"model,omitempty"`
	Type       string                      `json:"type,omitempty" yaml:"type,omitempty"`
	ReadOnly   bool                        `json:"read_only" yaml:"read_only"`
	Size       uint64                      `json:"size" yaml:"size"`
	Removable  bool                        `json:"removable" yaml:"removable"`
	BlockSize  uint64                      `json:"block_size" yaml:"block_size"`
	RPM        uint64                      `json:"rpm" yaml:"rpm"`
	Serial     string                      `json:"serial,omitempty" yaml:"serial,omitempty"`
	NUMANode   uint64                      `json:"numa_node" yaml:"numa_node"`
	Partitions []ResourcesStoragePartition `json:"partitions" yaml:"partitions"`
}

// ResourcesStoragePartition is one partition of a disk, its size in bytes.
type ResourcesStoragePartition struct {
	ID        string `json:"id" yaml:"id"`
	Device    string `json:"device" yaml:"device"`
	ReadOnly  bool   `json:"read_only" yaml:"read_only"`
	Size      uint64 `json:"size" yaml:"size"`
	Partition uint64 `json:"partition" yaml:"partition"`
}

// ResourcesDevices is all devices of a bus.
type ResourcesDevices struct {
	Devices []ResourcesDevice `json:"devices" yaml:"devices"`
	Total   uint64            `json:"total" yaml:"total"`
}

// ResourcesDevice is a device of a bus.
type ResourcesDevice struct {
	Driver     string `json:"driver" yaml:"driver"`
	NUMANode   uint64 `json:"numa_node" yaml:"numa_node"`
	PCIAddress string `json:"pci_address,omitempty" yaml:"pci_address,omitempty"`
	VendorID   string `json:"vendor_id" yaml:"vendor_id"`
	Vendor     string `json:"vendor" yaml:"vendor"`
	ProductID  string `json:"product_id" yaml:"product_id"`
	Product    string `json:"product" yaml:"product"`
}

// ResourcesSystem is what the firmware tells of the machine.
type ResourcesSystem struct {
	UUID    string `json:"uuid" yaml:"uuid"`
	Vendor  string `json:"vendor" yaml:"vendor"`
	Product string `json:"product" yaml:"product"`
	Family  string `json:"family" yaml:"family"`
	Version string `json:"version" yaml:"version"`
	SKU     string `json:"sku" yaml:"sku"`
	Serial  string `json:"serial" yaml:"serial"`
	// Type is "physical" or "virtual-machine".
	Type string `json:"type" yaml:"type"`
}

// ResourcesLoad has upstream's capitalised names.
type ResourcesLoad struct {
	Average1Min  float64
	Average5Min  float64
	Average10Min float64
	Processes    int
}
