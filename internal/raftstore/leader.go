package raftstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

var (
	errNotLeader = errors.New("this member does not lead")
	errStopped   = errors.New("the store is closed")
)

// leadership is what this member knows of who leads.
type leadership struct {
	mu      sync.Mutex
	leader  string        // believed leader's ID, "" if none
	lost    time.Time     // when the last leader was lost; the start, at first
	changed chan struct{} // closed and replaced when leader changes
	term    uint64        // the term that this member leads in, 0 if it does not
	ended   chan struct{} // closed when that ends
}

// Leader returns the ID of the member that this one believes to lead, "" if none.
func (s *Store) Leader() string {
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	return s.leadership.leader
}

// IsLeader tells whether this member believes that it leads.
func (s *Store) IsLeader() bool { return s.raft.State() == raft.Leader }

func (s *Store) leaderChanged() <-chan struct{} {
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	return s.leadership.changed
}

func (s *Store) leaderLost() (lost bool, since time.Time) {
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	return s.leadership.leader == "", s.leadership.lost
}

// givenUp tells whether a call that began at start should stop waiting for a leader:
// there has been none for so long that several elections have come to nothing, and either
// a majority of the voters did not answer just now, or the call has seen for itself that
// none comes.
func (s *Store) givenUp(start time.Time) bool {
	if s.outcast() != nil {
		return true
	}
	lost, since := s.leaderLost()
	if !lost || time.Since(since) <= s.cfg.Timing.GiveUp {
		return false
	}
	q, asked := s.lostQuorum()
	return asked && q.lost() || time.Since(start) > s.cfg.Timing.StaleAfter
}

// leadershipEnd is closed when this member does not lead in term any more.
func (s *Store) leadershipEnd(term uint64) <-chan struct{} {
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	if s.leadership.term == term && s.leadership.ended != nil {
		return s.leadership.ended
	}
	return alwaysClosed
}

var alwaysClosed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// watchLeader follows Raft's view of who leads. Raft may drop an observation, so each
// is only a reason to look, and a slow tick looks as well.
func (s *Store) watchLeader() {
	seen := make(chan raft.Observation, 16)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	s.raft.RegisterObserver(observer)
	defer s.raft.DeregisterObserver(observer)
	tick := time.NewTicker(s.cfg.Timing.Election)
	defer tick.Stop()
	for {
		_, id := s.raft.LeaderWithID()
		s.setLeader(string(id))
		select {
		case <-seen:
		case <-tick.C:
			if id != "" && !s.caughtUp.Load() {
				s.spawn(s.catchUpOnce)
			}
		case <-s.closed:
			return
		}
	}
}

// catchUpOnce asks the leader for the present state, in case nobody else does.
func (s *Store) catchUpOnce() {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timing.Election)
	defer cancel()
	if _, err := s.joinRound(ctx); err != nil {
		s.cfg.Logger.Debug("not caught up yet", "err", err)
	}
}

func (s *Store) setLeader(id string) {
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	if s.leadership.leader == id {
		return
	}
	if id == "" {
		s.leadership.lost = time.Now()
	}
	s.leadership.leader = id
	close(s.leadership.changed)
	s.leadership.changed = make(chan struct{})
	s.cfg.Logger.Info("leader changed", "leader", id, "term", s.raft.CurrentTerm())
}

// watchOwnLeadership runs what only a leader does, for as long as it leads.
func (s *Store) watchOwnLeadership(notify <-chan bool) {
	var stop func()
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for {
		select {
		case leads := <-notify:
			if stop != nil {
				stop()
				stop = nil
			}
			if leads {
				stop = s.startLeading()
			}
		case <-s.closed:
			return
		}
	}
}

func (s *Store) startLeading() (stop func()) {
	term := s.raft.CurrentTerm()
	ended := make(chan struct{})
	s.leadership.mu.Lock()
	s.leadership.term, s.leadership.ended = term, ended
	s.leadership.mu.Unlock()
	if s.leads(term) {
		s.setLeader(s.cfg.ID)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	s.transport.forgetMatches()
	wg.Go(func() { s.tellFenced(ctx) })
	wg.Go(func() {
		if !s.declareUntilDone(ctx, term) {
			return
		}
		if s.cfg.OnLeader != nil {
			s.cfg.OnLeader(ctx)
		}
	})
	return func() {
		s.leadership.mu.Lock()
		s.leadership.term = 0
		close(ended)
		s.leadership.mu.Unlock()
		cancel()
		wg.Wait()
	}
}

// declareUntilDone tells whether declare succeeded before this member stopped leading.
// A disk that was slow for a moment must not leave a leader that can do nothing.
func (s *Store) declareUntilDone(ctx context.Context, term uint64) bool {
	for {
		err := s.declare(ctx, term)
		if err == nil {
			return true
		}
		s.cfg.Logger.Warn("could not begin to lead", "term", term, "err", err)
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return false
		}
	}
}

// declare proposes the first entry of this term. Once it is applied, so is everything
// acknowledged before: Raft's own no-op would never show in the tables.
func (s *Store) declare(ctx context.Context, term uint64) error {
	cmd, err := state.NewCommand(state.KindLeaderElected, uuid.NewString(), s.cfg.Now().UTC(), nil,
		state.LeaderElected{ID: s.cfg.ID, Term: term})
	if err != nil {
		return err
	}
	reply := s.lead(ctx, cmd)
	switch {
	case reply.Refused != "":
		return errors.New(reply.Refused)
	case reply.Result.Err != nil:
		return reply.Result.Err
	}
	s.caughtUp.Store(true)
	return nil
}

// notifyPeers tells all members of the newest commit, at most one message under way
// to each. Who misses it learns with the next round of replication.
func (s *Store) notifyPeers() {
	for _, srv := range s.servers() {
		if srv.ID == s.cfg.ID {
			continue
		}
		s.noticeMu.Lock()
		n, ok := s.notices[srv.ID]
		if !ok {
			n = &notice{}
			s.notices[srv.ID] = n
		}
		start := !n.running
		n.running, n.again = true, n.running
		s.noticeMu.Unlock()
		if start && !s.spawn(func() { s.sendNotices(srv.ID, n) }) {
			return
		}
	}
}

// notice is the state of the messages to one member: one under way, and whether
// another is due.
type notice struct{ running, again bool }

func (s *Store) sendNotices(id string, n *notice) {
	for {
		if last, _ := s.transport.lastAnswer(id); time.Since(last) < s.cfg.Timing.Election*2 {
			term := s.raft.CurrentTerm()
			// As in leaderReadIndex: a command of this term is applied before the index is read,
			// and this member still led after it was. Else the index may be another leader's.
			ready := s.fsm.state.View().Term() == term
			msg := CommitNotice{Leader: s.cfg.ID, Term: term, Index: s.fsm.applied.Load(), EntryTerm: term}
			if ready && s.leads(term) {
				if err := s.call(s.ctx, id, "Commit", &msg, &struct{}{}); err != nil {
					s.cfg.Logger.Debug("commit notice not delivered", "member", id, "err", err)
				}
			}
		}
		s.noticeMu.Lock()
		if !n.again {
			n.running = false
			s.noticeMu.Unlock()
			return
		}
		n.again = false
		s.noticeMu.Unlock()
	}
}

// Servers returns Raft's latest configuration as this member knows it.
func (s *Store) Servers() []state.Server { return s.servers() }

func (s *Store) servers() []state.Server {
	future := s.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil
	}
	list := future.Configuration().Servers
	out := make([]state.Server, len(list))
	for i, srv := range list {
		out[i] = state.Server{ID: string(srv.ID), Voter: srv.Suffrage == raft.Voter}
	}
	return out
}

// LastAnswer tells how long ago, by the monotonic clock, a member last answered this
// one, and whether it did at all. It means something on the leader only.
func (s *Store) LastAnswer(id string) (ago time.Duration, heard bool) {
	last, _ := s.transport.lastAnswer(id)
	if last.IsZero() {
		return 0, false
	}
	return time.Since(last), true
}

// Answered wakes its reader when a member answers again after a silence.
func (s *Store) Answered() <-chan struct{} { return s.transport.answered }

// CaughtUp tells whether a member answers and has all but the newest entries.
func (s *Store) CaughtUp(id string) bool {
	if id == s.cfg.ID {
		return true
	}
	const slack = 64
	last, match := s.transport.lastAnswer(id)
	return time.Since(last) < s.cfg.Timing.Election*4 && match > 0 && match+slack >= s.raft.LastIndex()
}

// AddNonvoter adds a member to Raft's configuration. Only the leader can.
func (s *Store) AddNonvoter(ctx context.Context, id string) error {
	return s.changeServers(ctx, "add", s.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, s.cfg.Timing.Call))
}

// Promote gives a member a vote. Only the leader can.
func (s *Store) Promote(ctx context.Context, id string) error {
	if err := s.cfg.reach(PointPromote); err != nil {
		return err
	}
	if err := s.confirmVotes(ctx, id, true); err != nil {
		return err
	}
	if err := s.changeServers(ctx, "promote", s.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, s.cfg.Timing.Call)); err != nil {
		return err
	}
	return s.cfg.reach(PointPromoted)
}

// Demote takes a member's vote away. Only the leader can, and not from itself: Raft
// would let it, and stop it.
func (s *Store) Demote(ctx context.Context, id string) error {
	if id == s.cfg.ID {
		return errors.New("a leader cannot take its own vote away")
	}
	if err := s.cfg.reach(PointDemote); err != nil {
		return err
	}
	if err := s.confirmVotes(ctx, id, false); err != nil {
		return err
	}
	if err := s.changeServers(ctx, "demote", s.raft.DemoteVoter(raft.ServerID(id), 0, s.cfg.Timing.Call)); err != nil {
		return err
	}
	return s.cfg.reach(PointDemoted)
}

// Remove takes a member out of Raft's configuration. Only the leader can, and not itself.
func (s *Store) Remove(ctx context.Context, id string) error {
	if id == s.cfg.ID {
		return errors.New("a leader cannot remove itself")
	}
	if err := s.confirmVotes(ctx, id, false); err != nil {
		return err
	}
	return s.changeServers(ctx, "remove", s.raft.RemoveServer(raft.ServerID(id), 0, s.cfg.Timing.Call))
}

// confirmVotes blocks until a majority of those that will vote, when id does or does not, has
// answered after it was asked. A change that has begun counts at once: without them the leader
// could not commit it, and could not be outvoted by those that do not have it.
func (s *Store) confirmVotes(ctx context.Context, id string, votes bool) error {
	voters := slices.DeleteFunc(s.voters(), func(v string) bool { return v == id })
	if votes {
		voters = append(voters, id)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Call/2)
	defer cancel()
	if err := s.confirmTermBy(ctx, s.raft.CurrentTerm(), voters); err != nil {
		return fmt.Errorf("change who votes: %w", err)
	}
	return nil
}

// changeServers waits for a change of the configuration: Raft's own bound covers only
// the queue.
func (s *Store) changeServers(ctx context.Context, act string, future raft.IndexFuture) error {
	if err := s.await(ctx, future); err != nil {
		return fmt.Errorf("%s a member in Raft's configuration: %w", act, err)
	}
	s.notifyPeers()
	return nil
}

// await waits for one of Raft's futures. Those of entries that were committed while Raft
// shut down are never answered, so the waiting goroutine is not waited for in turn.
func (s *Store) await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-s.closed:
		return raft.ErrRaftShutdown
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TransferLeadership hands leadership to a voter. It succeeds only when that member
// was seen to lead; Raft itself reports success on any loss of leadership, and
// accepts a target that has no vote.
func (s *Store) TransferLeadership(ctx context.Context, to string) error {
	voter := false
	for _, srv := range s.servers() {
		voter = voter || srv.ID == to && srv.Voter
	}
	if !voter || to == s.cfg.ID {
		return api.Errorf(api.BadRequest, "leadership can go to another voter only")
	}
	if err := s.cfg.reach(PointTransfer); err != nil {
		return err
	}
	if err := s.confirmAnswer(ctx, to); err != nil {
		return err
	}
	if err := s.await(ctx, s.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))); err != nil {
		return err
	}
	for {
		changed := s.leaderChanged()
		switch leader := s.Leader(); leader {
		case to:
			return nil
		case "", s.cfg.ID:
		default:
			return fmt.Errorf("member %s leads now instead", leader)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closed:
			return errStopped
		}
	}
}

// confirmAnswer blocks until the member id has answered after it was asked. Raft may not end
// another transfer to a member that has died, and takes no entries while one is under way.
func (s *Store) confirmAnswer(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*s.cfg.Timing.Election)
	defer cancel()
	if s.askTerms(ctx, []string{id}, s.raft.CurrentTerm(), 1) != nil {
		return fmt.Errorf("member %s does not answer", id)
	}
	return nil
}

// Ready tells the leader, found through the members known here, that this new member
// listens and may be added. It blocks until it was added or ctx ends.
func (s *Store) Ready(ctx context.Context) error {
	return s.askUntilAnswered(ctx, "Ready", &struct{}{})
}

// askUntilAnswered calls the leader, which this member does not hear yet, for something that may be
// asked more than once. It blocks until the leader has answered or ctx ends.
func (s *Store) askUntilAnswered(ctx context.Context, method string, args any) error {
	last := errors.New("no member is known")
	for {
		next := s.peerIDs()
		for i := 0; i < len(next); i++ {
			var reply ReadyReply
			err := s.call(ctx, next[i], method, args, &reply)
			switch {
			case err != nil:
				last = err
			case reply.Err != nil:
				return reply.Err
			case reply.Refused == "":
				return nil
			default:
				last = errors.New(reply.Refused)
				next = slices.Concat(next[:i+1], named(reply.Leader, next[:i+1]), next[i+1:])
			}
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("no leader took this server in: %w (%v)", ctx.Err(), last)
		case <-s.closed:
			return errStopped
		}
	}
}

// named is the leader that was named, unless it was asked already.
func named(leader string, asked []string) []string {
	if leader == "" || slices.Contains(asked, leader) {
		return nil
	}
	return []string{leader}
}
