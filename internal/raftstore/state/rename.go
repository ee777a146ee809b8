package state

import "incusd/api"

// MemberRename is the body of "member.rename", version 1. Everything else that belongs to a member
// hangs on its ID, and so follows: trust, roles, its part of pools and networks, its tokens. The
// member itself need not be there.
type MemberRename struct {
	ID string `json:"id"`
	// Expect is the name as the proposer saw it; MemberNotFound if the member has another one by now.
	Expect string `json:"expect"`
	Name   string `json:"name"`
}

func applyMemberRename(tx *transaction, b *MemberRename) (any, error) {
	m, ok := activeMember(tx.Txn, b.ID)
	switch {
	case !clusterOf(tx.Txn).Enabled:
		return nil, refuse(api.NotClustered)
	case !ok || m.Name != b.Expect:
		return nil, refuse(api.MemberNotFound)
	case b.Name == m.Name:
		return nil, nil
	}
	if err := api.ValidateMemberName(b.Name); err != nil {
		return nil, err
	}
	if err := tx.checkNameFree(b.Name); err != nil {
		return nil, err
	}
	old := m.Name
	m = m.Clone()
	m.Name = b.Name
	memberTable.put(tx, m)
	tx.add(Event{Action: "cluster-member-renamed", Source: source("/1.0/cluster/members", m.Name), Context: map[string]any{"old_name": old}})
	return nil, nil
}

// checkNameFree refuses a name that a member has, or that a server is about to join under.
func (tx *transaction) checkNameFree(name string) error {
	if m, ok := memberTable.get(tx.Txn, "name", name); ok {
		if m.State == MemberActive {
			return nameTaken(name)
		}
		return api.Errorf(api.NameTaken, "A server is joining the cluster under the name %q", name).
			WithHint("choose another name, or end that join: incus cluster revoke-token %s", name)
	}
	if t, ok := tokenTable.get(tx.Txn, "name", name); ok && !t.Expired(tx.now) {
		return api.Errorf(api.NameTaken, "There is a join token for the name %q", name).
			WithHint("choose another name, or revoke the token: incus cluster revoke-token %s", name)
	}
	return nil
}
