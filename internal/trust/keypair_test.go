package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The properties are those of upstream's certificates: its clients rely on several.
func TestGeneratedCertificatesHaveThePropertiesOfTheProtocol(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("east", 3600))
	for _, test := range []struct {
		name    string
		usage   Usage
		hosts   []string
		wantDNS []string
		wantIPs []string
		wantExt x509.ExtKeyUsage
	}{
		{"server", Server, []string{"node1", "127.0.0.1", "::1"}, []string{"node1"}, []string{"127.0.0.1", "::1"}, x509.ExtKeyUsageServerAuth},
		{"server without names", Server, nil, []string{"unspecified"}, nil, x509.ExtKeyUsageServerAuth},
		{"server with addresses only", Server, []string{"10.0.0.1"}, []string{"unspecified"}, []string{"10.0.0.1"}, x509.ExtKeyUsageServerAuth},
		{"client", Client, nil, nil, nil, x509.ExtKeyUsageClientAuth},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair, err := GenerateAt(now, test.usage, test.hosts...)
			if err != nil {
				t.Fatal(err)
			}
			cert := pair.Cert
			key, ok := cert.PublicKey.(*ecdsa.PublicKey)
			if !ok || key.Curve != elliptic.P384() {
				t.Errorf("key is %T, want P-384", cert.PublicKey)
			}
			if block, _ := pem.Decode(pair.KeyPEM); block == nil || block.Type != "EC PRIVATE KEY" {
				t.Error("key is no PEM block EC PRIVATE KEY")
			} else if _, err := x509.ParseECPrivateKey(block.Bytes); err != nil {
				t.Errorf("key is not SEC1: %v", err)
			}
			if cert.SerialNumber.Sign() < 0 || cert.SerialNumber.BitLen() > 128 || cert.SerialNumber.BitLen() < 64 {
				t.Errorf("serial number %x is not 128 random bits", cert.SerialNumber)
			}
			host, _ := os.Hostname()
			if got := cert.Subject; !slices.Equal(got.Organization, []string{"Linux Containers"}) || !strings.HasSuffix(got.CommonName, "@"+host) {
				t.Errorf("subject %s", got)
			}
			if got := cert.NotAfter.Sub(cert.NotBefore); got != 10*365*24*time.Hour || !cert.NotBefore.Equal(now.Truncate(time.Second)) {
				t.Errorf("valid from %s for %s", cert.NotBefore, got)
			}
			if cert.KeyUsage != x509.KeyUsageKeyEncipherment|x509.KeyUsageDigitalSignature || !cert.BasicConstraintsValid || cert.IsCA {
				t.Errorf("key usage %b, constraints %t, CA %t", cert.KeyUsage, cert.BasicConstraintsValid, cert.IsCA)
			}
			if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{test.wantExt}) {
				t.Errorf("extended key usage %v", cert.ExtKeyUsage)
			}
			if !slices.Equal(cert.DNSNames, test.wantDNS) || !slices.EqualFunc(cert.IPAddresses, test.wantIPs, func(ip net.IP, s string) bool { return ip.String() == s }) {
				t.Errorf("names %v %v", cert.DNSNames, cert.IPAddresses)
			}
			// Not CheckSignatureFrom: the certificate is not a CA, by intention.
			if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
				t.Errorf("self-signature: %v", err)
			}
		})
	}
}

func TestLocalHostsAreTheMachineAndLoopback(t *testing.T) {
	hosts := LocalHosts()
	if !slices.Equal(hosts[len(hosts)-2:], []string{"127.0.0.1", "::1"}) || slices.Contains(hosts, unknown) {
		t.Errorf("got %v", hosts)
	}
}

func TestKeyPairNeverPrintsItsKey(t *testing.T) {
	pair := generate(t, Server)
	var out bytes.Buffer
	holder := struct {
		Pair  *KeyPair
		Value KeyPair
	}{pair, *pair}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", pair)
		fmt.Fprintf(&out, verb+"\n", *pair)
		fmt.Fprintf(&out, verb+"\n", holder)
	}
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		log.Info("pair", "pointer", pair, "value", *pair, "inside", holder)
	}
	if err := json.NewEncoder(&out).Encode(holder); err != nil {
		t.Fatal(err)
	}

	block, _ := pem.Decode(pair.KeyPEM)
	secret := pair.TLS.PrivateKey.(*ecdsa.PrivateKey)
	for _, leak := range []string{
		"PRIVATE KEY",
		strings.TrimSpace(strings.Split(string(pair.KeyPEM), "\n")[1]),
		fmt.Sprintf("%x", block.Bytes[:16]),
		fmt.Sprint(secret)[:40],
		fmt.Sprint(pair.KeyPEM[:8])[1:20],
	} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q was printed", leak)
		}
	}
	if !strings.Contains(out.String(), pair.Fingerprint()) {
		t.Error("the fingerprint was not printed")
	}
	if got := fmt.Sprint(KeyPair{}); got != "key pair [redacted]" {
		t.Errorf("empty pair prints as %q", got)
	}
}
