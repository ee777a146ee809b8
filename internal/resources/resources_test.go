package resources

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine writes a small machine and returns its root.
func machine(t *testing.T, files map[string]string) reader {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{
		"proc/meminfo": "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 400 kB\nHugePages_Total: 4\nHugePages_Free: 1\nHugepagesize: 2048 kB\n",
		"proc/loadavg": "0.10 0.20 0.30 1/100 4242\n",
		"proc/cpuinfo": "processor\t: 0\nvendor_id\t: Maker\nmodel name\t: Model\ncpu MHz\t\t: 2000.000\nphysical id\t: 0\nflags\t\t: fpu hypervisor\n",
		"proc/17/stat": "",
	}
	maps.Copy(all, files)
	for name, content := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return reader{root}
}

func TestMemoryAndLoadAreInTheUnitsOfTheProtocol(t *testing.T) {
	t.Parallel()
	got, err := machine(t, nil).read()
	if err != nil {
		t.Fatal(err)
	}
	m := got.Memory
	if m.Total != 1000<<10 || m.Used != 600<<10 || m.HugepagesTotal != 8<<20 || m.HugepagesUsed != 6<<20 || m.HugepagesSize != 2<<20 {
		t.Errorf("memory: %+v", m)
	}
	if l := got.Load; l.Average1Min != 0.1 || l.Average5Min != 0.2 || l.Average10Min != 0.3 || l.Processes != 1 {
		t.Errorf("load: %+v", l)
	}
	if got.System.Type != "virtual-machine" {
		t.Errorf("type: %q", got.System.Type)
	}
}

func TestThreadsOfOneCoreStandTogether(t *testing.T) {
	t.Parallel()
	files := map[string]string{cpuFolder + "/isolated": "2-3\n"}
	for cpu, place := range map[string][2]string{"cpu0": {"0", "0"}, "cpu1": {"0", "1"}, "cpu2": {"0", "0"}, "cpu3": {"1", "0"}} {
		files[cpuFolder+"/"+cpu+"/topology/physical_package_id"] = place[0]
		files[cpuFolder+"/"+cpu+"/topology/core_id"] = place[1]
	}
	files[cpuFolder+"/cpu3/online"] = "0\n"
	files[cpuFolder+"/cpu3/node1/x"] = ""
	files[cpuFolder+"/cpu0/cache/index0/level"] = "1"
	files[cpuFolder+"/cpu0/cache/index0/type"] = "Data"
	files[cpuFolder+"/cpu0/cache/index0/size"] = "32K"
	got, err := machine(t, files).read()
	if err != nil {
		t.Fatal(err)
	}
	c := got.CPU
	if c.Total != 4 || len(c.Sockets) != 2 || len(c.Sockets[0].Cores) != 2 || len(c.Sockets[0].Cores[0].Threads) != 2 {
		t.Fatalf("%+v", c)
	}
	second := c.Sockets[0].Cores[0].Threads[1]
	if second.ID != 2 || second.Thread != 1 || !second.Isolated || !second.Online {
		t.Errorf("%+v", second)
	}
	if last := c.Sockets[1].Cores[0].Threads[0]; last.Online || last.NUMANode != 1 {
		t.Errorf("%+v", last)
	}
	if s := c.Sockets[0]; s.Name != "Model" || s.Frequency != 2000 || len(s.Cache) != 1 || s.Cache[0].Size != 32<<10 {
		t.Errorf("%+v", s)
	}
}

func TestMachineWithoutMemoryInformationIsAnError(t *testing.T) {
	t.Parallel()
	r := machine(t, nil)
	if err := os.Remove(filepath.Join(r.root, "proc/meminfo")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.read(); err == nil {
		t.Errorf("%+v", got)
	}
}

func TestThisMachineIsDescribedWithoutNullLists(t *testing.T) {
	t.Parallel()
	got, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if got.CPU.Total == 0 || got.Memory.Total == 0 {
		t.Errorf("%+v", got)
	}
	data, err := json.Marshal(got)
	if err != nil || strings.Contains(string(data), "null") {
		t.Errorf("%s, %v", data, err)
	}
}
