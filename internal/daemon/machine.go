package daemon

import (
	"context"
	"io"
	"sync/atomic"

	"incusd/api"
	"incusd/internal/entities"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/network"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/storage"
)

// openMachine makes what turns the cluster's entities into pools and networks of this server.
func (d *Daemon) openMachine() {
	if d.cfg.Storage == nil {
		d.cfg.Storage = storage.New(storage.Config{Dir: d.cfg.Paths.Dir, Log: d.log})
	}
	if d.cfg.Network == nil {
		d.cfg.Network = network.New(network.Config{Dir: d.cfg.Paths.Dir, Owner: d.networkOwner, Log: d.log})
	}
	d.wg.Go(func() { d.cfg.Storage.Supported() }) // calls tools: nobody shall wait for that at the first request
	d.machine = entities.NewMachine(entities.MachineConfig{
		Notes: d.local, Storage: d.cfg.Storage, Network: d.cfg.Network, Reach: d.cfg.Reach,
	})
	d.entities = entities.NewService(d.current, d.machine, d.cfg.Now, d.log)
	d.applier = entities.NewApplier(d.current, d.machine, d.replicaIDs, d.cfg.Now, d.log)
}

// closeMachine ends the processes that networks need; pools and networks stay as they are.
func (d *Daemon) closeMachine() {
	closer, ok := d.cfg.Network.(io.Closer)
	if !ok {
		return
	}
	if err := closer.Close(); err != nil {
		d.log.Error("end what networks need", "err", err)
	}
}

// replicaIDs are those of the replica that a join fills and of the one in use. The join is looked
// at first: when it ends well, its replica becomes the one in use in the same transaction.
func (d *Daemon) replicaIDs() []string {
	var ids []string
	if rec, ok := d.local.Join(); ok {
		ids = append(ids, rec.Replica.ID)
	}
	if rep, ok := d.local.Current(); ok {
		ids = append(ids, rep.ID)
	}
	return ids
}

// networkOwner is the cluster whose networks are being made: the one to join, while there is one.
func (d *Daemon) networkOwner() string {
	if id := d.building.cluster.Load(); id != nil && *id != "" {
		return *id
	}
	if view := d.current.Local(); view != nil {
		return view.Cluster().ID
	}
	return ""
}

// builder makes the pools and networks of the cluster that this server joins.
type builder struct {
	daemon *Daemon
	// cluster is the ID of the cluster that is being joined.
	cluster atomic.Pointer[string]
}

func (b *builder) Check(ctx context.Context, report *membership.JoinReport, values []api.ClusterMemberConfigKey) []api.Error {
	b.cluster.Store(&report.ClusterID)
	for _, v := range entities.IgnoredKeys(report.Entities, values) {
		b.daemon.log.Warn("ignored a key that is not member-specific", "entity", v.Entity, "name", v.Name, "key", v.Key)
	}
	return b.daemon.machine.CheckJoin(ctx, report.Entities, values)
}

func (b *builder) Make(ctx context.Context, rec *localstore.JoinRecord, view *raftstore.View, values []api.ClusterMemberConfigKey) (map[string]state.EntityMember, error) {
	b.cluster.Store(&rec.Replica.ClusterID)
	return b.daemon.machine.MakeJoining(ctx, rec.Replica.ID, view, values)
}

// done is called when a join has ended, whichever way.
func (b *builder) done() {
	b.cluster.Store(nil)
	b.daemon.applier.Kick()
}

// inventory is what the cluster tells a server that joins it.
type inventory struct{}

func (inventory) MemberConfig(view *raftstore.View, memberID string) []api.ClusterMemberConfigKey {
	return entities.MemberConfig(view, memberID)
}

func (inventory) JoinEntities(view *raftstore.View) []api.JoinEntity {
	return entities.JoinEntities(view)
}
