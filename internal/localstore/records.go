package localstore

import (
	"maps"
	"slices"
	"time"
)

// A Replica is one copy of the cluster's store on this machine.
type Replica struct {
	// ID is the Raft server ID: new at every join, never reused.
	ID string `json:"id"`
	// Dir is the name of its folder under database/global/.
	Dir string `json:"dir"`
	// ClusterID is the cluster that the replica is of.
	ClusterID string `json:"cluster_id"`
	// Incarnation is the cluster's as the replica last had it; 0 while nothing is known.
	Incarnation int `json:"incarnation,omitempty"`
}

// A ShutOut says that this member takes no part in its cluster any more, and why.
type ShutOut struct {
	// Reason is a reason code of the API, Message and Hint what people are told.
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
	Since   time.Time `json:"since"`
	// Final is set when the cluster has said that this member cannot follow it.
	Final bool `json:"final,omitempty"`
}

// A Move is another address of a member. It counts while the member's row has the old one.
type Move struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// A Readmission is due when a member that was shut out has taken over the state of its recovered
// cluster: it names the last entry that it had applied before, in which incarnation, and the ID of
// the recovery that began that one.
type Readmission struct {
	Incarnation int    `json:"incarnation"`
	Recovery    string `json:"recovery,omitempty"`
	Index       uint64 `json:"index"`
	Term        uint64 `json:"term"`
}

// A JoinRecord says that a join has begun, and all that is needed to go on with it.
type JoinRecord struct {
	// Replica is the new one, which fills beside the current one.
	Replica Replica `json:"replica"`
	// Name and Address are those under which this server was admitted.
	Name    string `json:"name"`
	Address string `json:"address"`
	// ClusterCert is the PEM of the certificate that the cluster's members show.
	ClusterCert string `json:"cluster_cert"`
	// Contact is the address of the member that was asked for admission; Peers are all
	// that the admission named.
	Contact string    `json:"contact"`
	Peers   []Peer    `json:"peers"`
	Started time.Time `json:"started"`
	// Activating is set before the cluster is asked to count this server as a member:
	// from then on only the cluster can tell whether it does.
	Activating bool `json:"activating"`
}

func (j *JoinRecord) clone() *JoinRecord {
	if j == nil {
		return nil
	}
	c := *j
	c.Peers = slices.Clone(j.Peers)
	return &c
}

// A Peer is another member as this one last knew it: enough to reach and recognize it
// before the replica can be read.
type Peer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	// Certificate is the PEM of the peer's own certificate.
	Certificate string `json:"certificate"`
	Voter       bool   `json:"voter"`
}

// A Removal says that this server was removed from its cluster, and has not become another
// one since.
type Removal struct {
	// Replica is the ID of the member that was removed, and Name its name.
	Replica string    `json:"replica"`
	Name    string    `json:"name"`
	At      time.Time `json:"at"`
	// Graceful removals let the server empty itself.
	Graceful bool `json:"graceful"`
}

// Made says what this machine has, or may have, of one entity of the cluster: enough to
// remove it when the cluster's own row is gone.
type Made struct {
	// ID is the entity's.
	ID string `json:"id"`
	// Owner is the ID of the replica whose entity it is. What belongs to a former replica, or to
	// a join that came to nothing, is to be removed.
	Owner string `json:"owner"`
	// Kind, Project, Pool, Name and Type are the entity's when it was made.
	Kind    string `json:"kind"`
	Project string `json:"project,omitempty"`
	Pool    string `json:"pool,omitempty"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	// Config has all its keys, the cluster's and this member's.
	Config map[string]string `json:"config,omitempty"`
	// Revision is the one that was made true.
	Revision uint64 `json:"revision"`
	// Done is false while it is being made: half of it may be there.
	Done bool `json:"done"`
}

func (m Made) clone() Made {
	m.Config = maps.Clone(m.Config)
	return m
}
