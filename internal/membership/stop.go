package membership

import (
	"context"
	"time"

	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// A StoppingStore is the replicated store on a member that is about to stop.
type StoppingStore interface {
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	ReadOrStale(ctx context.Context) (*raftstore.View, error)
	Local() *raftstore.View
	// ID is this member's.
	ID() string
}

const (
	// handoverPoll is how often a stopping member looks who leads, which no change of the
	// tables tells.
	handoverPoll = 20 * time.Millisecond
	// leaderless is how long a stopping member waits without a leader: what it waits for is
	// the leader's work.
	leaderless = time.Second
)

// StepDown says that this member is about to stop, and waits until it neither votes nor
// leads, or until nobody can take that. It waits for nothing where there is nobody to
// tell: on a standalone server, in the last member, and without a quorum. It fails when
// ctx ends first; the member may stop all the same.
func StepDown(ctx context.Context, store StoppingStore, now func() time.Time) error {
	if view := store.Local(); !view.Cluster().Enabled || len(view.Members()) < 2 {
		return nil
	}
	view, err := store.ReadOrStale(ctx)
	if err != nil || view.Stale != nil {
		return err
	}
	m, ok := view.Member(store.ID())
	if !ok {
		return nil
	}
	if !m.Stopping {
		if err := sayStopping(ctx, store, true, now); err != nil {
			return err
		}
	}
	var since time.Time // when there was no leader any more
	for {
		view := store.Local()
		switch {
		case view.Leader == "" && since.IsZero():
			since = time.Now()
		case view.Leader == "" && time.Since(since) >= leaderless, view.Leader != "" && mayStop(view, store.ID()):
			return nil
		case view.Leader != "":
			since = time.Time{}
		}
		if !sleep(ctx, handoverPoll, view.WatchMembers()) {
			return ctx.Err()
		}
	}
}

// ComeBack says that this member, which had said that it is about to stop, goes on.
func ComeBack(ctx context.Context, store StoppingStore, now func() time.Time) error {
	return sayStopping(ctx, store, false, now)
}

func sayStopping(ctx context.Context, store StoppingStore, stopping bool, now func() time.Time) error {
	body := state.MemberStopping{ID: store.ID(), Stopping: stopping}
	_, err := propose(ctx, store, state.KindMemberStopping, now(), nil, body)
	return err
}

// mayStop tells whether the member id has nothing left to hand over in view, or nobody
// to hand it to. All members that are online are taken to have the log.
func mayStop(view *raftstore.View, id string) bool {
	m, ok := view.Member(id)
	switch {
	case !ok:
		return true
	case !view.IsVoter(id) && view.Leader != id:
		return true
	case !m.Stopping && m.Maintenance != state.MaintenanceEvacuating && m.Maintenance != state.MaintenanceEvacuated:
		return false // the word that it stops has not arrived here
	}
	members := inOrder(candidates(view.View, view.Servers(), view.Leader, func(string) bool { return true }))
	if wantedRoles(members, targets(view.View))[id] != state.RoleVoter {
		return false
	}
	if view.Leader != id {
		return true
	}
	for _, c := range members {
		if c.Voter && c.Online && c.steady() && c.ID != id {
			return false
		}
	}
	return true
}
