package entities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/network"
	"incusd/internal/raftstore/state"
	"incusd/internal/storage"
)

// Steps of a machine that MachineConfig.Reach is told of; each names what has just been done.
const (
	PointMakeNoted    = "entity.make.noted"
	PointMade         = "entity.make.made"
	PointMakeFinished = "entity.make.finished"
	PointRemoved      = "entity.remove.removed"
)

// Notes are what this server remembers of what it has made, across restarts and replicas.
type Notes interface {
	Made() []localstore.Made
	SetMade(localstore.Made) error
	ClearMade(id string) error
}

// StorageDrivers make pools and volumes true on this machine; *storage.Manager is one.
type StorageDrivers interface {
	Supported() []api.StorageDriverInfo
	CheckDriver(ctx context.Context, driver string) error
	CheckPool(ctx context.Context, p storage.Pool) error
	CreatePool(ctx context.Context, p storage.Pool) (map[string]string, error)
	MountPool(ctx context.Context, p storage.Pool) error
	UpdatePool(ctx context.Context, before, next storage.Pool) (map[string]string, error)
	DeletePool(ctx context.Context, p storage.Pool) error
	PoolResources(ctx context.Context, p storage.Pool) (*api.ResourcesStoragePool, error)
	CheckVolume(ctx context.Context, p storage.Pool, v storage.Volume) error
	CreateVolume(ctx context.Context, p storage.Pool, v storage.Volume) error
	UpdateVolume(ctx context.Context, p storage.Pool, before, next storage.Volume) error
	DeleteVolume(ctx context.Context, p storage.Pool, v storage.Volume) error
}

// NetworkDrivers make networks true on this machine; *network.Manager is one.
type NetworkDrivers interface {
	FillIn(kind string, config map[string]string) (map[string]string, error)
	Check(ctx context.Context, n network.Network) error
	Create(ctx context.Context, n network.Network) error
	Start(ctx context.Context, n network.Network) error
	Update(ctx context.Context, before, next network.Network) error
	Delete(ctx context.Context, n network.Network) error
	Interfaces() ([]api.Network, error)
	State(name string) (*api.NetworkState, error)
	Leases(n network.Network) ([]api.NetworkLease, error)
}

// MachineConfig is what a Machine works with; all but Reach are required.
type MachineConfig struct {
	Notes   Notes
	Storage StorageDrivers
	Network NetworkDrivers
	// Reach, if set, is told of each step and may fail or stop it; for tests.
	Reach func(point string) error
}

// A Machine is this server's hands: it makes, changes and removes one thing at a time, and
// notes each step before and after, so that a crash leaves nothing unknown.
type Machine struct {
	cfg MachineConfig
	mu  sync.Mutex // one thing at a time
}

// NewMachine returns a Machine.
func NewMachine(cfg MachineConfig) *Machine { return &Machine{cfg: cfg} }

func (m *Machine) reach(point string) error {
	if m.cfg.Reach == nil {
		return nil
	}
	return m.cfg.Reach(point)
}

// note returns what is noted of an entity.
func (m *Machine) note(id string) (localstore.Made, bool) {
	for _, n := range m.cfg.Notes.Made() {
		if n.ID == id {
			return n, true
		}
	}
	return localstore.Made{}, false
}

// check finds out what would keep the thing from being made; nothing is changed.
func (m *Machine) check(ctx context.Context, t localstore.Made) error {
	switch t.Kind {
	case state.EntityPool:
		if err := m.cfg.Storage.CheckDriver(ctx, t.Type); err != nil {
			return err
		}
		return m.cfg.Storage.CheckPool(ctx, poolFrom(t))
	case state.EntityNetwork:
		return m.cfg.Network.Check(ctx, networkFrom(t))
	}
	pool, err := m.poolOf(t)
	if err != nil {
		return err
	}
	return m.cfg.Storage.CheckVolume(ctx, pool, volumeFrom(t))
}

// make makes the thing and returns its note. What an earlier try has left is removed first. A
// thing that turns out to be impossible before anything was touched leaves no note.
func (m *Machine) make(ctx context.Context, t localstore.Made) (localstore.Made, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.note(t.ID); ok {
		if err := m.clear(ctx, old); err != nil {
			return t, fmt.Errorf("remove what an earlier try has left: %w", err)
		}
	}
	if err := m.check(ctx, t); err != nil {
		return t, err
	}
	t.Done = false
	if err := m.cfg.Notes.SetMade(t); err != nil {
		return t, err
	}
	if err := m.reach(PointMakeNoted); err != nil {
		return t, err
	}
	chosen, err := m.create(ctx, t)
	if err != nil {
		return t, m.undo(ctx, t, err)
	}
	if err := m.reach(PointMade); err != nil {
		return t, err
	}
	t.Config, t.Done = merged(t.Config, chosen), true
	if err := m.cfg.Notes.SetMade(t); err != nil {
		return t, m.undo(ctx, t, err)
	}
	return t, m.reach(PointMakeFinished)
}

// undo removes what is left of a thing that could not be made, and returns why it could not.
func (m *Machine) undo(ctx context.Context, t localstore.Made, why error) error {
	// The reason may be that the time is over; removing needs time of its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
	defer cancel()
	if err := m.clear(ctx, t); err != nil {
		return fmt.Errorf("%w (and what was begun could not be removed: %w)", why, err)
	}
	return why
}

// clear removes the thing and its note.
func (m *Machine) clear(ctx context.Context, t localstore.Made) error {
	if err := m.delete(ctx, t); err != nil {
		return err
	}
	if err := m.reach(PointRemoved); err != nil {
		return err
	}
	return m.cfg.Notes.ClearMade(t.ID)
}

// remove removes the thing; it is harmless when nothing is left of it.
func (m *Machine) remove(ctx context.Context, t localstore.Made) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clear(ctx, t)
}

// change makes the thing what next says, and returns its note.
func (m *Machine) change(ctx context.Context, before, next localstore.Made) (localstore.Made, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	chosen, err := m.update(ctx, before, next)
	if err != nil {
		return next, err
	}
	next.Config, next.Done = merged(next.Config, chosen), true
	return next, m.cfg.Notes.SetMade(next)
}

// start makes what was made usable again.
func (m *Machine) start(ctx context.Context, t localstore.Made) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch t.Kind {
	case state.EntityPool:
		return m.cfg.Storage.MountPool(ctx, poolFrom(t))
	case state.EntityNetwork:
		return m.cfg.Network.Start(ctx, networkFrom(t))
	}
	return nil
}

func (m *Machine) create(ctx context.Context, t localstore.Made) (map[string]string, error) {
	switch t.Kind {
	case state.EntityPool:
		return m.cfg.Storage.CreatePool(ctx, poolFrom(t))
	case state.EntityNetwork:
		return nil, m.cfg.Network.Create(ctx, networkFrom(t))
	}
	pool, err := m.poolOf(t)
	if err != nil {
		return nil, err
	}
	return nil, m.cfg.Storage.CreateVolume(ctx, pool, volumeFrom(t))
}

func (m *Machine) update(ctx context.Context, before, next localstore.Made) (map[string]string, error) {
	switch next.Kind {
	case state.EntityPool:
		return m.cfg.Storage.UpdatePool(ctx, poolFrom(before), poolFrom(next))
	case state.EntityNetwork:
		return nil, m.cfg.Network.Update(ctx, networkFrom(before), networkFrom(next))
	}
	pool, err := m.poolOf(next)
	if err != nil {
		return nil, err
	}
	return nil, m.cfg.Storage.UpdateVolume(ctx, pool, volumeFrom(before), volumeFrom(next))
}

func (m *Machine) delete(ctx context.Context, t localstore.Made) error {
	switch t.Kind {
	case state.EntityPool:
		return m.cfg.Storage.DeletePool(ctx, poolFrom(t))
	case state.EntityNetwork:
		return m.cfg.Network.Delete(ctx, networkFrom(t))
	}
	pool, err := m.poolOf(t)
	if err != nil {
		return nil // a volume goes with its pool
	}
	return m.cfg.Storage.DeleteVolume(ctx, pool, volumeFrom(t))
}

// poolOf is the pool that a volume lies on, as this machine has it.
func (m *Machine) poolOf(volume localstore.Made) (storage.Pool, error) {
	all := m.cfg.Notes.Made()
	at := slices.IndexFunc(all, func(n localstore.Made) bool {
		return n.Kind == state.EntityPool && n.Name == volume.Pool && n.Owner == volume.Owner && n.Done
	})
	if at < 0 {
		return storage.Pool{}, api.Errorf(api.Unavailable, "Storage pool %q is not there on this member", volume.Pool)
	}
	return poolFrom(all[at]), nil
}

func poolFrom(t localstore.Made) storage.Pool {
	return storage.Pool{ID: t.ID, Owner: t.Owner, Name: t.Name, Driver: t.Type, Config: t.Config}
}

func volumeFrom(t localstore.Made) storage.Volume {
	return storage.Volume{ID: t.ID, Project: t.Project, Name: t.Name, ContentType: t.Type, Config: t.Config}
}

func networkFrom(t localstore.Made) network.Network {
	return network.Network{ID: t.ID, Project: t.Project, Name: t.Name, Type: t.Type, Config: t.Config}
}

// merged is a copy of config with the keys of more.
func merged(config, more map[string]string) map[string]string {
	out := make(map[string]string, len(config)+len(more))
	maps.Copy(out, config)
	maps.Copy(out, more)
	return out
}
