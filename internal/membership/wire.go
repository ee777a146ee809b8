package membership

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// Status words of members on the wire.
const (
	StatusOnline     = "Online"
	StatusOffline    = "Offline"
	StatusEvacuating = "Evacuating"
	StatusEvacuated  = "Evacuated"
	StatusRestoring  = "Restoring"
)

// timeFormat is that of times in members' messages.
const timeFormat = "2006-01-02 15:04:05 -0700"

// assignableRoles are the roles that an administrator gives, in the order of the wire.
var assignableRoles = []string{api.RoleEventHub, api.RoleOVNChassis, api.RoleDatabaseClient}

// Members returns the active members of view as the wire shows them, in the order in
// which they joined. now is this member's wall clock; it only dates messages.
func Members(view *raftstore.View, now time.Time) []api.ClusterMember {
	members := view.Members()
	out := make([]api.ClusterMember, len(members))
	for i, m := range members {
		out[i] = Member(view, m, now)
	}
	return out
}

// Member returns m, a member of view, as the wire shows it.
func Member(view *raftstore.View, m *state.Member, now time.Time) api.ClusterMember {
	status, message := liveness(view, m, now)
	return api.ClusterMember{
		ClusterMemberPut: writable(view, m),
		ServerName:       m.Name,
		URL:              "https://" + m.Address,
		Database:         databaseRole(view, m) != "",
		Status:           status,
		Message:          message,
		Architecture:     m.Architecture,
	}
}

// writable is the part of a member that PUT takes back.
func writable(view *raftstore.View, m *state.Member) api.ClusterMemberPut {
	put := api.ClusterMemberPut{
		Roles:         wireRoles(view, m),
		FailureDomain: m.FailureDomain,
		Description:   m.Description,
		Config:        api.ConfigMap{},
		Groups:        append([]string{}, m.Groups...),
	}
	if put.FailureDomain == "" {
		put.FailureDomain = state.DefaultFailureDomain
	}
	for k, v := range m.Config {
		put.Config[k] = v
	}
	return put
}

// wireRoles lists the stored roles first, then the leader's, then the database role.
func wireRoles(view *raftstore.View, m *state.Member) []string {
	roles := []string{}
	for _, r := range assignableRoles {
		if slices.Contains(m.Roles, r) {
			roles = append(roles, r)
		}
	}
	if view.Leader == m.ID {
		roles = append(roles, api.RoleDatabaseLeader)
	}
	if r := databaseRole(view, m); r != "" {
		roles = append(roles, r)
	}
	return roles
}

// databaseRole is what the member does for the store: whether it votes is Raft's word,
// since the state only says what is wanted.
func databaseRole(view *raftstore.View, m *state.Member) string {
	switch {
	case view.IsVoter(m.ID):
		return api.RoleDatabase
	case m.Role == state.RoleStandby && m.Fenced == 0:
		return api.RoleDatabaseStandby
	}
	return ""
}

func liveness(view *raftstore.View, m *state.Member, now time.Time) (status, message string) {
	status, message = StatusOnline, "Fully operational"
	if word := maintenanceStatus(m); word != "" {
		status, message = word, "Unavailable due to maintenance"
	} else if m.Offline {
		silent := max(now.Sub(m.Since), 0).Round(time.Second)
		status, message = StatusOffline, fmt.Sprintf("No heartbeat for %s (%s)", silent, m.Since.Format(timeFormat))
	}
	switch {
	case m.Removal != nil:
		message = "Being removed: " + removalStep(view, m)
	case view.Rivals[m.ID]:
		message = "Runs in a rival: the cluster was recovered twice, here and there; see incus cluster doctor"
	case m.Fenced != 0:
		message = m.Reason
	}
	switch {
	case view.Stale == nil:
		return status, message
	case view.Stale.Silent[m.ID] && m.Maintenance == "":
		return StatusOffline, staleSince(view.Stale) + "; does not answer this member"
	}
	return status, staleSince(view.Stale) + "; last known: " + message
}

// maintenanceStatus is the word for a member's state of maintenance, which goes before
// whether it is online; "" without one.
func maintenanceStatus(m *state.Member) string {
	switch m.Maintenance {
	case state.MaintenanceEvacuating:
		return StatusEvacuating
	case state.MaintenanceEvacuated:
		return StatusEvacuated
	case state.MaintenanceRestoring:
		return StatusRestoring
	}
	return ""
}

// staleSince says that nobody knows better at present.
func staleSince(stale *raftstore.Stale) string {
	text, _, _ := strings.Cut(cmp.Or(stale.Message, stale.Reason.Error()), ";")
	for _, self := range []string{"This member", "This server"} { // it stands in the rows of others, too
		if rest, ok := strings.CutPrefix(text, self); ok {
			text = "The member that answers" + rest
		}
	}
	switch {
	case stale.Since.IsZero():
		return text
	case stale.Reason == api.MemberRemoved:
		return text + " at " + stale.Since.Format(timeFormat)
	}
	return text + " since " + stale.Since.Format(timeFormat)
}
