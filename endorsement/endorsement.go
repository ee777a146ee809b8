// Package endorsement leads from a certificate that somebody trusts to the one that took its
// place.
//
// Whoever replaces a certificate on purpose still has the old key, and signs with it a statement
// about the new one: the endorsement. A server sends it, and the old certificate, behind the new
// certificate in each handshake. Who knows only the old fingerprint finds the old certificate by
// it, and follows the signatures to the key that the handshake was made with. Several
// replacements make a chain of them.
//
// An endorsement is a certificate for the new certificate's subject and key, issued by the old
// one, as authorities certify each other. So a client that keeps the old certificate as its root
// and verifies as X.509 has it follows as well, if the names fit.
//
// The package knows nothing of clusters, files or connections.
package endorsement

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// maxChain is how many certificates of a server are looked at: the rest costs only time.
	maxChain = 32
	// early is how far the clock of who follows may be behind.
	early = 24 * time.Hour
)

// mark is the URI that tells an endorsement from a certificate which the old key has issued for
// another purpose: not everything that it signed takes its place.
var mark = url.URL{Scheme: "urn", Opaque: "incus:endorsement:1"}

// ErrNone says that nothing leads from the known certificate to the one that is shown.
var ErrNone = errors.New("the certificate that is shown is another one, and the known one does not endorse it")

// Sign endorses next, as the holder of old and its key, from a little before now until the
// given time.
func Sign(old *x509.Certificate, key crypto.PrivateKey, next *x509.Certificate, now, until time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		RawSubject:            next.RawSubject,
		NotBefore:             now.UTC().Add(-early),
		NotAfter:              until.UTC(),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		// Also what keeps X.509 verification from taking it for next itself: see alreadyInChain there.
		URIs: []*url.URL{&mark},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, old, next.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("endorse a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// Follow tells whether the holder of the certificate with the known fingerprint endorses the
// first certificate of chain, which a server has shown in a handshake, or is it. It fails with
// ErrNone. The dates of endorsements are judged at the time now; those of certificates are not.
func Follow(chain []*x509.Certificate, known string, now time.Time) error {
	if len(chain) == 0 {
		return ErrNone
	}
	shown := chain[0]
	if same(fingerprint(shown), known) {
		return nil
	}
	chain = chain[:min(len(chain), maxChain)]
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return same(fingerprint(c), known) })
	if at < 0 {
		return ErrNone
	}
	holders := []*x509.Certificate{chain[at]}
	left := slices.DeleteFunc(slices.Clone(chain), func(c *x509.Certificate) bool { return !isEndorsement(c) || !covers(c, now) })
	for len(holders) > 0 {
		holder := holders[0]
		holders = holders[1:]
		if bytes.Equal(holder.RawSubjectPublicKeyInfo, shown.RawSubjectPublicKeyInfo) {
			return nil // the handshake has proved that the server has this key
		}
		left = slices.DeleteFunc(left, func(e *x509.Certificate) bool {
			signed := bytes.Equal(e.RawIssuer, holder.RawSubject) &&
				holder.CheckSignature(e.SignatureAlgorithm, e.RawTBSCertificate, e.Signature) == nil
			if signed {
				holders = append(holders, e)
			}
			return signed
		})
	}
	return ErrNone
}

func isEndorsement(c *x509.Certificate) bool {
	return c.IsCA && slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return *u == mark })
}

func covers(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// same compares fingerprints as people and other programs may write them.
func same(a, b string) bool { return a != "" && strings.EqualFold(a, b) }

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
