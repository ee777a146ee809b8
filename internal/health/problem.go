package health

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"incusd/api"
)

// Problem sorts the error of a connection to a member into api's Reach constants; empty for nil.
func Problem(err error) string {
	var refusal *api.Error
	var alert tls.AlertError
	var header tls.RecordHeaderError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return api.ReachRefused
	case errors.Is(err, api.FingerprintMatch), errors.Is(err, api.MemberNotFound), errors.As(err, &alert), errors.As(err, &header):
		return api.ReachWrongServer
	case errors.As(err, &refusal):
		return api.ReachRejected
	case isTimeout(err) && connected(err):
		return api.ReachSilent
	case isTimeout(err):
		return api.ReachTimeout
	}
	return api.ReachFailed
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// connected tells whether the other end took the connection, where the error knows.
func connected(err error) bool {
	var c interface{ Connected() bool }
	return errors.As(err, &c) && c.Connected()
}
