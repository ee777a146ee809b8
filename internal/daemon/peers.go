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

// memberServerName is what members ask each other's listeners for: there each shows its own
// certificate, as it does to the replicated store. So what the cluster shows to clients can be
// replaced, or be stolen, without any difference between members.
const memberServerName = "member.incus.internal"

// peerTransports are HTTPS connections to other members: with this server's own
// certificate, and only to a server that shows the member's.
type peerTransports struct {
	daemon *Daemon
	mu     sync.Mutex
	to     map[string]*peerTransport // by ID
}

type peerTransport struct {
	// fingerprint and former are what transport accepts.
	fingerprint, former string
	transport           *http.Transport
}

func (p *peerTransports) init(d *Daemon) { p.daemon, p.to = d, make(map[string]*peerTransport) }

// of returns the way to m: one pool of connections for each member, made anew when its
// certificate is.
func (p *peerTransports) of(m *state.Member) http.RoundTripper {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.to[m.ID]
	if t == nil || t.fingerprint != m.Fingerprint || t.former != m.Former {
		if t != nil {
			t.transport.CloseIdleConnections()
		}
		p.forget()
		t = &peerTransport{m.Fingerprint, m.Former, p.daemon.pinnedTransport(memberServerName, m.Fingerprint, m.Former)}
		p.to[m.ID] = t
	}
	return t.transport
}

// forget drops the ways to those that are no members any more.
func (p *peerTransports) forget() {
	view := p.daemon.current.Local()
	for id, t := range p.to {
		if view == nil {
			return
		}
		if _, ok := view.Member(id); !ok {
			t.transport.CloseIdleConnections()
			delete(p.to, id)
		}
	}
}

func (p *peerTransports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.to {
		t.transport.CloseIdleConnections()
	}
}

// pinnedTransport leads to servers that show a certificate with one of these fingerprints, or one
// that such a one endorses, when they are asked for name.
func (d *Daemon) pinnedTransport(name string, known ...string) *http.Transport {
	pin := trust.Pin{Known: known, Own: d.own.tls, Now: d.cfg.Now, ServerName: name}
	return &http.Transport{
		DialContext:           d.cfg.Dial,
		TLSClientConfig:       pin.TLS(),
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       20 * time.Second,
		MaxIdleConnsPerHost:   4,
		ForceAttemptHTTP2:     true,
	}
}

// connect returns a member of the cluster that this server wants to join.
func (d *Daemon) connect(address string, cert *x509.Certificate) membership.Cluster {
	tr := d.pinnedTransport("", trust.Fingerprint(cert))
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
