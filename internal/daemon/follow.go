package daemon

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/tokens"
)

// follow keeps what this server has outside the replicated store true to it: the
// cluster certificate's files, and the members' addresses and certificates for a
// start without quorum.
func (d *Daemon) follow() {
	for {
		swapped := d.swap()
		view := d.current.Local()
		d.keep(view)
		select {
		case <-view.WatchMembers():
		case <-swapped:
		case <-d.ctx.Done():
			return
		}
	}
}

func (d *Daemon) keep(view *raftstore.View) {
	d.whereabouts.Store(d.location())
	if err := saveClusterFiles(d.cfg.Paths, d.network); err != nil {
		d.log.Error("write the cluster certificate's files", "err", err)
	}
	if err := d.local.NoteIncarnation(view.Cluster().Incarnation); err != nil {
		d.log.Error("note the cluster's incarnation", "err", err)
	}
	d.forgetMoves(view)
	// Before the replica has seen the present it may lack members that are noted already.
	if store := d.current.store.Load(); !view.Cluster().Enabled || !store.Synced() {
		return
	}
	peers := membersAsPeers(view)
	if slices.Equal(peers, d.local.Peers()) {
		return
	}
	if err := d.local.SetPeers(peers); err != nil {
		d.log.Error("note the members", "err", err)
	}
}

// forgetMoves drops the notes of moves that the cluster knows by now.
func (d *Daemon) forgetMoves(view *raftstore.View) {
	moved := d.local.Moved()
	noted := len(moved)
	maps.DeleteFunc(moved, func(id string, m localstore.Move) bool { return raftstore.Move(m).Spent(view.View, id) })
	if len(moved) == noted {
		return
	}
	if err := d.local.SetMoved(moved, nil); err != nil {
		d.log.Error("forget a move that the cluster knows", "err", err)
	}
}

func membersAsPeers(view *raftstore.View) []localstore.Peer {
	members := view.Members()
	peers := make([]localstore.Peer, len(members))
	for i, m := range members {
		peers[i] = localstore.Peer{ID: m.ID, Name: m.Name, Address: m.Address, Certificate: m.Certificate, Voter: view.IsVoter(m.ID)}
	}
	return peers
}

// publishApplied tells the events of applied entries. Those of a replica that a join is
// filling are old news.
func (d *Daemon) publishApplied(replica string, evs []state.Event) {
	if d.current.ID() != replica {
		return
	}
	for _, e := range evs {
		if e.Action != "" {
			d.publishLifecycle(e)
		}
		if e.Token != nil {
			d.publishToken(e.Token)
		}
	}
}

func (d *Daemon) issuerName(t *state.Token) string {
	if v := d.current.Local(); v != nil {
		return tokens.Location(v, t)
	}
	return "none"
}

func (d *Daemon) publishLifecycle(e state.Event) {
	at := e.Time
	if at.IsZero() {
		at = d.cfg.Now()
	}
	d.publish(api.Event{Type: api.EventLifecycle, Timestamp: at, Location: d.origin(e), Project: cmp.Or(e.Project, api.DefaultProject)}, api.EventLifecycleInfo{
		Action:    e.Action,
		Source:    e.Source,
		Context:   e.Context,
		Requestor: e.Requestor,
	})
}

// origin names the member where e happened. Every member emits the event; without this each
// would take it for its own.
func (d *Daemon) origin(e state.Event) string {
	if v := d.current.Local(); v != nil && v.Cluster().Enabled {
		if m, ok := v.Member(e.Origin); ok {
			return m.Name
		}
		if r, ok := v.Removed(e.Origin); ok { // it asked for its own removal
			return r.Name
		}
	}
	return d.location()
}

// publishToken tells that a token's operation changed. Like the token, it is in the
// default project.
func (d *Daemon) publishToken(t *state.Token) {
	op := tokens.Operation(t, d.issuerName(t), true)
	d.publish(api.Event{Type: api.EventOperation, Timestamp: d.cfg.Now(), Location: op.Location, Project: "default"}, op)
}

// publishOperation tells that an operation of this server changed, here and on the other
// members. It belongs to no project, so that every listener hears of it.
func (d *Daemon) publishOperation(op api.Operation) {
	d.rest.Relay(d.publish(api.Event{Type: api.EventOperation, Timestamp: d.cfg.Now(), Location: d.location()}, op))
}

func (d *Daemon) publish(e api.Event, metadata any) api.Event {
	data, err := json.Marshal(metadata)
	if err != nil {
		d.log.Error("encode an event", "err", err)
		return e
	}
	e.Metadata = data
	d.events.Publish(e)
	return e
}
