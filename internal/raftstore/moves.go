package raftstore

import (
	"maps"
	"sync"

	"incusd/internal/raftstore/state"
)

// moves are the addresses that an administrator noted for members, for a cluster that could not be
// told. A note is spent when the cluster knows of any move of the member: one that goes back later
// to where it was is there, and not at the noted address.
type moves struct {
	mu    sync.Mutex
	noted map[string]Move
}

// apply gives a peer the address that was noted for it.
func (m *moves) apply(p Peer) Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if move, ok := m.noted[p.ID]; ok && move.From == p.Address {
		p.Address = move.To
	}
	return p
}

// forget drops the notes that are spent.
func (m *moves) forget(view *state.View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.noted, func(id string, move Move) bool { return move.Spent(view, id) })
}

// Spent tells whether the member's row has another address than the one that was replaced.
func (m Move) Spent(view *state.View, id string) bool {
	row, ok := view.Member(id)
	return ok && row.Address != m.From
}
