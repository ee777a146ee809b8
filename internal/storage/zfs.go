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
// Volumes are datasets, those of blocks are zvols.
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

// mark is a property that tells a dataset as this pool's, so that no other one is ever removed.
const mark = "incus:pool"

func (d *zfsDriver) check(ctx context.Context, p Pool) error {
	name := d.dataset(p)
	if p.isNamed() {
		if !strings.Contains(name, "/") {
			if _, err := d.run(ctx, "zpool", "list", name); err != nil {
				return api.Errorf(api.ConfigInvalid, "The zpool '%s' doesn't exist: %v", name, err)
			}
		}
		out, err := d.run(ctx, "zfs", "list", "-H", "-r", "-o", "name", name)
		if err == nil && len(strings.Fields(out)) > 1 {
			return api.Errorf(api.ConfigInvalid, "The dataset '%s' isn't empty", name)
		}
		return nil
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

func (d *zfsDriver) create(ctx context.Context, p Pool) (map[string]string, error) {
	name := d.dataset(p)
	chosen := map[string]string{"zfs.pool_name": name, "source": name}
	if p.isNamed() {
		if _, err := d.run(ctx, "zfs", "list", "-H", name); err != nil {
			_, err = d.run(ctx, "zfs", "create", "-p", "-o", "mountpoint=legacy", name)
			if err != nil {
				return nil, err
			}
		}
	} else if err := d.createPool(ctx, p, chosen); err != nil {
		return nil, err
	}
	if _, err := d.run(ctx, "zfs", "set", mark+"="+p.ID, name); err != nil {
		return nil, err
	}
	_, err := d.run(ctx, "zfs", "create", "-o", "mountpoint=none", name+"/"+volumesFolder)
	return chosen, err
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
	_, err := d.run(ctx, "zpool", "create", "-m", "none", "-O", "compression=on", d.dataset(p), on)
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
	_, err := d.run(ctx, "zpool", append(args, name)...)
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

func (d *zfsDriver) remove(ctx context.Context, p Pool) error {
	name := d.dataset(p)
	if out, err := d.run(ctx, "zfs", "get", "-H", "-o", "value", mark, name); err == nil {
		switch ours := strings.TrimSpace(out) == p.ID; {
		case p.isNamed() && !ours:
		case p.isNamed():
			err = d.emptyDataset(ctx, p)
		case ours || d.isLoop(p):
			_, err = d.run(ctx, "zpool", "destroy", "-f", name)
		}
		if err != nil {
			return err
		}
	}
	if !d.isLoop(p) {
		return nil
	}
	return d.removeLoop(p)
}

// emptyDataset removes what the pool made in a dataset; a zpool that was there before it stays.
func (d *zfsDriver) emptyDataset(ctx context.Context, p Pool) error {
	name := d.dataset(p)
	if strings.Contains(name, "/") {
		_, err := d.run(ctx, "zfs", "destroy", "-r", name)
		return err
	}
	if _, err := d.run(ctx, "zfs", "destroy", "-r", name+"/"+volumesFolder); err != nil {
		return err
	}
	_, err := d.run(ctx, "zfs", "inherit", mark, name)
	return err
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

func (d *zfsDriver) createVolume(ctx context.Context, p Pool, v Volume) error {
	if v.ContentType == api.VolumeBlock {
		size, err := blockSize(v)
		if err != nil {
			return err
		}
		_, err = d.run(ctx, "zfs", "create", "-s", "-V", decimal(size), d.volume(p, v))
		return err
	}
	if _, err := d.run(ctx, "zfs", "create", "-o", "mountpoint=legacy", d.volume(p, v)); err != nil {
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

func (d *zfsDriver) removeVolume(ctx context.Context, p Pool, v Volume) error {
	if _, err := d.run(ctx, "zfs", "list", "-H", d.volume(p, v)); err != nil {
		return nil // it is not there
	}
	_, err := d.run(ctx, "zfs", "destroy", "-r", d.volume(p, v))
	return err
}
