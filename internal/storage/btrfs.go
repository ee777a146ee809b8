package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"incusd/api"
)

// btrfsDriver makes a pool of a loop file, a block device, or a subvolume of a btrfs that is
// there; its root has the pool's mark. Volumes are subvolumes, with a quota where they have a size.
type btrfsDriver struct {
	place
	run runner
}

func (d *btrfsDriver) available(ctx context.Context) (string, error) {
	if err := errors.Join(asRoot(), tools("btrfs", "mkfs.btrfs", "mount", "umount", "losetup", "wipefs", "blkid")); err != nil {
		return "", err
	}
	if !kernelHas(ctx, "btrfs", d.run) {
		return "", errors.New("the kernel has no btrfs")
	}
	out, err := d.run(ctx, "btrfs", "--version")
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return strings.TrimPrefix(line, "btrfs-progs v"), nil
}

// isSubvolume tells whether the pool is a part of a btrfs that is there.
func (d *btrfsDriver) isSubvolume(p Pool) bool {
	return !d.isLoop(p) && !isBlockDevice(p.Config["source"]) && !strings.HasPrefix(p.Config["source"], "/dev/")
}

// root is where the pool's volumes are.
func (d *btrfsDriver) root(p Pool) string {
	if d.isSubvolume(p) {
		return p.Config["source"]
	}
	return d.mountpoint(p)
}

// label marks a file system as this pool's from its beginning, so that no other one is ever wiped.
func label(p Pool) string { return "incus-" + p.key() }

func (d *btrfsDriver) check(ctx context.Context, p Pool) error {
	source := p.Config["source"]
	switch {
	case d.isLoop(p):
		if err := d.checkLoop(p); err != nil {
			return err
		}
		return checkMountpoint(d.mountpoint(p))
	case isBlockDevice(source):
		if err := checkDevice(ctx, d.run, p); err != nil {
			return err
		}
		return checkMountpoint(d.mountpoint(p))
	case strings.HasPrefix(source, "/dev/"):
		return api.Errorf(api.ConfigInvalid, "Source device '%s' doesn't exist on this member, or is no block device", source)
	case p.Config["size"] != "":
		return api.Errorf(api.ConfigInvalid, "Invalid option %q: a pool in %s has no size of its own", "size", source)
	}
	return d.checkSubvolume(p)
}

// checkMountpoint refuses a folder whose content would be hidden.
func checkMountpoint(path string) error {
	source, mounted, err := mountedAt(path)
	if err != nil {
		return err
	}
	if mounted {
		return api.Errorf(api.Conflict, "'%s' is mounted at '%s'", source, path).WithHint("unmount it, or choose another name for the pool")
	}
	return checkEmpty(path)
}

// checkSubvolume refuses a source that cannot become a subvolume.
func (d *btrfsDriver) checkSubvolume(p Pool) error {
	source := p.Config["source"]
	if !filepath.IsAbs(source) {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' isn't absolute", source)
	}
	if d.has(source) && !d.isOwn(source, p) {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' is within the Incus directory", source)
	}
	if err := checkUnclaimed(source); err != nil {
		return err
	}
	if _, err := os.Lstat(source); err == nil {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' is there already", source).WithHint("give a path that does not exist, on a btrfs; the subvolume is made there")
	}
	parent := filepath.Dir(source)
	var s unix.Statfs_t
	if err := unix.Statfs(parent, &s); errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' doesn't exist", parent).WithHint("make that folder on this member first; the subvolume is made in it")
	} else if err != nil {
		return err
	}
	if s.Type != unix.BTRFS_SUPER_MAGIC {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' isn't on a btrfs", source).WithHint("leave source empty for a loop file, or give a block device or a path on a btrfs")
	}
	return nil
}

func (d *btrfsDriver) create(ctx context.Context, p Pool) (map[string]string, error) {
	source := p.Config["source"]
	switch {
	case d.isSubvolume(p):
		return map[string]string{"source": source}, d.createSubvolume(ctx, p)
	case isBlockDevice(source):
		if err := wipe(ctx, d.run, p); err != nil {
			return nil, err
		}
		if err := d.format(ctx, p, source); err != nil {
			return nil, err
		}
		return map[string]string{"source": source}, d.mountNew(ctx, p)
	}
	size, err := d.createLoop(p)
	if err != nil {
		return nil, err
	}
	if err := d.format(ctx, p, d.loopFile(p)); err != nil {
		return nil, err
	}
	return map[string]string{"source": d.loopFile(p), "size": FormatSize(size)}, d.mountNew(ctx, p)
}

// createSubvolume makes the pool's subvolume under a name of its own and gives it its place when it
// has its mark: what is at the source without a mark is never the pool's.
func (d *btrfsDriver) createSubvolume(ctx context.Context, p Pool) error {
	source := p.Config["source"]
	begun := draft(filepath.Dir(source), p)
	if _, err := d.run(ctx, "btrfs", "subvolume", "create", begun); err != nil {
		return err
	}
	if err := claim(begun, p); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, begun, unix.AT_FDCWD, source, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("give the subvolume its place at %s: %w", source, err)
	}
	return syncFolder(filepath.Dir(source))
}

func (d *btrfsDriver) format(ctx context.Context, p Pool, on string) error {
	args := []string{"--quiet", "--label", label(p)}
	args = append(args, strings.Fields(p.Config["btrfs.create_options"])...)
	_, err := d.run(ctx, "mkfs.btrfs", append(args, on)...)
	return err
}

// mountNew mounts a file system that was just made, and marks it.
func (d *btrfsDriver) mountNew(ctx context.Context, p Pool) error {
	if err := d.attach(ctx, p); err != nil {
		return err
	}
	return claim(d.mountpoint(p), p)
}

// mount mounts the source, and takes it away again when it is not the pool: disks change their names.
func (d *btrfsDriver) mount(ctx context.Context, p Pool) error {
	if d.isSubvolume(p) {
		return nil
	}
	at := d.mountpoint(p)
	if _, mounted, err := mountedAt(at); err != nil || mounted {
		return err
	}
	if err := d.attach(ctx, p); err != nil {
		return err
	}
	if why := d.present(ctx, p); why != nil {
		_, err := d.run(ctx, "umount", at)
		return errors.Join(why, err)
	}
	return nil
}

func (d *btrfsDriver) present(_ context.Context, p Pool) error { return checkOwned(d.root(p), p) }

// attach mounts the source.
func (d *btrfsDriver) attach(ctx context.Context, p Pool) error {
	at := d.mountpoint(p)
	source, options := p.Config["source"], "user_subvol_rm_allowed"
	if d.isLoop(p) {
		source, options = d.loopFile(p), "loop,"+options
	}
	if more := p.Config["btrfs.mount_options"]; more != "" {
		options += "," + more
	}
	if _, err := os.Stat(source); errors.Is(err, fs.ErrNotExist) {
		return api.Errorf(api.Unavailable, "The source '%s' doesn't exist", source).WithHint("restore it; the pool comes back by itself")
	}
	if err := os.MkdirAll(at, 0o711); err != nil {
		return err
	}
	_, err := d.run(ctx, "mount", "-t", "btrfs", "-o", options, source, at)
	return err
}

func (d *btrfsDriver) update(ctx context.Context, before, next Pool) (map[string]string, error) {
	if options := next.Config["btrfs.mount_options"]; options != before.Config["btrfs.mount_options"] && !d.isSubvolume(next) {
		if _, err := d.run(ctx, "mount", "-o", "remount,"+options, d.mountpoint(next)); err != nil {
			return nil, err
		}
	}
	grown, _, err := d.growLoop(ctx, d.run, before, next)
	if err != nil || !grown {
		return nil, err
	}
	_, err = d.run(ctx, "btrfs", "filesystem", "resize", "max", d.mountpoint(next))
	return nil, err
}

func (d *btrfsDriver) remove(ctx context.Context, p Pool) (kept string, err error) {
	if d.isSubvolume(p) {
		return d.removeSubvolumes(ctx, p)
	}
	if kept, err = d.detach(ctx, p); err != nil {
		return kept, err
	}
	also, err := d.removeSource(ctx, p)
	return both(kept, also), err
}

// both is what was kept in two places.
func both(kept, also string) string {
	if kept != "" && also != "" {
		return kept + "; " + also
	}
	return kept + also
}

// detach unmounts the pool, and nothing else that may be mounted in its place.
func (d *btrfsDriver) detach(ctx context.Context, p Pool) (kept string, err error) {
	at := d.mountpoint(p)
	for {
		source, mounted, err := mountedAt(at)
		switch {
		case err != nil:
			return "", err
		case !mounted:
			return removeFolder(at)
		}
		if ours, err := d.isMountOf(p, source); err != nil || !ours {
			return fmt.Sprintf("'%s', which isn't the pool's, is mounted at '%s'", source, at), err
		}
		if _, err := d.run(ctx, "umount", at); err != nil {
			return "", err
		}
	}
}

// isMountOf tells whether what is mounted at the mount point is the pool: by its mark, or, before it
// has one, by its source.
func (d *btrfsDriver) isMountOf(p Pool, source string) (bool, error) {
	if m, marked, err := readMark(d.mountpoint(p)); err != nil || marked {
		return m.isOf(p), err
	}
	if !d.isLoop(p) {
		return resolve(source) == resolve(p.Config["source"]), nil
	}
	if !d.ownsLoop(p) {
		return false, nil
	}
	device, err := loopDevice(d.loopFile(p))
	return source == device, err
}

// removeSource removes what the pool lay on.
func (d *btrfsDriver) removeSource(ctx context.Context, p Pool) (kept string, err error) {
	source := p.Config["source"]
	if d.isLoop(p) {
		return d.removeLoop(ctx, d.run, p)
	}
	if !isBlockDevice(source) {
		return fmt.Sprintf("the source '%s' isn't there; what is on it stays", source), nil
	}
	has, err := d.run(ctx, "blkid", "--probe", "--output", "value", "--match-tag", "LABEL", source)
	switch {
	case err == nil && strings.TrimSpace(has) == label(p):
		_, err = d.run(ctx, "wipefs", "--all", source)
		return "", err
	case err != nil && !saidNo(err):
		return "", err
	}
	return fmt.Sprintf("the device '%s' has no label of the pool's", source), nil
}

// removeSubvolumes removes a subvolume of ours and those in it.
func (d *btrfsDriver) removeSubvolumes(ctx context.Context, p Pool) (kept string, err error) {
	source := p.Config["source"]
	if err := d.removeTree(ctx, draft(filepath.Dir(source), p)); err != nil {
		return "", err
	}
	m, marked, err := readMark(source)
	switch {
	case err == nil && marked && m.isOf(p):
		return "", d.removeTree(ctx, source)
	case err == nil && marked:
		return fmt.Sprintf("'%s' is %s", source, m), nil
	case err != nil && !errors.Is(err, unix.ENOTDIR):
		return "", err
	}
	if _, err := os.Lstat(source); err == nil {
		kept = fmt.Sprintf("'%s' has no mark of the pool", source)
	}
	return kept, nil
}

// removeTree removes a subvolume of ours and those in it. The mark goes last, with the outermost.
func (d *btrfsDriver) removeTree(ctx context.Context, path string) error {
	volumes, err := os.ReadDir(filepath.Join(path, volumesFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, v := range volumes {
		volume := filepath.Join(path, volumesFolder, v.Name())
		if !isSubvolumeRoot(volume) {
			continue // it goes with the outermost
		}
		if err := d.removeSubvolume(ctx, volume); err != nil {
			return err
		}
	}
	return d.removeSubvolume(ctx, path)
}

// isSubvolumeRoot tells whether a path on a btrfs is a subvolume.
func isSubvolumeRoot(path string) bool {
	const rootInode = 256 // BTRFS_FIRST_FREE_OBJECTID
	var s unix.Stat_t
	return unix.Lstat(path, &s) == nil && s.Ino == rootInode
}

func (d *btrfsDriver) removeSubvolume(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := checkNoMounts(path); err != nil {
		return err
	}
	_, err := d.run(ctx, "btrfs", "subvolume", "delete", path)
	return err
}

func (d *btrfsDriver) resources(_ context.Context, p Pool) (*api.ResourcesStoragePool, error) {
	return measure(d.root(p))
}

func (d *btrfsDriver) volume(p Pool, v Volume) string {
	return filepath.Join(d.root(p), volumesFolder, v.directory())
}

func (d *btrfsDriver) checkVolume(_ context.Context, p Pool, v Volume) error {
	return checkFolderVolume(d.volume(p, v), v)
}

func (d *btrfsDriver) createVolume(ctx context.Context, p Pool, v Volume) error {
	path := d.volume(p, v)
	err := makeFolderVolume(path, v, func(path string) error {
		_, err := d.run(ctx, "btrfs", "subvolume", "create", path)
		return err
	})
	if err != nil {
		return err
	}
	return d.limit(ctx, p, path, v)
}

// limit makes the size of a file system volume its quota.
func (d *btrfsDriver) limit(ctx context.Context, p Pool, path string, v Volume) error {
	size := v.Config["size"]
	if v.ContentType == api.VolumeBlock || size == "" {
		return nil
	}
	bytes, err := ParseSize(size)
	if err != nil {
		return err
	}
	if _, err := d.run(ctx, "btrfs", "quota", "enable", d.root(p)); err != nil {
		return err
	}
	_, err = d.run(ctx, "btrfs", "qgroup", "limit", decimal(bytes), path)
	return err
}

func (d *btrfsDriver) updateVolume(ctx context.Context, p Pool, before, next Volume) error {
	if err := changeFolderVolume(d.volume(p, before), d.volume(p, next), before, next); err != nil {
		return err
	}
	if before.Config["size"] != "" && next.Config["size"] == "" && next.ContentType != api.VolumeBlock {
		_, err := d.run(ctx, "btrfs", "qgroup", "limit", "none", d.volume(p, next))
		return err
	}
	return d.limit(ctx, p, d.volume(p, next), next)
}

func (d *btrfsDriver) removeVolume(ctx context.Context, p Pool, v Volume) (kept string, err error) {
	return "", d.removeSubvolume(ctx, d.volume(p, v))
}
