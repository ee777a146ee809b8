package membership

import (
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// WantedVoters is how many voters the cluster of view should have, by its configuration and by
// the members that may vote.
func WantedVoters(view *raftstore.View) int {
	all := candidates(view.View, view.Servers(), view.Leader, func(string) bool { return true })
	return voterTarget(all, targets(view.View).Voters)
}

// RoleOf is what a member does for the store: state.RoleVoter if Raft gives it a vote, else
// state.RoleStandby or state.RoleSpare.
func RoleOf(view *raftstore.View, m *state.Member) string {
	switch {
	case view.IsVoter(m.ID):
		return state.RoleVoter
	case m.Role == state.RoleStandby:
		return state.RoleStandby
	}
	return state.RoleSpare
}
