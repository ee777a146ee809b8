package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"incusd/api"
)

const (
	// pathEvents takes what happened on another member and is not in the log.
	pathEvents = "/internal/cluster/events"
	// relayTimeout is how long one that does not answer holds up what comes next.
	relayTimeout = 2 * time.Second
	// relayQueue is how many events may wait; further ones are dropped.
	relayQueue = 1000
)

// A relay holds the events that the other members are to be told. A client may listen on
// one member and ask another, as through a load balancer.
type relay struct {
	mu      sync.Mutex
	waiting []api.Event
	runs    bool
}

// Relay tells e, which happened here and in no log, to those who listen on other members.
// It does not block. Like every event it is gone for who cannot be reached.
func (s *Server) Relay(e api.Event) {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	if len(s.relay.waiting) == relayQueue {
		return
	}
	s.relay.waiting = append(s.relay.waiting, e)
	if s.relay.runs {
		return
	}
	leave, err := s.stream()
	if err != nil {
		return // the server closes
	}
	s.relay.runs = true
	go func() {
		defer leave()
		for batch := s.relay.take(); batch != nil; batch = s.relay.take() {
			s.tellOthers(batch)
		}
	}()
}

// take returns what waits, in order; nil ends the run.
func (r *relay) take() []api.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := r.waiting
	r.waiting, r.runs = nil, len(batch) > 0
	return batch
}

// tellOthers posts events to all members that are online, side by side.
func (s *Server) tellOthers(batch []api.Event) {
	view := s.cfg.Store.Local()
	if view == nil {
		return
	}
	body, err := json.Marshal(batch)
	if err != nil {
		s.cfg.Log.Error("encode events for the other members", slog.Any("err", err))
		return
	}
	ctx, cancel := context.WithTimeout(s.closing, relayTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range s.online(view) {
		wg.Go(func() {
			if _, err := exchange[any](ctx, s.cfg.Peer(m), http.MethodPost, m.Address, pathEvents, body); err != nil {
				s.cfg.Log.Debug("member was not told of events", slog.String("member", m.Name), slog.Any("err", err))
			}
		})
	}
	wg.Wait()
}

// eventsPost publishes what happened on another member: POST /internal/cluster/events.
func (s *Server) eventsPost(c *call) (reply, error) {
	batch, err := decode[[]api.Event](c)
	if err != nil {
		return reply{}, err
	}
	for _, e := range batch {
		s.cfg.Events.Publish(e)
	}
	return empty, nil
}
