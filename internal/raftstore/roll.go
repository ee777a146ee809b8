package raftstore

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"slices"
	"strings"
	"sync"
	"time"

	"incusd/internal/raftstore/state"
)

// rollPause is the time between two roll calls.
const rollPause = time.Second

// A roll is who answered the last time that this member asked all others. Only while there is
// no leader does it ask: otherwise the leader knows, and says so in the tables.
type roll struct {
	mu     sync.Mutex
	silent map[string]bool // by member ID; nil if nobody was asked yet
}

func (r *roll) set(silent map[string]bool) {
	r.mu.Lock()
	r.silent = silent
	r.mu.Unlock()
}

func (r *roll) get() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.silent
}

// watchRoll calls the roll as long as there is no leader.
func (s *Store) watchRoll() {
	for {
		changed := s.leaderChanged()
		var next <-chan time.Time
		lost, since := s.leaderLost()
		switch early := s.cfg.Timing.StaleAfter/2 - time.Since(since); {
		case !lost:
			s.roll.set(nil)
		case early > 0: // most elections end before
			next = time.After(early)
		default:
			s.roll.set(s.callRoll())
			next = time.After(rollPause)
		}
		select {
		case <-changed:
		case <-next:
		case <-s.standing.known: // nobody speaks to this one any more
			s.roll.set(nil)
			return
		case <-s.closed:
			return
		}
	}
}

// callRoll asks all other members at the same time, and returns who did not answer within
// the time of an election.
func (s *Store) callRoll() map[string]bool {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timing.Election)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	silent := make(map[string]bool)
	for _, id := range s.peerIDs() {
		wg.Go(func() {
			err := s.call(ctx, id, "Term", &struct{}{}, &TermReply{})
			if refused := rpc.ServerError(""); err == nil || errors.As(err, &refused) {
				return
			}
			mu.Lock()
			silent[id] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	return silent
}

// A Quorum is who votes, and who of them answers this member.
type Quorum struct {
	// Voters are the IDs of all, Missing of those that do not answer.
	Voters, Missing []string
}

// lost tells whether too few voters answer to elect a leader.
func (q Quorum) lost() bool { return len(q.Voters)-len(q.Missing) <= len(q.Voters)/2 }

// lostQuorum is what the last roll call says of the voters; false if there was none. The voters are
// those of the latest configuration in the log, committed or not, since Raft counts by that one.
func (s *Store) lostQuorum() (Quorum, bool) {
	silent := s.roll.get()
	if silent == nil {
		return Quorum{}, false
	}
	var q Quorum
	for _, srv := range s.servers() {
		if !srv.Voter {
			continue
		}
		q.Voters = append(q.Voters, srv.ID)
		if silent[srv.ID] {
			q.Missing = append(q.Missing, srv.ID)
		}
	}
	return q, true
}

// describe says it in words, with names.
func (q Quorum) describe(view *state.View) string {
	present := len(q.Voters) - len(q.Missing)
	text := fmt.Sprintf("%d of %d voters answer", present, len(q.Voters))
	if present == 1 {
		text += "s"
	}
	if len(q.Missing) == 0 {
		return text + "; a leader is being elected"
	}
	var names []string
	for _, id := range q.Missing {
		name := id
		if m, ok := view.Member(id); ok {
			name = fmt.Sprintf("%s (%s)", m.Name, m.Address)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return text + "; missing: " + strings.Join(names, ", ")
}
