package trust

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// sign makes a bearer token as clients do.
func sign(t testing.TB, pair *KeyPair, method jwt.SigningMethod, claims jwt.Claims) string {
	t.Helper()
	text, err := jwt.NewWithClaims(method, claims).SignedString(pair.TLS.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBearerTokenIsItsCertificatesAndOfItsTime(t *testing.T) {
	pair, other := generate(t, Client), generate(t, Client)
	now := time.Now().Truncate(time.Second)
	claims := func(change func(*jwt.RegisteredClaims)) jwt.RegisteredClaims {
		c := jwt.RegisteredClaims{
			Subject: pair.Fingerprint(), IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute)),
		}
		change(&c)
		return c
	}
	same := func(*jwt.RegisteredClaims) {}
	good := sign(t, pair, jwt.SigningMethodES384, claims(same))
	if until, err := VerifyBearer(good, pair.Cert, now); err != nil || !until.Equal(now.Add(time.Minute)) {
		t.Fatalf("%v, %v", until, err)
	}
	if got := BearerSubject(good); got != pair.Fingerprint() {
		t.Errorf("subject %q", got)
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims(same)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever knows the certificate, which is public, could make this one.
	shared, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(same)).SignedString([]byte(pair.CertPEM))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text string
		at   time.Time
	}{
		"expired":              {good, now.Add(time.Minute)},
		"not valid yet":        {good, now.Add(-time.Minute)},
		"signed by another":    {sign(t, other, jwt.SigningMethodES384, claims(same)), now},
		"for another":          {sign(t, pair, jwt.SigningMethodES384, claims(func(c *jwt.RegisteredClaims) { c.Subject = other.Fingerprint() })), now},
		"of an issuer":         {sign(t, pair, jwt.SigningMethodES384, claims(func(c *jwt.RegisteredClaims) { c.Issuer = "x" })), now},
		"without an end":       {sign(t, pair, jwt.SigningMethodES384, claims(func(c *jwt.RegisteredClaims) { c.ExpiresAt = nil })), now},
		"not signed":           {unsigned, now},
		"signed by the public": {shared, now},
		"changed":              {good[:len(good)-4] + "AAAA", now},
		"too long":             {good + strings.Repeat("A", maxBearer), now},
		"nothing":              {"", now},
	} {
		if _, err := VerifyBearer(test.text, pair.Cert, test.at); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func FuzzBearer(f *testing.F) {
	pair := generate(f, Client)
	now := time.Now()
	f.Add(sign(f, pair, jwt.SigningMethodES384, jwt.RegisteredClaims{Subject: pair.Fingerprint(), ExpiresAt: jwt.NewNumericDate(now.Add(-time.Minute))}))
	f.Add("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		_ = BearerSubject(text) // never panics
		if _, err := VerifyBearer(text, pair.Cert, now); err == nil {
			t.Fatal("a token that the key has not signed is taken")
		}
	})
}
