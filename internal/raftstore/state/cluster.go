package state

import (
	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// Standalone is the name of the one member of a cluster that is not enabled.
const Standalone = "none"

// clusterTable has one row, or none before the first command.
var clusterTable = &table[Cluster]{
	name:    "cluster",
	topic:   topicMembers,
	indexes: []index[Cluster]{{name: primary, key: func(*Cluster) string { return "" }}},
}

func clusterOf(txn *memdb.Txn) Cluster {
	c, ok := clusterTable.get(txn, primary, "")
	if !ok {
		return Cluster{}
	}
	return *c
}

func applyClusterInit(tx *transaction, b *ClusterInit) (any, error) {
	c := clusterOf(tx.Txn)
	switch {
	case c.ID != "" && c.ID == b.ClusterID:
		return nil, nil // the same start again
	case c.ID != "":
		return nil, api.Errorf(api.Conflict, "the store belongs to cluster %s already", c.ID)
	}
	if err := checkKey("cluster ID", b.ClusterID); err != nil {
		return nil, err
	}
	if err := checkKey("member ID", b.Member.ID); err != nil {
		return nil, err
	}
	if err := checkKey("fingerprint", b.Member.Fingerprint); err != nil {
		return nil, err
	}
	memberTable.put(tx, firstMember(tx, b.Member))
	c.ID, c.Incarnation, c.NextNumber = b.ClusterID, 1, 2
	clusterTable.put(tx, &c)
	return nil, nil
}

// firstMember is the member that made the store. It votes, since nobody else can.
func firstMember(tx *transaction, m Member) *Member {
	return &Member{
		ID: m.ID, Number: 1, Name: Standalone, Certificate: m.Certificate, Fingerprint: m.Fingerprint,
		Architecture: m.Architecture, CommandVersion: m.CommandVersion, State: MemberActive,
		JoinedAt: tx.now, Since: tx.now, Role: RoleVoter, FailureDomain: DefaultFailureDomain, Groups: []string{DefaultGroup},
	}
}

func applyClusterEnable(tx *transaction, b *ClusterEnable) (any, error) {
	c := clusterOf(tx.Txn)
	if c.Enabled {
		return nil, api.Errorf(api.AlreadyClustered, "The member is already part of a cluster")
	}
	m, ok := activeMember(tx.Txn, b.MemberID)
	if !ok {
		return nil, refuse(api.MemberNotFound)
	}
	if err := api.ValidateMemberName(b.Name); err != nil {
		return nil, err
	}
	if err := checkAddress(b.Address); err != nil {
		return nil, err
	}
	if b.Certificate == "" || b.Key == "" {
		return nil, badRequest("a cluster needs a certificate and its key")
	}
	m = m.Clone()
	m.Name, m.Address = b.Name, b.Address
	memberTable.put(tx, m)
	c.Enabled, c.Certificate, c.Key = true, b.Certificate, b.Key
	clusterTable.put(tx, &c)
	tx.emit("cluster-enabled", source("/1.0/cluster", m.Name), nil)
	return nil, nil
}

// applyLeaderElected is allowed on an empty store: a new leader's first entry may come
// before the store's.
func applyLeaderElected(tx *transaction, b *LeaderElected) (any, error) {
	c := clusterOf(tx.Txn)
	if err := checkKey("member ID", b.ID); err != nil {
		return nil, err
	}
	switch {
	case b.Term == 0:
		return nil, badRequest("terms count from 1")
	case b.Term < c.Term:
		return nil, api.Errorf(api.Conflict, "term %d is over: member %s leads in term %d", b.Term, c.Leader, c.Term)
	case b.Term == c.Term && b.ID != c.Leader:
		return nil, api.Errorf(api.Conflict, "member %s leads in term %d, and a term has one leader", c.Leader, c.Term)
	case b.Term == c.Term:
		return nil, nil
	}
	c.Leader, c.Term = b.ID, b.Term
	clusterTable.put(tx, &c)
	return nil, nil
}

// applyLeaderSweep releases what time has run out for. Joins go first, so that the
// token of a lost joiner ends in the same sweep if it has expired.
func applyLeaderSweep(tx *transaction, b *LeaderSweep) (any, error) {
	for _, id := range b.Lost {
		m, ok := memberTable.get(tx.Txn, primary, id)
		if ok && m.State == MemberJoining && !tx.now.Before(m.JoinDeadline) {
			tx.endJoin(m)
		}
	}
	tx.sweepTokens()
	tx.sweepWarnings()
	return nil, nil
}
