package clustertest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// recoverOn recovers the cluster on a server, and starts it.
func recoverOn(c *clustertest.Cluster, s *clustertest.Server) {
	c.T.Helper()
	s.Stop()
	c.Eventually("the recovery on "+s.Host, func() error { return s.Recover(c.Context(), false, nil) })
	s.MustStart()
	c.Eventually("writes go through on "+s.Host, func() error { return set(s, "user.recovered", s.Host) })
}

// A member that was cut off while the cluster removed it, and that holds the only copy by now, is
// not emptied by what the old members still say of it.
func TestATombstoneFromBeforeARecoveryEmptiesNobody(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 4)
		withRoles(c, map[string]string{"m1": state.RoleVoter, "m2": state.RoleVoter, "m3": state.RoleVoter, "m4": state.RoleStandby})
		all := c.Servers()
		if err := set(all[0], "user.x", "1"); err != nil {
			t.Fatal(err)
		}
		c.RequireConverged()
		c.Net.Isolate("m4", "m1", "m2", "m3")
		if err := remove(c.Context(), all[0], "m4", false); err != nil {
			t.Fatal(err)
		}
		for _, s := range all[:3] {
			s.Kill()
		}
		c.Net.Heal()
		recoverOn(c, all[3])

		all[0].MustStart()
		time.Sleep(10 * time.Second) // m4 tells the fenced ones every two seconds
		if v := all[3].View(); !v.Cluster().Enabled || len(v.Members()) != 4 || !all[3].Leads() {
			t.Fatalf("m4 has started over: %+v", v.Members())
		}
		if v, err := get(all[3], "user.x"); err != nil || v != "1" {
			t.Errorf("user.x is %q, %v", v, err)
		}
		if err := set(all[3], "user.y", "1"); err != nil {
			t.Error(err)
		}
		if n, _ := fence(all[3], "m1"); n != 2 {
			t.Errorf("m1 is fenced by incarnation %d", n)
		}
		if err := set(all[0], "user.z", "1"); err == nil {
			t.Error("m1 alone took a write")
		}
	})
}

// Whoever was removed and kept its data may hold the only copy that is left, too.
func TestARemovedMemberIsRecoveredFrom(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		withRoles(c, voters("m1", "m2", "m3"))
		all := c.Servers()
		if err := set(all[0], "user.x", "1"); err != nil {
			t.Fatal(err)
		}
		c.RequireConverged()
		c.Net.Isolate("m3", "m1", "m2") // else the end of its row is in its own log
		if err := remove(c.Context(), all[0], "m3", true); err != nil {
			t.Fatal(err)
		}
		c.Net.Heal()
		c.Eventually("m3 knows", func() error { return wantReason(set(all[2], "user.y", "1"), api.MemberRemoved) })
		all[0].Kill()
		all[1].Kill()
		all[2].Stop()
		if err := all[2].Recover(c.Context(), false, nil); !errors.Is(err, api.MemberRemoved) {
			t.Errorf("without force: %v", err)
		}
		if err := all[2].Recover(c.Context(), true, nil); err != nil {
			t.Fatal(err)
		}
		all[2].MustStart()
		c.Eventually("writes go through", func() error { return set(all[2], "user.recovered", "1") })
		if v, err := get(all[2], "user.x"); err != nil || v != "1" {
			t.Errorf("user.x is %q, %v", v, err)
		}
		all[0].MustStart()
		all[1].MustStart()
		time.Sleep(10 * time.Second)
		if err := set(all[2], "user.y", "1"); err != nil {
			t.Error(err)
		}
		all[2].Stop()
		all[2].MustStart()
		c.Eventually("after a restart", func() error { return set(all[2], "user.y", "2") })
	})
}

// twice is a cluster of six, voters m1 to m3, in two parts that know nothing of each other, each
// recovered on its own: m1 with m4 and m5, which follow it, and m3 with m6. m2 is dead.
func twice(t *testing.T, onM6 ...func(*clustertest.Server)) (c *clustertest.Cluster, here, there *clustertest.Server) {
	t.Helper()
	c = grow(t, 6, func(host string) []func(*clustertest.Server) {
		if host == "m6" {
			return onM6
		}
		return nil
	})
	withRoles(c, voters("m1", "m2", "m3"))
	all := c.Servers()
	if err := set(all[0], "user.before", "1"); err != nil {
		t.Fatal(err)
	}
	c.RequireConverged()
	all[1].Kill()
	for _, a := range []string{"m1", "m4", "m5"} {
		c.Net.Isolate(a, "m3", "m6")
	}
	recoverOn(c, all[0])
	recoverOn(c, all[2])
	readmitted(c, all[0], "m4", "m5")
	readmitted(c, all[2], "m6")
	withRolesOn(c, all[0], voters("m1", "m4", "m5"))
	return c, all[0], all[2]
}

// readmitted waits until by counts the members called so as its own.
func readmitted(c *clustertest.Cluster, by *clustertest.Server, names ...string) {
	c.T.Helper()
	c.Eventually("the members follow "+by.Host, func() error {
		for _, name := range names {
			if n, ok := fence(by, name); !ok || n != 0 || by.Offline(name) {
				return fmt.Errorf("%s does not", name)
			}
		}
		return nil
	})
}

// A recovery is newer than what it came from, and not than whatever has a lower number.
func TestTwoRecoveriesDoNotOutnumberAnother(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, here, there := twice(t)
		all := c.Servers()
		all[3].Kill()
		all[4].Kill()
		recoverOn(c, here)
		if n := here.View().Cluster().Incarnation; n != 3 {
			t.Fatalf("incarnation %d", n)
		}
		c.Net.Heal()
		time.Sleep(10 * time.Second)
		for _, s := range []*clustertest.Server{here, there, all[5]} {
			if err := set(s, "user."+s.Host, "1"); err != nil {
				t.Errorf("a write on %s: %v", s.Host, err)
			}
		}
	})
}

// Whoever slept through two recoveries follows the last, also if it first meets one of the first,
// which is out of the cluster itself.
func TestASleeperIsNotTurnedAwayByWhoIsOut(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 6)
		withRoles(c, voters("m1", "m2", "m3"))
		all := c.Servers()
		c.RequireConverged()
		all[5].Stop()
		all[0].Kill()
		all[1].Kill()
		recoverOn(c, all[2])
		readmitted(c, all[2], "m4", "m5")
		withRolesOn(c, all[2], voters("m3", "m4", "m5"))
		all[2].Kill()
		all[4].Kill()
		recoverOn(c, all[3])
		all[2].MustStart()
		c.Eventually("m3 is out", func() error { return wantReason(set(all[2], "user.x", "1"), api.MemberFenced) })

		c.Net.Cut("m4", "m6")
		all[5].MustStart()
		c.Eventually("m6 hears of a recovery", func() error { return wantReason(set(all[5], "user.x", "1"), api.MemberFenced) })
		time.Sleep(10 * time.Second)
		c.Net.Heal()
		readmitted(c, all[3], "m6")
		if err := set(all[5], "user.x", "1"); err != nil {
			t.Error(err)
		}
		if n, _ := fence(all[3], "m3"); n != 3 {
			t.Errorf("m3, which had a vote, is fenced by incarnation %d", n)
		}
	})
}

// Neither of two recovered clusters is touched by the other, whatever it thinks of its members.
func TestRivalsLeaveEachOtherAlone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, here, _ := twice(t)
		all := c.Servers()
		mine, theirs := []*clustertest.Server{all[0], all[3], all[4]}, []*clustertest.Server{all[2], all[5]}
		// One of them has forgotten the other already.
		if err := remove(c.Context(), here, "m6", true); err != nil {
			t.Fatal(err)
		}
		c.Net.Heal()
		time.Sleep(10 * time.Second)
		for _, s := range append(mine, theirs...) {
			if err := set(s, "user."+s.Host, "1"); err != nil {
				t.Errorf("a write on %s: %v", s.Host, err)
			}
			if v, err := get(s, "user.before"); err != nil || v != "1" {
				t.Errorf("user.before on %s is %q, %v", s.Host, v, err)
			}
		}
		if v, _ := get(here, "user.m3"); v != "" {
			t.Error("a change of one is in the other")
		}
		if v, err := get(all[4], "user.m4"); err != nil || v != "1" {
			t.Errorf("user.m4 on m5 is %q, %v", v, err)
		}
		if v, err := get(all[5], "user.m3"); err != nil || v != "1" {
			t.Errorf("user.m3 on m6 is %q, %v", v, err)
		}
	})
}

// endRival ends the cluster of m3 and m6 as docs/recover.md says.
func endRival(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	last := c.Servers()[2]
	if err := remove(c.Context(), last, "m6", false); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m1", "m2", "m4", "m5"} {
		if err := remove(c.Context(), last, name, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := last.Do(c.Context(), "PUT", "/1.0/cluster", api.ClusterPut{}, nil); err != nil {
		t.Fatal(err)
	}
}

// One of two recovered clusters is ended, and its servers join the other, also if the word that tells
// one that it has left is late, and who could tell it is gone a moment later.
func TestARivalIsEnded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var leaving atomic.Bool
		var net *clustertest.Network
		c, here, there := twice(t, clustertest.OnReach(func(point string) error {
			if point == raftstore.PointForward && leaving.CompareAndSwap(true, false) {
				net.Delay("m3", "m6", time.Second)
				time.AfterFunc(2*time.Second, net.Heal)
			}
			return nil
		}))
		net = c.Net
		all := c.Servers()
		c.Net.Heal()
		requireRivals(t, c, here, "m3", "m6")
		requireRivals(t, c, all[3], "m3", "m6") // who does not lead knows, too
		requireRivals(t, c, there, "m1", "m4", "m5")
		leaving.Store(true)
		endRival(t, c)
		for _, s := range []*clustertest.Server{there, all[5]} {
			if err := remove(c.Context(), here, s.Host, true); err != nil {
				t.Fatal(err)
			}
			requireStandalone(t, c, s)
			s.MustJoin(here)
		}
		if err := remove(c.Context(), here, "m2", true); err != nil {
			t.Fatal(err)
		}
		requireMembers(t, c, here, "m1", "m4", "m5", "m3", "m6")
		c.RequireConverged()
	})
}

// requireRivals waits until by shows exactly these members as those of a rival.
func requireRivals(t *testing.T, c *clustertest.Cluster, by *clustertest.Server, names ...string) {
	t.Helper()
	c.Eventually(by.Host+" sees the rival", func() error {
		members, err := by.Members(c.Context())
		if err != nil {
			return err
		}
		var got []string
		for _, m := range members {
			if strings.HasPrefix(m.Message, "Runs in a rival") {
				got = append(got, m.ServerName)
			}
		}
		if !slices.Equal(got, names) {
			return fmt.Errorf("it shows %v", got)
		}
		d, err := diagnose(by)
		if want := "error rival " + strings.Join(names, " "); err != nil || !slices.Contains(codesOf(d), want) {
			return fmt.Errorf("it finds %v, %v", codesOf(d), err)
		}
		return nil
	})
}
