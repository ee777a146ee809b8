package clustertest_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/membership"
)

// revokeAll revokes all live tokens.
func revokeAll(c *clustertest.Cluster, by *clustertest.Server) error {
	for _, token := range by.View().Tokens() {
		if token.Ended != "" {
			continue
		}
		if err := by.Do(c.Context(), "DELETE", "/1.0/operations/"+token.Operation, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// at calls f once, when a join reaches the point.
func at(point string, f func() error) func(*clustertest.Server) {
	var reached atomic.Bool
	return clustertest.OnReach(func(p string) error {
		if p == point && reached.CompareAndSwap(false, true) {
			return f()
		}
		return nil
	})
}

func TestRevokedTokenEndsTheJoinUnderIt(t *testing.T) {
	for _, point := range []string{membership.PointNoted, membership.PointAdmitted, membership.PointOpened, membership.PointReady, membership.PointFilled} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				c := clustertest.New(t, 2)
				first := c.Servers()[0]
				joiner := c.AddServer(at(point, func() error { return revokeAll(c, first) }))
				err := joiner.Join(c.Context(), first.MustToken(joiner.Host))
				if !errors.Is(err, api.TokenRevoked) && !errors.Is(err, api.JoinAborted) {
					t.Errorf("got %v", err)
				}
				if out := settled(c, first, joiner); out.member || out.tokens != 0 {
					t.Fatalf("member: %v, %d usable tokens", out.member, out.tokens)
				}
				joiner.MustJoin(first)
				c.RequireConverged()
			})
		})
	}
}

func TestJoinWithALostAnswerIsSettledWithoutARestart(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 2)
		first := c.Servers()[0]
		var joiner *clustertest.Server
		joiner = c.AddServer(at(membership.PointActivated, func() error {
			c.Net.Isolate(joiner.Host, "m1", "m2")
			return errCrash
		}))
		token := first.MustToken(joiner.Host)
		if err := joiner.Join(c.Context(), token); err == nil {
			t.Fatal("a join without an answer succeeded")
		}
		// Until the cluster has answered, this server may be a member of it.
		if err := joiner.Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"core.https_address": joiner.Address()}}, nil); err != nil {
			t.Fatal(err)
		}
		form := api.ClusterPut{Cluster: api.Cluster{ServerName: "alone", Enabled: true}}
		if err := joiner.Run(c.Context(), "PUT", "/1.0/cluster", form); !errors.Is(err, api.JoinRunning) {
			t.Errorf("a bootstrap beside it: %v", err)
		}
		if err := joiner.Join(c.Context(), token); !errors.Is(err, api.JoinRunning) {
			t.Errorf("another join beside it: %v", err)
		}
		c.Net.Heal()
		if out := settled(c, first, joiner); !out.member {
			t.Error("the cluster counts it as a member, and it does not")
		}
		c.RequireConverged()
	})
}

// fullDisk is a log that can be written until it is full.
type fullDisk struct {
	raft.LogStore
	full *atomic.Bool
}

func (d fullDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d fullDisk) StoreLogs(logs []*raft.Log) error {
	if d.full.Load() {
		return syscall.ENOSPC
	}
	return d.LogStore.StoreLogs(logs)
}

// disks gives a server a full disk for the nth replica that it opens, when full is set.
func disks(nth int64, full *atomic.Bool) func(*clustertest.Server) {
	var opened atomic.Int64
	return clustertest.OnDisk(func(log raft.LogStore) raft.LogStore {
		if opened.Add(1) != nth {
			return log
		}
		return fullDisk{log, full}
	})
}

func TestDiskFullWhileJoiningEndsTheJoin(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		var full atomic.Bool
		full.Store(true)
		joiner := c.AddServer(disks(2, &full))
		token := first.MustToken(joiner.Host)
		if err := joiner.Join(c.Context(), token); !errors.Is(err, api.DiskFull) {
			t.Errorf("got %v", err)
		}
		requireCleanEnd(t, c, first, joiner, token)
	})
}

func TestFailedStoreWaitsForNoOperation(t *testing.T) {
	t.Parallel()
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 1)
		first := c.Servers()[0]
		var full atomic.Bool
		cut := make(chan struct{})
		var joiner *clustertest.Server
		joiner = c.AddServer(disks(1, &full), at(membership.PointOpened, func() error {
			c.Net.Cut(joiner.Host, first.Host)
			close(cut)
			return nil
		}))
		token := first.MustToken(joiner.Host)
		go joiner.Join(c.Context(), token)
		<-cut
		full.Store(true)
		go joiner.Do(c.Context(), "PATCH", "/1.0", api.ServerPut{Config: api.ConfigMap{"user.x": "1"}}, nil)
		requireDiskFull(t, joiner)
		full.Store(false)
		c.Net.Heal()
		joiner.MustStart()
		// The cluster could not be told that the join ended, but the same server may join again.
		if err := joiner.Join(c.Context(), token); err != nil {
			t.Fatal(err)
		}
		c.RequireConverged()
	})
}

func TestDiskFullDuringTheStartEndsIt(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		var full atomic.Bool
		var opened atomic.Int64
		s := c.AddServer(clustertest.OnDisk(func(log raft.LogStore) raft.LogStore {
			full.Store(opened.Add(1) == 2) // at the second start
			return fullDisk{log, &full}
		}))
		s.Stop()
		if err := s.Start(); err == nil { // it may start just before its first write
			requireDiskFull(t, s)
		} else if !errors.Is(err, api.DiskFull) {
			t.Fatalf("got %v", err)
		}
		if slices.Contains(c.Running(), s) {
			t.Error("it runs")
		}
		s.MustStart()
	})
}
