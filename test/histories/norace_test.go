//go:build !race

// Each timer of a synctest bubble leaves something on the stack that the race detector keeps of the
// bubble's own goroutine. After some hundred thousand the process dies in the detector itself.

package histories

import (
	"fmt"
	"testing"
	"testing/synctest"
)

// TestHistoriesOfDaemonsInOneProcess plays some short runs, each under faults that follow
// from its seed: the same ones by default, new ones by make histories. The seed repeats the faults and what the clients want; how the machine's
// cores share the work differs each time.
//
//	HISTORIES_SEED=7 HISTORIES_RUNS=1 go test ./test/histories -run InOneProcess -v
func TestHistoriesOfDaemonsInOneProcess(t *testing.T) {
	seed, runs := number(t, "HISTORIES_SEED", 1), number(t, "HISTORIES_RUNS", 4)
	for n := range runs {
		seed := seed + n
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			var h *history
			var s *storm
			synctest.Test(t, func(t *testing.T) { h, s = play(t, seed) })
			h.check(t)
			if t.Failed() {
				t.Logf("the faults:\n%s", s.log)
			}
		})
	}
}
