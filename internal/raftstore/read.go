package raftstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A View is what a read sees: the tables at one index, and who led then.
type View struct {
	*state.View
	// Leader is the leader's member ID, "" if none is known.
	Leader string
	// Stale is nil for a linearizable view, and says why it is not.
	Stale *Stale
	// Rivals are the members, by ID, that this one lately met as members of a cluster that was recovered
	// from the same one, independently. Only ReadOrStale gives them.
	Rivals map[string]bool
}

// Stale says that a view is only what this member last knew.
type Stale struct {
	Reason api.Reason
	// Message says more of a member that is shut out: by which recovery.
	Message string
	// Index is that of the last entry applied here.
	Index uint64
	// Since is when this member lost sight of a leader, or was removed.
	Since time.Time
	// Silent are the members that do not answer this one, by ID; nil if they were not asked yet.
	Silent map[string]bool
	// Quorum is who votes and who is missing; nil if they were not asked yet.
	Quorum *Quorum
}

// Local returns the local replica as it is. It may be behind, and does not block.
func (s *Store) Local() *View {
	return &View{View: s.fsm.state.View(), Leader: s.Leader()}
}

// Read returns a linearizable view: it holds every command that was acknowledged,
// anywhere, before Read was called. It blocks for about one exchange of messages,
// shared by all reads waiting at that moment. Without a leader it fails with
// api.NoQuorum when ctx ends, and within a second if there has been none for Timing.GiveUp.
func (s *Store) Read(ctx context.Context) (*View, error) {
	notice, err := s.readIndex(ctx)
	if err != nil {
		return nil, err
	}
	return &View{View: s.fsm.state.View(), Leader: notice.Leader}, nil
}

// Basis is a view to prepare a command from, which Apply judges again. A leader takes its
// own tables without asking anybody whether it still leads: if it does not, the command
// goes to the one that does, or is refused. On other members it is Read.
func (s *Store) Basis(ctx context.Context) (*View, error) {
	if term := s.raft.CurrentTerm(); s.leads(term) {
		if view := s.fsm.state.View(); view.Term() == term {
			return &View{View: view, Leader: s.cfg.ID}, nil
		}
	}
	return s.Read(ctx)
}

// ReadOrStale is Read for what describes the cluster itself, which must be answered
// when there is no quorum: within a second it falls back to the local replica, with
// Stale set.
func (s *Store) ReadOrStale(ctx context.Context) (*View, error) {
	if s.outcast() != nil {
		return s.staleView(time.Time{}), nil
	}
	if lost, since := s.leaderLost(); lost && time.Since(since) > s.cfg.Timing.StaleAfter {
		return s.staleView(since), nil // it has been gone for a while: do not wait again
	}
	short, cancel := context.WithTimeout(ctx, s.cfg.Timing.StaleAfter)
	defer cancel()
	v, err := s.Read(short)
	if err == nil {
		v.Rivals = s.rivals.list()
		return v, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	_, since := s.leaderLost()
	return s.staleView(since), nil
}

func (s *Store) staleView(since time.Time) *View {
	v := s.fsm.state.View()
	if r, removed := s.Removal(); removed {
		return &View{View: v, Stale: &Stale{Reason: api.MemberRemoved, Index: v.Index(), Since: r.At}}
	}
	stale := &Stale{Reason: api.NoQuorum, Index: v.Index(), Since: since, Silent: s.roll.get()}
	if out := s.shutOut.Load(); out != nil {
		stale.Reason, stale.Message, stale.Silent = out.Reason, out.Message, nil
	} else if q, ok := s.lostQuorum(); ok {
		stale.Quorum = &q
	}
	return &View{View: v, Stale: stale, Rivals: s.rivals.list()}
}

// noQuorum refuses for want of a leader. Once the others were asked it says who is missing;
// before, why this call came to nothing.
func (s *Store) noQuorum(why string) error {
	if err := s.outcast(); err != nil {
		return err
	}
	view := s.fsm.state.View()
	if q, ok := s.lostQuorum(); ok {
		why = q.describe(view)
	}
	return api.Errorf(api.NoQuorum, "No quorum: %s", why)
}

// A readRound is one confirmation of the read index, shared by all who wait for it.
type readRound struct {
	done   chan struct{}
	notice CommitNotice
	err    error
}

// readIndex blocks until this replica has reached an index that was current after
// readIndex was called.
func (s *Store) readIndex(ctx context.Context) (CommitNotice, error) {
	start := time.Now()
	var why error = errors.New("no leader is known")
	for {
		if err := s.outcast(); err != nil {
			return CommitNotice{}, err
		}
		changed := s.leaderChanged()
		notice, err := s.joinRound(ctx)
		if err == nil {
			return notice, nil
		}
		if ctx.Err() == nil {
			why = err
		}
		if s.givenUp(start) {
			return CommitNotice{}, s.noQuorum(why.Error())
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return CommitNotice{}, ctx.Err()
			}
			return CommitNotice{}, s.noQuorum(why.Error())
		case <-s.closed:
			return CommitNotice{}, errStopped
		}
	}
}

// joinRound waits for the round that begins after the one under way, if any: only
// what is asked after the read began counts.
func (s *Store) joinRound(ctx context.Context) (CommitNotice, error) {
	s.roundMu.Lock()
	r := s.nextRound
	if r == nil {
		r = &readRound{done: make(chan struct{})}
		s.nextRound = r
		if !s.roundRuns {
			s.roundRuns = s.spawn(s.runRounds)
		}
	}
	s.roundMu.Unlock()
	select {
	case <-r.done:
		return r.notice, r.err
	case <-ctx.Done():
		return CommitNotice{}, ctx.Err()
	case <-s.closed:
		return CommitNotice{}, errStopped
	}
}

// runRounds runs rounds as long as somebody waits.
func (s *Store) runRounds() {
	for {
		s.roundMu.Lock()
		r := s.nextRound
		s.nextRound = nil
		if r == nil {
			s.roundRuns = false
			s.roundMu.Unlock()
			return
		}
		s.roundMu.Unlock()
		r.notice, r.err = s.confirm(s.ctx)
		close(r.done)
	}
}

// confirm finds the read index and brings this replica up to it.
func (s *Store) confirm(ctx context.Context) (CommitNotice, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timing.Call)
	defer cancel()
	leader := s.Leader()
	switch leader {
	case "":
		return CommitNotice{}, errors.New("no leader is known")
	case s.cfg.ID:
		return s.leaderReadIndex(ctx)
	}
	callCtx, stop := withDone(ctx, s.leaderChanged())
	defer stop()
	var reply ReadIndexReply
	if err := s.call(callCtx, leader, "ReadIndex", &struct{}{}, &reply); err != nil {
		return CommitNotice{}, fmt.Errorf("ask the leader: %w", err)
	}
	if reply.Refused != "" {
		return CommitNotice{}, errors.New(reply.Refused)
	}
	if err := s.catchUp(ctx, reply.Commit); err != nil {
		return CommitNotice{}, fmt.Errorf("catch up with the leader: %w", err)
	}
	s.caughtUp.Store(true)
	return reply.Commit, nil
}

// catchUp blocks until this replica has applied what n says is committed. The entry
// may be on its way still, so the word that it is committed is given again.
func (s *Store) catchUp(ctx context.Context, n CommitNotice) error {
	const again = 3 * time.Millisecond
	changed := s.leaderChanged()
	for {
		select {
		case <-changed:
			// What a deposed leader said is still true, but repeating it would keep this
			// member from voting for the next.
			return errors.New("the leader changed")
		default:
		}
		if err := s.learn(ctx, n); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, again)
		err := s.fsm.wait(short, n.Index)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, errStopped) {
			return err
		}
		if s.snapshotIndex() >= n.Index {
			return nil // it came within a snapshot, which does not tell where its last configuration stood
		}
	}
}

// snapshotIndex is the index of Raft's last snapshot, taken or received.
func (s *Store) snapshotIndex() uint64 {
	index, err := strconv.ParseUint(s.raft.Stats()["last_snapshot_index"], 10, 64)
	if err != nil {
		return 0 // Raft writes a number there
	}
	return index
}

// leaderReadIndex is the leader's part. What was acknowledged is applied here first, so
// the applied index will do, provided that this member still led after the question:
// that a majority of the voters is still in its term proves it. (Raft's own VerifyLeader
// counts non-voters, and answers to questions asked before.)
func (s *Store) leaderReadIndex(ctx context.Context) (CommitNotice, error) {
	term := s.raft.CurrentTerm()
	if !s.leads(term) {
		return CommitNotice{}, errNotLeader
	}
	if s.fsm.state.View().Term() != term {
		// Entries of earlier terms may not all be applied yet.
		return CommitNotice{}, errors.New("the leader is new and not ready yet")
	}
	// A command of this term is applied, so whatever came last is of this term too.
	notice := CommitNotice{Leader: s.cfg.ID, Term: term, Index: s.fsm.applied.Load(), EntryTerm: term}
	if err := s.confirmTerm(ctx, term); err != nil {
		return CommitNotice{}, err
	}
	return notice, nil
}

// confirmTerm blocks until a majority of the voters, this member among them, has said
// that it is in term.
func (s *Store) confirmTerm(ctx context.Context, term uint64) error {
	return s.confirmTermBy(ctx, term, s.voters())
}

// voters lists the IDs of those that vote by Raft's latest configuration.
func (s *Store) voters() (ids []string) {
	for _, srv := range s.servers() {
		if srv.Voter {
			ids = append(ids, srv.ID)
		}
	}
	return ids
}

// confirmTermBy asks the voters that are named, of which this member is one.
func (s *Store) confirmTermBy(ctx context.Context, term uint64, voters []string) error {
	others := slices.DeleteFunc(slices.Clone(voters), func(id string) bool { return id == s.cfg.ID })
	need := len(voters) / 2 // besides this member, which must vote itself to lead
	if need > 0 {
		if err := s.askTerms(ctx, others, term, need); err != nil {
			return err
		}
	}
	if !s.leads(term) {
		return errNotLeader
	}
	return nil
}

func (s *Store) askTerms(ctx context.Context, ids []string, term uint64, need int) error {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan bool, len(ids))
	for _, id := range ids {
		s.spawn(func() {
			var reply TermReply
			err := s.call(ctx, id, "Term", &struct{}{}, &reply)
			answers <- err == nil && reply.Term == term
		})
	}
	defer cancel()
	agree := 0
	for range ids {
		select {
		case ok := <-answers:
			if ok {
				agree++
			}
			if agree >= need {
				return nil
			}
		case <-ctx.Done():
			return errors.New("a majority of the voters did not answer the leader in time")
		}
	}
	return errors.New("a majority of the voters does not follow this leader")
}

// leads tells whether this member is Raft's leader in term, by its own knowledge.
func (s *Store) leads(term uint64) bool {
	return s.raft.State() == raft.Leader && s.raft.CurrentTerm() == term
}

// learn takes what the leader says is committed, so that this replica need not wait
// for the next round of replication.
func (s *Store) learn(ctx context.Context, n CommitNotice) error {
	if n.Leader == s.cfg.ID || n.Index == 0 || s.fsm.applied.Load() >= n.Index {
		return nil
	}
	if s.raft.LastIndex() < n.Index {
		return nil // the entry itself is still on its way, and the commit comes with what follows
	}
	if s.raft.CommitIndex() < n.Index {
		if err := s.transport.inject(ctx, n); err != nil {
			return err
		}
	}
	return nil
}
