package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"incusd/api"
)

type taken struct{ error }

func (taken) Connected() bool { return true }

func (t taken) Unwrap() error { return t.error }

func TestProblemTellsTheKindsApart(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("on the way: %w", err) }
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{wrap(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), api.ReachRefused},
		{wrap(context.DeadlineExceeded), api.ReachTimeout},
		{wrap(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), api.ReachTimeout},
		{wrap(taken{context.DeadlineExceeded}), api.ReachSilent},
		{wrap(taken{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}}), api.ReachSilent},
		{wrap(taken{api.Errorf(api.FingerprintMatch, "another certificate")}), api.ReachWrongServer},
		{wrap(taken{api.Errorf(api.MemberNotFound, "not that member")}), api.ReachWrongServer},
		{wrap(taken{tls.AlertError(120)}), api.ReachWrongServer},
		{wrap(tls.RecordHeaderError{Msg: "this is HTTP"}), api.ReachWrongServer},
		{wrap(taken{api.Errorf(api.MemberRemoved, "no member")}), api.ReachRejected},
		{wrap(errors.New("no such host")), api.ReachFailed},
	} {
		if got := Problem(tt.err); got != tt.want {
			t.Errorf("%v is %q, want %q", tt.err, got, tt.want)
		}
	}
}
