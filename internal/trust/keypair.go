package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"
	"unicode"

	"incusd/endorsement"
)

// Usage is what a certificate is for: a server's or a client's, never both.
type Usage int

// Usages of a certificate.
const (
	Server Usage = iota
	Client
)

const (
	// validity is what every Incus gives its certificates.
	validity = 10 * 365 * 24 * time.Hour
	// unspecified is the DNS name of a server certificate made without names: clients
	// that pin a certificate use its first DNS name, so there must be one.
	unspecified = "unspecified"

	organization = "Linux Containers"
	unknown      = "UNKNOWN"
)

// A KeyPair is a certificate with its private key. It prints as its fingerprint
// alone, in logs, in JSON and with every verb of fmt.
type KeyPair struct {
	Cert *x509.Certificate
	// TLS is the pair as crypto/tls wants it, chain included.
	TLS tls.Certificate
	// CertPEM and KeyPEM are the files' contents. The key is SEC1 for ECDSA and PKCS#1
	// for RSA, unless the user supplied another form.
	CertPEM, KeyPEM []byte
}

// Fingerprint is that of the pair's certificate.
func (k *KeyPair) Fingerprint() string { return Fingerprint(k.Cert) }

// redacted is all that is ever printed of a pair.
func (k KeyPair) redacted() string {
	if k.Cert == nil {
		return "key pair [redacted]"
	}
	return "key pair " + Fingerprint(k.Cert) + " [redacted]"
}

// Format keeps the key out of whatever verb somebody prints the pair with.
func (k KeyPair) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.redacted()) }

// LogValue keeps the key out of the logs.
func (k KeyPair) LogValue() slog.Value { return slog.StringValue(k.redacted()) }

// MarshalJSON keeps the key out of JSON, also inside other values.
func (k KeyPair) MarshalJSON() ([]byte, error) { return json.Marshal(k.redacted()) }

// Generate makes a new self-signed pair, valid from now. Hosts are the DNS names and
// IP addresses that the certificate names; see LocalHosts.
func Generate(usage Usage, hosts ...string) (*KeyPair, error) {
	return GenerateAt(time.Now(), usage, hosts...)
}

// GenerateAt is Generate with a given clock.
func GenerateAt(now time.Time, usage Usage, hosts ...string) (*KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	template, err := certificateTemplate(now, usage, hosts)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return NewKeyPair(
		pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	)
}

func certificateTemplate(now time.Time, usage Usage, hosts []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: userName() + "@" + hostName()},
		NotBefore:             now.UTC(),
		NotAfter:              now.UTC().Add(validity),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	switch usage {
	case Client:
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	default:
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if len(template.DNSNames) == 0 {
			template.DNSNames = []string{unspecified}
		}
	}
	return template, nil
}

// LocalHosts are the names that a server's or a cluster's certificate carries: this
// machine's host name, if it has one that a certificate can carry, and the loopback
// addresses.
func LocalHosts() []string {
	hosts := []string{"127.0.0.1", "::1"}
	name := hostName()
	isASCII := strings.IndexFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) < 0
	if name == unknown || !isASCII {
		return hosts
	}
	return append([]string{name}, hosts...)
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return unknown
	}
	return name
}

func userName() string {
	u, err := user.Current()
	if err != nil || u.Username == "" {
		return unknown
	}
	return u.Username
}

// NewKeyPair reads a pair from the PEM of its certificate, of which the first counts
// and the others are its chain, and of its key: ECDSA, RSA or Ed25519. It fails when
// the two do not belong together.
func NewKeyPair(certPEM, keyPEM []byte) (*KeyPair, error) {
	if len(certPEM) > maxMaterial || len(keyPEM) > maxMaterial {
		return nil, fmt.Errorf("certificate or key is longer than %d bytes", maxMaterial)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		return nil, errors.New("no certificate found")
	}
	return &KeyPair{Cert: pair.Leaf, TLS: pair, CertPEM: certPEM, KeyPEM: keyPEM}, nil
}

// Endorse signs, with the pair's key, that next takes its place; see package endorsement. It
// returns the endorsement's PEM.
func (k *KeyPair) Endorse(next *x509.Certificate, now, until time.Time) (string, error) {
	e, err := endorsement.Sign(k.Cert, k.TLS.PrivateKey, next, now, until)
	if err != nil {
		return "", err
	}
	return EncodePEM(e), nil
}

// Chained is the pair that also shows the certificates of links, each of which is PEM and may be
// followed by others, which are left out. Its files stay those of the pair.
func (k *KeyPair) Chained(links ...string) (*KeyPair, error) {
	out := *k
	out.TLS.Certificate = slices.Clone(k.TLS.Certificate)
	for _, link := range links {
		cert, err := ParseCertificate(link)
		if err != nil {
			return nil, err
		}
		out.TLS.Certificate = append(out.TLS.Certificate, cert.Raw)
	}
	return &out, nil
}

// Generated tells whether the certificate looks like one that Generate made: self-signed, for
// the organization that nobody else gives. One that an administrator had issued is not.
func (k *KeyPair) Generated() bool {
	c := k.Cert
	return slices.Equal(c.Subject.Organization, []string{organization}) && bytes.Equal(c.RawIssuer, c.RawSubject) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
