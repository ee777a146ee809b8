package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/daemon"
	"incusd/internal/raftstore/state"
)

// A recovery, a restore, a readmission and a reset each have one write at which they happen. These
// tests end the process at each step beside it.

// replicas are the folders of replicas that a server has.
func replicas(t *testing.T, s *clustertest.Server) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir(), "database", "global"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// grow makes a cluster of size members, of which each is prepared for.
func grow(t *testing.T, size int, prepare func(host string) []func(*clustertest.Server)) *clustertest.Cluster {
	t.Helper()
	c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
	for i := range size {
		s := c.AddServer(prepare(fmt.Sprintf("m%d", i+1))...)
		if i == 0 {
			s.MustBootstrap()
		} else {
			s.MustJoin(c.Servers()[0])
		}
	}
	return c
}

// trapOn is the preparation of grow that sets a trap on one host.
func trapOn(host string, trap *trap) func(string) []func(*clustertest.Server) {
	return func(h string) []func(*clustertest.Server) {
		if h != host {
			return nil
		}
		return []func(*clustertest.Server){clustertest.OnReach(trap.reach)}
	}
}

// backupOfOne is a backup of a cluster of one, m1, which is gone, with user.x=1.
func backupOfOne(t *testing.T) (*clustertest.Cluster, []byte) {
	t.Helper()
	c := clustertest.New(t, 1)
	old := c.Servers()[0]
	if err := set(old, "user.x", "1"); err != nil {
		t.Fatal(err)
	}
	backup, err := old.Backup(c.Context())
	if err != nil {
		t.Fatal(err)
	}
	old.Stop()
	return c, backup
}

// requireRestored waits until s is the member m1 of the restored cluster, with one replica.
func requireRestored(t *testing.T, c *clustertest.Cluster, s *clustertest.Server) {
	t.Helper()
	c.Eventually("the restored cluster", func() error {
		members, err := s.Members(c.Context())
		if err != nil || len(members) != 1 || members[0].ServerName != "m1" || members[0].Status != "Online" {
			return fmt.Errorf("members %+v, %v", members, err)
		}
		if v, err := get(s, "user.x"); err != nil || v != "1" {
			return fmt.Errorf("user.x is %q, %v", v, err)
		}
		return set(s, "user.after", "1")
	})
	if got := replicas(t, s); len(got) != 1 {
		t.Errorf("replicas: %v", got)
	}
}

func TestRestoreCutOffAtEachStep(t *testing.T) {
	for point, done := range map[string]bool{daemon.PointRebuilt: false, daemon.PointSwitched: true} {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				c, backup := backupOfOne(t)
				trap := newTrap(point)
				fresh := c.AddServer(clustertest.OnReach(trap.reach))
				if err := set(fresh, "user.own", "1"); err != nil {
					t.Fatal(err)
				}
				before := replicas(t, fresh)
				go fresh.Restore(c.Context(), backup, "", fresh.Address())
				<-trap.caught
				if !done { // what counts for nothing may be half of it
					for _, dir := range replicas(t, fresh) {
						if dir != before[0] {
							if err := os.Truncate(filepath.Join(fresh.Dir(), "database", "global", dir, "raft.db"), 100); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				killHeld(c, fresh, trap.release)
				fresh.MustStart()
				err := fresh.Restore(c.Context(), backup, "", fresh.Address())
				if done != errors.Is(err, api.AlreadyClustered) || !done && err != nil {
					t.Errorf("the same command again: %v", err)
				}
				requireRestored(t, c, fresh)
			})
		})
	}
}

// An error before the moment leaves the server what it was, and nothing on the disk.
func TestRestoreThatFailsLeavesTheServerAsItWas(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, backup := backupOfOne(t)
		var full atomic.Bool
		full.Store(true)
		fresh := c.AddServer(clustertest.OnReach(func(point string) error {
			if point == daemon.PointRebuilt && full.Load() {
				return api.Errorf(api.DiskFull, "no space")
			}
			return nil
		}))
		if err := set(fresh, "user.own", "1"); err != nil {
			t.Fatal(err)
		}
		if err := fresh.Restore(c.Context(), backup, "", fresh.Address()); !errors.Is(err, api.DiskFull) {
			t.Fatalf("a full disk: %v", err)
		}
		if got := replicas(t, fresh); len(got) != 1 {
			t.Errorf("replicas: %v", got)
		}
		if v, err := get(fresh, "user.own"); err != nil || v != "1" {
			t.Errorf("user.own is %q, %v", v, err)
		}
		if err := set(fresh, "user.own", "2"); err != nil {
			t.Error(err)
		}
		full.Store(false)
		if err := fresh.Restore(c.Context(), backup, "", fresh.Address()); err != nil {
			t.Fatal(err)
		}
		requireRestored(t, c, fresh)
	})
}

// holdAt holds a server at a point until release is closed, and lets it go on.
func holdAt(point string) (f func(*clustertest.Server), caught <-chan struct{}, release chan<- struct{}) {
	in, out := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	return clustertest.OnReach(func(at string) error {
		if at == point && once.CompareAndSwap(false, true) {
			close(in)
			<-out
		}
		return nil
	}), in, out
}

// What is acknowledged is not dropped by a restore that has found the server empty before.
func TestNothingIsAcknowledgedWhileARestoreRuns(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, backup := backupOfOne(t)
		hold, caught, release := holdAt(daemon.PointRebuilt)
		fresh := c.AddServer(hold)
		done := make(chan error, 1)
		go func() { done <- fresh.Restore(c.Context(), backup, "", fresh.Address()) }()
		<-caught
		if err := create(fresh, "local"); !errors.Is(err, api.Conflict) || !strings.Contains(err.Error(), "being restored") {
			t.Errorf("a pool: %v", err)
		}
		if err := set(fresh, "user.own", "1"); !errors.Is(err, api.Conflict) {
			t.Errorf("a key: %v", err)
		}
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		requireRestored(t, c, fresh)
		if things := fresh.Hardware.Things(); len(things) > 0 {
			t.Errorf("left on the machine: %v", things)
		}
	})
}

// A restore that counts is not reported as one that failed, and does not end with its request.
func TestRestoreThatCountsIsDone(t *testing.T) {
	t.Run("slow", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			c, backup := backupOfOne(t)
			slow := &slowDisk{}
			fresh := c.AddServer(clustertest.OnDisk(func(l raft.LogStore) raft.LogStore { return &slowLog{l, slow} }),
				clustertest.OnReach(func(point string) error {
					if point == daemon.PointSwitched {
						slow.take(15 * time.Second)
					}
					return nil
				}))
			if err := fresh.Restore(c.Context(), backup, "", fresh.Address()); err != nil {
				t.Errorf("the restore: %v", err)
			}
			slow.take(0)
			requireRestored(t, c, fresh)
		})
	})
	t.Run("cut off", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			c, backup := backupOfOne(t)
			hold, caught, release := holdAt(daemon.PointRebuilt)
			fresh := c.AddServer(hold)
			ctx, cancel := context.WithCancel(c.Context())
			done := make(chan error, 1)
			go func() { done <- fresh.Restore(ctx, backup, "", fresh.Address()) }()
			<-caught
			cancel()
			<-done
			close(release)
			requireRestored(t, c, fresh)
		})
	})
}

// slowDisk takes a pause for each write of a log.
type slowDisk struct{ pause atomic.Int64 }

func (d *slowDisk) take(pause time.Duration) { d.pause.Store(int64(pause)) }

type slowLog struct {
	raft.LogStore
	disk *slowDisk
}

func (l *slowLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *slowLog) StoreLogs(e []*raft.Log) error {
	time.Sleep(time.Duration(l.disk.pause.Load()))
	return l.LogStore.StoreLogs(e)
}

func TestStopWaitsForARestore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, backup := backupOfOne(t)
		hold, caught, release := holdAt(daemon.PointSwitched)
		fresh := c.AddServer(hold)
		go fresh.Restore(c.Context(), backup, "", fresh.Address())
		<-caught
		stopped := make(chan struct{})
		go func() { fresh.Stop(); close(stopped) }()
		time.Sleep(time.Minute)
		select {
		case <-stopped:
			t.Error("it has stopped in the middle of a restore")
		default:
		}
		close(release)
		<-stopped
		fresh.MustStart()
		requireRestored(t, c, fresh)
	})
}

// requireFollows waits until s is a member of the cluster that by is of, and keeps nothing else.
func requireFollows(t *testing.T, c *clustertest.Cluster, by, s *clustertest.Server) {
	t.Helper()
	readmitted(c, by, s.Host)
	c.Eventually(s.Host+" takes writes", func() error { return set(s, "user."+s.Host, "1") })
	if got := replicas(t, s); len(got) != 1 {
		t.Errorf("replicas: %v", got)
	}
}

// followPoints are those of a member that follows a recovered cluster.
var followPoints = []string{daemon.PointFenced, daemon.PointRebuilt, daemon.PointSwitched, daemon.PointReadmitted}

// recovered is a cluster of five, whose voters m1 and m2 are lost, recovered on m3; m5 follows. The
// trap catches m4 on its way.
func recovered(t *testing.T, trap *trap) *clustertest.Cluster {
	t.Helper()
	trap.armed.Store(false)
	c := grow(t, 5, trapOn("m4", trap))
	withRoles(c, map[string]string{"m1": state.RoleVoter, "m2": state.RoleVoter, "m3": state.RoleVoter, "m4": state.RoleStandby, "m5": state.RoleStandby})
	c.RequireConverged()
	all := c.Servers()
	trap.armed.Store(true)
	all[0].Kill()
	all[1].Kill()
	recoverOn(c, all[2])
	readmitted(c, all[2], "m5")
	<-trap.caught
	return c
}

func TestFollowerCutOffAtEachStep(t *testing.T) {
	for _, point := range followPoints {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				trap := newTrap(point)
				c := recovered(t, trap)
				all := c.Servers()
				killHeld(c, all[3], trap.release)
				all[3].MustStart()
				requireFollows(t, c, all[2], all[3])
				all[3].Stop()
				all[3].MustStart()
				requireFollows(t, c, all[2], all[3])
			})
		})
	}
}

// An error in place of a crash: it goes on without being started again.
func TestFollowerGoesOnAfterAnError(t *testing.T) {
	for _, point := range followPoints {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				trap := newTrap(point)
				c := recovered(t, trap)
				close(trap.release)
				requireFollows(t, c, c.Servers()[2], c.Servers()[3])
			})
		})
	}
}

// The cluster is recovered once more, on m5, while m4 is on its way to it.
func TestFollowerIsOvertakenByASecondRecovery(t *testing.T) {
	for _, crash := range []bool{false, true} {
		for _, point := range followPoints[:3] {
			t.Run(fmt.Sprintf("%s/%v", point, crash), func(t *testing.T) {
				virtual(t, func(t *testing.T) {
					trap := newTrap(point)
					c := recovered(t, trap)
					all := c.Servers()
					if crash {
						killHeld(c, all[3], trap.release)
					} else {
						c.Net.Isolate("m4", "m3", "m5")
						close(trap.release)
						time.Sleep(5 * time.Second)
					}
					withRolesOn(c, all[2], map[string]string{"m3": state.RoleVoter, "m4": state.RoleSpare, "m5": state.RoleStandby})
					all[2].Kill()
					recoverOn(c, all[4])
					c.Net.Heal()
					if crash {
						all[3].MustStart()
					}
					requireFollows(t, c, all[4], all[3])
					if n := all[3].View().Cluster().Incarnation; n != 3 {
						t.Errorf("m4 is of incarnation %d", n)
					}
				})
			})
		}
	}
}

// A former voter that is shut out stays so, wherever it dies, until it is reset, wherever that dies.
func TestResetOfAFencedVoterCutOffAtEachStep(t *testing.T) {
	for _, point := range []string{daemon.PointFenced, daemon.PointEmptied, daemon.PointStartedOver} {
		t.Run(point, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				trap := newTrap(point)
				c := grow(t, 3, trapOn("m1", trap))
				withRoles(c, voters("m1", "m2", "m3"))
				all := c.Servers()
				all[0].Kill()
				all[1].Kill()
				recoverOn(c, all[2])
				all[0].MustStart()
				isOut := func() error { return wantReason(set(all[0], "user.y", "1"), api.MemberFenced) }
				done := make(chan error, 1)
				if point == daemon.PointFenced {
					done <- nil
				} else {
					c.Eventually("it is out", isOut)
					go func() { done <- reset(all[0]) }()
				}
				<-trap.caught
				killHeld(c, all[0], trap.release)
				<-done
				all[0].MustStart()
				if point == daemon.PointStartedOver {
					if err := reset(all[0]); !errors.Is(err, api.NotClustered) {
						t.Errorf("the same command again: %v", err)
					}
				} else {
					if err := isOut(); err != nil {
						t.Errorf("after a restart: %v", err)
					}
					if err := reset(all[0]); err != nil {
						t.Fatal(err)
					}
				}
				requireStandalone(t, c, all[0])
				if got := replicas(t, all[0]); len(got) != 1 {
					t.Errorf("replicas: %v", got)
				}
				if err := remove(c.Context(), all[2], "m1", true); err != nil {
					t.Fatal(err)
				}
				all[0].MustJoin(all[2])
			})
		})
	}
}
