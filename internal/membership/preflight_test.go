package membership

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"incusd/internal/trust"
)

func TestProbeFailureTellsNothingOfTheNetwork(t *testing.T) {
	dial := func(err error) error {
		op := &net.OpError{Op: "dial", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 9, 9, 9)}, Err: err}
		return fmt.Errorf("read the certificate of 10.1.0.2:8443: %w", op)
	}
	for want, err := range map[string]error{
		"connection refused":                    dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)),
		"timed out":                             dial(os.ErrDeadlineExceeded),
		"no connection":                         dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)),
		"what answers there does not speak TLS": tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"},
	} {
		if got := probeFailure(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	if got := probeFailure(errors.New("10.9.9.9 says no")); got != "no connection" {
		t.Errorf("got %q", got)
	}
}

func TestProbeFailureOfRealAddresses(t *testing.T) {
	probe := func(address string) string {
		_, err := trust.RemoteCertificate(context.Background(), nil, address)
		if err == nil {
			t.Fatalf("%s shows a certificate", address)
		}
		return probeFailure(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(conn, "220 mail.example.org ESMTP\r\n")
		_, _ = conn.Read(make([]byte, 4096)) // the greeting of TLS
		conn.Close()
	}()
	if got := probe(ln.Addr().String()); got != "what answers there does not speak TLS" {
		t.Errorf("no TLS: %q", got)
	}
	<-greeted
	ln.Close()
	if got := probe(ln.Addr().String()); got != "connection refused" {
		t.Errorf("nobody: %q", got)
	}
}
