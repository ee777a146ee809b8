package daemon

import (
	"context"
	"errors"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
)

// bootstrap makes this server the first member of a cluster. No join may be under way,
// nor unsettled: the replica that it fills would take the place of the cluster's.
func (d *Daemon) bootstrap(ctx context.Context, name string, requestor *api.EventRequestor, progress func(string)) error {
	d.awaitStartOver()
	end, err := d.joiner.Begin()
	if err != nil {
		return err
	}
	defer end()
	d.settings.mu.Lock()
	defer d.settings.mu.Unlock()
	progress("Forming the cluster")
	address, err := d.formingAddress()
	if err != nil {
		return err
	}
	undo, err := d.settings.setLocal(map[string]string{keyClusterAddress: address})
	if err != nil {
		return err
	}
	err = membership.Bootstrap(ctx, d.current, name, address, d.cfg.Now, requestor)
	if err != nil && !errors.Is(err, api.OutcomeUnknown) {
		if undoErr := undo(); undoErr != nil {
			d.log.Error("go back to the former address", "key", keyClusterAddress, "err", undoErr)
		}
	}
	return err
}

// formingAddress is the address of the first member: cluster.https_address, or
// core.https_address if that can be one.
func (d *Daemon) formingAddress() (string, error) {
	local := d.local.Config()
	address := local["cluster.https_address"]
	if address == "" {
		address = local["core.https_address"]
	}
	if address == "" {
		return "", api.NoAddress
	}
	if config.IsWildcard(address) {
		return "", api.Errorf(api.AddressInvalid, "Cannot use wildcard core.https_address %q for cluster.https_address. Please specify a new cluster.https_address or core.https_address", address)
	}
	return config.CanonicalAddress(address, config.DefaultPort), nil
}

// join makes this server a member of an existing cluster.
func (d *Daemon) join(ctx context.Context, req api.ClusterPut, progress func(string)) error {
	d.awaitStartOver()
	if d.current.Local().Cluster().Enabled {
		return api.AlreadyClustered
	}
	req.ServerAddress = config.CanonicalAddress(req.ServerAddress, config.DefaultPort)
	if req.ClusterAddress != "" {
		req.ClusterAddress = config.CanonicalAddress(req.ClusterAddress, config.DefaultPort)
	}
	err := d.joiner.Join(ctx, req, progress)
	d.building.done()
	if err != nil && !errors.Is(err, api.JoinRunning) {
		d.settleJoin()
	}
	return err
}

// settleJoin lets a join that was cut off be settled in the background, if there is one.
func (d *Daemon) settleJoin() {
	d.joins.Go(func() {
		d.joiner.Resume(d.ctx)
		d.building.done()
	})
}

// holdAddress listens on a joining server's address until the join has ended; by then
// it is configured, or not needed any more.
func (d *Daemon) holdAddress(address string) (func(), error) {
	release, err := d.https.hold(address)
	if err != nil {
		return nil, err
	}
	return func() {
		release()
		if err := d.listen(); err != nil {
			d.log.Error("listen after a join", "err", err)
		}
	}, nil
}

// openJoining opens the replica that a join fills, beside the one in use.
func (d *Daemon) openJoining(rec *localstore.JoinRecord) (membership.Replica, error) {
	store, err := d.openReplica(rec.Replica, storePeers(rec.Peers, d.log), true, false)
	if err != nil {
		return nil, err
	}
	d.endpoint.Attach(store)
	return &joining{store, d}, nil
}

// joining is a replica that is not in use yet. Closing it also ends its connections.
type joining struct {
	*raftstore.Store
	daemon *Daemon
}

func (j *joining) Close() error {
	j.daemon.endpoint.Detach(j.Store)
	return j.Store.Close()
}

// discard deletes what a join that came to nothing had received, and what was made for it.
// What cannot be removed is noted, and the applier tries again.
func (d *Daemon) discard(rep localstore.Replica) error {
	if err := d.machine.Abandon(context.WithoutCancel(d.ctx), rep.ID); err != nil {
		d.log.Warn("what a join had made was not removed; it is tried again", "err", err)
	}
	d.removeReplica(rep.Dir)
	return nil
}

// adopt makes the filled replica this server's own. The local store's transaction is
// the moment it happens: a crash before it is settled at the next start, a crash after
// it finds the new replica in use. The old data are dropped last.
func (d *Daemon) adopt(rec *localstore.JoinRecord, r membership.Replica) error {
	d.settings.mu.Lock() // the addresses are chosen by those that are set
	defer d.settings.mu.Unlock()
	next, ok := r.(*joining)
	if !ok {
		return errors.New("not a replica of this daemon")
	}
	if d.current.Local().Cluster().Enabled {
		return api.Errorf(api.AlreadyClustered, "This server has become a member of another cluster, whose data a join would drop")
	}
	if err := d.local.SetConfig(d.joinedAddresses(rec.Address)); err != nil {
		return err
	}
	if err := d.local.SetPeers(rec.Peers); err != nil {
		return err
	}
	d.noteCommitted(next.Store)
	if _, err := d.local.FinishJoin(); err != nil {
		return err
	}
	d.reachPoint(membership.PointFinished)
	d.use(next.Store)
	d.log.Info("joined the cluster", "name", rec.Name, "address", rec.Address)
	return nil
}

// use makes next the replica in use, which the local store says already, and drops the old one.
func (d *Daemon) use(next *raftstore.Store) {
	old := d.current.store.Swap(next)
	d.watchFailure(next)
	d.announceSwap()
	if err := d.listen(); err != nil {
		d.log.Error("listen with the new replica", "err", err)
	}
	if err := saveClusterFiles(d.cfg.Paths, d.network); err != nil {
		d.log.Error("write the cluster certificate's files", "err", err)
	}
	d.endpoint.Detach(old)
	if err := old.Close(); err != nil {
		d.log.Warn("close the old replica", "err", err)
	}
	d.sweepReplicas()
}

// noteCommitted saves the commit hint at once: a member that is killed soon after its join,
// and comes back without a quorum, must know that it is one.
func (d *Daemon) noteCommitted(store *raftstore.Store) {
	ctx, cancel := context.WithTimeout(d.ctx, time.Second)
	defer cancel()
	if _, err := store.Read(ctx); err != nil {
		d.log.Debug("the new replica is not up to date", "err", err)
	}
	d.saveHint(store.ID(), store.Local().Index())
}

// reach tells a test of a named step, and returns its error if it wants this server to end there.
func (d *Daemon) reach(point string) error {
	if d.cfg.Reach == nil {
		return nil
	}
	return d.cfg.Reach(point)
}

// reachPoint is reach after a step that cannot be stopped any more.
func (d *Daemon) reachPoint(point string) {
	if err := d.reach(point); err != nil {
		d.log.Debug("stopped at a point", "point", point, "err", err)
	}
}

// joinedAddresses are the local keys of a server that joined under address.
func (d *Daemon) joinedAddresses(address string) map[string]string {
	set := map[string]string{"cluster.https_address": address}
	if d.local.Config()["core.https_address"] == "" {
		set["core.https_address"] = address
	}
	return set
}

func (d *Daemon) announceSwap() {
	d.swapMu.Lock()
	close(d.swapped)
	d.swapped = make(chan struct{})
	d.swapMu.Unlock()
}

func (d *Daemon) swap() <-chan struct{} {
	d.swapMu.Lock()
	defer d.swapMu.Unlock()
	return d.swapped
}
