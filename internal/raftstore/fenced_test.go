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

// recover makes n, whose cluster has no quorum, the only voter of the next incarnation, as the
// offline command does.
func (c *cluster) recover(n *node) {
	c.t.Helper()
	n.close()
	old, err := raftstore.ReadCopy(n.dir)
	must(c.t, err)
	cmd := command(c.t, state.KindClusterRecover, state.ClusterRecover{
		ID: "r1", MemberID: n.id, Incarnation: old.Tables.View().Cluster().Incarnation + 1, Copy: old.Extent,
	})
	entry, err := state.EncodeEntry([]state.Command{cmd})
	must(c.t, err)
	results, _, err := old.Tables.Apply(old.Extent.Last+1, max(old.Term, 1), entry)
	must(c.t, err)
	if results[0].Err != nil {
		c.t.Fatal(results[0].Err)
	}
	old.Tables.SetServers([]state.Server{{ID: n.id, Voter: true}})
	n.dir += "-recovered"
	must(c.t, raftstore.Build(n.dir, old.Tables.View(), old.Term))
	must(c.t, n.open(false, false))
	c.leader()
}

// The key of a machine that a recovery has left behind shuts nobody out, whatever it says.
func TestAFencedKeyShutsNobodyOut(t *testing.T) {
	c := newCluster(t, 2)
	leader := c.leader()
	fenced := c.follower()
	fenced.close()
	c.recover(leader)
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
