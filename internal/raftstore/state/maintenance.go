package state

import (
	"incusd/api"
)

// MemberStopping is the body of "member.stopping", version 1: a member is about to stop, or
// is back. Harmless when repeated. MemberNotFound if it is no active member.
type MemberStopping struct {
	ID       string `json:"id"`
	Stopping bool   `json:"stopping"`
}

// MemberMaintenance is the body of "member.maintenance", version 1: a member goes From one
// state of maintenance To the next. To begin what has begun is refused, with the words of
// the protocol; to end what has ended changes nothing, since a member, who works, and the
// leader, who ends what was left undone, may both say so. MemberNotFound if it is no member.
type MemberMaintenance struct {
	ID   string `json:"id"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Heal takes a member that is offline from no maintenance to evacuated at once.
	Heal bool `json:"heal,omitempty"`
}

// A move is a change from one state of maintenance to another.
type move struct{ from, to string }

// moves are the legal ones, and the event of each.
var moves = map[move]string{
	{"", MaintenanceEvacuating}:                   "",
	{MaintenanceEvacuating, MaintenanceEvacuated}: "cluster-member-evacuated",
	{MaintenanceEvacuating, ""}:                   "", // the evacuation failed
	{MaintenanceEvacuated, MaintenanceRestoring}:  "",
	{MaintenanceRestoring, ""}:                    "cluster-member-restored",
	{MaintenanceRestoring, MaintenanceEvacuated}:  "", // the restoration failed
}

func applyMemberStopping(tx *transaction, b *MemberStopping) (any, error) {
	m, ok := activeMember(tx.Txn, b.ID)
	if !ok {
		return nil, refuse(api.MemberNotFound)
	}
	if m.Stopping != b.Stopping {
		m = m.Clone()
		m.Stopping = b.Stopping
		memberTable.put(tx, m)
	}
	return nil, nil
}

func applyMemberMaintenance(tx *transaction, b *MemberMaintenance) (any, error) {
	m, ok := memberTable.get(tx.Txn, primary, b.ID)
	switch {
	case !ok:
		return nil, refuse(api.MemberNotFound)
	case m.State != MemberActive:
		return nil, api.Errorf(api.Conflict, "Cannot evacuate or restore a pending cluster member")
	}
	action, legal := moves[move{b.From, b.To}]
	if b.Heal {
		action, legal = "cluster-member-healed", b.From == "" && b.To == MaintenanceEvacuated
	}
	begins := b.To == MaintenanceEvacuating || b.To == MaintenanceRestoring
	switch {
	case !legal:
		return nil, badRequest("a member does not go from maintenance %q to %q", b.From, b.To)
	case m.Maintenance == b.To && !begins:
		return nil, nil
	case m.Maintenance != b.From:
		return nil, maintenanceRefused(m, b.To)
	case b.Heal && !m.Offline:
		return nil, api.Errorf(api.Conflict, "Cluster member %q is online again", m.Name)
	}
	m = m.Clone()
	m.Maintenance, m.MaintenanceSince = b.To, tx.now
	memberTable.put(tx, m)
	if action != "" {
		tx.emit(action, source("/1.0/cluster/members", m.Name), nil)
	}
	return nil, nil
}

// maintenanceRefused says what state m is in, when it cannot go to another.
func maintenanceRefused(m *Member, to string) error {
	text := "Cluster member is already in requested state"
	switch {
	case m.Maintenance == to:
	case m.Maintenance == MaintenanceEvacuated:
		text = "Cluster member is already evacuated"
	case m.Maintenance == "":
		text = "Cluster member is already restored"
	case m.Maintenance == MaintenanceEvacuating:
		text = "Cluster member is being evacuated"
	case m.Maintenance == MaintenanceRestoring:
		text = "Cluster member is being restored"
	}
	return api.Errorf(api.Conflict, "%s", text).WithHint("see its status: incus cluster list %s", m.Name)
}
