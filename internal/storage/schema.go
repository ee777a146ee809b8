package storage

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"incusd/api"
)

// driverNames are the drivers of this daemon, in the order in which they are offered.
var driverNames = []string{"btrfs", "dir", "lvm", "zfs"}

// remoteDrivers are known to the protocol and not to this daemon.
var remoteDrivers = []string{"ceph", "cephfs", "cephobject", "linstor", "lvmcluster", "truenas"}

// A key is one option of a pool or volume.
type key struct {
	name  string
	rule  func(value string) (string, error)
	own   bool // each member's own
	fixed bool // given when the pool is made, for good
}

// poolKeys are the options of all pools, and of each driver's.
var poolKeys = map[string][]key{
	"": {
		{name: "source", rule: text, own: true, fixed: true},
		{name: "source.wipe", rule: boolean, own: true, fixed: true},
		{name: "volatile.initial_source", rule: text, own: true},
		{name: "rsync.bwlimit", rule: text},
		{name: "rsync.compression", rule: boolean},
	},
	"dir": {},
	"btrfs": {
		{name: "size", rule: size, own: true},
		{name: "btrfs.mount_options", rule: text},
		{name: "btrfs.create_options", rule: text, fixed: true},
	},
	"lvm": {
		{name: "size", rule: size, own: true},
		{name: "lvm.vg_name", rule: text, own: true, fixed: true},
		{name: "lvm.thinpool_name", rule: text, own: true, fixed: true},
		{name: "lvm.vg.force_reuse", rule: boolean, own: true, fixed: true},
		{name: "lvm.use_thinpool", rule: boolean, fixed: true},
		{name: "lvm.thinpool_metadata_size", rule: size, fixed: true},
		{name: "lvm.metadata_size", rule: size, fixed: true},
	},
	"zfs": {
		{name: "size", rule: size, own: true},
		{name: "zfs.pool_name", rule: text, own: true, fixed: true},
		{name: "zfs.clone_copy", rule: oneOf("true", "false", "rebase")},
		{name: "zfs.export", rule: boolean},
	},
}

// volumeKeys are the options of volumes, and, with the prefix "volume.", what a pool gives them.
var volumeKeys = []key{
	{name: "size", rule: size},
	{name: "snapshots.expiry", rule: text},
	{name: "snapshots.expiry.manual", rule: text},
	{name: "snapshots.schedule", rule: text},
	{name: "snapshots.pattern", rule: text},
	{name: "security.shared", rule: boolean},
	{name: "security.shifted", rule: boolean},
	{name: "security.unmapped", rule: boolean},
	{name: "initial.uid", rule: number},
	{name: "initial.gid", rule: number},
	{name: "initial.mode", rule: mode},
	{name: "block.filesystem", rule: oneOf("btrfs", "ext4", "xfs")},
	{name: "block.mount_options", rule: text},
	{name: "lvm.stripes", rule: number},
	{name: "lvm.stripes.size", rule: size},
	{name: "zfs.block_mode", rule: boolean},
	{name: "zfs.blocksize", rule: size},
	{name: "zfs.delegate", rule: boolean},
	{name: "zfs.remove_snapshots", rule: boolean},
	{name: "zfs.reserve_space", rule: boolean},
	{name: "zfs.use_refquota", rule: boolean},
}

const volumePrefix = "volume."

// findPoolKey returns the option of that name of a driver's pools.
func findPoolKey(driver, name string) (key, bool) {
	if strings.HasPrefix(name, "user.") && len(name) > len("user.") {
		return key{name: name, rule: text}, true
	}
	if option, ok := strings.CutPrefix(name, volumePrefix); ok {
		return findKey(volumeKeys, option)
	}
	return findKey(slices.Concat(poolKeys[""], poolKeys[driver]), name)
}

func findKey(keys []key, name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

// ValidatePool checks the keys and values of a pool's configuration against the schema of its
// driver, without looking at the machine, and returns them in the form to store. It fails with
// api.ConfigInvalid.
func ValidatePool(driver string, config map[string]string) (map[string]string, error) {
	if _, ok := poolKeys[driver]; !ok || driver == "" {
		return nil, api.Errorf(api.ConfigInvalid, "Invalid storage driver %q; use one of %s", driver, strings.Join(driverNames, ", "))
	}
	return validate(config, func(name string) (key, bool) { return findPoolKey(driver, name) })
}

// ValidateVolume is ValidatePool for a volume's configuration.
func ValidateVolume(driver, contentType string, config map[string]string) (map[string]string, error) {
	if contentType != api.VolumeFilesystem && contentType != api.VolumeBlock {
		return nil, api.Errorf(api.ConfigInvalid, "Invalid content type %q; use %s or %s", contentType, api.VolumeFilesystem, api.VolumeBlock)
	}
	return validate(config, func(name string) (key, bool) {
		if strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "volatile.") {
			return key{name: name, rule: text}, true
		}
		return findKey(volumeKeys, name)
	})
}

func validate(config map[string]string, find func(string) (key, bool)) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(config)) {
		k, ok := find(name)
		if !ok {
			return nil, api.Errorf(api.ConfigInvalid, "Invalid option %q", name).WithHint("see docs/storage.md for the options of each driver; your own begin with user.")
		}
		if config[name] == "" {
			continue
		}
		value, err := k.rule(config[name])
		if err != nil {
			return nil, api.Errorf(api.ConfigInvalid, "Invalid value for option %q: %v", name, err)
		}
		out[name] = value
	}
	return out, nil
}

// MemberSpecific tells whether a key of a pool's configuration is each member's own.
func MemberSpecific(driver, name string) bool {
	k, ok := findPoolKey(driver, name)
	return ok && k.own && !strings.HasPrefix(name, volumePrefix)
}

// Changeable tells whether a key may be changed after the pool was made.
func Changeable(driver, name string) bool {
	k, ok := findPoolKey(driver, name)
	return ok && !k.fixed
}

func text(value string) (string, error) {
	if strings.ContainsAny(value, "\x00\n\r") {
		return "", fmt.Errorf("it has control characters")
	}
	return value, nil
}

func boolean(value string) (string, error) {
	on, ok := api.ParseBool(value)
	if !ok {
		return "", fmt.Errorf("%q is no boolean", value)
	}
	return strconv.FormatBool(on), nil
}

func number(value string) (string, error) {
	if _, err := strconv.ParseUint(value, 10, 32); err != nil {
		return "", fmt.Errorf("%q is no whole number", value)
	}
	return value, nil
}

func mode(value string) (string, error) {
	if _, err := strconv.ParseUint(value, 8, 12); err != nil {
		return "", fmt.Errorf("%q is no octal file mode", value)
	}
	return value, nil
}

func oneOf(values ...string) func(string) (string, error) {
	return func(value string) (string, error) {
		if !slices.Contains(values, value) {
			return "", fmt.Errorf("%q is none of %s", value, strings.Join(values, ", "))
		}
		return value, nil
	}
}

func size(value string) (string, error) {
	_, err := ParseSize(value)
	return value, err
}

// units are those that sizes may have; without one they are bytes.
var units = []struct {
	suffix string
	bytes  float64
}{
	{"EiB", 1 << 60}, {"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"EB", 1e18}, {"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}, {"", 1},
}

// ParseSize reads a size such as "9GiB", in bytes. It fails with api.ConfigInvalid.
func ParseSize(value string) (uint64, error) {
	for _, unit := range units {
		digits, ok := strings.CutSuffix(value, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
		if err != nil || float64(n)*unit.bytes >= math.MaxInt64 {
			break
		}
		return n * uint64(unit.bytes), nil
	}
	return 0, api.Errorf(api.ConfigInvalid, "%q is no size, such as 9GiB or 500MB", value)
}

// FormatSize writes a size in the largest binary unit that divides it.
func FormatSize(bytes uint64) string {
	for _, unit := range units[:6] {
		if n := uint64(unit.bytes); bytes >= n && bytes%n == 0 {
			return decimal(bytes/n) + unit.suffix
		}
	}
	return decimal(bytes) + "B"
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }
