package clustertest_test

import (
	"fmt"
	"testing"

	"incusd/internal/clustertest"
)

// A member for which another address was noted moves there and back while the one with the note is
// down, and that one never sees the moves, but only a snapshot of their end. It must not go by its
// note then.
func TestNoteOfAMoveEndsAlthoughItsMemberHasMovedBack(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		t.Run(fmt.Sprintf("compacted %v", compacted), func(t *testing.T) {
			t.Parallel()
			virtual(t, func(t *testing.T) {
				c := &clustertest.Cluster{T: t, Net: clustertest.NewNetwork()}
				for i := range 3 {
					var every []func(*clustertest.Server)
					if compacted {
						every = append(every, clustertest.CompactAfter(20))
					}
					s := c.AddServer(every...)
					if i == 0 {
						s.MustBootstrap()
					} else {
						s.MustJoin(c.Servers()[0])
					}
				}
				requireSettled(t, c)
				first, mover, noter := c.Servers()[0], c.Servers()[1], c.Servers()[2]
				noter.Stop()
				if err := noter.Edit(map[string]string{mover.Host: mover.Host + ":9443"}); err != nil {
					t.Fatal(err)
				}
				for _, address := range []string{mover.Host + ":9443", mover.Address()} {
					if err := mover.MoveTo(c.Context(), address, false); err != nil {
						t.Fatal(err)
					}
					for i := range 60 {
						if err := set(first, "user.fill", fmt.Sprint(i)); err != nil {
							t.Fatal(err)
						}
					}
				}
				noter.MustStart()
				requireSettled(t, c)
				if got, err := transfer(first, mover.Host); err != nil || got != mover.Host {
					t.Fatalf("%s leads, %v", got, err)
				}
				for range 2 { // with the connections that there are, and anew
					c.Eventually("the one with the note writes through the one that moved", func() error { return set(noter, "user.x", "1") })
					if !mover.Leads() {
						t.Fatal("the one that moved has lost its leadership")
					}
					noter.Kill()
					noter.MustStart()
				}
				c.RequireConverged()
			})
		})
	}
}
