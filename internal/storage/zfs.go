package storage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"incusd/api"
)

// zfsDriver makes a pool of a zpool in a loop file or on a block device, or of an empty dataset.
// Volumes are datasets, those of blocks are zvols. Properties say what is the pool's: each dataset
// that the driver makes has them from its beginning.
type zfsDriver struct {
	place
	run runner
}

func (d *zfsDriver) available(ctx context.Context) (string, error) {
	if err := errors.Join(asRoot(), tools("zfs", "zpool")); err != nil {
		return "", err
	}
	if !kernelHas(ctx, "zfs", d.run) {
		return "", errors.New("the kernel has no zfs")
	}
	out, err := d.run(ctx, "zfs", "version", "-k")
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimSpace(out), "zfs-kmod-"), nil
}

// dataset is what all volumes are below of.
func (d *zfsDriver) dataset(p Pool) string {
	switch {
	case p.Config["zfs.pool_name"] != "":
		return p.Config["zfs.pool_name"]
	case p.isNamed():
		return p.Config["source"]
	}
	return p.Name
}

const (
	// usedBy is a property of the dataset that a pool uses. Those below inherit it.
	usedBy = "incus:pool"
	// madeBy is a property of each dataset that a pool has made: only they are removed with it.
	madeBy = "incus:made"
)

// has tells whether a dataset has this pool's key as its own property, not an inherited one. It fails
// where there is none.
func (d *zfsDriver) has(ctx context.Context, p Pool, property, name string) (bool, error) {
	out, err := d.run(ctx, "zfs", "get", "-H", "-s", "local", "-o", "value", property, name)
	return strings.TrimSpace(out) == p.key(), err
}

func (d *zfsDriver) check(ctx context.Context, p Pool) error {
	name := d.dataset(p)
	if p.isNamed() {
		return d.checkDataset(ctx, name)
	}
	if _, err := d.run(ctx, "zpool", "list", name); err == nil {
		return api.Errorf(api.Conflict, "The zpool '%s' is there already", name).WithHint("choose another zfs.pool_name, or give the zpool as source")
	}
	if d.isLoop(p) {
		return d.checkLoop(p)
	}
	if !isBlockDevice(p.Config["source"]) {
		return api.Errorf(api.ConfigInvalid, "The source '%s' is neither a block device nor a dataset", p.Config["source"])
	}
	return checkDevice(ctx, d.run, p)
}

// checkDataset refuses a dataset, there or to be made, that the pool cannot have.
func (d *zfsDriver) checkDataset(ctx context.Context, name string) error {
	over := name // what is there: the dataset, or the one that it is made in
	out, err := d.run(ctx, "zfs", "list", "-H", "-r", "-o", "name", name)
	parent, _, below := cutLast(name, "/")
	switch {
	case err == nil && len(strings.Fields(out)) > 1:
		return api.Errorf(api.ConfigInvalid, "The dataset '%s' isn't empty", name).WithHint("choose an empty one, or one that does not exist; nothing in it was touched")
	case err != nil && !below:
		return api.Errorf(api.ConfigInvalid, "The zpool '%s' doesn't exist: %v", name, err)
	case err != nil:
		over = parent
	}
	owner, err := d.run(ctx, "zfs", "get", "-H", "-o", "value", usedBy, over)
	if err != nil {
		return api.Errorf(api.ConfigInvalid, "The dataset '%s' doesn't exist: %v", over, err).WithHint("make it first; the pool's dataset is made in it")
	}
	if owner = strings.TrimSpace(owner); owner != "" && owner != "-" {
		return api.Errorf(api.Conflict, "The dataset '%s' is of another storage pool, or lies in one: its property %s is %s", name, usedBy, owner).
			WithHint("choose another dataset, or delete that storage pool first")
	}
	return nil
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	at := strings.LastIndex(s, separator)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+len(separator):], true
}

func (d *zfsDriver) create(ctx context.Context, p Pool) (map[string]string, error) {
	name := d.dataset(p)
	chosen := map[string]string{"zfs.pool_name": name, "source": name}
	if p.isNamed() {
		if err := d.takeDataset(ctx, p, name); err != nil {
			return nil, err
		}
	} else if err := d.createPool(ctx, p, chosen); err != nil {
		return nil, err
	}
	_, err := d.run(ctx, "zfs", "create", "-o", "mountpoint=none", "-o", madeBy+"="+p.key(), name+"/"+volumesFolder)
	return chosen, err
}

// takeDataset marks a dataset that is there, or makes one in another that is.
func (d *zfsDriver) takeDataset(ctx context.Context, p Pool, name string) error {
	if _, err := d.run(ctx, "zfs", "list", "-H", name); err == nil {
		_, err = d.run(ctx, "zfs", "set", usedBy+"="+p.key(), name)
		return err
	}
	_, err := d.run(ctx, "zfs", "create", "-o", "mountpoint=legacy", "-o", usedBy+"="+p.key(), "-o", madeBy+"="+p.key(), name)
	return err
}

func (d *zfsDriver) createPool(ctx context.Context, p Pool, chosen map[string]string) error {
	on := p.Config["source"]
	if d.isLoop(p) {
		size, err := d.createLoop(p)
		if err != nil {
			return err
		}
		on = d.loopFile(p)
		chosen["size"], chosen["source"] = FormatSize(size), on
	} else if err := wipe(ctx, d.run, p); err != nil {
		return err
	}
	_, err := d.run(ctx, "zpool", "create", "-m", "none", "-O", "compression=on", "-O", usedBy+"="+p.key(), "-O", madeBy+"="+p.key(), d.dataset(p), on)
	return err
}

func (d *zfsDriver) mount(ctx context.Context, p Pool) error {
	if _, err := d.run(ctx, "zfs", "list", "-H", d.dataset(p)); err == nil {
		return nil
	}
	name, _, _ := strings.Cut(d.dataset(p), "/")
	args := []string{"import"}
	if d.isLoop(p) {
		args = append(args, "-d", d.loopFile(p))
	}
	if _, err := d.run(ctx, "zpool", append(args, name)...); err != nil {
		return err
	}
	if why := d.present(ctx, p); why != nil { // somebody else's of that name
		_, err := d.run(ctx, "zpool", "export", name)
		return errors.Join(why, err)
	}
	return nil
}

func (d *zfsDriver) present(ctx context.Context, p Pool) error {
	ours, err := d.has(ctx, p, usedBy, d.dataset(p))
	switch {
	case saidNo(err):
		return api.Errorf(api.Unavailable, "The dataset '%s' isn't there: %v", d.dataset(p), err).WithHint("attach its disk; the pool comes back by itself")
	case err == nil && !ours:
		return api.Errorf(api.Unavailable, "The dataset '%s' isn't the storage pool %q: its property %s is not %s", d.dataset(p), p.Name, usedBy, p.key()).
			WithHint("attach the right disk; the pool comes back by itself")
	}
	return err
}

func (d *zfsDriver) update(ctx context.Context, before, next Pool) (map[string]string, error) {
	grown, _, err := d.growLoop(ctx, d.run, before, next)
	if err != nil || !grown {
		return nil, err
	}
	_, err = d.run(ctx, "zpool", "online", "-e", d.dataset(next), d.loopFile(next))
	return nil, err
}

// remove goes by the properties alone: the keys may say by now that another dataset is the pool's.
func (d *zfsDriver) remove(ctx context.Context, p Pool) (kept string, err error) {
	kept, err = d.removeDataset(ctx, p)
	if err != nil || !d.isLoop(p) {
		return kept, err
	}
	also, err := d.removeLoop(ctx, d.run, p)
	return both(kept, also), err
}

func (d *zfsDriver) removeDataset(ctx context.Context, p Pool) (kept string, err error) {
	name := d.dataset(p)
	used, err := d.has(ctx, p, usedBy, name)
	switch {
	case saidNo(err):
		return "", nil // it is not there
	case err != nil:
		return "", err
	case !used:
		return fmt.Sprintf("the dataset '%s' has no property of the pool's", name), nil
	}
	made, err := d.has(ctx, p, madeBy, name)
	switch {
	case err != nil:
		return "", err
	case !made:
		return d.emptyDataset(ctx, p)
	case strings.Contains(name, "/"):
		_, err = d.run(ctx, "zfs", "destroy", "-r", name)
		return "", err
	}
	_, err = d.run(ctx, "zpool", "destroy", "-f", name)
	return "", err
}

// emptyDataset removes what the pool made in a dataset that was there before it.
func (d *zfsDriver) emptyDataset(ctx context.Context, p Pool) (kept string, err error) {
	name := d.dataset(p)
	kept, err = d.destroyMade(ctx, p, name+"/"+volumesFolder)
	if err != nil {
		return kept, err
	}
	_, err = d.run(ctx, "zfs", "inherit", usedBy, name)
	return kept, err
}

// destroyMade destroys a dataset that the pool has made.
func (d *zfsDriver) destroyMade(ctx context.Context, p Pool, name string) (kept string, err error) {
	made, err := d.has(ctx, p, madeBy, name)
	switch {
	case saidNo(err):
		return "", nil // it is not there
	case err != nil:
		return "", err
	case !made:
		return fmt.Sprintf("the dataset '%s' has no property of the pool's", name), nil
	}
	_, err = d.run(ctx, "zfs", "destroy", "-r", name)
	return "", err
}

func (d *zfsDriver) resources(ctx context.Context, p Pool) (*api.ResourcesStoragePool, error) {
	out, err := d.run(ctx, "zfs", "get", "-H", "-p", "-o", "value", "used,available", d.dataset(p))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(out)
	if len(fields) != 2 {
		return nil, fmt.Errorf("zfs get: two numbers are needed in %q", out)
	}
	used, err := strconv.ParseUint(fields[0], 10, 64)
	left, err2 := strconv.ParseUint(fields[1], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return &api.ResourcesStoragePool{Space: api.ResourcesStoragePoolSpace{Used: used, Total: used + left}}, nil
}

func (d *zfsDriver) volume(p Pool, v Volume) string {
	return d.dataset(p) + "/" + volumesFolder + "/" + v.directory()
}

func (d *zfsDriver) checkVolume(ctx context.Context, p Pool, v Volume) error {
	if _, err := d.run(ctx, "zfs", "list", "-H", d.volume(p, v)); err == nil {
		return api.Errorf(api.Conflict, "The storage volume %q cannot be made: the dataset '%s' is there already", v.Name, d.volume(p, v)).
			WithHint("rename it, or choose another name; nothing in it was touched")
	}
	return nil
}

func (d *zfsDriver) createVolume(ctx context.Context, p Pool, v Volume) error {
	made := madeBy + "=" + p.key()
	if v.ContentType == api.VolumeBlock {
		size, err := blockSize(v)
		if err != nil {
			return err
		}
		_, err = d.run(ctx, "zfs", "create", "-s", "-o", made, "-V", decimal(size), d.volume(p, v))
		return err
	}
	if _, err := d.run(ctx, "zfs", "create", "-o", "mountpoint=legacy", "-o", made, d.volume(p, v)); err != nil {
		return err
	}
	return d.limit(ctx, p, v)
}

func (d *zfsDriver) limit(ctx context.Context, p Pool, v Volume) error {
	quota := "none"
	if text := v.Config["size"]; text != "" {
		size, err := ParseSize(text)
		if err != nil {
			return err
		}
		quota = decimal(size)
	}
	_, err := d.run(ctx, "zfs", "set", "quota="+quota, d.volume(p, v))
	return err
}

func (d *zfsDriver) updateVolume(ctx context.Context, p Pool, before, next Volume) error {
	if from, to := d.volume(p, before), d.volume(p, next); from != to {
		if _, err := d.run(ctx, "zfs", "rename", from, to); err != nil {
			return err
		}
	}
	if next.ContentType != api.VolumeBlock {
		return d.limit(ctx, p, next)
	}
	size, err := blockSize(next)
	if err != nil {
		return err
	}
	_, err = d.run(ctx, "zfs", "set", "volsize="+decimal(size), d.volume(p, next))
	return err
}

func (d *zfsDriver) removeVolume(ctx context.Context, p Pool, v Volume) (kept string, err error) {
	return d.destroyMade(ctx, p, d.volume(p, v))
}
