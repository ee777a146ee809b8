package clustertest_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/membership"
)

func set(s *clustertest.Server, key, value string) error {
	return s.Do(s.C.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{key: value}}, nil)
}

func get(s *clustertest.Server, key string) (string, error) {
	var server api.Server
	err := s.Do(s.C.Context(), "GET", "/1.0", nil, &server)
	return server.Config[key], err
}

// requireDiskFull waits until the daemon has ended because its disk is full.
func requireDiskFull(t *testing.T, s *clustertest.Server) {
	t.Helper()
	if reason, err := s.WaitForEnd(s.C.Context()); err != nil || !errors.Is(reason, api.DiskFull) {
		t.Fatalf("%s ended because of %v; %v", s.Host, reason, err)
	}
}

// A member whose disk is full ends, and says why; the others go on without it. With space it comes
// back as it was. What was written through it while it ended is not acknowledged, or is there.
func TestMemberWithFullDiskStopsAndTheOthersGoOn(t *testing.T) {
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
				full := make(map[*clustertest.Server]*atomic.Bool)
				for i := range 3 {
					disk := new(atomic.Bool)
					s := c.AddServer(clustertest.OnDisk(func(l raft.LogStore) raft.LogStore { return fullDisk{l, disk} }))
					full[s] = disk
					if i == 0 {
						s.MustBootstrap()
					} else {
						s.MustJoin(c.Servers()[0])
					}
				}
				requireSettled(t, c)
				victim, other := c.Leader(), c.Servers()[2]
				if who == "follower" {
					victim, other = other, victim
				} else if victim == other {
					other = c.Servers()[1]
				}
				if err := set(other, "user.before", "1"); err != nil {
					t.Fatal(err)
				}
				full[victim].Store(true)
				err := set(victim, "user.through", "1")
				t.Logf("a write through it: %v", err)
				if err == nil && who == "leader" {
					t.Error("a leader acknowledged what its disk did not take")
				}
				c.Eventually("a write through another", func() error { return set(other, "user.x", "1") })
				requireDiskFull(t, victim)
				if got, getErr := get(other, "user.through"); getErr != nil || err == nil && got != "1" {
					t.Errorf("the write through it reads %q, %v", got, getErr)
				}
				if err := victim.Start(); err == nil { // it may start just before its first write
					requireDiskFull(t, victim)
				} else if !errors.Is(err, api.DiskFull) {
					t.Errorf("a start on the full disk: %v", err)
				}
				full[victim].Store(false)
				victim.MustStart()
				c.RequireConverged()
				for _, key := range []string{"user.before", "user.x"} {
					if got, err := get(victim, key); err != nil || got != "1" {
						t.Errorf("back, it reads %s as %q, %v", key, got, err)
					}
				}
			})
		})
	}
}

func TestServerWithWrongClockIsToldSoAndTheTokenStays(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		var skew atomic.Int64
		joiner := c.AddServer(clustertest.WithClock(func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }))
		skew.Store(int64(time.Hour)) // its certificate is from before, and valid
		token := first.MustToken(joiner.Host)
		if err := joiner.Join(c.Context(), token); !errors.Is(err, api.ClockSkew) {
			t.Fatalf("a clock that is an hour ahead: %v", err)
		}
		skew.Store(0)
		if err := joiner.Join(c.Context(), token); err != nil && !errors.Is(err, api.ClockSkew) {
			t.Fatalf("after the clock was set: %v", err)
		}
	})
}

func TestExpiryIsJudgedByTheLeadersClock(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		var shift atomic.Int64
		first := c.AddServer(clustertest.WithClock(func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }))
		first.MustBootstrap()
		joiner := c.AddServer()
		token := first.MustToken(joiner.Host)
		shift.Store(int64(4 * time.Hour)) // past cluster.join_token_expiry
		err := joiner.Join(c.Context(), token)
		if !errors.Is(err, api.TokenExpired) && !errors.Is(err, api.ClockSkew) && !errors.Is(err, api.JoinRefused) {
			t.Fatalf("an expired token: %v", err)
		}
	})
}

func TestNewMemberIsFilledFromASnapshot(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		first := c.AddServer(clustertest.CompactAfter(20))
		first.MustBootstrap()
		token := first.MustToken("m2")
		for i := range 100 {
			if err := set(first, fmt.Sprintf("user.k%d", i%10), fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		second := c.AddServer(clustertest.CompactAfter(20))
		if err := second.Join(c.Context(), token); err != nil {
			t.Fatal(err)
		}
		if got, err := get(second, "user.k9"); err != nil || got != "99" {
			t.Errorf("the new member reads %q, %v", got, err)
		}
		for _, s := range c.Servers() {
			s.Kill()
		}
		for _, s := range c.Servers() {
			s.MustStart()
		}
		c.RequireConverged()
		if got, err := get(second, "user.k9"); err != nil || got != "99" {
			t.Errorf("after a crash of both it reads %q, %v", got, err)
		}
	})
}

func TestJoinGoesOnOverASlowAndPartlyCutNetwork(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		joiner := c.AddServer()
		by := c.Leader()
		token := by.MustToken(joiner.Host)
		for _, s := range c.Servers() {
			if s != joiner {
				c.Net.Delay(s.Host, joiner.Host, 20*time.Millisecond)
				c.Net.Delay(joiner.Host, s.Host, 20*time.Millisecond)
			}
			if s != by && s != joiner {
				c.Net.Cut(s.Host, joiner.Host)
			}
		}
		if err := joiner.Join(c.Context(), token); err != nil {
			t.Fatal(err)
		}
		c.Net.Heal()
		c.RequireConverged()
	})
}

// The member is away while a step of the join is asked of it, and while it is looked for again.
func TestJoinGoesOnWithAMemberThatIsBackInTime(t *testing.T) {
	for _, point := range []string{membership.PointFound, membership.PointPreflight, membership.PointClaimed} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 1)
				hold, caught, release := holdAt(point)
				fresh, by := c.AddServer(hold), c.Servers()[0]
				token := by.MustToken(fresh.Host)
				done := make(chan error, 1)
				go func() { done <- fresh.Join(c.Context(), token) }()
				<-caught
				c.Net.Cut(fresh.Host, by.Host)
				close(release)
				time.Sleep(14 * time.Second) // of the 15 that a step has
				c.Net.Heal()
				if err := <-done; err != nil {
					t.Errorf("the join: %v", err)
				}
				c.RequireConverged()
			})
		})
	}
}

// hangingDisk does not end a write before it is released.
type hangingDisk struct {
	raft.LogStore
	hung atomic.Pointer[chan struct{}]
}

func (d *hangingDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *hangingDisk) StoreLogs(logs []*raft.Log) error {
	if released := d.hung.Load(); released != nil {
		<-*released
	}
	return d.LogStore.StoreLogs(logs)
}

func TestVoterWhoseDiskHangsIsReplacedAndComesBack(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 2)
		disk := &hangingDisk{}
		victim := c.AddServer(clustertest.OnDisk(func(l raft.LogStore) raft.LogStore { disk.LogStore = l; return disk }))
		by := c.Servers()[0]
		victim.MustJoin(by)
		c.AddServer().MustJoin(by)
		c.RequireConverged()
		if !by.View().IsVoter(memberID(by, victim.Host)) || victim.Leads() {
			t.Fatalf("roles are %s", roles(by))
		}
		released := make(chan struct{})
		disk.hung.Store(&released)
		c.Eventually("a write", func() error { return set(by, "user.x", "1") })
		c.Eventually("another votes instead", func() error {
			if got := roles(by); got[2] != '-' || strings.Count(got, "-") != 1 {
				return errors.New(got)
			}
			return nil
		})
		disk.hung.Store(nil)
		close(released)
		c.Eventually("it is back", func() error {
			if by.Offline(victim.Host) {
				return errors.New("it is offline")
			}
			return nil
		})
		c.RequireConverged()
	})
}

// The word that an entry is committed overtakes the entry on its way to a slow disk. It counts all
// the same: a member that waits for what the leader does, as one that stops, is not held up.
func TestSlowDiskHearsOfACommitAsSoonAsItCan(t *testing.T) {
	virtual(t, func(t *testing.T) {
		const pause = 20 * time.Millisecond
		c := clustertest.New(t, 2)
		disk := &slowDisk{}
		slow := c.AddServer(clustertest.OnDisk(func(l raft.LogStore) raft.LogStore { return &slowLog{l, disk} }))
		by := c.Servers()[0]
		slow.MustJoin(by)
		c.RequireConverged()
		disk.take(pause)
		for i := range 5 {
			value := fmt.Sprint(i)
			if err := set(by, "user.x", value); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			c.Eventually("it is here", func() error {
				if got := slow.View().Config()["user.x"]; got != value {
					return fmt.Errorf("user.x is %q", got)
				}
				return nil
			})
			if took := time.Since(start); took > 3*pause {
				t.Errorf("write %d was seen after %s", i, took)
			}
		}
	})
}
