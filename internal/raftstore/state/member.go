package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// DefaultGroup is the group in which every new member is, and DefaultFailureDomain means none.
const (
	DefaultGroup         = "default"
	DefaultFailureDomain = "default"
)

// memberTable has active and joining members side by side, so that one index keeps
// names, addresses and fingerprints apart.
var memberTable = &table[Member]{
	name:  "member",
	topic: topicMembers,
	indexes: []index[Member]{
		{name: primary, key: func(m *Member) string { return m.ID }},
		{name: "number", key: func(m *Member) string { return ordered(uint64(m.Number)) }},
		{name: "name", key: func(m *Member) string { return keyIf(m.Replacing == "", m.Name) }},
		{name: "address", key: func(m *Member) string { return keyIf(m.Replacing == "", m.Address) }},
		{name: "fingerprint", key: func(m *Member) string { return m.Fingerprint }},
		{name: "former", key: func(m *Member) string { return m.Former }},
	},
}

// Clone returns a copy that may be changed.
func (m *Member) Clone() *Member {
	c := *m
	c.Roles, c.Groups, c.Config = slices.Clone(m.Roles), slices.Clone(m.Groups), maps.Clone(m.Config)
	if m.Removal != nil {
		r := *m.Removal
		c.Removal = &r
	}
	return &c
}

// WritableHash is a SHA-256 of what "member.update" writes, in hex; see MemberUpdate.Expect.
func (m *Member) WritableHash() string {
	data, err := json.Marshal([]any{
		append([]string{}, m.Roles...), m.FailureDomain, m.Description, withoutEmpty(m.Config), append([]string{}, m.Groups...),
	})
	must(err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func activeMember(txn *memdb.Txn, id string) (*Member, bool) {
	m, ok := memberTable.get(txn, primary, id)
	return m, ok && m.State == MemberActive
}

// membersIn returns the members in that state, by number.
func membersIn(txn *memdb.Txn, state string) []*Member {
	return slices.DeleteFunc(memberTable.list(txn, "number"), func(m *Member) bool { return m.State != state })
}

// neededVersion is the version of commands that every member must know: the leader
// proposes what all active members can apply. It never goes down, since nobody is
// admitted below it.
func neededVersion(txn *memdb.Txn) int {
	needed := 0
	for i, m := range membersIn(txn, MemberActive) {
		if i == 0 || m.CommandVersion < needed {
			needed = m.CommandVersion
		}
	}
	return needed
}

// memberRoles are the roles that an administrator gives, in the order of the protocol.
var memberRoles = []string{api.RoleEventHub, api.RoleOVNChassis, api.RoleDatabaseClient}

func applyMemberUpdate(tx *transaction, b *MemberUpdate) (any, error) {
	m, ok := activeMember(tx.Txn, b.ID)
	if !ok {
		return nil, refuse(api.MemberNotFound)
	}
	if b.Expect != "" && b.Expect != m.WritableHash() {
		return nil, refuse(api.PreconditionFail)
	}
	if err := checkMemberUpdate(tx, b); err != nil {
		return nil, err
	}
	m = m.Clone()
	m.Roles = slices.DeleteFunc(slices.Clone(memberRoles), func(r string) bool { return !slices.Contains(b.Roles, r) })
	m.FailureDomain, m.Description, m.Config = b.FailureDomain, b.Description, withoutEmpty(b.Config)
	m.Groups = sortedGroups(b.Groups)
	memberTable.put(tx, m)
	tx.emit("cluster-member-updated", source("/1.0/cluster/members", m.Name), nil)
	return nil, nil
}

// checkMemberUpdate has the rules and texts of cluster-api.md §6.
func checkMemberUpdate(tx *transaction, b *MemberUpdate) error {
	for _, r := range b.Roles {
		if !slices.Contains(memberRoles, r) {
			return api.Errorf(api.BadRequest, "Update roles: Invalid cluster role %q", r).
				WithHint("roles that can be given are %s", strings.Join(memberRoles, ", "))
		}
	}
	if slices.Contains(b.Roles, api.RoleDatabaseClient) && tx.othersAreClients(b.ID) {
		return api.Errorf(api.BadRequest, "Assigning the 'database-client' role to all nodes is not allowed").
			WithHint("one member at least has to vote: take the role from another first")
	}
	if b.FailureDomain == "" {
		return api.Errorf(api.BadRequest, "Update failure domain: Failure domain name can't be empty").
			WithHint("the failure domain \"default\" means none")
	}
	if len(b.Groups) == 0 {
		return api.Errorf(api.BadRequest, "Cluster members need to belong to at least one group").
			WithHint("put the member into another group first: incus cluster group add MEMBER GROUP")
	}
	for _, g := range b.Groups {
		if _, ok := groupOf(tx.Txn, g); !ok {
			return api.Errorf(api.NotFound, "Update cluster groups: Failed to add member to cluster group: Failed to get cluster group ID: Cluster group not found").
				WithHint("there is no group %q; see incus cluster group list, or make it: incus cluster group create %s", g, g)
		}
	}
	if n := len(b.Description) + len(b.FailureDomain); n > MaxConfigValue {
		return api.Errorf(api.TooLarge, "Description and failure domain have %d bytes, the limit is %d", n, MaxConfigValue)
	}
	return checkMemberConfig(b.Config)
}

// othersAreClients tells whether all active members but id have the role database-client.
func (tx *transaction) othersAreClients(id string) bool {
	return !slices.ContainsFunc(membersIn(tx.Txn, MemberActive), func(m *Member) bool {
		return m.ID != id && !slices.Contains(m.Roles, api.RoleDatabaseClient)
	})
}

func checkMemberConfig(config map[string]string) error {
	if err := checkConfig(config); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(config)) {
		switch {
		case strings.HasPrefix(key, "user."):
		case key != "scheduler.instance":
			return api.Errorf(api.ConfigInvalid, "Invalid cluster configuration key %q", key)
		case !slices.Contains([]string{"", "all", "group", "manual"}, config[key]):
			return api.Errorf(api.ConfigInvalid, "Invalid cluster configuration key %q value", key).
				WithHint("use all, group or manual")
		}
	}
	return nil
}

// withoutEmpty is config without the keys that are unset; never nil.
func withoutEmpty(config map[string]string) map[string]string {
	out := maps.Clone(config)
	if out == nil {
		out = map[string]string{}
	}
	maps.DeleteFunc(out, func(_, v string) bool { return v == "" })
	return out
}

// applyMemberLiveness leaves out members that are gone: the leader saw what it saw.
func applyMemberLiveness(tx *transaction, b *MemberLiveness) (any, error) {
	for _, c := range b.Changes {
		m, ok := memberTable.get(tx.Txn, primary, c.ID)
		if !ok || m.Offline == c.Offline && m.Reason == c.Reason && m.Since.Equal(c.Since) {
			continue
		}
		m = m.Clone()
		m.Offline, m.Since, m.Reason = c.Offline, c.Since, c.Reason
		memberTable.put(tx, m)
	}
	return nil, nil
}

// applyMemberRole refuses the whole plan if a part of it does not fit: the planner then
// looks again.
func applyMemberRole(tx *transaction, b *MemberRole) (any, error) {
	for _, c := range b.Changes {
		if c.Role != RoleVoter && c.Role != RoleStandby && c.Role != RoleSpare {
			return nil, badRequest("%q is not a database role", c.Role)
		}
		m, ok := activeMember(tx.Txn, c.ID)
		if !ok {
			return nil, refuse(api.MemberNotFound)
		}
		if m.Role != c.Role {
			m = m.Clone()
			m.Role = c.Role
			memberTable.put(tx, m)
		}
	}
	if !slices.ContainsFunc(membersIn(tx.Txn, MemberActive), func(m *Member) bool { return m.Role == RoleVoter }) {
		return nil, api.Errorf(api.Conflict, "the cluster would have no voter")
	}
	return nil, nil
}

// checkAddress refuses what cannot be host:port. The proposer has made it canonical.
func checkAddress(address string) error {
	if address == "" {
		return api.Errorf(api.AddressInvalid, "Member address must not be empty")
	}
	if err := checkKey("member address", address); err != nil {
		return api.Errorf(api.AddressInvalid, "%v", err)
	}
	return nil
}

// applyMemberAdmit writes the joining row. A refusal that the joiner cannot mend by
// itself releases the claim, so that the token is free for the next attempt; one that
// it can mend (another ID, another claim) does not.
func applyMemberAdmit(tx *transaction, b *MemberAdmit) (any, error) {
	c := clusterOf(tx.Txn)
	if !c.Enabled {
		return nil, refuse(api.NotClustered)
	}
	if err := checkKey("member ID", b.ID); err != nil {
		return nil, err
	}
	t, err := tx.claimToAdmit(b.Fingerprint)
	if err != nil {
		return nil, err
	}
	old, again := memberTable.get(tx.Txn, "fingerprint", b.Fingerprint)
	if tx.idUsed(b.ID) && !(again && old.State == MemberJoining && old.ID == b.ID) {
		return nil, api.Errorf(api.Conflict, "Member ID %s was used before", b.ID).WithHint("join again; every join takes a new ID")
	}
	if err := tx.checkAdmission(b, t); err != nil {
		return nil, &refusal{api.AsError(err), func(tx *transaction) { tx.abandon(t) }}
	}
	m := &Member{
		ID: b.ID, Number: c.NextNumber, Name: b.Name, Address: b.Address, Certificate: t.ClaimedCert, Fingerprint: b.Fingerprint,
		Architecture: b.Architecture, CommandVersion: b.CommandVersion, State: MemberJoining, Token: t.Hash, Replacing: t.Replaces,
		JoinDeadline: tx.now.Add(JoinTime), Since: tx.now, Role: RoleSpare,
		FailureDomain: DefaultFailureDomain, Groups: []string{DefaultGroup},
	}
	if again {
		m.Number = old.Number
		tx.dropMember(old, b.ID)
	} else {
		c.NextNumber++
		clusterTable.put(tx, &c)
	}
	memberTable.put(tx, m)
	tx.holdClaim(t)
	return m, nil
}

// checkAdmission tells why the server cannot be a member the way it asks to.
func (tx *transaction) checkAdmission(b *MemberAdmit, t *Token) error {
	if b.Name != t.Name {
		return wrongName(t, b.Name)
	}
	if err := checkAddress(b.Address); err != nil {
		return err
	}
	if m, ok := memberTable.get(tx.Txn, "fingerprint", b.Fingerprint); ok && m.State == MemberActive {
		return api.Errorf(api.CertTaken, "The certificate belongs to member %q already", m.Name)
	}
	if err := tx.checkName(b.Name, b.Fingerprint, t.Replaces); err != nil {
		return err
	}
	if err := tx.checkFreeAddress(b.Address, b.Fingerprint, t.Replaces); err != nil {
		return err
	}
	if needed := neededVersion(tx.Txn); b.CommandVersion < needed {
		return api.Errorf(api.VersionTooOld, "The joining server knows commands up to version %d, the cluster needs version %d", b.CommandVersion, needed)
	}
	return nil
}

func nameTaken(name string) error {
	return api.Errorf(api.NameTaken, "The cluster already has a member with name: %s", name)
}

func applyMemberActivate(tx *transaction, b *MemberActivate) (any, error) {
	m, ok := memberTable.get(tx.Txn, primary, b.ID)
	switch {
	case !ok:
		return nil, refuse(api.JoinAborted)
	case m.State == MemberActive:
		return nil, nil // the same joiner again; the first answer was lost
	}
	m = m.Clone()
	if err := tx.succeed(m); err != nil {
		return nil, err
	}
	m.State, m.JoinedAt, m.JoinDeadline = MemberActive, tx.now, time.Time{}
	m.Offline, m.Since, m.Reason = false, tx.now, ""
	memberTable.put(tx, m)
	if err := tx.joinEntities(m.ID, b.Entities); err != nil {
		return nil, err
	}
	used := tx.useToken(m)
	tx.emit("cluster-member-added", source("/1.0/cluster/members", m.Name), used)
	return nil, nil
}

// applyMemberAbort decides whether the join of that fingerprint succeeded. An ID that
// is not the row's belongs to an earlier attempt: it is never admitted from now on,
// even if its admission is still on the way, and the later attempt goes on. Without an
// ID the attempt is whichever there is.
func applyMemberAbort(tx *transaction, b *MemberAbort) (any, error) {
	if err := checkKey("fingerprint", b.Fingerprint); err != nil {
		return nil, err
	}
	if b.ID != "" {
		if err := checkKey("member ID", b.ID); err != nil {
			return nil, err
		}
		if m, ok := memberTable.get(tx.Txn, primary, b.ID); ok && m.Fingerprint != b.Fingerprint {
			return nil, api.Errorf(api.Conflict, "Member ID %s belongs to another server", b.ID)
		}
	}
	m, ok := memberTable.get(tx.Txn, "fingerprint", b.Fingerprint)
	switch {
	case ok && b.ID != "" && b.ID != m.ID:
		tx.retire(b.ID)
	case ok && m.State == MemberActive:
		return AbortResult{Active: true}, nil
	case ok:
		tx.endJoin(m)
	default:
		tx.retire(b.ID)
		if t, ok := claimedToken(tx.Txn, b.Fingerprint); ok {
			tx.release(t)
		}
	}
	return AbortResult{}, nil
}

// endJoin removes a joining row and frees its token.
func (tx *transaction) endJoin(m *Member) {
	tx.dropMember(m, "")
	if t, ok := tokenTable.get(tx.Txn, primary, m.Token); ok && t.Ended == "" {
		tx.release(t)
	}
}

// dropMember removes the row of m and retires its ID, unless that is the ID of the row
// that takes its place.
func (tx *transaction) dropMember(m *Member, next string) {
	memberTable.drop(tx, m)
	tx.leaveEntities(m.ID)
	tx.dropWarnings(m.ID)
	if m.ID != next {
		tx.retire(m.ID)
	}
}
