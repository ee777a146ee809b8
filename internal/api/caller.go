package api

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"net/http"
	"slices"
	"time"

	"incusd/api"
	"incusd/internal/config"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/trust"
)

// Protocols by which callers are known, as events and GET /1.0 name them.
const (
	protocolUnix    = "unix"
	protocolTLS     = "tls"
	protocolCluster = "cluster"
	// protocolAuthority is protocolTLS for whom only the authority vouches, as other members and the
	// entries are told: they cannot judge that by the trust store.
	protocolAuthority = "tls-authority"
)

// Headers by which a member tells for whom it forwards a request. They are honoured
// from members only.
const (
	headerForwardedAddress  = "X-Incus-forwarded-address"
	headerForwardedUsername = "X-Incus-forwarded-username"
	headerForwardedProtocol = "X-Incus-forwarded-protocol"
	headerForwardedHost     = "X-Incus-forwarded-host"
)

// Agents of members that act for themselves and want a purely local answer.
const (
	agentNotifier = "incus-cluster-notifier"
	agentClient   = "incus-cluster-client"
)

// trustTimeout is how long a caller waits while this member asks the leader whether
// its certificate was trusted a moment ago.
const trustTimeout = time.Second

// A caller is who makes a request.
type caller struct {
	kind     Callers
	username string
	protocol string
	address  string // without port; empty on the socket
	// certificate and fingerprint are those of the TLS connection; nil and "" if it has none.
	certificate *x509.Certificate
	fingerprint string
	// bearer is set if the caller is known by a bearer token, and not by the connection's
	// certificate: it proves no key, so that who stole one gets no more than it says.
	bearer *bearer
	// projects are all that a restricted client may use.
	projects []string
	// authority must have signed the certificates of clients, if this server has one.
	authority *trust.Authority
	// vouched is true for a client that is trusted by the authority's word alone.
	vouched bool
	// forwarded is true when another member passes the request on.
	forwarded bool
	// removed is the refusal of a server that was a member, nil for all others.
	removed *api.Error
	// notification is true when a member asks for this member's own part of an answer.
	notification bool
}

// admin tells whether the caller may do and see everything.
func (c *caller) admin() bool { return c.kind&administrators != 0 }

// requestor is the caller as events name it.
func (c *caller) requestor() *api.EventRequestor {
	return &api.EventRequestor{Username: c.username, Protocol: c.toldProtocol(), Address: c.address}
}

// authenticate finds out who makes a request, in the order of trust.md §2: members,
// the socket, wrong claims to be a member, no TLS, clients, redeemers of tokens. With
// an error the caller is a stranger, and is refused even where strangers are let in.
func (s *Server) authenticate(r *http.Request, listener ListenerKind) (caller, error) {
	if listener == UnixListener {
		return caller{kind: UnixSocket, username: unixUser(r.Context()), protocol: protocolUnix}, nil
	}
	c := caller{kind: Stranger, address: hostOf(r.RemoteAddr), authority: s.cfg.Authority}
	if r.TLS == nil {
		return c, api.Errorf(api.NotAuthorized, "Bad/missing TLS on network query")
	}
	if len(r.TLS.PeerCertificates) > 0 {
		c.certificate = r.TLS.PeerCertificates[0]
		c.fingerprint = trust.Fingerprint(c.certificate)
		s.recognize(r.Context(), &c)
	}
	agent := r.UserAgent()
	if agent == agentNotifier || agent == agentClient {
		if c.kind != Member {
			c.kind = Stranger
			return c, api.Errorf(api.NotAuthorized, "Cluster notification isn't using trusted server certificate")
		}
		c.notification = agent == agentNotifier
	}
	if c.kind == Member {
		return s.onBehalf(r, c)
	}
	if bearer := bearerOf(r); bearer != "" {
		s.byBearer(r.Context(), &c, bearer)
	}
	return c, nil
}

// recognize looks for the caller's certificate in what this member knows, and asks
// the leader when it is not there: it may have been trusted a moment ago elsewhere.
// Strangers can make that happen only so often; beyond that they stay strangers.
func (s *Server) recognize(ctx context.Context, c *caller) {
	now := s.cfg.Now()
	if trust.CheckValid(c.certificate, now) != nil {
		return
	}
	if view := s.cfg.Store.Local(); view != nil && c.identify(view, now) {
		return
	}
	if !s.limits.lookup(c) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	if view, err := s.cfg.Store.Read(ctx); err == nil {
		c.identify(view, now)
	}
}

// identify gives the caller the kind that its certificate has in view.
func (c *caller) identify(view *raftstore.View, now time.Time) bool {
	if m, ok := view.MemberByFingerprint(c.fingerprint); ok && (same(m.Fingerprint, c.fingerprint) || same(m.Former, c.fingerprint)) {
		if m.Fenced != 0 {
			return false // of an earlier incarnation of the cluster
		}
		c.kind, c.protocol, c.username = Member, protocolCluster, c.fingerprint
		if m.State != state.MemberActive {
			c.kind, c.protocol = Joiner, protocolTLS // admitted, and not one of us yet
		}
		return true
	}
	if cert, ok := view.Certificate(c.fingerprint); ok && same(cert.Fingerprint, c.fingerprint) {
		return c.authority.Allows(c.certificate, now) && c.client(cert)
	}
	if t, ok := view.TokenByClaim(c.fingerprint); ok && same(t.ClaimedBy, c.fingerprint) && t.ClaimHolds(now) {
		c.kind, c.protocol, c.username = Joiner, protocolTLS, c.fingerprint
		return true
	}
	if r, ok := view.RemovedByFingerprint(c.fingerprint); ok {
		c.removed = r.Refusal()
		return false
	}
	if trustsAuthority(view) && c.authority.Vouches(c.certificate, now) {
		c.kind, c.protocol, c.username, c.vouched = Client, protocolTLS, c.fingerprint, true
		return true
	}
	return false
}

// trustsAuthority tells whether clients are trusted whose certificates the authority has signed, and
// which are not in the trust store.
func trustsAuthority(view *raftstore.View) bool {
	return config.GetBool(view.Config(), "core.trust_ca_certificates")
}

// staysAs tells whether view still gives the caller the rights that it has. The socket is judged at
// each request only; of a forwarded request both the member and the one it asks for are.
func (c *caller) staysAs(view *raftstore.View, now time.Time) bool {
	if c.kind == UnixSocket {
		return true
	}
	again := caller{certificate: c.certificate, fingerprint: c.fingerprint, authority: c.authority}
	if c.bearer != nil {
		if !now.Before(c.bearer.until) {
			return false
		}
		again = caller{certificate: c.bearer.certificate, fingerprint: c.username, authority: c.authority}
	}
	if trust.CheckValid(again.certificate, now) != nil || !again.identify(view, now) {
		return false
	}
	if c.forwarded {
		if again.kind != Member {
			return false
		}
		if c.protocol != protocolTLS {
			return true // a process or a member, whom only that member can judge
		}
		if c.vouched {
			return trustsAuthority(view)
		}
		cert, ok := view.Certificate(c.username)
		again = caller{authority: c.authority}
		if !ok || !again.forwardedAs(cert, now) {
			return false
		}
	}
	return again.kind == c.kind && slices.Equal(again.projects, c.projects)
}

// whileTrusted is ctx, but ends with api.NotAuthorized as its cause when the caller loses rights. A
// stranger has none to lose. cancel waits until nobody looks any more.
func (s *Server) whileTrusted(ctx context.Context, c *caller) (_ context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(ctx)
	if c.kind&trusted == 0 {
		return ctx, func() { end(nil) }
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		recheck := time.NewTicker(pingInterval) // certificates end by the clock, too
		defer recheck.Stop()
		for {
			view := s.cfg.Store.Local()
			if !c.staysAs(view, s.cfg.Now()) {
				end(api.Errorf(api.NotAuthorized, "not authorized any more"))
				return
			}
			select {
			case <-view.WatchMembers(): // it watches certificates, too
			case <-recheck.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { end(nil); <-ended }
}

// forwardedAs is client for whom a member asks, whose certificate the connection does not show.
func (c *caller) forwardedAs(cert *state.Certificate, now time.Time) bool {
	shown, err := trust.ParseCertificate(cert.PEM)
	return err == nil && c.authority.Allows(shown, now) && c.client(cert)
}

// client gives the caller the rights of a trusted certificate, which the authority allows.
// Certificates of type server open nothing: those of members are in their rows.
func (c *caller) client(cert *state.Certificate) bool {
	switch cert.Type {
	case api.CertificateMetrics:
		c.kind, c.protocol, c.username = Metrics, protocolTLS, cert.Fingerprint
		return true
	case api.CertificateClient:
	default:
		return false
	}
	c.kind, c.protocol, c.username = Client, protocolTLS, cert.Fingerprint
	if cert.Restricted {
		c.kind, c.projects = RestrictedClient, cert.Projects
	}
	return true
}

// onBehalf makes c the one for whom a member forwards the request, if it does. The
// member has judged that caller already; this one does it again.
func (s *Server) onBehalf(r *http.Request, c caller) (caller, error) {
	values := r.Header.Values(headerForwardedProtocol)
	if len(values) == 0 {
		return c, nil
	}
	c.forwarded = true
	c.protocol = values[0]
	c.username = r.Header.Get(headerForwardedUsername)
	c.address = r.Header.Get(headerForwardedAddress)
	switch c.protocol {
	case protocolUnix:
		c.kind = Client // an administrator, but of another machine
		return c, nil
	case protocolCluster:
		return c, nil
	case protocolAuthority:
		if view := s.cfg.Store.Local(); view != nil && trustsAuthority(view) {
			c.kind, c.protocol, c.vouched = Client, protocolTLS, true
			return c, nil
		}
	case protocolTLS:
		if cert, ok := s.forwardedClient(r.Context(), c.username); ok && c.forwardedAs(cert, s.cfg.Now()) {
			return c, nil
		}
	}
	c.kind = Stranger
	return c, api.Errorf(api.NotAuthorized, "not authorized")
}

// toldProtocol is how the caller is known, as other members and the entries are told.
func (c *caller) toldProtocol() string {
	if c.vouched {
		return protocolAuthority
	}
	return c.protocol
}

// forwardedClient finds the certificate of a client for whom a member asks.
func (s *Server) forwardedClient(ctx context.Context, fingerprint string) (*state.Certificate, bool) {
	if view := s.cfg.Store.Local(); view != nil {
		if cert, ok := view.Certificate(fingerprint); ok {
			return cert, true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	view, err := s.cfg.Store.Read(ctx)
	if err != nil {
		return nil, false
	}
	return view.Certificate(fingerprint)
}

// authorize refuses a caller that the route does not let in.
func (rt *Route) authorize(r *http.Request, c *caller) error {
	if rt.Who&c.kind == 0 && c.removed != nil {
		return c.removed
	}
	if rt.Who&c.kind == 0 {
		if c.kind == RestrictedClient {
			return api.Errorf(api.NotAuthorized, "Certificate is restricted")
		}
		return api.Errorf(api.NotAuthorized, "not authorized")
	}
	// Such a client would rather be refused than be shown the strangers' face.
	if c.kind == Stranger && r.Header.Get("X-Incus-authenticated") != "" {
		return api.Errorf(api.NotAuthorized, "not authorized")
	}
	return nil
}

// same compares in a time that does not tell where two texts differ.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
