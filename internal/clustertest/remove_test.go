package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/daemon"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
)

// remove removes the member called name, as an administrator at by would.
func remove(ctx context.Context, by *clustertest.Server, name string, force bool) error {
	path := "/1.0/cluster/members/" + name
	if force {
		path += "?force=1"
	}
	return by.Do(ctx, "DELETE", path, nil, nil)
}

// requireMembers waits until by shows exactly these members, with as many voters as they are
// good for.
func requireMembers(t *testing.T, c *clustertest.Cluster, by *clustertest.Server, names ...string) {
	t.Helper()
	c.Eventually("the members", func() error {
		members, err := by.Members(c.Context())
		if err != nil {
			return err
		}
		var got []string
		voters := 0
		for _, m := range members {
			got = append(got, m.ServerName)
			if slices.Contains(m.Roles, api.RoleDatabase) {
				voters++
			}
		}
		want := min(3, len(names))
		if want%2 == 0 {
			want--
		}
		if !slices.Equal(got, names) || voters != want {
			return fmt.Errorf("%s shows %v with %d voters, expected %v with %d", by.Host, got, voters, names, want)
		}
		if servers := by.View().Servers(); len(servers) != len(names) {
			return fmt.Errorf("Raft has %d servers, expected %d", len(servers), len(names))
		}
		return nil
	})
}

// requireStandalone waits until s is an empty standalone server.
func requireStandalone(t *testing.T, c *clustertest.Cluster, s *clustertest.Server) {
	t.Helper()
	c.Eventually("a standalone server", func() error {
		var cluster api.Cluster
		if err := s.Do(c.Context(), "GET", "/1.0/cluster", nil, &cluster); err != nil {
			return err
		}
		if v := s.View(); cluster.Enabled || v.Cluster().Enabled || len(v.Members()) != 1 {
			return fmt.Errorf("%s is still clustered", s.Host)
		}
		return s.Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"user.x": "1"}}, nil)
	})
}

func TestMemberIsRemovedFromAnywhere(t *testing.T) {
	for _, size := range []int{2, 3} {
		for gone := range size {
			for by := range size {
				t.Run(fmt.Sprintf("m%d of %d at m%d", gone+1, size, by+1), func(t *testing.T) {
					t.Parallel()
					c := clustertest.New(t, size)
					c.RequireConverged()
					servers := c.Servers()
					if err := remove(c.Context(), servers[by], servers[gone].Host, false); err != nil {
						t.Fatal(err)
					}
					requireStandalone(t, c, servers[gone])
					var names []string
					var other *clustertest.Server
					for i, s := range servers {
						if i != gone {
							names, other = append(names, s.Host), s
						}
					}
					requireMembers(t, c, other, names...)
					c.RequireConverged()
				})
			}
		}
	}
}

func TestRemovedMemberJoinsAgain(t *testing.T) {
	c := clustertest.New(t, 3)
	first, third := c.Servers()[0], c.Servers()[2]
	for range 2 {
		if err := remove(c.Context(), third, "m3", false); err != nil {
			t.Fatal(err)
		}
		requireStandalone(t, c, third)
		third.MustJoin(first)
		requireMembers(t, c, first, "m1", "m2", "m3")
	}
	c.RequireConverged()
}

func TestLastMemberIsNotRemoved(t *testing.T) {
	c := clustertest.New(t, 1)
	for _, force := range []bool{false, true} {
		if err := remove(c.Context(), c.Servers()[0], "m1", force); !errors.Is(err, api.LastMember) {
			t.Errorf("force %v: %v", force, err)
		}
	}
	if err := remove(c.Context(), c.Servers()[0], "m9", false); !errors.Is(err, api.MemberNotFound) || err.Error() != `Failed to get member "m9": Cluster member not found` {
		t.Error(err)
	}
}

func TestDeadMemberIsRemovedByForceAndLearnsIt(t *testing.T) {
	for _, gone := range []int{0, 1, 2} {
		t.Run(fmt.Sprintf("m%d", gone+1), func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, 3)
			servers := c.Servers()
			dead, by := servers[gone], servers[(gone+1)%3]
			dead.Kill()
			requireOffline(t, c, c.Leader(), dead)
			if err := remove(c.Context(), by, dead.Host, false); !errors.Is(err, api.MemberOffline) {
				t.Fatalf("without force: %v", err)
			}
			start := time.Now()
			if err := remove(c.Context(), by, dead.Host, true); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
			dead.MustStart()
			c.Eventually("it knows", func() error {
				return wantReason(dead.Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"user.x": "1"}}, nil), api.MemberRemoved)
			})
			if members, err := dead.Members(c.Context()); err != nil || len(members) != 3 {
				t.Errorf("it shows %v, %v", members, err)
			}
			dead.Stop()
			c.Net.Isolate(dead.Host, by.Host, servers[(gone+2)%3].Host)
			dead.MustStart()
			if err := dead.Join(c.Context(), by.MustToken(dead.Host)); !errors.Is(err, api.MemberRemoved) {
				t.Errorf("a join before the reset: %v", err)
			}
			if err := dead.Do(c.Context(), "POST", "/internal/cluster/reset", nil, nil); err != nil {
				t.Fatal(err)
			}
			requireStandalone(t, c, dead)
			c.Net.Heal()
			dead.MustJoin(by)
			c.Eventually("it is a member again", func() error {
				members, err := by.Members(c.Context())
				if err == nil && len(members) != 3 {
					err = fmt.Errorf("%d members", len(members))
				}
				return err
			})
			c.RequireConverged()
		})
	}
}

// wantReason is nil if err has the reason.
func wantReason(err error, reason api.Reason) error {
	if errors.Is(err, reason) {
		return nil
	}
	return fmt.Errorf("got %v, expected %s", err, reason)
}

// requireRemoved runs the command again, as somebody would who got no answer, and checks the
// promise: the member is gone, its server is an empty standalone one, and may join again.
func requireRemoved(t *testing.T, c *clustertest.Cluster, by, gone *clustertest.Server, names ...string) {
	t.Helper()
	c.Eventually("the removal ends", func() error {
		err := remove(c.Context(), by, gone.Host, false)
		if errors.Is(err, api.MemberNotFound) {
			return nil
		}
		return err
	})
	requireStandalone(t, c, gone)
	requireMembers(t, c, by, names...)
	c.RequireConverged()
	gone.MustJoin(by)
}

// caughtAt is a cluster of three whose member at index i is held at a point, once the trap is armed.
func caughtAt(t *testing.T, i int, point string) (*clustertest.Cluster, *trap) {
	t.Helper()
	trap := newTrap(point)
	trap.armed.Store(false)
	c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
	for n := range 3 {
		var prepare []func(*clustertest.Server)
		if n == i {
			prepare = append(prepare, clustertest.OnReach(trap.reach))
		}
		s := c.AddServer(prepare...)
		if n == 0 {
			s.MustBootstrap()
		} else {
			s.MustJoin(c.Servers()[0])
		}
	}
	requireMembers(t, c, c.Servers()[0], "m1", "m2", "m3")
	return c, trap
}

// killAt removes a member through by, and kills victim when it is caught; what the request
// comes to is not known then. Then victim is started again, unless it is dead for good.
func killAt(c *clustertest.Cluster, trap *trap, by, victim *clustertest.Server, name string, forGood bool) {
	c.T.Helper()
	trap.armed.Store(true)
	done := make(chan error, 1)
	go func() { done <- remove(c.Context(), by, name, false) }()
	var ended <-chan error
	if trap.point == raftstore.PointForwarded {
		ended = done // the answer to a member that leaves may be that its connection is closed
	}
	select {
	case <-trap.caught:
		killHeld(c, victim, trap.release)
	case err := <-ended:
		if trap.armed.CompareAndSwap(true, false) && err == nil {
			return
		}
		c.T.Fatalf("the request came to: %v", err)
	}
	c.T.Logf("the request: %v", <-done)
	if !forGood {
		victim.MustStart()
	}
}

func TestMemberKilledAtEachStepOfItsRemovalIsGone(t *testing.T) {
	for _, point := range []string{raftstore.PointForward, raftstore.PointForwarded, daemon.PointLeft, daemon.PointEmptied, daemon.PointStartedOver} {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c, trap := caughtAt(t, 2, point)
				all := c.Servers()
				killAt(c, trap, all[0], all[2], "m3", false)
				requireRemoved(t, c, all[1], all[2], "m1", "m2")
			})
		})
	}
}

func TestMemberKilledForGoodIsRemovedWithoutIt(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, trap := caughtAt(t, 2, raftstore.PointForward)
		all := c.Servers()
		killAt(c, trap, all[0], all[2], "m3", true)
		requireMembers(t, c, all[1], "m1", "m2")
		all[2].MustStart() // it was a graceful removal, so it knows what to do
		requireStandalone(t, c, all[2])
	})
}

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

// awaitCaught waits until the trap holds somebody, and fails if what it is set for ends before.
func awaitCaught(t *testing.T, trap *trap, ended <-chan error) {
	t.Helper()
	select {
	case <-trap.caught:
	case err := <-ended:
		t.Fatalf("it ended without coming to %q: %v", trap.point, err)
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

func TestRequesterKilledAtEachStepOfARemoval(t *testing.T) {
	for _, point := range []string{raftstore.PointForward, raftstore.PointForwarded} {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c, trap := caughtAt(t, 1, point)
				all := c.Servers()
				killAt(c, trap, all[1], all[1], "m3", false)
				requireRemoved(t, c, all[0], all[2], "m1", "m2")
			})
		})
	}
}

func TestTwoMembersAreRemovedAtTheSameTime(t *testing.T) {
	c := clustertest.New(t, 4)
	all := c.Servers()
	var wg sync.WaitGroup
	for i, name := range []string{"m1", "m2"} {
		wg.Go(func() {
			if err := remove(c.Context(), all[2+i], name, false); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	requireStandalone(t, c, all[0])
	requireStandalone(t, c, all[1])
	requireMembers(t, c, all[2], "m3", "m4")
	c.RequireConverged()
}

func TestMemberThatIsCutOffIsRemovedAndLearnsIt(t *testing.T) {
	c := clustertest.New(t, 3)
	all := c.Servers()
	c.Net.Isolate("m3", "m1", "m2")
	if err := remove(c.Context(), all[0], "m3", false); err != nil {
		t.Fatal(err)
	}
	requireMembers(t, c, all[1], "m1", "m2")
	if v := all[2].View(); !v.Cluster().Enabled {
		t.Error("it left although it cannot know")
	}
	c.Net.Heal()
	requireStandalone(t, c, all[2])
}

func TestNothingIsRemovedWithoutQuorum(t *testing.T) {
	c := clustertest.New(t, 3)
	all := c.Servers()
	c.Net.Isolate("m1", "m2", "m3")
	c.Eventually("no quorum", func() error {
		return wantReason(remove(c.Context(), all[0], "m3", true), api.NoQuorum)
	})
	if err := all[0].Do(c.Context(), "PUT", "/1.0/cluster", api.ClusterPut{}, nil); !errors.Is(err, api.NoQuorum) {
		t.Errorf("leaving: %v", err)
	}
	if err := all[0].Do(c.Context(), "POST", "/internal/cluster/reset", nil, nil); !errors.Is(err, api.NoQuorum) {
		t.Errorf("reset of a member whose cluster does not answer: %v", err)
	}
	c.Net.Heal()
	requireMembers(t, c, all[1], "m1", "m2", "m3")
	c.Eventually("a member of a cluster that works is not reset", func() error {
		return wantReason(all[0].Do(c.Context(), "POST", "/internal/cluster/reset?force=0", nil, nil), api.Conflict)
	})
	c.RequireConverged()
}

func TestForcedRemovalOfALivingMemberLeavesItsData(t *testing.T) {
	c := clustertest.New(t, 3)
	all := c.Servers()
	define(t, all[0], "local", all...)
	mustCreate(t, all[0], "local")
	volume := api.StorageVolumesPost{Name: "v1", Type: "custom"}
	if err := all[2].Do(c.Context(), "POST", "/1.0/storage-pools/local/volumes/custom?target=m3", volume, nil); err != nil {
		t.Fatal(err)
	}
	if err := remove(c.Context(), all[0], "m3", false); !errors.Is(err, api.InUse) || err.Error() != "Node still has the following custom volumes: v1" {
		t.Fatalf("not empty: %v", err)
	}
	if err := remove(c.Context(), all[2], "m3", true); err != nil {
		t.Fatal(err)
	}
	requireMembers(t, c, all[1], "m1", "m2")
	if err := wantReason(set(all[2], "user.x", "1"), api.MemberRemoved); err != nil {
		t.Error(err)
	}
	if _, ok := all[2].Hardware.Has("storage-pool local"); !ok {
		t.Error("its pool is gone")
	}
	if err := all[2].Do(c.Context(), "POST", "/internal/cluster/reset", nil, nil); err != nil {
		t.Fatal(err)
	}
	requireStandalone(t, c, all[2])
	c.Eventually("nothing of the cluster is left on it", func() error {
		if things := all[2].Hardware.Things(); len(things) > 0 {
			return fmt.Errorf("it has %q", things)
		}
		return nil
	})
	requireTrue(t, c)
}

func TestMemberLeavesByItself(t *testing.T) {
	c := clustertest.New(t, 2)
	all := c.Servers()
	define(t, all[0], "local", all...)
	mustCreate(t, all[0], "local")
	if err := all[0].Do(c.Context(), "PUT", "/1.0/cluster", api.ClusterPut{}, nil); err != nil {
		t.Fatal(err)
	}
	requireStandalone(t, c, all[0])
	requireMembers(t, c, all[1], "m2")
	// The last one turns clustering off, and keeps its data.
	if err := all[1].Do(c.Context(), "PUT", "/1.0/cluster", api.ClusterPut{}, nil); err != nil {
		t.Fatal(err)
	}
	requireStandalone(t, c, all[1])
	if _, ok := all[1].Hardware.Has("storage-pool local"); !ok {
		t.Error("the pool of the last member is gone")
	}
	if p := poolOn(t, all[1], "local", ""); p.Status != api.EntityCreated {
		t.Errorf("the pool is %+v", p)
	}
	all[1].Stop()
	all[1].MustStart()
	requireStandalone(t, c, all[1])
	all[1].MustBootstrap()
	all[0].MustJoin(all[1])
	c.RequireConverged()
}

// replacement issues a token for a server in the place of the member called name.
func replacement(ctx context.Context, by *clustertest.Server, name string) (string, error) {
	var op api.Operation
	if err := by.Do(ctx, "POST", "/1.0/cluster/members", api.ClusterMembersPost{ServerName: name, Replace: true}, &op); err != nil {
		return "", err
	}
	token, err := op.JoinToken()
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

func TestDeadMemberIsReplacedUnderItsName(t *testing.T) {
	c := clustertest.New(t, 3)
	all := c.Servers()
	if _, err := replacement(c.Context(), all[0], "m3"); !errors.Is(err, api.MemberOnline) {
		t.Fatalf("while it is online: %v", err)
	}
	all[2].Kill()
	requireOffline(t, c, all[0], all[2])
	token, err := replacement(c.Context(), all[1], "m3")
	if err != nil {
		t.Fatal(err)
	}
	// It comes back while its successor joins, which then is refused and can try again.
	var back atomic.Bool
	successor := c.AddServer(at(membership.PointBuilt, func() error {
		all[2].MustStart()
		c.Eventually("it is back", func() error {
			if m, ok := all[0].View().MemberByName("m3"); !ok || m.Offline {
				return errors.New("it is still offline")
			}
			return nil
		})
		back.Store(true)
		return nil
	}))
	if err := successor.Join(c.Context(), token); !errors.Is(err, api.MemberOnline) || !back.Load() {
		t.Fatalf("while it is back: %v", err)
	}
	requireMembers(t, c, all[0], "m1", "m2", "m3")
	all[2].Kill()
	requireOffline(t, c, all[0], all[2])
	old, _ := all[0].View().MemberByName("m3")
	if err := successor.Join(c.Context(), token); err != nil {
		t.Fatalf("with the same token: %v", err)
	}
	requireMembers(t, c, all[0], "m1", "m2", "m3")
	if m, ok := all[0].View().MemberByName("m3"); !ok || m.ID == old.ID || m.Address != successor.Address() {
		t.Errorf("m3 is %+v", m)
	}
	all[2].MustStart()
	c.Eventually("the old one knows", func() error { return wantReason(set(all[2], "user.x", "1"), api.MemberRemoved) })
}

func TestMemberIsNotRemovedWhenOnlyClientsAreLeft(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 2)
		c.RequireConverged()
		leader := c.Leader()
		other := pick(t, c, 'S')
		var m api.ClusterMember
		path := "/1.0/cluster/members/" + other.Host
		if err := leader.Do(c.Context(), "GET", path, nil, &m); err != nil {
			t.Fatal(err)
		}
		m.Roles = append(m.Roles, api.RoleDatabaseClient)
		if err := leader.Do(c.Context(), "PUT", path, m.ClusterMemberPut, nil); err != nil {
			t.Fatal(err)
		}
		for _, force := range []bool{false, true} {
			if err := remove(c.Context(), other, leader.Host, force); !errors.Is(err, api.QuorumNeeded) {
				t.Errorf("force %v: %v", force, err)
			}
		}
		if err := remove(c.Context(), leader, other.Host, false); err != nil {
			t.Errorf("the client: %v", err)
		}
	})
}
