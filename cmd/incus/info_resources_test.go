package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"incusd/api"
)

// laptop is a small machine of which everything is known.
func laptop() api.Resources {
	return api.Resources{
		System: api.ResourcesSystem{Vendor: "Acme", Product: "Book 3", Type: "physical"},
		Load:   api.ResourcesLoad{Average1Min: 0.5, Average5Min: 1, Average10Min: 1.25, Processes: 90},
		CPU: api.ResourcesCPU{Architecture: "x86_64", Total: 2, Sockets: []api.ResourcesCPUSocket{{
			Vendor: "GenuineAcme", Name: "Acme One", Frequency: 2100, FrequencyMinimum: 800, FrequencyTurbo: 3600,
			Cache: []api.ResourcesCPUCache{{Level: 1, Type: "Data", Size: 32 << 10}},
			Cores: []api.ResourcesCPUCore{{Core: 0, Frequency: 2000, Threads: []api.ResourcesCPUThread{
				{ID: 0, Online: true}, {ID: 1, Thread: 1},
			}}},
		}}},
		Memory: api.ResourcesMemory{Total: 8 << 30, Used: 6 << 30, HugepagesTotal: 4 << 20, HugepagesUsed: 1 << 20},
		GPU:    api.ResourcesGPU{Cards: []api.ResourcesDevice{{Driver: "i915", VendorID: "8086", Vendor: "Intel", ProductID: "5917", PCIAddress: "0000:00:02.0"}}, Total: 1},
		Network: api.ResourcesNetwork{Cards: []api.ResourcesNetworkCard{
			{Driver: "e1000e", DriverVersion: "6.1", PCIAddress: "0000:00:19.0", VendorID: "8086", Ports: []api.ResourcesNetworkPort{
				{ID: "eth0", Address: "00:11:22:33:44:55", Protocol: "ethernet", LinkDetected: true, LinkSpeed: 1000, LinkDuplex: "full"},
			}},
			{Driver: "iwlwifi", NUMANode: 1},
		}},
		Storage: api.ResourcesStorage{Disks: []api.ResourcesStorageDisk{{
			ID: "sda", Device: "8:0", Model: "Disk 1", Type: "sata", Size: 1 << 40, RPM: 7200,
			Partitions: []api.ResourcesStoragePartition{{ID: "sda1", Device: "8:1", Size: 1 << 30, Partition: 1, ReadOnly: true}},
		}}},
	}
}

func TestInfoTellsWhatTheMachineIsMadeOf(t *testing.T) {
	s := clustered(t)
	s.Reply("GET /1.0/resources", laptop())
	want := `System:
  Vendor: Acme
  Product: Book 3
  Type: physical

Load:
  Processes: 90
  Average: 0.50 1.00 1.25

CPU:
  Architecture: x86_64
  Threads: 2
  Vendor: GenuineAcme
  Name: Acme One
  Caches:
    - Level 1 (type: Data): 32.00KiB
  Cores:
    - Core 0
      Frequency: 2000Mhz
      Threads:
        - 0 (id: 0, online: true, NUMA node: 0)
        - 1 (id: 1, online: false, NUMA node: 0)
  Frequency: 2100Mhz (min: 800Mhz, max: 3600Mhz)

Memory:
  Hugepages:
    Free: 3.00MiB
    Used: 1.00MiB
    Total: 4.00MiB
  Free: 2.00GiB
  Used: 6.00GiB
  Total: 8.00GiB

GPU:
  NUMA node: 0
  Vendor: Intel (8086)
  Product: 5917
  PCI address: 0000:00:02.0
  Driver: i915

NICs:
  Card 0:
    NUMA node: 0
    Vendor: 8086
    PCI address: 0000:00:19.0
    Driver: e1000e (6.1)
    Ports:
      - Port 0 (ethernet)
        ID: eth0
        Address: 00:11:22:33:44:55
        Link detected: yes
        Link speed: 1000Mbit/s (full duplex)
  Card 1:
    NUMA node: 1
    Driver: iwlwifi

Disk:
  NUMA node: 0
  ID: sda
  Device: 8:0
  Model: Disk 1
  Type: sata
  Size: 1.00TiB
  RPM: 7200
  Read-Only: false
  Removable: false
  Partitions:
    - Partition 1
      ID: sda1
      Device: 8:1
      Read-Only: true
      Size: 1.00GiB
`
	if diff := cmp.Diff(want, s.mustRun(t, "", "info", "--resources", "--target", "node2")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	s.mustAsk(t, "GET /1.0", "GET /1.0/resources?target=node2")
}

func TestSeveralOfAKindAreNumbered(t *testing.T) {
	var b bytes.Buffer
	printResources(&b, &api.Resources{
		CPU:    api.ResourcesCPU{Total: 2, Sockets: []api.ResourcesCPUSocket{{Name: "A"}, {Name: "B", Socket: 1, Frequency: 5}}},
		Memory: api.ResourcesMemory{Total: 10, Used: 12, Nodes: []api.ResourcesMemoryNode{{Total: 5}, {NUMANode: 1, Total: 5, HugepagesTotal: 2}}},
		USB:    api.ResourcesDevices{Devices: []api.ResourcesDevice{{Vendor: "V"}, {Product: "P", ProductID: "1"}}},
	})
	want := `Load:
  Processes: 0
  Average: 0.00 0.00 0.00

CPUs:
  Threads: 2
  Socket 0:
    Name: A
  Socket 1:
    Name: B
    Frequency: 5Mhz

Memory:
  NUMA nodes:
    Node 0:
      Free: 5B
      Used: 0B
      Total: 5B
    Node 1:
      Hugepages:
        Free: 2B
        Used: 0B
        Total: 2B
      Free: 5B
      Used: 0B
      Total: 5B
  Free: 0B
  Used: 12B
  Total: 10B

USB devices:
  Device 0:
    NUMA node: 0
    Vendor: V
  Device 1:
    NUMA node: 0
    Product: P (1)
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestResourcesNeedRights(t *testing.T) {
	s := clustered(t)
	s.Refuse("GET /1.0/resources", 403, "not authorized", api.ErrorMetadata{Reason: api.NotAuthorized, Hint: "ask root"})
	s.mustFail(t, "Error: not authorized\nHint: ask root\n", "", "info", "--resources")
	if strings.Contains(s.stdout.String(), ":") {
		t.Errorf("printed %s", &s.stdout)
	}
}
