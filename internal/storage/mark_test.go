package storage

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"incusd/api"
)

// folderPool is a pool of the driver dir in a folder of a user's.
func folderPool(id, source string) Pool {
	return Pool{ID: id, Owner: "me", Name: "pool-" + id, Driver: "dir", Config: map[string]string{"source": source}}
}

// logged returns a Manager and what it logs.
func logged(t *testing.T) (*Manager, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	return New(Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(log, nil))}), log
}

// mustRun runs a tool, or skips the test: what it needs is not to be had here.
func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Skipf("%s %v: %v: %s", name, args, err, out)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte("x"), 0o600))
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func names(t *testing.T, folder string) string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	must(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

var data = Volume{ID: "v", Project: "default", Name: "data", ContentType: api.VolumeFilesystem, Config: map[string]string{}}

func TestTwoPoolsNeverShareAFolder(t *testing.T) {
	t.Parallel()
	m, dir := newTestManager(t)
	source := t.TempDir()
	first := made(t, m, folderPool("1", source))
	must(t, m.CreateVolume(t.Context(), first, data))
	inside := filepath.Join(source, volumesFolder, data.directory(), "inside")
	must(t, os.Mkdir(inside, 0o755))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(source, link))
	for path, want := range map[string]string{
		source: "is the storage pool", link: "is the storage pool", inside: "lies in the storage pool", filepath.Join(link, volumesFolder): "lies in the storage pool",
	} {
		err := m.CheckPool(t.Context(), folderPool("2", path))
		refused(t, err, api.Conflict, want)
		refused(t, err, api.Conflict, `"pool-1"`)
		if _, err := m.CreatePool(t.Context(), folderPool("2", path)); !errors.Is(err, api.Conflict) {
			t.Errorf("%s: %v", path, err)
		}
		must(t, m.DeletePool(t.Context(), folderPool("2", path)))
	}
	if err := m.CheckPool(t.Context(), folderPool("2", filepath.Dir(source))); err == nil {
		t.Error("a pool was made around another one")
	}
	must(t, m.MountPool(t.Context(), first))
	if !isThere(inside) {
		t.Error("the pool's volume is gone")
	}
	other := filepath.Join(dir, "storage-pools", "other") // one that is found by a link into the state directory
	must(t, os.MkdirAll(other, 0o755))
	must(t, os.Symlink(other, link+"2"))
	refused(t, m.CheckPool(t.Context(), folderPool("2", link+"2")), api.ConfigInvalid, "within the Incus directory")
}

func TestOfTwoThatClaimOneFolderOneIsRefused(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	must(t, claim(folder, folderPool("1", folder)))
	refused(t, claim(folder, folderPool("2", folder)), api.Conflict, `"pool-1"`)
	if got := names(t, folder); got != markFile {
		t.Errorf("in the folder: %s", got)
	}
}

func TestFolderWithoutItsDiskIsNotThePool(t *testing.T) {
	m, log := logged(t)
	disk, source := t.TempDir(), t.TempDir()
	mustRun(t, "mount", "--bind", disk, source)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", source).Run() })
	p := made(t, m, folderPool("1", source))
	must(t, m.CreateVolume(t.Context(), p, data))
	must(t, exec.Command("umount", source).Run())

	refused(t, m.MountPool(t.Context(), p), api.Unavailable, "Is the disk not mounted?")
	next := data
	next.Name = "next"
	refused(t, m.CreateVolume(t.Context(), p, next), api.Unavailable, "not mounted")
	if _, err := m.PoolResources(t.Context(), p); !errors.Is(err, api.Unavailable) {
		t.Errorf("it is measured: %v", err)
	}
	if got := names(t, source); got != "" {
		t.Errorf("written below the mount point: %s", got)
	}
	mine := filepath.Join(source, volumesFolder, data.directory(), "mine")
	write(t, mine)
	must(t, m.DeletePool(t.Context(), p))
	if !isThere(mine) || !strings.Contains(log.String(), "left alone") {
		t.Errorf("what is below the mount point is there: %v; the log says %q", isThere(mine), log)
	}
	must(t, os.RemoveAll(filepath.Join(source, volumesFolder)))

	must(t, exec.Command("mount", "--bind", disk, source).Run())
	must(t, m.MountPool(t.Context(), p))
	if !isThere(filepath.Join(source, volumesFolder, data.directory())) {
		t.Error("the deletion has reached the disk")
	}
	must(t, m.DeletePool(t.Context(), p))
	if got := names(t, source); got != "" {
		t.Errorf("left: %s", got)
	}
}

func TestOwnFolderWithoutItsMarkStays(t *testing.T) {
	t.Parallel()
	m, log := logged(t)
	p := made(t, m, small("dir"))
	root := p.Config["source"]
	must(t, m.CreateVolume(t.Context(), p, data))
	must(t, os.Rename(root, root+"-away"))
	mine := filepath.Join(root, "mine")
	write(t, mine)
	must(t, m.DeletePool(t.Context(), p))
	if !isThere(mine) || !strings.Contains(log.String(), root) {
		t.Errorf("it stays: %v; the log says %q", isThere(mine), log)
	}
	must(t, os.WriteFile(filepath.Join(root, markFile), []byte("{"), 0o600)) // a damaged one is nobody's
	must(t, m.DeletePool(t.Context(), p))
	refused(t, m.MountPool(t.Context(), p), api.Unavailable, "an unknown storage pool")
	if !isThere(mine) {
		t.Error("it is gone")
	}
}

func TestFolderPoolThatWasCutOffAtAnyStepCanBeRemovedAndMadeAgain(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		for name, cut := range map[string]func(root string, p Pool) error{
			"before anything":       func(string, Pool) error { return nil },
			"after the folder":      func(root string, _ Pool) error { return os.MkdirAll(root, 0o711) },
			"in the proof of space": func(root string, p Pool) error { return os.WriteFile(draft(root, p), make([]byte, 100), 0o600) },
			"with half a mark":      func(root string, p Pool) error { return os.WriteFile(draft(root, p), []byte(`{"id`), 0o600) },
			"with the mark and a draft": func(root string, p Pool) error {
				return errors.Join(claim(root, p), os.WriteFile(draft(root, p), nil, 0o600))
			},
			"after half of the removal": func(root string, p Pool) error {
				return errors.Join(claim(root, p), os.Mkdir(filepath.Join(root, volumesFolder), 0o711))
			},
		} {
			m, log := logged(t)
			d := dirDriver{place{m.cfg.Dir}}
			p := small("dir")
			if !own {
				p.Config["source"] = t.TempDir()
			} else if name != "before anything" {
				must(t, os.MkdirAll(d.root(p), 0o711))
			}
			must(t, cut(d.root(p), p))
			must(t, m.DeletePool(t.Context(), p))
			if own == isThere(d.root(p)) || !own && names(t, d.root(p)) != "" {
				t.Errorf("%s, own: %v: the folder is there: %v", name, own, isThere(d.root(p)))
			}
			if log.Len() > 0 {
				t.Errorf("%s, own: %v: %s", name, own, log)
			}
			made(t, m, p)
		}
	}
}

func TestVolumeIsNotMadeOverAFolder(t *testing.T) {
	for _, driver := range []string{"dir", "btrfs"} {
		t.Run(driver, func(t *testing.T) {
			m, _ := newTestManager(t)
			usable(t, m, driver)
			p := made(t, m, small(driver))
			mine := filepath.Join(m.cfg.Dir, "storage-pools", "pool", volumesFolder, data.directory(), "mine")
			write(t, mine)
			refused(t, m.CreateVolume(t.Context(), p, data), api.Conflict, "is there already")
			if !isThere(mine) {
				t.Error("the folder is gone")
			}
		})
	}
}

func TestWhatIsMountedInAPoolIsNotRemovedWithIt(t *testing.T) {
	for _, driver := range []string{"dir", "btrfs"} {
		t.Run(driver, func(t *testing.T) {
			m, _ := newTestManager(t)
			usable(t, m, driver)
			p := made(t, m, small(driver))
			must(t, m.CreateVolume(t.Context(), p, data))
			disk := t.TempDir()
			write(t, filepath.Join(disk, "mine"))
			at := filepath.Join(m.cfg.Dir, "storage-pools", "pool", volumesFolder, data.directory(), "in")
			must(t, os.Mkdir(at, 0o755))
			mustRun(t, "mount", "--bind", disk, at)
			t.Cleanup(func() { _ = exec.Command("umount", "-l", at).Run() })
			refused(t, m.DeleteVolume(t.Context(), p, data), api.Conflict, "is mounted at")
			if err := m.DeletePool(t.Context(), p); err == nil {
				t.Error("the pool is removed")
			}
			if !isThere(filepath.Join(disk, "mine")) {
				t.Error("what is on the disk is gone")
			}
			must(t, exec.Command("umount", at).Run())
			must(t, m.DeletePool(t.Context(), p))
		})
	}
}

func TestLoopFileThatIsNotThePoolsStays(t *testing.T) {
	m, log := logged(t)
	usable(t, m, "btrfs")
	p := small("btrfs")
	file := filepath.Join(m.cfg.Dir, "disks", "pool.img")
	write(t, file) // before
	refused(t, m.CheckPool(t.Context(), p), api.Conflict, "is there already")
	if _, err := (place{m.cfg.Dir}).createLoop(p); !errors.Is(err, api.Conflict) {
		t.Errorf("put there after the check: %v", err)
	}
	must(t, m.DeletePool(t.Context(), p))
	if !isThere(file) || !strings.Contains(log.String(), "pool.img") {
		t.Errorf("it is there: %v; the log says %q", isThere(file), log)
	}
	must(t, os.Remove(file))

	p = made(t, m, p) // and after
	must(t, exec.Command("umount", filepath.Join(m.cfg.Dir, "storage-pools", "pool")).Run())
	must(t, os.Remove(file))
	write(t, file)
	must(t, m.DeletePool(t.Context(), p))
	if got := names(t, filepath.Dir(file)); got != "pool.img" {
		t.Errorf("left: %s", got)
	}
}

func TestLoopFileThatWasCutOffAtAnyStepIsRemoved(t *testing.T) {
	t.Parallel()
	at, p := place{t.TempDir()}, small("btrfs")
	for name, cut := range map[string]func(){
		"before its place": func() { must(t, os.Remove(at.loopFile(p))) },
		"in its removal":   func() { must(t, os.Remove(at.loopFile(p))) },
		"whole":            func() {},
	} {
		_, err := at.createLoop(p)
		must(t, err)
		cut()
		if kept, err := at.removeLoop(t.Context(), execute, p); err != nil || kept != "" {
			t.Errorf("%s: kept %q, %v", name, kept, err)
		}
		if got := names(t, filepath.Join(at.dir, "disks")); got != "" {
			t.Errorf("%s: left %s", name, got)
		}
	}
}

func TestForeignFileSystemInAPoolsPlaceIsNeitherUsedNorUnmounted(t *testing.T) {
	m, log := logged(t)
	usable(t, m, "btrfs")
	at := filepath.Join(m.cfg.Dir, "storage-pools", "pool")
	must(t, os.MkdirAll(at, 0o755))
	mustRun(t, "mount", "-t", "tmpfs", "mine", at)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", at).Run() })
	refused(t, m.CheckPool(t.Context(), small("btrfs")), api.Conflict, "is mounted at")
	must(t, m.DeletePool(t.Context(), small("btrfs")))
	must(t, exec.Command("umount", at).Run())

	p := made(t, m, small("btrfs"))
	must(t, exec.Command("umount", at).Run())
	must(t, exec.Command("mount", "-t", "tmpfs", "mine", at).Run())
	refused(t, m.MountPool(t.Context(), p), api.Unavailable, "not mounted")
	refused(t, m.CreateVolume(t.Context(), p, data), api.Unavailable, "not mounted")
	must(t, m.DeletePool(t.Context(), p))
	if _, mounted, _ := mountedAt(at); !mounted || !strings.Contains(log.String(), "mounted at") {
		t.Errorf("mounted: %v; the log says %q", mounted, log)
	}
	must(t, exec.Command("umount", at).Run())
	must(t, os.Remove(at))
	if left := leftovers(t, m.cfg.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBtrfsThatIsAnotherOneIsNotTakenForThePool(t *testing.T) {
	m, _ := newTestManager(t)
	usable(t, m, "btrfs")
	p := made(t, m, small("btrfs"))
	at, file := filepath.Join(m.cfg.Dir, "storage-pools", "pool"), filepath.Join(m.cfg.Dir, "disks", "pool.img")
	must(t, exec.Command("umount", at).Run())
	must(t, os.Rename(file, file+".away"))
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, 256<<20))
	must(t, exec.Command("mkfs.btrfs", "--quiet", file).Run())
	refused(t, m.MountPool(t.Context(), p), api.Unavailable, markFile)
	if _, mounted, _ := mountedAt(at); mounted {
		t.Error("the other one stays mounted")
	}
	must(t, os.Rename(file+".away", file))
	must(t, m.MountPool(t.Context(), p))
}

func TestStateDirectoryMayBeASymlink(t *testing.T) {
	real := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(real, link))
	m := New(Config{Dir: link})
	usable(t, m, "btrfs")
	for _, driver := range []string{"btrfs", "dir"} {
		p := made(t, m, small(driver))
		if !strings.HasPrefix(p.Config["source"], link) {
			t.Errorf("the source is %s", p.Config["source"])
		}
		direct := New(Config{Dir: real}) // the same folder, called otherwise at the next start
		for _, at := range []*Manager{m, direct} {
			must(t, at.MountPool(t.Context(), p))
		}
		all, err := mounts()
		must(t, err)
		count := 0
		for _, one := range all {
			if isWithin(real, one.point) {
				count++
			}
		}
		if want := map[string]int{"btrfs": 1}[driver]; count != want {
			t.Errorf("%s is mounted %d times", driver, count)
		}
		if driver == "btrfs" {
			next := p
			next.Config = map[string]string{"source": p.Config["source"], "size": "320MiB"}
			_, err := m.UpdatePool(t.Context(), p, next)
			must(t, err)
			if space, err := m.PoolResources(t.Context(), next); err != nil || space.Space.Total != 320<<20 {
				t.Errorf("it has not grown: %+v, %v", space, err)
			}
		}
		must(t, direct.DeletePool(t.Context(), p))
		if left := leftovers(t, real); len(left) > 0 {
			t.Errorf("%s has left %v", driver, left)
		}
	}
}

// onBtrfs returns a folder on a btrfs that is the user's.
func onBtrfs(t *testing.T) string {
	t.Helper()
	file, at := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, 256<<20))
	mustRun(t, "mkfs.btrfs", "--quiet", file)
	mustRun(t, "mount", "-o", "loop", file, at)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", at).Run() })
	return at
}

func subvolumePool(id, source string) Pool {
	p := folderPool(id, source)
	p.Driver = "btrfs"
	return p
}

func TestSubvolumePool(t *testing.T) {
	m, log := logged(t)
	usable(t, m, "btrfs")
	disk := onBtrfs(t)
	ctx, source := t.Context(), filepath.Join(disk, "pool")
	p := made(t, m, subvolumePool("1", source))
	must(t, m.MountPool(ctx, p))
	volumes(t, m, p)
	must(t, m.CreateVolume(ctx, p, data))
	write(t, filepath.Join(source, volumesFolder, "mine", "x")) // no subvolume: it goes with the pool
	refused(t, m.CheckPool(ctx, subvolumePool("2", source)), api.Conflict, `"pool-1"`)
	refused(t, m.CheckPool(ctx, subvolumePool("2", filepath.Join(source, "in"))), api.Conflict, "lies in")
	refused(t, m.CheckPool(ctx, subvolumePool("2", filepath.Join(disk, "a", "b"))), api.ConfigInvalid, "doesn't exist")
	refused(t, m.CheckPool(ctx, subvolumePool("2", filepath.Join(m.cfg.Dir, "x"))), api.ConfigInvalid, "within the Incus directory")
	must(t, m.DeletePool(ctx, subvolumePool("2", source)))
	if !isThere(source) || !strings.Contains(log.String(), "left alone") {
		t.Errorf("it is there: %v; the log says %q", isThere(source), log)
	}
	must(t, m.DeletePool(ctx, p))
	if got := names(t, disk); got != "" {
		t.Errorf("left: %s", got)
	}
	refused(t, m.MountPool(ctx, p), api.Unavailable, "doesn't exist")
	mustRun(t, "btrfs", "subvolume", "create", source) // a user's, in the meantime
	write(t, filepath.Join(source, "mine"))
	refused(t, m.MountPool(ctx, p), api.Unavailable, markFile)
	must(t, m.DeletePool(ctx, p))
	if !isThere(filepath.Join(source, "mine")) {
		t.Error("the user's subvolume is gone")
	}
}

func TestSubvolumePoolThatWasCutOffAtAnyStepCanBeRemovedAndMadeAgain(t *testing.T) {
	m, log := logged(t)
	usable(t, m, "btrfs")
	disk := onBtrfs(t)
	p := subvolumePool("1", filepath.Join(disk, "pool"))
	for name, cut := range map[string]func(begun string){
		"before the mark":  func(string) {},
		"in the mark":      func(begun string) { must(t, os.WriteFile(draft(begun, p), []byte("{"), 0o600)) },
		"before its place": func(begun string) { must(t, claim(begun, p)) },
	} {
		begun := draft(disk, p)
		mustRun(t, "btrfs", "subvolume", "create", begun)
		cut(begun)
		must(t, m.DeletePool(t.Context(), p))
		if got := names(t, disk); got != "" || log.Len() > 0 {
			t.Errorf("%s: left %s; the log says %q", name, got, log)
		}
	}
	// Somebody takes the place between the check and the making.
	busy := newManager(Config{Dir: m.cfg.Dir}, func(ctx context.Context, name string, args ...string) (string, error) {
		if name == "btrfs" && len(args) > 1 && args[1] == "create" {
			write(t, filepath.Join(disk, "pool", "mine"))
		}
		return execute(ctx, name, args...)
	})
	if _, err := busy.CreatePool(t.Context(), p); err == nil {
		t.Error("it is made over a folder")
	}
	if got := names(t, disk); got != "pool" || !isThere(filepath.Join(disk, "pool", "mine")) {
		t.Errorf("left: %s", got)
	}
	must(t, os.RemoveAll(filepath.Join(disk, "pool")))
	made(t, m, p)
}
