package daemon

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	restapi "incusd/internal/api"
	"incusd/internal/config"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/recovery"
	"incusd/internal/trust"
)

// Offline says where the stores of a server are, for work on them while its daemon is stopped.
func (p Paths) Offline() recovery.Files {
	return recovery.Files{Dir: p.Dir, Database: p.database(), LocalStore: p.localStore(), Replicas: p.replicas()}
}

// recoverer is the daemon as the REST API sees it when it shows, saves or replaces its state.
type recoverer Daemon

func (r *recoverer) Database() (api.ClusterDatabase, error) {
	d := (*Daemon)(r)
	store, err := d.current.get()
	if err != nil {
		return api.ClusterDatabase{}, err
	}
	return recovery.Describe(store.Local().View, store.LastIndex(), d.local.Moved()), nil
}

// RemoveRaftNode waits for what the leader does by itself: a server without a member's row is taken
// out of Raft's configuration.
func (r *recoverer) RemoveRaftNode(ctx context.Context, address string) error {
	d := (*Daemon)(r)
	store, err := d.current.get()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	view, err := store.Read(ctx)
	if err != nil {
		return err
	}
	for _, m := range view.Members() {
		if m.Address == address || m.ID == address {
			return api.Errorf(api.InUse, "The Raft node with address %q is the member %q", address, m.Name).
				WithHint("remove the member: incus cluster remove %s", m.Name)
		}
	}
	for found := false; ; found = true {
		if !inRaft(store, address) {
			if found {
				return nil
			}
			return api.Errorf(api.NotFound, "No raft node with address %q", address).
				WithHint("a Raft node is named by its ID; incusd cluster show lists the members")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return api.Errorf(api.Timeout, "The leader has not removed the Raft node %q yet", address)
		}
	}
}

func inRaft(store *raftstore.Store, id string) bool {
	for _, srv := range store.Servers() {
		if srv.ID == id {
			return true
		}
	}
	return false
}

func (r *recoverer) Backup(ctx context.Context, w io.Writer) error {
	d := (*Daemon)(r)
	view, err := d.current.Read(ctx)
	if err != nil {
		return err
	}
	return recovery.WriteBackup(w, view.View, d.cfg.Now().UTC())
}

// Restore replaces this server's replica by one made from a backup. As when a member follows a
// recovered cluster, one transaction of the local store is the moment it happens.
func (r *recoverer) Restore(ctx context.Context, in io.Reader, name, address string) (api.ClusterRestored, error) {
	d := (*Daemon)(r)
	header, tables, err := recovery.ReadBackup(in)
	if err != nil {
		return api.ClusterRestored{}, err
	}
	if address != "" {
		if address, err = membership.MemberAddress(address); err != nil {
			return api.ClusterRestored{}, err
		}
	}
	var out api.ClusterRestored // written by the turn, which may outlast this call
	err = d.inTurn(ctx, "restore", func() error {
		restored, err := d.restore(tables, name, address)
		if err != nil {
			return err
		}
		self := restored.View.Members()[0]
		d.log.Info("restored from a backup", "name", self.Name, "address", self.Address, "index", header.Index)
		out = api.ClusterRestored{
			ServerName: self.Name, Address: self.Address, Index: header.Index, CreatedAt: header.CreatedAt,
			Forgotten: append([]string{}, restored.Forgotten...), RevokedTokens: append([]string{}, restored.Revoked...),
			Certificates: trustedAgain(restored.View),
		}
		return nil
	})
	if err != nil {
		return api.ClusterRestored{}, err
	}
	return out, nil
}

// restore refuses all other changes until it is done: one that was acknowledged after the server was
// found empty would be lost.
func (d *Daemon) restore(tables *state.Store, name, address string) (r recovery.Restoration, err error) {
	end, err := d.joiner.Begin()
	if err != nil {
		return r, err
	}
	defer end()
	d.settings.mu.Lock()
	defer d.settings.mu.Unlock()
	store, err := d.current.get()
	if err != nil {
		return r, err
	}
	release := store.Hold(api.Errorf(api.Conflict, "This server is being restored from a backup").WithHint("try again when that is done"))
	defer release()
	if err := d.mustBeEmpty(store.Local().View); err != nil {
		return r, err
	}
	if r, err = recovery.Restored(tables, d.place(name, address), d.cfg.Now().UTC()); err != nil {
		return r, err
	}
	return r, d.useRestored(r.View, r.View.Members()[0])
}

// trustedAgain names the clients that the restored cluster trusts.
func trustedAgain(view *state.View) []api.RestoredCertificate {
	list := []api.RestoredCertificate{}
	for _, c := range view.Certificates() {
		list = append(list, api.RestoredCertificate{Fingerprint: c.Fingerprint, Name: c.Name, Type: c.Type})
	}
	return list
}

// mustBeEmpty refuses to restore where it would drop something unseen.
func (d *Daemon) mustBeEmpty(view *state.View) error {
	if view.Cluster().Enabled {
		return api.Errorf(api.AlreadyClustered, "This server is a member of a cluster").
			WithHint("if a restore was cut off here, it is done: look through incus cluster list and incus config trust list; " +
				"if not, restore on a new server, or make this one a standalone one first")
	}
	var has []string
	for _, kind := range []string{state.EntityPool, state.EntityNetwork, state.EntityVolume} {
		for _, e := range view.Entities(kind) {
			has = append(has, strings.ReplaceAll(kind, "-", " ")+" "+e.Name)
		}
	}
	if len(has) == 0 && len(d.local.Made()) > 0 {
		has = append(has, "what is being removed")
	}
	if len(has) > 0 {
		return api.Errorf(api.InUse, "This server is not empty: it has %s", strings.Join(has, ", ")).
			WithHint("remove that first, or restore on a new server")
	}
	return nil
}

// place is who this server is to be.
func (d *Daemon) place(name, address string) recovery.Place {
	p := recovery.Place{Name: name, Address: address, Own: state.Member{
		ID: uuid.NewString(), Certificate: trust.EncodePEM(d.own.pair().Cert), Fingerprint: d.own.pair().Fingerprint(),
		Architecture: restapi.Architecture(), CommandVersion: state.CommandVersion,
	}}
	local := d.local.Config()
	for _, key := range []string{keyClusterAddress, keyCoreAddress} {
		if a := local[key]; a != "" && !config.IsWildcard(a) {
			p.Addresses = append(p.Addresses, config.CanonicalAddress(a, config.DefaultPort))
		}
	}
	return p
}

func (d *Daemon) useRestored(view *state.View, self *state.Member) error {
	rep := localstore.Replica{ID: self.ID, Dir: self.ID, ClusterID: view.Cluster().ID, Incarnation: view.Cluster().Incarnation}
	to := localstore.Switch{Replica: rep, Peers: []localstore.Peer{}}
	if self.Address != "" {
		release, err := d.https.hold(self.Address)
		if err != nil {
			return err
		}
		defer d.listenAgain()
		defer release()
		to.Config = d.joinedAddresses(self.Address)
	}
	if err := d.switchTo(view, to); err != nil {
		return err
	}
	d.applier.Kick()
	// The restore counts by now, whatever this says.
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	if _, err := d.current.Read(ctx); err != nil {
		d.log.Warn("restored from a backup, and not ready yet", "err", err)
	}
	return nil
}
