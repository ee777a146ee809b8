package clustertest_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/clustertest"
)

// fillableDisk fails writes once it is full.
type fillableDisk struct {
	raft.LogStore
	full atomic.Bool
}

func (d *fillableDisk) StoreLogs(logs []*raft.Log) error {
	if d.full.Load() {
		return &os.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}
	}
	return d.LogStore.StoreLogs(logs)
}

func set(s *clustertest.Server, key, value string) error {
	return s.Do(s.C.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{key: value}}, nil)
}

func get(s *clustertest.Server, key string) (string, error) {
	var server api.Server
	err := s.Do(s.C.Context(), "GET", "/1.0", nil, &server)
	return server.Config[key], err
}

func TestMemberWithFullDiskStopsAndTheOthersGoOn(t *testing.T) {
	c := clustertest.New(t, 2)
	disk := &fillableDisk{}
	victim := c.AddServer(clustertest.OnDisk(func(l raft.LogStore) raft.LogStore {
		disk.LogStore = l
		return disk
	}))
	victim.MustJoin(c.Servers()[0])
	disk.full.Store(true)
	c.Eventually("a write goes through the others", func() error { return set(c.Servers()[0], "user.x", "1") })
	if err := victim.Ended(); !errors.Is(err, api.DiskFull) {
		t.Fatalf("the member ended with %v", err)
	}
	victim.Kill()
	disk.full.Store(false)
	victim.MustStart()
	c.RequireConverged()
}

func TestServerWithWrongClockIsToldSoAndTheTokenStays(t *testing.T) {
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
}

func TestExpiryIsJudgedByTheLeadersClock(t *testing.T) {
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
}

func TestNewMemberIsFilledFromASnapshot(t *testing.T) {
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
}

func TestJoinGoesOnOverASlowAndPartlyCutNetwork(t *testing.T) {
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
