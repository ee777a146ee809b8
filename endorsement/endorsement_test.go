package endorsement

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"
)

var today = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// self makes a self-signed certificate, as a cluster has one. All may have the same subject.
func self(t testing.TB, key crypto.Signer) pair {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "root@node1"}, DNSNames: []string{"node1"},
		NotBefore: today.AddDate(-9, 0, 0), NotAfter: today.AddDate(1, 0, 0), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return pair{cert, key}
}

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func fresh(t testing.TB) pair { return self(t, ecKey(t)) }

func endorse(t testing.TB, old, next pair) *x509.Certificate {
	t.Helper()
	e, err := Sign(old.cert, old.key, next.cert, today, today.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func chain(certs ...*x509.Certificate) []*x509.Certificate { return certs }

func TestFollowLeadsFromAnyEarlierCertificateToThePresentOne(t *testing.T) {
	a, b, c := fresh(t), fresh(t), fresh(t)
	ab, bc := endorse(t, a, b), endorse(t, b, c)
	renewed := self(t, c.key)
	stranger := fresh(t)
	for _, test := range []struct {
		name  string
		chain []*x509.Certificate
		known pair
		now   time.Time
		want  error
	}{
		{"itself", chain(c.cert), c, today, nil},
		{"one step", chain(b.cert, ab, a.cert), a, today, nil},
		{"two steps", chain(c.cert, bc, b.cert, ab, a.cert), a, today, nil},
		{"the last of two steps", chain(c.cert, bc, b.cert, ab, a.cert), b, today, nil},
		{"in another order", chain(c.cert, a.cert, ab, bc), a, today, nil},
		{"the same key in a new certificate", chain(renewed.cert, c.cert), c, today, nil},
		{"a new certificate of a key that is endorsed", chain(renewed.cert, bc, b.cert), b, today, nil},
		{"a stranger's", chain(c.cert, bc, b.cert), stranger, today, ErrNone},
		{"a stranger who shows what it has seen", chain(stranger.cert, bc, b.cert, ab, a.cert), a, today, ErrNone},
		{"a link is missing", chain(c.cert, bc, b.cert, a.cert), a, today, ErrNone},
		{"the known certificate is not shown", chain(c.cert, bc), b, today, ErrNone},
		{"backwards", chain(a.cert, ab, b.cert), b, today, ErrNone},
		{"the endorsement is over", chain(b.cert, ab, a.cert), a, today.AddDate(1, 0, 1), ErrNone},
		{"the endorsement is to come", chain(b.cert, ab, a.cert), a, today.AddDate(0, 0, -2), ErrNone},
		{"a clock that is an hour slow", chain(b.cert, ab, a.cert), a, today.Add(-time.Hour), nil},
		{"nothing", nil, a, today, ErrNone},
	} {
		if err := Follow(test.chain, fingerprint(test.known.cert), test.now); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	if err := Follow(chain(a.cert), "", today); err == nil {
		t.Error("no fingerprint is known, and all the same a certificate is taken")
	}
}

func TestFollowTakesOnlyWhatIsMeantAsAnEndorsement(t *testing.T) {
	ca, next := fresh(t), fresh(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), RawSubject: next.cert.RawSubject, NotBefore: today.AddDate(-1, 0, 0), NotAfter: today.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, next.cert.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := Follow(chain(next.cert, issued, ca.cert), fingerprint(ca.cert), today); !errors.Is(err, ErrNone) {
		t.Errorf("a certificate that the key has issued for somebody was taken as its successor: %v", err)
	}
	// Made by somebody else under the known one's name.
	impostor := fresh(t)
	forged := endorse(t, impostor, next)
	if err := Follow(chain(next.cert, forged, ca.cert), fingerprint(ca.cert), today); !errors.Is(err, ErrNone) {
		t.Errorf("a forged endorsement was followed: %v", err)
	}
}

func TestEveryKindOfKeyEndorsesAndIsEndorsed(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pairs := []pair{fresh(t), self(t, rsaKey), self(t, edKey)}
	for i, old := range pairs {
		for j, next := range pairs {
			if err := Follow(chain(next.cert, endorse(t, old, next), old.cert), fingerprint(old.cert), today); err != nil {
				t.Errorf("from %d to %d: %v", i, j, err)
			}
		}
	}
}

// A client that keeps the old certificate as its one root, as those of others do, verifies the new
// one by the rules of X.509 alone.
func TestClientsThatVerifyChainsFollowToo(t *testing.T) {
	a, b, c := fresh(t), fresh(t), fresh(t)
	links := chain(endorse(t, b, c), b.cert, endorse(t, a, b), a.cert)
	for name, known := range map[string]pair{"the first": a, "the second": b} {
		pinned, err := x509.ParseCertificate(known.cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		pinned.IsCA, pinned.KeyUsage = true, x509.KeyUsageCertSign
		opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: pinned.DNSNames[0], CurrentTime: today}
		opts.Roots.AddCert(pinned)
		for _, link := range links {
			opts.Intermediates.AddCert(link)
		}
		if _, err := c.cert.Verify(opts); err != nil {
			t.Errorf("who pinned %s: %v", name, err)
		}
		if _, err := fresh(t).cert.Verify(opts); err == nil {
			t.Errorf("who pinned %s takes a stranger's certificate", name)
		}
	}
}

func FuzzFollow(f *testing.F) {
	a, b := fresh(f), fresh(f)
	f.Add(b.cert.Raw, endorse(f, a, b).Raw, a.cert.Raw)
	f.Add(b.cert.Raw, a.cert.Raw, a.cert.Raw)
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		var certs []*x509.Certificate
		for _, der := range [][]byte{first, second, third} {
			if c, err := x509.ParseCertificate(der); err == nil {
				certs = append(certs, c)
			}
		}
		for _, c := range certs {
			_ = Follow(certs, fingerprint(c), today) // never panics, and ends
		}
	})
}
