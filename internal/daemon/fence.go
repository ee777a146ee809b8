package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// followPause is the time between two tries to follow a recovered cluster.
const followPause = 2 * time.Second

// shutOutReason is why this server takes no part in its cluster any more; nil if it does.
func (d *Daemon) shutOutReason() *api.Error {
	out, ok := d.local.ShutOut()
	if !ok {
		return nil
	}
	return &api.Error{Reason: api.Reason(out.Reason), Message: out.Message, Hint: out.Hint}
}

// noteShutOut keeps the reason over restarts. final says that nothing but a reset can follow.
func (d *Daemon) noteShutOut(reason *api.Error, final bool) {
	out := localstore.ShutOut{
		Reason: string(reason.Reason), Message: reason.Message, Hint: reason.NextStep(), Since: d.cfg.Now().UTC(), Final: final,
	}
	if err := d.local.SetShutOut(out); err != nil {
		d.log.Error("note that this member is shut out", "err", err)
	}
}

// onFenced is told that a recovery went on without this member.
func (d *Daemon) onFenced(reason *api.Error) {
	d.noteShutOut(reason, false)
	d.reachPoint(PointFenced)
	select {
	case d.fenced <- struct{}{}:
	default:
	}
}

// followRecoveries lets this member follow a recovered cluster that has shut it out, as often as
// that happens. It ends with the daemon.
func (d *Daemon) followRecoveries() {
	for {
		for d.followStep() {
			select {
			case <-time.After(followPause):
			case <-d.ctx.Done():
				return
			}
		}
		select {
		case <-d.fenced:
		case <-d.ctx.Done():
			return
		}
	}
}

// followStep makes the next step, if one is due, and tells whether to look again.
func (d *Daemon) followStep() (again bool) {
	store, err := d.current.get()
	if err != nil {
		return false
	}
	out, shut := d.local.ShutOut()
	at, pending := d.local.Readmission()
	switch {
	case shut && (out.Final || api.Reason(out.Reason) != api.MemberFenced):
		return false
	case !shut && pending:
		return d.readmit(store, at)
	case !shut:
		return false
	}
	// Shut out before it was readmitted, it follows the later recovery, and asks that cluster.
	ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
	defer cancel()
	view, err := store.FetchPresent(ctx)
	switch {
	case errors.Is(err, api.MemberFenced):
		d.giveUp(store, api.AsError(err))
		return false
	case err != nil:
		d.log.Debug("the recovered cluster's state is not here yet", "err", err)
		return true
	}
	if err := d.adoptPresent(store, view); err != nil {
		d.log.Error("follow the recovered cluster", "err", err)
	}
	return true
}

// giveUp notes that this member cannot follow the recovered cluster.
func (d *Daemon) giveUp(store *raftstore.Store, reason *api.Error) {
	d.log.Error("this member cannot follow the recovered cluster", "err", reason.Message, "hint", reason.NextStep())
	d.noteShutOut(reason, true)
	store.Replace(reason)
}

// adoptPresent replaces this member's replica by the state of the recovered cluster. The local store's
// transaction is the moment it happens: before it, the old replica is shut out and intact; after
// it, what is left is to be readmitted.
func (d *Daemon) adoptPresent(old *raftstore.Store, view *state.View) error {
	end, err := d.joiner.Begin()
	if err != nil {
		return err
	}
	defer end()
	if d.current.store.Load() != old {
		return nil // this server was reset meanwhile
	}
	at := old.Position()
	rep := localstore.Replica{
		ID: old.ID(), ClusterID: old.ClusterID(), Incarnation: view.Cluster().Incarnation,
		Dir: fmt.Sprintf("%s.%d", old.ID(), view.Cluster().Incarnation),
	}
	readmit := localstore.Readmission{Incarnation: at.Incarnation, Recovery: at.Recovery, Index: at.Index, Term: at.Term}
	return d.switchTo(view, localstore.Switch{Replica: rep, Readmit: &readmit})
}

// Steps of following a recovered cluster and of a restore that Config.Reach is told of.
const (
	// PointRebuilt: the new replica is on the disk, and the old one counts.
	PointRebuilt = "rebuilt"
	// PointSwitched: the new replica counts, and is not open yet.
	PointSwitched = "switched"
	// PointReadmitted: the recovered cluster counts this member, which has not noted it yet.
	PointReadmitted = "readmitted"
	// PointFenced: it is noted that this member is shut out.
	PointFenced = "fenced"
)

// switchTo makes a replica that holds view the one in use. After an error before the switch the old
// one still counts. After it this server is nothing without the new one, so that a failure ends the
// daemon; its next start opens it.
func (d *Daemon) switchTo(view *state.View, to localstore.Switch) error {
	err := raftstore.Build(d.replicaDir(to.Replica), view, view.Term())
	if err == nil {
		err = d.reach(PointRebuilt)
	}
	if err != nil {
		d.removeReplica(to.Replica.Dir)
		return err
	}
	if err := d.local.SwitchReplica(to); err != nil {
		return err // it may be on the disk all the same, so that both folders stay until the next start
	}
	d.reachPoint(PointSwitched)
	return d.useReplica(to.Replica)
}

// useReplica opens the replica that the local store names by now, in place of the one in use.
func (d *Daemon) useReplica(rep localstore.Replica) error {
	next, err := d.openReplica(rep, d.knownPeers(), false, false)
	if err != nil {
		d.fail(err)
		go d.Stop(context.Background())
		return err
	}
	d.endpoint.Attach(next)
	d.use(next)
	return nil
}

// readmit asks the recovered cluster to count this member as one of its own, unless it was reset.
func (d *Daemon) readmit(store *raftstore.Store, at localstore.Readmission) (again bool) {
	if d.startingOver.take(d.ctx) != nil {
		return false
	}
	defer d.startingOver.give()
	if d.current.store.Load() != store {
		return true
	}
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	err := store.Readmit(ctx, state.MemberReadmit{ID: store.ID(), Incarnation: at.Incarnation, Recovery: at.Recovery, Index: at.Index, Term: at.Term})
	switch {
	case errors.Is(err, api.MemberFenced), errors.Is(err, api.MemberRemoved):
		reason := api.AsError(err)
		store.ShutOut(reason)
		d.giveUp(store, reason)
	case err != nil:
		d.log.Debug("not readmitted yet", "err", err)
		return true
	default:
		d.reachPoint(PointReadmitted)
		d.log.Info("this member follows the recovered cluster", "incarnation", store.Local().Cluster().Incarnation)
	}
	if err := d.local.ClearReadmission(); err != nil {
		d.log.Error("note that this member was readmitted", "err", err)
	}
	return false
}
