package raftstore

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"incusd/internal/raftstore/state"
)

// fsm feeds committed entries to the tables.
//
// Its index counts commands and configurations. Raft's no-op and barrier entries never
// reach it, so nobody must wait for the index of one.
type fsm struct {
	store *Store
	state *state.Store
	// silentUntil is the last index whose events were, or may have been, told before
	// this process started.
	silentUntil uint64
	// applied is the index of the last command or configuration that the tables hold.
	applied atomic.Uint64
	// since counts the commands since the last snapshot; full tells when they are many.
	since atomic.Uint64
	full  chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every step
	// failed is set when an entry could not be applied. Only Raft's FSM goroutine, and
	// the replay before it, touch it.
	failed bool
}

var (
	_ raft.BatchingFSM        = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

func newFSM(s *Store) *fsm {
	return &fsm{store: s, state: state.New(), changed: make(chan struct{}), full: make(chan struct{}, 1)}
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// applied is the answer to a command entry.
type applied struct {
	results []state.Result
	term    uint64 // of the entry
}

// ApplyBatch implements raft.BatchingFSM. The answer to a command entry is an applied,
// or an error if the member had to stop.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		out[i] = f.apply(l)
	}
	f.announce()
	return out
}

func (f *fsm) apply(l *raft.Log) any {
	switch {
	case f.failed:
		return errStopped
	case l.Type == raft.LogConfiguration:
		f.StoreConfiguration(l.Index, raft.DecodeConfiguration(l.Data))
		return nil
	case l.Type != raft.LogCommand, l.Index <= f.state.View().Index():
		return nil // applied before: at start, up to the commit hint
	}
	results, events, err := f.state.Apply(l.Index, l.Term, l.Data)
	if err != nil {
		// Skipping an entry is how replicas diverge: stop instead.
		f.failed = true
		f.store.fail(err)
		return err
	}
	if l.Index > f.silentUntil && len(events) > 0 && f.store.cfg.OnEvents != nil {
		f.store.cfg.OnEvents(events)
	}
	f.applied.Store(l.Index)
	if f.since.Add(uint64(len(results))) >= f.store.cfg.SnapshotEvery {
		select {
		case f.full <- struct{}{}:
		default:
		}
	}
	return applied{results, l.Term}
}

// StoreConfiguration implements raft.ConfigurationStore: who votes is part of what
// members show, and so of the tables.
func (f *fsm) StoreConfiguration(index uint64, c raft.Configuration) {
	if index <= f.applied.Load() {
		return // known from the replay at start, and perhaps superseded
	}
	servers := make([]state.Server, len(c.Servers))
	for i, s := range c.Servers {
		servers[i] = state.Server{ID: string(s.ID), Voter: s.Suffrage == raft.Voter}
	}
	f.state.SetServers(servers)
	f.store.transport.setServers(servers)
	f.applied.Store(index)
}

// Snapshot implements raft.FSM. It takes a view, so writers are never held up.
//
// After a failure Raft counts entries as applied that the tables do not hold. A snapshot
// would hide the gap for ever.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.failed {
		return nil, errStopped
	}
	return snapshot{f.state.View()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := f.state.Restore(r); err != nil {
		f.failed = true
		f.store.fail(err)
		return err
	}
	f.applied.Store(max(f.state.View().Index(), f.applied.Load()))
	f.announce()
	return nil
}

func (f *fsm) announce() {
	f.mu.Lock()
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
}

// wait blocks until the entry at index is applied here, or ctx ends.
func (f *fsm) wait(ctx context.Context, index uint64) error {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if f.applied.Load() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-f.store.closed:
			return errStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type snapshot struct{ view *state.View }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.Persist(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}
