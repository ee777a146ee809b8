package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
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

func TestPinnedTLSTalksOnlyToTheOneCertificate(t *testing.T) {
	server, other, own := generate(t, Server), generate(t, Server), generate(t, Client)
	addr := serve(t, server)

	text, _, err := greeting(PinnedTLS(server.Cert, nil), addr)
	if err != nil || text != "none" {
		t.Errorf("without a certificate of one's own: %q, %v", text, err)
	}
	text, _, err = greeting(PinnedTLS(server.Cert, &own.TLS), addr)
	if err != nil || text != own.Fingerprint() {
		t.Errorf("with a certificate of one's own: %q, %v", text, err)
	}
	if _, _, err = greeting(PinnedTLS(other.Cert, &own.TLS), addr); !errors.Is(err, api.FingerprintMatch) {
		t.Errorf("another certificate: %v", err)
	}
	if _, _, err = greeting(PinnedTLS(nil, nil), addr); err == nil {
		t.Error("a nil pin lets everyone in")
	}
}

func TestPinnedTLSAlsoChecksResumedSessions(t *testing.T) {
	server, other := generate(t, Server), generate(t, Server)
	addr := serve(t, server)
	config := PinnedTLS(server.Cert, nil)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i, wantResumed := range []bool{false, true} {
		if _, resumed, err := greeting(config, addr); err != nil || resumed != wantResumed {
			t.Fatalf("connection %d: resumed %t, %v", i, resumed, err)
		}
	}
	strict := PinnedTLS(other.Cert, nil)
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
