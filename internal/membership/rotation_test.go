package membership

import (
	"testing"
	"testing/synctest"
	"time"

	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

func TestRenewalIsDueHalfAYearBeforeTheEndOfAnOwnCertificate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pair, err := trust.GenerateAt(now, trust.Server)
	if err != nil {
		t.Fatal(err)
	}
	own := state.Cluster{Certificate: string(pair.CertPEM)}
	supplied := own
	supplied.Supplied = true
	ends := pair.Cert.NotAfter
	for _, test := range []struct {
		name string
		c    state.Cluster
		at   time.Time
		want bool
	}{
		{"new", own, now, false},
		{"the moment before", own, ends.Add(-trust.RenewBefore), false},
		{"the moment", own, ends.Add(-trust.RenewBefore + time.Second), true},
		{"expired", own, ends.AddDate(1, 0, 0), true},
		{"an administrator's", supplied, ends.AddDate(1, 0, 0), false},
		{"none", state.Cluster{}, now, false},
	} {
		if got := renewalDue(test.c, test.at); got != test.want {
			t.Errorf("%s: due %t", test.name, got)
		}
	}
}

// The new key is not committed before Raft has forgotten whoever must not have it.
func TestKeyIsRotatedWhenTheRemovedServerGetsNothingAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.join(2)
		b.join(3)
		for _, id := range []string{"id-1", "id-2", "id-3"} {
			b.setServer(id, true)
		}
		defer b.keepAnswering(2)()
		b.apply(state.KindMemberLiveness, state.MemberLiveness{Changes: []state.LivenessChange{{ID: "id-3", Offline: true, Since: time.Now().UTC(), Reason: "r"}}})
		b.apply(state.KindMemberRemove, state.MemberRemove{ID: "id-3", Force: true, RotateKey: true})
		if _, member := b.tables.View().Member("id-3"); member {
			b.apply(state.KindMemberLeave, state.MemberLeave{ID: "id-3"})
		}
		view := &raftstore.View{View: b.tables.View(), Leader: "id-1"}
		if !view.Cluster().RotateKey {
			t.Fatal("nobody asked for another key")
		}
		term := &term{Leader: NewLeader(b, b, Settings{}, nil, nil), start: time.Now()}
		before := view.Cluster().Certificate
		if err := term.renew(t.Context(), view); err != nil || b.tables.View().Cluster().Certificate != before {
			t.Fatalf("the key was rotated while Raft still has the server: %v", err)
		}
		if !lingers(view.View, b.Servers()) {
			t.Error("it lingers, and nobody sees it")
		}
		b.removeServer("id-3")
		if err := term.renew(t.Context(), view); err != nil || b.tables.View().Cluster().Certificate == before {
			t.Errorf("the key was not rotated: %v", err)
		}
	})
}
