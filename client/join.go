package client

import (
	"context"
	"crypto/x509"
	"net/http"

	"incusd/api"
)

// Preflight asks a member of a cluster, which must show exactly certificate, what is in the way of
// a join and what the joining server has to answer. Nothing is changed. The token or the password
// in req is what authorizes it.
func Preflight(ctx context.Context, dial DialFunc, address string, certificate *x509.Certificate, req api.JoinRequest) (*api.JoinReport, error) {
	c := HTTPS(address, Pin(certificate, nil), Options{Dial: dial})
	reply, err := c.Query(ctx, http.MethodPost, "/internal/cluster/join/preflight", req, "")
	if err != nil {
		return nil, err
	}
	report := new(api.JoinReport)
	return report, reply.Decode(report)
}
