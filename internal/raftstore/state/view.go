package state

import (
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"
)

// A View is the tables after one entry. It never changes, and what it returns is
// shared: copy before you change. Many goroutines may use one View.
type View struct {
	txn         *memdb.Txn
	index, term uint64
	servers     []Server
	counts      counts
	// changed, membersChanged and entitiesChanged are closed when a later view differs.
	changed, membersChanged, entitiesChanged chan struct{}
}

// Index is that of the last applied entry; 0 when there is none.
func (v *View) Index() uint64 { return v.index }

// Term is the term of the last applied entry; 0 when there is none.
func (v *View) Term() uint64 { return v.term }

// Cluster returns the row about the cluster itself; zero before "cluster.init".
func (v *View) Cluster() Cluster { return clusterOf(v.txn) }

// CommandVersion is the version of commands that every member must know to be in the
// cluster; a server that knows less is not admitted. It is 0 before "cluster.init".
func (v *View) CommandVersion() int { return neededVersion(v.txn) }

// Member returns the member with that ID, whatever its state.
func (v *View) Member(id string) (*Member, bool) { return memberTable.get(v.txn, primary, id) }

// MemberByName returns the active member of that name.
func (v *View) MemberByName(name string) (*Member, bool) {
	m, ok := memberTable.get(v.txn, "name", name)
	if !ok || m.State != MemberActive {
		return nil, false
	}
	return m, true
}

// MemberByFingerprint returns the member with that certificate, whatever its state.
func (v *View) MemberByFingerprint(fp string) (*Member, bool) {
	return memberByFingerprint(v.txn, fp)
}

// Members returns the active members, by number.
func (v *View) Members() []*Member { return membersIn(v.txn, MemberActive) }

// Joining returns the members that are admitted and not active, by number.
func (v *View) Joining() []*Member { return membersIn(v.txn, MemberJoining) }

// Servers returns Raft's committed configuration, by ID.
func (v *View) Servers() []Server { return slices.Clone(v.servers) }

// IsVoter tells whether Raft's committed configuration gives id a vote.
func (v *View) IsVoter(id string) bool {
	return slices.Contains(v.servers, Server{ID: id, Voter: true})
}

// Token returns the token whose secret has that hash, ended or not.
func (v *View) Token(hash string) (*Token, bool) { return tokenTable.get(v.txn, primary, hash) }

// TokenByOperation returns the token that is shown as that operation, ended or not.
func (v *View) TokenByOperation(op string) (*Token, bool) {
	return tokenTable.get(v.txn, "operation", op)
}

// TokenByName returns the token for that name that has not ended.
func (v *View) TokenByName(name string) (*Token, bool) { return tokenTable.get(v.txn, "name", name) }

// TokenByClaim returns the token that the server with that certificate claims, and that
// has not ended. A view has no clock: see Token.ClaimHolds and Token.Expired.
func (v *View) TokenByClaim(fp string) (*Token, bool) { return claimedToken(v.txn, fp) }

// Tokens returns all tokens, ended ones too, by creation.
func (v *View) Tokens() []*Token {
	list := tokenTable.list(v.txn, primary)
	slices.SortStableFunc(list, func(a, b *Token) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return list
}

// Config returns a fresh copy of the cluster-wide configuration.
func (v *View) Config() map[string]string {
	out := make(map[string]string, v.counts.config)
	for _, s := range configTable.list(v.txn, primary) {
		out[s.Key] = s.Value
	}
	return out
}

// ConfigHash is a SHA-256 of the cluster-wide configuration, in hex; see ConfigSet.Expect.
func (v *View) ConfigHash() string { return configHash(v.txn) }

// Certificate returns the trusted client certificate with that fingerprint.
func (v *View) Certificate(fp string) (*Certificate, bool) {
	return certificateTable.get(v.txn, primary, fp)
}

// Certificates returns the trusted client certificates, by fingerprint.
func (v *View) Certificates() []*Certificate { return certificateTable.list(v.txn, primary) }

// Watch returns a channel that is closed when any table has changed since v, whole
// entries at a time, or was restored. It may already be closed.
func (v *View) Watch() <-chan struct{} { return v.changed }

// WatchMembers is Watch for the cluster, its members, servers and certificates alone.
func (v *View) WatchMembers() <-chan struct{} { return v.membersChanged }

// WatchEntities is Watch for entities, profiles, projects and members alone.
func (v *View) WatchEntities() <-chan struct{} { return v.entitiesChanged }

// sortedServers is a copy in one order, so that equal configurations make equal snapshots.
func sortedServers(servers []Server) []Server {
	out := slices.Clone(servers)
	slices.SortFunc(out, func(a, b Server) int { return strings.Compare(a.ID, b.ID) })
	return out
}
