package clustertest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/raftstore/state"
	"incusd/internal/recovery"
)

// withRoles waits until the members have the database roles that they are to have.
func withRoles(c *clustertest.Cluster, want map[string]string) {
	c.T.Helper()
	withRolesOn(c, c.Leader(), want)
}

// withRolesOn is withRoles as one member sees it.
func withRolesOn(c *clustertest.Cluster, by *clustertest.Server, want map[string]string) {
	c.T.Helper()
	c.Eventually("the roles", func() error {
		view := by.View()
		for name, role := range want {
			m, ok := view.MemberByName(name)
			if !ok || m.Role != role || view.IsVoter(m.ID) != (role == state.RoleVoter) {
				return fmt.Errorf("%s is no %s yet", name, role)
			}
		}
		return nil
	})
}

func voters(names ...string) map[string]string {
	want := make(map[string]string)
	for _, n := range names {
		want[n] = state.RoleVoter
	}
	return want
}

// followerOf is a member that does not lead.
func followerOf(c *clustertest.Cluster) *clustertest.Server {
	leader := c.Leader()
	for _, s := range c.Running() {
		if s != leader {
			return s
		}
	}
	c.T.Fatal("no follower")
	return nil
}

func fence(s *clustertest.Server, name string) (int, bool) {
	m, ok := s.View().MemberByName(name)
	if !ok {
		return 0, false
	}
	return m.Fenced, true
}

func TestClusterIsRecoveredFromOneOfThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		withRoles(c, voters("m1", "m2", "m3"))
		survivor := followerOf(c)
		for i := range 20 {
			if err := set(survivor, fmt.Sprintf("user.k%d", i), "1"); err != nil {
				t.Fatal(err)
			}
		}
		var lost []*clustertest.Server
		for _, s := range c.Servers() {
			if s != survivor {
				s.Kill()
				lost = append(lost, s)
			}
		}
		survivor.Stop()
		if err := survivor.Recover(c.Context(), false, nil); err != nil {
			t.Fatal(err)
		}
		survivor.MustStart()
		c.Eventually("writes go through again", func() error { return set(survivor, "user.after", "1") })
		for i := range 20 {
			if v, err := get(survivor, fmt.Sprintf("user.k%d", i)); err != nil || v != "1" {
				t.Errorf("user.k%d is %q, %v", i, v, err)
			}
		}
		members, err := survivor.Members(c.Context())
		if err != nil || len(members) != 3 {
			t.Fatalf("%d members, %v", len(members), err)
		}
		for _, m := range members {
			fenced := strings.HasPrefix(m.Message, "Fenced by the recovery on "+survivor.Host)
			if self := m.ServerName == survivor.Host; fenced == self || self != (m.Status == "Online") {
				t.Errorf("%s: %s, %s", m.ServerName, m.Status, m.Message)
			}
		}

		// The two come back together: they are a majority of what they know.
		for _, s := range lost {
			s.MustStart()
		}
		for _, s := range lost {
			c.Eventually(s.Host+" learns of the recovery", func() error {
				if err := set(s, "user.split", "1"); !errors.Is(err, api.MemberFenced) {
					return fmt.Errorf("a write was answered with %v", err)
				}
				return nil
			})
			err := set(s, "user.split", "1")
			if !strings.Contains(err.Error(), "vote") && !strings.Contains(err.Error(), survivor.Host) {
				t.Errorf("the refusal says %v", err)
			}
		}
		// For good, and over a restart.
		lost[0].Stop()
		lost[0].MustStart()
		if err := set(lost[0], "user.split", "1"); !errors.Is(err, api.MemberFenced) {
			t.Errorf("after a restart a write was answered with %v", err)
		}
		if list, err := lost[0].Members(c.Context()); err != nil || !strings.Contains(list[0].Message, "shut out when the cluster was recovered on member") {
			t.Errorf("a fenced member shows %v, %v", list, err)
		}
		if _, err := get(survivor, "user.after"); err != nil {
			t.Error(err)
		}
		copies, err := survivor.DatabaseCopies()
		if err != nil || len(copies) != 1 {
			t.Errorf("backups of the database: %v, %v", copies, err)
		}
	})
}

func TestStandbysFollowTheRecoveredVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 5)
		withRoles(c, map[string]string{"m1": state.RoleVoter, "m2": state.RoleVoter, "m3": state.RoleVoter, "m4": state.RoleStandby, "m5": state.RoleStandby})
		all := c.Servers()
		if err := set(all[4], "user.before", "1"); err != nil {
			t.Fatal(err)
		}
		c.RequireConverged()
		all[0].Kill()
		all[1].Kill()
		all[4].Kill() // it sleeps through the recovery, and comes back after it
		all[2].Stop()
		// m4, which has no vote, believes in the dead leader for some seconds more.
		c.Eventually("the recovery", func() error { return all[2].Recover(c.Context(), false, nil) })
		all[2].MustStart()
		all[4].MustStart()
		c.Eventually("the stand-bys are back", func() error {
			for _, name := range []string{"m4", "m5"} {
				if n, ok := fence(all[2], name); !ok || n != 0 {
					return fmt.Errorf("%s is fenced", name)
				}
			}
			return nil
		})
		withRoles(c, voters("m3", "m4", "m5"))
		c.Eventually("all three take writes", func() error {
			return errors.Join(set(all[2], "user.a", "1"), set(all[3], "user.b", "1"), set(all[4], "user.c", "1"))
		})
		if v, err := get(all[3], "user.before"); err != nil || v != "1" {
			t.Errorf("user.before is %q, %v", v, err)
		}
		c.RequireConverged()

		// Two of three are enough again, and what was readmitted stays so over a restart.
		all[2].Kill()
		all[3].Stop()
		all[3].MustStart()
		c.Eventually("a write with the recovered voter gone", func() error { return set(all[3], "user.d", "1") })
		// An old voter is still shut out, by members that were readmitted.
		all[0].MustStart()
		c.Eventually("the old voter is shut out", func() error {
			if err := set(all[0], "user.split", "1"); !errors.Is(err, api.MemberFenced) {
				return fmt.Errorf("a write was answered with %v", err)
			}
			return nil
		})
	})
}

// errStopHere ends a recovery at a step.
var errStopHere = errors.New("stop here")

func TestRecoveryThatIsCutOffIsRunAgain(t *testing.T) {
	for _, point := range []string{recovery.PointBackedUp, recovery.PointBuilt, recovery.PointDone} {
		t.Run(point, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3)
				withRoles(c, voters("m1", "m2", "m3"))
				all := c.Servers()
				if err := set(all[2], "user.x", "1"); err != nil {
					t.Fatal(err)
				}
				all[0].Kill()
				all[1].Kill()
				all[2].Stop()
				err := all[2].Recover(c.Context(), false, func(at string) error {
					if at == point {
						return errStopHere
					}
					return nil
				})
				if !errors.Is(err, errStopHere) {
					t.Fatal(err)
				}
				if point != recovery.PointDone {
					// The old replica still counts: it comes up without a quorum, and forgets the half.
					all[2].MustStart()
					if err := set(all[2], "user.y", "1"); !errors.Is(err, api.NoQuorum) {
						t.Errorf("a write before the recovery: %v", err)
					}
					all[2].Stop()
					if err := all[2].Recover(c.Context(), false, nil); err != nil {
						t.Fatal(err)
					}
				} else if err := all[2].Recover(c.Context(), false, nil); !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), "only voter") {
					t.Errorf("a second recovery: %v", err)
				}
				all[2].MustStart()
				c.Eventually("writes go through", func() error { return set(all[2], "user.z", "1") })
				if v, err := get(all[2], "user.x"); err != nil || v != "1" {
					t.Errorf("user.x is %q, %v", v, err)
				}
				if got := all[2].View().Cluster().Incarnation; got != 2 {
					t.Errorf("incarnation %d", got)
				}
			})
		})
	}
}

func TestRecoveryIsRefusedWhileAQuorumIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		withRoles(c, voters("m1", "m2", "m3"))
		all := c.Servers()
		if _, err := all[0].Stopped(); !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), "The daemon is running, please stop it first.") {
			t.Errorf("with the daemon running: %v", err)
		}
		all[2].Stop()
		if err := all[2].Recover(c.Context(), true, nil); !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), "follows the leader") {
			t.Errorf("with a leader: %v", err)
		}
		c.Leader().Kill()
		c.Eventually("the one that is left misses its leader, and is refused all the same", func() error {
			err := all[2].Recover(c.Context(), true, nil)
			if !errors.Is(err, api.Conflict) {
				t.Fatalf("with two of three voters: %v", err)
			}
			if !strings.Contains(err.Error(), "2 of 3 voters") {
				return err
			}
			return nil
		})
		all[2].MustStart()
		c.Eventually("the two elect a leader", func() error { return set(all[2], "user.x", "1") })
	})
}

// A stand-by misses a dead leader later than the voters do.
func TestRecoveryWaitsUntilAStandbyMissesTheLeader(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 5)
		withRoles(c, map[string]string{"m1": state.RoleVoter, "m2": state.RoleVoter, "m3": state.RoleVoter, "m4": state.RoleStandby, "m5": state.RoleStandby})
		all := c.Servers()
		all[2].Stop()
		c.Leader().Kill()
		if standby := all[3].View(); standby.Leader == "" {
			t.Error("it has missed the leader at once")
		}
		for _, s := range all[:2] {
			s.Kill()
		}
		if err := all[2].Recover(c.Context(), false, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestAFresherSurvivorIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 5)
		withRoles(c, map[string]string{"m1": state.RoleVoter, "m2": state.RoleVoter, "m3": state.RoleVoter, "m4": state.RoleStandby, "m5": state.RoleStandby})
		all := c.Servers()
		all[3].Stop()
		if err := set(all[0], "user.x", "1"); err != nil {
			t.Fatal(err)
		}
		c.RequireConverged()
		for _, s := range all[:3] {
			s.Kill()
		}
		c.Eventually("the others miss their leader", func() error {
			if err := set(all[4], "user.y", "1"); !errors.Is(err, api.NoQuorum) {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
		err := all[3].Recover(c.Context(), false, nil)
		if !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), `Member "m5" holds a fresher copy`) {
			t.Fatalf("recovery from the older copy: %v", err)
		}
		// With force it goes on, and the fresher one is not readmitted: it has what was lost.
		if err := all[3].Recover(c.Context(), true, nil); err != nil {
			t.Fatal(err)
		}
		all[3].MustStart()
		c.Eventually("m5 is told that it cannot follow", func() error {
			err := set(all[4], "user.y", "1")
			if !errors.Is(err, api.MemberFenced) || !strings.Contains(err.Error(), "lacks") {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
		time.Sleep(5 * time.Second)
		if n, _ := fence(all[3], "m5"); n != 2 {
			t.Errorf("m5 is fenced by incarnation %d", n)
		}
	})
}

func TestBackupUnderLoadIsRestoredAsAClusterOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		withRoles(c, voters("m1", "m2", "m3"))
		all := c.Servers()
		all[0].MustToken("m9")
		stop := make(chan struct{})
		written := make(chan int, 1)
		go func() {
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					written <- n
					return
				default:
				}
				if err := set(all[1], "user.n", fmt.Sprint(n)); err != nil {
					t.Error(err)
				}
			}
		}()
		if err := set(all[0], "user.x", "1"); err != nil {
			t.Fatal(err)
		}
		backup, err := all[2].Backup(c.Context())
		if err != nil {
			t.Fatal(err)
		}
		close(stop)
		<-written
		for _, s := range all {
			s.Stop()
		}
		fresh := c.AddServer()
		if err := fresh.Restore(c.Context(), backup[:len(backup)/2], "m1", fresh.Address()); !errors.Is(err, api.StoreDamaged) {
			t.Errorf("half a backup: %v", err)
		}
		if err := fresh.Restore(c.Context(), backup, "", ""); !errors.Is(err, api.NameInvalid) {
			t.Errorf("without a name: %v", err)
		}
		if err := fresh.Restore(c.Context(), backup, "m1", fresh.Address()); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Restore(c.Context(), backup, "m1", fresh.Address()); !errors.Is(err, api.AlreadyClustered) {
			t.Errorf("a second time: %v", err)
		}
		check := func() {
			t.Helper()
			members, err := fresh.Members(c.Context())
			if err != nil || len(members) != 1 || members[0].ServerName != "m1" || members[0].Status != "Online" {
				t.Fatalf("members %+v, %v", members, err)
			}
			if v, err := get(fresh, "user.x"); err != nil || v != "1" {
				t.Errorf("user.x is %q, %v", v, err)
			}
			tokens := fresh.View().Tokens()
			i := slices.IndexFunc(tokens, func(t *state.Token) bool { return t.Name == "m9" })
			if i < 0 || tokens[i].Ended != state.TokenRevoked {
				t.Errorf("tokens: %+v", tokens)
			}
		}
		check()
		fresh.Stop()
		fresh.MustStart()
		check()
		second := c.AddServer()
		second.MustJoin(fresh)
		c.RequireConverged()
	})
}

func TestAllAddressesAreEditedOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		withRoles(c, voters("m1", "m2", "m3"))
		if err := set(c.Servers()[0], "user.x", "1"); err != nil {
			t.Fatal(err)
		}
		c.RequireConverged()
		now := make(map[string]string)
		for _, s := range c.Servers() {
			s.Stop()
			now[s.Host] = s.Host + ":9443"
		}
		for _, s := range c.Servers() {
			if err := s.Edit(now); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range c.Servers() {
			s.MustStart()
		}
		c.Eventually("the cluster has the new addresses", func() error {
			members, err := c.Leader().Members(c.Context())
			if err != nil {
				return err
			}
			for _, m := range members {
				if m.URL != "https://"+now[m.ServerName] {
					return fmt.Errorf("%s is at %s", m.ServerName, m.URL)
				}
			}
			return nil
		})
		if v, err := get(c.Servers()[2], "user.x"); err != nil || v != "1" {
			t.Errorf("user.x is %q, %v", v, err)
		}
		c.RequireConverged()
	})
}
