package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"incusd/api"
)

// PinnedTLS is the configuration of a client that talks only to a server showing
// exactly cert, whatever name or address it was dialled by and whatever the dates:
// who pins a certificate has judged it. A server with another one is refused with
// api.FingerprintMatch, and with a nil cert every server is. The client shows own, if
// not nil.
func PinnedTLS(cert *x509.Certificate, own *tls.Certificate) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The usual verification asks for a name and an authority, of which there are none.
		// VerifyConnection is the one that also runs when a session is resumed.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return verifyPinned(cert, state) },
	}
	if own != nil {
		config.Certificates = []tls.Certificate{*own}
	}
	return config
}

func verifyPinned(cert *x509.Certificate, state tls.ConnectionState) error {
	switch {
	case cert == nil:
		return errors.New("no certificate is pinned for the server")
	case len(state.PeerCertificates) == 0:
		return errors.New("the server shows no certificate")
	case !Same(cert, state.PeerCertificates[0]):
		return api.Errorf(api.FingerprintMatch, "The server shows the certificate %s, expected %s",
			Fingerprint(state.PeerCertificates[0]), Fingerprint(cert)).
			WithHint("if the certificate was not changed on purpose, somebody may sit in between")
	}
	return nil
}

// RemoteCertificate reads the certificate that the server at addr (host:port) shows,
// and believes it: the caller compares the fingerprint. It dials with dial, or directly
// when that is nil, and never through a proxy. It blocks until the handshake is done
// or ctx ends.
func RemoteCertificate(
	ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string,
) (*x509.Certificate, error) {
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
	return certs[0], nil
}
