package membership

import (
	"fmt"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// An Explanation says why a member has the database role that it has, or is about to get
// another one.
type Explanation struct {
	ID string
	// Role is the planned one: state.RoleVoter, RoleStandby or RoleSpare.
	Role   string
	Leader bool
	// Text is one sentence.
	Text string
}

// Explain says why Plan gives each of members its role, by number.
func Explain(members []Candidate, want Targets) []Explanation {
	members = inOrder(members)
	e := explainer{roles: wantedRoles(members, want), want: want, target: voterTarget(members, want.Voters)}
	for _, m := range members {
		if m.able() {
			e.able++
		}
	}
	out := make([]Explanation, len(members))
	for i, m := range members {
		out[i] = Explanation{ID: m.ID, Role: e.roles[m.ID], Leader: m.Leader, Text: e.explain(m)}
	}
	return out
}

type explainer struct {
	roles  map[string]string
	want   Targets
	target int // voters that there shall be
	able   int // members that count for it
	ranked int // stand-bys explained so far
}

func (e *explainer) explain(m Candidate) string {
	switch {
	case e.roles[m.ID] == state.RoleVoter && !m.Voter && !m.Ready:
		return "about to vote: it waits until it answers and has the log"
	case e.roles[m.ID] == state.RoleVoter && !m.Voter:
		return fmt.Sprintf("about to vote: one of %s", plural(e.target, "wanted voter"))
	case e.roles[m.ID] == state.RoleVoter:
		return e.votes(m) + leads(m)
	case m.Voter && m.Leader:
		return "about to hand its vote and leadership to another member: " + e.without(m)
	case m.Voter:
		return "about to lose its vote: " + e.without(m)
	case e.roles[m.ID] == state.RoleStandby:
		return e.standsBy(m)
	}
	return "no role: " + e.without(m)
}

func leads(m Candidate) string {
	if m.Leader {
		return "; leads"
	}
	return ""
}

// votes says why a voter is one. What speaks against it comes first.
func (e *explainer) votes(m Candidate) string {
	switch {
	case against(m) != "":
		return "votes although " + against(m) + ": no other member can take its place"
	case !m.Online:
		return "votes although offline: no live member can take its place"
	}
	return fmt.Sprintf("votes: one of %s", plural(e.target, "wanted voter"))
}

func (e *explainer) standsBy(m Candidate) string {
	e.ranked++
	text := fmt.Sprintf("stand-by: %d of %d; next to vote if a voter fails", e.ranked, e.want.Standby)
	switch {
	case !m.Online:
		text = fmt.Sprintf("stand-by although offline: %d of %d; no live member can take its place", e.ranked, e.want.Standby)
	case e.target < min(e.want.Voters, e.able):
		text += ", and no voter now since an even number of voters survives no more failures"
	}
	return text
}

// without says why a member has no role.
func (e *explainer) without(m Candidate) string {
	switch {
	case against(m) != "":
		return against(m)
	case !m.Online:
		return "offline"
	case !m.Ready:
		return "it does not answer, or does not have the log yet"
	}
	return fmt.Sprintf("%s and %s are wanted, and others have these roles", plural(e.target, "voter"), plural(e.want.Standby, "stand-by"))
}

// against is what speaks against a role for the member; "" if nothing does.
func against(m Candidate) string {
	switch {
	case m.Fenced:
		return "shut out by a recovery"
	case m.Leaving:
		return "being removed"
	case m.Client:
		return api.RoleDatabaseClient
	case m.Stopping:
		return "stopping"
	case m.Evacuated:
		return "evacuated"
	}
	return ""
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Roles explains the database role of each active member of view, by number, as far as
// this member's replica tells: only the leader knows whether a member that is online has
// the log, so that one is taken to have it.
func Roles(view *raftstore.View) []api.ClusterMemberRole {
	members := candidates(view.View, view.Servers(), view.Leader, func(string) bool { return true })
	out := make([]api.ClusterMemberRole, 0, len(members))
	for _, e := range Explain(members, targets(view.View)) {
		m, _ := view.Member(e.ID)
		out = append(out, api.ClusterMemberRole{ServerName: m.Name, Role: wireRole(e.Role), Leader: e.Leader, Message: e.Text})
	}
	return out
}

// wireRole is the protocol's word for a planned role.
func wireRole(role string) string {
	switch role {
	case state.RoleVoter:
		return api.RoleDatabase
	case state.RoleStandby:
		return api.RoleDatabaseStandby
	}
	return ""
}
