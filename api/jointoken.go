package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// MaxJoinToken is the longest text that is taken for a join token, in bytes. Those
// that we issue have at most 1,024; upstream's carry every member's address.
const MaxJoinToken = 64 << 10

// String is the token's text: standard base64 of its JSON.
func (t *ClusterMemberJoinToken) String() string { return tokenText(t) }

func tokenText(token any) string {
	data, err := json.Marshal(token)
	if err != nil {
		return "" // a struct of strings and a time always encodes
	}
	return base64.StdEncoding.EncodeToString(data)
}

// readTokenText is tokenText backwards; words say what the text should be. White space around and
// inside it (from a wrapped terminal line) is ignored. It fails with TokenMalformed.
func readTokenText(text, words string, token any) *Error {
	if len(text) > MaxJoinToken {
		return Errorf(TokenMalformed, "Invalid %s: longer than %d bytes", words, MaxJoinToken)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return Errorf(TokenMalformed, "Invalid %s: not base64", words)
	}
	if err := json.Unmarshal(data, token); err != nil {
		return Errorf(TokenMalformed, "Invalid %s: not a JSON object of the right form", words)
	}
	return nil
}

// ParseJoinToken reads a join token. White space around and inside it (from a
// wrapped terminal line) is ignored. It fails with TokenMalformed.
func ParseJoinToken(text string) (*ClusterMemberJoinToken, error) {
	var t ClusterMemberJoinToken
	if err := readTokenText(text, "join token", &t); err != nil {
		return nil, err
	}
	switch {
	case t.ServerName == "":
		return nil, Errorf(TokenMalformed, "No server name in join token")
	case len(t.Addresses) == 0:
		return nil, Errorf(TokenMalformed, "No cluster member addresses in join token")
	case t.Secret == "":
		return nil, Errorf(TokenMalformed, "No secret in join token")
	case t.Fingerprint == "":
		return nil, Errorf(TokenMalformed, "No certificate fingerprint in join token")
	}
	return &t, nil
}

// JoinToken reads the join token that a token operation carries in its metadata.
// It fails for operations of any other kind.
func (op *Operation) JoinToken() (*ClusterMemberJoinToken, error) {
	if op.Class != OperationClassToken {
		return nil, fmt.Errorf("operation %s is not a token", op.ID)
	}
	var t ClusterMemberJoinToken
	var ok [3]bool
	t.ServerName, ok[0] = op.Metadata["serverName"].(string)
	t.Secret, ok[1] = op.Metadata["secret"].(string)
	t.Fingerprint, ok[2] = op.Metadata["fingerprint"].(string)
	if ok != [3]bool{true, true, true} {
		return nil, fmt.Errorf("operation %s is not a join token", op.ID)
	}
	var err error
	if t.Addresses, err = op.tokenAddresses("join token"); err != nil {
		return nil, err
	}
	if at, isString := op.Metadata["expiresAt"].(string); isString {
		if t.ExpiresAt, err = op.tokenExpiry(at); err != nil {
			return nil, err
		}
	}
	return &t, nil
}

// tokenAddresses reads from the metadata of a token's operation where the token is redeemed; words
// say what the operation should be.
func (op *Operation) tokenAddresses(words string) ([]string, error) {
	list, isList := op.Metadata["addresses"].([]any)
	if !isList {
		return nil, fmt.Errorf("operation %s is not a %s", op.ID, words)
	}
	var addresses []string
	for _, a := range list {
		s, isString := a.(string)
		if !isString {
			return nil, fmt.Errorf("operation %s has an address that is not a string", op.ID)
		}
		addresses = append(addresses, s)
	}
	return addresses, nil
}

func (op *Operation) tokenExpiry(at string) (time.Time, error) {
	expires, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return time.Time{}, fmt.Errorf("operation %s: expiry: %w", op.ID, err)
	}
	return expires, nil
}
