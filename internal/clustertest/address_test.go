package clustertest_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"incusd/api"
	"incusd/internal/clustertest"
	"incusd/internal/daemon"
	"incusd/internal/raftstore"
)

// requireAddress waits until all running members know that the server is at address, and
// still write together.
func requireAddress(c *clustertest.Cluster, s *clustertest.Server, address string) {
	c.T.Helper()
	c.Eventually(s.Host+" is known at "+address, func() error {
		for _, other := range c.Running() {
			m, ok := other.View().MemberByName(s.Host)
			if !ok || m.Address != address {
				return fmt.Errorf("%s knows another address", other.Host)
			}
		}
		return nil
	})
	for i, other := range c.Running() {
		key := fmt.Sprintf("user.after-%s", other.Host)
		c.Eventually("a write through "+other.Host, func() error { return set(other, key, fmt.Sprint(i)) })
	}
	c.RequireConverged()
}

// restartAll kills all members at once, so that every connection is made anew.
func restartAll(c *clustertest.Cluster) {
	for _, s := range c.Servers() {
		s.Kill()
	}
	for _, s := range c.Servers() {
		s.MustStart()
	}
}

func TestMemberMovesToAnotherAddressWhileTheClusterRuns(t *testing.T) {
	for _, size := range []int{1, 2, 3} {
		for _, who := range []string{"leader", "follower"} {
			if size == 1 && who == "follower" {
				continue
			}
			t.Run(fmt.Sprintf("%s of %d", who, size), func(t *testing.T) {
				t.Parallel()
				c := clustertest.New(t, size)
				mover := c.Leader()
				for _, s := range c.Servers() {
					if who == "follower" && s != mover {
						mover = s
						break
					}
				}
				address := mover.Host + ":9443"
				if err := mover.MoveTo(c.Context(), address, false); err != nil {
					t.Fatal(err)
				}
				requireAddress(c, mover, address)
				if err := mover.MoveTo(c.Context(), address, false); err != nil {
					t.Errorf("once more: %v", err)
				}
				restartAll(c)
				requireAddress(c, mover, address)
				for _, key := range []string{"cluster.https_address", "core.https_address"} {
					if got, err := get(mover, key); err != nil || got != address {
						t.Errorf("%s is %q, %v", key, got, err)
					}
				}
			})
		}
	}
}

func TestMoveIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	mover, other := c.Servers()[1], c.Servers()[2]
	c.Net.Cut(other.Host, "ghost")
	for _, tt := range []struct {
		address string
		want    api.Reason
	}{
		{"", api.AddressInvalid},
		{"0.0.0.0:8443", api.AddressInvalid},
		{"m2:0", api.AddressInvalid},
		{"m3:8443", api.AddressInUse},      // listened on by its owner: here, on one network
		{"ghost:8443", api.AddressUnreach}, // m3 does not get there
	} {
		if err := mover.MoveTo(c.Context(), tt.address, false); !errors.Is(err, tt.want) {
			t.Errorf("%q: %v, want %s", tt.address, err, tt.want)
		}
		requireAddress(c, mover, mover.Address())
	}
	if got, err := get(mover, "cluster.https_address"); err != nil || got != mover.Address() {
		t.Errorf("cluster.https_address is %q, %v", got, err)
	}
}

func TestMoveGoesOnAfterACrash(t *testing.T) {
	for _, point := range []string{daemon.PointAddressNoted, daemon.PointAddressTold} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, 2)
			hold := newTrap(point)
			mover := c.AddServer(clustertest.OnReach(hold.reach))
			mover.MustJoin(c.Servers()[0])
			go mover.MoveTo(c.Context(), mover.Host+":9443", false)
			<-hold.caught
			killHeld(c, mover, hold.release)
			mover.MustStart()
			requireAddress(c, mover, mover.Host+":9443")
		})
	}
}

func TestMemberThatRestartsElsewhereAnnouncesItself(t *testing.T) {
	for _, who := range []string{"voter", "stand-by", "last leader"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, 4)
			mover := c.Servers()[3]
			switch who {
			case "voter":
				mover = c.Servers()[1]
			case "last leader":
				mover = c.Leader()
			}
			mover.Kill()
			address := mover.Host + ":9443"
			if err := mover.SetLocal(map[string]string{"cluster.https_address": address, "core.https_address": address}); err != nil {
				t.Fatal(err)
			}
			mover.MustStart()
			requireAddress(c, mover, address)
		})
	}
}

// Nobody tells it anything at its new address before it has told others of it.
func TestLeaderThatGetsNoAnswerToItsMoveTellsAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c, trap := trapped(t, 3, raftstore.PointAppend)
		mover := c.Leader()
		trap.armed.Store(true)
		done := make(chan error, 1)
		go func() { done <- mover.MoveTo(c.Context(), mover.Host+":9443", false) }()
		awaitCaught(t, trap, done)
		for _, s := range c.Servers() {
			if s != mover {
				c.Net.CutOneWay(mover.Host, s.Host)
			}
		}
		close(trap.release)
		if err := <-done; !errors.Is(err, api.OutcomeUnknown) {
			t.Fatalf("the move: %v", err)
		}
		requireSettled(t, c, mover)
		c.Net.Heal()
		requireAddress(c, mover, mover.Host+":9443")
	})
}

// It cannot be elected, since it lacks an entry, and the other one needs its vote: the cluster
// cannot be told where it is, but the other one can.
func TestVoterThatRestartsElsewhereBringsTheQuorumBack(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		c.RequireConverged()
		leader := c.Leader()
		rest := slices.DeleteFunc(c.Servers(), func(s *clustertest.Server) bool { return s == leader })
		mover, dead := rest[0], rest[1]
		mover.Kill()
		dead.Kill()
		if err := set(leader, "user.x", "1"); err == nil {
			t.Fatal("a write without a quorum succeeded")
		}
		address := mover.Host + ":9443"
		if err := mover.SetLocal(map[string]string{"cluster.https_address": address, "core.https_address": address}); err != nil {
			t.Fatal(err)
		}
		mover.MustStart()
		requireAddress(c, mover, address)
		dead.MustStart()
		c.RequireConverged()
	})
}

func TestMemberMovesWithoutALeaderThatReachesIt(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	mover := c.Servers()[2]
	mover.Kill()
	if err := mover.SetLocal(map[string]string{"cluster.https_address": "gone:8443", "core.https_address": "gone:8443"}); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Servers() {
		c.Net.Cut(s.Host, "gone") // the others do not get there, so they do not believe it
	}
	mover.MustStart()
	if err := mover.MoveTo(c.Context(), "m3:9443", false); err != nil {
		t.Fatal(err)
	}
	requireAddress(c, mover, "m3:9443")
}

func TestMemberMovesBackAfterAnEdit(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		c.RequireConverged()
		mover := c.Servers()[2]
		for _, s := range c.Servers() {
			s.Stop()
		}
		for _, s := range c.Servers() {
			if err := s.Edit(map[string]string{mover.Host: mover.Host + ":9443"}); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range c.Servers() {
			s.MustStart()
		}
		requireAddress(c, mover, mover.Host+":9443")
		if err := mover.MoveTo(c.Context(), mover.Address(), false); err != nil {
			t.Fatal(err)
		}
		restartAll(c)
		requireAddress(c, mover, mover.Address())
	})
}

func TestMemberVotesAlthoughAnotherOfItsAddressesIsGone(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := clustertest.New(t, 3)
		c.RequireConverged()
		s := c.Servers()[2]
		s.Stop()
		if err := s.SetLocal(map[string]string{"core.https_address": "office:8443"}); err != nil {
			t.Fatal(err)
		}
		taken, err := c.Net.Listen("office:8443")
		if err != nil {
			t.Fatal(err)
		}
		s.MustStart()
		requireAddress(c, s, s.Address())
		time.Sleep(2 * time.Minute) // in virtual time: a network that is that late
		taken.Close()
		c.Eventually("it listens there, too", func() error {
			conn, err := c.Net.Dialer("m1")(c.Context(), "office:8443")
			if err != nil {
				return err
			}
			return conn.Close()
		})
		c.RequireConverged()
	})
}
