package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"incusd/api"
	"incusd/endorsement"
)

// connectLimit bounds the try of one address, handshake included, so that one that does not answer
// leaves time for the next.
const connectLimit = 5 * time.Second

// A Remote is a server, or the members of one cluster, that can be reached at any of some addresses.
type Remote struct {
	// Name is what errors call it.
	Name string
	// Addresses are host:port, and are tried in turn for each new connection; there is at least one.
	Addresses []string
	// Pinned is the certificate that the server shows, or that leads to the one that it shows. Nil
	// means that authorities vouch for the server.
	Pinned *x509.Certificate
	// Moved, unless nil, is called when the server shows another certificate, which the pinned one
	// endorses, so that it can be kept from then on.
	Moved func(next *x509.Certificate)
	// Successor is accepted, too: the certificate that the server will have in a moment. Mostly nil.
	Successor *x509.Certificate
	// Fingerprint, unless empty, is that of the only certificate that is accepted, or that leads to
	// one, as a token names it.
	Fingerprint string
	// Roots are those authorities. Nil means the ones of this machine.
	Roots *x509.CertPool
	// Own is what the client shows; nil for nothing.
	Own *tls.Certificate
	// Connected, unless nil, is called for each new connection, with the address and the certificate
	// that was shown there.
	Connected func(address string, cert *x509.Certificate)
}

// Client returns a client of r. It does not connect yet. A connection that is lost is replaced by
// one to the first address that answers then, the last good one first.
func (r Remote) Client(opts Options) *Client {
	base := url.URL{Scheme: "https", Host: r.Addresses[0]}
	c := newClient(base, r.String(), opts)
	d := &remoteDialer{Remote: r, dial: opts.dialer()}
	c.http.Transport = &http.Transport{
		DialTLSContext:      d.connect,
		IdleConnTimeout:     idleTimeout,
		MaxIdleConnsPerHost: maxIdle,
	}
	return c
}

func (r Remote) String() string {
	if len(r.Addresses) == 1 {
		return fmt.Sprintf("remote %s (%s)", r.Name, r.Addresses[0])
	}
	return "remote " + r.Name
}

// remoteDialer opens the connections to a remote.
type remoteDialer struct {
	Remote
	dial DialFunc
	good atomic.Int64 // index of the address that was connected to last
}

// connect tries the addresses in turn, and returns the first connection to the right server. The
// address that HTTP names is only the first of them.
func (d *remoteDialer) connect(ctx context.Context, network, _ string) (net.Conn, error) {
	failed := &unreachedError{remote: d.Remote.Name}
	first := int(d.good.Load())
	for i := range d.Addresses {
		at := (first + i) % len(d.Addresses)
		conn, err := d.try(ctx, network, d.Addresses[at])
		if err == nil {
			d.good.Store(int64(at))
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		failed.add(d.Addresses[at], err)
	}
	return nil, failed
}

// try connects to one address within its limit.
func (d *remoteDialer) try(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectLimit, &silentError{connectLimit})
	defer cancel()
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	session := tls.Client(conn, d.config(address))
	if err := session.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, causeOf(ctx, err)
	}
	chain := session.ConnectionState().PeerCertificates
	// Only now is it proved that the server has the key of what it shows: while the handshake goes on,
	// judge sees no more than a claim.
	if d.Moved != nil && d.followed(chain) {
		d.Moved(chain[0])
	}
	if d.Connected != nil {
		d.Connected(address, chain[0])
	}
	return session, nil
}

// causeOf replaces the error of a context that ended by the reason for which it ended.
func causeOf(ctx context.Context, err error) error {
	var silent *silentError
	if errors.As(context.Cause(ctx), &silent) {
		return silent
	}
	return err
}

// config is how one handshake is led. The judgement is ours (see judge).
func (d *remoteDialer) config(address string) *tls.Config {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         d.serverNames(host)[0],
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return d.judge(state.PeerCertificates, address, host) },
	}
	if d.Own != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return d.Own, nil }
	}
	return config
}

// serverNames are the names of which the server's certificate must have one: with a pin the first
// DNS name of that, since the server may be reached at any address; else the host that is dialled.
func (r Remote) serverNames(host string) []string {
	if r.Pinned != nil && len(r.Pinned.DNSNames) > 0 {
		return []string{r.Pinned.DNSNames[0], host}
	}
	return []string{host}
}

// judge accepts the pinned certificate itself, whatever its names and dates say, and what it
// endorses; otherwise what the pin or an authority has signed for one of the names.
func (r Remote) judge(chain []*x509.Certificate, address, host string) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	refused := &UntrustedError{Address: address, Cert: chain[0], Wanted: r.Fingerprint}
	switch {
	case r.Fingerprint != "" && !leads(r.Fingerprint, chain):
		return refused
	case r.Fingerprint != "", r.Successor != nil && leads(Fingerprint(r.Successor), chain):
		return nil
	case r.Pinned != nil && leads(Fingerprint(r.Pinned), chain):
		return nil
	case r.Pinned != nil:
		refused.Wanted = Fingerprint(r.Pinned)
	}
	opts := x509.VerifyOptions{Roots: r.roots(), Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	for _, opts.DNSName = range r.serverNames(host) {
		if _, refused.Err = chain[0].Verify(opts); refused.Err == nil {
			return nil
		}
	}
	return refused
}

// followed tells whether judge has accepted chain since the pinned certificate leads to it.
func (r Remote) followed(chain []*x509.Certificate) bool {
	if r.Fingerprint != "" || r.Successor != nil && leads(Fingerprint(r.Successor), chain) || r.Pinned == nil {
		return false
	}
	return !chain[0].Equal(r.Pinned) && leads(Fingerprint(r.Pinned), chain)
}

// leads tells whether the certificate with the known fingerprint is the one that is shown, or
// endorses it.
func leads(known string, chain []*x509.Certificate) bool {
	return endorsement.Follow(chain, known, time.Now()) == nil
}

// roots are the authorities that count. A pinned certificate is one, although it does not say so.
func (r Remote) roots() *x509.CertPool {
	if r.Pinned == nil {
		return r.Roots
	}
	pool := x509.NewCertPool()
	if r.Roots != nil {
		pool = r.Roots.Clone()
	}
	authority := *r.Pinned
	authority.IsCA, authority.KeyUsage = true, authority.KeyUsage|x509.KeyUsageCertSign
	pool.AddCert(&authority)
	return pool
}

// An UntrustedError says that a server shows a certificate that is not accepted.
type UntrustedError struct {
	Address string
	Cert    *x509.Certificate
	// Wanted is the fingerprint of the one that was expected; empty if any would do that an authority
	// vouches for.
	Wanted string
	// Err is why no authority does; nil where none was asked.
	Err error
}

func (e *UntrustedError) Error() string {
	if e.Wanted != "" {
		return fmt.Sprintf("shows certificate %s instead of %s", Fingerprint(e.Cert), e.Wanted)
	}
	return fmt.Sprintf("shows certificate %s, which nobody vouches for (%v)", Fingerprint(e.Cert), e.Err)
}

func (e *UntrustedError) Unwrap() error { return e.Err }

// Untrusted finds in the error of a request to a Remote what was shown at each address and was not
// accepted.
func Untrusted(err error) []*UntrustedError {
	var unreached *unreachedError
	var found []*UntrustedError
	if errors.As(err, &unreached) {
		for _, e := range unreached.errs {
			var untrusted *UntrustedError
			if errors.As(e, &untrusted) {
				found = append(found, untrusted)
			}
		}
	}
	return found
}

// unreachedError says why no address of a remote could be connected to.
type unreachedError struct {
	remote   string
	problems []string
	errs     []error
}

func (e *unreachedError) add(address string, err error) {
	e.problems = append(e.problems, fmt.Sprintf("%s: %v", address, plain(err)))
	e.errs = append(e.errs, err)
}

func (e *unreachedError) Error() string { return strings.Join(e.problems, "; ") }

func (e *unreachedError) Unwrap() []error { return e.errs }

// refusal words it for people.
func (e *unreachedError) refusal() error {
	refusal := api.Errorf(api.Unavailable, "Unable to connect to remote %q: %v", e.remote, e).
		WithHint("check that the server runs and that this machine reaches it; give it another address: incus remote set-urls %s ADDRESS...", e.remote)
	if len(Untrusted(e)) > 0 {
		refusal.Reason = api.FingerprintMatch
		refusal = refusal.WithHint("compare the fingerprint with that of \"incus info\" on the server; if it has a new certificate, add the remote anew "+
			"(incus remote remove %s); if not, somebody sits in between", e.remote)
	}
	return &remoteError{refusal, e}
}

// remoteError is a refusal that lets the caller see what was wrong at each address.
type remoteError struct {
	refusal   *api.Error
	unreached *unreachedError
}

func (e *remoteError) Error() string   { return e.refusal.Error() }
func (e *remoteError) Unwrap() []error { return []error{e.refusal, e.unreached} }
