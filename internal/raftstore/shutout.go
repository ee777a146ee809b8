package raftstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A member that is shut out takes no part in the cluster any more: it neither votes nor stands
// for election, takes no entry and gives none. It stays up to say so, and shows what it last knew.

// ShutOut makes this member stop taking part, for that reason, once for all. All that waits for
// the cluster ends with it. It is harmless when repeated: the first reason stays.
func (s *Store) ShutOut(reason *api.Error) {
	if !s.shutOut.CompareAndSwap(nil, reason) {
		return
	}
	s.cfg.Logger.Error("this member takes no part in its cluster any more", "reason", reason.Reason, "err", reason.Message)
	s.stopRaft() // its files stay open, for what is shown
	s.conns.closeIf(func(string) bool { return true })
	s.clients.closeAll()
}

// Replace gives what shut this member out in other words, once more is known.
func (s *Store) Replace(reason *api.Error) { s.shutOut.Store(reason) }

// ShutOutReason is why this member takes no part any more; nil while it does.
func (s *Store) ShutOutReason() *api.Error { return s.shutOut.Load() }

// learnFenced is called when another member, whose key was proved, is of a later incarnation
// than this one. From here on this member takes no part any more.
func (s *Store) learnFenced(by string, reason *api.Error) {
	if s.outcast() != nil {
		return
	}
	s.ShutOut(reason)
	s.spawn(func() {
		reason := s.explain(by, reason)
		s.shutOut.Store(reason)
		if s.cfg.OnFenced != nil {
			s.cfg.OnFenced(reason)
		}
	})
}

// askIfNewer opens a connection to a fenced member that says to be of a later lineage. Its key alone
// must not shut anybody out: machines that a recovery has left behind are given away, and their
// keys with them. Who answers where the tables have it is believed, as everybody else is.
func (s *Store) askIfNewer(id string) {
	if !s.confirming.CompareAndSwap(false, true) {
		return
	}
	if !s.spawn(func() {
		defer s.confirming.Store(false)
		if conn, err := s.dial(s.ctx, id, purposeCall); err == nil {
			conn.Close()
		}
	}) {
		s.confirming.Store(false)
	}
}

// explain asks the member that was met, in whose log the recovery is, how it came about.
func (s *Store) explain(by string, reason *api.Error) *api.Error {
	peer, ok := s.peer(by)
	if !ok {
		return reason
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timing.Call)
	defer cancel()
	conn, err := s.link().open(ctx, peer, purposeCall)
	var refused *refusedError
	switch {
	case err == nil:
		conn.Close()
	case errors.As(err, &refused) && s.lineage().of(refused.Lineage) == kinNewer:
		return refused.welcome.Error
	}
	return reason
}

// fencedPause is how often a leader tells the members that a recovery has fenced.
const fencedPause = 2 * time.Second

// maxTelling bounds how many it tells at the same time.
const maxTelling = 16

// tellFenced opens a connection to each fenced member now and then, until ctx ends: who runs on
// in an earlier incarnation learns from its opening that there is a later one.
func (s *Store) tellFenced(ctx context.Context) {
	for {
		view := s.fsm.state.View()
		s.tell(ctx, fenced(view))
		select {
		case <-time.After(fencedPause):
		case <-ctx.Done():
			return
		}
	}
}

func fenced(view *state.View) []string {
	var ids []string
	for _, m := range view.Members() {
		if m.Fenced != 0 {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (s *Store) tell(ctx context.Context, ids []string) {
	slots := make(chan struct{}, maxTelling)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, id := range ids {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			conn, err := s.dial(ctx, id, purposeCall)
			if err != nil {
				s.cfg.Logger.Debug("a fenced member was told", "member", id, "err", err)
				return
			}
			conn.Close() // it is of this incarnation, and about to be readmitted
		})
	}
}
