package raftstore

import (
	"context"
	"sync"
	"time"
)

// peerHints are members that other members told of and that the tables do not have yet.
//
// A member that was away while another joined knows nothing of it. If that one leads by
// now, nobody else would tell: the leader's connections are refused as a stranger's, and
// the others are followers. So who is asked for by an unknown ID asks the members that
// it knows, over connections that both ends have proved.
type peerHints struct {
	mu     sync.Mutex
	peers  map[string]hint
	asking bool
	asked  time.Time
}

type hint struct {
	peer Peer
	// index is the state that the hint was taken from. Tables that are as new know better.
	index uint64
}

const (
	// askPause is the least time between two questions, whoever causes them.
	askPause = 100 * time.Millisecond
	// maxHints bounds the memory.
	maxHints = 64
)

func (h *peerHints) get(id string, applied uint64) (Peer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, ok := h.peers[id]
	if !ok {
		return Peer{}, false
	}
	if applied >= known.index {
		delete(h.peers, id)
		return Peer{}, false
	}
	return known.peer, true
}

func (h *peerHints) put(id string, r PeerReply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.peers == nil || len(h.peers) >= maxHints {
		h.peers = make(map[string]hint)
	}
	h.peers[id] = hint{Peer{ID: id, Address: r.Address, Fingerprint: r.Fingerprint}, r.Index}
}

// begin tells whether a question may be asked now.
func (h *peerHints) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asking || time.Since(h.asked) < askPause {
		return false
	}
	h.asking = true
	return true
}

func (h *peerHints) end() {
	h.mu.Lock()
	h.asking, h.asked = false, time.Now()
	h.mu.Unlock()
}

// askAbout asks the known members who id is, in the background. The unknown one tries
// again by itself.
func (s *Store) askAbout(id string) {
	if !s.hints.begin() {
		return
	}
	if !s.spawn(func() {
		defer s.hints.end()
		s.lookUp(id)
	}) {
		s.hints.end()
	}
}

func (s *Store) lookUp(id string) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timing.Call)
	defer cancel()
	ids := s.peerIDs()
	answers := make(chan *PeerReply, len(ids))
	for _, known := range ids {
		s.spawn(func() {
			var reply PeerReply
			if err := s.call(ctx, known, "Peer", &id, &reply); err != nil {
				answers <- nil
				return
			}
			answers <- &reply
		})
	}
	for range ids {
		select {
		case r := <-answers:
			if r != nil && r.Found && r.Index > s.fsm.applied.Load() {
				s.hints.put(id, *r)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
