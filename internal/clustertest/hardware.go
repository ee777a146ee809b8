package clustertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"incusd/api"
	"incusd/internal/network"
	"incusd/internal/storage"
)

// Hardware stands for the disks and links of a server: it remembers what was made on them, across
// restarts of the daemon, and fails where a test wants it to. It is both the storage and the
// network drivers of a server.
type Hardware struct {
	mu    sync.Mutex
	made  map[string]map[string]string // configuration, by "storage-pool NAME", …
	inUse map[string]bool              // those usable since the last power cut
	fault func(action, thing string) error
}

func newHardware() *Hardware {
	return &Hardware{made: map[string]map[string]string{}, inUse: map[string]bool{}}
}

// FailOn makes each step ask f first. action is "check", "create", "start", "update" or "delete",
// thing as in Has. Nil ends it.
func (h *Hardware) FailOn(f func(action, thing string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// Has tells whether a thing is there, such as "storage-pool local", and with which configuration.
func (h *Hardware) Has(thing string) (config map[string]string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	config, ok = h.made[thing]
	return maps.Clone(config), ok
}

// Things lists all that is there, in order.
func (h *Hardware) Things() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.made))
}

// PowerCut makes nothing usable until it is started again.
func (h *Hardware) PowerCut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.inUse)
}

// InUse tells whether a thing was made or started since the last power cut.
func (h *Hardware) InUse(thing string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inUse[thing]
}

// do is one step on the hardware. It asks for a fault outside of the lock, so that a test may
// hold one step and look at the rest.
func (h *Hardware) do(action, thing string, f func() error) error {
	h.mu.Lock()
	fault := h.fault
	h.mu.Unlock()
	if fault != nil {
		if err := fault(action, thing); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return f()
}

func (h *Hardware) create(thing string, config map[string]string) error {
	return h.do("create", thing, func() error {
		if _, ok := h.made[thing]; ok {
			return fmt.Errorf("%s is there already", thing)
		}
		h.made[thing], h.inUse[thing] = maps.Clone(config), true
		return nil
	})
}

func (h *Hardware) start(thing string) error {
	return h.do("start", thing, func() error {
		if _, ok := h.made[thing]; !ok {
			return fmt.Errorf("%s is not there", thing)
		}
		h.inUse[thing] = true
		return nil
	})
}

func (h *Hardware) update(before, next string, config map[string]string) error {
	return h.do("update", next, func() error {
		if !h.inUse[before] {
			return fmt.Errorf("%s is not in use", before)
		}
		delete(h.made, before)
		h.made[next], h.inUse[next] = maps.Clone(config), true
		return nil
	})
}

func (h *Hardware) delete(thing string) error {
	return h.do("delete", thing, func() error {
		delete(h.made, thing)
		delete(h.inUse, thing)
		return nil
	})
}

func (h *Hardware) check(thing string) error {
	return h.do("check", thing, func() error {
		if _, ok := h.made[thing]; ok {
			return fmt.Errorf("%s is in the way", thing)
		}
		return nil
	})
}

func pool(p storage.Pool) string       { return "storage-pool " + p.Name }
func volume(v storage.Volume) string   { return "storage-volume " + v.Name }
func netLink(n network.Network) string { return "network " + n.Name }
func source(p storage.Pool) map[string]string {
	if s := p.Config["source"]; s != "" {
		return map[string]string{"source": s, "volatile.initial_source": s}
	}
	return map[string]string{"source": "/pools/" + p.Name}
}

// Supported lists the drivers that CheckDriver knows.
func (h *Hardware) Supported() []api.StorageDriverInfo {
	return []api.StorageDriverInfo{{Name: "btrfs", Version: "1"}, {Name: "dir", Version: "1"}}
}

// CheckDriver knows the drivers dir and btrfs.
func (h *Hardware) CheckDriver(_ context.Context, driver string) error {
	if driver != "dir" && driver != "btrfs" {
		return api.Errorf(api.DriverUnavailable, "storage driver %q isn't available", driver)
	}
	return nil
}

// CheckPool, and the rest, are those of storage.Manager and network.Manager.
func (h *Hardware) CheckPool(_ context.Context, p storage.Pool) error { return h.check(pool(p)) }

func (h *Hardware) CreatePool(_ context.Context, p storage.Pool) (map[string]string, error) {
	return source(p), h.create(pool(p), p.Config)
}

func (h *Hardware) MountPool(_ context.Context, p storage.Pool) error { return h.start(pool(p)) }

func (h *Hardware) UpdatePool(_ context.Context, before, next storage.Pool) (map[string]string, error) {
	return nil, h.update(pool(before), pool(next), next.Config)
}

func (h *Hardware) DeletePool(_ context.Context, p storage.Pool) error { return h.delete(pool(p)) }

func (h *Hardware) PoolResources(context.Context, storage.Pool) (*api.ResourcesStoragePool, error) {
	return &api.ResourcesStoragePool{}, nil
}

func (h *Hardware) CheckVolume(_ context.Context, _ storage.Pool, v storage.Volume) error {
	return h.check(volume(v))
}

func (h *Hardware) CreateVolume(_ context.Context, _ storage.Pool, v storage.Volume) error {
	return h.create(volume(v), v.Config)
}

func (h *Hardware) UpdateVolume(_ context.Context, _ storage.Pool, before, next storage.Volume) error {
	return h.do("update", volume(next), func() error {
		delete(h.made, volume(before))
		h.made[volume(next)] = maps.Clone(next.Config)
		return nil
	})
}

func (h *Hardware) DeleteVolume(_ context.Context, _ storage.Pool, v storage.Volume) error {
	return h.delete(volume(v))
}

func (h *Hardware) FillIn(_ string, config map[string]string) (map[string]string, error) {
	out := maps.Clone(config)
	if out == nil {
		out = map[string]string{}
	}
	if a := out["ipv4.address"]; a == "" || a == "auto" {
		out["ipv4.address"], out["ipv4.nat"] = "10.1.2.1/24", "true"
	}
	return out, nil
}

func (h *Hardware) Check(_ context.Context, n network.Network) error { return h.check(netLink(n)) }

func (h *Hardware) Create(_ context.Context, n network.Network) error {
	return h.create(netLink(n), n.Config)
}

func (h *Hardware) Start(_ context.Context, n network.Network) error { return h.start(netLink(n)) }

func (h *Hardware) Update(_ context.Context, before, next network.Network) error {
	return h.update(netLink(before), netLink(next), next.Config)
}

func (h *Hardware) Delete(_ context.Context, n network.Network) error { return h.delete(netLink(n)) }

func (h *Hardware) Interfaces() ([]api.Network, error) { return nil, nil }

func (h *Hardware) State(string) (*api.NetworkState, error) { return &api.NetworkState{}, nil }

func (h *Hardware) Leases(network.Network) ([]api.NetworkLease, error) { return nil, nil }
