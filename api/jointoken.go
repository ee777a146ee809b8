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
func (t *ClusterMemberJoinToken) String() string {
	data, err := json.Marshal(t)
	if err != nil {
		return "" // a struct of strings and a time always encodes
	}
	return base64.StdEncoding.EncodeToString(data)
}

// ParseJoinToken reads a join token. White space around and inside it (from a
// wrapped terminal line) is ignored. It fails with TokenMalformed.
func ParseJoinToken(text string) (*ClusterMemberJoinToken, error) {
	if len(text) > MaxJoinToken {
		return nil, Errorf(TokenMalformed, "Invalid join token: longer than %d bytes", MaxJoinToken)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, Errorf(TokenMalformed, "Invalid join token: not base64")
	}
	var t ClusterMemberJoinToken
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, Errorf(TokenMalformed, "Invalid join token: not a JSON object of the right form")
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
	addresses, isList := op.Metadata["addresses"].([]any)
	if ok != [3]bool{true, true, true} || !isList {
		return nil, fmt.Errorf("operation %s is not a join token", op.ID)
	}
	for _, a := range addresses {
		s, isString := a.(string)
		if !isString {
			return nil, fmt.Errorf("operation %s has an address that is not a string", op.ID)
		}
		t.Addresses = append(t.Addresses, s)
	}
	if at, isString := op.Metadata["expiresAt"].(string); isString {
		var err error
		if t.ExpiresAt, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return nil, fmt.Errorf("operation %s: expiry: %w", op.ID, err)
		}
	}
	return &t, nil
}
