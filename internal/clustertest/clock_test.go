package clustertest_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"incusd/internal/clustertest"
	"incusd/internal/membership"
)

// TestJumpingClocksChangeNothing: wall clocks that are an hour apart, and jump, make nobody
// offline, change no leader, and a member that dies is offline after the threshold as ever.
func TestJumpingClocksChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
		shifts := make([]atomic.Int64, 3)
		for i := range shifts {
			s := c.AddServer(clustertest.WithClock(func() time.Time { return time.Now().Add(time.Duration(shifts[i].Load())) }))
			if i == 0 {
				s.MustBootstrap()
			} else {
				s.MustJoin(c.Servers()[0])
			}
		}
		c.RequireConverged()
		leader := c.Leader()
		term := leader.View().Term()
		for _, jump := range [][]time.Duration{{time.Hour, -time.Hour, 0}, {-time.Hour, time.Hour, time.Hour}, {0, 0, -time.Hour}} {
			for i := range shifts {
				shifts[i].Store(int64(jump[i]))
			}
			for range 30 { // seconds, beyond the threshold of 20
				<-time.After(time.Second)
				requireStatus(t, c, map[string]string{"m1": membership.StatusOnline, "m2": membership.StatusOnline, "m3": membership.StatusOnline})
			}
		}
		if got := c.Leader(); got != leader || got.View().Term() != term {
			t.Errorf("%s leads in term %d, it was %s in term %d", got.Host, got.View().Term(), leader.Host, term)
		}
		var victim *clustertest.Server
		for _, s := range c.Servers() {
			if s != leader {
				victim = s
			}
		}
		victim.Kill()
		died := time.Now()
		c.Eventually(victim.Host+" is offline", func() error {
			if m, ok := leader.View().MemberByName(victim.Host); !ok || !m.Offline {
				return fmt.Errorf("it is not")
			}
			return nil
		})
		if after := time.Since(died); after < 19*time.Second || after > 25*time.Second {
			t.Errorf("it is offline after %s, the threshold is 20s", after)
		}
		for _, s := range c.Servers() {
			s.Stop()
		}
	})
}

// requireStatus checks what every running member shows of all.
func requireStatus(t *testing.T, c *clustertest.Cluster, want map[string]string) {
	t.Helper()
	for _, s := range c.Running() {
		list, err := s.Members(c.Context())
		if err != nil {
			t.Fatalf("%s: %v", s.Host, err)
		}
		for _, m := range list {
			if m.Status != want[m.ServerName] {
				t.Fatalf("%s shows %s as %s: %s", s.Host, m.ServerName, m.Status, m.Message)
			}
		}
	}
}
