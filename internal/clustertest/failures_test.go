//go:build !race

// These tests kill many members, which takes minutes under the race detector; the tests
// beside them take the same paths.

package clustertest_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/raftstore"
)

// TestSingleAndDoubleFailuresEndInTheRightRoles kills one or two members of each kind at
// once, in clusters of each size. Where a majority of the voters lives, the roles are right
// again after the threshold; else nothing is changed, and all is right when one is back.
func TestSingleAndDoubleFailuresEndInTheRightRoles(t *testing.T) {
	cases := map[int][]string{
		1: {"L"},
		2: {"L", "S", "LS"},
		3: {"L", "V", "LV", "VV"},
		4: {"L", "V", "S", "LV", "LS", "VV", "VS"},
		5: {"L", "V", "S", "LV", "LS", "VV", "VS", "SS"},
		6: {"L", "S", "-", "LV", "L-", "VS", "V-", "SS", "S-"},
		7: {"V", "LS", "VV", "--"},
	}
	for size := 1; size <= 7; size++ {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, size)
				quickOffline(t, c.Servers()[0])
				requireSettled(t, c)
				for n, letters := range cases[size] {
					c.T = &named{t, letters}
					failTogether(t, c, letters, fmt.Sprint(n))
				}
				c.T = t
				c.RequireConverged()
			})
		})
	}
}

// named says in a failure which case it belongs to.
type named struct {
	testing.TB
	letters string
}

func (n *named) Fatalf(format string, args ...any) {
	n.TB.Helper()
	n.TB.Fatalf("members %s die: %s", n.letters, fmt.Sprintf(format, args...))
}

func failTogether(t *testing.T, c *clustertest.Cluster, letters, value string) {
	t.Helper()
	size := len(c.Servers())
	var dead []*clustertest.Server
	for i := range len(letters) {
		dead = append(dead, pick(t, c, letters[i], dead...))
	}
	// Written by who survives, if anybody does.
	if err := set(c.Leader(), "user.x", value); err != nil {
		t.Fatalf("%s: %v", letters, err)
	}
	var wg sync.WaitGroup
	for _, s := range dead {
		wg.Go(s.Kill)
	}
	wg.Wait()
	lost := strings.Count(letters, "L") + strings.Count(letters, "V")
	switch voters := odd(min(3, size)); {
	case len(dead) == size:
	case voters-lost > voters/2:
		requireSettled(t, c, dead...)
	default:
		requireUnavailable(t, c)
	}
	dead[0].MustStart()
	if lost == len(letters) || letters[0] != 'S' && letters[0] != '-' {
		requireSettled(t, c, dead[1:]...)
	}
	for _, s := range dead[1:] {
		s.MustStart()
	}
	requireSettled(t, c)
	for _, s := range c.Servers() {
		if got, err := get(s, "user.x"); err != nil || got != value {
			t.Fatalf("%s: %s reads %q, %v", letters, s.Host, got, err)
		}
	}
}

// requireUnavailable checks that those who are left say what is wrong, for longer than the
// threshold, and change nothing.
func requireUnavailable(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	time.Sleep(13 * time.Second)
	for _, s := range c.Running() {
		before := s.View().Index()
		if err := set(s, "user.y", "1"); !errors.Is(err, api.NoQuorum) {
			t.Fatalf("%s takes a write without a quorum: %v", s.Host, err)
		}
		members, err := s.Members(c.Context())
		if err != nil || !strings.HasPrefix(members[0].Message, "No quorum") {
			t.Fatalf("%s says %+v, %v", s.Host, members, err)
		}
		if after := s.View().Index(); after != before {
			t.Fatalf("%s went from %d to %d without a quorum", s.Host, before, after)
		}
	}
}

// TestCrashesAtEachStepOfAHandover kills the leader, or one of those that may take over, at
// each step on the way of a voter's role to another member.
func TestCrashesAtEachStepOfAHandover(t *testing.T) {
	points := []string{
		raftstore.PointPromote, raftstore.PointPromoted, raftstore.PointDemote, raftstore.PointDemoted,
		raftstore.PointTransfer,
	}
	for _, point := range points {
		for _, who := range []string{"leader", "another"} {
			t.Run(point+" "+who, func(t *testing.T) {
				virtual(t, func(t *testing.T) { crashAt(t, point, who) })
			})
		}
	}
}

func crashAt(t *testing.T, point, who string) {
	c, trap := trapped(t, 5, point)
	stopped := pick(t, c, 'L')
	trap.armed.Store(true)
	ended := make(chan struct{})
	go func() { stopped.Stop(); close(ended) }()
	select {
	case <-trap.caught:
	case <-c.Context().Done():
		t.Fatalf("nobody came to the point %q: %s", point, roles(c.Leader()))
	}
	leader := leading(c, stopped)
	var dead *clustertest.Server
	switch {
	case who == "another":
		dead = another(t, c, leader)
		dead.Kill()
		close(trap.release)
	case leader == stopped: // its daemon is ending already: cut off, it cannot hand anything over
		for _, s := range c.Running() {
			c.Net.Cut(stopped.Host, s.Host)
		}
		close(trap.release)
	default:
		dead = leader
		killHeld(c, leader, trap.release)
	}
	<-ended
	c.Net.Heal()
	away := []*clustertest.Server{stopped}
	if dead != nil {
		away = append(away, dead)
	}
	c.Eventually("somebody leads", func() error {
		if leaderNow(c) == nil {
			return errors.New("nobody")
		}
		return nil
	})
	requireSettled(t, c, away...)
	for _, s := range away {
		s.MustStart()
	}
	requireSettled(t, c)
	requireNobodyStops(t, c)
	c.RequireConverged()
}

// leading is who leads at this moment, be it the one that stops.
func leading(c *clustertest.Cluster, stopped *clustertest.Server) *clustertest.Server {
	for _, s := range c.Running() {
		if s.Leads() {
			return s
		}
	}
	return stopped
}

// another is a running member that does not lead.
func another(t *testing.T, c *clustertest.Cluster, leader *clustertest.Server) *clustertest.Server {
	t.Helper()
	for _, s := range c.Running() {
		if s != leader {
			return s
		}
	}
	t.Fatal("nobody is left")
	return nil
}
