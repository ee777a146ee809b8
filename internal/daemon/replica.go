package daemon

import (
	"context"
	"sync/atomic"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// current is the replica in use, which a join replaces. The services keep a pointer to
// it and never see the swap: a call under way on the old one ends with an error.
type current struct {
	store atomic.Pointer[raftstore.Store]
}

func (c *current) get() (*raftstore.Store, error) {
	if s := c.store.Load(); s != nil {
		return s, nil
	}
	return nil, api.Errorf(api.Unavailable, "Daemon is starting up")
}

// ID is this server's member ID, "" before the store is open.
func (c *current) ID() string {
	if s := c.store.Load(); s != nil {
		return s.ID()
	}
	return ""
}

func (c *current) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	s, err := c.get()
	if err != nil {
		return state.Result{}, err
	}
	return s.Propose(ctx, cmd)
}

func (c *current) Read(ctx context.Context) (*raftstore.View, error) {
	s, err := c.get()
	if err != nil {
		return nil, err
	}
	return s.Read(ctx)
}

func (c *current) ReadOrStale(ctx context.Context) (*raftstore.View, error) {
	s, err := c.get()
	if err != nil {
		return nil, err
	}
	return s.ReadOrStale(ctx)
}

// Local is the local view, nil before the store is open.
func (c *current) Local() *raftstore.View {
	if s := c.store.Load(); s != nil {
		return s.Local()
	}
	return nil
}
