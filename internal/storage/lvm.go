package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"incusd/api"
)

// lvmDriver makes a pool of a volume group: in a loop file, on a block device, or one that is
// there. Volumes are logical volumes, thin ones unless lvm.use_thinpool is false.
type lvmDriver struct {
	place
	run runner
}

// defaultThinPool is the thin pool's name unless lvm.thinpool_name says otherwise.
const defaultThinPool = "IncusThinPool"

func (d *lvmDriver) available(ctx context.Context) (string, error) {
	if err := errors.Join(asRoot(), tools("lvm", "vgcreate", "lvcreate", "mkfs.ext4", "resize2fs", "losetup", "wipefs")); err != nil {
		return "", err
	}
	devices, err := os.ReadFile("/proc/misc")
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(devices), "device-mapper") {
		if _, err := d.run(ctx, "modprobe", "dm-mod"); err != nil {
			return "", errors.New("the kernel has no device-mapper")
		}
	}
	out, err := d.run(ctx, "lvm", "version")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if name, version, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "LVM version" {
			return strings.TrimSpace(version), nil
		}
	}
	return strings.TrimSpace(out), nil
}

// group is the name of the volume group.
func (d *lvmDriver) group(p Pool) string {
	switch {
	case p.Config["lvm.vg_name"] != "":
		return p.Config["lvm.vg_name"]
	case p.isNamed():
		return p.Config["source"]
	}
	return p.Name
}

func (d *lvmDriver) thinPool(p Pool) string {
	switch {
	case p.Config["lvm.use_thinpool"] == "false":
		return ""
	case p.Config["lvm.thinpool_name"] != "":
		return p.Config["lvm.thinpool_name"]
	}
	return defaultThinPool
}

// tag marks a group as this pool's, so that no other one is ever removed.
func (d *lvmDriver) tag(p Pool) string { return "incus-" + p.ID }

func (d *lvmDriver) exists(ctx context.Context, name string) bool {
	_, err := d.run(ctx, "vgs", "--noheadings", "-o", "vg_name", name)
	return err == nil
}

func (d *lvmDriver) check(ctx context.Context, p Pool) error {
	group := d.group(p)
	if p.isNamed() {
		out, err := d.run(ctx, "vgs", "--noheadings", "-o", "lv_count", group)
		switch {
		case err != nil:
			return api.Errorf(api.ConfigInvalid, "The volume group '%s' doesn't exist: %v", group, err)
		case strings.TrimSpace(out) != "0" && p.Config["lvm.vg.force_reuse"] != "true":
			return api.Errorf(api.ConfigInvalid, "The volume group '%s' isn't empty", group).WithHint("choose an empty one, or set lvm.vg.force_reuse=true")
		}
		return nil
	}
	if d.exists(ctx, group) {
		return api.Errorf(api.Conflict, "The volume group '%s' is there already", group).WithHint("choose another lvm.vg_name, or give the group as source")
	}
	if d.isLoop(p) {
		return d.checkLoop(p)
	}
	if !isBlockDevice(p.Config["source"]) {
		return api.Errorf(api.ConfigInvalid, "The source '%s' is neither a block device nor a volume group", p.Config["source"])
	}
	return checkDevice(ctx, d.run, p)
}

func (d *lvmDriver) create(ctx context.Context, p Pool) (map[string]string, error) {
	group := d.group(p)
	chosen := map[string]string{"lvm.vg_name": group, "source": group}
	if p.isNamed() {
		if _, err := d.run(ctx, "vgchange", "--addtag", d.tag(p), group); err != nil {
			return nil, err
		}
	} else if err := d.createGroup(ctx, p, chosen); err != nil {
		return nil, err
	}
	thin := d.thinPool(p)
	if thin == "" {
		return chosen, nil
	}
	chosen["lvm.thinpool_name"] = thin
	args := []string{"--yes", "--wipesignatures", "y", "--thinpool", group + "/" + thin, "--extents", "100%FREE"}
	if size := p.Config["lvm.thinpool_metadata_size"]; size != "" {
		bytes, err := ParseSize(size)
		if err != nil {
			return nil, err
		}
		args = append(args, "--poolmetadatasize", decimal(bytes)+"B")
	}
	_, err := d.run(ctx, "lvcreate", args...)
	return chosen, err
}

func (d *lvmDriver) createGroup(ctx context.Context, p Pool, chosen map[string]string) error {
	device := p.Config["source"]
	if d.isLoop(p) {
		size, err := d.createLoop(p)
		if err != nil {
			return err
		}
		if device, err = d.attachLoop(ctx, d.run, p); err != nil {
			return err
		}
		chosen["size"], chosen["source"] = FormatSize(size), d.loopFile(p)
	} else if err := wipe(ctx, d.run, p); err != nil {
		return err
	}
	args := []string{"--addtag", d.tag(p)}
	if size := p.Config["lvm.metadata_size"]; size != "" {
		bytes, err := ParseSize(size)
		if err != nil {
			return err
		}
		args = append(args, "--metadatasize", decimal(bytes)+"B")
	}
	_, err := d.run(ctx, "vgcreate", append(args, d.group(p), device)...)
	return err
}

func (d *lvmDriver) mount(ctx context.Context, p Pool) error {
	if d.isLoop(p) {
		if _, err := d.attachLoop(ctx, d.run, p); err != nil {
			return err
		}
	}
	_, err := d.run(ctx, "vgchange", "--activate", "y", d.group(p))
	return err
}

func (d *lvmDriver) update(ctx context.Context, before, next Pool) (map[string]string, error) {
	grown, device, err := d.growLoop(ctx, d.run, before, next)
	if err != nil || !grown {
		return nil, err
	}
	if _, err := d.run(ctx, "pvresize", device); err != nil {
		return nil, err
	}
	if thin := d.thinPool(next); thin != "" {
		_, err = d.run(ctx, "lvextend", "--extents", "+100%FREE", d.group(next)+"/"+thin)
	}
	return nil, err
}

func (d *lvmDriver) remove(ctx context.Context, p Pool) error {
	group := d.group(p)
	tags, err := d.run(ctx, "vgs", "--noheadings", "-o", "vg_tags", group)
	if ours := err == nil && strings.Contains(tags, d.tag(p)); ours {
		if p.isNamed() {
			err = d.emptyGroup(ctx, p)
		} else {
			_, err = d.run(ctx, "vgremove", "--force", group)
		}
		if err != nil {
			return err
		}
	}
	if !d.isLoop(p) {
		return nil
	}
	return errors.Join(d.detachLoop(ctx, d.run, p), d.removeLoop(p))
}

// emptyGroup removes what the pool made in a group that was there before it.
func (d *lvmDriver) emptyGroup(ctx context.Context, p Pool) error {
	if thin := d.thinPool(p); thin != "" {
		if _, err := d.run(ctx, "lvremove", "--force", d.group(p)+"/"+thin); err != nil {
			return err
		}
	}
	_, err := d.run(ctx, "vgchange", "--deltag", d.tag(p), d.group(p))
	return err
}

func (d *lvmDriver) resources(ctx context.Context, p Pool) (*api.ResourcesStoragePool, error) {
	args := []string{"vgs", "--noheadings", "--nosuffix", "--units", "b", "-o", "vg_size,vg_free", d.group(p)}
	thin := d.thinPool(p)
	if thin != "" {
		args = []string{"lvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "lv_size,data_percent", d.group(p) + "/" + thin}
	}
	out, err := d.run(ctx, args[0], args[1:]...)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(out)
	if len(fields) != 2 {
		return nil, fmt.Errorf("%s: two numbers are needed in %q", args[0], out)
	}
	total, err := strconv.ParseFloat(fields[0], 64)
	other, err2 := strconv.ParseFloat(fields[1], 64)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	used := total - other
	if thin != "" {
		used = total * other / 100
	}
	return &api.ResourcesStoragePool{Space: api.ResourcesStoragePoolSpace{Used: uint64(used), Total: uint64(total)}}, nil
}

// logical is a volume's name in the group: dashes in names are doubled, as the tools' own are.
func (d *lvmDriver) logical(v Volume) string {
	return volumesFolder + "_" + strings.ReplaceAll(v.directory(), "-", "--")
}

func (d *lvmDriver) mounted(p Pool, v Volume) string {
	return filepath.Join(d.mountpoint(p), volumesFolder, v.directory())
}

func (d *lvmDriver) createVolume(ctx context.Context, p Pool, v Volume) error {
	size, err := blockSize(v)
	if err != nil {
		return err
	}
	args := []string{"--yes", "--wipesignatures", "y", "--name", d.logical(v)}
	if thin := d.thinPool(p); thin != "" {
		args = append(args, "--virtualsize", decimal(size)+"B", "--thinpool", d.group(p)+"/"+thin)
	} else {
		args = append(args, "--size", decimal(size)+"B", d.group(p))
	}
	if _, err := d.run(ctx, "lvcreate", args...); err != nil || v.ContentType == api.VolumeBlock {
		return err
	}
	_, err = d.run(ctx, "mkfs.ext4", "-q", "-E", "nodiscard", d.device(p, v))
	return err
}

func (d *lvmDriver) device(p Pool, v Volume) string {
	return filepath.Join("/dev", d.group(p), d.logical(v))
}

func (d *lvmDriver) updateVolume(ctx context.Context, p Pool, before, next Volume) error {
	if d.logical(before) != d.logical(next) {
		if _, err := d.run(ctx, "lvrename", d.group(p), d.logical(before), d.logical(next)); err != nil {
			return err
		}
	}
	if before.Config["size"] == next.Config["size"] {
		return nil
	}
	size, err := blockSize(next)
	if err != nil {
		return err
	}
	args := []string{"--size", decimal(size) + "B"}
	if next.ContentType != api.VolumeBlock {
		args = append(args, "--resizefs")
	}
	_, err = d.run(ctx, "lvextend", append(args, d.group(p)+"/"+d.logical(next))...)
	return err
}

func (d *lvmDriver) removeVolume(ctx context.Context, p Pool, v Volume) error {
	if err := unmount(ctx, d.run, d.mounted(p, v)); err != nil {
		return err
	}
	if _, err := d.run(ctx, "lvs", "--noheadings", d.group(p)+"/"+d.logical(v)); err != nil {
		return nil // it is not there
	}
	_, err := d.run(ctx, "lvremove", "--force", d.group(p)+"/"+d.logical(v))
	return err
}
