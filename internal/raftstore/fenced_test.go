package raftstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// The key of a machine that a recovery has left behind shuts nobody out, whatever it says.
func TestAFencedKeyShutsNobodyOut(t *testing.T) {
	c := newCluster(t, 2)
	leader := c.leader()
	fenced := c.follower()
	must(t, leader.store.Remove(c.ctx(), fenced.id))
	fenced.close()
	c.must(leader, state.KindClusterRecover, state.ClusterRecover{ID: "r1", MemberID: leader.id, Incarnation: 2})
	for _, claim := range []raftstore.Lineage{
		{Incarnation: 999},
		{Incarnation: 3, Recovery: "r9"},
		{Incarnation: 3, Recovery: "r9", Before: []string{"r1"}}, // and nobody says so where the member is
	} {
		thief := raftstore.Link{ID: fenced.id, ClusterID: c.id, Lineage: claim, Certificate: fenced.pair.TLS, Dial: c.net.Dialer("elsewhere")}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := raftstore.Survey(ctx, thief, leader.peer()); !errors.Is(err, api.MemberFenced) {
			t.Errorf("%+v was answered with %v", claim, err)
		}
		must(t, c.set(leader, "user.x", "1"))
		if why := leader.store.ShutOutReason(); why != nil {
			t.Errorf("shut out by %+v: %v", claim, why)
		}
	}
}
