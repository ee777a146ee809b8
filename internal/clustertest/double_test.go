package clustertest_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"incusd/internal/clustertest"
	"incusd/internal/daemon"
	"incusd/internal/raftstore"
)

// The two that are left keep their quorum, although the dead one is not known to be offline yet
// when votes are taken. It comes back when the removal has ended without it.
func TestLeaderKilledAtEachStepOfARemoval(t *testing.T) {
	for _, name := range []string{"m1", "m3"} { // m1 leads
		for _, point := range []string{raftstore.PointAppend, raftstore.PointCommitted} {
			t.Run(name+" "+point, func(t *testing.T) {
				virtual(t, func(t *testing.T) {
					c, trap := caughtAt(t, 0, point)
					dead, by := c.Servers()[0], c.Servers()[1]
					trap.armed.Store(true)
					done := make(chan error, 1)
					go func() { done <- remove(c.Context(), by, name, false) }()
					awaitCaught(t, trap, done)
					killHeld(c, dead, trap.release)
					if err := <-done; err != nil {
						t.Fatal(err)
					}
					if err := set(by, "user.x", "1"); err != nil {
						t.Errorf("a write afterwards: %v", err)
					}
					dead.MustStart()
					requireRemoved(t, c, by, server(c, name), without(c, name)...)
				})
			})
		}
	}
}

// The leader and one more fail in a step of the removal of a voter from five: the member that
// is removed dies or is cut off, or the one that asked is, so that its answer is lost.
func TestDoubleFailuresAtEachStepOfARemoval(t *testing.T) {
	for _, tt := range []struct{ point, other string }{
		{raftstore.PointAppend, "removed dies"},
		{raftstore.PointCommitted, "removed dies"},
		{raftstore.PointPromoted, "removed dies"},
		{raftstore.PointDemoted, "removed dies"},
		{raftstore.PointCommitted, "answer lost"},
		{raftstore.PointDemote, "answer lost"},
		{raftstore.PointAppend, "removed cut off"},
		{raftstore.PointCommitted, "removed cut off"},
		{raftstore.PointDemoted, "removed cut off"},
	} {
		t.Run(tt.point+" "+tt.other, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c, trap := trapped(t, 5, tt.point)
				leader, gone, by := c.Leader(), pick(t, c, 'V'), pick(t, c, 'S')
				trap.armed.Store(true)
				done := make(chan error, 1)
				go func() { done <- remove(c.Context(), by, gone.Host, false) }()
				awaitCaught(t, trap, done)
				dead := []*clustertest.Server{leader}
				switch tt.other {
				case "removed dies":
					gone.Kill()
					dead = append(dead, gone)
				case "removed cut off":
					cutOff(c, gone)
				case "answer lost":
					cutOff(c, by)
				}
				killHeld(c, leader, trap.release)
				t.Logf("the request: %v", <-done)
				time.Sleep(12 * time.Second) // longer than the threshold
				for _, s := range dead {
					s.MustStart()
				}
				c.Net.Heal()
				requireRemoved(t, c, by, gone, without(c, gone.Host)...)
				requireSettled(t, c)
				c.RequireConverged()
			})
		})
	}
}

// The leader dies in a step of the move of another voter, which dies too, or is cut off and
// then started again.
func TestDoubleFailuresAtEachStepOfAMove(t *testing.T) {
	for _, point := range []string{daemon.PointAddressNoted, daemon.PointAddressTold} {
		for _, other := range []string{"dies", "is cut off"} {
			t.Run(point+" mover "+other, func(t *testing.T) {
				virtual(t, func(t *testing.T) {
					c, trap := trapped(t, 5, point)
					leader, mover := c.Leader(), pick(t, c, 'V')
					address := mover.Host + ":9443"
					trap.armed.Store(true)
					done := make(chan error, 1)
					ctx, cancel := context.WithCancel(c.Context())
					go func() { done <- mover.MoveTo(ctx, address, false) }()
					awaitCaught(t, trap, done)
					if other == "is cut off" {
						cutOff(c, mover)
						leader.Kill()
						time.Sleep(12 * time.Second)
					} else {
						leader.Kill()
					}
					killHeld(c, mover, trap.release)
					cancel()
					<-done
					c.Net.Heal()
					leader.MustStart()
					mover.MustStart()
					requireAddress(c, mover, address)
					if err := mover.MoveTo(c.Context(), address, false); err != nil {
						t.Errorf("once more: %v", err)
					}
					requireSettled(t, c)
					c.RequireConverged()
				})
			})
		}
	}
}

// The leader stops, and is killed in a step of handing its role over, and so is one of those
// that may take it over: each of the voters, or of the stand-bys, in turn.
func TestDoubleFailuresAtEachStepOfAHandover(t *testing.T) {
	for _, tt := range []struct {
		point  string
		letter byte
	}{
		{raftstore.PointPromote, 'S'},
		{raftstore.PointPromoted, 'S'},
		{raftstore.PointTransfer, 'V'},
		{raftstore.PointDemote, 'L'}, // who leads by then
		{raftstore.PointDemoted, 'L'},
	} {
		for which := range 2 {
			if tt.letter == 'L' && which > 0 {
				continue
			}
			t.Run(tt.point+" "+string('1'+rune(which)), func(t *testing.T) {
				virtual(t, func(t *testing.T) { dieTogether(t, tt.point, tt.letter, which) })
			})
		}
	}
}

func dieTogether(t *testing.T, point string, letter byte, which int) {
	c, trap := trapped(t, 5, point)
	stopped := c.Leader()
	var heir *clustertest.Server
	if letter != 'L' {
		heir = pick(t, c, letter)
		if which > 0 {
			heir = pick(t, c, letter, heir)
		}
	}
	trap.armed.Store(true)
	ended := make(chan error, 1)
	go func() { stopped.Stop(); ended <- nil }()
	awaitCaught(t, trap, ended)
	cutOff(c, stopped) // its daemon is ending already: it cannot be killed any more
	c.Net.Kill(stopped.Host)
	if heir == nil {
		heir = c.Leader()
		killHeld(c, heir, trap.release)
	} else {
		heir.Kill()
		close(trap.release)
	}
	<-ended
	time.Sleep(12 * time.Second)
	c.Net.Heal()
	heir.MustStart()
	requireSettled(t, c, stopped)
	if err := set(c.Running()[0], "user.x", "1"); err != nil {
		t.Errorf("a write when one is back: %v", err)
	}
	stopped.MustStart()
	requireSettled(t, c)
	requireNobodyStops(t, c)
	c.RequireConverged()
}

// awaitCaught waits until the trap holds somebody, and fails if what it is set for ends before.
func awaitCaught(t *testing.T, trap *trap, ended <-chan error) {
	t.Helper()
	select {
	case <-trap.caught:
	case err := <-ended:
		t.Fatalf("it ended without coming to %q: %v", trap.point, err)
	}
}

func cutOff(c *clustertest.Cluster, s *clustertest.Server) {
	for _, other := range c.Servers() {
		if other != s {
			c.Net.Cut(s.Host, other.Host)
		}
	}
}

// without lists all servers but the one called name.
func without(c *clustertest.Cluster, name string) []string {
	var names []string
	for _, s := range c.Servers() {
		names = append(names, s.Host)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == name })
}
