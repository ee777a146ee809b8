package state

import (
	"fmt"
	"slices"
	"time"

	"incusd/api"
)

// A Recovery says that the cluster went on from one member's copy alone, after the majority of
// its voters was lost. Each begins an incarnation; members of an earlier one are shut out.
type Recovery struct {
	// Incarnation is the one that began, ID a UUID: two recoveries that know nothing of each other
	// begin the same incarnation under different IDs.
	Incarnation int    `json:"incarnation"`
	ID          string `json:"id"`
	// Member and Name are the ID and name of the member whose copy it was.
	Member string    `json:"member"`
	Name   string    `json:"name"`
	At     time.Time `json:"at"`
	// Copy is the log from which the cluster went on.
	Copy LogExtent `json:"copy"`
	// Voters are the IDs of the former voters.
	Voters []string `json:"voters"`
}

// A LogExtent tells which entries a log holds.
type LogExtent struct {
	// Compacted is the index up to which a snapshot stands for the entries: they are committed.
	Compacted uint64 `json:"compacted"`
	// Terms says from which index on the entries behind that are of which term.
	Terms []TermStart `json:"terms"`
	// Last is the index of the last entry.
	Last uint64 `json:"last"`
}

// A TermStart is the first entry of a term.
type TermStart struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// Holds tells whether the entry of that index and term is in the log, and so, since logs that
// share an entry share all before it, whether it has everything that a member had when it had
// applied that entry. What a member applied and a snapshot covers is the same.
func (e LogExtent) Holds(index, term uint64) bool {
	if index <= e.Compacted {
		return true
	}
	if index > e.Last {
		return false
	}
	held := uint64(0)
	for _, t := range e.Terms {
		if t.Index <= index {
			held = t.Term
		}
	}
	return held == term
}

// Limits of what is kept of recoveries.
const (
	// MaxRecoveries is how many are remembered; members of older incarnations must join anew.
	MaxRecoveries = 16
	// MaxTermStarts bounds the terms of a log; a recovery names the latest.
	MaxTermStarts = 256
)

var recoveryTable = &table[Recovery]{
	name:    "recovery",
	topic:   topicMembers,
	indexes: []index[Recovery]{{name: primary, key: func(r *Recovery) string { return ordered(uint64(r.Incarnation)) }}},
}

// Recoveries returns those that are remembered, by incarnation.
func (v *View) Recoveries() []*Recovery { return recoveryTable.list(v.txn, primary) }

// Recovery returns the latest; false if the cluster was never recovered.
func (v *View) Recovery() (*Recovery, bool) { return recoveryTable.edge(v.txn, primary, true) }

// ClusterRecover is the body of "cluster.recover", version 1, which is never proposed: it is
// written into the copy of a stopped member, whose cluster has lost its majority. It revokes the live
// tokens, of which the lost end of the log may have used some. Harmless when repeated; Conflict if another recovery began that incarnation.
type ClusterRecover struct {
	ID          string    `json:"id"`
	MemberID    string    `json:"member_id"`
	Incarnation int       `json:"incarnation"`
	Copy        LogExtent `json:"copy"`
	Voters      []string  `json:"voters"`
}

func applyClusterRecover(tx *transaction, b *ClusterRecover) (any, error) {
	c := clusterOf(tx.Txn)
	self, ok := activeMember(tx.Txn, b.MemberID)
	switch {
	case !c.Enabled:
		return nil, refuse(api.NotClustered)
	case !ok:
		return nil, refuse(api.MemberNotFound)
	}
	if last, ok := recoveryTable.edge(tx.Txn, primary, true); ok && last.ID == b.ID && last.Incarnation == b.Incarnation {
		return nil, nil
	}
	if err := checkKey("recovery ID", b.ID); err != nil {
		return nil, err
	}
	if b.Incarnation != c.Incarnation+1 {
		return nil, api.Errorf(api.Conflict, "incarnation %d cannot begin, the cluster is in its incarnation %d", b.Incarnation, c.Incarnation)
	}
	c.Incarnation = b.Incarnation
	clusterTable.put(tx, &c)
	tx.rememberRecovery(&Recovery{
		Incarnation: b.Incarnation, ID: b.ID, Member: self.ID, Name: self.Name, At: tx.now, Copy: b.Copy, Voters: b.Voters,
	})
	tx.revokeAll()
	for _, m := range membersIn(tx.Txn, MemberActive) {
		tx.fence(m, self, b.Incarnation)
	}
	return nil, nil
}

func (tx *transaction) rememberRecovery(r *Recovery) {
	recoveryTable.put(tx, r)
	for len(recoveryTable.list(tx.Txn, primary)) > MaxRecoveries {
		oldest, _ := recoveryTable.edge(tx.Txn, primary, false)
		recoveryTable.drop(tx, oldest)
	}
}

// revokeAll ends all joins and all live tokens of a state that may be older than what was last
// acknowledged: a token may have been used or revoked since, and would admit another server.
func (tx *transaction) revokeAll() {
	for _, m := range membersIn(tx.Txn, MemberJoining) {
		tx.endJoin(m)
	}
	for _, t := range tokenTable.list(tx.Txn, "name") {
		tx.revoke(t)
	}
}

// fence shuts m out, unless it is the member that the cluster goes on from: that one votes alone.
func (tx *transaction) fence(m, self *Member, incarnation int) {
	m = m.Clone()
	if m.ID == self.ID {
		m.Fenced, m.Role, m.Offline, m.Since, m.Reason = 0, RoleVoter, false, tx.now, ""
		m.Stopping, m.Removal = false, nil
	} else {
		m.Fenced, m.Role, m.Offline, m.Since = incarnation, RoleSpare, true, tx.now
		m.Reason = fmt.Sprintf("Fenced by the recovery on %s: remove or replace it", self.Name)
	}
	memberTable.put(tx, m)
}

// MemberReadmit is the body of "member.readmit", version 1: a fenced member that had no vote and
// nothing that the recovered copy lacks, and that has taken the cluster's present state over, is
// one of the members again. Harmless when repeated. MemberFenced tells why another cannot.
type MemberReadmit struct {
	ID string `json:"id"`
	// Incarnation is the one that the member comes from, and Recovery the ID of what began it, empty
	// for the first; Index and Term are of the last entry that it had applied in it.
	Incarnation int    `json:"incarnation"`
	Recovery    string `json:"recovery,omitempty"`
	Index       uint64 `json:"index"`
	Term        uint64 `json:"term"`
}

func applyMemberReadmit(tx *transaction, b *MemberReadmit) (any, error) {
	m, ok := activeMember(tx.Txn, b.ID)
	switch {
	case !ok:
		return nil, refuse(api.MemberRemoved)
	case m.Fenced == 0:
		return nil, nil
	}
	if err := readmissible(recoveryTable.list(tx.Txn, primary), m, b); err != nil {
		return nil, err
	}
	m = m.Clone()
	m.Fenced, m.Since, m.Reason = 0, tx.now, "no answer since the recovery"
	memberTable.put(tx, m)
	tx.emit("cluster-member-updated", source("/1.0/cluster/members", m.Name), nil)
	return nil, nil
}

// Readmissible tells why the member that asks cannot follow the recovered cluster; nil if it can.
// Apply decides in the same way.
func (v *View) Readmissible(b MemberReadmit) error {
	m, ok := v.Member(b.ID)
	if !ok {
		return refuse(api.MemberRemoved)
	}
	return readmissible(v.Recoveries(), m, &b)
}

func readmissible(recoveries []*Recovery, m *Member, b *MemberReadmit) error {
	i := slices.IndexFunc(recoveries, func(r *Recovery) bool { return r.Incarnation == b.Incarnation+1 })
	if i < 0 {
		return api.Errorf(api.MemberFenced, "Member %q is of incarnation %d, of which this cluster does not know how it ended", m.Name, b.Incarnation)
	}
	if !b.comesFrom(recoveries) {
		return api.Errorf(api.MemberFenced, "Member %q is of an incarnation %d that began with another recovery (%.8s) than this cluster's: it may hold changes that this one never had, and cannot follow it",
			m.Name, b.Incarnation, b.Recovery)
	}
	for _, r := range recoveries[i:] {
		if slices.Contains(r.Voters, m.ID) {
			return api.Errorf(api.MemberFenced, "Member %q had a vote when the cluster was recovered on %s at %s: it may hold changes that the cluster lost, and cannot follow it",
				m.Name, r.Name, r.At.Format(time.RFC3339))
		}
	}
	if r := recoveries[i]; !r.Copy.Holds(b.Index, b.Term) {
		return api.Errorf(api.MemberFenced, "Member %q holds entries up to %d of term %d, which the copy of %s, recovered at %s with entries up to %d, lacks",
			m.Name, b.Index, b.Term, r.Name, r.At.Format(time.RFC3339), r.Copy.Last)
	}
	return nil
}

// comesFrom tells whether the member is of an incarnation that the cluster went through. A number
// does not tell: members that know nothing of each other count alike.
func (b *MemberReadmit) comesFrom(recoveries []*Recovery) bool {
	if b.Incarnation == 1 {
		return b.Recovery == ""
	}
	return slices.ContainsFunc(recoveries, func(r *Recovery) bool { return r.Incarnation == b.Incarnation && r.ID == b.Recovery })
}

// ClusterRestore is the body of "cluster.restore", version 1, which is never proposed: it is
// written into what was read from a backup, and makes it the state of a new cluster, or of a new
// standalone server if it was one's, whose only member is Member. Of Member the ID, key pair,
// architecture and command version count; the rest is that of the former member called Name, if
// there is one. Live tokens are revoked.
type ClusterRestore struct {
	ClusterID string `json:"cluster_id"`
	Member    Member `json:"member"`
	// Name and Address are empty for a standalone server.
	Name    string `json:"name"`
	Address string `json:"address"`
}

func applyClusterRestore(tx *transaction, b *ClusterRestore) (any, error) {
	c := clusterOf(tx.Txn)
	if err := checkRestore(c, b); err != nil {
		return nil, err
	}
	tx.revokeAll()
	m := firstMember(tx, b.Member)
	if c.Enabled {
		m.Name, m.Address = b.Name, b.Address
	}
	former, inherits := memberTable.get(tx.Txn, "name", m.Name)
	if inherits {
		m.Number, m.Roles, m.Groups, m.Config = former.Number, former.Roles, former.Groups, former.Config
		m.FailureDomain, m.Description = former.FailureDomain, former.Description
		tx.inheritEntities(former.ID, m.ID)
	} else {
		m.Number = c.NextNumber
		c.NextNumber++
		tx.joinEntities(m.ID, nil)
	}
	for _, gone := range membersIn(tx.Txn, MemberActive) {
		tx.dropMember(gone, "")
	}
	for _, r := range recoveryTable.list(tx.Txn, primary) {
		recoveryTable.drop(tx, r)
	}
	memberTable.put(tx, m)
	c.ID, c.Incarnation, c.Leader, c.Term = b.ClusterID, 1, "", 0
	clusterTable.put(tx, &c)
	return nil, nil
}

func checkRestore(c Cluster, b *ClusterRestore) error {
	if err := checkKey("cluster ID", b.ClusterID); err != nil {
		return err
	}
	if err := checkKey("member ID", b.Member.ID); err != nil {
		return err
	}
	if err := checkKey("fingerprint", b.Member.Fingerprint); err != nil {
		return err
	}
	switch {
	case c.ID == "":
		return badRequest("the backup holds no cluster and no server")
	case c.ID == b.ClusterID:
		return api.Errorf(api.Conflict, "a restored cluster needs an ID of its own")
	case !c.Enabled:
		return nil
	}
	if err := api.ValidateMemberName(b.Name); err != nil {
		return err
	}
	return checkAddress(b.Address)
}

// inheritEntities gives a new member the parts that a former one had of pools, networks and
// volumes. On its machine nothing of it is made yet.
func (tx *transaction) inheritEntities(former, id string) {
	for _, e := range entityTable.list(tx.Txn, "place") {
		part, ok := e.Members[former]
		if !ok {
			continue
		}
		e = e.Clone()
		delete(e.Members, former)
		if !e.Deleting {
			e.Members[id] = EntityMember{Config: part.Config, Status: EntityPending}
		}
		tx.keepEntity(e)
	}
}
