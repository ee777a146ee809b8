package membership

import (
	"context"
	"errors"
	"slices"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

const (
	// removeTime is how long a request waits for the end of the removal that it began.
	removeTime = 40 * time.Second
	// departTime is how long a request waits until the removed server knows.
	departTime = 5 * time.Second
	// lookTime is the pause between two looks at a removal while nothing is heard of it.
	lookTime = 100 * time.Millisecond
)

// RemoveMember removes the member of that name, and blocks until it is gone, within a bound:
// the removal then goes on by itself. It is harmless to repeat. It fails with MemberNotFound,
// LastMember, QuorumNeeded and, unless forced, MemberOffline and InUse; with Timeout when it
// goes on, and with OutcomeUnknown as raftstore.Propose does.
//
// With rotate the cluster gets another key afterwards, which the member does not have.
func (s *Admissions) RemoveMember(ctx context.Context, name string, force, rotate bool, requestor *api.EventRequestor) error {
	self := s.store.ID()
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	if !view.Cluster().Enabled {
		return api.NotClustered
	}
	m, ok := view.MemberByName(name)
	if !ok {
		return api.Errorf(api.MemberNotFound, "Failed to get member %q: Cluster member not found", name)
	}
	if err := s.propose(ctx, state.KindMemberRemove, requestor, state.MemberRemove{ID: m.ID, Force: force, RotateKey: rotate}, nil); err != nil {
		return err
	}
	s.log.Info("Removal of a member begun", "member", name, "force", force)
	ctx, cancel := context.WithTimeout(ctx, removeTime)
	defer cancel()
	if err := s.awaitRemoval(ctx, m, self); err != nil {
		return err
	}
	if m.ID != self && m.Fenced == 0 && !m.Offline {
		s.awaitDeparture(ctx, m)
	}
	s.log.Info("Member removed", "member", name)
	settle(ctx, s.store)
	if rotate && m.ID != self {
		return s.awaitRotation(ctx)
	}
	return nil
}

// awaitRemoval waits until m is no member. self is this server, which may be m: then it learns
// of the end as a refusal, or finds itself a standalone server.
func (s *Admissions) awaitRemoval(ctx context.Context, m *state.Member, self string) error {
	doing := "the cluster has not been heard since"
	for {
		var changed <-chan struct{}
		view, err := s.store.Read(ctx)
		switch {
		case errors.Is(err, api.MemberRemoved) && self == m.ID:
			return nil
		case err == nil:
			row, there := view.Member(m.ID)
			if !there {
				return nil
			}
			if row.Removal == nil {
				return api.Errorf(api.QuorumNeeded, "The removal of member %q was called off: no other member could take over", m.Name)
			}
			doing, changed = removalStep(view, row), view.WatchMembers()
		}
		if !sleep(ctx, lookTime, changed) {
			return api.Errorf(api.Timeout, "Member %q is still being removed: %s", m.Name, doing).
				WithHint("the removal goes on by itself, and is called off if no other member can take over: see MESSAGE in incus cluster list, or wait for it with the same command again")
		}
	}
}

// awaitDeparture waits, within a bound, until the server that was m knows that it is removed. It is told
// at its next word to any member; but if that one is gone by then, since it was removed as well or
// was the last, nobody is left who could tell.
func (s *Admissions) awaitDeparture(ctx context.Context, m *state.Member) {
	ctx, cancel := context.WithTimeout(ctx, departTime)
	defer cancel()
	for !s.store.Departed(ctx, m) {
		if !sleep(ctx, lookTime, nil) {
			s.log.Warn("A removed member does not know it yet", "member", m.Name)
			return
		}
	}
}

// removalStep says what the removal of m waits for.
func removalStep(view *raftstore.View, m *state.Member) string {
	switch {
	case view.Leader == m.ID:
		return "waiting for another member to lead"
	case view.IsVoter(m.ID):
		return "waiting for another member to take its vote"
	case m.Offline:
		return "waiting for the leader to drop it"
	}
	return "waiting for it to leave"
}

// AbortJoin ends the join of a server that is admitted under that name and is no member yet. It
// fails with MemberNotFound if there is none. It blocks until the change is committed.
func (s *Admissions) AbortJoin(ctx context.Context, name string) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	if !view.Cluster().Enabled {
		return api.NotClustered
	}
	for _, m := range view.Joining() {
		if m.Name == name {
			_, err := s.Abort(ctx, m.Fingerprint, m.ID)
			return err
		}
	}
	return api.Errorf(api.MemberNotFound, "Failed to get member %q: Cluster member not found", name)
}

// Leave makes this server leave its cluster. The last member turns clustering off and keeps
// what it has; any other is removed as by RemoveMember.
func (s *Admissions) Leave(ctx context.Context, requestor *api.EventRequestor) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	if !view.Cluster().Enabled {
		return api.NotClustered
	}
	self, ok := view.Member(s.store.ID())
	if !ok {
		return api.MemberNotFound
	}
	if len(view.Members()) > 1 {
		return s.RemoveMember(ctx, self.Name, false, false, requestor)
	}
	return s.propose(ctx, state.KindClusterDisable, requestor, state.ClusterDisable{MemberID: self.ID}, nil)
}

// ReadyToLeave tells whether the member with that ID is being removed and nothing in the
// cluster rests on it any more: it neither leads nor votes. It then proposes "member.leave"
// itself, as the last thing that it does.
func ReadyToLeave(view *state.View, id string) bool {
	m, ok := view.Member(id)
	return ok && m.State == state.MemberActive && m.Removal != nil &&
		len(view.Servers()) > 0 && !view.IsVoter(id) && view.Cluster().Leader != id
}

// MayReset refuses to make a member of a working cluster a standalone server: the cluster
// would go on counting it. working tells whether the cluster has just answered. Without an
// answer only force does it: the cluster may be back in a moment, and if it is not, this copy
// may be the one to recover it from.
func MayReset(view *state.View, id string, removed, working, force bool) error {
	m, ok := view.Member(id)
	switch {
	case !view.Cluster().Enabled:
		return api.Errorf(api.NotClustered, "This server is a standalone server already")
	case removed, !ok, m.Fenced > 0, !working && force:
		return nil
	case !working:
		return api.Errorf(api.NoQuorum, "This server was not removed from its cluster, which does not answer at present").
			WithHint("to go on with the cluster from this copy: incusd cluster recover-from-quorum-loss; to give it up: incus admin cluster reset --force")
	case len(view.Members()) == 1:
		return api.Errorf(api.Conflict, "This server is the only member of its cluster").
			WithHint("to end the cluster and keep what is here: incus admin cluster disable")
	case !slices.ContainsFunc(view.Members(), func(o *state.Member) bool { return o.ID != id && o.Fenced == 0 }):
		return api.Errorf(api.Conflict, "This server is the only member of its cluster that is not shut out").
			WithHint("to end the cluster: incus cluster remove --force for each of the others, then incus admin cluster disable")
	}
	return api.Errorf(api.Conflict, "This server is a member of a cluster that works, under the name %q", m.Name).
		WithHint("let it leave: incus cluster remove %s", m.Name)
}

// Bounds of a removal that a leader goes by, by its own clock and since it saw the removal
// first. They leave a member that is alive ample time to end it by itself.
const (
	leaveSilence  = 5 * time.Second  // without an answer, of a member that has no vote any more
	leaveTime     = 30 * time.Second // all in all, for one that has no vote any more
	forcedSilence = 2 * time.Second
	forcedTime    = 10 * time.Second
	orphanTime    = 30 * time.Second // without any member that could take over
	removalPause  = 500 * time.Millisecond
)

// A leaving member is one that is being removed, as the leader sees it.
type leaving struct {
	force, leads, votes, offline bool
	// spared tells whether Raft keeps a majority without it.
	spared bool
	// heirless tells for how long no other member could take over; 0 if one can.
	heirless      time.Duration
	known, silent time.Duration
}

// A verdict is what the leader does about a member that is being removed.
type verdict int

const (
	leaveAlone verdict = iota
	dropIt
	callOff
)

func (l leaving) verdict() verdict {
	switch {
	case l.heirless >= orphanTime:
		return callOff
	case l.leads, !l.spared:
	case l.force && (l.offline || l.silent >= forcedSilence || l.known >= forcedTime):
		return dropIt
	case !l.force && !l.votes && (l.offline || l.silent >= leaveSilence || l.known >= leaveTime):
		return dropIt
	}
	return leaveAlone
}

// endRemovals ends the removals of members that do not do so themselves.
func (t *term) endRemovals(ctx context.Context) {
	known, orphans := make(acquaintances), make(acquaintances)
	for {
		view := t.store.Local()
		underWay := t.removalsOf(view, known, orphans)
		for id, l := range underWay {
			if v := l.verdict(); v != leaveAlone {
				t.judgeRemoval(ctx, view, id, v)
				break // the next one is judged with this one gone
			}
		}
		pause := t.set.SweepInterval
		if len(underWay) > 0 {
			pause = removalPause
		}
		if !sleep(ctx, pause, view.WatchMembers()) {
			return
		}
	}
}

// removalsOf gathers the members that are being removed, by ID.
func (t *term) removalsOf(view *raftstore.View, known, orphans acquaintances) map[string]leaving {
	members := view.Members()
	known.keepOnly(members)
	orphans.keepOnly(members)
	out := make(map[string]leaving)
	for _, m := range members {
		if m.Removal == nil {
			delete(known, m.ID)
			delete(orphans, m.ID)
			continue
		}
		since := known.meet(m.ID)
		silent, _ := t.silence(m.ID, since)
		l := leaving{
			force: m.Removal.Force, leads: m.ID == t.store.ID(), offline: m.Offline || m.Fenced > 0,
			known: time.Since(since), silent: silent,
		}
		l.votes, l.spared = t.votesWithout(view, m.ID)
		if state.CanTakeOver(others(view, m.Fingerprint)) {
			delete(orphans, m.ID)
		} else {
			l.heirless = time.Since(orphans.meet(m.ID))
		}
		out[m.ID] = l
	}
	return out
}

// votesWithout tells whether id votes in Raft, and whether the other members that answer are a
// majority all the same. A server that was a member until just now answers no more.
func (t *term) votesWithout(view *raftstore.View, id string) (votes, spared bool) {
	voters, answering := 0, 0
	for _, s := range t.raft.Servers() {
		if !s.Voter {
			continue
		}
		voters++
		_, member := view.Member(s.ID)
		switch {
		case s.ID == id:
			votes = true
		case s.ID == t.store.ID() || member && t.answers(s.ID):
			answering++
		}
	}
	return votes, majority(answering, voters)
}

func (t *term) judgeRemoval(ctx context.Context, view *raftstore.View, id string, v verdict) {
	var err error
	name := memberName(view, id)
	switch v {
	case dropIt:
		err = t.propose(ctx, state.KindMemberLeave, state.MemberLeave{ID: id})
	case callOff:
		err = t.propose(ctx, state.KindMemberRemove, state.MemberRemove{ID: id, Cancel: true})
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		t.log.Warn("The removal of a member was not ended; trying again", "member", name, "err", err)
	case v == callOff:
		t.log.Warn("The removal of a member was called off: no other member can take over", "member", name)
	default:
		t.log.Info("Member removed; it did not take part", "member", name)
	}
}
