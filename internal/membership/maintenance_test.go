package membership

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// A stuckStore takes changes until it hangs; then they wait for their caller to give up.
type stuckStore struct {
	*bed
	takes int
}

func (s *stuckStore) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	if s.takes--; s.takes >= 0 {
		return s.bed.Propose(ctx, cmd)
	}
	<-ctx.Done()
	return state.Result{}, api.Errorf(api.OutcomeUnknown, "Outcome unknown: %v", ctx.Err())
}

func TestMaintenanceOnAStoreThatHangsEnds(t *testing.T) {
	for _, takes := range []int{0, 1} {
		for _, what := range []string{"evacuate", "restore"} {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t)
				b.join(2)
				store := &stuckStore{b, takes}
				a := NewAdmissions(store, nil, b.tokens, noInventory{}, Settings{}, nil, nil)
				work := a.Evacuate
				if what == "restore" {
					b.maintain(2, "", state.MaintenanceEvacuating)
					b.maintain(2, state.MaintenanceEvacuating, state.MaintenanceEvacuated)
					work = a.Restore
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				err := work(ctx, b.member(2).ID, func(string) {}, nil)
				if took := time.Since(began); !errors.Is(err, api.OutcomeUnknown) || took > time.Minute {
					t.Errorf("%s, after %d changes: %v, after %s", what, takes, err, took)
				}
				if ends := strings.Contains(api.AsError(err).NextStep(), "the leader ends it"); ends != (takes > 0) {
					t.Errorf("%s, after %d changes: the next step is %q", what, takes, api.AsError(err).NextStep())
				}
			})
		}
	}
}
