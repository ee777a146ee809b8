package trust

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"time"

	"incusd/api"
)

const (
	// maxMaterial is the longest text that is read as a certificate or key, in bytes.
	maxMaterial = 64 << 10
	// minRSABits is the shortest RSA key that may be trusted.
	minRSABits = 2048

	blockCertificate = "CERTIFICATE"
)

// ParseCertificate reads one certificate from PEM or from the base64 of its DER, the
// two forms that the protocol allows in a request. Of a PEM chain it takes the first.
// It fails with api.CertInvalid and says nothing about validity; see CheckValid.
func ParseCertificate(text string) (*x509.Certificate, error) {
	if len(text) > maxMaterial {
		return nil, invalid("longer than %d bytes", maxMaterial)
	}
	der, err := certificateDER(strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, invalid("%v", err)
	}
	return cert, nil
}

func certificateDER(text string) ([]byte, error) {
	if text == "" {
		return nil, invalid("it is empty")
	}
	if strings.HasPrefix(text, "-----BEGIN ") {
		block, _ := pem.Decode([]byte(text))
		switch {
		case block == nil:
			return nil, invalid("the PEM block is damaged or cut off")
		case block.Type != blockCertificate:
			return nil, invalid("a PEM block %q was given, expected %q", block.Type, blockCertificate)
		}
		return block.Bytes, nil
	}
	// Some tools wrap base64 lines, so white space inside is no error.
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, invalid("it is neither PEM nor base64 of DER")
	}
	return der, nil
}

func invalid(format string, args ...any) error {
	return api.Errorf(api.CertInvalid, "Invalid certificate material: "+format, args...)
}

// EncodePEM is the PEM form of cert, with a final newline.
func EncodePEM(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: cert.Raw}))
}

// Fingerprint is the lower-case hex SHA-256 of the DER certificate.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Same tells whether two certificates are byte-identical. A nil one equals nothing.
func Same(a, b *x509.Certificate) bool {
	return a != nil && b != nil && bytes.Equal(a.Raw, b.Raw)
}

// CheckValid tells whether cert may be trusted at the time now. It fails with
// api.ClockSkew before the certificate's time, since one that was made by a server
// is valid from that moment, and with api.CertInvalid after it or for a weak key.
func CheckValid(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) {
		// Certificates count in whole seconds; so does the hint, rounded up.
		wait := (cert.NotBefore.Sub(now) + time.Second - 1).Truncate(time.Second)
		return api.Errorf(api.ClockSkew, "The provided certificate isn't valid yet").
			WithHint("it becomes valid in %s by this server's clock: set the clocks of both servers, for example with NTP", wait)
	}
	if now.After(cert.NotAfter) {
		return api.Errorf(api.CertInvalid, "The provided certificate is expired").
			WithHint("it was valid until %s: make a new one, or set this server's clock if it is wrong", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSABits {
		return api.Errorf(api.CertInvalid, "RSA key is too weak (minimum of %dbit)", minRSABits).
			WithHint("make a new key pair, best with ECDSA P-384")
	}
	return nil
}

// RenewBefore is how long before its end whoever made a certificate for itself renews it. It leaves
// half a year for somebody to notice that it does not.
const RenewBefore = 182 * 24 * time.Hour

// RenewalDue tells whether a certificate comes to its end at the time now, so that whoever made it
// should make another one.
func RenewalDue(cert *x509.Certificate, now time.Time) bool {
	return now.After(cert.NotAfter.Add(-RenewBefore))
}
