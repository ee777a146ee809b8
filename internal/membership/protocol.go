package membership

import (
	"fmt"
	"log/slog"
	"time"

	"incusd/api"
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
	// Name and Address are those the server wants; an empty name means the token's.
	Name    string `json:"name"`
	Address string `json:"address"`
	// Certificate is the server's own, as PEM or base64 of DER. At its address the server
	// must show it.
	Certificate string `json:"certificate"`
	// Architecture is the server's, such as "x86_64".
	Architecture string `json:"architecture"`
	// CommandVersion is the newest set of commands that the server can apply.
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
	MemberConfig []api.ClusterMemberConfigKey `json:"member_config"`
	// Problems are all reasons why the server would be refused; none if it may go on.
	Problems []api.Error `json:"problems"`
}

// An AdmitRequest asks to become a joining member. The caller proves by mutual TLS
// that it has the key of the certificate that claimed the token.
type AdmitRequest struct {
	// ID is a new UUID: the server's Raft ID for as long as it is a member.
	ID             string `json:"id"`
	Name           string `json:"name"`
	Address        string `json:"address"`
	Architecture   string `json:"architecture"`
	CommandVersion int    `json:"command_version"`
}

// An Admission is what an admitted server needs to take part.
type Admission struct {
	ClusterID   string `json:"cluster_id"`
	Incarnation int    `json:"incarnation"`
	MemberID    string `json:"member_id"`
	Number      int    `json:"number"`
	// Certificate and Key are the PEM of the cluster's key pair.
	Certificate string `json:"certificate"`
	Key         Secret `json:"key"`
	// Peers are the active members.
	Peers []Peer `json:"peers"`
}

// LogValue leaves the key and the certificates out.
func (a Admission) LogValue() slog.Value {
	return slog.GroupValue(slog.String("cluster", a.ClusterID), slog.String("member", a.MemberID),
		slog.Int("number", a.Number), slog.Int("peers", len(a.Peers)))
}

// A Peer is a member as another one must know it to connect.
type Peer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	// Certificate is the PEM of the member's own certificate.
	Certificate string `json:"certificate"`
	Voter       bool   `json:"voter"`
}
