package daemon

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"incusd/api"
	"incusd/internal/membership"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// maxAnswer bounds what a member may answer to one call, in bytes.
const maxAnswer = 16 << 20

// peerTransports are HTTPS connections to other members: with this server's own
// certificate, and only to a server that shows the cluster's.
type peerTransports struct {
	daemon *Daemon
	mu     sync.Mutex
	// fingerprint is of the cluster certificate that transport accepts.
	fingerprint string
	transport   *http.Transport
}

func (p *peerTransports) init(d *Daemon) { p.daemon = d }

// of returns the way to m. All members show the same certificate, so they share one
// pool of connections, which is made anew when the certificate is.
func (p *peerTransports) of(*state.Member) http.RoundTripper {
	pair := p.daemon.network.pair()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transport == nil || p.fingerprint != pair.Fingerprint() {
		if p.transport != nil {
			p.transport.CloseIdleConnections()
		}
		p.fingerprint = pair.Fingerprint()
		p.transport = p.daemon.pinnedTransport(pair.Cert)
	}
	return p.transport
}

func (p *peerTransports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.transport != nil {
		p.transport.CloseIdleConnections()
	}
}

func (d *Daemon) pinnedTransport(cert *x509.Certificate) *http.Transport {
	return &http.Transport{
		DialContext:           d.cfg.Dial,
		TLSClientConfig:       trust.PinnedTLS(cert, &d.own.TLS),
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       20 * time.Second,
		MaxIdleConnsPerHost:   4,
		ForceAttemptHTTP2:     true,
	}
}

// connect returns a member of the cluster that this server wants to join.
func (d *Daemon) connect(address string, cert *x509.Certificate) membership.Cluster {
	tr := d.pinnedTransport(cert)
	return &remoteCluster{base: "https://" + address, http: &http.Client{Transport: tr}}
}

// remoteCluster calls one member's REST API, as a joining server does.
type remoteCluster struct {
	base string
	http *http.Client
}

func (c *remoteCluster) Preflight(ctx context.Context, req membership.JoinRequest) (*membership.JoinReport, error) {
	var out membership.JoinReport
	return &out, c.post(ctx, "/internal/cluster/join/preflight", req, &out)
}

func (c *remoteCluster) Claim(ctx context.Context, req api.CertificatesPost) error {
	return c.post(ctx, "/1.0/certificates", req, nil)
}

func (c *remoteCluster) Admit(ctx context.Context, req membership.AdmitRequest) (*membership.Admission, error) {
	var out membership.Admission
	return &out, c.post(ctx, "/internal/cluster/join/admit", req, &out)
}

func (c *remoteCluster) Abort(ctx context.Context, id string) (state.AbortResult, error) {
	var out state.AbortResult
	return out, c.post(ctx, "/internal/cluster/join/abort", map[string]string{"id": id}, &out)
}

// post sends body and decodes the answer's metadata into out. A refusal comes back as
// the *api.Error that the cluster gave.
func (c *remoteCluster) post(ctx context.Context, path string, body, out any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return api.Errorf(api.Unavailable, "%v", err)
	}
	defer resp.Body.Close()
	var envelope api.Response
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&envelope); err != nil {
		return fmt.Errorf("answer of %s: %w", c.base, err)
	}
	if envelope.Type == api.ErrorResponse {
		return refusalOf(envelope)
	}
	if out == nil || len(envelope.Metadata) == 0 {
		return nil
	}
	return json.Unmarshal(envelope.Metadata, out)
}

// refusalOf reads an error envelope, with its reason where the other side gives one.
func refusalOf(envelope api.Response) error {
	var meta api.ErrorMetadata
	if err := json.Unmarshal(envelope.Metadata, &meta); err != nil || meta.Reason == "" {
		meta.Reason = api.Internal
	}
	return &api.Error{Reason: meta.Reason, Message: envelope.Error, Hint: meta.Hint, Code: envelope.Code}
}

// prober dials a joining server back, to see that others can reach it and that it is the
// one that asks.
type prober struct {
	dial func(context.Context, string, string) (net.Conn, error)
}

func (p prober) Probe(ctx context.Context, address string) (string, error) {
	cert, err := trust.RemoteCertificate(ctx, p.dial, address)
	if err != nil {
		return "", err
	}
	return trust.Fingerprint(cert), nil
}
