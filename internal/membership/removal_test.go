package membership

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

func TestVerdictAboutALeavingMember(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name string
		leaving
		want verdict
	}{
		{"it has just begun", leaving{spared: true}, leaveAlone},
		{"it votes and is offline", leaving{spared: true, votes: true, offline: true, known: time.Hour}, leaveAlone},
		{"it has no vote any more and is silent for a moment", leaving{spared: true, silent: leaveSilence - s}, leaveAlone},
		{"it is silent", leaving{spared: true, silent: leaveSilence}, dropIt},
		{"it is offline", leaving{spared: true, offline: true}, dropIt},
		{"it answers and does not go", leaving{spared: true, known: leaveTime}, dropIt},
		{"it leads", leaving{spared: true, leads: true, force: true, known: time.Hour}, leaveAlone},
		{"forced", leaving{spared: true, votes: true, force: true}, leaveAlone},
		{"forced and offline", leaving{spared: true, votes: true, force: true, offline: true}, dropIt},
		{"forced and silent", leaving{spared: true, votes: true, force: true, silent: forcedSilence}, dropIt},
		{"forced and slow", leaving{spared: true, votes: true, force: true, known: forcedTime}, dropIt},
		{"forced, and the others are no majority", leaving{votes: true, force: true, offline: true, known: time.Hour}, leaveAlone},
		{"nobody can take over", leaving{leads: true, heirless: orphanTime}, callOff},
		{"nobody could for a moment", leaving{leads: true, heirless: orphanTime - s}, leaveAlone},
	}
	for _, tt := range tests {
		if got := tt.verdict(); got != tt.want {
			t.Errorf("%s: verdict %d, want %d", tt.name, got, tt.want)
		}
	}
}

// three runs f with a leader of three voters that answer, until stop is called.
func three(t *testing.T, f func(b *bed, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		stop := b.keepAnswering(2, 3)
		defer b.lead()()
		b.join(2)
		b.join(3)
		within(t, time.Second, "three voters", func() bool { return len(b.Servers()) == 3 && votersOf(b) == 3 })
		f(b, stop)
	})
}

func votersOf(b *bed) (n int) {
	for _, s := range b.Servers() {
		if s.Voter {
			n++
		}
	}
	return n
}

func TestLeavingMemberGivesItsVoteAwayFirst(t *testing.T) {
	three(t, func(b *bed, stop func()) {
		defer stop()
		b.apply(state.KindMemberRemove, state.MemberRemove{ID: b.member(3).ID})
		if ReadyToLeave(b.Local().View, b.member(3).ID) {
			t.Fatal("it may leave while it votes")
		}
		within(t, 2*time.Second, "no vote", func() bool { return ReadyToLeave(b.tables.View(), b.member(3).ID) })
		if text := Member(b.Local(), b.member(3), time.Now()).Message; text != "Being removed: waiting for it to leave" {
			t.Errorf("it shows %q", text)
		}
		b.apply(state.KindMemberLeave, state.MemberLeave{ID: b.member(3).ID})
		within(t, 2*time.Second, "gone from Raft", func() bool { return len(b.Servers()) == 2 && votersOf(b) == 1 })
	})
}

func TestSilentMemberIsDroppedByTheLeader(t *testing.T) {
	for _, force := range []bool{false, true} {
		t.Run(fmt.Sprintf("force %v", force), func(t *testing.T) {
			three(t, func(b *bed, stop func()) {
				stop()
				defer b.keepAnswering(2)()
				id := b.member(3).ID
				b.apply(state.KindMemberRemove, state.MemberRemove{ID: id, Force: force})
				within(t, leaveSilence+2*time.Second, "dropped", func() bool { _, ok := b.tables.View().Member(id); return !ok })
				if r, ok := b.tables.View().Removed(id); !ok || r.Graceful == force {
					t.Errorf("tombstone %+v", r)
				}
				within(t, 2*time.Second, "gone from Raft", func() bool { return len(b.Servers()) == 2 })
			})
		})
	}
}

// Both answer, so that the quorum bears the loss of either; not of both.
func TestOneOfTwoSlowVotersIsDroppedByForce(t *testing.T) {
	three(t, func(b *bed, stop func()) {
		defer stop()
		ids := []string{b.member(2).ID, b.member(3).ID}
		b.setLagging(2, true)
		b.setLagging(3, true)
		for _, id := range ids {
			b.apply(state.KindMemberRemove, state.MemberRemove{ID: id, Force: true})
		}
		left := func() (n int) {
			for _, id := range ids {
				if _, ok := b.tables.View().Member(id); ok {
					n++
				}
			}
			return n
		}
		within(t, forcedTime+2*time.Second, "one is dropped", func() bool { return left() == 1 })
		time.Sleep(forcedTime)
		if left() != 1 {
			t.Error("both are dropped")
		}
	})
}

func TestRemovalIsCalledOffWhenNobodyCanTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		stop := b.keepAnswering(2)
		defer b.lead()()
		b.join(2)
		within(t, time.Second, "a stand-by", func() bool { return b.member(2).Role == state.RoleStandby })
		stop()
		b.apply(state.KindMemberRemove, state.MemberRemove{ID: b.member(1).ID})
		within(t, 30*time.Second, "offline", func() bool { return b.member(2).Offline })
		if b.member(1).Removal == nil {
			t.Fatal("called off too early")
		}
		within(t, orphanTime+2*time.Second, "called off", func() bool { return b.member(1).Removal == nil })
	})
}

func TestMessageSaysWhatARemovalWaitsFor(t *testing.T) {
	tables := state.New()
	tables.SetServers([]state.Server{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c"}, {ID: "d"}})
	view := &raftstore.View{View: tables.View(), Leader: "a"}
	for id, want := range map[string]string{
		"a": "waiting for another member to lead",
		"b": "waiting for another member to take its vote",
		"c": "waiting for it to leave",
		"d": "waiting for the leader to drop it",
	} {
		if got := removalStep(view, &state.Member{ID: id, Offline: id == "d"}); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}

func TestRequestThatWaitsTooLongSaysThatTheRemovalGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.join(2)
		service := NewAdmissions(b, nil, nil, nil, Settings{}, nil, nil)
		err := service.RemoveMember(t.Context(), "node2", false, false, nil)
		requireReason(t, err, api.Timeout)
		if !strings.HasPrefix(err.Error(), `Member "node2" is still being removed: waiting for `) {
			t.Errorf("says %q", err)
		}
		if b.member(2).Removal == nil {
			t.Error("it does not go on")
		}
	})
}

func TestOnlyAMemberOfAClusterThatWorksIsNotReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.join(2)
		view, id := b.Local().View, b.member(2).ID
		for _, tt := range []struct {
			removed, working, force bool
			id                      string
			want                    api.Reason
		}{
			{false, true, false, id, api.Conflict},
			{false, true, true, id, api.Conflict},
			{false, false, false, id, api.NoQuorum},
			{false, false, true, id, ""},
			{true, true, false, id, ""},
			{true, false, false, id, ""},
			{false, true, false, "unknown", ""},
		} {
			err := MayReset(view, tt.id, tt.removed, tt.working, tt.force)
			if tt.want == "" && err != nil {
				t.Errorf("%+v: %v", tt, err)
			} else if tt.want != "" {
				requireReason(t, err, tt.want)
			}
		}
		requireReason(t, MayReset(state.New().View(), id, true, false, true), api.NotClustered)
	})
}
