package histories

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"

	"incusd/api"
)

// op is an operation that was called and returned at these times.
func op(call, end int64, in, out any) porcupine.Operation {
	return porcupine.Operation{Input: in, Call: call, Output: out, Return: end}
}

// ever is the return time of an open operation.
const ever = math.MaxInt64

func TestCheckerTellsRightHistoriesFromWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		onToken bool
		ops     []porcupine.Operation
		right   bool
	}{
		"a read sees the last write": {false, []porcupine.Operation{
			op(1, 2, write{"a"}, granted), op(3, 4, write{"b"}, granted), op(5, 6, read{}, "b"),
		}, true},
		"a read beside a write sees either": {false, []porcupine.Operation{
			op(1, 2, write{"a"}, granted), op(3, 8, write{"b"}, granted), op(4, 5, read{}, "a"), op(6, 7, read{}, "b"),
		}, true},
		"an open write takes effect late": {false, []porcupine.Operation{
			op(1, ever, write{"a"}, open), op(2, 3, write{"b"}, granted), op(4, 5, read{}, "b"), op(6, 7, read{}, "a"),
		}, true},
		"an open write takes effect never": {false, []porcupine.Operation{
			op(1, ever, write{"a"}, open), op(2, 3, write{"b"}, granted), op(4, 5, read{}, "b"),
		}, true},
		"a stale read": {false, []porcupine.Operation{
			op(1, 2, write{"a"}, granted), op(3, 4, write{"b"}, granted), op(5, 6, read{}, "a"),
		}, false},
		"an acknowledged write is lost": {false, []porcupine.Operation{
			op(1, 2, write{"a"}, granted), op(3, 4, read{}, ""),
		}, false},
		"a write is made twice": {false, []porcupine.Operation{
			op(1, 2, write{"a"}, granted), op(3, 4, write{"b"}, granted), op(5, 6, read{}, "b"), op(7, 8, read{}, "a"),
		}, false},
		"two readers see two orders": {false, []porcupine.Operation{
			op(1, 20, write{"a"}, granted), op(1, 20, write{"b"}, granted),
			op(2, 3, read{}, "a"), op(4, 5, read{}, "b"), op(6, 7, read{}, "a"),
		}, false},
		"a value from nowhere": {false, []porcupine.Operation{op(1, 2, read{}, "a")}, false},

		"one key claims, and again, and the other does not": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, 4, claim{"t", "A"}, granted), op(5, 6, claim{"t", "A"}, granted),
			op(7, 8, claim{"t", "B"}, refused(api.TokenClaimed)),
		}, true},
		"an open claim holds": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, ever, claim{"t", "A"}, open), op(5, 6, claim{"t", "B"}, refused(api.TokenClaimed)),
		}, true},
		"a lost token replaces the one before": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, ever, issue{"lost"}, open), op(5, 6, claim{"t", "A"}, refused(api.TokenRevoked)),
		}, true},
		"two keys claim one token": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, 6, claim{"t", "A"}, granted), op(4, 5, claim{"t", "B"}, granted),
		}, false},
		"a claim is refused in favour of nobody": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, 4, claim{"t", "A"}, refused(api.TokenClaimed)),
		}, false},
		"a revoked token is claimed": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, 4, revoke{"t"}, granted), op(5, 6, claim{"t", "A"}, granted),
		}, false},
		"a replaced token is claimed": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, 4, issue{"u"}, granted), op(5, 6, claim{"t", "A"}, granted),
		}, false},
		"a live token is said to be revoked": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, 4, claim{"t", "A"}, refused(api.TokenRevoked)),
		}, false},
		"a revocation is denied": {true, []porcupine.Operation{
			op(1, 2, issue{"t"}, granted), op(3, 4, revoke{"t"}, notRunning), op(5, 6, claim{"t", "A"}, granted),
		}, false},
	} {
		h := newHistory()
		if tc.onToken {
			h.names[name] = tc.ops
		} else {
			h.keys[name] = tc.ops
		}
		if findings := h.judge(); (len(findings) == 0) != tc.right {
			t.Errorf("%s: right: %v, found %v", name, tc.right, findings)
		}
	}
}
