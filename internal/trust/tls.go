package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"incusd/api"
	"incusd/endorsement"
)

// A Pin says whom a client talks to, and as whom.
type Pin struct {
	// Known are the fingerprints that the server may have: its certificate is one of them, or one
	// that the holder of such a one endorses; see package endorsement.
	Known []string
	// Own is what the client shows; nil for nothing.
	Own func() *tls.Certificate
	// Now judges endorsements, time.Now if nil.
	Now func() time.Time
	// ServerName is asked for, if set; it is not verified.
	ServerName string
}

// TLS is the configuration of a client that talks only to the server of the pin, whatever name
// or address it was dialled by and whatever the dates: who pins a certificate has judged it.
// Other servers are refused with api.FingerprintMatch.
func (p Pin) TLS() *tls.Config {
	if p.Now == nil {
		p.Now = time.Now
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: p.ServerName,
		// The usual verification asks for a name and an authority, of which there are none.
		// VerifyConnection is the one that also runs when a session is resumed.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return p.verify(state.PeerCertificates) },
	}
	if p.Own != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.Own(), nil }
	}
	return config
}

func (p Pin) verify(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	for _, known := range p.Known {
		if endorsement.Follow(chain, known, p.Now()) == nil {
			return nil
		}
	}
	return api.Errorf(api.FingerprintMatch, "The server shows the certificate %s, expected %s", Fingerprint(chain[0]), strings.Join(p.Known, " or ")).
		WithHint("if the certificate was not changed on purpose, somebody may sit in between")
}

// RemoteCertificate reads the certificate that the server at addr (host:port) shows, as
// RemoteChain does.
func RemoteCertificate(
	ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string,
) (*x509.Certificate, error) {
	chain, err := RemoteChain(ctx, dial, addr)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// RemoteChain reads the certificate that the server at addr (host:port) shows, with those that
// it sends along, and believes them: the caller compares the fingerprint, or follows it. It dials
// with dial, or directly when that is nil, and never through a proxy. It blocks until the handshake
// is done or ctx ends.
func RemoteChain(
	ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string,
) ([]*x509.Certificate, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", addr, err)
	}
	// Without TLS's farewell, which would wait for a peer that has stopped reading.
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", addr, err)
	}
	certs := conn.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return nil, fmt.Errorf("read the certificate of %s: it shows none", addr)
	}
	return certs, nil
}
