package raftstore_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
)

// contact is what all says of a node.
func contact(all raftstore.Contacts, n *node) (raftstore.Contact, bool) {
	for _, c := range all.Members {
		if c.ID == n.id {
			return c, true
		}
	}
	return raftstore.Contact{}, false
}

func TestContactsAreTheLeadersWhoeverIsAsked(t *testing.T) {
	c := newCluster(t, 3)
	follower := c.follower()
	must(t, c.set(follower, "user.x", "1"))
	leader := c.leader()
	for _, n := range c.nodes {
		all := n.store.Contacts(c.ctx())
		if all.From != leader.id || !all.Leads || all.Term == 0 || all.LastIndex == 0 || len(all.Members) != 2 {
			t.Errorf("%s says %+v", n.host, all)
		}
		got, ok := contact(all, follower)
		if !ok || !got.Heard || got.Match == 0 || got.Match > all.LastIndex {
			t.Errorf("%s says of the follower %+v", n.host, got)
		}
	}
}

func TestContactsWithoutALeaderAreThoseOfWhoIsAsked(t *testing.T) {
	c := newCluster(t, 2)
	asked, other := c.nodes[0], c.nodes[1]
	other.kill()
	for asked.store.Leader() != "" {
		<-time.After(5 * time.Millisecond)
	}
	all := asked.store.Contacts(c.ctx())
	if all.From != asked.id || all.Leads {
		t.Errorf("contacts %+v", all)
	}
	if h := asked.store.Health(); h.Leader != "" || h.NoLeader <= 0 || h.State == "leader" || h.LastIndex == 0 || h.AppliedIndex == 0 {
		t.Errorf("health %+v", h)
	}
}

func TestHealthCountsWrites(t *testing.T) {
	c := newCluster(t, 1)
	must(t, c.set(c.nodes[0], "user.x", "1"))
	h := c.nodes[0].store.Health()
	if h.State != "leader" || h.Leader != c.nodes[0].id || h.NoLeader != 0 || h.Writes.Count == 0 || h.Writes.Max <= 0 || h.Writes.Stalled != 0 {
		t.Errorf("health %+v", h)
	}
}

func TestProbeTellsHowAMemberIsMissed(t *testing.T) {
	c := newCluster(t, 3)
	from, to := c.nodes[0], c.nodes[1]
	probe := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := from.store.Probe(ctx, to.id)
		return err
	}
	connected := func(err error) bool {
		var c interface{ Connected() bool }
		return errors.As(err, &c) && c.Connected()
	}
	must(t, probe())

	c.net.Cut(from.host, to.host)
	if err := probe(); !errors.Is(err, context.DeadlineExceeded) || connected(err) {
		t.Errorf("cut off: %v", err)
	}
	c.net.Heal()

	to.kill()
	if err := probe(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("down: %v", err)
	}

	ln, err := c.net.Listen(to.address()) // takes connections, and nobody answers them
	must(t, err)
	if err := probe(); !connected(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hangs: %v", err)
	}
	ln.Close()

	other, err := c.net.Listen(to.address())
	must(t, err)
	defer other.Close()
	ep := &raftstore.Endpoint{}
	ep.Attach(c.nodes[2].store)
	go serve(other, ep, c.nodes[2].pair)
	if err := probe(); !errors.Is(err, api.FingerprintMatch) {
		t.Errorf("another server: %v", err)
	}
}
