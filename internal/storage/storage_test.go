package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"incusd/api"
)

func newTestManager(t *testing.T) (*Manager, string) {
	t.Helper()
	dir := t.TempDir()
	return New(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}), dir
}

// usable skips the test of a driver that this machine cannot use.
func usable(t *testing.T, m *Manager, driver string) {
	t.Helper()
	if err := m.CheckDriver(t.Context(), driver); err != nil {
		t.Skip(err)
	}
}

// small is a pool of each driver that takes little space.
func small(driver string) Pool {
	p := Pool{ID: "0b1c-" + driver, Owner: "me", Name: "pool", Driver: driver, Config: map[string]string{}}
	if driver != "dir" {
		p.Config["size"] = "256MiB"
	}
	return p
}

// leftovers lists the mounts, loop devices and files below dir that a pool could have left.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	for _, pattern := range []string{"storage-pools/*", "disks/*"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		found = append(found, files...)
	}
	if device, _ := loopDevice(filepath.Join(dir, "disks", "pool.img")); device != "" {
		found = append(found, device)
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made makes the pool, and removes it when the test has failed before it did.
func made(t *testing.T, m *Manager, p Pool) Pool {
	t.Helper()
	chosen, err := m.CreatePool(t.Context(), p)
	must(t, err)
	t.Cleanup(func() { _ = m.DeletePool(context.Background(), p) })
	config := map[string]string{}
	for _, source := range []map[string]string{p.Config, chosen} {
		for key, value := range source {
			config[key] = value
		}
	}
	p.Config = config
	return p
}

// TestEveryDriverKeepsTheSamePromises is the one suite for all drivers.
func TestEveryDriverKeepsTheSamePromises(t *testing.T) {
	for _, driver := range driverNames {
		t.Run(driver, func(t *testing.T) {
			m, dir := newTestManager(t)
			usable(t, m, driver)
			ctx := t.Context()
			p := small(driver)
			must(t, m.DeletePool(ctx, p)) // of what never was
			must(t, m.CheckPool(ctx, p))
			if left := leftovers(t, dir); len(left) > 0 {
				t.Fatalf("a check has made %v", left)
			}
			p = made(t, m, p)
			if p.Config["source"] == "" {
				t.Error("nobody is told the source")
			}
			must(t, m.MountPool(ctx, p))
			space, err := m.PoolResources(ctx, p)
			must(t, err)
			if space.Space.Total == 0 || space.Space.Used > space.Space.Total {
				t.Errorf("%+v", space)
			}
			othersAreRefused(t, m, p)
			volumes(t, m, p)
			must(t, m.DeletePool(ctx, p))
			must(t, m.DeletePool(ctx, p))
			if left := leftovers(t, dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// othersAreRefused tries what another pool, or another machine's part of this one, may not do to a pool
// that is made.
func othersAreRefused(t *testing.T, m *Manager, p Pool) {
	t.Helper()
	ctx := t.Context()
	second, elsewhere := p, p
	second.ID, elsewhere.Owner = "second", "somebody else"
	for _, other := range []Pool{second, elsewhere} {
		asked := other
		asked.Config = small(p.Driver).Config
		if _, err := m.CreatePool(ctx, asked); err == nil {
			t.Error("it was made over another pool")
		}
		v := Volume{Project: "default", Name: "v", ContentType: api.VolumeFilesystem}
		_, resources := m.PoolResources(ctx, other)
		_, update := m.UpdatePool(ctx, other, other)
		for what, err := range map[string]error{
			"mount": m.MountPool(ctx, other), "resources": resources, "update": update, "check volume": m.CheckVolume(ctx, other, v),
			"create volume": m.CreateVolume(ctx, other, v), "update volume": m.UpdateVolume(ctx, other, v, v), "delete volume": m.DeleteVolume(ctx, other, v),
		} {
			if !errors.Is(err, api.Unavailable) {
				t.Errorf("%s of a pool whose place another one has: %v", what, err)
			}
		}
		must(t, m.DeletePool(ctx, asked)) // as the machine does after a failure
		must(t, m.DeletePool(ctx, other))
		must(t, m.MountPool(ctx, p))
	}
}

func volumes(t *testing.T, m *Manager, p Pool) {
	t.Helper()
	ctx := t.Context()
	for _, kind := range []string{api.VolumeFilesystem, api.VolumeBlock} {
		v := Volume{ID: "v1", Project: "default", Name: "data", ContentType: kind, Config: map[string]string{"size": "32MiB"}}
		must(t, m.DeleteVolume(ctx, p, v)) // of what never was
		must(t, m.CheckVolume(ctx, p, v))
		must(t, m.CreateVolume(ctx, p, v))
		if err := m.CheckVolume(ctx, p, v); !errors.Is(err, api.Conflict) {
			t.Errorf("over a volume that is there: %v", err)
		}
		if err := m.CreateVolume(ctx, p, v); !errors.Is(err, api.Conflict) {
			t.Errorf("over a volume that is there: %v", err)
		}
		next := v
		next.Name, next.Config = "other", map[string]string{"size": "48MiB"}
		must(t, m.UpdateVolume(ctx, p, v, next))
		must(t, m.UpdateVolume(ctx, p, v, next)) // once more, as after a crash
		must(t, m.DeleteVolume(ctx, p, next))
		must(t, m.DeleteVolume(ctx, p, next))
	}
}

func TestPoolThatWasCutOffAtAnyStepCanBeRemovedAndMadeAgain(t *testing.T) {
	m, dir := newTestManager(t)
	usable(t, m, "btrfs")
	boom := errors.New("cut off")
	for n := 1; ; n++ {
		calls := 0
		cut := newManager(Config{Dir: dir}, func(ctx context.Context, name string, args ...string) (string, error) {
			if name == "mkfs.btrfs" || name == "mount" || name == "umount" || name == "losetup" {
				if calls++; calls >= n {
					return "", boom // and so is the undoing
				}
			}
			return execute(ctx, name, args...)
		})
		_, err := cut.CreatePool(t.Context(), small("btrfs"))
		finished := err == nil
		must(t, m.DeletePool(t.Context(), small("btrfs")))
		if left := leftovers(t, dir); len(left) > 0 {
			t.Fatalf("cut off at step %d: %v", n, left)
		}
		if finished {
			return
		}
	}
}

func TestLoopFileGrowsAndDoesNotShrink(t *testing.T) {
	m, _ := newTestManager(t)
	usable(t, m, "btrfs")
	p := made(t, m, small("btrfs"))
	next := p
	next.Config = map[string]string{"source": p.Config["source"], "size": "320MiB"}
	_, err := m.UpdatePool(t.Context(), p, next)
	must(t, err)
	if space, err := m.PoolResources(t.Context(), next); err != nil || space.Space.Total != 320<<20 {
		t.Errorf("%+v, %v", space, err)
	}
	if _, err := m.UpdatePool(t.Context(), next, p); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), "cannot shrink") {
		t.Errorf("shrinking: %v", err)
	}
}

func TestPoolComesBackAfterARestartOfTheMachine(t *testing.T) {
	m, dir := newTestManager(t)
	usable(t, m, "btrfs")
	p := made(t, m, small("btrfs"))
	must(t, exec.Command("umount", filepath.Join(dir, "storage-pools", "pool")).Run())
	must(t, m.MountPool(t.Context(), p))
	if _, mounted, _ := mountedAt(filepath.Join(dir, "storage-pools", "pool")); !mounted {
		t.Error("it is not mounted")
	}
	must(t, exec.Command("umount", filepath.Join(dir, "storage-pools", "pool")).Run())
	must(t, os.Rename(filepath.Join(dir, "disks", "pool.img"), filepath.Join(dir, "away")))
	if err := m.MountPool(t.Context(), p); !errors.Is(err, api.Unavailable) || !strings.Contains(err.Error(), "pool.img") {
		t.Errorf("without its file: %v", err)
	}
}

func TestBlockDeviceIsTakenOnlyWhenItIsEmpty(t *testing.T) {
	m, dir := newTestManager(t)
	usable(t, m, "btrfs")
	disk := filepath.Join(dir, "disk")
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 256<<20))
	out, err := exec.Command("losetup", "--find", "--show", disk).Output()
	if err != nil {
		t.Skip("no loop device is free")
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() })
	p := Pool{ID: "dev", Name: "pool", Driver: "btrfs", Config: map[string]string{"source": device}}
	p = made(t, m, p)
	if p.Config["source"] != device || p.Config["volatile.initial_source"] != device {
		t.Errorf("%v", p.Config)
	}
	must(t, m.DeletePool(t.Context(), p))
	if found, err := signature(t.Context(), execute, device); err != nil || found != "" {
		t.Errorf("left on the device: %q, %v", found, err)
	}
	must(t, exec.Command("mkfs.ext4", "-q", device).Run())
	if err := m.CheckPool(t.Context(), p); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), "isn't empty") {
		t.Errorf("a device with a file system: %v", err)
	}
	must(t, m.DeletePool(t.Context(), p))
	if found, _ := signature(t.Context(), execute, device); !strings.Contains(found, "ext4") {
		t.Errorf("removing a pool that is not on the device has wiped it: %q", found)
	}
	p.Config["source.wipe"] = "true"
	p = made(t, m, p)
	must(t, m.DeletePool(t.Context(), p))
}

func TestFolderOfAUserStaysAsItWas(t *testing.T) {
	t.Parallel()
	m, dir := newTestManager(t)
	source := t.TempDir()
	p := Pool{ID: "1", Name: "pool", Driver: "dir", Config: map[string]string{"source": source}}
	p = made(t, m, p)
	must(t, m.CreateVolume(t.Context(), p, Volume{Project: "default", Name: "v", ContentType: api.VolumeFilesystem}))
	mine := filepath.Join(source, "mine")
	must(t, os.WriteFile(mine, []byte("x"), 0o600))
	must(t, m.DeletePool(t.Context(), p))
	if entries, _ := os.ReadDir(source); len(entries) != 1 || entries[0].Name() != "mine" {
		t.Errorf("in the folder: %v", entries)
	}
	for path, want := range map[string]string{
		source: "isn't empty", filepath.Join(source, "no"): "doesn't exist", dir: "is within the Incus directory",
		filepath.Join(dir, "x"): "is within the Incus directory", "relative": "isn't absolute", mine: "isn't a folder",
	} {
		p.Config = map[string]string{"source": path}
		if err := m.CheckPool(t.Context(), p); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestFullDiskIsToldAndMended(t *testing.T) {
	dir := t.TempDir()
	if err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "small", dir).Run(); err != nil {
		t.Skip("no small disk can be mounted")
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	m := New(Config{Dir: dir})
	fill := filepath.Join(dir, "fill")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); err != nil {
		must(t, os.Truncate(fill, 1000<<10))
	}
	for _, driver := range []string{"dir", "btrfs"} {
		if m.CheckDriver(t.Context(), driver) != nil {
			continue
		}
		if _, err := m.CreatePool(t.Context(), small(driver)); !errors.Is(err, api.DiskFull) {
			t.Errorf("%s on a full disk: %v", driver, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("%s has left %v", driver, left)
		}
	}
	must(t, os.Remove(fill))
	made(t, m, small("dir"))
}

func TestDriverThatIsMissingIsToldWithWhatItLacks(t *testing.T) {
	t.Parallel()
	m, _ := newTestManager(t)
	for driver, reason := range map[string]api.Reason{"ceph": api.DriverUnavailable, "lvmcluster": api.DriverUnavailable, "zsf": api.ConfigInvalid, "": api.ConfigInvalid} {
		if err := m.CheckDriver(t.Context(), driver); !errors.Is(err, reason) {
			t.Errorf("%q: %v", driver, err)
		}
	}
	offered := map[string]bool{}
	for _, d := range m.Supported() {
		offered[d.Name] = true
	}
	for _, driver := range driverNames {
		err := m.CheckDriver(t.Context(), driver)
		if offered[driver] != (err == nil) {
			t.Errorf("%s is offered: %v, and said of it is %v", driver, offered[driver], err)
		}
	}
	if !offered["dir"] {
		t.Error("dir is not offered")
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	got, err := ValidatePool("btrfs", map[string]string{"size": "5GiB", "source.wipe": "yes", "user.a": "b", "volume.size": "1GiB", "rsync.bwlimit": ""})
	if err != nil || fmt.Sprint(got) != "map[size:5GiB source.wipe:true user.a:b volume.size:1GiB]" {
		t.Errorf("%v, %v", got, err)
	}
	for text, want := range map[string]string{"size=5 apples": `Invalid value for option "size"`, "zfs.pool_name=x": `Invalid option "zfs.pool_name"`, "source.wipe=perhaps": "no boolean", "volume.nope=1": `Invalid option "volume.nope"`} {
		key, value, _ := strings.Cut(text, "=")
		if _, err := ValidatePool("btrfs", map[string]string{key: value}); !errors.Is(err, api.ConfigInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for key, want := range map[string]bool{"source": true, "size": true, "source.wipe": true, "volatile.initial_source": true, "volume.size": false, "user.size": false, "btrfs.mount_options": false} {
		if MemberSpecific("btrfs", key) != want {
			t.Errorf("%s is a member's own: %v", key, !want)
		}
	}
	for text, want := range map[string]uint64{"9GiB": 9 << 30, "500MB": 5e8, "12": 12, "3B": 3, "1kB": 1000} {
		if n, err := ParseSize(text); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "99999999999EiB", "1 2GiB"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, n)
		}
	}
	if got := FormatSize(9 << 30); got != "9GiB" {
		t.Error(got)
	}
}
