package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"

	"incusd/api"
	"incusd/endorsement"
)

const (
	// defaultTimeout is long enough for a member that forwards to another one and
	// waits there for a new leader, and short enough for a person.
	defaultTimeout = 60 * time.Second
	// idleTimeout is below the server's own (30 s), so that a request is rarely sent
	// into a connection that the server is just closing.
	idleTimeout = 20 * time.Second
	dialTimeout = 10 * time.Second
	// maxIdle connections are kept for the next request; a new mutual TLS connection
	// costs more than most requests do.
	maxIdle = 16
	// unixHost is the host name in requests over a unix socket.
	unixHost = "unix.socket"
)

// A DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Options change how a Client works. The zero value is ready for use.
type Options struct {
	// Dial opens every connection of the client. Nil means a net.Dialer.
	Dial DialFunc
	// UserAgent is sent with every request. Empty means that of the command line.
	UserAgent string
	// Header is added to every request, for example X-Incus-forwarded-address.
	Header http.Header
	// Timeout bounds one request from dialling to the last byte of the answer. 0
	// means 60 s. More bears slower members; less gives up earlier on dead ones.
	// Waiting for operations is bounded by the caller's context instead.
	Timeout time.Duration
	// OnStale is called for every answer that the server marked as stale.
	OnStale func(Stale)
	// Logger gets one debug line per request. Nil means none.
	Logger *slog.Logger
}

// A Client talks to one server.
type Client struct {
	http    *http.Client
	base    url.URL // scheme and host
	peer    string  // what errors call the server: socket path or address
	opts    Options
	project string
	target  string
}

// Unix returns a client of the daemon that listens on the unix socket at path. It
// does not connect yet.
func Unix(path string, opts Options) *Client {
	dial := opts.dialer()
	c := newClient(url.URL{Scheme: "http", Host: unixHost}, path, opts)
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, "unix", path)
		},
		IdleConnTimeout:     idleTimeout,
		MaxIdleConnsPerHost: maxIdle,
	}
	return c
}

// HTTPS returns a client of the server at address (port 8443 if it names none),
// which has to satisfy config; see Pin. It does not connect yet.
func HTTPS(address string, config *tls.Config, opts Options) *Client {
	address = CanonicalAddress(address)
	c := newClient(url.URL{Scheme: "https", Host: address}, address, opts)
	c.http.Transport = &http.Transport{
		DialContext:         opts.dialer(),
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		IdleConnTimeout:     idleTimeout,
		MaxIdleConnsPerHost: maxIdle,
	}
	return c
}

func newClient(base url.URL, peer string, opts Options) *Client {
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.UserAgent == "" {
		opts.UserAgent = UserAgent()
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	// A redirect would lead away from the server that the caller chose and pinned.
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{http: &http.Client{CheckRedirect: noRedirect}, base: base, peer: peer, opts: opts}
}

func (o Options) dialer() DialFunc {
	if o.Dial != nil {
		return o.Dial
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext
}

// UserAgent is what the client calls itself unless Options say otherwise.
func UserAgent() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return "Incus " + api.Version + " (Linux; " + arch + ")"
}

// Pin returns a client configuration that talks to no other server than the one
// with certificate cert, byte for byte, whatever its names and dates say, or one that
// the holder of cert endorses as its successor; who wants to keep that is a Remote. The client shows own, if that is not nil.
func Pin(cert *x509.Certificate, own *tls.Certificate) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The pin replaces the usual verification. VerifyConnection, unlike
		// VerifyPeerCertificate, also runs when a session is resumed.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			chain := state.PeerCertificates
			if endorsement.Follow(chain, Fingerprint(cert), time.Now()) != nil {
				return wrongCertificate(chain, cert)
			}
			return nil
		},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
	if own != nil {
		// Not Certificates: those are held back when the server names other issuers.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return own, nil
		}
	}
	return config
}

// wrongCertificate names what is shown, for who replaced it on purpose and can compare.
func wrongCertificate(chain []*x509.Certificate, want *x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	return api.Errorf(api.FingerprintMatch, "the server shows another certificate than the expected one: %s instead of %s", Fingerprint(chain[0]), Fingerprint(want)).
		WithHint("if the certificate was replaced with a new key, compare the fingerprint with that of incus info on a member, and accept it anew; else somebody sits in between")
}

// WithProject returns a client that works in project; empty means the default one.
func (c *Client) WithProject(project string) *Client {
	d := *c
	d.project = project
	return &d
}

// InProject is the project that the client works in.
func (c *Client) InProject() string { return cmp.Or(c.project, api.DefaultProject) }

// WithTarget returns a client whose calls are carried out by the member target;
// empty means by the one that is asked.
func (c *Client) WithTarget(target string) *Client {
	d := *c
	d.target = target
	return &d
}

// Close gives up the client's idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// path builds the path of a resource from its unescaped parts and query values,
// with the client's project and target.
func (c *Client) path(query url.Values, parts ...string) string {
	var path strings.Builder
	path.WriteString("/" + api.APIVersion)
	for _, part := range parts {
		path.WriteString("/" + url.PathEscape(part))
	}
	values := url.Values{}
	maps.Copy(values, query)
	// A list of all projects is in none: a server refuses both at once.
	if c.InProject() != api.DefaultProject && !values.Has("project") && !values.Has("all-projects") {
		values.Set("project", c.project)
	}
	if c.target != "" {
		values.Set("target", c.target)
	}
	if len(values) > 0 {
		path.WriteString("?" + values.Encode())
	}
	return path.String()
}
