package raftstore

import (
	"maps"
	"sync"
	"time"
)

// rivals are the members that were last met, on a connection that proved who they are, as members of
// a rival of this cluster: when, by ID. Only people can end that, so that they are to see it.
type rivals struct {
	mu  sync.Mutex
	met map[string]time.Time
}

// rivalTime is how long a rival counts that is not met again. Two clusters that reach each other meet
// every few seconds; see tellFenced.
const rivalTime = time.Minute

// meet notes how the lineage of a member relates to this one's.
func (r *rivals) meet(id string, k kin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k != kinRival {
		delete(r.met, id)
		return
	}
	if r.met == nil {
		r.met = make(map[string]time.Time)
	}
	r.met[id] = time.Now()
}

// list names those that were met lately; nil if there is none.
func (r *rivals) list() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.met, func(_ string, at time.Time) bool { return time.Since(at) > rivalTime })
	if len(r.met) == 0 {
		return nil
	}
	list := make(map[string]bool, len(r.met))
	for id := range r.met {
		list[id] = true
	}
	return list
}
