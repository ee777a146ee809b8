package main

import (
	"fmt"
	"io"
	"strings"

	"incusd/api"
)

// An outline writes sections of "name: value" lines, each level two spaces deeper. What is not
// known is left out.
type outline struct {
	w     io.Writer
	level int
}

// line writes a value, unless it is empty.
func (o outline) line(name, value string) {
	if value != "" {
		fmt.Fprintf(o.w, "%s%s: %s\n", strings.Repeat("  ", o.level), name, value)
	}
}

// section writes a name, and below it what body writes.
func (o outline) section(name string, body func(outline)) {
	fmt.Fprintf(o.w, "%s%s:\n", strings.Repeat("  ", o.level), name)
	body(outline{o.w, o.level + 1})
}

// item writes one entry of a list.
func (o outline) item(format string, args ...any) {
	fmt.Fprintf(o.w, "%s- %s\n", strings.Repeat("  ", o.level), fmt.Sprintf(format, args...))
}

// numbered writes all of one kind: a single one under the name one, several under that name, each
// with its number after the word each.
func numbered[T any](o outline, one, several, each string, all []T, body func(outline, T)) {
	switch len(all) {
	case 0:
	case 1:
		o.section(one, func(o outline) { body(o, all[0]) })
	default:
		o.section(several, func(o outline) {
			for i, thing := range all {
				o.section(fmt.Sprintf("%s %d", each, i), func(o outline) { body(o, thing) })
			}
		})
	}
}

// printResources writes what a machine is made of, for people. Sections are separated by empty
// lines; of what there is none, there is no section.
func printResources(w io.Writer, r *api.Resources) {
	o := outline{w: w}
	gap := func() { fmt.Fprintln(w) }
	if r.System != (api.ResourcesSystem{}) {
		o.section("System", func(o outline) { writeSystem(o, r.System) })
		gap()
	}
	o.section("Load", func(o outline) {
		o.line("Processes", fmt.Sprint(r.Load.Processes))
		o.line("Average", fmt.Sprintf("%.2f %.2f %.2f", r.Load.Average1Min, r.Load.Average5Min, r.Load.Average10Min))
	})
	gap()
	writeCPU(o, r.CPU)
	gap()
	o.section("Memory", func(o outline) { writeMemory(o, r.Memory) })
	for _, part := range []struct {
		count int
		write func()
	}{
		{len(r.GPU.Cards), func() { numbered(o, "GPU", "GPUs", "Card", r.GPU.Cards, writeDevice) }},
		{len(r.Network.Cards), func() { numbered(o, "NIC", "NICs", "Card", r.Network.Cards, writeCard) }},
		{len(r.Storage.Disks), func() { numbered(o, "Disk", "Disks", "Disk", r.Storage.Disks, writeDisk) }},
		{len(r.USB.Devices), func() { numbered(o, "USB device", "USB devices", "Device", r.USB.Devices, writeDevice) }},
		{len(r.PCI.Devices), func() { numbered(o, "PCI device", "PCI devices", "Device", r.PCI.Devices, writeDevice) }},
		{len(r.Serial.Devices), func() { numbered(o, "Serial device", "Serial devices", "Device", r.Serial.Devices, writeDevice) }},
	} {
		if part.count > 0 {
			gap()
			part.write()
		}
	}
}

func writeSystem(o outline, s api.ResourcesSystem) {
	o.line("UUID", s.UUID)
	o.line("Vendor", s.Vendor)
	o.line("Product", s.Product)
	o.line("Family", s.Family)
	o.line("Version", s.Version)
	o.line("SKU", s.SKU)
	o.line("Serial", s.Serial)
	o.line("Type", s.Type)
}

func writeCPU(o outline, c api.ResourcesCPU) {
	name := "CPU"
	if len(c.Sockets) > 1 {
		name = "CPUs"
	}
	o.section(name, func(o outline) {
		o.line("Architecture", c.Architecture)
		o.line("Threads", fmt.Sprint(c.Total))
		if len(c.Sockets) == 1 {
			writeSocket(o, c.Sockets[0])
			return
		}
		for _, s := range c.Sockets {
			o.section(fmt.Sprintf("Socket %d", s.Socket), func(o outline) { writeSocket(o, s) })
		}
	})
}

func writeSocket(o outline, s api.ResourcesCPUSocket) {
	o.line("Vendor", s.Vendor)
	o.line("Name", s.Name)
	if len(s.Cache) > 0 {
		o.section("Caches", func(o outline) {
			for _, c := range s.Cache {
				o.item("Level %d (type: %s): %s", c.Level, c.Type, formatSize(c.Size))
			}
		})
	}
	if len(s.Cores) > 0 {
		o.section("Cores", func(o outline) {
			for _, c := range s.Cores {
				writeCore(o, c)
			}
		})
	}
	o.line("Frequency", frequency(s))
}

func writeCore(o outline, c api.ResourcesCPUCore) {
	o.item("Core %d", c.Core)
	o.level++ // below the dash
	if c.Frequency > 0 {
		o.line("Frequency", fmt.Sprintf("%dMhz", c.Frequency))
	}
	o.section("Threads", func(o outline) {
		for _, t := range c.Threads {
			o.item("%d (id: %d, online: %t, NUMA node: %d)", t.Thread, t.ID, t.Online, t.NUMANode)
		}
	})
}

// frequency is what is known of a processor's.
func frequency(s api.ResourcesCPUSocket) string {
	if s.Frequency == 0 {
		return ""
	}
	text := fmt.Sprintf("%dMhz", s.Frequency)
	var bounds []string
	if s.FrequencyMinimum > 0 {
		bounds = append(bounds, fmt.Sprintf("min: %dMhz", s.FrequencyMinimum))
	}
	if s.FrequencyTurbo > 0 {
		bounds = append(bounds, fmt.Sprintf("max: %dMhz", s.FrequencyTurbo))
	}
	if len(bounds) > 0 {
		text += " (" + strings.Join(bounds, ", ") + ")"
	}
	return text
}

func writeMemory(o outline, m api.ResourcesMemory) {
	if m.HugepagesTotal > 0 {
		o.section("Hugepages", func(o outline) { writeUse(o, m.HugepagesUsed, m.HugepagesTotal) })
	}
	if len(m.Nodes) > 1 {
		o.section("NUMA nodes", func(o outline) {
			for _, n := range m.Nodes {
				o.section(fmt.Sprintf("Node %d", n.NUMANode), func(o outline) {
					if n.HugepagesTotal > 0 {
						o.section("Hugepages", func(o outline) { writeUse(o, n.HugepagesUsed, n.HugepagesTotal) })
					}
					writeUse(o, n.Used, n.Total)
				})
			}
		})
	}
	writeUse(o, m.Used, m.Total)
}

// writeUse writes amounts of bytes. The kernel counts used and total at different moments.
func writeUse(o outline, used, total uint64) {
	o.line("Free", formatSize(total-min(used, total)))
	o.line("Used", formatSize(used))
	o.line("Total", formatSize(total))
}

// named is a name with its number, or the one that is known.
func named(name, id string) string {
	switch {
	case name == "":
		return id
	case id == "":
		return name
	}
	return name + " (" + id + ")"
}

func writeDevice(o outline, d api.ResourcesDevice) {
	o.line("NUMA node", fmt.Sprint(d.NUMANode))
	o.line("Vendor", named(d.Vendor, d.VendorID))
	o.line("Product", named(d.Product, d.ProductID))
	o.line("PCI address", d.PCIAddress)
	o.line("Driver", d.Driver)
}

func writeCard(o outline, c api.ResourcesNetworkCard) {
	o.line("NUMA node", fmt.Sprint(c.NUMANode))
	o.line("Vendor", c.VendorID)
	o.line("Product", c.ProductID)
	o.line("PCI address", c.PCIAddress)
	o.line("Driver", named(c.Driver, c.DriverVersion))
	if len(c.Ports) > 0 {
		o.section("Ports", func(o outline) {
			for _, p := range c.Ports {
				writePort(o, p)
			}
		})
	}
}

func writePort(o outline, p api.ResourcesNetworkPort) {
	o.item("Port %d (%s)", p.Port, p.Protocol)
	o.level++
	o.line("ID", p.ID)
	o.line("Address", p.Address)
	o.line("Link detected", strings.ToLower(yesOrNo(p.LinkDetected)))
	if p.LinkSpeed > 0 {
		speed := fmt.Sprintf("%dMbit/s", p.LinkSpeed)
		if p.LinkDuplex != "" {
			speed += " (" + p.LinkDuplex + " duplex)"
		}
		o.line("Link speed", speed)
	}
}

func writeDisk(o outline, d api.ResourcesStorageDisk) {
	o.line("NUMA node", fmt.Sprint(d.NUMANode))
	o.line("ID", d.ID)
	o.line("Device", d.Device)
	o.line("Model", d.Model)
	o.line("Serial", d.Serial)
	o.line("Type", d.Type)
	o.line("Size", formatSize(d.Size))
	if d.RPM > 0 {
		o.line("RPM", fmt.Sprint(d.RPM))
	}
	o.line("Read-Only", fmt.Sprint(d.ReadOnly))
	o.line("Removable", fmt.Sprint(d.Removable))
	if len(d.Partitions) > 0 {
		o.section("Partitions", func(o outline) {
			for _, p := range d.Partitions {
				o.item("Partition %d", p.Partition)
				o := outline{o.w, o.level + 1}
				o.line("ID", p.ID)
				o.line("Device", p.Device)
				o.line("Read-Only", fmt.Sprint(p.ReadOnly))
				o.line("Size", formatSize(p.Size))
			}
		})
	}
}
