package operations

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
)

// recorder keeps what was published.
type recorder struct {
	mu  sync.Mutex
	ops []api.Operation
}

func (r *recorder) publish(op api.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

func (r *recorder) statuses() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, op := range r.ops {
		all = append(all, op.Status)
	}
	return all
}

func newRegistry(rec *recorder) *Registry {
	return New(func() string { return "node1" }, rec.publish, time.Now)
}

func mustRun(t *testing.T, r *Registry, mayCancel bool, run func(context.Context, *Op) error) *Op {
	t.Helper()
	op, err := r.Run("Creating bootstrap node", map[string][]string{"cluster": nil}, mayCancel, run)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func TestOperationIsSeenWhileItRunsAndFiveSecondsAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		r := newRegistry(rec)
		goOn := make(chan struct{})
		op := mustRun(t, r, false, func(_ context.Context, op *Op) error {
			<-goOn
			op.SetMetadata(map[string]any{"certificate": "PEM"})
			return nil
		})

		seen := op.API()
		if seen.Status != "Running" || seen.StatusCode != api.Running || seen.Location != "node1" || seen.Class != "task" {
			t.Errorf("while it runs: %+v", seen)
		}
		if _, ok := seen.Resources["cluster"]; !ok || seen.Metadata == nil {
			t.Errorf("resources %v, metadata %v", seen.Resources, seen.Metadata)
		}

		close(goOn)
		if err := op.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := op.API(); got.Status != "Success" || got.Metadata["certificate"] != "PEM" {
			t.Errorf("at the end: %+v", got)
		}
		time.Sleep(retention - time.Nanosecond)
		if _, ok := r.Get(op.ID()); !ok {
			t.Error("forgotten too early")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if _, ok := r.Get(op.ID()); ok || len(r.List()) != 0 {
			t.Error("still there after its time")
		}
		if want := []string{"Running", "Running", "Success"}; !slices.Equal(rec.statuses(), want) {
			t.Errorf("published %v, want %v", rec.statuses(), want)
		}
	})
}

func TestFailureCarriesTheReason(t *testing.T) {
	r := newRegistry(&recorder{})
	op := mustRun(t, r, false, func(_ context.Context, op *Op) error {
		op.SetMetadata(map[string]any{"join_progress": "asking"})
		return api.Errorf(api.NameTaken, "The cluster already has a member with name: node2")
	})
	if err := op.Wait(t.Context()); !errors.Is(err, api.NameTaken) {
		t.Fatalf("got %v", err)
	}
	got := op.API()
	if got.Status != "Failure" || got.Err != "The cluster already has a member with name: node2" {
		t.Errorf("got %+v", got)
	}
	if got.Metadata["reason"] != "name_taken" || got.Metadata["hint"] == nil || got.Metadata["join_progress"] != "asking" {
		t.Errorf("metadata %v", got.Metadata)
	}
}

func TestCancel(t *testing.T) {
	untilCancelled := func(ctx context.Context, _ *Op) error {
		<-ctx.Done()
		return ctx.Err()
	}
	t.Run("stops what can be stopped, once", func(t *testing.T) {
		rec := &recorder{}
		op := mustRun(t, newRegistry(rec), true, untilCancelled)
		if err := op.Cancel(); err != nil {
			t.Fatal(err)
		}
		<-op.Done()
		if err := op.Cancel(); err == nil || err.Error() != "Only running operations can be cancelled" {
			t.Errorf("second time: %v", err)
		}
		if want := []string{"Running", "Cancelling", "Cancelled"}; !slices.Equal(rec.statuses(), want) {
			t.Errorf("published %v, want %v", rec.statuses(), want)
		}
	})
	t.Run("is refused where it would leave a half-done thing", func(t *testing.T) {
		r := newRegistry(&recorder{})
		op := mustRun(t, r, false, untilCancelled)
		if err := op.Cancel(); err == nil || err.Error() != "This operation can't be cancelled" {
			t.Errorf("got %v", err)
		}
		expired, cancel := context.WithCancel(t.Context())
		cancel()
		_ = r.Shutdown(expired)
	})
}

func TestShutdownWaitsAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(&recorder{})
		mustRun(t, r, false, func(ctx context.Context, _ *Op) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err := r.Shutdown(t.Context()); err != nil {
			t.Errorf("patient: %v", err)
		}
		_, err := r.Run("late", nil, false, func(context.Context, *Op) error { return nil })
		if !errors.Is(err, api.ShuttingDown) {
			t.Errorf("late operation: %v", err)
		}
	})
}

func TestShutdownCancelsWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(&recorder{})
		op := mustRun(t, r, false, func(ctx context.Context, _ *Op) error {
			<-ctx.Done()
			return ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if got := op.API(); got.Status != "Failure" {
			t.Errorf("got %+v", got)
		}
	})
}
