package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/entities"
	"incusd/internal/raftstore/state"
)

var errDisk = errors.New("no space left on device")

// define is the first step of making a pool, for every server given.
func define(t *testing.T, by *clustertest.Server, pool string, on ...*clustertest.Server) {
	t.Helper()
	for _, s := range on {
		post := api.StoragePoolsPost{Name: pool, Driver: "dir", StoragePoolPut: api.StoragePoolPut{Config: api.ConfigMap{"source": "/srv/" + s.Host}}}
		if err := by.Do(by.C.Context(), "POST", "/1.0/storage-pools?target="+s.Host, post, nil); err != nil {
			t.Fatalf("define %s for %s: %v", pool, s.Host, err)
		}
	}
}

// create is the second step, or the only one where there is one member.
func create(by *clustertest.Server, pool string) error {
	return by.Do(by.C.Context(), "POST", "/1.0/storage-pools", api.StoragePoolsPost{Name: pool, Driver: "dir"}, nil)
}

func mustCreate(t *testing.T, by *clustertest.Server, pool string) {
	t.Helper()
	if err := create(by, pool); err != nil {
		t.Fatalf("create %s: %v", pool, err)
	}
}

func mustNetwork(t *testing.T, by *clustertest.Server, name string) {
	t.Helper()
	if err := by.Do(by.C.Context(), "POST", "/1.0/networks", api.NetworksPost{Name: name}, nil); err != nil {
		t.Fatalf("create network %s: %v", name, err)
	}
}

func poolOn(t *testing.T, by *clustertest.Server, pool, target string) api.StoragePool {
	t.Helper()
	path := "/1.0/storage-pools/" + pool
	if target != "" {
		path += "?target=" + target
	}
	var p api.StoragePool
	if err := by.Do(by.C.Context(), "GET", path, nil, &p); err != nil {
		t.Fatalf("show %s on %q: %v", pool, target, err)
	}
	return p
}

// failing makes what a server does to thing fail until ended.
func failing(s *clustertest.Server, action, thing string, err error) (end func()) {
	s.Hardware.FailOn(func(a, what string) error {
		if a == action && what == thing {
			return err
		}
		return nil
	})
	return func() { s.Hardware.FailOn(nil) }
}

func TestPoolIsMadeOnEveryMemberWithItsOwnKeys(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		all := c.Servers()
		define(t, all[1], "local", all...)
		if p := poolOn(t, all[2], "local", ""); p.Status != api.EntityPending {
			t.Errorf("after the first step the status is %q", p.Status)
		}
		for _, s := range all {
			if things := s.Hardware.Things(); len(things) > 0 {
				t.Errorf("%s made %v before the second step", s.Host, things)
			}
		}
		mustCreate(t, all[2], "local")
		for _, s := range all {
			if _, ok := s.Hardware.Has("storage-pool local"); !ok {
				t.Errorf("%s has no pool after the call has returned", s.Host)
			}
			p := poolOn(t, all[0], "local", s.Host)
			if p.Status != api.EntityCreated || p.Config["source"] != "/srv/"+s.Host {
				t.Errorf("on %s: %+v", s.Host, p)
			}
		}
		if p := poolOn(t, all[0], "local", ""); p.Status != api.EntityCreated || p.Config["source"] != "" || len(p.Locations) != 3 {
			t.Errorf("as a whole: %+v", p)
		}
		if err := all[0].Do(c.Context(), "DELETE", "/1.0/storage-pools/local", nil, nil); err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if things := s.Hardware.Things(); len(things) > 0 {
				t.Errorf("%s still has %v", s.Host, things)
			}
		}
		c.RequireConverged()
	})
}

func TestMemberThatWasAwayCatchesUp(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		all := c.Servers()
		leader := c.Leader()
		away := all[(slices.Index(all, leader)+1)%3]
		define(t, leader, "old", all...)
		mustCreate(t, leader, "old")
		define(t, leader, "new", all...)
		away.Stop()
		requireOffline(t, c, leader, away)
		mustCreate(t, leader, "new")
		if err := leader.Do(c.Context(), "DELETE", "/1.0/storage-pools/old", nil, nil); err != nil {
			t.Fatalf("delete while a member is away: %v", err)
		}
		if p := poolOn(t, leader, "new", away.Host); p.Status != api.EntityPending {
			t.Errorf("on the member that is away the status is %q", p.Status)
		}
		if p := poolOn(t, leader, "new", ""); p.Status != api.EntityCreated {
			t.Errorf("as a whole the status is %q", p.Status)
		}
		away.MustStart()
		c.Eventually("the member has caught up", func() error {
			if things := strings.Join(away.Hardware.Things(), ", "); things != "storage-pool new" {
				return fmt.Errorf("it has %q", things)
			}
			if p := poolOn(t, leader, "new", away.Host); p.Status != api.EntityCreated {
				return fmt.Errorf("its status is %q", p.Status)
			}
			if rows := leader.View().Entities(state.EntityPool); len(rows) != 1 {
				return fmt.Errorf("%d rows are left", len(rows))
			}
			return nil
		})
		c.RequireConverged()
	})
}

// quickOffline makes the cluster see as soon as it can that a member is gone.
func quickOffline(t *testing.T, by *clustertest.Server) {
	t.Helper()
	if err := by.Do(by.C.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"cluster.offline_threshold": "11"}}, nil); err != nil {
		t.Fatal(err)
	}
}

// requireOffline waits until the cluster has seen that a server is gone.
func requireOffline(t *testing.T, c *clustertest.Cluster, by, gone *clustertest.Server) {
	t.Helper()
	quickOffline(t, by)
	c.Eventually("offline", func() error {
		if m, ok := by.View().MemberByName(gone.Host); !ok || !m.Offline {
			return errors.New("it is not seen to be offline")
		}
		return nil
	})
}

func TestMemberThatFailsIsErroredAndRecoversWithTheSameCommand(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		all := c.Servers()
		define(t, all[0], "local", all...)
		mend := failing(all[2], "create", "storage-pool local", errDisk)
		err := create(all[0], "local")
		if !errors.Is(err, api.EntityFailed) || !strings.Contains(err.Error(), all[2].Host) || !strings.Contains(err.Error(), errDisk.Error()) {
			t.Fatalf("the error is %v", err)
		}
		if p := poolOn(t, all[1], "local", all[2].Host); p.Status != api.EntityErrored || !strings.Contains(p.Message, errDisk.Error()) {
			t.Errorf("on the member that failed: %+v", p)
		}
		if p := poolOn(t, all[1], "local", all[1].Host); p.Status != api.EntityCreated {
			t.Errorf("on another: %+v", p)
		}
		if err := create(all[0], "local"); !errors.Is(err, api.EntityFailed) {
			t.Errorf("a second try on the full disk: %v", err)
		}
		mend()
		mustCreate(t, all[1], "local")
		for _, s := range all {
			if p := poolOn(t, all[0], "local", s.Host); p.Status != api.EntityCreated || p.Message != "" {
				t.Errorf("on %s: %+v", s.Host, p)
			}
		}
		if err := create(all[1], "local"); err == nil || !strings.Contains(err.Error(), "already created") {
			t.Errorf("once more: %v", err)
		}
	})
}

func TestServerThatIsAloneDoesNothingByHalves(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		s := c.AddServer()
		mend := failing(s, "create", "storage-pool local", errDisk)
		if err := create(s, "local"); !errors.Is(err, api.EntityFailed) || !strings.Contains(err.Error(), errDisk.Error()) {
			t.Fatalf("the error is %v", err)
		}
		mend()
		c.Eventually("nothing is left", func() error {
			if rows := s.View().Entities(state.EntityPool); len(rows) != 0 {
				return fmt.Errorf("rows: %d", len(rows))
			}
			return nil
		})
		mustCreate(t, s, "local")
		if p := poolOn(t, s, "local", ""); p.Status != api.EntityCreated || p.Config["source"] != "/pools/local" {
			t.Errorf("%+v", p)
		}
	})
}

func TestMemberKilledAtEachStepOfMakingHasNoLeftovers(t *testing.T) {
	for _, point := range []string{entities.PointMakeNoted, entities.PointMade, entities.PointMakeFinished} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				trap := newTrap(point)
				c := clustertest.New(t, 2)
				victim := c.AddServer(clustertest.OnReach(trap.reach))
				trap.armed.Store(false)
				victim.MustJoin(c.Servers()[0])
				first := c.Servers()[0]
				define(t, first, "local", c.Servers()...)
				trap.armed.Store(true)
				done := make(chan error, 1)
				go func() { done <- create(first, "local") }()
				<-trap.caught
				killHeld(c, victim, trap.release)
				victim.MustStart()
				if err := <-done; err != nil {
					t.Errorf("the call: %v", err)
				}
				c.Eventually("made in the end", func() error {
					if p := poolOn(t, first, "local", victim.Host); p.Status != api.EntityCreated {
						return fmt.Errorf("%+v", p)
					}
					return nil
				})
				if things := victim.Hardware.Things(); len(things) != 1 {
					t.Errorf("it has %v", things)
				}
				if err := first.Do(c.Context(), "DELETE", "/1.0/storage-pools/local", nil, nil); err != nil {
					t.Fatal(err)
				}
				if things := victim.Hardware.Things(); len(things) != 0 {
					t.Errorf("after the deletion it has %v", things)
				}
			})
		})
	}
}

func TestWhatWasMadeIsUsableAgainAfterAPowerCut(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		s := c.Servers()[0]
		mustCreate(t, s, "local")
		mustNetwork(t, s, "br0")
		s.Kill()
		s.Hardware.PowerCut()
		mend := failing(s, "start", "storage-pool local", errors.New("the disk is not there"))
		s.MustStart()
		c.Eventually("the network is back, the pool is not", func() error {
			if !s.Hardware.InUse("network br0") {
				return errors.New("the network is down")
			}
			if p := poolOn(t, s, "local", s.Host); p.Status != api.EntityUnavailable || !strings.Contains(p.Message, "not there") {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		mend()
		c.Eventually("the pool is back by itself", func() error {
			if p := poolOn(t, s, "local", s.Host); p.Status != api.EntityCreated || !s.Hardware.InUse("storage-pool local") {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
	})
}

func TestPoolThatCannotBeRemovedIsShownUntilItCan(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 2)
		all := c.Servers()
		define(t, all[0], "local", all...)
		mustCreate(t, all[0], "local")
		mend := failing(all[1], "delete", "storage-pool local", errors.New("it is busy"))
		err := all[0].Do(c.Context(), "DELETE", "/1.0/storage-pools/local", nil, nil)
		if !errors.Is(err, api.EntityFailed) || !strings.Contains(err.Error(), "busy") {
			t.Fatalf("the error is %v", err)
		}
		if p := poolOn(t, all[0], "local", ""); p.Status != api.EntityErrored || !strings.Contains(p.Message, "busy") {
			t.Errorf("%+v", p)
		}
		mend()
		if err := all[0].Do(c.Context(), "DELETE", "/1.0/storage-pools/local", nil, nil); err != nil {
			t.Fatalf("delete again: %v", err)
		}
		if err := all[0].Do(c.Context(), "GET", "/1.0/storage-pools/local", nil, nil); !errors.Is(err, api.NotFound) {
			t.Errorf("then: %v", err)
		}
	})
}

// joinWith joins with values for member-specific keys.
func joinWith(s *clustertest.Server, token string, keys ...api.ClusterMemberConfigKey) error {
	return s.Run(s.C.Context(), "PUT", "/1.0/cluster", api.ClusterPut{
		Cluster: api.Cluster{Enabled: true, MemberConfig: keys}, ServerAddress: s.Address(), ClusterToken: token,
	})
}

func source(pool, value string) api.ClusterMemberConfigKey {
	return api.ClusterMemberConfigKey{Entity: "storage-pool", Name: pool, Key: "source", Value: value}
}

func TestJoiningServerMakesWhatTheClusterHas(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		mustCreate(t, first, "local")
		mustNetwork(t, first, "br0")
		var asked api.Cluster
		if err := first.Do(c.Context(), "GET", "/1.0/cluster", nil, &asked); err != nil || len(asked.MemberConfig) != 1 ||
			asked.MemberConfig[0].Description != `"source" property for storage pool "local"` {
			t.Fatalf("a joining server is asked %+v, %v", asked.MemberConfig, err)
		}
		joiner := c.AddServer()
		if err := joinWith(joiner, first.MustToken(joiner.Host), source("local", "/srv/own")); err != nil {
			t.Fatal(err)
		}
		if p := poolOn(t, first, "local", joiner.Host); p.Status != api.EntityCreated || p.Config["source"] != "/srv/own" {
			t.Errorf("%+v", p)
		}
		if things := strings.Join(joiner.Hardware.Things(), ", "); things != "network br0, storage-pool local" {
			t.Errorf("the joiner has %s", things)
		}
		c.RequireConverged()
	})
}

func TestJoinReportsAllThatIsWrongBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		mustCreate(t, first, "local")
		mustCreate(t, first, "fast")
		joiner := c.AddServer()
		joiner.Hardware.FailOn(func(action, thing string) error {
			if action == "check" {
				return fmt.Errorf("%s cannot be made here", thing)
			}
			return nil
		})
		token := first.MustToken(joiner.Host)
		err := joinWith(joiner, token)
		if !errors.Is(err, api.JoinRefused) || !strings.Contains(err.Error(), `"local"`) || !strings.Contains(err.Error(), `"fast"`) {
			t.Fatalf("the error is %v", err)
		}
		joiner.Hardware.FailOn(nil)
		requireCleanEnd(t, c, first, joiner, token)
	})
}

func TestJoinThatFailsWhileMakingIsUndone(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		mustCreate(t, first, "fast")
		mustCreate(t, first, "local")
		joiner := c.AddServer()
		mend := failing(joiner, "create", "storage-pool local", errDisk)
		token := first.MustToken(joiner.Host)
		if err := joinWith(joiner, token); err == nil || !strings.Contains(err.Error(), errDisk.Error()) {
			t.Fatalf("the error is %v", err)
		}
		if things := joiner.Hardware.Things(); len(things) > 0 {
			t.Errorf("left behind: %v", things)
		}
		mend()
		requireCleanEnd(t, c, first, joiner, token)
	})
}

func TestJoinerKilledAtEachStepHasWhatTheClusterSays(t *testing.T) {
	for _, point := range append([]string{entities.PointMakeNoted, entities.PointMade}, joinPoints...) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 1)
				first := c.Servers()[0]
				mustCreate(t, first, "local")
				trap := newTrap(point)
				joiner := c.AddServer(clustertest.OnReach(trap.reach))
				token := first.MustToken(joiner.Host)
				done := make(chan error, 1)
				go func() { done <- joiner.Join(c.Context(), token) }()
				<-trap.caught
				killHeld(c, joiner, trap.release)
				<-done
				joiner.MustStart()
				out := settled(c, first, joiner)
				want := 0
				if out.member {
					want = 1
				}
				c.Eventually("the hardware follows", func() error {
					if things := joiner.Hardware.Things(); len(things) != want {
						return fmt.Errorf("member: %v, but it has %v", out.member, things)
					}
					return nil
				})
				requireCleanEnd(t, c, first, joiner, token)
				c.Eventually("made in the end", func() error {
					if p := poolOn(t, first, "local", joiner.Host); p.Status != api.EntityCreated {
						return fmt.Errorf("%+v", p)
					}
					return nil
				})
			})
		})
	}
}

func TestWhatAServerHadBeforeItJoinedGivesWay(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		mustCreate(t, first, "local")
		joiner := c.AddServer()
		mustCreate(t, joiner, "local")
		mustCreate(t, joiner, "own")
		if err := joinWith(joiner, first.MustToken(joiner.Host), source("local", "/srv/new")); err != nil {
			t.Fatal(err)
		}
		c.Eventually("the old ones are gone and the new one is made", func() error {
			if things := strings.Join(joiner.Hardware.Things(), ", "); things != "storage-pool local" {
				return errors.New(things)
			}
			if p := poolOn(t, first, "local", joiner.Host); p.Status != api.EntityCreated || p.Config["source"] != "/srv/new" {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
	})
}

// TestRandomChangesUnderFaultsEndAsTheRowsSay makes and removes pools while members die, fail and
// come back, and then looks that every machine has exactly what the rows say.
func TestRandomChangesUnderFaultsEndAsTheRowsSay(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				c := clustertest.New(t, 3)
				all := c.Servers()
				quickOffline(t, all[0])
				var faulty atomic.Bool
				faulty.Store(true)
				for i, s := range all {
					own := rand.New(rand.NewPCG(seed, uint64(i)+2))
					s.Hardware.FailOn(func(action, _ string) error {
						// The applier makes one step at a time, so that own is used by one goroutine.
						if faulty.Load() && action != "check" && own.IntN(4) == 0 {
							return errDisk
						}
						return nil
					})
				}
				for range 14 {
					by := all[random.IntN(3)]
					name := fmt.Sprintf("p%d", random.IntN(4))
					if !by.Runs() {
						by.MustStart()
					}
					ctx, cancel := context.WithCancel(c.Context())
					switch random.IntN(5) {
					case 0:
						by.Kill()
					case 1, 2:
						for _, s := range all {
							_ = by.Do(ctx, "POST", "/1.0/storage-pools?target="+s.Host, api.StoragePoolsPost{Name: name, Driver: "dir"}, nil)
						}
						_ = create(by, name)
					case 3:
						_ = by.Do(ctx, "DELETE", "/1.0/storage-pools/"+name, nil, nil)
					case 4:
						_ = create(by, name) // tries again what has failed
					}
					cancel()
				}
				faulty.Store(false)
				for _, s := range all {
					if !s.Runs() {
						s.MustStart()
					}
				}
				requireTrue(t, c)
			})
		})
	}
}

// requireTrue tries again what failed, and waits until every machine has what the rows say.
func requireTrue(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	by := c.Servers()[0]
	c.Eventually("every machine has what the rows say", func() error {
		for _, row := range by.View().Entities(state.EntityPool) {
			for _, part := range row.Members {
				if part.Status == state.EntityErrored && row.Deleting {
					_ = by.Do(c.Context(), "DELETE", "/1.0/storage-pools/"+row.Name, nil, nil)
				} else if part.Status == state.EntityErrored {
					_ = create(by, row.Name)
				}
			}
		}
		want := map[string]string{}
		for _, row := range by.View().Entities(state.EntityPool) {
			if row.Deleting {
				return fmt.Errorf("%s is still being removed", row.Name)
			}
			for id := range row.Members {
				if m, ok := by.View().Member(id); ok && row.Made {
					want[m.Name] += "storage-pool " + row.Name + " "
				}
			}
		}
		for _, s := range c.Servers() {
			if has := strings.Join(append(s.Hardware.Things(), ""), " "); has != want[s.Host] {
				return fmt.Errorf("%s has %q, the rows say %q", s.Host, has, want[s.Host])
			}
		}
		return nil
	})
	c.RequireConverged()
}
