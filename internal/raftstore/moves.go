package raftstore

import (
	"maps"
	"sync"

	"incusd/internal/raftstore/state"
)

// moves are addresses that the tables do not have yet. A note is spent when the cluster knows of
// any move of the member: one that goes back later to where it was is there, and not at the noted
// address.
//
// Who was away while a member moved there and back, and gets the end of it in a snapshot, cannot
// tell such a note from one that still counts. So both addresses are tried in turn, the noted one
// first.
type moves struct {
	mu sync.Mutex
	// noted are those that an administrator noted, for a cluster that could not be told.
	noted map[string]Move
	// doubtful are the members that were not found, the last time, at the address noted for them.
	doubtful map[string]bool
	// heard are those where members were found that asked to be looked for. Without them nobody
	// would elect a leader, or be elected, who needs the vote of one that has moved.
	heard map[string]Move
}

// apply gives a peer the address that was noted for it.
func (m *moves) apply(p Peer) Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if move, ok := m.heard[p.ID]; ok && move.From == p.Address {
		p.Address = move.To
	} else if move, ok := m.noted[p.ID]; ok && move.From == p.Address && !m.doubtful[p.ID] {
		p.Address = move.To
	}
	return p
}

// found notes that the member id, whose row has the address from, was found at another one.
func (m *moves) found(id, from, to string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if from == to {
		delete(m.heard, id)
		return
	}
	if m.heard == nil {
		m.heard = make(map[string]Move)
	}
	m.heard[id] = Move{From: from, To: to}
}

// missed tells that a member was not found at address. It may be where its row says.
func (m *moves) missed(id, address string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heard[id].To == address {
		delete(m.heard, id)
	}
	move, ok := m.noted[id]
	switch {
	case ok && address == move.To:
		if m.doubtful == nil {
			m.doubtful = make(map[string]bool)
		}
		m.doubtful[id] = true
	case ok && address == move.From:
		delete(m.doubtful, id)
	}
}

// forget drops the notes that are spent.
func (m *moves) forget(view *state.View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	spent := func(id string, move Move) bool { return move.Spent(view, id) }
	maps.DeleteFunc(m.noted, spent)
	maps.DeleteFunc(m.heard, spent)
}

// Spent tells whether the member's row has another address than the one that was replaced.
func (m Move) Spent(view *state.View, id string) bool {
	row, ok := view.Member(id)
	return ok && row.Address != m.From
}
