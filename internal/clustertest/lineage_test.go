package clustertest_test

import (
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
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
		recoverOn(c, all[2])
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
