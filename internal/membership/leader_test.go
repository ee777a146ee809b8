package membership

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"incusd/internal/raftstore/state"
)

// within fails unless cond holds within d of the bubble's time.
func within(t *testing.T, d time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(d); ; {
		synctest.Wait()
		if cond() {
			return
		}
		if !time.Now().Before(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
		<-time.After(time.Millisecond)
	}
}

func roles(b *bed) map[string]string {
	out := make(map[string]string)
	for _, m := range b.tables.View().Members() {
		out[m.Name] = m.Role
		if b.tables.View().IsVoter(m.ID) {
			out[m.Name] += "*"
		}
	}
	return out
}

func requireRoles(t *testing.T, b *bed, want map[string]string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, roles(b)); diff != "" {
		t.Fatalf("roles (-want +got):\n%s", diff)
	}
}

func TestThirdMemberMakesThreeVotersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.keepAnswering(2, 3)()
		defer b.lead()()
		b.join(2)
		within(t, 20*time.Millisecond, "two members", func() bool { return b.member(2).Role == state.RoleStandby })
		if steps := b.takeSteps(); len(steps) != 0 {
			t.Errorf("steps are %q", steps)
		}
		b.join(3)
		within(t, 20*time.Millisecond, "three voters", func() bool { return len(b.takeStepsIf(2)) == 2 })
		requireRoles(t, b, map[string]string{"node1": "voter*", "node2": "voter*", "node3": "voter*"})
	})
}

// takeStepsIf returns the steps if there are n of them.
func (b *bed) takeStepsIf(n int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.steps) != n {
		return nil
	}
	return b.steps
}

func TestSlowMemberIsPromotedWhenItHasTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.keepAnswering(2, 3)()
		defer b.lead()()
		b.join(2)
		b.setLagging(3, true)
		b.join(3)
		<-time.After(3 * time.Second)
		requireRoles(t, b, map[string]string{"node1": "voter*", "node2": "stand-by", "node3": "spare"})
		b.setLagging(3, false)
		within(t, 50*time.Millisecond, "three voters", func() bool { return len(b.takeStepsIf(2)) == 2 })
	})
}

func TestOfflineVoterIsReplacedAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.lead()()
		defer b.keepAnswering(3, 4)()
		stop := b.keepAnswering(2)
		for n := 2; n <= 4; n++ {
			b.join(n)
		}
		within(t, time.Second, "four members", func() bool { return b.member(4).Role == state.RoleStandby })
		b.takeSteps()

		stop()
		silentSince := time.Now()
		<-time.After(19 * time.Second)
		synctest.Wait()
		if b.member(2).Offline {
			t.Fatal("offline before the threshold")
		}
		within(t, 1200*time.Millisecond, "offline", func() bool { return b.member(2).Offline })
		if since := b.member(2).Since; since.Sub(silentSince).Abs() > 100*time.Millisecond {
			t.Errorf("offline since %s, last answer at %s", since, silentSince)
		}
		within(t, 20*time.Millisecond, "replaced", func() bool { return len(b.takeStepsIf(2)) == 2 })
		if diff := cmp.Diff([]string{"demote id-2", "promote id-4"}, b.takeSteps()); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		requireRoles(t, b, map[string]string{"node1": "voter*", "node2": "spare", "node3": "voter*", "node4": "voter*"})

		back := time.Now()
		b.answer(2)
		defer b.keepAnswering(2)()
		within(t, 5*time.Millisecond, "online again", func() bool { return !b.member(2).Offline })
		if since := b.member(2).Since; since.Before(back) {
			t.Errorf("online since %s, it answered at %s", since, back)
		}
		within(t, time.Second, "a stand-by", func() bool { return b.member(2).Role == state.RoleStandby })
	})
}

func TestNewLeaderGivesEverybodyAFullThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.join(2)
		b.join(3)
		<-time.After(time.Hour) // both answered an hour ago, in another term
		start := time.Now()
		defer b.lead()()
		<-time.After(19 * time.Second)
		synctest.Wait()
		if b.member(2).Offline || b.member(3).Offline {
			t.Fatal("offline before the threshold")
		}
		within(t, 2*time.Second, "both offline", func() bool { return b.member(2).Offline && b.member(3).Offline })
		if since := b.member(2).Since; since.Sub(start).Abs() > 100*time.Millisecond {
			t.Errorf("offline since %s, the term began at %s", since, start)
		}
		count := 0
		for _, kind := range b.takeEntries() {
			if kind == state.KindMemberLiveness {
				count++
			}
		}
		if count != 1 {
			t.Errorf("%d entries for two members that went away together", count)
		}
	})
}

func TestMemberThatBecomesActiveLateGetsAFullThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.lead()()
		<-time.After(time.Hour)
		b.admit(2)
		b.apply(state.KindMemberActivate, state.MemberActivate{ID: "id-2"})
		<-time.After(19 * time.Second)
		synctest.Wait()
		if b.member(2).Offline {
			t.Fatal("offline before the threshold")
		}
		within(t, 2*time.Second, "offline", func() bool { return b.member(2).Offline })
	})
}

func TestLeaderIsOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.apply(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: "id-1", Offline: true, Since: time.Now()}}})
		defer b.lead()()
		within(t, 5*time.Millisecond, "the leader is online", func() bool { return !b.member(1).Offline })
	})
}

func TestIdleClusterWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.keepAnswering(2, 3)()
		b.join(2)
		b.join(3)
		defer b.lead()()
		<-time.After(5 * time.Second)
		b.takeEntries()
		b.takeSteps()
		<-time.After(10 * time.Minute)
		synctest.Wait()
		if entries, steps := b.takeEntries(), b.takeSteps(); len(entries)+len(steps) > 0 {
			t.Errorf("wrote %q and changed %q", entries, steps)
		}
	})
}

func TestServersThatAreNoMembersAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.lead()()
		b.admit(2)
		synctest.Wait()
		if steps := b.takeSteps(); len(steps) > 0 {
			t.Fatalf("a joining member was touched: %q", steps)
		}
		b.apply(state.KindMemberAbort, state.MemberAbort{ID: "id-2", Fingerprint: b.member(2).Fingerprint})
		within(t, 5*time.Millisecond, "removed", func() bool { return len(b.Servers()) == 1 })
		if diff := cmp.Diff([]string{"remove id-2"}, b.takeSteps()); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
}

func TestServerThatIsAddedAtThisMomentStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.meantime = func() { b.admit(2) }
		defer b.lead()()
		<-time.After(time.Second)
		synctest.Wait()
		if steps := b.takeSteps(); len(steps) > 0 {
			t.Errorf("steps are %q", steps)
		}
	})
}

func TestActiveMemberThatRaftDoesNotKnowIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.join(2)
		b.removeServer("id-2")
		defer b.lead()()
		within(t, 2*time.Second, "added", func() bool { return len(b.Servers()) == 2 })
	})
}

func TestLeaderThatMustNotVoteGivesLeadershipAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.keepAnswering(2, 3, 4)()
		for n := 2; n <= 4; n++ {
			b.join(n)
		}
		stop := b.lead()
		within(t, 2*time.Second, "three voters", func() bool { return len(b.takeStepsIf(2)) == 2 })
		b.takeSteps()
		m := b.member(1)
		b.apply(state.KindMemberUpdate, state.MemberUpdate{ID: m.ID, Roles: []string{"database-client"}, FailureDomain: "default", Groups: m.Groups})
		within(t, 50*time.Millisecond, "leadership is given away", func() bool { return len(b.takeStepsIf(2)) == 2 })
		stop()
		if diff := cmp.Diff([]string{"promote id-4", "transfer id-2"}, b.takeSteps()); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
}

func TestLoopsGoOnAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.keepAnswering(2)()
		b.join(2)
		b.setFailure(errors.New("the disk hangs"))
		defer b.lead()()
		<-time.After(30 * time.Second)
		b.setFailure(nil)
		within(t, time.Second, "a stand-by", func() bool { return b.member(2).Role == state.RoleStandby })
	})
}

func TestSweepEndsWhatRanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		if _, err := b.tokens.Issue(t.Context(), "node7", nil); err != nil {
			t.Fatal(err)
		}
		live := func() bool { _, ok := b.tables.View().TokenByName("node7"); return ok }
		b.joiner(8)
		claimed := func() bool { tok, ok := b.tables.View().TokenByName("node8"); return ok && tok.ClaimedBy != "" }
		defer b.lead()()

		<-time.After(state.ClaimTime - 20*time.Millisecond)
		synctest.Wait()
		if !claimed() {
			t.Fatal("the claim was released before its time")
		}
		within(t, 50*time.Millisecond, "the claim is released", func() bool { return !claimed() })
		<-time.After(3*time.Hour - state.ClaimTime - 100*time.Millisecond)
		synctest.Wait()
		if !live() {
			t.Fatal("the token ended before its time")
		}
		within(t, 100*time.Millisecond, "the token has expired", func() bool { return !live() })
		if got := len(b.takeEntries()); got > 8 {
			t.Errorf("%d entries were written", got)
		}
	})
}

func TestSweepRemovesOnlyJoinersThatAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.lead()()
		stop := b.keepAnswering(2)
		b.admit(2) // lives, but is slow to become a member
		b.admit(3) // never heard of
		gone := func(id string) bool { _, ok := b.tables.View().Member(id); return !ok }
		<-time.After(state.JoinTime - time.Second)
		synctest.Wait()
		if gone("id-3") {
			t.Fatal("removed before its deadline")
		}
		within(t, 12*time.Second, "the lost one is removed", func() bool { return gone("id-3") })
		within(t, time.Second, "Raft forgets it", func() bool { return len(b.Servers()) == 2 })
		<-time.After(time.Hour)
		synctest.Wait()
		if gone("id-2") {
			t.Fatal("removed a member that answers")
		}
		stop()
		<-time.After(29 * time.Second)
		synctest.Wait()
		if gone("id-2") {
			t.Fatal("removed too soon")
		}
		within(t, 12*time.Second, "removed", func() bool { return gone("id-2") })
		if tok, ok := b.tables.View().TokenByName("node2"); ok && tok.ClaimedBy != "" {
			t.Errorf("its token is still claimed")
		}
	})
}

func TestRolesAreSettledWhenThePlannerIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.keepAnswering(2, 3)()
		if !rolesSettled(b.tables.View()) {
			t.Error("a cluster of one is not settled")
		}
		b.join(2)
		b.join(3)
		if rolesSettled(b.tables.View()) {
			t.Error("settled while two members wait for a vote")
		}
		defer b.lead()() // only now: it might be quicker than the look at what it has to do
		within(t, 50*time.Millisecond, "settled", func() bool { return rolesSettled(b.tables.View()) })
		requireRoles(t, b, map[string]string{"node1": "voter*", "node2": "voter*", "node3": "voter*"})
	})
}

func (b *bed) maintain(n int, from, to string) {
	b.t.Helper()
	b.apply(state.KindMemberMaintenance, state.MemberMaintenance{ID: b.member(n).ID, From: from, To: to})
}

func TestMaintenanceThatWasCutOffIsEndedByTheLeader(t *testing.T) {
	for _, tt := range []struct{ from, halfway, end string }{
		{"", state.MaintenanceEvacuating, state.MaintenanceEvacuated},
		{state.MaintenanceEvacuated, state.MaintenanceRestoring, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed(t)
			b.join(2)
			defer b.keepAnswering(2)()
			defer b.lead()()
			if tt.from != "" {
				b.maintain(2, "", state.MaintenanceEvacuating)
				b.maintain(2, state.MaintenanceEvacuating, tt.from)
			}
			b.maintain(2, tt.from, tt.halfway)
			<-time.After(59 * time.Second)
			synctest.Wait()
			if got := b.member(2).Maintenance; got != tt.halfway {
				t.Fatalf("it is %q before its time", got)
			}
			within(t, 3*time.Second, "ended", func() bool { return b.member(2).Maintenance == tt.end })
		})
	}
}

func (b *bed) set(key, value string) {
	b.t.Helper()
	b.apply(state.KindConfigSet, state.ConfigSet{Set: map[string]string{key: value}})
}

func TestMemberThatStaysOfflineIsHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.set("cluster.healing_threshold", "60")
		defer b.keepAnswering(3)()
		stop := b.keepAnswering(2)
		for n := 2; n <= 3; n++ {
			b.join(n)
		}
		defer b.lead()()
		<-time.After(time.Minute)
		stop()
		<-time.After(58 * time.Second)
		synctest.Wait()
		if m := b.member(2); !m.Offline || m.Maintenance != "" {
			t.Fatalf("before the threshold it is offline: %v, %q", m.Offline, m.Maintenance)
		}
		within(t, 5*time.Second, "healed", func() bool { return b.member(2).Maintenance == state.MaintenanceEvacuated })
		if b.member(3).Maintenance != "" || b.member(1).Maintenance != "" {
			t.Error("a member that answers was evacuated")
		}
		defer b.keepAnswering(2)()
		b.answer(2)
		<-time.After(time.Minute)
		synctest.Wait()
		if m := b.member(2); m.Offline || m.Maintenance != state.MaintenanceEvacuated {
			t.Errorf("when it is back it is offline: %v, %q; only an administrator restores it", m.Offline, m.Maintenance)
		}
	})
}

func TestNobodyIsHealedWithoutAThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.join(2)
		defer b.lead()()
		<-time.After(24 * time.Hour)
		synctest.Wait()
		if m := b.member(2); !m.Offline || m.Maintenance != "" {
			t.Errorf("it is offline: %v, %q", m.Offline, m.Maintenance)
		}
	})
}

// A leader that hears nobody is cut off itself, or was stopped for a while: it heals nobody.
func TestLeaderWithoutContactHealsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.set("cluster.healing_threshold", "60")
		stop := b.keepAnswering(2, 3)
		for n := 2; n <= 3; n++ {
			b.join(n)
		}
		defer b.lead()()
		within(t, 3*time.Second, "three voters", func() bool { return len(b.takeStepsIf(2)) == 2 })
		stop()
		<-time.After(time.Hour)
		synctest.Wait()
		for n := 1; n <= 3; n++ {
			if got := b.member(n).Maintenance; got != "" {
				t.Errorf("member %d is %s", n, got)
			}
		}
	})
}
