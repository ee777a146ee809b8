package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"incusd/api"
)

// lvmDriver makes a pool of a volume group: in a loop file, on a block device, or one that is
// there. Volumes are logical volumes, thin ones unless lvm.use_thinpool is false. Tags say what is
// the pool's: each thing that the driver makes has one from its beginning.
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

// tagPrefix is what the tags of all pools begin with.
const tagPrefix = "incus-"

// tag is on a group that the pool uses, and on the thin pool and the volumes that it has made.
func (d *lvmDriver) tag(p Pool) string { return tagPrefix + p.key() }

// madeTag is on a group that the pool has made as well: only that is removed with the pool.
func (d *lvmDriver) madeTag(p Pool) string { return tagPrefix + "made-" + p.key() }

// tags lists those of a volume group, or, with "/" in the name, of a logical volume. It fails where
// there is none.
func (d *lvmDriver) tags(ctx context.Context, name string) ([]string, error) {
	tool, column := "vgs", "vg_tags"
	if strings.Contains(name, "/") {
		tool, column = "lvs", "lv_tags"
	}
	out, err := d.run(ctx, tool, "--noheadings", "-o", column, name)
	return strings.FieldsFunc(out, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }), err
}

func (d *lvmDriver) check(ctx context.Context, p Pool) error {
	group := d.group(p)
	tags, err := d.tags(ctx, group)
	if p.isNamed() {
		if err != nil {
			return api.Errorf(api.ConfigInvalid, "The volume group '%s' doesn't exist: %v", group, err)
		}
		return d.checkGroup(ctx, p, tags)
	}
	if err == nil {
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

// checkGroup refuses a group that is there and that the pool cannot share.
func (d *lvmDriver) checkGroup(ctx context.Context, p Pool, tags []string) error {
	group := d.group(p)
	if at := slices.IndexFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, tagPrefix) }); at >= 0 {
		return api.Errorf(api.Conflict, "The volume group '%s' is of another storage pool: it has the tag %s", group, tags[at]).
			WithHint("choose another group, or delete that storage pool first")
	}
	count, err := d.run(ctx, "vgs", "--noheadings", "-o", "lv_count", group)
	if err != nil {
		return err
	}
	if strings.TrimSpace(count) != "0" && p.Config["lvm.vg.force_reuse"] != "true" {
		return api.Errorf(api.ConfigInvalid, "The volume group '%s' isn't empty", group).WithHint("choose an empty one, or set lvm.vg.force_reuse=true")
	}
	_, err = d.hasThinPool(ctx, p)
	return err
}

// hasThinPool tells whether the pool's thin pool was there before it, in a group that was. It fails
// when something else has that name.
func (d *lvmDriver) hasThinPool(ctx context.Context, p Pool) (bool, error) {
	thin := d.thinPool(p)
	if thin == "" || !p.isNamed() {
		return false, nil
	}
	attributes, err := d.run(ctx, "lvs", "--noheadings", "-o", "lv_attr", d.group(p)+"/"+thin)
	if err != nil {
		return false, nil // lvcreate refuses if it is there after all
	}
	if !strings.HasPrefix(strings.TrimSpace(attributes), "t") {
		return false, api.Errorf(api.ConfigInvalid, "The logical volume '%s/%s' is no thin pool", d.group(p), thin).WithHint("choose another lvm.thinpool_name")
	}
	return true, nil
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
	if there, err := d.hasThinPool(ctx, p); err != nil || there {
		return chosen, err
	}
	return chosen, d.createThinPool(ctx, p, group, thin)
}

func (d *lvmDriver) createThinPool(ctx context.Context, p Pool, group, thin string) error {
	args := []string{"--yes", "--wipesignatures", "y", "--addtag", d.tag(p), "--thinpool", group + "/" + thin, "--extents", "100%FREE"}
	if size := p.Config["lvm.thinpool_metadata_size"]; size != "" {
		bytes, err := ParseSize(size)
		if err != nil {
			return err
		}
		args = append(args, "--poolmetadatasize", decimal(bytes)+"B")
	}
	_, err := d.run(ctx, "lvcreate", args...)
	return err
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
	args := []string{"--addtag", d.tag(p), "--addtag", d.madeTag(p)}
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

func (d *lvmDriver) present(ctx context.Context, p Pool) error {
	tags, err := d.tags(ctx, d.group(p))
	switch {
	case saidNo(err):
		return api.Errorf(api.Unavailable, "The volume group '%s' isn't there: %v", d.group(p), err).WithHint("attach its disk; the pool comes back by itself")
	case err == nil && !slices.Contains(tags, d.tag(p)):
		return api.Errorf(api.Unavailable, "The volume group '%s' isn't the storage pool %q: it lacks the tag %s", d.group(p), p.Name, d.tag(p)).
			WithHint("attach the right disk; the pool comes back by itself")
	}
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

// remove goes by the tags alone: the keys may say by now that another group is the pool's.
func (d *lvmDriver) remove(ctx context.Context, p Pool) (kept string, err error) {
	group := d.group(p)
	tags, err := d.tags(ctx, group)
	switch {
	case err != nil && !saidNo(err):
		return "", err
	case err != nil: // it is not there
	case slices.Contains(tags, d.madeTag(p)):
		if _, err := d.run(ctx, "vgremove", "--force", group); err != nil {
			return "", err
		}
	case slices.Contains(tags, d.tag(p)):
		return d.emptyGroup(ctx, p)
	default:
		kept = fmt.Sprintf("the volume group '%s' has no tag of the pool's", group)
	}
	if d.isLoop(p) {
		also, err := d.removeLoop(ctx, d.run, p)
		return both(kept, also), err
	}
	return kept, d.freeDevice(ctx, p)
}

// emptyGroup removes what the pool made in a group that was there before it.
func (d *lvmDriver) emptyGroup(ctx context.Context, p Pool) (kept string, err error) {
	if thin := d.thinPool(p); thin != "" {
		if kept, err = d.removeLogical(ctx, p, d.group(p)+"/"+thin); err != nil {
			return kept, err
		}
	}
	_, err = d.run(ctx, "vgchange", "--deltag", d.tag(p), d.group(p))
	return kept, err
}

// removeLogical removes a thin pool or volume that the pool has made.
func (d *lvmDriver) removeLogical(ctx context.Context, p Pool, name string) (kept string, err error) {
	tags, err := d.tags(ctx, name)
	switch {
	case saidNo(err):
		return "", nil // it is not there
	case err != nil:
		return "", err
	case !slices.Contains(tags, d.tag(p)):
		return fmt.Sprintf("the logical volume '%s' has no tag of the pool's", name), nil
	}
	_, err = d.run(ctx, "lvremove", "--force", name)
	return "", err
}

// freeDevice makes a block device empty again. A physical volume without a group holds nothing.
func (d *lvmDriver) freeDevice(ctx context.Context, p Pool) error {
	device := p.asked()
	if !strings.HasPrefix(device, "/") {
		return nil
	}
	group, err := d.run(ctx, "pvs", "--noheadings", "-o", "vg_name", device)
	if saidNo(err) || err == nil && strings.TrimSpace(group) != "" {
		return nil // it is no physical volume, or a group's
	}
	if err != nil {
		return err
	}
	_, err = d.run(ctx, "pvremove", "--yes", device)
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

func (d *lvmDriver) checkVolume(ctx context.Context, p Pool, v Volume) error {
	name := d.group(p) + "/" + d.logical(v)
	if _, err := d.tags(ctx, name); err == nil {
		return api.Errorf(api.Conflict, "The storage volume %q cannot be made: the logical volume '%s' is there already", v.Name, name).
			WithHint("rename it, or choose another name; nothing in it was touched")
	}
	return nil
}

func (d *lvmDriver) createVolume(ctx context.Context, p Pool, v Volume) error {
	size, err := blockSize(v)
	if err != nil {
		return err
	}
	args := []string{"--yes", "--wipesignatures", "y", "--addtag", d.tag(p), "--name", d.logical(v)}
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

func (d *lvmDriver) removeVolume(ctx context.Context, p Pool, v Volume) (kept string, err error) {
	return d.removeLogical(ctx, p, d.group(p)+"/"+d.logical(v))
}
