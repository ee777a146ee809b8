package raftstore

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// standing is what this member knows of its own removal. The end of a member's row is the one
// entry that may never reach it: from then on nobody speaks to it. It learns of it from its own
// tables, or from the refusal of any connection that it opens; while nobody leads here, the roll
// call opens some. Who refuses has proved to be a member of this cluster, and IDs are never used again,
// so one tombstone settles it, unless it is of a lineage that a recovery has ended: the cluster may
// have gone on from this very member's copy.
type standing struct {
	mu      sync.Mutex
	removed *state.Removed
	known   chan struct{} // closed when removed is set
}

// Removal returns the tombstone of this member, if it was removed.
func (s *Store) Removal() (*state.Removed, bool) {
	s.standing.mu.Lock()
	defer s.standing.mu.Unlock()
	return s.standing.removed, s.standing.removed != nil
}

// WatchRemoval returns a channel that is closed when this member is known to be removed. From
// then on the store changes nothing and speaks to nobody: Propose and Read fail with
// api.MemberRemoved, and ReadOrStale says so.
func (s *Store) WatchRemoval() <-chan struct{} { return s.standing.known }

// Left takes the leader's answer to this member's own "member.leave", which may be all that it
// hears of its end.
func (s *Store) Left(res state.Result) error {
	var r state.Removed
	if err := json.Unmarshal(res.Value, &r); err != nil {
		return err
	}
	s.learnRemoval(&r)
	return nil
}

// learnRemoval ends this member's part in the cluster.
func (s *Store) learnRemoval(r *state.Removed) {
	if r == nil || r.ID != s.cfg.ID {
		return
	}
	s.standing.mu.Lock()
	first := s.standing.removed == nil
	if first {
		s.standing.removed = r
		close(s.standing.known)
	}
	s.standing.mu.Unlock()
	if !first {
		return
	}
	s.cfg.Logger.Warn("this server was removed from the cluster", "name", r.Name, "at", r.At, "graceful", r.Graceful)
	s.setLeader("")
	s.conns.closeAll()
}

// outcast is why this member may do nothing any more, nil if it may.
func (s *Store) outcast() error {
	if r, removed := s.Removal(); removed {
		return r.Refusal()
	}
	if reason := s.shutOut.Load(); reason != nil {
		return reason
	}
	return nil
}

// Departed tells whether the server that was m, whose row is gone, has no part in the cluster any more,
// by its own word, or is not there. It blocks for helloTime at most.
func (s *Store) Departed(ctx context.Context, m *state.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	conn, err := s.link().open(ctx, Peer{ID: m.ID, Address: m.Address, Fingerprint: m.Fingerprint, Former: m.Former}, purposeCall)
	if err == nil {
		conn.Close()
	}
	return err != nil && !errors.Is(err, context.DeadlineExceeded)
}

func (s *Store) removed() bool {
	_, removed := s.Removal()
	return removed
}

// refusal is the answer to a caller that is no member as far as this one knows. Only a
// tombstone tells that it was removed: a row that is not there may be on its way.
func (s *Store) refusal(id, fingerprint string) *welcome {
	if r, ok := s.fsm.state.View().Removed(id); ok && r.Fingerprint == fingerprint {
		return &welcome{Error: r.Refusal(), Removed: r}
	}
	return &welcome{Error: api.Errorf(api.NotAuthorized, "the certificate %.12s is not that of a member known here", fingerprint)}
}
