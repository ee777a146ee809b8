package raftstore_test

import (
	"io"
	"net"
	"testing"
	"time"

	"incusd/internal/raftstore/state"
)

// Whoever delays the opening of a connection until after its own removal gets nothing by it.
func TestNoConnectionOutlivesAMembersRemoval(t *testing.T) {
	c := newCluster(t, 3)
	leader, gone := c.leader(), c.follower()
	open := func() (far net.Conn) {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		leader.store.Track(near, gone.id)
		return far
	}
	ended := func(far net.Conn) bool {
		if far.SetReadDeadline(time.Now().Add(50*time.Millisecond)) != nil {
			return true
		}
		_, err := far.Read(make([]byte, 1))
		return err == io.EOF
	}
	if ended(open()) {
		t.Error("a member's connection was ended")
	}
	c.must(leader, state.KindMemberRemove, state.MemberRemove{ID: gone.id, Force: true})
	must(t, leader.store.Remove(c.ctx(), gone.id))
	c.must(leader, state.KindMemberLeave, state.MemberLeave{ID: gone.id})
	if !ended(open()) {
		t.Error("a connection that was opened while the member was removed goes on")
	}
}
