package api

import (
	"fmt"
	"log/slog"
	"time"
)

// redacted is how secrets print.
const redacted = "[redacted]"

// A Secret is a text that crosses the wire but is never printed, such as a key.
type Secret string

// String keeps the secret out of messages.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString keeps the secret out of messages that print with %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// LogValue keeps the secret out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// A JoinRequest asks what would keep a server from joining. Nothing is changed by it.
type JoinRequest struct {
	// Token is the text of a join token, a secret. It may be empty when the caller's
	// certificate has claimed one.
	Token string `json:"token,omitempty"`
	// Password is the cluster's trust password, a secret, where there is no token.
	Password Secret `json:"password,omitempty"`
	// Name and Address are those the server wants; an empty name means the token's. Without an
	// address, none is judged: whoever asks only wants to know what to answer.
	Name    string `json:"name"`
	Address string `json:"address"`
	// Certificate is the server's own, as PEM or base64 of DER. At its address the server
	// must show it.
	Certificate string `json:"certificate"`
	// Architecture is the server's, such as "x86_64".
	Architecture string `json:"architecture"`
	// CommandVersion is the newest set of commands that the server can apply; 0 is not judged.
	CommandVersion int `json:"command_version"`
	// Time is the server's wall clock.
	Time time.Time `json:"time"`
}

// String leaves the token and the certificate out.
func (r JoinRequest) String() string { return fmt.Sprintf("join of %q at %s", r.Name, r.Address) }

// GoString is String: a request never prints its token.
func (r JoinRequest) GoString() string { return r.String() }

// LogValue is String: a request never logs its token.
func (r JoinRequest) LogValue() slog.Value { return slog.StringValue(r.String()) }

// A JoinReport answers a JoinRequest.
type JoinReport struct {
	// Name is the name that the token admits.
	Name string `json:"name"`
	// ClusterID is the cluster's, Version that of the answering member's product.
	ClusterID string `json:"cluster_id"`
	Version   string `json:"version"`
	// Time is the answering member's wall clock.
	Time time.Time `json:"time"`
	// MemberConfig lists the member-specific keys that the server must give; never null.
	MemberConfig []ClusterMemberConfigKey `json:"member_config"`
	// Entities are the pools and networks that the server must make; never null.
	Entities []JoinEntity `json:"entities"`
	// Problems are all reasons why the server would be refused; none if it may go on.
	Problems []Error `json:"problems"`
}

// JoinEntity is a storage pool or network that a joining server has to make on its machine.
type JoinEntity struct {
	// ID is that of the cluster's row.
	ID string `json:"id"`
	// Kind is "storage-pool" or "network"; Project is that of a network.
	Kind    string `json:"kind"`
	Project string `json:"project,omitempty"`
	Name    string `json:"name"`
	// Type is the pool's driver or the network's type.
	Type string `json:"type"`
	// Config has the cluster-wide keys.
	Config ConfigMap `json:"config"`
}
