package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
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
func (t *CertificateAddToken) String() string {
	data, err := json.Marshal(t)
	if err != nil {
		return "" // a struct of strings and a time always encodes
	}
	return base64.StdEncoding.EncodeToString(data)
}

// ParseCertificateAddToken reads a certificate add token. White space around and inside it is
// ignored. It fails with TokenMalformed, also for join tokens.
func ParseCertificateAddToken(text string) (*CertificateAddToken, error) {
	if len(text) > MaxJoinToken {
		return nil, malformedAddToken("Invalid certificate add token: longer than %d bytes", MaxJoinToken)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, malformedAddToken("Invalid certificate add token: not base64")
	}
	var t CertificateAddToken
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, malformedAddToken("Invalid certificate add token: not a JSON object of the right form")
	}
	switch {
	case t.ClientName == "":
		return nil, malformedAddToken("No client name in certificate add token")
	case len(t.Addresses) == 0:
		return nil, malformedAddToken("No server addresses in certificate add token")
	case t.Secret == "":
		return nil, malformedAddToken("No secret in certificate add token")
	case t.Fingerprint == "":
		return nil, malformedAddToken("No certificate fingerprint in certificate add token")
	}
	return &t, nil
}

func malformedAddToken(format string, args ...any) error {
	return Errorf(TokenMalformed, format, args...).WithHint("copy the whole token, as incus config trust add printed it")
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
	addresses, isList := op.Metadata["addresses"].([]any)
	if ok != [4]bool{true, true, true, true} || !isList {
		return nil, fmt.Errorf("operation %s is not a certificate add token", op.ID)
	}
	for _, a := range addresses {
		s, isString := a.(string)
		if !isString {
			return nil, fmt.Errorf("operation %s has an address that is not a string", op.ID)
		}
		t.Addresses = append(t.Addresses, s)
	}
	if at, isString := op.Metadata["expiresAt"].(string); isString && at != "" {
		var err error
		if t.ExpiresAt, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return nil, fmt.Errorf("operation %s: expiry: %w", op.ID, err)
		}
	}
	return &t, nil
}
