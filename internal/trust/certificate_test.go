package trust

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"incusd/api"
)

func generate(t testing.TB, usage Usage, hosts ...string) *KeyPair {
	t.Helper()
	pair, err := Generate(usage, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestParseCertificateTakesBothFormsOfTheProtocol(t *testing.T) {
	cert := generate(t, Client).Cert
	der := base64.StdEncoding.EncodeToString(cert.Raw)
	wrapped := der[:40] + "\n  " + der[40:] + "\n"
	other := EncodePEM(generate(t, Server).Cert)
	for name, text := range map[string]string{
		"PEM":            EncodePEM(cert),
		"PEM in spaces":  "\n  " + strings.TrimSpace(EncodePEM(cert)) + " \n",
		"PEM with chain": EncodePEM(cert) + other,
		"base64":         der,
		"wrapped base64": wrapped,
	} {
		got, err := ParseCertificate(text)
		if err != nil || !Same(got, cert) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestParseCertificateNamesWhatIsWrong(t *testing.T) {
	pair := generate(t, Server)
	for _, test := range []struct{ name, text, want string }{
		{"empty", " \n", "it is empty"},
		{"words", "not a certificate!", "it is neither PEM nor base64 of DER"},
		{"base64 of words", base64.StdEncoding.EncodeToString([]byte("hello")), "x509: malformed certificate"},
		{"cut PEM", string(pair.CertPEM[:200]), "the PEM block is damaged or cut off"},
		{"a key", string(pair.KeyPEM), `a PEM block "EC PRIVATE KEY" was given, expected "CERTIFICATE"`},
		{"cut DER", base64.StdEncoding.EncodeToString(pair.Cert.Raw[:100]), "x509: malformed certificate"},
		{"too long", strings.Repeat("A", maxMaterial+1), "longer than 65536 bytes"},
	} {
		_, err := ParseCertificate(test.text)
		if want := "Invalid certificate material: " + test.want; !errors.Is(err, api.CertInvalid) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", test.name, err, want)
		}
	}
}

func FuzzParseCertificate(f *testing.F) {
	pair := generate(f, Server)
	f.Add(string(pair.CertPEM))
	f.Add(string(pair.KeyPEM))
	f.Add(base64.StdEncoding.EncodeToString(pair.Cert.Raw))
	f.Add("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----")
	f.Fuzz(func(t *testing.T, text string) {
		cert, err := ParseCertificate(text)
		if err != nil {
			if !errors.Is(err, api.CertInvalid) {
				t.Fatalf("error without its reason: %v", err)
			}
			return
		}
		again, err := ParseCertificate(EncodePEM(cert))
		if err != nil || !Same(cert, again) {
			t.Fatalf("PEM round trip: %v", err)
		}
		_ = CheckValid(cert, time.Unix(0, 0)) // never panics, whatever the key
	})
}

func TestFingerprintIsSHA256OfDER(t *testing.T) {
	cert := generate(t, Server).Cert
	sum := sha256.Sum256(cert.Raw)
	if got, want := Fingerprint(cert), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSameComparesBytesAndNilIsNothing(t *testing.T) {
	a, b := generate(t, Server).Cert, generate(t, Server).Cert
	if !Same(a, a) || Same(a, b) || Same(nil, nil) || Same(a, nil) || Same(nil, a) {
		t.Error("Same does not compare the certificates' bytes")
	}
}

func TestCheckValidJudgesDatesAndKey(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pair, err := GenerateAt(now, Client)
	if err != nil {
		t.Fatal(err)
	}
	weak := *pair.Cert
	weakKey := rsaKey(t, 1024)
	weak.PublicKey = &weakKey.PublicKey
	strong := *pair.Cert
	strongKey := rsaKey(t, 2048)
	strong.PublicKey = &strongKey.PublicKey

	for _, test := range []struct {
		name       string
		cert       *x509.Certificate
		now        time.Time
		want       string
		wantReason api.Reason
		wantHint   string
	}{
		{name: "the moment it begins", cert: pair.Cert, now: now},
		{name: "the moment it ends", cert: pair.Cert, now: pair.Cert.NotAfter},
		{name: "strong RSA", cert: &strong, now: now},
		{
			name: "this clock is slow", cert: pair.Cert, now: now.Add(-90*time.Second - time.Millisecond),
			want: "The provided certificate isn't valid yet", wantReason: api.ClockSkew, wantHint: "it becomes valid in 1m31s",
		},
		{
			name: "over", cert: pair.Cert, now: pair.Cert.NotAfter.Add(time.Second),
			want: "The provided certificate is expired", wantReason: api.CertInvalid, wantHint: "it was valid until 2035-12-31T03:04:05Z",
		},
		{
			name: "weak RSA", cert: &weak, now: now,
			want: "RSA key is too weak (minimum of 2048bit)", wantReason: api.CertInvalid, wantHint: "make a new key pair",
		},
	} {
		err := CheckValid(test.cert, test.now)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if !errors.Is(err, test.wantReason) || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s: %s", test.name, err, test.wantReason, test.want)
		} else if hint := api.AsError(err).NextStep(); !strings.HasPrefix(hint, test.wantHint) {
			t.Errorf("%s: hint %q, want %q…", test.name, hint, test.wantHint)
		}
	}
}

// rsaKey makes a key; a short one is allowed here since we must refuse it.
func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaPair is a user-supplied pair with a PKCS#1 key.
func rsaPair(t *testing.T) (certPEM, keyPEM []byte) {
	t.Helper()
	key := rsaKey(t, 2048)
	template, err := certificateTemplate(time.Now(), Server, []string{"user.example"})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}
