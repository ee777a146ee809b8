//go:build !race

package clustertest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"incusd/internal/clustertest"
)

// TestHundredMembersFormAndSurviveTheirLeader runs in virtual time. The race detector cannot
// hold as many goroutines.
func TestHundredMembersFormAndSurviveTheirLeader(t *testing.T) {
	const size = 100
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		c := clustertest.New(t, size)
		t.Logf("formed in %s of the cluster's time", time.Since(begun))
		if got := len(c.Leader().View().Members()); got != size {
			t.Fatalf("%d members", got)
		}
		c.RequireConverged()
		for range 2 {
			leader := c.Leader()
			leader.Kill()
			lost := time.Now()
			var writer *clustertest.Server
			for _, s := range c.Running() {
				writer = s
			}
			c.Eventually("a write after the loss of the leader", func() error { return set(writer, "user.x", leader.Host) })
			t.Logf("the loss of %s was overcome in %s", leader.Host, time.Since(lost))
			leader.MustStart()
			c.RequireConverged()
		}
		for i, s := range c.Running() {
			if i%10 == 0 {
				if err := set(s, "user.y", fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.RequireConverged()
		for _, s := range c.Servers() {
			s.Kill()
		}
	})
}
