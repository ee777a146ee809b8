package state

import "incusd/api"

// MemberAddress is the body of "member.address", version 1: other members reach this one
// elsewhere from now on. It refuses with MemberNotFound, AddressInvalid and AddressTaken, and
// is harmless when repeated.
type MemberAddress struct {
	ID      string `json:"id"`
	Address string `json:"address"`
}

func applyMemberAddress(tx *transaction, b *MemberAddress) (any, error) {
	if !clusterOf(tx.Txn).Enabled {
		return nil, refuse(api.NotClustered)
	}
	m, ok := activeMember(tx.Txn, b.ID)
	if !ok {
		return nil, refuse(api.MemberNotFound)
	}
	if err := checkAddress(b.Address); err != nil {
		return nil, err
	}
	if m.Address == b.Address {
		return nil, nil // the answer was lost, or the member moved back
	}
	if other, ok := memberTable.get(tx.Txn, "address", b.Address); ok {
		return nil, api.Errorf(api.AddressTaken, "The cluster already has a member with address: %s", b.Address).
			WithHint("that is %s; choose another address or port", other.Name)
	}
	m = m.Clone()
	m.Address = b.Address
	memberTable.put(tx, m)
	tx.emit("cluster-member-updated", source("/1.0/cluster/members", m.Name), nil)
	return nil, nil
}
