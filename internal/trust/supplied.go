package trust

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"incusd/api"
)

// CheckPair reads a pair that an administrator supplies for servers, PEM both, and says what
// keeps it from being shown to clients from the time now on. It fails with api.TooLarge,
// api.BadRequest for what is no PEM, and with api.CertInvalid and api.ClockSkew.
func CheckPair(certPEM, keyPEM string, now time.Time) (*KeyPair, error) {
	for _, part := range []struct{ what, text string }{{"certificate", certPEM}, {"private key", keyPEM}} {
		if len(part.text) > maxMaterial {
			return nil, api.Errorf(api.TooLarge, "The %s has %d bytes, the limit is %d", part.what, len(part.text), maxMaterial).
				WithHint("send the certificate, its intermediates and its key, and nothing else")
		}
	}
	if err := checkPEM(certPEM, func(kind string) bool { return kind == blockCertificate }); err != nil {
		return nil, api.Errorf(api.BadRequest, "Certificate must be base64 encoded PEM certificate: %v", err)
	}
	if err := checkPEM(keyPEM, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }); err != nil {
		return nil, api.Errorf(api.BadRequest, "Private key must be base64 encoded PEM key: %v", err)
	}
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	if err := CheckValid(cert, now); err != nil {
		return nil, err
	}
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil, api.Errorf(api.CertInvalid, "The provided certificate is not for servers").
			WithHint("have it issued with the extended key usage serverAuth")
	}
	pair, err := NewKeyPair([]byte(certPEM), []byte(keyPEM))
	if err != nil {
		// Said without the key: the errors of crypto/tls are about its form.
		return nil, api.Errorf(api.CertInvalid, "The certificate and the private key cannot be used together: %s", strings.TrimPrefix(err.Error(), "tls: ")).
			WithHint("send the key that the certificate was made for, not encrypted: ECDSA, RSA or Ed25519")
	}
	return pair, nil
}

// checkPEM refuses a text whose first block is of no kind that is wanted.
func checkPEM(text string, wanted func(kind string) bool) error {
	block, _ := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return fmt.Errorf("no PEM block was found in it")
	case strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "":
		return fmt.Errorf("it is encrypted; decrypt it first")
	// Curves come before the key in what openssl ecparam writes.
	case block.Type == "EC PARAMETERS", wanted(block.Type):
		return nil
	}
	return fmt.Errorf("the first PEM block is %q", block.Type)
}
