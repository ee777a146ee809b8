package raftstore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"incusd/internal/raftstore/state"
)

// How this replica is, and what the leader knows of the others: for people who look. None
// of it is asked for while nobody does.

// Health is how a replica is at one moment.
type Health struct {
	// State is Raft's: leader, follower, candidate or shutdown.
	State                                                     string
	Term, LastIndex, CommitIndex, AppliedIndex, SnapshotIndex uint64
	// Leader is the member that this one follows, by ID; empty if there is none, for NoLeader.
	Leader   string
	NoLeader time.Duration
	Writes   Writes
}

// Writes are the recent writes to the log.
type Writes struct {
	Count         int
	P50, P99, Max time.Duration
	// Stalled is how long the one under way has taken so far; 0 if there is none.
	Stalled time.Duration
}

// Health does not block, whatever the network and the disk do.
func (s *Store) Health() Health {
	h := Health{
		State:         strings.ToLower(s.raft.State().String()),
		Term:          s.raft.CurrentTerm(),
		LastIndex:     s.raft.LastIndex(),
		CommitIndex:   s.raft.CommitIndex(),
		AppliedIndex:  s.fsm.applied.Load(),
		SnapshotIndex: s.snapshotIndex(),
		Leader:        s.Leader(),
		Writes:        s.log.recent.summary(time.Now()),
	}
	h.Writes.Stalled = s.log.underWay()
	if lost, since := s.leaderLost(); lost {
		h.NoLeader = time.Since(since)
	}
	return h
}

// Probe connects to the member with that ID anew, as a connection of Raft would, and tells
// how long that took. Whether an error came after the connection was taken can be found in
// it: see connectedError.
func (s *Store) Probe(ctx context.Context, id string) (time.Duration, error) {
	began := time.Now()
	conn, err := s.dial(ctx, id, purposeCall)
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	return took, conn.Close()
}

// A connectedError says that the other end took the connection, and why nothing came of it.
type connectedError struct {
	address string
	err     error
}

func (e *connectedError) Error() string {
	return "connect to member at " + e.address + ": " + e.err.Error()
}

func (e *connectedError) Unwrap() error { return e.err }

// Connected tells a member that hangs from one that is not there.
func (e *connectedError) Connected() bool { return true }

// Contacts are what a member knows of the others.
type Contacts struct {
	// From is the member whose knowledge this is, by ID.
	From string
	// Leads is true if it leads: only then Match and Heard are about now.
	Leads           bool
	Term, LastIndex uint64
	Members         []Contact
}

// A Contact is what is known of one member.
type Contact struct {
	ID string
	// Match is the newest entry known to be in its log; 0 if that is not known.
	Match uint64
	// Ago is how long ago it last answered; Heard is false if it never did.
	Ago   time.Duration
	Heard bool
}

// Contacts asks the leader what it knows of the members. If there is none, or it does not
// answer before ctx ends or within Timing.Call, it is what this member knows by itself.
func (s *Store) Contacts(ctx context.Context) Contacts {
	if leader := s.Leader(); leader != "" && leader != s.cfg.ID {
		var reply Contacts
		if err := s.call(ctx, leader, "Contacts", &struct{}{}, &reply); err == nil && reply.Leads {
			return reply
		}
	}
	return s.ownContacts()
}

// Contacts answers another member.
func (c *calls) Contacts(_ *struct{}, reply *Contacts) error {
	if err := c.known(); err != nil {
		return err
	}
	*reply = c.store.ownContacts()
	return nil
}

func (s *Store) ownContacts() Contacts {
	term := s.raft.CurrentTerm()
	out := Contacts{From: s.cfg.ID, Leads: s.leads(term), Term: term, LastIndex: s.raft.LastIndex()}
	for _, srv := range s.servers() {
		if srv.ID != s.cfg.ID {
			out.Members = append(out.Members, s.contact(srv))
		}
	}
	return out
}

func (s *Store) contact(srv state.Server) Contact {
	_, match := s.transport.lastAnswer(srv.ID)
	c := Contact{ID: srv.ID, Match: match}
	c.Ago, c.Heard = s.LastAnswer(srv.ID)
	return c
}

const (
	// keptWrites bounds the memory of recent writes, and writeAge how old they may be.
	keptWrites = 256
	writeAge   = 5 * time.Minute
)

// recentWrites remembers how long the last writes to the log took.
type recentWrites struct {
	mu   sync.Mutex
	ring [keptWrites]logWrite
	next int
}

type logWrite struct {
	at   time.Time // zero where there was none yet
	took time.Duration
}

func (w *recentWrites) add(at time.Time, took time.Duration) {
	w.mu.Lock()
	w.ring[w.next] = logWrite{at, took}
	w.next = (w.next + 1) % keptWrites
	w.mu.Unlock()
}

// summary is about the writes of the time before now.
func (w *recentWrites) summary(now time.Time) Writes {
	w.mu.Lock()
	ring := w.ring
	w.mu.Unlock()
	var took []time.Duration
	for _, write := range ring {
		if !write.at.IsZero() && now.Sub(write.at) <= writeAge {
			took = append(took, write.took)
		}
	}
	if len(took) == 0 {
		return Writes{}
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100] }
	return Writes{Count: len(took), P50: at(50), P99: at(99), Max: took[len(took)-1]}
}
