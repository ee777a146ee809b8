package raftstore_test

import (
	"slices"
	"testing"
)

// A leader that has begun a change which it cannot commit can neither go on nor be outvoted.
func TestNoChangeOfVotesBeginsWithoutThoseThatWillVote(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	var others []*node
	for _, n := range c.nodes {
		if n != leader {
			others = append(others, n)
		}
	}
	alive, dead := others[0], others[1]
	before := leader.store.Servers()
	dead.kill()
	if err := leader.store.Demote(c.ctx(), alive.id); err == nil {
		t.Error("the vote of the last one that answers was taken")
	}
	if err := leader.store.Remove(c.ctx(), alive.id); err == nil {
		t.Error("the last one that answers was removed")
	}
	if after := leader.store.Servers(); !slices.Equal(after, before) {
		t.Errorf("Raft has %+v", after)
	}
	must(t, leader.store.Demote(c.ctx(), dead.id))
	if err := leader.store.Promote(c.ctx(), dead.id); err != nil {
		t.Errorf("two of three answer: %v", err)
	}
	must(t, leader.store.Demote(c.ctx(), dead.id))
	must(t, leader.store.Demote(c.ctx(), alive.id))
	if err := leader.store.Promote(c.ctx(), dead.id); err == nil {
		t.Error("a dead member got the second of two votes")
	}
	must(t, c.set(leader, "user.x", "1"))
}

// Raft would be busy with one of the transfers until the dead member is back, and take no entries.
func TestLeadershipIsNotTransferredToOneThatHasJustDied(t *testing.T) {
	c := newCluster(t, 3)
	leader, dead := c.leader(), c.follower()
	dead.kill()
	for range 5 {
		must(t, c.set(leader, "user.x", "1")) // which the dead one lacks
		if err := leader.store.TransferLeadership(c.ctx(), dead.id); err == nil {
			t.Error("it succeeded")
		}
	}
	must(t, c.set(leader, "user.x", "2"))
}
