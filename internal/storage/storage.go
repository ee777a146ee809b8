package storage

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"incusd/api"
)

// A Pool is what the cluster wants of a storage pool on this machine.
type Pool struct {
	// ID is a UUID that no other pool has or had.
	ID string
	// Owner tells this machine's part of the pool from those of other machines, which have the same
	// ID and may see the same disk.
	Owner        string
	Name, Driver string
	// Config has the cluster-wide and this member's own keys, as ValidatePool let them through.
	Config map[string]string
}

// key names this machine's part of the pool as nothing else is or was named.
func (p Pool) key() string { return p.Owner + "-" + p.ID }

// A Volume is a custom volume of a pool.
type Volume struct {
	ID, Project, Name string
	// ContentType is api.VolumeFilesystem or api.VolumeBlock.
	ContentType string
	Config      map[string]string
}

// directory is what the volume is called on disk: no project or volume name has an underscore and
// a slash.
func (v Volume) directory() string { return v.Project + "_" + v.Name }

// Config is what a Manager works with.
type Config struct {
	// Dir is the state directory; pools are mounted at Dir/storage-pools/NAME and loop files
	// are Dir/disks/NAME.img.
	Dir string
	// Log is told what a removal has left alone; nil for nobody.
	Log *slog.Logger
}

// A driver makes one kind of pool. Its methods are called one at a time, but for resources and
// present. See Manager for what each of them promises; of a pool that is not present only mount and
// remove are called.
type driver interface {
	// available returns the driver's version, or says why it cannot be used here.
	available(ctx context.Context) (version string, err error)
	check(ctx context.Context, p Pool) error
	create(ctx context.Context, p Pool) (chosen map[string]string, err error)
	mount(ctx context.Context, p Pool) error
	// present says why what is where the pool should be is not the pool: api.Unavailable.
	present(ctx context.Context, p Pool) error
	update(ctx context.Context, before, next Pool) (chosen map[string]string, err error)
	// remove and removeVolume say what they have kept, since it is not the pool's.
	remove(ctx context.Context, p Pool) (kept string, err error)
	resources(ctx context.Context, p Pool) (*api.ResourcesStoragePool, error)
	checkVolume(ctx context.Context, p Pool, v Volume) error
	createVolume(ctx context.Context, p Pool, v Volume) error
	updateVolume(ctx context.Context, p Pool, before, next Volume) error
	removeVolume(ctx context.Context, p Pool, v Volume) (kept string, err error)
}

// A Manager makes storage pools and volumes true on this machine. Its methods may be called from
// any goroutine; work is done in turn.
type Manager struct {
	cfg     Config
	drivers map[string]driver
	mu      sync.Mutex // one change at a time

	probing    sync.Mutex // guards what was found out last
	found      []api.StorageDriverInfo
	foundAt    time.Time
	refreshing bool
}

// foundTime is how long Supported goes by what it has found out: finding out calls tools.
const foundTime = 30 * time.Second

// New returns a Manager.
func New(cfg Config) *Manager { return newManager(cfg, execute) }

func newManager(cfg Config, run runner) *Manager {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	at := place{dir: cfg.Dir}
	return &Manager{cfg: cfg, drivers: map[string]driver{
		"dir":   &dirDriver{at},
		"btrfs": &btrfsDriver{at, run},
		"lvm":   &lvmDriver{at, run},
		"zfs":   &zfsDriver{at, run},
	}}
}

// Supported lists the drivers that this machine has the tools, the kernel and the rights for. Only the
// first call waits until that is found out; what is installed later appears some time after it was asked
// for.
func (m *Manager) Supported() []api.StorageDriverInfo {
	m.probing.Lock()
	defer m.probing.Unlock()
	switch {
	case m.found == nil:
		m.found, m.foundAt = m.probe(), time.Now()
	case time.Since(m.foundAt) > foundTime && !m.refreshing:
		m.refreshing = true
		go m.refresh()
	}
	return slices.Clone(m.found)
}

// refresh finds out anew. It ends within probeTime.
func (m *Manager) refresh() {
	found := m.probe()
	m.probing.Lock()
	defer m.probing.Unlock()
	m.found, m.foundAt, m.refreshing = found, time.Now(), false
}

func (m *Manager) probe() []api.StorageDriverInfo {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	list := []api.StorageDriverInfo{}
	for _, name := range driverNames {
		if version, err := m.drivers[name].available(ctx); err == nil {
			list = append(list, api.StorageDriverInfo{Name: name, Version: version})
		}
	}
	return list
}

// CheckDriver says why this machine cannot use a driver: api.DriverUnavailable, with what is
// missing; api.ConfigInvalid for a name that is no driver.
func (m *Manager) CheckDriver(ctx context.Context, name string) error {
	_, err := m.driver(ctx, name)
	return err
}

func (m *Manager) driver(ctx context.Context, name string) (driver, error) {
	d, ok := m.drivers[name]
	switch {
	case ok:
	case slices.Contains(remoteDrivers, name):
		return nil, api.Errorf(api.DriverUnavailable, "The storage driver %q isn't offered by this daemon", name).WithHint("choose another one; incus info lists those that work here")
	default:
		return nil, api.Errorf(api.ConfigInvalid, "Invalid storage driver %q; use one of %s", name, strings.Join(driverNames, ", "))
	}
	if _, err := d.available(ctx); err != nil {
		return nil, api.Errorf(api.DriverUnavailable, "The storage driver %q isn't available on this machine: %v", name, err)
	}
	return d, nil
}

// do carries out one change of a pool.
func (m *Manager) do(ctx context.Context, p Pool, change func(driver) error) error {
	d, err := m.driver(ctx, p.Driver)
	if err != nil {
		return err
	}
	if !filepath.IsLocal(p.Name) || strings.ContainsRune(p.Name, filepath.Separator) {
		return api.Errorf(api.NameInvalid, "Invalid storage pool name: %q cannot be a folder", p.Name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return explain(change(d))
}

// CheckPool finds out what would keep CreatePool from making the pool, and changes nothing.
func (m *Manager) CheckPool(ctx context.Context, p Pool) error {
	return m.do(ctx, p, func(d driver) error { return d.check(ctx, p) })
}

// CreatePool makes the pool and mounts it. It returns the member-specific keys as they have become:
// "source" always, and "size" and "volatile.initial_source" where they apply. When it fails it has
// undone what it did.
func (m *Manager) CreatePool(ctx context.Context, p Pool) (chosen map[string]string, err error) {
	err = m.do(ctx, p, func(d driver) error {
		if err := d.check(ctx, p); err != nil {
			return err
		}
		if chosen, err = d.create(ctx, p); err != nil {
			return undo(err, m.remove(context.WithoutCancel(ctx), d, p))
		}
		return nil
	})
	at := place{m.cfg.Dir}
	if source := p.Config["source"]; err == nil && !at.isLoop(p) && source != at.mountpoint(p) && p.Config["volatile.initial_source"] == "" {
		chosen["volatile.initial_source"] = source // what was asked for, where it is not our own choice
	}
	return chosen, err
}

// undo is why something failed, and what kept its remains from being removed.
func undo(why, remains error) error {
	if remains == nil {
		return why
	}
	return fmt.Errorf("%w (and what was begun could not be removed: %w)", why, remains)
}

// MountPool makes a pool that was created usable again, after a start. It is harmless when it is. It
// fails with api.Unavailable when what is there is not the pool, as when a disk is not mounted.
func (m *Manager) MountPool(ctx context.Context, p Pool) error {
	return m.do(ctx, p, func(d driver) error {
		if err := d.mount(ctx, p); err != nil {
			return err
		}
		return d.present(ctx, p)
	})
}

// UpdatePool makes the pool what next says; it was before. It returns keys as CreatePool does, and
// fails as MountPool does.
func (m *Manager) UpdatePool(ctx context.Context, before, next Pool) (chosen map[string]string, err error) {
	err = m.do(ctx, next, func(d driver) error {
		if err := d.present(ctx, before); err != nil {
			return err
		}
		chosen, err = d.update(ctx, before, next)
		return err
	})
	return chosen, err
}

// DeletePool removes the pool and all that CreatePool made for it, be it half of it. It never
// removes what has no mark of the pool, such as what was there before it, or what is below the mount
// point of a disk that is not there: that is left alone, the log says so, and the deletion has
// succeeded. It is harmless when nothing is left.
func (m *Manager) DeletePool(ctx context.Context, p Pool) error {
	return m.do(ctx, p, func(d driver) error { return m.remove(ctx, d, p) })
}

func (m *Manager) remove(ctx context.Context, d driver, p Pool) error {
	kept, err := d.remove(ctx, p)
	if kept != "" {
		m.cfg.Log.Warn("left alone what is not the storage pool's", "pool", p.Name, "id", p.ID, "kept", kept)
	}
	return err
}

// PoolResources measures the pool. It waits for nobody: another pool may just be made. It fails as
// MountPool does.
func (m *Manager) PoolResources(ctx context.Context, p Pool) (*api.ResourcesStoragePool, error) {
	d, ok := m.drivers[p.Driver]
	if !ok {
		return nil, m.CheckDriver(ctx, p.Driver)
	}
	if err := d.present(ctx, p); err != nil {
		return nil, explain(err)
	}
	res, err := d.resources(ctx, p)
	return res, explain(err)
}

// CheckVolume finds out what would keep CreateVolume from making the volume, and changes nothing.
func (m *Manager) CheckVolume(ctx context.Context, p Pool, v Volume) error {
	return m.doVolume(ctx, p, v, func(d driver) error { return d.checkVolume(ctx, p, v) })
}

// CreateVolume makes a volume on a pool that is mounted, where nothing is in its place. When it
// fails it has undone what it did. It fails as MountPool does, and so do the others of volumes.
func (m *Manager) CreateVolume(ctx context.Context, p Pool, v Volume) error {
	return m.doVolume(ctx, p, v, func(d driver) error {
		if err := d.checkVolume(ctx, p, v); err != nil {
			return err // and what is there stays
		}
		if err := d.createVolume(ctx, p, v); err != nil {
			return undo(err, m.removeVolume(context.WithoutCancel(ctx), d, p, v))
		}
		return nil
	})
}

// UpdateVolume makes the volume what next says: another name, project or size.
func (m *Manager) UpdateVolume(ctx context.Context, p Pool, before, next Volume) error {
	return m.doVolume(ctx, p, next, func(d driver) error { return d.updateVolume(ctx, p, before, next) })
}

// DeleteVolume removes the volume. It is harmless when nothing is left of it.
func (m *Manager) DeleteVolume(ctx context.Context, p Pool, v Volume) error {
	return m.doVolume(ctx, p, v, func(d driver) error { return m.removeVolume(ctx, d, p, v) })
}

func (m *Manager) removeVolume(ctx context.Context, d driver, p Pool, v Volume) error {
	kept, err := d.removeVolume(ctx, p, v)
	if kept != "" {
		m.cfg.Log.Warn("left alone what is not the storage volume's", "pool", p.Name, "volume", v.Name, "kept", kept)
	}
	return err
}

func (m *Manager) doVolume(ctx context.Context, p Pool, v Volume, change func(driver) error) error {
	if dir := v.directory(); !filepath.IsLocal(dir) || strings.ContainsRune(dir, filepath.Separator) {
		return api.Errorf(api.NameInvalid, "Invalid storage volume name: %q cannot be a folder", v.Name)
	}
	return m.do(ctx, p, func(d driver) error {
		if err := d.present(ctx, p); err != nil {
			return err
		}
		return change(d)
	})
}

// A place is where this machine keeps pools.
type place struct{ dir string }

// mountpoint is where a pool is found, unless it is used where it lies.
func (at place) mountpoint(p Pool) string { return filepath.Join(at.dir, "storage-pools", p.Name) }

// loopFile is the file that stands for a disk.
func (at place) loopFile(p Pool) string { return filepath.Join(at.dir, "disks", p.Name+".img") }

// has tells whether the path is in the state directory, by the path's text or by where it leads.
func (at place) has(path string) bool {
	return isWithin(at.dir, path) || isWithin(resolve(at.dir), resolve(path))
}

// isOwn tells whether the path is where a pool is found that has no other place.
func (at place) isOwn(path string, p Pool) bool { return resolve(path) == resolve(at.mountpoint(p)) }

// isNamed tells whether the source is the name of something that was there before, in the words of the
// driver's tools: a volume group or a dataset.
func (p Pool) isNamed() bool { return p.asked() != "" && !strings.HasPrefix(p.asked(), "/") }

// asked is the source that was asked for; some drivers call it otherwise once the pool is made.
func (p Pool) asked() string {
	return cmp.Or(p.Config["volatile.initial_source"], p.Config["source"])
}

// isLoop tells whether the pool lies in a file of ours.
func (at place) isLoop(p Pool) bool {
	return p.Config["source"] == "" || resolve(p.Config["source"]) == resolve(at.loopFile(p))
}
