package api

import (
	"fmt"
	"time"
)

// A CertificateAddToken lets one client add its own certificate to the trust store, once.
type CertificateAddToken struct {
	ClientName string `json:"client_name" yaml:"client_name"`
	// Fingerprint is that of the certificate that the server must show.
	Fingerprint string   `json:"fingerprint" yaml:"fingerprint"`
	Addresses   []string `json:"addresses" yaml:"addresses"`
	Secret      string   `json:"secret" yaml:"secret"`
	// ExpiresAt is zero for a token that does not expire.
	ExpiresAt time.Time `json:"expires_at" yaml:"expires_at"`
}

// String is the token's text: standard base64 of its JSON.
func (t *CertificateAddToken) String() string { return tokenText(t) }

// ParseCertificateAddToken reads a certificate add token. White space around and inside it is
// ignored. It fails with TokenMalformed, also for join tokens.
func ParseCertificateAddToken(text string) (*CertificateAddToken, error) {
	var t CertificateAddToken
	if err := readTokenText(text, "certificate add token", &t); err != nil {
		return nil, malformedAddToken(err)
	}
	missing := func(text string) error { return malformedAddToken(Errorf(TokenMalformed, "%s", text)) }
	switch {
	case t.ClientName == "":
		return nil, missing("No client name in certificate add token")
	case len(t.Addresses) == 0:
		return nil, missing("No server addresses in certificate add token")
	case t.Secret == "":
		return nil, missing("No secret in certificate add token")
	case t.Fingerprint == "":
		return nil, missing("No certificate fingerprint in certificate add token")
	}
	return &t, nil
}

func malformedAddToken(err *Error) error {
	return err.WithHint("copy the whole token, as incus config trust add printed it")
}

// CertificateAddToken reads the certificate add token that a token operation carries in its
// metadata. It fails for operations of any other kind.
func (op *Operation) CertificateAddToken() (*CertificateAddToken, error) {
	if op.Class != OperationClassToken {
		return nil, fmt.Errorf("operation %s is not a token", op.ID)
	}
	var t CertificateAddToken
	var ok [4]bool
	var request map[string]any
	request, ok[0] = op.Metadata["request"].(map[string]any)
	t.ClientName, ok[1] = request["name"].(string)
	t.Secret, ok[2] = op.Metadata["secret"].(string)
	t.Fingerprint, ok[3] = op.Metadata["fingerprint"].(string)
	if ok != [4]bool{true, true, true, true} {
		return nil, fmt.Errorf("operation %s is not a certificate add token", op.ID)
	}
	var err error
	if t.Addresses, err = op.tokenAddresses("certificate add token"); err != nil {
		return nil, err
	}
	if at, isString := op.Metadata["expiresAt"].(string); isString && at != "" {
		if t.ExpiresAt, err = op.tokenExpiry(at); err != nil {
			return nil, err
		}
	}
	return &t, nil
}
