package membership

import (
	"log/slog"

	"incusd/api"
)

// A Secret is a text that crosses the wire but is never printed, such as a key.
type Secret = api.Secret

// A JoinRequest asks what would keep a server from joining. Nothing is changed by it.
type JoinRequest = api.JoinRequest

// A JoinReport answers a JoinRequest.
type JoinReport = api.JoinReport

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
