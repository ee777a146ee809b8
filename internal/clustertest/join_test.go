package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/membership"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// errCrash is what a crashed step returns; the process it stands for is gone by then.
var errCrash = errors.New("crashed here")

// joinPoints are the named steps of a join on the joiner, in order.
var joinPoints = []string{
	membership.PointFound, membership.PointPreflight, membership.PointClaimed, membership.PointNoted,
	membership.PointAdmitted, membership.PointOpened, membership.PointReady, membership.PointFilled,
	membership.PointBuilt, membership.PointActivated, membership.PointFinished, membership.PointAdopted,
}

// trap lets one goroutine be caught at a named step: the step blocks until released.
type trap struct {
	point   string
	armed   atomic.Bool
	caught  chan struct{}
	release chan struct{}
}

func newTrap(point string) *trap {
	t := &trap{point: point, caught: make(chan struct{}), release: make(chan struct{})}
	t.armed.Store(true)
	return t
}

func (t *trap) reach(point string) error {
	if point != t.point || !t.armed.CompareAndSwap(true, false) {
		return nil
	}
	close(t.caught)
	<-t.release
	return errCrash
}

// killHeld ends a server that a point holds: it is let go when the server is cut off.
func killHeld(c *clustertest.Cluster, server *clustertest.Server, release chan<- struct{}) {
	c.T.Helper()
	killed := make(chan struct{})
	go func() { server.Kill(); close(killed) }()
	c.Eventually(server.Host+" is cut off", func() error {
		if server.Runs() {
			return errors.New("it runs")
		}
		return nil
	})
	close(release)
	<-killed
}

// outcome is what a join may have come to.
type outcome struct {
	member bool
	tokens int // that the cluster still shows as usable
}

// settled waits until name is a member or nothing of it is left, and tells which.
func settled(c *clustertest.Cluster, by, joiner *clustertest.Server) outcome {
	c.T.Helper()
	var out outcome
	c.Eventually("the join is settled", func() error {
		v := by.View()
		if len(v.Joining()) > 0 {
			return fmt.Errorf("%d members are still joining", len(v.Joining()))
		}
		_, isMember := v.MemberByName(joiner.Host)
		if standalone := joiner.View() == nil || !joiner.View().Cluster().Enabled; standalone == isMember {
			return fmt.Errorf("the cluster says member: %v, the server says standalone: %v", isMember, standalone)
		}
		if rows, servers := len(v.Members()), len(v.Servers()); rows != servers {
			return fmt.Errorf("%d members, %d Raft servers", rows, servers)
		}
		out = outcome{member: isMember}
		for _, t := range v.Tokens() {
			if t.Ended == "" {
				if t.ClaimedBy != "" {
					return fmt.Errorf("the token for %s is still claimed", t.Name)
				}
				out.tokens++
			}
		}
		return nil
	})
	return out
}

// requireCleanEnd checks the promise: the server is a member and its token is used by
// it, or it is none and the same token admits it.
func requireCleanEnd(t *testing.T, c *clustertest.Cluster, by, joiner *clustertest.Server, token string) {
	t.Helper()
	out := settled(c, by, joiner)
	switch {
	case out.member && out.tokens != 0:
		t.Errorf("%s is a member and its token is still usable", joiner.Host)
	case !out.member && out.tokens != 1:
		t.Fatalf("%s is not a member and %d tokens are usable", joiner.Host, out.tokens)
	case !out.member:
		if err := joiner.Join(c.Context(), token); err != nil {
			t.Fatalf("the same token does not admit %s any more: %v", joiner.Host, err)
		}
	}
	if err := joiner.Join(c.Context(), token); err == nil {
		t.Error("a member joined again")
	}
	used, ok := by.View().MemberByName(joiner.Host)
	if !ok || used.State != state.MemberActive {
		t.Fatalf("%s is not a member in the end", joiner.Host)
	}
	c.RequireConverged()
}

func TestJoinerKilledAtEachStepIsMemberOrNot(t *testing.T) {
	for _, point := range append([]string{raftstore.PointForward, raftstore.PointForwarded}, joinPoints...) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 2)
				first := c.Servers()[0]
				trap := newTrap(point)
				joiner := c.AddServer(clustertest.OnReach(trap.reach))
				token := first.MustToken(joiner.Host)
				done := make(chan error, 1)
				go func() { done <- joiner.Join(c.Context(), token) }()
				<-trap.caught
				killHeld(c, joiner, trap.release)
				<-done
				joiner.MustStart()
				requireCleanEnd(t, c, first, joiner, token)
			})
		})
	}
}

func TestJoinFailingAtEachStepLeavesTheTokenUsable(t *testing.T) {
	for _, point := range joinPoints[:9] {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 1)
				first := c.Servers()[0]
				var failed atomic.Bool
				joiner := c.AddServer(clustertest.OnReach(func(p string) error {
					if p == point && failed.CompareAndSwap(false, true) {
						return errCrash
					}
					return nil
				}))
				token := first.MustToken(joiner.Host)
				if err := joiner.Join(c.Context(), token); err == nil {
					t.Fatal("the join did not fail")
				}
				requireCleanEnd(t, c, first, joiner, token)
			})
		})
	}
}

func TestLeaderKilledAtEachStepOfAJoin(t *testing.T) {
	for _, point := range []string{raftstore.PointAppend, raftstore.PointCommitted} {
		for nth := 1; nth <= 5; nth++ {
			t.Run(fmt.Sprintf("%s/%d", point, nth), func(t *testing.T) {
				t.Parallel()
				virtual(t, func(t *testing.T) {
					var armed atomic.Bool
					var count atomic.Int64
					caught, release := make(chan struct{}), make(chan struct{})
					reach := func(p string) error {
						if p == point && armed.Load() && count.Add(1) == int64(nth) {
							close(caught)
							<-release
							return errCrash
						}
						return nil
					}
					c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
					leader := c.AddServer(clustertest.OnReach(reach))
					leader.MustBootstrap()
					for range 2 {
						c.AddServer().MustJoin(leader)
					}
					issuer := c.Servers()[1]
					joiner := c.AddServer()
					token := issuer.MustToken(joiner.Host)
					armed.Store(true)
					done := make(chan error, 1)
					go func() { done <- joiner.Join(c.Context(), token) }()
					select {
					case <-caught:
						killHeld(c, leader, release)
					case err := <-done:
						armed.Store(false)
						close(release)
						done <- err // the join needs fewer steps than that
					}
					t.Logf("join: %v", <-done)
					requireCleanEnd(t, c, issuer, joiner, token)
				})
			})
		}
	}
}

func TestTokenOutlivesItsIssuer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		issuer := c.Leader()
		joiner := c.AddServer()
		token := issuer.MustToken(joiner.Host)
		issuer.Kill()
		if err := joiner.Join(c.Context(), token); err != nil {
			t.Fatal(err)
		}
		issuer.MustStart()
		c.RequireConverged()
	})
}

func TestOneTokenAdmitsOneOfTwoRacingServers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		by := c.Servers()[2]
		token := by.MustToken("racer")
		racers := []*clustertest.Server{c.AddServer(), c.AddServer(), c.AddServer()}
		var wg sync.WaitGroup
		var admitted atomic.Int64
		for _, r := range racers {
			wg.Go(func() {
				err := r.Join(c.Context(), token)
				if err == nil {
					admitted.Add(1)
					return
				}
				t.Logf("%s: %v", r.Host, err)
				if !errors.Is(err, api.TokenClaimed) && !errors.Is(err, api.TokenUsed) && !errors.Is(err, api.NameTaken) && !errors.Is(err, api.JoinRefused) {
					t.Errorf("%s was refused with %v", r.Host, err)
				}
			})
		}
		wg.Wait()
		if n := admitted.Load(); n != 1 {
			t.Fatalf("%d servers were admitted with one token", n)
		}
		if n := len(by.View().Members()); n != 4 {
			t.Errorf("there are %d members", n)
		}
		c.RequireConverged()
	})
}

func TestServersJoinSideBySide(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		var wg sync.WaitGroup
		for range 4 {
			s := c.AddServer()
			token := first.MustToken(s.Host)
			wg.Go(func() {
				if err := s.Join(c.Context(), token); err != nil {
					t.Errorf("%s: %v", s.Host, err)
				}
			})
		}
		wg.Wait()
		c.Eventually("three voters and two stand-bys", func() error {
			members, err := first.Members(c.Context())
			if err != nil {
				return err
			}
			voters, standbys := 0, 0
			for _, m := range members {
				for _, r := range m.Roles {
					switch r {
					case api.RoleDatabase:
						voters++
					case api.RoleDatabaseStandby:
						standbys++
					}
				}
			}
			if len(members) != 5 || voters != 3 || standbys != 2 {
				return fmt.Errorf("%d members, %d voters, %d stand-bys", len(members), voters, standbys)
			}
			return nil
		})
		c.RequireConverged()
	})
}

func TestRefusedJoinTouchesNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		joiner := c.AddServer()
		if err := joiner.Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"user.mine": "kept"}}, nil); err != nil {
			t.Fatal(err)
		}
		good, err := api.ParseJoinToken(first.MustToken(joiner.Host))
		if err != nil {
			t.Fatal(err)
		}
		change := func(f func(*api.ClusterMemberJoinToken)) string { t := *good; f(&t); return t.String() }
		for name, tc := range map[string]struct {
			token  string
			reason api.Reason
		}{
			"malformed":           {"nonsense", api.TokenMalformed},
			"unknown secret":      {change(func(t *api.ClusterMemberJoinToken) { t.Secret = "0123" }), api.TokenUnknown},
			"wrong fingerprint":   {change(func(t *api.ClusterMemberJoinToken) { t.Fingerprint = "00ff" }), api.FingerprintMatch},
			"no member reachable": {change(func(t *api.ClusterMemberJoinToken) { t.Addresses = []string{"m9:8443", "m8:8443"} }), api.NoMemberReachable},
			"wrong name":          {change(func(t *api.ClusterMemberJoinToken) { t.ServerName = "other" }), api.TokenWrongName},
		} {
			if err := joiner.Join(c.Context(), tc.token); !errors.Is(err, tc.reason) {
				t.Errorf("%s: got %v, want %s", name, err, tc.reason)
			}
		}
		if got := joiner.View().Config()["user.mine"]; got != "kept" {
			t.Errorf("a refused join lost the server's own data: %q", got)
		}
		if err := joiner.Join(c.Context(), good.String()); err != nil {
			t.Fatalf("the token was burned by the refusals: %v", err)
		}
	})
}

func TestRevokedAndReplacedTokensAreRefusedWithTheirReason(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 2)
		a, b := c.Servers()[0], c.Servers()[1]
		joiner := c.AddServer()
		old := a.MustToken(joiner.Host)
		current := b.MustToken(joiner.Host)
		if err := joiner.Join(c.Context(), old); !errors.Is(err, api.TokenRevoked) {
			t.Errorf("a replaced token: %v", err)
		}
		var ops map[string][]api.Operation
		if err := a.Do(c.Context(), "GET", "/1.0/operations?recursion=1", nil, &ops); err != nil {
			t.Fatal(err)
		}
		if len(ops["running"]) != 1 {
			t.Fatalf("%d live tokens", len(ops["running"]))
		}
		if err := a.Do(c.Context(), "DELETE", "/1.0/operations/"+ops["running"][0].ID, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := joiner.Join(c.Context(), current); !errors.Is(err, api.TokenRevoked) {
			t.Errorf("a revoked token: %v", err)
		}
	})
}

func TestEverythingSurvivesRestarts(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		token := c.Servers()[1].MustToken("m4")
		if err := c.Servers()[2].Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"user.x": "kept"}}, nil); err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			t.Helper()
			c.RequireConverged()
			for _, s := range c.Running() {
				var server api.Server
				if err := s.Do(c.Context(), "GET", "/1.0", nil, &server); err != nil {
					t.Fatalf("%s: %s: %v", when, s.Host, err)
				}
				if server.Config["user.x"] != "kept" || len(s.View().Members()) != 3 {
					t.Errorf("%s: %s shows %v and %d members", when, s.Host, server.Config, len(s.View().Members()))
				}
			}
		}
		for _, s := range c.Servers()[:3] {
			s.Stop()
			s.MustStart()
		}
		check("after one at a time")
		servers := c.Servers()
		for _, s := range servers {
			s.Stop()
		}
		for _, s := range servers {
			s.MustStart()
		}
		check("after all")
		for _, s := range servers {
			s.Kill()
		}
		for _, s := range servers {
			s.MustStart()
		}
		check("after a crash of all")
		if err := c.AddServer().Join(c.Context(), token); err != nil {
			t.Errorf("the token did not survive: %v", err)
		}
	})
}

func TestLocalViewAnswersWithoutQuorum(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		servers := c.Servers()
		servers[0].Kill()
		servers[1].Kill()
		last := servers[2]
		members, err := last.Members(c.Context())
		if err != nil || len(members) != 3 {
			t.Fatalf("members without quorum: %d, %v", len(members), err)
		}
		ctx, cancel := context.WithCancel(c.Context())
		defer cancel()
		err = last.Do(ctx, "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"user.x": "1"}}, nil)
		if !errors.Is(err, api.NoQuorum) && !errors.Is(err, api.OutcomeUnknown) {
			t.Errorf("a write without quorum: %v", err)
		}
		last.Kill()
		last.MustStart()
		if members, err = last.Members(c.Context()); err != nil || len(members) != 3 {
			t.Fatalf("after a restart without quorum: %d, %v", len(members), err)
		}
	})
}

// TestMemberKilledAtEachStepOfAJoin: the leader, or the member that issued the token and
// that the joiner talks to, dies just when the joiner has done a step.
func TestMemberKilledAtEachStepOfAJoin(t *testing.T) {
	for _, who := range []string{"leader", "issuer"} {
		for _, point := range joinPoints {
			t.Run(who+"/"+point, func(t *testing.T) {
				t.Parallel()
				virtual(t, func(t *testing.T) {
					c := clustertest.New(t, 3)
					leader := c.Leader()
					issuer := c.Servers()[1]
					if issuer == leader {
						issuer = c.Servers()[2]
					}
					victim := map[string]*clustertest.Server{"leader": leader, "issuer": issuer}[who]
					var once sync.Once
					joiner := c.AddServer(clustertest.OnReach(func(p string) error {
						if p == point {
							once.Do(victim.Kill)
						}
						return nil
					}))
					token := issuer.MustToken(joiner.Host)
					t.Logf("join: %v", joiner.Join(c.Context(), token))
					victim.MustStart()
					requireCleanEnd(t, c, c.Leader(), joiner, token)
				})
			})
		}
	}
}
