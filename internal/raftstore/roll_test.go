package raftstore_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

func TestWithoutQuorumItIsSaidWhoIsMissing(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	var left *node
	for _, n := range c.nodes {
		if n != leader {
			left = n
		}
	}
	c.until("it knows who votes", func() bool { return left.store.Local().IsVoter(left.id) && len(left.store.Local().Servers()) == 3 })
	for _, n := range c.nodes {
		if n != left {
			n.kill()
		}
	}
	c.until("the roll is called", func() bool {
		v, err := left.store.ReadOrStale(c.ctx())
		return err == nil && v.Stale != nil && v.Stale.Quorum != nil
	})
	v, err := left.store.ReadOrStale(c.ctx())
	must(t, err)
	if len(v.Stale.Quorum.Missing) != len(v.Stale.Quorum.Voters)-1 || v.Stale.Silent[left.id] || !v.Stale.Silent[leader.id] {
		t.Errorf("missing %v of %v, silent %v", v.Stale.Quorum.Missing, v.Stale.Quorum.Voters, v.Stale.Silent)
	}
	c.until("it has given up waiting", func() bool {
		start := time.Now()
		_, err := left.store.Propose(c.ctx(), command(t, state.KindConfigSet, state.ConfigSet{Set: map[string]string{"user.x": "1"}}))
		wantReason(t, err, api.NoQuorum)
		return strings.Contains(err.Error(), "missing: ") && time.Since(start) < 800*time.Millisecond
	})
}

// until waits for a condition.
func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	ctx := c.ctx()
	for !is() {
		select {
		case <-ctx.Done():
			c.t.Fatalf("%s: not in time", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestQuorumIsCountedByAConfigurationThatIsNotCommittedYet(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	var alive, dead *node
	for _, n := range c.nodes {
		if n != leader {
			alive, dead = dead, n
		}
	}
	dead.kill()
	leader.store.BeginDemotion(alive.id) // what is left are the leader and the dead one
	var quorum *raftstore.Quorum
	c.until("the quorum is lost", func() bool {
		v, err := leader.store.ReadOrStale(c.ctx())
		must(t, err)
		if v.Stale != nil {
			quorum = v.Stale.Quorum
		}
		return quorum != nil
	})
	if len(quorum.Voters) != 2 || !slices.Equal(quorum.Missing, []string{dead.id}) {
		t.Errorf("missing %v of %v", quorum.Missing, quorum.Voters)
	}
}
