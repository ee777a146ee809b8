// Package events hands the events of this member to those who listen.
//
// It is a hub in memory: what is published while nobody listens is gone. A
// listener that does not keep up is dropped rather than waited for, so that
// Publish never blocks. Events are sent as they are; who may see what inside one
// is the business of internal/api.
//
// The package knows nothing of WebSockets, nor of where events come from.
package events

import (
	"slices"
	"sync"

	"incusd/api"
)

// queueLength is how many events may wait for one listener. One that lets more
// pile up is dropped: it is too slow or gone (entities.md §7).
const queueLength = 1000

// A Hub hands each published event to all subscriptions that ask for it.
type Hub struct {
	mu            sync.Mutex
	subscriptions map[*Subscription]struct{}
}

// New returns a hub without listeners.
func New() *Hub {
	return &Hub{subscriptions: make(map[*Subscription]struct{})}
}

// A Subscription is one listener's queue.
type Subscription struct {
	hub         *Hub
	types       []string
	project     string
	allProjects bool
	queue       chan api.Event
}

// Subscribe returns a subscription for events of the given types; of all types if
// none is given. Events of a project are seen by listeners to that project and by
// those to all projects; events without a project are seen by all.
func (h *Hub) Subscribe(types []string, project string, allProjects bool) *Subscription {
	s := &Subscription{
		hub:         h,
		types:       slices.Clone(types),
		project:     project,
		allProjects: allProjects,
		queue:       make(chan api.Event, queueLength),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subscriptions[s] = struct{}{}
	return s
}

// Publish queues e for all who asked for such events. It never blocks.
func (h *Hub) Publish(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscriptions {
		if !s.wants(e) {
			continue
		}
		select {
		case s.queue <- e:
		default:
			h.drop(s)
		}
	}
}

// Wanted tells whether anybody listens to events of a type, which are worth making then.
func (h *Hub) Wanted(kind string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscriptions {
		if len(s.types) == 0 || slices.Contains(s.types, kind) {
			return true
		}
	}
	return false
}

// drop ends s; h.mu is held.
func (h *Hub) drop(s *Subscription) {
	if _, ok := h.subscriptions[s]; ok {
		delete(h.subscriptions, s)
		close(s.queue)
	}
}

// C yields the events in the order of their publication. It is closed, after what
// was queued, when the subscription ends: by Close, or because it was too slow.
func (s *Subscription) C() <-chan api.Event { return s.queue }

// Close ends the subscription. Further calls do nothing.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.drop(s)
}

func (s *Subscription) wants(e api.Event) bool {
	if len(s.types) > 0 && !slices.Contains(s.types, e.Type) {
		return false
	}
	return s.allProjects || e.Project == "" || e.Project == s.project
}
