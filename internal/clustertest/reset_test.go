package clustertest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/daemon"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

func reset(s *clustertest.Server) error {
	return s.Do(s.C.Context(), "POST", "/internal/cluster/reset?force=1", nil, nil)
}

// A member that still counts as fenced may be reset; one that the cluster takes back between that
// judgement and the reset may not, or the cluster would count an empty server.
func TestResetDoesNotEmptyAMemberThatIsReadmittedMeanwhile(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		hold := newTrap(raftstore.PointAppend)
		hold.armed.Store(false)
		for i := range 5 {
			s := c.AddServer(clustertest.OnReach(func(point string) error {
				if point != hold.point || !hold.armed.CompareAndSwap(true, false) {
					return nil
				}
				close(hold.caught)
				<-hold.release
				return nil
			}))
			if i == 0 {
				s.MustBootstrap()
			} else {
				s.MustJoin(c.Servers()[0])
			}
		}
		withRoles(c, map[string]string{"m1": state.RoleVoter, "m2": state.RoleVoter, "m3": state.RoleVoter, "m4": state.RoleStandby, "m5": state.RoleStandby})
		c.RequireConverged()
		all := c.Servers()
		for _, s := range []*clustertest.Server{all[0], all[1], all[4]} {
			s.Kill()
		}
		all[2].Stop()
		c.Eventually("the recovery", func() error { return all[2].Recover(c.Context(), false, nil) })
		c.Net.Isolate("m4", "m3")
		all[2].MustStart()
		c.Eventually("m3 takes writes", func() error { return set(all[2], "user.x", "1") })
		c.Net.Heal()
		c.Eventually("m4 has the recovered state, and is not readmitted yet", func() error {
			v := all[3].View()
			if m, ok := v.MemberByName("m4"); !ok || m.Fenced == 0 || v.Cluster().Incarnation != 2 {
				return errors.New("not yet")
			}
			hold.armed.Store(true)
			return nil
		})
		<-hold.caught
		// m4 asks two seconds after it has the state, and is held. The reset judges it meanwhile: for
		// two seconds it tries to ask the cluster, and then takes m4's own word, that it is fenced.
		time.Sleep(time.Second)
		done := make(chan error, 1)
		go func() { done <- reset(all[3]) }()
		time.Sleep(3 * time.Second)
		close(hold.release)
		if err := <-done; !errors.Is(err, api.Conflict) {
			t.Errorf("the reset: %v", err)
		}
		c.Eventually("m4 is a member, and not an empty server", func() error {
			if n, ok := fence(all[2], "m4"); !ok || n != 0 {
				return fmt.Errorf("fenced %d, %v", n, ok)
			}
			if !all[3].View().Cluster().Enabled {
				t.Fatal("m4 counts as a member and is empty")
			}
			return set(all[3], "user.y", "1")
		})
	})
}

// An error after the moment at which the empty replica counts must not close it: the server goes
// on with what its local store says, without being started again.
func TestServerGoesOnWithTheReplicaThatCounts(t *testing.T) {
	for point, left := range map[string]bool{daemon.PointEmptied: false, daemon.PointStartedOver: true} {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
				first := c.AddServer()
				first.MustBootstrap()
				gone := c.AddServer(clustertest.OnReach(func(at string) error {
					if at == point {
						return errors.New("an error of the test")
					}
					return nil
				}))
				gone.MustJoin(first)
				c.RequireConverged()
				gone.Kill()
				requireOffline(t, c, first, gone)
				if err := remove(c.Context(), first, "m2", true); err != nil {
					t.Fatal(err)
				}
				gone.MustStart()
				c.Eventually("it knows", func() error { return wantReason(set(gone, "user.x", "1"), api.MemberRemoved) })
				err := reset(gone)
				if left != (err == nil) {
					t.Errorf("the reset: %v", err)
				}
				for range 2 {
					if left {
						requireStandalone(t, c, gone)
					} else if err := set(gone, "user.x", "1"); !errors.Is(err, api.MemberRemoved) {
						t.Errorf("before the reset counts: %v", err)
					}
					gone.Kill()
					gone.MustStart()
				}
			})
		})
	}
}
