package membership

import (
	"strings"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore/state"
)

// The cluster was recovered on node1: node2, a voter then, is shut out.
func fencedBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t)
	b.join(2)
	b.apply(state.KindClusterRecover, state.ClusterRecover{ID: "r1", MemberID: "id-1", Incarnation: 2, Voters: []string{"id-2"}})
	return b
}

func TestFencedMemberSaysSo(t *testing.T) {
	b := fencedBed(t)
	m := Member(b.Local(), b.member(2), time.Now())
	if m.Status != StatusOffline || m.Message != "Fenced by the recovery on node1: remove or replace it" || len(m.Roles) != 0 || m.Database {
		t.Errorf("member %+v", m)
	}
}

func TestTheLastThatIsNotShutOutIsToldHowToEnd(t *testing.T) {
	b := fencedBed(t)
	err := MayReset(b.Local().View, "id-1", false, true, true)
	requireReason(t, err, api.Conflict)
	if hint := api.AsError(err).Hint; !strings.Contains(hint, "incus admin cluster disable") {
		t.Errorf("the hint is %q", hint)
	}
}

func TestFencedMemberIsNoCandidateAndNotJudged(t *testing.T) {
	b := fencedBed(t)
	ready := func(string) bool { return true }
	servers := []state.Server{{ID: "id-1", Voter: true}}
	list := candidates(b.tables.View(), servers, "id-1", ready)
	if len(list) != 1 || list[0].ID != "id-1" {
		t.Errorf("candidates %+v", list)
	}
	b.answers["id-2"] = time.Now()
	term := &term{Leader: NewLeader(b, b, Settings{}, nil, nil), start: time.Now().Add(-time.Second)}
	if changes := term.livenessChanges(b.Local(), make(acquaintances)); len(changes) != 0 {
		t.Errorf("judged: %+v", changes)
	}
	if _, more := nextStep(seats(b.tables.View(), servers, list)); more {
		t.Error("Raft's configuration is to be changed for a fenced member")
	}
}
