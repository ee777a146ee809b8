package state

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-memdb"

	"incusd/api"
)

// MaxRemoved bounds the memory of members that were removed, oldest forgotten first.
const MaxRemoved = 1000

// MemberRemove is the body of "member.remove", version 1: the removal of a member begins.
// Harmless when repeated; with Force it goes on as a forced one. It refuses with
// MemberNotFound, LastMember, QuorumNeeded if nobody could take over, and, unless forced, with
// MemberOffline and InUse.
type MemberRemove struct {
	ID    string `json:"id"`
	Force bool   `json:"force,omitempty"`
	// Cancel calls a removal off that has not ended.
	Cancel bool `json:"cancel,omitempty"`
	// RotateKey asks for another cluster key when the member has left.
	RotateKey bool `json:"rotate_key,omitempty"`
}

// MemberLeave is the body of "member.leave", version 1: the removal of a member ends, and with
// it all that the member had here. Harmless when repeated. Conflict if its removal has not
// begun or it leads; LastMember and QuorumNeeded if nobody were left. Whether the member still
// has a vote is for the proposer to know: Raft's configuration is no part of the tables. Its
// result is Removed.
type MemberLeave struct {
	ID string `json:"id"`
}

// ClusterDisable is the body of "cluster.disable", version 1: the last member becomes a
// standalone server that keeps its data. NotClustered, or Conflict while there are others.
type ClusterDisable struct {
	MemberID string `json:"member_id"`
}

// Removed is the tombstone of a member: whoever comes back under its ID or key is told so.
type Removed struct {
	// Seq orders tombstones, from 1.
	Seq         uint64 `json:"seq"`
	ID          string `json:"id"`
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	// Former is the fingerprint of the certificate before it, which the server may still show.
	Former string    `json:"former,omitempty"`
	At     time.Time `json:"at"`
	// Graceful removals let the server empty itself. A forced one leaves everything on it.
	Graceful  bool                `json:"graceful"`
	Requestor *api.EventRequestor `json:"requestor,omitempty"`
}

var removedTable = &table[Removed]{
	name:  "removed",
	topic: topicMembers,
	indexes: []index[Removed]{
		{name: primary, key: func(r *Removed) string { return ordered(r.Seq) }},
		{name: "removed", key: func(r *Removed) string { return r.ID }},
		{name: "fingerprint", key: func(r *Removed) string { return r.Fingerprint }, many: true},
		{name: "former", key: func(r *Removed) string { return r.Former }, many: true},
	},
	count: func(c *counts, _ *Removed, n int) { c.removed += n },
}

// Removed returns the tombstone of the member that had that ID.
func (v *View) Removed(id string) (*Removed, bool) { return removedTable.get(v.txn, "removed", id) }

// RemovedByFingerprint returns the newest tombstone of the server that had that certificate at its end, or just before.
func (v *View) RemovedByFingerprint(fp string) (*Removed, bool) {
	all := slices.Concat(removedTable.list(v.txn, "fingerprint", fp), removedTable.list(v.txn, "former", fp))
	if len(all) == 0 {
		return nil, false
	}
	return slices.MaxFunc(all, func(a, b *Removed) int { return int(a.Seq) - int(b.Seq) }), true
}

// Refusal tells the server what became of it.
func (r *Removed) Refusal() *api.Error {
	e := api.Errorf(api.MemberRemoved, "This server, member %q, was removed from the cluster at %s", r.Name, r.At.UTC().Format(time.DateTime+" MST"))
	if r.Graceful {
		return e
	}
	return e.WithHint("its data are kept; to make it a clean standalone server, run there: incus admin cluster reset")
}

func applyMemberRemove(tx *transaction, b *MemberRemove) (any, error) {
	m, ok := activeMember(tx.Txn, b.ID)
	if !ok {
		if _, gone := removedTable.get(tx.Txn, "removed", b.ID); gone {
			return nil, nil // the same removal again; it has ended
		}
		return nil, refuse(api.MemberNotFound)
	}
	m = m.Clone()
	if b.Cancel {
		m.Removal = nil
		memberTable.put(tx, m)
		return nil, nil
	}
	if err := tx.checkRemoval(m, b.Force); err != nil {
		return nil, err
	}
	if m.Removal == nil {
		m.Removal = &Removal{Since: tx.now, Requestor: tx.cmd.Requestor}
	}
	m.Removal.Force = m.Removal.Force || b.Force
	m.Removal.RotateKey = m.Removal.RotateKey || b.RotateKey
	memberTable.put(tx, m)
	return nil, nil
}

// absent tells whether the member takes no part in the cluster at present.
func (m *Member) absent() bool { return m.Offline || m.Fenced > 0 }

// checkRemoval tells why the removal of m may not begin.
func (tx *transaction) checkRemoval(m *Member, force bool) error {
	if !clusterOf(tx.Txn).Enabled {
		return refuse(api.NotClustered)
	}
	others := slices.DeleteFunc(membersIn(tx.Txn, MemberActive), func(o *Member) bool { return o.ID == m.ID })
	if len(others) == 0 {
		return refuse(api.LastMember)
	}
	if err := checkHeirs(m, others); err != nil {
		return err
	}
	if force || m.Removal != nil {
		return nil
	}
	if m.absent() {
		return api.Errorf(api.MemberOffline, "Member %q is offline: it cannot hand over what it has", m.Name).
			WithHint("start it, or remove it as it is: incus cluster remove %s --force", m.Name)
	}
	if names := volumesOn(tx.Txn, m.ID); len(names) > 0 {
		return api.Errorf(api.InUse, "Node still has the following custom volumes: %s", strings.Join(names, ", ")).
			WithHint("move or delete them; with --force the member is removed, and they stay on its disks until it is reset")
	}
	return nil
}

// checkHeirs refuses a removal after which nobody could vote. It holds for forced ones as well.
func checkHeirs(m *Member, others []*Member) error {
	if CanTakeOver(others) {
		return nil
	}
	var why, out []string
	for _, o := range others {
		switch {
		case o.Removal != nil:
			why = append(why, o.Name+" is being removed")
		case o.Fenced > 0:
			why, out = append(why, o.Name+" is shut out"), append(out, o.Name)
		case !o.absent():
			why = append(why, o.Name+" has the role "+api.RoleDatabaseClient)
		default:
			why = append(why, o.Name+" is offline")
		}
	}
	refusal := api.Errorf(api.QuorumNeeded, "Without member %q the cluster would have no quorum: %s", m.Name, strings.Join(why, ", "))
	if len(out) == len(others) {
		return refusal.WithHint("remove those that are shut out first: incus cluster remove --force %s", strings.Join(out, " "))
	}
	return refusal
}

// CanTakeOver tells whether one of the members can take a vote over, or has one.
func CanTakeOver(members []*Member) bool {
	return slices.ContainsFunc(members, func(m *Member) bool {
		client := slices.Contains(m.Roles, api.RoleDatabaseClient)
		return m.Removal == nil && !m.absent() && (!client || m.Role == RoleVoter)
	})
}

// volumesOn lists the custom volumes that lie on a member.
func volumesOn(txn *memdb.Txn, id string) []string {
	var names []string
	for _, e := range entitiesOf(txn, EntityVolume) {
		if _, mine := e.Members[id]; mine && !e.Deleting {
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	return names
}

func applyMemberLeave(tx *transaction, b *MemberLeave) (any, error) {
	m, ok := activeMember(tx.Txn, b.ID)
	if !ok {
		if gone, was := removedTable.get(tx.Txn, "removed", b.ID); was {
			return gone, nil // the same end again; the first answer was lost
		}
		return nil, refuse(api.MemberNotFound)
	}
	if m.Removal == nil {
		return nil, api.Errorf(api.Conflict, "Member %q is not being removed", m.Name)
	}
	if err := tx.checkLeave(m); err != nil {
		return nil, err
	}
	return tx.leave(m), nil
}

// checkLeave tells why the row of m may not go yet.
func (tx *transaction) checkLeave(m *Member) error {
	others := slices.DeleteFunc(membersIn(tx.Txn, MemberActive), func(o *Member) bool { return o.ID == m.ID })
	switch {
	case len(others) == 0:
		return refuse(api.LastMember)
	case clusterOf(tx.Txn).Leader == m.ID:
		return api.Errorf(api.Conflict, "Member %q leads the cluster", m.Name)
	case !slices.ContainsFunc(others, func(o *Member) bool { return o.Role == RoleVoter }):
		return api.Errorf(api.QuorumNeeded, "Without member %q the cluster would have no voter", m.Name)
	}
	return nil
}

// leave drops the row of m and all that it had here, and remembers that it was removed.
func (tx *transaction) leave(m *Member) *Removed {
	tx.dropMember(m, "")
	r := &Removed{Seq: 1, ID: m.ID, Name: m.Name, Fingerprint: m.Fingerprint, Former: m.Former, At: tx.now, Requestor: tx.cmd.Requestor}
	if m.Removal != nil && m.Removal.RotateKey {
		c := clusterOf(tx.Txn)
		c.RotateKey = true
		clusterTable.put(tx, &c)
	}
	if m.Removal != nil {
		r.Graceful, r.Requestor = !m.Removal.Force, m.Removal.Requestor
	}
	if last, ok := removedTable.edge(tx.Txn, primary, true); ok {
		r.Seq = last.Seq + 1
	}
	removedTable.put(tx, r)
	for tx.counts.removed > MaxRemoved {
		oldest, _ := removedTable.edge(tx.Txn, primary, false)
		removedTable.drop(tx, oldest)
	}
	tx.endHopelessTokens(m.Address)
	tx.emit("cluster-member-removed", source("/1.0/cluster/members", m.Name), nil)
	tx.events[len(tx.events)-1].Requestor = r.Requestor
	return r
}

// endHopelessTokens revokes the tokens with which nobody finds the cluster any more, now that
// there is no member at that address. A join under way has found it.
func (tx *transaction) endHopelessTokens(address string) {
	for _, t := range tokenTable.list(tx.Txn, "name") {
		hopeless := slices.Contains(t.Addresses, address) && !slices.ContainsFunc(t.Addresses, func(a string) bool {
			m, ok := memberTable.get(tx.Txn, "address", a)
			return ok && m.State == MemberActive
		})
		if hopeless && t.ClaimedBy == "" {
			tx.revoke(t)
		}
	}
}

func applyClusterDisable(tx *transaction, b *ClusterDisable) (any, error) {
	c := clusterOf(tx.Txn)
	if !c.Enabled {
		return nil, refuse(api.NotClustered)
	}
	m, ok := activeMember(tx.Txn, b.MemberID)
	if !ok {
		return nil, refuse(api.MemberNotFound)
	}
	if len(membersIn(tx.Txn, MemberActive)) > 1 {
		return nil, api.Errorf(api.Conflict, "The cluster has other members").WithHint("remove them first: incus cluster remove NAME")
	}
	for _, t := range tokenTable.list(tx.Txn, "name") {
		tx.revoke(t) // and with it the join under it
	}
	m = m.Clone()
	m.Name, m.Address, m.Removal = Standalone, "", nil
	memberTable.put(tx, m)
	c.Enabled, c.Certificate, c.Key = false, "", ""
	c.Fingerprint, c.Supplied, c.Endorsements, c.RotateKey = "", false, nil, false
	clusterTable.put(tx, &c)
	tx.emit("cluster-disabled", "/1.0/cluster", nil)
	return nil, nil
}

// CheckReplaced tells why the new member may not take the place of old, the one that t replaces.
func (t *Token) CheckReplaced(old *Member) error { return checkReplaced(old) }

// checkReplaced refuses to replace a member that takes part in the cluster.
func checkReplaced(old *Member) error {
	if old.absent() {
		return nil
	}
	return api.Errorf(api.MemberOnline, "Member %q is online: only a member that is offline can be replaced", old.Name).
		WithHint("stop that server for good and wait until incus cluster list shows it as offline, or remove it: incus cluster remove %s", old.Name)
}

// checkName tells why nobody else than the server with that fingerprint may be called name.
// replaced, if not empty, is the ID of the member whose place the server takes.
func (tx *transaction) checkName(name, fingerprint, replaced string) error {
	m, ok := memberTable.get(tx.Txn, "name", name)
	switch {
	case !ok || m.Fingerprint == fingerprint:
		return nil
	case m.ID == replaced:
		return checkReplaced(m)
	}
	return nameTaken(name)
}

// checkFreeAddress does the same for an address. Servers that join to replace a member are not
// in the index, since they may have that member's.
func (tx *transaction) checkFreeAddress(address, fingerprint, replaced string) error {
	for _, m := range memberTable.list(tx.Txn, "number") {
		if m.Address == address && m.Fingerprint != fingerprint && m.ID != replaced {
			return api.Errorf(api.AddressTaken, "The cluster already has a member with address: %s", address)
		}
	}
	return nil
}

// succeed makes m, which is about to be active, the successor of the member that it replaces:
// that one leaves in the same entry, and m takes over what administrators have said of it.
func (tx *transaction) succeed(m *Member) error {
	replaced := m.Replacing
	if replaced == "" {
		return nil
	}
	m.Replacing = ""
	if err := tx.checkName(m.Name, m.Fingerprint, replaced); err != nil {
		return err
	}
	if err := tx.checkFreeAddress(m.Address, m.Fingerprint, replaced); err != nil {
		return err
	}
	old, ok := activeMember(tx.Txn, replaced)
	if !ok {
		return nil // removed meanwhile: then m is a new member of that name
	}
	if err := checkReplaced(old); err != nil {
		return err
	}
	if err := tx.checkLeave(old); err != nil {
		return err
	}
	old = old.Clone()
	old.Removal = nil // whatever was planned, this is what happened: it was not asked
	m.Roles, m.Groups, m.Config = old.Roles, old.Groups, old.Config
	m.FailureDomain, m.Description = old.FailureDomain, old.Description
	tx.leave(old)
	return nil
}
