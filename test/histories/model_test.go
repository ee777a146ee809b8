// Package histories lets concurrent clients write and read configuration keys and issue,
// redeem and revoke join tokens through all members of a cluster, while members are
// killed, stopped and cut off, and judges what they saw: every answer must be one that a
// single server, doing one thing at a time, could have given (linearizability). Porcupine
// searches for that order; the models here say what the single server does.
//
// The clusters are of two kinds. TestHistoriesOfDaemonsInOneProcess has whole daemons on a
// network that can be cut, in virtual time, under faults that follow from a seed.
// TestHistoryOfProcesses has the built programs, which are stopped, continued and killed.
package histories

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"incusd/api"
)

// An answer is what became of an operation: granted, refused for a reason that says
// something of the state, or open.
type answer string

const (
	granted answer = "granted"
	// open: no answer came, or one that does not tell. The operation may take effect at
	// any time from its call on, or never.
	open answer = "open"
)

// refused is the answer of a refusal.
func refused(reason api.Reason) answer { return answer(reason) }

// Operations on a configuration key. A read's output is the value; a write's an answer.
type (
	write struct{ value string }
	read  struct{}
)

// register is the model of one configuration key. Its state is the value. No value is
// written twice, so that each read tells which write it saw.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		switch in := in.(type) {
		case write:
			return true, in.value
		case read:
			return out == state, state
		}
		return false, state
	},
	DescribeOperation: describe,
}

// Operations on the join tokens for one member name. Their outputs are answers.
type (
	issue struct{ token string }
	claim struct{ token, key string }
	// revoke is refused with notRunning if the token has ended.
	revoke struct{ token string }
)

// notRunning is the one refusal of a revocation: the operation is not there, or not any more.
const notRunning answer = "not running"

// claims is the state of one member name: its live token, "" if there is none, and which
// key has claimed that, "" if none has.
type claims struct{ token, key string }

// tokens is the model of the join tokens for one member name: at most one is live, the
// one issued last, and at most one key claims it. Nobody joins, and no claim runs out.
var tokens = porcupine.Model{
	Init: func() any { return claims{} },
	Step: func(state, in, out any) (bool, any) {
		s := state.(claims)
		switch in := in.(type) {
		case issue:
			return true, claims{token: in.token}
		case claim:
			return s.claim(in, out.(answer))
		case revoke:
			return s.revoke(in, out.(answer))
		}
		return false, s
	},
	DescribeOperation: describe,
}

func (s claims) claim(in claim, out answer) (bool, claims) {
	live := s.token == in.token
	free := s.key == "" || s.key == in.key
	next := s
	if live && free {
		next.key = in.key
	}
	switch out {
	case granted:
		return live && free, next
	case refused(api.TokenClaimed):
		return live && !free, s
	case refused(api.TokenRevoked):
		return !live, s
	}
	return out == open, next
}

func (s claims) revoke(in revoke, out answer) (bool, claims) {
	live := s.token == in.token
	next := s
	if live {
		next = claims{}
	}
	switch out {
	case granted:
		return live, next
	case notRunning:
		return !live, s
	}
	return out == open, next
}

func describe(in, out any) string { return fmt.Sprintf("%T%+v: %v", in, in, out) }
