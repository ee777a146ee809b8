package raftstore

import "sync"

// A registry finds open replicas by member ID. Its zero value is empty.
type registry struct {
	mu     sync.RWMutex
	stores map[string]*Store
}

func (r *registry) get(id string) (*Store, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.stores[id]
	return s, ok
}

// Attach lets connections reach s.
func (e *Endpoint) Attach(s *Store) {
	e.stores.mu.Lock()
	defer e.stores.mu.Unlock()
	if e.stores.stores == nil {
		e.stores.stores = make(map[string]*Store)
	}
	e.stores.stores[s.cfg.ID] = s
}

// Detach ends that. Connections that are open stay until the store is closed.
func (e *Endpoint) Detach(s *Store) {
	e.stores.mu.Lock()
	defer e.stores.mu.Unlock()
	if e.stores.stores[s.cfg.ID] == s {
		delete(e.stores.stores, s.cfg.ID)
	}
}
