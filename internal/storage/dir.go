package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"incusd/api"
)

// volumesFolder is where the custom volumes are, below a pool's root.
const volumesFolder = "custom"

// dirDriver makes a pool of any folder, which has the pool's mark as long as it is one. Volumes are
// folders of it, without a limit of their size.
type dirDriver struct{ place }

func (d *dirDriver) available(context.Context) (string, error) { return "1", nil }

// root is the pool's folder: the source, or a folder of ours.
func (d *dirDriver) root(p Pool) string {
	if source := p.Config["source"]; source != "" {
		return source
	}
	return d.mountpoint(p)
}

func (d *dirDriver) isOwn(p Pool) bool { return d.place.isOwn(d.root(p), p) }

func (d *dirDriver) check(_ context.Context, p Pool) error {
	root := d.root(p)
	if !d.isOwn(p) {
		if err := checkSourceFolder(d.place, root); err != nil {
			return err
		}
	}
	if err := checkUnclaimed(root); err != nil {
		return err
	}
	return checkEmpty(root)
}

// checkSourceFolder refuses what is no folder of the user's own.
func checkSourceFolder(at place, path string) error {
	if !filepath.IsAbs(path) {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' isn't absolute", path)
	}
	if at.has(path) {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' is within the Incus directory", path)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return api.Errorf(api.ConfigInvalid, "Source path '%s' doesn't exist", path).WithHint("make the folder on this member first")
	case err != nil:
		return err
	case !info.IsDir():
		return api.Errorf(api.ConfigInvalid, "Source path '%s' isn't a folder", path)
	}
	return nil
}

// checkEmpty refuses a folder with something in it. None at all is as good as an empty one.
func checkEmpty(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' isn't empty", path).WithHint("choose an empty folder; nothing in it was touched")
	}
	return nil
}

func (d *dirDriver) create(_ context.Context, p Pool) (map[string]string, error) {
	root := d.root(p)
	if d.isOwn(p) {
		if err := os.MkdirAll(root, 0o711); err != nil {
			return nil, err
		}
	}
	return map[string]string{"source": root}, claim(root, p)
}

// mount does nothing: the disk of a folder is mounted by somebody else.
func (d *dirDriver) mount(context.Context, Pool) error { return nil }

func (d *dirDriver) present(_ context.Context, p Pool) error { return checkOwned(d.root(p), p) }

func (d *dirDriver) update(_ context.Context, _, next Pool) (map[string]string, error) {
	return map[string]string{"source": d.root(next)}, nil
}

// remove leaves a folder of the user's own as it was found: empty.
func (d *dirDriver) remove(_ context.Context, p Pool) (kept string, err error) {
	root := d.root(p)
	kept, err = release(root, p, func() error { return removeTree(filepath.Join(root, volumesFolder)) })
	if err != nil || kept != "" || !d.isOwn(p) {
		return kept, err
	}
	return removeFolder(root)
}

// removeTree removes a folder with all that is in it, unless a disk is mounted there: what that has
// is somebody else's.
func removeTree(path string) error {
	if err := checkNoMounts(path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

func (d *dirDriver) resources(_ context.Context, p Pool) (*api.ResourcesStoragePool, error) {
	return measure(d.root(p))
}

func (d *dirDriver) volume(p Pool, v Volume) string {
	return filepath.Join(d.root(p), volumesFolder, v.directory())
}

func (d *dirDriver) checkVolume(_ context.Context, p Pool, v Volume) error {
	return checkFolderVolume(d.volume(p, v), v)
}

// checkFolderVolume refuses a volume in whose place something is.
func checkFolderVolume(path string, v Volume) error {
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return api.Errorf(api.Conflict, "The storage volume %q cannot be made: '%s' is there already", v.Name, path).
			WithHint("move it away, or choose another name; nothing in it was touched")
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

func (d *dirDriver) createVolume(_ context.Context, p Pool, v Volume) error {
	return makeFolderVolume(d.volume(p, v), v, func(path string) error { return os.Mkdir(path, 0o711) })
}

// makeFolderVolume makes a folder and, for a block volume, a file in it that is the disk.
func makeFolderVolume(path string, v Volume, mkdir func(string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	if err := mkdir(path); err != nil {
		return err
	}
	if v.ContentType != api.VolumeBlock {
		return nil
	}
	size, err := blockSize(v)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(blockFile(path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(int64(size)), file.Close())
}

func blockFile(volume string) string { return filepath.Join(volume, "root.img") }

// blockSize is the size of a block volume, in bytes.
func blockSize(v Volume) (uint64, error) {
	if text := v.Config["size"]; text != "" {
		return ParseSize(text)
	}
	return 10 * gibibyte, nil
}

func (d *dirDriver) updateVolume(_ context.Context, p Pool, before, next Volume) error {
	return changeFolderVolume(d.volume(p, before), d.volume(p, next), before, next)
}

// changeFolderVolume renames a folder volume, and makes the disk in it larger.
func changeFolderVolume(from, to string, before, next Volume) error {
	if err := renameVolume(from, to); err != nil {
		return err
	}
	if next.ContentType != api.VolumeBlock || before.Config["size"] == next.Config["size"] {
		return nil
	}
	size, err := blockSize(next)
	if err != nil {
		return err
	}
	info, err := os.Stat(blockFile(to))
	if err != nil {
		return err
	}
	if uint64(info.Size()) > size {
		return api.Errorf(api.ConfigInvalid, "Invalid value for option %q: a block volume cannot shrink", "size")
	}
	return os.Truncate(blockFile(to), int64(size))
}

// renameVolume renames, unless that was done before.
func renameVolume(from, to string) error {
	if from == to {
		return nil
	}
	_, errFrom := os.Lstat(from)
	_, errTo := os.Lstat(to)
	switch {
	case errFrom == nil && errTo == nil:
		return fmt.Errorf("%s is there already", to)
	case errors.Is(errFrom, fs.ErrNotExist) && errTo == nil:
		return nil
	}
	return os.Rename(from, to)
}

func (d *dirDriver) removeVolume(_ context.Context, p Pool, v Volume) (kept string, err error) {
	return "", removeTree(d.volume(p, v))
}
