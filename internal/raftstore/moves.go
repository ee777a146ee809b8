package raftstore

import (
	"maps"
	"sync"

	"incusd/internal/raftstore/state"
)

// moves are addresses that the tables do not have yet. A note is spent when the cluster knows of
// any move of the member: one that goes back later to where it was is there, and not at the noted
// address.
type moves struct {
	mu sync.Mutex
	// noted are those that an administrator noted, for a cluster that could not be told.
	noted map[string]Move
	// heard are those where members were found that asked to be looked for. Without them nobody
	// would elect a leader, or be elected, who needs the vote of one that has moved.
	heard map[string]Move
}

// apply gives a peer the address that was noted for it.
func (m *moves) apply(p Peer) Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, known := range []map[string]Move{m.heard, m.noted} {
		if move, ok := known[p.ID]; ok && move.From == p.Address {
			p.Address = move.To
			return p
		}
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
