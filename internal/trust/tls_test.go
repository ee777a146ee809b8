package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

// serve answers TLS connections with pair and greets each one with the fingerprint of
// the client's certificate, or "none".
func serve(t *testing.T, pair *KeyPair) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair.TLS},
		ClientAuth:   tls.RequestClientCert,
		MinVersion:   tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			greet(conn.(*tls.Conn))
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().String()
}

func greet(conn *tls.Conn) {
	defer conn.Close()
	if conn.Handshake() != nil {
		return
	}
	client := "none"
	if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
		client = Fingerprint(certs[0])
	}
	_, _ = io.WriteString(conn, client)
}

func greeting(config *tls.Config, addr string) (text string, resumed bool, err error) {
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return "", false, err
	}
	defer conn.Close()
	data, err := io.ReadAll(conn)
	return string(data), conn.ConnectionState().DidResume, err
}

func pinned(pair *KeyPair) Pin { return Pin{Known: []string{pair.Fingerprint()}} }

func (p Pin) showing(own *KeyPair) Pin {
	p.Own = func() *tls.Certificate { return &own.TLS }
	return p
}

func TestPinFollowsEndorsements(t *testing.T) {
	old, next, stranger := generate(t, Server), generate(t, Server), generate(t, Server)
	link, err := old.Endorse(next.Cert, time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	chained, err := next.Chained(link, string(old.CertPEM))
	if err != nil {
		t.Fatal(err)
	}
	if !Same(chained.Cert, next.Cert) || len(chained.TLS.Certificate) != 3 || len(next.TLS.Certificate) != 1 {
		t.Errorf("%d certificates, and %d in the original", len(chained.TLS.Certificate), len(next.TLS.Certificate))
	}
	addr := serve(t, chained)
	for name, pin := range map[string]Pin{
		"the old": pinned(old), "the new": pinned(next), "one of two": {Known: []string{stranger.Fingerprint(), old.Fingerprint()}},
	} {
		if _, _, err := greeting(pin.TLS(), addr); err != nil {
			t.Errorf("who knows %s: %v", name, err)
		}
	}
	late := pinned(old)
	late.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	for name, pin := range map[string]Pin{"a stranger": pinned(stranger), "the old, too late": late} {
		_, _, err := greeting(pin.TLS(), addr)
		if !errors.Is(err, api.FingerprintMatch) || !strings.Contains(err.Error(), next.Fingerprint()) {
			t.Errorf("who knows %s: %v", name, err)
		}
	}
	if _, err := next.Chained("no PEM"); err == nil {
		t.Error("what is no certificate was taken into the chain")
	}
}

func TestPinTalksOnlyToTheOneCertificate(t *testing.T) {
	server, other, own := generate(t, Server), generate(t, Server), generate(t, Client)
	addr := serve(t, server)

	text, _, err := greeting(pinned(server).TLS(), addr)
	if err != nil || text != "none" {
		t.Errorf("without a certificate of one's own: %q, %v", text, err)
	}
	text, _, err = greeting(pinned(server).showing(own).TLS(), addr)
	if err != nil || text != own.Fingerprint() {
		t.Errorf("with a certificate of one's own: %q, %v", text, err)
	}
	if _, _, err = greeting(pinned(other).showing(own).TLS(), addr); !errors.Is(err, api.FingerprintMatch) {
		t.Errorf("another certificate: %v", err)
	}
	if _, _, err = greeting(Pin{}.TLS(), addr); err == nil {
		t.Error("an empty pin lets everyone in")
	}
}

func TestPinAlsoChecksResumedSessions(t *testing.T) {
	server, other := generate(t, Server), generate(t, Server)
	addr := serve(t, server)
	config := pinned(server).TLS()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i, wantResumed := range []bool{false, true} {
		if _, resumed, err := greeting(config, addr); err != nil || resumed != wantResumed {
			t.Fatalf("connection %d: resumed %t, %v", i, resumed, err)
		}
	}
	strict := pinned(other).TLS()
	strict.ClientSessionCache = config.ClientSessionCache
	if _, _, err := greeting(strict, addr); !errors.Is(err, api.FingerprintMatch) {
		t.Errorf("a resumed session escapes the check: %v", err)
	}
}

func TestRemoteCertificateReadsWhatTheServerShows(t *testing.T) {
	server := generate(t, Server)
	addr := serve(t, server)
	var dialled string
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled = addr
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){"given": dial, "own": nil} {
		cert, err := RemoteCertificate(t.Context(), dial, addr)
		if err != nil || !Same(cert, server.Cert) {
			t.Errorf("%s dialer: %v", name, err)
		}
	}
	if dialled != addr {
		t.Errorf("dialled %q, want %q", dialled, addr)
	}
}

func TestRemoteCertificateEndsWithItsContext(t *testing.T) {
	// A peer that accepts and then says nothing.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = RemoteCertificate(ctx, nil, listener.Addr().String())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	listener.Close()
	if _, err = RemoteCertificate(t.Context(), nil, listener.Addr().String()); err == nil {
		t.Error("nobody listens, and yet there was a certificate")
	}
}
