package storage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"incusd/api"
)

// btrfsDriver makes a pool of a loop file, a block device, or a subvolume of a btrfs that is
// there. Volumes are subvolumes, with a quota where they have a size.
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

// label marks a file system as this pool's, so that no other one is ever wiped.
func label(p Pool) string { return "incus-" + p.ID }

func (d *btrfsDriver) check(ctx context.Context, p Pool) error {
	source := p.Config["source"]
	switch {
	case d.isLoop(p):
		if err := d.checkLoop(p); err != nil {
			return err
		}
		return checkEmpty(d.mountpoint(p))
	case isBlockDevice(source):
		return checkDevice(ctx, d.run, p)
	case strings.HasPrefix(source, "/dev/"):
		return api.Errorf(api.ConfigInvalid, "Source device '%s' doesn't exist on this member, or is no block device", source)
	case p.Config["size"] != "":
		return api.Errorf(api.ConfigInvalid, "Invalid option %q: a pool in %s has no size of its own", "size", source)
	}
	return checkSubvolume(source)
}

// checkSubvolume refuses a source that cannot become a subvolume.
func checkSubvolume(source string) error {
	if !filepath.IsAbs(source) {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' isn't absolute", source)
	}
	if _, err := os.Lstat(source); err == nil {
		return api.Errorf(api.ConfigInvalid, "Source path '%s' is there already", source).WithHint("give a path that does not exist, on a btrfs; the subvolume is made there")
	}
	parent := source
	for {
		parent = filepath.Dir(parent)
		if _, err := os.Stat(parent); err == nil || parent == "/" {
			break
		}
	}
	var s unix.Statfs_t
	if err := unix.Statfs(parent, &s); err != nil {
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
		if err := os.MkdirAll(filepath.Dir(source), 0o711); err != nil {
			return nil, err
		}
		_, err := d.run(ctx, "btrfs", "subvolume", "create", source)
		return map[string]string{"source": source}, err
	case isBlockDevice(source):
		if err := wipe(ctx, d.run, p); err != nil {
			return nil, err
		}
		if err := d.format(ctx, p, source); err != nil {
			return nil, err
		}
		return map[string]string{"source": source}, d.mount(ctx, p)
	}
	size, err := d.createLoop(p)
	if err != nil {
		return nil, err
	}
	if err := d.format(ctx, p, d.loopFile(p)); err != nil {
		return nil, err
	}
	return map[string]string{"source": d.loopFile(p), "size": FormatSize(size)}, d.mount(ctx, p)
}

func (d *btrfsDriver) format(ctx context.Context, p Pool, on string) error {
	args := []string{"--quiet", "--label", label(p)}
	args = append(args, strings.Fields(p.Config["btrfs.create_options"])...)
	_, err := d.run(ctx, "mkfs.btrfs", append(args, on)...)
	return err
}

func (d *btrfsDriver) mount(ctx context.Context, p Pool) error {
	if d.isSubvolume(p) {
		if _, err := os.Stat(p.Config["source"]); err != nil {
			return api.Errorf(api.Unavailable, "Source path '%s' doesn't exist", p.Config["source"])
		}
		return nil
	}
	at := d.mountpoint(p)
	if mounted, err := isMounted(at); err != nil || mounted {
		return err
	}
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

func (d *btrfsDriver) remove(ctx context.Context, p Pool) error {
	source := p.Config["source"]
	if d.isSubvolume(p) {
		return d.removeTree(ctx, source)
	}
	if err := unmount(ctx, d.run, d.mountpoint(p)); err != nil {
		return err
	}
	if d.isLoop(p) {
		return errors.Join(d.detachLoop(ctx, d.run, p), d.removeLoop(p))
	}
	if !isBlockDevice(source) {
		return nil
	}
	if has, err := d.run(ctx, "blkid", "--probe", "--output", "value", "--match-tag", "LABEL", source); err != nil || strings.TrimSpace(has) != label(p) {
		return nil // not ours: never made, or made anew by somebody else
	}
	_, err := d.run(ctx, "wipefs", "--all", source)
	return err
}

// removeTree removes a subvolume of ours and those in it.
func (d *btrfsDriver) removeTree(ctx context.Context, path string) error {
	volumes, err := os.ReadDir(filepath.Join(path, volumesFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, v := range volumes {
		if err := d.removeSubvolume(ctx, filepath.Join(path, volumesFolder, v.Name())); err != nil {
			return err
		}
	}
	return d.removeSubvolume(ctx, path)
}

func (d *btrfsDriver) removeSubvolume(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
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

func (d *btrfsDriver) removeVolume(ctx context.Context, p Pool, v Volume) error {
	return d.removeSubvolume(ctx, d.volume(p, v))
}
