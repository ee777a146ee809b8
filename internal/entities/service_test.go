package entities

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// lagging is the store of a member that has not applied yet what the leader has.
type lagging struct {
	leader *tables
	stale  *raftstore.View // what the member has applied; Read brings it up to date
}

func (l *lagging) ID() string                                                   { return "id1" }
func (l *lagging) Propose(context.Context, state.Command) (state.Result, error) { panic("unused") }
func (l *lagging) Local() *raftstore.View                                       { return l.stale }
func (l *lagging) Read(context.Context) (*raftstore.View, error) {
	l.stale = l.leader.view()
	return l.stale, nil
}

func TestARowThatIsNotHereYetIsNotGone(t *testing.T) {
	leader := newTables(t)
	store := &lagging{leader: leader, stale: leader.view()}
	leader.pool("local")
	leader.report("local", 1, state.EntityErrored)
	row, _ := leader.view().Entity("local")
	s := NewService(store, nil, time.Now, slog.New(slog.DiscardHandler))
	if err := s.settled(t.Context(), row); !errors.Is(err, api.EntityFailed) {
		t.Errorf("a pool that could not be made: %v", err)
	}
}

// deaf is a store that has lost the others.
type deaf struct{ lagging }

func (deaf) Read(context.Context) (*raftstore.View, error) { return nil, api.NoQuorum }

func TestARowWhoseFateIsUnknownIsNotCalledDone(t *testing.T) {
	leader := newTables(t)
	leader.pool("local")
	row, _ := leader.view().Entity("local")
	s := NewService(&deaf{lagging{stale: leader.view()}}, nil, time.Now, slog.New(slog.DiscardHandler))
	if err := s.settled(t.Context(), row); !errors.Is(err, api.NoQuorum) {
		t.Errorf("without a quorum: %v", err)
	}
}
