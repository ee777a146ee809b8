package trust

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxBearer bounds the text of a bearer token, in bytes. Those of clients have some hundred.
const maxBearer = 4 << 10

// bearerMethods are the ways in which clients sign: by the keys that certificates have.
var bearerMethods = []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512"}

// BearerSubject is the fingerprint that a bearer token (a JWT, trust.md §2) names, without any
// proof of it; empty if the text is no such token.
func BearerSubject(text string) string {
	if len(text) > maxBearer {
		return ""
	}
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(text, &claims); err != nil || claims.Issuer != "" {
		return ""
	}
	return claims.Subject
}

// VerifyBearer checks that the key of cert has signed a bearer token, that the token is
// valid now, and that it names cert. It returns when the token ends, which every token has to.
func VerifyBearer(text string, cert *x509.Certificate, now time.Time) (until time.Time, err error) {
	if len(text) > maxBearer {
		return time.Time{}, errors.New("the bearer token is too long")
	}
	var claims jwt.RegisteredClaims
	parser := jwt.NewParser(jwt.WithValidMethods(bearerMethods), jwt.WithExpirationRequired(),
		jwt.WithSubject(Fingerprint(cert)), jwt.WithTimeFunc(func() time.Time { return now }))
	if _, err := parser.ParseWithClaims(text, &claims, func(*jwt.Token) (any, error) { return cert.PublicKey, nil }); err != nil {
		return time.Time{}, err
	}
	if claims.Issuer != "" {
		return time.Time{}, errors.New("the bearer token names an issuer")
	}
	return claims.ExpiresAt.Time, nil
}
