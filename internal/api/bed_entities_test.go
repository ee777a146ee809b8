package api

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/entities"
	"incusd/internal/localstore"
	"incusd/internal/network"
	"incusd/internal/raftstore"
	"incusd/internal/storage"
)

// fakeDrivers can make everything, and make nothing.
type fakeDrivers struct {
	entities.StorageDrivers
	entities.NetworkDrivers
	// at is where the member that answers is: its one interface and lease say so.
	at func() string
}

func (fakeDrivers) Supported() []api.StorageDriverInfo {
	return []api.StorageDriverInfo{{Name: "dir", Version: "1"}}
}
func (fakeDrivers) CheckDriver(_ context.Context, driver string) error {
	if driver != "dir" {
		return api.Errorf(api.DriverUnavailable, "storage driver %q isn't available", driver)
	}
	return nil
}
func (fakeDrivers) CheckPool(context.Context, storage.Pool) error { return nil }
func (fakeDrivers) CreatePool(_ context.Context, p storage.Pool) (map[string]string, error) {
	return map[string]string{"source": "/pools/" + p.Name}, nil
}
func (fakeDrivers) MountPool(context.Context, storage.Pool) error { return nil }
func (fakeDrivers) UpdatePool(context.Context, storage.Pool, storage.Pool) (map[string]string, error) {
	return nil, nil
}
func (fakeDrivers) DeletePool(context.Context, storage.Pool) error { return nil }
func (fakeDrivers) PoolResources(context.Context, storage.Pool) (*api.ResourcesStoragePool, error) {
	return &api.ResourcesStoragePool{Space: api.ResourcesStoragePoolSpace{Used: 1, Total: 2}}, nil
}
func (fakeDrivers) CheckVolume(context.Context, storage.Pool, storage.Volume) error  { return nil }
func (fakeDrivers) CreateVolume(context.Context, storage.Pool, storage.Volume) error { return nil }
func (fakeDrivers) UpdateVolume(context.Context, storage.Pool, storage.Volume, storage.Volume) error {
	return nil
}
func (fakeDrivers) DeleteVolume(context.Context, storage.Pool, storage.Volume) error { return nil }
func (fakeDrivers) FillIn(_ string, config map[string]string) (map[string]string, error) {
	if config["ipv4.address"] == "" || config["ipv4.address"] == "auto" {
		config["ipv4.address"], config["ipv4.nat"] = "10.1.2.1/24", "true"
	}
	if config["ipv6.address"] == "auto" {
		config["ipv6.address"] = "none"
	}
	return config, nil
}
func (fakeDrivers) Check(context.Context, network.Network) error                   { return nil }
func (fakeDrivers) Create(context.Context, network.Network) error                  { return nil }
func (fakeDrivers) Start(context.Context, network.Network) error                   { return nil }
func (fakeDrivers) Update(context.Context, network.Network, network.Network) error { return nil }
func (fakeDrivers) Delete(context.Context, network.Network) error                  { return nil }
func (f fakeDrivers) Interfaces() ([]api.Network, error) {
	return []api.Network{{NetworkPut: api.NetworkPut{Config: api.ConfigMap{}, Description: f.at()}, Name: "eth0", Type: "physical", UsedBy: []string{}}}, nil
}
func (f fakeDrivers) State(string) (*api.NetworkState, error) {
	return &api.NetworkState{Addresses: []api.NetworkStateAddress{}, State: f.at()}, nil
}
func (f fakeDrivers) Leases(network.Network) ([]api.NetworkLease, error) {
	return []api.NetworkLease{{Address: f.at()}}, nil
}

// fakeNotes keeps notes in memory.
type fakeNotes struct {
	mu   sync.Mutex
	made map[string]localstore.Made
}

func (n *fakeNotes) Made() []localstore.Made {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []localstore.Made
	for _, m := range n.made {
		all = append(all, m)
	}
	return all
}

func (n *fakeNotes) SetMade(m localstore.Made) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made[m.ID] = m
	return nil
}

func (n *fakeNotes) ClearMade(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.made, id)
	return nil
}

// fakeInventory answers from the rows.
type fakeInventory struct{}

func (fakeInventory) MemberConfig(view *raftstore.View, id string) []api.ClusterMemberConfigKey {
	return entities.MemberConfig(view, id)
}

func (fakeInventory) JoinEntities(view *raftstore.View) []api.JoinEntity {
	return entities.JoinEntities(view)
}

// lazyEntities begins to make things with the first that is asked for: most tests ask for none,
// and change what is theirs without a lock.
type lazyEntities struct {
	*entities.Service
	start func()
}

func (l lazyEntities) CreatePool(ctx context.Context, post api.StoragePoolsPost, target string, by *api.EventRequestor) error {
	l.start()
	return l.Service.CreatePool(ctx, post, target, by)
}

func (l lazyEntities) CreateNetwork(ctx context.Context, project string, post api.NetworksPost, target string, by *api.EventRequestor) error {
	l.start()
	return l.Service.CreateNetwork(ctx, project, post, target, by)
}

// withEntities gives a bed real services for entities, on drivers that make nothing.
func withEntities(t testing.TB, b *bed) Entities {
	t.Helper()
	at := func() string { m, _ := b.store.Local().Member(b.store.id); return m.Name }
	drivers := fakeDrivers{at: at}
	machine := entities.NewMachine(entities.MachineConfig{Notes: &fakeNotes{made: map[string]localstore.Made{}}, Storage: drivers, Network: drivers})
	log := slog.New(slog.DiscardHandler)
	applier := entities.NewApplier(b.store, machine, func() []string { return []string{b.store.ID()} }, time.Now, log)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	t.Cleanup(func() { cancel(); ended.Wait() })
	return lazyEntities{entities.NewService(b.store, machine, time.Now, log), sync.OnceFunc(func() {
		ended.Go(func() { applier.Run(ctx) })
	})}
}
