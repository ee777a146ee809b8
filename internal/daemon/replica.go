package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	restapi "incusd/internal/api"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// current is the replica in use, which a join replaces. The services keep a pointer to
// it and never see the swap: a call under way on the old one ends with an error.
type current struct {
	store atomic.Pointer[raftstore.Store]
}

func (c *current) get() (*raftstore.Store, error) {
	if s := c.store.Load(); s != nil {
		return s, nil
	}
	return nil, api.Errorf(api.Unavailable, "Daemon is starting up")
}

// ID is this server's member ID, "" before the store is open.
func (c *current) ID() string {
	if s := c.store.Load(); s != nil {
		return s.ID()
	}
	return ""
}

func (c *current) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	s, err := c.get()
	if err != nil {
		return state.Result{}, err
	}
	return s.Propose(ctx, cmd)
}

func (c *current) Read(ctx context.Context) (*raftstore.View, error) {
	s, err := c.get()
	if err != nil {
		return nil, err
	}
	return s.Read(ctx)
}

func (c *current) Basis(ctx context.Context) (*raftstore.View, error) {
	s, err := c.get()
	if err != nil {
		return nil, err
	}
	return s.Basis(ctx)
}

func (c *current) ReadOrStale(ctx context.Context) (*raftstore.View, error) {
	s, err := c.get()
	if err != nil {
		return nil, err
	}
	return s.ReadOrStale(ctx)
}

func (c *current) MoveLeadership(ctx context.Context, to string) (leader string, err error) {
	s, err := c.get()
	if err != nil {
		return "", err
	}
	return s.MoveLeadership(ctx, to)
}

func (c *current) Departed(ctx context.Context, m *state.Member) bool {
	s, err := c.get()
	return err == nil && s.Departed(ctx, m)
}

// Local is the local view, nil before the store is open.
func (c *current) Local() *raftstore.View {
	if s := c.store.Load(); s != nil {
		return s.Local()
	}
	return nil
}

// openCurrent opens this server's replica, or makes the first one: a standalone server
// is a cluster of one with the same store.
func (d *Daemon) openCurrent() error {
	rep, ok := d.local.Current()
	create := !ok
	if create {
		id := uuid.NewString()
		rep = localstore.Replica{ID: id, Dir: id, ClusterID: uuid.NewString()}
	}
	store, err := d.openReplica(rep, d.knownPeers(), create, true)
	if err != nil {
		return err
	}
	if create {
		// Noted only now: without a note, a crash before leaves a folder that the next start
		// sweeps away, and never a note of a replica that is not there.
		if err := d.local.SetCurrent(rep); err != nil {
			store.Close()
			return err
		}
	}
	d.endpoint.Attach(store)
	d.current.store.Store(store)
	d.watchFailure(store)
	d.sweepReplicas()
	return d.initCluster(store, rep.ClusterID)
}

func (d *Daemon) openReplica(rep localstore.Replica, peers []raftstore.Peer, create, bootstrap bool) (*raftstore.Store, error) {
	var store *raftstore.Store
	isOpen := make(chan struct{})
	cfg := raftstore.Config{
		ID:          rep.ID,
		ClusterID:   rep.ClusterID,
		Dir:         d.replicaDir(rep),
		Create:      create,
		Bootstrap:   bootstrap,
		Certificate: d.own.tls,
		Peers:       peers,
		Removed:     d.notedRemoval(rep.ID),
		CommitHint:  d.local.CommitHint(rep.ID),
		Incarnation: rep.Incarnation,
		Moved:       d.movedPeers(),
		OnFenced: func(reason *api.Error) {
			if d.current.ID() == rep.ID { // and not one that a join fills
				d.onFenced(reason)
			}
		},
		SaveCommitHint: func(index uint64) { d.saveHint(rep.ID, index) },
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return d.cfg.Dial(ctx, "tcp", address)
		},
		OnEvents: func(evs []state.Event) { d.publishApplied(rep.ID, evs) },
		OnReady: func(ctx context.Context, id string) error {
			if !opened(ctx, isOpen) {
				return ctx.Err()
			}
			return membership.Ready(ctx, store, store, id)
		},
		OnAnnounce: func(ctx context.Context, id, address string, unseen bool) error {
			if !opened(ctx, isOpen) {
				return ctx.Err()
			}
			return membership.Announced(ctx, store, id, address, unseen, d.cfg.Now())
		},
		OnTransfer: func(ctx context.Context, to string) (string, error) {
			if !opened(ctx, isOpen) {
				return "", ctx.Err()
			}
			return membership.Transfer(ctx, store, d.cfg.Membership, to)
		},
		OnLeader: func(ctx context.Context) {
			if !opened(ctx, isOpen) || store == nil {
				return
			}
			membership.NewLeader(store, store, d.cfg.Membership, d.cfg.Now, d.log).Run(ctx)
		},
		WrapLog:       d.cfg.WrapLog,
		Reach:         d.cfg.Reach,
		Timing:        d.cfg.Timing,
		SnapshotEvery: d.cfg.SnapshotEvery,
		Now:           d.cfg.Now,
		Logger:        d.log.With("member", rep.ID[:8]),
	}
	if now, ok := d.local.Current(); ok && now == rep {
		cfg.ShutOut = d.shutOutReason()
	}
	store, err := raftstore.Open(cfg)
	close(isOpen) // store is set: the callbacks may use it
	return store, err
}

// opened waits until Open has returned: callbacks may come earlier.
func opened(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *Daemon) saveHint(replica string, index uint64) {
	if err := d.local.SetCommitHint(replica, index); err != nil {
		d.log.Debug("the commit hint was not saved", "err", err)
	}
}

// initCluster makes the first entry of a new store, and of one whose first start was cut off.
func (d *Daemon) initCluster(store *raftstore.Store, clusterID string) error {
	if len(store.Servers()) > 1 || store.Local().Cluster().ID != "" || store.ShutOutReason() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, 30*time.Second)
	defer cancel()
	cmd, err := state.NewCommand(state.KindClusterInit, uuid.NewString(), d.cfg.Now().UTC(), nil, state.ClusterInit{
		ClusterID: clusterID,
		Member: state.Member{
			ID:             store.ID(),
			Name:           "none",
			Certificate:    trust.EncodePEM(d.own.pair().Cert),
			Fingerprint:    d.own.pair().Fingerprint(),
			Architecture:   restapi.Architecture(),
			CommandVersion: state.CommandVersion,
		},
	})
	if err != nil {
		return err
	}
	if _, err := store.Propose(ctx, cmd); err != nil {
		return fmt.Errorf("begin the store: %w", err)
	}
	return nil
}

// watchFailure ends the daemon when its store must stop: a member that cannot write
// must not pretend to be one.
func (d *Daemon) watchFailure(store *raftstore.Store) {
	d.wg.Go(func() {
		select {
		case err := <-store.Failed():
			d.fail(err)
			go d.Stop(context.Background())
		case <-d.ctx.Done():
		}
	})
}

func (d *Daemon) replicaDir(rep localstore.Replica) string {
	return filepath.Join(d.cfg.Paths.replicas(), rep.Dir)
}

// knownPeers are the members as this server last knew them.
func (d *Daemon) knownPeers() []raftstore.Peer {
	return storePeers(d.local.Peers(), d.log)
}

// movedPeers are the members that an administrator noted another address for.
func (d *Daemon) movedPeers() map[string]raftstore.Move {
	out := make(map[string]raftstore.Move)
	for id, m := range d.local.Moved() {
		out[id] = raftstore.Move(m)
	}
	return out
}

func storePeers(peers []localstore.Peer, log *slog.Logger) []raftstore.Peer {
	out := make([]raftstore.Peer, 0, len(peers))
	for _, p := range peers {
		cert, err := trust.ParseCertificate(p.Certificate)
		if err != nil {
			log.Warn("a known member's certificate cannot be read", "member", p.Name, "err", err)
			continue
		}
		out = append(out, raftstore.Peer{ID: p.ID, Address: p.Address, Fingerprint: trust.Fingerprint(cert)})
	}
	return out
}

// sweepReplicas removes folders that neither the current replica nor a join owns.
func (d *Daemon) sweepReplicas() {
	keep := map[string]bool{}
	if rep, ok := d.local.Current(); ok {
		keep[rep.Dir] = true
	}
	if rec, ok := d.local.Join(); ok {
		keep[rec.Replica.Dir] = true
	}
	entries, err := os.ReadDir(d.cfg.Paths.replicas())
	if err != nil {
		d.log.Warn("look for left-over replicas", "err", err)
		return
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			d.removeReplica(e.Name())
		}
	}
}

func (d *Daemon) removeReplica(dir string) {
	if dir == "" || dir != filepath.Base(dir) {
		return
	}
	if err := os.RemoveAll(filepath.Join(d.cfg.Paths.replicas(), dir)); err != nil {
		d.log.Warn("remove a replica that is no longer used", "dir", dir, "err", err)
	}
}
