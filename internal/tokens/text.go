package tokens

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"

	"incusd/api"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
)

// MaxText is the longest text of a token that Issue makes, in bytes, whatever the
// cluster's size: it must survive a terminal, a chat and a QR code.
const MaxText = 1024

// Text is what the token's text says. It holds the secret only while t is live.
func Text(t *state.Token) *api.ClusterMemberJoinToken {
	return &api.ClusterMemberJoinToken{
		ServerName:  t.Name,
		Fingerprint: t.Fingerprint,
		Addresses:   t.Addresses,
		Secret:      t.Secret,
		ExpiresAt:   t.ExpiresAt,
	}
}

// addresses chooses where a joiner finds the cluster: voters first, then stand-bys,
// then the others, each by number; as many as fit into text's MaxText bytes, but at
// least one. Offline members are named only when there is nobody else.
func addresses(view *raftstore.View, text *api.ClusterMemberJoinToken) []string {
	members := reachable(view.Members())
	slices.SortStableFunc(members, func(a, b *state.Member) int {
		return cmp.Or(cmp.Compare(rank(view, a), rank(view, b)), cmp.Compare(a.Number, b.Number))
	})
	all := make([]string, len(members))
	for i, m := range members {
		all[i] = m.Address
	}
	text.Addresses = []string{}
	return fitting(all, jsonSize(text))
}

// fitting chooses from all, in their order, what fits into the text of a token whose JSON has size
// bytes without them; but at least one.
func fitting(all []string, size int) []string {
	var chosen []string
	for _, a := range all {
		grown := size + jsonSize(a)
		if len(chosen) > 0 {
			grown++ // the comma
		}
		// A shorter address further on may still fit.
		if len(chosen) == 0 || base64.StdEncoding.EncodedLen(grown) <= MaxText {
			chosen, size = append(chosen, a), grown
		}
	}
	return chosen
}

// reachable returns the members with an address that are online and stay so, or else
// those that are online, or else all that have an address. Those that are being removed
// or were shut out by a recovery cannot honour a token.
func reachable(members []*state.Member) []*state.Member {
	var staying, online, all []*state.Member
	for _, m := range members {
		if m.Address == "" || m.Removal != nil || m.Fenced != 0 {
			continue
		}
		all = append(all, m)
		if m.Offline {
			continue
		}
		online = append(online, m)
		if m.Maintenance == "" && !m.Stopping {
			staying = append(staying, m)
		}
	}
	switch {
	case len(staying) > 0:
		return staying
	case len(online) > 0:
		return online
	}
	return all
}

func rank(view *raftstore.View, m *state.Member) int {
	switch {
	case view.IsVoter(m.ID):
		return 0
	case m.Role == state.RoleStandby:
		return 1
	}
	return 2
}

// jsonSize is the length of v's JSON; v is a string, or a struct of strings.
func jsonSize(v any) int {
	data, _ := json.Marshal(v)
	return len(data)
}
