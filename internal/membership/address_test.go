package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// village is a member with neighbours that answer, each in its own way.
type village struct {
	leads    bool
	others   []string
	blind    map[string]error // what reaching from there gives; absent means it does not answer
	answers  map[string]error // what announcing there gives; absent means it does not answer
	asked    []string
	unseen   bool // what the last one that was told was told
	proposed int
	silence  time.Duration // of those that are away, before it shows
	mu       sync.Mutex
	looked   int
}

var errAway = errors.New("it is away")

func (v *village) ID() string       { return "me" }
func (v *village) IsLeader() bool   { return v.leads }
func (v *village) Others() []string { return v.others }

func (v *village) ReachedFrom(_ context.Context, id, _ string) (bool, error) {
	v.mu.Lock()
	v.looked++
	v.mu.Unlock()
	err, ok := v.blind[id]
	if !ok {
		return false, errAway
	}
	return true, err
}

func (v *village) AnnounceTo(ctx context.Context, id, _ string, unseen bool) (bool, error) {
	v.mu.Lock()
	v.unseen = unseen
	v.asked = append(v.asked, id)
	v.mu.Unlock()
	err, ok := v.answers[id]
	if ok {
		return true, err
	}
	if v.silence > 0 {
		select {
		case <-time.After(v.silence):
		case <-ctx.Done():
		}
	}
	return false, errAway
}

func (v *village) Propose(context.Context, state.Command) (state.Result, error) {
	v.proposed++
	return state.Result{}, nil
}

func TestAnnounceAsksUntilSomebodyDecides(t *testing.T) {
	all := []string{"a", "b", "c"}
	tests := []struct {
		name     string
		village  *village
		want     api.Reason
		asked    []string
		proposed int
	}{
		{name: "the first takes it", village: &village{others: all, answers: map[string]error{"a": nil}}, asked: []string{"a"}},
		{name: "the first is away", village: &village{others: all, answers: map[string]error{"b": nil}}, asked: []string{"a", "b"}},
		{name: "the first does not get there", village: &village{others: all, answers: map[string]error{"a": api.AddressUnreach, "b": nil}}, asked: []string{"a", "b"}},
		{name: "the cluster refuses", village: &village{others: all, answers: map[string]error{"a": api.AddressTaken, "b": nil}}, want: api.AddressTaken, asked: []string{"a"}},
		{name: "nobody gets there", village: &village{others: all, answers: map[string]error{"a": api.AddressUnreach, "c": api.AddressUnreach}},
			want: api.AddressUnreach, asked: all},
		{name: "the first may have taken it", village: &village{others: all, answers: map[string]error{"a": api.OutcomeUnknown, "b": api.NoQuorum, "c": api.AddressUnreach}},
			want: api.OutcomeUnknown, asked: all},
		{name: "nobody answers", village: &village{others: all}, want: api.NoQuorum, asked: all},
		{name: "alone", village: &village{}, proposed: 1},
		{name: "the leader itself", village: &village{leads: true, others: all, blind: map[string]error{"a": nil}}, proposed: 1},
		{name: "the leader, which is not reached", village: &village{leads: true, others: all, blind: map[string]error{"a": nil, "b": api.AddressUnreach}},
			want: api.AddressUnreach},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.village
			err := Announce(t.Context(), v, "10.0.0.9:8443", LookDue, time.Now())
			if tt.want == "" && err != nil || tt.want != "" && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if !slices.Equal(v.asked, tt.asked) || v.proposed != tt.proposed {
				t.Errorf("asked %q, proposed %d times, want %q and %d", v.asked, v.proposed, tt.asked, tt.proposed)
			}
		})
	}
}

func TestTheDeadDelayAnAnnouncementLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &village{silence: 2 * time.Second, answers: map[string]error{"m100": nil}}
		for i := range 99 {
			v.others = append(v.others, fmt.Sprintf("m%d", i+2))
		}
		began := time.Now()
		if err := Announce(t.Context(), v, "10.0.0.9:8443", LookDue, began); err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("the only one that lives is told after %s: %v", time.Since(began), err)
		}
		v.answers = nil
		began = time.Now()
		if err := Announce(t.Context(), v, "10.0.0.9:8443", LookDue, began); !errors.Is(err, api.NoQuorum) || time.Since(began) > 7*time.Second {
			t.Errorf("nobody lives: after %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if err := Announce(ctx, v, "10.0.0.9:8443", LookDue, began); err == nil || time.Since(began) > time.Second {
			t.Errorf("bounded by a second: after %s: %v", time.Since(began), err)
		}
	})
}

func TestOthersLookOnceAtTheLeadersNewAddress(t *testing.T) {
	for _, tt := range []struct {
		look         Look
		leads        bool
		looked       int
		unseen       bool
		wantProposed int
	}{
		{LookDue, true, 2, false, 1},
		{LookDone, true, 0, false, 1},
		{LookNone, true, 0, false, 1},
		{LookDue, false, 0, false, 0},
		{LookDone, false, 0, false, 0}, // who passes it on looks all the same
		{LookNone, false, 0, true, 0},
	} {
		all := map[string]error{"a": nil, "b": nil}
		v := &village{leads: tt.leads, others: []string{"a", "b"}, blind: all, answers: all}
		if err := Announce(t.Context(), v, "10.0.0.9:8443", tt.look, time.Now()); err != nil {
			t.Errorf("%+v: %v", tt, err)
		}
		if v.looked != tt.looked || v.unseen != tt.unseen || v.proposed != tt.wantProposed {
			t.Errorf("%+v: %d looked, unseen %v, proposed %d times", tt, v.looked, v.unseen, v.proposed)
		}
	}
}
