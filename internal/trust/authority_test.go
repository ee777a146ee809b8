package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A testCA signs what it is given.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	ca := &testCA{}
	ca.cert, ca.key = ca.sign(t, 1, func(template *x509.Certificate) {
		template.IsCA, template.ExtKeyUsage = true, nil
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	})
	return ca
}

// sign makes a client's certificate, but for what change changes; the first one signs itself.
func (ca *testCA) sign(t *testing.T, serial int64, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template, err := certificateTemplate(time.Now(), Client, nil)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(serial)
	change(template)
	parent, signer := template, key
	if ca.cert != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (ca *testCA) revoke(t *testing.T, serial int64) []byte {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now()}},
	}, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAuthorityJudgesCertificates(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "server.ca"), []byte(EncodePEM(ca.cert)))
	write(t, filepath.Join(dir, "ca.crl"), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: ca.revoke(t, 7)}))
	with, err := LoadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	without, err := LoadAuthority(t.TempDir())
	if err != nil || without != nil {
		t.Fatalf("%v, %v", without, err)
	}
	usage := func(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
	}
	clients := usage(x509.ExtKeyUsageClientAuth)
	for _, test := range []struct {
		name            string
		by              *testCA
		serial          int64
		change          func(*x509.Certificate)
		allows, vouches bool
	}{
		{"a client's", ca, 2, clients, true, true},
		{"a server's", ca, 3, usage(x509.ExtKeyUsageServerAuth), true, false},
		{"a client's and server's", ca, 4, usage(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth), true, false},
		{"for nothing in particular", ca, 5, usage(), true, false},
		{"revoked", ca, 7, clients, false, false},
		{"expired", ca, 8, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, false, false},
		{"another authority's", other, 2, clients, false, false},
		{"its own", &testCA{}, 2, clients, false, false},
	} {
		cert, _ := test.by.sign(t, test.serial, test.change)
		if got := with.Allows(cert, time.Now()); got != test.allows {
			t.Errorf("%s: allowed %v", test.name, got)
		}
		if got := with.Vouches(cert, time.Now()); got != test.vouches {
			t.Errorf("%s: vouched for %v", test.name, got)
		}
		if !without.Allows(cert, time.Now()) || without.Vouches(cert, time.Now()) {
			t.Errorf("%s: judged without an authority", test.name)
		}
	}
}

func TestDamagedAuthorityIsRefused(t *testing.T) {
	ca, other := newTestCA(t), newTestCA(t)
	leaf, _ := ca.sign(t, 2, func(*x509.Certificate) {})
	for name, test := range map[string]struct{ ca, crl, want string }{
		"no certificate":      {"x", "", "server.ca: Invalid certificate material"},
		"empty":               {"", "", "server.ca: Invalid certificate material"},
		"no authority":        {EncodePEM(leaf), "", "not the certificate of an authority"},
		"too long":            {strings.Repeat("x", maxMaterial+1), "", "the limit is 65536"},
		"no list":             {EncodePEM(ca.cert), "x", "ca.crl: "},
		"of another's":        {EncodePEM(ca.cert), string(other.revoke(t, 2)), "ca.crl is not signed by server.ca"},
		"another's as issuer": {EncodePEM(other.cert), string(ca.revoke(t, 2)), "ca.crl is not signed by server.ca"},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "server.ca"), []byte(test.ca))
		if test.crl != "" {
			write(t, filepath.Join(dir, "ca.crl"), []byte(test.crl))
		}
		if _, err := LoadAuthority(dir); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
