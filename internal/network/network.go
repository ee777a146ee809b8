package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"

	"incusd/api"
)

// A Network is what the cluster wants of a managed network on this machine.
type Network struct {
	// ID is a UUID that no other network has or had.
	ID, Project, Name, Type string
	// Config has the cluster-wide and this member's own keys, as Validate let them through.
	Config map[string]string
}

// Config is what a Manager works with.
type Config struct {
	// Dir is the state directory; what a network needs on disk is in Dir/networks/NAME.
	Dir string
	// Owner tells the interfaces of this cluster from those of another daemon in the same network
	// namespace: the cluster's ID. It may change (at a join).
	Owner func() string
	Log   *slog.Logger
}

// A Manager makes networks true on this machine, in the network namespace of the process. Its
// methods may be called from any goroutine; work on networks is done in turn.
type Manager struct {
	cfg     Config
	mu      sync.Mutex
	servers map[string]*server // DHCP and DNS, by network ID
	warned  sync.Map           // tools that were missed already
}

// New returns a Manager.
func New(cfg Config) *Manager { return &Manager{cfg: cfg, servers: map[string]*server{}} }

// Close ends the processes that the networks need; interfaces stay. Start brings them back.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, s := range m.servers {
		s.stop()
		delete(m.servers, id)
	}
	return nil
}

// Check finds out what would keep Create from making the network, and changes nothing. It fails
// with api.ConfigInvalid, or api.Conflict for a bridge whose name an interface has.
func (m *Manager) Check(_ context.Context, n Network) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return explain(m.check(n))
}

func (m *Manager) check(n Network) error {
	if n.Type != "bridge" {
		return checkParent(n)
	}
	link, err := find(n.Name)
	if err != nil {
		return err
	}
	if link != nil && !m.isOurs(link, n) {
		return api.Errorf(api.Conflict, "Network interface %q already exists", n.Name).WithHint("choose another name, or remove that interface first")
	}
	return m.checkPorts(n)
}

// Create makes the network and starts it. When it fails it has undone what it did.
func (m *Manager) Create(ctx context.Context, n Network) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(n); err != nil {
		return explain(err)
	}
	if err := m.start(ctx, n); err != nil {
		return explain(undo(err, m.remove(context.WithoutCancel(ctx), n)))
	}
	return nil
}

func undo(why, remains error) error {
	if remains == nil {
		return why
	}
	return fmt.Errorf("%w (and what was begun could not be removed: %w)", why, remains)
}

// Start makes a network that was created usable again, after a start of the daemon or the machine.
// It is harmless when it is.
func (m *Manager) Start(ctx context.Context, n Network) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(n); err != nil {
		return explain(err)
	}
	return explain(m.start(ctx, n))
}

func (m *Manager) start(ctx context.Context, n Network) error {
	if n.Type != "bridge" {
		return useParent(n)
	}
	return m.startBridge(ctx, n)
}

// Update makes the network what next says; it was before. The name may differ: then the interface
// is made anew.
func (m *Manager) Update(ctx context.Context, before, next Network) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before.Name != next.Name {
		if err := m.check(next); err != nil {
			return explain(err)
		}
		if err := m.remove(ctx, before); err != nil {
			return explain(err)
		}
	}
	if next.Type == "bridge" && before.Name == next.Name {
		if err := m.detach(missingFrom(ports(before), ports(next)), next.Name); err != nil {
			return explain(err)
		}
	}
	if err := m.check(next); err != nil {
		return explain(err)
	}
	return explain(m.start(ctx, next))
}

// missingFrom are those of all that are not in kept.
func missingFrom(all, kept []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(kept, s) })
}

// Delete removes the network and all that Create made for it, be it half of it. It is harmless when
// nothing is left.
func (m *Manager) Delete(ctx context.Context, n Network) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return explain(m.remove(ctx, n))
}

func (m *Manager) remove(ctx context.Context, n Network) error {
	if n.Type != "bridge" {
		return leaveParent(n)
	}
	return m.removeBridge(ctx, n)
}

// folder is what a network needs on disk.
func (m *Manager) folder(n Network) string { return filepath.Join(m.cfg.Dir, "networks", n.Name) }

// find returns the interface of that name; nil if there is none.
func find(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	return link, err
}

// explain gives an error of the kernel its reason.
func explain(err error) error {
	var reasoned *api.Error
	switch {
	case err == nil, errors.As(err, &reasoned):
		return err
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES), errors.Is(err, fs.ErrPermission):
		return api.Errorf(api.NotPermitted, "Not permitted: %v", err).WithHint("run incusd as root, or with the capability CAP_NET_ADMIN")
	case errors.Is(err, syscall.EOPNOTSUPP):
		return api.Errorf(api.DriverUnavailable, "The kernel has no support for it: %v", err)
	case errors.Is(err, syscall.ENOSPC):
		return api.Errorf(api.DiskFull, "No space left on the disk: %v", err)
	}
	return err
}

// warnOnce logs once what a tool is missed for.
func (m *Manager) warnOnce(tool, what string) {
	if _, again := m.warned.LoadOrStore(tool, true); !again {
		m.cfg.Log.Warn("a tool is not installed: networks work without "+what, "tool", tool)
	}
}

// writeFile writes a small file of a network.
func (m *Manager) writeFile(n Network, name, content string) error {
	if err := os.MkdirAll(m.folder(n), 0o711); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.folder(n), name), []byte(content), 0o644)
}

// fields are the parts of a comma list, without white space around them.
func fields(list string) []string {
	var parts []string
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}
