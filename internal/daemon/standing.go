package daemon

import (
	"context"
	"time"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

const (
	// standingPause is the wait after a step of leaving the cluster that did not succeed.
	standingPause = time.Second
	// leaveTime bounds one try to tell the cluster that this member leaves.
	leaveTime = 5 * time.Second
	// resetCheck is how long a reset waits for a sign of the cluster that it would desert.
	resetCheck = 2 * time.Second
)

// Steps of leaving a cluster that Config.Reach is told of; each names what has just been done.
const (
	PointLeft        = "leave.left"    // the cluster has dropped this member
	PointEmptied     = "leave.emptied" // there is an empty replica beside the old one
	PointStartedOver = "leave.startedOver"
)

// watchStanding follows what the cluster does with this member. One that is being removed
// leaves as soon as the cluster can do without it; one that was removed becomes an empty
// standalone server, or, if it was not asked, keeps all it has and says so. It is the only one
// that replaces the replica by an empty or a restored one.
func (d *Daemon) watchStanding() {
	for {
		swapped := d.swap()
		store := d.current.store.Load()
		view := store.Local()
		done := d.standingStep(store, view)
		var removed <-chan struct{}
		if _, known := store.Removal(); !known {
			removed = store.WatchRemoval()
		}
		var again <-chan time.Time
		if !done {
			again = time.After(standingPause)
		}
		select {
		case <-view.WatchMembers():
		case <-removed:
		case <-again:
		case f := <-d.turns:
			f()
		case <-swapped:
		case <-d.ctx.Done():
			return
		}
	}
}

// standingStep does what is to be done about this member's removal, and tells whether it is.
func (d *Daemon) standingStep(store *raftstore.Store, view *raftstore.View) (done bool) {
	if _, removed := store.Removal(); !removed {
		if !membership.ReadyToLeave(view.View, store.ID()) {
			return true
		}
		if err := d.proposeLeave(store); err != nil {
			d.log.Info("this server is being removed, and no answer says yet that it may go", "err", err)
		}
	}
	r, removed := store.Removal()
	return removed && d.takeRemoval(store, r)
}

// proposeLeave tells the cluster that this member has given away all that it had.
func (d *Daemon) proposeLeave(store *raftstore.Store) error {
	ctx, cancel := context.WithTimeout(d.ctx, leaveTime)
	defer cancel()
	cmd, err := state.NewCommand(state.KindMemberLeave, uuid.NewString(), d.cfg.Now().UTC(), nil, state.MemberLeave{ID: store.ID()})
	if err != nil {
		return err
	}
	res, err := store.Propose(ctx, cmd)
	if err != nil {
		return err
	}
	return store.Left(res)
}

// takeRemoval does what the removal asks for, and tells whether that is done.
func (d *Daemon) takeRemoval(store *raftstore.Store, r *state.Removed) (done bool) {
	if err := d.reach(PointLeft); err != nil {
		return false
	}
	if r.Graceful {
		if err := d.startOver(store, func() error { return nil }); err != nil {
			d.log.Warn("this server was removed from its cluster and could not start over yet; trying again", "err", err)
			return false
		}
		d.log.Info("left the cluster; this is a standalone server now", "name", r.Name)
		return true
	}
	if noted, ok := d.local.Removal(); ok && noted.Replica == r.ID {
		return true
	}
	d.log.Error("this server was removed from its cluster without being asked; its data are kept. "+
		"To make it a clean standalone server: incus admin cluster reset", "name", r.Name, "at", r.At)
	err := d.local.SetRemoval(localstore.Removal{Replica: r.ID, Name: r.Name, At: r.At, Graceful: r.Graceful})
	if err != nil {
		d.log.Error("note the removal", "err", err)
	}
	return err == nil
}

// notedRemoval is what an earlier run has learned of the removal of the replica's member.
func (d *Daemon) notedRemoval(replica string) *state.Removed {
	noted, ok := d.local.Removal()
	if !ok || noted.Replica != replica {
		return nil
	}
	return &state.Removed{ID: noted.Replica, Name: noted.Name, At: noted.At, Graceful: noted.Graceful, Fingerprint: d.own.pair().Fingerprint()}
}

// inTurn lets watchStanding do f, which replaces the replica: one at a time, and awaited when the
// daemon stops. f goes on when ctx ends; what names it.
func (d *Daemon) inTurn(ctx context.Context, what string, f func() error) error {
	answer := make(chan error, 1)
	select {
	case d.turns <- func() { answer <- f() }:
	case <-ctx.Done():
		return api.Errorf(api.Timeout, "This server is busy leaving its cluster")
	case <-d.ctx.Done():
		return api.ShuttingDown
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return api.Errorf(api.OutcomeUnknown, "Outcome unknown: the %s goes on", what)
	}
}

// A turn is held by one at a time. Unlike a mutex it can be given up waiting for.
type turn chan struct{}

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }

// startOver makes this server a standalone one with an empty store, unless old is not the
// replica in use any more, or judge, which is asked last, refuses. The local store's transaction is the moment it happens: a crash
// before it leaves a folder that the next start sweeps away, a crash after it finds the new
// replica in use. Its own key and keys stay; what was made for the old replica is removed by
// the applier, since nobody owns it any more.
func (d *Daemon) startOver(old *raftstore.Store, judge func() error) error {
	if err := d.startingOver.take(d.ctx); err != nil {
		return api.ShuttingDown
	}
	defer d.startingOver.give()
	end, err := d.joiner.Begin()
	if err != nil {
		return err
	}
	defer end()
	if d.current.store.Load() != old {
		return api.Errorf(api.Conflict, "This server has left that cluster already")
	}
	id := uuid.NewString()
	rep := localstore.Replica{ID: id, Dir: id, ClusterID: uuid.NewString()}
	next, err := d.openReplica(rep, nil, true, true)
	if err != nil {
		return err
	}
	err = d.fillEmpty(next, rep, judge)
	keep := err == nil
	if keep {
		err = d.local.StartOver(rep)
	}
	if err != nil {
		if err := next.Close(); err != nil {
			d.log.Warn("close the empty replica", "err", err)
		}
		if !keep { // else it may be noted on the disk all the same
			d.removeReplica(rep.Dir)
		}
		return err
	}
	d.reachPoint(PointStartedOver)
	d.endpoint.Attach(next)
	d.use(next)
	d.applier.Kick()
	return nil
}

// awaitStartOver lets a server that has just left its cluster put the old one away, before it
// forms or joins the next.
func (d *Daemon) awaitStartOver() {
	if d.startingOver.take(d.ctx) == nil {
		d.startingOver.give()
	}
}

// fillEmpty makes the first entry of the empty replica, and judges for the last time.
func (d *Daemon) fillEmpty(next *raftstore.Store, rep localstore.Replica, judge func() error) error {
	if err := d.initCluster(next, rep.ClusterID); err != nil {
		return err
	}
	if err := d.reach(PointEmptied); err != nil {
		return err
	}
	return judge()
}

// isOut tells whether this server is known to have no part in its cluster any more.
func isOut(store *raftstore.Store) bool {
	_, removed := store.Removal()
	return removed || store.ShutOutReason() != nil
}

// reset makes this server a clean standalone one, unless it is a member of a cluster that works,
// or, without force, of one that does not answer at present. It is asked for one replica: another
// one that took its place meanwhile is not meant. It is judged at once, and again before it is
// done, since a member that was fenced or out of reach may be one of a working cluster by then.
func (d *Daemon) reset(ctx context.Context, force bool) error {
	select {
	case <-d.started:
	case <-ctx.Done():
		return api.Errorf(api.Unavailable, "Daemon is starting up")
	}
	store := d.current.store.Load()
	judge := func(ctx context.Context) error { return mayReset(ctx, store, force) }
	if err := judge(ctx); err != nil {
		return err
	}
	d.log.Warn("this server starts over as a standalone one: an administrator has reset it")
	return d.inTurn(ctx, "reset", func() error {
		return d.startOver(store, func() error { return judge(d.ctx) })
	})
}

// mayReset tells why the member whose replica it is must not become a standalone server; nil if
// it may. It blocks for resetCheck at most.
func mayReset(ctx context.Context, store *raftstore.Store, force bool) error {
	removed := isOut(store)
	view, working := store.Local(), false
	if view.Cluster().Enabled && !removed {
		short, cancel := context.WithTimeout(ctx, resetCheck)
		defer cancel()
		if fresh, err := store.Read(short); err == nil {
			view, working = fresh, true
		}
		removed = isOut(store)
	}
	return membership.MayReset(view.View, store.ID(), removed, working, force)
}
