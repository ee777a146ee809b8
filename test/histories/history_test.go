package histories

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history is what all clients did, and saw.
type history struct {
	// clock orders calls and returns. It counts them: in virtual time many things happen
	// at one moment.
	clock atomic.Int64
	acked atomic.Int64 // writes

	mu    sync.Mutex
	keys  map[string][]porcupine.Operation // operations on each configuration key
	names map[string][]porcupine.Operation // operations on the tokens for each member name
	// fates is what the clients were told of each write, by its value. Refused ones
	// changed nothing, and are not among the operations.
	fates map[string]answer
}

func newHistory() *history {
	return &history{
		keys:  map[string][]porcupine.Operation{},
		names: map[string][]porcupine.Operation{},
		fates: map[string]answer{},
	}
}

// now is the time of a call or return.
func (h *history) now() int64 { return h.clock.Add(1) }

// key and name note one operation that has just returned.
func (h *history) key(key string, client int, call int64, in, out any) {
	h.note(h.keys, key, client, call, in, out)
}

func (h *history) name(name string, client int, call int64, in any, out answer) {
	h.note(h.names, name, client, call, in, out)
}

func (h *history) note(where map[string][]porcupine.Operation, object string, client int, call int64, in, out any) {
	end := h.now()
	if out == open {
		end = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	where[object] = append(where[object], porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
}

// fate notes what became of the write of a value.
func (h *history) fate(value string, a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fates[value] = a
	if a == granted {
		h.acked.Add(1)
	}
}

// size tells how much there is to judge.
func (h *history) size() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := map[answer]int{}
	for _, a := range h.fates {
		count[a]++
	}
	reads, onTokens := 0, map[answer]int{}
	for _, ops := range h.keys {
		for _, op := range ops {
			if op.Input == (read{}) {
				reads++
			}
		}
	}
	for _, ops := range h.names {
		for _, op := range ops {
			onTokens[op.Output.(answer)]++
		}
	}
	return fmt.Sprintf("writes %v, %d values read, on the tokens of %d names %v", count, reads, len(h.names), onTokens)
}

// withoutUnseen leaves out open writes whose value nobody read: such a write can always
// stand at the very end, so it can never make a history wrong, only slow to judge.
func withoutUnseen(ops []porcupine.Operation) []porcupine.Operation {
	seen := map[any]bool{}
	for _, op := range ops {
		if op.Input == (read{}) {
			seen[op.Output] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(ops), func(op porcupine.Operation) bool {
		w, ok := op.Input.(write)
		return ok && op.Output == open && !seen[w.value]
	})
}

// judge finds the objects whose operations no single server could have answered like this.
func (h *history) judge() []finding {
	var out []finding
	for _, key := range slices.Sorted(maps.Keys(h.keys)) {
		out = append(out, judge("key "+key, register, withoutUnseen(h.keys[key]))...)
	}
	for _, name := range slices.Sorted(maps.Keys(h.names)) {
		out = append(out, judge("tokens for "+name, tokens, h.names[name])...)
	}
	return out
}

// A finding is an object whose history is wrong, or could not be judged.
type finding struct {
	object string
	result porcupine.CheckResult
	model  porcupine.Model
	info   porcupine.LinearizationInfo
	ops    []porcupine.Operation
}

// judgeTime bounds the search for an order, which may take exponentially long. Real
// histories take milliseconds.
const judgeTime = time.Minute

func judge(object string, model porcupine.Model, ops []porcupine.Operation) []finding {
	result, info := porcupine.CheckOperationsVerbose(model, ops, judgeTime)
	if result == porcupine.Ok {
		return nil
	}
	return []finding{{object, result, model, info, ops}}
}

// check fails the test if the history is wrong, and shows where.
func (h *history) check(t *testing.T) {
	t.Helper()
	t.Log(h.size())
	for _, f := range h.judge() {
		page := filepath.Join(t.ArtifactDir(), strings.NewReplacer(" ", "-", "/", "-").Replace(f.object)+".html")
		if err := porcupine.VisualizePath(f.model, f.info, page); err != nil {
			t.Log(err)
		}
		t.Errorf("%s: %s; a picture is in %s, kept with -artifacts\n%s", f.object, f.result, page, f)
	}
}

// String lists the operations up to where no order could be found any more, and a few
// after it.
func (f finding) String() string {
	longest := 0
	for _, partition := range f.info.PartialLinearizations() { // there is one
		for _, partial := range partition {
			longest = max(longest, len(partial))
		}
	}
	ops := slices.SortedFunc(slices.Values(f.ops), func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	const before, after = 20, 10
	from, to := max(0, longest-before), min(len(ops), longest+after)
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations, an order was found for %d; numbers %d to %d:\n", len(ops), longest, from, to)
	for _, op := range ops[from:to] {
		end := fmt.Sprint(op.Return)
		if op.Return == math.MaxInt64 {
			end = "..."
		}
		fmt.Fprintf(&b, "  client %2d [%6d, %6s] %s\n", op.ClientId, op.Call, end, describe(op.Input, op.Output))
	}
	return b.String()
}
