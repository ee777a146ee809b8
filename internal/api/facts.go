package api

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"incusd/api"
)

// Facts are what this server is and runs on; they do not change while it runs.
type Facts struct {
	Hostname                                  string
	Architectures                             []string
	Driver, DriverVersion, Firewall           string
	Kernel, KernelArchitecture, KernelVersion string
	OSName, OSVersion                         string
}

// ReadFacts asks the kernel and the distribution. What the distribution does not tell
// stays empty.
func ReadFacts() (Facts, error) {
	var names unix.Utsname
	if err := unix.Uname(&names); err != nil {
		return Facts{}, fmt.Errorf("read the kernel's names: %w", err)
	}
	facts := Facts{
		Hostname:           unix.ByteSliceToString(names.Nodename[:]),
		Kernel:             unix.ByteSliceToString(names.Sysname[:]),
		KernelArchitecture: unix.ByteSliceToString(names.Machine[:]),
		KernelVersion:      unix.ByteSliceToString(names.Release[:]),
	}
	facts.Architectures = architectures(facts.KernelArchitecture)
	if data, err := os.ReadFile("/etc/os-release"); err == nil {
		facts.OSName, facts.OSVersion = parseOSRelease(data)
	}
	return facts, nil
}

// Architecture is this machine's architecture by the name that members show.
func Architecture() string {
	if name, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}[runtime.GOARCH]; ok {
		return name
	}
	return runtime.GOARCH
}

// architectures lists what a machine can run: its own and its 32-bit sibling.
func architectures(machine string) []string {
	switch machine {
	case "x86_64":
		return []string{"x86_64", "i686"}
	case "aarch64":
		return []string{"aarch64", "armv7l"}
	}
	return []string{machine}
}

// parseOSRelease reads NAME and VERSION_ID of os-release(5).
func parseOSRelease(data []byte) (name, version string) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			continue
		}
		if plain, err := strconv.Unquote(value); err == nil {
			value = plain
		}
		switch strings.TrimSpace(key) {
		case "NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version
}

// memberState measures this machine: sysinfo(2) and the load averages.
func memberState() (api.ClusterMemberState, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return api.ClusterMemberState{}, fmt.Errorf("read system information: %w", err)
	}
	loads, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return api.ClusterMemberState{}, fmt.Errorf("read load averages: %w", err)
	}
	averages, err := parseLoads(loads)
	if err != nil {
		return api.ClusterMemberState{}, err
	}
	unit := uint64(max(info.Unit, 1))
	return api.ClusterMemberState{
		SysInfo: api.ClusterMemberSysInfo{
			Uptime: int64(info.Uptime), LoadAverages: averages,
			TotalRAM: uint64(info.Totalram) * unit, FreeRAM: uint64(info.Freeram) * unit,
			SharedRAM: uint64(info.Sharedram) * unit, BufferRAM: uint64(info.Bufferram) * unit,
			TotalSwap: uint64(info.Totalswap) * unit, FreeSwap: uint64(info.Freeswap) * unit,
			Processes: info.Procs,
		},
		StoragePools: map[string]api.ResourcesStoragePool{},
	}, nil
}

// parseLoads reads the three averages at the start of /proc/loadavg.
func parseLoads(data []byte) ([]float64, error) {
	fields := strings.Fields(string(data))
	if len(fields) < 3 {
		return nil, fmt.Errorf("load averages: 3 numbers are needed in %q", data)
	}
	averages := make([]float64, 3)
	for i := range averages {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return nil, fmt.Errorf("load averages: %w", err)
		}
		averages[i] = value
	}
	return averages, nil
}
